//! Vector search, exact or in compressed indexes, on any GPU, and on the CPU when there is none.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use nearfield::{Device, Flat, Metric};
//!
//! let device = Device::auto()?; // the GPU if there is one, else the CPU
//! let mut index = Flat::new(&device, 3, Metric::Cosine)?;
//! index.add(&[[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])?;
//! let hits = index.search(&[[1.0, 0.1, 0.0]], 2)?;
//! for (id, similarity) in hits.query(0) {
//!     println!("{id} {similarity}");
//! }
//! # assert_eq!(hits.ids(), [0, 1]);
//! # Ok(()) }
//! ```
//!
//! [`Flat`] compares every row and is exact. [`Ivf`] scans codes of the rows in some inverted lists, as an [`IndexSpec`]
//! says: faster or smaller, and approximate. [`AnyIndex`] holds either, [`Tuning`] finds which is fastest for a recall, and
//! [`AnyIndex::from_faiss`] takes over indexes of Faiss.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use nearfield::{Device, Ivf, Metric, TrainOptions};
//!
//! let rows: Vec<[f32; 4]> = (0..1000).map(|i| std::array::from_fn(|j| ((i * (2 * j + 1)) % 89) as f32)).collect();
//! let spec = "IVF16,RaBitQ4,RFlat".parse()?; // 16 lists, 4 bits per component, the best re-ranked from f32 rows
//! let mut index = Ivf::train(&Device::cpu(), &spec, Metric::L2, &rows, &TrainOptions::default())?;
//! index.add(&rows)?;
//! assert_eq!(index.search(&rows[7..8], 1)?.ids(), [7]);
//! # Ok(()) }
//! ```
//!
//! # Features
//! - `gpu` (default): the GPU engine on [wgpu]: Vulkan, Metal and DX12. Without it nothing of wgpu is compiled.
//! - `ndarray`: rows as ndarray's arrays and views. `arrow`: rows as Arrow's lists of fixed size ([`IntoRows`]).
//! - `serde`: specs, options, statistics and answers in serde's data model.
//! - `cpu` (default): the CPU engine. It is always there; the name exists so that
//!   `--no-default-features --features cpu` says what it means.
//!
//! - `tooling`: the engines, kernels and rooflines themselves, for the program, tests and benchmarks of this repository. No
//!   promise of stability goes with it.
//!
//! `ARCHITECTURE.md` in the repository shows the way through the code, `docs/numerics.md` what "exact" means and why it
//! holds.

// Without `tooling` some of what tests and benchmarks use is used by nobody.
#![cfg_attr(not(feature = "tooling"), allow(dead_code, unused_imports))]

mod cache;
mod cancel;
mod cluster;
mod codec;
#[cfg(not(feature = "tooling"))]
mod compute;
#[cfg(feature = "tooling")]
#[doc(hidden)]
pub mod compute;
#[cfg(not(feature = "tooling"))]
mod cpu;
#[cfg(feature = "tooling")]
#[doc(hidden)]
pub mod cpu;
mod device;
#[cfg(not(feature = "tooling"))]
mod engine;
#[cfg(feature = "tooling")]
#[doc(hidden)]
pub mod engine;
mod error;
mod executor;
pub mod format;
#[cfg(all(feature = "gpu", not(feature = "tooling")))]
mod gpu;
#[cfg(all(feature = "gpu", feature = "tooling"))]
#[doc(hidden)]
pub mod gpu;
mod index;
mod linalg;
#[cfg(not(feature = "tooling"))]
mod ops;
#[cfg(feature = "tooling")]
#[doc(hidden)]
pub mod ops;
mod principal;
mod random;
#[cfg(feature = "tooling")]
#[doc(hidden)]
pub mod roofline;
#[cfg(feature = "gpu")]
mod router;
#[cfg(feature = "serde")]
mod serial;
mod simd;
#[cfg(not(feature = "tooling"))]
mod stats;
#[cfg(feature = "tooling")]
#[doc(hidden)]
pub mod stats;
mod threads;
#[cfg(not(feature = "tooling"))]
mod tune;
#[cfg(feature = "tooling")]
#[doc(hidden)]
pub mod tune;
mod types;
#[cfg(test)]
extern crate self as nearfield;
#[cfg(test)]
#[path = "../tests/task/mod.rs"]
mod tasks;
mod verbs;

pub use cache::CacheDir;
pub use cancel::CancelToken;
pub use cluster::{ClusterError, Clustering, KMeans, Progress};
pub use codec::CodecError;
pub use compute::{EngineError, Kind as DeviceKind, Pending};
pub use device::{DEVICE_VARIABLE, DeviceOptions};
pub use engine::{Device, Report};
pub use error::{DeviceError, RowError, SearchError};
#[cfg(feature = "gpu")]
pub use gpu::{AdapterReport, Kind as AdapterKind, adapters};
/// Half-precision elements of rows.
pub use half::{bf16, f16};
pub use index::{
    AnyIndex, BuildError, CodecSpec, Explanation, FileInfo, Flat, ImportError, Index, IndexSpec, IndexStats, Ivf,
    OpenError, Ranging, RerankSpec, RowIter, SearchOptions, Searching, Sharable, Shared, SpecError, TrainOptions,
    TransformSpec, Trial, TuneError, Tuned, TunedPoint, Tuning,
};
#[cfg(feature = "tooling")]
#[doc(hidden)]
pub use index::{fastest, settings};
pub use ops::{Cost, Norm, Program, Screen, UnknownScreen};
pub use principal::PrincipalComponents;
pub use stats::{Ceilings, Peak, Roofs, SearchStats, Stage, Unit};
pub use types::*;
pub use verbs::Order;
#[cfg(feature = "gpu")]
pub use wgpu;
