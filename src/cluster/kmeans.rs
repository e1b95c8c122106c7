//! Training's iteration.

use std::ops::ControlFlow;

use super::order::{in_blocks, ordered, restored};
use super::points::{Points, unit};
use super::rounds::{Round, Rounds};
use super::start::random_rows;
use super::update::{Sums, empty_ones, full_ones, rows_of};
use super::{ClusterError, Clustering, KMeans, Progress};
use crate::codec::int8::Coder;
use crate::engine::Device;
use crate::random::Random;
use crate::types::{IntoRows, RowsView};

impl KMeans {
    /// Clusters the rows `[n, dim]` of any element type but packed bits.
    ///
    /// Takes O(s k d) operations per round for s rows to train with and k clusters at most, and far fewer where bounds of
    /// earlier rounds tell the nearest centroid. Runs on the device and all of its threads; blocks until it is done.
    ///
    /// # Errors
    /// [`ClusterError`]; see its variants.
    pub fn train<'a>(&self, device: &Device, rows: impl IntoRows<'a>) -> Result<Clustering, ClusterError> {
        self.train_with(device, rows.into_rows()?.view(), &mut |_| ControlFlow::Continue(()))
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
        let _entered = device.enter();
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
        let coder = points.coder(device, k)?;
        let lloyd = Training { kmeans: self, device, coder: coder.as_ref() };
        let (start, fallback) = match &self.start {
            Some(start) => (checked(start, k, dim)?.to_vec(), None),
            None => lloyd.start(&points, &mut random)?,
        };
        let mut made = lloyd.run(&points, start, self.iterations, progress)?;
        made.fallback = made.fallback.or(fallback);
        Ok(made)
    }

    /// Scales centroids to length 1 where only directions count.
    fn scale(&self, centroids: &mut [f32], dim: usize) {
        if self.spherical {
            centroids.chunks_exact_mut(dim).for_each(unit);
        }
    }
}

/// What all rounds share.
struct Training<'a> {
    kmeans: &'a KMeans,
    device: &'a Device,
    coder: Option<&'a Coder>,
}

/// Rows per cluster, and rounds, from which the first centroids are made: of many more rows, the first rounds move all
/// centroids far, which as few rows show as well.
const FEW_ROWS: usize = 16;
const FEW_ROUNDS: usize = 5;

impl Training<'_> {
    /// Rows chosen at random, and where there are many, what a few rounds over a few of them make of those; and why not
    /// the device that was asked for.
    fn start(&self, points: &Points<'_>, random: &mut Random) -> Result<(Vec<f32>, Option<String>), ClusterError> {
        let k = self.kmeans.clusters;
        if points.len() / 4 < FEW_ROWS * k {
            return Ok((random_rows(points, k, random), None));
        }
        let few = points.subset(&random.choose(points.len(), FEW_ROWS * k));
        let start = random_rows(&few, k, random);
        let made = self.run(&few, start, FEW_ROUNDS, &mut |_| ControlFlow::Continue(()))?;
        Ok((made.centroids, made.fallback))
    }

    /// Rounds from these centroids on.
    fn run(
        &self,
        points: &Points<'_>,
        mut start: Vec<f32>,
        most: usize,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Clustering, ClusterError> {
        let (k, dim) = (self.kmeans.clusters, points.dim());
        self.kmeans.scale(&mut start, dim);
        let order = in_blocks(&start, dim);
        let mut centroids = ordered(&start, dim, &order);
        let mut rounds = Rounds::new(self.device, points, k, self.coder)?;
        let mut sums = Sums::new(k, dim);
        let mut made = Clustering { dim, trained: points.len(), ..Clustering::default() };
        // Of a balanced clustering twice as many, if it takes that long until no cluster is too large.
        let last = if self.kmeans.balanced { 2 * most } else { most };
        for iteration in 1..=last {
            let Round { inertia, changed } = rounds.assign(&centroids, &mut sums)?;
            sums.means(&mut centroids);
            let mut splits = empty_ones(&sums.counts);
            if self.kmeans.balanced && splits.is_empty() {
                splits = full_ones(&sums.counts);
            }
            if iteration < last {
                for (cluster, row) in rows_of(&splits, &rounds.labels, &sums.counts) {
                    points.row(row, &mut centroids[cluster * dim..(cluster + 1) * dim]);
                }
            }
            self.kmeans.scale(&mut centroids, dim);
            (made.inertia, made.iterations) = (inertia, iteration);
            if progress(Progress { iteration, iterations: most, inertia, changed }).is_break() {
                return Err(ClusterError::Cancelled);
            }
            if splits.is_empty() && (changed == 0 || iteration >= most) {
                break;
            }
        }
        self.device.note(&rounds.stats);
        made.fallback = rounds.stats.fallback.take();
        made.centroids = restored(&centroids, dim, &order);
        Ok(made)
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
