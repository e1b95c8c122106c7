//! The search behind a screen of low precision: lower bounds of the direct keys from 8-bit codes, or from f16 on matrix
//! units, and the smallest of them, in one pass.
//!
//! Shapes: codes of rows `[n, dim]` (bytes or f16) with four numbers a row, codes of queries `[q, dim]` with their terms,
//! out `[q, parts, places]` pairs (key f32, position u32). Each part of the rows keeps its `places` smallest bounds as a
//! heap, the largest first, and says which bound the smallest row that it left out can have. A launch over further rows
//! goes on with the heaps of the one before, so the number of parts never grows with the number of launches.
//! A key is [`codes::lower_bound`](crate::kernels::codes::lower_bound), in f32 and in any order.

use crate::kernels::codes::QueryTerms;
use crate::kernels::source::lib;
use crate::kernels::tile::Shape;
use crate::kernels::{Access, Binding, DeviceCaps, Kernel, Launch, Variant, distance};

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
        /// Units of 16 bytes of an 8-bit code; numbers of an f16 row.
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
        /// Places of a part.
        keep: u32,
        /// Parts of a query.
        parts_total: u32,
        /// 1 when the lists hold what an earlier launch found.
        resume: u32,
    }
}

/// What multiplies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Packed products of 8-bit codes.
    Codes,
    /// Matrix units of f16 with sums in f32, square with this side: 8 or 16.
    Matrix(u32),
}

impl Unit {
    /// The entry point, by which its self-test and its variant are known.
    pub fn kernel(self) -> &'static str {
        match self {
            Unit::Codes => CODES.entry,
            Unit::Matrix(16) => MATRIX_16.entry,
            Unit::Matrix(_) => MATRIX_8.entry,
        }
    }
}

/// Bytes of workgroup memory that the kernel for matrix units of a side takes at most.
pub const fn matrix_memory(side: u32) -> u32 {
    if side == 16 { 44 << 10 } else { 28 << 10 }
}
/// Components of f16 rows are filled up to a multiple of this, and rows and queries to whole tiles.
pub const MATRIX_STEP: usize = 16;
/// Queries of a tile of matrix units.
pub const MATRIX_QUERIES: usize = 32;

/// How the rows are shared out and what is kept of each share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    unit: Unit,
    shape: Shape,
    /// Workgroups that share the rows.
    pub parts: u32,
    /// Places of each.
    pub places: u32,
}

impl Tiling {
    /// For `keep` candidates a query among `rows` rows: so many parts that the candidates of most queries spread over
    /// them with room to spare. Which kernel runs depends on `unit`, `queries` and `keep` only.
    pub fn of(unit: Unit, queries: u32, rows: u32, keep: u32, caps: &DeviceCaps) -> Tiling {
        let places = match (unit, keep) {
            (Unit::Matrix(_), _) | (_, 0..=128) => 32,
            (_, 129..=256) => 64,
            _ => 128,
        };
        let shape = match (queries, places) {
            _ if unit != Unit::Codes => Shape { tx: 32, ty: 8, td: 0 },
            (0..=4, _) => Shape::FEW,
            (5..=8, _) | (_, 128) => Shape { tx: 32, ty: 2, td: 8 },
            (9..=16, _) | (_, 64) => Shape { tx: 32, ty: 4, td: 8 },
            _ => Shape { tx: 32, ty: 8, td: 8 },
        };
        let tiling = Tiling { unit, shape, parts: shape.walkers(rows, queries, 2048, 8, caps), places };
        let most = rows.div_ceil(tiling.rows()).min(caps.max_groups);
        Tiling { parts: tiling.parts.max((4 * keep).div_ceil(places)).min(most), ..tiling }
    }

    /// Rows of a tile.
    fn rows(&self) -> u32 {
        if self.unit == Unit::Matrix(16) { 2 * self.shape.rows() } else { self.shape.rows() }
    }
}

/// What one launch searches.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Components of a code or of an f16 row, a multiple of 16.
    pub dim: usize,
    /// Rows `row_begin..row_end` of the bound shard; the first is a multiple of 256, so the front of a tile.
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
    /// The same for all launches that share lists.
    pub tiling: Tiling,
    /// Whether the lists hold what an earlier launch found.
    pub resume: bool,
}

