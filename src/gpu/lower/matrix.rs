//! `distance` and `normalize`: what gives as much as it takes, in tiles that the scratch holds.

use std::sync::Arc;

use super::search::select_on_host;
use super::{Block, Job, ROW_STEP, Shards, block_queries};
use crate::compute::{Candidates, EngineError, Output};
use crate::gpu::case::Case;
use crate::gpu::memory::Buffer;
use crate::gpu::resident::Shard;
use crate::gpu::submit::Bind;
use crate::ops::Norm;
use crate::ops::{distance, normalize};

/// Keys of all queries of a block and some rows.
pub(super) struct Tile {
    /// Position of the first row.
    pub(super) first: usize,
    pub(super) rows: u32,
    /// Keys `[queries, rows]`.
    pub(super) keys: Bind,
}

/// Bytes of scratch that a tile may take.
pub(super) fn tile_bytes(scratch: u64) -> u64 {
    scratch / 4
}

/// The keys of a block, tile by tile.
pub(super) struct Tiles<'a> {
    shards: Shards<'a>,
    /// The shard of the next tile, and its first row that is in none yet.
    shard: Option<(Shard, usize)>,
    /// Rows of a tile at most.
    most: usize,
    /// Where every tile goes, in turn.
    out: Arc<Buffer>,
}

