//! The filter by a running threshold: which keys of a block may still belong among the best.
//!
//! A threshold turns a selection into a comparison: once k keys are known, nearly all others fall to
//! it, and a mask of 64 keys that is zero costs one branch.

use super::{Simd, SimdKernel, Token};

/// Sets bit i % 64 of `masks[i / 64]` where not `keys[i] > threshold`; NaN counts as not above.
///
/// `masks` is overwritten; its memory is used again.
pub(crate) fn survivors(token: Token, keys: &[f32], threshold: f32, masks: &mut Vec<u64>) {
    masks.clear();
    masks.resize(keys.len().div_ceil(64), 0);
    token.run(Survivors { keys, threshold, masks });
}

/// One mask per 64 keys, zero before.
struct Survivors<'a> {
    keys: &'a [f32],
    threshold: f32,
    masks: &'a mut [u64],
}

impl SimdKernel for Survivors<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Chunks of 64 make i a shift below 64; LANES divides 64, so a vector never straddles two
        // masks.
        let t = s.splat(self.threshold);
        for (keys, mask) in self.keys.chunks(64).zip(self.masks) {
            let mut i = 0;
            // Whole vectors, then the rest of the last chunk one by one.
            while i + S::LANES <= keys.len() {
                // `not_above` has a bit per lane, at most 16, so the shifted mask fits.
                // SAFETY: i + LANES <= keys.len().
                let k = unsafe { s.load(keys.as_ptr().add(i)) };
                *mask |= u64::from(s.not_above(k, t)) << i;
                i += S::LANES;
            }
            for (j, &k) in keys.iter().enumerate().skip(i) {
                #[allow(clippy::neg_cmp_op_on_partial_ord)]
                // As the vectors do it: NaN stays in.
                let bit = !(k > self.threshold);
                *mask |= u64::from(bit) << j;
            }
        }
    }
}

/// Asks for all cache lines of some bytes.
///
/// A hint: it reads nothing, so the bytes may be anything.
pub(crate) fn prefetch(token: Token, bytes: &[u8]) {
    token.run(Prefetch(bytes));
}

struct Prefetch<'a>(&'a [u8]);

impl SimdKernel for Prefetch<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        fetch(s, self.0);
    }
}

/// Asks for all cache lines of some bytes.
/// For kernels that are running at a level already.
#[inline(always)]
pub(super) fn fetch<S: Simd>(s: S, bytes: &[u8]) {
    bytes.chunks(64).for_each(|line| s.prefetch(line.as_ptr()));
}

/// A key of which at least `k` of the keys are not above, and not many more are; `k` is at least 1 and at most their
/// number.
pub(crate) fn limit(token: Token, keys: &[f32], k: usize) -> f32 {
    token.run(Limit { keys, k })
}

/// Halves the range of the keys until few more than `k` are in its lower part.
///
/// A pass over the keys costs less than one step of a selection that moves them, and some ten passes
/// are enough for keys that lie evenly.
struct Limit<'a> {
    keys: &'a [f32],
    k: usize,
}

impl SimdKernel for Limit<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (keys, k) = (self.keys, self.k);
        // Invariant: fewer than k keys are not above `low` (or it is the least key), at least k are
        // not above `high`. So `high` is an answer at any time, and stopping early costs keys too
        // many, never one too few.
        let (mut low, mut high) = (f32::INFINITY, f32::NEG_INFINITY);
        for &key in keys {
            low = if key < low { key } else { low };
            high = if key > high { key } else { high };
        }
        // An eighth too many is cheaper to sort out afterwards than another pass.
        let enough = k + k / 8 + 4;
        // An f32 has 24 bits of significand; keys that 24 halvings of their range do not part are
        // nearly equal.
        for _ in 0..24 {
            let middle = low + (high - low) / 2.0;
            // Also where the range is infinite, or its ends are neighbours.
            if !(middle > low && middle < high) {
                break;
            }
            // `low + (high - low) / 2` is finite where the range is, and strictly between its ends
            // here.
            let count = count(s, keys, middle);
            if count < k {
                low = middle;
            } else {
                high = middle;
                if count <= enough {
                    break;
                }
            }
        }
        high
    }
}

/// How many keys are not above the limit.
///
/// Bits are counted per vector: a population count and an addition, beside one load and one
/// comparison.
#[inline(always)]
fn count<S: Simd>(s: S, keys: &[f32], limit: f32) -> usize {
    let t = s.splat(limit);
    let (mut i, mut count) = (0, 0);
    while i + S::LANES <= keys.len() {
        // SAFETY: i + LANES <= keys.len().
        let k = unsafe { s.load(keys.as_ptr().add(i)) };
        count += s.not_above(k, t).count_ones() as usize;
        i += S::LANES;
    }
    count + keys[i..].iter().filter(|&&k| k <= limit).count()
}
