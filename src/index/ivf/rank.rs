//! The better ranking of what a scan found.

use std::time::Instant;

use super::super::search::{Queries, candidates};
use super::super::store::Store;
use super::search::Scanned;
use super::{Ivf, Kept};
use crate::codec::Codec;
use crate::engine::{Candidates, EngineError, Input, Task};
use crate::error::SearchError;
use crate::kernels::lists::{Lists, estimate};
use crate::plan::{Plan, Problem, Step};
use crate::stats::SearchStats;
use crate::threads;
use crate::types::{Metric, RowsView};

/// Queries that one thread ranks at least: fewer are not worth waking another.
const QUERIES_PER_THREAD: usize = 16;

/// Slots that one thread looks up at a time.
const SLOTS: usize = 1024;

impl Ivf {
    /// The best `k` of the candidates of each query by the best that is kept of rows: positions, and keys of the metric.
    pub(super) fn rank(
        &self,
        queries: &Queries<'_>,
        scanned: &Scanned,
        k: usize,
        stats: &mut SearchStats,
    ) -> Result<Candidates, SearchError> {
        let began = Instant::now();
        let mut positions = scanned.found.positions.clone();
        let position = |slot: &mut u32| *slot = self.lists.position(*slot);
        threads::each(1, positions.chunks_mut(SLOTS), |slots| slots.iter_mut().for_each(position));
        let mut keys = match &self.kept {
            Kept::Rows(store) if scanned.all || self.lists.error == 0.0 || self.inner() != Metric::L2 => {
                self.keys_of_rows(store, queries, &positions, scanned.found.width, stats)?
            }
            Kept::Rows(store) => self.keys_of_promising(store, queries, scanned, &positions, k, stats)?,
            Kept::Codes(_, lists, codec) => self.keys_of_better(lists, &**codec, queries, &positions)?,
            Kept::Ids(_) if self.lists.form.is_exact() => scanned.found.keys.clone(),
            Kept::Ids(_) => self.keys_of_codes(scanned)?,
        };
        if self.metric == Metric::Cosine && self.inner() == Metric::L2 && matches!(self.kept, Kept::Ids(_)) {
            let width = scanned.found.width;
            for (keys, &norm) in keys.chunks_mut(width).zip(&queries.norms) {
                // Between vectors of length 1; a query without direction has cosine 0 with every row.
                let cosine = |key: &mut f32| *key = if norm == 0.0 { 0.0 } else { *key / 2.0 - 1.0 };
                keys.iter_mut().filter(|key| key.is_finite()).for_each(cosine);
            }
        }
        let best = best(&keys, &positions, scanned.found.width, queries.len(), k)?;
        stats.add_stage("refine", began.elapsed(), false);
        Ok(best)
    }

    /// Direct keys of the first candidates, and of those others that the codes' bound does not exclude then.
    fn keys_of_promising(
        &self,
        store: &Store,
        queries: &Queries<'_>,
        scanned: &Scanned,
        positions: &[u32],
        k: usize,
        stats: &mut SearchStats,
    ) -> Result<Vec<f32>, EngineError> {
        let width = scanned.found.width;
        let first = (2 * k + 8).min(width);
        let mut some = positions.to_vec();
        some.chunks_mut(width).for_each(|row| row[first..].fill(u32::MAX));
        let mut keys = self.keys_of_rows(store, queries, &some, width, stats)?;
        let (mut sorted, mut left) = (Vec::new(), false);
        for (q, some) in some.chunks_mut(width).enumerate() {
            let row = q * width..(q + 1) * width;
            sorted.clear();
            sorted.extend_from_slice(&keys[row.start..row.start + first]);
            let (_, kth, _) = sorted.select_nth_unstable_by(k.min(first) - 1, f32::total_cmp);
            let limit = if self.metric == Metric::Cosine { 2.0 + 2.0 * *kth } else { *kth };
            some.fill(u32::MAX);
            for i in row.start + first..row.end {
                if self.least(scanned, q, i) <= limit {
                    some[i - row.start] = positions[i];
                    left |= positions[i] != u32::MAX;
                }
            }
        }
        if left {
            let more = self.keys_of_rows(store, queries, &some, width, stats)?;
            keys.iter_mut().zip(more).filter(|(_, m)| *m < f32::INFINITY).for_each(|(key, m)| *key = m);
        }
        Ok(keys)
    }

    /// What the key of candidate i, one of query q, is at least, as far as its code says.
    fn least(&self, scanned: &Scanned, q: usize, i: usize) -> f32 {
        let slot = scanned.found.positions[i];
        if slot == u32::MAX {
            return f32::INFINITY;
        }
        let (list, place) = self.lists.place(slot);
        let probed = q * scanned.probes..(q + 1) * scanned.probes;
        let rank = scanned.lists[probed.clone()].iter().position(|&l| l as usize == list).unwrap_or(0);
        let far = scanned.offsets[probed.start + rank].max(0.0).sqrt();
        let scale = self.lists.lists[list].scale.get(place).map_or(1.0, |s| s.abs());
        scanned.found.keys[i] - self.lists.error * scale * far
    }

