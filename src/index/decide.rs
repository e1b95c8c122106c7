//! The last word on order: keys in f64, where f32 cannot tell rows apart.
//!
//! A direct key lies within [`tolerance`] of the exact one. So rows whose intervals do not overlap are in the right order; the
//! keys of the others are computed again in f64, from the rows in host memory. A query is proven when no row that was left
//! out can be nearer than the last of its neighbours: `docs/numerics.md`, "f64 decides".

use super::search::Queries;
use super::store::Store;
use crate::compute::Candidates;
use crate::ops::metric::{key, tolerance};
use crate::threads;
use crate::types::{DType, Metric, RowsView};

/// Queries that one thread takes at least.
const QUERIES_PER_THREAD: usize = 16;

/// Rows of a full scan that one thread takes at a time.
const ROWS_PER_THREAD: usize = 4096;

/// How many rows are found beyond the neighbours: enough that the last of them can hardly be as near as the last neighbour.
pub(in crate::index) fn spare(k: usize) -> usize {
    2 + k / 32
}

/// Rows and queries as they were given, and the lengths that engines know.
#[derive(Clone, Copy)]
pub(in crate::index) struct Decider<'a> {
    pub metric: Metric,
    pub rows: RowsView<'a>,
    pub norms: &'a [f32],
    /// The largest of `norms`.
    pub longest: f32,
    pub queries: RowsView<'a>,
    pub query_norms: &'a [f32],
    /// Whether nothing is known of keys in f32, since rows or queries are too small or large for them.
    pub vanishing: bool,
}

/// A candidate: its key as far as it is known, and where the exact one lies.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    value: f64,
    low: f64,
    high: f64,
    position: u32,
    exact: bool,
}

/// A query, and vectors in f64 that are made from rows.
struct Asked<'a> {
    decider: &'a Decider<'a>,
    norm: f64,
    number: usize,
    /// The query in f64; empty until an exact key is wanted.
    query: Vec<f64>,
    row: Vec<f64>,
    /// Sums of whole numbers, which f32 holds exactly.
    whole: bool,
}

