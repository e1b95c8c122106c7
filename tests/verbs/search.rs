//! `search`: the k nearest rows in one pass, directly and through the f32 screen.

use crate::task::{Input, Step};
use nearfield::compute::{Candidates, Mask};
use nearfield::ops::Screen;
use nearfield::{DType, Metric};

use crate::Subject;
use crate::check;
use crate::compare::{
    Check, Want, candidates, duplicates_in_order, key_fits, must, pairs_of, query_is_right, same_neighbours,
};
use crate::data::{Allow, Bits, Case, Matrix, Rng, Values, query_dtype};
use crate::distance::{DTYPES, METRICS, nearly_equal};

pub const SCREENED: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

/// A direct search.
pub fn direct(s: &Subject, case: &Case, k: usize, mask: Option<Mask<'_>>) -> Result<Candidates, String> {
    let step = Step::Search { screen: Screen::None, keep: k };
    candidates(case.run(&*s.engine, &[step], mask, Input::None))
}

/// Searches directly and compares.
#[track_caller]
fn right(s: &Subject, case: &Case, want: Want<'_>) {
    let check = direct(s, case, want.k, want.mask).and_then(|got| {
        check!(got.bound.is_empty(), "a direct pass has no bound");
        same_neighbours(case, &got, want)
    });
    must(case, &format!("search of {}", want.k), check);
}

pub fn row_b4_every_k(s: &Subject) {
    for values in [Values::Whole, Values::Signed] {
        let exact = values == Values::Whole;
        for n in [300, 1025] {
            let case = Case::random(Metric::L2, DType::F32, (5, n, 24), values);
            for k in [1, 2, 10, 16, 17, 32, 100, 128, 129, n - 1, n, n + 5] {
                right(s, &case, Want { k, mask: None, exact });
            }
        }
    }
    if s.full {
        // More results than an engine may want to hold at a time.
        right(s, &Case::random(Metric::L2, DType::F32, (600, 4_000, 2), Values::Whole), Want::exact(4_000));
    }
}

/// Rows, queries and k around the edges of tiles.
pub fn row_b4_tile_edges(s: &Subject) {
    for (i, n) in [0, 1, 2, 31, 32, 33, 63, 65, 1000, 1025].into_iter().enumerate() {
        for (j, q) in [0, 1, 2, 5, 16, 33].into_iter().enumerate() {
            let ks = [1, 2, 10, 16, 100, 128, 129, n.max(2) - 1, n.max(1), n + 5];
            let whole = Case::random(Metric::L2, DType::F32, (q, n, 5 + i), Values::Whole);
            right(s, &whole, Want::exact(ks[(i + 3 * j) % ks.len()]));
            let real = Case::random(Metric::L2, DType::F32, (q, n, 16 + 8 * j), Values::Signed);
            right(s, &real, Want::k(ks[(i + 3 * j + 5) % ks.len()]));
        }
    }
}

/// Few queries are split across rows, and what the parts found is merged.
pub fn row_b4_one_query_on_many_rows(s: &Subject) {
    let real = Case::random(Metric::L2, DType::F32, (1, 6_000, 128), Values::Signed);
    let whole = Case::random(Metric::L2, DType::F32, (2, 6_000, 48), Values::Whole);
    for k in [1, 10, 128, 1_000, 6_000] {
        right(s, &real, Want::k(k));
        right(s, &whole, Want::exact(k));
    }
    screened(s, &real, 10, None, false);
}

pub fn row_b4_every_metric(s: &Subject) {
    let few = [Metric::L2, Metric::InnerProduct, Metric::Cosine, Metric::L1];
    for &metric in if s.full { &METRICS[..] } else { &few[..] } {
        for (dim, k) in [(1, 10), (7, 3), (37, 10), (128, 10), (1000, 1)] {
            right(s, &Case::random(metric, DType::F32, (5, 257, dim), Values::Signed), Want::k(k));
        }
        right(s, &Case::random(metric, DType::F32, (33, 130, 19), Values::Positive), Want::k(12));
    }
}

