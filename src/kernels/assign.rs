//! `assign`: the nearest row (centroid) of each query (point); no `[q, n]` matrix anywhere.
//!
//! Shapes: queries `[q, dim]` f32, rows `[n, dim]` f32, out `[q, 1]` pairs (key f32, position u32): the smallest (key,
//! position) of all rows. The key is that of the direct pass, the metric one of those that [`screens`] names.
//! Error: [`metric::tolerance`](super::metric::tolerance).

use super::search::screens;
use super::source::lib;
use super::tile::{self, Shape};
use super::{Access, Binding, Cost, DeviceCaps, Kernel, Launch, Variant, distance};
use crate::plan::Problem;
use crate::types::{DType, Metric, RowsView};

/// Rows of a block that share one bound (`engine::Known`).
pub const BLOCK: usize = 32;

/// Queries whose bounds lie together, block by block.
pub const POINTS: usize = 1024;

crate::params! {
    /// What `shaders/assign.wgsl` reads.
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
        /// 1: the answer so far is not looked at; 0: what is nearer there stays.
        first: u32,
        /// Not read; `lib/metric` knows metrics with a power.
        power: f32,
        /// Not read.
        power_low: f32,
    }
}

/// What one launch compares.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Which distance.
    pub metric: Metric,
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
    /// The position of row 0 of the bound shard.
    pub position_base: u32,
    /// Words of the mask from query to query (0: one for all); no mask when absent.
    pub mask: Option<u32>,
    /// The bit of the mask that stands for row 0 of the bound shard.
    pub mask_row_base: u32,
    /// Whether this is the first launch of its queries.
    pub first: bool,
}

static ASSIGN: Kernel = Kernel {
    verb: "assign",
    entry: "assign",
    wgsl: include_str!("../../shaders/assign.wgsl"),
    libs: &[lib::ROWS, lib::MATH, lib::ORDER, lib::METRIC, lib::LOAD, lib::TILE],
    pairs: &[],
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
    variants: &[Variant::PLAIN],
    shapes: &[&[("TX", 16.0), ("TY", 16.0), ("TD", 16.0)], &[("TX", 64.0), ("TY", 1.0), ("TD", 8.0)]],
    overrides: &[("METRIC", &[0.0, 1.0, 2.0]), ("DTYPE", &[0.0])],
};

/// The entry points of `shaders/assign.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![&ASSIGN]
}

/// Whether points can be assigned by a metric, to rows of an element type.
pub fn assigns(metric: Metric, dtype: DType) -> bool {
    screens(metric) && dtype == DType::F32
}

/// One launch: the nearest of rows `row_begin..row_end` for queries `q_begin..q_end`, as the bits of the key and the
/// position at place q of both results. Buffers: rows, queries, row norms and query norms (read by cosine only), mask
/// (read when there is one), keys, positions.
pub fn record(args: &Args, caps: &DeviceCaps) -> Launch {
    let queries = args.q_end - args.q_begin;
    let shape = if queries <= 4 { Shape::FEW } else { Shape::BATCH };
    let params = Params {
        row_begin: args.row_begin,
        row_end: args.row_end,
        q_begin: args.q_begin,
        q_end: args.q_end,
        row_stride: tile::row_stride(DType::F32, args.dim),
        query_stride: tile::query_stride(DType::F32, args.dim),
        has_mask: args.mask.is_some().into(),
        mask_stride: args.mask.unwrap_or(0),
        mask_row_base: args.mask_row_base,
        position_base: args.position_base,
        first: args.first.into(),
        power: 0.0,
        power_low: 0.0,
    };
    Launch {
        kernel: &ASSIGN,
        variant: Variant::PLAIN,
        constants: distance::constants(shape, args.metric, DType::F32),
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: shape.groups(queries, 1, caps),
    }
}

/// Every pair computed, as an inner product; what is read and written grows with points plus centroids, not with pairs.
pub fn cost(p: &Problem) -> Cost {
    let direct = distance::cost(p);
    let operations = p.rows as f64 * p.queries as f64 * (p.dim as f64 * 2.0 + 4.0);
    Cost { bytes_written: p.queries as f64 * 8.0, operations, ..direct }
}

/// The nearest row of each query, in f64: key and position.
pub fn reference(metric: Metric, queries: &RowsView<'_>, rows: &RowsView<'_>) -> Vec<Option<(f64, u32)>> {
    let nearest = super::search::reference(metric, queries, rows, None, 1);
    nearest.into_iter().map(|found| found.first().copied()).collect()
}
