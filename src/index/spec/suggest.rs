//! Which spec suits data, by rules. `nearfield tune` measures instead.

use super::{CodecSpec, IndexSpec, RerankSpec, TransformSpec};

/// Rows below which looking at all of them is as fast as any list, and exact.
const FEW_ROWS: usize = 50_000;

/// Rows below which lists are not worth their centroids, even for codes.
const NO_LISTS: usize = 4096;

/// Rows that a centroid should be trained on; Faiss warns below as many.
const ROWS_OF_LIST: usize = 39;

/// Fewest components that a subspace should have.
const LEAST_DIM: usize = 16;

impl IndexSpec {
    /// The index that is expected to be fastest for `n` rows of `dim` components in f32 under l2, ip or cosine, of those
    /// that fit into `memory` bytes (any, when absent) and can find a share `recall` of the true neighbours.
    ///
    /// | when | spec | why |
    /// |---|---|---|
    /// | `recall` of 1 | `Flat` | the one that is exact |
    /// | below 50,000 rows that fit | `Flat` | the screened scan of all is as fast as lists, and exact |
    /// | rows fit twice | `PCARd,IVFn,SQ8,Refine(Flat)` | 8-bit integers of the principal subspace are scanned fastest: all of a register's lanes multiply, and few components hold most of a distance; ranking again makes good for the rest |
    /// | less | the same with `Refine(SQfp16)`, then `Refine(SQ8)` | rows for re-ranking are most of the bytes; half precision loses next to nothing, 8 bits a few neighbours in a thousand |
    /// | less | `RR,IVFn,RaBitQb` | codes only, of as many bits as fit: its estimates have no bias, so it loses least without re-ranking |
    /// | less than one bit per component | `PCARd,IVFn,RaBitQ` | one bit for each direction that fits, those with most of the variance |
    ///
    /// There are n = 4 sqrt(rows) lists, to the nearest power of two, at least 39 rows each: fewer make lists long, more
    /// make finding the lists dear. d is 64, or 128 from 256 components on, half as much again for a recall above 0.97
    /// (ten neighbours are then among the best 50 of photographs', digits' and sentences' vectors), and all when that
    /// would keep more than two thirds. When nothing fits, the smallest index is suggested.
    pub fn suggest(n: usize, dim: usize, memory: Option<u64>, recall: f32) -> IndexSpec {
        let exact = recall.is_nan() || recall >= 1.0;
        let fits = |spec: &IndexSpec| memory.is_none_or(|memory| spec.bytes(n, dim) <= u128::from(memory));
        if exact || (n < FEW_ROWS && fits(&IndexSpec::FLAT)) {
            return IndexSpec::FLAT;
        }
        let lists = lists(n);
        let with = |transform: Option<TransformSpec>, codec| IndexSpec {
            transforms: transform.into_iter().collect(),
            lists,
            codec,
            ..IndexSpec::FLAT
        };
        let principal = principal(dim, recall).map(|dim| TransformSpec::Pca { dim, rotate: true });
        let integers = with(principal, CodecSpec::Scalar { bits: 8 });
        let ranked = [RerankSpec::Flat, RerankSpec::F16, RerankSpec::Scalar8].map(|r| integers.clone().rerank(r));
        let rotation = Some(TransformSpec::Rotation { dim: None });
        let bare = (1..=8).rev().map(|bits| with(rotation, CodecSpec::RaBitQ { bits }));
        let halves = |dim: &usize| Some(dim / 2).filter(|&half| half >= LEAST_DIM);
        let small = std::iter::successors(halves(&dim), halves)
            .map(|dim| with(Some(TransformSpec::Pca { dim, rotate: true }), CodecSpec::RaBitQ { bits: 1 }));
        let mut last = IndexSpec::FLAT;
        for spec in ranked.into_iter().chain(bare).chain(small) {
            if fits(&spec) {
                return spec;
            }
            last = spec;
        }
        last
    }

    /// Bytes of an index of `n` rows: its vectors, centroids, and what transforms learn.
    fn bytes(&self, n: usize, dim: usize) -> u128 {
        let matrix = |t: &TransformSpec| match *t {
            TransformSpec::Pca { dim: kept, .. } => kept * dim,
            _ => 0,
        };
        let numbers = self.lists.unwrap_or(0) * self.coded_dim(dim) + self.transforms.iter().map(matrix).sum::<usize>();
        n as u128 * self.bytes_per_vector(dim) as u128 + 4 * numbers as u128
    }
}

