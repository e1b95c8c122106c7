//! Products of bytes by plain loops.
//!
//! Exact, as all ways are: sums of integers, whatever their order.

use super::super::portable::Portable;
use super::Dot;

/// Needs nothing.
#[derive(Clone, Copy)]
pub(super) struct Scalar;

/// Lanes of [`Portable`].
const N: usize = 8;

impl Dot<Portable> for Scalar {
    // A lane holds four bytes, the first in the lowest bits.
    type I = [i32; N];

    #[inline(always)]
    fn splat(self, x: i32) -> [i32; N] {
        [x; N]
    }
    #[inline(always)]
    fn dot4(self, acc: [i32; N], rows: [i32; N], query: [i32; N]) -> [i32; N] {
        let mut out = acc;
        for i in 0..N {
            // Row and query are split alike, so the same bytes meet whatever the byte order of the
            // machine.
            let (x, w) = (rows[i].to_le_bytes(), query[i].to_le_bytes());
            for j in 0..4 {
                // At most 255 * 128 each; the whole sum is below 2^31, as `starts` and the limit of
                // 2^16 components have it.
                out[i] += i32::from(x[j]) * i32::from(w[j].cast_signed());
            }
        }
        out
    }
    #[inline(always)]
    fn to_f32(self, a: [i32; N]) -> [f32; N] {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    fn sum(self, a: [i32; N]) -> i32 {
        a.iter().sum()
    }
    // Codes are bytes, so no alignment can be asked for.
    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> [i32; N] {
        // SAFETY: the caller's promise: 4 N bytes.
        unsafe { p.cast::<[i32; N]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, a: [i32; N]) {
        // SAFETY: the caller's promise: 4 N bytes.
        // `look_up` is the trait's own: there is no instruction to replace it by.
        unsafe { p.cast::<[i32; N]>().write_unaligned(a) }
    }
}
