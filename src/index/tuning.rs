//! The choice of an index by measurement: specs and settings are tried on half of the caller's queries. The other half
//! checks the choice.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::{AnyIndex, CodecSpec, IndexSpec, RerankSpec, SearchOptions, TrainOptions, TransformSpec};
use crate::engine::Device;
use crate::error::SearchError;
use crate::format::{Matrix, NotBytes};
use crate::index::BuildError;
use crate::ops::Screen;
use crate::ops::metric;
use crate::types::{DType, Metric, Neighbors, RowsView};

/// How much faster a later, less simple index must be: speeds vary by this from run to run.
const MARGIN: f64 = 1.03;

/// How long a setting is timed at first.
const GLANCE: Duration = Duration::from_millis(40);

/// How long a setting is timed when it may be among the best.
const LEAST: Duration = Duration::from_millis(200);

/// The goal of a tuning.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nearfield::format::Matrix;
/// use nearfield::{Device, Metric, Tuning};
///
/// let rows = Matrix::from_vec((0..8000).map(|i| ((i * 37) % 101) as f32).collect(), 8)?;
/// let queries = rows.view().slice(0, 40);
/// let tuned = Tuning::new(0.9).run(&Device::cpu(), &rows, queries, Metric::L2, 5, &mut |_| {})?;
/// assert!(tuned.points[tuned.chosen].checked >= 0.9);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Tuning {
    /// The share of the true neighbours that should be found.
    pub recall: f32,
    /// Bytes that the index may take at most.
    pub memory: Option<u64>,
    /// Queries per call. Few or many make another index the fastest.
    pub batch: usize,
    /// Seed of all that is random.
    pub seed: u64,
    /// Specs to try; when empty, those that [`IndexSpec::suggest`] and its neighbourhood give.
    pub specs: Vec<IndexSpec>,
}

/// What was found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Tuned {
    /// The settings that no other beats in recall, speed and bytes, the fastest first.
    pub points: Vec<TunedPoint>,
    /// Which of them was chosen: the fastest that reached the goal on both halves of the queries; else the one of the
    /// highest recall.
    pub chosen: usize,
    /// Whether the chosen one reached the goal on both halves.
    pub reached: bool,
    /// The index, set as chosen.
    pub index: AnyIndex,
}

/// One setting of one spec.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct TunedPoint {
    /// The index.
    pub spec: IndexSpec,
    /// Lists probed; absent where there are none.
    pub probes: Option<usize>,
    /// Rows re-ranked; absent where none are.
    pub rerank: Option<usize>,
    /// Recall on the half of the queries that was tuned with.
    pub recall: f64,
    /// Recall on the other half, which no setting was picked by but which the chosen one must reach the goal on too.
    pub checked: f64,
    /// Queries per second, in batches as asked for.
    pub qps: f64,
    /// Bytes of the index.
    pub bytes: usize,
    /// Seconds that building took.
    pub build_seconds: f64,
}

/// Why nothing could be tuned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuneError {
    /// One half of the queries must be left to check with.
    #[error("{found} queries, wanted at least 2: one half is tuned with, the other checked with")]
    TooFewQueries {
        /// Queries given.
        found: usize,
    },
    /// No index fits.
    #[error("no index fits into {memory} bytes; the smallest tried, `{smallest}`, takes about {bytes}")]
    Memory {
        /// Bytes allowed.
        memory: u64,
        /// The smallest spec.
        smallest: IndexSpec,
        /// What it takes.
        bytes: u64,
    },
    /// An index could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A search failed.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// Queries that can't be packed bits.
    #[error(transparent)]
    Bits(#[from] NotBytes),
}

impl Tuning {
    /// Wants a share `recall` of the true neighbours, in batches of 1,000 queries, whatever the bytes.
    pub fn new(recall: f32) -> Tuning {
        Tuning { recall, memory: None, batch: 1000, seed: 0, specs: Vec::new() }
    }

