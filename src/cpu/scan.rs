//! `scan`: the rows of the probed lists with the smallest keys.
//!
//! A batch goes through the lists, not through the queries: a list is read once and multiplied with all queries that
//! probe it. A query's nearest lists give a threshold for the rest, so that few keys of those leave the registers. Few
//! queries go through their lists nearest first.

use std::ops::Range;

use super::select_k::{TopK, merge};
use super::{CpuEngine, Scratch};
use crate::compute::{Candidates, EngineError, Mask};
use crate::ops::lists::Probes;
use crate::ops::scan::Listed;
use crate::simd::lists::{Asked, Sink, prefetch, scan};
use crate::stats::SearchStats;

/// Queries from which on a batch is worth sorting by list.
const BATCH: usize = 8;

/// Pairs of query and list of an item of work.
const PAIRS_PER_ITEM: usize = 64;

impl CpuEngine {
    /// The `keep` smallest keys of each query in the lists probed for it, and their slots.
    pub(super) fn scan(
        &self,
        listed: &Listed<'_>,
        keep: usize,
        stats: &mut SearchStats,
    ) -> Result<Candidates, EngineError> {
        let (q, width) = (listed.queries.queries, listed.probes.width);
        let mut out = Candidates::places(q, keep)?;
        if q == 0 || keep == 0 || width == 0 {
            return Ok(out);
        }
        if q < BATCH {
            self.scan_pairs(listed, &Pairs::by_rank(&listed.probes, q), &mut out)?;
        } else {
            let first = self.first_probes(listed, keep);
            let lists = listed.lists.lists.len();
            self.scan_pairs(listed, &Pairs::by_list(&listed.probes, q, lists, 0..first), &mut out)?;
            if first < width {
                self.scan_pairs(listed, &Pairs::by_list(&listed.probes, q, lists, first..width), &mut out)?;
            }
        }
        let probed = listed.probes.lists.iter().filter(|&&l| l != u32::MAX);
        let rows: u64 = probed.map(|&l| listed.lists.lists[l as usize].len() as u64).sum();
        stats.scanned += rows;
        stats.bytes_read += rows * 4 * listed.lists.form.words(listed.lists.dim) as u64;
        Ok(out)
    }

    /// How many lists of each query are scanned before the rest: as many as fill its places, on average.
    fn first_probes(&self, listed: &Listed<'_>, keep: usize) -> usize {
        let mean = listed.lists.rows().div_ceil(listed.lists.lists.len().max(1)).max(1);
        (2 * keep).div_ceil(mean).clamp(1, listed.probes.width)
    }

    /// Scans for these pairs and merges their results with those in `out`.
    fn scan_pairs(&self, listed: &Listed<'_>, pairs: &Pairs, out: &mut Candidates) -> Result<(), EngineError> {
        let (q, keep, lists) = (listed.queries.queries, out.width, listed.lists);
        let parts = lists.form.padded(lists.dim);
        let work: usize = pairs.spans.iter().map(|s| lists.lists[s.list as usize].len() * s.asked.len() * parts).sum();
        let prepare = |s: &mut Scratch| {
            s.reset_lists(q, keep);
            for (list, (threshold, keys)) in s.lists.iter_mut().zip(s.thresholds.iter_mut().zip(out.keys.chunks(keep)))
            {
                *threshold = keys[keep - 1];
                list.only_below(*threshold);
            }
        };
        let scratch = self.spread(self.workers(work), pairs.items(), prepare, |s, spans: &[Span]| {
            let Scratch { lists: best, thresholds, blocks, .. } = s;
            for (i, span) in spans.iter().enumerate() {
                if let Some(next) = spans.get(i + 1) {
                    prefetch(self.token, lists, next.list as usize);
                }
                let number = span.list as usize;
                let positions = &lists.lists[number].positions;
                let mut sink = Best { best, thresholds, mask: listed.mask, positions, first: lists.starts[number] };
                let asked = &pairs.asked[span.asked.clone()];
                let metric = listed.metric;
                scan(self.token, metric, (lists, number), listed.queries, asked, blocks, &mut sink);
            }
        })?;
        merge(self, &scratch, 0, q, out)?;
        self.keep(scratch);
        Ok(())
    }
}

/// The best of each query so far.
struct Best<'a> {
    best: &'a mut [TopK],
    thresholds: &'a mut [f32],
    mask: Option<Mask<'a>>,
    positions: &'a [u32],
    /// The slot of the list's first row.
    first: u32,
}

