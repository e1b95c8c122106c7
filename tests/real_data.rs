//! Real embeddings against their exact ground truth: recall 1.0 by distance, on the CPU and on every GPU of the test run.
//!
//! The sentences that the repository ships are always searched, against an f64 oracle. With `NEARFIELD_DATA` (a folder
//! with `mnist-784-l2`, `sift-photos-128-l2`, `wordnet-minilm-384-angular`, as `scripts/test` unpacks them) those sets
//! are searched too, against the ground truth that comes with them; a set that is missing there is a failure.

use std::path::{Path, PathBuf};

use nearfield::format::{Matrix, read_ids, read_matrix};
use nearfield::{AnyIndex, Device, DeviceOptions, Flat, IndexSpec, Metric, RowsView, SearchOptions, TrainOptions};
use rayon::prelude::*;

mod noted;

fn row(rows: &RowsView<'_>, i: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows.dim()];
    rows.row_f32(i, &mut out);
    out
}

/// Squared l2, or 1 - cosine.
fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(&x, &y)| f(x.into(), y.into())).sum::<f64>();
    match metric {
        Metric::L2 => sum(&|x, y| (x - y) * (x - y)),
        _ => 1.0 - sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt(),
    }
}

/// The distances of the k nearest rows in f64, nearest first.
fn oracle(metric: Metric, rows: &RowsView<'_>, query: &[f32], k: usize) -> Vec<f64> {
    let mut all: Vec<f64> = (0..rows.rows()).into_par_iter().map(|i| distance(metric, &row(rows, i), query)).collect();
    all.sort_unstable_by(f64::total_cmp);
    all.truncate(k);
    all
}

