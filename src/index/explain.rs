//! What a search would do and take, without doing it; and, where that is asked for, what it took.

use std::fmt;
use std::time::Instant;

use super::{Flat, SearchOptions};
use crate::error::SearchError;
use crate::kernels::Cost;
use crate::plan::Plan;
use crate::stats::{Ceilings, SearchStats};
use crate::types::RowsView;

/// A plan with the cost and predicted time of every step on one device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The device in words.
    pub device: String,
    /// What the device can do at best, as measured.
    pub ceilings: Ceilings,
    /// The steps.
    pub plan: Plan,
    /// Bytes and operations of each step.
    pub costs: Vec<Cost>,
}

impl Explanation {
    /// The least time the device can need, in seconds.
    pub fn seconds(&self) -> f64 {
        self.costs.iter().map(|c| c.seconds(&self.ceilings)).sum()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.plan.problem;
        writeln!(
            f,
            "{}: {} queries against {} rows of {} {}, {}",
            self.device, p.queries, p.rows, p.dim, p.dtype, p.metric
        )?;
        let c = &self.ceilings;
        let (gb, gop) = (c.bytes_per_second / 1e9, c.operations_per_second / 1e9);
        writeln!(f, "measured ceilings: {gb:.1} GB/s, {gop:.0} GFLOP/s, {:.0} us a launch", c.launch_seconds * 1e6)?;
        let wide = width(&self.plan) + 2;
        writeln!(f, "{:<wide$} {:>12} {:>12} {:>12}  bound by", "step", "bytes", "operations", "predicted")?;
        for (step, cost) in self.plan.steps.iter().zip(&self.costs) {
            let bytes = cost.bytes_read + cost.bytes_written;
            let memory_bound = bytes / c.bytes_per_second > cost.operations / c.operations_per_second;
            writeln!(
                f,
                "{:<wide$} {:>12} {:>12} {:>12}  {}",
                step.to_string(),
                scaled(bytes, "B"),
                scaled(cost.operations, "op"),
                scaled(cost.seconds(c), "s"),
                if memory_bound { "memory" } else { "arithmetic" },
            )?;
        }
        write!(f, "{:<1$} {2:>12}", "at best", wide + 26, scaled(self.seconds(), "s"))
    }
}

/// What a search was predicted to take on a device, and what it took.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trial {
    /// The device that answered, in words.
    pub device: String,
    /// The steps.
    pub plan: Plan,
    /// Predicted seconds of each step, from the calibration of the device.
    pub predicted: Vec<f64>,
    /// What the search did, its stages among it; rows and kernels were in place.
    pub stats: SearchStats,
    /// Seconds that it took as a whole.
    pub seconds: f64,
    /// Seconds that the search before it took, which may have compiled kernels and brought rows to the device.
    pub first_seconds: f64,
}

impl Flat {
    /// [`Index::trial`](super::Index::trial).
    pub(super) fn tried(&self, queries: RowsView<'_>, k: usize, options: &SearchOptions) -> Result<Trial, SearchError> {
        let plan = self.explain(queries, k, options)?.plan;
        let predicted = self.device().predict(&plan)?;
        let run = || -> Result<(f64, SearchStats), SearchError> {
            let began = Instant::now();
            let (_, stats) = self.search_with(queries, k, options)?;
            Ok((began.elapsed().as_secs_f64(), stats))
        };
        let (first_seconds, _) = run()?;
        let (seconds, stats) = run()?;
        Ok(Trial { device: stats.device.clone(), plan, predicted, stats, seconds, first_seconds })
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.device)?;
        let wide = width(&self.plan);
        writeln!(f, "  {:<wide$} {:>12} {:>12} {:>9}", "step", "predicted", "measured", "ratio")?;
        let mut line = |name: &str, predicted: Option<f64>, measured: Option<f64>| {
            let time = |s: Option<f64>| s.map_or_else(|| "-".to_owned(), |s| scaled(s, "s"));
            let ratio = match (predicted, measured) {
                (Some(p), Some(m)) if p > 0.0 => format!("{:.2}", m / p),
                _ => String::new(),
            };
            writeln!(f, "  {name:<wide$} {:>12} {:>12} {ratio:>9}", time(predicted), time(measured))
        };
        let stage = |name: &str| {
            let found = self.stats.stages.iter().filter(|s| s.name == name);
            found.map(|s| s.time.as_secs_f64()).reduce(|a, b| a + b)
        };
        for (step, predicted) in self.plan.steps.iter().zip(&self.predicted) {
            line(&step.to_string(), Some(*predicted), stage(step.verb()))?;
        }
        let verbs: Vec<&str> = self.plan.steps.iter().map(|s| s.verb()).collect();
        for other in self.stats.stages.iter().filter(|s| !verbs.contains(&s.name.as_str())) {
            line(&other.name, None, Some(other.time.as_secs_f64()))?;
        }
        line("in all", Some(self.predicted.iter().sum()), Some(self.seconds))?;
        write!(f, "  the first time, kernels and rows not yet in place: {}", scaled(self.first_seconds, "s"))
    }
}

/// Columns that the names of steps take.
fn width(plan: &Plan) -> usize {
    plan.steps.iter().map(|step| step.to_string().len()).max().unwrap_or(0).max(27)
}

/// A number with a decimal prefix.
fn scaled(x: f64, unit: &str) -> String {
    let scales = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")];
    match scales.iter().find(|(scale, _)| x >= *scale) {
        Some((scale, prefix)) => format!("{:.1} {prefix}{unit}", x / scale),
        None => format!("0 {unit}"),
    }
}
