//! The tiny case of a self-test and the comparisons of answers with the references.

use half::{bf16, f16};

use super::TWINS;
use crate::compute::{Candidates, Mask};
use crate::gpu::case::{CASE_DIM as DIM, CASE_ROWS as ROWS};
use crate::ops::Norm;
use crate::ops::{self, metric};
use crate::random::Random;
use crate::types::{BitsView, DType, MatrixView, Metric, RowsView};

/// Candidates per query in the test of `refine`.
pub(super) const CANDIDATES: usize = 11;

/// The tiny case: rows and queries whose sums are exact in f32, their keys in f64, and a mask for each query.
pub(super) struct Data {
    metric: Metric,
    dtype: DType,
    pub(super) queries: usize,
    rows: Bytes,
    query_rows: Bytes,
    pub(super) row_norms: Vec<f32>,
    pub(super) query_norms: Vec<f32>,
    mask: Vec<u32>,
    pub(super) candidates: Vec<u32>,
    pub(super) matrix: Vec<f32>,
    /// Keys `[queries, ROWS]`.
    pub(super) exact: Vec<f64>,
}

impl Data {
    pub(super) fn new(metric: Metric, dtype: DType, queries: usize) -> Data {
        let mut random = Random::new(1);
        let mut random = move || (random.next() >> 40) as u32;
        let low = if metric.needs_non_negative() || dtype == DType::U8 { 0 } else { -8 };
        let mut row = |scale: f32, zero: bool| -> Vec<f32> {
            (0..DIM).map(|_| if zero { 0.0 } else { (random() % 17) as f32 * scale + low as f32 * scale }).collect()
        };
        let scale = if matches!(dtype, DType::I8 | DType::U8) { 1.0 } else { 0.125 };
        let mut rows: Vec<Vec<f32>> = (0..ROWS - TWINS).map(|r| row(scale, r == 5)).collect();
        rows.extend_from_within(..TWINS);
        let base: Vec<Vec<f32>> = (0..queries).map(|q| row(scale, q == 2)).collect();
        let bytes = |rows: &[Vec<f32>], dtype: DType| -> Vec<u8> {
            let values = rows.iter().flatten().copied();
            match dtype {
                DType::F16 => values.flat_map(|v| f16::from_f32(v).to_ne_bytes()).collect(),
                DType::Bf16 => values.flat_map(|v| bf16::from_f32(v).to_ne_bytes()).collect(),
                DType::I8 => values.map(|v| (v as i8) as u8).collect(),
                DType::U8 => values.map(|v| v as u8).collect(),
                // A byte of eight components each.
                DType::Bits => values.map(|v| (v * 29.0) as i32 as u8).collect(),
                _ => values.flat_map(f32::to_ne_bytes).collect(),
            }
        };
        let query_type = if dtype == DType::Bits { DType::Bits } else { DType::F32 };
        let mut data = Data {
            metric,
            dtype,
            queries,
            rows: Bytes::new(&bytes(&rows, dtype)),
            query_rows: Bytes::new(&bytes(&base, query_type)),
            row_norms: Vec::new(),
            query_norms: Vec::new(),
            mask: (0..queries * ROWS.div_ceil(32)).map(|_| random() | random() << 8 | random() << 16).collect(),
            candidates: (0..queries * CANDIDATES).map(|_| random() % ROWS as u32).collect(),
            matrix: (0..queries * ROWS).map(|_| (random() % 64) as f32 - 32.0).collect(),
            exact: Vec::new(),
        };
        data.candidates[4] = u32::MAX;
        data.matrix[3] = f32::INFINITY;
        data.matrix[7] = f32::NAN;
        data.row_norms = lengths(&data.rows());
        data.query_norms = lengths(&data.query_rows());
        data.exact = ops::distance::reference(metric, &data.query_rows(), &data.rows());
        data
    }

