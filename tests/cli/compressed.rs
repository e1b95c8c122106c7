//! Compressed indexes from the command line: built, asked, tuned, taken over from Faiss, and what is refused.

use crate::sandbox::{Sandbox, values};

const N: usize = 900;
const DIM: usize = 8;
const Q: usize = 30;
const K: usize = 5;

/// Base `b.npy`, queries `q.npy` and their true neighbours `gt.npy`.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.f32("b.npy", &[N, DIM], &values(N * DIM, 1));
    sandbox.f32("q.npy", &[Q, DIM], &values(Q * DIM, 2));
    sandbox.run("search --base b.npy --queries q.npy --metric l2 -k 5 --ids gt.npy").ok();
    sandbox
}

/// The share of the true neighbours among the answers in `i.npy`.
fn recall(sandbox: &Sandbox) -> f64 {
    let (truth, found) = (sandbox.read_i64("gt.npy").1, sandbox.read_i64("i.npy").1);
    let hits = truth.chunks(K).zip(found.chunks(K)).flat_map(|(t, f)| t.iter().filter(|id| f.contains(id)));
    hits.count() as f64 / (Q * K) as f64
}

#[test]
fn row_c10_an_index_of_any_spec_is_built_saved_and_asked() {
    let sandbox = sandbox();
    for (spec, canonical, least) in [
        ("IVF8,SQ8,RFlat", "IVF8,SQ8,Refine(Flat)", 1.0),
        ("IVF8,SQ8", "IVF8,SQ8", 0.9),
        ("PQ4", "PQ4", 0.7),
        ("RaBitQ", "RaBitQ", 0.1),
        ("PCA6,IVF4,PQ3x4fs,Refine(SQ8)", "PCA6,IVF4,PQ3x4fs,Refine(SQ8)", 0.85),
    ] {
        let said = sandbox.run_with("build --base b.npy --metric l2 --out x.nf --index", &[spec]).ok();
        assert!(said.out.contains(&format!("{canonical}, l2, 900 rows of 8 f32")), "{}", said.out);
        let ask = "--queries q.npy -k 5 --nprobe 8 --rerank 200 --ids i.npy --distances d.npy";
        sandbox.run(&format!("search --index-file x.nf {ask}")).ok();
        assert!(recall(&sandbox) >= least, "{spec}: {}", recall(&sandbox));
        let from_file = (sandbox.read_i64("i.npy"), sandbox.read_f32("d.npy"));
        sandbox.run_with(&format!("search --base b.npy --metric l2 {ask} --index"), &[spec]).ok();
        assert_eq!((sandbox.read_i64("i.npy"), sandbox.read_f32("d.npy")), from_file, "{spec}");

        let said = sandbox.run("info x.nf --json i.json").ok().out;
        assert!(said.contains(&format!("{canonical}, l2")) && said.contains("per row in codes"), "{said}");
        let json = sandbox.read_json("i.json");
        assert_eq!((json["index"].as_str(), json["nprobe"].as_u64()), (Some(canonical), Some(1)));
        let said = sandbox.run("explain --index-file x.nf --batch 4 -k 5").ok().out;
        assert!(said.starts_with(canonical) && (said.contains("select_k(5)") || said.contains("decide")), "{said}");
        assert!(said.contains("predicted") && said.contains("in all"), "{said}");
    }
}

#[test]
fn range_finds_what_lies_within_the_radius() {
    let sandbox = sandbox();
    sandbox.run("range --base b.npy --queries q.npy --metric l2 --radius 0.7 --offsets o.npy --ids i.npy").ok();
    let exact = (sandbox.read_i64("o.npy"), sandbox.read_i64("i.npy"));
    assert!(exact.1.0[0] > Q);
    sandbox.run("build --base b.npy --metric l2 --index IVF4,SQ8,RFlat --out x.nf").ok();
    let line = "range --index-file x.nf --queries q.npy --radius 0.7 --nprobe 4 --offsets o.npy --ids i.npy";
    sandbox.run(line).ok();
    assert_eq!((sandbox.read_i64("o.npy"), sandbox.read_i64("i.npy")), exact);
    // From codes alone about as many, and fewer in one list of four.
    sandbox.run("build --base b.npy --metric l2 --index IVF4,SQ8 --out x.nf").ok();
    let hits = ["--nprobe 4", "--nprobe 1"].map(|lists| {
        sandbox.run(&line.replace("--nprobe 4", lists)).ok();
        sandbox.read_i64("i.npy").0[0]
    });
    assert!(hits[0].abs_diff(exact.1.0[0]) < exact.1.0[0] / 20 && hits[1] < hits[0], "{hits:?} of {:?}", exact.1.0);
}

