//! Training an `Ivf`, and changing its rows.

use std::sync::Arc;

use super::super::roster::Roster;
use super::super::rowbuf::RowBuf;
use super::super::store::{Checked, Store};
use super::super::{CodecSpec, IndexSpec, RerankSpec, TrainOptions, TransformSpec};
use super::{Ivf, Kept, Rerank, Settings, UNSORTED, inner, sorted_by};
use crate::cluster::{KMeans, WithLengths, assign};
use crate::codec::transform::Transform;
use crate::codec::{self, Codec};
use crate::compute::wait::block_on;
use crate::compute::{EngineError, Tag, Vectors};
use crate::engine::Device;
use crate::index::search::candidates;
use crate::index::{BuildError, Index};
use crate::linalg::{LONGEST, length, lengths};
use crate::ops::lists::{Encoded, Lists, Outside};
use crate::ops::{self, Batch, Screen};
use crate::random::Stretches;
use crate::stats::SearchStats;
use crate::threads;
use crate::types::{Bitmap, BitsView, DType, IntoRows, MatrixView, Metric, RowsView};

/// Rows that are transformed, sorted into lists and coded at a time.
const ROWS_PER_CHUNK: usize = 1 << 15;

/// Rows that a codec learns from at most.
const CODEC_ROWS: usize = 1 << 16;

/// What is said of rows that codes do not come near to.
const OUTSIDE: &str = "lie far outside of the ranges that were learnt";

/// Rows per list that k-means learns from at most.
const ROWS_PER_LIST: usize = 256;

