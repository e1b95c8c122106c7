//! Bounds of few rows (centroids) for many queries (points) in 8-bit codes: blocks of rows are packed once, and each block
//! meets just the queries that it is asked about.
//!
//! A tile is two vectors of rows times a handful of queries, whose components are broadcast from where they lie.
//!
//! It is the inner loop of k-means behind codes: points are many and stream by, centroids are few and
//! stay packed.

use super::{ByteKernel, Dot, Line, MAX_LANES, Simd, Token};
use crate::ops::assign::BLOCK;
use crate::ops::codes::{BIAS, Codes, GROUP, QueryCodes};

/// Vectors of rows in a tile.
///
/// Each broadcast then serves two products, and a block of 32 rows is one tile of 16 lanes.
const VECTORS: usize = 2;

/// Queries of a tile where there are 32 registers, and where there are fewer.
// By registers: 2 times 8 accumulators, 2 rows and 1 broadcast are 19, 2 times 4 leave room in 16.
// AVX2 is WIDE and takes 8, too, though it has 16 registers.
const QUERIES: usize = 8;
const FEW_QUERIES: usize = 4;

/// Rows in blocks: the integers in the order in which tiles read them, and what a bound needs beside them.
pub(crate) struct Blocks {
    token: Token,
    /// Components of a code, a multiple of 16.
    dim: usize,
    /// For each block its tiles, in each `[dim / 4, rows of a tile, 4]`.
    // The width of a tile depends on the level, so blocks belong to the token that they were packed
    // with.
    bytes: Vec<Line>,
    /// `Codes::square`, `scale` and `tail`, filled up to whole blocks.
    square: Vec<f32>,
    scale: Vec<f32>,
    tail: Vec<f32>,
    /// The largest of each block.
    // The maxima of a block stand for all its rows: the bound is lower by little and needs two
    // numbers less per row.
    residual: Vec<f32>,
    longest: Vec<f32>,
}

/// What is known of a block's rows and one query.
pub(crate) struct Found<'a> {
    /// The place of the query in the list.
    pub place: usize,
    /// The least bound of the block.
    pub least: f32,
    /// The rows of the block whose bounds are not above the threshold.
    pub mask: u32,
    /// The bounds of all rows of the block; only when the mask is not 0.
    pub bounds: &'a [f32; BLOCK],
}

impl Blocks {
    /// Packs all rows.
    ///
    /// Within a tile the order is that of `dot4`: four components of a row in a lane, the rows of the
    /// tile side by side.
    pub fn pack(token: Token, codes: &Codes) -> Blocks {
        struct Width;
        impl super::super::SimdKernel for Width {
            type Output = usize;
            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> usize {
                VECTORS * S::LANES
            }
        }
        let (width, rows, words) = (token.run(Width), codes.rows(), codes.dim / 4);
        let blocks = rows.div_ceil(BLOCK);
        let mut bytes = vec![Line([0; 64]); blocks * BLOCK * codes.dim / 64];
        // `dim` is a multiple of 16 and BLOCK rows of it are a multiple of 64 bytes, so tiles fill
        // the lines exactly.
        let flat: &mut [u8] = as_bytes(&mut bytes);
        for (tile, out) in flat.chunks_exact_mut(width * codes.dim).enumerate() {
            // Rows that there are not stay zero bytes; their `square` of infinity keeps them above
            // any threshold.
            for r in (0..width).filter(|r| tile * width + r < rows) {
                let (four, _) = codes.row(tile * width + r).as_chunks::<4>();
                for (word, four) in four.iter().enumerate().take(words) {
                    out[(word * width + r) * 4..][..4].copy_from_slice(four);
                }
            }
        }
        let padded = |values: &[f32], beyond: f32| -> Vec<f32> {
            let more = std::iter::repeat(beyond);
            values.iter().copied().chain(more).take(blocks * BLOCK).collect()
        };
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |a, &b| a.max(b));
        // A block lies within one group (the assertion at the end of this file), so this is one
        // number.
        let longest = |b: usize| {
            let groups = b * BLOCK / GROUP..rows.min((b + 1) * BLOCK).div_ceil(GROUP);
            largest(&codes.longest[groups])
        };
        Blocks {
            token,
            dim: codes.dim,
            bytes,
            // Rows that there are not are never near.
            square: padded(&codes.square, f32::INFINITY),
            scale: padded(&codes.scale, 0.0),
            tail: padded(&codes.tail, 0.0),
            residual: codes.residual.chunks(BLOCK).map(largest).collect(),
            longest: (0..blocks).map(longest).collect(),
        }
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.residual.len()
    }

    /// Bounds of the rows of one block for the queries `list`. `thresholds` and `starts` (see [`starts`]) begin with those of
    /// query `first`. `each` is told of every query in turn.
    ///
    /// Panics where `list` names a query outside of `starts` or `thresholds`.
    pub fn near(
        &self,
        block: usize,
        queries: &QueryCodes,
        (first, starts, thresholds): (usize, &[i32], &[f32]),
        list: &[u32],
        each: impl FnMut(Found<'_>),
    ) {
        assert!(queries.dim == self.dim && self.dim.is_multiple_of(16) && block < self.len());
        self.token.run_on_bytes(Near { blocks: self, block, queries, first, starts, thresholds, list, each });
    }
}

