//! 8-bit codes of rows in their principal subspace; `ops::codes` says what they hold, `docs/numerics.md` proves the
//! bound.

use crate::compute::{EngineError, Input, Output};
pub(crate) use crate::linalg::Basis;
use crate::linalg::{self, Principal, dot_f64, transposed};
use crate::ops::codes::{BIAS, Codes, GROUP, PADDING, QueryCodes, QueryTerms};
use crate::ops::{self, Engine, Matmul, Program};
use crate::stats::SearchStats;
use crate::threads;
use crate::types::{MatrixView, Metric, RowsView};

/// Half the distance from 1 to the next f32.
const U: f64 = 1.0 / (1 << 24) as f64;

/// Rows from which the subspace is learnt.
const SAMPLE_ROWS: usize = 8192;

/// Rows longer than this keep all their components, as learning a subspace would take too long.
const MOST_LEARNT: usize = 2048;

/// Bytes of rows that are projected at a time.
const CHUNK_BYTES: usize = 4 << 20;

/// Bytes of rows from which the mean is taken.
const SAMPLE_BYTES: usize = 64 << 20;

/// How rows and queries become codes: the mean m and the basis V.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Coder {
    pub metric: Metric,
    /// m.
    pub mean: Vec<f32>,
    /// V; absent when a code keeps the components as they are.
    pub basis: Option<Basis>,
    /// Components of a code.
    pub dim: usize,
    /// `|m|`.
    mean_length: f64,
    /// How far a projection may lie from the exact one in an orthonormal basis, relative to the length of what is
    /// projected.
    skew: f64,
}

impl Coder {
    /// The codes for a metric, from its parts.
    pub fn new(metric: Metric, mean: Vec<f32>, basis: Option<Basis>, dim: usize) -> Coder {
        let mean_length = length(&mean);
        let full = mean.len();
        // One product of a row with a direction errs at most `(full / 4 + 16) u` times both lengths.
        let skew = basis.as_ref().map_or(2.0 * U, |basis| {
            let direction = 1.0 + basis.skew;
            1.01 * (basis.skew + direction * ((dim as f64).sqrt() * (full as f64 / 4.0 + 16.0) * U + 2.0 * U))
        });
        Coder { metric, mean, basis, dim, mean_length, skew }
    }

    /// Learns a code from rows and their lengths: the mean, and the subspace in which a search is expected to be fastest.
    ///
    /// # Errors
    /// [`EngineError`] of the engine that multiplies.
    pub fn train(engine: &Engine, metric: Metric, rows: &RowsView<'_>, norms: &[f32]) -> Result<Coder, EngineError> {
        Coder::learn(engine, metric, rows, norms, best_dim)
    }

    /// Learns a code that compares the rows with means of theirs: by the fewest principal directions that hold most of the
    /// variance, since a mean has little outside of them.
    ///
    /// # Errors
    /// As [`Coder::train`].
    pub fn for_means(
        engine: &Engine,
        metric: Metric,
        rows: &RowsView<'_>,
        norms: &[f32],
    ) -> Result<Coder, EngineError> {
        Coder::learn(engine, metric, rows, norms, |turned, dim, _| dim_with_most(turned, dim))
    }

