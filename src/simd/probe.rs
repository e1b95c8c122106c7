//! Small loops that show what the machine can do at best.
//!
//! A ceiling must not be too low, or a kernel would be judged to be past it. So each loop has one
//! limit only: no addend waits for another (enough independent sums), nothing is spilled (few
//! enough), and no result can be foreseen (`black_box`).

use std::hint::black_box;

use super::{MAX_LANES, Simd, SimdKernel, Token};

/// The sum of all numbers: reading, with hardly any arithmetic.
pub(crate) fn sum(token: Token, numbers: &[f32]) -> f32 {
    token.run(Sum(numbers))
}

/// What is left behind the last eight vectors is not read: the probe is about rate.
struct Sum<'a>(&'a [f32]);

impl SimdKernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        // Enough sums to cover the latency of an addition; written out, so that they stay in registers.
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = [s.splat(0.0); 8];
        for chunk in self.0.chunks_exact(8 * S::LANES) {
            // `chunks_exact` gives chunks of exactly this length.
            // SAFETY: the chunk holds eight vectors.
            let at = |i: usize| unsafe { s.load(chunk.as_ptr().add(i * S::LANES)) };
            (a, b, c, d) = (s.add(a, at(0)), s.add(b, at(1)), s.add(c, at(2)), s.add(d, at(3)));
            (e, f, g, h) = (s.add(e, at(4)), s.add(f, at(5)), s.add(g, at(6)), s.add(h, at(7)));
        }
        let low = s.add(s.add(a, b), s.add(c, d));
        s.sum(s.add(low, s.add(s.add(e, f), s.add(g, h))))
    }
}

/// Independent chains of multiply-adds: enough to cover their latency, few enough for the registers.
///
/// 4 cycles of latency at 2 instructions per cycle need 8; 12 and two constants fit 16 registers.
const CHAINS: usize = 12;
/// For arrays of eight, which are two or more registers each.
const NARROW_CHAINS: usize = 4;

/// Multiply-adds in registers, `rounds` in each chain; gives how many additions and multiplications that were.
pub(crate) fn multiply(token: Token, rounds: usize) -> f64 {
    token.run(Multiply(rounds))
}

/// Rounds.
struct Multiply(usize);

impl SimdKernel for Multiply {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f64 {
        if S::WIDE { self.chains::<S, CHAINS>(s) } else { self.chains::<S, NARROW_CHAINS>(s) }
    }
}

impl Multiply {
    /// `x = x / 2 + 1/4` in N chains: it tends to 1/2, so values stay normal and no operation is slow
    /// for its operands.
    #[inline(always)]
    fn chains<S: Simd, const N: usize>(self, s: S) -> f64 {
        // Through memory at both ends: compilers then see vectors in arrays, too.
        let mut ends = black_box([[1.0f32; MAX_LANES]; N]);
        let mut acc = [s.splat(1.0); N];
        for i in 0..N {
            // SAFETY: MAX_LANES >= LANES.
            acc[i] = unsafe { s.load(ends[i].as_ptr()) };
        }
        // Behind `black_box`, so that the chain is not folded into a constant.
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
        // A multiply-add is two operations.
        (2 * N * S::LANES * self.0) as f64
    }
}

/// Words of 64 bits that the probes of integers go over: few enough for the fastest cache.
const WORDS: usize = 256;

/// Counts the bits in which two lists differ, `rounds` times; gives how many operations on words of 32 bits that was.
pub(crate) fn count(token: Token, rounds: usize) -> f64 {
    token.run_on_bits(Count(rounds))
}

/// Rounds.
struct Count(usize);

impl SimdKernel for Count {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let (a, b) = ([1u64; WORDS], [0x5555_5555_1234_5678u64; WORDS]);
        for _ in 0..self.0 {
            // Plain Rust: with VPOPCNTDQ enabled, as `run_on_bits` has it, the compiler vectorises
            // the count.
            let pairs = black_box(&a).iter().zip(black_box(&b));
            black_box(pairs.fold(0u64, |sum, (a, b)| sum.wrapping_add(u64::from((a ^ b).count_ones()))));
        }
        // Exclusive or, count, addition; two words of 32 bits in one of 64.
        (3 * 2 * WORDS * self.0) as f64
    }
}

/// Adds up products of bytes in registers, `rounds` times; gives how many multiplications and additions that was, and the
/// instructions.
pub(crate) fn dot(token: Token, rounds: usize) -> (f64, &'static str) {
    // The instructions that `bytes` would choose on this CPU.
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

/// Rounds, for levels without a function below.
struct Dot(usize);

impl SimdKernel for Dot {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let (a, b) = ([3i8; 8 * WORDS], [2i8; 8 * WORDS]);
        for _ in 0..self.0 {
            let pairs = black_box(&a).iter().zip(black_box(&b));
            black_box(pairs.fold(0i32, |sum, (&a, &b)| sum.wrapping_add(i32::from(a) * i32::from(b))));
        }
        (2 * 8 * WORDS * self.0) as f64
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Independent sums: enough to cover the latency of the products.
    const SUMS: usize = 12;

    /// A loop over `SUMS` vectors of bytes; `$step` adds products of `a` and `b` to a sum.
    ///
    /// The features are enabled per function, and calling one is unsafe where the CPU may lack them.
    macro_rules! dots {
        ($($name:ident, $features:literal, $vector:ty, $set:ident, $step:expr;)+) => {$(
            /// # Safety
            /// The CPU has the features.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(rounds: usize) -> f64 {
                // The macro's expressions are intrinsics on values. They touch no memory, so within
                // the features they are safe.
                let (a, b) = ($set(black_box(3)), $set(black_box(2)));
                let mut sums = black_box([$set(1); SUMS]);
                for _ in 0..rounds {
                    for sum in &mut sums {
                        *sum = $step(*sum, a, b);
                    }
                }
                black_box(sums);
                // A byte of the vector is a multiplication and an addition.
                (2 * SUMS * size_of::<$vector>() * rounds) as f64
            }
        )+};
    }

    dots! {
        dot_avx512_vnni, "avx512f,avx512bw,avx512vnni", __m512i, _mm512_set1_epi8,
            // Four products of unsigned and signed bytes per lane, added to it, in one instruction.
            |sum, a, b| _mm512_dpbusd_epi32(sum, a, b);
        dot_avx512, "avx512f,avx512bw", __m512i, _mm512_set1_epi8, |sum, a, b| {
            // The first product depends on the sum, so that it is not made once for all rounds.
            let pairs = _mm512_maddubs_epi16(_mm512_xor_si512(a, sum), b);
            _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
        };
        dot_avx_vnni, "avx2,avxvnni", __m256i, _mm256_set1_epi8, |sum, a, b| _mm256_dpbusd_avx_epi32(sum, a, b);
        dot_avx2, "avx2", __m256i, _mm256_set1_epi8, |sum, a, b| {
            // As at 512 bits. Sums of pairs saturate at 16 bits for large bytes; for a rate this does
            // not matter.
            let pairs = _mm256_maddubs_epi16(_mm256_xor_si256(a, sum), b);
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        };
    }
}
