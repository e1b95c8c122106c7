//! The Flat index as its users see it: adding, removing, filtering, saving, and every refusal.

mod codes;
mod ivf;
mod screens;

use nearfield::format::{Matrix, NfFile, NfWriter};
use nearfield::{
    AnyIndex, Bitmap, BitsView, BuildError, DType, Device, Filter, Flat, MatrixView, Metric, NO_ID, OpenError,
    RowError, Screen, SearchError, SearchOptions, TrainOptions,
};

const DIM: usize = 8;

/// Deterministic values in -1 .. 1.
pub(crate) fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn rows(data: &[f32]) -> MatrixView<'_, f32> {
    MatrixView::new(data, DIM).unwrap()
}

fn l2(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum()
}

/// The ids of the k nearest of (id, row) pairs.
fn nearest(pairs: &[(u64, &[f32])], query: &[f32], k: usize) -> Vec<u64> {
    let mut all: Vec<(f64, u64)> = pairs.iter().map(|(id, row)| (l2(row, query), *id)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all.into_iter().take(k).map(|(_, id)| id).collect()
}

fn ids(index: &Flat, query: &[f32], k: usize) -> Vec<u64> {
    index.search(rows(query), k).unwrap().query(0).map(|(id, _)| id).collect()
}

#[test]
fn row_c1_grows_shrinks_and_stays_exact() {
    let data = values(60 * DIM, 1);
    let query = values(DIM, 2);
    let mut index = Flat::new(&Device::cpu(), DIM, Metric::L2).unwrap();
    assert_eq!(index.add(rows(&data[..20 * DIM])).unwrap(), (0..20).collect::<Vec<_>>());
    assert_eq!(index.add(rows(&data[20 * DIM..40 * DIM])).unwrap(), (20..40).collect::<Vec<_>>());

    let mut expected: Vec<(u64, &[f32])> =
        data[..40 * DIM].chunks(DIM).enumerate().map(|(i, r)| (i as u64, r)).collect();
    assert_eq!(ids(&index, &query, 7), nearest(&expected, &query, 7));

    // A few holes at first, then more than a fifth, so that they are closed.
    for gone in [vec![3, 39, 3, 777], (10..20).collect()] {
        index.remove(&gone);
        expected.retain(|(id, _)| !gone.contains(id));
        assert_eq!(index.len(), expected.len());
        assert_eq!(ids(&index, &query, 7), nearest(&expected, &query, 7));
        assert_eq!(ids(&index, &query, 100), nearest(&expected, &query, 100), "k past the end gives what there is");
    }

    // Numbers are never used twice.
    assert_eq!(index.add(rows(&data[40 * DIM..])).unwrap(), (40..60).collect::<Vec<_>>());
    expected.extend(data[40 * DIM..].chunks(DIM).enumerate().map(|(i, r)| (40 + i as u64, r)));
    assert_eq!(ids(&index, &query, 30), nearest(&expected, &query, 30));

    // An update is found under its old id.
    index.update(25, rows(&query)).unwrap();
    let hits = index.search(rows(&query), 1).unwrap();
    assert_eq!((hits.ids()[0], hits.distances()[0]), (25, 0.0));
    assert_eq!(index.row(25).unwrap(), query);
    assert_eq!(index.update(3, rows(&query)), Err(BuildError::UnknownId { id: 3 }));
    assert_eq!(index.row(3), Err(RowError::UnknownId { id: 3 }));
}

#[test]
fn the_callers_ids_come_back() {
    let data = values(10 * DIM, 3);
    let mut index = Flat::new(&Device::cpu(), DIM, Metric::L2).unwrap();
    let names: Vec<u64> = (0..10).map(|i| 1_000_000_007 * (10 - i)).collect();
    index.add_with_ids(rows(&data), &names).unwrap();
    for (i, row) in data.chunks(DIM).enumerate() {
        assert_eq!(ids(&index, row, 1), [names[i]]);
    }
    let before = index.len();
    let two = values(2 * DIM, 4);
    assert_eq!(index.add_with_ids(rows(&two), &[5, 5]), Err(BuildError::DuplicateId { id: 5, row: 1 }));
    assert_eq!(index.add_with_ids(rows(&two), &[5, names[0]]), Err(BuildError::DuplicateId { id: names[0], row: 1 }));
    assert_eq!(index.add_with_ids(rows(&two), &[5]), Err(BuildError::IdCount { rows: 2, ids: 1 }));
    assert_eq!(index.add_with_ids(rows(&two), &[5, NO_ID]), Err(BuildError::ReservedId { row: 1 }));
    assert_eq!(index.len(), before, "refused rows leave no trace");
    assert_eq!(index.add(rows(&two)).unwrap(), [names[0] + 1, names[0] + 2]);
    index.add_with_ids(rows(&two[..DIM]), &[(1 << 62) - 2]).unwrap();
    assert_eq!(index.add(rows(&two)), Err(BuildError::NoIdLeft));
    assert_eq!(index.add(rows(&two[..DIM])).unwrap(), [(1 << 62) - 1]);
}

#[test]
fn a_file_that_is_written_while_an_index_has_it_mapped_is_named() {
    let (dir, data) = (tempfile::tempdir().unwrap(), values(500 * DIM, 3));
    let query = rows(&data[..DIM]);
    let options = SearchOptions::default();
    for spec in ["Flat", "IVF4,SQ8,RFlat"] {
        let path = dir.path().join("x.nf");
        let train = TrainOptions::default();
        let matrix = Matrix::from_vec(data.clone(), DIM).unwrap();
        let made = AnyIndex::build(&Device::cpu(), &spec.parse().unwrap(), Metric::L2, matrix, None, &train).unwrap();
        made.save(&path).unwrap();
        let index = AnyIndex::open(&Device::cpu(), &path).unwrap();
        // Another file of the name is no change of this one.
        made.save(&path).unwrap();
        assert_eq!(index.search(query, 1).unwrap().query(0).next().unwrap().0, 0);
        let index = AnyIndex::open(&Device::cpu(), &path).unwrap();
        // In place, as long as before, and a moment later.
        let bytes = std::fs::read(&path).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::io::Write::write_all(&mut std::fs::OpenOptions::new().write(true).open(&path).unwrap(), &bytes).unwrap();
        let changed = Err(SearchError::FileChanged { path: path.clone() });
        assert_eq!(index.search(query, 1).map(drop), changed, "{spec}");
        assert_eq!(index.range_search_with(query, 1.0, &options).map(drop), changed, "{spec}");
    }
}

#[test]
fn ids_near_the_largest_number_leave_others_for_rows_without() {
    let (dir, data) = (tempfile::tempdir().unwrap(), values(6 * DIM, 3));
    let mut index = Flat::new(&Device::cpu(), DIM, Metric::L2).unwrap();
    let huge = [NO_ID - 1, i64::MAX as u64, 1 << 62, 7];
    index.add_with_ids(rows(&data[..4 * DIM]), &huge).unwrap();
    assert_eq!(index.add(rows(&data[4 * DIM..5 * DIM])).unwrap(), [8]);
    let path = dir.path().join("x.nf");
    index.save(&path).unwrap();
    let mut index = Flat::open(&Device::cpu(), &path).unwrap();
    assert_eq!(index.add(rows(&data[5 * DIM..])).unwrap(), [9]);
    assert_eq!(ids(&index, &data[..DIM], 1), [NO_ID - 1]);
    // As files of older versions say it.
    let old = NfFile::open(&path).unwrap();
    let mut file = NfWriter::create(&path).unwrap();
    for section in old.sections() {
        let mut content = old.section(&section.name).unwrap().to_vec();
        if section.name == "meta" {
            let text = String::from_utf8(content).unwrap();
            assert!(text.contains("next_id 9\n"), "{text}");
            content = text.replace("next_id 9\n", "next_id 18446744073709551615\n").into_bytes();
        }
        file.section(&section.name, [content]).unwrap();
    }
    file.finish().unwrap();
    let mut index = Flat::open(&Device::cpu(), &path).unwrap();
    assert_eq!(index.add(rows(&data[5 * DIM..])).unwrap(), [9]);
}

#[test]
fn equal_distances_are_decided_by_position() {
    let mut index = Flat::new(&Device::cpu(), DIM, Metric::L1).unwrap();
    let same = vec![0.5; 50 * DIM];
    index.add(rows(&same)).unwrap();
    index.remove(&[0, 7]);
    assert_eq!(ids(&index, &same[..DIM], 5), [1, 2, 3, 4, 5]);
    assert_eq!(ids(&index, &same[..DIM], 8)[5..], [6, 8, 9]);
}

#[test]
fn filters_by_rows_by_query_and_by_id() {
    let data = values(40 * DIM, 5);
    let queries = values(2 * DIM, 6);
    let mut index = Flat::new(&Device::cpu(), DIM, Metric::L2).unwrap();
    index.add(rows(&data)).unwrap();
    let pairs: Vec<(u64, &[f32])> = data.chunks(DIM).enumerate().map(|(i, r)| (i as u64, r)).collect();
    let only = |keep: &dyn Fn(u64) -> bool| pairs.iter().filter(|(id, _)| keep(*id)).copied().collect::<Vec<_>>();
    let search = |index: &Flat, filter: Filter| {
        let (found, _) = index.search_with(rows(&queries), 5, &SearchOptions::default().filter(filter)).unwrap();
        [0, 1].map(|q| found.query(q).map(|(id, _)| id).collect::<Vec<_>>())
    };
    let want = |a: &dyn Fn(u64) -> bool, b: &dyn Fn(u64) -> bool| {
        [nearest(&only(a), &queries[..DIM], 5), nearest(&only(b), &queries[DIM..], 5)]
    };
    let (even, high) = (|id: u64| id.is_multiple_of(2), |id: u64| id >= 37);
    let (even_bits, high_bits) = (Bitmap::from_fn(40, |i| i % 2 == 0), Bitmap::from_fn(40, |i| i >= 37));

    assert_eq!(search(&index, Filter::Rows(even_bits.clone())), want(&even, &even));
    assert_eq!(search(&index, Filter::RowsPerQuery(vec![even_bits, high_bits])), want(&even, &high));
    assert_eq!(search(&index, Filter::Ids(vec![38, 37, 39, 4000, 37])), want(&high, &high));
    assert_eq!(search(&index, Filter::Ids(vec![])), [const { Vec::<u64>::new() }; 2]);

    // A hole: bitmaps count the rows that are left.
    index.remove(&[0]);
    assert_eq!(search(&index, Filter::Rows(Bitmap::from_fn(39, |i| i >= 36))), want(&high, &high));

    let refused = |filter| index.search_with(rows(&queries), 5, &SearchOptions::default().filter(filter)).unwrap_err();
    assert_eq!(refused(Filter::Rows(Bitmap::new(40, true))), SearchError::FilterLength { wanted: 39, found: 40 });
    assert_eq!(refused(Filter::RowsPerQuery(vec![])), SearchError::FilterCount { wanted: 2, found: 0 });
}

#[test]
fn row_b5_range_search_finds_all_and_only_what_is_within() {
    let data = values(200 * DIM, 7);
    let queries = values(3 * DIM, 8);
    for (metric, radius) in [(Metric::L2, 2.0f32), (Metric::InnerProduct, 0.8)] {
        let mut index = Flat::new(&Device::cpu(), DIM, metric).unwrap();
        index.add(rows(&data)).unwrap();
        index.remove(&[11]);
        let hits = index.range_search(rows(&queries), radius).unwrap();
        for (q, query) in queries.chunks(DIM).enumerate() {
            let value = |row: &[f32]| match metric {
                Metric::L2 => l2(row, query),
                _ => row.iter().zip(query).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum(),
            };
            let within = |v: f64| if metric == Metric::L2 { v <= f64::from(radius) } else { v >= f64::from(radius) };
            let mut want: Vec<u64> = (0..200)
                .filter(|&i| i != 11 && within(value(&data[i * DIM..(i + 1) * DIM])))
                .map(|i| i as u64)
                .collect();
            assert!(!want.is_empty(), "the radius is meant to catch some");
            let mut got: Vec<u64> = hits.query(q).map(|(id, _)| id).collect();
            let sorted = hits.query(q).map(|(_, d)| metric.external(d)).collect::<Vec<_>>();
            assert!(sorted.is_sorted(), "nearest first");
            got.sort_unstable();
            want.sort_unstable();
            assert_eq!(got, want, "{metric}");
        }
        assert!(matches!(index.range_search(rows(&queries), f32::NAN), Err(SearchError::Radius { .. })));
    }
}

#[test]
fn similarities_come_largest_first() {
    let mut index = Flat::new(&Device::cpu(), 2, Metric::Cosine).unwrap();
    index.add(&[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 0.0], [3.0, 3.0]]).unwrap();
    let hits = index.search(&[[2.0, 0.0]], 5).unwrap();
    assert_eq!(hits.ids(), [0, 4, 1, 3, 2]);
    assert_eq!(hits.distances()[0], 1.0);
    assert!((hits.distances()[1] - 0.5f32.sqrt()).abs() < 1e-6);
    assert_eq!(&hits.distances()[2..4], [0.0, 0.0], "a zero row has cosine 0");
}

