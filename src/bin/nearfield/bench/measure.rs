//! Batches of queries, one after another, against the clock.

use std::time::{Duration, Instant};

use anyhow::Result;
use nearfield::format::Matrix;
use nearfield::{DType, Index, Neighbors, SearchOptions, SearchStats};

/// How long to go on.
pub struct Limits {
    /// Batches are repeated until they have been timed for so long in all.
    pub least: Duration,
    /// After that it may end before every query has been asked.
    pub every_query: bool,
}

/// Times of the batches; the first one of all is a warm-up and not among them.
pub struct Timing {
    batch: usize,
    times: Vec<Duration>,
    /// Summed over the timed batches.
    stats: SearchStats,
}

/// Asks the queries in batches of `batch`, the last one filled up from the first queries, again and again until the
/// limits are met. Each answer of the first round goes to `answers`, with the number of its first query.
pub fn run(
    index: &dyn Index,
    queries: &Matrix,
    k: usize,
    batch: usize,
    options: &SearchOptions,
    limits: &Limits,
    mut answers: impl FnMut(usize, &Neighbors) -> Result<()>,
) -> Result<Timing> {
    let filled = cycle(queries, batch)?;
    let batches = filled.rows() / batch;
    let mut timing = Timing { batch, times: Vec::new(), stats: SearchStats::default() };
    let mut spent = Duration::ZERO;
    for i in 0.. {
        let round_done = i >= batches || !limits.every_query;
        if round_done && spent >= limits.least && !timing.times.is_empty() {
            break;
        }
        let start = i % batches * batch;
        let view = filled.view().slice(start, start + batch);
        let began = Instant::now();
        let (found, stats) = index.search_with(view, k, options)?;
        let took = began.elapsed();
        if i < batches {
            answers(start, &found)?;
        }
        if i > 0 {
            timing.times.push(took);
            spent += took;
            timing.stats.merge(&stats);
        }
    }
    Ok(timing)
}

/// The queries as f32 (or bits), repeated until they fill whole batches.
fn cycle(queries: &Matrix, batch: usize) -> Result<Matrix> {
    let (view, dim) = (queries.view(), queries.dim());
    let rows = (0..view.rows().next_multiple_of(batch)).map(|i| i % view.rows());
    if view.dtype() == DType::Bits {
        let bytes = rows.flat_map(|r| view.row_bytes(r).to_vec()).collect();
        return Ok(Matrix::from_vec::<u8>(bytes, dim / 8)?.into_bits()?);
    }
    let mut floats = vec![0.0f32; rows.len() * dim];
    for (r, out) in rows.zip(floats.chunks_exact_mut(dim)) {
        view.row_f32(r, out);
    }
    Ok(Matrix::from_vec(floats, dim)?)
}

impl Timing {
    /// Queries per second.
    pub fn qps(&self) -> f64 {
        let spent: Duration = self.times.iter().sum();
        (self.batch * self.times.len()) as f64 / spent.as_secs_f64().max(1e-9)
    }

    /// Milliseconds that a share of the batches did not exceed.
    pub fn percentile_ms(&self, share: f64) -> f64 {
        let mut times = self.times.clone();
        times.sort_unstable();
        let rank = (share * times.len() as f64).ceil().max(1.0) as usize;
        times.get(rank.min(times.len()) - 1).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
    }

    /// Mean milliseconds per batch of each stage.
    pub fn stages_ms(&self) -> Vec<(String, f64)> {
        let mean = |t: Duration| t.as_secs_f64() * 1e3 / self.times.len().max(1) as f64;
        self.stats.stages.iter().map(|s| (s.name.clone(), mean(s.time))).collect()
    }

    /// What the timed batches did.
    pub fn stats(&self) -> &SearchStats {
        &self.stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_rank() {
        let times = (1..=100).rev().map(Duration::from_millis).collect();
        let timing = Timing { batch: 2, times, stats: SearchStats::default() };
        assert_eq!((timing.percentile_ms(0.5), timing.percentile_ms(0.95)), (50.0, 95.0));
        assert!((timing.qps() - 200.0 / 5.05).abs() < 1e-9);
        let one = Timing { batch: 1, times: vec![Duration::from_millis(7)], stats: SearchStats::default() };
        assert_eq!((one.percentile_ms(0.5), one.percentile_ms(0.95)), (7.0, 7.0));
    }

    #[test]
    fn the_last_batch_is_filled_from_the_first_queries() {
        let queries = Matrix::from_vec(vec![1.0f32, 2.0, 3.0], 1).unwrap();
        let filled = cycle(&queries, 2).unwrap();
        let mut row = [0.0];
        let rows: Vec<f32> = (0..filled.rows())
            .map(|r| {
                filled.view().row_f32(r, &mut row);
                row[0]
            })
            .collect();
        assert_eq!(rows, [1.0, 2.0, 3.0, 1.0]);
        assert_eq!(cycle(&queries, 7).unwrap().rows(), 7);
    }
}