#[test]
fn more_lists_and_more_rows_ranked_again_find_more() {
    let sandbox = sandbox();
    sandbox.run("build --base b.npy --metric l2 --index IVF16,RaBitQ,Refine(SQ8) --out x.nf").ok();
    let ask = |settings: &str| {
        sandbox.run(&format!("search --index-file x.nf --queries q.npy -k 5 --ids i.npy {settings}")).ok();
        recall(&sandbox)
    };
    let by_lists = ["1", "4", "16"].map(|n| ask(&format!("--nprobe {n} --rerank 400")));
    assert!(by_lists[0] + 0.1 < by_lists[1] && by_lists[1] < by_lists[2] && by_lists[2] > 0.9, "{by_lists:?}");
    let by_rows = ["5", "40", "400"].map(|r| ask(&format!("--nprobe 16 --rerank {r}")));
    assert!(by_rows[0] + 0.1 < by_rows[1] && by_rows[1] <= by_rows[2], "{by_rows:?}");
    assert!(ask("--nprobe 16 --rerank auto") > by_rows[0]);
}

#[test]
fn the_same_seed_makes_the_same_file() {
    let sandbox = sandbox();
    let build = |more: &[&str]| {
        let line = "build --base b.npy --metric cosine --index OPQ4,IVF8,PQ4x4 --out x.nf";
        sandbox.run_with(line, more).ok();
        std::fs::read(sandbox.path("x.nf")).unwrap()
    };
    let first = build(&["--seed", "7"]);
    assert!(first == build(&["--seed", "7"]), "the same seed, another file");
    assert!(first != build(&["--seed", "8"]), "another seed, the same file");
    assert!(first != build(&["--seed", "7", "--train-rows", "300"]), "other rows, the same file");
}

#[test]
fn few_rows_to_learn_from_are_noted() {
    let sandbox = sandbox();
    let said = sandbox.run("build --base b.npy --metric l2 --index PQ4x4 --train-rows 40 --out x.nf").ok();
    assert_eq!(said.err, "note: `PQ4x4`: 40 training rows, 624 or more give better codes\n");
    let line = "search --base b.npy --metric l2 --index PQ4x4 --train-rows 40 --queries q.npy -k 1 --ids i.npy";
    assert!(sandbox.run(line).ok().err.starts_with("note: `PQ4x4`"));
}

