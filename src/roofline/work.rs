//! Workloads of every verb on a ladder of shapes, the same for the shader benchmark and for `cargo bench`.

use super::lists::Packed;
use crate::codec::int8::Coder;
use crate::compute::{EngineError, Input, Output, Tag, Vectors};
use crate::cpu::{CpuEngine, CpuOptions};
use crate::ops::codes::{Codes, QueryCodes};
use crate::ops::lists::Form;
use crate::ops::{
    self, Assign, Batch, Coded, Cost, Distance, Engine, Extent, Matmul, Norm, Normalize, Program, Range, Refine,
    Screen, SegmentSum, SelectK, metric,
};
use crate::random::Random;
use crate::stats::{SearchStats, Unit};
use crate::types::{DType, MatrixView, Metric, RowsView};

/// The verbs that are measured, in the order in which they are shown.
pub const FAMILIES: [&str; 10] =
    ["distance", "normalize", "search", "select_k", "range", "refine", "assign", "segment_sum", "scan", "matmul"];

/// How large the shapes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// For a CPU that imitates a GPU.
    Small,
    /// For CPUs and for GPUs that share their memory.
    Medium,
    /// For GPUs with memory of their own.
    Large,
}

/// What is done in one measurement. Sizes that depend on nothing else are in the shape.
#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Distance,
    Normalize(Norm),
    Search {
        screen: Screen,
        k: usize,
    },
    SelectK(usize),
    Assign,
    /// Rows of as many segments as there are queries.
    SegmentSum,
    Matmul,
    /// Every row nearer than the one at this place of the first query's order.
    Range {
        place: usize,
    },
    /// So many scattered candidates of each query.
    Refine {
        width: usize,
    },
    /// The ten best of so many of all lists, in codes of this form.
    Scan {
        form: Form,
        probes: usize,
        lists: usize,
    },
}

/// Queries, rows, components.
type Shape = (usize, usize, usize);

/// One measurement before its data are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    what: What,
    metric: Metric,
    shape: Shape,
}

/// f32 rows and queries of random numbers in [-1, 1).
struct Data {
    shape: Shape,
    rows: Vec<f32>,
    queries: Vec<f32>,
    row_norms: Vec<f32>,
    query_norms: Vec<f32>,
    tag: Tag,
    /// 8-bit codes for l2, once a case has needed them.
    codes: Option<(Codes, QueryCodes, Tag)>,
    /// Lists of one form, once a case has needed them.
    lists: Option<Packed>,
}

/// Makes cases ready to run; keeps the data of the last shape, since the next case often has the same.
#[derive(Default)]
pub struct Bench {
    data: Option<Data>,
}

/// A case with its data.
pub struct Workload<'a> {
    data: &'a Data,
    case: Case,
    program: Program,
    positions: Vec<u32>,
    matrix: Vec<f32>,
    /// The largest key of a hit.
    radius: f32,
    /// The first key of the answer, or the first norm.
    first: f64,
}

/// Every case of a scale, grouped by family in the order of [`FAMILIES`].
pub fn cases(scale: Scale) -> Vec<Case> {
    FAMILIES.iter().flat_map(|family| family_cases(family, scale)).collect()
}

/// The cases of one family; none for an unknown one.
pub fn family_cases(family: &str, scale: Scale) -> Vec<Case> {
    match family {
        "distance" => distance(scale),
        "normalize" => normalize(scale),
        "search" => search(scale),
        "select_k" => select_k(scale),
        "range" => vec![by_scale(
            scale,
            l2(What::Range { place: 40 }, (8, 4_000, 128)),
            l2(What::Range { place: 200 }, (16, 20_000, 128)),
            l2(What::Range { place: 500 }, (64, 500_000, 128)),
        )],
        "refine" => vec![by_scale(
            scale,
            l2(What::Refine { width: 50 }, (16, 4_000, 128)),
            l2(What::Refine { width: 200 }, (64, 20_000, 384)),
            l2(What::Refine { width: 200 }, (1_000, 200_000, 384)),
        )],
        "assign" => vec![by_scale(
            scale,
            l2(What::Assign, (2_000, 256, 64)),
            l2(What::Assign, (20_000, 1_024, 128)),
            l2(What::Assign, (200_000, 4_096, 128)),
        )],
        "segment_sum" => vec![by_scale(
            scale,
            l2(What::SegmentSum, (256, 4_000, 64)),
            l2(What::SegmentSum, (1_024, 20_000, 128)),
            l2(What::SegmentSum, (4_096, 1_000_000, 128)),
        )],
        "matmul" => vec![by_scale(
            scale,
            Case { what: What::Matmul, metric: Metric::InnerProduct, shape: (200, 300, 128) },
            Case { what: What::Matmul, metric: Metric::InnerProduct, shape: (1_000, 1_000, 512) },
            Case { what: What::Matmul, metric: Metric::InnerProduct, shape: (4_096, 4_096, 1_024) },
        )],
        "scan" => scan(scale),
        _ => Vec::new(),
    }
}

