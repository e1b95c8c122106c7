//! The tiny case for sums of segments: whole numbers, whose sums are exact in f32 in any order, segments of several pieces,
//! an empty one, rows of none, and rows wider than a workgroup.

use super::answer;
use crate::compute::{EngineError, Input, Output, Vectors};
use crate::gpu::case::Case;
use crate::gpu::machine::{Machine, Verdict};
use crate::ops::segment_sum::{Sizes, reference};
use crate::ops::{Program, SegmentSum};
use crate::types::{MatrixView, RowsView};

/// A row of few groups of components, and one of more than a workgroup has threads.
const SIZES: [Sizes; 2] = [Sizes { rows: 900, dim: 37, segments: 7 }, Sizes { rows: 300, dim: 270, segments: 3 }];

/// Runs the case. The outer error is the device's, the inner one says what was wrong with the answer.
pub(super) async fn test(machine: &Machine) -> Result<Verdict, EngineError> {
    for sizes in SIZES {
        let values: Vec<f32> = (0..sizes.rows * sizes.dim).map(|i| ((i * 7 + i / 11) % 17) as f32 - 8.0).collect();
        let label = |i: usize| if i % 10 == 3 { u32::MAX } else { [0, 2, 2, 1][i % 4] };
        let labels: Vec<u32> = (0..sizes.rows).map(label).collect();
        let Ok(view) = MatrixView::new(&values, sizes.dim) else { return Ok(Err("no rows".to_owned())) };
        let inputs = [
            Input::Vectors(Vectors { rows: RowsView::F32(view), norms: None, tag: None }),
            Input::Positions { positions: &labels, width: 1 },
        ];
        let mut program = Program::new();
        let [rows, of] = [program.input(inputs[0].ty()?), program.input(inputs[1].ty()?)];
        let sums = program.push(SegmentSum { rows, labels: of, segments: sizes.segments })?;
        program.output(sums);
        let found = match answer(machine, Case::SegmentSum, &program, &inputs).await? {
            Ok(Output::Matrix(found)) => found,
            Ok(_) => return Ok(Err("an answer of another kind".to_owned())),
            Err(refused) => return Ok(Err(refused)),
        };
        let (wanted, _) = reference(sizes, &values, &labels);
        if found.len() != wanted.len() {
            return Ok(Err(format!("{} numbers, wanted {}", found.len(), wanted.len())));
        }
        if let Some(i) = found.iter().zip(&wanted).position(|(&found, &wanted)| f64::from(found) != wanted) {
            return Ok(Err(format!("number {i} is {}, wanted {}", found[i], wanted[i])));
        }
    }
    Ok(Ok(()))
}
