//! A device, a launch and its buffers, and nothing else: what the tests of single kernels need.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock};

use half::{bf16, f16};
use nearfield::ops::source::{ParamsIn, Target, compose};
use nearfield::ops::tuning::KernelTuning;
use nearfield::ops::{Access, DeviceCaps, Launch};
use nearfield::{BitsView, DType, RowsView};

/// A device with default limits, in one of the ways to run a kernel.
pub struct Gpu {
    pub name: String,
    pub caps: DeviceCaps,
    device: wgpu::Device,
    queue: wgpu::Queue,
    params_in: ParamsIn,
    pipelines: Mutex<HashMap<String, wgpu::ComputePipeline>>,
}

/// Runs the check on every adapter, without subgroups and, where there are some, with them.
pub fn each_variant(check: impl Fn(&Gpu)) {
    static GPUS: OnceLock<Vec<Gpu>> = OnceLock::new();
    let gpus = GPUS.get_or_init(open);
    assert!(!gpus.is_empty(), "no adapter: scripts/test sets up software ones");
    gpus.iter().for_each(check);
}

/// Runs the check on every adapter once, for kernels that have one variant; software drivers compile for seconds.
pub fn each_gpu(check: impl Fn(&Gpu)) {
    each_variant(|gpu| {
        if !gpu.caps.subgroups {
            check(gpu);
        }
    });
}

fn open() -> Vec<Gpu> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    adapters.iter().flat_map(|a| [false, true].into_iter().filter_map(|s| Gpu::open(a, s))).collect()
}

