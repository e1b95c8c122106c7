//! From a [`Kernel`] and a [`Variant`] to the WGSL text that a device compiles.
//!
//! The text is put together from: `enable` lines, constants and codes printed from Rust, the `Params` struct and the
//! bindings printed from the kernel's tables, the pieces of `shaders/lib/` it names, and its own file. Constants and
//! structs are therefore typed once, here. Metric, element type and the like are override constants, which the
//! driver folds; only the use of subgroups changes the text.

use std::fmt::Write;

use super::Norm;
use super::search::screened::for_matrix_units;
use super::{Access, Kernel, Variant, registry};
use crate::types::{DType, Metric};

/// Pieces of `shaders/lib/`.
pub(super) mod lib {
    /// Rows as stored, four components at a time.
    pub const ROWS: &str =
        concat!(include_str!("../../shaders/lib/halves.wgsl"), include_str!("../../shaders/lib/rows.wgsl"));
    /// f16 as f32.
    pub const HALVES: &str = include_str!("../../shaders/lib/halves.wgsl");
    /// Items of a scan, and the selection from their keys.
    pub const SCAN: &str = include_str!("../../shaders/scan.wgsl");
    /// Logarithm and power with a known error.
    pub const MATH: &str = include_str!("../../shaders/lib/math.wgsl");
    /// The metrics: terms, sums and keys.
    pub const METRIC: &str = include_str!("../../shaders/lib/metric.wgsl");
    /// Keys in an order that integers have.
    pub const ORDER: &str = include_str!("../../shaders/lib/order.wgsl");
    /// Queries and rows of a tile, brought to workgroup memory.
    pub const LOAD: &str = include_str!("../../shaders/lib/load.wgsl");
    /// Tiles of queries and rows.
    pub const TILE: &str = concat!(
        include_str!("../../shaders/lib/allowed.wgsl"),
        include_str!("../../shaders/lib/pairs.wgsl"),
        include_str!("../../shaders/lib/tile.wgsl")
    );
    /// Queries and rows of a tile of 8 x 8 pairs per thread, brought to workgroup memory.
    pub const LOAD8: &str = include_str!("../../shaders/lib/load8.wgsl");
    /// What the lists of a screened search hold.
    pub const LIMITS: &str = include_str!("../../shaders/lib/limits.wgsl");
    /// The filter.
    pub const ALLOWED: &str = include_str!("../../shaders/lib/allowed.wgsl");
    /// Pairs that beat a limit go to a list.
    pub const OFFER: &str =
        concat!(include_str!("../../shaders/lib/allowed.wgsl"), include_str!("../../shaders/lib/offer.wgsl"));
    /// The smallest pairs of each query of a workgroup.
    pub const HEAP: &str = include_str!("../../shaders/lib/heap.wgsl");
    /// Lower bounds from codes and what was lost in them.
    pub const BOUND: &str =
        concat!(include_str!("../../shaders/lib/bound.wgsl"), include_str!("../../shaders/lib/row_terms.wgsl"));
    /// A histogram of digits.
    pub const TALLY: (&str, &str) =
        (include_str!("../../shaders/lib/tally.wgsl"), include_str!("../../shaders/lib/tally_subgroups.wgsl"));
    /// Places in a list, handed out to threads.
    pub const CLAIM: (&str, &str) =
        (include_str!("../../shaders/lib/claim.wgsl"), include_str!("../../shaders/lib/claim_subgroups.wgsl"));
}

/// The bits of a key that stands for nothing (a NaN that no kernel computes): in a matrix of keys, a pair that the mask
/// forbids.
pub const MISSING_KEY: u32 = 0x7fff_ffff;
/// The bits of the only NaN that kernels compute.
pub const NAN: u32 = 0x7fc0_0000;
/// The bits of +inf.
pub const INFINITY: u32 = 0x7f80_0000;
/// The position of a place that is not filled.
pub const NO_POSITION: u32 = u32::MAX;

/// How the parameters of a launch reach the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParamsIn {
    /// `var<immediate>`: needs `wgpu::Features::IMMEDIATES` and room for the struct.
    Immediate,
    /// A uniform buffer at `@group(1) @binding(0)`.
    Uniform,
}

/// Who compiles the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// naga, which knows subgroups without `enable` and does not know `enable subgroups`.
    Naga,
    /// A browser, or Tint.
    Web,
}

/// The number a shader knows a metric by: its place in the table of names.
pub fn metric_code(metric: Metric) -> u32 {
    match metric {
        Metric::L2 => 0,
        Metric::InnerProduct => 1,
        Metric::Cosine => 2,
        Metric::L1 => 3,
        Metric::Linf => 4,
        Metric::Lp(_) => 5,
        Metric::Canberra => 6,
        Metric::BrayCurtis => 7,
        Metric::JensenShannon => 8,
        Metric::Jaccard => 9,
        Metric::Hamming => 10,
    }
}

