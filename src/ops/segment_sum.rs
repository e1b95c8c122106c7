//! `segment_sum`: the sum of the rows of each segment, such as the points of each cluster.
//!
//! Shapes: rows `[n, dim]` f32, labels `[n, 1]` positions (`u32::MAX`: of no segment), out `[segments, dim]` f32. Error of a
//! number: [`tolerance`], whatever the order of summation. The same rows and labels give the same bits on one engine.

use std::fmt;

use super::{Access, Binding, Cost, Define, DeviceCaps, Kernel, Launch, Program, Variant, distance, mismatch, tile};
use crate::compute::{EngineError, Type, Value};
use crate::types::DType;

/// Sums of rows by label.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentSum {
    /// `[n, dim]` f32.
    pub rows: Value,
    /// `[n, 1]`: the segment of each row.
    pub labels: Value,
    /// How many segments there are.
    pub segments: usize,
}

/// Numbers of a sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Rows.
    pub rows: usize,
    /// Components per row.
    pub dim: usize,
    /// Segments.
    pub segments: usize,
}

impl SegmentSum {
    /// The sizes, by the operands' types.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] says what was found and wanted.
    pub fn sizes(&self, program: &Program) -> Result<Sizes, EngineError> {
        let (rows, labels) = (program.ty(self.rows)?, program.ty(self.labels)?);
        let &Type::Vectors { dtype: DType::F32, rows: n, dim, .. } = rows else {
            return Err(mismatch(format!("sums of {rows}, wanted f32 rows")));
        };
        match *labels {
            Type::Candidates { queries, width } if queries == n && (width == 1 || n == 0) => {}
            _ => return Err(mismatch(format!("{labels} as labels of {n} rows, wanted one for each"))),
        }
        match self.segments.checked_mul(dim).and_then(|numbers| numbers.checked_mul(4)) {
            Some(_) if self.segments < u32::MAX as usize => Ok(Sizes { rows: n, dim, segments: self.segments }),
            _ => Err(mismatch(format!("{} sums of {dim} numbers", self.segments))),
        }
    }
}

impl fmt::Display for SegmentSum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment_sum({} segments)", self.segments)
    }
}

impl Define for SegmentSum {
    const NAME: &'static str = "segment_sum";

    fn operands(&self, each: &mut dyn FnMut(Value)) {
        [self.rows, self.labels].into_iter().for_each(each);
    }

    fn check(&self, program: &Program) -> Result<Type, EngineError> {
        let Sizes { dim, segments, .. } = self.sizes(program)?;
        Ok(Type::Matrix { rows: segments, width: dim })
    }

    fn cost(&self, program: &Program) -> Cost {
        self.sizes(program).map(cost).unwrap_or_default()
    }
}

/// Rows in the order of their segments, in pieces that one workgroup sums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Rows that have a segment, segment by segment, each segment's in their order.
    pub order: Vec<u32>,
    /// Segment, first and last place in `order` of each piece.
    pub pieces: Vec<(u32, u32, u32)>,
}

/// Rows of a piece at most: enough that its sum is read back as a small part of what was read, few enough that segments of
/// any size keep a device busy.
pub const PIECE_ROWS: u32 = 256;

/// Sorts rows by label, in time for rows and segments.
///
/// # Errors
/// [`EngineError::Mismatch`] for a label past the last segment.
pub fn pieces(labels: &[u32], segments: usize) -> Result<Pieces, EngineError> {
    let mut next = vec![0u32; segments + 1];
    for (row, &label) in labels.iter().enumerate().filter(|(_, label)| **label != u32::MAX) {
        match next.get_mut(label as usize + 1) {
            Some(count) => *count += 1,
            None => return Err(mismatch(format!("row {row} is of segment {label}, of {segments}"))),
        }
    }
    for i in 1..next.len() {
        next[i] += next[i - 1];
    }
    let mut order = vec![0u32; next[segments] as usize];
    for (row, &label) in labels.iter().enumerate().filter(|(_, label)| **label != u32::MAX) {
        let place = &mut next[label as usize];
        order[*place as usize] = row as u32;
        *place += 1;
    }
    // By now each number is where its segment ends.
    let mut pieces = Vec::new();
    let mut begin = 0;
    for (segment, &end) in next[..segments].iter().enumerate() {
        for first in (begin..end).step_by(PIECE_ROWS as usize) {
            pieces.push((segment as u32, first, end.min(first + PIECE_ROWS)));
        }
        begin = end;
    }
    Ok(Pieces { order, pieces })
}

