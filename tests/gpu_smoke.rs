//! What the contract suite cannot reach: budgets smaller than the base, injected faults, an application's own device.
//! Runs on every usable adapter; no adapter at all is a failure.
#![cfg(feature = "gpu")]

mod task;

use nearfield::compute::Backend;
use nearfield::compute::{Candidates, EngineError, Mask, Output, Tag};
use nearfield::gpu::{self, Fault, GpuEngine, GpuOptions, Select};
use nearfield::ops;
use nearfield::ops::codes::{BIAS, Codes, GROUP, PADDING, QueryCodes, QueryTerms};
use nearfield::ops::{Norm, Screen};
use nearfield::stats::SearchStats;
use nearfield::{DType, MatrixView, Metric, RowsView};
use task::{Base, Coded, Input, Plan, Problem, Step, Task};

fn engines(memory: Option<u64>) -> Vec<GpuEngine> {
    let usable: Vec<_> = gpu::adapters().into_iter().filter(|a| a.usable).collect();
    assert!(!usable.is_empty(), "no usable adapter: GPU tests need one (scripts/setup-drivers gives a software one)");
    let open = |index| GpuEngine::open(&GpuOptions { select: Select::GpuIndex(index), memory }).unwrap();
    usable.iter().map(|a| open(a.index)).collect()
}

/// Rows and queries with what a task needs beside them.
struct Data {
    dim: usize,
    rows: Vec<f32>,
    queries: Vec<f32>,
    row_norms: Vec<f32>,
    query_norms: Vec<f32>,
}

fn norms(values: &[f32], dim: usize) -> Vec<f32> {
    values.chunks(dim).map(|r| r.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() as f32).collect()
}

impl Data {
    fn new(rows: usize, queries: usize, dim: usize) -> Data {
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        };
        let rows: Vec<f32> = (0..rows * dim).map(|_| random()).collect();
        let queries: Vec<f32> = (0..queries * dim).map(|_| random()).collect();
        Data { dim, row_norms: norms(&rows, dim), query_norms: norms(&queries, dim), rows, queries }
    }

    fn rows(&self) -> RowsView<'_> {
        MatrixView::new(&self.rows, self.dim).unwrap().into()
    }

    fn query_rows(&self) -> RowsView<'_> {
        MatrixView::new(&self.queries, self.dim).unwrap().into()
    }

    fn problem(&self, metric: Metric) -> Problem {
        let (rows, queries) = (self.rows().rows(), self.query_rows().rows());
        Problem { metric, dtype: DType::F32, dim: self.dim, rows, queries }
    }

    fn task<'a>(&'a self, plan: &'a Plan, tag: Option<&'a Tag>) -> Task<'a> {
        Task {
            plan,
            base: Base { rows: self.rows(), norms: Some(&self.row_norms), tag, codes: None },
            queries: self.query_rows(),
            query_norms: &self.query_norms,
            mask: None,
            input: Input::None,
        }
    }

    fn reference(&self, metric: Metric, mask: Option<Mask<'_>>, k: usize) -> Vec<Vec<(f64, u32)>> {
        ops::search::reference(metric, &self.query_rows(), &self.rows(), mask, k)
    }
}

fn candidates(output: Output) -> Candidates {
    match output {
        Output::Candidates(c) => c,
        other => panic!("{other:?}"),
    }
}

fn search(engine: &GpuEngine, task: &Task<'_>) -> Result<(Candidates, SearchStats), EngineError> {
    let mut stats = SearchStats::default();
    let output = task.run(engine, &mut stats)?;
    Ok((candidates(output), stats))
}

/// The distances of an answer are those of the reference, place by place, within a small bound.
fn assert_nearest(found: &Candidates, wanted: &[Vec<(f64, u32)>], what: &str) {
    for (q, wanted) in wanted.iter().enumerate() {
        for (i, &(key, position)) in wanted.iter().enumerate() {
            let at = q * found.width + i;
            let near = (f64::from(found.keys[at]) - key).abs() <= 1e-5 * key.abs().max(1.0);
            assert!(
                near,
                "{what}, query {q}, place {i}: {} at {}, wanted {key} at {position}",
                found.keys[at], found.positions[at]
            );
        }
    }
}

fn any_engine() -> GpuEngine {
    engines(None).into_iter().next().unwrap()
}

