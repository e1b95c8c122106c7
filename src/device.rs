//! The device that a search runs on. With `router`, the only place that knows both engines.

use std::path::PathBuf;
use std::sync::Arc;

use crate::cache::CacheDir;
use crate::compute::{Backend, Capabilities, EngineError, Input, Kind, Pending};
use crate::cpu::CpuEngine;
use crate::engine::Device;
use crate::error::DeviceError;
#[cfg(feature = "gpu")]
use crate::gpu::{AdapterError, GpuEngine, GpuOptions, Select};
use crate::ops::{Engine, Op, Program};
#[cfg(feature = "gpu")]
use crate::router::Router;
use crate::stats::Ceilings;
use crate::threads::Threads;
use crate::tune;

/// The environment variable that names the device when the program does not.
pub const DEVICE_VARIABLE: &str = "NEARFIELD_DEVICE";

/// How a device is opened. Every method takes the options and gives them back, so that they chain.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nearfield::{Device, DeviceOptions};
///
/// let device = Device::open(&DeviceOptions::default().device("cpu").threads(2).no_cache())?;
/// assert!(device.name().contains("2 threads"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
#[non_exhaustive]
pub struct DeviceOptions {
    /// `auto`, `cpu`, `gpu`, `gpu:N`, or a part of an adapter's name. When absent, the environment variable
    /// `NEARFIELD_DEVICE`, else `auto`.
    pub device: Option<String>,
    /// Most bytes that nearfield allocates on the device, scratch included. When absent, half of what the device has.
    pub memory: Option<u64>,
    /// Threads that work at the same time for one call, the caller's among them, in all that the device does. When absent,
    /// one for each processor that the process may use.
    pub threads: Option<usize>,
    /// Where measurements, compiled kernels and passed self-tests are kept.
    pub cache_dir: CacheDir,
    /// If true, the first search under `auto` starts a background measurement of CPU and GPU: once per machine, at most 200 ms
    /// each beside compiling. The GPU answers until it is done. If false, the GPU answers until [`Device::calibrate`] was
    /// called, now or in an earlier process.
    pub calibrate: bool,
}

impl Default for DeviceOptions {
    fn default() -> DeviceOptions {
        DeviceOptions { device: None, memory: None, threads: None, cache_dir: CacheDir::User, calibrate: true }
    }
}

impl DeviceOptions {
    /// This device: `auto`, `cpu`, `gpu`, `gpu:N`, or a part of an adapter's name.
    #[must_use]
    pub fn device(mut self, name: impl Into<String>) -> DeviceOptions {
        self.device = Some(name.into());
        self
    }

