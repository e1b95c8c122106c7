//! `range`: count, read the counts back, then fill buffers of exactly that size, some queries at a time.

use std::sync::Arc;

use super::search::{rank, unrank};
use super::{Block, Job, ROW_STEP, block_queries, matrix};
use crate::compute::{EngineError, Output};
use crate::gpu::case::Case;
use crate::gpu::memory::Buffer;
use crate::gpu::resident::Shard;
use crate::gpu::submit::Bind;
use crate::gpu::sync::{in_threads, share};
use crate::ops::tile::TileArgs;
use crate::ops::{Launch, range};

/// Hits of each query, as ranks.
type Hits = Vec<Vec<u64>>;

/// Every row whose key is at most `key`.
pub(super) async fn run(job: &mut Job<'_>, key: f32) -> Result<Output, EngineError> {
    let mut offsets = vec![0u64];
    let (mut keys, mut positions) = (Vec::new(), Vec::new());
    let each = job.query_bytes() + 16;
    let count = block_queries(job.queries_at_a_time(), job.scratch / 2, |q| q as u64 * each);
    let mut first = 0;
    while first < job.queries() {
        let queries = count.min(job.queries() - first);
        job.ensure(Case::Range { queries }).await?;
        let block = job.block(first, queries).await?;
        for hits in block_hits(job, &block, key).await? {
            keys.reserve(hits.len());
            positions.reserve(hits.len());
            for (key, position) in hits.into_iter().map(unrank) {
                keys.push(key);
                positions.push(position);
            }
            offsets.push(keys.len() as u64);
        }
        first += block.count as usize;
    }
    Ok(Output::Range { offsets, keys, positions })
}

async fn block_hits(job: &mut Job<'_>, block: &Block, key: f32) -> Result<Hits, EngineError> {
    let bytes = u64::from(block.count) * 4;
    let counters = job.rec.scratch(bytes)?;
    job.rec.clear(Bind::first(&counters, bytes));
    pass(job, block, key, (0, block.count), &counters, None).await?;
    job.count_pass(block.count as usize);
    let counts = job.rec.read(&[Bind::first(&counters, bytes)]).await?.pop().unwrap_or_default();
    let most = (job.scratch / 2 / 16).max(1);
    let mut hits: Hits = Vec::with_capacity(counts.len());
    let mut begin = 0;
    while begin < counts.len() {
        let mut end = begin;
        let mut total = 0u64;
        while let Some(&more) = counts.get(end) {
            if end > begin && total + u64::from(more) > most {
                break;
            }
            total += u64::from(more);
            end += 1;
        }
        let group = &counts[begin..end];
        let filled = match total {
            0 => Some(vec![Vec::new(); group.len()]),
            total if total > most => None,
            _ => fill(job, block, key, begin, group, total).await?,
        };
        match filled {
            Some(filled) => hits.extend(filled),
            // More hits than the scratch holds, or the two passes did not agree to the last bit.
            None => hits.extend(on_host(job, block, key, begin, end).await?),
        }
        begin = end;
    }
    let mean = hits.iter().map(Vec::len).sum::<usize>() / hits.len().max(1);
    let share = share(hits.len(), mean * 8);
    in_threads(hits.chunks_mut(share), |hits| hits.iter_mut().for_each(|hits| hits.sort_unstable()));
    Ok(hits)
}

