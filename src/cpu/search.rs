//! `search`: the best rows of each query in one pass, direct or behind the f32 screen.

use std::ops::Range;

use super::dense;
use super::distance::{Direct, allowed_rows, allows, picks, shared};
use super::select_k::{each_bit, merge};
use super::{CpuEngine, Scratch, f32_queries};
use crate::compute::{Candidates, EngineError, Mask};
use crate::ops::Compared;
use crate::ops::Screen;
use crate::ops::search::{screens, slack};
use crate::simd::direct::Picks;
use crate::simd::panel::{Bound, MAX_GROUP, Queries, Tiling};
use crate::stats::SearchStats;
use crate::types::MatrixView;
use crate::with_narrow_rows;

/// Queries of a pass at most, so that their unfinished tiles of long rows stay in the cache.
const MOST_QUERIES: usize = 1024;

/// Bytes that the lists of all workers may take at a time; more queries are searched in several passes.
const LIST_BYTES: usize = 64 << 20;

impl CpuEngine {
    /// The `keep` smallest keys, or lower bounds of them, of each query.
    pub(super) fn search(
        &self,
        pairs: &Compared<'_>,
        screen: Screen,
        keep: usize,
        stats: &mut SearchStats,
    ) -> Result<Candidates, EngineError> {
        let (n, q, dim) = (pairs.base.rows.rows(), pairs.queries.rows(), pairs.base.rows.dim());
        let mut out = Candidates::places(q, keep)?;
        let screened = match (screen, pairs.base.norms, f32_queries(pairs)) {
            (Screen::F32, Some(norms), Some(queries)) if screens(pairs.metric) && pairs.query_norms.len() == q => {
                Some((norms, queries))
            }
            _ => None,
        };
        if let Some((norms, queries)) = screened
            && pairs.mask.is_none()
            && dense::suits(n, q, keep)
        {
            self.search_dense(pairs, norms, queries, &mut out)?;
            stats.bytes_read += (n * pairs.base.rows.dtype().row_bytes(dim)) as u64;
            stats.scanned += (n * q) as u64;
        } else if n > 0 && q > 0 && keep > 0 {
            let mask = shared(pairs.mask, q);
            let batch = (LIST_BYTES / (16 * keep.min(n) * self.threads)).clamp(1, MOST_QUERIES);
            for first in (0..q).step_by(batch) {
                let queries = first..q.min(first + batch);
                let workers = self.workers(n * queries.len() * dim);
                let chunks = chunks(n, if workers == 1 { 1 } else { 8 * workers });
                let reset = |s: &mut Scratch| s.reset_lists(queries.len(), keep.min(n));
                let scratch = match screened {
                    None => {
                        let pass =
                            DirectPass { direct: Direct::new(self.token, pairs), mask, queries: queries.clone() };
                        self.spread(workers, chunks, reset, |s, rows| pass.chunk(self, s, rows))?
                    }
                    Some((norms, all)) => {
                        let pass = ScreenPass::new(self, pairs, mask, norms, all, queries.clone());
                        self.spread(workers, chunks, reset, |s, rows| pass.chunk(self, s, rows))?
                    }
                };
                merge(self, &scratch, first, queries.len(), &mut out)?;
                self.keep(scratch);
            }
            let read = allowed_rows(mask, n);
            stats.bytes_read += (q.div_ceil(batch) * read * pairs.base.rows.dtype().row_bytes(dim)) as u64;
            stats.scanned += (read * q) as u64;
        }
        if screened.is_some() {
            // An empty last place has key +inf, which is what the bound then is.
            out.bound = if keep == 0 {
                vec![f32::INFINITY; q]
            } else {
                out.keys.iter().copied().skip(keep - 1).step_by(keep).collect()
            };
        }
        Ok(out)
    }
}

/// Ranges of rows, about `count` of them, of whole panels each.
fn chunks(rows: usize, count: usize) -> impl Iterator<Item = Range<usize>> {
    let size = rows.div_ceil(count).next_multiple_of(64);
    (0..rows).step_by(size).map(move |start| start..rows.min(start + size))
}

/// The direct pass of a batch.
struct DirectPass<'a> {
    direct: Direct<'a>,
    mask: Option<Mask<'a>>,
    queries: Range<usize>,
}

