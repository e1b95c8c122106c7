//! `matmul`: a matrix product, as the inner products of rows with rows.

use std::borrow::Cow;

use super::CpuEngine;
use super::distance::Direct;
use crate::compute::{EngineError, Vectors, room};
use crate::ops::Compared;
use crate::ops::matmul::Sizes;
use crate::types::{MatrixView, Metric, RowsView};

/// Rows of b that are multiplied at a time, and rows of a: a block of either stays in the second cache.
const BLOCK: usize = 64;

impl CpuEngine {
    /// `a` times `b`, or times b transposed: `[rows, columns]`.
    pub(super) fn matmul(&self, s: Sizes, a: &[f32], b: &[f32], transposed: bool) -> Result<Vec<f32>, EngineError> {
        room(s.rows, s.columns, 4)?;
        let mut out = vec![0.0; s.rows * s.columns];
        if out.is_empty() || s.inner == 0 {
            return Ok(out);
        }
        let rows = if transposed { Cow::Borrowed(b) } else { Cow::Owned(columns(b, s.inner, s.columns)) };
        let view = |values| MatrixView::new(values, s.inner).map_err(|e| EngineError::Mismatch(e.to_string()));
        let pairs = Compared {
            metric: Metric::InnerProduct,
            base: Vectors { rows: RowsView::F32(view(&rows)?), norms: None, tag: None },
            queries: RowsView::F32(view(a)?),
            query_norms: &[],
            query_tag: None,
            mask: None,
        };
        let direct = Direct::new(self.token, &pairs);
        let items = out.chunks_mut(BLOCK * s.columns).enumerate();
        let scratch = self.spread(
            self.workers(s.rows * s.columns * s.inner),
            items,
            |_| {},
            |scratch, (i, out)| {
                let first = i * BLOCK;
                let queries = first..first + out.len() / s.columns;
                direct.each_block(0..s.columns, queries, None, &mut scratch.keys, |q, picks, keys| {
                    let at = (q - first) * s.columns + picks.at(0);
                    // Keys of an inner product are negated, and exactly so.
                    out[at..at + keys.len()].iter_mut().zip(keys).for_each(|(out, key)| *out = -key);
                });
            },
        )?;
        self.keep(scratch);
        Ok(out)
    }
}

/// The columns of a matrix `[rows, columns]`, one after the other.
fn columns(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    // Blocks of rows, so that what is read stays in the first cache while it is spread.
    for start in (0..rows).step_by(BLOCK) {
        for column in 0..columns {
            for row in start..rows.min(start + BLOCK) {
                out[column * rows + row] = values[row * columns + column];
            }
        }
    }
    out
}
