//! `search` behind a screen of low precision: candidates from copies of the rows, with the bound that says what they left
//! out; their direct keys where the rows are here too.

use std::sync::Arc;

use super::search::{last_of, refine_block, sort_into};
use super::select::{self, Selection};
use super::{Job, ROW_STEP, block_queries};
use crate::engine::{Candidates, Coded, EngineError, Tag, Task};
use crate::gpu::case::Case;
use crate::gpu::copies::{CopyForm, CopyShard};
use crate::gpu::halves;
use crate::gpu::machine::Machine;
use crate::gpu::memory::Buffer;
use crate::gpu::submit::Bind;
use crate::kernels::search::screened::{self, Tiling, Unit};
use crate::kernels::search::screens;
use crate::plan::{Screen, Step};
use crate::types::DType;

/// What the screen of a task reads on this device, and what multiplies it; nothing where it is another screen, or one
/// that the task or the device can't have.
pub(super) fn form<'a>(machine: &Machine, task: &Task<'a>) -> Option<(CopyForm<'a>, Unit)> {
    let p = &task.plan.problem;
    let Some(Step::Search { screen, .. }) = task.plan.steps.first() else { return None };
    if !screens(p.metric) || p.dtype == DType::Bits {
        return None;
    }
    match screen {
        Screen::Int8 => task.base.codes.map(|coded| (CopyForm::Codes(coded.codes), Unit::Codes)),
        // The proof of its bound goes as far.
        Screen::F16 if p.dim <= 1 << 16 => {
            let norms = task.base.norms.filter(|_| task.query_norms.len() == p.queries)?;
            let unit = Unit::Matrix(machine.context.matrix?);
            Some((CopyForm::Halves { metric: p.metric, rows: task.base.rows, norms }, unit))
        }
        _ => None,
    }
}

/// The name that the copy lives by. Copies of rows without a name go with it.
pub(super) fn tag(task: &Task<'_>, unit: Unit) -> Tag {
    match (unit, task.base.codes) {
        (Unit::Codes, Some(coded)) => coded.tag.clone(),
        _ => task.base.tag.cloned().unwrap_or_default(),
    }
}

/// What does not fit together in the codes of a task: what, found, wanted.
pub(super) fn mismatch(coded: &Coded<'_>, rows: usize, queries: usize) -> Option<(&'static str, usize, usize)> {
    let Coded { codes, queries: of_queries, .. } = coded;
    let dim = codes.dim;
    let checks = [
        ("components a code, a multiple of 16", dim, (dim.max(1)).next_multiple_of(16)),
        // Sums of products fit into an i32.
        ("components a code, at most", dim.max(1 << 16), 1 << 16),
        ("codes", codes.rows(), rows),
        ("squares of codes", codes.square.len(), rows),
        ("residuals of codes", codes.residual.len(), rows),
        ("tails of codes", codes.tail.len(), rows),
        ("lengths of groups of codes", codes.longest.len(), rows.div_ceil(crate::kernels::codes::GROUP)),
        ("bytes of codes, at least", codes.bytes.len().min(rows * dim), rows * dim),
        ("components a query's code", of_queries.dim, dim),
        ("terms of queries", of_queries.terms.len(), queries),
        ("bytes of queries' codes", of_queries.bytes.len(), queries * dim),
    ];
    checks.into_iter().find(|(_, found, wanted)| found != wanted)
}

/// The copies that a job searches.
#[derive(Clone)]
pub(super) struct Copies {
    pub(super) unit: Unit,
    /// Components of a copied row.
    dim: usize,
    bytes: u64,
    shards: Arc<[CopyShard]>,
}

impl Copies {
    pub(super) fn new(form: &CopyForm<'_>, unit: Unit, shards: Vec<CopyShard>) -> Copies {
        let dim = match form {
            CopyForm::Codes(codes) => codes.dim,
            CopyForm::Halves { rows, .. } => halves::width(rows.dim()),
        };
        Copies { unit, dim, bytes: form.bytes(), shards: shards.into() }
    }
}

