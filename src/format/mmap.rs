//! Read-only memory maps. The one file of this module with unsafe code.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

/// A whole file in memory, read-only, its pages loaded as they are touched. Page-aligned.
///
/// The file must not be shortened or written in place while it is mapped: the bytes would change
/// under their readers, and touching a page past a new end ends the process. Replacing the file by
/// renaming another over it is safe, and is what [`AtomicFile`](super::AtomicFile) does.
#[derive(Debug)]
pub struct Map(Option<memmap2::Mmap>);

impl Map {
    /// Maps the file at `path`; an empty file gives no bytes.
    ///
    /// # Errors
    /// Those of opening and mapping; a folder cannot be mapped.
    pub fn open(path: &Path) -> io::Result<Map> {
        let file = File::open(path)?;
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if meta.len() == 0 {
            return Ok(Map(None));
        }
        // SAFETY: the map is private to this value, read-only, and only handed out as `&[u8]` bound to
        // its life. That nobody changes the file meanwhile cannot be enforced by any program; it is the
        // documented condition of this type, and no value of a byte is invalid for the types read from it.
        unsafe { memmap2::Mmap::map(&file) }.map(|map| Map(Some(map)))
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or(&[])
    }
}
