//! `search` and `refine`: candidates by the fused kernel, or, where more are kept than it can hold, by distances and
//! selection in turn; their direct keys; the last sort.

use super::best::Best;
use super::matrix::{self, Tiles};
use super::select::{self, Selection};
use super::{Block, Job, ROW_STEP, block_queries, few, screened};
use crate::compute::{Candidates, EngineError};
use crate::gpu::case::Case;
use crate::gpu::resident::Shard;
use crate::gpu::submit::Bind;
use crate::gpu::sync::{in_threads, share};
use crate::ops::Screen;
use crate::ops::tile::TileArgs;
use crate::ops::{refine, search};

/// The `k` best rows of each query. With a screen `keep` candidates are kept, and refined if `k` is less.
pub(super) async fn run(job: &mut Job<'_>, screen: Screen, keep: usize, k: usize) -> Result<Candidates, EngineError> {
    match screen {
        // The direct pass needs no candidates beyond the answer.
        Screen::None => direct(job, k).await,
        Screen::F32 if keep > search::MAX_KEEP as usize => {
            let most = search::MAX_KEEP;
            Err(EngineError::Unsupported(format!("a screen of f32 keeps at most {most} candidates, not {keep}")))
        }
        Screen::F32 | Screen::F16 | Screen::Int8 => screened::run(job, keep, k).await,
    }
}

/// The `k` smallest direct keys of each query.
async fn direct(job: &mut Job<'_>, k: usize) -> Result<Candidates, EngineError> {
    let mut out = Candidates::places(job.queries(), k)?;
    let kept = k.min(job.rows());
    let fused = kept <= search::MAX_KEEP as usize;
    let places = select::list_places(kept);
    if !fused && Best::bytes(1, places, 2) > job.scratch / 2 {
        matrix::search_on_host(job, &mut out).await?;
        return Ok(out);
    }
    let count = queries_of_a_block(job, kept, fused);
    let mut first = 0;
    while first < job.queries() {
        let queries = count.min(job.queries() - first);
        job.ensure(Case::Select).await?;
        let block = job.block(first, queries).await?;
        let few = few::fits(job, queries, kept);
        if few {
            job.ensure(Case::Search { keep: kept, queries }).await?;
            if few::block(job, &block, kept, &mut out).await? {
                first += queries;
                continue;
            }
        }
        let (keys, positions, width) = match fused && !few {
            true => {
                job.ensure(Case::Search { keep: kept, queries }).await?;
                fused_block(job, &block, kept).await?
            }
            false => {
                job.ensure(Case::Distance { queries }).await?;
                matrix_block(job, &block, kept).await?
            }
        };
        job.count_pass(queries);
        let mut read = job.rec.read(&[keys, positions]).await?.into_iter();
        let (Some(keys), Some(positions)) = (read.next(), read.next()) else { break };
        sort_into(&mut out, first, &keys, &positions, width);
        first += queries;
    }
    Ok(out)
}

/// Arguments of the fused kernel for some rows of a shard; the lists are not placed yet.
pub(super) fn arguments(
    job: &Job<'_>,
    shard: &Shard,
    block: &Block,
    keep: usize,
    rows: (usize, usize),
) -> search::Args {
    let tile = job.tile(shard, block, rows);
    search::Args { tile, keep: keep as u32, part_base: 0, parts_total: 1 }
}

/// Lists per query that one launch over `rows` rows writes.
fn parts(job: &Job<'_>, keep: usize, queries: usize, rows: usize) -> u32 {
    let tile = TileArgs {
        metric: job.metric(),
        dtype: job.dtype(),
        dim: job.dim(),
        row_begin: 0,
        row_end: rows as u32,
        q_begin: 0,
        q_end: queries as u32,
        position_base: 0,
        mask: None,
        mask_row_base: 0,
    };
    let args = search::Args { tile, keep: keep as u32, part_base: 0, parts_total: 1 };
    search::parts(&args, &job.caps("search"))
}

