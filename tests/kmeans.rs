//! k-means: what it finds, what it refuses, and that engines agree.

use std::ops::ControlFlow;

use half::f16;
use nearfield::{BitsView, ClusterError, Clustering, Device, DeviceOptions, KMeans, MatrixView, Metric, RowsView};

/// Numbers in [0, 1) that a seed gives.
fn random(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// `n` rows about `centres` places.
fn blobs(n: usize, dim: usize, centres: usize, spread: f32) -> Vec<f32> {
    let mut next = random(7);
    let places: Vec<f32> = (0..centres * dim).map(|_| next() * 10.0).collect();
    (0..n * dim).map(|i| places[i / dim % centres * dim + i % dim] + (next() - 0.5) * spread).collect()
}

fn view(rows: &[f32], dim: usize) -> RowsView<'_> {
    RowsView::F32(MatrixView::new(rows, dim).unwrap())
}

fn cpu(threads: usize) -> Device {
    let threads = Some(threads);
    let options = DeviceOptions::default().device("cpu");
    Device::open(&threads.map_or(options.clone(), |n| options.threads(n))).unwrap()
}

fn kmeans(clusters: usize) -> KMeans {
    KMeans::new(clusters)
}

/// Label and squared distance of the nearest centroid, in f64, by brute force.
fn nearest(rows: &[f32], centroids: &[f32], dim: usize) -> Vec<(usize, f64)> {
    let square =
        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum::<f64>();
    let of = |row: &[f32]| {
        let all = centroids.chunks_exact(dim).map(|c| square(row, c)).enumerate();
        all.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap()
    };
    rows.chunks_exact(dim).map(of).collect()
}

fn inertia(rows: &[f32], centroids: &[f32], dim: usize) -> f64 {
    nearest(rows, centroids, dim).iter().map(|n| n.1).sum()
}

/// Lloyd's iteration as it is written in books.
fn naive(rows: &[f32], start: &[f32], dim: usize, rounds: usize) -> Vec<f32> {
    let mut centroids = start.to_vec();
    for _ in 0..rounds {
        let (mut sums, mut counts) = (vec![0.0f64; centroids.len()], vec![0usize; centroids.len() / dim]);
        for (row, (c, _)) in rows.chunks_exact(dim).zip(nearest(rows, &centroids, dim)) {
            sums[c * dim..][..dim].iter_mut().zip(row).for_each(|(s, &x)| *s += f64::from(x));
            counts[c] += 1;
        }
        for (i, centroid) in centroids.iter_mut().enumerate().filter(|(i, _)| counts[i / dim] > 0) {
            *centroid = (sums[i] / counts[i / dim] as f64) as f32;
        }
    }
    centroids
}

fn sizes(rows: &[f32], centroids: &[f32], dim: usize) -> Vec<usize> {
    let mut sizes = vec![0; centroids.len() / dim];
    nearest(rows, centroids, dim).iter().for_each(|n| sizes[n.0] += 1);
    sizes
}

#[test]
fn row_b7_rounds_are_those_of_the_naive_iteration() {
    // With codes (many rows and centroids) and without.
    for (n, dim, k, spread) in [(300, 5, 7, 6.0), (4000, 24, 64, 9.0), (3000, 40, 96, 3.0)] {
        let rows = blobs(n, dim, 50, spread);
        let start = rows[..k * dim].to_vec();
        let mut ours = kmeans(k);
        (ours.iterations, ours.sample, ours.start) = (8, None, Some(start.clone()));
        let found = ours.train(&cpu(2), view(&rows, dim)).unwrap();
        let wanted = inertia(&rows, &naive(&rows, &start, dim, 8), dim);
        let got = inertia(&rows, &found.centroids, dim);
        assert!((got - wanted).abs() < 2e-3 * wanted, "{n} x {dim}, {k}: {got}, naively {wanted}");
        let last = naive(&rows, &start, dim, 7);
        let told = inertia(&rows, &last, dim);
        assert!((found.inertia - told).abs() < 2e-3 * told, "{} told, naively {told}", found.inertia);
    }
}

