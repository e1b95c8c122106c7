//! Recall by distance: a row is a hit when it is no farther than the true k-th neighbour, so ties don't cost.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Result;
use nearfield::format::{Matrix, read_ids};
use nearfield::ops::metric::key;
use nearfield::{Metric, NO_ID, Neighbors};

use crate::fail;

/// The true neighbours of some queries.
pub struct Truth {
    ids: Vec<i64>,
    width: usize,
}

impl Truth {
    /// Reads `[q, at least k]` row numbers, nearest first.
    pub fn read(path: &Path, queries: usize, rows: usize, k: usize) -> Result<Truth> {
        let file = read_ids(path)?;
        let wrong = |text: String| fail::input(format!("`{}` {text}", path.display()));
        let wanted = k.min(rows);
        let [q, width] = file.shape[..] else {
            return Err(wrong(format!("has shape {:?}, wanted [{queries}, {wanted}] or wider", file.shape)));
        };
        if q != queries || width < wanted {
            return Err(wrong(format!("has shape [{q}, {width}], wanted [{queries}, {wanted}] or wider")));
        }
        let outside = |&id: &i64| id < -1 || id >= rows as i64;
        if let Some(at) = file.ids.iter().position(outside) {
            let (row, id) = (at / width.max(1), file.ids[at]);
            return Err(wrong(format!("names row {id} for query {row}; the base has rows 0 to {}", rows - 1)));
        }
        Ok(Truth { ids: file.ids, width })
    }

    fn of(&self, query: usize, k: usize) -> impl Iterator<Item = usize> {
        let row = &self.ids[query * self.width..][..k.min(self.width)];
        row.iter().filter_map(|&id| usize::try_from(id).ok())
    }
}

/// Counts hits, distances being recomputed in f64 from the stored vectors.
pub struct Counter<'a> {
    metric: Metric,
    base: &'a Matrix,
    queries: &'a Matrix,
    truth: &'a Truth,
    hits: usize,
    wanted: usize,
}

impl<'a> Counter<'a> {
    pub fn new(metric: Metric, base: &'a Matrix, queries: &'a Matrix, truth: &'a Truth) -> Counter<'a> {
        Counter { metric, base, queries, truth, hits: 0, wanted: 0 }
    }

    /// Takes the answers to queries `first..`; those past the last query are repetitions and not counted.
    pub fn count(&mut self, first: usize, found: &Neighbors) {
        for i in 0..found.queries().min(self.queries.rows() - first) {
            self.count_one(first + i, found.k(), found.query(i).map(|(id, _)| id));
        }
    }

    fn count_one(&mut self, query: usize, k: usize, found: impl Iterator<Item = u64>) {
        let (q, mut row) = (row_f64(self.queries, query), Vec::new());
        let mut distance = |id: usize| {
            row.clear();
            row.extend(row_f64(self.base, id));
            key(self.metric, &q, &row)
        };
        let (mut kth, mut true_neighbours) = (f64::NEG_INFINITY, 0);
        for id in self.truth.of(query, k) {
            kth = kth.max(distance(id));
            true_neighbours += 1;
        }
        let mut seen = HashSet::new();
        let near = |id: &u64| *id != NO_ID && seen.insert(*id) && distance(*id as usize) <= kth;
        self.hits += found.filter(near).count().min(true_neighbours);
        self.wanted += true_neighbours;
    }

    /// The share of true neighbours found; nothing when there are none to be found.
    pub fn recall(&self) -> Option<f64> {
        (self.wanted > 0).then(|| self.hits as f64 / self.wanted as f64)
    }
}

fn row_f64(rows: &Matrix, i: usize) -> Vec<f64> {
    let mut row = vec![0.0; rows.dim()];
    rows.view().row_f64(i, &mut row);
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recall(found: [u64; 2]) -> f64 {
        let base = Matrix::from_vec(vec![0.0f32, 1.0, -1.0, 5.0], 1).unwrap();
        let queries = Matrix::from_vec(vec![0.0f32], 1).unwrap();
        let truth = Truth { ids: vec![0, 1], width: 2 };
        let mut counter = Counter::new(Metric::L2, &base, &queries, &truth);
        counter.count(0, &Neighbors::from_parts(2, found.into(), vec![0.0; 2]).unwrap());
        counter.recall().unwrap()
    }

    #[test]
    fn ties_are_hits_and_repetitions_and_farther_rows_are_not() {
        assert_eq!(recall([0, 1]), 1.0);
        assert_eq!(recall([0, 2]), 1.0, "as far as the true second");
        assert_eq!(recall([0, 3]), 0.5);
        assert_eq!(recall([0, 0]), 0.5);
        assert_eq!(recall([0, NO_ID]), 0.5);
    }
}
