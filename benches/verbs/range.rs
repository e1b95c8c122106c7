//! `range`: a radius that about 1 % of 20,000 rows lie within.

use criterion::Criterion;
use nearfield::Metric;
use nearfield::engine::Input;
use nearfield::plan::Step;

use crate::Workload;

pub fn bench(c: &mut Criterion) {
    let work = Workload::new(Metric::L2, (16, 20_000, 128));
    let key = work.nth_key(200) as f32;
    work.bench(c, "range 1 %", &[Step::Range { key }], Input::None, work.nth_key(0));
}