    /// Direct keys from the rows, where they lie.
    fn keys_of_rows(
        &self,
        store: &Store,
        queries: &Queries<'_>,
        positions: &[u32],
        width: usize,
        stats: &mut SearchStats,
    ) -> Result<Vec<f32>, EngineError> {
        let view = store.view();
        let problem = Problem {
            metric: self.metric,
            dtype: view.dtype(),
            dim: view.dim(),
            rows: view.rows(),
            queries: queries.len(),
        };
        let plan = Plan::one(problem, Step::Refine);
        let task = Task {
            plan: &plan,
            base: store.base(),
            queries: queries.view(),
            query_norms: &queries.norms,
            mask: None,
            input: Input::Positions { positions, width },
        };
        let engine = if self.device.engine.refines(&task) { &self.device.engine } else { &self.device.host };
        let mut inner = SearchStats::default();
        let found = candidates(engine.run(&task, &mut inner)?)?;
        stats.refined += inner.refined;
        stats.bytes_read += inner.bytes_read;
        Ok(found.keys)
    }

    /// Keys from better codes of the rows as they were given.
    fn keys_of_better(
        &self,
        lists: &Lists,
        codec: &dyn Codec,
        queries: &Queries<'_>,
        positions: &[u32],
    ) -> Result<Vec<f32>, SearchError> {
        let RowsView::F32(view) = queries.view() else { return Ok(Vec::new()) };
        let (dim, width) = (self.dim, positions.len() / queries.len().max(1));
        let mut keys = vec![f32::INFINITY; positions.len()];
        let each = keys.chunks_mut(width.max(1)).zip(positions.chunks(width.max(1))).enumerate();
        threads::each_with(
            QUERIES_PER_THREAD,
            each,
            || (vec![0; lists.code_bytes()], vec![0.0; dim], vec![0.0; dim]),
            |(code, query, row), (q, (keys, positions))| {
                query.copy_from_slice(view.row(q));
                if self.metric == Metric::Cosine && queries.norms[q] > 0.0 {
                    query.iter_mut().for_each(|x| *x /= queries.norms[q]);
                }
                for (key, &position) in keys.iter_mut().zip(positions).filter(|(_, p)| **p != u32::MAX) {
                    // One list that holds all rows in order.
                    lists.code(0, position as usize, code);
                    codec.decode(code, 1.0, row);
                    *key = direct(self.metric, query, row);
                }
            },
        );
        Ok(keys)
    }

    /// Keys from the codes themselves, without the rounding of queries.
    fn keys_of_codes(&self, scanned: &Scanned) -> Result<Vec<f32>, SearchError> {
        let (width, dim, inner) = (scanned.found.width, self.codec.dim(), self.inner());
        let mut keys = vec![f32::INFINITY; scanned.found.keys.len()];
        threads::each_with(
            QUERIES_PER_THREAD,
            keys.chunks_mut(width).enumerate(),
            || vec![0; self.lists.code_bytes()],
            |code, (q, keys)| {
                let query = &scanned.queries[q * dim..(q + 1) * dim];
                let probed = q * scanned.probes..(q + 1) * scanned.probes;
                let slots = &scanned.found.positions[q * width..(q + 1) * width];
                for (key, &slot) in keys.iter_mut().zip(slots).filter(|(_, s)| **s != u32::MAX) {
                    let (list, place) = self.lists.place(slot);
                    let rank = scanned.lists[probed.clone()].iter().position(|&l| l as usize == list).unwrap_or(0);
                    let offset = scanned.offsets[probed.start + rank];
                    self.lists.code(list, place, code);
                    *key = whole(&self.lists, (list, place), offset, self.codec.product(inner, query, code));
                }
            },
        );
        Ok(keys)
    }
}

/// The key of a row from the product of query and code.
fn whole(lists: &Lists, (list, place): (usize, usize), offset: f32, product: f32) -> f32 {
    let terms = crate::kernels::lists::Terms { scale: 0.0, shift: product };
    estimate(&lists.lists[list], place, terms, offset, 0)
}

/// The key of two vectors by l2 or, of those of length 1 for cosine, by their product.
fn direct(metric: Metric, query: &[f32], row: &[f32]) -> f32 {
    // Partial sums let the compiler use vectors.
    let mut sums = [0.0f32; 16];
    for (query, row) in query.chunks(16).zip(row.chunks(16)) {
        for (sum, (q, x)) in sums.iter_mut().zip(query.iter().zip(row)) {
            *sum += if metric == Metric::L2 { (q - x) * (q - x) } else { -q * x };
        }
    }
    sums.iter().sum()
}

/// The `k` smallest (key, position) of each query.
fn best(keys: &[f32], positions: &[u32], width: usize, queries: usize, k: usize) -> Result<Candidates, EngineError> {
    let mut out = Candidates::places(queries, k)?;
    let places = out.keys.chunks_mut(k).zip(out.positions.chunks_mut(k)).enumerate();
    threads::each_with(QUERIES_PER_THREAD, places, Vec::new, |pairs, (q, (out_keys, out_positions))| {
        let range = q * width..(q + 1) * width;
        let all = keys[range.clone()].iter().copied().zip(positions[range].iter().copied());
        pairs.clear();
        let known = |key: f32| if key.is_nan() { f32::INFINITY } else { key };
        pairs.extend(all.filter(|&(_, p)| p != u32::MAX).map(|(key, p)| (known(key), p)));
        let order = |a: &(f32, u32), b: &(f32, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
        if pairs.len() > k {
            pairs.select_nth_unstable_by(k - 1, order);
            pairs.truncate(k);
        }
        pairs.sort_unstable_by(order);
        for (i, &(key, position)) in pairs.iter().enumerate() {
            (out_keys[i], out_positions[i]) = (key, position);
        }
    });
    Ok(out)
}
