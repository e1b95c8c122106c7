//! `.npz`: a zip archive of `.npy` files, stored or deflated.

use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zip::{CompressionMethod, ZipArchive, result::ZipError};

use super::matrix::Backing;
use super::mmap::Words;
use super::{LoadError, Map};

/// Deflate cannot do better than one bit for 129 bytes or so; what claims more is damaged.
const DEFLATE_RATIO: u64 = 1032;

impl Backing for Words {
    fn bytes(&self) -> &[u8] {
        Words::bytes(self)
    }
}

/// The file that a path names, which is another where it names an array as `file.npz:array`.
pub fn file_of(path: &Path) -> PathBuf {
    split(path).0
}

/// Splits `file.npz:member`.
pub(super) fn split(path: &Path) -> (PathBuf, Option<&str>) {
    if let Some((file, member)) = path.to_str().and_then(|text| {
        let at = text.to_ascii_lowercase().rfind(".npz:")? + 4;
        Some((&text[..at], &text[at + 1..]))
    }) {
        return (PathBuf::from(file), Some(member));
    }
    (path.to_owned(), None)
}

/// The bytes of a member, or of the only member where none is named.
pub(super) fn read(path: &Path) -> Result<Arc<dyn Backing>, LoadError> {
    let (file, member) = split(path);
    let map = Map::open(&file).map_err(|e| LoadError::io(&file, e))?;
    let found = map.bytes().len() as u64;
    let zip_error = |e| match e {
        ZipError::Io(e) if e.kind() != io::ErrorKind::UnexpectedEof => LoadError::io(&file, e),
        e => LoadError::Archive { path: file.clone(), problem: e.to_string() },
    };
    let mut archive = ZipArchive::new(Cursor::new(map.bytes())).map_err(zip_error)?;
    let index = find(&file, &archive, member)?;
    let mut entry = archive.by_index(index).map_err(zip_error)?;
    let (size, packed) = (entry.size(), entry.compressed_size());
    let ratio = if entry.compression() == CompressionMethod::Stored { 1 } else { DEFLATE_RATIO };
    let damaged = |problem: String| LoadError::Archive { path: path.to_owned(), problem };
    if packed > found || size > packed.saturating_mul(ratio) {
        return Err(damaged(format!("it claims {size} bytes in {packed} packed ones, of a file of {found}")));
    }
    let len = usize::try_from(size).map_err(|_| damaged(format!("{size} bytes are too many for this machine")))?;
    let mut words = Words::zeros(len);
    entry.read_exact(words.bytes_mut()).map_err(|e| damaged(e.to_string()))?;
    // Only a read at the end makes the archive check the sum of what it gave.
    match entry.read(&mut [0]) {
        Ok(0) => Ok(Arc::new(words)),
        Ok(_) => Err(damaged(format!("more than the {size} bytes that it claims"))),
        Err(e) => Err(damaged(e.to_string())),
    }
}

fn find(file: &Path, archive: &ZipArchive<Cursor<&[u8]>>, member: Option<&str>) -> Result<usize, LoadError> {
    let index = match member {
        Some(name) => archive.index_for_name(name).or_else(|| archive.index_for_name(&format!("{name}.npy"))),
        None if archive.len() == 1 => Some(0),
        None => None,
    };
    index.ok_or_else(|| {
        let plain = |name: &str| name.strip_suffix(".npy").unwrap_or(name).to_owned();
        let members = archive.file_names().flatten().map(|name| plain(&name)).collect();
        LoadError::Member { path: file.to_owned(), wanted: member.map(str::to_owned), members }
    })
}
