//! What concerns an engine as a whole: agreement with others, resident rows, threads, repetition, wrong shapes.

use crate::task::{Base, Input, Plan, Step, Task};
use nearfield::compute::{EngineError, Tag};
use nearfield::ops::Screen;
use nearfield::stats::SearchStats;
use nearfield::{DType, Metric};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::compare::{Check, Want, candidates, must, same_ids, same_neighbours};
use crate::data::{Allow, Bits, Case, Matrix, Rng, Values};
use crate::distance::{DTYPES, METRICS};
use crate::search::{SCREENED, bounds_are_right, direct, screened_is_exact};
use crate::{Subject, engines, range, refine, search};

const SEARCH: [Step; 1] = [Step::Search { screen: Screen::None, keep: 10 }];

/// The same ids as the CPU's, ties and near-ties within the rounding bound excepted; exactly those on whole numbers.
pub fn row_a1_same_ids_as_the_cpu(s: &Subject) {
    let cpu = Subject { engine: engines::peer(), full: true };
    for (metric, shape, values) in [
        (Metric::L2, (16, 1025, 64), Values::Signed),
        (Metric::L2, (16, 1025, 4), Values::Whole),
        (Metric::InnerProduct, (5, 1000, 33), Values::Signed),
        (Metric::Cosine, (5, 1000, 33), Values::Signed),
    ] {
        let case = Case::random(metric, DType::F32, shape, values);
        for k in [1, 10, 100] {
            let both = search::direct(s, &case, k, None).and_then(|a| Ok((a, search::direct(&cpu, &case, k, None)?)));
            let check = both.and_then(|(a, b)| {
                if values == Values::Whole && a.positions != b.positions {
                    return Err("other ids on whole numbers".to_owned());
                }
                same_ids(&case, &a, &b)
            });
            must(&case, &format!("search of {k}, against {}", cpu.engine.name()), check);
        }
    }
}

/// Rows under a tag may be kept by the engine; what is appended is seen, and what is changed under a new epoch.
pub fn row_c1_appended_and_changed_rows_are_seen(s: &Subject) {
    let mut tag = Tag::new();
    let queries = || Matrix::random(DType::F32, 3, 12, Values::Signed, 1);
    let rows = |n: usize, changed: Option<usize>| {
        let mut rng = Rng::new(77);
        Matrix::from_fn(DType::F32, n, 12, |r, _| rng.normal() as f32 + if changed == Some(r) { 1.0 } else { 0.0 })
    };
    let search = |n: usize, changed: Option<usize>, tag: &Tag| {
        let case = Case::new(Metric::L2, queries(), rows(n, changed));
        for screen in [Screen::None, Screen::F32] {
            let plan = Plan::search(case.problem(), 10, screen);
            let output = case.try_run(&*s.engine, &plan.steps, None, Input::None, Some(tag));
            let check = output
                .map_err(|e| e.to_string())
                .and_then(|(output, _)| same_neighbours(&case, &candidates(output)?, Want::k(10)));
            must(&case, &format!("search of resident rows (screen {screen})"), check);
        }
    };
    search(50, None, &tag);
    search(50, None, &tag);
    for n in [51, 64, 200, 1000] {
        search(n, None, &tag);
    }
    tag.bump();
    search(1000, Some(3), &tag);
    search(1001, Some(3), &tag);
    tag.bump();
    search(20, Some(5), &tag);
    // Another base of the same shape is another base.
    search(20, Some(6), &Tag::new());
    search(20, Some(5), &tag);
}

