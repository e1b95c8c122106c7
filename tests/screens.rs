//! Certified screening: behind 8-bit codes the answer is the plain one, whatever the data.

use nearfield::{Bitmap, Device, Filter, Flat, Metric, Neighbors, Screen, SearchOptions, SearchStats};
use nearfield::{MatrixView, RowsView};

const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

fn view(data: &[f32], dim: usize) -> RowsView<'_> {
    MatrixView::new(data, dim).unwrap().into()
}

/// Numbers of about normal distribution, the same on every run.
fn normal(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    move || (0..6).map(|_| uniform()).sum::<f32>() - 3.0
}

/// Rows that lie near a few points in few directions, as embeddings do.
fn embeddings(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut next = normal(seed);
    let directions: Vec<f32> = (0..12 * dim).map(|_| next()).collect();
    let mut out = Vec::with_capacity(n * dim);
    for _ in 0..n {
        let weights: Vec<f32> = (0..12).map(|i| next() / (1.0 + i as f32)).collect();
        out.extend(
            (0..dim).map(|d| 0.5 + weights.iter().enumerate().map(|(i, w)| w * directions[i * dim + d]).sum::<f32>()),
        );
        let start = out.len() - dim;
        out[start..].iter_mut().for_each(|x| *x += 0.1 * next());
    }
    out
}

/// What makes a bound hard: nothing to exclude, lengths far apart, numbers at the edge.
fn adversarial(n: usize, dim: usize) -> Vec<(&'static str, Vec<f32>)> {
    let mut next = normal(7);
    let base = embeddings(n, dim, 3);
    let row = |f: &mut dyn FnMut(usize, usize) -> f32| -> Vec<f32> {
        (0..n).flat_map(|r| (0..dim).map(move |d| (r, d))).map(|(r, d)| f(r, d)).collect()
    };
    vec![
        ("like embeddings", base.clone()),
        ("noise", (0..n * dim).map(|_| next()).collect()),
        ("all equal", row(&mut |_, d| (d as f32).sin())),
        ("near ties", row(&mut |r, d| (d as f32).sin() + if d == r % dim { 1e-6 * (r % 50) as f32 } else { 0.0 })),
        ("one huge row", row(&mut |r, d| base[r * dim + d] * if r == n / 2 { 1e12 } else { 1.0 })),
        ("zero rows", row(&mut |r, d| if r % 3 == 0 { 0.0 } else { base[r * dim + d] })),
        ("one component", row(&mut |r, d| if d == 0 { (r as f32) * 0.01 } else { 0.0 })),
        ("subnormal", row(&mut |r, d| base[r * dim + d] * 1e-40)),
        ("tiny", row(&mut |r, d| base[r * dim + d] * 1e-11)),
        ("far from zero", row(&mut |r, d| 1e5 + base[r * dim + d])),
        ("two clusters", row(&mut |r, d| base[r * dim + d] * 1e-3 + if r % 2 == 0 { 10.0 } else { -10.0 })),
    ]
}

fn search(
    index: &Flat,
    queries: &RowsView<'_>,
    k: usize,
    screen: Screen,
    filter: Option<Filter>,
) -> (Neighbors, SearchStats) {
    let mut options = SearchOptions::default();
    (options.screen, options.filter) = (Some(screen), filter);
    index.search_with(*queries, k, &options).unwrap()
}

/// The same ids in the same order, at the same distances but for their rounding.
fn assert_same(plain: &Neighbors, coded: &Neighbors, what: &str) {
    assert_eq!(plain.ids(), coded.ids(), "{what}");
    for (i, (a, b)) in plain.distances().iter().zip(coded.distances()).enumerate() {
        let close = (a - b).abs() <= 1e-4 * (1e-3 + a.abs().max(b.abs()));
        assert!(close || a == b || a.is_nan() && b.is_nan(), "{what}, place {i}: {a} and {b}");
    }
}

#[test]
fn row_b8_codes_give_the_plain_answer_on_adversarial_data() {
    for (n, dim) in [(900, 24), (700, 67)] {
        for (name, data) in adversarial(n, dim) {
            for metric in METRICS {
                let mut index = Flat::new(&Device::cpu(), dim, metric).unwrap();
                index.add(view(&data, dim)).unwrap();
                let mut asked = embeddings(14, dim, 11);
                asked[..dim].copy_from_slice(&data[5 * dim..6 * dim]);
                asked[dim..2 * dim].fill(0.0);
                asked[2 * dim..3 * dim].copy_from_slice(&data[..dim]);
                let queries = view(&asked, dim);
                let most = Bitmap::from_fn(n, |r| r % 3 != 1);
                let few = Bitmap::from_fn(n, |r| r % 97 == 5);
                let each = (0..14).map(|q| Bitmap::from_fn(n, |r| (r + q) % 4 != 0)).collect();
                let filters =
                    [None, Some(Filter::Rows(most)), Some(Filter::Rows(few)), Some(Filter::RowsPerQuery(each))];
                for filter in filters {
                    for k in [1, 10, 130, n - 1] {
                        let what = format!("{name}, {n} x {dim}, {metric}, k = {k}, {}", filter.is_some());
                        let (plain, _) = search(&index, &queries, k, Screen::None, filter.clone());
                        let (coded, stats) = search(&index, &queries, k, Screen::Int8, filter.clone());
                        assert_same(&plain, &coded, &what);
                        // Where lengths are outside of the proof's range no screen is used, and nothing is proven.
                        assert!(stats.proven + stats.fell_back == 14 || stats.refined == 0, "{what}: {stats:?}");
                    }
                }
                let one = queries.slice(0, 1);
                let (plain, _) = search(&index, &one, 10, Screen::None, None);
                let (coded, _) = search(&index, &one, 10, Screen::Int8, None);
                assert_same(&plain, &coded, &format!("{name}, one query, {metric}"));
            }
        }
    }
}