/// The candidates of the screen: `keep` a query, or the `k` best of them by their direct keys when the plan refines them.
/// Nothing when the task has no copies here, or when their kernel does not work on this device.
pub(super) fn run(job: &mut Job<'_>, keep: usize, k: usize) -> Result<Option<Candidates>, EngineError> {
    let Some(copies) = job.copies.clone() else { return Ok(None) };
    let refined = matches!(job.task.plan.steps.get(1), Some(Step::Refine));
    let keep = keep.min(job.rows());
    let mut out = Candidates::places(job.queries(), if refined { k } else { keep })?;
    out.bound = vec![f32::INFINITY; job.queries()];
    let count = queries_of_a_block(job, &copies, keep);
    let mut first = 0;
    while first < job.queries() {
        let queries = count.min(job.queries() - first);
        match job.ensure(Case::Screened { unit: copies.unit, queries, keep }) {
            Err(EngineError::Disabled { .. }) => return Ok(None),
            other => other?,
        }
        job.ensure(Case::Select)?;
        let found = block(job, &copies, (first, queries), keep)?;
        let mut sources = vec![found.keys, found.positions.clone(), found.bounds];
        if refined {
            job.ensure(Case::Refine)?;
            let block = job.block(first, queries)?;
            sources.push(refine_block(job, &block, found.positions, found.width)?);
        }
        job.rec.stats.scanned += (job.rows() * queries) as u64;
        job.rec.stats.bytes_read += copies.bytes;
        let mut read = job.rec.read(&sources)?.into_iter();
        let (Some(mut keys), Some(positions), Some(parts)) = (read.next(), read.next(), read.next()) else { break };
        let all = found.width == job.rows();
        let of_parts = parts.chunks(parts.len() / queries);
        for (q, (bound, words)) in out.bound[first..first + queries].iter_mut().zip(of_parts).enumerate() {
            let places = q * found.width..(q + 1) * found.width;
            let all = bound_of(&keys[places.clone()], &positions[places], all);
            *bound = words.iter().fold(all, |least, &word| least.min(screened::bound_of(word)));
        }
        if let Some(direct) = read.next() {
            job.rec.stats.refined += positions.iter().filter(|&&p| p != u32::MAX).count() as u64;
            keys = direct;
        }
        sort_into(&mut out, first, &keys, &positions, found.width);
        first += queries;
    }
    Ok(Some(out))
}

/// A number that no pair can fall below that was left out behind these; `all` when there was a place for each.
fn bound_of(keys: &[u32], positions: &[u32], all: bool) -> f32 {
    match last_of(keys, positions) {
        _ if all => f32::INFINITY,
        None => f32::INFINITY,
        // What cannot be compared proves nothing.
        Some(key) if key.is_nan() => f32::NEG_INFINITY,
        Some(key) => key,
    }
}

/// How many queries a block has: what its lists, codes, queries and candidates leave room for.
fn queries_of_a_block(job: &Job<'_>, copies: &Copies, keep: usize) -> usize {
    let caps = job.caps(copies.unit.kernel());
    let each = job.query_bytes() + screened::query_bytes(2 * copies.dim) as u64 + keep as u64 * 12 * 2 + 4;
    block_queries(job.queries_at_a_time(), job.scratch, |q| {
        let tiling = Tiling::of(copies.unit, q as u32, job.rows() as u32, keep as u32, &caps);
        // Lists of keys and positions, and as much again for what selection has in between.
        q as u64 * (u64::from(tiling.parts) * (u64::from(tiling.places) * 8 * 2 + 4) + each)
    })
}

/// Queries `first..first + queries` as the kernel reads them, and their terms where they lie apart.
fn upload_queries(
    job: &Job<'_>,
    copies: &Copies,
    first: usize,
    queries: usize,
) -> Result<[Arc<Buffer>; 2], EngineError> {
    let task = job.task;
    match (copies.unit, task.base.codes) {
        (Unit::Codes, Some(coded)) => {
            let mut packed = Vec::with_capacity(queries * screened::query_bytes(copies.dim));
            for q in first..first + queries {
                screened::push_query(&mut packed, coded.queries.query(q), &coded.queries.terms[q]);
            }
            Ok([job.rec.upload(&packed)?, job.dummy.clone()])
        }
        _ => {
            let halves = halves::queries(job.metric(), &task.queries, task.query_norms, first, first + queries);
            let bits = job.rec.upload(bytemuck::cast_slice(&halves.bits))?;
            Ok([bits, job.rec.upload(bytemuck::cast_slice(&halves.terms))?])
        }
    }
}

