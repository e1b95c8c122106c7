//! What operations share that compare queries with rows: their operands, the checks of these, and how much work they are.

use super::search::{self, Coded, Screen};
use super::{Op, Program, mismatch};
use crate::compute::{EngineError, Frame, Input, Mask, Tag, Type, Value, Vectors};
use crate::types::{DType, Metric, RowsView};

/// Queries against rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pairs {
    /// How far apart two vectors are.
    pub metric: Metric,
    /// The rows `[n, dim]`.
    pub rows: Value,
    /// The queries `[q, dim]`: f32, or packed bits when the rows are. For cosine already scaled to a length near 1.
    pub queries: Value,
    /// Which rows may be returned; all when absent.
    pub mask: Option<Value>,
}

/// Shapes and types of an operation over pairs, as its operands have them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Extent {
    /// How far apart two vectors are.
    pub metric: Metric,
    /// Element type of the rows.
    pub dtype: DType,
    /// Components per row (bits for packed rows).
    pub dim: usize,
    /// Rows.
    pub rows: usize,
    /// Queries.
    pub queries: usize,
}

impl Pairs {
    /// Calls `each` with every operand.
    pub fn operands(&self, each: &mut dyn FnMut(Value)) {
        each(self.rows);
        each(self.queries);
        self.mask.into_iter().for_each(each);
    }

    /// Whether both compare the same queries with the same rows.
    pub fn same_vectors(&self, other: &Pairs) -> bool {
        (self.metric, self.rows, self.queries) == (other.metric, other.rows, other.queries)
    }

    /// Shapes and types.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] where an operand is something else.
    pub fn extent(&self, program: &Program) -> Result<Extent, EngineError> {
        match (program.ty(self.rows)?, program.ty(self.queries)?) {
            (&Type::Vectors { dtype, rows, dim, .. }, &Type::Vectors { rows: queries, .. }) => {
                Ok(Extent { metric: self.metric, dtype, dim, rows, queries })
            }
            (rows, queries) => Err(mismatch(format!("{queries} can't be compared with {rows}, wanted vectors"))),
        }
    }

    /// Whether both sides have their lengths.
    pub fn has_norms(&self, program: &Program) -> bool {
        let known = |value| matches!(program.ty(value), Ok(Type::Vectors { norms: true, .. }));
        known(self.rows) && known(self.queries)
    }

    /// Compares the shapes, so that no index into them can be out of bounds.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] says what was found and wanted.
    pub fn check(&self, program: &Program) -> Result<Extent, EngineError> {
        let extent = self.extent(program)?;
        let Extent { metric, dtype, dim, rows, queries } = extent;
        let Type::Vectors { dtype: query_dtype, dim: query_dim, .. } = *program.ty(self.queries)? else {
            return Err(mismatch("queries that are no vectors"));
        };
        if rows >= u32::MAX as usize {
            return Err(mismatch(format!("{rows} rows; positions are 32 bits")));
        }
        if queries > 0 && rows > 0 && query_dim != dim {
            return Err(mismatch(format!("queries of {query_dim} components against rows of {dim}")));
        }
        if queries > 0 && rows > 0 && dim == 0 {
            return Err(mismatch("rows without components"));
        }
        let wanted = if dtype == DType::Bits { DType::Bits } else { DType::F32 };
        if queries > 0 && query_dtype != wanted {
            return Err(mismatch(format!("{query_dtype} queries for {dtype} rows, wanted {wanted}")));
        }
        if queries > 0 && !metric.supports(dtype) {
            return Err(mismatch(format!("{metric} is not defined on {dtype} rows")));
        }
        if metric == Metric::Cosine && queries > 0 && !self.has_norms(program) {
            return Err(mismatch("cosine needs the lengths of rows and queries"));
        }
        if let Some(mask) = self.mask {
            check_mask(program.ty(mask)?, queries, rows)?;
        }
        Ok(extent)
    }

    /// The operands of a run.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] where a value was not made.
    pub fn of<'a>(&self, frame: &'a Frame<'_>) -> Result<Compared<'a>, EngineError> {
        // Queries may have been made by an operation, rows have not.
        let base = frame.vectors(self.rows, 1)?;
        let queries = frame.vectors(self.queries, base.rows.dim())?;
        let mask = self.mask.map(|mask| frame.mask(mask)).transpose()?;
        Ok(Compared {
            metric: self.metric,
            base,
            queries: queries.rows,
            query_norms: queries.norms.unwrap_or(&[]),
            query_tag: queries.tag,
            mask,
        })
    }
}

/// Whether a mask has a bit for every row of every query.
fn check_mask(ty: &Type, queries: usize, rows: usize) -> Result<(), EngineError> {
    let Type::Mask { words, stride } = *ty else { return Err(mismatch(format!("{ty} is no mask"))) };
    let each = rows.div_ceil(32);
    let wanted = if queries == 0 { 0 } else { (queries - 1) * stride + each };
    if words < wanted || (stride != 0 && stride < each) {
        return Err(mismatch(format!("a mask of {words} words for {queries} queries x {rows} rows")));
    }
    Ok(())
}

