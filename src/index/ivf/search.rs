//! Searching an `Ivf`: the lists of the nearest centroids, their best rows, and a better ranking of those.

use std::time::Instant;

use super::super::SearchOptions;
use super::super::search::{MaskBits, Queries, Search, candidates};
use super::super::store::Store;
use super::{Ivf, Kept};
use crate::codec::transform::Projected;
use crate::engine::{Base, Candidates, Device, Input, Listed, Task};
use crate::error::SearchError;
use crate::kernels::lists::{Form, Prepared, Probes};
use crate::kernels::search::norm_in_range;
use crate::linalg::lengths;
use crate::plan::{Plan, Problem, Screen, Step};
use crate::stats::SearchStats;
use crate::types::{BitsView, DType, Filter, MatrixView, Metric, Neighbors, RangeHits, RowsView};

/// Queries that are searched at a time.
const BATCH: usize = 4096;

/// Rows allowed by a filter that are rather looked at one by one than through the lists.
const FEW: usize = 2048;

/// What a scan of lists gave.
pub(super) struct Scanned {
    /// Slots of lists with estimated keys, the smallest first.
    pub found: Candidates,
    /// `[queries, probes]` lists and what they add to keys.
    pub lists: Vec<u32>,
    pub offsets: Vec<f32>,
    pub probes: usize,
    /// Queries after all transforms.
    pub queries: Vec<f32>,
    /// Whether all candidates are to be ranked, or only those that the codes' bound does not exclude.
    pub all: bool,
}

