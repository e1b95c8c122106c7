//! The one driver of searches: checks the queries, writes the program, runs it, proves the screened answers, and
//! lets the direct pass answer what could not be proven.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::coding::Coding;
use super::decide::{Decider, spare};
use super::planner::{Asked, Planner, after};
use super::roster::Roster;
use super::rowbuf::RowBuf;
use super::store::{Fault, Store, checked_lengths, vanishing};
use crate::compute::{Candidates, EngineError, Frame, Input, Mask, Output, Tag, Type, Value, Vectors};
use crate::error::SearchError;
use crate::linalg::{length, scaled_square};
use crate::ops::codes::QueryCodes;
use crate::ops::search::{Wanted, kept, norm_in_range};
use crate::ops::{self, Batch, Coded, Cost, Engine, Extent, Host, Op, Program, Refine, Screen, SelectK};
use crate::stats::{SearchStats, Stage};
use crate::threads;
use crate::types::{Bitmap, DType, Filter, Metric, RangeHits, RowsView};

/// Queries, checked: as they were given, and as engines take them, with their lengths.
pub(crate) struct Queries<'a> {
    given: Held<'a>,
    /// Where they are not given so: f32, and for cosine of a length near 1.
    taken: Option<RowBuf>,
    pub norms: Vec<f32>,
    /// See [`vanishing`].
    pub vanishing: bool,
}

/// Rows of the caller's, or some of them.
enum Held<'a> {
    View(RowsView<'a>),
    Own(RowBuf),
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
        let mut norms = checked_lengths(metric, &queries).map_err(|fault| match fault {
            Fault::NotFinite(query, component, value) => SearchError::NotFinite { query, component, value },
            Fault::Negative(query, component, value) => SearchError::Negative { query, component, value, metric },
            Fault::Overflow(query) => SearchError::Overflow { query, metric },
            Fault::Inexact(query, component, value) => SearchError::Inexact { query, component, value },
        })?;
        let vanishing = metric != Metric::Cosine && vanishing(metric, &queries, &norms);
        let taken = match queries {
            RowsView::Bits(_) => None,
            RowsView::F32(m) if m.stride() == dim && metric != Metric::Cosine => None,
            _ if metric == Metric::Cosine => Some(scaled_to_unit(&queries, &mut norms)),
            _ => Some(RowBuf::rounded(&queries)),
        };
        Ok(Queries { given: Held::View(queries), taken, norms, vanishing })
    }

    pub fn len(&self) -> usize {
        self.norms.len()
    }

    /// The queries as they were given.
    pub fn given(&self) -> RowsView<'_> {
        match &self.given {
            Held::View(view) => *view,
            Held::Own(rows) => rows.view(),
        }
    }

    /// The queries as engines take them: f32 or packed bits.
    pub fn view(&self) -> RowsView<'_> {
        self.taken.as_ref().map_or_else(|| self.given(), RowBuf::view)
    }

    /// The queries at these places, as a batch of their own.
    fn pick(&self, places: &[usize]) -> Queries<'static> {
        let pick = |all: RowsView<'_>| {
            let mut some = RowBuf::new(all.dtype(), all.dim());
            places.iter().for_each(|&q| some.extend(&all.slice(q, q + 1)));
            some
        };
        Queries {
            given: Held::Own(pick(self.given())),
            taken: self.taken.as_ref().map(|taken| pick(taken.view())),
            norms: places.iter().map(|&q| self.norms[q]).collect(),
            vanishing: self.vanishing,
        }
    }
}

/// The queries, each scaled by the power of two that brings its length to between 1/4 and 1/2: the cosine stays what it was,
/// no sum of products with a row overflows, and none with an ordinary row vanishes.
fn scaled_to_unit(queries: &RowsView<'_>, norms: &mut [f32]) -> RowBuf {
    let dim = queries.dim();
    let mut floats = vec![0.0f32; queries.rows() * dim];
    let begin = || vec![0.0f64; dim];
    threads::each_with(64, floats.chunks_exact_mut(dim).zip(norms).enumerate(), begin, |wide, (q, (query, norm))| {
        queries.row_f64(q, wide);
        let (largest, squares) = scaled_square(wide);
        if largest > 0.0 {
            let exponent = (largest.log2() + squares.log2() / 2.0).floor() as i32 + 2;
            // One power of two may be past f64, so two steps.
            let (a, b) = (exponent / 2, exponent - exponent / 2);
            wide.iter_mut().for_each(|x| *x = *x * f64::powi(2.0, -a) * f64::powi(2.0, -b));
            query.iter_mut().zip(&*wide).for_each(|(x, &y)| *x = y as f32);
            *norm = length(query) as f32;
        }
    });
    RowBuf::of(&floats, dim)
}

