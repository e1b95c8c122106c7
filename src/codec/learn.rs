//! What transforms learn from rows: means, principal directions, rotations.

use super::error::{CodecError, enough};
use super::linear::{Linear, LinearStep};
use super::opq;
use super::rotation::Hadamard;
use super::spec::TransformSpec;
use super::transform::{MOST_DIM, TransformStage};
use crate::linalg::{DenseMatrix, Principal, mean, moments, random_orthogonal};
use crate::threads;
use crate::types::Metric;

/// A rotation of vectors of `dim` components: fast where their number allows it.
fn rotation(dim: usize, seed: u64) -> LinearStep {
    if dim.is_multiple_of(64) {
        return LinearStep::Turn(Hadamard::new(dim, seed));
    }
    let q = random_orthogonal(dim, seed);
    let rows: Vec<f32> = (0..dim * dim).map(|i| q[(i / dim, i % dim)] as f32).collect();
    LinearStep::Times(DenseMatrix::new(dim, dim, rows))
}

/// Rows that medians are taken of.
const MEDIAN_ROWS: usize = 1024;

/// Rows so many times as far from the middle as half of all rows do not count in a mean.
const FAR: f64 = 10.0;

/// The mean of the rows but for those so far away that a few of them would move it out of the others' midst.
fn steady_mean(rows: &[f32], dim: usize) -> Vec<f32> {
    let n = rows.len() / dim;
    if n == 0 {
        return vec![0.0; dim];
    }
    let step = n.div_ceil(MEDIAN_ROWS);
    let middle = threads::map(16, 0..dim, |j| {
        let mut column: Vec<f32> = rows[j..].iter().step_by(dim * step).copied().collect();
        let half = column.len() / 2;
        *column.select_nth_unstable_by(half, f32::total_cmp).1
    });
    let far = |row: &[f32]| {
        let square: f64 = row.iter().zip(&middle).map(|(&x, &m)| (f64::from(x) - f64::from(m)).powi(2)).sum();
        square.sqrt()
    };
    let far: Vec<f64> = threads::map(64, rows.chunks_exact(dim), far);
    let limit = FAR * *far.clone().select_nth_unstable_by(n / 2, f64::total_cmp).1;
    if far.iter().all(|&far| far <= limit) {
        return mean(rows, dim);
    }
    let near: Vec<f32> =
        rows.chunks_exact(dim).zip(&far).filter(|(_, far)| **far <= limit).flat_map(|(row, _)| row).copied().collect();
    mean(&near, dim)
}

/// One transform and the rows that it is learnt from, transformed by those before.
pub(super) struct Learner<'a> {
    pub spec: &'a TransformSpec,
    pub metric: Metric,
    /// `[n, dim]`.
    pub rows: &'a [f32],
    pub dim: usize,
    pub seed: u64,
}

