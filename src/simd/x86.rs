//! AVX2 and AVX-512.
//!
//! Functions with a `target_feature` are the only ones compiled for a level. All else is inlined into
//! them, which is why the methods here are `#[inline(always)]`: outside, each intrinsic would be a
//! call, and vectors would pass through memory.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Lane, MAX_LANES, Simd, SimdKernel};
use crate::types::DType;

/// Exists only where AVX2, FMA, F16C and POPCNT were found.
///
/// CPUs have all four since Haswell (2013) and Zen. They are separate features, so each is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx2 {
    /// Whether AVX-VNNI was found too.
    // No part of the token's promise: whoever uses it must look here first. `bytes::x86` does.
    multiplies_bytes: bool,
}

/// Exists only where AVX-512 F, BW, VL and DQ were found, and what AVX2 stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Avx512 {
    /// Whether VPOPCNTDQ was found too.
    counts_bits: bool,
    /// Whether VNNI was found too.
    multiplies_bytes: bool,
    /// Whether VBMI was found too.
    permutes_bytes: bool,
}

impl Avx2 {
    /// The only way to make one.
    pub fn new() -> Option<Avx2> {
        // The same features as `enter` enables, no fewer. The detection also asks the system whether
        // it saves the registers.
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("popcnt");
        found.then(|| Avx2 { multiplies_bytes: is_x86_feature_detected!("avxvnni") })
    }

    /// Whether AVX-VNNI was found too.
    pub fn multiplies_bytes(self) -> bool {
        self.multiplies_bytes
    }

    #[inline]
    pub fn enter<K: SimdKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,fma,f16c,popcnt")]
        // Not inlined into its caller, which lacks the features: the one call per kernel.
        fn inner<K: SimdKernel>(s: Avx2, kernel: K) -> K::Output {
            kernel.run(s)
        }
        // Calling it is unsafe for one reason: on a CPU without the features its instructions are
        // undefined.
        // SAFETY: the token proves the features.
        unsafe { inner(self, kernel) }
    }
}

impl Avx512 {
    /// The only way to make one.
    pub fn new() -> Option<Avx512> {
        // F: 512 bits. BW: 16-bit masked loads. VL: masks on 128 and 256 bits. DQ: halves of 256 bits
        // taken out. All chips since Skylake-X that have one of the last three have all of them.
        let found = Avx2::new().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        found.then(|| Avx512 {
            counts_bits: is_x86_feature_detected!("avx512vpopcntdq"),
            multiplies_bytes: is_x86_feature_detected!("avx512vnni"),
            permutes_bytes: is_x86_feature_detected!("avx512vbmi"),
        })
    }

    /// Whether VNNI was found too.
    pub fn multiplies_bytes(self) -> bool {
        self.multiplies_bytes
    }

    /// Whether VBMI was found too.
    pub fn permutes_bytes(self) -> bool {
        self.permutes_bytes
    }

    #[inline]
    pub fn enter<K: SimdKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,popcnt")]
        // The features of `new`, those of AVX2 included, as kernels fold vectors down to 128 bits.
        // `counts_bits` is no part of the token's promise: it is asked for below, before the call.
        fn inner<K: SimdKernel>(s: Avx512, kernel: K) -> K::Output {
            kernel.run(s)
        }
        // SAFETY: the token proves the features.
        unsafe { inner(self, kernel) }
    }

    /// As `enter`, with VPOPCNTDQ where it was found: the compiler vectorises counting with it.
    #[inline]
    pub fn enter_on_bits<K: SimdKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512vpopcntdq,avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c,popcnt")]
        fn inner<K: SimdKernel>(s: Avx512, kernel: K) -> K::Output {
            kernel.run(s)
        }
        if self.counts_bits {
            // SAFETY: the token proves the features, and VPOPCNTDQ was found.
            unsafe { inner(self, kernel) }
        } else {
            self.enter(kernel)
        }
    }
}

