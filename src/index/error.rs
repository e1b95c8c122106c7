//! Why an index could not be built or changed.

use crate::cluster::ClusterError;
use crate::codec::CodecError;
use crate::codec::spec::SpecError;
use crate::compute::EngineError;
use crate::error::{flat_slice, hint};
use crate::types::{DType, Metric, ShapeError};

/// Why rows could not be put into an index, changed or removed. The index is as it was before.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An index needs at least one component per row.
    #[error("rows need at least one component, dim is 0")]
    ZeroDim,
    /// Rows of another length than the index was made for.
    #[error("the index holds rows of {wanted} components, the new rows have {found}{}", flat_slice(*.wanted, *.found))]
    Dim {
        /// Components per row of the index.
        wanted: usize,
        /// Components of the rows given.
        found: usize,
    },
    /// The metric is not defined on this element type.
    #[error("{metric} is not defined on rows of {dtype}{}", hint(*.metric, *.dtype))]
    Unsupported {
        /// The metric asked for.
        metric: Metric,
        /// The element type asked for.
        dtype: DType,
    },
    /// Rows of this element type cannot be stored in the index without loss.
    #[error("the index stores {wanted} rows, rows of {found} can't become that without loss")]
    DType {
        /// What the index stores.
        wanted: DType,
        /// What was given.
        found: DType,
    },
    /// NaN, an infinity, or a value that the element type of the index cannot hold.
    #[error("row {row}, component {component} is {value}, wanted a finite number{}", limit(*.dtype))]
    NotFinite {
        /// The row, counted from the first one given.
        row: usize,
        /// The component.
        component: usize,
        /// What was found.
        value: f32,
        /// What the index stores.
        dtype: DType,
    },
    /// A negative value where the metric is undefined.
    #[error("row {row}, component {component} is {value}, but {metric} is defined on non-negative values only")]
    Negative {
        /// The row, counted from the first one given.
        row: usize,
        /// The component.
        component: usize,
        /// What was found.
        value: f32,
        /// The metric of the index.
        metric: Metric,
    },
    /// A row with values so large that distances from it overflow f64.
    #[error("row {row} has values so large that {metric} overflows f64; scale the rows down")]
    Overflow {
        /// The row, counted from the first one given.
        row: usize,
        /// The metric of the index.
        metric: Metric,
    },
    /// A whole number that f64 does not hold exactly.
    #[error("row {row}, component {component} is {value}; rows of i64 hold whole numbers of at most 2^53 in size")]
    Inexact {
        /// The row, counted from the first one given.
        row: usize,
        /// The component.
        component: usize,
        /// What was found.
        value: i64,
    },
    /// A row whose squared length an f32 can't hold, where rows are coded.
    #[error("row {row} is longer than 2^60, so that squared distances overflow; scale the rows down")]
    TooLongToSquare {
        /// The row, counted from the first one given.
        row: usize,
    },
    /// Another number of ids than of rows.
    #[error("{rows} rows need as many ids, found {ids}")]
    IdCount {
        /// Rows given.
        rows: usize,
        /// Ids given.
        ids: usize,
    },
    /// An update with none or several rows.
    #[error("an update replaces one row, found {found} rows; call it for each row with the id of that row")]
    OneRow {
        /// Rows given.
        found: usize,
    },
    /// An id that is there already, or twice among the new ones.
    #[error("id {id} (row {row}) is taken; ids are unique")]
    DuplicateId {
        /// The id.
        id: u64,
        /// The row, counted from the first one given.
        row: usize,
    },
    /// `u64::MAX` marks missing results.
    #[error("row {row} has the id u64::MAX, which stands for `no such row`")]
    ReservedId {
        /// The row, counted from the first one given.
        row: usize,
    },
    /// An id that the index does not hold.
    #[error("there is no row with id {id}")]
    UnknownId {
        /// The id.
        id: u64,
    },
    /// An id just below 2^62 leaves no numbers above it for rows without ids.
    #[error("an id just below 2^62 leaves no numbers for rows that come without ids; give ids to these too")]
    NoIdLeft,
    /// More rows than positions can name.
    #[error("an index holds at most {limit} rows, {rows} were wanted")]
    TooManyRows {
        /// Rows wanted.
        rows: usize,
        /// Most rows.
        limit: usize,
    },
    /// The slice given is no matrix.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A spec that does not fit the rows.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// A codec or a transform could not be trained.
    #[error(transparent)]
    Codec(CodecError),
    /// The centroids could not be found.
    #[error("no centroids: {0}")]
    Cluster(ClusterError),
    /// A [`CancelToken`](crate::CancelToken) called it off.
    #[error("the work on the index was called off, or its deadline has passed")]
    Cancelled,
    /// The device failed.
    #[error(transparent)]
    Engine(EngineError),
}

impl From<EngineError> for BuildError {
    fn from(error: EngineError) -> BuildError {
        match error {
            EngineError::Cancelled => BuildError::Cancelled,
            other => BuildError::Engine(other),
        }
    }
}

impl From<ClusterError> for BuildError {
    fn from(error: ClusterError) -> BuildError {
        match error {
            ClusterError::Cancelled => BuildError::Cancelled,
            other => BuildError::Cluster(other),
        }
    }
}

impl From<CodecError> for BuildError {
    fn from(error: CodecError) -> BuildError {
        match error {
            CodecError::Engine(EngineError::Cancelled) => BuildError::Cancelled,
            other => BuildError::Codec(other),
        }
    }
}

fn limit(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 => " of magnitude at most 65504 (f16); bf16 and f32 hold larger ones",
        _ => "",
    }
}
