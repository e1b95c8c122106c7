//! What was measured or compiled on this machine, in the user's cache folder: one small sealed file per device.
//!
//! A file is trusted only when its checksum is right and it says that it was written for this very thing: the same
//! device, driver, processor and version of nearfield. Whatever else is found is named and written anew.

use std::ffi::OsString;
use std::path::PathBuf;

/// The first line of every file; its number changes with the meaning of the rest.
const MAGIC: &str = "nearfield cache 1";

/// What reading a file came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// What was written, for this key.
    Text(String),
    /// There is none yet, or no folder for it.
    Nothing,
    /// There is one that cannot be used: which, and why.
    Refused(String),
}

/// The folder where a device keeps measurements and compiled kernels, so that the next process need not repeat them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum CacheDir {
    /// `nearfield` in the user's folder for caches: `XDG_CACHE_HOME`, `~/.cache` or `LOCALAPPDATA`.
    #[default]
    User,
    /// This folder; it is made when something is written.
    At(PathBuf),
    /// Nowhere: nothing is read or written.
    Nowhere,
}

impl CacheDir {
    /// The folder, if there is one.
    pub fn folder(&self) -> Option<PathBuf> {
        match self {
            CacheDir::User => user_folder(),
            CacheDir::At(folder) => Some(folder.clone()),
            CacheDir::Nowhere => None,
        }
    }
}

/// The folder of caches: below `XDG_CACHE_HOME`, `~/.cache` or `LOCALAPPDATA`.
fn user_folder() -> Option<PathBuf> {
    user_folder_in(|name| std::env::var_os(name))
}

/// The same, for these variables.
fn user_folder_in(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let folder = |name: &str| variable(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    // "All paths set in these environment variables must be absolute": a relative one is to be ignored.
    let base = folder("XDG_CACHE_HOME")
        .filter(|folder| folder.is_absolute())
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))
        .or_else(|| folder("LOCALAPPDATA"))?;
    Some(base.join("nearfield"))
}

/// Data with its checksum in front.
pub fn seal(data: &[u8]) -> Vec<u8> {
    [&crc32fast::hash(data).to_le_bytes()[..], data].concat()
}

/// The data of a file whose checksum is right.
pub fn unseal(file: &[u8]) -> Option<&[u8]> {
    let (checksum, data) = file.split_first_chunk::<4>()?;
    (crc32fast::hash(data) == u32::from_le_bytes(*checksum)).then_some(data)
}

/// What else a measurement depends on: this version, and the processor (which also runs drivers and software adapters).
fn machine() -> String {
    let processor = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split(':').nth(1)?.trim().to_owned())
    });
    let processor = processor.unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    // Drivers of macOS come with the system and have no version of their own.
    let system = std::fs::read("/System/Library/CoreServices/SystemVersion.plist").map(|text| crc32fast::hash(&text));
    let system = system.map_or_else(|_| std::env::consts::OS.to_owned(), |hash| format!("macos {hash:08x}"));
    format!("{} | {system} | {processor}", env!("CARGO_PKG_VERSION"))
}

/// A named file for one key.
#[derive(Clone, Debug)]
pub struct File {
    path: Option<PathBuf>,
    key: String,
}

impl File {
    /// The file of this sort (`tuning`, `speed`) for a device, which `key` tells apart from all others. Nothing is read.
    pub fn of(dir: &CacheDir, sort: &str, key: &str) -> File {
        File::within(dir.folder(), sort, key)
    }

    /// The same in another folder.
    pub fn within(folder: Option<PathBuf>, sort: &str, key: &str) -> File {
        let key = format!("{sort} | {} | {key}", machine()).replace(['\n', '\r'], " ");
        let name = format!("{sort}-{:08x}.txt", crc32fast::hash(key.as_bytes()));
        File { path: folder.map(|f| f.join(name)), key }
    }