/// The operands of [`Pairs`] in a run.
#[derive(Clone, Copy, Debug)]
pub struct Compared<'a> {
    /// How far apart two vectors are.
    pub metric: Metric,
    /// The rows.
    pub base: Vectors<'a>,
    /// The queries.
    pub queries: RowsView<'a>,
    /// Their lengths, where they are known.
    pub query_norms: &'a [f32],
    /// A name for the queries when they will be used again.
    pub query_tag: Option<&'a Tag>,
    /// Which rows may be returned; all when absent.
    pub mask: Option<Mask<'a>>,
}

impl Compared<'_> {
    /// Shapes and types.
    pub fn extent(&self) -> Extent {
        let rows = &self.base.rows;
        Extent {
            metric: self.metric,
            dtype: rows.dtype(),
            dim: rows.dim(),
            rows: rows.rows(),
            queries: self.queries.rows(),
        }
    }
}

/// The inputs of most programs: rows, a batch of queries, which rows count, and codes of both.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// How far apart two vectors are.
    pub metric: Metric,
    /// The rows.
    pub rows: Vectors<'a>,
    /// The queries.
    pub queries: Vectors<'a>,
    /// Which rows may be returned; all when absent.
    pub mask: Option<Mask<'a>>,
    /// Codes of the rows with their name, and the queries in that code.
    pub codes: Option<Coded<'a>>,
}

impl<'a> Batch<'a> {
    /// Declares the inputs: rows, queries, mask, codes.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] where the parts of an input do not fit together.
    pub fn declare(&self, program: &mut Program) -> Result<(Pairs, Option<[Value; 2]>), EngineError> {
        let rows = program.input(Input::Vectors(self.rows).ty()?);
        let queries = program.input(Input::Vectors(self.queries).ty()?);
        let mask = self.mask.map(|mask| Input::Mask(mask).ty()).transpose()?.map(|ty| program.input(ty));
        let codes = match self.codes {
            None => None,
            Some(coded) => {
                let codes = program.input(Input::Codes(coded.codes, coded.tag).ty()?);
                Some([codes, program.input(Input::QueryCodes(coded.queries).ty()?)])
            }
        };
        Ok((Pairs { metric: self.metric, rows, queries, mask }, codes))
    }

    /// The inputs in that order.
    pub fn inputs(&self) -> Vec<Input<'a>> {
        let mut inputs = Vec::with_capacity(6);
        inputs.extend([Input::Vectors(self.rows), Input::Vectors(self.queries)]);
        inputs.extend(self.mask.map(Input::Mask));
        if let Some(coded) = self.codes {
            inputs.extend([Input::Codes(coded.codes, coded.tag), Input::QueryCodes(coded.queries)]);
        }
        inputs
    }
}

impl Batch<'_> {
    /// The search for the k nearest rows of each query, as one program over [`Batch::inputs`].
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] where the parts do not fit together.
    pub fn nearest(&self, k: usize, screen: Screen) -> Result<Program, EngineError> {
        let mut program = Program::new();
        let (pairs, codes) = self.declare(&mut program)?;
        let found = search::nearest(&mut program, pairs, codes, k, screen)?;
        program.output(found);
        Ok(program)
    }

    /// A program of one operation over [`Batch::inputs`].
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] where the parts do not fit together.
    pub fn one<O: Into<Op>>(&self, op: impl FnOnce(Pairs, Option<[Value; 2]>) -> O) -> Result<Program, EngineError> {
        let mut program = Program::new();
        let (pairs, codes) = self.declare(&mut program)?;
        let result = program.push(op(pairs, codes))?;
        program.output(result);
        Ok(program)
    }
}

impl Extent {
    /// The search for the k nearest rows of each query of these shapes, to be costed and not to be run.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] where the metric is not defined on the rows, or has no such screen.
    pub fn nearest(&self, k: usize, screen: Screen) -> Result<Program, EngineError> {
        let mut program = Program::new();
        let pairs = self.declare(&mut program);
        let codes = (screen == Screen::Int8).then(|| {
            let dim = self.dim.next_multiple_of(16);
            let codes = program.input(Type::Codes { rows: self.rows, dim });
            [codes, program.input(Type::QueryCodes { queries: self.queries, dim })]
        });
        let found = search::nearest(&mut program, pairs, codes, k, screen)?;
        program.output(found);
        Ok(program)
    }

    /// Declares rows and queries of these shapes, with lengths; for programs that are costed and not run.
    pub fn declare(&self, program: &mut Program) -> Pairs {
        let query_dtype = if self.dtype == DType::Bits { DType::Bits } else { DType::F32 };
        let mut vectors =
            |dtype, rows, cached| program.input(Type::Vectors { dtype, rows, dim: self.dim, norms: true, cached });
        let rows = vectors(self.dtype, self.rows, true);
        let queries = vectors(query_dtype, self.queries, false);
        Pairs { metric: self.metric, rows, queries, mask: None }
    }
}
