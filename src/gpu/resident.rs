//! Copies of bases in device memory, so that the rows of an index cross the bus once.
//!
//! A base lies in shards of at most one storage binding and 2 GiB. Appended rows go into the free end of the last shard
//! and then into new shards, each half as large as all before it, so that there are few. What was not used for the
//! longest goes first when something else needs the room. A base that can never fit is streamed (see `stream`).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use super::copies::{Copied, CopyForm, CopyKind, CopyShard};
use super::listed::{self, Held, ListShard};
use super::machine::Machine;
use super::memory::{Buffer, ROWS};
use super::rows;
use super::sync::lock;
use super::upload::{Upload, bytes_fit, staging_bytes};
use crate::compute::{EngineError, Tag, Vectors};
use crate::ops::lists::Lists;
use crate::ops::scan::Listed;
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
    async fn write_norms(
        &mut self,
        machine: &Machine,
        upload: &mut Upload<'_>,
        norms: &[f32],
    ) -> Result<(), EngineError> {
        let buffer = match &self.norms {
            Some(buffer) => buffer.clone(),
            None => {
                let bytes = 4 * self.capacity as u64;
                Arc::new(machine.memory.buffer(&machine.context, "nearfield.norms", bytes, ROWS)?)
            }
        };
        let missing = slice(norms, self.first + self.normed, self.rows - self.normed)?;
        upload.write(&buffer, 4 * self.normed as u64, bytemuck::cast_slice(missing)).await?;
        (self.norms, self.normed) = (Some(buffer), self.rows);
        Ok(())
    }
}

/// Rows of one base in device memory.
struct Resident {
    epoch: u64,
    dtype: DType,
    dim: usize,
    rows: usize,
    shards: Vec<Shard>,
}

impl Resident {
    fn new(epoch: u64, view: &RowsView<'_>) -> Resident {
        Resident { epoch, dtype: view.dtype(), dim: view.dim(), rows: 0, shards: Vec::new() }
    }

    fn is_copy_of(&self, epoch: u64, view: &RowsView<'_>) -> bool {
        let same = (self.epoch, self.dtype, self.dim) == (epoch, view.dtype(), view.dim());
        same && self.rows <= view.rows()
    }
}

/// The part of its owner's memory that is kept.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    /// The rows as they are.
    Rows,
    /// Rows in the form of a screen.
    Copy(CopyKind),
    /// Inverted lists.
    Lists,
    /// A bitmap of rows.
    Bits,
}

/// What is kept.
enum Kept {
    Rows(Resident),
    Copy(Copied),
    Lists(Held),
    /// With the state that it is of, and its words.
    Bits(u64, usize, Arc<Buffer>),
}

/// Something that is kept on the device for as long as its owner lives and there is room.
struct Entry {
    id: Weak<u64>,
    what: What,
    /// Locked while it is uploaded, and by nobody who holds up others.
    kept: async_lock::Mutex<Option<Kept>>,
    /// The state that is there, and how many rows of it: readable while more are uploaded.
    epoch: AtomicU64,
    rows: AtomicUsize,
    last_used: AtomicU64,
}

impl Entry {
    /// Rows that are there of the tag's state.
    fn there(&self, tag: &Tag) -> usize {
        if self.epoch.load(Ordering::Acquire) == tag.epoch() { self.rows.load(Ordering::Acquire) } else { 0 }
    }

    fn note(&self, epoch: u64, rows: usize) {
        self.rows.store(rows, Ordering::Release);
        self.epoch.store(epoch, Ordering::Release);
    }
}

/// Everything that lies in device memory, and when it was used last. The lock is held to find and to drop, never while
/// something is uploaded.
#[derive(Default)]
struct Store {
    /// By address and kind; few, since each belongs to an index.
    entries: Vec<Arc<Entry>>,
    clock: u64,
}

/// All bases in device memory, the copies that screens read, and lists: one store, from which goes first what was not used
/// for the longest.
#[derive(Default)]
pub(super) struct Residents {
    store: Mutex<Store>,
}

/// Bytes that a row takes on the device, its length included.
pub(super) fn bytes_per_row(view: &RowsView<'_>, norms: bool) -> u64 {
    rows::row_bytes(view.dtype(), view.dim()) + if norms { 4 } else { 0 }
}

/// Bytes of a whole base on the device.
pub(super) fn base_bytes(base: &Vectors<'_>) -> u64 {
    bytes_per_row(&base.rows, base.norms.is_some()).saturating_mul(base.rows.rows() as u64)
}

/// Whether a base fits a budget.
pub(super) fn fits(limit: u64, base: &Vectors<'_>, scratch: u64) -> bool {
    bytes_fit(limit, base_bytes(base), scratch)
}

