//! Inverted lists of packed codes: what they hold, how a query is prepared for them, and the key that both give.
//!
//! The vectors of an index are split over lists, each about a centroid c. Of a vector x a list keeps a code of
//! r = x - c (or of x itself, where there is one list about zero) and two numbers. All codes give keys of one form:
//!
//! `key = offset(query, list) + add(row) + scale(row) (scale(query) S + shift(query))`
//!
//! where S is a sum over the parts of the code: of products of integers ([`Form::Integers`]) or of entries of a table
//! made for the query ([`Form::Parts`]). S is an integer, and so the same on every engine. For l2, `offset` is
//! |q - c|^2, and `add` is |r|^2 + 2 <c, r>, so that what belongs to the query is the same for all lists; for inner
//! product (and cosine, of rows and queries of length 1) `offset` is -<q, c> and `add` 0.
//!
//! What is rounded to integers is the query; [`Prepared::rounding`] says how far that may lead a key astray, and candidates
//! that it may have mixed up are settled without it (`docs/numerics.md`).
//!
//! Codes that are no estimates, [`Form::Rows`] and [`Form::Bits`], give the key of the metric itself.
//!
//! **Layout.** The codes of a list are words of 32 bits in blocks of [`BLOCK`] rows: word w of row r lies at
//! `(r / BLOCK * words + w) * BLOCK + r % BLOCK`. A vector register, or neighbouring invocations of a GPU, so get the
//! same word of neighbouring rows. A word of integers of f bits has parts `4 (32 / f / 4)`: byte b, shifted right by
//! f s bits, holds part `w 32 / f + 4 s + b`. Integers of 3, 5, 6 and 7 bits are split into fields of 4, 2 and 1 bits,
//! the most significant first, and all words of a field precede those of the next.

use std::fmt;

use half::{bf16, f16};

use crate::types::DType;

/// Rows whose words lie side by side.
pub const BLOCK: usize = 16;

/// Most bits of an integer code.
pub const MOST_BITS: u8 = 8;

/// What a code consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Unsigned integers of so many bits (1 to 8), multiplied by integers of the query and added up.
    Integers(u8),
    /// Numbers of 4 or 8 bits that choose entries of tables made for the query, one table per part.
    Parts(u8),
    /// The vectors themselves, as f32, f16 or bf16.
    Rows(DType),
    /// Packed bits, of which those are counted that differ.
    Bits,
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Integers(bits) => write!(f, "{bits}-bit integers"),
            Form::Parts(bits) => write!(f, "{bits}-bit parts"),
            Form::Rows(dtype) => write!(f, "{dtype} rows"),
            Form::Bits => f.write_str("bits"),
        }
    }
}

impl Form {
    /// The widths of the fields that a part is split into, the most significant first.
    pub fn fields(self) -> &'static [u8] {
        match self {
            Form::Integers(1) | Form::Bits => &[1],
            Form::Integers(2) => &[2],
            Form::Integers(3) => &[2, 1],
            Form::Integers(4) | Form::Parts(4) => &[4],
            Form::Integers(5) => &[4, 1],
            Form::Integers(6) => &[4, 2],
            Form::Integers(7) => &[4, 2, 1],
            Form::Integers(_) | Form::Parts(_) => &[8],
            Form::Rows(_) => &[],
        }
    }

    /// Parts of a code of `dim` parts, with those that fill up its last words.
    pub fn padded(self, dim: usize) -> usize {
        match self {
            Form::Rows(DType::F32) => dim,
            Form::Rows(_) => dim.next_multiple_of(2),
            form => form.fields().iter().map(|&f| dim.next_multiple_of(32 / usize::from(f))).max().unwrap_or(dim),
        }
    }

    /// Words of a code of `dim` parts.
    pub fn words(self, dim: usize) -> usize {
        let padded = self.padded(dim);
        match self {
            Form::Rows(DType::F32) => padded,
            Form::Rows(_) => padded / 2,
            form => form.fields().iter().map(|&f| padded * usize::from(f) / 32).sum(),
        }
    }

    /// Whether the code gives the key itself, not an estimate.
    pub fn is_exact(self) -> bool {
        matches!(self, Form::Rows(_) | Form::Bits)
    }

    /// Entries of the table of a part; 0 where there are no tables.
    pub fn entries(self) -> usize {
        match self {
            Form::Parts(bits) => 1 << bits,
            _ => 0,
        }
    }
}

