//! `Flat`: every row is compared, every answer is exact.

use std::path::Path;

use super::planner::Planner;
use super::rowbuf::Rows;
use super::search::{MaskBits, Queries, Search};
use super::store::Store;
use super::{Explanation, Index, IndexSpec, IndexStats, Ranging, SearchOptions, Searching, Trial, one_row};
use crate::compute::Pending;
use crate::compute::wait::block_on;
use crate::engine::Device;
use crate::error::{RowError, SearchError};
use crate::format::{AtomicFile, Matrix, SaveError};
use crate::index::BuildError;
use crate::ops::codes::MOST_DIM;
use crate::ops::search::screens;
use crate::ops::{Extent, Screen};
use crate::stats::SearchStats;
use crate::types::{DType, Metric, Neighbors, RangeHits, RowsView, ShapeError};

/// Exact search over all rows, by any metric, on any device.
///
/// A clone shares the rows until one of the two is changed, and is a copy on devices.
///
/// Rows live in host memory (or in a mapped file until the first change); devices keep copies of what they search,
/// within their memory budget, and stream the rest. Searching takes `&self` and may be done from many threads.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut index = nearfield::Flat::new(&nearfield::Device::cpu(), 2, nearfield::Metric::L2)?;
/// index.add(&[[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]])?;
/// let hits = index.search(&[[0.9, 0.0]], 2)?;
/// assert_eq!(hits.query(0).map(|(id, _)| id).collect::<Vec<_>>(), [2, 0]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Flat {
    device: Device,
    pub(super) store: Store,
    pub(super) screen: Option<Screen>,
}

impl Flat {
    /// An empty index of f32 rows.
    ///
    /// # Errors
    /// [`BuildError::ZeroDim`]; [`BuildError::Unsupported`] for `hamming`, which needs [`Flat::with_dtype`].
    pub fn new(device: &Device, dim: usize, metric: Metric) -> Result<Flat, BuildError> {
        Flat::with_dtype(device, dim, metric, DType::F32)
    }

    /// An empty index that stores rows as `dtype` (`dim` in bits for packed bits, a multiple of 8).
    ///
    /// # Errors
    /// [`BuildError::ZeroDim`]; [`ShapeError::NotWholeBytes`]; [`BuildError::Unsupported`] where the metric is not defined on
    /// the type.
    pub fn with_dtype(device: &Device, dim: usize, metric: Metric, dtype: DType) -> Result<Flat, BuildError> {
        if dtype == DType::Bits && !dim.is_multiple_of(8) {
            return Err(ShapeError::NotWholeBytes { found: dim }.into());
        }
        Ok(Flat { device: device.untied(), store: Store::new(metric, dtype, dim)?, screen: None })
    }

    /// An index over a loaded matrix, whose rows are not copied: a mapped file stays on disk and is paged in as it is
    /// searched. Rows get the ids given, or their numbers.
    ///
    /// # Errors
    /// [`BuildError`] as for [`Flat::add_with_ids`].
    pub fn from_matrix(
        device: &Device,
        rows: Matrix,
        metric: Metric,
        ids: Option<Vec<u64>>,
    ) -> Result<Flat, BuildError> {
        let _entered = device.enter();
        Ok(Flat { device: device.untied(), store: Store::over(metric, Rows::Mapped(rows), ids, 0)?, screen: None })
    }

    pub(super) fn from_store(device: &Device, store: Store) -> Flat {
        Flat { device: device.untied(), store, screen: None }
    }

    /// The element type of the stored rows.
    pub fn dtype(&self) -> DType {
        self.store.dtype()
    }

    /// The screen of every search that names none; absent while the device chooses.
    pub fn screen(&self) -> Option<Screen> {
        self.screen
    }

    /// Sets the screen of every search that names none. With [`Screen::Int8`] the codes are made now; with any other but
    /// `None` (the device chooses) codes are dropped. The choice is saved with the index.
    ///
    /// # Errors
    /// [`SearchError::Screen`] where the metric has no screen; the device's error when codes could not be made.
    pub fn set_screen(&mut self, screen: Option<Screen>) -> Result<(), SearchError> {
        let _entered = self.device.enter();
        let metric = self.metric();
        match screen {
            Some(screen) if screen != Screen::None && !screens(metric) => {
                return Err(SearchError::Screen { metric, screen });
            }
            Some(Screen::Int8) if self.codable() => {
                self.store.current_codes(&*self.device.host)?;
            }
            Some(Screen::Int8) | None => {}
            Some(_) => self.store.forget_codes(),
        }
        self.screen = screen;
        Ok(())
    }

    /// Does now what searches would do once there have been enough of them to pay for it: makes the codes of
    /// [`Screen::Int8`], where the device expects to use them.
    ///
    /// # Errors
    /// [`SearchError`] when the device failed.
    pub fn prepare(&self) -> Result<(), SearchError> {
        let _entered = self.device.enter();
        let extent = Extent {
            metric: self.metric(),
            dtype: self.dtype(),
            dim: self.dim(),
            rows: self.store.slots(),
            queries: 1,
        };
        let chosen = self.screen.is_none_or(|s| s == Screen::Int8);
        if chosen && self.codable() && Planner::new(&*self.device.engine).wants_codes(&extent) {
            self.store.current_codes(&*self.device.host)?;
        }
        Ok(())
    }

    /// Whether the rows can have codes with a proven bound.
    fn codable(&self) -> bool {
        let fits = self.dtype() != DType::Bits && self.dim() <= MOST_DIM;
        fits && self.store.slots() > 0 && self.store.norms_in_range() && screens(self.metric())
    }

