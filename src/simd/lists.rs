//! The scan of one inverted list (`ops::lists`) for some queries.
//!
//! Codes are unpacked, block by block, into bytes `[parts / 4, BLOCK rows, 4]` (or f32 `[dim, BLOCK]`), which is how codes
//! of 8 bits lie in the list already. A register tile multiplies up to four blocks with up to six queries; a key leaves
//! the registers only when it is not above what its query still wants.
//!
//! Layout: a block of [`BLOCK`] rows is a sequence of words, word w of all its rows side by side. A
//! vector of 16 lanes is then one word of a whole block; narrower vectors take a block in halves or
//! quarters. All forms read it front to back.

use super::bytes::{ByteKernel, Dot, below, bits};
use super::{MAX_LANES, Simd, SimdKernel, Token, f16_bits, select};
use crate::ops::lists::{BLOCK, Form, List, Lists, Prepared};
use crate::types::{DType, Metric};

/// Blocks of a tile at most.
///
/// 4 vectors of 16 lanes times 6 queries are 24 of 32 registers.
const MOST_BLOCKS: usize = 4;

/// Rows of a tile at most.
///
/// 64, so that the wanted rows of a tile are the bits of one mask.
const MOST_ROWS: usize = MOST_BLOCKS * BLOCK;

/// Queries of a tile at most.
const MOST_QUERIES: usize = 6;

/// What takes the keys.
pub(crate) trait Sink {
    /// Keys above this are not wanted for the query.
    ///
    /// Read anew for each tile, as it falls while a list is scanned.
    fn threshold(&self, query: u32) -> f32;
    /// The key of the row in a place of the list.
    fn take(&mut self, query: u32, place: usize, key: f32);
}

/// A query that a list is scanned for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Its number in [`Prepared`].
    pub query: u32,
    /// What belongs to the query and the list in the key.
    pub offset: f32,
}

/// A block of bytes or numbers, aligned so that no vector straddles two cache lines.
#[repr(C, align(64))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
// 16 words are 64 bytes, the alignment, so there is no padding, as `Pod` wants it.
struct Line([u32; BLOCK]);

/// A worker's unpacked blocks.
#[derive(Default)]
pub(crate) struct Scratch {
    /// One tile's blocks, `[block, word, row]`. Used again for every tile, so it stays in the first
    /// cache.
    lines: Vec<Line>,
}

/// Asks for the first blocks of a list.
///
/// One tile's worth; from there on each tile asks for the next.
pub(crate) fn prefetch(token: Token, lists: &Lists, number: usize) {
    let words = &lists.lists[number].words;
    let first = words.len().min(MOST_BLOCKS * BLOCK * lists.form.words(lists.dim));
    select::prefetch(token, bytemuck::cast_slice(&words[..first]));
}

/// Gives the sink the keys of a list's rows that are not above its thresholds.
///
/// NaN counts as not above. The sink may be given a key that meanwhile is above: thresholds are read
/// once per tile.
pub(crate) fn scan<K: Sink>(
    token: Token,
    metric: Metric,
    (lists, number): (&Lists, usize),
    queries: &Prepared,
    asked: &[Asked],
    scratch: &mut Scratch,
    sink: &mut K,
) {
    let list = &lists.lists[number];
    if list.is_empty() || asked.is_empty() {
        return;
    }
    let scan = Scan { metric, form: lists.form, dim: lists.dim, list, queries, asked, scratch, sink };
    // Each form enters with the instructions that it multiplies or counts by.
    match lists.form {
        Form::Integers(_) | Form::Parts(4) => token.run_on_bytes(scan),
        Form::Parts(_) | Form::Rows(_) => token.run(scan),
        Form::Bits => token.run_on_bits(scan),
    }
}

/// The arguments of [`scan`].
struct Scan<'a, K> {
    metric: Metric,
    form: Form,
    dim: usize,
    list: &'a List,
    queries: &'a Prepared,
    asked: &'a [Asked],
    scratch: &'a mut Scratch,
    sink: &'a mut K,
}

/// What the rows of a tile add to and multiply their keys by.
struct RowTerms {
    /// 0 where the list has none.
    add: [f32; MOST_ROWS],
    /// Only read where the list has scales.
    scale: [f32; MOST_ROWS],
    /// Whether the list has scales; else all are 1.
    scaled: bool,
    /// Rows that there are; the places behind them are zeros.
    len: usize,
}

