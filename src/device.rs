//! Which device a search runs on. The only place that knows both engines.

use std::sync::Arc;
#[cfg(feature = "gpu")]
use std::sync::Mutex;
#[cfg(feature = "gpu")]
use std::time::{Duration, Instant};

use crate::cpu::{CpuEngine, CpuOptions};
use crate::engine::{Device, Engine, EngineError, Output, Task};
use crate::error::DeviceError;
#[cfg(feature = "gpu")]
use crate::gpu::{GpuEngine, GpuOptions, OpenError, Select};
use crate::plan::{Plan, Problem};
use crate::stats::{Ceilings, SearchStats};

/// The environment variable that names the device when the program does not.
pub const DEVICE_VARIABLE: &str = "NEARFIELD_DEVICE";

/// How long after a loss a device is not asked for again.
#[cfg(feature = "gpu")]
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How a device is opened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceOptions {
    /// `auto`, `cpu`, `gpu`, `gpu:N`, or a part of an adapter's name. When absent, the environment variable
    /// `NEARFIELD_DEVICE`, else `auto`.
    pub device: Option<String>,
    /// Most bytes that nearfield allocates on the device, scratch included. When absent, half of what the device has.
    pub memory: Option<u64>,
    /// Threads of the CPU engine. When absent, one for each processor that the process may use.
    pub threads: Option<usize>,
}

impl Device {
    /// The best hardware GPU, or the CPU when there is none; `NEARFIELD_DEVICE` overrides it.
    /// A software adapter is never taken.
    ///
    /// # Errors
    /// [`DeviceError`] only when `NEARFIELD_DEVICE` asks for something that is not there.
    pub fn auto() -> Result<Device, DeviceError> {
        Device::open(&DeviceOptions::default())
    }

    /// The CPU, with as many threads as the process may use.
    pub fn cpu() -> Device {
        Device::on_cpu(&DeviceOptions::default(), None)
    }

    /// The device that the options name.
    ///
    /// # Errors
    /// [`DeviceError`] when it is not there or can't be opened; `auto` and `cpu` always can.
    pub fn open(options: &DeviceOptions) -> Result<Device, DeviceError> {
        let variable = std::env::var(DEVICE_VARIABLE).ok().filter(|v| !v.is_empty());
        let wanted = options.device.clone().or(variable).unwrap_or_else(|| "auto".to_owned());
        match wanted.as_str() {
            "cpu" => Ok(Device::on_cpu(options, None)),
            #[cfg(feature = "gpu")]
            _ => Device::on_gpu(&wanted, options),
            #[cfg(not(feature = "gpu"))]
            "auto" => Ok(Device::on_cpu(options, None)),
            #[cfg(not(feature = "gpu"))]
            _ => Err(DeviceError::NoGpu { reason: "this build has no GPU engine (feature `gpu`)".to_owned() }),
        }
    }

    /// An application's own device and queue, with whatever limits and features they have.
    ///
    /// Nothing is requested of the device and its error handlers stay as they are. `memory` is the most bytes that
    /// nearfield allocates on it; when absent, half of what the device has.
    ///
    /// # Errors
    /// [`DeviceError::Open`] when the device lacks what every WebGPU device has.
    #[cfg(feature = "gpu")]
    pub fn from_wgpu_within(
        device: wgpu::Device,
        queue: wgpu::Queue,
        memory: Option<u64>,
    ) -> Result<Device, DeviceError> {
        let engine = GpuEngine::from_wgpu(device, queue, memory).map_err(open_error)?;
        Ok(Device::routed(Arc::new(engine), None, false, &DeviceOptions::default()))
    }

    /// [`Device::from_wgpu_within`] the default share of the device's memory.
    ///
    /// # Errors
    /// As [`Device::from_wgpu_within`].
    #[cfg(feature = "gpu")]
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Device, DeviceError> {
        Device::from_wgpu_within(device, queue, None)
    }

    /// The device in words, e.g. `cpu (avx512, 8 threads)` or the adapter's name.
    pub fn name(&self) -> String {
        self.engine.name()
    }

    fn on_cpu(options: &DeviceOptions, reason: Option<String>) -> Device {
        let cpu = CpuEngine::new(CpuOptions { threads: options.threads, level: None });
        let cpu: Arc<dyn Engine> = Arc::new(cpu);
        match reason {
            None => Device { engine: cpu.clone(), host: cpu },
            Some(reason) => Device { engine: Arc::new(Excused { cpu: cpu.clone(), reason }), host: cpu },
        }
    }

    #[cfg(feature = "gpu")]
    fn on_gpu(wanted: &str, options: &DeviceOptions) -> Result<Device, DeviceError> {
        let select = match wanted {
            "auto" => Select::Auto,
            "gpu" => Select::Gpu,
            name => match name.strip_prefix("gpu:").map(str::parse) {
                Some(Ok(n)) => Select::GpuIndex(n),
                Some(Err(_)) => return Err(unknown(name)),
                None => Select::Name(name.to_owned()),
            },
        };
        let auto = select == Select::Auto;
        let gpu_options = GpuOptions { select, memory: options.memory };
        match GpuEngine::open(&gpu_options) {
            Ok(engine) => Ok(Device::routed(Arc::new(engine), Some(gpu_options), auto, options)),
            Err(e) if auto => Ok(Device::on_cpu(options, Some(e.to_string()))),
            Err(e) => Err(open_error(e)),
        }
    }

