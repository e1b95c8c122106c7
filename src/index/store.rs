//! The rows of an index on the host: the one source of truth. Devices hold copies that the tag names.
//!
//! Rows keep the order in which they came, so that equal distances are decided by age: removed rows stay as
//! holes, and when a fifth of all rows are holes they are closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::coding::{Coding, Keeper};
use super::roster::Roster;
use super::rowbuf::{RowBuf, Rows};
use crate::compute::{EngineError, Tag, Vectors};
use crate::error::SearchError;
use crate::index::BuildError;
use crate::linalg::lengths;
use crate::ops::Engine;
use crate::ops::search::norm_in_range;
use crate::types::{Bitmap, DType, Metric, RowsView};

/// Queries that cost about as much as coding all rows: each row is multiplied with some hundreds of directions.
const WORTH_CODING: usize = 128;

/// Bytes that codes of a mapped file may take without having been asked for: it was not copied for a reason.
const MOST_OF_A_FILE: usize = 4 << 30;

#[derive(Debug)]
pub(crate) struct Store {
    metric: Metric,
    rows: Rows,
    /// Euclidean length of each row.
    norms: Vec<f32>,
    norms_in_range: bool,
    roster: Roster,
    tag: Tag,
    codes: Keeper,
    /// Queries so far.
    asked: AtomicUsize,
}

impl Clone for Store {
    /// The same rows under another name, since what is added to one store is unknown to the other. The rows themselves are
    /// shared until one of the two is changed.
    fn clone(&self) -> Store {
        Store {
            metric: self.metric,
            rows: self.rows.clone(),
            norms: self.norms.clone(),
            norms_in_range: self.norms_in_range,
            roster: self.roster.clone(),
            tag: Tag::new(),
            codes: self.codes.clone(),
            asked: AtomicUsize::new(self.asked.load(Ordering::Relaxed)),
        }
    }
}

/// Rows that can be stored: checked, in the type of the store, with their lengths. Making them needs the store's type and
/// metric only, so they may be made from one state of it and taken by another.
#[derive(Debug)]
pub(crate) struct Checked {
    rows: RowBuf,
    norms: Vec<f32>,
}

impl Store {
    pub fn new(metric: Metric, dtype: DType, dim: usize) -> Result<Store, BuildError> {
        if dim == 0 {
            return Err(BuildError::ZeroDim);
        }
        if !metric.supports(dtype) {
            return Err(BuildError::Unsupported { metric, dtype });
        }
        Ok(Store::empty(metric, Rows::Owned(Arc::new(RowBuf::new(dtype, dim)))))
    }

    fn empty(metric: Metric, rows: Rows) -> Store {
        Store {
            metric,
            rows,
            norms: Vec::new(),
            norms_in_range: true,
            roster: Roster::default(),
            tag: Tag::new(),
            codes: Keeper::default(),
            asked: AtomicUsize::new(0),
        }
    }

    /// A store over rows that exist already (a mapped file), without copying them.
    /// Ids below `next_id` are not given to new rows.
    pub fn over(metric: Metric, rows: Rows, ids: Option<Vec<u64>>, next_id: u64) -> Result<Store, BuildError> {
        let view = rows.view();
        if !metric.supports(view.dtype()) {
            return Err(BuildError::Unsupported { metric, dtype: view.dtype() });
        }
        let norms = check(metric, view.dtype(), &view)?;
        let mut store = Store::empty(metric, rows);
        store.roster = Roster::of(norms.len(), ids.as_deref(), next_id)?;
        store.take_norms(norms);
        Ok(store)
    }

    pub fn metric(&self) -> Metric {
        self.metric
    }

    pub fn dim(&self) -> usize {
        self.view().dim()
    }

    pub fn dtype(&self) -> DType {
        self.view().dtype()
    }

    /// The ids of the rows, and which are gone.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Rows, holes included.
    pub fn slots(&self) -> usize {
        self.norms.len()
    }

