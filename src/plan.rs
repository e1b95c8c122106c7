//! What is to be done, before anybody does it: a [`Plan`] is a short list of [`Step`]s over one base and one
//! batch of queries. It can be printed, costed and tested without a device; an engine runs it.
//!
//! Every search has one shape: a *screen* proposes candidates with a proven lower bound of their distance,
//! `Refine` recomputes the candidates directly from the stored rows, `SelectK` keeps the k best. With
//! [`Screen::None`] the search itself is the direct pass and nothing has to be refined.

use std::fmt;
use std::str::FromStr;

use crate::kernels::lists::Form;
use crate::kernels::{self, Cost};
use crate::types::{DType, Metric};

/// The cheap pass in front of the direct one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Screen {
    /// No screen: the direct pass sees every row.
    #[default]
    None,
    /// f32 inner products and norms (l2 by expansion), with the bound of `docs/numerics.md`.
    F32,
    /// f16 inner products of the rows as they are, on matrix units where the device has them; an engine without f16
    /// arithmetic takes f32 instead.
    F16,
    /// 8-bit codes of each row's part in the principal subspace of the data ([`crate::kernels::codes`]).
    Int8,
}

impl fmt::Display for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Screen::None => "none",
            Screen::F32 => "f32",
            Screen::F16 => "f16",
            Screen::Int8 => "int8",
        })
    }
}

/// A screen that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown screen `{found}`; there are none, f32, f16, int8")]
pub struct UnknownScreen {
    /// What was given.
    pub found: String,
}

impl FromStr for Screen {
    type Err = UnknownScreen;

    fn from_str(text: &str) -> Result<Screen, UnknownScreen> {
        let all = [Screen::None, Screen::F32, Screen::F16, Screen::Int8];
        all.into_iter().find(|s| s.to_string() == text).ok_or_else(|| UnknownScreen { found: text.to_owned() })
    }
}

/// By what a row is divided when it is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Norm {
    /// Euclidean length.
    L2,
    /// Sum of magnitudes.
    L1,
    /// Largest magnitude.
    Max,
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Norm::L2 => "l2",
            Norm::L1 => "l1",
            Norm::Max => "max",
        })
    }
}

/// Shapes and types that every step of a plan shares.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(not(feature = "tooling"), non_exhaustive)]
pub struct Problem {
    /// How far apart two vectors are.
    pub metric: Metric,
    /// Element type of the stored rows. Queries are f32, or packed bits when this is [`DType::Bits`].
    pub dtype: DType,
    /// Components a row (bits for packed rows).
    pub dim: usize,
    /// Rows of the base.
    pub rows: usize,
    /// Queries of the batch.
    pub queries: usize,
}

/// One verb with its numbers. A new verb does not compile until both engines match it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(not(feature = "tooling"), non_exhaustive)]
pub enum Step {
    /// Divide each row of the base by its norm; gives rows and norms.
    Normalize {
        /// By which norm.
        norm: Norm,
    },
    /// All distances: gives a matrix `[queries, rows]` of keys.
    Distance,
    /// The `keep` rows with the smallest key (or lower bound of it) for each query: gives candidates. Behind
    /// [`Screen::Int8`] an engine may give more or fewer, with the bound that says what it left out.
    Search {
        /// What computes the keys.
        screen: Screen,
        /// Candidates kept a query, at least 1.
        keep: usize,
    },
    /// Recompute the keys of the candidates directly from the rows.
    Refine,
    /// The `k` smallest by (key, position) of the candidates, or of each row of the matrix.
    SelectK {
        /// How many to keep.
        k: usize,
    },
    /// The `keep` rows with the smallest keys in the probed lists of each query: gives candidates whose positions are
    /// slots of the lists.
    Scan {
        /// What the codes of the lists consist of.
        form: Form,
        /// Lists probed a query at most.
        probes: usize,
        /// Lists there are.
        lists: usize,
        /// Candidates kept a query, at least 1.
        keep: usize,
    },
    /// The nearest row of each query for [`Metric::L2`], inner product or cosine, as `Search` without a screen and with one
    /// place: gives candidates of width 1. Made for many queries (points) and few rows (centroids, f32).
    Assign,
    /// Every row whose key is at most `key`: gives compressed sparse rows.
    Range {
        /// The radius as an internal key (similarities negated).
        key: f32,
    },
}

impl Step {
    /// The verb's name: the stem of its files.
    pub fn verb(&self) -> &'static str {
        match self {
            Step::Normalize { .. } => "normalize",
            Step::Distance => "distance",
            Step::Search { .. } => "search",
            Step::Assign => "assign",
            Step::Refine => "refine",
            Step::SelectK { .. } => "select_k",
            Step::Scan { .. } => "scan",
            Step::Range { .. } => "range",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Normalize { norm } => write!(f, "normalize({norm})"),
            Step::Distance => write!(f, "distance"),
            Step::Search { screen, keep } => write!(f, "search(screen {screen}, keep {keep})"),
            Step::Assign => write!(f, "assign"),
            Step::Refine => write!(f, "refine"),
            Step::SelectK { k } => write!(f, "select_k({k})"),
            Step::Scan { form, probes, lists, keep } => {
                write!(f, "scan({form}, {probes} of {lists} lists, keep {keep})")
            }
            Step::Range { key } => write!(f, "range(key <= {key})"),
        }
    }
}

/// Steps over one base and one batch of queries.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(not(feature = "tooling"), non_exhaustive)]
pub struct Plan {
    /// What all steps share.
    pub problem: Problem,
    /// In the order in which they run; each takes what the one before it gave.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The k nearest rows of each query. With a screen a few more candidates are kept than asked for, so
    /// that the bound can prove that no other row belongs among the k.
    pub fn search(problem: Problem, k: usize, screen: Screen) -> Plan {
        let steps = match screen {
            Screen::None => vec![Step::Search { screen, keep: k }],
            Screen::F32 | Screen::F16 | Screen::Int8 => {
                let spare = if screen == Screen::F32 { (k / 4).max(8) } else { k.max(118) };
                let keep = (k + spare).min(problem.rows.max(1));
                vec![Step::Search { screen, keep }, Step::Refine, Step::SelectK { k }]
            }
        };
        Plan { problem, steps }
    }

    /// What the first step computes keys by; [`Screen::None`] when it is no search.
    pub fn screen(&self) -> Screen {
        match self.steps.first() {
            Some(Step::Search { screen, .. }) => *screen,
            _ => Screen::None,
        }
    }

    /// Every row within a radius, given as an internal key.
    pub fn range(problem: Problem, key: f32) -> Plan {
        Plan { problem, steps: vec![Step::Range { key }] }
    }

    /// A plan of one step.
    pub fn one(problem: Problem, step: Step) -> Plan {
        Plan { problem, steps: vec![step] }
    }

    /// The cost of every step, in order.
    pub fn costs(&self) -> Vec<Cost> {
        let mut width = self.problem.rows;
        self.steps
            .iter()
            .map(|step| {
                let cost = kernels::cost(&self.problem, step, width);
                match *step {
                    Step::Search { keep, .. } | Step::Scan { keep, .. } => width = keep,
                    Step::Assign => width = 1,
                    Step::SelectK { k } => width = k,
                    _ => {}
                }
                cost
            })
            .collect()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.steps.iter().enumerate() {
            write!(f, "{}{step}", if i == 0 { "" } else { " -> " })?;
        }
        Ok(())
    }
}
