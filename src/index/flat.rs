//! `Flat`: every row is looked at, every answer is exact.

use super::rowbuf::Rows;
use super::search::{MaskBits, Queries, Search};
use super::store::Store;
use super::{Explanation, Index, SearchOptions};
use crate::engine::Device;
use crate::error::SearchError;
use crate::format::Matrix;
use crate::index::BuildError;
use crate::kernels::codes::MOST_DIM;
use crate::kernels::search::screens;
use crate::plan::{Problem, Screen};
use crate::stats::SearchStats;
use crate::types::{DType, Metric, Neighbors, RangeHits, RowsView};

/// Exact search over all rows, by any metric, on any device.
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
#[derive(Debug)]
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
    /// [`BuildError::ZeroDim`]; [`BuildError::Unsupported`] where the metric is not defined on the type.
    pub fn with_dtype(device: &Device, dim: usize, metric: Metric, dtype: DType) -> Result<Flat, BuildError> {
        if dtype == DType::Bits && !dim.is_multiple_of(8) {
            return Err(BuildError::Dim { wanted: dim.next_multiple_of(8), found: dim });
        }
        Ok(Flat { device: device.clone(), store: Store::new(metric, dtype, dim)?, screen: None })
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
        Ok(Flat { device: device.clone(), store: Store::over(metric, Rows::Mapped(rows), ids, 0)?, screen: None })
    }

    pub(super) fn from_store(device: &Device, store: Store) -> Flat {
        Flat { device: device.clone(), store, screen: None }
    }

    /// Appends rows (`[n, dim]`; a type that the index can store without loss of range). Their ids are numbers never
    /// used before, starting at 0. Gives the ids.
    ///
    /// # Errors
    /// [`BuildError`]: another dimension or type, NaN or infinity (row named), negative values where the metric is
    /// undefined. The index is then as it was.
    pub fn add<'a>(&mut self, rows: impl Into<RowsView<'a>>) -> Result<Vec<u64>, BuildError> {
        let _entered = self.device.enter();
        self.store.add(&rows.into(), None)
    }

    /// Appends rows under the caller's ids.
    ///
    /// # Errors
    /// As [`Flat::add`], and when an id is taken, repeated or `u64::MAX`, or their number is not that of the rows.
    pub fn add_with_ids<'a>(&mut self, rows: impl Into<RowsView<'a>>, ids: &[u64]) -> Result<(), BuildError> {
        let _entered = self.device.enter();
        self.store.add(&rows.into(), Some(ids)).map(drop)
    }

    /// Replaces the row with this id.
    ///
    /// # Errors
    /// [`BuildError::UnknownId`], and as [`Flat::add`].
    pub fn update<'a>(&mut self, id: u64, row: impl Into<RowsView<'a>>) -> Result<(), BuildError> {
        let _entered = self.device.enter();
        self.store.update(id, &row.into())
    }

    /// Removes the rows with these ids; gives how many of them were there.
    pub fn remove(&mut self, ids: &[u64]) -> usize {
        self.store.remove(ids).0
    }

    /// The element type of the stored rows.
    pub fn dtype(&self) -> DType {
        self.store.dtype()
    }

    /// The device that searches.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The same index, searched by another device from now on.
    pub fn set_device(&mut self, device: &Device) {
        self.device = device.clone();
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
        let problem = Problem {
            metric: self.metric(),
            dtype: self.dtype(),
            dim: self.dim(),
            rows: self.store.slots(),
            queries: 1,
        };
        let chosen = self.screen.is_none_or(|s| s == Screen::Int8);
        if chosen && self.codable() && self.device.engine.wants_codes(&problem) {
            self.store.current_codes(&*self.device.host)?;
        }
        Ok(())
    }

    /// The row with this id as f32 (bits as 0 and 1), if it is there.
    pub fn row(&self, id: u64) -> Option<Vec<f32>> {
        let position = self.store.roster().position(id)?;
        let mut row = vec![0.0; self.dim()];
        self.store.view().row_f32(position as usize, &mut row);
        Some(row)
    }

    /// The `k` nearest rows of each query (`[q, dim]`): `[q, k]`.
    ///
    /// # Errors
    /// [`SearchError`]: `k` is 0, another dimension, NaN or infinity (query named), or the device failed.
    pub fn search<'a>(&self, queries: impl Into<RowsView<'a>>, k: usize) -> Result<Neighbors, SearchError> {
        self.search_with(queries.into(), k, &SearchOptions::default()).map(|(found, _)| found)
    }

    /// All rows within `radius` of each query: distances at most, similarities at least the radius.
    ///
    /// # Errors
    /// As [`Flat::search`], and when the radius is not a number.
    pub fn range_search<'a>(&self, queries: impl Into<RowsView<'a>>, radius: f32) -> Result<RangeHits, SearchError> {
        self.range_search_with(queries.into(), radius, &SearchOptions::default()).map(|(found, _)| found)
    }

    /// The plan of a search with bytes, operations and predicted time of each step.
    ///
    /// # Errors
    /// As [`Flat::search`].
    pub fn explain<'a>(
        &self,
        queries: impl Into<RowsView<'a>>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<Explanation, SearchError> {
        let _entered = self.device.enter();
        let search = self.checked(queries.into(), options)?;
        let plan = search.plan(k, options.screen.or(self.screen))?;
        let engine = &self.device.engine;
        Ok(Explanation { device: engine.name(), ceilings: engine.ceilings(), costs: plan.costs(), plan })
    }

    /// Whether the rows can have codes with a proven bound.
    fn codable(&self) -> bool {
        let fits = self.dtype() != DType::Bits && self.dim() <= MOST_DIM;
        fits && self.store.slots() > 0 && self.store.norms_in_range() && screens(self.metric())
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

    fn metric(&self) -> Metric {
        self.store.metric()
    }

    fn memory_bytes(&self) -> usize {
        self.store.memory_bytes()
    }

    fn search_with(
        &self,
        queries: RowsView<'_>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<(Neighbors, SearchStats), SearchError> {
        let _entered = self.device.enter();
        if k == 0 {
            return Err(SearchError::ZeroK);
        }
        let mut stats = SearchStats::default();
        let search = self.checked(queries, options)?;
        self.store.ask(search.queries.len());
        let found = search.nearest(k, options.screen.or(self.screen), &mut stats)?;
        Ok((self.store.roster().neighbors(self.metric(), search.queries.len(), &found), stats))
    }

    fn range_search_with(
        &self,
        queries: RowsView<'_>,
        radius: f32,
        options: &SearchOptions,
    ) -> Result<(RangeHits, SearchStats), SearchError> {
        let _entered = self.device.enter();
        if radius.is_nan() {
            return Err(SearchError::Radius { found: radius });
        }
        let mut stats = SearchStats::default();
        let hits = self.checked(queries, options)?.within(radius, &mut stats)?;
        Ok((hits, stats))
    }
}
