//! The verbs alone, on the caller's own rows: people come for one kernel and stay for the index.

use std::future::Future;

use crate::cluster::{self, WithLengths};
use crate::compute::{EngineError, Input, Output, Pending, Vectors, room};
use crate::engine::Device;
use crate::error::SearchError;
use crate::index::Queries;
use crate::linalg::lengths;
use crate::ops::assign::assigns;
use crate::ops::{self, Batch, Distance, Norm, Normalize, Op, Pairs, Program, Range, Refine, Screen, Search, SelectK};
use crate::stats::SearchStats;
use crate::types::{DType, IntoRows, MatrixView, Metric, NO_ID, Neighbors, RangeHits, RowsView, ShapeError};

/// Which values are the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The smallest first.
    Smallest,
    /// The largest first.
    Largest,
}

impl Device {
    /// All distances (or similarities) between queries `[q, dim]` and rows `[n, dim]`: `[q, n]`.
    ///
    /// # Errors
    /// [`SearchError`]: other dimensions, NaN or infinity, a metric that the element type does not have.
    pub fn distances<'a>(
        &self,
        queries: impl IntoRows<'a>,
        rows: impl IntoRows<'a>,
        metric: Metric,
    ) -> Result<Vec<f32>, SearchError> {
        self.distances_async(queries, rows, metric).wait()
    }

    /// [`Device::distances`] as a future. It holds up no thread while a GPU works; its work on the CPU is done by who polls
    /// it ([`Device::spawn`] has a thread for that). So do the other verbs that end in `_async`.
    pub fn distances_async<'s, 'a: 's>(
        &'s self,
        queries: impl IntoRows<'a>,
        rows: impl IntoRows<'a>,
        metric: Metric,
    ) -> Pending<'s, Vec<f32>, SearchError> {
        let (queries, rows) = (queries.into_rows(), rows.into_rows());
        self.verb(async move {
            let (queries, rows) = (queries?.narrow(), rows?.narrow());
            let work = Work::new(queries.view(), rows.view(), metric)?;
            if work.is_empty() {
                return Ok(Vec::new());
            }
            match work.run(self, |pairs| Distance { pairs }).await? {
                Output::Matrix(keys) => Ok(keys.into_iter().map(|k| metric.external(k)).collect()),
                _ => Err(mismatch()),
            }
        })
    }

    /// The `k` nearest of `rows` for each query, without an index. Ids are row numbers.
    ///
    /// # Errors
    /// As [`Device::distances`], and when `k` is 0.
    pub fn nearest<'a>(
        &self,
        queries: impl IntoRows<'a>,
        rows: impl IntoRows<'a>,
        metric: Metric,
        k: usize,
    ) -> Result<Neighbors, SearchError> {
        self.nearest_async(queries, rows, metric, k).wait()
    }

    /// [`Device::nearest`] as a future.
    pub fn nearest_async<'s, 'a: 's>(
        &'s self,
        queries: impl IntoRows<'a>,
        rows: impl IntoRows<'a>,
        metric: Metric,
        k: usize,
    ) -> Pending<'s, Neighbors, SearchError> {
        let (queries, rows) = (queries.into_rows(), rows.into_rows());
        self.verb(async move {
            let (queries, rows) = (queries?.narrow(), rows?.narrow());
            if k == 0 {
                return Err(SearchError::ZeroK);
            }
            let work = Work::new(queries.view(), rows.view(), metric)?;
            let q = work.queries.len();
            room(q, k, 12)?;
            if work.is_empty() {
                return Ok(Neighbors { queries: q, k, ids: vec![NO_ID; q * k], distances: vec![f32::NAN; q * k] });
            }
            let keep = k.min(work.rows.rows());
            let found =
                work.run(self, |pairs| Search { pairs, screen: Screen::None, keep, codes: None, wanted: None }).await?;
            neighbors(found, q, k, |key| metric.external(key))
        })
    }

    /// The nearest of `centroids` (`[k, dim]` f32) for each of `points` (`[n, dim]`), exactly: their row numbers, the smaller
    /// one of two at the same distance, and the distances (or similarities). Nothing of size `n k` is ever made.
    ///
    /// # Errors
    /// As [`Device::distances`]; the metric is l2, inner product or cosine.
    pub fn assign<'a>(
        &self,
        points: impl IntoRows<'a>,
        centroids: impl IntoRows<'a>,
        metric: Metric,
    ) -> Result<(Vec<u32>, Vec<f32>), SearchError> {
        self.assign_async(points, centroids, metric).wait()
    }

    /// [`Device::assign`] as a future.
    pub fn assign_async<'s, 'a: 's>(
        &'s self,
        points: impl IntoRows<'a>,
        centroids: impl IntoRows<'a>,
        metric: Metric,
    ) -> Pending<'s, (Vec<u32>, Vec<f32>), SearchError> {
        let (points, centroids) = (points.into_rows(), centroids.into_rows());
        self.verb(async move {
            let (points, centroids) = (points?.narrow(), centroids?.narrow());
            let work = Work::new(points.view(), centroids.view(), metric)?;
            if !assigns(metric, work.rows.dtype()) {
                return Err(SearchError::Assign { metric, dtype: work.rows.dtype() });
            }
            let n = work.queries.len();
            if work.is_empty() {
                return Ok((vec![u32::MAX; n], vec![f32::NAN; n]));
            }
            let (RowsView::F32(points), RowsView::F32(centroids)) = (work.queries.view(), work.rows) else {
                return Err(mismatch());
            };
            let points = WithLengths { rows: points, norms: &work.queries.norms };
            let mut stats = SearchStats::default();
            let centroids = WithLengths { rows: centroids, norms: &work.norms };
            let found = cluster::assign(self, metric, points, centroids, &mut stats).await?;
            self.note(&stats);
            Ok((found.positions, found.keys.into_iter().map(|key| metric.external(key)).collect()))
        })
    }

    /// The `k` smallest or largest of each row of `values` (`[rows, width]`). Ids are places in the row; equal values
    /// are ordered by place and NaN comes last.
    ///
    /// # Errors
    /// [`SearchError`]: `k` is 0, or the values are no whole number of rows.
    pub fn top_k(&self, values: &[f32], width: usize, k: usize, order: Order) -> Result<Neighbors, SearchError> {
        self.top_k_async(values, width, k, order).wait()
    }

    /// [`Device::top_k`] as a future.
    pub fn top_k_async<'s>(
        &'s self,
        values: &'s [f32],
        width: usize,
        k: usize,
        order: Order,
    ) -> Pending<'s, Neighbors, SearchError> {
        self.verb(async move {
            if k == 0 {
                return Err(SearchError::ZeroK);
            }
            let matrix = MatrixView::new(values, width)?;
            let q = matrix.rows();
            let flip = |x: f32| if order == Order::Largest { -x } else { x };
            // Adding 0 makes -0 and 0 the same key.
            let keys: Vec<f32> = values.iter().map(|&x| flip(x) + 0.0).collect();
            if q == 0 {
                return Ok(Neighbors { queries: 0, k, ..Neighbors::default() });
            }
            let input = Input::Matrix { values: &keys, shape: [q, width] };
            let mut program = Program::new();
            let from = program.input(input.ty()?);
            let best = program.push(SelectK { from, k: k.min(width) })?;
            program.output(best);
            neighbors(run(self, &program, &[input]).await?, q, k, flip)
        })
    }

    /// Each row divided by its norm (`[n, dim]` f32), and the norms. A zero row stays zero.
    ///
    /// # Errors
    /// [`SearchError`]: packed bits, NaN or infinity.
    pub fn normalize<'a>(&self, rows: impl IntoRows<'a>, norm: Norm) -> Result<(Vec<f32>, Vec<f32>), SearchError> {
        self.normalize_async(rows, norm).wait()
    }

    /// [`Device::normalize`] as a future.
    pub fn normalize_async<'s, 'a: 's>(
        &'s self,
        rows: impl IntoRows<'a>,
        norm: Norm,
    ) -> Pending<'s, (Vec<f32>, Vec<f32>), SearchError> {
        let rows = rows.into_rows();
        self.verb(async move {
            let rows = rows?.narrow();
            let rows = rows.view();
            if rows.dtype() == DType::Bits {
                return Err(SearchError::Unsupported { metric: Metric::L2, dtype: DType::Bits });
            }
            lengths(&rows).map_err(|(row, component, value)| SearchError::RowNotFinite { row, component, value })?;
            if rows.rows() == 0 {
                return Ok((Vec::new(), Vec::new()));
            }
            let input = Input::Vectors(Vectors { rows, norms: None, tag: None });
            let mut program = Program::new();
            let operand = program.input(input.ty()?);
            let result = program.push(Normalize { norm, rows: operand })?;
            program.output(result);
            match run(self, &program, &[input]).await? {
                Output::Rows { rows, norms } => Ok((rows, norms)),
                _ => Err(mismatch()),
            }
        })
    }

    /// The exact distances (or similarities) of given candidates: `positions` is `[q, width]`, each a row number or
    /// `u32::MAX` for none; the answer is `[q, width]`, NaN where there is no candidate.
    ///
    /// # Errors
    /// As [`Device::distances`], and for a position past the last row.
    pub fn refine<'a>(
        &self,
        queries: impl IntoRows<'a>,
        rows: impl IntoRows<'a>,
        metric: Metric,
        positions: &[u32],
        width: usize,
    ) -> Result<Vec<f32>, SearchError> {
        self.refine_async(queries, rows, metric, positions, width).wait()
    }

    /// [`Device::refine`] as a future.
    pub fn refine_async<'s, 'a: 's>(
        &'s self,
        queries: impl IntoRows<'a>,
        rows: impl IntoRows<'a>,
        metric: Metric,
        positions: &'s [u32],
        width: usize,
    ) -> Pending<'s, Vec<f32>, SearchError> {
        let (queries, rows) = (queries.into_rows(), rows.into_rows());
        self.verb(async move {
            let (queries, rows) = (queries?.narrow(), rows?.narrow());
            let work = Work::new(queries.view(), rows.view(), metric)?;
            let (q, n) = (work.queries.len(), work.rows.rows());
            if Some(positions.len()) != q.checked_mul(width) {
                let wanted = q.saturating_mul(width);
                return Err(SearchError::Length { what: "positions", wanted, found: positions.len() });
            }
            if let Some(i) = positions.iter().position(|&p| p != u32::MAX && p as usize >= n) {
                return Err(SearchError::Position { query: i / width, position: positions[i], rows: n });
            }
            if work.is_empty() || width == 0 {
                return Ok(vec![f32::NAN; positions.len()]);
            }
            let batch = work.batch();
            let mut program = Program::new();
            let (pairs, _) = batch.declare(&mut program)?;
            let given = Input::Positions { positions, width };
            let candidates = program.input(given.ty()?);
            let refined = program.push(Refine { pairs, candidates })?;
            program.output(refined);
            let mut inputs = batch.inputs();
            inputs.push(given);
            let found = run(self, &program, &inputs).await?;
            let Output::Candidates(found) = found else { return Err(mismatch()) };
            let value = |(&key, &p): (&f32, &u32)| if p == u32::MAX { f32::NAN } else { metric.external(key) };
            Ok(found.keys.iter().zip(positions).map(value).collect())
        })
    }

    /// Every one of `rows` within `radius` of each query: distances at most, similarities at least the radius.
    ///
    /// # Errors
    /// As [`Device::distances`], and when the radius is not a number.
    pub fn range<'a>(
        &self,
        queries: impl IntoRows<'a>,
        rows: impl IntoRows<'a>,
        metric: Metric,
        radius: f32,
    ) -> Result<RangeHits, SearchError> {
        self.range_async(queries, rows, metric, radius).wait()
    }

    /// [`Device::range`] as a future.
    pub fn range_async<'s, 'a: 's>(
        &'s self,
        queries: impl IntoRows<'a>,
        rows: impl IntoRows<'a>,
        metric: Metric,
        radius: f32,
    ) -> Pending<'s, RangeHits, SearchError> {
        let (queries, rows) = (queries.into_rows(), rows.into_rows());
        self.verb(async move {
            let (queries, rows) = (queries?.narrow(), rows?.narrow());
            if radius.is_nan() {
                return Err(SearchError::Radius { found: radius });
            }
            let work = Work::new(queries.view(), rows.view(), metric)?;
            if work.is_empty() {
                return Ok(RangeHits { offsets: vec![0; work.queries.len() + 1], ..RangeHits::default() });
            }
            match work.run(self, |pairs| Range { pairs, key: metric.external(radius) }).await? {
                Output::Range { offsets, keys, positions } => Ok(RangeHits {
                    offsets,
                    ids: positions.into_iter().map(u64::from).collect(),
                    distances: keys.into_iter().map(|k| metric.external(k)).collect(),
                }),
                _ => Err(mismatch()),
            }
        })
    }

    /// A verb under way, whose work is shared among the device's threads.
    fn verb<'s, T>(
        &'s self,
        work: impl Future<Output = Result<T, SearchError>> + Send + 's,
    ) -> Pending<'s, T, SearchError> {
        Pending::running(self.within(None, work))
    }
}

