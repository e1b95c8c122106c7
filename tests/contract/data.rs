//! Rows to test with: numbers from a seed, matrices of every element type with gaps between rows, and cases that know
//! their own f64 reference.

use std::cell::OnceCell;

use crate::task::{Base, Coded, Input, Plan, Problem, Step, Task};
use half::{bf16, f16};
use nearfield::compute::{EngineError, Mask, Output, Tag};
use nearfield::ops::Engine;
use nearfield::ops::{distance, metric};
use nearfield::stats::SearchStats;
use nearfield::{BitsView, DType, MatrixView, Metric, RowsView};

/// SplitMix64 (Steele, Lea and Flood 2014): the same numbers on every machine.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 * f64::powi(2.0, -53)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// Nearly normal: the sum of twelve uniform numbers less six.
    pub fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// What the components of random rows are like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// In [0, 1); for bytes whole numbers over their non-negative range.
    Positive,
    /// Normal around 0; for i8 over its range. Rows of u8 and bits stay non-negative.
    Signed,
    /// Whole numbers 0 to 3: every sum, product and square of them is exact in f32, and ties abound.
    Whole,
    /// Whole numbers -2 to 2.
    WholeSigned,
}

impl Values {
    /// The non-negative kind where the metric asks for it.
    pub fn suited_to(self, metric: Metric) -> Values {
        match self {
            _ if !metric.needs_non_negative() => self,
            Values::Signed => Values::Positive,
            Values::WholeSigned => Values::Whole,
            other => other,
        }
    }

    fn draw(self, dtype: DType, rng: &mut Rng) -> f32 {
        let whole = match (self, dtype) {
            (_, DType::Bits) => rng.below(2) as f64,
            (Values::Whole, _) => rng.below(4) as f64,
            (Values::WholeSigned, DType::U8) => rng.below(5) as f64,
            (Values::WholeSigned, _) => rng.below(5) as f64 - 2.0,
            (Values::Positive, DType::I8) => rng.below(128) as f64,
            (Values::Signed, DType::I8) => rng.below(256) as f64 - 128.0,
            (_, DType::U8) => rng.below(256) as f64,
            (Values::Positive, _) => rng.unit(),
            (Values::Signed, _) => rng.normal(),
        };
        whole as f32
    }
}

#[derive(Clone)]
enum Store {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    I8(Vec<i8>),
    U8(Vec<u8>),
    Bits(Vec<u8>),
}

/// Rows with memory of their own.
#[derive(Clone)]
pub struct Matrix {
    store: Store,
    rows: usize,
    /// Components; bits for packed bits.
    dim: usize,
    /// Elements from row to row.
    stride: usize,
}

impl Matrix {
    /// Dense rows from a function of row and component. For bits `dim` is a multiple of 8 and a component above 0.5 is set.
    pub fn from_fn(dtype: DType, rows: usize, dim: usize, f: impl FnMut(usize, usize) -> f32) -> Matrix {
        Matrix::with_gap(dtype, rows, dim, 0, f)
    }

    /// The same with `gap` elements between rows, filled with what would spoil any sum (NaN, or all bits).
    pub fn with_gap(
        dtype: DType,
        rows: usize,
        dim: usize,
        gap: usize,
        mut f: impl FnMut(usize, usize) -> f32,
    ) -> Matrix {
        fn each<T: Copy>(rows: usize, dim: usize, gap: usize, hole: T, mut f: impl FnMut(usize, usize) -> T) -> Vec<T> {
            let mut data = Vec::with_capacity(rows * (dim + gap));
            for r in 0..rows {
                data.extend((0..dim).map(|c| f(r, c)));
                if r + 1 < rows {
                    data.extend(std::iter::repeat_n(hole, gap));
                }
            }
            data
        }
        let store = match dtype {
            DType::F32 => Store::F32(each(rows, dim, gap, f32::NAN, f)),
            DType::F16 => Store::F16(each(rows, dim, gap, f16::NAN, |r, c| f16::from_f32(f(r, c)))),
            DType::Bf16 => Store::Bf16(each(rows, dim, gap, bf16::NAN, |r, c| bf16::from_f32(f(r, c)))),
            DType::I8 => Store::I8(each(rows, dim, gap, -1, |r, c| f(r, c) as i8)),
            DType::U8 => Store::U8(each(rows, dim, gap, 255, |r, c| f(r, c) as u8)),
            DType::Bits => {
                assert!(dim.is_multiple_of(8), "packed rows have whole bytes");
                let mut byte =
                    |r: usize, c: usize| (0..8).fold(0, |b, bit| b | (u8::from(f(r, c * 8 + bit) > 0.5) << bit));
                Store::Bits(each(rows, dim / 8, gap, 255, &mut byte))
            }
            other => panic!("no test rows of {other}"),
        };
        let elements = if dtype == DType::Bits { dim / 8 } else { dim };
        Matrix { store, rows, dim, stride: elements + gap }
    }

