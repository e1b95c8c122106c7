//! Errors of files, in sentences that name the file, the place, the value found and the value wanted.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The operating system said no.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The name does not tell what the file is.
    #[error(
        "cannot tell what `{}` is from its name: found {}, wanted {wanted}", path.display(),
        if found.is_empty() { "no extension".to_owned() } else { format!("the extension `.{found}`") }
    )]
    Extension {
        /// The file.
        path: PathBuf,
        /// Its extension, without the dot.
        found: String,
        /// The extensions that are read here.
        wanted: &'static str,
    },
    /// The file does not begin as its kind does.
    #[error("`{}` is not {wanted}: it begins with \"{found}\"", path.display())]
    Magic {
        /// The file.
        path: PathBuf,
        /// The first bytes, escaped.
        found: String,
        /// What the file should have been.
        wanted: &'static str,
    },
    /// Written by a later program.
    #[error(
        "`{}` was written by a newer nearfield (file version {found}, this program reads up to {newest})",
        path.display()
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The newest version that this program reads.
        newest: u32,
    },
    /// A header that makes no sense.
    #[error("the header of `{}` cannot be understood: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was wanted.
        problem: String,
    },
    /// The file ends too early.
    #[error("`{}` is truncated: {wanted} bytes wanted, {found} found", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that its header asks for.
        wanted: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// The file goes on where it should end.
    #[error("`{}` is longer than its header says: {wanted} bytes wanted, {found} found", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Bytes that its header asks for.
        wanted: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// Elements of a type that is not read here.
    #[error("`{}` holds elements of dtype {found}; those read here are {wanted}", path.display())]
    DType {
        /// The file.
        path: PathBuf,
        /// The dtype as the file states it.
        found: String,
        /// The dtypes that are read here.
        wanted: &'static str,
    },
    /// An array of the wrong shape.
    #[error("`{}` has shape {found}; wanted {wanted}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The shape, as Python prints it.
        found: String,
        /// The shapes that are read here.
        wanted: String,
    },
    /// A row of a vecs file whose own dim is not that of the first.
    #[error("row {row} of `{}` says dim = {found}; wanted {wanted}", path.display())]
    RowDim {
        /// The file.
        path: PathBuf,
        /// The row, from 0.
        row: usize,
        /// The dim before that row.
        found: i32,
        /// The dim that it should have been.
        wanted: String,
    },
    /// A value that the result cannot hold.
    #[error("row {row}, column {column} of `{}` is {value}; wanted {wanted}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The row, from 0.
        row: usize,
        /// The column, from 0.
        column: usize,
        /// The value as it stands in the file.
        value: String,
        /// The values that fit.
        wanted: &'static str,
    },
    /// A damaged archive.
    #[error("`{}` cannot be unpacked: {problem}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An archive without the array that was named, or with several and no name given.
    #[error(
        "{} in `{}`; name one as `file.npz:array`, there {}",
        match wanted { Some(name) => format!("there is no array `{name}`"), None => "no array was chosen".to_owned() },
        path.display(),
        if members.is_empty() { "is none".to_owned() } else { format!("are {}", members.join(", ")) }
    )]
    Member {
        /// The archive.
        path: PathBuf,
        /// The array asked for.
        wanted: Option<String>,
        /// The arrays that there are.
        members: Vec<String>,
    },
    /// Bytes that are not those that were written.
    #[error(
        "`{}` is damaged: {section} at byte {offset} has checksum {found:08x}, wanted {wanted:08x}", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The part: "section `name`", or the table of sections.
        section: String,
        /// Where the part begins.
        offset: u64,
        /// The checksum that was written with it.
        wanted: u32,
        /// The checksum of what is there.
        found: u32,
    },
    /// Something between the sections, where zeros should be.
    #[error("`{}` is damaged: byte {offset} should be zero, found {found}", path.display())]
    Padding {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// The byte found.
        found: u8,
    },
    /// A section that the file should have.
    #[error("`{}` has no section `{name}`", path.display())]
    NoSection {
        /// The file.
        path: PathBuf,
        /// The section.
        name: String,
    },
    /// A section that is not as long as its matrix.
    #[error("section `{name}` of `{}` has {found} bytes; wanted {wanted}", path.display())]
    SectionLength {
        /// The file.
        path: PathBuf,
        /// The section.
        name: String,
        /// What the length should have been.
        wanted: String,
        /// The section's length in bytes.
        found: u64,
    },
    /// The file was written or shortened while it was read.
    #[error("`{}` was changed while it was read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// An index file of Faiss that is damaged, or of a kind that is not read here.
    #[error("`{}` cannot be imported: {wrong}", path.display())]
    Faiss {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        wrong: super::NotFaiss,
    },
}

impl LoadError {
    pub(super) fn io(path: &Path, source: io::Error) -> LoadError {
        LoadError::Io { path: path.to_owned(), source }
    }

    pub(super) fn header(path: &Path, problem: impl Into<String>) -> LoadError {
        LoadError::Header { path: path.to_owned(), problem: problem.into() }
    }

    /// [`LoadError::Truncated`] or [`LoadError::TooLong`] unless the lengths agree.
    pub(super) fn check_length(path: &Path, wanted: u64, found: u64) -> Result<(), LoadError> {
        match wanted.cmp(&found) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(LoadError::Truncated { path: path.to_owned(), wanted, found }),
            std::cmp::Ordering::Less => Err(LoadError::TooLong { path: path.to_owned(), wanted, found }),
        }
    }

    /// `bytes` does not begin with `magic`: too short, or something else.
    pub(super) fn magic(path: &Path, bytes: &[u8], magic: &[u8], wanted: &'static str) -> LoadError {
        if bytes.is_empty() {
            return LoadError::Header { path: path.to_owned(), problem: format!("it is empty, wanted {wanted}") };
        }
        if magic.starts_with(bytes) {
            return LoadError::Truncated {
                path: path.to_owned(),
                wanted: magic.len() as u64,
                found: bytes.len() as u64,
            };
        }
        let found = bytes.iter().take(magic.len()).copied().collect::<Vec<u8>>().escape_ascii().to_string();
        LoadError::Magic { path: path.to_owned(), found, wanted }
    }
}

/// Why a file could not be written. What was there before is still there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The operating system said no.
    #[error("cannot write `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder or a disk where a file should go.
    #[error("cannot write `{}`: it is there already and not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// An existing file that is marked read-only.
    #[error("cannot write `{}`: it is there already and read-only", path.display())]
    ReadOnly {
        /// The file.
        path: PathBuf,
    },
    /// An array that does not fill its shape.
    #[error("cannot write `{}`: shape {shape:?} does not hold {len} elements", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The shape asked for.
        shape: Vec<usize>,
        /// Elements given.
        len: usize,
    },
    /// A section that the container cannot take.
    #[error("cannot write section `{name}` of `{}`: {problem}", path.display())]
    Section {
        /// The file.
        path: PathBuf,
        /// The section.
        name: String,
        /// Why not.
        problem: &'static str,
    },
}

impl SaveError {
    pub(super) fn io(path: &Path, source: io::Error) -> SaveError {
        SaveError::Io { path: path.to_owned(), source }
    }
}
