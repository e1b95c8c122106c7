//! The words everything else is written in: metrics, element types, views of matrices, filters and answers.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};

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
/// | `jaccard` | 1 - sum min / sum max, rows non-negative; on packed bits 1 - \|and\| / \|or\| |
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
    /// Packed bits, eight a byte, the first in the lowest bit; `dim` counts bits.
    Bits,
}

impl DType {
    /// All of them, for tables and tests.
    pub const ALL: [DType; 6] = [DType::F32, DType::F16, DType::Bf16, DType::I8, DType::U8, DType::Bits];

    /// Bytes of `dim` densely stored components.
    pub fn row_bytes(self, dim: usize) -> usize {
        match self {
            DType::F32 => dim * 4,
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
        })
    }
}

/// A type that rows can be made of.
pub trait Element: bytemuck::Pod + Send + Sync + 'static {
    /// Its name at run time.
    const DTYPE: DType;
}
impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for f16 {
    const DTYPE: DType = DType::F16;
}
impl Element for bf16 {
    const DTYPE: DType = DType::Bf16;
}
impl Element for i8 {
    const DTYPE: DType = DType::I8;
}
impl Element for u8 {
    const DTYPE: DType = DType::U8;
}

/// What is wrong with a slice that should have become a matrix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// Rows without components.
    #[error("rows need at least one component, found dim = 0")]
    ZeroDim,
    /// The slice does not hold whole rows.
    #[error("{len} elements are not a whole number of rows of {dim}")]
    NotWholeRows {
        /// Elements in the slice.
        len: usize,
        /// Components of a row.
        dim: usize,
    },
    /// A stride shorter than the row.
    #[error("a stride of {stride} elements is shorter than a row of {dim}")]
    StrideTooShort {
        /// Elements from row to row.
        stride: usize,
        /// Components of a row.
        dim: usize,
    },
    /// Fewer elements than rows and stride ask for.
    #[error("{rows} rows of {dim} with stride {stride} need {wanted} elements, found {len}")]
    TooShort {
        /// Rows asked for.
        rows: usize,
        /// Components of a row.
        dim: usize,
        /// Elements from row to row.
        stride: usize,
        /// Elements needed.
        wanted: usize,
        /// Elements found.
        len: usize,
    },
}

/// `rows` x `dim` elements in the caller's memory, `stride` elements from row to row.
#[derive(Clone, Copy, Debug)]
pub struct MatrixView<'a, T> {
    data: &'a [T],
    rows: usize,
    dim: usize,
    stride: usize,
}

impl<'a, T> MatrixView<'a, T> {
    /// Dense rows: `data.len()` must be a multiple of `dim`.
    ///
    /// # Errors
    /// [`ShapeError`] when `dim` is 0 or does not divide the length.
    pub fn new(data: &'a [T], dim: usize) -> Result<Self, ShapeError> {
        if dim == 0 {
            return Err(ShapeError::ZeroDim);
        }
        if !data.len().is_multiple_of(dim) {
            return Err(ShapeError::NotWholeRows { len: data.len(), dim });
        }
        Ok(MatrixView { data, rows: data.len() / dim, dim, stride: dim })
    }

    /// Rows that lie `stride` elements apart; what is between them is never read.
    ///
    /// # Errors
    /// [`ShapeError`] when the stride is shorter than the row or the slice too short.
    pub fn with_stride(data: &'a [T], rows: usize, dim: usize, stride: usize) -> Result<Self, ShapeError> {
        if dim == 0 {
            return Err(ShapeError::ZeroDim);
        }
        if stride < dim {
            return Err(ShapeError::StrideTooShort { stride, dim });
        }
        let wanted = if rows == 0 { 0 } else { (rows - 1).saturating_mul(stride).saturating_add(dim) };
        if data.len() < wanted {
            return Err(ShapeError::TooShort { rows, dim, stride, wanted, len: data.len() });
        }
        Ok(MatrixView { data, rows, dim, stride })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Elements from the start of a row to the start of the next.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// Row `i`, of `dim` elements.
    ///
    /// # Panics
    /// When `i` is not below [`MatrixView::rows`].
    #[inline]
    pub fn row(&self, i: usize) -> &'a [T] {
        assert!(i < self.rows, "row {i} of {}", self.rows);
        &self.data[i * self.stride..i * self.stride + self.dim]
    }

