//! `segment_sum`: sums in f64, a segment at a time.

use super::CpuEngine;
use crate::compute::{EngineError, room};
use crate::ops::segment_sum::{Sizes, pieces};
use crate::types::MatrixView;

/// Segments of an item.
const SEGMENTS_PER_ITEM: usize = 8;

impl CpuEngine {
    /// Sums `[segments, dim]` of rows by label.
    pub(super) fn segment_sum(
        &self,
        s: Sizes,
        rows: MatrixView<'_, f32>,
        labels: &[u32],
    ) -> Result<Vec<f32>, EngineError> {
        room(s.segments, s.dim, 4)?;
        let mut out = vec![0.0; s.segments * s.dim];
        if out.is_empty() {
            return Ok(out);
        }
        let sorted = pieces(labels, s.segments)?;
        let items = out.chunks_mut(SEGMENTS_PER_ITEM * s.dim).enumerate();
        let scratch = self.spread(
            self.workers(s.rows * s.dim),
            items,
            |_| {},
            |_, (i, out)| {
                let mut sums = vec![0.0f64; s.dim];
                for (segment, out) in (i * SEGMENTS_PER_ITEM..).zip(out.chunks_mut(s.dim)) {
                    sums.fill(0.0);
                    let first = sorted.pieces.partition_point(|piece| (piece.0 as usize) < segment);
                    let own = sorted.pieces[first..].iter().take_while(|piece| piece.0 as usize == segment);
                    for &row in own.flat_map(|&(_, begin, end)| &sorted.order[begin as usize..end as usize]) {
                        let row = rows.row(row as usize);
                        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
                    }
                    out.iter_mut().zip(&sums).for_each(|(out, &sum)| *out = sum as f32);
                }
            },
        )?;
        self.keep(scratch);
        Ok(out)
    }
}
