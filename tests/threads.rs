//! `threads` holds for all that a device does: no more threads than that are ever started, and never the global pool of
//! rayon, which a program may want for itself.

use nearfield::format::Matrix;
use nearfield::{AnyIndex, Device, DeviceOptions, Flat, IndexSpec, Ivf, KMeans, Metric, Norm, Screen, TrainOptions};

/// Rows in a few clusters, no two alike.
fn rows(n: usize, dim: usize) -> Matrix {
    let value = |i: usize| ((i / dim % 16 * 31 + i % dim * 7) % 23) as f32 + (i * 7919 % 1013) as f32 / 997.0;
    Matrix::from_vec((0..n * dim).map(value).collect(), dim).unwrap()
}

/// Everything that shares work, at sizes where that pays.
fn everything(device: &Device) {
    let (n, dim) = (12_000, 32);
    let (data, queries) = (rows(n, dim), rows(256, dim));
    device.nearest(queries.view(), data.view(), Metric::L2, 3).unwrap();
    device.assign(data.view(), queries.view(), Metric::L2).unwrap();
    device.normalize(data.view(), Norm::L2).unwrap();
    device.principal_components(data.view(), 3).unwrap();
    KMeans::new(64).train(device, data.view()).unwrap();
    let mut flat = Flat::from_matrix(device, data.clone(), Metric::Cosine, None).unwrap();
    for screen in [Screen::None, Screen::F32, Screen::Int8] {
        flat.set_screen(Some(screen)).unwrap();
        flat.search(queries.view(), 10).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    for spec in ["IVF64,SQ8,RFlat", "OPQ8_16,IVF32,PQ8x4,Refine(SQ8)", "PCAR16,RaBitQ4"] {
        let spec: IndexSpec = spec.parse().unwrap();
        let mut ivf = Ivf::train(device, &spec, Metric::Cosine, data.view(), &TrainOptions::default()).unwrap();
        ivf.add(data.view()).unwrap();
        ivf.search(queries.view(), 10).unwrap();
        let path = folder.path().join("index.nf");
        ivf.save(&path).unwrap();
        let loaded = AnyIndex::open(device, &path).unwrap();
        assert_eq!(loaded.len(), n);
    }
}

/// Names of the threads of this process.
#[cfg(target_os = "linux")]
fn names() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok()).collect()
}

/// One test, since it counts the threads of the process.
#[test]
fn no_more_threads_than_asked_for_and_none_of_the_global_pool() {
    for threads in [1, 2, 3] {
        let options = DeviceOptions::default().device("cpu").threads(threads);
        #[cfg(target_os = "linux")]
        let before = names().len();
        let device = Device::open(&options).unwrap();
        everything(&device);
        #[cfg(target_os = "linux")]
        {
            let now = names();
            let ours = now.iter().filter(|name| name.starts_with("nearfield-")).count();
            // The caller is one of them.
            assert_eq!(ours, threads - 1, "{now:?}");
            assert_eq!(now.len(), before + ours, "{now:?}");
        }
        drop(device);
        // Threads end some time after their pool has gone.
        #[cfg(target_os = "linux")]
        while names().iter().any(|name| name.starts_with("nearfield-")) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
    // It can be built once; here it is built for the first time.
    let global = rayon::ThreadPoolBuilder::new().num_threads(1).build_global();
    assert!(global.is_ok(), "something has started rayon's global pool: {global:?}");
}
