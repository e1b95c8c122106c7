//! `nearfield map`: a picture of vectors, in three dimensions and in clusters that say what they are about.

mod camera;
mod font;
mod picture;
mod png;
mod scene;
mod svg;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use glam::Vec3;
use nearfield::format::Matrix;
use nearfield::{Device, KMeans, MatrixView, Metric, RowsView};

use self::picture::{Label, Map};
use crate::common::{DeviceArgs, file};
use crate::outputs::Outputs;
use crate::{data, fail, ui};

/// Most points that are drawn; more would only cover each other.
const MOST: usize = 20_000;

/// Clusters unless the user says otherwise.
const CLUSTERS: usize = 12;

/// Letters of a text that is shown for a point.
const SHOWN: usize = 160;

/// Draw vectors as a map in three dimensions
#[derive(Args, Debug)]
pub struct MapArgs {
    /// Vectors: .npy, .npz:array, .fvecs, .bvecs, .ivecs, .fbin, .u8bin, .i8bin
    #[arg(long, value_name = "F")]
    base: PathBuf,
    /// Texts of the rows: UTF-8, one line per row
    #[arg(long, value_name = "F")]
    texts: Option<PathBuf>,
    /// Clusters to colour and to name [default: 12, or as many as there are rows]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    clusters: Option<u32>,
    /// Where the picture goes: a .svg or a .png
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

/// What sort of picture.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Svg,
    Png,
}

pub fn run(args: &MapArgs) -> Result<()> {
    let kind = kind(&args.out)?;
    let mut outputs = Outputs::begin(&[file(&args.out)], &[file(&args.base), args.texts.as_ref()])?;
    let base = data::matrix(&args.base)?;
    let clusters = clusters(args, &base)?;
    let texts = args.texts.as_ref().map(|path| texts(path, &args.base, base.rows())).transpose()?;
    data::check_values(&base.view(), Metric::L2).map_err(|e| fail::input(format!("`{}`: {e}", args.base.display())))?;
    check_lengths(&args.base, &base)?;
    let device = args.device.open()?;
    let map = map(&device, &args.base, &base, texts.as_deref(), clusters)
        .with_context(|| format!("`{}`", args.base.display()))?;
    let font = font::Font::load()?;
    let scene = picture::draw(&map, &font);
    let bytes = match kind {
        Kind::Svg => svg::svg(&scene).into_bytes(),
        Kind::Png => png::png(&scene, &font)?,
    };
    outputs.bytes(&args.out, &bytes)?;
    outputs.commit()?;
    let drawn = ui::count(map.points.len() as u64);
    let size = ui::bytes(bytes.len() as u64);
    fail::print(&format!("{}: {drawn} points in {clusters} clusters, {size}\n", args.out.display()))
}

fn kind(out: &Path) -> Result<Kind> {
    match out.extension().map(|e| e.to_string_lossy().to_lowercase()).as_deref() {
        Some("svg") => Ok(Kind::Svg),
        Some("png") => Ok(Kind::Png),
        _ => Err(fail::input(format!("`{}`: a map is a .svg or a .png, say which by the name", out.display()))),
    }
}

/// How many clusters, of rows that are enough for them.
fn clusters(args: &MapArgs, base: &Matrix) -> Result<usize> {
    let (rows, base) = (base.rows(), args.base.display());
    match args.clusters.map(|n| n as usize) {
        _ if rows == 0 => Err(fail::input(format!("`{base}` holds no rows, wanted at least one"))),
        Some(n) if n > rows.min(MOST) => {
            let most = rows.min(MOST);
            Err(fail::input(format!("{n} clusters of the {rows} rows of `{base}`: --clusters {most} is the most")))
        }
        Some(n) => Ok(n),
        None => Ok(CLUSTERS.min(rows)),
    }
}

/// The longest rows that are drawn: 8,192 products of longer ones at a time could pass the largest f32.
const LONGEST: f64 = (1u64 << 56) as f64;

fn check_lengths(path: &Path, base: &Matrix) -> Result<()> {
    let mut x = vec![0.0; base.dim()];
    for row in 0..base.rows() {
        base.view().row_f32(row, &mut x);
        let length = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        if length > LONGEST {
            let path = path.display();
            return Err(fail::input(format!(
                "`{path}`: row {row} has length {length:.1e}, a map takes rows up to {LONGEST:.1e}; scale them down"
            )));
        }
    }
    Ok(())
}

/// A line for each row.
fn texts(path: &Path, base: &Path, rows: usize) -> Result<Vec<String>> {
    let wrong = |text: String| fail::input(format!("`{}` {text}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        wrong(format!("is not UTF-8 in line {line}"))
    })?;
    let lines: Vec<String> = text.trim_start_matches('\u{feff}').lines().map(str::to_owned).collect();
    if lines.len() != rows {
        let (lines, base) = (ui::count(lines.len() as u64), base.display());
        return Err(wrong(format!("has {lines} lines, but `{base}` has {} rows", ui::count(rows as u64))));
    }
    Ok(lines)
}

