//! A kernel proves itself on the device before it is trusted: on its first use in a variant, and for each pipeline (so
//! for each metric and element type), it runs a tiny case with ties, a zero row and forbidden rows, and is compared with
//! the reference of its verb. A variant with subgroups that fails gives way to the plain one; a plain one that fails is
//! disabled and named.

mod codes;
mod data;
mod scan;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use self::data::{CANDIDATES, Data};
use super::lower;
use super::pipelines::Key;
use super::resident::Residents;
use super::submit::Machine;
use super::sync::lock;
use crate::engine::{Base, EngineError, Input, Mask, Output, Tag, Task};
use crate::kernels::lists::Form;
use crate::kernels::search::screened::Unit;
use crate::kernels::tuning::Tuning;
use crate::kernels::{self, DeviceCaps, Launch};
use crate::plan::{Norm, Plan, Problem, Screen, Step};
use crate::stats::SearchStats;
use crate::types::{DType, Metric};

/// The budget of a self-test, beside that of the engine for as long as it runs.
pub(super) const BYTES: u64 = 16 << 20;
/// Rows of the tiny case: more than a tile of any shape, and than a list of a self-test has room for.
const ROWS: usize = 1061;
/// Components: not a multiple of anything.
const DIM: usize = 19;
/// Numbers of queries to test with, some less and some more than tiles hold.
const FEW: [usize; 9] = [3, 5, 9, 17, 33, 65, 129, 257, 513];
/// Row r is the same as row r - TWIN for these many rows at the end.
const TWINS: usize = 100;

/// What is to be tested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Case {
    Search {
        keep: usize,
        queries: usize,
    },
    /// The search behind a screen in f32, in 8-bit codes, or in f16 on matrix units.
    Screened {
        unit: Unit,
        keep: usize,
        queries: usize,
    },
    Distance {
        queries: usize,
    },
    Assign {
        queries: usize,
    },
    Range {
        queries: usize,
    },
    Refine,
    Select,
    Normalize {
        norm: Norm,
    },
    /// Items of one query, or of several.
    Scan {
        form: Form,
        single: bool,
    },
}

impl Case {
    fn verb(self) -> &'static str {
        match self {
            Case::Search { .. } => "search",
            Case::Screened { unit, .. } => unit.kernel(),
            Case::Distance { .. } => "distance",
            Case::Assign { .. } => "assign",
            Case::Range { .. } => "range",
            Case::Refine => "refine",
            Case::Select => "select_k",
            Case::Normalize { .. } => "normalize",
            Case::Scan { .. } => "scan",
        }
    }

    /// Queries of the block that is to be computed; for kernels that have one shape for all, a few.
    fn queries(self) -> usize {
        match self {
            Case::Search { queries, .. }
            | Case::Screened { queries, .. }
            | Case::Distance { queries }
            | Case::Assign { queries }
            | Case::Range { queries } => queries,
            _ => 3,
        }
    }

    /// The fewest queries that take the same pipeline as those of the block.
    fn few_queries(self, metric: Metric, dtype: DType, caps: &DeviceCaps) -> usize {
        let key = |queries| Key::of(&self.probe(metric, dtype, queries, caps));
        let wanted = key(self.queries());
        FEW.into_iter().find(|&few| few >= self.queries() || key(few) == wanted).unwrap_or(FEW[FEW.len() - 1])
    }

    /// A launch with the pipeline that is tested.
    fn probe(self, metric: Metric, dtype: DType, queries: usize, caps: &DeviceCaps) -> Launch {
        let (row_end, q_end, dim) = (ROWS as u32, queries as u32, DIM);
        match self {
            Case::Search { keep, .. } => kernels::search::record(
                &kernels::search::Args {
                    metric,
                    dtype,
                    dim,
                    keep: keep as u32,
                    row_begin: 0,
                    row_end,
                    q_begin: 0,
                    q_end,
                    position_base: 0,
                    mask: None,
                    mask_row_base: 0,
                    part_base: 0,
                    parts_total: 1,
                },
                caps,
            ),
            Case::Screened { unit, .. } => codes::probe(unit, metric, dtype, queries, caps),
            Case::Distance { .. } => kernels::distance::record(
                &kernels::distance::Args {
                    metric,
                    dtype,
                    dim,
                    row_begin: 0,
                    row_end,
                    q_begin: 0,
                    q_end,
                    mask: None,
                    mask_row_base: 0,
                    out_stride: row_end,
                    out_offset: 0,
                },
                caps,
            ),
            Case::Assign { .. } => kernels::assign::record(
                &kernels::assign::Args {
                    metric,
                    dim,
                    row_begin: 0,
                    row_end,
                    q_begin: 0,
                    q_end,
                    position_base: 0,
                    mask: None,
                    mask_row_base: 0,
                    first: true,
                },
                caps,
            ),
            Case::Range { .. } => kernels::range::record_fill(
                &kernels::range::Args {
                    metric,
                    dtype,
                    dim,
                    key: 0.0,
                    row_begin: 0,
                    row_end,
                    q_begin: 0,
                    q_end,
                    position_base: 0,
                    mask: None,
                    mask_row_base: 0,
                    out_base: 0,
                },
                caps,
            ),
            Case::Refine => kernels::refine::record(
                &kernels::refine::Args {
                    metric,
                    dtype,
                    dim,
                    q_begin: 0,
                    q_end,
                    width: 1,
                    position_base: 0,
                    rows: row_end,
                    first: true,
                },
                caps,
            ),
            Case::Select => kernels::select_k::record(
                &kernels::select_k::Args {
                    segments: 1,
                    width: 1,
                    in_stride: 1,
                    out_stride: 1,
                    k: 1,
                    part_width: 1,
                    has_positions: false,
                    position_base: 0,
                    nan_is_missing: false,
                    limits: kernels::select_k::Limits::None,
                },
                caps,
            ),
            Case::Normalize { norm } => {
                kernels::normalize::record(&kernels::normalize::Args { norm, dtype, dim, row_begin: 0, row_end }, caps)
            }
            Case::Scan { form, single } => scan::probe(metric, form, single, caps),
        }
    }
}

