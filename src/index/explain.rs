//! What a search would do and take, without doing it.

use std::fmt;

use crate::kernels::Cost;
use crate::plan::Plan;
use crate::stats::Ceilings;

/// A plan with the cost and predicted time of every step on one device.
#[derive(Clone, Debug)]
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
        writeln!(f, "{:<29} {:>12} {:>12} {:>12}  bound by", "step", "bytes", "operations", "predicted")?;
        for (step, cost) in self.plan.steps.iter().zip(&self.costs) {
            let bytes = cost.bytes_read + cost.bytes_written;
            let memory_bound = bytes / c.bytes_per_second > cost.operations / c.operations_per_second;
            writeln!(
                f,
                "{:<29} {:>12} {:>12} {:>12}  {}",
                step.to_string(),
                scaled(bytes, "B"),
                scaled(cost.operations, "op"),
                scaled(cost.seconds(c), "s"),
                if memory_bound { "memory" } else { "arithmetic" },
            )?;
        }
        write!(f, "{:<55} {:>12}", "at best", scaled(self.seconds(), "s"))
    }
}

/// A number with a decimal prefix.
fn scaled(x: f64, unit: &str) -> String {
    let scales = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n")];
    match scales.iter().find(|(scale, _)| x >= *scale) {
        Some((scale, prefix)) => format!("{:.1} {prefix}{unit}", x / scale),
        None => format!("0 {unit}"),
    }
}
