//! A window that searches as one types: it draws frames, and every keystroke calls off the search before it.
//! `cargo run --release --example search_as_you_type`

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use nearfield::{CancelToken, Device, Flat, Metric, SearchError, SearchOptions, Searching, Shared};

const DIM: usize = 64;
const FRAME: Duration = Duration::from_millis(4);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut index = Flat::new(&Device::auto()?, DIM, Metric::Cosine)?;
    let texts: Vec<String> = (0..50_000).map(|i| format!("entry number {i} of a long list of notes")).collect();
    index.add(&texts.iter().map(|text| embed(text)).collect::<Vec<_>>())?;
    let index = Shared::new(index); // other threads may add to it meanwhile

    let mut search: Option<(CancelToken, Searching<'static>)> = None;
    let (mut best, mut frames, mut slowest, mut called_off) = (String::new(), 0, Duration::ZERO, 0);
    let typed = "entry number 4711";
    let mut typing = (1..=typed.len()).map(|end| &typed[..end]);
    loop {
        let began = Instant::now();
        let key = typing.next();
        if let Some(text) = key {
            if let Some((token, _)) = search.take() {
                token.cancel(); // nobody wants that answer any more
                called_off += 1;
            }
            let token = CancelToken::after(Duration::from_secs(5));
            let options = SearchOptions::default().cancel(&token);
            search = Some((token, index.search_async(&embed(text), 1, &options)));
        }
        // Once per frame; an async runtime would be woken instead.
        if let Some((_, pending)) = &mut search
            && let Poll::Ready(found) = Pin::new(pending).poll(&mut Context::from_waker(Waker::noop()))
        {
            search = None;
            match found {
                Ok((hits, _)) => best = hits.query(0).map(|(id, _)| texts[id as usize].clone()).collect(),
                Err(SearchError::Cancelled) => println!("too slow for this frame"),
                Err(error) => return Err(error.into()),
            }
        }
        if key.is_none() && search.is_none() {
            break;
        }
        frames += 1;
        slowest = slowest.max(began.elapsed());
        std::thread::sleep(FRAME.saturating_sub(began.elapsed()));
    }
    println!("{frames} frames, {called_off} searches called off, at most {slowest:?} per frame; found: {best}");
    assert!(best.contains("4711"));
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
