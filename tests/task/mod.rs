//! A run as tests describe it: steps over one base and one batch of queries. The one place where they become programs.
#![allow(dead_code)]

use std::fmt;

use nearfield::compute::{EngineError, Known, Mask, Output, Tag, Type, Vectors};
use nearfield::ops::lists::{Lists, Prepared, Probes};
use nearfield::ops::scan;
use nearfield::ops::{
    Assign, Distance, Engine, Norm, Normalize, Op, Pairs, Program, Range, Refine, Screen, Search, SelectK, search,
};
pub use nearfield::ops::{Coded, Extent as Problem};
use nearfield::stats::SearchStats;
use nearfield::{DType, RowsView};

/// One operation with its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    Normalize { norm: Norm },
    Distance,
    Search { screen: Screen, keep: usize },
    Refine,
    SelectK { k: usize },
    Scan { keep: usize },
    Assign,
    Range { key: f32 },
}

/// Steps over one base and one batch of queries, each of which takes what the one before it gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub problem: Problem,
    pub steps: Vec<Step>,
}

impl Plan {
    /// The search that an index would make.
    pub fn search(problem: Problem, k: usize, screen: Screen) -> Plan {
        let keep = search::kept(k, screen, problem.rows);
        let steps = match screen {
            Screen::None => vec![Step::Search { screen, keep }],
            _ => vec![Step::Search { screen, keep }, Step::Refine, Step::SelectK { k }],
        };
        Plan { problem, steps }
    }

    pub fn range(problem: Problem, key: f32) -> Plan {
        Plan::one(problem, Step::Range { key })
    }

    pub fn one(problem: Problem, step: Step) -> Plan {
        Plan { problem, steps: vec![step] }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.steps)
    }
}

/// Rows with their lengths and codes.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    pub rows: RowsView<'a>,
    pub norms: Option<&'a [f32]>,
    pub tag: Option<&'a Tag>,
    pub codes: Option<Coded<'a>>,
}

/// Lists and what is asked of them.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    pub lists: &'a Lists,
    pub tag: &'a Tag,
    pub queries: &'a Prepared,
    pub probes: Probes<'a>,
}

/// What the first step works on besides base and queries.
#[derive(Clone, Copy, Debug, Default)]
pub enum Input<'a> {
    #[default]
    None,
    Positions {
        positions: &'a [u32],
        width: usize,
    },
    Matrix(&'a [f32]),
    Lists(Listed<'a>),
    Known(Known<'a>),
}

/// A plan with its data.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    pub plan: &'a Plan,
    pub base: Base<'a>,
    pub queries: RowsView<'a>,
    pub query_norms: &'a [f32],
    pub mask: Option<Mask<'a>>,
    pub input: Input<'a>,
}

/// Where a program is being written.
struct Writer<'a> {
    program: Program,
    inputs: Vec<nearfield::compute::Input<'a>>,
}

impl<'a> Writer<'a> {
    fn input(&mut self, input: nearfield::compute::Input<'a>, ty: Type) -> nearfield::compute::Value {
        self.inputs.push(input);
        self.program.input(ty)
    }
}

impl<'a> Task<'a> {
    /// The program of these steps with its inputs.
    pub fn program(&self) -> Result<(Program, Vec<nearfield::compute::Input<'a>>), EngineError> {
        self.with(&self.plan.steps)
    }

