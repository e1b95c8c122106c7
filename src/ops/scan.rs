//! `scan`: the rows of the probed lists with the smallest keys ([`lists`](super::lists) says what a key is).
//!
//! Shapes: lists of packed codes; `[q, width]` probed lists and offsets; queries prepared for the form. Out:
//! `[q, keep]` keys and slots, smallest (key, slot) first. Error: the sum S is exact, and the key is evaluated in f32 in
//! any order; keys of exact forms err as [`metric::tolerance`](super::metric::tolerance) says.
//!
//! On a GPU a list is cut into items of [`ITEM_ROWS`] rows for up to [`ITEM_QUERIES`] queries each, one workgroup per item:
//! it keeps the `keep` smallest keys of the item for each query, and what all items of a query have kept is selected from
//! by [`select_k`](super::select_k). A row is read and unpacked once for four queries. 1-bit codes of 128 components: 24
//! bytes and 32 integer dot products per query. An H200 (4.8 TB/s, about 14 T dot products of four bytes per second) reads 0.2
//! T rows per second and multiplies 0.4 T rows and queries: bound by arithmetic from two queries per list on. An M3 Max
//! (400 GB/s, at best 1.8 T such products in plain multiplications) reads 17 G rows and multiplies 55 G: from four on.

use std::fmt;
use std::ops::Range;

use super::lists::{BLOCK, Form, List, Lists, MOST_BITS, Prepared, Probes, estimate, floats, sum};
use super::source::{dtype_code, lib, metric_code};
use super::{
    Access, Binding, Cost, Define, DeviceCaps, Kernel, Launch, Mask, Program, Variant, distance, metric, mismatch, tile,
};
use crate::compute::{EngineError, Frame, Input, Tag, Type, Value};
use crate::types::{DType, Metric};

/// The `keep` rows with the smallest keys in the probed lists of each query; gives candidates whose positions are slots of
/// the lists.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// Which distance, where the form is exact.
    pub metric: Metric,
    /// The lists.
    pub lists: Value,
    /// The queries as the lists' form takes them.
    pub queries: Value,
    /// Where to look.
    pub probes: Value,
    /// Which positions may be returned; all when absent.
    pub mask: Option<Value>,
    /// Candidates kept per query, at least 1.
    pub keep: usize,
    /// What the codes of the lists consist of.
    pub form: Form,
    /// Lists probed per query, and lists there are.
    pub share: (usize, usize),
}

/// The operands of a [`Scan`] in a run.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Which distance, where the form is exact.
    pub metric: Metric,
    /// Codes of rows.
    pub lists: &'a Lists,
    /// A name for the lists, by which an engine may keep a copy of them.
    pub tag: &'a Tag,
    /// The queries as the lists' form takes them.
    pub queries: &'a Prepared,
    /// Where to look.
    pub probes: Probes<'a>,
    /// Which positions may be returned; all when absent.
    pub mask: Option<Mask<'a>>,
}

impl Scan {
    /// The operands of a run.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] where a value was not made.
    pub fn of<'a>(&self, frame: &'a Frame<'_>) -> Result<Listed<'a>, EngineError> {
        let (lists, tag) = frame.lists(self.lists)?;
        let (queries, probes) = (frame.prepared(self.queries)?, frame.probes(self.probes)?);
        let mask = self.mask.map(|mask| frame.mask(mask)).transpose()?;
        Ok(Listed { metric: self.metric, lists, tag, queries, probes, mask })
    }
}

impl Scan {
    /// Places of all lists, and queries.
    pub fn extent(&self, program: &Program) -> (usize, usize) {
        match (program.ty(self.lists), program.ty(self.queries)) {
            (Ok(&Type::Lists { slots, .. }), Ok(&Type::Prepared { queries })) => (slots, queries),
            _ => (0, 0),
        }
    }
}

impl fmt::Display for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (probes, lists) = self.share;
        write!(f, "scan({}, {probes} of {lists} lists, keep {})", self.form, self.keep)
    }
}

impl Define for Scan {
    const NAME: &'static str = "scan";

