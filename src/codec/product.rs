//! Product quantisation (Jegou et al. 2011): each part of a vector as the number of its nearest centroid.

use super::bytes::{Reader, Writer};
use super::error::{CodecError, enough};
use super::lloyd::PartMeans;
use super::query::{QUERIES_PER_THREAD, centroid, factor, residual, rounding_of};
use super::spec::CodecSpec;
use super::{Codec, KIND_PRODUCT, Unrounded};
use crate::linalg::dot_f64;
use crate::ops::lists::{Encoded, Form, Prepared, Terms};
use crate::simd::{Simd, SimdKernel, Token};
use crate::threads;
use crate::types::{MatrixView, Metric};

/// Rounds of k-means.
const KMEANS_ROUNDS: usize = 25;

/// Training rows per centroid: at most, as more better nothing, and such that fewer are worth a warning (as in Faiss).
const MOST_ROWS_PER_CENTROID: usize = 256;
const FEW_ROWS_PER_CENTROID: usize = 39;

/// Rows that one thread encodes at a time.
const ROWS_PER_THREAD: usize = 256;

/// PQ m x 8 and m x 4.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Product {
    bits: u8,
    lloyd: PartMeans,
    /// The centroids, `[parts, width, entries]`.
    columns: Vec<f32>,
}

impl Product {
    /// From centroids `[parts, 2^bits, dim / parts]`, which is Faiss's order.
    pub fn new(parts: usize, bits: u8, dim: usize, centroids: Vec<f32>) -> Product {
        let (width, entries) = (dim / parts, 1 << bits);
        let lloyd = PartMeans { parts, width, entries, centroids };
        let mut columns = vec![0.0; lloyd.centroids.len()];
        for (to, from) in columns.chunks_mut(entries * width).zip(lloyd.centroids.chunks(entries * width)) {
            for (i, x) in to.iter_mut().enumerate() {
                *x = from[i % entries * width + i / entries];
            }
        }
        Product { bits, lloyd, columns }
    }

    /// k-means of each part.
    ///
    /// # Errors
    /// [`CodecError`]: parts that do not divide the components, other bits than 4 and 8, fewer rows than centroids.
    pub fn train(
        spec: CodecSpec,
        (parts, bits): (usize, u8),
        sample: MatrixView<'_, f32>,
        seed: u64,
        warnings: &mut Vec<String>,
    ) -> Result<Product, CodecError> {
        let (dim, n, token) = (sample.dim(), sample.rows(), || spec.to_string());
        if bits != 4 && bits != 8 {
            return Err(CodecError::Bits { token: token(), bits, fits: "4 and 8" });
        }
        if parts == 0 || !dim.is_multiple_of(parts) {
            return Err(CodecError::parts(token(), dim, parts));
        }
        let entries = 1usize << bits;
        enough(n, entries, token)?;
        if n < FEW_ROWS_PER_CENTROID * entries {
            warnings.push(format!(
                "`{}`: {n} training rows, {} or more give better codes",
                token(),
                FEW_ROWS_PER_CENTROID * entries
            ));
        }
        let count = n.min(MOST_ROWS_PER_CENTROID * entries);
        let pick = |i: usize| (i as u64 * n as u64 / count as u64) as usize;
        let rows: Vec<f32> = (0..count).flat_map(|i| sample.row(pick(i))).copied().collect();
        let mut lloyd = PartMeans::new(parts, dim / parts, entries);
        lloyd.start(&rows, seed);
        lloyd.rounds(&rows, KMEANS_ROUNDS);
        Ok(Product::new(parts, bits, dim, lloyd.centroids))
    }

    pub(super) fn read(dim: usize, reader: &mut Reader<'_>) -> Result<Product, String> {
        let (bits, parts) = (reader.u8()?, reader.u32()?);
        if bits != 4 && bits != 8 {
            return Err(format!("product codes of {bits} bits, there are 4 and 8"));
        }
        if parts == 0 || !dim.is_multiple_of(parts) {
            return Err(format!("{parts} parts of {dim} components"));
        }
        Ok(Product::new(parts, bits, dim, reader.floats(dim << bits)?))
    }

    /// |r'|^2 + 2 <c, r'>, in f64, since both may be large and leave little of a distance.
    fn add(&self, code: &[u8], c: &[f32]) -> f32 {
        let (width, size) = (self.lloyd.width, self.lloyd.width * self.lloyd.entries);
        let mut sum = 0.0;
        for (p, &e) in code.iter().enumerate() {
            let r = &self.lloyd.centroids[p * size + usize::from(e) * width..][..width];
            sum += dot_f64(r, r) + 2.0 * c.get(p * width..).map_or(0.0, |c| dot_f64(r, c));
        }
        sum as f32
    }

