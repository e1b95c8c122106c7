//! Warming up: everything that a first search would pay for, done before it.

use super::search::{MaskBits, Queries, Search};
use super::{Flat, Index};
use crate::engine::Engine;
use crate::error::SearchError;
use crate::kernels::search::screens;
use crate::plan::Screen;
use crate::stats::SearchStats;
use crate::tune;
use crate::types::{DType, MatrixView, RowsView};

impl Search<'_> {
    /// Whether the engine will search behind codes once there are some.
    fn codes_will_pay(&self, k: usize) -> bool {
        self.plan(k, None).is_ok_and(|plan| {
            let screened =
                screens(plan.problem.metric) && self.plan(k, Some(Screen::Int8)).is_ok_and(|p| p.steps.len() > 1);
            screened && k <= plan.problem.rows / 32 && self.engine.wants_codes(&plan.problem)
        })
    }
}

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
            DType::Bits => MatrixView::new(&self.bits, self.dim / 8).ok().map(RowsView::Bits),
            _ => MatrixView::new(&self.floats, self.dim).ok().map(RowsView::F32),
        }
    }
}

impl Flat {
    /// Does ahead what the first searches would wait for: measures how fast CPU and GPU are (once a machine), compiles and
    /// self-tests the kernels that batches of these sizes with `k` neighbours take, codes the rows where that will pay, brings them to the device as far
    /// as its budget goes, and makes room for what such searches write. Under `auto` on both engines.
    ///
    /// It takes as long as one search of each size on each engine, and what it prepares. Gives what it did; an index
    /// without rows gives nothing. Sizes and `k` may be any; others than these are warm later too as far as they share
    /// kernels.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut index = nearfield::Flat::new(&nearfield::Device::cpu(), 2, nearfield::Metric::L2)?;
    /// # index.add(&[[0.0, 0.0], [3.0, 4.0]])?;
    /// index.warm_up(&[1, 1000], 10)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`SearchError::ZeroK`], or the device failed; the index is as it was.
    pub fn warm_up(&self, batches: &[usize], k: usize) -> Result<SearchStats, SearchError> {
        let _entered = self.device().enter();
        if k == 0 {
            return Err(SearchError::ZeroK);
        }
        let mut stats = SearchStats::default();
        let router = &*self.device().engine;
        let parts = router.parts();
        let engines: Vec<&dyn Engine> = parts.iter().map(|p| &**p).collect();
        let engines = if engines.is_empty() { vec![router] } else { engines };
        if engines.len() > 1 {
            // Measured here, or it would be in the first search. A device that fails says so below.
            engines.iter().for_each(|engine| drop(tune::predictor(*engine)));
        }
        if self.is_empty() {
            return Ok(stats);
        }
        for &batch in batches.iter().filter(|&&batch| batch > 0) {
            let queries = StandIns::of(&self.store.view(), batch);
            for &engine in &engines {
                let Some(view) = queries.view() else { continue };
                let search = Search {
                    engine,
                    host: &*self.device().host,
                    store: &self.store,
                    queries: Queries::new(self.metric(), self.dtype(), self.dim(), view)?,
                    mask: MaskBits::new(self.store.roster(), None, batch)?,
                };
                search.nearest(k, None, &mut stats)?;
                // Codes would be made once enough has been asked.
                if search.codes_will_pay(k) {
                    search.nearest(k, Some(Screen::Int8), &mut stats)?;
                }
            }
        }
        Ok(stats)
    }
}
