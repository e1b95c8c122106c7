//! Filters and answers of searches.

use super::{MatrixView, ShapeError};

/// One bit per row, set where the row is allowed.
#[derive(Clone, Debug)]
pub struct Bitmap {
    words: Vec<u32>,
    len: usize,
    /// The state of the index whose rows these are; 0 where it is not known.
    state: u64,
}

/// Bitmaps are equal when their bits are.
impl PartialEq for Bitmap {
    fn eq(&self, other: &Bitmap) -> bool {
        (self.len, &self.words) == (other.len, &other.words)
    }
}

impl Eq for Bitmap {}

impl Bitmap {
    /// `len` rows, all allowed or none.
    pub fn new(len: usize, allowed: bool) -> Bitmap {
        let mut words = vec![if allowed { u32::MAX } else { 0 }; len.div_ceil(32)];
        if allowed && !len.is_multiple_of(32) {
            // Bits past the end stay clear, so that counting and comparing need no special case.
            words[len / 32] = (1 << (len % 32)) - 1;
        }
        Bitmap { words, len, state: 0 }
    }

    /// Row `i` is allowed where `allowed(i)` says so.
    pub fn from_fn(len: usize, mut allowed: impl FnMut(usize) -> bool) -> Bitmap {
        let mut map = Bitmap::new(len, false);
        for i in 0..len {
            map.set(i, allowed(i));
        }
        map
    }

    /// The same bits, for the rows of an index in this state only.
    pub(crate) fn of_state(self, state: u64) -> Bitmap {
        Bitmap { state, ..self }
    }

    /// The state of the index that the bits belong to; 0 for any.
    pub(crate) fn state(&self) -> u64 {
        self.state
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rows at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether row `i` is allowed.
    pub fn get(&self, i: usize) -> bool {
        i < self.len && self.words[i / 32] >> (i % 32) & 1 == 1
    }

    /// Allows or forbids row `i`; rows past the end are ignored.
    pub fn set(&mut self, i: usize, allowed: bool) {
        if i < self.len {
            let bit = 1 << (i % 32);
            if allowed { self.words[i / 32] |= bit } else { self.words[i / 32] &= !bit }
        }
    }

    /// Number of rows allowed.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Allows only what both allow; `other` must be as long.
    pub(crate) fn and(&mut self, other: &Bitmap) {
        debug_assert_eq!(self.len, other.len);
        for (a, b) in self.words.iter_mut().zip(&other.words) {
            *a &= b;
        }
    }

    /// Appends `n` rows.
    pub(crate) fn grow(&mut self, n: usize, allowed: bool) {
        let start = self.len;
        self.len += n;
        self.words.resize(self.len.div_ceil(32), 0);
        if allowed {
            for i in start..self.len {
                self.set(i, true);
            }
        }
    }

    /// The bits, 32 rows per word, the first in the lowest bit.
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

/// Which rows a search may return. The rest is left out inside the search, so as many rows are found as are asked for, as
/// long as so many are allowed.
///
/// Bitmaps have one bit per row of the index, in the order of [`Index::ids`](crate::Index::ids);
/// [`Index::filter_by`](crate::Index::filter_by) makes one from a condition on the id. Such a bitmap is good until a row is
/// added or removed; then a search with it is an error. A list of ids is good always.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Filter {
    /// The same rows for every query.
    Rows(Bitmap),
    /// One bitmap per query.
    RowsPerQuery(Vec<Bitmap>),
    /// The ids allowed, in any order; ids that the index does not hold are ignored.
    Ids(Vec<u64>),
}

impl From<Bitmap> for Filter {
    fn from(rows: Bitmap) -> Filter {
        Filter::Rows(rows)
    }
}

impl From<&[u64]> for Filter {
    fn from(ids: &[u64]) -> Filter {
        Filter::Ids(ids.to_vec())
    }
}

impl From<Vec<u64>> for Filter {
    fn from(ids: Vec<u64>) -> Filter {
        Filter::Ids(ids)
    }
}

/// Stands in [`Neighbors::ids`] where there is no k-th neighbour. No row has this id.
pub const NO_ID: u64 = u64::MAX;

/// The k nearest rows of each of q queries, nearest first.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut index = nearfield::Flat::new(&nearfield::Device::cpu(), 1, nearfield::Metric::L2)?;
/// index.add(&[[1.0], [5.0]])?;
/// let hits = index.search(&[[0.0], [6.0]], 3)?; // there are but two rows
/// let nearest: Vec<Vec<(u64, f32)>> = hits.iter().map(Iterator::collect).collect();
/// assert_eq!(nearest, [[(0, 1.0), (1, 25.0)], [(1, 1.0), (0, 25.0)]]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Neighbors {
    pub(crate) queries: usize,
    pub(crate) k: usize,
    pub(crate) ids: Vec<u64>,
    pub(crate) distances: Vec<f32>,
}