/// What has been tested, and what came of it.
#[derive(Default)]
pub(super) struct Checks {
    done: Mutex<HashMap<Key, Result<(), String>>>,
    /// One test at a time.
    testing: Mutex<()>,
    run: AtomicU64,
}

impl Checks {
    /// How many tests were run.
    pub(super) fn run(&self) -> u64 {
        self.run.load(Ordering::Relaxed)
    }
}

/// Tests a case unless that has been done. Its pipeline may be used when this is `Ok`.
pub(super) fn ensure(machine: &Machine, metric: Metric, dtype: DType, case: Case) -> Result<(), EngineError> {
    let Some(checks) = &machine.checks else { return Ok(()) };
    let known = |key: &Key| {
        let done = lock(&checks.done).get(key).cloned();
        // An earlier process may have tested it; not for a device that a test has told to be wrong.
        let earlier = || !machine.context.faults.spoils_some() && machine.pipelines.known.passed(&key.to_string());
        done.or_else(|| earlier().then_some(Ok(())))
    };
    let key = |machine: &Machine| Key::of(&case.probe(metric, dtype, case.queries(), &machine.caps(case.verb())));
    let verdict = match known(&key(machine)) {
        Some(verdict) => verdict,
        None => {
            let _one = lock(&checks.testing);
            let mut verdict = known(&key(machine));
            if verdict.is_none() && machine.caps(case.verb()).subgroups && has_subgroups(metric, dtype, case) {
                verdict = Some(test(machine, metric, dtype, case)?);
                if matches!(verdict, Some(Err(_))) {
                    machine.use_plain(case.verb());
                    verdict = known(&key(machine));
                }
            }
            let verdict = match verdict {
                Some(verdict) => verdict,
                None => test(machine, metric, dtype, case)?,
            };
            lock(&checks.done).insert(key(machine), verdict.clone());
            if verdict.is_ok() {
                machine.pipelines.known.pass(key(machine).to_string());
            }
            verdict
        }
    };
    verdict.map_err(|detail| EngineError::Disabled { kernel: case.verb().to_owned(), detail })
}

/// Whether a kernel is another one with subgroups.
fn has_subgroups(metric: Metric, dtype: DType, case: Case) -> bool {
    let caps = every_cap();
    case.probe(metric, dtype, case.queries(), &caps).variant.subgroups
}

/// What a device with subgroups may do at least.
fn every_cap() -> DeviceCaps {
    DeviceCaps {
        subgroups: true,
        max_invocations: 256,
        workgroup_memory: 16384,
        max_groups: 65535,
        tuning: Tuning::DEFAULT,
    }
}

/// Runs one case. The outer error is the device's, the inner one says what was wrong with the answer.
fn test(machine: &Machine, metric: Metric, dtype: DType, case: Case) -> Result<Result<(), String>, EngineError> {
    if let Some(checks) = &machine.checks {
        checks.run.fetch_add(1, Ordering::Relaxed);
    }
    let machine = machine.for_test();
    let queries = case.few_queries(metric, dtype, &machine.caps(case.verb()));
    if let Case::Screened { unit: Unit::Codes, keep, .. } = case {
        return codes::test(&machine, queries, keep);
    }
    if let Case::Scan { form, single } = case {
        return scan::test(&machine, metric, form, single);
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
        lower::run(&machine, &Residents::default(), &task, &mut SearchStats::default())
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
        Case::Scan { .. } => return Ok(Err("it has a case of its own".to_owned())),
    };
    let output = match output {
        // A text that the driver does not compile is a kernel that does not work, not a device that does not.
        Err(EngineError::Driver(message)) => return Ok(Err(message)),
        other => other?,
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
    fn a_test_takes_the_pipeline_of_the_block_it_is_for() {
        let caps = every_cap();
        for queries in [1, 2, 3, 4, 5, 8, 9, 16, 17, 20, 32, 33, 40, 64, 65, 1000, 100_000] {
            for keep in [1, 32, 33, 64, 65, 128] {
                let search = Case::Search { keep, queries };
                let screened = Case::Screened { unit: Unit::F32, keep, queries };
                for case in [search, screened, Case::Distance { queries }, Case::Range { queries }] {
                    let key = |queries| Key::of(&case.probe(Metric::L2, DType::F32, queries, &caps));
                    let few = case.few_queries(Metric::L2, DType::F32, &caps);
                    assert_eq!(key(few), key(queries), "{case:?} by {few}");
                }
            }
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