impl Ivf {
    /// Learns transforms, centroids and codes from rows (`[n, dim]`); the index is empty then, and takes these rows or
    /// others of their kind by [`Ivf::add`]. Rows kept for re-ranking (`RFlat`) are stored in the element type given here.
    ///
    /// Takes O(s l d) operations for s rows to learn from (at most 65,536, or 256 per list), l lists and d components, and
    /// O(d^3) for PCA and OPQ, on the device and all of its threads. Blocks until it is done.
    ///
    /// # Errors
    /// [`BuildError`]: a spec that does not fit metric, dimension or rows, named by its part; too few rows; NaN or
    /// infinity (row named).
    pub fn train<'a>(
        device: &Device,
        spec: &IndexSpec,
        metric: Metric,
        rows: impl IntoRows<'a>,
        options: &TrainOptions,
    ) -> Result<Ivf, BuildError> {
        let _entered = device.enter();
        let rows = rows.into_rows()?;
        let rows = rows.view();
        let dim = rows.dim();
        // So that an error of too few training rows names its part of the spec.
        let known = options.rows.map_or(rows.rows(), |wanted| wanted.min(rows.rows()));
        spec.check(dim, metric, Some(known))?;
        if (rows.dtype() == DType::Bits) != spec.binary {
            let wanted = if spec.binary { DType::Bits } else { DType::F32 };
            return Err(BuildError::DType { wanted, found: rows.dtype() });
        }
        let sample = Sample::of(&rows, spec, options)?;
        let learnt = if spec.binary {
            Learnt::bits(device, spec, metric, &sample, options.seed)?
        } else {
            Learnt::floats(device, spec, metric, &sample, options.seed)?
        };
        let stored = match spec.rerank {
            Some(RerankSpec::F16) => DType::F16,
            _ => rows.dtype(),
        };
        let kept = match spec.rerank {
            None => Kept::Ids(Roster::default()),
            Some(RerankSpec::Flat | RerankSpec::F16) => Kept::Rows(Box::new(Store::new(metric, stored, dim)?)),
            Some(RerankSpec::Scalar8) => {
                let codec = sample.codec(metric, options.seed)?;
                let lists = Lists::new(codec.form(), codec.parts(), 1);
                Kept::Codes(Roster::default(), lists, codec.into())
            }
        };
        // What was learnt by then may not have been learnt to the end.
        threads::check().map_err(EngineError::from)?;
        let Learnt { transform, coarse, codec, mut warnings } = learnt;
        warnings.extend(rounding(&rows));
        let count = coarse.as_ref().map_or(0, |coarse| coarse.slots());
        Ok(Ivf {
            device: device.untied(),
            spec: spec.clone(),
            metric,
            dim,
            transform: Arc::new(transform),
            lists: Lists::new(codec.form(), codec.parts(), count),
            residual: true,
            tag: Tag::new(),
            coarse: coarse.map(Arc::new),
            codec: codec.into(),
            kept,
            warnings,
            settings: Settings { probes: (count / 32).clamp(1, 64), rerank: Rerank::Auto },
        })
    }

    /// Whether rows can be taken: type, dimension, finite.
    fn check(&self, rows: &RowsView<'_>) -> Result<(), BuildError> {
        let wanted = self.dtype();
        if (rows.dtype() == DType::Bits) != (wanted == DType::Bits) {
            return Err(BuildError::DType { wanted, found: rows.dtype() });
        }
        if rows.dim() != self.dim {
            return Err(BuildError::Dim { wanted: self.dim, found: rows.dim() });
        }
        match finite(rows)?.iter().position(|&norm| norm > LONGEST) {
            Some(row) => Err(BuildError::TooLongToSquare { row }),
            None => Ok(()),
        }
    }

    pub(super) fn append(&mut self, rows: &RowsView<'_>, ids: Option<&[u64]>) -> Result<Vec<u64>, BuildError> {
        let _entered = self.device.enter();
        // The checks that cost nothing come first.
        self.check(rows)?;
        self.kept.roster().fresh(rows.rows(), ids)?;
        let coded = self.prepare(rows)?;
        self.take(coded, ids)
    }

    /// Everything about rows that can fail or takes long: whatever the index holds, so that one state of it may prepare
    /// them and another take them.
    pub(in crate::index) fn prepare(&self, rows: &RowsView<'_>) -> Result<Coded, BuildError> {
        self.check(rows)?;
        let checked = match &self.kept {
            Kept::Rows(store) => Some(store.checked(rows)?),
            _ => None,
        };
        Ok(Coded { checked, ..self.encode(rows)? })
    }

    /// Replaces the row with this id by a prepared one.
    pub(in crate::index) fn put(&mut self, id: u64, row: Coded) -> Result<(), BuildError> {
        if self.kept.roster().position(id).is_none() {
            return Err(BuildError::UnknownId { id });
        }
        Index::remove(self, &[id]);
        self.take(row, Some(&[id])).map(drop)
    }

    /// Takes prepared rows. It is the caller's thread alone that does it.
    pub(in crate::index) fn take(&mut self, coded: Coded, ids: Option<&[u64]>) -> Result<Vec<u64>, BuildError> {
        let first = self.kept.roster().slots();
        let rows = coded.parts.iter().map(|(_, _, count)| count).sum::<usize>();
        for warning in coded.warnings {
            // The last one of each kind.
            let kind = |text: &str| text.split(": ").next() == warning.split(": ").next() && text.contains(OUTSIDE);
            self.warnings.retain(|known| !kind(known));
            self.warnings.push(warning);
        }
        let fresh = match (&mut self.kept, coded.checked) {
            (Kept::Rows(store), Some(checked)) => store.take(checked, ids)?,
            (Kept::Rows(_), None) => unreachable!("where rows are kept they are prepared"),
            (Kept::Ids(roster) | Kept::Codes(roster, ..), _) => {
                let fresh = roster.fresh(rows, ids)?;
                roster.append(&fresh, ids.is_some());
                fresh
            }
        };
        if self.coarse.is_none() {
            self.lists.grow((first + rows).div_ceil(UNSORTED));
        }
        let mut at = first;
        for (encoded, lists, count) in coded.parts {
            let lists = if self.coarse.is_some() { lists } else { unsorted(at, count) };
            self.lists.append(&encoded, &lists, at as u32);
            at += count;
        }
        if let Kept::Codes(_, lists, _) = &mut self.kept {
            let mut at = first;
            for encoded in coded.better {
                let rows = encoded.codes.len() / lists.code_bytes().max(1);
                lists.append(&encoded, &vec![0; rows], at as u32);
                at += rows;
            }
        }
        Ok(fresh)
    }

    /// The codes of rows and the lists they belong to.
    fn encode(&self, rows: &RowsView<'_>) -> Result<Coded, BuildError> {
        let mut coded = Coded::default();
        let (mut outside, mut better_outside) = (Vec::new(), Vec::new());
        let all = |start: usize, some: &[Outside]| some.iter().map(|o| Outside { row: start + o.row, ..*o }).collect();
        for start in (0..rows.rows()).step_by(ROWS_PER_CHUNK) {
            let some = rows.slice(start, rows.rows().min(start + ROWS_PER_CHUNK));
            let (encoded, lists) = if self.spec.binary { self.encode_bits(&some)? } else { self.encode_floats(&some)? };
            outside.append(&mut all(start, &encoded.outside));
            coded.parts.push((encoded, lists, some.rows()));
            if let Kept::Codes(_, _, codec) = &self.kept {
                let floats = prepared_rows(self.metric, &some);
                let zero = vec![0.0; self.dim];
                let view = matrix(&floats, self.dim)?;
                // Ranked by their decoded rows, so that nothing beside the codes is needed.
                let encoded = codec.encode(Metric::InnerProduct, view, &vec![0; some.rows()], &zero);
                better_outside.append(&mut all(start, &encoded.outside));
                coded.better.push(encoded);
            }
        }
        if let (CodecSpec::F16, Some(&Outside { row, component, value })) = (self.spec.codec, outside.first()) {
            return Err(BuildError::NotFinite { row, component, value, dtype: DType::F16 });
        }
        let better = self.spec.rerank.map_or_else(String::new, |rerank| rerank.to_string());
        for (token, outside) in [(self.spec.codec.to_string(), outside), (better, better_outside)] {
            coded.warnings.extend(outside.first().map(|first| {
                format!(
                    "`{token}`: {} of {} rows {OUTSIDE}, first row {}, whose component {} is {}; the nearest value that codes can \
                     hold stands for it; train with such rows",
                    outside.len(),
                    rows.rows(),
                    first.row,
                    first.component,
                    first.value
                )
            }));
        }
        Ok(coded)
    }

    fn encode_floats(&self, rows: &RowsView<'_>) -> Result<(Encoded, Vec<u32>), BuildError> {
        let projected = self.transform.apply(rows);
        let dim = self.codec.dim();
        let view = matrix(&projected.rows, dim)?;
        let inner = self.inner();
        let (mut encoded, lists) = match &self.coarse {
            Some(coarse) => {
                let lists = nearest(&self.device, view, coarse)?;
                let encoded = if self.residual {
                    self.codec.encode(inner, view, &lists, &coarse.view().floats())
                } else {
                    self.codec.encode(inner, view, &vec![0; view.rows()], &vec![0.0; dim])
                };
                (encoded, lists)
            }
            None => {
                let encoded = self.codec.encode(inner, view, &vec![0; view.rows()], &vec![0.0; dim]);
                (encoded, Vec::new())
            }
        };
        if inner == Metric::L2 && !encoded.add.is_empty() {
            // The distance still contains the length that a projection drops of a row.
            for (add, lost) in encoded.add.iter_mut().zip(&projected.lost) {
                *add += lost;
            }
            if self.metric == Metric::Cosine {
                // A row without direction: cosine 0 to every query, as if its distance were 2.
                let mut row = vec![0.0; self.dim];
                for (r, add) in encoded.add.iter_mut().enumerate() {
                    rows.row_f32(r, &mut row);
                    *add += f32::from(u8::from(self.directionless(&row)));
                }
            }
        }
        Ok((encoded, lists))
    }

    fn encode_bits(&self, rows: &RowsView<'_>) -> Result<(Encoded, Vec<u32>), BuildError> {
        let codes = (0..rows.rows()).flat_map(|r| rows.row_bytes(r)).copied().collect();
        let lists = match &self.coarse {
            Some(coarse) => nearest_bits(&self.device, coarse, rows)?,
            None => Vec::new(),
        };
        Ok((Encoded { codes, ..Default::default() }, lists))
    }
}

