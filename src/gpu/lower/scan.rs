//! `scan`: lists cut into items, one workgroup per item; what the items of a query keep lies side by side and is selected
//! from, in rounds where the scratch does not hold all of it.
//!
//! Items are sorted by list, so that a list that many queries want is read from a cache for all but the first of them.
//! Lists lie on the device, or, where the budget does not hold them, those that are probed come from the host in chunks.

use std::sync::Arc;

use super::search::{rank, sort_into, unrank};
use super::select::{self, Selection};
use super::{CHUNK_BYTES, Job, block_queries};
use crate::compute::{Candidates, EngineError};
use crate::gpu::case::Case;
use crate::gpu::listed::{self, ListShard, Piece, pieces};
use crate::gpu::memory::{Buffer, ROWS};
use crate::gpu::submit::Bind;
use crate::gpu::upload::Upload;
use crate::ops::scan::Listed;
use crate::ops::scan::{self, ITEM_QUERIES, ITEM_ROWS, Layout, Wanting};

/// Up to so many places are merged by the host, sooner than another kernel would start.
const FEW_PLACES: usize = 8192;

/// The `keep` smallest keys of each query in the lists probed for it, and their slots.
pub(super) async fn run(job: &mut Job<'_>, listed: Listed<'_>, keep: usize) -> Result<Candidates, EngineError> {
    let mut out = Candidates::places(job.queries(), keep)?;
    let reach: Vec<Reach> = (0..job.queries()).map(|q| Reach::of(&listed, q)).collect();
    let most = reach.iter().fold(Reach::default(), |a, b| a.max(*b));
    let kept = keep.min(most.rows as usize);
    if kept == 0 {
        return Ok(out);
    }
    let shards = job.residents.place_lists(job.machine, &listed, job.scratch, job.rec.stats).await?;
    let scan = Scan::new(job, listed, shards, kept, most)?;
    let mut first = 0;
    while first < job.queries() {
        let count = scan.count.min(job.queries() - first);
        scan.block(job, &reach, (first, count), &mut out).await?;
        first += count;
    }
    Ok(out)
}

/// What is probed for a query.
#[derive(Clone, Copy, Default)]
struct Reach {
    rows: u64,
    /// Pieces of lists.
    parts: u32,
    /// Rows of the largest piece.
    piece: u32,
}

impl Reach {
    fn of(listed: &Listed<'_>, q: usize) -> Reach {
        let mut reach = Reach::default();
        let width = listed.probes.width;
        for &list in listed.probes.lists[q * width..(q + 1) * width].iter().filter(|&&l| l != u32::MAX) {
            let rows = listed.lists.lists[list as usize].len() as u64;
            reach.rows += rows;
            reach.parts += rows.div_ceil(u64::from(ITEM_ROWS)) as u32;
            reach.piece = reach.piece.max(rows.min(u64::from(ITEM_ROWS)) as u32);
        }
        reach
    }

    fn max(self, other: Reach) -> Reach {
        Reach {
            rows: self.rows.max(other.rows),
            parts: self.parts.max(other.parts),
            piece: self.piece.max(other.piece),
        }
    }
}

/// A query of a block that wants a list.
#[derive(Clone, Copy)]
struct Pair {
    list: u32,
    query: u32,
    offset: f32,
}

/// Where the words of a span's items are.
enum Place {
    Shard(usize),
    /// To be brought from the host; so many slots.
    Chunk(Vec<Piece>, u32),
}

/// Items whose rows lie in one buffer.
struct Span {
    items: std::ops::Range<u32>,
    place: Place,
}

/// The work list of a round.
struct Work {
    words: Vec<u32>,
    spans: Vec<Span>,
    /// Pairs of a row and a query, rows of items rounded up.
    pairs: u64,
}

/// Parts `from..from + parts` of each query, and where their places are.
#[derive(Clone, Copy)]
struct Round {
    from: u32,
    parts: u32,
    /// Places of a query before those of its parts: what earlier rounds have left.
    head: usize,
}

