//! A twentieth of the bytes: rows as codes of one to four bits per component in inverted lists, and what re-ranking gives
//! back. `cargo run --release --example ivf_rabitq`

use nearfield::format::Matrix;
use nearfield::{Device, Flat, IndexSpec, Ivf, Metric, SearchOptions, TrainOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 4,000 sentences as vectors [4000, 384]; every tenth is a query, so that there are enough to count.
    let rows = Matrix::from_npy_bytes(include_bytes!("../assets/demo/embeddings.npy"))?;
    let mut asked = vec![0.0; 400 * rows.dim()];
    for (i, query) in asked.chunks_exact_mut(rows.dim()).enumerate() {
        rows.view().row_f32(10 * i, query);
    }
    let queries = Matrix::from_vec(asked, rows.dim())?;

    let (device, k) = (Device::auto()?, 10);
    let flat = Flat::from_matrix(&device, rows.clone(), Metric::Cosine, None)?;
    let truth = flat.search(&queries, k)?;

    println!("index                        bytes per row  lists probed  recall of the {k} nearest");
    for spec in ["IVF32,RaBitQ", "IVF32,RaBitQ4", "IVF32,RaBitQ,Refine(SQ8)"] {
        let spec: IndexSpec = spec.parse()?;
        // Lists and codes are learnt from rows; then the index takes these rows, or others of their kind.
        let mut index = Ivf::train(&device, &spec, Metric::Cosine, &rows, &TrainOptions::default())?;
        index.add(&rows)?;
        for probes in [2, 8, 32] {
            let (hits, _) = index.search_with(&queries, k, &SearchOptions::default().probes(probes))?;
            let found: usize = hits
                .iter()
                .zip(truth.iter())
                .map(|(hits, truth)| hits.filter(|(id, _)| truth.clone().any(|(near, _)| near == *id)).count())
                .sum();
            let (recall, bytes) = (found as f64 / (hits.queries() * k) as f64, index.memory_bytes() / index.len());
            println!("{:<28} {bytes:>13} {probes:>7} of {:<2} {recall:>12.3}", spec.to_string(), index.lists());
        }
    }
    println!("Flat                         {:>13}      all rows        1.000", flat.memory_bytes() / flat.len());
    Ok(())
}
