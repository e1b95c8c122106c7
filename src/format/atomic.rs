//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::SaveError;

/// A file in the making: written beside its place, synced, and renamed over it by
/// [`AtomicFile::commit`]; removed when dropped before. A reader sees the old file or the new one,
/// also after a power cut, and a map of the old one stays good.
#[derive(Debug)]
pub struct AtomicFile {
    /// As the caller named it, for errors.
    path: PathBuf,
    /// Where the file goes: the path with symbolic links followed.
    target: PathBuf,
    /// Where it is being written; `None` once it has been renamed.
    part: Option<PathBuf>,
    file: BufWriter<File>,
}

impl AtomicFile {
    /// Begins to write what will be the file at `path`.
    ///
    /// # Errors
    /// [`SaveError`] when there is a folder, a device or a read-only file at `path`, or its folder
    /// cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<AtomicFile, SaveError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let path = path.as_ref().to_owned();
        match fs::metadata(&path) {
            Ok(meta) if !meta.is_file() => return Err(SaveError::NotAFile { path }),
            Ok(meta) if meta.permissions().readonly() => return Err(SaveError::ReadOnly { path }),
            _ => {}
        }
        let target = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let Some(name) = target.file_name() else { return Err(SaveError::NotAFile { path }) };
        let mut name = name.to_owned();
        name.push(format!(".{}-{}.part", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let part = target.with_file_name(name);
        let file = File::create_new(&part).map_err(|e| SaveError::io(&path, e))?;
        Ok(AtomicFile { path, target, part: Some(part), file: BufWriter::with_capacity(1 << 16, file) })
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the file in its place, replacing what was there.
    ///
    /// # Errors
    /// [`SaveError::Io`]; what was there before stays.
    pub fn commit(mut self) -> Result<(), SaveError> {
        self.replace().map_err(|e| SaveError::io(&self.path, e))
    }

    fn replace(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        if let Some(part) = &self.part {
            fs::rename(part, &self.target)?;
            self.part = None;
        }
        sync_folder(&self.target)
    }
}

/// Makes the new name last through a power cut, where the system lets a folder be synced.
fn sync_folder(target: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems cannot, and a folder may be writable but not readable.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied) => Ok(()),
        done => done,
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            // Nothing can be done about a failure here, and the name says what was left.
            let _ = fs::remove_file(part);
        }
    }
}

/// Whether a file can be written at `path`, without touching what is there: for refusing before long work.
///
/// # Errors
/// Those of [`AtomicFile::create`].
pub fn check_writable(path: impl AsRef<Path>) -> Result<(), SaveError> {
    AtomicFile::create(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_replaced_on_commit_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        file.flush().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()).len(), 2);
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["a"]);
    }

    #[test]
    fn what_is_not_committed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = AtomicFile::create(dir.path().join("a")).unwrap();
        file.write_all(b"new").unwrap();
        drop(file);
        check_writable(dir.path().join("b")).unwrap();
        assert!(names(dir.path()).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn places_that_cannot_be_written_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let says = |path: &Path, part: &str| {
            let error = check_writable(path).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains(&path.display().to_string()), "{error}");
        };
        says(dir.path(), "not a regular file");
        says(&dir.path().join("no/a"), "No such file");
        says(Path::new("/"), "not a regular file");
        says(Path::new("/dev/null"), "not a regular file");
        let path = dir.path().join("a");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
        says(&path, "read-only");
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a"), dir.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let mut file = AtomicFile::create(&link).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
