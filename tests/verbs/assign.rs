//! `assign`: the nearest centroid of each point.

use crate::task::{Input, Step};
use nearfield::compute::{Candidates, Known};
use nearfield::ops::assign::{self, BLOCK, POINTS};
use nearfield::{DType, Metric};

use crate::Subject;
use crate::check;
use crate::coder::Encoded;
use crate::compare::{Check, candidates, key_fits, must};
use crate::data::{Case, Matrix, Rng, Values};
use crate::distance::nearly_equal;

const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

/// Assigns and compares with the reference: the key is that of the row found, no row is nearer by more than rounding, and
/// where `exact` (keys without rounding) the row is the reference's.
pub fn nearest_are_right(s: &Subject, case: &Case, exact: bool) -> Check {
    answer_is_right(case, &candidates(case.run(&*s.engine, &[Step::Assign], None, Input::None))?, exact)
}

fn answer_is_right(case: &Case, got: &Candidates, exact: bool) -> Check {
    check!(got.width == 1, "one place per query wanted, {} found", got.width);
    check!(got.positions.len() == case.q() && got.keys.len() == case.q(), "{} places", got.positions.len());
    let wanted = assign::reference(case.metric, &case.queries.view(), &case.rows.view());
    for (query, wanted) in wanted.into_iter().enumerate() {
        let (key, position) = (got.keys[query], got.positions[query]);
        let Some((least, nearest)) = wanted else {
            check!(position == u32::MAX && key == f32::INFINITY, "query {query}: {position} where there is no row");
            continue;
        };
        let row = position as usize;
        check!(row < case.n(), "query {query}: row {position} does not exist");
        let (truth, tolerance) = (case.key(query, row), case.tolerance(query, row));
        check!(key_fits(key, truth, tolerance), "query {query}, row {row}: {key:e}, exactly {truth:e}");
        let slack = if exact { 0.0 } else { tolerance + case.tolerance(query, nearest as usize) };
        check!(truth <= least + slack, "query {query}: row {row} at {truth:e}, but {nearest} at {least:e}");
        check!(!exact || position == nearest, "query {query}: {position} and not {nearest} of equal keys");
    }
    Ok(())
}

#[track_caller]
fn right(s: &Subject, case: &Case, exact: bool) {
    must(case, "assign", nearest_are_right(s, case, exact));
}

pub fn row_b7_every_metric(s: &Subject) {
    for metric in METRICS {
        for dim in [1, 7, 64, 100, 384] {
            right(s, &Case::random(metric, DType::F32, (70, 50, dim), Values::Signed), false);
        }
    }
}

pub fn row_b7_tile_edges(s: &Subject) {
    for (points, centroids) in [(1, 1), (3, 2), (16, 64), (17, 65), (63, 127), (65, 1), (129, 300), (2, 700)] {
        right(s, &Case::random(Metric::L2, DType::F32, (points, centroids, 20), Values::Signed), false);
    }
}

pub fn row_b7_near_ties(s: &Subject) {
    for metric in METRICS {
        right(s, &nearly_equal(metric, 64, 40, 70), false);
    }
}

pub fn row_b7_many_points(s: &Subject) {
    right(s, &Case::random(Metric::L2, DType::F32, (70_001, 3, 2), Values::Signed), false);
}

/// Sums of small whole numbers are exact, so the smaller position must win.
pub fn row_e7_ties(s: &Subject) {
    for metric in [Metric::L2, Metric::InnerProduct] {
        for dim in [1, 2, 3, 17] {
            right(s, &Case::random(metric, DType::F32, (90, 200, dim), Values::Whole), true);
        }
    }
}

pub fn row_e7_zero_rows(s: &Subject) {
    for metric in METRICS {
        let zeros = |every: usize| {
            move |r: usize, c: usize| if r.is_multiple_of(every) { 0.0 } else { ((r * 7 + c * 3) % 11) as f32 - 5.0 }
        };
        let (points, centroids) =
            (Matrix::from_fn(DType::F32, 40, 9, zeros(5)), Matrix::from_fn(DType::F32, 90, 9, zeros(7)));
        right(s, &Case::new(metric, points, centroids), false);
    }
}

pub fn row_e7_empty(s: &Subject) {
    for shape in [(0, 5, 3), (5, 0, 3), (0, 0, 3)] {
        right(s, &Case::random(Metric::L2, DType::F32, shape, Values::Signed), true);
    }
}

