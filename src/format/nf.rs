//! The container `.nf`: named sections of bytes, all little endian.
//!
//! ```text
//! 0    magic "NEARFLD\0"   8 bytes
//! 8    version             u32
//! 12   sections            u32, n
//! 16   length of the file  u64
//! 24   n entries of 40 bytes: name [u8; 16] zero padded, offset u64, length u64, crc32 u32, zero u32
//! 24 + 40 n                u32, crc32 of all before
//! ...  zeros up to the next multiple of 4096, a section, zeros, a section ...
//! ```
//! Sections lie in the order of the table, each at the first multiple of 4096 after what is before
//! it, and the file ends with the last. So every byte is covered: by a checksum, or by having to be
//! zero. The table is at most a page, which leaves room for 101 sections.

use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32fast::Hasher;

use super::matrix::{Layout, Matrix};
use super::{AtomicFile, LoadError, Map, SaveError};
use crate::threads;
use crate::types::DType;

/// The version that is written, and the newest that is read.
pub const NF_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"NEARFLD\0";
const HEADER: usize = 24;
const ENTRY: usize = 40;
const NAME: usize = 16;
const PAGE: u64 = 4096;
const MAX_SECTIONS: usize = (PAGE as usize - HEADER - 4) / ENTRY;
/// Bytes that one thread sums at a time.
const SUM_BYTES: usize = 1 << 22;

/// An entry of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its name: 1 to 16 bytes of ASCII without blanks.
    pub name: String,
    /// Its first byte.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Its checksum (CRC-32, as zlib has it).
    pub crc32: u32,
}

impl Section {
    fn to_bytes(&self) -> [u8; ENTRY] {
        let mut entry = [0; ENTRY];
        entry[..self.name.len()].copy_from_slice(self.name.as_bytes());
        entry[16..24].copy_from_slice(&self.offset.to_le_bytes());
        entry[24..32].copy_from_slice(&self.len.to_le_bytes());
        entry[32..36].copy_from_slice(&self.crc32.to_le_bytes());
        entry
    }

    fn from_bytes(entry: &[u8; ENTRY]) -> Result<Section, &'static str> {
        let name = entry[..NAME].split(|&b| b == 0).next().unwrap_or(&[]);
        if !entry[name.len()..NAME].iter().all(|&b| b == 0) || entry[36..] != [0; 4] {
            return Err("should be padded with zeros");
        }
        let name = std::str::from_utf8(name).ok().filter(|name| is_name(name)).ok_or("has no valid name")?;
        Ok(Section {
            name: name.to_owned(),
            offset: u64_at(entry, 16),
            len: u64_at(entry, 24),
            crc32: u32_at(entry, 32),
        })
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic())
}

/// `at + 4` must be within `bytes`.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// `at + 8` must be within `bytes`.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The first multiple of a page that is not before `at`.
fn page_after(at: u64) -> Option<u64> {
    at.checked_next_multiple_of(PAGE)
}

/// Writes an `.nf` file section by section; the file appears with [`NfWriter::finish`].
#[derive(Debug)]
pub struct NfWriter {
    file: AtomicFile,
    /// Bytes written so far; `None` once a section failed, after which nothing can be saved.
    at: Option<u64>,
    sections: Vec<Section>,
}

impl NfWriter {
    /// Begins to write what will be the file at `path`.
    ///
    /// # Errors
    /// Those of [`AtomicFile::create`].
    pub fn create(path: impl AsRef<Path>) -> Result<NfWriter, SaveError> {
        let mut file = AtomicFile::create(path)?;
        zeros(&mut file, PAGE).map_err(|e| SaveError::io(file.path(), e))?;
        Ok(NfWriter { file, at: Some(PAGE), sections: Vec::new() })
    }