impl Gpu {
    /// Without subgroups: parameters as immediates where the device has them. With: in a uniform buffer, as everywhere.
    fn open(adapter: &wgpu::Adapter, subgroups: bool) -> Option<Gpu> {
        if subgroups && !adapter.features().contains(wgpu::Features::SUBGROUP) {
            return None;
        }
        let wanted = if subgroups { wgpu::Features::SUBGROUP } else { wgpu::Features::IMMEDIATES };
        let features = wanted & adapter.features();
        let immediates = features.contains(wgpu::Features::IMMEDIATES);
        let limits = wgpu::Limits { max_immediate_size: if immediates { 128 } else { 0 }, ..Default::default() };
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: None,
            required_features: features,
            required_limits: limits.clone(),
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        }))
        .expect("a device with default limits");
        let caps = DeviceCaps {
            subgroups,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            max_groups: limits.max_compute_workgroups_per_dimension,
            tuning: KernelTuning::DEFAULT,
        };
        let name = format!("{}{}", adapter.get_info().name, if subgroups { " with subgroups" } else { "" });
        let params_in = if immediates { ParamsIn::Immediate } else { ParamsIn::Uniform };
        Some(Gpu { name, caps, device, queue, params_in, pipelines: Mutex::new(HashMap::new()) })
    }

    fn pipeline(&self, launch: &Launch) -> wgpu::ComputePipeline {
        let key = format!("{} {:?}", launch.kernel.entry, launch.constants);
        let mut pipelines = self.pipelines.lock().unwrap();
        pipelines.entry(key).or_insert_with(|| self.compile(launch)).clone()
    }

    fn compile(&self, launch: &Launch) -> wgpu::ComputePipeline {
        let buffer = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
            count: None,
        };
        let entries: Vec<_> = (0..)
            .zip(launch.kernel.bindings)
            .map(|(i, b)| buffer(i, wgpu::BufferBindingType::Storage { read_only: b.access == Access::Read }))
            .collect();
        let layout = |entries: &[_]| {
            self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries })
        };
        let (buffers, uniform) = (layout(&entries), layout(&[buffer(0, wgpu::BufferBindingType::Uniform)]));
        let immediate = self.params_in == ParamsIn::Immediate;
        let groups = [Some(&buffers), Some(&uniform)];
        let layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: None,
            bind_group_layouts: if immediate { &groups[..1] } else { &groups },
            immediate_size: if immediate { launch.params.len() as u32 } else { 0 },
        });
        let text = compose(launch.kernel, launch.variant, self.params_in, Target::Naga);
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: Some(launch.kernel.entry),
            source: wgpu::ShaderSource::Wgsl(text.into()),
        });
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(launch.kernel.entry),
            layout: Some(&layout),
            module: &module,
            entry_point: Some(launch.kernel.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &launch.constants,
                zero_initialize_workgroup_memory: false,
            },
            cache: None,
        })
    }

    fn upload(&self, words: &[u32], usage: wgpu::BufferUsages) -> wgpu::Buffer {
        let size = words.len().next_multiple_of(4).max(4) as u64 * 4;
        let usage = usage | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer =
            self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        self.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(words));
        buffer
    }

    /// Runs one launch; gives what the buffers hold afterwards.
    pub fn run(&self, launch: &Launch, contents: Vec<Vec<u32>>) -> Vec<Vec<u32>> {
        assert_eq!(contents.len(), launch.kernel.bindings.len(), "{}", launch.kernel.entry);
        assert!(launch.groups.iter().all(|&g| g <= self.caps.max_groups));
        let pipeline = self.pipeline(launch);
        let buffers: Vec<_> = contents.iter().map(|c| self.upload(c, wgpu::BufferUsages::STORAGE)).collect();
        let params = self.upload(bytemuck::cast_slice(&launch.params), wgpu::BufferUsages::UNIFORM);
        let bind = |group: u32, buffers: &[&wgpu::Buffer]| {
            let entries: Vec<_> = (0..)
                .zip(buffers)
                .map(|(binding, b)| wgpu::BindGroupEntry { binding, resource: b.as_entire_binding() })
                .collect();
            let layout = &pipeline.get_bind_group_layout(group);
            self.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
        };
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(&pipeline);
            pass.set_bind_group(0, &bind(0, &buffers.iter().collect::<Vec<_>>()), &[]);
            match self.params_in {
                ParamsIn::Immediate => pass.set_immediates(0, &launch.params),
                ParamsIn::Uniform => pass.set_bind_group(1, &bind(1, &[&params]), &[]),
            }
            let [x, y, z] = launch.groups;
            pass.dispatch_workgroups(x, y, z);
        }
        self.queue.submit([encoder.finish()]);
        buffers.iter().zip(&contents).map(|(b, c)| self.download(b, c.len())).collect()
    }

    fn download(&self, buffer: &wgpu::Buffer, len: usize) -> Vec<u32> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let size = buffer.size();
        let copy =
            self.device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(buffer, 0, &copy, 0, size);
        self.queue.submit([encoder.finish()]);
        copy.map_async(wgpu::MapMode::Read, .., |r| r.expect("the buffer can be read"));
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("the device answers");
        let bytes = copy.get_mapped_range(..).expect("the buffer is mapped");
        bytemuck::pod_collect_to_vec::<u8, u32>(&bytes)[..len].to_vec()
    }
}

pub fn words(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

pub fn f32s(words: &[u32]) -> Vec<f32> {
    words.iter().map(|&w| f32::from_bits(w)).collect()
}

pub fn u32s(words: &[u32]) -> Vec<u32> {
    words.to_vec()
}

/// Rows as kernels read them: each padded with zeros to whole units of 16 bytes.
pub fn rows_of(view: &RowsView<'_>) -> Vec<u32> {
    let mut words = Vec::new();
    for i in 0..view.rows() {
        let mut row = view.row_bytes(i).to_vec();
        row.resize(row.len().next_multiple_of(16), 0);
        words.extend(row.chunks(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])));
    }
    words
}

/// Rows of any element type; `dim` counts bits for packed bits.
pub struct Data {
    pub dtype: DType,
    pub rows: usize,
    pub dim: usize,
    /// The elements' bytes, aligned for any of them.
    words: Vec<u32>,
    size: usize,
}

