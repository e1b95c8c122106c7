//! `distance`: all keys between a batch of queries and the rows of a base.
//!
//! Shapes: queries `[q, dim]`, rows `[n, dim]`, out `[q, n]` f32 keys (smaller is closer; similarities negated).
//! Error: [`metric::tolerance`](super::metric::tolerance).

use super::source::{dtype_code, lib, metric_code};
use super::tile::{self, Shape};
use super::{Access, Binding, Cost, DeviceCaps, Kernel, Launch, Variant, metric};
use crate::plan::Problem;
use crate::types::{DType, Metric, RowsView};

crate::params! {
    /// What `shaders/distance.wgsl` reads.
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
        /// Keys from query to query in `out`.
        out_stride: u32,
        /// Where the keys of `row_begin` lie in their row of `out`.
        out_offset: u32,
        /// High part of P in `lp:P`.
        power: f32,
        /// Low part of P.
        power_low: f32,
    }
}

/// What one launch computes.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Which distance.
    pub metric: Metric,
    /// Of what the rows are made.
    pub dtype: DType,
    /// Components a row.
    pub dim: usize,
    /// Rows `row_begin..row_end` of the bound shard.
    pub row_begin: u32,
    /// See `row_begin`.
    pub row_end: u32,
    /// Queries `q_begin..q_end` of the bound ones.
    pub q_begin: u32,
    /// See `q_begin`.
    pub q_end: u32,
    /// Words of the mask from query to query (0: one for all); no mask when absent.
    pub mask: Option<u32>,
    /// The bit of the mask that stands for row 0 of the bound shard.
    pub mask_row_base: u32,
    /// Keys from query to query in the result; the first row of the result is that of `q_begin`.
    pub out_stride: u32,
    /// Where the key of `row_begin` lies in its row of the result.
    pub out_offset: u32,
}

/// The buffers of every kernel that compares queries with rows, in front of its own.
pub(super) const ROWS: Binding = Binding { name: "rows", ty: "array<vec4<u32>>", access: Access::Read };
pub(super) const QUERIES: Binding = Binding { name: "queries", ty: "array<vec4<u32>>", access: Access::Read };
pub(super) const ROW_NORMS: Binding = Binding { name: "row_norms", ty: "array<f32>", access: Access::Read };
pub(super) const QUERY_NORMS: Binding = Binding { name: "query_norms", ty: "array<f32>", access: Access::Read };
pub(super) const MASK: Binding = Binding { name: "mask", ty: "array<u32>", access: Access::Read };
pub(super) const METRIC_CODES: &[f64] = &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
pub(super) const DTYPE_CODES: &[f64] = &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
pub(super) const SHAPES: &[&[(&str, f64)]] = &[
    &[("TX", 16.0), ("TY", 16.0), ("TD", 16.0)],
    &[("TX", 32.0), ("TY", 8.0), ("TD", 16.0)],
    &[("TX", 64.0), ("TY", 1.0), ("TD", 8.0)],
];

static DISTANCE: Kernel = Kernel {
    verb: "distance",
    entry: "distance",
    wgsl: include_str!("../../shaders/distance.wgsl"),
    libs: &[lib::ROWS, lib::MATH, lib::ORDER, lib::METRIC, lib::LOAD, lib::TILE],
    pairs: &[],
    bindings: &[
        ROWS,
        QUERIES,
        ROW_NORMS,
        QUERY_NORMS,
        MASK,
        Binding { name: "out", ty: "array<u32>", access: Access::ReadWrite },
    ],
    params: Params::FIELDS,
    variants: &[Variant::PLAIN],
    shapes: SHAPES,
    overrides: &[("METRIC", METRIC_CODES), ("DTYPE", DTYPE_CODES)],
};

/// The entry points of `shaders/distance.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![&DISTANCE]
}

/// One launch: keys of rows `row_begin..row_end` for queries `q_begin..q_end`, as bits of f32 at
/// `out[(q - q_begin) * out_stride + out_offset + (r - row_begin)]`; [`MISSING_KEY`](super::source::MISSING_KEY) where
/// the mask forbids the row. Buffers: rows, queries, row norms and query norms (read by cosine only), mask (read when
/// there is one), out.
pub fn record(args: &Args, caps: &DeviceCaps) -> Launch {
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
        out_stride: args.out_stride,
        out_offset: args.out_offset,
        power,
        power_low,
    };
    Launch {
        kernel: &DISTANCE,
        variant: Variant::PLAIN,
        constants: constants(shape, args.metric, args.dtype),
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: shape.groups(queries, shape.walkers(rows, queries, u32::MAX, 1, caps), caps),
    }
}

/// The override constants of a kernel that compares tiles.
pub(super) fn constants(shape: Shape, metric: Metric, dtype: DType) -> Vec<(&'static str, f64)> {
    vec![
        ("TX", shape.tx.into()),
        ("TY", shape.ty.into()),
        ("TD", shape.td.into()),
        ("METRIC", metric_code(metric).into()),
        ("DTYPE", dtype_code(dtype).into()),
    ]
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
