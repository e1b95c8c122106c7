//! `nearfield tune`: the fastest index that reaches a recall, chosen by measurement.

mod plot;

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use nearfield::{IndexSpec, Tuned, TunedPoint, Tuning};
use serde_json::json;

use crate::common::{DeviceArgs, file, k, metric, size, spec};
use crate::data::{self, HowArgs, Source};
use crate::outputs::Outputs;
use crate::{compare, fail, ui};

/// Find the fastest index for a recall, by measurement on your own queries
#[derive(Args, Debug)]
pub struct TuneArgs {
    /// Vectors to search
    #[arg(long, value_name = "F")]
    base: PathBuf,
    /// Queries like those to come: half are for tuning, the other half checks the result
    #[arg(long, value_name = "F")]
    queries: PathBuf,
    /// l2, ip, cosine and the others that Flat has
    #[arg(long, value_name = "M", value_parser = metric)]
    metric: nearfield::Metric,
    /// Neighbours per query
    #[arg(short, value_name = "K", value_parser = k)]
    k: usize,
    /// The recall to reach: the share of true neighbours found
    #[arg(long, value_name = "R", default_value_t = 0.95, value_parser = recall)]
    recall: f32,
    /// Most bytes that the index may take, e.g. 200MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// Queries per call
    #[arg(long, value_name = "B", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: u32,
    /// Specs to try, again for each [default: those that suit the rows, and similar ones]
    #[arg(long, value_name = "SPEC", value_parser = spec)]
    index: Vec<IndexSpec>,
    /// Seed of all random choices
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Write the chosen index with its settings
    #[arg(long, value_name = "X.nf", help_heading = "Output")]
    out: Option<PathBuf>,
    /// Write the settings that no other beats as JSON
    #[arg(long, value_name = "OUT.json", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Draw those settings as SVG
    #[arg(long, value_name = "OUT.svg", help_heading = "Output")]
    svg: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

fn recall(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(r) if r > 0.0 && r <= 1.0 => Ok(r),
        _ => Err("wanted a share above 0, at most 1, as in 0.95".to_owned()),
    }
}

pub fn run(args: &TuneArgs) -> Result<()> {
    let written = [args.out.as_ref(), args.json.as_ref(), args.svg.as_ref()];
    let mut outputs = Outputs::begin(&written, &[file(&args.base), file(&args.queries)])?;
    let device = args.device.open()?;
    let how = HowArgs::of(args.metric);
    let base = data::rows(&args.base, &how)?;
    let source = Source { index: data::build(&device, base.clone(), None, &args.base, &how)?, path: args.base.clone() };
    let queries = data::queries(&args.queries, &source)?;
    drop(source);
    let mut tuning = Tuning::new(args.recall);
    (tuning.memory, tuning.batch, tuning.seed) = (args.memory, args.batch as usize, args.seed);
    tuning.specs = args.index.clone();
    let bar = ui::spinner("tuning");
    let tuned = tuning.run(&device, &base, queries.view(), args.metric, args.k, &mut |line| bar.println(line))?;
    bar.finish_and_clear();
    let chosen = &tuned.points[tuned.chosen];
    data::note_warnings(&tuned.index);
    if let Some(path) = &args.out {
        outputs.index(path, &tuned.index)?;
    }
    let points: Vec<_> = tuned.points.iter().map(point_json).collect();
    let value = json!({
        "device": compare::describe(&device),
        "metric": args.metric.to_string(),
        "k": args.k,
        "batch": args.batch,
        "goal": {"recall": (f64::from(args.recall) * 1e6).round() / 1e6, "memory_bytes": args.memory},
        "reached": tuned.reached,
        "chosen": point_json(chosen),
        "points": points,
    });
    outputs.json(args.json.as_ref(), &value)?;
    outputs.text(args.svg.as_ref(), &plot::svg(&tuned, &args.base, args.recall))?;
    outputs.commit()?;
    fail::print(&text(args, &tuned, &device.name()))
}

fn point_json(p: &TunedPoint) -> serde_json::Value {
    json!({
        "index": p.spec.to_string(),
        "nprobe": p.probes,
        "rerank": p.rerank,
        "recall": p.recall,
        "recall_checked": p.checked,
        "qps": p.qps,
        "memory_bytes": p.bytes,
        "build_s": p.build_seconds,
    })
}

fn text(args: &TuneArgs, tuned: &Tuned, device: &str) -> String {
    let number = |n: Option<usize>| n.map_or("-".to_owned(), |n| n.to_string());
    let cells = tuned.points.iter().enumerate().map(|(i, p)| {
        let mark = if i == tuned.chosen { ">" } else { "" };
        [
            mark.to_owned(),
            p.spec.to_string(),
            number(p.probes),
            number(p.rerank),
            format!("{:.4}", p.recall),
            format!("{:.4}", p.checked),
            ui::rate(p.qps),
            ui::bytes(p.bytes as u64),
        ]
    });
    let table = ui::table(["", "index", "nprobe", "rerank", "recall", "checked", "queries/s", "memory"], cells);
    let chosen = &tuned.points[tuned.chosen];
    let verdict = if tuned.reached {
        format!(
            "The fastest that finds {} of the neighbours in both halves of the queries: {}",
            args.recall, chosen.spec
        )
    } else {
        format!(
            "None finds {} of the neighbours in both halves of the queries; the best finds {:.4}: {}",
            args.recall,
            chosen.recall.min(chosen.checked),
            chosen.spec
        )
    };
    let saved = args.out.as_ref().map_or(String::new(), |p| format!("Written with its settings to {}\n", p.display()));
    format!(
        "{} rows, {}, k = {}, batches of {} on {device}\nSettings that no other beats in recall, speed and memory:\n\n{table}\n{verdict}\n{saved}",
        ui::count(tuned.index.len() as u64),
        args.metric,
        args.k,
        args.batch,
    )
}
