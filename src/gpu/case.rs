//! The cases of self-tests: which kernel is to prove itself, and the launch that has its pipeline.

use super::pipelines::Key;
use crate::ops::Norm;
use crate::ops::lists::Form;
use crate::ops::scan::Layout;
use crate::ops::search::few;
use crate::ops::search::screened::{self, Unit};
use crate::ops::tile::TileArgs;
use crate::ops::tuning::KernelTuning;
use crate::ops::{self, DeviceCaps, Launch};
use crate::types::{DType, Metric};

/// Rows of the tiny case: more than a tile of any shape, and than a list of a self-test has room for.
pub(super) const CASE_ROWS: usize = 1061;
/// Components: not a multiple of anything.
pub(super) const CASE_DIM: usize = 19;
/// Rows of codes: more than a list of a self-test has room for.
pub(super) const CODE_ROWS: usize = 1300;
/// Components of a code: not a whole number of tiles.
pub(super) const CODE_DIM: usize = 48;
/// Components of a code in a list: not a multiple of anything.
pub(super) const LIST_DIM: usize = 37;
/// Numbers of queries to test with, some less and some more than tiles hold.
const QUERY_COUNTS: [usize; 10] = [1, 3, 5, 9, 17, 33, 65, 129, 257, 513];

/// What is to be tested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Case {
    Search {
        keep: usize,
        queries: usize,
    },
    /// `segment_sum`.
    SegmentSum,
    /// The search behind a screen in f32, in 8-bit codes, or in f16 on matrix units.
    Screened {
        unit: Unit,
        keep: usize,
        queries: usize,
    },
    Distance {
        queries: usize,
    },
    Assign {
        queries: usize,
    },
    Range {
        queries: usize,
    },
    Refine,
    Select,
    Matmul {
        transposed: bool,
    },
    Normalize {
        norm: Norm,
    },
    /// Items of one query, or of several.
    Scan {
        form: Form,
        single: bool,
    },
}

impl Case {
    /// The verb whose kernel it is.
    pub(super) fn verb(self) -> &'static str {
        match self {
            Case::Search { .. } => "search",
            Case::Screened { unit, .. } => unit.kernel(),
            Case::Distance { .. } => "distance",
            Case::Assign { .. } => "assign",
            Case::Range { .. } => "range",
            Case::Refine => "refine",
            Case::Select => "select_k",
            Case::Matmul { .. } => "matmul",
            Case::SegmentSum => "segment_sum",
            Case::Normalize { .. } => "normalize",
            Case::Scan { .. } => "scan",
        }
    }

    /// Queries of the block that is to be computed; for kernels that have one shape for all, a few.
    pub(super) fn queries(self) -> usize {
        match self {
            Case::Search { queries, .. }
            | Case::Screened { queries, .. }
            | Case::Distance { queries }
            | Case::Assign { queries }
            | Case::Range { queries } => queries,
            _ => 3,
        }
    }

    /// The fewest queries that take the same pipeline as those of the block.
    pub(super) fn few_queries(self, metric: Metric, dtype: DType, caps: &DeviceCaps) -> usize {
        let key = |queries| Key::of(&self.probe(metric, dtype, queries, caps));
        let wanted = key(self.queries());
        QUERY_COUNTS
            .into_iter()
            .find(|&few| few >= self.queries() || key(few) == wanted)
            .unwrap_or(QUERY_COUNTS[QUERY_COUNTS.len() - 1])
    }

    /// A launch with the pipeline that is tested.
    pub(super) fn probe(self, metric: Metric, dtype: DType, queries: usize, caps: &DeviceCaps) -> Launch {
        let (row_end, q_end, dim) = (CASE_ROWS as u32, queries as u32, CASE_DIM);
        let tile = TileArgs {
            metric,
            dtype,
            dim,
            row_begin: 0,
            row_end,
            q_begin: 0,
            q_end,
            position_base: 0,
            mask: None,
            mask_row_base: 0,
        };
        match self {
            Case::Search { keep, .. } if few::fits(queries, keep) => few::record(&few::Args { tile }, caps),
            Case::Search { keep, .. } => {
                ops::search::record(&ops::search::Args { tile, keep: keep as u32, part_base: 0, parts_total: 1 }, caps)
            }
            Case::Screened { unit, .. } => probe_screened(unit, metric, dtype, queries, caps),
            Case::Distance { .. } => {
                ops::distance::record(&ops::distance::Args { tile, out_stride: row_end, out_offset: 0 }, caps)
            }
            Case::Assign { .. } => ops::assign::record(&ops::assign::Args { tile, first: true }, caps),
            Case::Range { .. } => ops::range::record_fill(&ops::range::Args { tile, key: 0.0, out_base: 0 }, caps),
            Case::Refine => ops::refine::record(
                &ops::refine::Args {
                    metric,
                    dtype,
                    dim,
                    q_begin: 0,
                    q_end,
                    width: 1,
                    position_base: 0,
                    rows: row_end,
                    first: true,
                },
                caps,
            ),
            Case::Select => ops::select_k::record(
                &ops::select_k::Args {
                    segments: 1,
                    width: 1,
                    in_stride: 1,
                    out_stride: 1,
                    k: 1,
                    part_width: 1,
                    has_positions: false,
                    position_base: 0,
                    nan_is_missing: false,
                    limits: ops::select_k::Limits::None,
                },
                caps,
            ),
            Case::Normalize { norm } => {
                ops::normalize::record(&ops::normalize::Args { norm, dtype, dim, row_begin: 0, row_end }, caps)
            }
            Case::Scan { form, single } => probe_scan(metric, form, single, caps),
            Case::SegmentSum => {
                let args = ops::segment_sum::Args { dim, piece_begin: 0, piece_end: 1 };
                ops::segment_sum::record(&args, caps)
            }
            Case::Matmul { transposed } => {
                let args = ops::matmul::Args { row_begin: 0, row_end: 1, inner: 1, columns: 1, transposed };
                ops::matmul::record(&args, caps)
            }
        }
    }

    /// Whether its kernel is another one with subgroups.
    pub(super) fn has_subgroups(self, metric: Metric, dtype: DType) -> bool {
        self.probe(metric, dtype, self.queries(), &every_cap()).variant.subgroups
    }
}

