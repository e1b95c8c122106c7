//! Arrays of eight f32, for any CPU; the compiler vectorises what it can.

use half::{bf16, f16};

use super::{Simd, f16_bits};

/// Needs nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

const N: usize = 8;

#[inline(always)]
fn zip(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    let mut out = [0.0; N];
    for i in 0..N {
        out[i] = f(a[i], b[i]);
    }
    out
}

/// # Safety
/// `N` elements are readable at `p`.
#[inline(always)]
unsafe fn gather<T: Copy>(p: *const T, f: impl Fn(T) -> f32) -> [f32; N] {
    let mut out = [0.0; N];
    for (i, o) in out.iter_mut().enumerate() {
        // SAFETY: i < N.
        *o = f(unsafe { *p.add(i) });
    }
    out
}

impl Simd for Portable {
    type F = [f32; N];
    const LANES: usize = N;
    const WIDE: bool = false;
    const PANEL: usize = 8;
    const QUERIES: usize = 4;

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; N] {
        [x; N]
    }
    #[inline(always)]
    fn add(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn max(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn min(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn abs(self, a: [f32; N]) -> [f32; N] {
        zip(a, a, |x, _| x.abs())
    }
    #[inline(always)]
    fn sqrt(self, a: [f32; N]) -> [f32; N] {
        zip(a, a, |x, _| x.sqrt())
    }
    #[inline(always)]
    fn fma(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        // Two roundings: without the instruction, mul_add is a slow call.
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn not_above(self, a: [f32; N], b: [f32; N]) -> u32 {
        let mut bits = 0;
        for i in 0..N {
            #[allow(clippy::neg_cmp_op_on_partial_ord)]
            let bit = !(a[i] > b[i]);
            bits |= u32::from(bit) << i;
        }
        bits
    }
    #[inline(always)]
    fn if_above(self, a: [f32; N], b: [f32; N], x: [f32; N], y: [f32; N]) -> [f32; N] {
        let mut out = y;
        for i in 0..N {
            out[i] = if a[i] > b[i] { x[i] } else { y[i] };
        }
        out
    }
    #[inline(always)]
    fn sum(self, a: [f32; N]) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    fn largest(self, a: [f32; N]) -> f32 {
        a.into_iter().fold(a[0], |x, y| if y > x { y } else { x })
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; N] {
        // SAFETY: eight f32 are readable, aligned as f32.
        unsafe { *p.cast::<[f32; N]>() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: [f32; N]) {
        // SAFETY: eight f32 are writable, aligned as f32.
        unsafe { *p.cast::<[f32; N]>() = a }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> [f32; N] {
        // SAFETY: the caller's promise.
        unsafe { gather(p, |x| f32::from_bits(f16_bits(x.to_bits()))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> [f32; N] {
        // SAFETY: the caller's promise.
        unsafe { gather(p, |x| f32::from_bits(u32::from(x.to_bits()) << 16)) }
    }
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> [f32; N] {
        // SAFETY: the caller's promise.
        unsafe { gather(p, f32::from) }
    }
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> [f32; N] {
        // SAFETY: the caller's promise.
        unsafe { gather(p, f32::from) }
    }
}
