//! What a search of an `Ivf` would do.

use std::time::Instant;

use super::super::search::Search;
use super::super::{Explanation, SearchOptions, Trial};
use super::program::Look;
use super::{Ivf, Kept};
use crate::engine::Device;
use crate::error::SearchError;
use crate::ops::Screen;
use crate::types::RowsView;

impl Ivf {
    /// [`Index::explain`](crate::Index::explain): the very program that runs.
    pub(super) fn explained(
        &self,
        queries: RowsView<'_>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<Explanation, SearchError> {
        if k == 0 {
            return Err(SearchError::ZeroK);
        }
        let queries = self.checked(queries)?;
        let count = queries.len();
        let (mask, reach) = self.reach(count, options)?;
        if let (Kept::Rows(store), true) = (&self.kept, reach.flat) {
            let Device { engine, host, .. } = &self.device;
            let search = Search { engine: &**engine, host: &**host, store, queries, mask };
            let screen = if options.filter.is_some() { Some(Screen::None) } else { options.screen };
            return Ok(Explanation::of(&**engine, search.explain(k, screen)?));
        }
        let engine = &*self.device.engine;
        let look =
            Look { engine, probes: reach.probes, keep: self.keep_of(k, options), k, all: self.ranks_all(options) };
        let written = self.written(&queries, mask.as_ref(), look)?;
        Ok(Explanation::of(&*self.device.engine, written.program))
    }

    /// [`Index::trial`](crate::Index::trial).
    pub(super) fn tried(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<Trial, SearchError> {
        let Explanation { program, costs, ceilings, .. } = self.explain(queries, k, options)?;
        let predicted = costs.iter().map(|c| c.seconds(&ceilings)).collect();
        let run = || {
            let began = Instant::now();
            self.search_with(queries, k, options).map(|(_, stats)| (began.elapsed().as_secs_f64(), stats))
        };
        let (first_seconds, _) = run()?;
        let (seconds, stats) = run()?;
        Ok(Trial { device: stats.device.clone(), program, predicted, stats, seconds, first_seconds })
    }
}