/// The sums that products begin with, so that the bias of the rows cancels.
///
/// `sum (c + 128) w - 128 sum w = sum c w`. On the way no sum exceeds 128 times 127 for each of 2^16
/// components: those added have their bias cancelled, those still to come count with the bias alone.
pub(crate) fn starts(queries: &QueryCodes, range: std::ops::Range<usize>, out: &mut Vec<i32>) {
    out.clear();
    out.extend(range.map(|q| -BIAS * queries.query(q).iter().map(|&w| i32::from(w)).sum::<i32>()));
}

/// The lines as one run of bytes.
fn as_bytes(lines: &mut [Line]) -> &mut [u8] {
    // The slice borrows from `lines` mutably for its whole life, so nothing else reads or writes
    // them.
    // SAFETY: a line is 64 bytes without padding, and any bytes are a line.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 64) }
}

/// The arguments of [`Blocks::near`].
struct Near<'a, E> {
    blocks: &'a Blocks,
    block: usize,
    queries: &'a QueryCodes,
    first: usize,
    starts: &'a [i32],
    thresholds: &'a [f32],
    list: &'a [u32],
    each: E,
}

impl<E: FnMut(Found<'_>)> ByteKernel for Near<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, D: Dot<S>>(self, s: S, d: D) {
        if S::WIDE { self.tiles::<S, D, QUERIES>(s, d) } else { self.tiles::<S, D, FEW_QUERIES>(s, d) }
    }
}

