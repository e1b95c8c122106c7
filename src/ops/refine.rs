//! `refine`: the direct keys of given candidates (a fused gather and distance).
//!
//! Shapes: queries `[q, dim]`, rows `[n, dim]`, positions `[q, width]` u32 (`u32::MAX`: none), out `[q, width]` f32 keys,
//! +inf where there is no candidate. Error: [`metric::tolerance`](super::metric::tolerance).

use std::fmt;

use super::source::{dtype_code, lib, metric_code};
use super::{
    Access, Binding, Cost, Define, DeviceCaps, Extent, Kernel, Launch, Pairs, Program, Variant, distance, metric,
    mismatch, tile,
};
use crate::compute::{EngineError, Frame, Type, Value};
use crate::types::{DType, Metric, RowsView};

/// The direct keys of candidates, in their places.
#[derive(Clone, Debug, PartialEq)]
pub struct Refine {
    /// Queries and rows; a mask is ignored.
    pub pairs: Pairs,
    /// Positions of rows; their keys are ignored.
    pub candidates: Value,
}

impl fmt::Display for Refine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refine")
    }
}

impl Define for Refine {
    const NAME: &'static str = "refine";

    fn operands(&self, each: &mut dyn FnMut(Value)) {
        self.pairs.operands(each);
        each(self.candidates);
    }

    fn check(&self, program: &Program) -> Result<Type, EngineError> {
        let wanted = self.pairs.check(program)?.queries;
        match *program.ty(self.candidates)? {
            Type::Candidates { queries, width } if queries == wanted || width == 0 => {
                Ok(Type::Candidates { queries: wanted, width })
            }
            ref other => Err(mismatch(format!("{other} of {wanted} queries, wanted candidates of each"))),
        }
    }

    fn examine(&self, frame: &Frame<'_>) -> Result<(), EngineError> {
        let rows = frame.vectors(self.pairs.rows, 1)?.rows.rows();
        let (positions, _) = frame.positions(self.candidates)?;
        // One pass without branches; which one is wrong matters only when one is.
        let wrong = positions.iter().fold(0usize, |sum, &p| sum + usize::from(p != u32::MAX && p as usize >= rows));
        match wrong {
            0 => Ok(()),
            wrong => Err(mismatch(format!("{wrong} candidates past the last of {rows} rows"))),
        }
    }

    fn cost(&self, program: &Program) -> Cost {
        match (self.pairs.extent(program), program.ty(self.candidates)) {
            (Ok(extent), Ok(&Type::Candidates { width, .. })) => cost(&extent, width),
            _ => Cost::default(),
        }
    }
}

crate::params! {
    /// What `shaders/refine.wgsl` reads.
    Params {
        /// First query of the bound ones.
        q_begin: u32,
        /// The query after the last.
        q_end: u32,
        /// Candidates per query.
        width: u32,
        /// Units of 16 bytes from row to row.
        row_stride: u32,
        /// Units of 16 bytes from query to query.
        query_stride: u32,
        /// The position of row 0 of the bound shard.
        position_base: u32,
        /// Rows of the bound shard.
        row_count: u32,
        /// 1: keys of candidates outside the shard become +inf; 0: they are left as they are.
        first: u32,
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
    /// Components per row.
    pub dim: usize,
    /// Queries `q_begin..q_end` of the bound ones.
    pub q_begin: u32,
    /// See `q_begin`.
    pub q_end: u32,
    /// Candidates per query.
    pub width: u32,
    /// The position of row 0 of the bound shard.
    pub position_base: u32,
    /// Rows of the bound shard.
    pub rows: u32,
    /// Whether keys of candidates outside the shard become +inf (the first shard) or are left as they are.
    pub first: bool,
}

/// Candidates of a workgroup of `refine`.
const CANDIDATES: u32 = 8;

static REFINE: Kernel = Kernel {
    verb: "refine",
    entry: "refine",
    wgsl: include_str!("../../shaders/refine.wgsl"),
    libs: &[lib::ROWS, lib::MATH, lib::ORDER, lib::METRIC],
    pairs: &[],
    bindings: &[
        distance::ROWS,
        distance::QUERIES,
        distance::ROW_NORMS,
        distance::QUERY_NORMS,
        Binding { name: "positions", ty: "array<u32>", access: Access::Read },
        Binding { name: "out_keys", ty: "array<u32>", access: Access::ReadWrite },
    ],
    params: Params::FIELDS,
    variants: &[Variant::PLAIN],
    shapes: &[&[]],
    overrides: &[("METRIC", distance::METRIC_CODES), ("DTYPE", distance::DTYPE_CODES)],
};

/// The entry points of `shaders/refine.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![&REFINE]
}

/// One launch: the direct key of each candidate whose position lies in the bound shard, at `q * width + i` of the
/// keys, q counted from the first bound query. Buffers: rows, queries, row norms and query norms (read by cosine only),
/// positions `[q, width]`, keys `[q, width]`.
pub fn record(args: &Args, caps: &DeviceCaps) -> Launch {
    let (power, power_low) = tile::power(args.metric);
    let params = Params {
        q_begin: args.q_begin,
        q_end: args.q_end,
        width: args.width,
        row_stride: tile::row_stride(args.dtype, args.dim),
        query_stride: tile::query_stride(args.dtype, args.dim),
        position_base: args.position_base,
        row_count: args.rows,
        first: args.first.into(),
        power,
        power_low,
    };
    Launch {
        kernel: &REFINE,
        variant: Variant::PLAIN,
        constants: vec![("METRIC", metric_code(args.metric).into()), ("DTYPE", dtype_code(args.dtype).into())],
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: [
            args.width.div_ceil(CANDIDATES).min(caps.max_groups),
            (args.q_end - args.q_begin).min(caps.max_groups),
            1,
        ],
    }
}

/// Every candidate's row is gathered once.
pub fn cost(p: &Extent, width: usize) -> Cost {
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