#[test]
fn row_b8_codes_exclude_nearly_all_and_say_so() {
    let (n, dim) = (20_000, 96);
    let data = embeddings(n, dim, 5);
    for metric in METRICS {
        let mut index = Flat::new(&Device::cpu(), dim, metric).unwrap();
        index.add(view(&data, dim)).unwrap();
        index.set_screen(Some(Screen::Int8)).unwrap();
        let asked = embeddings(50, dim, 6);
        let (found, stats) = index.search_with(view(&asked, dim), 10, &SearchOptions::default()).unwrap();
        // An inner product may be small for nearly all rows; then looking at all is right.
        assert!(stats.proven + stats.fell_back == 50 && stats.fell_back <= 3, "{metric}: {stats:?}");
        assert!(stats.scanned <= 53 * n as u64, "{stats:?}");
        assert!(stats.refined < 50 * n as u64 / 10, "{metric}: {} rows compared directly", stats.refined);
        let (plain, _) = search(&index, &view(&asked, dim), 10, Screen::None, None);
        assert_same(&plain, &found, "set screen");
    }
}

#[test]
fn row_b8_codes_follow_the_rows() {
    let (n, dim) = (6_000, 40);
    let data = embeddings(n, dim, 8);
    let mut index = Flat::new(&Device::cpu(), dim, Metric::L2).unwrap();
    index.add(view(&data[..4_000 * dim], dim)).unwrap();
    index.set_screen(Some(Screen::Int8)).unwrap();
    let asked = embeddings(20, dim, 9);
    let same = |index: &Flat, what: &str| {
        let queries = view(&asked, dim);
        let (plain, _) = search(index, &queries, 12, Screen::None, None);
        let (coded, stats) = search(index, &queries, 12, Screen::Int8, None);
        assert_same(&plain, &coded, what);
        assert!(stats.proven >= 17 && stats.proven + stats.fell_back == 20, "{what}: {stats:?}");
    };
    same(&index, "as trained");
    index.add(view(&data[4_000 * dim..], dim)).unwrap();
    same(&index, "after an add");
    let far: Vec<f32> = asked[..dim].iter().map(|x| x + 1e-3).collect();
    index.update(17, view(&far, dim)).unwrap();
    index.update(5_001, view(&asked[dim..2 * dim], dim)).unwrap();
    same(&index, "after updates");
    let (nearest, _) = search(&index, &view(&asked, dim), 1, Screen::Int8, None);
    assert_eq!(nearest.ids()[..2], [17, 5_001]);
    index.remove(&(0..400).map(|i| i * 7 + 1).collect::<Vec<u64>>());
    same(&index, "with holes");
    index.remove(&(0..900).map(|i| i * 5 + 2).collect::<Vec<u64>>());
    same(&index, "closed up");
    index.add(view(&embeddings(500, dim, 10).iter().map(|x| 50.0 * x).collect::<Vec<_>>(), dim)).unwrap();
    same(&index, "with rows unlike those it was trained on");
}

