//! Whose fault an error is, and how it is told. Exit codes: 2 for wrong usage or input, 1 when the device or the disk
//! failed.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Error;
use nearfield::format::{LoadError, NotBytes, SaveError};
use nearfield::{BuildError, ClusterError, DeviceError, ImportError, OpenError, SearchError, ShapeError, TuneError};

/// Something that the user gave is wrong.
#[derive(Debug)]
struct Input(String);

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Input {}

/// An error that is the input's fault.
pub fn input(message: impl Into<String>) -> Error {
    Error::new(Input(message.into()))
}

/// The exit code of an error.
pub fn exit_code(error: &Error) -> u8 {
    if error.chain().any(blames_input) { 2 } else { 1 }
}

fn blames_input(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(e) = error.downcast_ref::<LoadError>() {
        return load_blames_input(e);
    }
    if let Some(e) = error.downcast_ref::<OpenError>() {
        return !matches!(e, OpenError::Load(e) if !load_blames_input(e));
    }
    if let Some(e) = error.downcast_ref::<SearchError>() {
        return !matches!(e, SearchError::Engine(_));
    }
    if let Some(e) = error.downcast_ref::<BuildError>() {
        return build_blames_input(e);
    }
    if let Some(e) = error.downcast_ref::<ImportError>() {
        return !matches!(e, ImportError::Build(e) if !build_blames_input(e));
    }
    if let Some(e) = error.downcast_ref::<TuneError>() {
        return match e {
            TuneError::Build(e) => build_blames_input(e),
            TuneError::Search(e) => !matches!(e, SearchError::Engine(_)),
            _ => true,
        };
    }
    if let Some(e) = error.downcast_ref::<ClusterError>() {
        return !matches!(e, ClusterError::Engine(_) | ClusterError::Cancelled);
    }
    if let Some(e) = error.downcast_ref::<DeviceError>() {
        return matches!(e, DeviceError::Unknown { .. });
    }
    error.is::<Input>() || error.is::<ShapeError>() || error.is::<NotBytes>()
}

fn build_blames_input(error: &BuildError) -> bool {
    !matches!(error, BuildError::Engine(_) | BuildError::Cluster(ClusterError::Engine(_)))
}

/// A file that is missing or wrong is the input's fault, a disk that fails is not.
fn load_blames_input(error: &LoadError) -> bool {
    use io::ErrorKind::*;
    let LoadError::Io { source, .. } = error else { return true };
    matches!(source.kind(), NotFound | PermissionDenied | IsADirectory | NotADirectory | InvalidInput | InvalidFilename)
}

/// What cannot be written where the user wanted it, said before the long work.
pub fn output(error: SaveError) -> Error {
    input(error.to_string())
}

/// The messages of an error and its causes on one line, without what an outer one says already.
pub fn message(error: &Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// A line on stderr. That nobody reads it is no reason to stop.
pub fn tell(kind: &str, text: &str) {
    let _ = writeln!(io::stderr(), "{kind}: {text}");
}

/// Whether an output goes to stdout, where no text may get in between.
static STDOUT_HAS_DATA: AtomicBool = AtomicBool::new(false);

/// From now on text goes to stderr, if `output` is stdout.
pub fn keep_stdout_clean(output: &Path) {
    if ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| output == Path::new(name)) {
        STDOUT_HAS_DATA.store(true, Ordering::Relaxed);
    }
}

/// Text on stdout, or on stderr where stdout has data; a reader that has gone away is not an error.
pub fn print(text: &str) -> anyhow::Result<()> {
    if STDOUT_HAS_DATA.load(Ordering::Relaxed) {
        let _ = io::stderr().write_all(text.as_bytes());
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::new(e).context("cannot write to the terminal")),
        _ => Ok(()),
    }
}
