//! `scan`: the rows of the probed lists with the smallest keys ([`lists`](super::lists) says what a key is).
//!
//! Shapes: lists of packed codes; `[q, width]` probed lists and offsets; queries prepared for the form. Out:
//! `[q, keep]` keys and slots, smallest (key, slot) first. Error: the sum S is exact, and the key is evaluated in f32 in
//! any order; keys of exact forms err as [`metric::tolerance`](super::metric::tolerance) says.

use super::lists::{Form, Lists, Prepared, Probes, estimate, floats, sum};
use super::{Cost, Kernel, Mask, metric};
use crate::types::{DType, Metric};

/// The entry points of `shaders/scan.wgsl`.
pub fn kernels() -> Vec<&'static Kernel> {
    vec![]
}

/// Each code of each probed list is read once a query.
pub fn cost(form: Form, dim: usize, rows_scanned: f64, queries: usize, keep: usize) -> Cost {
    let bytes = 4.0 * form.words(dim) as f64 + 12.0;
    Cost {
        bytes_read: rows_scanned * bytes,
        bytes_written: (queries * keep * 8) as f64,
        operations: rows_scanned * 2.0 * form.padded(dim) as f64,
        launches: 1.0,
    }
}

/// The candidates of each query in f64 sums: `[q, keep]` (key, slot), smallest first, as many as there are.
pub fn reference(
    metric: Metric,
    lists: &Lists,
    queries: &Prepared,
    probes: &Probes<'_>,
    mask: Option<Mask<'_>>,
    keep: usize,
) -> Vec<Vec<(f32, u32)>> {
    let mut code = vec![0; lists.code_bytes()];
    let mut one = |q: usize| {
        let mut found = Vec::new();
        for i in (q * probes.width..(q + 1) * probes.width).filter(|&i| probes.lists[i] != u32::MAX) {
            let number = probes.lists[i] as usize;
            let list = &lists.lists[number];
            for (place, &position) in list.positions.iter().enumerate() {
                if mask.is_some_and(|m| !m.allows(q, position as usize)) {
                    continue;
                }
                lists.code(number, place, &mut code);
                let key = match lists.form {
                    Form::Rows(dtype) => rows_key(metric, dtype, lists.dim, &code, &queries.floats, q),
                    Form::Bits => bits_key(&code, &queries.bits, lists.form.words(lists.dim), q),
                    form => {
                        let sum = sum(form, lists.dim, &code, queries, q);
                        estimate(list, place, queries.terms[q], probes.offsets[i], sum)
                    }
                };
                found.push((key, lists.starts[number] + place as u32));
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        found.truncate(keep);
        found
    };
    (0..queries.queries).map(&mut one).collect()
}

fn rows_key(metric: Metric, dtype: DType, dim: usize, code: &[u8], queries: &[f32], q: usize) -> f32 {
    let row: Vec<f64> = floats(dtype, code).into_iter().map(f64::from).collect();
    let query: Vec<f64> = queries[q * dim..(q + 1) * dim].iter().map(|&x| f64::from(x)).collect();
    metric::key(metric, &query, &row) as f32
}

fn bits_key(code: &[u8], queries: &[u32], words: usize, q: usize) -> f32 {
    let query: &[u8] = bytemuck::cast_slice(&queries[q * words..(q + 1) * words]);
    code.iter().zip(query).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>() as f32
}
