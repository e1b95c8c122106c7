//! One file a verb: its contract, parameters, variants, launch geometry, cost and naive reference. No wgpu types.
//!
//! The parts of a file have a fixed order: what it computes, shapes and numeric error (module doc), `Params`,
//! `kernels()` and their variants, `record()`, `cost()`, `reference()`, tests. The WGSL lies in `shaders/<verb>.wgsl`.

pub mod assign;
pub mod codes;
pub mod distance;
pub mod lists;
pub mod metric;
pub mod normalize;
pub mod range;
pub mod refine;
pub mod scan;
pub mod search;
pub mod select_k;
pub mod source;
pub mod tile;
pub mod tuning;

use crate::plan::{Problem, Step};
use crate::stats::Ceilings;

/// Bytes and operations of a step: what the hardware must do at least.
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

/// The cost of a step; `width` is the number of candidates a query that the step before it left.
pub fn cost(problem: &Problem, step: &Step, width: usize) -> Cost {
    match *step {
        Step::Normalize { .. } => normalize::cost(problem),
        Step::Distance => distance::cost(problem),
        Step::Search { screen, keep } => search::cost(problem, screen, keep),
        Step::Assign => assign::cost(problem),
        Step::Refine => refine::cost(problem, width),
        Step::SelectK { k } => select_k::cost(problem, width, k),
        Step::Scan { form, probes, lists, keep } => {
            let share = probes.min(lists) as f64 / lists.max(1) as f64;
            let rows = problem.rows as f64 * problem.queries as f64 * share;
            scan::cost(form, problem.dim, rows, problem.queries, keep)
        }
        Step::Range { .. } => range::cost(problem),
    }
}

/// Bits that say which rows may be returned: row r of query q is allowed when bit r % 32 of
/// `words[q * stride + r / 32]` is set.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// The bits of all queries, or of one that stands for all.
    pub words: &'a [u32],
    /// Words from query to query; 0 when all queries share one bitmap.
    pub stride: usize,
}

impl Mask<'_> {
    /// Whether row `row` may be returned for query `query`.
    #[inline]
    pub fn allows(&self, query: usize, row: usize) -> bool {
        self.words[query * self.stride + row / 32] >> (row % 32) & 1 == 1
    }
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
        normalize::kernels(),
        range::kernels(),
        refine::kernels(),
        scan::kernels(),
        search::kernels(),
        select_k::kernels(),
    ]
    .concat()
}
