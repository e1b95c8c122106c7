//! Lists of random codes for workloads of `scan`.

use crate::compute::Tag;
use crate::ops::lists::{Encoded, Form, Lists, Prepared, Probes, Terms};
use crate::ops::scan;
use crate::ops::scan::Listed;
use crate::random::Random;
use crate::types::Metric;

/// Lists, and queries that probe some of them.
pub(super) struct Packed {
    lists: Lists,
    queries: Prepared,
    width: usize,
    probes: Vec<u32>,
    offsets: Vec<f32>,
    tag: Tag,
}

impl Packed {
    /// Random codes for rows of `dim` components: one part each, or one table for four.
    pub(super) fn new(form: Form, (queries, rows, dim): (usize, usize, usize), probes: usize, count: usize) -> Packed {
        let (bits, dim) = match form {
            Form::Integers(bits) => (bits, dim),
            Form::Parts(bits) => (bits, dim.div_ceil(4)),
            _ => (8, dim),
        };
        let mut random = Random::new(1);
        let mut random = || random.next() >> 33;
        let mut lists = Lists::new(form, dim, count);
        let codes = (0..rows * lists.code_bytes()).map(|_| random() as u8 >> (8 - bits)).collect();
        let numbers = vec![1.0; rows];
        let encoded = Encoded { codes, add: numbers.clone(), scale: numbers, ..Encoded::default() };
        let to: Vec<u32> = (0..rows).map(|_| (random() % count.max(1) as u64) as u32).collect();
        lists.append(&encoded, &to, 0);
        let width = probes.min(count);
        // A query probes lists that follow one another, as near ones do once lists are sorted.
        let first: Vec<u64> = (0..queries).map(|_| random()).collect();
        let probe = |i: usize| ((first[i / width] + (i % width) as u64) % count as u64) as u32;
        let (padded, entries) = (form.padded(dim), form.entries());
        let inside = |i: usize| i % padded < dim;
        let mut prepared = Prepared { queries, ..Prepared::default() };
        prepared.terms = vec![Terms { scale: 0.01, shift: 1.0 }; queries];
        match form {
            Form::Parts(_) => prepared.tables = (0..queries * padded * entries).map(|_| random() as u8).collect(),
            _ => {
                let number = |i| if inside(i) { random() as i8 } else { 0 };
                prepared.integers = (0..queries * padded).map(number).collect();
            }
        }
        Packed {
            lists,
            queries: prepared,
            width,
            probes: (0..queries * width).map(probe).collect(),
            offsets: vec![0.0; queries * width],
            tag: Tag::new(),
        }
    }

    /// Whether these are such lists.
    pub(super) fn is_for(&self, form: Form, probes: usize, lists: usize) -> bool {
        (self.lists.form, self.width, self.lists.lists.len()) == (form, probes.min(lists), lists)
    }

    pub(super) fn listed(&self) -> Listed<'_> {
        let probes = Probes { width: self.width, lists: &self.probes, offsets: &self.offsets };
        Listed { metric: Metric::L2, lists: &self.lists, tag: &self.tag, queries: &self.queries, probes, mask: None }
    }

    /// Bytes of the lists that are probed at all.
    pub(super) fn bytes(&self) -> u64 {
        let mut probed = self.probes.clone();
        probed.sort_unstable();
        probed.dedup();
        let lists = probed.iter().filter_map(|&l| self.lists.lists.get(l as usize));
        // Code and two numbers.
        lists.map(|list| 4 * (list.words.len() + 2 * list.len()) as u64).sum()
    }

    /// The smallest key of the first query.
    pub(super) fn first_key(&self) -> f64 {
        let one = Prepared { queries: 1, ..self.queries.clone() };
        let probes = self.listed().probes;
        let found = scan::reference(Metric::L2, &self.lists, &one, &probes, None, 1);
        found.first().and_then(|found| found.first()).map_or(f64::NAN, |pair| f64::from(pair.0))
    }
}
