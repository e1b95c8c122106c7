//! `assign`: the nearest row of each query, in one launch per block and shard.

use super::{Block, Job, ROW_STEP, block_queries};
use crate::compute::{Candidates, EngineError};
use crate::gpu::case::Case;
use crate::gpu::submit::Bind;
use crate::ops::assign;

/// The row with the smallest (key, position) for each query.
pub(super) async fn run(job: &mut Job<'_>) -> Result<Candidates, EngineError> {
    let p = job.work.extent;
    let mut out = Candidates::places(p.queries, 1)?;
    let each = job.query_bytes() + 16;
    let count = block_queries(job.queries_at_a_time(), job.scratch, |q| q as u64 * each);
    let mut first = 0;
    while first < p.queries {
        let queries = count.min(p.queries - first);
        job.ensure(Case::Assign { queries }).await?;
        let block = job.block(first, queries).await?;
        let sources = nearest(job, &block).await?;
        job.count_pass(queries);
        let mut read = job.rec.read(&sources).await?.into_iter();
        if let (Some(keys), Some(positions)) = (read.next(), read.next()) {
            out.keys[first..first + queries].copy_from_slice(bytemuck::cast_slice(&keys));
            out.positions[first..first + queries].copy_from_slice(&positions);
        }
        first += queries;
    }
    Ok(out)
}

/// Keys and positions of a block.
async fn nearest(job: &mut Job<'_>, block: &Block) -> Result<[Bind; 2], EngineError> {
    let work = job.row_work(block.count as usize);
    let bytes = u64::from(block.count) * 4;
    let (keys, positions) = (job.rec.scratch(bytes)?, job.rec.scratch(bytes)?);
    let out = [Bind::first(&keys, bytes), Bind::first(&positions, bytes)];
    let mut first = true;
    let mut shards = job.shards();
    while let Some(shard) = job.next_shard(&mut shards).await? {
        let shard = &shard;
        let mut row = 0;
        while row < shard.rows {
            let caps = job.caps("assign");
            let mut args = assign::Args { tile: job.tile(shard, block, (row, shard.rows)), first };
            let pipeline = job.pipeline(&assign::record(&args, &caps))?;
            let fit = job.rec.fit(&pipeline, work, ROW_STEP).await? / ROW_STEP * ROW_STEP;
            let rows = fit.min(shard.rows - row);
            args.tile.row_end = (row + rows) as u32;
            let mut binds = job.inputs(shard, block, true);
            binds.extend(out.iter().cloned());
            job.rec.launch("assign", &pipeline, assign::record(&args, &caps), binds, work * rows as f64);
            (row, first) = (row + rows, false);
        }
    }
    Ok(out)
}
