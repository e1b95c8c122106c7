//! `refine`: the direct keys of given candidates.

use crate::task::{Input, Step};
use nearfield::{DType, Metric};

use crate::Subject;
use crate::check;
use crate::compare::{Check, candidates, key_fits, must};
use crate::data::{Case, Rng, Values};
use crate::distance::{METRICS, nearly_equal};

/// Refines positions and compares each key; where there is no candidate it must be +inf.
pub fn keys_are_right(s: &Subject, case: &Case, positions: &[u32], width: usize) -> Check {
    let input = Input::Positions { positions, width };
    let got = candidates(case.run(&*s.engine, &[Step::Refine], None, input))?;
    check!(got.width == width, "{width} places per query wanted, {} found", got.width);
    check!(got.positions == positions, "the candidates changed");
    check!(got.keys.len() == positions.len(), "{} keys wanted, {} found", positions.len(), got.keys.len());
    for (i, (&key, &position)) in got.keys.iter().zip(positions).enumerate() {
        let (query, place) = (i / width, i % width);
        if position == u32::MAX {
            check!(key == f32::INFINITY, "query {query}, place {place}: {key} where there is no candidate");
            continue;
        }
        let (exact, tolerance) = (case.key(query, position as usize), case.tolerance(query, position as usize));
        check!(
            key_fits(key, exact, tolerance),
            "query {query}, row {position}: {key:e}, exactly {exact:e}: off by {:e}, tolerance {tolerance:e}",
            (f64::from(key) - exact).abs()
        );
    }
    Ok(())
}

/// `width` random rows for each query, the last `holes` places empty.
fn some_positions(case: &Case, width: usize, holes: usize) -> Vec<u32> {
    let mut rng = Rng::new(width as u64);
    (0..case.q() * width)
        .map(|i| if i % width.max(1) + holes < width { rng.below(case.n()) as u32 } else { u32::MAX })
        .collect()
}

#[track_caller]
fn right(s: &Subject, case: &Case, width: usize, holes: usize) {
    let positions = some_positions(case, width, holes);
    must(case, &format!("refine of {width}"), keys_are_right(s, case, &positions, width));
}

pub fn row_b13_every_metric(s: &Subject) {
    let few = [(Metric::L2, DType::F32), (Metric::Cosine, DType::F32), (Metric::L2, DType::F16)];
    let all = [DType::F32, DType::F16, DType::Bf16, DType::I8, DType::U8].map(|dtype| METRICS.map(|m| (m, dtype)));
    for &(metric, dtype) in if s.full { all.as_flattened() } else { &few } {
        for dim in [1, 7, 64, 100, 384] {
            right(s, &Case::random(metric, dtype, (3, 50, dim), Values::Signed), 12, 2);
        }
    }
    for metric in [Metric::Hamming, Metric::Jaccard] {
        for dim in [8, 40, 128, 1000] {
            right(s, &Case::random(metric, DType::Bits, (3, 50, dim), Values::Whole), 12, 2);
        }
    }
    right(s, &nearly_equal(Metric::L2, 64, 3, 40), 20, 0);
}

pub fn row_b13_holes_and_repeats(s: &Subject) {
    let case = Case::random(Metric::L2, DType::F32, (5, 100, 33), Values::Signed);
    for (width, holes) in [(1, 0), (1, 1), (7, 3), (64, 64), (65, 1), (130, 30), (1000, 5)] {
        right(s, &case, width, holes);
    }
    let repeated = vec![99; 5 * 4];
    must(&case, "refine of one row", keys_are_right(s, &case, &repeated, 4));
}

pub fn row_b13_many_queries(s: &Subject) {
    right(s, &Case::random(Metric::L2, DType::F32, (70_001, 3, 2), Values::Signed), 1, 0);
}

pub fn row_e7_empty(s: &Subject) {
    right(s, &Case::random(Metric::L2, DType::F32, (0, 5, 3), Values::Signed), 4, 0);
    right(s, &Case::random(Metric::L2, DType::F32, (3, 5, 3), Values::Signed), 0, 0);
    right(s, &Case::random(Metric::L2, DType::F32, (3, 0, 3), Values::Signed), 4, 4);
}