    fn with(&self, steps: &[Step]) -> Result<(Program, Vec<nearfield::compute::Input<'a>>), EngineError> {
        use nearfield::compute::Input as Given;
        let p = &self.plan.problem;
        if let (Input::Lists(l), &[Step::Scan { keep }]) = (self.input, steps) {
            let (lists, tag, queries, probes) = (l.lists, l.tag, l.queries, l.probes);
            let listed = scan::Listed { metric: p.metric, lists, tag, queries, probes, mask: self.mask };
            return listed.program(keep);
        }
        let mut w = Writer { program: Program::new(), inputs: Vec::new() };
        let nothing = || EngineError::Mismatch("a step has nothing to work on".to_owned());
        let of_matrix = |matrix: &'a [f32]| Given::Matrix { values: matrix, shape: [p.queries, p.rows] };
        let mut last = None;
        if let (Input::Matrix(matrix), Some(Step::SelectK { .. })) = (self.input, steps.first()) {
            last = Some(w.input(of_matrix(matrix), Type::Matrix { rows: p.queries, width: p.rows }));
        }
        let needs_rows = !matches!(steps.first(), Some(Step::SelectK { .. }));
        let (mut pairs, mut codes) = (None, None);
        if needs_rows {
            let Base { rows, norms, tag, .. } = self.base;
            let ty = Type::Vectors {
                dtype: p.dtype,
                rows: p.rows,
                dim: p.dim,
                norms: norms.is_some(),
                cached: tag.is_some(),
            };
            let of_rows = w.input(Given::Vectors(Vectors { rows, norms, tag }), ty);
            if let Some(&Step::Normalize { norm }) = steps.first() {
                let result = w.program.push(Normalize { norm, rows: of_rows })?;
                w.program.output(result);
                return Ok((w.program, w.inputs));
            }
            let dtype = if p.dtype == DType::Bits { DType::Bits } else { self.queries.dtype() };
            let norms = (self.query_norms.len() == self.queries.rows()).then_some(self.query_norms);
            let ty = Type::Vectors { dtype, rows: p.queries, dim: p.dim, norms: norms.is_some(), cached: false };
            let of_queries = w.input(Given::Vectors(Vectors { rows: self.queries, norms, tag: None }), ty);
            let mask = match self.mask {
                None => None,
                Some(mask) => Some(w.input(Given::Mask(mask), Given::Mask(mask).ty()?)),
            };
            pairs = Some(Pairs { metric: p.metric, rows: of_rows, queries: of_queries, mask });
            if let Some(coded) = self.base.codes {
                let (of_rows, of_queries) = (Given::Codes(coded.codes, coded.tag), Given::QueryCodes(coded.queries));
                codes = Some([w.input(of_rows, of_rows.ty()?), w.input(of_queries, of_queries.ty()?)]);
            }
        }
        if let Input::Positions { positions, width } = self.input {
            let given = Given::Positions { positions, width };
            last = Some(w.input(given, given.ty()?));
        }
        let known = match self.input {
            Input::Known(known) => Some(w.input(Given::Known(known), Given::Known(known).ty()?)),
            _ => None,
        };
        for &step in steps {
            let with = || pairs.ok_or_else(nothing);
            let unmasked = || with().map(|pairs| Pairs { mask: None, ..pairs });
            let op: Op = match step {
                Step::Search { screen, keep } => Search { pairs: with()?, screen, keep, codes, wanted: None }.into(),
                Step::Assign => Assign { pairs: with()?, codes, known }.into(),
                Step::Range { key } => Range { pairs: with()?, key }.into(),
                Step::Distance => Distance { pairs: unmasked()? }.into(),
                Step::Refine => Refine { pairs: unmasked()?, candidates: last.ok_or_else(nothing)? }.into(),
                Step::SelectK { k } => SelectK { from: last.ok_or_else(nothing)?, k }.into(),
                Step::Normalize { .. } | Step::Scan { .. } => return Err(nothing()),
            };
            last = Some(w.program.push(op)?);
        }
        if let (Some(last), false) = (last, steps.is_empty()) {
            w.program.output(last);
        }
        Ok((w.program, w.inputs))
    }

    /// Runs the steps. What an engine refuses is asked for behind the next screen, and where there is no screen without
    /// one, as an index does.
    pub fn run(&self, engine: &Engine, stats: &mut SearchStats) -> Result<Output, EngineError> {
        let mut steps = self.plan.steps.clone();
        let p = &self.plan.problem;
        if let (Some(Step::Search { screen, .. }), true) =
            (steps.first_mut(), !search::screens(p.metric) || p.dtype == DType::Bits)
        {
            *screen = Screen::None;
        }
        loop {
            let (program, inputs) = self.with(&steps)?;
            let answer = nearfield::ops::run(engine, &program, &inputs, stats);
            let (Err(EngineError::Unsupported(_)), Some(&Step::Search { screen, keep })) = (&answer, steps.first())
            else {
                return answer;
            };
            let k = steps.iter().find_map(|s| if let Step::SelectK { k } = s { Some(*k) } else { None });
            let next = match screen {
                Screen::Int8 | Screen::F16 => Screen::F32,
                _ => Screen::None,
            };
            steps = match (next, k) {
                (Screen::None, k) => vec![Step::Search { screen: next, keep: k.unwrap_or(keep) }],
                (_, Some(k)) => Plan::search(self.plan.problem, k, next).steps,
                (_, None) => vec![Step::Search { screen: next, keep }],
            };
        }
    }
}
