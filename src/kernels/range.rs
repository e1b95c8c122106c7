//! `range`: every row whose key is at most a given one, in two passes: count, then fill.
//!
//! Shapes: queries `[q, dim]`, rows `[n, dim]`, optional bitmap, out offsets `[q + 1]` and the hits of each query,
//! smallest (key, position) first. The count is exact before anything is written, so nothing is ever cut.
//! Error: [`metric::tolerance`](super::metric::tolerance); both passes run the same arithmetic, so they agree.

use super::{Cost, Kernel, distance};
use crate::engine::Mask;
use crate::plan::Problem;
use crate::types::{Metric, RowsView};

/// The entry points of `shaders/range.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    Vec::new()
}

/// Two direct passes; the hits are unknown beforehand and not counted.
pub fn cost(p: &Problem) -> Cost {
    let one = distance::cost(p);
    Cost {
        bytes_read: 2.0 * one.bytes_read,
        bytes_written: 0.0,
        operations: 2.0 * one.operations,
        launches: 2.0 * one.launches,
    }
}

/// The hits of each query in f64, smallest (key, position) first.
pub fn reference(
    metric: Metric,
    queries: &RowsView<'_>,
    rows: &RowsView<'_>,
    mask: Option<Mask<'_>>,
    key: f64,
) -> Vec<Vec<(f64, u32)>> {
    let mut hits = super::search::reference(metric, queries, rows, mask, rows.rows());
    for pairs in &mut hits {
        pairs.retain(|&(d, _)| d <= key);
    }
    hits
}
