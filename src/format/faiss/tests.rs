use std::path::PathBuf;

use super::*;
use crate::format::{read_ids, read_matrix};

/// `scripts/make-faiss-files` makes these.
const READ: [&str; 35] = [
    "center",
    "empty",
    "flat_ip",
    "flat_l1",
    "flat_l2",
    "flat_lp",
    "idmap",
    "idmap2_sq8",
    "ivf_flat",
    "ivf_flat_ip",
    "ivf_ids",
    "ivf_pq4x4",
    "ivf_pq4x4_ip",
    "ivf_pq_no_residual",
    "ivf_sparse",
    "ivf_sq6_ip",
    "ivf_sq8",
    "ivf_sq8_uniform",
    "ivf_sqfp16",
    "l2norm",
    "opq_pq",
    "pad",
    "pca_ivf_sq8",
    "pcar_flat",
    "pq2",
    "pq4x4",
    "refine",
    "refine_sq8",
    "rr_ivf_flat",
    "sq4",
    "sq6",
    "sq8",
    "sq8_direct",
    "sq8_direct_signed",
    "sqbf16",
];

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/faiss").join(file)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(&format!("{name}.index"))).unwrap()
}

fn found(array: &str) -> PathBuf {
    path(&format!("found.npz:{array}"))
}

/// What a transform makes of a vector.
fn apply(transform: &FaissTransform, x: Vec<f32>) -> Vec<f32> {
    match transform {
        FaissTransform::Linear { matrix, bias, dim, .. } => (0..*dim)
            .map(|i| {
                let row = &matrix[i * x.len()..][..x.len()];
                row.iter().zip(&x).map(|(a, b)| a * b).sum::<f32>() + bias.as_ref().map_or(0.0, |b| b[i])
            })
            .collect(),
        FaissTransform::Normalize => {
            let length = x.iter().map(|x| x * x).sum::<f32>().sqrt();
            x.iter().map(|x| x / length).collect()
        }
        FaissTransform::Centre(mean) => x.iter().zip(mean).map(|(x, m)| x - m).collect(),
        FaissTransform::Resize { dim } => {
            let mut x = x;
            x.resize(*dim, 0.0);
            x
        }
    }
}

fn distance(metric: Metric, a: &[f32], b: &[f32]) -> f32 {
    let pairs = a.iter().zip(b);
    match metric {
        Metric::L2 => pairs.map(|(a, b)| (a - b) * (a - b)).sum(),
        Metric::InnerProduct => pairs.map(|(a, b)| a * b).sum(),
        Metric::L1 => pairs.map(|(a, b)| (a - b).abs()).sum(),
        Metric::Lp(p) => pairs.map(|(a, b)| (a - b).abs().powf(p)).sum(),
        _ => unreachable!(),
    }
}

/// The `k` nearest to a query among the decoded rows, with what ranks them again.
fn search(index: &FaissIndex, query: &[f32], k: usize) -> Vec<(i64, f32)> {
    let dim = index.coded_dim();
    let turned = index.transforms.iter().fold(query.to_vec(), |x, t| apply(t, x));
    let mut hits = Vec::new();
    let mut all = |query: &[f32], codec: &FaissCodec, list: &FaissList, centroid: Option<&[f32]>| {
        let codes = list.codes.chunks_exact(codec.code_bytes(query.len()));
        assert_eq!(codes.len(), list.ids.len());
        for (id, code) in list.ids.iter().zip(codes) {
            let mut x = vec![0.0; query.len()];
            codec.decode(code, &mut x);
            x.iter_mut().zip(centroid.unwrap_or_default()).for_each(|(x, c)| *x += c);
            hits.push((index.id(*id), distance(index.metric, query, &x)));
        }
    };
    match &index.refine {
        Some(again) => all(query, &again.codec, &again.rows, None),
        None => {
            for (i, list) in index.lists.iter().enumerate() {
                let centroid = index.centroids.as_ref().filter(|_| index.by_residual).map(|c| &c[i * dim..][..dim]);
                all(&turned, &index.codec, list, centroid);
            }
        }
    }
    let sign = if index.metric.is_similarity() { -1.0 } else { 1.0 };
    hits.sort_by(|a, b| (sign * a.1).total_cmp(&(sign * b.1)).then(a.0.cmp(&b.0)));
    hits.truncate(k);
    hits
}

#[test]
fn what_is_read_finds_what_faiss_finds() {
    let queries = read_matrix(found("queries")).unwrap();
    for name in READ {
        let index = FaissIndex::read(path(&format!("{name}.index"))).unwrap();
        let ids = read_ids(found(&format!("{name}_ids"))).unwrap();
        let distances = read_matrix(found(&format!("{name}_distances"))).unwrap();
        let (k, mut wanted) = (ids.shape[1], vec![0.0; ids.shape[1]]);
        for q in 0..queries.rows() {
            let mut query = vec![0.0; queries.dim()];
            queries.view().row_f32(q, &mut query);
            distances.view().row_f32(q, &mut wanted);
            let hits = search(&index, &query, k);
            assert_eq!(hits.len(), k.min(index.rows()), "{name}");
            for (place, (id, near)) in hits.into_iter().enumerate() {
                let close = (near - wanted[place]).abs() <= 2e-4 * (1.0 + near.abs());
                let same = id == ids.ids[q * k + place];
                // Faiss finds rows whose codes are equal in either order, and adds up in another.
                let tie = place > 0 && (wanted[place] - wanted[place - 1]).abs() < 1e-4
                    || place + 1 < k && (wanted[place + 1] - wanted[place]).abs() < 1e-4;
                assert!(close && (same || tie || place + 1 == k), "{name}, {q}, {place}: {id} {near}, {wanted:?}");
            }
        }
    }
}