/// Methods of one instruction or few. The token is the proof that they exist on this CPU.
///
/// A reference, as in `lower_four`, is a place that may be read and written; all other operands are
/// values.
macro_rules! methods {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty { $body:expr })+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: the token proves the features that these intrinsics need; they touch no memory but what a
            // reference stands for.
            unsafe { $body }
        }
    )+};
}

/// Methods that read or write memory under the trait's own conditions.
///
/// Only the unaligned forms of instructions (`loadu`, `storeu`) appear: on aligned addresses they are
/// as fast.
macro_rules! memory {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty { $body:expr })+) => {$(
        #[inline(always)]
        unsafe fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: the token proves the features; the caller that LANES elements may be read or written, and the
            // intrinsics need no alignment.
            unsafe { $body }
        }
    )+};
}

impl Simd for Avx2 {
    // 16 registers. A tile of 2 vectors of rows times 6 queries has 12 accumulators, 2 rows and 1
    // broadcast: 15. Its 12 independent sums also cover the latency of a multiply-add: 4 cycles at 2
    // per cycle need 8.
    type F = __m256;
    const LANES: usize = 8;
    const WIDE: bool = true;
    const PANEL: usize = 16;
    const QUERIES: usize = 6;

    methods! {
        // Operations are correctly rounded, as IEEE 754 has them, except that `fma` rounds once.
        fn splat(x: f32) -> __m256 { _mm256_set1_ps(x) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        // `maxps` and `minps` give the second operand where either is NaN.
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        // -0.0 is the sign bit alone; `andnot` clears it.
        fn abs(a: __m256) -> __m256 { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
        fn sqrt(a: __m256) -> __m256 { _mm256_sqrt_ps(a) }
        fn fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        // NGT_UQ: not greater, or unordered, which is what keeps NaN; quiet, so that NaN raises
        // nothing.
        fn not_above(a: __m256, b: __m256) -> u32 {
            _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NGT_UQ>(a, b)) as u32
        }
        // A blend takes its second operand where the sign bit of the mask is set.
        fn if_above(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
            _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b))
        }
        // Halves, then quarters, then neighbours: ((0+4)+(2+6)) + ((1+5)+(3+7)).
        fn sum(a: __m256) -> f32 {{
            let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }}
        // Exact in any order.
        fn largest(a: __m256) -> f32 {{
            let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }}
        // Lanes j and j + 4 meet in lane j. The addition after the minimum is the same as before it:
        // adding a constant is monotonic under rounding.
        fn lower_four(numbers: &mut [f32; 4], a: __m256, add: f32) -> () {{
            let four = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let (four, before) = (_mm_add_ps(four, _mm_set1_ps(add)), _mm_loadu_ps(numbers.as_ptr()));
            _mm_storeu_ps(numbers.as_mut_ptr(), _mm_min_ps(four, before));
        }}
    }

    memory! {
        fn load(p: *const f32) -> __m256 { _mm256_loadu_ps(p) }
        fn store(p: *mut f32, a: __m256) -> () { _mm256_storeu_ps(p, a) }
        // 16 bytes of eight f16; the conversion is exact, subnormal numbers included.
        fn load_f16(p: *const f16) -> __m256 { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
        // Zero-extended to 32 bits, then shifted to where an f32 has its upper half.
        fn load_bf16(p: *const bf16) -> __m256 {
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()))))
        }
        // `loadl` reads eight bytes, no more: a load of 16 could cross the end of the rows.
        fn load_i8(p: *const i8) -> __m256 { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
        fn load_u8(p: *const u8) -> __m256 { _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()))) }
    }

    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        // SAFETY: a prefetch never faults, whatever the address.
        // T0: into all caches, as what is asked for is used once, and soon.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    // Places 8 .. 16 of `rows` are not read at this level.
    #[inline(always)]
    unsafe fn transpose<T: Lane>(self, rows: &[*const T; MAX_LANES], to: *mut f32, stride: usize) {
        // SAFETY: the token proves the features; the caller that eight elements may be read and written at each place.
        unsafe {
            // 8 x 8 in three steps of 8 shuffles. Each step but the last works within halves of 128
            // bits, where a shuffle has a latency of 1 cycle and not of 3. Rows are named by numbers,
            // columns by letters below.
            let mut a = [_mm256_setzero_ps(); 8];
            for i in 0..8 {
                a[i] = T::load(self, rows[i]);
            }
            // Pairs of rows interleaved: b[2 i] is (a a b b | e e f f), b[2 i + 1] is (c c d d | g g
            // h h) of rows 2 i, 2 i + 1.
            let mut b = a;
            for i in 0..4 {
                b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
                b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
            }
            // Pairs of pairs: 0x44 takes the lower two lanes of both, 0xee the upper two. Then a[4 i
            // + j] holds columns j and j + 4 of rows 4 i .. 4 i + 4.
            for i in 0..2 {
                for h in 0..2 {
                    let (x, y) = (b[4 * i + h], b[4 * i + h + 2]);
                    a[4 * i + 2 * h] = _mm256_shuffle_ps::<0x44>(x, y);
                    a[4 * i + 2 * h + 1] = _mm256_shuffle_ps::<0xee>(x, y);
                }
            }
            // 0x20 joins the lower halves, which are column i of all rows; 0x31 the upper ones,
            // column i + 4.
            for i in 0..4 {
                _mm256_storeu_ps(to.add(i * stride), _mm256_permute2f128_ps::<0x20>(a[i], a[i + 4]));
                _mm256_storeu_ps(to.add((i + 4) * stride), _mm256_permute2f128_ps::<0x31>(a[i], a[i + 4]));
            }
        }
    }
}

