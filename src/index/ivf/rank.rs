//! Re-ranking the candidates of a scan: the host operations of its program.

use super::super::decide::Decider;
use super::program::Run;
use super::{Ivf, Kept};
use crate::compute::{Candidates, EngineError, Mask, Output};
use crate::ops::lists::Probes;
use crate::stats::SearchStats;
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

    /// Keys from the codes themselves, in f64, without the rounding of queries.
    pub(super) fn keys_of_codes(
        &self,
        found: &Candidates,
        placed: &Candidates,
        floats: MatrixView<'_, f32>,
        lost: &[f32],
    ) -> Result<Output, EngineError> {
        let (ivf, width) = (self.ivf, found.width.max(1));
        let mut out = Candidates { keys: vec![f32::INFINITY; found.keys.len()], ..placed.clone() };
        threads::each_with(
            QUERIES_PER_THREAD,
            out.keys.chunks_mut(width).enumerate(),
            || (vec![0; ivf.lists.code_bytes()], vec![0.0; ivf.codec.dim()]),
            |room, (q, keys)| {
                let lost = lost.get(q).map_or(0.0, |&lost| f64::from(lost));
                let slots = &found.positions[q * width..(q + 1) * width];
                for (key, &slot) in keys.iter_mut().zip(slots).filter(|(_, s)| **s != u32::MAX) {
                    *key = ivf.key(slot, floats.row(q), lost, room) as f32;
                }
            },
        );
        Ok(Output::Candidates(out))
    }

    /// Candidates that the rounding of queries did not mix up: where the last one is too near the k-th, so that rows left
    /// out may belong among the k nearest, those with the smallest keys of unrounded queries.
    pub(super) fn settle(
        &self,
        found: &Candidates,
        probes: Probes<'_>,
        rounding: &[f32],
        floats: MatrixView<'_, f32>,
        mask: Option<Mask<'_>>,
        stats: &mut SearchStats,
    ) -> Candidates {
        let width = found.width.max(1);
        let mut out = found.clone();
        let rows = out.keys.chunks_mut(width).zip(out.positions.chunks_mut(width)).zip(rounding).enumerate();
        let mixed: Vec<_> = rows.filter(|(_, ((keys, slots), rounding))| self.mixed(keys, slots, **rounding)).collect();
        stats.fell_back += mixed.len() as u64;
        threads::each_with(1, mixed.into_iter(), Vec::new, |codes, (q, ((keys, slots), _))| {
            let (ivf, mut best) = (self.ivf, Smallest::new(keys.len()));
            let query = ivf.codec.unrounded(ivf.inner(), floats.row(q));
            let probed = q * probes.width..(q + 1) * probes.width;
            for (&list, &offset) in probes.lists[probed.clone()].iter().zip(&probes.offsets[probed]) {
                let Some(rows) = ivf.lists.lists.get(list as usize) else { continue };
                query.scan(&ivf.lists, list as usize, offset, codes, |place, key| {
                    if mask.is_none_or(|mask| mask.allows(q, rows.positions[place] as usize)) {
                        best.push(key, ivf.lists.starts[list as usize] + place as u32);
                    }
                });
            }
            for ((key, slot), pair) in keys.iter_mut().zip(slots).zip(best.sorted()) {
                (*key, *slot) = pair;
            }
        });
        out
    }

    /// Whether rows that a scan has left out may be nearer than the k-th that it kept.
    fn mixed(&self, keys: &[f32], slots: &[u32], rounding: f32) -> bool {
        let last = keys.len() - 1;
        // Where as few are kept as are wanted, the farthest third is not sure to belong there.
        let kth = self.look.k.min(keys.len() * 2 / 3).max(1) - 1;
        if slots[last] == u32::MAX {
            return false;
        }
        let scale = |slot: u32| {
            let (list, place) = self.ivf.lists.place(slot);
            self.ivf.lists.lists[list].scale.get(place).map_or(1.0, |scale| scale.abs())
        };
        let sure = keys[kth] + 2.0 * rounding * scale(slots[kth]).max(scale(slots[last])) <= keys[last];
        !sure
    }

    /// The nearest of candidates with direct keys, in the order of their exact keys.
    pub(super) fn decide(&self, ranked: &Candidates) -> Result<Output, EngineError> {
        let Kept::Rows(store) = &self.ivf.kept else {
            return Err(EngineError::Mismatch("no rows to decide by".to_owned()));
        };
        // No row is missing, as far as candidates go.
        Ok(Output::Candidates(Decider::of(store, self.queries).nearest(ranked, self.look.k, &[0])))
    }

    /// Cosines from squared distances between vectors of length 1.
    pub(super) fn cosines(&self, ranked: &Candidates) -> Result<Output, EngineError> {
        let (mut out, view) = (ranked.clone(), self.queries.view());
        let mut query = vec![0.0; self.ivf.dim];
        for (q, keys) in out.keys.chunks_mut(ranked.width.max(1)).enumerate() {
            view.row_f32(q, &mut query);
            // A query without direction has cosine 0 with every row.
            let nowhere = self.ivf.directionless(&query);
            let cosine = |key: &mut f32| *key = if nowhere { 0.0 } else { *key / 2.0 - 1.0 };
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

impl Ivf {
    /// The key that the code in a slot gives, in f64; `lost` is the squared length that projections drop of the query.
    fn key(&self, slot: u32, query: &[f32], lost: f64, (code, row): &mut (Vec<u8>, Vec<f32>)) -> f64 {
        let (number, place) = self.lists.place(slot);
        let list = &self.lists.lists[number];
        self.lists.code(number, place, code);
        self.codec.decode(code, list.scale.get(place).copied().unwrap_or(1.0), row);
        let coarse = self.coarse.as_ref().filter(|_| self.residual).map(|coarse| coarse.view());
        let centroid = match coarse {
            Some(RowsView::F32(view)) => view.row(number),
            _ => &[],
        };
        let add = list.add.get(place).map_or(0.0, |&add| f64::from(add));
        let centre = centroid.iter().copied().chain(std::iter::repeat(0.0));
        let parts = query.iter().zip(&*row).zip(centre).map(|((&q, &r), c)| (f64::from(q), f64::from(r), f64::from(c)));
        if self.inner() != Metric::L2 {
            return add - parts.map(|(q, r, c)| q * (c + r)).sum::<f64>();
        }
        let far: f64 = parts.clone().map(|(q, r, c)| (q - c - r) * (q - c - r)).sum();
        // What a row adds beside its code: what RaBitQ knows of its length, what a projection dropped, that it has no direction.
        let beside = if !list.scale.is_empty() || self.transform.drops() || self.metric == Metric::Cosine {
            add - parts.map(|(_, r, c)| r * (r + 2.0 * c)).sum::<f64>()
        } else {
            0.0
        };
        far + lost + beside
    }
}

/// The smallest so many pairs of key and slot.
struct Smallest {
    keep: usize,
    pairs: Vec<(f32, u32)>,
    limit: f32,
}

impl Smallest {
    fn new(keep: usize) -> Smallest {
        Smallest { keep, pairs: Vec::new(), limit: f32::INFINITY }
    }

    fn push(&mut self, key: f32, slot: u32) {
        if key > self.limit {
            return;
        }
        self.pairs.push((key, slot));
        if self.pairs.len() >= 2 * self.keep + 64 {
            let (_, &mut (limit, _), _) = self.pairs.select_nth_unstable_by(self.keep - 1, order);
            self.limit = limit;
            self.pairs.truncate(self.keep);
        }
    }

    fn sorted(mut self) -> Vec<(f32, u32)> {
        self.pairs.sort_unstable_by(order);
        self.pairs.truncate(self.keep);
        self.pairs
    }
}

fn order(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
    a.0.total_cmp(&b.0).then(a.1.cmp(&b.1))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Device;
    use crate::index::{SearchOptions, TrainOptions};
    use crate::random::Uniform;
    use crate::types::Metric;

    const DIM: usize = 32;

    fn uniform(n: usize, seed: u64) -> Vec<f32> {
        let mut random = Uniform::new(seed);
        (0..n).map(|_| (2.0 * random.next() - 1.0) as f32).collect()
    }

    /// What tables and queries of one scale cannot tell apart: one wide component, or clusters far apart.
    fn rows(wide: bool, n: usize, seed: u64) -> Vec<f32> {
        let (mut rows, centres) = (uniform(n * DIM, seed), uniform(16 * DIM, 1));
        for (i, row) in rows.chunks_exact_mut(DIM).enumerate() {
            if wide {
                row[0] *= 100.0;
            } else {
                row.iter_mut().zip(&centres[i % 16 * DIM..]).for_each(|(x, c)| *x += 20.0 * c);
            }
        }
        rows
    }

    /// The slots of the 10 smallest keys of vectors that codes stand for, all of them, in f64.
    fn exhaustive(index: &Ivf, query: &[f32]) -> Vec<u32> {
        let dim = index.codec.dim();
        let RowsView::F32(centroids) = index.coarse.as_ref().expect("lists").view() else { panic!("f32 centroids") };
        let (mut code, mut r) = (vec![0; index.lists.code_bytes()], vec![0.0; dim]);
        let mut all = Vec::new();
        for (l, list) in index.lists.lists.iter().enumerate() {
            for place in 0..list.len() {
                index.lists.code(l, place, &mut code);
                index.codec.decode(&code, 1.0, &mut r);
                let x = (0..dim).map(|j| f64::from(centroids.row(l)[j]) + f64::from(r[j]));
                let each = query.iter().map(|&q| f64::from(q)).zip(x);
                let key: f64 = match index.inner() {
                    Metric::L2 => each.map(|(q, x)| (q - x) * (q - x)).sum(),
                    _ => -each.map(|(q, x)| q * x).sum::<f64>(),
                };
                all.push((key, index.lists.starts[l] + place as u32));
            }
        }
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        all.iter().take(10).map(|(_, slot)| *slot).collect()
    }

    #[test]
    fn what_integers_cannot_tell_apart_is_settled_as_all_codes_in_f64_would_be() {
        let device = Device::cpu();
        let (n, q) = (1500, 20);
        for (wide, metric) in
            [(true, Metric::L2), (false, Metric::L2), (true, Metric::InnerProduct), (false, Metric::Cosine)]
        {
            let (base, queries) = (rows(wide, n, 3), rows(wide, q, 4));
            for spec in ["IVF4,SQ8", "IVF4,SQ6", "IVF4,SQ4", "IVF4,PQ16", "IVF4,PQ8x4"] {
                let text = spec.parse().expect("a spec");
                let mut index =
                    Ivf::train(&device, &text, metric, (&base, DIM), &TrainOptions::default()).expect("fits");
                index.add((&base, DIM)).expect("fits");
                let view = MatrixView::new(&queries, DIM).expect("whole rows");
                let moved = index.transform.apply(&RowsView::F32(view)).rows;
                let options = SearchOptions::default().probes(4);
                let (found, stats) = index.search_with((&queries, DIM), 10, &options).expect("answers");
                let mut right = 0;
                for (i, query) in moved.chunks_exact(DIM).enumerate() {
                    let wanted: Vec<u64> =
                        exhaustive(&index, query).iter().map(|&s| u64::from(index.lists.position(s))).collect();
                    right += found.query(i).filter(|(id, _)| wanted.contains(id)).count();
                }
                assert!(right >= 198, "{spec} {metric}, wide: {wide}: {right} of 200");
                // With less than the rounding of a query between rows, it is the host that settles it.
                if wide && spec != "IVF4,SQ4" {
                    assert!(stats.fell_back > 0, "{spec} {metric}: {stats:?}");
                }
            }
        }
    }

    #[test]
    fn ordinary_rows_are_settled_by_integers() {
        let device = Device::cpu();
        let (base, queries) = (uniform(4000 * DIM, 5), uniform(50 * DIM, 6));
        for spec in ["SQ8", "SQ4", "PQ16", "PQ16x4", "IVF16,SQ8", "IVF16,PQ8", "RaBitQ4", "PQ16,RFlat"] {
            let text = spec.parse().expect("a spec");
            let mut index =
                Ivf::train(&device, &text, Metric::L2, (&base, DIM), &TrainOptions::default()).expect("fits");
            index.add((&base, DIM)).expect("fits");
            let (_, stats) = index.search_with((&queries, DIM), 10, &SearchOptions::default()).expect("answers");
            assert!(stats.fell_back <= 2, "{spec}: {} of 50 queries", stats.fell_back);
        }
    }
}
