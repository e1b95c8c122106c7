//! Which device answers, and what happens when it can't: by name, by rule, on an application's device, within a budget,
//! after a loss. On the adapters of `NEARFIELD_TEST_ADAPTERS`; none is a failure of the set-up.
#![cfg(feature = "gpu")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use nearfield::gpu::{Fault, GpuEngine, GpuOptions, Select};
use nearfield::ops::tuning::KernelTuning;
use nearfield::tune::Calibration;
use nearfield::{
    Device, DeviceError, DeviceOptions, Flat, MatrixView, Metric, Neighbors, Screen, SearchError, SearchOptions,
    SearchStats, wgpu,
};

const DIM: usize = 16;

fn open(name: &str, memory: Option<u64>) -> Result<Device, DeviceError> {
    let options = DeviceOptions::default().device(name);
    Device::open(&memory.map_or(options.clone(), |bytes| options.memory(bytes)))
}

fn adapter_names() -> Vec<String> {
    let names = std::env::var("NEARFIELD_TEST_ADAPTERS").unwrap_or_else(|_| "llvmpipe,SwiftShader".to_owned());
    names.split(',').map(str::to_owned).collect()
}

/// Eighths from -1 to 1: every sum is exact, so that every device must give the same ids, ties and all.
fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % 17) as f32 / 8.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn flat(device: &Device, rows: usize) -> Flat {
    let mut index = Flat::new(device, DIM, Metric::L2).unwrap();
    index.add(MatrixView::new(&values(rows * DIM, 1), DIM).unwrap()).unwrap();
    index
}

/// Speeds that nobody measured: with these the choice is plain.
fn slow() -> Calibration {
    Calibration::simple(1.0, 1e6, 1e6, None)
}

fn fast() -> Calibration {
    Calibration::simple(1e-6, 1e13, 1e13, Some(1e13))
}

fn search(index: &Flat) -> (Neighbors, SearchStats) {
    let queries = values(8 * DIM, 2);
    index.search_with(MatrixView::new(&queries, DIM).unwrap(), 10, &SearchOptions::default()).unwrap()
}

#[test]
fn row_a2_devices_are_chosen_by_name_and_by_rule() {
    assert!(open("cpu", None).unwrap().name().starts_with("cpu ("));
    for name in adapter_names() {
        let opened = open(&name.to_uppercase(), None).unwrap_or_else(|e| panic!("{e}\nscripts/setup-drivers helps"));
        assert!(opened.name().contains(&name), "{} for {name}", opened.name());
    }
    for wrong in ["gpu:99", "gpu:x", "a card that nobody made"] {
        let error = open(wrong, None).unwrap_err().to_string();
        assert!(error.contains(wrong) && error.contains("auto, cpu, gpu"), "{error}");
        assert!(error.contains(&adapter_names()[0]), "it lists what there is: {error}");
    }
    // Here all adapters are software: `gpu` takes one all the same, `auto` never does and says why.
    if nearfield::adapters().iter().all(|a| a.kind == nearfield::AdapterKind::Software) {
        assert!(!open("gpu", None).unwrap().name().starts_with("cpu"));
        let auto = open("auto", None).unwrap();
        assert!(auto.name().starts_with("cpu"), "{}", auto.name());
        let (_, stats) = search(&flat(&auto, 100));
        let reason = stats.fallback.expect("the answer says why no GPU gave it");
        assert!(reason.contains("software"), "{reason}");
    }
}

#[test]
fn row_a3_an_applications_own_device_answers() {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN;
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let wanted = &adapter_names()[0];
    let adapter = adapters.iter().find(|a| a.get_info().name.contains(wanted.as_str())).expect("the test adapter");
    // The defaults of WebGPU: no feature, 128 MiB bindings, 8 storage buffers.
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor::default())).unwrap();
    let shared = Device::from_wgpu(device.clone(), queue).unwrap();
    let (found, stats) = search(&flat(&shared, 1000));
    assert_eq!(found.ids(), search(&flat(&Device::cpu(), 1000)).0.ids());
    assert!(stats.fallback.is_none() && stats.device.contains(wanted.as_str()), "{stats:?}");

    // The application closes its device: an error, no panic.
    let index = flat(&shared, 1000);
    device.destroy();
    let queries = values(DIM, 3);
    let error = index.search(MatrixView::new(&queries, DIM).unwrap(), 1).unwrap_err();
    assert!(matches!(error, SearchError::Engine(_)), "{error}");
}