    /// Appends a section made of `parts`, one after the other; they are written as they come.
    ///
    /// # Errors
    /// [`SaveError::Section`] for a name that is not 1 to 16 graphic ASCII bytes or is there already,
    /// and for more than 101 sections; [`SaveError::Io`].
    pub fn section<B: AsRef<[u8]>>(&mut self, name: &str, parts: impl IntoIterator<Item = B>) -> Result<(), SaveError> {
        if let Some(problem) = self.problem_with(name) {
            return Err(SaveError::Section { path: self.file.path().to_owned(), name: name.to_owned(), problem });
        }
        let start = self.at.take();
        let section = self.write(name, start, parts).map_err(|e| SaveError::io(self.file.path(), e))?;
        self.at = Some(section.offset + section.len);
        self.sections.push(section);
        Ok(())
    }

    fn problem_with(&self, name: &str) -> Option<&'static str> {
        if !is_name(name) {
            Some("its name must be 1 to 16 bytes of ASCII without blanks")
        } else if self.sections.iter().any(|s| s.name == name) {
            Some("there is one of this name already")
        } else if self.sections.len() == MAX_SECTIONS {
            Some("there are 101 already, as many as a file holds")
        } else {
            None
        }
    }

    fn write<B: AsRef<[u8]>>(
        &mut self,
        name: &str,
        at: Option<u64>,
        parts: impl IntoIterator<Item = B>,
    ) -> io::Result<Section> {
        let at = at.ok_or_else(broken)?;
        let offset = page_after(at).ok_or_else(broken)?;
        zeros(&mut self.file, offset - at)?;
        let mut crc = Hasher::new();
        let mut len = 0;
        for part in parts {
            let part = part.as_ref();
            self.file.write_all(part)?;
            crc.update(part);
            len += part.len() as u64;
        }
        Ok(Section { name: name.to_owned(), offset, len, crc32: crc.finalize() })
    }

    /// Writes the table and puts the file in its place.
    ///
    /// # Errors
    /// [`SaveError::Io`], also after a section that failed; what was at the path before stays.
    pub fn finish(self) -> Result<(), SaveError> {
        self.stage()?.commit()
    }

    /// As [`NfWriter::finish`], up to the last moment: the file appears with [`AtomicFile::commit`], or together with others
    /// ([`commit_all`](super::commit_all)).
    ///
    /// # Errors
    /// [`SaveError::Io`], also after a section that failed.
    pub fn stage(mut self) -> Result<AtomicFile, SaveError> {
        self.write_table().map_err(|e| SaveError::io(self.file.path(), e))?;
        Ok(self.file)
    }

    fn write_table(&mut self) -> io::Result<()> {
        // Without sections the file still has its one page, of which the table fills a part.
        let total = self.at.ok_or_else(broken)?;
        let mut table = Vec::with_capacity(PAGE as usize);
        table.extend_from_slice(MAGIC);
        table.extend_from_slice(&NF_VERSION.to_le_bytes());
        table.extend_from_slice(&(self.sections.len() as u32).to_le_bytes());
        table.extend_from_slice(&total.to_le_bytes());
        for section in &self.sections {
            table.extend_from_slice(&section.to_bytes());
        }
        let crc = crc32fast::hash(&table);
        table.extend_from_slice(&crc.to_le_bytes());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&table)
    }
}

fn broken() -> io::Error {
    io::Error::other("an earlier section could not be written")
}

/// At most a page of zeros.
fn zeros(file: &mut AtomicFile, n: u64) -> io::Result<()> {
    file.write_all(&[0; PAGE as usize][..n.min(PAGE) as usize])
}

/// An `.nf` file, mapped, every byte of it verified.
#[derive(Clone, Debug)]
pub struct NfFile {
    path: PathBuf,
    map: Arc<Map>,
    sections: Vec<Section>,
}