impl Neighbors {
    /// Answers that were found elsewhere, such as those of several indexes that were merged: `ids` and `distances` are
    /// `[queries, k]`, each row nearest first and filled up with [`NO_ID`] (whose distances do not count).
    ///
    /// # Errors
    /// [`ShapeError`] when `k` is 0 or does not divide the number of ids, or there is another number of distances.
    pub fn from_parts(k: usize, ids: Vec<u64>, distances: Vec<f32>) -> Result<Neighbors, ShapeError> {
        let queries = MatrixView::new(&ids, k)?.rows();
        if distances.len() != ids.len() {
            return Err(ShapeError::TooShort {
                rows: queries,
                dim: k,
                stride: k,
                wanted: ids.len(),
                len: distances.len(),
            });
        }
        Ok(Neighbors { queries, k, ids, distances })
    }

    /// Number of queries.
    pub fn queries(&self) -> usize {
        self.queries
    }

    /// The number of neighbours that was asked for.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The neighbours of query `i`: (id, distance or similarity), nearest first; fewer than k where there are no more.
    ///
    /// # Panics
    /// When `i` is not below [`Neighbors::queries`].
    pub fn query(&self, i: usize) -> impl Iterator<Item = (u64, f32)> + Clone + '_ {
        assert!(i < self.queries, "query {i} of {}", self.queries);
        let row = i * self.k..(i + 1) * self.k;
        let pairs = self.ids[row.clone()].iter().copied().zip(self.distances[row].iter().copied());
        pairs.take_while(|&(id, _)| id != NO_ID)
    }

    /// The neighbours of each query in turn, as [`Neighbors::query`] gives them.
    pub fn iter(&self) -> impl Iterator<Item: Iterator<Item = (u64, f32)> + Clone + '_> + '_ {
        (0..self.queries).map(|i| self.query(i))
    }

    /// Ids as a matrix `[queries, k]`, filled up with [`NO_ID`]; for files and arrays. [`Neighbors::query`] is better
    /// for reading.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Distances (or similarities) as a matrix `[queries, k]`, beside [`Neighbors::ids`]; NaN where there is no row.
    pub fn distances(&self) -> &[f32] {
        &self.distances
    }

    /// [`Neighbors::ids`] and [`Neighbors::distances`], without a copy.
    pub fn into_parts(self) -> (Vec<u64>, Vec<f32>) {
        (self.ids, self.distances)
    }
}

/// All rows within a radius of each of q queries, nearest first.
#[derive(Clone, Debug, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RangeHits {
    pub(crate) offsets: Vec<u64>,
    pub(crate) ids: Vec<u64>,
    pub(crate) distances: Vec<f32>,
}

impl RangeHits {
    /// Number of queries.
    pub fn queries(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Hits of all queries together.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no hit for any query.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The hits of query `i`: (id, distance or similarity), nearest first.
    ///
    /// # Panics
    /// When `i` is not below [`RangeHits::queries`].
    pub fn query(&self, i: usize) -> impl Iterator<Item = (u64, f32)> + Clone + '_ {
        assert!(i < self.queries(), "query {i} of {}", self.queries());
        let row = self.offsets[i] as usize..self.offsets[i + 1] as usize;
        self.ids[row.clone()].iter().copied().zip(self.distances[row].iter().copied())
    }

    /// The hits of each query in turn, as [`RangeHits::query`] gives them.
    pub fn iter(&self) -> impl Iterator<Item: Iterator<Item = (u64, f32)> + Clone + '_> + '_ {
        (0..self.queries()).map(|i| self.query(i))
    }

    /// `[queries + 1]`: the hits of query i are those from `offsets[i]` to `offsets[i + 1]` (compressed sparse rows).
    pub fn offsets(&self) -> &[u64] {
        &self.offsets
    }

    /// The ids of all hits, query by query.
    pub fn ids(&self) -> &[u64] {
        &self.ids
    }

    /// Distances (or similarities) beside [`RangeHits::ids`].
    pub fn distances(&self) -> &[f32] {
        &self.distances
    }

    /// [`RangeHits::offsets`], [`RangeHits::ids`] and [`RangeHits::distances`], without a copy.
    pub fn into_parts(self) -> (Vec<u64>, Vec<u64>, Vec<f32>) {
        (self.offsets, self.ids, self.distances)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmaps_count_grow_and_combine() {
        let mut a = Bitmap::new(33, true);
        assert_eq!((a.count(), a.words().len()), (33, 2));
        a.grow(40, false);
        assert_eq!((a.len(), a.count()), (73, 33));
        a.and(&Bitmap::from_fn(73, |i| i % 2 == 0));
        assert_eq!(a.count(), 17);
        a.grow(3, true);
        assert!(a.get(75) && !a.get(76) && !a.get(1));
    }
}
