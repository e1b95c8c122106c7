//! `assign`: the nearest row of each query.

use super::{CpuEngine, mismatch};
use crate::engine::{Candidates, EngineError, Task};
use crate::kernels::assign::assigns;
use crate::plan::Screen;
use crate::stats::SearchStats;

impl CpuEngine {
    /// The row with the smallest (key, position) for each query.
    pub(super) fn assign(&self, task: &Task<'_>, stats: &mut SearchStats) -> Result<Candidates, EngineError> {
        let p = &task.plan.problem;
        if !assigns(p.metric, p.dtype) {
            return mismatch(format!("points are not assigned by {} to {} rows", p.metric, p.dtype));
        }
        self.search(task, Screen::None, 1, stats)
    }
}
