//! `range`: every row whose key is at most a given one, in two passes: count, then fill.
//!
//! Shapes: queries `[q, dim]`, rows `[n, dim]`, optional bitmap, out offsets `[q + 1]` and the hits of each query,
//! smallest (key, position) first. The count is exact before anything is written, so nothing is ever cut.
//! Error: [`metric::tolerance`](super::metric::tolerance); both passes run the same arithmetic, so they agree.

use std::fmt;

use super::source::lib;
use super::tile::{Shape, TileArgs};
use super::{
    Access, Binding, Cost, Define, DeviceCaps, Extent, Kernel, Launch, Mask, Pairs, Program, Variant, distance,
};
use crate::compute::{EngineError, Type, Value};
use crate::types::{Metric, RowsView};

/// Every row whose key is at most `key`; gives the hits of each query.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// Queries and rows.
    pub pairs: Pairs,
    /// The radius as an internal key (similarities negated).
    pub key: f32,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "range(key <= {})", self.key)
    }
}

impl Define for Range {
    const NAME: &'static str = "range";

    fn operands(&self, each: &mut dyn FnMut(Value)) {
        self.pairs.operands(each);
    }

    fn check(&self, program: &Program) -> Result<Type, EngineError> {
        Ok(Type::Hits { queries: self.pairs.check(program)?.queries })
    }

    fn cost(&self, program: &Program) -> Cost {
        self.pairs.extent(program).map(|extent| cost(&extent)).unwrap_or_default()
    }
}

crate::tile_params! {
    /// What `shaders/range.wgsl` reads.
    Params {
        /// Bits of the largest key that is a hit.
        limit: u32,
        /// What a cursor counts from: hits are written at `cursor - out_base`.
        out_base: u32,
    }
}

/// What one launch compares; the same for both passes.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Which queries and rows.
    pub tile: TileArgs,
    /// The largest key that is a hit.
    pub key: f32,
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
    let (queries, rows) = (args.tile.q_end - args.tile.q_begin, args.tile.row_end - args.tile.row_begin);
    let shape = Shape::of(queries);
    let params = Params {
        // Kernels write no -0.
        limit: if args.key == 0.0 { 0 } else { args.key.to_bits() },
        out_base: args.out_base,
        ..Params::of(&args.tile)
    };
    Launch {
        kernel,
        variant: Variant::PLAIN,
        constants: distance::constants(shape, args.tile.metric, args.tile.dtype),
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: shape.groups(queries, shape.walkers(rows, queries, 4096, 4, caps), caps),
    }
}

/// One direct pass is the least it takes (a GPU counts before it writes); hits are unknown beforehand and not counted.
pub fn cost(p: &Extent) -> Cost {
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
