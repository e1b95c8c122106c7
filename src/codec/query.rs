//! What all codecs do with queries and rows: rounding, factors, residuals.

use super::Unrounded;
use crate::linalg::dot_f64;
use crate::ops::lists::{Encoded, Form, Outside, Prepared, Terms};
use crate::simd::{Simd, SimdKernel, Token};
use crate::threads;
use crate::types::{MatrixView, Metric};

/// What <q, r'> is multiplied by in a key.
pub(super) fn factor(metric: Metric) -> f32 {
    if metric == Metric::L2 { -2.0 } else { -1.0 }
}

/// Integers from -127 to 127, and the scale that makes their squared distance from the numbers least.
pub(super) fn round(numbers: &[f32], integers: &mut [i8]) -> f32 {
    let most = numbers.iter().fold(0.0f32, |a, x| a.max(x.abs()));
    let per_unit = 127.0 / most;
    if !(most > f32::MIN_POSITIVE && per_unit > 0.0 && per_unit.is_finite()) {
        integers.fill(0);
        return 0.0;
    }
    let (mut with, mut square) = ([0.0f32; 16], [0.0f32; 16]);
    for (numbers, integers) in numbers.chunks(16).zip(integers.chunks_mut(16)) {
        for (at, (&x, i)) in numbers.iter().zip(integers).enumerate() {
            // Adding and taking off 1.5 * 2^23 rounds to the nearest integer.
            let w = (x * per_unit + 12_582_912.0) - 12_582_912.0;
            *i = w as i8;
            with[at] += w * x;
            square[at] += w * w;
        }
    }
    let (with, square) = (with.iter().sum::<f32>(), square.iter().sum::<f32>());
    if square > 0.0 && with.is_finite() { with / square } else { 0.0 }
}

/// x - c; x itself where there are no centroids.
#[inline(always)]
pub(super) fn residual(row: &[f32], centroid: &[f32], out: &mut [f32]) {
    if centroid.is_empty() {
        out.copy_from_slice(row);
    } else {
        out.iter_mut().zip(row).zip(centroid).for_each(|((o, x), c)| *o = x - c);
    }
}

/// The centroid of row i, empty where there are none.
pub(super) fn centroid<'a>(centroids: &'a [f32], lists: &[u32], i: usize, dim: usize) -> &'a [f32] {
    let list = lists.get(i).map_or(0, |&l| l as usize);
    centroids.get(list * dim..(list + 1) * dim).unwrap_or(&[])
}

/// For l2 |r'|^2 + 2 <c, r'>.
#[inline(always)]
pub(super) fn add(vector: &[f32], centroid: &[f32]) -> f32 {
    // In f64, since both may be large and leave little of a distance.
    (dot_f64(vector, vector) + 2.0 * dot_f64(centroid, vector)) as f32
}

/// Rows that one thread encodes at least.
pub(super) const ROWS_PER_THREAD: usize = 64;

/// Encodes one row after the other.
pub(super) trait RowEncoder: Sync {
    /// Which numbers codes have beside them: `add`, `scale`, `error`.
    fn numbers(&self, metric: Metric) -> [bool; 3];

    /// The code of the residual `r` about `centroid`, which is empty where there is none, and those numbers. It may
    /// change `r`. Must be `#[inline(always)]`.
    fn row<S: Simd>(&self, s: S, metric: Metric, r: &mut [f32], centroid: &[f32], code: &mut [u8]) -> [f32; 3];

    /// The first component of a residual that no code comes near to.
    fn outside(&self, _r: &[f32]) -> Option<usize> {
        None
    }
}

/// The codes of rows, of `bytes` bytes each.
pub(super) fn encode_rows<E: RowEncoder>(
    encoder: &E,
    bytes: usize,
    metric: Metric,
    rows: MatrixView<'_, f32>,
    lists: &[u32],
    centroids: &[f32],
) -> Encoded {
    let (n, dim, token) = (rows.rows(), rows.dim(), Token::best());
    let (mut codes, mut numbers) = (vec![0u8; n * bytes], vec![[0.0f32; 3]; n]);
    let chunks = codes.chunks_mut(ROWS_PER_THREAD * bytes).zip(numbers.chunks_mut(ROWS_PER_THREAD)).enumerate();
    let outside = threads::map_with(
        1,
        chunks,
        || vec![0.0; dim],
        |r, (c, (codes, numbers))| {
            token.run(Chunk {
                encoder,
                metric,
                rows,
                lists,
                centroids,
                first: c * ROWS_PER_THREAD,
                bytes,
                r,
                codes,
                numbers,
            })
        },
    );
    let wanted = encoder.numbers(metric);
    let column = |i: usize| if wanted[i] { numbers.iter().map(|x| x[i]).collect() } else { Vec::new() };
    let [add, scale, error] = [0, 1, 2].map(column);
    Encoded { codes, add, scale, error, outside: outside.concat() }
}

