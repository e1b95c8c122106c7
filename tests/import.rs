//! Index files of Faiss, taken over: what Faiss finds in them is found, before and after the index is saved. The files are
//! those of `scripts/make-faiss-matrix`: 240 rows of 16 components of unit variance, 20 queries, the 10 nearest.

use std::collections::BTreeSet;
use std::path::PathBuf;

use nearfield::format::{FaissIndex, Matrix, read_ids, read_matrix};
use nearfield::{AnyIndex, Device, IndexSpec, NO_ID, SearchOptions};

const K: usize = 10;

/// Faiss's factory string and metric of each file.
const MATRIX: [(&str, &str); 61] = [
    ("Flat", "l2"),
    ("Flat,RFlat", "ip"),
    ("SQ4", "ip"),
    ("SQ4,Refine(SQ8)", "l2"),
    ("SQ6", "l2"),
    ("SQ6,RFlat", "ip"),
    ("SQ8", "ip"),
    ("SQ8,Refine(SQ8)", "l2"),
    ("SQfp16", "l2"),
    ("SQfp16,RFlat", "ip"),
    ("SQbf16", "ip"),
    ("SQbf16,Refine(SQ8)", "l2"),
    ("PQ4x4", "l2"),
    ("PQ4x4,RFlat", "ip"),
    ("PQ4x5", "ip"),
    ("PQ4x5,Refine(SQ8)", "l2"),
    ("PQ4x6", "l2"),
    ("PQ4x6,RFlat", "ip"),
    ("PQ4x7", "ip"),
    ("PQ4x7,Refine(SQ8)", "l2"),
    ("PQ2x8", "l2"),
    ("PQ2x8,RFlat", "ip"),
    ("IVF8,Flat", "ip"),
    ("IVF8,Flat,Refine(SQ8)", "l2"),
    ("IVF8,SQ4", "l2"),
    ("IVF8,SQ4,RFlat", "ip"),
    ("IVF8,SQ6", "ip"),
    ("IVF8,SQ6,Refine(SQ8)", "l2"),
    ("IVF8,SQ8", "l2"),
    ("IVF8,SQ8", "ip"),
    ("IVF8,SQ8,RFlat", "ip"),
    ("IVF8,SQfp16", "ip"),
    ("IVF8,SQfp16,Refine(SQ8)", "l2"),
    ("IVF8,SQbf16", "l2"),
    ("IVF8,SQbf16,RFlat", "ip"),
    ("IVF8,PQ4x4", "ip"),
    ("IVF8,PQ4x4,Refine(SQ8)", "l2"),
    ("IVF8,PQ4x5", "l2"),
    ("IVF8,PQ4x5,RFlat", "ip"),
    ("IVF8,PQ4x6", "ip"),
    ("IVF8,PQ4x6,Refine(SQ8)", "l2"),
    ("IVF8,PQ4x7", "l2"),
    ("IVF8,PQ4x7,RFlat", "ip"),
    ("IVF8,PQ2x8", "ip"),
    ("IVF8,PQ2x8,Refine(SQ8)", "l2"),
    ("OPQ4,PQ4x4", "l2"),
    ("OPQ4,IVF8,PQ4x6", "ip"),
    ("OPQ4_12,IVF8,PQ4x4,RFlat", "l2"),
    ("PCA8,IVF8,SQ8", "ip"),
    ("PCAR12,SQ6", "l2"),
    ("PCAW8,Flat", "ip"),
    ("PCA8,IVF8,Flat,RFlat", "l2"),
    ("PCA8,IVF8,SQfp16,Refine(SQ8)", "ip"),
    ("L2norm,IVF8,SQ8", "l2"),
    ("RR16,IVF8,PQ4x4", "ip"),
    ("Pad20,IVF8,SQ4", "l2"),
    ("IDMap,Flat", "ip"),
    ("IDMap,PQ4x5", "l2"),
    ("IVF8,SQ8,IDMap", "ip"),
    ("IDMap2,PCA8,IVF8,SQ8,RFlat", "l2"),
    ("IDMap,IVF8,PQ4x4,Refine(SQ8)", "ip"),
];

/// The name of a file of the matrix.
fn named(spec: &str, metric: &str) -> String {
    format!("{spec}-{metric}").replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/faiss/matrix").join(file)
}

fn array(name: &str) -> Matrix {
    read_matrix(path(&format!("found.npz:{name}"))).unwrap()
}

