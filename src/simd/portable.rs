//! Arrays of eight f32, for any CPU; the compiler vectorises what it can.
//!
//! All operations but loads and stores are safe Rust.

use half::{bf16, f16};

use super::{Simd, f16_bits};

/// Needs nothing.
///
/// So anyone may make it, and entering a kernel with it is safe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

/// Lanes: two registers of 128 bits, which every target with vectors has, or one of 256 where it is
/// built for them.
const N: usize = 8;

/// `f` of each pair of lanes: a loop of fixed length without branches, the shape that compilers
/// vectorise.
#[inline(always)]
fn zip(a: [f32; N], b: [f32; N], f: impl Fn(f32, f32) -> f32) -> [f32; N] {
    let mut out = [0.0; N];
    for i in 0..N {
        out[i] = f(a[i], b[i]);
    }
    out
}

/// `N` elements, each converted by `f`.
///
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
    // A tile of 1 array of rows times 4 queries has 4 accumulators of two registers each; with the
    // rows and a broadcast that leaves room among 16 registers of 128 bits. The tile of the direct
    // pass is smaller for the same reason: not WIDE.
    type F = [f32; N];
    const LANES: usize = N;
    const WIDE: bool = false;
    const PANEL: usize = 8;
    const QUERIES: usize = 4;

    // Every method is a copy, a loop over N lanes, or both: no state, no memory but what is passed.
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
    // Correctly rounded, like the other levels' division: no level uses an approximate reciprocal.
    #[inline(always)]
    fn div(self, a: [f32; N], b: [f32; N]) -> [f32; N] {
        zip(a, b, |x, y| x / y)
    }
    // Not `f32::max`, whose treatment of NaN costs a second comparison; this is what `maxps` does.
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
    // Correctly rounded at every level, too.
    #[inline(always)]
    fn sqrt(self, a: [f32; N]) -> [f32; N] {
        zip(a, a, |x, _| x.sqrt())
    }
    #[inline(always)]
    fn fma(self, a: [f32; N], b: [f32; N], c: [f32; N]) -> [f32; N] {
        // Two roundings: without the instruction, mul_add is a slow call.
        self.add(self.mul(a, b), c)
    }
    // The negation is not `<=`: NaN must count as not above.
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
    // Both sides are values already, so this becomes a blend.
    #[inline(always)]
    fn if_above(self, a: [f32; N], b: [f32; N], x: [f32; N], y: [f32; N]) -> [f32; N] {
        let mut out = y;
        for i in 0..N {
            out[i] = if a[i] > b[i] { x[i] } else { y[i] };
        }
        out
    }
    // The order in which AVX2 adds its lanes: equal vectors have equal sums at both levels.
    #[inline(always)]
    fn sum(self, a: [f32; N]) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    // Exact in any order.
    #[inline(always)]
    fn largest(self, a: [f32; N]) -> f32 {
        a.into_iter().fold(a[0], |x, y| if y > x { y } else { x })
    }
    // The caller's promise of `Simd::load`; an array has the alignment of its element, no more.
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; N] {
        // SAFETY: eight f32 are readable. They need not be aligned: codes are read through here as bytes.
        unsafe { p.cast::<[f32; N]>().read_unaligned() }
    }
    // Assigns a whole array. Nothing is dropped, as f32 has no destructor.
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: [f32; N]) {
        // SAFETY: eight f32 are writable, aligned or not.
        unsafe { p.cast::<[f32; N]>().write_unaligned(a) }
    }
    // The conversions of 16-bit types work on bits and have no branches, so that `gather` vectorises
    // with them.
    #[inline(always)]
    unsafe fn load_f16(self, p: *const f16) -> [f32; N] {
        // SAFETY: the caller's promise.
        unsafe { gather(p, |x| f32::from_bits(f16_bits(x.to_bits()))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const bf16) -> [f32; N] {
        // SAFETY: the caller's promise.
        // A bf16 is the upper half of an f32.
        unsafe { gather(p, |x| f32::from_bits(u32::from(x.to_bits()) << 16)) }
    }
    // Integers of 8 bits are exact in f32.
    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> [f32; N] {
        // SAFETY: the caller's promise.
        unsafe { gather(p, f32::from) }
    }
    // `load_part`, `transpose`, `lower_four` and `prefetch` are the trait's own: with arrays there is
    // nothing to gain.
    #[inline(always)]
    unsafe fn load_u8(self, p: *const u8) -> [f32; N] {
        // SAFETY: the caller's promise.
        unsafe { gather(p, f32::from) }
    }
}
