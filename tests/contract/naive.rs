//! The references as an engine: f64, rounded once. It shows that the suite accepts what is right, and is what
//! `can_fail.rs` spoils.

use std::sync::Arc;

use nearfield::RowsView;
use nearfield::compute::{
    Answer, Array, Backend, Candidates, Capabilities, EngineError, Frame, Input, Operation, Output, Pending, Place,
    Type, Value,
};
use nearfield::ops::scan::Listed;
use nearfield::ops::{
    Coded, Compared, Op, Pairs, Program, Screen, codes, distance, matmul, normalize, refine, scan, search, segment_sum,
    select_k,
};
use nearfield::stats::{Ceilings, SearchStats};

use crate::engines;

/// The references, and ways to be wrong that `can_fail.rs` asks for.
#[derive(Clone, Copy, Default)]
pub struct Naive {
    /// Masks are ignored.
    pub ignores_masks: bool,
    /// This row is not there for the first query.
    pub hides: Option<u32>,
    /// Only so many rows are there.
    pub sees: Option<usize>,
}

type Found = Vec<Vec<(f32, u32)>>;

/// `[queries, width]` places from lists that may be shorter.
fn places(pairs: Found, width: usize) -> Candidates {
    let mut out = Candidates::empty(pairs.len(), width);
    for (q, list) in pairs.into_iter().enumerate() {
        for (i, (key, position)) in list.into_iter().enumerate() {
            (out.keys[q * width + i], out.positions[q * width + i]) = (key, position);
        }
    }
    out
}

/// The keys of all pairs, rounded; zeros lose their sign.
fn direct_keys(pairs: &Compared<'_>) -> Vec<f32> {
    let keys = distance::reference(pairs.metric, &pairs.queries, &pairs.base.rows);
    keys.into_iter().map(|key| key as f32 + 0.0).collect()
}

/// The lower bounds of all pairs.
fn screened_keys(pairs: &Compared<'_>, norms: &[f32]) -> Vec<f32> {
    let (extent, rows) = (pairs.extent(), pairs.base.rows);
    let slack = search::slack(extent.dim);
    let mut keys = Vec::new();
    for q in 0..extent.queries {
        let query = distance::row_f64(&pairs.queries, q);
        for (r, &norm) in norms.iter().enumerate() {
            let dot: f64 = distance::row_f64(&rows, r).iter().zip(&query).map(|(x, y)| x * y).sum();
            keys.push(search::lower_bound(extent.metric, slack, dot as f32, pairs.query_norms[q], norm));
        }
    }
    keys
}

/// The lower bounds of all pairs, from codes.
fn coded_keys(coded: &Coded<'_>) -> Vec<f32> {
    let Coded { codes, queries, .. } = coded;
    let terms = queries.terms.iter().enumerate();
    let pairs = terms.flat_map(|(q, terms)| (0..codes.rows()).map(move |r| (q, terms, r)));
    pairs
        .map(|(q, terms, r)| codes::lower_bound(codes, r, terms, codes::product(codes.row(r), queries.query(q))))
        .collect()
}

fn refine(pairs: &Compared<'_>, positions: &[u32], width: usize, bound: Vec<f32>) -> Candidates {
    let mut from = Candidates { width, keys: Vec::new(), positions: positions.to_vec(), bound };
    if width > 0 {
        let keys = refine::reference(pairs.metric, &pairs.queries, &pairs.base.rows, positions, width);
        from.keys = keys.into_iter().map(|key| key as f32 + 0.0).collect();
    }
    from
}

fn select(from: Candidates, queries: usize, k: usize) -> Candidates {
    let mut pairs = vec![Vec::new(); queries];
    for (q, list) in pairs.iter_mut().enumerate() {
        let segment = q * from.width..(q + 1) * from.width;
        let mut all = select_k::reference(&from.keys[segment.clone()], Some(&from.positions[segment]), from.width);
        all.retain(|pair| pair.1 != u32::MAX);
        all.truncate(k);
        *list = all;
    }
    Candidates { bound: from.bound, ..places(pairs, k) }
}

