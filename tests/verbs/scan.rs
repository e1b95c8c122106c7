//! `scan`: the smallest keys in the probed lists. Sums are exact, so keys are those of the reference up to the rounding of
//! one line of arithmetic, and exactly those where numbers are whole.

use crate::task::{Base, Input, Listed, Plan, Problem, Step, Task};
use half::{bf16, f16};
use nearfield::compute::{Candidates, EngineError, Mask, Output, Tag};
use nearfield::ops::lists::{Encoded, Form, Lists, Prepared, Probes, Terms};
use nearfield::ops::{metric, scan};
use nearfield::stats::SearchStats;
use nearfield::{DType, MatrixView, Metric, RowsView};

use crate::Subject;
use crate::check;
use crate::compare::{Check, candidates, pairs_of};
use crate::data::{Allow, Bits, Rng};

/// Whether numbers are whole and few, so that keys are exact and tie, or spread.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Numbers {
    Whole,
    Spread,
}

/// Lists, queries, and which lists each query probes.
struct Case {
    metric: Metric,
    numbers: Numbers,
    lists: Lists,
    tag: Tag,
    queries: Prepared,
    width: usize,
    probes: Vec<u32>,
    offsets: Vec<f32>,
}

fn float(dtype: DType, x: f32) -> Vec<u8> {
    match dtype {
        DType::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        DType::Bf16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    }
}

/// The code of a row.
fn code(form: Form, dim: usize, numbers: Numbers, rng: &mut Rng) -> Vec<u8> {
    let few = numbers == Numbers::Whole;
    match form {
        Form::Integers(bits) | Form::Parts(bits) => {
            (0..dim).map(|_| rng.below(if few { 2 } else { 256 }) as u8 >> if few { 0 } else { 8 - bits }).collect()
        }
        Form::Rows(dtype) => {
            (0..dim).flat_map(|_| float(dtype, if few { rng.below(3) as f32 } else { rng.normal() as f32 })).collect()
        }
        Form::Bits => {
            let mut bytes: Vec<u8> = (0..dim.div_ceil(8)).map(|_| rng.below(256) as u8).collect();
            if !dim.is_multiple_of(8)
                && let Some(last) = bytes.last_mut()
            {
                *last &= (1 << (dim % 8)) - 1;
            }
            bytes
        }
    }
}

/// So many prepared queries.
fn prepare(form: Form, dim: usize, queries: usize, numbers: Numbers, rng: &mut Rng) -> Prepared {
    let (padded, words, few) = (form.padded(dim), form.words(dim), numbers == Numbers::Whole);
    let mut prepared = Prepared { queries, ..Prepared::default() };
    for _ in 0..queries {
        match form {
            Form::Integers(_) => {
                let mut integer = |i| if i < dim { rng.below(if few { 5 } else { 255 }) as i32 } else { 0 };
                let low = if few { 2 } else { 127 };
                let all = (0..padded).map(|i| integer(i) - if i < dim { low } else { 0 });
                prepared.integers.extend(all.map(|w| w as i8));
            }
            Form::Parts(_) => {
                let entries = form.entries();
                let mut entry = |i| if i < dim * entries { rng.below(if few { 4 } else { 256 }) as u8 } else { 0 };
                prepared.tables.extend((0..padded * entries).map(&mut entry));
            }
            Form::Rows(_) => {
                let mut number = || if few { rng.below(3) as f32 } else { rng.normal() as f32 };
                prepared.floats.extend((0..dim).map(|_| number()));
            }
            Form::Bits => {
                let mut bit = |i: usize| u32::from(rng.below(2) == 1 && i < dim);
                let mut word = |w: usize| (0..32).fold(0, |bits, i| bits | (bit(32 * w + i) << i));
                prepared.bits.extend((0..words).map(&mut word));
            }
        }
        if !form.is_exact() {
            let (scale, shift) = if few { (1.0, 2.0) } else { (0.01 * rng.unit() as f32, rng.normal() as f32) };
            prepared.terms.push(Terms { scale, shift });
        }
    }
    prepared
}

