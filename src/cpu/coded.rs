//! `search` behind 8-bit codes.
//!
//! One pass over the codes estimates all keys. It keeps for each query the `k` rows with the smallest estimates, and for
//! each panel of rows the least bound. The direct keys of those `k` rows give a threshold that needs no proof: they are
//! keys of rows. Then only the panels with a bound that is not above it are examined again, row by row. Rows that the
//! bound does not exclude, the candidates, get their direct keys. The answer is exact; where the bounds exclude nothing,
//! this is the plain scan. Where exact keys decide afterwards, the threshold is as much higher as f32 may be wrong, and rows
//! that are nearly as near take the places behind the `k`.

use std::ops::Range;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use super::distance::{Direct, allowed_rows, shared};
use super::select_k::{TopK, each_bit, fill, pack, unpack};
use super::{CpuEngine, Scratch};
use crate::compute::{Candidates, EngineError, Mask};
use crate::ops::search::Wanted;
use crate::ops::{Coded, Compared, Extent};
use crate::simd::Token;
use crate::simd::bytes::{self, Least, MAX_PANEL, Queries, TOGETHER};
use crate::simd::direct::Picks;
use crate::stats::SearchStats;

/// Bytes that the least bounds of a pass may take, and those of its lists.
const BOUND_BYTES: usize = 40 << 20;
const LIST_BYTES: usize = 16 << 20;

/// Most panels, or neighbouring panels together, that have least bounds of their own.
const MOST_SPANS: usize = 1 << 15;

/// Queries of a pass at most: their codes and terms should stay in the second cache.
const MOST_QUERIES: usize = 1024;

/// Suspects whose direct keys are computed at a time.
const AT_A_TIME: usize = 64;

/// Thresholds that workers share, so that each profits from the results of the others.
struct Shared(Vec<AtomicU32>);

impl Shared {
    fn new(queries: usize) -> Shared {
        Shared((0..queries).map(|_| AtomicU32::new(u32::MAX)).collect())
    }

    /// Makes each threshold the smaller of both.
    fn meet(&self, thresholds: &mut [f32]) {
        for (shared, own) in self.0.iter().zip(thresholds) {
            let mine = (pack(*own, 0) >> 32) as u32;
            let least = shared.fetch_min(mine, Ordering::Relaxed).min(mine);
            if least < mine {
                *own = unpack(u64::from(least) << 32).0;
            }
        }
    }
}

/// One pass of some queries over all codes.
struct Pass<'a> {
    token: Token,
    coded: Coded<'a>,
    /// Rows that a mask for all queries leaves, or all.
    picks: Picks<'a>,
    /// What is left to check row by row.
    mask: Option<Mask<'a>>,
    queries: Range<usize>,
    packed: Queries<'a>,
    shared: Shared,
    /// Rows of a span: those that share a least bound.
    span: usize,
    k: usize,
    /// Places of a list, at least `k`.
    width: usize,
    wanted: Option<Wanted>,
    extent: Extent,
}

impl CpuEngine {
    /// The `width` nearest rows of each query by direct keys, with a number that no row left out falls below; or those `k`
    /// that are wanted of them, and rows that are nearly as near.
    pub(super) fn search_coded(
        &self,
        pairs: &Compared<'_>,
        coded: Coded<'_>,
        width: usize,
        wanted: Option<Wanted>,
        stats: &mut SearchStats,
    ) -> Result<Candidates, EngineError> {
        let (n, q) = (pairs.base.rows.rows(), pairs.queries.rows());
        let mut out = Candidates::places(q, width)?;
        out.bound = vec![f32::INFINITY; q];
        let mask = shared(pairs.mask, q);
        let left = allowed_rows(mask, n);
        if left == 0 || q == 0 || width == 0 {
            return Ok(out);
        }
        // A list of rows where a mask leaves few; else rows are checked as they are found.
        let listed: Vec<u32> = match mask {
            Some(mask) if mask.stride == 0 && left < n / 2 => {
                let mut listed = Vec::with_capacity(left);
                for (i, &word) in mask.words[..n.div_ceil(32)].iter().enumerate() {
                    each_bit(word.into(), |bit| listed.push((i * 32 + bit) as u32));
                }
                listed.retain(|&row| (row as usize) < n);
                listed
            }
            _ => Vec::new(),
        };
        let (picks, mask) = match listed.len() {
            0 => (Picks::Run { start: 0, len: n }, mask),
            _ => (Picks::List(&listed), None),
        };
        let span = picks.len().div_ceil(MOST_SPANS).next_multiple_of(MAX_PANEL);
        let spans = picks.len().div_ceil(span);
        let extent = pairs.extent();
        let wanted = wanted.filter(|_| pairs.query_norms.len() == q);
        let k = wanted.map_or(width, |wanted| wanted.k).clamp(1, width).min(n);
        let width = width.min(n);
        let batch = (LIST_BYTES / (16 * k * self.threads)).min(BOUND_BYTES / (16 * spans)).clamp(1, MOST_QUERIES);
        for first in (0..q).step_by(batch) {
            let queries = first..q.min(first + batch);
            let packed = Queries::pack(self.token, coded.queries, queries.clone());
            let shared = Shared::new(queries.len());
            let token = self.token;
            let pass = Pass { token, coded, picks, mask, queries, packed, shared, span, k, width, wanted, extent };
            self.pass(pairs, &pass, &mut out, stats)?;
        }
        stats.add_kernel(self.kernel("search+int8"));
        stats.add_kernel(self.kernel("refine"));
        Ok(out)
    }