/// The numbers of a matrix, wherever it is kept.
fn matrix<'a>(frame: &'a Frame<'_>, value: Value) -> Result<&'a [f32], EngineError> {
    match frame.array(value) {
        Some(array) => array.view::<Vec<f32>>("naive").map(Vec::as_slice),
        None => frame.matrix(value),
    }
}

/// A matrix as candidates: every row a candidate.
fn every_row(keys: &[f32], q: usize, n: usize) -> Candidates {
    let positions = (0..q).flat_map(|_| 0..n as u32).collect();
    Candidates { width: n, keys: keys.to_vec(), positions, bound: Vec::new() }
}

impl Naive {
    /// The operands of pairs, as far as this engine sees them.
    fn pairs<'a>(&self, pairs: &Pairs, frame: &'a Frame<'_>) -> Result<Compared<'a>, EngineError> {
        let mut of = pairs.of(frame)?;
        if self.ignores_masks {
            of.mask = None;
        }
        if let Some(rows) = self.sees.map(|rows| rows.min(of.base.rows.rows())) {
            of.base.rows = of.base.rows.slice(0, rows);
            of.base.norms = of.base.norms.map(|norms| &norms[..rows]);
        }
        Ok(of)
    }

    /// The `keep` smallest allowed pairs of each query.
    fn nearest(&self, pairs: &Compared<'_>, keys: &[f32], keep: usize) -> Found {
        let n = pairs.base.rows.rows();
        (0..pairs.queries.rows())
            .map(|q| {
                let there = |&r: &usize| {
                    let hidden = q == 0 && self.hides == Some(r as u32);
                    !hidden && pairs.mask.is_none_or(|m| m.allows(q, r))
                };
                let allowed: Vec<u32> = (0..n).filter(there).map(|r| r as u32).collect();
                let keys: Vec<f32> = allowed.iter().map(|&r| keys[q * n + r as usize]).collect();
                select_k::reference(&keys, Some(&allowed), keep)
            })
            .collect()
    }

    fn search(&self, pairs: &Compared<'_>, screen: Screen, keep: usize, coded: Option<Coded<'_>>) -> Candidates {
        let bounded = |keys: Vec<f32>| {
            let mut out = places(self.nearest(pairs, &keys, keep), keep);
            out.bound = out.keys.chunks(keep.max(1)).map(|keys| keys[keep - 1]).collect();
            out
        };
        if let (Screen::Int8, Some(coded)) = (screen, &coded) {
            return bounded(coded_keys(coded));
        }
        match (screen, pairs.base.norms) {
            (Screen::F32, Some(norms)) if search::screens(pairs.metric) => bounded(screened_keys(pairs, norms)),
            _ => places(self.nearest(pairs, &direct_keys(pairs), keep), keep),
        }
    }

    fn range(&self, pairs: &Compared<'_>, radius: f32) -> Output {
        let (mut offsets, mut keys, mut positions) = (vec![0], Vec::new(), Vec::new());
        for list in self.nearest(pairs, &direct_keys(pairs), pairs.base.rows.rows()) {
            for (key, position) in list.into_iter().filter(|pair| pair.0 <= radius) {
                keys.push(key);
                positions.push(position);
            }
            offsets.push(keys.len() as u64);
        }
        Output::Range { offsets, keys, positions }
    }

