//! What was measured, in the shape that the JSON has.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use nearfield::Roofs;
use nearfield::roofline::model::{FAULT, Limit};
use nearfield::roofline::{Run, Subject};
use serde::{Deserialize, Serialize};

use super::Timed;
use crate::fail;

/// The first member of the file, and its only value so far.
const SCHEMA: &str = "nearfield.bench.shaders/1";

/// A whole run. Times are in seconds, rates in units of 10^9 per second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub schema: String,
    pub version: String,
    /// Seconds since 1970.
    pub unix_time: u64,
    pub device: Device,
    /// `gpu timestamps` or `wall clock`.
    pub timed_by: String,
    pub ceilings: Ceilings,
    pub rows: Vec<Row>,
    pub failed: Vec<Failed>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    pub name: String,
    pub kind: String,
    pub backend: Option<String>,
    pub driver: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ceilings {
    /// The smallest working set first; the last one is memory.
    pub read: Vec<Read>,
    pub copy_gbs: f64,
    pub arithmetic: Vec<Arithmetic>,
    pub launch_s: f64,
    pub read_back_s: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Read {
    pub bytes: u64,
    pub gbs: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arithmetic {
    pub unit: String,
    /// Absent where it was not measured; `note` says why.
    pub gops: Option<f64>,
    pub note: String,
}

/// A kernel on a shape.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub family: String,
    pub name: String,
    pub shape: String,
    pub timed_by: String,
    pub runs: usize,
    pub median_s: f64,
    pub min_s: f64,
    pub max_s: f64,
    /// Median distance from the median.
    pub mad_s: f64,
    /// What the caller waited, read-back included.
    pub wall_median_s: f64,
    pub bytes: f64,
    pub operations: f64,
    pub gbs: f64,
    pub gflops: f64,
    /// The share of the lower roof.
    pub share: f64,
    /// The lower roof: `memory`, `cache`, or the arithmetic.
    pub bound: String,
    /// 10^9 per second of the two roofs that it is held against.
    pub roof_gbs: f64,
    pub roof_gops: f64,
    /// The fault of the model if the kernel is past its roof.
    pub fault: Option<String>,
}

/// What could not be measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failed {
    pub name: String,
    pub shape: String,
    pub why: String,
}

impl Report {
    /// Nothing but the device and its ceilings.
    pub fn new(subject: &Subject, roofs: &Roofs) -> Report {
        let id = subject.identity();
        let arithmetic = roofs.peaks.iter().map(|peak| Arithmetic {
            unit: peak.unit.name().to_owned(),
            gops: peak.operations_per_second.map(|rate| rate / 1e9),
            note: peak.note.clone(),
        });
        Report {
            schema: SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unix_time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
            device: Device { name: id.name, kind: id.kind, backend: id.backend, driver: id.driver },
            timed_by: clock(subject.has_timestamps()).to_owned(),
            ceilings: Ceilings {
                read: roofs.read.iter().map(|&(bytes, rate)| Read { bytes, gbs: rate / 1e9 }).collect(),
                copy_gbs: roofs.copy / 1e9,
                arithmetic: arithmetic.collect(),
                launch_s: roofs.launch_seconds,
                read_back_s: roofs.read_back_seconds,
            },
            rows: Vec::new(),
            failed: Vec::new(),
        }
    }
}

fn clock(on_device: bool) -> &'static str {
    if on_device { "gpu timestamps" } else { "wall clock" }
}

impl Row {
    /// What some runs say of a kernel with this cost under these roofs.
    pub fn new(timed: &Timed, limit: &Limit) -> Row {
        let Timed { runs, cost, .. } = timed;
        let times: Vec<f64> = runs.iter().map(Run::seconds).collect();
        let walls = runs.iter().map(|run| run.wall.as_secs_f64()).collect();
        let median_s = median(times.clone());
        let reached = limit.reached(cost, median_s);
        let fault = (reached.share > FAULT).then(|| {
            format!(
                "{:.0} % of its roof: the cost model counts too much for it, or the ceiling was measured too low",
                reached.share * 100.0
            )
        });
        Row {
            family: timed.family.to_owned(),
            name: timed.name.clone(),
            shape: timed.shape.clone(),
            timed_by: clock(runs.iter().any(Run::on_device)).to_owned(),
            runs: runs.len(),
            median_s,
            min_s: times.iter().copied().fold(f64::INFINITY, f64::min),
            max_s: times.iter().copied().fold(0.0, f64::max),
            mad_s: median(times.iter().map(|t| (t - median_s).abs()).collect()),
            wall_median_s: median(walls),
            bytes: cost.bytes_read + cost.bytes_written,
            operations: cost.operations,
            gbs: reached.gbs,
            gflops: reached.gflops,
            share: reached.share,
            bound: limit.bound(&reached).to_owned(),
            roof_gbs: limit.bytes_per_second / 1e9,
            roof_gops: limit.operations_per_second / 1e9,
            fault,
        }
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let half = times.len() / 2;
    match (times.get(half), times.len() % 2) {
        (Some(&upper), 0) => (times.get(half.wrapping_sub(1)).copied().unwrap_or(upper) + upper) / 2.0,
        (Some(&middle), _) => middle,
        _ => f64::NAN,
    }
}

/// The report of an earlier run.
pub fn read(path: &Path) -> Result<Report> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|e| fail::input(format!("cannot read `{name}`: {e}")))?;
    let wrong = |why: String| fail::input(format!("`{name}` is no JSON of `nearfield bench shaders`: {why}"));
    let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
    match value.get("schema").and_then(|s| s.as_str()) {
        Some(SCHEMA) => serde_json::from_value(value).map_err(|e| wrong(e.to_string())),
        Some(other) => Err(wrong(format!("its schema is `{other}`, wanted `{SCHEMA}`"))),
        None => Err(wrong(format!("it has no schema, wanted `{SCHEMA}`"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use nearfield::{Cost, Unit};

    use super::*;

    #[test]
    fn medians() {
        assert_eq!((median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0, 2.0, 3.0])), (2.0, 2.5));
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn a_kernel_past_its_roof_is_a_fault_of_the_model() {
        let run = |ms| Run { began: Instant::now(), wall: Duration::from_millis(ms), stages: Vec::new() };
        let limit = Limit { bytes_per_second: 1e9, cached: false, operations_per_second: 1e12, unit: Unit::F32 };
        let cost = Cost { bytes_read: 1e8, ..Cost::default() };
        let row = |ms| {
            let (name, shape) = ("search".to_owned(), "1".to_owned());
            let runs = vec![run(ms), run(ms + 2), run(ms + 1)];
            let timed = Timed { family: "search", name, shape, runs, cost, unit: Unit::F32, bytes_touched: 1 };
            Row::new(&timed, &limit)
        };
        // The memory allows 100 ms.
        let slow = row(199);
        assert!((slow.share - 0.5).abs() < 1e-9 && slow.fault.is_none() && slow.timed_by == "wall clock");
        assert_eq!((slow.bound.as_str(), slow.runs), ("memory", 3));
        assert!((slow.mad_s - 1e-3).abs() < 1e-9 && slow.min_s < slow.median_s && slow.median_s < slow.max_s);
        assert!(row(95).fault.is_none(), "noise");
        assert!(row(79).fault.is_some_and(|why| why.starts_with("125 % of its roof: the cost model")));
    }
}
