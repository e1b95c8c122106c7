//! The CPU engine: every operation, in vectors of the best level the CPU has, on the threads of its device.
//!
//! One file per operation. An operation cuts its work into items, and `CpuEngine::spread` lets the calling thread and the pool
//! take one after another; each worker has scratch memory that lives on from call to call. Results never depend on the
//! number of threads: keys are computed pair by pair, and ties are broken by position.

mod assign;
mod ceilings;
mod coded;
mod dense;
mod distance;
mod matmul;
mod normalize;
mod range;
mod refine;
mod scan;
mod search;
mod segment_sum;
mod select_k;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::cache::CacheDir;
use crate::cancel::CancelToken;
use crate::compute::{
    Answer, Array, Backend, Candidates, Capabilities, EngineError, Frame, Input, Kind, Operation, Output, Pending,
    Place, Type, Value,
};
use crate::ops::{Chain, Coded, Compared, Op, Program, Refine, Screen, Search, SelectK};
pub use crate::simd::Level;
use crate::simd::{Token, bytes, lists, panel};
use crate::stats::{Ceilings, SearchStats};
use crate::threads::{self, Threads};
use crate::types::RowsView;
use distance::Keys;
use select_k::TopK;

/// How a [`CpuEngine`] is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuOptions {
    /// Threads that work at the same time, the caller's among them; as many as the machine offers when absent.
    pub threads: Option<usize>,
    /// The vector instructions to use; the best there are when absent, or when the CPU lacks these.
    pub level: Option<Level>,
}

/// Runs programs on the CPU.
pub struct CpuEngine {
    token: Token,
    threads: usize,
    pool: Threads,
    /// The name of the engine, and those of its kernels: every answer has some, and none is made anew.
    name: String,
    kernels: Vec<(&'static str, String)>,
    scratch: Mutex<Vec<Scratch>>,
    /// The least bounds of the last search behind codes; its memory serves the next.
    bounds: Mutex<Vec<[f32; 4]>>,
    cache: CacheDir,
    ceilings: OnceLock<Ceilings>,
}

/// What a worker keeps from call to call, so that a warm search allocates nothing but its answer.
#[derive(Default)]
pub(crate) struct Scratch {
    keys: Keys,
    lists: Vec<TopK>,
    thresholds: Vec<f32>,
    masks: Vec<u64>,
    positions: Vec<u32>,
    norms: Vec<f32>,
    panels: panel::Panels,
    /// Keys `[queries, rows]`.
    dense: Vec<f32>,
    hits: Vec<Vec<u64>>,
    bytes: bytes::Scratch,
    blocks: lists::Scratch,
    lower: Vec<(usize, f32)>,
    decisions: Vec<coded::Decision>,
    looks: Vec<coded::Look>,
    refined: usize,
    near: assign::Near,
}

impl Scratch {
    /// Bytes of what grows with batches, rows and k.
    fn bytes_held(&self) -> usize {
        let looks = self.looks.capacity() * size_of::<coded::Look>();
        self.lists.iter().map(TopK::bytes).sum::<usize>() + looks
    }
}

/// Pairs of component and component that are worth waking another thread for.
const WORK_PER_THREAD: usize = 1 << 18;

impl CpuEngine {
    /// Never fails: when the system gives fewer threads, fewer work.
    pub fn new(options: CpuOptions) -> CpuEngine {
        CpuEngine::with(Threads::new(options.threads), options.level)
    }

    /// On the threads of a device.
    pub(crate) fn with(threads: Threads, level: Option<Level>) -> CpuEngine {
        let token = level.and_then(Token::new).unwrap_or_else(Token::best);
        let (level, count) = (token.level().name(), threads.count());
        let kernel = |&name: &&'static str| (name, format!("{name}/{level}"));
        CpuEngine {
            token,
            threads: count,
            pool: threads,
            name: format!("cpu ({level}, {count} thread{})", if count == 1 { "" } else { "s" }),
            kernels: Op::NAMES.iter().chain(&["search+int8"]).map(kernel).collect(),
            scratch: Mutex::default(),
            bounds: Mutex::default(),
            cache: CacheDir::default(),
            ceilings: OnceLock::new(),
        }
    }

