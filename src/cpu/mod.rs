//! The CPU engine: every verb, in vectors of the best level the CPU has, on the threads of its device.
//!
//! One file a verb. A verb cuts its work into items, and `CpuEngine::spread` lets the calling thread and the pool
//! take one after another; each worker has scratch memory that lives on from call to call. Results never depend on the
//! number of threads: keys are computed pair by pair, and ties are broken by position.

mod assign;
mod ceilings;
mod coded;
mod dense;
mod distance;
mod normalize;
mod range;
mod refine;
mod scan;
mod search;
mod select_k;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::cache::CacheDir;
use crate::engine::{Candidates, Engine, EngineError, Input, Output, Task, room};
use crate::kernels::codes::MOST_DIM;
use crate::kernels::search::screens;
use crate::plan::{Plan, Problem, Screen, Step};
pub use crate::simd::Level;
use crate::simd::{Token, bytes, lists, panel};
use crate::stats::{Ceilings, SearchStats};
use crate::threads::Threads;
use crate::types::{DType, Metric, RowsView};
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

/// Runs plans on the CPU.
pub struct CpuEngine {
    token: Token,
    threads: usize,
    pool: Threads,
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

/// What flows from step to step.
enum Flow<'a> {
    Start(Input<'a>),
    Candidates(Candidates),
    Done(Output),
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
        CpuEngine {
            token: level.and_then(Token::new).unwrap_or_else(Token::best),
            threads: threads.count(),
            pool: threads,
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
    fn spread<I: Send>(
        &self,
        workers: usize,
        items: impl Iterator<Item = I> + Send,
        prepare: impl Fn(&mut Scratch) + Sync,
        work: impl Fn(&mut Scratch, I) + Sync,
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
                    Some(item) => work(scratch, item),
                    None => return,
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

    fn step<'a>(
        &self,
        task: &Task<'a>,
        step: Step,
        flow: Flow<'a>,
        stats: &mut SearchStats,
    ) -> Result<Flow<'a>, EngineError> {
        Ok(match (step, flow) {
            (Step::Normalize { norm }, Flow::Start(_)) => Flow::Done(self.normalize(task, norm)?),
            (Step::Distance, Flow::Start(_)) => Flow::Done(Output::Matrix(self.distance(task, stats)?)),
            (Step::Search { screen, keep }, Flow::Start(_)) => {
                Flow::Candidates(self.search(task, screen, keep, stats)?)
            }
            (Step::Scan { keep, .. }, Flow::Start(Input::Lists(listed))) => {
                Flow::Candidates(self.scan(task, &listed, keep, stats)?)
            }
            (Step::Assign, Flow::Start(_)) => Flow::Candidates(self.assign(task, stats)?),
            (Step::Range { key }, Flow::Start(_)) => Flow::Done(self.range(task, key, stats)?),
            (Step::Refine, Flow::Start(Input::Positions { positions, width })) => {
                if positions.len() != task.queries.rows() * width {
                    return mismatch(format!(
                        "{} positions for {} queries x {width}",
                        positions.len(),
                        task.queries.rows()
                    ));
                }
                let keys = vec![f32::INFINITY; positions.len()];
                let candidates = Candidates { width, keys, positions: positions.to_vec(), bound: Vec::new() };
                Flow::Candidates(self.refine(task, candidates, stats)?)
            }
            // After a direct pass the keys are what refining would compute again.
            (Step::Refine, Flow::Candidates(candidates)) if candidates.bound.is_empty() => Flow::Candidates(candidates),
            (Step::Refine, Flow::Candidates(candidates)) => Flow::Candidates(self.refine(task, candidates, stats)?),
            (Step::SelectK { k }, Flow::Candidates(candidates)) => {
                Flow::Candidates(self.select_k_of(&candidates, task.queries.rows(), k)?)
            }
            (Step::SelectK { k }, Flow::Start(Input::Matrix(keys))) => {
                Flow::Candidates(self.select_k(keys, task.queries.rows(), k)?)
            }
            (Step::SelectK { k }, Flow::Done(Output::Matrix(keys))) => {
                Flow::Candidates(self.select_k(&keys, task.queries.rows(), k)?)
            }
            (
                Step::Normalize { .. }
                | Step::Distance
                | Step::Search { .. }
                | Step::Assign
                | Step::Refine
                | Step::SelectK { .. }
                | Step::Scan { .. }
                | Step::Range { .. },
                _,
            ) => return mismatch(format!("`{step}` cannot work on what the step before it gave")),
        })
    }
}

fn mismatch<T>(what: String) -> Result<T, EngineError> {
    Err(EngineError::Mismatch(what))
}

/// Whether the parts of a task fit together, so that no index below can be out of bounds.
fn check(task: &Task<'_>) -> Result<(), EngineError> {
    let (p, rows, queries) = (&task.plan.problem, &task.base.rows, &task.queries);
    if let Input::Lists(listed) = task.input {
        return listed.check(&task.plan.problem, task.mask);
    }
    let (n, q) = (rows.rows(), queries.rows());
    if (p.rows, p.queries, p.dtype) != (n, q, rows.dtype()) {
        return mismatch(format!(
            "a plan for {} x {} {} rows, given {q} x {n} {}",
            p.queries,
            p.rows,
            p.dtype,
            rows.dtype()
        ));
    }
    if n >= u32::MAX as usize {
        return mismatch(format!("{n} rows; positions are 32 bits"));
    }
    if q > 0 && n > 0 && queries.dim() != rows.dim() {
        return mismatch(format!("queries of {} components against rows of {}", queries.dim(), rows.dim()));
    }
    let wanted = if p.dtype == DType::Bits { DType::Bits } else { DType::F32 };
    if q > 0 && queries.dtype() != wanted {
        return mismatch(format!("{} queries for {} rows, wanted {wanted}", queries.dtype(), p.dtype));
    }
    if q > 0 && !p.metric.supports(p.dtype) {
        return mismatch(format!("{} is not defined on {} rows", p.metric, p.dtype));
    }
    if task.base.norms.is_some_and(|norms| norms.len() != n) {
        return mismatch(format!("{} norms for {n} rows", task.base.norms.map_or(0, <[f32]>::len)));
    }
    let needs_norms = p.metric == Metric::Cosine && q > 0;
    if needs_norms && (task.base.norms.is_none() || task.query_norms.len() != q) {
        return mismatch("cosine needs the lengths of rows and queries".to_owned());
    }
    if let Some(mask) = task.mask {
        let words = n.div_ceil(32);
        let wanted = if q == 0 { 0 } else { (q - 1) * mask.stride + words };
        if mask.words.len() < wanted || (mask.stride != 0 && mask.stride < words) {
            return mismatch(format!("a mask of {} words for {q} queries x {n} rows", mask.words.len()));
        }
    }
    Ok(())
}

impl Engine for CpuEngine {
    fn name(&self) -> String {
        let s = if self.threads == 1 { "" } else { "s" };
        format!("cpu ({}, {} thread{s})", self.level().name(), self.threads)
    }

