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
    let bytes = map.bytes();
    let found = bytes.len() as u64;
    let Some(narrow) = bytes.first_chunk::<8>().map(|head| head.as_chunks().0) else {
        return Err(LoadError::Truncated { path: path.to_owned(), wanted: 8, found });
    };
    let [rows, dim] = [0, 1].map(|i| u64::from(u32::from_le_bytes(narrow[i])));
    let wide = bytes.first_chunk::<16>().map(|head| head.as_chunks().0);
    let wide = wide.map(|head| (16, u64::from_le_bytes(head[0]), u64::from_le_bytes(head[1])));
    let headers = [Some((8, rows, dim)), wide].into_iter().flatten().filter(|&(_, _, dim)| (1..=1 << 24).contains(&dim));
    let row_bytes = |dim: u64| dtype.row_bytes(dim as usize) as u64;
    let wanted = |&(start, rows, dim): &(u64, u64, u64)| rows.saturating_mul(row_bytes(dim)).saturating_add(start);
    // The one that fits the file, or the first that makes sense.
    let header = headers.clone().find(|header| wanted(header) == found).or(headers.clone().next());
    let Some(header @ (start, rows, dim)) = header else {
        return Err(check_dim(path, dim as usize, || python_shape(&[rows, dim])).err().unwrap_or_else(|| {
            LoadError::header(path, "neither u32 nor u64 of it are rows and dim")
        }));
    };
    let there = found.saturating_sub(start) / row_bytes(dim);
    let cut = rows > there && there > 0 && start + there * row_bytes(dim) == found;
    if !cut {
        LoadError::check_length(path, wanted(&header), found)?;
    }
    let (offset, dim) = (start as usize, dim as usize);
    let matrix = over(path, map, Layout { offset, dtype, rows: there as usize, dim, stride: dim })?;
    let note = || format!("its header says {rows} rows, the file ends after {there}: these are read");
    Ok(if cut && !slice { matrix.noting(note()) } else { matrix })
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
