//! The nearest sentences to a query: `cargo run --release --example quickstart`.

use nearfield::format::Matrix;
use nearfield::{Device, Flat, Metric};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 4,000 sentences with their embeddings, [4000, 384], and further queries, [8, 384].
    let rows = Matrix::from_npy_bytes(include_bytes!("../assets/demo/embeddings.npy"))?;
    let queries = Matrix::from_npy_bytes(include_bytes!("../assets/demo/queries.npy"))?;
    let texts: Vec<&str> = include_str!("../assets/demo/sentences.txt").lines().collect();

    let device = Device::auto()?; // the GPU if there is one, else the CPU
    let mut index = Flat::new(&device, rows.dim(), Metric::Cosine)?;
    index.add(rows.view())?;
    let hits = index.search(queries.view(), 3)?;

    println!("a large spaniel with wavy silky coat, on {}:", device.name());
    for (id, similarity) in hits.query(2) {
        println!("  {similarity:.2}  {}", texts[id as usize]);
    }
    Ok(())
}