fn by_scale<T>(scale: Scale, small: T, medium: T, large: T) -> T {
    match scale {
        Scale::Small => small,
        Scale::Medium => medium,
        Scale::Large => large,
    }
}

fn l2(what: What, shape: Shape) -> Case {
    Case { what, metric: Metric::L2, shape }
}

fn distance(scale: Scale) -> Vec<Case> {
    use Metric::*;
    let list: &[(Metric, Shape)] = by_scale(
        scale,
        &[(L2, (16, 4_000, 128)), (InnerProduct, (16, 4_000, 128)), (InnerProduct, (64, 4_000, 128))],
        &[
            (L2, (32, 4_000, 384)),
            (InnerProduct, (32, 4_000, 384)),
            (L1, (32, 4_000, 384)),
            (Canberra, (32, 4_000, 384)),
            (InnerProduct, (256, 4_000, 384)),
        ],
        &[
            (L2, (256, 50_000, 384)),
            (InnerProduct, (256, 50_000, 384)),
            (L1, (256, 50_000, 384)),
            (Canberra, (256, 50_000, 384)),
            (InnerProduct, (1_024, 50_000, 384)),
        ],
    );
    list.iter().map(|&(metric, shape)| Case { what: What::Distance, metric, shape }).collect()
}

fn normalize(scale: Scale) -> Vec<Case> {
    let shape = by_scale(scale, (1, 4_000, 128), (1, 10_000, 384), (1, 200_000, 384));
    let norms: &[Norm] = by_scale(scale, &[Norm::L2], &[Norm::L2, Norm::Max], &[Norm::L2, Norm::Max]);
    norms.iter().map(|&norm| l2(What::Normalize(norm), shape)).collect()
}

fn search(scale: Scale) -> Vec<Case> {
    let short = |q| (q, by_scale(scale, 4_000, 20_000, 1_000_000), 128);
    let long = |q| (q, by_scale(scale, 2_000, 100_000, 200_000), by_scale(scale, 384, 384, 768));
    let batch = by_scale(scale, 32, 64, 64);
    let (none, f32, int8) = (Screen::None, Screen::F32, Screen::Int8);
    let mut list = vec![(short(1), none, 10), (short(batch), none, 10), (short(batch), f32, 10)];
    if scale == Scale::Small {
        list.extend([(long(1), none, 10), (short(batch), int8, 10)]);
    } else {
        list.extend([(short(1), none, 500), (short(batch), none, 500), (short(batch), f32, 100)]);
        list.extend([(long(1), none, 10), (long(1), int8, 10), (long(batch), f32, 10), (long(batch), int8, 10)]);
    }
    if scale == Scale::Large {
        list.extend([(short(1_000), f32, 10), (long(1_000), f32, 10), (long(1_000), int8, 10)]);
    }
    // Cases of one shape of rows side by side share their data.
    list.sort_by_key(|&((queries, _, dim), _, _)| (dim, queries));
    list.into_iter().map(|(shape, screen, k)| l2(What::Search { screen, k }, shape)).collect()
}

fn select_k(scale: Scale) -> Vec<Case> {
    let shape = by_scale(scale, (4, 20_000, 1), (16, 50_000, 1), (64, 200_000, 1));
    let ks: &[usize] = by_scale(scale, &[10], &[1, 100, 10_000], &[1, 100, 10_000]);
    ks.iter().map(|&k| l2(What::SelectK(k), shape)).collect()
}