/// How many queries a block of a search has: what its lists, keys and queries leave room for.
fn queries_of_a_block(job: &Job<'_>, keep: usize, fused: bool) -> usize {
    let each = job.query_bytes() + keep as u64 * 12 * 2;
    block_queries(job.queries_at_a_time(), job.scratch, |q| {
        // The lists, what one round of merging writes included.
        let lists = match fused {
            true => Best::bytes(q as u64, keep as u64, u64::from(parts(job, keep, q, job.rows())) + 2),
            false => Best::bytes(q as u64, select::list_places(keep), 2) + matrix::tile_bytes(job.scratch),
        };
        lists + q as u64 * each
    })
}

/// Candidates of a block by the fused kernel: keys and positions `[queries, width]` in no order, and the width: `keep`,
/// maybe more.
async fn fused_block(job: &mut Job<'_>, block: &Block, keep: usize) -> Result<(Bind, Bind, usize), EngineError> {
    let queries = block.count as usize;
    let work = job.row_work(queries);
    let most = parts(job, keep, queries, job.rows()).max(1);
    let mut best: Option<Best> = None;
    let mut shards = job.shards();
    while let Some(shard) = job.next_shard(&mut shards).await? {
        let shard = &shard;
        let mut row = 0;
        while row < shard.rows {
            let caps = job.caps("search");
            let mut args = arguments(job, shard, block, keep, (row, shard.rows));
            let pipeline = job.pipeline(&search::record(&args, &caps))?;
            let fit = job.rec.fit(&pipeline, work, ROW_STEP).await? / ROW_STEP * ROW_STEP;
            let rows = fit.min(shard.rows - row);
            args.tile.row_end = (row + rows) as u32;
            let lists = search::parts(&args, &caps);
            let whole = rows == job.rows();
            let best = match &mut best {
                Some(best) => best,
                none => none.insert(Best::new(job, block.count, keep as u32, if whole { lists } else { most + 2 })?),
            };
            args.part_base = best.reserve(job, lists).await?;
            args.parts_total = best.capacity();
            let mut binds = job.inputs(shard, block, true);
            binds.extend(best.lists());
            job.rec.launch("search", &pipeline, search::record(&args, &caps), binds, work * rows as f64);
            row += rows;
        }
    }
    match best {
        Some(best) => match best.unmerged() {
            Some(lists) => Ok(lists),
            None => best.finish(job, keep as u32).await.map(|(keys, positions)| (keys, positions, keep)),
        },
        None => Err(EngineError::Mismatch("a base without rows".to_owned())),
    }
}

/// Candidates of a block by distances and selection in turn, for any `keep`: keys and positions, and `keep`.
async fn matrix_block(job: &mut Job<'_>, block: &Block, keep: usize) -> Result<(Bind, Bind, usize), EngineError> {
    let masked = block.mask.is_some();
    let mut best: Option<Best> = None;
    let mut tiles = Tiles::new(job, block)?;
    while let Some(tile) = tiles.next(job, block).await? {
        let best = match &mut best {
            Some(best) => best,
            none => none.insert(Best::of_tiles(job, block.count, keep, tile.rows as usize == job.rows())?),
        };
        let selection = Selection {
            stage: "select_k",
            segments: block.count,
            width: tile.rows,
            in_stride: tile.rows,
            out_stride: best.stride(),
            k: best.keep(),
            position_base: tile.first as u32,
            nan_is_missing: masked,
        };
        let list = best.reserve(job, 1).await?;
        select::record(job, &selection, (tile.keys, None), best.lists_from(list)).await?;
    }
    let best = best.ok_or_else(|| EngineError::Mismatch("a base without rows".to_owned()))?;
    best.finish(job, keep as u32).await.map(|(keys, positions)| (keys, positions, keep))
}

