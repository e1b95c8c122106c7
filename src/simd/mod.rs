//! The vector kernels, written once over the [`Simd`] trait and compiled for each level.
//!
//! - A *token* ([`Portable`](portable::Portable), `Avx2`, `Avx512`, `Neon`) is a value that exists only where the CPU
//!   has the features it stands for; it carries the vector operations.
//! - A [`SimdKernel`] is an algorithm over any token. [`Token::run`] enters a function with the level's features enabled;
//!   everything below it is inlined there, so that vectors stay in registers.
//! - `direct` holds the metrics, `panel` the register-tiled inner products of the screen, `bits` the packed bits,
//!   `select` the filter by a running threshold, `math` logarithm and power.
//!
//! This folder is the only place with unsafe code beside the mapping of files and what wgpu marks unsafe.
//!
//! Unsafe code here rests on two things. A token proves that instructions exist: it is made by `new`
//! only, after the CPU was asked, and its fields are private. Pointers are proven in range where they
//! are read: by a slice taken before, or by an assertion at the head of the kernel, which costs
//! nothing beside its loop.
#![allow(unsafe_code)]
// Register tiles are indexed by row and query in several arrays at once.
#![allow(clippy::needless_range_loop)]

pub(crate) mod bits;
pub(crate) mod bytes;
pub(crate) mod convert;
pub(crate) mod direct;
pub(crate) mod lists;
mod math;
pub(crate) mod panel;
mod portable;
pub(crate) mod probe;
pub(crate) mod select;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use half::{bf16, f16};

use crate::types::Element;

/// A set of vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Plain arrays of eight, for any CPU.
    Portable,
    /// x86-64 with AVX2, FMA, F16C and POPCNT.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL and DQ.
    Avx512,
    /// 64-bit Arm.
    Neon,
}

impl Level {
    /// The levels this CPU has, the best first; [`Level::Portable`] is always the last.
    pub fn available() -> Vec<Level> {
        let order = [Level::Avx512, Level::Avx2, Level::Neon, Level::Portable];
        order.into_iter().filter(|&level| Token::new(level).is_some()).collect()
    }

    /// The best level this CPU has.
    pub fn best() -> Level {
        Token::best().level()
    }

    /// Its name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
            Level::Neon => "neon",
        }
    }
}

/// The proof that the CPU has a level.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Token {
    Portable(portable::Portable),
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon),
}

impl Token {
    /// The token of a level, if this CPU has it.
    pub fn new(level: Level) -> Option<Token> {
        match level {
            Level::Portable => Some(Token::Portable(portable::Portable)),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::Avx2::new().map(Token::Avx2),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86::Avx512::new().map(Token::Avx512),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => neon::Neon::new().map(Token::Neon),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }

    /// The token of the best level.
    pub fn best() -> Token {
        let levels = [Level::Avx512, Level::Avx2, Level::Neon];
        levels.into_iter().find_map(Token::new).unwrap_or(Token::Portable(portable::Portable))
    }

    /// Of which level this is.
    pub fn level(self) -> Level {
        match self {
            Token::Portable(_) => Level::Portable,
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(_) => Level::Avx2,
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(_) => Level::Avx512,
            #[cfg(target_arch = "aarch64")]
            Token::Neon(_) => Level::Neon,
        }
    }

    /// Runs a kernel compiled for this level.
    ///
    /// One branch per call, so a kernel should be a block of work, not a vector of it.
    pub fn run<K: SimdKernel>(self, kernel: K) -> K::Output {
        match self {
            Token::Portable(token) => kernel.run(token),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(token) => token.enter(kernel),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(token) => token.enter(kernel),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(token) => token.enter(kernel),
        }
    }
}

impl Token {
    /// As [`Token::run`], for kernels that count bits: with the vector instruction for it where the CPU has that.
    pub fn run_on_bits<K: SimdKernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(token) => token.enter_on_bits(kernel),
            _ => self.run(kernel),
        }
    }
}