/// Codes of rows, one byte per part, before they are packed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    /// `[rows, dim]`: a number of as many bits as the form has. For [`Form::Rows`] the little-endian bytes of the
    /// components, for [`Form::Bits`] the packed bytes.
    pub codes: Vec<u8>,
    /// What a row adds to every key; empty where that is nothing.
    pub add: Vec<f32>,
    /// What a row multiplies the query's part by; empty where that is 1.
    pub scale: Vec<f32>,
    /// About how far a key may lie from the true one, relative to |q - c|; empty where a code does not say.
    pub error: Vec<f32>,
    /// Rows with a component far outside of what codes can hold, so that another value stands for it; of each the first
    /// such component.
    pub outside: Vec<Outside>,
}

/// A component that codes cannot hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outside {
    /// The row, counted from the first one given.
    pub row: usize,
    /// The component of what is coded.
    pub component: usize,
    /// What was found.
    pub value: f32,
}

/// One list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct List {
    /// Whole blocks of packed codes.
    pub words: Vec<u32>,
    /// As in [`Encoded`].
    pub add: Vec<f32>,
    /// As in [`Encoded`].
    pub scale: Vec<f32>,
    /// Where the rows lie in the index, rising.
    pub positions: Vec<u32>,
}

impl List {
    /// Rows.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }
}

/// All lists of an index.
#[derive(Clone, Debug, PartialEq)]
pub struct Lists {
    /// What codes consist of.
    pub form: Form,
    /// Parts of a code: components, or numbers of tables.
    pub dim: usize,
    /// The lists.
    pub lists: Vec<List>,
    /// About how far a key may lie from the true one, relative to |q - c| times the magnitude of the row's scale: the most
    /// of all rows so far, since of one code it is nearly the same for all. 0 where codes do not say.
    pub error: f32,
    /// `[lists + 1]`: where the slots of each list begin; slots are numbered through all lists, whole blocks each.
    pub starts: Vec<u32>,
}

impl Lists {
    /// So many empty lists.
    pub fn new(form: Form, dim: usize, lists: usize) -> Lists {
        Lists { form, dim, lists: vec![List::default(); lists], error: 0.0, starts: vec![0; lists + 1] }
    }

    /// Appends empty lists until there are so many.
    pub fn grow(&mut self, lists: usize) {
        if lists > self.lists.len() {
            self.lists.resize_with(lists, List::default);
            self.number();
        }
    }

    /// Rows in all lists.
    pub fn rows(&self) -> usize {
        self.lists.iter().map(List::len).sum()
    }

    /// Slots of all lists.
    pub fn slots(&self) -> usize {
        self.starts.last().map_or(0, |&s| s as usize)
    }

    /// Bytes of memory.
    pub fn memory_bytes(&self) -> usize {
        let numbers = |l: &List| l.words.len() + l.add.len() + l.scale.len() + l.positions.len();
        self.lists.iter().map(|l| 4 * numbers(l)).sum::<usize>() + 4 * self.starts.len()
    }

    /// The list and the place in it of a slot.
    pub fn place(&self, slot: u32) -> (usize, usize) {
        let list = self.starts.partition_point(|&s| s <= slot) - 1;
        (list, (slot - self.starts[list]) as usize)
    }

    /// The row in a slot; `u32::MAX` stays what it is.
    pub fn position(&self, slot: u32) -> u32 {
        if slot == u32::MAX {
            return slot;
        }
        let (list, place) = self.place(slot);
        self.lists[list].positions[place]
    }

