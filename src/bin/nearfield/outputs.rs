//! Files that a command writes: checked before the long work, and there together at the end or not at all.

use std::path::{Path, PathBuf};

use anyhow::Result;
use nearfield::format::{AtomicFile, SaveError, check_writable, stage_npy_f32, stage_npy_i64};

use crate::fail;

/// Refuses outputs that cannot be written, that name the same file twice, or that are one of the inputs.
pub fn check(outputs: &[Option<&PathBuf>], inputs: &[Option<&PathBuf>]) -> Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| absolute(path));
    let outputs: Vec<&PathBuf> = outputs.iter().copied().flatten().collect();
    for (i, path) in outputs.iter().enumerate() {
        check_writable(path).map_err(fail::output)?;
        let same = |other: &Path| real(other) == real(path);
        if inputs.iter().flatten().any(|input| same(input)) {
            return Err(fail::input(format!("`{}` is an input and would be overwritten", path.display())));
        }
        if outputs[..i].iter().any(|other| same(other)) {
            return Err(fail::input(format!("two outputs go to the same file `{}`", path.display())));
        }
    }
    Ok(())
}

/// With the folder made absolute, for a file that is not there yet.
fn absolute(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (std::fs::canonicalize(folder), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// Written beside their places; [`Outputs::commit`] lets them appear.
#[derive(Default)]
pub struct Outputs(Vec<AtomicFile>);

impl Outputs {
    /// int64 of this shape, if the user wants the file.
    pub fn npy_i64(&mut self, path: Option<&PathBuf>, data: &[i64], shape: &[usize]) -> Result<(), SaveError> {
        path.map_or(Ok(()), |path| stage_npy_i64(path, data, shape).map(|file| self.0.push(file)))
    }

    /// float32 of this shape, if the user wants the file.
    pub fn npy_f32(&mut self, path: Option<&PathBuf>, data: &[f32], shape: &[usize]) -> Result<(), SaveError> {
        path.map_or(Ok(()), |path| stage_npy_f32(path, data, shape).map(|file| self.0.push(file)))
    }

    /// JSON, if the user wants the file.
    pub fn json(&mut self, path: Option<&PathBuf>, value: &impl serde::Serialize) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        let mut file = AtomicFile::create(path)?;
        let failed = |e: &dyn std::fmt::Display| anyhow::anyhow!("cannot write `{}`: {e}", path.display());
        serde_json::to_writer_pretty(&mut file, value).map_err(|e| failed(&e))?;
        std::io::Write::write_all(&mut file, b"\n").map_err(|e| failed(&e))?;
        self.0.push(file);
        Ok(())
    }

    /// Text, if the user wants the file.
    pub fn text(&mut self, path: Option<&PathBuf>, text: &str) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        let mut file = AtomicFile::create(path)?;
        std::io::Write::write_all(&mut file, text.as_bytes())
            .map_err(|e| anyhow::anyhow!("cannot write `{}`: {e}", path.display()))?;
        self.0.push(file);
        Ok(())
    }

    /// Puts all files in their places; when one fails, those before it are taken away again.
    pub fn commit(self) -> Result<()> {
        let mut done = Vec::new();
        for file in self.0 {
            let path = file.path().to_owned();
            if let Err(e) = file.commit() {
                for path in done {
                    let _ = std::fs::remove_file(path);
                }
                return Err(e.into());
            }
            done.push(path);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_file_goes_when_the_second_fails() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("a.npy"), folder.path().join("b.npy"));
        let mut outputs = Outputs::default();
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
        let mut outputs = Outputs::default();
        outputs.npy_i64(Some(&first), &[1, 2], &[2]).unwrap();
        outputs.json(Some(&second), &[1.5]).unwrap();
        outputs.npy_f32(None, &[], &[0]).unwrap();
        outputs.commit().unwrap();
        assert!(first.exists() && std::fs::read_to_string(&second).unwrap().contains("1.5"));
    }
}
