//! Warming up: everything that a first search would pay for, done before it.

use std::sync::Arc;

use super::search::{MaskBits, Queries, Search};
use super::{Flat, Ivf, SearchOptions};
use crate::compute::wait::block_on;
use crate::engine::Device;
use crate::error::SearchError;
use crate::ops::Engine;
use crate::ops::Screen;
use crate::stats::SearchStats;
use crate::tune;
use crate::types::{BitsView, DType, MatrixView, RowsView};

/// Rows of a base as queries, in memory of their own.
struct StandIns {
    floats: Vec<f32>,
    bits: Vec<u8>,
    dim: usize,
    dtype: DType,
}

impl StandIns {
    /// `count` rows, spread over the base and repeated where it has fewer.
    fn of(view: &RowsView<'_>, count: usize) -> StandIns {
        let (rows, dim) = (view.rows(), view.dim());
        let picks = (0..count).map(|i| (i as u128 * rows as u128 / count.max(1) as u128) as usize);
        let (mut floats, mut bits) = (Vec::new(), Vec::new());
        if view.dtype() == DType::Bits {
            picks.for_each(|r| bits.extend_from_slice(view.row_bytes(r)));
        } else {
            floats.resize(count * dim, 0.0);
            picks.zip(floats.chunks_exact_mut(dim)).for_each(|(r, row)| view.row_f32(r, row));
        }
        StandIns { floats, bits, dim, dtype: view.dtype() }
    }

    fn view(&self) -> Option<RowsView<'_>> {
        match self.dtype {
            DType::Bits => BitsView::new(&self.bits, self.dim).ok().map(RowsView::Bits),
            _ => MatrixView::new(&self.floats, self.dim).ok().map(RowsView::F32),
        }
    }

    /// `count` rows of numbers between -1 and 1, or of bits, for an index that keeps no rows.
    fn made_up(dtype: DType, dim: usize, count: usize) -> StandIns {
        // Any numbers do: what is warmed depends on shapes only.
        let mixed = |i: usize| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (mut floats, mut bits) = (Vec::new(), Vec::new());
        if dtype == DType::Bits {
            bits.extend((0..count * dim / 8).map(|i| (mixed(i) >> 56) as u8));
        } else {
            floats.extend((0..count * dim).map(|i| (mixed(i) >> 40) as f32 / (1 << 23) as f32 - 1.0));
        }
        StandIns { floats, bits, dim, dtype }
    }
}

/// Measures how fast the engines of a device are, or that would be in the first search. One that fails says so when it is
/// asked. Nothing where there is no choice between engines, or no measuring.
fn measure(device: &Device) {
    let parts = device.engine.parts();
    if parts.len() > 1 && device.engine.calibrates() {
        parts.iter().for_each(|part| drop(tune::predictor(&**part)));
    }
}

/// Those that may answer: what the device chooses between, or the only one.
fn engines(device: &Device) -> Vec<Arc<Engine>> {
    match device.engine.parts() {
        parts if parts.is_empty() => vec![device.engine.clone()],
        parts => parts,
    }
}

impl Flat {
    /// [`Index::warm_up`].
    pub(super) fn warmed(&self, batches: &[usize], k: usize) -> Result<SearchStats, SearchError> {
        let _entered = self.device().enter();
        if k == 0 {
            return Err(SearchError::ZeroK);
        }
        let mut stats = SearchStats::default();
        measure(self.device());
        if self.is_empty() {
            return Ok(stats);
        }
        let engines = engines(self.device());
        for &batch in batches.iter().filter(|&&batch| batch > 0) {
            let queries = StandIns::of(&self.store.view(), batch);
            for engine in engines.iter().map(|engine| &**engine) {
                let Some(view) = queries.view() else { continue };
                let search = Search {
                    engine,
                    host: &*self.device().host,
                    store: &self.store,
                    queries: Queries::new(self.metric(), self.dtype(), self.dim(), view)?,
                    mask: MaskBits::new(self.store.roster(), None, batch)?,
                };
                block_on(search.nearest(k, None, &mut stats))?;
                // Codes would be made once enough has been asked.
                if search.would_code(k) {
                    block_on(search.nearest(k, Some(Screen::Int8), &mut stats))?;
                }
            }
        }
        Ok(stats)
    }
}

impl Ivf {
    /// [`Index::warm_up`].
    pub(super) fn warmed(&self, batches: &[usize], k: usize) -> Result<SearchStats, SearchError> {
        let _entered = self.device().enter();
        if k == 0 {
            return Err(SearchError::ZeroK);
        }
        let mut stats = SearchStats::default();
        measure(self.device());
        if self.is_empty() {
            return Ok(stats);
        }
        let engines = engines(self.device());
        for &batch in batches.iter().filter(|&&batch| batch > 0) {
            let queries = match self.kept_rows() {
                Some(store) => StandIns::of(&store.view(), batch),
                None => StandIns::made_up(self.dtype(), self.dim(), batch),
            };
            let (Some(view), options) = (queries.view(), SearchOptions::default()) else { continue };
            for engine in &engines {
                stats.merge(&block_on(self.find(&**engine, view, k, &options))?.1);
            }
        }
        Ok(stats)
    }
}