impl Case {
    /// Appends so many rows to a list.
    fn append(&mut self, rows: usize, list: u32) {
        let mut rng = Rng::new(u64::from(list) * 10_000 + rows as u64);
        let (form, dim) = (self.lists.form, self.lists.dim);
        let codes = (0..rows).flat_map(|_| code(form, dim, self.numbers, &mut rng)).collect();
        let mut numbers = || (0..if form.is_exact() { 0 } else { rows }).map(|_| rng.unit() as f32 * 2.0).collect();
        let (add, scale) = (numbers(), numbers());
        let first = 5 + self.lists.rows() as u32;
        self.lists.append(&Encoded { codes, add, scale, ..Encoded::default() }, &vec![list; rows], first);
    }

    /// Lists of so many rows, all probed by every query in another order, with a place left out.
    fn new(metric: Metric, form: Form, dim: usize, lengths: &[usize], queries: usize, numbers: Numbers) -> Case {
        let mut rng = Rng::new((dim * 1000 + lengths.len() * 7 + queries) as u64);
        let rows: usize = lengths.iter().sum();
        let mut lists = Lists::new(form, dim, lengths.len());
        let codes = (0..rows).flat_map(|_| code(form, dim, numbers, &mut rng)).collect();
        let mut numbers_of_rows = |exact: bool| -> Vec<f32> {
            let one = |rng: &mut Rng| match numbers {
                Numbers::Whole => rng.below(3) as f32,
                Numbers::Spread => rng.unit() as f32 * 2.0,
            };
            if exact { Vec::new() } else { (0..rows).map(|_| one(&mut rng)).collect() }
        };
        let (add, scale) = (numbers_of_rows(form.is_exact()), numbers_of_rows(form.is_exact()));
        let mut to: Vec<u32> = lengths.iter().enumerate().flat_map(|(l, &n)| vec![l as u32; n]).collect();
        for i in (1..to.len()).rev() {
            to.swap(i, rng.below(i + 1));
        }
        lists.append(&Encoded { codes, add, scale, ..Encoded::default() }, &to, 5);
        let width = lengths.len() + 1;
        let probe = |i: usize| ((i + 3 * (i / width)) % width) as u32;
        let probes = (0..queries * width).map(probe).map(|l| if l as usize == lengths.len() { u32::MAX } else { l });
        let offset = |rng: &mut Rng| if numbers == Numbers::Whole { rng.below(3) as f32 } else { rng.normal() as f32 };
        Case {
            metric,
            numbers,
            tag: Tag::new(),
            queries: prepare(form, dim, queries, numbers, &mut rng),
            width,
            probes: probes.collect(),
            offsets: (0..queries * width).map(|_| offset(&mut rng)).collect(),
            lists,
        }
    }

