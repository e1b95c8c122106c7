//! What does not wait: futures of searches and verbs, and calling work off.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use nearfield::{
    AnyIndex, BuildError, CancelToken, ClusterError, Device, DeviceOptions, Flat, IndexSpec, Ivf, KMeans, MatrixView,
    Metric, SearchError, SearchOptions, Shared, TrainOptions,
};

const DIM: usize = 64;

fn values(rows: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..rows * DIM).map(|_| next()).collect()
}

fn rows(data: &[f32]) -> MatrixView<'_, f32> {
    MatrixView::new(data, DIM).unwrap()
}

/// The CPU, alone and with a thread beside it, and every GPU under test.
fn devices() -> Vec<Device> {
    let mut all: Vec<Device> =
        [1, 2].map(|threads| Device::open(&DeviceOptions::default().device("cpu").threads(threads)).unwrap()).into();
    if let Ok(names) = std::env::var("NEARFIELD_TEST_ADAPTERS") {
        all.extend(names.split(',').map(|name| Device::open(&DeviceOptions::default().device(name)).unwrap()));
    }
    all
}

/// An index of each structure.
fn indexes(device: &Device, data: &[f32]) -> Vec<AnyIndex> {
    let mut flat = Flat::new(device, DIM, Metric::L2).unwrap();
    flat.add(rows(data)).unwrap();
    let spec: IndexSpec = "IVF16,SQ8,RFlat".parse().unwrap();
    let mut ivf = Ivf::train(device, &spec, Metric::L2, rows(data), &TrainOptions::default()).unwrap();
    ivf.add(rows(data)).unwrap();
    vec![flat.into(), ivf.into()]
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Drives a future as an application would that draws frames meanwhile: gives its value, how often it was polled, and the
/// longest poll.
fn drive<F: Future>(future: F) -> (F::Output, usize, Duration) {
    let mut future = pin!(future);
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let (mut seen, mut polls, mut longest) = (usize::MAX, 0, Duration::ZERO);
    loop {
        let woken = count.0.load(Ordering::SeqCst);
        if woken == seen {
            std::thread::sleep(Duration::from_micros(100));
            continue;
        }
        (seen, polls) = (woken, polls + 1);
        let began = Instant::now();
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        longest = longest.max(began.elapsed());
        if let Poll::Ready(value) = polled {
            return (value, polls, longest);
        }
    }
}

#[test]
fn futures_of_a_shared_index_hold_up_nobody() {
    let (data, queries) = (values(20_000, 1), values(64, 2));
    for device in devices() {
        for index in indexes(&device, &data) {
            let options = SearchOptions::default();
            let want = index.search_with(rows(&queries), 10, &options).unwrap().0;
            let within = index.range_search(rows(&queries), 30.0).unwrap();
            let index = Shared::new(index);
            // Many at a time; the index changes meanwhile, and every answer is that of the state asked.
            let asked: Vec<_> = (0..8).map(|_| index.search_async(rows(&queries), 10, &options)).collect();
            let ranges = index.range_search_async(rows(&queries), 30.0, &options);
            index.remove(want.ids());
            for (i, pending) in asked.into_iter().enumerate() {
                let found = match i % 2 {
                    0 => pending.wait(),
                    _ => {
                        let (found, _, longest) = drive(pending);
                        assert!(longest < Duration::from_millis(250), "polling took {longest:?} on {}", device.name());
                        found
                    }
                };
                assert_eq!(found.unwrap().0, want, "{}", device.name());
            }
            assert_eq!(ranges.wait().unwrap().0, within, "{}", device.name());
            assert_ne!(index.search(rows(&queries), 10).unwrap(), want, "its rows are gone by now");
        }
    }
}

#[test]
fn futures_without_a_thread_wait_for_the_gpu_without_holding_up() {
    let (data, queries) = (values(20_000, 3), values(33, 4));
    for device in devices() {
        let gpu = device.kind() != nearfield::DeviceKind::Cpu;
        for index in indexes(&device, &data) {
            let options = SearchOptions::default();
            let want = index.search(rows(&queries), 10).unwrap();
            let (found, polls, _) = drive(index.search_async(rows(&queries), 10, &options));
            assert_eq!(found.unwrap().0, want);
            assert!(!gpu || polls > 1, "a GPU is waited for: {polls} polls on {}", device.name());
        }
        let (few, points) = (rows(&data[..300 * DIM]), rows(&queries));
        let (found, polls, _) = drive(device.nearest_async(points, few, Metric::L2, 5));
        assert_eq!(found.unwrap(), device.nearest(points, few, Metric::L2, 5).unwrap());
        assert!(!gpu || polls > 1, "{polls} polls on {}", device.name());
        let (found, ..) = drive(device.distances_async(points, few, Metric::Cosine));
        assert_eq!(found.unwrap(), device.distances(points, few, Metric::Cosine).unwrap());
        let (found, ..) = drive(device.assign_async(points, few, Metric::L2));
        assert_eq!(found.unwrap(), device.assign(points, few, Metric::L2).unwrap());
    }
}

#[test]
fn work_that_panics_panics_where_it_is_waited_for() {
    let pending = Device::cpu().spawn(|_| async { if true { panic!("of its own") } else { Ok::<(), ()>(()) } });
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pending.wait())).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"of its own"));
}

