//! What a search of an `Ivf` would do.

use std::time::Instant;

use super::super::search::Search;
use super::super::store::Store;
use super::super::{Explanation, SearchOptions, Trial};
use super::{Ivf, Kept};
use crate::engine::Device;
use crate::error::SearchError;
use crate::plan::{Plan, Problem, Screen, Step};
use crate::types::{DType, RowsView};

impl Ivf {
    /// [`Index::explain`](crate::Index::explain).
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
            let plan = search.plan(k, screen)?;
            return Ok(Explanation { device: engine.name(), ceilings: engine.ceilings(), costs: plan.costs(), plan });
        }
        let (form, probes, keep) = (self.lists.form, reach.probes, self.keep_of(k, options));
        let lists = self.lists.lists.len();
        let problem =
            |dtype: DType, dim: usize, rows: usize| Problem { metric: self.metric, dtype, dim, rows, queries: count };
        let mut parts = Vec::new();
        if let Some(coarse) = &self.coarse {
            let screen = if self.spec.binary { Screen::None } else { Screen::F32 };
            let step = Step::Search { screen, keep: probes };
            parts.push((problem(coarse.dtype(), coarse.dim(), Store::slots(coarse)), step, 0));
        }
        let codes = problem(self.dtype(), self.lists.dim, self.lists.rows());
        parts.push((codes, Step::Scan { form, probes, lists, keep }, 0));
        let rows = problem(self.dtype(), self.dim, self.len());
        if !matches!(self.kept, Kept::Ids(_)) || !form.is_exact() {
            parts.push((rows, Step::Refine, keep));
            parts.push((rows, Step::SelectK { k }, keep));
        }
        let costs = parts.iter().map(|(p, step, width)| crate::kernels::cost(p, step, *width)).collect();
        let plan = Plan { problem: rows, steps: parts.into_iter().map(|(_, step, _)| step).collect() };
        let engine = &self.device.engine;
        Ok(Explanation { device: engine.name(), ceilings: engine.ceilings(), costs, plan })
    }

    /// [`Index::trial`](crate::Index::trial).
    pub(super) fn tried(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<Trial, SearchError> {
        let Explanation { plan, costs, ceilings, .. } = self.explain(queries, k, options)?;
        let predicted = costs.iter().map(|c| c.seconds(&ceilings)).collect();
        let run = || {
            let began = Instant::now();
            self.search_with(queries, k, options).map(|(_, stats)| (began.elapsed().as_secs_f64(), stats))
        };
        let (first_seconds, _) = run()?;
        let (seconds, stats) = run()?;
        Ok(Trial { device: stats.device.clone(), plan, predicted, stats, seconds, first_seconds })
    }
}
