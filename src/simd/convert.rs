//! Rows of any element type to dense f32 rows.

use super::direct::{AHEAD, Picks};
use super::{Lane, Simd, SimdKernel, Token};
use crate::types::MatrixView;

/// Writes the picked rows to `out`, `[picks, dim]`.
///
/// Every conversion is exact, so what is computed from `out` is computed from the rows as they are
/// stored.
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

impl<T: Lane> SimdKernel for Convert<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // The size is checked once; `chunks_exact_mut` then gives each row a slice of its own.
        let dim = self.rows.dim();
        assert!(self.out.len() == self.picks.len() * dim);
        for (i, out) in self.out.chunks_exact_mut(dim).enumerate() {
            // Checked: a pick that is no row panics.
            let row = self.rows.row(self.picks.at(i));
            let mut d = 0;
            while d + S::LANES <= dim {
                // The address may lie past the last row; `wrapping_add` makes such a pointer without
                // claiming it.
                s.prefetch(row.as_ptr().wrapping_byte_add(AHEAD).wrapping_add(d));
                // SAFETY: both slices are `dim` long and d + LANES <= dim.
                unsafe { s.store(out.as_mut_ptr().add(d), T::load(s, row.as_ptr().add(d))) };
                d += S::LANES;
            }
            if d < dim {
                // The last, partial vector goes through a buffer: a full store would run into the
                // next row of `out`.
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
///
/// Packing reads `LANES` rows side by side, up to 16 streams at once; after this it finds them in the
/// cache.
pub(crate) fn touch<T: Lane>(token: Token, rows: MatrixView<'_, T>, picks: Picks<'_>) {
    token.run(Touch { rows, picks });
}

struct Touch<'a, T> {
    rows: MatrixView<'a, T>,
    picks: Picks<'a>,
}

impl<T: Lane> SimdKernel for Touch<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // One load per cache line of 64 bytes is enough to bring it in. The end of a row, less than a
        // line, is left to the reader.
        let mut sum = s.splat(0.0);
        for i in 0..self.picks.len() {
            let row = self.rows.row(self.picks.at(i));
            // 64 bytes hold at least 16 elements, and no level has more lanes.
            for line in row.chunks_exact(64 / size_of::<T>()) {
                // SAFETY: a line of at least LANES elements.
                sum = s.add(sum, unsafe { T::load(s, line.as_ptr()) });
            }
        }
        // Without a use the reads would be left out.
        std::hint::black_box(s.sum(sum));
    }
}
