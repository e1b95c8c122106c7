//! An index that some threads search while others change it.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::ivf::Coded;
use super::roster::Roster;
use super::store::Checked;
use super::{AnyIndex, Flat, Index, Ivf, Ranging, SearchOptions, Searching, one_row};
use crate::error::SearchError;
use crate::format::SaveError;
use crate::index::BuildError;
use crate::stats::SearchStats;
use crate::types::{AnyRows, IntoRows, Neighbors, RangeHits, RowsView, ShapeError};

/// How long a change waits for the searches under way before it is made in a copy.
const PATIENCE: Duration = Duration::from_millis(10);

/// An index that any number of threads search while others change it, without a lock of the caller's.
///
/// A search works on a **snapshot**: the index as it was when the search began. It never waits for a change, and its answer
/// is that of one state of the index, whatever happens meanwhile. Changes are made one after the other, each as a whole: a
/// snapshot has all of its rows or none.
///
/// **What a change costs.** Rows are checked, sorted into lists and coded while searches go on. Then the change is made in
/// place if no snapshot is held at that moment (searches that begin just then wait for it: a copy of the new rows). While
/// searches go on it is made in a copy of the index, which costs the time and, until the last search of the old state has
/// ended, the memory of copying what it changes (a removal copies no rows); a GPU is given the changed copy anew. So bring
/// many rows per call, and drop a [`Shared::snapshot`] when it is no longer needed.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nearfield::{Device, Flat, Metric, Shared};
///
/// let index = Shared::new(Flat::new(&Device::cpu(), 2, Metric::L2)?);
/// std::thread::scope(|scope| {
///     let adding = scope.spawn(|| (0..50).try_for_each(|i| index.add(&[[i as f32, 0.0]]).map(drop)));
///     while !adding.is_finished() {
///         let snapshot = index.snapshot(); // several questions to one state
///         assert_eq!(snapshot.search(&[0.0, 0.0], 50)?.query(0).count(), snapshot.len());
///     }
///     adding.join().expect("no panic")?;
///     Ok::<(), Box<dyn std::error::Error>>(())
/// })?;
/// assert_eq!(index.len(), 50);
/// # Ok(()) }
/// ```
///
/// Clones share the same index. What is not here is asked of a snapshot: `shared.snapshot().filter_by(..)`, `.ids()`, `.row(..)`,
/// `.stats()`, `.explain(..)`.
pub struct Shared<I>(Arc<Inner<I>>);

impl<I> Clone for Shared<I> {
    fn clone(&self) -> Shared<I> {
        Shared(self.0.clone())
    }
}

struct Inner<I> {
    now: RwLock<Arc<I>>,
    /// Held while a change is made. Whatever is done under it is done by the thread that holds it: work for a pool could
    /// come back to that thread as another change, which would wait for itself.
    changing: Mutex<()>,
}

/// Indexes that can be [`Shared`]: [`Flat`], [`Ivf`] and [`AnyIndex`].
#[allow(private_bounds)]
pub trait Sharable: Index + Changing {}

impl Sharable for Flat {}
impl Sharable for Ivf {}
impl Sharable for AnyIndex {}

/// Changes in two steps: one that takes long and needs no more of the index than how it was made, and a short one.
pub(crate) trait Changing: Index + Clone {
    /// Rows that are ready to be taken.
    type Ready;

    /// Checks and codes rows.
    fn ready(&self, rows: &RowsView<'_>) -> Result<Self::Ready, BuildError>;

    /// Appends rows; fails before anything is changed.
    fn take(&mut self, rows: Self::Ready, ids: Option<&[u64]>) -> Result<Vec<u64>, BuildError>;

    /// Replaces a row; fails before anything is changed.
    fn put(&mut self, id: u64, row: Self::Ready) -> Result<(), BuildError>;

    /// Who is there.
    fn members(&self) -> &Roster;
}

impl Changing for Flat {
    type Ready = Checked;

    fn ready(&self, rows: &RowsView<'_>) -> Result<Checked, BuildError> {
        let _entered = self.device().enter();
        self.store.checked(rows)
    }

    fn take(&mut self, rows: Checked, ids: Option<&[u64]>) -> Result<Vec<u64>, BuildError> {
        self.store.take(rows, ids)
    }

    fn put(&mut self, id: u64, row: Checked) -> Result<(), BuildError> {
        self.store.put(id, &row)
    }

    fn members(&self) -> &Roster {
        self.store.roster()
    }
}

impl Changing for Ivf {
    type Ready = Coded;

    fn ready(&self, rows: &RowsView<'_>) -> Result<Coded, BuildError> {
        let _entered = self.device().enter();
        self.prepare(rows)
    }

    fn take(&mut self, rows: Coded, ids: Option<&[u64]>) -> Result<Vec<u64>, BuildError> {
        Ivf::take(self, rows, ids)
    }

