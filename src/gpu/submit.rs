//! From recorded launches to command buffers: short enough for every watchdog, timed by the device where it can be.
//!
//! A [`Recorder`] collects launches. What fits into one command buffer by the measured speed of its kernels goes in one
//! submission; longer work is cut by the lowering, which asks [`Recorder::fit`] how much is still free. At most two
//! command buffers are under way: one runs while the next is recorded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::machine::{Clock, Machine, TIMED};
use super::memory::{Buffer, READ_BACK, SCRATCH};
use super::pipelines::Pipeline;
use crate::compute::EngineError;
use crate::compute::wait::{Signal, may_block};
use crate::ops::Launch;
use crate::stats::{SearchStats, Stage};
use crate::threads;

/// How long a command buffer may run, as predicted. Windows resets a GPU after 2 s; a desktop wants its frames.
pub(super) const SLICE_SECONDS: f64 = 0.05;
/// Command buffers under way.
const IN_FLIGHT: usize = 2;

/// What a launch, a copy or a read works on: bytes of a buffer, which stays alive until the work has been submitted.
#[derive(Clone, Debug)]
pub(super) struct Bind {
    pub(super) buffer: Arc<Buffer>,
    pub(super) offset: u64,
    pub(super) size: u64,
}

impl Bind {
    /// All of a buffer.
    pub(super) fn whole(buffer: &Arc<Buffer>) -> Bind {
        Bind { buffer: buffer.clone(), offset: 0, size: buffer.raw().size() }
    }

    /// The first `size` bytes.
    pub(super) fn first(buffer: &Arc<Buffer>, size: u64) -> Bind {
        Bind { buffer: buffer.clone(), offset: 0, size: size.clamp(4, buffer.raw().size()) }
    }

    /// `size` bytes from `offset` on.
    pub(super) fn part(buffer: &Arc<Buffer>, offset: u64, size: u64) -> Bind {
        Bind { buffer: buffer.clone(), offset, size }
    }
}

enum Op {
    Launch { stage: &'static str, pipeline: Arc<Pipeline>, launch: Launch, binds: Vec<Bind>, seconds: f64 },
    Copy { from: Bind, to: Bind },
    Clear(Bind),
}

/// A command buffer that was submitted and not yet waited for.
struct Flight {
    submission: wgpu::SubmissionIndex,
    submitted: Instant,
    /// Name and predicted seconds of each stage, in order.
    stages: Vec<(&'static str, f64)>,
    pipelines: Vec<(Arc<Pipeline>, f64)>,
    clock: Option<(Clock, Mapped)>,
}

/// Collects work and sends it off in slices.
pub(super) struct Recorder<'a> {
    pub(super) machine: &'a Machine,
    pub(super) stats: &'a mut SearchStats,
    pending: Vec<Op>,
    seconds: f64,
    flights: VecDeque<Flight>,
    last_done: Option<Instant>,
}

impl<'a> Recorder<'a> {
    pub(super) fn new(machine: &'a Machine, stats: &'a mut SearchStats) -> Recorder<'a> {
        Recorder { machine, stats, pending: Vec::new(), seconds: 0.0, flights: VecDeque::new(), last_done: None }
    }

    /// Scratch that kernels read and write.
    pub(super) fn scratch(&self, bytes: u64) -> Result<Arc<Buffer>, EngineError> {
        let buffer = self.machine.memory.scratch(&self.machine.context, bytes, SCRATCH)?;
        Ok(Arc::new(buffer))
    }

    /// Scratch filled from the host.
    pub(super) fn upload(&self, bytes: &[u8]) -> Result<Arc<Buffer>, EngineError> {
        let buffer = self.scratch(bytes.len() as u64)?;
        self.write(&buffer, bytes)?;
        Ok(buffer)
    }