pub fn row_b4_every_dtype(s: &Subject) {
    let few = [DType::F16, DType::Bf16, DType::I8, DType::U8].map(|dtype| (dtype, Metric::L2));
    let all = [DType::F16, DType::Bf16, DType::I8, DType::U8].map(|dtype| METRICS.map(|m| (dtype, m)));
    for &(dtype, metric) in if s.full { all.as_flattened() } else { &few[..] } {
        for dim in [1, 7, 37, 96] {
            right(s, &Case::random(metric, dtype, (5, 130, dim), Values::Signed), Want::k(10));
        }
    }
    for dtype in [DType::F16, DType::Bf16, DType::I8, DType::U8] {
        right(s, &Case::random(Metric::L2, dtype, (5, 130, 9), Values::Whole), Want::exact(16));
    }
    for &metric in if s.full { &[Metric::Hamming, Metric::Jaccard][..] } else { &[Metric::Hamming] } {
        for dim in [8, 40, 64, 200, 1024] {
            let want = Want { k: 10, mask: None, exact: metric == Metric::Hamming };
            right(s, &Case::random(metric, DType::Bits, (5, 257, dim), Values::Whole), want);
        }
    }
}

pub fn row_b4_filters(s: &Subject) {
    for (q, n) in [(5, 130), (16, 33), (1, 1000)] {
        let whole = Case::random(Metric::L2, DType::F32, (q, n, 6), Values::Whole);
        let real = Case::random(Metric::L2, DType::F32, (q, n, 24), Values::Signed);
        for allow in [Allow::All, Allow::Nothing, Allow::Half, Allow::One] {
            for per_query in [false, true] {
                let bits = Bits::new(allow, n, q, per_query);
                for k in [1, 10, 129] {
                    right(s, &whole, Want { k, mask: Some(bits.mask()), exact: true });
                    right(s, &real, Want { k, mask: Some(bits.mask()), exact: false });
                }
            }
        }
    }
}

pub fn row_b4_strided_rows(s: &Subject) {
    let few = [DType::F32, DType::F16, DType::Bits];
    for dtype in if s.full { DTYPES.to_vec() } else { few.to_vec() } {
        let metric = if dtype == DType::Bits { Metric::Hamming } else { Metric::L2 };
        let mut rng = Rng::new(31);
        let mut fill = |_: usize, _: usize| rng.below(4) as f32;
        let queries = Matrix::with_gap(query_dtype(dtype), 5, 24, 2, &mut fill);
        let case = Case::new(metric, queries, Matrix::with_gap(dtype, 100, 24, 3, &mut fill));
        right(s, &case, Want::exact(10));
    }
}

/// A GPU's grid has 65,535 groups in a dimension.
pub fn row_b4_more_rows_than_a_grid_has_groups(s: &Subject) {
    right(s, &Case::random(Metric::L2, DType::F32, (2, 70_001, 2), Values::Signed), Want::k(10));
    right(s, &Case::random(Metric::L2, DType::F32, (70_001, 3, 2), Values::Whole), Want::exact(2));
}

pub fn row_b1_tiny_distances_of_large_rows(s: &Subject) {
    for dim in [16, 100] {
        let case = nearly_equal(Metric::L2, dim, 5, 200);
        right(s, &case, Want::k(10));
        screened(s, &case, 10, None, false);
    }
}

/// Equal distances: the smaller position first, whatever the order of the work.
pub fn row_e7_ties(s: &Subject) {
    for n in [33, 300, 1025] {
        let same = Matrix::from_fn(DType::F32, n, 9, |_, c| c as f32);
        let case = Case::new(Metric::L2, Matrix::from_fn(DType::F32, 3, 9, |r, _| r as f32), same);
        for k in [1, 10, 129, n] {
            right(s, &case, Want::exact(k));
            screened(s, &case, k, None, true);
        }
        // Two distances only, interleaved.
        let two = Matrix::from_fn(DType::F32, n, 9, |r, _| (r % 2) as f32);
        let case = Case::new(Metric::L2, Matrix::from_fn(DType::F32, 2, 9, |r, _| r as f32), two);
        for k in [1, 16, n / 2, n / 2 + 1, n] {
            right(s, &case, Want::exact(k));
        }
    }
    let whole: Vec<Metric> = vec![Metric::L2, Metric::InnerProduct, Metric::L1, Metric::Linf];
    for &metric in if s.full { &whole[..] } else { &whole[..3] } {
        right(s, &Case::random(metric, DType::F32, (16, 1025, 3), Values::WholeSigned), Want::exact(100));
    }
}