/// The bits of a filter and of removed rows, as engines take them.
pub(crate) struct MaskBits<'a> {
    words: Cow<'a, [u32]>,
    stride: usize,
    /// The name of bits that many searches share.
    tag: Option<&'a Tag>,
}

impl<'a> MaskBits<'a> {
    /// Absent when every row may be returned to every query.
    pub fn new(
        roster: &'a Roster,
        filter: Option<&Filter>,
        queries: usize,
    ) -> Result<Option<MaskBits<'a>>, SearchError> {
        let with_live = |mut bits: Bitmap| {
            if let Some(live) = roster.live() {
                bits.and(live);
            }
            bits
        };
        let spread = |bits: &Bitmap| -> Result<Bitmap, SearchError> {
            if bits.state() != 0 && bits.state() != roster.state() {
                return Err(SearchError::FilterStale);
            }
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
                Some(live) => {
                    let (words, tag) = (Cow::Borrowed(live.words()), Some(roster.live_tag()));
                    return Ok(Some(MaskBits { words, stride: 0, tag }));
                }
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
        let words = bitmaps.iter().flat_map(|b| b.words()).copied().collect();
        Ok(Some(MaskBits { words, stride, tag: None }))
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
        Mask { words: &self.words, stride: self.stride, tag: self.tag }
    }

    fn pick<'b>(&'b self, places: &[usize]) -> MaskBits<'b> {
        if self.stride == 0 {
            return MaskBits { words: Cow::Borrowed(&self.words), stride: 0, tag: self.tag };
        }
        let row = |&q: &usize| self.words[q * self.stride..(q + 1) * self.stride].iter().copied();
        MaskBits { words: places.iter().flat_map(row).collect(), stride: self.stride, tag: None }
    }
}

/// Candidates that are found beyond the neighbours at most, before all rows are looked through.
const MOST_SPARE: usize = 1024;

/// Steps of a search on the host.
const REFINE: &str = "refine on the host";
const DECIDE: &str = "decide";

/// The checked input of a search.
pub(crate) struct Search<'a> {
    pub engine: &'a Engine,
    /// The CPU, which codes rows and queries.
    pub host: &'a Engine,
    pub store: &'a Store,
    pub queries: Queries<'a>,
    pub mask: Option<MaskBits<'a>>,
}

