//! `assign`: the nearest row of each query.
//!
//! Behind codes: for each query a key is known (of the row that may well be the nearest, or of the first rows seen); only
//! rows whose bounds are not above it get direct keys. Only blocks of rows whose bounds, if known, are not above it are
//! examined. So the answer is that of the direct pass, whatever was known before.

use std::ops::Range;

use super::distance::Direct;
use super::select_k::each_bit;
use super::{CpuEngine, Scratch};
use crate::compute::{Candidates, EngineError, Known};
use crate::ops::Screen;
use crate::ops::assign::{BLOCK, POINTS};
use crate::ops::{Coded, Compared};
use crate::simd::Token;
use crate::simd::bytes;
use crate::simd::bytes::near::{Blocks, starts};
use crate::stats::SearchStats;

/// Buffers of a worker.
#[derive(Default)]
pub(crate) struct Near {
    starts: Vec<i32>,
    list: Vec<u32>,
    /// Keys of the nearest rows so far.
    keys: Vec<f32>,
    /// Queries and rows whose direct keys are wanted.
    pairs: Vec<[u32; 2]>,
    pair_keys: Vec<f32>,
    computed: usize,
}

impl CpuEngine {
    /// The row with the smallest (key, position) for each query.
    pub(super) fn assign(
        &self,
        pairs: &Compared<'_>,
        coded: Option<Coded<'_>>,
        known: Option<Known<'_>>,
        stats: &mut SearchStats,
    ) -> Result<Candidates, EngineError> {
        match (coded, pairs.mask) {
            (Some(coded), None) if pairs.base.rows.rows() > 0 => {
                let known = known.unwrap_or(Known { positions: &[], bounds: &[] });
                self.assign_coded(pairs, coded, known, stats)
            }
            _ => self.search(pairs, Screen::None, 1, stats),
        }
    }

    fn assign_coded(
        &self,
        pairs: &Compared<'_>,
        coded: Coded<'_>,
        known: Known<'_>,
        stats: &mut SearchStats,
    ) -> Result<Candidates, EngineError> {
        let (n, q, dim) = (pairs.base.rows.rows(), pairs.queries.rows(), pairs.base.rows.dim());
        let codes = coded.codes;
        let blocks = Blocks::pack(self.token, codes);
        let across = if known.bounds.is_empty() { 0 } else { blocks.len() };
        let mut out = Candidates::places(q, 1)?;
        out.bound = vec![f32::NEG_INFINITY; q * across];
        let pass = Pass { token: self.token, direct: Direct::new(self.token, pairs), blocks, coded, known };
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
        )?;
        let computed: usize = scratch.iter().map(|s| s.near.computed).sum();
        self.keep(scratch);
        stats.refined += computed as u64;
        stats.scanned += (n * q) as u64;
        stats.bytes_read += (q * (codes.dim + 20) + computed * dim * 4) as u64;
        Ok(out)
    }
}

/// All queries over all blocks.
struct Pass<'a> {
    token: Token,
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
        let Near { starts: begin, list, keys: thresholds, pairs, pair_keys, computed } = &mut s.near;
        let (first, count, queries, across) = (range.start, range.len(), self.coded.queries, self.blocks.len());
        starts(queries, range.clone(), begin);
        if let Some(hints) = self.known.positions.get(range.clone()) {
            pairs.clear();
            let there = hints.iter().enumerate().filter(|(_, hint)| **hint != u32::MAX);
            pairs.extend(there.map(|(i, &hint)| [(first + i) as u32, hint]));
            self.judge(first, pairs, pair_keys, keys, positions);
            *computed += pairs.len();
        }
        if !bounds.is_empty() {
            bounds.copy_from_slice(&self.known.bounds[range.start * across..range.end * across]);
        }
        for block in 0..across {
            list.clear();
            match bounds.get(block * count..(block + 1) * count) {
                Some(bounds) => not_above(self.token, bounds, keys, |i| list.push((first + i) as u32)),
                None => list.extend(range.clone().map(|q| q as u32)),
            }
            thresholds.clear();
            thresholds.extend_from_slice(keys);
            pairs.clear();
            let least = bounds.get_mut(block * count..(block + 1) * count);
            let least = least.unwrap_or_default();
            self.blocks.near(block, queries, (first, begin, thresholds), list, |found| {
                let i = list[found.place] as usize - first;
                if let Some(bound) = least.get_mut(i) {
                    *bound = found.least;
                }
                let mut mask = found.mask;
                let own = (positions[i] as usize).wrapping_sub(block * BLOCK);
                if own < BLOCK {
                    mask &= !(1 << own);
                }
                if mask.count_ones() > MANY {
                    // The most promising one alone may leave few of the others.
                    let row = [first as u32 + i as u32, (block * BLOCK + nearest(mask, found.bounds)) as u32];
                    self.judge(first, &[row], pair_keys, keys, positions);
                    *computed += 1;
                    mask = above(mask & !(1 << (row[1] as usize - block * BLOCK)), found.bounds, keys[i]);
                }
                while mask != 0 {
                    pairs.push([(first + i) as u32, (block * BLOCK) as u32 + mask.trailing_zeros()]);
                    mask &= mask - 1;
                }
            });
            self.judge(first, pairs, pair_keys, keys, positions);
            *computed += pairs.len();
        }
    }

    /// Computes the direct keys of pairs of a query and a row, and keeps the nearest row of each query.
    fn judge(
        &self,
        first: usize,
        pairs: &[[u32; 2]],
        pair_keys: &mut Vec<f32>,
        keys: &mut [f32],
        positions: &mut [u32],
    ) {
        pair_keys.resize(pairs.len(), 0.0);
        self.direct.keys_of_pairs(pairs, pair_keys);
        for (&[query, row], &key) in pairs.iter().zip(&*pair_keys) {
            let i = query as usize - first;
            if key < keys[i] || (key == keys[i] && row < positions[i]) {
                (keys[i], positions[i]) = (key, row);
            }
        }
    }
}

/// From so many rows of a block on, the most promising one is judged before the others.
const MANY: u32 = 3;

/// The row with the least bound.
fn nearest(mask: u32, bounds: &[f32; BLOCK]) -> usize {
    let rows = (0..BLOCK).filter(|r| mask >> r & 1 == 1);
    rows.min_by(|&a, &b| bounds[a].total_cmp(&bounds[b])).unwrap_or(0)
}

/// Of these rows those whose bounds are not above a key.
fn above(mask: u32, bounds: &[f32; BLOCK], key: f32) -> u32 {
    (0..BLOCK).filter(|&r| bounds[r] <= key).fold(0, |kept, r| kept | 1 << r) & mask
}

/// Calls `each` with every place where not `bounds > keys`.
fn not_above(token: Token, bounds: &[f32], keys: &[f32], mut each: impl FnMut(usize)) {
    let ((bounds, more_bounds), (keys, more_keys)) = (bounds.as_chunks(), keys.as_chunks());
    for (i, (bounds, keys)) in bounds.iter().zip(keys).enumerate() {
        each_bit(bytes::not_above(token, bounds, keys), |bit| each(64 * i + bit));
    }
    let whole = 64 * bounds.len();
    let rest = more_bounds.iter().zip(more_keys).enumerate();
    rest.filter(|(_, (bound, key))| bound <= key).for_each(|(i, _)| each(whole + i));
}