    /// Learns a code with as many principal components as `choose` makes of a sample in their order, its dim, and the
    /// number of rows.
    fn learn(
        engine: &Engine,
        metric: Metric,
        rows: &RowsView<'_>,
        norms: &[f32],
        choose: impl FnOnce(&[f32], usize, usize) -> usize,
    ) -> Result<Coder, EngineError> {
        let (n, dim) = (rows.rows(), rows.dim());
        let count = n.min(SAMPLE_ROWS).min(SAMPLE_BYTES / (4 * dim)).max(1).min(n);
        let places: Vec<usize> = (0..count).map(|i| (i as u64 * n as u64 / count as u64) as usize).collect();
        let mut sample = vec![0.0f32; count * dim];
        threads::each(64, sample.chunks_mut(dim).zip(&places), |(out, &r)| unit(metric, rows, norms, r, out));
        let mean = linalg::mean(&sample, dim);
        threads::each(64, sample.chunks_mut(dim), |row| row.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m));
        let padded = dim.next_multiple_of(16);
        let plain = |mean| Coder::new(metric, mean, None, padded);
        if dim > MOST_LEARNT || count < 2 * dim {
            return Ok(plain(mean));
        }
        let columns = transposed(&sample, dim);
        let moments = products(engine, &columns, &columns, count)?;
        let Some(principal) = Principal::new(&moments, dim) else { return Ok(plain(mean)) };
        let turned = products(engine, &principal.rows(), &sample, dim)?;
        let kept = choose(&turned, dim, n);
        let basis = principal.turned(kept, kept.next_multiple_of(16));
        Ok(Coder::new(metric, mean, Some(basis), kept.next_multiple_of(16)))
    }

    /// Directions of the basis that are not zero; 0 without a basis.
    pub fn kept(&self) -> usize {
        self.basis.as_ref().map_or(0, |basis| basis.kept)
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        (self.mean.len() + self.basis.as_ref().map_or(0, |b| b.rows.len())) * 4
    }

    /// Appends the codes of `rows`, whose lengths are `norms`.
    ///
    /// # Errors
    /// [`EngineError`] of the engine that multiplies; nothing is appended then.
    pub fn encode(
        &self,
        engine: &Engine,
        rows: &RowsView<'_>,
        norms: &[f32],
        codes: &mut Codes,
    ) -> Result<(), EngineError> {
        let (before, dim) = (codes.rows(), rows.dim());
        let more = rows.rows() * self.dim + PADDING;
        let full = EngineError::AnswerTooLarge { rows: rows.rows(), width: self.dim };
        codes.bytes.try_reserve_exact(more).map_err(|_| full)?;
        codes.dim = self.dim;
        codes.bytes.truncate(before * self.dim);
        let chunk = chunk_rows(dim);
        let done = (0..rows.rows()).step_by(chunk).try_for_each(|first| {
            let count = chunk.min(rows.rows() - first);
            let mut vectors = vec![0.0f32; count * dim];
            let squares = threads::map(ROWS_PER_THREAD, vectors.chunks_mut(dim).enumerate(), |(i, out)| {
                unit(self.metric, rows, norms, first + i, out);
                let (mut square, mut with_mean) = (0.0, 0.0);
                for (x, &m) in out.iter_mut().zip(&self.mean) {
                    // In f64, before the subtraction rounds.
                    let z = f64::from(*x) - f64::from(m);
                    *x -= m;
                    square += z * z;
                    with_mean += z * f64::from(m);
                }
                (square, with_mean)
            });
            let projected = self.project(engine, &vectors)?;
            let mut bytes = vec![0u8; count * self.dim];
            let parts = bytes.chunks_mut(self.dim).zip(projected.chunks(self.dim)).zip(&squares);
            let terms: Vec<RowTerms> = threads::map(ROWS_PER_THREAD, parts, |((bytes, y), &(square, with_mean))| {
                self.row(y, square, with_mean, bytes)
            });
            codes.bytes.extend_from_slice(&bytes);
            terms.iter().for_each(|row| codes.push(row));
            Ok(())
        });
        if done.is_err() {
            codes.truncate(before);
        }
        codes.bytes.resize(codes.rows() * self.dim + PADDING, 0);
        done
    }

    /// The code of a row from its projection, the square of its length and its product with the mean.
    fn row(&self, y: &[f32], square: f64, with_mean: f64, bytes: &mut [u8]) -> RowTerms {
        let (scale, residual) = quantise(y, |i, c| bytes[i] = (c + BIAS) as u8);
        let long = square.sqrt();
        // For cosine the vector was rounded once when it was divided.
        let long = if self.metric == Metric::Cosine { long + 2.0 * U } else { long };
        let tail = self.tail(y, long);
        let square = match self.metric {
            Metric::L2 => square * (1.0 - self.slack()),
            Metric::Cosine => -with_mean,
            _ => 0.0,
        };
        RowTerms { square: down(square), scale, residual: up(residual), tail: up(tail), length: up(long) }
    }

    /// At least the length of the part outside of the subspace, of a vector of at most this length and its projection.
    fn tail(&self, y: &[f32], long: f64) -> f64 {
        let inside = (length(y) - self.skew * long).max(0.0);
        (long * long - inside * inside).max(0.0).sqrt()
    }

    /// Bound of all rounding of a key by expansion and of the direct pass, relative to `|z|^2 + |g|^2`.
    fn slack(&self) -> f64 {
        (self.mean.len() as f64 + 256.0) * U
    }

    /// Queries, as the engines take them, in the code.
    ///
    /// # Errors
    /// [`EngineError`] of the engine that multiplies.
    pub fn queries(
        &self,
        engine: &Engine,
        queries: MatrixView<'_, f32>,
        norms: &[f32],
    ) -> Result<QueryCodes, EngineError> {
        let mut codes = QueryCodes { dim: self.dim, bytes: Vec::new(), terms: Vec::new() };
        let chunk = chunk_rows(self.mean.len());
        for first in (0..queries.rows()).step_by(chunk) {
            let end = queries.rows().min(first + chunk);
            self.some_queries(engine, queries.slice(first, end), &norms[first..end], &mut codes)?;
        }
        Ok(codes)
    }

    fn some_queries(
        &self,
        engine: &Engine,
        queries: MatrixView<'_, f32>,
        norms: &[f32],
        codes: &mut QueryCodes,
    ) -> Result<(), EngineError> {
        let dim = self.mean.len();
        let mut vectors = vec![0.0f32; queries.rows() * dim];
        threads::each(QUERIES_PER_THREAD, vectors.chunks_exact_mut(dim).enumerate(), |(q, out)| {
            let query = queries.row(q).iter();
            match self.metric {
                Metric::L2 => out.iter_mut().zip(query).zip(&self.mean).for_each(|((o, x), m)| *o = x - m),
                Metric::InnerProduct => out.copy_from_slice(queries.row(q)),
                _ => {
                    let norm = length(queries.row(q));
                    let norm = if norm > 0.0 { norm } else { 1.0 };
                    let less_mean = |x: f32, m: f32| (f64::from(x) / norm - f64::from(m)) as f32;
                    out.iter_mut().zip(query).zip(&self.mean).for_each(|((o, &x), &m)| *o = less_mean(x, m));
                }
            }
        });
        let projected = self.project(engine, &vectors)?;
        let before = codes.bytes.len();
        codes.bytes.resize(before + queries.rows() * self.dim, 0);
        let parts = codes.bytes[before..].chunks_mut(self.dim).zip(projected.chunks(self.dim));
        let parts = parts.zip(vectors.chunks(dim)).zip(norms).enumerate();
        codes.terms.extend(threads::map(QUERIES_PER_THREAD, parts, |(q, (((bytes, y), g), &norm))| {
            let norm = f64::from(norm);
            let unit = if self.metric == Metric::Cosine && norm > 0.0 { norm } else { 1.0 };
            let with_mean = dot_f64(queries.row(q), &self.mean) / unit;
            self.query(g, y, norm, with_mean, bytes)
        }));
        Ok(())
    }

    /// The code of a query from `g`, its projection, its own length and its product with the mean.
    fn query(&self, g: &[f32], y: &[f32], norm: f64, with_mean: f64, bytes: &mut [i8]) -> QueryTerms {
        let (scale, lost) = quantise(y, |i, w| bytes[i] = w as i8);
        let coded = f64::from(scale) * bytes.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>().sqrt();
        let long = length(g) * (1.0 + 2.0 * U);
        let tail = self.tail(y, long);
        let skew = self.skew;
        let error = lost * (1.0 + skew) + (2.0 * skew + 3.0 * skew * skew) * long + 128.0 * U * long;
        let direct = (self.mean.len() as f64 / 4.0 + 16.0) * U;
        // Flushed subnormal numbers, in any term of the key.
        let tiny = f64::powi(2.0, -100);
        let (factor, offset, error) = match self.metric {
            Metric::L2 => (2.0, long * long * (1.0 - self.slack()) * (1.0 - 8.0 * U) - tiny, error),
            Metric::InnerProduct => {
                let rounding = (128.0 * U + direct) * long * self.mean_length + tiny;
                (1.0, -with_mean - rounding, error + direct * norm)
            }
            // Of lengths near 1: each vector was rounded when it was divided, and the direct pass errs.
            _ => {
                let rounding = (128.0 * U + direct) * self.mean_length + 2.0 * direct + 16.0 * U + tiny;
                (1.0, -with_mean - rounding, error + 128.0 * U * self.mean_length)
            }
        };
        QueryTerms {
            offset: down(offset),
            scale: factor as f32 * scale,
            length: up(factor * coded),
            tail: up(factor * tail),
            error: up(factor * error),
        }
    }

    /// The products of vectors with all directions, or the vectors themselves with zeros behind them.
    fn project(&self, engine: &Engine, vectors: &[f32]) -> Result<Vec<f32>, EngineError> {
        let dim = self.mean.len();
        match &self.basis {
            Some(basis) => products(engine, &basis.rows, vectors, dim),
            None => {
                let mut out = vec![0.0; vectors.len() / dim * self.dim];
                for (out, row) in out.chunks_mut(self.dim).zip(vectors.chunks(dim)) {
                    out[..dim].copy_from_slice(row);
                }
                Ok(out)
            }
        }
    }
}

