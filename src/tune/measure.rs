//! Taking a calibration from an engine: a ladder of small searches over made-up rows, cut off at 200 ms.

use std::time::Instant;

use super::model::{Calibration, Curve};
use crate::compute::{EngineError, Tag, Vectors};
use crate::linalg::length;
use crate::ops::{self, Batch, Engine, Extent, Program, Screen};
use crate::random::Random;
use crate::stats::SearchStats;
use crate::types::{DType, MatrixView, Metric, RowsView};

/// Seconds after which no further search is begun, compilers left out: with the last one and the making of rows 0.2 at most.
const BUDGET: f64 = 0.15;
/// A single search that is expected to take longer is not measured.
const LONGEST_RUN: f64 = 0.01;
/// Components of most searches; 16 in those that tell what a pair costs beside its components.
const LADDER_DIM: usize = 128;
/// Numbers of rows.
const LADDER_ROWS: [usize; 6] = [64, 256, 1024, 4096, 16_384, 65_536];

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
        let mut random = Random::new(1);
        let noise: Vec<f32> = (0..8192).map(|_| 0.5 * random.signed()).collect();
        let blocks = LADDER_ROWS[LADDER_ROWS.len() - 1] * LADDER_DIM / noise.len();
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
    into.extend(view.as_slice().chunks_exact(view.dim()).map(|row| length(row) as f32));
}

/// One search of the ladder.
#[derive(Clone, Copy)]
pub(super) struct LadderRun {
    pub(super) rows: usize,
    pub(super) dim: usize,
    pub(super) queries: usize,
    pub(super) k: usize,
    pub(super) screen: Screen,
}

impl LadderRun {
    fn program(self) -> Result<Program, EngineError> {
        let LadderRun { rows, dim, queries, k, screen } = self;
        Extent { metric: Metric::L2, dtype: DType::F32, dim, rows, queries }.nearest(k.min(rows), screen)
    }

    fn work(self, overhead: f64) -> f64 {
        let costs = self.program().map(|program| program.costs()).unwrap_or_default();
        let pairs = self.rows as f64 * self.queries as f64;
        costs.first().map_or(1.0, |c| c.operations) + overhead * pairs
    }
}

/// Searches of one engine over made-up rows.
pub(super) struct Session<'a> {
    engine: &'a Engine,
    data: Data,
    /// Seconds that are left to measure in.
    left: f64,
    /// Searches that were timed, and those of them whose runs did not agree.
    trials: u32,
    noisy: u32,
    /// Seconds per unit of work of the last ladder.
    slowness: f64,
    /// Bytes that were brought to the device, and the seconds it took.
    moved: (f64, f64),
}

