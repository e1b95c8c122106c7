//! A kernel proves itself on the device before it is trusted: on its first use in a variant, and for each pipeline (so
//! for each metric and element type), it runs a tiny case with ties, a zero row and forbidden rows, and is compared with
//! the reference of its verb. A variant with subgroups that fails gives way to the plain one; a plain one that fails is
//! disabled and named.

use std::collections::HashMap;
use std::sync::Mutex;

use half::{bf16, f16};

use super::lower;
use super::pipelines::Key;
use super::resident::Residents;
use super::submit::Machine;
use super::sync::lock;
use crate::engine::{Base, Candidates, EngineError, Input, Mask, Output, Task};
use crate::kernels::{self, DeviceCaps, Launch, metric};
use crate::plan::{Norm, Plan, Problem, Screen, Step};
use crate::stats::SearchStats;
use crate::types::{DType, MatrixView, Metric, RowsView};

/// The budget of a self-test, beside that of the engine for as long as it runs.
pub(super) const BYTES: u64 = 16 << 20;
/// Rows of the tiny case: more than a tile of any shape.
const ROWS: usize = 261;
/// Components: not a multiple of anything.
const DIM: usize = 19;
/// Row r is the same as row r - TWIN for these many rows at the end.
const TWINS: usize = 100;

/// What is to be tested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Case {
    Search { screen: Screen, keep: usize, queries: usize },
    Distance { queries: usize },
    Range { queries: usize },
    Refine,
    Select,
    Normalize { norm: Norm },
}

impl Case {
    fn verb(self) -> &'static str {
        match self {
            Case::Search { .. } => "search",
            Case::Distance { .. } => "distance",
            Case::Range { .. } => "range",
            Case::Refine => "refine",
            Case::Select => "select_k",
            Case::Normalize { .. } => "normalize",
        }
    }

    /// As many queries as take the same shape of workgroup.
    fn queries(self) -> usize {
        match self {
            Case::Search { queries, .. } | Case::Distance { queries } | Case::Range { queries } => queries.clamp(1, 20),
            _ => 3,
        }
    }

    /// A launch with the pipeline that is tested.
    fn probe(self, metric: Metric, dtype: DType, caps: &DeviceCaps) -> Launch {
        let (row_end, q_end, dim) = (ROWS as u32, self.queries() as u32, DIM);
        match self {
            Case::Search { screen, keep, .. } => kernels::search::record(
                &kernels::search::Args {
                    metric,
                    dtype,
                    dim,
                    screen,
                    keep: keep as u32,
                    row_begin: 0,
                    row_end,
                    q_begin: 0,
                    q_end,
                    position_base: 0,
                    mask: None,
                    mask_row_base: 0,
                    part_base: 0,
                    parts_total: 1,
                },
                caps,
            ),
            Case::Distance { .. } => kernels::distance::record(
                &kernels::distance::Args {
                    metric,
                    dtype,
                    dim,
                    row_begin: 0,
                    row_end,
                    q_begin: 0,
                    q_end,
                    mask: None,
                    mask_row_base: 0,
                    out_stride: row_end,
                    out_offset: 0,
                },
                caps,
            ),
            Case::Range { .. } => kernels::range::record_fill(
                &kernels::range::Args {
                    metric,
                    dtype,
                    dim,
                    key: 0.0,
                    row_begin: 0,
                    row_end,
                    q_begin: 0,
                    q_end,
                    position_base: 0,
                    mask: None,
                    mask_row_base: 0,
                    out_base: 0,
                },
                caps,
            ),
            Case::Refine => kernels::refine::record(
                &kernels::refine::Args {
                    metric,
                    dtype,
                    dim,
                    q_begin: 0,
                    q_end,
                    width: 1,
                    position_base: 0,
                    rows: row_end,
                    first: true,
                },
                caps,
            ),
            Case::Select => kernels::select_k::record(
                &kernels::select_k::Args {
                    segments: 1,
                    width: 1,
                    in_stride: 1,
                    out_stride: 1,
                    k: 1,
                    part_width: 1,
                    has_positions: false,
                    position_base: 0,
                    nan_is_missing: false,
                },
                caps,
            ),
            Case::Normalize { norm } => {
                kernels::normalize::record(&kernels::normalize::Args { norm, dtype, dim, row_begin: 0, row_end }, caps)
            }
        }
    }
}

/// What has been tested, and what came of it.
#[derive(Default)]
pub(super) struct Checks {
    done: Mutex<HashMap<Key, Result<(), String>>>,
    /// One test at a time.
    testing: Mutex<()>,
}