/// As [`Case::probe`], for the search behind a screen.
fn probe_screened(unit: Unit, metric: Metric, dtype: DType, queries: usize, caps: &DeviceCaps) -> Launch {
    let args = screened::Args {
        unit,
        metric,
        dtype,
        dim: CODE_DIM,
        row_begin: 0,
        row_end: CODE_ROWS as u32,
        tile_begin: 0,
        tile_end: 1,
        q_begin: 0,
        q_end: queries as u32,
        position_base: 0,
        mask: None,
        mask_row_base: 0,
        room: 1,
    };
    screened::record(&args, caps)
}

/// As [`Case::probe`], for the scan of lists.
fn probe_scan(metric: Metric, form: Form, single: bool, caps: &DeviceCaps) -> Launch {
    let layout = Layout { form, dim: LIST_DIM, add: false, scale: false };
    ops::scan::record(&ops::scan::Args { layout, metric, single, items: 0..1, keep: 1, places: 1, mask: None }, caps)
}

/// What a device with subgroups may do at least.
fn every_cap() -> DeviceCaps {
    DeviceCaps {
        subgroups: true,
        max_invocations: 256,
        workgroup_memory: 16384,
        max_groups: 65535,
        tuning: KernelTuning::DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_takes_the_pipeline_of_the_block_it_is_for() {
        let caps = every_cap();
        for queries in [1, 2, 3, 4, 5, 8, 9, 16, 17, 20, 32, 33, 40, 64, 65, 1000, 100_000] {
            for keep in [1, 32, 33, 64, 65, 128] {
                let search = Case::Search { keep, queries };
                let screened = Case::Screened { unit: Unit::F32, keep, queries };
                for case in [search, screened, Case::Distance { queries }, Case::Range { queries }] {
                    let key = |queries| Key::of(&case.probe(Metric::L2, DType::F32, queries, &caps));
                    let few = case.few_queries(Metric::L2, DType::F32, &caps);
                    assert_eq!(key(few), key(queries), "{case:?} by {few}");
                }
            }
        }
    }
}