/// Real rows that occur several times have the same key each time, wherever they lie in a tile.
pub fn row_e7_duplicates(s: &Subject) {
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        for (q, n, dim) in [(1, 300, 37), (5, 1025, 24), (33, 67, 100)] {
            let twin: Vec<usize> = (0..n).map(|r| r % (n / 4)).collect();
            let distinct = Matrix::random(DType::F32, n / 4, dim, Values::Signed, 12);
            let view = distinct.view();
            let mut row = vec![0.0; dim];
            let rows = Matrix::from_fn(DType::F32, n, dim, |r, c| {
                if c == 0 {
                    view.row_f32(twin[r], &mut row);
                }
                row[c]
            });
            let case = Case::new(metric, Matrix::random(DType::F32, q, dim, Values::Signed, 13), rows);
            for k in [1, 10, 129] {
                let check = direct(s, &case, k, None).and_then(|got| {
                    same_neighbours(&case, &got, Want::k(k))?;
                    duplicates_in_order(&case, &got, &twin)
                });
                must(&case, &format!("search of {k} among duplicates"), check);
            }
        }
    }
}

pub fn row_e7_zero_rows(s: &Subject) {
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
        let mut rng = Rng::new(5);
        let mut fill = |r: usize, _: usize| if r % 3 == 1 { 0.0 } else { rng.normal() as f32 };
        let queries = Matrix::from_fn(DType::F32, 5, 20, &mut fill);
        let case = Case::new(metric, queries, Matrix::from_fn(DType::F32, 70, 20, &mut fill));
        right(s, &case, Want::k(70));
        right(s, &case, Want::k(10));
        screened(s, &case, 10, None, false);
    }
}

/// An inner product of 0 may come out as -0: rows at the same distance all the same.
pub fn row_e7_orthogonal_rows_tie(s: &Subject) {
    let queries = Matrix::from_fn(DType::F32, 2, 4, |r, c| if c == r { 1.0 } else { 0.0 });
    let sign = |r: usize| if r.is_multiple_of(3) { -1.0 } else { 1.0 };
    let rows = Matrix::from_fn(DType::F32, 50, 4, |r, c| if c > 1 { sign(r) } else { 0.0 * sign(r) });
    let case = Case::new(Metric::InnerProduct, queries, rows);
    for k in [3, 50] {
        right(s, &case, Want::exact(k));
    }
}

/// Finite rows whose distance does not fit into f32 are infinitely far, yet still neighbours.
pub fn row_e7_overflowing_distances(s: &Subject) {
    let fill = |r: usize, _: usize| if r.is_multiple_of(2) { 1e25 } else { r as f32 };
    let rows = Matrix::from_fn(DType::F32, 40, 6, fill);
    let case = Case::new(Metric::L2, Matrix::from_fn(DType::F32, 2, 6, |r, _| r as f32 * 2.0), rows);
    for k in [10, 30, 40, 45] {
        right(s, &case, Want::k(k));
    }
}

pub fn row_e7_empty(s: &Subject) {
    for (q, n) in [(0, 0), (0, 5), (3, 0)] {
        for metric in [Metric::L2, Metric::Cosine] {
            let case = Case::random(metric, DType::F32, (q, n, 7), Values::Signed);
            right(s, &case, Want::k(4));
            screened(s, &case, 4, None, false);
        }
    }
}

// --- the screen ----------------------------------------------------------------------------------------------------

/// The candidates of the screen alone. `None` when the engine ran the direct pass instead, as it may: then they have
/// been compared as such.
fn screen_alone(s: &Subject, case: &Case, keep: usize, mask: Option<Mask<'_>>) -> Result<Option<Candidates>, String> {
    let step = Step::Search { screen: Screen::F32, keep };
    let got = candidates(case.run(&*s.engine, &[step], mask, Input::None))?;
    if got.bound.is_empty() && case.q() > 0 {
        same_neighbours(case, &got, Want { k: keep, mask, exact: false })?;
        return Ok(None);
    }
    Ok(Some(got))
}

/// The direct key of every pair, as `Refine` computes it, `[queries, rows]`.
pub fn refined_keys(s: &Subject, case: &Case) -> Result<Vec<f32>, String> {
    let positions: Vec<u32> = (0..case.q()).flat_map(|_| 0..case.n() as u32).collect();
    let input = Input::Positions { positions: &positions, width: case.n() };
    let refined = candidates(case.run(&*s.engine, &[Step::Refine], None, input))?;
    let mut keys = vec![f32::NAN; case.q() * case.n()];
    for (i, (&key, &position)) in refined.keys.iter().zip(&refined.positions).enumerate() {
        keys[i / case.n() * case.n() + position as usize] = key;
    }
    Ok(keys)
}

