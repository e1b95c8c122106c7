//! One verb alone, on the caller's own buffers and without an index.
//! `cargo run --release --example one_verb`

use nearfield::{Device, MatrixView, Metric, Norm, Order};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = Device::auto()?;

    // Five rows of three components, within a buffer that has a fourth for something else: no copy is made of it.
    let buffer: Vec<f32> = vec![
        3.0, 4.0, 0.0, 9.9, //
        0.0, 2.0, 0.0, 9.9, //
        1.0, 1.0, 1.0, 9.9, //
        0.0, 0.0, 0.0, 9.9, //
        6.0, 8.0, 0.0, 9.9,
    ];
    let rows = MatrixView::with_stride(&buffer, 5, 3, 4)?;
    let query = MatrixView::new(&[1.0f32, 0.0, 0.0], 3)?;

    // All distances, [1, 5].
    let distances = device.distances(query, rows, Metric::L1)?;
    println!("l1 distances: {distances:?}");
    assert_eq!(distances, [6.0, 3.0, 2.0, 1.0, 13.0]);

    // The best of any values you have, [1, 5] here: pairs of place and value.
    let best = device.top_k(&distances, 5, 2, Order::Smallest)?;
    println!("the two smallest: {:?}", best.query(0).collect::<Vec<_>>());
    assert_eq!(best.ids(), [3, 2]);

    // Both at once, without the matrix in between.
    let nearest = device.nearest(query, rows, Metric::L1, 2)?;
    assert_eq!(nearest.ids(), best.ids());

    // Rows of length 1, and the lengths they had; a zero row stays zero.
    let (unit, lengths) = device.normalize(rows, Norm::L2)?;
    println!("lengths: {lengths:?}, the first row of length 1: {:?}", &unit[..3]);
    assert!((lengths[0] - 5.0).abs() < 1e-5 && (unit[0] - 0.6).abs() < 1e-6 && lengths[3] == 0.0);

    // All rows within a radius, as compressed sparse rows.
    let near = device.range(query, rows, Metric::L2, 3.0)?;
    println!("within a squared distance of 3: {:?}", near.query(0).collect::<Vec<_>>());
    assert_eq!((near.offsets(), near.ids()), (&[0, 2][..], &[3, 2][..]));
    Ok(())
}