    /// Appends rows, row i to list `lists[i]`, under rising positions from `first`.
    pub fn append(&mut self, encoded: &Encoded, lists: &[u32], first: u32) {
        let bytes = self.code_bytes();
        for (i, &list) in lists.iter().enumerate() {
            let code = &encoded.codes[i * bytes..(i + 1) * bytes];
            let at = &mut self.lists[list as usize];
            push(self.form, self.dim, at, code);
            at.positions.push(first + i as u32);
            at.add.extend(encoded.add.get(i));
            at.scale.extend(encoded.scale.get(i));
            if let (Some(error), Some(scale)) = (encoded.error.get(i), encoded.scale.get(i))
                && scale.abs() > f32::MIN_POSITIVE
            {
                self.error = self.error.max(error / scale.abs());
            }
        }
        self.number();
    }

    /// Keeps the rows for which `keep` gives their new position.
    pub fn retain(&mut self, keep: impl Fn(u32) -> Option<u32>) {
        // On the caller's thread alone, who may hold a lock that other threads wait for.
        let (form, dim) = (self.form, self.dim);
        let mut code = vec![0; code_bytes(form, dim)];
        self.lists.iter_mut().for_each(|list| {
            let mut kept = List::default();
            for place in 0..list.len() {
                let Some(position) = keep(list.positions[place]) else { continue };
                read(form, dim, list, place, &mut code);
                push(form, dim, &mut kept, &code);
                kept.positions.push(position);
                kept.add.extend(list.add.get(place));
                kept.scale.extend(list.scale.get(place));
            }
            *list = kept;
        });
        self.number();
    }

    /// Puts the rows of all lists, in their order, into lists of `size` rows each.
    pub fn regroup(&mut self, size: usize) {
        let mut whole: Vec<List> = Vec::new();
        let mut code = vec![0; self.code_bytes()];
        for list in std::mem::take(&mut self.lists) {
            for place in 0..list.len() {
                read(self.form, self.dim, &list, place, &mut code);
                if whole.last().is_none_or(|last| last.len() == size) {
                    whole.push(List::default());
                }
                let Some(to) = whole.last_mut() else { continue };
                push(self.form, self.dim, to, &code);
                to.positions.push(list.positions[place]);
                to.add.extend(list.add.get(place));
                to.scale.extend(list.scale.get(place));
            }
        }
        self.lists = whole;
        self.number();
    }

    /// The code in a place of a list, as it was before it was packed.
    pub fn code(&self, list: usize, place: usize, code: &mut [u8]) {
        read(self.form, self.dim, &self.lists[list], place, code);
    }

    /// The codes of the rows of a block of a list, side by side, of [`Form::Integers`] or [`Form::Parts`]; zeros behind the
    /// last row.
    #[inline(always)]
    pub fn block(&self, list: usize, block: usize, codes: &mut [[u8; BLOCK]]) {
        let size = self.form.words(self.dim) * BLOCK;
        let words = &self.lists[list].words[block * size..(block + 1) * size];
        codes.fill([0; BLOCK]);
        each_bit_field(self.form, self.dim, |part, w, shift, low, width| {
            for (code, word) in codes[part].iter_mut().zip(&words[w * BLOCK..(w + 1) * BLOCK]) {
                *code |= ((word >> shift & ((1 << width) - 1)) << low) as u8;
            }
        });
    }

    /// Bytes of a code before it is packed.
    pub fn code_bytes(&self) -> usize {
        code_bytes(self.form, self.dim)
    }

    /// Numbers the slots again after lists have changed.
    pub fn number(&mut self) {
        let mut slot = 0;
        self.starts.clear();
        self.starts.push(0);
        for list in &self.lists {
            slot += list.len().next_multiple_of(BLOCK) as u32;
            self.starts.push(slot);
        }
    }
}

