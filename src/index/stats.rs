//! Contents and settings of an index.

use super::{Index, IndexSpec};
use crate::ops::Screen;
use crate::types::{DType, Metric};

/// Contents and settings of an index: [`Index::stats`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct IndexStats {
    /// What it was built as.
    pub spec: IndexSpec,
    /// How far apart two rows are.
    pub metric: Metric,
    /// The element type of the rows that are kept.
    pub dtype: DType,
    /// Components per row; bits for packed bits.
    pub dim: usize,
    /// Rows that a search can find.
    pub rows: usize,
    /// Removed rows whose memory is not given back yet.
    pub removed: usize,
    /// Bytes of host memory (or of the mapped file).
    pub memory_bytes: usize,
    /// Inverted lists, where rows are sorted into lists.
    pub lists: Option<usize>,
    /// Lists that a search probes when it does not say how many.
    pub probes: Option<usize>,
    /// Candidates that a search re-ranks when it does not say how many, if that was set.
    pub rerank: Option<usize>,
    /// Candidates that it re-ranks per result, if an index of Faiss said how many (`k_factor`).
    pub rerank_factor: Option<f32>,
    /// The screen of every search that names none, if it was set.
    pub screen: Option<Screen>,
    /// What was doubtful in training, e.g. few rows for a codec.
    pub warnings: Vec<String>,
}

impl IndexStats {
    /// What the methods of the trait tell of an index.
    pub(super) fn of(index: &dyn Index) -> IndexStats {
        IndexStats {
            spec: index.spec(),
            metric: index.metric(),
            dtype: index.dtype(),
            dim: index.dim(),
            rows: index.len(),
            removed: 0,
            memory_bytes: index.memory_bytes(),
            lists: None,
            probes: None,
            rerank: None,
            rerank_factor: None,
            screen: None,
            warnings: Vec::new(),
        }
    }
}
