//! `nearfield search`: the k nearest rows of each query, into files.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{ArgGroup, Args};
use nearfield::format::Matrix;
use nearfield::{AnyIndex, NO_ID, SearchOptions, SearchStats};

use crate::common::{DeviceArgs, ScreenChoice, file, k, note_fallback, screen};
use crate::compare::is_cpu;
use crate::data::{self, Allowed, Source, SourceArgs};
use crate::outputs::Outputs;
use crate::{fail, report, ui};

/// Find the k nearest rows of each query
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("answer").args(["ids", "distances"]).required(true).multiple(true))]
#[command(override_usage = "nearfield search (--base <F> --metric <M> | --index-file <X.nf>)
                        --queries <F> -k <K> --ids <OUT> --distances <OUT>")]
pub struct SearchArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    ask: AskArgs,
    /// Neighbours per query
    #[arg(short, value_name = "K", value_parser = k)]
    k: usize,
    #[command(flatten)]
    lists: ListArgs,
    /// The pass in front of the direct one: auto, none or f32; never changes the answer
    #[arg(long, value_name = "S", value_parser = screen, default_value = "auto")]
    screen: ScreenChoice,
    /// Write the ids: int64 [q, k], nearest first, -1 where there is no k-th
    #[arg(long, value_name = "OUT.npy", help_heading = "Output")]
    ids: Option<PathBuf>,
    /// Write the distances (similarities for ip and cosine): float32 [q, k], NaN where there is no k-th
    #[arg(long, value_name = "OUT.npy", help_heading = "Output")]
    distances: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Probes and re-ranked rows of an index with lists or codes.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct ListArgs {
    /// Inverted lists probed per query [default: the index's setting]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    nprobe: Option<u32>,
    /// Rows re-ranked per query: a number, or auto [default: the index's setting]
    // `--refine` was its name once, and stays.
    #[arg(long, alias = "refine", value_name = "R", value_parser = rerank)]
    rerank: Option<Rerank>,
}

/// The values of `--rerank`.
#[derive(Clone, Copy, Debug)]
pub struct Rerank(Option<usize>);

fn rerank(text: &str) -> Result<Rerank, String> {
    match text.parse::<u32>() {
        _ if text == "auto" => Ok(Rerank(None)),
        Ok(rows) if rows > 0 => Ok(Rerank(Some(rows as usize))),
        _ => Err("wanted a number of rows from 1, or auto".to_owned()),
    }
}

impl ListArgs {
    /// With `--rerank auto` an index forgets its setting.
    pub fn prepare(&self, index: &mut AnyIndex) {
        if let (AnyIndex::Ivf(ivf), Some(Rerank(None))) = (index, self.rerank) {
            ivf.set_rerank(None);
        }
    }

    /// Puts the rows to be re-ranked into the options.
    pub fn rerank_only(&self, options: &mut SearchOptions) {
        options.rerank = self.rerank.and_then(|r| r.0);
    }

    /// The lists asked for.
    pub fn probes(&self) -> Option<usize> {
        self.nprobe.map(|n| n as usize)
    }

    /// Puts the arguments into the options.
    pub fn apply(&self, options: &mut SearchOptions) {
        options.probes = self.probes();
        self.rerank_only(options);
    }
}

/// The arguments that `search` and `range` share.
#[derive(Args, Debug)]
pub struct AskArgs {
    /// Queries, in a file of the same kinds as the base
    #[arg(long, value_name = "F")]
    pub queries: PathBuf,
    /// Rows that may be returned: int64 ids, or a boolean mask [n] or [q, n]
    #[arg(long, value_name = "ALLOW.npy")]
    pub filter: Option<PathBuf>,
    /// Print statistics of the search to stderr: its work and the time of each stage
    #[arg(long, help_heading = "Output")]
    pub stats: bool,
    /// Write the same as JSON
    #[arg(long, value_name = "OUT.json", help_heading = "Output")]
    pub stats_json: Option<PathBuf>,
}

/// All that is needed to search, read and checked.
pub struct Job {
    pub source: Source,
    pub queries: Matrix,
    allowed: Allowed,
    /// Where the answer goes.
    pub outputs: Outputs,
}