#[test]
fn row_b8_codes_are_counted_and_saved() {
    let (n, dim) = (5_000, 384);
    let data = embeddings(n, dim, 12);
    let mut index = Flat::new(&Device::cpu(), dim, Metric::Cosine).unwrap();
    index.add(view(&data, dim)).unwrap();
    let before = index.memory_bytes();
    index.set_screen(Some(Screen::Int8)).unwrap();
    let after = index.memory_bytes();
    assert!(after > before && after as f64 <= 1.27 * (n * dim * 4) as f64, "{before} and {after}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("coded.nf");
    index.save(&path).unwrap();
    let loaded = Flat::open(&Device::cpu(), &path).unwrap();
    assert_eq!((loaded.screen(), loaded.memory_bytes()), (Some(Screen::Int8), after));
    let asked = embeddings(9, dim, 13);
    let (want, _) = search(&index, &view(&asked, dim), 7, Screen::Int8, None);
    let (found, stats) = loaded.search_with(view(&asked, dim), 7, &SearchOptions::default()).unwrap();
    assert_eq!(want, found);
    assert_eq!(stats.proven, 9);
    index.set_screen(Some(Screen::None)).unwrap();
    assert_eq!(index.memory_bytes(), before);
}

#[test]
fn row_b8_codes_are_made_when_enough_has_been_asked() {
    let (n, dim) = (5_000, 32);
    let data = embeddings(n, dim, 14);
    let mut index = Flat::new(&Device::cpu(), dim, Metric::L2).unwrap();
    index.add(view(&data, dim)).unwrap();
    let plain = index.memory_bytes();
    let few = embeddings(3, dim, 15);
    index.search(view(&few, dim), 3).unwrap();
    assert_eq!(index.memory_bytes(), plain, "three queries are no reason");
    index.search(view(&embeddings(200, dim, 16), dim), 3).unwrap();
    assert!(index.memory_bytes() > plain, "two hundred are");
    let mut l1 = Flat::new(&Device::cpu(), dim, Metric::L1).unwrap();
    assert!(l1.set_screen(Some(Screen::Int8)).is_err(), "l1 has no codes");
    l1.set_screen(Some(Screen::None)).unwrap();
}

#[test]
fn row_b8_codes_of_changed_rows_are_not_saved() {
    let (n, dim) = (4_200, 32);
    let mut index = Flat::new(&Device::cpu(), dim, Metric::L2).unwrap();
    index.add(view(&embeddings(n, dim, 20), dim)).unwrap();
    index.set_screen(Some(Screen::Int8)).unwrap();
    let other: Vec<f32> = embeddings(1, dim, 21).iter().map(|x| x + 9.0).collect();
    index.update(17, view(&other, dim)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.nf");
    index.save(&path).unwrap();
    let loaded = Flat::open(&Device::cpu(), &path).unwrap();
    let (found, _) = search(&loaded, &view(&other, dim), 1, Screen::Int8, None);
    assert_eq!((found.ids()[0], found.distances()[0]), (17, 0.0));
}

#[test]
fn row_b8_rows_without_provable_codes_are_searched_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.nf");
    let mut index = Flat::new(&Device::cpu(), 4, Metric::L2).unwrap();
    index.add(&[[1e20f32; 4], [-1e20; 4], [0.0; 4]]).unwrap();
    index.set_screen(Some(Screen::Int8)).unwrap();
    index.save(&path).unwrap();
    let loaded = Flat::open(&Device::cpu(), &path).unwrap();
    let (found, stats) = loaded.search_with(&[1.0f32; 4], 1, &SearchOptions::default()).unwrap();
    assert_eq!((found.ids()[0], stats.proven), (2, 0));
    // More components than a product in 32 bits holds.
    let (n, dim) = (150, 70_000);
    let mut next = normal(22);
    let data: Vec<f32> = (0..n * dim).map(|_| next().signum()).collect();
    let mut index = Flat::new(&Device::cpu(), dim, Metric::L2).unwrap();
    index.add(view(&data, dim)).unwrap();
    index.set_screen(Some(Screen::Int8)).unwrap();
    let (found, _) = search(&index, &view(&data[..dim], dim), 1, Screen::Int8, None);
    assert_eq!((found.ids()[0], found.distances()[0]), (0, 0.0));
}

#[test]
fn row_b8_searches_from_a_thread_pool_do_not_wait_for_codes() {
    use rayon::prelude::*;
    let (n, dim) = (5_000, 48);
    let data = embeddings(n, dim, 23);
    let mut index = Flat::new(&Device::cpu(), dim, Metric::L2).unwrap();
    index.add(view(&data, dim)).unwrap();
    // Somewhere among these the codes are made, while others search.
    let wrong = (0..600).into_par_iter().filter(|q| {
        let row = &data[q * 8 * dim..(q * 8 + 1) * dim];
        index.search(view(row, dim), 3).unwrap().distances()[0] != 0.0
    });
    assert_eq!(wrong.count(), 0);
    let codes = index.memory_bytes() - n * (dim * 4 + 4);
    assert!(codes > 0, "codes were made");
}

#[test]
fn row_b8_few_allowed_rows_are_all_found() {
    let (n, dim) = (6_000, 32);
    let data = embeddings(n, dim, 24);
    let mut index = Flat::new(&Device::cpu(), dim, Metric::Cosine).unwrap();
    index.add(view(&data, dim)).unwrap();
    let asked = embeddings(3, dim, 25);
    let each = (0..3).map(|q| Bitmap::from_fn(n, |r| r % 1_500 == q)).collect();
    for filter in [Filter::RowsPerQuery(each), Filter::Rows(Bitmap::from_fn(n, |r| r % 2_000 == 3))] {
        let (plain, _) = search(&index, &view(&asked, dim), 10, Screen::None, Some(filter.clone()));
        let (coded, stats) = search(&index, &view(&asked, dim), 10, Screen::Int8, Some(filter));
        assert_same(&plain, &coded, "few allowed");
        assert_eq!(stats.proven, 3);
    }
}
