//! The interface as applications use it: every verb through a trait object, rows in every form, options, messages.

use nearfield::format::Matrix;
use nearfield::{
    AnyIndex, Bitmap, BitsView, BuildError, DType, Device, Filter, Flat, Index, IndexSpec, IntoRows, Ivf, MatrixView,
    Metric, NO_ID, RowError, RowsView, SearchError, SearchOptions, TrainOptions,
};

const DIM: usize = 8;

/// Rows that no two are alike of.
fn values(rows: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..rows * DIM).map(|_| next()).collect()
}

fn view(data: &[f32]) -> RowsView<'_> {
    RowsView::new(data, DIM).unwrap()
}

/// An index of each structure over the same rows, as trait objects.
fn all(data: &[f32]) -> Vec<Box<dyn Index>> {
    let device = Device::cpu();
    let mut flat = Flat::new(&device, DIM, Metric::L2).unwrap();
    flat.add(view(data)).unwrap();
    let spec = "IVF4,SQ8,RFlat".parse().unwrap();
    let mut ivf = Ivf::train(&device, &spec, Metric::L2, view(data), &TrainOptions::default()).unwrap();
    ivf.add(view(data)).unwrap();
    let rows = Matrix::from_vec(data.to_vec(), DIM).unwrap();
    let any = AnyIndex::build(&device, &spec, Metric::L2, rows, None, &TrainOptions::default()).unwrap();
    vec![Box::new(flat), Box::new(ivf), Box::new(any)]
}

#[test]
fn every_verb_works_through_a_trait_object() {
    let (data, more) = (values(200, 1), values(3, 2));
    let folder = tempfile::tempdir().unwrap();
    for (i, mut index) in all(&data).into_iter().enumerate() {
        let spec = index.spec().to_string();
        assert_eq!((index.len(), index.dim(), index.metric(), index.dtype()), (200, DIM, Metric::L2, DType::F32));
        // Changing.
        assert_eq!(index.add(view(&more[..DIM])).unwrap(), [200]);
        index.add_with_ids(view(&more[DIM..2 * DIM]), &[1000]).unwrap();
        index.update(7, view(&more[2 * DIM..])).unwrap();
        assert_eq!(index.remove(&[0, 1, 4711]), 2, "{spec}");
        // Who is there.
        assert_eq!((index.len(), index.contains(7), index.contains(0), index.contains(1000)), (200, true, false, true));
        let mut ids: Vec<u64> = index.ids().collect();
        ids.sort_unstable();
        assert_eq!(ids, (2..=200).chain([1000]).collect::<Vec<u64>>(), "{spec}");
        assert_eq!(index.row(7).unwrap(), &more[2 * DIM..]);
        assert_eq!(index.row(0), Err(RowError::UnknownId { id: 0 }));
        for (id, row) in index.rows().unwrap() {
            assert_eq!(index.row(id).unwrap(), row);
        }
        assert_eq!(index.rows().unwrap().count(), 200);
        // Searching: a row finds itself.
        index.set_probes(4);
        index.set_rerank(Some(50));
        for (id, row) in
            [(200, &more[..DIM]), (1000, &more[DIM..2 * DIM]), (7, &more[2 * DIM..]), (5, &data[5 * DIM..6 * DIM])]
        {
            assert_eq!(index.search(view(row), 1).unwrap().ids(), [id], "{spec}");
            assert_eq!(index.range_search(view(row), 0.0).unwrap().query(0).collect::<Vec<_>>(), [(id, 0.0)]);
        }
        let only = index.filter_by(&|id| id % 3 == 0);
        let options = SearchOptions::default().filter(only).probes(4).rerank(60);
        let (hits, stats) = index.search_with(view(&data[..2 * DIM]), 9, &options).unwrap();
        assert!(hits.iter().all(|mut query| query.all(|(id, _)| id % 3 == 0 && id != 0)), "{spec}");
        assert_eq!(hits.iter().map(Iterator::count).collect::<Vec<_>>(), [9, 9]);
        assert!(stats.device.starts_with("cpu") && stats.fallback.is_none());
        let within = index.range_search_with(view(&data[..DIM]), 1.0, &options).unwrap().0;
        assert!(within.query(0).all(|(id, distance)| id % 3 == 0 && distance <= 1.0));
        // Explaining, warming, counting.
        let plain = SearchOptions::default();
        assert!(index.explain(view(&more), 3, &plain).unwrap().to_string().contains("3 queries"), "{spec}");
        assert!(index.trial(view(&more), 3, &plain).unwrap().seconds > 0.0);
        assert!(index.warm_up(&[1, 3], 2).unwrap().device.starts_with("cpu"), "{spec}");
        let stats = index.stats();
        assert_eq!((stats.rows, stats.dim, stats.memory_bytes), (200, DIM, index.memory_bytes()));
        assert_eq!((stats.probes, stats.rerank), if i == 0 { (None, None) } else { (Some(4), Some(50)) });
        // Saving and opening, whatever the structure.
        let path = folder.path().join("x.nf");
        index.save(&path).unwrap();
        let again: Box<dyn Index> = Box::new(AnyIndex::open(&Device::cpu(), &path).unwrap());
        assert_eq!(again.spec(), index.spec());
        assert_eq!(again.ids().collect::<Vec<_>>(), index.ids().collect::<Vec<_>>(), "{spec}");
        assert_eq!(again.search(view(&more), 5).unwrap(), index.search(view(&more), 5).unwrap());
        index.set_device(&Device::cpu());
        assert!(index.device().name().starts_with("cpu"));
    }
}

