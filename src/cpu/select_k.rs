//! `select_k`: the k smallest by (key, position), of candidates, of rows of a matrix, and as rows stream by.
//!
//! A pair is packed into a u64 that sorts like (key, position); [`TopK`] collects what falls below a limit and, when
//! its buffer is full, partitions it and lowers the limit.

use super::distance::Keys;
use super::{CpuEngine, Scratch, mismatch};
use crate::compute::{Candidates, EngineError};
use crate::simd::{Token, select::survivors};

/// Key and position in a number that sorts like them: NaN last, -0 before 0.
#[inline(always)]
pub(super) fn pack(key: f32, position: u32) -> u64 {
    let bits = if key.is_nan() { f32::NAN.to_bits() & 0x7fff_ffff } else { key.to_bits() };
    let sign = (bits.cast_signed() >> 31).cast_unsigned();
    u64::from(bits ^ (sign | 0x8000_0000)) << 32 | u64::from(position)
}

/// The other way.
#[inline(always)]
pub(super) fn unpack(pair: u64) -> (f32, u32) {
    let bits = (pair >> 32) as u32;
    let sign = (!bits.cast_signed() >> 31).cast_unsigned();
    (f32::from_bits(bits ^ (sign | 0x8000_0000)), pair as u32)
}

/// The `keep` smallest of the pairs pushed so far, and a few more that may still turn out not to be.
#[derive(Debug, Default)]
pub(crate) struct TopK {
    keep: usize,
    full: usize,
    pairs: Vec<u64>,
    limit: u64,
}

impl TopK {
    /// Empties the list and sets how many to keep (at least 1).
    pub fn reset(&mut self, keep: usize) {
        self.keep = keep;
        self.full = keep.saturating_add(keep.max(16));
        self.pairs.clear();
        self.limit = u64::MAX;
    }

    /// Keeps only keys not above this from now on.
    pub fn only_below(&mut self, threshold: f32) {
        if threshold < f32::INFINITY {
            self.limit = pack(threshold, u32::MAX);
        }
    }

    /// A key above which no pair is kept.
    pub fn threshold(&self) -> f32 {
        if self.limit == u64::MAX { f32::INFINITY } else { unpack(self.limit).0 }
    }

    /// Keeps the pair if it may belong among the smallest; says whether the threshold has changed.
    #[inline]
    pub fn push(&mut self, key: f32, position: u32) -> bool {
        let pair = pack(key, position);
        if pair >= self.limit {
            return false;
        }
        self.pairs.push(pair);
        if self.pairs.len() < self.full {
            return false;
        }
        self.shrink();
        self.limit = self.pairs[self.keep - 1];
        true
    }

    /// Leaves the `keep` smallest, the largest of them at the end.
    fn shrink(&mut self) {
        if self.pairs.len() > self.keep {
            self.pairs.select_nth_unstable(self.keep - 1);
            self.pairs.truncate(self.keep);
        }
    }

    /// Pushes the keys of a block that pass the threshold; `position` gives that of each, or none if it may not be
    /// returned.
    #[inline]
    pub fn offer(&mut self, token: Token, keys: &[f32], masks: &mut Vec<u64>, position: impl Fn(usize) -> Option<u32>) {
        survivors(token, keys, self.threshold(), masks);
        for (w, &mask) in masks.iter().enumerate() {
            each_bit(mask, |bit| {
                let i = w * 64 + bit;
                if let Some(position) = position(i) {
                    self.push(keys[i], position);
                }
            });
        }
    }

    /// Bytes of memory held.
    pub fn bytes(&self) -> usize {
        self.pairs.capacity() * 8
    }

    /// The pairs, in no order; possibly more than are kept.
    pub fn pairs(&self) -> &[u64] {
        &self.pairs
    }
}

/// Calls `f` with the number of every set bit, the lowest first.
#[inline(always)]
pub(super) fn each_bit(mut mask: u64, mut f: impl FnMut(usize)) {
    while mask != 0 {
        f(mask.trailing_zeros() as usize);
        mask &= mask - 1;
    }
}

/// Sorts the smallest of the pairs into the places of one query; gives how many places were filled.
pub(super) fn fill(pairs: &mut Vec<u64>, keys: &mut [f32], positions: &mut [u32]) -> usize {
    let k = keys.len();
    if k == 0 {
        return 0;
    }
    if pairs.len() > k {
        pairs.select_nth_unstable(k - 1);
        pairs.truncate(k);
    }
    pairs.sort_unstable();
    for (i, &pair) in pairs.iter().enumerate() {
        (keys[i], positions[i]) = unpack(pair);
    }
    pairs.len()
}

/// Merges the workers' lists of every query with those in `out` from query `first` on.
pub(super) fn merge(
    engine: &CpuEngine,
    scratch: &[Scratch],
    first: usize,
    queries: usize,
    out: &mut Candidates,
) -> Result<(), EngineError> {
    let width = out.width.max(1);
    let held: usize = scratch.iter().flat_map(|s| &s.lists[..queries]).map(|list| list.pairs().len()).sum();
    let keys = out.keys.chunks_mut(width).zip(out.positions.chunks_mut(width)).skip(first).take(queries);
    let merged = engine.spread(
        engine.workers(held * 64),
        keys.enumerate(),
        |_| {},
        |mine, (q, (keys, positions))| {
            let pairs = &mut mine.keys.pairs;
            pairs.clear();
            let there = keys.iter().zip(&*positions).filter(|&(_, &p)| p != u32::MAX);
            pairs.extend(there.map(|(&key, &position)| pack(key, position)));
            for s in scratch {
                pairs.extend_from_slice(s.lists[q].pairs());
            }
            fill(pairs, keys, positions);
        },
    )?;
    engine.keep(merged);
    Ok(())
}