    /// Fills the front of a buffer from the host.
    pub(super) fn write(&self, buffer: &Buffer, bytes: &[u8]) -> Result<(), EngineError> {
        let context = &self.machine.context;
        let whole = bytes.len() / 4 * 4;
        context.scoped(bytes.len() as u64, || {
            context.queue.write_buffer(buffer.raw(), 0, &bytes[..whole]);
            if whole < bytes.len() {
                let mut last = [0u8; 4];
                last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
                context.queue.write_buffer(buffer.raw(), whole as u64, &last);
            }
        })
    }

    /// How many units of `work` each still fit into the command buffer under construction; at least `least`, for which
    /// a new one is begun if need be.
    pub(super) async fn fit(&mut self, pipeline: &Pipeline, work: f64, least: usize) -> Result<usize, EngineError> {
        let each = work.max(1.0) / pipeline.rate();
        if self.seconds > 0.0 && self.seconds + each * least as f64 > SLICE_SECONDS {
            self.flush().await?;
        }
        Ok((((SLICE_SECONDS - self.seconds) / each) as usize).max(least))
    }

    /// Adds a launch of `work` units to the command buffer under construction.
    pub(super) fn launch(
        &mut self,
        stage: &'static str,
        pipeline: &Arc<Pipeline>,
        launch: Launch,
        binds: Vec<Bind>,
        work: f64,
    ) {
        debug_assert_eq!(binds.len(), launch.kernel.bindings.len(), "{}", launch.kernel.entry);
        if launch.groups.contains(&0) {
            return;
        }
        let seconds = work / pipeline.rate();
        self.seconds += seconds;
        self.stats.add_kernel(&kernel_name(&launch));
        self.pending.push(Op::Launch { stage, pipeline: pipeline.clone(), launch, binds, seconds });
    }

    /// Adds a copy on the device.
    pub(super) fn copy(&mut self, from: Bind, to: Bind) {
        self.pending.push(Op::Copy { from, to });
    }

    /// Sets bytes to zero on the device.
    pub(super) fn clear(&mut self, what: Bind) {
        self.pending.push(Op::Clear(what));
    }

