//! One file per operation: its operands, their check, launch, cost and naive reference. No wgpu types.
//!
//! The parts of a file have a fixed order: what it computes, shapes and numeric error (module doc), the operation,
//! `Params`, `kernels()` and their variants, `record()`, `cost()`, `reference()`, tests. The WGSL lies in
//! `shaders/<operation>.wgsl`. [`Op`] is the list of all operations; both engines match it without a wildcard.

pub mod assign;
pub mod distance;
pub mod host;
pub mod matmul;
pub mod metric;
pub mod normalize;
pub mod pairs;
pub mod range;
pub mod refine;
pub mod scan;
pub mod search;
pub mod segment_sum;
pub mod select_k;
pub mod source;
pub mod tile;
pub mod tuning;

use std::fmt;

pub use self::assign::Assign;
pub use self::distance::Distance;
pub use self::host::Host;
pub use self::matmul::Matmul;
pub use self::normalize::{Norm, Normalize};
pub use self::pairs::{Batch, Compared, Extent, Pairs};
pub use self::range::Range;
pub use self::refine::Refine;
pub use self::scan::Scan;
pub use self::search::{Chain, Coded, Screen, Search, UnknownScreen};
pub use self::segment_sum::SegmentSum;
pub use self::select_k::SelectK;
use crate::compute::wait::block_on;
use crate::compute::{Backend, EngineError, Frame, Input, Operation, Output, Type, Value};
pub use crate::compute::{Cost, Mask};
pub use crate::compute::{codes, lists};
use crate::stats::SearchStats;
use crate::threads;

/// A program over the operations of this folder.
pub type Program = crate::compute::Program<Op>;

/// Defines [`Op`] from the operations: each a type of its own that implements [`Operation`].
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Every operation. A new one does not compile until both engines handle it.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Op { $($(#[$doc])* $name($name)),+ }

        impl Op {
            /// The name of every operation, which is the stem of its files.
            pub const NAMES: &'static [&'static str] = &[$(<$name as Define>::NAME),+];
        }

        impl Operation for Op {
            fn name(&self) -> &'static str {
                match self { $(Op::$name(op) => op.name()),+ }
            }

            fn operands(&self, each: &mut dyn FnMut(Value)) {
                match self { $(Op::$name(op) => op.operands(each)),+ }
            }

            fn check(&self, program: &Program) -> Result<Type, EngineError> {
                match self { $(Op::$name(op) => op.check(program)),+ }
            }

            fn examine(&self, frame: &Frame<'_>) -> Result<(), EngineError> {
                match self { $(Op::$name(op) => op.examine(frame)),+ }
            }

            fn cost(&self, program: &Program) -> Cost {
                match self { $(Op::$name(op) => op.cost(program)),+ }
            }
        }

        impl fmt::Display for Op {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Op::$name(op) => op.fmt(f)),+ }
            }
        }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Op {
                Op::$name(op)
            }
        })+
    };
}

operations! {
    /// The nearest row of each query.
    Assign,
    /// All keys.
    Distance,
    /// What the caller computes on the host.
    Host,
    /// A matrix product.
    Matmul,
    /// Rows divided by their norms.
    Normalize,
    /// Every row within a radius.
    Range,
    /// Direct keys of candidates.
    Refine,
    /// The best rows in probed lists.
    Scan,
    /// The best rows.
    Search,
    /// Sums of rows by label.
    SegmentSum,
    /// The k best of candidates or of rows of a matrix.
    SelectK,
}

/// What one operation adds to [`Op`], of which it is a part.
pub(crate) trait Define: fmt::Display {
    /// The stem of its files.
    const NAME: &'static str;

    /// See [`Operation::operands`].
    fn operands(&self, each: &mut dyn FnMut(Value));

    /// See [`Operation::check`].
    fn check(&self, program: &Program) -> Result<Type, EngineError>;

    /// See [`Operation::examine`].
    fn examine(&self, _frame: &Frame<'_>) -> Result<(), EngineError> {
        Ok(())
    }

    /// See [`Operation::cost`].
    fn cost(&self, program: &Program) -> Cost;

    /// [`Define::NAME`], callable on a value.
    fn name(&self) -> &'static str {
        Self::NAME
    }
}

/// A backend of programs over [`Op`].
pub type Engine = dyn Backend<Op>;

