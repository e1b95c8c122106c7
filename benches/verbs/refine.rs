//! `refine`: 200 scattered candidates of each of 64 queries.

use criterion::Criterion;
use nearfield::Metric;
use nearfield::engine::Input;
use nearfield::plan::Step;

use crate::Workload;

pub fn bench(c: &mut Criterion) {
    let work = Workload::new(Metric::L2, (64, 20_000, 384));
    let positions: Vec<u32> = (0..64 * 200u32).map(|i| i * 7_919 % 20_000).collect();
    let input = Input::Positions { positions: &positions, width: 200 };
    work.bench(c, "refine 200", &[Step::Refine], input, work.key(0));
}
