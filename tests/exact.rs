//! Ids and their order are those of f64 arithmetic on the stored rows: every metric, every screen, every device, on data where
//! f32 cannot tell rows apart.

use nearfield::cpu::Level;
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

/// The CPU at each level, and every GPU of the test run.
fn devices() -> Vec<Device> {
    Level::available().into_iter().map(Device::cpu_at).chain(gpus(None)).collect()
}

/// Every GPU of the test run, with so much memory.
fn gpus(memory: Option<u64>) -> Vec<Device> {
    let names = std::env::var("NEARFIELD_TEST_ADAPTERS").unwrap_or_default();
    let open = |name: &str| {
        let mut options = DeviceOptions::default().device(name);
        options.memory = memory;
        Device::open(&options).unwrap()
    };
    names.split(',').filter(|name| !name.is_empty()).map(open).collect()
}

/// The key of two vectors in f64, by the definition.
fn key(metric: Metric, a: &[f64], b: &[f64]) -> f64 {
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 { a.iter().zip(b).map(|(&x, &y)| f(x, y)).sum() };
    let ratio = |a: f64, b: f64| if b == 0.0 { 0.0 } else { a / b };
    // (1 + d) ln(1 + d) + (1 - d) ln(1 - d): by its series where it would cancel, in the order in which the series is defined,
    // since rows with the same differences in another order are as near but for the last bit.
    let half = |x: f64| if x <= -1.0 { 0.0 } else { (1.0 + x) * x.ln_1p() };
    let series = |s: f64| s * (1.0 + s * (1.0 / 6.0 + s * (1.0 / 15.0 + s * (1.0 / 28.0 + s / 45.0))));
    let gap = |d: f64| if d * d < 1e-4 { series(d * d) } else { half(d) + half(-d) };
    match metric {
        Metric::L2 => sum(&|x, y| (x - y) * (x - y)),
        Metric::InnerProduct => 0.0 - sum(&|x, y| x * y),
        Metric::Cosine => {
            let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
            0.0 - ratio(sum(&|x, y| x * y), length(a) * length(b))
        }
        Metric::L1 => sum(&|x, y| (x - y).abs()),
        Metric::Linf => a.iter().zip(b).fold(0.0, |most, (x, y)| (x - y).abs().max(most)),
        Metric::Lp(p) => sum(&|x, y| (x - y).abs().powf(f64::from(p))),
        Metric::Canberra => sum(&|x, y| ratio((x - y).abs(), x.abs() + y.abs())),
        Metric::BrayCurtis => ratio(sum(&|x, y| (x - y).abs()), sum(&|x, y| (x + y).abs())),
        Metric::JensenShannon => 0.25 * sum(&|x, y| (x + y) * gap(ratio(x - y, x + y))),
        Metric::Jaccard => ratio(sum(&|x, y| (x - y).abs()), sum(&f64::max)),
        other => panic!("{other} is not defined on numbers"),
    }
}

/// Rows and queries of `dim` components, and what they are called.
struct Data {
    name: &'static str,
    dim: usize,
    rows: Numbers,
    queries: Numbers,
}

/// Numbers of an element type, and what they are in f64.
struct Numbers {
    typed: Typed,
    wide: Vec<f64>,
}

enum Typed {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I32(Vec<i32>),
    I64(Vec<i64>),
}

impl Numbers {
    fn new(dtype: DType, wide: Vec<f64>) -> Numbers {
        let typed = match dtype {
            DType::F32 => Typed::F32(wide.iter().map(|&x| x as f32).collect()),
            DType::F64 => Typed::F64(wide),
            DType::I32 => Typed::I32(wide.iter().map(|&x| x as i32).collect()),
            DType::I64 => Typed::I64(wide.iter().map(|&x| x as i64).collect()),
            other => panic!("{other}"),
        };
        let wide = match &typed {
            Typed::F32(x) => x.iter().map(|&x| f64::from(x)).collect(),
            Typed::F64(x) => x.clone(),
            Typed::I32(x) => x.iter().map(|&x| f64::from(x)).collect(),
            Typed::I64(x) => x.iter().map(|&x| x as f64).collect(),
        };
        Numbers { typed, wide }
    }

    fn view(&self, dim: usize) -> RowsView<'_> {
        match &self.typed {
            Typed::F32(x) => RowsView::new(x, dim),
            Typed::F64(x) => RowsView::new(x, dim),
            Typed::I32(x) => RowsView::new(x, dim),
            Typed::I64(x) => RowsView::new(x, dim),
        }
        .unwrap()
    }
}

impl Data {
    fn new(name: &'static str, dim: usize, count: usize, value: impl FnMut(usize, &mut Random) -> f64) -> Data {
        Data::of(DType::F32, name, dim, count, value)
    }

    fn of(
        dtype: DType,
        name: &'static str,
        dim: usize,
        count: usize,
        mut value: impl FnMut(usize, &mut Random) -> f64,
    ) -> Data {
        let mut random = Random(7);
        let rows = Numbers::new(dtype, (0..count * dim).map(|i| value(i, &mut random)).collect());
        let queries = Numbers::new(dtype, (0..7 * dim).map(|i| value(i * 3 + 1, &mut random)).collect());
        Data { name, dim, rows, queries }
    }

