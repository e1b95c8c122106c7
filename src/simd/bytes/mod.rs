//! Products of 8-bit codes, and the screen by their bound (`ops::codes`).
//!
//! A batch goes through register tiles as in `panel`: rows are packed into panels `[dim / 4, PANEL rows, 4]`, so that a
//! vector holds four components of as many rows as it has lanes; each step multiplies it with four components of a query.
//! A panel stays in the first cache while all queries pass over it, and its products never leave the registers unless
//! a bound in them is low enough. One query goes row by row, as memory allows.
//!
//! All sums of products are exact integers, so every way to multiply bytes gives the same bits. The
//! bounds made from them are f32, and valid in any order of operations (docs/numerics.md).

pub(crate) mod near;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::ops::Range;

use super::direct::Picks;
use super::{MAX_LANES, Simd, Token};
use crate::ops::codes::{BIAS, Codes, GROUP, PADDING, QueryCodes, QueryTerms};

/// Queries of a tile at any level at most.
///
/// The accumulators of i32 are as many as those of f32 in `panel`, so the tile has the same shape.
const MAX_QUERIES: usize = 6;

/// Rows of a panel at any level at most: the bits of a mask.
pub(crate) const MAX_PANEL: usize = GROUP;

/// Sums of four products of bytes in every lane of a vector of i32.
///
/// A value is proof of the instructions, as a token is of a level.
pub(crate) trait Dot<S: Simd>: Copy {
    /// As many i32 as `S` has lanes.
    type I: Copy;

    /// The same i32, or the same four bytes, in all lanes.
    fn splat(self, x: i32) -> Self::I;
    /// `acc` plus the products of unsigned bytes (`rows`) and signed ones (`query`), four in each lane.
    fn dot4(self, acc: Self::I, rows: Self::I, query: Self::I) -> Self::I;
    /// Each lane rounded to the nearest f32.
    fn to_f32(self, a: Self::I) -> S::F;
    /// The sum of all lanes.
    fn sum(self, a: Self::I) -> i32;
    /// # Safety
    /// `4 LANES` bytes are readable at `p`.
    unsafe fn load(self, p: *const u8) -> Self::I;
    /// # Safety
    /// `4 LANES` bytes are writable at `p`.
    unsafe fn store(self, p: *mut u8, a: Self::I);
    /// Each byte of `at`, less than 64, replaced by that byte of `table`.
    ///
    /// # Safety
    /// 64 bytes are readable at `table`; byte b of each lane lies between `16 b` and `16 b + 15`.
    #[inline(always)]
    unsafe fn look_up(self, table: *const u8, at: Self::I) -> Self::I {
        // Byte by byte through memory, for levels without a shuffle of bytes.
        let mut bytes = [0u8; 4 * MAX_LANES];
        // SAFETY: the buffer holds 4 LANES; every byte is less than 64 (the caller).
        unsafe {
            self.store(bytes.as_mut_ptr(), at);
            for byte in bytes.iter_mut().take(4 * S::LANES) {
                // The mask keeps the read within the table whatever the byte is.
                *byte = *table.add(usize::from(*byte & 63));
            }
            self.load(bytes.as_ptr())
        }
    }
}

/// An algorithm over any level and its way to multiply bytes.
///
/// As for `SimdKernel`, `run` and all it calls with vectors must be `#[inline(always)]`.
pub(crate) trait ByteKernel {
    type Output;
    fn run<S: Simd, D: Dot<S>>(self, s: S, d: D) -> Self::Output;
}

impl Token {
    /// Runs a kernel compiled for this level, with the instructions for bytes that the CPU has.
    /// Each arm makes its `Dot` where the features are proven: by the token, and by what was found
    /// beside it.
    pub fn run_on_bytes<K: ByteKernel>(self, kernel: K) -> K::Output {
        match self {
            Token::Portable(s) => kernel.run(s, portable::Scalar),
            #[cfg(target_arch = "x86_64")]
            Token::Avx2(s) => x86::enter_avx2(s, kernel),
            #[cfg(target_arch = "x86_64")]
            Token::Avx512(s) => x86::enter_avx512(s, kernel),
            #[cfg(target_arch = "aarch64")]
            Token::Neon(s) => neon::enter(s, kernel),
        }
    }
}

