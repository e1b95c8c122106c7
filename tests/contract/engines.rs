//! The engines under test, one of each for the whole process: a GPU's pipelines are compiled once.

use std::sync::{Arc, OnceLock};

use nearfield::cpu::{CpuEngine, CpuOptions, Level};
use nearfield::ops::Engine;

use crate::naive::Naive;
use crate::noted::not_tested;

/// An engine, and how much of the suite's variety to spend on it.
#[derive(Clone)]
pub struct Subject {
    pub engine: Arc<Engine>,
    /// Every metric with every element type. Where each pair costs seconds of shader compilation, a chosen few.
    pub full: bool,
}

/// The references themselves.
pub fn references() -> Option<Subject> {
    Some(Subject { engine: Arc::new(Naive::default()), full: true })
}

/// The CPU engine that others are compared with: the best level, on one thread.
pub fn peer() -> Arc<Engine> {
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
        let demanded = demanded();
        for &missing in this_architecture().iter().filter(|level| !Level::available().contains(level)) {
            assert!(
                !demanded.contains(&missing),
                "NEARFIELD_TEST_MIN demands {}, which this CPU lacks",
                missing.name()
            );
            not_tested(&format!("the SIMD level {}, which this CPU lacks", missing.name()));
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

/// The levels that `NEARFIELD_TEST_MIN` asks for: the one it names and those below.
fn demanded() -> &'static [Level] {
    let levels = this_architecture();
    match std::env::var("NEARFIELD_TEST_MIN").as_deref() {
        Err(_) | Ok("") => &[],
        Ok("all") => levels,
        Ok(name) => match levels.iter().position(|level| level.name() == name) {
            Some(place) => &levels[..=place],
            None => panic!(
                "NEARFIELD_TEST_MIN={name}: there are all, {}",
                levels.iter().map(|l| l.name()).collect::<Vec<_>>().join(", ")
            ),
        },
    }
}

/// A GPU through each adapter named in `NEARFIELD_TEST_ADAPTERS`.
#[cfg(feature = "gpu")]
mod gpu {
    use nearfield::gpu::{GpuEngine, GpuOptions, Select, adapters};

    use super::*;

    /// Parts of adapter names; by default the two software drivers of `scripts/setup-drivers`.
    pub fn names() -> Vec<String> {
        let names = std::env::var("NEARFIELD_TEST_ADAPTERS").unwrap_or_else(|_| "llvmpipe,SwiftShader".to_owned());
        names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn absent(name: &str, why: &dyn std::fmt::Display) -> ! {
        panic!(
            "no adapter `{name}` for the tests ({why}). Run scripts/setup-drivers, then source target/drivers/both.env, or \
             name an adapter of this machine in NEARFIELD_TEST_ADAPTERS"
        )
    }

    /// As the engine opens it: all features and limits that it can use.
    pub fn open(name: &str) -> Arc<GpuEngine> {
        let options = GpuOptions { select: Select::Name(name.to_owned()), memory: None };
        GpuEngine::open(&options).map(Arc::new).unwrap_or_else(|e| absent(name, &e))
    }

    /// As an application may hand it over: no features (so no subgroups, no immediates) and the default limits.
    pub fn open_plain(name: &str) -> Arc<GpuEngine> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::PRIMARY;
        let found = pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::PRIMARY));
        let wanted = name.to_lowercase();
        let adapter = found.iter().find(|a| a.get_info().name.to_lowercase().contains(&wanted));
        let there = || adapters().into_iter().map(|a| a.name).collect::<Vec<_>>().join(", ");
        let adapter = adapter.unwrap_or_else(|| absent(name, &format!("there are: {}", there())));
        let device = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default()));
        let (device, queue) = device.unwrap_or_else(|e| absent(name, &e));
        GpuEngine::from_wgpu(device, queue, None).map(Arc::new).unwrap_or_else(|e| absent(name, &e))
    }
}

/// The GPU at a place of the list of adapters; a place past its end is left out, and said so.
#[cfg(feature = "gpu")]
pub fn gpu(place: usize) -> Option<Subject> {
    static ENGINES: [OnceLock<Option<Subject>>; 2] = [const { OnceLock::new() }; 2];
    ENGINES[place].get_or_init(|| subject(gpu::names().get(place), place, gpu::open)).clone()
}

/// The last of the listed GPUs without any optional feature.
#[cfg(feature = "gpu")]
pub fn gpu_plain() -> Option<Subject> {
    static ENGINE: OnceLock<Option<Subject>> = OnceLock::new();
    ENGINE.get_or_init(|| subject(gpu::names().last(), 0, gpu::open_plain)).clone()
}

#[cfg(feature = "gpu")]
fn subject(name: Option<&String>, place: usize, open: fn(&str) -> Arc<nearfield::gpu::GpuEngine>) -> Option<Subject> {
    let Some(name) = name else {
        assert!(place > 0, "NEARFIELD_TEST_ADAPTERS names no adapter: unset it, or name one");
        not_tested(&format!("a GPU {place}: NEARFIELD_TEST_ADAPTERS names only {:?}", gpu::names()));
        return None;
    };
    Some(Subject { engine: open(name), full: std::env::var_os("NEARFIELD_TEST_FULL").is_some() })
}