/// Where the bound of a query and a block lies.
fn place(case: &Case, query: usize, block: usize) -> usize {
    let (group, blocks) = (query / POINTS, case.n().div_ceil(BLOCK));
    let count = POINTS.min(case.q() - group * POINTS);
    group * POINTS * blocks + block * count + query % POINTS
}

/// Below the direct keys of a block's rows, by as much as they may err and `less` more.
fn true_bounds(case: &Case, less: f64) -> Vec<f32> {
    let blocks = case.n().div_ceil(BLOCK);
    let mut bounds = vec![0.0; case.q() * blocks];
    for query in 0..case.q() {
        for block in 0..blocks {
            let rows = block * BLOCK..case.n().min((block + 1) * BLOCK);
            let least = rows.map(|r| case.key(query, r) - case.tolerance(query, r)).fold(f64::INFINITY, f64::min);
            bounds[place(case, query, block)] = ((least - less - least.abs() * 1e-6) as f32).next_down();
        }
    }
    bounds
}

/// Behind codes, knowing nothing, the truth, and what is wrong or nearly useless: the answer is the same, and no bound that
/// comes back lies above a key.
fn known_changes_nothing(s: &Subject, case: &Case, code_dim: usize, exact: bool) -> Check {
    let encoded = Encoded::new(case, code_dim);
    let (q, n) = (case.q(), case.n());
    let right: Vec<u32> = assign::reference(case.metric, &case.queries.view(), &case.rows.view())
        .into_iter()
        .map(|nearest| nearest.map_or(u32::MAX, |(_, p)| p))
        .collect();
    let mut rng = Rng::new(3);
    let wrong: Vec<u32> = (0..q).map(|i| if i % 3 == 0 { u32::MAX } else { rng.below(n) as u32 }).collect();
    let unknown = vec![f32::NEG_INFINITY; q * n.div_ceil(BLOCK)];
    let mut inputs = vec![Input::None];
    let (tight, loose) = (true_bounds(case, 0.0), true_bounds(case, 0.3));
    for positions in [&[][..], &right, &wrong] {
        for bounds in [&[][..], &unknown, &tight, &loose] {
            inputs.push(Input::Known(Known { positions, bounds }));
        }
    }
    for input in inputs {
        let run = case.try_run_coded(&*s.engine, &[Step::Assign], None, input, None, Some(encoded.coded()));
        let got = candidates(run.map_err(|e| e.to_string())?.0)?;
        answer_is_right(case, &got, exact)?;
        check!(got.bound.is_empty() || got.bound.len() == unknown.len(), "{} bounds", got.bound.len());
        for query in (0..q).filter(|_| !got.bound.is_empty()) {
            for row in 0..n {
                let bound = f64::from(got.bound[place(case, query, row / BLOCK)]);
                let most = case.key(query, row) + case.tolerance(query, row);
                check!(bound <= most, "query {query}, row {row}: bound {bound:e} above the key {most:e}");
            }
        }
    }
    Ok(())
}

#[track_caller]
fn right_behind_codes(s: &Subject, case: &Case, code_dim: usize, exact: bool) {
    must(case, &format!("assign behind codes of {code_dim}"), known_changes_nothing(s, case, code_dim, exact));
}

pub fn row_b7_behind_codes(s: &Subject) {
    for metric in METRICS {
        for (dim, code_dim) in [(16, 16), (64, 32), (100, 112)] {
            let shape = (70, 130, dim);
            right_behind_codes(s, &Case::random(metric, DType::F32, shape, Values::Signed), code_dim, false);
        }
    }
    for (points, centroids) in [(1, 1), (1, 33), (7, 31), (9, 32), (65, 64), (1030, 65), (8, 97)] {
        let case = Case::random(Metric::L2, DType::F32, (points, centroids, 20), Values::Signed);
        right_behind_codes(s, &case, 32, false);
    }
}

/// Many centroids at nearly or just the same distance: the codes can't tell them apart, so all get direct keys.
pub fn row_b7_ties_behind_codes(s: &Subject) {
    for metric in [Metric::L2, Metric::InnerProduct] {
        for dim in [3, 17] {
            let case = Case::random(metric, DType::F32, (90, 200, dim), Values::Whole);
            right_behind_codes(s, &case, 16, true);
        }
    }
    right_behind_codes(s, &nearly_equal(Metric::L2, 64, 40, 70), 32, false);
}
