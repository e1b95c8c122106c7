//! `refine`: the direct keys of given candidates.

use super::distance::Direct;
use super::{CpuEngine, Scratch};
use crate::compute::{Candidates, EngineError};
use crate::ops::Compared;
use crate::simd::direct::Picks;
use crate::simd::select::prefetch;
use crate::stats::SearchStats;

/// Candidates of a query that are refined at a time.
const PAIRS_PER_ITEM: usize = 256;

/// Candidates whose rows are asked for while as many others are computed.
const AHEAD: usize = 4;

impl CpuEngine {
    /// Replaces the keys by direct ones, +inf where there is no candidate; everything else stays.
    pub(super) fn refine(
        &self,
        pairs: &Compared<'_>,
        mut candidates: Candidates,
        stats: &mut SearchStats,
    ) -> Result<Candidates, EngineError> {
        let (dim, width) = (pairs.base.rows.dim(), candidates.width.max(1));
        let Candidates { keys, positions, .. } = &mut candidates;
        let direct = Direct::new(self.token, pairs);
        let workers = self.workers(positions.len() * dim);
        let queries = positions.chunks(width).zip(keys.chunks_mut(width)).enumerate();
        let items = queries.flat_map(|(q, (positions, keys))| {
            positions
                .chunks(PAIRS_PER_ITEM)
                .zip(keys.chunks_mut(PAIRS_PER_ITEM))
                .map(move |(positions, keys)| (q, positions, keys))
        });
        let scratch = self.spread(
            workers,
            items,
            |_| {},
            |s: &mut Scratch, (q, positions, keys)| {
                let Scratch { positions: some, norms: found, .. } = s;
                some.clear();
                some.extend(positions.iter().copied().filter(|&p| p != u32::MAX));
                found.resize(some.len(), 0.0);
                // While some rows are computed, the next are on their way.
                for start in (0..some.len()).step_by(AHEAD) {
                    let end = some.len().min(start + AHEAD);
                    let next = &some[end..some.len().min(end + AHEAD)];
                    next.iter().for_each(|&p| prefetch(self.token, pairs.base.rows.row_bytes(p as usize)));
                    direct.keys_of(q, Picks::List(&some[start..end]), &mut found[start..end]);
                }
                let mut found = found.iter();
                for (key, &position) in keys.iter_mut().zip(positions) {
                    let refined = if position == u32::MAX { None } else { found.next() };
                    *key = refined.copied().unwrap_or(f32::INFINITY);
                }
            },
        )?;
        self.keep(scratch);
        let refined = candidates.positions.iter().filter(|&&p| p != u32::MAX).count();
        stats.refined += refined as u64;
        stats.bytes_read += (refined * pairs.base.rows.dtype().row_bytes(dim)) as u64;
        Ok(candidates)
    }
}
