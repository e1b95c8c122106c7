//! Lloyd's iteration.

use std::ops::ControlFlow;

use super::points::{Points, unit};
use super::rounds::{Round, Rounds};
use super::start::{Random, random_rows};
use super::update::{Sums, split_largest};
use super::{ClusterError, Clustering, KMeans, Progress};
use crate::engine::Device;
use crate::types::RowsView;

impl KMeans {
    /// Clusters the rows `[n, dim]` of any element type but packed bits.
    ///
    /// # Errors
    /// [`ClusterError`]; see its variants.
    pub fn train<'a>(&self, device: &Device, rows: impl Into<RowsView<'a>>) -> Result<Clustering, ClusterError> {
        self.train_with(device, rows.into(), &mut |_| ControlFlow::Continue(()))
    }

    /// As [`KMeans::train`], telling `progress` after each round how far it is.
    ///
    /// # Errors
    /// [`ClusterError::Cancelled`] when `progress` breaks off; else as [`KMeans::train`].
    pub fn train_with(
        &self,
        device: &Device,
        rows: RowsView<'_>,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Clustering, ClusterError> {
        let k = self.clusters;
        if k == 0 {
            return Err(ClusterError::ZeroClusters);
        }
        if rows.rows() < k {
            return Err(ClusterError::TooFewRows { rows: rows.rows(), clusters: k });
        }
        let mut random = Random::new(self.seed);
        let most = self.sample.map_or(usize::MAX, |each| each.max(1).saturating_mul(k));
        let picks = (rows.rows() > most).then(|| random.choose(rows.rows(), most));
        let points = Points::new(rows, picks, self.spherical)?;
        let dim = points.dim();
        let mut centroids = match &self.start {
            Some(start) => checked(start, k, dim)?.to_vec(),
            None => random_rows(&points, k, &mut random),
        };
        let mut rounds = Rounds::new(device, &points, k)?;
        let mut sums = Sums::new(k, dim);
        let mut made = Clustering { dim, trained: points.len(), ..Clustering::default() };
        for iteration in 1..=self.iterations {
            self.scale(&mut centroids, dim);
            let Round { inertia, changed } = rounds.assign(&centroids, &mut sums)?;
            sums.means(&mut centroids);
            let empty = split_largest(&mut centroids, &mut sums.counts.clone(), dim);
            (made.inertia, made.iterations) = (inertia, iteration);
            if iteration == 1 {
                rounds.keep_bounds();
            }
            let told = Progress { iteration, iterations: self.iterations, inertia, changed };
            if progress(told).is_break() {
                return Err(ClusterError::Cancelled);
            }
            if changed == 0 && empty == 0 {
                break;
            }
        }
        self.scale(&mut centroids, dim);
        made.centroids = centroids;
        Ok(made)
    }

    /// Scales centroids to length 1 where only directions count.
    fn scale(&self, centroids: &mut [f32], dim: usize) {
        if self.spherical {
            centroids.chunks_exact_mut(dim).for_each(unit);
        }
    }
}

/// Centroids that the caller began with.
fn checked(start: &[f32], clusters: usize, dim: usize) -> Result<&[f32], ClusterError> {
    let finite = start.iter().position(|x| !x.is_finite()).unwrap_or(start.len());
    if Some(finite) != clusters.checked_mul(dim) || finite != start.len() {
        return Err(ClusterError::Start { found: finite, clusters, dim });
    }
    Ok(start)
}
