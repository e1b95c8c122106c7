//! `host`: a step that the caller computes in host memory, wherever the rest of the program runs: the transform of
//! queries, their encoding, keys from better codes. It is part of the program, so that the whole is routed, costed and
//! printed as one.
//!
//! Shapes: whatever the caller says; the result has the type that was declared.

use std::fmt;
use std::time::Instant;

use super::{Cost, Define, Program, mismatch};
use crate::compute::{EngineError, Frame, Output, Type, Value};
use crate::stats::SearchStats;

/// A function of the caller, which is an input of the program.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// What it does, in a word: how it is printed, and the stage that its time counts to.
    pub what: &'static str,
    /// The function.
    pub function: Value,
    /// What it works on.
    pub operands: Vec<Value>,
    /// What it gives.
    pub gives: Type,
    /// What it costs.
    pub cost: Cost,
}

impl Host {
    /// Calls the function, and notes how long it took.
    ///
    /// # Errors
    /// Those of the function.
    pub fn call(&self, frame: &Frame<'_>, stats: &mut SearchStats) -> Result<Output, EngineError> {
        let started = Instant::now();
        let made = frame.function(self.function)?(frame, &self.operands, stats)?;
        stats.add_stage(self.what, started.elapsed(), false);
        Ok(made)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl Define for Host {
    const NAME: &'static str = "host";

    fn operands(&self, each: &mut dyn FnMut(Value)) {
        each(self.function);
        self.operands.iter().copied().for_each(each);
    }

    fn check(&self, program: &Program) -> Result<Type, EngineError> {
        if !matches!(program.ty(self.function)?, Type::Function) {
            return Err(mismatch(format!("{} is no host function", self.function)));
        }
        for &operand in &self.operands {
            program.ty(operand)?;
        }
        Ok(self.gives)
    }

    fn cost(&self, _program: &Program) -> Cost {
        self.cost
    }
}
