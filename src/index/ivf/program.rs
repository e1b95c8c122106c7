//! A search of an `Ivf` as one program: transform, nearest lists, preparation, scan, direct keys, selection. The program
//! is written once, for running it and for explaining it.

use std::sync::OnceLock;

use super::super::decide::spare;
use super::super::planner::Planner;
use super::super::search::{MaskBits, Queries, candidates};
use super::super::store::Store;
use super::rank::direct;
use super::{Ivf, Kept};
use crate::codec::transform::Projected;
use crate::compute::{Candidates, EngineError, Frame, Function, Input, Output, Type, Value, Vectors};
use crate::error::SearchError;
use crate::linalg::lengths;
use crate::ops::lists::Prepared;
use crate::ops::search::{self, norm_in_range};
use crate::ops::{self, Cost, Engine, Extent, Host, Pairs, Program, Refine, Scan, Screen, SelectK};
use crate::stats::SearchStats;
use crate::types::{DType, MatrixView, Metric, RowsView};

/// The reach of a search.
#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    /// Who runs the program.
    pub engine: &'a Engine,
    /// Lists per query.
    pub probes: usize,
    /// Candidates per query that the scan keeps.
    pub keep: usize,
    /// Neighbours per query.
    pub k: usize,
    /// Whether all candidates are re-ranked, or only those that the codes' bound does not exclude.
    pub all: bool,
}

/// What the inputs of a program are, in order.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    Queries,
    Centroids,
    Lists,
    Mask,
    Rows,
    Function(Step),
}

/// What a host operation does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Step {
    Transform,
    Probe,
    Prepare,
    Settle,
    Place,
    First,
    Promising,
    Merge,
    Better,
    Codes,
    Cosines,
    Decide,
}

impl Step {
    /// In the order of their numbers.
    const ALL: [Step; 12] = [
        Step::Transform,
        Step::Probe,
        Step::Prepare,
        Step::Settle,
        Step::Place,
        Step::First,
        Step::Promising,
        Step::Merge,
        Step::Better,
        Step::Codes,
        Step::Cosines,
        Step::Decide,
    ];

    fn what(self) -> &'static str {
        match self {
            Step::Transform => "transform",
            Step::Probe => "probe",
            Step::Prepare => "encode",
            Step::Settle => "settle",
            Step::Place => "place",
            Step::First => "first candidates",
            Step::Promising => "promising candidates",
            Step::Merge => "merge",
            Step::Better => "refine from better codes",
            Step::Codes => "refine from codes",
            Step::Cosines => "cosines",
            Step::Decide => "decide",
        }
    }
}

/// A program and what its inputs are.
pub(super) struct Written {
    pub program: Program,
    inputs: Vec<Wanted>,
}

/// Writes a program.
struct Writer {
    program: Program,
    inputs: Vec<Wanted>,
}

impl Writer {
    fn input(&mut self, wanted: Wanted, ty: Type) -> Value {
        self.inputs.push(wanted);
        self.program.input(ty)
    }

    fn host(&mut self, step: Step, operands: &[Value], gives: Type, cost: Cost) -> Result<Value, EngineError> {
        let function = self.input(Wanted::Function(step), Type::Function);
        self.program.push(Host { what: step.what(), function, operands: operands.to_vec(), gives, cost })
    }
}

/// Bytes and operations of reading some numbers once.
fn light(numbers: usize) -> Cost {
    Cost { bytes_read: 4.0 * numbers as f64, operations: numbers as f64, ..Cost::default() }
}

