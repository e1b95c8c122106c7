//! The best rows so far of a block of queries: lists of `keep` places side by side, merged when there is no more room.

use std::sync::Arc;

use super::Job;
use super::select::{self, Selection};
use crate::compute::EngineError;
use crate::gpu::memory::Buffer;
use crate::gpu::submit::Bind;

/// Lists `[queries, capacity, keep]` of keys and positions, `filled` of them written.
pub(super) struct Best {
    queries: u32,
    keep: u32,
    capacity: u32,
    filled: u32,
    /// The lists, and where they are merged to. The second pair comes with the first merge.
    now: (Arc<Buffer>, Arc<Buffer>),
    other: Option<(Arc<Buffer>, Arc<Buffer>)>,
}

/// Up to so many places are merged by the host.
const FEW_PLACES: u64 = 8192;

impl Best {
    /// Room for `capacity` lists per query: all there will be, or at least two.
    pub(super) fn new(job: &Job<'_>, queries: u32, keep: u32, capacity: u32) -> Result<Best, EngineError> {
        let bytes = u64::from(queries) * u64::from(keep) * u64::from(capacity) * 4;
        let now = (job.rec.scratch(bytes)?, job.rec.scratch(bytes)?);
        Ok(Best { queries, keep, capacity, filled: 0, now, other: None })
    }

    /// For lists that are selected from tiles of a matrix and written through the offset of a binding. One `only` tile is
    /// one list, which is the answer.
    pub(super) fn of_tiles(job: &Job<'_>, queries: u32, keep: usize, only: bool) -> Result<Best, EngineError> {
        match only {
            true => Best::new(job, queries, keep as u32, 1),
            false => Best::new(job, queries, select::list_places(keep) as u32, 2),
        }
    }

    /// Places of a list.
    pub(super) fn keep(&self) -> u32 {
        self.keep
    }

    /// Bytes of scratch that such lists take, merging included.
    pub(super) fn bytes(queries: u64, keep: u64, capacity: u64) -> u64 {
        queries * keep * capacity * 4 * 2 * 2
    }

    /// Lists of a query in all: the kernels' `parts_total`.
    pub(super) fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Places from query to query.
    pub(super) fn stride(&self) -> u32 {
        self.capacity * self.keep
    }

    /// Makes room for `lists` more; gives the first of them.
    pub(super) async fn reserve(&mut self, job: &mut Job<'_>, lists: u32) -> Result<u32, EngineError> {
        if self.filled + lists > self.capacity && self.filled > 1 {
            let other = match self.other.take() {
                Some(other) => other,
                None => (job.rec.scratch(self.now.0.raw().size())?, job.rec.scratch(self.now.1.raw().size())?),
            };
            self.merge_into(job, &other, self.stride()).await?;
            self.other = Some(std::mem::replace(&mut self.now, other));
            self.filled = 1;
        }
        if self.filled + lists > self.capacity {
            return Err(EngineError::Mismatch(format!("{lists} partial results, room for {}", self.capacity)));
        }
        let first = self.filled;
        self.filled += lists;
        Ok(first)
    }

    /// Keys and positions, for a kernel that is told which list to write.
    pub(super) fn lists(&self) -> [Bind; 2] {
        let bytes = u64::from(self.queries) * u64::from(self.stride()) * 4;
        [Bind::first(&self.now.0, bytes), Bind::first(&self.now.1, bytes)]
    }

    /// Keys and positions from list `list` on, for a kernel that writes at the front. `keep` must then be a multiple of
    /// 64, which is what a binding's offset asks for.
    pub(super) fn lists_from(&self, list: u32) -> [Bind; 2] {
        let bytes = u64::from(self.queries) * u64::from(self.stride()) * 4;
        let offset = u64::from(list) * u64::from(self.keep) * 4;
        [Bind::part(&self.now.0, offset, bytes - offset), Bind::part(&self.now.1, offset, bytes - offset)]
    }

    /// All lists as they are, where they are so few that the host merges them sooner than another kernel would start: keys,
    /// positions, and places per query.
    pub(super) fn unmerged(&self) -> Option<(Bind, Bind, usize)> {
        let few = u64::from(self.queries) * u64::from(self.stride()) <= FEW_PLACES;
        let [keys, positions] = self.lists();
        (few && self.filled == self.capacity).then_some((keys, positions, self.stride() as usize))
    }

    /// The `keep` best of each query, in no order: keys and positions `[queries, keep]` without gaps.
    pub(super) async fn finish(self, job: &mut Job<'_>, keep: u32) -> Result<(Bind, Bind), EngineError> {
        let bytes = u64::from(self.queries) * u64::from(keep) * 4;
        if self.filled == 1 && self.capacity == 1 && keep == self.keep {
            return Ok((Bind::first(&self.now.0, bytes), Bind::first(&self.now.1, bytes)));
        }
        let target = (job.rec.scratch(bytes)?, job.rec.scratch(bytes)?);
        let selection = Selection { k: keep, out_stride: keep, ..self.selection() };
        select::record(job, &selection, self.sources(), [Bind::first(&target.0, bytes), Bind::first(&target.1, bytes)])
            .await?;
        Ok((Bind::first(&target.0, bytes), Bind::first(&target.1, bytes)))
    }

    async fn merge_into(
        &self,
        job: &mut Job<'_>,
        target: &(Arc<Buffer>, Arc<Buffer>),
        out_stride: u32,
    ) -> Result<(), EngineError> {
        let selection = Selection { out_stride, ..self.selection() };
        select::record(job, &selection, self.sources(), [Bind::whole(&target.0), Bind::whole(&target.1)]).await
    }

    fn sources(&self) -> (Bind, Option<Bind>) {
        let [keys, positions] = self.lists();
        (keys, Some(positions))
    }

    fn selection(&self) -> Selection {
        Selection {
            stage: "merge",
            segments: self.queries,
            width: self.filled * self.keep,
            in_stride: self.stride(),
            out_stride: self.stride(),
            k: self.keep,
            position_base: 0,
            nan_is_missing: false,
        }
    }
}