#[test]
fn row_a4_a_small_budget_changes_no_answer() {
    let rows = 4000;
    let want = search(&flat(&Device::cpu(), rows)).0.into_parts().0;
    for name in adapter_names() {
        // A quarter of the rows, and what a search needs beside them.
        let budget = (rows * DIM * 4 / 4) as u64;
        let device = open(&name, Some(budget.max(256 << 10))).unwrap();
        let big = flat(&device, 40 * rows);
        let (found, stats) = search(&big);
        assert_eq!(found.ids(), search(&flat(&Device::cpu(), 40 * rows)).0.ids(), "{name}");
        assert!(stats.chunks_uploaded > 1, "the base is larger than the budget: {stats:?}");
        assert_eq!(search(&flat(&device, rows)).0.ids(), want, "{name}");
    }
}

#[test]
fn row_a4_after_a_loss_the_next_query_is_answered() {
    for name in adapter_names() {
        let options = GpuOptions { select: Select::Name(name.clone()), memory: None };
        let engine = Arc::new(GpuEngine::open(&options).unwrap());
        let device = Device::auto_given(engine.clone(), options, [slow(), fast()]);
        let index = flat(&device, 2000);
        let (want, stats) = search(&index);
        assert_eq!(stats.fallback, None);
        let answered_by_cpu = |why: &str| {
            let started = Instant::now();
            let (found, stats) = search(&index);
            assert_eq!(found.ids(), want.ids());
            let reason = stats.fallback.expect("the CPU answered and says so");
            assert!(reason.contains(why) && reason.contains("the CPU answered"), "{reason}");
            assert!(stats.device.starts_with("cpu"), "{}", stats.device);
            started.elapsed()
        };

        engine.inject(Fault::OutOfMemory);
        assert!(answered_by_cpu("out of device memory") < Duration::from_secs(1));
        assert_eq!(search(&index).1.fallback, None, "the next query has its memory again");

        engine.inject(Fault::Lost);
        assert!(answered_by_cpu("lost") < Duration::from_secs(1));
        answered_by_cpu("lost");
        std::thread::sleep(Duration::from_millis(1100));
        let (found, stats) = search(&index);
        assert_eq!((found.ids(), stats.fallback), (want.ids(), None), "the device came back by itself");
    }
}

/// An engine on the first test adapter.
fn engine() -> (Arc<GpuEngine>, GpuOptions) {
    let options = GpuOptions { select: Select::Name(adapter_names().swap_remove(0)), memory: None };
    (Arc::new(GpuEngine::open(&options).unwrap()), options)
}

