//! The one driver of searches: checks the queries, writes the plan, runs it, proves the screened answers, and
//! lets the direct pass answer what could not be proven.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::coding::Coding;
use super::roster::Roster;
use super::rowbuf::queries_f32;
use super::store::{Store, negative};
use crate::engine::{Base, Candidates, Coded, Engine, EngineError, Input, Mask, Output, Task};
use crate::error::SearchError;
use crate::kernels::codes::{MOST_DIM, QueryCodes};
use crate::kernels::search::{norm_in_range, screens};
use crate::linalg::{length, lengths};
use crate::plan::{Plan, Problem, Screen, Step};
use crate::stats::SearchStats;
use crate::threads;
use crate::types::{Bitmap, BitsView, DType, Filter, MatrixView, Metric, RangeHits, RowsView};

/// Queries as engines take them: checked, f32 or packed bits, with their lengths.
pub(crate) struct Queries<'a> {
    data: QueryData<'a>,
    pub norms: Vec<f32>,
}

enum QueryData<'a> {
    Floats(Cow<'a, [f32]>, usize, usize),
    Bits(BitsView<'a>),
}

impl<'a> Queries<'a> {
    /// Checks queries against rows of this shape.
    pub fn new(metric: Metric, dtype: DType, dim: usize, queries: RowsView<'a>) -> Result<Queries<'a>, SearchError> {
        if (queries.dtype() == DType::Bits) != (dtype == DType::Bits) {
            return Err(SearchError::DType { wanted: dtype, found: queries.dtype() });
        }
        if queries.dim() != dim {
            return Err(SearchError::Dim { wanted: dim, found: queries.dim() });
        }
        let mut norms = lengths(&queries).map_err(|(query, component, value)| SearchError::NotFinite {
            query,
            component,
            value,
        })?;
        if let Some((query, component, value)) = negative(metric, &queries) {
            return Err(SearchError::Negative { query, component, value, metric });
        }
        let data = match queries {
            RowsView::Bits(m) => QueryData::Bits(m),
            RowsView::F32(m) if m.stride() == dim && metric != Metric::Cosine => {
                QueryData::Floats(Cow::Borrowed(m.as_slice()), m.rows(), dim)
            }
            other => {
                let mut floats = queries_f32(&other);
                if metric == Metric::Cosine {
                    scale_to_unit(&mut floats, &mut norms, dim);
                }
                QueryData::Floats(Cow::Owned(floats), other.rows(), dim)
            }
        };
        Ok(Queries { data, norms })
    }

    pub fn len(&self) -> usize {
        self.norms.len()
    }

    pub fn view(&self) -> RowsView<'_> {
        match &self.data {
            QueryData::Floats(data, rows, dim) => match MatrixView::with_stride(data, *rows, *dim, *dim) {
                Ok(m) => RowsView::F32(m),
                Err(_) => unreachable!("checked when it was made"),
            },
            QueryData::Bits(m) => RowsView::Bits(*m),
        }
    }

    /// The queries at these places, as a batch of their own.
    fn pick(&self, places: &[usize]) -> Queries<'static> {
        let norms = places.iter().map(|&q| self.norms[q]).collect();
        let view = self.view();
        let mut floats = vec![0.0; places.len() * view.dim()];
        for (&q, row) in places.iter().zip(floats.chunks_exact_mut(view.dim())) {
            view.row_f32(q, row);
        }
        Queries { data: QueryData::Floats(Cow::Owned(floats), places.len(), view.dim()), norms }
    }
}

/// Scales each query by the power of two that brings its length to between 1/4 and 1/2: the cosine stays exactly what it
/// was, no sum of products with a row overflows, and none with an ordinary row vanishes.
fn scale_to_unit(queries: &mut [f32], norms: &mut [f32], dim: usize) {
    threads::each(64, queries.chunks_exact_mut(dim).zip(norms), |(query, norm)| {
        if *norm > 0.0 {
            // In f64: finite components may make a length past f32. One power of two may be past it too, so two steps.
            let exponent = length(query).log2().floor() as i32 + 2;
            let (a, b) = (exponent / 2, exponent - exponent / 2);
            for x in query.iter_mut() {
                *x = *x * f32::powi(2.0, -a) * f32::powi(2.0, -b);
            }
            *norm = length(query) as f32;
        }
    });
}

