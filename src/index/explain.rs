//! The plan of a search and its predicted time, without running it; on request also the measured time.

use std::fmt;
use std::time::Instant;

use super::{Flat, SearchOptions};
use crate::compute::Operation;
use crate::error::SearchError;
use crate::ops::{Cost, Engine, Op, Program};
use crate::stats::{Ceilings, SearchStats};
use crate::types::RowsView;

/// A program with the cost and predicted time of every operation on one device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The device in words.
    pub device: String,
    /// What the device can do at best, as measured.
    pub ceilings: Ceilings,
    /// What runs.
    pub program: Program,
    /// Bytes and operations of each operation.
    pub costs: Vec<Cost>,
}

impl Explanation {
    pub(crate) fn of(engine: &Engine, program: Program) -> Explanation {
        Explanation { device: engine.name(), ceilings: engine.ceilings(), costs: program.costs(), program }
    }

    /// Whether lists are scanned, rather than all rows searched as they are.
    pub fn scans_lists(&self) -> bool {
        self.program.operations().any(|(_, op)| matches!(op, Op::Scan(_)))
    }

    /// The least time the device can need, in seconds.
    pub fn seconds(&self) -> f64 {
        self.costs.iter().map(|c| c.seconds(&self.ceilings)).sum()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.device, subject(&self.program))?;
        let c = &self.ceilings;
        let (gb, gop) = (c.bytes_per_second / 1e9, c.operations_per_second / 1e9);
        writeln!(f, "measured ceilings: {gb:.1} GB/s, {gop:.0} GFLOP/s, {:.0} us per launch", c.launch_seconds * 1e6)?;
        let wide = width(&self.program) + 2;
        writeln!(f, "{:<wide$} {:>12} {:>12} {:>12}  bound by", "operation", "bytes", "operations", "predicted")?;
        for ((_, op), cost) in self.program.operations().zip(&self.costs) {
            let bytes = cost.bytes_read + cost.bytes_written;
            let memory_bound = bytes / c.bytes_per_second > cost.operations / c.operations_per_second;
            writeln!(
                f,
                "{:<wide$} {:>12} {:>12} {:>12}  {}",
                op.to_string(),
                scaled(bytes, "B"),
                scaled(cost.operations, "op"),
                scaled(cost.seconds(c), "s"),
                if memory_bound { "memory" } else { "arithmetic" },
            )?;
        }
        write!(f, "{:<1$} {2:>12}", "at best", wide + 26, scaled(self.seconds(), "s"))
    }
}

/// The predicted and the measured time of a search on a device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trial {
    /// The device that answered, in words.
    pub device: String,
    /// What runs.
    pub program: Program,
    /// Predicted seconds of each operation, from the calibration of the device.
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
        let program = self.explain(queries, k, options)?.program;
        let predicted = self.device().predict(&program)?;
        let run = || -> Result<(f64, SearchStats), SearchError> {
            let began = Instant::now();
            let (_, stats) = self.search_with(queries, k, options)?;
            Ok((began.elapsed().as_secs_f64(), stats))
        };
        let (first_seconds, _) = run()?;
        let (seconds, stats) = run()?;
        Ok(Trial { device: stats.device.clone(), program, predicted, stats, seconds, first_seconds })
    }
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.device)?;
        let wide = width(&self.program);
        writeln!(f, "  {:<wide$} {:>12} {:>12} {:>9}", "operation", "predicted", "measured", "ratio")?;
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
        let stage_of = |op: &Op| if let Op::Host(host) = op { host.what } else { op.name() };
        for ((_, op), predicted) in self.program.operations().zip(&self.predicted) {
            line(&op.to_string(), Some(*predicted), stage(stage_of(op)))?;
        }
        let verbs: Vec<&str> = self.program.operations().map(|(_, op)| stage_of(op)).collect();
        for other in self.stats.stages.iter().filter(|s| !verbs.contains(&s.name.as_str())) {
            line(&other.name, None, Some(other.time.as_secs_f64()))?;
        }
        line("in all", Some(self.predicted.iter().sum()), Some(self.seconds))?;
        write!(f, "  the first time, kernels and rows not yet in place: {}", scaled(self.first_seconds, "s"))
    }
}

/// Columns that the names of operations take.
fn width(program: &Program) -> usize {
    program.operations().map(|(_, op)| op.to_string().len()).max().unwrap_or(0).max(27)
}

