//! The common part of kernels that compare many queries with many rows: how a workgroup is cut into tiles, and the
//! numbers that `shaders/lib/` reads.
//!
//! A workgroup of `TX * TY` threads holds the keys of `4 TY` queries and `4 TX` rows in registers, 4 x 4 per thread, and
//! walks tile by tile through its share of the rows. The grid is x, z: groups of queries; y: walkers over the rows.

use super::DeviceCaps;
use crate::types::{DType, Metric};

/// Threads of a workgroup: along the rows (`TX`) and along the queries (`TY`); components that it holds at a time (`TD`,
/// which changes no sum).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub tx: u32,
    pub ty: u32,
    pub td: u32,
}

impl Shape {
    /// Many queries: 64 x 64 pairs.
    pub const BATCH: Shape = Shape { tx: 16, ty: 16, td: 16 };
    /// Up to four queries: 4 x 256 pairs, so that reading the rows is all that is left.
    pub const FEW: Shape = Shape { tx: 64, ty: 1, td: 8 };

    /// Some queries: 32 x 128 pairs.
    pub const SOME: Shape = Shape { tx: 32, ty: 8, td: 16 };

    /// The shape of a row of a kernel's table.
    pub fn listed(row: &[(&str, f64)]) -> Option<Shape> {
        let value = |name: &str| row.iter().find(|(n, _)| *n == name).map(|(_, v)| *v as u32);
        Some(Shape { tx: value("TX")?, ty: value("TY")?, td: value("TD")? })
    }

    pub fn of(queries: u32) -> Shape {
        match queries {
            0..=4 => Shape::FEW,
            5..=32 => Shape::SOME,
            _ => Shape::BATCH,
        }
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

/// What one launch over tiles compares.
#[derive(Clone, Copy, Debug)]
pub struct TileArgs {
    /// Which distance.
    pub metric: Metric,
    /// Of what the rows are made.
    pub dtype: DType,
    /// Components per row.
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
}

/// Defines the `Params` of a kernel over tiles: what all of them read, and its own fields behind it.
#[macro_export]
#[doc(hidden)]
macro_rules! tile_params {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ident),* $(,)? }) => {
        $crate::params! {
            $(#[$doc])*
            $name {
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
                /// High part of P in `lp:P`.
                power: f32,
                /// Low part of P.
                power_low: f32,
                $($(#[$fdoc])* $field: $ty),*
            }
        }

        impl $name {
            /// What all kernels over tiles read; the rest is zero.
            fn of(args: &$crate::ops::tile::TileArgs) -> $name {
                use $crate::ops::tile;
                let (power, power_low) = tile::power(args.metric);
                $name {
                    row_begin: args.row_begin,
                    row_end: args.row_end,
                    q_begin: args.q_begin,
                    q_end: args.q_end,
                    row_stride: tile::row_stride(args.dtype, args.dim),
                    query_stride: tile::query_stride(args.dtype, args.dim),
                    has_mask: args.mask.is_some().into(),
                    mask_stride: args.mask.unwrap_or(0),
                    mask_row_base: args.mask_row_base,
                    position_base: args.position_base,
                    power,
                    power_low,
                    ..$name::default()
                }
            }
        }
    };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::tuning::KernelTuning;

    const CAPS: DeviceCaps = DeviceCaps {
        subgroups: false,
        max_invocations: 256,
        workgroup_memory: 16 << 10,
        max_groups: 65_535,
        tuning: KernelTuning::DEFAULT,
    };

    #[test]
    fn powers_split_without_loss() {
        for p in [0.3_f32, 0.5, 1.0, 2.5, 3.3, 17.123_456, 1e-3] {
            let (high, low) = power(Metric::Lp(p));
            assert_eq!(high + low, p);
            for exponent in -149..=128 {
                let product = f64::from(high) * f64::from(exponent);
                assert_eq!(f64::from(high * exponent as f32), product, "{p} times {exponent}");
            }
        }
        assert_eq!(power(Metric::Lp(4.0)), (4.0, 0.0));
    }

    #[test]
    fn strides_are_whole_units() {
        assert_eq!([1, 4, 5].map(|dim| row_stride(DType::F32, dim)), [1, 1, 2]);
        assert_eq!([8, 9].map(|dim| row_stride(DType::F16, dim)), [1, 2]);
        assert_eq!([16, 17].map(|dim| row_stride(DType::U8, dim)), [1, 2]);
        assert_eq!([128, 136].map(|dim| row_stride(DType::Bits, dim)), [1, 2]);
        assert_eq!((query_stride(DType::U8, 17), query_stride(DType::Bits, 136)), (5, 2));
    }

    #[test]
    fn groups_cover_everything_within_limits() {
        for queries in [1, 4, 5, 32, 33, 1000, 5_000_000] {
            for rows in [0, 1, 63, 64, 65, 100_000_000] {
                let shape = Shape::of(queries);
                let walkers = shape.walkers(rows, queries, 2048, 8, &CAPS);
                assert_eq!(walkers == 0, rows == 0);
                let [x, y, z] = shape.groups(queries, walkers, &CAPS);
                assert!(x <= CAPS.max_groups && y <= CAPS.max_groups && z <= CAPS.max_groups);
                assert!(u64::from(x) * u64::from(z) * u64::from(shape.queries()) >= u64::from(queries));
                assert!(shape.tx * shape.ty <= CAPS.max_invocations);
            }
        }
        assert_eq!(Shape::BATCH.groups(0, 1, &CAPS)[0], 0);
    }
}
