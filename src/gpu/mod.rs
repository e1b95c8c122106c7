//! The GPU engine: runs a [`Program`] through wgpu on Vulkan, Metal or DX12.
//!
//! From an operation to the device: `lower` turns operations into launches (geometry and parameters come from
//! [`kernels`](crate::ops)), `submit` cuts them into command buffers and reads results back, `resident` keeps rows,
//! `copies` their codes and `listed` inverted lists in device memory within the budget of `memory`. `machine` is what all
//! runs share; it lets `selftest` try every kernel, as a `case`, before it is trusted. `pipelines` compiles kernels,
//! `context` turns the driver's errors into ours, `adapters` chooses the device. `tests/layers.rs` has their order.

mod adapters;
mod case;
mod ceilings;
mod context;
mod copies;
mod faults;
mod halves;
mod known;
mod listed;
mod lower;
mod machine;
mod memory;
mod pipelines;
mod poller;
mod resident;
mod rows;
mod selftest;
mod submit;
mod sync;
mod trusted;
mod upload;

use std::sync::OnceLock;

pub use adapters::{AdapterError, AdapterReport, Kind, Select, adapters, select};
pub use ceilings::{Fill, Prepared, Shader, ShaderBuffer, ShaderError, Took};
pub use faults::Fault;

use self::context::Context;
use self::lower::Site;
use self::machine::Machine;
use self::resident::Residents;
use crate::cache::CacheDir;
use crate::compute::wait::block_on;
use crate::compute::{self, Answer, Backend, Capabilities, EngineError, Input, Pending, Room, Tag};
use crate::ops::search::MAX_KEEP;
use crate::ops::tuning::KernelTuning;
use crate::ops::{Op, Program};
use crate::stats::{Ceilings, Roofs, SearchStats};

/// Which device to open, and how much of it.
#[derive(Clone, Debug)]
pub struct GpuOptions {
    /// Which adapter.
    pub select: Select,
    /// Bytes of device memory that may be taken; by default half of what the device has.
    pub memory: Option<u64>,
}

/// Counters of an engine since it was opened.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Command buffers, those of self-tests left out.
    pub submissions: u64,
    /// Kernels in them.
    pub dispatches: u64,
    /// Kernels that were compiled.
    pub kernels: u64,
    /// Self-tests.
    pub tests: u64,
}

/// A GPU that runs programs.
pub struct GpuEngine {
    machine: Machine,
    residents: Residents,
    info: AdapterReport,
    /// The holder of arrays on this device, opened this time.
    holder: String,
    /// Runs share it; one that found no memory beside the others waits until it is alone.
    turn: async_lock::RwLock<()>,
    ceilings: OnceLock<Ceilings>,
}

/// From this many queries on a screen pays on a GPU: below, reading the rows is all the time there is.
const SCREEN_QUERIES: usize = 5;

impl GpuEngine {
    /// Opens a device.
    ///
    /// # Errors
    /// [`AdapterError`] when there is none that fits, saying what there is.
    pub fn open(options: &GpuOptions) -> Result<GpuEngine, AdapterError> {
        GpuEngine::open_in(options, &CacheDir::default())
    }

    /// Opens a device that keeps compiled kernels and passed tests in this folder.
    ///
    /// # Errors
    /// As [`GpuEngine::open`].
    pub fn open_in(options: &GpuOptions, cache: &CacheDir) -> Result<GpuEngine, AdapterError> {
        let (mut context, info) = Context::open(&options.select)?;
        context.cache = cache.clone();
        Ok(GpuEngine::with(context, info, options.memory))
    }

