//! From the operations of a program to launches.
//!
//! Queries go in blocks whose scratch stays within a fixed number of bytes whatever the shapes are; rows come from
//! shards, which are resident or streamed; launches are as long as a command buffer may be. A block is one submission
//! and one read-back unless it is predicted to take longer than that.

mod assign;
mod best;
mod few;
mod matmul;
mod matrix;
mod range;
mod scan;
mod screened;
mod search;
mod segment_sum;
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
use crate::compute::{Candidates, EngineError, Frame, Input, Mask, Operation, Output, Tag, Type, Value, Vectors};
use crate::ops::scan::Listed;
use crate::ops::search::screened::Unit;
use crate::ops::segment_sum::Sizes;
use crate::ops::tile::TileArgs;
use crate::ops::{
    Assign, Chain, Coded, Compared, DeviceCaps, Distance, Extent, Launch, Op, Pairs, Program, Range, Refine, Screen,
    Search, distance,
};
use crate::stats::SearchStats;
use crate::threads;
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

/// The queries of a job, their lengths, and their name when they will be asked again.
#[derive(Clone, Copy)]
struct Asked<'a> {
    rows: RowsView<'a>,
    norms: &'a [f32],
    tag: Option<&'a Tag>,
}

/// What a job works on, as the operation's operands have it.
#[derive(Clone, Copy)]
pub(super) struct Work<'a> {
    /// Shapes and types.
    pub(super) extent: Extent,
    /// The rows; none where the operation has none.
    base: Option<Vectors<'a>>,
    /// The queries and their lengths; none where the operation has none, or in a form of its own.
    queries: Option<Asked<'a>>,
    mask: Option<Mask<'a>>,
    /// Words of the mask that one query can need.
    mask_words: usize,
    screen: Screen,
    coded: Option<Coded<'a>>,
    /// Whether the candidates of a screen get direct keys in the same go.
    refined: bool,
}

impl<'a> Work<'a> {
    /// Queries against rows.
    fn of(pairs: &Compared<'a>) -> Work<'a> {
        Work {
            extent: pairs.extent(),
            base: Some(pairs.base),
            queries: Some(Asked { rows: pairs.queries, norms: pairs.query_norms, tag: pairs.query_tag }),
            mask: pairs.mask,
            mask_words: pairs.base.rows.rows().div_ceil(32),
            screen: Screen::None,
            coded: None,
            refined: false,
        }
    }

    /// Neither rows nor queries.
    fn plain(extent: Extent) -> Work<'a> {
        Work {
            extent,
            base: None,
            queries: None,
            mask: None,
            mask_words: 0,
            screen: Screen::None,
            coded: None,
            refined: false,
        }
    }

    /// Lists, whose positions may leave some of the mask's bits behind.
    fn lists(listed: &Listed<'a>) -> Work<'a> {
        let queries = listed.queries.queries;
        let mask_words = match listed.mask {
            None => 0,
            Some(Mask { stride: 0, words, .. }) => words.len(),
            // The last query's may end sooner than the next one's would begin.
            Some(Mask { stride, words, .. }) => {
                stride.min(words.len().saturating_sub(stride * queries.saturating_sub(1)))
            }
        };
        let (dim, rows) = (listed.lists.dim, listed.lists.rows());
        let extent = Extent { metric: listed.metric, dtype: DType::F32, dim, rows, queries };
        Work { mask: listed.mask, mask_words, ..Work::plain(extent) }
    }
}

/// One operation, or some that run as one.
pub(super) struct Job<'a> {
    machine: &'a Machine,
    pub(super) work: Work<'a>,
    pub(super) rec: Recorder<'a>,
    residents: &'a Residents,
    source: Arc<Source>,
    /// What the screen reads in place of the rows.
    copies: Option<screened::Copies>,
    scratch: u64,
    /// Bound where a kernel has an input that it does not read.
    dummy: Arc<Buffer>,
    /// Bound where a kernel has a result that it does not write.
    dummy_out: Arc<Buffer>,
    /// A mask that all queries share.
    shared_mask: Option<Arc<Buffer>>,
}