impl<'a> Decider<'a> {
    pub fn of(store: &'a Store, queries: &'a Queries<'_>) -> Decider<'a> {
        Decider {
            metric: store.metric(),
            rows: store.exact(),
            norms: store.norms(),
            longest: store.longest(),
            queries: queries.given(),
            query_norms: &queries.norms,
            vanishing: queries.vanishing || store.vanishing(),
        }
    }

    /// The `k` nearest of `found`, which the direct pass gave for each query, in the order of their exact keys. `all` is the
    /// number of rows that each query could have found, or one number for all queries. The bound of a query says whether its
    /// answer is proven: +inf, else -inf.
    pub fn nearest(&self, found: &Candidates, k: usize, all: &[usize]) -> Candidates {
        let queries = self.query_norms.len();
        let mut out = Candidates::empty(queries, k);
        out.bound = vec![f32::INFINITY; queries];
        let width = found.width;
        let places = out.keys.chunks_mut(k.max(1)).zip(out.positions.chunks_mut(k.max(1))).zip(&mut out.bound);
        threads::each_with(
            QUERIES_PER_THREAD,
            places.enumerate(),
            || Asked::new(self),
            |asked, (q, ((keys, positions), bound))| {
                asked.begin(q);
                let span = q * width..(q + 1) * width;
                let left_out = found.bound.get(q).copied().unwrap_or(f32::INFINITY);
                let all = all.get(q).or(all.first()).copied().unwrap_or(0);
                let (found_keys, found_positions) = (&found.keys[span.clone()], &found.positions[span]);
                if !asked.decide(found_keys, found_positions, left_out, all, keys, positions) {
                    *bound = f32::NEG_INFINITY;
                }
            },
        );
        out
    }

    /// The `k` nearest of all rows that `allowed` names, by exact keys: for what f32 cannot decide at all.
    pub fn scan(&self, query: usize, k: usize, allowed: &(dyn Fn(usize) -> bool + Sync)) -> (Vec<f32>, Vec<u32>) {
        self.scan_for(query, allowed, |best| nearest_first(best, k))
    }

    /// All rows that `allowed` names within a radius, by exact keys.
    pub fn scan_within(
        &self,
        query: usize,
        radius: f64,
        allowed: &(dyn Fn(usize) -> bool + Sync),
    ) -> (Vec<f32>, Vec<u32>) {
        self.scan_for(query, allowed, |best| {
            best.retain(|pair| pair.0 <= radius);
            nearest_first(best, usize::MAX);
        })
    }

    /// The exact keys of all rows that `allowed` names, of which `keep` leaves those that are wanted, of each part and then of
    /// all together.
    fn scan_for(
        &self,
        query: usize,
        allowed: &(dyn Fn(usize) -> bool + Sync),
        keep: impl Fn(&mut Vec<(f64, u32)>) + Sync,
    ) -> (Vec<f32>, Vec<u32>) {
        let rows = self.rows.rows();
        let begin = || {
            let mut asked = Asked::new(self);
            asked.begin(query);
            asked
        };
        let parts = threads::map_with(1, (0..rows).step_by(ROWS_PER_THREAD), begin, |asked, start| {
            let some = (start..rows.min(start + ROWS_PER_THREAD)).filter(|&row| allowed(row));
            let mut best: Vec<(f64, u32)> = some.map(|row| (asked.key(row as u32), row as u32)).collect();
            keep(&mut best);
            best
        });
        let mut best = parts.concat();
        keep(&mut best);
        best.into_iter().map(|(key, position)| (key as f32, position)).unzip()
    }

    /// How far an f32 key may lie from the exact one; of a row that is not known, for the longest there is.
    fn error(&self, key: f64, query_norm: f64, row: Option<u32>) -> f64 {
        let norm = f64::from(row.map_or(self.longest, |row| self.norms[row as usize]));
        let (metric, dtype, dim) = (self.metric, self.rows.dtype(), self.rows.dim());
        // Twice what follows from the exact key, which is not known; the two are close.
        let mut error = 2.0 * tolerance(metric, dtype, dim, key, query_norm, norm);
        let rounded = [self.queries.dtype(), dtype].map(DType::is_wide);
        if rounded.contains(&true) {
            error += 1.01 * rounding(metric, dim, key.abs() + error, [query_norm, norm], rounded);
        }
        if metric == Metric::InnerProduct {
            // Components that a device takes for zero.
            error += 2.0 * dim as f64 * f64::from(f32::MIN_POSITIVE) * (query_norm + norm);
        }
        if error.is_nan() || self.vanishing { f64::INFINITY } else { error }
    }

    /// What is added to a radius so that the direct pass finds every row within it.
    pub fn slack(&self, radius: f64) -> f64 {
        let longest_query = self.query_norms.iter().fold(0.0f32, |most, &norm| most.max(norm));
        2.0 * self.error(radius, f64::from(longest_query), None)
    }

    /// Which of the hits of a query (`keys` at most the radius and its slack) lie within the radius, nearest first.
    pub fn within(&self, query: usize, radius: f64, keys: &[f32], positions: &[u32]) -> (Vec<f32>, Vec<u32>) {
        let mut asked = Asked::new(self);
        asked.begin(query);
        let mut all: Vec<Candidate> = keys.iter().zip(positions).map(|(&k, &p)| asked.candidate(k, p)).collect();
        for candidate in all.iter_mut().filter(|c| c.low <= radius && c.high >= radius) {
            asked.settle(candidate);
        }
        all.retain(|c| c.value <= radius);
        asked.order(&mut all, usize::MAX);
        all.into_iter().map(|c| (c.value as f32, c.position)).unzip()
    }
}

/// How far the key of two vectors may lie from that of the same in f32: `key` is at least the latter's magnitude, and `norms` are
/// their lengths. See `docs/numerics.md`.
fn rounding(metric: Metric, dim: usize, key: f64, norms: [f64; 2], rounded: [bool; 2]) -> f64 {
    let (n, half) = (dim as f64, f64::powi(2.0, -24));
    let least = n.sqrt() * f64::powi(2.0, -149);
    // Beyond f32 the largest f32 stands for all.
    if norms.iter().any(|&norm| norm >= 3e38) {
        return f64::INFINITY;
    }
    let [a, b] = [0, 1].map(|i| if rounded[i] { half * norms[i] + least } else { 0.0 });
    let moved = a + b;
    match metric {
        Metric::L2 => moved * (2.0 * key.sqrt() + moved),
        Metric::InnerProduct => a * norms[1] + b * (norms[0] + a),
        Metric::Cosine => {
            let part = |moved: f64, norm: f64| if norm > 0.0 { 2.0 * moved / norm } else { 0.0 };
            part(a, norms[0]) + part(b, norms[1])
        }
        Metric::L1 => n.sqrt() * moved,
        Metric::Linf => moved,
        Metric::Lp(p) if p >= 1.0 => {
            let (p, root) = (f64::from(p), key.powf(1.0 / f64::from(p)));
            (root + n.powf((1.0 / p - 0.5).max(0.0)) * moved).powf(p) - key
        }
        Metric::Lp(p) => n.powf(1.0 - f64::from(p) / 2.0) * moved.powf(f64::from(p)),
        Metric::Jaccard => 6.0 * half + 4.0 * n * least / (norms[0] + norms[1]),
        // Where a component vanishes, so may all that is known of a quotient.
        _ => f64::INFINITY,
    }
}

fn is_integer(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::U8 | DType::I32 | DType::I64)
}