/// A cache line, so that vectors of a panel do not straddle two.
///
/// 64 bytes and an alignment of 64: no padding, so a slice of lines is a slice of bytes.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([u8; 64]);

/// A worker's buffers.
#[derive(Default)]
pub(crate) struct Scratch {
    /// One panel, `[dim / 4, PANEL rows, 4]`.
    panel: Vec<Line>,
    /// What is added to the least bound of each query.
    constants: Vec<f32>,
    /// What the rest of each query's estimate must not exceed.
    limits: Vec<f32>,
}

/// What the rows of a panel have beside their codes: a whole panel of each, whatever rows there are.
///
/// The lists are those of [`Codes`], whole vectors each: `rest` asserts it and reads without a case
/// for the end.
#[derive(Clone, Copy)]
struct RowTerms<'a> {
    square: &'a [f32],
    scale: &'a [f32],
    tail: &'a [f32],
    /// The largest of the panel, which stands for all: bounds become lower, never wrong.
    residual: f32,
    /// Likewise.
    longest: f32,
    /// Rows that there are.
    len: usize,
}

/// The queries of a batch, packed in groups: `[dim / 4, group, 4]` bytes each.
pub(crate) struct Queries<'a> {
    /// The level whose tile they are packed for.
    token: Token,
    dim: usize,
    /// Queries of a group.
    group: usize,
    /// Zeros for queries that there are not, and [`PADDING`] at the end.
    bytes: Vec<i8>,
    /// Where the products begin, so that the bias of the rows cancels.
    starts: Vec<i32>,
    terms: &'a [QueryTerms],
}

impl<'a> Queries<'a> {
    /// The queries `range`.
    ///
    /// A step of a tile reads four components of each query of a group: they lie side by side, in the
    /// order of reading.
    pub fn pack(token: Token, codes: &'a QueryCodes, range: Range<usize>) -> Queries<'a> {
        struct Shape;
        impl super::SimdKernel for Shape {
            type Output = usize;
            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> usize {
                S::QUERIES.min(MAX_QUERIES)
            }
        }
        let (dim, count) = (codes.dim, range.len());
        let groups = count.div_ceil(token.run(Shape)).max(1);
        // Groups of equal size waste least when there are few queries.
        let group = count.div_ceil(groups).max(1);
        let query = |q: usize| (q < count).then(|| codes.query(range.start + q));
        let mut bytes = Vec::with_capacity(groups * group * dim + PADDING);
        for first in (0..groups).map(|g| g * group) {
            for d in (0..dim).step_by(4) {
                for q in first..first + group {
                    bytes.extend_from_slice(query(q).map_or(&[0; 4], |w| &w[d..d + 4]));
                }
            }
        }
        bytes.resize(bytes.len() + PADDING, 0);
        // Rows hold c + 128, so their products with w are too large by 128 sum w. Sums begin below by
        // that, and end as sum c w. On the way none exceeds 128 * 127 * 2^16 < 2^31: components
        // already added have their bias cancelled, those still to come count by it alone.
        let start = |q| -BIAS * query(q).map_or(0, |w| w.iter().map(|&x| i32::from(x)).sum::<i32>());
        let starts = (0..groups * group).map(start).collect();
        Queries { token, dim, group, bytes, starts, terms: &codes.terms[range] }
    }

    /// Queries, those that fill up a group not counted.
    pub fn len(&self) -> usize {
        self.terms.len()
    }

    /// One group, `[dim / 4, group, 4]`.
    fn group(&self, group: usize) -> &[i8] {
        &self.bytes[group * self.group * self.dim..(group + 1) * self.group * self.dim]
    }
}

/// Where the least bounds of each query go: place j of a query is for the picks j, j + 4, j + 8 and so on. [`TOGETHER`]
/// queries lie side by side, the next as many `stride` places behind.
pub(crate) struct Least<'a> {
    pub places: &'a mut [[f32; 4]],
    pub stride: usize,
}