    fn operation(
        &self,
        program: &Program,
        frame: &Frame<'_>,
        op: &Op,
        stats: &mut SearchStats,
    ) -> Result<Output, EngineError> {
        let mut counted = |pairs: &Compared<'_>| {
            let extent = pairs.extent();
            stats.scanned = (extent.rows * extent.queries) as u64;
        };
        Ok(match op {
            Op::Normalize(op) => {
                let (rows, norms) = normalize::reference(op.norm, &frame.vectors(op.rows, 1)?.rows);
                let round = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect();
                Output::Rows { rows: round(rows), norms: round(norms) }
            }
            Op::Distance(op) => Output::Matrix(direct_keys(&self.pairs(&op.pairs, frame)?)),
            Op::Search(op) => {
                let pairs = self.pairs(&op.pairs, frame)?;
                counted(&pairs);
                let coded = op.codes.map(|codes| Coded::of(frame, codes)).transpose()?;
                Output::Candidates(self.search(&pairs, op.screen, op.keep, coded))
            }
            Op::Assign(op) => {
                let found = self.search(&self.pairs(&op.pairs, frame)?, Screen::None, 1, None);
                Output::Candidates(Candidates { bound: Vec::new(), ..found })
            }
            Op::Range(op) => self.range(&self.pairs(&op.pairs, frame)?, op.key),
            Op::Scan(op) => {
                let Listed { metric, lists, queries, probes, mask, .. } = op.of(frame)?;
                let mask = mask.filter(|_| !self.ignores_masks);
                Output::Candidates(places(scan::reference(metric, lists, queries, &probes, mask, op.keep), op.keep))
            }
            Op::Refine(op) => {
                let (positions, width) = frame.positions(op.candidates)?;
                let bound = frame.candidates(op.candidates).map(|c| c.bound.clone()).unwrap_or_default();
                Output::Candidates(refine(&self.pairs(&op.pairs, frame)?, positions, width, bound))
            }
            Op::SelectK(op) => match (frame.candidates(op.from), program.ty(op.from)?) {
                (Ok(from), &Type::Candidates { queries, .. }) => {
                    Output::Candidates(select(from.clone(), queries, op.k))
                }
                (_, &Type::Matrix { rows, width }) => {
                    Output::Candidates(select(every_row(matrix(frame, op.from)?, rows, width), rows, op.k))
                }
                _ => return Err(EngineError::Mismatch("nothing to select from".to_owned())),
            },
            Op::Matmul(op) => {
                let (a, b) = (matrix(frame, op.a)?, matrix(frame, op.b)?);
                let product = matmul::reference(op.sizes(program)?, a, b, op.transposed);
                Output::Matrix(product.into_iter().map(|x| x as f32).collect())
            }
            Op::SegmentSum(op) => {
                let sizes = op.sizes(program)?;
                let RowsView::F32(rows) = frame.vectors(op.rows, sizes.dim)?.rows else {
                    return Err(EngineError::Mismatch("sums of other rows than f32".to_owned()));
                };
                let labels = frame.positions(op.labels)?.0;
                // Labels past the last segment are refused there.
                segment_sum::pieces(labels, sizes.segments)?;
                let (sums, _) = segment_sum::reference(sizes, rows.as_slice(), labels);
                Output::Matrix(sums.into_iter().map(|sum| sum as f32).collect())
            }
            Op::Host(op) => op.call(frame, stats)?,
        })
    }

    fn execute(&self, program: &Program, inputs: &[Input<'_>]) -> Result<Answer, EngineError> {
        let mut frame = program.bind(inputs)?;
        let mut stats = SearchStats::default();
        stats.device = self.name();
        for (value, op) in program.operations() {
            op.examine(&frame)?;
            let made = self.operation(program, &frame, op, &mut stats)?;
            stats.add_kernel(&format!("{}/naive", op.name()));
            frame.set(value, made);
        }
        for &(value, place) in program.outputs() {
            if let &Type::Matrix { rows, width } = program.ty(value)? {
                let values = matrix(&frame, value)?.to_vec();
                frame.set(
                    value,
                    match place {
                        Place::Host => Output::Matrix(values),
                        Place::Device => Output::Array(Array::new("naive", [rows, width], Arc::new(values))),
                    },
                );
            }
        }
        Ok(Answer { outputs: frame.finish(program.outputs())?, stats })
    }
}

impl Backend<Op> for Naive {
    fn name(&self) -> String {
        "naive".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        engines::peer().capabilities()
    }

    fn run<'a>(&'a self, program: &'a Program, inputs: &'a [Input<'a>]) -> Pending<'a> {
        Pending::done(self.execute(program, inputs))
    }

    fn ceilings(&self) -> Ceilings {
        Ceilings { bytes_per_second: 1e9, operations_per_second: 1e9, launch_seconds: 0.0 }
    }
}
