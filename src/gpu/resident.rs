//! Copies of bases in device memory, so that the rows of an index cross the bus once.
//!
//! A base lies in shards of at most one storage binding and 2 GiB. Appended rows go into the free end of the last shard
//! and then into new shards, each half as large as all before it, so that there are few. What is not searched for the
//! longest goes first when another base needs the room. A base that can never fit is streamed (see `stream`).

use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use super::copies::{Copied, CopyForm, CopyShard};
use super::listed::{self, Held, ListShard};
use super::machine::Machine;
use super::memory::{Buffer, ROWS};
use super::rows;
use super::sync::lock;
use super::upload::{Upload, bytes_fit, staging_bytes};
use crate::engine::{Base, EngineError, Listed, Tag};
use crate::stats::SearchStats;
use crate::types::{DType, RowsView};

/// Rows of a base in one buffer.
#[derive(Clone, Debug)]
pub(super) struct Shard {
    /// Position of its first row in the base.
    pub(super) first: usize,
    /// Rows that it holds.
    pub(super) rows: usize,
    /// Rows that it has room for.
    capacity: usize,
    /// Rows that were written when the buffer was made.
    filled: usize,
    pub(super) data: Arc<Buffer>,
    /// Lengths of the rows, where the base has them.
    pub(super) norms: Option<Arc<Buffer>>,
    /// Rows whose lengths are there.
    normed: usize,
}

impl Shard {
    /// Rows that are on the device for the moment.
    pub(super) fn chunk(first: usize, rows: usize, data: Arc<Buffer>, norms: Option<Arc<Buffer>>) -> Shard {
        Shard { first, rows, capacity: rows, filled: 0, data, norms, normed: rows }
    }

    /// Writes the lengths of the rows that have none yet; they may come in a later run than the rows.
    fn write_norms(&mut self, machine: &Machine, upload: &mut Upload<'_>, norms: &[f32]) -> Result<(), EngineError> {
        let buffer = match &self.norms {
            Some(buffer) => buffer.clone(),
            None => {
                let bytes = 4 * self.capacity as u64;
                Arc::new(machine.memory.buffer(&machine.context, "nearfield.norms", bytes, ROWS)?)
            }
        };
        let missing = slice(norms, self.first + self.normed, self.rows - self.normed)?;
        upload.write(&buffer, 4 * self.normed as u64, bytemuck::cast_slice(missing))?;
        (self.norms, self.normed) = (Some(buffer), self.rows);
        Ok(())
    }
}

/// A base in device memory.
struct Resident {
    id: Weak<u64>,
    epoch: u64,
    dtype: DType,
    dim: usize,
    rows: usize,
    shards: Vec<Shard>,
    last_used: u64,
}

impl Resident {
    fn new(tag: Option<&Tag>, view: &RowsView<'_>) -> Resident {
        Resident {
            id: tag.map(|t| Arc::downgrade(t.id())).unwrap_or_default(),
            epoch: tag.map_or(0, Tag::epoch),
            dtype: view.dtype(),
            dim: view.dim(),
            rows: 0,
            shards: Vec::new(),
            last_used: 0,
        }
    }

    fn is_copy_of(&self, tag: &Tag, view: &RowsView<'_>) -> bool {
        self.names(tag)
            && self.epoch == tag.epoch()
            && (self.dtype, self.dim) == (view.dtype(), view.dim())
            && self.rows <= view.rows()
    }

    fn names(&self, tag: &Tag) -> bool {
        std::ptr::eq(self.id.as_ptr(), Arc::as_ptr(tag.id()))
    }
}

/// What lies in device memory, and when it was used last.
#[derive(Default)]
struct Store {
    bases: Vec<Resident>,
    copies: Vec<Copied>,
    lists: Vec<Held>,
    clock: u64,
}

/// All bases in device memory, the copies that screens read, and lists.
#[derive(Default)]
pub(super) struct Residents {
    store: Mutex<Store>,
}

/// Bytes that a row takes on the device, its length included.
pub(super) fn bytes_per_row(view: &RowsView<'_>, norms: bool) -> u64 {
    rows::row_bytes(view.dtype(), view.dim()) + if norms { 4 } else { 0 }
}

/// Bytes of a whole base on the device.
pub(super) fn base_bytes(base: &Base<'_>) -> u64 {
    bytes_per_row(&base.rows, base.norms.is_some()).saturating_mul(base.rows.rows() as u64)
}

/// Whether a base fits a budget.
pub(super) fn fits(limit: u64, base: &Base<'_>, scratch: u64) -> bool {
    bytes_fit(limit, base_bytes(base), scratch)
}