impl<E: FnMut(Found<'_>)> Near<'_, E> {
    /// The list in groups of `Q`. Each group meets all tiles of the block, which stay in the first
    /// cache.
    #[inline(always)]
    fn tiles<S: Simd, D: Dot<S>, const Q: usize>(mut self, s: S, d: D) {
        let (dim, width) = (self.blocks.dim, VECTORS * S::LANES);
        for at in (0..self.list.len()).step_by(Q) {
            let there = Q.min(self.list.len() - at);
            // Queries are scattered, so each has a pointer; nothing is packed for a single use.
            let (mut queries, mut from) = ([0usize; Q], [std::ptr::null::<i8>(); Q]);
            let mut begin = [0i32; Q];
            for q in 0..Q {
                // Past the end the last query stands in; nobody is told of it.
                queries[q] = self.list[at + q.min(there - 1)] as usize;
                // A checked slice of `dim` bytes.
                from[q] = self.queries.query(queries[q]).as_ptr();
                begin[q] = self.starts[queries[q] - self.first];
            }
            // A kilobyte on the stack, written by each tile and read only where a row is near.
            let mut bounds = [[0.0f32; BLOCK]; Q];
            let mut least = [f32::INFINITY; Q];
            for tile in 0..BLOCK / width {
                let start = self.block * BLOCK + tile * width;
                // Sliced to prove the range. `start` and `width` are multiples of 8 and dim of 16, so
                // the divisions are exact.
                let panel = &self.blocks.bytes[start * dim / 64..(start + width) * dim / 64];
                let mut acc = [[d.splat(0); VECTORS]; Q];
                for q in 0..Q {
                    acc[q] = [d.splat(begin[q]); VECTORS];
                }
                let mut row: *const u8 = panel.as_ptr().cast();
                // Per step 2 loads, Q broadcasts from memory, 2 Q products.
                for word in 0..dim / 4 {
                    // SAFETY: the panel holds dim / 4 times VECTORS vectors, and each query dim bytes.
                    unsafe {
                        let mut x = [d.splat(0); VECTORS];
                        for v in 0..VECTORS {
                            x[v] = d.load(row.add(v * 4 * S::LANES));
                        }
                        for q in 0..Q {
                            // Codes of queries are bytes; nothing aligns them to words.
                            let w = d.splat(from[q].add(4 * word).cast::<i32>().read_unaligned());
                            for v in 0..VECTORS {
                                acc[q][v] = d.dot4(acc[q][v], x[v], w);
                            }
                        }
                        // One past the panel's end after the last step.
                        row = row.add(width * 4);
                    }
                }
                // Not a loop: the accumulators would have to lie in memory for it, from the beginning.
                macro_rules! one {
                    ($($q:literal)+) => {$(
                        if Q > $q {
                            let q = $q % Q;
                            let (bounds, least) = (&mut bounds[q], &mut least[q]);
                            *least = self.bound(s, d, queries[q], tile * width, acc[q], bounds).min(*least);
                        }
                    )+};
                }
                one!(0 1 2 3 4 5 6 7);
            }
            for q in 0..there {
                let threshold = self.thresholds[queries[q] - self.first];
                let mut mask = 0u32;
                // Most blocks end here: one comparison for 32 rows.
                if least[q] <= threshold {
                    for i in (0..BLOCK).step_by(S::LANES) {
                        // SAFETY: LANES divides BLOCK.
                        let x = unsafe { s.load(bounds[q].as_ptr().add(i)) };
                        // 32 rows are the bits of a u32 (asserted below).
                        mask |= s.not_above(x, s.splat(threshold)) << i;
                    }
                }
                (self.each)(Found { place: at + q, least: least[q], mask, bounds: &bounds[q] });
            }
        }
    }

    /// Writes the bounds of the rows of one tile from their products with a query; gives the least of them.
    ///
    /// `constant + square - scale h I - tail tail_q`, the `lower_bound` of `ops::codes` with the
    /// maxima of the block. Its order of operations differs, which the slack in `offset` and `error`
    /// covers (docs/numerics.md).
    #[inline(always)]
    fn bound<S: Simd, D: Dot<S>>(
        &self,
        s: S,
        d: D,
        query: usize,
        at: usize,
        sums: [D::I; VECTORS],
        out: &mut [f32; BLOCK],
    ) -> f32 {
        let (b, terms) = (self.blocks, &self.queries.terms[query]);
        // What all rows of the block share is computed once per query.
        let constant = terms.offset - b.residual[self.block] * terms.length - b.longest[self.block] * terms.error;
        let mut least = s.splat(f32::INFINITY);
        for v in 0..VECTORS {
            let row = self.block * BLOCK + at + v * S::LANES;
            assert!(row + S::LANES <= b.square.len() && at + (v + 1) * S::LANES <= BLOCK);
            // SAFETY: a vector is left at `row` in each list and at its place in `out` (asserted).
            unsafe {
                let (square, scale) = (s.load(b.square.as_ptr().add(row)), s.load(b.scale.as_ptr().add(row)));
                let tail = s.load(b.tail.as_ptr().add(row));
                // The sum is below 2^31 and rounds once when it becomes f32, an error that is
                // counted.
                let estimate = s.fma(s.mul(scale, d.to_f32(sums[v])), s.splat(-terms.scale), square);
                let bound = s.add(s.fma(tail, s.splat(-terms.tail), estimate), s.splat(constant));
                s.store(out.as_mut_ptr().add(at + v * S::LANES), bound);
                least = s.min(least, bound);
            }
        }
        // The least lane is the largest of the negated ones: levels have one reduction, not two.
        -s.largest(s.sub(s.splat(0.0), least))
    }
}

// Masks of 32 bits; whole tiles at every level; one `longest` per block.
const _: () = assert!(BLOCK <= 32 && BLOCK.is_multiple_of(VECTORS * MAX_LANES) && GROUP.is_multiple_of(BLOCK));
