//! From the steps of a plan to launches.
//!
//! Queries go in blocks whose scratch stays within a fixed number of bytes whatever the shapes are; rows come from
//! shards, which are resident or streamed; launches are as long as a command buffer may be. A block is one submission
//! and one read-back unless it is predicted to take longer than that.

mod assign;
mod best;
mod few;
mod matrix;
mod range;
mod scan;
mod screened;
mod search;
mod select;

use std::sync::Arc;

use super::adapters::Kind;
use super::case::Case;
use super::copies;
use super::machine::Machine;
use super::memory::Buffer;
use super::pipelines::{self, Pipeline};
use super::resident::{self, Residents, Shard};
use super::rows;
use super::submit::{Bind, Recorder, SLICE_SECONDS};
use super::upload::Upload;
use crate::engine::{Candidates, EngineError, Input, Mask, Output, Task};
use crate::kernels::search::screened::Unit;
use crate::kernels::{DeviceCaps, Launch, distance};
use crate::plan::{Screen, Step};
use crate::stats::SearchStats;
use crate::types::{DType, Metric, RowsView};

/// The most scratch of a block, pooled rounding included.
const SCRATCH_BYTES: u64 = 56 << 20;
/// The most bytes of rows that are streamed at a time.
const CHUNK_BYTES: u64 = 32 << 20;
/// Rows of a launch are a multiple of this, as far as there are so many: whole tiles of every shape.
const ROW_STEP: usize = 256;

/// Bytes of scratch that a block may take under a budget.
pub(super) fn scratch_bytes(limit: u64) -> u64 {
    SCRATCH_BYTES.min(limit / 4)
}

/// Where the rows are.
enum Source {
    /// On the device.
    Resident(Vec<Shard>),
    /// In the caller's memory, from where they come chunk by chunk through two buffers in turn.
    Streamed { chunk_rows: usize, chunks: [(Arc<Buffer>, Option<Arc<Buffer>>); 2] },
    /// The plan needs none.
    Nowhere,
}

/// One run of a plan.
pub(super) struct Job<'a> {
    machine: &'a Machine,
    pub(super) task: &'a Task<'a>,
    pub(super) rec: Recorder<'a>,
    residents: &'a Residents,
    source: Arc<Source>,
    /// What the screen of the plan reads in place of the rows.
    copies: Option<screened::Copies>,
    scratch: u64,
    /// Bound where a kernel has an input that it does not read.
    dummy: Arc<Buffer>,
    /// Bound where a kernel has a result that it does not write.
    dummy_out: Arc<Buffer>,
    /// A mask that all queries share.
    shared_mask: Option<Arc<Buffer>>,
}

/// Queries of one block, on the device.
struct Block {
    /// The first of them in the batch.
    first: usize,
    count: u32,
    queries: Arc<Buffer>,
    norms: Option<Arc<Buffer>>,
    /// Bits and words from query to query.
    mask: Option<(Arc<Buffer>, u32)>,
}

/// Runs a plan.
pub(super) fn run(
    machine: &Machine,
    residents: &Residents,
    task: &Task<'_>,
    stats: &mut SearchStats,
) -> Result<Output, EngineError> {
    validate(task)?;
    if let Some(nothing) = nothing_to_do(task) {
        return Ok(nothing);
    }
    let mut job = Job::new(machine, residents, task, stats)?;
    let output = match task.plan.steps.as_slice() {
        [Step::Search { screen, keep }] => search::run(&mut job, *screen, *keep, *keep).map(Output::Candidates),
        [Step::Search { screen, keep }, Step::Refine, Step::SelectK { k }] => {
            search::run(&mut job, *screen, *keep, *k).map(Output::Candidates)
        }
        [Step::Search { screen: Screen::None, keep }, Step::SelectK { k }] => {
            search::run(&mut job, Screen::None, (*keep).min(*k), *k).map(Output::Candidates)
        }
        [Step::Assign] => assign::run(&mut job).map(Output::Candidates),
        [Step::Distance, Step::SelectK { k }] => search::run(&mut job, Screen::None, *k, *k).map(Output::Candidates),
        [Step::Distance] => matrix::distances(&mut job).map(Output::Matrix),
        [Step::Normalize { norm }] => matrix::normalize(&mut job, *norm),
        [Step::Range { key }] => range::run(&mut job, *key),
        [Step::Refine] => search::refine_given(&mut job).map(Output::Candidates),
        [Step::SelectK { k }] => select::run(&mut job, *k).map(Output::Candidates),
        [Step::Scan { keep, .. }] => scan::run(&mut job, *keep).map(Output::Candidates),
        _ => Err(EngineError::Mismatch(format!("no engine runs the steps {}", task.plan))),
    }?;
    job.rec.finish()?;
    Ok(output)
}