impl Sink for Best<'_> {
    #[inline(always)]
    fn threshold(&self, query: u32) -> f32 {
        self.thresholds[query as usize]
    }

    #[inline(always)]
    fn take(&mut self, query: u32, place: usize, key: f32) {
        let query = query as usize;
        if self.mask.is_some_and(|m| !m.allows(query, self.positions[place] as usize)) {
            return;
        }
        if self.best[query].push(key, self.first + place as u32) {
            self.thresholds[query] = self.best[query].threshold();
        }
    }
}

/// A list and the queries it is scanned for.
struct Span {
    list: u32,
    asked: Range<usize>,
}

/// Pairs of query and list.
struct Pairs {
    asked: Vec<Asked>,
    spans: Vec<Span>,
}

impl Pairs {
    /// The nearest list of each query, then the second, and so on.
    fn by_rank(probes: &Probes<'_>, queries: usize) -> Pairs {
        let mut pairs = Pairs { asked: Vec::new(), spans: Vec::new() };
        for rank in 0..probes.width {
            for query in 0..queries {
                let at = query * probes.width + rank;
                if probes.lists[at] != u32::MAX {
                    let asked = pairs.asked.len();
                    pairs.asked.push(Asked { query: query as u32, offset: probes.offsets[at] });
                    pairs.spans.push(Span { list: probes.lists[at], asked: asked..asked + 1 });
                }
            }
        }
        pairs
    }

    /// The lists of these ranks, each with all queries that probe it.
    fn by_list(probes: &Probes<'_>, queries: usize, lists: usize, ranks: Range<usize>) -> Pairs {
        let mut ends = vec![0usize; lists + 1];
        let at = |query: usize| query * probes.width + ranks.start..query * probes.width + ranks.end;
        for query in 0..queries {
            for &list in probes.lists[at(query)].iter().filter(|&&l| l != u32::MAX) {
                ends[list as usize + 1] += 1;
            }
        }
        for list in 0..lists {
            ends[list + 1] += ends[list];
        }
        let mut asked = vec![Asked { query: 0, offset: 0.0 }; ends[lists]];
        let starts = ends.clone();
        for query in 0..queries {
            for i in at(query).filter(|&i| probes.lists[i] != u32::MAX) {
                let end = &mut ends[probes.lists[i] as usize];
                asked[*end] = Asked { query: query as u32, offset: probes.offsets[i] };
                *end += 1;
            }
        }
        let span = |list: usize| Span { list: list as u32, asked: starts[list]..ends[list] };
        Pairs { asked, spans: (0..lists).map(span).filter(|s| !s.asked.is_empty()).collect() }
    }

