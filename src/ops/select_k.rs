//! `select_k`: the k smallest of each segment, by (key, position).
//!
//! Shapes: keys `[q, n]` f32 and optional positions `[q, n]` u32 (else a key's place in its row), out `[q, k]` pairs,
//! smallest (key, position) first; +inf and `u32::MAX` where there are fewer. NaN sorts last. Exact: no arithmetic.
//! The same verb merges partial results: their keys and positions lie side by side as one segment.
//! Method: radix select on sortable keys, eight bits per pass (Alabi et al. 2012, "Fast k-selection algorithms").

use std::fmt;

use super::source::lib;
use super::{Access, Binding, Cost, Define, DeviceCaps, Kernel, Launch, Program, Variant, mismatch};
use crate::compute::{EngineError, Type, Value};

/// The `k` smallest by (key, position) of the candidates of each query, or of each row of a matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct SelectK {
    /// Candidates with keys, or a matrix.
    pub from: Value,
    /// How many to keep.
    pub k: usize,
}

impl SelectK {
    /// Queries, and from how many places of each is selected.
    fn shape(&self, program: &Program) -> Result<(usize, usize), EngineError> {
        match *program.ty(self.from)? {
            Type::Candidates { queries, width } => Ok((queries, width)),
            Type::Matrix { rows, width } if width < u32::MAX as usize => Ok((rows, width)),
            ref other => Err(mismatch(format!("nothing can be selected from {other}"))),
        }
    }
}

impl fmt::Display for SelectK {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "select_k({})", self.k)
    }
}

impl Define for SelectK {
    const NAME: &'static str = "select_k";

    fn operands(&self, each: &mut dyn FnMut(Value)) {
        each(self.from);
    }

    fn check(&self, program: &Program) -> Result<Type, EngineError> {
        Ok(Type::Candidates { queries: self.shape(program)?.0, width: self.k })
    }

    fn cost(&self, program: &Program) -> Cost {
        self.shape(program).map(|(queries, width)| cost(queries, width, self.k)).unwrap_or_default()
    }
}

crate::params! {
    /// What `shaders/select_k.wgsl` reads.
    Params {
        /// Segments.
        segments: u32,
        /// Keys per segment.
        width: u32,
        /// Keys from segment to segment.
        in_stride: u32,
        /// Places from segment to segment in the result.
        out_stride: u32,
        /// Places of a part.
        k: u32,
        /// Keys of a part of a segment.
        part_width: u32,
        /// Parts of a segment.
        parts: u32,
        /// 1 when positions are given; else the place of a key in its segment counts.
        has_positions: u32,
        /// What is added to the place of a key when no positions are given.
        position_base: u32,
        /// 1 when a key with the bits of `MISSING_KEY` stands for nothing.
        nan_is_missing: u32,
        /// 1 when segments are lists, 2 when they are full and only their limits are wanted.
        lists: u32,
    }
}

/// What one launch selects.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Segments.
    pub segments: u32,
    /// Keys per segment.
    pub width: u32,
    /// Keys from segment to segment.
    pub in_stride: u32,
    /// Places from segment to segment in the result: at least `k` for each part of a segment.
    pub out_stride: u32,
    /// How many to keep of each part of a segment.
    pub k: u32,
    /// Keys of a part: `width`, or less to let several workgroups share a segment, see [`part_width`].
    pub part_width: u32,
    /// Whether positions are given; if not, a key's position is its place in its segment plus `position_base`.
    pub has_positions: bool,
    /// See `has_positions`.
    pub position_base: u32,
    /// Whether a key with the bits of [`MISSING_KEY`](super::source::MISSING_KEY) stands for nothing and is not returned.
    pub nan_is_missing: bool,
    /// What the limits of segments are for. But for [`Limits::None`] a segment has one part.
    pub limits: Limits,
}