impl NfFile {
    /// Maps and verifies the file at `path`: reads all of it once, on the threads of the device that an index is
    /// opened on; else on one for each processor.
    ///
    /// # Errors
    /// [`LoadError`] naming the first part that is not as it was written.
    pub fn open(path: impl AsRef<Path>) -> Result<NfFile, LoadError> {
        let path = path.as_ref();
        let map = Map::open(path).map_err(|e| LoadError::io(path, e))?;
        let (sections, table_end) = read_table(path, map.bytes())?;
        let _entered = (map.bytes().len() > SUM_BYTES).then(threads::enter_some);
        verify(path, map.bytes(), &sections, table_end)?;
        Ok(NfFile { path: path.to_owned(), map: Arc::new(map), sections })
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is still what was verified: to be asked when all that is wanted of it is read.
    ///
    /// # Errors
    /// [`LoadError::Changed`].
    pub fn check_unchanged(&self) -> Result<(), LoadError> {
        self.map.changed().map_or(Ok(()), |path| Err(LoadError::Changed { path: path.to_owned() }))
    }

    /// The sections in the order of the file.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Whether there is a section of this name.
    pub fn has(&self, name: &str) -> bool {
        self.sections.iter().any(|s| s.name == name)
    }

    fn find(&self, name: &str) -> Result<&Section, LoadError> {
        let section = self.sections.iter().find(|s| s.name == name);
        section.ok_or_else(|| LoadError::NoSection { path: self.path.clone(), name: name.to_owned() })
    }

    /// The bytes of a section; they begin at a multiple of 4096 in memory.
    ///
    /// # Errors
    /// [`LoadError::NoSection`].
    pub fn section(&self, name: &str) -> Result<&[u8], LoadError> {
        self.find(name).map(|section| bytes_of(self.map.bytes(), section))
    }

    /// A section as dense rows, without a copy: the matrix holds on to the map. For
    /// [`DType::Bits`] `dim` counts bits and must be a multiple of 8.
    ///
    /// # Errors
    /// [`LoadError::NoSection`]; [`LoadError::SectionLength`] when the section does not hold exactly
    /// such rows.
    pub fn matrix(&self, name: &str, dtype: DType, rows: usize, dim: usize) -> Result<Matrix, LoadError> {
        let section = self.find(name)?;
        let element = if dtype == DType::Bits { 1 } else { dtype.row_bytes(1) };
        let width = if dtype == DType::Bits { dim / 8 } else { dim };
        let wanted = width.checked_mul(element).and_then(|n| n.checked_mul(rows));
        let layout = Layout { offset: section.offset as usize, dtype, rows, dim, stride: width };
        let matrix = match wanted {
            Some(wanted) if wanted as u64 == section.len => Matrix::over(Arc::clone(&self.map) as _, layout),
            _ => None,
        };
        matrix.ok_or_else(|| LoadError::SectionLength {
            path: self.path.clone(),
            name: name.to_owned(),
            wanted: format!("{rows} rows of {dim} components of {dtype}"),
            found: section.len,
        })
    }
}

/// The table, and where it ends.
fn read_table(path: &Path, bytes: &[u8]) -> Result<(Vec<Section>, u64), LoadError> {
    if !bytes.starts_with(MAGIC) {
        return Err(LoadError::magic(path, bytes, MAGIC, "an index file (.nf)"));
    }
    let found = bytes.len() as u64;
    let short = |wanted| LoadError::Truncated { path: path.to_owned(), wanted, found };
    if bytes.len() < HEADER {
        return Err(short(HEADER as u64));
    }
    match u32_at(bytes, 8) {
        NF_VERSION => {}
        0 => return Err(LoadError::header(path, "it says file version 0, which there is not")),
        found => return Err(LoadError::NewerVersion { path: path.to_owned(), found, newest: NF_VERSION }),
    }
    let (count, total) = (u32_at(bytes, 12) as usize, u64_at(bytes, 16));
    LoadError::check_length(path, total, found)?;
    if count > MAX_SECTIONS {
        return Err(LoadError::header(path, format!("it says {count} sections, of at most {MAX_SECTIONS}")));
    }
    let crc_at = HEADER + count * ENTRY;
    let table = bytes.get(..crc_at + 4).ok_or_else(|| short(crc_at as u64 + 4))?;
    let (wanted, found) = (u32_at(table, crc_at), crc32fast::hash(&table[..crc_at]));
    if wanted != found {
        let section = "the table of sections".to_owned();
        return Err(LoadError::Damaged { path: path.to_owned(), section, offset: 0, wanted, found });
    }
    let entries = table[HEADER..crc_at].as_chunks::<ENTRY>().0.iter().enumerate();
    let entry = |(i, entry)| {
        Section::from_bytes(entry)
            .map_err(|problem| LoadError::header(path, format!("entry {i} of its table {problem}")))
    };
    Ok((entries.map(entry).collect::<Result<_, _>>()?, crc_at as u64 + 4))
}

/// Places, gaps and checksums.
fn verify(path: &Path, bytes: &[u8], sections: &[Section], table_end: u64) -> Result<(), LoadError> {
    let misplaced = |problem: String| LoadError::header(path, problem);
    let total = bytes.len() as u64;
    let mut end = table_end;
    for (i, section) in sections.iter().enumerate() {
        let Section { name, offset, len, .. } = section;
        if sections[..i].iter().any(|s| s.name == *name) {
            return Err(misplaced(format!("it has section `{name}` twice")));
        }
        if page_after(end) != Some(*offset) {
            return Err(misplaced(format!("section `{name}` begins at byte {offset}, not on the page after {end}")));
        }
        let next = offset.checked_add(*len).filter(|&next| next <= total);
        let next = next.ok_or_else(|| misplaced(format!("section `{name}` at byte {offset} ends after the file")))?;
        all_zero(path, bytes, end, *offset)?;
        end = next;
    }
    // With no section, the first page is all there is.
    let wanted = if sections.is_empty() { PAGE } else { end };
    LoadError::check_length(path, wanted, total)?;
    all_zero(path, bytes, end, wanted)?;
    sections.iter().try_for_each(|section| check(path, bytes, section))
}

fn check(path: &Path, bytes: &[u8], section: &Section) -> Result<(), LoadError> {
    let found = checksum(bytes_of(bytes, section));
    if found == section.crc32 {
        return Ok(());
    }
    Err(LoadError::Damaged {
        path: path.to_owned(),
        section: format!("section `{}`", section.name),
        offset: section.offset,
        wanted: section.crc32,
        found,
    })
}

/// The offsets were checked against the file, so they fit `usize`.
fn bytes_of<'a>(bytes: &'a [u8], section: &Section) -> &'a [u8] {
    &bytes[section.offset as usize..(section.offset + section.len) as usize]
}