impl RowTerms {
    /// Copied once per tile, so that whole vectors can be read at the end of a list, and all queries
    /// find them in the cache.
    #[inline(always)]
    fn new(list: &List, start: usize, rows: usize) -> RowTerms {
        let len = rows.min(list.len() - start);
        let mut terms =
            RowTerms { add: [0.0; MOST_ROWS], scale: [0.0; MOST_ROWS], scaled: !list.scale.is_empty(), len };
        if !list.add.is_empty() {
            terms.add[..len].copy_from_slice(&list.add[start..start + len]);
        }
        if terms.scaled {
            terms.scale[..len].copy_from_slice(&list.scale[start..start + len]);
        }
        terms
    }
}

impl<K: Sink> ByteKernel for Scan<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd, D: Dot<S>>(mut self, s: S, d: D) {
        let blocks = self.list.len().div_ceil(BLOCK);
        // Of narrower vectors a block is several already: 2 of AVX2, 4 of NEON, which fill their
        // registers.
        let most = if S::LANES == BLOCK { MOST_BLOCKS } else { 1 };
        let mut block = 0;
        while block < blocks {
            // Constants of the level, so only some arms of the match are compiled to anything.
            let count = match blocks - block {
                left if most >= 4 && left >= 4 => 4,
                left if most >= 4 && left >= 2 => 2,
                _ => 1,
            };
            // Vectors of rows per tile.
            match count * BLOCK / S::LANES {
                1 => self.blocks::<S, D, 1>(s, d, block, count),
                2 => self.blocks::<S, D, 2>(s, d, block, count),
                _ => self.blocks::<S, D, 4>(s, d, block, count),
            }
            block += count;
        }
    }
}

