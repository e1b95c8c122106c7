//! The principal subspace of rows: where most of their length lies.
//!
//! Any matrix V gives valid codes, since what lies outside of its rows' span is bounded by its length; a good one gives
//! tight bounds from few components. The eigenvectors of the covariance lose least (Hotelling 1933); turning them at
//! random spreads the variance evenly over the components, so that one scale suits all.

use faer::{Mat, Side};

use crate::random::Uniform;

/// An orthonormal basis of all dimensions, the most important first, and the share of the variance of each.
pub(crate) struct Principal {
    /// `[dim, dim]`, one direction per column.
    vectors: Mat<f64>,
    /// The second moment along each direction.
    values: Vec<f64>,
}

impl Principal {
    /// From the second moments `[dim, dim]`, row by row.
    pub fn new(moments: &[f32], dim: usize) -> Option<Principal> {
        if moments.iter().any(|x| !x.is_finite()) {
            return None;
        }
        let matrix = Mat::from_fn(dim, dim, |i, j| f64::from(moments[i * dim + j]));
        let eigen = matrix.self_adjoint_eigen(Side::Lower).ok()?;
        let (vectors, last) = (eigen.U(), dim - 1);
        // Eigenvalues come in rising order.
        let vectors = Mat::from_fn(dim, dim, |i, j| vectors[(i, last - j)]);
        let values: Vec<f64> = (0..dim).map(|j| eigen.S()[last - j].max(0.0)).collect();
        let finite = (0..dim).all(|j| vectors.col(j).norm_l2().is_finite());
        finite.then_some(Principal { vectors, values })
    }

    /// The second moment along each direction, the largest first.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// All directions, row by row.
    pub fn rows(&self) -> Vec<f32> {
        let dim = self.vectors.nrows();
        (0..dim * dim).map(|i| self.vectors[(i % dim, i / dim)] as f32).collect()
    }

    /// The first `kept` directions turned at random, row by row, zero rows behind them up to `padded`.
    pub fn turned(&self, kept: usize, padded: usize) -> Basis {
        let dim = self.vectors.nrows();
        let turn = random_orthogonal(kept, 0);
        let turned = turn * self.vectors.subcols(0, kept).transpose();
        let rows = (0..padded * dim).map(|i| if i / dim < kept { turned[(i / dim, i % dim)] as f32 } else { 0.0 });
        Basis::new(rows.collect(), dim, kept)
    }
}

/// The rows of V, and how far they are from orthonormal.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Basis {
    /// `[padded, dim]`.
    pub rows: Vec<f32>,
    /// Rows that are not zero.
    pub kept: usize,
    /// At least the spectral norm of `V V' - 1` on the rows that are not zero.
    pub skew: f64,
}

impl Basis {
    /// Measures the skew; `kept` rows are meant to be orthonormal, those behind them zero.
    pub fn new(rows: Vec<f32>, dim: usize, kept: usize) -> Basis {
        let v = Mat::from_fn(kept, dim, |i, j| f64::from(rows[i * dim + j]));
        let gram = &v * v.transpose();
        let skew = Mat::from_fn(kept, kept, |i, j| gram[(i, j)] - f64::from(u8::from(i == j))).norm_l2();
        // Frobenius is at least the spectral norm; f64 rounds far below what is added.
        Basis { rows, kept, skew: skew * 1.001 + 1e-12 }
    }
}

/// Directions that are iterated beside those wanted; they make the others come out sooner.
const MORE_DIRECTIONS: usize = 8;

/// Most rounds of iteration, and how little the variances may still change for it to end.
const MOST_ROUNDS: usize = 200;
const STILL_CHANGE: f64 = 1e-9;

