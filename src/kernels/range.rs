//! `range`: every row whose key is at most a given one, in two passes: count, then fill.
//!
//! Shapes: queries `[q, dim]`, rows `[n, dim]`, optional bitmap, out offsets `[q + 1]` and the hits of each query,
//! smallest (key, position) first. The count is exact before anything is written, so nothing is ever cut.
//! Error: [`metric::tolerance`](super::metric::tolerance); both passes run the same arithmetic, so they agree.

use super::source::lib;
use super::tile::{self, Shape};
use super::{Access, Binding, Cost, DeviceCaps, Kernel, Launch, Mask, Variant, distance};
use crate::plan::Problem;
use crate::types::{DType, Metric, RowsView};

crate::params! {
    /// What `shaders/range.wgsl` reads.
    Params {
        /// First row of the bound shard that is compared.
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
        /// Bits of the largest key that is a hit.
        limit: u32,
        /// What a cursor counts from: hits are written at `cursor - out_base`.
        out_base: u32,
        /// High part of P in `lp:P`.
        power: f32,
        /// Low part of P.
        power_low: f32,
    }
}

/// What one launch compares; the same for both passes.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Which distance.
    pub metric: Metric,
    /// Of what the rows are made.
    pub dtype: DType,
    /// Components a row.
    pub dim: usize,
    /// The largest key that is a hit.
    pub key: f32,
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
    /// What cursors count from: a hit is written at `cursor - out_base`.
    pub out_base: u32,
}

const COUNTERS: Binding = Binding { name: "counters", ty: "array<atomic<u32>>", access: Access::ReadWrite };

static COUNT: Kernel = Kernel {
    verb: "range",
    entry: "range_count",
    wgsl: include_str!("../../shaders/range.wgsl"),
    libs: &[lib::ROWS, lib::MATH, lib::ORDER, lib::METRIC, lib::LOAD, lib::TILE],
    pairs: &[],
    bindings: &[
        distance::ROWS,
        distance::QUERIES,
        distance::ROW_NORMS,
        distance::QUERY_NORMS,
        distance::MASK,
        COUNTERS,
    ],
    params: Params::FIELDS,
    variants: &[Variant::PLAIN],
    shapes: distance::SHAPES,
    overrides: &[("METRIC", distance::METRIC_CODES), ("DTYPE", distance::DTYPE_CODES)],
};

static FILL: Kernel = Kernel {
    entry: "range_fill",
    bindings: &[
        distance::ROWS,
        distance::QUERIES,
        distance::ROW_NORMS,
        distance::QUERY_NORMS,
        distance::MASK,
        COUNTERS,
        Binding { name: "out_keys", ty: "array<u32>", access: Access::ReadWrite },
        Binding { name: "out_positions", ty: "array<u32>", access: Access::ReadWrite },
    ],
    ..COUNT
};

/// The entry points of `shaders/range.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![&COUNT, &FILL]
}

/// One launch of the first pass: adds the hits of each query to `counters[q]`, q counted from the first bound query.
/// Buffers: rows, queries, row norms and query norms (read by cosine only), mask (read when there is one), counters.
pub fn record_count(args: &Args, caps: &DeviceCaps) -> Launch {
    record(args, &COUNT, caps)
}

/// One launch of the second pass: `counters[q]` is where the next hit of query q goes, in no order. Buffers: those of the
/// first pass, then keys and positions.
pub fn record_fill(args: &Args, caps: &DeviceCaps) -> Launch {
    record(args, &FILL, caps)
}

fn record(args: &Args, kernel: &'static Kernel, caps: &DeviceCaps) -> Launch {
    let (queries, rows) = (args.q_end - args.q_begin, args.row_end - args.row_begin);
    let shape = Shape::of(queries);
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
        // Kernels write no -0.
        limit: if args.key == 0.0 { 0 } else { args.key.to_bits() },
        out_base: args.out_base,
        power,
        power_low,
    };
    Launch {
        kernel,
        variant: Variant::PLAIN,
        constants: distance::constants(shape, args.metric, args.dtype),
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: shape.groups(queries, shape.walkers(rows, queries, 4096, 4, caps), caps),
    }
}

/// One direct pass is the least it takes (a GPU counts before it writes); hits are unknown beforehand and not counted.
pub fn cost(p: &Problem) -> Cost {
    let one = distance::cost(p);
    Cost { bytes_written: 0.0, launches: 2.0 * one.launches, ..one }
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