/// The bits of a filter and of removed rows, as engines take them.
pub(crate) struct MaskBits {
    words: Vec<u32>,
    stride: usize,
}

impl MaskBits {
    /// Absent when every row may be returned to every query.
    pub fn new(roster: &Roster, filter: Option<&Filter>, queries: usize) -> Result<Option<MaskBits>, SearchError> {
        let with_live = |mut bits: Bitmap| {
            if let Some(live) = roster.live() {
                bits.and(live);
            }
            bits
        };
        let spread = |bits: &Bitmap| -> Result<Bitmap, SearchError> {
            if bits.len() != roster.len() {
                return Err(SearchError::FilterLength { wanted: roster.len(), found: bits.len() });
            }
            let Some(live) = roster.live() else { return Ok(bits.clone()) };
            // The filter counts rows that are there; holes lie between them.
            let mut next = 0;
            Ok(Bitmap::from_fn(roster.slots(), |p| {
                live.get(p) && {
                    next += 1;
                    bits.get(next - 1)
                }
            }))
        };
        let bitmaps = match filter {
            None => match roster.live() {
                None => return Ok(None),
                Some(live) => vec![live.clone()],
            },
            Some(Filter::Rows(bits)) => vec![spread(bits)?],
            Some(Filter::RowsPerQuery(all)) if all.len() != queries => {
                return Err(SearchError::FilterCount { wanted: queries, found: all.len() });
            }
            Some(Filter::RowsPerQuery(all)) => all.iter().map(spread).collect::<Result<_, _>>()?,
            Some(Filter::Ids(ids)) => {
                let mut bits = Bitmap::new(roster.slots(), false);
                for position in ids.iter().filter_map(|&id| roster.position(id)) {
                    bits.set(position as usize, true);
                }
                vec![with_live(bits)]
            }
        };
        let per_query = matches!(filter, Some(Filter::RowsPerQuery(_)));
        let stride = if per_query { roster.slots().div_ceil(32) } else { 0 };
        Ok(Some(MaskBits { words: bitmaps.iter().flat_map(|b| b.words()).copied().collect(), stride }))
    }

    /// Rows allowed for each query; one number where all share the bits.
    pub fn allowed(&self, queries: usize) -> Vec<usize> {
        let count = |words: &[u32]| words.iter().map(|w| w.count_ones() as usize).sum();
        match self.stride {
            0 => vec![count(&self.words)],
            stride => self.words.chunks(stride).take(queries).map(count).collect(),
        }
    }

    pub fn mask(&self) -> Mask<'_> {
        Mask { words: &self.words, stride: self.stride }
    }

    fn pick(&self, places: &[usize]) -> MaskBits {
        if self.stride == 0 {
            return MaskBits { words: self.words.clone(), stride: 0 };
        }
        let row = |&q: &usize| self.words[q * self.stride..(q + 1) * self.stride].iter().copied();
        MaskBits { words: places.iter().flat_map(row).collect(), stride: self.stride }
    }
}

/// What a search works on, checked.
pub(crate) struct Search<'a> {
    pub engine: &'a dyn Engine,
    /// The CPU, which codes rows and queries.
    pub host: &'a dyn Engine,
    pub store: &'a Store,
    pub queries: Queries<'a>,
    pub mask: Option<MaskBits>,
}