    fn cache(&self) -> CacheDir {
        self.cache.clone()
    }

    fn run(&self, task: &Task<'_>, stats: &mut SearchStats) -> Result<Output, EngineError> {
        check(task)?;
        stats.device = self.name();
        if let ([Step::Search { screen: Screen::Int8, .. }, Step::Refine, Step::SelectK { k }], Some(coded)) =
            (&task.plan.steps[..], task.base.codes)
        {
            return self.search_coded(task, coded, *k, stats).map(Output::Candidates);
        }
        let mut flow = Flow::Start(task.input);
        for &step in &task.plan.steps {
            let begin = Instant::now();
            flow = self.step(task, step, flow, stats)?;
            stats.add_stage(step.verb(), begin.elapsed(), false);
            stats.add_kernel(format!("{}/{}", step.verb(), self.level().name()));
        }
        match flow {
            Flow::Start(_) => mismatch("a plan without steps".to_owned()),
            Flow::Candidates(candidates) => Ok(Output::Candidates(candidates)),
            Flow::Done(output) => Ok(output),
        }
    }

    fn wants_screen(&self, plan: &Plan) -> bool {
        // Packing rows into panels costs about what so many queries cost directly: fewer in short rows, where the
        // direct pass spends its time adding up lanes.
        let worth = match plan.problem.dim {
            0..48 => 4,
            48..512 => 8,
            512..2048 => 16,
            _ => 24,
        };
        plan.problem.queries >= worth && plan.problem.dtype != DType::Bits && screens(plan.problem.metric)
    }

    fn wants_codes(&self, problem: &Problem) -> bool {
        // Fewer rows are searched at once, more neighbours leave little to exclude.
        problem.rows >= 4096 && problem.dim <= MOST_DIM && problem.dtype != DType::Bits && screens(problem.metric)
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

/// The queries of a task as f32, if they are.
fn f32_queries<'a>(task: &Task<'a>) -> Option<crate::types::MatrixView<'a, f32>> {
    match task.queries {
        RowsView::F32(queries) => Some(queries),
        _ => None,
    }
}