    /// Rows `start..end` as a view of their own.
    ///
    /// # Panics
    /// When the range is not within the rows.
    pub fn slice(&self, start: usize, end: usize) -> Self {
        assert!(start <= end && end <= self.rows, "rows {start}..{end} of {}", self.rows);
        let data = if start == end { &[] } else { &self.data[start * self.stride..(end - 1) * self.stride + self.dim] };
        MatrixView { data, rows: end - start, dim: self.dim, stride: self.stride }
    }

    /// The elements from the first row to the end of the last, gaps included.
    pub fn as_slice(&self) -> &'a [T] {
        self.data
    }
}

/// Rows of any element type. For [`RowsView::Bits`] the matrix counts bytes: `dim() = 8 * bytes a row`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum RowsView<'a> {
    /// f32 rows.
    F32(MatrixView<'a, f32>),
    /// f16 rows.
    F16(MatrixView<'a, f16>),
    /// bf16 rows.
    Bf16(MatrixView<'a, bf16>),
    /// i8 rows.
    I8(MatrixView<'a, i8>),
    /// u8 rows.
    U8(MatrixView<'a, u8>),
    /// Packed bits, whole bytes.
    Bits(MatrixView<'a, u8>),
}

/// Runs `$body` with `$m` bound to the typed matrix of a [`RowsView`].
#[macro_export]
#[doc(hidden)]
macro_rules! with_rows {
    ($view:expr, $m:ident => $body:expr) => {
        match $view {
            $crate::RowsView::F32($m) => $body,
            $crate::RowsView::F16($m) => $body,
            $crate::RowsView::Bf16($m) => $body,
            $crate::RowsView::I8($m) => $body,
            $crate::RowsView::U8($m) | $crate::RowsView::Bits($m) => $body,
        }
    };
}

impl<'a> RowsView<'a> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        with_rows!(self, m => m.rows())
    }

    /// Components a row; bits for packed rows.
    pub fn dim(&self) -> usize {
        match self {
            RowsView::Bits(m) => m.dim() * 8,
            other => with_rows!(other, m => m.dim()),
        }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match self {
            RowsView::F32(_) => DType::F32,
            RowsView::F16(_) => DType::F16,
            RowsView::Bf16(_) => DType::Bf16,
            RowsView::I8(_) => DType::I8,
            RowsView::U8(_) => DType::U8,
            RowsView::Bits(_) => DType::Bits,
        }
    }

    /// The bytes of row `i`, without gaps.
    pub fn row_bytes(&self, i: usize) -> &'a [u8] {
        with_rows!(self, m => bytemuck::cast_slice(m.row(i)))
    }

    /// Rows `start..end`.
    pub fn slice(&self, start: usize, end: usize) -> RowsView<'a> {
        match self {
            RowsView::F32(m) => RowsView::F32(m.slice(start, end)),
            RowsView::F16(m) => RowsView::F16(m.slice(start, end)),
            RowsView::Bf16(m) => RowsView::Bf16(m.slice(start, end)),
            RowsView::I8(m) => RowsView::I8(m.slice(start, end)),
            RowsView::U8(m) => RowsView::U8(m.slice(start, end)),
            RowsView::Bits(m) => RowsView::Bits(m.slice(start, end)),
        }
    }

    /// Writes row `i` as f32 into `out` (`dim` long); a bit becomes 0 or 1.
    pub fn row_f32(&self, i: usize, out: &mut [f32]) {
        fn each<T: Copy>(row: &[T], out: &mut [f32], f: impl Fn(T) -> f32) {
            for (o, &v) in out.iter_mut().zip(row) {
                *o = f(v);
            }
        }
        match self {
            RowsView::F32(m) => out.copy_from_slice(m.row(i)),
            RowsView::F16(m) => each(m.row(i), out, f16::to_f32),
            RowsView::Bf16(m) => each(m.row(i), out, bf16::to_f32),
            RowsView::I8(m) => each(m.row(i), out, f32::from),
            RowsView::U8(m) => each(m.row(i), out, f32::from),
            RowsView::Bits(m) => {
                let row = m.row(i);
                for (j, o) in out.iter_mut().enumerate() {
                    *o = f32::from(row[j / 8] >> (j % 8) & 1);
                }
            }
        }
    }
}

impl<'a> From<MatrixView<'a, f32>> for RowsView<'a> {
    fn from(m: MatrixView<'a, f32>) -> Self {
        RowsView::F32(m)
    }
}
impl<'a> From<MatrixView<'a, f16>> for RowsView<'a> {
    fn from(m: MatrixView<'a, f16>) -> Self {
        RowsView::F16(m)
    }
}
impl<'a> From<MatrixView<'a, bf16>> for RowsView<'a> {
    fn from(m: MatrixView<'a, bf16>) -> Self {
        RowsView::Bf16(m)
    }
}
impl<'a> From<MatrixView<'a, i8>> for RowsView<'a> {
    fn from(m: MatrixView<'a, i8>) -> Self {
        RowsView::I8(m)
    }
}
impl<'a> From<MatrixView<'a, u8>> for RowsView<'a> {
    fn from(m: MatrixView<'a, u8>) -> Self {
        RowsView::U8(m)
    }
}
impl<'a, const D: usize> From<&'a [[f32; D]]> for RowsView<'a> {
    fn from(rows: &'a [[f32; D]]) -> Self {
        RowsView::F32(MatrixView { data: rows.as_flattened(), rows: rows.len(), dim: D, stride: D })
    }
}
impl<'a, const D: usize, const N: usize> From<&'a [[f32; D]; N]> for RowsView<'a> {
    fn from(rows: &'a [[f32; D]; N]) -> Self {
        RowsView::from(&rows[..])
    }
}
impl<'a, const D: usize> From<&'a Vec<[f32; D]>> for RowsView<'a> {
    fn from(rows: &'a Vec<[f32; D]>) -> Self {
        RowsView::from(&rows[..])
    }
}