/// Tests a case unless that has been done. Its pipeline may be used when this is `Ok`.
pub(super) fn ensure(machine: &Machine, metric: Metric, dtype: DType, case: Case) -> Result<(), EngineError> {
    let Some(checks) = &machine.checks else { return Ok(()) };
    let known = |key: &Key| lock(&checks.done).get(key).cloned();
    let key = |machine: &Machine| Key::of(&case.probe(metric, dtype, &machine.caps(case.verb())));
    let verdict = match known(&key(machine)) {
        Some(verdict) => verdict,
        None => {
            let _one = lock(&checks.testing);
            let mut verdict = known(&key(machine));
            if verdict.is_none() && machine.caps(case.verb()).subgroups && has_subgroups(metric, dtype, case) {
                verdict = Some(test(machine, metric, dtype, case)?);
                if matches!(verdict, Some(Err(_))) {
                    machine.use_plain(case.verb());
                    verdict = known(&key(machine));
                }
            }
            let verdict = match verdict {
                Some(verdict) => verdict,
                None => test(machine, metric, dtype, case)?,
            };
            lock(&checks.done).insert(key(machine), verdict.clone());
            verdict
        }
    };
    verdict.map_err(|detail| EngineError::Disabled { kernel: case.verb().to_owned(), detail })
}

/// Whether a kernel is another one with subgroups.
fn has_subgroups(metric: Metric, dtype: DType, case: Case) -> bool {
    let caps = DeviceCaps { subgroups: true, max_invocations: 256, workgroup_memory: 16384, max_groups: 65535 };
    case.probe(metric, dtype, &caps).variant.subgroups
}

/// Runs one case. The outer error is the device's, the inner one says what was wrong with the answer.
fn test(machine: &Machine, metric: Metric, dtype: DType, case: Case) -> Result<Result<(), String>, EngineError> {
    let machine = machine.for_test();
    let data = Data::new(metric, dtype, case.queries());
    let run = |step: Step, input: Input<'_>, mask: Option<Mask<'_>>, rows: usize| {
        let problem = Problem { metric, dtype, dim: data.rows().dim(), rows, queries: data.queries };
        let plan = Plan::one(problem, step);
        let task = Task {
            plan: &plan,
            base: Base { rows: data.rows(), norms: Some(&data.row_norms), tag: None },
            queries: data.query_rows(),
            query_norms: &data.query_norms,
            mask,
            input,
        };
        lower::run(&machine, &Residents::default(), &task, &mut SearchStats::default())
    };
    let output = match case {
        Case::Search { screen, keep, .. } => run(Step::Search { screen, keep }, Input::None, Some(data.mask()), ROWS),
        Case::Distance { .. } => run(Step::Distance, Input::None, None, ROWS),
        Case::Range { .. } => run(Step::Range { key: data.radius() }, Input::None, Some(data.mask()), ROWS),
        Case::Refine => {
            run(Step::Refine, Input::Positions { positions: &data.candidates, width: CANDIDATES }, None, ROWS)
        }
        Case::Select => run(Step::SelectK { k: 9 }, Input::Matrix(&data.matrix), None, ROWS),
        Case::Normalize { norm } => run(Step::Normalize { norm }, Input::None, None, ROWS),
    };
    let output = match output {
        // A text that the driver does not compile is a kernel that does not work, not a device that does not.
        Err(EngineError::Driver(message)) => return Ok(Err(message)),
        other => other?,
    };
    Ok(match (case, output) {
        (Case::Search { screen: Screen::None, keep, .. }, Output::Candidates(c)) => data.check_nearest(&c, keep),
        (Case::Search { keep, .. }, Output::Candidates(c)) => data.check_screen(&c, keep),
        (Case::Distance { .. }, Output::Matrix(keys)) => data.check_matrix(&keys),
        (Case::Range { .. }, Output::Range { offsets, keys, positions }) => {
            data.check_range(&offsets, &keys, &positions)
        }
        (Case::Refine, Output::Candidates(c)) => data.check_refined(&c),
        (Case::Select, Output::Candidates(c)) => data.check_selected(&c),
        (Case::Normalize { norm }, Output::Rows { rows, norms }) => data.check_normalized(norm, &rows, &norms),
        _ => Err("an answer of another kind".to_owned()),
    })
}

/// Candidates a query in the test of `refine`.
const CANDIDATES: usize = 11;

/// The tiny case: rows and queries whose sums are exact in f32, their keys in f64, and a mask for each query.
struct Data {
    metric: Metric,
    dtype: DType,
    queries: usize,
    rows: Bytes,
    query_rows: Bytes,
    row_norms: Vec<f32>,
    query_norms: Vec<f32>,
    mask: Vec<u32>,
    candidates: Vec<u32>,
    matrix: Vec<f32>,
    /// Keys `[queries, ROWS]`.
    exact: Vec<f64>,
}

