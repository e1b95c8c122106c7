//! `select_k`: the k smallest of each segment, by (key, position).
//!
//! Shapes: keys `[q, n]` f32 and optional positions `[q, n]` u32 (else a key's place in its row), out `[q, k]` pairs,
//! smallest (key, position) first; +inf and `u32::MAX` where there are fewer. NaN sorts last. Exact: no arithmetic.
//! The same verb merges partial results: their keys and positions lie side by side as one segment.
//! Method: radix select on sortable keys, eight bits a pass (Alabi et al. 2012, "Fast k-selection algorithms").

use super::{Cost, Kernel};
use crate::plan::Problem;

/// The entry points of `shaders/select_k.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    Vec::new()
}

/// Four passes over the keys at most; two are counted, as the first digits decide almost everything.
pub fn cost(p: &Problem, width: usize, k: usize) -> Cost {
    let pairs = p.queries as f64 * width as f64;
    Cost {
        bytes_read: 2.0 * pairs * 4.0,
        bytes_written: p.queries as f64 * k as f64 * 8.0,
        operations: 2.0 * pairs * 4.0,
        launches: 1.0,
    }
}

/// (key, position) of the k smallest of one segment. `positions` absent: a key's own place.
pub fn reference(keys: &[f32], positions: Option<&[u32]>, k: usize) -> Vec<(f32, u32)> {
    let mut pairs: Vec<(f32, u32)> =
        keys.iter().enumerate().map(|(i, &key)| (key, positions.map_or(i as u32, |p| p[i]))).collect();
    pairs.sort_by(|a, b| a.0.is_nan().cmp(&b.0.is_nan()).then(a.0.total_cmp(&b.0)).then(a.1.cmp(&b.1)));
    pairs.truncate(k);
    pairs
}
