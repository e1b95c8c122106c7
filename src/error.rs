//! Errors of searching and of opening a device. Every operation has a small error of its own, beside what it does; what
//! is here is shared by several. Messages say what was found and what was wanted.

use crate::compute::EngineError;
use crate::types::{DType, Metric, ShapeError};

impl SearchError {
    /// The same of a query that was counted from the query `first`.
    pub(crate) fn shifted(mut self, first: usize) -> SearchError {
        if let SearchError::NotFinite { query, .. } | SearchError::Negative { query, .. } = &mut self {
            *query += first;
        }
        self
    }
}

/// What to do about a metric that is not defined on an element type.
pub(crate) fn hint(metric: Metric, dtype: DType) -> &'static str {
    match (metric, dtype) {
        (Metric::Hamming, _) => "; it compares packed bits",
        (_, DType::Bits) => "; packed bits take hamming or jaccard",
        _ => "",
    }
}

/// What to do about one long slice that was meant as many rows.
pub(crate) fn flat_slice(wanted: usize, found: usize) -> String {
    match found > wanted && wanted > 0 && found.is_multiple_of(wanted) {
        true => format!("; a slice of many rows comes with their length: `(&rows, {wanted})`"),
        false => String::new(),
    }
}

/// Why a row can't be given back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// An id that the index does not hold.
    #[error("there is no row with id {id}")]
    UnknownId {
        /// The id.
        id: u64,
    },
    /// The index keeps codes of its rows, not the rows.
    #[error("an index built as `{spec}` keeps codes, not rows; one that ends in `,RFlat` keeps rows too")]
    NotKept {
        /// What the index was built as.
        spec: String,
    },
}

/// Why a search could not be answered.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// `k` must be at least 1.
    #[error("k is 0, wanted at least 1")]
    ZeroK,
    /// Queries of another length than the rows.
    #[error("rows have {wanted} components, the queries have {found}{}", flat_slice(*.wanted, *.found))]
    Dim {
        /// Components per row.
        wanted: usize,
        /// Components per query.
        found: usize,
    },
    /// Packed bits against numbers, or the reverse.
    #[error("rows of {wanted} can't be compared with queries of {found}")]
    DType {
        /// What the index stores.
        wanted: DType,
        /// What the queries are.
        found: DType,
    },
    /// The metric is not defined on this element type.
    #[error("{metric} is not defined on rows of {dtype}{}", hint(*.metric, *.dtype))]
    Unsupported {
        /// The metric asked for.
        metric: Metric,
        /// The element type asked for.
        dtype: DType,
    },
    /// NaN or an infinity.
    #[error("query {query}, component {component} is {value}, wanted a finite number")]
    NotFinite {
        /// The query.
        query: usize,
        /// The component.
        component: usize,
        /// What was found.
        value: f32,
    },
    /// A query with values so large that distances from it overflow f64.
    #[error("query {query} has values so large that {metric} overflows f64; scale it down")]
    Overflow {
        /// The query.
        query: usize,
        /// The metric.
        metric: Metric,
    },
    /// A whole number that f64 does not hold exactly.
    #[error("query {query}, component {component} is {value}; i64 queries hold whole numbers of at most 2^53 in size")]
    Inexact {
        /// The query.
        query: usize,
        /// The component.
        component: usize,
        /// What was found.
        value: i64,
    },
    /// NaN or an infinity among rows that are given with the queries.
    #[error("row {row}, component {component} is {value}, wanted a finite number")]
    RowNotFinite {
        /// The row.
        row: usize,
        /// The component.
        component: usize,
        /// What was found.
        value: f32,
    },
    /// A negative value where the metric is undefined.
    #[error("query {query}, component {component} is {value}, but {metric} is defined on non-negative values only")]
    Negative {
        /// The query.
        query: usize,
        /// The component.
        component: usize,
        /// What was found.
        value: f32,
        /// The metric.
        metric: Metric,
    },
    /// A bitmap of another length than the index.
    #[error(
        "a filter has a bit for each row: wanted {wanted}, found {found}; make it anew where rows were added or removed"
    )]
    FilterLength {
        /// Rows of the index.
        wanted: usize,
        /// Bits of the filter.
        found: usize,
    },
    /// A bitmap that was made before a row was added or removed.
    #[error("the filter was made before rows of the index were added or removed; make it anew, or filter by ids")]
    FilterStale,
    /// Another number of bitmaps than of queries.
    #[error("a filter for each query: wanted {wanted}, found {found}")]
    FilterCount {
        /// Queries.
        wanted: usize,
        /// Bitmaps.
        found: usize,
    },
    /// A metric by which nothing is assigned.
    #[error(
        "points are assigned by l2, ip or cosine to f32 centroids; the metric is {metric}, the centroids are {dtype}"
    )]
    Assign {
        /// The metric.
        metric: Metric,
        /// Of what the centroids are made.
        dtype: DType,
    },
    /// A radius that is not a number.
    #[error("the radius is {found}, wanted a number")]
    Radius {
        /// What was given.
        found: f32,
    },
    /// The metric has no such screen.
    #[error("a screen of {screen} needs l2, ip or cosine; the metric is {metric}")]
    Screen {
        /// The metric.
        metric: Metric,
        /// The screen asked for.
        screen: crate::ops::Screen,
    },
    /// A matrix of values that does not fit its shape.
    #[error("{what}: wanted {wanted} values, found {found}")]
    Length {
        /// Which argument.
        what: &'static str,
        /// Values wanted.
        wanted: usize,
        /// Values found.
        found: usize,
    },
    /// A position past the last row.
    #[error("position {position} of query {query} is past the last of {rows} rows")]
    Position {
        /// The query.
        query: usize,
        /// The position.
        position: u32,
        /// Rows there are.
        rows: usize,
    },
    /// The slice given is no matrix.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The mapped file of the rows was written or shortened since it was opened.
    #[error("`{}` was changed while it was in use; open it anew", path.display())]
    FileChanged {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A [`CancelToken`](crate::CancelToken) called it off.
    #[error("the search was called off, or its deadline has passed")]
    Cancelled,
    /// The device could not do it.
    #[error(transparent)]
    Engine(EngineError),
}

impl From<EngineError> for SearchError {
    fn from(error: EngineError) -> SearchError {
        match error {
            EngineError::Cancelled => SearchError::Cancelled,
            other => SearchError::Engine(other),
        }
    }
}

/// Why a device could not be opened.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// No device of this name.
    #[error("no device `{wanted}`; there are auto, cpu, gpu, gpu:N and {there}")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// The adapters that exist.
        there: String,
    },
    /// A GPU was demanded and none can be used.
    #[error("no GPU can be used: {reason}. `cpu` always works, and `auto` takes it when there is no GPU")]
    NoGpu {
        /// Why not.
        reason: String,
    },
    /// The device is there but could not be opened.
    #[error("the device can't be opened: {reason}")]
    Open {
        /// Why not.
        reason: String,
    },
}