#[test]
fn row_e7_bad_values_are_refused_and_named() {
    let mut index = Flat::new(&Device::cpu(), DIM, Metric::L2).unwrap();
    index.add(rows(&values(3 * DIM, 9))).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut data = values(4 * DIM, 10);
        data[2 * DIM + 5] = bad;
        let error = index.add(rows(&data)).unwrap_err();
        assert!(matches!(error, BuildError::NotFinite { row: 2, component: 5, .. }), "{error}");
        assert_eq!(index.len(), 3);
        let error = index.search(rows(&data), 1).unwrap_err();
        assert!(matches!(error, SearchError::NotFinite { query: 2, component: 5, .. }), "{error}");
    }
    assert_eq!(index.search(rows(&values(DIM, 1)), 0), Err(SearchError::ZeroK));
    let wide = values(9, 1);
    let wide = MatrixView::new(&wide, 9).unwrap();
    assert_eq!(index.search(wide, 1), Err(SearchError::Dim { wanted: 8, found: 9 }));
    assert_eq!(index.add(wide), Err(BuildError::Dim { wanted: 8, found: 9 }));
    assert_eq!(
        index.search(BitsView::new(&[1u8], 8).unwrap(), 1).unwrap_err(),
        SearchError::DType { wanted: DType::F32, found: DType::Bits }
    );

    let mut divergence = Flat::new(&Device::cpu(), 2, Metric::JensenShannon).unwrap();
    let error = divergence.add(&[[0.5, 0.5], [1.0, -0.25]]).unwrap_err();
    assert!(error.to_string().contains("row 1, component 1 is -0.25"), "{error}");
    divergence.add(&[[0.5, 0.5]]).unwrap();
    assert!(matches!(divergence.search(&[[-1.0, 0.0]], 1), Err(SearchError::Negative { query: 0, component: 0, .. })));

    assert!(matches!(Flat::new(&Device::cpu(), 0, Metric::L2), Err(BuildError::ZeroDim)));
    assert!(matches!(Flat::new(&Device::cpu(), 8, Metric::Hamming), Err(BuildError::Unsupported { .. })));
    assert!(matches!(
        Flat::with_dtype(&Device::cpu(), 8, Metric::L2, DType::Bits),
        Err(BuildError::Unsupported { .. })
    ));
    let mut halves = Flat::with_dtype(&Device::cpu(), 1, Metric::L2, DType::F16).unwrap();
    let error = halves.add(&[[1.0], [70000.0]]).unwrap_err();
    assert!(
        error.to_string().contains("row 1, component 0 is 70000, wanted a finite number of magnitude at most 65504")
    );
}