    pub(super) fn rows(&self) -> RowsView<'_> {
        view(self.rows.get(), self.dtype)
    }

    pub(super) fn query_rows(&self) -> RowsView<'_> {
        view(self.query_rows.get(), if self.dtype == DType::Bits { DType::Bits } else { DType::F32 })
    }

    pub(super) fn mask(&self) -> Mask<'_> {
        Mask { words: &self.mask, stride: ROWS.div_ceil(32), tag: None }
    }

    fn key(&self, q: usize, r: usize) -> f64 {
        self.exact[q * ROWS + r]
    }

    /// How far a key may lie from the exact one.
    fn tolerance(&self, q: usize, r: usize) -> f64 {
        let (a, b) = (f64::from(self.query_norms[q]), f64::from(self.row_norms[r]));
        metric::tolerance(self.metric, self.dtype, self.rows().dim(), self.key(q, r), a, b)
    }

    /// A key lies within the tolerance (and is a number).
    fn check_key(&self, q: usize, r: usize, key: f64) -> Result<(), String> {
        let (exact, bound) = (self.key(q, r), self.tolerance(q, r));
        match (exact - bound..=exact + bound).contains(&key) {
            true => Ok(()),
            false => Err(format!("query {q}, row {r}: key {key}, exact {exact}")),
        }
    }

    /// (exact key, position) of the allowed rows of a query, nearest first.
    pub(super) fn nearest(&self, q: usize) -> Vec<(f64, usize)> {
        let mask = self.mask();
        let mut pairs: Vec<(f64, usize)> =
            (0..ROWS).filter(|&r| mask.allows(q, r)).map(|r| (self.key(q, r), r)).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        pairs
    }

    /// Where the twin of a row lies that has the smaller position.
    fn twin(r: usize) -> Option<usize> {
        r.checked_sub(ROWS - TWINS)
    }

    /// Every place holds an allowed row, with its own key, as near as the place's; a twin never goes before its twin.
    pub(super) fn check_nearest(&self, c: &Candidates, keep: usize) -> Result<(), String> {
        for q in 0..self.queries {
            let wanted = self.nearest(q);
            let places = self.places(c, q, keep)?;
            for (i, &(key, r)) in places.iter().enumerate() {
                let (exact, place) = (self.key(q, r), wanted[i]);
                self.check_key(q, r, key)?;
                if (exact - place.0).abs() > self.tolerance(q, r) + self.tolerance(q, place.1) {
                    return Err(format!("query {q}, place {i}: key {exact}, nearest {}", place.0));
                }
                if let Some(twin) = Data::twin(r)
                    && self.mask().allows(q, twin)
                    && !places[..i].iter().any(|&(_, other)| other == twin)
                {
                    return Err(format!("query {q}: row {r} before its twin {twin}"));
                }
            }
        }
        Ok(())
    }

    /// The filled places of a query: as many as there can be, each an allowed row, none twice.
    fn places(&self, c: &Candidates, q: usize, keep: usize) -> Result<Vec<(f64, usize)>, String> {
        let pairs = c.keys.iter().zip(&c.positions).skip(q * c.width).take(c.width);
        let places: Vec<(f64, usize)> =
            pairs.filter(|&(_, &p)| p != u32::MAX).map(|(&k, &p)| (f64::from(k), p as usize)).collect();
        let wanted = self.nearest(q).len().min(keep);
        if places.len() != wanted {
            return Err(format!("query {q}: {} places filled, wanted {wanted}", places.len()));
        }
        let mut seen = [false; ROWS];
        for &(_, r) in &places {
            if r >= ROWS || !self.mask().allows(q, r) || std::mem::replace(&mut seen[r], true) {
                return Err(format!("query {q}: row {r} is forbidden or given twice"));
            }
        }
        Ok(places)
    }

    /// Bounds are below the exact keys, close to them, and no row left out could have had a smaller one.
    pub(super) fn check_screen(&self, c: &Candidates, keep: usize) -> Result<(), String> {
        let slack = f64::from(ops::search::slack(self.rows().dim()));
        for q in 0..self.queries {
            let places = self.places(c, q, keep)?;
            let scale = |r: usize| {
                let (a, b) = (f64::from(self.query_norms[q]), f64::from(self.row_norms[r]));
                match self.metric {
                    Metric::L2 => (a + b) * (a + b),
                    Metric::InnerProduct => a * b,
                    _ => 1.0,
                }
            };
            for &(key, r) in &places {
                let (exact, wide) = (self.key(q, r), 3.0 * slack * scale(r) + 1e-30);
                if !(exact - wide..=exact + self.tolerance(q, r)).contains(&key) {
                    return Err(format!("query {q}, row {r}: bound {key}, exact {exact}"));
                }
            }
            let last = places.last().map_or(f64::INFINITY, |p| p.0);
            for (exact, r) in self.nearest(q) {
                let left_out = !places.iter().any(|&(_, other)| other == r);
                if left_out && places.len() == keep && exact < last - self.tolerance(q, r) {
                    return Err(format!("query {q}: row {r} with key {exact} left out, bound {last}"));
                }
            }
        }
        Ok(())
    }

    /// Candidates of the screen in f16: bounds below the exact keys and, as these numbers are exact in f16, near them; no
    /// row below the bound is left out.
    pub(super) fn check_halves(&self, c: &Candidates) -> Result<(), String> {
        // What the bound allows for sums, and little more.
        let wide = 1e-4 + DIM.next_multiple_of(16) as f64 * f64::powi(2.0, -20);
        for q in 0..self.queries {
            let Some(&bound) = c.bound.get(q) else { return Err("it was not used".to_owned()) };
            let pairs = c.keys.iter().zip(&c.positions).skip(q * c.width).take(c.width);
            let found: Vec<(f64, usize)> =
                pairs.filter(|pair| *pair.1 != u32::MAX).map(|(&k, &p)| (f64::from(k), p as usize)).collect();
            let wanted = self.nearest(q);
            for (i, &(key, r)) in found.iter().enumerate() {
                if r >= ROWS || !self.mask().allows(q, r) || found[..i].iter().any(|&(_, other)| other == r) {
                    return Err(format!("query {q}: row {r} is forbidden or given twice"));
                }
                let (a, b) = (f64::from(self.query_norms[q]), f64::from(self.row_norms[r]));
                let scale = if self.metric == Metric::Cosine { 1.0 } else { (a + b) * (a + b) };
                let exact = self.key(q, r);
                if !(exact - wide * scale - 1e-30..=exact + self.tolerance(q, r)).contains(&key) {
                    return Err(format!("query {q}, row {r}: bound {key}, exact {exact}"));
                }
            }
            let due = wanted.iter().filter(|&&(key, r)| key + self.tolerance(q, r) < f64::from(bound));
            if let Some((key, r)) = due.into_iter().find(|(_, r)| !found.iter().any(|(_, other)| other == r)) {
                return Err(format!("query {q}: row {r} with key {key} left out, bound {bound}"));
            }
            if found.len() < c.width.min(wanted.len()) && bound == f32::INFINITY {
                return Err(format!("query {q}: {} candidates of {}", found.len(), wanted.len()));
            }
        }
        Ok(())
    }

    pub(super) fn check_matrix(&self, keys: &[f32]) -> Result<(), String> {
        for (i, &key) in keys.iter().enumerate() {
            let (q, r) = (i / ROWS, i % ROWS);
            self.check_key(q, r, f64::from(key))?;
        }
        if keys.len() == self.exact.len() { Ok(()) } else { Err(format!("{} keys", keys.len())) }
    }

    /// A radius that no key comes near: the middle of the widest gap among the nearer half of all keys.
    pub(super) fn radius(&self) -> f32 {
        let mut keys = self.exact.clone();
        keys.sort_by(f64::total_cmp);
        let half = &keys[keys.len() / 8..keys.len() / 2];
        let widest = half.windows(2).max_by(|a, b| (a[1] - a[0]).total_cmp(&(b[1] - b[0])));
        widest.map_or(0.0, |gap| (gap[0] + (gap[1] - gap[0]) / 2.0) as f32)
    }

    pub(super) fn check_range(&self, offsets: &[u64], keys: &[f32], positions: &[u32]) -> Result<(), String> {
        let radius = f64::from(self.radius());
        for q in 0..self.queries {
            let span = offsets[q] as usize..offsets[q + 1] as usize;
            let mut wanted: Vec<usize> =
                self.nearest(q).into_iter().filter(|&(key, _)| key <= radius).map(|(_, r)| r).collect();
            let mut found: Vec<usize> = positions[span.clone()].iter().map(|&p| p as usize).collect();
            wanted.sort_unstable();
            found.sort_unstable();
            if wanted != found {
                return Err(format!("query {q}: {} rows within {radius}, wanted {}", found.len(), wanted.len()));
            }
            for (&key, &r) in keys[span.clone()].iter().zip(&positions[span]) {
                self.check_key(q, r as usize, f64::from(key))?;
            }
        }
        Ok(())
    }

    pub(super) fn check_refined(&self, c: &Candidates) -> Result<(), String> {
        for q in 0..self.queries {
            let row = q * CANDIDATES..(q + 1) * CANDIDATES;
            let mut given = self.candidates[row.clone()].to_vec();
            let mut found = c.positions[row.clone()].to_vec();
            given.sort_unstable();
            found.sort_unstable();
            if given != found {
                return Err(format!("query {q}: other candidates than those given"));
            }
            for (&key, &r) in c.keys[row.clone()].iter().zip(&c.positions[row]) {
                if r != u32::MAX {
                    self.check_key(q, r as usize, f64::from(key))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn check_selected(&self, c: &Candidates) -> Result<(), String> {
        for q in 0..self.queries {
            let wanted = ops::select_k::reference(&self.matrix[q * ROWS..(q + 1) * ROWS], None, c.width);
            let found = c.keys.iter().copied().zip(c.positions.iter().copied()).skip(q * c.width).take(c.width);
            if let Some((found, wanted)) = found.zip(wanted).find(|(found, wanted)| found != wanted) {
                return Err(format!("row {q}: found {found:?}, wanted {wanted:?}"));
            }
        }
        Ok(())
    }

    pub(super) fn check_normalized(&self, norm: Norm, rows: &[f32], norms: &[f32]) -> Result<(), String> {
        let (wanted, lengths) = ops::normalize::reference(norm, &self.rows());
        let bound = (DIM as f64 / 4.0 + 16.0) * f64::powi(2.0, -24);
        let near = |found: f32, exact: f64| (f64::from(found) - exact).abs() <= bound * exact.abs();
        if rows.len() != wanted.len() || norms.len() != lengths.len() {
            return Err(format!("{} components and {} norms", rows.len(), norms.len()));
        }
        let all = rows.iter().zip(&wanted).chain(norms.iter().zip(&lengths));
        match all.into_iter().find(|&(&found, &exact)| !near(found, exact)) {
            Some((found, exact)) => Err(format!("{found}, exact {exact}")),
            None => Ok(()),
        }
    }
}

fn lengths(rows: &RowsView<'_>) -> Vec<f32> {
    let row = |r| ops::distance::row_f64(rows, r);
    (0..rows.rows()).map(|r| row(r).iter().map(|x| x * x).sum::<f64>().sqrt() as f32).collect()
}

/// Bytes that lie as aligned as any element type asks for.
struct Bytes {
    words: Vec<u64>,
    len: usize,
}

impl Bytes {
    fn new(bytes: &[u8]) -> Bytes {
        Bytes { words: bytemuck::pod_collect_to_vec(bytes), len: bytes.len() }
    }

    fn get(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words).get(..self.len).unwrap_or(&[])
    }
}

/// Bytes as rows of `DIM` components, or of `DIM` bytes of bits.
fn view(bytes: &[u8], dtype: DType) -> RowsView<'_> {
    fn matrix<T: bytemuck::Pod>(bytes: &[u8]) -> MatrixView<'_, T> {
        let data: &[T] = bytemuck::try_cast_slice(bytes).unwrap_or(&[]);
        // The length is a multiple of DIM by construction.
        MatrixView::new(data, DIM).unwrap_or_else(|_| unreachable!("rows of {DIM}"))
    }
    match dtype {
        DType::F16 => RowsView::F16(matrix(bytes)),
        DType::Bf16 => RowsView::Bf16(matrix(bytes)),
        DType::I8 => RowsView::I8(matrix(bytes)),
        DType::U8 => RowsView::U8(matrix(bytes)),
        DType::Bits => RowsView::Bits(BitsView::from_bytes(matrix(bytes))),
        _ => RowsView::F32(matrix(bytes)),
    }
}