fn scan(scale: Scale) -> Vec<Case> {
    let (rows, lists) = by_scale(scale, (4_000, 20), (100_000, 200), (1_000_000, 1_000));
    let shapes: &[(usize, usize)] = by_scale(scale, &[(16, 5)], &[(1, 32), (256, 32)], &[(1, 32), (1_000, 32)]);
    let case = |&(queries, probes): &(usize, usize), form| l2(What::Scan { form, probes, lists }, (queries, rows, 128));
    let forms = [Form::Integers(8), Form::Integers(1), Form::Parts(4)];
    shapes.iter().flat_map(|shape| forms.map(|form| case(shape, form))).collect()
}

impl Case {
    /// The verb that it measures.
    pub fn family(&self) -> &'static str {
        match self.what {
            What::Distance => "distance",
            What::Normalize(_) => "normalize",
            What::Search { .. } => "search",
            What::SelectK(_) => "select_k",
            What::Range { .. } => "range",
            What::Refine { .. } => "refine",
            What::Assign => "assign",
            What::SegmentSum => "segment_sum",
            What::Matmul => "matmul",
            What::Scan { .. } => "scan",
        }
    }

    /// The verb and what decides its code, e.g. `search f32, k 10`.
    pub fn name(&self) -> String {
        match self.what {
            What::Distance => format!("distance {}", self.metric),
            What::Normalize(norm) => format!("normalize {norm}"),
            What::Search { screen: Screen::None, k } => format!("search direct, k {k}"),
            What::Search { screen, k } => format!("search {screen}, k {k}"),
            What::SelectK(k) => format!("select_k {k}"),
            What::Range { .. } => "range".to_owned(),
            What::Refine { width } => format!("refine {width}"),
            What::Assign => "assign".to_owned(),
            What::SegmentSum => "segment_sum".to_owned(),
            What::Matmul => "matmul".to_owned(),
            What::Scan { form, probes, lists } => format!("scan {form}, {probes} of {lists} lists"),
        }
    }

    /// What is worked on, e.g. `64 x 20000 x 128`: queries, rows, components.
    pub fn shape(&self) -> String {
        let (q, n, dim) = self.shape;
        match self.what {
            What::Normalize(_) => format!("{n} x {dim}"),
            What::SelectK(_) => format!("{q} x {n}"),
            _ => format!("{q} x {n} x {dim}"),
        }
    }

    /// Queries of a batch; 0 where there are none.
    pub fn queries(&self) -> usize {
        if matches!(self.what, What::Normalize(_)) { 0 } else { self.shape.0 }
    }

    /// The arithmetic that binds when memory does not.
    pub fn unit(&self) -> Unit {
        match self.what {
            What::Search { screen: Screen::F16, .. } => Unit::F16,
            What::Search { screen: Screen::Int8, .. } => Unit::Int8,
            What::Scan { form: Form::Integers(_), .. } => Unit::Int8,
            _ => Unit::F32,
        }
    }

    fn extent(&self) -> Extent {
        let (queries, rows, dim) = self.shape;
        Extent { metric: self.metric, dtype: DType::F32, dim, rows, queries }
    }
}

impl Bench {
    /// Makes the data of a case; without the codes that it needs when they can't be made, and then it can't be run.
    pub fn make(&mut self, case: &Case) -> Workload<'_> {
        if self.data.as_ref().is_none_or(|data| data.shape != case.shape) {
            // The old ones go first: both might not fit.
            self.data = None;
        }
        let data = self.data.get_or_insert_with(|| Data::new(case.shape));
        if matches!(case.what, What::Search { screen: Screen::Int8, .. }) && data.codes.is_none() {
            data.codes = data.encode().ok();
        }
        if let What::Scan { form, probes, lists } = case.what
            && data.lists.as_ref().is_none_or(|packed| !packed.is_for(form, probes, lists))
        {
            data.lists = Some(Packed::new(form, case.shape, probes, lists));
        }
        let data = &*data;
        let (queries, rows, dim) = case.shape;
        let program = Program::new();
        let mut work = Workload {
            data,
            case: *case,
            program,
            positions: Vec::new(),
            matrix: Vec::new(),
            radius: 0.0,
            first: f64::NAN,
        };
        if let What::Range { place } = case.what {
            work.radius = work.key_at(place) as f32;
        }
        match case.what {
            What::Distance | What::Refine { .. } => work.first = work.key(0),
            What::Matmul => work.first = -work.key(0),
            What::Normalize(norm) => work.first = length(norm, data.rows.get(..dim).unwrap_or_default()),
            What::Search { .. } | What::Assign | What::Range { .. } => work.first = work.key_at(0),
            What::SelectK(_) => {
                let key = |i: u64| (i * 48_271 % 0x7fff_ffff % 1_000_003) as f32 + 1.0;
                work.matrix = (0..(queries * rows) as u64).map(key).collect();
                let firsts = work.matrix.iter().take(rows);
                work.first = firsts.fold(f64::INFINITY, |least, &key| least.min(f64::from(key)));
            }
            What::SegmentSum => {}
            What::Scan { .. } => work.first = data.lists.as_ref().map_or(f64::NAN, Packed::first_key),
        }
        if case.what == What::SegmentSum {
            work.positions = (0..rows as u64).map(|i| (i * 7_919 % queries as u64) as u32).collect();
            let firsts = data.rows.chunks_exact(dim).zip(&work.positions).filter(|(_, segment)| **segment == 0);
            work.first = firsts.map(|(row, _)| f64::from(row[0])).sum();
        }
        if let What::Refine { width } = case.what {
            let position = |i: u64| (i * 7_919 % rows as u64) as u32;
            work.positions = (0..(queries * width) as u64).map(position).collect();
        }
        // Without the codes that it needs it stays empty, and running it says so.
        work.program = work.write().map(|(program, _)| program).unwrap_or_default();
        work
    }
}

