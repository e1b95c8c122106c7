//! `distance`: 32 queries on 4,000 rows, cheap metrics and a dear one.

use criterion::Criterion;
use nearfield::Metric;
use nearfield::engine::Input;
use nearfield::plan::Step;

use crate::Workload;

pub fn bench(c: &mut Criterion) {
    for metric in [Metric::L2, Metric::InnerProduct, Metric::L1, Metric::Canberra] {
        let work = Workload::new(metric, (32, 4_000, 384));
        work.bench(c, &format!("distance {metric}"), &[Step::Distance], Input::None, work.key(0));
    }
}
