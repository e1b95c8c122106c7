//! `search`: distance and local selection in one pass; no `[q, n]` matrix anywhere.
//!
//! Shapes: queries `[q, dim]`, rows `[n, dim]`, optional bitmap, out `[q, keep]` pairs (key f32, position u32), smallest
//! (key, position) first, +inf and `u32::MAX` where there are fewer rows than places.
//! The key is the metric's (error: [`metric::tolerance`](super::metric::tolerance)); behind a screen ([`screened`]) it is a
//! lower bound that never exceeds the key that the direct pass computes.

pub mod few;
pub mod screened;

use super::source::lib;
use super::tile::{self, Shape};
use super::{Access, Binding, Cost, DeviceCaps, Kernel, Launch, Mask, Variant, distance};
use crate::plan::{Problem, Screen};
use crate::types::{DType, Metric, RowsView};

/// The most candidates a query that the fused kernel keeps; beyond, `Distance` and `SelectK` do it.
pub const MAX_KEEP: u32 = 128;

crate::params! {
    /// What `shaders/search.wgsl` reads.
    Params {
        /// First row of the bound shard that is searched.
        row_begin: u32,
        /// The row after the last.
        row_end: u32,
        /// First query of the bound ones.
        q_begin: u32,
        /// The query after the last.
        q_end: u32,
        /// Units of 16 bytes from row to row.
        row_stride: u32,
        /// Units of 16 bytes from query to query.
        query_stride: u32,
        /// 1 when the mask is to be read.
        has_mask: u32,
        /// Words of the mask from query to query; 0 when all share one.
        mask_stride: u32,
        /// The bit of the mask that stands for row 0 of the bound shard.
        mask_row_base: u32,
        /// The position of row 0 of the bound shard.
        position_base: u32,
        /// Places of a part.
        keep: u32,
        /// The first part that this launch writes.
        part_base: u32,
        /// Parts of a query.
        parts_total: u32,
        /// High part of P in `lp:P`.
        power: f32,
        /// Low part of P.
        power_low: f32,
    }
}

/// What one launch searches.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Which distance.
    pub metric: Metric,
    /// Of what the rows are made.
    pub dtype: DType,
    /// Components a row.
    pub dim: usize,
    /// Places of a part, at most [`MAX_KEEP`].
    pub keep: u32,
    /// Rows `row_begin..row_end` of the bound shard.
    pub row_begin: u32,
    /// See `row_begin`.
    pub row_end: u32,
    /// Queries `q_begin..q_end` of the bound ones.
    pub q_begin: u32,
    /// See `q_begin`.
    pub q_end: u32,
    /// The position of row 0 of the bound shard.
    pub position_base: u32,
    /// Words of the mask from query to query (0: one for all); no mask when absent.
    pub mask: Option<u32>,
    /// The bit of the mask that stands for row 0 of the bound shard.
    pub mask_row_base: u32,
    /// The first of the [`parts`] that this launch writes.
    pub part_base: u32,
    /// Parts of a query in the result, those of other launches (shards, slices) included.
    pub parts_total: u32,
}

/// Queries of a tile times `K`, the most places of a part: what workgroup memory has room for.
const PLACES: u32 = 1024;

static SEARCH: Kernel = Kernel {
    verb: "search",
    entry: "search",
    wgsl: include_str!("../../shaders/search.wgsl"),
    libs: &[lib::ROWS, lib::MATH, lib::ORDER, lib::METRIC, lib::LOAD, lib::TILE, lib::HEAP],
    pairs: &[lib::CLAIM],
    bindings: &[
        distance::ROWS,
        distance::QUERIES,
        distance::ROW_NORMS,
        distance::QUERY_NORMS,
        distance::MASK,
        Binding { name: "out_keys", ty: "array<u32>", access: Access::ReadWrite },
        Binding { name: "out_positions", ty: "array<u32>", access: Access::ReadWrite },
    ],
    params: Params::FIELDS,
    variants: &[Variant::PLAIN, Variant::SUBGROUPS],
    shapes: &[
        &[("TX", 8.0), ("TY", 8.0), ("TD", 16.0), ("K", 32.0)],
        &[("TX", 16.0), ("TY", 4.0), ("TD", 16.0), ("K", 64.0)],
        &[("TX", 32.0), ("TY", 2.0), ("TD", 8.0), ("K", 128.0)],
    ],
    overrides: &[("METRIC", distance::METRIC_CODES), ("DTYPE", distance::DTYPE_CODES)],
};

