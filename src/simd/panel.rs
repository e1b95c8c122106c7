//! Inner products of many queries with many rows, in register tiles, and the screen's lower bounds of them.
//!
//! Rows are packed into *panels*: `[components, PANEL rows]` in f32, so that a vector holds one component of as many
//! rows as it has lanes. Queries are packed into groups of up to `QUERIES`: `[components, group]`. A tile is one panel
//! times one group; its accumulators fill the registers, and each step loads one column of the panel and broadcasts
//! one component of each query. Long rows are cut into parts of at most [`PART`] components, so that a panel stays in
//! the second cache while all queries pass over it; the tile then continues in memory.
//!
//! A vector of rows is read once for all queries of the group, a number of a query once for all
//! vectors of the panel: so arithmetic bounds a tile, not reading. The scheme is that of matrix
//! products (Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication").

use std::ops::Range;

use bytemuck::{Pod, Zeroable};

use super::direct::Picks;
use super::{Lane, MAX_LANES, Simd, SimdKernel, Token, convert};
use crate::types::{MatrixView, Metric};

/// Most components of a part.
///
/// 1024 components of 64 rows are 256 KiB, all that [`CACHE`] grants.
const PART: usize = 1024;

/// Bytes of packed rows that should stay in the second cache of a core.
///
/// Cores have from 256 KiB (older) to 2 MiB (newer); the queries of a group need little beside.
const CACHE: usize = 256 << 10;

/// Most rows of a panel at any level: the bits of a mask.
const MAX_PANEL: usize = 64;

/// Most queries of a group at any level.
pub(crate) const MAX_GROUP: usize = 6;

/// A cache line; buffers of it are aligned, so that no vector load straddles two.
#[repr(C, align(64))]
#[derive(Clone, Copy, Pod, Zeroable)]
// 16 f32 are 64 bytes, as the alignment is, so there is no padding: what `Pod` asks, and its derive
// checks.
struct Line([f32; 16]);

/// f32 in aligned memory.
///
/// A `Vec<f32>` is aligned for one f32 only, and most 64-byte loads from it would straddle two lines.
#[derive(Default)]
struct Aligned(Vec<Line>);

impl Aligned {
    /// At least `len` f32, of any value.
    ///
    /// What is there stays, what is new is zero. Kernels write before they read, so the values do not
    /// matter.
    fn grow(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len.div_ceil(16) {
            self.0.resize(len.div_ceil(16), Line::zeroed());
        }
        &mut bytemuck::cast_slice_mut(&mut self.0)[..len]
    }
    /// Part of what was made by `grow`.
    fn get(&self, range: Range<usize>) -> &[f32] {
        &bytemuck::cast_slice(&self.0)[range]
    }
}

/// How a batch is tiled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tiling {
    /// Rows of a panel.
    pub panel: usize,
    /// Panels that are packed before the queries pass over them.
    pub panels: usize,
    /// Queries of a group.
    pub group: usize,
    /// Groups of the batch.
    pub groups: usize,
    /// Components of a row.
    dim: usize,
    /// Parts that rows are cut into.
    parts: usize,
}

impl Tiling {
    /// The tiling of a batch at a level.
    pub fn new(token: Token, dim: usize, queries: usize) -> Tiling {
        // The constants of a level, as a value.
        struct Shape;
        impl SimdKernel for Shape {
            type Output = (usize, usize);
            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> (usize, usize) {
                (S::PANEL, S::QUERIES)
            }
        }
        let (panel, most) = token.run(Shape);
        let groups = queries.div_ceil(most).max(1);
        let parts = dim.div_ceil(PART);
        // As many as the cache holds: short rows have many panels per pass of the queries, long ones
        // one.
        let panels = (CACHE / (panel * dim.div_ceil(parts) * 4)).max(1);
        // Groups of equal size waste least when there are few queries.
        Tiling { panel, panels, group: queries.div_ceil(groups).max(1), groups, dim, parts }
    }

    /// The components of each part.
    pub fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (dim, len) = (self.dim, self.dim.div_ceil(self.parts));
        (0..self.parts).map(move |i| i * len..dim.min((i + 1) * len))
    }

    /// f32 of a tile.
    fn tile(&self) -> usize {
        self.panel * self.group
    }
}

/// The queries of a batch, packed.
pub(crate) struct Queries {
    /// The tiling that they are packed for.
    tiling: Tiling,
    /// `[parts, groups, components of the part, group]`, zeros for queries that there are not.
    data: Vec<f32>,
}

