//! Index files of Faiss: their parts, as they stand in the file.
//!
//! | fourcc | index of Faiss |
//! |---|---|
//! | `IxF2` `IxFI` `IxFl` | `IndexFlat` |
//! | `IxSQ` | `IndexScalarQuantizer` |
//! | `IxPq` | `IndexPQ` |
//! | `IwFl` `IwSq` `IwSQ` `IwPQ` | `IndexIVFFlat`, `IndexIVFScalarQuantizer`, `IndexIVFPQ`, over flat centroids |
//! | `IxPT` | `IndexPreTransform`: `rrot` `PCAm` `PcAm` `Pcam` `LTra` `VNrm` `VCnt`, `RmDT` that pads or cuts |
//! | `IxRF` | `IndexRefine`, from `IxF2` `IxFI` `IxFl` `IxSQ` |
//! | `IxMp` `IxM2` | `IndexIDMap` |
//!
//! The layout is that of Faiss 1.15's `impl/index_read.cpp`; numbers are little endian. No length in a file is trusted:
//! each is held against the bytes that are left before anything is allocated, and parts against each other.

mod parse;
#[cfg(test)]
mod tests;

use std::path::Path;

use half::{bf16, f16};

use super::{LoadError, Map};
use crate::types::Metric;

/// An index of Faiss.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct FaissIndex {
    /// Its metric; inner product and l2 are those that codes have.
    pub metric: Metric,
    /// Components of a row as it is given, before transforms.
    pub dim: usize,
    /// What happens to rows and queries first, in order.
    pub transforms: Vec<FaissTransform>,
    /// `[lists, coded dim]`; absent where there is one list of all rows.
    pub centroids: Option<Vec<f32>>,
    /// By which the lists of a query are found: the metric of the centroids, which may be another than that of rows.
    pub lists_by: Metric,
    /// The rows by list; those of an index without lists are one list.
    pub lists: Vec<FaissList>,
    /// Rows that are counted and in no list: Faiss leaves out those with NaN or infinity.
    pub unlisted: usize,
    /// As what each row is known outside, where an `IndexIDMap` says so; the numbers in lists are places here then.
    pub ids: Option<Vec<i64>>,
    /// What a code consists of.
    pub codec: FaissCodec,
    /// Lists that a search probes; 1 where there is one list.
    pub probes: usize,
    /// Whether codes are those of the difference to the centroid.
    pub by_residual: bool,
    /// The rows, untransformed, from which the best are re-ranked.
    pub refine: Option<FaissRows>,
}

/// Codes and whose they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaissList {
    /// The row of each code: its number, or as what it is known outside.
    pub ids: Vec<i64>,
    /// The codes, one after the other.
    pub codes: Vec<u8>,
}

/// Rows with their code.
#[derive(Clone, Debug, PartialEq)]
pub struct FaissRows {
    /// What a code consists of.
    pub codec: FaissCodec,
    /// The rows, in the order of their numbers.
    pub rows: FaissList,
    /// Candidates per result, 1 or more.
    pub k_factor: f32,
}

/// What a code of Faiss consists of.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FaissCodec {
    /// Components in f32.
    F32,
    /// Components in half precision.
    F16,
    /// Components as the upper halves of f32.
    Bf16,
    /// Integers c of 4, 6 or 8 bits for `low + step (c + 0.5) / (2^bits - 1)`.
    Scalar {
        /// 4, 6 or 8.
        bits: u8,
        /// Least value of each component, or of all.
        low: Vec<f32>,
        /// Greatest less least value of each component, or of all.
        step: Vec<f32>,
    },
    /// Components that are whole numbers, as bytes.
    Bytes {
        /// What is subtracted from a byte: 0 or 128.
        less: u8,
    },
    /// Numbers of centroids of parts of a vector.
    Product {
        /// Parts of a vector.
        parts: usize,
        /// 1 to 8.
        bits: u8,
        /// `[parts, 2^bits, dim / parts]`.
        centroids: Vec<f32>,
    },
}

/// A transform of vectors before they are coded.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FaissTransform {
    /// `A x + b`.
    Linear {
        /// A, `[to, from]`.
        matrix: Vec<f32>,
        /// b; absent where it is 0.
        bias: Option<Vec<f32>>,
        /// Components afterwards.
        dim: usize,
        /// Its fourcc: `PcAm`, `rrot`, `LTra` (which OPQ is, too).
        kind: String,
    },
    /// Scaled to length 1.
    Normalize,
    /// Less this vector.
    Centre(Vec<f32>),
    /// Zeros appended, or the last components left out.
    Resize {
        /// Components afterwards.
        dim: usize,
    },
}

impl FaissIndex {
    /// Reads an index file of Faiss.
    ///
    /// # Errors
    /// [`LoadError::Faiss`] names the place and the fourcc of what is damaged or not read here, [`LoadError::Io`] what
    /// cannot be opened.
    pub fn read(path: impl AsRef<Path>) -> Result<FaissIndex, LoadError> {
        let path = path.as_ref();
        let bytes = Map::open(path).map_err(|e| LoadError::io(path, e))?;
        FaissIndex::parse(bytes.bytes()).map_err(|wrong| LoadError::Faiss { path: path.to_owned(), wrong })
    }

    /// Reads the bytes of an index file of Faiss.
    ///
    /// # Errors
    /// [`NotFaiss`] names the place and the fourcc of what is damaged or not read here.
    pub fn parse(bytes: &[u8]) -> Result<FaissIndex, NotFaiss> {
        parse::file(bytes)
    }