impl Simd for Avx512 {
    // 32 registers. A tile of 4 vectors of rows times 6 queries has 24 accumulators, 4 rows and 1
    // broadcast: 29. Per column it loads 4 vectors and 6 numbers for 24 multiply-adds, so the two
    // load ports are no bound.
    type F = __m512;
    const LANES: usize = 16;
    const WIDE: bool = true;
    const PANEL: usize = 64;
    const QUERIES: usize = 6;

    methods! {
        // As at 256 bits, where not said otherwise.
        fn splat(x: f32) -> __m512 { _mm512_set1_ps(x) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn abs(a: __m512) -> __m512 { _mm512_abs_ps(a) }
        fn sqrt(a: __m512) -> __m512 { _mm512_sqrt_ps(a) }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        // A comparison gives a mask register, one bit per lane, which is the answer as it is.
        fn not_above(a: __m512, b: __m512) -> u32 { u32::from(_mm512_cmp_ps_mask::<_CMP_NGT_UQ>(a, b)) }
        // A blend takes its last operand where the mask is set.
        fn if_above(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), y, x)
        }
        // By halving: 16 to 8 to 4 to 2 lanes to one; four additions deep.
        fn sum(a: __m512) -> f32 {{
            let eight = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }}
        fn largest(a: __m512) -> f32 {{
            let eight = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }}
        // Halving twice brings lanes j, j + 4, j + 8 and j + 12 together in lane j.
        fn lower_four(numbers: &mut [f32; 4], a: __m512, add: f32) -> () {{
            let eight = _mm256_min_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let four = _mm_min_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let (four, before) = (_mm_add_ps(four, _mm_set1_ps(add)), _mm_loadu_ps(numbers.as_ptr()));
            _mm_storeu_ps(numbers.as_mut_ptr(), _mm_min_ps(four, before));
        }}
    }

    memory! {
        fn load(p: *const f32) -> __m512 { _mm512_loadu_ps(p) }
        fn store(p: *mut f32, a: __m512) -> () { _mm512_storeu_ps(p, a) }
        // As at 256 bits: 32 bytes of 16-bit elements, or 16 bytes of 8-bit ones, never more than the
        // lanes need.
        fn load_f16(p: *const f16) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
        fn load_bf16(p: *const bf16) -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()))))
        }
        fn load_i8(p: *const i8) -> __m512 { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
        fn load_u8(p: *const u8) -> __m512 { _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()))) }
    }

    // Zeroing forms (`maskz`): lanes that are off become 0, which is what the trait promises.
    #[inline(always)]
    unsafe fn load_part<T: Lane>(self, p: *const T, n: usize) -> __m512 {
        // n < 16, so the shift is in range. Masked loads (BW and VL for elements of 8 and 16 bits)
        // suppress faults of lanes that are off: they may reach past the end of the rows without a
        // copy.
        let mask = ((1u32 << n) - 1) as __mmask16;
        // SAFETY: the token proves the features; masked lanes are not read, and the caller vouches for the first n.
        unsafe {
            // T is a `Lane`, so its type is what DTYPE says, and the casts below are to that type.
            match T::DTYPE {
                DType::F32 => _mm512_maskz_loadu_ps(mask, p.cast()),
                DType::F16 => _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p.cast())),
                // As `load_bf16`, with the mask on the load.
                DType::Bf16 => {
                    let wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
                }
                DType::I8 => _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, p.cast()))),
                // Packed bits come as bytes; no kernel here gives them a meaning as numbers.
                _ => _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, p.cast()))),
            }
        }
    }

    #[inline(always)]
    fn prefetch<T>(self, p: *const T) {
        // SAFETY: a prefetch never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }

    #[inline(always)]
    unsafe fn transpose<T: Lane>(self, rows: &[*const T; MAX_LANES], to: *mut f32, stride: usize) {
        // SAFETY: the token proves the features; the caller that 16 elements may be read and written at each place.
        unsafe {
            // 16 x 16 in four steps of 16 shuffles, the first two within quarters of 128 bits, as at
            // 256 bits.
            let mut a = [_mm512_setzero_ps(); 16];
            for i in 0..16 {
                a[i] = T::load(self, rows[i]);
            }
            // Pairs of rows interleaved: b[2 i] holds columns 0, 1 and b[2 i + 1] columns 2, 3 of
            // each quarter.
            let mut b = a;
            for i in 0..8 {
                b[2 * i] = _mm512_unpacklo_ps(a[2 * i], a[2 * i + 1]);
                b[2 * i + 1] = _mm512_unpackhi_ps(a[2 * i], a[2 * i + 1]);
            }
            // After this, a[4 i + j] holds columns j, j + 4, j + 8, j + 12 of rows 4 i .. 4 i + 4.
            for i in 0..4 {
                for h in 0..2 {
                    let (x, y) = (b[4 * i + h], b[4 * i + h + 2]);
                    a[4 * i + 2 * h] = _mm512_shuffle_ps::<0x44>(x, y);
                    a[4 * i + 2 * h + 1] = _mm512_shuffle_ps::<0xee>(x, y);
                }
            }
            for j in 0..4 {
                // Whole quarters from here on. 0x88 takes quarters 0 and 2 of both operands, 0xdd
                // quarters 1 and 3. So `low` has columns j and j + 8, `high` columns j + 4 and j +
                // 12: `.0` of rows 0 .. 8, `.1` of rows 8 .. 16.
                let low =
                    (_mm512_shuffle_f32x4::<0x88>(a[j], a[4 + j]), _mm512_shuffle_f32x4::<0x88>(a[8 + j], a[12 + j]));
                let high =
                    (_mm512_shuffle_f32x4::<0xdd>(a[j], a[4 + j]), _mm512_shuffle_f32x4::<0xdd>(a[8 + j], a[12 + j]));
                // The same once more parts the two columns, and each is whole.
                _mm512_storeu_ps(to.add(j * stride), _mm512_shuffle_f32x4::<0x88>(low.0, low.1));
                _mm512_storeu_ps(to.add((j + 4) * stride), _mm512_shuffle_f32x4::<0x88>(high.0, high.1));
                _mm512_storeu_ps(to.add((j + 8) * stride), _mm512_shuffle_f32x4::<0xdd>(low.0, low.1));
                _mm512_storeu_ps(to.add((j + 12) * stride), _mm512_shuffle_f32x4::<0xdd>(high.0, high.1));
            }
        }
    }
}
