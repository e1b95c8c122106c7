//! Loaded matrices: rows in memory of their own, or in a mapped file that several share.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use bytemuck::Pod;

use super::{LoadError, Map, npy};
use crate::types::{AnyRows, BitsView, DType, Element, IntoRows, MatrixView, RowsView, ShapeError};

/// Bytes that stay where they are as long as somebody holds them.
pub(super) trait Backing: Send + Sync {
    fn bytes(&self) -> &[u8];

    fn is_mapped(&self) -> bool {
        false
    }

    /// [`Map::changed`].
    fn changed(&self) -> Option<&Path> {
        None
    }
}

impl Backing for Map {
    fn bytes(&self) -> &[u8] {
        Map::bytes(self)
    }

    fn is_mapped(&self) -> bool {
        Map::is_mapped(self)
    }

    fn changed(&self) -> Option<&Path> {
        Map::changed(self)
    }
}

struct Elements<T>(Vec<T>);

impl<T: Element> Backing for Elements<T> {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// Where rows lie in their backing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Byte of the first component of the first row.
    pub offset: usize,
    pub dtype: DType,
    pub rows: usize,
    /// Components per row; bits for packed rows.
    pub dim: usize,
    /// Elements from row to row; bytes for packed rows.
    pub stride: usize,
}

impl Layout {
    /// Bytes of an element, and elements per row.
    fn element(&self) -> (usize, usize) {
        match self.dtype {
            DType::F64 | DType::I64 => (8, self.dim),
            DType::F32 | DType::I32 => (4, self.dim),
            DType::F16 | DType::Bf16 => (2, self.dim),
            DType::I8 | DType::U8 => (1, self.dim),
            DType::Bits => (1, self.dim / 8),
        }
    }

    /// Bytes from the first component to the last.
    fn span(&self) -> Option<usize> {
        let (size, width) = self.element();
        let Some(before_last) = self.rows.checked_sub(1) else { return Some(0) };
        before_last.checked_mul(self.stride)?.checked_add(width)?.checked_mul(size)
    }
}

/// `rows` x `dim` elements that were loaded from a file or handed over; cheap to clone, as clones share the rows.
#[derive(Clone)]
pub struct Matrix {
    backing: Arc<dyn Backing>,
    layout: Layout,
    /// Byte after the last component.
    end: usize,
    note: Option<Arc<str>>,
}

impl Matrix {
    /// Takes dense rows over, without a copy.
    ///
    /// # Errors
    /// [`ShapeError`] when `dim` is 0 or does not divide the length.
    pub fn from_vec<T: Element>(data: Vec<T>, dim: usize) -> Result<Matrix, ShapeError> {
        let rows = MatrixView::new(&data, dim)?.rows();
        let end = size_of_val(&data[..]);
        let layout = Layout { offset: 0, dtype: T::DTYPE, rows, dim, stride: dim };
        Ok(Matrix { backing: Arc::new(Elements(data)), layout, end, note: None })
    }

    /// The rows of a `.npy` file that is in memory already, such as one that `include_bytes!` put into a program.
    ///
    /// # Errors
    /// Those of [`read_matrix`](super::read_matrix); the file is called `<bytes>` in them.
    pub fn from_npy_bytes(bytes: &[u8]) -> Result<Matrix, LoadError> {
        npy::matrix(Path::new("<bytes>"), Arc::new(Elements(bytes.to_vec())))
    }

    /// Rows within `backing`; `None` where they do not fit or are not aligned for their type.
    pub(super) fn over(backing: Arc<dyn Backing>, layout: Layout) -> Option<Matrix> {
        let (size, width) = layout.element();
        if width == 0 || layout.stride < width || (layout.dtype == DType::Bits && !layout.dim.is_multiple_of(8)) {
            return None;
        }
        let end = layout.offset.checked_add(layout.span()?)?;
        let bytes = backing.bytes().get(layout.offset..end)?;
        if !(bytes.as_ptr() as usize).is_multiple_of(size) {
            return None;
        }
        Some(Matrix { backing, layout, end, note: None })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.layout.dtype
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.layout.rows
    }

    /// Components per row; bits for packed rows.
    pub fn dim(&self) -> usize {
        self.layout.dim
    }

    /// Whether the rows lie in a mapped file rather than in memory of their own.
    pub fn is_mapped(&self) -> bool {
        self.backing.is_mapped()
    }

    /// The mapped file that the rows lie in, if it has been written or shortened since it was read: the rows are not what they
    /// were then.
    pub fn changed(&self) -> Option<&Path> {
        self.backing.changed()
    }

    /// What whoever reads the rows should know: that a file has fewer than its header says.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    pub(super) fn noting(mut self, note: String) -> Matrix {
        self.note = Some(note.into());
        self
    }

    /// The rows, for searching and adding.
    pub fn view(&self) -> RowsView<'_> {
        match self.layout.dtype {
            DType::F32 => RowsView::F32(self.typed()),
            DType::F16 => RowsView::F16(self.typed()),
            DType::Bf16 => RowsView::Bf16(self.typed()),
            DType::I8 => RowsView::I8(self.typed()),
            DType::U8 => RowsView::U8(self.typed()),
            DType::Bits => RowsView::Bits(BitsView::from_bytes(self.typed())),
            DType::F64 => RowsView::F64(self.typed()),
            DType::I32 => RowsView::I32(self.typed()),
            DType::I64 => RowsView::I64(self.typed()),
        }
    }

    fn typed<T: Pod>(&self) -> MatrixView<'_, T> {
        let Layout { offset, rows, stride, .. } = self.layout;
        let data = bytemuck::cast_slice(&self.backing.bytes()[offset..self.end]);
        MatrixView::with_stride(data, rows, self.layout.element().1, stride).expect("checked when the matrix was made")
    }

    /// The same bytes as packed bits: rows of d bytes become rows of 8 d bits, the first in the lowest bit.
    ///
    /// # Errors
    /// [`NotBytes`] unless the rows are u8 (or bits already).
    pub fn into_bits(mut self) -> Result<Matrix, NotBytes> {
        match self.layout.dtype {
            DType::Bits => Ok(self),
            DType::U8 => {
                self.layout.dim = self.layout.dim.saturating_mul(8);
                self.layout.dtype = DType::Bits;
                Ok(self)
            }
            found => Err(NotBytes { found }),
        }
    }
}

impl<'a> IntoRows<'a> for &'a Matrix {
    fn into_rows(self) -> Result<AnyRows<'a>, ShapeError> {
        Ok(self.view().into())
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matrix").field("layout", &self.layout).field("mapped", &self.is_mapped()).finish()
    }
}

/// What [`Matrix::into_bits`] says of rows that are not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packed bits are read from rows of u8, found rows of {found}")]
pub struct NotBytes {
    /// The element type found.
    pub found: DType,
}
