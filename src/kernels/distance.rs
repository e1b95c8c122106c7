//! `distance`: all keys between a batch of queries and the rows of a base.
//!
//! Shapes: queries `[q, dim]`, rows `[n, dim]`, out `[q, n]` f32 keys (smaller is closer; similarities negated).
//! Error: [`metric::tolerance`](super::metric::tolerance).

use super::{Cost, Kernel, metric};
use crate::plan::Problem;
use crate::types::{DType, Metric, RowsView};

/// The entry points of `shaders/distance.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    Vec::new()
}

/// Operations for one component of one pair, counting a multiply-add as two.
pub(super) fn operations_per_component(metric: Metric) -> f64 {
    match metric {
        Metric::InnerProduct | Metric::Cosine => 2.0,
        Metric::L2 | Metric::L1 | Metric::Linf => 3.0,
        Metric::BrayCurtis | Metric::Jaccard => 6.0,
        Metric::Canberra => 6.0,
        Metric::Lp(_) => 20.0,
        Metric::JensenShannon => 24.0,
        // One xor, one popcount and one addition for 32 components.
        Metric::Hamming => 3.0 / 32.0,
    }
}

/// One pass over the rows, every pair computed.
pub fn cost(p: &Problem) -> Cost {
    let (n, q) = (p.rows as f64, p.queries as f64);
    let query_bytes = if p.dtype == DType::Bits { p.dtype.row_bytes(p.dim) } else { p.dim * 4 };
    Cost {
        bytes_read: n * p.dtype.row_bytes(p.dim) as f64 + q * query_bytes as f64,
        bytes_written: n * q * 4.0,
        operations: n * q * p.dim as f64 * operations_per_component(p.metric),
        launches: 1.0,
    }
}

/// Keys `[q, n]` in f64.
pub fn reference(metric: Metric, queries: &RowsView<'_>, rows: &RowsView<'_>) -> Vec<f64> {
    let base: Vec<Vec<f64>> = (0..rows.rows()).map(|r| row_f64(rows, r)).collect();
    let mut keys = Vec::with_capacity(queries.rows() * base.len());
    for q in 0..queries.rows() {
        let query = row_f64(queries, q);
        keys.extend(base.iter().map(|row| metric::key(metric, &query, row)));
    }
    keys
}

/// Row `i` in f64; bits as 0 and 1.
pub fn row_f64(rows: &RowsView<'_>, i: usize) -> Vec<f64> {
    let mut row = vec![0.0; rows.dim()];
    rows.row_f32(i, &mut row);
    row.into_iter().map(f64::from).collect()
}
