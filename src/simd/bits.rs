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
        Metric::Hamming => token.run_on_bits(Bits { query, rows, picks, out, key: hamming }),
        _ => token.run_on_bits(Bits { query, rows, picks, out, key: jaccard }),
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

/// The whole words of both, and the bytes behind them as one word each.
#[inline(always)]
fn words<'a>(a: &'a [u8], b: &'a [u8]) -> (impl Iterator<Item = (u64, u64)> + use<'a>, (u64, u64)) {
    let (a, rest_a) = a.as_chunks::<8>();
    let (b, rest_b) = b.as_chunks::<8>();
    let last = |rest: &[u8]| rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    let pairs = a.iter().zip(b).map(|(&a, &b)| (u64::from_le_bytes(a), u64::from_le_bytes(b)));
    (pairs, (last(rest_a), last(rest_b)))
}

#[inline(always)]
fn hamming(a: &[u8], b: &[u8]) -> f32 {
    let (pairs, (x, y)) = words(a, b);
    let mut differ = u64::from((x ^ y).count_ones());
    for (x, y) in pairs {
        differ += u64::from((x ^ y).count_ones());
    }
    differ as f32
}

#[inline(always)]
fn jaccard(a: &[u8], b: &[u8]) -> f32 {
    let (pairs, (x, y)) = words(a, b);
    let (mut differ, mut either) = (u64::from((x ^ y).count_ones()), u64::from((x | y).count_ones()));
    for (x, y) in pairs {
        differ += u64::from((x ^ y).count_ones());
        either += u64::from((x | y).count_ones());
    }
    // 1 - |and| / |or|, with one rounding.
    if either == 0 { 0.0 } else { differ as f32 / either as f32 }
}