    /// Within so many bytes.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Tuning {
        self.memory = Some(bytes);
        self
    }

    /// In batches of so many queries.
    #[must_use]
    pub fn batch(mut self, queries: usize) -> Tuning {
        self.batch = queries;
        self
    }

    /// With this seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Tuning {
        self.seed = seed;
        self
    }

    /// Of these specs.
    #[must_use]
    pub fn specs(mut self, specs: Vec<IndexSpec>) -> Tuning {
        self.specs = specs;
        self
    }

    /// Builds the indexes worth trying over `rows`, measures their settings with every second of `queries`, checks with
    /// the others, and gives the fastest index that finds the share of the `k` nearest that is wanted. It keeps `Flat`
    /// when that is the fastest. `told` is given a line as each index is tried.
    ///
    /// Builds some ten indexes and searches each for some seconds, on the device and all of its threads; blocks until it is
    /// done.
    ///
    /// # Errors
    /// [`TuneError`].
    pub fn run(
        &self,
        device: &Device,
        rows: &Matrix,
        queries: RowsView<'_>,
        metric: Metric,
        k: usize,
        told: &mut dyn FnMut(&str),
    ) -> Result<Tuned, TuneError> {
        if queries.rows() < 2 {
            return Err(TuneError::TooFewQueries { found: queries.rows() });
        }
        let options = TrainOptions::default().seed(self.seed);
        let flat = AnyIndex::build(device, &IndexSpec::FLAT, metric, rows.clone(), None, &options)?;
        let halves = Halves::new(&flat, rows, queries, k, metric)?;
        let mut best: Option<(usize, AnyIndex)> = None;
        let mut smallest: Option<(u64, IndexSpec)> = None;
        let (mut points, mut kept): (Vec<TunedPoint>, Option<f64>) = (Vec::new(), None);
        for spec in self.candidates(rows, metric)? {
            let began = Instant::now();
            let mut index = AnyIndex::build(device, &spec, metric, rows.clone(), None, &options)?;
            self.prepare(&mut index)?;
            let build = began.elapsed().as_secs_f64();
            let bytes = index.memory_bytes() as u64;
            if smallest.as_ref().is_none_or(|(least, _)| bytes < *least) {
                smallest = Some((bytes, spec.clone()));
            }
            if let Some(memory) = self.memory.filter(|&m| bytes > m) {
                told(&format!("{spec}: takes {} bytes, {memory} are allowed", index.memory_bytes()));
                continue;
            }
            let first = points.len();
            for options in front(&halves, &index, k, self.batch)? {
                points.push(self.point(&halves, &index, &options, k, build)?);
            }
            // Kept while it holds the best setting so far.
            if let Some(i) = (first..points.len()).filter(|&i| self.reaches(&points[i])).max_by(by_speed(&points))
                && kept.is_none_or(|qps| points[i].qps > qps * MARGIN)
            {
                kept = Some(points[i].qps);
                set(&mut index, &points[i]);
                best = Some((i, index));
            } else if best.is_none() || kept.is_none() {
                let most = |&a: &usize, &b: &usize| points[a].checked.total_cmp(&points[b].checked);
                let i = (0..points.len()).max_by(most).unwrap_or(0);
                if i >= first {
                    set(&mut index, &points[i]);
                    best = Some((i, index));
                }
            }
            let fastest = (first..points.len()).filter(|&i| self.reaches(&points[i])).max_by(by_speed(&points));
            told(&match fastest {
                Some(i) => format!("{spec}: {:.0} queries/s at recall {:.3}", points[i].qps, points[i].checked),
                None => format!("{spec}: does not reach recall {}", self.recall),
            });
        }
        if let (true, Some(memory), Some((bytes, smallest))) = (points.is_empty(), self.memory, smallest) {
            return Err(TuneError::Memory { memory, smallest, bytes });
        }
        let (chosen, index) = best.unwrap_or((0, flat));
        let reached = points.get(chosen).is_some_and(|p| self.reaches(p));
        let (points, chosen) = pareto(points, chosen);
        Ok(Tuned { points, chosen, reached, index })
    }

    /// Makes the codes of an exact index where they pay, and leaves them out where memory does not allow them.
    fn prepare(&self, index: &mut AnyIndex) -> Result<(), TuneError> {
        let AnyIndex::Flat(flat) = index else { return Ok(()) };
        flat.prepare()?;
        if self.memory.is_some_and(|memory| flat.memory_bytes() as u64 > memory) {
            flat.set_screen(Some(Screen::F32))?;
        }
        Ok(())
    }

    /// One setting of an index that took `build_seconds` to build: timed on half of the queries, checked on the other half.
    fn point(
        &self,
        halves: &Halves<'_>,
        index: &AnyIndex,
        options: &SearchOptions,
        k: usize,
        build_seconds: f64,
    ) -> Result<TunedPoint, TuneError> {
        let (qps, recall) = halves.time(index, options, k, self.batch, LEAST)?;
        Ok(TunedPoint {
            spec: index.spec(),
            probes: options.probes,
            rerank: options.rerank,
            recall,
            checked: halves.check(index, options, k, self.batch)?,
            qps,
            bytes: index.memory_bytes(),
            build_seconds,
        })
    }

    fn reaches(&self, point: &TunedPoint) -> bool {
        point.recall.min(point.checked) >= f64::from(self.recall)
    }

    /// The specs worth trying for these rows.
    fn candidates(&self, rows: &Matrix, metric: Metric) -> Result<Vec<IndexSpec>, TuneError> {
        let (n, dim) = (rows.rows(), rows.dim());
        let mut specs = self.specs.clone();
        let coded = matches!(metric, Metric::L2 | Metric::InnerProduct | Metric::Cosine);
        if specs.is_empty() {
            specs.push(IndexSpec::FLAT);
        }
        if self.specs.is_empty() && coded {
            // As if there were a few more rows, so that lists are tried where rules would keep to Flat.
            let suggested = IndexSpec::suggest(n.max(50_000), dim, self.memory, self.recall.min(0.999));
            specs.extend(neighbourhood(&suggested, dim));
        }
        // Those that the caller names must fit; of those that rules give, the fitting are taken.
        self.specs.iter().try_for_each(|s| s.check(dim, metric, Some(n))).map_err(BuildError::from)?;
        let mut seen = HashSet::new();
        specs.retain(|s| s.check(dim, metric, Some(n)).is_ok() && seen.insert(s.to_string()));
        // Rows of bytes take less than is said of them in f32; what is built is measured again.
        let Some(memory) = self.memory.filter(|_| rows.dtype() == DType::F32) else { return Ok(specs) };
        let bytes = |s: &IndexSpec| (s.bytes_per_vector(dim) * n) as u64;
        let Some(smallest) = specs.iter().min_by_key(|s| bytes(s)).cloned() else { return Ok(specs) };
        specs.retain(|s| bytes(s) <= memory);
        match specs.is_empty() {
            true => Err(TuneError::Memory { memory, bytes: bytes(&smallest), smallest }),
            false => Ok(specs),
        }
    }
}

