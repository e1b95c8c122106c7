//! Every verb at every level against the naive references.

use half::{bf16, f16};

use super::*;
use crate::compute::Mask;
use crate::ops::{self, Norm, metric::tolerance};
use crate::types::{Bitmap, BitsView, DType, MatrixView, Metric};
use nearfield::tasks::{Base, Input, Plan, Problem, Step, Task};

const DIMS: [usize; 12] = [1, 2, 3, 7, 17, 31, 33, 64, 100, 127, 384, 769];

const METRICS: [Metric; 14] = [
    Metric::L2,
    Metric::InnerProduct,
    Metric::Cosine,
    Metric::L1,
    Metric::Linf,
    Metric::Lp(0.5),
    Metric::Lp(1.0),
    Metric::Lp(1.7),
    Metric::Lp(3.0),
    Metric::Lp(4.0),
    Metric::Canberra,
    Metric::BrayCurtis,
    Metric::JensenShannon,
    Metric::Jaccard,
];

/// Numbers that are the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / f32::powi(2.0, 23) - 1.0
    }

    /// Some zeros among them, so that 0/0 and ties occur.
    fn vector(&mut self, len: usize, non_negative: bool) -> Vec<f32> {
        let number = |r: &mut Random| {
            let x = r.next();
            let x = if r.next() < -0.8 { 0.0 } else { x };
            if non_negative { x.abs() } else { x }
        };
        (0..len).map(|_| number(self)).collect()
    }
}

/// Rows of every element type.
enum Stored {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    Bits(Vec<u8>),
}

impl Stored {
    fn new(dtype: DType, random: &mut Random, rows: usize, dim: usize, non_negative: bool) -> Stored {
        let x = random.vector(rows * dim, non_negative);
        match dtype {
            DType::F16 => Stored::F16(x.into_iter().map(f16::from_f32).collect()),
            DType::Bf16 => Stored::Bf16(x.into_iter().map(bf16::from_f32).collect()),
            DType::I8 => Stored::I8(x.into_iter().map(|x| (x * 127.0) as i8).collect()),
            DType::U8 => Stored::U8(x.into_iter().map(|x| (x.abs() * 255.0) as u8).collect()),
            DType::Bits => Stored::Bits((0..rows * dim).map(|_| (random.next() * 1e6) as i32 as u8).collect()),
            _ => Stored::F32(x),
        }
    }

    /// `dim` counts bytes for packed bits.
    fn view(&self, dim: usize) -> RowsView<'_> {
        match self {
            Stored::F32(x) => RowsView::F32(MatrixView::new(x, dim).unwrap()),
            Stored::F16(x) => RowsView::F16(MatrixView::new(x, dim).unwrap()),
            Stored::Bf16(x) => RowsView::Bf16(MatrixView::new(x, dim).unwrap()),
            Stored::I8(x) => RowsView::I8(MatrixView::new(x, dim).unwrap()),
            Stored::U8(x) => RowsView::U8(MatrixView::new(x, dim).unwrap()),
            Stored::Bits(x) => RowsView::Bits(BitsView::from_bytes(MatrixView::new(x, dim).unwrap())),
        }
    }
}

fn lengths(rows: &RowsView<'_>) -> Vec<f32> {
    let length = |r| ops::distance::row_f64(rows, r).iter().map(|x| x * x).sum::<f64>().sqrt() as f32;
    (0..rows.rows()).map(length).collect()
}

fn engines() -> Vec<CpuEngine> {
    let level = |level| CpuEngine::new(CpuOptions { threads: Some(2), level: Some(level) });
    let engines: Vec<CpuEngine> = Level::available().into_iter().map(level).collect();
    assert!(engines.iter().zip(Level::available()).all(|(e, l)| e.level() == l));
    engines
}

/// A task with its data: rows, queries, lengths.
struct Case {
    problem: Problem,
    rows: Stored,
    queries: Stored,
    unit: usize,
    norms: Vec<f32>,
    query_norms: Vec<f32>,
}

