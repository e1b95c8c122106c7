//! A shader that stands alone, timed: our own probes, and a user's.

use std::time::Instant;

use super::super::machine::Machine;
use super::super::memory::{Buffer, READ_BACK};
use super::super::trusted;
use crate::compute::EngineError;
use crate::random::Random;

/// What is in a buffer before the first run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Bytes of zero.
    Zeros,
    /// This number as f32 in every word.
    Value(f32),
    /// Words 0, 1, 2, ...
    Count,
    /// f32 in [-1, 1), the same in every run.
    Random,
}

/// A buffer that a shader is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShaderBuffer {
    /// `@group`.
    pub group: u32,
    /// `@binding`.
    pub binding: u32,
    /// Its size, a multiple of 4.
    pub bytes: u64,
    /// What is in it.
    pub fill: Fill,
}

/// A WGSL text and all that it needs to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Shader<'a> {
    /// The text.
    pub wgsl: &'a str,
    /// The entry point.
    pub entry: &'a str,
    /// Workgroups of a dispatch.
    pub workgroups: [u32; 3],
    /// Values of override constants.
    pub constants: Vec<(&'a str, f64)>,
    /// Every buffer that the entry point uses.
    pub buffers: Vec<ShaderBuffer>,
}

/// Why a shader could not be measured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShaderError {
    /// The text is no WGSL that this device takes.
    #[error("{0}")]
    Compile(String),
    /// Entry point, constants, buffers or workgroups do not fit the text or the device.
    #[error("{0}")]
    Misfit(String),
    /// The device has no room, or is gone.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Timestamps at both ends of a pass.
struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    read: wgpu::Buffer,
    tick: f64,
}

/// A shader with its buffers, ready to run.
pub struct Prepared<'a> {
    machine: &'a Machine,
    pipeline: wgpu::ComputePipeline,
    groups: Vec<(u32, wgpu::BindGroup)>,
    buffers: Vec<Buffer>,
    clock: Option<Clock>,
}

impl std::fmt::Debug for Prepared<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").finish_non_exhaustive()
    }
}

/// Seconds of some dispatches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Took {
    /// By the clock on the wall, from recording to the end.
    pub wall: f64,
    /// By the device's own clock, where it has one.
    pub device: Option<f64>,
}

impl Took {
    /// By the better clock.
    pub fn seconds(&self) -> f64 {
        self.device.unwrap_or(self.wall).max(1e-9)
    }
}

/// What the driver said, without wgpu's words around it.
fn said(error: EngineError, kind: fn(String) -> ShaderError) -> ShaderError {
    match error {
        EngineError::Driver(text) => {
            let text = text.strip_prefix("Validation Error").unwrap_or(&text).trim_start();
            let text = text.strip_prefix("Caused by:").unwrap_or(text).trim();
            // The name of wgpu's function does not help the user.
            let own = text.split_once('\n').filter(|(first, _)| first.starts_with("In Device::"));
            kind(own.map_or(text, |(_, own)| own).trim().to_owned())
        }
        other => other.into(),
    }
}

