//! `nearfield bench search`: speed and recall on the user's files, for people and, as JSON, for programs.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use nearfield::{AnyIndex, SearchOptions};
use serde::Serialize;
use serde_json::{Value, json};

use super::measure::{self, Limits};
use super::recall::{Counter, Truth};
use super::settings::{self, Sweep, sweep};
use crate::common::{DeviceArgs, ScreenChoice, file, k, note_fallback, screen};
use crate::data::{self, HowArgs, Source};
use crate::outputs::Outputs;
use crate::search::ListArgs;
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
    /// Neighbours per query
    #[arg(short, value_name = "K", value_parser = k)]
    k: usize,
    /// Queries per call, several sizes one after another; the first batch of each is a warm-up
    #[arg(long, value_name = "B,...", value_delimiter = ',', default_value = "1,100", value_parser = batch)]
    batch: Vec<usize>,
    /// The true neighbours, int32 or int64 [q, k or more], for the recall (by distance, so ties don't cost)
    #[arg(long, value_name = "GT.npy")]
    truth: Option<PathBuf>,
    /// Settings to sweep: auto, or nprobe=1,2,4 (Flat has none)
    #[arg(long, value_name = "SWEEP", value_parser = sweep)]
    sweep: Option<Sweep>,
    #[command(flatten)]
    lists: ListArgs,
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

pub fn run(args: &BenchSearchArgs) -> Result<()> {
    let inputs = [file(&args.base), file(&args.queries), args.truth.as_ref()];
    let mut outputs = Outputs::begin(&[args.json.as_ref()], &inputs)?;
    let device = args.device.open()?;
    let metric = args.how.metric()?;
    let base = data::rows(&args.base, &args.how)?;
    let began = Instant::now();
    let index = match data::build(&device, base.clone(), None, &args.base, &args.how)? {
        AnyIndex::Flat(mut flat) => {
            flat.set_screen(args.screen.0)?;
            flat.prepare()?;
            AnyIndex::Flat(flat)
        }
        index => index,
    };
    let built = began.elapsed();
    let source = Source { index, path: args.base.clone() };
    let queries = data::queries(&args.queries, &source)?;
    if queries.rows() == 0 {
        return Err(fail::input(format!(
            "`{}` holds no queries, so there is nothing to measure",
            args.queries.display()
        )));
    }
    let read = |path: &PathBuf| Truth::read(path, queries.rows(), base.rows(), args.k);
    let truth = args.truth.as_ref().map(read).transpose()?;
    let mut settings = settings::of(&source.index, args.k, args.sweep.as_ref());
    settings.iter_mut().filter(|s| s.rerank.is_none()).for_each(|s| args.lists.rerank_only(s));
    if settings.is_empty() {
        if args.sweep.as_ref().is_some_and(|s| *s != Sweep::Auto) {
            fail::tell("note", &format!("{} has no settings to sweep, so each batch size is one row", args.how.index));
        }
        let mut options = SearchOptions::default();
        args.lists.apply(&mut options);
        settings.push(options);
    }
    let (mut rows, mut fallback) = (Vec::new(), None);
    let bar = ui::progress(((settings.len() + args.batch.len()) * queries.rows()) as u64, "searching");
    let mut time = |options: &SearchOptions, batch: usize, least: Duration| -> Result<Row> {
        let limits = Limits { least, every_query: true };
        let mut counter = truth.as_ref().map(|t| Counter::new(metric, &base, &queries, t));
        let k = args.k.min(base.rows());
        let timing = measure::run(&source.index, &queries, k, batch, options, &limits, |first, found| {
            if let Some(counter) = &mut counter {
                counter.count(first, found);
            }
            bar.inc(batch as u64);
            Ok(())
        })?;
        if fallback.is_none() && timing.stats().fallback.is_some() {
            note_fallback(timing.stats());
            fallback.clone_from(&timing.stats().fallback);
        }
        Ok(Row {
            index: args.how.index.to_string(),
            params: settings::json(options),
            batch,
            qps: timing.qps(),
            p50_ms: timing.percentile_ms(0.5),
            p95_ms: timing.percentile_ms(0.95),
            recall: counter.and_then(|c| c.recall()),
            build_s: built.as_secs_f64(),
            memory_bytes: source.index.memory_bytes(),
            stages: timing.stages_ms().into_iter().map(|(name, ms)| json!({"name": name, "ms": ms})).collect(),
        })
    };
    let swept = settings.len() > 1;
    if swept {
        // All of them in large batches, where that takes least; then those that no other beats in both speed and recall.
        let batch = args.batch.iter().copied().max().unwrap_or(1).max(queries.rows().min(1000));
        let least = Duration::from_millis(60);
        let first = settings.iter().map(|options| time(options, batch, least)).collect::<Result<Vec<Row>>>()?;
        let point = |row: &Row| (row.recall.unwrap_or(0.0), row.qps);
        let mut front = nearfield::fastest(&first.iter().map(point).collect::<Vec<_>>());
        if truth.is_none() {
            // Nothing tells them apart but speed.
            front = (0..settings.len()).collect();
        }
        settings = front.into_iter().map(|i| settings[i].clone()).collect();
    }
    let least = if swept { Duration::from_millis(400) } else { Duration::from_secs(1) };
    for &batch in &args.batch {
        for options in &settings {
            rows.push(time(options, batch, least)?);
        }
    }
    bar.finish_and_clear();
    let mut described = compare::describe(&device);
    described["fallback"] = json!(fallback);
    outputs.json(args.json.as_ref(), &json!({"device": described, "results": rows}))?;
    outputs.commit()?;
    fail::print(&table(args, &source, &device.name(), &rows))
}

fn table(args: &BenchSearchArgs, source: &Source, device: &str, rows: &[Row]) -> String {
    let cells = rows.iter().map(|row| {
        let recall = row.recall.map_or("-".to_owned(), |r| format!("{r:.4}"));
        let settings = row.params.as_object().map_or(String::new(), |o| {
            o.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        });
        let batch = ui::count(row.batch as u64);
        [settings, batch, ui::rate(row.qps), ui::ms(row.p50_ms), ui::ms(row.p95_ms), recall]
    });
    let table = ui::table(["settings", "batch", "queries/s", "p50", "p95", "recall"], cells);
    let name =
        |path: &Path| path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into());
    format!(
        "{}: {} {}, {}, k = {}, {} on {device}\n\n{table}",
        name(&args.base),
        ui::count(source.index.len() as u64),
        if source.index.len() == 1 { "row" } else { "rows" },
        source.index.metric(),
        args.k,
        args.how.index,
    )
}
