//! Files that appear whole or not at all, alone or several together.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Cursor, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::SaveError;

/// Links that are followed, as many as Linux does.
const MOST_LINKS: usize = 40;

/// Every `.part` file of this process. Locked while files begin, appear or go.
static PARTS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A file in the making: written beside its place, synced, and renamed over it by
/// [`AtomicFile::commit`]; removed when dropped before. A reader sees the old file or the new one,
/// also after a power cut, and a map of the old one stays good. The new file has the permissions of
/// the old one. Links are followed, also to where no file is yet.
///
/// A process that is killed leaves `NAME.PID-N.part` beside the file; the next one that writes the
/// file removes it. Parts are locked as long as they are written, so none of a living process goes.
///
/// What goes to a pipe or to a device such as `/dev/null` and `/dev/stdout` is collected in memory
/// and written by the commit.
#[derive(Debug)]
pub struct AtomicFile {
    /// As the caller named it, for errors.
    path: PathBuf,
    to: Place,
}

#[derive(Debug)]
enum Place {
    /// Where the file goes, links followed, and where it is being written; no part once it has been renamed.
    Beside { target: PathBuf, part: Option<PathBuf>, file: BufWriter<File> },
    /// What will be written to a pipe or a device.
    Stream(Cursor<Vec<u8>>),
}

impl AtomicFile {
    /// Begins to write what will be the file at `path`.
    ///
    /// # Errors
    /// [`SaveError`] when there is a folder, a disk or a read-only file at `path`, or its folder
    /// cannot be written.
    pub fn create(path: impl AsRef<Path>) -> Result<AtomicFile, SaveError> {
        let path = path.as_ref().to_owned();
        let old = match fs::metadata(&path) {
            Ok(meta) if is_stream(&meta) => return Ok(AtomicFile { path, to: Place::Stream(Cursor::default()) }),
            Ok(meta) if !meta.is_file() => return Err(SaveError::NotAFile { path }),
            Ok(meta) if meta.permissions().readonly() => return Err(SaveError::ReadOnly { path }),
            Ok(meta) => Some(meta),
            Err(_) => None,
        };
        let target = followed(&path).map_err(|e| SaveError::io(&path, e))?;
        let Some(name) = target.file_name() else { return Err(SaveError::NotAFile { path }) };
        let (part, file) = begin(&target, name).map_err(|e| SaveError::io(&path, e))?;
        let file = BufWriter::with_capacity(1 << 16, file);
        let made = AtomicFile { path, to: Place::Beside { target, part: Some(part), file } };
        made.take_mode(old.as_ref()).map_err(|e| SaveError::io(&made.path, e))?;
        Ok(made)
    }

    /// The path as it was given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the file in its place, replacing what was there.
    ///
    /// # Errors
    /// [`SaveError::Io`]; what was there before stays.
    pub fn commit(self) -> Result<(), SaveError> {
        commit_all(vec![self])
    }

    /// Gives the part the permissions of the file that it replaces; a new file has the usual ones.
    fn take_mode(&self, old: Option<&Metadata>) -> io::Result<()> {
        match (&self.to, old) {
            (Place::Beside { file, .. }, Some(old)) if cfg!(unix) => file.get_ref().set_permissions(old.permissions()),
            _ => Ok(()),
        }
    }

    /// Brings what was written to the disk, under the name of the part.
    fn seal(&mut self) -> io::Result<()> {
        match &mut self.to {
            Place::Beside { file, .. } => file.flush().and_then(|()| file.get_ref().sync_all()),
            Place::Stream(_) => Ok(()),
        }
    }

    /// Gives a pipe or a device what was collected for it.
    fn pour(&mut self) -> io::Result<()> {
        match &self.to {
            Place::Beside { .. } => Ok(()),
            Place::Stream(bytes) => OpenOptions::new().write(true).open(&self.path)?.write_all(bytes.get_ref()),
        }
    }
}