#[test]
fn parts_are_what_they_were_made_as() {
    let read = |name: &str| FaissIndex::parse(&bytes(name)).unwrap();
    let index = read("ivf_pq4x4");
    assert_eq!((index.metric, index.dim, index.rows(), index.lists.len()), (Metric::L2, 8, 40, 4));
    assert!(index.by_residual && matches!(index.codec, FaissCodec::Product { parts: 4, bits: 4, .. }));
    assert_eq!(index.centroids.as_ref().map(Vec::len), Some(4 * 8));
    assert!(!read("ivf_pq_no_residual").by_residual && !read("ivf_flat").by_residual);
    assert_eq!(read("flat_lp").metric, Metric::Lp(3.0));
    assert_eq!(read("ivf_sparse").lists.len(), 64);
    assert_eq!((read("empty").rows(), read("empty").dim), (0, 8));
    assert!(read("ivf_ids").lists.iter().flat_map(|l| &l.ids).all(|id| id % 7 == 1000 % 7 && *id >= 1000));
    assert_eq!(read("idmap").ids.unwrap()[..3], [1000, 1007, 1014]);
    assert_eq!(read("idmap").id(2), 1014);
    let index = read("refine");
    assert_eq!((index.dim, index.coded_dim()), (8, 4));
    assert!(matches!(&index.transforms[..], [FaissTransform::Linear { kind, .. }] if kind == "Pcam"));
    assert!(index.refine.is_some_and(|r| r.codec == FaissCodec::F32 && r.rows.ids.len() == 40));
}

#[test]
fn row_e3_what_is_not_read_is_named() {
    for (name, offset, fourcc, problem) in [
        ("hnsw", 0, "IHNf", "graph"),
        ("ivf_hnsw", 53, "IHNf", "centroids"),
        ("fastscan", 0, "IwPf", "without `fs`"),
        ("itq_lsh", 41, "Viqt", "PCA, OPQ"),
        ("binary", 0, "IBxF", "packed bits"),
    ] {
        let wrong = FaissIndex::parse(&bytes(name)).unwrap_err();
        assert_eq!((wrong.offset, wrong.fourcc.as_str()), (offset, fourcc), "{wrong}");
        assert!(wrong.to_string().contains(problem), "{wrong}");
    }
    let wrong = FaissIndex::parse(&bytes("fastscan")).unwrap_err().problem;
    let whole =
        "a FastScan index is not read here, since it is packed for one processor; the same index without `fs` is";
    assert_eq!(wrong, whole);
    let wrong = FaissIndex::parse(b"NEARFLD\0").unwrap_err();
    assert!(wrong.to_string().contains("nearfield"), "{wrong}");
    let wrong = FaissIndex::parse(b"\x93NUMPY").unwrap_err();
    assert!(wrong.fourcc == r"\x93NUM" && wrong.problem.contains("begins so"), "{wrong}");
    let wrong = FaissIndex::read(path("found.npz")).unwrap_err().to_string();
    assert!(wrong.contains("found.npz` cannot be imported: byte 0"), "{wrong}");
    assert!(matches!(FaissIndex::read(path("none.index")), Err(LoadError::Io { .. })));
}

#[test]
fn row_e3_files_cut_anywhere_are_refused() {
    for name in READ {
        let whole = bytes(name);
        for end in 0..whole.len() {
            let wrong = FaissIndex::parse(&whole[..end]).expect_err(name);
            assert!(wrong.offset <= end, "{name}, {end}: {wrong}");
        }
        let longer = [&whole[..], &[0]].concat();
        assert!(FaissIndex::parse(&longer).unwrap_err().problem.contains("1 bytes after the end"), "{name}");
    }
}

#[test]
fn row_e3_no_changed_byte_is_a_panic() {
    for name in READ {
        let whole = bytes(name);
        let mut changed = whole.clone();
        for at in 0..whole.len().min(2000) {
            for bit in [1, 0x10, 0x80, 0xff] {
                changed[at] = whole[at] ^ bit;
                if let Ok(index) = FaissIndex::parse(&changed) {
                    for query in [[0.5; 8], [-1.0; 8]].iter().filter(|_| index.dim == 8 && index.metric == Metric::L2) {
                        let _ = search(&index, query, 3);
                    }
                }
            }
            changed[at] = whole[at];
        }
    }
}

#[test]
fn row_e3_lengths_are_not_trusted() {
    // The number of lists, of rows and the length of codes, as large as can be.
    let flat = bytes("flat_l2");
    for (name, whole, at) in [("rows", &flat, 8), ("codes", &flat, 37), ("lists", &bytes("ivf_flat"), 37)] {
        for value in [u64::MAX, 1 << 62, i64::MAX as u64, 1 << 40] {
            let mut changed = whole.clone();
            changed[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let wrong = FaissIndex::parse(&changed).expect_err(name);
            assert!((16..=1325).contains(&wrong.offset), "{wrong}");
        }
    }
    // Indexes within indexes, for ever.
    let map = &bytes("idmap")[..4 + 33];
    let wrong = FaissIndex::parse(&map.repeat(10_000)).unwrap_err();
    assert!(wrong.problem.contains("within each other"), "{wrong}");
}