    fn operands(&self, each: &mut dyn FnMut(Value)) {
        [self.lists, self.queries, self.probes].into_iter().chain(self.mask).for_each(each);
    }

    fn check(&self, program: &Program) -> Result<Type, EngineError> {
        let (lists, queries, probes) = (program.ty(self.lists)?, program.ty(self.queries)?, program.ty(self.probes)?);
        match (lists, queries, probes) {
            (&Type::Lists { form, .. }, &Type::Prepared { queries }, &Type::Probes { queries: of_probes, width })
                if form == self.form && (queries == of_probes || width == 0) =>
            {
                Ok(Type::Candidates { queries, width: self.keep })
            }
            _ => Err(mismatch(format!("{queries} in {probes} of {lists} can't be scanned as {}", self.form))),
        }
    }

    fn examine(&self, frame: &Frame<'_>) -> Result<(), EngineError> {
        self.of(frame)?.check()
    }

    fn cost(&self, program: &Program) -> Cost {
        match (program.ty(self.lists), program.ty(self.queries)) {
            (Ok(&Type::Lists { form, dim, slots, .. }), Ok(&Type::Prepared { queries })) => {
                let (probes, lists) = self.share;
                let share = probes.min(lists) as f64 / lists.max(1) as f64;
                cost(form, dim, slots as f64 * queries as f64 * share, queries, self.keep)
            }
            _ => Cost::default(),
        }
    }
}
impl<'a> Listed<'a> {
    /// A scan alone, with its inputs.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] where the parts do not fit together.
    pub fn program(&self, keep: usize) -> Result<(Program, Vec<Input<'a>>), EngineError> {
        let (mut program, mut inputs) = (Program::new(), Vec::with_capacity(4));
        let mut input = |program: &mut Program, input: Input<'a>| {
            inputs.push(input);
            Ok::<_, EngineError>(program.input(input.ty()?))
        };
        let lists = input(&mut program, Input::Lists(self.lists, self.tag))?;
        let queries = input(&mut program, Input::Prepared(self.queries))?;
        let probes = input(&mut program, Input::Probes(self.probes))?;
        let mask = self.mask.map(|mask| input(&mut program, Input::Mask(mask))).transpose()?;
        let share = (self.probes.width, self.lists.lists.len());
        let (metric, form) = (self.metric, self.lists.form);
        let found = program.push(Scan { metric, lists, queries, probes, mask, keep, form, share })?;
        program.output(found);
        Ok((program, inputs))
    }
}

