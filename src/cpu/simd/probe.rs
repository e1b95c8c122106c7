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

/// Lanes of 32 bits that the integer probes work on at a time.
const WORDS: usize = 128;

/// Counts bits in registers, `rounds` times `WORDS` words; gives how many operations that was.
pub(crate) fn count(token: Token, rounds: usize) -> f64 {
    token.run_on_bits(Count(rounds))
}

struct Count(usize);

impl Kernel for Count {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let (mut acc, mask) = (black_box([1u64; WORDS / 2]), black_box([0x5555_5555_1234_5678u64; WORDS / 2]));
        for _ in 0..self.0 {
            for (acc, mask) in acc.iter_mut().zip(&mask) {
                *acc += u64::from((*acc ^ mask).count_ones());
            }
        }
        black_box(acc);
        (3 * WORDS * self.0) as f64
    }
}

/// Adds up products of bytes in registers, `rounds` times; gives how many multiplications and additions that was, and the
/// instructions.
pub(crate) fn dot(token: Token, rounds: usize) -> (f64, &'static str) {
    match token {
        #[cfg(target_arch = "x86_64")]
        Token::Avx512(_) if is_x86_feature_detected!("avx512vnni") => {
            // SAFETY: the token proves AVX-512 F and BW; VNNI was found.
            (unsafe { x86::dot_avx512_vnni(rounds) }, "AVX-512 VNNI")
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves AVX-512 F and BW.
        Token::Avx512(_) => (unsafe { x86::dot_avx512(rounds) }, "AVX-512 multiply-add pairs"),
        #[cfg(target_arch = "x86_64")]
        Token::Avx2(_) if is_x86_feature_detected!("avxvnni") => {
            // SAFETY: the token proves AVX2; VNNI was found.
            (unsafe { x86::dot_avx_vnni(rounds) }, "AVX-VNNI")
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the token proves AVX2.
        Token::Avx2(_) => (unsafe { x86::dot_avx2(rounds) }, "AVX2 multiply-add pairs"),
        _ => (token.run(Dot(rounds)), "as compiled from a loop"),
    }
}

struct Dot(usize);

impl Kernel for Dot {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let (mut acc, a) = (black_box([1i32; WORDS / 4]), black_box([[3i8; 4]; WORDS / 4]));
        for _ in 0..self.0 {
            for (acc, a) in acc.iter_mut().zip(&a) {
                let b = *acc as i8;
                *acc += a.iter().map(|&a| i32::from(a) * i32::from(b)).sum::<i32>() & 0xff;
            }
        }
        black_box(acc);
        (8 * (WORDS / 4) * self.0) as f64
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Independent sums: enough to cover the latency of the products.
    const SUMS: usize = 12;

    /// A loop over `SUMS` vectors of bytes; `$step` adds products of `a` and `b` to a sum.
    macro_rules! dots {
        ($($name:ident, $features:literal, $vector:ty, $set:ident, $step:expr;)+) => {$(
            /// # Safety
            /// The CPU has the features.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(rounds: usize) -> f64 {
                let (a, b) = ($set(black_box(3)), $set(black_box(2)));
                let mut sums = black_box([$set(1); SUMS]);
                for _ in 0..rounds {
                    for sum in &mut sums {
                        *sum = $step(*sum, a, b);
                    }
                }
                black_box(sums);
                (2 * SUMS * size_of::<$vector>() * rounds) as f64
            }
        )+};
    }

    dots! {
        dot_avx512_vnni, "avx512f,avx512bw,avx512vnni", __m512i, _mm512_set1_epi8,
            |sum, a, b| _mm512_dpbusd_epi32(sum, a, b);
        dot_avx512, "avx512f,avx512bw", __m512i, _mm512_set1_epi8, |sum, a, b| {
            // The first product depends on the sum, so that it is not made once for all rounds.
            let pairs = _mm512_maddubs_epi16(_mm512_xor_si512(a, sum), b);
            _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        };
        dot_avx_vnni, "avx2,avxvnni", __m256i, _mm256_set1_epi8, |sum, a, b| _mm256_dpbusd_avx_epi32(sum, a, b);
        dot_avx2, "avx2", __m256i, _mm256_set1_epi8, |sum, a, b| {
            let pairs = _mm256_maddubs_epi16(_mm256_xor_si256(a, sum), b);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        };
    }
}