impl Ivf {
    /// Queries, checked, as what is kept of rows is compared with them.
    pub(super) fn checked<'a>(&self, queries: RowsView<'a>) -> Result<Queries<'a>, SearchError> {
        let dtype = if self.spec.binary { DType::Bits } else { DType::F32 };
        Queries::new(self.metric, dtype, self.dim, queries)
    }

    /// The lists that a search looks at.
    pub(super) fn probes_of(&self, options: &SearchOptions) -> usize {
        match &self.coarse {
            Some(coarse) => options.probes.unwrap_or(self.settings.probes).clamp(1, coarse.slots().max(1)),
            None => self.lists.lists.len(),
        }
    }

    /// How many candidates are ranked again for the `k` nearest.
    pub(super) fn keep_of(&self, k: usize, options: &SearchOptions) -> usize {
        let chosen = options.rerank.or(self.settings.rerank).map(|r| r.max(k));
        let keep = match (self.lists.form, &self.kept) {
            // The keys are what a ranking would compute again.
            (form, Kept::Ids(_)) if form.is_exact() => k,
            (_, Kept::Ids(_)) => chosen.unwrap_or(k.saturating_add(k / 2 + 8)),
            (form, _) => chosen.unwrap_or_else(|| {
                let times = match form {
                    Form::Rows(_) | Form::Bits => 2,
                    Form::Integers(8) => 3,
                    Form::Integers(4..8) => 4,
                    Form::Integers(3) => 6,
                    Form::Integers(2) => 8,
                    Form::Integers(_) => 16,
                    Form::Parts(_) => 10,
                };
                k.saturating_mul(times).saturating_add(10)
            }),
        };
        keep.min(self.lists.slots()).max(1)
    }

    /// The best `keep` rows in the lists nearest to each query.
    pub(super) fn scan(
        &self,
        queries: &Queries<'_>,
        probes: usize,
        keep: usize,
        mask: Option<&MaskBits>,
        stats: &mut SearchStats,
    ) -> Result<Scanned, SearchError> {
        let (q, began) = (queries.len(), Instant::now());
        let Projected { rows: floats, lost } = match queries.view() {
            RowsView::F32(_) => self.transform.apply(&queries.view()),
            _ => Projected::default(),
        };
        stats.add_stage("transform", began.elapsed(), false);
        let (lists, mut offsets) = self.nearest_lists(queries, &floats, probes, stats)?;
        if self.inner() == Metric::L2 {
            // What a projection drops of a query is length that its distances still have.
            for (offsets, lost) in offsets.chunks_mut(probes.max(1)).zip(&lost) {
                offsets.iter_mut().for_each(|o| *o += lost);
            }
        }
        let began = Instant::now();
        let prepared = match queries.view() {
            RowsView::Bits(bits) => self.packed(bits),
            _ => self.codec.queries(self.inner(), self.projected(&floats)?),
        };
        stats.add_stage("encode", began.elapsed(), false);
        let form = self.lists.form;
        let step = Step::Scan { form, probes, lists: self.lists.lists.len(), keep };
        let problem = Problem {
            metric: self.inner(),
            dtype: DType::F32,
            dim: self.lists.dim,
            rows: self.lists.rows(),
            queries: q,
        };
        let plan = Plan::one(problem, step);
        let nothing = RowsView::F32(MatrixView::new(&[], self.lists.dim).map_err(|_| SearchError::ZeroK)?);
        let listed = Listed {
            lists: &self.lists,
            tag: &self.tag,
            queries: &prepared,
            probes: Probes { width: probes, lists: &lists, offsets: &offsets },
        };
        let task = Task {
            plan: &plan,
            base: Base { rows: nothing, norms: None, tag: None, codes: None },
            queries: nothing,
            query_norms: &[],
            mask: mask.map(MaskBits::mask),
            input: Input::Lists(listed),
        };
        let found = candidates(self.device.engine.run(&task, stats)?)?;
        Ok(Scanned { found, lists, offsets, probes, queries: floats, all: true })
    }

    fn projected<'a>(&self, floats: &'a [f32]) -> Result<MatrixView<'a, f32>, SearchError> {
        let wanted = self.codec.dim();
        MatrixView::new(floats, wanted).map_err(|_| SearchError::Dim { wanted, found: floats.len() })
    }

    /// Packed queries as whole words.
    fn packed(&self, bits: BitsView<'_>) -> Prepared {
        let words = self.lists.form.words(self.lists.dim);
        let mut out = vec![0u32; bits.rows() * words];
        for (r, row) in out.chunks_exact_mut(words).enumerate() {
            let bytes: &mut [u8] = bytemuck::cast_slice_mut(row);
            bytes[..bits.dim() / 8].copy_from_slice(bits.row(r));
        }
        Prepared { queries: bits.rows(), bits: out, ..Prepared::default() }
    }

    /// The lists of the nearest centroids of each query, and what each adds to keys: `[queries, probes]`.
    fn nearest_lists(
        &self,
        queries: &Queries<'_>,
        floats: &[f32],
        probes: usize,
        stats: &mut SearchStats,
    ) -> Result<(Vec<u32>, Vec<f32>), SearchError> {
        let q = queries.len();
        let Some(coarse) = &self.coarse else {
            let lists = (0..q).flat_map(|_| 0..probes as u32).collect();
            return Ok((lists, self.offsets_about_zero(q, floats, probes)));
        };
        let began = Instant::now();
        let view = match queries.view() {
            RowsView::Bits(bits) => RowsView::Bits(bits),
            _ => RowsView::F32(self.projected(floats)?),
        };
        let norms =
            lengths(&view).map_err(|(query, component, value)| SearchError::NotFinite { query, component, value })?;
        let problem = Problem {
            metric: coarse.metric(),
            dtype: coarse.dtype(),
            dim: coarse.dim(),
            rows: coarse.slots(),
            queries: q,
        };
        // Which lists are nearest is seen well enough behind the f32 screen; what they add to keys is computed directly.
        let near = [Step::Search { screen: Screen::F32, keep: probes }, Step::Refine, Step::SelectK { k: probes }];
        let screened = Plan { problem, steps: near.to_vec() };
        let direct = Plan::one(problem, Step::Search { screen: Screen::None, keep: probes });
        let provable = coarse.norms_in_range() && norms.iter().all(|&n| norm_in_range(n));
        let engine = &self.device.engine;
        let plan = if provable && engine.wants_screen(&screened) { screened } else { direct };
        let task = Task {
            plan: &plan,
            base: coarse.base(),
            queries: view,
            query_norms: &norms,
            mask: None,
            input: Input::None,
        };
        let found = candidates(engine.run(&task, &mut SearchStats::default())?)?;
        stats.add_stage("search", began.elapsed(), false);
        let offsets = if self.residual { found.keys } else { self.offsets_about_zero(q, floats, probes) };
        Ok((found.positions, offsets))
    }

    /// What lists add to keys whose codes are about no centroid.
    fn offsets_about_zero(&self, queries: usize, floats: &[f32], probes: usize) -> Vec<f32> {
        let square = |row: &[f32]| row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() as f32;
        match self.inner() {
            Metric::L2 => {
                let rows = floats.chunks_exact(self.codec.dim());
                rows.flat_map(|row| std::iter::repeat_n(square(row), probes)).collect()
            }
            _ => vec![0.0; queries * probes],
        }
    }

    /// Whether the rows themselves are looked through faster than the lists: many lists are asked for, or a filter leaves
    /// few rows.
    pub(super) fn flat_pays(&self, store: &Store, probes: usize, allowed: usize) -> bool {
        let lists = self.lists.lists.len().max(1);
        let scanned = store.slots() * probes / lists;
        (self.coarse.is_some() && 2 * probes >= lists) || allowed <= FEW.max(scanned / 4)
    }

    /// How far to look for a batch of queries.
    pub(super) fn reach(
        &self,
        queries: usize,
        options: &SearchOptions,
    ) -> Result<(Option<MaskBits>, Reach), SearchError> {
        let roster = self.kept.roster();
        let mask = MaskBits::new(roster, options.filter.as_ref(), queries)?;
        let allowed = match (&mask, &options.filter) {
            (Some(mask), Some(_)) => mask.allowed(queries),
            _ => vec![roster.len()],
        };
        let mut probes = self.probes_of(options);
        let most = allowed.iter().copied().max().unwrap_or(0);
        let flat = matches!(&self.kept, Kept::Rows(store) if self.flat_pays(store, probes, most));
        if options.filter.is_some() {
            // The k nearest of few rows lie further away than those of all, so in more lists.
            let least = allowed.iter().copied().min().unwrap_or(0);
            let share = least.max(1) as f64 / roster.len().max(1) as f64;
            probes = ((probes as f64 / share.sqrt()).ceil() as usize).min(self.lists.lists.len());
        }
        Ok((mask, Reach { probes, allowed, flat }))
    }

    /// The answer for a batch of checked queries.
    fn nearest(
        &self,
        queries: Queries<'_>,
        k: usize,
        options: &SearchOptions,
        stats: &mut SearchStats,
    ) -> Result<Candidates, SearchError> {
        let (q, roster) = (queries.len(), self.kept.roster());
        if q == 0 || roster.len() == 0 {
            stats.device = self.device.engine.name();
            return Ok(Candidates::places(q, k)?);
        }
        let (mask, reach) = self.reach(q, options)?;
        if let (Kept::Rows(store), true) = (&self.kept, reach.flat) {
            let Device { engine, host, .. } = &self.device;
            let search = Search { engine: &**engine, host: &**host, store, queries, mask };
            // For rows that a filter leaves, one by one; for all of them as fast as it goes.
            let screen = if options.filter.is_some() { Some(Screen::None) } else { options.screen };
            return search.nearest(k, screen, stats);
        }
        let Reach { probes, allowed, .. } = reach;
        let keep = self.keep_of(k, options);
        let mut scanned = self.scan(&queries, probes, keep, mask.as_ref(), stats)?;
        scanned.all = options.rerank.or(self.settings.rerank).is_some();
        let answer = self.rank(&queries, &scanned, k, stats)?;
        let wanted = |i: usize| k.min(if allowed.len() == 1 { allowed[0] } else { allowed[i] });
        let short =
            (0..q).any(|i| answer.positions[i * k..(i + 1) * k].iter().filter(|&&p| p != u32::MAX).count() < wanted(i));
        if options.filter.is_some() && short && probes < self.lists.lists.len() {
            let scanned = self.scan(&queries, self.lists.lists.len(), keep, mask.as_ref(), stats)?;
            return self.rank(&queries, &scanned, k, stats);
        }
        Ok(answer)
    }

    /// All rows within a radius of each query, of those in the lists looked at.
    fn within(
        &self,
        queries: Queries<'_>,
        radius: f32,
        options: &SearchOptions,
        stats: &mut SearchStats,
    ) -> Result<RangeHits, SearchError> {
        let (q, roster) = (queries.len(), self.kept.roster());
        if q == 0 || roster.len() == 0 {
            return Ok(RangeHits { offsets: vec![0; q + 1], ..RangeHits::default() });
        }
        let (mask, reach) = self.reach(q, options)?;
        if let (Kept::Rows(store), true) = (&self.kept, reach.flat) {
            let Device { engine, host, .. } = &self.device;
            return Search { engine: &**engine, host: &**host, store, queries, mask }.within(radius, stats);
        }
        // `external` is its own inverse.
        let key = self.metric.external(radius);
        let most = self.lists.slots().max(1);
        let mut keep = 256.min(most);
        loop {
            let scanned = self.scan(&queries, reach.probes, keep, mask.as_ref(), stats)?;
            let ranked = self.rank(&queries, &scanned, keep, stats)?;
            let within = |i: &usize| ranked.positions[*i] != u32::MAX && ranked.keys[*i] <= key;
            let hits = |q: usize| (q * keep..(q + 1) * keep).filter(within);
            // Where the farther three quarters of the candidates hold no hit, none is expected beyond.
            if keep == most || (0..q).all(|q| 4 * hits(q).count() <= keep) {
                let mut all = RangeHits { offsets: vec![0], ..RangeHits::default() };
                for q in 0..q {
                    all.ids.extend(hits(q).map(|i| roster.id(ranked.positions[i])));
                    all.distances.extend(hits(q).map(|i| self.metric.external(ranked.keys[i])));
                    all.offsets.push(all.ids.len() as u64);
                }
                return Ok(all);
            }
            keep = keep.saturating_mul(4).min(most);
        }
    }
}

