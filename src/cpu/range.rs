//! `range`: every row whose key is at most a given one. Workers collect; nothing has to be counted beforehand.

use super::distance::{Direct, allowed_rows, allows, shared};
use super::select_k::{each_bit, pack, unpack};
use super::{CpuEngine, Scratch};
use crate::compute::{EngineError, Output};
use crate::ops::Compared;
use crate::simd::select::survivors;
use crate::stats::SearchStats;

impl CpuEngine {
    /// The hits of every query, smallest (key, position) first.
    pub(super) fn range(&self, pairs: &Compared<'_>, key: f32, stats: &mut SearchStats) -> Result<Output, EngineError> {
        let (n, q, dim) = (pairs.base.rows.rows(), pairs.queries.rows(), pairs.base.rows.dim());
        let mask = shared(pairs.mask, q);
        let direct = Direct::new(self.token, pairs);
        let workers = self.workers(n * q * dim);
        let size = n.div_ceil(if workers == 1 { 1 } else { 8 * workers }).max(64);
        let chunks = (0..n).step_by(size).map(|start| start..n.min(start + size));
        let clear = |s: &mut Scratch| {
            s.hits.iter_mut().for_each(Vec::clear);
            s.hits.resize_with(q, Vec::new);
        };
        let mut scratch = self.spread(workers, chunks, clear, |s, rows| {
            let Scratch { keys, masks, hits, .. } = s;
            direct.each_block(rows, 0..q, mask, keys, |q, picks, keys| {
                survivors(self.token, keys, key, masks);
                for (w, &bits) in masks.iter().enumerate() {
                    each_bit(bits, |bit| {
                        let (hit, row) = (keys[w * 64 + bit], picks.at(w * 64 + bit));
                        // NaN, which survives the filter, is within no radius.
                        if hit <= key && allows(mask, q, row) {
                            hits[q].push(pack(hit, row as u32));
                        }
                    });
                }
            });
        })?;
        let read = allowed_rows(mask, n);
        stats.bytes_read += (read * pairs.base.rows.dtype().row_bytes(dim)) as u64;
        stats.scanned += (read * q) as u64;
        let hits = gather(&mut scratch, q);
        for s in &mut scratch {
            // Hits can be many; what they took is given back.
            s.hits = Vec::new();
        }
        self.keep(scratch);
        Ok(hits)
    }
}

/// The hits of all workers, sorted, query after query.
fn gather(scratch: &mut [Scratch], queries: usize) -> Output {
    let total = scratch.iter().flat_map(|s| &s.hits).map(Vec::len).sum();
    let (mut offsets, mut keys, mut positions) =
        (Vec::with_capacity(queries + 1), Vec::with_capacity(total), Vec::with_capacity(total));
    offsets.push(0);
    let mut pairs = Vec::new();
    for q in 0..queries {
        pairs.clear();
        for s in scratch.iter_mut() {
            pairs.append(&mut s.hits[q]);
        }
        pairs.sort_unstable();
        for &pair in &pairs {
            let (key, position) = unpack(pair);
            keys.push(key);
            positions.push(position);
        }
        offsets.push(keys.len() as u64);
    }
    Output::Range { offsets, keys, positions }
}
