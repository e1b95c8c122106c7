//! Files: from bytes to matrices and ids, and back.
//!
//! | file | read as | where the rows lie |
//! |---|---|---|
//! | `.npy`, little endian, C order, f16 bf16 f32 i8 u8 | that type | mapped |
//! | `.npy`, f64 i16 u16 i32 i64 bool, big endian or Fortran order | bool becomes u8, the others f32 | memory |
//! | `.npz:member` | as `.npy` | memory |
//! | `.fvecs` `.bvecs` | f32, u8 | mapped, with a stride |
//! | `.ivecs` | f32 as a matrix, i64 as ids | memory |
//! | `.fbin` `.i8bin` `.u8bin` | f32, i8, u8 | mapped |
//! | `.nf` ([`NfFile`]) | named sections | mapped |
//! | `.index` of Faiss ([`FaissIndex`]) | its parts | memory |
//!
//! Every reader checks the lengths that a header states against the file before it allocates, so a
//! damaged header costs an error and no memory. Pipes and devices are read to their end, into memory.
//! What is written replaces its file at once or not at all ([`AtomicFile`]), alone or several together
//! ([`commit_all`]). A mapped file must not be shortened or written in place while it is in use
//! ([`guard_maps`] keeps the process alive then); replacing it by renaming, as this module does, is
//! safe.

#[cfg(target_endian = "big")]
compile_error!("nearfield maps little-endian files as they are and is not made for big-endian machines");

mod atomic;
mod error;
mod faiss;
mod matrix;
mod mmap;
mod nf;
mod npy;
mod npz;
mod read;
#[cfg(test)]
mod tests;
mod vecs;
mod write;

pub use atomic::{AtomicFile, abandon_files, check_writable, commit_all};
pub use error::{LoadError, SaveError};
pub use faiss::{FaissCodec, FaissIndex, FaissList, FaissRows, FaissTransform, NotFaiss};
pub use matrix::{Matrix, NotBytes};
pub use mmap::{Map, guard_maps};
pub use nf::{NF_VERSION, NfFile, NfWriter, Section};
pub use npz::file_of;
pub use read::{FilterFile, IdMatrix, read_filter, read_ids, read_matrix};
pub use write::{stage_npy_f32, stage_npy_i64, write_npy_f32, write_npy_i64};
