//! `segment_sum` on the shapes of `nearfield::roofline::work`.

use criterion::Criterion;

pub fn bench(c: &mut Criterion) {
    crate::family(c, "segment_sum");
}