/// Columns of a matrix that one worker looks through at a time when there are fewer rows than threads.
const KEYS_PER_THREAD: usize = 1 << 15;

impl CpuEngine {
    /// Of every query's candidates the best; the bound of candidates left out stays as it was.
    pub(super) fn select_k_of(&self, from: &Candidates, queries: usize, k: usize) -> Result<Candidates, EngineError> {
        let mut out = Candidates::places(queries, k)?;
        out.bound.clone_from(&from.bound);
        self.select_segments(&from.keys, Some(&from.positions), from.width, &mut out)?;
        Ok(out)
    }

    /// The k smallest of each of `queries` rows of a matrix.
    pub(super) fn select_k(&self, keys: &[f32], queries: usize, k: usize) -> Result<Candidates, EngineError> {
        if queries == 0 {
            return Ok(Candidates::empty(0, k));
        }
        if !keys.len().is_multiple_of(queries) || keys.len() / queries >= u32::MAX as usize {
            return mismatch(format!("{} keys for {queries} queries", keys.len()));
        }
        let width = keys.len() / queries;
        let mut out = Candidates::places(queries, k)?;
        if queries >= self.threads || width <= KEYS_PER_THREAD || k >= width / 4 {
            self.select_segments(keys, None, width, &mut out)?;
        } else if k > 0 {
            self.select_columns(keys, width, queries, &mut out)?;
        }
        Ok(out)
    }

    /// A segment at a time.
    fn select_segments(
        &self,
        keys: &[f32],
        positions: Option<&[u32]>,
        width: usize,
        out: &mut Candidates,
    ) -> Result<(), EngineError> {
        let (k, token) = (out.width, self.token);
        if width == 0 || k == 0 {
            return Ok(());
        }
        let places = out.keys.chunks_mut(k).zip(out.positions.chunks_mut(k)).enumerate();
        let scratch = self.spread(
            self.workers(keys.len() * 16),
            places,
            |_| {},
            |s, (q, (out_keys, out_positions))| {
                let segment = &keys[q * width..(q + 1) * width];
                let places = positions.map(|p| &p[q * width..(q + 1) * width]);
                let Scratch { keys: Keys { pairs, .. }, lists, masks, .. } = s;
                if lists.is_empty() {
                    lists.push(TopK::default());
                }
                let list = &mut lists[0];
                list.reset(k.min(width));
                for (c, block) in segment.chunks(1024).enumerate() {
                    let at = |i: usize| c * 1024 + i;
                    list.offer(token, block, masks, |i| Some(places.map_or(at(i) as u32, |p| p[at(i)])));
                }
                pairs.clear();
                pairs.extend_from_slice(list.pairs());
                let n = k.min(width);
                fill(pairs, &mut out_keys[..n], &mut out_positions[..n]);
            },
        )?;
        self.keep(scratch);
        Ok(())
    }

    /// Some columns of all rows at a time.
    fn select_columns(
        &self,
        keys: &[f32],
        width: usize,
        queries: usize,
        out: &mut Candidates,
    ) -> Result<(), EngineError> {
        let (k, token) = (out.width, self.token);
        let chunks = (0..width).step_by(KEYS_PER_THREAD);
        let reset = |s: &mut Scratch| s.reset_lists(queries, k);
        let scratch = self.spread(self.workers(keys.len() * 16), chunks, reset, |s, start| {
            let end = width.min(start + KEYS_PER_THREAD);
            let Scratch { lists, masks, .. } = s;
            for (q, list) in lists.iter_mut().enumerate().take(queries) {
                for (c, block) in keys[q * width + start..q * width + end].chunks(1024).enumerate() {
                    list.offer(token, block, masks, |i| Some((start + c * 1024 + i) as u32));
                }
            }
        })?;
        merge(self, &scratch, 0, queries, out)?;
        self.keep(scratch);
        Ok(())
    }
}

impl Scratch {
    /// Empty lists for so many queries.
    pub(super) fn reset_lists(&mut self, queries: usize, keep: usize) {
        if self.lists.len() < queries {
            self.lists.resize_with(queries, TopK::default);
        }
        for list in &mut self.lists[..queries] {
            list.reset(keep);
        }
        self.thresholds.clear();
        self.thresholds.resize(queries, f32::INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_pairs_sort_like_key_and_position() {
        let keys = [f32::NEG_INFINITY, -1.5, -0.0, 0.0, 1e-40, 2.0, f32::INFINITY, f32::NAN];
        for (i, &a) in keys.iter().enumerate() {
            for (j, &b) in keys.iter().enumerate() {
                let want = i.cmp(&j).then(3.cmp(&5));
                assert_eq!(pack(a, 3).cmp(&pack(b, 5)), want, "{a} {b}");
            }
            let (key, position) = unpack(pack(a, 7));
            assert!(key.to_bits() == a.to_bits() || a.is_nan() && key.is_nan());
            assert_eq!(position, 7);
        }
        assert!(pack(-f32::NAN, 0) > pack(f32::INFINITY, u32::MAX));
    }
}