/// A clustering does not hold up a search that is asked for later.
#[test]
fn futures_do_not_wait_for_each_other() {
    let (data, queries) = long();
    let device = Device::cpu();
    let mut index = Flat::new(&device, DIM, Metric::L2).unwrap();
    index.add(rows(&data)).unwrap();
    let index = Shared::new(index);
    let points = data.clone();
    let clustering = device
        .spawn(move |device| async move { KMeans::new(2000).train(&device, MatrixView::new(&points, DIM).unwrap()) });
    std::thread::sleep(Duration::from_millis(50));
    let mut clustering = pin!(clustering);
    let found = index.search_async(rows(&queries[..DIM]), 3, &SearchOptions::default()).wait().unwrap().0;
    assert_eq!(found, index.search(rows(&queries[..DIM]), 3).unwrap());
    let polled = clustering.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "the clustering goes on; if it is over, make it longer");
}

/// Rows and queries that take some seconds to compare on the machines that tests run on.
fn long() -> (Vec<f32>, Vec<f32>) {
    (values(60_000, 5), values(6000, 6))
}

#[test]
fn a_token_ends_work_soon() {
    let (data, queries) = long();
    for device in devices() {
        let mut index = Flat::new(&device, DIM, Metric::L1).unwrap();
        index.add(rows(&data)).unwrap();
        let index = Shared::new(index);
        // A software GPU takes seconds for what a command buffer holds, until it is known how slow it is.
        let soon = Duration::from_secs(if device.kind() == nearfield::DeviceKind::Cpu { 2 } else { 15 });
        // By a call, by a deadline, by dropping what was given, before it began.
        let token = CancelToken::new();
        let options = SearchOptions::default().cancel(&token);
        let pending = index.search_async(rows(&queries), 10, &options);
        std::thread::sleep(Duration::from_millis(100));
        let began = Instant::now();
        token.cancel();
        assert_eq!(pending.wait().unwrap_err(), SearchError::Cancelled, "{}", device.name());
        assert!(began.elapsed() < soon, "{:?} on {}", began.elapsed(), device.name());
        assert_eq!(index.search_with(rows(&queries), 10, &options).unwrap_err(), SearchError::Cancelled);

        let began = Instant::now();
        let options = SearchOptions::default().cancel(&CancelToken::after(Duration::from_millis(50)));
        let error = index.search_with(rows(&queries), 10, &options).unwrap_err();
        assert_eq!(error.to_string(), "the search was called off, or its deadline has passed");
        assert!(began.elapsed() < soon, "{:?} on {}", began.elapsed(), device.name());

        let began = Instant::now();
        drop(index.search_async(rows(&queries), 10, &SearchOptions::default()));
        // The thread of the device is free again.
        let few = rows(&queries[..DIM]);
        let want = index.search(few, 3).unwrap();
        assert_eq!(index.search_async(few, 3, &SearchOptions::default()).wait().unwrap().0, want);
        assert!(began.elapsed() < soon, "{:?} on {}", began.elapsed(), device.name());
    }
}

#[test]
fn a_token_ends_verbs_clustering_and_training() {
    let (data, queries) = long();
    let spec: IndexSpec = "IVF64,SQ8".parse().unwrap();
    for device in devices() {
        let token = CancelToken::after(Duration::from_millis(30));
        let tied = device.cancelled_by(&token);
        assert_eq!(tied.distances(rows(&queries), rows(&data), Metric::L1).unwrap_err(), SearchError::Cancelled);
        assert!(matches!(KMeans::new(500).train(&tied, rows(&data)), Err(ClusterError::Cancelled)));
        let options = TrainOptions::default();
        let error = Ivf::train(&tied, &spec, Metric::L2, rows(&data), &options).unwrap_err();
        assert!(matches!(error, BuildError::Cancelled), "{error}");
        // An index does not keep the token.
        let token = CancelToken::new();
        let mut index = Flat::new(&device.cancelled_by(&token), DIM, Metric::L2).unwrap();
        token.cancel();
        index.add(rows(&queries)).unwrap();
        assert_eq!(index.search(&queries[..DIM], 1).unwrap().ids(), [0]);
    }
}
