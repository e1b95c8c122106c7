//! `search`: distance and local selection in one pass; no `[q, n]` matrix anywhere.
//!
//! Shapes: queries `[q, dim]`, rows `[n, dim]`, optional bitmap, out `[q, keep]` pairs (key f32, position u32), smallest
//! (key, position) first, +inf and `u32::MAX` where there are fewer rows than places.
//! Without a screen the key is the metric's (error: [`metric::tolerance`](super::metric::tolerance)). With
//! [`Screen::F32`] it is [`lower_bound`], which never exceeds the key that the direct pass computes.

use super::{Cost, Kernel, distance};
use crate::engine::Mask;
use crate::plan::{Problem, Screen};
use crate::types::{Metric, RowsView};

/// The entry points of `shaders/search.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    Vec::new()
}

/// Whether the f32 screen exists for a metric: those that an inner product decides.
pub fn screens(metric: Metric) -> bool {
    matches!(metric, Metric::L2 | Metric::InnerProduct | Metric::Cosine)
}

/// The slack of the f32 screen, relative to the norms: `2 (dim + 24) u`, u = 2^-24. Covers the rounding of the dot
/// product in any order of summation, of norms and expansion, and of a direct pass that sums in at least four lanes
/// (`docs/numerics.md`). Holds while every length is 0 or [in range](norm_in_range).
pub fn slack(dim: usize) -> f32 {
    2.0 * (dim as f32 + 24.0) * f32::powi(2.0, -24)
}

/// Whether the proof of the f32 screen covers a vector of this length: nothing overflows, and what is flushed to zero
/// is smaller than the slack.
pub fn norm_in_range(norm: f32) -> bool {
    norm == 0.0 || (f32::powi(2.0, -40)..=f32::powi(2.0, 60)).contains(&norm)
}

/// A bound below the direct pass's key, from an f32 inner product in any order of summation and both lengths.
/// Kernels compute exactly this, in f32.
#[inline(always)]
pub fn lower_bound(metric: Metric, slack: f32, dot: f32, query_norm: f32, row_norm: f32) -> f32 {
    match metric {
        Metric::L2 => (query_norm * query_norm + row_norm * row_norm) * (1.0 - slack) - 2.0 * dot,
        Metric::InnerProduct => -dot - slack * query_norm * row_norm,
        // Cosine.
        _ => {
            let norms = query_norm * row_norm;
            if norms == 0.0 { 0.0 } else { -dot / norms - slack }
        }
    }
}

/// One pass over the rows; keys never leave registers, only `keep` pairs a query are written.
pub fn cost(p: &Problem, screen: Screen, keep: usize) -> Cost {
    let direct = distance::cost(p);
    let operations = match screen {
        Screen::None => direct.operations,
        Screen::F32 => p.rows as f64 * p.queries as f64 * (p.dim as f64 * 2.0 + 4.0),
    };
    Cost { bytes_written: p.queries as f64 * keep as f64 * 8.0, operations, launches: 2.0, ..direct }
}

/// The `keep` smallest (key, position) of each query among allowed rows, in f64, by the direct key.
pub fn reference(
    metric: Metric,
    queries: &RowsView<'_>,
    rows: &RowsView<'_>,
    mask: Option<Mask<'_>>,
    keep: usize,
) -> Vec<Vec<(f64, u32)>> {
    let (n, keys) = (rows.rows(), distance::reference(metric, queries, rows));
    (0..queries.rows())
        .map(|q| {
            let allowed = (0..n).filter(|&r| mask.is_none_or(|m| m.allows(q, r)));
            let mut pairs: Vec<(f64, u32)> = allowed.map(|r| (keys[q * n + r], r as u32)).collect();
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            pairs.truncate(keep);
            pairs
        })
        .collect()
}
