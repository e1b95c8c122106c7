//! A suite that accepts everything proves nothing: every test must reject an engine that answers wrongly in one way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use nearfield::RowsView;
use nearfield::compute::{Answer, Backend, Candidates, Capabilities, EngineError, Input, Output, Pending, Vectors};
use nearfield::ops::distance::row_f64;
use nearfield::ops::{Op, Program};
use nearfield::stats::{Ceilings, SearchStats};

use crate::naive::Naive;
use crate::{Subject, distance, normalize, range, refine, scan, search, select_k, whole};

/// One way to be wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The last key (or component) is a thousandth too large.
    WrongKey,
    /// Two equal keys in the wrong order.
    TieOrder,
    /// The mask is ignored.
    ForbiddenRow,
    /// The best row of the first query is not found; the next ones are.
    MissingRow,
    /// Empty places name row 0.
    Padding,
    /// The last row is returned twice instead of the one before it.
    Repeated,
    /// Lower bounds a little too high.
    HighBound,
    /// Lower bounds that say nothing.
    LowBound,
    /// The bound promises more than was kept.
    Promise,
    /// A tag is taken for the rows themselves: the first rows seen are searched for ever.
    Stale,
    /// Another key each time.
    Restless,
    /// Shapes are ignored.
    Trusting,
    /// l2 keys as the expansion |a|^2 + |b|^2 - 2ab in f32 gives them.
    Expansion,
    /// Rows infinitely far are not found.
    FiniteOnly,
}

/// The references, spoilt in one way.
struct Broken {
    fault: Fault,
    runs: std::sync::atomic::AtomicU32,
}