    fn probes(&self) -> Probes<'_> {
        Probes { width: self.width, lists: &self.probes, offsets: &self.offsets }
    }

    fn label(&self) -> String {
        let lengths: Vec<usize> = self.lists.lists.iter().map(|l| l.len()).collect();
        format!(
            "scan of {} of {} parts, {}, {:?}, lists of {lengths:?}, {} queries",
            self.lists.form, self.lists.dim, self.metric, self.numbers, self.queries.queries
        )
    }

    fn try_run(&self, s: &Subject, mask: Option<Mask<'_>>, keep: usize) -> Result<Output, EngineError> {
        let nothing = MatrixView::new(&[] as &[f32], self.lists.dim).map(RowsView::F32).expect("no rows");
        let problem = Problem {
            metric: self.metric,
            dtype: DType::F32,
            dim: self.lists.dim,
            rows: self.lists.rows(),
            queries: self.queries.queries,
        };
        let plan = Plan::one(problem, Step::Scan { keep });
        let listed = Listed { lists: &self.lists, tag: &self.tag, queries: &self.queries, probes: self.probes() };
        let task = Task {
            plan: &plan,
            base: Base { rows: nothing, norms: None, tag: None, codes: None },
            queries: nothing,
            query_norms: &[],
            mask,
            input: Input::Lists(listed),
        };
        task.run(&*s.engine, &mut SearchStats::default())
    }

    /// How far a key may be from that of the reference.
    fn tolerance(&self, q: usize, slot: u32, key: f32) -> f64 {
        if self.numbers == Numbers::Whole && self.metric != Metric::Cosine || self.lists.form == Form::Bits {
            return 0.0;
        }
        let (list, place) = self.lists.place(slot);
        if let Form::Rows(dtype) = self.lists.form {
            let dim = self.lists.dim;
            let mut code = vec![0; self.lists.code_bytes()];
            self.lists.code(list, place, &mut code);
            let norm = |x: &[f32]| x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let (row, query) =
                (nearfield::ops::lists::floats(dtype, &code), &self.queries.floats[q * dim..(q + 1) * dim]);
            let exact = f64::from(key);
            return metric::tolerance(self.metric, dtype, dim, exact, norm(query), norm(&row)) + exact.abs() * 6e-8;
        }
        let list = &self.lists.lists[list];
        let add = list.add.get(place).map_or(0.0, |x| f64::from(x.abs()));
        let scale = list.scale.get(place).map_or(1.0, |x| f64::from(x.abs()));
        let terms = self.queries.terms[q];
        // A sum is no larger than this.
        let sum = 255.0 * 255.0 * self.lists.dim as f64 * f64::from(terms.scale.abs());
        let offset = self.offsets.iter().fold(0f32, |a, b| a.max(b.abs()));
        8.0 * f64::powi(2.0, -24) * (f64::from(offset) + add + scale * (sum + f64::from(terms.shift.abs())))
    }

    /// One query's candidates beside all that could have been.
    fn query_is_right(&self, q: usize, got: &Candidates, wanted: &[(f32, u32)], keep: usize) -> Check {
        let all = &got.positions[q * keep..(q + 1) * keep];
        let mut pairs = pairs_of(got, q);
        pairs.retain(|pair| pair.1 != u32::MAX);
        let filled = wanted.len().min(keep);
        check!(
            all.iter().take_while(|&&p| p != u32::MAX).count() == pairs.len(),
            "query {q}: an empty place before a filled one"
        );
        check!(
            pairs.len() <= filled,
            "query {q}: an empty place names slot {}, or one that is forbidden",
            pairs[filled.min(pairs.len() - 1)].1
        );
        let mut key_of: Vec<(u32, f32)> = wanted.iter().map(|&(key, slot)| (slot, key)).collect();
        key_of.sort_unstable_by_key(|pair| pair.0);
        let mut seen: Vec<u32> = pairs.iter().map(|pair| pair.1).collect();
        seen.sort_unstable();
        check!(seen.windows(2).all(|w| w[0] != w[1]), "query {q}: a slot twice");
        for (place, &(key, slot)) in pairs.iter().enumerate() {
            let found = key_of.binary_search_by_key(&slot, |pair| pair.0);
            check!(found.is_ok(), "query {q}, place {place}: slot {slot} is forbidden, empty or not probed");
            let exact = found.map_or(f32::NAN, |at| key_of[at].1);
            let tolerance = self.tolerance(q, slot, exact);
            check!(
                (f64::from(key) - f64::from(exact)).abs() <= tolerance,
                "query {q}, place {place}: the key of slot {slot} should be {exact}, it is {key}"
            );
            if tolerance == 0.0 && self.numbers == Numbers::Whole {
                check!(
                    (key, slot) == wanted[place],
                    "query {q}, place {place} should be {:?}, it is {:?}",
                    wanted[place],
                    (key, slot)
                );
            }
        }
        let in_order = |w: &[(f32, u32)]| w[0].0 < w[1].0 || (w[0].0 == w[1].0 && w[0].1 < w[1].1);
        check!(pairs.windows(2).all(in_order), "query {q}: not in order");
        check!(pairs.len() == filled, "query {q}: {filled} candidates wanted, {} found: some are missing", pairs.len());
        let Some(&(last, _)) = pairs.last() else { return Ok(()) };
        for &(key, slot) in &wanted[..filled] {
            let surely = f64::from(key) + 2.0 * self.tolerance(q, slot, key) < f64::from(last);
            check!(!surely || seen.binary_search(&slot).is_ok(), "query {q}: slot {slot} with key {key} is missing");
        }
        Ok(())
    }

    fn is_right(&self, s: &Subject, mask: Option<Mask<'_>>, keep: usize) -> Check {
        let got = candidates(self.try_run(s, mask, keep).map_err(|e| e.to_string())?)?;
        let q = self.queries.queries;
        check!(got.width == keep, "{keep} places per query wanted, {} found", got.width);
        check!(got.keys.len() == q * keep && got.positions.len() == q * keep, "{} places wanted", q * keep);
        let wanted = scan::reference(self.metric, &self.lists, &self.queries, &self.probes(), mask, usize::MAX);
        for (q, wanted) in wanted.iter().enumerate() {
            self.query_is_right(q, &got, wanted, keep)?;
            let empty = q * keep + wanted.len().min(keep)..(q + 1) * keep;
            check!(
                got.positions[empty.clone()].iter().all(|&p| p == u32::MAX)
                    && got.keys[empty].iter().all(|&k| k == f32::INFINITY),
                "query {q}: an empty place that does not look empty"
            );
        }
        Ok(())
    }

    #[track_caller]
    fn right(&self, s: &Subject, mask: Option<Mask<'_>>, keep: usize) {
        if let Err(e) = self.is_right(s, mask, keep) {
            panic!("{}, keep {keep}, on {}: {e}", self.label(), s.engine.name());
        }
    }
}

