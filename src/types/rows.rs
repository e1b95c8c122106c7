//! Rows in the caller's memory.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use super::DType;

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
        /// Components per row.
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
    /// Packed rows that are no whole bytes.
    #[error("rows of packed bits are whole bytes: {found} bits do not fill them, {} would", found.next_multiple_of(8))]
    NotWholeBytes {
        /// Bits per row.
        found: usize,
    },
    /// Vectors of unequal length.
    #[error("vector {row} has {found} components, those before it have {wanted}")]
    Ragged {
        /// The first vector of another length.
        row: usize,
        /// Components of the vectors before it.
        wanted: usize,
        /// Its components.
        found: usize,
    },
    /// An empty list of vectors, which does not say how many components they would have.
    #[error("there are no vectors, so their number of components is unknown; leave the call out")]
    NoVectors,
    /// An array of other than two axes, with missing values, or of a type that rows can't be made of.
    #[error("wanted {wanted}, found {found}")]
    Array {
        /// What would have been right.
        wanted: &'static str,
        /// What was given.
        found: String,
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
///
/// A view is a reference: it copies nothing, it is [`Copy`], and every method takes constant time.
///
/// ```
/// # fn main() -> Result<(), nearfield::ShapeError> {
/// use nearfield::MatrixView;
///
/// let numbers = [1.0, 2.0, 9.9, 3.0, 4.0, 9.9];
/// let rows = MatrixView::with_stride(&numbers, 2, 2, 3)?; // the third of each three is skipped
/// assert_eq!(rows.row(1), [3.0, 4.0]);
/// # Ok(()) }
/// ```
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

    /// Elements per row.
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

/// Rows of packed bits in the caller's memory: eight bits per byte, the first in the lowest bit. `dim` counts bits.
///
/// ```
/// # fn main() -> Result<(), nearfield::ShapeError> {
/// use nearfield::BitsView;
///
/// let rows = BitsView::new(&[0b1010_0001, 0xff, 0, 7], 16)?;
/// assert_eq!((rows.rows(), rows.dim(), rows.row(1)), (2, 16, &[0, 7][..]));
/// assert!(rows.bit(0, 5) && !rows.bit(0, 6));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BitsView<'a>(MatrixView<'a, u8>);

impl<'a> BitsView<'a> {
    /// Dense rows of `dim` bits each.
    ///
    /// # Errors
    /// [`ShapeError`] when `dim` is 0 or no multiple of 8, or the bytes are no whole number of rows.
    pub fn new(bytes: &'a [u8], dim: usize) -> Result<BitsView<'a>, ShapeError> {
        MatrixView::new(bytes, bytes_of(dim)?).map(BitsView)
    }

    /// Rows of `dim` bits that lie `stride` bytes apart; what is between them is never read.
    ///
    /// # Errors
    /// [`ShapeError`] as for [`BitsView::new`], and when the stride is shorter than a row or the slice too short.
    pub fn with_stride(bytes: &'a [u8], rows: usize, dim: usize, stride: usize) -> Result<BitsView<'a>, ShapeError> {
        MatrixView::with_stride(bytes, rows, bytes_of(dim)?, stride).map(BitsView)
    }

    /// Rows whose bits are these bytes: `dim` is eight times that of the matrix.
    pub fn from_bytes(bytes: MatrixView<'a, u8>) -> BitsView<'a> {
        BitsView(bytes)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.0.rows()
    }

    /// Bits per row.
    pub fn dim(&self) -> usize {
        self.0.dim() * 8
    }

    /// The `dim / 8` bytes of row `i`.
    ///
    /// # Panics
    /// When `i` is not below [`BitsView::rows`].
    #[inline]
    pub fn row(&self, i: usize) -> &'a [u8] {
        self.0.row(i)
    }

    /// Bit `j` of row `i`.
    ///
    /// # Panics
    /// When there is no such row or bit.
    pub fn bit(&self, i: usize, j: usize) -> bool {
        self.row(i)[j / 8] >> (j % 8) & 1 == 1
    }

    /// Rows `start..end` as a view of their own.
    ///
    /// # Panics
    /// When the range is not within the rows.
    pub fn slice(&self, start: usize, end: usize) -> Self {
        BitsView(self.0.slice(start, end))
    }

    /// The same rows as bytes, `dim / 8` per row.
    #[inline]
    pub fn bytes(&self) -> MatrixView<'a, u8> {
        self.0
    }
}

fn bytes_of(dim: usize) -> Result<usize, ShapeError> {
    if dim.is_multiple_of(8) { Ok(dim / 8) } else { Err(ShapeError::NotWholeBytes { found: dim }) }
}

/// Rows of any element type, `[rows, dim]`, in the caller's memory. Every method but [`RowsView::row_f32`] and
/// [`RowsView::row_f64`] takes constant time.
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
    /// Packed bits.
    Bits(BitsView<'a>),
    /// f64 rows.
    F64(MatrixView<'a, f64>),
    /// i32 rows.
    I32(MatrixView<'a, i32>),
    /// i64 rows.
    I64(MatrixView<'a, i64>),
}

/// Runs `$body` with `$m` bound to the typed matrix of a [`RowsView`]; packed bits as their bytes. Engines only: programs take
/// no rows of other types.
#[macro_export]
#[doc(hidden)]
macro_rules! with_narrow_rows {
    ($view:expr, $m:ident => $body:expr) => {
        match $view {
            $crate::RowsView::F32($m) => $body,
            $crate::RowsView::F16($m) => $body,
            $crate::RowsView::Bf16($m) => $body,
            $crate::RowsView::I8($m) => $body,
            $crate::RowsView::U8($m) => $body,
            $crate::RowsView::Bits(bits) => {
                let $m = bits.bytes();
                $body
            }
            _ => unreachable!("programs take no wide rows"),
        }
    };
}

/// Runs `$body` with `$m` bound to the typed matrix of a [`RowsView`]; packed bits as their bytes.
#[macro_export]
#[doc(hidden)]
macro_rules! with_rows {
    ($view:expr, $m:ident => $body:expr) => {
        match $view {
            $crate::RowsView::F64($m) => $body,
            $crate::RowsView::I32($m) => $body,
            $crate::RowsView::I64($m) => $body,
            narrow => $crate::with_narrow_rows!(narrow, $m => $body),
        }
    };
}

impl<'a> RowsView<'a> {
    /// Dense rows of `dim` elements each.
    ///
    /// # Errors
    /// [`ShapeError`] when `dim` is 0 or does not divide the length.
    pub fn new<T>(data: &'a [T], dim: usize) -> Result<RowsView<'a>, ShapeError>
    where
        MatrixView<'a, T>: Into<RowsView<'a>>,
    {
        MatrixView::new(data, dim).map(Into::into)
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        with_rows!(self, m => m.rows())
    }

    /// Components per row; bits for packed rows.
    pub fn dim(&self) -> usize {
        match self {
            RowsView::Bits(bits) => bits.dim(),
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
            RowsView::F64(_) => DType::F64,
            RowsView::I32(_) => DType::I32,
            RowsView::I64(_) => DType::I64,
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
            RowsView::F64(m) => RowsView::F64(m.slice(start, end)),
            RowsView::I32(m) => RowsView::I32(m.slice(start, end)),
            RowsView::I64(m) => RowsView::I64(m.slice(start, end)),
        }
    }

    /// Writes row `i` as f32 into `out` (`dim` long), rounded to the nearest where the type is wider; a bit becomes 0 or 1.
    pub fn row_f32(&self, i: usize, out: &mut [f32]) {
        match self {
            RowsView::F32(m) => out.copy_from_slice(m.row(i)),
            RowsView::F16(m) => each(m.row(i), out, f16::to_f32),
            RowsView::Bf16(m) => each(m.row(i), out, bf16::to_f32),
            RowsView::I8(m) => each(m.row(i), out, f32::from),
            RowsView::U8(m) => each(m.row(i), out, f32::from),
            RowsView::Bits(bits) => each_bit(bits.row(i), out),
            RowsView::F64(m) => each(m.row(i), out, |x| x as f32),
            RowsView::I32(m) => each(m.row(i), out, |x| x as f32),
            RowsView::I64(m) => each(m.row(i), out, |x| x as f32),
        }
    }

    /// All rows as f32, densely.
    pub(crate) fn floats(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows() * self.dim()];
        for (r, row) in out.chunks_exact_mut(self.dim().max(1)).enumerate() {
            self.row_f32(r, row);
        }
        out
    }

    /// Writes row `i` as f64 into `out` (`dim` long): exactly, but for integers beyond 2^53; a bit becomes 0 or 1.
    pub fn row_f64(&self, i: usize, out: &mut [f64]) {
        match self {
            RowsView::F32(m) => each(m.row(i), out, f64::from),
            RowsView::F16(m) => m.row(i).convert_to_f64_slice(&mut out[..m.dim()]),
            RowsView::Bf16(m) => each(m.row(i), out, |x| f64::from(x.to_f32())),
            RowsView::I8(m) => each(m.row(i), out, f64::from),
            RowsView::U8(m) => each(m.row(i), out, f64::from),
            RowsView::Bits(bits) => each_bit(bits.row(i), out),
            RowsView::F64(m) => out.copy_from_slice(m.row(i)),
            RowsView::I32(m) => each(m.row(i), out, f64::from),
            RowsView::I64(m) => each(m.row(i), out, |x| x as f64),
        }
    }
}

fn each<T: Copy, U>(row: &[T], out: &mut [U], f: impl Fn(T) -> U) {
    for (o, &v) in out.iter_mut().zip(row) {
        *o = f(v);
    }
}

fn each_bit<U: From<u8>>(row: &[u8], out: &mut [U]) {
    for (j, o) in out.iter_mut().enumerate() {
        *o = U::from(row[j / 8] >> (j % 8) & 1);
    }
}

impl<'a> From<BitsView<'a>> for RowsView<'a> {
    fn from(bits: BitsView<'a>) -> Self {
        RowsView::Bits(bits)
    }
}

/// What can be rows without a copy and cannot fail: views, arrays of arrays, and one row alone.
macro_rules! views {
    ($($t:ty => $variant:ident),*) => {$(
        impl<'a> From<MatrixView<'a, $t>> for RowsView<'a> {
            fn from(m: MatrixView<'a, $t>) -> Self {
                RowsView::$variant(m)
            }
        }
        impl<'a, const D: usize> From<&'a [[$t; D]]> for RowsView<'a> {
            fn from(rows: &'a [[$t; D]]) -> Self {
                RowsView::$variant(MatrixView { data: rows.as_flattened(), rows: rows.len(), dim: D, stride: D })
            }
        }
        impl<'a, const D: usize, const N: usize> From<&'a [[$t; D]; N]> for RowsView<'a> {
            fn from(rows: &'a [[$t; D]; N]) -> Self {
                RowsView::from(&rows[..])
            }
        }
        impl<'a, const D: usize> From<&'a Vec<[$t; D]>> for RowsView<'a> {
            fn from(rows: &'a Vec<[$t; D]>) -> Self {
                RowsView::from(&rows[..])
            }
        }
        impl<'a> From<&'a [$t]> for RowsView<'a> {
            /// One row.
            fn from(row: &'a [$t]) -> Self {
                RowsView::$variant(MatrixView { data: row, rows: 1, dim: row.len(), stride: row.len() })
            }
        }
        impl<'a, const D: usize> From<&'a [$t; D]> for RowsView<'a> {
            /// One row.
            fn from(row: &'a [$t; D]) -> Self {
                RowsView::from(&row[..])
            }
        }
        impl<'a> From<&'a Vec<$t>> for RowsView<'a> {
            /// One row.
            fn from(row: &'a Vec<$t>) -> Self {
                RowsView::from(&row[..])
            }
        }
    )*};
}

views!(f32 => F32, f16 => F16, bf16 => Bf16, i8 => I8, u8 => U8, f64 => F64, i32 => I32, i64 => I64);

#[cfg(test)]
mod tests {
    use super::*;

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
}
