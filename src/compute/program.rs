//! Programs: inputs, operations in single-assignment form, outputs. A program can be printed, costed and checked without a
//! device; what `explain` prints is the program that runs.

use std::fmt;

use super::codes::{Codes, QueryCodes};
use super::error::EngineError;
use super::lists::{Lists, Prepared, Probes};
use super::value::{Candidates, Function, Input, Known, Mask, Output, Tag, Type, Value, Vectors};
use crate::stats::Ceilings;
use crate::types::{MatrixView, RowsView};

/// Bytes and operations: what the hardware must do at least.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Bytes read from memory.
    pub bytes_read: f64,
    /// Bytes written to memory.
    pub bytes_written: f64,
    /// Arithmetic operations (a multiply-add is two).
    pub operations: f64,
    /// Kernel launches.
    pub launches: f64,
}

impl Cost {
    /// The least time a device with these ceilings needs.
    pub fn seconds(&self, c: &Ceilings) -> f64 {
        let memory = (self.bytes_read + self.bytes_written) / c.bytes_per_second;
        let arithmetic = self.operations / c.operations_per_second;
        memory.max(arithmetic) + self.launches * c.launch_seconds
    }
}

/// One operation of a program. The list of them is `ops::Op`.
pub trait Operation: fmt::Display + Sized {
    /// Its name: the stem of its files.
    fn name(&self) -> &'static str;

    /// Calls `each` with every value that it works on.
    fn operands(&self, each: &mut dyn FnMut(Value));

    /// The type of its result; an error where its operands do not fit together. The one place where shapes are checked.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] says what was found and wanted.
    fn check(&self, program: &Program<Self>) -> Result<Type, EngineError>;

    /// Compares what types do not tell, such as that positions name rows. Backends call it before they run the operation.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] says what was found and wanted.
    fn examine(&self, frame: &Frame<'_>) -> Result<(), EngineError>;

    /// What the hardware must do at least.
    fn cost(&self, program: &Program<Self>) -> Cost;
}

/// A value of a program: an input, or the result of an operation.
#[derive(Clone, Debug, PartialEq)]
struct Definition<O> {
    ty: Type,
    operation: Option<O>,
}

/// Where an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In host memory.
    Host,
    /// On the device, where it stays: an [`Array`](super::Array).
    Device,
}

/// Inputs, operations in single-assignment form, outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Program<O> {
    values: Vec<Definition<O>>,
    outputs: Vec<(Value, Place)>,
}

impl<O> Default for Program<O> {
    fn default() -> Program<O> {
        Program { values: Vec::new(), outputs: Vec::new() }
    }
}

impl<O: Operation> Program<O> {
    /// Nothing yet.
    pub fn new() -> Program<O> {
        Program::default()
    }

    /// Declares the next input.
    pub fn input(&mut self, ty: Type) -> Value {
        self.define(Definition { ty, operation: None })
    }

    /// Adds an operation over values that are there already; gives its result.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] when its operands do not fit together.
    pub fn push(&mut self, operation: impl Into<O>) -> Result<Value, EngineError> {
        let operation = operation.into();
        let ty = operation.check(self)?;
        Ok(self.define(Definition { ty, operation: Some(operation) }))
    }

    fn define(&mut self, definition: Definition<O>) -> Value {
        self.values.push(definition);
        Value(self.values.len() as u32 - 1)
    }

    /// Makes a value an answer of the program, in host memory.
    pub fn output(&mut self, value: Value) {
        self.outputs.push((value, Place::Host));
    }

    /// Makes a matrix an answer that stays on the device.
    pub fn keep(&mut self, value: Value) {
        self.outputs.push((value, Place::Device));
    }

    /// The answers, and where they are wanted.
    pub fn outputs(&self) -> &[(Value, Place)] {
        &self.outputs
    }

    /// Whether a value is an answer.
    pub fn is_output(&self, value: Value) -> bool {
        self.outputs.iter().any(|&(output, _)| output == value)
    }

