//! Rows, queries and filters from files, with errors that name the file.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use nearfield::format::{FilterFile, Matrix, read_filter, read_ids, read_matrix};
use nearfield::{AnyIndex, Bitmap, DType, Device, Filter, IndexSpec, Metric, RowsView, TrainOptions};

use crate::common::{in_file, metric, spec};
use crate::fail;

/// The rows to search: a file of vectors, or an index built from one.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// Vectors to search: .npy, .npz:array, .fvecs, .bvecs, .ivecs, .fbin, .u8bin, .i8bin
    #[arg(long, value_name = "F", required_unless_present = "index_file")]
    pub base: Option<PathBuf>,
    /// An index to search, as `nearfield build` writes it
    #[arg(long, value_name = "X.nf", conflicts_with_all = ["base", "metric", "index", "packed_bits"])]
    pub index_file: Option<PathBuf>,
    #[command(flatten)]
    pub how: HowArgs,
}

/// Options of building an index from a file of vectors.
#[derive(Args, Clone, Debug)]
pub struct HowArgs {
    /// l2, ip, cosine, l1, linf, lp:P, canberra, bray-curtis, jensen-shannon, jaccard or hamming
    #[arg(long, value_name = "M", value_parser = metric)]
    pub metric: Option<Metric>,
    /// How rows are stored: Flat is exact; IVF1024,RaBitQ4,RFlat, PQ32, SQ8 and others, as Faiss spells them, trade
    /// recall for speed or bytes
    #[arg(long, value_name = "SPEC", value_parser = spec, default_value = "Flat")]
    pub index: IndexSpec,
    /// Training rows, drawn at random [default: as many as suit the index]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub train_rows: Option<u32>,
    /// Seed of all random choices in training: the same seed, the same index
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Take rows of u8 as packed bits (hamming always does; for jaccard)
    #[arg(long)]
    pub packed_bits: bool,
}

impl HowArgs {
    /// The metric, which a file of vectors needs and an index file has.
    pub fn metric(&self) -> Result<Metric> {
        self.metric
            .ok_or_else(|| fail::input(format!("--metric <M> is missing; there are {}", Metric::NAMES.join(", "))))
    }

    /// Flat by this metric.
    pub fn of(metric: Metric) -> HowArgs {
        HowArgs { metric: Some(metric), index: IndexSpec::FLAT, train_rows: None, seed: 0, packed_bits: false }
    }

    /// How the index learns.
    pub fn training(&self) -> TrainOptions {
        let options = TrainOptions::default().seed(self.seed);
        match self.train_rows {
            Some(rows) => options.rows(rows as usize),
            None => options,
        }
    }

    fn bits(&self) -> bool {
        self.packed_bits || self.index.binary || self.metric == Some(Metric::Hamming)
    }
}

/// An index over a file.
pub struct Source {
    pub index: AnyIndex,
    pub path: PathBuf,
}

impl SourceArgs {
    /// The file of the rows, or of the index.
    pub fn path(&self) -> Result<&PathBuf> {
        self.base.as_ref().or(self.index_file.as_ref()).ok_or_else(|| fail::input("--base is missing"))
    }

    /// The index over the rows. An index without rows is an error.
    pub fn open(&self, device: &Device) -> Result<Source> {
        let path = self.path()?.clone();
        let index = match &self.index_file {
            Some(file) => AnyIndex::open(device, file)?,
            None => build(device, rows(&path, &self.how)?, None, &path, &self.how)?,
        };
        not_empty(index.len(), &path)?;
        Ok(Source { index, path })
    }
}

/// The index over loaded rows.
pub fn build(device: &Device, rows: Matrix, ids: Option<Vec<u64>>, path: &Path, how: &HowArgs) -> Result<AnyIndex> {
    let index = in_file(AnyIndex::build(device, &how.index, how.metric()?, rows, ids, &how.training()), path)?;
    note_warnings(&index);
    Ok(index)
}

/// Prints the warnings of building an index.
pub fn note_warnings(index: &AnyIndex) {
    if let AnyIndex::Ivf(ivf) = index {
        ivf.warnings().iter().for_each(|warning| fail::tell("note", warning));
    }
}

/// Rows from a file, with a note if there is something to say of it.
pub fn matrix(path: &Path) -> Result<Matrix> {
    let matrix = read_matrix(path)?;
    if let Some(note) = matrix.note() {
        fail::tell("note", &format!("`{}`: {note}", path.display()));
    }
    Ok(matrix)
}

/// The rows of a base.
pub fn rows(path: &Path, how: &HowArgs) -> Result<Matrix> {
    let matrix = matrix(path)?;
    let matrix = if how.bits() { in_file(matrix.into_bits(), path)? } else { matrix };
    not_empty(matrix.rows(), path)?;
    Ok(matrix)
}

fn not_empty(rows: usize, path: &Path) -> Result<()> {
    if rows == 0 {
        Err(fail::input(format!("`{}` holds no rows, wanted at least one", path.display())))
    } else {
        Ok(())
    }
}

