//! Indexes against a naive model: random sequences of everything that can be done to one, of each kind and metric. What is
//! exact finds the ids of the model in their order; what is compressed keeps its promises.
//!
//! The sequences are the same in every run. `NEARFIELD_SEED` makes others; a failure names the seed and the step.

use std::collections::BTreeSet;

use nearfield::{
    AnyIndex, Bitmap, BuildError, Device, Filter, IndexSpec, MatrixView, Metric, NO_ID, SearchError, SearchOptions,
    TrainOptions,
};

const DIM: usize = 8;

/// The rows of an index, oldest first.
struct Model {
    metric: Metric,
    rows: Vec<(u64, Vec<f32>)>,
    next_id: u64,
}

impl Model {
    fn place(&self, id: u64) -> Option<usize> {
        self.rows.iter().position(|(other, _)| *other == id)
    }

    fn push(&mut self, id: u64, row: Vec<f32>) {
        self.rows.push((id, row));
        self.next_id = self.next_id.max(id + 1);
    }

    /// What is compared; less is nearer.
    fn key(&self, query: &[f32], row: &[f32]) -> f64 {
        let pairs = || query.iter().zip(row).map(|(&q, &x)| (f64::from(q), f64::from(x)));
        let dot: f64 = pairs().map(|(q, x)| q * x).sum();
        let lengths = length(query) * length(row);
        match self.metric {
            Metric::L2 => pairs().map(|(q, x)| (q - x) * (q - x)).sum(),
            // No zero below zero.
            Metric::InnerProduct => 0.0 - dot,
            _ if lengths == 0.0 => 0.0,
            _ => 0.0 - dot / lengths,
        }
    }

    /// How far a distance in f32 may be off.
    fn rounding(&self, query: &[f32], row: &[f32]) -> f64 {
        let (q, x) = (length(query), length(row));
        1e-6 * match self.metric {
            Metric::L2 => q * q + x * x,
            Metric::InnerProduct => q * x,
            _ => 1.0,
        }
    }

    /// All allowed rows, nearest first, equal ones by age.
    fn ranked(&self, query: &[f32], allowed: &dyn Fn(u64) -> bool) -> Vec<(u64, f64)> {
        let some = self.rows.iter().filter(|(id, _)| allowed(*id));
        let mut all: Vec<(u64, f64)> = some.map(|(id, row)| (*id, self.key(query, row))).collect();
        all.sort_by(|a, b| a.1.total_cmp(&b.1));
        all
    }

    /// A distance as users see it.
    fn seen(&self, key: f64) -> f64 {
        if self.metric.is_similarity() { -key } else { key }
    }
}