#[test]
fn searches_of_every_shape_give_the_nearest_rows() {
    let data = Data::new(3000, 21, 37);
    let shapes = [(Screen::None, 1), (Screen::None, 10), (Screen::F32, 10), (Screen::None, 300), (Screen::None, 3000)];
    for engine in engines(None) {
        for (screen, k) in shapes {
            let plan = Plan::search(data.problem(Metric::L2), k, screen);
            let (found, _) = search(&engine, &data.task(&plan, None)).unwrap();
            assert_nearest(&found, &data.reference(Metric::L2, None, k), &format!("{} {plan}", engine.name()));
        }
    }
}

#[test]
fn a_budget_of_a_quarter_of_the_base_changes_no_answer() {
    let data = Data::new(5000, 5, 64);
    let bytes = (data.rows.len() * 4) as u64;
    for (small, large) in engines(Some(bytes / 4)).into_iter().zip(engines(None)) {
        let tag = Tag::new();
        for (screen, k) in [(Screen::None, 7), (Screen::F32, 7), (Screen::None, 200), (Screen::None, 5000)] {
            let plan = Plan::search(data.problem(Metric::L2), k, screen);
            let (streamed, stats) = search(&small, &data.task(&plan, Some(&tag))).unwrap();
            let (resident, _) = search(&large, &data.task(&plan, Some(&tag))).unwrap();
            assert_eq!(streamed.positions, resident.positions, "{} {plan}", small.name());
            assert!(stats.chunks_uploaded > 4, "{stats:?}");
            assert!(small.peak() <= small.budget(), "{} of {}", small.peak(), small.budget());
        }
        for step in [Step::Distance, Step::Range { key: 15.0 }, Step::Normalize { norm: Norm::L2 }] {
            let plan = Plan::one(data.problem(Metric::L2), step);
            let task = data.task(&plan, Some(&tag));
            let streamed = task.run(&small, &mut SearchStats::default()).unwrap();
            let resident = task.run(&large, &mut SearchStats::default()).unwrap();
            assert!(streamed == resident, "{} {plan}", small.name());
            assert!(small.peak() <= small.budget(), "{} of {}", small.peak(), small.budget());
        }
        let width = 50;
        let positions: Vec<u32> = (0..5 * width as u32).map(|i| i * 37 % 5000).collect();
        let plan = Plan::one(data.problem(Metric::L2), Step::Refine);
        let mut task = data.task(&plan, Some(&tag));
        task.input = Input::Positions { positions: &positions, width };
        let streamed = task.run(&small, &mut SearchStats::default()).unwrap();
        assert!(streamed == task.run(&large, &mut SearchStats::default()).unwrap(), "{} {plan}", small.name());
    }
}

#[test]
fn range_hits_are_those_of_the_reference() {
    let data = Data::new(2000, 9, 24);
    let keys: Vec<f64> = data.reference(Metric::L2, None, 60).iter().map(|hits| hits[59].0).collect();
    let radius = keys.iter().copied().fold(0.0, f64::max) as f32;
    let plan = Plan::range(data.problem(Metric::L2), radius);
    let wanted = ops::range::reference(Metric::L2, &data.query_rows(), &data.rows(), None, f64::from(radius));
    for engine in engines(None) {
        let Output::Range { offsets, keys, positions } =
            data.task(&plan, None).run(&engine, &mut SearchStats::default()).unwrap()
        else {
            panic!("no hits")
        };
        for (q, wanted) in wanted.iter().enumerate() {
            let span = offsets[q] as usize..offsets[q + 1] as usize;
            assert!(span.len().abs_diff(wanted.len()) <= 1, "{}: {} hits, wanted {}", q, span.len(), wanted.len());
            for (at, &(key, _)) in span.zip(wanted) {
                assert!((f64::from(keys[at]) - key).abs() < 1e-4, "{} at {}", keys[at], positions[at]);
            }
        }
    }
}

