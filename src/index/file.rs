//! Indexes as `.nf` files: a section `meta` of `key value` lines, `rows` as they are stored, `ids` (u64) where the
//! caller gave them; where the index has 8-bit codes, `codes`, what rows have beside them (`code_terms`), and how vectors
//! are coded (`code_space`: mean and basis). Nothing in a file belongs to a device: what a GPU saved, a CPU opens.

use std::path::{Path, PathBuf};

use super::coding::Coding;
use super::rowbuf::Rows;
use super::store::Store;
use super::{Flat, IndexSpec};
use crate::codec::int8::{Basis, Coder};
use crate::engine::Device;
use crate::format::{AtomicFile, LoadError, Matrix, NfFile, NfWriter, SaveError};
use crate::index::BuildError;
use crate::ops::Screen;
use crate::ops::codes::{Codes, GROUP, MOST_DIM, PADDING};
use crate::types::{DType, Metric, RowsView};

/// Rows written at a time.
const ROWS_PER_WRITE: usize = 4096;

/// Why an index file could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file is missing, damaged or no `.nf` file.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The file is whole, but does not describe an index.
    #[error("`{}` is no index that can be opened here: {problem}", path.display())]
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
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct FileInfo {
    /// What it was built as, e.g. `Flat`.
    pub spec: IndexSpec,
    /// How far apart two rows are.
    pub metric: Metric,
    /// How rows are stored.
    pub dtype: DType,
    /// Components per row.
    pub dim: usize,
    /// Rows.
    pub rows: usize,
    /// Whether the ids are other than the row numbers.
    pub has_ids: bool,
    /// The id of the next row that comes without one.
    pub next_id: u64,
    /// The screen of every search that names none, if it was chosen.
    pub screen: Option<Screen>,
    /// Components of the 8-bit codes of the rows, if there are any.
    pub code_dim: Option<usize>,
    /// Inverted lists probed by a search that does not say how many, where there are lists.
    pub probes: Option<usize>,
    /// Rows re-ranked by a search that does not say how many, if that was chosen.
    pub rerank: Option<usize>,
    /// Rows re-ranked per result, if an index of Faiss said how many (`k_factor`).
    pub rerank_factor: Option<f32>,
}

/// Candidates per result.
fn factor(text: &str) -> Result<f32, String> {
    let factor = text.parse().ok().filter(|factor: &f32| factor.is_finite() && *factor >= 1.0);
    factor.ok_or_else(|| format!("`refine_factor` is `{text}`, wanted a number from 1"))
}

impl FileInfo {
    /// Reads the description in a verified file.
    ///
    /// # Errors
    /// [`OpenError`] when `meta` is missing or makes no sense.
    pub fn read(file: &NfFile) -> Result<FileInfo, OpenError> {
        let problem = |problem: String| OpenError::Meta { path: file.path().to_owned(), problem };
        let get = |key: &str| FileInfo::value(file, key);
        let number = |key: &str| FileInfo::number(file, key);
        Ok(FileInfo {
            spec: get("index")?.parse().map_err(|e| problem(format!("{e}")))?,
            metric: get("metric")?.parse().map_err(|e| problem(format!("{e}")))?,
            dtype: get("dtype")?.parse().map_err(|e| problem(format!("{e}")))?,
            dim: number("dim")?,
            rows: number("rows")?,
            has_ids: file.has("ids"),
            next_id: number("next_id")? as u64,
            screen: get("screen").ok().map(str::parse).transpose().map_err(|e| problem(format!("{e}")))?,
            code_dim: file.has("codes").then(|| number("code_dim")).transpose()?,
            probes: number("probes").ok(),
            rerank: get("refine").ok().map(|_| number("refine")).transpose()?,
            rerank_factor: get("refine_factor").ok().map(factor).transpose().map_err(problem)?,
        })
    }

    /// A line of `meta`.
    pub(super) fn value<'f>(file: &'f NfFile, key: &str) -> Result<&'f str, OpenError> {
        let problem = |problem: String| OpenError::Meta { path: file.path().to_owned(), problem };
        let text = str::from_utf8(file.section("meta")?).map_err(|_| problem("its `meta` is not text".into()))?;
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(k, _)| *k == key).map(|(_, value)| value).ok_or_else(|| problem(format!("`{key}` is missing")))
    }

    pub(super) fn number(file: &NfFile, key: &str) -> Result<usize, OpenError> {
        let value = FileInfo::value(file, key)?;
        let problem = format!("`{key}` is `{value}`, wanted a number");
        value.parse().map_err(|_| OpenError::Meta { path: file.path().to_owned(), problem })
    }
}

impl Flat {
    /// [`Index::stage`](super::Index::stage).
    pub(super) fn write(&self, path: &Path) -> Result<AtomicFile, SaveError> {
        let view = self.store.view();
        let mut file = NfWriter::create(path)?;
        let runs = self.store.roster().live_runs();
        let coding = self.store.fresh_codes().filter(|_| self.store.norms_in_range());
        let codes = coding.as_ref().and_then(|c| Some((&c.coder, c.codes.select(&runs)?)));
        let mut meta = format!(
            "index Flat\nmetric {}\ndtype {}\ndim {}\nrows {}\nnext_id {}\n",
            self.metric(),
            self.dtype(),
            self.dim(),
            self.len(),
            self.store.roster().next_id()
        );
        if let Some(screen) = self.screen {
            meta += &format!("screen {screen}\n");
        }
        if let Some((coder, codes)) = &codes {
            meta += &format!("code_dim {}\ncode_kept {}\n", codes.dim, coder.kept());
        }
        file.section("meta", [meta])?;
        saved_rows(&mut file, &view, &runs)?;
        if let Some(ids) = self.store.roster().live_ids() {
            file.section("ids", ids.chunks(ROWS_PER_WRITE).map(|c| bytemuck::cast_slice::<u64, u8>(c).to_vec()))?;
        }
        if let Some((coder, codes)) = &codes {
            file.section("codes", [&codes.bytes[..codes.rows() * codes.dim]])?;
            let terms = [&codes.square, &codes.scale, &codes.residual, &codes.tail, &codes.longest];
            file.section("code_terms", terms.map(|t| bytemuck::cast_slice::<f32, u8>(t)))?;
            let basis = coder.basis.as_ref().map_or(&[][..], |b| &b.rows);
            file.section("code_space", [&coder.mean[..], basis].map(bytemuck::cast_slice::<f32, u8>))?;
        }
        file.stage()
    }