    /// An index of the rows as they are.
    fn index(&self, device: &Device, metric: Metric) -> Flat {
        let rows = self.rows.view(self.dim);
        let mut index = Flat::with_dtype(device, self.dim, metric, rows.dtype()).unwrap();
        index.add(rows).unwrap();
        index
    }

    fn queries(&self) -> RowsView<'_> {
        self.queries.view(self.dim)
    }

    /// Positions and keys of the rows that `allowed` names, nearest first.
    fn nearest(&self, metric: Metric, query: usize, allowed: impl Fn(usize) -> bool) -> Vec<(f64, u64)> {
        let query = &self.queries.wide[query * self.dim..(query + 1) * self.dim];
        let rows = self.rows.wide.chunks_exact(self.dim).enumerate().filter(|(row, _)| allowed(*row));
        let mut all: Vec<(f64, u64)> = rows.map(|(i, row)| (key(metric, query, row), i as u64)).collect();
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
        Data::new("past the squares of f32", dim, 300, move |_, r| 3e37 * spread(r)),
        Data::new("zeros of both signs", dim, 300, move |i, r| match (r.next() * 3.0) as u8 {
            0 => -0.0,
            1 => 0.0,
            _ => f64::from(i / dim % 3 != 0),
        }),
        Data::new("denormal", dim, 300, move |_, r| 1e-40 * spread(r)),
    ]
}

/// Rows that f32 does not hold.
fn wide() -> Vec<Data> {
    let dim = 12;
    let spread = |r: &mut Random| 0.1 + r.next();
    vec![
        Data::of(DType::F64, "f64", dim, 2000, move |_, r| spread(r)),
        Data::of(DType::F64, "f64, ties but for 1e-12", dim, 1000, move |i, r| {
            let kind = (i / dim % 20) as f64;
            0.2 + ((kind * 7.0 + (i % dim) as f64) * 0.61).sin().abs() + 1e-12 * r.next()
        }),
        Data::of(DType::F64, "f64, far from the origin", dim, 1000, |_, r| 4e9 + 1e3 * r.next()),
        Data::of(DType::F64, "f64, past f32", dim, 300, move |_, r| 1e60 * spread(r)),
        Data::of(DType::F64, "f64, below f32", dim, 300, move |_, r| 1e-60 * spread(r)),
        Data::of(DType::F64, "f64, one past f32", dim, 500, move |i, r| if i / dim == 300 { 1e40 } else { spread(r) }),
        Data::of(DType::I32, "i32", dim, 2000, |_, r| 100.0 * r.next()),
        Data::of(DType::I32, "i32 beyond 2^24", dim, 1000, |_, r| 2e9 * r.next()),
        Data::of(DType::I64, "i64 dates", dim, 1000, |_, r| 20_170_103.0 + 4.0 * r.next()),
        Data::of(DType::I64, "i64 microseconds", dim, 1000, |_, r| 1.7e15 + 1e3 * r.next()),
    ]
}

/// The ids of `k` nearest rows of each query are those of f64, behind every screen.
fn check(set: &Data, index: &Flat, k: usize, metric: Metric) {
    for screen in [None, Some(Screen::None), Some(Screen::F32), Some(Screen::Int8)] {
        let mut options = SearchOptions::default();
        options.screen = screen;
        let what = format!("{}, {metric}, screen {screen:?}, k {k}, {}", set.name, index.device().name());
        let found = match index.search_with(set.queries(), k, &options) {
            Ok((found, _)) => found,
            Err(error) => {
                assert!(screen.is_some_and(|s| s != Screen::None), "{what}: {error}");
                continue;
            }
        };
        for q in 0..7 {
            let wanted = set.nearest(metric, q, |_| true);
            let got: Vec<u64> = found.query(q).map(|(id, _)| id).collect();
            assert_eq!(got, wanted[..k].iter().map(|pair| pair.1).collect::<Vec<_>>(), "{what}, query {q}");
            for ((_, distance), (key, _)) in found.query(q).zip(&wanted) {
                let near = metric.external(*key as f32);
                let error = 1e-5 * (1.0 + f64::from(near).abs());
                let close = f64::from((distance - near).abs()) <= error || distance == near;
                assert!(
                    close || set.name.contains("far") || key.abs() > 1e6,
                    "{what}, query {q}: {distance}, not {near}"
                );
            }
        }
    }
}

/// All of them on the CPU; on software GPUs, which take a hundred times longer, one of them.
fn ks<'a>(device: &Device, all: &'a [usize]) -> &'a [usize] {
    if device.name().starts_with("cpu") { all } else { &all[all.len() / 2..all.len() / 2 + 1] }
}

#[test]
fn ids_are_those_of_f64() {
    for device in devices() {
        for set in &data() {
            for metric in METRICS {
                let index = set.index(&device, metric);
                ks(&device, &[1, 10, 100]).iter().for_each(|&k| check(set, &index, k, metric));
            }
        }
    }
}