    fn pass(
        &self,
        pairs: &Compared<'_>,
        pass: &Pass<'_>,
        out: &mut Candidates,
        stats: &mut SearchStats,
    ) -> Result<(), EngineError> {
        let (queries, dim) = (pass.queries.len(), pass.coded.codes.dim);
        let began = Instant::now();
        let spans = pass.picks.len().div_ceil(pass.span);
        let kept = || self.bounds.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = std::mem::take(&mut *kept());
        let across = queries.next_multiple_of(TOGETHER);
        if buffer.len() < spans * across {
            buffer.resize(spans * across, [0.0; 4]);
        }
        let least = &mut buffer[..spans * across];
        let workers = self.workers(pass.picks.len() * queries * dim / 4);
        let chunk = spans.div_ceil(if workers == 1 { 1 } else { 16 * workers });
        let reset = |s: &mut Scratch| s.reset_lists(queries, pass.k);
        let chunks = least.chunks_mut(chunk * across).enumerate();
        let scratch = self.spread(workers, chunks, reset, |s, (i, least)| pass.estimate(s, i * chunk, least))?;
        stats.add_stage("search", began.elapsed(), false);
        let began = Instant::now();
        let least = Bounds { places: least, across, chunk };
        let decided = self.decide(pairs, pass, &scratch, &least, out)?;
        stats.add_stage("refine", began.elapsed(), false);
        *kept() = buffer;
        self.keep(scratch);
        let rows = &pairs.base.rows;
        stats.refined += decided as u64;
        stats.bytes_read += (pass.picks.len() * (dim + 16) + decided * rows.dtype().row_bytes(rows.dim())) as u64;
        stats.scanned += (pass.picks.len() * queries) as u64;
        Ok(())
    }

    /// The nearest of each query from the smallest estimates and the least bounds; gives how many direct keys that took.
    fn decide(
        &self,
        pairs: &Compared<'_>,
        pass: &Pass<'_>,
        scratch: &[Scratch],
        least: &Bounds<'_>,
        out: &mut Candidates,
    ) -> Result<usize, EngineError> {
        let (width, Range { start: first, end }) = (out.width, pass.queries.clone());
        let direct = Direct::new(self.token, pairs);
        let keys = out.keys[first * width..end * width].chunks_mut(TOGETHER * width);
        let positions = out.positions[first * width..end * width].chunks_mut(TOGETHER * width);
        let places = keys.zip(positions).zip(out.bound[first..end].chunks_mut(TOGETHER)).enumerate();
        let work = (end - first) * 2 * pass.k * pairs.base.rows.dim() + least.places.len();
        let decided = self.spread(
            self.workers(work),
            places,
            |s| s.refined = 0,
            |mine, (group, ((keys, positions), bounds))| {
                let queries = group * TOGETHER..group * TOGETHER + bounds.len();
                let Scratch { decisions, refined, looks, .. } = mine;
                decisions.resize_with(TOGETHER, Decision::default);
                for (q, decision) in queries.clone().zip(&mut *decisions) {
                    decision.begin(&direct, pass, q, scratch.iter().map(|s| &s.lists[q]));
                }
                let mut limits = [0.0; 4 * TOGETHER];
                limits.chunks_mut(4).zip(&*decisions).for_each(|(four, d)| four.fill(d.threshold));
                looks.clear();
                for (span, least) in least.of(group).enumerate() {
                    each_bit(bytes::not_above(self.token, least, &limits), |bit| {
                        let (query, fourth) = (bit / 4, bit % 4);
                        // Places behind the last query hold anything.
                        if query < queries.len() && !decisions[query].complete && !decisions[query].given_up {
                            looks.push(Look { query, span, fourth });
                        }
                    });
                    if looks.len() >= LOOKS {
                        pass.look(&direct, queries.start, decisions, looks);
                    }
                }
                pass.look(&direct, queries.start, decisions, looks);
                for (q, decision) in queries.zip(&mut *decisions) {
                    decision.compute(&direct, pass, q);
                }
                let places = keys.chunks_mut(width).zip(positions.chunks_mut(width)).zip(bounds);
                for (((keys, positions), bound), decision) in places.zip(decisions) {
                    *refined += decision.computed;
                    // Nothing is known then of the rows not examined.
                    *bound = if decision.given_up { f32::NEG_INFINITY } else { decision.threshold.next_up() };
                    let found = pass.width;
                    fill(&mut decision.best, &mut keys[..found], &mut positions[..found]);
                }
            },
        )?;
        let refined = decided.iter().map(|s| s.refined).sum();
        self.keep(decided);
        Ok(refined)
    }
}

