//! The readers: they choose by the file's extension.

use std::path::Path;
use std::sync::Arc;

use super::matrix::Backing;
use super::npy::{self, Allowed};
use super::{LoadError, Map, Matrix, npz, vecs};
use crate::types::DType;

/// Loads a matrix of `rows` x `dim`.
///
/// `.npy`, `.npz` (as `file.npz:array`; the name may be left out where there is only one array),
/// `.fvecs`, `.bvecs`, `.ivecs`, `.fbin`, `.u8bin` and `.i8bin`. A 1-d array is one row. Numbers stay what they are (bf16 in
/// `.npy`: `<V2`), and stay in the mapped file where their layout allows; booleans become u8 of 0 and 1, i16 and u16 f32. NaN
/// and infinity pass. Pipes and devices are read into memory; without an extension they are `.npy`.
///
/// `.fbin`, `.u8bin` and `.i8bin` may count rows and dim in u64. One that ends with a whole row before
/// its header says so has as many rows as are there, which [`Matrix::note`] tells; slices of big-ann,
/// whose names end in `.crop_nb_N`, are meant to.
///
/// # Errors
/// [`LoadError`]; among others for dim = 0, and a file longer or shorter than its header says.
pub fn read_matrix(path: impl AsRef<Path>) -> Result<Matrix, LoadError> {
    let path = path.as_ref();
    let dtype = match extension(path).as_str() {
        "npy" | "npz" => return npy::matrix(path, array_bytes(path)?),
        "ivecs" => DType::I32,
        "fvecs" | "fbin" => DType::F32,
        "bvecs" | "u8bin" => DType::U8,
        "i8bin" => DType::I8,
        _ => {
            return Err(unknown(path, ".npy, .npz:array, .fvecs, .bvecs, .ivecs, .fbin, .u8bin or .i8bin"));
        }
    };
    if extension(path).ends_with("vecs") {
        vecs::matrix(path, map(path)?, dtype)
    } else {
        vecs::bin(path, map(path)?, dtype, is_slice(path))
    }
}

/// Integers from a file: a list of ids, or the nearest ids of several queries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdMatrix {
    /// The ids, row after row.
    pub ids: Vec<i64>,
    /// `[n]` or `[rows, columns]`.
    pub shape: Vec<usize>,
}

/// Reads ids from `.npy` or `.npz:array` (i4, i8, u4, u8; one or two dimensions) or `.ivecs`.
///
/// # Errors
/// [`LoadError`]; among others for a u64 beyond i64.
pub fn read_ids(path: impl AsRef<Path>) -> Result<IdMatrix, LoadError> {
    let path = path.as_ref();
    match extension(path).as_str() {
        "npy" | "npz" => npy::ids(path, array_bytes(path)?).map(|(ids, shape)| IdMatrix { ids, shape }),
        "ivecs" => {
            vecs::ints(path, &*map(path)?, i64::from).map(|(ids, shape)| IdMatrix { ids, shape: shape.to_vec() })
        }
        _ => Err(unknown(path, ".npy, .npz:array or .ivecs")),
    }
}

/// Which rows a search may return, as a file says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterFile {
    /// The ids allowed.
    Ids(Vec<i64>),
    /// True where a row is allowed.
    Mask {
        /// Masks in the file: 1 for shape `[n]`, q for `[q, n]`.
        rows: usize,
        /// Whether there is a mask for each query.
        per_query: bool,
        /// Rows that a mask speaks of.
        n: usize,
        /// `[rows, n]`.
        bits: Vec<bool>,
    },
}

/// Reads a filter from `.npy` or `.npz:array`: booleans of shape `[n]` or `[q, n]` are a mask,
/// integers (i4, i8, u4, u8) of shape `[n]` are ids.
///
/// # Errors
/// [`LoadError`]; among others for ids of two dimensions.
pub fn read_filter(path: impl AsRef<Path>) -> Result<FilterFile, LoadError> {
    let path = path.as_ref();
    if !matches!(extension(path).as_str(), "npy" | "npz") {
        return Err(unknown(path, ".npy or .npz:array"));
    }
    Ok(match npy::allowed(path, array_bytes(path)?)? {
        Allowed::Mask(bits, shape) => {
            let (rows, n) = if let [rows, n] = shape[..] { (rows, n) } else { (1, bits.len()) };
            FilterFile::Mask { rows, per_query: shape.len() == 2, n, bits }
        }
        Allowed::Ids(ids, shape) if shape.len() == 1 => FilterFile::Ids(ids),
        Allowed::Ids(_, shape) => {
            let wanted = "ids in one dimension, or a mask of booleans in one or two".to_owned();
            return Err(LoadError::Shape { path: path.to_owned(), found: npy::python_shape(&shape), wanted });
        }
    })
}

/// In lower case; "npz" for `file.npz:array`, "fbin" for `file.fbin.crop_nb_1000`, as slices of big-ann are called. A name
/// that says nothing may be a link that leads to one, such as `/dev/stdin`; what comes from a pipe is `.npy` then.
fn extension(path: &Path) -> String {
    let of = |file: &Path| {
        let file = if is_slice(file) { Path::new(file.file_stem().unwrap_or_default()) } else { file };
        file.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).filter(|e| !e.is_empty())
    };
    let file = npz::file_of(path);
    let linked = || of(&file.canonicalize().ok()?);
    let piped = || file.metadata().is_ok_and(|m| !m.is_file() && !m.is_dir()).then(|| "npy".to_owned());
    of(&file).or_else(linked).or_else(piped).unwrap_or_default()
}

/// Whether the name ends in `.crop_nb_N`: the first rows of a file, under the header of the whole.
fn is_slice(file: &Path) -> bool {
    file.extension().is_some_and(|e| e.as_encoded_bytes().starts_with(b"crop_nb_"))
}

fn unknown(path: &Path, wanted: &'static str) -> LoadError {
    LoadError::Extension { path: path.to_owned(), found: extension(path), wanted }
}

fn map(path: &Path) -> Result<Arc<Map>, LoadError> {
    Map::open(path).map(Arc::new).map_err(|e| LoadError::io(path, e))
}

/// The bytes of a `.npy` file, mapped, or of a member of a `.npz`, unpacked.
fn array_bytes(path: &Path) -> Result<Arc<dyn Backing>, LoadError> {
    if extension(path) == "npz" { npz::read(path) } else { Ok(map(path)?) }
}