    /// Spans in runs of about [`PAIRS_PER_ITEM`] pairs; of so few that there is something for every thread where there are few.
    fn items(&self) -> impl Iterator<Item = &[Span]> + Send {
        let item = (self.asked.len() / 16).clamp(1, PAIRS_PER_ITEM);
        let mut rest = &self.spans[..];
        std::iter::from_fn(move || {
            let first = rest.first()?;
            let end = rest.iter().take_while(|s| s.asked.start < first.asked.start + item).count().max(1);
            let (run, left) = rest.split_at(end);
            rest = left;
            Some(run)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::{Output, Tag};
    use crate::cpu::{CpuOptions, Level};
    use crate::ops::lists::{Encoded, Form, Lists, Prepared, Terms};
    use crate::ops::run;
    use crate::ops::scan::reference;
    use crate::random::Random;
    use crate::types::{DType, Metric};

    struct Numbers(Random);

    impl Numbers {
        fn next(&mut self) -> u32 {
            (self.0.next() >> 33) as u32
        }
        fn float(&mut self) -> f32 {
            self.0.below(2001) as f32 / 1000.0 - 1.0
        }
    }

    fn lists_of(form: Form, dim: usize, lengths: &[usize], scaled: bool, random: &mut Numbers) -> Lists {
        let mut lists = Lists::new(form, dim, lengths.len());
        let rows = lengths.iter().sum();
        let bits = if let Form::Integers(b) | Form::Parts(b) = form { b } else { 8 };
        let mut codes: Vec<u8> =
            (0..rows * lists.code_bytes()).map(|_| (random.next() >> 8) as u8 >> (8 - bits)).collect();
        if let Form::Rows(dtype) = form {
            let size = dtype.row_bytes(1);
            for number in codes.chunks_mut(size) {
                let x = random.float();
                match dtype {
                    DType::F32 => number.copy_from_slice(&x.to_le_bytes()),
                    DType::F16 => number.copy_from_slice(&half::f16::from_f32(x).to_le_bytes()),
                    _ => number.copy_from_slice(&half::bf16::from_f32(x).to_le_bytes()),
                }
            }
        }
        if form == Form::Bits && !dim.is_multiple_of(8) {
            let bytes = lists.code_bytes();
            codes.chunks_mut(bytes).for_each(|c| c[bytes - 1] &= (1 << (dim % 8)) - 1);
        }
        let add = if form.is_exact() { Vec::new() } else { (0..rows).map(|_| random.float()).collect() };
        let scale = if scaled { (0..rows).map(|_| random.float()).collect() } else { Vec::new() };
        let to: Vec<u32> = lengths.iter().enumerate().flat_map(|(l, &n)| vec![l as u32; n]).collect();
        lists.append(&Encoded { codes, add, scale, ..Encoded::default() }, &to, 0);
        lists
    }

    fn prepared(lists: &Lists, queries: usize, random: &mut Numbers) -> Prepared {
        let (form, dim) = (lists.form, lists.dim);
        let padded = form.padded(dim);
        let mut p = Prepared { queries, ..Prepared::default() };
        for _ in 0..queries {
            match form {
                Form::Integers(_) => {
                    p.integers.extend((0..padded).map(|i| if i < dim { (random.next() % 255) as i8 } else { 0 }))
                }
                Form::Parts(_) => p.tables.extend(
                    (0..padded * form.entries())
                        .map(|i| if i < dim * form.entries() { (random.next() >> 7) as u8 } else { 0 }),
                ),
                Form::Rows(_) => p.floats.extend((0..dim).map(|_| random.float())),
                Form::Bits => p.bits.extend((0..form.words(dim)).map(|w| {
                    let left = dim - 32 * w;
                    if left >= 32 { random.next() } else { random.next() & ((1 << left) - 1) }
                })),
            }
            if !form.is_exact() {
                p.terms.push(Terms { scale: 1e-3 * random.float(), shift: random.float() });
            }
        }
        p
    }

    #[test]
    fn every_form_and_level_finds_what_the_reference_finds() {
        let mut random = Numbers(Random::new(7));
        let lengths = [0, 1, 15, 16, 17, 130, 64, 33];
        let forms = (1..=8).map(Form::Integers).chain([Form::Parts(4), Form::Parts(8), Form::Bits]);
        let rows = [DType::F32, DType::F16, DType::Bf16].map(Form::Rows);
        for (form, scaled) in forms.chain(rows).flat_map(|f| [(f, false), (f, true)]) {
            for (dim, queries) in [(1, 1), (37, 3), (64, 40)] {
                let lists = lists_of(form, dim, &lengths, scaled && !form.is_exact(), &mut random);
                let prepared = prepared(&lists, queries, &mut random);
                let width = 7;
                // Each list once per query; one place is empty.
                let probed: Vec<u32> = (0..queries * width)
                    .map(|i| if i % width == 3 { u32::MAX } else { ((i / width + i % width) % lengths.len()) as u32 })
                    .collect();
                let offsets: Vec<f32> = probed.iter().map(|_| random.float()).collect();
                let probes = Probes { width, lists: &probed, offsets: &offsets };
                let words = lists.rows().div_ceil(32);
                let allowed: Vec<u32> = (0..words).map(|_| random.next() | random.next() << 8).collect();
                let mask = (dim == 37).then_some(Mask { words: &allowed, stride: 0, tag: None });
                for keep in [1, 9, 300] {
                    let wanted = reference(Metric::L2, &lists, &prepared, &probes, mask, keep);
                    for level in Level::available() {
                        let engine = CpuEngine::new(CpuOptions { threads: Some(2), level: Some(level) });
                        let (metric, tag) = (Metric::L2, Tag::new());
                        let listed = Listed { metric, lists: &lists, tag: &tag, queries: &prepared, probes, mask };
                        let (program, inputs) = listed.program(keep).unwrap();
                        let answer = run(&engine, &program, &inputs, &mut SearchStats::default());
                        let Ok(Output::Candidates(found)) = answer else { panic!() };
                        for (q, wanted) in wanted.iter().enumerate() {
                            let what = format!("{form} scaled {scaled} dim {dim} query {q} keep {keep} {level:?}");
                            let keys = &found.keys[q * keep..(q + 1) * keep];
                            let slots = &found.positions[q * keep..(q + 1) * keep];
                            assert_eq!(slots.iter().filter(|&&s| s != u32::MAX).count(), wanted.len(), "{what}");
                            for (i, &(key, _)) in wanted.iter().enumerate() {
                                assert!(
                                    (keys[i] - key).abs() <= 1e-4 * (1.0 + key.abs()),
                                    "{what}: {i} {} {key}",
                                    keys[i]
                                );
                            }
                            let mut distinct: Vec<u32> = slots.to_vec();
                            distinct.retain(|&s| s != u32::MAX);
                            distinct.sort_unstable();
                            distinct.dedup();
                            assert_eq!(distinct.len(), wanted.len(), "{what}");
                        }
                    }
                }
            }
        }
    }
}
