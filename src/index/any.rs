//! Any index: for programs that let their users choose the spec.

use std::path::Path;

use super::{
    Explanation, FileInfo, Flat, Index, IndexSpec, IndexStats, Ivf, OpenError, Ranging, SearchOptions, Searching,
    TrainOptions, Trial,
};
use crate::engine::Device;
use crate::error::{RowError, SearchError};
use crate::format::{AtomicFile, Matrix, NfFile, SaveError};
use crate::index::BuildError;
use crate::stats::SearchStats;
use crate::types::{DType, Metric, Neighbors, RangeHits, RowsView};

/// An index of whatever structure its spec names.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nearfield::format::Matrix;
/// use nearfield::{AnyIndex, Device, Index, IndexSpec, Metric, TrainOptions};
///
/// let rows = Matrix::from_vec((0..4000).map(|i| ((i * 37) % 101) as f32).collect(), 4)?;
/// let spec: IndexSpec = "IVF8,SQ8,RFlat".parse()?;
/// let index = AnyIndex::build(&Device::cpu(), &spec, Metric::L2, rows, None, &TrainOptions::default())?;
/// assert_eq!(index.len(), 1000);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
// There are few of these, and each holds megabytes.
#[allow(clippy::large_enum_variant)]
pub enum AnyIndex {
    /// Exact search.
    Flat(Flat),
    /// Approximate search in compressed rows.
    Ivf(Ivf),
}

macro_rules! each {
    ($any:expr, $index:ident => $body:expr) => {
        match $any {
            AnyIndex::Flat($index) => $body,
            AnyIndex::Ivf($index) => $body,
        }
    };
}

impl AnyIndex {
    /// Trains the parts of the spec on the rows (`[n, dim]`), and holds them under these ids, or under their numbers. A `Flat`
    /// keeps the matrix as it is, without a copy.
    ///
    /// # Errors
    /// [`BuildError`] as for [`Flat::from_matrix`], [`Ivf::train`] and [`Ivf::add_with_ids`].
    pub fn build(
        device: &Device,
        spec: &IndexSpec,
        metric: Metric,
        rows: Matrix,
        ids: Option<Vec<u64>>,
        options: &TrainOptions,
    ) -> Result<AnyIndex, BuildError> {
        if spec.is_flat() {
            return Ok(AnyIndex::Flat(Flat::from_matrix(device, rows, metric, ids)?));
        }
        let mut index = Ivf::train(device, spec, metric, rows.view(), options)?;
        match &ids {
            Some(ids) => index.add_with_ids(rows.view(), ids)?,
            None => index.add(rows.view()).map(drop)?,
        }
        Ok(AnyIndex::Ivf(index))
    }

    /// Opens an index file of any structure: verifies every byte, in time for the whole file. Rows are mapped, not copied,
    /// and stay on disk until they are read.
    ///
    /// # Errors
    /// [`OpenError`] naming the file and what is wrong with it.
    pub fn open(device: &Device, path: impl AsRef<Path>) -> Result<AnyIndex, OpenError> {
        let _entered = device.enter();
        let file = NfFile::open(path)?;
        let info = FileInfo::read(&file)?;
        let index = match info.spec.is_flat() {
            true => Flat::read(device, &file, &info).map(AnyIndex::Flat),
            false => Ivf::read(device, &file, info).map(AnyIndex::Ivf),
        }?;
        file.check_unchanged()?;
        Ok(index)
    }
}

impl From<Flat> for AnyIndex {
    fn from(index: Flat) -> AnyIndex {
        AnyIndex::Flat(index)
    }
}

impl From<Ivf> for AnyIndex {
    fn from(index: Ivf) -> AnyIndex {
        AnyIndex::Ivf(index)
    }
}

/// Every verb of the index that it is.
macro_rules! delegate {
    ($(fn $name:ident(&self $(, $arg:ident: $t:ty)*) $(-> $out:ty)?;)* ; $(fn $change:ident(&mut self $(, $what:ident: $u:ty)*) $(-> $gives:ty)?;)*) => {
        impl Index for AnyIndex {
            fn search_async<'a>(&'a self, queries: RowsView<'a>, k: usize, options: &SearchOptions) -> Searching<'a> {
                each!(self, index => Index::search_async(index, queries, k, options))
            }

            fn range_search_async<'a>(&'a self, queries: RowsView<'a>, radius: f32, options: &SearchOptions) -> Ranging<'a> {
                each!(self, index => Index::range_search_async(index, queries, radius, options))
            }

            $(fn $name(&self $(, $arg: $t)*) $(-> $out)? { each!(self, index => Index::$name(index $(, $arg)*)) })*
            $(fn $change(&mut self $(, $what: $u)*) $(-> $gives)? { each!(self, index => Index::$change(index $(, $what)*)) })*
        }
    };
}

delegate! {
    fn len(&self) -> usize;
    fn dim(&self) -> usize;
    fn metric(&self) -> Metric;
    fn dtype(&self) -> DType;
    fn spec(&self) -> IndexSpec;
    fn device(&self) -> &Device;
    fn memory_bytes(&self) -> usize;
    fn stats(&self) -> IndexStats;
    fn ids(&self) -> Box<dyn Iterator<Item = u64> + '_>;
    fn state(&self) -> u64;
    fn contains(&self, id: u64) -> bool;
    fn row(&self, id: u64) -> Result<Vec<f32>, RowError>;
    fn search_with(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<(Neighbors, SearchStats), SearchError>;
    fn range_search_with(&self, queries: RowsView<'_>, radius: f32, options: &SearchOptions) -> Result<(RangeHits, SearchStats), SearchError>;
    fn explain(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<Explanation, SearchError>;
    fn trial(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<Trial, SearchError>;
    fn warm_up(&self, batches: &[usize], k: usize) -> Result<SearchStats, SearchError>;
    fn stage(&self, path: &Path) -> Result<AtomicFile, SaveError>;
    ;
    fn set_device(&mut self, device: &Device);
    fn add(&mut self, rows: RowsView<'_>) -> Result<Vec<u64>, BuildError>;
    fn add_with_ids(&mut self, rows: RowsView<'_>, ids: &[u64]) -> Result<(), BuildError>;
    fn update(&mut self, id: u64, row: RowsView<'_>) -> Result<(), BuildError>;
    fn remove(&mut self, ids: &[u64]) -> usize;
    fn set_probes(&mut self, probes: usize);
    fn set_rerank(&mut self, rows: Option<usize>);
}