impl Listed<'_> {
    /// Whether everything fits together, so that nothing is read past an end; `rising` positions are believed.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] says what was found and wanted.
    pub fn check(&self) -> Result<(), EngineError> {
        let wrong = |what: &str, found: usize, wanted: usize| {
            Err(EngineError::Mismatch(format!("{what}: found {found}, wanted {wanted}")))
        };
        let (lists, probes, queries) = (self.lists, &self.probes, self.queries);
        let (q, form) = (queries.queries, lists.form);
        let (words, padded) = (form.words(lists.dim), form.padded(lists.dim));
        let known = match form {
            Form::Integers(bits) => (1..=MOST_BITS).contains(&bits) && padded <= MOST_PARTS,
            Form::Parts(bits) => (bits == 4 || bits == 8) && padded <= MOST_PARTS,
            Form::Rows(DType::F32 | DType::F16 | DType::Bf16) => self.metric.supports(DType::F32),
            Form::Rows(_) => false,
            Form::Bits => true,
        };
        if !known || lists.dim == 0 {
            return Err(EngineError::Mismatch(format!("no scan of {form} of {} parts by {}", lists.dim, self.metric)));
        }
        if lists.starts.len() != lists.lists.len() + 1 {
            return wrong("starts of lists", lists.starts.len(), lists.lists.len() + 1);
        }
        let numbers = match form {
            Form::Integers(_) => ("integers of queries", queries.integers.len(), q * padded),
            Form::Parts(_) => ("entries of tables", queries.tables.len(), q * padded * form.entries()),
            Form::Rows(_) => ("components of queries", queries.floats.len(), q * lists.dim),
            Form::Bits => ("words of queries", queries.bits.len(), q * words),
        };
        let terms = if form.is_exact() { 0 } else { q };
        let probed = q * probes.width;
        for (what, found, wanted) in [
            ("probed lists", probes.lists.len(), probed),
            ("offsets of probed lists", probes.offsets.len(), probed),
            numbers,
            ("terms of queries", queries.terms.len().min(terms), terms),
        ] {
            if found != wanted {
                return wrong(what, found, wanted);
            }
        }
        let mut end = 0;
        for &number in probes.lists.iter().filter(|&&l| l != u32::MAX) {
            let Some(list) = lists.lists.get(number as usize) else {
                return wrong("a list's number, below", number as usize, lists.lists.len());
            };
            let slots = list.len().next_multiple_of(BLOCK);
            let at = number as usize;
            if lists.starts[at + 1].checked_sub(lists.starts[at]) != Some(slots as u32) {
                return wrong("slots of a list", lists.starts[at + 1].wrapping_sub(lists.starts[at]) as usize, slots);
            }
            if list.words.len() != slots * words {
                return wrong("words of a list", list.words.len(), slots * words);
            }
            end = end.max(list.positions.last().map_or(0, |&p| p as usize + 1));
        }
        match self.mask {
            Some(mask) if q > 0 => {
                let wanted = end.div_ceil(32) + (q - 1) * mask.stride;
                let short = mask.words.len() < wanted || (mask.stride > 0 && mask.stride < end.div_ceil(32));
                if short { wrong("words of a mask, at least", mask.words.len(), wanted) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }
}

crate::params! {
    /// What `shaders/scan.wgsl` reads.
    Params {
        /// First item of the work list.
        item_begin: u32,
        /// The item after the last.
        item_end: u32,
        /// Words of a row's code.
        code_words: u32,
        /// Words of a row, its numbers and its position included; the position is the last.
        row_words: u32,
        /// The word that is added to a key; 0: there is none.
        add_at: u32,
        /// The word that a query's part of the key is multiplied by; 0: there is none.
        scale_at: u32,
        /// Units of 16 bytes that a row is multiplied in.
        units: u32,
        /// Parts of a code, those that fill up its last word included.
        parts: u32,
        /// Units of 16 bytes from query to query.
        query_stride: u32,
        /// Keys of an item that must not be left out.
        keep: u32,
        /// Places of an item for each query.
        places: u32,
        /// 1 when the mask is to be read.
        has_mask: u32,
        /// Words of the mask from query to query; 0 when all share one.
        mask_stride: u32,
        /// High part of P in `lp:P`.
        power: f32,
        /// Low part of P.
        power_low: f32,
    }
}

/// Most rows of an item.
pub const ITEM_ROWS: u32 = 512;
/// Most queries of an item.
pub const ITEM_QUERIES: u32 = 4;
/// Most parts of an integer code: sums of products of longer ones would not fit in 32 bits with any certainty.
pub const MOST_PARTS: usize = 1 << 16;

/// How rows lie on a device: in blocks as in the lists, but the words of a block are followed by what belongs to its rows
/// and by their positions, so that one buffer holds all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// What codes consist of.
    pub form: Form,
    /// Parts of a code.
    pub dim: usize,
    /// Whether rows have something to add.
    pub add: bool,
    /// Whether rows have a scale.
    pub scale: bool,
}

impl Layout {
    /// Of these lists.
    pub fn of(lists: &Lists) -> Layout {
        let terms = !lists.form.is_exact();
        let some = |has: fn(&List) -> bool| terms && lists.lists.iter().any(has);
        Layout {
            form: lists.form,
            dim: lists.dim,
            add: some(|l| !l.add.is_empty()),
            scale: some(|l| !l.scale.is_empty()),
        }
    }

    /// Words of a row.
    pub fn row_words(&self) -> usize {
        self.form.words(self.dim) + usize::from(self.add) + usize::from(self.scale) + 1
    }

    /// Words behind the last row that a kernel may read.
    pub fn slack(&self) -> usize {
        8 * BLOCK
    }

    /// Writes the block of rows from `place` on of a list, which has whole blocks of words.
    pub fn pack(&self, list: &List, place: usize, target: &mut [u32]) {
        let words = self.form.words(self.dim) * BLOCK;
        let first = place / BLOCK * words;
        let (code, rest) = target.split_at_mut(words);
        code.copy_from_slice(&list.words[first..first + words]);
        let numbers = [(self.add, &list.add, 0.0f32), (self.scale, &list.scale, 1.0)];
        let mut rest = rest.chunks_mut(BLOCK);
        for (_, from, missing) in numbers.into_iter().filter(|(has, ..)| *has) {
            let Some(target) = rest.next() else { return };
            for (i, word) in target.iter_mut().enumerate() {
                *word = from.get(place + i).copied().unwrap_or(missing).to_bits();
            }
        }
        let Some(target) = rest.next() else { return };
        for (i, word) in target.iter_mut().enumerate() {
            *word = list.positions.get(place + i).copied().unwrap_or(u32::MAX);
        }
    }

    /// Units of 16 bytes that a row is multiplied in.
    fn units(&self) -> usize {
        match self.form {
            // Two at a time.
            Form::Integers(_) => self.form.padded(self.dim).div_ceil(32) * 2,
            Form::Parts(_) => self.form.padded(self.dim) * self.form.entries() / 16,
            Form::Rows(_) => self.dim.div_ceil(4),
            Form::Bits => self.form.words(self.dim).div_ceil(4),
        }
    }

    /// Units of 16 bytes of a query, its terms included.
    pub fn query_units(&self) -> usize {
        self.units() + 1
    }

    /// Writes query `q` as the kernel reads it: a unit of terms, then what the form multiplies.
    pub fn push_query(&self, queries: &Prepared, q: usize, target: &mut Vec<u32>) {
        let (start, padded) = (target.len(), self.form.padded(self.dim));
        let terms = queries.terms.get(q).copied().unwrap_or_default();
        target.extend([terms.scale.to_bits(), terms.shift.to_bits(), 0, 0]);
        match self.form {
            Form::Integers(bits) => {
                let integers = &queries.integers[q * padded..(q + 1) * padded];
                if bits == 8 {
                    target[start + 2] = (128 * integers.iter().map(|&w| i32::from(w)).sum::<i32>()) as u32;
                }
                push_bytes(bytemuck::cast_slice(integers), target);
            }
            Form::Parts(_) => {
                let bytes = padded * self.form.entries();
                push_bytes(&queries.tables[q * bytes..(q + 1) * bytes], target);
            }
            Form::Rows(_) => {
                let floats = &queries.floats[q * self.dim..(q + 1) * self.dim];
                let square: f64 = floats.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
                target[start] = (square.sqrt() as f32).to_bits();
                target.extend(floats.iter().map(|x| x.to_bits()));
            }
            Form::Bits => {
                let words = self.form.words(self.dim);
                target.extend(&queries.bits[q * words..(q + 1) * words]);
            }
        }
        target.resize(start + 4 * self.query_units(), 0);
    }
}

fn push_bytes(bytes: &[u8], target: &mut Vec<u32>) {
    for four in bytes.chunks(4) {
        let mut word = [0; 4];
        word[..four.len()].copy_from_slice(four);
        target.push(u32::from_le_bytes(word));
    }
}

/// A query that wants the rows of an item.
#[derive(Clone, Copy, Debug)]
pub struct Wanting {
    /// Which of the bound queries.
    pub query: u32,
    /// What belongs to the query and the list in the key.
    pub offset: f32,
    /// The first of its places in the results.
    pub to: u32,
}

/// Words of an item in the work list.
pub fn item_words(single: bool) -> usize {
    4 * (1 + if single { 1 } else { ITEM_QUERIES as usize })
}

/// Writes an item: `rows` rows that lie at `slot` of the bound words and at `first` in all lists, for 1 to
/// [`ITEM_QUERIES`] queries, or for one.
pub fn push_item(slot: u32, first: u32, rows: u32, wanting: &[Wanting], single: bool, target: &mut Vec<u32>) {
    let (start, words) = (target.len(), item_words(single));
    target.extend([slot, first, rows, 0]);
    for w in wanting {
        target.extend([w.query, w.offset.to_bits(), w.to, 1]);
    }
    // The four are filled up with the first query; its repeated keys are not wanted.
    let query = wanting.first().map_or(0, |w| w.query);
    while target.len() < start + words {
        target.extend([query, 0, 0, 0]);
    }
}

/// What one launch scans.
#[derive(Clone, Debug)]
pub struct Args {
    /// How rows lie.
    pub layout: Layout,
    /// Which distance, where the form is exact.
    pub metric: Metric,
    /// Whether items are of one query.
    pub single: bool,
    /// Items of the work list.
    pub items: Range<u32>,
    /// Keys of an item that must not be left out.
    pub keep: u32,
    /// Places of an item for each query: `keep` and some to spare, or the rows of an item.
    pub places: u32,
    /// Words of the mask from query to query (0: one for all); no mask when absent.
    pub mask: Option<u32>,
}

/// A good number of [`Args::places`] for items of at most `rows` rows: with some to spare, the selection often ends a round
/// sooner.
pub fn places(keep: usize, rows: u32) -> u32 {
    (keep + keep / 4 + 4).min(rows.max(1) as usize) as u32
}

const BINDINGS: &[Binding] = &[
    Binding { name: "words", ty: "array<u32>", access: Access::Read },
    distance::MASK,
    Binding { name: "queries", ty: "array<vec4<u32>>", access: Access::Read },
    Binding { name: "work", ty: "array<vec4<u32>>", access: Access::Read },
    Binding { name: "limits", ty: "array<atomic<u32>>", access: Access::ReadWrite },
    Binding { name: "out_keys", ty: "array<u32>", access: Access::ReadWrite },
    Binding { name: "out_positions", ty: "array<u32>", access: Access::ReadWrite },
];
const QUERIES: (&str, &[f64]) = ("QUERIES", &[ITEM_QUERIES as f64, 1.0]);

static INTEGERS: Kernel = Kernel {
    verb: "scan",
    entry: "scan_integers",
    wgsl: include_str!("../../shaders/scan/integers.wgsl"),
    libs: &[lib::ORDER, lib::SCAN],
    pairs: &[],
    bindings: BINDINGS,
    params: Params::FIELDS,
    variants: &[Variant::PLAIN],
    shapes: &[&[]],
    overrides: &[QUERIES, ("WIDTH", &[8.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])],
};

static PARTS: Kernel = Kernel {
    verb: "scan",
    entry: "scan_parts",
    wgsl: include_str!("../../shaders/scan/parts.wgsl"),
    libs: &[lib::ORDER, lib::SCAN],
    pairs: &[],
    bindings: BINDINGS,
    params: Params::FIELDS,
    variants: &[Variant::PLAIN],
    shapes: &[&[]],
    overrides: &[QUERIES, ("WIDTH", &[4.0, 8.0])],
};

static ROWS: Kernel = Kernel {
    verb: "scan",
    entry: "scan_rows",
    wgsl: include_str!("../../shaders/scan/rows.wgsl"),
    libs: &[lib::HALVES, lib::MATH, lib::ORDER, lib::METRIC, lib::SCAN],
    pairs: &[],
    bindings: BINDINGS,
    params: Params::FIELDS,
    variants: &[Variant::PLAIN],
    shapes: &[&[]],
    overrides: &[QUERIES, ("METRIC", distance::METRIC_CODES), ("DTYPE", &[0.0, 1.0, 2.0, 5.0])],
};

/// The entry points of the files in `shaders/scan/`, each with `shaders/scan.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![&INTEGERS, &PARTS, &ROWS]
}

