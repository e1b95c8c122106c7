//! The search behind a screen: lower bounds of the direct keys, and those that may be among the smallest, in one pass.
//!
//! Shapes: rows `[n, dim]` as they are, in f16 or as 8-bit codes; queries `[q, dim]`; out `[q, room]` pairs (key f32, position
//! u32), a list for each query, and its [`Limit`]. A key is a lower bound of the direct key: [`lower_bound`](super::lower_bound) from f32,
//! [`codes::lower_bound`](crate::ops::codes::lower_bound) from codes and from f16, in f32 and in any order of summation.
//!
//! Rows go by in [levels](level), each many times as long as all before it. The first fills the lists with all its pairs;
//! after each level `select_k` keeps the smallest pairs of each list, and the largest of these is the limit that pairs of the
//! next level must be below. So a level adds about as many pairs per query as are kept, times how much longer it is; a list that
//! overflows all the same says so, and its query is not proven. Tiles are visited in the order of their reversed bits, so
//! that each level sees rows from everywhere: near rows that lie together do not all come late.

use crate::ops::codes::QueryTerms;
use crate::ops::source::{dtype_code, lib, metric_code};
use crate::ops::tile::{self, Shape};
use crate::ops::{Access, Binding, DeviceCaps, Kernel, Launch, Variant, distance};
use crate::types::{DType, Metric};

crate::params! {
    /// What the files in `shaders/search/` read.
    Params {
        /// First row of the bound shard that is searched.
        row_begin: u32,
        /// The row after the last.
        row_end: u32,
        /// First query of the bound ones.
        q_begin: u32,
        /// The query after the last.
        q_end: u32,
        /// Units of 16 bytes of a row or an 8-bit code; numbers of an f16 row.
        row_stride: u32,
        /// The same from query to query.
        query_stride: u32,
        /// 1 when the mask is to be read.
        has_mask: u32,
        /// Words of the mask from query to query; 0 when all share one.
        mask_stride: u32,
        /// The bit of the mask that stands for row 0 of the bound shard.
        mask_row_base: u32,
        /// The position of row 0 of the bound shard.
        position_base: u32,
        /// Places of a list.
        room: u32,
        /// First tile that is visited, in the order of reversed bits.
        tile_begin: u32,
        /// The tile after the last.
        tile_end: u32,
        /// Bits of a tile's number.
        tile_bits: u32,
        /// The slack of the f32 screen.
        slack: f32,
    }
}

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// f32, from the rows as they are.
    F32,
    /// Packed products of 8-bit codes.
    Codes,
    /// Matrix units of f16 with sums in f32, square with this side: 8 or 16.
    Matrix(u32),
}

impl Unit {
    /// The entry point, by which its self-test is known.
    pub fn kernel(self) -> &'static str {
        self.description().entry
    }

    fn description(self) -> &'static Kernel {
        match self {
            Unit::F32 => &F32,
            Unit::Codes => &CODES,
            Unit::Matrix(16) => &MATRIX_16,
            Unit::Matrix(_) => &MATRIX_8,
        }
    }

    /// Threads of a workgroup along rows and queries, where the kernel has shapes; 8 x 8 pairs each.
    fn threads(self, queries: u32) -> Option<Shape> {
        match (self, queries) {
            (Unit::Matrix(_), _) => None,
            (_, 0..=16) => Some(Shape { tx: 32, ty: 2, td: 8 }),
            (_, 17..=32) => Some(Shape { tx: 32, ty: 4, td: 8 }),
            (_, 33..=64) => Some(Shape { tx: 32, ty: 8, td: 8 }),
            _ => Some(Shape { tx: 16, ty: 16, td: 8 }),
        }
    }

    /// Queries and rows of a tile.
    fn tile(self, queries: u32) -> (u32, u32) {
        match self.threads(queries) {
            Some(shape) => (8 * shape.ty, 8 * shape.tx),
            None if self == Unit::Matrix(16) => (128, 128),
            None => (32, 128),
        }
    }
}