struct Chunk<'a, E> {
    encoder: &'a E,
    metric: Metric,
    rows: MatrixView<'a, f32>,
    lists: &'a [u32],
    centroids: &'a [f32],
    first: usize,
    bytes: usize,
    r: &'a mut [f32],
    codes: &'a mut [u8],
    numbers: &'a mut [[f32; 3]],
}

impl<E: RowEncoder> SimdKernel for Chunk<'_, E> {
    type Output = Vec<Outside>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<Outside> {
        let mut outside = Vec::new();
        for (i, (code, numbers)) in self.codes.chunks_exact_mut(self.bytes).zip(self.numbers).enumerate() {
            let centroid = centroid(self.centroids, self.lists, self.first + i, self.rows.dim());
            let row = self.first + i;
            residual(self.rows.row(row), centroid, self.r);
            let found = self.encoder.outside(self.r);
            outside.extend(found.map(|component| Outside { row, component, value: self.r[component] }));
            *numbers = self.encoder.row(s, self.metric, self.r, centroid, code);
        }
        outside
    }
}

/// Weights of queries, rounded, and their terms, for codes whose parts are multiplied by them: `weights` writes what the
/// parts of a query are multiplied by and gives what is added; `middle` is the code about which rounding is to be
/// without effect, and `spread` how far from it codes lie, at most or by their deviation.
pub(super) fn integer_queries(
    form: Form,
    metric: Metric,
    queries: MatrixView<'_, f32>,
    (middle, spread): (f32, f32),
    weights: impl Fn(&[f32], &mut [f32]) -> f64 + Sync,
) -> Prepared {
    let (n, dim) = (queries.rows(), queries.dim());
    let padded = form.padded(dim);
    let mut out = Prepared {
        queries: n,
        integers: vec![0; n * padded],
        terms: vec![Terms::default(); n],
        rounding: vec![0.0; n],
        ..Prepared::default()
    };
    let numbers = out.terms.iter_mut().zip(&mut out.rounding);
    let each = out.integers.chunks_mut(padded.max(1)).zip(numbers).enumerate();
    threads::each_with(
        QUERIES_PER_THREAD,
        each,
        || vec![0.0f32; dim],
        |w, (q, (integers, (terms, rounding)))| {
            let factor = factor(metric);
            let added = weights(queries.row(q), w);
            let scale = round(w, &mut integers[..dim]);
            let (lost, square) = lost(w, integers, scale);
            *terms = Terms { scale: factor * scale, shift: factor * (added + f64::from(middle) * lost) as f32 };
            *rounding = rounding_of(square.sqrt() as f32 * factor.abs() * spread, dim);
        },
    );
    out
}

/// What a query multiplies codes by, unrounded, for codes whose parts are multiplied by `weights`.
pub(super) fn unrounded(metric: Metric, query: &[f32], weights: impl Fn(&[f32], &mut [f32]) -> f64) -> Unrounded {
    let (factor, mut numbers) = (factor(metric), vec![0.0; query.len()]);
    let shift = f64::from(factor) * weights(query, &mut numbers);
    numbers.iter_mut().for_each(|w| *w *= factor);
    Unrounded { numbers, shift }
}

/// How far a sum of so many errors may lie from 0, of which each is at most a number: `together` is the root of the sum of
/// the squares of these. Certainly no farther than if all had one sign; and three times `together` is five deviations of
/// errors that are spread evenly. (Of deviations, where they are all that is known, it is three.)
pub(super) fn rounding_of(together: f32, errors: usize) -> f32 {
    together * (errors as f32).sqrt().min(3.0)
}

/// What rounding to integers takes off weights: its sum, and the sum of its squares.
fn lost(weights: &[f32], integers: &[i8], scale: f32) -> (f64, f64) {
    // Partial sums let the compiler use vectors.
    let (mut sums, mut squares) = ([0.0f64; 8], [0.0f64; 8]);
    for (weights, integers) in weights.chunks(8).zip(integers.chunks(8)) {
        for (at, (&w, &i)) in weights.iter().zip(integers).enumerate() {
            let error = f64::from(w) - f64::from(scale) * f64::from(i);
            sums[at] += error;
            squares[at] += error * error;
        }
    }
    (sums.iter().sum(), squares.iter().sum())
}

/// Queries that one thread prepares at least: fewer are not worth waking another.
pub(super) const QUERIES_PER_THREAD: usize = 32;
