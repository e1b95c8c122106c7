//! `search` behind a screen: candidates from the rows or from copies of low precision, with the bound that says what they
//! left out; their direct keys where the rows are here too.

use std::sync::Arc;

use super::search::{last_of, refine_block, sort_into};
use super::select::{self, Selection};
use super::{Block, Job, Work, block_queries};
use crate::compute::{Candidates, EngineError, Tag, Vectors};
use crate::gpu::case::Case;
use crate::gpu::copies::{CopyForm, CopyShard};
use crate::gpu::halves;
use crate::gpu::machine::Machine;
use crate::gpu::memory::Buffer;
use crate::gpu::submit::Bind;
use crate::ops::Screen;
use crate::ops::search::screened::{self, Limit, Unit};
use crate::ops::select_k::Limits;

/// What a screen reads on this device, and what multiplies it; nothing where it is another screen, or one that the device
/// can't have.
pub(super) fn form<'a>(machine: &Machine, work: &Work<'a>) -> Option<(CopyForm<'a>, Unit)> {
    match work.screen {
        Screen::Int8 => work.coded.map(|coded| (CopyForm::Codes(coded.codes), Unit::Codes)),
        // The proof of its bound goes as far.
        Screen::F16 if work.extent.dim <= 1 << 16 => {
            let Vectors { rows, norms, .. } = work.base?;
            let unit = Unit::Matrix(machine.context.matrix?);
            Some((CopyForm::Halves { metric: work.extent.metric, rows, norms: norms? }, unit))
        }
        Screen::None | Screen::F32 | Screen::F16 => None,
    }
}