/// Compares the sizes of everything in a task, so that no kernel reads past an end.
fn validate(task: &Task<'_>) -> Result<(), EngineError> {
    let p = &task.plan.problem;
    let wrong = |what: &str, found: usize, wanted: usize| {
        Err(EngineError::Mismatch(format!("{what}: found {found}, wanted {wanted}")))
    };
    if let Some(Step::Scan { .. }) = task.plan.steps.first() {
        return match task.input {
            Input::Lists(listed) => listed.check(p, task.mask),
            _ => Err(EngineError::Mismatch("no lists to scan".to_owned())),
        };
    }
    if task.base.rows.rows() != p.rows {
        return wrong("rows", task.base.rows.rows(), p.rows);
    }
    if p.rows >= u32::MAX as usize {
        return wrong("rows of one search, at most", p.rows, u32::MAX as usize - 1);
    }
    let first = task.plan.steps.first();
    let needs_rows = !matches!(first, Some(Step::SelectK { .. }));
    let needs_queries = needs_rows && !matches!(first, Some(Step::Normalize { .. }));
    if needs_rows
        && task.base.rows.dim() != p.dim
        && !(p.dtype == DType::Bits && task.base.rows.dim() / 8 == p.dim.div_ceil(8))
    {
        return wrong("components a row", task.base.rows.dim(), p.dim);
    }
    if let Some(norms) = task.base.norms
        && norms.len() != p.rows
    {
        return wrong("norms of rows", norms.len(), p.rows);
    }
    if needs_queries {
        if task.queries.rows() != p.queries {
            return wrong("queries", task.queries.rows(), p.queries);
        }
        if task.queries.dim() != task.base.rows.dim() {
            return wrong("components a query", task.queries.dim(), task.base.rows.dim());
        }
        let bits = task.queries.dtype() == DType::Bits;
        if bits != (p.dtype == DType::Bits) || !(bits || task.queries.dtype() == DType::F32) {
            return Err(EngineError::Mismatch(format!("queries of {} over rows of {}", task.queries.dtype(), p.dtype)));
        }
        let norms = p.metric == Metric::Cosine || matches!(first, Some(Step::Search { screen: Screen::F32, .. }));
        if norms && task.query_norms.len() != p.queries {
            return wrong("norms of queries", task.query_norms.len(), p.queries);
        }
        if norms && task.base.norms.is_none() {
            return wrong("norms of rows", 0, p.rows);
        }
    }
    if let (Some(Step::Search { screen: Screen::Int8, .. }), Some(coded)) = (first, &task.base.codes)
        && let Some((what, found, wanted)) = screened::mismatch(coded, p.rows, p.queries)
    {
        return wrong(what, found, wanted);
    }
    if let Some(mask) = task.mask {
        let last = if mask.stride == 0 { 0 } else { p.queries.saturating_sub(1) * mask.stride };
        let wanted = if p.queries == 0 { 0 } else { last + p.rows.div_ceil(32) };
        if mask.words.len() < wanted || (mask.stride > 0 && mask.stride < p.rows.div_ceil(32)) {
            return wrong("words of a mask, at least", mask.words.len(), wanted);
        }
    }
    match (first, task.input) {
        (Some(Step::Refine), Input::Positions { positions, width }) if positions.len() != width * p.queries => {
            wrong("positions", positions.len(), width * p.queries)
        }
        (Some(Step::Refine), Input::Positions { .. }) => Ok(()),
        (Some(Step::Refine), _) => wrong("positions", 0, p.queries),
        (Some(Step::SelectK { .. }), Input::Matrix(keys)) if keys.len() != p.rows * p.queries => {
            wrong("keys", keys.len(), p.rows * p.queries)
        }
        (Some(Step::SelectK { .. }), Input::Matrix(_)) => Ok(()),
        (Some(Step::SelectK { .. }), _) => wrong("keys", 0, p.rows * p.queries),
        _ => Ok(()),
    }
}