impl Search<'_> {
    fn problem(&self) -> Problem {
        let view = self.store.view();
        Problem {
            metric: self.store.metric(),
            dtype: view.dtype(),
            dim: view.dim(),
            rows: view.rows(),
            queries: self.queries.len(),
        }
    }

    fn run(&self, plan: &Plan, coding: Option<&Coding>, stats: &mut SearchStats) -> Result<Output, EngineError> {
        let queries = coding.map(|coding| self.coded(coding, stats)).transpose()?;
        let codes = coding.zip(queries.as_ref());
        let codes = codes.map(|(coding, queries)| Coded { codes: &coding.codes, tag: &coding.tag, queries });
        let task = Task {
            plan,
            base: Base { codes, ..self.store.base() },
            queries: self.queries.view(),
            query_norms: &self.queries.norms,
            mask: self.mask.as_ref().map(MaskBits::mask),
            input: Input::None,
        };
        match plan.steps[..] {
            [screen @ Step::Search { .. }, Step::Refine, select @ Step::SelectK { .. }]
                if !self.engine.refines(&task) =>
            {
                let first = Plan::one(plan.problem, screen);
                let found = candidates(self.engine.run(&Task { plan: &first, ..task }, stats)?)?;
                self.refine_on_host(&task, found, select, stats)
            }
            _ => self.engine.run(&task, stats),
        }
    }

    /// The direct keys of candidates of the engine, from the rows where they lie.
    fn refine_on_host(
        &self,
        task: &Task<'_>,
        found: Candidates,
        select: Step,
        stats: &mut SearchStats,
    ) -> Result<Output, EngineError> {
        // Without a bound the keys are direct ones, the smallest first.
        if found.bound.is_empty() {
            return Ok(Output::Candidates(found));
        }
        let device = std::mem::take(&mut stats.device);
        let plan = Plan { problem: task.plan.problem, steps: vec![Step::Refine, select] };
        let input = Input::Positions { positions: &found.positions, width: found.width };
        let mut refined = candidates(self.host.run(&Task { plan: &plan, input, ..*task }, stats)?)?;
        stats.device = device;
        refined.bound = found.bound;
        Ok(Output::Candidates(refined))
    }

    /// The queries in the code of the rows.
    fn coded(&self, coding: &Coding, stats: &mut SearchStats) -> Result<QueryCodes, EngineError> {
        let began = Instant::now();
        let RowsView::F32(queries) = self.queries.view() else { return Err(mismatch("packed bits have no codes")) };
        let queries = coding.coder.queries(self.host, queries, &self.queries.norms)?;
        stats.add_stage("encode", began.elapsed(), false);
        Ok(queries)
    }

    /// The codes of all rows, for a plan that wants them. None when they can't be had now: somebody else is making them,
    /// or there is no memory for them.
    fn codes(&self, plan: &Plan, stats: &mut SearchStats) -> Option<Arc<Coding>> {
        if plan.screen() != Screen::Int8 {
            return None;
        }
        let began = Instant::now();
        let coding = self.store.current_codes(self.host).ok().flatten();
        stats.add_stage("encode", began.elapsed(), false);
        coding
    }

    /// The plan for the `k` nearest: with the screen asked for, or the one that the engine expects to pay.
    pub fn plan(&self, k: usize, screen: Option<Screen>) -> Result<Plan, SearchError> {
        let problem = self.problem();
        let metric = problem.metric;
        let k = k.min(problem.rows).max(1);
        if let Some(screen) = screen
            && screen != Screen::None
            && !screens(metric)
        {
            return Err(SearchError::Screen { metric, screen });
        }
        let plan = |screen| Plan::search(problem, k, screen);
        // Outside the range of lengths that the proofs cover, every screen degrades to the direct pass.
        if screen == Some(Screen::None) || !screens(metric) || !self.provable() || problem.dtype == DType::Bits {
            return Ok(plan(Screen::None));
        }
        let screen = match screen {
            Some(Screen::Int8) if problem.dim > MOST_DIM => Screen::F32,
            Some(screen) => screen,
            None if self.codes_pay(&problem, k) => Screen::Int8,
            None if self.engine.wants_screen(&plan(Screen::F32)) => Screen::F32,
            None => Screen::None,
        };
        Ok(if keeps_all(&plan(screen)) { plan(Screen::None) } else { plan(screen) })
    }

    /// Whether codes are there, or are worth making for all that has been asked, and the engine would use them.
    fn codes_pay(&self, problem: &Problem, k: usize) -> bool {
        // Many neighbours leave little to exclude.
        k <= problem.rows / 32
            && problem.dim <= MOST_DIM
            && self.engine.wants_codes(problem)
            && self.store.asked_enough_for_codes()
    }

    fn provable(&self) -> bool {
        self.store.norms_in_range() && self.queries.norms.iter().all(|&n| norm_in_range(n))
    }

    /// The `k` nearest rows of each query: `[queries, k]`, exact.
    pub fn nearest(
        &self,
        k: usize,
        screen: Option<Screen>,
        stats: &mut SearchStats,
    ) -> Result<Candidates, SearchError> {
        let queries = self.queries.len();
        if queries == 0 || self.store.slots() == 0 {
            stats.device = self.engine.name();
            return Ok(Candidates::places(queries, k)?);
        }
        let mut plan = self.plan(k, screen)?;
        let coding = self.codes(&plan, stats);
        if coding.is_none() && plan.screen() == Screen::Int8 {
            plan = self.plan(k, Some(Screen::F32))?;
        }
        let found = candidates(self.run(&plan, coding.as_deref(), stats)?)?;
        let mut answer = widen(found, queries, k)?;
        let started = Instant::now();
        let unproven = unproven(&answer, k.min(self.store.slots()));
        if !answer.bound.is_empty() {
            stats.proven += (queries - unproven.len()) as u64;
            stats.add_stage("prove", started.elapsed(), false);
        }
        if !unproven.is_empty() {
            // A screen of more bits first: it excludes nearly all that can be excluded.
            let next = match plan.screen() {
                Screen::Int8 | Screen::F16 => Screen::F32,
                _ => Screen::None,
            };
            self.again(&unproven, k, next, &mut answer, stats)?;
        }
        Ok(answer)
    }

    /// Answers the queries at `places` behind another screen.
    fn again(
        &self,
        places: &[usize],
        k: usize,
        screen: Screen,
        answer: &mut Candidates,
        stats: &mut SearchStats,
    ) -> Result<(), SearchError> {
        let again = Search {
            engine: self.engine,
            host: self.host,
            store: self.store,
            queries: self.queries.pick(places),
            mask: self.mask.as_ref().map(|m| m.pick(places)),
        };
        // For few queries packing rows for a screen costs more than it saves.
        let wanted = |screen| again.engine.wants_screen(&Plan::search(again.problem(), k, screen));
        let screen = if screen != Screen::None && wanted(screen) { screen } else { Screen::None };
        if screen == Screen::None {
            stats.fell_back += places.len() as u64;
        }
        let found = again.nearest(k, Some(screen), stats)?;
        for (i, &q) in places.iter().enumerate() {
            answer.keys[q * k..(q + 1) * k].copy_from_slice(&found.keys[i * k..(i + 1) * k]);
            answer.positions[q * k..(q + 1) * k].copy_from_slice(&found.positions[i * k..(i + 1) * k]);
        }
        Ok(())
    }

    /// Every row within `radius`, as users see it.
    pub fn within(&self, radius: f32, stats: &mut SearchStats) -> Result<RangeHits, SearchError> {
        if self.queries.len() == 0 || self.store.slots() == 0 {
            stats.device = self.engine.name();
            return Ok(RangeHits { offsets: vec![0; self.queries.len() + 1], ..RangeHits::default() });
        }
        let metric = self.store.metric();
        // `external` is its own inverse.
        match self.run(&Plan::range(self.problem(), metric.external(radius)), None, stats)? {
            Output::Range { offsets, keys, positions } => Ok(RangeHits {
                offsets,
                ids: positions.into_iter().map(|p| self.store.roster().id(p)).collect(),
                distances: keys.into_iter().map(|k| metric.external(k)).collect(),
            }),
            _ => Err(mismatch("a range plan gave no hits").into()),
        }
    }
}