    /// Submits what was recorded, if anything was; waits while too much is under way.
    pub(super) async fn flush(&mut self) -> Result<(), EngineError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        threads::check()?;
        while self.flights.len() >= IN_FLIGHT {
            self.retire().await?;
        }
        let ops = std::mem::take(&mut self.pending);
        self.seconds = 0.0;
        let flight = submit(self.machine, &ops)?;
        self.flights.push_back(flight);
        Ok(())
    }

    /// Submits and waits for everything; then nothing is under way.
    pub(super) async fn finish(&mut self) -> Result<(), EngineError> {
        self.flush().await?;
        while !self.flights.is_empty() {
            self.retire().await?;
        }
        Ok(())
    }

    /// Submits what is pending and gives the words of `sources`, in one read-back.
    pub(super) async fn read(&mut self, sources: &[Bind]) -> Result<Vec<Vec<u32>>, EngineError> {
        let total: u64 = sources.iter().map(|s| s.size).sum();
        if total == 0 {
            self.finish().await?;
            return Ok(vec![Vec::new(); sources.len()]);
        }
        let context = &self.machine.context;
        let target = Arc::new(self.machine.memory.scratch(context, total, READ_BACK)?);
        // After an error it may be left mapped, and must not be used again.
        target.pool(false);
        let mut at = 0;
        for source in sources.iter().filter(|s| s.size > 0) {
            self.copy(source.clone(), Bind::part(&target, at, source.size));
            at += source.size;
        }
        self.flush().await?;
        let mapped = context.scoped(0, || map(target.raw(), total))?;
        self.finish().await?;
        let start = Instant::now();
        wait_mapped(context, &mapped).await?;
        let view = target.raw().get_mapped_range(0..total).map_err(|e| EngineError::Driver(e.to_string()))?;
        let mut parts = Vec::with_capacity(sources.len());
        let mut at = 0usize;
        for source in sources {
            let bytes = view.get(at..at + source.size as usize).unwrap_or_default();
            parts.push(bytemuck::pod_collect_to_vec::<u8, u32>(bytes));
            at += source.size as usize;
        }
        drop(view);
        target.raw().unmap();
        target.pool(true);
        self.stats.add_stage(Stage::READ_BACK, start.elapsed(), false);
        Ok(parts)
    }

    /// Waits for the oldest command buffer and learns from it.
    async fn retire(&mut self) -> Result<(), EngineError> {
        let Some(flight) = self.flights.pop_front() else { return Ok(()) };
        self.machine.context.wait(Some(flight.submission.clone())).await?;
        let now = Instant::now();
        let began = self.last_done.map_or(flight.submitted, |done| done.max(flight.submitted));
        self.last_done = Some(now);
        let wall = now.duration_since(began).as_secs_f64();
        let predicted: f64 = flight.stages.iter().map(|s| s.1).sum();
        let measured = match self.read_clock(&flight).await? {
            Some(total) => believable(total, wall),
            None => {
                for (name, seconds) in &flight.stages {
                    let share = if predicted > 0.0 { seconds / predicted } else { 0.0 };
                    self.stats.add_stage(name, Duration::from_secs_f64(wall * share), false);
                }
                wall
            }
        };
        // Very short work measures the launch, not the kernel.
        if measured > 2e-3 || measured < predicted {
            for (pipeline, seconds) in &flight.pipelines {
                if *seconds > 0.25 * predicted {
                    pipeline.learn(predicted / measured.max(1e-6));
                }
            }
        }
        if let Some((clock, _)) = flight.clock {
            self.machine.keep_clock(clock);
        }
        Ok(())
    }

    /// Adds the device's own times to the statistics; gives their sum.
    async fn read_clock(&mut self, flight: &Flight) -> Result<Option<f64>, EngineError> {
        let (Some((clock, mapped)), Some(tick)) = (&flight.clock, self.machine.context.tick) else { return Ok(None) };
        wait_mapped(&self.machine.context, mapped).await?;
        let view = clock.read.get_mapped_range(..).map_err(|e| EngineError::Driver(e.to_string()))?;
        let ticks: Vec<u64> = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        clock.read.unmap();
        let mut total = 0.0;
        for (&(name, _), pair) in flight.stages.iter().zip(ticks.chunks_exact(2)) {
            let seconds = pair[1].saturating_sub(pair[0]) as f64 * tick * 1e-9;
            total += seconds;
            self.stats.add_stage(name, Duration::from_secs_f64(seconds.min(1e6)), true);
        }
        Ok(Some(total))
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        // After an error: buffers go back to the pool only when the device is done with what was submitted. A future that is
        // dropped holds up nobody: the device does things in their order, and what is being mapped is not pooled.
        while may_block()
            && let Some(flight) = self.flights.pop_front()
        {
            let _ = self.machine.context.wait_here(Some(flight.submission));
        }
    }
}

/// Seconds of a command buffer by the device's clock, which may stand still: then kernels would seem ever faster, and
/// command buffers would grow until a watchdog resets the device. Of work that takes longer than waiting does, no less is
/// believed than a quarter of the time on the wall.
fn believable(device: f64, wall: f64) -> f64 {
    if wall > 5e-3 { device.max(wall / 4.0) } else { device }
}

/// `verb` and what is special about the variant.
fn kernel_name(launch: &Launch) -> String {
    let suffix = if launch.variant.subgroups { "+subgroups" } else { "" };
    format!("{}{suffix}", launch.kernel.entry)
}

/// Whether a mapping was made, once it is known.
type Mapped = Signal<bool>;

/// Begins to map a buffer.
fn map(buffer: &wgpu::Buffer, size: u64) -> Mapped {
    let mapped = Signal::new();
    let ended = mapped.clone();
    buffer.map_async(wgpu::MapMode::Read, 0..size, move |result| ended.fire(result.is_ok()));
    mapped
}