/// A spec, and those that differ from it in one thing.
fn neighbourhood(spec: &IndexSpec, dim: usize) -> Vec<IndexSpec> {
    let mut specs = vec![spec.clone()];
    let with = |change: &dyn Fn(&mut IndexSpec)| {
        let mut other = spec.clone();
        change(&mut other);
        other
    };
    if let Some(lists) = spec.lists {
        specs.push(with(&|s| s.lists = Some(lists * 2)));
        specs.push(with(&|s| s.lists = Some((lists / 2).max(1))));
    }
    if let [TransformSpec::Pca { dim: kept, rotate }] = spec.transforms[..] {
        let more = (kept * 3 / 2).min(dim);
        specs.push(with(&|s| s.transforms = vec![TransformSpec::Pca { dim: more, rotate }]));
    }
    if spec.rerank.is_some() {
        specs.push(with(&|s| {
            s.transforms.clear();
            s.codec = CodecSpec::RaBitQ { bits: 4 };
        }));
        specs.push(with(&|s| s.rerank = Some(RerankSpec::Scalar8)));
    }
    specs
}

fn by_speed(points: &[TunedPoint]) -> impl Fn(&usize, &usize) -> std::cmp::Ordering + '_ {
    |&a, &b| points[a].qps.total_cmp(&points[b].qps)
}

fn set(index: &mut AnyIndex, point: &TunedPoint) {
    if let AnyIndex::Ivf(ivf) = index {
        ivf.set_probes(point.probes.unwrap_or(1));
        ivf.set_rerank(point.rerank);
    }
}

