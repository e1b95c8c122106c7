//! `refine`: the direct keys of given candidates (a fused gather and distance).
//!
//! Shapes: queries `[q, dim]`, rows `[n, dim]`, positions `[q, width]` u32 (`u32::MAX`: none), out `[q, width]` f32 keys,
//! +inf where there is no candidate. Error: [`metric::tolerance`](super::metric::tolerance).

use super::{Cost, Kernel, distance, metric};
use crate::plan::Problem;
use crate::types::{Metric, RowsView};

/// The entry points of `shaders/refine.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    Vec::new()
}

/// Every candidate's row is gathered once.
pub fn cost(p: &Problem, width: usize) -> Cost {
    let pairs = p.queries as f64 * width as f64;
    Cost {
        bytes_read: pairs * (p.dtype.row_bytes(p.dim) as f64 + 4.0),
        bytes_written: pairs * 4.0,
        operations: pairs * p.dim as f64 * distance::operations_per_component(p.metric),
        launches: 1.0,
    }
}

/// Keys `[q, width]` in f64.
pub fn reference(
    metric: Metric,
    queries: &RowsView<'_>,
    rows: &RowsView<'_>,
    positions: &[u32],
    width: usize,
) -> Vec<f64> {
    let mut keys = Vec::with_capacity(positions.len());
    for (q, candidates) in positions.chunks(width.max(1)).enumerate() {
        let query = distance::row_f64(queries, q);
        keys.extend(candidates.iter().map(|&p| match p {
            u32::MAX => f64::INFINITY,
            p => metric::key(metric, &query, &distance::row_f64(rows, p as usize)),
        }));
    }
    keys
}
