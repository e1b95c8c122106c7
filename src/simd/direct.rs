//! The direct pass: keys of one or two queries against one or four rows at a time, vectors along the dimension.
//!
//! Each pair has its own accumulators (one or two vectors), so its key does not depend on which rows and queries were
//! computed beside it, nor on threads. Every 1024 components the accumulators are added to a total, which keeps
//! rounding small in long rows.
//!
//! The kernel is `tile`, generic over the number of queries and rows, so that each combination is
//! straight code with its accumulators in registers. Metrics are an [`Op`] each; the loop around them
//! exists once.

use super::{Lane, Simd, SimdKernel, Token, math};
use crate::types::{MatrixView, Metric};

/// Rows by position: a run of them, or a list.
///
/// An enum and not a list in both cases, as a run needs no memory and its rows follow one another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Picks<'a> {
    /// Rows `start .. start + len`.
    Run { start: usize, len: usize },
    /// The rows named.
    List(&'a [u32]),
}

impl Picks<'_> {
    /// How many rows.
    #[inline(always)]
    pub fn len(&self) -> usize {
        match self {
            Picks::Run { len, .. } => *len,
            Picks::List(list) => list.len(),
        }
    }

    /// The position of the i-th row.
    #[inline(always)]
    pub fn at(&self, i: usize) -> usize {
        match self {
            // Any number may come out; `MatrixView::row` refuses those that are no row.
            Picks::Run { start, .. } => start + i,
            Picks::List(list) => list[i] as usize,
        }
    }

    /// The picks `start .. end` of these.
    ///
    /// `start <= end <= len`; a list panics otherwise, and of a run the rows are checked when they
    /// are read.
    pub fn part(&self, start: usize, end: usize) -> Self {
        match self {
            Picks::Run { start: first, .. } => Picks::Run { start: first + start, len: end - start },
            Picks::List(list) => Picks::List(&list[start..end]),
        }
    }
}

/// Writes the direct keys of `Q` queries against the picked rows to `out[query][pick]`. For cosine: of the inner
/// product, which the caller divides by the lengths. Not for packed bits.
///
/// Errors are within [`metric::tolerance`](crate::ops::metric::tolerance): at least four partial sums
/// per key.
///
/// # Panics
/// When a query is not as long as a row, or `out` not as long as the picks.
pub(crate) fn keys<T: Lane, const Q: usize>(
    token: Token,
    metric: Metric,
    queries: [&[f32]; Q],
    rows: MatrixView<'_, T>,
    picks: Picks<'_>,
    out: [&mut [f32]; Q],
) {
    // One kernel per metric and element type: the metric is decided here, outside of all loops.
    let block = Block { op: (), queries, rows, picks, out };
    match metric {
        Metric::L2 => token.run(block.with(L2)),
        Metric::InnerProduct | Metric::Cosine => token.run(block.with(Ip)),
        Metric::L1 => token.run(block.with(L1)),
        Metric::Linf => token.run(block.with(Linf)),
        // The exponents in common use have kernels without `math::pow`.
        Metric::Lp(1.0) => token.run(block.with(L1)),
        Metric::Lp(2.0) => token.run(block.with(L2)),
        Metric::Lp(3.0) => token.run(block.with(Cube)),
        Metric::Lp(4.0) => token.run(block.with(Fourth)),
        Metric::Lp(0.5) => token.run(block.with(Root)),
        Metric::Lp(p) => token.run(block.with(Power(p))),
        Metric::Canberra => token.run(block.with(Canberra)),
        Metric::BrayCurtis => token.run(block.with(BrayCurtis)),
        Metric::JensenShannon => token.run(block.with(JensenShannon)),
        Metric::Jaccard => token.run(block.with(Jaccard)),
        // Defined on packed bits only, which have kernels of their own; on numbers, components that differ.
        Metric::Hamming => token.run(block.with(Differ)),
    }
}

