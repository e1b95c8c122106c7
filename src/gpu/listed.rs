//! Inverted lists in device memory: whole blocks of rows in the order of their slots, as `ops::scan::Layout` packs
//! them.
//!
//! They lie in shards of at most one storage binding, cut where a scan cuts lists into items, so that no item lies in two.
//! Lists that do not fit the budget are streamed (see `lower::scan`).

use std::sync::{Arc, Weak};

use super::machine::Machine;
use super::memory::{Buffer, ROWS};
use super::submit::{Bind, Recorder};
use super::upload::{Upload, bytes_fit, staging_bytes};
use crate::compute::{EngineError, Tag};
use crate::ops::lists::{BLOCK, List, Lists};
use crate::ops::scan::Listed;
use crate::ops::scan::{ITEM_ROWS, Layout};
use crate::stats::SearchStats;

/// Slots `first..end` of all lists in one buffer.
#[derive(Clone, Debug)]
pub(super) struct ListShard {
    pub(super) first: u32,
    pub(super) end: u32,
    pub(super) words: Arc<Buffer>,
}

/// Rows of one list that a scan takes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) list: u32,
    /// The first of its rows, a multiple of [`BLOCK`].
    pub(super) place: u32,
    pub(super) rows: u32,
}

impl Piece {
    /// Slots that it takes.
    pub(super) fn slots(&self) -> u32 {
        self.rows.next_multiple_of(BLOCK as u32)
    }
}

/// The pieces of a list of so many rows.
pub(super) fn pieces(list: u32, rows: usize) -> impl Iterator<Item = Piece> {
    let rows = rows as u32;
    (0..rows.div_ceil(ITEM_ROWS)).map(move |i| {
        let place = i * ITEM_ROWS;
        Piece { list, place, rows: (rows - place).min(ITEM_ROWS) }
    })
}

/// Appends the blocks of a piece to `packed`.
pub(super) fn pack(layout: &Layout, lists: &Lists, piece: Piece, packed: &mut Vec<u32>) {
    let Some(list) = lists.lists.get(piece.list as usize) else { return };
    let words = layout.row_words() * BLOCK;
    let start = packed.len();
    packed.resize(start + piece.slots() as usize / BLOCK * words, 0);
    for (i, block) in packed[start..].chunks_mut(words).enumerate() {
        layout.pack(list, piece.place as usize + i * BLOCK, block);
    }
}

/// Bytes of so many slots, with those that a kernel may read behind them.
pub(super) fn bytes_of(layout: &Layout, slots: u64) -> u64 {
    4 * (slots * layout.row_words() as u64 + layout.slack() as u64)
}

/// Most slots of one binding.
pub(super) fn most_slots(machine: &Machine, layout: &Layout) -> u32 {
    let limits = &machine.context.limits;
    let binding = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).min((2 << 30) - 4);
    let slots = (binding / 4).saturating_sub(layout.slack() as u64) / layout.row_words() as u64;
    (slots.min(u64::from(u32::MAX)) as u32).max(ITEM_ROWS)
}

/// Lists in device memory.
pub(super) struct Held {
    id: Weak<u64>,
    epoch: u64,
    layout: Layout,
    /// Rows of each list.
    rows: Vec<u32>,
    /// The first slot of each list.
    starts: Vec<u32>,
    shards: Vec<ListShard>,
}

impl Held {
    /// Brings lists to the device.
    pub(super) async fn upload(
        machine: &Machine,
        listed: &Listed<'_>,
        stats: &mut SearchStats,
    ) -> Result<Held, EngineError> {
        Held::fill(None, machine, listed, stats).await
    }

    /// Lists to which rows were appended: what is here is copied on the device, only the blocks of new rows come from the
    /// host. Both are there for that long.
    pub(super) async fn grown(
        &self,
        machine: &Machine,
        listed: &Listed<'_>,
        stats: &mut SearchStats,
    ) -> Result<Held, EngineError> {
        Held::fill(Some(self), machine, listed, stats).await
    }

