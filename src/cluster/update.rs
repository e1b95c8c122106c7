//! Where centroids move: sums of the rows of each cluster, and what becomes of empty ones.

use rayon::prelude::*;

/// Sums and numbers of the rows of each cluster.
pub(super) struct Sums {
    dim: usize,
    /// `[clusters, dim]`. In f64, so that rows can be taken out again.
    sums: Vec<f64>,
    pub counts: Vec<usize>,
}

impl Sums {
    pub fn new(clusters: usize, dim: usize) -> Sums {
        Sums { dim, sums: vec![0.0; clusters * dim], counts: vec![0; clusters] }
    }

    /// Moves the rows of a chunk from their old clusters (`u32::MAX`: none) to the new ones. Each cluster's rows come in
    /// their order, whatever number of threads shares the clusters.
    pub fn change(&mut self, rows: &[f32], old: &[u32], new: &[u32]) {
        let dim = self.dim;
        let mut moves: Vec<(u32, u32, f64)> = Vec::new();
        for (i, (&old, &new)) in old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new) {
            if old != u32::MAX {
                moves.push((old, i as u32, -1.0));
                self.counts[old as usize] -= 1;
            }
            moves.push((new, i as u32, 1.0));
            self.counts[new as usize] += 1;
        }
        moves.sort_unstable_by_key(|&(cluster, row, _)| (cluster, row));
        let clusters = self.sums.par_chunks_exact_mut(dim).enumerate().with_min_len(8);
        clusters.for_each(|(c, sum)| {
            let first = moves.partition_point(|m| (m.0 as usize) < c);
            for &(_, row, sign) in moves[first..].iter().take_while(|m| m.0 as usize == c) {
                let row = &rows[row as usize * dim..(row as usize + 1) * dim];
                sum.iter_mut().zip(row).for_each(|(s, &x)| *s += sign * f64::from(x));
            }
        });
    }

    /// Writes the mean of each cluster; an empty one keeps its centroid.
    pub fn means(&self, centroids: &mut [f32]) {
        for ((sum, &count), out) in
            self.sums.chunks_exact(self.dim).zip(&self.counts).zip(centroids.chunks_exact_mut(self.dim))
        {
            if count > 0 {
                out.iter_mut().zip(sum).for_each(|(o, s)| *o = (s / count as f64) as f32);
            }
        }
    }
}

/// How far the two halves of a split centroid are moved apart, relative to its components.
const APART: f32 = 1.0 / 1024.0;

/// How many times the mean a cluster of a balanced clustering may be, and up to which it is left as it is.
const FULL: f64 = 2.5;

/// Puts the smallest clusters beside those that have far more rows than the mean. Gives how many there were.
pub(super) fn split_full(centroids: &mut [f32], counts: &[usize], dim: usize) -> usize {
    let most = (FULL * counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64).ceil() as usize;
    let mut by_size: Vec<usize> = (0..counts.len()).collect();
    by_size.sort_by_key(|&c| (std::cmp::Reverse(counts[c]), c));
    // Never a cluster that is itself among the larger half.
    let pairs = by_size.iter().zip(by_size.iter().rev()).take(counts.len() / 2);
    let full = pairs.take_while(|(full, _)| counts[**full] > most);
    full.map(|(&full, &small)| split(centroids, dim, full, small)).count()
}

/// Puts cluster `other` beside a cluster, whose rows are then shared.
fn split(centroids: &mut [f32], dim: usize, cluster: usize, other: usize) {
    for d in 0..dim {
        let x = centroids[cluster * dim + d];
        let step = if d % 2 == 0 { APART } else { -APART };
        centroids[other * dim + d] = x * (1.0 + step);
        centroids[cluster * dim + d] = x * (1.0 - step);
    }
}

/// Puts each empty cluster beside the largest one, whose rows are then shared (as in Faiss). Gives how many there were.
pub(super) fn split_largest(centroids: &mut [f32], counts: &mut [usize], dim: usize) -> usize {
    let empty: Vec<usize> = (0..counts.len()).filter(|&c| counts[c] == 0).collect();
    for &c in &empty {
        let Some(largest) = (0..counts.len()).max_by_key(|&c| (counts[c], std::cmp::Reverse(c))) else { break };
        if counts[largest] < 2 {
            break;
        }
        split(centroids, dim, largest, c);
        counts[c] = counts[largest] / 2;
        counts[largest] -= counts[c];
    }
    empty.len()
}