/// Whether the screen's candidates are what its contract says: the `keep` smallest lower bounds among allowed rows,
/// each at most the direct key and not uselessly small, and a bound that no direct key of a row left out falls below.
pub fn bounds_are_right(s: &Subject, case: &Case, keep: usize, mask: Option<Mask<'_>>) -> Check {
    let Some(got) = screen_alone(s, case, keep, mask)? else { return Ok(()) };
    let direct = refined_keys(s, case)?;
    check!(got.width == keep, "{keep} places per query wanted, {} found", got.width);
    check!(got.bound.len() == case.q(), "{} bounds wanted, {} found", case.q(), got.bound.len());
    for query in 0..case.q() {
        screened_query_is_right(case, query, &got, &direct[query * case.n()..(query + 1) * case.n()], mask)
            .map_err(|e| format!("query {query}: {e}"))?;
    }
    Ok(())
}

fn screened_query_is_right(
    case: &Case,
    query: usize,
    got: &Candidates,
    direct: &[f32],
    mask: Option<Mask<'_>>,
) -> Check {
    let places = query * got.width..(query + 1) * got.width;
    let (keys, positions) = (&got.keys[places.clone()], &got.positions[places]);
    let allowed: Vec<usize> = (0..case.n()).filter(|&r| mask.is_none_or(|m| m.allows(query, r))).collect();
    let filled = allowed.len().min(got.width);
    let mut left_out = vec![true; case.n()];
    for (place, (&key, &position)) in keys.iter().zip(positions).enumerate() {
        if place >= filled {
            check!(key == f32::INFINITY && position == u32::MAX, "place {place} should be empty");
            continue;
        }
        let row = position as usize;
        check!(row < case.n() && allowed.binary_search(&row).is_ok(), "row {row} is forbidden");
        check!(std::mem::replace(&mut left_out[row], false), "row {row} is kept twice");
        let (exact, scale) = (case.key(query, row), scale(case, query, row));
        check!(key <= direct[row], "row {row}: the lower bound {key:e} exceeds the direct key {:e}", direct[row]);
        let slack = f64::from(nearfield::ops::search::slack(case.problem().dim));
        let useful = exact - 3.0 * slack * scale - f64::from(f32::MIN_POSITIVE) * 1e3;
        check!(f64::from(key) >= useful, "row {row}: the lower bound {key:e} is far below the key {exact:e}");
        let sorted = place == 0 || (keys[place - 1], positions[place - 1]) < (key, position);
        check!(sorted, "wrong order at place {place}");
    }
    let bound = got.bound[query];
    let due = if filled == got.width { keys[filled - 1] } else { f32::INFINITY };
    check!(bound == due, "the bound is {bound:e}, the last of {} places holds {due:e}", got.width);
    for &row in allowed.iter().filter(|&&r| left_out[r]) {
        check!(direct[row] >= bound, "row {row} is missing: its key {:e} is below the bound {bound:e}", direct[row]);
    }
    Ok(())
}

/// What the slack of a pair is relative to.
fn scale(case: &Case, query: usize, row: usize) -> f64 {
    let (a, b) = case.lengths(query, row);
    match case.metric {
        Metric::L2 => (a + b) * (a + b),
        Metric::InnerProduct => a * b,
        _ => 1.0,
    }
}

/// Runs search, refine and select behind the screen. For every query that the bound proves, the answer must be that
/// of the direct pass; the others must still have right keys in right order. Gives how many were proven.
pub fn screened_is_exact(
    s: &Subject,
    case: &Case,
    k: usize,
    mask: Option<Mask<'_>>,
    exact: bool,
) -> Result<usize, String> {
    let kept = (k + 8).min(case.n().max(1));
    let steps = [Step::Search { screen: Screen::F32, keep: kept }, Step::Refine, Step::SelectK { k }];
    let got = candidates(case.run(&*s.engine, &steps, mask, Input::None))?;
    let bound = &got.bound;
    check!(bound.is_empty() || bound.len() == case.q(), "{} bounds for {} queries", bound.len(), case.q());
    let mut proven = 0;
    for query in 0..case.q() {
        let pairs = pairs_of(&got, query);
        // The last key below the bound: then no row left out can be as near. No bound: the direct pass answered.
        let allowed = (0..case.n()).filter(|&r| mask.is_none_or(|m| m.allows(query, r))).count();
        let proof = bound.get(query).is_none_or(|&b| pairs[k - 1].0 < b || allowed <= kept);
        proven += usize::from(proof);
        let want = Want { k, mask, exact };
        let check = if proof {
            query_is_right(case, query, &pairs, want)
        } else {
            unproven_is_right(case, query, &pairs, mask)
        };
        check.map_err(|e| format!("query {query}: {e}"))?;
    }
    Ok(proven)
}

