//! A kernel proves itself on the device before it is trusted: on its first use in a variant, and for each pipeline (so
//! for each metric and element type), it runs a tiny case with ties, a zero row and forbidden rows, and is compared with
//! the reference of its verb. A variant with subgroups that fails gives way to the plain one; a plain one that fails is
//! disabled and named.

mod codes;
mod data;
mod matmul;
mod scan;
mod segment_sum;

use self::data::{CANDIDATES, Data};
use super::case::{CASE_ROWS as ROWS, Case};
use super::lower::{self, Site};
use super::machine::{Machine, Proving, Verdict};
use super::resident::Residents;
use crate::compute::{EngineError, Input, Output, Vectors};
use crate::ops::search::screened::Unit;
use crate::ops::{Assign, Batch, Distance, Normalize, Program, Range, Refine, Screen, Search, SelectK};
use crate::stats::SearchStats;
use crate::types::{DType, Metric};

/// Row r is the same as row r - TWIN for these many rows at the end.
const TWINS: usize = 100;

/// The answer to a case, spoilt if a test asked for that. The outer error is the device's, the inner one the driver's.
async fn answer(
    machine: &Machine,
    case: Case,
    program: &Program,
    inputs: &[Input<'_>],
) -> Result<Result<Output, String>, EngineError> {
    let site = Site { machine, residents: &Residents::default(), holder: "self-test" };
    match lower::run(site, program, inputs, &mut SearchStats::default()).await {
        Ok(mut outputs) => {
            let Some(mut output) = outputs.pop() else { return Ok(Err("no answer".to_owned())) };
            machine.context.faults.spoil(case.verb(), machine.caps(case.verb()).subgroups, &mut output);
            Ok(Ok(output))
        }
        // A text that the driver does not compile is a kernel that does not work, not a device that does not.
        Err(EngineError::Driver(message)) => Ok(Err(message)),
        Err(error) => Err(error),
    }
}

/// Runs a case.
pub(super) fn prove(machine: &Machine, metric: Metric, dtype: DType, case: Case) -> Proving<'_> {
    Box::pin(run(machine, metric, dtype, case))
}