    /// Keeps what is measured on it in this folder.
    pub fn cached_in(self, cache: CacheDir) -> CpuEngine {
        CpuEngine { cache, ..self }
    }

    /// A kernel's name in statistics: with the vector instructions in use.
    fn kernel(&self, name: &'static str) -> &str {
        self.kernels.iter().find(|(known, _)| *known == name).map_or(name, |(_, whole)| whole)
    }

    /// The vector instructions in use.
    pub fn level(&self) -> Level {
        self.token.level()
    }

    /// How many threads may work on something of this many component pairs.
    fn workers(&self, work: usize) -> usize {
        (work / WORK_PER_THREAD).clamp(1, self.threads)
    }

    fn kept_scratch(&self) -> MutexGuard<'_, Vec<Scratch>> {
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the items one after another to whichever of `workers` is free, the calling thread among them. `prepare`
    /// runs once for each worker before its first item. Gives each worker's scratch, to be put back by
    /// [`CpuEngine::keep`].
    ///
    /// # Errors
    /// [`EngineError::Cancelled`] when the work is no longer wanted; then some items may not have been given.
    fn spread<I: Send>(
        &self,
        workers: usize,
        items: impl Iterator<Item = I> + Send,
        prepare: impl Fn(&mut Scratch) + Sync,
        work: impl Fn(&mut Scratch, I) + Sync,
    ) -> Result<Vec<Scratch>, EngineError> {
        let tokens = threads::tokens();
        let wanted = || !tokens.iter().any(CancelToken::is_cancelled);
        let scratch = self.spread_while(workers, items, prepare, work, wanted);
        if wanted() {
            return Ok(scratch);
        }
        self.keep(scratch);
        Err(EngineError::Cancelled)
    }

    /// [`CpuEngine::spread`] for as long as it is wanted.
    fn spread_while<I: Send>(
        &self,
        workers: usize,
        items: impl Iterator<Item = I> + Send,
        prepare: impl Fn(&mut Scratch) + Sync,
        work: impl Fn(&mut Scratch, I) + Sync,
        wanted: impl Fn() -> bool + Sync,
    ) -> Vec<Scratch> {
        let mut scratch: Vec<Scratch> = {
            let mut kept = self.kept_scratch();
            (0..workers).map(|_| kept.pop().unwrap_or_default()).collect()
        };
        let items = Mutex::new(items);
        let run = |scratch: &mut Scratch| {
            prepare(scratch);
            loop {
                let item = items.lock().unwrap_or_else(PoisonError::into_inner).next();
                match item {
                    Some(item) if wanted() => work(scratch, item),
                    _ => return,
                }
            }
        };
        self.pool.spread(&mut scratch, run);
        scratch
    }

    /// Takes scratch back, unless it has grown out of proportion.
    fn keep(&self, scratch: Vec<Scratch>) {
        const MOST: usize = 32 << 20;
        let mut kept = self.kept_scratch();
        kept.extend(scratch.into_iter().filter(|s| s.bytes_held() < MOST));
        kept.truncate(2 * self.threads);
    }