    /// What `auto` makes of an engine, so that tests can do to it what befalls real devices.
    #[cfg(feature = "gpu")]
    #[doc(hidden)]
    pub fn auto_over(engine: Arc<GpuEngine>, reopen: GpuOptions) -> Device {
        Device::routed(engine, Some(reopen), true, &DeviceOptions::default())
    }

    #[cfg(feature = "gpu")]
    fn routed(engine: Arc<GpuEngine>, reopen: Option<GpuOptions>, auto: bool, options: &DeviceOptions) -> Device {
        let host: Arc<dyn Engine> = Arc::new(CpuEngine::new(CpuOptions { threads: options.threads, level: None }));
        let (cpu, gpu) = (auto.then(|| host.clone()), Mutex::new(Slot { engine, lost: None }));
        Device { engine: Arc::new(Router { cpu, gpu, reopen }), host }
    }
}

#[cfg(feature = "gpu")]
fn unknown(wanted: &str) -> DeviceError {
    let names: Vec<String> = crate::gpu::adapters().into_iter().map(|a| a.name).collect();
    let there = if names.is_empty() { "no adapter".to_owned() } else { names.join(", ") };
    DeviceError::Unknown { wanted: wanted.to_owned(), there }
}

#[cfg(feature = "gpu")]
fn open_error(error: OpenError) -> DeviceError {
    match error {
        OpenError::Unknown { wanted, .. } => unknown(&wanted),
        OpenError::NoAdapter { reason } => DeviceError::NoGpu { reason },
        other => DeviceError::Open { reason: other.to_string() },
    }
}

/// The CPU in place of a GPU that is not there; every answer says why.
struct Excused {
    cpu: Arc<dyn Engine>,
    reason: String,
}

impl Engine for Excused {
    fn name(&self) -> String {
        self.cpu.name()
    }

    fn run(&self, task: &Task<'_>, stats: &mut SearchStats) -> Result<Output, EngineError> {
        stats.fallback = Some(self.reason.clone());
        self.cpu.run(task, stats)
    }

    fn wants_screen(&self, plan: &Plan) -> bool {
        self.cpu.wants_screen(plan)
    }

    fn wants_codes(&self, problem: &Problem) -> bool {
        self.cpu.wants_codes(problem)
    }

    fn ceilings(&self) -> Ceilings {
        self.cpu.ceilings()
    }
}

/// A GPU, with the CPU behind it under `auto`. A lost device is opened again on a later call.
#[cfg(feature = "gpu")]
struct Router {
    cpu: Option<Arc<dyn Engine>>,
    gpu: Mutex<Slot>,
    /// How to open the device again; absent when it is the application's.
    reopen: Option<GpuOptions>,
}

#[cfg(feature = "gpu")]
struct Slot {
    engine: Arc<GpuEngine>,
    lost: Option<Instant>,
}

#[cfg(feature = "gpu")]
impl Router {
    /// The GPU, opened again if it was lost a while ago; or why it can't be used.
    fn gpu(&self) -> Result<Arc<GpuEngine>, EngineError> {
        let mut slot = self.slot();
        let Some(since) = slot.lost else { return Ok(slot.engine.clone()) };
        let lost = |why: &str| Err(EngineError::Lost(why.to_owned()));
        // Without a CPU to answer meanwhile there is nothing to wait for.
        if self.cpu.is_some() && since.elapsed() < RETRY_AFTER {
            return lost("it is opened again a second after the loss");
        }
        let Some(options) = &self.reopen else { return lost("it belongs to the application") };
        match GpuEngine::open(options) {
            Ok(engine) => {
                *slot = Slot { engine: Arc::new(engine), lost: None };
                Ok(slot.engine.clone())
            }
            Err(e) => {
                slot.lost = Some(Instant::now());
                lost(&e.to_string())
            }
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Slot> {
        // A panic elsewhere leaves the slot whole: it is only ever replaced.
        self.gpu.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn on_gpu(&self, task: &Task<'_>, stats: &mut SearchStats) -> Result<Output, EngineError> {
        let engine = self.gpu()?;
        let result = engine.run(task, stats);
        if engine.is_lost() || matches!(result, Err(EngineError::Lost(_))) {
            let mut slot = self.slot();
            if Arc::ptr_eq(&slot.engine, &engine) {
                slot.lost.get_or_insert_with(Instant::now);
            }
        }
        result
    }
}

#[cfg(feature = "gpu")]
impl Engine for Router {
    fn name(&self) -> String {
        self.slot().engine.name()
    }

    fn run(&self, task: &Task<'_>, stats: &mut SearchStats) -> Result<Output, EngineError> {
        let before = stats.clone();
        match (self.on_gpu(task, stats), &self.cpu) {
            (Err(e), Some(cpu)) if !matches!(e, EngineError::Mismatch(_)) => {
                // What the GPU counted before it failed is no part of the answer.
                *stats = before;
                stats.fallback = Some(format!("{}: {e}; the CPU answered", self.name()));
                cpu.run(task, stats)
            }
            (result, _) => result,
        }
    }

    fn wants_screen(&self, plan: &Plan) -> bool {
        self.slot().engine.wants_screen(plan)
    }

    fn ceilings(&self) -> Ceilings {
        let engine = self.slot().engine.clone();
        engine.ceilings()
    }
}