#[test]
fn rows_are_uploaded_once_appended_and_dropped_with_their_base() {
    let mut data = Data::new(1000, 5, 16);
    let engine = any_engine();
    let mut tag = Tag::new();
    let run = |data: &Data, tag: &Tag| {
        let plan = Plan::search(data.problem(Metric::L2), 5, Screen::None);
        let (found, stats) = search(&engine, &data.task(&plan, Some(tag))).unwrap();
        assert_nearest(&found, &data.reference(Metric::L2, None, 5), "resident");
        stats.chunks_uploaded
    };
    assert_eq!((run(&data, &tag), run(&data, &tag)), (1, 0));
    for more in [10usize, 400, 3] {
        let added = Data::new(more, 1, 16);
        data.rows.extend(added.rows.iter().map(|x| x * 0.5));
        data.row_norms = norms(&data.rows, 16);
        assert!(run(&data, &tag) <= 2);
    }
    data.rows.iter_mut().for_each(|x| *x = -*x);
    tag.bump();
    assert!(run(&data, &tag) >= 1, "a new epoch is uploaded anew");
    let other = Tag::new();
    run(&data, &other);
    let with_both = engine.used();
    drop(tag);
    run(&data, &other);
    assert!(engine.used() < with_both, "{} then {}", with_both, engine.used());
    engine.trim();
    assert_eq!(engine.used(), 0);
}

#[test]
fn the_base_that_was_not_searched_for_the_longest_makes_room() {
    let data = Data::new(4000, 3, 64);
    let bytes = (data.rows.len() * 4) as u64;
    let engine = engines(Some(bytes * 3)).into_iter().next().unwrap();
    let tags = [Tag::new(), Tag::new(), Tag::new()];
    let plan = Plan::search(data.problem(Metric::L2), 5, Screen::None);
    let uploads = |tag| search(&engine, &data.task(&plan, Some(tag))).unwrap().1.chunks_uploaded;
    assert_eq!([uploads(&tags[0]), uploads(&tags[1]), uploads(&tags[0])], [1, 1, 0], "two fit");
    assert_eq!([uploads(&tags[2]), uploads(&tags[0]), uploads(&tags[1])], [1, 0, 1], "the second made room");
    assert!(engine.peak() <= engine.budget());
}

#[test]
fn row_a8_a_kernel_that_is_wrong_is_not_used() {
    let data = Data::new(500, 3, 16);
    for verb in ["search", "select_k", "refine", "distance", "range", "normalize"] {
        let step = match verb {
            "distance" => Step::Distance,
            "range" => Step::Range { key: 3.0 },
            "normalize" => Step::Normalize { norm: Norm::L1 },
            "search" => Step::Search { screen: Screen::None, keep: 5 },
            _ => Step::Search { screen: Screen::F32, keep: 9 },
        };
        let steps = if let Step::Search { screen: Screen::F32, .. } = step {
            vec![step, Step::Refine, Step::SelectK { k: 5 }]
        } else {
            vec![step]
        };
        let plan = Plan { problem: data.problem(Metric::L2), steps };
        let engine = any_engine();
        engine.inject(Fault::Wrong(verb));
        match data.task(&plan, None).run(&engine, &mut SearchStats::default()) {
            Err(EngineError::Disabled { kernel, .. }) => assert_eq!(kernel, verb),
            other => panic!("{verb}: {other:?}"),
        }
    }
}

#[test]
fn row_a8_a_wrong_variant_gives_way_to_the_plain_one() {
    // More queries than the kernel for a few takes, which has no variants.
    let data = Data::new(500, 6, 16);
    let plan = Plan::search(data.problem(Metric::L2), 5, Screen::None);
    for engine in engines(None) {
        let (_, stats) = search(&any_engine(), &data.task(&plan, None)).unwrap();
        assert!(stats.kernels.contains(&"search+subgroups".to_owned()), "{:?}", stats.kernels);
        engine.inject(Fault::WrongSubgroups("search"));
        let (found, stats) = search(&engine, &data.task(&plan, None)).unwrap();
        assert!(stats.kernels.contains(&"search".to_owned()), "{:?}", stats.kernels);
        assert_nearest(&found, &data.reference(Metric::L2, None, 5), "plain");
    }
}

