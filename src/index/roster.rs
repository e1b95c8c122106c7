//! Who is in an index: the ids of its rows, where they lie, and which of them are gone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::compute::{Candidates, Tag};
use crate::index::BuildError;
use crate::types::{Bitmap, Metric, NO_ID, Neighbors};

/// Most rows: positions are u32 and the largest marks a missing one.
const MAX_ROWS: usize = u32::MAX as usize - 1;

/// Numbers from here on are never given to rows that come without ids, so an id up here, such as a hash or `i64::MAX`, leaves
/// those below to them.
const OWN_IDS: u64 = 1 << 62;

/// Ids by position. Removed rows stay as holes until a fifth of all are.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    slots: usize,
    /// The caller's ids; absent while every id is its row's position.
    ids: Option<Ids>,
    next_id: u64,
    /// Bits of the rows that are still there; absent while all are.
    live: Option<Bitmap>,
    /// Names the bits, so that a device keeps them; another epoch when they have changed.
    live_tag: Tag,
    holes: usize,
    /// Changes whenever a row comes or goes; no other roster has the same, but clones of this state.
    state: u64,
}

/// A state that nothing else has.
fn new_state() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[derive(Clone, Debug, Default)]
struct Ids {
    by_position: Vec<u64>,
    positions: HashMap<u64, u32>,
}

impl Clone for Roster {
    /// The same ids, with bits of another name: what is removed from one is unknown to the other.
    fn clone(&self) -> Roster {
        let Roster { slots, next_id, holes, state, .. } = *self;
        Roster { slots, ids: self.ids.clone(), next_id, live: self.live.clone(), live_tag: Tag::new(), holes, state }
    }
}

impl Roster {
    /// So many rows under these ids, or under their numbers. Ids below `next_id` are not given to new rows; one that no row
    /// without id could have is what files of older versions say after an id near `u64::MAX`.
    pub fn of(rows: usize, ids: Option<&[u64]>, next_id: u64) -> Result<Roster, BuildError> {
        let mut roster = Roster::default();
        let fresh = roster.fresh(rows, ids)?;
        roster.append(&fresh, ids.is_some());
        if next_id <= OWN_IDS {
            roster.next_id = roster.next_id.max(next_id);
        }
        Ok(roster)
    }

    /// Rows, holes included.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Rows, holes excluded.
    pub fn len(&self) -> usize {
        self.slots - self.holes
    }