/// The answer where there are no rows, no queries or no places.
fn nothing_to_do(task: &Task<'_>) -> Option<Output> {
    let p = &task.plan.problem;
    let (empty, width) = match *task.plan.steps.last()? {
        Step::SelectK { k } => (p.rows == 0 || p.queries == 0 || k == 0, k),
        Step::Search { keep, .. } => (p.rows == 0 || p.queries == 0 || keep == 0, keep),
        Step::Assign => (p.rows == 0 || p.queries == 0, 1),
        Step::Scan { keep, .. } => (p.queries == 0 || keep == 0, keep),
        Step::Refine => match task.input {
            Input::Positions { width, .. } => (p.rows == 0 || p.queries == 0 || width == 0, width),
            _ => (false, 0),
        },
        Step::Normalize { .. } if p.rows == 0 => return Some(Output::Rows { rows: Vec::new(), norms: Vec::new() }),
        Step::Distance if p.rows == 0 || p.queries == 0 => return Some(Output::Matrix(Vec::new())),
        Step::Range { .. } if p.rows == 0 || p.queries == 0 => {
            let offsets = vec![0; p.queries + 1];
            return Some(Output::Range { offsets, keys: Vec::new(), positions: Vec::new() });
        }
        _ => (false, 0),
    };
    empty.then(|| Output::Candidates(Candidates::empty(p.queries, width)))
}