/// With so little memory that rows come piece by piece.
#[test]
fn streamed_rows_are_decided_in_f64() {
    for device in gpus(Some(64 << 10)) {
        for set in data().iter().chain(&wide()).filter(|set| set.name.contains("ties") || set.name.contains("far")) {
            for metric in [Metric::L2, Metric::Cosine, Metric::Linf] {
                check(set, &set.index(&device, metric), 10, metric);
            }
        }
    }
}

#[test]
fn wide_rows_are_decided_as_they_are() {
    for device in devices() {
        for set in &wide() {
            for metric in METRICS {
                let index = set.index(&device, metric);
                ks(&device, &[1, 20]).iter().for_each(|&k| check(set, &index, k, metric));
            }
        }
    }
}

/// Near-ties in rows of any length, and as many neighbours as there are rows.
#[test]
fn rows_of_any_length_are_decided_in_f64() {
    for device in devices() {
        let dims = [1, 2, 3, 7, 17, 31, 33, 64, 96, 100, 127, 128, 200, 256, 384, 768, 1000, 1536, 4097];
        let each = if device.name().starts_with("cpu") { 1 } else { 3 };
        for dim in dims.into_iter().step_by(each) {
            let count = if dim > 1000 { 60 } else { 300 };
            let set = Data::new("near-ties of any length", dim, count, move |i, r| {
                let kind = (i / dim % 20) as f64;
                0.2 + ((kind * 7.0 + (i % dim) as f64) * 0.61).sin().abs() + 1e-6 * r.next()
            });
            for metric in [Metric::L2, Metric::Cosine, Metric::InnerProduct, Metric::L1] {
                let index = set.index(&device, metric);
                ks(&device, &[10, count]).iter().for_each(|&k| check(&set, &index, k, metric));
            }
        }
    }
}

/// Sums and powers past f32 are ordinary; those past f64 are refused.
#[test]
fn only_what_overflows_f64_is_refused() {
    let device = Device::cpu();
    let set = Data::new("lp:200", 16, 50, |_, r| 4.0 * r.next() - 2.0);
    check(&set, &set.index(&device, Metric::Lp(200.0)), 4, Metric::Lp(200.0));
    let set = Data::new("sums past f32", 2, 50, |_, r| 3e38 * (r.next() - 0.5));
    check(&set, &set.index(&device, Metric::L1), 10, Metric::L1);
    let mut index = Flat::new(&device, 2, Metric::Lp(200.0)).unwrap();
    let error = index.add(&[[1.0f32, 2.0], [1e3, 0.0]]).unwrap_err().to_string();
    assert_eq!(error, "row 1 has values so large that lp:200 overflows f64; scale the rows down");
    assert_eq!(index.len(), 0);
    index.add(&[[1.0f32, 2.0]]).unwrap();
    let error = index.search(&[1e3f32, 0.0], 1).unwrap_err().to_string();
    assert_eq!(error, "query 0 has values so large that lp:200 overflows f64; scale it down");
    let mut index = Flat::with_dtype(&device, 1, Metric::L2, DType::I64).unwrap();
    let error = index.add(&[[0i64], [9_007_199_254_740_993]]).unwrap_err().to_string();
    assert!(error.starts_with("row 1, component 0 is 9007199254740993; rows of i64 hold"), "{error}");
    let mut index = Flat::with_dtype(&device, 1, Metric::L2, DType::F64).unwrap();
    assert!(index.add(&[[1e160f64]]).unwrap_err().to_string().contains("overflows f64"));
    index.add(&[[1e150f64], [-1e150]]).unwrap();
    assert_eq!(index.search(&[1e149f64], 2).unwrap().ids(), [0, 1]);
}

#[test]
fn filters_and_radii_are_decided_in_f64() {
    for device in devices() {
        for set in data().iter().chain(&wide()).filter(|set| {
            ["near-ties", "far from the origin", "large", "f64, ties but for 1e-12", "i64 microseconds"]
                .contains(&set.name)
        }) {
            for metric in [Metric::L2, Metric::Cosine, Metric::L1, Metric::InnerProduct] {
                let index = set.index(&device, metric);
                let odd = |row: usize| row % 2 == 1;
                let options = SearchOptions::default().filter(Filter::Rows(Bitmap::from_fn(index.len(), odd)));
                let (found, _) = index.search_with(set.queries(), 20, &options).unwrap();
                for q in 0..7 {
                    let wanted = set.nearest(metric, q, odd);
                    let ids: Vec<u64> = found.query(q).map(|(id, _)| id).collect();
                    assert_eq!(ids, wanted[..20].iter().map(|w| w.1).collect::<Vec<_>>(), "{}, {metric}", set.name);
                    // A radius at a row, as f32 has it: some of those near it lie within, some beyond.
                    let radius = metric.external(wanted[40].0 as f32);
                    let border = f64::from(metric.external(radius));
                    let query = set.queries().slice(q, q + 1);
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
