//! Linear algebra on the CPU: products of vectors and matrices, principal directions, decompositions. The only folder that
//! knows faer.

mod matrix;
mod principal;

pub(crate) use matrix::{DenseMatrix, moments, products, transposed};
pub(crate) use principal::{Basis, Principal, leading, procrustes, random_orthogonal};

use crate::threads;
use crate::types::RowsView;

/// The longest rows that may be coded or clustered: squares of sums of longer ones overflow.
pub(crate) const LONGEST: f32 = (1u64 << 60) as f32;

/// The inner product in f32, in sixteen sums, which lets the compiler use vectors.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (a16, b16) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a16.remainder().iter().zip(b16.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a16.zip(b16) {
        for i in 0..16 {
            sums[i] += x[i] * y[i];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// The inner product in f64, one term after the other: its error is what proofs count with.
pub(crate) fn dot_f64(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
}

/// The square of the length in f64, in eight sums, so that the additions need not wait for each other.
pub(crate) fn square(row: &[f32]) -> f64 {
    let mut sums = [0.0f64; 8];
    for chunk in row.chunks(8) {
        sums.iter_mut().zip(chunk).for_each(|(s, &x)| *s += f64::from(x) * f64::from(x));
    }
    sums.iter().sum()
}

/// The Euclidean length in f64.
pub(crate) fn length(row: &[f32]) -> f64 {
    square(row).sqrt()
}

/// The mean of rows `[n, dim]`, summed in f64.
pub(crate) fn mean(rows: &[f32], dim: usize) -> Vec<f32> {
    let mut sums = vec![0.0f64; dim];
    for row in rows.chunks_exact(dim) {
        sums.iter_mut().zip(row).for_each(|(s, &x)| *s += f64::from(x));
    }
    let n = (rows.len() / dim).max(1) as f64;
    sums.into_iter().map(|s| (s / n) as f32).collect()
}

/// Euclidean length of each row in f64, rounded to f32; or (row, component, value) of the first that is not finite.
pub(crate) fn lengths(rows: &RowsView<'_>) -> Result<Vec<f32>, (usize, usize, f32)> {
    if let RowsView::Bits(_) = rows {
        return Ok(vec![0.0; rows.rows()]);
    }
    if rows.dtype().is_wide() {
        return wide_lengths(rows);
    }
    let of_row = |buffer: &mut Vec<f32>, r: usize| {
        rows.row_f32(r, buffer);
        let length = length(buffer);
        if length.is_finite() {
            // A length past f32 is possible for finite components; only the screens read it.
            return Ok(length as f32);
        }
        let component = buffer.iter().position(|x| !x.is_finite()).unwrap_or(0);
        Err((r, component, buffer[component]))
    };
    threads::map_with(64, 0..rows.rows(), || vec![0.0f32; rows.dim()], of_row).into_iter().collect()
}

/// The size of the largest component, and the square of the length in its units, which does not overflow; NaN for zeros.
pub(crate) fn scaled_square(row: &[f64]) -> (f64, f64) {
    let largest = row.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    (largest, row.iter().map(|x| (x / largest) * (x / largest)).sum())
}

/// [`lengths`] of rows in f64, whose squares may overflow.
fn wide_lengths(rows: &RowsView<'_>) -> Result<Vec<f32>, (usize, usize, f32)> {
    let of_row = |buffer: &mut Vec<f64>, r: usize| {
        rows.row_f64(r, buffer);
        if let Some(component) = buffer.iter().position(|x| !x.is_finite()) {
            return Err((r, component, buffer[component] as f32));
        }
        let (largest, squares) = scaled_square(buffer);
        // Only a row of zeros has no length.
        Ok(if largest == 0.0 { 0.0 } else { ((largest * squares.sqrt()) as f32).max(f32::from_bits(1)) })
    };
    threads::map_with(64, 0..rows.rows(), || vec![0.0f64; rows.dim()], of_row).into_iter().collect()
}
