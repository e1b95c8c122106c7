//! The order of centroids: those near each other in one block, so that a block as a whole is far from most points.

use crate::linalg::dot;
use crate::ops::assign::BLOCK;
use crate::threads;

/// Steps of the power iteration that finds where a set of centroids is longest; it need not be exact.
const POWER_STEPS: usize = 6;

/// Numbers of centroids in an order in which blocks are compact: the set is halved across its longest direction until it is
/// one block.
pub(super) fn in_blocks(centroids: &[f32], dim: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..(centroids.len() / dim) as u32).collect();
    let mut sets = vec![order.as_mut_slice()];
    while !sets.is_empty() {
        sets = threads::map(1, sets.into_iter(), |set| halve(centroids, dim, set)).into_iter().flatten().collect();
    }
    order
}

/// Halves a set across its longest direction, unless it is one block.
fn halve<'a>(centroids: &[f32], dim: usize, set: &'a mut [u32]) -> Vec<&'a mut [u32]> {
    if set.len() <= BLOCK {
        return Vec::new();
    }
    let direction = longest(centroids, dim, set);
    let mut along: Vec<(f32, u32)> = set.iter().map(|&c| (dot(row(centroids, dim, c), &direction), c)).collect();
    along.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    set.iter_mut().zip(along).for_each(|(c, (_, other))| *c = other);
    let half = (set.len() / 2).next_multiple_of(BLOCK).min(set.len() - 1);
    let (low, high) = set.split_at_mut(half);
    vec![low, high]
}

/// About the direction of the largest variance.
fn longest(centroids: &[f32], dim: usize, set: &[u32]) -> Vec<f32> {
    let mut mean = vec![0.0f32; dim];
    set.iter().for_each(|&c| mean.iter_mut().zip(row(centroids, dim, c)).for_each(|(m, x)| *m += x / set.len() as f32));
    // From the centroid that lies farthest from the mean, which is never across all of the variance.
    let away = |c: u32| row(centroids, dim, c).iter().zip(&mean).map(|(x, m)| x - m).collect::<Vec<f32>>();
    let far = set.iter().map(|&c| away(c)).max_by(|a, b| dot(a, a).total_cmp(&dot(b, b)));
    let mut direction = far.unwrap_or_default();
    for _ in 0..POWER_STEPS {
        let length = dot(&direction, &direction).sqrt();
        if length > 0.0 {
            direction.iter_mut().for_each(|x| *x /= length);
        }
        let middle = dot(&mean, &direction);
        let mut next = vec![0.0f32; dim];
        for &c in set {
            let x = row(centroids, dim, c);
            let along = dot(x, &direction) - middle;
            next.iter_mut().zip(x).zip(&mean).for_each(|((n, x), m)| *n += along * (x - m));
        }
        direction = next;
    }
    direction
}

fn row(centroids: &[f32], dim: usize, c: u32) -> &[f32] {
    &centroids[c as usize * dim..(c as usize + 1) * dim]
}

/// The centroids in this order.
pub(super) fn ordered(centroids: &[f32], dim: usize, order: &[u32]) -> Vec<f32> {
    order.iter().flat_map(|&c| row(centroids, dim, c)).copied().collect()
}

/// The inverse of [`ordered`].
pub(super) fn restored(centroids: &[f32], dim: usize, order: &[u32]) -> Vec<f32> {
    let mut out = vec![0.0; centroids.len()];
    for (row, &c) in centroids.chunks_exact(dim).zip(order) {
        out[c as usize * dim..(c as usize + 1) * dim].copy_from_slice(row);
    }
    out
}
