//! `scan`: the rows of the probed lists with the smallest keys.

use super::{CpuEngine, mismatch};
use crate::engine::{Candidates, EngineError, Listed, Task};
use crate::kernels::scan;
use crate::stats::SearchStats;

impl CpuEngine {
    /// The `keep` smallest keys of each query in the lists probed for it, and their slots.
    pub(super) fn scan(
        &self,
        task: &Task<'_>,
        listed: &Listed<'_>,
        keep: usize,
        _stats: &mut SearchStats,
    ) -> Result<Candidates, EngineError> {
        let metric = task.plan.problem.metric;
        let found = scan::reference(metric, listed.lists, listed.queries, &listed.probes, task.mask, keep);
        let mut candidates = Candidates::places(found.len(), keep)?;
        for (q, found) in found.iter().enumerate() {
            for (i, &(key, slot)) in found.iter().enumerate() {
                candidates.keys[q * keep + i] = key;
                candidates.positions[q * keep + i] = slot;
            }
        }
        Ok(candidates)
    }
}

/// Whether the parts of a scan fit together, so that no index can be out of bounds.
pub(super) fn check(task: &Task<'_>, listed: &Listed<'_>) -> Result<(), EngineError> {
    let (lists, probes, queries) = (listed.lists, &listed.probes, listed.queries);
    let (q, padded) = (queries.queries, lists.form.padded(lists.dim));
    let wanted = q * probes.width;
    if probes.lists.len() != wanted || probes.offsets.len() != wanted || task.plan.problem.queries != q {
        return mismatch(format!(
            "{} probed lists for {} queries x {}",
            probes.lists.len(),
            task.plan.problem.queries,
            probes.width
        ));
    }
    if let Some(list) = probes.lists.iter().find(|&&l| l != u32::MAX && l as usize >= lists.lists.len()) {
        return mismatch(format!("list {list} of {}", lists.lists.len()));
    }
    use crate::kernels::lists::Form;
    let (found, wanted) = match lists.form {
        Form::Integers(_) => (queries.integers.len(), q * padded),
        Form::Parts(_) => (queries.tables.len(), q * padded * lists.form.entries()),
        Form::Rows(_) => (queries.floats.len(), q * lists.dim),
        Form::Bits => (queries.bits.len(), q * lists.form.words(lists.dim)),
    };
    if found != wanted || (!lists.form.is_exact() && queries.terms.len() != q) {
        return mismatch(format!("{found} numbers for {q} queries of {}, wanted {wanted}", lists.form));
    }
    Ok(())
}