/// Candidates of a block.
struct Found {
    /// Keys `[queries, width]`.
    keys: Bind,
    /// Positions `[queries, width]`.
    positions: Bind,
    /// What the parts left out, `[queries, parts]`.
    bounds: Bind,
    width: usize,
}

fn block(
    job: &mut Job<'_>,
    copies: &Copies,
    (first, queries): (usize, usize),
    keep: usize,
) -> Result<Found, EngineError> {
    let caps = job.caps(copies.unit.kernel());
    let dim = copies.dim;
    let tiling = Tiling::of(copies.unit, queries as u32, job.rows() as u32, keep as u32, &caps);
    let [of_queries, terms] = upload_queries(job, copies, first, queries)?;
    let mask = job.mask(first, queries)?;
    let width = tiling.parts as usize * tiling.places as usize;
    let bytes = (queries * width) as u64 * 4;
    let lists: [Arc<Buffer>; 2] = [job.rec.scratch(bytes)?, job.rec.scratch(bytes)?];
    let lists = lists.map(|list| Bind::first(&list, bytes));
    let bytes = queries as u64 * u64::from(tiling.parts) * 4;
    let bounds = Bind::first(&job.rec.scratch(bytes)?, bytes);
    let work = queries.next_multiple_of(4) as f64 * (dim as f64 / 2.0 + 16.0) + dim as f64 + 16.0;
    for shard in copies.shards.iter() {
        let mut row = 0;
        while row < shard.rows {
            let mut args = screened::Args {
                dim,
                row_begin: row as u32,
                row_end: shard.rows as u32,
                q_begin: 0,
                q_end: queries as u32,
                position_base: shard.first as u32,
                mask: mask.as_ref().map(|m| m.1),
                mask_row_base: shard.first as u32,
                tiling,
                resume: shard.first + row > 0,
            };
            let pipeline = job.pipeline(&screened::record(&args, &caps))?;
            let fit = job.rec.fit(&pipeline, work, ROW_STEP)? / ROW_STEP * ROW_STEP;
            let rows = fit.min(shard.rows - row);
            args.row_end = (row + rows) as u32;
            let [whole, of_queries] = [&shard.data, &of_queries].map(Bind::whole);
            let row_terms = Bind::first(&shard.terms, shard.rows as u64 * 16);
            let mut binds = match copies.unit {
                Unit::Codes => vec![whole, of_queries, row_terms, Bind::whole(&shard.longest)],
                Unit::Matrix(_) => vec![whole, of_queries, row_terms, Bind::whole(&terms)],
            };
            binds.push(mask.as_ref().map_or_else(|| Bind::whole(&job.dummy), |(bits, _)| Bind::whole(bits)));
            binds.extend([lists[0].clone(), lists[1].clone(), bounds.clone()]);
            job.rec.launch("search", &pipeline, screened::record(&args, &caps), binds, work * rows as f64);
            row += rows;
        }
    }
    let kept = keep.min(width);
    let bytes = (queries * kept) as u64 * 4;
    let out = [job.rec.scratch(bytes)?, job.rec.scratch(bytes)?].map(|out| Bind::first(&out, bytes));
    let selection = Selection {
        stage: "merge",
        segments: queries as u32,
        width: width as u32,
        in_stride: width as u32,
        out_stride: kept as u32,
        k: kept as u32,
        position_base: 0,
        nan_is_missing: false,
    };
    let [keys, positions] = lists;
    select::record(job, &selection, (keys, Some(positions)), out.clone())?;
    let [keys, positions] = out;
    Ok(Found { keys, positions, bounds, width: kept })
}
