//! Inverted lists in device memory: whole blocks of rows in the order of their slots, as `ops::scan::Layout` packs
//! them.
//!
//! They lie in shards of at most one storage binding, cut where a scan cuts lists into items, so that no item lies in two.
//! Lists that do not fit the budget are streamed (see `lower::scan`).

use std::sync::{Arc, Weak};

use super::machine::Machine;
use super::memory::{Buffer, ROWS};
use super::upload::{Upload, bytes_fit, staging_bytes};
use crate::compute::{EngineError, Tag};
use crate::ops::lists::{BLOCK, Lists};
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
    shards: Vec<ListShard>,
}

impl Held {
    /// Brings lists to the device.
    pub(super) async fn upload(
        machine: &Machine,
        listed: &Listed<'_>,
        stats: &mut SearchStats,
    ) -> Result<Held, EngineError> {
        let shards = upload(machine, &Layout::of(listed.lists), listed.lists, stats).await?;
        Ok(Held { id: Arc::downgrade(listed.tag.id()), epoch: listed.tag.epoch(), shards })
    }

    /// What is here.
    pub(super) fn shards(&self) -> Vec<ListShard> {
        self.shards.clone()
    }

    /// Whether these are the lists of a tag as they are now.
    pub(super) fn is_of(&self, tag: &Tag) -> bool {
        self.names(tag) && self.epoch == tag.epoch()
    }

    /// Whether they belong to a tag, in whatever state.
    fn names(&self, tag: &Tag) -> bool {
        std::ptr::eq(self.id.as_ptr(), Arc::as_ptr(tag.id()))
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
    stats: &mut SearchStats,
) -> Result<Vec<ListShard>, EngineError> {
    check(layout, lists)?;
    let most = most_slots(machine, layout);
    let mut upload = Upload::new(machine, staging_bytes(machine.memory.limit()));
    let mut shards: Vec<ListShard> = Vec::new();
    let (mut packed, mut written) = (Vec::new(), 0);
    let mut ends = shard_ends(lists, most).into_iter();
    for (number, list) in lists.lists.iter().enumerate() {
        for piece in pieces(number as u32, list.len()) {
            let slot = lists.starts[number] + piece.place;
            if shards.last().is_none_or(|shard| slot >= shard.end) {
                flush(&mut upload, &shards, &mut packed, &mut written).await?;
                let Some(end) = ends.next() else { break };
                let bytes = bytes_of(layout, u64::from(end - slot));
                let words = Arc::new(machine.memory.buffer(&machine.context, "nearfield.lists", bytes, ROWS)?);
                shards.push(ListShard { first: slot, end, words });
                written = 0;
                stats.chunks_uploaded += 1;
            }
            pack(layout, lists, piece, &mut packed);
            if packed.len() > 1 << 20 {
                flush(&mut upload, &shards, &mut packed, &mut written).await?;
            }
        }
    }
    flush(&mut upload, &shards, &mut packed, &mut written).await?;
    upload.finish(stats).await?;
    Ok(shards)
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

/// Appends the packed rows to the last shard.
async fn flush(
    upload: &mut Upload<'_>,
    shards: &[ListShard],
    packed: &mut Vec<u32>,
    written: &mut u64,
) -> Result<(), EngineError> {
    if let Some(shard) = shards.last().filter(|_| !packed.is_empty()) {
        upload.write(&shard.words, *written, bytemuck::cast_slice(packed)).await?;
        *written += packed.len() as u64 * 4;
        packed.clear();
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
