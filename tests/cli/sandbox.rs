//! A folder of files for one test, and the program run in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

/// A temporary folder; the program runs in it, so that messages name files without a path.
pub struct Sandbox(tempfile::TempDir);

/// What the program said and how it ended.
pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Run {
    /// Fails the test unless the program ended well.
    #[track_caller]
    pub fn ok(self) -> Run {
        assert_eq!(self.code, Some(0), "stderr: {}\nstdout: {}", self.err, self.out);
        self
    }

    /// Fails the test unless the input was blamed in one readable line that contains all `parts`.
    #[track_caller]
    pub fn refused(&self, parts: &[&str]) {
        assert_eq!(self.code, Some(2), "stderr: {}\nstdout: {}", self.err, self.out);
        let first = self.err.lines().next().unwrap_or_default();
        assert!(first.starts_with("error: ") && self.err.matches("error:").count() == 1, "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "`{part}` is not in: {}", self.err);
        }
        for wrong in ["panicked", "RUST_BACKTRACE", "unwrap", "Some(", "Err("] {
            assert!(!self.err.contains(wrong), "{}", self.err);
        }
    }
}

impl Sandbox {
    pub fn new() -> Sandbox {
        Sandbox(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the program with the words of `line` and then `more`, on the CPU unless the line says otherwise.
    pub fn run_with(&self, line: &str, more: &[&str]) -> Run {
        let done = Command::new(env!("CARGO_BIN_EXE_nearfield"))
            .args(line.split_whitespace())
            .args(more)
            .current_dir(self.0.path())
            .env("NEARFIELD_DEVICE", "cpu")
            .output()
            .unwrap();
        Run {
            code: done.status.code(),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        }
    }

    pub fn run(&self, line: &str) -> Run {
        self.run_with(line, &[])
    }

    /// Every file and what is in it; of folders and pipes only that they are there.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(self.0.path()).unwrap().map(|e| e.unwrap());
        let read = |path: PathBuf| if path.is_file() { std::fs::read(path).unwrap() } else { Vec::new() };
        entries.map(|e| (e.file_name().into_string().unwrap(), read(e.path()))).collect()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    /// A `.npy` file of this dtype, from little-endian bytes.
    pub fn npy(&self, name: &str, descr: &str, shape: &[usize], bytes: &[u8]) {
        let dims: String = shape.iter().map(|d| format!("{d},")).collect();
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");
        while !(10 + header.len() + 1).is_multiple_of(64) {
            header.push(' ');
        }
        header.push('\n');
        let mut file = b"\x93NUMPY\x01\x00".to_vec();
        file.extend((header.len() as u16).to_le_bytes());
        file.extend(header.as_bytes());
        file.extend(bytes);
        self.write(name, file);
    }

    pub fn f32(&self, name: &str, shape: &[usize], values: &[f32]) {
        self.npy(name, "<f4", shape, bytemuck::cast_slice(values));
    }

    pub fn i64(&self, name: &str, shape: &[usize], values: &[i64]) {
        self.npy(name, "<i8", shape, bytemuck::cast_slice(values));
    }

    pub fn u8(&self, name: &str, shape: &[usize], values: &[u8]) {
        self.npy(name, "|u1", shape, values);
    }

    pub fn bools(&self, name: &str, shape: &[usize], values: &[bool]) {
        self.npy(name, "|b1", shape, bytemuck::cast_slice(values));
    }

    /// The shape and the bytes of a `.npy` file that has this dtype.
    #[track_caller]
    fn read(&self, name: &str, descr: &str) -> (Vec<usize>, Vec<u8>) {
        let file = std::fs::read(self.path(name)).unwrap();
        let len = usize::from(u16::from_le_bytes([file[8], file[9]]));
        let header = std::str::from_utf8(&file[10..10 + len]).unwrap();
        assert!(header.contains(&format!("'descr': '{descr}', 'fortran_order': False")), "{header}");
        let shape = header.split(['(', ')']).nth(1).unwrap();
        let shape = shape.split(',').filter_map(|d| d.trim().parse().ok()).collect();
        (shape, file[10 + len..].to_vec())
    }

    #[track_caller]
    pub fn read_i64(&self, name: &str) -> (Vec<usize>, Vec<i64>) {
        let (shape, bytes) = self.read(name, "<i8");
        (shape, bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
    }

    #[track_caller]
    pub fn read_f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, bytes) = self.read(name, "<f4");
        (shape, bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    #[track_caller]
    pub fn read_json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }
}

/// Values between -1 and 1, the same in every run.
pub fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// The devices to test on: the CPU, and the first adapter of `NEARFIELD_TEST_ADAPTERS`. That it is not there is a
/// failure.
pub fn devices() -> Vec<String> {
    let named = std::env::var("NEARFIELD_TEST_ADAPTERS").unwrap_or_else(|_| "llvmpipe,SwiftShader".to_owned());
    let first = named.split(',').map(str::trim).find(|name| !name.is_empty()).unwrap_or("gpu").to_owned();
    if cfg!(feature = "gpu") { vec!["cpu".to_owned(), first] } else { vec!["cpu".to_owned()] }
}