#[test]
fn out_of_memory_is_an_error_and_the_next_run_works() {
    let data = Data::new(500, 3, 16);
    let plan = Plan::search(data.problem(Metric::L2), 5, Screen::None);
    for engine in engines(None) {
        let task = data.task(&plan, None);
        engine.inject(Fault::OutOfMemory);
        assert!(matches!(search(&engine, &task), Err(EngineError::OutOfMemory { .. })));
        assert_nearest(&search(&engine, &task).unwrap().0, &data.reference(Metric::L2, None, 5), "after");
    }
    for engine in engines(Some(100)) {
        assert!(matches!(search(&engine, &data.task(&plan, None)), Err(EngineError::OutOfMemory { .. })));
        assert!(engine.peak() <= 100);
    }
}

#[test]
fn a_lost_device_is_an_error_now_and_later() {
    let data = Data::new(500, 3, 16);
    let plan = Plan::search(data.problem(Metric::L2), 5, Screen::None);
    for engine in engines(None) {
        search(&engine, &data.task(&plan, None)).unwrap();
        engine.inject(Fault::Lost);
        assert!(engine.is_lost());
        for _ in 0..2 {
            assert!(matches!(search(&engine, &data.task(&plan, None)), Err(EngineError::Lost(_))));
        }
    }
}

fn app_device(index: usize) -> (nearfield::wgpu::Device, nearfield::wgpu::Queue) {
    use nearfield::wgpu;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all() - wgpu::Backends::GL));
    pollster::block_on(found[index].request_device(&wgpu::DeviceDescriptor::default())).unwrap()
}

#[test]
fn an_applications_device_with_default_limits_and_no_features() {
    let data = Data::new(3000, 21, 37);
    for (index, _) in gpu::adapters().iter().enumerate().filter(|(_, a)| a.usable) {
        let (device, queue) = app_device(index);
        let engine = GpuEngine::from_wgpu(device.clone(), queue, None).unwrap();
        for (screen, k) in [(Screen::None, 10), (Screen::F32, 10), (Screen::None, 300)] {
            let plan = Plan::search(data.problem(Metric::Cosine), k, screen);
            let (found, stats) = search(&engine, &data.task(&plan, None)).unwrap();
            assert_nearest(&found, &data.reference(Metric::Cosine, None, k), &format!("{} {plan}", engine.name()));
            assert!(stats.kernels.iter().all(|k| !k.contains("subgroups")), "{:?}", stats.kernels);
            assert!(stats.stages.iter().all(|s| !s.on_device), "{:?}", stats.stages);
        }
        // The application destroys its device.
        device.destroy();
        let plan = Plan::search(data.problem(Metric::Cosine), 10, Screen::None);
        let result = search(&engine, &data.task(&plan, None));
        assert!(matches!(result, Err(EngineError::Lost(_))), "{result:?}");
    }
}

#[test]
fn many_threads_share_an_engine() {
    let data = Data::new(2000, 8, 32);
    let bytes = (data.rows.len() * 4) as u64;
    for memory in [None, Some(bytes * 2)] {
        let engine = engines(memory).into_iter().next().unwrap();
        let tag = Tag::new();
        let wanted = data.reference(Metric::L2, None, 6);
        let one = || {
            let plan = Plan::search(data.problem(Metric::L2), 6, Screen::None);
            let (found, _) = search(&engine, &data.task(&plan, Some(&tag))).unwrap();
            assert_nearest(&found, &wanted, "threads");
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..3).for_each(|_| one()));
            }
        });
        // A pool whose threads take up other work while they wait.
        rayon::scope(|scope| (0..12).for_each(|_| scope.spawn(|_| one())));
        assert!(engine.peak() <= engine.budget());
    }
}

#[test]
fn masks_hold_for_one_and_for_each_query_in_one_block_or_several() {
    let words = 1500usize.div_ceil(32);
    for (queries, memory) in [(6, None), (60, Some(240 << 10))] {
        let data = Data::new(1500, queries, 20);
        let each: Vec<u32> = (0..(queries * words) as u32).map(|i| i.wrapping_mul(2_654_435_761) ^ i << 13).collect();
        for engine in engines(memory) {
            for mask in
                [Mask { words: &each[..words], stride: 0, tag: None }, Mask { words: &each, stride: words, tag: None }]
            {
                for k in [5, 200, 1500] {
                    let plan = Plan::search(data.problem(Metric::L2), k, Screen::None);
                    let mut task = data.task(&plan, None);
                    task.mask = Some(mask);
                    let (found, _) = search(&engine, &task).unwrap();
                    let wanted = data.reference(Metric::L2, Some(mask), k);
                    assert_nearest(&found, &wanted, &format!("{} {plan}", engine.name()));
                    for (q, wanted) in wanted.iter().enumerate() {
                        let filled = found.positions[q * k..(q + 1) * k].iter().filter(|&&p| p != u32::MAX).count();
                        assert_eq!(filled, wanted.len());
                    }
                    assert!(engine.peak() <= engine.budget());
                }
            }
        }
    }
}