    /// Random rows.
    pub fn random(dtype: DType, rows: usize, dim: usize, values: Values, seed: u64) -> Matrix {
        let mut rng = Rng::new(seed);
        Matrix::from_fn(dtype, rows, dim, |_, _| values.draw(dtype, &mut rng))
    }

    /// Elements of a row.
    fn elements(&self) -> usize {
        if let Store::Bits(_) = self.store { self.dim / 8 } else { self.dim }
    }

    pub fn view(&self) -> RowsView<'_> {
        let dim = self.elements();
        fn view<T>(data: &[T], rows: usize, dim: usize, stride: usize) -> MatrixView<'_, T> {
            MatrixView::with_stride(data, rows, dim, stride).unwrap()
        }
        match &self.store {
            Store::F32(data) => RowsView::F32(view(data, self.rows, dim, self.stride)),
            Store::F16(data) => RowsView::F16(view(data, self.rows, dim, self.stride)),
            Store::Bf16(data) => RowsView::Bf16(view(data, self.rows, dim, self.stride)),
            Store::I8(data) => RowsView::I8(view(data, self.rows, dim, self.stride)),
            Store::U8(data) => RowsView::U8(view(data, self.rows, dim, self.stride)),
            Store::Bits(data) => RowsView::Bits(BitsView::from_bytes(view(data, self.rows, dim, self.stride))),
        }
    }

    /// Euclidean lengths in f64.
    pub fn lengths(&self) -> Vec<f64> {
        let view = self.view();
        (0..self.rows).map(|r| distance::row_f64(&view, r).iter().map(|x| x * x).sum::<f64>().sqrt()).collect()
    }

    /// f32 rows divided by their lengths (zero rows stay).
    fn scaled(&self) -> Matrix {
        let (view, lengths) = (self.view(), self.lengths());
        let rows: Vec<Vec<f64>> = (0..self.rows).map(|r| distance::row_f64(&view, r)).collect();
        let gap = self.stride - self.dim;
        Matrix::with_gap(DType::F32, self.rows, self.dim, gap, |r, c| match lengths[r] {
            0.0 => 0.0,
            length => (rows[r][c] / length) as f32,
        })
    }
}

/// The type of the queries for rows of this type.
pub fn query_dtype(rows: DType) -> DType {
    if rows == DType::Bits { DType::Bits } else { DType::F32 }
}

/// Queries and rows under a metric, and their exact keys.
pub struct Case {
    pub metric: Metric,
    pub queries: Matrix,
    pub rows: Matrix,
    query_lengths: Vec<f64>,
    row_lengths: Vec<f64>,
    query_norms: Vec<f32>,
    row_norms: Vec<f32>,
    keys: OnceCell<Vec<f64>>,
}

fn rounded(lengths: &[f64]) -> Vec<f32> {
    lengths.iter().map(|&x| x as f32).collect()
}

impl Case {
    /// Queries are scaled for cosine, as an index does.
    pub fn new(metric: Metric, queries: Matrix, rows: Matrix) -> Case {
        let queries = if metric == Metric::Cosine { queries.scaled() } else { queries };
        let (query_lengths, row_lengths) = (queries.lengths(), rows.lengths());
        Case {
            metric,
            query_norms: rounded(&query_lengths),
            row_norms: rounded(&row_lengths),
            queries,
            rows,
            query_lengths,
            row_lengths,
            keys: OnceCell::new(),
        }
    }

    /// Random queries on random rows: (queries, rows, dim).
    pub fn random(metric: Metric, dtype: DType, shape: (usize, usize, usize), values: Values) -> Case {
        Case::strided(metric, dtype, shape, values, 0)
    }

    /// The same with `gap` elements between rows, and between queries.
    pub fn strided(
        metric: Metric,
        dtype: DType,
        (q, n, dim): (usize, usize, usize),
        values: Values,
        gap: usize,
    ) -> Case {
        let values = values.suited_to(metric);
        let mut rng = Rng::new((q as u64) << 40 ^ (n as u64) << 20 ^ dim as u64);
        let query_dtype = query_dtype(dtype);
        let queries = Matrix::with_gap(query_dtype, q, dim, gap, |_, _| values.draw(query_dtype, &mut rng));
        Case::new(metric, queries, Matrix::with_gap(dtype, n, dim, gap, |_, _| values.draw(dtype, &mut rng)))
    }

    pub fn q(&self) -> usize {
        self.queries.rows
    }

    pub fn n(&self) -> usize {
        self.rows.rows
    }

