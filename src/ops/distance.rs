//! `distance`: all keys between a batch of queries and the rows of a base.
//!
//! Shapes: queries `[q, dim]`, rows `[n, dim]`, out `[q, n]` f32 keys (smaller is closer; similarities negated).
//! Error: [`metric::tolerance`](super::metric::tolerance).

use std::fmt;

use super::source::{dtype_code, lib, metric_code};
use super::tile::{Shape, TileArgs};
use super::{Access, Binding, Cost, Define, DeviceCaps, Extent, Kernel, Launch, Pairs, Program, Variant, metric};
use crate::compute::{EngineError, Type, Value};
use crate::types::{DType, Metric, RowsView};

/// All keys of the pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Distance {
    /// Queries and rows; a mask is ignored.
    pub pairs: Pairs,
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("distance")
    }
}

impl Define for Distance {
    const NAME: &'static str = "distance";

    fn operands(&self, each: &mut dyn FnMut(Value)) {
        self.pairs.operands(each);
    }

    fn check(&self, program: &Program) -> Result<Type, EngineError> {
        let Extent { rows, queries, .. } = self.pairs.check(program)?;
        Ok(Type::Matrix { rows: queries, width: rows })
    }

    fn cost(&self, program: &Program) -> Cost {
        self.pairs.extent(program).map(|extent| cost(&extent)).unwrap_or_default()
    }
}

crate::tile_params! {
    /// What `shaders/distance.wgsl` reads.
    Params {
        /// Keys from query to query in `out`.
        out_stride: u32,
        /// Where the keys of `row_begin` lie in their row of `out`.
        out_offset: u32,
    }
}

/// What one launch computes.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Which queries and rows.
    pub tile: TileArgs,
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
    let (queries, rows) = (args.tile.q_end - args.tile.q_begin, args.tile.row_end - args.tile.row_begin);
    let shape = Shape::of(queries);
    let params = Params { out_stride: args.out_stride, out_offset: args.out_offset, ..Params::of(&args.tile) };
    Launch {
        kernel: &DISTANCE,
        variant: Variant::PLAIN,
        constants: constants(shape, args.tile.metric, args.tile.dtype),
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
pub fn cost(p: &Extent) -> Cost {
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
