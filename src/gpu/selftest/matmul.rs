//! The tiny case for products: whole numbers, whose sums are exact in f32 in any order, and sizes that no tile divides.

use super::answer;
use crate::compute::{EngineError, Input, Output};
use crate::gpu::case::Case;
use crate::gpu::machine::{Machine, Verdict};
use crate::ops::matmul::{self, Sizes};
use crate::ops::{Matmul, Program};

const SIZES: Sizes = Sizes { rows: 67, inner: 37, columns: 130 };

/// Runs the case. The outer error is the device's, the inner one says what was wrong with the answer.
pub(super) async fn test(machine: &Machine, transposed: bool) -> Result<Verdict, EngineError> {
    let number = |i: usize| ((i * 7 + i / 11) % 17) as f32 - 8.0;
    let a: Vec<f32> = (0..SIZES.rows * SIZES.inner).map(number).collect();
    let b: Vec<f32> = (0..SIZES.inner * SIZES.columns).map(|i| number(i + 5)).collect();
    let shape = if transposed { [SIZES.columns, SIZES.inner] } else { [SIZES.inner, SIZES.columns] };
    let inputs = [Input::Matrix { values: &a, shape: [SIZES.rows, SIZES.inner] }, Input::Matrix { values: &b, shape }];
    let mut program = Program::new();
    let [left, right] = [program.input(inputs[0].ty()?), program.input(inputs[1].ty()?)];
    let product = program.push(Matmul { a: left, b: right, transposed })?;
    program.output(product);
    Ok(match answer(machine, Case::Matmul { transposed }, &program, &inputs).await? {
        Ok(Output::Matrix(found)) => check(&found, &matmul::reference(SIZES, &a, &b, transposed)),
        Ok(_) => Err("an answer of another kind".to_owned()),
        Err(refused) => Err(refused),
    })
}

fn check(found: &[f32], wanted: &[f64]) -> Verdict {
    if found.len() != wanted.len() {
        return Err(format!("{} numbers, wanted {}", found.len(), wanted.len()));
    }
    match found.iter().zip(wanted).position(|(&found, &wanted)| f64::from(found) != wanted) {
        Some(i) => Err(format!("number {i} is {}, wanted {}", found[i], wanted[i])),
        None => Ok(()),
    }
}