/// An algorithm over any level. `run` and all it calls with vectors must be `#[inline(always)]`.
pub(crate) trait SimdKernel {
    type Output;
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// The most lanes of any level, and so the size of a buffer for a part of a vector.
const MAX_LANES: usize = 16;

/// Vectors of f32. Every method is always inlined: called outside of [`Token::run`] it would be correct but slow.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A vector.
    type F: Copy;
    /// f32 in a vector, at most [`MAX_LANES`].
    const LANES: usize;
    /// Whether there are registers for two queries times four rows.
    const WIDE: bool;
    /// The shape of the register tile of inner products: `PANEL` rows (a multiple of `LANES`) times at most `QUERIES`.
    /// `PANEL / LANES * QUERIES` accumulators, the vectors of one column and one broadcast fit the
    /// level's registers.
    const PANEL: usize;
    /// See `PANEL`.
    const QUERIES: usize;

    fn splat(self, x: f32) -> Self::F;
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    // Where either operand of `max` and `min` is NaN the levels differ. Rows and queries hold none.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, a: Self::F) -> Self::F;
    fn sqrt(self, a: Self::F) -> Self::F;
    /// `a b + c`; fused where the level has it.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// Bit i is set where not `a > b` in lane i (so also where either is NaN).
    fn not_above(self, a: Self::F, b: Self::F) -> u32;
    /// `x` in lanes where `a > b`, else `y`.
    fn if_above(self, a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    /// The sum of all lanes.
    /// The order is a tree fixed by the level, so equal vectors have equal sums.
    fn sum(self, a: Self::F) -> f32;
    /// The largest lane.
    fn largest(self, a: Self::F) -> f32;
    /// Lowers each of four numbers j to the least of the lanes j, j + 4, j + 8, ... plus `add`.
    #[inline(always)]
    fn lower_four(self, numbers: &mut [f32; 4], a: Self::F, add: f32) {
        // Lanes that the level lacks stay infinite and lower nothing.
        let mut lanes = [f32::INFINITY; MAX_LANES];
        // SAFETY: MAX_LANES >= LANES.
        unsafe { self.store(lanes.as_mut_ptr(), a) };
        for (i, &x) in lanes.iter().enumerate().take(Self::LANES) {
            numbers[i % 4] = numbers[i % 4].min(x + add);
        }
    }

    /// # Safety
    /// `LANES` f32 are readable at `p`.
    // No load or store needs more than the alignment of an element.
    unsafe fn load(self, p: *const f32) -> Self::F;
    /// # Safety
    /// `LANES` f32 are writable at `p`.
    unsafe fn store(self, p: *mut f32, a: Self::F);
    /// The first `LANES` of a slice, which holds as many.
    #[inline(always)]
    fn get(self, x: &[f32]) -> Self::F {
        let x = &x[..Self::LANES];
        // SAFETY: as many are there.
        unsafe { self.load(x.as_ptr()) }
    }
    /// Writes to the first `LANES` of a slice, which holds as many.
    #[inline(always)]
    fn put(self, x: &mut [f32], a: Self::F) {
        let x = &mut x[..Self::LANES];
        // SAFETY: as many are there.
        unsafe { self.store(x.as_mut_ptr(), a) }
    }
    /// # Safety
    /// `LANES` f16 are readable at `p`.
    unsafe fn load_f16(self, p: *const f16) -> Self::F;
    /// # Safety
    /// `LANES` bf16 are readable at `p`.
    // A bf16 is the upper half of an f32, so the conversion is a shift. Integers of 8 bits are exact
    // in f32, too.
    unsafe fn load_bf16(self, p: *const bf16) -> Self::F;
    /// # Safety
    /// `LANES` bytes are readable at `p`.
    unsafe fn load_i8(self, p: *const i8) -> Self::F;
    /// # Safety
    /// `LANES` bytes are readable at `p`.
    unsafe fn load_u8(self, p: *const u8) -> Self::F;

    /// The first `n < LANES` elements at `p`, zero behind them.
    ///
    /// # Safety
    /// `n` elements are readable at `p`.
    #[inline(always)]
    unsafe fn load_part<T: Lane>(self, p: *const T, n: usize) -> Self::F {
        // Through a copy, as a full vector could lie across the end of the last mapped page.
        let mut buffer = [T::zeroed(); MAX_LANES];
        // SAFETY: n < LANES <= MAX_LANES elements are readable (the caller) and fit; the buffer holds LANES.
        unsafe {
            std::ptr::copy_nonoverlapping(p, buffer.as_mut_ptr(), n.min(MAX_LANES));
            T::load(self, buffer.as_ptr())
        }
    }

    /// Writes the transpose of the `LANES` x `LANES` block whose rows begin at `rows[0..LANES]` to `to`, row after row
    /// `stride` apart.
    ///
    /// # Safety
    /// `LANES` elements are readable at each pointer; `LANES` f32 are writable at `to + i * stride` for `i < LANES`.
    #[inline(always)]
    unsafe fn transpose<T: Lane>(self, rows: &[*const T; MAX_LANES], to: *mut f32, stride: usize) {
        // One row at a time, scattered to a column: for levels without a transpose in registers.
        let mut buffer = [0.0; MAX_LANES];
        for (r, &row) in rows.iter().enumerate().take(Self::LANES) {
            // SAFETY: as the caller promised; the buffer holds LANES.
            unsafe {
                self.store(buffer.as_mut_ptr(), T::load(self, row));
                for (i, &x) in buffer.iter().enumerate().take(Self::LANES) {
                    *to.add(i * stride + r) = x;
                }
            }
        }
    }

    /// Asks for the cache line at `p`, which may point anywhere.
    #[inline(always)]
    fn prefetch<T>(self, _p: *const T) {}

    /// Applies a function to every lane: for the rare operations that the compiler may vectorise itself.
    #[inline(always)]
    fn map2(self, a: Self::F, b: Self::F, f: impl Fn(f32, f32) -> f32) -> Self::F {
        let (mut x, mut y) = ([0.0; MAX_LANES], [0.0; MAX_LANES]);
        // SAFETY: both arrays hold MAX_LANES >= LANES.
        unsafe {
            self.store(x.as_mut_ptr(), a);
            self.store(y.as_mut_ptr(), b);
        }
        for i in 0..Self::LANES {
            x[i] = f(x[i], y[i]);
        }
        // SAFETY: the array holds MAX_LANES >= LANES.
        unsafe { self.load(x.as_ptr()) }
    }
}

/// A stored element that becomes an f32 lane when it is loaded.
pub(crate) trait Lane: Element {
    /// # Safety
    /// `S::LANES` elements are readable at `p`.
    unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::F;
}

macro_rules! lane {
    ($($ty:ty: $load:ident),+) => {$(
        impl Lane for $ty {
            #[inline(always)]
            unsafe fn load<S: Simd>(s: S, p: *const Self) -> S::F {
                // SAFETY: the caller's promise is the one asked for.
                unsafe { s.$load(p) }
            }
        }
    )+};
}
lane!(f32: load, f16: load_f16, bf16: load_bf16, i8: load_i8, u8: load_u8);

/// The bits of an f32 with the value of the f16 with these bits; without branches, for compilers that vectorise.
#[inline(always)]
fn f16_bits(h: u16) -> u32 {
    // The mantissa has 10 bits in an f16 and 23 in an f32: a shift by 13 aligns it, and the exponent
    // with it.
    let magnitude = u32::from(h & 0x7fff);
    // The exponent is too small by 112, which the multiplication mends, for subnormal numbers too.
    let scaled = (f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000)).to_bits();
    // (0x7780_0000 is 2^112, 127 - 15 being 112; the product is exact.) Infinities and NaN need all
    // exponent bits; the mantissa, and so the kind of NaN, stays.
    let special = if magnitude >= 0x7c00 { 0x7f80_0000 } else { 0 };
    scaled | special | u32::from(h & 0x8000) << 16
}
