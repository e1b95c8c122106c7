//! The tiny case for scans of lists: small integers, for which the arithmetic of most forms is exact in f32, with ties,
//! forbidden rows, an empty list and one of two items.

use super::answer;
use crate::compute::{Candidates, EngineError, Mask, Output, Tag};
use crate::gpu::case::{Case, LIST_DIM as DIM};
use crate::gpu::machine::{Machine, Verdict};
use crate::ops::lists::{Encoded, Form, Lists, Prepared, Probes, Terms};
use crate::ops::scan;
use crate::ops::scan::Listed;
use crate::random::Random;
use crate::types::{DType, Metric};

/// Rows of each list.
const LISTS: [usize; 4] = [600, 17, 0, 33];
/// Queries where items have several, not a multiple of their number.
const QUERIES: usize = 5;
/// Places per query.
const KEEP: usize = 70;

struct Data {
    metric: Metric,
    lists: Lists,
    queries: Prepared,
    probes: Vec<u32>,
    offsets: Vec<f32>,
    mask: Vec<u32>,
}

impl Data {
    fn new(metric: Metric, form: Form, queries: usize) -> Data {
        let mut random = Random::new(7);
        let mut random = move |below: u32| random.below(below as usize) as u32;
        let mut lists = Lists::new(form, DIM, LISTS.len());
        let rows: usize = LISTS.iter().sum();
        // Few different codes, so that keys tie.
        let codes = (0..rows).flat_map(|_| code(form, &mut random)).collect();
        let few = |random: &mut dyn FnMut(u32) -> u32, below| (0..rows).map(|_| random(below) as f32).collect();
        let (add, scale) = match form.is_exact() {
            true => (Vec::new(), Vec::new()),
            false => (few(&mut random, 40), few(&mut random, 3)),
        };
        let to: Vec<u32> = LISTS.iter().enumerate().flat_map(|(l, &n)| vec![l as u32; n]).collect();
        lists.append(&Encoded { codes, add, scale, ..Encoded::default() }, &to, 3);
        let (padded, words) = (form.padded(DIM), form.words(DIM));
        let mut prepared = Prepared { queries, ..Prepared::default() };
        for q in 0..queries {
            let mut part = |count: usize, at: usize, below: u32| if at < count { random(below) } else { 0 };
            match form {
                Form::Integers(_) => {
                    prepared.integers.extend((0..padded).map(|i| part(DIM, i, 41) as i8 - 20 * i8::from(i < DIM)))
                }
                Form::Parts(_) => {
                    let entries = form.entries();
                    prepared.tables.extend((0..padded * entries).map(|i| part(DIM * entries, i, 256) as u8));
                }
                Form::Rows(_) => prepared.floats.extend((0..DIM).map(|i| part(DIM, i, 6) as f32)),
                Form::Bits => {
                    let word = |w: usize| (0..32).fold(0, |bits, i| bits | part(DIM, 32 * w + i, 2) << i);
                    prepared.bits.extend((0..words).map(word));
                }
            }
            if !form.is_exact() {
                prepared.terms.push(Terms { scale: 1.0 + q as f32, shift: -3.0 });
            }
        }
        let stride = (rows + 3).div_ceil(32);
        let mask = (0..queries * stride).map(|_| random(1 << 16) << 16 | random(1 << 16)).collect();
        let width = LISTS.len() + 1;
        let probes = (0..queries * width).map(|i| ((i + i / width) % width) as u32);
        let probes = probes.map(|l| if l as usize == LISTS.len() { u32::MAX } else { l }).collect();
        let offsets = (0..queries * width).map(|i| (i % 7) as f32).collect();
        Data { metric, lists, queries: prepared, probes, offsets, mask }
    }

