//! `distance`: direct keys, block by block; `search`, `range` and `refine` build on them.

use std::ops::Range;

use super::{CpuEngine, Scratch};
use crate::compute::{EngineError, Mask, room};
use crate::ops::Compared;
use crate::simd::{Token, bits, convert, direct, direct::Picks};
use crate::stats::SearchStats;
use crate::types::{DType, MatrixView, Metric, RowsView};
use crate::with_narrow_rows;

/// Buffers of a worker that computes keys.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    keys: Vec<f32>,
    converted: Vec<f32>,
    allowed: Vec<u32>,
    /// Pairs that are being merged.
    pub pairs: Vec<u64>,
}

/// Bytes of rows in a block: small enough to stay in the first caches while several queries pass.
const BLOCK_BYTES: usize = 64 << 10;

/// From how many queries on a block of other types is converted to f32 once.
const CONVERT: usize = 4;

/// The direct pass over pairs.
#[derive(Clone, Copy)]
pub(super) struct Direct<'a> {
    token: Token,
    metric: Metric,
    rows: RowsView<'a>,
    queries: RowsView<'a>,
    norms: Option<&'a [f32]>,
    query_norms: &'a [f32],
}

impl<'a> Direct<'a> {
    pub fn new(token: Token, pairs: &Compared<'a>) -> Direct<'a> {
        let metric = pairs.metric;
        let (rows, norms) = (pairs.base.rows, pairs.base.norms);
        Direct { token, metric, rows, queries: pairs.queries, norms, query_norms: pairs.query_norms }
    }

    /// The length of a query, where lengths were given.
    pub fn query_norm(&self, query: usize) -> f32 {
        self.query_norms[query]
    }

    /// Computes the keys of `queries` against those of `rows` that the mask allows, if it is one for all, and gives
    /// them block by block to `each`: query, positions, keys.
    pub fn each_block(
        &self,
        rows: Range<usize>,
        queries: Range<usize>,
        mask: Option<Mask<'_>>,
        buffers: &mut Keys,
        mut each: impl FnMut(usize, Picks<'_>, &[f32]),
    ) {
        let row_bytes = self.rows.dtype().row_bytes(self.rows.dim());
        let block = (BLOCK_BYTES / row_bytes.max(1)).clamp(16, 1024);
        let mut allowed = std::mem::take(&mut buffers.allowed);
        for start in rows.clone().step_by(block) {
            let end = rows.end.min(start + block);
            let picks = picks(start..end, mask, &mut allowed);
            if picks.len() > 0 {
                self.block(picks, queries.clone(), buffers, &mut each);
            }
        }
        buffers.allowed = allowed;
    }

    fn block(
        &self,
        picks: Picks<'_>,
        queries: Range<usize>,
        buffers: &mut Keys,
        each: &mut impl FnMut(usize, Picks<'_>, &[f32]),
    ) {
        let (n, dim) = (picks.len(), self.rows.dim());
        let Keys { keys, converted, .. } = buffers;
        keys.resize(2 * n, 0.0);
        let convert = queries.len() >= CONVERT && !matches!(self.rows.dtype(), DType::F32 | DType::Bits);
        if queries.len() > 1 && self.rows.dtype() == DType::F32 {
            with_narrow_rows!(self.rows, m => convert::touch(self.token, m, picks));
        }
        let (rows, from) = if convert {
            converted.resize(n * dim, 0.0);
            with_narrow_rows!(self.rows, m => convert::rows(self.token, m, picks, converted));
            match MatrixView::new(converted, dim) {
                Ok(m) => (RowsView::F32(m), Picks::Run { start: 0, len: n }),
                Err(_) => return,
            }
        } else {
            (self.rows, picks)
        };
        let mut q = queries.start;
        while q < queries.end {
            // Two queries share each load of a row.
            let pair = q + 1 < queries.end && rows.dtype() == DType::F32;
            let (first, second) = keys.split_at_mut(n);
            if pair {
                self.pair(q, rows, from, [first, second]);
            } else {
                self.single(q, rows, from, first);
            }
            for (i, keys) in [first, second].into_iter().take(1 + usize::from(pair)).enumerate() {
                self.divide(q + i, picks, keys);
                each(q + i, picks, keys);
            }
            q += 1 + usize::from(pair);
        }
    }

    /// Keys of one query against the picked rows of the base.
    pub fn keys_of(&self, q: usize, picks: Picks<'_>, keys: &mut [f32]) {
        self.single(q, self.rows, picks, keys);
        self.divide(q, picks, keys);
    }

    /// Computes the keys of pairs of a query and a row, both f32.
    pub fn keys_of_pairs(&self, pairs: &[[u32; 2]], keys: &mut [f32]) {
        let (RowsView::F32(queries), RowsView::F32(rows)) = (self.queries, self.rows) else {
            return keys.fill(f32::NAN);
        };
        direct::pairs(self.token, self.metric, queries, rows, pairs, keys);
        if self.metric == Metric::Cosine {
            for (&[q, row], key) in pairs.iter().zip(keys) {
                self.divide(q as usize, Picks::List(&[row]), std::slice::from_mut(key));
            }
        }
    }

    fn single(&self, q: usize, rows: RowsView<'_>, picks: Picks<'_>, keys: &mut [f32]) {
        match (self.queries, rows) {
            (RowsView::Bits(queries), RowsView::Bits(rows)) => {
                bits::keys(self.token, self.metric, queries.row(q), rows.bytes(), picks, keys);
            }
            (RowsView::F32(queries), rows) => {
                with_narrow_rows!(rows, m => direct::keys(self.token, self.metric, [queries.row(q)], m, picks, [keys]));
            }
            // Other queries are refused before any work.
            _ => keys.fill(f32::NAN),
        }
    }

    fn pair(&self, q: usize, rows: RowsView<'_>, picks: Picks<'_>, keys: [&mut [f32]; 2]) {
        if let (RowsView::F32(queries), RowsView::F32(rows)) = (self.queries, rows) {
            direct::keys(self.token, self.metric, [queries.row(q), queries.row(q + 1)], rows, picks, keys);
        }
    }

    /// Cosine: inner products by both lengths.
    fn divide(&self, q: usize, picks: Picks<'_>, keys: &mut [f32]) {
        if self.metric != Metric::Cosine {
            return;
        }
        let (query_norm, norms) = (self.query_norms[q], self.norms.unwrap_or(&[]));
        for (i, key) in keys.iter_mut().enumerate() {
            let row_norm = norms[picks.at(i)];
            let zero = query_norm == 0.0 || row_norm == 0.0;
            // One after the other, as the product of the lengths may leave the range of f32.
            *key = if zero { 0.0 } else { *key / query_norm / row_norm };
        }
    }
}

/// The rows of a range that a mask for all queries allows; a mask for each query is left to the caller.
pub(super) fn picks<'a>(rows: Range<usize>, mask: Option<Mask<'_>>, allowed: &'a mut Vec<u32>) -> Picks<'a> {
    match mask {
        Some(mask) if mask.stride == 0 => {
            allowed.clear();
            allowed.extend(rows.filter(|&r| mask.allows(0, r)).map(|r| r as u32));
            Picks::List(allowed)
        }
        _ => Picks::Run { start: rows.start, len: rows.len() },
    }
}

/// The mask as one for all queries, where it is one or there is only one query; else as it is.
pub(super) fn shared(mask: Option<Mask<'_>>, queries: usize) -> Option<Mask<'_>> {
    mask.map(|m| if queries == 1 { Mask { words: m.words, stride: 0, tag: None } } else { m })
}

/// Whether a mask for each query allows this pair.
#[inline(always)]
pub(super) fn allows(mask: Option<Mask<'_>>, query: usize, row: usize) -> bool {
    mask.is_none_or(|m| m.stride == 0 || m.allows(query, row))
}

/// Rows that the mask allows: of one query if there is one mask for all.
pub(super) fn allowed_rows(mask: Option<Mask<'_>>, rows: usize) -> usize {
    match mask {
        Some(m) if m.stride == 0 => {
            let tail = rows % 32;
            let whole: usize = m.words[..rows / 32].iter().map(|w| w.count_ones() as usize).sum();
            whole + if tail == 0 { 0 } else { (m.words[rows / 32] & ((1 << tail) - 1)).count_ones() as usize }
        }
        _ => rows,
    }
}

/// A piece of the matrix: the same columns of some rows.
struct Piece<'a> {
    queries: Range<usize>,
    rows: Range<usize>,
    out: Vec<&'a mut [f32]>,
}

/// Cuts the matrix into pieces of at most `height` x `width`, column by column.
fn pieces(matrix: &mut [f32], n: usize, height: usize, width: usize) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    for (band, rows) in matrix.chunks_mut(n * height).enumerate() {
        let queries = band * height..band * height + rows.len() / n;
        let first = pieces.len();
        for start in (0..n).step_by(width) {
            let rows = start..n.min(start + width);
            pieces.push(Piece { queries: queries.clone(), rows, out: Vec::with_capacity(queries.len()) });
        }
        for row in rows.chunks_mut(n) {
            for (piece, part) in pieces[first..].iter_mut().zip(row.chunks_mut(width)) {
                piece.out.push(part);
            }
        }
    }
    pieces
}

impl CpuEngine {
    /// The matrix of all keys.
    pub(super) fn distance(&self, pairs: &Compared<'_>, stats: &mut SearchStats) -> Result<Vec<f32>, EngineError> {
        let (n, q, dim) = (pairs.base.rows.rows(), pairs.queries.rows(), pairs.base.rows.dim());
        room(q, n, 4)?;
        let mut matrix = vec![0.0; n * q];
        if n == 0 || q == 0 {
            return Ok(matrix);
        }
        let direct = Direct::new(self.token, pairs);
        let workers = self.workers(n * q * dim);
        let height = 64;
        let width = if workers == 1 { n } else { (n / (workers * 4)).clamp(256, 1 << 16) };
        let pieces = pieces(&mut matrix, n, height, width);
        let scratch = self.spread(
            workers,
            pieces.into_iter(),
            |_| {},
            |s: &mut Scratch, mut piece| {
                let (first, start) = (piece.queries.start, piece.rows.start);
                direct.each_block(piece.rows, piece.queries, None, &mut s.keys, |q, picks, keys| {
                    let at = picks.at(0) - start;
                    piece.out[q - first][at..at + keys.len()].copy_from_slice(keys);
                });
            },
        )?;
        self.keep(scratch);
        stats.bytes_read += (n * q.div_ceil(height) * pairs.base.rows.dtype().row_bytes(dim)) as u64;
        stats.scanned += (n * q) as u64;
        Ok(matrix)
    }
}