/// The least bounds of a pass: chunks of spans, in each the groups of queries, in each the spans.
struct Bounds<'a> {
    places: &'a [[f32; 4]],
    /// Queries, rounded up to whole groups.
    across: usize,
    /// Spans of a chunk.
    chunk: usize,
}

impl Bounds<'_> {
    /// Those of one group, span by span.
    fn of(&self, group: usize) -> impl Iterator<Item = &[f32; 4 * TOGETHER]> {
        self.places.chunks(self.chunk * self.across).flat_map(move |chunk| {
            let spans = chunk.len() / self.across;
            let group = &chunk[group * spans * TOGETHER..(group + 1) * spans * TOGETHER];
            group.as_flattened().as_chunks().0
        })
    }
}

/// Candidates of a query: a fourth of each panel of a span.
#[derive(Debug)]
pub(crate) struct Look {
    query: usize,
    span: usize,
    fourth: usize,
}

/// How many looks ahead codes are asked for.
const LOOK_AHEAD: usize = 4;

/// Looks that are collected before they are taken.
const LOOKS: usize = 4096;

/// A query that has to compute more than one in so many keys is given up: another screen, or none, is faster then.
const MOST_KEYS: usize = 8;

impl Pass<'_> {
    /// The rows of one panel that a look is at.
    fn rows_of(&self, look: &Look, panel: usize) -> ([u32; MAX_PANEL / 4], usize) {
        let start = look.span * self.span + panel * MAX_PANEL;
        let end = self.picks.len().min(start + MAX_PANEL);
        let (mut rows, mut count) = ([0; MAX_PANEL / 4], 0);
        for pick in (start + look.fourth..end).step_by(4) {
            rows[count] = self.picks.at(pick) as u32;
            count += 1;
        }
        (rows, count)
    }

    /// Takes all looks of a group of queries, the first of which is `first`.
    fn look(&self, direct: &Direct<'_>, first: usize, decisions: &mut [Decision], looks: &mut Vec<Look>) {
        for i in 0..looks.len() {
            if let Some(soon) = looks.get(i + LOOK_AHEAD) {
                let (rows, count) = self.rows_of(soon, 0);
                bytes::prefetch(self.token, self.coded.codes, &rows[..count]);
            }
            let look = &looks[i];
            decisions[look.query].look(direct, self, first + look.query, look);
        }
        looks.clear();
    }

    /// Whether a row may be returned for a query of the pass.
    fn allows(&self, q: usize, row: usize) -> bool {
        self.mask.is_none_or(|mask| mask.allows(self.queries.start + q, row))
    }

    /// Estimates all keys of some spans; `least` gets their least bounds.
    fn estimate(&self, s: &mut Scratch, first: usize, least: &mut [[f32; 4]]) {
        let Scratch { lists, thresholds, bytes, lower, .. } = s;
        let (codes, across) = (self.coded.codes, self.queries.len().next_multiple_of(TOGETHER));
        self.shared.meet(thresholds);
        let spans = least.len() / across;
        for i in 0..spans {
            // Span by span, so that they are still in the cache when they are lowered.
            for block in (i..least.len() / TOGETHER).step_by(spans) {
                least[block * TOGETHER..(block + 1) * TOGETHER].fill([f32::INFINITY; 4]);
            }
            let (span, places) = (first + i, &mut least[i * TOGETHER..]);
            let rows = span * self.span..self.picks.len().min((span + 1) * self.span);
            for start in rows.clone().step_by(MAX_PANEL) {
                let panel = self.picks.part(start, rows.end.min(start + MAX_PANEL));
                let least = Least { places, stride: spans * TOGETHER };
                // What a panel finds lowers the thresholds of the next.
                bytes::screen(&self.packed, codes, panel, thresholds, least, bytes, |q, pick, estimate| {
                    let row = panel.at(pick);
                    if self.allows(q, row) && lists[q].push(estimate, row as u32) {
                        lower.push((q, lists[q].threshold()));
                    }
                });
                for (q, threshold) in lower.drain(..) {
                    thresholds[q] = thresholds[q].min(threshold);
                }
            }
        }
        self.shared.meet(thresholds);
    }
}