    /// At most so many bytes on the device.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> DeviceOptions {
        self.memory = Some(bytes);
        self
    }

    /// So many threads on the CPU.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> DeviceOptions {
        self.threads = Some(threads);
        self
    }

    /// Keeps measurements and compiled kernels in this folder.
    #[must_use]
    pub fn cache_dir(mut self, folder: impl Into<PathBuf>) -> DeviceOptions {
        self.cache_dir = CacheDir::At(folder.into());
        self
    }

    /// Keeps no files: kernels are compiled and tested, and speeds measured, in every process anew.
    #[must_use]
    pub fn no_cache(mut self) -> DeviceOptions {
        self.cache_dir = CacheDir::Nowhere;
        self
    }

    /// Whether searches make the device be measured.
    #[must_use]
    pub fn calibrate(mut self, allowed: bool) -> DeviceOptions {
        self.calibrate = allowed;
        self
    }
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

    /// An application's own device and queue, with whatever limits and features they have. Nothing is requested of the
    /// device and its error handlers stay as they are.
    ///
    /// # Errors
    /// [`DeviceError::Open`] when the device lacks what every WebGPU device has.
    #[cfg(feature = "gpu")]
    pub fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Device, DeviceError> {
        Device::from_wgpu_with(device, queue, &DeviceOptions::default())
    }

    /// [`Device::from_wgpu`] with options; their device is ignored.
    ///
    /// # Errors
    /// As [`Device::from_wgpu`].
    #[cfg(feature = "gpu")]
    pub fn from_wgpu_with(
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: &DeviceOptions,
    ) -> Result<Device, DeviceError> {
        let engine = GpuEngine::from_wgpu_in(device, queue, options.memory, &options.cache_dir).map_err(open_error)?;
        Ok(Device::routed(Arc::new(engine), None, false, options))
    }

    /// The sort of device: the CPU, a GPU, or both, of which each call takes the faster one.
    pub fn kind(&self) -> Kind {
        self.engine.capabilities().kind
    }

    /// The device in words, e.g. `cpu (avx512, 8 threads)` or the adapter's name.
    pub fn name(&self) -> String {
        self.engine.name()
    }

    fn on_cpu(options: &DeviceOptions, reason: Option<String>) -> Device {
        let threads = Threads::new(options.threads);
        let cpu = host(options, &threads);
        match reason {
            None => Device::new(cpu.clone(), cpu, threads),
            Some(reason) => Device::new(Arc::new(Excused { cpu: cpu.clone(), reason }), cpu, threads),
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
        match GpuEngine::open_in(&gpu_options, &options.cache_dir) {
            Ok(engine) => Ok(Device::routed(Arc::new(engine), Some(gpu_options), auto, options)),
            Err(e) if auto => Ok(Device::on_cpu(options, Some(e.to_string()))),
            Err(e) => Err(open_error(e)),
        }
    }

    /// The CPU with one set of instructions, so that tests can compare them.
    #[cfg(feature = "tooling")]
    #[doc(hidden)]
    pub fn cpu_at(level: crate::cpu::Level) -> Device {
        let threads = Threads::new(None);
        let cpu: Arc<Engine> = Arc::new(CpuEngine::with(threads.clone(), Some(level)));
        Device::new(cpu.clone(), cpu, threads)
    }

    /// What `auto` makes of an engine, so that tests can do to it what befalls real devices.
    #[cfg(feature = "gpu")]
    #[doc(hidden)]
    pub fn auto_over(engine: Arc<GpuEngine>, reopen: GpuOptions) -> Device {
        Device::routed(engine, Some(reopen), true, &DeviceOptions::default())
    }

    /// [`Device::auto_over`] an engine whose speed, and the CPU's, are not measured but given: (CPU, GPU).
    #[cfg(feature = "gpu")]
    #[doc(hidden)]
    pub fn auto_given(engine: Arc<GpuEngine>, reopen: GpuOptions, given: [tune::Calibration; 2]) -> Device {
        let threads = Threads::new(None);
        let host: Arc<Engine> = Arc::new(CpuEngine::with(threads.clone(), None));
        let router = Router::new(engine, Some(host.clone()), Some(reopen)).given(given);
        Device::new(Arc::new(router), host, threads)
    }

    /// The devices that this one chooses between, call by call: the CPU and the GPU of `auto` where there is hardware,
    /// else itself.
    pub fn parts(&self) -> Vec<Device> {
        match self.engine.parts() {
            parts if parts.is_empty() => vec![self.clone()],
            parts => {
                parts.into_iter().map(|engine| Device::new(engine, self.host.clone(), self.threads.clone())).collect()
            }
        }
    }

    /// Measures how fast the engines are that the device chooses between, unless that is known: for at most 200 ms each
    /// beside compiling kernels. The figures are kept in the folder of [`DeviceOptions::cache_dir`], for later processes.
    /// Blocks until it is done.
    ///
    /// # Errors
    /// [`EngineError`] when the device fails while it is measured.
    pub fn calibrate(&self) -> Result<(), EngineError> {
        self.parts().iter().try_for_each(|part| tune::predictor(&*part.engine).map(drop))
    }

    /// Predicted seconds of each operation of a program, with the rows where the device wants them. The first call on a
    /// machine measures the device, as [`Device::calibrate`] does.
    ///
    /// # Errors
    /// [`EngineError`] when the device fails while it is measured.
    pub fn predict(&self, program: &Program) -> Result<Vec<f64>, EngineError> {
        let predictions = self.parts().into_iter().map(|d| Ok(tune::predictor(&*d.engine)?.steps(program)));
        let all: Vec<Vec<f64>> = predictions.collect::<Result<_, EngineError>>()?;
        let total = |steps: &Vec<f64>| steps.iter().sum::<f64>();
        Ok(all.into_iter().min_by(|a, b| total(a).total_cmp(&total(b))).unwrap_or_default())
    }

    /// Times the few shapes that the kernels of its GPU can have and keeps the fastest, on disk too, for this adapter and
    /// driver. No answer depends on it. Gives a line for each choice, the fastest first; none where there is no GPU.
    ///
    /// # Errors
    /// [`EngineError`] of the device.
    pub fn tune(&self) -> Result<Vec<String>, EngineError> {
        self.engine.tune()
    }

    /// What was wrong with files of this device in its cache folder: which file, why, and that it is rebuilt.
    pub fn notes(&self) -> Vec<String> {
        let parts = self.parts();
        let own = parts.iter().flat_map(|part| part.engine.notes());
        own.chain(parts.iter().filter_map(|part| tune::note(&*part.engine))).collect()
    }

    #[cfg(feature = "gpu")]
    fn routed(engine: Arc<GpuEngine>, reopen: Option<GpuOptions>, auto: bool, options: &DeviceOptions) -> Device {
        let threads = Threads::new(options.threads);
        let host = host(options, &threads);
        let router = Router::new(engine, auto.then(|| host.clone()), reopen).with(options);
        Device::new(Arc::new(router), host, threads)
    }
}

