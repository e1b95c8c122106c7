//! Uploads in pieces, and how much of the budget they leave.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::machine::Machine;
use super::memory::{Buffer, Hold};
use super::rows;
use crate::compute::EngineError;
use crate::stats::{SearchStats, Stage};
use crate::types::RowsView;

/// Whether a base of so many bytes fits a budget beside scratch and the staging of its upload.
pub(super) fn bytes_fit(limit: u64, bytes: u64, scratch: u64) -> bool {
    bytes.saturating_add(scratch).saturating_add(2 * staging_bytes(limit)) <= limit
}

/// Bytes that are staged at a time for an upload: two of these are under way.
pub(super) fn staging_bytes(limit: u64) -> u64 {
    (limit / 32).clamp(4096, 16 << 20) / 16 * 16
}

/// An upload in pieces, so that the driver never stages a whole base at once: one piece is on its way while the next is
/// filled.
pub(super) struct Upload<'a> {
    machine: &'a Machine,
    /// Most bytes of a piece.
    piece: u64,
    staged: u64,
    hold: Option<Hold>,
    under_way: VecDeque<(wgpu::SubmissionIndex, Hold)>,
    /// Time spent so far.
    pub(super) spent: Duration,
}

impl<'a> Upload<'a> {
    pub(super) fn new(machine: &'a Machine, piece: u64) -> Upload<'a> {
        Upload { machine, piece, staged: 0, hold: None, under_way: VecDeque::new(), spent: Duration::ZERO }
    }

    /// Writes `count` rows from `start` on to place `at` of a shard.
    pub(super) async fn rows(
        &mut self,
        target: &Buffer,
        at: usize,
        view: &RowsView<'_>,
        start: usize,
        count: usize,
    ) -> Result<(), EngineError> {
        let stride = rows::row_bytes(view.dtype(), view.dim());
        let step = ((self.piece / stride) as usize).max(1);
        let mut done = 0;
        while done < count {
            let next = (done + step).min(count);
            let packed = rows::pack(view, start + done, start + next);
            self.write(target, (at + done) as u64 * stride, &packed).await?;
            done = next;
        }
        Ok(())
    }

    /// Writes whole words.
    pub(super) async fn write(&mut self, target: &Buffer, at: u64, bytes: &[u8]) -> Result<(), EngineError> {
        let mut at = at;
        for piece in bytes.chunks(self.piece as usize) {
            if self.staged + piece.len() as u64 > self.piece {
                self.send().await?;
            }
            let began = Instant::now();
            if self.hold.is_none() {
                self.hold = Some(self.machine.memory.hold(self.piece)?);
            }
            let context = &self.machine.context;
            context.scoped(piece.len() as u64, || context.queue.write_buffer(target.raw(), at, piece))?;
            at += piece.len() as u64;
            self.staged += piece.len() as u64;
            self.spent += began.elapsed();
        }
        Ok(())
    }

    /// Starts the transfer of the staged bytes, and waits until there is room for the next piece.
    pub(super) async fn send(&mut self) -> Result<(), EngineError> {
        let Some(hold) = self.hold.take() else { return Ok(()) };
        let began = Instant::now();
        let context = &self.machine.context;
        let submission = context.scoped(0, || context.queue.submit([]))?;
        self.staged = 0;
        self.under_way.push_back((submission, hold));
        if self.under_way.len() > 1
            && let Some((oldest, _hold)) = self.under_way.pop_front()
        {
            context.wait(Some(oldest)).await?;
        }
        self.spent += began.elapsed();
        Ok(())
    }

    /// Starts the rest of the transfer and waits for all of it.
    pub(super) async fn finish(mut self, stats: &mut SearchStats) -> Result<(), EngineError> {
        self.send().await?;
        let began = Instant::now();
        while let Some((submission, _hold)) = self.under_way.pop_front() {
            self.machine.context.wait(Some(submission)).await?;
        }
        if self.spent > Duration::ZERO {
            stats.add_stage(Stage::UPLOAD, self.spent + began.elapsed(), false);
        }
        Ok(())
    }
}