    pub fn view(&self) -> RowsView<'_> {
        self.rows.view()
    }

    /// Whether mapped rows are still what they were: to be asked when an answer is there.
    pub fn check_unchanged(&self) -> Result<(), SearchError> {
        match &self.rows {
            Rows::Mapped(rows) => {
                rows.changed().map_or(Ok(()), |path| Err(SearchError::FileChanged { path: path.to_owned() }))
            }
            Rows::Owned(_) => Ok(()),
        }
    }

    /// The row at a position as f32.
    pub fn row(&self, position: u32) -> Vec<f32> {
        let mut row = vec![0.0; self.dim()];
        self.view().row_f32(position as usize, &mut row);
        row
    }

    pub fn norms(&self) -> &[f32] {
        &self.norms
    }

    pub fn norms_in_range(&self) -> bool {
        self.norms_in_range
    }

    pub fn memory_bytes(&self) -> usize {
        let codes = self.codes.present().map_or(0, |c| c.memory_bytes());
        self.slots() * (self.dtype().row_bytes(self.dim()) + 4) + self.roster.memory_bytes() + codes
    }

    /// The codes of all rows as they are now, if they exist.
    pub fn fresh_codes(&self) -> Option<Arc<Coding>> {
        self.codes.fresh(self.slots())
    }

    /// The codes of all rows, made now if need be; none while another search makes them.
    pub fn current_codes(&self, engine: &Engine) -> Result<Option<Arc<Coding>>, EngineError> {
        self.codes.current(engine, self.metric, &self.view(), &self.norms)
    }

    /// Notes that so many queries were asked.
    pub fn ask(&self, queries: usize) {
        self.asked.fetch_add(queries, Ordering::Relaxed);
    }

    /// Whether codes exist, or the queries so far have cost as much as making them would.
    pub fn asked_enough_for_codes(&self) -> bool {
        // Learning the subspace takes some dim^3 operations, whatever the rows.
        let (n, dim) = (self.slots().max(1), self.dim());
        let worth = WORTH_CODING + 8 * dim * dim / n;
        let small = matches!(self.rows, Rows::Owned(_)) || n * dim <= MOST_OF_A_FILE;
        self.codes.present().is_some() || (small && self.asked.load(Ordering::Relaxed) >= worth)
    }

    /// Codes of all rows that exist already.
    pub fn set_codes(&mut self, coding: Coding) {
        self.codes = Keeper::of(coding);
    }

    pub fn forget_codes(&mut self) {
        self.codes.forget();
    }

    pub fn base(&self) -> Vectors<'_> {
        Vectors { rows: self.view(), norms: Some(&self.norms), tag: Some(&self.tag) }
    }

    /// Appends rows under the caller's ids, or under numbers never used before. Gives the ids.
    pub fn add(&mut self, rows: &RowsView<'_>, ids: Option<&[u64]>) -> Result<Vec<u64>, BuildError> {
        let converted = self.convert(rows)?;
        let stored = converted.as_ref().map_or(*rows, RowBuf::view);
        let norms = self.check_stored(&stored, rows)?;
        let fresh = self.roster.fresh(rows.rows(), ids)?;
        self.rows.owned().extend(&stored);
        self.roster.append(&fresh, ids.is_some());
        self.take_norms(norms);
        Ok(fresh)
    }

    /// A copy of these rows as they can be added; or why they can't.
    pub fn checked(&self, rows: &RowsView<'_>) -> Result<Checked, BuildError> {
        let stored = self.convert(rows)?.unwrap_or_else(|| {
            let mut copy = RowBuf::new(rows.dtype(), rows.dim());
            copy.extend(rows);
            copy
        });
        let norms = self.check_stored(&stored.view(), rows)?;
        Ok(Checked { rows: stored, norms })
    }

    /// Appends checked rows, as [`Store::add`] does. It is the caller's thread alone that does it.
    pub fn take(&mut self, rows: Checked, ids: Option<&[u64]>) -> Result<Vec<u64>, BuildError> {
        let fresh = self.roster.fresh(rows.norms.len(), ids)?;
        self.rows.owned().extend(&rows.rows.view());
        self.roster.append(&fresh, ids.is_some());
        self.take_norms(rows.norms);
        Ok(fresh)
    }

    /// Replaces the row with this id by a checked one.
    pub fn put(&mut self, id: u64, row: &Checked) -> Result<(), BuildError> {
        let position = self.roster.position(id).ok_or(BuildError::UnknownId { id })? as usize;
        let [norm] = row.norms[..] else { return Err(BuildError::OneRow { found: row.norms.len() }) };
        self.rows.owned().replace(position, &row.rows.view());
        self.norms[position] = norm;
        self.codes.replaced(position as u32);
        self.norms_in_range &= norm_in_range(norm);
        self.tag.bump();
        Ok(())
    }

    /// Removes the rows with these ids and gives how many were there; and, when holes were closed, which rows had stayed.
    pub fn remove(&mut self, ids: &[u64]) -> (usize, Option<Bitmap>) {
        let removed = self.roster.remove(ids);
        (removed, self.close_holes())
    }

    fn close_holes(&mut self) -> Option<Bitmap> {
        let runs = self.roster.live_runs();
        let live = self.roster.close_holes()?;
        self.codes.retained(&runs);
        let mut packed = RowBuf::new(self.dtype(), self.dim());
        for &(start, end) in &runs {
            packed.extend(&self.view().slice(start, end));
        }
        self.rows = Rows::Owned(Arc::new(packed));
        let mut position = 0;
        self.norms.retain(|_| {
            position += 1;
            live.get(position - 1)
        });
        self.norms_in_range = self.norms.iter().all(|&n| norm_in_range(n));
        self.tag = Tag::new();
        Some(live)
    }

    /// The rows as they will be stored, when that is another element type; checks type and dimension.
    fn convert(&self, rows: &RowsView<'_>) -> Result<Option<RowBuf>, BuildError> {
        let (wanted, found) = (self.dtype(), rows.dtype());
        if !RowBuf::converts(found, wanted) {
            return Err(BuildError::DType { wanted, found });
        }
        if rows.dim() != self.dim() {
            return Err(BuildError::Dim { wanted: self.dim(), found: rows.dim() });
        }
        Ok((found != wanted).then(|| {
            let mut stored = RowBuf::new(wanted, self.dim());
            stored.extend(rows);
            stored
        }))
    }

    /// The length of each row; what counts is what is stored, what is reported is what was given.
    fn check_stored(&self, stored: &RowsView<'_>, given: &RowsView<'_>) -> Result<Vec<f32>, BuildError> {
        check(self.metric, stored.dtype(), stored).map_err(|e| with_original_value(e, given))
    }

    fn take_norms(&mut self, norms: Vec<f32>) {
        self.norms_in_range &= norms.iter().all(|&n| norm_in_range(n));
        self.norms.extend(norms);
    }
}

