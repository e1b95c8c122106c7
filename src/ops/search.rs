//! `search`: distance and local selection in one pass; no `[q, n]` matrix anywhere.
//!
//! Shapes: queries `[q, dim]`, rows `[n, dim]`, optional bitmap, out `[q, keep]` pairs (key f32, position u32), smallest
//! (key, position) first, +inf and `u32::MAX` where there are fewer rows than places.
//! The key is the metric's (error: [`metric::tolerance`](super::metric::tolerance)); behind a screen ([`screened`]) it is a
//! lower bound that never exceeds the key that the direct pass computes.

pub mod few;
pub mod screened;

use std::fmt;
use std::str::FromStr;

use super::codes::{Codes, GROUP, MOST_DIM, QueryCodes};
use super::source::lib;
use super::tile::{Shape, TileArgs};
use super::{
    Access, Binding, Cost, Define, DeviceCaps, Extent, Kernel, Launch, Mask, Op, Pairs, Program, Refine, SelectK,
    Variant, distance, metric, mismatch,
};
use crate::compute::{EngineError, Frame, Tag, Type, Value};
use crate::types::{DType, Metric, RowsView};

/// The most candidates per query that the fused kernel keeps; beyond, `Distance` and `SelectK` do it.
pub const MAX_KEEP: u32 = 128;

/// The cheap pass in front of the direct one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Screen {
    /// No screen: the direct pass sees every row.
    #[default]
    None,
    /// f32 inner products and norms (l2 by expansion), with the bound of `docs/numerics.md`.
    F32,
    /// f16 inner products of the rows as they are, on matrix units where the device has them; an engine without f16
    /// arithmetic takes f32 instead.
    F16,
    /// 8-bit codes of each row's part in the principal subspace of the data ([`crate::ops::codes`]).
    Int8,
}

impl fmt::Display for Screen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Screen::None => "none",
            Screen::F32 => "f32",
            Screen::F16 => "f16",
            Screen::Int8 => "int8",
        })
    }
}

/// A screen that is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown screen `{found}`; there are none, f32, f16, int8")]
pub struct UnknownScreen {
    /// What was given.
    pub found: String,
}

impl FromStr for Screen {
    type Err = UnknownScreen;

    fn from_str(text: &str) -> Result<Screen, UnknownScreen> {
        let all = [Screen::None, Screen::F32, Screen::F16, Screen::Int8];
        all.into_iter().find(|s| s.to_string() == text).ok_or_else(|| UnknownScreen { found: text.to_owned() })
    }
}

/// The `keep` rows with the smallest key, or lower bound of it, of each query. Behind [`Screen::Int8`] and
/// [`Screen::F16`] an engine may give more or fewer, with the bound that says what it left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// Queries and rows.
    pub pairs: Pairs,
    /// What computes the keys.
    pub screen: Screen,
    /// Candidates kept per query, at least 1.
    pub keep: usize,
    /// Codes of rows and of queries, for [`Screen::Int8`].
    pub codes: Option<[Value; 2]>,
    /// What is decided afterwards, where more rows are found than that.
    pub wanted: Option<Wanted>,
}

/// The neighbours that are chosen at last, by exact keys, of rows that are found by f32 keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wanted {
    /// Neighbours per query.
    pub k: usize,
    /// The largest length of a row.
    pub longest: f32,
}

impl Wanted {
    /// A key of f32 above which no row can be as near as the one with this key, whatever the rounding of both.
    pub fn limit(&self, extent: &Extent, key: f32, query_norm: f32) -> f32 {
        let [norm, longest] = [query_norm, self.longest].map(f64::from);
        let error = metric::tolerance(extent.metric, extent.dtype, extent.dim, f64::from(key), norm, longest);
        // An exact key lies within twice the error of each, and the larger key has the larger error.
        (f64::from(key) + 4.5 * error) as f32
    }
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "search(screen {}, keep {})", self.screen, self.keep)
    }
}

impl Define for Search {
    const NAME: &'static str = "search";