impl Case {
    fn new(metric: Metric, dtype: DType, dim: usize, rows: usize, queries: usize) -> Case {
        let mut random = Random(dim as u64 * 31 + rows as u64);
        let non_negative = metric.needs_non_negative();
        let data = Stored::new(dtype, &mut random, rows, dim, non_negative);
        let query_dtype = if dtype == DType::Bits { DType::Bits } else { DType::F32 };
        let asked = Stored::new(query_dtype, &mut random, queries, dim, non_negative);
        let (norms, query_norms) = (lengths(&data.view(dim)), lengths(&asked.view(dim)));
        let dim_bits = if dtype == DType::Bits { dim * 8 } else { dim };
        let problem = Problem { metric, dtype, dim: dim_bits, rows, queries };
        Case { problem, rows: data, queries: asked, unit: dim, norms, query_norms }
    }

    fn run(&self, engine: &CpuEngine, steps: &[Step], mask: Option<Mask<'_>>, input: Input<'_>) -> Output {
        let plan = Plan { problem: self.problem, steps: steps.to_vec() };
        let base = Base { rows: self.rows.view(self.unit), norms: Some(&self.norms), tag: None, codes: None };
        let (queries, query_norms) = (self.queries.view(self.unit), &self.query_norms[..]);
        let task = Task { plan: &plan, base, queries, query_norms, mask, input };
        task.run(engine, &mut SearchStats::default()).unwrap()
    }

    fn tolerance(&self, exact: f64, q: usize, r: usize) -> f64 {
        let (a, b) = (f64::from(self.query_norms[q]), f64::from(self.norms[r]));
        tolerance(self.problem.metric, self.problem.dtype, self.problem.dim, exact, a, b)
    }

    fn exact(&self) -> Vec<f64> {
        ops::distance::reference(self.problem.metric, &self.queries.view(self.unit), &self.rows.view(self.unit))
    }

    /// The keys are right for their positions, in order, and as small as those of the reference.
    fn check_best(&self, what: &str, got: &Candidates, want: &[Vec<(f64, u32)>], exact: &[f64], k: usize) {
        let n = self.problem.rows;
        assert_eq!((got.width, got.keys.len(), got.positions.len()), (k, k * want.len(), k * want.len()), "{what}");
        for (q, want) in want.iter().enumerate() {
            for i in 0..k {
                let (key, position) = (got.keys[q * k + i], got.positions[q * k + i]);
                let Some(&(best, _)) = want.get(i) else {
                    assert_eq!((key, position), (f32::INFINITY, u32::MAX), "{what} query {q} place {i}");
                    continue;
                };
                let own = exact[q * n + position as usize];
                let bound = self.tolerance(own, q, position as usize);
                assert!((f64::from(key) - own).abs() <= bound, "{what} query {q} place {i}: {key} {own}");
                assert!((own - best).abs() <= 2.0 * bound, "{what} query {q} place {i}: {own}, best {best}");
                if i > 0 {
                    let before = (got.keys[q * k + i - 1], got.positions[q * k + i - 1]);
                    assert!(before < (key, position), "{what} query {q} place {i}: order");
                }
            }
        }
    }
}

fn candidates(output: Output) -> Candidates {
    match output {
        Output::Candidates(candidates) => candidates,
        other => panic!("{other:?}"),
    }
}

/// Every metric on every element type that it is defined on.
fn each_case(dims: &[usize], rows: usize, queries: usize, mut f: impl FnMut(&str, Case)) {
    for &dim in dims {
        for dtype in DType::ALL.into_iter().filter(|dtype| !dtype.is_wide()) {
            for metric in METRICS.into_iter().chain([Metric::Hamming]).filter(|m| m.supports(dtype)) {
                if metric.needs_non_negative() && dtype == DType::I8 {
                    continue;
                }
                f(&format!("{metric} {dtype} dim {dim}"), Case::new(metric, dtype, dim, rows, queries));
            }
        }
    }
}

