//! Lists and budgets: what does not fit is streamed, what is not searched goes, and the answer stays the same. Runs on
//! every adapter that `NEARFIELD_TEST_ADAPTERS` names.
#![cfg(feature = "gpu")]

mod task;

use nearfield::compute::Backend;
use nearfield::compute::{Candidates, EngineError, Output, Tag};
use nearfield::gpu::{Fault, GpuEngine, GpuOptions, Select};
use nearfield::ops::lists::{Encoded, Form, Lists, Prepared, Probes, Terms};
use nearfield::ops::scan;
use nearfield::stats::SearchStats;
use nearfield::{DType, MatrixView, Metric, RowsView};
use task::{Base, Input, Listed, Plan, Problem, Step, Task};

const DIM: usize = 64;

fn engines(memory: Option<u64>) -> Vec<GpuEngine> {
    let names = std::env::var("NEARFIELD_TEST_ADAPTERS").unwrap_or_else(|_| "llvmpipe,SwiftShader".to_owned());
    let open =
        |name: &str| GpuEngine::open(&GpuOptions { select: Select::Name(name.trim().to_owned()), memory }).unwrap();
    names.split(',').map(open).collect()
}

struct Data {
    lists: Lists,
    tag: Tag,
    queries: Prepared,
    probes: Vec<u32>,
    offsets: Vec<f32>,
}

impl Data {
    /// Rows in 30 lists, and queries that probe all of them.
    fn new(rows: usize, queries: usize) -> Data {
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 20) % below
        };
        let mut lists = Lists::new(Form::Integers(8), DIM, 30);
        let codes = (0..rows * DIM).map(|_| random(256) as u8).collect();
        let to: Vec<u32> = (0..rows).map(|_| (random(30).min(random(30))) as u32).collect();
        lists.append(&Encoded { codes, ..Encoded::default() }, &to, 0);
        let integers = (0..queries * DIM).map(|_| random(40) as i8 - 20).collect();
        let terms = vec![Terms { scale: 1.0, shift: 0.0 }; queries];
        let queries = Prepared { queries, integers, terms, ..Prepared::default() };
        let probes: Vec<u32> = (0..queries.queries * 30).map(|i| ((i + i / 30) % 30) as u32).collect();
        Data { lists, tag: Tag::new(), offsets: vec![0.0; probes.len()], queries, probes }
    }

    fn probes(&self) -> Probes<'_> {
        Probes { width: 30, lists: &self.probes, offsets: &self.offsets }
    }

    fn run(&self, engine: &GpuEngine, keep: usize, stats: &mut SearchStats) -> Result<Candidates, EngineError> {
        let nothing = MatrixView::new(&[] as &[f32], self.lists.dim).map(RowsView::F32).unwrap();
        let problem = Problem {
            metric: Metric::L2,
            dtype: DType::F32,
            dim: self.lists.dim,
            rows: self.lists.rows(),
            queries: self.queries.queries,
        };
        let plan = Plan::one(problem, Step::Scan { keep });
        let listed = Listed { lists: &self.lists, tag: &self.tag, queries: &self.queries, probes: self.probes() };
        let task = Task {
            plan: &plan,
            base: Base { rows: nothing, norms: None, tag: None, codes: None },
            queries: nothing,
            query_norms: &[],
            mask: None,
            input: Input::Lists(listed),
        };
        match task.run(engine, stats)? {
            Output::Candidates(found) => Ok(found),
            other => panic!("{other:?}"),
        }
    }

    /// Sums are whole numbers below 2^24, so the answer is exactly that of the reference.
    #[track_caller]
    fn right(&self, engine: &GpuEngine, keep: usize) -> SearchStats {
        let mut stats = SearchStats::default();
        let found = self.run(engine, keep, &mut stats).unwrap_or_else(|e| panic!("keep {keep}: {e}"));
        let wanted = scan::reference(Metric::L2, &self.lists, &self.queries, &self.probes(), None, keep);
        for (q, wanted) in wanted.iter().enumerate() {
            for (i, want) in wanted.iter().enumerate() {
                let got = (found.keys[q * keep + i], found.positions[q * keep + i]);
                assert_eq!(got, *want, "{}: keep {keep}, query {q}, place {i}", engine.name());
            }
        }
        stats
    }
}

#[test]
fn row_c3_lists_larger_than_the_budget_are_streamed() {
    let data = Data::new(12_000, 3);
    for memory in [1 << 20, 3 << 20] {
        for engine in engines(Some(memory)) {
            for keep in [10, 300, 2_000, 5_000, 12_000] {
                let stats = data.right(&engine, keep);
                assert!(memory > 1 << 20 || stats.chunks_uploaded > 3, "{stats:?}");
            }
            assert!(engine.peak() <= memory, "{} of {memory} bytes", engine.peak());
        }
    }
}

#[test]
fn row_c3_resident_lists_cross_the_bus_once() {
    let data = Data::new(5_000, 2);
    for engine in engines(None) {
        assert!(data.right(&engine, 10).chunks_uploaded > 0);
        assert_eq!(data.right(&engine, 50).chunks_uploaded, 0);
        let used = engine.used();
        let held = data.lists.slots() as u64 * (DIM as u64 + 4);
        assert!(used >= held, "{used} bytes for {held}");
    }
}

/// A binding of llvmpipe has 128 MiB.
#[test]
fn row_c3_lists_larger_than_a_binding_lie_in_shards() {
    let dim = 1024;
    let rows = 36_000;
    let mut data = Data::new(0, 2);
    data.lists = Lists::new(Form::Rows(DType::F32), dim, 30);
    let codes = (0..rows * dim).flat_map(|i| ((i % 977 * (i / dim % 31)) as f32 % 7.0).to_le_bytes()).collect();
    let to: Vec<u32> = (0..rows as u32).map(|r| r % 29).collect();
    data.lists.append(&Encoded { codes, ..Encoded::default() }, &to, 0);
    data.queries.floats = (0..2 * dim).map(|i| (i % 5) as f32).collect();
    for engine in engines(None) {
        data.right(&engine, 40);
    }
}

#[test]
fn row_c3_what_is_not_searched_makes_room() {
    let all: Vec<Data> = (0..3).map(|i| Data::new(9_000 + 100 * i, 2)).collect();
    for engine in engines(Some(2 << 20)) {
        for _ in 0..2 {
            all.iter().for_each(|data| drop(data.right(&engine, 20)));
        }
        assert!(engine.peak() <= 2 << 20);
    }
}

#[test]
fn a_kernel_that_answers_wrongly_is_disabled() {
    let data = Data::new(500, 2);
    let engine = engines(None).remove(0);
    engine.inject(Fault::Wrong("scan"));
    let error = data.run(&engine, 5, &mut SearchStats::default());
    assert!(matches!(&error, Err(EngineError::Disabled { kernel, .. }) if kernel == "scan"), "{error:?}");
}
