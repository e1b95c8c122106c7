//! Scalar quantisation: each component as an integer between its least and greatest training value.
//!
//! A code c of b bits stands for `least + (c + 1/2) / (2^b - 1) * range`, as in Faiss, so that its codes can be taken
//! over.

use super::bytes::{Reader, Writer};
use super::query::{RowEncoder, add, encode_rows, integer_queries, unrounded};
use super::{Codec, KIND_SCALAR, Unrounded};
use crate::ops::lists::{Encoded, Form, Prepared};
use crate::simd::Simd;
use crate::types::{MatrixView, Metric};

/// How far outside of the range that was learnt a component may lie before it is worth a word, relative to the range: rows that
/// were not learnt from lie a little outside now and then.
const BEYOND: f32 = 0.1;

/// SQ8, SQ6 and SQ4.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Scalar {
    bits: u8,
    /// The least value of each component.
    least: Vec<f32>,
    /// The greatest less the least.
    range: Vec<f32>,
    /// Integers per unit, for encoding.
    per_unit: Vec<f32>,
    /// What the code 0 stands for.
    base: Vec<f32>,
    /// From code to code.
    step: Vec<f32>,
}

impl Scalar {
    /// From the least value of each component and the range above it.
    pub fn new(bits: u8, least: Vec<f32>, range: Vec<f32>) -> Scalar {
        let levels = levels(bits);
        let per_unit = range.iter().map(|&r| if r > f32::MIN_POSITIVE { levels / r } else { 0.0 }).collect();
        let step: Vec<f32> = range.iter().map(|r| r / levels).collect();
        let base = least.iter().zip(&range).map(|(l, r)| 0.5 / levels * r + l).collect();
        Scalar { bits, least, range, per_unit, base, step }
    }

    /// The least and greatest values of the rows.
    pub fn train(bits: u8, sample: MatrixView<'_, f32>) -> Scalar {
        let dim = sample.dim();
        let (mut least, mut most) = (vec![f32::INFINITY; dim], vec![f32::NEG_INFINITY; dim]);
        for r in 0..sample.rows() {
            let row = sample.row(r);
            least.iter_mut().zip(row).for_each(|(l, &x)| *l = if x < *l { x } else { *l });
            most.iter_mut().zip(row).for_each(|(m, &x)| *m = if x > *m { x } else { *m });
        }
        if sample.rows() == 0 {
            least.fill(0.0);
            most.fill(0.0);
        }
        let range = most.iter().zip(&least).map(|(m, l)| m - l).collect();
        Scalar::new(bits, least, range)
    }

    pub(super) fn read(dim: usize, reader: &mut Reader<'_>) -> Result<Scalar, String> {
        let bits = reader.u8()?;
        if !matches!(bits, 4 | 6 | 8) {
            return Err(format!("scalar codes of {bits} bits, there are 4, 6 and 8"));
        }
        let (least, range) = (reader.floats(dim)?, reader.floats(dim)?);
        match range.iter().position(|&r| r < 0.0) {
            Some(i) => Err(format!("component {i} has the range {}", range[i])),
            None => Ok(Scalar::new(bits, least, range)),
        }
    }
}

impl Scalar {
    /// What the codes of rows are multiplied by; gives what is added.
    fn weights(&self, query: &[f32], weights: &mut [f32]) -> f64 {
        let mut sum = 0.0;
        for ((w, q), (step, base)) in weights.iter_mut().zip(query).zip(self.step.iter().zip(&self.base)) {
            *w = q * step;
            sum += f64::from(*q) * f64::from(*base);
        }
        sum
    }
}

/// The greatest code.
fn levels(bits: u8) -> f32 {
    ((1u32 << bits) - 1) as f32
}

impl RowEncoder for Scalar {
    fn numbers(&self, metric: Metric) -> [bool; 3] {
        [metric == Metric::L2, false, false]
    }

    #[inline(always)]
    fn row<S: Simd>(&self, _: S, metric: Metric, r: &mut [f32], centroid: &[f32], code: &mut [u8]) -> [f32; 3] {
        let levels = levels(self.bits);
        let learnt = self.least.iter().zip(&self.per_unit);
        for ((x, code), (least, per_unit)) in r.iter().zip(&mut *code).zip(learnt) {
            // NaN cannot come here; the cast would make it 0.
            *code = ((x - least) * per_unit).max(0.0).min(levels) as i32 as u8;
        }
        if metric != Metric::L2 {
            return [0.0; 3];
        }
        for ((x, &code), (base, step)) in r.iter_mut().zip(&*code).zip(self.base.iter().zip(&self.step)) {
            *x = f32::from(code) * step + base;
        }
        [add(r, centroid), 0.0, 0.0]
    }

    #[inline(always)]
    fn outside(&self, r: &[f32]) -> Option<usize> {
        // Without a branch, so that the compiler can use vectors.
        let any = r.iter().enumerate().fold(false, |any, (j, &x)| any | self.far(j, x));
        if any { r.iter().enumerate().position(|(j, &x)| self.far(j, x)) } else { None }
    }
}