/// Queries that one thread codes at least: fewer are not worth waking another.
const QUERIES_PER_THREAD: usize = 16;

/// Rows that one thread codes at least.
const ROWS_PER_THREAD: usize = 16;

/// Rows of a chunk.
fn chunk_rows(dim: usize) -> usize {
    (CHUNK_BYTES / (4 * dim.max(1))).clamp(16, 4096)
}

/// The terms of a row beside its code.
pub(crate) struct RowTerms {
    square: f32,
    scale: f32,
    residual: f32,
    tail: f32,
    length: f32,
}

impl Codes {
    /// The codes of these runs of rows; none when some have no code.
    pub fn select(&self, runs: &[(usize, usize)]) -> Option<Codes> {
        if runs.last().is_some_and(|&(_, end)| end > self.rows()) {
            return None;
        }
        let mut out = Codes { dim: self.dim, ..Codes::default() };
        for &(start, end) in runs {
            out.bytes.extend_from_slice(&self.bytes[start * self.dim..end * self.dim]);
            (start..end).for_each(|r| out.push(&self.terms(r)));
        }
        out.bytes.resize(out.rows() * self.dim + PADDING, 0);
        Some(out)
    }

    /// Puts the only row of `one` in the place of a row.
    pub fn replace(&mut self, row: usize, one: &Codes) {
        self.bytes[row * self.dim..(row + 1) * self.dim].copy_from_slice(one.row(0));
        (self.square[row], self.scale[row]) = (one.square[0], one.scale[0]);
        (self.residual[row], self.tail[row]) = (one.residual[0], one.tail[0]);
        self.longest[row / GROUP] = self.longest[row / GROUP].max(one.longest[0]);
    }