    /// The room for the tables of a query in f32.
    fn entries(&self) -> Vec<f32> {
        vec![0.0; self.parts() * self.form().entries()]
    }
}

impl Codec for Product {
    fn form(&self) -> Form {
        Form::Parts(self.bits)
    }

    fn dim(&self) -> usize {
        self.lloyd.parts * self.lloyd.width
    }

    fn parts(&self) -> usize {
        self.lloyd.parts
    }

    fn encode(&self, metric: Metric, rows: MatrixView<'_, f32>, lists: &[u32], centroids: &[f32]) -> Encoded {
        let (n, dim, parts) = (rows.rows(), self.dim(), self.parts());
        let (mut codes, mut add) = (vec![0u8; n * parts], vec![0.0f32; n]);
        let chunks = codes.chunks_mut(ROWS_PER_THREAD * parts).zip(add.chunks_mut(ROWS_PER_THREAD)).enumerate();
        threads::each_with(1, chunks, Vec::new, |r: &mut Vec<f32>, (c, (codes, add))| {
            r.resize(add.len() * dim, 0.0);
            for (i, r) in r.chunks_exact_mut(dim).enumerate() {
                let i = c * ROWS_PER_THREAD + i;
                residual(rows.row(i), centroid(centroids, lists, i, dim), r);
            }
            self.lloyd.some_codes(r, codes);
            if metric == Metric::L2 {
                for (i, (add, code)) in add.iter_mut().zip(codes.chunks_exact(parts)).enumerate() {
                    *add = self.add(code, centroid(centroids, lists, c * ROWS_PER_THREAD + i, dim));
                }
            }
        });
        if metric != Metric::L2 {
            add.clear();
        }
        Encoded { codes, add, ..Encoded::default() }
    }

    fn decode(&self, code: &[u8], _scale: f32, vector: &mut [f32]) {
        self.lloyd.decode(code, vector);
    }

    fn queries(&self, metric: Metric, queries: MatrixView<'_, f32>) -> Prepared {
        let (n, form) = (queries.rows(), self.form());
        let padded = form.padded(self.parts()) * form.entries();
        let mut out = Prepared {
            queries: n,
            tables: vec![0; n * padded],
            terms: vec![Terms::default(); n],
            rounding: vec![0.0; n],
            ..Prepared::default()
        };
        let numbers = out.terms.iter_mut().zip(&mut out.rounding);
        let each = out.tables.chunks_mut(padded).zip(numbers).enumerate();
        let token = Token::best();
        threads::each_with(
            QUERIES_PER_THREAD,
            each,
            || self.entries(),
            |floats, (q, (tables, (terms, rounding)))| {
                let (factor, query) = (factor(metric), queries.row(q));
                let (shift, unit) = token.run(Tables { codec: self, factor, query, floats, tables });
                *terms = Terms { scale: unit, shift: shift as f32 };
                // Each entry lies within half a unit.
                *rounding = rounding_of(0.5 * unit * (self.parts() as f32).sqrt(), self.parts());
            },
        );
        out
    }

    fn unrounded(&self, metric: Metric, query: &[f32]) -> Unrounded {
        let mut numbers = self.entries();
        let factor = factor(metric);
        let tables = Tables { codec: self, factor, query, floats: &mut numbers, tables: &mut [] };
        let (shift, _) = Token::best().run(tables);
        Unrounded { numbers, shift }
    }

    fn write(&self) -> Vec<u8> {
        let mut out = Writer(vec![KIND_PRODUCT, self.bits]);
        out.u32(self.parts());
        out.floats(&self.lloyd.centroids);
        out.0
    }
}

/// The tables of a query: what each entry of each part adds to a key, as bytes of one scale above the least of the part. Gives
/// the sum of the least, and the scale.
struct Tables<'a> {
    codec: &'a Product,
    factor: f32,
    query: &'a [f32],
    floats: &'a mut [f32],
    tables: &'a mut [u8],
}

