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
use crate::ops::metric::overflows;
use crate::ops::search::norm_in_range;
use crate::threads;
use crate::types::{Bitmap, DType, Metric, RowsView};

/// Queries that cost about as much as coding all rows: each row is multiplied with some hundreds of directions.
const WORTH_CODING: usize = 128;

/// Bytes that codes of a mapped file may take without having been asked for: it was not copied for a reason.
const MOST_OF_A_FILE: usize = 4 << 30;

#[derive(Debug)]
pub(crate) struct Store {
    metric: Metric,
    /// The rows as they were given.
    rows: Rows,
    /// What engines search instead, where f32 does not hold every value of the rows.
    rounded: Option<Arc<RowBuf>>,
    /// Euclidean length of each row.
    norms: Vec<f32>,
    norms_in_range: bool,
    /// The largest length.
    longest: f32,
    /// See [`vanishing`].
    vanishing: bool,
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
            rounded: self.rounded.clone(),
            norms: self.norms.clone(),
            norms_in_range: self.norms_in_range,
            longest: self.longest,
            vanishing: self.vanishing,
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
        let view = rows.view();
        let rounded = view.dtype().is_wide().then(|| Arc::new(RowBuf::rounded(&view)));
        Store {
            metric,
            rows,
            rounded,
            norms: Vec::new(),
            norms_in_range: true,
            longest: 0.0,
            vanishing: false,
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
        let norms = check(metric, &view)?;
        let vanishing = vanishing(metric, &view, &norms);
        let mut store = Store { vanishing, ..Store::empty(metric, rows) };
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

    /// The type of the rows as they were given.
    pub fn dtype(&self) -> DType {
        self.exact().dtype()
    }

    /// The ids of the rows, and which are gone.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Rows, holes included.
    pub fn slots(&self) -> usize {
        self.norms.len()
    }

    /// The rows as engines take them.
    pub fn view(&self) -> RowsView<'_> {
        self.rounded.as_ref().map_or_else(|| self.rows.view(), |rows| rows.view())
    }

    /// The rows as they were given.
    pub fn exact(&self) -> RowsView<'_> {
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
        self.exact().row_f32(position as usize, &mut row);
        row
    }

    pub fn norms(&self) -> &[f32] {
        &self.norms
    }

    /// The largest of [`Store::norms`], or of what they were.
    pub fn longest(&self) -> f32 {
        self.longest
    }

    /// Whether some rows are so small or large that only exact keys tell how far they are; see [`vanishing`].
    pub fn vanishing(&self) -> bool {
        self.vanishing
    }

    pub fn norms_in_range(&self) -> bool {
        self.norms_in_range
    }

    pub fn memory_bytes(&self) -> usize {
        let codes = self.codes.present().map_or(0, |c| c.memory_bytes());
        let rounded = if self.rounded.is_some() { DType::F32.row_bytes(self.dim()) } else { 0 };
        self.slots() * (self.dtype().row_bytes(self.dim()) + rounded + 4) + self.roster.memory_bytes() + codes
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
        self.append(&stored, norms);
        self.roster.append(&fresh, ids.is_some());
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
        self.append(&rows.rows.view(), rows.norms);
        self.roster.append(&fresh, ids.is_some());
        Ok(fresh)
    }

    fn append(&mut self, rows: &RowsView<'_>, norms: Vec<f32>) {
        self.rows.owned().extend(rows);
        self.vanishing |= vanishing(self.metric, rows, &norms);
        self.take_norms(norms);
        if let Some(rounded) = &mut self.rounded {
            Arc::make_mut(rounded).extend(&RowBuf::rounded(rows).view());
        }
    }

    /// Replaces the row with this id by a checked one.
    pub fn put(&mut self, id: u64, row: &Checked) -> Result<(), BuildError> {
        let position = self.roster.position(id).ok_or(BuildError::UnknownId { id })? as usize;
        let [norm] = row.norms[..] else { return Err(BuildError::OneRow { found: row.norms.len() }) };
        self.rows.owned().replace(position, &row.rows.view());
        if let Some(rounded) = &mut self.rounded {
            Arc::make_mut(rounded).replace(position, &RowBuf::rounded(&row.rows.view()).view());
        }
        self.vanishing |= vanishing(self.metric, &row.rows.view(), &row.norms);
        self.norms[position] = norm;
        self.codes.replaced(position as u32);
        self.norms_in_range &= norm_in_range(norm);
        self.longest = self.longest.max(norm);
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
        let packed = |rows: RowsView<'_>| {
            let mut packed = RowBuf::new(rows.dtype(), rows.dim());
            runs.iter().for_each(|&(start, end)| packed.extend(&rows.slice(start, end)));
            Arc::new(packed)
        };
        self.rounded = self.rounded.as_ref().map(|rounded| packed(rounded.view()));
        self.rows = Rows::Owned(packed(self.exact()));
        let mut position = 0;
        self.norms.retain(|_| {
            position += 1;
            live.get(position - 1)
        });
        self.norms_in_range = self.norms.iter().all(|&n| norm_in_range(n));
        self.longest = self.norms.iter().fold(0.0, |most, &n| most.max(n));
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
        check(self.metric, stored).map_err(|e| with_original_value(e, given))
    }

    fn take_norms(&mut self, norms: Vec<f32>) {
        self.norms_in_range &= norms.iter().all(|&n| norm_in_range(n));
        self.longest = norms.iter().fold(self.longest, |most, &n| most.max(n));
        self.norms.extend(norms);
    }
}