#[test]
fn row_c11_tune_measures_and_saves_what_it_chose() {
    let sandbox = sandbox();
    let line = "tune --base b.npy --queries q.npy --metric l2 -k 5 --recall 0.9 --batch 15 --index Flat --index IVF8,SQ8 \
                --json t.json --svg t.svg --out t.nf";
    let said = sandbox.run(line).ok();
    for part in ["nprobe", "checked", "queries/s", "memory", "The fastest that finds 0.9", "settings to t.nf"] {
        assert!(said.out.contains(part), "`{part}` is not in {}", said.out);
    }
    let json = sandbox.read_json("t.json");
    assert_eq!((json["k"].as_u64(), json["goal"]["recall"].as_f64()), (Some(5), Some(0.9)));
    assert_eq!((json["reached"].as_bool(), json["metric"].as_str()), (Some(true), Some("l2")));
    for point in json["points"].as_array().unwrap() {
        assert!(point["qps"].as_f64() > Some(0.0) && point["memory_bytes"].as_u64() > Some(0), "{point}");
    }
    let chosen = &json["chosen"];
    assert!(chosen["recall"].as_f64() >= Some(0.9) && chosen["recall_checked"].as_f64() >= Some(0.9), "{chosen}");
    let svg = std::fs::read_to_string(sandbox.path("t.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    // The saved index answers with its settings: as good as was promised.
    sandbox.run("info t.nf --json i.json").ok();
    let info = sandbox.read_json("i.json");
    assert_eq!((&info["index"], &info["nprobe"]), (&chosen["index"], &chosen["nprobe"]));
    sandbox.run("search --index-file t.nf --queries q.npy -k 5 --ids i.npy").ok();
    assert!(recall(&sandbox) >= 0.9, "{}", recall(&sandbox));
}

#[test]
fn a_sweep_gives_a_row_for_each_setting_that_no_other_beats() {
    let sandbox = sandbox();
    let line = "bench search --base b.npy --queries q.npy --metric l2 -k 5 --batch 30 --truth gt.npy --json o.json \
                --index IVF16,SQ8,Refine(SQ8) --sweep";
    for sweep in ["auto", "nprobe=1,16"] {
        sandbox.run_with(line, &[sweep]).ok();
        let results = sandbox.read_json("o.json")["results"].as_array().unwrap().clone();
        assert!(!results.is_empty());
        for row in &results {
            assert_eq!(row["index"].as_str(), Some("IVF16,SQ8,Refine(SQ8)"));
            assert!((1..=16).contains(&row["params"]["nprobe"].as_u64().unwrap()), "{row}");
            let recall = row["recall"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&recall) && row["memory_bytes"].as_u64() > Some((N * DIM) as u64));
        }
        let best = results.iter().filter_map(|row| row["recall"].as_f64()).fold(0.0, f64::max);
        assert!(best > 0.9, "{sweep}: {best}");
    }
}

fn faiss(name: &str) -> String {
    format!("{}/../../../tests/data/faiss/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn import_takes_over_what_faiss_wrote() {
    let sandbox = Sandbox::new();
    let import = |name: &str, out: &str| {
        sandbox.run_with("import --json i.json --out", &[out, &faiss(&format!("{name}.index"))]).ok()
    };
    let said = import("flat_l2", "flat.nf");
    assert_eq!(said.out, "flat.nf: Flat, l2, 40 rows of 8 f32, 9.2 KiB\n");
    let said = import("refine", "refine.nf");
    assert!(said.out.starts_with("refine.nf: PCA4,IVF4,SQ8,Refine(Flat), l2, 40 rows of 8 f32"), "{}", said.out);
    assert_eq!(sandbox.read_json("i.json")["index"].as_str(), Some("PCA4,IVF4,SQ8,Refine(Flat)"));
    // Both hold the same rows.
    let queries = faiss("found.npz:queries");
    let answers = ["flat.nf", "refine.nf"].map(|file| {
        let line = format!("search --index-file {file} --nprobe 4 --refine 40 -k 5 --ids i.npy --distances d.npy");
        sandbox.run_with(&line, &["--queries", &queries]).ok();
        (sandbox.read_i64("i.npy"), sandbox.read_f32("d.npy"))
    });
    assert_eq!(answers[0], answers[1]);
    let said = import("ivf_sqfp16", "half.nf");
    assert!(said.err.starts_with("note: `SQfp16` about centroids becomes f32"), "{}", said.err);
    assert_eq!(sandbox.read_json("i.json")["notes"].as_array().map(Vec::len), Some(1));
    // Notes of an index without codes, and the candidates per result of one that re-ranks.
    let said = import("matrix/ids_twice", "twice.nf");
    assert!(said.err.starts_with("note: 120 rows have an id that a row before them has"), "{}", said.err);
    assert_eq!(sandbox.read_json("i.json")["notes"].as_array().map(Vec::len), Some(1));
    import("matrix/SQ4_Refine_SQ8__l2", "ranked.nf");
    let said = sandbox.run("info ranked.nf --json i.json").ok().out;
    assert!(said.contains("scans all codes; re-ranks 2.5 rows for each of k"), "{said}");
    assert_eq!(sandbox.read_json("i.json")["rerank_factor"].as_f64(), Some(2.5));
}

/// Runs what must be refused, for these reasons, and looks whether anything was written.
#[track_caller]
fn refused(sandbox: &Sandbox, line: &str, parts: &[&str]) {
    let before = sandbox.files();
    sandbox.run(line).refused(parts);
    assert_eq!(before, sandbox.files(), "something was written by: {line}");
}

#[test]
fn row_e3_specs_that_do_not_fit_name_their_part() {
    let sandbox = sandbox();
    sandbox.f32("few.npy", &[20, DIM], &values(20 * DIM, 3));
    let mut wrong = values(N * DIM, 1);
    wrong[DIM * 7 + 1] = f32::NAN;
    sandbox.f32("nan.npy", &[N, DIM], &wrong);
    for (base, metric, spec, parts) in [
        ("b", "l2", "PQ3", ["`PQ3` (part 1)", "8 components do not split into 3", "2 or 4 would do"]),
        ("b", "l2", "IVF8,PQ16", ["`PQ16` (part 2)", "16 equal parts", "8 would do"]),
        ("b", "l2", "OPQ3,PQ2", ["`OPQ3` (part 1)", "3 equal parts", "2 or 4 would do"]),
        ("b", "l2", "IVF1k,SQ8", ["`IVF1024` (part 1)", "900 rows", "at most 900 lists"]),
        ("b", "l2", "IVF8,SQ8 --train-rows 4", ["`IVF8` (part 1)", "4 rows", "at most 4 lists"]),
        ("few", "l2", "PQ4", ["`PQ4` (part 1)", "at least 256 rows", "there are 20"]),
        ("b", "l2", "PQ4x8fs", ["`PQ4x8fs` (part 1)", "4 bits per part", "`PQ4x4fs`"]),
        ("b", "l2", "IVF8,RaBitQ9", ["`RaBitQ9` (part 2)", "1 to 8 bits", "`RaBitQ4`"]),
        ("b", "l2", "SQ5", ["`SQ5` (part 1)", "4, 6 or 8 bits", "`SQfp16`"]),
        ("b", "l2", "PCA9,SQ8", ["`PCA9` (part 1)", "8 components", "at most 8"]),
        ("b", "l2", "SQ8,Refine(PQ4)", ["`Refine(PQ4)` (part 2)", "Refine(Flat)", "Refine(SQ8)"]),
        ("b", "l1", "IVF8,SQ8", ["(part 1)", "takes l2, ip or cosine", "for l1 there is `Flat`"]),
        ("b", "hamming", "SQ8", ["`b.npy`", "u8", "f32"]),
        ("nan", "l2", "IVF8,SQ8", ["`nan.npy`", "row 7, component 1 is NaN", "finite"]),
    ] {
        for line in [
            format!("build --base {base}.npy --metric {metric} --index {spec} --out x.nf"),
            format!("search --base {base}.npy --metric {metric} --index {spec} --queries q.npy -k 1 --ids i.npy"),
        ] {
            refused(&sandbox, &line, &parts);
        }
    }
    let tune = "tune --base b.npy --queries q.npy --metric l2 -k 5 --out t.nf --json t.json --svg t.svg";
    refused(&sandbox, &format!("{tune} --index PQ3"), &["`PQ3` (part 1)", "2 or 4 would do"]);
    refused(&sandbox, &format!("{tune} --recall 2"), &["--recall", "0.95"]);
    refused(&sandbox, &format!("{tune} --memory 1KiB"), &["1024 bytes", "the smallest tried"]);
    sandbox.f32("one.npy", &[1, DIM], &values(DIM, 3));
    refused(&sandbox, &tune.replace("q.npy", "one.npy"), &["1 queries", "at least 2"]);
}

#[test]
fn row_e3_settings_and_files_that_cannot_be() {
    let sandbox = sandbox();
    sandbox.run("build --base b.npy --metric l2 --index IVF8,SQ8 --out x.nf").ok();
    let search = "search --queries q.npy -k 3 --ids i.npy --index-file";
    refused(&sandbox, &format!("{search} x.nf --nprobe 0"), &["--nprobe"]);
    refused(&sandbox, &format!("{search} x.nf --rerank many"), &["--rerank", "a number of rows", "auto"]);
    sandbox.f32("q5.npy", &[4, 5], &values(20, 1));
    refused(&sandbox, &format!("{} x.nf", search.replace("q.npy", "q5.npy")), &["`q5.npy`", "5 components", "8"]);
    sandbox.i64("twice.npy", &[N], &[4; N]);
    let ids = "build --base b.npy --metric l2 --index IVF8,SQ8 --ids twice.npy --out y.nf";
    refused(&sandbox, ids, &["`twice.npy`", "id 4", "row 1", "unique"]);
    let whole = std::fs::read(sandbox.path("x.nf")).unwrap();
    sandbox.write("cut.nf", &whole[..whole.len() - 1]);
    let mut flipped = whole;
    let last = flipped.len() - 3;
    flipped[last] ^= 0x10;
    sandbox.write("flipped.nf", &flipped);
    for (file, part) in [("cut.nf", "truncated"), ("flipped.nf", "damaged")] {
        refused(&sandbox, &format!("{search} {file}"), &[&format!("`{file}`"), part]);
    }
    // Files that are none of Faiss's, or hold what has no counterpart.
    std::fs::copy(faiss("hnsw.index"), sandbox.path("hnsw.index")).unwrap();
    std::fs::copy(faiss("ivf_pq4x4.index"), sandbox.path("whole.index")).unwrap();
    let bytes = std::fs::read(sandbox.path("whole.index")).unwrap();
    sandbox.write("cut.index", &bytes[..700]);
    for (file, parts) in [
        ("hnsw.index", ["`hnsw.index` cannot be imported", "`IHNf`", "graph"]),
        ("cut.index", ["`cut.index` cannot be imported", "bytes wanted", "left"]),
        ("x.nf", ["`x.nf` cannot be imported", "nearfield", "no import"]),
        ("b.npy", ["`b.npy` cannot be imported", "no index of Faiss", "byte 0"]),
        ("gone.index", ["`gone.index`", "No such file", "cannot read"]),
    ] {
        refused(&sandbox, &format!("import {file} --out y.nf --json y.json"), &parts);
    }
    refused(&sandbox, "import whole.index --out whole.index", &["is an input"]);
}
