//! Rows and queries in f16 for the screen on matrix units, and what that loses.
//!
//! A vector x is kept as s c: s a power of two that brings its length to between 2^13 and 2^14, c in f16 without
//! subnormals, which devices may take for zero. Then no component overflows, and the loss is measured, not
//! estimated: the residual |x - s c|, in f64. The bound and its proof: `docs/numerics.md`, "The f16 screen".

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::sync::{in_threads, share};
use crate::ops::search::screened::{MATRIX_QUERIES, MATRIX_STEP};
use crate::ops::search::slack;
use crate::types::{Metric, RowsView};

/// Components of an f16 row on the device.
pub(super) fn width(dim: usize) -> usize {
    dim.next_multiple_of(MATRIX_STEP)
}

/// f16 vectors `[n, width]` and four numbers each.
pub(super) struct Halves {
    pub(super) bits: Vec<u16>,
    pub(super) terms: Vec<[f32; 4]>,
}

/// Rows `start..end`, with (square, scale, residual, length).
pub(super) fn rows(metric: Metric, view: &RowsView<'_>, norms: &[f32], start: usize, end: usize) -> Halves {
    let e = rounding(view.dim());
    encode(view, start, end, |r, s, residual| {
        let norm = f64::from(norms.get(r).copied().unwrap_or(0.0));
        match metric {
            Metric::L2 => [down(norm * norm * (1.0 - e)), s as f32, up(residual), up(norm)],
            Metric::Cosine if norm > 0.0 => [0.0, (s / norm) as f32, up(residual / norm), 1.0],
            Metric::Cosine => [0.0; 4],
            _ => [0.0, s as f32, up(residual), up(norm)],
        }
    })
}

/// Queries `start..end`, filled up to whole tiles, with (offset, scale, length of the code, error relative to a row's).
pub(super) fn queries(metric: Metric, view: &RowsView<'_>, norms: &[f32], start: usize, end: usize) -> Halves {
    let e = rounding(view.dim());
    let sums = width(view.dim()) as f64 * f64::powi(2.0, -22);
    let mut halves = encode(view, start, end, |q, s, residual| {
        let norm = f64::from(norms.get(q).copied().unwrap_or(0.0));
        // The length of the query as it is kept.
        let length = norm * (1.0 + f64::powi(2.0, -22)) + residual;
        // Of a row no more than 1 + 2^-9 of its length is kept.
        let error = residual + sums * length * (1.0 + f64::powi(2.0, -9)) + e * norm;
        match metric {
            Metric::L2 => [down(norm * norm * (1.0 - e)), (2.0 * s) as f32, up(2.0 * length), up(2.0 * error)],
            Metric::Cosine if norm > 0.0 => [0.0, (s / norm) as f32, up(length / norm), up(error / norm)],
            Metric::Cosine => [0.0; 4],
            _ => [0.0, s as f32, up(length), up(error)],
        }
    });
    halves.bits.resize((end - start).next_multiple_of(MATRIX_QUERIES) * width(view.dim()), 0);
    halves
}

/// What the direct pass and the arithmetic of the bound err at most, relative to lengths.
fn rounding(dim: usize) -> f64 {
    f64::from(slack(dim + 8))
}

/// f32 that is not below.
fn up(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) < x { near.next_up() } else { near }
}

/// f32 that is not above.
fn down(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) > x { near.next_down() } else { near }
}

/// Encodes vectors; `terms` makes their numbers from place, scale and residual.
fn encode(view: &RowsView<'_>, start: usize, end: usize, terms: impl Fn(usize, f64, f64) -> [f32; 4] + Sync) -> Halves {
    let (dim, width) = (view.dim(), width(view.dim()));
    let mut halves = Halves { bits: vec![0; (end - start) * width], terms: vec![[0.0; 4]; end - start] };
    let share = share(end - start, dim);
    let parts = halves.bits.chunks_mut((share * width).max(1)).zip(halves.terms.chunks_mut(share)).enumerate();
    in_threads(parts, |(part, (bits, numbers))| {
        let mut vector = vec![0.0f32; dim];
        let mut kept = vec![0.0f32; dim];
        for (i, (bits, numbers)) in bits.chunks_mut(width).zip(numbers).enumerate() {
            let at = start + part * share + i;
            view.row_f32(at, &mut vector);
            let (s, residual) = one(&mut vector, &mut kept, &mut bits[..dim]);
            *numbers = terms(at, s, residual);
        }
    });
    halves
}