/// Queries whose least bounds lie side by side.
pub(crate) const TOGETHER: usize = 16;

impl Least<'_> {
    /// A query's places.
    #[inline(always)]
    fn of(&mut self, query: usize) -> &mut [f32; 4] {
        &mut self.places[query / TOGETHER * self.stride + query % TOGETHER]
    }
}

/// Estimates the keys of the picked rows, at most [`MAX_PANEL`], for all queries. `each` is given every query, pick and
/// estimate that is not above the query's threshold; the least bounds become the least of them and of the bounds of all
/// picks.
///
/// # Panics
/// When codes and queries differ in dimension, `dim` is no multiple of 16, or there are more picks
/// than [`MAX_PANEL`].
pub(crate) fn screen(
    queries: &Queries<'_>,
    codes: &Codes,
    picks: Picks<'_>,
    thresholds: &[f32],
    least: Least<'_>,
    scratch: &mut Scratch,
    each: impl FnMut(usize, usize, f32),
) {
    let count = queries.len();
    assert!(queries.dim == codes.dim && codes.dim.is_multiple_of(16) && picks.len() <= MAX_PANEL);
    assert!(thresholds.len() == count);
    queries.token.run_on_bytes(Panel { queries, codes, picks, thresholds, least, scratch, each });
}

/// Gives `each` every pick, of at most [`MAX_PANEL`], whose bound for one query is not above the threshold.
///
/// This is the bound itself, not the estimate as in [`screen`]: it is asked once the threshold is a
/// key.
pub(crate) fn not_excluded(
    token: Token,
    query: (&[i8], &QueryTerms),
    codes: &Codes,
    picks: Picks<'_>,
    threshold: f32,
    each: impl FnMut(usize),
) {
    assert!(query.0.len() == codes.dim && codes.dim.is_multiple_of(16) && picks.len() <= MAX_PANEL);
    token.run_on_bytes(OneQuery { query, codes, picks, threshold, each });
}

/// Bit i is set where `values[i] <= limits[i]`.
pub(crate) fn not_above(token: Token, values: &[f32; 64], limits: &[f32; 64]) -> u64 {
    token.run(NotAbove { values, limits })
}

/// A whole mask at a time.
struct NotAbove<'a> {
    values: &'a [f32; 64],
    limits: &'a [f32; 64],
}

impl super::SimdKernel for NotAbove<'_> {
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> u64 {
        let mut mask = 0;
        for at in (0..64).step_by(S::LANES) {
            // SAFETY: LANES divides 64, so a whole vector is left at `at` in both.
            let (x, y) = unsafe { (s.load(self.values.as_ptr().add(at)), s.load(self.limits.as_ptr().add(at))) };
            mask |= u64::from(s.not_above(x, y)) << at;
        }
        mask
    }
}

/// Asks for the codes of some rows.
///
/// A hint: numbers of rows that there are not are harmless, as the addresses are made without
/// reading.
pub(crate) fn prefetch(token: Token, codes: &Codes, rows: &[u32]) {
    token.run(Prefetch { codes, rows });
}

struct Prefetch<'a> {
    codes: &'a Codes,
    rows: &'a [u32],
}

impl super::SimdKernel for Prefetch<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for &row in self.rows {
            let code = self.codes.bytes.as_ptr().wrapping_add(row as usize * self.codes.dim);
            for at in (0..self.codes.dim).step_by(64) {
                s.prefetch(code.wrapping_add(at));
            }
            s.prefetch(self.codes.square.as_ptr().wrapping_add(row as usize));
            s.prefetch(self.codes.scale.as_ptr().wrapping_add(row as usize));
            s.prefetch(self.codes.tail.as_ptr().wrapping_add(row as usize));
        }
    }
}

