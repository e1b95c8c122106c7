//! Names of codecs and transforms, as Faiss's factory strings spell them.
//!
//! Each `parse` takes one token: `Ok(None)` when it names nothing of this kind, `Err` with the reason when it does but
//! cannot be.

use std::fmt;

/// A transform of vectors before they are split into lists and coded.
///
/// Rotations, `Pad` and (for l2) `Center` change no distance. What `PCA`, `OPQ16_64`, `RR64` and `Slice` keep of vectors is
/// compared instead of the vectors: q', x', with the squared lengths of what was dropped. The distance or similarity is
///
/// | metric | behind `PCA`, `OPQ`, `RR` | behind `Slice` |
/// |---|---|---|
/// | l2 | that of q' and x'; of codes (SQ4 to SQ8, PQ, RaBitQ) with the squares of both dropped parts added, an estimate of the whole | the same |
/// | ip | <q', x'> | the same |
/// | cosine | <q', x'> of rows brought to length 1 before: at most about the cosine of the whole rows, and near it | the cosine of the cut rows |
///
/// Re-ranking by kept rows (`RFlat`, `Refine(...)`) is by the whole rows as they were given, whatever the transforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransformSpec {
    /// `PCA64`: the first principal components; `PCAR64`: turned at random afterwards. The mean is taken off for l2 only.
    Pca {
        /// Components kept.
        dim: usize,
        /// Whether they are turned at random.
        rotate: bool,
    },
    /// `OPQ16` or `OPQ16_64`: the rotation that suits a product quantiser of so many parts (Ge et al. 2013).
    Opq {
        /// Parts of the product quantiser.
        parts: usize,
        /// Components kept; all when absent.
        dim: Option<usize>,
    },
    /// `RR` or `RR128`: a random rotation.
    Rotation {
        /// Components kept; all when absent.
        dim: Option<usize>,
    },
    /// `L2norm`: every vector is scaled to length 1.
    Normalize,
    /// `Center`: the mean of the training rows is subtracted, but for rows more than ten times as far away as half of all.
    Centre,
    /// `Pad128`: zeros are appended.
    Pad {
        /// Components afterwards.
        dim: usize,
    },
    /// `Slice128`: the first components (Matryoshka embeddings). By cosine the cut rows are brought to length 1.
    Slice {
        /// Components kept.
        dim: usize,
    },
}

impl TransformSpec {
    pub(crate) fn parse(token: &str) -> Result<Option<TransformSpec>, String> {
        let dim = |head: &str, digits: &str| {
            whole(digits).ok_or_else(|| format!("`{head}` wants the components that remain, as in `{head}64`"))
        };
        if token == "L2norm" || token == "L2Norm" {
            return Ok(Some(TransformSpec::Normalize));
        }
        if token == "Center" {
            return Ok(Some(TransformSpec::Centre));
        }
        if token.starts_with("PCAW") {
            return Err("whitening is not supported; there are `PCA64` and `PCAR64`".to_owned());
        }
        if token.starts_with("ITQ") {
            return Err("not supported; rotations are `RR` and `OPQ16`".to_owned());
        }
        if let Some(rest) = token.strip_prefix("PCAR") {
            return Ok(Some(TransformSpec::Pca { dim: dim("PCAR", rest)?, rotate: true }));
        }
        if let Some(rest) = token.strip_prefix("PCA") {
            return Ok(Some(TransformSpec::Pca { dim: dim("PCA", rest)?, rotate: false }));
        }
        if let Some(rest) = token.strip_prefix("OPQ") {
            let wrong =
                || "`OPQ` wants the parts of a code, as in `OPQ16` or, kept to 64 components, `OPQ16_64`".to_owned();
            let (parts, kept) = rest.split_once('_').map_or((rest, None), |(parts, kept)| (parts, Some(kept)));
            let parts = whole(parts).ok_or_else(wrong)?;
            let dim = kept.map(|kept| whole(kept).ok_or_else(wrong)).transpose()?;
            return Ok(Some(TransformSpec::Opq { parts, dim }));
        }
        // Faiss's HR is a rotation by Hadamard matrices; which rotation it is changes no meaning.
        if let Some(rest) = token.strip_prefix("RR").or_else(|| token.strip_prefix("HR")) {
            let dim = if rest.is_empty() { None } else { Some(dim("RR", rest)?) };
            return Ok(Some(TransformSpec::Rotation { dim }));
        }
        if let Some(rest) = token.strip_prefix("Pad") {
            return Ok(Some(TransformSpec::Pad { dim: dim("Pad", rest)? }));
        }
        if let Some(rest) = token.strip_prefix("Slice") {
            return Ok(Some(TransformSpec::Slice { dim: dim("Slice", rest)? }));
        }
        Ok(None)
    }

