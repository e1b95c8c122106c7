//! The first centroids, and what a seed chooses.

use super::points::Points;

/// SplitMix64 (Steele, Lea and Flood 2014).
pub(super) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// `count` different numbers below `n`, in ascending order.
    pub fn choose(&mut self, n: usize, count: usize) -> Vec<u32> {
        // Selection by rank: each number is taken with the chance that leaves exactly `count` (Knuth's algorithm S).
        let mut chosen = Vec::with_capacity(count);
        for i in 0..n {
            if self.below(n - i) < count - chosen.len() {
                chosen.push(i as u32);
            }
        }
        chosen
    }
}

/// Rows chosen at random, no row twice.
pub(super) fn random_rows(points: &Points<'_>, clusters: usize, random: &mut Random) -> Vec<f32> {
    let dim = points.dim();
    let mut out = vec![0.0; clusters * dim];
    for (&i, out) in random.choose(points.len(), clusters).iter().zip(out.chunks_exact_mut(dim)) {
        points.row(i as usize, out);
    }
    out
}
