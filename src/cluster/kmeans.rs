//! Lloyd's iteration.

use std::ops::ControlFlow;

use super::points::{Points, length, unit};
use super::start::{Random, random_rows};
use super::update::{Sums, split_largest};
use super::{ClusterError, Clustering, KMeans, Progress};
use crate::engine::{Base, Candidates, Device, EngineError, Input, Output, Tag, Task};
use crate::plan::{Plan, Problem, Step};
use crate::stats::SearchStats;
use crate::types::{DType, MatrixView, Metric, RowsView};

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
        let mut labels = vec![u32::MAX; points.len()];
        let mut sums = Sums::new(k, dim);
        let mut made = Clustering { dim, trained: points.len(), ..Clustering::default() };
        for iteration in 1..=self.iterations {
            self.scale(&mut centroids, dim);
            let round = round(device, &points, &centroids, &mut labels, &mut sums)?;
            sums.means(&mut centroids);
            let empty = split_largest(&mut centroids, &mut sums.counts.clone(), dim);
            (made.inertia, made.iterations) = (round.inertia, iteration);
            let Round { inertia, changed } = round;
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

/// What a round found.
struct Round {
    inertia: f64,
    changed: usize,
}

/// Assigns all points to the centroids and moves their rows to the sums of their new clusters.
fn round(
    device: &Device,
    points: &Points<'_>,
    centroids: &[f32],
    labels: &mut [u32],
    sums: &mut Sums,
) -> Result<Round, ClusterError> {
    let tag = Tag::new();
    let (dim, chunk) = (points.dim(), points.chunk());
    let mut round = Round { inertia: 0.0, changed: 0 };
    let norms: Vec<f32> = centroids.chunks_exact(dim).map(length).collect();
    for (start, labels) in (0..points.len()).step_by(chunk).zip(labels.chunks_mut(chunk)) {
        let end = start + labels.len();
        let rows = points.floats(start, end);
        let found = assign(device, &rows, &points.norms[start..end], centroids, &norms, dim, &tag)?;
        sums.change(&rows, labels, &found.positions);
        round.changed += labels.iter().zip(&found.positions).filter(|(old, new)| old != new).count();
        round.inertia += found.keys.iter().map(|&key| f64::from(key)).sum::<f64>();
        labels.copy_from_slice(&found.positions);
    }
    Ok(round)
}

fn assign(
    device: &Device,
    rows: &[f32],
    lengths: &[f32],
    centroids: &[f32],
    norms: &[f32],
    dim: usize,
    tag: &Tag,
) -> Result<Candidates, EngineError> {
    let shape = |e: crate::types::ShapeError| EngineError::Mismatch(e.to_string());
    let queries: RowsView<'_> = MatrixView::new(rows, dim).map_err(shape)?.into();
    let base: RowsView<'_> = MatrixView::new(centroids, dim).map_err(shape)?.into();
    let problem = Problem { metric: Metric::L2, dtype: DType::F32, dim, rows: base.rows(), queries: queries.rows() };
    let task = Task {
        plan: &Plan::one(problem, Step::Assign),
        base: Base { rows: base, norms: Some(norms), tag: Some(tag), codes: None },
        queries,
        query_norms: lengths,
        mask: None,
        input: Input::None,
    };
    match device.engine.run(&task, &mut SearchStats::default())? {
        Output::Candidates(found) if found.positions.iter().all(|&p| (p as usize) < norms.len()) => Ok(found),
        _ => Err(EngineError::Mismatch("points were not assigned".to_owned())),
    }
}