/// The power of two nearest to 4 sqrt(n) that leaves lists long enough to be trained; none for few rows.
fn lists(n: usize) -> Option<usize> {
    if n < NO_LISTS {
        return None;
    }
    let wanted = (4.0 * (n as f64).sqrt()).log2().round() as u32;
    let most = (n / ROWS_OF_LIST).ilog2();
    Some(1 << wanted.min(most).min(usize::BITS - 2))
}

/// Components of the principal subspace; none when all are kept.
fn principal(dim: usize, recall: f32) -> Option<usize> {
    let kept = if dim < 256 { 64 } else { 128 };
    let kept = if recall > 0.97 { kept * 3 / 2 } else { kept };
    Some(kept).filter(|kept| kept * 3 <= dim * 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Metric;

    fn suggest(n: usize, dim: usize, memory: Option<u64>, recall: f32) -> String {
        IndexSpec::suggest(n, dim, memory, recall).to_string()
    }

    #[test]
    fn row_c11_flat_where_it_is_exact_or_fastest() {
        assert_eq!(suggest(10_000_000, 128, None, 1.0), "Flat");
        assert_eq!(suggest(10_000_000, 128, Some(1), f32::NAN), "Flat");
        assert_eq!(suggest(49_999, 128, None, 0.9), "Flat");
        assert_eq!(suggest(0, 0, None, 0.9), "Flat");
        assert_ne!(suggest(49_999, 128, Some(49_999 * 511), 0.9), "Flat");
    }

    #[test]
    fn row_c11_memory_decides_what_is_kept() {
        const MIB: u64 = 1 << 20;
        for (mib, spec) in [
            (None, "PCAR64,IVF4096,SQ8,Refine(Flat)"),
            (Some(600), "PCAR64,IVF4096,SQ8,Refine(Flat)"),
            (Some(400), "PCAR64,IVF4096,SQ8,Refine(SQfp16)"),
            (Some(200), "PCAR64,IVF4096,SQ8,Refine(SQ8)"),
            (Some(140), "RR,IVF4096,RaBitQ8"),
            (Some(80), "RR,IVF4096,RaBitQ4"),
            (Some(32), "RR,IVF4096,RaBitQ"),
            (Some(22), "PCAR64,IVF4096,RaBitQ"),
            (Some(1), "PCAR16,IVF4096,RaBitQ"),
        ] {
            assert_eq!(suggest(1_000_000, 128, mib.map(|m| m * MIB), 0.95), spec, "{mib:?}");
        }
    }

    #[test]
    fn row_c11_lists_and_components_follow_the_rows() {
        assert_eq!(suggest(60_000, 784, None, 0.95), "PCAR128,IVF1024,SQ8,Refine(Flat)");
        assert_eq!(suggest(500_000, 128, None, 0.99), "IVF2048,SQ8,Refine(Flat)");
        assert_eq!(suggest(100_000, 384, None, 0.99), "PCAR192,IVF1024,SQ8,Refine(Flat)");
        assert_eq!(suggest(100_000, 8, None, 0.9), "IVF1024,SQ8,Refine(Flat)");
        assert_eq!(lists(4095), None);
        assert_eq!(lists(4096), Some(64));
        assert!((1..100).all(|i| lists(i * 10_007).is_none_or(|n| n * ROWS_OF_LIST <= i * 10_007)));
    }

    #[test]
    fn row_c11_what_is_suggested_fits_the_data() {
        for n in [0, 1, 300, 5000, 60_000, 1_000_000, usize::MAX >> 8] {
            for dim in [1, 3, 33, 100, 384, 4096] {
                for share in [None, Some(1.0), Some(0.5), Some(0.1), Some(0.03), Some(0.0)] {
                    let whole = IndexSpec::FLAT.bytes(n, dim) as f64;
                    let memory = share.map(|s: f64| (whole * s) as u64);
                    let spec = IndexSpec::suggest(n, dim, memory, 0.95);
                    assert_eq!(spec.check(dim, Metric::L2, Some(n)), Ok(()), "{n} x {dim}: {spec}");
                    assert_eq!(spec.to_string().parse(), Ok(spec));
                }
            }
        }
    }
}
