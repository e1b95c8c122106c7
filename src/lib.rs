//! Exact vector search on any GPU, and on the CPU when there is none.

pub mod types;

pub use types::*;