#[test]
fn rows_come_in_every_form() {
    fn taken<'a>(rows: impl IntoRows<'a>) -> Vec<Vec<f32>> {
        let rows = rows.into_rows().unwrap();
        let view = rows.view();
        let row = |i| {
            let mut out = vec![0.0; view.dim()];
            view.row_f32(i, &mut out);
            out
        };
        (0..view.rows()).map(row).collect()
    }
    let want = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]];
    let flat: Vec<f32> = want.concat();
    assert_eq!(taken(&want), want);
    assert_eq!(taken(&want[..]), want);
    assert_eq!(taken(&want.to_vec()), want);
    assert_eq!(taken((&flat, 2)), want);
    assert_eq!(taken((&flat[..], 2)), want);
    assert_eq!(taken(MatrixView::new(&flat, 2).unwrap()), want);
    assert_eq!(taken(RowsView::new(&flat, 2).unwrap()), want);
    assert_eq!(taken(&Matrix::from_vec(flat.clone(), 2).unwrap()), want);
    let vectors: Vec<Vec<f32>> = want.iter().map(|row| row.to_vec()).collect();
    assert_eq!(taken(&vectors), want);
    assert_eq!(taken(&vectors[1..]), want[1..]);
    // One row alone.
    assert_eq!(taken(&flat), [&flat[..]]);
    assert_eq!(taken(&flat[..4]), [&flat[..4]]);
    assert_eq!(taken(&[7i8, -8]), [[7.0, -8.0]]);
    assert_eq!(taken(&[[1u8, 2], [3, 255]]), [[1.0, 2.0], [3.0, 255.0]]);
    assert_eq!(
        taken(BitsView::new(&[5, 1], 8).unwrap()),
        [[1., 0., 1., 0., 0., 0., 0., 0.], [1., 0., 0., 0., 0., 0., 0., 0.]]
    );

    let said = |result: Result<nearfield::AnyRows<'_>, nearfield::ShapeError>| result.unwrap_err().to_string();
    assert_eq!(said((&flat, 4).into_rows()), "6 elements are not a whole number of rows of 4");
    assert_eq!(said((&flat, 0).into_rows()), "rows need at least one component, found dim = 0");
    assert_eq!(
        said((&vec![vec![1.0, 2.0], vec![3.0]]).into_rows()),
        "vector 1 has 1 components, those before it have 2"
    );
    assert!(said((&Vec::<Vec<f32>>::new()).into_rows()).contains("there are no vectors"));
}

#[cfg(feature = "ndarray")]
#[test]
fn ndarray_views_are_rows() {
    use ndarray::{Array2, s};

    let array = Array2::from_shape_fn((4, 6), |(i, j)| (10 * i + j) as f32);
    let mut index = Flat::new(&Device::cpu(), 6, Metric::L2).unwrap();
    index.add(&array).unwrap();
    assert_eq!(index.search(array.slice(s![2..3, ..]), 1).unwrap().ids(), [2]);
    // Every other column, backwards: not contiguous, so copied.
    let mut index = Flat::new(&Device::cpu(), 3, Metric::L2).unwrap();
    index.add(array.slice(s![.., ..;-2])).unwrap();
    assert_eq!(index.row(1).unwrap(), [15.0, 13.0, 11.0]);
    index.add(Array2::<f32>::zeros((0, 3)).view()).unwrap();
    assert_eq!(index.len(), 4);
}

