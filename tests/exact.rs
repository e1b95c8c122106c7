//! Ids and their order are those of f64 arithmetic on the stored rows: every metric, every screen, every device, on data where
//! f32 cannot tell rows apart.

use nearfield::{
    Bitmap, DType, Device, DeviceOptions, Filter, Flat, MatrixView, Metric, RowsView, Screen, SearchOptions,
};

/// Every metric on numbers.
const METRICS: [Metric; 10] = [
    Metric::L2,
    Metric::InnerProduct,
    Metric::Cosine,
    Metric::L1,
    Metric::Linf,
    Metric::Lp(3.0),
    Metric::Canberra,
    Metric::BrayCurtis,
    Metric::JensenShannon,
    Metric::Jaccard,
];

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn devices() -> Vec<Device> {
    let mut all = vec![Device::cpu()];
    let names = std::env::var("NEARFIELD_TEST_ADAPTERS").unwrap_or_default();
    let open = |name: &str| Device::open(&DeviceOptions::default().device(name)).unwrap();
    all.extend(names.split(',').filter(|name| !name.is_empty()).map(open));
    all
}

/// The key of two vectors in f64, by the definition.
fn key(metric: Metric, a: &[f64], b: &[f64]) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 { a.iter().zip(b).map(|(&x, &y)| f(x, y)).sum() };
    let ratio = |a: f64, b: f64| if b == 0.0 { 0.0 } else { a / b };
    let half = |x: f64, m: f64| if x == 0.0 { 0.0 } else { x * (x / m).ln() };
    match metric {
        Metric::L2 => sum(&|x, y| (x - y) * (x - y)),
        Metric::InnerProduct => -sum(&|x, y| x * y),
        Metric::Cosine => {
            let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
            -ratio(sum(&|x, y| x * y), length(a) * length(b))
        }
        Metric::L1 => sum(&|x, y| (x - y).abs()),
        Metric::Linf => a.iter().zip(b).fold(0.0, |most, (x, y)| (x - y).abs().max(most)),
        Metric::Lp(p) => sum(&|x, y| (x - y).abs().powf(f64::from(p))),
        Metric::Canberra => sum(&|x, y| ratio((x - y).abs(), x.abs() + y.abs())),
        Metric::BrayCurtis => ratio(sum(&|x, y| (x - y).abs()), sum(&|x, y| (x + y).abs())),
        Metric::JensenShannon => 0.5 * sum(&|x, y| half(x, (x + y) / 2.0) + half(y, (x + y) / 2.0)),
        Metric::Jaccard => 1.0 - ratio(sum(&f64::min), sum(&f64::max)),
        other => panic!("{other} is not defined on numbers"),
    }
}

/// Rows and queries of `dim` components, and what they are called.
struct Data {
    name: &'static str,
    dim: usize,
    rows: Vec<f32>,
    queries: Vec<f32>,
}

impl Data {
    fn new(name: &'static str, dim: usize, count: usize, mut value: impl FnMut(usize, &mut Random) -> f64) -> Data {
        let mut random = Random(7);
        let rows = (0..count * dim).map(|i| value(i, &mut random) as f32).collect();
        let queries = (0..7 * dim).map(|i| value(i * 3 + 1, &mut random) as f32).collect();
        Data { name, dim, rows, queries }
    }

    fn view<'a>(&self, data: &'a [f32]) -> MatrixView<'a, f32> {
        MatrixView::new(data, self.dim).unwrap()
    }

    /// Positions and keys of the rows that `allowed` names, nearest first.
    fn nearest(&self, metric: Metric, query: usize, allowed: impl Fn(usize) -> bool) -> Vec<(f64, u64)> {
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let query = wide(&self.queries[query * self.dim..(query + 1) * self.dim]);
        let rows = self.rows.chunks_exact(self.dim).enumerate().filter(|(row, _)| allowed(*row));
        let mut all: Vec<(f64, u64)> = rows.map(|(i, row)| (key(metric, &query, &wide(row)), i as u64)).collect();
        all.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        all
    }
}

/// Where f32 has no answer: rows that differ in the last digits, far from the origin, hugely or hardly scaled, or all alike.
fn data() -> Vec<Data> {
    let dim = 24;
    let spread = |r: &mut Random| 0.1 + r.next();
    vec![
        Data::new("spread", dim, 2000, move |_, r| spread(r)),
        // Every row is one of 20, but for a millionth of its length.
        Data::new("near-ties", dim, 2000, move |i, r| {
            let kind = (i / dim % 20) as f64;
            0.2 + ((kind * 7.0 + (i % dim) as f64) * 0.61).sin().abs() + 1e-6 * r.next()
        }),
        Data::new("far from the origin", dim, 2000, |_, r| 1000.0 + r.next()),
        Data::new("duplicates", dim, 2000, move |i, _| 1.0 + ((i / dim % 5 * 31 + i % dim) % 7) as f64),
        Data::new("large", dim, 600, move |_, r| 1e25 * spread(r)),
        Data::new("small", dim, 600, move |_, r| 1e-25 * spread(r)),
        Data::new("one huge row", dim, 800, move |i, r| if i / dim == 300 { 1e12 } else { spread(r) }),
    ]
}