/// How many shapes the fused kernel has.
pub(super) fn shapes() -> usize {
    SEARCH.shapes.len()
}

/// The shape that was tuned, where the lists of its queries fit.
fn tuned(keep: u32, caps: &DeviceCaps) -> Option<Shape> {
    let shape = Shape::listed(SEARCH.shapes.get(usize::from(caps.tuning.search?))?)?;
    (PLACES / shape.queries() >= keep).then_some(shape)
}

/// Few places leave room for many queries a workgroup, which then read a row together.
fn shape(queries: u32, keep: u32, caps: &DeviceCaps) -> Shape {
    if let Some(shape) = tuned(keep, caps) {
        return shape;
    }
    match PLACES / keep.clamp(1, MAX_KEEP) {
        fit if fit >= 32 && queries > 16 => Shape { tx: 8, ty: 8, td: 16 },
        fit if fit >= 16 && queries > 8 => Shape { tx: 16, ty: 4, td: 16 },
        _ => Shape { tx: 32, ty: 2, td: 8 },
    }
}

/// How many parts a query one launch writes: workgroups that share the rows.
pub fn parts(args: &Args, caps: &DeviceCaps) -> u32 {
    let (queries, rows) = (args.q_end - args.q_begin, args.row_end - args.row_begin);
    shape(queries, args.keep, caps).walkers(rows, queries, caps.tuning.groups, 8, caps)
}

/// The entry points of `shaders/search.wgsl` and of the files in `shaders/search/`.
pub fn kernels() -> Vec<&'static Kernel> {
    [vec![&SEARCH], few::kernels(), screened::kernels()].concat()
}

/// One launch: workgroup `w` of the [`parts`] that share rows `row_begin..row_end` writes its `keep` smallest, in no
/// order, at `(q * parts_total + part_base + w) * keep` of both results, q counted from the first bound query.
/// Buffers: rows, queries, row norms and query norms (read by cosine), mask (read when there is one),
/// keys, positions.
pub fn record(args: &Args, caps: &DeviceCaps) -> Launch {
    let queries = args.q_end - args.q_begin;
    let shape = shape(queries, args.keep, caps);
    let (power, power_low) = tile::power(args.metric);
    let params = Params {
        row_begin: args.row_begin,
        row_end: args.row_end,
        q_begin: args.q_begin,
        q_end: args.q_end,
        row_stride: tile::row_stride(args.dtype, args.dim),
        query_stride: tile::query_stride(args.dtype, args.dim),
        has_mask: args.mask.is_some().into(),
        mask_stride: args.mask.unwrap_or(0),
        mask_row_base: args.mask_row_base,
        position_base: args.position_base,
        keep: args.keep,
        part_base: args.part_base,
        parts_total: args.parts_total,
        power,
        power_low,
    };
    let mut constants = distance::constants(shape, args.metric, args.dtype);
    constants.push(("K", (PLACES / shape.queries()).min(MAX_KEEP).into()));
    Launch {
        kernel: &SEARCH,
        variant: Variant { subgroups: caps.subgroups },
        constants,
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: shape.groups(queries, parts(args, caps), caps),
    }
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
        _ => p.rows as f64 * p.queries as f64 * (p.dim as f64 * 2.0 + 4.0),
    };
    // Rows in a screen's own form: at most as many components as the rows have, and four numbers each.
    let copies = |component: f64| p.rows as f64 * (p.dim as f64 * component + 16.0);
    let bytes_read = match screen {
        Screen::None | Screen::F32 => direct.bytes_read,
        Screen::F16 => copies(2.0),
        Screen::Int8 => copies(1.0),
    };
    Cost { bytes_read, bytes_written: p.queries as f64 * keep as f64 * 8.0, operations, launches: 2.0 }
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