/// The direct keys of candidates `[queries, width]`.
pub(super) async fn refine_block(
    job: &mut Job<'_>,
    block: &Block,
    positions: Bind,
    width: usize,
) -> Result<Bind, EngineError> {
    let bytes = u64::from(block.count) * width as u64 * 4;
    let out = job.rec.scratch(bytes)?;
    let keys = Bind::first(&out, bytes);
    let target = keys.clone();
    let work = job.row_work(1) * width as f64;
    let caps = job.caps("refine");
    let mut shards = job.shards();
    while let Some(shard) = job.next_shard(&mut shards).await? {
        let shard = &shard;
        let mut query = 0;
        while query < block.count {
            let mut args = refine::Args {
                metric: job.metric(),
                dtype: job.dtype(),
                dim: job.dim(),
                q_begin: query,
                q_end: block.count,
                width: width as u32,
                position_base: shard.first as u32,
                rows: shard.rows as u32,
                first: shard.first == 0,
            };
            let pipeline = job.pipeline(&refine::record(&args, &caps))?;
            let queries = job.rec.fit(&pipeline, work, 1).await?.min((block.count - query) as usize) as u32;
            args.q_end = query + queries;
            let mut binds = job.inputs(shard, block, false);
            binds.extend([positions.clone(), target.clone()]);
            job.rec.launch("refine", &pipeline, refine::record(&args, &caps), binds, work * f64::from(queries));
            query += queries;
        }
    }
    Ok(keys)
}

/// The direct keys of given positions, in their places.
pub(super) async fn refine_given(
    job: &mut Job<'_>,
    positions: &[u32],
    width: usize,
) -> Result<Candidates, EngineError> {
    job.ensure(Case::Refine).await?;
    let mut out = Candidates::places(job.queries(), width)?;
    // A row of candidates that is too wide for the scratch goes in pieces.
    let piece = width.min((job.scratch / 32) as usize).max(1);
    let each = job.query_bytes() + piece as u64 * 16;
    let count = block_queries(job.queries(), job.scratch, |q| q as u64 * each);
    let mut first = 0;
    while first < job.queries() {
        let queries = count.min(job.queries() - first);
        let block = job.block(first, queries).await?;
        let mut keys = vec![0u32; queries * width];
        let mut column = 0;
        while column < width {
            let piece = piece.min(width - column);
            let packed: Vec<u32> = (first..first + queries)
                .flat_map(|q| positions[q * width + column..q * width + column + piece].iter().copied())
                .collect();
            let given = job.rec.upload(bytemuck::cast_slice(&packed))?;
            let found = refine_block(job, &block, Bind::first(&given, packed.len() as u64 * 4), piece).await?;
            let read = job.rec.read(&[found]).await?.pop().unwrap_or_default();
            for (target, source) in keys.chunks_mut(width).zip(read.chunks(piece)) {
                target[column..column + piece].copy_from_slice(source);
            }
            column += piece;
        }
        let given = &positions[first * width..(first + queries) * width];
        job.rec.stats.refined += given.iter().filter(|&&p| p != u32::MAX).count() as u64;
        for (place, (&key, &position)) in (first * width..).zip(keys.iter().zip(given)) {
            if position != u32::MAX {
                (out.keys[place], out.positions[place]) = (f32::from_bits(key), position);
            }
        }
        first += queries;
    }
    Ok(out)
}

/// A number that orders as (key, position) does; NaN after every key, places that are not filled after everything.
pub(super) fn rank(key: u32, position: u32) -> u64 {
    if position == u32::MAX {
        return u64::MAX;
    }
    let magnitude = key & 0x7fff_ffff;
    let sortable = match () {
        () if magnitude > 0x7f80_0000 => 0xffff_fffe,
        () if key >> 31 == 1 => !key,
        () => key | 0x8000_0000,
    };
    u64::from(sortable) << 32 | u64::from(position)
}

/// The key and the position of a rank.
pub(super) fn unrank(rank: u64) -> (f32, u32) {
    let (sortable, position) = ((rank >> 32) as u32, rank as u32);
    match sortable {
        u32::MAX => (f32::INFINITY, u32::MAX),
        0xffff_fffe => (f32::NAN, position),
        s if s >> 31 == 1 => (f32::from_bits(s & 0x7fff_ffff), position),
        s => (f32::from_bits(!s), position),
    }
}

