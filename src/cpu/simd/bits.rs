//! Packed bits: Hamming and Jaccard by counting bits.

use super::direct::Picks;
use super::{Kernel, Simd, Token};
use crate::types::{MatrixView, Metric};

/// Writes the keys of a packed query against the picked rows: differing bits for Hamming, else `1 - |and| / |or|`.
///
/// # Panics
/// When the query is not as long as a row, or `out` not as long as the picks.
pub(crate) fn keys(
    token: Token,
    metric: Metric,
    query: &[u8],
    rows: MatrixView<'_, u8>,
    picks: Picks<'_>,
    out: &mut [f32],
) {
    match metric {
        Metric::Hamming => token.run(Bits { query, rows, picks, out, key: hamming }),
        _ => token.run(Bits { query, rows, picks, out, key: jaccard }),
    }
}

struct Bits<'a, F> {
    query: &'a [u8],
    rows: MatrixView<'a, u8>,
    picks: Picks<'a>,
    out: &'a mut [f32],
    key: F,
}

impl<F: Fn(&[u8], &[u8]) -> f32> Kernel for Bits<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        assert!(self.query.len() == self.rows.dim() && self.out.len() == self.picks.len());
        for (i, out) in self.out.iter_mut().enumerate() {
            *out = (self.key)(self.query, self.rows.row(self.picks.at(i)));
        }
    }
}

#[inline(always)]
fn words(a: &[u8]) -> (impl Iterator<Item = u64>, u64) {
    let chunks = a.chunks_exact(8);
    let mut last = [0; 8];
    last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    (chunks.map(|c| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]])), u64::from_le_bytes(last))
}

#[inline(always)]
fn hamming(a: &[u8], b: &[u8]) -> f32 {
    let ((a, last_a), (b, last_b)) = (words(a), words(b));
    let count: u32 = a.zip(b).map(|(x, y)| (x ^ y).count_ones()).sum();
    (count + (last_a ^ last_b).count_ones()) as f32
}

#[inline(always)]
fn jaccard(a: &[u8], b: &[u8]) -> f32 {
    let ((a, last_a), (b, last_b)) = (words(a), words(b));
    let (mut differ, mut either) = ((last_a ^ last_b).count_ones(), (last_a | last_b).count_ones());
    for (x, y) in a.zip(b) {
        differ += (x ^ y).count_ones();
        either += (x | y).count_ones();
    }
    // 1 - |and| / |or|, with one rounding.
    if either == 0 { 0.0 } else { differ as f32 / either as f32 }
}
