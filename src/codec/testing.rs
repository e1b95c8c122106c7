//! What the tests of codecs share: rows, and the checks that every codec must pass.

use super::spec::CodecSpec;
use super::{Codec, Unrounded, read};
use crate::ops::lists::{Encoded, Lists, sum};
use crate::random::Uniform;
use crate::types::{MatrixView, Metric};

pub fn view(rows: &[f32], dim: usize) -> MatrixView<'_, f32> {
    MatrixView::new(rows, dim).expect("whole rows")
}

/// Uniform numbers from -1 to 1.
pub fn random(seed: u64) -> impl FnMut() -> f32 {
    let mut random = Uniform::of_state(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    move || (random.next() * f64::powi(2.0, 24)).floor() as f32 / f32::powi(2.0, 23) - 1.0
}

/// Rows about 20 centres, with components of different variances.
pub fn clustered(seed: u64, n: usize, dim: usize) -> Vec<f32> {
    let mut next = random(seed);
    let centres: Vec<f32> = (0..20 * dim).map(|_| 2.0 * next()).collect();
    let mut out = Vec::with_capacity(n * dim);
    for i in 0..n {
        for j in 0..dim {
            let spread = 1.5 / (1.0 + j as f32 / 8.0);
            out.push(centres[i % 20 * dim + j] * spread + spread * (next() + next() + next()));
        }
    }
    out
}

/// For each metric: keys from packed integers are those of `product` within `slack` times the stated rounding of the
/// query, and with `add` those of decoded rows, where the code does not know more than that.
pub fn estimates_match(codec: &dyn Codec, slack: f64) {
    let dim = codec.dim();
    let (n, q) = (60, 5);
    let (rows, queries, centroids) = (clustered(11, n, dim), clustered(12, q, dim), clustered(13, 3, dim));
    let to: Vec<u32> = (0..n as u32).map(|i| i % 3).collect();
    for metric in [Metric::L2, Metric::InnerProduct] {
        let encoded = codec.encode(metric, view(&rows, dim), &to, &centroids);
        let prepared = codec.queries(metric, view(&queries, dim));
        let bytes = encoded.codes.len() / n;
        assert_eq!(bytes, codec.parts());
        let mut lists = Lists::new(codec.form(), codec.parts(), 3);
        lists.append(&encoded, &to, 0);
        for query in 0..q {
            let vector = &queries[query * dim..(query + 1) * dim];
            let (unrounded, terms) = (codec.unrounded(metric, vector), prepared.terms[query]);
            let (mut room, mut code) = (Vec::new(), vec![0; bytes]);
            for list in 0..3 {
                let mut places = 0..lists.lists[list].len();
                unrounded.scan(&lists, list, 0.5, &mut room, |place, key| {
                    assert_eq!(places.next(), Some(place));
                    lists.code(list, place, &mut code);
                    let (add, scale) = (lists.lists[list].add.get(place), lists.lists[list].scale.get(place));
                    let (add, scale) = (add.map_or(0.0, |&x| f64::from(x)), scale.map_or(1.0, |&x| f64::from(x)));
                    let wanted = 0.5 + add + scale * product(codec, &unrounded, &code);
                    let near = (f64::from(key) - wanted).abs() <= 1e-4 * (1.0 + wanted.abs() + add.abs());
                    assert!(near, "{metric}: {key} for {wanted}");
                });
                assert!(places.is_empty());
            }
            for i in 0..n {
                let code = &encoded.codes[i * bytes..(i + 1) * bytes];
                let part = f64::from(terms.scale) * sum(codec.form(), codec.parts(), code, &prepared, query) as f64
                    + f64::from(terms.shift);
                let exact = product(codec, &unrounded, code);
                let bound = f64::from(prepared.rounding[query]) + 1e-4 * exact.abs() + 1e-4;
                assert!(
                    (part - exact).abs() <= slack * bound,
                    "{metric}: {part} for {exact}, off by more than {bound}"
                );
                let scale = encoded.scale.get(i).copied().unwrap_or(1.0);
                let mut r = vec![0.0; dim];
                codec.decode(code, scale, &mut r);
                let product: f64 = r.iter().zip(vector).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                let factor = if metric == Metric::L2 { -2.0 } else { -1.0 };
                let wanted = factor * product;
                let found = f64::from(scale) * exact;
                assert!((found - wanted).abs() <= 1e-3 * (1.0 + wanted.abs()), "{metric}: {found} for {wanted}");
                check_add(metric, &encoded, i, &r, &centroids[to[i] as usize * dim..][..dim]);
            }
        }
    }
}

/// What a query gives for a code, unrounded.
pub fn product(codec: &dyn Codec, query: &Unrounded, code: &[u8]) -> f64 {
    let entries = codec.form().entries();
    let each = code.iter().enumerate().map(|(p, &c)| match entries {
        0 => f64::from(query.numbers[p]) * f64::from(c),
        _ => f64::from(query.numbers[p * entries + usize::from(c)]),
    });
    query.shift + each.sum::<f64>()
}

fn check_add(metric: Metric, encoded: &Encoded, i: usize, r: &[f32], c: &[f32]) {
    if !encoded.scale.is_empty() {
        return;
    }
    if metric != Metric::L2 {
        assert!(encoded.add.is_empty());
        return;
    }
    let wanted: f64 = r.iter().zip(c).map(|(&a, &c)| f64::from(a) * (f64::from(a) + 2.0 * f64::from(c))).sum();
    assert!(
        (f64::from(encoded.add[i]) - wanted).abs() < 1e-3 * (1.0 + wanted.abs()),
        "{} for {wanted}",
        encoded.add[i]
    );
}

/// What was written is read again; cut or changed bytes are an error or another codec, never a panic.
pub fn round_trips<C: Codec + Clone + PartialEq + 'static>(codec: &C, spec: CodecSpec) {
    let bytes = codec.write();
    let dim = codec.dim();
    let again = read(spec, dim, &bytes).expect("what was written");
    assert_eq!(again.write(), bytes);
    let rows = clustered(7, 20, dim);
    let codes = |c: &dyn Codec| c.encode(Metric::L2, view(&rows, dim), &[0; 20], &[]);
    assert_eq!(codes(&*again), codes(codec));
    for cut in 0..bytes.len() {
        assert!(read(spec, dim, &bytes[..cut]).is_err(), "{cut} of {} bytes", bytes.len());
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(read(spec, dim, &longer).is_err());
    if bytes.len() > 2 {
        assert!(read(spec, dim + 1, &bytes).is_err() && read(spec, 0, &bytes).is_err());
    }
    for i in 0..bytes.len().min(200) {
        for change in [0xff, 0x7f, 0x01] {
            let mut other = bytes.clone();
            other[i] ^= change;
            if let Ok(codec) = read(spec, dim, &other) {
                let _ = codes(&*codec);
            }
        }
    }
}
