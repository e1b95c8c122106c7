//! `distance`: every metric at every dimension of row B1, against f64.

use crate::task::{Input, Step};
use nearfield::compute::Output;
use nearfield::{DType, Metric};

use crate::Subject;
use crate::check;
use crate::compare::{Check, key_fits, kind, must};
use crate::data::{Case, Matrix, Rng, Values, query_dtype};

/// The dimensions of row B1.
const DIMS: [usize; 25] = [
    1, 2, 3, 7, 17, 31, 33, 64, 96, 100, 127, 128, 200, 256, 384, 768, 960, 1000, 1024, 1536, 3072, 4096, 4097, 8192,
    16384,
];

/// The relative error that row B1 allows on ordinary f32 rows.
const ORDINARY: f64 = 4e-6;

/// The element types that engines compute with.
pub const DTYPES: [DType; 6] = [DType::F32, DType::F16, DType::Bf16, DType::I8, DType::U8, DType::Bits];

/// Every metric for f32 rows, lp by several exponents.
pub const METRICS: [Metric; 15] = [
    Metric::L2,
    Metric::InnerProduct,
    Metric::Cosine,
    Metric::L1,
    Metric::Linf,
    Metric::Lp(3.0),
    Metric::Lp(2.5),
    Metric::Canberra,
    Metric::BrayCurtis,
    Metric::JensenShannon,
    Metric::Jaccard,
    Metric::Lp(0.5),
    Metric::Lp(1.0),
    Metric::Lp(2.0),
    Metric::Lp(4.0),
];

/// [`METRICS`], of lp only two exponents where pipelines are dear.
fn metrics(s: &Subject) -> &'static [Metric] {
    if s.full { &METRICS } else { &METRICS[..11] }
}

/// Runs the verb and compares every key; `relative` also bounds the relative error.
fn keys_are_right(s: &Subject, case: &Case, relative: Option<f64>) -> Check {
    let keys = match case.run(&*s.engine, &[Step::Distance], None, Input::None) {
        Output::Matrix(keys) => keys,
        other => return Err(format!("a matrix was due, not {}", kind(&other))),
    };
    let (q, n) = (case.q(), case.n());
    check!(keys.len() == q * n, "{} keys wanted, {} found", q * n, keys.len());
    for (i, &got) in keys.iter().enumerate() {
        let (query, row) = (i / n, i % n);
        let exact = case.key(query, row);
        let bound = case.tolerance(query, row).min(relative.map_or(f64::INFINITY, |r| r * exact.abs()));
        check!(
            key_fits(got, exact, bound),
            "query {query}, row {row}: {got:e}, exactly {exact:e}: off by {:e}, tolerance {bound:e}",
            (f64::from(got) - exact).abs()
        );
    }
    Ok(())
}

#[track_caller]
fn right(s: &Subject, case: &Case) {
    must(case, "distance", keys_are_right(s, case, None));
}

pub fn row_b1_every_metric_at_every_dim(s: &Subject) {
    for &metric in metrics(s) {
        for dim in DIMS {
            let shape = if dim <= 1024 { (5, 37, dim) } else { (2, 5, dim) };
            let case = Case::random(metric, DType::F32, shape, Values::Positive);
            must(&case, "distance", keys_are_right(s, &case, Some(ORDINARY)));
            if dim <= 1024 {
                right(s, &Case::random(metric, DType::F32, shape, Values::Signed));
            }
        }
    }
}

pub fn row_b1_every_dtype(s: &Subject) {
    for dtype in [DType::F16, DType::Bf16, DType::I8, DType::U8] {
        for &metric in if s.full { &METRICS[..] } else { &METRICS[..1] } {
            for dim in [1, 2, 3, 5, 31, 64, 100, 257] {
                right(s, &Case::random(metric, dtype, (3, 19, dim), Values::Signed));
                right(s, &Case::random(metric, dtype, (1, 6, dim), Values::Positive));
            }
        }
    }
    for metric in [Metric::Hamming, Metric::Jaccard] {
        for dim in [8, 16, 24, 32, 64, 72, 128, 200, 256, 1000, 1024, 4096, 16384] {
            right(s, &Case::random(metric, DType::Bits, (3, 19, dim), Values::Whole));
        }
    }
}

/// Rows of length 1,000 that lie 1e-4 of it apart: |a|^2 + |b|^2 - 2ab would have no correct digit.
pub fn row_b1_tiny_distances_of_large_rows(s: &Subject) {
    for dim in [3, 64, 768] {
        let case = nearly_equal(Metric::L2, dim, 5, 40);
        must(&case, "distance", keys_are_right(s, &case, Some(ORDINARY)));
    }
    for &metric in metrics(s).iter().filter(|m| !m.needs_non_negative()) {
        right(s, &nearly_equal(metric, 64, 3, 20));
    }
}

/// One row of length 1,000, and others 1e-4 of it apart from it.
pub fn nearly_equal(metric: Metric, dim: usize, q: usize, n: usize) -> Case {
    let mut rng = Rng::new(dim as u64);
    let center: Vec<f64> = (0..dim).map(|_| rng.normal()).collect();
    let length = center.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut near = |_: usize, c: usize| {
        let x = center[c] / length * 1000.0;
        (x + 0.1 * rng.normal() / (dim as f64).sqrt()) as f32
    };
    let queries = Matrix::from_fn(DType::F32, q, dim, &mut near);
    Case::new(metric, queries, Matrix::from_fn(DType::F32, n, dim, &mut near))
}