/// Whether a screen would leave no row out.
fn keeps_all(plan: &Plan) -> bool {
    matches!(plan.steps[..], [Step::Search { keep, .. }, ..] if keep >= plan.problem.rows)
}

/// The queries whose k-th key does not lie strictly below every bound of a row left out.
fn unproven(answer: &Candidates, k: usize) -> Vec<usize> {
    let kth = |q: usize| answer.keys[q * answer.width + k - 1];
    (0..answer.bound.len()).filter(|&q| answer.bound[q] < f32::INFINITY && kth(q) >= answer.bound[q]).collect()
}

/// Pads (or cuts) to `k` places a query.
fn widen(found: Candidates, queries: usize, k: usize) -> Result<Candidates, EngineError> {
    if found.width == k {
        return Ok(found);
    }
    let (mut out, width) = (Candidates::places(queries, k)?, found.width.min(k));
    for q in 0..queries {
        let (to, from) = (q * k..q * k + width, q * found.width..q * found.width + width);
        out.keys[to.clone()].copy_from_slice(&found.keys[from.clone()]);
        out.positions[to].copy_from_slice(&found.positions[from]);
    }
    out.bound = found.bound;
    Ok(out)
}

pub(crate) fn candidates(output: Output) -> Result<Candidates, EngineError> {
    match output {
        Output::Candidates(found) => Ok(found),
        _ => Err(mismatch("a search plan gave no candidates")),
    }
}

fn mismatch(what: &str) -> EngineError {
    EngineError::Mismatch(what.to_owned())
}