/// Bytes of workgroup memory that the kernel for matrix units of a side takes at most.
pub const fn matrix_memory(side: u32) -> u32 {
    if side == 16 { 42 << 10 } else { 16 << 10 }
}
/// Components of f16 rows are filled up to a multiple of this, and rows and queries to whole tiles.
pub const MATRIX_STEP: usize = 32;
/// Queries of a tile of matrix units.
pub const MATRIX_QUERIES: usize = 128;

/// What a list holds: the limit of its query and how many pairs it was offered.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Limit {
    /// The key that a pair must be below, in the order of integers.
    pub key: u32,
    /// Its position, which decides among equal keys.
    pub position: u32,
    /// Pairs in the list; [`OVERFLOWED`](Limit::OVERFLOWED) is set when some found no place.
    pub count: u32,
    /// Nothing.
    pub spare: u32,
}

impl Limit {
    /// The bit of `count` that says that the list overflowed.
    pub const OVERFLOWED: u32 = 1 << 31;
    /// An empty list that everything may go to.
    pub const NONE: Limit = Limit { key: u32::MAX, position: u32::MAX, count: 0, spare: 0 };

    /// Whether pairs were lost.
    pub fn overflowed(&self, room: u32) -> bool {
        self.count > room
    }
}

/// Places of a list that keeps `keep` pairs: these, what a level adds, and room for levels that add more than expected.
pub fn room(keep: u32) -> u32 {
    (GROWTH * keep + 1024).next_power_of_two()
}

/// How much longer a level is than all before it together, plus one.
const GROWTH: u32 = 8;

/// Rows of the next level, when `seen` rows went by before it: as many as there is room for, then seven times as many as
/// went by.
pub fn level(seen: usize, room: u32) -> usize {
    if seen == 0 { room as usize } else { seen.saturating_mul(GROWTH as usize - 1) }
}

/// What one launch searches.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// What multiplies.
    pub unit: Unit,
    /// Which distance; codes and f16 have it in their terms.
    pub metric: Metric,
    /// Of what rows are made, for [`Unit::F32`].
    pub dtype: DType,
    /// Components of a row; of a code or of an f16 row, filled up to a multiple of 16 or [`MATRIX_STEP`].
    pub dim: usize,
    /// Rows `row_begin..row_end` of the bound shard.
    pub row_begin: u32,
    /// See `row_begin`.
    pub row_end: u32,
    /// Tiles `tile_begin..tile_end` of those that [`visit`] counts, in the order of their reversed bits.
    pub tile_begin: u32,
    /// See `tile_begin`.
    pub tile_end: u32,
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
    /// Places of a list.
    pub room: u32,
}

/// Rows of a tile for a batch of so many queries.
pub fn tile_rows(unit: Unit, queries: usize) -> usize {
    unit.tile(queries as u32).1 as usize
}

/// From number `begin` on, of `numbers` (a power of two) in the order of reversed bits, of which the first `tiles` stand for
/// a tile each: the number after the last of `most` tiles, and how many there are before it.
pub fn visit(begin: u32, numbers: u32, tiles: u32, most: u32) -> (u32, u32) {
    let bits = numbers.trailing_zeros();
    let tile = |number: u32| number.reverse_bits().checked_shr(32 - bits).unwrap_or(0);
    let (mut end, mut visited) = (begin, 0);
    while end < numbers && (visited < most || tile(end) >= tiles) {
        visited += u32::from(tile(end) < tiles);
        end += 1;
    }
    (end, visited)
}

pub(crate) const LIMITS: Binding = Binding { name: "limits", ty: "array<Limit>", access: Access::ReadWrite };
const ROW_TERMS: Binding = Binding { name: "row_terms", ty: "array<vec4<f32>>", access: Access::Read };
const OUT_KEYS: Binding = Binding { name: "out_keys", ty: "array<u32>", access: Access::ReadWrite };
const OUT_POSITIONS: Binding = Binding { name: "out_positions", ty: "array<u32>", access: Access::ReadWrite };