#[test]
fn ids_are_those_of_f64() {
    let data = data();
    for device in devices() {
        for set in &data {
            for metric in METRICS {
                let mut index = Flat::new(&device, set.dim, metric).unwrap();
                index.add(set.view(&set.rows)).unwrap();
                for screen in [None, Some(Screen::None), Some(Screen::F32), Some(Screen::Int8)] {
                    let mut options = SearchOptions::default();
                    options.screen = screen;
                    if index.search_with(&set.queries[..set.dim], 1, &options).is_err() {
                        assert!(screen.is_some_and(|s| s != Screen::None), "{metric} without a screen");
                        continue;
                    }
                    for k in [1, 10, 100] {
                        let what = format!("{}, {metric}, screen {screen:?}, k {k}, {}", set.name, device.name());
                        let (found, _) = index.search_with(set.view(&set.queries), k, &options).unwrap();
                        for q in 0..7 {
                            let wanted = set.nearest(metric, q, |_| true);
                            let wanted: Vec<u64> = wanted[..k].iter().map(|pair| pair.1).collect();
                            let got: Vec<u64> = found.query(q).map(|(id, _)| id).collect();
                            assert_eq!(got, wanted, "{what}, query {q}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn filters_and_radii_are_decided_in_f64() {
    for device in devices() {
        for set in data().iter().filter(|set| ["near-ties", "far from the origin", "large"].contains(&set.name)) {
            for metric in [Metric::L2, Metric::Cosine, Metric::L1, Metric::InnerProduct] {
                let mut index = Flat::new(&device, set.dim, metric).unwrap();
                index.add(set.view(&set.rows)).unwrap();
                let odd = |row: usize| row % 2 == 1;
                let options = SearchOptions::default().filter(Filter::Rows(Bitmap::from_fn(index.len(), odd)));
                let (found, _) = index.search_with(set.view(&set.queries), 20, &options).unwrap();
                for q in 0..7 {
                    let wanted = set.nearest(metric, q, odd);
                    let ids: Vec<u64> = found.query(q).map(|(id, _)| id).collect();
                    assert_eq!(ids, wanted[..20].iter().map(|w| w.1).collect::<Vec<_>>(), "{}, {metric}", set.name);
                    // A radius at a row, as f32 has it: some of those near it lie within, some beyond.
                    let radius = metric.external(wanted[40].0 as f32);
                    let border = f64::from(metric.external(radius));
                    let query = &set.queries[q * set.dim..(q + 1) * set.dim];
                    let hits = index.range_search_with(query, radius, &options).unwrap().0;
                    let got: Vec<u64> = hits.query(0).map(|(id, _)| id).collect();
                    let within = wanted.iter().filter(|w| w.0 <= border).map(|w| w.1);
                    assert_eq!(got, within.collect::<Vec<_>>(), "{}, {metric}, {}", set.name, device.name());
                }
            }
        }
    }
}

/// Halves and bytes are searched as they are stored.
#[test]
fn narrow_rows_are_decided_in_f64() {
    let mut random = Random(3);
    let dim = 16;
    let bytes: Vec<u8> = (0..3000 * dim).map(|_| (random.next() * 8.0) as u8).collect();
    let queries: Vec<u8> = bytes[..5 * dim].iter().map(|x| x.wrapping_add(1)).collect();
    let wide = |x: &[u8]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    for device in devices() {
        for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct, Metric::L1] {
            let mut index = Flat::with_dtype(&device, dim, metric, DType::U8).unwrap();
            index.add(MatrixView::new(&bytes, dim).unwrap()).unwrap();
            for (q, query) in queries.chunks_exact(dim).enumerate() {
                let rows = bytes.chunks_exact(dim).enumerate();
                let mut wanted: Vec<(f64, u64)> =
                    rows.map(|(i, row)| (key(metric, &wide(query), &wide(row)), i as u64)).collect();
                wanted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                let found = index.search(RowsView::U8(MatrixView::new(query, dim).unwrap()), 50).unwrap();
                let got: Vec<u64> = found.query(0).map(|(id, _)| id).collect();
                assert_eq!(got, wanted[..50].iter().map(|w| w.1).collect::<Vec<_>>(), "{metric}, query {q}");
            }
        }
    }
}
