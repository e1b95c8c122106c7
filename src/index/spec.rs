//! Names of index structures, as Faiss's factory strings spell them.

use std::fmt;
use std::str::FromStr;

/// Which index to build.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum IndexSpec {
    /// Exact search over all rows.
    #[default]
    Flat,
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
            "Flat" => Ok(IndexSpec::Flat),
            other => Err(UnknownSpec { found: other.to_owned() }),
        }
    }
}

impl fmt::Display for IndexSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexSpec::Flat => f.write_str("Flat"),
        }
    }
}