#[test]
fn row_e7_empty_is_legal() {
    let index = Flat::new(&Device::cpu(), DIM, Metric::L2).unwrap();
    let hits = index.search(rows(&values(2 * DIM, 1)), 3).unwrap();
    assert_eq!(hits.ids(), [NO_ID; 6]);
    assert!(hits.distances().iter().all(|d| d.is_nan()));
    assert_eq!(index.range_search(rows(&values(2 * DIM, 1)), 1.0).unwrap().offsets(), [0, 0, 0]);
    let mut index = index;
    assert_eq!(index.add(rows(&[])).unwrap(), [0u64; 0]);
    index.add(rows(&values(DIM, 1))).unwrap();
    assert_eq!(index.search(rows(&[]), 3).unwrap().ids(), [0u64; 0]);
    assert_eq!(index.remove(&[0]), 1);
    assert!(index.is_empty());
    assert_eq!(index.search(rows(&values(DIM, 1)), 1).unwrap().ids(), [NO_ID]);
}

#[test]
fn every_element_type_is_stored_and_found() {
    let device = Device::cpu();
    let floats: Vec<f32> = (0..6 * DIM).map(|i| ((i * 37) % 100) as f32).collect();
    for dtype in [DType::F32, DType::F16, DType::Bf16, DType::U8, DType::I8] {
        let mut index = Flat::with_dtype(&device, DIM, Metric::L2, dtype).unwrap();
        let (u, i): (Vec<u8>, Vec<i8>) = floats.iter().map(|&x| (x as u8, x as i8)).unzip();
        match dtype {
            DType::U8 => index.add(MatrixView::new(&u, DIM).unwrap()).map(drop).unwrap(),
            DType::I8 => index.add(MatrixView::new(&i, DIM).unwrap()).map(drop).unwrap(),
            _ => index.add(rows(&floats)).map(drop).unwrap(),
        }
        for (i, row) in floats.chunks(DIM).enumerate() {
            let hits = index.search(rows(row), 1).unwrap();
            assert_eq!((hits.ids()[0], hits.distances()[0]), (i as u64, 0.0), "{dtype}");
        }
        if dtype == DType::U8 {
            assert!(matches!(index.add(rows(&floats)), Err(BuildError::DType { .. })), "floats don't fit bytes");
        }
    }
    let bits = [0b1010_1010u8, 0xff, 0b1010_1011, 0x00, 0, 0];
    let mut index = Flat::with_dtype(&device, 16, Metric::Hamming, DType::Bits).unwrap();
    index.add(BitsView::new(&bits, 16).unwrap()).unwrap();
    let hits = index.search(BitsView::new(&bits[..2], 16).unwrap(), 3).unwrap();
    assert_eq!((hits.ids(), hits.distances()), (&[0, 1, 2][..], &[0.0, 9.0, 12.0][..]));
}

