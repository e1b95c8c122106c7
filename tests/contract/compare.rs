//! When two answers are the same. Each check says what is wrong in words, and is itself tested in `can_fail.rs`.

use std::cmp::Ordering;

use nearfield::compute::{Candidates, Mask, Output};

use crate::data::Case;

/// `Err` says what is wrong.
pub type Check = Result<(), String>;

/// Fails the check with a sentence unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($words:tt)+) => {
        // A value of its own, as comparisons with NaN are meant to be false.
        let holds: bool = $condition;
        if !holds {
            return Err(format!($($words)+));
        }
    };
}

/// The candidates of an output.
pub fn candidates(output: Output) -> Result<Candidates, String> {
    match output {
        Output::Candidates(c) => Ok(c),
        other => Err(format!("candidates were due, not {}", kind(&other))),
    }
}

pub fn kind(output: &Output) -> &'static str {
    match output {
        Output::Candidates(_) => "candidates",
        Output::Matrix(_) => "a matrix",
        Output::Range { .. } => "range hits",
        Output::Rows { .. } => "rows",
        Output::Projected { .. } => "projected rows",
        Output::Prepared(_) => "prepared queries",
        Output::Probes { .. } => "probes",
        Output::Array(_) => "an array",
    }
}

/// Whether an f32 key may stand for this exact key. Beyond the range of f32 infinity is the right answer.
pub fn key_fits(got: f32, exact: f64, tolerance: f64) -> bool {
    let largest = f64::from(f32::MAX);
    let saturated = got.is_infinite() && f64::from(got.signum()) * exact + tolerance > largest;
    saturated || (f64::from(got) - exact).abs() <= tolerance
}

/// Smaller (key, position) first; zeros have no sign.
fn ordered(a: (f32, u32), b: (f32, u32)) -> bool {
    a.0 < b.0 || (a.0 == b.0 && a.1 < b.1)
}

/// What is asked of the answers to a search besides their own order and exactness.
#[derive(Clone, Copy)]
pub struct Want<'a> {
    pub k: usize,
    pub mask: Option<Mask<'a>>,
    /// Keys are exact in f32, so that positions must be those of the reference, ties included.
    pub exact: bool,
}

impl<'a> Want<'a> {
    pub fn k(k: usize) -> Want<'a> {
        Want { k, mask: None, exact: false }
    }

    pub fn exact(k: usize) -> Want<'a> {
        Want { k, mask: None, exact: true }
    }
}

/// Whether `got` are the k nearest allowed rows of every query: as many as there are, each key within tolerance of
/// the exact one, smallest (key, position) first, none twice, none forbidden, and none missing that is nearer than a
/// returned one by more than the tolerances.
pub fn same_neighbours(case: &Case, got: &Candidates, want: Want<'_>) -> Check {
    let (q, k) = (case.q(), want.k);
    check!(got.width == k, "{k} places per query wanted, {} found", got.width);
    check!(got.keys.len() == q * k, "{} keys wanted, {} found", q * k, got.keys.len());
    check!(got.positions.len() == q * k, "{} positions wanted, {} found", q * k, got.positions.len());
    for query in 0..q {
        query_is_right(case, query, &pairs_of(got, query), want).map_err(|e| format!("query {query}: {e}"))?;
    }
    Ok(())
}

/// (key, position) of each place of a query.
pub fn pairs_of(got: &Candidates, query: usize) -> Vec<(f32, u32)> {
    let places = query * got.width..(query + 1) * got.width;
    got.keys[places.clone()].iter().copied().zip(got.positions[places].iter().copied()).collect()
}

/// [`same_neighbours`] for the pairs of one query.
pub fn query_is_right(case: &Case, query: usize, pairs: &[(f32, u32)], want: Want<'_>) -> Check {
    let allowed: Vec<usize> = (0..case.n()).filter(|&r| want.mask.is_none_or(|m| m.allows(query, r))).collect();
    check!(pairs.len() == want.k, "{} places wanted, {} found", want.k, pairs.len());
    let filled = allowed.len().min(pairs.len());
    let (hits, padding) = pairs.split_at(filled);
    for (place, &(key, position)) in hits.iter().enumerate() {
        check!(position != u32::MAX, "a row is missing: {filled} places should be filled, {place} are");
        hit_is_right(case, query, &allowed, (key, position)).map_err(|e| format!("place {place}: {e}"))?;
    }
    for (place, window) in hits.windows(2).enumerate() {
        check!(ordered(window[0], window[1]), "wrong order at places {place} and {}: {window:?}", place + 1);
    }
    for &(key, position) in padding {
        let empty = key == f32::INFINITY && position == u32::MAX;
        check!(empty, "an empty place should be (inf, {}), it is ({key}, {position})", u32::MAX);
    }
    nothing_is_missing(case, query, &allowed, hits)?;
    if want.exact {
        exact_positions(case, query, &allowed, hits)?;
    }
    Ok(())
}

