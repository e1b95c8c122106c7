//! Faults that tests inject. They are asked for in three places, none of which a run passes for each of its steps: where
//! a buffer is made, where a self-test has its answer, and where a run ends.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sync::lock;
use crate::compute::{Candidates, Output};

/// A fault to be injected, so that the ways out of it can be tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Every allocation of the next run fails.
    OutOfMemory,
    /// The device is destroyed now.
    Lost,
    /// Every kernel of this verb gives wrong answers from now on, in every variant.
    Wrong(&'static str),
    /// Only the variant with subgroup operations does.
    WrongSubgroups(&'static str),
}

/// Faults that wait to happen.
#[derive(Debug, Default)]
pub(super) struct Faults {
    out_of_memory: AtomicBool,
    wrong: Mutex<Vec<Fault>>,
}

impl Faults {
    /// Makes a fault happen at its next chance.
    pub(super) fn add(&self, fault: Fault) {
        match fault {
            Fault::OutOfMemory => self.out_of_memory.store(true, Ordering::Relaxed),
            wrong => lock(&self.wrong).push(wrong),
        }
    }

    /// Whether the allocation that is about to be made shall fail.
    pub(super) fn out_of_memory(&self) -> bool {
        self.out_of_memory.load(Ordering::Relaxed)
    }

    /// A run has ended: the next one has memory again.
    pub(super) fn end_of_run(&self) {
        self.out_of_memory.store(false, Ordering::Relaxed);
    }

    /// Whether any kernel shall give wrong answers.
    pub(super) fn spoils_some(&self) -> bool {
        !lock(&self.wrong).is_empty()
    }

    /// Whether this verb shall give wrong answers in this variant.
    pub(super) fn spoils(&self, verb: &str, subgroups: bool) -> bool {
        lock(&self.wrong).iter().any(|fault| match fault {
            Fault::Wrong(v) => *v == verb,
            Fault::WrongSubgroups(v) => *v == verb && subgroups,
            _ => false,
        })
    }

    /// Makes the answer of a self-test wrong if a test asked for that.
    pub(super) fn spoil(&self, verb: &str, subgroups: bool, output: &mut Output) {
        if self.spoils(verb, subgroups) {
            let keys = match output {
                Output::Candidates(Candidates { keys, .. })
                | Output::Matrix(keys)
                | Output::Range { keys, .. }
                | Output::Rows { norms: keys, .. }
                | Output::Projected { norms: keys, .. }
                | Output::Probes { offsets: keys, .. } => keys,
                Output::Prepared(_) | Output::Array(_) => return,
            };
            keys.iter_mut().step_by(3).for_each(|key| *key += 1.0);
        }
    }
}
