//! The direct `search` of few queries: all keys, then the pairs that may be among the smallest.

use super::screened::Lists;
use super::search::{select_on_host, sort_into};
use super::select::{self, Selection};
use super::{Block, Job, ROW_STEP, matrix};
use crate::compute::{Candidates, EngineError};
use crate::gpu::submit::Bind;
use crate::ops::search::few;
use crate::ops::search::screened::Limit;
use crate::ops::select_k::Limits;
use crate::ops::source::MISSING_KEY;

/// Up to so many keys are selected from by the host, sooner than another kernel would start.
const FEW_KEYS: usize = 8192;

/// Whether the scratch has room for what a block of so many queries needs.
pub(super) fn fits(job: &Job<'_>, queries: usize, keep: usize) -> bool {
    let each = Lists::bytes(job, keep) + u64::from(job.caps("search").tuning.groups) * 8 + job.query_bytes();
    few::fits(queries, keep) && matrix::tile_bytes(job.scratch) + queries as u64 * each <= job.scratch
}

/// Writes the `keep` best rows of each query of a block. Nothing is written, and false given, when more pairs lay below the
/// bars than there was room for.
pub(super) async fn block(
    job: &mut Job<'_>,
    block: &Block,
    keep: usize,
    out: &mut Candidates,
) -> Result<bool, EngineError> {
    let queries = block.count as usize;
    let mut on_host = false;
    let most = ((matrix::tile_bytes(job.scratch) / (4 * queries as u64)) as usize).min(job.rows()).max(1);
    let keys = job.rec.scratch((most * queries) as u64 * 4)?;
    let mut lists = Lists::new(job, queries, keep)?;
    let work = job.row_work(queries);
    let mut parts = 0;
    let mut shards = job.shards();
    while let Some(shard) = job.next_shard(&mut shards).await? {
        let shard = &shard;
        let mut row = 0;
        while row < shard.rows {
            let caps = job.caps("search");
            let mut args = few::Args { tile: job.tile(shard, block, (row, shard.rows)) };
            let pipeline = job.pipeline(&few::record(&args, &caps))?;
            let rows = job.rec.fit(&pipeline, work, ROW_STEP).await?.min(shard.rows - row).min(most);
            args.tile.row_end = (row + rows) as u32;
            let groups = few::groups(&args, &caps);
            let bytes = u64::from(groups * block.count) * 4;
            let least = [job.rec.scratch(bytes)?, job.rec.scratch(bytes)?].map(|least| Bind::first(&least, bytes));
            let part = Bind::first(&keys, (rows * queries) as u64 * 4);
            let mut binds = job.inputs(shard, block, true);
            binds.extend([part.clone(), least[0].clone(), least[1].clone()]);
            job.rec.launch("search", &pipeline, few::record(&args, &caps), binds, work * rows as f64);
            row += rows;
            parts += 1;
            on_host = rows == job.rows() && rows * queries <= FEW_KEYS && !job.machine.is_test();
            if on_host {
                continue;
            }
            if parts > 1 {
                lists.settle(job).await?;
            }
            let bars = bars(job, queries, groups, keep, least).await?;
            let launch =
                few::record_below(block.count, rows as u32, (shard.first + row - rows) as u32, lists.room(), &caps);
            let pipeline = job.pipeline(&launch)?;
            let [out_keys, out_positions, limits] = lists.binds();
            job.rec.fit(&pipeline, (rows * queries) as f64, 1).await?;
            let binds = vec![part, bars, out_keys, out_positions, limits];
            job.rec.launch("search", &pipeline, launch, binds, (rows * queries) as f64);
        }
    }
    if on_host {
        let read =
            job.rec.read(&[Bind::first(&keys, (job.rows() * queries) as u64 * 4)]).await?.pop().unwrap_or_default();
        job.count_pass(queries);
        let (first, rows) = (block.first, job.rows());
        let allowed = |q: usize, row: usize| read[(q - first) * rows + row] != MISSING_KEY;
        select_on_host(out, first, bytemuck::cast_slice(&read), rows, Some(&allowed));
        return Ok(true);
    }
    let found = lists.finish(job).await?;
    let mut read = job.rec.read(&[found.keys, found.positions, found.limits]).await?.into_iter();
    let (Some(keys), Some(positions), Some(limits)) = (read.next(), read.next(), read.next()) else {
        return Ok(false);
    };
    if bytemuck::cast_slice::<u32, Limit>(&limits).iter().any(|limit| limit.overflowed(keep as u32)) {
        return Ok(false);
    }
    job.count_pass(queries);
    sort_into(out, block.first, &keys, &positions, keep);
    Ok(true)
}

/// For each query the `keep`-th smallest of what the workgroups found, as a limit.
async fn bars(
    job: &mut Job<'_>,
    queries: usize,
    groups: u32,
    keep: usize,
    least: [Bind; 2],
) -> Result<Bind, EngineError> {
    let selection = Selection {
        stage: "search",
        segments: queries as u32,
        width: groups,
        in_stride: groups,
        out_stride: keep as u32,
        k: keep as u32,
        position_base: 0,
        nan_is_missing: false,
    };
    let bytes = (queries * keep) as u64 * 4;
    let unused = [job.rec.scratch(bytes)?, job.rec.scratch(bytes)?].map(|unused| Bind::first(&unused, bytes));
    let bars = job.rec.scratch(queries as u64 * 16)?;
    let bars = Bind::first(&bars, queries as u64 * 16);
    select::record_limits(job, &selection, Limits::Wanted, least, unused, bars.clone()).await?;
    Ok(bars)
}
