//! `nearfield explain`: the plan of a search, with bytes, operations and predicted time of each step; then, on each
//! engine that there is, the predicted and the measured time of each step, and the engine that `auto` takes.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use nearfield::format::Matrix;
use nearfield::{AnyIndex, DType, Device, Explanation, SearchOptions, Trial};

use crate::common::{DeviceArgs, ScreenChoice, k, screen};
use crate::data::{self, SourceArgs};
use crate::fail;
use crate::outputs::Outputs;
use crate::search::ListArgs;

/// Print the plan of a search with the time of each step: predicted and measured, on each engine
#[derive(Args, Debug)]
#[command(override_usage = "nearfield explain (--base <F> --metric <M> | --index-file <X.nf>)
                         (--queries <F> | --batch <B>) -k <K>")]
pub struct ExplainArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// Queries, in a file of the same kinds as the base
    #[arg(long, value_name = "F", required_unless_present = "batch", conflicts_with = "batch")]
    queries: Option<PathBuf>,
    /// A number of queries in place of a file
    #[arg(long, value_name = "B", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch: Option<u32>,
    /// Neighbours per query
    #[arg(short, value_name = "K", value_parser = k)]
    k: usize,
    #[command(flatten)]
    lists: ListArgs,
    /// The pass in front of the direct one: auto, none or f32
    #[arg(long, value_name = "S", value_parser = screen, default_value = "auto")]
    screen: ScreenChoice,
    /// Only predict; the search itself is not run
    #[arg(long)]
    no_run: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &ExplainArgs) -> Result<()> {
    let reads = Outputs::begin(&[], &[Some(args.source.path()?), args.queries.as_ref()])?;
    let device = args.device.open()?;
    let mut source = args.source.open(&device)?;
    args.lists.prepare(&mut source.index);
    let queries = match &args.queries {
        Some(path) => data::queries(path, &source)?,
        None => stand_ins(&source.index, args.batch.unwrap_or(1) as usize)?,
    };
    let mut options = SearchOptions::default();
    options.screen = args.screen.0;
    args.lists.apply(&mut options);
    let explanation = source.index.explain(queries.view(), args.k, &options)?;
    let mut text = format!("{}{explanation}\n", how_it_looks(&source.index, &explanation, &args.lists));
    if !args.no_run {
        let mut trials = Vec::new();
        for engine in engines(&device, &args.device)? {
            source.index.set_device(&engine);
            trials.push((engine.name(), source.index.trial(queries.view(), args.k, &options)?));
        }
        for (_, trial) in &trials {
            let _ = write!(text, "\n{trial}\n");
        }
        let _ = writeln!(text, "\n{}", verdict(&trials));
    }
    for note in &device.notes() {
        let _ = writeln!(text, "{note}");
    }
    reads.commit()?;
    fail::print(&text)
}

/// A line on an index with codes, or none.
fn how_it_looks(index: &AnyIndex, explanation: &Explanation, asked: &ListArgs) -> String {
    let AnyIndex::Ivf(ivf) = index else { return String::new() };
    let scans = explanation.scans_lists();
    let looks = match asked.probes().unwrap_or(ivf.probes()).min(ivf.lists()) {
        _ if ivf.lists() == 1 && scans => "all codes are scanned".to_owned(),
        probes if scans => format!("{probes} of {} lists are probed", ivf.lists()),
        probes if ivf.lists() > 1 => {
            format!("the rows themselves are searched, which is faster than {probes} of {} lists", ivf.lists())
        }
        _ => "the rows themselves are searched, which is faster for so few".to_owned(),
    };
    format!("{}: {looks}\n", ivf.spec())
}

/// Every engine that can answer: those of the device, and the CPU beside a GPU.
fn engines(device: &Device, args: &DeviceArgs) -> Result<Vec<Device>> {
    let mut engines = device.parts();
    if !engines.iter().any(|d| d.kind() == nearfield::DeviceKind::Cpu) {
        engines.insert(0, crate::common::open(&args.options(Some("cpu")))?);
    }
    Ok(engines)
}

/// Which engine `auto` takes for such a search, and why.
fn verdict(trials: &[(String, Trial)]) -> String {
    let predicted = |trial: &Trial| trial.predicted.iter().sum::<f64>();
    let hardware = |name: &str| !software(name);
    let there = trials.iter().filter(|(name, _)| hardware(name));
    let Some((best, trial)) = there.min_by(|a, b| predicted(&a.1).total_cmp(&predicted(&b.1))) else {
        return String::new();
    };
    let others = trials.iter().filter(|(name, _)| name != best).map(|(name, other)| match hardware(name) {
        true => format!("{:.3} ms on {name}", predicted(other) * 1e3),
        false => format!("never {name}, which is software"),
    });
    let others: Vec<String> = others.collect();
    let why = if others.is_empty() { "there is no other engine".to_owned() } else { others.join(", ") };
    format!("auto, with the rows in place, takes {best}: {:.3} ms predicted; {why}", predicted(trial) * 1e3)
}

#[cfg(feature = "gpu")]
fn software(name: &str) -> bool {
    nearfield::adapters().iter().any(|a| a.name == name && a.kind == nearfield::AdapterKind::Software)
}

#[cfg(not(feature = "gpu"))]
fn software(_: &str) -> bool {
    false
}

/// As many copies of the first row as there are to be queries: the plan depends on their number and length only.
fn stand_ins(index: &AnyIndex, batch: usize) -> Result<Matrix> {
    if index.dtype() == DType::Bits {
        return Ok(Matrix::from_vec(vec![0u8; index.dim() / 8 * batch], index.dim() / 8)?.into_bits()?);
    }
    // A row of ones is as good where no rows are kept.
    let first = index.ids().next();
    let row = first.and_then(|id| index.row(id).ok()).unwrap_or_else(|| vec![1.0; index.dim()]);
    Ok(Matrix::from_vec(row.repeat(batch), index.dim())?)
}
