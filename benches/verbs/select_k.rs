//! `select_k`: 16 segments of 50,000 keys.

use criterion::Criterion;
use nearfield::Metric;
use nearfield::engine::Input;
use nearfield::plan::Step;

use crate::Workload;

pub fn bench(c: &mut Criterion) {
    let work = Workload::new(Metric::L2, (16, 50_000, 1));
    let keys: Vec<f32> = (0..16u64 * 50_000).map(|i| (i * 48_271 % 0x7fff_ffff % 1_000_003) as f32 + 1.0).collect();
    let first = keys[..50_000].iter().copied().fold(f32::INFINITY, f32::min);
    for k in [1, 100, 10_000] {
        work.bench(c, &format!("select_k {k}"), &[Step::SelectK { k }], Input::Matrix(&keys), f64::from(first));
    }
}
