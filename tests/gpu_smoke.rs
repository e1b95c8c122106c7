//! What the contract suite cannot reach: budgets smaller than the base, injected faults, an application's own device.
//! Runs on every usable adapter; no adapter at all is a failure.
#![cfg(feature = "gpu")]

use nearfield::engine::{Base, Candidates, Engine, EngineError, Input, Mask, Output, Tag, Task};
use nearfield::gpu::{self, Fault, GpuEngine, GpuOptions, Select};
use nearfield::kernels;
use nearfield::plan::{Norm, Plan, Problem, Screen, Step};
use nearfield::stats::SearchStats;
use nearfield::{DType, MatrixView, Metric, RowsView};

fn engines(memory: Option<u64>) -> Vec<GpuEngine> {
    let usable: Vec<_> = gpu::adapters().into_iter().filter(|a| a.usable).collect();
    assert!(!usable.is_empty(), "no usable adapter: GPU tests need one (scripts/setup-drivers gives a software one)");
    let open = |index| GpuEngine::open(&GpuOptions { select: Select::GpuIndex(index), memory }).unwrap();
    usable.iter().map(|a| open(a.index)).collect()
}

/// Rows and queries with what a task needs beside them.
struct Data {
    dim: usize,
    rows: Vec<f32>,
    queries: Vec<f32>,
    row_norms: Vec<f32>,
    query_norms: Vec<f32>,
}

fn norms(values: &[f32], dim: usize) -> Vec<f32> {
    values.chunks(dim).map(|r| r.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() as f32).collect()
}

impl Data {
    fn new(rows: usize, queries: usize, dim: usize) -> Data {
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        };
        let rows: Vec<f32> = (0..rows * dim).map(|_| random()).collect();
        let queries: Vec<f32> = (0..queries * dim).map(|_| random()).collect();
        Data { dim, row_norms: norms(&rows, dim), query_norms: norms(&queries, dim), rows, queries }
    }

    fn rows(&self) -> RowsView<'_> {
        MatrixView::new(&self.rows, self.dim).unwrap().into()
    }

    fn query_rows(&self) -> RowsView<'_> {
        MatrixView::new(&self.queries, self.dim).unwrap().into()
    }

    fn problem(&self, metric: Metric) -> Problem {
        let (rows, queries) = (self.rows().rows(), self.query_rows().rows());
        Problem { metric, dtype: DType::F32, dim: self.dim, rows, queries }
    }

    fn task<'a>(&'a self, plan: &'a Plan, tag: Option<&'a Tag>) -> Task<'a> {
        Task {
            plan,
            base: Base { rows: self.rows(), norms: Some(&self.row_norms), tag },
            queries: self.query_rows(),
            query_norms: &self.query_norms,
            mask: None,
            input: Input::None,
        }
    }

    fn reference(&self, metric: Metric, mask: Option<Mask<'_>>, k: usize) -> Vec<Vec<(f64, u32)>> {
        kernels::search::reference(metric, &self.query_rows(), &self.rows(), mask, k)
    }
}

fn candidates(output: Output) -> Candidates {
    match output {
        Output::Candidates(c) => c,
        other => panic!("{other:?}"),
    }
}

fn search(engine: &GpuEngine, task: &Task<'_>) -> Result<(Candidates, SearchStats), EngineError> {
    let mut stats = SearchStats::default();
    let output = engine.run(task, &mut stats)?;
    Ok((candidates(output), stats))
}

/// The distances of an answer are those of the reference, place by place, within a small bound.
fn assert_nearest(found: &Candidates, wanted: &[Vec<(f64, u32)>], what: &str) {
    for (q, wanted) in wanted.iter().enumerate() {
        for (i, &(key, position)) in wanted.iter().enumerate() {
            let at = q * found.width + i;
            let near = (f64::from(found.keys[at]) - key).abs() <= 1e-5 * key.abs().max(1.0);
            assert!(
                near,
                "{what}, query {q}, place {i}: {} at {}, wanted {key} at {position}",
                found.keys[at], found.positions[at]
            );
        }
    }
}

#[test]
fn searches_of_every_shape_give_the_nearest_rows() {
    let data = Data::new(3000, 21, 37);
    for engine in engines(None) {
        for (screen, k) in
            [(Screen::None, 1), (Screen::None, 10), (Screen::F32, 10), (Screen::None, 300), (Screen::None, 3000)]
        {
            let plan = Plan::search(data.problem(Metric::L2), k, screen);
            let (found, stats) = search(&engine, &data.task(&plan, None)).unwrap();
            assert_nearest(&found, &data.reference(Metric::L2, None, k), &format!("{} {plan}", engine.name()));
            println!("{} {plan}: {stats:?}", engine.name());
        }
    }
}