#[test]
fn row_b7_assignments_are_exact() {
    let mut next = random(3);
    for (n, dim, k, scale) in [(3000, 32, 200, 1.0), (2000, 96, 70, 1e-3), (5000, 16, 33, 1e4)] {
        let mut rows: Vec<f32> = (0..n * dim).map(|_| (next() - 0.5) * scale).collect();
        let mut centroids: Vec<f32> = (0..k * dim).map(|_| (next() - 0.5) * scale).collect();
        // Twins, a zero row, rows that are centroids, and points half way between two.
        centroids.copy_within(0..dim, 5 * dim);
        centroids[7 * dim..8 * dim].fill(0.0);
        rows[..10 * dim].copy_from_slice(&centroids[..10 * dim]);
        for i in 0..dim {
            rows[11 * dim + i] = (centroids[dim + i] + centroids[2 * dim + i]) / 2.0;
        }
        for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
            let (device, c) = (cpu(2), view(&centroids, dim));
            let (labels, values) = device.assign(view(&rows, dim), c, metric).unwrap();
            let brute = device.nearest(view(&rows, dim), c, metric, 1).unwrap();
            for (i, (&label, &value)) in labels.iter().zip(&values).enumerate() {
                // Both are direct keys of one engine, so equal to the last bit but for the order of the sums.
                let near = (value - brute.distances()[i]).abs() <= 4e-6 * value.abs().max(scale * scale);
                assert!(near, "{metric}, row {i}: {label} at {value}, {} at {}", brute.ids()[i], brute.distances()[i]);
                let tie =
                    u64::from(label) == brute.ids()[i] || (value - brute.distances()[i]).abs() <= 4e-6 * value.abs();
                assert!(tie || metric != Metric::L2, "row {i}: {label} and not {}", brute.ids()[i]);
            }
            assert_eq!(labels[5], if metric == Metric::L2 { 0 } else { labels[0] }, "the smaller of two equal ones");
        }
    }
}

#[test]
fn row_b7_same_seed_same_centroids_on_any_number_of_threads() {
    let rows = blobs(9000, 20, 60, 8.0);
    let train = |seed: u64, threads: usize| -> Clustering {
        let mut k = kmeans(64);
        (k.seed, k.iterations) = (seed, 6);
        k.train(&cpu(threads), view(&rows, 20)).unwrap()
    };
    let first = train(1, 1);
    assert_eq!(first, train(1, 1));
    assert_eq!(first, train(1, 3), "threads change nothing");
    assert_ne!(first, train(2, 1), "the seed does");
}

#[test]
fn row_b7_inertia_falls_and_progress_tells_it() {
    let rows = blobs(5000, 16, 40, 8.0);
    let mut seen = Vec::new();
    let found = kmeans(40).train_with(&cpu(2), view(&rows, 16), &mut |p| {
        seen.push((p.iteration, p.inertia));
        ControlFlow::Continue(())
    });
    assert_eq!(seen.len(), found.unwrap().iterations);
    assert!(seen.iter().enumerate().all(|(i, s)| s.0 == i + 1));
    assert!(seen.windows(2).all(|w| w[1].1 <= w[0].1 * (1.0 + 1e-6)), "{seen:?}");
}

#[test]
fn row_b7_cancelled_when_told_so() {
    let rows = blobs(500, 4, 5, 3.0);
    let mut calls = 0;
    let found = kmeans(5).train_with(&cpu(1), view(&rows, 4), &mut |_| {
        calls += 1;
        ControlFlow::Break(())
    });
    assert_eq!((found, calls), (Err(ClusterError::Cancelled), 1));
}

#[test]
fn row_b7_degenerate_inputs() {
    let device = cpu(2);
    let rows = blobs(10, 3, 2, 1.0);
    let error = |k: &KMeans, rows: RowsView<'_>| k.train(&device, rows).unwrap_err().to_string();
    assert!(error(&kmeans(0), view(&rows, 3)).contains("0 clusters"));
    let few = error(&kmeans(11), view(&rows, 3));
    assert!(few.contains("11") && few.contains("10"), "{few}");
    let mut bad = rows.clone();
    bad[7] = f32::NAN;
    let said = error(&kmeans(2), view(&bad, 3));
    assert!(said.contains("row 2, component 1 is NaN"), "{said}");
    bad[7] = 1e30;
    assert!(error(&kmeans(2), view(&bad, 3)).contains("row 2"));
    let mut start = kmeans(2);
    start.start = Some(vec![0.0; 5]);
    let said = error(&start, view(&rows, 3));
    assert!(said.contains('5') && said.contains("2 x 3"), "{said}");
    let bits = [0u8; 16];
    let bits = RowsView::Bits(BitsView::new(&bits, 32).unwrap());
    assert!(error(&kmeans(2), bits).contains("bits"));
    // As many centroids as rows: each its own.
    let all = kmeans(10).train(&device, view(&rows, 3)).unwrap();
    assert!(inertia(&rows, &all.centroids, 3) < 1e-9);
    // One cluster: the mean.
    let one = kmeans(1).train(&device, view(&rows, 3)).unwrap();
    for d in 0..3 {
        let mean = rows.iter().skip(d).step_by(3).map(|&x| f64::from(x)).sum::<f64>() / 10.0;
        assert!((f64::from(one.centroids[d]) - mean).abs() < 1e-5);
    }
    // Nothing but duplicates, on both paths.
    for (n, k) in [(50, 4), (2000, 40)] {
        let same = vec![0.25f32; n * 16];
        let found = kmeans(k).train(&device, view(&same, 16)).unwrap();
        assert!(found.centroids.iter().all(|x| x.is_finite()) && inertia(&same, &found.centroids, 16) < 1e-9);
    }
}