/// Runs a case. The outer error is the device's, the inner one says what was wrong with the answer.
async fn run(machine: &Machine, metric: Metric, dtype: DType, case: Case) -> Result<Verdict, EngineError> {
    let queries = case.few_queries(metric, dtype, &machine.caps(case.verb()));
    if let Case::Screened { unit: Unit::Codes, keep, .. } = case {
        return codes::test(machine, case, queries, keep).await;
    }
    if let Case::Scan { form, single } = case {
        return scan::test(machine, metric, form, single).await;
    }
    if let Case::Matmul { transposed } = case {
        return matmul::test(machine, transposed).await;
    }
    if let Case::SegmentSum = case {
        return segment_sum::test(machine).await;
    }
    let data = Data::new(metric, dtype, queries);
    let batch = |mask| Batch {
        metric,
        rows: Vectors { rows: data.rows(), norms: Some(&data.row_norms), tag: None },
        queries: Vectors { rows: data.query_rows(), norms: Some(&data.query_norms), tag: None },
        mask,
        codes: None,
    };
    let (masked, plain) = (batch(Some(data.mask())), batch(None));
    let screen = |screen, keep| masked.one(|pairs, _| Search { pairs, screen, keep, codes: None, wanted: None });
    let (program, inputs) = match case {
        Case::Search { keep, .. } => (screen(Screen::None, keep)?, masked.inputs()),
        Case::Screened { unit, keep, .. } => {
            let of = if unit == Unit::F32 { Screen::F32 } else { Screen::F16 };
            (screen(of, keep.min(ROWS))?, masked.inputs())
        }
        Case::Distance { .. } => (plain.one(|pairs, _| Distance { pairs })?, plain.inputs()),
        Case::Assign { .. } => (masked.one(|pairs, _| Assign { pairs, codes: None, known: None })?, masked.inputs()),
        Case::Range { .. } => (masked.one(|pairs, _| Range { pairs, key: data.radius() })?, masked.inputs()),
        Case::Refine => {
            let given = Input::Positions { positions: &data.candidates, width: CANDIDATES };
            let mut program = Program::new();
            let (pairs, _) = plain.declare(&mut program)?;
            let candidates = program.input(given.ty()?);
            let refined = program.push(Refine { pairs, candidates })?;
            program.output(refined);
            let mut inputs = plain.inputs();
            inputs.push(given);
            (program, inputs)
        }
        Case::Select => {
            let input = Input::Matrix { values: &data.matrix, shape: [data.queries, ROWS] };
            let mut program = Program::new();
            let from = program.input(input.ty()?);
            let best = program.push(SelectK { from, k: 9 })?;
            program.output(best);
            (program, vec![input])
        }
        Case::Normalize { norm } => {
            let mut program = Program::new();
            let input = Input::Vectors(plain.rows);
            let rows = program.input(input.ty()?);
            let normalized = program.push(Normalize { norm, rows })?;
            program.output(normalized);
            (program, vec![input])
        }
        Case::Scan { .. } | Case::Matmul { .. } | Case::SegmentSum => {
            return Ok(Err("it has a case of its own".to_owned()));
        }
    };
    let output = match answer(machine, case, &program, &inputs).await? {
        Ok(output) => output,
        Err(refused) => return Ok(Err(refused)),
    };
    Ok(match (case, output) {
        (Case::Search { keep, .. }, Output::Candidates(c)) => data.check_nearest(&c, keep),
        (Case::Screened { unit: Unit::F32, keep, .. }, Output::Candidates(c)) => data.check_screen(&c, keep.min(ROWS)),
        (Case::Screened { .. }, Output::Candidates(c)) => data.check_halves(&c),
        (Case::Assign { .. }, Output::Candidates(c)) => data.check_nearest(&c, 1),
        (Case::Distance { .. }, Output::Matrix(keys)) => data.check_matrix(&keys),
        (Case::Range { .. }, Output::Range { offsets, keys, positions }) => {
            data.check_range(&offsets, &keys, &positions)
        }
        (Case::Refine, Output::Candidates(c)) => data.check_refined(&c),
        (Case::Select, Output::Candidates(c)) => data.check_selected(&c),
        (Case::Normalize { norm }, Output::Rows { rows, norms }) => data.check_normalized(norm, &rows, &norms),
        _ => Err("an answer of another kind".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Candidates;

    #[test]
    fn the_tiny_case_has_ties_zero_rows_and_forbidden_rows() {
        for dtype in DType::ALL.into_iter().filter(|dtype| !dtype.is_wide()) {
            let data = Data::new(if dtype == DType::Bits { Metric::Hamming } else { Metric::L2 }, dtype, 20);
            assert_eq!(data.rows().rows(), ROWS, "{dtype}");
            assert_eq!(data.rows().row_bytes(0), data.rows().row_bytes(ROWS - TWINS));
            assert!(data.rows().row_bytes(5).iter().all(|&b| b == 0));
            assert!(data.nearest(0).len() < ROWS && data.nearest(0).len() > ROWS / 2);
            let radius = f64::from(data.radius());
            let hits = data.exact.iter().filter(|&&key| key <= radius).count();
            assert!(hits > 100 && hits < data.exact.len(), "{dtype}: {hits} within {radius}");
        }
    }

    #[test]
    fn a_check_fails_when_one_key_is_wrong() {
        let data = Data::new(Metric::L2, DType::F32, 3);
        let mut keys: Vec<f32> = data.exact.iter().map(|&k| k as f32).collect();
        assert_eq!(data.check_matrix(&keys), Ok(()));
        keys[40] += 1e-3;
        assert!(data.check_matrix(&keys).is_err());
        let mut nearest = Candidates::empty(3, 10);
        for q in 0..3 {
            for (i, (key, r)) in data.nearest(q).into_iter().take(10).enumerate() {
                (nearest.keys[q * 10 + i], nearest.positions[q * 10 + i]) = (key as f32, r as u32);
            }
        }
        assert_eq!(data.check_nearest(&nearest, 10), Ok(()));
        nearest.positions.swap(0, 11);
        assert!(data.check_nearest(&nearest, 10).is_err());
    }
}