/// Sorts the `width` candidates of each query and writes the best into the places from query `first` on.
pub(super) fn sort_into(out: &mut Candidates, first: usize, keys: &[u32], positions: &[u32], width: usize) {
    let (places, width) = (out.width, width.max(1));
    let share = share(keys.len() / width, width * 8);
    let targets = out.keys[first * places..].chunks_mut(share * places);
    let targets = targets.zip(out.positions[first * places..].chunks_mut(share * places));
    let sources = keys.chunks(share * width).zip(positions.chunks(share * width));
    in_threads(targets.zip(sources), |((out_keys, out_positions), (keys, positions))| {
        let targets = out_keys.chunks_mut(places).zip(out_positions.chunks_mut(places));
        let sources = keys.chunks(width).zip(positions.chunks(width));
        for ((out_keys, out_positions), (keys, positions)) in targets.zip(sources) {
            let mut ranks: Vec<u64> = keys.iter().zip(positions).map(|(&k, &p)| rank(k, p)).collect();
            write_sorted(&mut ranks, out_keys, out_positions);
        }
    });
}

/// Selects on the host among keys `[queries, width]`; a key counts where `allowed` says so.
pub(super) fn select_on_host(
    out: &mut Candidates,
    first: usize,
    keys: &[f32],
    width: usize,
    allowed: Option<&(dyn Fn(usize, usize) -> bool + Sync)>,
) {
    let (places, width) = (out.width, width.max(1));
    let share = share(keys.len() / width, width * 8);
    let targets = out.keys[first * places..].chunks_mut(share * places);
    let targets = targets.zip(out.positions[first * places..].chunks_mut(share * places));
    in_threads(targets.zip(keys.chunks(share * width)).enumerate(), |(part, ((out_keys, out_positions), keys))| {
        let targets = out_keys.chunks_mut(places).zip(out_positions.chunks_mut(places));
        for (q, ((out_keys, out_positions), keys)) in targets.zip(keys.chunks(width)).enumerate() {
            let q = first + part * share + q;
            let pairs = keys.iter().enumerate().filter(|&(i, _)| allowed.is_none_or(|allowed| allowed(q, i)));
            let mut ranks: Vec<u64> = pairs.map(|(i, key)| rank(key.to_bits(), i as u32)).collect();
            write_sorted(&mut ranks, out_keys, out_positions);
        }
    });
}

fn write_sorted(ranks: &mut [u64], keys: &mut [f32], positions: &mut [u32]) {
    let places = keys.len().min(ranks.len());
    if places > 0 && places < ranks.len() / 4 {
        ranks.select_nth_unstable(places - 1);
    }
    let Some(best) = (if places < ranks.len() / 4 { ranks.get_mut(..places) } else { Some(ranks) }) else { return };
    best.sort_unstable();
    for ((key, position), &rank) in keys.iter_mut().zip(positions).zip(best.iter()) {
        (*key, *position) = unrank(rank);
    }
}

/// The largest key of one query's candidates, if all of their places are filled.
pub(super) fn last_of(keys: &[u32], positions: &[u32]) -> Option<f32> {
    let last = keys.iter().zip(positions).map(|(&k, &p)| rank(k, p)).max()?;
    (last != u64::MAX).then(|| unrank(last).0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_keys_then_positions_nan_then_nothing() {
        let ordered = [
            (f32::NEG_INFINITY, 7),
            (-2.0, 1),
            (-1.0, 9),
            (-0.0, 4),
            (0.0, 3),
            (0.0, 5),
            (1.0, 0),
            (1.0, 1),
            (f32::INFINITY, 2),
            (f32::NAN, 0),
            (f32::INFINITY, u32::MAX),
        ];
        let ranks: Vec<u64> = ordered.iter().map(|&(k, p)| rank(k.to_bits(), p)).collect();
        assert!(ranks.windows(2).all(|w| w[0] < w[1]), "{ranks:x?}");
        for (&(key, position), &rank) in ordered.iter().zip(&ranks) {
            let (k, p) = unrank(rank);
            assert!(k.to_bits() == key.to_bits() || k.is_nan() && key.is_nan(), "{key} {k}");
            assert_eq!(p, position);
        }
    }
}