impl<K: Sink> Scan<'_, K> {
    /// Some blocks against all queries.
    ///
    /// Codes are unpacked once for all queries, which pass over them in groups.
    #[inline(always)]
    fn blocks<S: Simd, D: Dot<S>, const V: usize>(&mut self, s: S, d: D, block: usize, count: usize) {
        // A combination that the match never makes.
        if count * BLOCK != V * S::LANES {
            return;
        }
        let words = self.form.padded(self.dim) / 4;
        let packed = self.form.words(self.dim) * BLOCK;
        // Where they lie, `count` times `packed` words, sliced to prove it. `packed` is `words` times
        // BLOCK for this form, so both arms have the layout that `tile` reads.
        let bytes: *const u8 = if self.form == Form::Integers(8) {
            self.list.words[block * packed..(block + count) * packed].as_ptr().cast()
        } else {
            if self.scratch.lines.len() < count * words {
                self.scratch.lines.resize(count * words, Line([0; BLOCK]));
            }
            for b in 0..count {
                let from = &self.list.words[(block + b) * packed..(block + b + 1) * packed];
                unpack(self.form, self.dim, from, &mut self.scratch.lines[b * words..(b + 1) * words]);
            }
            // Valid until the scratch is resized, which no tile does: a tile reads, and gives keys to
            // the sink.
            self.scratch.lines.as_ptr().cast()
        };
        // The next tile's codes arrive while this one is multiplied. At the end of the list the range
        // is empty.
        let next = (block + count) * packed..((block + 2 * count) * packed).min(self.list.words.len());
        select::fetch(s, bytemuck::cast_slice(&self.list.words[next.start.min(next.end)..next.end]));
        let rows = RowTerms::new(self.list, block * BLOCK, count * BLOCK);
        let groups = self.asked.len().div_ceil(MOST_QUERIES);
        // Groups of equal size waste least.
        // The number of queries is a constant of the tile, so that its accumulators are registers.
        let group = self.asked.len().div_ceil(groups);
        for asked in self.asked.chunks(group) {
            let at = block * BLOCK;
            if matches!(self.form, Form::Parts(_)) {
                for &one in asked {
                    self.lookups::<S, D, V>(s, d, (bytes, words), at, &rows, one);
                }
                continue;
            }
            match asked.len() {
                1 => self.tile::<S, D, V, 1>(s, d, (bytes, words), at, &rows, asked),
                2 => self.tile::<S, D, V, 2>(s, d, (bytes, words), at, &rows, asked),
                3 => self.tile::<S, D, V, 3>(s, d, (bytes, words), at, &rows, asked),
                4 => self.tile::<S, D, V, 4>(s, d, (bytes, words), at, &rows, asked),
                5 => self.tile::<S, D, V, 5>(s, d, (bytes, words), at, &rows, asked),
                _ => self.tile::<S, D, V, 6>(s, d, (bytes, words), at, &rows, asked),
            }
        }
    }

    /// `V` vectors of rows times `Q` queries. `bytes` holds `words` words of each row of as many blocks as `V` vectors
    /// make.
    ///
    /// Sums are exact: at most 255 times 127 for each of 2^16 parts, which is below 2^31.
    #[inline(always)]
    fn tile<S: Simd, D: Dot<S>, const V: usize, const Q: usize>(
        &mut self,
        s: S,
        d: D,
        (bytes, words): (*const u8, usize),
        start: usize,
        rows: &RowTerms,
        asked: &[Asked],
    ) {
        // The integers of a query are padded to whole words, with zeros that cancel what padding of
        // rows may hold.
        let integers = &self.queries.integers;
        assert!(asked.len() == Q && asked.iter().all(|a| integers.len() >= (a.query as usize + 1) * words * 4));
        let query: [*const i8; Q] = std::array::from_fn(|q| integers[asked[q].query as usize * words * 4..].as_ptr());
        // Vector v begins in block v LANES / BLOCK.
        // Each vector has a pointer of its own: consecutive vectors lie in one block or in the next,
        // by the level.
        let row: [*const u8; V] = std::array::from_fn(|v| {
            bytes.wrapping_add(v * S::LANES / BLOCK * words * BLOCK * 4 + v * S::LANES % BLOCK * 4)
        });
        // Every step: V loads of four components of LANES rows, Q broadcasts of four components of a
        // query, V Q products.
        let mut acc = [[d.splat(0); V]; Q];
        for w in 0..words {
            // SAFETY: each block holds `words` words of BLOCK rows (the caller), each query 4 `words` bytes (asserted).
            unsafe {
                let mut x = [d.splat(0); V];
                for v in 0..V {
                    x[v] = d.load(row[v].add(w * 4 * BLOCK));
                }
                for q in 0..Q {
                    // Four signed bytes as one word, in the order in which the row's bytes lie in a
                    // lane: both little-endian.
                    let weight = d.splat(query[q].add(4 * w).cast::<i32>().read_unaligned());
                    for v in 0..V {
                        acc[q][v] = d.dot4(acc[q][v], x[v], weight);
                    }
                }
            }
        }
        // Not a loop: the accumulators would have to lie in memory for it, from the beginning.
        macro_rules! one {
            ($($q:literal)+) => {$(
                if Q > $q {
                    self.keys(s, d, start, rows, asked[$q % Q], acc[$q % Q]);
                }
            )+};
        }
        one!(0 1 2 3 4 5);
    }

    /// The sums of entries of one query's tables.
    ///
    /// The method of fast scan (Andre, Kermarrec and Le Scouarnec 2015, "Cache locality is not
    /// enough"; Faiss's 4-bit PQ): a table of 16 bytes is one register, and a shuffle looks up as
    /// many entries as it has bytes. Here a vector holds four parts of LANES rows, so four tables, 64
    /// bytes, serve one shuffle. One query at a time, since each has tables of its own, which take
    /// the registers.
    #[inline(always)]
    fn lookups<S: Simd, D: Dot<S>, const V: usize>(
        &mut self,
        s: S,
        d: D,
        (bytes, words): (*const u8, usize),
        start: usize,
        rows: &RowTerms,
        asked: Asked,
    ) {
        // Sliced to prove the range: one table of four parts for each word of a row.
        const FOUR: usize = 64;
        let tables = &self.queries.tables[asked.query as usize * words * FOUR..][..words * FOUR];
        // Entries are unsigned bytes; a product with ones adds the four of a lane to its 32-bit sum,
        // where no sum saturates.
        let ones = d.splat(0x0101_0101);
        let mut acc = [d.splat(0); V];
        for w in 0..words {
            for v in 0..V {
                // The word of vector v: its block, the word in it, and where in the block its lanes
                // begin; 4 bytes each.
                let at = (v * S::LANES / BLOCK * words + w) * BLOCK * 4 + v * S::LANES % BLOCK * 4;
                // `unpack` has put the number of its table into the upper half of each byte, which is
                // what `look_up` asks for.
                // SAFETY: each block holds `words` words of BLOCK rows (the caller); a table of four parts is there for
                // each word (sliced above).
                unsafe {
                    let entries = d.look_up(tables.as_ptr().add(w * FOUR), d.load(bytes.add(at)));
                    acc[v] = d.dot4(acc[v], entries, ones);
                }
            }
        }
        self.keys(s, d, start, rows, asked, acc);
    }

    /// The keys of a tile's rows for one query.
    ///
    /// `key = offset + add + scale (scale(q) S + shift)`. The offset is compared with, not added,
    /// until a key is wanted.
    #[inline(always)]
    fn keys<S: Simd, D: Dot<S>, const V: usize>(
        &mut self,
        s: S,
        d: D,
        start: usize,
        rows: &RowTerms,
        asked: Asked,
        sums: [D::I; V],
    ) {
        let terms = self.queries.terms[asked.query as usize];
        let (scale, shift) = (s.splat(terms.scale), s.splat(terms.shift));
        // Where rows have no scale the shift is the same for all: it joins the offset.
        let offset = asked.offset + if rows.scaled { 0.0 } else { terms.shift };
        let limit = s.splat(self.sink.threshold(asked.query) - offset);
        let mut keys = [s.splat(0.0); V];
        let mut mask = 0u64;
        for v in 0..V {
            // SAFETY: V LANES <= MOST_ROWS.
            // The arrays have MOST_ROWS places, zeros behind the rows, so these are whole vectors at
            // the end of a list too.
            let (add, row_scale) =
                unsafe { (s.load(rows.add.as_ptr().add(v * S::LANES)), s.load(rows.scale.as_ptr().add(v * S::LANES))) };
            let sum = d.to_f32(sums[v]);
            keys[v] =
                if rows.scaled { s.fma(row_scale, s.fma(sum, scale, shift), add) } else { s.fma(sum, scale, add) };
            // At most 64 rows, so the shift is below 64.
            mask |= u64::from(s.not_above(keys[v], limit)) << (v * S::LANES);
        }
        // Nearly always zero once limits are known: then the keys are never stored.
        if mask != 0 {
            let mut values = [0.0f32; MOST_ROWS];
            for v in 0..V {
                // SAFETY: V LANES <= MOST_ROWS.
                unsafe { s.store(values.as_mut_ptr().add(v * S::LANES), keys[v]) };
            }
            self.report(start, asked.query, offset, mask & below(rows.len), &values);
        }
    }

    /// Gives the sink the rows of a mask.
    ///
    /// Rare enough not to be repeated for every query of a tile.
    #[inline(never)]
    fn report(&mut self, start: usize, query: u32, offset: f32, mask: u64, values: &[f32; MOST_ROWS]) {
        bits(mask, |r| self.sink.take(query, start + r, values[r] + offset));
    }
}