/// The arguments of [`screen`].
struct Panel<'a, E> {
    queries: &'a Queries<'a>,
    codes: &'a Codes,
    picks: Picks<'a>,
    thresholds: &'a [f32],
    least: Least<'a>,
    scratch: &'a mut Scratch,
    each: E,
}

impl<E: FnMut(usize, usize, f32)> ByteKernel for Panel<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, D: Dot<S>>(mut self, s: S, d: D) {
        // Thresholds less the query's offset, so that estimates are compared without it.
        let Scratch { limits, constants, .. } = &mut *self.scratch;
        limits.clear();
        limits.extend(self.queries.terms.iter().zip(self.thresholds).map(|(q, t)| t - q.offset));
        constants.clear();
        constants.resize(limits.len(), 0.0);
        // MAX_PANEL picks are one to eight panels, by the level.
        for start in (0..self.picks.len()).step_by(S::PANEL) {
            let picks = self.picks.part(start, self.picks.len().min(start + S::PANEL));
            let mut room = Room::new();
            let rows = room.gather(self.codes, picks, S::PANEL);
            for (constant, q) in self.scratch.constants.iter_mut().zip(self.queries.terms) {
                // All that is the same for the rows of a panel; `lower_four` adds it to the least of
                // what is not.
                *constant = q.offset - rows.residual * q.length - rows.longest * q.error;
            }
            // A single query would use each packed byte once: packing costs more than it saves.
            if self.queries.group == 1 {
                self.one(s, d, start, picks, &rows);
            } else {
                self.packed(s, d, start, picks, &rows);
            }
        }
    }
}

/// The arguments of [`not_excluded`].
struct OneQuery<'a, E> {
    query: (&'a [i8], &'a QueryTerms),
    codes: &'a Codes,
    picks: Picks<'a>,
    threshold: f32,
    each: E,
}

impl<E: FnMut(usize)> ByteKernel for OneQuery<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, D: Dot<S>>(mut self, s: S, d: D) {
        let (query, terms) = self.query;
        // See `Queries::pack`.
        let start_at = -BIAS * query.iter().map(|&w| i32::from(w)).sum::<i32>();
        for start in (0..self.picks.len()).step_by(S::PANEL) {
            let picks = self.picks.part(start, self.picks.len().min(start + S::PANEL));
            let mut room = Room::new();
            let rows = room.gather(self.codes, picks, S::PANEL);
            let constant = terms.offset - rows.residual * terms.length - rows.longest * terms.error;
            let products = products(s, d, self.codes, picks, query, start_at);
            let mut mask = 0;
            for v in 0..S::PANEL / S::LANES {
                // SAFETY: v LANES + LANES <= PANEL <= MAX_PANEL.
                // An i32 is four bytes, and `load` takes any alignment.
                let sums = unsafe { d.load(products.as_ptr().add(v * S::LANES).cast()) };
                let (_, bound) = rest(s, d, sums, terms, &rows, v);
                let bound = s.add(bound, s.splat(constant));
                mask |= u64::from(s.not_above(bound, s.splat(self.threshold))) << (v * S::LANES);
            }
            let each = &mut self.each;
            // Rows that there are not have a bound of infinity. It is not above an infinite
            // threshold, hence the mask.
            bits(mask & below(rows.len), |r| each(start + r));
        }
    }
}

/// Room for what the rows of a panel have beside their codes, where they do not lie side by side.
struct Room {
    square: [f32; MAX_PANEL],
    scale: [f32; MAX_PANEL],
    tail: [f32; MAX_PANEL],
}

impl Room {
    /// Places behind the last row are never near.
    #[inline(always)]
    fn new() -> Room {
        Room { square: [f32::INFINITY; MAX_PANEL], scale: [0.0; MAX_PANEL], tail: [0.0; MAX_PANEL] }
    }