/// One bit a row, set where the row is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bitmap {
    words: Vec<u32>,
    len: usize,
}

impl Bitmap {
    /// `len` rows, all allowed or none.
    pub fn new(len: usize, allowed: bool) -> Bitmap {
        let mut words = vec![if allowed { u32::MAX } else { 0 }; len.div_ceil(32)];
        if allowed && !len.is_multiple_of(32) {
            // Bits past the end stay clear, so that counting and comparing need no special case.
            words[len / 32] = (1 << (len % 32)) - 1;
        }
        Bitmap { words, len }
    }

    /// Row `i` is allowed where `allowed(i)` says so.
    pub fn from_fn(len: usize, mut allowed: impl FnMut(usize) -> bool) -> Bitmap {
        let mut map = Bitmap::new(len, false);
        for i in 0..len {
            map.set(i, allowed(i));
        }
        map
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether row `i` is allowed.
    pub fn get(&self, i: usize) -> bool {
        i < self.len && self.words[i / 32] >> (i % 32) & 1 == 1
    }

    /// Allows or forbids row `i`; rows past the end are ignored.
    pub fn set(&mut self, i: usize, allowed: bool) {
        if i < self.len {
            let bit = 1 << (i % 32);
            if allowed { self.words[i / 32] |= bit } else { self.words[i / 32] &= !bit }
        }
    }

    /// Number of rows allowed.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Allows only what both allow; `other` must be as long.
    pub(crate) fn and(&mut self, other: &Bitmap) {
        debug_assert_eq!(self.len, other.len);
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            *a &= b;
        }
    }

