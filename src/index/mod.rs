//! Indexes: structures that write plans over verbs. They name no engine and no WGSL.

mod any;
mod coding;
mod error;
mod explain;
mod file;
mod flat;
mod import;
mod ivf;
mod roster;
mod rowbuf;
mod search;
mod spec;
mod store;
mod tuning;
mod warm;

pub use any::AnyIndex;
pub use error::BuildError;
pub use explain::{Explanation, Trial};
pub use file::{FileInfo, OpenError};
pub use flat::Flat;
pub use import::ImportError;
pub use ivf::{Ivf, TrainOptions};
pub(crate) use search::Queries;
pub use spec::{CodecSpec, IndexSpec, RefineSpec, SpecError, TransformSpec};
pub use tuning::{TuneError, Tuned, TunedPoint, Tuning, fastest, settings};

use crate::error::SearchError;
use crate::plan::Screen;
use crate::stats::SearchStats;
use crate::types::{Filter, Metric, Neighbors, RangeHits, RowsView};

/// What a search may be told besides queries and k.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct SearchOptions {
    /// Which rows may be returned; all when absent.
    pub filter: Option<Filter>,
    /// The pass in front of the direct one; chosen by the device when absent. Never changes the answer, but for the order
    /// of rows whose distances lie within one f32 rounding bound of each other (`docs/numerics.md`).
    pub screen: Option<Screen>,
    /// Inverted lists looked at; those that the index is set to when absent. Ignored by an index without lists.
    pub probes: Option<usize>,
    /// Rows ranked again a query, at least k; those that the index is set to when absent. Ignored where nothing better
    /// than the codes is kept.
    pub refine: Option<usize>,
}

impl SearchOptions {
    /// Only these rows.
    pub fn filter(filter: Filter) -> SearchOptions {
        SearchOptions { filter: Some(filter), ..SearchOptions::default() }
    }

    /// Looks at so many inverted lists.
    pub fn probes(mut self, probes: usize) -> SearchOptions {
        self.probes = Some(probes);
        self
    }

    /// Ranks so many rows again.
    pub fn refine(mut self, rows: usize) -> SearchOptions {
        self.refine = Some(rows);
        self
    }
}

/// What every index can do.
pub trait Index: Send + Sync {
    /// Rows that a search can find.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Components a row.
    fn dim(&self) -> usize;

    /// How far apart two rows are.
    fn metric(&self) -> Metric;

    /// Bytes of host memory (or of the mapped file) that the index takes.
    fn memory_bytes(&self) -> usize;

    /// The `k` nearest rows of each query (`[q, dim]`, any element type), and what finding them cost.
    ///
    /// # Errors
    /// [`SearchError`]; see its variants.
    fn search_with(
        &self,
        queries: RowsView<'_>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<(Neighbors, SearchStats), SearchError>;

    /// All rows within `radius` of each query: distances at most, similarities at least the radius.
    ///
    /// # Errors
    /// [`SearchError`]; see its variants.
    fn range_search_with(
        &self,
        queries: RowsView<'_>,
        radius: f32,
        options: &SearchOptions,
    ) -> Result<(RangeHits, SearchStats), SearchError>;
}