    /// What the picked rows have beside their codes, `panel` of them or fewer.
    ///
    /// A whole panel of consecutive rows is borrowed from the codes, others are copied: either way
    /// whole vectors are there.
    #[inline(always)]
    fn gather<'a>(&'a mut self, codes: &'a Codes, picks: Picks<'_>, panel: usize) -> RowTerms<'a> {
        let len = picks.len();
        let (mut residual, mut longest) = (0.0f32, 0.0f32);
        if let Picks::Run { start, .. } = picks
            && len == panel
        {
            let range = start..start + len;
            // In MAX_LANES maxima side by side, which the compiler makes vectors of.
            let mut most = [0.0f32; MAX_LANES];
            for some in codes.residual[range.clone()].chunks(MAX_LANES) {
                for (most, &r) in most.iter_mut().zip(some) {
                    *most = if r > *most { r } else { *most };
                }
            }
            most.iter().for_each(|&r| residual = residual.max(r));
            codes.longest[start / GROUP..(start + len).div_ceil(GROUP)].iter().for_each(|&l| longest = longest.max(l));
            let (square, scale) = (&codes.square[range.clone()], &codes.scale[range.clone()]);
            return RowTerms { square, scale, tail: &codes.tail[range], residual, longest, len };
        }
        // Slices check each number.
        for i in 0..len {
            let r = picks.at(i);
            (self.square[i], self.scale[i], self.tail[i]) = (codes.square[r], codes.scale[r], codes.tail[r]);
            residual = residual.max(codes.residual[r]);
            longest = longest.max(codes.longest[r / GROUP]);
        }
        RowTerms { square: &self.square, scale: &self.scale, tail: &self.tail, residual, longest, len }
    }
}

