//! Names of index structures, as Faiss's factory strings spell them.

use std::fmt;
use std::str::FromStr;

pub use crate::codec::spec::{CodecSpec, RefineSpec, TransformSpec};

/// Which index to build: transforms, a structure, a codec and what candidates are ranked again from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IndexSpec {
    /// What happens to vectors first, in order.
    pub transforms: Vec<TransformSpec>,
    /// Inverted lists (`IVF1024`, `BIVF256` for packed bits); without them all rows are looked at.
    pub lists: Option<usize>,
    /// How rows are stored in the lists.
    pub codec: CodecSpec,
    /// From what the best candidates are ranked again.
    pub refine: Option<RefineSpec>,
    /// Whether rows are packed bits (`BFlat`, `BIVF256`).
    pub binary: bool,
}

impl IndexSpec {
    /// Exact search over all rows.
    pub const FLAT: IndexSpec =
        IndexSpec { transforms: Vec::new(), lists: None, codec: CodecSpec::Flat, refine: None, binary: false };

    /// Whether every row is compared as it is, so that answers are exact.
    pub fn is_flat(&self) -> bool {
        self.transforms.is_empty() && self.lists.is_none() && self.codec == CodecSpec::Flat
    }
}

impl Default for IndexSpec {
    fn default() -> IndexSpec {
        IndexSpec::FLAT
    }
}

/// A spec that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown index spec `{found}`; there is Flat{}", if found.eq_ignore_ascii_case("flat") { " (with a capital F)" } else { "" })]
pub struct UnknownSpec {
    /// What was given.
    pub found: String,
}

impl FromStr for IndexSpec {
    type Err = UnknownSpec;

    fn from_str(text: &str) -> Result<IndexSpec, UnknownSpec> {
        match text.trim() {
            "Flat" => Ok(IndexSpec::FLAT),
            other => Err(UnknownSpec { found: other.to_owned() }),
        }
    }
}

impl fmt::Display for IndexSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flat")
    }
}