/// The length of each row, or the first thing that is wrong with one.
fn check(metric: Metric, rows: &RowsView<'_>) -> Result<Vec<f32>, BuildError> {
    checked_lengths(metric, rows).map_err(|fault| match fault {
        Fault::NotFinite(row, component, value) => BuildError::NotFinite { row, component, value, dtype: rows.dtype() },
        Fault::Negative(row, component, value) => BuildError::Negative { row, component, value, metric },
        Fault::Overflow(row) => BuildError::Overflow { row, metric },
        Fault::Inexact(row, component, value) => BuildError::Inexact { row, component, value },
    })
}

/// What is wrong with a vector: its number, mostly with a component and its value.
pub(crate) enum Fault {
    NotFinite(usize, usize, f32),
    Negative(usize, usize, f32),
    Overflow(usize),
    Inexact(usize, usize, i64),
}

/// The length of each vector, or the first thing for which a metric can't compare one.
pub(crate) fn checked_lengths(metric: Metric, rows: &RowsView<'_>) -> Result<Vec<f32>, Fault> {
    let norms = lengths(rows).map_err(|(row, component, value)| Fault::NotFinite(row, component, value))?;
    if let RowsView::I64(m) = rows {
        let inexact = |r| m.row(r).iter().position(|x| x.unsigned_abs() > 1 << 53).map(|c| (r, c, m.row(r)[c]));
        if let Some((row, component, value)) = (0..m.rows()).find_map(inexact) {
            return Err(Fault::Inexact(row, component, value));
        }
    }
    let below_zero = metric.needs_non_negative() && !matches!(rows.dtype(), DType::Bits | DType::U8);
    let may_overflow = overflows(metric, rows.dim(), largest(rows.dtype()));
    if below_zero || may_overflow {
        let mut row = vec![0.0; rows.dim()];
        for r in 0..rows.rows() {
            rows.row_f64(r, &mut row);
            if below_zero && let Some(component) = row.iter().position(|&x| x < 0.0) {
                return Err(Fault::Negative(r, component, row[component] as f32));
            }
            let most = row.iter().fold(0.0f64, |most, x| most.max(x.abs()));
            if may_overflow && overflows(metric, rows.dim(), most) {
                return Err(Fault::Overflow(r));
            }
        }
    }
    Ok(norms)
}

/// Whether some vectors are so small or large that nothing is known of a quotient of their sums in f32, where the metric is one.
/// Devices may take numbers below 2^-126 for zero.
pub(crate) fn vanishing(metric: Metric, rows: &RowsView<'_>, norms: &[f32]) -> bool {
    let least = rows.dim() as f32 * f32::powi(2.0, -100);
    match metric {
        Metric::Cosine => norms.iter().any(|&norm| norm != 0.0 && !(least..3e38).contains(&norm)),
        Metric::Canberra | Metric::BrayCurtis | Metric::JensenShannon | Metric::Jaccard
            if matches!(rows.dtype(), DType::F32 | DType::Bf16 | DType::F64) =>
        {
            let most = 1e38 / rows.dim() as f64;
            let some = |row: &mut Vec<f64>, r: usize| {
                rows.row_f64(r, row);
                row.iter().any(|&x| x != 0.0 && !(f64::powi(2.0, -100)..most).contains(&x.abs()))
            };
            threads::map_with(1024, 0..rows.rows(), || vec![0.0; rows.dim()], some).contains(&true)
        }
        _ => false,
    }
}

/// The largest value of an element type.
fn largest(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::MAX,
        DType::I64 => i64::MAX as f64,
        DType::I32 => i32::MAX.into(),
        DType::F32 | DType::Bf16 => f32::MAX.into(),
        DType::F16 => half::f16::MAX.into(),
        DType::I8 | DType::U8 | DType::Bits => 255.0,
    }
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