impl<E: FnMut(usize, usize, f32)> Panel<'_, E> {
    /// Each query row by row, as memory allows.
    ///
    /// With groups of one, a packed query is the query itself.
    #[inline(always)]
    fn one<S: Simd, D: Dot<S>>(&mut self, s: S, d: D, start: usize, picks: Picks<'_>, rows: &RowTerms<'_>) {
        for q in 0..self.queries.len() {
            let products = products(s, d, self.codes, picks, self.queries.group(q), self.queries.starts[q]);
            match S::PANEL / S::LANES {
                1 => self.judge::<S, D, 1>(s, d, q, start, rows, &products),
                2 => self.judge::<S, D, 2>(s, d, q, start, rows, &products),
                _ => self.judge::<S, D, 4>(s, d, q, start, rows, &products),
            }
        }
    }

    /// Products from memory to what `query` takes, registers.
    #[inline(always)]
    fn judge<S: Simd, D: Dot<S>, const V: usize>(
        &mut self,
        s: S,
        d: D,
        q: usize,
        start: usize,
        rows: &RowTerms<'_>,
        products: &[i32; MAX_PANEL],
    ) {
        if S::PANEL != V * S::LANES {
            return;
        }
        let mut sums = [d.splat(0); V];
        for v in 0..V {
            // SAFETY: V LANES = PANEL <= MAX_PANEL.
            sums[v] = unsafe { d.load(products.as_ptr().add(v * S::LANES).cast()) };
        }
        self.query(s, d, q, start, rows, sums);
    }

    /// What the products of one query with the panel say.
    ///
    /// `estimate = square - scale h I` per row, `bound = estimate - tail tail_q`. Estimates decide
    /// which rows are reported, as good guesses of the nearest; least bounds prove afterwards what
    /// was left out.
    #[inline(always)]
    fn query<S: Simd, D: Dot<S>, const V: usize>(
        &mut self,
        s: S,
        d: D,
        q: usize,
        start: usize,
        rows: &RowTerms<'_>,
        sums: [D::I; V],
    ) {
        let (terms, limit) = (&self.queries.terms[q], s.splat(self.scratch.limits[q]));
        let mut estimates = [s.splat(0.0); V];
        // The least of each lane over the vectors: one comparison then answers for the panel.
        let (first, mut bound) = rest(s, d, sums[0], terms, rows, 0);
        let mut estimate = first;
        estimates[0] = first;
        for v in 1..V {
            let (e, b) = rest(s, d, sums[v], terms, rows, v);
            estimates[v] = e;
            (estimate, bound) = (s.min(estimate, e), s.min(bound, b));
        }
        // Lane j, j + 4, .. of vectors that begin at multiples of 4: picks of the same remainder
        // share a place.
        s.lower_four(self.least.of(q), bound, self.scratch.constants[q]);
        // Seldom true once thresholds are known. Only here do products become numbers in memory.
        if s.not_above(estimate, limit) != 0 {
            let (mut mask, mut values) = (0u64, [0.0f32; MAX_PANEL]);
            for v in 0..V {
                mask |= u64::from(s.not_above(estimates[v], limit)) << (v * S::LANES);
            }
            for v in 0..V {
                // SAFETY: V LANES = PANEL <= MAX_PANEL.
                unsafe { s.store(values.as_mut_ptr().add(v * S::LANES), estimates[v]) };
            }
            self.report(q, start, mask & below(rows.len), &values);
        }
    }

    /// Gives `each` the rows of a mask, their estimates with the query's offset again.
    ///
    /// Rare enough not to be repeated for every query of a tile.
    #[inline(never)]
    fn report(&mut self, q: usize, start: usize, mask: u64, values: &[f32; MAX_PANEL]) {
        let (each, offset) = (&mut self.each, self.queries.terms[q].offset);
        bits(mask, |r| each(q, start + r, values[r] + offset));
    }

    /// All queries, in tiles.
    #[inline(always)]
    fn packed<S: Simd, D: Dot<S>>(&mut self, s: S, d: D, start: usize, picks: Picks<'_>, rows: &RowTerms<'_>) {
        // `dim` bytes for each of PANEL rows: the room that `pack` writes into.
        let lines = (self.codes.dim * S::PANEL).div_ceil(64);
        if self.scratch.panel.len() < lines {
            self.scratch.panel.resize(lines, Line([0; 64]));
        }
        pack(s, self.codes, picks, self.scratch.panel.as_mut_ptr().cast());
        // Constants of the level, so only one arm of each match is compiled to anything.
        match S::PANEL / S::LANES {
            1 => self.groups::<S, D, 1>(s, d, start, rows),
            2 => self.groups::<S, D, 2>(s, d, start, rows),
            _ => self.groups::<S, D, 4>(s, d, start, rows),
        }
    }

    /// With the size of a group as a constant, so that accumulators are registers.
    #[inline(always)]
    fn groups<S: Simd, D: Dot<S>, const V: usize>(&mut self, s: S, d: D, start: usize, rows: &RowTerms<'_>) {
        // Known when compiled: for other V the function is empty.
        if S::PANEL != V * S::LANES {
            return;
        }
        match self.queries.group {
            2 => self.tiles::<S, D, V, 2>(s, d, start, rows),
            3 => self.tiles::<S, D, V, 3>(s, d, start, rows),
            4 => self.tiles::<S, D, V, 4>(s, d, start, rows),
            5 => self.tiles::<S, D, V, 5>(s, d, start, rows),
            _ => self.tiles::<S, D, V, 6>(s, d, start, rows),
        }
    }

    /// The register tile: V vectors of rows times Q queries, over all components at once. Per step of
    /// four components V loads, Q broadcasts, V Q products of four bytes.
    #[inline(always)]
    fn tiles<S: Simd, D: Dot<S>, const V: usize, const Q: usize>(
        &mut self,
        s: S,
        d: D,
        start: usize,
        rows: &RowTerms<'_>,
    ) {
        let queries = self.queries;
        assert!(queries.group == Q && self.scratch.panel.len() * 64 >= queries.dim * V * S::LANES);
        let panel: *const u8 = self.scratch.panel.as_ptr().cast();
        for (group, first) in (0..queries.len()).step_by(Q).enumerate() {
            let bytes = queries.group(group);
            // `starts` is filled up to whole groups, so this is in range for the last one.
            let starts = &queries.starts[first..first + Q];
            let mut acc = [[d.splat(0); V]; Q];
            for q in 0..Q {
                acc[q] = [d.splat(starts[q]); V];
            }
            let (mut row, mut query) = (panel, bytes.as_ptr());
            for _ in 0..queries.dim / 4 {
                // SAFETY: the panel holds dim / 4 times V vectors and the group dim / 4 times Q words (asserted, and
                // `group` is as long); the pointers advance by as much.
                unsafe {
                    let mut x = [d.splat(0); V];
                    for v in 0..V {
                        x[v] = d.load(row.add(v * 4 * S::LANES));
                    }
                    for q in 0..Q {
                        // Four signed bytes as one word; the vector is of bytes, so the address has
                        // no alignment.
                        let w = d.splat(query.add(4 * q).cast::<i32>().read_unaligned());
                        for v in 0..V {
                            acc[q][v] = d.dot4(acc[q][v], x[v], w);
                        }
                    }
                    row = row.add(V * 4 * S::LANES);
                    query = query.add(4 * Q);
                }
            }
            // Not a loop: the accumulators would have to lie in memory for it, from the beginning.
            let there = queries.len() - first;
            macro_rules! one {
                ($($q:literal)+) => {$(
                    if Q > $q && there > $q {
                        self.query(s, d, first + $q, start, rows, acc[$q % Q]);
                    }
                )+};
            }
            one!(0 1 2 3 4 5);
        }
    }
}

