//! Only the rows that are allowed: by a condition, by a bitmap for each query, by ids.
//! `cargo run --release --example filtered`

use nearfield::{AnyIndex, Bitmap, Device, Filter, Flat, Metric, SearchOptions, TrainOptions, format::Matrix};

/// What an application knows of a row besides its vector.
struct Shoe {
    price: u32,
    in_stock: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Eight shoes on a line, with ids from 100.
    let rows: Vec<[f32; 2]> = (0..8).map(|i| [i as f32, 1.0]).collect();
    let ids: Vec<u64> = (100..108).collect();
    let shoes: Vec<Shoe> = (0..8).map(|i| Shoe { price: 40 + 15 * i, in_stock: i % 3 != 1 }).collect();
    let shoe = |id: u64| &shoes[id as usize - 100];

    let device = Device::auto()?;
    let mut index = Flat::new(&device, 2, Metric::L2)?;
    index.add_with_ids(&rows, &ids)?;
    let queries = [[1.2, 1.0], [6.1, 1.0]];
    let search = |filter: Filter| -> Result<Vec<Vec<u64>>, nearfield::SearchError> {
        let (hits, _) = index.search_with(&queries, 3, &SearchOptions::default().filter(filter))?;
        Ok(hits.iter().map(|query| query.map(|(id, _)| id).collect()).collect())
    };

    // A condition on the id. What is not allowed is left out inside the search, so there are three answers as long as
    // three rows are allowed.
    let found = search(index.filter_by(|id| shoe(id).in_stock))?;
    println!("in stock:            {found:?}");
    assert_eq!(found, [[102, 100, 103], [106, 105, 103]]);

    // A bitmap for each query, with a bit per row in the order of `ids`: the second customer can spend less.
    let at_most = |price: u32| Bitmap::from_fn(ids.len(), |i| shoe(ids[i]).in_stock && shoe(ids[i]).price <= price);
    let found = search(Filter::RowsPerQuery(vec![at_most(200), at_most(100)]))?;
    println!("at a price to pay:   {found:?}");
    assert_eq!(found, [[102, 100, 103], [103, 102, 100]]);

    // By the ids of the rows. Ids that the index does not hold are ignored; what is missing is left out.
    let found = search(Filter::Ids(vec![107, 104, 999]))?;
    println!("from a list of ids:  {found:?}");
    assert_eq!(found, [[104, 107], [107, 104]]);

    // An index with lists and codes takes the same filters. Where one row in a thousand is allowed it still finds as many
    // as are asked for: it probes more lists then, or compares the few allowed rows alone.
    let many: Vec<f32> = (0..20_000).flat_map(|i| [(i % 200) as f32, (i / 200) as f32]).collect();
    let spec = "IVF64,SQ8,RFlat".parse()?;
    let rows = Matrix::from_vec(many, 2)?;
    let index = AnyIndex::build(&device, &spec, Metric::L2, rows, None, &TrainOptions::default())?;
    for every in [1, 10, 1000] {
        let options = SearchOptions::default().probes(4).filter(index.filter_by(|id| id % every == 0));
        let (hits, _) = index.search_with(&[20.2, 30.1], 3, &options)?;
        println!("every {every:>4}th of many:  {:?}", hits.query(0).collect::<Vec<_>>());
        assert!(hits.query(0).count() == 3 && hits.query(0).all(|(id, _)| id % every == 0));
    }
    Ok(())
}
