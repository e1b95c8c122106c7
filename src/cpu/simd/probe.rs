//! Small loops that show what the machine can do at best.

use std::hint::black_box;

use super::{Kernel, MAX_LANES, Simd, Token};

/// The sum of all numbers: reading, with hardly any arithmetic.
pub(crate) fn sum(token: Token, numbers: &[f32]) -> f32 {
    token.run(Sum(numbers))
}

struct Sum<'a>(&'a [f32]);

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut acc = [s.splat(0.0); 4];
        for chunk in self.0.chunks_exact(4 * S::LANES) {
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: the chunk holds four vectors.
                *acc = s.add(*acc, unsafe { s.load(chunk.as_ptr().add(i * S::LANES)) });
            }
        }
        s.sum(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])))
    }
}

/// Independent chains of multiply-adds: enough to cover their latency, few enough for the registers.
const CHAINS: usize = 12;
/// For arrays of eight, which are two or more registers each.
const NARROW_CHAINS: usize = 4;

/// Multiply-adds in registers, `rounds` in each chain; gives how many additions and multiplications that were.
pub(crate) fn multiply(token: Token, rounds: usize) -> f64 {
    token.run(Multiply(rounds))
}

struct Multiply(usize);

impl Kernel for Multiply {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        if S::WIDE { self.chains::<S, CHAINS>(s) } else { self.chains::<S, NARROW_CHAINS>(s) }
    }
}

impl Multiply {
    #[inline(always)]
    fn chains<S: Simd, const N: usize>(self, s: S) -> f64 {
        // Through memory at both ends: compilers then see vectors in arrays, too.
        let mut ends = black_box([[1.0f32; MAX_LANES]; N]);
        let mut acc = [s.splat(1.0); N];
        for i in 0..N {
            // SAFETY: MAX_LANES >= LANES.
            acc[i] = unsafe { s.load(ends[i].as_ptr()) };
        }
        let (a, b) = (s.splat(black_box(0.5)), s.splat(black_box(0.25)));
        for _ in 0..self.0 {
            for i in 0..N {
                acc[i] = s.fma(acc[i], a, b);
            }
        }
        for i in 0..N {
            // SAFETY: MAX_LANES >= LANES.
            unsafe { s.store(ends[i].as_mut_ptr(), acc[i]) };
        }
        black_box(ends);
        (2 * N * S::LANES * self.0) as f64
    }
}