impl Ivf {
    /// The program of a search for so many queries.
    pub(super) fn written(
        &self,
        queries: &Queries<'_>,
        mask: Option<&MaskBits<'_>>,
        look: Look<'_>,
    ) -> Result<Written, EngineError> {
        let Look { engine, probes, keep, k, all } = look;
        let q = queries.len();
        let mut w = Writer { program: Program::new(), inputs: Vec::with_capacity(10) };
        let given = w.input(Wanted::Queries, Input::Vectors(vectors(queries)).ty()?);
        let binary = self.spec.binary;
        let dim = self.codec.dim();
        // Queries after all transforms.
        let floats = if binary {
            given
        } else {
            let gives = Type::Vectors { dtype: DType::F32, rows: q, dim, norms: self.coarse.is_some(), cached: false };
            let operations = 2.0 * (q * self.dim * dim) as f64;
            let bytes_read = 4.0 * (self.dim * (q + dim)) as f64;
            w.host(Step::Transform, &[given], gives, Cost { bytes_read, operations, ..Cost::default() })?
        };
        let nearest = self.write_nearest_lists(&mut w, engine, queries, floats, probes)?;
        let looked: Vec<Value> = [Some(floats), nearest].into_iter().flatten().collect();
        let probed = w.host(Step::Probe, &looked, Type::Probes { queries: q, width: probes }, light(q * probes))?;
        let prepared = w.host(Step::Prepare, &[floats], Type::Prepared { queries: q }, light(4 * q * dim))?;
        let lists = w.input(Wanted::Lists, Input::Lists(&self.lists, &self.tag).ty()?);
        let mask = mask.map(|mask| Input::Mask(mask.mask()).ty()).transpose()?.map(|ty| w.input(Wanted::Mask, ty));
        let scan = Scan {
            metric: self.inner(),
            lists,
            queries: prepared,
            probes: probed,
            mask,
            keep,
            form: self.lists.form,
            share: (probes, self.lists.lists.len()),
        };
        let mut found = w.program.push(scan)?;
        let wide = |width| Type::Candidates { queries: q, width };
        let exact = self.lists.form.is_exact();
        if !exact {
            let operands: Vec<Value> = [found, probed, prepared, floats].into_iter().chain(mask).collect();
            found = w.host(Step::Settle, &operands, wide(keep), light(q * 4))?;
        }
        let placed = w.host(Step::Place, &[found], wide(keep), light(q * keep))?;
        let mut ranked = match &self.kept {
            Kept::Rows(store) => {
                let rows = w.input(Wanted::Rows, Input::Vectors(store.base()).ty()?);
                let pairs = Pairs { metric: self.metric, rows, queries: given, mask: None };
                if all || self.lists.error == 0.0 || self.inner() != Metric::L2 {
                    w.program.push(Refine { pairs, candidates: placed })?
                } else {
                    let some = w.host(Step::First, &[placed], wide(keep), light(q * keep))?;
                    let first = w.program.push(Refine { pairs, candidates: some })?;
                    let operands = [found, probed, placed, first];
                    let rest = w.host(Step::Promising, &operands, wide(keep), light(4 * q * keep))?;
                    let more = w.program.push(Refine { pairs, candidates: rest })?;
                    w.host(Step::Merge, &[placed, first, more], wide(keep), light(q * keep))?
                }
            }
            Kept::Codes(..) => w.host(Step::Better, &[given, placed], wide(keep), light(q * keep * self.dim))?,
            Kept::Ids(_) if exact => placed,
            Kept::Ids(_) => w.host(Step::Codes, &[found, placed, floats], wide(keep), light(q * keep * dim))?,
        };
        if self.metric == Metric::Cosine && self.inner() == Metric::L2 && matches!(self.kept, Kept::Ids(_)) {
            ranked = w.host(Step::Cosines, &[given, ranked], wide(keep), light(q * keep))?;
        }
        let best = match &self.kept {
            // Some more, among which exact keys decide.
            Kept::Rows(_) => {
                let some = w.program.push(SelectK { from: ranked, k: k.saturating_add(spare(k)).min(keep.max(k)) })?;
                w.host(Step::Decide, &[some], wide(k), light(q * k))?
            }
            _ => w.program.push(SelectK { from: ranked, k })?,
        };
        w.program.output(best);
        Ok(Written { program: w.program, inputs: w.inputs })
    }

    /// Adds the search for the nearest lists; none where all are probed.
    fn write_nearest_lists(
        &self,
        w: &mut Writer,
        engine: &Engine,
        queries: &Queries<'_>,
        floats: Value,
        probes: usize,
    ) -> Result<Option<Value>, EngineError> {
        let Some(coarse) = &self.coarse else { return Ok(None) };
        let rows = w.input(Wanted::Centroids, Input::Vectors(coarse.base()).ty()?);
        let pairs = Pairs { metric: coarse.metric(), rows, queries: floats, mask: None };
        let extent = Extent {
            metric: coarse.metric(),
            dtype: coarse.dtype(),
            dim: coarse.dim(),
            rows: coarse.slots(),
            queries: queries.len(),
        };
        // No transform makes vectors longer but by the length of a mean.
        let provable = coarse.norms_in_range() && queries.norms.iter().all(|&n| norm_in_range(n));
        let pays = provable && Planner::new(engine).pays(&extent, probes, Screen::F32);
        if !pays {
            return search::nearest(&mut w.program, pairs, None, probes, Screen::None).map(Some);
        }
        // The screen finds the nearest lists well enough, without a place to spare. The numbers that they add to keys are
        // computed directly.
        let found =
            w.program.push(ops::Search { pairs, screen: Screen::F32, keep: probes, codes: None, wanted: None })?;
        let refined = w.program.push(Refine { pairs, candidates: found })?;
        w.program.push(SelectK { from: refined, k: probes }).map(Some)
    }