/// Waits for a mapping. The work before it is done already; what may be missing is the callback, which another thread
/// that polls the device may be about to call.
async fn wait_mapped(context: &Context, mapped: &Mapped) -> Result<(), EngineError> {
    let ended = match may_block() {
        false => Some(mapped.clone().await),
        true => (0..1000).find_map(|i| {
            if i > 0 {
                let _ = context.wait_here(None);
            }
            mapped.wait_for(Duration::from_millis(if i > 0 { 10 } else { 0 }))
        }),
    };
    match ended {
        Some(true) => Ok(()),
        // All work is done and yet there is no mapping: only a device that is gone does that.
        Some(false) => Err(context.note_lost("its memory can no longer be mapped")),
        None => Err(EngineError::Driver("a buffer was not mapped within ten seconds".to_owned())),
    }
}

/// Encodes and submits: one compute pass per stage, so that each can be timed.
fn submit(machine: &Machine, ops: &[Op]) -> Result<Flight, EngineError> {
    let context = &machine.context;
    let clock = machine.clock()?;
    let (uniforms, offsets) = upload_params(machine, ops)?;
    let mut stages: Vec<(&'static str, f64)> = Vec::new();
    let mut pipelines: Vec<(Arc<Pipeline>, f64)> = Vec::new();
    let submission = context.scoped(0, || {
        let mut encoder =
            context.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("nearfield") });
        let mut i = 0;
        while let Some(op) = ops.get(i) {
            match op {
                Op::Copy { from, to } => {
                    let (source, target) = (from.buffer.raw(), to.buffer.raw());
                    encoder.copy_buffer_to_buffer(source, from.offset, target, to.offset, from.size);
                    i += 1;
                }
                Op::Clear(what) => {
                    encoder.clear_buffer(what.buffer.raw(), what.offset, Some(what.size));
                    i += 1;
                }
                Op::Launch { stage, .. } => {
                    let timed = clock.as_ref().filter(|_| stages.len() < TIMED);
                    let at = 2 * stages.len() as u32;
                    let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                        label: Some(stage),
                        timestamp_writes: timed.map(|clock| wgpu::ComputePassTimestampWrites {
                            query_set: &clock.queries,
                            beginning_of_pass_write_index: Some(at),
                            end_of_pass_write_index: Some(at + 1),
                        }),
                    });
                    let (taken, seconds) =
                        encode_stage(context, &mut pass, stage, &ops[i..], uniforms.as_deref(), &offsets[i..]);
                    if timed.is_some() || clock.is_none() {
                        pipelines.extend(taken);
                        stages.push((stage, seconds));
                    }
                    i += ops[i..].iter().take_while(|op| is_of(op, stage)).count();
                }
            }
        }
        if let Some(clock) = &clock
            && !stages.is_empty()
        {
            let used = 2 * stages.len() as u32;
            encoder.resolve_query_set(&clock.queries, 0..used, &clock.resolved, 0);
            encoder.copy_buffer_to_buffer(&clock.resolved, 0, &clock.read, 0, u64::from(used) * 8);
        }
        context.queue.submit([encoder.finish()])
    })?;
    let dispatches = ops.iter().filter(|op| matches!(op, Op::Launch { .. })).count() as u64;
    machine.count(dispatches);
    let clock = match clock {
        Some(clock) => {
            let mapped = context.scoped(0, || map(&clock.read, clock.read.size()))?;
            Some((clock, mapped))
        }
        None => None,
    };
    Ok(Flight { submission, submitted: Instant::now(), stages, pipelines: merge(pipelines), clock })
}

fn is_of(op: &Op, name: &str) -> bool {
    matches!(op, Op::Launch { stage, .. } if *stage == name)
}