#[test]
fn saved_and_loaded_it_answers_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nf");
    let data = values(100 * DIM, 11);
    let query = values(DIM, 12);
    let mut index = Flat::new(&Device::cpu(), DIM, Metric::L2).unwrap();
    index.add(rows(&data)).unwrap();
    index.remove(&[5, 6, 50]);
    index.save(&path).unwrap();

    let mut loaded = Flat::open(&Device::cpu(), &path).unwrap();
    assert_eq!((loaded.len(), loaded.metric(), loaded.dtype()), (97, Metric::L2, DType::F32));
    assert_eq!(loaded.search(rows(&query), 20), index.search(rows(&query), 20));

    // A loaded index grows like any other; the file stays what it was.
    loaded.add(rows(&query)).unwrap();
    assert_eq!(ids(&loaded, &query, 1), [100]);
    loaded.remove(&[100]);
    loaded.save(&path).unwrap();
    assert_eq!(Flat::open(&Device::cpu(), &path).unwrap().add(rows(&query)).unwrap(), [101], "no id is used twice");
    loaded.save(&path).unwrap();
    assert_eq!(Flat::open(&Device::cpu(), &path).unwrap().search(rows(&query), 20), index.search(rows(&query), 20));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left in the folder");
}

#[test]
fn a_damaged_index_file_is_refused_at_every_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.nf");
    let mut index = Flat::new(&Device::cpu(), 2, Metric::Cosine).unwrap();
    index.add_with_ids(&[[1.0, 2.0], [3.0, 4.0]], &[7, 8]).unwrap();
    index.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for at in (0..bytes.len()).filter(|at| at % 4096 < 200 || at % 97 == 0) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).unwrap();
        let error = Flat::open(&Device::cpu(), &path).expect_err("a flipped bit must be found");
        assert!(error.to_string().contains("a.nf"), "{error}");
    }
    for len in (0..bytes.len()).filter(|len| len % 4096 < 100 || len % 193 == 0) {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert!(matches!(Flat::open(&Device::cpu(), &path), Err(OpenError::Load(_))), "cut to {len} bytes");
    }
}

