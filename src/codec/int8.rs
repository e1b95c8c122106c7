//! 8-bit codes of rows in their principal subspace; `kernels::codes` says what they hold, `docs/numerics.md` proves the
//! bound.

use rayon::prelude::*;

use super::subspace::{Basis, Principal};
use crate::engine::{Base, Engine, EngineError, Input, Output, Task};
use crate::kernels::codes::{BIAS, Codes, GROUP, PADDING, QueryCodes, QueryTerms};
use crate::plan::{Plan, Problem, Step};
use crate::stats::SearchStats;
use crate::types::{DType, MatrixView, Metric, RowsView};

/// Half the distance from 1 to the next f32.
const U: f64 = 1.0 / (1 << 24) as f64;

/// Rows from which the subspace is learnt.
const SAMPLE: usize = 8192;

/// Rows longer than this keep all their components, as learning a subspace would take too long.
const MOST_LEARNT: usize = 2048;

/// Rows that are projected at a time.
const CHUNK: usize = 2048;

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
        let mean_length = length(mean.iter().map(|&x| f64::from(x)));
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
    pub fn train(
        engine: &dyn Engine,
        metric: Metric,
        rows: &RowsView<'_>,
        norms: &[f32],
    ) -> Result<Coder, EngineError> {
        let (n, dim) = (rows.rows(), rows.dim());
        let count = n.min(SAMPLE);
        let places: Vec<usize> = (0..count).map(|i| (i as u64 * n as u64 / count as u64) as usize).collect();
        let mut sample = vec![0.0f32; count * dim];
        sample.par_chunks_mut(dim).zip(&places).for_each(|(out, &r)| unit(metric, rows, norms, r, out));
        let mut mean = vec![0.0f64; dim];
        for row in sample.chunks_exact(dim) {
            mean.iter_mut().zip(row).for_each(|(m, &x)| *m += f64::from(x));
        }
        let mean: Vec<f32> = mean.iter().map(|m| (m / count.max(1) as f64) as f32).collect();
        sample.par_chunks_mut(dim).for_each(|row| row.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m));
        let padded = dim.next_multiple_of(16);
        let plain = |mean| Coder::new(metric, mean, None, padded);
        if dim > MOST_LEARNT || count < 2 * dim {
            return Ok(plain(mean));
        }
        let columns = transposed(&sample, dim);
        let moments = products(engine, &columns, &columns, count)?;
        let Some(principal) = Principal::new(&moments, dim) else { return Ok(plain(mean)) };
        let turned = products(engine, &principal.rows(), &sample, dim)?;
        let kept = best_dim(&turned, dim, n);
        let basis = principal.turned(kept, kept.next_multiple_of(16));
        Ok(Coder::new(metric, mean, Some(basis), kept.next_multiple_of(16)))
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
        engine: &dyn Engine,
        rows: &RowsView<'_>,
        norms: &[f32],
        codes: &mut Codes,
    ) -> Result<(), EngineError> {
        let (before, dim) = (codes.rows(), rows.dim());
        codes.dim = self.dim;
        codes.bytes.truncate(before * self.dim);
        codes.bytes.reserve_exact(rows.rows() * self.dim + PADDING);
        let done = (0..rows.rows()).step_by(CHUNK).try_for_each(|first| {
            let count = CHUNK.min(rows.rows() - first);
            let mut vectors = vec![0.0f32; count * dim];
            let squares = vectors.par_chunks_mut(dim).enumerate().map(|(i, out)| {
                unit(self.metric, rows, norms, first + i, out);
                let less_mean = out.iter_mut().zip(&self.mean).map(|(x, &m)| {
                    // In f64, before the subtraction rounds.
                    let z = f64::from(*x) - f64::from(m);
                    *x -= m;
                    z * z
                });
                less_mean.sum()
            });
            let squares: Vec<f64> = squares.collect();
            let projected = self.project(engine, &vectors)?;
            let mut bytes = vec![0u8; count * self.dim];
            let parts = bytes.par_chunks_mut(self.dim).zip(projected.par_chunks(self.dim)).zip(&squares);
            let terms: Vec<RowTerms> = parts.map(|((bytes, y), &square)| self.row(y, square, bytes)).collect();
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

    /// The code of a row from its projection and the square of its length.
    fn row(&self, y: &[f32], square: f64, bytes: &mut [u8]) -> RowTerms {
        let (scale, residual) = quantise(y, |i, c| bytes[i] = (c + BIAS) as u8);
        let long = square.sqrt();
        // For cosine the vector was rounded once when it was divided.
        let long = if self.metric == Metric::Cosine { long + 2.0 * U } else { long };
        let inside = (length(y.iter().map(|&x| f64::from(x))) - self.skew * long).max(0.0);
        let tail = (long * long - inside * inside).max(0.0).sqrt();
        let square = if self.metric == Metric::L2 { square * (1.0 - self.slack()) } else { 0.0 };
        RowTerms { square: down(square), scale, residual: up(residual), tail: up(tail), length: up(long) }
    }

    /// What all rounding of a key by expansion and of the direct pass is at most, relative to `|z|^2 + |g|^2`.
    fn slack(&self) -> f64 {
        (self.mean.len() as f64 + 256.0) * U
    }

    /// Queries, as the engines take them, in the code.
    ///
    /// # Errors
    /// [`EngineError`] of the engine that multiplies.
    pub fn queries(
        &self,
        engine: &dyn Engine,
        queries: MatrixView<'_, f32>,
        norms: &[f32],
    ) -> Result<QueryCodes, EngineError> {
        let dim = self.mean.len();
        let mut vectors = vec![0.0f32; queries.rows() * dim];
        for (q, out) in vectors.chunks_exact_mut(dim).enumerate() {
            let query = queries.row(q).iter();
            match self.metric {
                Metric::L2 => out.iter_mut().zip(query).zip(&self.mean).for_each(|((o, x), m)| *o = x - m),
                Metric::InnerProduct => out.copy_from_slice(queries.row(q)),
                _ => {
                    let norm = length(query.clone().map(|&x| f64::from(x)));
                    let norm = if norm > 0.0 { norm } else { 1.0 };
                    out.iter_mut().zip(query).for_each(|(o, &x)| *o = (f64::from(x) / norm) as f32);
                }
            }
        }
        let projected = self.project(engine, &vectors)?;
        let mut codes = QueryCodes { dim: self.dim, bytes: vec![0; queries.rows() * self.dim], terms: Vec::new() };
        let parts = codes.bytes.chunks_mut(self.dim).zip(projected.chunks(self.dim)).zip(vectors.chunks(dim));
        codes.terms =
            parts.zip(norms).map(|(((bytes, y), g), &norm)| self.query(g, y, f64::from(norm), bytes)).collect();
        Ok(codes)
    }

    fn query(&self, g: &[f32], y: &[f32], norm: f64, bytes: &mut [i8]) -> QueryTerms {
        let (scale, lost) = quantise(y, |i, w| bytes[i] = w as i8);
        let coded = f64::from(scale) * length(bytes.iter().map(|&w| f64::from(w)));
        let long = length(g.iter().map(|&x| f64::from(x))) * (1.0 + 2.0 * U);
        let inside = (length(y.iter().map(|&x| f64::from(x))) - self.skew * long).max(0.0);
        let tail = (long * long - inside * inside).max(0.0).sqrt();
        let skew = self.skew;
        let error = lost * (1.0 + skew) + (2.0 * skew + 3.0 * skew * skew) * long + 128.0 * U * long;
        let direct = (self.mean.len() as f64 / 4.0 + 16.0) * U;
        // Flushed subnormal numbers, in whatever the key is made of.
        let tiny = f64::powi(2.0, -100);
        let (factor, offset, error) = match self.metric {
            Metric::L2 => (2.0, long * long * (1.0 - self.slack()) * (1.0 - 8.0 * U) - tiny, error),
            metric => {
                let middle: f64 = g.iter().zip(&self.mean).map(|(&x, &m)| f64::from(x) * f64::from(m)).sum();
                let rounding = (128.0 * U + direct) * long * self.mean_length + tiny;
                match metric {
                    Metric::InnerProduct => (1.0, -middle - rounding, error + direct * norm),
                    _ => (1.0, -middle - rounding - 2.0 * direct - 16.0 * U, error),
                }
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
    fn project(&self, engine: &dyn Engine, vectors: &[f32]) -> Result<Vec<f32>, EngineError> {
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

/// What a row has beside its code.
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

    /// What a row has beside its code; its length may be that of a longer row of its group.
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

    /// Appends what the next row has beside its code.
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
        let norm = length(out.iter().map(|&x| f64::from(x)));
        out.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
    }
}

/// Integers from -127 to 127 and their scale, chosen by least squares; gives the scale and the length of what is lost.
fn quantise(y: &[f32], mut write: impl FnMut(usize, i32)) -> (f32, f64) {
    let most = y.iter().fold(0.0f32, |a, x| a.max(x.abs()));
    // Components too small for their quotients are lost whole.
    let per_unit = if most > f32::MIN_POSITIVE { 127.0 / most } else { 0.0 };
    if !per_unit.is_finite() || per_unit == 0.0 {
        (0..y.len()).for_each(|i| write(i, 0));
        return (0.0, length(y.iter().map(|&x| f64::from(x))));
    }
    let integer = |x: f32| (x * per_unit).round_ties_even();
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
/// components are read quickly, but leave many rows to look at.
fn best_dim(sample: &[f32], dim: usize, n: usize) -> usize {
    const QUERIES: usize = 48;
    // Nanoseconds of one core: for a component of a code, for a code, for a row that has to be looked at.
    const COMPONENT: f64 = 0.006;
    let SUSPECT: f64 = std::env::var("SUS").ok().and_then(|s| s.parse().ok()).unwrap_or(330.0);
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
    let lefts: Vec<Vec<f32>> = sample.par_chunks_exact(dim).map(left).collect();
    let queries = QUERIES.min(rows);
    let survivors: Vec<Vec<u64>> = (0..queries)
        .into_par_iter()
        .map(|i| {
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
        })
        .collect();
    let cost = |c: usize| {
        let mean = survivors.iter().map(|s| s[c] as f64).sum::<f64>() / survivors.len().max(1) as f64 / rows as f64;
        n as f64 * (((c + 1) * step) as f64 * COMPONENT + mean * SUSPECT)
    };
    let best = (0..choices).min_by(|&a, &b| cost(a).total_cmp(&cost(b))).unwrap_or(choices - 1);
    // Nearly all of them: then all, and nothing lies outside.
    let kept = (best + 1) * step;
    if kept * 10 >= dim * 9 { dim } else { kept }
}

/// All inner products of `vectors` and `rows`, both `[.., dim]`: `[vectors, rows]`.
fn products(engine: &dyn Engine, rows: &[f32], vectors: &[f32], dim: usize) -> Result<Vec<f32>, EngineError> {
    let wrong = |e: crate::types::ShapeError| EngineError::Mismatch(e.to_string());
    let (rows, vectors) = (MatrixView::new(rows, dim).map_err(wrong)?, MatrixView::new(vectors, dim).map_err(wrong)?);
    let (metric, dtype) = (Metric::InnerProduct, DType::F32);
    let problem = Problem { metric, dtype, dim, rows: rows.rows(), queries: vectors.rows() };
    let plan = Plan::one(problem, Step::Distance);
    let norms = vec![0.0; vectors.rows()];
    let task = Task {
        plan: &plan,
        base: Base { rows: RowsView::F32(rows), norms: None, tag: None, codes: None },
        queries: RowsView::F32(vectors),
        query_norms: &norms,
        mask: None,
        input: Input::None,
    };
    match engine.run(&task, &mut SearchStats::default())? {
        Output::Matrix(keys) => Ok(keys.into_iter().map(|key| -key).collect()),
        _ => Err(EngineError::Mismatch("a plan of distances gave no matrix".to_owned())),
    }
}

fn transposed(rows: &[f32], dim: usize) -> Vec<f32> {
    let n = rows.len() / dim;
    let mut out = vec![0.0; rows.len()];
    out.par_chunks_mut(n).enumerate().for_each(|(d, column)| {
        column.iter_mut().zip(rows.chunks_exact(dim)).for_each(|(o, row)| *o = row[d]);
    });
    out
}

fn square(x: &[f32]) -> f32 {
    x.iter().map(|a| a * a).sum()
}

fn length(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|a| a * a).sum::<f64>().sqrt()
}

/// An f32 at least as large (for a number that is not negative), with room for the f64 sums behind it.
fn up(x: f64) -> f32 {
    (x * (1.0 + 1e-9)) as f32 * (1.0 + 2.0 * f32::EPSILON) + f32::MIN_POSITIVE
}

/// An f32 that is not larger.
fn down(x: f64) -> f32 {
    (x - x.abs() * 2e-7) as f32
}