/// The `k` smallest pairs, in order.
fn nearest_first(pairs: &mut Vec<(f64, u32)>, k: usize) {
    let order = |a: &(f64, u32), b: &(f64, u32)| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1));
    if k < pairs.len() {
        pairs.select_nth_unstable_by(k, order);
        pairs.truncate(k);
    }
    pairs.sort_unstable_by(order);
}

impl<'a> Asked<'a> {
    fn new(decider: &'a Decider<'a>) -> Asked<'a> {
        Asked { decider, norm: 0.0, number: 0, query: Vec::new(), row: vec![0.0; decider.rows.dim()], whole: false }
    }

    fn begin(&mut self, query: usize) {
        let d = self.decider;
        self.norm = f64::from(d.query_norms[query]);
        self.number = query;
        self.query.clear();
        let sums = matches!(d.metric, Metric::L2 | Metric::InnerProduct | Metric::L1 | Metric::Linf);
        // No sum on the way to a key is larger than this.
        let longest = self.norm + f64::from(d.longest);
        let most = longest * longest.max((d.rows.dim() as f64).sqrt());
        self.whole = sums && most < f64::from(1 << 24) && is_integer(d.rows.dtype()) && self.is_whole();
    }

    /// Whether all components of the query are whole numbers.
    fn is_whole(&mut self) -> bool {
        is_integer(self.decider.queries.dtype()) || {
            self.widen();
            self.query.iter().all(|&x| x as i64 as f64 == x)
        }
    }

    /// The query in f64.
    fn widen(&mut self) {
        if self.query.is_empty() {
            self.query.resize(self.decider.queries.dim(), 0.0);
            self.decider.queries.row_f64(self.number, &mut self.query);
        }
    }

    /// The exact key of a row.
    fn key(&mut self, row: u32) -> f64 {
        self.widen();
        self.decider.rows.row_f64(row as usize, &mut self.row);
        key(self.decider.metric, &self.query, &self.row)
    }

    /// How far the f32 key of a row, or of any row, may lie from the exact one.
    fn error(&self, key: f64, row: Option<u32>) -> f64 {
        if self.whole { 0.0 } else { self.decider.error(key, self.norm, row) }
    }

    fn candidate(&self, key: f32, position: u32) -> Candidate {
        let value = f64::from(key) + 0.0;
        if !value.is_finite() {
            // It overflowed; only the exact key tells.
            let (low, high) = (f64::NEG_INFINITY, f64::INFINITY);
            return Candidate { value, low, high, position, exact: false };
        }
        let error = self.error(value, Some(position));
        Candidate { value, low: value - error, high: value + error, position, exact: error == 0.0 }
    }

    /// Computes the exact key of a candidate.
    fn settle(&mut self, candidate: &mut Candidate) {
        if !candidate.exact {
            let value = self.key(candidate.position);
            *candidate = Candidate { value, low: value, high: value, exact: true, ..*candidate };
        }
    }

    /// Puts the candidates in the order of their exact keys, as far as the first `k` go.
    fn order(&mut self, all: &mut [Candidate], k: usize) {
        all.sort_unstable_by(|a, b| a.low.total_cmp(&b.low));
        let mut first = 0;
        while first < all.len().min(k) {
            let (mut end, mut high) = (first + 1, all[first].high);
            // Touching counts: equal keys are decided by position, if they are equal.
            while end < all.len() && all[end].low <= high {
                high = high.max(all[end].high);
                end += 1;
            }
            if end - first > 1 {
                all[first..end].iter_mut().for_each(|candidate| self.settle(candidate));
            }
            first = end;
        }
        all.sort_unstable_by(|a, b| a.value.total_cmp(&b.value).then(a.position.cmp(&b.position)));
    }

    /// Writes the nearest of the candidates; gives whether they are the nearest of all rows. The keys of rows that a screen
    /// left out are at least `left_out` in f32.
    fn decide(
        &mut self,
        found: &[f32],
        found_positions: &[u32],
        left_out: f32,
        all: usize,
        keys: &mut [f32],
        positions: &mut [u32],
    ) -> bool {
        let there = found.iter().zip(found_positions).filter(|(_, p)| **p != u32::MAX);
        let mut candidates: Vec<Candidate> = there.map(|(&key, &position)| self.candidate(key, position)).collect();
        // The least exact keys of rows that are not here: those that a screen left out, and those for which there was no room.
        let (mut excluded, mut behind) = (f64::INFINITY, f64::INFINITY);
        if candidates.len() < all {
            if left_out < f32::INFINITY {
                excluded = self.least(left_out.into());
            }
            let full = candidates.len() == found.len();
            behind = match candidates.last() {
                Some(last) if full => self.least(last.value),
                // With room left all rows would be here, were not some too far for f32.
                _ if left_out == f32::INFINITY => f64::NEG_INFINITY,
                _ => f64::INFINITY,
            };
        }
        // Of equal whole numbers the direct pass has kept those with the smallest positions.
        let exact = candidates.last().is_some_and(|last| self.error(last.value, None) == 0.0);
        let k = keys.len().min(candidates.len());
        self.order(&mut candidates, k);
        for candidate in candidates[..k].iter_mut().filter(|c| c.high >= excluded.min(behind)) {
            self.settle(candidate);
        }
        let farthest = candidates[..k].iter().fold(f64::NEG_INFINITY, |most, c| most.max(c.high));
        for ((key, position), candidate) in keys.iter_mut().zip(positions).zip(&candidates) {
            (*key, *position) = (candidate.value as f32, candidate.position);
        }
        farthest < excluded && (farthest < behind || (exact && farthest <= behind))
    }

    /// The least exact key of a row, of which it is only known that its f32 key is not smaller than this.
    fn least(&self, key: f64) -> f64 {
        let least = key - self.error(key, None);
        if least.is_nan() { f64::NEG_INFINITY } else { least }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::MatrixView;

    /// Rows along a line, some nearer to each other than f32 can tell.
    #[test]
    fn what_f32_cannot_tell_apart_is_decided_in_f64() {
        let base = 1000.0f32;
        let data: Vec<f32> = (0..40).flat_map(|i| [base, base + (i % 7) as f32 * 1e-4]).collect();
        let query = [base + 1e-4, base];
        let rows = RowsView::F32(MatrixView::new(&data, 2).unwrap());
        let queries = RowsView::F32(MatrixView::new(&query, 2).unwrap());
        let (norms, query_norms) = (vec![1414.3; 40], [1414.3]);
        let metric = Metric::L2;
        let (norms, query_norms) = (&norms[..], &query_norms[..]);
        let d = Decider { metric, rows, norms, longest: 1414.3, queries, query_norms, vanishing: false };
        let exact = |row: usize| {
            let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            key(metric, &wide(&query), &wide(&data[2 * row..2 * row + 2]))
        };
        let mut wanted: Vec<(f64, u32)> = (0..40).map(|row| (exact(row), row as u32)).collect();
        nearest_first(&mut wanted, 40);
        // Keys that are wrong in the last digits, in a wrong order.
        let mut found = Candidates::empty(1, 40);
        for row in 0..40usize {
            found.keys[row] = exact(row) as f32 * (1.0 + f32::EPSILON * (row % 3) as f32);
            found.positions[row] = row as u32;
        }
        let got = d.nearest(&found, 10, &[40]);
        assert_eq!(got.positions, wanted[..10].iter().map(|w| w.1).collect::<Vec<_>>());
        assert_eq!(got.bound, [f32::INFINITY], "all rows were there");
        let (keys, positions) = d.scan(0, 10, &|_| true);
        assert_eq!((keys, positions), (got.keys.clone(), got.positions.clone()));
        // Of twelve candidates the last is as near as the tenth, so a row left out may be, too.
        let mut few = Candidates::empty(1, 12);
        for (i, &(key, position)) in wanted[..12].iter().enumerate() {
            (few.keys[i], few.positions[i]) = (key as f32, position);
        }
        let gap = wanted[11].0 - wanted[9].0 > 1e-3 * wanted[9].0;
        assert_eq!(d.nearest(&few, 10, &[40]).bound == [f32::INFINITY], gap);
        let radius = wanted[17].0;
        let within = d.within(0, radius, &found.keys, &found.positions).1;
        let count = wanted.iter().filter(|w| w.0 <= radius).count();
        assert_eq!(within, wanted[..count].iter().map(|w| w.1).collect::<Vec<_>>());
    }
}