#[test]
fn scratch_stays_within_64_mib_whatever_the_batch() {
    // The fastest of the software drivers, where there is a choice: some of this is large.
    let engine = engines(None).into_iter().max_by_key(|e| e.name().contains("llvmpipe")).unwrap();
    let check = |rows: usize, queries: usize, dim: usize, step: Step| {
        let data = Data::new(rows, queries, dim);
        let plan = Plan::one(data.problem(Metric::L2), step);
        data.task(&plan, None).run(&engine, &mut SearchStats::default()).unwrap();
        let used = engine.used();
        engine.trim();
        assert!(used <= 64 << 20, "{plan} of {rows} x {queries} x {dim}: {used} bytes");
    };
    check(50, 100_000, 4, Step::Search { screen: Screen::None, keep: 40 });
    check(300, 9_000, 4, Step::Search { screen: Screen::None, keep: 200 });
    check(300_000, 2, 4, Step::Search { screen: Screen::None, keep: 200_000 });
    check(300_000, 20, 4, Step::Distance);
    check(300_000, 16, 4, Step::Range { key: 100.0 });
    check(120_000, 1, 64, Step::Normalize { norm: Norm::L2 });
}

#[test]
fn ceilings_are_measured() {
    for engine in engines(None) {
        let ceilings = engine.ceilings();
        println!("{}: {ceilings:?}", engine.name());
        assert!(ceilings.bytes_per_second > 1e8 && ceilings.operations_per_second > 1e7);
        assert!(ceilings.launch_seconds > 0.0 && ceilings.launch_seconds < 1.0);
    }
}

/// Rows and queries of small whole numbers, which are their own codes: every bound is the key itself.
struct Whole {
    data: Data,
    codes: Codes,
    queries: QueryCodes,
}

const WHOLE_DIM: usize = 64;

impl Whole {
    fn new(rows: usize, queries: usize) -> Whole {
        let mut data = Data::new(rows, queries, WHOLE_DIM);
        data.rows.iter_mut().chain(&mut data.queries).for_each(|x| *x = (*x * 9.0).round());
        data.row_norms = norms(&data.rows, WHOLE_DIM);
        data.query_norms = norms(&data.queries, WHOLE_DIM);
        let square = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>();
        let mut codes = Codes { dim: WHOLE_DIM, ..Codes::default() };
        codes.bytes = data.rows.iter().map(|&x| (x as i32 + BIAS) as u8).chain([0; PADDING]).collect();
        codes.square = data.rows.chunks(WHOLE_DIM).map(square).collect();
        codes.scale = vec![1.0; rows];
        (codes.residual, codes.tail) = (vec![0.0; rows], vec![0.0; rows]);
        codes.longest = vec![0.0; rows.div_ceil(GROUP)];
        let term = |q: &[f32]| QueryTerms { offset: square(q), scale: 2.0, ..QueryTerms::default() };
        let terms = data.queries.chunks(WHOLE_DIM).map(term).collect();
        let bytes = data.queries.iter().map(|&x| x as i8).collect();
        Whole { data, codes, queries: QueryCodes { dim: WHOLE_DIM, bytes, terms } }
    }

    fn task<'a>(&'a self, plan: &'a Plan, rows: &'a Tag, codes: &'a Tag) -> Task<'a> {
        let mut task = self.data.task(plan, Some(rows));
        task.base.codes = Some(Coded { codes: &self.codes, tag: codes, queries: &self.queries });
        task
    }

