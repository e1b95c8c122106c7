//! `Ivf`: rows as codes in inverted lists, re-ranked from better rows where the spec says so.
//!
//! A row goes through the transforms, to the list of its nearest centroid, and is coded relative to that. A query probes
//! the lists of its nearest centroids (`scan`), and the best candidates are re-ranked. A spec without `IVF` has lists too,
//! of [`UNSORTED`] rows each about no centroid, and probes all of them.

mod build;
mod explain;
mod file;
mod import;
mod index;
mod program;
mod rank;
mod search;

use std::sync::Arc;

use crate::codec::Codec;
use crate::codec::transform::Transform;
use crate::compute::Tag;
use crate::engine::Device;
use crate::ops::lists::Lists;
use crate::types::{DType, Metric};

use super::roster::Roster;
use super::store::Store;
use super::{CodecSpec, Index, IndexSpec, TransformSpec};

pub(crate) use build::Coded;

/// Rows of a list where rows are not sorted into lists.
const UNSORTED: usize = 1 << 14;

/// Approximate search in compressed rows: inverted lists over any codec, with transforms before and re-ranking
/// after, as an [`IndexSpec`] says.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nearfield::{Device, Index, IndexSpec, Ivf, Metric, TrainOptions};
///
/// let rows: Vec<[f32; 8]> = (0..2000).map(|i| std::array::from_fn(|j| ((i * (j + 3)) % 97) as f32)).collect();
/// let spec: IndexSpec = "IVF16,SQ8,RFlat".parse()?;
/// let mut index = Ivf::train(&Device::cpu(), &spec, Metric::L2, &rows, &TrainOptions::default())?;
/// index.add(&rows)?;
/// let hits = index.search(&rows[..1], 1)?;
/// assert_eq!(hits.ids(), [0]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Ivf {
    device: Device,
    spec: IndexSpec,
    metric: Metric,
    /// Components of the rows as they are given.
    dim: usize,
    transform: Arc<Transform>,
    /// The centroids, where rows are sorted into lists.
    coarse: Option<Arc<Store>>,
    codec: Arc<dyn Codec>,
    lists: Lists,
    /// Whether codes are of the difference to the centroid: always, but in some indexes of Faiss.
    residual: bool,
    tag: Tag,
    kept: Kept,
    warnings: Vec<String>,
    settings: Settings,
}

impl Clone for Ivf {
    /// What was trained is shared; codes and ids are copied, and so are rows once one of the two is changed. On devices the
    /// lists of the two are apart.
    fn clone(&self) -> Ivf {
        Ivf {
            device: self.device.clone(),
            spec: self.spec.clone(),
            metric: self.metric,
            dim: self.dim,
            transform: self.transform.clone(),
            coarse: self.coarse.clone(),
            codec: self.codec.clone(),
            lists: self.lists.clone(),
            residual: self.residual,
            tag: Tag::new(),
            kept: self.kept.clone(),
            warnings: self.warnings.clone(),
            settings: self.settings,
        }
    }
}

/// What is kept of rows beside their codes.
#[derive(Clone, Debug)]
enum Kept {
    /// Their ids.
    Ids(Roster),
    /// The rows themselves.
    Rows(Box<Store>),
    /// Better codes.
    Codes(Roster, Lists, Arc<dyn Codec>),
}

impl Kept {
    fn roster(&self) -> &Roster {
        match self {
            Kept::Ids(roster) | Kept::Codes(roster, ..) => roster,
            Kept::Rows(store) => store.roster(),
        }
    }
}

/// The settings of searches that bring none of their own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Settings {
    /// Lists probed per query.
    pub probes: usize,
    /// Candidates re-ranked per query.
    pub rerank: Rerank,
}

/// How many candidates are re-ranked per query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rerank {
    /// What suits k and the codec.
    Auto,
    /// So many.
    Rows(usize),
    /// So many per result: Faiss's `k_factor`.
    Times(f32),
}

impl Ivf {
    /// What the index was built as.
    pub fn spec(&self) -> IndexSpec {
        self.spec.clone()
    }

    /// What was doubtful in training, e.g. few rows for a codec.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The element type of the rows kept for re-ranking; f32 (or packed bits) when none are.
    pub fn dtype(&self) -> DType {
        match &self.kept {
            Kept::Rows(store) => store.dtype(),
            _ if self.spec.binary => DType::Bits,
            _ => DType::F32,
        }
    }

    /// Lists that rows are sorted into; 1 when they are not.
    pub fn lists(&self) -> usize {
        self.coarse.as_ref().map_or(1, |coarse| coarse.slots())
    }

    /// The number of lists that a search probes unless [`SearchOptions::probes`](crate::SearchOptions::probes) is set: at first a
    /// 32nd of them, at most 64. More lists give a higher recall and take longer.
    pub fn probes(&self) -> usize {
        self.settings.probes
    }

    /// Sets [`Ivf::probes`], from 1 to all. It is saved with the index.
    pub fn set_probes(&mut self, probes: usize) {
        Index::set_probes(self, probes);
    }

    /// The number of candidates that a search re-ranks unless [`SearchOptions::rerank`](crate::SearchOptions::rerank) is set;
    /// absent while k and the codec decide, or [`Ivf::rerank_factor`] does.
    pub fn rerank(&self) -> Option<usize> {
        if let Rerank::Rows(rows) = self.settings.rerank { Some(rows) } else { None }
    }

    /// The number of candidates per result that a search re-ranks, in an index of Faiss that says so (`k_factor`), until
    /// [`Ivf::set_rerank`] says otherwise.
    pub fn rerank_factor(&self) -> Option<f32> {
        if let Rerank::Times(factor) = self.settings.rerank { Some(factor) } else { None }
    }

    /// Sets [`Ivf::rerank`]. It is saved with the index.
    pub fn set_rerank(&mut self, rows: Option<usize>) {
        Index::set_rerank(self, rows);
    }

    /// Bytes of codes, and of the numbers and the position that each row has beside its code.
    pub fn code_bytes(&self) -> usize {
        self.lists.memory_bytes()
    }

    /// Who is there.
    pub(super) fn roster(&self) -> &Roster {
        self.kept.roster()
    }

    /// The rows, where they are kept.
    pub(super) fn kept_rows(&self) -> Option<&Store> {
        if let Kept::Rows(store) = &self.kept { Some(store) } else { None }
    }

    /// Whether what is compared of a vector is zero, so that its cosine is 0 to every other.
    fn directionless(&self, vector: &[f32]) -> bool {
        let cut = |spec: &TransformSpec| if let TransformSpec::Slice { dim } = *spec { Some(dim) } else { None };
        let left = self.spec.transforms.iter().map_while(cut).last().unwrap_or(self.dim);
        vector.iter().take(left).all(|&x| x == 0.0)
    }

    /// In which keys codes are compared.
    fn inner(&self) -> Metric {
        inner(self.metric, self.spec.codec)
    }
}

/// In which keys vectors of length 1 are compared for cosine: as products where they are stored as they are, so that a row
/// without direction has cosine 0; else by l2, for which they can be centred.
fn inner(metric: Metric, codec: CodecSpec) -> Metric {
    match (metric, codec) {
        (Metric::Cosine, CodecSpec::Flat | CodecSpec::F16 | CodecSpec::Bf16) => Metric::InnerProduct,
        (Metric::Cosine, _) => Metric::L2,
        (metric, _) => metric,
    }
}

/// How rows are sorted into lists, and lists found.
fn sorted_by(metric: Metric) -> Metric {
    if metric == Metric::Cosine { Metric::L2 } else { metric }
}