/// The number a shader knows an element type by: its place in the table of names.
pub fn dtype_code(dtype: DType) -> u32 {
    DTYPES.iter().position(|known| known.1 == dtype).map_or(0, |place| place as u32)
}

/// The number a shader knows a norm by: its place in the table of names.
pub fn norm_code(norm: Norm) -> u32 {
    match norm {
        Norm::L2 => 0,
        Norm::L1 => 1,
        Norm::Max => 2,
    }
}

const METRICS: [(&str, Metric); 11] = [
    ("L2", Metric::L2),
    ("INNER_PRODUCT", Metric::InnerProduct),
    ("COSINE", Metric::Cosine),
    ("L1", Metric::L1),
    ("LINF", Metric::Linf),
    ("LP", Metric::Lp(1.0)),
    ("CANBERRA", Metric::Canberra),
    ("BRAY_CURTIS", Metric::BrayCurtis),
    ("JENSEN_SHANNON", Metric::JensenShannon),
    ("JACCARD", Metric::Jaccard),
    ("HAMMING", Metric::Hamming),
];
const DTYPES: [(&str, DType); 6] = [
    ("F32", DType::F32),
    ("F16", DType::F16),
    ("BF16", DType::Bf16),
    ("I8", DType::I8),
    ("U8", DType::U8),
    ("BITS", DType::Bits),
];
const NORMS: [(&str, Norm); 3] = [("NORM_L2", Norm::L2), ("NORM_L1", Norm::L1), ("NORM_MAX", Norm::Max)];

/// The whole text of a kernel.
pub fn compose(kernel: &Kernel, variant: Variant, params: ParamsIn, target: Target) -> String {
    let mut text = String::new();
    if for_matrix_units(kernel) {
        text.push_str("enable f16;\nenable wgpu_cooperative_matrix;\n");
    }
    if target == Target::Web && variant.subgroups {
        text.push_str("enable subgroups;\n");
    }
    constants(&mut text);
    declarations(&mut text, kernel, params);
    let pairs = kernel.pairs.iter().map(|(plain, subgroups)| if variant.subgroups { subgroups } else { plain });
    for piece in kernel.libs.iter().chain(pairs) {
        text.push_str(piece);
    }
    text.push_str(kernel.wgsl);
    text
}

fn constants(text: &mut String) {
    let mut line = |name: &str, value: u32| _ = writeln!(text, "const {name} = {value}u;");
    METRICS.iter().enumerate().for_each(|(i, (name, _))| line(name, i as u32));
    DTYPES.iter().enumerate().for_each(|(i, (name, _))| line(name, i as u32));
    NORMS.iter().enumerate().for_each(|(i, (name, _))| line(name, i as u32));
    line("MISSING_KEY", MISSING_KEY);
    line("NAN", NAN);
    line("INFINITY", INFINITY);
    line("NO_POSITION", NO_POSITION);
    line("GROUP", super::codes::GROUP as u32);
    line("SCAN_ROWS", super::scan::ITEM_ROWS);
}

fn declarations(text: &mut String, kernel: &Kernel, params: ParamsIn) {
    // Overrides come before every array that one of them sizes: naga 30 panics otherwise.
    let shape = kernel.shapes.first().into_iter().flat_map(|shape| shape.iter().copied());
    let others = kernel.overrides.iter().map(|(name, values)| (*name, values.first().copied().unwrap_or(0.0)));
    for (name, default) in shape.chain(others) {
        _ = writeln!(text, "override {name}: u32 = {default}u;");
    }
    text.push_str("struct Params {\n");
    for (name, ty) in kernel.params {
        _ = writeln!(text, "    {name}: {ty},");
    }
    text.push_str("}\n");
    text.push_str(match params {
        ParamsIn::Immediate => "var<immediate> p: Params;\n",
        ParamsIn::Uniform => "@group(1) @binding(0) var<uniform> p: Params;\n",
    });
    for (i, b) in bindings(kernel).iter().enumerate() {
        let access = match b.access {
            Access::Read => "read",
            Access::ReadWrite => "read_write",
        };
        _ = writeln!(text, "@group(0) @binding({i}) var<storage, {access}> {}: {};", b.name, b.ty);
    }
}

/// A file with several entry points declares the buffers of the one that has most; the others use the first of them.
fn bindings(kernel: &Kernel) -> &'static [super::Binding] {
    let same_file = registry().into_iter().filter(|k| k.wgsl == kernel.wgsl);
    same_file.map(|k| k.bindings).max_by_key(|b| b.len()).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_places_in_the_tables_of_names() {
        METRICS.iter().enumerate().for_each(|(i, (name, metric))| assert_eq!(metric_code(*metric), i as u32, "{name}"));
        DTYPES.iter().enumerate().for_each(|(i, (name, dtype))| assert_eq!(dtype_code(*dtype), i as u32, "{name}"));
        NORMS.iter().enumerate().for_each(|(i, (name, norm))| assert_eq!(norm_code(*norm), i as u32, "{name}"));
    }
}