/// A block of packed codes as bytes; for tables of 16 entries, with the number of the table of four in the upper half.
///
/// A code of b bits lies in planes by the powers of two in b (3 bits: 2 and 1), the upper bits first.
/// A word of a plane of width f holds four bytes, each with 8 / f fields of as many output words;
/// shifting by f and masking takes the fields of one output word out of all four bytes at once. No
/// field crosses a byte, so no lane needs another's bits.
#[inline(always)]
fn unpack(form: Form, dim: usize, from: &[u32], to: &mut [Line]) {
    let (Form::Integers(total) | Form::Parts(total)) = form else { return };
    let padded = form.padded(dim);
    // `low`: how many bits of the code lie below the plane at hand.
    let mut low = u32::from(total);
    let mut from = from.chunks_exact(BLOCK);
    // Byte b of a word gets 16 b: part b of four looks into the b-th table of 16 entries.
    let first = if matches!(form, Form::Parts(4)) { 0x3020_1000 } else { 0 };
    for (i, &width) in form.fields().iter().enumerate() {
        let width = u32::from(width);
        low -= width;
        // The lowest `width` bits of each byte. For width 8 that is all bits, and the shift is 0.
        let each = 0x0101_0101 * ((1 << width) - 1);
        let shares = (8 / width) as usize;
        for (words, lines) in from.by_ref().take(padded * width as usize / 32).zip(to.chunks_exact_mut(shares)) {
            // A loop over BLOCK words without branches, which the compiler vectorises at the level's
            // width.
            for (share, line) in lines.iter_mut().enumerate() {
                for (to, &word) in line.0.iter_mut().zip(words) {
                    let bytes = (word >> (width * share as u32) & each) << low;
                    // The first plane overwrites, as the scratch holds the codes of an earlier tile.
                    *to = if i == 0 { bytes | first } else { *to | bytes };
                }
            }
        }
    }
}