/// Checked queries and rows of one call.
struct Work<'a> {
    metric: Metric,
    rows: RowsView<'a>,
    norms: Vec<f32>,
    queries: Queries<'a>,
}

impl<'a> Work<'a> {
    fn new(queries: RowsView<'a>, rows: RowsView<'a>, metric: Metric) -> Result<Work<'a>, SearchError> {
        let dtype = rows.dtype();
        if rows.dim() == 0 {
            return Err(ShapeError::ZeroDim.into());
        }
        if !metric.supports(dtype) {
            return Err(SearchError::Unsupported { metric, dtype });
        }
        let norms =
            lengths(&rows).map_err(|(row, component, value)| SearchError::RowNotFinite { row, component, value })?;
        let queries = Queries::new(metric, dtype, rows.dim(), queries)?;
        Ok(Work { metric, rows, norms, queries })
    }

    fn is_empty(&self) -> bool {
        self.queries.len() == 0 || self.rows.rows() == 0
    }

    fn batch(&self) -> Batch<'_> {
        Batch {
            metric: self.metric,
            rows: Vectors { rows: self.rows, norms: Some(&self.norms), tag: None },
            queries: Vectors { rows: self.queries.view(), norms: Some(&self.queries.norms), tag: None },
            mask: None,
            codes: None,
        }
    }

    async fn run<O: Into<Op>>(&self, device: &Device, op: impl FnOnce(Pairs) -> O) -> Result<Output, SearchError> {
        let batch = self.batch();
        let program = batch.one(|pairs, _| op(pairs))?;
        Ok(run(device, &program, &batch.inputs()).await?)
    }
}

/// Runs a verb, and keeps who answered it.
async fn run(device: &Device, program: &Program, inputs: &[Input<'_>]) -> Result<Output, EngineError> {
    let mut stats = SearchStats::default();
    let output = ops::running(&*device.engine, program, inputs, &mut stats).await?;
    device.note(&stats);
    Ok(output)
}

fn neighbors(found: Output, q: usize, k: usize, value: impl Fn(f32) -> f32) -> Result<Neighbors, SearchError> {
    let Output::Candidates(found) = found else { return Err(mismatch()) };
    room(q, k, 12)?;
    let mut out = Neighbors { queries: q, k, ids: vec![NO_ID; q * k], distances: vec![f32::NAN; q * k] };
    for i in 0..q {
        for j in 0..found.width.min(k) {
            let (key, position) = (found.keys[i * found.width + j], found.positions[i * found.width + j]);
            if position != u32::MAX {
                out.ids[i * k + j] = u64::from(position);
                out.distances[i * k + j] = value(key);
            }
        }
    }
    Ok(out)
}

fn mismatch() -> SearchError {
    EngineError::Mismatch("an engine gave another output than its plan makes".to_owned()).into()
}
