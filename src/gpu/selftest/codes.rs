//! The tiny case for the search in 8-bit codes: numbers for which its arithmetic is exact in f32, so that keys and order
//! have to be those of the reference.

use super::answer;
use crate::compute::{Candidates, EngineError, Mask, Output, Tag, Vectors};
use crate::gpu::case::{CODE_DIM as DIM, CODE_ROWS as ROWS, Case};
use crate::gpu::machine::{Machine, Verdict};
use crate::ops::codes::{self, Codes, GROUP, PADDING, QueryCodes, QueryTerms};
use crate::ops::{Batch, Coded, Screen, Search};
use crate::random::Random;
use crate::types::{MatrixView, Metric, RowsView};

struct Data {
    codes: Codes,
    queries: QueryCodes,
    mask: Vec<u32>,
}

impl Data {
    fn new(queries: usize) -> Data {
        let mut random = Random::new(1);
        let mut random = move |below: u64| random.below(below as usize) as u64;
        let mut codes = Codes { dim: DIM, ..Codes::default() };
        // All 8 bits, and the same code every fifth row: then only terms and positions decide.
        codes.bytes =
            (0..ROWS * DIM).map(|i| if (i / DIM).is_multiple_of(5) { 255 } else { random(256) as u8 }).collect();
        codes.bytes.resize(ROWS * DIM + PADDING, 0);
        let mut few = |count: usize| -> Vec<f32> { (0..count).map(|_| random(4) as f32).collect() };
        // Near rows crowd into the first parts, which cannot keep them all.
        codes.square = few(ROWS).into_iter().enumerate().map(|(r, x)| if r < 256 { x } else { x + 6e4 }).collect();
        codes.scale = few(ROWS);
        codes.residual = few(ROWS);
        codes.tail = few(ROWS);
        codes.longest = few(ROWS.div_ceil(GROUP));
        let bytes = (0..queries * DIM).map(|_| random(15) as i8 - 7).collect();
        let term = |q: usize| QueryTerms { offset: -(q as f32), scale: 1.0, length: 2.0, tail: 3.0, error: 1.0 };
        let mask = (0..queries * ROWS.div_ceil(32)).map(|_| (random(1 << 32) | random(1 << 32)) as u32).collect();
        Data { codes, queries: QueryCodes { dim: DIM, bytes, terms: (0..queries).map(term).collect() }, mask }
    }

    fn mask(&self) -> Mask<'_> {
        Mask { words: &self.mask, stride: ROWS.div_ceil(32), tag: None }
    }

    /// The allowed rows of a query with their bounds, smallest first.
    fn nearest(&self, q: usize) -> Vec<(f32, u32)> {
        let bound = |r: usize| {
            let product = codes::product(self.codes.row(r), self.queries.query(q));
            codes::lower_bound(&self.codes, r, &self.queries.terms[q], product)
        };
        let allowed = (0..ROWS).filter(|&r| self.mask().allows(q, r));
        let mut pairs: Vec<(f32, u32)> = allowed.map(|r| (bound(r), r as u32)).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        pairs
    }

    /// Every place is right, and nothing below the bound was left out.
    fn check(&self, found: &Candidates) -> Result<(), String> {
        for q in 0..self.queries.terms.len() {
            let wanted = self.nearest(q);
            let bound = found.bound.get(q).copied().unwrap_or(f32::NAN);
            let places = q * found.width..(q + 1) * found.width;
            let got = found.keys[places.clone()].iter().copied().zip(found.positions[places].iter().copied());
            let got: Vec<(f32, u32)> = got.filter(|pair| pair.1 != u32::MAX).collect();
            if got.is_empty() || bound.is_nan() {
                return Err(format!("query {q}: {} candidates, bound {bound}", got.len()));
            }
            if let Some(pair) = got.iter().find(|pair| !wanted.contains(pair)) {
                return Err(format!("query {q}: row {} with bound {}, which is not so", pair.1, pair.0));
            }
            // In order, so none is there twice.
            if let Some(pair) = got.windows(2).find(|w| (w[0].0, w[0].1) >= (w[1].0, w[1].1)) {
                return Err(format!("query {q}: {:?} before {:?}", pair[0], pair[1]));
            }
            if let Some(pair) = wanted.iter().find(|pair| pair.0 < bound && !got.contains(pair)) {
                return Err(format!("query {q}: row {} with {} left out, bound {bound}", pair.1, pair.0));
            }
            if bound < wanted[0].0 {
                return Err(format!("query {q}: the bound {bound} proves nothing"));
            }
        }
        Ok(())
    }
}

/// Runs the case. The outer error is the device's, the inner one says what was wrong with the answer.
pub(super) async fn test(machine: &Machine, case: Case, queries: usize, keep: usize) -> Result<Verdict, EngineError> {
    let data = Data::new(queries);
    let zeros = vec![0.0f32; ROWS.max(queries)];
    let view = |rows: usize| MatrixView::new(&zeros[..rows], 1).map(RowsView::F32);
    let (Ok(rows), Ok(batch)) = (view(ROWS), view(queries)) else { return Ok(Err("no rows".to_owned())) };
    let tag = Tag::new();
    let vectors = |rows| Vectors { rows, norms: None, tag: None };
    let batch = Batch {
        metric: Metric::InnerProduct,
        rows: vectors(rows),
        queries: vectors(batch),
        mask: Some(data.mask()),
        codes: Some(Coded { codes: &data.codes, tag: &tag, queries: &data.queries }),
    };
    let search = |pairs, codes| Search { pairs, screen: Screen::Int8, keep: keep.min(ROWS), codes, wanted: None };
    let program = batch.one(search)?;
    Ok(match answer(machine, case, &program, &batch.inputs()).await? {
        Ok(Output::Candidates(found)) if found.bound.is_empty() => Err("it was not used".to_owned()),
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
        let data = Data::new(2);
        let mut found = Candidates::empty(2, 40);
        for q in 0..2 {
            for (i, (key, row)) in data.nearest(q).into_iter().take(40).enumerate() {
                (found.keys[q * 40 + i], found.positions[q * 40 + i]) = (key, row);
            }
            found.bound.push(found.keys[q * 40 + 39]);
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
        assert!(spoiled(&|c| c.bound[1] = f32::NEG_INFINITY).is_err());
        assert!(spoiled(&|c| c.bound[1] = f32::INFINITY).is_err());
    }
}