impl AskArgs {
    /// Checks the outputs first, then reads and checks the inputs.
    pub fn prepare(&self, source: &SourceArgs, device: &DeviceArgs, outputs: &[Option<&PathBuf>]) -> Result<Job> {
        let inputs = [file(source.path()?), file(&self.queries), self.filter.as_ref()];
        let outputs = Outputs::begin(&[outputs, &[self.stats_json.as_ref()]].concat(), &inputs)?;
        let source = source.open(&device.open()?)?;
        let queries = data::queries(&self.queries, &source)?;
        let allowed = Allowed::read(self.filter.as_ref(), &source, queries.rows())?;
        Ok(Job { source, queries, allowed, outputs })
    }

    /// Prints the statistics where they are wanted; stages the JSON.
    pub fn report(&self, outputs: &mut Outputs, stats: &SearchStats, queries: usize, wall: Duration) -> Result<()> {
        outputs.json(self.stats_json.as_ref(), &report::json(stats, queries, wall))?;
        if self.stats {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), report::block(stats, queries, wall).as_bytes());
        } else {
            note_fallback(stats);
        }
        Ok(())
    }
}

impl Job {
    /// Runs `each` on batches of queries that take about a second, with a bar on a terminal. Gives the stats of all
    /// and the time taken.
    pub fn run(
        &self,
        screen: ScreenChoice,
        lists: ListArgs,
        mut each: impl FnMut(nearfield::RowsView<'_>, &SearchOptions) -> Result<SearchStats>,
    ) -> Result<(SearchStats, Duration)> {
        let (started, total) = (Instant::now(), self.queries.rows());
        let batch = batch_of(&self.source.index);
        let bar = ui::progress(total as u64, "searching");
        let mut stats = SearchStats::default();
        let mut start = 0;
        // Once also for no queries at all, so that everything else is checked.
        while start < total || start == 0 {
            let end = (start + batch).min(total);
            let mut options = SearchOptions::default();
            options.filter = self.allowed.of(start, end);
            options.screen = screen.0;
            lists.apply(&mut options);
            stats.merge(&each(self.queries.view().slice(start, end), &options)?);
            bar.set_position(end as u64);
            start = end.max(1);
        }
        bar.finish_and_clear();
        Ok((stats, started.elapsed()))
    }
}

/// Queries that take about a second. A GPU gets more at a time, because a base that does not fit its memory has to be
/// streamed for each batch.
fn batch_of(index: &AnyIndex) -> usize {
    let (work, least) = if is_cpu(index.device()) { (2e10, 128.0) } else { (1e12, 1024.0) };
    (work / (index.len() as f64 * index.dim() as f64)).clamp(least, 8192.0) as usize
}

pub fn run(args: &SearchArgs) -> Result<()> {
    let mut job = args.ask.prepare(&args.source, &args.device, &[args.ids.as_ref(), args.distances.as_ref()])?;
    args.lists.prepare(&mut job.source.index);
    let (q, k, index) = (job.queries.rows(), args.k, &job.source.index);
    let mut ids: Vec<i64> = reserve(q, k)?;
    let mut distances: Vec<f32> = reserve(q, k)?;
    let found_k = k.min(index.len());
    let (stats, wall) = job.run(args.screen, args.lists, |queries, options| {
        let (found, stats) = index.search_with(queries, found_k, options)?;
        for i in 0..found.queries() {
            let row = i * found_k..(i + 1) * found_k;
            // `NO_ID` becomes the -1 that files have.
            ids.extend(found.ids()[row.clone()].iter().map(|&id| id as i64));
            ids.extend(std::iter::repeat_n(NO_ID as i64, k - found_k));
            distances.extend_from_slice(&found.distances()[row]);
            distances.extend(std::iter::repeat_n(f32::NAN, k - found_k));
        }
        Ok(stats)
    })?;
    let mut outputs = job.outputs;
    outputs.npy_i64(args.ids.as_ref(), &ids, &[q, k])?;
    outputs.npy_f32(args.distances.as_ref(), &distances, &[q, k])?;
    args.ask.report(&mut outputs, &stats, q, wall)?;
    outputs.commit()
}

/// Room for the answers; a `k` beyond all memory is the user's error, not the end of the program.
fn reserve<T>(q: usize, k: usize) -> Result<Vec<T>> {
    let mut room = Vec::new();
    let places = q.checked_mul(k).filter(|&n| room.try_reserve_exact(n).is_ok());
    places
        .map(|_| room)
        .ok_or_else(|| fail::input(format!("k = {k} for {q} queries makes an answer beyond all memory")))
}