#[test]
fn distance_matches_the_reference() {
    let engines = engines();
    each_case(&DIMS, 21, 5, |what, case| {
        let exact = case.exact();
        for engine in &engines {
            let Output::Matrix(keys) = case.run(engine, &[Step::Distance], None, Input::None) else { panic!() };
            assert_eq!(keys.len(), exact.len());
            for (i, (&key, &want)) in keys.iter().zip(&exact).enumerate() {
                let bound = case.tolerance(want, i / 21, i % 21);
                let error = (f64::from(key) - want).abs();
                assert!(error <= bound, "{what} {:?} pair {i}: {key} for {want}", engine.level());
            }
        }
    });
}

#[test]
fn keys_do_not_depend_on_neighbours_or_threads() {
    let engines = engines();
    each_case(&[33], 300, 9, |what, case| {
        for engine in &engines {
            let Output::Matrix(keys) = case.run(engine, &[Step::Distance], None, Input::None) else { panic!() };
            // Every row alone, by refine.
            let positions: Vec<u32> = (0..9).flat_map(|_| (0..300).rev()).collect();
            let input = Input::Positions { positions: &positions, width: 300 };
            let refined = candidates(case.run(engine, &[Step::Refine], None, input));
            for (i, &position) in positions.iter().enumerate() {
                let (a, b) = (keys[i / 300 * 300 + position as usize], refined.keys[i]);
                assert_eq!(a.to_bits(), b.to_bits(), "{what} {:?} {i}", engine.level());
            }
        }
    });
}

#[test]
fn long_rows_lose_no_accuracy() {
    let engines = engines();
    for metric in METRICS {
        let case = Case::new(metric, DType::F32, 16_384, 5, 2);
        let exact = case.exact();
        for engine in &engines {
            let Output::Matrix(keys) = case.run(engine, &[Step::Distance], None, Input::None) else { panic!() };
            for (i, (&key, &want)) in keys.iter().zip(&exact).enumerate() {
                // A sum of both signs is measured against what it sums.
                let size = match metric {
                    Metric::InnerProduct => f64::from(case.query_norms[i / 5]) * f64::from(case.norms[i % 5]),
                    Metric::Cosine => 1.0,
                    _ => want,
                };
                let error = (f64::from(key) - want).abs() / size;
                assert!(error <= 1e-6, "{metric} {:?}: {key} for {want}, {error:e}", engine.level());
            }
        }
    }
}

#[test]
fn strides_are_stepped_over() {
    let (n, dim, stride) = (70, 19, 32);
    let mut random = Random(3);
    let mut wide = random.vector(n * stride, false);
    for row in wide.chunks_mut(stride) {
        row[dim..].fill(f32::NAN);
    }
    let view = MatrixView::with_stride(&wide, n, dim, stride).unwrap();
    let dense: Vec<f32> = (0..n).flat_map(|r| view.row(r).to_vec()).collect();
    let dense = MatrixView::new(&dense, dim).unwrap();
    let lengths = lengths(&RowsView::F32(dense));
    let problem = Problem { metric: Metric::L2, dtype: DType::F32, dim, rows: n, queries: n };
    for engine in engines() {
        for plan in [
            Plan::one(problem, Step::Distance),
            Plan::search(problem, 9, Screen::F32),
            Plan::search(problem, 9, Screen::None),
            Plan::range(problem, 5.0),
            Plan::one(problem, Step::Normalize { norm: Norm::L2 }),
        ] {
            let run = |view: MatrixView<'_, f32>| {
                let base = Base { rows: view.into(), norms: Some(&lengths), tag: None, codes: None };
                let (queries, query_norms) = (view.into(), &lengths[..]);
                let task = Task { plan: &plan, base, queries, query_norms, mask: None, input: Input::None };
                task.run(&engine, &mut SearchStats::default()).unwrap()
            };
            assert_eq!(run(view), run(dense), "{plan} {:?}", engine.level());
        }
    }
}

