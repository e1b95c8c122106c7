//! `select_k`: the k smallest of each segment, exactly.

use crate::task::{Input, Step};
use nearfield::ops::select_k;
use nearfield::{DType, Metric};

use crate::Subject;
use crate::check;
use crate::compare::{Check, Want, candidates, must, same_neighbours};
use crate::data::{Case, Matrix, Rng, Values};

/// A case whose rows do not matter: `q` segments of `n` keys.
fn segments(q: usize, n: usize) -> Case {
    let nothing = |rows| Matrix::from_fn(DType::F32, rows, 1, |_, _| 0.0);
    Case::new(Metric::L2, nothing(q), nothing(n))
}

fn selection_is_right(s: &Subject, (q, n): (usize, usize), keys: &[f32], k: usize) -> Check {
    let case = segments(q, n);
    let got = candidates(case.run(&*s.engine, &[Step::SelectK { k }], None, Input::Matrix(keys)))?;
    check!(got.width == k, "{k} places per segment wanted, {} found", got.width);
    check!(got.keys.len() == q * k && got.positions.len() == q * k, "{} places wanted", q * k);
    for segment in 0..q {
        let wanted = select_k::reference(&keys[segment * n..(segment + 1) * n], None, k);
        for place in 0..k {
            let (key, position) = wanted.get(place).copied().unwrap_or((f32::INFINITY, u32::MAX));
            let i = segment * k + place;
            let same = if key.is_nan() { got.keys[i].is_nan() } else { got.keys[i].to_bits() == key.to_bits() };
            check!(
                same && got.positions[i] == position,
                "segment {segment}, place {place} should be ({key:?}, {position}), it is ({:?}, {})",
                got.keys[i],
                got.positions[i]
            );
        }
    }
    Ok(())
}

#[track_caller]
fn right(s: &Subject, q: usize, n: usize, k: usize, mut key: impl FnMut(usize) -> f32) {
    let keys: Vec<f32> = (0..q * n).map(&mut key).collect();
    if let Err(e) = selection_is_right(s, (q, n), &keys, k) {
        panic!("select_k of {k} in {q} segments of {n}: {e}");
    }
}

pub fn row_b3_every_k(s: &Subject) {
    for n in [1, 2, 31, 32, 33, 65, 300, 1000, 1025] {
        for k in [1, 2, 10, 16, 100, 128, 129, n - 1, n, n + 5].into_iter().filter(|&k| k > 0) {
            let mut rng = Rng::new(n as u64);
            right(s, 3, n, k, |_| rng.normal() as f32);
        }
    }
}

/// Two million keys would do as well; what matters is that k and n are far above any group's memory.
pub fn row_b3_long_segments(s: &Subject) {
    let mut rng = Rng::new(1);
    for k in [1, 100, 5_000, 70_001] {
        right(s, 1, 70_001, k, |_| rng.normal() as f32);
        right(s, 2, 20_011, k.min(20_011), |_| (rng.unit() as f32).powi(8));
    }
    // In order, in reverse order, and all with the same first digits.
    right(s, 1, 30_000, 1_000, |i| i as f32);
    right(s, 1, 30_000, 1_000, |i| -(i as f32));
    right(s, 1, 30_000, 1_000, |i| 1.0 + ((i * 7919) % 30_000) as f32 * f32::EPSILON);
}

/// NaN last, -0 before 0, infinities and denormals in their places.
pub fn row_b3_special_keys(s: &Subject) {
    let special = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        f32::MIN_POSITIVE,
        -f32::MIN_POSITIVE,
        1e-42,
        -1e-42,
        f32::MAX,
        f32::MIN,
        1.0,
        -1.0,
    ];
    for (n, k) in [(13, 13), (64, 64), (64, 5), (300, 100), (300, 300), (1025, 700), (1025, 1025)] {
        let mut rng = Rng::new(n as u64);
        right(s, 3, n, k, |_| special[rng.below(special.len())]);
        right(s, 2, n, k, |_| if rng.below(3) == 0 { rng.normal() as f32 } else { f32::NAN });
    }
    right(s, 2, 40, 40, |_| f32::NAN);
    right(s, 2, 40, 10, |_| f32::INFINITY);
    right(s, 2, 2000, 1500, |_| f32::INFINITY);
}

pub fn row_b3_equal_keys(s: &Subject) {
    for (n, k) in [(33, 10), (300, 128), (300, 129), (1025, 1), (1025, 1000), (5000, 2500)] {
        right(s, 2, n, k, |_| 1.5);
        let mut rng = Rng::new(9);
        right(s, 3, n, k, |_| rng.below(3) as f32 - 1.0);
    }
}

/// More segments than a grid has groups, where a group does not cost milliseconds as on a software driver.
pub fn row_b3_many_segments(s: &Subject) {
    let mut rng = Rng::new(2);
    right(s, if s.full { 70_001 } else { 300 }, 2, 1, |_| rng.below(5) as f32);
    right(s, 257, 40, 7, |_| rng.normal() as f32);
}

pub fn row_b3_after_distance(s: &Subject) {
    for (q, n) in [(1, 1000), (5, 33), (16, 257)] {
        let case = Case::random(Metric::L2, DType::F32, (q, n, 12), Values::Whole);
        for k in [1, 10, 129, n, n + 5] {
            let got = candidates(case.run(&*s.engine, &[Step::Distance, Step::SelectK { k }], None, Input::None));
            let check = got.and_then(|got| same_neighbours(&case, &got, Want::exact(k)));
            must(&case, &format!("distance -> select_k({k})"), check);
        }
    }
}

pub fn row_e7_empty(s: &Subject) {
    right(s, 0, 5, 3, |_| 0.0);
    right(s, 3, 0, 2, |_| 0.0);
    right(s, 0, 0, 1, |_| 0.0);
}