impl Residents {
    /// The shards of a base, uploaded as far as they are not there yet; `None` when the base does not fit the budget
    /// beside `scratch` bytes.
    pub(super) fn place(
        &self,
        machine: &Machine,
        base: &Base<'_>,
        scratch: u64,
        stats: &mut SearchStats,
    ) -> Result<Option<Vec<Shard>>, EngineError> {
        let limit = machine.memory.limit();
        if !bytes_fit(limit, base_bytes(base), scratch) {
            return Ok(None);
        }
        let wanted = base_bytes(base);
        let staging = staging_bytes(limit);
        let mut store = lock(&self.store);
        let now = store.tick();
        let Some(tag) = base.tag else {
            let mut once = Resident::new(None, &base.rows);
            store.make_room(machine, wanted + scratch + 2 * staging, None);
            drop(store);
            once.append(machine, base, stats)?;
            return Ok(Some(once.shards));
        };
        store.bases.retain(|b| !b.names(tag) || b.is_copy_of(tag, &base.rows));
        if !store.bases.iter().any(|b| b.names(tag)) {
            store.bases.push(Resident::new(Some(tag), &base.rows));
        }
        let there = store.bases.iter().find(|b| b.names(tag)).map_or(0, |b| b.rows);
        let missing = bytes_per_row(&base.rows, base.norms.is_some()) * (base.rows.rows() - there) as u64;
        if missing > 0 {
            store.make_room(machine, missing + scratch + 2 * staging, Some(tag));
        }
        let Some(resident) = store.bases.iter_mut().find(|b| b.names(tag)) else { return Ok(None) };
        resident.last_used = now;
        if let Err(error) = resident.append(machine, base, stats) {
            store.bases.retain(|b| !b.names(tag));
            return Err(error);
        }
        Ok(Some(resident.shards.clone()))
    }

    /// Bytes of a base that are not on the device.
    pub(super) fn missing_bytes(&self, base: &Base<'_>) -> u64 {
        let there = base.tag.map_or(0, |tag| {
            let store = lock(&self.store);
            store.bases.iter().find(|b| b.is_copy_of(tag, &base.rows)).map_or(0, |b| b.rows)
        });
        bytes_per_row(&base.rows, base.norms.is_some()) * (base.rows.rows().saturating_sub(there)) as u64
    }

    /// The shards of a copy, uploaded as far as they are not there yet. The caller has seen that it [`fits`].
    pub(super) fn place_copy(
        &self,
        machine: &Machine,
        form: &CopyForm<'_>,
        tag: &Tag,
        scratch: u64,
        stats: &mut SearchStats,
    ) -> Result<Vec<CopyShard>, EngineError> {
        let mut store = lock(&self.store);
        let now = store.tick();
        store.copies.retain(|c| c.alive() && (!c.is_of(tag, form) || c.fresh(tag, form)));
        let mut copied = match store.copies.iter().position(|c| c.is_of(tag, form)) {
            Some(place) => store.copies.remove(place),
            None => Copied::new(tag, form),
        };
        copied.last_used = now;
        let missing = copied.missing_bytes(form);
        if missing > 0 {
            store.make_room(machine, missing + scratch + 2 * staging_bytes(machine.memory.limit()), None);
        }
        // After an error it is gone, and is made anew the next time.
        copied.append(machine, form, stats)?;
        let shards = copied.shards();
        store.copies.push(copied);
        Ok(shards)
    }

    /// The shards of lists, uploaded if they are not there yet; `None` when they do not fit the budget.
    pub(super) fn place_lists(
        &self,
        machine: &Machine,
        lists: &Listed<'_>,
        scratch: u64,
        stats: &mut SearchStats,
    ) -> Result<Option<Vec<ListShard>>, EngineError> {
        let limit = machine.memory.limit();
        if !listed::fits(limit, lists.lists, scratch) {
            return Ok(None);
        }
        let mut store = lock(&self.store);
        let now = store.tick();
        store.lists.retain(|held| !held.names(lists.tag) || held.is_of(lists.tag));
        if let Some(held) = store.lists.iter_mut().find(|held| held.names(lists.tag)) {
            held.last_used = now;
            return Ok(Some(held.shards()));
        }
        let bytes = listed::all_bytes(lists.lists);
        store.make_room(machine, bytes + scratch + 2 * staging_bytes(limit), None);
        let mut held = Held::upload(machine, lists, stats)?;
        held.last_used = now;
        let shards = held.shards();
        store.lists.push(held);
        Ok(Some(shards))
    }

    /// Bytes of lists that are not on the device.
    pub(super) fn missing_lists(&self, lists: &Listed<'_>) -> u64 {
        let store = lock(&self.store);
        let there = store.lists.iter().any(|held| held.is_of(lists.tag));
        if there { 0 } else { listed::all_bytes(lists.lists) }
    }

    /// Drops bases, the longest unused first, until so many bytes are free.
    pub(super) fn make_room(&self, machine: &Machine, bytes: u64) {
        lock(&self.store).make_room(machine, bytes, None);
    }

    /// Gives up every base that no search is using.
    pub(super) fn clear(&self) {
        let mut store = lock(&self.store);
        store.bases.clear();
        store.copies.clear();
        store.lists.clear();
    }
}

impl Store {
    /// Drops what belongs to bases that are gone; gives the time of a new use.
    pub(super) fn tick(&mut self) -> u64 {
        self.bases.retain(|b| b.id.strong_count() > 0);
        self.copies.retain(Copied::alive);
        self.lists.retain(Held::alive);
        self.clock += 1;
        self.clock
    }

