//! `search` through screens of low precision: 8-bit codes, and f16.

use crate::task::{Input, Step};
use nearfield::compute::{Candidates, Mask};
use nearfield::ops::Screen;
use nearfield::stats::SearchStats;
use nearfield::{DType, Metric};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::Subject;
use crate::check;
use crate::coder::Encoded;
use crate::compare::{Check, Want, candidates, must, pairs_of, query_is_right, same_neighbours};
use crate::data::{Allow, Bits, Case, Matrix, Values};
use crate::distance::nearly_equal;
use crate::search::{SCREENED, refined_keys};

/// A case, its screen, and codes where the screen reads some.
struct Screened<'a> {
    case: &'a Case,
    screen: Screen,
    codes: Option<Encoded>,
}

impl<'a> Screened<'a> {
    fn int8(case: &'a Case, dim: usize) -> Screened<'a> {
        Screened { case, screen: Screen::Int8, codes: Some(Encoded::new(case, dim)) }
    }

    fn f16(case: &'a Case) -> Screened<'a> {
        Screened { case, screen: Screen::F16, codes: None }
    }

    fn run(&self, s: &Subject, steps: &[Step], mask: Option<Mask<'_>>) -> Result<(Candidates, SearchStats), String> {
        let coded = self.codes.as_ref().map(Encoded::coded);
        match self.case.try_run_coded(&*s.engine, steps, mask, Input::None, None, coded) {
            Ok((output, stats)) => candidates(output).map(|c| (c, stats)),
            Err(e) => Err(format!("{steps:?} gave an error: {e}")),
        }
    }

    /// The contract of a screen alone: each candidate an allowed row with a bound that does not exceed its direct key,
    /// smallest first; no row left out has a direct key below the bound.
    fn bounds_are_right(&self, s: &Subject, keep: usize, mask: Option<Mask<'_>>) -> Check {
        let case = self.case;
        let (got, _) = self.run(s, &[Step::Search { screen: self.screen, keep }], mask)?;
        if got.bound.is_empty() {
            return same_neighbours(case, &got, Want { k: got.width.min(keep), mask, exact: false });
        }
        check!(got.bound.len() == case.q(), "{} bounds wanted, {} found", case.q(), got.bound.len());
        let direct = refined_keys(s, case)?;
        for query in 0..case.q() {
            let direct = &direct[query * case.n()..(query + 1) * case.n()];
            self.query_is_right(query, &got, direct, mask).map_err(|e| format!("query {query}: {e}"))?;
        }
        Ok(())
    }

    fn query_is_right(&self, query: usize, got: &Candidates, direct: &[f32], mask: Option<Mask<'_>>) -> Check {
        let n = self.case.n();
        let allowed = |row: usize| row < n && mask.is_none_or(|m| m.allows(query, row));
        let mut left_out: Vec<bool> = (0..n).map(allowed).collect();
        let pairs: Vec<(f32, u32)> = pairs_of(got, query).into_iter().filter(|pair| pair.1 != u32::MAX).collect();
        for &(key, position) in &pairs {
            let row = position as usize;
            check!(allowed(row), "row {row} is forbidden");
            check!(std::mem::replace(&mut left_out[row], false), "row {row} is there twice");
            check!(key <= direct[row], "row {row}: the bound {key:e} exceeds the direct key {:e}", direct[row]);
        }
        check!(pairs.windows(2).all(|w| w[0] < w[1]), "wrong order");
        let bound = got.bound[query];
        for row in (0..n).filter(|&r| left_out[r]) {
            check!(
                direct[row] >= bound,
                "row {row} is missing: its key {:e} is below the bound {bound:e}",
                direct[row]
            );
        }
        let missing = left_out.contains(&true);
        check!(missing || bound == f32::INFINITY || pairs.len() == got.width, "the bound is {bound:e} for no reason");
        Ok(())
    }

    /// Behind screen, refine and select every proven answer must be that of the direct pass. Gives how many are proven.
    fn is_exact(&self, s: &Subject, k: usize, mask: Option<Mask<'_>>, exact: bool) -> Result<usize, String> {
        let case = self.case;
        let keep = (k + k.max(118)).min(case.n().max(1));
        let steps = [Step::Search { screen: self.screen, keep }, Step::Refine, Step::SelectK { k }];
        let (got, _) = self.run(s, &steps, mask)?;
        check!(got.width == k, "{k} places per query wanted, {} found", got.width);
        let mut proven = 0;
        for query in 0..case.q() {
            let pairs = pairs_of(&got, query);
            let bound = got.bound.get(query).copied().unwrap_or(f32::INFINITY);
            if bound == f32::INFINITY || pairs[k - 1].0 < bound {
                proven += 1;
                query_is_right(case, query, &pairs, Want { k, mask, exact })
                    .map_err(|e| format!("query {query}: {e}"))?;
            }
        }
        Ok(proven)
    }

    #[track_caller]
    fn right(&self, s: &Subject, k: usize, mask: Option<Mask<'_>>, exact: bool) -> usize {
        let keep = (k + k.max(118)).min(self.case.n().max(1));
        must(self.case, &format!("{} screen of {keep}", self.screen), self.bounds_are_right(s, keep, mask));
        let answer = self.is_exact(s, k, mask, exact);
        let proven = *answer.as_ref().unwrap_or(&0);
        must(self.case, &format!("search of {k} behind {}", self.screen), answer.map(|_| ()));
        proven
    }
}

/// Both screens of a case.
fn screens(case: &Case) -> Vec<Screened<'_>> {
    vec![Screened::int8(case, 16), Screened::int8(case, case.problem().dim.next_multiple_of(16)), Screened::f16(case)]
}

pub fn row_b8_bounds_of_every_metric(s: &Subject) {
    for metric in SCREENED {
        for (q, n, dim) in [(1, 33, 1), (5, 300, 7), (16, 257, 64), (33, 700, 200), (3, 1500, 48)] {
            let case = Case::random(metric, DType::F32, (q, n, dim), Values::Signed);
            for screened in screens(&case) {
                for keep in [1, 20, 200, n] {
                    must(&case, &format!("{} of {keep}", screened.screen), screened.bounds_are_right(s, keep, None));
                }
            }
        }
    }
}

pub fn row_b8_screened_search_is_exact(s: &Subject) {
    for metric in SCREENED {
        for (q, n, dim) in [(1, 3000, 64), (5, 1000, 33), (40, 1500, 16)] {
            let case = Case::random(metric, DType::F32, (q, n, dim), Values::Signed);
            for screened in [Screened::int8(&case, dim.next_multiple_of(16)), Screened::f16(&case)] {
                for k in [1, 10, 100] {
                    let proven = screened.right(s, k, None, false);
                    assert_eq!(proven, q, "{}: all of them can be proven ({})", case.label(), screened.screen);
                }
            }
        }
        let whole = Case::random(metric, DType::F32, (16, 1025, 8), Values::Whole);
        screens(&whole).iter().for_each(|x| _ = x.right(s, 10, None, metric != Metric::Cosine));
    }
    for dtype in [DType::F16, DType::U8, DType::I8, DType::Bf16] {
        let case = Case::random(Metric::L2, dtype, (5, 700, 40), Values::Signed);
        screens(&case).iter().for_each(|x| _ = x.right(s, 10, None, false));
    }
}

pub fn row_b8_filters(s: &Subject) {
    for (q, n) in [(5, 600), (1, 1000)] {
        let case = Case::random(Metric::L2, DType::F32, (q, n, 24), Values::Signed);
        for allow in [Allow::All, Allow::Nothing, Allow::Half, Allow::One] {
            for per_query in [false, true] {
                let bits = Bits::new(allow, n, q, per_query);
                for screened in screens(&case) {
                    screened.right(s, 10, Some(bits.mask()), false);
                }
            }
        }
    }
}

/// Rows for which a screen can prove little.
pub fn row_b8_adversarial_rows(s: &Subject) {
    let n = 700;
    let row = |f: &dyn Fn(usize, usize) -> f32| Matrix::from_fn(DType::F32, n, 24, f);
    let tiny = f32::powi(2.0, -30);
    let kinds: [(&str, Matrix); 6] = [
        ("all rows equal", row(&|_, c| c as f32)),
        ("one row far away", row(&|r, c| if r == 5 { 1e8 } else { ((r * 7 + c) % 13) as f32 })),
        ("zero rows", row(&|r, c| if r % 3 == 0 { 0.0 } else { ((r + c) % 5) as f32 })),
        ("one component", row(&|r, c| if c == 3 { r as f32 } else { 0.0 })),
        ("tiny components beside large ones", row(&|r, c| if c % 2 == 0 { 100.0 } else { tiny * r as f32 })),
        ("clusters", row(&|r, c| ((r / 100 * 37 + c * 11) % 29) as f32 + (r % 100) as f32 * 1e-3)),
    ];
    for (what, rows) in kinds {
        for metric in SCREENED {
            let queries = Matrix::from_fn(DType::F32, 5, 24, |r, c| ((r * 3 + c) % 11) as f32);
            let case = Case::new(metric, queries, rows.clone());
            for screened in screens(&case) {
                for k in [1, 10, 100] {
                    let keep = k + k.max(118);
                    let bounds = screened.bounds_are_right(s, keep, None);
                    must(&case, &format!("{what}: {} screen of {keep}", screened.screen), bounds);
                    let answer = screened.is_exact(s, k, None, false).map(|_| ());
                    must(&case, &format!("{what}: search of {k} behind {}", screened.screen), answer);
                }
            }
        }
    }
    for metric in SCREENED {
        for dim in [3, 64, 384] {
            let case = nearly_equal(metric, dim, 5, 300);
            screens(&case).iter().for_each(|x| _ = x.right(s, 10, None, false));
        }
    }
}

/// Codes that do not fit their rows are an error, and so are none at all.
pub fn row_b8_codes_that_do_not_fit(s: &Subject) {
    let case = Case::random(Metric::L2, DType::F32, (5, 300, 24), Values::Signed);
    let without = Screened { case: &case, screen: Screen::Int8, codes: None };
    let refused = without.run(s, &[Step::Search { screen: Screen::Int8, keep: 10 }], None);
    assert!(refused.as_ref().is_err_and(|why| why.contains("needs codes")), "{refused:?}");
    let empty = Case::random(Metric::L2, DType::F32, (0, 300, 24), Values::Signed);
    Screened::int8(&empty, 16).right(s, 10, None, false);
}

/// The same cases every time; `PROPTEST_CASES` asks for more of them.
pub fn row_b8_any_shape(s: &Subject) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    let cases = cases.unwrap_or(if s.full { 100 } else { 40 });
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let values = prop::sample::select(vec![Values::Positive, Values::Signed, Values::Whole, Values::WholeSigned]);
    let allow = prop::option::of(prop::sample::select(vec![Allow::All, Allow::Half]));
    let sizes = (1..40usize, 1..900usize, 1..70usize, 1..6usize, 1..150usize);
    let shapes = (prop::sample::select(SCREENED.to_vec()), sizes, values, allow);
    let outcome = runner.run(&shapes, |(metric, (q, n, dim, units, k), values, allow)| {
        let case = Case::random(metric, DType::F32, (q, n, dim), values);
        let bits = allow.map(|allow| Bits::new(allow, n, q, true));
        let mask = bits.as_ref().map(Bits::mask);
        for screened in [Screened::int8(&case, 16 * units), Screened::f16(&case)] {
            let check = screened.bounds_are_right(s, k.min(n), mask);
            let check = check.and_then(|()| screened.is_exact(s, k, mask, false).map(|_| ()));
            check.map_err(|e| TestCaseError::fail(format!("{} {}: {e}", case.label(), screened.screen)))?;
        }
        Ok(())
    });
    if let Err(e) = outcome {
        panic!("{}: {e}", s.engine.name());
    }
}
