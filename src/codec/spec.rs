//! Names of codecs and transforms, as Faiss's factory strings spell them.

/// What happens to vectors before they are split into lists and coded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransformSpec {
    /// `PCA64`: the first principal components; `PCAR64`: turned at random afterwards.
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
    /// `Center`: the mean of the training rows is subtracted.
    Centre,
    /// `Pad128`: zeros are appended.
    Pad {
        /// Components afterwards.
        dim: usize,
    },
    /// `Slice128`: the first components (Matryoshka embeddings).
    Slice {
        /// Components kept.
        dim: usize,
    },
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

/// From what the best candidates are ranked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RefineSpec {
    /// `Refine(Flat)` or `RFlat`: the rows as they were given.
    Flat,
    /// `Refine(SQfp16)`: rows in half precision.
    F16,
    /// `Refine(SQ8)`: rows as 8-bit integers.
    Scalar8,
}