const ROW_TERMS: Binding = Binding { name: "row_terms", ty: "array<vec4<f32>>", access: Access::Read };
const OUT_KEYS: Binding = Binding { name: "out_keys", ty: "array<u32>", access: Access::ReadWrite };
const OUT_POSITIONS: Binding = Binding { name: "out_positions", ty: "array<u32>", access: Access::ReadWrite };
const OUT_BOUNDS: Binding = Binding { name: "out_bounds", ty: "array<u32>", access: Access::ReadWrite };

static CODES: Kernel = Kernel {
    verb: "search",
    entry: "search_codes",
    wgsl: include_str!("../../../shaders/search/codes.wgsl"),
    libs: &[lib::ORDER, lib::LOAD, lib::TILE_CODES, lib::HEAP, lib::BOUND],
    pairs: &[lib::CLAIM],
    bindings: &[
        distance::ROWS,
        distance::QUERIES,
        ROW_TERMS,
        Binding { name: "longest", ty: "array<f32>", access: Access::Read },
        distance::MASK,
        OUT_KEYS,
        OUT_POSITIONS,
        OUT_BOUNDS,
    ],
    params: Params::FIELDS,
    variants: &[Variant::PLAIN, Variant::SUBGROUPS],
    shapes: &[
        &[("TX", 32.0), ("TY", 8.0), ("TD", 8.0), ("K", 32.0)],
        &[("TX", 32.0), ("TY", 4.0), ("TD", 8.0), ("K", 64.0)],
        &[("TX", 32.0), ("TY", 2.0), ("TD", 8.0), ("K", 128.0)],
        &[("TX", 64.0), ("TY", 1.0), ("TD", 8.0), ("K", 128.0)],
    ],
    overrides: &[],
};

const MATRIX_BINDINGS: [Binding; 8] = [
    Binding { name: "rows", ty: "array<f16>", access: Access::Read },
    Binding { name: "queries", ty: "array<f16>", access: Access::Read },
    ROW_TERMS,
    Binding { name: "query_terms", ty: "array<vec4<f32>>", access: Access::Read },
    distance::MASK,
    OUT_KEYS,
    OUT_POSITIONS,
    OUT_BOUNDS,
];
const MATRIX_SHAPES: &[&[(&str, f64)]] = &[&[("TX", 32.0), ("TY", 8.0), ("K", 32.0)]];

static MATRIX_8: Kernel = Kernel {
    verb: "search",
    entry: "search_matrix_8",
    wgsl: include_str!("../../../shaders/search/matrix_8.wgsl"),
    libs: &[lib::ORDER, lib::TILE_MATRIX, lib::HEAP, lib::BOUND],
    pairs: &[lib::CLAIM],
    bindings: &MATRIX_BINDINGS,
    params: Params::FIELDS,
    variants: &[Variant::PLAIN, Variant::SUBGROUPS],
    shapes: MATRIX_SHAPES,
    overrides: &[],
};

static MATRIX_16: Kernel = Kernel {
    verb: "search",
    entry: "search_matrix_16",
    wgsl: include_str!("../../../shaders/search/matrix_16.wgsl"),
    libs: &[lib::ORDER, lib::TILE_MATRIX, lib::HEAP, lib::BOUND],
    pairs: &[lib::CLAIM],
    bindings: &MATRIX_BINDINGS,
    params: Params::FIELDS,
    variants: &[Variant::PLAIN, Variant::SUBGROUPS],
    shapes: MATRIX_SHAPES,
    overrides: &[],
};

/// Whether a kernel can only be compiled where there are matrix units: such a text asks for what naga writes for Vulkan and
/// Metal alone, and what a driver must list.
pub fn for_matrix_units(kernel: &Kernel) -> bool {
    kernel.libs.contains(&lib::TILE_MATRIX)
}

/// The entry points of the files in `shaders/search/`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![&CODES, &MATRIX_8, &MATRIX_16]
}