/// The products of the picked rows, at most a panel, with one query.
///
/// Vectors lie along a row: a code is read once, front to back. The sum across lanes at the end costs
/// more than in a tile, but nothing is packed.
#[inline(always)]
fn products<S: Simd, D: Dot<S>>(
    s: S,
    d: D,
    codes: &Codes,
    picks: Picks<'_>,
    query: &[i8],
    start_at: i32,
) -> [i32; MAX_PANEL] {
    // The codes have PADDING bytes behind the last row, so a whole vector may be read at any
    // component.
    let step = 4 * S::LANES;
    assert!(codes.bytes.len() >= codes.rows() * codes.dim + PADDING && step <= PADDING);
    assert!(picks.len() <= S::PANEL && query.len() == codes.dim);
    let whole = codes.dim / step * step;
    // The last vector of the query, filled up with zeros: there a row may run into the next.
    let mut last = [0i8; 4 * MAX_LANES];
    last[..codes.dim - whole].copy_from_slice(&query[whole..]);
    let mut out = [0i32; MAX_PANEL];
    // What follows a run of rows is needed next; what follows a row of a list is not.
    let ahead = if matches!(picks, Picks::Run { .. }) { AHEAD } else { 0 };
    for i in 0..picks.len() {
        let row = codes.row(picks.at(i)).as_ptr();
        let mut acc = d.splat(0);
        // SAFETY: up to PADDING bytes past the end of a row are readable (asserted); of the query whole vectors are
        // read where they are.
        unsafe {
            // One chain of sums per row: rows are independent, and the CPU overlaps them.
            for at in (0..whole).step_by(step) {
                s.prefetch(row.wrapping_add(at + ahead));
                acc = d.dot4(acc, d.load(row.add(at)), d.load(query.as_ptr().add(at).cast()));
            }
            if whole < codes.dim {
                s.prefetch(row.wrapping_add(whole + ahead));
                acc = d.dot4(acc, d.load(row.add(whole)), d.load(last.as_ptr().cast()));
            }
        }
        // The bias is taken off at the end. Before, the sum is at most 2^16 products of 255 and 127,
        // which is below 2^31.
        out[i] = d.sum(acc) + start_at;
    }
    out
}

