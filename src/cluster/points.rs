//! What is clustered, in the form that engines take: f32 rows in chunks, with their lengths, and their codes where those
//! make assigning faster.

use std::borrow::Cow;

use super::ClusterError;
use crate::codec::int8::Coder;
use crate::compute::{Capabilities, EngineError};
use crate::engine::Device;
use crate::linalg::{LONGEST, length};
use crate::ops::codes::{MOST_DIM, QueryCodes};
use crate::ops::search::norm_in_range;
use crate::ops::{Assign, Extent, Program};
use crate::threads;
use crate::types::{DType, MatrixView, Metric, RowsView, ShapeError};

/// Bytes of f32 rows of a chunk.
const CHUNK_BYTES: usize = 16 << 20;

/// Rows of other types are converted once when that takes no more bytes than this, else chunk by chunk in every round.
const CONVERTED: usize = 1 << 30;

/// Rows from which a code is learnt.
pub(super) const SAMPLE_POINTS: usize = 8192;

/// Rows to cluster.
pub(super) struct Points<'a> {
    rows: RowsView<'a>,
    /// Which of them; all when absent.
    picks: Option<Vec<u32>>,
    /// Euclidean lengths, of the rows as they count.
    pub norms: Vec<f32>,
    spherical: bool,
    /// All rows as they count, if they are not read where they lie.
    converted: Vec<f32>,
}

impl<'a> Points<'a> {
    /// Checks the rows that are picked.
    pub fn new(rows: RowsView<'a>, picks: Option<Vec<u32>>, spherical: bool) -> Result<Points<'a>, ClusterError> {
        if rows.dtype() == DType::Bits {
            return Err(ClusterError::DType { found: DType::Bits });
        }
        if rows.dim() == 0 {
            return Err(ClusterError::ZeroDim);
        }
        let count = picks.as_ref().map_or(rows.rows(), Vec::len);
        let row = |i: usize| picks.as_ref().map_or(i, |p| p[i] as usize);
        let norm = |buffer: &mut Vec<f32>, i: usize| {
            buffer.resize(rows.dim(), 0.0);
            rows.row_f32(row(i), buffer);
            let norm = length(buffer) as f32;
            if !norm.is_finite()
                && let Some(component) = buffer.iter().position(|x| !x.is_finite())
            {
                return Err(ClusterError::NotFinite { row: row(i), component, value: buffer[component] });
            }
            match norm <= LONGEST {
                _ if spherical => Ok(f32::from(norm > 0.0)),
                true => Ok(norm),
                false => Err(ClusterError::TooLong { row: row(i) }),
            }
        };
        let norms = threads::map_with(256, 0..count, Vec::new, norm);
        let norms = norms.into_iter().collect::<Result<Vec<f32>, ClusterError>>()?;
        let mut points = Points { rows, picks, norms, spherical, converted: Vec::new() };
        let bytes = count.saturating_mul(rows.dim()).saturating_mul(4);
        if points.borrowed(0, 0).is_none() && bytes <= CONVERTED {
            points.converted = points.convert(0, count);
        }
        Ok(points)
    }

    pub fn len(&self) -> usize {
        self.norms.len()
    }

    pub fn dim(&self) -> usize {
        self.rows.dim()
    }

    /// Rows of a chunk.
    pub fn chunk(&self) -> usize {
        (CHUNK_BYTES / (4 * self.dim())).clamp(64, 1 << 16)
    }

    /// Row `i` as it counts.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        self.rows.row_f32(self.picks.as_ref().map_or(i, |p| p[i] as usize), out);
        if self.spherical {
            unit(out);
        }
    }