    async fn fill(
        before: Option<&Held>,
        machine: &Machine,
        listed: &Listed<'_>,
        stats: &mut SearchStats,
    ) -> Result<Held, EngineError> {
        let (lists, layout) = (listed.lists, Layout::of(listed.lists));
        let shards = upload(machine, &layout, lists, before, stats).await?;
        Ok(Held {
            id: Arc::downgrade(listed.tag.id()),
            epoch: listed.tag.epoch(),
            layout,
            rows: lists.lists.iter().map(|list| list.len() as u32).collect(),
            starts: lists.starts.clone(),
            shards,
        })
    }

    /// Whether these are the lists as they were before rows were appended; that they are the lists of the tag is known.
    pub(super) fn grows_to(&self, lists: &Lists) -> bool {
        let more = |(i, &rows): (usize, &u32)| lists.lists.get(i).is_some_and(|list| list.len() >= rows as usize);
        self.layout == Layout::of(lists) && self.rows.iter().enumerate().all(more)
    }

    /// Whether every row of the lists is here, and no other.
    pub(super) fn is_whole(&self, lists: &Lists) -> bool {
        let same = |(list, &rows): (&List, &u32)| list.len() == rows as usize;
        self.rows.len() == lists.lists.len() && lists.lists.iter().zip(&self.rows).all(same)
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.words.raw().size()).sum()
    }

    /// Slots of the full blocks of a list.
    fn full(&self, list: u32) -> u32 {
        self.rows.get(list as usize).map_or(0, |rows| rows / BLOCK as u32 * BLOCK as u32)
    }

    /// The buffer with a slot, and the place of the slot in it.
    fn find(&self, list: u32, place: u32) -> Option<(&ListShard, u32)> {
        let slot = self.starts.get(list as usize)? + place;
        let shard = self.shards.get(self.shards.partition_point(|shard| shard.end <= slot))?;
        Some((shard, slot - shard.first))
    }

    /// What is here.
    pub(super) fn shards(&self) -> Vec<ListShard> {
        self.shards.clone()
    }

    /// Whether these are the lists of a tag as they are now.
    pub(super) fn is_of(&self, tag: &Tag) -> bool {
        tag.owns(&self.id) && self.epoch == tag.epoch()
    }
}

/// Bytes of all lists on the device.
pub(super) fn all_bytes(lists: &Lists) -> u64 {
    bytes_of(&Layout::of(lists), lists.slots() as u64)
}

/// Whether lists fit a budget.
pub(super) fn fits(limit: u64, lists: &Lists, scratch: u64) -> bool {
    bytes_fit(limit, all_bytes(lists), scratch)
}

/// Brings all lists to the device.
async fn upload(
    machine: &Machine,
    layout: &Layout,
    lists: &Lists,
    before: Option<&Held>,
    stats: &mut SearchStats,
) -> Result<Vec<ListShard>, EngineError> {
    check(layout, lists)?;
    let most = most_slots(machine, layout);
    let each = layout.row_words() as u64 * 4;
    let mut spent = SearchStats::default();
    let mut copies = Recorder::new(machine, &mut spent);
    let mut upload = Upload::new(machine, staging_bytes(machine.memory.limit()));
    let mut shards: Vec<ListShard> = Vec::new();
    let mut run = Run::default();
    let mut ends = shard_ends(lists, most).into_iter();
    for (number, list) in lists.lists.iter().enumerate() {
        for piece in pieces(number as u32, list.len()) {
            let slot = lists.starts[number] + piece.place;
            if shards.last().is_none_or(|shard| slot >= shard.end) {
                run.write(&mut upload).await?;
                let Some(end) = ends.next() else { break };
                let bytes = bytes_of(layout, u64::from(end - slot));
                let words = Arc::new(machine.memory.buffer(&machine.context, "nearfield.lists", bytes, ROWS)?);
                shards.push(ListShard { first: slot, end, words });
                stats.chunks_uploaded += u64::from(before.is_none());
            }
            let Some(shard) = shards.last() else { break };
            // Pieces are cut in the same places whatever comes behind them, so none lies in two buffers.
            let there = before.map_or(0, |held| held.full(piece.list)).clamp(piece.place, piece.place + piece.rows);
            let copied = (there - piece.place) / BLOCK as u32 * BLOCK as u32;
            if let Some((from, at)) = before.and_then(|held| held.find(piece.list, piece.place)).filter(|_| copied > 0)
            {
                let bytes = u64::from(copied) * each;
                let to = Bind::part(&shard.words, u64::from(slot - shard.first) * each, bytes);
                copies.copy(Bind::part(&from.words, u64::from(at) * each, bytes), to);
            }
            let rest = Piece { place: piece.place + copied, rows: piece.rows - copied, ..piece };
            if rest.rows > 0 {
                run.begin(&mut upload, shard, u64::from(slot + copied - shard.first) * each).await?;
                pack(layout, lists, rest, &mut run.packed);
            }
        }
    }
    run.write(&mut upload).await?;
    upload.finish(stats).await?;
    copies.finish().await?;
    Ok(shards)
}