    /// Opens an index file: verifies every byte, in time for the whole file. Rows are mapped, not copied, and stay on disk
    /// until they are read.
    ///
    /// # Errors
    /// [`OpenError`] naming the file and what is wrong with it.
    pub fn open(device: &Device, path: impl AsRef<Path>) -> Result<Flat, OpenError> {
        let _entered = device.enter();
        let file = NfFile::open(path)?;
        let info = FileInfo::read(&file)?;
        if !info.spec.is_flat() {
            let problem = format!("it holds `{}`, no Flat; `AnyIndex::open` opens either", info.spec);
            return Err(OpenError::Meta { path: file.path().to_owned(), problem });
        }
        let index = Flat::read(device, &file, &info)?;
        file.check_unchanged()?;
        Ok(index)
    }

    /// The index in a file that is open and verified.
    pub(super) fn read(device: &Device, file: &NfFile, info: &FileInfo) -> Result<Flat, OpenError> {
        let rows: Matrix = file.matrix("rows", info.dtype, info.rows, info.dim)?;
        let ids = info.has_ids.then(|| ids(file, info.rows)).transpose()?;
        let mut store = Store::over(info.metric, Rows::Mapped(rows), ids, info.next_id)
            .map_err(|source| OpenError::Rows { path: file.path().to_owned(), source })?;
        if let Some(dim) = info.code_dim {
            store.set_codes(coding(file, info, dim)?);
        }
        let mut flat = Flat::from_store(device, store);
        flat.screen = info.screen;
        Ok(flat)
    }
}

/// The section `rows`.
pub(super) fn saved_rows(file: &mut NfWriter, view: &RowsView<'_>, runs: &[(usize, usize)]) -> Result<(), SaveError> {
    let chunks = runs.iter().flat_map(|&(start, end)| {
        (start..end).step_by(ROWS_PER_WRITE).map(move |from| (from, (from + ROWS_PER_WRITE).min(end)))
    });
    file.section(
        "rows",
        chunks.map(|(from, to)| (from..to).flat_map(|r| view.row_bytes(r)).copied().collect::<Vec<u8>>()),
    )
}

pub(super) fn ids(file: &NfFile, rows: usize) -> Result<Vec<u64>, OpenError> {
    let bytes = file.section("ids")?;
    if Some(bytes.len()) != rows.checked_mul(8) {
        let problem = format!("{rows} rows need {rows} ids of 8 bytes, `ids` has {} bytes", bytes.len());
        return Err(OpenError::Meta { path: file.path().to_owned(), problem });
    }
    Ok(bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned).collect())
}

/// The codes in a file, of which every length and number is checked.
fn coding(file: &NfFile, info: &FileInfo, dim: usize) -> Result<Coding, OpenError> {
    let problem = |problem: String| OpenError::Meta { path: file.path().to_owned(), problem };
    let (n, full) = (info.rows, info.dim);
    let floats = |name: &str, wanted: usize| -> Result<Vec<f32>, OpenError> {
        let bytes = file.section(name)?;
        if Some(bytes.len()) != wanted.checked_mul(4) {
            return Err(problem(format!("`{name}` has {} bytes, wanted {wanted} numbers of 4", bytes.len())));
        }
        let numbers: Vec<f32> = bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
        match numbers.iter().position(|x| !x.is_finite()) {
            Some(i) => Err(problem(format!("number {i} of `{name}` is {}", numbers[i]))),
            None => Ok(numbers),
        }
    };
    let kept = FileInfo::number(file, "code_kept")?;
    let components = if kept == 0 { full } else { kept };
    let bytes = file.section("codes")?;
    let fits =
        dim <= MOST_DIM && full <= 1 << 24 && kept <= full && components.checked_next_multiple_of(16) == Some(dim);
    if !fits || n.checked_mul(dim) != Some(bytes.len()) {
        let found = bytes.len();
        return Err(problem(format!(
            "codes of {dim} components ({kept} kept) do not fit {n} rows of {full} in {found} bytes"
        )));
    }
    // No product below overflows: dim is at most 2^16, full 2^24, and there are n bytes at least.
    let mut terms = floats("code_terms", 4 * n + n.div_ceil(GROUP))?;
    let mut mean = floats("code_space", full + if kept == 0 { 0 } else { dim * full })?;
    let basis = mean.split_off(full);
    if basis.iter().skip(kept * full).any(|&x| x != 0.0) {
        return Err(problem(format!("the basis in `code_space` has more than its {kept} rows")));
    }
    let longest = terms.split_off(4 * n);
    let part = |i: usize| terms[i * n..(i + 1) * n].to_vec();
    let codes = Codes {
        dim,
        bytes: bytes.iter().copied().chain([0; PADDING]).collect(),
        square: part(0),
        scale: part(1),
        residual: part(2),
        tail: part(3),
        longest,
    };
    let basis = (kept > 0).then(|| Basis::new(basis, full, kept));
    Ok(Coding::new(Coder::new(info.metric, mean, basis, dim), codes))
}