/// Whether this is written as it comes: a pipe, a terminal, `/dev/null`.
fn is_stream(meta: &Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::FileTypeExt::is_fifo(&meta.file_type())
        || std::os::unix::fs::FileTypeExt::is_char_device(&meta.file_type());
    #[cfg(not(unix))]
    return false;
}

/// Where a file at `path` goes: links followed, in its real folder.
fn followed(path: &Path) -> io::Result<PathBuf> {
    let mut target = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&target) {
            Ok(to) => target = folder(&target).join(to),
            Err(_) => {
                let folder = fs::canonicalize(folder(&target))?;
                return Ok(target.file_name().map_or(folder.clone(), |name| folder.join(name)));
            }
        }
    }
    Err(io::Error::other("too many links"))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name beside `target` that no other of this process has.
fn part_of(target: &Path, name: &OsStr) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut part = name.to_owned();
    part.push(format!(".{}-{}.part", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    target.with_file_name(part)
}

/// A new part beside `target`, locked and in the list; those of dead processes are gone.
fn begin(target: &Path, name: &OsStr) -> io::Result<(PathBuf, File)> {
    let mut parts = parts();
    sweep(folder(target), name, &parts);
    loop {
        let part = part_of(target, name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        // Whom the file may be shown to is known a moment later.
        #[cfg(unix)]
        if target.exists() {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        let file = match options.open(&part) {
            // A process of another machine or container.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        };
        // Until it is locked another process may take it for one of the dead and remove it. Where the file system has no
        // locks, nobody removes any.
        if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) || !part.exists() {
            continue;
        }
        parts.insert(part.clone());
        return Ok((part, file));
    }
}

/// Removes the parts of a file of this name that nobody writes any more.
fn sweep(folder: &Path, name: &OsStr, own: &BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|e| is_part_of(&e.file_name(), name) && !own.contains(&e.path())) {
        // A pipe would not open before somebody reads it.
        if entry.file_type().is_ok_and(|t| t.is_file())
            && let Ok(file) = OpenOptions::new().write(true).open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether `found` is `NAME.PID-N.part`.
fn is_part_of(found: &OsStr, name: &OsStr) -> bool {
    let rest = found.as_encoded_bytes().strip_prefix(name.as_encoded_bytes());
    let numbers = rest.and_then(|r| r.strip_prefix(b".")?.strip_suffix(b".part"));
    numbers.is_some_and(|n| n.contains(&b'-') && n.iter().all(|&b| b == b'-' || b.is_ascii_digit()))
}

fn parts() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    PARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts all files in their places: written and synced before the first appears. When one cannot appear, those before it
/// are again what they were. Only a kill or a power cut between two renames can leave some files old and some new, each
/// of them whole.
///
/// # Errors
/// [`SaveError::Io`]; what was at the paths before stays, but pipes may have been written.
pub fn commit_all(mut files: Vec<AtomicFile>) -> Result<(), SaveError> {
    for step in [AtomicFile::seal, AtomicFile::pour] {
        files.iter_mut().try_for_each(|file| step(file).map_err(|e| SaveError::io(&file.path, e)))?;
    }
    let mut listed = parts();
    let mut done: Vec<(PathBuf, Option<Old>)> = Vec::new();
    let mut failed = None;
    let last = files.len().saturating_sub(1);
    for (i, file) in files.iter_mut().enumerate() {
        let Place::Beside { target, part: unnamed, .. } = &mut file.to else { continue };
        let Some(part) = unnamed else { continue };
        // After the last nothing can fail.
        match appear(part, target, i < last) {
            Ok(old) => {
                listed.remove(part);
                *unnamed = None;
                done.push((target.clone(), old));
            }
            Err(e) => {
                failed = Some(SaveError::io(&file.path, e));
                break;
            }
        }
    }
    for (target, old) in done.iter().rev() {
        match old {
            Some(old) if failed.is_some() => old.restore(target),
            Some(old) => drop(fs::remove_file(&old.path)),
            None if failed.is_some() => drop(fs::remove_file(target)),
            None => {}
        }
    }
    drop(listed);
    if let Some(error) = failed {
        return Err(error);
    }
    files.iter().try_for_each(|file| match &file.to {
        Place::Beside { target, .. } => sync_folder(target).map_err(|e| SaveError::io(&file.path, e)),
        Place::Stream(_) => Ok(()),
    })
}

/// Another name of a file that is being replaced.
struct Old {
    path: PathBuf,
    /// So that no other process takes it for a part of the dead.
    _locked: Option<File>,
}

impl Old {
    /// Of the file at `target`, if there is one.
    fn of(target: &Path) -> io::Result<Option<Old>> {
        let (true, Some(name)) = (target.is_file(), target.file_name()) else { return Ok(None) };
        let path = part_of(target, name);
        let locked = File::open(target).ok().filter(|file| file.try_lock_shared().is_ok());
        // A file system without links leaves a moment without a file.
        fs::hard_link(target, &path).or_else(|_| fs::rename(target, &path))?;
        Ok(Some(Old { path, _locked: locked }))
    }

    /// Nothing can be done about a failure here, and the name says what was left.
    fn restore(&self, target: &Path) {
        if fs::rename(&self.path, target).is_ok() {
            // Two names of one file both stay.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Renames a part over its target, whose file is kept under another name if `keep`.
fn appear(part: &Path, target: &Path, keep: bool) -> io::Result<Option<Old>> {
    let old = if keep { Old::of(target)? } else { None };
    fs::rename(part, target).inspect_err(|_| old.iter().for_each(|old| old.restore(target)))?;
    Ok(old)
}

/// Removes what this process is writing, and lets no file begin or appear any more: for a handler of signals, just before
/// it ends the process. Files that are appearing at the moment all appear first. Whoever writes afterwards waits for ever.
pub fn abandon_files() {
    let parts = parts();
    for part in parts.iter() {
        let _ = fs::remove_file(part);
    }
    std::mem::forget(parts);
}

/// Makes the new name last through a power cut, where the system lets a folder be synced.
fn sync_folder(target: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    match File::open(folder(target)).and_then(|folder| folder.sync_all()) {
        // Some network file systems cannot, and a folder may be writable but not readable.
        Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::PermissionDenied) => Ok(()),
        done => done,
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.to {
            Place::Beside { file, .. } => file.write(bytes),
            Place::Stream(collected) => collected.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            Place::Beside { file, .. } => file.flush(),
            Place::Stream(_) => Ok(()),
        }
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match &mut self.to {
            Place::Beside { file, .. } => file.seek(to),
            Place::Stream(collected) => collected.seek(to),
        }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Place::Beside { part: Some(part), .. } = &self.to {
            let mut parts = parts();
            parts.remove(part);
            // Nothing can be done about a failure here, and the name says what was left.
            let _ = fs::remove_file(part);
        }
    }
}

/// Where a file at `path` would go, links followed; without touching what is there: for refusing before long work.
///
/// # Errors
/// Those of [`AtomicFile::create`].
pub fn check_writable(path: impl AsRef<Path>) -> Result<PathBuf, SaveError> {
    let file = AtomicFile::create(path)?;
    Ok(match &file.to {
        Place::Beside { target, .. } => target.clone(),
        Place::Stream(_) => fs::canonicalize(&file.path).unwrap_or_else(|_| file.path.clone()),
    })
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
        let path = dir.path().join("a");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
        says(&path, "read-only");
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    fn staged(path: &Path, bytes: &[u8]) -> AtomicFile {
        let mut file = AtomicFile::create(path).unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a"), dir.path().join("link"));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        staged(&link, b"new").commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_where_no_file_is_yet_is_followed() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        let at = |name: &str| dir.path().join(name);
        // Relative to the link's own folder, and over two links.
        symlink("sub/a", at("one")).unwrap();
        symlink("one", at("two")).unwrap();
        staged(&at("two"), b"new").commit().unwrap();
        assert_eq!(fs::read(at("sub/a")).unwrap(), b"new");
        assert!(at("one").is_symlink() && at("two").is_symlink());
        symlink("round", at("round")).unwrap();
        assert!(check_writable(at("round")).unwrap_err().to_string().contains("links"));
        symlink("no/a", at("lost")).unwrap();
        assert!(check_writable(at("lost")).unwrap_err().to_string().contains("No such file"));
        assert_eq!(names(dir.path()).len(), 5);
    }

    #[cfg(unix)]
    #[test]
    fn the_mode_of_a_replaced_file_stays() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "old").unwrap();
        for mode in [0o600, 0o640, 0o755, 0o666] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            staged(&path, b"new").commit().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn parts_of_the_dead_go_and_those_of_the_living_stay() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let strange = ["a.part", "a.1-x.part", "a.12.part", "ab.1-2.part", "a.1-2.part.x"];
        for name in strange.iter().chain(&["a.1-2.part", "a.4194304-17.part"]) {
            fs::write(at(name), "of a killed process").unwrap();
        }
        // Another process holds its part locked.
        let other = File::create(at("a.77-0.part")).unwrap();
        other.try_lock().unwrap();
        let first = staged(&at("a"), b"first");
        staged(&at("a"), b"second").commit().unwrap();
        let mut expected = vec!["a".to_owned(), "a.77-0.part".to_owned()];
        expected.extend(strange.map(str::to_owned));
        let own = format!("a.{}-", std::process::id());
        let mut found = names(dir.path());
        assert_eq!(found.iter().filter(|name| name.starts_with(&own)).count(), 1, "{found:?}");
        found.retain(|name| !name.starts_with(&own));
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
        first.commit().unwrap();
        assert_eq!(fs::read(at("a")).unwrap(), b"first");
        drop(other);
        check_writable(at("a")).unwrap();
        assert!(!at("a.77-0.part").exists(), "now it is of the dead");
    }

    #[test]
    fn several_files_appear_together_or_stay_what_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "old a").unwrap();
        fs::write(at("c"), "old c").unwrap();
        fs::write(at("d"), "old d").unwrap();
        let all = || ["a", "b", "c", "d"].map(|name| staged(&at(name), name.as_bytes()));
        let files = all();
        // Something gets in the way of the third, which cannot be renamed then.
        fs::remove_file(at("c")).unwrap();
        fs::create_dir(at("c")).unwrap();
        let error = commit_all(files.into()).unwrap_err().to_string();
        assert!(error.contains("/c`"), "{error}");
        let mut found = names(dir.path());
        found.sort();
        assert_eq!(found, ["a", "c", "d"], "`b`, which was not there, is not there again");
        assert_eq!(fs::read(at("a")).unwrap(), b"old a");
        assert_eq!(fs::read(at("d")).unwrap(), b"old d");
        assert!(at("c").is_dir());
        fs::remove_dir(at("c")).unwrap();
        commit_all(all().into()).unwrap();
        for name in ["a", "b", "c", "d"] {
            assert_eq!(fs::read(at(name)).unwrap(), name.as_bytes());
        }
        assert_eq!(names(dir.path()).len(), 4);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn devices_and_pipes_are_written_by_the_commit() {
        use std::io::Read;
        use std::os::fd::AsRawFd;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "old").unwrap();
        staged(Path::new("/dev/null"), b"new").commit().unwrap();
        let full = vec![staged(&path, b"new"), staged(Path::new("/dev/full"), b"new")];
        let error = commit_all(full).unwrap_err().to_string();
        assert!(error.contains("/dev/full`: No space left"), "{error}");
        assert_eq!((fs::read(&path).unwrap(), names(dir.path()).len()), (b"old".to_vec(), 1));
        let (mut reader, writer) = io::pipe().unwrap();
        let mut file = staged(&PathBuf::from(format!("/dev/fd/{}", writer.as_raw_fd())), b"..w");
        // As index files are written: the beginning last.
        file.seek(SeekFrom::Start(0)).unwrap();
        file.write_all(b"ne").unwrap();
        file.commit().unwrap();
        drop(writer);
        let mut came = String::new();
        reader.read_to_string(&mut came).unwrap();
        assert_eq!(came, "new");
    }
}