#[cfg(feature = "arrow")]
#[test]
fn arrow_lists_are_rows() {
    use arrow_array::FixedSizeListArray;
    use arrow_array::types::Float32Type;

    let lists = (0..5).map(|i| Some(vec![Some(i as f32), Some(1.0)]));
    let array = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(lists, 2);
    let mut index = Flat::new(&Device::cpu(), 2, Metric::L2).unwrap();
    index.add(&array.slice(1, 3)).unwrap();
    assert_eq!(index.rows().unwrap().map(|(_, row)| row[0]).collect::<Vec<_>>(), [1.0, 2.0, 3.0]);
    let lists = [Some(vec![Some(1.0), None]), None];
    let array = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(lists, 2);
    let said = index.add(&array).unwrap_err().to_string();
    assert!(said.contains("without nulls, found 1 null lists"), "{said}");
}

#[test]
fn packed_bits_count_bits_everywhere() {
    let said = |dim| Flat::with_dtype(&Device::cpu(), dim, Metric::Hamming, DType::Bits).unwrap_err().to_string();
    assert_eq!(said(12), "rows of packed bits are whole bytes: 12 bits do not fill them, 16 would");
    assert_eq!(BitsView::new(&[0; 3], 12).unwrap_err().to_string(), said(12));
    let mut index = Flat::with_dtype(&Device::cpu(), 16, Metric::Hamming, DType::Bits).unwrap();
    index.add(BitsView::new(&[0, 0, 255, 1], 16).unwrap()).unwrap();
    assert_eq!((index.dim(), index.len()), (16, 2));
    let said = index.add(BitsView::new(&[0, 0, 0], 24).unwrap()).unwrap_err().to_string();
    assert_eq!(said, "the index holds rows of 16 components, the new rows have 24");
    let hits = index.search(BitsView::with_stride(&[254, 1, 9], 1, 16, 3).unwrap(), 2).unwrap();
    assert_eq!(hits.query(0).collect::<Vec<_>>(), [(1, 1.0), (0, 8.0)]);
}

#[test]
fn answers_hold_what_is_there_and_nothing_else() {
    let mut index = Flat::new(&Device::cpu(), 1, Metric::L2).unwrap();
    index.add_with_ids(&[[1.0], [2.0], [4.0]], &[10, 20, 40]).unwrap();
    let options = SearchOptions::default().filter(vec![10, 40]);
    let (hits, _) = index.search_with(&[[0.0], [5.0]], 4, &options).unwrap();
    let found: Vec<Vec<(u64, f32)>> = hits.iter().map(Iterator::collect).collect();
    assert_eq!(found, [[(10, 1.0), (40, 16.0)], [(40, 1.0), (10, 16.0)]]);
    assert_eq!((hits.queries(), hits.k()), (2, 4));
    assert_eq!(hits.ids(), [10, 40, NO_ID, NO_ID, 40, 10, NO_ID, NO_ID]);
    let range = index.range_search(&[[3.0], [9.0]], 1.0).unwrap();
    assert_eq!(range.iter().map(Iterator::collect).collect::<Vec<Vec<_>>>(), [vec![(20, 1.0), (40, 1.0)], vec![]]);
    assert_eq!((range.queries(), range.len(), range.offsets()), (2, 2, &[0, 2, 2][..]));
    assert!(nearfield::Neighbors::from_parts(2, vec![1, 2, 3], vec![0.0; 3]).is_err());
    assert!(nearfield::Neighbors::from_parts(2, vec![1, 2], vec![0.0; 3]).is_err());
}

#[test]
fn bitmaps_of_another_state_are_refused() {
    let data = values(20, 3);
    for mut index in all(&data) {
        let filter = index.filter_by(&|id| id == 10);
        let options = SearchOptions::default().filter(filter);
        let ids = |index: &dyn Index, options: &SearchOptions| {
            index
                .search_with(view(&data[..DIM]), 20, options)
                .map(|(found, _)| found.query(0).map(|hit| hit.0).collect())
        };
        assert_eq!(ids(&*index, &options), Ok(vec![10]));
        // As many rows as before, but others.
        index.remove(&[10]);
        index.add_with_ids(view(&data[..DIM]), &[77]).unwrap();
        assert_eq!(ids(&*index, &options), Err(SearchError::FilterStale), "{}", index.spec());
        let anew = SearchOptions::default().filter(index.filter_by(&|id| id == 77));
        assert_eq!(ids(&*index, &anew), Ok(vec![77]));
        // One that the caller made bit by bit is the caller's to keep.
        let own = SearchOptions::default().filter(Bitmap::from_fn(20, |row| row == 0));
        assert_eq!(ids(&*index, &own).unwrap().len(), 1);
    }
}