    /// The type of a value.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] for a value of another program.
    pub fn ty(&self, value: Value) -> Result<&Type, EngineError> {
        let known = self.values.get(value.index()).map(|d| &d.ty);
        known.ok_or_else(|| EngineError::Mismatch(format!("{value} is defined nowhere before it is used")))
    }

    /// The operation that makes a value; none for an input.
    pub fn maker(&self, value: Value) -> Option<&O> {
        self.values.get(value.index())?.operation.as_ref()
    }

    /// The operations in the order in which they run, each with its result.
    pub fn operations(&self) -> impl DoubleEndedIterator<Item = (Value, &O)> {
        let results = self.values.iter().enumerate();
        results.filter_map(|(i, d)| d.operation.as_ref().map(|o| (Value(i as u32), o)))
    }

    /// The operation that uses a value, where only one does and the value is no answer: then the two may be run as one.
    pub fn only_user(&self, value: Value) -> Option<(Value, &O)> {
        if self.is_output(value) {
            return None;
        }
        let uses = |operation: &O| {
            let mut used = 0;
            operation.operands(&mut |operand| used += usize::from(operand == value));
            used
        };
        let mut users = self.operations().filter(|(_, o)| uses(o) > 0);
        let first = users.next()?;
        (users.next().is_none() && uses(first.1) == 1).then_some(first)
    }

    /// The cost of every operation, in order.
    pub fn costs(&self) -> Vec<Cost> {
        self.operations().map(|(_, o)| o.cost(self)).collect()
    }

    /// The values of a run over these inputs.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] when there are more or fewer than were declared, or one has another type.
    pub fn bind<'a>(&self, inputs: &[Input<'a>]) -> Result<Frame<'a>, EngineError> {
        let wrong = |what: String| Err(EngineError::Mismatch(what));
        let mut given = inputs.iter();
        let mut slots = Vec::with_capacity(self.values.len());
        for (i, definition) in self.values.iter().enumerate() {
            slots.push(match definition.operation {
                Some(_) => Slot::Empty,
                None => {
                    let Some(input) = given.next() else {
                        return wrong(format!("{} inputs, fewer than the program has", inputs.len()));
                    };
                    let (found, wanted) = (input.ty()?, definition.ty);
                    if found != wanted {
                        return wrong(format!("%{i} is declared as {wanted}, given {found}"));
                    }
                    Slot::Given(*input)
                }
            });
        }
        if given.next().is_some() {
            return wrong(format!("{} inputs, more than the program has", inputs.len()));
        }
        if self.outputs.is_empty() {
            return wrong("a program without an output".to_owned());
        }
        Ok(Frame { slots })
    }
}