/// How far a search looks.
pub(super) struct Reach {
    pub probes: usize,
    /// Rows that may be returned to each query; one number where it is the same for all.
    pub allowed: Vec<usize>,
    /// Whether the rows themselves are looked through instead.
    pub flat: bool,
}

impl Ivf {
    /// [`Index::search_with`].
    pub(in crate::index) fn find(
        &self,
        queries: RowsView<'_>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<(Neighbors, SearchStats), SearchError> {
        let _entered = self.device.enter();
        if k == 0 {
            return Err(SearchError::ZeroK);
        }
        let mut stats = SearchStats::default();
        let q = queries.rows();
        let mut all = Candidates { width: k, ..Candidates::default() };
        for start in (0..q).step_by(BATCH) {
            let end = q.min(start + BATCH);
            let part = part_of(options, start, end, q)?;
            let some = self.checked(queries.slice(start, end)).map_err(|e| e.shifted(start))?;
            let found = self.nearest(some, k, part.as_ref().unwrap_or(options), &mut stats)?;
            all.keys.extend(found.keys);
            all.positions.extend(found.positions);
        }
        Ok((self.kept.roster().neighbors(self.metric, q, &all), stats))
    }

    /// [`Index::range_search_with`].
    pub(in crate::index) fn find_within(
        &self,
        queries: RowsView<'_>,
        radius: f32,
        options: &SearchOptions,
    ) -> Result<(RangeHits, SearchStats), SearchError> {
        let _entered = self.device.enter();
        if radius.is_nan() {
            return Err(SearchError::Radius { found: radius });
        }
        let mut stats = SearchStats::default();
        let q = queries.rows();
        let mut hits = RangeHits { offsets: vec![0], ..RangeHits::default() };
        for start in (0..q).step_by(BATCH) {
            let end = q.min(start + BATCH);
            let part = part_of(options, start, end, q)?;
            let some = self.checked(queries.slice(start, end)).map_err(|e| e.shifted(start))?;
            let found = self.within(some, radius, part.as_ref().unwrap_or(options), &mut stats)?;
            let before = hits.ids.len() as u64;
            hits.offsets.extend(found.offsets.iter().skip(1).map(|o| before + o));
            hits.ids.extend(found.ids);
            hits.distances.extend(found.distances);
        }
        Ok((hits, stats))
    }
}

/// The options for some of the queries, where a filter has something for each of them.
fn part_of(
    options: &SearchOptions,
    start: usize,
    end: usize,
    queries: usize,
) -> Result<Option<SearchOptions>, SearchError> {
    match &options.filter {
        Some(Filter::RowsPerQuery(all)) if all.len() != queries => {
            Err(SearchError::FilterCount { wanted: queries, found: all.len() })
        }
        Some(Filter::RowsPerQuery(all)) if end - start < queries => {
            let filter = Some(Filter::RowsPerQuery(all[start..end].to_vec()));
            Ok(Some(SearchOptions { filter, ..options.clone() }))
        }
        _ => Ok(None),
    }
}