/// What `select_k` does with the [`Limit`](super::search::screened::Limit) of each segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limits {
    /// Nothing.
    None,
    /// Reads how many places of a list are filled, `width` being its room, and begins it anew with what was selected.
    OfLists,
    /// Writes the limit of what was selected from a full segment.
    Wanted,
}

impl Args {
    /// Parts of a segment: each writes `k` places.
    pub fn parts(&self) -> u32 {
        self.width.div_ceil(self.part_width.max(1))
    }
}

/// A good [`Args::part_width`]: parts so that workgroups are at least a few hundred, when a part is much wider than k. A
/// second launch then selects among the `parts * k` that are left.
pub fn part_width(segments: u32, width: u32, k: u32) -> u32 {
    let wanted = 512_u32.div_ceil(segments.max(1));
    width.div_ceil(wanted).max(k.saturating_mul(8)).max(4096).min(width.max(1))
}

static SELECT_K: Kernel = Kernel {
    verb: "select_k",
    entry: "select_k",
    wgsl: include_str!("../../shaders/select_k.wgsl"),
    libs: &[lib::ORDER, lib::LIMITS],
    pairs: &[lib::CLAIM, lib::TALLY],
    bindings: &[
        Binding { name: "keys", ty: "array<u32>", access: Access::Read },
        Binding { name: "positions", ty: "array<u32>", access: Access::Read },
        Binding { name: "out_keys", ty: "array<u32>", access: Access::ReadWrite },
        Binding { name: "out_positions", ty: "array<u32>", access: Access::ReadWrite },
        super::search::screened::LIMITS,
    ],
    params: Params::FIELDS,
    variants: &[Variant::PLAIN, Variant::SUBGROUPS],
    shapes: &[&[]],
    overrides: &[],
};

/// The entry points of `shaders/select_k.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![&SELECT_K]
}

/// One launch: the k smallest of part i of segment s, in no order, at `s * out_stride + i * k` of both results; keys +inf
/// and positions `u32::MAX` where there are fewer. A given position of `u32::MAX` stands for nothing. NaN sorts last.
/// Buffers: keys as bits of f32, positions (read when they are given), keys, positions, limits (of lists).
pub fn record(args: &Args, caps: &DeviceCaps) -> Launch {
    let params = Params {
        segments: args.segments,
        width: args.width,
        in_stride: args.in_stride,
        out_stride: args.out_stride,
        k: args.k,
        part_width: args.part_width.max(1),
        parts: args.parts(),
        has_positions: args.has_positions.into(),
        position_base: args.position_base,
        nan_is_missing: args.nan_is_missing.into(),
        lists: args.limits as u32,
    };
    Launch {
        kernel: &SELECT_K,
        variant: Variant { subgroups: caps.subgroups },
        constants: Vec::new(),
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: [args.parts().min(caps.max_groups), args.segments.min(caps.max_groups), 1],
    }
}

/// Four passes over the keys at most; two are counted, as the first digits decide almost everything.
pub fn cost(queries: usize, width: usize, k: usize) -> Cost {
    let pairs = queries as f64 * width as f64;
    Cost {
        bytes_read: 2.0 * pairs * 4.0,
        bytes_written: queries as f64 * k as f64 * 8.0,
        operations: 2.0 * pairs * 4.0,
        launches: 1.0,
    }
}

/// (key, position) of the k smallest of one segment. `positions` absent: a key's own place.
pub fn reference(keys: &[f32], positions: Option<&[u32]>, k: usize) -> Vec<(f32, u32)> {
    let mut pairs: Vec<(f32, u32)> =
        keys.iter().enumerate().map(|(i, &key)| (key, positions.map_or(i as u32, |p| p[i]))).collect();
    pairs.sort_by(|a, b| a.0.is_nan().cmp(&b.0.is_nan()).then(a.0.total_cmp(&b.0)).then(a.1.cmp(&b.1)));
    pairs.truncate(k);
    pairs
}
