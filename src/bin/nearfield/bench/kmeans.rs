//! `nearfield bench kmeans`: how long k-means takes on the user's rows, and how good the centroids are.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use nearfield::{DType, Device, KMeans, MatrixView, Metric, RowsView, SearchError};
use serde_json::json;

use crate::common::{DeviceArgs, file, metric};
use crate::outputs::Outputs;
use crate::{compare, data, fail, ui};

/// Measure k-means on your own rows
#[derive(Args, Debug)]
pub struct BenchKmeansArgs {
    /// Vectors to cluster
    #[arg(long, value_name = "F")]
    base: PathBuf,
    /// l2, ip or cosine; for cosine every row counts by its direction, scaled to length 1
    #[arg(long, value_name = "M", value_parser = metric)]
    metric: Metric,
    /// Rows to cluster, the first of the file [default: all]
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u64).range(1..))]
    points: Option<u64>,
    /// Centroids to find
    #[arg(long, value_name = "K", default_value = "1024", value_parser = clap::value_parser!(u32).range(1..))]
    clusters: u32,
    /// Rounds of assigning and moving, at most
    #[arg(long, value_name = "I", default_value = "20", value_parser = clap::value_parser!(u32).range(1..))]
    iterations: u32,
    /// Training rows per centroid [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// Seed of all random choices
    #[arg(long, value_name = "S", default_value = "7")]
    seed: u64,
    /// Write the results as JSON
    #[arg(long, value_name = "OUT.json", help_heading = "Output")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

pub fn run(args: &BenchKmeansArgs) -> Result<()> {
    let mut outputs = Outputs::begin(&[args.json.as_ref()], &[file(&args.base)])?;
    if !matches!(args.metric, Metric::L2 | Metric::InnerProduct | Metric::Cosine) {
        return Err(fail::input(format!("k-means goes by l2, ip or cosine, not by {}", args.metric)));
    }
    let device = args.device.open()?;
    let base = data::matrix(&args.base)?;
    let all = base.view();
    let points = all.slice(0, args.points.map_or(all.rows(), |p| all.rows().min(p as usize)));
    let began = Instant::now();
    let unit = match (args.metric, points.dtype()) {
        (_, DType::Bits) | (Metric::L2 | Metric::InnerProduct, _) => None,
        _ => Some(device.normalize(points, nearfield::Norm::L2)?.0),
    };
    let points = match &unit {
        Some(unit) => RowsView::F32(MatrixView::new(unit, points.dim())?),
        None => points,
    };
    let mut kmeans = KMeans::new(args.clusters as usize);
    kmeans.iterations = args.iterations as usize;
    kmeans.sample = args.sample.map(|n| n as usize);
    kmeans.seed = args.seed;
    let bar = ui::progress(u64::from(args.iterations), "clustering");
    let found = kmeans.train_with(&device, points, &mut |now| {
        bar.set_position(now.iteration as u64);
        std::ops::ControlFlow::Continue(())
    })?;
    let seconds = began.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let inertia = inertia(&device, points, &found.centroids)?;
    let described = json!({
        "device": compare::describe(&device), "train_s": seconds, "inertia": inertia, "points": points.rows(),
        "trained": found.trained, "clusters": args.clusters, "iterations": found.iterations,
    });
    outputs.json(args.json.as_ref(), &described)?;
    outputs.commit()?;
    let cells = [
        ui::count(points.rows() as u64),
        ui::count(u64::from(args.clusters)),
        ui::count(found.iterations as u64),
        ui::ms(seconds * 1e3),
        format!("{inertia:.6e}"),
    ];
    let table = ui::table(["points", "clusters", "rounds", "time", "inertia"], std::iter::once(cells));
    fail::print(&format!("k-means on {}\n\n{table}", device.name()))
}

/// Sum of the squared distances of all points to their nearest centroids.
fn inertia(device: &Device, points: RowsView<'_>, centroids: &[f32]) -> Result<f64, SearchError> {
    let centroids = MatrixView::new(centroids, points.dim())?;
    let mut sum = 0.0;
    for start in (0..points.rows()).step_by(65_536) {
        let end = points.rows().min(start + 65_536);
        let (_, distances) = device.assign(points.slice(start, end), centroids, Metric::L2)?;
        sum += distances.iter().map(|&d| f64::from(d)).sum::<f64>();
    }
    Ok(sum)
}
