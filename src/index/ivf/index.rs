//! `Ivf` as an [`Index`].

use std::path::Path;

use super::super::{Explanation, IndexStats, SearchOptions, Trial};
use super::{Ivf, Kept, Rerank, UNSORTED};
use crate::compute::Pending;
use crate::compute::wait::block_on;
use crate::engine::Device;
use crate::error::{RowError, SearchError};
use crate::format::{AtomicFile, SaveError};
use crate::index::BuildError;
use crate::index::ivf::build::moved;
use crate::index::{Index, IndexSpec, Ranging, Searching, one_row};
use crate::stats::SearchStats;
use crate::types::{DType, Metric, Neighbors, RangeHits, RowsView};

impl Index for Ivf {
    fn len(&self) -> usize {
        self.kept.roster().len()
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn metric(&self) -> Metric {
        self.metric
    }

    fn dtype(&self) -> DType {
        Ivf::dtype(self)
    }

    fn spec(&self) -> IndexSpec {
        self.spec.clone()
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn set_device(&mut self, device: &Device) {
        self.device = device.untied();
    }

    fn memory_bytes(&self) -> usize {
        let kept = match &self.kept {
            Kept::Ids(roster) => roster.memory_bytes(),
            Kept::Rows(store) => store.memory_bytes(),
            Kept::Codes(roster, lists, _) => roster.memory_bytes() + lists.memory_bytes(),
        };
        self.lists.memory_bytes() + self.coarse.as_ref().map_or(0, |coarse| coarse.memory_bytes()) + kept
    }

    fn stats(&self) -> IndexStats {
        IndexStats {
            removed: self.kept.roster().slots() - self.len(),
            lists: self.spec.lists,
            probes: self.spec.lists.map(|_| self.settings.probes),
            rerank: self.rerank(),
            rerank_factor: self.rerank_factor(),
            warnings: self.warnings.clone(),
            ..IndexStats::of(self)
        }
    }

    fn ids(&self) -> Box<dyn Iterator<Item = u64> + '_> {
        Box::new(self.kept.roster().ids())
    }

    fn state(&self) -> u64 {
        self.kept.roster().state()
    }

    fn contains(&self, id: u64) -> bool {
        self.kept.roster().position(id).is_some()
    }

    fn row(&self, id: u64) -> Result<Vec<f32>, RowError> {
        let position = self.kept.roster().position(id).ok_or(RowError::UnknownId { id })?;
        match &self.kept {
            Kept::Rows(store) => Ok(store.row(position)),
            _ => Err(RowError::NotKept { spec: self.spec.to_string() }),
        }
    }

    fn search_with(
        &self,
        queries: RowsView<'_>,
        k: usize,
        options: &SearchOptions,
    ) -> Result<(Neighbors, SearchStats), SearchError> {
        let _entered = self.device.enter_for(options.cancel.as_ref());
        block_on(self.find(&*self.device.engine, queries, k, options))
    }

    fn search_async<'a>(&'a self, queries: RowsView<'a>, k: usize, options: &SearchOptions) -> Searching<'a> {
        let options = options.clone();
        let token = options.cancel.clone();
        let search = async move { self.find(&*self.device.engine, queries, k, &options).await };
        Pending::running(self.device.within(token.as_ref(), search))
    }

    fn range_search_with(
        &self,
        queries: RowsView<'_>,
        radius: f32,
        options: &SearchOptions,
    ) -> Result<(RangeHits, SearchStats), SearchError> {
        let _entered = self.device.enter_for(options.cancel.as_ref());
        block_on(self.find_within(&*self.device.engine, queries, radius, options))
    }

    fn range_search_async<'a>(&'a self, queries: RowsView<'a>, radius: f32, options: &SearchOptions) -> Ranging<'a> {
        let options = options.clone();
        let token = options.cancel.clone();
        let search = async move { self.find_within(&*self.device.engine, queries, radius, &options).await };
        Pending::running(self.device.within(token.as_ref(), search))
    }

    fn explain(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<Explanation, SearchError> {
        let _entered = self.device.enter();
        self.explained(queries, k, options)
    }

    fn trial(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<Trial, SearchError> {
        self.tried(queries, k, options)
    }

    fn warm_up(&self, batches: &[usize], k: usize) -> Result<SearchStats, SearchError> {
        self.warmed(batches, k)
    }

    fn add(&mut self, rows: RowsView<'_>) -> Result<Vec<u64>, BuildError> {
        self.append(&rows, None)
    }

    fn add_with_ids(&mut self, rows: RowsView<'_>, ids: &[u64]) -> Result<(), BuildError> {
        self.append(&rows, Some(ids)).map(drop)
    }

    fn update(&mut self, id: u64, row: RowsView<'_>) -> Result<(), BuildError> {
        let _entered = self.device.enter();
        one_row(&row)?;
        if !self.contains(id) {
            return Err(BuildError::UnknownId { id });
        }
        let coded = self.prepare(&row)?;
        self.put(id, coded)
    }

    fn remove(&mut self, ids: &[u64]) -> usize {
        let _entered = self.device.enter();
        let (removed, closed) = match &mut self.kept {
            Kept::Rows(store) => store.remove(ids),
            Kept::Ids(roster) | Kept::Codes(roster, ..) => (roster.remove(ids), roster.close_holes()),
        };
        if let Some(live) = closed {
            let moved = moved(&live);
            let keep = |p: u32| moved[p as usize];
            self.lists.retain(keep);
            if self.coarse.is_none() {
                self.lists.regroup(UNSORTED);
            }
            if let Kept::Codes(_, lists, _) = &mut self.kept {
                lists.retain(keep);
            }
            self.tag.bump();
        }
        removed
    }

    fn set_probes(&mut self, probes: usize) {
        self.settings.probes = probes.clamp(1, self.lists());
    }

    fn set_rerank(&mut self, rows: Option<usize>) {
        self.settings.rerank = rows.map_or(Rerank::Auto, |rows| Rerank::Rows(rows.max(1)));
    }

    fn stage(&self, path: &Path) -> Result<AtomicFile, SaveError> {
        self.write(path)
    }
}