impl Scalar {
    /// Whether a component lies farther outside than sampling explains.
    #[inline(always)]
    fn far(&self, j: usize, x: f32) -> bool {
        let beyond = BEYOND * self.range[j];
        x < self.least[j] - beyond || x > self.least[j] + self.range[j] + beyond
    }
}

impl Codec for Scalar {
    fn form(&self) -> Form {
        Form::Integers(self.bits)
    }

    fn dim(&self) -> usize {
        self.least.len()
    }

    fn parts(&self) -> usize {
        self.least.len()
    }

    fn encode(&self, metric: Metric, rows: MatrixView<'_, f32>, lists: &[u32], centroids: &[f32]) -> Encoded {
        encode_rows(self, self.dim(), metric, rows, lists, centroids)
    }

    fn decode(&self, code: &[u8], _scale: f32, vector: &mut [f32]) {
        let levels = levels(self.bits);
        for ((x, &c), (least, range)) in vector.iter_mut().zip(code).zip(self.least.iter().zip(&self.range)) {
            *x = least + (f32::from(c) + 0.5) / levels * range;
        }
    }

    fn queries(&self, metric: Metric, queries: MatrixView<'_, f32>) -> Prepared {
        let middle = 0.5 * levels(self.bits);
        integer_queries(self.form(), metric, queries, (middle, middle), |q, w| self.weights(q, w))
    }

    fn unrounded(&self, metric: Metric, query: &[f32]) -> Unrounded {
        unrounded(metric, query, |q, w| self.weights(q, w))
    }

    fn write(&self) -> Vec<u8> {
        let mut out = Writer(vec![KIND_SCALAR, self.bits]);
        out.floats(&self.least);
        out.floats(&self.range);
        out.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{clustered, estimates_match, round_trips, view};
    use super::*;
    use crate::ops::lists::Outside;

    #[test]
    fn row_c2_components_come_back_within_half_a_step() {
        let (n, dim) = (500, 33);
        let rows = clustered(1, n, dim);
        for bits in [4, 6, 8] {
            let codec = Scalar::train(bits, view(&rows, dim));
            let encoded = codec.encode(Metric::L2, view(&rows, dim), &vec![0; n], &[]);
            assert!(encoded.scale.is_empty() && encoded.error.is_empty() && encoded.add.len() == n);
            let mut back = vec![0.0; dim];
            let mut worst = 0.0f32;
            for (row, code) in rows.chunks(dim).zip(encoded.codes.chunks(dim)) {
                codec.decode(code, 1.0, &mut back);
                assert!(code.iter().all(|&c| u32::from(c) < 1 << bits));
                for j in 0..dim {
                    worst = worst.max((row[j] - back[j]).abs() / codec.step[j]);
                }
            }
            assert!(worst <= 0.5001 && worst > 0.45, "{bits} bits: {worst} steps");
        }
    }

    #[test]
    fn row_c2_codes_are_those_of_faiss() {
        // faiss.ScalarQuantizer(2, QT_8bit) trained on these rows: codes and decoded values of its `compute_codes`.
        let rows = [0.0, -1.0, 1.0, 3.0, 0.5, 0.25];
        let codec = Scalar::train(8, view(&rows, 2));
        let encoded = codec.encode(Metric::InnerProduct, view(&rows, 2), &[0; 3], &[]);
        assert_eq!(encoded.codes, [0, 0, 255, 255, 127, 79]);
        let mut back = [0.0; 2];
        codec.decode(&encoded.codes[4..], 1.0, &mut back);
        assert_eq!(back, [0.5, -1.0 + 79.5 / 255.0 * 4.0]);
    }

    #[test]
    fn row_c2_scalar_estimates_are_the_products_up_to_the_rounding_of_the_query() {
        for bits in [4, 6, 8] {
            for dim in [1, 40, 96] {
                let codec = Scalar::train(bits, view(&clustered(2, 300, dim), dim));
                estimates_match(&codec, 1.0);
                round_trips(&codec, crate::codec::spec::CodecSpec::Scalar { bits });
            }
        }
    }

    #[test]
    fn components_that_never_vary_and_values_beyond_the_range_have_codes() {
        let codec = Scalar::train(8, view(&[1.0, 2.0, 1.0, 4.0], 2));
        let encoded = codec.encode(Metric::L2, view(&[1.0, 9.0, -5.0, -9.0], 2), &[0, 0], &[]);
        assert_eq!(encoded.codes, [0, 255, 0, 0]);
        let outside = |row, component, value| Outside { row, component, value };
        assert_eq!(encoded.outside, [outside(0, 1, 9.0), outside(1, 0, -5.0)]);
        // A tenth of the range is no news.
        assert_eq!(codec.encode(Metric::L2, view(&[1.0, 4.19], 2), &[0], &[]).outside, []);
        assert!(encoded.add.iter().all(|x| x.is_finite()));
    }
}
