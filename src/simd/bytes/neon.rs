//! Products of bytes on 64-bit Arm: widening multiplications, added up in pairs.
//!
//! Not by `sdot` and `udot`, which base NEON lacks and which do not mix signs: rows are unsigned
//! here, queries signed.

use std::arch::aarch64::*;

use super::super::neon::Neon;
use super::{ByteKernel, Dot};

/// The way of base NEON. The token inside is the proof of the feature.
#[derive(Clone, Copy)]
struct Widen(Neon);

#[inline]
pub(super) fn enter<K: ByteKernel>(s: Neon, kernel: K) -> K::Output {
    #[target_feature(enable = "neon")]
    // Where the vector code of the kernel is compiled, all of it inlined.
    fn inner<K: ByteKernel>(s: Neon, kernel: K) -> K::Output {
        kernel.run(s, Widen(s))
    }
    // SAFETY: the token proves the feature.
    unsafe { inner(s, kernel) }
}

impl Dot<Neon> for Widen {
    // Four lanes of four bytes.
    type I = int32x4_t;

    #[inline(always)]
    fn splat(self, x: i32) -> int32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vdupq_n_s32(x) }
    }
    #[inline(always)]
    fn dot4(self, acc: int32x4_t, rows: int32x4_t, query: int32x4_t) -> int32x4_t {
        // SAFETY: the token proves the feature.
        unsafe {
            // A register as bytes: a cast, no instruction.
            let (x, w) = (vreinterpretq_u8_s32(rows), vreinterpretq_s8_s32(query));
            // Unsigned bytes as signed 16 bits times signed ones: each product fits in 32 bits.
            let (x_low, x_high) =
                (vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x))), vreinterpretq_s16_u16(vmovl_high_u8(x)));
            // `low` covers lanes 0 and 1, `high` lanes 2 and 3: eight products each, four per lane.
            let (w_low, w_high) = (vmovl_s8(vget_low_s8(w)), vmovl_high_s8(w));
            // A pairwise addition leaves two sums per lane, the one below adds those: bytes 0 + 1 and
            // 2 + 3 of each lane in order.
            let low = vpaddq_s32(vmull_s16(vget_low_s16(x_low), vget_low_s16(w_low)), vmull_high_s16(x_low, w_low));
            let high =
                vpaddq_s32(vmull_s16(vget_low_s16(x_high), vget_low_s16(w_high)), vmull_high_s16(x_high, w_high));
            vaddq_s32(acc, vpaddq_s32(low, high))
        }
    }
    #[inline(always)]
    fn to_f32(self, a: int32x4_t) -> float32x4_t {
        // SAFETY: the token proves the feature.
        unsafe { vcvtq_f32_s32(a) }
    }
    #[inline(always)]
    fn sum(self, a: int32x4_t) -> i32 {
        // SAFETY: the token proves the feature.
        unsafe { vaddvq_s32(a) }
    }
    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> int32x4_t {
        // SAFETY: the token proves the feature, the caller that 16 bytes are readable.
        unsafe { vreinterpretq_s32_u8(vld1q_u8(p)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, a: int32x4_t) {
        // SAFETY: the token proves the feature, the caller that 16 bytes are writable.
        unsafe { vst1q_u8(p, vreinterpretq_u8_s32(a)) }
    }
    // One instruction over four registers of table; indices of 64 and more would give 0, and there
    // are none.
    #[inline(always)]
    unsafe fn look_up(self, table: *const u8, at: int32x4_t) -> int32x4_t {
        // SAFETY: the token proves the feature, the caller that 64 bytes are readable.
        unsafe { vreinterpretq_s32_u8(vqtbl4q_u8(vld1q_u8_x4(table), vreinterpretq_u8_s32(at))) }
    }
}
