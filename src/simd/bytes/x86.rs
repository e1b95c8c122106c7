//! Products of bytes by VNNI, and by multiply-adds of 16-bit pairs where there is none.
//!
//! Rows are unsigned bytes, queries signed ones, because the instructions take one of each. So codes
//! are stored with 128 added, and sums begin with what that adds too much.

use std::arch::x86_64::*;

use super::super::x86::{Avx2, Avx512};
use super::{ByteKernel, Dot};

// One type per way to multiply, each with the token inside. Outside of tests they are made in the functions below
// only, whose features cover what the type stands for: VBMI and VNNI, VNNI, or neither.

/// AVX-512 with VNNI and VBMI: one instruction per step, one shuffle per look-up.
#[derive(Clone, Copy)]
struct Vbmi512(#[allow(dead_code)] Avx512);
/// AVX-512 with VNNI: one instruction per step, four shuffles per look-up.
#[derive(Clone, Copy)]
struct Vnni512(#[allow(dead_code)] Avx512);
/// AVX-512 with neither: nine instructions per step, of which those on queries are shared by the
/// vectors of a tile.
#[derive(Clone, Copy)]
struct Pairs512(#[allow(dead_code)] Avx512);
/// AVX2 with AVX-VNNI.
#[derive(Clone, Copy)]
struct Vnni256(#[allow(dead_code)] Avx2);
/// AVX2 alone.
#[derive(Clone, Copy)]
struct Pairs256(#[allow(dead_code)] Avx2);

/// Enters a kernel with the best way to multiply bytes at 512 bits.
///
/// The choice is made once per kernel. Inside, the way to multiply is a type, so its instructions are
/// inlined.
#[inline]
pub(super) fn enter_avx512<K: ByteKernel>(s: Avx512, kernel: K) -> K::Output {
    #[target_feature(enable = "avx512vbmi,avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,popcnt")]
    // Ice Lake and Zen 4 have both, Cascade Lake VNNI alone, Skylake-X neither.
    fn vbmi<K: ByteKernel>(s: Avx512, kernel: K) -> K::Output {
        kernel.run(s, Vbmi512(s))
    }
    #[target_feature(enable = "avx512vnni,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,popcnt")]
    fn vnni<K: ByteKernel>(s: Avx512, kernel: K) -> K::Output {
        kernel.run(s, Vnni512(s))
    }
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,popcnt")]
    fn pairs<K: ByteKernel>(s: Avx512, kernel: K) -> K::Output {
        kernel.run(s, Pairs512(s))
    }
    // Each function is called only where all of its features were found; this is the only place that
    // calls it.
    // SAFETY: the token proves the features, and says whether VNNI and VBMI were found.
    unsafe {
        // A CPU with VBMI alone (Cannon Lake) takes the way of pairs.
        match (s.multiplies_bytes(), s.permutes_bytes()) {
            (true, true) => vbmi(s, kernel),
            (true, false) => vnni(s, kernel),
            (false, _) => pairs(s, kernel),
        }
    }
}

/// Enters a kernel with the best way to multiply bytes at 256 bits.
#[inline]
pub(super) fn enter_avx2<K: ByteKernel>(s: Avx2, kernel: K) -> K::Output {
    #[target_feature(enable = "avxvnni,avx2,fma,f16c,popcnt")]
    // AVX-VNNI is the form of VNNI for CPUs without AVX-512, from Alder Lake on.
    fn vnni<K: ByteKernel>(s: Avx2, kernel: K) -> K::Output {
        kernel.run(s, Vnni256(s))
    }
    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    fn pairs<K: ByteKernel>(s: Avx2, kernel: K) -> K::Output {
        kernel.run(s, Pairs256(s))
    }
    // As above.
    // SAFETY: the token proves the features, and says whether AVX-VNNI was found.
    unsafe { if s.multiplies_bytes() { vnni(s, kernel) } else { pairs(s, kernel) } }
}

/// Everything but the product itself, which is the same with and without VNNI. Each value holds the token that proves
/// the features.
///
/// `$dot4` and `$entries` are expressions of intrinsics, used in an unsafe block whose ground is the
/// token; of memory they touch the 64 bytes of the table alone.
macro_rules! dot {
    ($token:ty, $level:ty, $i:ty, $splat:ident, $to_f32:ident, $load:ident, $store:ident, |$acc:ident, $x:ident, $w:ident| $dot4:expr, |$sum:ident| $total:expr, |$table:ident, $at:ident| $entries:expr) => {
        impl Dot<$level> for $token {
            type I = $i;

            // The bits of x in each lane: four bytes of a query as `dot4` wants them, or the number
            // that sums begin with.
            #[inline(always)]
            fn splat(self, x: i32) -> $i {
                // SAFETY: the token proves the features.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            fn dot4(self, $acc: $i, $x: $i, $w: $i) -> $i {
                // SAFETY: the token proves the features.
                unsafe { $dot4 }
            }
            // Rounds to nearest: sums beyond 2^24 lose their last bits here, and the bounds allow for
            // it.
            #[inline(always)]
            fn to_f32(self, a: $i) -> <$level as super::Simd>::F {
                // SAFETY: the token proves the features.
                unsafe { $to_f32(a) }
            }
            #[inline(always)]
            fn sum(self, $sum: $i) -> i32 {
                // SAFETY: the token proves the features.
                unsafe { $total }
            }
            // The unaligned forms: rows begin at multiples of 16 bytes, not of a vector.
            #[inline(always)]
            unsafe fn load(self, p: *const u8) -> $i {
                // SAFETY: the token proves the features, the caller that a vector is readable.
                unsafe { $load(p.cast()) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut u8, a: $i) {
                // SAFETY: the token proves the features, the caller that a vector is writable.
                unsafe { $store(p.cast(), a) }
            }
            // 64 bytes at `$table` are four tables of 16; no way reads more of it.
            #[inline(always)]
            unsafe fn look_up(self, $table: *const u8, $at: $i) -> $i {
                // SAFETY: the token proves the features, the caller that 64 bytes are readable.
                unsafe { $entries }
            }
        }
    };
}

// In what follows: the type, its level, the vector of i32, the instructions for `splat`, `to_f32`,
// `load` and `store`, then `dot4`, `sum` and `look_up`.
// Without VBMI no shuffle of bytes crosses quarters of 128 bits; see `look_up_512`.
dot!(
    // Products as by VNNI below; tables by one shuffle of 64 bytes across the whole register (VBMI),
    // indices taken modulo 64.
    Vbmi512,
    Avx512,
    __m512i,
    _mm512_set1_epi32,
    _mm512_cvtepi32_ps,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    // Four products of unsigned and signed bytes per lane. Each fits 16 signed bits (255 * -128), and
    // this form of the instruction wraps where `dpbusds` saturates; neither happens, as the sums fit.
    |acc, x, w| _mm512_dpbusd_epi32(acc, x, w),
    |a| _mm512_reduce_add_epi32(a),
    |table, at| _mm512_permutexvar_epi8(at, _mm512_loadu_si512(table.cast()))
);

dot!(
    Vnni512,
    Avx512,
    __m512i,
    _mm512_set1_epi32,
    _mm512_cvtepi32_ps,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    |acc, x, w| _mm512_dpbusd_epi32(acc, x, w),
    |a| _mm512_reduce_add_epi32(a),
    |table, at| look_up_512(table, at)
);

// Even and odd bytes apart, so that the products of a pair fit in 32 bits without saturation.
dot!(
    Pairs512,
    Avx512,
    __m512i,
    _mm512_set1_epi32,
    _mm512_cvtepi32_ps,
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    // Not `maddubs`, which adds two products in 16 bits: 2 * 255 * 127 saturates. `madd` multiplies
    // 16 bits by 16 and adds pairs in 32.
    |acc, x, w| {
        // Bytes of rows are extended by zeros: even ones by a mask, odd ones by a shift.
        let (even, odd) = (_mm512_and_si512(x, _mm512_set1_epi16(0xff)), _mm512_srli_epi16::<8>(x));
        // Those of queries by their sign: arithmetic shifts, after moving even ones up.
        let (w_even, w_odd) = (_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(w)), _mm512_srai_epi16::<8>(w));
        _mm512_add_epi32(_mm512_add_epi32(acc, _mm512_madd_epi16(even, w_even)), _mm512_madd_epi16(odd, w_odd))
    },
    |a| _mm512_reduce_add_epi32(a),
    |table, at| look_up_512(table, at)
);

dot!(
    Vnni256,
    Avx2,
    __m256i,
    _mm256_set1_epi32,
    _mm256_cvtepi32_ps,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    |acc, x, w| _mm256_dpbusd_avx_epi32(acc, x, w),
    |a| sum256(a),
    |table, at| look_up_256(table, at)
);

dot!(
    Pairs256,
    Avx2,
    __m256i,
    _mm256_set1_epi32,
    _mm256_cvtepi32_ps,
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    // As at 512 bits.
    |acc, x, w| {
        let (even, odd) = (_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(x));
        let (w_even, w_odd) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)), _mm256_srai_epi16::<8>(w));
        _mm256_add_epi32(_mm256_add_epi32(acc, _mm256_madd_epi16(even, w_even)), _mm256_madd_epi16(odd, w_odd))
    },
    |a| sum256(a),
    |table, at| look_up_256(table, at)
);

/// The sum of eight i32: halves, pairs, neighbours. There is no reduction at 256 bits in the
/// intrinsics.
///
/// # Safety
/// AVX2 is there.
#[inline(always)]
unsafe fn sum256(a: __m256i) -> i32 {
    // SAFETY: the caller's promise.
    unsafe {
        let four = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
        // 0x4e swaps the halves, 0xb1 neighbours.
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0x4e>(four));
        _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0xb1>(two)))
    }
}