/// Codes of rows, chunk by chunk.
#[derive(Default)]
pub(crate) struct Coded {
    /// Codes, the list of each (none where rows are not sorted), and how many.
    parts: Vec<(Encoded, Vec<u32>, usize)>,
    /// For re-ranking, where there are such.
    better: Vec<Encoded>,
    /// The rows themselves, where they are kept.
    checked: Option<Checked>,
    /// What the caller should be told.
    warnings: Vec<String>,
}

/// The lists of rows from a position on, where rows are not sorted.
pub(super) fn unsorted(first: usize, rows: usize) -> Vec<u32> {
    (first..first + rows).map(|p| (p / UNSORTED) as u32).collect()
}

/// Where the rows that were there lie after the holes are closed.
pub(super) fn moved(live: &Bitmap) -> Vec<Option<u32>> {
    let mut next = 0;
    (0..live.len())
        .map(|p| {
            live.get(p).then(|| {
                next += 1;
                next - 1
            })
        })
        .collect()
}

/// How many numbers f32 does not hold, as a note, where codes are made of f32.
fn rounding(rows: &RowsView<'_>) -> Option<String> {
    if !rows.dtype().is_wide() {
        return None;
    }
    let (mut row, mut changed, mut most) = (vec![0.0f64; rows.dim()], 0, 0.0f64);
    for r in 0..rows.rows() {
        rows.row_f64(r, &mut row);
        for by in row.iter().map(|&x| (x - f64::from(x as f32)).abs()).filter(|&by| by != 0.0) {
            (changed, most) = (changed + 1, most.max(by));
        }
    }
    let all = rows.rows() * rows.dim();
    (changed > 0)
        .then(|| format!("codes are made of f32: {changed} of {all} numbers are rounded, by at most {most:.3e}"))
}