impl<'a> Job<'a> {
    fn new(
        machine: &'a Machine,
        residents: &'a Residents,
        task: &'a Task<'a>,
        stats: &'a mut SearchStats,
    ) -> Result<Job<'a>, EngineError> {
        let scratch = scratch_of_a_job(machine);
        let copies = match copy_for(machine, task, scratch) {
            Some((form, unit)) => {
                let tag = screened::tag(task, unit);
                let shards = residents.place_copy(machine, &form, &tag, scratch, stats)?;
                Some(screened::Copies::new(&form, unit, shards))
            }
            None => None,
        };
        let source = match task.plan.steps.as_slice() {
            [Step::SelectK { .. } | Step::Scan { .. }, ..] => Source::Nowhere,
            [Step::Search { .. }] if copies.is_some() => Source::Nowhere,
            _ => locate(machine, residents, task, scratch, stats)?,
        };
        let rec = Recorder::new(machine, stats);
        let (dummy, dummy_out) = (rec.scratch(16)?, rec.scratch(16)?);
        let shared_mask = match task.mask {
            Some(mask) if mask.stride == 0 => Some(rec.upload(bytemuck::cast_slice(&mask.words[..mask_words(task)]))?),
            _ => None,
        };
        Ok(Job {
            machine,
            task,
            rec,
            residents,
            source: Arc::new(source),
            copies,
            scratch,
            dummy,
            dummy_out,
            shared_mask,
        })
    }

    /// Makes the rows available if the plan was believed to need none.
    fn need_rows(&mut self) -> Result<(), EngineError> {
        if matches!(*self.source, Source::Nowhere) {
            let source = locate(self.machine, self.residents, self.task, self.scratch, self.rec.stats)?;
            self.source = Arc::new(source);
        }
        Ok(())
    }

    fn metric(&self) -> Metric {
        self.task.plan.problem.metric
    }

    fn dtype(&self) -> DType {
        self.task.plan.problem.dtype
    }

    /// Components a row as kernels count them: whole bytes of bits.
    fn dim(&self) -> usize {
        self.task.base.rows.dim()
    }

    /// Rows of the base.
    fn rows(&self) -> usize {
        self.task.base.rows.rows()
    }

    /// Queries of the batch.
    fn queries(&self) -> usize {
        self.task.plan.problem.queries
    }

    /// Queries that a launch over the fewest rows may have without taking much longer than a command buffer should. Long
    /// launches matter where a watchdog waits, which no software adapter has.
    fn queries_at_a_time(&self) -> usize {
        let context = &self.machine.context;
        let mut queries = self.queries();
        if context.kind() != Kind::Software {
            let most = 2.0 * SLICE_SECONDS * pipelines::first_rate(context.kind());
            while queries > 64 && self.row_work(queries) * ROW_STEP as f64 > most {
                queries = queries.div_ceil(2);
            }
        }
        queries
    }

    /// Whether the rows cross the bus for each block.
    fn streamed(&self) -> bool {
        matches!(*self.source, Source::Streamed { .. })
    }

    /// What kernels of a verb may count on here.
    fn caps(&self, verb: &str) -> DeviceCaps {
        self.machine.caps(verb)
    }

    /// Tests the kernel of a case on this device if that has not been done yet.
    fn ensure(&self, case: Case) -> Result<(), EngineError> {
        let p = &self.task.plan.problem;
        self.machine.ensure(p.metric, p.dtype, case)
    }

    /// Work of comparing one row with `queries` queries, in units that grow as its time does.
    fn row_work(&self, queries: usize) -> f64 {
        let operations = distance::cost(&crate::plan::Problem {
            rows: 1,
            queries: queries.next_multiple_of(4),
            ..self.task.plan.problem
        })
        .operations;
        operations + rows::row_bytes(self.dtype(), self.dim()) as f64
    }

    fn pipeline(&self, launch: &Launch) -> Result<Arc<Pipeline>, EngineError> {
        self.machine.pipelines.get(&self.machine.context, launch)
    }

    /// Bytes that a query takes in a block: itself, its length, its mask.
    fn query_bytes(&self) -> u64 {
        rows::query_bytes(self.dtype(), self.dim()) + 4 + self.mask_bytes()
    }

    /// Bytes of a query's own mask.
    fn mask_bytes(&self) -> u64 {
        self.task.mask.map_or(0, |m| if m.stride == 0 { 0 } else { mask_words(self.task) as u64 * 4 })
    }

    /// Puts queries `first..first + count` on the device.
    fn block(&self, first: usize, count: usize) -> Result<Block, EngineError> {
        let queries = self.rec.upload(&rows::pack(&self.task.queries, first, first + count))?;
        let norms = match self.task.query_norms.get(first..first + count) {
            Some(norms) if self.dtype() != DType::Bits => Some(self.rec.upload(bytemuck::cast_slice(norms))?),
            _ => None,
        };
        Ok(Block { first, count: count as u32, queries, norms, mask: self.mask(first, count)? })
    }

    /// The mask of queries `first..first + count`, and words from query to query.
    fn mask(&self, first: usize, count: usize) -> Result<Option<(Arc<Buffer>, u32)>, EngineError> {
        Ok(match (self.task.mask, &self.shared_mask) {
            (None, _) => None,
            (Some(_), Some(shared)) => Some((shared.clone(), 0)),
            (Some(mask), None) => {
                let words = mask_words(self.task);
                let packed: Vec<u32> = (first..first + count)
                    .flat_map(|q| mask.words[q * mask.stride..q * mask.stride + words].iter().copied())
                    .collect();
                Some((self.rec.upload(bytemuck::cast_slice(&packed))?, words as u32))
            }
        })
    }

    /// The rows of a shard.
    fn rows_of(&self, shard: &Shard) -> Bind {
        Bind::first(&shard.data, shard.rows as u64 * rows::row_bytes(self.dtype(), self.dim()))
    }

    /// The buffers that every kernel over rows and queries begins with; `mask` where the kernel has one.
    fn inputs(&self, shard: &Shard, block: &Block, mask: bool) -> Vec<Bind> {
        let dummy = || Bind::whole(&self.dummy);
        let some = |buffer: &Option<Arc<Buffer>>| buffer.as_ref().map_or_else(dummy, Bind::whole);
        let mut binds = vec![self.rows_of(shard), Bind::whole(&block.queries), some(&shard.norms), some(&block.norms)];
        if mask {
            binds.push(block.mask.as_ref().map_or_else(dummy, |(bits, _)| Bind::whole(bits)));
        }
        binds
    }

    /// Calls `each` with every shard in turn, streaming them where they are not resident.
    fn visit(
        &mut self,
        mut each: impl FnMut(&mut Job<'a>, &Shard) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let source = self.source.clone();
        match &*source {
            Source::Nowhere => Ok(()),
            Source::Resident(shards) => shards.iter().try_for_each(|shard| each(self, shard)),
            Source::Streamed { chunk_rows, chunks } => {
                let base = self.task.base;
                let mut upload = Upload::new(self.machine, chunk_bytes(&base.rows, *chunk_rows));
                let starts = (0..base.rows.rows()).step_by(*chunk_rows);
                for (first, (data, norms)) in starts.zip(chunks.iter().cycle()) {
                    let count = (*chunk_rows).min(base.rows.rows() - first);
                    upload.rows(data, 0, &base.rows, first, count)?;
                    if let (Some(buffer), Some(all)) = (norms, base.norms) {
                        upload.write(buffer, 0, bytemuck::cast_slice(&all[first..first + count]))?;
                    }
                    upload.send()?;
                    self.rec.stats.chunks_uploaded += 1;
                    each(self, &Shard::chunk(first, count, data.clone(), norms.clone()))?;
                    // The next chunk but one overwrites this buffer, in the order of submission.
                    self.rec.flush()?;
                }
                upload.finish(self.rec.stats)
            }
        }
    }

    /// Notes that all pairs of a block and the base were computed once.
    fn count_pass(&mut self, queries: usize) {
        let p = &self.task.plan.problem;
        self.rec.stats.scanned += (p.rows * queries) as u64;
        self.rec.stats.bytes_read += (p.rows * p.dtype.row_bytes(p.dim)) as u64;
    }
}

