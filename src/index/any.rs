//! Any index: what a program holds that lets its users choose the spec.

use std::path::Path;

use super::{Explanation, FileInfo, Flat, Index, IndexSpec, Ivf, OpenError, SearchOptions, TrainOptions, Trial};
use crate::engine::Device;
use crate::error::SearchError;
use crate::format::{Matrix, NfFile, SaveError};
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
#[derive(Debug)]
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
    /// Trains on the rows what the spec needs, and holds them under these ids, or under their numbers.
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

    /// Opens an index file of any structure: verifies every byte.
    ///
    /// # Errors
    /// [`OpenError`] naming the file and what is wrong with it.
    pub fn load(device: &Device, path: impl AsRef<Path>) -> Result<AnyIndex, OpenError> {
        let _entered = device.enter();
        let path = path.as_ref();
        let spec = FileInfo::read(&NfFile::open(path)?)?.spec;
        if spec.is_flat() {
            Flat::load(device, path).map(AnyIndex::Flat)
        } else {
            Ivf::load(device, path).map(AnyIndex::Ivf)
        }
    }

    /// Writes the index to `path`, which is replaced at once or not at all.
    ///
    /// # Errors
    /// [`SaveError`]; what was at the path before stays.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
        each!(self, index => index.save(path))
    }

    /// What it was built as.
    pub fn spec(&self) -> IndexSpec {
        match self {
            AnyIndex::Flat(_) => IndexSpec::FLAT,
            AnyIndex::Ivf(index) => index.spec().clone(),
        }
    }

    /// The element type of the rows that are kept.
    pub fn dtype(&self) -> DType {
        each!(self, index => index.dtype())
    }

    /// The device that searches.
    pub fn device(&self) -> &Device {
        each!(self, index => index.device())
    }

    /// The same index, searched by another device from now on.
    pub fn set_device(&mut self, device: &Device) {
        each!(self, index => index.set_device(device))
    }

    /// The plan of a search with bytes, operations and predicted time of each step.
    ///
    /// # Errors
    /// As the index's search.
    pub fn explain(
        &self,
        queries: RowsView<'_>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<Explanation, SearchError> {
        each!(self, index => index.explain(queries, k, options))
    }

    /// Runs a search twice on the index's device and compares the second with what was predicted.
    ///
    /// # Errors
    /// As the index's search.
    pub fn trial(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<Trial, SearchError> {
        each!(self, index => index.trial(queries, k, options))
    }
}

impl Index for AnyIndex {
    fn len(&self) -> usize {
        each!(self, index => index.len())
    }

    fn dim(&self) -> usize {
        each!(self, index => index.dim())
    }

    fn metric(&self) -> Metric {
        each!(self, index => index.metric())
    }

    fn memory_bytes(&self) -> usize {
        each!(self, index => index.memory_bytes())
    }

    fn search_with(
        &self,
        queries: RowsView<'_>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<(Neighbors, SearchStats), SearchError> {
        each!(self, index => index.search_with(queries, k, options))
    }

    fn range_search_with(
        &self,
        queries: RowsView<'_>,
        radius: f32,
        options: &SearchOptions,
    ) -> Result<(RangeHits, SearchStats), SearchError> {
        each!(self, index => index.range_search_with(queries, radius, options))
    }
}
