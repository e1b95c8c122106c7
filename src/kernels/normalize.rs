//! `normalize`: the norm of each row, and each row divided by it.
//!
//! Shapes: rows `[n, dim]` of any element type but bits, out rows `[n, dim]` f32 and norms `[n]` f32. A zero row stays
//! zero and its norm is 0. Error: each component within `(dim / 4 + 16) u` relative, u = 2^-24; no overflow or underflow
//! inside for any finite row (components are scaled by the largest first).

use super::{Cost, Kernel};
use crate::plan::{Norm, Problem};
use crate::types::RowsView;

/// The entry points of `shaders/normalize.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    Vec::new()
}

/// Rows are read twice (the second time from cache at best, which is what is counted) and written once.
pub fn cost(p: &Problem) -> Cost {
    let (n, dim) = (p.rows as f64, p.dim as f64);
    Cost {
        bytes_read: n * p.dtype.row_bytes(p.dim) as f64,
        bytes_written: n * (dim + 1.0) * 4.0,
        operations: n * dim * 4.0,
        launches: 1.0,
    }
}

/// (rows, norms) in f64.
pub fn reference(norm: Norm, rows: &RowsView<'_>) -> (Vec<f64>, Vec<f64>) {
    let (mut out, mut norms) = (Vec::new(), Vec::new());
    for r in 0..rows.rows() {
        let row = super::distance::row_f64(rows, r);
        let length = match norm {
            Norm::L2 => row.iter().map(|x| x * x).sum::<f64>().sqrt(),
            Norm::L1 => row.iter().map(|x| x.abs()).sum(),
            Norm::Max => row.iter().fold(0.0, |m: f64, x| m.max(x.abs())),
        };
        out.extend(row.iter().map(|x| if length == 0.0 { 0.0 } else { x / length }));
        norms.push(length);
    }
    (out, norms)
}
