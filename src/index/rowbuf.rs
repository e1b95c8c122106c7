//! Rows in host memory: owned and growing, or those of a mapped file until they are changed.

use std::sync::Arc;

use half::{bf16, f16};

use crate::format::Matrix;
use crate::types::{BitsView, DType, MatrixView, RowsView};

/// Densely packed rows of one element type.
#[derive(Clone, Debug)]
pub(crate) struct RowBuf {
    dtype: DType,
    dim: usize,
    rows: usize,
    /// The bytes of the rows, kept as words so that they are aligned for every element type.
    words: Vec<u64>,
}

impl RowBuf {
    pub fn new(dtype: DType, dim: usize) -> RowBuf {
        RowBuf { dtype, dim, rows: 0, words: Vec::new() }
    }

    /// Whether rows of one type may be stored as another: the same, numbers as a float type, or whole numbers as longer ones.
    pub fn converts(from: DType, to: DType) -> bool {
        let longer = match to {
            DType::I32 => &[DType::I8, DType::U8][..],
            DType::I64 => &[DType::I8, DType::U8, DType::I32],
            _ => &[],
        };
        let float = matches!(to, DType::F32 | DType::F16 | DType::Bf16 | DType::F64);
        from == to || (from != DType::Bits && float) || longer.contains(&from)
    }

    /// These rows as engines take them: f32, rounded, and no value beyond the largest.
    pub fn rounded(rows: &RowsView<'_>) -> RowBuf {
        let mut floats = rows.floats();
        floats.iter_mut().for_each(|x| *x = x.clamp(-f32::MAX, f32::MAX));
        RowBuf::of(&floats, rows.dim())
    }

    /// A copy of f32 rows.
    pub fn of(rows: &[f32], dim: usize) -> RowBuf {
        let mut copy = RowBuf::new(DType::F32, dim);
        copy.rows = rows.len() / dim.max(1);
        copy.words.resize((copy.rows * dim).div_ceil(2), 0);
        bytemuck::cast_slice_mut(&mut copy.words)[..rows.len()].copy_from_slice(rows);
        copy
    }

    fn row_bytes(&self) -> usize {
        self.dtype.row_bytes(self.dim)
    }

    fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.rows * self.row_bytes()]
    }

    pub fn view(&self) -> RowsView<'_> {
        fn typed<T: bytemuck::Pod>(bytes: &[u8], rows: usize, dim: usize) -> MatrixView<'_, T> {
            let data = bytemuck::cast_slice(bytes);
            MatrixView::with_stride(data, rows, dim, dim).unwrap_or_else(|_| unreachable!("the buffer holds its rows"))
        }
        let (bytes, rows, dim) = (self.bytes(), self.rows, self.dim);
        match self.dtype {
            DType::F32 => RowsView::F32(typed(bytes, rows, dim)),
            DType::F16 => RowsView::F16(typed(bytes, rows, dim)),
            DType::Bf16 => RowsView::Bf16(typed(bytes, rows, dim)),
            DType::I8 => RowsView::I8(typed(bytes, rows, dim)),
            DType::U8 => RowsView::U8(typed(bytes, rows, dim)),
            DType::Bits => RowsView::Bits(BitsView::from_bytes(typed(bytes, rows, self.row_bytes()))),
            DType::F64 => RowsView::F64(typed(bytes, rows, dim)),
            DType::I32 => RowsView::I32(typed(bytes, rows, dim)),
            DType::I64 => RowsView::I64(typed(bytes, rows, dim)),
        }
    }

    /// Appends rows; the caller has checked dimension and type.
    pub fn extend(&mut self, rows: &RowsView<'_>) {
        let (start, row_bytes) = (self.rows * self.row_bytes(), self.row_bytes());
        self.rows += rows.rows();
        let words = (self.rows * row_bytes).div_ceil(8);
        if words > self.words.capacity() {
            self.words.reserve(words - self.words.len());
        }
        self.words.resize(words, 0);
        for r in 0..rows.rows() {
            self.write(start + r * row_bytes, rows, r);
        }
    }

    /// Overwrites the row at `position` with the first of `rows`.
    pub fn replace(&mut self, position: usize, rows: &RowsView<'_>) {
        self.write(position * self.row_bytes(), rows, 0);
    }

    fn write(&mut self, at: usize, rows: &RowsView<'_>, r: usize) {
        let (dim, row_bytes) = (self.dim, self.row_bytes());
        let out = &mut bytemuck::cast_slice_mut::<u64, u8>(&mut self.words)[at..at + row_bytes];
        if rows.dtype() == self.dtype {
            out.copy_from_slice(rows.row_bytes(r));
            return;
        }
        if rows.dtype().is_wide() || self.dtype.is_wide() {
            let mut values = vec![0.0; dim];
            rows.row_f64(r, &mut values);
            match self.dtype {
                DType::F16 => each(out, &values, f16::from_f64),
                DType::Bf16 => each(out, &values, bf16::from_f64),
                DType::I32 => each(out, &values, |x| x as i32),
                DType::I64 => each(out, &values, |x| x as i64),
                DType::F64 => each(out, &values, |x| x),
                // `converts` lets nothing else through.
                _ => each(out, &values, |x| x as f32),
            }
            return;
        }
        let mut values = vec![0.0; dim];
        rows.row_f32(r, &mut values);
        match self.dtype {
            DType::F16 => each(out, &values, f16::from_f32),
            DType::Bf16 => each(out, &values, bf16::from_f32),
            // `converts` lets nothing else through.
            _ => each(out, &values, |x| x),
        }
    }
}

/// Writes values as another type into the bytes of a row.
fn each<T: Copy, U: bytemuck::NoUninit>(out: &mut [u8], values: &[T], f: impl Fn(T) -> U) {
    for (bytes, &value) in out.chunks_exact_mut(size_of::<U>()).zip(values) {
        bytes.copy_from_slice(bytemuck::bytes_of(&f(value)));
    }
}

/// Rows that are owned, or mapped until the first change. Clones share them until one is changed.
#[derive(Clone, Debug)]
pub(crate) enum Rows {
    Owned(Arc<RowBuf>),
    Mapped(Matrix),
}

impl Rows {
    pub fn view(&self) -> RowsView<'_> {
        match self {
            Rows::Owned(rows) => rows.view(),
            Rows::Mapped(matrix) => matrix.view(),
        }
    }

    /// The rows as memory of our own; mapped rows are copied once.
    pub fn owned(&mut self) -> &mut RowBuf {
        if let Rows::Mapped(matrix) = self {
            let view = matrix.view();
            let mut copy = RowBuf::new(view.dtype(), view.dim());
            copy.extend(&view);
            *self = Rows::Owned(Arc::new(copy));
        }
        match self {
            Rows::Owned(rows) => Arc::make_mut(rows),
            Rows::Mapped(_) => unreachable!("just made owned"),
        }
    }
}
