//! A twentieth of the bytes: rows as codes of one to four bits a component in inverted lists, and what ranking again gives
//! back. `cargo run --release --example ivf_rabitq`

use nearfield::format::Matrix;
use nearfield::{Device, Flat, Index, IndexSpec, Ivf, Metric, SearchOptions, TrainOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 4,000 sentences as vectors [4000, 384]; every tenth is asked for, so that there are queries enough to count.
    let rows = Matrix::from_npy_bytes(include_bytes!("../assets/demo/embeddings.npy"))?;
    let mut asked = vec![0.0; 400 * rows.dim()];
    for (i, query) in asked.chunks_exact_mut(rows.dim()).enumerate() {
        rows.view().row_f32(10 * i, query);
    }
    let queries = Matrix::from_vec(asked, rows.dim())?;

    let (device, k) = (Device::auto()?, 10);
    let mut flat = Flat::new(&device, rows.dim(), Metric::Cosine)?;
    flat.add(rows.view())?;
    let truth = flat.search(queries.view(), k)?;

    println!("index                         bytes a row  lists looked at  recall of the {k} nearest");
    for spec in ["IVF32,RaBitQ", "IVF32,RaBitQ4", "IVF32,RaBitQ,Refine(SQ8)"] {
        let spec: IndexSpec = spec.parse()?;
        // Lists and codes are learnt from rows; then the index takes these rows, or others of their kind.
        let mut index = Ivf::train(&device, &spec, Metric::Cosine, rows.view(), &TrainOptions::default())?;
        index.add(rows.view())?;
        for probes in [2, 8, 32] {
            let options = SearchOptions::default().probes(probes);
            let (hits, _) = index.search_with(queries.view(), k, &options)?;
            let found: usize = (0..hits.queries)
                .map(|q| {
                    let near: Vec<u64> = truth.query(q).map(|(id, _)| id).collect();
                    hits.query(q).filter(|(id, _)| near.contains(id)).count()
                })
                .sum();
            let (recall, bytes) = (found as f64 / (hits.queries * k) as f64, index.memory_bytes() / index.len());
            println!("{:<28} {bytes:>12} {probes:>10} of {:<2} {recall:>14.3}", spec.to_string(), index.lists());
        }
    }
    println!("Flat                         {:>12}        all rows          1.000", flat.memory_bytes() / flat.len());
    Ok(())
}