    fn put(&mut self, id: u64, row: Coded) -> Result<(), BuildError> {
        Ivf::put(self, id, row)
    }

    fn members(&self) -> &Roster {
        self.roster()
    }
}

/// Rows that are ready for an index of one structure.
pub(crate) enum AnyReady {
    Flat(Checked),
    Ivf(Coded),
}

impl Changing for AnyIndex {
    type Ready = AnyReady;

    fn ready(&self, rows: &RowsView<'_>) -> Result<AnyReady, BuildError> {
        match self {
            AnyIndex::Flat(index) => index.ready(rows).map(AnyReady::Flat),
            AnyIndex::Ivf(index) => index.ready(rows).map(AnyReady::Ivf),
        }
    }

    fn take(&mut self, rows: AnyReady, ids: Option<&[u64]>) -> Result<Vec<u64>, BuildError> {
        match (self, rows) {
            (AnyIndex::Flat(index), AnyReady::Flat(rows)) => Changing::take(index, rows, ids),
            (AnyIndex::Ivf(index), AnyReady::Ivf(rows)) => Changing::take(index, rows, ids),
            _ => unreachable!("an index keeps its structure"),
        }
    }

    fn put(&mut self, id: u64, row: AnyReady) -> Result<(), BuildError> {
        match (self, row) {
            (AnyIndex::Flat(index), AnyReady::Flat(row)) => Changing::put(index, id, row),
            (AnyIndex::Ivf(index), AnyReady::Ivf(row)) => Changing::put(index, id, row),
            _ => unreachable!("an index keeps its structure"),
        }
    }

    fn members(&self) -> &Roster {
        match self {
            AnyIndex::Flat(index) => index.members(),
            AnyIndex::Ivf(index) => index.members(),
        }
    }
}

#[allow(private_bounds)]
impl<I: Sharable> Shared<I> {
    /// Shares an index.
    pub fn new(index: I) -> Shared<I> {
        Shared(Arc::new(Inner { now: RwLock::new(Arc::new(index)), changing: Mutex::new(()) }))
    }

    /// The index as it is now, which stays as it is for as long as it is held. Takes constant time; all of [`Index`] that
    /// reads can be asked of it, such as [`Index::ids`] and [`Index::row`].
    pub fn snapshot(&self) -> Arc<I> {
        self.0.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The index itself, when nobody shares it any more; a copy where a snapshot or a clone of this is still held.
    pub fn into_inner(self) -> I {
        let now = match Arc::try_unwrap(self.0) {
            Ok(inner) => inner.now.into_inner().unwrap_or_else(PoisonError::into_inner),
            Err(shared) => Shared(shared).snapshot(),
        };
        Arc::unwrap_or_clone(now)
    }

    /// Sets how many lists a search probes: [`Index::set_probes`].
    pub fn set_probes(&self, probes: usize) {
        self.change(0, |index| index.set_probes(probes));
    }

    /// Sets how many candidates a search re-ranks: [`Index::set_rerank`].
    pub fn set_rerank(&self, rows: Option<usize>) {
        self.change(0, |index| index.set_rerank(rows));
    }

    /// Rows that a search can find now.
    pub fn len(&self) -> usize {
        self.snapshot().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is a row with this id now.
    pub fn contains(&self, id: u64) -> bool {
        self.snapshot().contains(id)
    }

    /// [`Index::search`] of a snapshot.
    ///
    /// # Errors
    /// As [`Index::search`].
    pub fn search<'a>(&self, queries: impl IntoRows<'a>, k: usize) -> Result<Neighbors, SearchError> {
        Index::search(&*self.snapshot(), queries.into_rows()?.view(), k)
    }

    /// [`Index::search_with`] of a snapshot. A filter by bitmap belongs to one state: make it from a
    /// [`Shared::snapshot`] and search that.
    ///
    /// # Errors
    /// As [`Index::search_with`].
    pub fn search_with<'a>(
        &self,
        queries: impl IntoRows<'a>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<(Neighbors, SearchStats), SearchError> {
        Index::search_with(&*self.snapshot(), queries.into_rows()?.view(), k, options)
    }

    /// [`Index::range_search`] of a snapshot.
    ///
    /// # Errors
    /// As [`Index::range_search`].
    pub fn range_search<'a>(&self, queries: impl IntoRows<'a>, radius: f32) -> Result<RangeHits, SearchError> {
        Index::range_search(&*self.snapshot(), queries.into_rows()?.view(), radius)
    }

