//! What the kernels that compare many queries with many rows share: how a workgroup is cut into tiles, and the
//! numbers that `shaders/lib/` reads.
//!
//! A workgroup of `TX * TY` threads holds the keys of `4 TY` queries and `4 TX` rows in registers, 4 x 4 a thread, and
//! walks tile by tile through its share of the rows. The grid is x, z: groups of queries; y: walkers over the rows.

use super::DeviceCaps;
use crate::types::{DType, Metric};

/// Threads of a workgroup: along the rows (`TX`) and along the queries (`TY`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub tx: u32,
    pub ty: u32,
}

impl Shape {
    /// Many queries: 64 x 64 pairs.
    pub const BATCH: Shape = Shape { tx: 16, ty: 16 };
    /// Up to four queries: 4 x 256 pairs, so that reading the rows is all that is left.
    pub const FEW: Shape = Shape { tx: 64, ty: 1 };

    pub fn of(queries: u32) -> Shape {
        if queries <= 4 { Shape::FEW } else { Shape::BATCH }
    }

    /// Rows of a tile.
    pub fn rows(self) -> u32 {
        self.tx * 4
    }

    /// Queries of a tile.
    pub fn queries(self) -> u32 {
        self.ty * 4
    }

    /// Groups in x, y and z for `queries` and `walkers` over the rows.
    pub fn groups(self, queries: u32, walkers: u32, caps: &DeviceCaps) -> [u32; 3] {
        let groups = queries.div_ceil(self.queries());
        let x = groups.min(caps.max_groups);
        [x, walkers, groups.div_ceil(x.max(1))]
    }

    /// How many workgroups walk over the rows side by side: enough for `wanted` groups in all, each with at least
    /// `least` tiles to do while there are as many.
    pub fn walkers(self, rows: u32, queries: u32, wanted: u32, least: u32, caps: &DeviceCaps) -> u32 {
        let tiles = rows.div_ceil(self.rows());
        let beside = queries.div_ceil(self.queries()).max(1);
        wanted.div_ceil(beside).min(tiles.div_ceil(least)).min(caps.max_groups).max(tiles.min(1))
    }
}

/// A row's length in units of 16 bytes: the stride of rows on a device, the tail filled with zeros.
pub fn row_stride(dtype: DType, dim: usize) -> u32 {
    dtype.row_bytes(dim).div_ceil(16) as u32
}

/// The same for queries, which are f32, or bits over a base of bits.
pub fn query_stride(dtype: DType, dim: usize) -> u32 {
    row_stride(if dtype == DType::Bits { DType::Bits } else { DType::F32 }, dim)
}

/// The exponent of `lp:P` in two parts; the first has so few bits that its product with any binary exponent is exact.
pub(super) fn power(metric: Metric) -> (f32, f32) {
    match metric {
        Metric::Lp(p) => {
            let high = f32::from_bits(p.to_bits() & 0xffff_f000);
            (high, p - high)
        }
        _ => (0.0, 0.0),
    }
}
