//! Exact vector search on any GPU, and on the CPU when there is none.

#[doc(hidden)]
pub mod cpu;
pub mod engine;
#[cfg(feature = "gpu")]
#[doc(hidden)]
pub mod gpu;
pub mod kernels;
pub mod plan;
pub mod stats;
pub mod types;

pub use types::*;
#[cfg(feature = "gpu")]
pub use wgpu;