    /// The id of the next row that comes without one: above all ids below 2^62 that there have been.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    pub fn live(&self) -> Option<&Bitmap> {
        self.live.as_ref()
    }

    /// Which rows these are: another number when a row has come or gone.
    pub fn state(&self) -> u64 {
        self.state
    }

    /// The name of [`Roster::live`].
    pub fn live_tag(&self) -> &Tag {
        &self.live_tag
    }

    pub fn memory_bytes(&self) -> usize {
        let live = self.live.as_ref().map_or(0, |l| l.words().len() * 4);
        self.ids.as_ref().map_or(0, |ids| ids.by_position.len() * (8 + 16)) + live
    }

    /// The id of the row at a position; [`NO_ID`] for the position that marks a missing row.
    pub fn id(&self, position: u32) -> u64 {
        match &self.ids {
            _ if position == u32::MAX => NO_ID,
            None => u64::from(position),
            Some(ids) => ids.by_position[position as usize],
        }
    }

    /// Where the row with this id lies.
    pub fn position(&self, id: u64) -> Option<u32> {
        match &self.ids {
            None => (id < self.slots as u64).then_some(id as u32),
            Some(ids) => ids.positions.get(&id).copied(),
        }
    }

    /// The ids of all rows that are there, in order.
    pub fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        let live = |&p: &u32| self.live.as_ref().is_none_or(|l| l.get(p as usize));
        (0..self.slots as u32).filter(live).map(|p| self.id(p))
    }

    /// The ids of all rows that are there, in order; absent while they are the row numbers.
    pub fn live_ids(&self) -> Option<Vec<u64>> {
        let ids = self.ids.as_ref()?;
        let live = |p: &usize| self.live.as_ref().is_none_or(|l| l.get(*p));
        Some((0..self.slots).filter(live).map(|p| ids.by_position[p]).collect())
    }

    /// The ids that new rows will have: the caller's, or numbers never used before.
    pub fn fresh(&self, rows: usize, ids: Option<&[u64]>) -> Result<Vec<u64>, BuildError> {
        let total = self.slots + rows;
        if total > MAX_ROWS {
            return Err(BuildError::TooManyRows { rows: total, limit: MAX_ROWS });
        }
        let Some(ids) = ids else {
            let end = self.next_id + rows as u64;
            return if end <= OWN_IDS { Ok((self.next_id..end).collect()) } else { Err(BuildError::NoIdLeft) };
        };
        if ids.len() != rows {
            return Err(BuildError::IdCount { rows, ids: ids.len() });
        }
        let mut seen = HashSet::with_capacity(ids.len());
        for (row, &id) in ids.iter().enumerate() {
            if id == NO_ID {
                return Err(BuildError::ReservedId { row });
            }
            if self.position(id).is_some() || !seen.insert(id) {
                return Err(BuildError::DuplicateId { id, row });
            }
        }
        Ok(ids.to_vec())
    }

    /// Appends rows under ids that [`Roster::fresh`] gave; `given` when they are the caller's.
    pub fn append(&mut self, fresh: &[u64], given: bool) {
        if given {
            self.materialise();
        }
        self.slots += fresh.len();
        self.state = new_state();
        if let Some(live) = &mut self.live {
            self.live_tag.bump();
            live.grow(fresh.len(), true);
        }
        if let Some(ids) = &mut self.ids {
            for &id in fresh {
                ids.positions.insert(id, ids.by_position.len() as u32);
                ids.by_position.push(id);
            }
        }
        let past = fresh.iter().filter(|&&id| id < OWN_IDS).max().map_or(0, |id| id + 1);
        self.next_id = self.next_id.max(past);
    }

    /// Removes the rows with these ids and gives how many were there.
    pub fn remove(&mut self, ids: &[u64]) -> usize {
        if ids.is_empty() {
            return 0;
        }
        self.materialise();
        let Some(table) = &mut self.ids else { return 0 };
        let slots = self.slots;
        self.live_tag.bump();
        let live = self.live.get_or_insert_with(|| Bitmap::new(slots, true));
        let before = self.holes;
        self.state = new_state();
        for id in ids {
            if let Some(position) = table.positions.remove(id) {
                live.set(position as usize, false);
                self.holes += 1;
            }
        }
        self.holes - before
    }

    /// Whether the holes would be closed if so many more rows were removed.
    pub fn closes_after(&self, removed: usize) -> bool {
        (self.holes + removed) * 5 >= self.slots.max(1)
    }

    /// The rows that are there, in order, one run of neighbouring rows at a time.
    pub fn live_runs(&self) -> Vec<(usize, usize)> {
        let Some(live) = &self.live else { return vec![(0, self.slots)] };
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for p in (0..self.slots).filter(|&p| live.get(p)) {
            match runs.last_mut() {
                Some((_, end)) if *end == p => *end = p + 1,
                _ => runs.push((p, p + 1)),
            }
        }
        runs
    }

    /// Moves the rows that are there together when a fifth of all is gone; gives which were there.
    pub fn close_holes(&mut self) -> Option<Bitmap> {
        if self.holes * 5 < self.slots.max(1) {
            return None;
        }
        let live = self.live.take()?;
        self.live_tag.bump();
        self.slots -= self.holes;
        self.holes = 0;
        if let Some(ids) = self.ids.take() {
            let kept: Vec<u64> = (0..live.len()).filter(|&p| live.get(p)).map(|p| ids.by_position[p]).collect();
            let positions = kept.iter().enumerate().map(|(p, &id)| (id, p as u32)).collect();
            self.ids = Some(Ids { by_position: kept, positions });
        }
        Some(live)
    }

    /// Rows by position as users see them.
    pub fn neighbors(&self, metric: Metric, queries: usize, found: &Candidates) -> Neighbors {
        let ids: Vec<u64> = found.positions.iter().map(|&p| self.id(p)).collect();
        let value = |(&key, &id): (&f32, &u64)| if id == NO_ID { f32::NAN } else { metric.external(key) };
        let distances = found.keys.iter().zip(&ids).map(value).collect();
        Neighbors { queries, k: found.width, ids, distances }
    }

    fn materialise(&mut self) {
        if self.ids.is_none() {
            let by_position: Vec<u64> = (0..self.slots as u64).collect();
            let positions = by_position.iter().map(|&id| (id, id as u32)).collect();
            self.ids = Some(Ids { by_position, positions });
        }
    }
}
