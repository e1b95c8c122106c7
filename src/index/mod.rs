//! Indexes: structures that write plans over verbs. They name no engine and no WGSL.

mod any;
mod coding;
mod decide;
mod error;
mod explain;
mod file;
mod flat;
mod import;
mod ivf;
mod options;
mod planner;
mod roster;
mod rowbuf;
mod search;
mod shared;
mod spec;
mod stats;
mod store;
mod sugar;
mod tuning;
mod warm;

pub use any::AnyIndex;
pub use error::BuildError;
pub use explain::{Explanation, Trial};
pub use file::{FileInfo, OpenError};
pub use flat::Flat;
pub use import::ImportError;
pub use ivf::Ivf;
pub use options::{SearchOptions, TrainOptions};
pub(crate) use search::Queries;
pub use shared::{Sharable, Shared};
pub use spec::{CodecSpec, IndexSpec, RerankSpec, SpecError, TransformSpec};
pub use stats::IndexStats;
pub use tuning::{TuneError, Tuned, TunedPoint, Tuning, fastest, settings};

use std::fmt;
use std::path::Path;

use crate::compute::Pending;
use crate::engine::Device;
use crate::error::{RowError, SearchError};
use crate::format::{AtomicFile, SaveError};
use crate::stats::SearchStats;
use crate::types::{Bitmap, DType, Filter, Metric, Neighbors, RangeHits, RowsView};

/// The operations of every index. An index of any structure is a `&dyn Index`; [`AnyIndex`] owns one, and
/// [`AnyIndex::open`] and [`AnyIndex::build`] make it.
///
/// The methods here take rows as [`RowsView`], so that they can be called through a trait object: `(&rows).into()` makes one
/// of arrays and views. [`Flat`], [`Ivf`] and [`AnyIndex`] have the same methods under the same names for rows in any form
/// ([`IntoRows`](crate::IntoRows)), without this trait being imported.
///
/// **Threads.** Reading takes `&self`, from any number of threads; every call uses the threads and the GPU of the index's
/// [`Device`] and returns when its answer is there. Changing takes `&mut self`; [`Shared`](crate::Shared) lets one thread
/// change what others search.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nearfield::{Device, Flat, Index, Metric, SearchOptions};
///
/// let mut index: Box<dyn Index> = Box::new(Flat::new(&Device::cpu(), 2, Metric::L2)?);
/// index.add_with_ids((&[[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]]).into(), &[10, 11, 12])?;
/// index.remove(&[10]);
/// let (hits, _) = index.search_with((&[[0.9, 0.0]]).into(), 1, &SearchOptions::default())?;
/// assert_eq!(hits.ids(), [12]);
/// assert_eq!(index.ids().collect::<Vec<_>>(), [11, 12]);
/// # Ok(()) }
/// ```
pub trait Index: fmt::Debug + Send + Sync {
    /// Rows that a search can find.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Components per row; bits for packed bits.
    fn dim(&self) -> usize;

    /// How far apart two rows are.
    fn metric(&self) -> Metric;

    /// The element type of the rows that are kept; f32 (or bits) where none are.
    fn dtype(&self) -> DType;

    /// What the index was built as.
    fn spec(&self) -> IndexSpec;

    /// The device that searches.
    fn device(&self) -> &Device;

    /// The same index, searched by another device from now on. Copies that the device before it held are dropped when it
    /// needs their memory.
    fn set_device(&mut self, device: &Device);

    /// Bytes of host memory (or of the mapped file) that the index takes.
    fn memory_bytes(&self) -> usize;

    /// Contents and settings of the index. Takes constant time.
    fn stats(&self) -> IndexStats;

    /// The ids of the rows, in the order in which the rows came. A bit of [`Filter::Rows`] stands for the row whose id has
    /// the same place here.
    fn ids(&self) -> Box<dyn Iterator<Item = u64> + '_>;

    /// Whether there is a row with this id. Takes constant time.
    fn contains(&self, id: u64) -> bool;

    /// The row with this id as f32, `dim` long (bits as 0 and 1). Takes time for one row.
    ///
    /// # Errors
    /// [`RowError`]: there is no such row, or the index keeps codes only (a spec with `RFlat` keeps rows).
    fn row(&self, id: u64) -> Result<Vec<f32>, RowError>;

