//! `range`: every row within a radius, the radius included.

use crate::task::{Input, Step};
use nearfield::compute::{Mask, Output};
use nearfield::{DType, Metric};

use crate::Subject;
use crate::check;
use crate::compare::{Check, key_fits, kind, must};
use crate::data::{Allow, Bits, Case, Matrix, Values};
use crate::distance::METRICS;

/// What is asked: the radius as a key, the rows allowed, and whether keys are exact in f32.
pub struct Ask<'a> {
    pub radius: f32,
    pub mask: Option<Mask<'a>>,
    pub exact: bool,
}

pub fn hits_are_right(s: &Subject, case: &Case, ask: &Ask<'_>) -> Check {
    let output = case.run(&*s.engine, &[Step::Range { key: ask.radius }], ask.mask, Input::None);
    let Output::Range { offsets, keys, positions } = output else {
        return Err(format!("range hits were due, not {}", kind(&output)));
    };
    check!(offsets.len() == case.q() + 1, "{} offsets wanted, {} found", case.q() + 1, offsets.len());
    check!(offsets[0] == 0, "the offsets begin with {}", offsets[0]);
    check!(offsets.is_sorted(), "the offsets fall");
    check!(keys.len() == positions.len(), "{} keys, {} positions", keys.len(), positions.len());
    check!(offsets[case.q()] as usize == keys.len(), "{} hits by offset, {} found", offsets[case.q()], keys.len());
    for query in 0..case.q() {
        let span = offsets[query] as usize..offsets[query + 1] as usize;
        let hits: Vec<(f32, u32)> = keys[span.clone()].iter().copied().zip(positions[span].iter().copied()).collect();
        query_is_right(case, query, &hits, ask).map_err(|e| format!("query {query}: {e}"))?;
    }
    Ok(())
}

fn query_is_right(case: &Case, query: usize, hits: &[(f32, u32)], ask: &Ask<'_>) -> Check {
    let radius = f64::from(ask.radius);
    for window in hits.windows(2) {
        let (a, b) = (window[0], window[1]);
        check!(a.0 < b.0 || (a.0 == b.0 && a.1 < b.1), "wrong order: {a:?} before {b:?}");
    }
    let mut found = vec![false; case.n()];
    for &(key, position) in hits {
        let row = position as usize;
        check!(row < case.n(), "row {row} does not exist");
        check!(ask.mask.is_none_or(|m| m.allows(query, row)), "row {row} is forbidden");
        check!(!found[row], "row {row} is returned twice");
        check!(key <= ask.radius, "row {row} with key {key} lies outside {}", ask.radius);
        let (exact, tolerance) = (case.key(query, row), case.tolerance(query, row));
        check!(key_fits(key, exact, tolerance), "key of row {row} is {key:e}, exactly {exact:e}");
        found[row] = true;
    }
    for row in (0..case.n()).filter(|&r| ask.mask.is_none_or(|m| m.allows(query, r))) {
        let tolerance = if ask.exact { 0.0 } else { case.tolerance(query, row) };
        let inside = case.key(query, row) + tolerance <= radius;
        check!(
            found[row] || !inside,
            "row {row} is missing: its key is {:e}, the radius {radius:e}",
            case.key(query, row)
        );
        let outside = case.key(query, row) - tolerance > radius;
        check!(
            !found[row] || !outside,
            "row {row} is outside: its key is {:e}, the radius {radius:e}",
            case.key(query, row)
        );
    }
    Ok(())
}

#[track_caller]
fn right(s: &Subject, case: &Case, ask: Ask<'_>) {
    must(case, &format!("range within {}", ask.radius), hits_are_right(s, case, &ask));
}

/// The key at a part of the way from the nearest pair to the farthest.
fn radius_at(case: &Case, part: f64) -> f32 {
    let mut keys: Vec<f64> = case.keys().to_vec();
    keys.sort_by(f64::total_cmp);
    keys[((keys.len() - 1) as f64 * part) as usize] as f32
}

pub fn row_b5_every_metric(s: &Subject) {
    let few = [(Metric::L2, DType::F32), (Metric::InnerProduct, DType::F32)];
    let all = [DType::F32, DType::F16, DType::Bf16, DType::I8, DType::U8].map(|dtype| METRICS.map(|m| (m, dtype)));
    let mut pairs = if s.full { all.as_flattened().to_vec() } else { few.to_vec() };
    pairs.push((Metric::Hamming, DType::Bits));
    for (metric, dtype) in pairs {
        let case = Case::random(metric, dtype, (5, 150, 40), Values::Signed);
        for part in [0.0, 0.03, 0.5] {
            right(s, &case, Ask { radius: radius_at(&case, part), mask: None, exact: false });
        }
    }
}

/// Whole numbers: many rows lie on the radius exactly, and all of them belong to it.
pub fn row_b5_inclusive_radius(s: &Subject) {
    for (q, n, dim) in [(5, 300, 3), (1, 65, 7), (16, 33, 16)] {
        let case = Case::random(Metric::L2, DType::F32, (q, n, dim), Values::Whole);
        for part in [0.0, 0.1, 0.3, 1.0] {
            right(s, &case, Ask { radius: radius_at(&case, part), mask: None, exact: true });
        }
    }
    let same = Matrix::from_fn(DType::F32, 100, 5, |_, _| 2.0);
    let case = Case::new(Metric::L2, Matrix::from_fn(DType::F32, 2, 5, |r, _| 2.0 + r as f32), same);
    for radius in [0.0, 4.999, 5.0] {
        right(s, &case, Ask { radius, mask: None, exact: true });
    }
}

pub fn row_b5_all_and_none(s: &Subject) {
    for n in [1, 31, 64, 1025] {
        let case = Case::random(Metric::L2, DType::F32, (3, n, 9), Values::Whole);
        for radius in [f32::INFINITY, f32::MAX, -1.0, f32::NEG_INFINITY] {
            right(s, &case, Ask { radius, mask: None, exact: true });
        }
    }
}

pub fn row_b5_filters(s: &Subject) {
    let case = Case::random(Metric::L2, DType::F32, (5, 130, 4), Values::Whole);
    for allow in [Allow::All, Allow::Nothing, Allow::Half, Allow::One] {
        for per_query in [false, true] {
            let bits = Bits::new(allow, case.n(), case.q(), per_query);
            for radius in [radius_at(&case, 0.2), f32::INFINITY] {
                right(s, &case, Ask { radius, mask: Some(bits.mask()), exact: true });
            }
        }
    }
}

pub fn row_b5_many_queries(s: &Subject) {
    let case = Case::random(Metric::L2, DType::F32, (70_001, 2, 2), Values::Whole);
    right(s, &case, Ask { radius: 1.0, mask: None, exact: true });
    let case = Case::random(Metric::L2, DType::F32, (1, 70_001, 2), Values::Whole);
    right(s, &case, Ask { radius: 1.0, mask: None, exact: true });
}

pub fn row_e7_empty(s: &Subject) {
    for (q, n) in [(0, 0), (0, 5), (3, 0)] {
        let case = Case::random(Metric::L2, DType::F32, (q, n, 7), Values::Signed);
        right(s, &case, Ask { radius: 1.0, mask: None, exact: false });
    }
}