/// The lengths of rows that are all finite.
fn finite(rows: &RowsView<'_>) -> Result<Vec<f32>, BuildError> {
    lengths(rows).map_err(|(row, component, value)| BuildError::NotFinite { row, component, value, dtype: DType::F32 })
}

pub(super) fn matrix(data: &[f32], dim: usize) -> Result<MatrixView<'_, f32>, BuildError> {
    Ok(MatrixView::new(data, dim)?)
}

/// Rows as f32, for cosine of length 1.
fn prepared_rows(metric: Metric, rows: &RowsView<'_>) -> Vec<f32> {
    let mut floats = rows.floats();
    if metric == Metric::Cosine {
        threads::each(64, floats.chunks_exact_mut(rows.dim()), |row| {
            let length = length(row);
            if length > 0.0 {
                row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
            }
        });
    }
    floats
}

/// The nearest centroid of each row.
fn nearest(device: &Device, rows: MatrixView<'_, f32>, coarse: &Store) -> Result<Vec<u32>, BuildError> {
    let norms = finite(&RowsView::F32(rows))?;
    let RowsView::F32(centroids) = coarse.view() else { return Ok(Vec::new()) };
    let centroids = WithLengths { rows: centroids, norms: coarse.norms() };
    let mut stats = SearchStats::default();
    let found = block_on(assign(device, Metric::L2, WithLengths { rows, norms: &norms }, centroids, &mut stats))?;
    device.note(&stats);
    Ok(found.positions)
}