    fn operands(&self, each: &mut dyn FnMut(Value)) {
        self.pairs.operands(each);
        self.codes.into_iter().flatten().for_each(each);
    }

    fn check(&self, program: &Program) -> Result<Type, EngineError> {
        let Extent { metric, dtype, rows, queries, .. } = self.pairs.check(program)?;
        if self.screen != Screen::None && queries > 0 {
            if !screens(metric) || dtype == DType::Bits {
                return Err(mismatch(format!("no screen of {} for {metric} on {dtype} rows", self.screen)));
            }
            // Codes have the lengths in them.
            if self.screen != Screen::Int8 && !self.pairs.has_norms(program) {
                return Err(mismatch(format!("a screen of {} needs the lengths of rows and queries", self.screen)));
            }
        }
        match (self.screen, self.codes) {
            (Screen::Int8, Some(codes)) => check_codes(program, codes, rows, queries)?,
            (Screen::Int8, None) => return Err(mismatch("a screen of int8 needs codes of rows and queries")),
            (Screen::None | Screen::F32 | Screen::F16, _) => {}
        }
        Ok(Type::Candidates { queries, width: self.keep })
    }

    fn examine(&self, frame: &Frame<'_>) -> Result<(), EngineError> {
        match (self.screen, self.codes) {
            (Screen::Int8, Some(codes)) => examine_codes(frame, codes),
            _ => Ok(()),
        }
    }

    fn cost(&self, program: &Program) -> Cost {
        let Ok(extent) = self.pairs.extent(program) else { return Cost::default() };
        let of_rows = cost(&extent, self.screen, self.keep);
        match self.codes.map(|[codes, _]| program.ty(codes)) {
            // Codes have fewer components than rows where a part of them is kept.
            Some(Ok(&Type::Codes { rows, dim })) if self.screen == Screen::Int8 => Cost {
                bytes_read: rows as f64 * (dim as f64 + 16.0) + extent.queries as f64 * (dim as f64 + 20.0),
                operations: (rows * extent.queries) as f64 * (2.0 * dim as f64 + 4.0),
                ..of_rows
            },
            _ => of_rows,
        }
    }
}

/// Codes of rows and queries in a run.
#[derive(Clone, Copy, Debug)]
pub struct Coded<'a> {
    /// One code per row.
    pub codes: &'a Codes,
    /// A name for the codes, by which an engine may keep a copy of them beside or instead of the rows.
    pub tag: &'a Tag,
    /// The queries in the same code.
    pub queries: &'a QueryCodes,
}

impl<'a> Coded<'a> {
    /// Those of a run.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] where a value is something else.
    pub fn of(frame: &'a Frame<'_>, [codes, queries]: [Value; 2]) -> Result<Coded<'a>, EngineError> {
        let ((codes, tag), queries) = (frame.codes(codes)?, frame.query_codes(queries)?);
        Ok(Coded { codes, tag, queries })
    }
}

/// Whether codes are those of so many rows and queries.
pub(super) fn check_codes(
    program: &Program,
    [codes, of_queries]: [Value; 2],
    rows: usize,
    queries: usize,
) -> Result<(), EngineError> {
    match (program.ty(codes)?, program.ty(of_queries)?) {
        (&Type::Codes { rows: n, dim }, &Type::QueryCodes { queries: q, dim: other })
            if n == rows && q == queries && dim == other && dim <= MOST_DIM && dim > 0 && dim.is_multiple_of(16) =>
        {
            Ok(())
        }
        (codes, of_queries) => Err(mismatch(format!("{codes} and {of_queries} for {rows} rows and {queries} queries"))),
    }
}