/// Writes the direct keys of pairs of a query and a row, for l2, inner product and cosine (as [`keys`] does).
///
/// For pairs that lie anywhere, as those that bounds leave over in k-means.
///
/// # Panics
/// When queries and rows differ in length, `out` and `pairs` in number, or a pair names what there is not.
pub(crate) fn pairs(
    token: Token,
    metric: Metric,
    queries: MatrixView<'_, f32>,
    rows: MatrixView<'_, f32>,
    pairs: &[[u32; 2]],
    out: &mut [f32],
) {
    match metric {
        Metric::L2 => token.run(Pairs { op: L2, queries, rows, pairs, out }),
        _ => token.run(Pairs { op: Ip, queries, rows, pairs, out }),
    }
}

/// One pair at a time, each a tile of one query and one row.
struct Pairs<'a, O> {
    op: O,
    queries: MatrixView<'a, f32>,
    rows: MatrixView<'a, f32>,
    pairs: &'a [[u32; 2]],
    out: &'a mut [f32],
}

/// Pairs ahead of the one being computed whose query is asked for.
///
/// Rows are few and stay in the cache; queries are many.
const PAIRS_AHEAD: usize = 4;

impl<O: Op> SimdKernel for Pairs<'_, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Equal dimensions are what `tile` reads by.
        let Pairs { op, queries, rows, pairs, out } = self;
        assert!(out.len() == pairs.len() && queries.dim() == rows.dim());
        for (i, &[q, row]) in pairs.iter().enumerate() {
            // `pairs` is not empty inside the loop. `row` checks each number against the matrix.
            let ahead = queries.row(pairs[(i + PAIRS_AHEAD).min(pairs.len() - 1)][0] as usize);
            let (query, row) = (queries.row(q as usize), rows.row(row as usize));
            out[i] = op.finish(s, tile(s, op, [query], [row], ahead.as_ptr())[0][0]);
        }
    }
}

/// The arguments of [`keys`], with the metric as a type.
struct Block<'a, O, T, const Q: usize> {
    op: O,
    queries: [&'a [f32]; Q],
    rows: MatrixView<'a, T>,
    picks: Picks<'a>,
    out: [&'a mut [f32]; Q],
}

impl<'a, T, const Q: usize> Block<'a, (), T, Q> {
    /// The same with a metric.
    fn with<O>(self, op: O) -> Block<'a, O, T, Q> {
        Block { op, queries: self.queries, rows: self.rows, picks: self.picks, out: self.out }
    }
}

/// Components after which the accumulators are folded into the total; a multiple of every level's lanes.
///
/// A sum of n additions has an error of about n u; folding bounds n by FOLD / LANES plus the number
/// of folds.
const FOLD: usize = 1024;

/// Bytes ahead of the one being read that a pass of one query asks for.
///
/// Eight cache lines: about the latency of memory at the rate at which one core reads.
pub(super) const AHEAD: usize = 512;

impl<O: Op, T: Lane, const Q: usize> SimdKernel for Block<'_, O, T, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // One query is bound by memory: one row after the other is the order that prefetchers like best. Bytes are the
        // exception, as a row of them is too short for its chain of additions. Two queries work in the cache.
        // Registers: two queries times four rows are 8 accumulators (the second of each pair exists
        // for the metrics that use it only), 4 rows and 1 query, which fits 16.
        match (Q, size_of::<T>(), S::WIDE) {
            (1, 2.., _) => self.rows::<S, 1>(s),
            (1, ..) | (_, _, true) => self.rows::<S, 4>(s),
            (_, _, false) => self.rows::<S, 2>(s),
        }
    }
}

impl<O: Op, T: Lane, const Q: usize> Block<'_, O, T, Q> {
    /// `R` rows at a time.
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(self, s: S) {
        let Block { op, queries, rows, picks, out } = self;
        // Checked here once, so that `tile` may read whole vectors of every slice.
        let n = picks.len();
        for q in 0..Q {
            assert!(queries[q].len() == rows.dim() && out[q].len() == n);
        }
        // The tile is computed whole even at the end: a shorter one would be another kernel to
        // compile.
        let mut x = [&[][..]; R];
        for i in (0..n).step_by(R) {
            for r in 0..R {
                // Past the end the last row stands in; its keys are not written.
                x[r] = rows.row(picks.at((i + r).min(n - 1)));
            }
            // Where one query goes on: the bytes that follow in a run of rows, the next row of a list.
            let ahead = match picks {
                Picks::Run { .. } if R == 1 => x[0].as_ptr().wrapping_byte_add(AHEAD),
                // Never read through, only prefetched: it may point past the rows.
                _ => rows.row(picks.at((i + R).min(n - 1))).as_ptr(),
            };
            let tile = tile(s, op, queries, x, ahead);
            for q in 0..Q {
                for r in 0..R.min(n - i) {
                    out[q][i + r] = op.finish(s, tile[q][r]);
                }
            }
        }
    }
}

