//! Exact vector search on any GPU, and on the CPU when there is none.

pub mod format;
pub mod types;

pub use types::*;
