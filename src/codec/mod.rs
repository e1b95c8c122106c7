//! How vectors become codes: learnt from rows, composed with any structure.
//!
//! A [`Codec`] turns the vectors of inverted lists into packed codes (`ops::lists` says what they hold) and queries
//! into what scans multiply them with. A `Transform` is what happens to vectors before.

mod bytes;
mod error;
pub(crate) mod int8;
mod learn;
mod linear;
mod lloyd;
mod opq;
mod product;
#[cfg(test)]
mod quality;
mod query;
mod rabitq;
mod rotation;
mod rows;
mod scalar;
pub(crate) mod spec;
#[cfg(test)]
mod testing;
pub(crate) mod transform;
mod unrounded;

use std::fmt::Debug;

use bytes::Reader;
pub use error::CodecError;
pub(crate) use product::Product;
use rabitq::RaBitQ;
use rows::{BitsCodec, RowsCodec};
pub(crate) use scalar::Scalar;
use spec::CodecSpec;
pub(crate) use unrounded::Unrounded;

use crate::ops::lists::{Encoded, Form, MOST_BITS, Prepared};
use crate::types::{DType, MatrixView, Metric};

/// A trained code of the vectors of lists.
///
/// Vectors are those after all transforms, in f32; for cosine of length 1, so that its keys are those of inner product.
/// With r = x - c of a row x in the list of centroid c, and r' what the code keeps of r, the parts of the key of
/// `ops::lists` are: for l2 `add` = |r'|^2 + 2 <c, r'> and a query's part -2 <q, r'>; for inner product and cosine
/// `add` = 0 and -<q, r'>. RaBitQ, which knows more of r than r', has |r|^2 + 2 <c, r'> and <c, r' - r>. Forms that are exact ([`Form::Rows`], [`Form::Bits`]) keep x itself.
pub(crate) trait Codec: Debug + Send + Sync {
    /// What its codes consist of.
    fn form(&self) -> Form;

    /// Components of a vector.
    fn dim(&self) -> usize;

    /// Parts of a code: components, or numbers of tables.
    fn parts(&self) -> usize;

    /// Encodes rows `[n, dim]`, of which row i belongs to the centroid `lists[i]` of `centroids` (`[lists, dim]`).
    fn encode(&self, metric: Metric, rows: MatrixView<'_, f32>, lists: &[u32], centroids: &[f32]) -> Encoded;

    /// The vector r' that a code and the row's scale (1 where there is none) stand for, without the centroid.
    fn decode(&self, code: &[u8], scale: f32, vector: &mut [f32]);

    /// Queries `[q, dim]` as scans take them.
    fn queries(&self, metric: Metric, queries: MatrixView<'_, f32>) -> Prepared;

    /// What `terms.scale * S + terms.shift` stands for, without the rounding of the query. Nothing for exact forms.
    fn unrounded(&self, metric: Metric, query: &[f32]) -> Unrounded;

    /// Its trained state, to be read again.
    fn write(&self) -> Vec<u8>;
}

/// The first byte of a codec's file section.
const KIND_ROWS: u8 = 1;
const KIND_BITS: u8 = 2;
const KIND_SCALAR: u8 = 3;
const KIND_PRODUCT: u8 = 4;
const KIND_RABITQ: u8 = 5;

/// Learns a codec from a sample `[n, dim]` of residuals (of vectors, for forms that are exact). What the caller should
/// be told of a sample that is small is appended to `warnings`.
///
/// # Errors
/// [`CodecError`]: a spec that does not fit the vectors, or too few rows.
pub(crate) fn train(
    spec: CodecSpec,
    metric: Metric,
    sample: MatrixView<'_, f32>,
    seed: u64,
    warnings: &mut Vec<String>,
) -> Result<Box<dyn Codec>, CodecError> {
    let dim = sample.dim();
    let token = || spec.to_string();
    error::finite(sample, token)?;
    Ok(match spec {
        CodecSpec::Flat if metric == Metric::Hamming => Box::new(BitsCodec::new(dim)),
        CodecSpec::Flat => Box::new(RowsCodec::new(dim, DType::F32)),
        CodecSpec::F16 => Box::new(RowsCodec::new(dim, DType::F16)),
        CodecSpec::Bf16 => Box::new(RowsCodec::new(dim, DType::Bf16)),
        CodecSpec::Scalar { bits: bits @ (4 | 6 | 8) } => {
            error::enough(sample.rows(), 1, token)?;
            Box::new(Scalar::train(bits, sample))
        }
        CodecSpec::Scalar { bits } => return Err(CodecError::Bits { token: token(), bits, fits: "4, 6 and 8" }),
        CodecSpec::Product { parts, bits, .. } => {
            Box::new(Product::train(spec, (parts, bits), sample, seed, warnings)?)
        }
        CodecSpec::RaBitQ { bits: bits @ 1..=MOST_BITS } => Box::new(RaBitQ::new(dim, bits)),
        CodecSpec::RaBitQ { bits } => return Err(CodecError::Bits { token: token(), bits, fits: "1 to 8" }),
    })
}

/// The codec of packed bits.
pub(crate) fn bits(dim: usize) -> Box<dyn Codec> {
    Box::new(BitsCodec::new(dim))
}

/// Reads what [`Codec::write`] wrote for this spec and vectors of `dim` components. Never trusts its bytes.
///
/// # Errors
/// What was found and what was wanted.
pub(crate) fn read(spec: CodecSpec, dim: usize, bytes: &[u8]) -> Result<Box<dyn Codec>, String> {
    if dim == 0 {
        return Err("vectors of 0 components".to_owned());
    }
    let mut reader = Reader(bytes);
    let kind = reader.u8()?;
    let codec: Box<dyn Codec> = match kind {
        KIND_ROWS => Box::new(RowsCodec::read(dim, &mut reader)?),
        KIND_BITS => Box::new(BitsCodec::new(dim)),
        KIND_SCALAR => Box::new(Scalar::read(dim, &mut reader)?),
        KIND_PRODUCT => Box::new(Product::read(dim, &mut reader)?),
        KIND_RABITQ => Box::new(RaBitQ::read(dim, &mut reader)?),
        other => return Err(format!("a codec of the unknown kind {other}")),
    };
    reader.end()?;
    let fits = match (spec, codec.form()) {
        (CodecSpec::Flat, form) => form == Form::Rows(DType::F32),
        (CodecSpec::F16, form) => form == Form::Rows(DType::F16),
        (CodecSpec::Bf16, form) => form == Form::Rows(DType::Bf16),
        (CodecSpec::Scalar { bits }, form) => kind == KIND_SCALAR && form == Form::Integers(bits),
        (CodecSpec::Product { parts, bits, .. }, form) => form == Form::Parts(bits) && codec.parts() == parts,
        (CodecSpec::RaBitQ { bits }, form) => kind == KIND_RABITQ && form == Form::Integers(bits),
    };
    let wanted = spec.to_string();
    if fits { Ok(codec) } else { Err(format!("codes of {} where `{wanted}` was wanted", codec.form())) }
}
