//! `nearfield bench shaders`: every kernel against the roofs of this device.

mod compare;
mod custom;
mod labels;
mod picture;
mod record;
mod table;
mod trace;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use nearfield::roofline::model::Limit;
use nearfield::roofline::work::{self, Bench, Case};
use nearfield::roofline::{Budget, MeasureError, Run, Subject};
use nearfield::{Cost, SearchError, Unit};

use self::record::{Failed, Report, Row};
use self::trace::Trace;
use crate::common::{self, DeviceArgs};
use crate::outputs::Outputs;
use crate::{fail, ui};

/// For each kernel and shape.
const BUDGET: Budget = Budget { runs: 5, time: Duration::from_millis(250) };

/// Measure every kernel against what this device can do at best
#[derive(Args, Debug)]
pub struct ShadersArgs {
    /// Only these verbs, e.g. search,refine
    #[arg(long, value_name = "F,...", value_delimiter = ',', value_parser = family)]
    family: Vec<&'static str>,
    /// A WGSL file to measure beside ours (on a GPU)
    #[arg(long, value_name = "MY.wgsl", help_heading = "Your own shader")]
    shader: Option<PathBuf>,
    /// Its buffers, workgroups and cost [default: the shader's name, ending in .toml]
    #[arg(long, value_name = "MY.toml", requires = "shader", help_heading = "Your own shader")]
    bindings: Option<PathBuf>,
    /// Compare with the JSON of an earlier run: list kernels faster or slower beyond the noise of both
    #[arg(long, value_name = "OLD.json")]
    compare: Option<PathBuf>,
    /// Write the figures as JSON
    #[arg(long, value_name = "OUT.json", help_heading = "Output")]
    json: Option<PathBuf>,
    /// Draw a roofline
    #[arg(long, value_name = "OUT.svg", help_heading = "Output")]
    svg: Option<PathBuf>,
    /// Write every run as a trace for Perfetto or chrome://tracing
    #[arg(long, value_name = "OUT.json", help_heading = "Output")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

fn family(text: &str) -> Result<&'static str, String> {
    work::FAMILIES.into_iter().find(|known| *known == text).ok_or_else(|| {
        let hint = common::nearest(text, work::FAMILIES).map(|n| format!("; did you mean `{n}`?"));
        format!("unknown family `{text}`; there are {}{}", work::FAMILIES.join(", "), hint.unwrap_or_default())
    })
}

pub fn run(args: &ShadersArgs) -> Result<()> {
    let bindings = args.shader.as_ref().map(|shader| custom::bindings_of(shader, args.bindings.as_ref()));
    let inputs = [args.shader.as_ref(), bindings.as_ref(), args.compare.as_ref()];
    // A run may be compared with the file that it then replaces.
    let compared = args.compare.as_ref().filter(|old| args.json.as_ref() != Some(*old));
    let written = [args.json.as_ref(), args.svg.as_ref(), args.trace.as_ref()];
    let mut outputs = Outputs::begin(&written, &[inputs[0], inputs[1], compared])?;
    let old = args.compare.as_deref().map(record::read).transpose()?;
    let custom = match (&args.shader, &bindings) {
        (Some(shader), Some(bindings)) => Some(custom::Custom::read(shader, bindings)?),
        _ => None,
    };
    let subject = open(&args.device)?;
    if let Some(custom) = &custom {
        // A shader that does not compile is reported before the long work.
        custom.measure(&subject, Budget { runs: 1, time: Duration::ZERO })?;
    }
    if cfg!(debug_assertions) {
        fail::tell("note", "this build checks itself at run time: its figures are too low (cargo build --release)");
    }
    let (report, trace) = measure(&subject, &args.family, custom.as_ref())?;
    let comparison = old.as_ref().map(|old| compare::Comparison::of(old, &report));
    outputs.json(args.json.as_ref(), &report)?;
    outputs.text(args.svg.as_ref(), &picture::svg(&report))?;
    outputs.json(args.trace.as_ref(), &trace.events())?;
    outputs.commit()?;
    fail::print(&table::text(&report))?;
    if let (Some(comparison), Some(path)) = (comparison, &args.compare) {
        fail::print(&comparison.text(&path.display().to_string()))?;
    }
    if report.failed.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = report.failed.iter().map(|f| format!("{} {}: {}", f.name, f.shape, f.why)).collect();
    Err(anyhow::anyhow!("not measured: {}", list.join("; ")))
}

/// The engine; when it can't be opened, with the words that other commands have for that.
fn open(args: &DeviceArgs) -> Result<Subject> {
    let options = args.options(args.device.as_deref());
    Subject::open(&options).or_else(|why| {
        common::open(&options)?;
        Err(anyhow::anyhow!("{why}"))
    })
}

/// The times, before the roofs to compare them with are known.
struct Timed {
    family: &'static str,
    name: String,
    shape: String,
    runs: Vec<Run>,
    cost: Cost,
    unit: Unit,
    bytes_touched: u64,
}

/// Measures every kernel, and the ceilings before and after: on a busy machine the better ones count.
fn measure(subject: &Subject, families: &[&str], custom: Option<&custom::Custom>) -> Result<(Report, Trace)> {
    let wanted = |case: &Case| families.is_empty() || families.contains(&case.family());
    let cases: Vec<Case> = work::cases(subject.scale()).into_iter().filter(wanted).collect();
    let bar = ui::progress(cases.len() as u64 + 2, "measuring");
    let began = Instant::now();
    let roofs = subject.roofs().map_err(engine_error)?;
    bar.inc(1);
    let (mut timed, mut failed, mut bench) = (Vec::new(), Vec::new(), Bench::default());
    for case in &cases {
        let work = bench.make(case);
        match subject.measure(&work, BUDGET) {
            Ok(runs) if runs.is_empty() => {}
            Ok(runs) => timed.push(Timed {
                family: case.family(),
                name: case.name(),
                shape: case.shape(),
                runs,
                cost: work.cost(),
                unit: case.unit(),
                bytes_touched: work.bytes_touched(),
            }),
            Err(error) => failed.push(Failed { name: case.name(), shape: case.shape(), why: error.to_string() }),
        }
        bar.inc(1);
    }
    if let Some(custom) = custom {
        timed.push(custom.timed(custom.measure(subject, BUDGET)?));
    }
    let roofs = roofs.better(subject.roofs().map_err(engine_error)?);
    bar.finish_and_clear();
    let mut report = Report::new(subject, &roofs);
    let mut trace = Trace::new(began, &report.device.name);
    for timed in &timed {
        let row = Row::new(timed, &Limit::of(&roofs, timed.unit, timed.bytes_touched));
        trace.add(&row, &timed.runs);
        report.rows.push(row);
    }
    report.failed = failed;
    Ok((report, trace))
}

/// So that the device's fault is told from the input's.
fn engine_error(error: MeasureError) -> anyhow::Error {
    match error {
        MeasureError::Engine(e) => SearchError::Engine(e).into(),
        other => anyhow::anyhow!("{other}"),
    }
}
