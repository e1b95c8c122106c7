//! Vectors as a picture, with your own camera: `cargo run --release --example embedding_map [map.svg]`.
//!
//! Principal components and k-means run on the device; a camera of glam brings three dimensions to the page. The program
//! draws more: `nearfield map --base assets/demo/embeddings.npy --texts assets/demo/sentences.txt --out map.svg`.

use std::fmt::Write;

use glam::camera::rh::{proj::directx::perspective, view::look_at_mat4};
use glam::{Vec2, Vec3};
use nearfield::format::Matrix;
use nearfield::{Device, KMeans, Metric};

const SIZE: f32 = 800.0;
const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#6a513b"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows = Matrix::from_npy_bytes(include_bytes!("../assets/demo/embeddings.npy"))?; // [4000, 384]
    let texts: Vec<&str> = include_str!("../assets/demo/sentences.txt").lines().collect();
    let device = Device::auto()?;

    // Where the rows lie in the three directions in which they vary most, and what belongs together.
    let places = device.principal_components(rows.view(), 3)?.project(&device, rows.view())?;
    let points: Vec<Vec3> = places.chunks_exact(3).map(Vec3::from_slice).collect();
    let clusters = KMeans::new(COLOURS.len()).train(&device, rows.view())?;
    let centroids = nearfield::MatrixView::new(&clusters.centroids, rows.dim())?;
    let (found, _) = device.assign(rows.view(), centroids, Metric::L2)?;

    // The camera: stand at `eye`, look at the middle.
    let radius = points.iter().map(|p| p.length()).fold(0.0, f32::max);
    let eye = Vec3::new(1.2, 0.8, 2.2) * radius;
    let view = look_at_mat4(eye, Vec3::ZERO, Vec3::Y);
    let camera = perspective(0.75, 1.0, 0.1 * radius, 10.0 * radius) * view;

    // The farthest first; nearer points are larger and stronger.
    let mut order: Vec<usize> = (0..points.len()).collect();
    let distance = |i: usize| points[i].distance(eye);
    order.sort_by(|&a, &b| distance(b).total_cmp(&distance(a)));
    let mut svg = format!("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{SIZE}\" height=\"{SIZE}\">\n");
    for i in order {
        let at = (camera.project_point3(points[i]).truncate() * Vec2::new(0.5, -0.5) + 0.5) * SIZE;
        let near = eye.length() / distance(i);
        let text = texts[i].replace('&', "&amp;").replace('<', "&lt;");
        writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{:.1}\" fill=\"{}\" fill-opacity=\"{:.2}\"><title>{text}</title></circle>",
            at.x,
            at.y,
            2.5 * near,
            COLOURS[found[i] as usize],
            (0.6 * near).clamp(0.15, 1.0),
        )?;
    }
    svg += "</svg>\n";
    let out = std::env::args().nth(1).unwrap_or_else(|| "map.svg".to_owned());
    std::fs::write(&out, svg)?;

    println!(
        "{out}: {} sentences in {} clusters, made on {}",
        points.len(),
        clusters.centroids.len() / rows.dim(),
        device.name()
    );
    for (c, colour) in COLOURS.iter().enumerate() {
        let near = device.nearest(centroids.slice(c, c + 1), rows.view(), Metric::L2, 3)?;
        let words: Vec<&str> = near.ids().iter().filter_map(|&id| texts[id as usize].split(':').next()).collect();
        println!("  {colour}  {}", words.join(", "));
    }
    Ok(())
}
