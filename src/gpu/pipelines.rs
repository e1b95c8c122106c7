//! Compiled kernels: made on first use, kept for the life of the engine, and helped by the driver's own cache on disk.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::adapters::Kind;
use super::context::Context;
use super::known::{Known, RATES};
use super::sync::lock;
use super::trusted;
use crate::cache;
use crate::compute::EngineError;
use crate::ops::source::{self, ParamsIn, Target};
use crate::ops::{Access, Kernel, Launch, Variant};

/// What makes a pipeline another one: entry point, variant, and the constants by their bits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    verb: &'static str,
    entry: &'static str,
    variant: Variant,
    constants: Vec<(&'static str, u64)>,
}

/// As it is written to disk.
impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let suffix = if self.variant.subgroups { "+subgroups" } else { "" };
        write!(f, "{}/{}{suffix}", self.verb, self.entry)?;
        self.constants.iter().try_for_each(|(name, bits)| write!(f, ",{name}={}", f64::from_bits(*bits)))
    }
}

impl Key {
    pub(super) fn of(launch: &Launch) -> Key {
        Key {
            verb: launch.kernel.verb,
            entry: launch.kernel.entry,
            variant: launch.variant,
            constants: launch.constants.iter().map(|&(name, value)| (name, value.to_bits())).collect(),
        }
    }
}

/// A compiled kernel and how fast it has been so far.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) raw: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    /// The layout of the uniform buffer that holds its parameters; absent when they travel as immediates.
    pub(super) uniform: Option<wgpu::BindGroupLayout>,
    /// Units of work per second, as the bits of an f64; how work is counted is up to the lowering, but always the same.
    rate: AtomicU64,
    /// The rate that the file of this device has.
    noted: AtomicU64,
    /// Whether it has run before: the first run of a kernel may include the driver's compiler.
    warm: AtomicBool,
}

impl Pipeline {
    /// Units of work per second.
    pub(super) fn rate(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Relaxed))
    }

    /// Learns from a measured time: `ratio` is predicted time over measured time.
    pub(super) fn learn(&self, ratio: f64) {
        if self.warm.swap(true, Ordering::Relaxed) && ratio.is_finite() {
            // One odd measurement must not make the next command buffer so long that a watchdog kills it.
            let rate = self.rate() * ratio.clamp(0.25, 4.0);
            self.rate.store(rate.clamp(*RATES.start(), *RATES.end()).to_bits(), Ordering::Relaxed);
        }
    }

    /// The rate, when it is far from the one that was noted last.
    fn news(&self) -> Option<f64> {
        let (rate, noted) = (self.rate(), f64::from_bits(self.noted.load(Ordering::Relaxed)));
        if rate < 1.5 * noted && noted < 1.5 * rate {
            return None;
        }
        self.noted.store(rate.to_bits(), Ordering::Relaxed);
        Some(rate)
    }
}

/// Work per second that a kernel is believed to do until it has been measured: on the low side.
pub(super) fn first_rate(kind: Kind) -> f64 {
    match kind {
        Kind::Software => 5e8,
        Kind::Unknown | Kind::Virtual => 5e9,
        Kind::Integrated => 2e10,
        Kind::Discrete => 1e11,
    }
}

/// All compiled kernels of a device.
pub(super) struct Pipelines {
    made: Mutex<HashMap<Key, Arc<Pipeline>>>,
    /// Shader modules by text, variant and whether parameters are immediates. Held while something is built, so that
    /// two threads never build the same.
    modules: Mutex<HashMap<(&'static str, Variant, bool), wgpu::ShaderModule>>,
    cache: Option<DiskCache>,
    pub(super) known: Arc<Known>,
}

impl Pipelines {
    pub(super) fn new(context: &Context, known: Arc<Known>) -> Pipelines {
        Pipelines { made: Mutex::default(), modules: Mutex::default(), cache: DiskCache::open(context), known }
    }