fn floats(matrix: &Matrix) -> Vec<f32> {
    let mut row = vec![0.0; matrix.dim()];
    let mut all = Vec::new();
    for r in 0..matrix.rows() {
        matrix.view().row_f32(r, &mut row);
        all.extend_from_slice(&row);
    }
    all
}

fn read(name: &str) -> FaissIndex {
    FaissIndex::read(path(&format!("{name}.index"))).unwrap()
}

/// The index and the notes that come with it.
fn import(device: &Device, name: &str) -> (AnyIndex, Vec<String>) {
    AnyIndex::from_faiss(device, read(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The same index from its own file.
fn reopened(device: &Device, index: &AnyIndex) -> AnyIndex {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.nf");
    index.save(&file).unwrap();
    AnyIndex::open(device, &file).unwrap()
}

/// What is found with the settings that came with the index.
fn answers(index: &AnyIndex) -> Vec<(u64, f32)> {
    let (ids, distances) = index.search(array("queries").view(), K).unwrap().into_parts();
    ids.into_iter().zip(distances).collect()
}

/// Answers are those of Faiss; `id` says how Faiss's id of a row is called here.
///
/// Distances agree to 2e-6 of their size (of 1, where they are smaller), which is the rounding of two ways to add up, and the
/// ids of each place are equal but where Faiss's distances are closer than that. Two kinds of files are told apart:
/// - `SQbf16` codes: Faiss rounds queries to bf16 as well, on processors that multiply such numbers: 2^-8 of their size.
/// - product codes that are re-ranked from better codes: which are the 25 best of them is decided by tables of integers, so
///   that up to 3 of 100 neighbours are others; those that both found have the same distances.
fn as_faiss(name: &str, found: &[(u64, f32)], id: impl Fn(i64) -> u64) {
    let ids = read_ids(path(&format!("found.npz:{name}_ids"))).unwrap();
    let wanted: Vec<(u64, f32)> =
        ids.ids.iter().map(|&i| id(i)).zip(floats(&array(&format!("{name}_distances")))).collect();
    assert_eq!((ids.shape[1], found.len()), (K, wanted.len()), "{name}");
    let rounding = if name.contains("SQbf16") && !name.contains("R") { 0.004 } else { 2e-6 };
    let close = |a: f32, b: f32| (a - b).abs() <= rounding * a.abs().max(1.0);
    let by_tables = name.contains("PQ") && name.contains("Refine_SQ8");
    let mut others = 0;
    for (q, (found, wanted)) in found.chunks(K).zip(wanted.chunks(K)).enumerate() {
        for (place, &(id, near)) in found.iter().enumerate() {
            let at = wanted.iter().position(|w| w.0 == id);
            let fits = |at: usize| close(near, wanted[at].1);
            let right = match at {
                Some(at) => fits(at) && (at == place || by_tables || close(wanted[place].1, wanted[at].1)),
                // Beyond Faiss's last place lies a row as far as the one there.
                None => fits(K - 1) && close(wanted[place].1, wanted[K - 1].1),
            };
            others += usize::from(at.is_none());
            assert!(
                right || by_tables && at.is_none(),
                "{name}, query {q}, place {place}: {id} at {near}, of {wanted:?}"
            );
        }
        assert_eq!(
            found.iter().map(|f| f.0).collect::<BTreeSet<_>>().len(),
            K,
            "{name}, query {q}: twice in {found:?}"
        );
    }
    assert!(!by_tables || 100 * others <= 3 * found.len(), "{name}: {others} of {} are others", found.len());
}

/// How an index of Faiss is called here: codes of 5 to 7 bits take 8, halves about centroids are f32, a matrix is a matrix.
fn called(spec: &str) -> IndexSpec {
    let mut called = spec.replace("PCAW", "PCA").replace("PCAR", "PCA").replace("Flat,RFlat", "Flat,Refine(Flat)");
    for (theirs, ours) in
        [("x5", ""), ("x6", ""), ("x7", ""), ("IVF8,SQfp16", "IVF8,Flat"), ("IVF8,SQbf16", "IVF8,Flat")]
    {
        called = called.replace(theirs, ours);
    }
    // Where all rows are compared as they are, there is nothing to rank.
    if called == "Flat,Refine(Flat)" { IndexSpec::FLAT } else { called.parse().unwrap() }
}

#[test]
fn row_e3_a_matrix_of_specs_opens_again_and_finds_what_faiss_finds() {
    let device = Device::cpu();
    for (spec, metric) in MATRIX {
        let name = named(spec, metric);
        let (index, notes) = import(&device, &name);
        assert_eq!((index.spec(), index.metric().to_string()), (called(spec), metric.to_owned()), "{name}");
        let about = ["x5", "x6", "x7"].iter().any(|bits| spec.contains(bits));
        let halves = spec.contains("IVF8,SQfp16") || spec.contains("IVF8,SQbf16");
        assert_eq!(notes.iter().filter(|n| n.contains("stored in 8")).count(), usize::from(about), "{name}: {notes:?}");
        assert_eq!(
            notes.iter().filter(|n| n.contains("becomes f32")).count(),
            usize::from(halves),
            "{name}: {notes:?}"
        );
        assert_eq!(notes.len(), usize::from(about) + usize::from(halves), "{name}: {notes:?}");

        let found = answers(&index);
        as_faiss(&name, &found, |id| id as u64);
        let opened = reopened(&device, &index);
        assert_eq!(opened.stats(), index.stats(), "{name}");
        assert_eq!(answers(&opened), found, "{name}");
        // Ids of 1000 and more in steps of 7 come with the file, all of them.
        let first = if spec.contains("IDMap") { 1000 } else { 0 };
        let step = if spec.contains("IDMap") { 7 } else { 1 };
        let ids: BTreeSet<u64> = opened.ids().collect();
        assert_eq!(ids, (0..240).map(|row| first + step * row).collect(), "{name}");
    }
    let files = std::fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let listed: BTreeSet<String> = MATRIX.iter().map(|(spec, metric)| named(spec, metric) + ".index").collect();
    assert_eq!(files.filter(|file| listed.contains(file)).count(), 61);
}

#[cfg(feature = "gpu")]
#[test]
fn row_e3_gpus_find_what_faiss_finds() {
    let adapters = nearfield::adapters();
    assert!(!adapters.is_empty(), "no adapter: scripts/test sets up software ones");
    for adapter in adapters {
        let device = Device::open(&nearfield::DeviceOptions::default().device(adapter.name)).unwrap();
        for (spec, metric) in [("Flat", "l2"), ("IVF8,SQ8", "ip"), ("IVF8,PQ4x5", "l2"), ("SQfp16", "l2")] {
            let name = named(spec, metric);
            as_faiss(&name, &answers(&reopened(&device, &import(&device, &name).0)), |id| id as u64);
        }
        let name = "l2_centroids_sq8_ip";
        as_faiss(name, &answers(&import(&device, name).0), |id| id as u64);
    }
}

#[test]
fn the_candidates_of_each_result_are_kept() {
    let device = Device::cpu();
    let (mut index, _) = import(&device, "SQ4_Refine_SQ8__l2");
    assert_eq!((index.stats().rerank, index.stats().rerank_factor), (None, Some(2.5)));
    assert_eq!(reopened(&device, &index).stats().rerank_factor, Some(2.5));
    // Of 10 results 25 candidates are ranked, of 4 ten; never fewer than results, nor more than there are.
    let queries = array("queries");
    let ranked = |index: &AnyIndex, k: usize, options: &SearchOptions| {
        index.search_with(queries.view(), k, options).unwrap().1.refined / 20
    };
    let plain = SearchOptions::default();
    assert_eq!((ranked(&index, K, &plain), ranked(&index, 4, &plain)), (25, 10));
    assert_eq!(ranked(&index, 10, &plain.clone().rerank(12)), 12);
    // The caller's number stands, and that of none is what suits the codes.
    index.set_rerank(Some(15));
    assert_eq!((ranked(&index, K, &plain), index.stats().rerank_factor), (15, None));
    index.set_rerank(None);
    assert_eq!((index.stats().rerank, index.stats().rerank_factor), (None, None));
    assert_eq!(ranked(&index, K, &plain), 50);
    let mut parts = read("SQ4_Refine_SQ8__l2");
    parts.refine.as_mut().unwrap().k_factor = 1e30;
    let (all, _) = AnyIndex::from_faiss(&device, parts).unwrap();
    assert!(ranked(&reopened(&device, &all), K, &plain) > 50);
}

#[test]
fn centroids_by_another_metric_than_the_rows_are_probed_as_in_faiss() {
    let device = Device::cpu();
    for (name, notes) in [
        ("l2_centroids_flat_ip", 0),
        ("l2_centroids_sq8_ip", 1),
        ("l2_centroids_pq_ip", 0),
        ("ip_centroids_sq8_l2", 0),
        ("ip_centroids_flat_l2", 0),
    ] {
        let (index, said) = import(&device, name);
        assert_eq!(said.len(), notes, "{said:?}");
        assert!(said.iter().all(|note| note.contains("inner products")), "{said:?}");
        as_faiss(name, &answers(&index), |id| id as u64);
        assert_eq!(answers(&reopened(&device, &index)), answers(&index), "{name}");
    }
}

#[test]
fn rows_that_no_search_finds_are_left_out_and_counted() {
    let device = Device::cpu();
    for name in ["nan_flat", "nan_ivf_flat", "nan_ivf_pq", "nan_ivf_sq8_rflat", "nan_idmap"] {
        let (index, notes) = import(&device, name);
        let said = "2 of 240 rows hold NaN or infinity, so that no search can find them; they are left out";
        assert_eq!((index.len(), &notes[..]), (238, &[said.to_owned()][..]), "{name}");
        let id = |row: u64| if name == "nan_idmap" { 1000 + 7 * row } else { row };
        let gone: Vec<u64> = (0..240).map(id).filter(|&id| !index.contains(id)).collect();
        assert_eq!(gone, [id(5), id(9)], "{name}");
        as_faiss(name, &answers(&index), |id| id as u64);
        assert_eq!(answers(&reopened(&device, &index)), answers(&index), "{name}");
    }
}

#[test]
fn ids_that_are_used_twice_negative_or_large_are_kept_apart() {
    let device = Device::cpu();
    let rows = floats(&array("rows"));
    for name in ["ids_twice", "ids_twice_refined"] {
        let (index, notes) = import(&device, name);
        let said = "120 rows have an id that a row before them has, or -1; they are known by new ids, from 120 to 239, in \
                    their order";
        assert_eq!(notes, [said], "{name}");
        // Faiss says the same of both rows under an id, so it says it twice where both are near.
        let halves: Vec<(u64, f32)> =
            answers(&index).into_iter().map(|(id, near)| (if id < 120 { id } else { id - 120 }, near)).collect();
        let ids = read_ids(path(&format!("found.npz:{name}_ids"))).unwrap();
        assert!(ids.ids.iter().zip(&halves).all(|(theirs, ours)| *theirs as u64 == ours.0), "{name}");
        // Row 2 i keeps the id i; row 2 i + 1 is known by 120 + i.
        let opened = reopened(&device, &index);
        for (id, row) in [(0, 0), (120, 1), (7, 14), (127, 15), (239, 239)] {
            assert_eq!(opened.row(id).unwrap(), rows[16 * row..][..16], "{name}: {id}");
        }
    }
    let (index, notes) = import(&device, "ids_negative");
    assert_eq!(notes, ["240 ids are negative; here ids are 64 bits without a sign: -244 is 18446744073709551372"]);
    as_faiss("ids_negative", &answers(&index), |id| id as u64);
    assert!(index.contains(-5i64 as u64) && !index.contains(5));
    let mut parts = read("IVF8_SQ8_l2");
    parts.lists[2].ids[0] = -1;
    let (index, notes) = AnyIndex::from_faiss(&device, parts).unwrap();
    assert!(notes[0].starts_with("1 rows have") && notes[0].contains("from 240 to 240"), "{notes:?}");
    assert!(index.contains(240) && !index.contains(NO_ID));

    let (index, notes) = import(&device, "ids_large");
    assert!(notes.is_empty() && index.contains((1 << 40) + 239), "{notes:?}");
    as_faiss("ids_large", &answers(&reopened(&device, &index)), |id| id as u64);
}

#[test]
fn row_e3_what_is_refused_is_named() {
    let kind = "is not read here; Flat, SQ, PQ and IVF of these are, transformed, refined or with ids";
    let centroids = "centroids in such an index are not read here; those of IndexFlat are";
    let packed =
        "a FastScan index is not read here, since it is packed for one processor; the same index without `fs` is";
    let untrained = "it is not trained, so it has no rows to take over; Faiss's `train` and `add` come first";
    let refused = [
        ("refused_HNSW4_l2", "byte 0, in `IHNf`", format!("an index over a graph {kind}")),
        ("refused_HNSW4_SQ8_l2", "byte 0, in `IHNs`", format!("an index over a graph {kind}")),
        ("refused_NSG4_l2", "byte 0, in `INSf`", format!("an index over a graph {kind}")),
        ("refused_IVF8_HNSW4_Flat_l2", "byte 53, in `IHNf`", centroids.to_owned()),
        ("refused_IMI2x2_Flat_l2", "byte 53, in `Imiq`", centroids.to_owned()),
        ("refused_PQ4x4fs_l2", "byte 0, in `IPfs`", packed.to_owned()),
        ("refused_IVF8_PQ4x4fs_l2", "byte 0, in `IwPf`", packed.to_owned()),
        ("refused_RaBitQ_l2", "byte 0, in `Ixrq`", format!("a RaBitQ index {kind}")),
        ("refused_IVF8_RaBitQ_l2", "byte 0, in `Iwrq`", format!("a RaBitQ index {kind}")),
        ("refused_LSH_l2", "byte 0, in `IxHe`", format!("an index of this kind {kind}")),
        ("refused_RQ2x4_l2", "byte 0, in `IxRq`", format!("an index of this kind {kind}")),
        ("refused_PQ2x9_l2", "byte 61, in `IxPq`", "parts of 9 bits are not read here; those of 1 to 8 are".to_owned()),
        (
            "refused_ITQ8_Flat_l2",
            "byte 41, in `Viqt`",
            "a transform that is not read here; there are PCA, OPQ, RR, L2norm, Center and Pad".to_owned(),
        ),
        (
            "refused_SQ8_Refine_PQ4x4__l2",
            "byte 1720, in `IxRF`",
            "re-ranking is read from IndexFlat and IndexScalarQuantizer only".to_owned(),
        ),
        ("untrained_PQ4x4_l2", "byte 37, in `IxPq`", untrained.to_owned()),
        ("untrained_IVF8_SQ8_l2", "byte 37, in `IwSq`", untrained.to_owned()),
        ("untrained_PCA8_Flat_l2", "byte 108, in `Pcam`", untrained.to_owned()),
    ];
    for (name, place, why) in &refused {
        let file = path(&format!("{name}.index"));
        let said = FaissIndex::read(&file).expect_err(name).to_string();
        assert_eq!(said, format!("`{}` cannot be imported: {place}: {why}", file.display()));
    }
    let said = AnyIndex::from_faiss(&Device::cpu(), read("refused_SQ8_Refine_SQ4__l2")).unwrap_err().to_string();
    assert_eq!(said, "the rows to re-rank: `SQ4` has no counterpart; there are Flat, SQfp16, SQbf16 and SQ8");
    let files = std::fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(files.filter(|f| f.starts_with("refused_") || f.starts_with("untrained_")).count(), refused.len() + 1);
}

/// Whatever is taken over of a file with a changed byte opens again; what is not is refused.
#[test]
fn row_e3_what_is_taken_over_of_a_changed_file_opens_again() {
    let device = Device::cpu();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.nf");
    let mut taken = 0;
    for name in [
        "nan_idmap",
        "IVF8_SQ4_l2",
        "SQ4_Refine_SQ8__l2",
        "l2_centroids_pq_ip",
        "OPQ4_PQ4x4_l2",
        "nan_ivf_flat",
        "PQ4x5_ip",
    ] {
        let whole = std::fs::read(path(&format!("{name}.index"))).unwrap();
        // Every fifth byte of headers, and every 499th of what they speak of.
        let places = (0..150).step_by(5).chain((150..whole.len()).step_by(499)).chain(whole.len() - 6..whole.len());
        for (n, at) in places.enumerate() {
            let mut changed = whole.clone();
            changed[at] ^= [1, 0x10, 0x80, 0xff][n % 4];
            let Ok(Ok((index, _))) = FaissIndex::parse(&changed).map(|parts| AnyIndex::from_faiss(&device, parts))
            else {
                continue;
            };
            index.save(&file).unwrap();
            let opened = AnyIndex::open(&device, &file).unwrap_or_else(|e| panic!("{name}, byte {at}: {e}"));
            assert_eq!(opened.stats(), index.stats(), "{name}, byte {at}");
            taken += 1;
        }
    }
    assert!(taken > 80, "{taken}");
}