    pub fn dtype(&self) -> DType {
        self.rows.view().dtype()
    }

    pub fn problem(&self) -> Problem {
        Problem { metric: self.metric, dtype: self.dtype(), dim: self.rows.dim, rows: self.n(), queries: self.q() }
    }

    /// What a failed check is about.
    pub fn label(&self) -> String {
        let (p, strided) = (self.problem(), self.rows.stride != self.rows.elements());
        let strided = if strided { ", strided" } else { "" };
        format!("{} {}, {} queries x {} rows x {}{strided}", p.metric, p.dtype, p.queries, p.rows, p.dim)
    }

    /// The exact key of row `r` for query `q`.
    pub fn key(&self, q: usize, r: usize) -> f64 {
        // + 0.0: a zero has no sign here.
        self.keys()[q * self.n() + r] + 0.0
    }

    /// All exact keys, `[queries, rows]`.
    pub fn keys(&self) -> &[f64] {
        self.keys.get_or_init(|| distance::reference(self.metric, &self.queries.view(), &self.rows.view()))
    }

    /// How far an engine's key of this pair may lie from the exact one.
    pub fn tolerance(&self, q: usize, r: usize) -> f64 {
        let (a, b) = (self.query_lengths[q], self.row_lengths[r]);
        // A correctly rounded key is never wrong, whatever the bound says.
        let rounding = self.key(q, r).abs() * f64::powi(2.0, -24);
        rounding.max(metric::tolerance(self.metric, self.dtype(), self.rows.dim, self.key(q, r), a, b))
    }

    /// Lengths of query `q` and row `r`.
    pub fn lengths(&self, q: usize, r: usize) -> (f64, f64) {
        (self.query_lengths[q], self.row_lengths[r])
    }

    /// Runs steps; what an engine may need and does not have (norms) is only given where the contract says so.
    pub fn try_run(
        &self,
        engine: &Engine,
        steps: &[Step],
        mask: Option<Mask<'_>>,
        input: Input<'_>,
        tag: Option<&Tag>,
    ) -> Result<(Output, SearchStats), EngineError> {
        self.try_run_coded(engine, steps, mask, input, tag, None)
    }

    /// The same with codes.
    pub fn try_run_coded(
        &self,
        engine: &Engine,
        steps: &[Step],
        mask: Option<Mask<'_>>,
        input: Input<'_>,
        tag: Option<&Tag>,
        codes: Option<Coded<'_>>,
    ) -> Result<(Output, SearchStats), EngineError> {
        let plan = Plan { problem: self.problem(), steps: steps.to_vec() };
        let screened = steps.iter().any(|s| matches!(s, Step::Search { screen, .. } if *screen != Default::default()));
        let norms = (screened || self.metric == Metric::Cosine).then_some(&self.row_norms[..]);
        let task = Task {
            plan: &plan,
            base: Base { rows: self.rows.view(), norms, tag, codes },
            queries: self.queries.view(),
            query_norms: &self.query_norms,
            mask,
            input,
        };
        let mut stats = SearchStats::default();
        task.run(engine, &mut stats).map(|output| (output, stats))
    }

    /// [`Case::try_run`] where an error is a failure.
    pub fn run(&self, engine: &Engine, steps: &[Step], mask: Option<Mask<'_>>, input: Input<'_>) -> Output {
        match self.try_run(engine, steps, mask, input, None) {
            Ok((output, _)) => output,
            Err(e) => panic!("{} on {}: {steps:?} gave an error: {e}", self.label(), engine.name()),
        }
    }
}

/// Which rows a test allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Allow {
    All,
    Nothing,
    /// About half of the rows, others for each query.
    Half,
    /// One row, near the end; for each query another.
    One,
}

/// A bitmap and its stride.
pub struct Bits {
    words: Vec<u32>,
    stride: usize,
}

impl Bits {
    /// One bitmap for all queries, or one per query.
    pub fn new(allow: Allow, rows: usize, queries: usize, per_query: bool) -> Bits {
        let mut rng = Rng::new(rows as u64 + 7);
        let maps = if per_query { queries } else { 1 };
        let stride = rows.div_ceil(32);
        let mut words = vec![0u32; stride * maps];
        for map in 0..maps {
            for r in 0..rows {
                let allowed = match allow {
                    Allow::All => true,
                    Allow::Nothing => false,
                    Allow::Half => rng.below(2) == 1,
                    Allow::One => r + 1 + map % rows == rows,
                };
                words[map * stride + r / 32] |= u32::from(allowed) << (r % 32);
            }
        }
        Bits { words, stride: if per_query { stride } else { 0 } }
    }

    pub fn mask(&self) -> Mask<'_> {
        Mask { words: &self.words, stride: self.stride, tag: None }
    }
}
