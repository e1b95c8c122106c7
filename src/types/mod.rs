//! The words everything else is written in: metrics, element types, views of matrices, filters and answers.

mod answers;
mod input;
mod rows;

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};

pub use answers::{Bitmap, Filter, NO_ID, Neighbors, RangeHits};
pub use input::{AnyRows, IntoRows};
pub use rows::{BitsView, MatrixView, RowsView, ShapeError};

/// How far apart two vectors are.
///
/// Definitions (0/0 counts as 0 everywhere). Similarities are returned as such, largest first; all
/// others are distances, smallest first.
///
/// | name | definition |
/// |---|---|
/// | `l2` | sum (a-b)^2, squared on purpose: the order is the same |
/// | `ip` | sum ab, a similarity |
/// | `cosine` | sum ab / (\|a\|\|b\|), a similarity; 0 with a zero vector |
/// | `l1` | sum \|a-b\| |
/// | `linf` | max \|a-b\| |
/// | `lp:P` | sum \|a-b\|^P, without the root; P > 0 |
/// | `canberra` | sum \|a-b\| / (\|a\|+\|b\|) |
/// | `bray-curtis` | sum \|a-b\| / sum \|a+b\| |
/// | `jensen-shannon` | (KL(a\|\|m) + KL(b\|\|m)) / 2, m = (a+b)/2, natural logarithm; rows non-negative, taken as they are |
/// | `jaccard` | sum \|a-b\| / sum max, which is 1 - sum min / sum max, rows non-negative; on packed bits \|xor\| / \|or\| |
/// | `hamming` | differing bits of packed rows |
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Metric {
    /// Squared Euclidean distance.
    L2,
    /// Inner product (a similarity).
    InnerProduct,
    /// Cosine of the angle (a similarity).
    Cosine,
    /// Manhattan distance.
    L1,
    /// Chebyshev distance.
    Linf,
    /// Minkowski distance to the power P, without the root.
    Lp(f32),
    /// Canberra distance.
    Canberra,
    /// Bray-Curtis dissimilarity.
    BrayCurtis,
    /// Jensen-Shannon divergence (natural logarithm, no root).
    JensenShannon,
    /// Weighted Jaccard distance; on packed bits the set form.
    Jaccard,
    /// Differing bits of packed rows.
    Hamming,
}

impl Metric {
    /// The names that [`Metric::from_str`] takes, in the order of the documentation.
    pub const NAMES: [&'static str; 11] =
        ["l2", "ip", "cosine", "l1", "linf", "lp:P", "canberra", "bray-curtis", "jensen-shannon", "jaccard", "hamming"];

    /// Whether answers are similarities (largest first) rather than distances (smallest first).
    pub fn is_similarity(self) -> bool {
        matches!(self, Metric::InnerProduct | Metric::Cosine)
    }

    /// Whether vectors must have no negative component.
    pub fn needs_non_negative(self) -> bool {
        matches!(self, Metric::JensenShannon | Metric::Jaccard)
    }

    /// Whether the metric is defined on rows of this element type.
    pub fn supports(self, dtype: DType) -> bool {
        match self {
            Metric::Hamming => dtype == DType::Bits,
            Metric::Jaccard => true,
            _ => dtype != DType::Bits,
        }
    }

    /// From the internal key, of which smaller is closer, to the value users see; its own inverse.
    #[inline]
    pub fn external(self, key: f32) -> f32 {
        // 0.0 - key, so that a similarity of zero is not printed as -0.
        if self.is_similarity() { 0.0 - key } else { key }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Metric::L2 => "l2",
            Metric::InnerProduct => "ip",
            Metric::Cosine => "cosine",
            Metric::L1 => "l1",
            Metric::Linf => "linf",
            Metric::Lp(p) => return write!(f, "lp:{p}"),
            Metric::Canberra => "canberra",
            Metric::BrayCurtis => "bray-curtis",
            Metric::JensenShannon => "jensen-shannon",
            Metric::Jaccard => "jaccard",
            Metric::Hamming => "hamming",
        })
    }
}

