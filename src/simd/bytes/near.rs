//! Bounds of few rows (centroids) for many queries (points) in 8-bit codes: blocks of rows are packed once, and each block
//! meets just the queries that it is asked about.
//!
//! A tile is two vectors of rows times a handful of queries, whose components are broadcast from where they lie.

use super::{ByteKernel, Dot, Line, MAX_LANES, Simd, Token};
use crate::ops::assign::BLOCK;
use crate::ops::codes::{BIAS, Codes, GROUP, QueryCodes};

/// Vectors of rows in a tile.
const VECTORS: usize = 2;

/// Queries of a tile where there are 32 registers, and where there are fewer.
const QUERIES: usize = 8;
const FEW_QUERIES: usize = 4;

/// Rows in blocks: the integers in the order in which tiles read them, and what a bound needs beside them.
pub(crate) struct Blocks {
    token: Token,
    dim: usize,
    /// For each block its tiles, in each `[dim / 4, rows of a tile, 4]`.
    bytes: Vec<Line>,
    square: Vec<f32>,
    scale: Vec<f32>,
    tail: Vec<f32>,
    /// The largest of each block.
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
        let flat: &mut [u8] = as_bytes(&mut bytes);
        for (tile, out) in flat.chunks_exact_mut(width * codes.dim).enumerate() {
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
pub(crate) fn starts(queries: &QueryCodes, range: std::ops::Range<usize>, out: &mut Vec<i32>) {
    out.clear();
    out.extend(range.map(|q| -BIAS * queries.query(q).iter().map(|&w| i32::from(w)).sum::<i32>()));
}

fn as_bytes(lines: &mut [Line]) -> &mut [u8] {
    // SAFETY: a line is 64 bytes without padding, and any bytes are a line.
    unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * 64) }
}

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
    #[inline(always)]
    fn tiles<S: Simd, D: Dot<S>, const Q: usize>(mut self, s: S, d: D) {
        let (dim, width) = (self.blocks.dim, VECTORS * S::LANES);
        for at in (0..self.list.len()).step_by(Q) {
            let there = Q.min(self.list.len() - at);
            let (mut queries, mut from) = ([0usize; Q], [std::ptr::null::<i8>(); Q]);
            let mut begin = [0i32; Q];
            for q in 0..Q {
                // Past the end the last query stands in; nobody is told of it.
                queries[q] = self.list[at + q.min(there - 1)] as usize;
                from[q] = self.queries.query(queries[q]).as_ptr();
                begin[q] = self.starts[queries[q] - self.first];
            }
            let mut bounds = [[0.0f32; BLOCK]; Q];
            let mut least = [f32::INFINITY; Q];
            for tile in 0..BLOCK / width {
                let start = self.block * BLOCK + tile * width;
                let panel = &self.blocks.bytes[start * dim / 64..(start + width) * dim / 64];
                let mut acc = [[d.splat(0); VECTORS]; Q];
                for q in 0..Q {
                    acc[q] = [d.splat(begin[q]); VECTORS];
                }
                let mut row: *const u8 = panel.as_ptr().cast();
                for word in 0..dim / 4 {
                    // SAFETY: the panel holds dim / 4 times VECTORS vectors, and each query dim bytes.
                    unsafe {
                        let mut x = [d.splat(0); VECTORS];
                        for v in 0..VECTORS {
                            x[v] = d.load(row.add(v * 4 * S::LANES));
                        }
                        for q in 0..Q {
                            let w = d.splat(from[q].add(4 * word).cast::<i32>().read_unaligned());
                            for v in 0..VECTORS {
                                acc[q][v] = d.dot4(acc[q][v], x[v], w);
                            }
                        }
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
                if least[q] <= threshold {
                    for i in (0..BLOCK).step_by(S::LANES) {
                        // SAFETY: LANES divides BLOCK.
                        let x = unsafe { s.load(bounds[q].as_ptr().add(i)) };
                        mask |= s.not_above(x, s.splat(threshold)) << i;
                    }
                }
                (self.each)(Found { place: at + q, least: least[q], mask, bounds: &bounds[q] });
            }
        }
    }

    /// Writes the bounds of the rows of one tile from their products with a query; gives the least of them.
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
        let constant = terms.offset - b.residual[self.block] * terms.length - b.longest[self.block] * terms.error;
        let mut least = s.splat(f32::INFINITY);
        for v in 0..VECTORS {
            let row = self.block * BLOCK + at + v * S::LANES;
            assert!(row + S::LANES <= b.square.len() && at + (v + 1) * S::LANES <= BLOCK);
            // SAFETY: a vector is left at `row` in each list and at its place in `out` (asserted).
            unsafe {
                let (square, scale) = (s.load(b.square.as_ptr().add(row)), s.load(b.scale.as_ptr().add(row)));
                let tail = s.load(b.tail.as_ptr().add(row));
                let estimate = s.fma(s.mul(scale, d.to_f32(sums[v])), s.splat(-terms.scale), square);
                let bound = s.add(s.fma(tail, s.splat(-terms.tail), estimate), s.splat(constant));
                s.store(out.as_mut_ptr().add(at + v * S::LANES), bound);
                least = s.min(least, bound);
            }
        }
        -s.largest(s.sub(s.splat(0.0), least))
    }
}

const _: () = assert!(BLOCK <= 32 && BLOCK.is_multiple_of(VECTORS * MAX_LANES) && GROUP.is_multiple_of(BLOCK));
