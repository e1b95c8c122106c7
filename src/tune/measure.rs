//! Taking a calibration from an engine: a ladder of small searches over made-up rows, cut off at 200 ms.

use std::time::Instant;

use super::model::{Calibration, Curve};
use crate::engine::{Base, Engine, EngineError, Input, Tag, Task};
use crate::plan::{Plan, Problem, Screen};
use crate::stats::SearchStats;
use crate::types::{DType, MatrixView, Metric, RowsView};

/// Seconds that measuring may take, compilers left out.
const BUDGET: f64 = 0.2;
/// A single search that is expected to take longer is not measured.
const LONGEST: f64 = 0.006;
/// Components of most searches; 16 in those that tell what a pair costs beside its components.
const DIM: usize = 128;
/// Numbers of rows.
const ROWS: [usize; 4] = [64, 1024, 8192, 65_536];

/// Made-up rows, the same every time.
struct Data {
    values: Vec<f32>,
    /// For each number of rows and dimension a name, so that a device keeps them.
    tags: Vec<((usize, usize), Tag)>,
    norms: Vec<f32>,
}

impl Data {
    fn new() -> Data {
        // A block of noise again and again, each time scaled: cheap, and no two rows alike.
        let mut state = 0x9e37_79b9_u32;
        let noise: Vec<f32> = (0..8192)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state as f32 / u32::MAX as f32 - 0.5
            })
            .collect();
        let blocks = ROWS[ROWS.len() - 1] * DIM / noise.len();
        let scale = |block: usize| 1.0 + block as f32 / blocks as f32;
        let values = (0..blocks).flat_map(|b| noise.iter().map(move |x| x * scale(b))).collect();
        Data { values, tags: Vec::new(), norms: Vec::new() }
    }

    fn rows(&self, rows: usize, dim: usize) -> Option<MatrixView<'_, f32>> {
        MatrixView::new(self.values.get(..rows * dim)?, dim).ok()
    }
}

/// Lengths of the rows of a view.
fn lengths(view: MatrixView<'_, f32>, into: &mut Vec<f32>) {
    into.clear();
    into.extend(view.as_slice().chunks_exact(view.dim()).map(|row| row.iter().map(|x| x * x).sum::<f32>().sqrt()));
}

/// One search of the ladder.
#[derive(Clone, Copy)]
pub(super) struct Trial {
    pub(super) rows: usize,
    pub(super) dim: usize,
    pub(super) queries: usize,
    pub(super) k: usize,
    pub(super) screen: Screen,
}

impl Trial {
    fn plan(self) -> Plan {
        let Trial { rows, dim, queries, k, screen } = self;
        Plan::search(Problem { metric: Metric::L2, dtype: DType::F32, dim, rows, queries }, k.min(rows), screen)
    }

    fn work(self, overhead: f64) -> f64 {
        let plan = self.plan();
        let pairs = self.rows as f64 * self.queries as f64;
        plan.costs().first().map_or(1.0, |c| c.operations) + overhead * pairs
    }
}

/// Searches of one engine over made-up rows.
pub(super) struct Session<'a> {
    engine: &'a dyn Engine,
    data: Data,
    /// Seconds that are left to measure in.
    left: f64,
    /// Bytes that were brought to the device, and the seconds it took.
    moved: (f64, f64),
}

