//! The GPU engine: runs a [`Plan`](crate::plan::Plan) through wgpu on Vulkan, Metal or DX12.

mod adapters;
mod context;
mod memory;
mod pipelines;
mod resident;
mod rows;
mod submit;
mod sync;
mod trusted;

pub use adapters::{AdapterReport, Kind, OpenError, Select, adapters};
pub use context::Fault;