    /// Runs a search: the best `k` of the candidates of each query, positions and keys of the metric.
    pub(super) async fn look(
        &self,
        queries: &Queries<'_>,
        mask: Option<&MaskBits<'_>>,
        look: Look<'_>,
        stats: &mut SearchStats,
    ) -> Result<Candidates, SearchError> {
        let Written { program, inputs } = self.written(queries, mask, look)?;
        // A query that a transform makes infinite is the caller's to know, by its number.
        let infinite = OnceLock::new();
        let run = Run { ivf: self, queries, look, infinite: &infinite };
        let run = &run;
        let function = |step: Step| -> Box<Function<'_>> {
            Box::new(move |frame, operands, stats| run.step(step, frame, operands, stats))
        };
        let functions: Vec<Box<Function<'_>>> = Step::ALL.iter().map(|&step| function(step)).collect();
        let missing = || EngineError::Mismatch("an input of a search of lists is missing".to_owned());
        let input = |wanted: &Wanted| -> Result<Input<'_>, EngineError> {
            Ok(match wanted {
                Wanted::Queries => Input::Vectors(vectors(queries)),
                Wanted::Centroids => Input::Vectors(self.coarse.as_ref().ok_or_else(missing)?.base()),
                Wanted::Lists => Input::Lists(&self.lists, &self.tag),
                Wanted::Mask => Input::Mask(mask.ok_or_else(missing)?.mask()),
                Wanted::Rows => match &self.kept {
                    Kept::Rows(store) => Input::Vectors(store.base()),
                    _ => return Err(missing()),
                },
                Wanted::Function(step) => Input::Function(&*functions[*step as usize]),
            })
        };
        let inputs = inputs.iter().map(input).collect::<Result<Vec<_>, _>>()?;
        let answer = ops::running(look.engine, &program, &inputs, stats).await;
        match (answer, infinite.get()) {
            (Err(_), Some(&(query, component, value))) => Err(SearchError::NotFinite { query, component, value }),
            (answer, _) => {
                let mut answer = candidates(answer?)?;
                // Estimates of small distances may lie below 0; their order stands.
                let least = match self.metric {
                    Metric::L2 => 0.0,
                    Metric::Cosine => -1.0,
                    _ => f32::NEG_INFINITY,
                };
                answer.keys.iter_mut().for_each(|key| *key = key.max(least));
                Ok(answer)
            }
        }
    }
}

/// Queries with their lengths.
fn vectors<'a>(queries: &'a Queries<'_>) -> Vectors<'a> {
    Vectors { rows: queries.view(), norms: Some(&queries.norms), tag: None }
}

/// What host operations work with beside their operands.
pub(super) struct Run<'a> {
    pub ivf: &'a Ivf,
    pub queries: &'a Queries<'a>,
    pub look: Look<'a>,
    infinite: &'a OnceLock<(usize, usize, f32)>,
}