/// Encodes one vector; gives its scale and the length of the residual. `vector` is scaled.
fn one(vector: &mut [f32], kept: &mut [f32], bits: &mut [u16]) -> (f64, f64) {
    let square: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    if square == 0.0 {
        return (0.0, 0.0);
    }
    // 2^13 <= length / s < 2^14, as near as a logarithm is right.
    let exponent = square.sqrt().log2().floor() as i32 - 13;
    let inverse = f64::powi(2.0, -exponent);
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) * inverse) as f32);
    let halves: &mut [f16] = bytemuck::cast_slice_mut(bits);
    halves.convert_from_f32_slice(vector);
    for h in halves.iter_mut().filter(|h| !h.is_normal()) {
        *h = f16::ZERO;
    }
    halves.convert_to_f32_slice(kept);
    let lost = vector.iter().zip(&*kept).map(|(&x, &c)| (f64::from(x) - f64::from(c)).powi(2)).sum::<f64>();
    let s = f64::powi(2.0, exponent);
    // Rounding of the sum, and what the scaled f32 may have lost below its range.
    (s, s * (lost.sqrt() * (1.0 + 1e-9) + vector.len() as f64 * f64::powi(2.0, -140)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::MatrixView;

    fn lengths(data: &[f32], dim: usize) -> Vec<f32> {
        data.chunks(dim).map(|r| r.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() as f32).collect()
    }

    #[test]
    fn what_is_lost_is_measured() {
        let dim = 19;
        for scale in [1e-11f32, 1e-3, 1.0, 3e4, 1e17] {
            let spread = |i: usize| f32::powi(0.5, (i % 5) as i32 * 7);
            let data: Vec<f32> = (0..4 * dim).map(|i| (i as f32 * 0.37).sin() * scale * spread(i)).collect();
            let view = RowsView::F32(MatrixView::new(&data, dim).unwrap());
            let halves = rows(Metric::InnerProduct, &view, &lengths(&data, dim), 0, 4);
            for (r, (bits, terms)) in halves.bits.chunks(32).zip(&halves.terms).enumerate() {
                let c: Vec<f64> = bits.iter().map(|&b| f16::from_bits(b).to_f64()).collect();
                assert!(c.iter().all(|&c| c == 0.0 || (6.2e-5..=16384.0).contains(&c.abs())), "{scale}: {c:?}");
                let row = &data[r * dim..(r + 1) * dim];
                let lost = |(x, c): (&f32, &f64)| (f64::from(*x) - f64::from(terms[1]) * c).powi(2);
                let residual = row.iter().zip(&c).map(lost).sum::<f64>().sqrt();
                assert!(residual <= f64::from(terms[2]), "{scale}: {residual} {terms:?}");
                assert!(f64::from(terms[2]) < 5e-4 * f64::from(terms[3]), "{scale}: f16 keeps 11 bits, {terms:?}");
            }
        }
    }

    #[test]
    fn zero_vectors_have_bounds_of_zero() {
        let data = [0.0f32; 8];
        let view = RowsView::F32(MatrixView::new(&data, 4).unwrap());
        for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
            let (x, q) = (rows(metric, &view, &[0.0; 2], 0, 2), queries(metric, &view, &[0.0; 2], 0, 2));
            assert_eq!(x.terms[1][..3], [0.0; 3]);
            assert_eq!(q.terms[1], [0.0; 4]);
            assert_eq!((x.bits.len(), q.bits.len(), q.bits[0]), (64, 4096, 0));
        }
    }
}