    /// Drops bases, copies and lists, the longest unused first, until so many bytes are free or only the rows of `keep` are
    /// left.
    pub(super) fn make_room(&mut self, machine: &Machine, bytes: u64, keep: Option<&Tag>) {
        /// When the longest unused was used, and its place.
        fn oldest(used: impl Iterator<Item = (usize, u64)>) -> Option<(u64, usize)> {
            used.map(|(i, used)| (used, i)).min()
        }
        while machine.memory.free() < bytes {
            let others = self.bases.iter().enumerate().filter(|(_, b)| !keep.is_some_and(|tag| b.names(tag)));
            let base = oldest(others.map(|(i, b)| (i, b.last_used)));
            let copy = oldest(self.copies.iter().enumerate().map(|(i, c)| (i, c.last_used)));
            let lists = oldest(self.lists.iter().enumerate().map(|(i, l)| (i, l.last_used)));
            let first = [base, copy, lists].into_iter().flatten().map(|(used, _)| used).min();
            match (base, copy, lists) {
                (Some((used, i)), ..) if Some(used) == first => drop(self.bases.remove(i)),
                (_, Some((used, i)), _) if Some(used) == first => drop(self.copies.remove(i)),
                (_, _, Some((_, i))) => drop(self.lists.remove(i)),
                _ => return,
            }
        }
    }
}

impl Resident {
    /// Uploads the rows that are not here yet, and the lengths where they have become known.
    fn append(&mut self, machine: &Machine, base: &Base<'_>, stats: &mut SearchStats) -> Result<(), EngineError> {
        let mut upload = Upload::new(machine, staging_bytes(machine.memory.limit()));
        let total = base.rows.rows();
        while self.rows < total {
            let room = self.shards.last().map_or(0, |s| s.capacity - s.rows);
            if room == 0 {
                let began = Instant::now();
                self.grow(machine, base, total)?;
                upload.spent += began.elapsed();
                continue;
            }
            let Some(shard) = self.shards.last_mut() else { break };
            let count = room.min(total - self.rows);
            if shard.filled < shard.rows + count {
                upload.rows(&shard.data, shard.rows, &base.rows, self.rows, count)?;
            }
            shard.rows += count;
            self.rows += count;
            stats.chunks_uploaded += 1;
        }
        if let Some(norms) = base.norms {
            for shard in self.shards.iter_mut().filter(|s| s.normed < s.rows) {
                shard.write_norms(machine, &mut upload, norms)?;
            }
        }
        upload.finish(stats)
    }

    /// Adds a shard with room for the rows that are missing; when it is not the first, for some more to come.
    fn grow(&mut self, machine: &Machine, base: &Base<'_>, total: usize) -> Result<(), EngineError> {
        let most = max_shard_rows(machine, &base.rows);
        let missing = total - self.rows;
        let each = bytes_per_row(&base.rows, base.norms.is_some());
        let spare = (machine.memory.free() / 2 / each) as usize;
        let capacity = missing.max((self.rows / 2).min(spare)).min(most).max(1);
        let stride = rows::row_bytes(self.dtype, self.dim);
        let bytes = capacity as u64 * stride;
        let filled = if machine.context.mappable() { missing.min(capacity) } else { 0 };
        let data = match filled {
            0 => machine.memory.buffer(&machine.context, "nearfield.rows", bytes, ROWS)?,
            filled => machine.memory.filled_buffer(&machine.context, "nearfield.rows", bytes, |mut view| {
                fill(&mut view, &base.rows, self.rows, filled);
            })?,
        };
        self.shards.push(Shard {
            first: self.rows,
            rows: 0,
            capacity,
            filled,
            data: Arc::new(data),
            norms: None,
            normed: 0,
        });
        Ok(())
    }
}

/// Writes `count` rows from `first` on to the front of mapped memory, some at a time.
fn fill(view: &mut wgpu::BufferViewMut, rows: &RowsView<'_>, first: usize, count: usize) {
    let stride = rows::row_bytes(rows.dtype(), rows.dim()) as usize;
    let step = ((8 << 20) / stride).max(1);
    for start in (0..count).step_by(step) {
        let end = (start + step).min(count);
        let packed = rows::pack(rows, first + start, first + end);
        view.slice(start * stride..end * stride).copy_from_slice(&packed);
    }
}

fn slice<T>(all: &[T], start: usize, count: usize) -> Result<&[T], EngineError> {
    all.get(start..start + count)
        .ok_or_else(|| EngineError::Mismatch(format!("{} norms, at least {} wanted", all.len(), start + count)))
}

/// Rows that one shard may hold: one binding, one buffer, and byte offsets that an i32 can count.
pub(super) fn max_shard_rows(machine: &Machine, view: &RowsView<'_>) -> usize {
    let limits = &machine.context.limits;
    let bytes = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min((2 << 30) - 4);
    ((bytes / rows::row_bytes(view.dtype(), view.dim())) as usize).max(1)
}
