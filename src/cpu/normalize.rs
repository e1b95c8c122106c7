//! `normalize`: the norm of each row, and each row divided by it.

use super::CpuEngine;
use crate::compute::{EngineError, Output, room};
use crate::ops::Norm;
use crate::simd::direct::Picks;
use crate::simd::{Simd, SimdKernel, convert};
use crate::types::RowsView;
use crate::with_narrow_rows;

/// Rows of a chunk.
const ROWS_PER_ITEM: usize = 64;

impl CpuEngine {
    /// Normalised rows in f32, and the norms.
    pub(super) fn normalize(&self, base: RowsView<'_>, norm: Norm) -> Result<Output, EngineError> {
        let (n, dim, token) = (base.rows(), base.dim(), self.token);
        room(n, dim, 4)?;
        let (mut rows, mut norms) = (vec![0.0f32; n * dim], vec![0.0f32; n]);
        let items = rows.chunks_mut(ROWS_PER_ITEM * dim).zip(norms.chunks_mut(ROWS_PER_ITEM)).enumerate();
        let scratch = self.spread(
            self.workers(n * dim),
            items,
            |_| {},
            |_, (c, (out, norms))| {
                let picks = Picks::Run { start: c * ROWS_PER_ITEM, len: norms.len() };
                with_narrow_rows!(base, m => convert::rows(token, m, picks, out));
                token.run(Divide { norm, rows: out, dim, norms });
            },
        )?;
        self.keep(scratch);
        Ok(Output::Rows { rows, norms })
    }
}

/// Partial sums; as many as two vectors of the widest level hold.
const LANES: usize = 16;

struct Divide<'a> {
    norm: Norm,
    rows: &'a mut [f32],
    dim: usize,
    norms: &'a mut [f32],
}

impl SimdKernel for Divide<'_> {
    type Output = ();

    /// In f64, where no square of an f32 overflows or underflows and no rounding matters.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (row, norm) in self.rows.chunks_exact_mut(self.dim).zip(self.norms) {
            let length = match self.norm {
                Norm::L2 => reduce(row, |sum, x| sum + x * x, |a, b| a + b).sqrt(),
                Norm::L1 => reduce(row, |sum, x| sum + x.abs(), |a, b| a + b),
                Norm::Max => reduce(row, |max, x| if x.abs() > max { x.abs() } else { max }, f64::max),
            };
            *norm = length as f32;
            let inverse = if length == 0.0 { 0.0 } else { 1.0 / length };
            for x in row {
                *x = (f64::from(*x) * inverse) as f32;
            }
        }
    }
}

#[inline(always)]
fn reduce(row: &[f32], step: impl Fn(f64, f64) -> f64, join: impl Fn(f64, f64) -> f64) -> f64 {
    let mut acc = [0.0; LANES];
    let chunks = row.chunks_exact(LANES);
    for (i, &x) in chunks.remainder().iter().enumerate() {
        acc[i] = step(acc[i], f64::from(x));
    }
    for chunk in chunks {
        for i in 0..LANES {
            acc[i] = step(acc[i], f64::from(chunk[i]));
        }
    }
    acc.into_iter().fold(0.0, join)
}