/// All forms with their metrics, or where each costs seconds of shader compilation, a chosen few.
fn forms(s: &Subject) -> Vec<(Form, Metric)> {
    let widths: &[u8] = if s.full { &[1, 2, 3, 4, 5, 6, 7, 8] } else { &[1, 4, 7, 8] };
    let mut all: Vec<(Form, Metric)> = widths.iter().map(|&bits| (Form::Integers(bits), Metric::L2)).collect();
    all.extend([(Form::Parts(4), Metric::L2), (Form::Parts(8), Metric::InnerProduct), (Form::Bits, Metric::Hamming)]);
    for (i, metric) in [Metric::L2, Metric::InnerProduct, Metric::Cosine].into_iter().enumerate() {
        for (j, dtype) in [DType::F32, DType::F16, DType::Bf16].into_iter().enumerate() {
            if s.full || i == j {
                all.push((Form::Rows(dtype), metric));
            }
        }
    }
    all
}

pub fn row_c3_every_form(s: &Subject) {
    for (form, metric) in forms(s) {
        for dim in [1, 33, 130] {
            for queries in [1, 6] {
                let case = Case::new(metric, form, dim, &[40, 0, 100, 17], queries, Numbers::Spread);
                case.right(s, None, 20);
                case.right(s, None, 200);
            }
        }
    }
}

pub fn row_c3_dims_at_word_edges(s: &Subject) {
    for (form, metric) in forms(s) {
        for dim in [3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 64, 65, 129, 300] {
            Case::new(metric, form, dim, &[20, 50], 3, Numbers::Spread).right(s, None, 11);
        }
    }
}

pub fn row_c3_list_lengths(s: &Subject) {
    let few = [(Form::Integers(4), Metric::L2), (Form::Parts(4), Metric::L2), (Form::Rows(DType::F32), Metric::L2)];
    for (form, metric) in few {
        for lengths in [&[0, 1, 15, 16, 17][..], &[1000], &[511, 512, 513], &[1, 0, 0, 1100, 31]] {
            for queries in [1, 5] {
                let case = Case::new(metric, form, 24, lengths, queries, Numbers::Whole);
                [1, 10, 100, 600].into_iter().for_each(|keep| case.right(s, None, keep));
            }
        }
    }
}

pub fn row_c3_every_keep(s: &Subject) {
    for queries in [1, 5] {
        let case = Case::new(Metric::L2, Form::Integers(8), 20, &[900, 300, 1700, 77], queries, Numbers::Spread);
        let n = case.lists.rows();
        for keep in [1, 2, 9, 100, 129, 511, 512, 513, 2048, n - 1, n, n + 5] {
            case.right(s, None, keep);
        }
    }
}

pub fn row_c3_ties(s: &Subject) {
    for (form, metric) in forms(s).into_iter().filter(|(_, metric)| *metric != Metric::Cosine) {
        for dim in [2, 9] {
            for queries in [1, 9] {
                let case = Case::new(metric, form, dim, &[700, 30, 0, 200], queries, Numbers::Whole);
                [1, 50, 400, 930].into_iter().for_each(|keep| case.right(s, None, keep));
            }
        }
    }
}

pub fn row_c9_filters(s: &Subject) {
    for (form, metric) in [(Form::Integers(1), Metric::L2), (Form::Rows(DType::F16), Metric::InnerProduct)] {
        for queries in [1, 7] {
            let case = Case::new(metric, form, 40, &[600, 50, 3], queries, Numbers::Spread);
            for allow in [Allow::Nothing, Allow::All, Allow::Half, Allow::One] {
                for per_query in [false, true] {
                    // Positions begin at 5.
                    let bits = Bits::new(allow, case.lists.rows() + 5, queries, per_query);
                    case.right(s, Some(bits.mask()), 10);
                    case.right(s, Some(bits.mask()), 300);
                }
            }
        }
    }
}

