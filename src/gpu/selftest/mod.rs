//! A kernel proves itself on the device before it is trusted: on its first use in a variant, and for each pipeline (so
//! for each metric and element type), it runs a tiny case with ties, a zero row and forbidden rows, and is compared with
//! the reference of its verb. A variant with subgroups that fails gives way to the plain one; a plain one that fails is
//! disabled and named.

mod codes;
mod data;
mod scan;

use self::data::{CANDIDATES, Data};
use super::case::{CASE_ROWS as ROWS, Case};
use super::lower;
use super::machine::{Machine, Verdict};
use super::resident::Residents;
use crate::engine::{Base, EngineError, Input, Mask, Output, Task};
use crate::kernels::search::screened::Unit;
use crate::plan::{Plan, Problem, Screen, Step};
use crate::stats::SearchStats;
use crate::types::{DType, Metric};

/// Row r is the same as row r - TWIN for these many rows at the end.
const TWINS: usize = 100;

/// What the device gives for a task. A text that the driver does not compile is a kernel that does not work, not a device
/// that does not: that is the inner error.
fn answer(machine: &Machine, case: Case, task: &Task<'_>) -> Result<Result<Output, String>, EngineError> {
    match lower::run(machine, &Residents::default(), task, &mut SearchStats::default()) {
        Ok(mut output) => {
            machine.context.faults.spoil(case.verb(), machine.caps(case.verb()).subgroups, &mut output);
            Ok(Ok(output))
        }
        Err(EngineError::Driver(message)) => Ok(Err(message)),
        Err(error) => Err(error),
    }
}

/// Runs one case. The outer error is the device's, the inner one says what was wrong with the answer.
pub(super) fn prove(machine: &Machine, metric: Metric, dtype: DType, case: Case) -> Result<Verdict, EngineError> {
    let queries = case.few_queries(metric, dtype, &machine.caps(case.verb()));
    if let Case::Screened { unit: Unit::Codes, keep, .. } = case {
        return codes::test(machine, case, queries, keep);
    }
    if let Case::Scan { form, single } = case {
        return scan::test(machine, metric, form, single);
    }
    let data = Data::new(metric, dtype, queries);
    let run = |step: Step, input: Input<'_>, mask: Option<Mask<'_>>, rows: usize| {
        let problem = Problem { metric, dtype, dim: data.rows().dim(), rows, queries: data.queries };
        let plan = Plan::one(problem, step);
        let task = Task {
            plan: &plan,
            base: Base { rows: data.rows(), norms: Some(&data.row_norms), tag: None, codes: None },
            queries: data.query_rows(),
            query_norms: &data.query_norms,
            mask,
            input,
        };
        answer(machine, case, &task)
    };
    let output = match case {
        Case::Search { keep, .. } => {
            run(Step::Search { screen: Screen::None, keep }, Input::None, Some(data.mask()), ROWS)
        }
        Case::Screened { unit, keep, .. } => {
            let screen = if unit == Unit::F32 { Screen::F32 } else { Screen::F16 };
            run(Step::Search { screen, keep: keep.min(ROWS) }, Input::None, Some(data.mask()), ROWS)
        }
        Case::Distance { .. } => run(Step::Distance, Input::None, None, ROWS),
        Case::Assign { .. } => run(Step::Assign, Input::None, Some(data.mask()), ROWS),
        Case::Range { .. } => run(Step::Range { key: data.radius() }, Input::None, Some(data.mask()), ROWS),
        Case::Refine => {
            run(Step::Refine, Input::Positions { positions: &data.candidates, width: CANDIDATES }, None, ROWS)
        }
        Case::Select => run(Step::SelectK { k: 9 }, Input::Matrix(&data.matrix), None, ROWS),
        Case::Normalize { norm } => run(Step::Normalize { norm }, Input::None, None, ROWS),
        Case::Scan { .. } => Ok(Err("it has a case of its own".to_owned())),
    };
    let output = match output? {
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
    use crate::engine::Candidates;

    #[test]
    fn the_tiny_case_has_ties_zero_rows_and_forbidden_rows() {
        for dtype in DType::ALL {
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
