//! `normalize`: the norm of each row, and each row divided by it.
//!
//! Shapes: rows `[n, dim]` of any element type but bits, out rows `[n, dim]` f32 and norms `[n]` f32. A zero row stays
//! zero and its norm is 0. Error: each component within `(dim / 4 + 16) u` relative, u = 2^-24; no overflow or underflow
//! inside for any finite row (components are scaled by the largest first).

use std::fmt;

use super::source::{dtype_code, lib, norm_code};
use super::{Access, Binding, Cost, Define, DeviceCaps, Kernel, Launch, Program, Variant, distance, mismatch, tile};
use crate::compute::{EngineError, Type, Value};
use crate::types::{DType, RowsView};

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

/// Each row divided by its norm; gives rows and norms.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    /// By which norm.
    pub norm: Norm,
    /// The rows, anything but bits.
    pub rows: Value,
}

impl Normalize {
    fn shape(&self, program: &Program) -> Result<(DType, usize, usize), EngineError> {
        match *program.ty(self.rows)? {
            Type::Vectors { dtype: DType::Bits, .. } => Err(mismatch("rows of bits have no norm")),
            Type::Vectors { rows: 1.., dim: 0, .. } => Err(mismatch("rows without components have no norm")),
            Type::Vectors { dtype, rows, dim, .. } => Ok((dtype, rows, dim)),
            ref other => Err(mismatch(format!("{other} can't be normalised"))),
        }
    }
}

impl fmt::Display for Normalize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "normalize({})", self.norm)
    }
}

impl Define for Normalize {
    const NAME: &'static str = "normalize";

    fn operands(&self, each: &mut dyn FnMut(Value)) {
        each(self.rows);
    }

    fn check(&self, program: &Program) -> Result<Type, EngineError> {
        let (_, rows, dim) = self.shape(program)?;
        Ok(Type::Vectors { dtype: DType::F32, rows, dim, norms: true, cached: false })
    }

    fn cost(&self, program: &Program) -> Cost {
        self.shape(program).map(|(dtype, rows, dim)| cost(dtype, rows, dim)).unwrap_or_default()
    }
}

crate::params! {
    /// What `shaders/normalize.wgsl` reads.
    Params {
        /// First row of the bound shard.
        row_begin: u32,
        /// The row after the last.
        row_end: u32,
        /// Units of 16 bytes from row to row.
        row_stride: u32,
        /// Components per row.
        dim: u32,
    }
}

/// What one launch normalises.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// By which norm.
    pub norm: Norm,
    /// Of what the rows are made; anything but bits.
    pub dtype: DType,
    /// Components per row.
    pub dim: usize,
    /// Rows `row_begin..row_end` of the bound shard.
    pub row_begin: u32,
    /// See `row_begin`.
    pub row_end: u32,
}

/// Rows of a workgroup of `normalize`.
const ROWS: u32 = 4;

static NORMALIZE: Kernel = Kernel {
    verb: "normalize",
    entry: "normalize",
    wgsl: include_str!("../../shaders/normalize.wgsl"),
    libs: &[lib::ROWS],
    pairs: &[],
    bindings: &[
        distance::ROWS,
        Binding { name: "out", ty: "array<f32>", access: Access::ReadWrite },
        Binding { name: "norms", ty: "array<f32>", access: Access::ReadWrite },
    ],
    params: Params::FIELDS,
    variants: &[Variant::PLAIN],
    shapes: &[&[]],
    overrides: &[("NORM", &[0.0, 1.0, 2.0]), ("DTYPE", &[0.0, 1.0, 2.0, 3.0, 4.0])],
};

/// The entry points of `shaders/normalize.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![&NORMALIZE]
}

/// One launch: row r divided by its norm at `(r - row_begin) * dim` of the result, without gaps, and the norm at
/// `r - row_begin`. Buffers: rows, result, norms.
pub fn record(args: &Args, caps: &DeviceCaps) -> Launch {
    let params = Params {
        row_begin: args.row_begin,
        row_end: args.row_end,
        row_stride: tile::row_stride(args.dtype, args.dim),
        dim: args.dim as u32,
    };
    Launch {
        kernel: &NORMALIZE,
        variant: Variant::PLAIN,
        constants: vec![("NORM", norm_code(args.norm).into()), ("DTYPE", dtype_code(args.dtype).into())],
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: [(args.row_end - args.row_begin).div_ceil(ROWS).min(caps.max_groups), 1, 1],
    }
}

/// Rows are read twice (the second time from cache at best, which is what is counted) and written once.
pub fn cost(dtype: DType, rows: usize, dim: usize) -> Cost {
    let row_bytes = dtype.row_bytes(dim);
    let (n, dim) = (rows as f64, dim as f64);
    Cost {
        bytes_read: n * row_bytes as f64,
        bytes_written: n * (dim + 1.0) * 4.0,
        operations: n * dim * 4.0,
        launches: 1.0,
    }
}

/// (rows, norms) in f64.
pub fn reference(norm: Norm, rows: &RowsView<'_>) -> (Vec<f64>, Vec<f64>) {
    let (mut out, mut norms) = (Vec::new(), Vec::new());
    for r in 0..rows.rows() {
        let row = super::distance::row_f64(rows, r);
        let length = match norm {
            Norm::L2 => row.iter().map(|x| x * x).sum::<f64>().sqrt(),
            Norm::L1 => row.iter().map(|x| x.abs()).sum(),
            Norm::Max => row.iter().fold(0.0, |m: f64, x| m.max(x.abs())),
        };
        out.extend(row.iter().map(|x| if length == 0.0 { 0.0 } else { x / length }));
        norms.push(length);
    }
    (out, norms)
}
