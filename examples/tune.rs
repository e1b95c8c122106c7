//! Which index for my rows? Measured on half of the queries, checked on the other half.
//! `cargo run --release --example tune`

use nearfield::format::Matrix;
use nearfield::{Device, Metric, Tuning};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 20,000 rows in 200 clumps, and 400 queries like them. Bring your own: what is chosen depends on them.
    let (dim, mut next) = (64, normal(1));
    let centres: Vec<f32> = (0..200 * dim).map(|_| next()).collect();
    let mut draw = |rows: usize| {
        let clump = |i: usize| (i * 7919) % 200;
        let data = (0..rows * dim).map(|i| centres[clump(i / dim) * dim + i % dim] + 0.5 * next()).collect();
        Matrix::from_vec::<f32>(data, dim)
    };
    let (rows, queries) = (draw(20_000)?, draw(400)?);

    // The fastest that finds 95 % of the 10 nearest, one query at a time. `memory` would limit its bytes.
    let tuned = Tuning::new(0.95)
        .batch(1)
        .run(&Device::cpu(), &rows, queries.view(), Metric::L2, 10, &mut |line| println!("tried {line}"))?;

    println!("\nWhat no other beats in recall, speed and bytes:");
    for (i, p) in tuned.points.iter().enumerate() {
        let mark = if i == tuned.chosen { '>' } else { ' ' };
        let (spec, probes, rerank) = (p.spec.to_string(), p.probes.unwrap_or(0), p.rerank.unwrap_or(0));
        print!("{mark} {spec:<28} {probes:>3} lists, {rerank:>3} re-ranked: ");
        println!("recall {:.3}, {:>6.0} queries/s, {} KiB", p.checked, p.qps, p.bytes / 1024);
    }
    // The index itself, its settings set; `save` keeps them.
    let hits = tuned.index.search_with(queries.view(), 10, &Default::default())?.0;
    println!("goal reached: {}; nearest to the first query: row {}", tuned.reached, hits.ids()[0]);
    Ok(())
}

/// Numbers around zero, the same in every run.
fn normal(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    move || (0..6).map(|_| uniform() - 0.5).sum::<f32>() * 1.4
}