impl<'a> Tiles<'a> {
    /// Those of a block against all rows.
    pub(super) fn new(job: &Job<'a>, block: &Block) -> Result<Tiles<'a>, EngineError> {
        let queries = block.count as usize;
        let most = ((tile_bytes(job.scratch) / (4 * queries as u64)) as usize).max(1);
        let out = job.rec.scratch((most.min(job.rows()) * queries) as u64 * 4)?;
        Ok(Tiles { shards: job.shards(), shard: None, most, out })
    }

    /// Records the next tile, which overwrites the one before.
    pub(super) async fn next(&mut self, job: &mut Job<'a>, block: &Block) -> Result<Option<Tile>, EngineError> {
        let (shard, row) = match self.shard.take() {
            Some((shard, row)) if row < shard.rows => (shard, row),
            _ => match job.next_shard(&mut self.shards).await? {
                Some(shard) => (shard, 0),
                None => return Ok(None),
            },
        };
        let queries = block.count as usize;
        let work = job.row_work(queries);
        let caps = job.caps("distance");
        let tile = job.tile(&shard, block, (row, shard.rows));
        let mut args = distance::Args { tile, out_stride: 0, out_offset: 0 };
        let pipeline = job.pipeline(&distance::record(&args, &caps))?;
        let fit = job.rec.fit(&pipeline, work, ROW_STEP).await? / ROW_STEP * ROW_STEP;
        let rows = fit.min(shard.rows - row).min(self.most);
        args.tile.row_end = (row + rows) as u32;
        args.out_stride = rows as u32;
        let keys = Bind::first(&self.out, (rows * queries) as u64 * 4);
        let mut binds = job.inputs(&shard, block, true);
        binds.push(keys.clone());
        job.rec.launch("distance", &pipeline, distance::record(&args, &caps), binds, work * rows as f64);
        let tile = Tile { first: shard.first + row, rows: rows as u32, keys };
        self.shard = Some((shard, row + rows));
        Ok(Some(tile))
    }
}

/// Keys `[queries, rows]` of the whole batch.
pub(super) async fn distances(job: &mut Job<'_>) -> Result<Vec<f32>, EngineError> {
    let (queries, rows) = (job.queries(), job.rows());
    let mut out = vec![0f32; queries * rows];
    let count = queries_of_a_block(job);
    let mut first = 0;
    while first < queries {
        let count = count.min(queries - first);
        job.ensure(Case::Distance { queries: count }).await?;
        let block = job.block(first, count).await?;
        let target = &mut out[first * rows..];
        read_tiles(job, &block, |column, width, keys| {
            for (row, keys) in target.chunks_mut(rows).zip(keys.chunks(width)) {
                row[column..column + width].copy_from_slice(bytemuck::cast_slice(keys));
            }
        })
        .await?;
        job.count_pass(block.count as usize);
        first += block.count as usize;
    }
    Ok(out)
}

/// How many queries a block has when tiles of keys come back to the host.
pub(super) fn queries_of_a_block(job: &Job<'_>) -> usize {
    let each = job.query_bytes();
    let rows = job.rows().min(4096) as u64;
    // A tile lies in scratch twice: as the kernel's result and where the host reads it.
    block_queries(job.queries_at_a_time(), job.scratch / 2, |q| q as u64 * (each + rows * 4))
}

/// Computes the keys of a block and hands them to `each`, tile by tile: first row, rows, keys.
pub(super) async fn read_tiles(
    job: &mut Job<'_>,
    block: &Block,
    mut each: impl FnMut(usize, usize, &[u32]) + Send,
) -> Result<(), EngineError> {
    let mut tiles = Tiles::new(job, block)?;
    while let Some(tile) = tiles.next(job, block).await? {
        let keys = job.rec.read(&[tile.keys]).await?.pop().unwrap_or_default();
        each(tile.first, tile.rows as usize, &keys);
    }
    Ok(())
}

/// The best rows of each query where so many are wanted that their lists do not fit the scratch: all keys come to the
/// host, which sorts them.
pub(super) async fn search_on_host(job: &mut Job<'_>, out: &mut Candidates) -> Result<(), EngineError> {
    let rows = job.rows();
    // At most 256 MiB of keys on the host, or one query.
    let most = ((256 << 20) / (rows * 4)).max(1);
    let count = queries_of_a_block(job).min(most);
    let mask = job.work.mask;
    let mut first = 0;
    while first < job.queries() {
        let queries = count.min(job.queries() - first);
        job.ensure(Case::Distance { queries }).await?;
        let block = job.block(first, queries).await?;
        let mut keys = vec![0f32; queries * rows];
        read_tiles(job, &block, |column, width, tile| {
            for (row, tile) in keys.chunks_mut(rows).zip(tile.chunks(width)) {
                row[column..column + width].copy_from_slice(bytemuck::cast_slice(tile));
            }
        })
        .await?;
        job.count_pass(queries);
        let allowed = mask.map(|mask| move |q: usize, row: usize| mask.allows(q, row));
        let allowed = allowed.as_ref().map(|f| f as &(dyn Fn(usize, usize) -> bool + Sync));
        select_on_host(out, first, &keys, rows, allowed);
        first += queries;
    }
    Ok(())
}

/// Each row divided by its norm, and the norms.
pub(super) async fn normalize(job: &mut Job<'_>, norm: Norm) -> Result<Output, EngineError> {
    let p = job.work.extent;
    job.ensure(Case::Normalize { norm }).await?;
    let (mut rows, mut norms) = (Vec::with_capacity(p.rows * p.dim), Vec::with_capacity(p.rows));
    let most = ((job.scratch / 3 / (p.dim as u64 * 4 + 4)) as usize).max(1);
    let work = p.dim as f64 * 8.0;
    let mut shards = job.shards();
    while let Some(shard) = job.next_shard(&mut shards).await? {
        let shard = &shard;
        let mut row = 0;
        while row < shard.rows {
            let caps = job.caps("normalize");
            let mut args =
                normalize::Args { norm, dtype: p.dtype, dim: p.dim, row_begin: row as u32, row_end: shard.rows as u32 };
            let pipeline = job.pipeline(&normalize::record(&args, &caps))?;
            let count = job.rec.fit(&pipeline, work, ROW_STEP).await?.min(shard.rows - row).min(most);
            args.row_end = (row + count) as u32;
            let bytes = (count * p.dim) as u64 * 4;
            let (out, lengths) = (job.rec.scratch(bytes)?, job.rec.scratch(count as u64 * 4)?);
            let sources = [Bind::first(&out, bytes), Bind::first(&lengths, count as u64 * 4)];
            let mut binds = vec![job.rows_of(shard)];
            binds.extend(sources.iter().cloned());
            job.rec.launch("normalize", &pipeline, normalize::record(&args, &caps), binds, work * count as f64);
            let mut read = job.rec.read(&sources).await?.into_iter();
            if let (Some(out), Some(lengths)) = (read.next(), read.next()) {
                rows.extend(out.iter().map(|&bits| f32::from_bits(bits)));
                norms.extend(lengths.iter().map(|&bits| f32::from_bits(bits)));
            }
            row += count;
        }
    }
    job.rec.stats.bytes_read += (p.rows * p.dtype.row_bytes(p.dim)) as u64;
    Ok(Output::Rows { rows, norms })
}