#[test]
fn row_b8_screens_never_change_an_answer() {
    // Ordinary rows, near ties, huge and tiny lengths: proven or fallen back, always the same ids.
    let mut data = values(3000 * DIM, 13);
    for r in 0..500 {
        for c in 0..DIM {
            data[r * DIM + c] = 0.25 + if c == r % DIM { 1e-7 * (r / DIM) as f32 } else { 0.0 };
        }
    }
    let mut queries = values(20 * DIM, 14);
    queries[..DIM].copy_from_slice(&data[..DIM]);
    for (metric, scale) in [
        (Metric::L2, 1.0),
        (Metric::InnerProduct, 1.0),
        (Metric::Cosine, 1.0),
        (Metric::L2, 1e-15),
        (Metric::Cosine, 1e-25),
        (Metric::L2, 1e15),
    ] {
        let scaled: Vec<f32> = data.iter().map(|x| x * scale).collect();
        let asked: Vec<f32> = queries.iter().map(|x| x * scale).collect();
        let mut index = Flat::new(&Device::cpu(), DIM, metric).unwrap();
        index.add(rows(&scaled)).unwrap();
        let search = |screen| {
            let mut options = SearchOptions::default();
            options.screen = Some(screen);
            index.search_with(rows(&asked), 10, &options).unwrap()
        };
        let (plain, _) = search(Screen::None);
        let (screened, stats) = search(Screen::F32);
        assert_eq!(plain.ids(), screened.ids(), "{metric} at scale {scale}");
        assert!(stats.proven + stats.fell_back == 20 || stats.refined == 0, "{stats:?}");
    }
    let mut index = Flat::new(&Device::cpu(), DIM, Metric::L1).unwrap();
    index.add(rows(&queries)).unwrap();
    let mut options = SearchOptions::default();
    options.screen = Some(Screen::F32);
    assert!(matches!(index.search_with(rows(&queries), 1, &options), Err(SearchError::Screen { .. })));
}

