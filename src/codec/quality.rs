//! The quality of codes on rows that behave as real ones do: recall of candidates, bias and bound of estimates. Only tests.

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Instant;

    use super::super::lloyd::PartMeans;
    use super::super::spec::{CodecSpec, TransformSpec};
    use super::super::testing::{clustered, view};
    use super::super::transform::Transform;
    use super::super::{Codec, train};
    use crate::format::read_matrix;
    use crate::ops::lists::{Encoded, Prepared, sum};
    use crate::threads::{self, Threads};
    use crate::types::{Metric, RowsView};

    /// Rows, queries and the distances between them; where there is real data, of that.
    struct Set {
        name: &'static str,
        metric: Metric,
        dim: usize,
        rows: Vec<f32>,
        queries: Vec<f32>,
        /// `[queries, rows]`.
        keys: Vec<f32>,
    }

    const QUERIES: usize = 100;

    fn sets(most: usize) -> Vec<Set> {
        let Some(folder) = std::env::var_os("NEARFIELD_DATA") else {
            let (n, dim) = (3000, 64);
            let mut all = clustered(1, n + QUERIES, dim);
            let queries = all.split_off(n * dim);
            return vec![Set::new("synthetic", Metric::L2, dim, all, queries)];
        };
        let floats = |rows: RowsView<'_>, most: usize| {
            let (n, dim) = (rows.rows(), rows.dim());
            let count = n.min(most);
            let mut out = vec![0.0; count * dim];
            let each = out.chunks_mut(dim).enumerate();
            each.for_each(|(i, out)| rows.row_f32((i as u64 * n as u64 / count as u64) as usize, out));
            out
        };
        let sets = [("sift-photos-128-l2", Metric::L2), ("wordnet-minilm-384-angular", Metric::Cosine)];
        sets.map(|(name, metric)| {
            let read = |file: &str| read_matrix(PathBuf::from(&folder).join(name).join(file)).expect("a data set");
            let (rows, queries) = (read("base.npy"), read("queries.npy"));
            let (rows, queries) = (rows.view(), queries.view());
            Set::new(name, metric, rows.dim(), floats(rows, most), floats(queries, QUERIES))
        })
        .into()
    }

    impl Set {
        fn new(name: &'static str, metric: Metric, dim: usize, mut rows: Vec<f32>, mut queries: Vec<f32>) -> Set {
            if metric == Metric::Cosine {
                for row in rows.chunks_mut(dim).chain(queries.chunks_mut(dim)) {
                    let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
                    row.iter_mut().for_each(|x| *x /= length);
                }
            }
            let of_query = |q: &[f32]| rows.chunks(dim).map(|x| exact(metric, q, x)).collect::<Vec<f32>>();
            let keys = threads::map(1, queries.chunks(dim), of_query).concat();
            Set { name, metric, dim, rows, queries, keys }
        }

        fn n(&self) -> usize {
            self.rows.len() / self.dim
        }

        /// Rows and queries in lists, coded.
        fn coded(&self, transforms: &[TransformSpec], spec: CodecSpec) -> Coded {
            let transform = Transform::train(transforms, self.metric, view(&self.rows, self.dim), 3, &mut vec![]);
            let transform = transform.expect("transforms that fit");
            let rows = transform.apply(&RowsView::F32(view(&self.rows, self.dim))).rows;
            let queries = transform.apply(&RowsView::F32(view(&self.queries, self.dim))).rows;
            let dim = transform.output_dim();
            let mut lists = PartMeans::new(1, dim, 64);
            lists.start(&rows, 1);
            lists.rounds(&rows, 4);
            let mut to = vec![0u8; self.n()];
            lists.codes(&rows, &mut to);
            let to: Vec<u32> = to.into_iter().map(u32::from).collect();
            let centroids = lists.centroids;
            let each = rows
                .chunks(dim)
                .zip(&to)
                .flat_map(|(x, &l)| x.iter().zip(&centroids[l as usize * dim..]).map(|(x, c)| x - c));
            let residuals: Vec<f32> = each.collect();
            let codec = train(spec, self.metric, view(&residuals, dim), 1, &mut vec![]).expect("a codec that fits");
            let encoded = codec.encode(self.metric, view(&rows, dim), &to, &centroids);
            let prepared = codec.queries(self.metric, view(&queries, dim));
            Coded { metric: self.metric, dim, codec, queries, to, centroids, encoded, prepared }
        }

        /// The share of the 10 nearest rows of each query among so many candidates by the keys given.
        fn recall(&self, keys: &[f32], candidates: usize) -> f64 {
            let n = self.n();
            let nearest = |keys: &[f32], k: usize| -> Vec<u32> {
                let mut order: Vec<u32> = (0..n as u32).collect();
                order.select_nth_unstable_by(k, |&a, &b| keys[a as usize].total_cmp(&keys[b as usize]));
                order.truncate(k);
                order
            };
            let found = threads::map(1, self.keys.chunks(n).zip(keys.chunks(n)), |(truth, keys)| {
                let candidates = nearest(keys, candidates);
                nearest(truth, 10).iter().filter(|i| candidates.contains(i)).count()
            });
            found.into_iter().sum::<usize>() as f64 / (10 * QUERIES) as f64
        }
    }

    fn exact(metric: Metric, q: &[f32], x: &[f32]) -> f32 {
        if metric == Metric::L2 {
            q.iter().zip(x).map(|(a, b)| (a - b) * (a - b)).sum()
        } else {
            -q.iter().zip(x).map(|(a, b)| a * b).sum::<f32>()
        }
    }

    struct Coded {
        metric: Metric,
        dim: usize,
        codec: Box<dyn Codec>,
        queries: Vec<f32>,
        to: Vec<u32>,
        centroids: Vec<f32>,
        encoded: Encoded,
        prepared: Prepared,
    }

    impl Coded {
        /// Keys of all pairs, from integers, and the bounds of their errors (0 where a code has none).
        fn keys(&self) -> (Vec<f32>, Vec<f32>) {
            let (dim, parts, form) = (self.dim, self.codec.parts(), self.codec.form());
            let each = threads::map(1, self.queries.chunks(dim).enumerate(), |(q, query)| {
                let lists: Vec<(f32, f32)> = self
                    .centroids
                    .chunks(dim)
                    .map(|c| (exact(self.metric, query, c), exact(Metric::L2, query, c).sqrt()))
                    .collect();
                let pair = |(i, &list): (usize, &u32)| {
                    let sum =
                        sum(form, parts, &self.encoded.codes[i * parts..(i + 1) * parts], &self.prepared, q) as f32;
                    let (terms, (offset, far)) = (self.prepared.terms[q], lists[list as usize]);
                    let get = |x: &Vec<f32>, other| x.get(i).copied().unwrap_or(other);
                    let part = get(&self.encoded.scale, 1.0) * (terms.scale * sum + terms.shift);
                    (offset + get(&self.encoded.add, 0.0) + part, get(&self.encoded.error, 0.0) * far)
                };
                self.to.iter().enumerate().map(pair).collect::<Vec<(f32, f32)>>()
            });
            each.into_iter().flatten().unzip()
        }
    }

    #[test]
    #[ignore = "times"]
    fn timing() {
        let (n, dim) = (100_000, 128);
        let rows = clustered(1, n, dim);
        let zeros = vec![0; n];
        let product = |parts, bits| CodecSpec::Product { parts, bits, fast_scan: false };
        let specs =
            (1..=8).map(|bits| CodecSpec::RaBitQ { bits }).chain([CodecSpec::Scalar { bits: 8 }, CodecSpec::F16]);
        for spec in specs.chain([product(32, 4), product(64, 4), product(16, 8), product(32, 8), product(8, 8)]) {
            let start = Instant::now();
            let codec = train(spec, Metric::L2, view(&rows, dim), 1, &mut vec![]).expect("fits");
            let trained = start.elapsed();
            let start = Instant::now();
            let encoded = codec.encode(Metric::L2, view(&rows, dim), &zeros, &rows[..dim]);
            let coded = start.elapsed();
            let start = Instant::now();
            let prepared = codec.queries(Metric::L2, view(&rows[..1000 * dim], dim));
            println!("{spec:?}: trained {trained:?}, coded {coded:?}, 1000 queries {:?}", start.elapsed());
            assert!(prepared.queries == 1000 && encoded.codes.len() >= n);
        }
    }

    #[test]
    fn row_c4_rabitq_is_unbiased_bounded_and_finds_more_than_pq_of_equal_bytes() {
        let _entered = Threads::new(None).enter(&[]);
        for set in sets(30_000) {
            for bits in [1u8, 2, 4] {
                let coded = set.coded(&[TransformSpec::Rotation { dim: None }], CodecSpec::RaBitQ { bits });
                let (keys, errors) = coded.keys();
                let (mut bias, mut mean, mut inside) = (0.0, 0.0, 0);
                for ((&key, &error), &exact) in keys.iter().zip(&errors).zip(&set.keys) {
                    bias += f64::from(key - exact);
                    mean += f64::from(if set.metric == Metric::L2 { exact } else { 2.0 + 2.0 * exact });
                    inside += usize::from((key - exact).abs() <= error);
                }
                let (bias, inside) = (bias / mean, inside as f64 / keys.len() as f64);
                assert!(bias.abs() < 0.01, "{}, {bits} bits: bias {bias}", set.name);
                assert!((0.99..0.999).contains(&inside), "{}, {bits} bits: {inside} inside", set.name);
                // As many bits per vector in parts of 4 bits.
                let spec = CodecSpec::Product { parts: set.dim * usize::from(bits) / 4, bits: 4, fast_scan: false };
                let others = set.coded(&[], spec).keys().0;
                let [found, other] = [keys, others].map(|keys| [10, 30].map(|r| set.recall(&keys, r)));
                println!(
                    "{}, {bits} bits: recall {found:?}, PQ {other:?}, bias {bias:.5}, inside {inside:.4}",
                    set.name
                );
                assert!(found[0] > other[0] && found[1] >= other[1], "{}, {bits} bits: {found:?}, {other:?}", set.name);
            }
        }
    }

    #[test]
    fn row_c2_recall_of_scalar_codes_grows_with_their_bits() {
        let _entered = Threads::new(None).enter(&[]);
        for set in sets(10_000) {
            let found = [4, 6, 8].map(|bits| set.recall(&set.coded(&[], CodecSpec::Scalar { bits }).keys().0, 10));
            println!("{}: SQ4, SQ6, SQ8: {found:?}", set.name);
            assert!(found[0] < found[1] && found[1] < found[2] && found[2] > 0.97, "{}: {found:?}", set.name);
        }
    }

    #[test]
    fn row_b7_opq_makes_product_codes_find_more() {
        let _entered = Threads::new(None).enter(&[]);
        let spec = CodecSpec::Product { parts: 16, bits: 4, fast_scan: true };
        for set in sets(10_000) {
            let recall = |transforms: &[TransformSpec]| set.recall(&set.coded(transforms, spec).keys().0, 30);
            let (plain, turned) = (recall(&[]), recall(&[TransformSpec::Opq { parts: 16, dim: None }]));
            println!("{}: PQ16x4 {plain}, behind OPQ {turned}", set.name);
            assert!(turned > plain, "{}: {turned}, without {plain}", set.name);
        }
    }
}