impl Queries {
    /// Packs the queries of a batch once, for all rows.
    ///
    /// # Panics
    /// When the tiling is of another shape.
    pub fn pack(tiling: Tiling, queries: MatrixView<'_, f32>) -> Queries {
        assert!(queries.dim() == tiling.dim && queries.rows() <= tiling.group * tiling.groups);
        let mut data = Vec::with_capacity(tiling.group * tiling.groups * tiling.dim);
        for part in tiling.parts() {
            for group in 0..tiling.groups {
                for d in part.clone() {
                    for q in group * tiling.group..(group + 1) * tiling.group {
                        data.push(if q < queries.rows() { queries.row(q)[d] } else { 0.0 });
                    }
                }
            }
        }
        Queries { tiling, data }
    }

    /// One group's components of one part, `[components, group]`.
    fn group(&self, part: &Range<usize>, group: usize) -> &[f32] {
        let start = (part.start * self.tiling.groups + group * part.len()) * self.tiling.group;
        &self.data[start..start + part.len() * self.tiling.group]
    }
}

/// A worker's packed rows and tiles.
#[derive(Default)]
pub(crate) struct Panels {
    /// Packed rows: `tiling.panels` panels of one part.
    rows: Aligned,
    /// Products: one tile, or with several parts all tiles of the panels.
    tiles: Aligned,
}

/// What turns an inner product into a lower bound of the key: see `ops::search::lower_bound`.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    /// l2, inner product or cosine.
    pub metric: Metric,
    /// `ops::search::slack`: what rounding may make of an inner product, relative to both lengths.
    pub slack: f32,
}

/// A tile of lower bounds: the queries of one group against the rows of one panel.
pub(crate) struct Tile<'a> {
    /// `[group, panel]`: inner products, then lower bounds.
    bounds: &'a mut [f32],
    /// Rows of the panel, those that stand in for missing ones included.
    panel: usize,
}

impl Tile<'_> {
    /// Turns the inner products of the group's queries, whose lengths are `norms`, into lower bounds. Bit r of answer q
    /// is set where that of row r and query q is not above `thresholds[q]`. `row_norms` has a length for each row of
    /// the panel that there is.
    pub fn screen(
        &mut self,
        token: Token,
        bound: Bound,
        norms: &[f32],
        row_norms: &[f32],
        thresholds: &[f32],
    ) -> [u64; MAX_GROUP] {
        let panel = self.panel;
        token.run(Screen { bound, tile: self.bounds, panel, norms, row_norms, thresholds })
    }

    /// The bounds of query `q`.
    pub fn query(&self, q: usize) -> &[f32] {
        &self.bounds[q * self.panel..(q + 1) * self.panel]
    }
}

impl Panels {
    /// Multiplies the picked rows, at most `tiling.panels` panels of them, with all queries; `each` is given every
    /// tile with its panel and group.
    pub fn multiply<T: Lane>(
        &mut self,
        token: Token,
        queries: &Queries,
        rows: MatrixView<'_, T>,
        picks: Picks<'_>,
        mut each: impl FnMut(usize, usize, Tile<'_>),
    ) {
        let t = &queries.tiling;
        let panels = picks.len().div_ceil(t.panel);
        // With one part the tile is finished at once and its memory used again.
        let tiles = if t.parts == 1 { 1 } else { t.groups * panels };
        self.tiles.grow(tiles * t.tile());
        convert::touch(token, rows, picks);
        // Part by part: all panels are packed, then each group passes over them.
        for (i, part) in t.parts().enumerate() {
            // Whole vectors are transposed, so a few components more than the part has are written.
            let panel_len = part.len().next_multiple_of(MAX_LANES) * t.panel;
            let packed = self.rows.grow(panels * panel_len);
            for (p, panel) in packed.chunks_exact_mut(panel_len).enumerate() {
                let picks = picks.part(p * t.panel, picks.len().min((p + 1) * t.panel));
                token.run(Pack { rows, picks, part: part.clone(), panel });
            }
            // The group's queries stay in the first cache while the panels go by from the second.
            for group in 0..t.groups {
                for p in 0..panels {
                    // Later parts add to what earlier ones left in the tile.
                    let at = if t.parts == 1 { 0 } else { (group * panels + p) * t.tile() };
                    let tile = &mut self.tiles.grow(at + t.tile())[at..];
                    token.run(Multiply {
                        panel: self.rows.get(p * panel_len..(p + 1) * panel_len),
                        queries: queries.group(&part, group),
                        group: t.group,
                        add: i > 0,
                        tile,
                    });
                    if i + 1 == t.parts {
                        each(p, group, Tile { bounds: tile, panel: t.panel });
                    }
                }
            }
        }
    }
}

/// Packs one part of the picked rows into a panel; where there are fewer rows than lanes, the last is repeated.
///
/// The keys of repeated rows are computed and thrown away, so that tiles need no case for an
/// incomplete panel.
struct Pack<'a, T> {
    rows: MatrixView<'a, T>,
    picks: Picks<'a>,
    part: Range<usize>,
    panel: &'a mut [f32],
}

