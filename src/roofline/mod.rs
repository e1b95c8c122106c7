//! The speed of the hardware, and the share of it that each kernel reaches: the measuring part of `nearfield bench shaders`.
//!
//! [`Subject`] is an engine whose own ceilings can be measured, [`work`] the workloads, [`model`] what the measured times
//! mean. Nothing here is part of the stable API.

mod lists;
pub mod model;
pub mod work;

use std::time::{Duration, Instant};

use crate::compute::Backend;
use crate::compute::EngineError;
use crate::cpu::{CpuEngine, CpuOptions};
use crate::device::{DEVICE_VARIABLE, DeviceOptions};
#[cfg(feature = "gpu")]
use crate::gpu::{GpuEngine, GpuOptions, Kind, Select, Shader};
use crate::ops::Engine;
use crate::stats::{Roofs, SearchStats};
use work::{Scale, Workload};

/// An engine whose ceilings can be measured.
#[derive(Debug)]
pub enum Subject {
    /// The CPU engine.
    Cpu(CpuEngine),
    /// The GPU engine on one adapter.
    #[cfg(feature = "gpu")]
    Gpu(Box<GpuEngine>),
}

/// What is known of a subject without measuring.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// `cpu`, or what sort of GPU.
    pub kind: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: Option<String>,
    /// Driver name and version; of a CPU the processor's name, where the system says it.
    pub driver: Option<String>,
}

/// One timed run: seconds after the first one began, by the wall, and by the device's clock where it has one.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// When it began.
    pub began: Instant,
    /// By the clock on the wall.
    pub wall: Duration,
    /// Each stage that the device's own clock has timed.
    pub stages: Vec<(String, Duration)>,
}

impl Run {
    /// Seconds by the device's clock, else by the wall.
    pub fn seconds(&self) -> f64 {
        let on_device: Duration = self.stages.iter().map(|(_, time)| *time).sum();
        let time = if self.on_device() { on_device } else { self.wall };
        time.as_secs_f64().max(1e-9)
    }

    /// Whether the device's own clock timed it.
    pub fn on_device(&self) -> bool {
        self.stages.iter().any(|(_, time)| !time.is_zero())
    }
}

/// Why something could not be measured.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The engine could not run it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It gave a wrong answer.
    #[error("a wrong answer: {0}")]
    Wrong(String),
    /// A shader could not be run.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Shader(#[from] crate::gpu::ShaderError),
}

/// How long a workload is repeated.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Runs at least, whatever they take.
    pub runs: usize,
    /// Further runs end after this time.
    pub time: Duration,
}

/// The most runs of a workload.
const MOST_RUNS: usize = 200;

impl Subject {
    /// The device that the options name, by the rules of [`Device::open`](crate::Device::open); under `auto` without a
    /// hardware GPU the CPU.
    ///
    /// # Errors
    /// Why there is no such device.
    pub fn open(options: &DeviceOptions) -> Result<Subject, String> {
        let variable = std::env::var(DEVICE_VARIABLE).ok().filter(|v| !v.is_empty());
        let wanted = options.device.clone().or(variable).unwrap_or_else(|| "auto".to_owned());
        let cpu = || Ok(Subject::Cpu(CpuEngine::new(CpuOptions { threads: options.threads, level: None })));
        if wanted == "cpu" {
            return cpu();
        }
        #[cfg(not(feature = "gpu"))]
        return if wanted == "auto" { cpu() } else { Err("this build has no GPU engine (feature `gpu`)".to_owned()) };
        #[cfg(feature = "gpu")]
        {
            let select = match (wanted.as_str(), wanted.strip_prefix("gpu:").and_then(|n| n.parse().ok())) {
                ("auto", _) => Select::Auto,
                ("gpu", _) => Select::Gpu,
                (_, Some(n)) => Select::GpuIndex(n),
                _ => Select::Name(wanted.clone()),
            };
            match GpuEngine::open(&GpuOptions { select, memory: options.memory }) {
                Ok(engine) => Ok(Subject::Gpu(Box::new(engine))),
                Err(_) if wanted == "auto" => cpu(),
                Err(e) => Err(e.to_string()),
            }
        }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        match self {
            Subject::Cpu(engine) => engine,
            #[cfg(feature = "gpu")]
            Subject::Gpu(engine) => &**engine,
        }
    }