    /// [`Index::range_search_with`] of a snapshot.
    ///
    /// # Errors
    /// As [`Index::range_search_with`].
    pub fn range_search_with<'a>(
        &self,
        queries: impl IntoRows<'a>,
        radius: f32,
        options: &SearchOptions,
    ) -> Result<(RangeHits, SearchStats), SearchError> {
        Index::range_search_with(&*self.snapshot(), queries.into_rows()?.view(), radius, options)
    }

    /// [`Index::search_with`] of a snapshot, by a thread of the device ([`Device::spawn`](crate::Device::spawn)): it begins at
    /// once, is polled in no time, can be waited for, and is called off when it is dropped. The queries are copied.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use nearfield::{Device, Flat, Metric, SearchOptions, Shared};
    ///
    /// let index = Shared::new(Flat::new(&Device::cpu(), 2, Metric::L2)?);
    /// index.add(&[[0.0, 0.0], [3.0, 4.0]])?;
    /// let pending = index.search_async(&[3.0, 3.0], 1, &SearchOptions::default());
    /// // Draw a frame, or `.await` it.
    /// assert_eq!(pending.wait()?.0.ids(), [1]);
    /// # Ok(()) }
    /// ```
    pub fn search_async<'a>(&self, queries: impl IntoRows<'a>, k: usize, options: &SearchOptions) -> Searching<'static>
    where
        I: 'static,
    {
        let (index, queries, options) = (self.snapshot(), owned(queries), options.clone());
        let device = index.device().clone();
        device.spawn(move |_| async move { Index::search_async(&*index, queries?.view(), k, &options).await })
    }

    /// [`Index::range_search_with`] of a snapshot, like [`Shared::search_async`].
    pub fn range_search_async<'a>(
        &self,
        queries: impl IntoRows<'a>,
        radius: f32,
        options: &SearchOptions,
    ) -> Ranging<'static>
    where
        I: 'static,
    {
        let (index, queries, options) = (self.snapshot(), owned(queries), options.clone());
        let device = index.device().clone();
        device
            .spawn(move |_| async move { Index::range_search_async(&*index, queries?.view(), radius, &options).await })
    }

    /// [`Index::save`] of a snapshot. Nobody waits for the file.
    ///
    /// # Errors
    /// As [`Index::save`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
        Index::save(&*self.snapshot(), path.as_ref())
    }

    /// [`Index::add`], while others search.
    ///
    /// # Errors
    /// As [`Index::add`].
    pub fn add<'a>(&self, rows: impl IntoRows<'a>) -> Result<Vec<u64>, BuildError> {
        let rows = self.snapshot().ready(&rows.into_rows()?.view())?;
        self.change(0, |index| index.take(rows, None))
    }

    /// [`Index::add_with_ids`], while others search.
    ///
    /// # Errors
    /// As [`Index::add_with_ids`].
    pub fn add_with_ids<'a>(&self, rows: impl IntoRows<'a>, ids: &[u64]) -> Result<(), BuildError> {
        let rows = self.snapshot().ready(&rows.into_rows()?.view())?;
        self.change(0, |index| index.take(rows, Some(ids)).map(drop))
    }

    /// [`Index::update`], while others search.
    ///
    /// # Errors
    /// As [`Index::update`].
    pub fn update<'a>(&self, id: u64, row: impl IntoRows<'a>) -> Result<(), BuildError> {
        let row = row.into_rows()?;
        one_row(&row.view())?;
        let row = self.snapshot().ready(&row.view())?;
        self.change(1, |index| index.put(id, row))
    }

    /// [`Index::remove`], while others search.
    pub fn remove(&self, ids: &[u64]) -> usize {
        if ids.is_empty() { 0 } else { self.change(ids.len(), |index| index.remove(ids)) }
    }

    /// Makes a change that is short and is made by this thread alone: in place if nobody looks, else in a copy. A change that
    /// may remove so many rows that holes are closed is long, and is made in a copy always.
    fn change<T>(&self, removed: usize, change: impl FnOnce(&mut I) -> T) -> T {
        let _changing: MutexGuard<'_, ()> = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let began = Instant::now();
        let short = removed == 0 || !self.snapshot().members().closes_after(removed);
        while short && began.elapsed() < PATIENCE {
            if let Some(index) = Arc::get_mut(&mut *self.write()) {
                return change(index);
            }
            std::thread::sleep(PATIENCE / 20);
        }
        let mut next = I::clone(&self.snapshot());
        let result = change(&mut next);
        let before = std::mem::replace(&mut *self.write(), Arc::new(next));
        // Dropped when nobody waits for the lock: it may be large.
        drop(before);
        result
    }

    fn write(&self) -> RwLockWriteGuard<'_, Arc<I>> {
        self.0.now.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A copy of queries.
fn owned<'a>(queries: impl IntoRows<'a>) -> Result<AnyRows<'static>, ShapeError> {
    queries.into_rows().map(AnyRows::into_owned)
}

impl<I: Sharable> From<I> for Shared<I> {
    fn from(index: I) -> Shared<I> {
        Shared::new(index)
    }
}

impl<I: Sharable> fmt::Debug for Shared<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.snapshot()).finish()
    }
}
