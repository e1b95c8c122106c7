//! The engines under test, one of each for the whole process: a GPU's pipelines are compiled once.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use nearfield::cpu::{CpuEngine, CpuOptions, Level};
use nearfield::engine::Engine;

use crate::naive::Naive;

/// An engine, and how much of the suite's variety to spend on it.
#[derive(Clone)]
pub struct Subject {
    pub engine: Arc<dyn Engine>,
    /// Every metric with every element type. Where each pair costs seconds of shader compilation, a chosen few.
    pub full: bool,
}

/// The references themselves.
pub fn references() -> Option<Subject> {
    Some(Subject { engine: Arc::new(Naive), full: true })
}

/// Says something that the test runner does not hide when the test passes.
fn say_loudly(words: &str) {
    let _ = writeln!(std::io::stderr(), "\n*** {words}");
}

/// The CPU engine that others are compared with: the best level, on one thread.
pub fn peer() -> Arc<dyn Engine> {
    static PEER: OnceLock<Arc<CpuEngine>> = OnceLock::new();
    PEER.get_or_init(|| Arc::new(CpuEngine::new(CpuOptions { threads: Some(1), level: None }))).clone()
}

/// The CPU at one SIMD level, on three threads. A level that this machine lacks is left out, and said so, unless
/// `NEARFIELD_TEST_MIN` names it (`avx2`, `avx512`, `neon`, or `all` of this architecture).
pub fn cpu(level: Level) -> Option<Subject> {
    static ENGINES: OnceLock<Vec<Arc<CpuEngine>>> = OnceLock::new();
    let make = |level| {
        let engine = CpuEngine::new(CpuOptions { threads: Some(3), level: Some(level) });
        assert_eq!(engine.level(), level, "the engine chose another level");
        Arc::new(engine)
    };
    let engines = ENGINES.get_or_init(|| {
        for &missing in this_architecture().iter().filter(|level| !Level::available().contains(level)) {
            assert!(!demanded(missing), "NEARFIELD_TEST_MIN demands {}, which this CPU lacks", missing.name());
            say_loudly(&format!("NOT TESTED: this CPU has no {}; its tests pass without running", missing.name()));
        }
        Level::available().into_iter().map(make).collect()
    });
    let engine = engines.iter().find(|engine| engine.level() == level)?;
    Some(Subject { engine: engine.clone(), full: true })
}

/// From the least level to the greatest.
fn this_architecture() -> &'static [Level] {
    if cfg!(target_arch = "x86_64") {
        &[Level::Portable, Level::Avx2, Level::Avx512]
    } else if cfg!(target_arch = "aarch64") {
        &[Level::Portable, Level::Neon]
    } else {
        &[Level::Portable]
    }
}

/// Whether `NEARFIELD_TEST_MIN` asks for this level, or one above it.
fn demanded(level: Level) -> bool {
    let Ok(least) = std::env::var("NEARFIELD_TEST_MIN") else { return false };
    let levels = this_architecture();
    let named = match least.as_str() {
        "" => return false,
        "all" => levels.len() - 1,
        name => levels.iter().position(|l| l.name() == name).unwrap_or_else(|| {
            panic!(
                "NEARFIELD_TEST_MIN={name}: there are {:?} and all",
                levels.iter().map(|l| l.name()).collect::<Vec<_>>()
            )
        }),
    };
    levels[..=named].contains(&level)
}