fn nearest_bits(device: &Device, coarse: &Store, rows: &RowsView<'_>) -> Result<Vec<u32>, EngineError> {
    let queries = Vectors { rows: *rows, norms: None, tag: None };
    let batch = Batch { metric: coarse.metric(), rows: coarse.base(), queries, mask: None, codes: None };
    let program = batch.nearest(1, Screen::None)?;
    let mut stats = SearchStats::default();
    let found = ops::run(&*device.engine, &program, &batch.inputs(), &mut stats)?;
    device.note(&stats);
    Ok(candidates(found)?.positions)
}

/// Some [`CODEC_ROWS`] of so many rows, from all over them.
fn evenly(rows: usize) -> impl Iterator<Item = usize> {
    let count = rows.min(CODEC_ROWS);
    (0..count).map(move |i| (i as u64 * rows as u64 / count as u64) as usize)
}

/// Rows to learn from.
struct Sample {
    /// Whether the caller said how many.
    told: bool,
    rows: RowBuf,
}

impl Sample {
    fn of(rows: &RowsView<'_>, spec: &IndexSpec, options: &TrainOptions) -> Result<Sample, BuildError> {
        let suits = CODEC_ROWS.max(spec.lists.unwrap_or(0).saturating_mul(ROWS_PER_LIST));
        let wanted = options.rows.unwrap_or(suits).clamp(1, rows.rows().max(1));
        let mut picked = RowBuf::new(rows.dtype(), rows.dim());
        if wanted >= rows.rows() {
            picked.extend(rows);
        } else {
            // One row of each stretch of equal length, so that no row is drawn twice.
            let mut random = Stretches::new(options.seed);
            for i in 0..wanted {
                let (start, end) = (i * rows.rows() / wanted, (i + 1) * rows.rows() / wanted);
                let row = start + random.below(end - start);
                picked.extend(&rows.slice(row, row + 1));
            }
        }
        let norms = finite(rows)?;
        if let Some(row) = norms.iter().position(|&n| n > LONGEST) {
            return Err(BuildError::TooLongToSquare { row });
        }
        Ok(Sample { rows: picked, told: options.rows.is_some() })
    }

    fn view(&self) -> RowsView<'_> {
        self.rows.view()
    }

    /// The 8-bit codec of rows as they are given.
    fn codec(&self, metric: Metric, seed: u64) -> Result<Box<dyn Codec>, BuildError> {
        let view = self.view();
        let mut some = RowBuf::new(view.dtype(), view.dim());
        evenly(view.rows()).for_each(|r| some.extend(&view.slice(r, r + 1)));
        let floats = prepared_rows(metric, &some.view());
        let spec = CodecSpec::Scalar { bits: 8 };
        Ok(codec::train(spec, Metric::InnerProduct, matrix(&floats, view.dim())?, seed, &mut Vec::new())?)
    }
}

/// What is learnt from rows.
struct Learnt {
    transform: Transform,
    coarse: Option<Store>,
    codec: Box<dyn Codec>,
    /// What the caller should be told.
    warnings: Vec<String>,
}

