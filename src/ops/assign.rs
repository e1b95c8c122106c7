//! `assign`: the nearest row (centroid) of each query (point); no `[q, n]` matrix anywhere.
//!
//! Shapes: queries `[q, dim]` f32, rows `[n, dim]` f32, out `[q, 1]` pairs (key f32, position u32): the smallest (key,
//! position) of all rows. The key is that of the direct pass, the metric one of those that [`screens`] names.
//! Error: [`metric::tolerance`](super::metric::tolerance).

use std::fmt;

use super::search::{check_codes, examine_codes, screens};
use super::source::lib;
use super::tile::{Shape, TileArgs};
use super::{
    Access, Binding, Cost, Define, DeviceCaps, Extent, Kernel, Launch, Pairs, Program, Variant, distance, mismatch,
};
use crate::compute::{EngineError, Frame, Type, Value};
use crate::types::{DType, Metric, RowsView};

/// Rows of a block that share one bound (`compute::Known`).
pub const BLOCK: usize = 32;

/// Queries whose bounds lie together, block by block.
pub const POINTS: usize = 1024;

/// The nearest row of each query for l2, inner product or cosine, as [`Search`](super::Search) without a screen and with
/// one place. Made for many queries (points) and few rows (centroids, f32).
#[derive(Clone, Debug, PartialEq)]
pub struct Assign {
    /// Points and centroids.
    pub pairs: Pairs,
    /// Codes of rows and of queries, which make it faster on engines that say so.
    pub codes: Option<[Value; 2]>,
    /// What is known beforehand; no answer depends on it.
    pub known: Option<Value>,
}

impl fmt::Display for Assign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("assign")
    }
}

impl Define for Assign {
    const NAME: &'static str = "assign";

    fn operands(&self, each: &mut dyn FnMut(Value)) {
        self.pairs.operands(each);
        self.codes.into_iter().flatten().chain(self.known).for_each(each);
    }

    fn check(&self, program: &Program) -> Result<Type, EngineError> {
        let Extent { metric, dtype, rows, queries, .. } = self.pairs.check(program)?;
        if !assigns(metric, dtype) {
            return Err(mismatch(format!("points are not assigned by {metric} to {dtype} rows")));
        }
        if let Some(codes) = self.codes {
            check_codes(program, codes, rows, queries)?;
        }
        if let Some(known) = self.known {
            let Type::Known { positions, bounds } = *program.ty(known)? else {
                return Err(mismatch("what is known is of another type"));
            };
            let blocks = rows.div_ceil(BLOCK);
            let fits = |len: usize, each: usize| len == 0 || len == queries * each;
            if !fits(positions, 1) || !fits(bounds, blocks) {
                return Err(mismatch(format!(
                    "{positions} positions and {bounds} bounds for {queries} queries x {blocks} blocks"
                )));
            }
        }
        Ok(Type::Candidates { queries, width: 1 })
    }

    fn examine(&self, frame: &Frame<'_>) -> Result<(), EngineError> {
        if let Some(codes) = self.codes {
            examine_codes(frame, codes)?;
        }
        let Some(known) = self.known else { return Ok(()) };
        let rows = frame.vectors(self.pairs.rows, 1)?.rows.rows();
        match frame.known(known)?.positions.iter().find(|&&p| p != u32::MAX && p as usize >= rows) {
            Some(far) => Err(mismatch(format!("row {far} is known of {rows} rows"))),
            None => Ok(()),
        }
    }

    fn cost(&self, program: &Program) -> Cost {
        self.pairs.extent(program).map(|extent| cost(&extent)).unwrap_or_default()
    }
}

crate::tile_params! {
    /// What `shaders/assign.wgsl` reads.
    Params {
        /// 1: the answer so far is ignored; 0: what is nearer there stays.
        first: u32,
    }
}

/// What one launch compares.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Which queries and rows.
    pub tile: TileArgs,
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
    let queries = args.tile.q_end - args.tile.q_begin;
    let shape = if queries <= 4 { Shape::FEW } else { Shape::BATCH };
    let params = Params { first: args.first.into(), ..Params::of(&args.tile) };
    Launch {
        kernel: &ASSIGN,
        variant: Variant::PLAIN,
        constants: distance::constants(shape, args.tile.metric, args.tile.dtype),
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: shape.groups(queries, 1, caps),
    }
}

/// Every pair computed, as an inner product; what is read and written grows with points plus centroids, not with pairs.
pub fn cost(p: &Extent) -> Cost {
    let direct = distance::cost(p);
    let operations = p.rows as f64 * p.queries as f64 * (p.dim as f64 * 2.0 + 4.0);
    Cost { bytes_written: p.queries as f64 * 8.0, operations, ..direct }
}

/// The nearest row of each query, in f64: key and position.
pub fn reference(metric: Metric, queries: &RowsView<'_>, rows: &RowsView<'_>) -> Vec<Option<(f64, u32)>> {
    let nearest = super::search::reference(metric, queries, rows, None, 1);
    nearest.into_iter().map(|found| found.first().copied()).collect()
}