impl Broken {
    fn corrupt(&self, inputs: &[Input<'_>], output: &mut Output) {
        if self.fault == Fault::WrongKey {
            let values = match output {
                Output::Candidates(c) => &mut c.keys,
                Output::Matrix(keys) | Output::Range { keys, .. } => keys,
                Output::Rows { rows, .. } | Output::Projected { rows, .. } => rows,
                Output::Probes { offsets, .. } => offsets,
                Output::Prepared(_) | Output::Array(_) => return,
            };
            if let Some(last) = values.iter_mut().rev().find(|x| x.is_finite()) {
                *last += last.abs() * 1e-3 + 1e-6;
            }
        }
        match output {
            Output::Candidates(c) => self.corrupt_candidates(c),
            Output::Matrix(keys) if self.fault == Fault::Expansion => *keys = expanded(inputs),
            Output::Range { keys, positions, .. } if self.fault == Fault::TieOrder => swap_tie(keys, positions),
            _ => {}
        }
    }

    fn corrupt_candidates(&self, c: &mut Candidates) {
        let screened = !c.bound.is_empty();
        match self.fault {
            Fault::TieOrder => swap_tie(&c.keys, &mut c.positions),
            Fault::Padding => c.positions.iter_mut().filter(|p| **p == u32::MAX).for_each(|p| *p = 0),
            Fault::FiniteOnly => {
                let far = c.keys.iter().zip(&mut c.positions).filter(|(key, _)| key.is_infinite());
                far.for_each(|(_, position)| *position = u32::MAX);
            }
            Fault::Repeated => {
                let filled = c.positions.iter().take(c.width).filter(|&&p| p != u32::MAX).count();
                if filled > 1 {
                    c.positions[filled - 2] = c.positions[filled - 1];
                    c.keys[filled - 2] = c.keys[filled - 1];
                }
            }
            Fault::HighBound if screened => {
                c.keys.iter_mut().chain(&mut c.bound).for_each(|key| *key += key.abs().max(1.0) * 1e-3)
            }
            Fault::LowBound if screened => {
                c.keys.iter_mut().chain(&mut c.bound).for_each(|key| *key -= key.abs().max(1.0) * 1e3)
            }
            Fault::Promise if screened => c.bound.iter_mut().for_each(|b| *b += b.abs() + 1.0),
            _ => {}
        }
    }
}

/// Swaps the positions of the first two neighbours in a list whose keys are equal.
fn swap_tie(keys: &[f32], positions: &mut [u32]) {
    let tie = (1..keys.len()).find(|&i| {
        let real = positions[i] != u32::MAX && positions[i - 1] < positions[i];
        keys[i] == keys[i - 1] && real
    });
    if let Some(i) = tie {
        positions.swap(i - 1, i);
    }
}

/// All l2 keys by expansion.
fn expanded(inputs: &[Input<'_>]) -> Vec<f32> {
    let [Input::Vectors(base), Input::Vectors(queries), ..] = inputs else { return Vec::new() };
    let rows = |rows: &RowsView<'_>| -> Vec<Vec<f32>> {
        (0..rows.rows()).map(|r| row_f64(rows, r).iter().map(|&x| x as f32).collect()).collect()
    };
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let (queries, base) = (rows(&queries.rows), rows(&base.rows));
    queries.iter().flat_map(|a| base.iter().map(move |b| dot(a, a) + dot(b, b) - 2.0 * dot(a, b))).collect()
}

fn best_of(output: &Output) -> Option<u32> {
    match output {
        Output::Candidates(c) => c.positions.first().copied().filter(|&p| p != u32::MAX),
        Output::Range { positions, offsets, .. } => positions.first().copied().filter(|_| offsets[1] > 0),
        _ => None,
    }
}

impl Broken {
    fn execute(&self, program: &Program, inputs: &[Input<'_>]) -> Result<Answer, EngineError> {
        let runs = self.runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let first = program.operations().next().map(|(_, op)| op);
        let search = matches!(first, Some(Op::Search(_) | Op::Range(_)));
        let right = Naive::default();
        let ask = |naive: Naive| naive.run(program, inputs).wait();
        let changed = match inputs.first() {
            Some(Input::Vectors(Vectors { tag: Some(tag), .. })) => tag.epoch() > 0,
            _ => false,
        };
        let mut answer = match self.fault {
            Fault::ForbiddenRow => ask(Naive { ignores_masks: true, ..right })?,
            Fault::MissingRow if search => {
                let answer = ask(right)?;
                match answer.outputs.first().and_then(best_of) {
                    None => answer,
                    hides => ask(Naive { hides, ..right })?,
                }
            }
            Fault::Stale if changed => ask(Naive { sees: Some(15), ..right })?,
            Fault::Trusting => ask(right).unwrap_or_else(|_| Answer {
                outputs: vec![Output::Matrix(Vec::new())],
                stats: SearchStats::default(),
            }),
            _ => ask(right)?,
        };
        for output in &mut answer.outputs {
            if let (Fault::Restless, Output::Candidates(c)) = (self.fault, &mut *output) {
                let keys = c.keys.iter_mut().take(runs as usize % 2);
                keys.for_each(|key| *key = f32::from_bits(key.to_bits() + 1));
            }
            self.corrupt(inputs, output);
        }
        Ok(answer)
    }
}

impl Backend<Op> for Broken {
    fn name(&self) -> String {
        format!("broken: {:?}", self.fault)
    }

    fn capabilities(&self) -> Capabilities {
        Naive::default().capabilities()
    }

