//! The verbs of [`Index`](super::Index) as methods of the indexes themselves: they take rows in any form, and nothing has
//! to be imported for them.

use std::path::Path;

use super::{AnyIndex, Explanation, Flat, Index, IndexSpec, IndexStats, Ivf, Ranging, SearchOptions, Searching, Trial};
use crate::compute::Pending;
use crate::engine::Device;
use crate::error::{RowError, SearchError};
use crate::format::SaveError;
use crate::index::BuildError;
use crate::stats::SearchStats;
use crate::types::{DType, Filter, IntoRows, Metric, Neighbors, RangeHits};

macro_rules! own_methods {
    ($index:ty) => {
        impl $index {
            /// Rows that a search can find.
            pub fn len(&self) -> usize {
                Index::len(self)
            }

            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                Index::is_empty(self)
            }

            /// Components per row; bits for packed bits.
            pub fn dim(&self) -> usize {
                Index::dim(self)
            }

            /// How far apart two rows are.
            pub fn metric(&self) -> Metric {
                Index::metric(self)
            }

            /// Bytes of host memory (or of the mapped file) that the index takes.
            pub fn memory_bytes(&self) -> usize {
                Index::memory_bytes(self)
            }

            /// What the index holds and how it is set. See [`Index::stats`].
            pub fn stats(&self) -> IndexStats {
                Index::stats(self)
            }

            /// The device that searches.
            pub fn device(&self) -> &Device {
                Index::device(self)
            }

            /// The same index, searched by another device from now on.
            pub fn set_device(&mut self, device: &Device) {
                Index::set_device(self, device);
            }

            /// The `k` nearest rows of each query (`[q, dim]`): `[q, k]`. See [`Index::search`].
            ///
            /// # Errors
            /// [`SearchError`]: `k` is 0, another dimension, NaN or infinity (query named), or the device failed.
            pub fn search<'a>(&self, queries: impl IntoRows<'a>, k: usize) -> Result<Neighbors, SearchError> {
                Index::search(self, queries.into_rows()?.view(), k)
            }

            /// [`Index::search`] with options, and what it cost. See [`Index::search_with`].
            ///
            /// # Errors
            /// As the search.
            pub fn search_with<'a>(
                &self,
                queries: impl IntoRows<'a>,
                k: usize,
                options: &SearchOptions,
            ) -> Result<(Neighbors, SearchStats), SearchError> {
                Index::search_with(self, queries.into_rows()?.view(), k, options)
            }

            /// [`Index::search_with`] as a future, whose work on the CPU is done by who polls it. For one that is polled in
            /// no time, driven by a thread of the device, see [`Shared::search_async`](crate::Shared::search_async).
            pub fn search_async<'s, 'a: 's>(
                &'s self,
                queries: impl IntoRows<'a>,
                k: usize,
                options: &SearchOptions,
            ) -> Searching<'s> {
                let (queries, options) = (queries.into_rows(), options.clone());
                Pending::running(async move { Index::search_async(self, queries?.view(), k, &options).await })
            }

            /// All rows within `radius` of each query (`[q, dim]`). See [`Index::range_search`].
            ///
            /// # Errors
            /// As the search, and when the radius is not a number.
            pub fn range_search<'a>(&self, queries: impl IntoRows<'a>, radius: f32) -> Result<RangeHits, SearchError> {
                Index::range_search(self, queries.into_rows()?.view(), radius)
            }

            /// [`Index::range_search`] with options, and what it cost.
            ///
            /// # Errors
            /// As the search, and when the radius is not a number.
            pub fn range_search_with<'a>(
                &self,
                queries: impl IntoRows<'a>,
                radius: f32,
                options: &SearchOptions,
            ) -> Result<(RangeHits, SearchStats), SearchError> {
                Index::range_search_with(self, queries.into_rows()?.view(), radius, options)
            }

            /// [`Index::range_search_with`] as a future, like the search.
            pub fn range_search_async<'s, 'a: 's>(
                &'s self,
                queries: impl IntoRows<'a>,
                radius: f32,
                options: &SearchOptions,
            ) -> Ranging<'s> {
                let (queries, options) = (queries.into_rows(), options.clone());
                Pending::running(
                    async move { Index::range_search_async(self, queries?.view(), radius, &options).await },
                )
            }

            /// The plan of a search, with what each step costs. See [`Index::explain`].
            ///
            /// # Errors
            /// As the search.
            pub fn explain<'a>(
                &self,
                queries: impl IntoRows<'a>,
                k: usize,
                options: &SearchOptions,
            ) -> Result<Explanation, SearchError> {
                Index::explain(self, queries.into_rows()?.view(), k, options)
            }

            /// Runs a search twice and compares the second with what was predicted. See [`Index::trial`].
            ///
            /// # Errors
            /// As the search.
            pub fn trial<'a>(
                &self,
                queries: impl IntoRows<'a>,
                k: usize,
                options: &SearchOptions,
            ) -> Result<Trial, SearchError> {
                Index::trial(self, queries.into_rows()?.view(), k, options)
            }

            /// Does ahead what the first searches would wait for. See [`Index::warm_up`].
            ///
            /// # Errors
            /// [`SearchError::ZeroK`], or the device failed; the index is as it was.
            pub fn warm_up(&self, batches: &[usize], k: usize) -> Result<SearchStats, SearchError> {
                Index::warm_up(self, batches, k)
            }

            /// Appends rows (`[n, dim]`) under numbers never used before, and gives these. See [`Index::add`].
            ///
            /// # Errors
            /// [`BuildError`]: another dimension or type, NaN or infinity (row named), negative values where the metric
            /// is undefined. The index is then as it was.
            pub fn add<'a>(&mut self, rows: impl IntoRows<'a>) -> Result<Vec<u64>, BuildError> {
                Index::add(self, rows.into_rows()?.view())
            }

            /// Appends rows (`[n, dim]`) under the caller's ids. See [`Index::add_with_ids`].
            ///
            /// # Errors
            /// As [`Index::add`], and when an id is taken, repeated or `u64::MAX`, or their number is not that of the
            /// rows.
            pub fn add_with_ids<'a>(&mut self, rows: impl IntoRows<'a>, ids: &[u64]) -> Result<(), BuildError> {
                Index::add_with_ids(self, rows.into_rows()?.view(), ids)
            }

            /// Replaces the row with this id by another (`[1, dim]`). See [`Index::update`].
            ///
            /// # Errors
            /// [`BuildError::UnknownId`], [`BuildError::OneRow`], and as [`Index::add`]; the index is then as it was.
            pub fn update<'a>(&mut self, id: u64, row: impl IntoRows<'a>) -> Result<(), BuildError> {
                Index::update(self, id, row.into_rows()?.view())
            }

            /// Removes the rows with these ids; gives how many of them were there. See [`Index::remove`].
            pub fn remove(&mut self, ids: &[u64]) -> usize {
                Index::remove(self, ids)
            }

            /// The ids of the rows, in the order in which the rows came. See [`Index::ids`].
            pub fn ids(&self) -> impl Iterator<Item = u64> + '_ {
                Index::ids(self)
            }

            /// Whether there is a row with this id. Takes constant time.
            pub fn contains(&self, id: u64) -> bool {
                Index::contains(self, id)
            }

            /// The row with this id as f32 (bits as 0 and 1). See [`Index::row`].
            ///
            /// # Errors
            /// [`RowError`]: there is no such row, or the index keeps codes only.
            pub fn row(&self, id: u64) -> Result<Vec<f32>, RowError> {
                Index::row(self, id)
            }

            /// Every id with its row, in the order of [`Index::ids`]. See [`Index::rows`].
            ///
            /// # Errors
            /// [`RowError::NotKept`] where the index keeps codes only.
            pub fn rows(&self) -> Result<impl Iterator<Item = (u64, Vec<f32>)> + '_, RowError> {
                Index::rows(self)
            }

            /// A filter that allows the rows whose ids meet a condition. See [`Index::filter_by`].
            pub fn filter_by(&self, allowed: impl Fn(u64) -> bool) -> Filter {
                Index::filter_by(self, &allowed)
            }

            /// Writes the index to `path`, which is replaced as a whole or not at all. See [`Index::save`].
            ///
            /// # Errors
            /// [`SaveError`]; what was at the path before stays.
            pub fn save(&self, path: impl AsRef<Path>) -> Result<(), SaveError> {
                Index::save(self, path.as_ref())
            }
        }
    };
}

own_methods!(AnyIndex);
own_methods!(Flat);
own_methods!(Ivf);

impl AnyIndex {
    /// The element type of the rows that are kept; f32 (or bits) where none are.
    pub fn dtype(&self) -> DType {
        Index::dtype(self)
    }

    /// What the index was built as.
    pub fn spec(&self) -> IndexSpec {
        Index::spec(self)
    }

    /// The number of lists that a search probes unless its options say so. See [`Index::set_probes`].
    pub fn set_probes(&mut self, probes: usize) {
        Index::set_probes(self, probes);
    }

    /// The number of candidates that a search re-ranks unless its options say so. See [`Index::set_rerank`].
    pub fn set_rerank(&mut self, rows: Option<usize>) {
        Index::set_rerank(self, rows);
    }
}

impl Flat {
    /// What the index was built as: [`IndexSpec::FLAT`].
    pub fn spec(&self) -> IndexSpec {
        Index::spec(self)
    }
}