    /// [`Index::search_async`].
    async fn find(
        &self,
        queries: RowsView<'_>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<(Neighbors, SearchStats), SearchError> {
        if k == 0 {
            return Err(SearchError::ZeroK);
        }
        let mut stats = SearchStats::default();
        let search = self.checked(queries, options)?;
        self.store.ask(search.queries.len());
        let found = search.nearest(k, options.screen.or(self.screen), &mut stats).await?;
        self.store.check_unchanged()?;
        Ok((self.store.roster().neighbors(self.metric(), search.queries.len(), &found), stats))
    }

    /// [`Index::range_search_async`].
    async fn find_within(
        &self,
        queries: RowsView<'_>,
        radius: f32,
        options: &SearchOptions,
    ) -> Result<(RangeHits, SearchStats), SearchError> {
        if radius.is_nan() {
            return Err(SearchError::Radius { found: radius });
        }
        let mut stats = SearchStats::default();
        let hits = self.checked(queries, options)?.within(radius, &mut stats).await?;
        self.store.check_unchanged()?;
        Ok((hits, stats))
    }

    fn checked<'a>(&'a self, queries: RowsView<'a>, options: &SearchOptions) -> Result<Search<'a>, SearchError> {
        let queries = Queries::new(self.metric(), self.dtype(), self.dim(), queries)?;
        let mask = MaskBits::new(self.store.roster(), options.filter.as_ref(), queries.len())?;
        let Device { engine, host, .. } = &self.device;
        Ok(Search { engine: &**engine, host: &**host, store: &self.store, queries, mask })
    }
}

impl Index for Flat {
    fn len(&self) -> usize {
        self.store.roster().len()
    }

    fn dim(&self) -> usize {
        self.store.dim()
    }

    fn dtype(&self) -> DType {
        self.store.dtype()
    }

    fn spec(&self) -> IndexSpec {
        IndexSpec::FLAT
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn set_device(&mut self, device: &Device) {
        self.device = device.untied();
    }

    fn metric(&self) -> Metric {
        self.store.metric()
    }

    fn memory_bytes(&self) -> usize {
        self.store.memory_bytes()
    }

    fn stats(&self) -> IndexStats {
        IndexStats { removed: self.store.slots() - Index::len(self), screen: self.screen, ..IndexStats::of(self) }
    }

    fn ids(&self) -> Box<dyn Iterator<Item = u64> + '_> {
        Box::new(self.store.roster().ids())
    }

    fn state(&self) -> u64 {
        self.store.roster().state()
    }

    fn contains(&self, id: u64) -> bool {
        self.store.roster().position(id).is_some()
    }

    fn row(&self, id: u64) -> Result<Vec<f32>, RowError> {
        let position = self.store.roster().position(id).ok_or(RowError::UnknownId { id })?;
        Ok(self.store.row(position))
    }

    fn search_with(
        &self,
        queries: RowsView<'_>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<(Neighbors, SearchStats), SearchError> {
        let _entered = self.device.enter_for(options.cancel.as_ref());
        block_on(self.find(queries, k, options))
    }

    fn search_async<'a>(&'a self, queries: RowsView<'a>, k: usize, options: &SearchOptions) -> Searching<'a> {
        let options = options.clone();
        let token = options.cancel.clone();
        let search = async move { self.find(queries, k, &options).await };
        Pending::running(self.device.within(token.as_ref(), search))
    }

    fn range_search_with(
        &self,
        queries: RowsView<'_>,
        radius: f32,
        options: &SearchOptions,
    ) -> Result<(RangeHits, SearchStats), SearchError> {
        let _entered = self.device.enter_for(options.cancel.as_ref());
        block_on(self.find_within(queries, radius, options))
    }

    fn range_search_async<'a>(&'a self, queries: RowsView<'a>, radius: f32, options: &SearchOptions) -> Ranging<'a> {
        let options = options.clone();
        let token = options.cancel.clone();
        let search = async move { self.find_within(queries, radius, &options).await };
        Pending::running(self.device.within(token.as_ref(), search))
    }

    fn explain(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<Explanation, SearchError> {
        let _entered = self.device.enter();
        let search = self.checked(queries, options)?;
        let program = search.explain(k, options.screen.or(self.screen))?;
        Ok(Explanation::of(&*self.device.engine, program))
    }

    fn trial(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<Trial, SearchError> {
        self.tried(queries, k, options)
    }

    fn warm_up(&self, batches: &[usize], k: usize) -> Result<SearchStats, SearchError> {
        self.warmed(batches, k)
    }

    fn add(&mut self, rows: RowsView<'_>) -> Result<Vec<u64>, BuildError> {
        let _entered = self.device.enter();
        self.store.add(&rows, None)
    }

    fn add_with_ids(&mut self, rows: RowsView<'_>, ids: &[u64]) -> Result<(), BuildError> {
        let _entered = self.device.enter();
        self.store.add(&rows, Some(ids)).map(drop)
    }

    fn update(&mut self, id: u64, row: RowsView<'_>) -> Result<(), BuildError> {
        let _entered = self.device.enter();
        one_row(&row)?;
        let row = self.store.checked(&row)?;
        self.store.put(id, &row)
    }

    fn remove(&mut self, ids: &[u64]) -> usize {
        self.store.remove(ids).0
    }

    fn set_probes(&mut self, _: usize) {}

    fn set_rerank(&mut self, _: Option<usize>) {}

    fn stage(&self, path: &Path) -> Result<AtomicFile, SaveError> {
        self.write(path)
    }
}