/// The settings of an index, from few lists and rows to many.
pub fn settings(index: &AnyIndex, k: usize) -> Vec<SearchOptions> {
    let AnyIndex::Ivf(ivf) = index else { return vec![SearchOptions::default()] };
    let lists = ivf.lists();
    let mut probes: Vec<usize> =
        [1, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512, 1024]
            .to_vec();
    probes.retain(|&p| p <= lists);
    let halves: &[usize] = if ivf.spec().rerank.is_some() { &[2, 3, 4, 5, 6, 8, 12, 16, 32, 64] } else { &[] };
    let rerank: Vec<Option<usize>> = match halves {
        [] => vec![None],
        halves => halves.iter().map(|h| Some(k.saturating_mul(*h).div_ceil(2).min(index.len().max(1)))).collect(),
    };
    let option = |probes: usize, rerank: Option<usize>| {
        let options = SearchOptions::default().probes(probes);
        rerank.map_or(options.clone(), |rows| options.rerank(rows))
    };
    probes.iter().flat_map(|&p| rerank.iter().map(move |&r| option(p, r))).collect()
}

/// Of points (recall, queries per second) those that no other surpasses in both, the fastest first.
pub fn fastest(points: &[(f64, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| points[b].1.total_cmp(&points[a].1));
    let mut best = f64::NEG_INFINITY;
    order.retain(|&i| {
        let better = points[i].0 > best;
        best = best.max(points[i].0);
        better
    });
    order
}

/// The settings of one index that no other of it surpasses.
fn front(halves: &Halves<'_>, index: &AnyIndex, k: usize, batch: usize) -> Result<Vec<SearchOptions>, SearchError> {
    let settings = settings(index, k);
    let time =
        |options: &SearchOptions| halves.time(index, options, k, batch, GLANCE).map(|(qps, recall)| (recall, qps));
    let tried = settings.iter().map(time).collect::<Result<Vec<_>, _>>()?;
    Ok(fastest(&tried).into_iter().map(|i| settings[i].clone()).collect())
}

/// The points that no other surpasses in recall, speed and bytes, the fastest first, and where the chosen one is.
fn pareto(points: Vec<TunedPoint>, chosen: usize) -> (Vec<TunedPoint>, usize) {
    let beats = |a: &TunedPoint, b: &TunedPoint| {
        let (at_least, more) = (
            a.checked >= b.checked && a.qps >= b.qps && a.bytes <= b.bytes,
            a.checked > b.checked || a.qps > b.qps || a.bytes < b.bytes,
        );
        at_least && more
    };
    let mut order: Vec<usize> =
        (0..points.len()).filter(|&i| i == chosen || !points.iter().any(|other| beats(other, &points[i]))).collect();
    order.sort_by(|&a, &b| points[b].qps.total_cmp(&points[a].qps));
    let at = order.iter().position(|&i| i == chosen).unwrap_or(0);
    (order.into_iter().map(|i| points[i].clone()).collect(), at)
}

/// Every second query, and the others, each with its true neighbours.
struct Halves<'a> {
    metric: Metric,
    rows: &'a Matrix,
    tuned: Half,
    checked: Half,
}

struct Half {
    queries: Matrix,
    truth: Neighbors,
}