/// Whether codes have all their numbers.
pub(super) fn examine_codes(frame: &Frame<'_>, [codes, queries]: [Value; 2]) -> Result<(), EngineError> {
    let ((codes, _), queries) = (frame.codes(codes)?, frame.query_codes(queries)?);
    let (rows, dim) = (codes.rows(), codes.dim);
    let checks = [
        ("squares of codes", codes.square.len(), rows),
        ("residuals of codes", codes.residual.len(), rows),
        ("tails of codes", codes.tail.len(), rows),
        ("lengths of groups of codes", codes.longest.len(), rows.div_ceil(GROUP)),
        ("bytes of codes, at least", codes.bytes.len().min(rows * dim), rows * dim),
        ("bytes of queries' codes", queries.bytes.len(), queries.terms.len() * dim),
    ];
    match checks.into_iter().find(|(_, found, wanted)| found != wanted) {
        Some((what, found, wanted)) => Err(mismatch(format!("{what}: found {found}, wanted {wanted}"))),
        None => Ok(()),
    }
}

/// What follows a search and may be run with it: the direct keys of its candidates and the choice of the best, where
/// nothing else uses what is in between.
#[derive(Clone, Copy, Debug)]
pub struct Chain {
    /// The last of these operations' results.
    pub result: Value,
    /// Whether candidates are refined.
    pub refined: bool,
    /// How many of them are chosen, where they are.
    pub k: Option<usize>,
    /// Results in between, which nobody else wants.
    pub within: [Option<Value>; 2],
}

impl Chain {
    /// What follows the search that gives `result`, by its operands: `refine` over the same vectors, then `select_k`.
    pub fn after(program: &Program, result: Value, pairs: &Pairs) -> Chain {
        let mut chain = Chain { result, refined: false, k: None, within: [None; 2] };
        if let Some((next, Op::Refine(refine))) = program.only_user(chain.result)
            && refine.pairs.same_vectors(pairs)
            && refine.candidates == chain.result
        {
            // Refined candidates that are not chosen from are wanted in their places.
            if let Some((last, Op::SelectK(select))) = program.only_user(next) {
                let within = [Some(result), Some(next)];
                chain = Chain { result: last, refined: true, k: Some(select.k), within };
            }
        } else if let Some((last, Op::SelectK(select))) = program.only_user(chain.result) {
            chain = Chain { result: last, refined: false, k: Some(select.k), within: [Some(result), None] };
        }
        chain
    }
}

/// Adds the search for the k nearest rows of each query. With a screen a few more candidates are kept than asked for, so
/// that the bound can prove that no other row belongs among the k; they are refined and the best chosen.
///
/// # Errors
/// [`EngineError::Mismatch`] when the operands do not fit together.
pub fn nearest(
    program: &mut Program,
    pairs: Pairs,
    codes: Option<[Value; 2]>,
    k: usize,
    screen: Screen,
) -> Result<Value, EngineError> {
    let keep = kept(k, screen, pairs.extent(program)?.rows);
    chosen(program, Search { pairs, screen, keep, codes, wanted: None }, k)
}

/// Adds a search, and what refines its candidates and chooses the best `k` of them where it has a screen.
///
/// # Errors
/// [`EngineError::Mismatch`] when the operands do not fit together.
pub fn chosen(program: &mut Program, search: Search, k: usize) -> Result<Value, EngineError> {
    let Search { pairs, screen, codes, .. } = search;
    let candidates = program.push(Search { codes: codes.filter(|_| screen == Screen::Int8), ..search })?;
    if screen == Screen::None {
        return Ok(candidates);
    }
    let refined = program.push(Refine { pairs, candidates })?;
    program.push(SelectK { from: refined, k })
}

/// How many candidates a search for `k` rows keeps.
pub fn kept(k: usize, screen: Screen, rows: usize) -> usize {
    let spare = match screen {
        Screen::None => return k,
        Screen::F32 => (k / 4).max(8),
        Screen::F16 | Screen::Int8 => k.max(118),
    };
    k.saturating_add(spare).min(rows.max(1))
}

crate::tile_params! {
    /// What `shaders/search.wgsl` reads.
    Params {
        /// Places of a part.
        keep: u32,
        /// The first part that this launch writes.
        part_base: u32,
        /// Parts of a query.
        parts_total: u32,
    }
}