    /// Rows `start..end` as f32.
    pub fn floats(&self, start: usize, end: usize) -> Cow<'_, [f32]> {
        if let Some(rows) = self.converted.get(start * self.dim()..end * self.dim())
            && !self.converted.is_empty()
        {
            return Cow::Borrowed(rows);
        }
        self.borrowed(start, end).map_or_else(|| Cow::Owned(self.convert(start, end)), Cow::Borrowed)
    }

    /// Rows `start..end` where they lie, if they can be used so.
    fn borrowed(&self, start: usize, end: usize) -> Option<&'a [f32]> {
        match (self.rows, &self.picks, self.spherical) {
            (RowsView::F32(m), None, false) if m.stride() == m.dim() => {
                m.as_slice().get(start * m.dim()..end * m.dim())
            }
            _ => None,
        }
    }

    fn convert(&self, start: usize, end: usize) -> Vec<f32> {
        let mut out = vec![0.0; (end - start) * self.dim()];
        threads::each(64, out.chunks_mut(self.dim()).enumerate(), |(i, out)| self.row(start + i, out));
        out
    }

    /// These rows alone.
    pub fn subset(&self, places: &[u32]) -> Points<'a> {
        let pick = |&i: &u32| self.picks.as_ref().map_or(i, |p| p[i as usize]);
        let mut points = Points {
            rows: self.rows,
            picks: Some(places.iter().map(pick).collect()),
            norms: places.iter().map(|&i| self.norms[i as usize]).collect(),
            spherical: self.spherical,
            converted: Vec::new(),
        };
        points.converted = points.convert(0, places.len());
        points
    }

    /// A code that makes assigning these rows faster; none where it would not pay or prove nothing.
    pub fn coder(&self, device: &Device, clusters: usize) -> Result<Option<Coder>, EngineError> {
        let dim = self.dim();
        if !codes_help(device, clusters, self.len(), dim, self.norms.iter()) {
            return Ok(None);
        }
        let count = self.len().min(SAMPLE_POINTS);
        let mut sample = vec![0.0; count * dim];
        let pick = |i: usize| (i as u64 * self.len() as u64 / count as u64) as usize;
        threads::each(64, sample.chunks_mut(dim).enumerate(), |(i, out)| self.row(pick(i), out));
        let lengths: Vec<f32> = (0..count).map(|i| self.norms[pick(i)]).collect();
        let rows = RowsView::F32(view(&sample, dim)?);
        Coder::for_means(&*device.host, Metric::L2, &rows, &lengths).map(Some)
    }

    /// Codes of all rows, chunk by chunk.
    pub fn encode(&self, device: &Device, coder: &Coder) -> Result<Vec<QueryCodes>, EngineError> {
        let chunk = self.chunk();
        let chunks = (0..self.len()).step_by(chunk).map(|start| {
            let end = self.len().min(start + chunk);
            let rows = self.floats(start, end);
            coder.queries(&*device.host, view(&rows, self.dim())?, &self.norms[start..end])
        });
        chunks.collect()
    }
}

/// Whether codes make assigning so many points to so many centroids faster, and prove what they must for these lengths.
pub(super) fn codes_help<'a>(
    device: &Device,
    clusters: usize,
    points: usize,
    dim: usize,
    mut norms: impl Iterator<Item = &'a f32>,
) -> bool {
    let coded = || assigner(device, clusters, points, dim).coded_assign;
    let worth = clusters >= 32 && points >= 1024 && (8..MOST_DIM).contains(&dim);
    worth && coded() && norms.all(|&norm| norm_in_range(norm))
}

/// What the backend can do that is predicted to assign so many points.
pub(super) fn assigner(device: &Device, clusters: usize, points: usize, dim: usize) -> Capabilities {
    let (parts, whole) = (device.engine.parts(), device.engine.capabilities());
    if parts.is_empty() {
        return whole;
    }
    let extent = Extent { metric: Metric::L2, dtype: DType::F32, dim, rows: clusters, queries: points };
    let mut program = Program::new();
    let pairs = extent.declare(&mut program);
    let Ok(found) = program.push(Assign { pairs, codes: None, known: None }) else { return whole };
    program.output(found);
    let fastest = device.engine.fastest(&vec![&program; parts.len()]);
    parts.get(fastest).map_or(whole, |part| part.capabilities())
}

/// Rows one after another as a matrix.
pub(super) fn view(rows: &[f32], dim: usize) -> Result<MatrixView<'_, f32>, EngineError> {
    MatrixView::new(rows, dim).map_err(|e: ShapeError| EngineError::Mismatch(e.to_string()))
}

/// Scales a row to length 1; a zero row stays.
pub(super) fn unit(row: &mut [f32]) {
    let length = length(row);
    if length > 0.0 {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
