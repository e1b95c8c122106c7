//! NEON, which every 64-bit Arm CPU has.
//!
//! NEON is part of the base of 64-bit Arm, so `enter` changes no code on common targets. It is kept
//! for targets that are compiled without it, and for one shape of all levels.

use std::arch::aarch64::*;

use half::{bf16, f16};

use super::{Simd, SimdKernel, f16_bits};

/// Exists only where NEON was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neon(());

impl Neon {
    /// The only way to make one: the field is private.
    pub fn new() -> Option<Neon> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }

    #[inline]
    pub fn enter<K: SimdKernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        fn inner<K: SimdKernel>(s: Neon, kernel: K) -> K::Output {
            kernel.run(s)
        }
        // SAFETY: the token proves the feature.
        unsafe { inner(self, kernel) }
    }
}

/// Methods of one instruction or few. The token is the proof that they exist on this CPU.
macro_rules! methods {
    ($(fn $name:ident($($arg:ident: $ty:ty),*) -> $out:ty { $body:expr })+) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $ty),*) -> $out {
            // SAFETY: the token proves the feature that these intrinsics need; none of them touches memory.
            unsafe { $body }
        }
    )+};
}

/// Four elements, each converted by `f`: for types whose conversion needs more than base NEON, or
/// whose loads would read more than four elements.
///
/// # Safety
/// Four elements are readable at `p`.
#[inline(always)]
unsafe fn gather<T: Copy>(p: *const T, f: impl Fn(T) -> f32) -> float32x4_t {
    // SAFETY: the caller's promise; the array holds four.
    unsafe {
        let four = [f(*p), f(*p.add(1)), f(*p.add(2)), f(*p.add(3))];
        vld1q_f32(four.as_ptr())
    }
}

impl Simd for Neon {
    // 32 registers of 128 bits. A tile of 4 vectors of rows times 6 queries has 24 accumulators, 4
    // rows and 1 broadcast: 29. Four pipes with a latency of 4 cycles, as in Apple's cores, need 16
    // independent sums.
    type F = float32x4_t;
    const LANES: usize = 4;
    const WIDE: bool = true;
    const PANEL: usize = 16;
    const QUERIES: usize = 6;

    methods! {
        fn splat(x: f32) -> float32x4_t { vdupq_n_f32(x) }
        fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
        fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) }
        // Other than on x86, NaN in either operand gives NaN.
        fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmaxq_f32(a, b) }
        fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vminq_f32(a, b) }
        fn abs(a: float32x4_t) -> float32x4_t { vabsq_f32(a) }
        fn sqrt(a: float32x4_t) -> float32x4_t { vsqrtq_f32(a) }
        // The addend comes first.
        fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
        // There is no movemask. A comparison gives lanes of all ones; `bic` clears by it the place
        // value of each lane, and the sum across lanes is the mask. A NaN compares as not above and
        // keeps its bit.
        fn not_above(a: float32x4_t, b: float32x4_t) -> u32 {{
            let places: [u32; 4] = [1, 2, 4, 8];
            vaddvq_u32(vbicq_u32(vld1q_u32(places.as_ptr()), vcgtq_f32(a, b)))
        }}
        // `bsl` takes bits of x where the mask is set.
        fn if_above(a: float32x4_t, b: float32x4_t, x: float32x4_t, y: float32x4_t) -> float32x4_t {
            vbslq_f32(vcgtq_f32(a, b), x, y)
        }
        // Added in pairs: (0+1) + (2+3).
        fn sum(a: float32x4_t) -> f32 { vaddvq_f32(a) }
        fn largest(a: float32x4_t) -> f32 { vmaxvq_f32(a) }
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        // SAFETY: the token proves the feature, the caller that four f32 are readable.
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: float32x4_t) {
        // SAFETY: the token proves the feature, the caller that four f32 are writable.
        unsafe { vst1q_f32(p, a) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { gather(p, |x| f32::from_bits(f16_bits(x.to_bits()))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> float32x4_t {
        // SAFETY: the token proves the feature, the caller that four 16-bit values are readable.
        // Eight bytes, widened and shifted by one instruction to the upper halves of f32.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { gather(p, f32::from) }
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { gather(p, f32::from) }
    }
}