    fn run<'a>(&'a self, program: &'a Program, inputs: &'a [Input<'a>]) -> Pending<'a> {
        Pending::done(self.execute(program, inputs))
    }

    fn ceilings(&self) -> Ceilings {
        Naive::default().ceilings()
    }
}

type Test = fn(&Subject);

/// Every one of the tests must fail on an engine with this fault, and say one of these words.
#[track_caller]
fn rejects(fault: Fault, words: &[&str], tests: &[(&str, Test)]) {
    for (name, test) in tests {
        let engine = Arc::new(Broken { fault, runs: Default::default() });
        let subject = Subject { engine, full: false };
        let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(&subject))) else {
            panic!("{name} accepts an engine with the fault {fault:?}");
        };
        let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(words.iter().any(|w| said.contains(w)), "{name} rejects {fault:?} for another reason: {said}");
    }
}

/// `tests![distance: row_a row_b; ...]`: functions with their names.
macro_rules! tests {
    ($($verb:ident: $($test:ident)+);+ $(;)?) => {
        &[$($((concat!(stringify!($verb), "::", stringify!($test)), $verb::$test as Test)),+),+]
    };
}

#[test]
fn a_wrong_key_is_rejected() {
    rejects(
        Fault::WrongKey,
        &["exactly", "should be", "equal", "exceeds", "outside"],
        tests![
            distance: row_b1_every_metric_at_every_dim row_b1_every_dtype row_b1_tiny_distances_of_large_rows
                row_b1_large_norms row_b1_nearly_equal_distributions row_b1_strided_rows row_e7_zero_rows row_e7_denormals;
            normalize: row_b2_every_norm row_b2_zero_huge_and_tiny_rows row_b2_other_dtypes;
            search: row_b4_every_k row_b4_tile_edges row_b4_every_metric row_b4_every_dtype row_b4_strided_rows
                row_b1_tiny_distances_of_large_rows row_e7_ties row_e7_duplicates row_e7_zero_rows
                row_b4_screened_search_is_exact;
            whole: row_b4_b5_b13_any_shape;
            select_k: row_b3_every_k row_b3_special_keys row_b3_equal_keys row_b3_after_distance;
            refine: row_b13_every_metric row_b13_holes_and_repeats;
            range: row_b5_every_metric row_b5_inclusive_radius;
            scan: row_c3_every_form row_c3_dims_at_word_edges row_c3_list_lengths row_c3_ties
        ],
    );
}

#[test]
fn a_wrong_order_of_ties_is_rejected() {
    rejects(
        Fault::TieOrder,
        &["order", "should be", "other ids"],
        tests![
            search: row_b4_every_k row_b4_tile_edges row_e7_ties row_e7_duplicates row_e7_orthogonal_rows_tie;
            select_k: row_b3_equal_keys row_b3_after_distance;
            range: row_b5_inclusive_radius;
            scan: row_c3_list_lengths row_c3_ties;
            whole: row_a1_same_ids_as_the_cpu
        ],
    );
}

#[test]
fn a_forbidden_row_is_rejected() {
    rejects(
        Fault::ForbiddenRow,
        &["forbidden", "should be"],
        tests![
            search: row_b4_filters row_b4_screen_with_filters;
            range: row_b5_filters;
            scan: row_c9_filters;
            whole: row_b4_b5_b13_any_shape
        ],
    );
}

#[test]
fn a_missing_row_is_rejected() {
    rejects(
        Fault::MissingRow,
        &["missing", "tie order", "other ids", "differ"],
        tests![
            search: row_b4_every_k row_b4_tile_edges row_b4_every_metric row_b4_every_dtype row_b4_filters row_e7_ties
                row_b4_screen_gives_lower_bounds row_b4_screened_search_is_exact;
            range: row_b5_every_metric row_b5_inclusive_radius row_b5_filters;
            whole: row_b4_b5_b13_any_shape row_a1_same_ids_as_the_cpu row_c1_appended_and_changed_rows_are_seen
                row_e4_concurrent_searches_agree
        ],
    );
}

#[test]
fn wrong_padding_and_repeated_rows_are_rejected() {
    let ends = ["empty place", "should be"];
    rejects(
        Fault::Padding,
        &ends,
        tests![
            search: row_b4_every_k row_b4_tile_edges row_e7_empty;
            select_k: row_e7_empty;
            scan: row_c3_every_keep row_e7_empty
        ],
    );
    rejects(
        Fault::Repeated,
        &["order", "twice", "should be"],
        tests![search: row_b4_every_k; select_k: row_b3_every_k; scan: row_c3_every_keep],
    );
}

#[test]
fn wrong_bounds_are_rejected() {
    let screen: &[(&str, Test)] = tests![search: row_b4_screen_gives_lower_bounds row_b4_screened_search_is_exact];
    rejects(Fault::HighBound, &["exceeds"], &screen[..1]);
    rejects(Fault::LowBound, &["far below"], screen);
    rejects(Fault::Promise, &["the bound is"], screen);
}

#[test]
fn cancelled_and_lost_distances_are_rejected() {
    rejects(Fault::Expansion, &["exactly"], tests![distance: row_b1_tiny_distances_of_large_rows]);
    rejects(Fault::FiniteOnly, &["missing"], tests![search: row_e7_overflowing_distances]);
}

#[test]
fn stale_restless_and_trusting_engines_are_rejected() {
    rejects(Fault::Stale, &["missing", "should be"], tests![whole: row_c1_appended_and_changed_rows_are_seen]);
    rejects(Fault::Restless, &["second time"], tests![whole: row_e6_same_bits_twice]);
    rejects(Fault::Trusting, &["another dim", "fewer"], tests![whole: wrong_shapes_are_errors]);
    rejects(Fault::Trusting, &["a list", "fewer"], tests![scan: wrong_shapes_are_errors]);
}