/// One launch: each item writes its smallest keys, at least `keep` of them if it has so many, in no order, to its places
/// of both results. Buffers: words ([`Layout`]), mask by position (read when there is one), queries
/// ([`Layout::push_query`]), work list ([`push_item`]), limits (one per query, 0 before the first launch), keys, positions,
/// which are slots.
pub fn record(args: &Args, caps: &DeviceCaps) -> Launch {
    let layout = &args.layout;
    let code_words = layout.form.words(layout.dim) as u32;
    let (power, power_low) = tile::power(args.metric);
    let params = Params {
        item_begin: args.items.start,
        item_end: args.items.end,
        code_words,
        row_words: layout.row_words() as u32,
        add_at: if layout.add { code_words } else { 0 },
        scale_at: if layout.scale { code_words + u32::from(layout.add) } else { 0 },
        units: layout.units() as u32,
        parts: layout.form.padded(layout.dim) as u32,
        query_stride: layout.query_units() as u32,
        keep: args.keep,
        places: args.places,
        has_mask: args.mask.is_some().into(),
        mask_stride: args.mask.unwrap_or(0),
        power,
        power_low,
    };
    let rows = |metric: Metric, dtype: DType| {
        vec![("METRIC", metric_code(metric).into()), ("DTYPE", dtype_code(dtype).into())]
    };
    let (kernel, mut constants) = match layout.form {
        Form::Integers(bits) => (&INTEGERS, vec![("WIDTH", f64::from(bits))]),
        Form::Parts(bits) => (&PARTS, vec![("WIDTH", f64::from(bits))]),
        Form::Rows(dtype) => (&ROWS, rows(args.metric, dtype)),
        Form::Bits => (&ROWS, rows(Metric::Hamming, DType::Bits)),
    };
    constants.push(("QUERIES", if args.single { 1.0 } else { f64::from(ITEM_QUERIES) }));
    Launch {
        kernel,
        variant: Variant::PLAIN,
        constants,
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: [args.items.len().min(caps.max_groups as usize) as u32, 1, 1],
    }
}