/// Runs a program that has one output, and adds what was done to `stats`.
///
/// # Errors
/// Those of the backend.
pub fn run(
    engine: &Engine,
    program: &Program,
    inputs: &[Input<'_>],
    stats: &mut SearchStats,
) -> Result<Output, EngineError> {
    block_on(running(engine, program, inputs, stats))
}

/// Runs a program; gives all of its outputs, and adds what was done to `stats`.
///
/// # Errors
/// Those of the backend.
pub fn run_all(
    engine: &Engine,
    program: &Program,
    inputs: &[Input<'_>],
    stats: &mut SearchStats,
) -> Result<Vec<Output>, EngineError> {
    block_on(running_all(engine, program, inputs, stats))
}

/// [`run`] as a future.
///
/// # Errors
/// Those of the backend.
pub async fn running(
    engine: &Engine,
    program: &Program,
    inputs: &[Input<'_>],
    stats: &mut SearchStats,
) -> Result<Output, EngineError> {
    let mut outputs = running_all(engine, program, inputs, stats).await?;
    outputs.pop().ok_or_else(|| mismatch("a program without an output"))
}

async fn running_all(
    engine: &Engine,
    program: &Program,
    inputs: &[Input<'_>],
    stats: &mut SearchStats,
) -> Result<Vec<Output>, EngineError> {
    threads::check()?;
    let answer = engine.run(program, inputs).await?;
    stats.absorb(answer.stats);
    Ok(answer.outputs)
}

pub(crate) fn mismatch(what: impl Into<String>) -> EngineError {
    EngineError::Mismatch(what.into())
}

/// Whether a kernel only reads a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`.
    Read,
    /// `var<storage, read_write>`.
    ReadWrite,
}

/// One storage buffer of a kernel; its place in the list is its `@binding`.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// The WGSL variable.
    pub name: &'static str,
    /// The WGSL type, e.g. `array<vec4<u32>>`.
    pub ty: &'static str,
    /// Read or written.
    pub access: Access,
}

/// The text-level choices of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    /// Uses subgroup operations.
    pub subgroups: bool,
}

impl Variant {
    /// Runs everywhere.
    pub const PLAIN: Variant = Variant { subgroups: false };
    /// Needs `wgpu::Features::SUBGROUP`.
    pub const SUBGROUPS: Variant = Variant { subgroups: true };
}

/// An entry point of a shader file, described once: the GPU engine makes pipelines from it, tests check it.
#[derive(Debug)]
pub struct Kernel {
    /// The verb: the stem of the shader file.
    pub verb: &'static str,
    /// The entry point.
    pub entry: &'static str,
    /// The text of `shaders/<verb>.wgsl`.
    pub wgsl: &'static str,
    /// Pieces of `shaders/lib/` that the text needs, in order.
    pub libs: &'static [&'static str],
    /// Pieces that exist twice: without and with subgroup operations.
    pub pairs: &'static [(&'static str, &'static str)],
    /// Storage buffers in the order of their `@binding(0..)` in `@group(0)`.
    pub bindings: &'static [Binding],
    /// Members of the `Params` struct: name and WGSL type (`u32` or `f32`).
    pub params: &'static [(&'static str, &'static str)],
    /// The variants there are, the plain one first.
    pub variants: &'static [Variant],
    /// The workgroup shapes there are: values that override constants take together.
    pub shapes: &'static [&'static [(&'static str, f64)]],
    /// Every other override constant with the values it takes (first: the default).
    pub overrides: &'static [(&'static str, &'static [f64])],
}

/// One dispatch without its buffers, which the engine supplies in the order of [`Kernel::bindings`].
#[derive(Clone, Debug)]
pub struct Launch {
    /// What runs.
    pub kernel: &'static Kernel,
    /// In which variant.
    pub variant: Variant,
    /// Values of override constants.
    pub constants: Vec<(&'static str, f64)>,
    /// The bytes of the `Params` struct.
    pub params: Vec<u8>,
    /// Workgroups in x, y and z; each at most 65,535.
    pub groups: [u32; 3],
}

/// What record() may count on. Read from the device, never assumed.
#[derive(Clone, Copy, Debug)]
pub struct DeviceCaps {
    /// Subgroup operations may be used.
    pub subgroups: bool,
    /// Most invocations of a workgroup.
    pub max_invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u32,
    /// Most workgroups in a dimension.
    pub max_groups: u32,
    /// Which shapes are fast here.
    pub tuning: tuning::KernelTuning,
}

/// Defines a `Params` struct once: `repr(C)` for the host, a list of fields for the WGSL prelude.
#[macro_export]
#[doc(hidden)]
macro_rules! params {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),+ }
        impl $name {
            /// Name and WGSL type of each member, in order.
            pub const FIELDS: &'static [(&'static str, &'static str)] = &[$((stringify!($field), stringify!($ty))),+];
        }
    };
}

/// Every kernel there is.
pub fn registry() -> Vec<&'static Kernel> {
    [
        assign::kernels(),
        distance::kernels(),
        matmul::kernels(),
        normalize::kernels(),
        range::kernels(),
        refine::kernels(),
        scan::kernels(),
        search::kernels(),
        segment_sum::kernels(),
        select_k::kernels(),
    ]
    .concat()
}