/// Whatever fails on the GPU is answered by the CPU, and says so: verbs, clustering, changes and searches of every index.
#[test]
fn every_fallback_is_reported() {
    let (gpu, options) = engine();
    let device = Device::auto_given(gpu.clone(), options, [slow(), fast()]);
    let (rows, queries) = (values(600 * DIM, 1), values(5 * DIM, 2));
    let (rows, queries) = (MatrixView::new(&rows, DIM).unwrap(), MatrixView::new(&queries, DIM).unwrap());
    type Verb<'a> = (&'a str, Box<dyn FnMut() + 'a>);
    let mut verbs: Vec<Verb<'_>> = vec![
        ("distances", Box::new(|| drop(device.distances(queries, rows, Metric::L2).unwrap()))),
        ("nearest", Box::new(|| drop(device.nearest(queries, rows, Metric::L2, 3).unwrap()))),
        ("assign", Box::new(|| drop(device.assign(queries, rows, Metric::L2).unwrap()))),
        ("top_k", Box::new(|| drop(device.top_k(queries.as_slice(), DIM, 2, nearfield::Order::Smallest).unwrap()))),
        ("normalize", Box::new(|| drop(device.normalize(rows, nearfield::Norm::L2).unwrap()))),
        ("refine", Box::new(|| drop(device.refine(queries, rows, Metric::L2, &[1, 2, 3, 4, 5], 1).unwrap()))),
        ("range", Box::new(|| drop(device.range(queries, rows, Metric::L2, 1.0).unwrap()))),
        ("principal components", Box::new(|| drop(device.principal_components(rows, 1).unwrap()))),
    ];
    for (name, verb) in &mut verbs {
        verb();
        assert_eq!(device.last_report().fallback, None, "{name}");
        assert!(!device.last_report().device.starts_with("cpu ("), "{name}: {:?}", device.last_report());
        gpu.inject(Fault::OutOfMemory);
        verb();
        let report = device.last_report();
        assert!(report.fallback.as_ref().is_some_and(|why| why.contains("out of device memory")), "{name}: {report:?}");
        assert!(report.device.starts_with("cpu ("), "{name}: {report:?}");
    }
    drop(verbs);
    let mut kmeans = nearfield::KMeans::new(4);
    kmeans.iterations = 2;
    assert_eq!(kmeans.train(&device, rows).unwrap().fallback, None);
    gpu.inject(Fault::OutOfMemory);
    assert!(kmeans.train(&device, rows).unwrap().fallback.is_some(), "k-means");

    let spec = "IVF8,SQ8".parse().unwrap();
    let mut ivf = nearfield::Ivf::train(&device, &spec, Metric::L2, rows, &nearfield::TrainOptions::default()).unwrap();
    gpu.inject(Fault::OutOfMemory);
    ivf.add(rows).unwrap();
    assert!(device.last_report().fallback.is_some(), "adding to lists");
    let flat = flat(&device, 600);
    let options = SearchOptions::default();
    type Asking<'a> = (&'a str, Box<dyn Fn() -> SearchStats + 'a>);
    let mut searches: Vec<Asking<'_>> = vec![
        ("search of lists", Box::new(|| ivf.search_with(queries, 3, &options).unwrap().1)),
        ("range of lists", Box::new(|| ivf.range_search_with(queries, 1.0, &options).unwrap().1)),
        ("search", Box::new(|| flat.search_with(queries, 3, &options).unwrap().1)),
        ("range", Box::new(|| flat.range_search_with(queries, 1.0, &options).unwrap().1)),
    ];
    for (name, search) in &mut searches {
        assert_eq!(search().fallback, None, "{name}");
        gpu.inject(Fault::OutOfMemory);
        assert!(search().fallback.is_some(), "{name}");
        assert_eq!(search().fallback, None, "{name}: the next one is answered by the GPU again");
    }
}

#[test]
fn row_d5_each_call_goes_to_the_engine_that_is_predicted_to_be_faster() {
    let (gpu, options) = engine();
    let want = search(&flat(&Device::cpu(), 2000)).0.into_parts().0;
    for (speeds, on_cpu) in [([slow(), fast()], false), ([fast(), slow()], true)] {
        let device = Device::auto_given(gpu.clone(), options.clone(), speeds);
        let (found, stats) = search(&flat(&device, 2000));
        assert_eq!(stats.device.starts_with("cpu ("), on_cpu, "{}", stats.device);
        assert_eq!((found.ids(), stats.fallback), (&want[..], None));
        assert_eq!(device.parts().len(), 2);
    }
    // A CPU that is fast at once, a GPU that is fast when there is much to do.
    let cpu = Calibration::simple(1e-6, 1e9, 1e9, None);
    let device = Device::auto_given(gpu.clone(), options, [cpu, Calibration::simple(0.01, 1e13, 1e13, Some(1e13))]);
    assert!(search(&flat(&device, 100)).1.device.starts_with("cpu ("));
    assert!(!search(&flat(&device, 100_000)).1.device.starts_with("cpu ("));
}