impl Learner<'_> {
    /// What is learnt.
    pub fn stage(&self, warnings: &mut Vec<String>) -> Result<TransformStage, CodecError> {
        let (mean, steps) = match *self.spec {
            TransformSpec::Normalize => return Ok(TransformStage::Normalize(self.dim)),
            TransformSpec::Centre => {
                self.enough(1)?;
                (self.mean(), vec![])
            }
            TransformSpec::Pca { dim, rotate } => self.pca(dim, rotate, warnings)?,
            TransformSpec::Opq { parts, dim } => {
                let kept = self.at_most(dim.unwrap_or(self.dim))?;
                if parts == 0 || !kept.is_multiple_of(parts) {
                    return Err(CodecError::parts(self.token(), kept, parts));
                }
                self.enough(opq::LEAST_ROWS)?;
                let matrix = opq::train(self.rows, self.dim, parts, kept, self.seed).ok_or_else(|| self.diverged())?;
                (Vec::new(), vec![LinearStep::Times(DenseMatrix::new(self.dim, kept, matrix))])
            }
            TransformSpec::Rotation { dim } => {
                let kept = dim.unwrap_or(self.dim);
                let dim = kept.max(self.dim);
                if kept == 0 || dim > MOST_DIM {
                    return Err(self.wrong(format!("1 to {MOST_DIM}")));
                }
                let mut steps = vec![LinearStep::Resize(dim), rotation(dim, self.seed), LinearStep::Resize(kept)];
                steps.retain(|step| !matches!(step, LinearStep::Resize(d) if *d == dim && dim == self.dim));
                (Vec::new(), steps)
            }
            TransformSpec::Pad { dim } if (self.dim..=MOST_DIM).contains(&dim) => {
                (Vec::new(), vec![LinearStep::Resize(dim)])
            }
            TransformSpec::Pad { .. } => return Err(self.wrong(format!("{} to {MOST_DIM}", self.dim))),
            TransformSpec::Slice { dim } => (Vec::new(), vec![LinearStep::Resize(self.at_most(dim)?)]),
        };
        Ok(TransformStage::Linear(Linear { input: self.dim, mean, steps }))
    }

    fn pca(
        &self,
        kept: usize,
        rotate: bool,
        warnings: &mut Vec<String>,
    ) -> Result<(Vec<f32>, Vec<LinearStep>), CodecError> {
        let (kept, dim) = (self.at_most(kept)?, self.dim);
        self.enough(1)?;
        let n = self.rows.len() / dim;
        if n < dim {
            warnings.push(format!(
                "`{}`: {n} training rows for {dim} components; the last directions are chance",
                self.token()
            ));
        }
        let mean = if self.metric == Metric::L2 { self.mean() } else { Vec::new() };
        let mut rows = self.rows.to_vec();
        rows.chunks_exact_mut(dim).for_each(|row| row.iter_mut().zip(&mean).for_each(|(x, m)| *x -= m));
        let principal = Principal::new(&moments(&rows, dim), dim).ok_or_else(|| self.diverged())?;
        let all = principal.rows();
        let columns: Vec<f32> = (0..dim * kept).map(|i| all[i % kept * dim + i / kept]).collect();
        let mut steps = vec![LinearStep::Times(DenseMatrix::new(dim, kept, columns))];
        if rotate {
            steps.push(rotation(kept, self.seed));
        }
        Ok((mean, steps))
    }

    fn mean(&self) -> Vec<f32> {
        steady_mean(self.rows, self.dim)
    }

    fn at_most(&self, dim: usize) -> Result<usize, CodecError> {
        if (1..=self.dim).contains(&dim) { Ok(dim) } else { Err(self.wrong(format!("1 to {}", self.dim))) }
    }

    fn wrong(&self, fits: String) -> CodecError {
        CodecError::Dim { token: self.token(), dim: self.dim, fits }
    }

    fn enough(&self, wanted: usize) -> Result<(), CodecError> {
        enough(self.rows.len() / self.dim, wanted, || self.token())
    }

    fn diverged(&self) -> CodecError {
        CodecError::Decomposition { token: self.token() }
    }

    fn token(&self) -> String {
        self.spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::random;
    use super::*;

    #[test]
    fn rows_far_away_do_not_move_the_mean_and_all_others_count() {
        let (n, dim) = (2000, 6);
        let mut next = random(5);
        let mut rows: Vec<f32> = (0..n * dim).map(|_| 3.0 + next()).collect();
        assert_eq!(steady_mean(&rows, dim), mean(&rows, dim));
        let others = mean(&rows[dim..], dim);
        rows[..dim].iter_mut().for_each(|x| *x *= 1e6);
        assert_eq!(steady_mean(&rows, dim), others);
        // One row of ten, 100 away.
        rows[..dim].iter_mut().for_each(|x| *x /= 1e6);
        rows.chunks_exact_mut(dim).step_by(10).flatten().for_each(|x| *x += 100.0);
        assert!(steady_mean(&rows, dim).iter().all(|m| (m - 3.0).abs() < 0.1), "{:?}", steady_mean(&rows, dim));
        assert_eq!(steady_mean(&[], dim), [0.0; 6]);
    }
}