fn length(x: &[f32]) -> f64 {
    x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    /// A row: quarters of whole numbers, of which all sums of products are exact in f32, so that ties are ties; by cosine,
    /// where nothing is exact, any numbers.
    fn row(&mut self, metric: Metric) -> Vec<f32> {
        let zero = self.one_in(60);
        let any = (0..DIM).map(|_| match metric {
            _ if zero => 0.0,
            Metric::Cosine => (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0,
            _ => (self.below(33) as f32 - 16.0) / 4.0,
        });
        any.collect()
    }
}

/// An index and what it should be.
struct Run {
    spec: IndexSpec,
    model: Model,
    index: AnyIndex,
    random: Random,
    /// Rows, about.
    size: usize,
    folder: tempfile::TempDir,
    at: String,
}

impl Run {
    fn new(device: &Device, spec: &str, metric: Metric, size: usize, seed: u64) -> Run {
        let mut random = Random(seed);
        let spec: IndexSpec = spec.parse().unwrap();
        let rows: Vec<Vec<f32>> = (0..size).map(|_| random.row(metric)).collect();
        let matrix = nearfield::format::Matrix::from_vec(rows.concat(), DIM).unwrap();
        let train = TrainOptions::default().seed(seed);
        let index = AnyIndex::build(device, &spec, metric, matrix, None, &train).unwrap();
        let mut model = Model { metric, rows: Vec::new(), next_id: 0 };
        rows.into_iter().enumerate().for_each(|(id, row)| model.push(id as u64, row));
        Run { spec, model, index, random, size, folder: tempfile::tempdir().unwrap(), at: String::new() }
    }

    /// An id, mostly of a row that is there.
    fn id(&mut self) -> u64 {
        if self.model.rows.is_empty() || self.random.one_in(8) {
            return self.random.next() % 100_000;
        }
        self.model.rows[self.random.below(self.model.rows.len())].0
    }

    /// A row, sometimes one that is there already.
    fn row(&mut self) -> Vec<f32> {
        if !self.model.rows.is_empty() && self.random.one_in(6) {
            return self.model.rows[self.random.below(self.model.rows.len())].1.clone();
        }
        self.random.row(self.model.metric)
    }

    fn rows(&mut self, count: usize) -> Vec<Vec<f32>> {
        (0..count).map(|_| self.row()).collect()
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=2 => self.add(),
            3 | 4 => self.add_with_ids(),
            5 | 6 => self.update(),
            7 | 8 => self.remove(),
            9..=15 => self.search(),
            16..=18 => self.range_search(),
            _ if self.random.one_in(3) => self.save_and_open(),
            _ => self.stale_filter(),
        }
        let Run { index, model, at, .. } = self;
        assert_eq!(index.len(), model.rows.len(), "{at}: rows");
        let (id, there) = (self.random.next() % 300, |id| model.place(id).is_some());
        assert_eq!(index.contains(id), there(id), "{at}: whether {id} is there");
    }

    fn add(&mut self) {
        let count = self.random.below(9);
        let rows = self.rows(count);
        let flat = rows.concat();
        let ids = self.index.add(MatrixView::new(&flat, DIM).unwrap()).unwrap();
        let next = self.model.next_id;
        assert_eq!(ids, (next..next + count as u64).collect::<Vec<_>>(), "{}: new ids", self.at);
        rows.into_iter().enumerate().for_each(|(i, row)| self.model.push(next + i as u64, row));
    }

    fn add_with_ids(&mut self) {
        let count = 1 + self.random.below(6);
        let rows = self.rows(count);
        let mut ids: Vec<u64> = (0..count).map(|_| self.random.next() % 100_000).collect();
        if self.random.one_in(4) {
            ids[0] = self.id();
        }
        if self.random.one_in(8) {
            ids[count - 1] = ids[0];
        }
        let fresh =
            ids.iter().collect::<BTreeSet<_>>().len() == count && ids.iter().all(|&i| self.model.place(i).is_none());
        let added = self.index.add_with_ids(&rows, &ids);
        match added {
            Ok(()) if fresh => ids.into_iter().zip(rows).for_each(|(id, row)| self.model.push(id, row)),
            Err(BuildError::DuplicateId { .. }) if !fresh => {}
            other => panic!("{}: adding {ids:?} gave {other:?}", self.at),
        }
    }

    fn update(&mut self) {
        let (id, row) = (self.id(), self.row());
        let updated = self.index.update(id, &row);
        match (updated, self.model.place(id)) {
            (Ok(()), Some(place)) if self.spec.is_flat() => self.model.rows[place].1 = row,
            // Where rows lie in lists, the new one is the youngest.
            (Ok(()), Some(place)) => {
                self.model.rows.remove(place);
                self.model.rows.push((id, row));
            }
            (Err(BuildError::UnknownId { .. }), None) => {}
            (other, place) => panic!("{}: updating {id}, at {place:?}, gave {other:?}", self.at),
        }
    }

    fn remove(&mut self) {
        let many = self.model.rows.len() > self.size;
        let count = if many { self.size / 4 } else { 1 + self.random.below(6) };
        let mut ids: Vec<u64> = (0..count).map(|_| self.id()).collect();
        if self.random.one_in(60) {
            ids = self.model.rows.iter().map(|r| r.0).collect();
        }
        let gone: BTreeSet<u64> = ids.iter().copied().collect();
        let before = self.model.rows.len();
        self.model.rows.retain(|(id, _)| !gone.contains(id));
        assert_eq!(self.index.remove(&ids), before - self.model.rows.len(), "{}: removed of {ids:?}", self.at);
        if self.model.rows.is_empty() {
            self.search();
            self.range_search();
            self.save_and_open();
        }
    }

    /// Options, which ids they allow to each query, and whether all lists are looked through.
    fn options(&mut self, queries: usize) -> (SearchOptions, Vec<BTreeSet<u64>>, bool) {
        let lists = self.spec.lists.unwrap_or(1);
        let mut options = SearchOptions::default();
        let probes = if self.random.one_in(2) { lists } else { 1 + self.random.below(lists) };
        options = options.probes(probes);
        if self.random.one_in(3) {
            options = options.rerank(1 + self.random.below(40));
        }
        let live: BTreeSet<u64> = self.model.rows.iter().map(|r| r.0).collect();
        let modulus = 1 + self.random.below(9) as u64;
        let rest = |id: &u64, by: u64| (id * 7 + by).is_multiple_of(modulus);
        let allowed = match self.random.below(6) {
            0 => {
                let some: Vec<u64> = (0..self.random.below(30)).map(|_| self.id()).collect();
                options = options.filter(some.clone());
                vec![live.into_iter().filter(|id| some.contains(id)).collect(); queries]
            }
            1 => {
                options = options.filter(self.index.filter_by(|id| rest(&id, 0)));
                vec![live.into_iter().filter(|id| rest(id, 0)).collect(); queries]
            }
            2 => {
                let ids: Vec<u64> = self.index.ids().collect();
                let bits = |q: usize| Bitmap::from_fn(ids.len(), |i| rest(&ids[i], q as u64));
                options = options.filter(Filter::RowsPerQuery((0..queries).map(bits).collect()));
                (0..queries).map(|q| live.iter().copied().filter(|id| rest(id, q as u64)).collect()).collect()
            }
            _ => vec![live; queries],
        };
        (options, allowed, probes == lists)
    }

    /// Whether answers are those of the model, and whether distances are of the rows as they were given.
    fn exactness(&self, whole: bool) -> (bool, bool) {
        let kept = self.spec.is_flat() || self.spec.to_string().ends_with("Refine(Flat)");
        (kept && whole, kept || self.spec.to_string() == "IVF4,Flat")
    }

    fn search(&mut self) {
        let count = 1 + self.random.below(3);
        let (queries, k) = (self.rows(count), if self.random.one_in(12) { 500 } else { 1 + self.random.below(20) });
        let (options, allowed, whole) = self.options(count);
        let (found, _) = self.index.search_with(&queries, k, &options).unwrap_or_else(|e| panic!("{}: {e}", self.at));
        let filtered = options.filter.is_some();
        for (q, query) in queries.iter().enumerate() {
            let hits: Vec<(u64, f32)> = found.query(q).collect();
            self.promises(query, &hits, &allowed[q], whole);
            self.sorted(&hits);
            let wanted = k.min(allowed[q].len());
            let full = hits.len() == wanted || !whole && !filtered && hits.len() < wanted;
            assert!(full, "{}: {} found of {wanted}, {options:?}", self.at, hits.len());
            if self.exactness(whole).0 {
                let ranked = self.model.ranked(query, &|id| allowed[q].contains(&id));
                let ids: Vec<u64> = ranked.iter().take(k).map(|r| r.0).collect();
                let got: Vec<u64> = hits.iter().map(|h| h.0).collect();
                assert_eq!(got, ids, "{}: query {q}, k {k}, {options:?}: {hits:?} of {ranked:?}", self.at);
            }
        }
    }

    /// What holds for every answer.
    fn promises(&self, query: &[f32], hits: &[(u64, f32)], allowed: &BTreeSet<u64>, whole: bool) {
        let at = &self.at;
        assert!(hits.iter().all(|h| allowed.contains(&h.0)), "{at}: gone or filtered rows in {hits:?}");
        assert_eq!(hits.iter().map(|h| h.0).collect::<BTreeSet<_>>().len(), hits.len(), "{at}: twice in {hits:?}");
        assert!(hits.iter().all(|h| h.0 != NO_ID && h.1.is_finite()), "{at}: {hits:?}");
        if self.exactness(whole).1 {
            for &(id, near) in hits {
                let row = &self.model.rows[self.model.place(id).unwrap()].1;
                let wanted = self.model.seen(self.model.key(query, row));
                let off = (f64::from(near) - wanted).abs();
                assert!(off <= self.model.rounding(query, row), "{at}: {id} is {near} away, wanted {wanted}");
            }
        }
    }

    fn sorted(&self, hits: &[(u64, f32)]) {
        let rising =
            |a: &(u64, f32), b: &(u64, f32)| if self.model.metric.is_similarity() { a.1 >= b.1 } else { a.1 <= b.1 };
        assert!(hits.is_sorted_by(rising), "{}: not in order: {hits:?}", self.at);
    }

    fn range_search(&mut self) {
        let query = self.row();
        let (options, allowed, whole) = self.options(1);
        let ranked = self.model.ranked(&query, &|id| allowed[0].contains(&id));
        // Between two rows that are not as good as equally far.
        let gaps: Vec<f64> =
            ranked.windows(2).filter(|w| w[1].1 - w[0].1 > 1e-4).map(|w| (w[0].1 + w[1].1) / 2.0).collect();
        let border = if gaps.is_empty() { 0.5 } else { gaps[self.random.below(gaps.len().min(40))] };
        let radius = self.model.seen(border) as f32;
        let found = self.index.range_search_with(&query[..], radius, &options);
        let hits: Vec<(u64, f32)> = found.unwrap_or_else(|e| panic!("{}: {e}", self.at)).0.query(0).collect();
        self.promises(&query, &hits, &allowed[0], whole);
        let inside = |near: f32| if self.model.metric.is_similarity() { near >= radius } else { near <= radius };
        assert!(hits.iter().all(|h| inside(h.1)), "{}: beyond {radius}: {hits:?}", self.at);
        if self.exactness(whole).0 {
            let wanted: BTreeSet<u64> = ranked.iter().filter(|r| r.1 <= border).map(|r| r.0).collect();
            let got: BTreeSet<u64> = hits.iter().map(|h| h.0).collect();
            assert_eq!(got, wanted, "{}: within {radius}, {options:?}", self.at);
        }
    }

    fn save_and_open(&mut self) {
        let queries = self.rows(4);
        let answers = |index: &AnyIndex| {
            let options = SearchOptions::default().probes(2);
            let (found, _) = index.search_with(&queries, 10, &options).unwrap();
            (found.into_parts().0, index.range_search(&queries, 0.5).unwrap())
        };
        let before = answers(&self.index);
        let file = self.folder.path().join("x.nf");
        self.index.save(&file).unwrap();
        let opened = AnyIndex::open(self.index.device(), &file).unwrap_or_else(|e| panic!("{}: {e}", self.at));
        assert_eq!(answers(&opened), before, "{}: answers after opening", self.at);
        let ids: Vec<u64> = self.model.rows.iter().map(|r| r.0).collect();
        assert_eq!(opened.ids().collect::<Vec<_>>(), ids, "{}: ids in order", self.at);
        let mut copy = opened.clone();
        copy.remove(&ids[..ids.len() / 3]);
        copy.add(&queries[..]).unwrap();
        assert_eq!(answers(&opened), before, "{}: answers after a copy has changed", self.at);
        if self.random.one_in(2) {
            self.index = opened;
        }
    }

    /// A filter by rows is refused once a row has come or gone.
    fn stale_filter(&mut self) {
        let filter = self.index.filter_by(|_| true);
        let (query, row) = (self.row(), self.row());
        let id = self.index.add(&row[..]).unwrap()[0];
        self.model.push(id, row);
        let found = self.index.search_with(&query[..], 3, &SearchOptions::default().filter(filter));
        assert!(matches!(found, Err(SearchError::FilterStale)), "{}: {found:?}", self.at);
    }
}