crate::params! {
    /// What `shaders/segment_sum.wgsl` reads.
    Params {
        /// First piece of the launch.
        piece_begin: u32,
        /// The piece after the last.
        piece_end: u32,
        /// Units of 16 bytes from row to row.
        row_stride: u32,
    }
}

/// What one launch sums.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Components per row.
    pub dim: usize,
    /// Pieces `piece_begin..piece_end` of those that are bound.
    pub piece_begin: u32,
    /// See `piece_begin`.
    pub piece_end: u32,
}

static SEGMENT_SUM: Kernel = Kernel {
    verb: "segment_sum",
    entry: "segment_sum",
    wgsl: include_str!("../../shaders/segment_sum.wgsl"),
    libs: &[],
    pairs: &[],
    bindings: &[
        distance::ROWS,
        Binding { name: "order", ty: "array<u32>", access: Access::Read },
        Binding { name: "pieces", ty: "array<vec2<u32>>", access: Access::Read },
        Binding { name: "out", ty: "array<vec4<f32>>", access: Access::ReadWrite },
    ],
    params: Params::FIELDS,
    variants: &[Variant::PLAIN],
    shapes: &[&[]],
    overrides: &[],
};

/// The entry points of `shaders/segment_sum.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![&SEGMENT_SUM]
}

/// One launch: the sum of each piece, in its place `[pieces, row_stride * 4]`. Buffers: rows, order, pieces (first and last
/// place in order), sums.
pub fn record(args: &Args, caps: &DeviceCaps) -> Launch {
    let params = Params {
        piece_begin: args.piece_begin,
        piece_end: args.piece_end,
        row_stride: tile::row_stride(DType::F32, args.dim),
    };
    Launch {
        kernel: &SEGMENT_SUM,
        variant: Variant::PLAIN,
        constants: Vec::new(),
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: [(args.piece_end - args.piece_begin).min(caps.max_groups), 1, 1],
    }
}

/// Each row read once, with its place and its label, each sum written once.
pub fn cost(s: Sizes) -> Cost {
    let (n, dim, segments) = (s.rows as f64, s.dim as f64, s.segments as f64);
    Cost { bytes_read: n * (dim * 4.0 + 8.0), bytes_written: segments * dim * 4.0, operations: n * dim, launches: 1.0 }
}

/// The sums in f64, and the sums of magnitudes, of `rows` one after the other.
pub fn reference(s: Sizes, rows: &[f32], labels: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let mut sums = vec![0.0; s.segments * s.dim];
    let mut magnitudes = sums.clone();
    for (row, &label) in rows.chunks_exact(s.dim.max(1)).zip(labels).filter(|(_, label)| **label != u32::MAX) {
        for (d, &x) in row.iter().enumerate() {
            sums[label as usize * s.dim + d] += f64::from(x);
            magnitudes[label as usize * s.dim + d] += f64::from(x).abs();
        }
    }
    (sums, magnitudes)
}

/// How far a number may lie from the exact one, by the sum of the magnitudes that it is the sum of: pieces are summed in f32,
/// their sums in f64.
pub fn tolerance(magnitudes: f64) -> f64 {
    f64::from(PIECE_ROWS + 2) * f64::powi(2.0, -24) * magnitudes + f64::from(PIECE_ROWS) * f64::from(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_hold_each_row_once_in_order() {
        let labels: Vec<u32> = (0..1000).map(|i| if i % 10 == 3 { u32::MAX } else { [0, 2, 2, 2][i % 4] }).collect();
        let Pieces { order, pieces } = pieces(&labels, 4).unwrap();
        assert_eq!(order.len(), 900);
        let mut seen = 0;
        for (segment, begin, end) in pieces {
            assert!(begin == seen && begin < end && end - begin <= PIECE_ROWS);
            let rows = &order[begin as usize..end as usize];
            assert!(rows.iter().all(|&r| labels[r as usize] == segment) && rows.is_sorted());
            seen = end;
        }
        assert_eq!(seen, 900);
        assert!(super::pieces(&[1, 0], 1).is_err());
        assert_eq!(super::pieces(&[], 3).unwrap(), Pieces::default());
    }
}