/// One launch: workgroup `w` of the parts that share rows `row_begin..row_end` writes its `places` smallest bounds, as a
/// heap, at `(q * parts + w) * places` of keys and positions, q counted from the first bound query, and what it
/// [left out](bound_of) at `q * parts + w` of bounds.
/// Buffers for codes: codes, [queries](push_query), (square, scale, residual, tail) of each row, the lengths of
/// [`Codes::longest`](crate::kernels::codes::Codes::longest), mask (read when there is one), keys, positions, bounds.
/// For matrix units: rows and queries in f16, `dim` numbers each, whole tiles of them; (square, scale, residual, tail) of
/// each row; (offset, scale, length, tail) of each query; mask, keys, positions, bounds.
pub fn record(args: &Args, caps: &DeviceCaps) -> Launch {
    let Tiling { unit, shape, parts, places } = args.tiling;
    let (row_stride, query_stride) = match unit {
        Unit::Codes => ((args.dim / 16) as u32, (args.dim / 16) as u32 + TERMS),
        Unit::Matrix(_) => (args.dim as u32, args.dim as u32),
    };
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
        keep: places,
        parts_total: parts,
        resume: args.resume.into(),
    };
    let most = match shape.queries() {
        32 => 32,
        16 => 64,
        _ => 128,
    };
    let mut constants = vec![("TX", shape.tx.into()), ("TY", shape.ty.into()), ("K", most.into())];
    let kernel = match unit {
        Unit::Codes => {
            constants.push(("TD", shape.td.into()));
            &CODES
        }
        Unit::Matrix(16) => &MATRIX_16,
        Unit::Matrix(_) => &MATRIX_8,
    };
    Launch {
        kernel,
        variant: Variant { subgroups: caps.subgroups },
        constants,
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: shape.groups(args.q_end - args.q_begin, parts, caps),
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

/// What a word of the kernel's bounds says, the complement of a key that orders as integers do: a number that no row left
/// out can fall below.
pub fn bound_of(word: u32) -> f32 {
    match !word {
        u32::MAX => f32::INFINITY,
        // NaN: what it stands for is not known.
        key if key > 0xff80_0000 => f32::NEG_INFINITY,
        key if key >> 31 == 1 => f32::from_bits(key & 0x7fff_ffff),
        key => f32::from_bits(!key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: DeviceCaps = DeviceCaps {
        subgroups: false,
        max_invocations: 256,
        workgroup_memory: 16 << 10,
        max_groups: 65_535,
        tuning: crate::kernels::tuning::KernelTuning::DEFAULT,
    };

    #[test]
    fn there_is_room_for_the_candidates_wherever_there_are_rows() {
        for queries in [1, 4, 5, 9, 17, 1000, 100_000] {
            for rows in [1, 31, 1000, 100_000, 10_000_000] {
                for (keep, unit) in [1, 128, 129, 256, 257, 2000]
                    .map(|keep| (keep, Unit::Codes))
                    .into_iter()
                    .chain([(128, Unit::Matrix(8)), (2000, Unit::Matrix(16))])
                {
                    let tiling = Tiling::of(unit, queries, rows, keep, &CAPS);
                    let room = tiling.parts * tiling.places;
                    let tiles = rows.div_ceil(tiling.rows());
                    assert!(room >= 4 * keep || tiling.parts == tiles, "{queries} {rows} {keep}: {tiling:?}");
                    assert!(tiling.parts >= 1 && tiling.parts <= CAPS.max_groups);
                }
            }
        }
    }

    #[test]
    fn bounds_come_back_from_their_complements() {
        let sortable = |x: f32| match x.to_bits() {
            bits if bits >> 31 == 1 => !bits,
            bits => bits | 0x8000_0000,
        };
        for bound in [-3.5f32, -1e-30, 0.0, 1e-30, 7.0, 3e38] {
            assert_eq!(bound_of(!sortable(bound)), bound);
        }
        assert_eq!(bound_of(0), f32::INFINITY, "nothing was left out");
        assert_eq!(bound_of(!sortable(f32::NAN)), f32::NEG_INFINITY);
    }
}
