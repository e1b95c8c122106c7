//! The verbs on the workloads of `nearfield bench shaders`: `cargo bench --bench verbs`, and with `NEARFIELD_DEVICE`
//! naming an adapter on that GPU too. One module per verb; a wrong answer stops the run.

mod assign;
mod distance;
mod matmul;
mod normalize;
mod range;
mod refine;
mod scan;
mod search;
mod segment_sum;
mod select_k;

use std::sync::OnceLock;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use nearfield::DeviceOptions;
use nearfield::roofline::Subject;
use nearfield::roofline::work::{Bench, Scale, family_cases};
use nearfield::stats::SearchStats;

/// Times every case of a family on every engine, in bytes that the cost model counts.
pub fn family(c: &mut Criterion, family: &str) {
    let mut bench = Bench::default();
    for case in family_cases(family, Scale::Medium) {
        let work = bench.make(&case);
        let cost = work.cost();
        let mut group = c.benchmark_group(format!("{} {}", case.name(), case.shape()));
        group.sample_size(20).throughput(Throughput::Bytes((cost.bytes_read + cost.bytes_written) as u64));
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        static SUBJECTS: OnceLock<Vec<Subject>> = OnceLock::new();
        for subject in SUBJECTS.get_or_init(subjects) {
            let engine = subject.engine();
            let run = || match work.run(engine, &mut SearchStats::default()) {
                Ok(answer) => answer,
                Err(e) => panic!("{} on {}: {e}", work.program(), engine.name()),
            };
            if let Some(wrong) = work.check(&run()) {
                panic!("{} on {}: {wrong}", work.program(), engine.name());
            }
            group.bench_function(engine.name(), |b| b.iter(run));
        }
        group.finish();
    }
}

/// The CPU, and the GPU that `NEARFIELD_DEVICE` names.
fn subjects() -> Vec<Subject> {
    let open = |device: Option<&str>| {
        let options = device.map_or_else(DeviceOptions::default, |name| DeviceOptions::default().device(name));
        Subject::open(&options).unwrap_or_else(|e| panic!("{e}"))
    };
    let named = std::env::var("NEARFIELD_DEVICE").is_ok_and(|name| !name.is_empty() && name != "cpu");
    let mut subjects = vec![open(Some("cpu"))];
    subjects.extend(named.then(|| open(None)));
    subjects
}

criterion_group!(
    verbs,
    assign::bench,
    matmul::bench,
    segment_sum::bench,
    distance::bench,
    normalize::bench,
    search::bench,
    select_k::bench,
    refine::bench,
    range::bench,
    scan::bench
);
criterion_main!(verbs);