    /// Takes an application's own device and queue, with whatever limits and features they have. Its handlers for errors
    /// and loss stay as they are.
    ///
    /// # Errors
    /// [`AdapterError::Unusable`] when the device has less than the default limits of WebGPU.
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue, memory: Option<u64>) -> Result<GpuEngine, AdapterError> {
        GpuEngine::from_wgpu_in(device, queue, memory, &CacheDir::default())
    }

    /// [`GpuEngine::from_wgpu`] with a folder for compiled kernels and passed tests.
    ///
    /// # Errors
    /// As [`GpuEngine::from_wgpu`].
    pub fn from_wgpu_in(
        device: wgpu::Device,
        queue: wgpu::Queue,
        memory: Option<u64>,
        cache: &CacheDir,
    ) -> Result<GpuEngine, AdapterError> {
        let mut context = Context::from_wgpu(device, queue)?;
        context.cache = cache.clone();
        let info = adapters::describe(0, context.info.clone(), &context.limits, context.features, true);
        Ok(GpuEngine::with(context, info, memory))
    }

    fn with(context: Context, info: AdapterReport, memory: Option<u64>) -> GpuEngine {
        GpuEngine {
            machine: Machine::new(context, &info, memory, selftest::prove),
            residents: Residents::default(),
            holder: format!("{}, opened as {}", info.name, Tag::new().id()),
            info,
            turn: async_lock::RwLock::default(),
            ceilings: OnceLock::new(),
        }
    }

    /// What is known of the adapter.
    pub fn info(&self) -> &AdapterReport {
        &self.info
    }

    /// Whether the device is gone. Every run then fails with [`EngineError::Lost`].
    pub fn is_lost(&self) -> bool {
        self.machine.context.is_lost()
    }

    /// Bytes of device memory that may be taken.
    pub fn budget(&self) -> u64 {
        self.machine.memory.limit()
    }

    /// Bytes of device memory that are taken: rows, and scratch that waits to be used again.
    pub fn used(&self) -> u64 {
        self.machine.memory.used()
    }

    /// The most bytes that were ever taken at once.
    pub fn peak(&self) -> u64 {
        self.machine.memory.peak()
    }

    /// For each input that may stay on the device: its name, the bytes of it that are not there, and whether they will stay
    /// once they are.
    pub fn residency<'a>(&self, inputs: &[Input<'a>]) -> Vec<(&'a Tag, u64, bool)> {
        let scratch = lower::scratch_bytes(self.budget());
        let of = |input: &Input<'a>| match *input {
            Input::Vectors(base) => {
                let fits = resident::fits(self.budget(), &base, scratch);
                Some((base.tag?, self.residents.missing_bytes(&base), fits))
            }
            Input::Lists(lists, tag) => {
                Some((tag, self.residents.missing_lists(lists, tag), listed::fits(self.budget(), lists, scratch)))
            }
            _ => None,
        };
        inputs.iter().filter_map(of).collect()
    }

    /// Which shapes the kernels take.
    pub fn tuning(&self) -> KernelTuning {
        self.machine.tuning()
    }

    /// From now on the kernels take these shapes; `keep` tells later processes too. Changes no answer.
    pub fn set_tuning(&self, tuning: KernelTuning, keep: bool) {
        let _alone = block_on(self.turn.write());
        if tuning.is_sane() {
            self.machine.set_tuning(tuning);
            if keep {
                self.machine.pipelines.known.set_tuning(tuning);
                self.machine.pipelines.persist();
            }
        }
    }

    /// What was done so far.
    #[doc(hidden)]
    pub fn work(&self) -> Work {
        let [submissions, dispatches] = self.machine.work();
        let kernels = self.machine.pipelines.len() as u64;
        Work { submissions, dispatches, kernels, tests: self.machine.tests() }
    }

    /// The roofs of a roofline, measured by the probes of `shaders/probe/`; about a second on a GPU.
    ///
    /// # Errors
    /// [`ShaderError`] when the device can't hold or run even the probes of its memory.
    pub fn roofs(&self) -> Result<Roofs, ShaderError> {
        ceilings::roofs(&self.machine)
    }

    /// Compiles a user's shader and makes its buffers.
    ///
    /// # Errors
    /// [`ShaderError`].
    pub fn prepare(&self, shader: &Shader<'_>) -> Result<Prepared<'_>, ShaderError> {
        Prepared::new(&self.machine, shader, false)
    }

    /// Whether kernels are timed by the device's own clock.
    pub fn has_timestamps(&self) -> bool {
        self.machine.context.tick.is_some()
    }

    /// Gives back every byte that no run is using.
    pub fn trim(&self) {
        self.residents.clear();
        self.machine.memory.trim();
    }

    /// Makes a fault happen, so that tests can see what comes of it.
    #[doc(hidden)]
    pub fn inject(&self, fault: Fault) {
        if fault == Fault::OutOfMemory {
            // Scratch that waits to be used again needs no allocation.
            self.machine.memory.trim();
        }
        self.machine.context.inject(fault);
    }

    async fn attempt(&self, program: &Program, inputs: &[Input<'_>]) -> Result<Answer, EngineError> {
        let mut stats = SearchStats { device: self.name(), ..SearchStats::default() };
        let site = Site { machine: &self.machine, residents: &self.residents, holder: &self.holder };
        let outputs = lower::run(site, program, inputs, &mut stats).await?;
        Ok(Answer { outputs, stats })
    }

    async fn execute(&self, program: &Program, inputs: &[Input<'_>]) -> Result<Answer, EngineError> {
        self.machine.context.check_lost()?;
        let shared = self.turn.read().await;
        let mut result = self.attempt(program, inputs).await;
        drop(shared);
        if matches!(result, Err(EngineError::OutOfMemory { .. })) {
            // Other runs may hold what this one needs.
            let _alone = self.turn.write().await;
            self.trim();
            result = self.attempt(program, inputs).await;
        }
        if matches!(result, Err(EngineError::Driver(_)))
            && let Err(lost) = self.machine.context.check_alive()
        {
            result = Err(lost);
        }
        self.machine.context.faults.end_of_run();
        self.machine.pipelines.persist();
        result
    }
}

impl std::fmt::Debug for GpuEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("GpuEngine").field(&self.info.name).finish()
    }
}

impl Backend<Op> for GpuEngine {
    fn name(&self) -> String {
        self.info.name.clone()
    }

    fn identity(&self) -> String {
        self.info.identity()
    }

    fn cache(&self) -> CacheDir {
        self.machine.context.cache.clone()
    }

    fn notes(&self) -> Vec<String> {
        self.machine.pipelines.notes()
    }

    fn run<'a>(&'a self, program: &'a Program, inputs: &'a [Input<'a>]) -> Pending<'a> {
        Pending::running(self.execute(program, inputs))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kind: compute::Kind::Gpu,
            // With fewer queries reading the rows is all the time there is.
            screen_queries: &[(usize::MAX, SCREEN_QUERIES)],
            screen_keep: MAX_KEEP as usize,
            f16: self.machine.context.matrix.is_some(),
            // Less to read even for one query; but a card reads the rows themselves sooner than it goes through levels.
            coded_rows: 0,
            coded_queries: if self.machine.context.kind() == Kind::Discrete { SCREEN_QUERIES } else { 0 },
            coded_assign: false,
            room: Some(Room {
                budget: self.budget(),
                scratch: lower::scratch_bytes(self.budget()),
                staging: 2 * upload::staging_bytes(self.budget()),
            }),
        }
    }

    fn ceilings(&self) -> Ceilings {
        *self.ceilings.get_or_init(|| ceilings::measure(&self.machine))
    }
}
