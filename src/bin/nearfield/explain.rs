//! `nearfield explain`: the plan of a search, with bytes, operations and predicted time of each step. Nothing is run but
//! the measurement of what the device can do at best.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use nearfield::format::Matrix;
use nearfield::{DType, Flat, Index, SearchOptions};

use crate::common::{DeviceArgs, ScreenChoice, k, screen};
use crate::data::{self, SourceArgs};
use crate::fail;

/// Print the plan of a search: bytes, operations and predicted time of each step
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
    /// Neighbours a query
    #[arg(short, value_name = "K", value_parser = k)]
    k: usize,
    /// The pass in front of the direct one: auto, none or f32
    #[arg(long, value_name = "S", value_parser = screen, default_value = "auto")]
    screen: ScreenChoice,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &ExplainArgs) -> Result<()> {
    let source = args.source.open(&args.device.open()?)?;
    let queries = match &args.queries {
        Some(path) => data::queries(path, &source)?,
        None => stand_ins(&source.flat, args.batch.unwrap_or(1) as usize)?,
    };
    let mut options = SearchOptions::default();
    options.screen = args.screen.0;
    let explanation = source.flat.explain(queries.view(), args.k, &options)?;
    fail::print(&format!("{explanation}\n"))
}

/// As many copies of the first row as there are to be queries: the plan looks at their number and length only.
fn stand_ins(flat: &Flat, batch: usize) -> Result<Matrix> {
    if flat.dtype() == DType::Bits {
        return Ok(Matrix::from_vec(vec![0u8; flat.dim() / 8 * batch], flat.dim() / 8)?.into_bits()?);
    }
    // A row of ones is as good where the caller's ids don't have 0.
    let row = flat.row(0).unwrap_or_else(|| vec![1.0; flat.dim()]);
    Ok(Matrix::from_vec(row.repeat(batch), flat.dim())?)
}
