//! `matmul`: a matrix product; operands and result may stay on the device.
//!
//! Shapes: a `[m, k]`, b `[k, n]` or, transposed, `[n, k]`; out `[m, n]`, all f32 row by row. Error: each number within
//! `(k + 2) u |a| |b|` of the exact product of its row and column, u = 2^-24, |.| Euclidean lengths, whatever the order of
//! summation; plus k times the smallest normal number, as devices may flush smaller ones to zero.

use std::fmt;

use super::{Access, Binding, Cost, Define, DeviceCaps, Kernel, Launch, Program, Variant, mismatch};
use crate::compute::{EngineError, Type, Value};

/// The product of two matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct Matmul {
    /// `[m, k]`.
    pub a: Value,
    /// `[k, n]`, or `[n, k]`.
    pub b: Value,
    /// Whether `b` lies by columns: then rows are multiplied with rows.
    pub transposed: bool,
}

/// Numbers of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows of a and of the result.
    pub rows: usize,
    /// Columns of a.
    pub inner: usize,
    /// Columns of the result.
    pub columns: usize,
}

impl Matmul {
    /// The sizes, by the operands' types.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] says what was found and wanted.
    pub fn sizes(&self, program: &Program) -> Result<Sizes, EngineError> {
        let (a, b) = (program.ty(self.a)?, program.ty(self.b)?);
        let (&Type::Matrix { rows, width: inner }, &Type::Matrix { rows: down, width: across }) = (a, b) else {
            return Err(mismatch(format!("{a} times {b}, wanted two matrices")));
        };
        let (of_b, columns) = if self.transposed { (across, down) } else { (down, across) };
        if of_b != inner {
            let which = if self.transposed { " transposed" } else { "" };
            return Err(mismatch(format!("{a} times {b}{which}: {inner} columns against {of_b} rows")));
        }
        let bytes = rows.checked_mul(columns).and_then(|n| n.checked_mul(4));
        match bytes {
            Some(_) if rows.max(columns).max(inner) <= u32::MAX as usize => Ok(Sizes { rows, inner, columns }),
            _ => Err(mismatch(format!("a product of {rows} x {columns} numbers"))),
        }
    }
}

impl fmt::Display for Matmul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.transposed { "matmul(b transposed)" } else { "matmul" })
    }
}

impl Define for Matmul {
    const NAME: &'static str = "matmul";

    fn operands(&self, each: &mut dyn FnMut(Value)) {
        [self.a, self.b].into_iter().for_each(each);
    }

    fn check(&self, program: &Program) -> Result<Type, EngineError> {
        let Sizes { rows, columns, .. } = self.sizes(program)?;
        Ok(Type::Matrix { rows, width: columns })
    }

    fn cost(&self, program: &Program) -> Cost {
        self.sizes(program).map(cost).unwrap_or_default()
    }
}

crate::params! {
    /// What `shaders/matmul.wgsl` reads.
    Params {
        /// First row of the result.
        row_begin: u32,
        /// The row after the last.
        row_end: u32,
        /// Columns of a.
        inner: u32,
        /// Columns of the result.
        columns: u32,
    }
}

/// What one launch multiplies.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// First row of the result.
    pub row_begin: u32,
    /// The row after the last.
    pub row_end: u32,
    /// Columns of a.
    pub inner: u32,
    /// Columns of the result.
    pub columns: u32,
    /// Whether b is `[n, k]`.
    pub transposed: bool,
}

/// Rows and columns of a workgroup.
pub const TILE: u32 = 64;

static MATMUL: Kernel = Kernel {
    verb: "matmul",
    entry: "matmul",
    wgsl: include_str!("../../shaders/matmul.wgsl"),
    libs: &[],
    pairs: &[],
    bindings: &[
        Binding { name: "a", ty: "array<f32>", access: Access::Read },
        Binding { name: "b", ty: "array<f32>", access: Access::Read },
        Binding { name: "out", ty: "array<f32>", access: Access::ReadWrite },
    ],
    params: Params::FIELDS,
    variants: &[Variant::PLAIN],
    shapes: &[&[]],
    overrides: &[("TRANSPOSED", &[0.0, 1.0])],
};

/// The entry points of `shaders/matmul.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![&MATMUL]
}

/// One launch: rows `row_begin..row_end` of the product, in their places. Buffers: a, b, out. At most
/// [`DeviceCaps::max_groups`] tiles of columns and of rows.
pub fn record(args: &Args, _caps: &DeviceCaps) -> Launch {
    let params = Params { row_begin: args.row_begin, row_end: args.row_end, inner: args.inner, columns: args.columns };
    Launch {
        kernel: &MATMUL,
        variant: Variant::PLAIN,
        constants: vec![("TRANSPOSED", if args.transposed { 1.0 } else { 0.0 })],
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: [args.columns.div_ceil(TILE), (args.row_end - args.row_begin).div_ceil(TILE), 1],
    }
}

/// Each number read and written once; a multiply-add is two operations.
pub fn cost(s: Sizes) -> Cost {
    let (m, k, n) = (s.rows as f64, s.inner as f64, s.columns as f64);
    Cost { bytes_read: 4.0 * k * (m + n), bytes_written: 4.0 * m * n, operations: 2.0 * m * k * n, launches: 1.0 }
}

/// The product in f64.
pub fn reference(s: Sizes, a: &[f32], b: &[f32], transposed: bool) -> Vec<f64> {
    let at = |d: usize, column: usize| if transposed { b[column * s.inner + d] } else { b[d * s.columns + column] };
    let mut out = Vec::with_capacity(s.rows * s.columns);
    for row in 0..s.rows {
        for column in 0..s.columns {
            let products = (0..s.inner).map(|d| f64::from(a[row * s.inner + d]) * f64::from(at(d, column)));
            out.push(products.sum());
        }
    }
    out
}

/// How far a number of the result may lie from the exact one, by the lengths of its row and its column.
pub fn tolerance(inner: usize, length_a: f64, length_b: f64) -> f64 {
    (inner as f64 + 2.0) * f64::powi(2.0, -24) * length_a * length_b + inner as f64 * f64::from(f32::MIN_POSITIVE)
}
