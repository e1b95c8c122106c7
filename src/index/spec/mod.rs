//! Which index: its parts, and the factory string that names them, as Faiss's do.

mod check;
mod parse;
mod suggest;
#[cfg(test)]
mod tests;

use std::fmt;

pub use crate::codec::spec::{CodecSpec, RerankSpec, SpecError, TransformSpec};

/// Which index to build: transforms, a structure, a codec and the rows that candidates are re-ranked from.
///
/// Written and read as Faiss's factory strings are: transforms, then `IVFn`, then the codec, then `Refine`, with commas
/// between. [`Display`](fmt::Display) gives the canonical form; what Faiss's grammar has beyond it and what changes
/// nothing here is read and left out (`IDMap`, since ids are always kept; `fsr`, since codes are always of residuals;
/// `x8`, `np`; `RaBitQfs`; `IVF4k` is `IVF4096`; `RFlat` is `Refine(Flat)`).
///
/// ```
/// use nearfield::{CodecSpec, IndexSpec, RerankSpec};
///
/// let spec: IndexSpec = "IVF1k,RaBitQ4,RFlat".parse()?;
/// assert_eq!(spec, IndexSpec::ivf(1024).codec(CodecSpec::RaBitQ { bits: 4 }).rerank(RerankSpec::Flat));
/// assert_eq!(spec.to_string(), "IVF1024,RaBitQ4,Refine(Flat)");
/// # Ok::<(), nearfield::SpecError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct IndexSpec {
    /// What happens to vectors first, in order.
    pub transforms: Vec<TransformSpec>,
    /// Inverted lists (`IVF1024`, `BIVF256` for packed bits); without them all rows are scanned.
    pub lists: Option<usize>,
    /// How rows are stored in the lists.
    pub codec: CodecSpec,
    /// The rows that the best candidates are re-ranked from.
    pub rerank: Option<RerankSpec>,
    /// Whether rows are packed bits (`BFlat`, `BIVF256`).
    pub binary: bool,
}

impl IndexSpec {
    /// Exact search over all rows.
    pub const FLAT: IndexSpec =
        IndexSpec { transforms: Vec::new(), lists: None, codec: CodecSpec::Flat, rerank: None, binary: false };

    /// Rows in inverted lists, stored as they are until [`codec`](Self::codec) says otherwise.
    pub fn ivf(lists: usize) -> IndexSpec {
        IndexSpec { lists: Some(lists), ..IndexSpec::FLAT }
    }

    /// With a transform after those there are.
    #[must_use]
    pub fn transform(mut self, transform: TransformSpec) -> IndexSpec {
        self.transforms.push(transform);
        self
    }

    /// With rows stored in this way.
    #[must_use]
    pub fn codec(mut self, codec: CodecSpec) -> IndexSpec {
        self.codec = codec;
        self
    }

    /// With candidates re-ranked from such rows.
    #[must_use]
    pub fn rerank(mut self, rerank: RerankSpec) -> IndexSpec {
        self.rerank = Some(rerank);
        self
    }

    /// Whether every row is compared as it is, so that answers are exact.
    pub fn is_flat(&self) -> bool {
        self.transforms.is_empty() && self.lists.is_none() && self.codec == CodecSpec::Flat
    }

    /// Components of the vectors that are coded, of rows of `dim` components.
    pub fn coded_dim(&self, dim: usize) -> usize {
        self.transforms.iter().fold(dim, |dim, t| t.output_dim(dim))
    }

    /// The tokens of the canonical form.
    fn tokens(&self) -> Vec<String> {
        let mut tokens: Vec<String> = self.transforms.iter().map(ToString::to_string).collect();
        match (self.lists, self.binary) {
            (None, true) => tokens.push("BFlat".to_owned()),
            (Some(n), true) => tokens.push(format!("BIVF{n}")),
            (lists, false) => {
                tokens.extend(lists.map(|n| format!("IVF{n}")));
                tokens.push(self.codec.to_string());
            }
        }
        tokens.extend(self.rerank.map(|r| r.to_string()));
        tokens
    }
}

impl Default for IndexSpec {
    fn default() -> IndexSpec {
        IndexSpec::FLAT
    }
}

impl fmt::Display for IndexSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tokens().join(","))
    }
}