    /// Where it lies.
    #[cfg(test)]
    pub fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref()
    }

    /// What it says.
    pub fn read(&self) -> Found {
        let Some(path) = &self.path else { return Found::Nothing };
        let refused = |why: &str| Found::Refused(format!("cache file {} is rebuilt: {why}", path.display()));
        let file = match std::fs::read(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Found::Nothing,
            Err(e) => return refused(&e.to_string()),
        };
        let Some(data) = unseal(&file) else { return refused("its checksum is wrong") };
        let Ok(text) = std::str::from_utf8(data) else { return refused("it is not text") };
        let mut lines = text.splitn(3, '\n');
        if lines.next() != Some(MAGIC) {
            return refused("it is of another version");
        }
        if lines.next() != Some(self.key.as_str()) {
            return refused("it was written for another device, driver or version");
        }
        Found::Text(lines.next().unwrap_or_default().to_owned())
    }

    /// Says that the file cannot be used.
    pub fn refuse(&self, why: &str) -> String {
        let path = self.path.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
        format!("cache file {path} is rebuilt: {why}")
    }

    /// Takes it away.
    pub fn remove(&self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Replaces it. A failure is ignored: it only costs the next process time.
    pub fn write(&self, text: &str) {
        if let Some(path) = &self.path {
            replace(path, &seal(format!("{MAGIC}\n{}\n{text}", self.key).as_bytes()));
        }
    }
}

/// Writes beside and renames, so that another process sees the old file or the new one, never half of one.
pub fn replace(path: &std::path::Path, bytes: &[u8]) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let Some(folder) = path.parent() else { return };
    let beside = path.with_extension(format!("{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&beside, bytes))
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_cache_file_is_no_cache() {
        let file = seal(b"kernels");
        assert_eq!(unseal(&file), Some(&b"kernels"[..]));
        for i in 0..file.len() {
            let mut damaged = file.clone();
            damaged[i] ^= 1;
            assert_eq!(unseal(&damaged), None);
            assert_eq!(unseal(&file[..i]), None);
        }
    }

    #[test]
    fn files_are_trusted_for_their_own_key_and_named_when_they_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = |key: &str| File::within(Some(folder.path().to_owned()), "speed", key);
        assert_eq!(file("a").read(), Found::Nothing);
        file("a").write("one\ntwo\n");
        assert_eq!(file("a").read(), Found::Text("one\ntwo\n".to_owned()));
        assert_eq!(file("driver 2").read(), Found::Nothing, "another driver has another file");

        let refused = |file: &File| match file.read() {
            Found::Refused(why) => {
                assert!(why.contains(file.path().unwrap().to_str().unwrap()), "{why}");
                why
            }
            other => panic!("{other:?}"),
        };
        // A file under the right name that was written for another key.
        std::fs::copy(file("a").path().unwrap(), file("b").path().unwrap()).unwrap();
        assert!(refused(&file("b")).contains("another device, driver or version"));
        let whole = std::fs::read(file("a").path().unwrap()).unwrap();
        for i in [0, 3, 4, 10, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[i] ^= 4;
            std::fs::write(file("a").path().unwrap(), damaged).unwrap();
            assert!(refused(&file("a")).contains("checksum"));
            std::fs::write(file("a").path().unwrap(), &whole[..i]).unwrap();
            refused(&file("a"));
        }
        std::fs::write(file("a").path().unwrap(), seal(b"something else\n")).unwrap();
        assert!(refused(&file("a")).contains("another version"));
        file("a").write("again");
        assert_eq!(file("a").read(), Found::Text("again".to_owned()));
    }

    #[cfg(unix)]
    #[test]
    fn a_relative_folder_is_ignored() {
        let folder = |xdg: &'static str| {
            user_folder_in(|name| match name {
                "XDG_CACHE_HOME" => Some(xdg.into()),
                "HOME" => Some("/home/me".into()),
                _ => None,
            })
        };
        assert_eq!(folder("/var/cache/me"), Some("/var/cache/me/nearfield".into()));
        for relative in ["", "cache", "./cache", "../cache"] {
            assert_eq!(folder(relative), Some("/home/me/.cache/nearfield".into()), "{relative}");
        }
    }

    #[test]
    fn no_folder_is_no_cache() {
        let file = File::within(None, "speed", "a");
        file.write("x");
        assert_eq!(file.read(), Found::Nothing);
    }
}
