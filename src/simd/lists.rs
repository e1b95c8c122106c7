//! The scan of one inverted list (`ops::lists`) for some queries.
//!
//! Codes are unpacked, block by block, into bytes `[parts / 4, BLOCK rows, 4]` (or f32 `[dim, BLOCK]`), which is how codes
//! of 8 bits lie in the list already. A register tile multiplies up to four blocks with up to six queries; a key leaves
//! the registers only when it is not above what its query still wants.

use super::bytes::{ByteKernel, Dot, below, bits};
use super::{MAX_LANES, Simd, SimdKernel, Token, f16_bits, select};
use crate::ops::lists::{BLOCK, Form, List, Lists, Prepared};
use crate::types::{DType, Metric};

/// Blocks of a tile at most.
const MOST_BLOCKS: usize = 4;

/// Rows of a tile at most.
const MOST_ROWS: usize = MOST_BLOCKS * BLOCK;

/// Queries of a tile at most.
const MOST_QUERIES: usize = 6;

/// What takes the keys.
pub(crate) trait Sink {
    /// Keys above this are not wanted for the query.
    fn threshold(&self, query: u32) -> f32;
    /// The key of the row in a place of the list.
    fn take(&mut self, query: u32, place: usize, key: f32);
}

/// A query that a list is scanned for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub query: u32,
    /// What belongs to the query and the list in the key.
    pub offset: f32,
}

/// A block of bytes or numbers, aligned so that no vector straddles two cache lines.
#[repr(C, align(64))]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Line([u32; BLOCK]);

/// A worker's unpacked blocks.
#[derive(Default)]
pub(crate) struct Scratch {
    lines: Vec<Line>,
}

/// Asks for the first blocks of a list.
pub(crate) fn prefetch(token: Token, lists: &Lists, number: usize) {
    let words = &lists.lists[number].words;
    let first = words.len().min(MOST_BLOCKS * BLOCK * lists.form.words(lists.dim));
    select::prefetch(token, bytemuck::cast_slice(&words[..first]));
}

/// Gives the sink the keys of a list's rows that are not above its thresholds.
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
    match lists.form {
        Form::Integers(_) | Form::Parts(4) => token.run_on_bytes(scan),
        Form::Parts(_) | Form::Rows(_) => token.run(scan),
        Form::Bits => token.run_on_bits(scan),
    }
}

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
    add: [f32; MOST_ROWS],
    scale: [f32; MOST_ROWS],
    scaled: bool,
    len: usize,
}