impl SimdKernel for Tables<'_> {
    type Output = (f64, f32);

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> (f64, f32) {
        let PartMeans { width, entries, .. } = self.codec.lloyd;
        let parts = self.query.chunks_exact(width).zip(self.codec.columns.chunks_exact(width * entries));
        let (mut shift, mut widest) = (0.0f64, 0.0f32);
        for ((query, columns), floats) in parts.zip(self.floats.chunks_exact_mut(entries)) {
            let (mut least, mut most) = (s.splat(f32::INFINITY), s.splat(f32::NEG_INFINITY));
            for e in (0..entries).step_by(S::LANES) {
                let mut sum = s.splat(0.0);
                for (j, &q) in query.iter().enumerate() {
                    sum = s.fma(s.splat(q), s.get(&columns[j * entries + e..]), sum);
                }
                let sum = s.mul(sum, s.splat(self.factor));
                (least, most) = (s.min(least, sum), s.max(most, sum));
                s.put(&mut floats[e..], sum);
            }
            let least = -s.largest(s.sub(s.splat(0.0), least));
            widest = widest.max(s.largest(most) - least);
            shift += f64::from(least);
            floats.iter_mut().for_each(|x| *x -= least);
        }
        let per_unit = 255.0 / widest;
        if !per_unit.is_finite() {
            return (shift, 0.0);
        }
        for (entry, x) in self.tables.iter_mut().zip(&*self.floats) {
            *entry = (x * per_unit + 0.5).min(255.0) as i32 as u8;
        }
        (shift, widest / 255.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{clustered, estimates_match, random, round_trips, view};
    use super::*;

    fn spec(parts: usize, bits: u8) -> CodecSpec {
        CodecSpec::Product { parts, bits, fast_scan: false }
    }

    fn train(parts: usize, bits: u8, rows: &[f32], dim: usize) -> Product {
        Product::train(spec(parts, bits), (parts, bits), view(rows, dim), 1, &mut Vec::new()).expect("a spec that fits")
    }

    #[test]
    fn row_c3_distortion_falls_as_bits_grow() {
        let (n, dim) = (4000, 24);
        let rows = clustered(1, n, dim);
        let distortion = |parts, bits| {
            let coded = train(parts, bits, &rows, dim).lloyd.nearest(&rows);
            rows.iter().zip(&coded).map(|(a, b)| f64::from((a - b) * (a - b))).sum::<f64>()
        };
        let found: Vec<f64> = [(3, 4), (3, 8), (6, 8), (12, 8)].map(|(p, b)| distortion(p, b)).to_vec();
        assert!(found.windows(2).all(|w| w[1] < 0.8 * w[0]), "{found:?}");
        // 4 bits of one uniform component: 16 steps, an error of step^2 / 12.
        let mut next = random(2);
        let line: Vec<f32> = (0..8000).map(|_| next()).collect();
        let coded = train(1, 4, &line, 1).lloyd.nearest(&line);
        let error = line.iter().zip(&coded).map(|(a, b)| f64::from((a - b) * (a - b))).sum::<f64>() / 8000.0;
        let theory = (2.0f64 / 16.0).powi(2) / 12.0;
        assert!((0.95..1.2).contains(&(error / theory)), "{error}, in theory {theory}");
    }

    #[test]
    fn row_c3_product_estimates_are_the_products_up_to_the_rounding_of_the_tables() {
        for (parts, bits, dim) in [(1, 4, 3), (5, 4, 20), (32, 4, 64), (7, 8, 7), (4, 8, 36)] {
            let codec = train(parts, bits, &clustered(3, 300, dim), dim);
            estimates_match(&codec, 1.0);
            if codec.write().len() < 4000 {
                round_trips(&codec, spec(parts, bits));
            }
        }
    }

    #[test]
    fn row_c3_specs_that_do_not_fit_and_small_samples_are_named() {
        let rows = clustered(3, 100, 24);
        let mut warnings = Vec::new();
        let mut wrong = |parts, bits, n: usize| {
            let sample = view(&rows[..n * 24], 24);
            match Product::train(spec(parts, bits), (parts, bits), sample, 1, &mut warnings) {
                Ok(_) => String::new(),
                Err(e) => e.to_string(),
            }
        };
        assert_eq!(wrong(10, 8, 100), "`PQ10`: 24 components can't be split into 10 equal parts; 8 or 12 would fit");
        assert_eq!(wrong(48, 4, 100), "`PQ48x4`: 24 components can't be split into 48 equal parts; 24 would fit");
        assert_eq!(wrong(8, 5, 100), "`PQ8x5`: codes of 5 bits; there are 4 and 8");
        assert_eq!(wrong(8, 8, 100), "`PQ8`: 100 training rows, at least 256 are needed");
        assert_eq!(wrong(8, 4, 100), "");
        assert_eq!(warnings, ["`PQ8x4`: 100 training rows, 624 or more give better codes"]);
    }
}
