//! Only rows that are allowed: by a bitmap, by a bitmap for each query, by ids.
//! `cargo run --release --example filtered`

use nearfield::{Bitmap, Device, Filter, Flat, Index, Ivf, Metric, RowsView, SearchOptions, TrainOptions};

/// What an application knows of a row besides its vector.
struct Shoe {
    price: u32,
    in_stock: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Eight shoes on a line, each with an id of its own.
    let rows: Vec<[f32; 2]> = (0..8).map(|i| [i as f32, 1.0]).collect();
    let ids: Vec<u64> = (0..8).map(|i| 100 + i).collect();
    let shoes: Vec<Shoe> = (0..8).map(|i| Shoe { price: 40 + 15 * i, in_stock: i % 3 != 1 }).collect();

    let mut index = Flat::new(&Device::auto()?, 2, Metric::L2)?;
    index.add_with_ids(&rows, &ids)?;
    let queries = [[1.2, 1.0], [6.1, 1.0]];
    let search = |filter: Filter| -> Result<Vec<Vec<u64>>, nearfield::SearchError> {
        let (hits, _) = index.search_with(RowsView::from(&queries), 3, &SearchOptions::filter(filter))?;
        Ok((0..hits.queries).map(|q| hits.query(q).map(|(id, _)| id).collect()).collect())
    };

    // One bit a row, in the order of the rows. Rows that are not allowed are left out inside the search,
    // so there are three answers as long as three rows are allowed.
    let stock = Bitmap::from_fn(shoes.len(), |i| shoes[i].in_stock);
    let found = search(Filter::Rows(stock.clone()))?;
    println!("in stock:            {found:?}");
    assert_eq!(found, [[102, 100, 103], [106, 105, 103]]);

    // A bitmap for each query: the second customer can spend less.
    let at_most = |price: u32| Bitmap::from_fn(shoes.len(), |i| shoes[i].in_stock && shoes[i].price <= price);
    let found = search(Filter::RowsPerQuery(vec![at_most(200), at_most(100)]))?;
    println!("at a price to pay:   {found:?}");
    assert_eq!(found, [[102, 100, 103], [103, 102, 100]]);

    // By the ids of the rows. Ids that the index does not hold are ignored; what is missing is left out.
    let found = search(Filter::Ids(vec![107, 104, 999]))?;
    println!("from a list of ids:  {found:?}");
    assert_eq!(found, [[104, 107], [107, 104]]);

    // An index with lists and codes takes the same filters, before it selects: where one row in a thousand is allowed it
    // still finds as many as are asked for. It looks into more lists then, or at the few rows that are allowed alone.
    let many: Vec<[f32; 2]> = (0..20_000).map(|i| [(i % 200) as f32, (i / 200) as f32]).collect();
    let mut index =
        Ivf::train(&Device::auto()?, &"IVF64,SQ8,RFlat".parse()?, Metric::L2, &many, &TrainOptions::default())?;
    index.add(&many)?;
    for every in [1, 10, 1000] {
        let allowed = Bitmap::from_fn(many.len(), |i| i % every == 0);
        let options = SearchOptions::filter(Filter::Rows(allowed)).probes(4);
        let (hits, _) = index.search_with(RowsView::from(&[[20.2, 30.1]]), 3, &options)?;
        println!("every {every:>4}th of many:  {:?} at {:?}", hits.ids, hits.distances);
        assert!(hits.ids.iter().all(|&id| (id as usize).is_multiple_of(every)));
    }
    Ok(())
}