/// The name that the copy lives by. Copies of rows without a name go with it.
pub(super) fn tag(work: &Work<'_>, unit: Unit) -> Tag {
    match (unit, work.coded) {
        (Unit::Codes, Some(coded)) => coded.tag.clone(),
        _ => work.base.and_then(|base| base.tag).cloned().unwrap_or_default(),
    }
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

/// The candidates of the screen: `keep` per query, or the `k` best of them by their direct keys when they are refined.
/// Refused when there are no copies here that the screen could read, or when its kernel does not work on this device.
pub(super) async fn run(job: &mut Job<'_>, keep: usize, k: usize) -> Result<Candidates, EngineError> {
    let copies = job.copies.clone();
    let unit = match (job.work.screen, &copies) {
        (Screen::F32, _) => Unit::F32,
        (_, Some(copies)) => copies.unit,
        (screen, None) => {
            let why = format!("the device has no room or no units for a screen of {screen}");
            return Err(EngineError::Unsupported(why));
        }
    };
    let refined = job.work.refined;
    let keep = keep.min(job.rows());
    if Lists::bytes(job, keep) > job.scratch / 2 {
        // A budget so small that not even the lists of one query fit.
        return Err(EngineError::Unsupported(format!("the device has no room for a screen that keeps {keep} rows")));
    }
    let mut out = Candidates::places(job.queries(), if refined { k } else { keep })?;
    out.bound = vec![f32::INFINITY; job.queries()];
    let count = queries_of_a_block(job, copies.as_ref(), keep);
    let mut first = 0;
    while first < job.queries() {
        let queries = count.min(job.queries() - first);
        match job.ensure(Case::Screened { unit, queries, keep }).await {
            Err(disabled @ EngineError::Disabled { .. }) => return Err(EngineError::Unsupported(disabled.to_string())),
            other => other?,
        }
        job.ensure(Case::Select).await?;
        if refined {
            job.ensure(Case::Refine).await?;
        }
        let mut lists = Lists::new(job, queries, keep)?;
        let mut block = None;
        if unit == Unit::F32 || refined {
            block = Some(job.block(first, queries).await?);
        }
        match (&copies, &block) {
            (Some(copies), _) if unit != Unit::F32 => lists.scan_copies(job, copies, first).await?,
            (_, Some(block)) => lists.scan_rows(job, block).await?,
            _ => return Err(EngineError::Mismatch("a screen without what it reads".to_owned())),
        }
        let bytes = job.rows() * job.dtype().row_bytes(job.dim());
        job.rec.stats.scanned += (job.rows() * queries) as u64;
        job.rec.stats.bytes_read += copies.as_ref().filter(|_| unit != Unit::F32).map_or(bytes as u64, |c| c.bytes);
        let found = lists.finish(job).await?;
        let mut sources = vec![found.keys, found.positions.clone(), found.limits];
        if let Some(block) = block.filter(|_| refined) {
            sources.push(refine_block(job, &block, found.positions, keep).await?);
        }
        let mut read = job.rec.read(&sources).await?.into_iter();
        let (Some(mut keys), Some(positions), Some(limits)) = (read.next(), read.next(), read.next()) else { break };
        let limits: &[Limit] = bytemuck::cast_slice(&limits);
        for (q, (bound, limit)) in out.bound[first..first + queries].iter_mut().zip(limits).enumerate() {
            let places = q * keep..(q + 1) * keep;
            *bound = match limit.overflowed(keep as u32) {
                // Pairs were lost, and nobody knows which.
                true => f32::NEG_INFINITY,
                false => {
                    let all = unit != Unit::F32 && keep == job.rows();
                    bound_of(&keys[places.clone()], &positions[places], all)
                }
            };
        }
        if let Some(direct) = read.next() {
            job.rec.stats.refined += positions.iter().filter(|&&p| p != u32::MAX).count() as u64;
            keys = direct;
        }
        sort_into(&mut out, first, &keys, &positions, keep);
        first += queries;
    }
    Ok(out)
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
fn queries_of_a_block(job: &Job<'_>, copies: Option<&Copies>, keep: usize) -> usize {
    let coded = copies.map_or(0, |copies| screened::query_bytes(2 * copies.dim));
    let each = job.query_bytes() + coded as u64 + Lists::bytes(job, keep);
    block_queries(job.queries_at_a_time(), job.scratch, |q| q as u64 * each)
}

/// Places of a list; few in a self-test, so that its few rows go by in several levels.
fn room(job: &Job<'_>, keep: usize) -> u32 {
    if job.machine.is_test() { 512.max(2 * keep as u32) } else { screened::room(keep as u32) }
}

/// Queries `first..first + queries` as the kernel reads them, and their terms where they lie apart.
fn upload_queries(
    job: &Job<'_>,
    copies: &Copies,
    first: usize,
    queries: usize,
) -> Result<[Arc<Buffer>; 2], EngineError> {
    match (copies.unit, job.work.coded) {
        (Unit::Codes, Some(coded)) => {
            let mut packed = Vec::with_capacity(queries * screened::query_bytes(copies.dim));
            for q in first..first + queries {
                screened::push_query(&mut packed, coded.queries.query(q), &coded.queries.terms[q]);
            }
            Ok([job.rec.upload(&packed)?, job.dummy.clone()])
        }
        _ => {
            let super::Asked { rows: batch, norms, .. } = job.batch()?;
            let halves = halves::queries(job.metric(), &batch, norms, first, first + queries);
            let bits = job.rec.upload(bytemuck::cast_slice(&halves.bits))?;
            Ok([bits, job.rec.upload(bytemuck::cast_slice(&halves.terms))?])
        }
    }
}

/// The pairs that may be among the smallest of each query of a block.
pub(super) struct Lists {
    queries: usize,
    keep: usize,
    room: u32,
    /// Keys and positions `[queries, room]`, and where the smallest of them go between two levels.
    now: [Bind; 2],
    other: [Bind; 2],
    limits: Bind,
    /// Rows that went by, and those of them that the limits know of.
    seen: usize,
    settled: usize,
}

/// What is found in the end.
pub(super) struct Found {
    /// Keys `[queries, keep]`.
    pub(super) keys: Bind,
    /// Positions `[queries, keep]`.
    pub(super) positions: Bind,
    /// [`Limit`]s `[queries]`.
    pub(super) limits: Bind,
}

/// Rows that a launch reads.
struct Part {
    unit: Unit,
    rows: usize,
    first: usize,
    dim: usize,
    mask: Option<u32>,
    /// Work of one row, in units that grow as its time does.
    work: f64,
    /// What is bound before the lists.
    binds: Vec<Bind>,
}

impl Lists {
    /// Bytes of scratch that one query's lists take, the answer included.
    pub(super) fn bytes(job: &Job<'_>, keep: usize) -> u64 {
        u64::from(room(job, keep)) * 8 * 2 + keep as u64 * 12 * 2 + 16
    }

    pub(super) fn new(job: &Job<'_>, queries: usize, keep: usize) -> Result<Lists, EngineError> {
        let room = room(job, keep);
        let bytes = queries as u64 * u64::from(room) * 4;
        let list = || job.rec.scratch(bytes).map(|buffer| Bind::first(&buffer, bytes));
        let limits = job.rec.upload(bytemuck::cast_slice(&vec![Limit::NONE; queries]))?;
        Ok(Lists {
            queries,
            keep,
            room,
            now: [list()?, list()?],
            other: [list()?, list()?],
            limits: Bind::first(&limits, queries as u64 * 16),
            seen: 0,
            settled: 0,
        })
    }

    /// All rows as they are.
    async fn scan_rows(&mut self, job: &mut Job<'_>, block: &Block) -> Result<(), EngineError> {
        let work = job.row_work(self.queries);
        let mut shards = job.shards();
        while let Some(shard) = job.next_shard(&mut shards).await? {
            let shard = &shard;
            let binds = job.inputs(shard, block, true);
            let mask = block.mask.as_ref().map(|m| m.1);
            let part =
                Part { unit: Unit::F32, rows: shard.rows, first: shard.first, dim: job.dim(), mask, work, binds };
            self.scan(job, &part).await?;
        }
        Ok(())
    }

    /// All copies of rows.
    async fn scan_copies(&mut self, job: &mut Job<'_>, copies: &Copies, first: usize) -> Result<(), EngineError> {
        let [of_queries, terms] = upload_queries(job, copies, first, self.queries)?;
        let mask = job.mask(first, self.queries)?;
        let dim = copies.dim;
        let work = self.queries.next_multiple_of(4) as f64 * (dim as f64 / 2.0 + 16.0) + dim as f64 + 16.0;
        for shard in copies.shards.iter() {
            let row_terms = Bind::first(&shard.terms, shard.rows as u64 * 16);
            let last = match copies.unit {
                Unit::Matrix(_) => Bind::whole(&terms),
                _ => Bind::whole(&shard.longest),
            };
            let bits = mask.as_ref().map_or_else(|| Bind::whole(&job.dummy), |(bits, _)| Bind::whole(bits));
            let binds = vec![Bind::whole(&shard.data), Bind::whole(&of_queries), row_terms, last, bits];
            let mask = mask.as_ref().map(|m| m.1);
            let unit = copies.unit;
            self.scan(job, &Part { unit, rows: shard.rows, first: shard.first, dim, mask, work, binds }).await?;
        }
        Ok(())
    }

    /// The rows of a part, in as many levels as there have to be.
    async fn scan(&mut self, job: &mut Job<'_>, part: &Part) -> Result<(), EngineError> {
        let caps = job.caps("search");
        let each = screened::tile_rows(part.unit, self.queries);
        let tiles = part.rows.div_ceil(each) as u32;
        let numbers = tiles.next_power_of_two();
        let mut args = screened::Args {
            unit: part.unit,
            metric: job.metric(),
            dtype: job.dtype(),
            dim: part.dim,
            row_begin: 0,
            row_end: part.rows as u32,
            tile_begin: 0,
            tile_end: 0,
            q_begin: 0,
            q_end: self.queries as u32,
            position_base: part.first as u32,
            mask: part.mask,
            mask_row_base: part.first as u32,
            room: self.room,
        };
        let mut tile = 0;
        while tile < numbers {
            let due = screened::level(self.settled, self.room).saturating_sub(self.seen - self.settled) / each;
            if due == 0 {
                self.settle(job).await?;
                continue;
            }
            args.tile_begin = tile;
            args.tile_end = numbers;
            let pipeline = job.pipeline(&screened::record(&args, &caps))?;
            let fit = job.rec.fit(&pipeline, part.work * each as f64, 1).await?.min(due);
            let (end, visited) = screened::visit(tile, numbers, tiles, fit as u32);
            args.tile_end = end;
            let mut binds = part.binds.clone();
            binds.extend(self.binds());
            let rows = visited as usize * each;
            job.rec.launch("search", &pipeline, screened::record(&args, &caps), binds, part.work * rows as f64);
            self.seen += rows;
            tile = end;
        }
        Ok(())
    }

    /// The lists as a kernel that adds to them binds them: keys, positions, limits.
    pub(super) fn binds(&self) -> [Bind; 3] {
        [self.now[0].clone(), self.now[1].clone(), self.limits.clone()]
    }

    /// Places of a list.
    pub(super) fn room(&self) -> u32 {
        self.room
    }

    fn selection(&self, stage: &'static str, out_stride: u32) -> Selection {
        Selection {
            stage,
            segments: self.queries as u32,
            width: self.room,
            in_stride: self.room,
            out_stride,
            k: self.keep as u32,
            position_base: 0,
            nan_is_missing: false,
        }
    }

    /// Keeps the smallest pairs of each list: from now on only smaller ones come in.
    pub(super) async fn settle(&mut self, job: &mut Job<'_>) -> Result<(), EngineError> {
        let selection = self.selection("search", self.room);
        select::record_limits(
            job,
            &selection,
            Limits::OfLists,
            self.now.clone(),
            self.other.clone(),
            self.limits.clone(),
        )
        .await?;
        std::mem::swap(&mut self.now, &mut self.other);
        self.settled = self.seen;
        Ok(())
    }

    /// The smallest pairs of each list without gaps.
    pub(super) async fn finish(self, job: &mut Job<'_>) -> Result<Found, EngineError> {
        let bytes = (self.queries * self.keep) as u64 * 4;
        let out = [job.rec.scratch(bytes)?, job.rec.scratch(bytes)?].map(|out| Bind::first(&out, bytes));
        let selection = self.selection("merge", self.keep as u32);
        select::record_limits(job, &selection, Limits::OfLists, self.now, out.clone(), self.limits.clone()).await?;
        let [keys, positions] = out;
        Ok(Found { keys, positions, limits: self.limits })
    }
}