impl Run<'_> {
    fn step(
        &self,
        step: Step,
        frame: &Frame<'_>,
        operands: &[Value],
        stats: &mut SearchStats,
    ) -> Result<Output, EngineError> {
        let operand = |i: usize| {
            let missing = || EngineError::Mismatch(format!("`{}` needs more operands", step.what()));
            operands.get(i).copied().ok_or_else(missing)
        };
        match step {
            Step::Transform => self.transform(),
            Step::Probe => {
                let nearest = operands.get(1).map(|&nearest| frame.candidates(nearest)).transpose()?;
                self.probe(frame, operand(0)?, nearest)
            }
            Step::Prepare => Ok(Output::Prepared(self.prepare(frame, operand(0)?)?)),
            Step::Settle => {
                let (found, probes) = (frame.candidates(operand(0)?)?, frame.probes(operand(1)?)?);
                let prepared = frame.prepared(operand(2)?)?;
                let mask = operands.get(4).map(|&mask| frame.mask(mask)).transpose()?;
                let floats = self.floats(frame, operand(3)?)?;
                Ok(Output::Candidates(self.settle(found, probes, &prepared.rounding, floats, mask, stats)))
            }
            Step::Place => self.place(frame.candidates(operand(0)?)?),
            Step::First => self.first(frame.candidates(operand(0)?)?),
            Step::Promising => {
                let (found, probes) = (frame.candidates(operand(0)?)?, frame.probes(operand(1)?)?);
                self.promising(found, probes, frame.candidates(operand(2)?)?, frame.candidates(operand(3)?)?)
            }
            Step::Merge => {
                let placed = frame.candidates(operand(0)?)?;
                self.merge(placed, frame.candidates(operand(1)?)?, frame.candidates(operand(2)?)?)
            }
            Step::Better => {
                let placed = frame.candidates(operand(1)?)?;
                stats.refined += there(placed);
                self.keys_of_better(placed)
            }
            Step::Codes => {
                let found = frame.candidates(operand(0)?)?;
                let (floats, lost) = (self.floats(frame, operand(2)?)?, frame.lost(operand(2)?));
                stats.refined += there(found);
                self.keys_of_codes(found, frame.candidates(operand(1)?)?, floats, lost)
            }
            Step::Cosines => self.cosines(frame.candidates(operand(1)?)?),
            Step::Decide => self.decide(frame.candidates(operand(0)?)?),
        }
    }

    /// Queries after all transforms.
    fn floats<'f>(&self, frame: &'f Frame<'_>, value: Value) -> Result<MatrixView<'f, f32>, EngineError> {
        match frame.vectors(value, self.ivf.codec.dim())?.rows {
            RowsView::F32(floats) => Ok(floats),
            _ => Err(EngineError::Mismatch("codes are compared with f32 queries".to_owned())),
        }
    }

    fn transform(&self) -> Result<Output, EngineError> {
        let Projected { rows, lost } = self.ivf.transform.apply(&self.queries.view());
        let mut norms = Vec::new();
        if self.ivf.coarse.is_some() {
            let view = MatrixView::new(&rows, self.ivf.codec.dim());
            let view = view.map_err(|e| EngineError::Mismatch(e.to_string()))?;
            norms = lengths(&RowsView::F32(view)).map_err(|infinite| {
                let _ = self.infinite.set(infinite);
                EngineError::Mismatch(format!("query {} is not finite once it is transformed", infinite.0))
            })?;
        }
        Ok(Output::Projected { rows, norms, lost })
    }

    /// The lists of each query, and what each adds to keys.
    fn probe(&self, frame: &Frame<'_>, floats: Value, nearest: Option<&Candidates>) -> Result<Output, EngineError> {
        let (probes, q, ivf) = (self.look.probes, self.queries.len(), self.ivf);
        let lists = match nearest {
            Some(found) => found.positions.clone(),
            None => (0..q).flat_map(|_| 0..probes as u32).collect(),
        };
        let mut offsets = match (nearest, &ivf.coarse) {
            (Some(found), Some(coarse)) if ivf.residual => {
                if coarse.metric() == ivf.inner() || ivf.lists.form.is_exact() {
                    found.keys.clone()
                } else {
                    about(coarse, ivf.inner(), &frame.vectors(floats, ivf.codec.dim())?.rows, &lists)
                }
            }
            _ => about_zero(ivf.inner(), &frame.vectors(floats, ivf.codec.dim())?.rows, probes),
        };
        if ivf.inner() == Metric::L2 {
            // The distances still contain the length that a projection drops of a query.
            for (offsets, lost) in offsets.chunks_mut(probes.max(1)).zip(frame.lost(floats)) {
                offsets.iter_mut().for_each(|o| *o += lost);
            }
        }
        Ok(Output::Probes { width: probes, lists, offsets })
    }

    /// Queries as lists take them.
    fn prepare(&self, frame: &Frame<'_>, floats: Value) -> Result<Prepared, EngineError> {
        let ivf = self.ivf;
        Ok(match frame.vectors(floats, ivf.codec.dim())?.rows {
            RowsView::F32(floats) => ivf.codec.queries(ivf.inner(), floats),
            RowsView::Bits(bits) => {
                // Packed queries as whole words.
                let words = ivf.lists.form.words(ivf.lists.dim);
                let mut out = vec![0u32; bits.rows() * words];
                for (r, row) in out.chunks_exact_mut(words).enumerate() {
                    let bytes: &mut [u8] = bytemuck::cast_slice_mut(row);
                    bytes[..bits.dim() / 8].copy_from_slice(bits.row(r));
                }
                Prepared { queries: bits.rows(), bits: out, ..Prepared::default() }
            }
            _ => return Err(EngineError::Mismatch("lists take queries of f32 or packed bits".to_owned())),
        })
    }
}

/// How many candidates there are.
fn there(found: &Candidates) -> u64 {
    found.positions.iter().filter(|&&p| p != u32::MAX).count() as u64
}

/// The numbers that lists add to keys when they were found by another metric.
fn about(coarse: &Store, metric: Metric, queries: &RowsView<'_>, lists: &[u32]) -> Vec<f32> {
    let (RowsView::F32(queries), RowsView::F32(centroids)) = (queries, coarse.view()) else {
        return vec![0.0; lists.len()];
    };
    let each = lists.chunks((lists.len() / queries.rows().max(1)).max(1)).enumerate();
    each.flat_map(|(q, some)| some.iter().map(move |&l| direct(metric, queries.row(q), centroids.row(l as usize))))
        .collect()
}

/// The number that a list adds to keys when its codes are about no centroid.
fn about_zero(metric: Metric, queries: &RowsView<'_>, probes: usize) -> Vec<f32> {
    let square = |row: &[f32]| row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() as f32;
    match (metric, queries) {
        (Metric::L2, RowsView::F32(rows)) => {
            (0..rows.rows()).flat_map(|r| std::iter::repeat_n(square(rows.row(r)), probes)).collect()
        }
        _ => vec![0.0; queries.rows() * probes],
    }
}