    /// Appends `n` rows.
    pub(crate) fn grow(&mut self, n: usize, allowed: bool) {
        let start = self.len;
        self.len += n;
        self.words.resize(self.len.div_ceil(32), 0);
        if allowed {
            for i in start..self.len {
                self.set(i, true);
            }
        }
    }

    /// The bits, 32 rows a word, the first in the lowest bit.
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

/// Which rows a search may return. Rows are named by position for bitmaps, by id for id lists.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Filter {
    /// The same rows for every query: a bit a row, in the order of the rows.
    Rows(Bitmap),
    /// One bitmap a query.
    RowsPerQuery(Vec<Bitmap>),
    /// The ids allowed, in any order; ids that the index does not hold are ignored.
    Ids(Vec<u64>),
}

/// Marks a place in [`Neighbors`] where there is no k-th neighbour.
pub const NO_ID: u64 = u64::MAX;

/// The k nearest rows of each of q queries, nearest first.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Neighbors {
    /// Number of queries.
    pub queries: usize,
    /// Places a query.
    pub k: usize,
    /// Ids, `[queries, k]`, [`NO_ID`] where there is no k-th.
    pub ids: Vec<u64>,
    /// Distances or similarities beside the ids; NaN where there is no k-th.
    pub distances: Vec<f32>,
}

impl Neighbors {
    /// The neighbours of query `i`: (id, distance), nearest first, ending where there are no more.
    ///
    /// # Panics
    /// When `i` is not below `queries`.
    pub fn query(&self, i: usize) -> impl Iterator<Item = (u64, f32)> + '_ {
        assert!(i < self.queries, "query {i} of {}", self.queries);
        let row = i * self.k..(i + 1) * self.k;
        self.ids[row.clone()]
            .iter()
            .copied()
            .zip(self.distances[row].iter().copied())
            .take_while(|&(id, _)| id != NO_ID)
    }
}

/// All rows within a radius of each query, in compressed sparse rows.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct RangeHits {
    /// `[queries + 1]`: the hits of query i are `offsets[i]..offsets[i + 1]`.
    pub offsets: Vec<u64>,
    /// Ids, nearest first within a query.
    pub ids: Vec<u64>,
    /// Distances or similarities beside the ids.
    pub distances: Vec<f32>,
}

impl RangeHits {
    /// The hits of query `i`: (id, distance), nearest first.
    ///
    /// # Panics
    /// When `i` is not below the number of queries.
    pub fn query(&self, i: usize) -> impl Iterator<Item = (u64, f32)> + '_ {
        let row = self.offsets[i] as usize..self.offsets[i + 1] as usize;
        self.ids[row.clone()].iter().copied().zip(self.distances[row].iter().copied())
    }
}

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

    #[test]
    fn views_check_their_shape() {
        let data = [0f32; 10];
        assert!(MatrixView::new(&data, 3).is_err());
        assert!(MatrixView::new(&data, 0).is_err());
        assert_eq!(MatrixView::new(&data, 5).unwrap().rows(), 2);
        assert!(MatrixView::with_stride(&data, 2, 5, 4).is_err());
        assert!(MatrixView::with_stride(&data, 3, 3, 4).is_err(), "the last row would end at 11");
        let m = MatrixView::with_stride(&data, 3, 2, 4).unwrap();
        assert_eq!(m.slice(1, 3).as_slice().len(), 6);
        assert!(MatrixView::with_stride(&data[..0], 0, 2, 4).is_ok());
    }

    #[test]
    fn bitmaps_count_grow_and_combine() {
        let mut a = Bitmap::new(33, true);
        assert_eq!((a.count(), a.words().len()), (33, 2));
        a.grow(40, false);
        assert_eq!((a.len(), a.count()), (73, 33));
        a.and(&Bitmap::from_fn(73, |i| i % 2 == 0));
        assert_eq!(a.count(), 17);
        a.grow(3, true);
        assert!(a.get(75) && !a.get(76) && !a.get(1));
    }
}