/// What the picture shows.
fn map(device: &Device, path: &Path, base: &Matrix, texts: Option<&[String]>, clusters: usize) -> Result<Map> {
    let (rows, dim) = (base.rows(), base.dim());
    let drawn = rows.min(MOST);
    // Evenly chosen: the same ones in every run.
    let picks: Vec<usize> = (0..drawn).map(|i| (i as u128 * rows as u128 / drawn as u128) as usize).collect();
    let mut values = vec![0.0; drawn * dim];
    for (to, &row) in values.chunks_exact_mut(dim).zip(&picks) {
        base.view().row_f32(row, to);
    }
    let sample = RowsView::F32(MatrixView::new(&values, dim)?);
    let principal = device.principal_components(sample, 3)?;
    let places = principal.project(device, sample)?;
    let point = |p: &[f32]| Vec3::from_array([0, 1, 2].map(|i| p.get(i).copied().unwrap_or(0.0)));
    let points = places.chunks(principal.variances.len().max(1)).map(point).collect();
    let shares = principal.variances.iter().map(|v| if principal.total > 0.0 { v / principal.total } else { 0.0 });
    let mut means = KMeans::new(clusters);
    means.sample = None;
    let means = means.train(device, sample)?;
    let centroids = RowsView::F32(MatrixView::new(&means.centroids, dim)?);
    let (found, _) = device.assign(sample, centroids, Metric::L2)?;
    let order = by_size(&found, clusters);
    let near = device.nearest(centroids, sample, Metric::L2, NEAR.min(drawn))?;
    let label = |(place, &(cluster, size)): (usize, &(usize, usize))| {
        let ids = near.query(cluster).map(|(id, _)| id as usize);
        let own = ids.filter(|&id| found.get(id).is_some_and(|&c| c as usize == cluster));
        let text = |id: usize| Some(texts?.get(*picks.get(id)?)?.trim());
        let near: Vec<&str> = own.filter_map(text).filter(|t| !t.is_empty()).take(SAID).collect();
        let rows = match drawn == rows {
            true => format!("{} row{}", ui::count(size as u64), if size == 1 { "" } else { "s" }),
            false => format!("{} of the rows", picture::percent(size as f32 / drawn as f32)),
        };
        label(place, rows, &near)
    };
    let labels: Vec<Label> = order.iter().enumerate().map(label).collect();
    let mut rank = vec![0; clusters];
    order.iter().enumerate().for_each(|(place, &(cluster, _))| rank[cluster] = place as u32);
    let shown = |&row: &usize| texts.map(|t| t[row].chars().take(SHOWN).collect());
    let name = path.file_stem().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(Map {
        name,
        rows,
        dim,
        shares: shares.collect(),
        points,
        clusters: found.iter().map(|&c| rank[c as usize]).collect(),
        texts: picks.iter().filter_map(shown).collect(),
        labels,
    })
}

/// Rows near a centre that are considered, and how many of them, of its cluster, name the cluster.
const NEAR: usize = 24;
const SAID: usize = 3;

/// Clusters and their rows, the largest first.
fn by_size(found: &[u32], clusters: usize) -> Vec<(usize, usize)> {
    let mut sizes: Vec<(usize, usize)> = (0..clusters).map(|c| (c, 0)).collect();
    found.iter().for_each(|&c| sizes[c as usize].1 += 1);
    sizes.sort_by_key(|&(cluster, size)| (std::cmp::Reverse(size), cluster));
    sizes
}

/// What a cluster is about, from the texts nearest to its centre.
fn label(place: usize, rows: String, near: &[&str]) -> Label {
    // Of texts such as `word: what it means` the words say enough.
    let heads: Option<Vec<(&str, &str)>> = near.iter().map(|t| head(t)).collect();
    match (heads, near) {
        (Some(heads), [_, ..]) => {
            let mut words: Vec<String> = heads.iter().map(|h| h.0.to_owned()).collect();
            words.dedup();
            Label { heads: words, line: format!("{rows} · {}", heads[0].1) }
        }
        (None, [first, second, ..]) => Label { heads: vec![(*first).to_owned()], line: format!("{rows} · {second}") },
        (_, [first]) => Label { heads: vec![(*first).to_owned()], line: rows },
        (_, []) => Label { heads: vec![format!("cluster {}", place + 1)], line: rows },
    }
}

/// The short beginning of a text that goes on after a colon, and how it goes on.
fn head(text: &str) -> Option<(&str, &str)> {
    let (head, rest) = text.split_once(": ")?;
    (!head.is_empty() && !rest.trim().is_empty() && head.chars().count() <= 30).then_some((head, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_say_what_clusters_are_about() {
        let said = |near: &[&str]| {
            let label = label(2, "9 rows".to_owned(), near);
            (label.heads.join(", "), label.line)
        };
        let words = ["cedar: a wood", "juniper: a shrub", "pine: a tree"];
        assert_eq!(said(&words), ("cedar, juniper, pine".into(), "9 rows · a wood".into()));
        assert_eq!(said(&["a wood", "a shrub"]), ("a wood".into(), "9 rows · a shrub".into()));
        assert_eq!(said(&["a wood"]), ("a wood".into(), "9 rows".into()));
        assert_eq!(said(&[]), ("cluster 3".into(), "9 rows".into()));
        assert_eq!(head("he said that it was late in the night: it was"), None);
        assert_eq!(by_size(&[0, 2, 2, 1], 4), [(2, 2), (0, 1), (1, 1), (3, 0)]);
    }
}