/// An answer that the bound did not prove may lack rows; those it has must be allowed and have right keys in order.
fn unproven_is_right(case: &Case, query: usize, pairs: &[(f32, u32)], mask: Option<Mask<'_>>) -> Check {
    for &(key, position) in pairs {
        let row = position as usize;
        check!(row < case.n() && mask.is_none_or(|m| m.allows(query, row)), "row {row} is forbidden");
        let fits = key_fits(key, case.key(query, row), case.tolerance(query, row));
        check!(fits, "the key of row {row} is {key:e}, exactly {:e}", case.key(query, row));
    }
    check!(pairs.windows(2).all(|w| w[0] < w[1]), "wrong order");
    Ok(())
}

/// Both checks of the screen; gives how many queries were proven.
#[track_caller]
fn screened(s: &Subject, case: &Case, k: usize, mask: Option<Mask<'_>>, exact: bool) -> usize {
    let keep = (k + 8).min(case.n().max(1));
    must(case, &format!("screen of {keep}"), bounds_are_right(s, case, keep, mask));
    let answer = screened_is_exact(s, case, k, mask, exact);
    let proven = *answer.as_ref().unwrap_or(&0);
    must(case, &format!("screened search of {k}"), answer.map(|_| ()));
    proven
}

pub fn row_b4_screen_gives_lower_bounds(s: &Subject) {
    for metric in SCREENED {
        for (q, n, dim) in [(1, 33, 1), (5, 300, 7), (16, 257, 64), (3, 100, 200), (2, 65, 1000)] {
            let case = Case::random(metric, DType::F32, (q, n, dim), Values::Signed);
            for keep in [1, 20, n] {
                must(&case, &format!("screen of {keep}"), bounds_are_right(s, &case, keep, None));
            }
        }
    }
    let others = if s.full { &[DType::F16, DType::Bf16, DType::I8, DType::U8][..] } else { &[DType::F16] };
    for &dtype in others {
        for &metric in if s.full { &SCREENED[..] } else { &SCREENED[..1] } {
            let case = Case::random(metric, dtype, (5, 130, 40), Values::Signed);
            must(&case, "screen of 20", bounds_are_right(s, &case, 20, None));
        }
    }
}

pub fn row_b4_screened_search_is_exact(s: &Subject) {
    for metric in SCREENED {
        for (q, n, dim) in [(1, 1000, 64), (5, 300, 33), (33, 257, 16)] {
            let case = Case::random(metric, DType::F32, (q, n, dim), Values::Signed);
            for k in [1, 10, 100] {
                let proven = screened(s, &case, k, None, false);
                assert_eq!(proven, q, "{}: the bound should prove every query of rows that lie apart", case.label());
            }
        }
        for k in [10, 129] {
            screened(
                s,
                &Case::random(metric, DType::F32, (16, 1025, 8), Values::Whole),
                k,
                None,
                metric != Metric::Cosine,
            );
        }
    }
}

pub fn row_b4_screen_with_filters(s: &Subject) {
    let case = Case::random(Metric::L2, DType::F32, (5, 300, 24), Values::Signed);
    for allow in [Allow::All, Allow::Nothing, Allow::Half, Allow::One] {
        for per_query in [false, true] {
            let bits = Bits::new(allow, case.n(), case.q(), per_query);
            let proven = screened(s, &case, 10, Some(bits.mask()), false);
            assert_eq!(proven, case.q(), "{}: {allow:?} left rows unproven", case.label());
        }
    }
}

/// Where the expansion of l2 cancels altogether the bound must say so, not the answer be wrong.
pub fn row_b4_screen_of_nearly_equal_rows(s: &Subject) {
    for metric in SCREENED {
        for dim in [3, 64, 384] {
            screened(s, &nearly_equal(metric, dim, 5, 100), 10, None, false);
        }
    }
    // The queries are rows themselves: the nearest key is 0.
    let rows = Matrix::random(DType::F32, 120, 48, Values::Signed, 21);
    let queries = Matrix::random(DType::F32, 6, 48, Values::Signed, 21);
    screened(s, &Case::new(Metric::L2, queries, rows), 10, None, false);
}
