//! A base larger than the memory that the device may use: it is streamed, and the answers are the same.
//! `NEARFIELD_DEVICE=gpu cargo run --release --example larger_than_memory`

use nearfield::{Device, DeviceOptions, Flat, MatrixView, Metric, RowsView, SearchOptions};

const ROWS: usize = 100_000;
const DIM: usize = 128;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let base: Vec<f32> = (0..ROWS * DIM).map(pseudo_random).collect();
    let queries: Vec<f32> = (0..16 * DIM).map(|i| pseudo_random(i + ROWS * DIM)).collect();
    let (base, queries) = (MatrixView::new(&base, DIM)?, RowsView::from(MatrixView::new(&queries, DIM)?));
    let bytes = (ROWS * DIM * 4) as u64;

    // The program has the same as `--device-memory 12MiB`. It bounds everything: rows, scratch and results.
    let whole = Device::open(&DeviceOptions::default())?;
    let quarter = Device::open(&DeviceOptions::default().memory(bytes / 4))?;

    let mut index = Flat::new(&whole, DIM, Metric::L2)?;
    index.add(base)?;
    let mut answers = Vec::new();
    for (device, memory) in [(&whole, "its default budget"), (&quarter, "a quarter of the base")] {
        index.set_device(device);
        let (hits, stats) = index.search_with(queries, 10, &SearchOptions::default())?;
        println!("{} with {memory}, parts of the base uploaded: {}", stats.device, stats.chunks_uploaded);
        answers.push(hits.into_parts().0);
    }
    assert_eq!(answers[0], answers[1]);
    println!("The same {} ids. (The CPU reads host memory and uploads nothing.)", answers[0].len());
    Ok(())
}

/// Between -1 and 1, the same in every run.
fn pseudo_random(i: usize) -> f32 {
    let mixed = (i as u64 ^ 0x5bd1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    (mixed >> 40) as f32 / (1 << 23) as f32 - 1.0
}