impl DirectPass<'_> {
    fn chunk(&self, engine: &CpuEngine, s: &mut Scratch, rows: Range<usize>) {
        let Scratch { keys, lists, masks, .. } = s;
        self.direct.each_block(rows, self.queries.clone(), self.mask, keys, |q, picks, keys| {
            lists[q - self.queries.start].offer(engine.token, keys, masks, |i| {
                let row = picks.at(i);
                allows(self.mask, q, row).then_some(row as u32)
            });
        });
    }
}

/// The screen of a batch.
pub(super) struct ScreenPass<'a> {
    pairs: &'a Compared<'a>,
    mask: Option<Mask<'a>>,
    bound: Bound,
    norms: &'a [f32],
    queries: Range<usize>,
    tiling: Tiling,
    packed: Queries,
}

impl<'a> ScreenPass<'a> {
    pub(super) fn new(
        engine: &CpuEngine,
        pairs: &'a Compared<'a>,
        mask: Option<Mask<'a>>,
        norms: &'a [f32],
        all: MatrixView<'a, f32>,
        queries: Range<usize>,
    ) -> ScreenPass<'a> {
        let dim = all.dim();
        let tiling = Tiling::new(engine.token, dim, queries.len());
        let packed = Queries::pack(tiling, all.slice(queries.start, queries.end));
        let bound = Bound { metric: pairs.metric, slack: slack(dim) };
        ScreenPass { pairs, mask, bound, norms, queries, tiling, packed }
    }

    fn chunk(&self, engine: &CpuEngine, s: &mut Scratch, rows: Range<usize>) {
        let mut allowed = std::mem::take(&mut s.positions);
        let picks = picks(rows, self.mask, &mut allowed);
        let block = self.tiling.panel * self.tiling.panels;
        for start in (0..picks.len()).step_by(block) {
            self.block(engine, s, picks.part(start, picks.len().min(start + block)));
        }
        s.positions = allowed;
    }

    /// Gives the lower bounds of all rows: (query of the pass, first row, bounds).
    pub(super) fn bounds(
        &self,
        engine: &CpuEngine,
        s: &mut Scratch,
        rows: usize,
        mut each: impl FnMut(usize, usize, &[f32]),
    ) {
        let t = &self.tiling;
        let query_norms = &self.pairs.query_norms[self.queries.clone()];
        let (block, unlimited) = (t.panel * t.panels, [f32::INFINITY; MAX_GROUP]);
        for first in (0..rows).step_by(block) {
            let picks = Picks::Run { start: first, len: block.min(rows - first) };
            with_narrow_rows!(self.pairs.base.rows, m => s.panels.multiply(engine.token, &self.packed, m, picks, |panel, group, mut tile| {
                let rows = panel * t.panel..picks.len().min((panel + 1) * t.panel);
                let group = group * t.group..self.queries.len().min((group + 1) * t.group);
                let norms = &self.norms[first + rows.start..first + rows.end];
                let unlimited = &unlimited[..group.len()];
                tile.screen(engine.token, self.bound, &query_norms[group.clone()], norms, unlimited);
                for (i, q) in group.enumerate() {
                    each(q, first + rows.start, &tile.query(i)[..rows.len()]);
                }
            }));
        }
    }

    fn block(&self, engine: &CpuEngine, s: &mut Scratch, picks: Picks<'_>) {
        let Scratch { lists, thresholds, norms, panels, .. } = s;
        norms.clear();
        norms.extend((0..picks.len()).map(|i| self.norms[picks.at(i)]));
        let query_norms = &self.pairs.query_norms[self.queries.clone()];
        let t = &self.tiling;
        with_narrow_rows!(self.pairs.base.rows, m => panels.multiply(engine.token, &self.packed, m, picks, |panel, group, mut tile| {
            let rows = panel * t.panel..picks.len().min((panel + 1) * t.panel);
            let group = group * t.group..self.queries.len().min((group + 1) * t.group);
            let masks: [u64; MAX_GROUP] = tile.screen(
                engine.token,
                self.bound,
                &query_norms[group.clone()],
                &norms[rows.clone()],
                &thresholds[group.clone()],
            );
            for (i, q) in group.enumerate() {
                each_bit(masks[i], |r| {
                    let row = picks.at(rows.start + r);
                    if allows(self.mask, self.queries.start + q, row) && lists[q].push(tile.query(i)[r], row as u32) {
                        thresholds[q] = lists[q].threshold();
                    }
                });
            }
        }));
    }
}
