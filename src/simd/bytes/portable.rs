//! Products of bytes by plain loops.

use super::super::portable::Portable;
use super::Dot;

#[derive(Clone, Copy)]
pub(super) struct Scalar;

const N: usize = 8;

impl Dot<Portable> for Scalar {
    type I = [i32; N];

    #[inline(always)]
    fn splat(self, x: i32) -> [i32; N] {
        [x; N]
    }
    #[inline(always)]
    fn dot4(self, acc: [i32; N], rows: [i32; N], query: [i32; N]) -> [i32; N] {
        let mut out = acc;
        for i in 0..N {
            let (x, w) = (rows[i].to_le_bytes(), query[i].to_le_bytes());
            for j in 0..4 {
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
    #[inline(always)]
    unsafe fn load(self, p: *const u8) -> [i32; N] {
        // SAFETY: the caller's promise: 4 N bytes.
        unsafe { p.cast::<[i32; N]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut u8, a: [i32; N]) {
        // SAFETY: the caller's promise: 4 N bytes.
        unsafe { p.cast::<[i32; N]>().write_unaligned(a) }
    }
}
