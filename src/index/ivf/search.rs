//! Searching an `Ivf`: the lists of the nearest centroids, their best rows, and re-ranking of those.

use super::super::SearchOptions;
use super::super::search::{MaskBits, Queries, Search};
use super::super::store::Store;
use super::program::Look;
use super::{Ivf, Kept, Rerank};
use crate::compute::Candidates;
use crate::error::SearchError;
use crate::ops::lists::Form;
use crate::ops::{Engine, Screen};
use crate::stats::SearchStats;
use crate::types::{DType, Filter, Neighbors, RangeHits, RowsView};

/// Queries that are searched at a time.
const BATCH: usize = 4096;

/// Rows allowed by a filter that are compared one by one, not through the lists.
const FEW: usize = 2048;

impl Ivf {
    /// Queries, checked, as what is kept of rows is compared with them.
    pub(super) fn checked<'a>(&self, queries: RowsView<'a>) -> Result<Queries<'a>, SearchError> {
        let dtype = if self.spec.binary { DType::Bits } else { DType::F32 };
        Queries::new(self.metric, dtype, self.dim, queries)
    }

    /// The lists that a search probes.
    pub(super) fn probes_of(&self, options: &SearchOptions) -> usize {
        match &self.coarse {
            Some(coarse) => options.probes.unwrap_or(self.settings.probes).clamp(1, coarse.slots().max(1)),
            None => self.lists.lists.len(),
        }
    }

    /// How many candidates are re-ranked for the `k` nearest.
    pub(super) fn keep_of(&self, k: usize, options: &SearchOptions) -> usize {
        let chosen = options.rerank.or(match self.settings.rerank {
            Rerank::Auto => None,
            Rerank::Rows(rows) => Some(rows),
            Rerank::Times(factor) => Some((k as f32 * factor) as usize),
        });
        let chosen = chosen.map(|rows| rows.max(k));
        let keep = match (self.lists.form, &self.kept) {
            // The keys are those that re-ranking would compute.
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

    /// Whether the rows themselves are looked through faster than the lists: many lists are asked for, or a filter leaves
    /// few rows.
    pub(super) fn flat_pays(&self, store: &Store, probes: usize, allowed: usize) -> bool {
        let lists = self.lists.lists.len().max(1);
        let scanned = store.slots() * probes / lists;
        (self.coarse.is_some() && 2 * probes >= lists) || allowed <= FEW.max(scanned / 4)
    }

    /// The reach of a batch of queries.
    pub(super) fn reach(
        &self,
        queries: usize,
        options: &SearchOptions,
    ) -> Result<(Option<MaskBits<'_>>, Reach), SearchError> {
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

    /// Whether all candidates are re-ranked, since the caller says how many, or only those that the codes' bound leaves.
    pub(super) fn ranks_all(&self, options: &SearchOptions) -> bool {
        options.rerank.is_some() || self.settings.rerank != Rerank::Auto
    }

    /// The answer for a batch of checked queries.
    async fn nearest(
        &self,
        engine: &Engine,
        queries: Queries<'_>,
        k: usize,
        options: &SearchOptions,
        stats: &mut SearchStats,
    ) -> Result<Candidates, SearchError> {
        let (q, roster) = (queries.len(), self.kept.roster());
        if q == 0 || roster.len() == 0 {
            stats.device = engine.name();
            return Ok(Candidates::places(q, k)?);
        }
        let (mask, reach) = self.reach(q, options)?;
        if let (Kept::Rows(store), true) = (&self.kept, reach.flat) {
            let search = Search { engine, host: &*self.device.host, store, queries, mask };
            // For rows that a filter leaves, one by one; for all of them as fast as it goes.
            let screen = if options.filter.is_some() { Some(Screen::None) } else { options.screen };
            return search.nearest(k, screen, stats).await;
        }
        let Reach { probes, allowed, .. } = reach;
        let look = Look { engine, probes, keep: self.keep_of(k, options), k, all: self.ranks_all(options) };
        let answer = self.look(&queries, mask.as_ref(), look, stats).await?;
        let wanted = |i: usize| k.min(if allowed.len() == 1 { allowed[0] } else { allowed[i] });
        let short =
            (0..q).any(|i| answer.positions[i * k..(i + 1) * k].iter().filter(|&&p| p != u32::MAX).count() < wanted(i));
        if options.filter.is_some() && short && probes < self.lists.lists.len() {
            let look = Look { probes: self.lists.lists.len(), all: true, ..look };
            return self.look(&queries, mask.as_ref(), look, stats).await;
        }
        Ok(answer)
    }

    /// All rows within a radius of each query, of those in the probed lists.
    async fn within(
        &self,
        engine: &Engine,
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
            let search = Search { engine, host: &*self.device.host, store, queries, mask };
            return search.within(radius, stats).await;
        }
        // `external` is its own inverse.
        let key = self.metric.external(radius);
        let most = self.lists.slots().max(1);
        let mut keep = 256.min(most);
        loop {
            let look = Look { engine, probes: reach.probes, keep, k: keep, all: true };
            let ranked = self.look(&queries, mask.as_ref(), look, stats).await?;
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

/// The reach of a search.
pub(super) struct Reach {
    pub probes: usize,
    /// Rows that may be returned to each query; one number where it is the same for all.
    pub allowed: Vec<usize>,
    /// Whether the rows themselves are looked through instead.
    pub flat: bool,
}

impl Ivf {
    /// [`Index::search_async`] by this engine.
    pub(in crate::index) async fn find(
        &self,
        engine: &Engine,
        queries: RowsView<'_>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<(Neighbors, SearchStats), SearchError> {
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
            let found = self.nearest(engine, some, k, part.as_ref().unwrap_or(options), &mut stats).await?;
            all.keys.extend(found.keys);
            all.positions.extend(found.positions);
        }
        self.kept_rows().map_or(Ok(()), Store::check_unchanged)?;
        Ok((self.kept.roster().neighbors(self.metric, q, &all), stats))
    }

    /// [`Index::range_search_async`] by this engine.
    pub(in crate::index) async fn find_within(
        &self,
        engine: &Engine,
        queries: RowsView<'_>,
        radius: f32,
        options: &SearchOptions,
    ) -> Result<(RangeHits, SearchStats), SearchError> {
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
            let found = self.within(engine, some, radius, part.as_ref().unwrap_or(options), &mut stats).await?;
            let before = hits.ids.len() as u64;
            hits.offsets.extend(found.offsets.iter().skip(1).map(|o| before + o));
            hits.ids.extend(found.ids);
            hits.distances.extend(found.distances);
        }
        self.kept_rows().map_or(Ok(()), Store::check_unchanged)?;
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