/// Words of the mask that one query can need: bits of all rows, which a scan's positions may leave behind.
fn mask_words(task: &Task<'_>) -> usize {
    match (task.input, task.mask) {
        (Input::Lists(_), Some(Mask { stride: 0, words })) => words.len(),
        // The last query's may end sooner than the next one's would begin.
        (Input::Lists(_), Some(Mask { stride, words })) => {
            stride.min(words.len().saturating_sub(stride * task.plan.problem.queries.saturating_sub(1)))
        }
        _ => task.base.rows.rows().div_ceil(32),
    }
}

/// Bytes of one chunk that is streamed.
fn chunk_bytes(view: &RowsView<'_>, rows: usize) -> u64 {
    (resident::bytes_per_row(view, true) * rows as u64).next_multiple_of(16) + 64
}

/// Scratch of one run on this device.
fn scratch_of_a_job(machine: &Machine) -> u64 {
    scratch_bytes(machine.memory.limit()).min(machine.context.limits.max_storage_buffer_binding_size / 2)
}

/// The copy of the rows that a task's screen reads, where it can have one: it must fit, with the rows if they are needed.
fn copy_for<'a>(machine: &Machine, task: &Task<'a>, scratch: u64) -> Option<(copies::CopyForm<'a>, Unit)> {
    let rows = if task.plan.steps.len() > 1 { resident::base_bytes(&task.base) } else { 0 };
    screened::form(machine, task).filter(|(form, _)| copies::fits(machine, form, rows, scratch))
}