/// 8 x 8 pairs per thread.
const SHAPES: &[&[(&str, f64)]] = &[
    &[("TX", 16.0), ("TY", 16.0)],
    &[("TX", 32.0), ("TY", 8.0)],
    &[("TX", 32.0), ("TY", 4.0)],
    &[("TX", 32.0), ("TY", 2.0)],
];

static F32: Kernel = Kernel {
    verb: "search",
    entry: "search_f32",
    wgsl: include_str!("../../../shaders/search/f32.wgsl"),
    libs: &[lib::ROWS, lib::ORDER, lib::LIMITS, lib::OFFER, lib::LOAD8],
    pairs: &[],
    bindings: &[
        distance::ROWS,
        distance::QUERIES,
        distance::ROW_NORMS,
        distance::QUERY_NORMS,
        distance::MASK,
        OUT_KEYS,
        OUT_POSITIONS,
        LIMITS,
    ],
    params: Params::FIELDS,
    variants: &[Variant::PLAIN],
    shapes: SHAPES,
    overrides: &[("METRIC", &[0.0, 1.0, 2.0]), ("DTYPE", &[0.0, 1.0, 2.0, 3.0, 4.0])],
};

static CODES: Kernel = Kernel {
    entry: "search_codes",
    wgsl: include_str!("../../../shaders/search/codes.wgsl"),
    libs: &[lib::ORDER, lib::LIMITS, lib::OFFER, lib::LOAD8, lib::BOUND],
    bindings: &[
        distance::ROWS,
        distance::QUERIES,
        ROW_TERMS,
        Binding { name: "longest", ty: "array<f32>", access: Access::Read },
        distance::MASK,
        OUT_KEYS,
        OUT_POSITIONS,
        LIMITS,
    ],
    overrides: &[],
    ..F32
};

static MATRIX_8: Kernel = Kernel {
    entry: "search_matrix_8",
    wgsl: include_str!("../../../shaders/search/matrix_8.wgsl"),
    libs: &[lib::ORDER, lib::LIMITS, lib::OFFER, lib::BOUND],
    bindings: &[
        Binding { name: "rows", ty: "array<vec4<f16>>", access: Access::Read },
        Binding { name: "queries", ty: "array<vec4<f16>>", access: Access::Read },
        ROW_TERMS,
        Binding { name: "query_terms", ty: "array<vec4<f32>>", access: Access::Read },
        distance::MASK,
        OUT_KEYS,
        OUT_POSITIONS,
        LIMITS,
    ],
    shapes: &[&[]],
    overrides: &[],
    ..F32
};

static MATRIX_16: Kernel =
    Kernel { entry: "search_matrix_16", wgsl: include_str!("../../../shaders/search/matrix_16.wgsl"), ..MATRIX_8 };

/// Whether a kernel can only be compiled where there are matrix units: such a text asks for what naga writes for Vulkan and
/// Metal alone, and what a driver must list.
pub fn for_matrix_units(kernel: &Kernel) -> bool {
    kernel.entry.starts_with("search_matrix_")
}

/// The entry points of the files in `shaders/search/`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![&F32, &CODES, &MATRIX_8, &MATRIX_16]
}