/// The length of each row, or the first thing that is wrong with one.
fn check(metric: Metric, dtype: DType, rows: &RowsView<'_>) -> Result<Vec<f32>, BuildError> {
    let norms =
        lengths(rows).map_err(|(row, component, value)| BuildError::NotFinite { row, component, value, dtype })?;
    if let Some((row, component, value)) = negative(metric, rows) {
        return Err(BuildError::Negative { row, component, value, metric });
    }
    match norms.iter().position(|n| n.is_infinite()) {
        Some(row) if metric == Metric::Cosine => Err(BuildError::TooLong { row }),
        _ => Ok(norms),
    }
}

/// (row, component, value) of the first negative component, where the metric needs there to be none.
pub(crate) fn negative(metric: Metric, rows: &RowsView<'_>) -> Option<(usize, usize, f32)> {
    if !metric.needs_non_negative() || matches!(rows.dtype(), DType::Bits | DType::U8) {
        return None;
    }
    let mut buffer = vec![0.0; rows.dim()];
    (0..rows.rows()).find_map(|r| {
        rows.row_f32(r, &mut buffer);
        buffer.iter().position(|&x| x < 0.0).map(|c| (r, c, buffer[c]))
    })
}

/// A value that overflowed on conversion is reported as it was given.
fn with_original_value(error: BuildError, rows: &RowsView<'_>) -> BuildError {
    match error {
        BuildError::NotFinite { row, component, dtype, .. } => {
            let mut original = vec![0.0; rows.dim()];
            rows.row_f32(row, &mut original);
            BuildError::NotFinite { row, component, value: original[component], dtype }
        }
        other => other,
    }
}
