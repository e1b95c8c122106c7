//! The first centroids.

use super::points::Points;
use crate::random::Random;

/// Rows chosen at random, no row twice.
pub(super) fn random_rows(points: &Points<'_>, clusters: usize, random: &mut Random) -> Vec<f32> {
    let dim = points.dim();
    let mut out = vec![0.0; clusters * dim];
    for (&i, out) in random.choose(points.len(), clusters).iter().zip(out.chunks_exact_mut(dim)) {
        points.row(i as usize, out);
    }
    out
}