fn hit_is_right(case: &Case, query: usize, allowed: &[usize], (key, position): (f32, u32)) -> Check {
    let row = position as usize;
    check!(row < case.n(), "row {row} does not exist, there are {}", case.n());
    check!(allowed.binary_search(&row).is_ok(), "row {row} is forbidden");
    let (exact, tolerance) = (case.key(query, row), case.tolerance(query, row));
    check!(
        key_fits(key, exact, tolerance),
        "key of row {row} is {key:e}, exactly {exact:e}: off by {:e}, tolerance {tolerance:e}",
        (f64::from(key) - exact).abs()
    );
    Ok(())
}

/// Every row left out must be at least as far as the farthest one returned, give or take both tolerances. (Rows
/// returned twice are found by the order: equal pairs are not in order.)
fn nothing_is_missing(case: &Case, query: usize, allowed: &[usize], hits: &[(f32, u32)]) -> Check {
    let mut returned: Vec<usize> = hits.iter().map(|h| h.1 as usize).collect();
    returned.sort_unstable();
    check!(returned.windows(2).all(|w| w[0] != w[1]), "a row is returned twice");
    let at_least = |r: usize| case.key(query, r) - case.tolerance(query, r);
    let Some(farthest) = returned.iter().copied().max_by(|&a, &b| at_least(a).total_cmp(&at_least(b))) else {
        return Ok(());
    };
    let limit = at_least(farthest);
    for &row in allowed.iter().filter(|r| returned.binary_search(r).is_err()) {
        let at_most = case.key(query, row) + case.tolerance(query, row);
        check!(
            at_most >= limit,
            "row {row} is missing: its exact key is {:e}, that of row {farthest}, which was returned, {:e}",
            case.key(query, row),
            case.key(query, farthest)
        );
    }
    Ok(())
}

fn exact_positions(case: &Case, query: usize, allowed: &[usize], hits: &[(f32, u32)]) -> Check {
    let mut wanted = allowed.to_vec();
    wanted.sort_by(|&a, &b| case.key(query, a).total_cmp(&case.key(query, b)).then(a.cmp(&b)));
    for (place, (&want, &(key, got))) in wanted.iter().zip(hits).enumerate() {
        check!(want == got as usize, "tie order: place {place} should hold row {want}, it holds row {got}");
        let exact = case.key(query, want) as f32;
        check!(exact == key, "the key of row {want} should be {exact:e} exactly, it is {key:e}");
    }
    Ok(())
}

/// Rows that are equal in every bit must have equal keys, so that the smaller position comes first and none is
/// returned while one before it is not. `twin[r]` is the first row equal to row r.
pub fn duplicates_in_order(case: &Case, got: &Candidates, twin: &[usize]) -> Check {
    for query in 0..case.q() {
        let places = query * got.width..(query + 1) * got.width;
        let hits: Vec<(f32, usize)> = places
            .filter(|&i| got.positions[i] != u32::MAX)
            .map(|i| (got.keys[i], got.positions[i] as usize))
            .collect();
        for (place, &(key, row)) in hits.iter().enumerate() {
            let before = (0..row).filter(|&r| twin[r] == twin[row]);
            for r in before {
                let earlier = hits[..place].iter().find(|h| h.1 == r);
                check!(earlier.is_some(), "query {query}: row {row} is returned before its equal {r}");
                check!(
                    earlier.is_some_and(|h| h.0.partial_cmp(&key) == Some(Ordering::Equal)),
                    "query {query}: rows {r} and {row} are equal, their keys are not"
                );
            }
        }
    }
    Ok(())
}

/// Whether two engines give the same ids: where they differ, the rows are equally far within their tolerances.
pub fn same_ids(case: &Case, a: &Candidates, b: &Candidates) -> Check {
    check!(a.positions.len() == b.positions.len(), "{} places against {}", a.positions.len(), b.positions.len());
    for (i, (&ra, &rb)) in a.positions.iter().zip(&b.positions).enumerate() {
        if ra == rb {
            continue;
        }
        let query = i / a.width;
        check!(ra != u32::MAX && rb != u32::MAX, "query {query}: row {ra} against row {rb}");
        let (ra, rb) = (ra as usize, rb as usize);
        let gap = (case.key(query, ra) - case.key(query, rb)).abs();
        let near = gap <= case.tolerance(query, ra) + case.tolerance(query, rb);
        check!(near, "query {query}, place {}: row {ra} against row {rb}, whose keys differ by {gap:e}", i % a.width);
    }
    Ok(())
}

/// Panics with the case's label when a check fails.
#[track_caller]
pub fn must(case: &Case, what: &str, check: Check) {
    if let Err(e) = check {
        panic!("{} {what}: {e}", case.label());
    }
}
