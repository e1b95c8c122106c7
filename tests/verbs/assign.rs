//! `assign`: the nearest centroid of each point.

use nearfield::engine::Input;
use nearfield::kernels::assign;
use nearfield::plan::Step;
use nearfield::{DType, Metric};

use crate::Subject;
use crate::check;
use crate::compare::{Check, candidates, key_fits, must};
use crate::data::{Case, Matrix, Values};
use crate::distance::nearly_equal;

const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

/// Assigns and compares with the reference: the key is that of the row found, no row is nearer by more than rounding, and
/// where `exact` (keys without rounding) the row is the reference's.
pub fn nearest_are_right(s: &Subject, case: &Case, exact: bool) -> Check {
    let got = candidates(case.run(&*s.engine, &[Step::Assign], None, Input::None))?;
    check!(got.width == 1, "one place a query wanted, {} found", got.width);
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
            move |r: usize, c: usize| if r % every == 0 { 0.0 } else { ((r * 7 + c * 3) % 11) as f32 - 5.0 }
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