pub fn row_b1_large_norms(s: &Subject) {
    for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine, Metric::L1, Metric::Linf, Metric::Canberra] {
        for scale in [1e-15f32, 1e-8, 1e6, 1e15] {
            let mut rng = Rng::new(scale.to_bits().into());
            let mut fill = |_: usize, _: usize| (rng.unit() as f32 + 0.01) * scale;
            let queries = Matrix::from_fn(DType::F32, 3, 100, &mut fill);
            let case = Case::new(metric, queries, Matrix::from_fn(DType::F32, 9, 100, &mut fill));
            must(&case, &format!("distance at scale {scale:e}"), keys_are_right(s, &case, Some(ORDINARY)));
        }
    }
}

/// Where p ln(p / m) and 1 - sum min / sum max cancel: rows that differ by one part in 10 to one in 10,000, and components that are zero in one
/// row or in both, or far apart.
pub fn row_b1_nearly_equal_distributions(s: &Subject) {
    let mut rng = Rng::new(11);
    let query: Vec<f64> = (0..200).map(|_| rng.unit() + 1e-3).collect();
    let row = |r: usize, c: usize| {
        let x = query[c] * (1.0 + rng.normal() * [1e-1, 1e-2, 1e-3, 1e-4][r % 4]).max(0.0);
        match r {
            8 => 0.0,
            9 if c.is_multiple_of(2) => 0.0,
            10 => (x * 1e-20) as f32,
            11 => (x * 1e20) as f32,
            _ => x as f32,
        }
    };
    let rows = Matrix::from_fn(DType::F32, 12, 200, row);
    let queries = Matrix::from_fn(DType::F32, 1, 200, |_, c| query[c] as f32);
    for metric in [Metric::JensenShannon, Metric::Jaccard] {
        let case = Case::new(metric, queries.clone(), rows.clone());
        must(&case, "distance", keys_are_right(s, &case, Some(ORDINARY)));
    }
}

pub fn row_b1_strided_rows(s: &Subject) {
    let few = [DType::F32, DType::F16, DType::U8, DType::Bits];
    for dtype in if s.full { DTYPES.to_vec() } else { few.to_vec() } {
        let metric = if dtype == DType::Bits { Metric::Hamming } else { Metric::L2 };
        for (dim, gap) in [(16, 1), (24, 3), (40, 8)] {
            let mut rng = Rng::new(3);
            let mut fill = |_: usize, _: usize| rng.below(4) as f32;
            let queries = Matrix::with_gap(query_dtype(dtype), 4, dim, gap, &mut fill);
            right(s, &Case::new(metric, queries, Matrix::with_gap(dtype, 21, dim, gap, &mut fill)));
        }
    }
}

/// A GPU's grid has 65,535 groups in a dimension.
pub fn row_b1_more_rows_than_a_grid_has_groups(s: &Subject) {
    right(s, &Case::random(Metric::L2, DType::F32, (1, 70_001, 2), Values::Signed));
    right(s, &Case::random(Metric::L2, DType::F32, (70_001, 1, 2), Values::Signed));
}

/// Zero rows and zero queries: 0/0 counts as 0.
pub fn row_e7_zero_rows(s: &Subject) {
    for &metric in metrics(s) {
        for dim in [1, 5, 64] {
            let mut rng = Rng::new(5);
            let mut fill = |r: usize, _: usize| if r.is_multiple_of(2) { 0.0 } else { rng.unit() as f32 };
            let queries = Matrix::from_fn(DType::F32, 3, dim, &mut fill);
            right(s, &Case::new(metric, queries, Matrix::from_fn(DType::F32, 6, dim, &mut fill)));
        }
    }
    for metric in [Metric::Hamming, Metric::Jaccard] {
        let fill = |r: usize, c: usize| if r.is_multiple_of(2) { 0.0 } else { (c % 3) as f32 };
        let queries = Matrix::from_fn(DType::Bits, 3, 40, fill);
        right(s, &Case::new(metric, queries, Matrix::from_fn(DType::Bits, 6, 40, fill)));
    }
}

/// Numbers below the smallest normal one may count as zero, nothing worse.
pub fn row_e7_denormals(s: &Subject) {
    for metric in [Metric::L2, Metric::InnerProduct, Metric::L1, Metric::Linf] {
        let mut rng = Rng::new(17);
        let mut fill = |_: usize, c: usize| rng.normal() as f32 * if c.is_multiple_of(2) { 1e-40 } else { 1.0 };
        let queries = Matrix::from_fn(DType::F32, 3, 33, &mut fill);
        right(s, &Case::new(metric, queries, Matrix::from_fn(DType::F32, 9, 33, &mut fill)));
        let mut fill = |_: usize, _: usize| rng.normal() as f32 * 1e-40;
        let queries = Matrix::from_fn(DType::F32, 2, 9, &mut fill);
        right(s, &Case::new(metric, queries, Matrix::from_fn(DType::F32, 5, 9, &mut fill)));
    }
}

pub fn row_e7_empty(s: &Subject) {
    for (q, n) in [(0, 0), (0, 5), (3, 0)] {
        right(s, &Case::random(Metric::L2, DType::F32, (q, n, 7), Values::Signed));
        right(s, &Case::random(Metric::Hamming, DType::Bits, (q, n, 16), Values::Whole));
    }
}
