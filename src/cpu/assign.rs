//! `assign`: the nearest row of each query.
//!
//! Behind codes: for each query a key is known (of the row that may well be the nearest, or of the first rows seen); only
//! rows whose bounds are not above it get direct keys, and only blocks of rows whose bounds, if known, are not above it are
//! looked at. So the answer is that of the direct pass, whatever was known before.

use std::ops::Range;

use super::distance::Direct;
use super::simd::bytes::near::{Blocks, Found, starts};
use super::simd::direct::Picks;
use super::{CpuEngine, Scratch, mismatch};
use crate::engine::{Candidates, Coded, EngineError, Input, Known, Task};
use crate::kernels::assign::{BLOCK, assigns};
use crate::kernels::codes::MOST_DIM;
use crate::plan::Screen;
use crate::stats::SearchStats;

/// Queries that a worker takes at a time: their codes stay in the second cache while all blocks pass.
const POINTS: usize = 1024;

/// Buffers of a worker.
#[derive(Default)]
pub(crate) struct Near {
    starts: Vec<i32>,
    list: Vec<u32>,
    /// Keys of the nearest rows so far.
    keys: Vec<f32>,
    computed: usize,
}

impl CpuEngine {
    /// The row with the smallest (key, position) for each query.
    pub(super) fn assign(&self, task: &Task<'_>, stats: &mut SearchStats) -> Result<Candidates, EngineError> {
        let p = &task.plan.problem;
        if !assigns(p.metric, p.dtype) {
            return mismatch(format!("points are not assigned by {} to {} rows", p.metric, p.dtype));
        }
        match (task.base.codes, task.mask) {
            (Some(coded), None) if coded.codes.dim <= MOST_DIM && p.rows > 0 => self.assign_coded(task, coded, stats),
            _ => self.search(task, Screen::None, 1, stats),
        }
    }

    fn assign_coded(
        &self,
        task: &Task<'_>,
        coded: Coded<'_>,
        stats: &mut SearchStats,
    ) -> Result<Candidates, EngineError> {
        let (n, q, dim) = (task.base.rows.rows(), task.queries.rows(), task.base.rows.dim());
        let (codes, queries) = (coded.codes, coded.queries);
        if codes.rows() != n || queries.terms.len() != q || queries.dim != codes.dim {
            let (rows, coded) = (codes.rows(), queries.terms.len());
            return mismatch(format!("codes of {rows} rows and {coded} queries for {n} rows and {q} queries"));
        }
        let blocks = Blocks::pack(self.token, codes);
        let known = known(task, blocks.len())?;
        let across = if known.bounds.is_empty() { 0 } else { blocks.len() };
        let mut out = Candidates::places(q, 1)?;
        out.bound = vec![f32::NEG_INFINITY; q * across];
        let pass = Pass { direct: Direct::new(self.token, task), blocks, coded, known };
        let bounds: Vec<&mut [f32]> = match across {
            0 => (0..q.div_ceil(POINTS)).map(|_| &mut [][..]).collect(),
            _ => out.bound.chunks_mut(POINTS * across).collect(),
        };
        let places = out.keys.chunks_mut(POINTS).zip(out.positions.chunks_mut(POINTS)).zip(bounds).enumerate();
        let workers = self.workers(n * q * codes.dim / 4);
        let scratch = self.spread(
            workers,
            places,
            |s| s.near.computed = 0,
            |s, (i, ((keys, positions), bounds))| {
                pass.points(s, i * POINTS..i * POINTS + keys.len(), keys, positions, bounds);
            },
        );
        let computed: usize = scratch.iter().map(|s| s.near.computed).sum();
        self.keep(scratch);
        stats.refined += computed as u64;
        stats.scanned += (n * q) as u64;
        stats.bytes_read += (q * (codes.dim + 20) + computed * dim * 4) as u64;
        Ok(out)
    }
}

/// What the task knows beforehand, of the right shape.
fn known<'a>(task: &Task<'a>, blocks: usize) -> Result<Known<'a>, EngineError> {
    let q = task.queries.rows();
    let Input::Known(known) = task.input else { return Ok(Known { positions: &[], bounds: &[] }) };
    let fits = |len: usize, each: usize| len == 0 || len == q * each;
    if !fits(known.positions.len(), 1) || !fits(known.bounds.len(), blocks) {
        let (positions, bounds) = (known.positions.len(), known.bounds.len());
        return mismatch(format!("{positions} positions and {bounds} bounds for {q} queries x {blocks} blocks"));
    }
    Ok(known)
}

/// All queries over all blocks.
struct Pass<'a> {
    direct: Direct<'a>,
    blocks: Blocks,
    coded: Coded<'a>,
    known: Known<'a>,
}

impl Pass<'_> {
    /// The nearest rows of the queries `range`; `bounds` gets those of their blocks, if they are wanted.
    fn points(
        &self,
        s: &mut Scratch,
        range: Range<usize>,
        keys: &mut [f32],
        positions: &mut [u32],
        bounds: &mut [f32],
    ) {
        let Near { starts: begin, list, keys: thresholds, computed } = &mut s.near;
        let (first, queries, across) = (range.start, self.coded.queries, self.blocks.len());
        starts(queries, range.clone(), begin);
        if let Some(hints) = self.known.positions.get(range.clone()) {
            for (i, &hint) in hints.iter().enumerate().filter(|(_, hint)| **hint != u32::MAX) {
                self.direct.keys_of(first + i, Picks::List(&[hint]), &mut keys[i..=i]);
                positions[i] = hint;
                *computed += 1;
            }
        }
        if !bounds.is_empty() {
            bounds.copy_from_slice(&self.known.bounds[range.start * across..range.end * across]);
        }
        for block in 0..across {
            list.clear();
            match bounds.is_empty() {
                true => list.extend(range.clone().map(|q| q as u32)),
                false => list.extend(
                    (0..range.len()).filter(|&i| bounds[i * across + block] <= keys[i]).map(|i| (first + i) as u32),
                ),
            }
            // Tiles are judged by what was known before the block, what they find by what is known by then.
            thresholds.clear();
            thresholds.extend_from_slice(keys);
            self.blocks.near(block, queries, (first, begin, thresholds), list, |found| {
                let i = list[found.place] as usize - first;
                if let Some(bound) = bounds.get_mut(i * across + block) {
                    *bound = found.least;
                }
                if found.mask != 0 {
                    *computed += self.look(first + i, block, &found, &mut keys[i], &mut positions[i]);
                }
            });
        }
    }

    /// Direct keys of the rows of a block that may be nearer than the nearest so far, the most promising first; gives how
    /// many.
    fn look(&self, query: usize, block: usize, found: &Found<'_>, key: &mut f32, position: &mut u32) -> usize {
        let (mut mask, mut computed) = (found.mask, 0);
        let mut next = least(mask, found.bounds);
        while mask != 0 {
            mask &= !(1 << next);
            let row = (block * BLOCK + next) as u32;
            if found.bounds[next] <= *key && row != *position {
                let mut one = [0.0];
                self.direct.keys_of(query, Picks::List(&[row]), &mut one);
                computed += 1;
                if one[0] < *key || (one[0] == *key && row < *position) {
                    (*key, *position) = (one[0], row);
                }
            }
            next = mask.trailing_zeros() as usize;
        }
        computed
    }
}

/// The row with the least bound.
fn least(mask: u32, bounds: &[f32; BLOCK]) -> usize {
    let rows = (0..BLOCK).filter(|r| mask >> r & 1 == 1);
    rows.min_by(|&a, &b| bounds[a].total_cmp(&bounds[b])).unwrap_or(0)
}