/// Queries that fit the index: the same dim, finite, not negative where the metric is undefined.
pub fn queries(path: &Path, source: &Source) -> Result<Matrix> {
    let matrix = matrix(path)?;
    let index = &source.index;
    let matrix = if index.dtype() == DType::Bits { in_file(matrix.into_bits(), path)? } else { matrix };
    if matrix.dim() != index.dim() {
        let unit = if index.dtype() == DType::Bits { "bits" } else { "components" };
        return Err(fail::input(format!(
            "`{}` has queries of {} {unit}, but `{}` has rows of {}",
            path.display(),
            matrix.dim(),
            source.path.display(),
            index.dim()
        )));
    }
    check_values(&matrix.view(), index.metric()).map_err(|e| fail::input(format!("`{}`: {e}", path.display())))?;
    Ok(matrix)
}

/// All values before the first is used, so that no work is thrown away.
pub fn check_values(rows: &RowsView<'_>, metric: Metric) -> std::result::Result<(), String> {
    if rows.dtype() == DType::Bits {
        return Ok(());
    }
    let mut row = vec![0.0; rows.dim()];
    for r in 0..rows.rows() {
        rows.row_f64(r, &mut row);
        let at = |c: usize, x: f64| format!("row {r}, component {c} is {x}");
        if let Some((c, x)) = row.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            return Err(format!("{}, wanted a finite number", at(c, *x)));
        }
        if let Some((c, x)) = row.iter().enumerate().find(|(_, x)| metric.needs_non_negative() && **x < 0.0) {
            return Err(format!("{}, but {metric} is defined on non-negative values only", at(c, *x)));
        }
    }
    Ok(())
}

/// Which rows may be returned to which query.
pub enum Allowed {
    /// The same filter for every query, or none.
    Shared(Option<Filter>),
    /// `[q, n]`.
    Each { n: usize, bits: Vec<bool> },
}

impl Allowed {
    /// Reads `--filter` and checks it against the index and the number of queries.
    pub fn read(path: Option<&PathBuf>, source: &Source, queries: usize) -> Result<Allowed> {
        let Some(path) = path else { return Ok(Allowed::Shared(None)) };
        let wrong = |text: String| fail::input(format!("`{}` {text}", path.display()));
        match read_filter(path)? {
            // An id that is not there allows nothing, and a negative one never is.
            FilterFile::Ids(ids) => {
                Ok(Allowed::Shared(Some(Filter::Ids(ids.into_iter().filter_map(|id| id.try_into().ok()).collect()))))
            }
            FilterFile::Mask { n, .. } if n != source.index.len() => Err(wrong(format!(
                "is a mask over {n} rows, but `{}` has {}",
                source.path.display(),
                source.index.len()
            ))),
            FilterFile::Mask { per_query: false, n, bits, .. } => {
                Ok(Allowed::Shared(Some(Filter::Rows(Bitmap::from_fn(n, |i| bits[i])))))
            }
            FilterFile::Mask { rows, .. } if rows != queries => {
                Err(wrong(format!("holds masks for {rows} queries, but there are {queries}")))
            }
            FilterFile::Mask { n, bits, .. } => Ok(Allowed::Each { n, bits }),
        }
    }

    /// The filter of queries `start..end`.
    pub fn of(&self, start: usize, end: usize) -> Option<Filter> {
        match self {
            Allowed::Shared(filter) => filter.clone(),
            Allowed::Each { n, bits } => {
                let of = |q: usize| Bitmap::from_fn(*n, |i| bits[q * n + i]);
                Some(Filter::RowsPerQuery((start..end).map(of).collect()))
            }
        }
    }
}

/// The ids of `rows` rows: int64, one dimension.
pub fn row_ids(path: &Path, rows: usize, base: &Path) -> Result<Vec<u64>> {
    let file = read_ids(path)?;
    if !matches!(file.shape[..], [_] | [_, 1]) || file.ids.len() != rows {
        return Err(fail::input(format!(
            "`{}` has shape {:?}, wanted [{rows}]: one id for each row of `{}`",
            path.display(),
            file.shape,
            base.display()
        )));
    }
    let convert = |(row, id): (usize, i64)| {
        u64::try_from(id)
            .map_err(|_| fail::input(format!("`{}`: row {row} is {id}, wanted an id of 0 or more", path.display())))
    };
    file.ids.into_iter().enumerate().map(convert).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_by_metric() {
        let rows = [[1.0f32, 2.0], [0.5, -3.0]];
        assert_eq!(check_values(&RowsView::from(&rows), Metric::L2), Ok(()));
        let said = check_values(&RowsView::from(&rows), Metric::JensenShannon).unwrap_err();
        assert!(said.starts_with("row 1, component 1 is -3"), "{said}");
        let rows = [[1.0, f32::NAN]];
        assert!(check_values(&RowsView::from(&rows), Metric::L2).unwrap_err().contains("component 1 is NaN"));
    }
}