#[test]
fn answers_do_not_depend_on_threads() {
    let level = Level::best();
    let engines = [1, 2, 7].map(|t| CpuEngine::new(CpuOptions { threads: Some(t), level: Some(level) }));
    for (metric, queries) in [(Metric::L2, 9), (Metric::Cosine, 1), (Metric::L1, 70)] {
        // Few different components, so that many keys are equal.
        let mut case = Case::new(metric, DType::I8, 16, 30_000, queries);
        if let Stored::I8(x) = &mut case.rows {
            x.iter_mut().for_each(|x| *x /= 100);
        }
        case.norms = lengths(&case.rows.view(16));
        let mut plans = vec![
            vec![Step::Distance],
            vec![Step::Distance, Step::SelectK { k: 30 }],
            vec![Step::Search { screen: Screen::None, keep: 1000 }],
            vec![Step::Range { key: 2.0 }],
            vec![Step::Normalize { norm: Norm::L1 }],
        ];
        plans.extend([1, 18, 29_000].map(|keep| {
            vec![Step::Search { screen: Screen::F32, keep }, Step::Refine, Step::SelectK { k: keep.div_ceil(2) }]
        }));
        for plan in plans {
            let [one, two, seven] = [0, 1, 2].map(|i| case.run(&engines[i], &plan, None, Input::None));
            assert!(one == two && one == seven, "{metric} {queries} {plan:?}");
        }
    }
}

#[test]
fn direct_search_matches_the_reference() {
    let engines = engines();
    each_case(&[3, 17, 64, 100], 150, 3, |what, case| {
        let (queries, rows) = (case.queries.view(case.unit), case.rows.view(case.unit));
        let exact = case.exact();
        for k in [1, 7, 150, 160] {
            let want = ops::search::reference(case.problem.metric, &queries, &rows, None, k);
            for engine in &engines {
                let step = Step::Search { screen: Screen::None, keep: k };
                let got = candidates(case.run(engine, &[step], None, Input::None));
                case.check_best(&format!("{what} k {k} {:?}", engine.level()), &got, &want, &exact, k);
                assert!(got.bound.is_empty());
            }
        }
    });
}

#[test]
fn screened_search_matches_the_reference_and_bounds_hold() {
    let engines = engines();
    for dim in DIMS.into_iter().chain([1500]) {
        for dtype in [DType::F32, DType::F16, DType::Bf16, DType::I8, DType::U8] {
            for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
                for queries in [1, 8, 13] {
                    let case = Case::new(metric, dtype, dim, 203, queries);
                    let what = format!("{metric} {dtype} dim {dim} queries {queries}");
                    screened(&what, &case, &engines);
                }
            }
        }
    }
}

fn screened(what: &str, case: &Case, engines: &[CpuEngine]) {
    let (queries, rows) = (case.queries.view(case.unit), case.rows.view(case.unit));
    let (exact, n) = (case.exact(), case.problem.rows);
    let want = ops::search::reference(case.problem.metric, &queries, &rows, None, 5);
    for engine in engines {
        let what = format!("{what} {:?}", engine.level());
        let keep = 40;
        let search = Step::Search { screen: Screen::F32, keep };
        let bounds = candidates(case.run(engine, &[search], None, Input::None));
        let Output::Matrix(direct) = case.run(engine, &[Step::Distance], None, Input::None) else { panic!() };
        for q in 0..case.problem.queries {
            let kept = q * keep..(q + 1) * keep;
            assert_eq!(bounds.bound[q], bounds.keys[kept.end - 1]);
            for (&bound, &row) in bounds.keys[kept.clone()].iter().zip(&bounds.positions[kept.clone()]) {
                assert!(bound <= direct[q * n + row as usize], "{what} query {q} row {row}");
            }
            let left = (0..n).filter(|&r| !bounds.positions[kept.clone()].contains(&(r as u32)));
            for row in left {
                assert!(direct[q * n + row] >= bounds.bound[q], "{what} query {q}: row {row} left out");
            }
        }
        let plan = [search, Step::Refine, Step::SelectK { k: 5 }];
        let got = candidates(case.run(engine, &plan, None, Input::None));
        assert_eq!(got.bound, bounds.bound);
        // 40 of 203 are enough here: the bound is checked above, and the answer must be right where it proves.
        let proven = (0..case.problem.queries).all(|q| got.keys[q * 5 + 4] < got.bound[q]);
        if proven {
            case.check_best(&what, &got, &want, &exact, 5);
        }
        assert!(proven || case.problem.dim < 3, "{what}: not proven");
    }
}