    /// Every id with its row as [`Index::row`] gives it, in the order of [`Index::ids`].
    ///
    /// # Errors
    /// [`RowError::NotKept`] where the index keeps codes only.
    fn rows(&self) -> Result<RowIter<'_>, RowError> {
        // The first row tells whether there are any to be had.
        if let Some(first) = self.ids().next() {
            self.row(first)?;
        }
        Ok(Box::new(self.ids().filter_map(|id| Some((id, self.row(id).ok()?)))))
    }

    /// A filter that allows the rows whose ids meet a condition: one bit per row. It is good until a row is added or
    /// removed; a search with it is an error then ([`SearchError::FilterStale`]). Asks once for each row.
    fn filter_by(&self, allowed: &dyn Fn(u64) -> bool) -> Filter {
        let mut rows = Bitmap::new(self.len(), false);
        for (i, id) in self.ids().enumerate() {
            rows.set(i, allowed(id));
        }
        Filter::Rows(rows.of_state(self.state()))
    }

    /// Which rows these are, as filters remember it; 0 where that is not told.
    #[doc(hidden)]
    fn state(&self) -> u64 {
        0
    }

    /// The `k` nearest rows of each query (`[q, dim]`; any element type that compares with the rows): `[q, k]`.
    ///
    /// [`Flat`] scans all n rows, O(q n d) operations at most and far fewer behind a screen. [`Ivf`] scans the rows in the
    /// probed lists. Blocks until the answer is there. The first search on a machine compiles kernels;
    /// [`Index::warm_up`] does that ahead.
    ///
    /// # Errors
    /// [`SearchError`]: `k` is 0, another dimension, NaN or infinity (query named), or the device failed.
    fn search(&self, queries: RowsView<'_>, k: usize) -> Result<Neighbors, SearchError> {
        self.search_with(queries, k, &SearchOptions::default()).map(|(found, _)| found)
    }

    /// [`Index::search`] with options; gives what it cost, too: which device answered, by which kernels, how long each
    /// stage took, and why a device that was asked for did not answer.
    ///
    /// # Errors
    /// As [`Index::search`], and for options that do not fit the index.
    fn search_with(
        &self,
        queries: RowsView<'_>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<(Neighbors, SearchStats), SearchError> {
        self.search_async(queries, k, options).wait()
    }

    /// [`Index::search_with`] as a future. It holds up no thread while a GPU works; its work on the CPU is done by who polls
    /// it. For a future that owns what it needs and is driven by a thread of the device, see
    /// [`Shared::search_async`](crate::Shared::search_async).
    fn search_async<'a>(&'a self, queries: RowsView<'a>, k: usize, options: &SearchOptions) -> Searching<'a>;

    /// All rows within `radius` of each query: distances at most, similarities at least the radius, in the units of
    /// [`Metric`] (l2 is squared). An [`Ivf`] gives those in the probed lists, as far as its codes can tell rows apart; with
    /// all lists and rows kept (`RFlat`), exactly all.
    ///
    /// # Errors
    /// As [`Index::search`], and when the radius is not a number.
    fn range_search(&self, queries: RowsView<'_>, radius: f32) -> Result<RangeHits, SearchError> {
        self.range_search_with(queries, radius, &SearchOptions::default()).map(|(found, _)| found)
    }

    /// [`Index::range_search`] with options, and what it cost.
    ///
    /// # Errors
    /// As [`Index::range_search`].
    fn range_search_with(
        &self,
        queries: RowsView<'_>,
        radius: f32,
        options: &SearchOptions,
    ) -> Result<(RangeHits, SearchStats), SearchError> {
        self.range_search_async(queries, radius, options).wait()
    }

    /// [`Index::range_search_with`] as a future, like [`Index::search_async`].
    fn range_search_async<'a>(&'a self, queries: RowsView<'a>, radius: f32, options: &SearchOptions) -> Ranging<'a>;

    /// The plan of a search with bytes, operations and predicted time of each step. Nothing is searched. Those of an
    /// [`Ivf`] work on different rows: `search` on the centroids, `scan` on the lists, `refine` on what is kept of rows;
    /// without a `scan`, all rows are searched as they are, since that is faster than so many lists.
    ///
    /// # Errors
    /// As [`Index::search`].
    fn explain(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<Explanation, SearchError>;

    /// Runs a search twice on the index's device and compares the second with what was predicted.
    ///
    /// # Errors
    /// As [`Index::search`].
    fn trial(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<Trial, SearchError>;

    /// Does ahead what the first searches would wait for: measures how fast CPU and GPU are (once per machine, unless the
    /// device must not), compiles and self-tests the kernels that batches of these sizes with `k` neighbours take, makes
    /// codes where they will pay, and brings rows to the device as far as its budget goes. Under `auto` on both engines.
    ///
    /// Blocks for as long as a few searches of each size take, and what is prepared. Gives what it did; an index without
    /// rows gives nothing. Sizes and `k` may be any; others than these are warm later too as far as they share kernels.
    ///
    /// # Errors
    /// [`SearchError::ZeroK`], or the device failed; the index is as it was.
    fn warm_up(&self, batches: &[usize], k: usize) -> Result<SearchStats, SearchError>;

    /// Appends rows (`[n, dim]`; a type that the index can store without loss of range) under new ids: one more than the
    /// largest used so far, and on. Gives these ids.
    ///
    /// Takes time for the n rows, however many there are already. A [`Flat`] checks and copies them; an [`Ivf`] also
    /// assigns each to a list and codes it, on the device and all of its threads.
    ///
    /// # Errors
    /// [`BuildError`]: another dimension or type, NaN or infinity (row named), negative values where the metric is
    /// undefined. The index is then as it was.
    fn add(&mut self, rows: RowsView<'_>) -> Result<Vec<u64>, BuildError>;

    /// Appends rows under the caller's ids, one per row.
    ///
    /// # Errors
    /// As [`Index::add`], and when an id is taken, repeated or `u64::MAX`, or their number is not that of the rows.
    fn add_with_ids(&mut self, rows: RowsView<'_>, ids: &[u64]) -> Result<(), BuildError>;

    /// Replaces the row with this id by another (`[1, dim]`). Takes time for one row.
    ///
    /// # Errors
    /// [`BuildError::UnknownId`]; [`BuildError::OneRow`] for none or several rows; and as [`Index::add`]. The index is then
    /// as it was.
    fn update(&mut self, id: u64, row: RowsView<'_>) -> Result<(), BuildError>;

    /// Removes the rows with these ids; gives how many of them were there. No search finds them any more. Takes constant
    /// time per id; their memory is given back, in time for all rows, when a fifth of all rows is gone.
    fn remove(&mut self, ids: &[u64]) -> usize;

    /// The number of lists that a search probes unless [`SearchOptions::probes`] is set: from 1 to all, by default a 32nd of
    /// them and at most 64. It is saved with the index. An index without lists does nothing.
    fn set_probes(&mut self, probes: usize);

    /// The number of candidates that a search re-ranks unless [`SearchOptions::rerank`] is set; without a number k and the codec
    /// decide. It is saved with the index, and takes the place of a `k_factor` that came with an index of Faiss. An index that
    /// re-ranks nothing does nothing.
    fn set_rerank(&mut self, rows: Option<usize>);

    /// Writes the index to `path`, which is replaced as a whole or not at all. Nothing in the file belongs to a device.
    /// Blocks until the file is on the disk.
    ///
    /// # Errors
    /// [`SaveError`]; what was at the path before stays.
    fn save(&self, path: &Path) -> Result<(), SaveError> {
        self.stage(path)?.commit()
    }

    /// As [`Index::save`], up to the last moment: the file appears with [`AtomicFile::commit`], or together with others
    /// ([`commit_all`](crate::format::commit_all)).
    ///
    /// # Errors
    /// As [`Index::save`].
    fn stage(&self, path: &Path) -> Result<AtomicFile, SaveError>;
}

/// A search under way: [`Index::search_async`].
pub type Searching<'a> = Pending<'a, (Neighbors, SearchStats), SearchError>;

/// A range search under way: [`Index::range_search_async`].
pub type Ranging<'a> = Pending<'a, (RangeHits, SearchStats), SearchError>;

/// Every id of an index with its row: [`Index::rows`].
pub type RowIter<'a> = Box<dyn Iterator<Item = (u64, Vec<f32>)> + 'a>;

/// An update replaces one row.
fn one_row(row: &RowsView<'_>) -> Result<(), BuildError> {
    if row.rows() == 1 { Ok(()) } else { Err(BuildError::OneRow { found: row.rows() }) }
}