/// An engine is shared by threads.
pub fn row_e4_concurrent_searches_agree(s: &Subject) {
    let case = |i: usize| Case::random(Metric::L2, DType::F32, (1 + i, 200 + 31 * i, 24), Values::Signed);
    std::thread::scope(|scope| {
        let search = |i: usize| {
            scope.spawn(move || {
                let case = case(i);
                for k in [1, 10, 129, 10] {
                    let check =
                        search::direct(s, &case, k, None).and_then(|got| same_neighbours(&case, &got, Want::k(k)));
                    must(&case, "search beside others", check);
                }
            })
        };
        for thread in [0, 1, 2, 3].map(search) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// The same call twice gives the same bits.
pub fn row_e6_same_bits_twice(s: &Subject) {
    let case = Case::random(Metric::L2, DType::F32, (16, 1025, 64), Values::Signed);
    for k in [10, 129] {
        let run = || search::direct(s, &case, k, None).unwrap_or_else(|e| panic!("{}: {e}", case.label()));
        let first = run();
        for _ in 0..3 {
            assert_eq!(first, run(), "{}: another answer the second time", case.label());
        }
    }
}

/// Shapes that do not fit are an error, never a panic, and the engine works afterwards.
pub fn wrong_shapes_are_errors(s: &Subject) {
    let case = Case::random(Metric::Cosine, DType::F32, (3, 40, 8), Values::Signed);
    let other = Case::random(Metric::Cosine, DType::F32, (3, 40, 9), Values::Signed);
    let norms = vec![1.0; 40];
    let plan = Plan { problem: case.problem(), steps: SEARCH.to_vec() };
    let whole = Task {
        plan: &plan,
        base: Base { rows: case.rows.view(), norms: Some(&norms), tag: None, codes: None },
        queries: case.queries.view(),
        query_norms: &norms[..3],
        mask: None,
        input: Input::None,
    };
    let shorter = case.rows.view().slice(0, 39);
    for (what, task) in [
        ("queries of another dim", Task { queries: other.queries.view(), ..whole }),
        ("rows of another dim", Task { base: Base { rows: other.rows.view(), ..whole.base }, ..whole }),
        ("fewer rows than the plan says", Task { base: Base { rows: shorter, ..whole.base }, ..whole }),
        ("fewer norms than rows", Task { base: Base { norms: Some(&norms[..39]), ..whole.base }, ..whole }),
    ] {
        let outcome = task.run(&*s.engine, &mut SearchStats::default());
        assert!(matches!(outcome, Err(EngineError::Mismatch(_))), "{what}: {outcome:?}");
    }
    let check = candidates(case.run(&*s.engine, &SEARCH, None, Input::None));
    must(&case, "search after errors", check.and_then(|got| same_neighbours(&case, &got, Want::k(10))));
}

pub fn stats_tell_what_ran(s: &Subject) {
    let case = Case::random(Metric::L2, DType::F32, (5, 300, 16), Values::Signed);
    let (_, stats) =
        case.try_run(&*s.engine, &SEARCH, None, Input::None, None).unwrap_or_else(|e| panic!("{}: {e}", case.label()));
    assert!(!stats.device.is_empty(), "no device in {stats:?}");
    assert!(stats.kernels.iter().any(|k| k.starts_with("search")), "no search kernel in {stats:?}");
    assert_eq!(stats.scanned, 5 * 300, "pairs scanned in {stats:?}");
}

pub fn ceilings_are_measured(s: &Subject) {
    let c = s.engine.ceilings();
    for figure in [c.bytes_per_second, c.operations_per_second] {
        assert!(figure.is_finite() && figure > 1e6, "{}: {c:?}", s.engine.name());
    }
    assert!((0.0..0.1).contains(&c.launch_seconds), "{}: {c:?}", s.engine.name());
    assert_eq!(c, s.engine.ceilings(), "measured once");
}

// --- any shape -----------------------------------------------------------------------------------------------------

/// One random task.
#[derive(Clone, Debug)]
struct Shape {
    metric: Metric,
    dtype: DType,
    size: (usize, usize, usize),
    gap: usize,
    k: usize,
    values: Values,
    allow: Option<(Allow, bool)>,
}

impl Shape {
    /// Packed bits come in bytes, and have metrics of their own.
    fn possible(mut self) -> Shape {
        if self.dtype == DType::Bits {
            self.size.2 *= 8;
            self.metric = if self.k.is_multiple_of(2) { Metric::Hamming } else { Metric::Jaccard };
        }
        self
    }
}

fn shapes(metrics: Vec<Metric>, dtypes: Vec<DType>, most_rows: usize) -> impl Strategy<Value = Shape> {
    let kinds = (prop::sample::select(metrics), prop::sample::select(dtypes));
    let sizes = (0..20usize, 0..most_rows, 1..70usize, 0..4usize, 1..150usize);
    let values = prop::sample::select(vec![Values::Positive, Values::Signed, Values::Whole, Values::WholeSigned]);
    let allow = prop::sample::select(vec![Allow::All, Allow::Nothing, Allow::Half, Allow::One]);
    let allow = prop::option::of((allow, any::<bool>()));
    (kinds, sizes, values, allow).prop_map(|((metric, dtype), (q, n, dim, gap, k), values, allow)| {
        Shape { metric, dtype, size: (q, n, dim), gap, k, values, allow }.possible()
    })
}

fn shape_is_right(s: &Subject, shape: &Shape) -> Check {
    let case = Case::strided(shape.metric, shape.dtype, shape.size, shape.values, shape.gap);
    let whole = matches!(shape.values, Values::Whole | Values::WholeSigned);
    let sums = matches!(shape.metric, Metric::L2 | Metric::InnerProduct | Metric::L1 | Metric::Linf);
    let exact = (whole && sums) || shape.metric == Metric::Hamming;
    let bits = shape.allow.map(|(allow, per_query)| Bits::new(allow, case.n(), case.q(), per_query));
    let (k, mask) = (shape.k, bits.as_ref().map(Bits::mask));

    let got = direct(s, &case, k, mask)?;
    same_neighbours(&case, &got, Want { k, mask, exact })?;
    // The last place that is filled makes a radius on which a row lies.
    let radius = got.keys.iter().copied().rfind(|key| key.is_finite()).unwrap_or(0.0);
    range::hits_are_right(s, &case, &range::Ask { radius, mask, exact })?;
    refine::keys_are_right(s, &case, &got.positions, k)?;
    if SCREENED.contains(&shape.metric) {
        bounds_are_right(s, &case, k.min(case.n().max(1)), mask)?;
        screened_is_exact(s, &case, k, mask, exact)?;
    }
    Ok(())
}

/// The same cases every time; `PROPTEST_CASES` asks for more of them.
pub fn row_b4_b5_b13_any_shape(s: &Subject) {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    let (metrics, dtypes, cases, rows) = if s.full {
        (METRICS.to_vec(), DTYPES.to_vec(), 300, 700)
    } else {
        (SCREENED.to_vec(), vec![DType::F32], 100, 300)
    };
    let cases = asked.unwrap_or(cases);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome =
        runner.run(&shapes(metrics, dtypes, rows), |shape| shape_is_right(s, &shape).map_err(TestCaseError::fail));
    if let Err(e) = outcome {
        panic!("{}: {e}", s.engine.name());
    }
}