    fn execute(&self, program: &Program, inputs: &[Input<'_>]) -> Result<Answer, EngineError> {
        let mut frame = program.bind(inputs)?;
        let mut stats = SearchStats { device: self.name(), ..SearchStats::default() };
        for (value, op) in program.operations() {
            // Some are computed with one before them.
            if frame.has(value) {
                continue;
            }
            threads::check()?;
            op.examine(&frame)?;
            let began = Instant::now();
            if let Op::Search(search) = op
                && let Some((found, chain)) = self.search_behind_codes(program, &frame, (value, search), &mut stats)?
            {
                frame.set(chain.result, Output::Candidates(found));
                chain.within.into_iter().flatten().for_each(|value| frame.skip(value));
                continue;
            }
            let made = self.operation(program, &mut frame, op, &mut stats)?;
            frame.set(value, made);
            let stage = if let Op::Host(host) = op { host.what } else { op.name() };
            stats.add_stage(stage, began.elapsed(), false);
            if !matches!(op, Op::Host(_)) {
                stats.add_kernel(self.kernel(op.name()));
            }
        }
        for &(value, place) in program.outputs() {
            self.place(program, &mut frame, value, place)?;
        }
        Ok(Answer { outputs: frame.finish(program.outputs())?, stats })
    }

    /// A search behind codes with what refines and selects its candidates, in one.
    fn search_behind_codes(
        &self,
        program: &Program,
        frame: &Frame<'_>,
        (value, search): (Value, &Search),
        stats: &mut SearchStats,
    ) -> Result<Option<(Candidates, Chain)>, EngineError> {
        let (Screen::Int8, Some(codes)) = (search.screen, search.codes) else { return Ok(None) };
        let chain = Chain::after(program, value, &search.pairs);
        // Its candidates have direct keys, so refining them changes nothing.
        let (width, wanted, chain) = match chain {
            Chain { refined: true, k: Some(k), .. } => (k, search.wanted, chain),
            _ => (search.keep, None, Chain { result: value, within: [None; 2], refined: false, ..chain }),
        };
        let mut found = self.search_coded(&search.pairs.of(frame)?, Coded::of(frame, codes)?, width, wanted, stats)?;
        if !chain.refined {
            // These are all the rows below the last key, and of those with that key the first: no key left out is smaller.
            let lists = found.keys.chunks_exact(width.max(1));
            for (bound, keys) in found.bound.iter_mut().zip(lists).filter(|(bound, _)| **bound != f32::NEG_INFINITY) {
                *bound = keys.last().copied().unwrap_or(f32::INFINITY);
            }
        }
        Ok(Some((found, chain)))
    }

    fn operation(
        &self,
        program: &Program,
        frame: &mut Frame<'_>,
        op: &Op,
        stats: &mut SearchStats,
    ) -> Result<Output, EngineError> {
        Ok(match op {
            Op::Search(Search { screen: Screen::F16, .. }) => {
                return Err(EngineError::Unsupported("the CPU engine has no screen of f16".to_owned()));
            }
            Op::Search(search) => {
                let pairs = search.pairs.of(frame)?;
                Output::Candidates(self.search(&pairs, search.screen, search.keep, stats)?)
            }
            Op::Assign(assign) => {
                let coded = assign.codes.map(|codes| Coded::of(frame, codes)).transpose()?;
                let known = assign.known.map(|known| frame.known(known)).transpose()?;
                Output::Candidates(self.assign(&assign.pairs.of(frame)?, coded, known, stats)?)
            }
            Op::Distance(distance) => Output::Matrix(self.distance(&distance.pairs.of(frame)?, stats)?),
            Op::Normalize(normalize) => self.normalize(frame.vectors(normalize.rows, 1)?.rows, normalize.norm)?,
            Op::Range(range) => self.range(&range.pairs.of(frame)?, range.key, stats)?,
            Op::Refine(refine) => {
                let candidates = candidates_of(program, frame, refine)?;
                // After a direct pass the keys are what refining would compute again.
                match program.maker(refine.candidates) {
                    Some(Op::Search(s)) if candidates.bound.is_empty() && s.pairs.same_vectors(&refine.pairs) => {
                        Output::Candidates(candidates)
                    }
                    _ => Output::Candidates(self.refine(&refine.pairs.of(frame)?, candidates, stats)?),
                }
            }
            Op::SelectK(SelectK { from, k }) => match (frame.candidates(*from), program.ty(*from)?) {
                (Ok(found), &Type::Candidates { queries, .. }) => {
                    Output::Candidates(self.select_k_of(found, queries, *k)?)
                }
                (_, &Type::Matrix { rows, .. }) => {
                    Output::Candidates(self.select_k(host_matrix(frame, *from)?, rows, *k)?)
                }
                (Err(e), _) => return Err(e),
                (Ok(_), _) => return mismatch(format!("{from} is of another type than was declared")),
            },
            Op::Scan(scan) => Output::Candidates(self.scan(&scan.of(frame)?, scan.keep, stats)?),
            Op::Matmul(matmul) => {
                let sizes = matmul.sizes(program)?;
                let (a, b) = (host_matrix(frame, matmul.a)?, host_matrix(frame, matmul.b)?);
                Output::Matrix(self.matmul(sizes, a, b, matmul.transposed)?)
            }
            Op::SegmentSum(op) => {
                let sizes = op.sizes(program)?;
                let RowsView::F32(rows) = frame.vectors(op.rows, sizes.dim)?.rows else {
                    return mismatch("sums of other rows than f32".to_owned());
                };
                Output::Matrix(self.segment_sum(sizes, rows, frame.positions(op.labels)?.0)?)
            }
            Op::Host(host) => host.call(frame, stats)?,
        })
    }

    /// Brings an answer to where it is wanted.
    fn place(&self, program: &Program, frame: &mut Frame<'_>, value: Value, place: Place) -> Result<(), EngineError> {
        let &Type::Matrix { rows, width } = program.ty(value)? else {
            return match place {
                Place::Host => Ok(()),
                Place::Device => mismatch(format!("{value} is no matrix and can't stay on the device")),
            };
        };
        match (place, frame.array(value).is_some()) {
            (Place::Host, true) => {
                let values = host_matrix(frame, value)?.to_vec();
                frame.set(value, Output::Matrix(values));
            }
            (Place::Device, false) => {
                let values: Arc<Vec<f32>> = match frame.take(value) {
                    Some(Output::Matrix(values)) => Arc::new(values),
                    _ => Arc::new(frame.matrix(value)?.to_vec()),
                };
                let array = Array::new(HOST, [rows, width], values);
                frame.set(value, Output::Array(array));
            }
            (Place::Device, true) => {
                if let Some(array) = frame.array(value).cloned() {
                    frame.set(value, Output::Array(array));
                }
            }
            (Place::Host, false) => {
                // An input is given back as it is.
                if program.maker(value).is_none() {
                    let values = frame.matrix(value)?.to_vec();
                    frame.set(value, Output::Matrix(values));
                }
            }
        }
        Ok(())
    }
}

/// The holder of arrays in host memory: every CPU engine reads those of every other.
const HOST: &str = "host memory";

/// A matrix in host memory, whether or not it is an array.
fn host_matrix<'a>(frame: &'a Frame<'_>, value: Value) -> Result<&'a [f32], EngineError> {
    match frame.array(value) {
        Some(array) => array.view::<Vec<f32>>(HOST).map(Vec::as_slice),
        None => frame.matrix(value),
    }
}

/// The candidates to be refined, taken where nobody else wants them.
fn candidates_of(program: &Program, frame: &mut Frame<'_>, refine: &Refine) -> Result<Candidates, EngineError> {
    if program.only_user(refine.candidates).is_some()
        && let Some(Output::Candidates(found)) = frame.take(refine.candidates)
    {
        return Ok(found);
    }
    let (positions, width) = frame.positions(refine.candidates)?;
    let bound = frame.candidates(refine.candidates).map(|found| found.bound.clone()).unwrap_or_default();
    Ok(Candidates { width, keys: vec![f32::INFINITY; positions.len()], positions: positions.to_vec(), bound })
}

fn mismatch<T>(what: String) -> Result<T, EngineError> {
    Err(EngineError::Mismatch(what))
}

impl Backend<Op> for CpuEngine {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn cache(&self) -> CacheDir {
        self.cache.clone()
    }

    fn run<'a>(&'a self, program: &'a Program, inputs: &'a [Input<'a>]) -> Pending<'a> {
        Pending::done(self.execute(program, inputs))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            kind: Kind::Cpu,
            // Packing rows into panels costs about what so many queries cost directly: fewer in short rows, where the
            // direct pass spends its time adding up lanes.
            screen_queries: &[(48, 4), (512, 8), (2048, 16), (usize::MAX, 24)],
            screen_keep: usize::MAX,
            f16: false,
            // Fewer rows are searched at once.
            coded_rows: 4096,
            coded_queries: 0,
            coded_assign: true,
            room: None,
        }
    }

    fn ceilings(&self) -> Ceilings {
        *self.ceilings.get_or_init(|| self.measure())
    }
}

impl std::fmt::Debug for CpuEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CpuEngine").field(&self.name()).finish()
    }
}

/// The queries as f32, if they are.
fn f32_queries<'a>(pairs: &Compared<'a>) -> Option<crate::types::MatrixView<'a, f32>> {
    match pairs.queries {
        RowsView::F32(queries) => Some(queries),
        _ => None,
    }
}
