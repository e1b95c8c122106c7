//! `nearfield bench search`: speed and recall on the user's files, for people and, as JSON, for programs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use nearfield::{Index, IndexSpec};
use serde::Serialize;
use serde_json::{Value, json};

use super::measure::{self, Limits, Timing};
use super::recall::{Counter, Truth};
use crate::common::{DeviceArgs, ScreenChoice, file, k, note_fallback, screen};
use crate::data::{self, HowArgs, Source};
use crate::outputs::{self, Outputs};
use crate::{compare, fail, ui};

/// Measure speed and recall on your own files
#[derive(Args, Debug)]
pub struct BenchSearchArgs {
    /// Vectors to search
    #[arg(long, value_name = "F")]
    base: PathBuf,
    /// Queries, in a file of the same kinds as the base
    #[arg(long, value_name = "F")]
    queries: PathBuf,
    #[command(flatten)]
    how: HowArgs,
    /// Neighbours a query
    #[arg(short, value_name = "K", value_parser = k)]
    k: usize,
    /// Queries a call, several sizes one after another; the first batch of each is a warm-up
    #[arg(long, value_name = "B,...", value_delimiter = ',', default_value = "1,100", value_parser = batch)]
    batch: Vec<usize>,
    /// The true neighbours, int32 or int64 [q, k or more], for the recall (by distance, so ties don't cost)
    #[arg(long, value_name = "GT.npy")]
    truth: Option<PathBuf>,
    /// Settings to go through: auto, or NAME=1,2,4 (Flat has none)
    #[arg(long, value_name = "SWEEP", value_parser = sweep)]
    sweep: Option<String>,
    /// The pass in front of the exact one: auto, none, f32, f16, int8
    #[arg(long, value_name = "S", value_parser = screen, default_value = "auto")]
    screen: ScreenChoice,
    /// Write the results as JSON
    #[arg(long, value_name = "OUT.json", help_heading = "Output")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

fn batch(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(b) if (1..=1_000_000).contains(&b) => Ok(b),
        _ => Err("wanted whole numbers from 1 to 1000000, as in 1,100".to_owned()),
    }
}

fn sweep(text: &str) -> Result<String, String> {
    let list = |values: &str| values.split(',').all(|v| v.parse::<f64>().is_ok());
    match text.split_once('=') {
        None if text == "auto" => Ok(text.to_owned()),
        Some((name, values)) if !name.is_empty() && list(values) => Ok(text.to_owned()),
        _ => Err("wanted auto, or a setting with its values as in nprobe=1,2,4".to_owned()),
    }
}

#[derive(Serialize)]
struct Row {
    index: String,
    params: Value,
    batch: usize,
    qps: f64,
    p50_ms: f64,
    p95_ms: f64,
    recall: Option<f64>,
    build_s: f64,
    memory_bytes: usize,
    stages: Vec<Value>,
}

impl Row {
    fn new(spec: &IndexSpec, batch: usize, timing: &Timing, recall: Option<f64>, built: Duration, bytes: usize) -> Row {
        Row {
            index: spec.to_string(),
            params: json!({}),
            batch,
            qps: timing.qps(),
            p50_ms: timing.percentile_ms(0.5),
            p95_ms: timing.percentile_ms(0.95),
            recall,
            build_s: built.as_secs_f64(),
            memory_bytes: bytes,
            stages: timing.stages_ms().into_iter().map(|(name, ms)| json!({"name": name, "ms": ms})).collect(),
        }
    }
}

pub fn run(args: &BenchSearchArgs) -> Result<()> {
    outputs::check(&[args.json.as_ref()], &[file(&args.base), file(&args.queries), args.truth.as_ref()])?;
    let device = args.device.open()?;
    let metric = args.how.metric()?;
    let base = data::rows(&args.base, &args.how)?;
    let began = Instant::now();
    let mut flat = data::flat(&device, base.clone(), &args.base, metric)?;
    flat.set_screen(args.screen.0)?;
    flat.prepare()?;
    let built = began.elapsed();
    let source = Source { flat, path: args.base.clone() };
    let queries = data::queries(&args.queries, &source)?;
    if queries.rows() == 0 {
        return Err(fail::input(format!(
            "`{}` holds no queries, so there is nothing to measure",
            args.queries.display()
        )));
    }
    let read = |path: &PathBuf| Truth::read(path, queries.rows(), base.rows(), args.k);
    let truth = args.truth.as_ref().map(read).transpose()?;
    if args.sweep.as_ref().is_some_and(|s| s != "auto") {
        fail::tell("note", &format!("{} has no settings to sweep, so each batch size is one row", args.how.index));
    }
    let (mut rows, mut fallback) = (Vec::new(), None);
    for &batch in &args.batch {
        let limits = Limits { least: Duration::from_secs(1), every_query: true };
        let mut counter = truth.as_ref().map(|t| Counter::new(metric, &base, &queries, t));
        let bar = ui::progress(queries.rows() as u64, "searching");
        let timing = measure::run(&source.flat, &queries, args.k.min(base.rows()), batch, &limits, |first, found| {
            if let Some(counter) = &mut counter {
                counter.count(first, found);
            }
            bar.set_position((first + batch) as u64);
            Ok(())
        })?;
        bar.finish_and_clear();
        if fallback.is_none() && timing.stats().fallback.is_some() {
            note_fallback(timing.stats());
            fallback.clone_from(&timing.stats().fallback);
        }
        let recall = counter.and_then(|c| c.recall());
        rows.push(Row::new(&args.how.index, batch, &timing, recall, built, source.flat.memory_bytes()));
    }
    let mut described = compare::describe(&device);
    described["fallback"] = json!(fallback);
    let mut outputs = Outputs::default();
    outputs.json(args.json.as_ref(), &json!({"device": described, "results": rows}))?;
    outputs.commit()?;
    fail::print(&table(args, &source, &device.name(), &rows))
}

fn table(args: &BenchSearchArgs, source: &Source, device: &str, rows: &[Row]) -> String {
    let cells = rows.iter().map(|row| {
        let recall = row.recall.map_or("-".to_owned(), |r| format!("{r:.4}"));
        [ui::count(row.batch as u64), ui::rate(row.qps), ui::ms(row.p50_ms), ui::ms(row.p95_ms), recall]
    });
    let table = ui::table(["batch", "queries/s", "p50", "p95", "recall"], cells);
    let name =
        |path: &Path| path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into());
    format!(
        "{}: {} {}, {}, k = {}, {} on {device}\n\n{table}",
        name(&args.base),
        ui::count(source.flat.len() as u64),
        if source.flat.len() == 1 { "row" } else { "rows" },
        source.flat.metric(),
        args.k,
        args.how.index,
    )
}
