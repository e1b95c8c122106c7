//! Keys of codes without the rounding of queries to integers, for lists that scans by integers cannot tell apart.

use crate::ops::lists::{BLOCK, Lists};
use crate::simd::{Simd, SimdKernel, Token};

/// What a query multiplies the codes of rows by: the row's part of the key, less its `add` and before its scale is
/// multiplied in, is `shift` and a sum over the parts of the code.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unrounded {
    /// `[parts]` numbers that integers are multiplied by, or `[parts, entries]` entries of tables.
    pub numbers: Vec<f32>,
    /// What is added to the sum.
    pub shift: f64,
}

impl Unrounded {
    /// Gives the keys of all rows of a list, with their places; `codes` is room that may be used again.
    pub fn scan(
        &self,
        lists: &Lists,
        number: usize,
        offset: f32,
        codes: &mut Vec<[u8; BLOCK]>,
        take: impl FnMut(usize, f32),
    ) {
        codes.resize(lists.dim, [0; BLOCK]);
        Token::best().run(Scan { query: self, lists, number, offset, codes, take });
    }
}

struct Scan<'a, T> {
    query: &'a Unrounded,
    lists: &'a Lists,
    number: usize,
    offset: f32,
    codes: &'a mut [[u8; BLOCK]],
    take: T,
}

impl<T: FnMut(usize, f32)> SimdKernel for Scan<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let (list, shift) = (&self.lists.lists[self.number], self.query.shift as f32);
        let entries = self.lists.form.entries();
        for first in (0..list.len()).step_by(BLOCK) {
            self.lists.block(self.number, first / BLOCK, self.codes);
            let mut sums = [0.0f32; BLOCK];
            if entries == 0 {
                for (codes, &weight) in self.codes.iter().zip(&self.query.numbers) {
                    sums.iter_mut().zip(codes).for_each(|(sum, &code)| *sum += weight * f32::from(code));
                }
            } else {
                for (codes, table) in self.codes.iter().zip(self.query.numbers.chunks_exact(entries)) {
                    sums.iter_mut().zip(codes).for_each(|(sum, &code)| *sum += table[usize::from(code)]);
                }
            }
            for (place, sum) in (first..list.len()).zip(sums) {
                let add = list.add.get(place).copied().unwrap_or(0.0);
                let scale = list.scale.get(place).copied().unwrap_or(1.0);
                (self.take)(place, self.offset + add + scale * (sum + shift));
            }
        }
    }
}