impl Data {
    fn new(shape: Shape) -> Data {
        let (queries, rows, dim) = shape;
        let mut numbers = Random::new(1);
        let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| numbers.signed()).collect() };
        let (rows, queries) = (random(rows * dim), random(queries * dim));
        let lengths = |x: &[f32]| x.chunks(dim).map(|row| length(Norm::L2, row) as f32).collect();
        let (row_norms, query_norms) = (lengths(&rows), lengths(&queries));
        Data { shape, rows, queries, row_norms, query_norms, tag: Tag::new(), codes: None, lists: None }
    }

    fn view<'a>(&self, floats: &'a [f32]) -> Result<MatrixView<'a, f32>, EngineError> {
        MatrixView::new(floats, self.shape.2).map_err(|e| EngineError::Mismatch(e.to_string()))
    }

    /// Learns a code and writes rows and queries in it; on the CPU, as an index does.
    fn encode(&self) -> Result<(Codes, QueryCodes, Tag), EngineError> {
        let engine = CpuEngine::new(CpuOptions::default());
        let (rows, mut codes) = (RowsView::F32(self.view(&self.rows)?), Codes::default());
        let coder = Coder::train(&engine, Metric::L2, &rows, &self.row_norms)?;
        coder.encode(&engine, &rows, &self.row_norms, &mut codes)?;
        Ok((codes, coder.queries(&engine, self.view(&self.queries)?, &self.query_norms)?, Tag::new()))
    }
}

fn length(norm: Norm, row: &[f32]) -> f64 {
    let wide = row.iter().map(|&x| f64::from(x));
    match norm {
        Norm::L2 => wide.map(|x| x * x).sum::<f64>().sqrt(),
        Norm::L1 => wide.map(f64::abs).sum(),
        Norm::Max => wide.fold(0.0, |most, x| most.max(x.abs())),
    }
}