/// The eigenvectors of the `k` largest eigenvalues, and these: subspace iteration, then the problem within the subspace.
/// They come as the columns of `[dim, k]`, row by row; `moments` is `[dim, dim]`. None when a number is not finite.
pub(crate) fn leading(moments: &[f64], dim: usize, k: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    let moments = &Mat::from_fn(dim, dim, |i, j| moments[i * dim + j]);
    let width = (k + MORE_DIRECTIONS).min(dim);
    let mut random = Uniform::of_state(0x9e37_79b9_7f4a_7c15);
    let mut span = Mat::from_fn(dim, width, |_, _| 2.0 * random.next() - 1.0).qr().compute_thin_Q();
    let mut found: Option<(Mat<f64>, Vec<f64>)> = None;
    for _ in 0..MOST_ROUNDS {
        let moved = moments * &span;
        let inner = span.transpose() * &moved;
        let eigen = inner.self_adjoint_eigen(Side::Lower).ok()?;
        // Eigenvalues come in rising order.
        let values: Vec<f64> = (0..k).map(|j| eigen.S()[width - 1 - j]).collect();
        let turn = Mat::from_fn(width, width, |i, j| eigen.U()[(i, width - 1 - j)]);
        let vectors = &span * turn;
        let still = found.as_ref().is_some_and(|(_, before)| {
            values.iter().zip(before).all(|(now, before)| (now - before).abs() <= STILL_CHANGE * values[0].abs())
        });
        found = values.iter().all(|v| v.is_finite()).then_some((vectors, values));
        if still || found.is_none() || width == dim {
            break;
        }
        span = moved.qr().compute_thin_Q();
    }
    let (vectors, values) = found?;
    Some(((0..dim * k).map(|i| vectors[(i / k, i % k)]).collect(), values))
}

/// The orthogonal matrix R that makes `X R` nearest to Y, from `X' Y`.
pub(crate) fn procrustes(product: &[f32], dim: usize) -> Option<Vec<f32>> {
    let matrix = Mat::from_fn(dim, dim, |i, j| f64::from(product[i * dim + j]));
    let svd = matrix.svd().ok()?;
    let turn = svd.U() * svd.V().transpose();
    let rows: Vec<f32> = (0..dim * dim).map(|i| turn[(i / dim, i % dim)] as f32).collect();
    rows.iter().all(|x| x.is_finite()).then_some(rows)
}

/// An orthogonal matrix, the same for the same seed.
pub(crate) fn random_orthogonal(n: usize, seed: u64) -> Mat<f64> {
    let mut random = Uniform::new(seed);
    let mut matrix = Mat::zeros(n, n);
    for j in 0..n {
        for i in 0..n {
            // Sums of uniform numbers are near enough to normal ones.
            matrix[(i, j)] = (0..12).map(|_| random.next()).fold(-6.0, |a, x| a + x);
        }
    }
    matrix.qr().compute_Q()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_directions_hold_the_variance() {
        // Moments of points on a line and a little noise.
        let dim = 24;
        let line: Vec<f32> = (0..dim).map(|i| (i as f32 * 0.7).sin()).collect();
        let moments: Vec<f32> = (0..dim * dim)
            .map(|i| line[i / dim] * line[i % dim] + if i / dim == i % dim { 0.01 } else { 0.0 })
            .collect();
        let principal = Principal::new(&moments, dim).expect("finite moments");
        let first = &principal.rows()[..dim];
        let (dot, length) = first.iter().zip(&line).fold((0.0, 0.0), |(d, l), (a, b)| (d + a * b, l + b * b));
        assert!((dot.abs() / length.sqrt() - 1.0).abs() < 1e-3, "{dot}");
        let basis = principal.turned(8, 16);
        assert!(basis.skew < 1e-5, "{}", basis.skew);
        assert!(basis.rows[8 * dim..].iter().all(|&x| x == 0.0));
    }

    #[test]
    fn a_skewed_basis_says_so() {
        let rows = vec![1.0, 0.0, 0.1, 1.0];
        assert!(Basis::new(rows, 2, 2).skew > 0.1);
    }
}