#[test]
fn extreme_requests_are_errors_or_right() {
    let cpu = Device::cpu();
    let mut index = Flat::new(&cpu, 2, Metric::Cosine).unwrap();
    index.add(&[[3e38, 0.0], [0.0, 1.0]]).unwrap();
    let hits = index.search(&[[1.4, 0.0]], 1).unwrap();
    assert_eq!((hits.ids()[0], hits.distances()[0]), (0, 1.0), "a long row does not overflow");
    assert_eq!(index.search(&[[3e38, 3e38]], 2).unwrap().query(0).count(), 2);
    assert!(index.search(&[[1.0, 0.0]], usize::MAX).unwrap_err().to_string().contains("does not fit in memory"));
    assert!(cpu.nearest(&[[1.0f32, 0.0]], &[[1.0f32, 0.0]], Metric::L2, usize::MAX / 2).is_err());
    assert!(cpu.distances(&[[0f32; 0]; 2], &[[0f32; 0]; 2], Metric::L2).is_err(), "rows without components");
    assert!(cpu.normalize(&[[0f32; 0]; 2], nearfield::Norm::L2).is_err());
    let top = cpu.top_k(&[0.0, -0.0, 1.0], 3, 2, nearfield::Order::Smallest).unwrap();
    assert_eq!(top.ids(), [0, 1], "zeros of either sign are equal");
}

#[test]
fn searching_from_many_threads_is_safe() {
    let data = values(500 * DIM, 15);
    let mut index = Flat::new(&Device::cpu(), DIM, Metric::L2).unwrap();
    index.add(rows(&data)).unwrap();
    let index = &index;
    std::thread::scope(|scope| {
        for t in 0..4 {
            let row = &data[t * 100 * DIM..];
            scope.spawn(move || {
                for i in 0..25 {
                    assert_eq!(ids(index, &row[i * DIM..(i + 1) * DIM], 1), [(t * 100 + i) as u64]);
                }
            });
        }
    });
}