    /// Rows in lists.
    pub fn rows(&self) -> usize {
        self.lists.iter().map(|list| list.ids.len()).sum()
    }

    /// As what a row is known outside, of its number in a list.
    pub fn id(&self, row: i64) -> i64 {
        let Some(ids) = &self.ids else { return row };
        usize::try_from(row).ok().and_then(|row| ids.get(row)).copied().unwrap_or(row)
    }

    /// Components of a coded vector, after transforms.
    pub fn coded_dim(&self) -> usize {
        self.transforms.iter().fold(self.dim, |dim, transform| match transform {
            FaissTransform::Linear { dim, .. } | FaissTransform::Resize { dim } => *dim,
            FaissTransform::Normalize | FaissTransform::Centre(_) => dim,
        })
    }
}

impl FaissList {
    /// Leaves out the rows of which this says no, given their numbers and their codes of so many bytes.
    pub(crate) fn retain(&mut self, code_bytes: usize, mut keep: impl FnMut(i64, &[u8]) -> bool) {
        let mut kept = 0;
        for place in 0..self.ids.len() {
            let code = place * code_bytes..(place + 1) * code_bytes;
            if keep(self.ids[place], &self.codes[code.clone()]) {
                self.ids[kept] = self.ids[place];
                self.codes.copy_within(code, kept * code_bytes);
                kept += 1;
            }
        }
        self.ids.truncate(kept);
        self.codes.truncate(kept * code_bytes);
    }
}

impl FaissCodec {
    /// Bytes of the code of `dim` components.
    pub fn code_bytes(&self, dim: usize) -> usize {
        match self {
            FaissCodec::F32 => 4 * dim,
            FaissCodec::F16 | FaissCodec::Bf16 => 2 * dim,
            FaissCodec::Bytes { .. } => dim,
            FaissCodec::Scalar { bits, .. } => (dim * usize::from(*bits)).div_ceil(8),
            FaissCodec::Product { parts, bits, .. } => (parts * usize::from(*bits)).div_ceil(8),
        }
    }

    /// The vector that a code of [`code_bytes`](Self::code_bytes) stands for, without the centroid. What a code that is
    /// too short leaves open stays as it is.
    pub fn decode(&self, code: &[u8], vector: &mut [f32]) {
        match self {
            FaissCodec::F32 => {
                for (x, bytes) in vector.iter_mut().zip(code.as_chunks().0) {
                    *x = f32::from_le_bytes(*bytes);
                }
            }
            FaissCodec::F16 => {
                for (x, bytes) in vector.iter_mut().zip(code.as_chunks().0) {
                    *x = f16::from_le_bytes(*bytes).to_f32();
                }
            }
            FaissCodec::Bf16 => {
                for (x, bytes) in vector.iter_mut().zip(code.as_chunks().0) {
                    *x = bf16::from_le_bytes(*bytes).to_f32();
                }
            }
            FaissCodec::Bytes { less } => {
                for (x, byte) in vector.iter_mut().zip(code) {
                    *x = f32::from(*byte) - f32::from(*less);
                }
            }
            FaissCodec::Scalar { bits, low, step } => {
                let most = ((1u32 << bits) - 1) as f32;
                let of = |all: &[f32], i: usize| all.get(i).or(all.first()).copied().unwrap_or(0.0);
                for (i, (x, c)) in vector.iter_mut().zip(Numbers::new(code, *bits)).enumerate() {
                    *x = of(low, i) + of(step, i) * ((c as f32 + 0.5) / most);
                }
            }
            FaissCodec::Product { parts, bits, centroids } => {
                let part = vector.len() / (*parts).max(1);
                let tables = centroids.chunks_exact((part << bits).max(1));
                for ((to, table), c) in vector.chunks_exact_mut(part.max(1)).zip(tables).zip(Numbers::new(code, *bits))
                {
                    if let Some(from) = table.get(c * part..(c + 1) * part) {
                        to.copy_from_slice(from);
                    }
                }
            }
        }
    }
}

impl FaissCodec {
    /// The numbers of a code, a byte each, as many as `numbers` has room for; of rows and bytes, the bytes as they are.
    pub(crate) fn unpack(&self, code: &[u8], numbers: &mut [u8]) {
        match self {
            FaissCodec::Scalar { bits, .. } | FaissCodec::Product { bits, .. } => {
                numbers.iter_mut().zip(Numbers::new(code, *bits)).for_each(|(to, c)| *to = c as u8);
            }
            _ => numbers.iter_mut().zip(code).for_each(|(to, from)| *to = *from),
        }
    }
}

/// Numbers of up to 8 bits from bytes, the lowest bits first.
struct Numbers<'a> {
    code: &'a [u8],
    bits: usize,
    at: usize,
}

impl<'a> Numbers<'a> {
    fn new(code: &'a [u8], bits: u8) -> Numbers<'a> {
        Numbers { code, bits: usize::from(bits), at: 0 }
    }
}

impl Iterator for Numbers<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let low = usize::from(*self.code.get(self.at / 8)?);
        let high = usize::from(self.code.get(self.at / 8 + 1).copied().unwrap_or(0));
        let number = (low | high << 8) >> (self.at % 8) & ((1 << self.bits) - 1);
        self.at += self.bits;
        Some(number)
    }
}

/// What is wrong with an index file of Faiss.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}, in `{fourcc}`: {problem}")]
#[non_exhaustive]
pub struct NotFaiss {
    /// Where.
    pub offset: usize,
    /// The part of the file, by its four letters.
    pub fourcc: String,
    /// What was found, and what was wanted.
    pub problem: String,
}
