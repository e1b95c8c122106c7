//! Rows of any element type to dense f32 rows.

use super::direct::{AHEAD, Picks};
use super::{Kernel, Lane, Simd, Token};
use crate::types::MatrixView;

/// Writes the picked rows to `out`, `[picks, dim]`.
///
/// # Panics
/// When `out` has another size.
pub(crate) fn rows<T: Lane>(token: Token, rows: MatrixView<'_, T>, picks: Picks<'_>, out: &mut [f32]) {
    token.run(Convert { rows, picks, out });
}

struct Convert<'a, T> {
    rows: MatrixView<'a, T>,
    picks: Picks<'a>,
    out: &'a mut [f32],
}

impl<T: Lane> Kernel for Convert<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let dim = self.rows.dim();
        assert!(self.out.len() == self.picks.len() * dim);
        for (i, out) in self.out.chunks_exact_mut(dim).enumerate() {
            let row = self.rows.row(self.picks.at(i));
            let mut d = 0;
            while d + S::LANES <= dim {
                s.prefetch(row.as_ptr().wrapping_byte_add(AHEAD).wrapping_add(d));
                // SAFETY: both slices are `dim` long and d + LANES <= dim.
                unsafe { s.store(out.as_mut_ptr().add(d), T::load(s, row.as_ptr().add(d))) };
                d += S::LANES;
            }
            if d < dim {
                let mut last = [0.0; super::MAX_LANES];
                // SAFETY: dim - d < LANES elements are left in the row, and the buffer holds LANES.
                unsafe { s.store(last.as_mut_ptr(), s.load_part(row.as_ptr().add(d), dim - d)) };
                out[d..].copy_from_slice(&last[..dim - d]);
            }
        }
    }
}

/// Brings the picked rows into the cache in the order in which they lie, which is the order that memory is fastest in;
/// tiles of several rows would read at half the speed.
pub(crate) fn touch<T: Lane>(token: Token, rows: MatrixView<'_, T>, picks: Picks<'_>) {
    token.run(Touch { rows, picks });
}

struct Touch<'a, T> {
    rows: MatrixView<'a, T>,
    picks: Picks<'a>,
}

impl<T: Lane> Kernel for Touch<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sum = s.splat(0.0);
        for i in 0..self.picks.len() {
            let row = self.rows.row(self.picks.at(i));
            for line in row.chunks_exact(64 / size_of::<T>()) {
                // SAFETY: a line of at least LANES elements.
                sum = s.add(sum, unsafe { T::load(s, line.as_ptr()) });
            }
        }
        // Without a use the reads would be left out.
        std::hint::black_box(s.sum(sum));
    }
}