impl<'a> Session<'a> {
    /// Nothing is measured after `left` seconds.
    pub(super) fn new(engine: &'a dyn Engine, left: f64) -> Session<'a> {
        Session { engine, data: Data::new(), left, moved: (0.0, 0.0) }
    }

    /// Seconds of a search, the best of three; nothing when there is no time left.
    pub(super) fn time(&mut self, trial: Trial) -> Result<Option<f64>, EngineError> {
        if self.left < 0.0 {
            return Ok(None);
        }
        let key = (trial.rows, trial.dim);
        if !self.data.tags.iter().any(|(k, _)| *k == key) {
            self.data.tags.push((key, Tag::new()));
        }
        let data = &mut self.data;
        let mut norms = std::mem::take(&mut data.norms);
        let (Some(rows), Some(queries)) = (data.rows(trial.rows, trial.dim), data.rows(trial.queries, trial.dim))
        else {
            return Ok(None);
        };
        let screened = trial.screen != Screen::None;
        if screened {
            lengths(rows, &mut norms);
        }
        let mut query_norms = Vec::new();
        lengths(queries, &mut query_norms);
        let plan = trial.plan();
        let task = Task {
            plan: &plan,
            base: Base {
                rows: RowsView::F32(rows),
                norms: screened.then_some(norms.as_slice()),
                tag: data.tags.iter().find(|(k, _)| *k == key).map(|(_, tag)| tag),
                codes: None,
            },
            queries: RowsView::F32(queries),
            query_norms: &query_norms,
            mask: None,
            input: Input::None,
        };
        let mut run = || -> Result<f64, EngineError> {
            let mut stats = SearchStats::default();
            let began = Instant::now();
            self.engine.run(&task, &mut stats)?;
            let took = began.elapsed().as_secs_f64();
            let upload: f64 = stats.stages.iter().filter(|s| s.name == "upload").map(|s| s.time.as_secs_f64()).sum();
            if upload > 0.0 && trial.rows * trial.dim > 1 << 19 {
                let (bytes, seconds) = &mut self.moved;
                *bytes += (trial.rows * trial.dim * 4) as f64;
                *seconds += upload;
            }
            Ok(took)
        };
        // The first run compiles and uploads; on a CPU it is as long as any.
        let first = run()?;
        let mut best = f64::INFINITY;
        let mut total = 0.0;
        for _ in 0..3 {
            let took = run()?;
            best = best.min(took);
            total += took;
            if total > LONGEST {
                break;
            }
        }
        self.left -= total + first.min(2.0 * best);
        self.data.norms = norms;
        Ok(Some(best))
    }

    /// A curve over the numbers of rows, as far as they take no longer than one search should.
    fn curve(&mut self, screen: Screen, queries: usize, overhead: f64) -> Result<Curve, EngineError> {
        let screened = screen != Screen::None;
        let mut points: Vec<(f64, f64)> = Vec::new();
        for rows in ROWS {
            let trial = Trial { rows, dim: DIM, queries, k: 10, screen };
            let work = trial.work(overhead);
            // As long as the last is in proportion; never less than two points, or there is no slope.
            let expected = points.last().map_or(0.0, |&(w, s)| s * work / w);
            if points.len() > 1 && expected > 3.0 * LONGEST {
                break;
            }
            let Some(seconds) = self.time(trial)? else { break };
            // Noise must not make more work take less time.
            points.push((work, seconds.max(points.last().map_or(0.0, |p| p.1))));
        }
        Ok(Curve { screened, queries, points })
    }

    /// What a pair costs beside its components, in operations: from rows of 16 and of 128 components.
    fn overhead(&mut self, screen: Screen, queries: usize) -> Result<f64, EngineError> {
        let rows = ROWS[2];
        let trial = |dim| Trial { rows, dim, queries, k: 10, screen };
        let pairs = (rows * queries) as f64;
        let (Some(short), Some(long)) = (self.time(trial(16))?, self.time(trial(DIM))?) else { return Ok(0.0) };
        let each = |dim: usize| trial(dim).work(0.0) / pairs;
        if long <= short {
            return Ok(0.0);
        }
        Ok(((short * each(DIM) - long * each(16)) / (long - short)).clamp(0.0, 1e3))
    }

    /// How many times longer `k` neighbours take than ten.
    fn wide(&mut self, k: usize) -> Result<Option<f64>, EngineError> {
        let trial = |k| Trial { rows: ROWS[2], dim: DIM, queries: 16, k, screen: Screen::None };
        let (Some(ten), Some(more)) = (self.time(trial(10))?, self.time(trial(k))?) else { return Ok(None) };
        Ok(Some((more / ten).clamp(1.0, 1e3)))
    }
}

/// Measures an engine.
///
/// # Errors
/// [`EngineError`] of the engine.
pub(super) fn calibrate(engine: &dyn Engine) -> Result<Calibration, EngineError> {
    let mut session = Session::new(engine, BUDGET);
    // The clock speeds up, the first pages are touched.
    session.time(Trial { rows: ROWS[1], dim: DIM, queries: 1, k: 10, screen: Screen::None })?;
    let overhead = [session.overhead(Screen::None, 16)?, session.overhead(Screen::F32, 32)?];
    let mut curves = Vec::new();
    for (screen, queries) in
        [(Screen::None, 1), (Screen::None, 32), (Screen::F32, 16), (Screen::F32, 128), (Screen::F32, 1024)]
    {
        let curve = session.curve(screen, queries, overhead[usize::from(screen != Screen::None)])?;
        // One point says nothing about how time grows.
        if curve.points.len() > 1 {
            curves.push(curve);
        }
    }
    let wide = [session.wide(100)?, session.wide(200)?].map(|w| w.unwrap_or(1.5));
    let longest = |c: &Curve| c.points.last().map(|&(work, seconds)| work / seconds);
    let read = curves.iter().find(|c| c.queries == 1).and_then(|c| Some((longest(c)?, c.points.last()?.0)));
    // Rows of f32: operations a byte are what the work of one query and its bytes say.
    let bytes_per_second = read.map_or(1e10, |(rate, work)| {
        let rows = work / Trial { rows: 1, dim: DIM, queries: 1, k: 1, screen: Screen::None }.work(overhead[0]);
        rate / work * rows * (DIM * 4) as f64
    });
    let transfer = (session.moved.1 > 0.0).then(|| session.moved.0 / session.moved.1);
    Ok(Calibration { curves, overhead, wide, bytes_per_second, transfer })
}
