//! `normalize`: 10,000 rows of 384.

use criterion::Criterion;
use nearfield::Metric;
use nearfield::engine::Input;
use nearfield::plan::{Norm, Step};

use crate::Workload;

pub fn bench(c: &mut Criterion) {
    let work = Workload::new(Metric::L2, (1, 10_000, 384));
    for norm in [Norm::L2, Norm::Max] {
        let row = work.rows[..384].iter().map(|&x| f64::from(x).abs());
        let first = match norm {
            Norm::Max => row.fold(0.0, f64::max),
            _ => row.map(|x| x * x).sum::<f64>().sqrt(),
        };
        work.bench(c, &format!("normalize {norm}"), &[Step::Normalize { norm }], Input::None, first);
    }
}
