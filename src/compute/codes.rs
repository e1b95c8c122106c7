//! 8-bit codes for a screen: what they hold and the bound that they give.
//!
//! A row x is represented by z: x - m for l2 and inner product, x / |x| - m for cosine, with m about the mean. Of z the
//! code keeps the part in a subspace of `dim` dimensions, y = V z, as integers c and a scale s; of what it loses it
//! keeps the lengths: the residual |y - s c| and the tail, the length of the part outside of the subspace. A query g
//! (for cosine of length 1, and less m except for inner product) is represented likewise by integers w, a scale h, and lengths. With I = <c, w>, exact in integers,
//!
//! `|<z, g> - s h I| <= residual |h w| + tail tail_g + |z| p`
//!
//! (Cauchy-Schwarz for each part; p gathers the query's own residual and all rounding, `docs/numerics.md`).

/// Rows that share one entry of [`Codes::longest`].
pub const GROUP: usize = 64;

/// Bytes that may be read past the last code.
pub const PADDING: usize = 64;

/// Most components of a code: products of longer ones would not fit in 32 bits with any certainty.
pub const MOST_DIM: usize = 1 << 16;

/// What is added to a code's components to store them as bytes.
pub const BIAS: i32 = 128;

/// The codes of rows: one entry of each list per row, but for `longest`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Codes {
    /// Components of a code, a multiple of 16.
    pub dim: usize,
    /// `[rows, dim]`, each component plus [`BIAS`]; [`PADDING`] more bytes follow.
    pub bytes: Vec<u8>,
    /// What a row adds to every key: `|z|^2` for l2, `-<m, z>` for cosine, 0 for inner product; rounded down, with room
    /// for all rounding relative to it.
    pub square: Vec<f32>,
    /// s.
    pub scale: Vec<f32>,
    /// At least `|y - s c|`.
    pub residual: Vec<f32>,
    /// At least the length of the part of z outside of the subspace.
    pub tail: Vec<f32>,
    /// At least `|z|` of every row of each [`GROUP`] of rows.
    pub longest: Vec<f32>,
}

impl Codes {
    /// How many rows have codes.
    pub fn rows(&self) -> usize {
        self.scale.len()
    }

    /// The integers of a row, plus [`BIAS`].
    pub fn row(&self, row: usize) -> &[u8] {
        &self.bytes[row * self.dim..(row + 1) * self.dim]
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + (4 * self.rows() + self.longest.len()) * 4
    }
}

/// Queries in the code of some [`Codes`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryCodes {
    /// Components of a code.
    pub dim: usize,
    /// `[queries, dim]`.
    pub bytes: Vec<i8>,
    /// One per query.
    pub terms: Vec<QueryTerms>,
}

/// The numbers of one query in [`lower_bound`]. Those that multiply what a row has are doubled for l2.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct QueryTerms {
    /// What the key is at least when all products are zero: `|g|^2` for l2, `-<q, m>` otherwise, less what the direct
    /// pass may err.
    pub offset: f32,
    /// h.
    pub scale: f32,
    /// At least `|h w|`.
    pub length: f32,
    /// At least the length of the part of g outside of the subspace.
    pub tail: f32,
    /// p: at least what the query's integers and all arithmetic err, relative to `|z|`.
    pub error: f32,
}

impl QueryCodes {
    /// The integers of a query.
    pub fn query(&self, query: usize) -> &[i8] {
        &self.bytes[query * self.dim..(query + 1) * self.dim]
    }
}

/// The sum of products of a row's and a query's integers.
pub fn product(row: &[u8], query: &[i8]) -> i32 {
    row.iter().zip(query).map(|(&c, &w)| (i32::from(c) - BIAS) * i32::from(w)).sum()
}

/// A bound below the direct pass's key of `row` and a query, from the product of their integers. Kernels compute this in
/// f32, in any order.
pub fn lower_bound(codes: &Codes, row: usize, query: &QueryTerms, product: i32) -> f32 {
    estimate(codes, row, query, product) - width(codes, row, query)
}

/// About the key: what it would be if nothing were lost.
pub fn estimate(codes: &Codes, row: usize, query: &QueryTerms, product: i32) -> f32 {
    query.offset + codes.square[row] - codes.scale[row] * query.scale * product as f32
}

/// How far the key may lie below its estimate.
pub fn width(codes: &Codes, row: usize, query: &QueryTerms) -> f32 {
    codes.residual[row] * query.length + codes.tail[row] * query.tail + codes.longest[row / GROUP] * query.error
}