impl<T: Lane> SimdKernel for Pack<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // These are what the reads and writes below rest on. A part is rounded up to whole vectors of
        // components, as blocks are transposed whole; `multiply` makes room for MAX_LANES.
        let Pack { rows, picks, part, panel } = self;
        assert!(picks.len() <= S::PANEL && part.end <= rows.dim());
        assert!(panel.len() >= part.len().next_multiple_of(S::LANES) * S::PANEL);
        let mut r = 0;
        while r < S::PANEL && r < picks.len() {
            // Rows r .. r + LANES, each a pointer into a checked slice. Places beyond LANES stay null
            // and are not read.
            let mut from = [std::ptr::null::<T>(); MAX_LANES];
            for (i, from) in from.iter_mut().enumerate().take(S::LANES) {
                *from = rows.row(picks.at((r + i).min(picks.len() - 1)))[part.clone()].as_ptr();
            }
            let mut d = 0;
            // Square blocks of LANES rows times LANES components go through registers, row-major to
            // column-major.
            while d < part.len() {
                let n = S::LANES.min(part.len() - d);
                // SAFETY: each pointer begins a slice as long as the part, of which n components are left at d; a full
                // vector is read only where there is one, the rest from zero-filled copies. The panel has room for
                // whole vectors of components (asserted), each PANEL rows wide, and r + LANES <= PANEL.
                unsafe {
                    let to = panel.as_mut_ptr().add(d * S::PANEL + r);
                    if n == S::LANES {
                        s.transpose(&from, to, S::PANEL);
                        for from in from.iter_mut().take(S::LANES) {
                            // At most one past the slice, as n components were left.
                            *from = from.add(n);
                        }
                    } else {
                        // The last components: copied, as a whole vector could run past the end of
                        // the matrix.
                        let mut last = [[T::zeroed(); MAX_LANES]; MAX_LANES];
                        let mut block = [std::ptr::null::<T>(); MAX_LANES];
                        for i in 0..S::LANES {
                            std::ptr::copy_nonoverlapping(from[i], last[i].as_mut_ptr(), n);
                            block[i] = last[i].as_ptr();
                        }
                        s.transpose(&block, to, S::PANEL);
                    }
                }
                d += n;
            }
            r += S::LANES;
        }
    }
}

/// `tile[query][row] (+)= panel x queries`.
///
/// One panel times one group, over the components of one part.
struct Multiply<'a> {
    /// `[components, PANEL]`.
    panel: &'a [f32],
    /// `[components, group]`.
    queries: &'a [f32],
    group: usize,
    /// Whether the tile holds the sum of earlier parts.
    add: bool,
    tile: &'a mut [f32],
}

impl SimdKernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Constants of the level, so only one arm of each match is compiled to anything.
        match S::PANEL / S::LANES {
            1 => self.vectors::<S, 1>(s),
            2 => self.vectors::<S, 2>(s),
            _ => {
                assert!(S::PANEL == 4 * S::LANES);
                self.vectors::<S, 4>(s);
            }
        }
    }
}