impl Data {
    fn new(dtype: DType, rows: usize, dim: usize, bytes: &[u8]) -> Data {
        let word = |c: &[u8]| c.iter().rev().fold(0, |w, &b| w << 8 | u32::from(b));
        Data { dtype, rows, dim, words: bytes.chunks(4).map(word).collect(), size: bytes.len() }
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.size]
    }

    /// Values around 0, or above it; for f16 also denormal ones.
    pub fn random(seed: u32, dtype: DType, rows: usize, dim: usize, positive: bool) -> Data {
        let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            let unit = state as f32 / u32::MAX as f32;
            let value = if state.is_multiple_of(11) { 0.0 } else { unit };
            if positive { value } else { value * 2.0 - 1.0 }
        };
        let mut bytes = Vec::new();
        let count = if dtype == DType::Bits { rows * dim / 8 } else { rows * dim };
        for i in 0..count {
            let v = next();
            match dtype {
                DType::F32 => bytes.extend(v.to_le_bytes()),
                DType::F16 => bytes.extend(f16::from_f32(if i % 9 == 0 { v * 3e-5 } else { v }).to_le_bytes()),
                DType::Bf16 => bytes.extend(bf16::from_f32(v).to_le_bytes()),
                DType::I8 => bytes.push((v * 127.0) as i8 as u8),
                DType::U8 => bytes.push((v.abs() * 255.0) as u8),
                _ => bytes.push((v.abs() * 1e6) as u32 as u8),
            }
        }
        Data::new(dtype, rows, dim, &bytes)
    }

    /// f32 rows of which only `kinds` are different.
    pub fn repeating(seed: u32, rows: usize, dim: usize, kinds: usize) -> Data {
        let some = Data::random(seed, DType::F32, kinds, dim, false);
        let bytes: Vec<u8> = (0..rows).flat_map(|i| some.bytes()[i % kinds * dim * 4..][..dim * 4].to_vec()).collect();
        Data::new(DType::F32, rows, dim, &bytes)
    }

    /// The same f32 rows, each component off by a thousandth or less.
    pub fn near(rows: &Data) -> Data {
        let noise = Data::random(99, DType::F32, rows.rows, rows.dim, true);
        let number = |c: &[u8]| f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
        let pairs = rows.bytes().chunks_exact(4).zip(noise.bytes().chunks_exact(4));
        let bytes = pairs.flat_map(|(x, e)| (number(x) * (1.0 + number(e) * 1e-3)).to_le_bytes());
        Data::new(DType::F32, rows.rows, rows.dim, &bytes.collect::<Vec<u8>>())
    }

    fn row_bytes(&mut self, i: usize) -> &mut [u8] {
        let size = self.dtype.row_bytes(self.dim);
        &mut bytemuck::cast_slice_mut(&mut self.words)[i * size..(i + 1) * size]
    }

    pub fn clear_row(&mut self, i: usize) {
        self.row_bytes(i).fill(0);
    }

    /// Multiplies an f32 row.
    pub fn scale_row(&mut self, i: usize, by: f32) {
        for c in self.row_bytes(i).chunks_exact_mut(4) {
            let v = f32::from_le_bytes([c[0], c[1], c[2], c[3]]) * by;
            c.copy_from_slice(&v.to_le_bytes());
        }
    }

    pub fn view(&self) -> RowsView<'_> {
        macro_rules! view {
            ($kind:ty) => {
                RowsView::new::<$kind>(bytemuck::cast_slice(self.bytes()), self.dim).unwrap()
            };
        }
        match self.dtype {
            DType::F32 => view!(f32),
            DType::F16 => view!(half::f16),
            DType::Bf16 => view!(half::bf16),
            DType::I8 => view!(i8),
            DType::U8 => view!(u8),
            _ => BitsView::new(self.bytes(), self.dim).unwrap().into(),
        }
    }

    /// Euclidean lengths.
    pub fn norms(&self) -> Vec<f32> {
        let view = self.view();
        let mut row = vec![0.0; self.dim];
        (0..self.rows)
            .map(|i| {
                view.row_f32(i, &mut row);
                row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32
            })
            .collect()
    }
}