impl Learnt {
    fn floats(
        device: &Device,
        spec: &IndexSpec,
        metric: Metric,
        sample: &Sample,
        seed: u64,
    ) -> Result<Learnt, BuildError> {
        let (rows, mut warnings) = (sample.view(), Vec::new());
        let mut stages = Vec::with_capacity(spec.transforms.len() + 4);
        if metric == Metric::Cosine {
            stages.push(TransformSpec::Normalize);
        }
        for &transform in &spec.transforms {
            stages.push(transform);
            if metric == Metric::Cosine && matches!(transform, TransformSpec::Slice { .. }) {
                // What is compared are the rows that are left, whatever the length of what was cut.
                stages.push(TransformSpec::Normalize);
            }
        }
        let exact = matches!(spec.codec, CodecSpec::Flat | CodecSpec::F16 | CodecSpec::Bf16);
        let centred = |s: &TransformSpec| matches!(s, TransformSpec::Pca { .. } | TransformSpec::Centre);
        if inner(metric, spec.codec) == Metric::L2 && !exact && !stages.iter().any(centred) {
            // Sums and differences of large squares would leave little of a distance.
            // Behind what scales, since lengths are those before.
            let scaled = stages.iter().rposition(|s| *s == TransformSpec::Normalize);
            stages.insert(scaled.map_or(0, |last| last + 1), TransformSpec::Centre);
        }
        if matches!(spec.codec, CodecSpec::RaBitQ { .. }) {
            stages.push(TransformSpec::Rotation { dim: None });
        }
        let learnt_from = rows.floats();
        let learnt_from = matrix(&learnt_from, rows.dim())?;
        let transform = Transform::train(&stages, inner(metric, spec.codec), learnt_from, seed, &mut warnings)?;
        let projected = transform.apply(&rows);
        let dim = transform.output_dim();
        let view = matrix(&projected.rows, dim)?;
        let some: Vec<f32> = evenly(view.rows()).flat_map(|r| view.row(r)).copied().collect();
        let some = matrix(&some, dim)?;
        let Some(lists) = spec.lists else {
            let codec = codec::train(spec.codec, inner(metric, spec.codec), some, seed, &mut warnings)?;
            return Ok(Learnt { transform, coarse: None, codec, warnings });
        };
        let mut kmeans = KMeans::new(lists);
        (kmeans.seed, kmeans.iterations) = (seed, 10);
        kmeans.sample = Some(ROWS_PER_LIST).filter(|_| !sample.told);
        let found = kmeans.train(device, RowsView::F32(view))?;
        let mut coarse = Store::new(sorted_by(metric), DType::F32, dim)?;
        coarse.add(&RowsView::F32(matrix(&found.centroids, dim)?), None)?;
        let nearest = nearest(device, some, &coarse)?;
        let mut residuals = Vec::with_capacity(some.rows() * dim);
        for (r, &list) in nearest.iter().enumerate() {
            let centroid = &found.centroids[list as usize * dim..(list as usize + 1) * dim];
            residuals.extend(some.row(r).iter().zip(centroid).map(|(x, c)| x - c));
        }
        let codec = codec::train(spec.codec, inner(metric, spec.codec), matrix(&residuals, dim)?, seed, &mut warnings)?;
        Ok(Learnt { transform, coarse: Some(coarse), codec, warnings })
    }

    /// Centroids of packed bits: those of the bits as -1 and 1, of which the signs are kept.
    fn bits(
        device: &Device,
        spec: &IndexSpec,
        metric: Metric,
        sample: &Sample,
        seed: u64,
    ) -> Result<Learnt, BuildError> {
        let rows = sample.view();
        let dim = rows.dim();
        let transform = Transform::train(&[], metric, matrix(&[], dim)?, seed, &mut Vec::new())?;
        let codec = codec::bits(dim);
        let Some(lists) = spec.lists else {
            return Ok(Learnt { transform, coarse: None, codec, warnings: Vec::new() });
        };
        let mut signs = rows.floats();
        signs.iter_mut().for_each(|x| *x = 2.0 * *x - 1.0);
        let mut kmeans = KMeans::new(lists);
        (kmeans.seed, kmeans.iterations) = (seed, 10);
        let found = kmeans.train(device, RowsView::F32(matrix(&signs, dim)?))?;
        let packed: Vec<u8> = found
            .centroids
            .chunks_exact(8)
            .map(|eight| eight.iter().enumerate().fold(0, |byte, (i, &x)| byte | u8::from(x > 0.0) << i))
            .collect();
        let centroids = BitsView::new(&packed, dim)?;
        let mut coarse = Store::new(metric, DType::Bits, dim)?;
        coarse.add(&RowsView::Bits(centroids), None)?;
        Ok(Learnt { transform, coarse: Some(coarse), codec, warnings: Vec::new() })
    }
}
