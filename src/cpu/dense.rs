//! `search` where a good part of few rows is wanted: all keys of some queries first, then the smallest of each.
//!
//! Keeping the best while keys stream by costs some nanoseconds for every key that is good for a while, and of few rows
//! most are. Halving the range of the keys reads them some ten times instead, a whole vector at a time.

use std::ops::Range;

use super::search::ScreenPass;
use super::select_k::{each_bit, fill, pack};
use super::{CpuEngine, Scratch};
use crate::compute::{Candidates, EngineError};
use crate::ops::Compared;
use crate::simd::select::{limit, survivors};
use crate::types::MatrixView;

/// Bytes of keys that a worker computes before it selects.
const KEY_BYTES: usize = 512 << 10;

/// Most rows.
const MOST_ROWS: usize = 1 << 15;

/// Whether a search is answered faster in this way.
pub(super) fn suits(rows: usize, queries: usize, keep: usize) -> bool {
    (256..=MOST_ROWS).contains(&rows) && queries >= 8 && keep >= 8 && rows <= 512 * keep
}

impl CpuEngine {
    /// The `keep` smallest lower bounds of each query.
    pub(super) fn search_dense(
        &self,
        pairs: &Compared<'_>,
        norms: &[f32],
        queries: MatrixView<'_, f32>,
        out: &mut Candidates,
    ) -> Result<(), EngineError> {
        let (n, q, keep) = (pairs.base.rows.rows(), queries.rows(), out.width);
        let workers = self.workers(n * q * queries.dim());
        // Whole groups of six, and something for every worker.
        let block = (KEY_BYTES / (4 * n)).min(q.div_ceil(2 * workers)).next_multiple_of(6).max(6);
        let places = out.keys.chunks_mut(block * keep).zip(out.positions.chunks_mut(block * keep)).enumerate();
        let scratch = self.spread(
            workers,
            places,
            |_| {},
            |s, (i, (keys, positions))| {
                let some = i * block..q.min((i + 1) * block);
                let pass = ScreenPass::new(self, pairs, None, norms, queries, some.clone());
                self.select_dense(s, &pass, some, n, keep, keys, positions);
            },
        )?;
        self.keep(scratch);
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn select_dense(
        &self,
        s: &mut Scratch,
        pass: &ScreenPass<'_>,
        queries: Range<usize>,
        rows: usize,
        keep: usize,
        keys: &mut [f32],
        positions: &mut [u32],
    ) {
        let mut matrix = std::mem::take(&mut s.dense);
        matrix.resize(queries.len() * rows, 0.0);
        pass.bounds(self, s, rows, |query, at, bounds| {
            matrix[query * rows + at..query * rows + at + bounds.len()].copy_from_slice(bounds);
        });
        let k = keep.min(rows);
        let places = keys.chunks_mut(keep).zip(positions.chunks_mut(keep));
        for (row, (keys, positions)) in matrix.chunks_exact(rows).zip(places) {
            let Scratch { keys: held, masks, .. } = s;
            survivors(self.token, row, limit(self.token, row, k), masks);
            held.pairs.clear();
            for (w, &mask) in masks.iter().enumerate() {
                each_bit(mask, |bit| held.pairs.push(pack(row[w * 64 + bit], (w * 64 + bit) as u32)));
            }
            fill(&mut held.pairs, &mut keys[..k], &mut positions[..k]);
        }
        s.dense = matrix;
    }
}