impl Search<'_> {
    fn extent(&self) -> Extent {
        let view = self.store.view();
        Extent {
            metric: self.store.metric(),
            dtype: view.dtype(),
            dim: view.dim(),
            rows: view.rows(),
            queries: self.queries.len(),
        }
    }

    fn planner(&self) -> Planner<'_> {
        Planner::new(self.engine)
    }

    fn asked(&self, k: usize) -> Asked {
        Asked {
            extent: self.extent(),
            k: self.places(k),
            provable: self.provable(),
            codes: self.store.asked_enough_for_codes(),
        }
    }

    /// As many neighbours as there are rows, at most.
    fn places(&self, k: usize) -> usize {
        k.min(self.store.slots()).max(1)
    }

    /// The inputs of a program: rows, queries, mask, and codes of both.
    fn batch<'b>(&'b self, codes: Option<Coded<'b>>) -> Batch<'b> {
        let queries = Vectors { rows: self.queries.view(), norms: Some(&self.queries.norms), tag: None };
        let mask = self.mask.as_ref().map(|mask| mask.mask());
        Batch { metric: self.store.metric(), rows: self.store.base(), queries, mask, codes }
    }

    /// The program of a search for `k` neighbours out of `wide` candidates, over the inputs of `batch` and two functions: the
    /// one that refines candidates in host memory, where that is done, and the one that decides in f64.
    fn program(&self, batch: &Batch<'_>, [k, wide]: [usize; 2], screen: Screen) -> Result<Program, EngineError> {
        let extent = self.extent();
        let dim = batch.codes.map_or(extent.dim.next_multiple_of(32), |coded| coded.codes.dim);
        let mut program = Program::new();
        let (pairs, codes) = batch.declare(&mut program)?;
        let keep = kept(k, screen, extent.rows).max(wide);
        let wanted = Some(Wanted { k, longest: self.store.longest() });
        let search = ops::Search { pairs, screen, keep, codes, wanted };
        let best = match self.planner().refines_on_host(&extent, screen, dim, k) {
            false => ops::search::chosen(&mut program, search, wide)?,
            true => {
                let found = program.push(search)?;
                let function = program.input(Type::Function);
                let refined = program.push(Host {
                    what: REFINE,
                    function,
                    operands: vec![found],
                    gives: Type::Candidates { queries: extent.queries, width: keep },
                    cost: ops::refine::cost(&extent, keep),
                })?;
                program.push(SelectK { from: refined, k: wide })?
            }
        };
        let function = program.input(Type::Function);
        let numbers = (extent.queries * wide) as f64;
        let cost = Cost { bytes_read: 8.0 * numbers, operations: 40.0 * numbers, ..Cost::default() };
        let gives = Type::Candidates { queries: extent.queries, width: k };
        let decided = program.push(Host { what: DECIDE, function, operands: vec![best], gives, cost })?;
        program.output(decided);
        Ok(program)
    }

    /// The program of a search for `k` neighbours: the very one that runs, unless codes are yet to be made.
    pub fn explain(&self, k: usize, screen: Option<Screen>) -> Result<Program, SearchError> {
        let wide = self.places(k.saturating_add(spare(k)));
        let places = [k, wide];
        let screen = self.planner().screen(&self.asked(k), screen)?;
        let coding = self.store.fresh_codes().filter(|_| screen == Screen::Int8);
        match (screen, coding) {
            (Screen::Int8, None) => Ok(self.extent().nearest(wide, screen)?),
            (_, coding) => {
                let queries = match &coding {
                    Some(coding) => Some(self.coded(coding, &mut SearchStats::default())?),
                    None => None,
                };
                let codes = coding.as_ref().zip(queries.as_ref());
                let codes = codes.map(|(c, queries)| Coded { codes: &c.codes, tag: &c.tag, queries });
                Ok(self.program(&self.batch(codes), places, screen)?)
            }
        }
    }

    async fn run(
        &self,
        places: [usize; 2],
        screen: Screen,
        coding: Option<&Coding>,
        stats: &mut SearchStats,
    ) -> Result<Candidates, EngineError> {
        let queries = coding.map(|coding| self.coded(coding, stats)).transpose()?;
        let codes = coding.zip(queries.as_ref());
        let codes = codes.map(|(coding, queries)| Coded { codes: &coding.codes, tag: &coding.tag, queries });
        let batch = self.batch(codes);
        let program = self.program(&batch, places, screen)?;
        let refine = |frame: &Frame<'_>, operands: &[Value], stats: &mut SearchStats| {
            self.refine_on_host(frame, operands, stats)
        };
        let all = self.allowed();
        let decide = |frame: &Frame<'_>, operands: &[Value], _: &mut SearchStats| {
            let [found] = operands else { return Err(mismatch("one operand is decided")) };
            Ok(Output::Candidates(self.decider().nearest(frame.candidates(*found)?, places[0], &all)))
        };
        let mut inputs = batch.inputs();
        if program.operations().any(|(_, op)| matches!(op, Op::Host(host) if host.what == REFINE)) {
            inputs.push(Input::Function(&refine));
        }
        inputs.push(Input::Function(&decide));
        candidates(ops::running(self.engine, &program, &inputs, stats).await?)
    }

    /// Rows that each query may find; one number where it is the same for all.
    fn allowed(&self) -> Vec<usize> {
        match &self.mask {
            Some(mask) => mask.allowed(self.queries.len()),
            None => vec![self.store.slots()],
        }
    }

    fn decider(&self) -> Decider<'_> {
        Decider::of(self.store, &self.queries)
    }

    /// The direct keys of candidates of the engine, from the rows where they lie.
    fn refine_on_host(
        &self,
        frame: &Frame<'_>,
        operands: &[Value],
        stats: &mut SearchStats,
    ) -> Result<Output, EngineError> {
        let [found] = operands else { return Err(mismatch("one operand is refined")) };
        let found = frame.candidates(*found)?;
        let batch = Batch { mask: None, ..self.batch(None) };
        let mut program = Program::new();
        let (pairs, _) = batch.declare(&mut program)?;
        let given = Input::Positions { positions: &found.positions, width: found.width };
        let candidates_given = program.input(given.ty()?);
        let refined = program.push(Refine { pairs, candidates: candidates_given })?;
        program.output(refined);
        let mut inputs = batch.inputs();
        inputs.push(given);
        let mut done = SearchStats::default();
        let refined = ops::run(self.host, &program, &inputs, &mut done)?;
        // The device is still the one that searched, and the time is that of the whole step.
        stats.merge(&SearchStats { device: String::new(), stages: Vec::new(), ..done });
        Ok(Output::Candidates(Candidates { bound: found.bound.clone(), ..candidates(refined)? }))
    }

    /// The queries in the code of the rows.
    fn coded(&self, coding: &Coding, stats: &mut SearchStats) -> Result<QueryCodes, EngineError> {
        let began = Instant::now();
        let RowsView::F32(queries) = self.queries.view() else { return Err(mismatch("packed bits have no codes")) };
        let queries = coding.coder.queries(self.host, queries, &self.queries.norms)?;
        stats.add_stage(Stage::ENCODE, began.elapsed(), false);
        Ok(queries)
    }

    /// The codes of all rows, for a screen that wants them. None when they can't be had now: somebody else is making them,
    /// or there is no memory for them.
    fn codes(&self, screen: Screen, stats: &mut SearchStats) -> Option<Arc<Coding>> {
        if screen != Screen::Int8 {
            return None;
        }
        let began = Instant::now();
        let coding = self.store.current_codes(self.host).ok().flatten();
        stats.add_stage(Stage::ENCODE, began.elapsed(), false);
        coding
    }

    /// Whether the engine will search behind codes once there are some.
    pub fn would_code(&self, k: usize) -> bool {
        let asked = Asked { codes: true, ..self.asked(k) };
        self.planner().screen(&asked, None).is_ok_and(|screen| screen == Screen::Int8)
    }

    fn provable(&self) -> bool {
        self.store.norms_in_range() && self.queries.norms.iter().all(|&n| norm_in_range(n))
    }

    /// The `k` nearest rows of each query: `[queries, k]`, exact.
    pub async fn nearest(
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
        self.decided(k, spare(k), screen, stats).await
    }

    /// The `k` nearest of each query, out of `spare` more candidates.
    async fn decided(
        &self,
        k: usize,
        spare: usize,
        screen: Option<Screen>,
        stats: &mut SearchStats,
    ) -> Result<Candidates, SearchError> {
        let wide = self.places(k.saturating_add(spare));
        let mut screen = self.planner().screen(&self.asked(k), screen)?;
        let (mut answer, screen) = loop {
            let coding = self.codes(screen, stats);
            if coding.is_none() && screen == Screen::Int8 {
                screen = self.planner().screen(&self.asked(k), Some(Screen::F32))?;
            }
            match (self.run([k, wide], screen, coding.as_deref(), stats).await, after(screen)) {
                // Such as a kernel of the screen that failed its self-test: the next one decides just as well.
                (Err(EngineError::Unsupported(why)), Some(next)) => {
                    stats.fallback.get_or_insert(format!("no screen of {screen}: {why}"));
                    screen = self.planner().screen(&self.asked(k), Some(next))?;
                }
                (found, _) => break (found?, screen),
            }
        };
        let unproven: Vec<usize> = (0..answer.bound.len()).filter(|&q| answer.bound[q] < f32::INFINITY).collect();
        if screen != Screen::None {
            stats.proven += (self.queries.len() - unproven.len()) as u64;
        }
        if !unproven.is_empty() {
            // A screen of more bits first: it excludes nearly all that can be excluded. Then more candidates, then all rows.
            match after(screen) {
                Some(next) => {
                    // Without a screen it is the direct pass that answers.
                    stats.fell_back += self.again(&unproven, k, spare, next, &mut answer, stats).await?;
                }
                None if spare < MOST_SPARE && wide < self.store.slots() => {
                    self.again(&unproven, k, MOST_SPARE, Screen::None, &mut answer, stats).await?;
                }
                None => self.scan(&unproven, k, &mut answer, stats)?,
            }
        }
        answer.bound.clear();
        Ok(answer)
    }

    /// Answers the queries at `places` from the exact keys of all rows.
    fn scan(
        &self,
        places: &[usize],
        k: usize,
        answer: &mut Candidates,
        stats: &mut SearchStats,
    ) -> Result<(), SearchError> {
        let (decider, began) = (self.decider(), Instant::now());
        for &q in places {
            threads::check().map_err(EngineError::from)?;
            let mask = self.mask.as_ref().map(|mask| mask.mask());
            let allowed = |row: usize| mask.is_none_or(|mask| mask.allows(q, row));
            let (keys, positions) = decider.scan(q, k, &allowed);
            let there = q * k..q * k + keys.len();
            answer.keys[there.clone()].copy_from_slice(&keys);
            answer.positions[there].copy_from_slice(&positions);
            stats.scanned += self.store.slots() as u64;
        }
        stats.decided_by_scan += places.len() as u64;
        stats.add_stage("scan in f64", began.elapsed(), false);
        Ok(())
    }

    /// Answers the queries at `places` behind another screen; gives how many of them went without one.
    async fn again(
        &self,
        places: &[usize],
        k: usize,
        spare: usize,
        screen: Screen,
        answer: &mut Candidates,
        stats: &mut SearchStats,
    ) -> Result<u64, SearchError> {
        let again = Search {
            engine: self.engine,
            host: self.host,
            store: self.store,
            queries: self.queries.pick(places),
            mask: self.mask.as_ref().map(|m| m.pick(places)),
        };
        // For few queries packing rows for a screen costs more than it saves.
        let pays = screen != Screen::None && again.planner().pays(&again.extent(), again.places(k), screen);
        let screen = if pays { screen } else { Screen::None };
        let found = Box::pin(again.decided(k, spare, Some(screen), stats)).await?;
        for (i, &q) in places.iter().enumerate() {
            answer.keys[q * k..(q + 1) * k].copy_from_slice(&found.keys[i * k..(i + 1) * k]);
            answer.positions[q * k..(q + 1) * k].copy_from_slice(&found.positions[i * k..(i + 1) * k]);
        }
        Ok(if screen == Screen::None { places.len() as u64 } else { 0 })
    }

    /// Every row within `radius`, as users see it.
    pub async fn within(&self, radius: f32, stats: &mut SearchStats) -> Result<RangeHits, SearchError> {
        if self.queries.len() == 0 || self.store.slots() == 0 {
            stats.device = self.engine.name();
            return Ok(RangeHits { offsets: vec![0; self.queries.len() + 1], ..RangeHits::default() });
        }
        let metric = self.store.metric();
        // `external` is its own inverse.
        let key = f64::from(metric.external(radius));
        let decider = self.decider();
        let slack = decider.slack(key);
        let wide = ((key + slack) as f32).next_up();
        if !wide.is_finite() || !slack.is_finite() {
            return self.scan_within(key, stats);
        }
        let batch = self.batch(None);
        let program = batch.one(|pairs, _| ops::Range { pairs, key: wide })?;
        let Output::Range { offsets, keys, positions } =
            ops::running(self.engine, &program, &batch.inputs(), stats).await?
        else {
            return Err(mismatch("a range plan gave no hits").into());
        };
        let began = Instant::now();
        let spans = offsets.windows(2).map(|span| span[0] as usize..span[1] as usize);
        let decided = threads::map(1, spans.collect::<Vec<_>>().into_iter().enumerate(), |(q, span)| {
            decider.within(q, key, &keys[span.clone()], &positions[span])
        });
        stats.add_stage(DECIDE, began.elapsed(), false);
        Ok(self.hits(decided))
    }

    /// Hits of each query, as users see them.
    fn hits(&self, all: Vec<(Vec<f32>, Vec<u32>)>) -> RangeHits {
        let mut hits = RangeHits { offsets: vec![0], ..RangeHits::default() };
        for (keys, positions) in all {
            hits.ids.extend(positions.into_iter().map(|p| self.store.roster().id(p)));
            hits.distances.extend(keys.into_iter().map(|key| self.store.metric().external(key)));
            hits.offsets.push(hits.ids.len() as u64);
        }
        hits
    }

    /// The rows within a radius by the exact keys of all rows, where f32 keys may overflow.
    fn scan_within(&self, key: f64, stats: &mut SearchStats) -> Result<RangeHits, SearchError> {
        let (decider, mut all) = (self.decider(), Vec::new());
        for q in 0..self.queries.len() {
            threads::check().map_err(EngineError::from)?;
            let mask = self.mask.as_ref().map(|mask| mask.mask());
            let allowed = |row: usize| mask.is_none_or(|mask| mask.allows(q, row));
            all.push(decider.scan_within(q, key, &allowed));
        }
        stats.device = self.engine.name();
        stats.decided_by_scan += self.queries.len() as u64;
        Ok(self.hits(all))
    }
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