    /// The candidates have exact keys, and nothing with a smaller key than the bound is missing.
    fn assert_candidates(&self, found: &Candidates, what: &str) {
        for (q, wanted) in self.data.reference(Metric::L2, None, self.data.row_norms.len()).iter().enumerate() {
            let places = q * found.width..(q + 1) * found.width;
            let got = found.keys[places.clone()].iter().zip(&found.positions[places]);
            let got: Vec<(f64, u32)> =
                got.map(|(&key, &p)| (f64::from(key), p)).filter(|pair| pair.1 != u32::MAX).collect();
            let due: Vec<(f64, u32)> =
                wanted.iter().copied().take_while(|pair| pair.0 < f64::from(found.bound[q])).collect();
            assert!(due.len() > 10, "{what}, query {q}: only {} rows below the bound {}", due.len(), found.bound[q]);
            assert!(due.iter().all(|pair| got.contains(pair)), "{what}, query {q}: a row is missing");
            assert!(got.iter().all(|pair| wanted.contains(pair)), "{what}, query {q}: a key is wrong");
        }
    }
}

#[test]
fn row_b8_codes_live_on_the_device_without_their_rows() {
    let whole = Whole::new(20_000, 5);
    let bytes = (whole.data.rows.len() * 4) as u64;
    for engine in engines(Some(bytes * 4 / 5)) {
        let (rows, codes) = (Tag::new(), Tag::new());
        let screen = Plan::one(whole.data.problem(Metric::L2), Step::Search { screen: Screen::Int8, keep: 128 });
        let all = Plan::search(whole.data.problem(Metric::L2), 10, Screen::Int8);
        let run = || search(&engine, &whole.task(&screen, &rows, &codes)).unwrap();
        let (found, stats) = run();
        whole.assert_candidates(&found, &engine.name());
        assert!(stats.chunks_uploaded > 0 && stats.kernels[0].starts_with("search_codes"), "{stats:?}");
        let (again, stats) = run();
        assert_eq!((again, stats.chunks_uploaded), (found, 0));
        // All steps all the same: from streamed rows, behind the next screen.
        let (found, stats) = search(&engine, &whole.task(&all, &rows, &codes)).unwrap();
        assert_nearest(&found, &whole.data.reference(Metric::L2, None, 10), "streamed");
        assert!(stats.chunks_uploaded > 1, "{stats:?}");
        assert!(engine.peak() <= engine.budget(), "{} of {}", engine.peak(), engine.budget());
        engine.trim();
        assert_eq!(engine.used(), 0);
    }
    let engine = any_engine();
    let (rows, codes) = (Tag::new(), Tag::new());
    let all = Plan::search(whole.data.problem(Metric::L2), 10, Screen::Int8);
    let (found, stats) = search(&engine, &whole.task(&all, &rows, &codes)).unwrap();
    assert_nearest(&found, &whole.data.reference(Metric::L2, None, 10), "refined");
    assert!((0..5).all(|q| found.keys[q * 10 + 9] < found.bound[q]) && stats.refined > 0, "{stats:?}");
}

/// Appended codes go into the free places of shards and into new ones, which further launches search.
#[test]
fn row_b8_appended_codes_are_seen() {
    let engine = any_engine();
    let (rows, mut codes) = (Tag::new(), Tag::new());
    let run = |n: usize, tag: &Tag| {
        let whole = Whole::new(n, 21);
        let plan = Plan::one(whole.data.problem(Metric::L2), Step::Search { screen: Screen::Int8, keep: 128 });
        let (found, stats) = search(&engine, &whole.task(&plan, &rows, tag)).unwrap();
        whole.assert_candidates(&found, &format!("{n} rows"));
        stats.chunks_uploaded
    };
    // `Data` draws rows first, so that more rows begin with the same ones.
    assert_eq!((run(1000, &codes), run(1000, &codes)), (1, 0));
    for n in [1010, 1500, 1503, 4000] {
        assert!((1..=2).contains(&run(n, &codes)), "{n}");
    }
    codes.bump();
    assert_eq!(run(4000, &codes), 1, "a new epoch is uploaded anew");
    drop(codes);
    run(100, &Tag::new());
    engine.trim();
    assert_eq!(engine.used(), 0);
}