    /// Components of a vector of `dim` components afterwards.
    pub fn output_dim(&self, dim: usize) -> usize {
        match *self {
            TransformSpec::Pca { dim, .. } | TransformSpec::Pad { dim } | TransformSpec::Slice { dim } => dim,
            TransformSpec::Opq { dim: kept, .. } | TransformSpec::Rotation { dim: kept } => kept.unwrap_or(dim),
            TransformSpec::Normalize | TransformSpec::Centre => dim,
        }
    }
}

impl fmt::Display for TransformSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            TransformSpec::Pca { dim, rotate: false } => write!(f, "PCA{dim}"),
            TransformSpec::Pca { dim, rotate: true } => write!(f, "PCAR{dim}"),
            TransformSpec::Opq { parts, dim: None } => write!(f, "OPQ{parts}"),
            TransformSpec::Opq { parts, dim: Some(dim) } => write!(f, "OPQ{parts}_{dim}"),
            TransformSpec::Rotation { dim: None } => f.write_str("RR"),
            TransformSpec::Rotation { dim: Some(dim) } => write!(f, "RR{dim}"),
            TransformSpec::Normalize => f.write_str("L2norm"),
            TransformSpec::Centre => f.write_str("Center"),
            TransformSpec::Pad { dim } => write!(f, "Pad{dim}"),
            TransformSpec::Slice { dim } => write!(f, "Slice{dim}"),
        }
    }
}

/// How the vectors of a list are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CodecSpec {
    /// `Flat`: as they are, in f32 (or as packed bits).
    Flat,
    /// `SQfp16`: in half precision.
    F16,
    /// `SQbf16`: as the upper halves of f32.
    Bf16,
    /// `SQ8`, `SQ6`, `SQ4`: each component as an integer between its least and greatest value.
    Scalar {
        /// 4, 6 or 8.
        bits: u8,
    },
    /// `PQ16`, `PQ16x8`, `PQ32x4`, `PQ32x4fs`: product quantisation (Jegou et al. 2011).
    Product {
        /// Parts of a vector.
        parts: usize,
        /// Bits of a part: 4 or 8.
        bits: u8,
        /// Whether the string says `fs`; both are scanned in the same way.
        fast_scan: bool,
    },
    /// `RaBitQ`, `RaBitQ4`: signs, or integers, of a rotated vector (Gao & Long 2024, Gao et al. 2025).
    RaBitQ {
        /// 1 to 8.
        bits: u8,
    },
}

impl CodecSpec {
    pub(crate) fn parse(token: &str) -> Result<Option<CodecSpec>, String> {
        if token == "Flat" {
            return Ok(Some(CodecSpec::Flat));
        }
        if let Some(rest) = token.strip_prefix("SQ") {
            return match rest {
                "fp16" => Ok(Some(CodecSpec::F16)),
                "bf16" => Ok(Some(CodecSpec::Bf16)),
                "8" => Ok(Some(CodecSpec::Scalar { bits: 8 })),
                "6" => Ok(Some(CodecSpec::Scalar { bits: 6 })),
                "4" => Ok(Some(CodecSpec::Scalar { bits: 4 })),
                _ => Err("a scalar quantiser has 4, 6 or 8 bits, or is `SQfp16` or `SQbf16`".to_owned()),
            };
        }
        if let Some(rest) = token.strip_prefix("PQ") {
            return product(rest).map(Some);
        }
        if let Some(rest) = token.strip_prefix("RaBitQ") {
            return rabitq(rest).map(Some);
        }
        Ok(None)
    }
}