/// Whether the device can do all steps of a task as they are. When it can't, the screen alone fits and the rows do not:
/// then they are better refined where they lie.
pub(super) fn refines(machine: &Machine, task: &Task<'_>) -> bool {
    let scratch = scratch_of_a_job(machine);
    match screened::form(machine, task) {
        Some((form, _)) => copy_for(machine, task, scratch).is_some() || !copies::fits(machine, &form, 0, scratch),
        None => true,
    }
}

/// The rows on the device, or how they get there.
fn locate(
    machine: &Machine,
    residents: &Residents,
    task: &Task<'_>,
    scratch: u64,
    stats: &mut SearchStats,
) -> Result<Source, EngineError> {
    match residents.place(machine, &task.base, scratch, stats)? {
        Some(shards) => Ok(Source::Resident(shards)),
        None => stream(machine, residents, task, scratch),
    }
}

/// Two chunk buffers, as large as the budget allows beside scratch and what is staged.
fn stream(machine: &Machine, residents: &Residents, task: &Task<'_>, scratch: u64) -> Result<Source, EngineError> {
    let view = &task.base.rows;
    let limit = machine.memory.limit();
    let bytes = CHUNK_BYTES.min(limit.saturating_sub(scratch) / 5);
    let most = resident::max_shard_rows(machine, view).min(view.rows().max(1));
    let fit = (bytes / resident::bytes_per_row(view, true)) as usize;
    // Whole words of a mask, so that a chunk begins at one.
    let chunk_rows = if fit >= ROW_STEP { fit / ROW_STEP * ROW_STEP } else { fit.max(1) }.min(most);
    residents.make_room(machine, 4 * chunk_bytes(view, chunk_rows) + scratch);
    let chunk = || -> Result<(Arc<Buffer>, Option<Arc<Buffer>>), EngineError> {
        let context = &machine.context;
        let usage = super::memory::ROWS;
        let size = chunk_rows as u64 * rows::row_bytes(view.dtype(), view.dim());
        let data = Arc::new(machine.memory.buffer(context, "nearfield.chunk", size, usage)?);
        let norms = match task.base.norms {
            Some(_) => {
                Some(Arc::new(machine.memory.buffer(context, "nearfield.chunk", chunk_rows as u64 * 4, usage)?))
            }
            None => None,
        };
        Ok((data, norms))
    };
    Ok(Source::Streamed { chunk_rows, chunks: [chunk()?, chunk()?] })
}

/// How many queries go in a block: as many as `bytes(queries)` of scratch allow, halving from all of them.
fn block_queries(queries: usize, scratch: u64, bytes: impl Fn(usize) -> u64) -> usize {
    let mut count = queries.max(1);
    while count > 1 && bytes(count) > scratch {
        count = count.div_ceil(2);
    }
    // Blocks of equal size, of whole tiles where there are several.
    let blocks = queries.max(1).div_ceil(count);
    let even = queries.max(1).div_ceil(blocks);
    if blocks > 1 && even > 64 { even.next_multiple_of(64).min(count) } else { even }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stay_within_the_scratch() {
        assert_eq!(block_queries(10_000, 1 << 40, |q| q as u64), 10_000);
        for (queries, each) in [(10_000, 1000), (3, 40_000), (65, 1000), (1_000_000, 4)] {
            let count = block_queries(queries, 100_000, |q| q as u64 * each);
            assert!(count as u64 * each <= 100_000 && count >= 1, "{queries} x {each}: {count}");
        }
        assert_eq!(block_queries(5, 10, |q| q as u64 * 1000), 1, "one query is always tried");
        assert_eq!(block_queries(0, 10, |_| 0), 1);
    }

    #[test]
    fn scratch_is_a_quarter_of_a_small_budget() {
        assert_eq!(scratch_bytes(1 << 20), 1 << 18);
        assert_eq!(scratch_bytes(8 << 30), SCRATCH_BYTES);
    }
}
