//! The headers of `.fvecs .bvecs .ivecs` (each row: dim as i32, then its components; corpus-texmex.irisa.fr)
//! and of `.fbin .u8bin .i8bin` (rows and dim as u32, or as u64 as cuVS writes them, then all components;
//! big-ann-benchmarks.com).

use std::path::Path;
use std::sync::Arc;

use super::LoadError;
use super::Map;
use super::matrix::{Layout, Matrix};
use super::npy::{check_dim, python_shape};
use crate::types::DType;

/// The rows of a vecs file with components of `dtype`, every row's dim checked.
pub(super) fn matrix(path: &Path, map: Arc<Map>, dtype: DType) -> Result<Matrix, LoadError> {
    let size = dtype.row_bytes(1);
    let (rows, dim) = shape(path, map.bytes(), size)?;
    over(path, map, Layout { offset: 4, dtype, rows, dim, stride: dim + 4 / size })
}

/// The rows of a bin file with components of `dtype`. A slice has the header of the whole that it was cut from.
pub(super) fn bin(path: &Path, map: Arc<Map>, dtype: DType, slice: bool) -> Result<Matrix, LoadError> {
    let found = map.bytes().len() as u64;
    let Some(narrow) = map.bytes().first_chunk::<8>().map(|head| head.as_chunks().0) else {
        return Err(LoadError::Truncated { path: path.to_owned(), wanted: 8, found });
    };
    let [rows, dim] = [0, 1].map(|i| u64::from(u32::from_le_bytes(narrow[i])));
    let wide = map.bytes().first_chunk::<16>().map(|head| head.as_chunks().0);
    let wide =
        wide.map(|head| Header { start: 16, rows: u64::from_le_bytes(head[0]), dim: u64::from_le_bytes(head[1]) });
    let headers = [Some(Header { start: 8, rows, dim }), wide].into_iter().flatten();
    let headers: Vec<Header> = headers.filter(|h| (1..=1 << 24).contains(&h.dim)).collect();
    let first = |fits: fn(&Header, DType, u64) -> bool| headers.iter().find(|h| fits(h, dtype, found));
    let cut = || first(Header::is_cut).map(|header| (header, true));
    let chosen =
        first(Header::is_exact).map(|header| (header, false)).or_else(cut).or(headers.first().map(|h| (h, false)));
    let Some((header, cut)) = chosen else {
        check_dim(path, dim as usize, || python_shape(&[rows, dim]))?;
        return Err(LoadError::header(path, "its dim is beyond 2^24"));
    };
    if !cut {
        LoadError::check_length(path, header.length(dtype), found)?;
    }
    let (rows, dim) = (header.rows_in(dtype, found), header.dim as usize);
    let layout = Layout { offset: header.start as usize, dtype, rows: rows as usize, dim, stride: dim };
    let matrix = over(path, map, layout)?;
    if !cut || slice {
        return Ok(matrix);
    }
    Ok(matrix.noting(format!("its header says {} rows, the file ends after {rows}: these are read", header.rows)))
}

/// What a bin file begins with.
struct Header {
    /// Byte of the first component.
    start: u64,
    rows: u64,
    dim: u64,
}

impl Header {
    /// Bytes of a whole file.
    fn length(&self, dtype: DType) -> u64 {
        let row = dtype.row_bytes(self.dim as usize) as u64;
        self.rows.saturating_mul(row).saturating_add(self.start)
    }

    /// Whole rows in a file of `found` bytes.
    fn rows_in(&self, dtype: DType, found: u64) -> u64 {
        found.saturating_sub(self.start) / dtype.row_bytes(self.dim as usize) as u64
    }

    fn is_exact(&self, dtype: DType, found: u64) -> bool {
        self.length(dtype) == found
    }

    /// Whether the file ends with a row before the last.
    fn is_cut(&self, dtype: DType, found: u64) -> bool {
        let there = self.rows_in(dtype, found);
        (1..self.rows).contains(&there) && Header { rows: there, ..*self }.is_exact(dtype, found)
    }
}

fn over(path: &Path, map: Arc<Map>, layout: Layout) -> Result<Matrix, LoadError> {
    Matrix::over(map, layout).ok_or_else(|| LoadError::header(path, format!("its rows do not fit it: {layout:?}")))
}

/// The components of an ivecs file, row after row, and its shape.
pub(super) fn ints<T>(path: &Path, map: &Map, convert: fn(i32) -> T) -> Result<(Vec<T>, [usize; 2]), LoadError> {
    let (rows, dim) = shape(path, map.bytes(), 4)?;
    let mut out = Vec::with_capacity(rows * dim);
    for row in map.bytes().chunks_exact(4 + 4 * dim) {
        out.extend(row[4..].as_chunks().0.iter().map(|&b| convert(i32::from_le_bytes(b))));
    }
    Ok((out, [rows, dim]))
}

/// Rows and dim of a vecs file with components of `size` bytes.
fn shape(path: &Path, bytes: &[u8], size: usize) -> Result<(usize, usize), LoadError> {
    if bytes.is_empty() {
        return Err(LoadError::Shape {
            path: path.to_owned(),
            found: "of an empty file, which says no dim".to_owned(),
            wanted: "at least one row".to_owned(),
        });
    }
    let short = |wanted| LoadError::Truncated { path: path.to_owned(), wanted, found: bytes.len() as u64 };
    let first = i32::from_le_bytes(*bytes.first_chunk().ok_or_else(|| short(4))?);
    let row_dim = |row, found, wanted: String| LoadError::RowDim { path: path.to_owned(), row, found, wanted };
    let dim = usize::try_from(first).ok().filter(|dim| (1..=1 << 24).contains(dim));
    let dim = dim.ok_or_else(|| row_dim(0, first, "1 to 16777216".to_owned()))?;
    let row_bytes = 4 + dim * size;
    let rows = bytes.chunks_exact(row_bytes);
    let (count, rest) = (rows.len(), rows.remainder().len());
    for (i, row) in rows.enumerate() {
        match row.first_chunk().map(|&b| i32::from_le_bytes(b)) {
            Some(found) if found != first => return Err(row_dim(i, found, format!("{first} as in row 0"))),
            _ => {}
        }
    }
    if rest != 0 {
        return Err(short((count as u64 + 1) * row_bytes as u64));
    }
    Ok((count, dim))
}