    /// The terms of a row beside its code; its length may be that of a longer row of its group.
    fn terms(&self, r: usize) -> RowTerms {
        let (square, scale, residual, tail) = (self.square[r], self.scale[r], self.residual[r], self.tail[r]);
        RowTerms { square, scale, residual, tail, length: self.longest[r / GROUP] }
    }

    /// Forgets all but the first rows. (The lengths of groups stay what they were, which is safe.)
    fn truncate(&mut self, rows: usize) {
        self.bytes.truncate(rows * self.dim);
        for list in [&mut self.square, &mut self.scale, &mut self.residual, &mut self.tail] {
            list.truncate(rows);
        }
        self.longest.truncate(rows.div_ceil(GROUP));
    }

    /// Appends the terms of the next row.
    fn push(&mut self, row: &RowTerms) {
        let group = self.rows() / GROUP;
        self.square.push(row.square);
        self.scale.push(row.scale);
        self.residual.push(row.residual);
        self.tail.push(row.tail);
        match self.longest.get_mut(group) {
            Some(longest) => *longest = longest.max(row.length),
            None => self.longest.push(row.length),
        }
    }
}

/// The vector that stands for a row before the mean is taken off: the row, for cosine divided by its length.
fn unit(metric: Metric, rows: &RowsView<'_>, norms: &[f32], r: usize, out: &mut [f32]) {
    rows.row_f32(r, out);
    if metric == Metric::Cosine && norms[r] > 0.0 {
        let norm = length(out);
        out.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// Integers from -127 to 127 and their scale, chosen by least squares; gives the scale and the length of the residual.
fn quantise(y: &[f32], mut write: impl FnMut(usize, i32)) -> (f32, f64) {
    let most = y.iter().fold(0.0f32, |a, x| a.max(x.abs()));
    // Components too small for their quotients are lost whole.
    let per_unit = if most > f32::MIN_POSITIVE { 127.0 / most } else { 0.0 };
    if !per_unit.is_finite() || per_unit == 0.0 {
        (0..y.len()).for_each(|i| write(i, 0));
        return (0.0, length(y));
    }
    // Adding and taking off 1.5 * 2^23 rounds to the nearest integer.
    let integer = |x: f32| (x * per_unit + 12_582_912.0) - 12_582_912.0;
    let (mut with_y, mut square) = (0.0f64, 0.0f64);
    for &x in y {
        let c = f64::from(integer(x));
        with_y += c * f64::from(x);
        square += c * c;
    }
    let scale = (with_y / square) as f32;
    let mut lost = 0.0f64;
    for (i, &x) in y.iter().enumerate() {
        let c = integer(x);
        write(i, c as i32);
        lost += (f64::from(x) - f64::from(scale) * f64::from(c)).powi(2);
    }
    (scale, lost.sqrt())
}

/// How many principal components make a search of `n` rows fastest, from a sample `[rows, dim]` in their order: few
/// components are read quickly, but leave many candidates.
fn best_dim(sample: &[f32], dim: usize, n: usize) -> usize {
    const SAMPLE_QUERIES: usize = 48;
    // Nanoseconds of one core: for a component of a code, for a code, for a candidate row.
    const COMPONENT: f64 = 0.006;
    const SUSPECT: f64 = 600.0;
    let rows = sample.len() / dim;
    let step = 16;
    let choices = dim.div_ceil(step);
    // What is left of the length of a vector behind the first components.
    let left = |x: &[f32]| -> Vec<f32> {
        let mut left: Vec<f32> = (0..choices).map(|c| square(&x[c * step..dim.min((c + 1) * step)])).collect();
        (0..choices - 1).rev().for_each(|c| left[c] += left[c + 1]);
        left.push(0.0);
        left.iter().map(|x| x.sqrt()).collect()
    };
    let lefts: Vec<Vec<f32>> = threads::map(64, sample.chunks_exact(dim), left);
    let queries = SAMPLE_QUERIES.min(rows);
    let survivors: Vec<Vec<u64>> = threads::map(1, 0..queries, |i| {
        let i = i * (rows / queries);
        let (q, q_left) = (&sample[i * dim..(i + 1) * dim], &lefts[i]);
        let mut bounds = vec![0.0f32; rows * choices];
        for ((x, x_left), bounds) in sample.chunks_exact(dim).zip(&lefts).zip(bounds.chunks_exact_mut(choices)) {
            let mut sum = 0.0;
            for (c, bound) in bounds.iter_mut().enumerate() {
                let part = c * step..dim.min((c + 1) * step);
                sum += x[part.clone()].iter().zip(&q[part]).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
                *bound = sum + (x_left[c + 1] - q_left[c + 1]).powi(2);
            }
        }
        // The nearest of the sample, the query itself left out, stands for the k-th of all rows.
        let mut whole: Vec<f32> = bounds.iter().skip(choices - 1).step_by(choices).copied().collect();
        let nearest = *whole.select_nth_unstable_by(1.min(rows - 1), f32::total_cmp).1 * 1.0001;
        let within = |c: usize| bounds.iter().skip(c).step_by(choices).filter(|&&b| b <= nearest).count();
        (0..choices).map(|c| within(c) as u64).collect()
    });
    let cost = |c: usize| {
        let mean = survivors.iter().map(|s| s[c] as f64).sum::<f64>() / survivors.len().max(1) as f64 / rows as f64;
        n as f64 * (((c + 1) * step) as f64 * COMPONENT + mean * SUSPECT)
    };
    let best = (0..choices).min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(choices - 1);
    // Nearly all of them: then all, and nothing lies outside.
    let kept = (best + 1) * step;
    if kept * 10 >= dim * 9 { dim } else { kept }
}

/// Share of the variance that [`Coder::for_means`] keeps.
const MEANS_VARIANCE: f64 = 0.85;

/// The fewest principal components, of a sample `[rows, dim]` in their order, that hold [`MEANS_VARIANCE`] of the variance.
fn dim_with_most(sample: &[f32], dim: usize) -> usize {
    let mut variance = vec![0.0f64; dim];
    for row in sample.chunks_exact(dim) {
        variance.iter_mut().zip(row).for_each(|(v, &x)| *v += f64::from(x) * f64::from(x));
    }
    let (whole, mut held) = (variance.iter().sum::<f64>(), 0.0);
    let short = variance.iter().take_while(|&&v| {
        held += v;
        held < MEANS_VARIANCE * whole
    });
    let kept = (short.count() + 1).next_multiple_of(16);
    if kept * 10 >= dim * 9 { dim } else { kept }
}

/// All inner products of `vectors` and `rows`, both `[.., dim]`: `[vectors, rows]`.
fn products(engine: &Engine, rows: &[f32], vectors: &[f32], dim: usize) -> Result<Vec<f32>, EngineError> {
    let inputs = [vectors, rows].map(|values| Input::Matrix { values, shape: [values.len() / dim.max(1), dim] });
    let mut program = Program::new();
    let [a, b] = [program.input(inputs[0].ty()?), program.input(inputs[1].ty()?)];
    let product = program.push(Matmul { a, b, transposed: true })?;
    program.output(product);
    match ops::run(engine, &program, &inputs, &mut SearchStats::default())? {
        Output::Matrix(products) => Ok(products),
        _ => Err(EngineError::Mismatch("a product gave no matrix".to_owned())),
    }
}

fn square(x: &[f32]) -> f32 {
    x.iter().map(|a| a * a).sum()
}

/// The length, with the error of [`dot_f64`].
fn length(x: &[f32]) -> f64 {
    dot_f64(x, x).sqrt()
}

/// An f32 at least as large (for a number that is not negative), with room for the f64 sums behind it.
fn up(x: f64) -> f32 {
    (x * (1.0 + 1e-9)) as f32 * (1.0 + 2.0 * f32::EPSILON) + f32::MIN_POSITIVE
}

/// An f32 that is not larger.
fn down(x: f64) -> f32 {
    (x - x.abs() * 2e-7) as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compute::{Candidates, Tag, Vectors};
    use crate::cpu::{CpuEngine, CpuOptions, Level};
    use crate::ops::codes::{lower_bound, product};
    use crate::ops::search::norm_in_range;
    use crate::ops::{Batch, Coded, Distance, Screen};

    const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

    fn distances(batch: &Batch<'_>) -> Result<Program, EngineError> {
        batch.one(|pairs, _| Distance { pairs })
    }

    fn engine(level: Option<Level>) -> CpuEngine {
        CpuEngine::new(CpuOptions { threads: Some(2), level })
    }

    fn lengths(rows: &[f32], dim: usize) -> Vec<f32> {
        rows.chunks_exact(dim).map(|row| length(row) as f32).collect()
    }

    fn view(rows: &[f32], dim: usize) -> MatrixView<'_, f32> {
        MatrixView::new(rows, dim).expect("whole rows")
    }

    /// Runs a program over rows and queries, behind codes when there are any.
    fn run(
        engine: &CpuEngine,
        metric: Metric,
        (rows, queries): (&[f32], &[f32]),
        dim: usize,
        program: impl FnOnce(&Batch<'_>) -> Result<Program, EngineError>,
        codes: Option<(&Codes, &QueryCodes)>,
    ) -> Output {
        let (rows, queries) = (view(rows, dim), view(queries, dim));
        let (norms, query_norms) = (lengths(rows.as_slice(), dim), lengths(queries.as_slice(), dim));
        let tag = Tag::new();
        let batch = Batch {
            metric,
            rows: Vectors { rows: rows.into(), norms: Some(&norms), tag: None },
            queries: Vectors { rows: queries.into(), norms: Some(&query_norms), tag: None },
            mask: None,
            codes: codes.map(|(codes, queries)| Coded { codes, tag: &tag, queries }),
        };
        let program = program(&batch).expect("operands that fit together");
        ops::run(engine, &program, &batch.inputs(), &mut SearchStats::default()).expect("a program that runs")
    }

    fn coded(engine: &CpuEngine, metric: Metric, rows: &[f32], queries: &[f32], dim: usize) -> (Codes, QueryCodes) {
        let (norms, query_norms) = (lengths(rows, dim), lengths(queries, dim));
        let rows = RowsView::F32(view(rows, dim));
        let coder = Coder::train(engine, metric, &rows, &norms).expect("trained");
        let mut codes = Codes::default();
        coder.encode(engine, &rows, &norms, &mut codes).expect("coded");
        (codes, coder.queries(engine, view(queries, dim), &query_norms).expect("coded"))
    }

    /// Rows in few directions, of lengths that differ by `spread` powers of ten, around a mean.
    fn rows(seed: u64, n: usize, dim: usize, spread: f32, mean: f32, scale: f32) -> Vec<f32> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let directions: Vec<f32> = (0..4 * dim).map(|_| next()).collect();
        let mut out = Vec::new();
        for _ in 0..n {
            let (weights, long) = ([next(), next(), next(), next()], f32::powf(10.0, spread * next()));
            for d in 0..dim {
                let inside: f32 = (0..4).map(|i| weights[i] * directions[i * dim + d]).sum();
                out.push(scale * (mean + long * (inside + 0.05 * next())));
            }
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        /// No direct key ever falls below the bound, with a learnt subspace and without one.
        #[test]
        fn row_b8_no_key_falls_below_its_bound(
            seed in 1u64..u64::MAX,
            dim in prop::sample::select(vec![1usize, 3, 16, 17, 40, 96]),
            many: bool,
            spread in 0.0f32..4.0,
            mean in prop::sample::select(vec![0.0f32, 0.3, 20.0]),
            scale in prop::sample::select(vec![1e-9f32, 1.0, 1e9]),
        ) {
            let engine = engine(None);
            // Few rows have no subspace of their own.
            let n = if many { 2 * dim + 40 } else { 20 };
            let base = rows(seed, n, dim, spread, mean, scale);
            let mut queries = rows(seed ^ 0xabcdef, 6, dim, spread, mean, scale);
            queries[..dim].copy_from_slice(&base[..dim]);
            for metric in METRICS {
                prop_assume!(lengths(&base, dim).iter().chain(&lengths(&queries, dim)).all(|&x| norm_in_range(x)));
                let (codes, query_codes) = coded(&engine, metric, &base, &queries, dim);
                let Output::Matrix(keys) = run(&engine, metric, (&base, &queries), dim, distances, None) else {
                    panic!("no matrix");
                };
                for (q, terms) in query_codes.terms.iter().enumerate() {
                    for r in 0..n {
                        let bound = lower_bound(&codes, r, terms, product(codes.row(r), query_codes.query(q)));
                        let key = keys[q * n + r];
                        prop_assert!(bound <= key, "{metric}, row {r}, query {q}: bound {bound} above {key}");
                    }
                }
            }
        }
    }

    #[test]
    fn bounds_are_tight_where_the_data_has_few_directions() {
        let (n, dim) = (600, 64);
        let engine = engine(None);
        let (base, queries) = (rows(3, n, dim, 0.0, 0.5, 1.0), rows(4, 5, dim, 0.0, 0.5, 1.0));
        for metric in METRICS {
            let (codes, query_codes) = coded(&engine, metric, &base, &queries, dim);
            let keys = run(&engine, metric, (&base, &queries), dim, distances, None);
            let Output::Matrix(keys) = keys else { panic!("no matrix") };
            let spread =
                keys[..n].iter().fold(f32::MIN, |a, &b| a.max(b)) - keys[..n].iter().fold(f32::MAX, |a, &b| a.min(b));
            let bound =
                |r: usize| lower_bound(&codes, r, &query_codes.terms[0], product(codes.row(r), query_codes.query(0)));
            let mean = (0..n).map(|r| keys[r] - bound(r)).sum::<f32>() / n as f32;
            assert!(mean < spread / 8.0, "{metric}: bounds lie {mean} below keys that differ by {spread}");
        }
    }

    #[test]
    fn every_level_finds_the_same_behind_codes() {
        for (n, dim, q) in [(1000, 40, 1), (777, 96, 7), (500, 20, 33)] {
            let (base, queries) = (rows(5, n, dim, 0.3, 0.2, 1.0), rows(6, q, dim, 0.3, 0.2, 1.0));
            for metric in METRICS {
                let mut found: Vec<Candidates> = Vec::new();
                for level in Level::available() {
                    let engine = engine(Some(level));
                    let (codes, query_codes) = coded(&engine, metric, &base, &queries, dim);
                    let nine = |batch: &Batch<'_>| batch.nearest(9, Screen::Int8);
                    let codes = Some((&codes, &query_codes));
                    let Output::Candidates(c) = run(&engine, metric, (&base, &queries), dim, nine, codes) else {
                        panic!("no candidates");
                    };
                    assert!((0..q).all(|i| c.keys[i * 9 + 8] < c.bound[i]), "{level:?}: not proven");
                    found.push(c);
                }
                for other in &found[1..] {
                    assert_eq!(found[0].positions, other.positions, "{metric}, {n} x {dim}, {q} queries");
                }
            }
        }
    }

    #[test]
    fn codes_of_rows_that_cannot_be_coded_lose_everything_and_say_so() {
        let (scale, lost) = quantise(&[0.0; 16], |_, c| assert_eq!(c, 0));
        assert_eq!((scale, lost), (0.0, 0.0));
        let tiny = [f32::MIN_POSITIVE / 4.0; 16];
        let (scale, lost) = quantise(&tiny, |_, c| assert_eq!(c, 0));
        assert!(scale == 0.0 && lost >= 3.9 * f64::from(tiny[0]));
        assert!(up(1.0) > 1.0 && down(1.0) < 1.0 && down(-1.0) < -1.0 && up(0.0) > 0.0);
    }
}