    fn mask(&self) -> Mask<'_> {
        Mask { words: &self.mask, stride: self.mask.len() / self.queries.queries, tag: None }
    }

    fn probes(&self) -> Probes<'_> {
        Probes { width: LISTS.len() + 1, lists: &self.probes, offsets: &self.offsets }
    }

    /// How far a key may be from that of the reference.
    fn slack(&self, key: f32) -> f32 {
        let exact = matches!(self.metric, Metric::L2 | Metric::InnerProduct | Metric::L1 | Metric::Linf);
        if exact || !matches!(self.lists.form, Form::Rows(_)) { 0.0 } else { 1e-4 * (key.abs() + 1.0) }
    }

    /// Every place is right, and nothing smaller was left out.
    fn check(&self, found: &Candidates) -> Result<(), String> {
        let wanted =
            scan::reference(self.metric, &self.lists, &self.queries, &self.probes(), Some(self.mask()), usize::MAX);
        for (q, wanted) in wanted.iter().enumerate() {
            let places = q * found.width..(q + 1) * found.width;
            let got: Vec<(f32, u32)> =
                found.keys[places.clone()].iter().copied().zip(found.positions[places].iter().copied()).collect();
            let full = wanted.len().min(KEEP);
            if got.iter().filter(|pair| pair.1 != u32::MAX).count() != full {
                return Err(format!("query {q}: {full} candidates wanted, found {got:?}"));
            }
            for (place, (pair, want)) in got.iter().zip(wanted).enumerate() {
                let exact = wanted.iter().find(|w| w.1 == pair.1).map_or(f32::NAN, |w| w.0);
                let slack = self.slack(want.0);
                let close = (pair.0 - exact).abs() <= slack && (pair.0 - want.0).abs() <= slack;
                if !close || slack == 0.0 && pair != want {
                    return Err(format!("query {q}, place {place}: {pair:?}, wanted {want:?}"));
                }
            }
        }
        Ok(())
    }
}

/// A code of one row, of few different values.
fn code(form: Form, random: &mut dyn FnMut(u32) -> u32) -> Vec<u8> {
    let kind = random(40);
    let value = |i: usize| (i as u32 * 7 + kind * 13) % 11;
    match form {
        Form::Integers(bits) | Form::Parts(bits) => (0..DIM).map(|i| (value(i) * 25) as u8 >> (8 - bits)).collect(),
        Form::Rows(dtype) => (0..DIM).flat_map(|i| float(dtype, value(i) as f32)).collect(),
        Form::Bits => {
            let mut bytes: Vec<u8> = (0..DIM.div_ceil(8)).map(|i| (value(i) * 25) as u8).collect();
            if let Some(last) = bytes.last_mut() {
                *last &= (1 << (DIM % 8)) - 1;
            }
            bytes
        }
    }
}

fn float(dtype: DType, x: f32) -> Vec<u8> {
    match dtype {
        DType::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
        DType::Bf16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    }
}

/// Runs the case. The outer error is the device's, the inner one says what was wrong with the answer.
pub(super) async fn test(machine: &Machine, metric: Metric, form: Form, single: bool) -> Result<Verdict, EngineError> {
    let data = Data::new(metric, form, if single { 1 } else { QUERIES });
    let tag = Tag::new();
    let mask = Some(data.mask());
    let listed = Listed { metric, lists: &data.lists, tag: &tag, queries: &data.queries, probes: data.probes(), mask };
    let (program, inputs) = listed.program(KEEP)?;
    Ok(match answer(machine, Case::Scan { form, single }, &program, &inputs).await? {
        Ok(Output::Candidates(found)) => data.check(&found),
        Ok(_) => Err("an answer of another kind".to_owned()),
        Err(refused) => Err(refused),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_fails_when_a_row_is_missing_or_wrong() {
        for form in [Form::Integers(3), Form::Parts(4), Form::Rows(DType::F16), Form::Bits] {
            let data = Data::new(Metric::L2, form, 2);
            let wanted =
                scan::reference(Metric::L2, &data.lists, &data.queries, &data.probes(), Some(data.mask()), KEEP);
            assert!(wanted.iter().all(|w| w.len() == KEEP), "{form}: the queue of a query overflows");
            assert!(wanted[0].windows(2).any(|w| w[0].0 == w[1].0), "{form}: there are ties");
            let mut found = Candidates::empty(2, KEEP);
            for (i, pair) in wanted.iter().flatten().enumerate() {
                (found.keys[i], found.positions[i]) = *pair;
            }
            assert_eq!(data.check(&found), Ok(()));
            let spoiled = |spoil: &dyn Fn(&mut Candidates)| {
                let mut other = found.clone();
                spoil(&mut other);
                data.check(&other)
            };
            assert!(spoiled(&|c| c.keys[3] += 1.0).is_err());
            assert!(spoiled(&|c| c.positions[3] = u32::MAX).is_err());
            assert!(spoiled(&|c| c.positions.swap(0, 1)).is_err());
        }
    }
}
