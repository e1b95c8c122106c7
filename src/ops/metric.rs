//! The metrics in f64, as the specification of every kernel: loops over components, nothing clever.

use crate::types::{DType, Metric};

/// The internal key of two vectors (smaller is closer): similarities negated. Components as f64; bits as 0 and 1.
pub fn key(metric: Metric, a: &[f64], b: &[f64]) -> f64 {
    let pairs = || a.iter().copied().zip(b.iter().copied());
    // A macro, so that the compiler sees each sum whole: scans in f64 spend all of their time here.
    macro_rules! sum {
        ($f:expr) => {
            pairs().map(|(x, y)| $f(x, y)).sum::<f64>()
        };
    }
    let ratio = |num: f64, den: f64| if num == 0.0 { 0.0 } else { num / den };
    match metric {
        Metric::L2 => sum!(|x: f64, y: f64| (x - y) * (x - y)),
        // No zero below zero: equal keys are decided by position.
        Metric::InnerProduct => 0.0 - sum!(|x: f64, y: f64| x * y),
        Metric::Cosine => {
            0.0 - ratio(
                sum!(|x: f64, y: f64| x * y),
                sum!(|x: f64, _: f64| x * x).sqrt() * sum!(|_: f64, y: f64| y * y).sqrt(),
            )
        }
        Metric::L1 => sum!(|x: f64, y: f64| (x - y).abs()),
        Metric::Linf => pairs().map(|(x, y)| (x - y).abs()).fold(0.0, f64::max),
        Metric::Lp(p) => sum!(|x: f64, y: f64| (x - y).abs().powf(f64::from(p))),
        Metric::Canberra => sum!(|x: f64, y: f64| ratio((x - y).abs(), x.abs() + y.abs())),
        Metric::BrayCurtis => ratio(sum!(|x: f64, y: f64| (x - y).abs()), sum!(|x: f64, y: f64| (x + y).abs())),
        Metric::JensenShannon => {
            let quarter = |x: f64, y: f64| if x + y == 0.0 { 0.0 } else { (x + y) * gap((x - y) / (x + y)) };
            0.25 * sum!(quarter)
        }
        Metric::Jaccard => ratio(sum!(|x: f64, y: f64| (x - y).abs()), sum!(f64::max)),
        Metric::Hamming => sum!(|x: f64, y: f64| if x == y { 0.0 } else { 1.0 }),
    }
}

/// `(1 + d) ln(1 + d) + (1 - d) ln(1 - d)`, without the cancellation that this has for a small d.
fn gap(d: f64) -> f64 {
    let d2 = d * d;
    if d2 < 1e-4 {
        return d2 * (1.0 + d2 * (1.0 / 6.0 + d2 * (1.0 / 15.0 + d2 * (1.0 / 28.0 + d2 / 45.0))));
    }
    let part = |x: f64| if x <= -1.0 { 0.0 } else { (1.0 + x) * x.ln_1p() };
    part(d) + part(-d)
}

/// Whether the key of two vectors of `dim` components of at most this size may overflow f64.
pub fn overflows(metric: Metric, dim: usize, largest: f64) -> bool {
    let (n, twice) = (dim as f64, 2.0 * largest);
    let most = match metric {
        Metric::L2 => n * twice * twice,
        Metric::InnerProduct | Metric::Cosine => n * largest * largest,
        Metric::Lp(p) => n * twice.powf(f64::from(p)),
        // A term of each is at most the sum of both components, or its product with a logarithm of at most 2^11.
        _ => n * twice * 2048.0,
    };
    !most.is_finite()
}

/// How far an f32 key may lie from the exact one, for the direct pass of any engine: `(absolute)` given the
/// exact key, and the lengths of both vectors. See `docs/numerics.md`.
pub fn tolerance(metric: Metric, dtype: DType, dim: usize, exact: f64, norm_a: f64, norm_b: f64) -> f64 {
    let u = f64::powi(2.0, -24);
    let g = (dim as f64 / 4.0 + 16.0) * u;
    let tiny = dim as f64 * f64::from(f32::MIN_POSITIVE);
    match metric {
        Metric::Hamming => 0.0,
        Metric::InnerProduct => g * norm_a * norm_b + tiny,
        Metric::Cosine => 2.0 * g + 4.0 * u,
        // Counts are exact; WGSL divides within 2.5 units in the last place.
        Metric::Jaccard if dtype == DType::Bits => 6.0 * u * exact.abs(),
        Metric::JensenShannon => (2.0 * g + 32.0 * u) * exact.abs() + tiny,
        Metric::Lp(p) => (2.0 * g + (32.0 + 32.0 * f64::from(p)) * u) * exact.abs() + tiny,
        _ => (2.0 * g + 8.0 * u) * exact.abs() + tiny,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_by_hand() {
        let (a, b) = ([1.0, 0.0, 3.0], [2.0, 0.0, 1.0]);
        let close = |m: Metric, want: f64| assert!((key(m, &a, &b) - want).abs() < 1e-12, "{m}: {}", key(m, &a, &b));
        close(Metric::L2, 5.0);
        close(Metric::InnerProduct, -5.0);
        close(Metric::Cosine, -5.0 / 50f64.sqrt());
        close(Metric::L1, 3.0);
        close(Metric::Linf, 2.0);
        close(Metric::Lp(3.0), 9.0);
        close(Metric::Canberra, 1.0 / 3.0 + 0.5);
        close(Metric::BrayCurtis, 3.0 / 7.0);
        close(Metric::Jaccard, 1.0 - 2.0 / 5.0);
        let kl = |x: f64, m: f64| x * (x / m).ln();
        close(Metric::JensenShannon, 0.5 * (kl(1.0, 1.5) + kl(2.0, 1.5) + kl(3.0, 2.0) + kl(1.0, 2.0)));
        assert_eq!(key(Metric::Hamming, &[1.0, 0.0, 1.0], &[0.0, 0.0, 1.0]), 1.0);
        for metric in [Metric::Cosine, Metric::Canberra, Metric::BrayCurtis, Metric::JensenShannon, Metric::Jaccard] {
            assert_eq!(key(metric, &[0.0; 2], &[0.0; 2]), 0.0, "0/0 = 0 in {metric}");
        }
    }
}