fn code_bytes(form: Form, dim: usize) -> usize {
    match form {
        Form::Rows(dtype) => dtype.row_bytes(dim),
        Form::Bits => dim.div_ceil(8),
        Form::Integers(_) | Form::Parts(_) => dim,
    }
}

/// Where word `w` of the row in a place lies.
pub fn word_at(words: usize, place: usize, w: usize) -> usize {
    (place / BLOCK * words + w) * BLOCK + place % BLOCK
}

fn push(form: Form, dim: usize, list: &mut List, code: &[u8]) {
    let (words, place) = (form.words(dim), list.positions.len());
    if place % BLOCK == 0 {
        list.words.resize((place / BLOCK + 1) * words * BLOCK, 0);
    }
    each_bit_field(form, dim, |part, w, shift, low, width| {
        let value = u32::from(code[part]) >> low & ((1u32 << width) - 1);
        list.words[word_at(words, place, w)] |= value << shift;
    });
    if matches!(form, Form::Rows(_) | Form::Bits) {
        for (w, bytes) in code.chunks(4).enumerate() {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            list.words[word_at(words, place, w)] = u32::from_le_bytes(word);
        }
    }
}

fn read(form: Form, dim: usize, list: &List, place: usize, code: &mut [u8]) {
    let words = form.words(dim);
    code.fill(0);
    each_bit_field(form, dim, |part, w, shift, low, width| {
        let value = list.words[word_at(words, place, w)] >> shift & ((1u32 << width) - 1);
        code[part] |= (value << low) as u8;
    });
    if matches!(form, Form::Rows(_) | Form::Bits) {
        for (w, bytes) in code.chunks_mut(4).enumerate() {
            let word = list.words[word_at(words, place, w)].to_le_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
    }
}

/// Gives each field of each part of an integer code: (part, word, shift in the word, shift in the part, width).
#[inline(always)]
fn each_bit_field(form: Form, dim: usize, mut each: impl FnMut(usize, usize, u32, u32, u32)) {
    let (Form::Integers(bits) | Form::Parts(bits)) = form else { return };
    let padded = form.padded(dim);
    let (mut first, mut low) = (0, u32::from(bits));
    for &width in form.fields() {
        let width = usize::from(width);
        low -= width as u32;
        let parts = 32 / width;
        for part in 0..dim {
            let (s, b) = (part % parts / 4, part % 4);
            each(part, first + part / parts, (8 * b + width * s) as u32, low, width as u32);
        }
        first += padded * width / 32;
    }
}

/// Queries as a form takes them; only what it needs is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prepared {
    /// Queries.
    pub queries: usize,
    /// [`Form::Integers`]: `[queries, padded]`, zero behind the last part.
    pub integers: Vec<i8>,
    /// [`Form::Parts`]: `[queries, padded, entries]`, zero behind the last part.
    pub tables: Vec<u8>,
    /// [`Form::Rows`]: `[queries, dim]`.
    pub floats: Vec<f32>,
    /// [`Form::Bits`]: `[queries, words]`.
    pub bits: Vec<u32>,
    /// [`Form::Integers`] and [`Form::Parts`]: one per query.
    pub terms: Vec<Terms>,
    /// How far `terms.scale * S + terms.shift` may lie from what it stands for, as the query was rounded; one per query,
    /// empty where nothing is rounded.
    pub rounding: Vec<f32>,
}

/// The numbers of a query in the key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Terms {
    /// What the sum S is multiplied by.
    pub scale: f32,
    /// What is added to that.
    pub shift: f32,
}

/// Which lists are scanned for which query.
#[derive(Clone, Copy, Debug)]
pub struct Probes<'a> {
    /// Lists per query.
    pub width: usize,
    /// `[queries, width]` numbers of lists, each at most once per query, `u32::MAX` where there is none.
    pub lists: &'a [u32],
    /// `[queries, width]`: what belongs to the query and the list in the key; ignored by exact forms.
    pub offsets: &'a [f32],
}

