//! `nearfield range`: all rows within a radius of each query, as compressed sparse rows.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgGroup, Args};

use crate::common::{DeviceArgs, ScreenChoice};
use crate::data::SourceArgs;
use crate::search::{AskArgs, ListArgs};

/// Find all rows within a radius of each query
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("answer").args(["offsets", "ids", "distances"]).required(true).multiple(true))]
#[command(override_usage = "nearfield range (--base <F> --metric <M> | --index-file <X.nf>)
                       --queries <F> --radius <R>
                       --offsets <OUT> --ids <OUT> --distances <OUT>")]
pub struct RangeArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    ask: AskArgs,
    /// Distances at most, similarities (ip, cosine) at least this; squared for l2
    #[arg(long, value_name = "R", allow_hyphen_values = true, value_parser = radius)]
    radius: f32,
    #[command(flatten)]
    lists: ListArgs,
    /// Write where the hits of each query begin: int64 [q + 1]; those of query i are offsets[i]..offsets[i + 1]
    #[arg(long, value_name = "OUT.npy", help_heading = "Output")]
    offsets: Option<PathBuf>,
    /// Write the ids: int64 [hits], nearest first within a query
    #[arg(long, value_name = "OUT.npy", help_heading = "Output")]
    ids: Option<PathBuf>,
    /// Write the distances (similarities for ip and cosine): float32 [hits]
    #[arg(long, value_name = "OUT.npy", help_heading = "Output")]
    distances: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

fn radius(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(r) if !r.is_nan() => Ok(r),
        _ => Err("wanted a number".to_owned()),
    }
}

pub fn run(args: &RangeArgs) -> Result<()> {
    let files = [args.offsets.as_ref(), args.ids.as_ref(), args.distances.as_ref()];
    let mut job = args.ask.prepare(&args.source, &args.device, &files)?;
    args.lists.prepare(&mut job.source.index);
    let (mut offsets, mut ids, mut distances) = (vec![0i64], Vec::<i64>::new(), Vec::<f32>::new());
    let (stats, wall) = job.run(ScreenChoice(None), args.lists, |queries, options| {
        let (found, stats) = job.source.index.range_search_with(queries, args.radius, options)?;
        let before = ids.len() as i64;
        offsets.extend(found.offsets().iter().skip(1).map(|&o| before + o as i64));
        ids.extend(found.ids().iter().map(|&id| id as i64));
        distances.extend(found.distances());
        Ok(stats)
    })?;
    let queries = job.queries.rows();
    let mut outputs = job.outputs;
    outputs.npy_i64(args.offsets.as_ref(), &offsets, &[offsets.len()])?;
    outputs.npy_i64(args.ids.as_ref(), &ids, &[ids.len()])?;
    outputs.npy_f32(args.distances.as_ref(), &distances, &[distances.len()])?;
    args.ask.report(&mut outputs, &stats, queries, wall)?;
    outputs.commit()
}
