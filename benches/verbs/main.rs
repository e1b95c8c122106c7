//! The verbs on small workloads: `cargo bench --bench verbs`, and with `NEARFIELD_DEVICE` naming an adapter on that GPU
//! too. One module a verb; a wrong answer stops the run.

mod distance;
mod normalize;
mod range;
mod refine;
mod search;
mod select_k;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nearfield::cpu::{CpuEngine, CpuOptions};
use nearfield::engine::{Base, Engine, Input, Output, Tag, Task};
use nearfield::plan::{Plan, Problem, Step};
use nearfield::stats::SearchStats;
use nearfield::{DType, MatrixView, Metric, RowsView};

/// f32 rows and queries of random numbers.
pub struct Workload {
    rows: Vec<f32>,
    queries: Vec<f32>,
    row_norms: Vec<f32>,
    query_norms: Vec<f32>,
    problem: Problem,
    tag: Tag,
}

fn lengths(rows: &[f32], dim: usize) -> Vec<f32> {
    rows.chunks(dim).map(|row| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() as f32).collect()
}

impl Workload {
    /// `queries` x `rows` of `dim` components in [-1, 1).
    pub fn new(metric: Metric, (queries, rows, dim): (usize, usize, usize)) -> Workload {
        let mut state = 1u64;
        let mut random = |n: usize| -> Vec<f32> {
            (0..n)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 40) as f32 / f32::powi(2.0, 23) - 1.0
                })
                .collect()
        };
        let (rows_data, queries_data) = (random(rows * dim), random(queries * dim));
        Workload {
            row_norms: lengths(&rows_data, dim),
            query_norms: lengths(&queries_data, dim),
            rows: rows_data,
            queries: queries_data,
            problem: Problem { metric, dtype: DType::F32, dim, rows, queries },
            tag: Tag::new(),
        }
    }

    fn view<'a>(&self, data: &'a [f32]) -> RowsView<'a> {
        MatrixView::new(data, self.problem.dim).expect("whole rows").into()
    }

    /// The first query and row `r` in f64, for answers.
    pub fn key(&self, row: usize) -> f64 {
        let dim = self.problem.dim;
        let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let (a, b) = (wide(&self.queries[..dim]), wide(&self.rows[row * dim..(row + 1) * dim]));
        nearfield::kernels::metric::key(self.problem.metric, &a, &b)
    }

    /// The key at a place in the order of the first query's keys.
    pub fn nth_key(&self, place: usize) -> f64 {
        let mut keys: Vec<f64> = (0..self.problem.rows).map(|r| self.key(r)).collect();
        keys.sort_by(f64::total_cmp);
        keys[place]
    }

    /// Runs the steps once.
    pub fn run(&self, engine: &dyn Engine, steps: &[Step], input: Input<'_>) -> Output {
        let plan = Plan { problem: self.problem, steps: steps.to_vec() };
        let task = Task {
            plan: &plan,
            base: Base { rows: self.view(&self.rows), norms: Some(&self.row_norms), tag: Some(&self.tag), codes: None },
            queries: self.view(&self.queries),
            query_norms: &self.query_norms,
            mask: None,
            input,
        };
        match engine.run(&task, &mut SearchStats::default()) {
            Ok(output) => output,
            Err(e) => panic!("{plan} on {}: {e}", engine.name()),
        }
    }

    /// Times the steps on every engine, in bytes that the cost model counts; `first` is the first key of the answer.
    pub fn bench(&self, c: &mut Criterion, name: &str, steps: &[Step], input: Input<'_>, first: f64) {
        let plan = Plan { problem: self.problem, steps: steps.to_vec() };
        let bytes: f64 = plan.costs().iter().map(|cost| cost.bytes_read + cost.bytes_written).sum();
        let mut group = c.benchmark_group(name);
        group.sample_size(20).throughput(Throughput::Bytes(bytes as u64));
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        static ENGINES: OnceLock<Vec<Arc<dyn Engine>>> = OnceLock::new();
        for engine in ENGINES.get_or_init(engines) {
            let got = match self.run(&**engine, steps, input) {
                Output::Candidates(found) => found.keys[0],
                Output::Matrix(keys) | Output::Range { keys, .. } => keys[0],
                Output::Rows { norms, .. } => norms[0],
            };
            let near = (f64::from(got) - first).abs() <= 1e-4 * first.abs();
            assert!(near, "{plan} on {}: the first key is {got}, it should be {first}", engine.name());
            group.bench_function(engine.name(), |b| b.iter(|| self.run(&**engine, steps, input)));
        }
        group.finish();
    }
}

/// The CPU, and the GPU whose name `NEARFIELD_DEVICE` is a part of.
fn engines() -> Vec<Arc<dyn Engine>> {
    #[cfg_attr(not(feature = "gpu"), allow(unused_mut))]
    let mut engines: Vec<Arc<dyn Engine>> = vec![Arc::new(CpuEngine::new(CpuOptions::default()))];
    #[cfg(feature = "gpu")]
    if let Ok(name) = std::env::var("NEARFIELD_DEVICE") {
        use nearfield::gpu::{GpuEngine, GpuOptions, Select};
        let options = GpuOptions { select: Select::Name(name), memory: None };
        engines.push(Arc::new(GpuEngine::open(&options).unwrap_or_else(|e| panic!("NEARFIELD_DEVICE: {e}"))));
    }
    engines
}

criterion_group!(verbs, distance::bench, normalize::bench, search::bench, select_k::bench, refine::bench, range::bench);
criterion_main!(verbs);