fn all_zero(path: &Path, bytes: &[u8], start: u64, end: u64) -> Result<(), LoadError> {
    let gap = bytes.get(start as usize..end as usize).unwrap_or(&[]);
    match gap.iter().position(|&b| b != 0) {
        None => Ok(()),
        Some(i) => Err(LoadError::Padding { path: path.to_owned(), offset: start + i as u64, found: gap[i] }),
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let sum = |part: &[u8]| {
        let mut crc = Hasher::new();
        crc.update(part);
        crc
    };
    if bytes.len() <= SUM_BYTES {
        return sum(bytes).finalize();
    }
    let join = |mut a: Hasher, b: Hasher| {
        a.combine(&b);
        a
    };
    threads::map(1, bytes.chunks(SUM_BYTES), sum).into_iter().fold(Hasher::new(), join).finalize()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    type Sections<'a> = [(&'a str, &'a [u8])];

    fn save(path: &Path, sections: &Sections<'_>) {
        let mut file = NfWriter::create(path).unwrap();
        for (name, bytes) in sections {
            file.section(name, [bytes]).unwrap();
        }
        file.finish().unwrap();
    }

    /// A file with `sections`, as its bytes, and a path to write changed ones to.
    fn saved(sections: &Sections<'_>) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.nf");
        save(&path, sections);
        let bytes = fs::read(&path).unwrap();
        (dir, path, bytes)
    }

    #[track_caller]
    fn says(path: &Path, bytes: &[u8], part: &str) {
        fs::write(path, bytes).unwrap();
        let error = NfFile::open(path).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("a.nf"), "{error}");
    }

    /// Changes the table and gives it the right checksum.
    fn with_table(bytes: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        change(&mut bytes);
        let crc_at = (HEADER + u32_at(&bytes, 12) as usize * ENTRY).min(PAGE as usize - 4);
        let crc = crc32fast::hash(&bytes[..crc_at]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn sections_read_back() {
        let big: Vec<u8> = (0..2 * SUM_BYTES + 77).map(|i| (i * i / 7) as u8).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.nf");
        let mut file = NfWriter::create(&path).unwrap();
        file.section("meta", ["one ", "two"]).unwrap();
        file.section("empty", [[0u8; 0]; 0]).unwrap();
        file.section("big", big.chunks(1000)).unwrap();
        file.section("exactly.16.bytes", [vec![7u8; 4096]]).unwrap();
        file.finish().unwrap();
        let file = NfFile::open(&path).unwrap();
        assert_eq!(file.section("meta").unwrap(), b"one two");
        assert_eq!(file.section("empty").unwrap(), b"");
        assert!(file.section("big").unwrap() == big);
        assert_eq!(file.sections()[2].crc32, crc32fast::hash(&big), "chunks must combine to the plain checksum");
        assert!(file.sections().iter().all(|s| s.offset % 4096 == 0));
        assert!(file.has("exactly.16.bytes") && !file.has("exactly"));
        assert!(file.section("other").unwrap_err().to_string().contains("no section `other`"));
    }

    #[test]
    fn files_without_sections_or_bytes() {
        for sections in [&[][..], &[("a", &b""[..])], &[("a", b""), ("b", b"x"), ("c", b"")]] {
            let (_dir, path, bytes) = saved(sections);
            let file = NfFile::open(&path).unwrap();
            assert_eq!(file.sections().len(), sections.len());
            for (name, content) in sections {
                assert_eq!(file.section(name).unwrap(), *content);
            }
            says(&path, &bytes[..bytes.len() - 1], "truncated");
        }
    }

    #[test]
    fn matrices_share_the_map() {
        let floats: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let (_dir, path, _) =
            saved(&[("meta", b"x"), ("rows", bytemuck::cast_slice(&floats)), ("bits", &[1, 2, 3, 4])]);
        let file = NfFile::open(&path).unwrap();
        let matrix = file.matrix("rows", DType::F32, 2, 3).unwrap();
        let bits = file.matrix("bits", DType::Bits, 2, 16).unwrap();
        assert!(file.matrix("bits", DType::Bits, 2, 15).is_err(), "15 bits are no whole bytes");
        assert!(file.matrix("rows", DType::F32, 0, 3).is_err());
        for (rows, dim) in [(2, 2), (3, 3), (usize::MAX, 3), (2, usize::MAX / 2), (6, 0)] {
            let error = file.matrix("rows", DType::F32, rows, dim).unwrap_err().to_string();
            assert!(error.contains("section `rows`") && error.contains("24 bytes"), "{error}");
        }
        drop(file);
        fs::remove_file(&path).unwrap();
        let mut row = [0.0; 3];
        matrix.view().row_f32(1, &mut row);
        assert_eq!((row, matrix.is_mapped()), ([3.0, 4.0, 5.0], true));
        assert_eq!((bits.dim(), bits.view().dim(), bits.view().row_bytes(1)), (16, 16, &[3u8, 4][..]));
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_found() {
        let (_dir, path, good) = saved(&[("meta", b"some bytes"), ("rows", &[7; 100]), ("ids", b"12345678")]);
        assert_eq!(good.len(), 3 * 4096 + 8);
        for end in 0..good.len() {
            fs::write(&path, &good[..end]).unwrap();
            assert!(NfFile::open(&path).is_err(), "cut to {end} bytes");
        }
        let mut bad = good.clone();
        for i in 0..good.len() {
            let mask = 1 << (i % 8);
            bad[i] ^= mask;
            fs::write(&path, &bad).unwrap();
            assert!(NfFile::open(&path).is_err(), "byte {i} changed by {mask:#x}");
            bad[i] = good[i];
        }
        fs::write(&path, &bad).unwrap();
        NfFile::open(&path).unwrap();
        says(&path, &[&good[..], &[0]].concat(), "longer than its header says");
    }

    #[test]
    fn damage_is_named() {
        let (_dir, path, good) = saved(&[("meta", b"some bytes"), ("rows", &[7; 100])]);
        let change = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            bytes
        };
        says(&path, &change(0, b'M'), "is not an index file (.nf): it begins with \"MEARFLD\\x00\"");
        says(&path, &change(8, 2), "was written by a newer nearfield (file version 2, this program reads up to 1)");
        says(&path, &change(8, 0), "version 0");
        says(&path, &change(30, 1), "the table of sections at byte 0 has checksum");
        says(&path, &change(4097, 1), "section `meta` at byte 4096 has checksum");
        says(&path, &change(8192 + 99, 1), "section `rows` at byte 8192 has checksum");
        says(&path, &change(4096 + 10, 3), "byte 4106 should be zero, found 3");
        says(&path, &change(4095, 3), "byte 4095 should be zero, found 3");
        says(&path, b"", "it is empty, wanted an index file (.nf)");
    }

    #[test]
    fn tables_that_lie_are_refused() {
        let (_dir, path, good) = saved(&[("meta", b"some bytes"), ("rows", &[7; 100])]);
        let (first, second) = (HEADER, HEADER + ENTRY);
        let set = |at: usize, value: u64| with_table(&good, |b| b[at..at + 8].copy_from_slice(&value.to_le_bytes()));
        says(&path, &set(second + 16, 4096), "section `rows` begins at byte 4096");
        says(&path, &set(first + 16, 8192), "section `meta` begins at byte 8192");
        says(&path, &set(first + 16, 0), "section `meta` begins at byte 0");
        says(&path, &set(first + 24, u64::MAX), "section `meta` at byte 4096 ends after the file");
        says(&path, &set(second + 24, u64::MAX - 8192), "section `rows` at byte 8192 ends after the file");
        says(&path, &set(second + 24, 99), "longer than its header says");
        says(&path, &set(first + 24, 4150), "section `rows` begins at byte 8192, not on the page after 8246");
        says(&path, &set(16, u64::MAX), "truncated");
        says(&path, &with_table(&good, |b| b[12..16].fill(255)), "4294967295 sections, of at most 101");
        says(&path, &with_table(&good, |b| b[second..second + 4].copy_from_slice(b"meta")), "section `meta` twice");
        says(&path, &with_table(&good, |b| b[first..first + 16].fill(0)), "entry 0 of its table has no valid name");
        says(&path, &with_table(&good, |b| b[first + 1] = b' '), "entry 0 of its table has no valid name");
        says(&path, &with_table(&good, |b| b[first + 10] = b'x'), "entry 0 of its table should be padded with zeros");
        says(&path, &with_table(&good, |b| b[second + 39] = 1), "entry 1 of its table should be padded with zeros");
    }

    #[test]
    fn writers_refuse_bad_sections_and_broken_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.nf");
        fs::write(&path, "old").unwrap();
        let mut file = NfWriter::create(&path).unwrap();
        for name in ["", "seventeen.bytes.x", "two words", "stück", "a\0"] {
            assert!(file.section(name, [b"x"]).unwrap_err().to_string().contains("1 to 16 bytes"), "{name}");
        }
        for i in 0..MAX_SECTIONS {
            file.section(&i.to_string(), [[i as u8]]).unwrap();
        }
        assert!(file.section("0", [b"x"]).unwrap_err().to_string().contains("of this name already"));
        assert!(file.section("last", [b"x"]).unwrap_err().to_string().contains("101 already"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        file.finish().unwrap();
        let file = NfFile::open(&path).unwrap();
        assert_eq!((file.sections().len(), file.section("100").unwrap()), (101, &[100u8][..]));

        let mut file = NfWriter::create(&path).unwrap();
        file.at = None;
        assert!(file.section("a", [b"x"]).is_err());
        assert!(file.finish().unwrap_err().to_string().contains("an earlier section"));
        assert_eq!(NfFile::open(&path).unwrap().sections().len(), 101, "the old file is still there");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "and nothing else");
    }
}