impl<'a> Session<'a> {
    /// Nothing is measured after `left` seconds.
    pub(super) fn new(engine: &'a Engine, left: f64) -> Session<'a> {
        Session { engine, data: Data::new(), left, trials: 0, noisy: 0, slowness: 0.0, moved: (0.0, 0.0) }
    }

    /// Seconds of a search, the best of three; nothing when there is no time left.
    pub(super) fn time(&mut self, trial: LadderRun) -> Result<Option<f64>, EngineError> {
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
        let tag = data.tags.iter().find(|(k, _)| *k == key).map(|(_, tag)| tag);
        let batch = Batch {
            metric: Metric::L2,
            rows: Vectors { rows: RowsView::F32(rows), norms: screened.then_some(norms.as_slice()), tag },
            queries: Vectors { rows: RowsView::F32(queries), norms: Some(&query_norms), tag: None },
            mask: None,
            codes: None,
        };
        let program = batch.nearest(trial.k.min(trial.rows), trial.screen)?;
        let inputs = batch.inputs();
        let mut run = || -> Result<f64, EngineError> {
            let mut stats = SearchStats::default();
            let began = Instant::now();
            ops::run(self.engine, &program, &inputs, &mut stats)?;
            let took = began.elapsed().as_secs_f64();
            let upload: f64 = stats.stages.iter().filter(|s| s.name == "upload").map(|s| s.time.as_secs_f64()).sum();
            if upload > 0.0 && trial.rows * trial.dim >= 1 << 19 {
                let (bytes, seconds) = &mut self.moved;
                *bytes += (trial.rows * trial.dim * 4) as f64;
                *seconds += upload;
            }
            Ok(took)
        };
        // The first run compiles and uploads; on a CPU it is as long as any.
        let first = run()?;
        let mut runs: Vec<f64> = Vec::new();
        let mut total = 0.0;
        // Until the two fastest agree: on a busy machine any single run may have waited for others.
        while runs.len() < 12 {
            let took = run()?;
            total += took;
            runs.push(took);
            runs.sort_by(f64::total_cmp);
            let agree = runs.len() > 1 && runs[1] < 1.25 * runs[0];
            if agree && (runs.len() > 2 || total > LONGEST_RUN) || runs.len() > 1 && total > 3.0 * LONGEST_RUN {
                break;
            }
        }
        let best = runs[0];
        self.trials += 1;
        self.noisy += u32::from(runs[1] > 1.5 * best);
        self.left -= total + first.min(2.0 * best);
        self.data.norms = norms;
        Ok(Some(best))
    }

    /// Times searches of so many queries over the numbers of rows, as far as none is expected to take too long.
    fn ladder(&mut self, screen: Screen, queries: usize) -> Result<Vec<(LadderRun, f64)>, EngineError> {
        let mut timed: Vec<(LadderRun, f64)> = Vec::new();
        for rows in LADDER_ROWS {
            let trial = LadderRun { rows, dim: LADDER_DIM, queries, k: 10, screen };
            let expected = match timed.last() {
                Some((last, seconds)) => seconds * trial.work(0.0) / last.work(0.0),
                None => self.slowness * trial.work(0.0),
            };
            // Two of a ladder at least, or nothing says how time grows.
            let most = if timed.len() < 2 { 4.0 * LONGEST_RUN } else { LONGEST_RUN };
            if expected > most {
                break;
            }
            let Some(mut seconds) = self.time(trial)? else { break };
            // Time does not grow so much faster than work: something else ran.
            let odd = |seconds: f64| expected > 0.0 && !timed.is_empty() && seconds > 4.0 * expected;
            if odd(seconds) {
                seconds = self.time(trial)?.unwrap_or(seconds).min(seconds);
            }
            if odd(seconds) {
                self.noisy += self.trials;
                break;
            }
            timed.push((trial, seconds));
        }
        if let Some((trial, seconds)) = timed.last() {
            self.slowness = seconds / trial.work(0.0);
        }
        Ok(timed)
    }

    /// What a pair costs beside its components, in operations: from rows of 16 components, where `long` took so long with
    /// [`LADDER_DIM`].
    fn overhead(&mut self, (trial, long): (LadderRun, f64)) -> Result<f64, EngineError> {
        let Some(short) = self.time(LadderRun { dim: 16, ..trial })? else { return Ok(0.0) };
        let pairs = (trial.rows * trial.queries) as f64;
        let each = |dim: usize| LadderRun { dim, ..trial }.work(0.0) / pairs;
        if long <= 1.01 * short {
            return Ok(0.0);
        }
        Ok(((short * each(LADDER_DIM) - long * each(16)) / (long - short)).clamp(0.0, 1e3))
    }
}

/// Points of a curve: work with the overhead of each pair, and seconds that never fall.
fn points(timed: &[(LadderRun, f64)], overhead: f64) -> Vec<(f64, f64)> {
    let mut most = 0.0f64;
    let point = |&(trial, seconds): &(LadderRun, f64)| {
        most = most.max(seconds);
        (trial.work(overhead), most)
    };
    timed.iter().map(point).collect()
}

/// Measures an engine; and says whether it was left in peace meanwhile, so that the figures are worth keeping.
///
/// # Errors
/// [`EngineError`] of the engine.
pub(super) fn calibrate(engine: &Engine) -> Result<(Calibration, bool), EngineError> {
    let mut session = Session::new(engine, BUDGET);
    // The clock speeds up, the first pages are touched.
    session.time(LadderRun { rows: LADDER_ROWS[0], dim: LADDER_DIM, queries: 1, k: 10, screen: Screen::None })?;
    let one = session.ladder(Screen::None, 1)?;
    let few = session.ladder(Screen::None, 4)?;
    let some = session.ladder(Screen::None, 32)?;
    let screened = [session.ladder(Screen::F32, 16)?, session.ladder(Screen::F32, 128)?];
    // The other figures come from searches that were not too long.
    let typical = some.last().or(one.last()).copied();
    let mut overhead = [0.0; 2];
    let mut wide = [1.5; 2];
    if let Some(typical) = typical {
        overhead[0] = session.overhead(typical)?;
        for (wide, k) in wide.iter_mut().zip([100, 200]) {
            if let Some(seconds) = session.time(LadderRun { k, ..typical.0 })? {
                *wide = (seconds / typical.1).clamp(1.0, 1e3);
            }
        }
    }
    if let Some(&last) = screened[0].last() {
        overhead[1] = session.overhead(last)?;
    }
    let many = session.ladder(Screen::F32, 1024)?;
    let bytes_per_second = one.last().map_or(1e10, |(t, seconds)| (t.rows * t.dim * 4) as f64 / seconds);
    let ladders =
        [one, few, some].into_iter().map(|l| (false, l)).chain(screened.into_iter().chain([many]).map(|l| (true, l)));
    let curves = ladders.filter_map(|(screened, timed)| {
        let queries = timed.first()?.0.queries;
        Some(Curve { screened, queries, points: points(&timed, overhead[usize::from(screened)]) })
    });
    let transfer = (session.moved.1 > 0.0).then(|| session.moved.0 / session.moved.1);
    let calibration = Calibration { curves: curves.collect(), overhead, wide, bytes_per_second, transfer };
    Ok((calibration, 5 * session.noisy <= session.trials))
}
