//! `search`: one query and a batch on 20,000 rows, directly and through the screen.

use criterion::Criterion;
use nearfield::Metric;
use nearfield::engine::Input;
use nearfield::plan::{Plan, Screen};

use crate::Workload;

pub fn bench(c: &mut Criterion) {
    for queries in [1, 64] {
        let work = Workload::new(Metric::L2, (queries, 20_000, 128));
        for screen in [Screen::None, Screen::F32] {
            for k in [10, 500] {
                let steps = Plan::search(work.problem, k, screen).steps;
                let name = format!("search q{queries} k{k} screen {screen}");
                work.bench(c, &name, &steps, Input::None, work.nth_key(0));
            }
        }
    }
}
