//! Clustering: k-means on the engine's `assign`.
//!
//! `kmeans` is Lloyd's iteration, `points` holds what is clustered in the form that engines take, `start` chooses the
//! first centroids, `update` moves them.

mod kmeans;
mod nearest;
mod order;
mod points;
mod rounds;
mod start;
mod update;

pub(crate) use nearest::{WithLengths, assign};

use crate::compute::EngineError;
use crate::types::{DType, ShapeError};

/// k-means: Lloyd's iteration (Lloyd 1982) with exact assignments.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nearfield::{Device, KMeans};
///
/// let rows = [[0.0, 0.1], [0.1, 0.0], [9.0, 9.1], [9.1, 9.0]];
/// let found = KMeans::new(2).train(&Device::cpu(), &rows)?;
/// assert_eq!(found.centroids.len(), 2 * 2);
/// assert!(found.inertia < 0.1);
/// // Which cluster each row belongs to:
/// let (clusters, _) = Device::cpu().assign(&rows, (&found.centroids, found.dim), nearfield::Metric::L2)?;
/// assert!(clusters[0] == clusters[1] && clusters[0] != clusters[2]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct KMeans {
    /// Centroids to find.
    pub clusters: usize,
    /// Rounds of assigning and moving, at most; fewer when no row changes its centroid any more. 25 unless changed.
    pub iterations: usize,
    /// Seed of all that is random. The same seed gives the same centroids on the same engine.
    pub seed: u64,
    /// Rows and centroids count by their direction: both are scaled to length 1 (Dhillon and Modha 2001).
    pub spherical: bool,
    /// Rows per centroid that training looks at, at most; all when absent. 256 unless changed.
    pub sample: Option<usize>,
    /// Whether large clusters are made smaller, as posting lists want it: no more than about three times as many rows as
    /// the mean, of those that were trained with.
    pub balanced: bool,
    /// Centroids to begin with, `[clusters, dim]`; rows chosen by the seed when absent.
    pub start: Option<Vec<f32>>,
}

impl KMeans {
    /// With the defaults that the fields state.
    pub fn new(clusters: usize) -> KMeans {
        KMeans { clusters, iterations: 25, seed: 0, spherical: false, sample: Some(256), balanced: false, start: None }
    }

    /// Makes so many rounds at most.
    #[must_use]
    pub fn iterations(mut self, rounds: usize) -> KMeans {
        self.iterations = rounds;
        self
    }

    /// With this seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> KMeans {
        self.seed = seed;
        self
    }

    /// By directions alone.
    #[must_use]
    pub fn spherical(mut self) -> KMeans {
        self.spherical = true;
        self
    }

    /// Trains with so many rows per centroid at most; with all when absent.
    #[must_use]
    pub fn sample(mut self, rows: Option<usize>) -> KMeans {
        self.sample = rows;
        self
    }

    /// Makes large clusters smaller.
    #[must_use]
    pub fn balanced(mut self) -> KMeans {
        self.balanced = true;
        self
    }

    /// Begins with these centroids, `[clusters, dim]`.
    #[must_use]
    pub fn start(mut self, centroids: Vec<f32>) -> KMeans {
        self.start = Some(centroids);
        self
    }
}

/// What k-means found: centroids. [`Device::assign`](crate::Device::assign) gives the cluster of each row.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Clustering {
    /// `[clusters, dim]`.
    pub centroids: Vec<f32>,
    /// Components per centroid.
    pub dim: usize,
    /// Sum over the rows trained with of the squared distance to their centroid, when the last round began.
    pub inertia: f64,
    /// Rounds made.
    pub iterations: usize,
    /// Rows that training looked at.
    pub trained: usize,
    /// Why the device that was asked for did not assign all rows, if it did not.
    pub fallback: Option<String>,
}

/// How far training is, told after each round.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Rounds made.
    pub iteration: usize,
    /// Most rounds.
    pub iterations: usize,
    /// Sum of squared distances of the rows to their centroids in this round.
    pub inertia: f64,
    /// Rows that have another centroid than in the round before.
    pub changed: usize,
}

/// Why rows could not be clustered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No centroid was asked for.
    #[error("0 clusters wanted, at least 1 is needed")]
    ZeroClusters,
    /// Fewer rows than centroids.
    #[error("{clusters} clusters of {rows} rows: there must be at least as many rows as clusters")]
    TooFewRows {
        /// Rows given.
        rows: usize,
        /// Clusters wanted.
        clusters: usize,
    },
    /// Rows without components.
    #[error("rows need at least one component, dim is 0")]
    ZeroDim,
    /// Packed bits have no mean.
    #[error("rows of {found} can't be averaged; wanted f32, f16, bf16, i8 or u8")]
    DType {
        /// What was given.
        found: DType,
    },
    /// NaN or an infinity.
    #[error("row {row}, component {component} is {value}, wanted a finite number")]
    NotFinite {
        /// The row.
        row: usize,
        /// The component.
        component: usize,
        /// What was found.
        value: f32,
    },
    /// A row too long for squared distances in f32.
    #[error("row {row} is longer than 2^60, so squared distances overflow; scale the rows down")]
    TooLong {
        /// The row.
        row: usize,
    },
    /// Centroids to begin with of another shape, or not finite.
    #[error("{found} numbers of centroids to begin with, wanted {clusters} x {dim} finite ones")]
    Start {
        /// Numbers given, up to the first that is not finite.
        found: usize,
        /// Clusters wanted.
        clusters: usize,
        /// Components per row.
        dim: usize,
    },
    /// The caller of `train_with` broke off, or a [`CancelToken`](crate::CancelToken) did.
    #[error("the clustering was called off, or its deadline has passed")]
    Cancelled,
    /// The rows are no matrix.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The engine failed.
    #[error(transparent)]
    Engine(EngineError),
}

impl From<EngineError> for ClusterError {
    fn from(error: EngineError) -> ClusterError {
        match error {
            EngineError::Cancelled => ClusterError::Cancelled,
            other => ClusterError::Engine(other),
        }
    }
}