impl RowTerms {
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
        let most = if S::LANES == BLOCK { MOST_BLOCKS } else { 1 };
        let mut block = 0;
        while block < blocks {
            // Constants of the level, so only some arms of the match are compiled to anything.
            let count = match blocks - block {
                left if most >= 4 && left >= 4 => 4,
                left if most >= 4 && left >= 2 => 2,
                _ => 1,
            };
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
    #[inline(always)]
    fn blocks<S: Simd, D: Dot<S>, const V: usize>(&mut self, s: S, d: D, block: usize, count: usize) {
        if count * BLOCK != V * S::LANES {
            return;
        }
        let words = self.form.padded(self.dim) / 4;
        let packed = self.form.words(self.dim) * BLOCK;
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
            self.scratch.lines.as_ptr().cast()
        };
        let next = (block + count) * packed..((block + 2 * count) * packed).min(self.list.words.len());
        select::fetch(s, bytemuck::cast_slice(&self.list.words[next.start.min(next.end)..next.end]));
        let rows = RowTerms::new(self.list, block * BLOCK, count * BLOCK);
        let groups = self.asked.len().div_ceil(MOST_QUERIES);
        // Groups of equal size waste least.
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
        let integers = &self.queries.integers;
        assert!(asked.len() == Q && asked.iter().all(|a| integers.len() >= (a.query as usize + 1) * words * 4));
        let query: [*const i8; Q] = std::array::from_fn(|q| integers[asked[q].query as usize * words * 4..].as_ptr());
        // Vector v begins in block v LANES / BLOCK.
        let row: [*const u8; V] = std::array::from_fn(|v| {
            bytes.wrapping_add(v * S::LANES / BLOCK * words * BLOCK * 4 + v * S::LANES % BLOCK * 4)
        });
        let mut acc = [[d.splat(0); V]; Q];
        for w in 0..words {
            // SAFETY: each block holds `words` words of BLOCK rows (the caller), each query 4 `words` bytes (asserted).
            unsafe {
                let mut x = [d.splat(0); V];
                for v in 0..V {
                    x[v] = d.load(row[v].add(w * 4 * BLOCK));
                }
                for q in 0..Q {
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
        const FOUR: usize = 64;
        let tables = &self.queries.tables[asked.query as usize * words * FOUR..][..words * FOUR];
        let ones = d.splat(0x0101_0101);
        let mut acc = [d.splat(0); V];
        for w in 0..words {
            for v in 0..V {
                let at = (v * S::LANES / BLOCK * words + w) * BLOCK * 4 + v * S::LANES % BLOCK * 4;
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
        let offset = asked.offset + if rows.scaled { 0.0 } else { terms.shift };
        let limit = s.splat(self.sink.threshold(asked.query) - offset);
        let mut keys = [s.splat(0.0); V];
        let mut mask = 0u64;
        for v in 0..V {
            // SAFETY: V LANES <= MOST_ROWS.
            let (add, row_scale) =
                unsafe { (s.load(rows.add.as_ptr().add(v * S::LANES)), s.load(rows.scale.as_ptr().add(v * S::LANES))) };
            let sum = d.to_f32(sums[v]);
            keys[v] =
                if rows.scaled { s.fma(row_scale, s.fma(sum, scale, shift), add) } else { s.fma(sum, scale, add) };
            mask |= u64::from(s.not_above(keys[v], limit)) << (v * S::LANES);
        }
        if mask != 0 {
            let mut values = [0.0f32; MOST_ROWS];
            for v in 0..V {
                // SAFETY: V LANES <= MOST_ROWS.
                unsafe { s.store(values.as_mut_ptr().add(v * S::LANES), keys[v]) };
            }
            self.report(start, asked.query, offset, mask & below(rows.len), &values);
        }
    }

    /// Rare enough not to be repeated for every query of a tile.
    #[inline(never)]
    fn report(&mut self, start: usize, query: u32, offset: f32, mask: u64, values: &[f32; MOST_ROWS]) {
        bits(mask, |r| self.sink.take(query, start + r, values[r] + offset));
    }
}

/// A block of packed codes as bytes; for tables of 16 entries, with the number of the table of four in the upper half.
#[inline(always)]
fn unpack(form: Form, dim: usize, from: &[u32], to: &mut [Line]) {
    let (Form::Integers(total) | Form::Parts(total)) = form else { return };
    let padded = form.padded(dim);
    let mut low = u32::from(total);
    let mut from = from.chunks_exact(BLOCK);
    let first = if matches!(form, Form::Parts(4)) { 0x3020_1000 } else { 0 };
    for (i, &width) in form.fields().iter().enumerate() {
        let width = u32::from(width);
        low -= width;
        let each = 0x0101_0101 * ((1 << width) - 1);
        let shares = (8 / width) as usize;
        for (words, lines) in from.by_ref().take(padded * width as usize / 32).zip(to.chunks_exact_mut(shares)) {
            for (share, line) in lines.iter_mut().enumerate() {
                for (to, &word) in line.0.iter_mut().zip(words) {
                    let bytes = (word >> (width * share as u32) & each) << low;
                    *to = if i == 0 { bytes | first } else { *to | bytes };
                }
            }
        }
    }
}

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
            for (words, lines) in words.chunks_exact(BLOCK).zip(self.scratch.lines.chunks_exact_mut(2)) {
                for (i, &word) in words.iter().enumerate() {
                    let (a, b) = (word & 0xffff, word >> 16);
                    (lines[0].0[i], lines[1].0[i]) = match dtype {
                        DType::F16 => (f16_bits(a as u16), f16_bits(b as u16)),
                        _ => (a << 16, b << 16),
                    };
                }
            }
            bytemuck::cast_slice(&self.scratch.lines)
        };
        assert!(lines.len() >= dim * BLOCK);
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

    /// # Safety
    /// `rows` holds `dim` times BLOCK numbers; `asked` are `Q`.
    #[inline(always)]
    unsafe fn float_tile<S: Simd, const Q: usize>(&self, s: S, rows: *const f32, asked: &[Asked]) -> [[f32; BLOCK]; 4] {
        let query: [&[f32]; Q] = std::array::from_fn(|q| {
            let at = asked[q].query as usize * self.dim;
            &self.queries.floats[at..at + self.dim]
        });
        let mut keys = [[0.0; BLOCK]; 4];
        for at in (0..BLOCK).step_by(S::LANES) {
            // Two sums, so that additions need not wait for each other.
            let (mut acc, mut squares) = ([[s.splat(0.0); 2]; Q], [s.splat(0.0); 2]);
            for i in 0..self.dim {
                // SAFETY: the caller's promise.
                let x = unsafe { s.load(rows.add(i * BLOCK + at)) };
                if self.metric == Metric::Cosine {
                    squares[i % 2] = s.fma(x, x, squares[i % 2]);
                }
                for q in 0..Q {
                    let w = s.splat(query[q][i]);
                    acc[q][i % 2] = match self.metric {
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
    #[inline(always)]
    fn entries(&mut self, block: usize, words: &[u32]) {
        const ENTRIES: usize = 256;
        let per_query = words.len() / BLOCK * 4 * ENTRIES;
        for asked in self.asked {
            let tables = &self.queries.tables[asked.query as usize * per_query..][..per_query];
            let mut sums = [0u32; BLOCK];
            for (words, tables) in words.chunks_exact(BLOCK).zip(tables.chunks_exact(4 * ENTRIES)) {
                for (sum, &word) in sums.iter_mut().zip(words) {
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
    #[inline(always)]
    fn offer(&mut self, block: usize, query: u32, keys: &[f32; BLOCK]) {
        let start = block * BLOCK;
        let threshold = self.sink.threshold(query);
        let mut mask = 0u64;
        for (i, &key) in keys.iter().enumerate() {
            mask |= u64::from(key <= threshold || key.is_nan()) << i;
        }
        let rows = BLOCK.min(self.list.len() - start);
        bits(mask & below(rows), |i| self.sink.take(query, start + i, keys[i]));
    }
}

const _: () = assert!(MAX_LANES <= BLOCK && MOST_ROWS <= 64);
