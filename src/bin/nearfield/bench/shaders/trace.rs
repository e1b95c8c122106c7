//! Every timed run in the trace format of Chrome: <https://ui.perfetto.dev>, chrome://tracing.

use std::time::Instant;

use nearfield::roofline::Run;
use serde_json::{Value, json};

use super::record::Row;

/// Rows of the viewer come in processes: what the host waited for, and what the device's own clock has timed.
const HOST: u32 = 1;
const DEVICE: u32 = 2;

pub struct Trace {
    began: Instant,
    /// One row of the viewer each.
    families: Vec<String>,
    events: Vec<Value>,
}

impl Trace {
    pub fn new(began: Instant, device: &str) -> Trace {
        let mut trace = Trace { began, families: Vec::new(), events: Vec::new() };
        trace.events.push(named("process_name", HOST, 0, &format!("{device}: wall clock")));
        trace
    }

    /// Adds the runs of a kernel.
    pub fn add(&mut self, row: &Row, runs: &[Run]) {
        let known = self.families.iter().position(|f| *f == row.family);
        let thread = known.unwrap_or_else(|| {
            if self.families.is_empty() && row.timed_by != "wall clock" {
                let name = "the same by the device's clock (its start is not known: drawn from the start of the run)";
                self.events.push(named("process_name", DEVICE, 0, name));
            }
            self.families.push(row.family.clone());
            let thread = self.families.len() - 1;
            let clocks = [HOST, DEVICE].into_iter().filter(|&p| p == HOST || row.timed_by != "wall clock");
            self.events.extend(clocks.map(|process| named("thread_name", process, thread, &row.family)));
            thread
        });
        for run in runs {
            let mut at = run.began.saturating_duration_since(self.began).as_secs_f64() * 1e6;
            let mut event = |process: u32, name: &str, at: f64, seconds: f64| {
                self.events.push(json!({
                    "name": name, "cat": row.family, "ph": "X", "pid": process, "tid": thread,
                    "ts": at, "dur": seconds * 1e6,
                    "args": {"shape": row.shape, "GB/s": row.gbs, "Gop/s": row.gflops, "share": row.share},
                }));
            };
            event(HOST, &row.name, at, run.wall.as_secs_f64());
            for (stage, time) in &run.stages {
                event(DEVICE, &format!("{} ({stage})", row.name), at, time.as_secs_f64());
                at += time.as_secs_f64() * 1e6;
            }
        }
    }

    pub fn events(&self) -> Value {
        json!({"traceEvents": self.events, "displayTimeUnit": "ms"})
    }
}

fn named(what: &str, process: u32, thread: usize, name: &str) -> Value {
    json!({"name": what, "ph": "M", "pid": process, "tid": thread, "args": {"name": name}})
}