/// The sum S of a code, one byte per part, and a query.
pub fn sum(form: Form, dim: usize, code: &[u8], queries: &Prepared, query: usize) -> i64 {
    let padded = form.padded(dim);
    match form {
        Form::Integers(_) => {
            let query = &queries.integers[query * padded..(query + 1) * padded];
            code.iter().zip(query).map(|(&c, &w)| i64::from(c) * i64::from(w)).sum()
        }
        Form::Parts(_) => {
            let tables = queries.tables[query * padded * form.entries()..].chunks(form.entries());
            code.iter().zip(tables).map(|(&c, table)| i64::from(table[usize::from(c)])).sum()
        }
        Form::Rows(_) | Form::Bits => 0,
    }
}

/// The key of the row in a place of a list: `offset` is the query's and the list's.
pub fn estimate(list: &List, place: usize, terms: Terms, offset: f32, sum: i64) -> f32 {
    let add = list.add.get(place).copied().unwrap_or(0.0);
    let scale = list.scale.get(place).copied().unwrap_or(1.0);
    offset + add + scale * (terms.scale * sum as f32 + terms.shift)
}

/// The components of a code of [`Form::Rows`].
pub fn floats(dtype: DType, code: &[u8]) -> Vec<f32> {
    match dtype {
        DType::F16 => code.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        DType::Bf16 => code.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        _ => code.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_as_they_were_packed() {
        let forms = (1..=8).map(Form::Integers).chain([Form::Parts(4), Form::Parts(8), Form::Bits]);
        for form in forms.chain([Form::Rows(DType::F32), Form::Rows(DType::F16)]) {
            for dim in [1, 7, 33, 64] {
                let mut lists = Lists::new(form, dim, 2);
                let bits = match form {
                    Form::Integers(bits) | Form::Parts(bits) => bits,
                    _ => 8,
                };
                let bytes = lists.code_bytes();
                let rows = 37;
                let mut x = 1u32;
                let mut byte = || {
                    x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (x >> 24) as u8 >> (8 - bits)
                };
                let codes: Vec<u8> = (0..rows * bytes).map(|_| byte()).collect();
                let encoded = Encoded { codes: codes.clone(), add: vec![1.0; rows], ..Encoded::default() };
                let to: Vec<u32> = (0..rows as u32).map(|i| u32::from(i % 3 == 0)).collect();
                lists.append(&encoded, &to, 5);
                assert_eq!(lists.rows(), rows);
                let mut code = vec![0; bytes];
                let mut seen = 0;
                for (list, l) in lists.lists.iter().enumerate() {
                    for (place, &p) in l.positions.iter().enumerate() {
                        lists.code(list, place, &mut code);
                        let row = p as usize - 5;
                        assert_eq!(code, codes[row * bytes..(row + 1) * bytes], "{form:?} {dim} {row}");
                        if !form.is_exact() {
                            let mut block = vec![[0; BLOCK]; dim];
                            lists.block(list, place / BLOCK, &mut block);
                            assert!(block.iter().zip(&code).all(|(b, &c)| b[place % BLOCK] == c), "{form:?} {dim}");
                        }
                        let slot = lists.starts[list] + place as u32;
                        assert_eq!((lists.place(slot), lists.position(slot)), ((list, place), p));
                        seen += 1;
                    }
                }
                assert_eq!(seen, rows);
                lists.retain(|p| (p % 2 == 0).then_some(p / 2));
                assert!(lists.lists.iter().flat_map(|l| &l.positions).all(|&p| (3..21).contains(&p)));
            }
        }
    }

    #[test]
    fn words_have_no_bit_to_spare() {
        for (bits, words) in [(1, 4), (2, 8), (3, 12), (4, 16), (5, 20), (6, 24), (7, 28), (8, 32)] {
            assert_eq!(Form::Integers(bits).words(128), words);
        }
        assert_eq!(Form::Parts(4).words(32), 4);
        assert_eq!(Form::Parts(8).words(5), 2);
        assert_eq!(Form::Rows(DType::F16).words(5), 3);
    }
}