/// Some lists are wanted by most queries, some by one; queries differ in how many they probe.
pub fn row_c3_many_queries(s: &Subject) {
    for (form, metric) in [(Form::Integers(2), Metric::L2), (Form::Parts(8), Metric::L2)] {
        let lengths: Vec<usize> = (0..30).map(|i| i * 37 % 200).collect();
        let mut case = Case::new(metric, form, 48, &lengths, 61, Numbers::Spread);
        let mut rng = Rng::new(4);
        case.width = 5;
        case.probes.clear();
        for q in 0..61 {
            let mut lists: Vec<u32> = vec![29, 7, (q % 30) as u32, rng.below(30) as u32, rng.below(30) as u32];
            lists.sort_unstable();
            lists.dedup();
            lists.truncate(1 + rng.below(5));
            lists.resize(5, u32::MAX);
            case.probes.extend(lists);
        }
        case.offsets.truncate(61 * 5);
        [3, 64, 500].into_iter().for_each(|keep| case.right(s, None, keep));
    }
}

pub fn row_c8_changed_lists_are_seen(s: &Subject) {
    let mut case = Case::new(Metric::L2, Form::Integers(4), 16, &[50, 60], 3, Numbers::Spread);
    case.right(s, None, 10);
    case.right(s, None, 10);
    case.lists.retain(|p| (p % 3 > 0).then_some(p));
    case.tag.bump();
    case.right(s, None, 10);
    let one = Encoded { codes: vec![0; 16], add: vec![-9e3], scale: vec![0.0], ..Encoded::default() };
    case.lists.append(&one, &[1], 1000);
    case.right(s, None, 10);
}

/// Rows are appended within blocks and over their ends, to some lists and to new ones, under the same tag.
pub fn row_c1_appended_rows_are_seen(s: &Subject) {
    for form in [Form::Integers(8), Form::Parts(8), Form::Rows(DType::F32), Form::Bits] {
        let mut case = Case::new(Metric::L2, form, 32, &[700, 0, 16, 33, 900], 4, Numbers::Spread);
        case.right(s, None, 20);
        for (added, list) in [(1usize, 0u32), (15, 3), (40, 1), (600, 2), (3, 4), (1, 0)] {
            case.append(added, list);
            case.right(s, None, 20);
        }
    }
}

pub fn row_e7_empty(s: &Subject) {
    for form in [Form::Integers(8), Form::Rows(DType::F32)] {
        Case::new(Metric::L2, form, 8, &[0, 0], 3, Numbers::Spread).right(s, None, 4);
        Case::new(Metric::L2, form, 8, &[], 3, Numbers::Spread).right(s, None, 4);
        Case::new(Metric::L2, form, 8, &[20], 0, Numbers::Spread).right(s, None, 4);
        let mut case = Case::new(Metric::L2, form, 8, &[20, 5], 2, Numbers::Spread);
        case.probes.fill(u32::MAX);
        case.right(s, None, 4);
        (case.width, case.probes, case.offsets) = (0, Vec::new(), Vec::new());
        case.right(s, None, 4);
    }
}

pub fn wrong_shapes_are_errors(s: &Subject) {
    let make = || Case::new(Metric::L2, Form::Integers(4), 16, &[50, 60], 3, Numbers::Spread);
    type Spoil = fn(&mut Case);
    let spoils: [(&str, Spoil); 6] = [
        ("a list that is not there", |c| c.probes[1] = 2),
        ("fewer probes", |c| c.probes.truncate(c.probes.len() - 1)),
        ("fewer offsets", |c| c.offsets.truncate(c.offsets.len() - 1)),
        ("fewer integers", |c| c.queries.integers.truncate(c.queries.integers.len() - 1)),
        ("fewer terms", |c| c.queries.terms.truncate(c.queries.terms.len() - 1)),
        ("more queries", |c| c.queries.queries = 4),
    ];
    for (what, spoil) in spoils {
        let mut case = make();
        spoil(&mut case);
        let result = case.try_run(s, None, 5);
        assert!(matches!(result, Err(EngineError::Mismatch(_))), "{what}: {result:?}");
    }
}