impl Multiply<'_> {
    /// With the size of the group as a constant too, so that accumulators are registers.
    #[inline(always)]
    fn vectors<S: Simd, const V: usize>(self, s: S) {
        // Known when compiled: for other V the function is empty, and no tile is made for it.
        if S::PANEL != V * S::LANES {
            return;
        }
        match self.group {
            1 => self.tile::<S, V, 1>(s),
            2 => self.tile::<S, V, 2>(s),
            3 => self.tile::<S, V, 3>(s),
            4 => self.tile::<S, V, 4>(s),
            5 => self.tile::<S, V, 5>(s),
            _ => self.tile::<S, V, 6>(s),
        }
    }

    /// The register tile: V vectors of rows times Q queries.
    ///
    /// Per component V loads, Q broadcasts and V Q multiply-adds. Sums are in the order of
    /// components, one chain per pair; the slack covers any order.
    #[inline(always)]
    fn tile<S: Simd, const V: usize, const Q: usize>(self, s: S) {
        // `len` is rounded down, so `len` times Q numbers are there whatever the length.
        let width = V * S::LANES;
        let len = self.queries.len() / Q;
        assert!(self.group == Q && self.panel.len() >= len * width && self.tile.len() >= Q * width);
        let mut acc = [[s.splat(0.0); V]; Q];
        // Pointers, not indices: the loop then has two additions and no bounds checks.
        let (mut row, mut query) = (self.panel.as_ptr(), self.queries.as_ptr());
        for _ in 0..len {
            // SAFETY: the panel holds `len` columns of V vectors and the queries `len` times Q numbers (asserted); the
            // pointers advance by as much, `len` times.
            unsafe {
                let mut x = [s.splat(0.0); V];
                for v in 0..V {
                    x[v] = s.load(row.add(v * S::LANES));
                }
                for q in 0..Q {
                    let w = s.splat(*query.add(q));
                    for v in 0..V {
                        acc[q][v] = s.fma(x[v], w, acc[q][v]);
                    }
                }
                // After the last step both point one past the end at most.
                row = row.add(width);
                query = query.add(Q);
            }
        }
        for q in 0..Q {
            for v in 0..V {
                // SAFETY: the tile holds Q times V vectors (asserted).
                unsafe {
                    let to = self.tile.as_mut_ptr().add(q * width + v * S::LANES);
                    // Read only where it was written before.
                    let before = if self.add { s.load(to) } else { s.splat(0.0) };
                    s.store(to, s.add(before, acc[q][v]));
                }
            }
        }
    }
}

/// The arguments of [`Tile::screen`].
struct Screen<'a> {
    bound: Bound,
    tile: &'a mut [f32],
    panel: usize,
    norms: &'a [f32],
    row_norms: &'a [f32],
    thresholds: &'a [f32],
}

impl SimdKernel for Screen<'_> {
    type Output = [u64; MAX_GROUP];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [u64; MAX_GROUP] {
        // One norm per query of the group that there is, one threshold each; a missing one panics at
        // its index.
        let rows = self.row_norms.len();
        assert!(self.panel == S::PANEL && rows <= self.panel && self.tile.len() >= self.norms.len() * self.panel);
        let mut masks = [0; MAX_GROUP];
        for (q, mask) in masks.iter_mut().enumerate().take(self.norms.len()) {
            let (norm, threshold) = (self.norms[q], s.splat(self.thresholds[q]));
            // In place: products are read, bounds written, and compared while they are in a register.
            for i in (0..rows).step_by(S::LANES) {
                // SAFETY: i + LANES <= PANEL, and the tile has PANEL bounds per query (asserted); of the norms a full
                // vector is read only where there is one.
                unsafe {
                    let norms = self.row_norms.as_ptr().add(i);
                    let row_norm = if i + S::LANES <= rows { s.load(norms) } else { s.load_part(norms, rows - i) };
                    let at = self.tile.as_mut_ptr().add(q * S::PANEL + i);
                    let bound = self.bound.vector(s, s.load(at), norm, row_norm);
                    s.store(at, bound);
                    *mask |= u64::from(s.not_above(bound, threshold)) << i;
                }
            }
            // Rows that stand in for missing ones are no hits. `1 << 64` would overflow, and nothing
            // is missing then.
            if rows < MAX_PANEL {
                *mask &= (1 << rows) - 1;
            }
        }
        masks
    }
}

impl Bound {
    /// `lower_bound` of a vector of rows: the same operations in the same order, so the same roundings.
    ///
    /// So no multiply-add is fused here.
    #[inline(always)]
    fn vector<S: Simd>(self, s: S, dot: S::F, norm: f32, row_norm: S::F) -> S::F {
        let zero = s.splat(0.0);
        match self.metric {
            Metric::L2 => {
                // (|q|^2 + |x|^2) (1 - e) - 2 <q, x>; doubling is exact.
                let squares = s.add(s.splat(norm * norm), s.mul(row_norm, row_norm));
                s.sub(s.mul(squares, s.splat(1.0 - self.slack)), s.add(dot, dot))
            }
            // -<q, x> - e |q| |x|.
            Metric::InnerProduct => s.sub(s.sub(zero, dot), s.mul(s.splat(self.slack * norm), row_norm)),
            _ => {
                // -<q, x> / (|q| |x|) - e, and 0 with a zero vector: the key that the direct pass
                // gives it.
                let norms = s.mul(s.splat(norm), row_norm);
                let bound = s.sub(s.div(s.sub(zero, dot), norms), s.splat(self.slack));
                s.if_above(norms, zero, bound, zero)
            }
        }
    }
}
