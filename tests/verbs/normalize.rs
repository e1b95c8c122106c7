//! `normalize`: three norms, rows of any size of number, against f64.

use crate::task::{Input, Step};
use nearfield::compute::Output;
use nearfield::ops::Norm;
use nearfield::ops::normalize;
use nearfield::{DType, Metric};

use crate::Subject;
use crate::check;
use crate::compare::{Check, kind, must};
use crate::data::{Case, Matrix, Rng, Values};

const NORMS: [Norm; 3] = [Norm::L2, Norm::L1, Norm::Max];

fn rows_are_right(s: &Subject, case: &Case, norm: Norm) -> Check {
    let (rows, norms) = match case.run(&*s.engine, &[Step::Normalize { norm }], None, Input::None) {
        Output::Rows { rows, norms } => (rows, norms),
        other => return Err(format!("rows were due, not {}", kind(&other))),
    };
    let dim = case.problem().dim;
    let (exact_rows, exact_norms) = normalize::reference(norm, &case.rows.view());
    check!(rows.len() == exact_rows.len(), "{} components wanted, {} found", exact_rows.len(), rows.len());
    check!(norms.len() == exact_norms.len(), "{} norms wanted, {} found", exact_norms.len(), norms.len());
    let relative = (dim as f64 / 4.0 + 16.0) * f64::powi(2.0, -24);
    let close =
        |got: f32, exact: f64| (f64::from(got) - exact).abs() <= relative * exact.abs() + f64::from(f32::MIN_POSITIVE);
    for (r, (&got, &exact)) in norms.iter().zip(&exact_norms).enumerate() {
        check!(close(got, exact), "the norm of row {r} is {got:e}, exactly {exact:e}");
    }
    for (i, (&got, &exact)) in rows.iter().zip(&exact_rows).enumerate() {
        check!(close(got, exact), "row {}, component {}: {got:e}, exactly {exact:e}", i / dim, i % dim);
    }
    Ok(())
}

#[track_caller]
fn right(s: &Subject, rows: Matrix, norm: Norm) {
    let dim = rows.view().dim();
    let case = Case::new(Metric::L2, Matrix::from_fn(DType::F32, 0, dim, |_, _| 0.0), rows);
    must(&case, &format!("normalize by {norm}"), rows_are_right(s, &case, norm));
}

pub fn row_b2_every_norm(s: &Subject) {
    for norm in NORMS {
        for (rows, dim) in [(1, 1), (5, 3), (33, 31), (2, 128), (65, 200), (3, 1000), (2, 4097)] {
            right(s, Matrix::random(DType::F32, rows, dim, Values::Signed, 2), norm);
            right(s, Matrix::random(DType::F32, rows, dim, Values::Positive, 3), norm);
        }
        let mut rng = Rng::new(4);
        right(s, Matrix::with_gap(DType::F32, 9, 17, 5, |_, _| rng.normal() as f32), norm);
        right(s, Matrix::from_fn(DType::F32, 70_001, 1, |r, _| r as f32 - 100.0), norm);
    }
}

/// Squares of 1e30 and 1e-30 do not fit into f32; a zero row stays zero and its norm is 0.
pub fn row_b2_zero_huge_and_tiny_rows(s: &Subject) {
    for norm in NORMS {
        for dim in [1, 7, 100] {
            let mut rng = Rng::new(8);
            let fill = |r: usize, c: usize| {
                let x = rng.normal() as f32;
                match r {
                    0 => 0.0,
                    1 => x * 1e30,
                    2 => x * 1e-30,
                    3 => x.signum() * 3e36,
                    4 if c + 1 < dim => 0.0,
                    // One component far above the others.
                    5 if c == 0 => 1e25,
                    _ => x,
                }
            };
            right(s, Matrix::from_fn(DType::F32, 7, dim, fill), norm);
        }
        right(s, Matrix::from_fn(DType::F32, 3, 40, |_, _| 0.0), norm);
    }
}

pub fn row_b2_other_dtypes(s: &Subject) {
    let (dtypes, norms) = if s.full {
        (&[DType::F16, DType::Bf16, DType::I8, DType::U8][..], &NORMS[..])
    } else {
        (&[DType::F16][..], &NORMS[..1])
    };
    for &dtype in dtypes {
        for &norm in norms {
            for dim in [1, 5, 64, 257] {
                right(s, Matrix::random(dtype, 11, dim, Values::Signed, 6), norm);
            }
        }
    }
}

pub fn row_e7_empty(s: &Subject) {
    right(s, Matrix::from_fn(DType::F32, 0, 5, |_, _| 0.0), Norm::L2);
}
