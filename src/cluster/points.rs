//! What is clustered, in the form that engines take: f32 rows in chunks, with their lengths.

use std::borrow::Cow;

use rayon::prelude::*;

use super::ClusterError;
use crate::types::{DType, RowsView};

/// Longer rows have squared distances that may overflow.
const LONGEST: f32 = (1u64 << 60) as f32;

/// Bytes of f32 rows of a chunk.
const CHUNK: usize = 16 << 20;

/// Rows to cluster.
pub(super) struct Points<'a> {
    rows: RowsView<'a>,
    /// Which of them; all when absent.
    picks: Option<Vec<u32>>,
    /// Euclidean lengths, of the rows as they are.
    pub norms: Vec<f32>,
    spherical: bool,
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
        let length = |buffer: &mut Vec<f32>, i: usize| {
            buffer.resize(rows.dim(), 0.0);
            rows.row_f32(row(i), buffer);
            if let Some(component) = buffer.iter().position(|x| !x.is_finite()) {
                return Err(ClusterError::NotFinite { row: row(i), component, value: buffer[component] });
            }
            let norm = length(buffer);
            if norm <= LONGEST || spherical { Ok(norm) } else { Err(ClusterError::TooLong { row: row(i) }) }
        };
        let norms = (0..count).into_par_iter().with_min_len(256).map_init(Vec::new, length);
        let norms = norms.collect::<Result<Vec<f32>, ClusterError>>()?;
        Ok(Points { rows, picks, norms, spherical })
    }

    pub fn len(&self) -> usize {
        self.norms.len()
    }

    pub fn dim(&self) -> usize {
        self.rows.dim()
    }

    /// Rows of a chunk.
    pub fn chunk(&self) -> usize {
        (CHUNK / (4 * self.dim())).clamp(64, 1 << 16)
    }

    /// Row `i` as it counts.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        self.rows.row_f32(self.picks.as_ref().map_or(i, |p| p[i] as usize), out);
        if self.spherical {
            unit(out);
        }
    }

    /// Rows `start..end` as f32.
    pub fn floats(&self, start: usize, end: usize) -> Cow<'a, [f32]> {
        if let (RowsView::F32(m), None, false) = (self.rows, &self.picks, self.spherical)
            && m.stride() == m.dim()
        {
            return Cow::Borrowed(&m.as_slice()[start * m.dim()..end * m.dim()]);
        }
        let mut out = vec![0.0; (end - start) * self.dim()];
        out.par_chunks_mut(self.dim()).with_min_len(64).enumerate().for_each(|(i, out)| self.row(start + i, out));
        Cow::Owned(out)
    }
}

/// The Euclidean length, in f64.
pub(super) fn length(row: &[f32]) -> f32 {
    row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32
}

/// Scales a row to length 1; a zero row stays.
pub(super) fn unit(row: &mut [f32]) {
    let length = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    if length > 0.0 {
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
}