/// `NEARFIELD_TEST_MATRIX` asks for an adapter with matrix units; without it adapters without them are only named.
#[test]
fn row_b8_matrix_units_are_used_where_they_are_listed() {
    let data = Data::new(3000, 45, 37);
    let mut tested = 0;
    for engine in engines(None) {
        let units = engine.info().features.iter().find(|(name, there)| name.starts_with("f16 matrices") && *there);
        let Some(&(units, _)) = units else {
            eprintln!("\n*** NOT TESTED: {} lists no f16 matrices", engine.name());
            let plan = Plan::search(data.problem(Metric::L2), 10, Screen::F16);
            let (found, stats) = search(&engine, &data.task(&plan, None)).unwrap();
            assert_nearest(&found, &data.reference(Metric::L2, None, 10), "f32 instead");
            assert!(stats.kernels.iter().all(|k| !k.contains("matrix")), "{:?}", stats.kernels);
            continue;
        };
        let kernel = if units.ends_with("16x16") { "search_matrix_16" } else { "search_matrix_8" };
        let tag = Tag::new();
        for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
            for k in [1, 10, 100] {
                let plan = Plan::search(data.problem(metric), k, Screen::F16);
                let (found, stats) = search(&engine, &data.task(&plan, Some(&tag))).unwrap();
                let what = format!("{} {metric} {plan}", engine.name());
                assert_nearest(&found, &data.reference(metric, None, k), &what);
                assert!(stats.kernels[0].starts_with(kernel), "{what}: {:?}", stats.kernels);
                let proven = (0..45).filter(|&q| found.keys[q * k + k - 1] < found.bound[q]).count();
                assert_eq!(proven, 45, "{what}: f16 is enough for these");
            }
        }
        tested += 1;
    }
    assert!(tested > 0 || std::env::var_os("NEARFIELD_TEST_MATRIX").is_none(), "no adapter lists f16 matrices");
}

/// An index on the GPU, with codes that the index itself has trained.
#[test]
fn row_b8_an_index_answers_the_same_behind_every_screen() {
    use nearfield::{Device, DeviceOptions, Flat, SearchOptions};
    let data = Data::new(3000, 21, 40);
    for adapter in gpu::adapters().into_iter().filter(|a| a.usable) {
        let options = DeviceOptions::default().device(format!("gpu:{}", adapter.index));
        let device = Device::open(&options).unwrap();
        for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
            let mut index = Flat::new(&device, 40, metric).unwrap();
            index.add(data.rows()).unwrap();
            for screen in [Screen::None, Screen::F32, Screen::F16, Screen::Int8] {
                let mut options = SearchOptions::default();
                options.screen = Some(screen);
                let (found, stats) = index.search_with(data.query_rows(), 10, &options).unwrap();
                for (q, wanted) in data.reference(metric, None, 10).iter().enumerate() {
                    for (i, &(key, _)) in wanted.iter().enumerate() {
                        let distance = f64::from(metric.external(found.distances()[q * 10 + i]));
                        assert!((distance - key).abs() < 1e-4, "{} {metric} {screen}: {distance}, {key}", adapter.name);
                    }
                }
                assert_eq!(stats.kernels.iter().any(|k| k.contains("codes")), screen == Screen::Int8, "{stats:?}");
            }
        }
    }
}

/// With room for codes but not for the rows, the device finds candidates and the host decides among them.
#[test]
fn row_b8_an_index_larger_than_the_device_is_decided_on_the_host() {
    use nearfield::{Device, DeviceOptions, Flat, SearchOptions};
    let data = Data::new(20_000, 6, 64);
    for adapter in gpu::adapters().into_iter().filter(|a| a.usable) {
        let options = DeviceOptions::default().device(format!("gpu:{}", adapter.index));
        let options = options.memory(20_000 * 64 * 4 * 4 / 5);
        let mut index = Flat::new(&Device::open(&options).unwrap(), 64, Metric::L2).unwrap();
        index.add(data.rows()).unwrap();
        index.set_screen(Some(Screen::Int8)).unwrap();
        let (found, stats) = index.search_with(data.query_rows(), 10, &SearchOptions::default()).unwrap();
        for (q, wanted) in data.reference(Metric::L2, None, 10).iter().enumerate() {
            for (i, &(key, _)) in wanted.iter().enumerate() {
                let distance = f64::from(found.distances()[q * 10 + i]);
                assert!((distance - key).abs() < 1e-4, "{}: {distance}, {key}", adapter.name);
            }
        }
        let names = stats.kernels.join(" ");
        assert!(names.contains("search_codes") && names.contains("refine/"), "{stats:?}");
        assert_eq!(stats.device, adapter.name, "the device that searched is the one that is named");
    }
}