impl Data {
    fn new(metric: Metric, dtype: DType, queries: usize) -> Data {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as u32
        };
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
                DType::F32 => values.flat_map(f32::to_ne_bytes).collect(),
                DType::F16 => values.flat_map(|v| f16::from_f32(v).to_ne_bytes()).collect(),
                DType::Bf16 => values.flat_map(|v| bf16::from_f32(v).to_ne_bytes()).collect(),
                DType::I8 => values.map(|v| (v as i8) as u8).collect(),
                DType::U8 => values.map(|v| v as u8).collect(),
                // A byte of eight components each.
                DType::Bits => values.map(|v| (v * 29.0) as i32 as u8).collect(),
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
        data.exact = kernels::distance::reference(metric, &data.query_rows(), &data.rows());
        data
    }

    fn rows(&self) -> RowsView<'_> {
        view(self.rows.get(), self.dtype)
    }

    fn query_rows(&self) -> RowsView<'_> {
        view(self.query_rows.get(), if self.dtype == DType::Bits { DType::Bits } else { DType::F32 })
    }

    fn mask(&self) -> Mask<'_> {
        Mask { words: &self.mask, stride: ROWS.div_ceil(32) }
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
    fn nearest(&self, q: usize) -> Vec<(f64, usize)> {
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
    fn check_nearest(&self, c: &Candidates, keep: usize) -> Result<(), String> {
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
    fn check_screen(&self, c: &Candidates, keep: usize) -> Result<(), String> {
        let slack = f64::from(kernels::search::slack(self.rows().dim()));
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

    fn check_matrix(&self, keys: &[f32]) -> Result<(), String> {
        for (i, &key) in keys.iter().enumerate() {
            let (q, r) = (i / ROWS, i % ROWS);
            self.check_key(q, r, f64::from(key))?;
        }
        if keys.len() == self.exact.len() { Ok(()) } else { Err(format!("{} keys", keys.len())) }
    }

    /// A radius that no key comes near: the middle of the widest gap among the nearer half of all keys.
    fn radius(&self) -> f32 {
        let mut keys = self.exact.clone();
        keys.sort_by(f64::total_cmp);
        let half = &keys[keys.len() / 8..keys.len() / 2];
        let widest = half.windows(2).max_by(|a, b| (a[1] - a[0]).total_cmp(&(b[1] - b[0])));
        widest.map_or(0.0, |gap| (gap[0] + (gap[1] - gap[0]) / 2.0) as f32)
    }

    fn check_range(&self, offsets: &[u64], keys: &[f32], positions: &[u32]) -> Result<(), String> {
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

    fn check_refined(&self, c: &Candidates) -> Result<(), String> {
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

    fn check_selected(&self, c: &Candidates) -> Result<(), String> {
        for q in 0..self.queries {
            let wanted = kernels::select_k::reference(&self.matrix[q * ROWS..(q + 1) * ROWS], None, c.width);
            let found = c.keys.iter().copied().zip(c.positions.iter().copied()).skip(q * c.width).take(c.width);
            if let Some((found, wanted)) = found.zip(wanted).find(|(found, wanted)| found != wanted) {
                return Err(format!("row {q}: found {found:?}, wanted {wanted:?}"));
            }
        }
        Ok(())
    }

    fn check_normalized(&self, norm: Norm, rows: &[f32], norms: &[f32]) -> Result<(), String> {
        let (wanted, lengths) = kernels::normalize::reference(norm, &self.rows());
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
    let row = |r| kernels::distance::row_f64(rows, r);
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
        DType::F32 => RowsView::F32(matrix(bytes)),
        DType::F16 => RowsView::F16(matrix(bytes)),
        DType::Bf16 => RowsView::Bf16(matrix(bytes)),
        DType::I8 => RowsView::I8(matrix(bytes)),
        DType::U8 => RowsView::U8(matrix(bytes)),
        DType::Bits => RowsView::Bits(matrix(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tiny_case_has_ties_zero_rows_and_forbidden_rows() {
        for dtype in DType::ALL {
            let data = Data::new(if dtype == DType::Bits { Metric::Hamming } else { Metric::L2 }, dtype, 20);
            assert_eq!(data.rows().rows(), ROWS, "{dtype}");
            assert_eq!(data.rows().row_bytes(0), data.rows().row_bytes(ROWS - TWINS));
            assert!(data.rows().row_bytes(5).iter().all(|&b| b == 0));
            assert!(data.nearest(0).len() < ROWS && data.nearest(0).len() > ROWS / 2);
            let radius = f64::from(data.radius());
            let hits = data.exact.iter().filter(|&&key| key <= radius).count();
            assert!(hits > 100 && hits < data.exact.len(), "{dtype}: {hits} within {radius}");
        }
    }

    #[test]
    fn a_check_fails_when_one_key_is_wrong() {
        let data = Data::new(Metric::L2, DType::F32, 3);
        let mut keys: Vec<f32> = data.exact.iter().map(|&k| k as f32).collect();
        assert_eq!(data.check_matrix(&keys), Ok(()));
        keys[40] += 1e-3;
        assert!(data.check_matrix(&keys).is_err());
        let mut nearest = Candidates::empty(3, 10);
        for q in 0..3 {
            for (i, (key, r)) in data.nearest(q).into_iter().take(10).enumerate() {
                (nearest.keys[q * 10 + i], nearest.positions[q * 10 + i]) = (key as f32, r as u32);
            }
        }
        assert_eq!(data.check_nearest(&nearest, 10), Ok(()));
        nearest.positions.swap(0, 11);
        assert!(data.check_nearest(&nearest, 10).is_err());
    }
}