impl Residents {
    /// The shards of a base, uploaded as far as they are not there yet; `None` when the base does not fit the budget
    /// beside `scratch` bytes.
    pub(super) async fn place(
        &self,
        machine: &Machine,
        base: &Vectors<'_>,
        scratch: u64,
        stats: &mut SearchStats,
    ) -> Result<Option<Vec<Shard>>, EngineError> {
        let limit = machine.memory.limit();
        if !bytes_fit(limit, base_bytes(base), scratch) {
            return Ok(None);
        }
        let (wanted, staging) = (base_bytes(base), staging_bytes(limit));
        let Some(tag) = base.tag else {
            let mut once = Resident::new(0, &base.rows);
            self.make_room(machine, wanted + scratch + 2 * staging);
            once.append(machine, base, stats).await?;
            return Ok(Some(once.shards));
        };
        let entry = self.entry(tag, What::Rows);
        let mut kept = entry.kept.lock().await;
        let mut resident = match kept.take() {
            Some(Kept::Rows(resident)) if resident.is_copy_of(tag.epoch(), &base.rows) => resident,
            _ => Resident::new(tag.epoch(), &base.rows),
        };
        let missing = bytes_per_row(&base.rows, base.norms.is_some()) * (base.rows.rows() - resident.rows) as u64;
        if missing > 0 {
            lock(&self.store).make_room(machine, missing + scratch + 2 * staging, Some(&entry));
        }
        // After an error nothing of it is kept, and it is made anew the next time.
        entry.note(tag.epoch(), 0);
        resident.append(machine, base, stats).await?;
        entry.note(tag.epoch(), resident.rows);
        let shards = resident.shards.clone();
        *kept = Some(Kept::Rows(resident));
        Ok(Some(shards))
    }

    /// The entry of something, new if need be, used now.
    fn entry(&self, tag: &Tag, what: What) -> Arc<Entry> {
        let mut store = lock(&self.store);
        let now = store.tick();
        if let Some(entry) = store.entries.iter().find(|e| e.what == what && tag.owns(&e.id)) {
            entry.last_used.store(now, Ordering::Relaxed);
            return entry.clone();
        }
        let entry = Arc::new(Entry {
            id: Arc::downgrade(tag.id()),
            what,
            kept: async_lock::Mutex::default(),
            epoch: AtomicU64::new(tag.epoch()),
            rows: AtomicUsize::new(0),
            last_used: AtomicU64::new(now),
        });
        store.entries.push(entry.clone());
        entry
    }

    /// Rows that are there of something.
    fn there(&self, tag: &Tag, what: What) -> usize {
        let store = lock(&self.store);
        store.entries.iter().find(|e| e.what == what && tag.owns(&e.id)).map_or(0, |entry| entry.there(tag))
    }

    /// Bytes of a base that are not on the device.
    pub(super) fn missing_bytes(&self, base: &Vectors<'_>) -> u64 {
        let there = base.tag.map_or(0, |tag| self.there(tag, What::Rows));
        bytes_per_row(&base.rows, base.norms.is_some()) * (base.rows.rows().saturating_sub(there)) as u64
    }

    /// The shards of a copy, uploaded as far as they are not there yet. The caller has seen that it [`fits`].
    pub(super) async fn place_copy(
        &self,
        machine: &Machine,
        form: &CopyForm<'_>,
        tag: &Tag,
        scratch: u64,
        stats: &mut SearchStats,
    ) -> Result<Vec<CopyShard>, EngineError> {
        let entry = self.entry(tag, What::Copy(form.kind()));
        let mut kept = entry.kept.lock().await;
        let mut copied = match kept.take() {
            Some(Kept::Copy(copied)) if copied.fresh(tag, form) => copied,
            _ => Copied::new(tag),
        };
        let missing = copied.missing_bytes(form);
        if missing > 0 {
            let staging = 2 * staging_bytes(machine.memory.limit());
            lock(&self.store).make_room(machine, missing + scratch + staging, Some(&entry));
        }
        // After an error nothing of it is kept, and it is made anew the next time.
        copied.append(machine, form, stats).await?;
        let shards = copied.shards();
        *kept = Some(Kept::Copy(copied));
        Ok(shards)
    }