/// Each code of each probed list is read once per query.
pub fn cost(form: Form, dim: usize, rows_scanned: f64, queries: usize, keep: usize) -> Cost {
    let bytes = 4.0 * form.words(dim) as f64 + 12.0;
    Cost {
        bytes_read: rows_scanned * bytes,
        bytes_written: (queries * keep * 8) as f64,
        operations: rows_scanned * 2.0 * form.padded(dim) as f64,
        launches: 1.0,
    }
}

/// The candidates of each query in f64 sums: `[q, keep]` (key, slot), smallest first, as many as there are.
pub fn reference(
    metric: Metric,
    lists: &Lists,
    queries: &Prepared,
    probes: &Probes<'_>,
    mask: Option<Mask<'_>>,
    keep: usize,
) -> Vec<Vec<(f32, u32)>> {
    let mut code = vec![0; lists.code_bytes()];
    let mut one = |q: usize| {
        let mut found = Vec::new();
        for i in (q * probes.width..(q + 1) * probes.width).filter(|&i| probes.lists[i] != u32::MAX) {
            let number = probes.lists[i] as usize;
            let list = &lists.lists[number];
            for (place, &position) in list.positions.iter().enumerate() {
                if mask.is_some_and(|m| !m.allows(q, position as usize)) {
                    continue;
                }
                lists.code(number, place, &mut code);
                let key = match lists.form {
                    Form::Rows(dtype) => rows_key(metric, dtype, lists.dim, &code, &queries.floats, q),
                    Form::Bits => bits_key(&code, &queries.bits, lists.form.words(lists.dim), q),
                    form => {
                        let sum = sum(form, lists.dim, &code, queries, q);
                        estimate(list, place, queries.terms[q], probes.offsets[i], sum)
                    }
                };
                found.push((key, lists.starts[number] + place as u32));
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        found.truncate(keep);
        found
    };
    (0..queries.queries).map(&mut one).collect()
}

fn rows_key(metric: Metric, dtype: DType, dim: usize, code: &[u8], queries: &[f32], q: usize) -> f32 {
    let row: Vec<f64> = floats(dtype, code).into_iter().map(f64::from).collect();
    let query: Vec<f64> = queries[q * dim..(q + 1) * dim].iter().map(|&x| f64::from(x)).collect();
    metric::key(metric, &query, &row) as f32
}

fn bits_key(code: &[u8], queries: &[u32], words: usize, q: usize) -> f32 {
    let query: &[u8] = bytemuck::cast_slice(&queries[q * words..(q + 1) * words]);
    code.iter().zip(query).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>() as f32
}
