//! A small application: notes that are searched while others are added, kept in a file.
//! `cargo run --release --example notes`

use nearfield::{AnyIndex, Device, Flat, Metric, SearchOptions, Shared};

const DIM: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("notes-{}.nf", std::process::id()));
    let device = Device::auto()?;

    // Create and save. Ids are the application's own.
    let notes = ["buy oat milk and bread", "water the tomatoes", "call the plumber about the sink"];
    let mut index = Flat::new(&device, DIM, Metric::Cosine)?;
    index.add_with_ids(&notes.map(embed), &[10, 20, 30])?;
    index.save(&path)?;

    // Open, and share: one thread brings new notes, another answers. Neither waits for the other.
    let shared = Shared::new(AnyIndex::open(&device, &path)?);
    std::thread::scope(|scope| -> Result<(), Box<dyn std::error::Error>> {
        let writer = scope.spawn(|| {
            for batch in 0..20u64 {
                let fresh: Vec<[f32; DIM]> = (0..50).map(|i| embed(&format!("entry {i} of day {batch}"))).collect();
                shared.add_with_ids(&fresh, &(0..50).map(|i| 1000 + 50 * batch + i).collect::<Vec<_>>())?;
            }
            shared.update(20, &embed("water the roses"))?;
            shared.remove(&[30]);
            Ok::<_, nearfield::BuildError>(())
        });
        let mut answers = 0;
        while !writer.is_finished() {
            let hits = shared.search(&embed("oat milk"), 1)?;
            assert_eq!(hits.query(0).next().map(|(id, _)| id), Some(10));
            answers += 1;
        }
        writer.join().map_err(|_| "the writer stopped")??;
        println!("{answers} answers while {} notes came", shared.len());
        Ok(())
    })?;

    // Save, open again, and ask with conditions.
    shared.save(&path)?;
    let index = AnyIndex::open(&device, &path)?;
    assert!(index.contains(20) && !index.contains(30));
    let options = SearchOptions::default().filter(index.filter_by(|id| id < 1000));
    let (hits, stats) = index.search_with(&embed("roses"), 5, &options)?;
    println!("about roses, of the first notes, on {}: {:?}", stats.device, hits.query(0).collect::<Vec<_>>());
    assert_eq!(hits.query(0).map(|(id, _)| id).collect::<Vec<_>>(), [20, 10]);
    std::fs::remove_file(&path)?;
    Ok(())
}

/// A stand-in for an embedding model: words that texts share make them similar.
fn embed(text: &str) -> [f32; DIM] {
    let mut vector = [0.0; DIM];
    for word in text.split_whitespace() {
        let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        for i in 0..4 {
            vector[(hash >> (8 * i)) as usize % DIM] += if hash >> (40 + i) & 1 == 0 { 1.0 } else { -1.0 };
        }
    }
    vector
}
