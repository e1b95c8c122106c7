//! Indexes as `.nf` files: a section `meta` of `key value` lines, `rows` as they are stored, `ids` (u64) where the
//! caller gave them. Nothing in a file belongs to a device: what a GPU saved, a CPU opens.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::rowbuf::Rows;
use super::store::Store;
use super::{Flat, Index};
use crate::engine::Device;
use crate::error::BuildError;
use crate::format::{LoadError, Matrix, NfFile, NfWriter, SaveError};
use crate::types::{DType, Metric};

/// Rows written at a time.
const RUN: usize = 4096;

/// Why an index file could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file is missing, damaged or no `.nf` file.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The file is whole, but does not describe an index.
    #[error("`{}` does not describe an index: {problem}", path.display())]
    Meta {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        problem: String,
    },
    /// The file is whole, but its rows can't be searched.
    #[error("the rows of `{}` can't be used: {source}", path.display())]
    Rows {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: BuildError,
    },
}

/// What an `.nf` file says of the index in it.
#[derive(Clone, Debug, PartialEq)]
pub struct FileInfo {
    /// The structure, e.g. `Flat`.
    pub index: String,
    /// How far apart two rows are.
    pub metric: Metric,
    /// How rows are stored.
    pub dtype: DType,
    /// Components a row.
    pub dim: usize,
    /// Rows.
    pub rows: usize,
    /// Whether the ids are other than the row numbers.
    pub has_ids: bool,
    /// The smallest number that no row has had as its id.
    pub next_id: u64,
}

impl FileInfo {
    /// Reads what a verified file says of itself.
    ///
    /// # Errors
    /// [`OpenError`] when `meta` is missing or makes no sense.
    pub fn read(file: &NfFile) -> Result<FileInfo, OpenError> {
        let problem = |problem: String| OpenError::Meta { path: file.path().to_owned(), problem };
        let text = str::from_utf8(file.section("meta")?).map_err(|_| problem("its `meta` is not text".into()))?;
        let lines: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(' ')).collect();
        let get = |key: &str| lines.get(key).copied().ok_or_else(|| problem(format!("`{key}` is missing")));
        let number = |key: &str| {
            let value = get(key)?;
            value.parse::<usize>().map_err(|_| problem(format!("`{key}` is `{value}`, wanted a number")))
        };
        let dtype = get("dtype")?;
        let index = get("index")?;
        if index != "Flat" {
            return Err(problem(format!("its index is `{index}`; this program reads Flat")));
        }
        Ok(FileInfo {
            index: index.to_owned(),
            metric: get("metric")?.parse().map_err(|e| problem(format!("{e}")))?,
            dtype: DType::ALL
                .into_iter()
                .find(|d| d.to_string() == dtype)
                .ok_or_else(|| problem(format!("`dtype` is `{dtype}`, wanted one of f32 f16 bf16 i8 u8 bits")))?,
            dim: number("dim")?,
            rows: number("rows")?,
            has_ids: file.has("ids"),
            next_id: number("next_id")? as u64,
        })
    }
}

impl Flat {
    /// Writes the index to `path`, which is replaced at once or not at all.
    ///
    /// # Errors
    /// [`SaveError`]; what was at the path before stays.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
        let view = self.store.view();
        let mut file = NfWriter::create(path)?;
        let meta = format!(
            "index Flat\nmetric {}\ndtype {}\ndim {}\nrows {}\nnext_id {}\n",
            self.metric(),
            self.dtype(),
            self.dim(),
            self.len(),
            self.store.next_id()
        );
        file.section("meta", [meta])?;
        let chunks = self
            .store
            .live_runs()
            .into_iter()
            .flat_map(|(start, end)| (start..end).step_by(RUN).map(move |from| (from, (from + RUN).min(end))));
        file.section(
            "rows",
            chunks.map(|(from, to)| (from..to).flat_map(|r| view.row_bytes(r)).copied().collect::<Vec<u8>>()),
        )?;
        if let Some(ids) = self.store.live_ids() {
            file.section("ids", ids.chunks(RUN).map(|c| bytemuck::cast_slice::<u64, u8>(c).to_vec()))?;
        }
        file.finish()
    }

    /// Opens an index file: verifies every byte, maps the rows without copying them.
    ///
    /// # Errors
    /// [`OpenError`] naming the file and what is wrong with it.
    pub fn load(device: &Device, path: impl AsRef<Path>) -> Result<Flat, OpenError> {
        let file = NfFile::open(path)?;
        let info = FileInfo::read(&file)?;
        let rows: Matrix = file.matrix("rows", info.dtype, info.rows, info.dim)?;
        let ids = info.has_ids.then(|| ids(&file, info.rows)).transpose()?;
        let store = Store::over(info.metric, Rows::Mapped(rows), ids, info.next_id)
            .map_err(|source| OpenError::Rows { path: file.path().to_owned(), source })?;
        Ok(Flat::from_store(device, store))
    }
}

fn ids(file: &NfFile, rows: usize) -> Result<Vec<u64>, OpenError> {
    let bytes = file.section("ids")?;
    if Some(bytes.len()) != rows.checked_mul(8) {
        let problem = format!("{rows} rows need {rows} ids of 8 bytes, `ids` has {} bytes", bytes.len());
        return Err(OpenError::Meta { path: file.path().to_owned(), problem });
    }
    Ok(bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect())
}