// The forms without products of bytes, block by block.
impl<K: Sink> SimdKernel for Scan<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let packed = self.form.words(self.dim) * BLOCK;
        for block in 0..self.list.len().div_ceil(BLOCK) {
            let words = &self.list.words[block * packed..(block + 1) * packed];
            match self.form {
                Form::Rows(dtype) => self.floats(s, dtype, block, words),
                Form::Bits => self.differing(block, words),
                _ => self.entries(block, words),
            }
        }
    }
}

impl<K: Sink> Scan<'_, K> {
    /// The keys of a block of vectors.
    ///
    /// Halves are converted to f32 once per block, for all queries; f32 is read where it lies.
    #[inline(always)]
    fn floats<S: Simd>(&mut self, s: S, dtype: DType, block: usize, words: &[u32]) {
        let dim = self.dim;
        let lines: &[u32] = if dtype == DType::F32 {
            words
        } else {
            let padded = self.form.padded(dim);
            if self.scratch.lines.len() < padded {
                self.scratch.lines.resize(padded, Line([0; BLOCK]));
            }
            // A word holds two components of a row, the first in its lower half: it becomes one word
            // of each of two lines.
            for (words, lines) in words.chunks_exact(BLOCK).zip(self.scratch.lines.chunks_exact_mut(2)) {
                for (i, &word) in words.iter().enumerate() {
                    let (a, b) = (word & 0xffff, word >> 16);
                    (lines[0].0[i], lines[1].0[i]) = match dtype {
                        DType::F16 => (f16_bits(a as u16), f16_bits(b as u16)),
                        // A bf16 is the upper half of an f32.
                        _ => (a << 16, b << 16),
                    };
                }
            }
            bytemuck::cast_slice(&self.scratch.lines)
        };
        assert!(lines.len() >= dim * BLOCK);
        // Any 32 bits are an f32, and both types have the same alignment.
        let rows: *const f32 = lines.as_ptr().cast();
        for asked in self.asked.chunks(4) {
            // SAFETY: the lines hold `dim` times BLOCK numbers (asserted), and the tile as many queries as there are.
            let keys = unsafe {
                match asked.len() {
                    1 => self.float_tile::<S, 1>(s, rows, asked),
                    2 => self.float_tile::<S, 2>(s, rows, asked),
                    3 => self.float_tile::<S, 3>(s, rows, asked),
                    _ => self.float_tile::<S, 4>(s, rows, asked),
                }
            };
            for (asked, keys) in asked.iter().zip(&keys) {
                self.offer(block, asked.query, keys);
            }
        }
    }

    /// The keys of a block for `Q` queries, rows along the lanes: no sum across lanes is needed at
    /// the end.
    ///
    /// # Safety
    /// `rows` holds `dim` times BLOCK numbers; `asked` are `Q`.
    #[inline(always)]
    unsafe fn float_tile<S: Simd, const Q: usize>(&self, s: S, rows: *const f32, asked: &[Asked]) -> [[f32; BLOCK]; 4] {
        // Slices, so that the query's side is checked; the row's side is the caller's promise.
        let query: [&[f32]; Q] = std::array::from_fn(|q| {
            let at = asked[q].query as usize * self.dim;
            &self.queries.floats[at..at + self.dim]
        });
        let mut keys = [[0.0; BLOCK]; 4];
        // LANES divides BLOCK at every level, so the vectors cover the block and none passes its end.
        for at in (0..BLOCK).step_by(S::LANES) {
            // Two sums, so that additions need not wait for each other.
            let (mut acc, mut squares) = ([[s.splat(0.0); 2]; Q], [s.splat(0.0); 2]);
            for i in 0..self.dim {
                // SAFETY: the caller's promise.
                // Component i of LANES rows.
                let x = unsafe { s.load(rows.add(i * BLOCK + at)) };
                if self.metric == Metric::Cosine {
                    squares[i % 2] = s.fma(x, x, squares[i % 2]);
                }
                for q in 0..Q {
                    let w = s.splat(query[q][i]);
                    acc[q][i % 2] = match self.metric {
                        // By differences, as the direct pass: nothing cancels.
                        Metric::L2 => {
                            let difference = s.sub(w, x);
                            s.fma(difference, difference, acc[q][i % 2])
                        }
                        _ => s.fma(w, x, acc[q][i % 2]),
                    };
                }
            }
            for q in 0..Q {
                let sum = s.add(acc[q][0], acc[q][1]);
                let key = match self.metric {
                    Metric::L2 => sum,
                    Metric::Cosine => {
                        let length = query[q].iter().map(|x| x * x).sum::<f32>().sqrt();
                        // Lengths of rows are computed along the way, since lists do not keep them.
                        let both = s.mul(s.sqrt(s.add(squares[0], squares[1])), s.splat(length));
                        // Nothing over nothing is nothing.
                        let quotient = s.div(s.sub(s.splat(0.0), sum), both);
                        s.if_above(both, s.splat(0.0), quotient, s.splat(0.0))
                    }
                    _ => s.sub(s.splat(0.0), sum),
                };
                // SAFETY: LANES divides BLOCK.
                unsafe { s.store(keys[q].as_mut_ptr().add(at), key) };
            }
        }
        keys
    }

    /// The bits that differ between the queries and the rows of a block.
    /// All integers, so exact. Safe Rust: entered with VPOPCNTDQ where the CPU has it, the compiler
    /// vectorises the count.
    #[inline(always)]
    fn differing(&mut self, block: usize, words: &[u32]) {
        let count = words.len() / BLOCK;
        for asked in self.asked {
            let query = &self.queries.bits[asked.query as usize * count..][..count];
            let mut differ = [0u32; BLOCK];
            for (words, &mine) in words.chunks_exact(BLOCK).zip(query) {
                for (sum, &word) in differ.iter_mut().zip(words) {
                    *sum += (word ^ mine).count_ones();
                }
            }
            self.offer(block, asked.query, &differ.map(|d| d as f32));
        }
    }

    /// The keys by tables of 256 entries.
    ///
    /// A table of 256 bytes fits no register, so this is a load per part and row. The tables of a
    /// query, 256 bytes per part, stay in the first or second cache while its list goes by.
    #[inline(always)]
    fn entries(&mut self, block: usize, words: &[u32]) {
        const ENTRIES: usize = 256;
        let per_query = words.len() / BLOCK * 4 * ENTRIES;
        for asked in self.asked {
            let tables = &self.queries.tables[asked.query as usize * per_query..][..per_query];
            let mut sums = [0u32; BLOCK];
            for (words, tables) in words.chunks_exact(BLOCK).zip(tables.chunks_exact(4 * ENTRIES)) {
                for (sum, &word) in sums.iter_mut().zip(words) {
                    // A byte cannot pass the end of 256 entries, which the compiler sees.
                    for (byte, table) in word.to_le_bytes().into_iter().zip(tables.chunks_exact(ENTRIES)) {
                        *sum += u32::from(table[usize::from(byte)]);
                    }
                }
            }
            let terms = self.queries.terms[asked.query as usize];
            let start = block * BLOCK;
            let keys = std::array::from_fn(|i| {
                let add = self.list.add.get(start + i).copied().unwrap_or(0.0);
                let scale = self.list.scale.get(start + i).copied().unwrap_or(1.0);
                asked.offset + add + scale * (terms.scale * sums[i] as f32 + terms.shift)
            });
            self.offer(block, asked.query, &keys);
        }
    }

    /// Gives the sink the keys of a block that are not above the threshold.
    /// Places behind the last row are masked, whatever their keys are.
    #[inline(always)]
    fn offer(&mut self, block: usize, query: u32, keys: &[f32; BLOCK]) {
        let start = block * BLOCK;
        let threshold = self.sink.threshold(query);
        // NaN is given too, as by the vectors: the sink decides.
        let mut mask = 0u64;
        for (i, &key) in keys.iter().enumerate() {
            mask |= u64::from(key <= threshold || key.is_nan()) << i;
        }
        let rows = BLOCK.min(self.list.len() - start);
        bits(mask & below(rows), |i| self.sink.take(query, start + i, keys[i]));
    }
}

const _: () = assert!(MAX_LANES <= BLOCK && MOST_ROWS <= 64);
