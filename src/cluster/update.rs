//! Where centroids move: sums of the rows of each cluster, and what becomes of empty ones.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::threads;

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

    /// Forgets all rows.
    pub fn clear(&mut self) {
        self.sums.fill(0.0);
        self.counts.fill(0);
    }

    /// Adds the sums `[clusters, dim]` of rows that have these clusters.
    pub fn add(&mut self, sums: &[f32], labels: &[u32]) {
        self.sums.iter_mut().zip(sums).for_each(|(sum, &x)| *sum += f64::from(x));
        labels.iter().for_each(|&label| self.counts[label as usize] += 1);
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
        threads::each(8, self.sums.chunks_exact_mut(dim).enumerate(), |(c, sum)| {
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

/// How many times the mean a cluster may be that a balanced clustering leaves as it is.
const FULL: f64 = 2.0;

/// A cluster whose rows are to be shared with another one.
pub(super) type Split = (usize, usize);

/// Which clusters the empty ones should share with: each time the largest (as in Faiss).
pub(super) fn empty_ones(counts: &[usize]) -> Vec<Split> {
    let mut sizes: BinaryHeap<(usize, Reverse<usize>)> =
        counts.iter().enumerate().map(|(c, &n)| (n, Reverse(c))).collect();
    let mut splits = Vec::new();
    for empty in (0..counts.len()).filter(|&c| counts[c] == 0) {
        match sizes.pop() {
            Some((rows, Reverse(largest))) if rows > 1 => {
                splits.push((largest, empty));
                sizes.push((rows - rows / 2, Reverse(largest)));
            }
            _ => break,
        }
    }
    splits
}

/// Which of the smallest clusters should leave their place to share with those that have far more rows than the mean.
pub(super) fn full_ones(counts: &[usize]) -> Vec<Split> {
    let most = (FULL * counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64) as usize;
    let mut by_size: Vec<usize> = (0..counts.len()).collect();
    by_size.sort_unstable_by_key(|&c| (Reverse(counts[c]), c));
    let pairs = by_size.iter().zip(by_size.iter().rev()).take(counts.len() / 2);
    pairs.take_while(|(full, _)| counts[**full] > most.max(1)).map(|(&full, &small)| (full, small)).collect()
}

/// Where both clusters of each split go on from: a row of the shared one for each, a third and two thirds through its rows
/// (given with their clusters), so that both get their part whatever the shape.
pub(super) fn rows_of(splits: &[Split], labels: &[u32], counts: &[usize]) -> Vec<(usize, usize)> {
    let mut wanted: Vec<Vec<usize>> = vec![Vec::new(); counts.len()];
    for &(cluster, other) in splits {
        if wanted[cluster].is_empty() {
            wanted[cluster].push(cluster);
        }
        wanted[cluster].push(other);
    }
    let (mut seen, mut rows) = (vec![0usize; counts.len()], Vec::new());
    for (row, cluster) in labels.iter().map(|&c| c as usize).enumerate().filter(|(_, c)| !wanted[*c].is_empty()) {
        let (wanted, place) = (&wanted[cluster], seen[cluster]);
        seen[cluster] += 1;
        // The j-th of r rows lies (2 j + 1) / 2 r through all.
        let through = |j: usize| ((2 * j + 1) * counts[cluster] / (2 * wanted.len())).min(counts[cluster] - 1);
        rows.extend((0..wanted.len()).filter(|&j| through(j) == place).map(|j| (wanted[j], row)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_clusters_share_with_the_largest() {
        assert_eq!(empty_ones(&[10, 0, 3, 0, 0]), [(0, 1), (0, 3), (0, 4)]);
        assert_eq!(empty_ones(&[4, 9, 0, 3, 0]), [(1, 2), (1, 4)]);
        assert_eq!(empty_ones(&[1, 1, 0]), [], "there is nothing to share");
        assert_eq!(full_ones(&[1, 1, 1, 1]), []);
        assert_eq!(full_ones(&[1, 20, 0, 1, 2, 2]), [(1, 2)]);
    }

    #[test]
    fn rows_to_go_on_from_are_members() {
        let labels = [1, 0, 1, 1, 0, 1, 1, 1];
        let rows = rows_of(&[(1, 2), (1, 3)], &labels, &[2, 6, 0, 0]);
        assert_eq!(rows, [(1, 2), (2, 5), (3, 7)]);
    }

    #[test]
    fn sums_follow_every_change() {
        let rows: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let (mut sums, mut means) = (Sums::new(3, 2), vec![-1.0f32; 6]);
        sums.change(&rows, &[u32::MAX; 6], &[0, 1, 0, 1, 1, 1]);
        sums.change(&rows, &[0, 1, 0, 1, 1, 1], &[0, 1, 1, 1, 0, 1]);
        sums.means(&mut means);
        assert_eq!(sums.counts, [2, 4, 0]);
        assert_eq!(means, [4.0, 5.0, 5.5, 6.5, -1.0, -1.0], "an empty one stays where it was");
        sums.clear();
        sums.add(&[2.0, 4.0, 0.0, 0.0, 3.0, 3.0], &[0, 2, 2, 0]);
        sums.means(&mut means);
        assert_eq!((sums.counts, means), (vec![2, 0, 2], vec![1.0, 2.0, 5.5, 6.5, 1.5, 1.5]));
    }
}
