//! `select_k`: one launch, or two where a few wide segments would leave most of the device idle.

use super::best::Best;
use super::{Job, block_queries, search};
use crate::compute::{Candidates, EngineError};
use crate::gpu::case::Case;
use crate::gpu::submit::Bind;
use crate::ops::select_k::{self, Limits};

/// Units of work per key: passes over it, roughly.
const KEY_WORK: f64 = 8.0;

/// What is selected; see [`select_k::Args`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Selection {
    /// The stage that the time counts to.
    pub(super) stage: &'static str,
    pub(super) segments: u32,
    pub(super) width: u32,
    pub(super) in_stride: u32,
    pub(super) out_stride: u32,
    pub(super) k: u32,
    pub(super) position_base: u32,
    pub(super) nan_is_missing: bool,
}

/// Records the selection of the k smallest of each segment. Without positions a key's place counts.
pub(super) async fn record(
    job: &mut Job<'_>,
    s: &Selection,
    (keys, positions): (Bind, Option<Bind>),
    out: [Bind; 2],
) -> Result<(), EngineError> {
    let args = select_k::Args {
        segments: s.segments,
        width: s.width,
        in_stride: s.in_stride,
        out_stride: s.out_stride,
        k: s.k,
        part_width: select_k::part_width(s.segments, s.width, s.k),
        has_positions: positions.is_some(),
        position_base: s.position_base,
        nan_is_missing: s.nan_is_missing,
        limits: Limits::None,
    };
    let parts = args.parts();
    if parts <= 1 {
        return launch(job, s.stage, &args, keys, positions, out).await;
    }
    let between = parts * s.k;
    let bytes = u64::from(s.segments) * u64::from(between) * 4;
    let (half_keys, half_positions) = (job.rec.scratch(bytes)?, job.rec.scratch(bytes)?);
    let (half_keys, half_positions) = (Bind::first(&half_keys, bytes), Bind::first(&half_positions, bytes));
    let first = select_k::Args { out_stride: between, ..args };
    launch(job, s.stage, &first, keys, positions, [half_keys.clone(), half_positions.clone()]).await?;
    let rest = Selection { width: between, in_stride: between, nan_is_missing: false, ..*s };
    let second = select_k::Args {
        width: rest.width,
        in_stride: rest.in_stride,
        part_width: rest.width,
        has_positions: true,
        nan_is_missing: false,
        ..args
    };
    launch(job, s.stage, &second, half_keys, Some(half_positions), out).await
}

/// Records the selection of the k smallest of each list, or of each segment with its limit.
pub(super) async fn record_limits(
    job: &mut Job<'_>,
    s: &Selection,
    kind: Limits,
    [keys, positions]: [Bind; 2],
    out: [Bind; 2],
    limits: Bind,
) -> Result<(), EngineError> {
    let args = select_k::Args {
        segments: s.segments,
        width: s.width,
        in_stride: s.in_stride,
        out_stride: s.out_stride,
        k: s.k,
        part_width: s.width,
        has_positions: true,
        position_base: 0,
        nan_is_missing: s.nan_is_missing,
        limits: kind,
    };
    launch_with(job, s.stage, &args, [keys, positions], out, limits).await
}

async fn launch(
    job: &mut Job<'_>,
    stage: &'static str,
    args: &select_k::Args,
    keys: Bind,
    positions: Option<Bind>,
    out: [Bind; 2],
) -> Result<(), EngineError> {
    let positions = positions.unwrap_or_else(|| Bind::whole(&job.dummy));
    let limits = Bind::whole(&job.dummy_out);
    launch_with(job, stage, args, [keys, positions], out, limits).await
}

async fn launch_with(
    job: &mut Job<'_>,
    stage: &'static str,
    args: &select_k::Args,
    [keys, positions]: [Bind; 2],
    [out_keys, out_positions]: [Bind; 2],
    limits: Bind,
) -> Result<(), EngineError> {
    let launch = select_k::record(args, &job.caps("select_k"));
    let pipeline = job.pipeline(&launch)?;
    let work = f64::from(args.segments) * f64::from(args.width) * KEY_WORK;
    job.rec.fit(&pipeline, work, 1).await?;
    job.rec.launch(stage, &pipeline, launch, vec![keys, positions, out_keys, out_positions, limits], work);
    Ok(())
}

/// Places of a list when lists are written through the offset of a binding: whole 256 bytes.
pub(super) fn list_places(k: usize) -> u64 {
    (k as u64).next_multiple_of(64)
}

/// The k best candidates of each query, of those in host memory.
pub(super) fn of_candidates(from: &Candidates, queries: usize, k: usize) -> Result<Candidates, EngineError> {
    let mut out = Candidates::places(queries, k)?;
    out.bound.clone_from(&from.bound);
    search::sort_into(&mut out, 0, bytemuck::cast_slice(&from.keys), &from.positions, from.width);
    Ok(out)
}

/// The k smallest of each row of a matrix in host memory.
pub(super) async fn run(job: &mut Job<'_>, matrix: &[f32], k: usize) -> Result<Candidates, EngineError> {
    let p = job.work.extent;
    job.ensure(Case::Select).await?;
    let keep = k.min(p.rows);
    let places = list_places(keep);
    let mut out = Candidates::places(p.queries, k)?;
    if Best::bytes(1, places, 2) > job.scratch / 2 {
        // So many are wanted that sorting is all there is to do.
        search::select_on_host(&mut out, 0, matrix, p.rows, None);
        return Ok(out);
    }
    let budget = job.scratch;
    let width = (p.rows as u64).min(budget / 16);
    let count = block_queries(p.queries, budget, |q| q as u64 * width * 8 + Best::bytes(q as u64, places, 2));
    let mut first = 0;
    while first < p.queries {
        let queries = count.min(p.queries - first);
        let mut best = Best::of_tiles(job, queries as u32, keep, width == p.rows as u64)?;
        let mut column = 0;
        while column < p.rows {
            let width = (width as usize).min(p.rows - column);
            let keys: Vec<f32> = (first..first + queries)
                .flat_map(|q| matrix[q * p.rows + column..q * p.rows + column + width].iter().copied())
                .collect();
            let keys = job.rec.upload(bytemuck::cast_slice(&keys))?;
            let list = best.reserve(job, 1).await?;
            let selection = Selection {
                stage: "select_k",
                segments: queries as u32,
                width: width as u32,
                in_stride: width as u32,
                out_stride: best.stride(),
                k: best.keep(),
                position_base: column as u32,
                nan_is_missing: false,
            };
            record(job, &selection, (Bind::whole(&keys), None), best.lists_from(list)).await?;
            column += width;
            if column < p.rows {
                job.rec.flush().await?;
            }
        }
        let (keys, positions) = best.finish(job, keep as u32).await?;
        let mut read = job.rec.read(&[keys, positions]).await?;
        let (Some(positions), Some(keys)) = (read.pop(), read.pop()) else { return Ok(out) };
        search::sort_into(&mut out, first, &keys, &positions, keep);
        first += queries;
    }
    Ok(out)
}