/// Queries and rows of the program, as its first operation over rows that are stored has them.
fn subject(program: &Program) -> String {
    let mut of_rows = program.operations().filter_map(|(_, op)| match op {
        Op::Search(search) => search.pairs.extent(program).ok(),
        Op::Refine(refine) => refine.pairs.extent(program).ok(),
        Op::Assign(assign) => assign.pairs.extent(program).ok(),
        Op::Range(range) => range.pairs.extent(program).ok(),
        Op::Distance(distance) => distance.pairs.extent(program).ok(),
        Op::Host(_) | Op::Matmul(_) | Op::Normalize(_) | Op::Scan(_) | Op::SegmentSum(_) | Op::SelectK(_) => None,
    });
    // Of an inverted file the centroids come first, the rows last.
    match of_rows.next_back() {
        Some(e) => {
            format!("{} queries against {} rows of {} {}, {}", e.queries, e.rows, e.dim, e.dtype, e.metric)
        }
        None => program.to_string(),
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::compute::{Backend, Capabilities, Input, Pending};
    use crate::cpu::CpuEngine;
    use crate::engine::Device;
    use crate::index::{Ivf, TrainOptions};
    use crate::ops::Screen;
    use crate::threads::Threads;
    use crate::types::{Bitmap, Filter, MatrixView, Metric};

    /// The CPU, and the programs that it was given, as they are printed.
    struct Noting {
        cpu: CpuEngine,
        programs: Mutex<Vec<String>>,
    }

    impl Backend<Op> for Noting {
        fn name(&self) -> String {
            self.cpu.name()
        }

        fn capabilities(&self) -> Capabilities {
            self.cpu.capabilities()
        }

        fn run<'a>(&'a self, program: &'a Program, inputs: &'a [Input<'a>]) -> Pending<'a> {
            self.programs.lock().unwrap().push(format!("{program:#}"));
            self.cpu.run(program, inputs)
        }

        fn ceilings(&self) -> Ceilings {
            self.cpu.ceilings()
        }
    }

    #[test]
    fn what_is_explained_is_what_runs() {
        let dim = 24;
        let mut state = 5u32;
        let mut random = |count: usize| -> Vec<f32> {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / f32::powi(2.0, 23) - 1.0
            };
            (0..count).map(|_| next()).collect()
        };
        let (rows, queries) = (random(6000 * dim), random(20 * dim));
        let (rows, queries) = (MatrixView::new(&rows, dim).unwrap(), MatrixView::new(&queries, dim).unwrap());
        let threads = Threads::new(Some(2));
        let cpu = CpuEngine::with(threads.clone(), None);
        let noting = Arc::new(Noting { cpu, programs: Mutex::default() });
        let host = Arc::new(CpuEngine::with(threads.clone(), None));
        let device = Device::new(noting.clone(), host, threads);
        let ran = || std::mem::take(&mut *noting.programs.lock().unwrap());
        let half = Filter::Rows(Bitmap::from_fn(6000, |row| row % 2 == 0));
        let all_options = [SearchOptions::default(), SearchOptions { filter: Some(half), ..SearchOptions::default() }];

        let mut flat = Flat::new(&device, dim, Metric::L2).unwrap();
        flat.add(rows).unwrap();
        for screen in [None, Some(Screen::None), Some(Screen::F32), Some(Screen::Int8)] {
            flat.set_screen(screen).unwrap();
            for options in &all_options {
                ran();
                let explained = flat.explain(queries, 5, options).unwrap().program;
                assert_eq!(ran(), Vec::<String>::new(), "explaining runs nothing");
                flat.search_with(queries, 5, options).unwrap();
                assert_eq!(ran().first(), Some(&format!("{explained:#}")), "{screen:?}");
            }
        }
        for spec in
            ["IVF32,SQ8", "IVF32,RaBitQ4,RFlat", "PCA16,IVF32,PQ8x4,RFlat", "SQ8,RFlat", "IVF32,SQ4,Refine(SQ8)"]
        {
            for metric in [Metric::L2, Metric::Cosine] {
                let parsed = spec.parse().unwrap_or_else(|e| panic!("{spec}: {e}"));
                let mut ivf = Ivf::train(&device, &parsed, metric, rows, &TrainOptions::default()).unwrap();
                ivf.add(rows).unwrap();
                for options in &all_options {
                    ran();
                    let explained = ivf.explain(queries, 5, options).unwrap().program;
                    assert_eq!(ran(), Vec::<String>::new(), "{spec}: explaining runs nothing");
                    ivf.search_with(queries, 5, options).unwrap();
                    assert_eq!(ran().first(), Some(&format!("{explained:#}")), "{spec}, {metric}");
                }
            }
        }
    }
}