#[test]
fn bitmaps_go_by_the_order_of_ids() {
    for mut index in all(&values(100, 3)) {
        index.remove(&[0, 3, 50]);
        index.update(10, view(&values(1, 4))).unwrap();
        let wanted = |id: u64| id == 10 || id == 70;
        let bits: Vec<bool> = index.ids().map(wanted).collect();
        let by_hand = Filter::from(Bitmap::from_fn(bits.len(), |i| bits[i]));
        assert_eq!(by_hand, index.filter_by(&wanted));
        let options = SearchOptions::default().filter(by_hand);
        let (hits, _) = index.search_with(view(&values(1, 5)), 5, &options).unwrap();
        let mut found: Vec<u64> = hits.query(0).map(|(id, _)| id).collect();
        found.sort_unstable();
        assert_eq!(found, [10, 70], "{}", index.spec());
    }
}

#[test]
fn messages_say_what_would_be_right() {
    for mut index in all(&values(60, 6)) {
        let error = index.update(3, view(&values(3, 7))).unwrap_err();
        assert_eq!(error, BuildError::OneRow { found: 3 });
        assert!(error.to_string().starts_with("an update replaces one row, found 3 rows"), "{error}");
        assert_eq!(index.update(99, view(&values(1, 7))).unwrap_err(), BuildError::UnknownId { id: 99 });
    }
    let spec: IndexSpec = "IVF4,SQ8".parse().unwrap();
    let data = values(60, 8);
    let mut codes = Ivf::train(&Device::cpu(), &spec, Metric::L2, view(&data), &TrainOptions::default()).unwrap();
    codes.add(view(&data)).unwrap();
    let said = codes.row(5).unwrap_err().to_string();
    assert_eq!(said, "an index built as `IVF4,SQ8` keeps codes, not rows; one that ends in `,RFlat` keeps rows too");
    assert!(matches!(codes.rows().map(drop), Err(RowError::NotKept { .. })));
    assert_eq!(codes.row(60), Err(RowError::UnknownId { id: 60 }));
}

/// Every state that a shared index has been in, as what a search can tell of it: the tags of its rows.
mod states {
    use super::{DIM, Metric, NO_ID, view};
    use nearfield::{AnyIndex, Device, Flat, IndexSpec, Ivf, Sharable, Shared, TrainOptions};
    use std::collections::HashMap;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// Row `tag` lies at distance tag^2 of the origin, whatever its id.
    fn row(tag: u64) -> [f32; DIM] {
        let mut row = [0.0; DIM];
        row[0] = tag as f32;
        row
    }

    /// What a search for all rows finds: (id, tag), by tag.
    fn seen(hits: &nearfield::Neighbors) -> Vec<(u64, u64)> {
        hits.query(0).map(|(id, distance)| (id, distance.sqrt().round() as u64)).collect()
    }

