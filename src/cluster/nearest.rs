//! Points assigned once: the verb `assign` behind codes, where those pay.

use super::points::{SAMPLE_POINTS, codes_help, view};
use crate::codec::int8::Coder;
use crate::compute::{Candidates, EngineError, Output, Tag, Vectors};
use crate::engine::Device;
use crate::ops::codes::Codes;
use crate::ops::{self, Assign, Batch, Coded};
use crate::stats::SearchStats;
use crate::types::{MatrixView, Metric, RowsView};

/// Points that are coded and assigned at a time.
const POINTS_PER_CHUNK: usize = 1 << 16;

/// Vectors with their lengths, as engines take queries.
#[derive(Clone, Copy)]
pub(crate) struct WithLengths<'a> {
    pub rows: MatrixView<'a, f32>,
    pub norms: &'a [f32],
}

impl<'a> WithLengths<'a> {
    fn slice(self, start: usize, end: usize) -> WithLengths<'a> {
        WithLengths { rows: self.rows.slice(start, end), norms: &self.norms[start..end] }
    }
}

/// The nearest of `centroids` for each of `points`: position and key.
pub(crate) async fn assign(
    device: &Device,
    metric: Metric,
    points: WithLengths<'_>,
    centroids: WithLengths<'_>,
    stats: &mut SearchStats,
) -> Result<Candidates, EngineError> {
    let (n, k) = (points.rows.rows(), centroids.rows.rows());
    let mut out = Candidates::places(n, 1)?;
    let in_range = codes_help(device, k, n, centroids.rows.dim(), points.norms.iter().chain(centroids.norms));
    let coder = if in_range { Some(learn(device, metric, points)?) } else { None };
    let mut codes = Codes::default();
    if let Some(coder) = &coder {
        coder.encode(&*device.host, &RowsView::F32(centroids.rows), centroids.norms, &mut codes)?;
    }
    let (tag, code_tag) = (Tag::new(), Tag::new());
    for start in (0..n).step_by(POINTS_PER_CHUNK) {
        let end = n.min(start + POINTS_PER_CHUNK);
        let some = points.slice(start, end);
        let queries = match &coder {
            Some(coder) => Some(coder.queries(&*device.host, some.rows, some.norms)?),
            None => None,
        };
        let codes = queries.as_ref().map(|queries| Coded { codes: &codes, tag: &code_tag, queries });
        let batch = Batch {
            metric,
            rows: Vectors { rows: centroids.rows.into(), norms: Some(centroids.norms), tag: Some(&tag) },
            queries: Vectors { rows: some.rows.into(), norms: Some(some.norms), tag: None },
            mask: None,
            codes,
        };
        let program = batch.one(|pairs, codes| Assign { pairs, codes, known: None })?;
        let Output::Candidates(found) = ops::running(&*device.engine, &program, &batch.inputs(), stats).await? else {
            return Err(EngineError::Mismatch("points were not assigned".to_owned()));
        };
        if found.keys.len() != end - start || found.positions.len() != end - start {
            return Err(EngineError::Mismatch(format!("{} of {} points assigned", found.keys.len(), end - start)));
        }
        out.keys[start..end].copy_from_slice(&found.keys);
        out.positions[start..end].copy_from_slice(&found.positions);
    }
    Ok(out)
}

/// A code that suits the points.
fn learn(device: &Device, metric: Metric, points: WithLengths<'_>) -> Result<Coder, EngineError> {
    let (n, dim) = (points.rows.rows(), points.rows.dim());
    let count = n.min(SAMPLE_POINTS);
    let pick = |i: usize| (i as u64 * n as u64 / count as u64) as usize;
    let sample: Vec<f32> = (0..count).flat_map(|i| points.rows.row(pick(i))).copied().collect();
    let norms: Vec<f32> = (0..count).map(|i| points.norms[pick(i)]).collect();
    Coder::for_means(&*device.host, metric, &RowsView::F32(view(&sample, dim)?), &norms)
}