/// The accumulators of `Q` queries times `R` rows.
///
/// Per step of LANES components it loads R vectors of rows and Q of queries, and takes Q R steps of
/// the metric. Every row vector is converted to f32 once and used for all queries. The arrays have
/// constant sizes and indices, so the compiler unrolls their loops and keeps them in registers.
#[inline(always)]
fn tile<S: Simd, O: Op, T: Lane, const Q: usize, const R: usize>(
    s: S,
    op: O,
    queries: [&[f32]; Q],
    x: [&[T]; R],
    ahead: *const T,
) -> [[Acc<S>; R]; Q] {
    // The proof for all reads below: every slice is `dim` long, queries by `rows` and `Pairs`, rows
    // by this.
    let dim = queries[0].len();
    for r in 0..R {
        assert!(x[r].len() == dim);
    }
    // Total and part are both accumulators. The total is touched once per FOLD components only, and
    // may be spilled.
    let zero = [s.splat(0.0); 2];
    let mut total = [[zero; R]; Q];
    for start in (0..dim).step_by(FOLD) {
        // Of dim up to FOLD there is one part, and folding adds it to zero, which is exact.
        let end = dim.min(start + FOLD);
        let mut part = [[zero; R]; Q];
        // Whole vectors first.
        let mut d = start;
        while d + S::LANES <= end {
            // SAFETY: d + LANES <= dim, which every slice is long.
            unsafe {
                // Rows first: each is converted here and used for all queries below.
                let mut v = [s.splat(0.0); R];
                for r in 0..R {
                    v[r] = T::load(s, x[r].as_ptr().add(d));
                    // The same place in the rows that come next. Two queries work in the cache, where
                    // a prefetch is a slot lost.
                    if Q == 1 {
                        s.prefetch(ahead.wrapping_add(r * dim + d));
                    }
                }
                for q in 0..Q {
                    let w = s.load(queries[q].as_ptr().add(d));
                    for r in 0..R {
                        part[q][r] = op.step(s, part[q][r], w, v[r]);
                    }
                }
            }
            d += S::LANES;
        }
        // FOLD is a multiple of LANES, so only the last part can end within a vector.
        if d < end {
            // Both vectors are filled up with zeros, which by the contract of `Op` add nothing.
            // SAFETY: end - d < LANES elements are left in every slice, as end = dim here.
            unsafe {
                let mut v = [s.splat(0.0); R];
                for r in 0..R {
                    v[r] = s.load_part(x[r].as_ptr().add(d), end - d);
                }
                for q in 0..Q {
                    let w = s.load_part(queries[q].as_ptr().add(d), end - d);
                    for r in 0..R {
                        part[q][r] = op.step(s, part[q][r], w, v[r]);
                    }
                }
            }
        }
        for q in 0..Q {
            for r in 0..R {
                total[q][r] = op.fold(s, total[q][r], part[q][r]);
            }
        }
    }
    total
}

/// One or two vectors of partial sums.
///
/// The second is for metrics that are a quotient of two sums. Where it is not used it stays the zero
/// it began as, and the compiler drops it.
type Acc<S> = [<S as Simd>::F; 2];

/// A metric: what a component adds to the partial sums, and what key they make. Zero components of both vectors must
/// add nothing, as the last vector is filled up with zeros.
trait Op: Copy {
    /// Adds LANES components of a query and a row.
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S>;

    /// Adds a part to the total.
    #[inline(always)]
    fn fold<S: Simd>(self, s: S, total: Acc<S>, part: Acc<S>) -> Acc<S> {
        [s.add(total[0], part[0]), s.add(total[1], part[1])]
    }

    /// The key from the sums of all lanes.
    #[inline(always)]
    fn finish<S: Simd>(self, s: S, acc: Acc<S>) -> f32 {
        s.sum(acc[0])
    }
}