    /// The shards of lists, uploaded if they are not there yet; `None` when they do not fit the budget.
    pub(super) async fn place_lists(
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
        let (tag, slots) = (lists.tag, lists.lists.slots());
        let entry = self.entry(tag, What::Lists);
        let mut kept = entry.kept.lock().await;
        // After an error nothing of it is kept, and it is made anew the next time.
        let before = match kept.take() {
            Some(Kept::Lists(held)) if held.is_of(tag) && held.is_whole(lists.lists) => {
                let shards = held.shards();
                *kept = Some(Kept::Lists(held));
                return Ok(Some(shards));
            }
            Some(Kept::Lists(held)) if held.is_of(tag) && held.grows_to(lists.lists) => Some(held),
            _ => None,
        };
        entry.note(tag.epoch(), 0);
        let bytes = listed::all_bytes(lists.lists);
        // Where there is no room for the lists as they were beside those that are made of them, all come from the host.
        let before = before.filter(|held| listed::fits(limit - held.bytes().min(limit), lists.lists, scratch));
        lock(&self.store).make_room(machine, bytes + scratch + 2 * staging_bytes(limit), Some(&entry));
        let held = match &before {
            Some(held) => held.grown(machine, lists, stats).await?,
            None => Held::upload(machine, lists, stats).await?,
        };
        entry.note(tag.epoch(), slots.max(1));
        let shards = held.shards();
        *kept = Some(Kept::Lists(held));
        Ok(Some(shards))
    }

    /// A bitmap, uploaded if it is not there yet.
    pub(super) async fn place_bits(
        &self,
        machine: &Machine,
        words: &[u32],
        tag: &Tag,
        scratch: u64,
        stats: &mut SearchStats,
    ) -> Result<Arc<Buffer>, EngineError> {
        let entry = self.entry(tag, What::Bits);
        let mut kept = entry.kept.lock().await;
        match &*kept {
            Some(Kept::Bits(epoch, held, bits)) if (*epoch, *held) == (tag.epoch(), words.len()) => {
                return Ok(bits.clone());
            }
            _ => *kept = None,
        }
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let size = (bytes.len() as u64).max(4);
        let staging = staging_bytes(machine.memory.limit());
        lock(&self.store).make_room(machine, size + scratch + 2 * staging, Some(&entry));
        let bits = Arc::new(machine.memory.buffer(&machine.context, "nearfield.bits", size, ROWS)?);
        let mut upload = Upload::new(machine, staging);
        upload.write(&bits, 0, bytes).await?;
        upload.finish(stats).await?;
        *kept = Some(Kept::Bits(tag.epoch(), words.len(), bits.clone()));
        Ok(bits)
    }

    /// Bytes of lists that are not on the device.
    pub(super) fn missing_lists(&self, lists: &Lists, tag: &Tag) -> u64 {
        match self.there(tag, What::Lists) {
            0 => listed::all_bytes(lists),
            slots => {
                listed::all_bytes(lists) / lists.slots().max(1) as u64 * lists.slots().saturating_sub(slots) as u64
            }
        }
    }

    /// Drops bases, the longest unused first, until so many bytes are free.
    pub(super) fn make_room(&self, machine: &Machine, bytes: u64) {
        lock(&self.store).make_room(machine, bytes, None);
    }

    /// Gives up every base that no search is using.
    pub(super) fn clear(&self) {
        lock(&self.store).entries.clear();
    }
}

impl Store {
    /// Drops what belongs to owners that are gone; gives the time of a new use.
    fn tick(&mut self) -> u64 {
        self.entries.retain(|e| e.id.strong_count() > 0);
        self.clock += 1;
        self.clock
    }

    /// Drops the least recently used, until so many bytes are free or only `keep` is left.
    fn make_room(&mut self, machine: &Machine, bytes: u64, keep: Option<&Arc<Entry>>) {
        while machine.memory.free() < bytes {
            let others = self.entries.iter().enumerate().filter(|(_, e)| !keep.is_some_and(|k| Arc::ptr_eq(k, e)));
            let oldest = others.min_by_key(|(_, e)| e.last_used.load(Ordering::Relaxed)).map(|(i, _)| i);
            let Some(oldest) = oldest else { return };
            self.entries.remove(oldest);
        }
    }
}

impl Resident {
    /// Uploads the rows that are not here yet, and the lengths where they have become known.
    async fn append(
        &mut self,
        machine: &Machine,
        base: &Vectors<'_>,
        stats: &mut SearchStats,
    ) -> Result<(), EngineError> {
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
                upload.rows(&shard.data, shard.rows, &base.rows, self.rows, count).await?;
            }
            shard.rows += count;
            self.rows += count;
            stats.chunks_uploaded += 1;
        }
        if let Some(norms) = base.norms {
            for shard in self.shards.iter_mut().filter(|s| s.normed < s.rows) {
                shard.write_norms(machine, &mut upload, norms).await?;
            }
        }
        upload.finish(stats).await
    }

    /// Adds a shard with room for the rows that are missing; when it is not the first, for some more to come.
    fn grow(&mut self, machine: &Machine, base: &Vectors<'_>, total: usize) -> Result<(), EngineError> {
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