/// Encodes the launches of one stage at the front of `ops`; gives their pipelines and the predicted time.
fn encode_stage(
    context: &Context,
    pass: &mut wgpu::ComputePass<'_>,
    name: &str,
    ops: &[Op],
    uniforms: Option<&Buffer>,
    offsets: &[u64],
) -> (Vec<(Arc<Pipeline>, f64)>, f64) {
    let (mut taken, mut total) = (Vec::new(), 0.0);
    for (op, &offset) in ops.iter().zip(offsets) {
        let Op::Launch { stage, pipeline, launch, binds, seconds } = op else { break };
        if *stage != name {
            break;
        }
        let resource = |buffer, offset, size| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: wgpu::BufferSize::new(size) })
        };
        let group = |layout: &wgpu::BindGroupLayout, entries: &[wgpu::BindGroupEntry<'_>]| {
            context.device.create_bind_group(&wgpu::BindGroupDescriptor { label: Some(name), layout, entries })
        };
        let entries: Vec<wgpu::BindGroupEntry<'_>> = binds
            .iter()
            .enumerate()
            .map(|(i, b)| wgpu::BindGroupEntry {
                binding: i as u32,
                resource: resource(b.buffer.raw(), b.offset, b.size),
            })
            .collect();
        pass.set_pipeline(&pipeline.raw);
        pass.set_bind_group(0, &group(&pipeline.layout, &entries), &[]);
        match (&pipeline.uniform, uniforms) {
            (Some(layout), Some(uniforms)) => {
                let bytes = launch.params.len().next_multiple_of(16) as u64;
                let params = [wgpu::BindGroupEntry { binding: 0, resource: resource(uniforms.raw(), offset, bytes) }];
                pass.set_bind_group(1, &group(layout, &params), &[]);
            }
            _ => pass.set_immediates(0, &launch.params),
        }
        let [x, y, z] = launch.groups;
        pass.dispatch_workgroups(x, y, z);
        taken.push((pipeline.clone(), *seconds));
        total += seconds;
    }
    (taken, total)
}

/// Puts the parameters of launches that take them from a uniform buffer into one; gives it and the place of each.
fn upload_params(machine: &Machine, ops: &[Op]) -> Result<(Option<Arc<Buffer>>, Vec<u64>), EngineError> {
    let context = &machine.context;
    let align = (context.limits.min_uniform_buffer_offset_alignment as usize).max(16);
    let mut bytes = Vec::new();
    let offsets = ops
        .iter()
        .map(|op| {
            let at = bytes.len() as u64;
            if let Op::Launch { pipeline, launch, .. } = op
                && pipeline.uniform.is_some()
            {
                bytes.extend_from_slice(&launch.params);
                bytes.resize(bytes.len().next_multiple_of(align), 0);
            }
            at
        })
        .collect();
    if bytes.is_empty() {
        return Ok((None, offsets));
    }
    let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
    let buffer = machine.memory.scratch(context, bytes.len() as u64, usage)?;
    context.scoped(bytes.len() as u64, || context.queue.write_buffer(buffer.raw(), 0, &bytes))?;
    Ok((Some(Arc::new(buffer)), offsets))
}

/// Adds up the predicted time of each pipeline.
fn merge(taken: Vec<(Arc<Pipeline>, f64)>) -> Vec<(Arc<Pipeline>, f64)> {
    let mut merged: Vec<(Arc<Pipeline>, f64)> = Vec::new();
    for (pipeline, seconds) in taken {
        match merged.iter_mut().find(|(p, _)| Arc::ptr_eq(p, &pipeline)) {
            Some((_, total)) => *total += seconds,
            None => merged.push((pipeline, seconds)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stands_still_does_not_make_kernels_seem_fast() {
        assert_eq!(believable(0.0, 0.08), 0.02);
        assert_eq!(believable(0.07, 0.08), 0.07);
        assert_eq!(believable(0.0, 1e-3), 0.0, "short work is mostly waiting");
    }
}
