//! stub
use crate::codec::CodecError;
use crate::codec::spec::TransformSpec;
use crate::engine::{Engine, EngineError};
use crate::types::{Metric, RowsView};
#[derive(Debug)]
pub(crate) struct Transform {
    dim: usize,
}
pub(crate) struct Projected {
    pub rows: Vec<f32>,
    pub lost: Vec<f32>,
}
impl Transform {
    pub fn none(dim: usize) -> Transform {
        Transform { dim }
    }
    pub fn output_dim(&self) -> usize {
        self.dim
    }
    pub fn train(
        _s: &[TransformSpec],
        _m: Metric,
        rows: &RowsView<'_>,
        _e: &dyn Engine,
        _seed: u64,
    ) -> Result<Transform, CodecError> {
        Ok(Transform { dim: rows.dim() })
    }
    pub fn apply(&self, _e: &dyn Engine, rows: &RowsView<'_>) -> Result<Projected, EngineError> {
        let mut out = vec![0.0; rows.rows() * self.dim];
        for (r, row) in out.chunks_exact_mut(self.dim).enumerate() {
            rows.row_f32(r, row);
        }
        Ok(Projected { rows: out, lost: vec![] })
    }
}
