//! Products of rows with a matrix: what transforms and their training multiply.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use crate::threads;

/// Rows of a chunk that one thread takes.
const ROWS_PER_THREAD: usize = 192;

/// A matrix `[input, output]`, row by row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DenseMatrix {
    pub input: usize,
    pub output: usize,
    pub rows: Vec<f32>,
}

impl DenseMatrix {
    /// From `[input, output]`, row by row.
    pub fn new(input: usize, output: usize, rows: Vec<f32>) -> DenseMatrix {
        debug_assert_eq!(rows.len(), input * output);
        DenseMatrix { input, output, rows }
    }

    /// `x` times the matrix: `[n, input]` to `[n, output]`, on the calling thread.
    pub fn times(&self, x: &[f32], out: &mut [f32]) {
        let (input, output) = (self.input, self.output);
        let n = x.len() / input;
        let x = MatRef::from_row_major_slice(x, n, input);
        let matrix = MatRef::from_row_major_slice(&self.rows, input, output);
        matmul(MatMut::from_row_major_slice_mut(out, n, output), Accum::Replace, x, matrix, 1.0, Par::Seq);
    }

    /// As `times`, on all threads.
    pub fn times_all(&self, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len() / self.input.max(1) * self.output];
        let parts = out.chunks_mut(ROWS_PER_THREAD * self.output).zip(x.chunks(ROWS_PER_THREAD * self.input));
        threads::each(1, parts, |(out, x)| self.times(x, out));
        out
    }
}

/// The second moments `[dim, dim]` of rows `[n, dim]`.
pub(crate) fn moments(rows: &[f32], dim: usize) -> Vec<f32> {
    products(rows, dim, rows, dim)
}

/// `X' Y` of rows `[n, a]` and `[n, b]`: `[a, b]`.
pub(crate) fn products(x: &[f32], a: usize, y: &[f32], b: usize) -> Vec<f32> {
    // Few thousand rows at a time stay in a cache, and sums of f32 stay short.
    const ROWS_PER_SUM: usize = 1024;
    // Sums that one thread adds at a time.
    const SUMS_PER_THREAD: usize = 4096;
    let mut sums = vec![0.0f64; a * b];
    for (x, y) in x.chunks(ROWS_PER_SUM * a).zip(y.chunks(ROWS_PER_SUM * b)) {
        let n = x.len() / a;
        let columns = transposed(x, a);
        let part = DenseMatrix::new(n, b, y.to_vec()).times_all(&columns);
        let pieces = sums.chunks_mut(SUMS_PER_THREAD).zip(part.chunks(SUMS_PER_THREAD));
        threads::each(1, pieces, |(sums, part)| sums.iter_mut().zip(part).for_each(|(s, &p)| *s += f64::from(p)));
    }
    sums.into_iter().map(|s| s as f32).collect()
}

/// `[n, dim]` to `[dim, n]`.
pub(crate) fn transposed(rows: &[f32], dim: usize) -> Vec<f32> {
    let n = rows.len() / dim;
    let mut out = vec![0.0; rows.len()];
    threads::each(1, out.chunks_mut(n.max(1)).enumerate(), |(d, column)| {
        column.iter_mut().zip(rows.chunks_exact(dim)).for_each(|(o, row)| *o = row[d]);
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn products_are_those_of_three_loops() {
        for (n, input, output) in [(1, 1, 1), (25, 7, 40), (13, 64, 32), (200, 33, 70)] {
            let mut random = Random::new(1);
            let mut next = || random.signed();
            let x: Vec<f32> = (0..n * input).map(|_| next()).collect();
            let m: Vec<f32> = (0..input * output).map(|_| next()).collect();
            let matrix = DenseMatrix::new(input, output, m.clone());
            let close = |found: &[f32], wanted: &dyn Fn(usize) -> f32| {
                found.iter().enumerate().all(|(i, f)| (f - wanted(i)).abs() < 1e-4)
            };
            let wanted = |i: usize| (0..input).map(|k| x[i / output * input + k] * m[k * output + i % output]).sum();
            assert!(close(&matrix.times_all(&x), &wanted), "{n} {input} {output}");
            let gram = |i: usize| (0..n).map(|r| x[r * input + i / input] * x[r * input + i % input]).sum();
            assert!(close(&moments(&x, input), &gram));
        }
    }
}
