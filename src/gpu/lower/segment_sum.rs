//! `segment_sum`: pieces of segments in one pass over the rows; the host adds up what pieces gave, in f64.

use super::{Job, ROW_STEP};
use crate::compute::{EngineError, Output, room};
use crate::gpu::case::Case;
use crate::gpu::submit::Bind;
use crate::ops::segment_sum::{self, PIECE_ROWS, Sizes, pieces};

/// Sums of rows by label.
pub(super) async fn run(job: &mut Job<'_>, s: Sizes, labels: &[u32]) -> Result<Output, EngineError> {
    job.ensure(Case::SegmentSum).await?;
    room(s.segments, s.dim, 8)?;
    let mut sums = vec![0.0f64; s.segments * s.dim];
    let width = s.dim.next_multiple_of(4);
    // A piece's sum lies in scratch twice: where the kernel writes it and where the host reads it.
    let most = (job.scratch / 4 / (width as u64 * 4)).clamp(1, u64::from(u32::MAX / PIECE_ROWS)) as usize;
    let mut shards = job.shards();
    while let Some(shard) = job.next_shard(&mut shards).await? {
        let labels = labels.get(shard.first..shard.first + shard.rows);
        let labels = labels.ok_or_else(|| EngineError::Mismatch("fewer labels than rows".to_owned()))?;
        let sorted = pieces(labels, s.segments)?;
        for some in sorted.pieces.chunks(most) {
            // The places of these pieces lie together.
            let (Some(first), Some(last)) = (some.first(), some.last()) else { continue };
            let (begin, end) = (first.1, last.2);
            let order = job.rec.upload(bytemuck::cast_slice(&sorted.order[begin as usize..end as usize]))?;
            let spans: Vec<[u32; 2]> = some.iter().map(|piece| [piece.1 - begin, piece.2 - begin]).collect();
            let spans = job.rec.upload(bytemuck::cast_slice(&spans))?;
            let bytes = (some.len() * width) as u64 * 4;
            let out = Bind::first(&job.rec.scratch(bytes)?, bytes);
            let work = width as f64 * f64::from(PIECE_ROWS);
            let mut piece = 0;
            while piece < some.len() {
                let caps = job.caps("segment_sum");
                let mut args =
                    segment_sum::Args { dim: s.dim, piece_begin: piece as u32, piece_end: some.len() as u32 };
                let pipeline = job.pipeline(&segment_sum::record(&args, &caps))?;
                let count = job.rec.fit(&pipeline, work, ROW_STEP).await?.min(some.len() - piece);
                args.piece_end = (piece + count) as u32;
                let binds = vec![job.rows_of(&shard), Bind::whole(&order), Bind::whole(&spans), out.clone()];
                let launch = segment_sum::record(&args, &caps);
                job.rec.launch("segment_sum", &pipeline, launch, binds, work * count as f64);
                piece += count;
            }
            let read = job.rec.read(&[out]).await?.pop().unwrap_or_default();
            for (&(segment, ..), piece) in some.iter().zip(read.chunks_exact(width)) {
                let sums = &mut sums[segment as usize * s.dim..(segment as usize + 1) * s.dim];
                sums.iter_mut().zip(piece).for_each(|(sum, &bits)| *sum += f64::from(f32::from_bits(bits)));
            }
        }
    }
    job.rec.stats.bytes_read += (s.rows * s.dim * 4) as u64;
    Ok(Output::Matrix(sums.into_iter().map(|sum| sum as f32).collect()))
}