/// So many steps of a spec with each metric.
fn follow(device: &Device, spec: &str, size: usize, steps: usize) {
    let chosen = std::env::var("NEARFIELD_SEED").ok().map(|seed| seed.parse::<u64>().expect("a seed is a number"));
    for (m, metric) in [Metric::L2, Metric::InnerProduct, Metric::Cosine].into_iter().enumerate() {
        let seed = chosen.unwrap_or(14);
        let mut run = Run::new(device, spec, metric, size, seed * 3 + m as u64);
        for step in 0..steps {
            run.at = format!("{spec}, {metric}, {}, NEARFIELD_SEED={seed}, step {step}", device.name());
            run.step();
        }
    }
}

/// Fewer steps, as software GPUs are slow: their copies of rows and lists follow what changes.
#[cfg(feature = "gpu")]
#[test]
fn on_gpus() {
    let adapters = nearfield::adapters();
    assert!(!adapters.is_empty(), "no adapter: scripts/test sets up software ones");
    for adapter in adapters {
        let device = Device::open(&nearfield::DeviceOptions::default().device(adapter.name)).unwrap();
        for (spec, size) in [("Flat", 150), ("IVF16,SQ8,RFlat", 2300)] {
            follow(&device, spec, size, 40);
        }
    }
}

macro_rules! specs {
    ($($name:ident: $spec:literal, $size:literal rows, $steps:literal steps;)*) => {
        $(#[test]
        fn $name() {
            follow(&Device::cpu(), $spec, $size, $steps);
        })*
    };
}

specs! {
    flat: "Flat", 150 rows, 1000 steps;
    rows_ranked_by_rows: "PQ4x4,RFlat", 150 rows, 1000 steps;
    // More than are compared one by one whatever is asked.
    lists_ranked_by_rows: "IVF16,SQ6,RFlat", 2300 rows, 300 steps;
    bits_ranked_by_rows: "IVF4,RaBitQ,RFlat", 150 rows, 1000 steps;
    lists_of_rows: "IVF4,Flat", 150 rows, 1000 steps;
    halves: "SQfp16", 150 rows, 1000 steps;
    integers: "IVF4,SQ8", 150 rows, 1000 steps;
    parts: "OPQ4,IVF4,PQ4x4", 150 rows, 1000 steps;
    bits: "IVF4,RaBitQ2", 150 rows, 1000 steps;
    fewer_components_ranked_by_codes: "PCA6,IVF4,SQ4,Refine(SQ8)", 150 rows, 1000 steps;
}
