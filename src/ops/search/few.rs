//! The direct search of few queries: all keys in one pass that reads the rows once and at full speed, then those that may be
//! among the smallest.
//!
//! Shapes: queries `[q, dim]`, `q` at most 4, rows `[n, dim]`. `search_few` gives keys `[q, n]` and, of each
//! workgroup, the smallest pair (key, position). The k-th smallest of these is a bar: k pairs are not above it, as each of k
//! workgroups has one. So `search_below` looks for the k smallest among the pairs that are not above the bar; there are hardly
//! more than k, since every workgroup takes its rows from everywhere. Key: the metric's, see
//! [`metric::tolerance`](crate::ops::metric::tolerance); a team sums each row in at least 16 partial sums.

use crate::ops::source::{dtype_code, lib, metric_code};
use crate::ops::tile::{self, TileArgs};
use crate::ops::{Access, Binding, DeviceCaps, Kernel, Launch, Variant, distance};

/// The most queries of a launch.
const QUERIES: u32 = 4;
/// The most places of a query: more, and the bar lets too much pass.
const MOST_KEEP: u32 = 1024;
/// Whether these kernels serve so many queries that keep so many rows.
pub fn fits(queries: usize, keep: usize) -> bool {
    queries <= QUERIES as usize && keep <= MOST_KEEP as usize
}

/// Threads of a workgroup.
const THREADS: u32 = 256;

crate::tile_params! {
    /// What `shaders/search/few.wgsl` reads.
    Params {
        /// Keys from query to query.
        out_stride: u32,
        /// Rows that a workgroup takes side by side.
        neighbours: u32,
        /// Threads that share a row, a power of two from 4 to 32.
        lanes: u32,
    }
}

crate::params! {
    /// What `shaders/search/below.wgsl` reads.
    Below {
        /// Keys of a query.
        width: u32,
        /// The position of the first key.
        position_base: u32,
        /// Places of a list.
        room: u32,
    }
}

/// What one launch computes.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Which queries, at most 4, and which rows.
    pub tile: TileArgs,
}

const OUT_KEYS: Binding = Binding { name: "out_keys", ty: "array<u32>", access: Access::ReadWrite };

static FEW: Kernel = Kernel {
    verb: "search",
    entry: "search_few",
    wgsl: include_str!("../../../shaders/search/few.wgsl"),
    libs: &[lib::ROWS, lib::MATH, lib::ORDER, lib::METRIC, lib::ALLOWED],
    pairs: &[],
    bindings: &[
        distance::ROWS,
        distance::QUERIES,
        distance::ROW_NORMS,
        distance::QUERY_NORMS,
        distance::MASK,
        OUT_KEYS,
        Binding { name: "least_keys", ty: "array<u32>", access: Access::ReadWrite },
        Binding { name: "least_positions", ty: "array<u32>", access: Access::ReadWrite },
    ],
    params: Params::FIELDS,
    variants: &[Variant::PLAIN],
    shapes: &[&[("QUERIES", 1.0), ("TURNS", 4.0)], &[("QUERIES", 4.0), ("TURNS", 1.0)]],
    overrides: &[("METRIC", distance::METRIC_CODES), ("DTYPE", distance::DTYPE_CODES)],
};

static BELOW: Kernel = Kernel {
    entry: "search_below",
    wgsl: include_str!("../../../shaders/search/below.wgsl"),
    libs: &[lib::ORDER, lib::LIMITS],
    bindings: &[
        Binding { name: "keys", ty: "array<u32>", access: Access::Read },
        Binding { name: "bars", ty: "array<u32>", access: Access::Read },
        OUT_KEYS,
        Binding { name: "out_positions", ty: "array<u32>", access: Access::ReadWrite },
        super::screened::LIMITS,
    ],
    params: Below::FIELDS,
    shapes: &[&[]],
    overrides: &[],
    ..FEW
};

/// The entry points of `shaders/search/few.wgsl` and `shaders/search/below.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![&FEW, &BELOW]
}

/// Threads that share a row, so that each has about four vectors of it: more, and adding up takes longer than reading.
fn lanes(args: &Args) -> u32 {
    tile::row_stride(args.tile.dtype, args.tile.dim).div_ceil(4).next_power_of_two().clamp(4, 32)
}

/// Rows of a team at a time.
fn turns(queries: u32) -> u32 {
    if queries <= 1 { 4 } else { 1 }
}

/// Workgroups of a launch: each gives a smallest pair for every query.
pub fn groups(args: &Args, caps: &DeviceCaps) -> u32 {
    let at_a_time = THREADS / lanes(args) * turns(args.tile.q_end - args.tile.q_begin);
    (args.tile.row_end - args.tile.row_begin).div_ceil(at_a_time).clamp(1, caps.tuning.groups.min(caps.max_groups))
}

/// One launch: the key of row r for query q, as bits of f32, at `q * (row_end - row_begin) + r - row_begin`, q counted from
/// `q_begin`; [`MISSING_KEY`](crate::ops::source::MISSING_KEY) where the mask forbids the row. The smallest pair of
/// workgroup g at `q * groups + g`; a position of `u32::MAX` where it has none. Buffers: rows, queries, lengths of rows and of
/// queries (read by cosine), mask (read when there is one), keys, smallest keys, their positions.
pub fn record(args: &Args, caps: &DeviceCaps) -> Launch {
    let queries = args.tile.q_end - args.tile.q_begin;
    let row_stride = tile::row_stride(args.tile.dtype, args.tile.dim);
    let params = Params {
        out_stride: args.tile.row_end - args.tile.row_begin,
        // At least 128 bytes side by side.
        neighbours: (8 / row_stride.max(1)).max(1),
        lanes: lanes(args),
        ..Params::of(&args.tile)
    };
    let [metric, dtype] = [metric_code(args.tile.metric), dtype_code(args.tile.dtype)];
    Launch {
        kernel: &FEW,
        variant: Variant::PLAIN,
        constants: vec![
            ("QUERIES", if queries <= 1 { 1.0 } else { QUERIES.into() }),
            ("TURNS", turns(queries).into()),
            ("METRIC", metric.into()),
            ("DTYPE", dtype.into()),
        ],
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: [groups(args, caps), 1, 1],
    }
}

/// One launch: of the keys `[queries, width]` those that are above neither the bar nor the limit of their query are added to
/// its list of `room` places. The first key of each query is that of position `position_base`. Buffers: keys, bars (a
/// [`Limit`](super::screened::Limit) of each query), keys and positions of the lists, their limits.
pub fn record_below(queries: u32, width: u32, position_base: u32, room: u32, caps: &DeviceCaps) -> Launch {
    let params = Below { width, position_base, room };
    Launch {
        kernel: &BELOW,
        variant: Variant::PLAIN,
        constants: Vec::new(),
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: [width.div_ceil(THREADS * 4).clamp(1, caps.tuning.groups.min(caps.max_groups)), queries, 1],
    }
}