/// The hits of the queries from `begin` on, whose counts are known; `None` when they come out different.
async fn fill(
    job: &mut Job<'_>,
    block: &Block,
    key: f32,
    begin: usize,
    counts: &[u32],
    total: u64,
) -> Result<Option<Hits>, EngineError> {
    let mut cursors = vec![0u32; block.count as usize];
    let mut ends = Vec::with_capacity(counts.len());
    let mut at = 0u32;
    for (cursor, &count) in cursors[begin..].iter_mut().zip(counts) {
        *cursor = at;
        at += count;
        ends.push(at);
    }
    let counters = job.rec.upload(bytemuck::cast_slice(&cursors))?;
    let (out_keys, out_positions) = (job.rec.scratch(total * 4)?, job.rec.scratch(total * 4)?);
    let out = [Bind::first(&out_keys, total * 4), Bind::first(&out_positions, total * 4)];
    let queries = (begin as u32, (begin + counts.len()) as u32);
    pass(job, block, key, queries, &counters, Some(&out)).await?;
    let [keys, positions] = out;
    let mut read =
        job.rec.read(&[keys, positions, Bind::first(&counters, cursors.len() as u64 * 4)]).await?.into_iter();
    let (Some(keys), Some(positions), Some(reached)) = (read.next(), read.next(), read.next()) else {
        return Ok(None);
    };
    if reached.get(begin..begin + counts.len()) != Some(&ends[..]) {
        return Ok(None);
    }
    let starts = ends.iter().zip(counts).map(|(&end, &count)| (end - count) as usize..end as usize);
    let hits = starts.map(|span| {
        let pairs = keys[span.clone()].iter().zip(&positions[span]);
        pairs.map(|(&key, &position)| rank(key, position)).collect()
    });
    Ok(Some(hits.collect()))
}

/// The hits of queries `begin..end` of a block from all their keys.
async fn on_host(job: &mut Job<'_>, block: &Block, key: f32, begin: usize, end: usize) -> Result<Hits, EngineError> {
    let mut hits: Hits = Vec::new();
    let mut first = block.first + begin;
    let last = block.first + end;
    while first < last {
        let queries = matrix::queries_of_a_block(job).min(last - first);
        job.ensure(Case::Distance { queries }).await?;
        let part = job.block(first, queries).await?;
        let mask = job.work.mask;
        let mut found: Hits = vec![Vec::new(); part.count as usize];
        matrix::read_tiles(job, &part, |column, width, keys| {
            for (q, (found, keys)) in found.iter_mut().zip(keys.chunks(width)).enumerate() {
                let near = keys.iter().enumerate().filter(|&(i, &bits)| {
                    f32::from_bits(bits) <= key && mask.is_none_or(|mask| mask.allows(first + q, column + i))
                });
                found.extend(near.map(|(i, &bits)| rank(bits, (column + i) as u32)));
            }
        })
        .await?;
        hits.extend(found);
        first += part.count as usize;
    }
    Ok(hits)
}

/// Records one pass over the rows for queries `begin..end` of a block: counting, or filling where `out` is given.
async fn pass(
    job: &mut Job<'_>,
    block: &Block,
    key: f32,
    (begin, end): (u32, u32),
    counters: &Arc<Buffer>,
    out: Option<&[Bind; 2]>,
) -> Result<(), EngineError> {
    let record = |job: &Job<'_>, shard: &Shard, rows: (usize, usize)| -> Launch {
        let tile = TileArgs { q_begin: begin, q_end: end, ..job.tile(shard, block, rows) };
        let args = range::Args { tile, key, out_base: 0 };
        match out {
            None => range::record_count(&args, &job.caps("range")),
            Some(_) => range::record_fill(&args, &job.caps("range")),
        }
    };
    let stage = if out.is_none() { "range count" } else { "range fill" };
    let work = job.row_work((end - begin) as usize);
    let mut shards = job.shards();
    while let Some(shard) = job.next_shard(&mut shards).await? {
        let shard = &shard;
        let mut row = 0;
        while row < shard.rows {
            let pipeline = job.pipeline(&record(job, shard, (row, shard.rows)))?;
            let fit = job.rec.fit(&pipeline, work, ROW_STEP).await? / ROW_STEP * ROW_STEP;
            let rows = fit.min(shard.rows - row);
            let mut binds = job.inputs(shard, block, true);
            binds.push(Bind::first(counters, u64::from(block.count) * 4));
            binds.extend(out.into_iter().flatten().cloned());
            job.rec.launch(stage, &pipeline, record(job, shard, (row, row + rows)), binds, work * rows as f64);
            row += rows;
        }
    }
    Ok(())
}