    /// The pipeline of a launch.
    pub(super) fn get(&self, context: &Context, launch: &Launch) -> Result<Arc<Pipeline>, EngineError> {
        let key = Key::of(launch);
        if let Some(pipeline) = lock(&self.made).get(&key) {
            return Ok(pipeline.clone());
        }
        let mut modules = lock(&self.modules);
        if let Some(pipeline) = lock(&self.made).get(&key) {
            return Ok(pipeline.clone());
        }
        let immediates = context.immediates(launch.params.len());
        let pipeline = context.scoped(0, || {
            let module = modules.entry((launch.kernel.wgsl, key.variant, immediates)).or_insert_with(|| {
                let params = if immediates { ParamsIn::Immediate } else { ParamsIn::Uniform };
                let text = source::compose(launch.kernel, launch.variant, params, Target::Naga);
                trusted::shader_module(&context.device, &format!("nearfield.{}", key.verb), text)
            });
            let rate = self.known.rate(&key.to_string()).unwrap_or_else(|| first_rate(context.kind()));
            build(context, launch, module, immediates, self.cache.as_ref().map(|c| &c.raw), rate)
        })?;
        let pipeline = Arc::new(pipeline);
        lock(&self.made).insert(key, pipeline.clone());
        if let Some(cache) = &self.cache {
            cache.stale.store(true, Ordering::Relaxed);
        }
        Ok(pipeline)
    }

    /// What was wrong with files in the cache folder.
    pub(super) fn notes(&self) -> Vec<String> {
        let cache = self.cache.as_ref().and_then(|c| c.note.clone());
        cache.into_iter().chain(self.known.note().map(str::to_owned)).collect()
    }

    /// How many kernels were compiled.
    pub(super) fn len(&self) -> usize {
        lock(&self.made).len()
    }

    /// Writes changes to disk: the driver's cache if something was compiled, and measurements.
    pub(super) fn persist(&self) {
        for (key, pipeline) in lock(&self.made).iter() {
            if let Some(rate) = pipeline.news() {
                self.known.set_rate(key.to_string(), rate);
            }
        }
        self.known.persist();
        if let Some(cache) = &self.cache
            && cache.stale.swap(false, Ordering::Relaxed)
        {
            cache.save();
        }
    }
}

fn build(
    context: &Context,
    launch: &Launch,
    module: &wgpu::ShaderModule,
    immediates: bool,
    cache: Option<&wgpu::PipelineCache>,
    rate: f64,
) -> Pipeline {
    let kernel: &Kernel = launch.kernel;
    let label = format!("nearfield.{}.{}", kernel.verb, kernel.entry);
    let entry = |binding: usize, ty: wgpu::BufferBindingType| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let entries: Vec<wgpu::BindGroupLayoutEntry> = kernel
        .bindings
        .iter()
        .enumerate()
        .map(|(i, b)| entry(i, wgpu::BufferBindingType::Storage { read_only: b.access == Access::Read }))
        .collect();
    let group = |entries: &[wgpu::BindGroupLayoutEntry]| {
        let descriptor = wgpu::BindGroupLayoutDescriptor { label: Some(&label), entries };
        context.device.create_bind_group_layout(&descriptor)
    };
    let layout = group(&entries);
    let uniform = (!immediates).then(|| group(&[entry(0, wgpu::BufferBindingType::Uniform)]));
    let groups: Vec<Option<&wgpu::BindGroupLayout>> = std::iter::once(&layout).chain(&uniform).map(Some).collect();
    let pipeline_layout = context.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(&label),
        bind_group_layouts: &groups,
        immediate_size: if immediates { launch.params.len() as u32 } else { 0 },
    });
    let raw = context.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(&label),
        layout: Some(&pipeline_layout),
        module,
        entry_point: Some(kernel.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &launch.constants,
            // Every kernel writes its workgroup memory before it reads it.
            zero_initialize_workgroup_memory: false,
        },
        cache,
    });
    let rate = rate.to_bits();
    Pipeline { raw, layout, uniform, rate: rate.into(), noted: rate.into(), warm: AtomicBool::new(false) }
}

/// The driver's compiled kernels in the user's cache folder. Whatever goes wrong with it is ignored: it only saves time.
struct DiskCache {
    raw: wgpu::PipelineCache,
    path: PathBuf,
    stale: AtomicBool,
    note: Option<String>,
}

impl DiskCache {
    fn open(context: &Context) -> Option<DiskCache> {
        if !context.features.contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let path = context.cache.folder()?.join(wgpu::util::pipeline_cache_key(&context.info)?);
        let file = std::fs::read(&path).ok();
        let data = file.as_deref().and_then(cache::unseal);
        let note = (file.is_some() && data.is_none())
            .then(|| format!("cache file {} is rebuilt: its checksum is wrong", path.display()));
        let raw = context.scoped(0, || trusted::pipeline_cache(&context.device, data)).ok()?;
        Some(DiskCache { raw, path, stale: AtomicBool::new(note.is_some()), note })
    }

    fn save(&self) {
        if let Some(data) = self.raw.get_data() {
            cache::replace(&self.path, &cache::seal(&data));
        }
    }
}