/// Every id found lies as far as the truth's in its place, but for the rounding of f64; ids are distinct.
fn assert_exact(metric: Metric, base: &RowsView<'_>, query: &[f32], found: &[(u64, f32)], truth: &[f64], what: &str) {
    assert_eq!(found.len(), truth.len(), "{what}");
    let mut ids: Vec<u64> = found.iter().map(|f| f.0).collect();
    for (place, (&(id, _), true_distance)) in found.iter().zip(truth).enumerate() {
        let d = distance(metric, &row(base, id as usize), query);
        let near = (d - true_distance).abs() <= 1e-13 * true_distance.abs().max(1.0);
        assert!(near, "{what}: row {id} lies at {d}, that in place {place} of the truth at {true_distance}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), truth.len(), "{what}: an id twice");
}

struct Set {
    metric: Metric,
    base: Matrix,
    queries: Matrix,
    /// Ids of the 100 nearest, where they come with the set.
    truth: Option<Vec<i64>>,
}

impl Set {
    fn open(folder: &Path, base: &str, metric: Metric) -> Set {
        let read = |name: &str| read_matrix(folder.join(name)).unwrap_or_else(|e| panic!("{e}"));
        let truth = folder.join("gt_ids.npy");
        Set {
            metric,
            base: read(base),
            queries: read("queries.npy"),
            truth: truth.exists().then(|| read_ids(truth).unwrap().ids),
        }
    }

    /// Searches `queries` of the queries for each k, on one device.
    fn check(&self, index: &mut Flat, device: &Device, queries: usize, ks: &[usize]) {
        index.set_device(device);
        let (base, queries) = (self.base.view(), self.queries.view().slice(0, queries));
        for &k in ks {
            // Beyond the 100 of the ground truth the oracle answers, for a few queries.
            let from_files = self.truth.as_ref().filter(|_| k <= 100);
            let few = if from_files.is_some() { queries.rows() } else { 4.min(queries.rows()) };
            let (found, stats) = index.search_with(queries.slice(0, few), k, &SearchOptions::default()).unwrap();
            assert_eq!(stats.fallback, None);
            (0..few).into_par_iter().for_each(|q| {
                let query = row(&queries, q);
                let truth = match from_files {
                    Some(ids) => {
                        let nearest = ids[q * 100..q * 100 + k].iter();
                        let far = nearest.map(|&id| distance(self.metric, &row(&base, id as usize), &query));
                        let mut truth: Vec<f64> = far.collect();
                        truth.sort_unstable_by(f64::total_cmp);
                        truth
                    }
                    None => oracle(self.metric, &base, &query, k),
                };
                let hits: Vec<(u64, f32)> = found.query(q).collect();
                let what = format!("{} k = {k}, query {q}", stats.device);
                assert_exact(self.metric, &base, &query, &hits, &truth, &what);
            });
        }
    }
}

/// The adapters of the test run, each by a part of its name. None is a failure of the set-up.
fn gpus() -> Vec<Device> {
    let names = std::env::var("NEARFIELD_TEST_ADAPTERS").unwrap_or_else(|_| "llvmpipe,SwiftShader".to_owned());
    let open = |name: &str| {
        let options = DeviceOptions::default().device(name);
        Device::open(&options).unwrap_or_else(|e| panic!("{e}\nscripts/setup-drivers sets up software GPUs for tests"))
    };
    names.split(',').map(open).collect()
}

fn check_everywhere(set: &Set, cpu_queries: usize, gpu_queries: usize) {
    let cpu = Device::cpu();
    let mut index = Flat::from_matrix(&cpu, set.base.clone(), set.metric, None).unwrap();
    set.check(&mut index, &cpu, cpu_queries, &[1, 10, 100, 1000]);
    // Behind codes, where they pay: batches, and a single query, which takes another path.
    index.prepare().unwrap();
    set.check(&mut index, &cpu, 8.min(cpu_queries), &[1, 10, 100, 1000]);
    set.check(&mut index, &cpu, 1, &[10]);
    let (_, stats) = index.search_with(set.queries.view().slice(0, 1), 10, &SearchOptions::default()).unwrap();
    assert_eq!(stats.kernels.iter().any(|k| k.contains("int8")), index.len() >= 4096, "{stats:?}");
    for gpu in gpus() {
        set.check(&mut index, &gpu, gpu_queries, &[10, 1000]);
        set.check(&mut index, &gpu, 1, &[1, 100]);
    }
}

#[test]
fn row_a1_the_shipped_sentences_everywhere() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo");
    check_everywhere(&Set::open(&folder, "embeddings.npy", Metric::Cosine), 8, 8);
}

/// The folder of a data set. Without `NEARFIELD_DATA` there is none, which is noted; with it, a set that is missing fails.
fn shared(name: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("NEARFIELD_DATA") else {
        noted::not_tested(&format!("the data set {name}: NEARFIELD_DATA names no folder"));
        return None;
    };
    let folder = PathBuf::from(folder).join(name);
    assert!(folder.is_dir(), "NEARFIELD_DATA has no data set {name}: {} is no folder", folder.display());
    Some(folder)
}

#[test]
fn row_c1_real_sets_with_ground_truth() {
    for (name, metric) in [("mnist-784-l2", Metric::L2), ("wordnet-minilm-384-angular", Metric::Cosine)] {
        let Some(folder) = shared(name) else { continue };
        check_everywhere(&Set::open(&folder, "base.npy", metric), 1000, 24);
    }
    if let Some(folder) = shared("sift-photos-128-l2") {
        // The base is shuffled, so a prefix is a fair sample; its truth is the oracle's.
        let whole = Set::open(&folder, "base.npy", Metric::L2);
        let RowsView::U8(all) = whole.base.view() else { panic!("bytes") };
        let prefix: Vec<u8> = all.slice(0, 100_000).as_slice().to_vec();
        let base = Matrix::from_vec(prefix, 128).unwrap();
        check_everywhere(&Set { base, truth: None, ..whole }, 8, 8);
    }
}

/// The share of answers that lie as near as the 10th true neighbour.
fn recall(set: &Set, found: &nearfield::Neighbors) -> f64 {
    let (base, queries) = (set.base.view(), set.queries.view());
    let truth = set.truth.as_ref().expect("these sets have their truth");
    let hits: usize = (0..found.queries())
        .into_par_iter()
        .map(|q| {
            let query = row(&queries, q);
            let far = |id: u64| distance(set.metric, &row(&base, id as usize), &query);
            let kth = far(truth[q * 100 + 9] as u64);
            found.query(q).filter(|&(id, _)| far(id) <= kth + 1e-6 * kth.abs()).count()
        })
        .sum();
    hits as f64 / (10 * found.queries()) as f64
}

#[test]
fn row_c3_c5_compressed_indexes_of_real_sets() {
    let cases = [
        ("mnist-784-l2", Metric::L2, "PCAR112,IVF1024,SQ8,RFlat", 16, Some(20), 0.95),
        ("mnist-784-l2", Metric::L2, "IVF256,RaBitQ,RFlat", 16, None, 0.95),
        ("wordnet-minilm-384-angular", Metric::Cosine, "PCAR160,IVF1024,SQ8,RFlat", 64, Some(30), 0.945),
        ("wordnet-minilm-384-angular", Metric::Cosine, "IVF1024,RaBitQ4", 96, None, 0.92),
        ("wordnet-minilm-384-angular", Metric::Cosine, "PQ96x4fs,Refine(SQ8)", 1, Some(200), 0.95),
    ];
    for (name, metric, spec, probes, refine, least) in cases {
        let Some(folder) = shared(name) else { continue };
        let set = Set::open(&folder, "base.npy", metric);
        let spec: IndexSpec = spec.parse().unwrap();
        let index =
            AnyIndex::build(&Device::cpu(), &spec, metric, set.base.clone(), None, &TrainOptions::default()).unwrap();
        let mut options = SearchOptions::default().probes(probes);
        options.rerank = refine;
        let (found, _) = index.search_with(set.queries.view(), 10, &options).unwrap();
        let got = recall(&set, &found);
        assert!(got >= least, "{name} {spec}: recall {got}, wanted {least}");
    }
}
