//! Copies of rows in a low precision, for a screen: in device memory beside the rows or without them.
//!
//! They lie in shards and live as rows do (see `resident`), but are smaller by far: where rows do not fit into device
//! memory, their copies often do.

use std::sync::Arc;

use super::halves;
use super::machine::Machine;
use super::memory::{Buffer, ROWS};
use super::upload::{Upload, bytes_fit, staging_bytes};
use crate::compute::{EngineError, Tag};
use crate::ops::codes::{Codes, GROUP};
use crate::stats::SearchStats;
use crate::types::{DType, Metric, RowsView};

/// What is copied.
#[derive(Clone, Copy)]
pub(super) enum CopyForm<'a> {
    /// 8-bit codes as they are.
    Codes(&'a Codes),
    /// f16, made during the upload, with the numbers that a metric needs.
    Halves { metric: Metric, rows: RowsView<'a>, norms: &'a [f32] },
}

impl CopyForm<'_> {
    fn rows(&self) -> usize {
        match self {
            CopyForm::Codes(codes) => codes.rows(),
            CopyForm::Halves { rows, .. } => rows.rows(),
        }
    }

    /// Bytes of a row's components.
    fn stride(&self) -> u64 {
        match self {
            CopyForm::Codes(codes) => codes.dim as u64,
            CopyForm::Halves { rows, .. } => halves::width(rows.dim()) as u64 * 2,
        }
    }

    /// The properties that two copies of the same form share.
    pub(super) fn kind(&self) -> CopyKind {
        match *self {
            CopyForm::Codes(codes) => (None, DType::I8, codes.dim),
            CopyForm::Halves { metric, rows, .. } => (Some(metric), rows.dtype(), rows.dim()),
        }
    }

    /// Bytes of the whole copy on the device.
    pub(super) fn bytes(&self) -> u64 {
        let rows = self.rows() as u64;
        rows * (self.stride() + TERMS) + longest_bytes(rows)
    }

    /// Writes rows `start..end` to place `at` of a shard.
    async fn write(
        &self,
        upload: &mut Upload<'_>,
        shard: &CopyShard,
        at: usize,
        start: usize,
        end: usize,
    ) -> Result<(), EngineError> {
        match self {
            CopyForm::Codes(codes) => {
                upload
                    .write(&shard.data, at as u64 * self.stride(), &codes.bytes[start * codes.dim..end * codes.dim])
                    .await?;
                let term = |r| [codes.square[r], codes.scale[r], codes.residual[r], codes.tail[r]];
                let terms: Vec<[f32; 4]> = (start..end).map(term).collect();
                upload.write(&shard.terms, at as u64 * TERMS, bytemuck::cast_slice(&terms)).await?;
                let groups = start / GROUP..end.div_ceil(GROUP);
                upload
                    .write(&shard.longest, (at / GROUP) as u64 * 4, bytemuck::cast_slice(&codes.longest[groups]))
                    .await
            }
            CopyForm::Halves { metric, rows, norms } => {
                let halves = halves::rows(*metric, rows, norms, start, end);
                upload.write(&shard.data, at as u64 * self.stride(), bytemuck::cast_slice(&halves.bits)).await?;
                upload.write(&shard.terms, at as u64 * TERMS, bytemuck::cast_slice(&halves.terms)).await
            }
        }
    }
}

/// Rows whose terms are put together at a time.
const ROWS_PER_WRITE: usize = 1 << 14;
/// Shards have room for a multiple of this: whole groups, and whole tiles of every shape.
const WHOLE: usize = 256;

/// Bytes of the numbers that stand beside a row's components.
const TERMS: u64 = 16;

fn longest_bytes(rows: u64) -> u64 {
    rows.div_ceil(GROUP as u64) * 4
}

/// Copies of rows in one set of buffers.
#[derive(Clone, Debug)]
pub(super) struct CopyShard {
    /// Position of its first row in the base, a multiple of [`GROUP`].
    pub(super) first: usize,
    /// Rows that it holds.
    pub(super) rows: usize,
    /// Rows that it has room for, a multiple of [`WHOLE`].
    capacity: usize,
    /// The components.
    pub(super) data: Arc<Buffer>,
    /// Four numbers per row.
    pub(super) terms: Arc<Buffer>,
    /// One number per group of rows.
    pub(super) longest: Arc<Buffer>,
}