/// In one line: the operations and their numbers. `{:#}`: every value on a line of its own.
impl<O: Operation> fmt::Display for Program<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            for (i, (_, operation)) in self.operations().enumerate() {
                write!(f, "{}{operation}", if i == 0 { "" } else { " -> " })?;
            }
            return Ok(());
        }
        for (i, definition) in self.values.iter().enumerate() {
            match &definition.operation {
                None => writeln!(f, "%{i}: {}", definition.ty)?,
                Some(operation) => {
                    write!(f, "%{i} = {operation} of ")?;
                    let (mut first, mut result) = (true, Ok(()));
                    operation.operands(&mut |operand| {
                        let comma = if std::mem::take(&mut first) { "" } else { ", " };
                        result = result.and_then(|()| write!(f, "{comma}{operand}"));
                    });
                    result?;
                    writeln!(f, ": {}", definition.ty)?;
                }
            }
        }
        f.write_str("gives ")?;
        for (i, (output, place)) in self.outputs.iter().enumerate() {
            let place = if *place == Place::Device { " on the device" } else { "" };
            write!(f, "{}{output}{place}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// What a value is during a run.
enum Slot<'a> {
    /// Not made yet, or made within a later operation.
    Empty,
    /// Computed within a later operation, and nowhere else.
    Within,
    Given(Input<'a>),
    Made(Output),
}

/// The values of a run.
pub struct Frame<'a> {
    slots: Vec<Slot<'a>>,
}

impl<'a> Frame<'a> {
    /// Keeps what an operation made.
    pub fn set(&mut self, value: Value, made: Output) {
        if let Some(slot) = self.slots.get_mut(value.index()) {
            *slot = Slot::Made(made);
        }
    }

    /// Notes that an operation runs within another one, so that its result is never there by itself.
    pub fn skip(&mut self, value: Value) {
        if let Some(slot @ Slot::Empty) = self.slots.get_mut(value.index()) {
            *slot = Slot::Within;
        }
    }

    /// Whether a value is there, or is never wanted by itself.
    pub fn has(&self, value: Value) -> bool {
        !matches!(self.slots.get(value.index()), None | Some(Slot::Empty))
    }

    /// What an operation made, where it may be taken for good.
    pub fn take(&mut self, value: Value) -> Option<Output> {
        let slot = self.slots.get_mut(value.index())?;
        match std::mem::replace(slot, Slot::Empty) {
            Slot::Made(made) => Some(made),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// The answers.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] when one was not made.
    pub fn finish(mut self, outputs: &[(Value, Place)]) -> Result<Vec<Output>, EngineError> {
        outputs.iter().map(|&(v, _)| self.take(v).ok_or_else(|| self.wrong(v, "a result"))).collect()
    }

    fn slot(&self, value: Value) -> &Slot<'a> {
        self.slots.get(value.index()).unwrap_or(&Slot::Empty)
    }

    fn wrong(&self, value: Value, wanted: &str) -> EngineError {
        let found = match self.slot(value) {
            Slot::Empty | Slot::Within => "nothing".to_owned(),
            Slot::Given(input) => input.ty().map_or_else(|e| e.to_string(), |ty| ty.to_string()),
            Slot::Made(_) => "another result".to_owned(),
        };
        EngineError::Mismatch(format!("{value}: found {found}, wanted {wanted}"))
    }

    /// Rows or queries. Vectors that an operation made are of `dim` components.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] when the value is something else; so for all that follow.
    pub fn vectors(&self, value: Value, dim: usize) -> Result<Vectors<'_>, EngineError> {
        match self.slot(value) {
            Slot::Given(Input::Vectors(vectors)) => Ok(*vectors),
            Slot::Made(Output::Rows { rows, norms }) => {
                let rows = MatrixView::new(rows, dim).map_err(|e| EngineError::Mismatch(e.to_string()))?;
                Ok(Vectors { rows: RowsView::F32(rows), norms: Some(norms), tag: None })
            }
            Slot::Made(Output::Projected { rows, norms, .. }) => {
                let known = (!norms.is_empty()).then_some(norms.as_slice());
                let rows = MatrixView::new(rows, dim).map_err(|e| EngineError::Mismatch(e.to_string()))?;
                Ok(Vectors { rows: RowsView::F32(rows), norms: known, tag: None })
            }
            _ => Err(self.wrong(value, "vectors")),
        }
    }

    /// What a projection dropped of each vector; nothing where it dropped nothing or there was none.
    pub fn lost(&self, value: Value) -> &[f32] {
        match self.slot(value) {
            Slot::Made(Output::Projected { lost, .. }) => lost,
            _ => &[],
        }
    }

    /// Which rows may be returned.
    #[allow(clippy::missing_errors_doc)]
    pub fn mask(&self, value: Value) -> Result<Mask<'_>, EngineError> {
        match self.slot(value) {
            Slot::Given(Input::Mask(mask)) => Ok(*mask),
            _ => Err(self.wrong(value, "a mask")),
        }
    }

    /// Positions and places per query.
    #[allow(clippy::missing_errors_doc)]
    pub fn positions(&self, value: Value) -> Result<(&[u32], usize), EngineError> {
        match self.slot(value) {
            Slot::Given(Input::Positions { positions, width }) => Ok((positions, *width)),
            Slot::Made(Output::Candidates(found)) => Ok((&found.positions, found.width)),
            _ => Err(self.wrong(value, "candidates")),
        }
    }

    /// Candidates with keys.
    #[allow(clippy::missing_errors_doc)]
    pub fn candidates(&self, value: Value) -> Result<&Candidates, EngineError> {
        match self.slot(value) {
            Slot::Made(Output::Candidates(found)) => Ok(found),
            _ => Err(self.wrong(value, "candidates with keys")),
        }
    }

    /// The values of a matrix in host memory.
    #[allow(clippy::missing_errors_doc)]
    pub fn matrix(&self, value: Value) -> Result<&[f32], EngineError> {
        match self.slot(value) {
            Slot::Given(Input::Matrix { values, .. }) => Ok(values),
            Slot::Made(Output::Matrix(values)) => Ok(values),
            _ => Err(self.wrong(value, "a matrix in host memory")),
        }
    }

    /// A matrix on the device, if it is one.
    pub fn array(&self, value: Value) -> Option<&super::Array> {
        match self.slot(value) {
            Slot::Given(Input::Array(array)) => Some(array),
            Slot::Made(Output::Array(array)) => Some(array),
            _ => None,
        }
    }

    /// Codes of rows and their name.
    #[allow(clippy::missing_errors_doc)]
    pub fn codes(&self, value: Value) -> Result<(&Codes, &Tag), EngineError> {
        match self.slot(value) {
            Slot::Given(Input::Codes(codes, tag)) => Ok((codes, tag)),
            _ => Err(self.wrong(value, "codes")),
        }
    }

    /// Queries in the code of rows.
    #[allow(clippy::missing_errors_doc)]
    pub fn query_codes(&self, value: Value) -> Result<&QueryCodes, EngineError> {
        match self.slot(value) {
            Slot::Given(Input::QueryCodes(queries)) => Ok(queries),
            _ => Err(self.wrong(value, "codes of queries")),
        }
    }

    /// Inverted lists and their name.
    #[allow(clippy::missing_errors_doc)]
    pub fn lists(&self, value: Value) -> Result<(&Lists, &Tag), EngineError> {
        match self.slot(value) {
            Slot::Given(Input::Lists(lists, tag)) => Ok((lists, tag)),
            _ => Err(self.wrong(value, "lists")),
        }
    }

    /// Queries as lists take them.
    #[allow(clippy::missing_errors_doc)]
    pub fn prepared(&self, value: Value) -> Result<&Prepared, EngineError> {
        match self.slot(value) {
            Slot::Given(Input::Prepared(prepared)) => Ok(prepared),
            Slot::Made(Output::Prepared(prepared)) => Ok(prepared),
            _ => Err(self.wrong(value, "prepared queries")),
        }
    }

    /// Which lists are scanned.
    #[allow(clippy::missing_errors_doc)]
    pub fn probes(&self, value: Value) -> Result<Probes<'_>, EngineError> {
        match self.slot(value) {
            Slot::Given(Input::Probes(probes)) => Ok(*probes),
            Slot::Made(Output::Probes { width, lists, offsets }) => Ok(Probes { width: *width, lists, offsets }),
            _ => Err(self.wrong(value, "probes")),
        }
    }

    /// What is known before an assignment.
    #[allow(clippy::missing_errors_doc)]
    pub fn known(&self, value: Value) -> Result<Known<'_>, EngineError> {
        match self.slot(value) {
            Slot::Given(Input::Known(known)) => Ok(*known),
            _ => Err(self.wrong(value, "what is known")),
        }
    }

    /// What a host operation computes.
    #[allow(clippy::missing_errors_doc)]
    pub fn function(&self, value: Value) -> Result<&'a Function<'a>, EngineError> {
        match self.slot(value) {
            Slot::Given(Input::Function(function)) => Ok(*function),
            _ => Err(self.wrong(value, "a host function")),
        }
    }
}
