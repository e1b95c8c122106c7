//! Which device answers, and what happens when it can't: by name, by rule, on an application's device, within a budget,
//! after a loss. On the adapters of `NEARFIELD_TEST_ADAPTERS`; none is a failure of the set-up.
#![cfg(feature = "gpu")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use nearfield::gpu::{Fault, GpuEngine, GpuOptions, Select};
use nearfield::tune::Calibration;
use nearfield::{
    Device, DeviceError, DeviceOptions, Flat, Index, MatrixView, Metric, Neighbors, SearchError, SearchOptions,
    SearchStats, wgpu,
};

const DIM: usize = 16;

fn open(name: &str, memory: Option<u64>) -> Result<Device, DeviceError> {
    Device::open(&DeviceOptions { device: Some(name.to_owned()), memory, threads: None })
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
    index.search_with(MatrixView::new(&queries, DIM).unwrap().into(), 10, &SearchOptions::default()).unwrap()
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
    if nearfield::adapters().iter().all(|a| a.kind == nearfield::gpu::Kind::Software) {
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
    assert_eq!(found.ids, search(&flat(&Device::cpu(), 1000)).0.ids);
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
    let want = search(&flat(&Device::cpu(), rows)).0.ids;
    for name in adapter_names() {
        // A quarter of the rows, and what a search needs beside them.
        let budget = (rows * DIM * 4 / 4) as u64;
        let device = open(&name, Some(budget.max(256 << 10))).unwrap();
        let big = flat(&device, 40 * rows);
        let (found, stats) = search(&big);
        assert_eq!(found.ids, search(&flat(&Device::cpu(), 40 * rows)).0.ids, "{name}");
        assert!(stats.chunks_uploaded > 1, "the base is larger than the budget: {stats:?}");
        assert_eq!(search(&flat(&device, rows)).0.ids, want, "{name}");
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
            assert_eq!(found.ids, want.ids);
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
        assert_eq!((found.ids, stats.fallback), (want.ids, None), "the device came back by itself");
    }
}

/// An engine on the first test adapter.
fn engine() -> (Arc<GpuEngine>, GpuOptions) {
    let options = GpuOptions { select: Select::Name(adapter_names().swap_remove(0)), memory: None };
    (Arc::new(GpuEngine::open(&options).unwrap()), options)
}

#[test]
fn row_d5_each_call_goes_to_the_engine_that_is_predicted_to_be_faster() {
    let (gpu, options) = engine();
    let want = search(&flat(&Device::cpu(), 2000)).0.ids;
    for (speeds, on_cpu) in [([slow(), fast()], false), ([fast(), slow()], true)] {
        let device = Device::auto_given(gpu.clone(), options.clone(), speeds);
        let (found, stats) = search(&flat(&device, 2000));
        assert_eq!(stats.device.starts_with("cpu ("), on_cpu, "{}", stats.device);
        assert_eq!((found.ids, stats.fallback), (want.clone(), None));
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
                    let plan = index.explain(queries, k, &SearchOptions::default()).unwrap().plan;
                    let predicted: f64 = parts[who].predict(&plan).unwrap().iter().sum();
                    let run = || {
                        let began = Instant::now();
                        index.search(queries, k).unwrap();
                        began.elapsed().as_secs_f64()
                    };
                    run();
                    [run().min(run()), predicted]
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
        assert!(faster > 1.0 || near == 60);
    }
}