/// The properties that two copies of the same form share.
pub(super) type CopyKind = (Option<Metric>, DType, usize);

/// All copies of one base in one form.
pub(super) struct Copied {
    epoch: u64,
    rows: usize,
    shards: Vec<CopyShard>,
}

impl Copied {
    /// Nothing of it is there yet.
    pub(super) fn new(tag: &Tag) -> Copied {
        Copied { epoch: tag.epoch(), rows: 0, shards: Vec::new() }
    }

    /// Bytes of the rows that are not here yet.
    pub(super) fn missing_bytes(&self, form: &CopyForm<'_>) -> u64 {
        (form.rows() - self.rows) as u64 * (form.stride() + TERMS + 1)
    }

    /// What is here.
    pub(super) fn shards(&self) -> Vec<CopyShard> {
        self.shards.clone()
    }

    /// Whether it is one of the rows as they are now.
    pub(super) fn fresh(&self, tag: &Tag, form: &CopyForm<'_>) -> bool {
        self.epoch == tag.epoch() && self.rows <= form.rows()
    }

    /// Uploads the rows that are not here yet.
    pub(super) async fn append(
        &mut self,
        machine: &Machine,
        form: &CopyForm<'_>,
        stats: &mut SearchStats,
    ) -> Result<(), EngineError> {
        let mut upload = Upload::new(machine, staging_bytes(machine.memory.limit()));
        let total = form.rows();
        while self.rows < total {
            let room = self.shards.last().map_or(0, |s| s.capacity - s.rows);
            if room == 0 {
                self.grow(machine, form, total)?;
                continue;
            }
            let Some(shard) = self.shards.last_mut() else { break };
            // From the front of a group: the length of its longest row changes with rows that come later.
            let at = shard.rows / GROUP * GROUP;
            let end = (shard.rows + room).min(total - shard.first).min(at + ROWS_PER_WRITE);
            form.write(&mut upload, shard, at, shard.first + at, shard.first + end).await?;
            self.rows = shard.first + end;
            shard.rows = end;
            stats.chunks_uploaded += 1;
        }
        upload.finish(stats).await
    }

    /// Adds a shard with room for the rows that are missing; when it is not the first, for some more to come.
    fn grow(&mut self, machine: &Machine, form: &CopyForm<'_>, total: usize) -> Result<(), EngineError> {
        let limits = &machine.context.limits;
        let each = form.stride().max(TERMS);
        let binding = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min((2 << 30) - 4);
        let most = ((binding / each) as usize / WHOLE * WHOLE).max(WHOLE);
        let spare = (machine.memory.free() / 2 / (form.stride() + TERMS + 1)) as usize;
        let wanted = (total - self.rows).max((self.rows / 2).min(spare));
        let capacity = wanted.next_multiple_of(WHOLE).min(most);
        let buffer =
            |label: &str, bytes: u64| machine.memory.buffer(&machine.context, label, bytes, ROWS).map(Arc::new);
        self.shards.push(CopyShard {
            first: self.rows,
            rows: 0,
            capacity,
            data: buffer("nearfield.codes", capacity as u64 * form.stride())?,
            terms: buffer("nearfield.terms", capacity as u64 * TERMS)?,
            longest: buffer("nearfield.longest", longest_bytes(capacity as u64))?,
        });
        Ok(())
    }
}

/// Whether a copy fits a budget beside `others` bytes that must be there with it.
pub(super) fn fits(machine: &Machine, form: &CopyForm<'_>, others: u64, scratch: u64) -> bool {
    // Whole tiles of rows, and buffers of whole units.
    let slack = (WHOLE as u64 + 16) * (form.stride() + TERMS);
    bytes_fit(machine.memory.limit(), form.bytes().saturating_add(others).saturating_add(slack), scratch)
}