#[test]
fn row_d5_rows_move_to_the_gpu_once_staying_would_have_cost_more() {
    let (gpu, options) = engine();
    let rows = 4000;
    // 1 ms on the CPU and nearly nothing on the GPU, but 5 ms to bring the rows there.
    let bytes = (rows * DIM * 4) as f64;
    let speeds =
        [Calibration::simple(1e-3, 1e12, 1e12, None), Calibration::simple(1e-6, 1e12, 1e12, Some(bytes / 5e-3))];
    let index = flat(&Device::auto_given(gpu, options, speeds), rows);
    let who: Vec<bool> = (0..12).map(|_| search(&index).1.device.starts_with("cpu (")).collect();
    let first = who.iter().position(|on_cpu| !on_cpu).expect("it moves to the GPU");
    assert!((2..=8).contains(&first), "{who:?}");
}

fn rows_of(device: &Device, rows: usize, dim: usize) -> Flat {
    let mut index = Flat::new(device, dim, Metric::L2).unwrap();
    index.add(MatrixView::new(&values(rows * dim, 1), dim).unwrap()).unwrap();
    index
}

#[test]
fn row_a9_one_query_is_one_submission_and_at_most_six_dispatches() {
    for name in adapter_names() {
        let options = GpuOptions { select: Select::Name(name.clone()), memory: None };
        let gpu = Arc::new(GpuEngine::open(&options).unwrap());
        let device = Device::auto_given(gpu.clone(), options, [slow(), fast()]);
        let index = rows_of(&device, 10_000, 64);
        let query = values(64, 9);
        let query = MatrixView::new(&query, 64).unwrap();
        // Twice: the first runs of a kernel are cut short, for want of a rate.
        for _ in 0..3 {
            index.search(query, 10).unwrap();
        }
        let (before, memory) = (gpu.work(), gpu.used());
        index.search(query, 10).unwrap();
        let after = gpu.work();
        assert_eq!(after.submissions - before.submissions, 1, "{name}");
        assert!(after.dispatches - before.dispatches <= 6, "{name}: {before:?} {after:?}");
        assert_eq!((after.kernels, gpu.used()), (before.kernels, memory), "{name}: nothing new was made");
    }
}

#[test]
fn row_a9_after_a_warm_up_the_first_search_pays_nothing() {
    let (gpu, options) = engine();
    let device = Device::auto_given(gpu.clone(), options, [slow(), fast()]);
    let index = rows_of(&device, 3000, 24);
    index.warm_up(&[1, 40], 10).unwrap();
    let (warm, memory) = (gpu.work(), gpu.used());
    assert!(warm.kernels > 2 && memory > 3000 * 24 * 4, "{warm:?}");
    for queries in [1, 40] {
        let batch = values(queries * 24, 3);
        let view = MatrixView::new(&batch, 24).unwrap();
        let (found, stats) = index.search_with(view, 10, &SearchOptions::default()).unwrap();
        assert_eq!(stats.chunks_uploaded, 0);
        assert_eq!(found.ids(), rows_of(&Device::cpu(), 3000, 24).search(view, 10).unwrap().ids());
    }
    let now = gpu.work();
    assert_eq!((now.kernels, now.tests, gpu.used()), (warm.kernels, warm.tests, memory));
    assert!(index.warm_up(&[1], 0).is_err());
    assert!(Flat::new(&device, 8, Metric::L2).unwrap().warm_up(&[1, 0], 5).is_ok(), "no rows, nothing to warm");
}

/// Both engines are warm afterwards, whichever is predicted to answer.
#[test]
fn row_a9_lists_are_warmed_on_both_engines() {
    let (gpu, options) = engine();
    let device = Device::auto_given(gpu.clone(), options, [fast(), slow()]);
    let data = values(3000 * DIM, 8);
    let rows = MatrixView::new(&data, DIM).unwrap();
    let spec = "IVF8,SQ8".parse().unwrap();
    let mut ivf = nearfield::Ivf::train(&device, &spec, Metric::L2, rows, &nearfield::TrainOptions::default()).unwrap();
    ivf.add(rows).unwrap();
    assert_eq!(gpu.work().kernels, 0, "the CPU is predicted to be faster");
    let stats = ivf.warm_up(&[1, 40], 10).unwrap();
    let warm = gpu.work();
    assert!(warm.kernels > 1 && stats.kernels.iter().any(|name| name.starts_with("scan/")), "{warm:?}, {stats:?}");
    ivf.set_device(&Device::auto_given(gpu.clone(), engine().1, [slow(), fast()]));
    ivf.search(&data[..DIM], 10).unwrap();
    assert_eq!((gpu.work().kernels, gpu.work().tests), (warm.kernels, warm.tests), "a search compiles nothing more");
}