#[test]
fn filters_hold_for_one_and_for_each_query() {
    let engines = engines();
    let (n, q) = (230, 9);
    for metric in [Metric::L2, Metric::Cosine, Metric::L1] {
        for dtype in [DType::F32, DType::U8] {
            let case = Case::new(metric, dtype, 33, n, q);
            let (queries, rows, exact) = (case.queries.view(33), case.rows.view(33), case.exact());
            let one = Bitmap::from_fn(n, |i| i % 7 == 3 || i > 225);
            let words = n.div_ceil(32);
            let each: Vec<u32> =
                (0..q).flat_map(|q| Bitmap::from_fn(n, |i| (i * 13 + q) % 11 < q).words().to_vec()).collect();
            let masks =
                [Mask { words: one.words(), stride: 0, tag: None }, Mask { words: &each, stride: words, tag: None }];
            for mask in masks {
                let want = ops::search::reference(metric, &queries, &rows, Some(mask), 12);
                for engine in &engines {
                    let what = format!("{metric} {dtype} {:?} stride {}", engine.level(), mask.stride);
                    for screen in [Screen::None, Screen::F32] {
                        let plan = [Step::Search { screen, keep: n }, Step::Refine, Step::SelectK { k: 12 }];
                        let got = candidates(case.run(engine, &plan, Some(mask), Input::None));
                        case.check_best(&what, &got, &want, &exact, 12);
                    }
                    let Output::Range { offsets, positions, .. } =
                        case.run(engine, &[Step::Range { key: f32::INFINITY }], Some(mask), Input::None)
                    else {
                        panic!()
                    };
                    for q in 0..q {
                        let mut got = positions[offsets[q] as usize..offsets[q + 1] as usize].to_vec();
                        got.sort_unstable();
                        let allowed = (0..n).filter(|&r| mask.allows(q, r)).map(|r| r as u32);
                        assert_eq!(got, allowed.collect::<Vec<_>>(), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn range_takes_what_distance_says() {
    let engines = engines();
    each_case(&[17], 100, 4, |what, case| {
        for engine in &engines {
            let Output::Matrix(keys) = case.run(engine, &[Step::Distance], None, Input::None) else { panic!() };
            let mut sorted = keys.clone();
            sorted.sort_by(f32::total_cmp);
            let key = sorted[150];
            let Output::Range { offsets, keys: hits, positions } =
                case.run(engine, &[Step::Range { key }], None, Input::None)
            else {
                panic!()
            };
            let mut want = Vec::new();
            for (q, keys) in keys.chunks(100).enumerate() {
                assert_eq!(offsets[q], want.len() as u64, "{what}");
                let mut pairs: Vec<(f32, u32)> = keys.iter().copied().zip(0..).filter(|p| p.0 <= key).collect();
                pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                want.extend(pairs);
            }
            assert_eq!(hits.into_iter().zip(positions).collect::<Vec<_>>(), want, "{what} {:?}", engine.level());
        }
    });
}

#[test]
fn select_k_is_exact_with_ties_infinity_and_nan() {
    let mut random = Random(5);
    let engines = engines();
    for (queries, width) in [(1, 70_000), (3, 1000), (5, 1), (40, 100)] {
        let mut keys: Vec<f32> = (0..queries * width).map(|_| (random.next() * 50.0).round()).collect();
        for i in (0..keys.len()).step_by(29) {
            keys[i] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0][i % 4];
        }
        // Once by place, once with positions that fall, so that of equal keys the last comes first.
        let falling: Vec<u32> = (0..queries * width).map(|i| (width - 1 - i % width) as u32).collect();
        for (k, positions) in [1, 2, 17, 999, 1200, 80_000].into_iter().flat_map(|k| [(k, None), (k, Some(&falling))]) {
            for engine in &engines {
                let got = match positions {
                    None => engine.select_k(&keys, queries, k),
                    Some(p) => {
                        let from = Candidates { width, keys: keys.clone(), positions: p.clone(), bound: Vec::new() };
                        engine.select_k_of(&from, queries, k)
                    }
                };
                let got = got.unwrap();
                for q in 0..queries {
                    let segment = q * width..(q + 1) * width;
                    let named = positions.map(|p| &p[segment.clone()]);
                    let want = ops::select_k::reference(&keys[segment], named, k);
                    for i in 0..k {
                        let (key, position) = (got.keys[q * k + i], got.positions[q * k + i]);
                        let (a, b) = want.get(i).copied().unwrap_or((f32::INFINITY, u32::MAX));
                        let same = key.to_bits() == a.to_bits() || key.is_nan() && a.is_nan();
                        assert!(same && position == b, "{queries} x {width} k {k} place {i}");
                    }
                }
            }
        }
    }
}

#[test]
fn refine_leaves_empty_places_and_selects() {
    let case = Case::new(Metric::L2, DType::F16, 7, 20, 2);
    let positions = [3, u32::MAX, 0, 19, u32::MAX, u32::MAX];
    for engine in engines() {
        let input = Input::Positions { positions: &positions, width: 3 };
        let got = candidates(case.run(&engine, &[Step::Refine], None, input));
        let (queries, rows) = (case.queries.view(7), case.rows.view(7));
        let want = ops::refine::reference(Metric::L2, &queries, &rows, &positions, 3);
        for (i, (&key, &exact)) in got.keys.iter().zip(&want).enumerate() {
            let close = (f64::from(key) - exact).abs() <= case.tolerance(exact, i / 3, 0);
            assert!(close || key == f32::INFINITY && exact == f64::INFINITY);
        }
        assert_eq!(got.positions, positions);
        let got = candidates(case.run(&engine, &[Step::Refine, Step::SelectK { k: 2 }], None, input));
        assert_eq!(got.positions[2..], [19, u32::MAX]);
    }
}

#[test]
fn row_b2_normalise_every_norm_and_type_without_overflow() {
    for engine in engines() {
        for dim in DIMS {
            for dtype in [DType::F32, DType::F16, DType::Bf16, DType::I8, DType::U8] {
                let mut case = Case::new(Metric::L2, dtype, dim, 70, 0);
                if let Stored::F32(x) = &mut case.rows {
                    x[..dim].fill(3e38);
                    x[dim..2 * dim].fill(1e-44);
                    x[2 * dim..3 * dim].fill(0.0);
                }
                for norm in [Norm::L2, Norm::L1, Norm::Max] {
                    let step = Step::Normalize { norm };
                    let Output::Rows { rows, norms } = case.run(&engine, &[step], None, Input::None) else { panic!() };
                    let (want, want_norms) = ops::normalize::reference(norm, &case.rows.view(dim));
                    let close = |got: f32, want: f64| {
                        let error = (f64::from(got) - want).abs();
                        error <= 2e-7 * want.abs() + 1e-45 || f64::from(got) > 3e38 && want > 3e38
                    };
                    assert!(rows.iter().zip(&want).all(|(&a, &b)| close(a, b)), "{dtype} {norm} {dim}");
                    assert!(norms.iter().zip(&want_norms).all(|(&a, &b)| close(a, b)), "{dtype} {norm} {dim}");
                }
            }
        }
    }
}

#[test]
fn nothing_gives_nothing() {
    for engine in engines() {
        for (n, q) in [(0, 3), (5, 0), (0, 0)] {
            for screen in [Screen::None, Screen::F32] {
                let case = Case::new(Metric::L2, DType::F32, 4, n, q);
                let plan = [Step::Search { screen, keep: 2 }, Step::Refine, Step::SelectK { k: 2 }];
                let got = candidates(case.run(&engine, &plan, None, Input::None));
                assert_eq!((got.keys.len(), got.positions.len()), (2 * q, 2 * q));
                assert!(got.positions.iter().all(|&p| p == u32::MAX || n > 0));
            }
            let case = Case::new(Metric::L2, DType::F32, 4, n, q);
            assert_eq!(case.run(&engine, &[Step::Distance], None, Input::None), Output::Matrix(Vec::new()));
            let range = case.run(&engine, &[Step::Range { key: 1.0 }], None, Input::None);
            assert_eq!(range, Output::Range { offsets: vec![0; q + 1], keys: Vec::new(), positions: Vec::new() });
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::new(Metric::Cosine, DType::F32, 4, 5, 2);
    let engine = CpuEngine::new(CpuOptions::default());
    let plan = Plan::one(case.problem, Step::Distance);
    let base = Base { rows: case.rows.view(4), norms: None, tag: None, codes: None };
    let (queries, query_norms) = (case.queries.view(4), &case.query_norms[..]);
    let task = Task { plan: &plan, base, queries, query_norms, mask: None, input: Input::None };
    let run = |task: &Task<'_>| task.run(&engine, &mut SearchStats::default());
    assert!(matches!(run(&task), Err(EngineError::Mismatch(_))), "cosine without lengths");
    let norms = Some(&case.norms[..]);
    let good = Task { base: Base { norms, ..base }, ..task };
    assert!(run(&good).is_ok());
    assert!(run(&Task { queries: case.rows.view(4), ..good }).is_err(), "another number of queries");
    let plan = Plan::one(case.problem, Step::Search { screen: Screen::None, keep: 1 });
    let mask = Some(Mask { words: &[], stride: 0, tag: None });
    assert!(run(&Task { plan: &plan, mask, ..good }).is_err(), "a short mask");
    let plan = Plan::one(case.problem, Step::Search { screen: Screen::None, keep: 1 << 60 });
    assert!(matches!(run(&Task { plan: &plan, ..good }), Err(EngineError::AnswerTooLarge { .. })));
    let plan = Plan::one(case.problem, Step::Refine);
    assert!(run(&Task { plan: &plan, ..good }).is_err(), "nothing to refine");
    let input = Input::Positions { positions: &[0, 5], width: 1 };
    assert!(run(&Task { plan: &plan, input, ..good }).is_err(), "a position past the end");
    let plan = Plan { problem: case.problem, steps: Vec::new() };
    assert!(run(&Task { plan: &plan, ..good }).is_err(), "no steps");
}

#[test]
fn statistics_and_ceilings_are_filled() {
    let case = Case::new(Metric::L2, DType::F16, 8, 100, 10);
    let engine = CpuEngine::new(CpuOptions { threads: Some(2), level: Some(Level::Portable) });
    assert_eq!(engine.name(), "cpu (portable, 2 threads)");
    let plan = Plan::search(case.problem, 3, Screen::F32);
    let base = Base { rows: case.rows.view(8), norms: Some(&case.norms), tag: None, codes: None };
    let (queries, query_norms) = (case.queries.view(8), &case.query_norms[..]);
    let task = Task { plan: &plan, base, queries, query_norms, mask: None, input: Input::None };
    let mut stats = SearchStats::default();
    task.run(&engine, &mut stats).unwrap();
    assert_eq!(stats.kernels, ["search/portable", "refine/portable", "select_k/portable"]);
    assert_eq!((stats.scanned, stats.refined, stats.bytes_read), (1000, 110, 1600 + 110 * 16));
    assert_eq!(stats.stages.len(), 3);
    let c = engine.ceilings();
    assert!(c.bytes_per_second > 1e8 && c.operations_per_second > 1e8 && c.launch_seconds > 0.0, "{c:?}");
}
