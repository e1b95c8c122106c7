//! Files that a command writes: checked before the long work, and there together at the end or not at all; and the files
//! that it reads, which must not change meanwhile.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;
use nearfield::format::{AtomicFile, SaveError, check_writable, commit_all, file_of, stage_npy_f32, stage_npy_i64};
use nearfield::{AnyIndex, Index};

use crate::fail;

/// Written beside their places; [`Outputs::commit`] lets them appear.
pub struct Outputs {
    inputs: Vec<(PathBuf, Stamp)>,
    files: Vec<AtomicFile>,
}

impl Outputs {
    /// Refuses outputs that cannot be written, that name the same file twice, or that are one of the inputs. Notes what the
    /// inputs are now.
    pub fn begin(outputs: &[Option<&PathBuf>], inputs: &[Option<&PathBuf>]) -> Result<Outputs> {
        let inputs: Vec<PathBuf> = inputs.iter().flatten().map(|path| file_of(path)).collect();
        let real: Vec<PathBuf> = inputs.iter().map(|path| real(path)).collect();
        let mut targets: Vec<PathBuf> = Vec::new();
        for path in outputs.iter().copied().flatten() {
            let target = check_writable(path).map_err(fail::output)?;
            if real.contains(&target) {
                return Err(fail::input(format!("`{}` is an input and would be overwritten", path.display())));
            }
            if targets.contains(&target) && target != Path::new("/dev/null") {
                return Err(fail::input(format!("two outputs go to the same file `{}`", path.display())));
            }
            fail::keep_stdout_clean(path);
            targets.push(target);
        }
        let inputs = inputs.into_iter().filter_map(|path| Stamp::of(&path).map(|stamp| (path, stamp))).collect();
        Ok(Outputs { inputs, files: Vec::new() })
    }

    /// int64 of this shape, if the user wants the file.
    pub fn npy_i64(&mut self, path: Option<&PathBuf>, data: &[i64], shape: &[usize]) -> Result<(), SaveError> {
        path.map_or(Ok(()), |path| stage_npy_i64(path, data, shape).map(|file| self.files.push(file)))
    }

    /// float32 of this shape, if the user wants the file.
    pub fn npy_f32(&mut self, path: Option<&PathBuf>, data: &[f32], shape: &[usize]) -> Result<(), SaveError> {
        path.map_or(Ok(()), |path| stage_npy_f32(path, data, shape).map(|file| self.files.push(file)))
    }

    /// An index. Gives the bytes that it takes.
    pub fn index(&mut self, path: &Path, index: &AnyIndex) -> Result<u64> {
        let mut file = Index::stage(index, path)?;
        let size = file.seek(SeekFrom::End(0)).map_err(|e| SaveError::Io { path: path.to_owned(), source: e })?;
        self.files.push(file);
        Ok(size)
    }

    /// JSON, if the user wants the file.
    pub fn json(&mut self, path: Option<&PathBuf>, value: &impl serde::Serialize) -> Result<()> {
        path.map_or(Ok(()), |path| self.bytes(path, format!("{}\n", serde_json::to_string_pretty(value)?).as_bytes()))
    }

    /// Text, if the user wants the file.
    pub fn text(&mut self, path: Option<&PathBuf>, text: &str) -> Result<()> {
        path.map_or(Ok(()), |path| self.bytes(path, text.as_bytes()))
    }

    /// Bytes of any kind.
    pub fn bytes(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = AtomicFile::create(path)?;
        file.write_all(bytes).map_err(|e| SaveError::Io { path: path.to_owned(), source: e })?;
        self.files.push(file);
        Ok(())
    }

    /// Puts all files in their places, or none: also when an input is not any more what it was.
    pub fn commit(self) -> Result<()> {
        for (path, stamp) in &self.inputs {
            if Stamp::of(path).as_ref() != Some(stamp) {
                let path = path.display();
                return Err(fail::input(format!(
                    "`{path}` was changed or replaced while it was in use: nothing is written"
                )));
            }
        }
        Ok(commit_all(self.files)?)
    }
}

/// Where a file is, or would be if it were there.
fn real(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let missing = || Some(folder.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(missing).unwrap_or_else(|| path.to_owned())
}

/// What tells a file from what it was before.
#[derive(PartialEq)]
struct Stamp {
    bytes: u64,
    changed: Option<SystemTime>,
    /// Disk and number: another file of the same name has others.
    file: (u64, u64),
}

impl Stamp {
    /// Of a regular file.
    fn of(path: &Path) -> Option<Stamp> {
        let meta = path.metadata().ok().filter(|meta| meta.is_file())?;
        #[cfg(unix)]
        let file = (std::os::unix::fs::MetadataExt::dev(&meta), std::os::unix::fs::MetadataExt::ino(&meta));
        #[cfg(not(unix))]
        let file = (0, 0);
        Some(Stamp { bytes: meta.len(), changed: meta.modified().ok(), file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_goes_when_the_second_fails() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a.npy"), folder.path().join("b.npy"));
        let mut outputs = Outputs::begin(&[Some(&first), Some(&second)], &[]).unwrap();
        outputs.npy_i64(Some(&first), &[1, 2], &[2]).unwrap();
        outputs.npy_f32(Some(&second), &[0.5], &[1]).unwrap();
        assert!(!first.exists() && !second.exists(), "nothing is there before all is");
        // Something gets in the way of the second.
        std::fs::create_dir(&second).unwrap();
        let error = outputs.commit().unwrap_err();
        assert!(error.to_string().contains("b.npy") && fail::exit_code(&error) == 1, "{error}");
        assert!(!first.exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only what was in the way is left");
    }

    #[test]
    fn files_appear_together() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a.npy"), folder.path().join("b.json"));
        let mut outputs = Outputs::begin(&[Some(&first), Some(&second)], &[]).unwrap();
        outputs.npy_i64(Some(&first), &[1, 2], &[2]).unwrap();
        outputs.json(Some(&second), &[1.5]).unwrap();
        outputs.npy_f32(None, &[], &[0]).unwrap();
        outputs.commit().unwrap();
        assert!(first.exists() && std::fs::read_to_string(&second).unwrap().contains("1.5"));
    }
}