/// What follows `PQ`: `16`, `16x8`, `16np`, `32x4`, `32x4fs`, `32x4fsr_64`.
fn product(rest: &str) -> Result<CodecSpec, String> {
    let wrong = || "`PQ` wants the parts of a code, as in `PQ16` (8 bits each), `PQ32x4` or `PQ32x4fs`".to_owned();
    let (parts, rest) = digits(rest);
    let parts = whole(parts).ok_or_else(wrong)?;
    let (bits, rest) = rest.strip_prefix('x').map_or(("8", rest), digits);
    let bits = match bits {
        "4" => 4,
        "8" => 8,
        "" => return Err(wrong()),
        other => return Err(format!("a part of a code has 4 or 8 bits, not {other}: `PQ{parts}x4` or `PQ{parts}`")),
    };
    let Some(tail) = rest.strip_prefix("fs") else {
        // Faiss's `np` leaves out a step of training that is not made here.
        let known = rest.is_empty() || (rest == "np" && bits == 8);
        return if known { Ok(CodecSpec::Product { parts, bits, fast_scan: false }) } else { Err(wrong()) };
    };
    if bits != 4 {
        return Err(format!("fast scan has 4 bits per part: `PQ{parts}x4fs`"));
    }
    // Codes are always of residuals, which `r` asks for, and in blocks of one size.
    let tail = tail.strip_prefix('r').unwrap_or(tail);
    if !tail.is_empty() && tail.strip_prefix('_').and_then(whole).is_none() {
        return Err(wrong());
    }
    Ok(CodecSpec::Product { parts, bits, fast_scan: true })
}

/// The text behind `RaBitQ`: nothing, `4`, `fs`, `fs4`, `fs4_64`. There is one scan, which is fast.
fn rabitq(rest: &str) -> Result<CodecSpec, String> {
    let wrong = || "RaBitQ has 1 to 8 bits, as in `RaBitQ` (1 bit) or `RaBitQ4`".to_owned();
    let (bits, tail) = match rest.strip_prefix("fs") {
        Some(rest) => rest.split_once('_').map_or((rest, None), |(bits, block)| (bits, Some(block))),
        None => (rest, None),
    };
    if tail.is_some_and(|block| whole(block).is_none()) {
        return Err(wrong());
    }
    let bits = if bits.is_empty() { 1 } else { whole(bits).filter(|&b| b <= 8).ok_or_else(wrong)? };
    Ok(CodecSpec::RaBitQ { bits: bits as u8 })
}

impl fmt::Display for CodecSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            CodecSpec::Flat => f.write_str("Flat"),
            CodecSpec::F16 => f.write_str("SQfp16"),
            CodecSpec::Bf16 => f.write_str("SQbf16"),
            CodecSpec::Scalar { bits } => write!(f, "SQ{bits}"),
            CodecSpec::Product { parts, bits: 8, .. } => write!(f, "PQ{parts}"),
            CodecSpec::Product { parts, bits, fast_scan } => {
                write!(f, "PQ{parts}x{bits}{}", if fast_scan { "fs" } else { "" })
            }
            CodecSpec::RaBitQ { bits: 1 } => f.write_str("RaBitQ"),
            CodecSpec::RaBitQ { bits } => write!(f, "RaBitQ{bits}"),
        }
    }
}

/// The rows that the best candidates are re-ranked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RerankSpec {
    /// `Refine(Flat)` or `RFlat`: the rows as they were given.
    Flat,
    /// `Refine(SQfp16)`: rows in half precision.
    F16,
    /// `Refine(SQ8)`: rows as 8-bit integers.
    Scalar8,
}

impl RerankSpec {
    pub(crate) fn parse(token: &str) -> Result<Option<RerankSpec>, String> {
        if token == "RFlat" {
            return Ok(Some(RerankSpec::Flat));
        }
        let Some(rest) = token.strip_prefix("Refine") else { return Ok(None) };
        match rest {
            "(Flat)" => Ok(Some(RerankSpec::Flat)),
            "(SQfp16)" => Ok(Some(RerankSpec::F16)),
            "(SQ8)" => Ok(Some(RerankSpec::Scalar8)),
            _ => Err("there are `Refine(Flat)` (or `RFlat`), `Refine(SQfp16)` and `Refine(SQ8)`".to_owned()),
        }
    }
}

impl fmt::Display for RerankSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RerankSpec::Flat => "Refine(Flat)",
            RerankSpec::F16 => "Refine(SQfp16)",
            RerankSpec::Scalar8 => "Refine(SQ8)",
        })
    }
}

/// The digits in front of a text, and the rest.
pub(crate) fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A whole number of 1 or more, of digits only.
pub(crate) fn whole(text: &str) -> Option<usize> {
    let all = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&n| all && n > 0)
}

/// What is wrong with a spec: which token of it, and what would fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("index spec `{spec}`: `{token}` (part {place}): {reason}")]
#[non_exhaustive]
pub struct SpecError {
    /// The whole spec.
    pub spec: String,
    /// The part that is wrong.
    pub token: String,
    /// Which part it is, counted from 1.
    pub place: usize,
    /// Why, and what would fit.
    pub reason: String,
}