    /// Says that all is over, also where a thread panics, so that no other waits for it.
    struct Over<'a>(&'a AtomicBool);

    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }

    /// One thread adds, updates and removes; three search for all rows; every answer is one state that there was.
    fn under_load<I: Sharable>(index: I) {
        const STEPS: u64 = 120;
        let shared = Shared::new(index);
        let (states, done, answers) =
            (Mutex::new(HashMap::from([(Vec::new(), 0)])), AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let _over = Over(&done);
                    let mut last = 0u64;
                    while !done.load(Ordering::Acquire) {
                        let snapshot = shared.snapshot();
                        let k = snapshot.len().max(1);
                        let hits = nearfield::Index::search(&*snapshot, view(&row(0)), k).unwrap();
                        let found = seen(&hits);
                        assert_eq!(found.len(), snapshot.len(), "a search finds all rows of its snapshot");
                        let step = |found| *states.lock().unwrap().get(found).expect("a state that there was");
                        // A search of its own moment finds a state, too; and no change is ever taken back.
                        let later = seen(&shared.search(&row(0), 4096).unwrap());
                        assert!(last <= step(&found) && step(&found) <= step(&later));
                        last = step(&later);
                        answers.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let over = Over(&done);
            let mut rows: Vec<(u64, u64)> = Vec::new();
            // A state is known before it can be seen.
            let coming = |rows: &[(u64, u64)], step: u64| {
                let mut state = rows.to_vec();
                state.sort_by_key(|(_, tag)| *tag);
                states.lock().unwrap().insert(state, step);
            };
            for step in 1..=STEPS {
                let tag = 10 * step;
                match step % 4 {
                    0 if rows.len() > 30 => {
                        // Enough for holes to be closed now and then.
                        let gone: Vec<u64> = rows.drain(3..13).map(|(id, _)| id).collect();
                        coming(&rows, step);
                        assert_eq!(shared.remove(&gone), 10);
                    }
                    1 if !rows.is_empty() => {
                        let at = (step as usize * 7) % rows.len();
                        rows[at].1 = tag;
                        coming(&rows, step);
                        shared.update(rows[at].0, &row(tag)).unwrap();
                    }
                    2 => {
                        let id = next_id(&rows) + 7;
                        rows.push((id, tag));
                        coming(&rows, step);
                        shared.add_with_ids(&row(tag), &[id]).unwrap();
                    }
                    _ => {
                        let batch: Vec<[f32; DIM]> = (0..5).map(|i| row(tag + i)).collect();
                        let next = shared.snapshot().ids().max().map_or(0, |most| most + 1).max(next_id(&rows));
                        rows.extend((0..5).map(|i| (next + i, tag + i)));
                        coming(&rows, step);
                        let ids: Vec<u64> = (0..5).map(|i| next + i).collect();
                        shared.add_with_ids(&batch, &ids).unwrap();
                    }
                }
                // Refused changes change nothing.
                assert!(shared.update(NO_ID - 1, &row(1)).is_err());
                assert!(shared.add_with_ids(&[row(1), row(2)], &[NO_ID - 2, NO_ID - 2]).is_err());
                while answers.load(Ordering::Relaxed) < step as usize && step < STEPS {
                    assert!(!done.load(Ordering::Acquire), "a reader panicked");
                    std::thread::yield_now();
                }
            }
            drop(over);
        });
        let all = shared.into_inner();
        assert!(all.len() > 30 && answers.into_inner() >= STEPS as usize - 1);
    }

    fn next_id(rows: &[(u64, u64)]) -> u64 {
        rows.iter().map(|(id, _)| id + 1).max().unwrap_or(0)
    }

    #[test]
    fn every_answer_of_a_shared_flat_is_one_state() {
        under_load(Flat::new(&Device::cpu(), DIM, Metric::L2).unwrap());
    }

    #[test]
    fn every_answer_of_a_shared_ivf_is_one_state() {
        let spec: IndexSpec = "IVF2,SQ8,RFlat".parse().unwrap();
        let learnt: Vec<f32> = (0..200).flat_map(|i| row(i * 6)).collect();
        let mut index = Ivf::train(&Device::cpu(), &spec, Metric::L2, view(&learnt), &TrainOptions::default()).unwrap();
        index.set_probes(2);
        under_load(index);
    }

    #[test]
    fn every_answer_of_a_shared_index_of_any_structure_is_one_state() {
        under_load(AnyIndex::from(Flat::new(&Device::cpu(), DIM, Metric::L2).unwrap()));
    }

    /// Changes made by jobs of the pool that searches use, too: nobody waits for himself.
    #[test]
    fn changes_from_a_pool_do_not_wait_for_themselves() {
        use rayon::prelude::*;

        let learnt: Vec<f32> = (0..3000).flat_map(|i| row(i % 97)).collect();
        let spec = "IVF8,SQ8,RFlat".parse().unwrap();
        let index = Ivf::train(&Device::cpu(), &spec, Metric::L2, view(&learnt), &TrainOptions::default()).unwrap();
        let shared = Shared::new(index);
        (0..40u64).into_par_iter().for_each(|i| {
            shared.add(view(&learnt[..200 * DIM])).unwrap();
            assert!(shared.search(view(&learnt[..16 * DIM]), 3).unwrap().queries() == 16);
            shared.remove(&[i]);
        });
        assert_eq!(shared.len(), 40 * 200 - 40);
    }
}

#[test]
fn clones_go_their_own_ways() {
    let data = values(300, 9);
    for text in ["Flat", "IVF4,SQ8,RFlat", "IVF4,RaBitQ4,Refine(SQ8)", "SQ8"] {
        let rows = Matrix::from_vec(data.clone(), DIM).unwrap();
        let spec = text.parse().unwrap();
        let mut index =
            AnyIndex::build(&Device::cpu(), &spec, Metric::L2, rows, None, &TrainOptions::default()).unwrap();
        let before = index.clone();
        let queries = values(20, 10);
        let want = before.search(view(&queries), 10).unwrap();
        index.remove(&(0..200).collect::<Vec<_>>());
        index.add(view(&values(50, 11))).unwrap();
        assert_eq!((before.len(), index.len()), (300, 150));
        assert_eq!(before.search(view(&queries), 10).unwrap(), want, "{text}");
        assert!(index.search(view(&queries), 10).unwrap().iter().all(|mut hits| hits.all(|(id, _)| id >= 200)));
    }
}