/// What one launch searches.
#[derive(Clone, Copy, Debug)]
pub struct Args {
    /// Which queries and rows.
    pub tile: TileArgs,
    /// Places of a part, at most [`MAX_KEEP`].
    pub keep: u32,
    /// The first of the [`parts`] that this launch writes.
    pub part_base: u32,
    /// Parts of a query in the result, those of other launches (shards, slices) included.
    pub parts_total: u32,
}

/// Queries of a tile times `K`, the most places of a part: what workgroup memory has room for.
const PLACES: u32 = 1024;

static SEARCH: Kernel = Kernel {
    verb: "search",
    entry: "search",
    wgsl: include_str!("../../shaders/search.wgsl"),
    libs: &[lib::ROWS, lib::MATH, lib::ORDER, lib::METRIC, lib::LOAD, lib::TILE, lib::HEAP],
    pairs: &[lib::CLAIM],
    bindings: &[
        distance::ROWS,
        distance::QUERIES,
        distance::ROW_NORMS,
        distance::QUERY_NORMS,
        distance::MASK,
        Binding { name: "out_keys", ty: "array<u32>", access: Access::ReadWrite },
        Binding { name: "out_positions", ty: "array<u32>", access: Access::ReadWrite },
    ],
    params: Params::FIELDS,
    variants: &[Variant::PLAIN, Variant::SUBGROUPS],
    shapes: &[
        &[("TX", 8.0), ("TY", 8.0), ("TD", 16.0), ("K", 32.0)],
        &[("TX", 16.0), ("TY", 4.0), ("TD", 16.0), ("K", 64.0)],
        &[("TX", 32.0), ("TY", 2.0), ("TD", 8.0), ("K", 128.0)],
    ],
    overrides: &[("METRIC", distance::METRIC_CODES), ("DTYPE", distance::DTYPE_CODES)],
};

/// How many shapes the fused kernel has.
pub(super) fn shapes() -> usize {
    SEARCH.shapes.len()
}

/// The shape that was tuned, where the lists of its queries fit.
fn tuned(keep: u32, caps: &DeviceCaps) -> Option<Shape> {
    let shape = Shape::listed(SEARCH.shapes.get(usize::from(caps.tuning.search?))?)?;
    (PLACES / shape.queries() >= keep).then_some(shape)
}

/// Few places leave room for many queries per workgroup, which then read a row together.
fn shape(queries: u32, keep: u32, caps: &DeviceCaps) -> Shape {
    if let Some(shape) = tuned(keep, caps) {
        return shape;
    }
    match PLACES / keep.clamp(1, MAX_KEEP) {
        fit if fit >= 32 && queries > 16 => Shape { tx: 8, ty: 8, td: 16 },
        fit if fit >= 16 && queries > 8 => Shape { tx: 16, ty: 4, td: 16 },
        _ => Shape { tx: 32, ty: 2, td: 8 },
    }
}

/// How many parts per query one launch writes: workgroups that share the rows.
pub fn parts(args: &Args, caps: &DeviceCaps) -> u32 {
    let (queries, rows) = (args.tile.q_end - args.tile.q_begin, args.tile.row_end - args.tile.row_begin);
    shape(queries, args.keep, caps).walkers(rows, queries, caps.tuning.groups, 8, caps)
}

/// The entry points of `shaders/search.wgsl` and of the files in `shaders/search/`.
pub fn kernels() -> Vec<&'static Kernel> {
    [vec![&SEARCH], few::kernels(), screened::kernels()].concat()
}

