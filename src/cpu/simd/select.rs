//! The filter by a running threshold: which keys of a block may still belong among the best.

use super::{Kernel, Simd, Token};

/// Sets bit i % 64 of `masks[i / 64]` where not `keys[i] > threshold`; NaN counts as not above.
pub(crate) fn survivors(token: Token, keys: &[f32], threshold: f32, masks: &mut Vec<u64>) {
    masks.clear();
    masks.resize(keys.len().div_ceil(64), 0);
    token.run(Survivors { keys, threshold, masks });
}

struct Survivors<'a> {
    keys: &'a [f32],
    threshold: f32,
    masks: &'a mut [u64],
}

impl Kernel for Survivors<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let t = s.splat(self.threshold);
        for (keys, mask) in self.keys.chunks(64).zip(self.masks) {
            let mut i = 0;
            while i + S::LANES <= keys.len() {
                // SAFETY: i + LANES <= keys.len().
                let k = unsafe { s.load(keys.as_ptr().add(i)) };
                *mask |= u64::from(s.not_above(k, t)) << i;
                i += S::LANES;
            }
            for (j, &k) in keys.iter().enumerate().skip(i) {
                #[allow(clippy::neg_cmp_op_on_partial_ord)]
                let bit = !(k > self.threshold);
                *mask |= u64::from(bit) << j;
            }
        }
    }
}