/// `num / den` for `den >= 0`, and 0 where `den` is 0.
///
/// The quotient is computed in all lanes; a NaN of 0 / 0 is replaced, not avoided.
#[inline(always)]
fn ratio<S: Simd>(s: S, num: S::F, den: S::F) -> S::F {
    let zero = s.splat(0.0);
    s.if_above(den, zero, s.div(num, den), zero)
}

/// `sum (q - x)^2`. No expansion into lengths and an inner product, so nothing cancels: at most three
/// roundings per term.
#[derive(Clone, Copy)]
struct L2;
impl Op for L2 {
    // The product is fused: two roundings per component where the level has it, three where not.
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        let d = s.sub(q, x);
        [s.fma(d, d, acc[0]), acc[1]]
    }
}

/// `-sum q x`. The error is relative to both lengths, not to the result.
#[derive(Clone, Copy)]
struct Ip;
impl Op for Ip {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        [s.fma(q, x, acc[0]), acc[1]]
    }
    // `-0.0` and `0.0` are equal as numbers, but keys are also compared by their bits, and ties must
    // be ties.
    #[inline(always)]
    fn finish<S: Simd>(self, s: S, acc: Acc<S>) -> f32 {
        // Not a negation, so that no key is -0.
        0.0 - s.sum(acc[0])
    }
}

/// `sum |q - x|`.
#[derive(Clone, Copy)]
struct L1;
impl Op for L1 {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        [s.add(acc[0], s.abs(s.sub(q, x))), acc[1]]
    }
}

/// `max |q - x|`: no sum, so but for the difference it is exact. Zeros lower no maximum of
/// magnitudes.
#[derive(Clone, Copy)]
struct Linf;
impl Op for Linf {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        [s.max(acc[0], s.abs(s.sub(q, x))), acc[1]]
    }
    // A maximum of maxima; the second vector is not used.
    #[inline(always)]
    fn fold<S: Simd>(self, s: S, total: Acc<S>, part: Acc<S>) -> Acc<S> {
        [s.max(total[0], part[0]), total[1]]
    }
    #[inline(always)]
    fn finish<S: Simd>(self, s: S, acc: Acc<S>) -> f32 {
        s.largest(acc[0])
    }
}

/// `sum |q - x|^3`, the root not taken.
#[derive(Clone, Copy)]
struct Cube;
impl Op for Cube {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        // d^2 rounded, then d^2 d + sum rounded once.
        let d = s.abs(s.sub(q, x));
        [s.fma(s.mul(d, d), d, acc[0]), acc[1]]
    }
}

/// `sum (q - x)^4`. Even, so no magnitude is needed.
#[derive(Clone, Copy)]
struct Fourth;
impl Op for Fourth {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        let d = s.sub(q, x);
        // The square of a square: two multiplications.
        let square = s.mul(d, d);
        [s.fma(square, square, acc[0]), acc[1]]
    }
}

/// `sum |q - x|^(1/2)`, by the square root of the level, which is correctly rounded.
#[derive(Clone, Copy)]
struct Root;
impl Op for Root {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        [s.add(acc[0], s.sqrt(s.abs(s.sub(q, x)))), acc[1]]
    }
}

/// `sum |q - x|^p` for any other p, lane by lane.
#[derive(Clone, Copy)]
struct Power(f32);
impl Op for Power {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        let d = s.abs(s.sub(q, x));
        // 0^p is 0 for p > 0, so filled-up components add nothing.
        let power = s.map2(d, d, |d, _| math::pow(d, self.0));
        [s.add(acc[0], power), acc[1]]
    }
}

/// `sum |q - x| / (|q| + |x|)`, a term of 0 / 0 being 0.
#[derive(Clone, Copy)]
struct Canberra;
impl Op for Canberra {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        // At most 1 each; zeros give 0 by `ratio`.
        let term = ratio(s, s.abs(s.sub(q, x)), s.add(s.abs(q), s.abs(x)));
        [s.add(acc[0], term), acc[1]]
    }
}