/// One launch: workgroup `w` of the [`parts`] that share rows `row_begin..row_end` writes its `keep` smallest, in no
/// order, at `(q * parts_total + part_base + w) * keep` of both results, q counted from the first bound query.
/// Buffers: rows, queries, row norms and query norms (read by cosine), mask (read when there is one),
/// keys, positions.
pub fn record(args: &Args, caps: &DeviceCaps) -> Launch {
    let queries = args.tile.q_end - args.tile.q_begin;
    let shape = shape(queries, args.keep, caps);
    let params =
        Params { keep: args.keep, part_base: args.part_base, parts_total: args.parts_total, ..Params::of(&args.tile) };
    let mut constants = distance::constants(shape, args.tile.metric, args.tile.dtype);
    constants.push(("K", (PLACES / shape.queries()).min(MAX_KEEP).into()));
    Launch {
        kernel: &SEARCH,
        variant: Variant { subgroups: caps.subgroups },
        constants,
        params: bytemuck::bytes_of(&params).to_vec(),
        groups: shape.groups(queries, parts(args, caps), caps),
    }
}

/// Whether the f32 screen exists for a metric: those that an inner product decides.
pub fn screens(metric: Metric) -> bool {
    matches!(metric, Metric::L2 | Metric::InnerProduct | Metric::Cosine)
}

/// The slack of the f32 screen, relative to the norms: `2 (dim + 24) u`, u = 2^-24. Covers the rounding of the dot
/// product in any order of summation, of norms and expansion, and of a direct pass that sums in at least four lanes
/// (`docs/numerics.md`). Holds while every length is 0 or [in range](norm_in_range).
pub fn slack(dim: usize) -> f32 {
    2.0 * (dim as f32 + 24.0) * f32::powi(2.0, -24)
}

/// Whether the proof of the f32 screen covers a vector of this length: nothing overflows, and what is flushed to zero
/// is smaller than the slack.
pub fn norm_in_range(norm: f32) -> bool {
    norm == 0.0 || (f32::powi(2.0, -40)..=f32::powi(2.0, 60)).contains(&norm)
}

/// A bound below the direct pass's key, from an f32 inner product in any order of summation and both lengths.
/// Kernels compute exactly this, in f32.
#[inline(always)]
pub fn lower_bound(metric: Metric, slack: f32, dot: f32, query_norm: f32, row_norm: f32) -> f32 {
    match metric {
        Metric::L2 => (query_norm * query_norm + row_norm * row_norm) * (1.0 - slack) - 2.0 * dot,
        Metric::InnerProduct => -dot - slack * query_norm * row_norm,
        // Cosine.
        _ => {
            let norms = query_norm * row_norm;
            if norms == 0.0 { 0.0 } else { -dot / norms - slack }
        }
    }
}

/// One pass over the rows; keys never leave registers, only `keep` pairs per query are written.
pub fn cost(p: &Extent, screen: Screen, keep: usize) -> Cost {
    let direct = distance::cost(p);
    let operations = match screen {
        Screen::None => direct.operations,
        _ => p.rows as f64 * p.queries as f64 * (p.dim as f64 * 2.0 + 4.0),
    };
    // Rows in a screen's own form: at most as many components as the rows have, and four numbers each.
    let copies = |component: f64| p.rows as f64 * (p.dim as f64 * component + 16.0);
    let bytes_read = match screen {
        Screen::None | Screen::F32 => direct.bytes_read,
        Screen::F16 => copies(2.0),
        Screen::Int8 => copies(1.0),
    };
    Cost { bytes_read, bytes_written: p.queries as f64 * keep as f64 * 8.0, operations, launches: 2.0 }
}

/// The `keep` smallest (key, position) of each query among allowed rows, in f64, by the direct key.
pub fn reference(
    metric: Metric,
    queries: &RowsView<'_>,
    rows: &RowsView<'_>,
    mask: Option<Mask<'_>>,
    keep: usize,
) -> Vec<Vec<(f64, u32)>> {
    let (n, keys) = (rows.rows(), distance::reference(metric, queries, rows));
    (0..queries.rows())
        .map(|q| {
            let allowed = (0..n).filter(|&r| mask.is_none_or(|m| m.allows(q, r)));
            let mut pairs: Vec<(f64, u32)> = allowed.map(|r| (keys[q * n + r], r as u32)).collect();
            pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            pairs.truncate(keep);
            pairs
        })
        .collect()
}