/// What [`Metric::from_str`] says of a name it does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown metric `{found}`; there are {}", Metric::NAMES.join(", "))]
pub struct UnknownMetric {
    /// The name that was given.
    pub found: String,
}

impl FromStr for Metric {
    type Err = UnknownMetric;

    fn from_str(name: &str) -> Result<Metric, UnknownMetric> {
        Ok(match name {
            "l2" => Metric::L2,
            "ip" => Metric::InnerProduct,
            "cosine" => Metric::Cosine,
            "l1" => Metric::L1,
            "linf" => Metric::Linf,
            "canberra" => Metric::Canberra,
            "bray-curtis" => Metric::BrayCurtis,
            "jensen-shannon" => Metric::JensenShannon,
            "jaccard" => Metric::Jaccard,
            "hamming" => Metric::Hamming,
            _ => match name.strip_prefix("lp:").map(f32::from_str) {
                Some(Ok(p)) if p > 0.0 && p.is_finite() => Metric::Lp(p),
                _ => return Err(UnknownMetric { found: name.to_owned() }),
            },
        })
    }
}

/// The element type of stored rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an f32.
    Bf16,
    /// Signed bytes.
    I8,
    /// Unsigned bytes.
    U8,
    /// Packed bits, eight per byte, the first in the lowest bit; `dim` counts bits ([`BitsView`]).
    Bits,
    /// 64-bit float. Devices search its f32 rounding; what that leaves open is decided on the rows as they are.
    F64,
    /// 32-bit integers, searched as [`DType::F64`] is.
    I32,
    /// 64-bit integers of at most 2^53 in size, searched as [`DType::F64`] is.
    I64,
}

impl DType {
    /// All of them, for tables and tests.
    pub const ALL: [DType; 9] =
        [DType::F32, DType::F16, DType::Bf16, DType::I8, DType::U8, DType::Bits, DType::F64, DType::I32, DType::I64];

    /// Whether f32 does not hold every value: engines are given the rows rounded.
    pub fn is_wide(self) -> bool {
        matches!(self, DType::F64 | DType::I32 | DType::I64)
    }

    /// Bytes of `dim` densely stored components.
    pub fn row_bytes(self, dim: usize) -> usize {
        match self {
            DType::F64 | DType::I64 => dim * 8,
            DType::F32 | DType::I32 => dim * 4,
            DType::F16 | DType::Bf16 => dim * 2,
            DType::I8 | DType::U8 => dim,
            DType::Bits => dim.div_ceil(8),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::Bf16 => "bf16",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::Bits => "bits",
            DType::F64 => "f64",
            DType::I32 => "i32",
            DType::I64 => "i64",
        })
    }
}

/// What [`DType::from_str`] says of a name it does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown element type `{found}`; there are f32, f16, bf16, i8, u8, bits, f64, i32, i64")]
pub struct UnknownDType {
    /// The name that was given.
    pub found: String,
}

impl FromStr for DType {
    type Err = UnknownDType;

    fn from_str(name: &str) -> Result<DType, UnknownDType> {
        let found = DType::ALL.into_iter().find(|dtype| dtype.to_string() == name);
        found.ok_or_else(|| UnknownDType { found: name.to_owned() })
    }
}

/// A type that rows can be made of.
pub trait Element: bytemuck::Pod + Send + Sync + 'static {
    /// Its name at run time.
    const DTYPE: DType;
}
macro_rules! elements {
    ($($t:ty => $dtype:ident),*) => {$(
        impl Element for $t {
            const DTYPE: DType = DType::$dtype;
        }
    )*};
}
elements!(f32 => F32, f16 => F16, bf16 => Bf16, i8 => I8, u8 => U8, f64 => F64, i32 => I32, i64 => I64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_names_round_trip() {
        for name in Metric::NAMES {
            let name = name.replace('P', "3.5");
            assert_eq!(name.parse::<Metric>().unwrap().to_string(), name);
        }
        for wrong in ["", "L2", "lp", "lp:", "lp:0", "lp:-1", "lp:nan", "lp:inf", "euclid"] {
            assert!(wrong.parse::<Metric>().is_err(), "{wrong}");
        }
    }
}