/// The CPU engine that the options ask for.
fn host(options: &DeviceOptions, threads: &Threads) -> Arc<Engine> {
    let engine = CpuEngine::with(threads.clone(), None);
    Arc::new(engine.cached_in(options.cache_dir.clone()))
}

#[cfg(feature = "gpu")]
fn unknown(wanted: &str) -> DeviceError {
    let names: Vec<String> = crate::gpu::adapters().into_iter().map(|a| a.name).collect();
    let there = if names.is_empty() { "no adapter".to_owned() } else { names.join(", ") };
    DeviceError::Unknown { wanted: wanted.to_owned(), there }
}

#[cfg(feature = "gpu")]
fn open_error(error: AdapterError) -> DeviceError {
    match error {
        AdapterError::Unknown { wanted, .. } => unknown(&wanted),
        AdapterError::NoAdapter { reason } => DeviceError::NoGpu { reason },
        other => DeviceError::Open { reason: other.to_string() },
    }
}

/// The CPU in place of a GPU that is not there; every answer says why.
struct Excused {
    cpu: Arc<Engine>,
    reason: String,
}

impl Backend<Op> for Excused {
    fn name(&self) -> String {
        self.cpu.name()
    }

    fn run<'a>(&'a self, program: &'a Program, inputs: &'a [Input<'a>]) -> Pending<'a> {
        Pending::running(async {
            let mut answer = self.cpu.run(program, inputs).await?;
            answer.stats.fallback.get_or_insert_with(|| self.reason.clone());
            Ok(answer)
        })
    }

    fn identity(&self) -> String {
        self.cpu.identity()
    }

    fn cache(&self) -> CacheDir {
        self.cpu.cache()
    }

    fn capabilities(&self) -> Capabilities {
        self.cpu.capabilities()
    }

    fn ceilings(&self) -> Ceilings {
        self.cpu.ceilings()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Matrix;
    use crate::index::{AnyIndex, Flat, IndexSpec, Ivf, SearchOptions, TrainOptions};
    use crate::ops::{Norm, Screen};
    use crate::threads::alone;
    use crate::types::Metric;
    use crate::{KMeans, PrincipalComponents};

    fn device(threads: usize) -> Device {
        let options = DeviceOptions::default().device("cpu").threads(threads);
        Device::open(&options).unwrap()
    }

    /// Rows in a few clusters, no two alike.
    fn rows(n: usize, dim: usize) -> Vec<f32> {
        (0..n * dim)
            .map(|i| ((i / dim % 16 * 31 + i % dim * 7) % 23) as f32 + (i * 7919 % 1013) as f32 / 997.0)
            .collect()
    }

    /// Every entry point says which threads the work below it is shared among. Without that the work is done by the caller
    /// alone, which is right and slow.
    #[test]
    fn every_entry_point_brings_its_threads() {
        let (n, dim, device) = (20_000, 32, device(2));
        let (data, other) = (rows(n, dim), rows(300, dim));
        let matrix = || Matrix::from_vec(data.clone(), dim).unwrap();
        let (rows, queries) = (matrix(), Matrix::from_vec(other, dim).unwrap());
        let (folder, options) = (tempfile::tempdir().unwrap(), SearchOptions::default());
        let mut checked = 0;
        let mut done = |what: &str| {
            checked += 1;
            assert_eq!(alone(), 0, "{what} shared no work");
        };
        alone();

        device.distances(queries.view(), queries.view(), Metric::Cosine).unwrap();
        device.nearest(queries.view(), rows.view(), Metric::Cosine, 3).unwrap();
        device.assign(rows.view(), queries.view(), Metric::L2).unwrap();
        device.normalize(rows.view(), Norm::L2).unwrap();
        device.range(queries.view(), rows.view(), Metric::Cosine, 0.99).unwrap();
        done("a verb");
        let found: PrincipalComponents = device.principal_components(rows.view(), 3).unwrap();
        found.project(&device, queries.view()).unwrap();
        done("principal_components");
        KMeans::new(64).train(&device, rows.view()).unwrap();
        done("k-means");

        let mut flat = Flat::from_matrix(&device, matrix(), Metric::Cosine, None).unwrap();
        done("Flat::from_matrix");
        flat.add(queries.view()).unwrap();
        done("Flat::add");
        flat.set_screen(Some(Screen::Int8)).unwrap();
        done("Flat::set_screen");
        flat.search(queries.view(), 10).unwrap();
        flat.range_search(queries.view(), 0.99).unwrap();
        flat.explain(queries.view(), 10, &options).unwrap();
        done("a search of Flat");
        flat.set_screen(None).unwrap();
        flat.prepare().unwrap();
        flat.warm_up(&[1, 64], 10).unwrap();
        done("Flat::warm_up");

        for spec in ["IVF64,SQ8,RFlat", "OPQ8_16,IVF32,PQ8x4,Refine(SQ8)", "PCAR16,RaBitQ4"] {
            let spec: IndexSpec = spec.parse().unwrap();
            let mut ivf = Ivf::train(&device, &spec, Metric::Cosine, rows.view(), &TrainOptions::default()).unwrap();
            done("Ivf::train");
            let ids = ivf.add(rows.view()).unwrap();
            done("Ivf::add");
            ivf.search_with(queries.view(), 10, &options).unwrap();
            ivf.range_search(queries.view(), 0.99).unwrap();
            ivf.explain(queries.view(), 10, &options).unwrap();
            done("a search of Ivf");
            ivf.remove(&ids[..n / 2]);
            done("Ivf::remove");
            let path = folder.path().join("ivf.nf");
            ivf.save(&path).unwrap();
            AnyIndex::open(&device, &path).unwrap();
            done("AnyIndex::open of an Ivf");
        }
        let path = folder.path().join("flat.nf");
        flat.save(&path).unwrap();
        AnyIndex::open(&device, &path).unwrap();
        Flat::open(&device, &path).unwrap();
        done("AnyIndex::open of a Flat");
        crate::format::NfFile::open(&path).unwrap();
        done("NfFile::open");
        assert!(checked > 20);
        assert_eq!(flat.len(), n + 300);
    }
}