#[test]
fn row_b7_empty_clusters_are_filled() {
    let rows = blobs(4000, 8, 20, 9.0);
    let mut k = kmeans(50);
    // All but one begin far away from every row.
    k.start = Some((0..50 * 8).map(|i| if i < 8 { 5.0 } else { 900.0 + (i / 8) as f32 }).collect());
    (k.iterations, k.sample) = (40, None);
    let found = k.train(&cpu(2), view(&rows, 8)).unwrap();
    assert!(sizes(&rows, &found.centroids, 8).iter().all(|&n| n > 0));
    let fresh = {
        k.start = None;
        k.train(&cpu(2), view(&rows, 8)).unwrap()
    };
    let (a, b) = (inertia(&rows, &found.centroids, 8), inertia(&rows, &fresh.centroids, 8));
    assert!(a < 1.3 * b, "{a}, from rows {b}");
}

#[test]
fn row_b7_balanced_lists() {
    // Half of all rows in one dense place.
    let mut rows = blobs(6000, 12, 30, 8.0);
    let mut next = random(9);
    rows[..3000 * 12].iter_mut().for_each(|x| *x = 5.0 + 0.01 * next());
    let largest = |balanced: bool| {
        let mut k = kmeans(60);
        (k.balanced, k.sample) = (balanced, None);
        let found = k.train(&cpu(2), view(&rows, 12)).unwrap();
        sizes(&rows, &found.centroids, 12).into_iter().max().unwrap()
    };
    let (free, bounded) = (largest(false), largest(true));
    assert!(free > 300, "the case is too easy: {free}");
    assert!(bounded <= 300, "{bounded} rows in one list, the mean is 100; freely {free}");
}

#[test]
fn row_b7_spherical_centroids_have_length_one() {
    let rows = blobs(3000, 16, 20, 9.0);
    let mut k = kmeans(32);
    k.spherical = true;
    let found = k.train(&cpu(2), view(&rows, 16)).unwrap();
    for c in found.centroids.chunks_exact(16) {
        let length = c.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    // Lengths of rows count for nothing.
    let scaled: Vec<f32> = rows.iter().enumerate().map(|(i, x)| x * f32::powi(2.0, (i / 16 % 7) as i32 - 3)).collect();
    let same = k.train(&cpu(2), view(&scaled, 16)).unwrap();
    let apart = found.centroids.iter().zip(&same.centroids).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart < 1e-4, "{apart}");
}

#[test]
fn row_b7_element_types_and_samples() {
    let rows: Vec<f32> = blobs(4000, 16, 20, 6.0).iter().map(|x| f16::from_f32(*x).to_f32()).collect();
    let halves: Vec<f16> = rows.iter().map(|&x| f16::from_f32(x)).collect();
    let halves = RowsView::F16(MatrixView::new(&halves, 16).unwrap());
    let k = kmeans(40);
    assert_eq!(k.train(&cpu(2), halves), k.train(&cpu(2), view(&rows, 16)), "f16 is exact in f32");
    let bytes: Vec<u8> = rows.iter().map(|&x| (x.clamp(0.0, 15.0) * 16.0) as u8).collect();
    let found = k.train(&cpu(2), RowsView::U8(MatrixView::new(&bytes, 16).unwrap())).unwrap();
    assert!(found.centroids.iter().all(|&x| (0.0..=255.0).contains(&x)));
    let mut sampled = kmeans(40);
    sampled.sample = Some(20);
    let found = sampled.train(&cpu(2), view(&rows, 16)).unwrap();
    assert_eq!(found.trained, 800);
    let all = inertia(&rows, &k.train(&cpu(2), view(&rows, 16)).unwrap().centroids, 16);
    assert!(inertia(&rows, &found.centroids, 16) < 1.25 * all);
}

#[test]
fn row_a1_gpus_find_the_same() {
    let names = std::env::var("NEARFIELD_TEST_ADAPTERS").unwrap_or_default();
    let rows = blobs(2000, 20, 40, 8.0);
    let mut k = kmeans(48);
    (k.iterations, k.sample) = (3, None);
    let wanted = inertia(&rows, &k.train(&cpu(2), view(&rows, 20)).unwrap().centroids, 20);
    for name in names.split(',').filter(|name| !name.is_empty()) {
        let gpu = Device::open(&DeviceOptions::default().device(name)).unwrap();
        let got = inertia(&rows, &k.train(&gpu, view(&rows, 20)).unwrap().centroids, 20);
        assert!((got - wanted).abs() < 5e-3 * wanted, "{name}: {got}, on the CPU {wanted}");
    }
}