/// Where the scan's lists are and how much of it is done at a time.
struct Scan<'a> {
    listed: Listed<'a>,
    layout: Layout,
    shards: Option<Vec<ListShard>>,
    /// Buffers for lists that are streamed, and slots that each holds.
    chunks: Vec<Arc<Buffer>>,
    chunk_slots: u32,
    keep: usize,
    /// So many are kept that only the host has room for them: all keys go there.
    on_host: bool,
    places: usize,
    /// Queries of a block.
    count: usize,
    /// Most parts of a query in a round.
    parts: u32,
}

impl<'a> Scan<'a> {
    fn new(
        job: &Job<'_>,
        listed: Listed<'a>,
        shards: Option<Vec<ListShard>>,
        keep: usize,
        most: Reach,
    ) -> Result<Scan<'a>, EngineError> {
        let layout = Layout::of(listed.lists);
        let on_host = keep as u64 * 64 > job.scratch;
        let places = if on_host { most.piece as usize } else { scan::places(keep, most.piece) as usize };
        // Keys and slots, as much again for what selection has in between, and the items at their longest.
        let part = places as u64 * 16 + 80;
        let each = layout.query_units() as u64 * 16 + job.mask_bytes() + 8 + keep as u64 * 24;
        let count = if on_host { 1 } else { job.queries() };
        let count = block_queries(count, job.scratch, |q| q as u64 * (each + part * u64::from(most.parts)));
        let room = if on_host { job.scratch } else { job.scratch.saturating_sub(count as u64 * each) };
        let parts = (room / (count as u64 * part)).clamp(1, u64::from(most.parts)) as u32;
        let count = if on_host { 1 } else { count };
        let mut scan =
            Scan { listed, layout, shards, chunks: Vec::new(), chunk_slots: 0, keep, on_host, places, count, parts };
        if scan.shards.is_none() {
            scan.make_chunks(job)?;
        }
        Ok(scan)
    }

    /// Two chunk buffers, as large as the budget allows beside scratch and what is staged.
    fn make_chunks(&mut self, job: &Job<'_>) -> Result<(), EngineError> {
        let limit = job.machine.memory.limit();
        let bytes = CHUNK_BYTES.min(limit.saturating_sub(job.scratch) / 5);
        let slots = bytes / 4 / self.layout.row_words() as u64;
        let most = u64::from(listed::most_slots(job.machine, &self.layout));
        self.chunk_slots = slots.clamp(u64::from(ITEM_ROWS), most) as u32;
        let bytes = listed::bytes_of(&self.layout, u64::from(self.chunk_slots));
        job.residents.make_room(job.machine, 4 * bytes + job.scratch);
        let chunk = || job.machine.memory.buffer(&job.machine.context, "nearfield.chunk", bytes, ROWS).map(Arc::new);
        self.chunks = vec![chunk()?, chunk()?];
        Ok(())
    }

    /// Queries `first..first + count`.
    async fn block(
        &self,
        job: &mut Job<'_>,
        reach: &[Reach],
        (first, count): (usize, usize),
        out: &mut Candidates,
    ) -> Result<(), EngineError> {
        let reach = &reach[first..first + count];
        let parts = reach.iter().map(|r| r.parts).max().unwrap_or(0);
        if parts == 0 {
            return Ok(());
        }
        let pairs = self.pairs(first, count);
        let lists = 1 + pairs.windows(2).filter(|w| w[0].list != w[1].list).count();
        let single = pairs.len() < 2 * lists;
        job.ensure(Case::Scan { form: self.layout.form, single }).await?;
        if !self.on_host {
            job.ensure(Case::Select).await?;
        }
        let mut of_queries = Vec::with_capacity(count * 4 * self.layout.query_units());
        for q in first..first + count {
            self.layout.push_query(self.listed.queries, q, &mut of_queries);
        }
        let of_queries = job.rec.upload(bytemuck::cast_slice(&of_queries))?;
        let mask = job.mask(first, count)?;
        let limits = Bind::first(&job.rec.scratch(count as u64 * 4)?, count as u64 * 4);
        job.rec.clear(limits.clone());

        let rounds = parts.div_ceil(self.parts);
        let head = if rounds > 1 && !self.on_host { self.keep } else { 0 };
        let stride = head + parts.min(self.parts) as usize * self.places;
        let bytes = (count * stride) as u64 * 4;
        let results = || -> Result<[Bind; 2], EngineError> {
            Ok([Bind::first(&job.rec.scratch(bytes)?, bytes), Bind::first(&job.rec.scratch(bytes)?, bytes)])
        };
        let mut now = results()?;
        let mut other = if head > 0 { Some(results()?) } else { None };
        let mut ranks: Vec<u64> = Vec::new();
        for round in 0..rounds {
            let from = round * self.parts;
            let head = if round == 0 { 0 } else { head };
            let at = Round { from, parts: self.parts.min(parts - from), head };
            let work = self.work(&pairs, reach, at, stride, single);
            let binds = [
                mask.as_ref().map_or_else(|| Bind::whole(&job.dummy), |(bits, _)| Bind::whole(bits)),
                Bind::whole(&of_queries),
                Bind::whole(&job.rec.upload(bytemuck::cast_slice(&work.words))?),
                limits.clone(),
                now[0].clone(),
                now[1].clone(),
            ];
            self.launch(job, &work, single, mask.as_ref().map(|m| m.1), &binds).await?;
            let filled = at.head + at.parts as usize * self.places;
            if self.on_host {
                let mut read = job.rec.read(&now).await?.into_iter();
                let (Some(keys), Some(slots)) = (read.next(), read.next()) else { break };
                let filled = keys.iter().zip(&slots).take(filled).filter(|(_, slot)| **slot != u32::MAX);
                ranks.extend(filled.map(|(&key, &slot)| rank(key, slot)));
            } else if round + 1 < rounds {
                let Some(next) = other.take() else { break };
                self.select(job, (count, filled, stride), &now, &next, stride).await?;
                other = Some(std::mem::replace(&mut now, next));
                // What is under way uses the buffers in the order of submission.
                job.rec.flush().await?;
            } else {
                self.finish(job, (count, filled, stride), &now, first, out).await?;
            }
        }
        if self.on_host {
            write_best(out, first, ranks);
        }
        let rows: u64 = reach.iter().map(|r| r.rows).sum();
        job.rec.stats.scanned += rows;
        job.rec.stats.bytes_read += rows * self.layout.row_words() as u64 * 4;
        Ok(())
    }

    /// Records the selection of the best of `filled` places per query.
    async fn select(
        &self,
        job: &mut Job<'_>,
        (count, filled, stride): (usize, usize, usize),
        [keys, slots]: &[Bind; 2],
        out: &[Bind; 2],
        out_stride: usize,
    ) -> Result<(), EngineError> {
        let selection = Selection {
            stage: "merge",
            segments: count as u32,
            width: filled as u32,
            in_stride: stride as u32,
            out_stride: out_stride as u32,
            k: self.keep as u32,
            position_base: 0,
            nan_is_missing: false,
        };
        select::record(job, &selection, (keys.clone(), Some(slots.clone())), out.clone()).await
    }

    /// Reads the best of a block back, selecting them first where they are not few.
    async fn finish(
        &self,
        job: &mut Job<'_>,
        (count, filled, stride): (usize, usize, usize),
        now: &[Bind; 2],
        first: usize,
        out: &mut Candidates,
    ) -> Result<(), EngineError> {
        let few = filled == stride && count * stride <= FEW_PLACES;
        let (found, width) = if few || filled <= self.keep && filled == stride {
            (now.clone(), stride)
        } else {
            let bytes = (count * self.keep) as u64 * 4;
            let best = [job.rec.scratch(bytes)?, job.rec.scratch(bytes)?].map(|b| Bind::first(&b, bytes));
            self.select(job, (count, filled, stride), now, &best, self.keep).await?;
            (best, self.keep)
        };
        let mut read = job.rec.read(&found).await?.into_iter();
        let (Some(keys), Some(slots)) = (read.next(), read.next()) else { return Ok(()) };
        sort_into(out, first, &keys, &slots, width);
        Ok(())
    }

    /// Who wants which list, in the order of lists.
    fn pairs(&self, first: usize, count: usize) -> Vec<Pair> {
        let (width, probes) = (self.listed.probes.width, &self.listed.probes);
        let wanted = |i: &usize| probes.lists[*i] != u32::MAX;
        // Counted, then placed: lists in their order, and the queries of a list in theirs.
        let mut next = vec![0u32; self.listed.lists.lists.len() + 1];
        for i in (first * width..(first + count) * width).filter(wanted) {
            next[probes.lists[i] as usize + 1] += 1;
        }
        for i in 1..next.len() {
            next[i] += next[i - 1];
        }
        let all = next.last().map_or(0, |&n| n as usize);
        let mut pairs = vec![Pair { list: 0, query: 0, offset: 0.0 }; all];
        for i in (first * width..(first + count) * width).filter(wanted) {
            let place = &mut next[probes.lists[i] as usize];
            let query = (i / width - first) as u32;
            pairs[*place as usize] = Pair { list: probes.lists[i], query, offset: probes.offsets[i] };
            *place += 1;
        }
        pairs
    }

    /// The items of a round: every part of every query in it, and empty ones for queries that have fewer parts.
    fn work(&self, pairs: &[Pair], reach: &[Reach], at: Round, stride: usize, single: bool) -> Work {
        let together = if single { 1 } else { ITEM_QUERIES as usize };
        let mut work = Work { words: Vec::new(), spans: Vec::new(), pairs: 0 };
        let mut next = vec![0u32; reach.len()];
        let to = |q: u32, part: u32| (q as usize * stride + at.head + (part - at.from) as usize * self.places) as u32;
        let mut items = 0;
        let mut wanting: Vec<Wanting> = Vec::new();
        for pairs in pairs.chunk_by(|a, b| a.list == b.list) {
            let list = pairs[0].list;
            for piece in pieces(list, self.listed.lists.lists[list as usize].len()) {
                wanting.clear();
                for pair in pairs {
                    let part = next[pair.query as usize];
                    next[pair.query as usize] += 1;
                    if (at.from..at.from + at.parts).contains(&part) {
                        wanting.push(Wanting { query: pair.query, offset: pair.offset, to: to(pair.query, part) });
                    }
                }
                if wanting.is_empty() {
                    continue;
                }
                let slot = self.listed.lists.starts[list as usize] + piece.place;
                let local = self.place(&mut work.spans, piece, slot, items);
                for wanting in wanting.chunks(together) {
                    scan::push_item(local, slot, piece.rows, wanting, single, &mut work.words);
                    items += 1;
                    work.pairs += u64::from(piece.rows.next_multiple_of(256)) * together as u64;
                }
                if let Some(span) = work.spans.last_mut() {
                    span.items.end = items;
                }
            }
        }
        wanting.clear();
        for (q, reach) in reach.iter().enumerate() {
            for part in reach.parts.max(at.from)..at.from + at.parts {
                wanting.push(Wanting { query: q as u32, offset: 0.0, to: to(q as u32, part) });
            }
        }
        for wanting in wanting.chunks(together) {
            scan::push_item(0, 0, 0, wanting, single, &mut work.words);
            items += 1;
        }
        if let Some(span) = work.spans.last_mut() {
            span.items.end = items;
        }
        work
    }

    /// Where a piece lies in the buffer of the last span; begins another span where it lies in none so far.
    fn place(&self, spans: &mut Vec<Span>, piece: Piece, slot: u32, items: u32) -> u32 {
        if let Some(shards) = &self.shards {
            let shard = shards.partition_point(|s| s.end <= slot);
            if !matches!(spans.last(), Some(Span { place: Place::Shard(s), .. }) if *s == shard) {
                spans.push(Span { items: items..items, place: Place::Shard(shard) });
            }
            return slot - shards.get(shard).map_or(0, |s| s.first);
        }
        if let Some(Span { place: Place::Chunk(chunk, slots), .. }) = spans.last_mut()
            && *slots + piece.slots() <= self.chunk_slots
        {
            chunk.push(piece);
            *slots += piece.slots();
            return *slots - piece.slots();
        }
        spans.push(Span { items: items..items, place: Place::Chunk(vec![piece], piece.slots()) });
        0
    }

    /// Records the launches of a round, in slices that a command buffer may have.
    async fn launch(
        &self,
        job: &mut Job<'_>,
        work: &Work,
        single: bool,
        mask: Option<u32>,
        binds: &[Bind; 6],
    ) -> Result<(), EngineError> {
        let caps = job.caps("scan");
        let items = work.spans.last().map_or(0, |s| s.items.end).max(1);
        let each =
            work.pairs as f64 / f64::from(items) * (self.layout.form.padded(self.layout.dim) as f64 / 2.0 + 16.0);
        let piece = 4 * u64::from(self.chunk_slots) * self.layout.row_words() as u64;
        let mut upload = self.shards.is_none().then(|| Upload::new(job.machine, piece.next_multiple_of(16) + 64));
        let mut packed = Vec::new();
        for (i, span) in work.spans.iter().enumerate() {
            let words = match (&span.place, &self.shards, &mut upload) {
                (Place::Shard(shard), Some(shards), _) => match shards.get(*shard) {
                    Some(shard) => shard.words.clone(),
                    None => return Err(EngineError::Mismatch("a list without a place".to_owned())),
                },
                (Place::Chunk(chunk, _), _, Some(upload)) => {
                    packed.clear();
                    for &piece in chunk {
                        listed::pack(&self.layout, self.listed.lists, piece, &mut packed);
                    }
                    let buffer = self.chunks[i % self.chunks.len()].clone();
                    upload.write(&buffer, 0, bytemuck::cast_slice(&packed)).await?;
                    upload.send().await?;
                    job.rec.stats.chunks_uploaded += 1;
                    buffer
                }
                _ => return Err(EngineError::Mismatch("a list without a place".to_owned())),
            };
            let mut from = span.items.start;
            while from < span.items.end {
                let mut args = scan::Args {
                    layout: self.layout,
                    metric: job.metric(),
                    single,
                    items: from..span.items.end,
                    keep: self.keep.min(self.places) as u32,
                    places: self.places as u32,
                    mask,
                };
                let pipeline = job.pipeline(&scan::record(&args, &caps))?;
                let fit = job.rec.fit(&pipeline, each, 1).await?.min((span.items.end - from) as usize) as u32;
                args.items.end = from + fit;
                let all = [&[Bind::whole(&words)], binds.as_slice()].concat();
                job.rec.launch("scan", &pipeline, scan::record(&args, &caps), all, each * f64::from(fit));
                from += fit;
            }
            if upload.is_some() {
                // The next chunk but one overwrites this buffer, in the order of submission.
                job.rec.flush().await?;
            }
        }
        match upload {
            Some(upload) => upload.finish(job.rec.stats).await,
            None => Ok(()),
        }
    }
}

/// Sorts what the host has of one query into its places.
fn write_best(out: &mut Candidates, query: usize, mut ranks: Vec<u64>) {
    ranks.sort_unstable();
    let places = query * out.width..(query + 1) * out.width;
    for ((key, slot), rank) in out.keys[places.clone()].iter_mut().zip(&mut out.positions[places]).zip(ranks) {
        (*key, *slot) = unrank(rank);
    }
}