impl<'a> Prepared<'a> {
    /// Compiles a shader and fills its buffers. A shader of ours goes without the checks that wgpu adds for strangers.
    ///
    /// # Errors
    /// [`ShaderError`].
    pub(in crate::gpu) fn new(
        machine: &'a Machine,
        shader: &Shader<'_>,
        ours: bool,
    ) -> Result<Prepared<'a>, ShaderError> {
        let context = &machine.context;
        let (device, text) = (&context.device, shader.wgsl.to_owned());
        let module = context.scoped(0, || {
            if ours {
                return trusted::shader_module(device, "nearfield.probe", text);
            }
            let source = wgpu::ShaderSource::Wgsl(text.into());
            device.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("shader"), source })
        });
        let module = module.map_err(|e| said(e, ShaderError::Compile))?;
        let pipeline = context.scoped(0, || {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some("shader"),
                layout: None,
                module: &module,
                entry_point: Some(shader.entry),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &shader.constants,
                    zero_initialize_workgroup_memory: !ours,
                },
                cache: None,
            })
        });
        let pipeline = pipeline.map_err(|e| said(e, ShaderError::Misfit))?;
        let mut prepared =
            Prepared { machine, pipeline, groups: Vec::new(), buffers: Vec::new(), clock: Clock::new(machine)? };
        prepared.bind(&shader.buffers)?;
        let most = context.limits.max_compute_workgroups_per_dimension;
        match shader.workgroups.iter().find(|&&n| n == 0 || n > most) {
            Some(n) => Err(ShaderError::Misfit(format!("{n} workgroups; the device takes 1 to {most} in a dimension"))),
            None => Ok(prepared),
        }
    }

    fn bind(&mut self, buffers: &[ShaderBuffer]) -> Result<(), ShaderError> {
        let context = &self.machine.context;
        let most = context.limits.max_storage_buffer_binding_size;
        for wanted in buffers {
            if wanted.bytes == 0 || wanted.bytes % 4 != 0 || wanted.bytes > most {
                let ShaderBuffer { binding, bytes, .. } = wanted;
                let why = format!("buffer {binding} has {bytes} bytes; wanted a multiple of 4, at most {most} here");
                return Err(ShaderError::Misfit(why));
            }
            self.buffers.push(filled(self.machine, wanted)?);
        }
        let mut groups: Vec<u32> = buffers.iter().map(|b| b.group).collect();
        groups.sort_unstable();
        groups.dedup();
        for group in groups {
            let of_group = buffers.iter().zip(&self.buffers).filter(|(b, _)| b.group == group);
            let entries: Vec<wgpu::BindGroupEntry<'_>> = of_group
                .map(|(b, buffer)| wgpu::BindGroupEntry {
                    binding: b.binding,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: buffer.raw(),
                        offset: 0,
                        size: wgpu::BufferSize::new(b.bytes),
                    }),
                })
                .collect();
            let made = context.scoped(0, || {
                let layout = self.pipeline.get_bind_group_layout(group);
                let label = Some("shader");
                context.device.create_bind_group(&wgpu::BindGroupDescriptor {
                    label,
                    layout: &layout,
                    entries: &entries,
                })
            });
            self.groups.push((group, made.map_err(|e| said(e, ShaderError::Misfit))?));
        }
        Ok(())
    }

    /// Dispatches so many times, one after another in one pass, and waits.
    ///
    /// # Errors
    /// [`ShaderError`].
    pub fn run(&self, workgroups: [u32; 3], dispatches: u32) -> Result<Took, ShaderError> {
        let context = &self.machine.context;
        let began = Instant::now();
        let submission = context.scoped(0, || {
            let mut encoder = context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: Some("shader"),
                timestamp_writes: self.clock.as_ref().map(|clock| wgpu::ComputePassTimestampWrites {
                    query_set: &clock.queries,
                    beginning_of_pass_write_index: Some(0),
                    end_of_pass_write_index: Some(1),
                }),
            });
            pass.set_pipeline(&self.pipeline);
            self.groups.iter().for_each(|(group, bound)| pass.set_bind_group(*group, bound, &[]));
            let [x, y, z] = workgroups;
            (0..dispatches).for_each(|_| pass.dispatch_workgroups(x, y, z));
            drop(pass);
            if let Some(clock) = &self.clock {
                encoder.resolve_query_set(&clock.queries, 0..2, &clock.resolved, 0);
                encoder.copy_buffer_to_buffer(&clock.resolved, 0, &clock.read, 0, 16);
            }
            context.queue.submit([encoder.finish()])
        });
        let submission = submission.map_err(|e| said(e, ShaderError::Misfit))?;
        context.wait_here(Some(submission))?;
        let wall = began.elapsed().as_secs_f64();
        let device = self.clock.as_ref().map(|clock| clock.seconds(self.machine)).transpose()?;
        Ok(Took { wall, device })
    }

    /// Seconds from recording one dispatch of one workgroup to its end, or to having four bytes of its result in host
    /// memory.
    pub(super) fn trip(&self, read_back: bool) -> Result<f64, EngineError> {
        let context = &self.machine.context;
        let Some(result) = self.buffers.last() else { return Ok(f64::NAN) };
        let read = self.machine.memory.scratch(context, 16, READ_BACK)?;
        read.pool(false);
        let began = Instant::now();
        let submission = context.scoped(0, || {
            let mut encoder = context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(&self.pipeline);
            self.groups.iter().for_each(|(group, bound)| pass.set_bind_group(*group, bound, &[]));
            pass.dispatch_workgroups(1, 1, 1);
            drop(pass);
            if read_back {
                encoder.copy_buffer_to_buffer(result.raw(), 0, read.raw(), 0, 4);
            }
            context.queue.submit([encoder.finish()])
        })?;
        match read_back {
            true => mapped(self.machine, read.raw(), submission, |_| ())?,
            false => context.wait_here(Some(submission))?,
        }
        Ok(began.elapsed().as_secs_f64())
    }
}