#[test]
fn row_e6_no_answer_depends_on_the_tuning() {
    let (gpu, options) = engine();
    let device = Device::auto_given(gpu.clone(), options, [slow(), fast()]);
    let index = flat(&device, 3000);
    let want: Vec<Vec<u64>> = [1, 7, 40]
        .map(|queries| flat(&Device::cpu(), 3000).search(MatrixView::new(&values(queries * DIM, 4), DIM).unwrap(), 12))
        .map(|found| found.unwrap().into_parts().0)
        .to_vec();
    for tuning in KernelTuning::grid() {
        gpu.set_tuning(tuning, false);
        assert_eq!(gpu.tuning(), tuning);
        for (queries, want) in [1, 7, 40].into_iter().zip(&want) {
            for screen in [Screen::None, Screen::F32] {
                let batch = values(queries * DIM, 4);
                let mut options = SearchOptions::default();
                options.screen = Some(screen);
                let found = index.search_with(MatrixView::new(&batch, DIM).unwrap(), 12, &options).unwrap();
                assert_eq!(found.0.ids(), want, "{tuning}, {queries} queries, screen {screen}");
                assert!(!found.1.device.starts_with("cpu"), "{:?}", found.1);
            }
        }
    }
    gpu.set_tuning(KernelTuning { groups: 0, search: Some(99) }, false);
    assert!(gpu.tuning().is_sane(), "nonsense is not taken");
}

/// What `row_a9_a_second_process_pays_less` runs in processes of their own: a search, and what it took.
#[test]
#[ignore = "run by another test"]
fn child_searches_and_says_what_it_paid() {
    let (gpu, options) = engine();
    let device = Device::auto_given(gpu.clone(), options, [slow(), fast()]);
    search(&flat(&device, 2000));
    println!("PAID tests {} notes {:?}", gpu.work().tests, device.notes());
}