/// One launch: the pairs of its rows that are below their query's limit are added to the lists.
/// Buffers for f32: rows, queries, lengths of rows and of queries; for codes: codes, [queries](push_query), (square, scale,
/// residual, tail) of each row, the lengths of [`Codes::longest`](crate::ops::codes::Codes::longest); for matrix units: rows
/// and queries in f16, `dim` numbers each, whole tiles of them, (square, scale, residual, tail) of each row, (offset, scale,
/// length, tail) of each query. Then, for all: mask (read when there is one), keys and positions `[q, room]`, limits.
pub fn record(args: &Args, caps: &DeviceCaps) -> Launch {
    let queries = args.q_end - args.q_begin;
    let (row_stride, query_stride) = match args.unit {
        Unit::F32 => (tile::row_stride(args.dtype, args.dim), tile::query_stride(args.dtype, args.dim)),
        Unit::Codes => ((args.dim / 16) as u32, (args.dim / 16) as u32 + TERMS),
        Unit::Matrix(_) => (args.dim as u32, args.dim as u32),
    };
    let (tile_queries, tile_rows) = args.unit.tile(queries);
    let all = (args.row_end - args.row_begin).div_ceil(tile_rows).next_power_of_two();
    let params = Params {
        row_begin: args.row_begin,
        row_end: args.row_end,
        q_begin: args.q_begin,
        q_end: args.q_end,
        row_stride,
        query_stride,
        has_mask: args.mask.is_some().into(),
        mask_stride: args.mask.unwrap_or(0),
        mask_row_base: args.mask_row_base,
        position_base: args.position_base,
        room: args.room,
        tile_begin: args.tile_begin,
        tile_end: args.tile_end,
        tile_bits: all.trailing_zeros(),
        slack: super::slack(args.dim),
    };
    let mut constants = Vec::new();
    if let Some(shape) = args.unit.threads(queries) {
        constants.extend([("TX", f64::from(shape.tx)), ("TY", f64::from(shape.ty))]);
    }
    if args.unit == Unit::F32 {
        let [metric, dtype] = [metric_code(args.metric), dtype_code(args.dtype)];
        constants.extend([("METRIC", f64::from(metric)), ("DTYPE", f64::from(dtype))]);
    }
    let beside = queries.div_ceil(tile_queries);
    let x = beside.clamp(1, caps.max_groups);
    let walkers = caps.tuning.groups.div_ceil(beside.max(1)).min(args.tile_end - args.tile_begin).min(caps.max_groups);
    Launch {
        kernel: args.unit.description(),
        variant: Variant::PLAIN,
        constants,
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: [x.min(beside), walkers, beside.div_ceil(x)],
    }
}

/// Units of 16 bytes that a query's terms take behind its code.
const TERMS: u32 = 2;

/// Bytes of a query with its terms.
pub fn query_bytes(dim: usize) -> usize {
    dim + TERMS as usize * 16
}

/// A query's code and terms as the kernel reads them.
pub fn push_query(out: &mut Vec<u8>, code: &[i8], terms: &QueryTerms) {
    out.extend_from_slice(bytemuck::cast_slice(code));
    let QueryTerms { offset, scale, length, tail, error } = *terms;
    out.extend_from_slice(bytemuck::bytes_of(&[offset, scale, length, tail, error, 0.0, 0.0, 0.0]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_add_no_more_pairs_than_lists_have_room_for() {
        for keep in [1, 18, 128, 218, 2000] {
            let room = room(keep);
            assert!(room >= GROWTH * keep && level(0, room) == room as usize);
            // Of rows in any order, a level of seven times the rows before adds seven times what is kept, on average.
            assert!(u64::from(keep) * 8 + 1024 <= u64::from(room));
            assert_eq!(level(1000, room), 7000);
        }
    }

    #[test]
    fn every_tile_is_visited_once_and_early_ones_lie_far_apart() {
        for tiles in [1u32, 2, 3, 5, 8, 100, 1000] {
            let numbers = tiles.next_power_of_two();
            let (mut begin, mut all) = (0, 0);
            for most in [1, 2, 13].into_iter().cycle() {
                let (end, visited) = visit(begin, numbers, tiles, most);
                assert!(visited <= most && (visited == most || end == numbers), "{tiles}: {visited} of {most}");
                (begin, all) = (end, all + visited);
                if begin == numbers {
                    break;
                }
            }
            assert_eq!(all, tiles);
        }
        assert_eq!(visit(0, 128, 100, 16), (20, 16));
    }
}