impl Clock {
    fn new(machine: &Machine) -> Result<Option<Clock>, EngineError> {
        let Some(tick) = machine.context.tick else { return Ok(None) };
        let device = &machine.context.device;
        let buffer = |usage| {
            let label = Some("nearfield.probe.clock");
            device.create_buffer(&wgpu::BufferDescriptor { label, size: 16, usage, mapped_at_creation: false })
        };
        machine.context.scoped(32, || {
            let descriptor = wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count: 2 };
            Some(Clock {
                queries: device.create_query_set(&descriptor),
                resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
                read: buffer(READ_BACK),
                tick,
            })
        })
    }

    /// Seconds of the pass that has ended.
    fn seconds(&self, machine: &Machine) -> Result<f64, EngineError> {
        let submission = machine.context.scoped(0, || machine.context.queue.submit([]))?;
        let ticks = mapped(machine, &self.read, submission, bytemuck::pod_collect_to_vec::<u8, u64>)?;
        let (begin, end) = (ticks.first().copied().unwrap_or(0), ticks.get(1).copied().unwrap_or(0));
        Ok(end.saturating_sub(begin) as f64 * self.tick * 1e-9)
    }
}

/// Maps a buffer when a submission has ended, and gives what `look` makes of its bytes.
fn mapped<T>(
    machine: &Machine,
    buffer: &wgpu::Buffer,
    submission: wgpu::SubmissionIndex,
    look: impl FnOnce(&[u8]) -> T,
) -> Result<T, EngineError> {
    let context = &machine.context;
    let (ended, result) = std::sync::mpsc::sync_channel(1);
    context.scoped(0, || {
        buffer.map_async(wgpu::MapMode::Read, .., move |result| _ = ended.try_send(result.is_ok()));
    })?;
    context.wait_here(Some(submission))?;
    // The callback may be late.
    let early = result.try_recv();
    if early.is_err() {
        context.wait_here(None)?;
    }
    match early.or_else(|_| result.recv_timeout(std::time::Duration::from_secs(10))) {
        Ok(true) => {}
        _ => return Err(EngineError::Driver("a buffer was not mapped".to_owned())),
    }
    let view = buffer.get_mapped_range(..).map_err(|e| EngineError::Driver(e.to_string()))?;
    let value = look(&view);
    drop(view);
    buffer.unmap();
    Ok(value)
}

/// A buffer with what is wanted in it.
fn filled(machine: &Machine, wanted: &ShaderBuffer) -> Result<Buffer, EngineError> {
    let context = &machine.context;
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    // A uniform's buffer is small; larger ones may not be bound as such.
    let uniform = wanted.bytes <= context.limits.max_uniform_buffer_binding_size;
    let usage = if uniform { usage | wgpu::BufferUsages::UNIFORM } else { usage };
    let buffer = machine.memory.buffer(context, "nearfield.shader", wanted.bytes, usage)?;
    let mut random = Random::new(1);
    let mut word = |i: u64| match wanted.fill {
        Fill::Zeros => 0,
        Fill::Value(x) => x.to_bits(),
        Fill::Count => i as u32,
        Fill::Random => random.signed().to_bits(),
    };
    // New buffers are zeros.
    let words = if wanted.fill == Fill::Zeros { 0 } else { wanted.bytes / 4 };
    const PART: u64 = 1 << 22;
    for first in (0..words).step_by(PART as usize) {
        let part: Vec<u32> = (first..words.min(first + PART)).map(&mut word).collect();
        let bytes = bytemuck::cast_slice(&part);
        context.scoped(bytes.len() as u64, || {
            context.queue.write_buffer(buffer.raw(), first * 4, bytes);
            context.queue.submit([]);
        })?;
    }
    Ok(buffer)
}