/// Entries of four tables of 16 bytes, byte b of each lane from table b.
///
/// `shuffle_epi8` looks up within quarters of 128 bits, so each table is broadcast to all four. It is
/// used once per table, under a mask of every fourth byte: 0x1111.. for byte 0 of each lane, and so
/// on.
///
/// # Safety
/// AVX-512 F and BW are there, 64 bytes readable at `table`.
#[inline(always)]
unsafe fn look_up_512(table: *const u8, at: __m512i) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        // The upper half of an index names the table, which the mask decides here.
        let at = _mm512_and_si512(at, _mm512_set1_epi8(15));
        let part = |b: usize| _mm512_broadcast_i32x4(_mm_loadu_si128(table.add(16 * b).cast()));
        let one = _mm512_maskz_shuffle_epi8(0x1111_1111_1111_1111, part(0), at);
        // Bytes outside of the mask keep what earlier tables gave.
        let two = _mm512_mask_shuffle_epi8(one, 0x2222_2222_2222_2222, part(1), at);
        let three = _mm512_mask_shuffle_epi8(two, 0x4444_4444_4444_4444, part(2), at);
        _mm512_mask_shuffle_epi8(three, 0x8888_8888_8888_8888, part(3), at)
    }
}

/// As [`look_up_512`]. Without mask registers all four tables are asked for every byte, and a mask
/// keeps the fourth that is theirs.
///
/// # Safety
/// AVX2 is there, 64 bytes readable at `table`.
#[inline(always)]
unsafe fn look_up_256(table: *const u8, at: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let at = _mm256_and_si256(at, _mm256_set1_epi8(15));
        let part = |b: usize| {
            let four = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.add(16 * b).cast()));
            // 0xff << 24 is the sign bit and seven more: the same bits, whatever their sign.
            _mm256_and_si256(_mm256_shuffle_epi8(four, at), _mm256_set1_epi32(0xff << (8 * b)))
        };
        _mm256_or_si256(_mm256_or_si256(part(0), part(1)), _mm256_or_si256(part(2), part(3)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Simd;
    use super::*;

    /// Sums with one implementation, against plain arithmetic, bytes at their extremes among them.
    ///
    /// 255 and 128 are what saturates in `maddubs`, and -128 is what has no negative.
    fn check<S: Simd, D: Dot<S>>(s: S, d: D, name: &str) {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match state >> 29 {
                0 => 255u8,
                1 => 128,
                2 => 0,
                _ => (state >> 16) as u8,
            }
        };
        for _ in 0..200 {
            let (mut x, mut w) = ([0u8; 64], [0u8; 64]);
            x.iter_mut().zip(&mut w).for_each(|(x, w)| (*x, *w) = (next(), next()));
            // The sums are small enough for f32 to be exact.
            let mut sums = [0f32; 16];
            // SAFETY: each array holds 16 words, the most of any level; the tests below ran the checks of features.
            unsafe {
                // From a value that is not zero, as sums of the kernels begin.
                let acc = d.dot4(d.splat(-7), d.load(x.as_ptr()), d.load(w.as_ptr()));
                s.store(sums.as_mut_ptr(), d.to_f32(acc));
                assert_eq!(d.sum(acc), sums[..S::LANES].iter().sum::<f32>() as i32, "{name}");
            }
            for lane in 0..S::LANES {
                let product = |i: usize| i32::from(x[i]) * i32::from(w[i].cast_signed());
                assert_eq!(sums[lane] as i32, -7 + (4 * lane..4 * lane + 4).map(product).sum::<i32>(), "{name}");
            }
        }
    }

    #[test]
    fn every_way_to_multiply_bytes_gives_the_exact_sums() {
        if let Some(s) = Avx2::new() {
            check(s, Pairs256(s), "pairs of 256 bits");
            if s.multiplies_bytes() {
                check(s, Vnni256(s), "vnni of 256 bits");
            }
        }
        if let Some(s) = Avx512::new() {
            check(s, Pairs512(s), "pairs of 512 bits");
            if s.multiplies_bytes() {
                check(s, Vnni512(s), "vnni of 512 bits");
            }
        }
    }
}