#[test]
fn row_a9_a_second_process_pays_less() {
    let cache = tempfile::tempdir().unwrap();
    let paid = || {
        let done = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_searches_and_says_what_it_paid", "--ignored", "--nocapture"])
            .env("XDG_CACHE_HOME", cache.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{said}");
        let line =
            said.lines().find_map(|l| l.split_once("PAID tests ")).unwrap_or_else(|| panic!("{said}")).1.to_owned();
        let (tests, notes) = line.split_once(" notes ").unwrap();
        (tests.parse::<u64>().unwrap(), notes.to_owned())
    };
    let first = paid();
    assert!(first.0 > 0 && first.1 == "[]", "{first:?}");
    assert_eq!(paid(), (0, "[]".to_owned()), "the verdicts were kept");

    // Every file is damaged: all are named, none is believed, and the next process finds them mended.
    let files = || std::fs::read_dir(cache.path().join("nearfield")).unwrap().map(|e| e.unwrap().path());
    assert!(files().count() >= 1);
    for path in files() {
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
    }
    let (tests, notes) = paid();
    assert_eq!(tests, first.0, "a damaged verdict is no verdict");
    for path in files() {
        assert!(
            notes.contains(path.file_name().unwrap().to_str().unwrap()),
            "{} is not named: {notes}",
            path.display()
        );
    }
    assert_eq!(paid(), (0, "[]".to_owned()), "they were rebuilt");
}

/// Runs by hand, as the next one: what one query costs on each engine, and how much of it is no kernel.
#[test]
#[ignore = "measures; run it alone on a quiet machine"]
fn row_a9_what_a_single_query_costs() {
    let (gpu, options) = engine();
    let device = Device::auto_over(gpu, options);
    println!("| engine | rows | dim | best us | median us | in kernels, us |\n|---|--:|--:|--:|--:|--:|");
    for part in device.parts() {
        for (rows, dim) in [(64, 16), (10_000, 128)] {
            let index = rows_of(&part, rows, dim);
            let query = values(dim, 9);
            let query = MatrixView::new(&query, dim).unwrap();
            let mut runs: Vec<(f64, f64)> = (0..300)
                .map(|_| {
                    let began = Instant::now();
                    let (_, stats) = index.search_with(query, 10, &SearchOptions::default()).unwrap();
                    let wall = began.elapsed().as_secs_f64();
                    let kernels = stats.stages.iter().filter(|s| s.on_device || s.name == "search");
                    (wall * 1e6, kernels.map(|s| s.time.as_secs_f64()).sum::<f64>() * 1e6)
                })
                .collect();
            runs.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (best, median) = (runs[0], runs[150]);
            println!("| {} | {rows} | {dim} | {:.1} | {:.1} | {:.1} |", part.name(), best.0, median.0, median.1);
        }
    }
}

/// Runs by hand (`cargo test --release --test choice -- --ignored --nocapture`): what each engine was predicted to take on
/// 60 shapes and what it took with the rows in place; and how near the better one the choice by those predictions comes,
/// were the software adapter so many times faster than it is.
#[test]
#[ignore = "measures; run it alone on a quiet machine"]
fn row_d5_the_choice_is_near_the_better_engine_on_a_grid() {
    let (gpu, options) = engine();
    let device = Device::auto_over(gpu, options);
    let parts = device.parts();
    println!(
        "| rows | dim | queries | k | CPU ms | predicted | GPU ms | predicted |\n|--:|--:|--:|--:|--:|--:|--:|--:|"
    );
    let mut points: Vec<[[f64; 2]; 2]> = Vec::new();
    for (rows, dim) in [(500, 32), (5000, 32), (30_000, 32), (500, 256), (5000, 256), (20_000, 256)] {
        let values = values(rows * dim, 5);
        let mut index = Flat::new(&parts[0], dim, Metric::L2).unwrap();
        index.add(MatrixView::new(&values, dim).unwrap()).unwrap();
        for batch in [1, 4, 16, 64, 256] {
            for k in [10, 100] {
                let queries = MatrixView::new(&values[..batch * dim], dim).unwrap();
                let point = [0, 1].map(|who| {
                    index.set_device(&parts[who]);
                    let plan = index.explain(queries, k, &SearchOptions::default()).unwrap().program;
                    let predicted: f64 = parts[who].predict(&plan).unwrap().iter().sum();
                    let run = || {
                        let began = Instant::now();
                        index.search(queries, k).unwrap();
                        began.elapsed().as_secs_f64()
                    };
                    run();
                    let (began, mut best) = (Instant::now(), f64::INFINITY);
                    for i in 0..8 {
                        if i < 2 || began.elapsed() < Duration::from_millis(600) {
                            best = best.min(run());
                        }
                    }
                    [best, predicted]
                });
                let [[c, pc], [g, pg]] = point.map(|p| p.map(|s| s * 1e3));
                println!("| {rows} | {dim} | {batch} | {k} | {c:.3} | {pc:.3} | {g:.3} | {pg:.3} |");
                points.push(point);
            }
        }
    }
    for (who, name) in [(0, "CPU"), (1, "GPU")] {
        let mut off: Vec<f64> = points.iter().map(|p| (p[who][1] / p[who][0]).max(p[who][0] / p[who][1])).collect();
        off.sort_by(f64::total_cmp);
        println!("{name}: predictions off by {:.2} (median), {:.2} (nine of ten)", off[30], off[54]);
    }
    for faster in [1.0, 10.0, 30.0, 100.0, 300.0] {
        let mut ratios: Vec<(f64, bool)> = points
            .iter()
            .map(|[[c, pc], [g, pg]]| {
                let gpu = pg / faster < *pc;
                let taken = if gpu { g / faster } else { *c };
                (taken / c.min(g / faster), gpu)
            })
            .collect();
        ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
        let near = ratios.iter().filter(|r| r.0 <= 1.5).count();
        let on_gpu = ratios.iter().filter(|r| r.1).count();
        println!("x{faster}: {on_gpu} of 60 to the GPU, {near} within 1.5 of the better, worst {:.2}", ratios[59].0);
    }
}