    /// Which device this is.
    pub fn identity(&self) -> Identity {
        match self {
            Subject::Cpu(engine) => {
                Identity { name: engine.name(), kind: "cpu".to_owned(), backend: None, driver: processor() }
            }
            #[cfg(feature = "gpu")]
            Subject::Gpu(engine) => {
                let info = engine.info();
                Identity {
                    name: info.name.clone(),
                    kind: info.kind.to_string(),
                    backend: Some(info.backend.clone()),
                    driver: Some(info.driver.clone()),
                }
            }
        }
    }

    /// How large its workloads are.
    pub fn scale(&self) -> Scale {
        match self {
            Subject::Cpu(_) => Scale::Medium,
            #[cfg(feature = "gpu")]
            Subject::Gpu(engine) => match engine.info().kind {
                Kind::Software => Scale::Small,
                Kind::Discrete => Scale::Large,
                _ => Scale::Medium,
            },
        }
    }

    /// Whether kernels are timed by the device's own clock.
    pub fn has_timestamps(&self) -> bool {
        match self {
            Subject::Cpu(_) => false,
            #[cfg(feature = "gpu")]
            Subject::Gpu(engine) => engine.has_timestamps(),
        }
    }

    /// Measures the roofs.
    ///
    /// # Errors
    /// When a GPU can't run the probes.
    pub fn roofs(&self) -> Result<Roofs, MeasureError> {
        match self {
            Subject::Cpu(engine) => Ok(engine.roofs()),
            #[cfg(feature = "gpu")]
            Subject::Gpu(engine) => Ok(engine.roofs()?),
        }
    }

    /// Runs a workload again and again; the first run, which compiles and uploads, is not among those given. No runs when
    /// the engine has no kernel for it.
    ///
    /// # Errors
    /// Those of the engine, and a wrong answer.
    pub fn measure(&self, work: &Workload<'_>, budget: Budget) -> Result<Vec<Run>, MeasureError> {
        let mut stats = SearchStats::default();
        let answer = work.run(self.engine(), &mut stats)?;
        if !work.is_done_by(&stats.kernels) {
            return Ok(Vec::new());
        }
        if let Some(wrong) = work.check(&answer) {
            return Err(MeasureError::Wrong(wrong));
        }
        drop(answer);
        repeat(budget, || {
            let mut stats = SearchStats::default();
            let began = Instant::now();
            work.run(self.engine(), &mut stats)?;
            let wall = began.elapsed();
            let stages = stats.stages.into_iter().filter(|s| s.on_device).map(|s| (s.name, s.time)).collect();
            Ok(Run { began, wall, stages })
        })
    }

    /// The same for a shader that stands alone.
    ///
    /// # Errors
    /// Those of the shader and of the device.
    #[cfg(feature = "gpu")]
    pub fn measure_shader(engine: &GpuEngine, shader: &Shader<'_>, budget: Budget) -> Result<Vec<Run>, MeasureError> {
        let prepared = engine.prepare(shader)?;
        prepared.run(shader.workgroups, 1)?;
        repeat(budget, || {
            let began = Instant::now();
            let took = prepared.run(shader.workgroups, 1)?;
            let stages = took.device.map(|s| ("shader".to_owned(), Duration::from_secs_f64(s.max(0.0))));
            Ok(Run { began, wall: Duration::from_secs_f64(took.wall), stages: stages.into_iter().collect() })
        })
    }
}

/// The processor's name, where the system says it in a file.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// At least as many runs as the budget says, and more while there is time.
fn repeat(budget: Budget, mut once: impl FnMut() -> Result<Run, MeasureError>) -> Result<Vec<Run>, MeasureError> {
    let began = Instant::now();
    let mut runs = Vec::new();
    while runs.len() < budget.runs.max(1) || runs.len() < MOST_RUNS && began.elapsed() < budget.time {
        runs.push(once()?);
    }
    Ok(runs)
}