/// Words that lie one after the other in a buffer, on their way there.
#[derive(Default)]
struct Run {
    packed: Vec<u32>,
    target: Option<(Arc<Buffer>, u64)>,
}

impl Run {
    /// What is packed next lies at this byte of a shard: a new run unless it goes on there and is short.
    async fn begin(&mut self, upload: &mut Upload<'_>, shard: &ListShard, at: u64) -> Result<(), EngineError> {
        let end = self.packed.len() as u64 * 4;
        let goes_on = |(buffer, begin): &(Arc<Buffer>, u64)| Arc::ptr_eq(buffer, &shard.words) && begin + end == at;
        if self.packed.len() > 1 << 20 || !self.target.as_ref().is_some_and(goes_on) {
            self.write(upload).await?;
            self.target = Some((shard.words.clone(), at));
        }
        Ok(())
    }

    /// Brings it there.
    async fn write(&mut self, upload: &mut Upload<'_>) -> Result<(), EngineError> {
        if let Some((buffer, at)) = self.target.take().filter(|_| !self.packed.is_empty()) {
            upload.write(&buffer, at, bytemuck::cast_slice(&self.packed)).await?;
        }
        self.packed.clear();
        Ok(())
    }
}

/// Whether every list has the words and slots that its rows ask for.
fn check(layout: &Layout, lists: &Lists) -> Result<(), EngineError> {
    let mut slot = 0;
    for (number, list) in lists.lists.iter().enumerate() {
        let slots = list.len().next_multiple_of(BLOCK);
        let words = layout.form.words(layout.dim) * slots;
        if list.words.len() != words || lists.starts.get(number) != Some(&slot) {
            return Err(EngineError::Mismatch(format!(
                "list {number} of {} rows: found {} words from slot {:?} on, wanted {words} from {slot}",
                list.len(),
                list.words.len(),
                lists.starts.get(number)
            )));
        }
        slot += slots as u32;
    }
    Ok(())
}

/// Where shards of at most `most` slots end.
fn shard_ends(lists: &Lists, most: u32) -> Vec<u32> {
    let mut ends = Vec::new();
    let mut first = 0;
    let mut end = 0;
    for (number, list) in lists.lists.iter().enumerate() {
        for piece in pieces(number as u32, list.len()) {
            let slot = lists.starts[number] + piece.place;
            if slot + piece.slots() - first > most && slot > first {
                ends.push(slot);
                first = slot;
            }
            end = slot + piece.slots();
        }
    }
    ends.push(end);
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::lists::{Encoded, Form};

    #[test]
    fn shards_are_cut_between_pieces() {
        let mut lists = Lists::new(Form::Integers(8), 4, 4);
        let counts = [700usize, 0, 17, 1100];
        let to: Vec<u32> = counts.iter().enumerate().flat_map(|(l, &n)| vec![l as u32; n]).collect();
        lists.append(&Encoded { codes: vec![1; to.len() * 4], ..Encoded::default() }, &to, 0);
        assert_eq!(lists.starts, [0, 704, 704, 736, 1840]);
        assert_eq!(shard_ends(&lists, 10_000), [1840]);
        assert_eq!(shard_ends(&lists, 736), [736, 1248, 1840]);
        assert_eq!(shard_ends(&lists, 512), [512, 736, 1248, 1760, 1840]);
        let rows: u32 = (0..4).flat_map(|l| pieces(l, counts[l as usize])).map(|p| p.rows).sum();
        assert_eq!(rows as usize, to.len());
    }
}