impl<'a> Halves<'a> {
    fn new(
        flat: &AnyIndex,
        rows: &'a Matrix,
        queries: RowsView<'_>,
        k: usize,
        metric: Metric,
    ) -> Result<Halves<'a>, TuneError> {
        let half = |first: usize| -> Result<Half, TuneError> {
            let picked = (first..queries.rows()).step_by(2);
            let matrix = match queries {
                RowsView::Bits(bits) => {
                    let bytes: Vec<u8> = picked.flat_map(|q| bits.row(q).to_vec()).collect();
                    Matrix::from_vec(bytes, bits.dim() / 8).map_err(BuildError::from)?.into_bits()?
                }
                _ => {
                    let mut floats = vec![0.0; picked.len() * queries.dim()];
                    for (q, row) in picked.zip(floats.chunks_exact_mut(queries.dim())) {
                        queries.row_f32(q, row);
                    }
                    Matrix::from_vec(floats, queries.dim()).map_err(BuildError::from)?
                }
            };
            let (truth, _) = flat.search_with(matrix.view(), k, &SearchOptions::default())?;
            Ok(Half { queries: matrix, truth })
        };
        Ok(Halves { metric, rows, tuned: half(0)?, checked: half(1)? })
    }

    /// Queries per second and recall on the half that is tuned with.
    fn time(
        &self,
        index: &AnyIndex,
        options: &SearchOptions,
        k: usize,
        batch: usize,
        least: Duration,
    ) -> Result<(f64, f64), SearchError> {
        let half = &self.tuned;
        // Once to have everything in place.
        let recall = self.recall(half, &half.ask(index, options, k, batch)?);
        let (began, mut rounds) = (Instant::now(), 0);
        while rounds == 0 || began.elapsed() < least {
            half.ask(index, options, k, batch)?;
            rounds += 1;
        }
        let spent = began.elapsed().as_secs_f64().max(1e-9);
        Ok(((rounds * half.queries.rows()) as f64 / spent, recall))
    }

    fn check(&self, index: &AnyIndex, options: &SearchOptions, k: usize, batch: usize) -> Result<f64, SearchError> {
        Ok(self.recall(&self.checked, &self.checked.ask(index, options, k, batch)?))
    }

    /// The share of answers that lie as near as the k-th true neighbour, whatever distance the index gave them: ties cost
    /// nothing.
    fn recall(&self, half: &Half, found: &[Neighbors]) -> f64 {
        let view = self.rows.view();
        let row = |rows: &RowsView<'_>, i: usize| -> Vec<f64> {
            let mut floats = vec![0.0; rows.dim()];
            rows.row_f32(i, &mut floats);
            floats.into_iter().map(f64::from).collect()
        };
        let (mut hits, mut wanted, mut q) = (0, 0, 0);
        for part in found {
            for i in 0..part.queries {
                let truth: Vec<u64> = half.truth.query(q).map(|(id, _)| id).collect();
                let known = part.query(i).filter(|(id, _)| truth.contains(id)).count();
                let mut right = known;
                if let Some(&last) = truth.last().filter(|_| known < truth.len()) {
                    let query = row(&half.queries.view(), q);
                    let key = |id: u64| metric::key(self.metric, &query, &row(&view, id as usize));
                    let kth = key(last);
                    let near = |id: u64| key(id) <= kth + 1e-6 * kth.abs();
                    right += part.query(i).filter(|(id, _)| !truth.contains(id) && near(*id)).count();
                }
                hits += right.min(truth.len());
                wanted += truth.len();
                q += 1;
            }
        }
        if wanted == 0 { 1.0 } else { hits as f64 / wanted as f64 }
    }
}

impl Half {
    fn ask(
        &self,
        index: &AnyIndex,
        options: &SearchOptions,
        k: usize,
        batch: usize,
    ) -> Result<Vec<Neighbors>, SearchError> {
        let (view, q) = (self.queries.view(), self.queries.rows());
        (0..q)
            .step_by(batch.max(1))
            .map(|start| index.search_with(view.slice(start, q.min(start + batch.max(1))), k, options).map(|(f, _)| f))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_leaves_out_what_another_beats() {
        let points = [(0.9, 100.0), (0.8, 90.0), (0.95, 50.0), (0.95, 40.0), (0.5, 200.0)];
        assert_eq!(fastest(&points), [4, 0, 2]);
    }

    #[test]
    fn few_bytes_and_the_chosen_one_stay() {
        let point = |checked, qps, bytes| TunedPoint {
            spec: IndexSpec::FLAT,
            probes: None,
            rerank: None,
            recall: checked,
            checked,
            qps,
            bytes,
            build_seconds: 0.0,
        };
        let all = vec![point(0.9, 10.0, 100), point(0.9, 9.0, 50), point(0.8, 5.0, 60), point(0.85, 8.0, 55)];
        let (points, chosen) = pareto(all, 3);
        assert_eq!(points.iter().map(|p| p.bytes).collect::<Vec<_>>(), [100, 50, 55]);
        assert_eq!(chosen, 2);
    }
}
