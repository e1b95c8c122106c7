//! Re-ranking the candidates of a scan: the host operations of its program.

use super::Kept;
use super::program::Run;
use crate::compute::{Candidates, EngineError, Output};
use crate::ops::lists::{Lists, Probes, estimate};
use crate::threads;
use crate::types::{MatrixView, Metric, RowsView};

/// Queries that one thread ranks at least: fewer are not worth waking another.
const QUERIES_PER_THREAD: usize = 16;

/// Slots that one thread looks up at a time.
const SLOTS: usize = 1024;

impl Run<'_> {
    /// Positions of rows in place of slots.
    pub(super) fn place(&self, found: &Candidates) -> Result<Output, EngineError> {
        let mut positions = found.positions.clone();
        let position = |slot: &mut u32| *slot = self.ivf.lists.position(*slot);
        threads::each(1, positions.chunks_mut(SLOTS), |slots| slots.iter_mut().for_each(position));
        Ok(Output::Candidates(Candidates {
            width: found.width,
            keys: found.keys.clone(),
            positions,
            bound: Vec::new(),
        }))
    }

    /// How many candidates are refined before the codes' bounds are asked about the others.
    fn promised(&self, width: usize) -> usize {
        (2 * self.look.k + 8).min(width)
    }

    /// The first candidates alone.
    pub(super) fn first(&self, placed: &Candidates) -> Result<Output, EngineError> {
        let first = self.promised(placed.width);
        let mut some = Candidates { keys: Vec::new(), ..placed.clone() };
        some.positions.chunks_mut(placed.width.max(1)).for_each(|row| row[first..].fill(u32::MAX));
        some.keys = vec![f32::INFINITY; some.positions.len()];
        Ok(Output::Candidates(some))
    }

    /// Of the others those that the codes' bound does not exclude, given the direct keys of the first.
    pub(super) fn promising(
        &self,
        found: &Candidates,
        probes: Probes<'_>,
        placed: &Candidates,
        refined: &Candidates,
    ) -> Result<Output, EngineError> {
        let (width, k) = (placed.width, self.look.k);
        let first = self.promised(width);
        let mut rest = Candidates::empty(self.queries.len(), width);
        let mut sorted = Vec::new();
        for (q, rest) in rest.positions.chunks_mut(width.max(1)).enumerate() {
            let row = q * width..(q + 1) * width;
            sorted.clear();
            sorted.extend_from_slice(&refined.keys[row.start..row.start + first]);
            let (_, kth, _) = sorted.select_nth_unstable_by(k.min(first) - 1, f32::total_cmp);
            let limit = if self.ivf.metric == Metric::Cosine { 2.0 + 2.0 * *kth } else { *kth };
            for i in row.start + first..row.end {
                if self.least(found, probes, q, i) <= limit {
                    rest[i - row.start] = placed.positions[i];
                }
            }
        }
        Ok(Output::Candidates(rest))
    }

    /// What the key of candidate i, one of query q, is at least, as far as its code says.
    fn least(&self, found: &Candidates, probes: Probes<'_>, q: usize, i: usize) -> f32 {
        let lists = &self.ivf.lists;
        let slot = found.positions[i];
        if slot == u32::MAX {
            return f32::INFINITY;
        }
        let (list, place) = lists.place(slot);
        let far = offset_of(probes, q, list).max(0.0).sqrt();
        let scale = lists.lists[list].scale.get(place).map_or(1.0, |s| s.abs());
        found.keys[i] - lists.error * scale * far
    }

    /// All candidates with the direct keys of those that have some.
    pub(super) fn merge(
        &self,
        placed: &Candidates,
        first: &Candidates,
        more: &Candidates,
    ) -> Result<Output, EngineError> {
        let mut merged = first.clone();
        merged.keys.iter_mut().zip(&more.keys).filter(|(_, m)| **m < f32::INFINITY).for_each(|(key, &m)| *key = m);
        merged.positions.clone_from(&placed.positions);
        Ok(Output::Candidates(merged))
    }

    /// Keys from better codes of the rows as they were given.
    pub(super) fn keys_of_better(&self, placed: &Candidates) -> Result<Output, EngineError> {
        let Kept::Codes(_, lists, codec) = &self.ivf.kept else {
            return Err(EngineError::Mismatch("no better codes".to_owned()));
        };
        let (queries, metric) = (self.queries, self.ivf.metric);
        let view = queries.view();
        let RowsView::F32(view) = view else {
            return Err(EngineError::Mismatch("better codes are compared with f32 queries".to_owned()));
        };
        let (dim, width) = (self.ivf.dim, placed.width.max(1));
        let mut out = Candidates { keys: vec![f32::INFINITY; placed.positions.len()], ..placed.clone() };
        let each = out.keys.chunks_mut(width).zip(placed.positions.chunks(width)).enumerate();
        threads::each_with(
            QUERIES_PER_THREAD,
            each,
            || (vec![0; lists.code_bytes()], vec![0.0; dim], vec![0.0; dim]),
            |(code, query, row), (q, (keys, positions))| {
                query.copy_from_slice(view.row(q));
                if metric == Metric::Cosine && queries.norms[q] > 0.0 {
                    query.iter_mut().for_each(|x| *x /= queries.norms[q]);
                }
                for (key, &position) in keys.iter_mut().zip(positions).filter(|(_, p)| **p != u32::MAX) {
                    // One list that holds all rows in order.
                    lists.code(0, position as usize, code);
                    codec.decode(code, 1.0, row);
                    *key = direct(metric, query, row);
                }
            },
        );
        Ok(Output::Candidates(out))
    }

    /// Keys from the codes themselves, without the rounding of queries.
    pub(super) fn keys_of_codes(
        &self,
        found: &Candidates,
        probes: Probes<'_>,
        placed: &Candidates,
        floats: MatrixView<'_, f32>,
    ) -> Result<Output, EngineError> {
        let (ivf, width) = (self.ivf, found.width.max(1));
        let inner = ivf.inner();
        let mut out = Candidates { keys: vec![f32::INFINITY; found.keys.len()], ..placed.clone() };
        threads::each_with(
            QUERIES_PER_THREAD,
            out.keys.chunks_mut(width).enumerate(),
            || vec![0; ivf.lists.code_bytes()],
            |code, (q, keys)| {
                let query = floats.row(q);
                let slots = &found.positions[q * width..(q + 1) * width];
                for (key, &slot) in keys.iter_mut().zip(slots).filter(|(_, s)| **s != u32::MAX) {
                    let (list, place) = ivf.lists.place(slot);
                    let offset = offset_of(probes, q, list);
                    ivf.lists.code(list, place, code);
                    *key = whole(&ivf.lists, (list, place), offset, ivf.codec.product(inner, query, code));
                }
            },
        );
        Ok(Output::Candidates(out))
    }

    /// Cosines from squared distances between vectors of length 1.
    pub(super) fn cosines(&self, ranked: &Candidates) -> Result<Output, EngineError> {
        let mut out = ranked.clone();
        for (keys, &norm) in out.keys.chunks_mut(ranked.width.max(1)).zip(&self.queries.norms) {
            // A query without direction has cosine 0 with every row.
            let cosine = |key: &mut f32| *key = if norm == 0.0 { 0.0 } else { *key / 2.0 - 1.0 };
            keys.iter_mut().filter(|key| key.is_finite()).for_each(cosine);
        }
        Ok(Output::Candidates(out))
    }
}

/// The number that a list adds to the keys of a query.
fn offset_of(probes: Probes<'_>, q: usize, list: usize) -> f32 {
    let probed = q * probes.width..(q + 1) * probes.width;
    let rank = probes.lists[probed.clone()].iter().position(|&l| l as usize == list).unwrap_or(0);
    probes.offsets[probed.start + rank]
}

/// The key of a row from the product of query and code.
fn whole(lists: &Lists, (list, place): (usize, usize), offset: f32, product: f32) -> f32 {
    let terms = crate::ops::lists::Terms { scale: 0.0, shift: product };
    estimate(&lists.lists[list], place, terms, offset, 0)
}

/// The key of two vectors by l2 or, of those of length 1 for cosine, by their product.
pub(super) fn direct(metric: Metric, query: &[f32], row: &[f32]) -> f32 {
    // Partial sums let the compiler use vectors.
    let mut sums = [0.0f32; 16];
    for (query, row) in query.chunks(16).zip(row.chunks(16)) {
        for (sum, (q, x)) in sums.iter_mut().zip(query.iter().zip(row)) {
            *sum += if metric == Metric::L2 { (q - x) * (q - x) } else { -q * x };
        }
    }
    sums.iter().sum()
}
