//! A naive encoder of rows and queries, in f64, for tests: the subspace is spanned by the first rows of a reflection.

use crate::task::Coded;
use nearfield::Metric;
use nearfield::compute::Tag;
use nearfield::ops::codes::{BIAS, Codes, GROUP, PADDING, QueryCodes, QueryTerms};
use nearfield::ops::distance::row_f64;
use nearfield::ops::search::slack;

use crate::data::{Case, Rng};

/// Rows and queries of a case in codes.
pub struct Encoded {
    codes: Codes,
    queries: QueryCodes,
    tag: Tag,
}

impl Encoded {
    pub fn coded(&self) -> Coded<'_> {
        Coded { codes: &self.codes, tag: &self.tag, queries: &self.queries }
    }

    /// Codes of `dim` components. A `dim` beyond the rows' own is filled with zeros.
    pub fn new(case: &Case, dim: usize) -> Encoded {
        let coder = Coder::new(case, dim);
        let rows = case.rows.view();
        let mut codes = Codes { dim, ..Codes::default() };
        for r in 0..case.n() {
            coder.push_row(&mut codes, r, &coder.centred(row_f64(&rows, r)));
        }
        codes.bytes.resize(codes.bytes.len() + PADDING, 0);
        let mut queries = QueryCodes { dim, ..QueryCodes::default() };
        let views = case.queries.view();
        (0..case.q()).for_each(|q| coder.push_query(&mut queries, row_f64(&views, q)));
        Encoded { codes, queries, tag: Tag::new() }
    }
}

struct Coder {
    metric: Metric,
    dim: usize,
    mean: Vec<f64>,
    /// Reflected at: a unit vector.
    normal: Vec<f64>,
    /// More than the direct pass and the bound itself err, relative to lengths.
    slack: f64,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn length(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

fn unit(mut a: Vec<f64>) -> Vec<f64> {
    let length = length(&a);
    if length > 0.0 {
        a.iter_mut().for_each(|x| *x /= length);
    }
    a
}

/// f32 that is not below.
fn up(x: f64) -> f32 {
    (x * (1.0 + 1e-6)) as f32
}

/// f32 that is not above.
fn down(x: f64) -> f32 {
    (x - x.abs() * 1e-6) as f32
}

impl Coder {
    fn new(case: &Case, dim: usize) -> Coder {
        let width = case.problem().dim;
        let mut rng = Rng::new(97);
        let normal = unit((0..width).map(|_| rng.normal()).collect());
        let slack = 4.0 * f64::from(slack(width));
        let mut coder = Coder { metric: case.metric, dim, mean: vec![0.0; width], normal, slack };
        let rows = case.rows.view();
        let mut mean = vec![0.0; width];
        for r in 0..case.n() {
            let row = coder.centred(row_f64(&rows, r));
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / case.n() as f64);
        }
        coder.mean = mean;
        coder
    }

    fn of_metric(&self, x: Vec<f64>) -> Vec<f64> {
        if self.metric == Metric::Cosine { unit(x) } else { x }
    }

    /// What stands for a row: z.
    fn centred(&self, x: Vec<f64>) -> Vec<f64> {
        self.of_metric(x).iter().zip(&self.mean).map(|(x, m)| x - m).collect()
    }

    /// The part in the subspace, and the length of the rest.
    fn split(&self, z: &[f64]) -> (Vec<f64>, f64) {
        let along = 2.0 * dot(z, &self.normal);
        let mut y: Vec<f64> = z.iter().zip(&self.normal).map(|(z, n)| z - along * n).collect();
        let rest = y.split_off(self.dim.min(y.len()));
        y.resize(self.dim, 0.0);
        (y, length(&rest))
    }

    /// Scale and integers, and how far they are off.
    fn quantised(y: &[f64]) -> (f32, Vec<i8>, f64) {
        let scale = up(y.iter().fold(0.0, |most: f64, x| most.max(x.abs())) / 127.0);
        let s = f64::from(scale);
        let integers: Vec<i8> = y.iter().map(|x| if s > 0.0 { (x / s).round() as i8 } else { 0 }).collect();
        let off: Vec<f64> = y.iter().zip(&integers).map(|(y, &c)| y - s * f64::from(c)).collect();
        (scale, integers, length(&off))
    }

    fn push_row(&self, codes: &mut Codes, r: usize, z: &[f64]) {
        let (y, tail) = self.split(z);
        let (scale, integers, residual) = Coder::quantised(&y);
        let l2 = self.metric == Metric::L2;
        codes.bytes.extend(integers.iter().map(|&c| (i32::from(c) + BIAS) as u8));
        codes.square.push(if l2 { down(dot(z, z) * (1.0 - self.slack)) } else { 0.0 });
        codes.scale.push(scale);
        codes.residual.push(up(residual));
        codes.tail.push(up(tail));
        if r.is_multiple_of(GROUP) {
            codes.longest.push(0.0);
        }
        let last = codes.longest.last_mut().expect("pushed");
        *last = last.max(up(length(z)));
    }

    fn push_query(&self, queries: &mut QueryCodes, q: Vec<f64>) {
        let q = self.of_metric(q);
        let l2 = self.metric == Metric::L2;
        let g: Vec<f64> = if l2 { q.iter().zip(&self.mean).map(|(q, m)| q - m).collect() } else { q };
        let (y, tail) = self.split(&g);
        let (scale, integers, off) = Coder::quantised(&y);
        let code: Vec<f64> = integers.iter().map(|&w| f64::from(w) * f64::from(scale)).collect();
        let offset = if l2 {
            dot(&g, &g) * (1.0 - self.slack)
        } else {
            -dot(&g, &self.mean) - self.slack * length(&g) * (length(&self.mean) + 1e-30)
        };
        // Half of a squared distance has one inner product, so all is doubled.
        let twice = if l2 { 2.0 } else { 1.0 };
        queries.bytes.extend(&integers);
        queries.terms.push(QueryTerms {
            offset: down(offset),
            scale: (twice as f32) * scale,
            length: up(twice * length(&code)),
            tail: up(twice * tail),
            error: up(twice * (off + self.slack * length(&g))),
        });
    }
}