/// What is known of the answer to one query.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    /// The smallest pairs of direct key and position, as many as there are places, and maybe more.
    best: Vec<u64>,
    /// The k-th key, or what is added to it lest the wanted rows be left out.
    threshold: f32,
    /// Rows whose keys were computed first, in order.
    promising: Vec<u32>,
    positions: Vec<u32>,
    keys: Vec<f32>,
    computed: usize,
    given_up: bool,
    /// Whether fewer rows than asked for may be returned at all: then they were all found by their estimates.
    complete: bool,
}

impl Decision {
    /// The direct keys of the rows with the smallest estimates.
    fn begin<'a>(&mut self, direct: &Direct<'_>, pass: &Pass<'_>, q: usize, lists: impl Iterator<Item = &'a TopK>) {
        (self.threshold, self.computed, self.given_up) = (f32::INFINITY, 0, false);
        self.best.clear();
        lists.for_each(|list| self.best.extend_from_slice(list.pairs()));
        if self.best.len() > pass.k {
            self.best.select_nth_unstable(pass.k - 1);
            self.best.truncate(pass.k);
        }
        self.positions.clear();
        self.positions.extend(self.best.iter().map(|&pair| unpack(pair).1));
        self.positions.sort_unstable();
        self.promising.clone_from(&self.positions);
        // No list was ever full then, so none has left a row out.
        self.complete = self.positions.len() < pass.k;
        self.best.clear();
        self.compute(direct, pass, q);
    }

    /// Takes the rows that their bounds do not exclude.
    fn look(&mut self, direct: &Direct<'_>, pass: &Pass<'_>, q: usize, look: &Look) {
        if self.given_up {
            return;
        }
        let coded = pass.coded;
        let query = pass.queries.start + q;
        let code = (coded.queries.query(query), &coded.queries.terms[query]);
        for panel in 0..pass.span / MAX_PANEL {
            let (rows, count) = pass.rows_of(look, panel);
            let Decision { positions, promising, threshold, .. } = self;
            bytes::not_excluded(pass.token, code, coded.codes, Picks::List(&rows[..count]), *threshold, |pick| {
                let row = rows[pick];
                if pass.allows(q, row as usize) && promising.binary_search(&row).is_err() {
                    positions.push(row);
                }
            });
            if self.positions.len() >= AT_A_TIME {
                self.compute(direct, pass, q);
            }
        }
    }

    /// The direct keys of `positions`, and the threshold that follows.
    fn compute(&mut self, direct: &Direct<'_>, pass: &Pass<'_>, q: usize) {
        let Decision { best, threshold, positions, keys, computed, given_up, .. } = self;
        if positions.is_empty() {
            return;
        }
        keys.resize(positions.len(), 0.0);
        direct.keys_of(pass.queries.start + q, Picks::List(positions), keys);
        *computed += positions.len();
        *given_up = *computed > 1024 + pass.k + pass.picks.len() / MOST_KEYS;
        let before = best.len();
        best.extend(keys.iter().zip(&*positions).filter(|&(key, _)| key <= threshold).map(|(&key, &p)| pack(key, p)));
        if best.len() >= pass.k && best.len() > before {
            best.select_nth_unstable(pass.k - 1);
            let last = unpack(best[pass.k - 1]).0;
            *threshold = match pass.wanted {
                Some(wanted) => wanted.limit(&pass.extent, last, direct.query_norm(pass.queries.start + q)),
                None => last,
            };
            if best.len() > pass.width {
                best.select_nth_unstable(pass.width - 1);
                best.truncate(pass.width);
            }
        }
        positions.clear();
    }
}