/// Goes through the shards of a job.
pub(super) struct Shards<'a> {
    next: usize,
    /// Brings those that are not resident.
    upload: Option<Upload<'a>>,
}

/// Queries of one block, on the device.
struct Block {
    /// The first of them in the batch.
    first: usize,
    count: u32,
    queries: Bind,
    norms: Option<Bind>,
    /// Bits and words from query to query.
    mask: Option<(Arc<Buffer>, u32)>,
}

/// Who runs a program, for whom arrays on the device are kept.
#[derive(Clone, Copy)]
pub(super) struct Site<'a> {
    pub(super) machine: &'a Machine,
    pub(super) residents: &'a Residents,
    /// Names this device, opened this time.
    pub(super) holder: &'a str,
}

/// Runs a program; gives its outputs.
pub(super) async fn run(
    site: Site<'_>,
    program: &Program,
    inputs: &[Input<'_>],
    stats: &mut SearchStats,
) -> Result<Vec<Output>, EngineError> {
    let mut frame = program.bind(inputs)?;
    for (value, op) in program.operations() {
        if frame.has(value) {
            continue;
        }
        threads::check()?;
        op.examine(&frame)?;
        let (made, chain) = operation(site, program, &frame, (value, op), stats).await?;
        match chain {
            None => frame.set(value, made),
            Some(chain) => {
                frame.set(chain.result, made);
                chain.within.into_iter().flatten().for_each(|value| frame.skip(value));
            }
        }
    }
    for &(value, place) in program.outputs() {
        matmul::place(site, program, &mut frame, (value, place), stats).await?;
    }
    frame.finish(program.outputs())
}

/// The result of one operation, and what ran with it. A new operation does not compile until it has an arm here.
async fn operation(
    site: Site<'_>,
    program: &Program,
    frame: &Frame<'_>,
    (value, op): (Value, &Op),
    stats: &mut SearchStats,
) -> Result<(Output, Option<Chain>), EngineError> {
    let chain = match op {
        Op::Search(search) => Some(Chain::after(program, value, &search.pairs)),
        Op::Distance(distance) if distance.pairs.mask.is_none() => {
            Some(Chain::after(program, value, &distance.pairs)).filter(|chain| chain.k.is_some() && !chain.refined)
        }
        _ => None,
    };
    let result = chain.map_or(value, |chain| chain.result);
    if let Some(nothing) = nothing_to_do(program, op, result)? {
        return Ok((nothing, chain));
    }
    let made = match op {
        Op::Search(search) => {
            let coded = search.codes.map(|codes| Coded::of(frame, codes)).transpose()?;
            let (refined, k) = chain.map_or((false, None), |chain| (chain.refined, chain.k));
            let work = Work { screen: search.screen, coded, refined, ..Work::of(&search.pairs.of(frame)?) };
            let keep = if refined { search.keep } else { search.keep.min(k.unwrap_or(usize::MAX)) };
            let mut job = Job::new(site, work, stats).await?;
            let found = search::run(&mut job, search.screen, keep, k.unwrap_or(keep)).await?;
            job.end(Output::Candidates(found)).await?
        }
        Op::Distance(distance) => {
            let work = Work { mask: None, ..Work::of(&distance.pairs.of(frame)?) };
            let mut job = Job::new(site, work, stats).await?;
            let made = match chain.and_then(|chain| chain.k) {
                Some(k) => Output::Candidates(search::run(&mut job, Screen::None, k, k).await?),
                None => Output::Matrix(matrix::distances(&mut job).await?),
            };
            job.end(made).await?
        }
        Op::Assign(assign) => {
            let mut job = Job::new(site, Work::of(&assign.pairs.of(frame)?), stats).await?;
            let found = assign::run(&mut job).await?;
            job.end(Output::Candidates(found)).await?
        }
        Op::Range(range) => {
            let mut job = Job::new(site, Work::of(&range.pairs.of(frame)?), stats).await?;
            let hits = range::run(&mut job, range.key).await?;
            job.end(hits).await?
        }
        Op::Refine(refine) => {
            let (positions, width) = frame.positions(refine.candidates)?;
            // Where nothing is asked, nothing has to be brought to the device.
            if positions.iter().all(|&p| p == u32::MAX) {
                let queries = positions.len() / width.max(1);
                return Ok((Output::Candidates(Candidates::empty(queries, width)), None));
            }
            let work = Work { mask: None, ..Work::of(&refine.pairs.of(frame)?) };
            let mut job = Job::new(site, work, stats).await?;
            let mut found = search::refine_given(&mut job, positions, width).await?;
            if let Ok(from) = frame.candidates(refine.candidates) {
                found.bound.clone_from(&from.bound);
            }
            job.end(Output::Candidates(found)).await?
        }
        Op::SelectK(select_k) => match frame.candidates(select_k.from) {
            // What is in host memory already is sorted there sooner than another kernel would start.
            Ok(from) => Output::Candidates(select::of_candidates(from, result_queries(program, value)?, select_k.k)?),
            Err(_) => {
                let matrix = matmul::host_matrix(site, frame, select_k.from, stats).await?;
                let queries = result_queries(program, value)?;
                let rows = matrix.len() / queries.max(1);
                let extent = Extent { metric: Metric::L2, dtype: DType::F32, dim: 1, rows, queries };
                let mut job = Job::new(site, Work::plain(extent), stats).await?;
                let found = select::run(&mut job, &matrix, select_k.k).await?;
                job.end(Output::Candidates(found)).await?
            }
        },
        Op::Normalize(normalize) => {
            let base = frame.vectors(normalize.rows, 1)?;
            let (dtype, dim, rows) = (base.rows.dtype(), base.rows.dim(), base.rows.rows());
            let extent = Extent { metric: Metric::L2, dtype, dim, rows, queries: 0 };
            let work = Work { base: Some(Vectors { norms: None, ..base }), ..Work::plain(extent) };
            let mut job = Job::new(site, work, stats).await?;
            let made = matrix::normalize(&mut job, normalize.norm).await?;
            job.end(made).await?
        }
        Op::Scan(scan) => {
            let listed = scan.of(frame)?;
            let mut job = Job::new(site, Work::lists(&listed), stats).await?;
            let found = scan::run(&mut job, listed, scan.keep).await?;
            job.end(Output::Candidates(found)).await?
        }
        Op::Matmul(op) => Output::Array(matmul::run(site, program, frame, op, stats).await?),
        Op::SegmentSum(op) => {
            let sizes = op.sizes(program)?;
            let base = frame.vectors(op.rows, sizes.dim)?;
            let Sizes { rows, dim, .. } = sizes;
            let extent = Extent { metric: Metric::L2, dtype: DType::F32, dim, rows, queries: 0 };
            let work = Work { base: Some(base), ..Work::plain(extent) };
            let mut job = Job::new(site, work, stats).await?;
            let sums = segment_sum::run(&mut job, sizes, frame.positions(op.labels)?.0).await?;
            job.end(sums).await?
        }
        Op::Host(host) => host.call(frame, stats)?,
    };
    Ok((made, chain))
}

/// Queries of an operation that gives candidates.
fn result_queries(program: &Program, value: Value) -> Result<usize, EngineError> {
    match *program.ty(value)? {
        Type::Candidates { queries, .. } => Ok(queries),
        ref other => Err(EngineError::Mismatch(format!("{value} is {other}, wanted candidates"))),
    }
}

/// The answer where there are no rows, no queries or no places.
fn nothing_to_do(program: &Program, op: &Op, result: Value) -> Result<Option<Output>, EngineError> {
    let no_pairs = |pairs: &Pairs| pairs.extent(program).is_ok_and(|e| e.rows == 0 || e.queries == 0);
    let nothing = match op {
        Op::Search(Search { pairs, .. })
        | Op::Assign(Assign { pairs, .. })
        | Op::Refine(Refine { pairs, .. })
        | Op::Range(Range { pairs, .. })
        | Op::Distance(Distance { pairs }) => no_pairs(pairs),
        Op::Scan(scan) => scan.extent(program).1 == 0,
        Op::SelectK(select) => matches!(program.ty(select.from)?, Type::Matrix { rows, width } if *rows * *width == 0),
        Op::Normalize(_) => matches!(program.ty(result)?, Type::Vectors { rows: 0, .. }),
        // What is caller's, and what has its own way with empty matrices.
        Op::Host(_) | Op::Matmul(_) | Op::SegmentSum(_) => false,
    };
    Ok(match *program.ty(result)? {
        Type::Candidates { queries, width } if nothing || (width == 0 && !matches!(op, Op::Host(_))) => {
            Some(Output::Candidates(Candidates::empty(queries, width)))
        }
        Type::Matrix { .. } if nothing => Some(Output::Matrix(Vec::new())),
        Type::Vectors { .. } if nothing => Some(Output::Rows { rows: Vec::new(), norms: Vec::new() }),
        Type::Hits { queries } if nothing => {
            let offsets = vec![0; queries + 1];
            Some(Output::Range { offsets, keys: Vec::new(), positions: Vec::new() })
        }
        _ => None,
    })
}

impl<'a> Job<'a> {
    async fn new(site: Site<'a>, work: Work<'a>, stats: &'a mut SearchStats) -> Result<Job<'a>, EngineError> {
        let Site { machine, residents, .. } = site;
        let scratch = scratch_of_a_job(machine);
        let copies = match copy_for(machine, &work, scratch) {
            Some((form, unit)) => {
                let tag = screened::tag(&work, unit);
                let shards = residents.place_copy(machine, &form, &tag, scratch, stats).await?;
                Some(screened::Copies::new(&form, unit, shards))
            }
            None => None,
        };
        let source = match &work.base {
            None => Source::Nowhere,
            // Behind copies the rows are needed only to refine.
            Some(base) if matches!(work.screen, Screen::None | Screen::F32) || (work.refined && copies.is_some()) => {
                locate(machine, residents, base, scratch, stats).await?
            }
            Some(_) => Source::Nowhere,
        };
        let rec = Recorder::new(machine, stats);
        let (dummy, dummy_out) = (rec.scratch(16)?, rec.scratch(16)?);
        let shared_mask = match work.mask {
            Some(mask) if mask.stride == 0 => {
                let words = &mask.words[..work.mask_words];
                match mask.tag {
                    Some(tag) => Some(residents.place_bits(machine, words, tag, scratch, rec.stats).await?),
                    None => Some(rec.upload(bytemuck::cast_slice(words))?),
                }
            }
            _ => None,
        };
        Ok(Job {
            machine,
            work,
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

    /// The rows.
    fn base(&self) -> Result<Vectors<'a>, EngineError> {
        self.work.base.ok_or_else(|| EngineError::Mismatch("an operation without rows".to_owned()))
    }

    /// The queries and their lengths.
    fn batch(&self) -> Result<Asked<'a>, EngineError> {
        self.work.queries.ok_or_else(|| EngineError::Mismatch("an operation without queries".to_owned()))
    }

    fn metric(&self) -> Metric {
        self.work.extent.metric
    }

    fn dtype(&self) -> DType {
        self.work.extent.dtype
    }

    /// Components per row as kernels count them: whole bytes of bits.
    fn dim(&self) -> usize {
        self.work.extent.dim
    }

    /// Rows of the base.
    fn rows(&self) -> usize {
        self.work.extent.rows
    }

    /// Queries of the batch.
    fn queries(&self) -> usize {
        self.work.extent.queries
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

    /// What kernels of a verb may count on here.
    fn caps(&self, verb: &str) -> DeviceCaps {
        self.machine.caps(verb)
    }

    /// Tests the kernel of a case on this device if that has not been done yet.
    async fn ensure(&self, case: Case) -> Result<(), EngineError> {
        let e = &self.work.extent;
        self.machine.ensure(e.metric, e.dtype, case).await
    }

    /// Work of comparing one row with `queries` queries, in units that grow as its time does.
    fn row_work(&self, queries: usize) -> f64 {
        let pairs = Extent { rows: 1, queries: queries.next_multiple_of(4), ..self.work.extent };
        let operations = distance::cost(&pairs).operations;
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
        self.work.mask.map_or(0, |m| if m.stride == 0 { 0 } else { self.work.mask_words as u64 * 4 })
    }

    /// Puts queries `first..first + count` on the device, unless they are there.
    async fn block(&mut self, first: usize, count: usize) -> Result<Block, EngineError> {
        let mask = self.mask(first, count)?;
        if let Some((queries, norms)) = self.resident_queries(first, count).await? {
            return Ok(Block { first, count: count as u32, queries, norms, mask });
        }
        let Asked { rows: batch, norms: lengths, .. } = self.batch()?;
        let queries = Bind::whole(&self.rec.upload(&rows::pack(&batch, first, first + count))?);
        let norms = match lengths.get(first..first + count) {
            Some(norms) if self.dtype() != DType::Bits => {
                Some(Bind::whole(&self.rec.upload(bytemuck::cast_slice(norms))?))
            }
            _ => None,
        };
        Ok(Block { first, count: count as u32, queries, norms, mask })
    }

    /// Queries that are asked again and again, such as the points of a clustering, stay on the device where there is room.
    async fn resident_queries(
        &mut self,
        first: usize,
        count: usize,
    ) -> Result<Option<(Bind, Option<Bind>)>, EngineError> {
        let Asked { rows: batch, norms, tag } = self.batch()?;
        if tag.is_none() || batch.rows() == 0 || norms.len() != batch.rows() {
            return Ok(None);
        }
        let base = Vectors { rows: batch, norms: Some(norms), tag };
        // Beside the rows, which this job holds on to.
        let beside = self.scratch + self.work.base.as_ref().map_or(0, resident::base_bytes);
        let Some(shards) = self.residents.place(self.machine, &base, beside, self.rec.stats).await? else {
            return Ok(None);
        };
        let holds = |s: &&Shard| s.first <= first && first + count <= s.first + s.rows;
        let Some(shard) = shards.iter().find(holds) else { return Ok(None) };
        let at = (first - shard.first) as u64;
        let each = rows::row_bytes(batch.dtype(), batch.dim());
        let align = u64::from(self.machine.context.limits.min_storage_buffer_offset_alignment);
        if !(at * each).is_multiple_of(align) || !(at * 4).is_multiple_of(align) {
            return Ok(None);
        }
        let queries = Bind::part(&shard.data, at * each, count as u64 * each);
        let norms = shard.norms.as_ref().map(|norms| Bind::part(norms, at * 4, count as u64 * 4));
        Ok(Some((queries, norms)))
    }

    /// The mask of queries `first..first + count`, and words from query to query.
    fn mask(&self, first: usize, count: usize) -> Result<Option<(Arc<Buffer>, u32)>, EngineError> {
        Ok(match (self.work.mask, &self.shared_mask) {
            (None, _) => None,
            (Some(_), Some(shared)) => Some((shared.clone(), 0)),
            (Some(mask), None) => {
                let words = self.work.mask_words;
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
        let lengths = block.norms.clone().unwrap_or_else(dummy);
        let mut binds = vec![self.rows_of(shard), block.queries.clone(), some(&shard.norms), lengths];
        if mask {
            binds.push(block.mask.as_ref().map_or_else(dummy, |(bits, _)| Bind::whole(bits)));
        }
        binds
    }

    /// Rows of a shard against all queries of a block.
    fn tile(&self, shard: &Shard, block: &Block, rows: (usize, usize)) -> TileArgs {
        TileArgs {
            metric: self.metric(),
            dtype: self.dtype(),
            dim: self.dim(),
            row_begin: rows.0 as u32,
            row_end: rows.1 as u32,
            q_begin: 0,
            q_end: block.count,
            position_base: shard.first as u32,
            mask: block.mask.as_ref().map(|m| m.1),
            mask_row_base: shard.first as u32,
        }
    }

    /// From the first shard on.
    fn shards(&self) -> Shards<'a> {
        Shards { next: 0, upload: None }
    }

    /// The next shard, brought here where it is not resident: then it is here until the next but one.
    async fn next_shard(&mut self, shards: &mut Shards<'a>) -> Result<Option<Shard>, EngineError> {
        let (source, number) = (self.source.clone(), shards.next);
        shards.next += 1;
        match &*source {
            Source::Nowhere => Ok(None),
            Source::Resident(shards) => Ok(shards.get(number).cloned()),
            Source::Streamed { chunk_rows, chunks } => {
                // What reads the chunk before this one must be submitted before the next overwrites it.
                self.rec.flush().await?;
                let base = self.base()?;
                let first = number * chunk_rows;
                if first >= base.rows.rows() {
                    if let Some(upload) = shards.upload.take() {
                        upload.finish(self.rec.stats).await?;
                    }
                    return Ok(None);
                }
                let (machine, piece) = (self.machine, chunk_bytes(&base.rows, *chunk_rows));
                let upload = shards.upload.get_or_insert_with(|| Upload::new(machine, piece));
                let (data, norms) = &chunks[number % chunks.len()];
                let count = (*chunk_rows).min(base.rows.rows() - first);
                upload.rows(data, 0, &base.rows, first, count).await?;
                if let (Some(buffer), Some(all)) = (norms, base.norms) {
                    upload.write(buffer, 0, bytemuck::cast_slice(&all[first..first + count])).await?;
                }
                upload.send().await?;
                self.rec.stats.chunks_uploaded += 1;
                Ok(Some(Shard::chunk(first, count, data.clone(), norms.clone())))
            }
        }
    }

    /// Waits for what is under way; gives what was made.
    async fn end<T>(mut self, made: T) -> Result<T, EngineError> {
        self.rec.finish().await?;
        Ok(made)
    }

    /// Notes that all pairs of a block and the base were computed once.
    fn count_pass(&mut self, queries: usize) {
        let p = &self.work.extent;
        self.rec.stats.scanned += (p.rows * queries) as u64;
        self.rec.stats.bytes_read += (p.rows * p.dtype.row_bytes(p.dim)) as u64;
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

/// The copy of the rows that a screen reads, where it can have one: it must fit, with the rows if they are needed.
fn copy_for<'a>(machine: &Machine, work: &Work<'a>, scratch: u64) -> Option<(copies::CopyForm<'a>, Unit)> {
    let rows = work.base.as_ref().filter(|_| work.refined).map_or(0, resident::base_bytes);
    screened::form(machine, work).filter(|(form, _)| copies::fits(machine, form, rows, scratch))
}

/// The rows on the device, or how they get there.
async fn locate(
    machine: &Machine,
    residents: &Residents,
    base: &Vectors<'_>,
    scratch: u64,
    stats: &mut SearchStats,
) -> Result<Source, EngineError> {
    match residents.place(machine, base, scratch, stats).await? {
        Some(shards) => Ok(Source::Resident(shards)),
        None => stream(machine, residents, base, scratch),
    }
}

/// Two chunk buffers, as large as the budget allows beside scratch and what is staged.
fn stream(machine: &Machine, residents: &Residents, base: &Vectors<'_>, scratch: u64) -> Result<Source, EngineError> {
    let view = &base.rows;
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
        let norms = match base.norms {
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
