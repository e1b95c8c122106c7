//! Small loops that show what the machine can do at best.

use super::{Kernel, Simd, Token};

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

/// Independent chains of multiply-adds: enough to cover the latency on any CPU, few enough for 16 registers.
const CHAINS: usize = 12;

/// Multiply-adds in registers, `rounds` in each chain.
pub(crate) fn multiply(token: Token, rounds: usize) -> f32 {
    token.run(Multiply(rounds))
}

/// Additions and multiplications in [`multiply`].
pub(crate) fn operations(token: Token, rounds: usize) -> f64 {
    struct Lanes;
    impl Kernel for Lanes {
        type Output = usize;
        #[inline(always)]
        fn run<S: Simd>(self, _: S) -> usize {
            S::LANES
        }
    }
    (2 * CHAINS * rounds * token.run(Lanes)) as f64
}

struct Multiply(usize);

impl Kernel for Multiply {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut acc = [s.splat(1.0); CHAINS];
        let (a, b) = (s.splat(std::hint::black_box(0.5)), s.splat(std::hint::black_box(0.25)));
        for _ in 0..self.0 {
            for acc in &mut acc {
                *acc = s.fma(*acc, a, b);
            }
        }
        let mut total = acc[0];
        for &acc in &acc[1..] {
            total = s.add(total, acc);
        }
        s.sum(total)
    }
}