/// Bytes ahead of the one being read that a pass of one query asks for.
///
/// Twice that of the direct pass: codes are smaller and read faster.
const AHEAD: usize = 1024;

/// The lowest `n` bits.
#[inline(always)]
pub(super) fn below(n: usize) -> u64 {
    // A shift by 64 would overflow.
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

/// Calls `f` with each set bit, the lowest first: `mask & (mask - 1)` clears it.
#[inline(always)]
pub(super) fn bits(mut mask: u64, mut f: impl FnMut(usize)) {
    while mask != 0 {
        f(mask.trailing_zeros() as usize);
        mask &= mask - 1;
    }
}

/// Of the rows `v LANES ..` the estimates less the query's offset, and the bounds less what all rows share.
///
/// Two multiply-adds and a product per row, for a bound that stands for `dim` of them.
#[inline(always)]
fn rest<S: Simd, D: Dot<S>>(s: S, d: D, sums: D::I, terms: &QueryTerms, rows: &RowTerms<'_>, v: usize) -> (S::F, S::F) {
    let at = v * S::LANES;
    assert!(
        rows.square.len() >= at + S::LANES && rows.scale.len() >= at + S::LANES && rows.tail.len() >= at + S::LANES
    );
    // SAFETY: a vector is left at `at` in each (asserted).
    let (square, scale, tail) = unsafe {
        (s.load(rows.square.as_ptr().add(at)), s.load(rows.scale.as_ptr().add(at)), s.load(rows.tail.as_ptr().add(at)))
    };
    // The sum is rounded to f32 here; that error is among those counted in `error` and `offset`.
    let estimate = s.fma(s.mul(scale, d.to_f32(sums)), s.splat(-terms.scale), square);
    (estimate, s.fma(tail, s.splat(-terms.tail), estimate))
}

/// Packs the picked codes into a panel; where there are fewer rows than lanes, the last is repeated.
///
/// A word of four components is moved as if it were an f32: transposes move bits and compute nothing.
/// `panel` has room for `dim / 4` times PANEL words.
#[inline(always)]
fn pack<S: Simd>(s: S, codes: &Codes, picks: Picks<'_>, panel: *mut f32) {
    assert!(picks.len() <= S::PANEL && picks.len() > 0);
    assert!(codes.bytes.len() >= codes.rows() * codes.dim + PADDING && 4 * S::LANES <= PADDING);
    // Where LANES does not divide `words`, the last block is transposed aside: a panel has no room
    // for its other columns.
    let words = codes.dim / 4;
    let mut last = [0.0f32; MAX_LANES * MAX_LANES];
    for r in (0..picks.len()).step_by(S::LANES) {
        let mut from = [std::ptr::null::<f32>(); MAX_LANES];
        for (i, from) in from.iter_mut().enumerate().take(S::LANES) {
            *from = codes.row(picks.at((r + i).min(picks.len() - 1))).as_ptr().cast();
        }
        for at in (0..words).step_by(S::LANES) {
            // Blocks of LANES rows times LANES words, as in `panel`.
            let n = S::LANES.min(words - at);
            // SAFETY: each pointer begins a row of `words` words, of which n are left at `at`; up to PADDING bytes past
            // the end of a row are readable (asserted). The panel has `words` columns of PANEL words, and
            // r + LANES <= PANEL; only columns that there are get written.
            unsafe {
                let to = panel.add(at * S::PANEL + r);
                if n == S::LANES {
                    s.transpose(&from, to, S::PANEL);
                } else {
                    s.transpose(&from, last.as_mut_ptr(), S::LANES);
                    for j in 0..n {
                        s.store(to.add(j * S::PANEL), s.load(last.as_ptr().add(j * S::LANES)));
                    }
                }
                for from in from.iter_mut().take(S::LANES) {
                    *from = from.wrapping_add(n);
                }
            }
        }
    }
}