impl Workload<'_> {
    /// What is done.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The program and its inputs.
    fn write(&self) -> Result<(Program, Vec<Input<'_>>), EngineError> {
        let view = |floats| self.data.view(floats).map(RowsView::F32);
        let (rows, queries) = (view(&self.data.rows)?, view(&self.data.queries)?);
        let batch = Batch {
            metric: self.case.metric,
            rows: Vectors { rows, norms: Some(&self.data.row_norms), tag: Some(&self.data.tag) },
            queries: Vectors { rows: queries, norms: Some(&self.data.query_norms), tag: None },
            mask: None,
            codes: self.codes(),
        };
        let one = |program| Ok((program, batch.inputs()));
        let (count, dim) = (self.case.shape.1, self.case.shape.2);
        match self.case.what {
            What::Distance => one(batch.one(|pairs, _| Distance { pairs })?),
            What::Search { screen, k } => one(batch.nearest(k.min(count), screen)?),
            What::Assign => one(batch.one(|pairs, _| Assign { pairs, codes: None, known: None })?),
            What::Range { .. } => one(batch.one(|pairs, _| Range { pairs, key: self.radius })?),
            What::Scan { .. } => {
                let packed = self.lists().ok_or_else(|| EngineError::Mismatch("no lists".to_owned()))?;
                packed.listed().program(10)
            }
            What::Refine { width } => {
                let mut program = Program::new();
                let (pairs, _) = batch.declare(&mut program)?;
                let given = Input::Positions { positions: &self.positions, width };
                let candidates = program.input(given.ty()?);
                let refined = program.push(Refine { pairs, candidates })?;
                program.output(refined);
                let mut inputs = batch.inputs();
                inputs.push(given);
                Ok((program, inputs))
            }
            What::Normalize(norm) => {
                let input = Input::Vectors(batch.rows);
                let mut program = Program::new();
                let rows = program.input(input.ty()?);
                let normalized = program.push(Normalize { norm, rows })?;
                program.output(normalized);
                Ok((program, vec![input]))
            }
            What::SelectK(k) => {
                let input = Input::Matrix { values: &self.matrix, shape: [self.case.shape.0, count] };
                let mut program = Program::new();
                let from = program.input(input.ty()?);
                let best = program.push(SelectK { from, k: k.min(count) })?;
                program.output(best);
                Ok((program, vec![input]))
            }
            What::SegmentSum => {
                let given = Input::Positions { positions: &self.positions, width: 1 };
                let inputs = [Input::Vectors(batch.rows), given];
                let mut program = Program::new();
                let [rows, labels] = [program.input(inputs[0].ty()?), program.input(inputs[1].ty()?)];
                let sums = program.push(SegmentSum { rows, labels, segments: self.case.shape.0 })?;
                program.output(sums);
                Ok((program, inputs.to_vec()))
            }
            What::Matmul => {
                let matrix = |values, rows| Input::Matrix { values, shape: [rows, dim] };
                let inputs = [matrix(&self.data.queries, self.case.shape.0), matrix(&self.data.rows, count)];
                let mut program = Program::new();
                let [a, b] = [program.input(inputs[0].ty()?), program.input(inputs[1].ty()?)];
                let product = program.push(Matmul { a, b, transposed: true })?;
                program.output(product);
                Ok((program, inputs.to_vec()))
            }
        }
    }

    /// Bytes and operations of all its operations.
    pub fn cost(&self) -> Cost {
        let mut costs = self.program.costs();
        // Codes are read in place of rows.
        if let (Some(coded), Some(first)) = (self.codes(), costs.first_mut()) {
            let queries = coded.queries.bytes.len() + size_of_val(&coded.queries.terms[..]);
            first.bytes_read = (coded.codes.memory_bytes() + queries) as f64;
        }
        // A list that several queries probe is read once.
        if let (Some(packed), Some(first)) = (self.lists(), costs.first_mut()) {
            first.bytes_read = packed.bytes() as f64;
        }
        costs.into_iter().fold(Cost::default(), |a, b| Cost {
            bytes_read: a.bytes_read + b.bytes_read,
            bytes_written: a.bytes_written + b.bytes_written,
            operations: a.operations + b.operations,
            launches: a.launches + b.launches,
        })
    }

    /// Bytes that are touched, each counted once: what decides in which cache they lie.
    pub fn bytes_touched(&self) -> u64 {
        if let Some(coded) = self.codes() {
            return coded.codes.memory_bytes() as u64;
        }
        if let Some(packed) = self.lists() {
            return packed.bytes();
        }
        let keys = self.data.row_norms.len() * self.data.query_norms.len();
        let floats = match self.case.what {
            What::SelectK(_) => self.matrix.len(),
            What::Normalize(_) => 2 * self.data.rows.len(),
            What::Distance | What::Matmul => self.data.rows.len() + keys,
            What::Search { .. }
            | What::Assign
            | What::SegmentSum
            | What::Range { .. }
            | What::Refine { .. }
            | What::Scan { .. } => self.data.rows.len(),
        };
        4 * floats as u64
    }

    /// Runs it once.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn run(&self, engine: &Engine, stats: &mut SearchStats) -> Result<Output, EngineError> {
        let (program, inputs) = self.write()?;
        ops::run(engine, &program, &inputs, stats)
    }

    /// Whether these kernels are those that the case is about; an engine that has none of them takes others.
    pub fn is_done_by(&self, kernels: &[String]) -> bool {
        let on_gpu = kernels.iter().all(|kernel| !kernel.contains('/'));
        !(on_gpu && self.codes().is_some()) || kernels.iter().any(|kernel| kernel.starts_with("search_codes"))
    }

    /// The codes, if the case is about them.
    fn codes(&self) -> Option<Coded<'_>> {
        let What::Search { screen: Screen::Int8, .. } = self.case.what else { return None };
        let (codes, queries, tag) = self.data.codes.as_ref()?;
        Some(Coded { codes, tag, queries })
    }

    /// The lists, if the case is about them.
    fn lists(&self) -> Option<&Packed> {
        matches!(self.case.what, What::Scan { .. }).then_some(self.data.lists.as_ref()).flatten()
    }

    /// What is wrong with an answer, by its first key: a kernel that is fast and wrong is not fast.
    pub fn check(&self, answer: &Output) -> Option<String> {
        let got = match answer {
            Output::Candidates(found) => found.keys.first(),
            Output::Matrix(keys) | Output::Range { keys, .. } => keys.first(),
            Output::Rows { norms, .. } => norms.first(),
            Output::Array(_) | Output::Prepared(_) | Output::Probes { .. } | Output::Projected { .. } => None,
        };
        let got = got.map_or(f64::NAN, |&key| f64::from(key));
        let near = (got - self.first).abs() <= 1e-4 * self.first.abs();
        (!near).then(|| format!("the first key is {got}, it should be {}", self.first))
    }

    /// The first query and row `row` in f64.
    fn key(&self, row: usize) -> f64 {
        let Extent { metric, dim, .. } = self.case.extent();
        let wide = |x: &[f32], i: usize| -> Vec<f64> {
            x.chunks(dim).nth(i).unwrap_or_default().iter().map(|&x| f64::from(x)).collect()
        };
        metric::key(metric, &wide(&self.data.queries, 0), &wide(&self.data.rows, row))
    }

    /// The key at a place in the order of the first query's keys.
    fn key_at(&self, place: usize) -> f64 {
        let mut keys: Vec<f64> = (0..self.case.shape.1).map(|row| self.key(row)).collect();
        let place = place.min(keys.len().saturating_sub(1));
        if keys.is_empty() { f64::NAN } else { *keys.select_nth_unstable_by(place, f64::total_cmp).1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_cases_of_every_scale() {
        for scale in [Scale::Small, Scale::Medium, Scale::Large] {
            for family in FAMILIES {
                let cases = family_cases(family, scale);
                assert!(!cases.is_empty() && cases.iter().all(|c| c.family() == family), "{family} {scale:?}");
            }
            let mut names: Vec<String> = cases(scale).iter().map(|c| format!("{} {}", c.name(), c.shape())).collect();
            let all = names.len();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), all, "two cases have the same name");
        }
        assert!(family_cases("nothing", Scale::Small).is_empty());
    }

    #[test]
    fn codes_are_what_a_coded_search_reads() {
        let case = |screen| l2(What::Search { screen, k: 3 }, (5, 700, 32));
        let (engine, mut bench) = (CpuEngine::new(CpuOptions::default()), Bench::default());
        let plain = bench.make(&case(Screen::None)).bytes_touched();
        let work = bench.make(&case(Screen::Int8));
        assert!(work.bytes_touched() < plain && work.codes().is_some());
        let answer = work.run(&engine, &mut SearchStats::default()).unwrap();
        assert_eq!(work.check(&answer), None);
        // An engine without such a kernel would be measured at something else.
        assert!(work.is_done_by(&["search/avx2".to_owned()]) && work.is_done_by(&["search_codes".to_owned()]));
        assert!(!work.is_done_by(&["search+subgroups".to_owned()]));
    }

    #[test]
    fn answers_are_checked() {
        let (engine, mut bench) = (CpuEngine::new(CpuOptions::default()), Bench::default());
        for family in FAMILIES {
            let case = family_cases(family, Scale::Small)[0];
            let mut work = bench.make(&case);
            let answer = work.run(&engine, &mut SearchStats::default()).unwrap();
            assert_eq!(work.check(&answer), None, "{}", case.name());
            assert!(work.cost().operations > 0.0 && work.bytes_touched() > 0);
            work.first *= 1.01;
            assert!(work.check(&answer).is_some(), "{}", case.name());
        }
    }
}
