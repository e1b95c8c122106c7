//! Random orthogonal transforms that cost d log d: rounds of random signs and Walsh-Hadamard transforms.
//!
//! A round multiplies the components by random signs and transforms the first (in odd rounds the last) 2^k of them, as
//! many as there are. Where that is not all, sums and differences of the two halves follow (a step of Kac's walk), so that
//! six rounds mix all; three do where it is all.

use crate::random::Uniform;
use crate::simd::Simd;

/// Rows that are turned at a time, one per lane.
pub(super) const LANES: usize = 16;

/// A rotation of vectors of an even number of components, the same for the same seed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Hadamard {
    pub dim: usize,
    pub seed: u64,
    /// `[rounds, dim]`: signs, times what makes the rounds keep lengths.
    factors: Vec<f32>,
}

impl Hadamard {
    pub fn new(dim: usize, seed: u64) -> Hadamard {
        let (size, mut random) = (part(dim), Uniform::new(seed));
        let whole = size == dim;
        let rounds = if whole { 3 } else { 6 };
        let factors = (0..rounds * dim).map(|i| {
            let (round, j) = (i / dim, i % dim);
            let sign = if random.next() < 0.5 { -1.0 } else { 1.0 };
            let inside = if round % 2 == 0 { j < size } else { j >= dim - size };
            let scale = if inside { (size as f64).sqrt().recip() } else { 1.0 };
            (sign * scale * if whole { 1.0 } else { std::f64::consts::FRAC_1_SQRT_2 }) as f32
        });
        Hadamard { dim, seed, factors: factors.collect() }
    }

    /// Turns the vectors in the lanes of `block`, one component after the other.
    #[inline(always)]
    pub fn turn<S: Simd>(&self, s: S, block: &mut [[f32; LANES]]) {
        let (dim, size) = (self.dim, part(self.dim));
        for (round, factors) in self.factors.chunks_exact(dim).enumerate() {
            for (x, &factor) in block.iter_mut().zip(factors) {
                let factor = s.splat(factor);
                for x in x.chunks_exact_mut(S::LANES) {
                    s.put(x, s.mul(s.get(x), factor));
                }
            }
            let first = if round % 2 == 0 { 0 } else { dim - size };
            walsh(s, &mut block[first..first + size]);
            if size < dim {
                let (low, high) = block.split_at_mut(dim / 2);
                butterfly(s, low, high);
            }
        }
    }
}

/// The largest power of two up to `dim`.
fn part(dim: usize) -> usize {
    1 << dim.max(1).ilog2()
}

#[inline(always)]
fn walsh<S: Simd>(s: S, block: &mut [[f32; LANES]]) {
    let mut half = block.len() / 2;
    while half > 0 {
        for pair in block.chunks_exact_mut(2 * half) {
            let (low, high) = pair.split_at_mut(half);
            butterfly(s, low, high);
        }
        half /= 2;
    }
}

#[inline(always)]
fn butterfly<S: Simd>(s: S, low: &mut [[f32; LANES]], high: &mut [[f32; LANES]]) {
    for (a, b) in low.iter_mut().zip(high) {
        for (a, b) in a.chunks_exact_mut(S::LANES).zip(b.chunks_exact_mut(S::LANES)) {
            let (x, y) = (s.get(a), s.get(b));
            s.put(a, s.add(x, y));
            s.put(b, s.sub(x, y));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{SimdKernel, Token};

    struct Turn<'a>(&'a Hadamard, &'a mut [[f32; LANES]]);

    impl SimdKernel for Turn<'_> {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            self.0.turn(s, self.1);
        }
    }

    #[test]
    fn hadamard_rotations_are_orthogonal_and_mix_all_components() {
        for dim in [2, 64, 192, 320, 384] {
            let rotation = Hadamard::new(dim, 7);
            let mut columns = Vec::new();
            for j in 0..dim {
                let mut block = vec![[0.0; LANES]; dim];
                block[j] = [1.0; LANES];
                Token::best().run(Turn(&rotation, &mut block));
                columns.push(block.iter().map(|x| x[3]).collect::<Vec<f32>>());
            }
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
            for i in 0..dim {
                for j in 0..=i {
                    let wanted = f32::from(u8::from(i == j));
                    assert!((dot(&columns[i], &columns[j]) - wanted).abs() < 1e-4, "{dim}: {i} {j}");
                }
                // Normal numbers of this variance are below that, all but never above.
                let most = columns[i].iter().fold(0.0f32, |a, x| a.max(x.abs()));
                assert!(dim == 2 || most < 7.0 / (dim as f32).sqrt(), "{dim}: {most}");
            }
            assert_ne!(Hadamard::new(dim, 8), rotation);
        }
    }
}