/// `sum |q - x| / sum |q + x|`.
#[derive(Clone, Copy)]
struct BrayCurtis;
impl Op for BrayCurtis {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        // Numerator and denominator as separate sums, divided once at the end.
        [s.add(acc[0], s.abs(s.sub(q, x))), s.add(acc[1], s.abs(s.add(q, x)))]
    }
    #[inline(always)]
    fn finish<S: Simd>(self, s: S, acc: Acc<S>) -> f32 {
        let (num, den) = (s.sum(acc[0]), s.sum(acc[1]));
        // Equal vectors are at distance 0, also where both sums are 0.
        if num == 0.0 { 0.0 } else { num / den }
    }
}

/// `sum |q - x| / sum max`, for components that are not negative: `1 - sum min / sum max` without its cancellation.
#[derive(Clone, Copy)]
struct Jaccard;
impl Op for Jaccard {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        [s.add(acc[0], s.abs(s.sub(q, x))), s.add(acc[1], s.max(q, x))]
    }
    #[inline(always)]
    fn finish<S: Simd>(self, s: S, acc: Acc<S>) -> f32 {
        BrayCurtis.finish(s, acc)
    }
}

/// With m = (a + b) / 2 and d = (a - b) / (a + b) the component adds m / 2 f(d), where
/// f(d) = (1 + d) ln(1 + d) + (1 - d) ln(1 - d) = sum over j >= 1 of d^(2j) / (j (2j - 1)):
/// by the series for |d| <= 1/2, where the logarithms would cancel, and by logarithms beyond.
#[derive(Clone, Copy)]
struct JensenShannon;
impl JensenShannon {
    /// f by eleven terms of its series. For `d <= 1/2` those left out are below `2^-30` of the sum:
    /// the twelfth is `d^24 / (12 * 23)`, and `d^22 <= 2^-22`. All terms are positive.
    #[inline(always)]
    fn series<S: Simd>(s: S, d: S::F) -> S::F {
        // Horner's scheme from the last term, in z = d^2.
        let z = s.mul(d, d);
        let mut sum = s.splat(1.0 / (11.0 * 21.0));
        let mut j = 10.0;
        while j > 0.0 {
            sum = s.fma(sum, z, s.splat(1.0 / (j * (2.0 * j - 1.0))));
            j -= 1.0;
        }
        s.mul(sum, z)
    }

    /// `u ln u + v ln v`.
    /// A zero among u and v gives 0 there, as `math::ln` is finite at 0.
    #[inline(always)]
    fn logarithms<S: Simd>(s: S, u: S::F, v: S::F) -> S::F {
        s.map2(u, v, |u, v| u * math::ln(u) + v * math::ln(v))
    }
}
impl Op for JensenShannon {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        // Both halved first, so that the sum cannot overflow.
        let half = s.splat(0.5);
        let (a, b) = (s.mul(half, q), s.mul(half, x));
        let m = s.add(a, b);
        // f is even, so its argument may be positive; |d| <= 1 for components that are not negative.
        let d = s.abs(ratio(s, s.sub(a, b), m));
        let mut f = Self::series(s, d);
        // Logarithms take some dozens of operations per lane and are wanted seldom: only when any
        // lane needs them.
        let everywhere = (1u32 << S::LANES) - 1;
        if s.not_above(d, half) != everywhere {
            // 1 + d and 1 - d, without the rounding of d.
            let logarithms = Self::logarithms(s, ratio(s, q, m), ratio(s, x, m));
            // Lanes up to 1/2 keep the series.
            f = s.if_above(d, half, logarithms, f);
        }
        // m / 2 f, the half being taken at the end; no term is negative, so nothing cancels.
        [s.fma(m, f, acc[0]), acc[1]]
    }
    #[inline(always)]
    fn finish<S: Simd>(self, s: S, acc: Acc<S>) -> f32 {
        0.5 * s.sum(acc[0])
    }
}

/// The number of components that differ.
#[derive(Clone, Copy)]
struct Differ;
impl Op for Differ {
    #[inline(always)]
    fn step<S: Simd>(self, s: S, acc: Acc<S>, q: S::F, x: S::F) -> Acc<S> {
        // Sums of ones are exact in f32 up to 2^24 per lane.
        let d = s.abs(s.sub(q, x));
        let zero = s.splat(0.0);
        [s.add(acc[0], s.if_above(d, zero, s.splat(1.0), zero)), acc[1]]
    }
}
