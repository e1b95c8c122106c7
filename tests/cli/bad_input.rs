//! Bad input: exit code 2, a message that names file, row and value, nothing written, no panic.

use crate::sandbox::Sandbox;

/// A base, queries, and files that are wrong in one way each.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let base: Vec<f32> = (0..60).map(|i| i as f32).collect();
    sandbox.f32("b.npy", &[20, 3], &base);
    sandbox.f32("q.npy", &[4, 3], &base[..12]);
    sandbox.f32("q5.npy", &[4, 5], &base[..20]);
    sandbox.f32("empty.npy", &[0, 3], &[]);
    let mut wrong = base.clone();
    wrong[3 * 7 + 1] = f32::NAN;
    sandbox.f32("nan.npy", &[20, 3], &wrong);
    wrong[3 * 7 + 1] = f32::INFINITY;
    sandbox.f32("inf.npy", &[20, 3], &wrong);
    wrong[3 * 7 + 1] = -4.5;
    sandbox.f32("negative.npy", &[20, 3], &wrong);
    sandbox.write("text.npy", "not an array at all");
    sandbox.npy("complex.npy", "<c8", &[20, 3], &[0; 480]);
    let whole = std::fs::read(sandbox.path("b.npy")).unwrap();
    sandbox.write("cut.npy", &whole[..whole.len() - 5]);
    sandbox.write("b.xyz", whole);
    sandbox
}

const SEARCH: &str = "search --metric l2 -k 3 --ids i.npy --distances d.npy";

/// Runs what must be refused, for these reasons, and looks whether anything was written.
#[track_caller]
fn refused(sandbox: &Sandbox, line: &str, parts: &[&str]) {
    let before = sandbox.files();
    sandbox.run(line).refused(parts);
    assert_eq!(before, sandbox.files(), "something was written by: {line}");
}

#[test]
fn row_e3_files_that_cannot_be_read() {
    let sandbox = sandbox();
    let cases: [(&str, &[&str]); 6] = [
        ("nowhere.npy", &["`nowhere.npy`", "No such file"]),
        ("text.npy", &["`text.npy`", ".npy"]),
        ("complex.npy", &["`complex.npy`", "c8", "f4"]),
        ("cut.npy", &["`cut.npy` is truncated", "bytes wanted"]),
        ("b.xyz", &["`b.xyz`", ".xyz", ".fvecs"]),
        (".", &["`.`"]),
    ];
    for (file, parts) in cases {
        refused(&sandbox, &format!("{SEARCH} --base {file} --queries q.npy"), parts);
        refused(&sandbox, &format!("{SEARCH} --base b.npy --queries {file}"), parts);
        refused(&sandbox, &format!("build --metric l2 --base {file} --out x.nf"), parts);
    }
}

#[test]
fn row_e7_values_that_no_metric_takes() {
    let sandbox = sandbox();
    let cases: [(&str, &str, &[&str]); 4] = [
        ("l2", "nan.npy", &["`nan.npy`", "row 7, component 1 is NaN", "finite"]),
        ("cosine", "inf.npy", &["`inf.npy`", "row 7, component 1 is inf", "finite"]),
        ("jensen-shannon", "negative.npy", &["`negative.npy`", "row 7, component 1 is -4.5", "non-negative"]),
        ("jaccard", "negative.npy", &["`negative.npy`", "row 7, component 1 is -4.5", "non-negative"]),
    ];
    for (metric, file, parts) in cases {
        let tail = format!("--metric {metric} -k 3 --ids i.npy");
        refused(&sandbox, &format!("search --base {file} --queries q.npy {tail}"), parts);
        refused(&sandbox, &format!("search --base b.npy --queries {file} {tail}"), parts);
        refused(&sandbox, &format!("build --base {file} --metric {metric} --out x.nf"), parts);
    }
    refused(
        &sandbox,
        "search --base b.npy --queries q.npy --metric hamming -k 3 --ids i.npy",
        &["`b.npy`", "u8", "f32"],
    );
}

#[test]
fn shapes_that_do_not_fit() {
    let sandbox = sandbox();
    let parts = ["`q5.npy`", "5 components", "`b.npy`", "rows of 3"];
    refused(&sandbox, &format!("{SEARCH} --base b.npy --queries q5.npy"), &parts);
    refused(&sandbox, "range --base b.npy --queries q5.npy --metric l2 --radius 1 --ids i.npy", &parts);
    for line in [
        format!("{SEARCH} --base empty.npy --queries q.npy"),
        "build --base empty.npy --metric l2 --out x.nf".to_owned(),
        "range --base empty.npy --queries q.npy --metric l2 --radius 1 --ids i.npy".to_owned(),
        "bench search --base empty.npy --queries q.npy --metric l2 -k 1 --json o.json".to_owned(),
    ] {
        refused(&sandbox, &line, &["`empty.npy` holds no rows"]);
    }
}

#[test]
fn words_that_are_not_known() {
    let sandbox = sandbox();
    let files = "--base b.npy --queries q.npy --ids i.npy";
    for (line, parts) in [
        (format!("search {files} --metric l2 -k 0"), ["k is 0", "at least 1"]),
        (format!("search {files} --metric l2 -k -3"), ["-k", "-3"]),
        (format!("search {files} --metric l2 -k many"), ["many", "whole number"]),
        (format!("search {files} --metric cosin -k 1"), ["there are l2, ip, cosine", "did you mean `cosine`?"]),
        (format!("search {files} --metric lp:x -k 1"), ["unknown metric `lp:x`", "lp:3"]),
        (format!("search {files} --metric l2 -k 1 --index Falt"), ["`Falt` (part 1): unknown", "did you mean `Flat`?"]),
        (format!("search {files} --metric l2 -k 1 --index IVF64"), ["index spec `IVF64`", "wants a codec"]),
        (format!("search {files} --metric l2 -k 1 --index IVF64,PQ16x5"), ["`PQ16x5` (part 2)", "4 or 8 bits"]),
        (format!("search {files} --metric l2 -k 1 --index HNSW32,Flat"), ["`HNSW32` (part 1)", "IVF1024"]),
        (format!("search {files} --metric l2 -k 1 --device gpuu"), ["no device `gpuu`", "did you mean `gpu`?"]),
        (format!("search {files} --metric l2 -k 1 --device cpux"), ["auto, cpu, gpu", "did you mean `cpu`?"]),
        (format!("search {files} --metric l2 -k 1 --screen f64"), ["`f64`", "auto, none, f32"]),
        (format!("search {files} --metric l2 -k 1 --threads 0"), ["--threads", "1..=1024"]),
        (format!("search {files} --metric l2 -k 1 --device-memory lots"), ["`lots`", "512MiB"]),
        (format!("search {files} --metric l1 -k 1 --screen f32"), ["screen of f32", "the metric is l1"]),
        (format!("range {files} --metric l2 --radius nan"), ["--radius", "number"]),
        (format!("range {files} --metric l2 --radius wide"), ["--radius", "number"]),
        ("search --queries q.npy -k 1 --ids i.npy".to_owned(), ["not provided", "--base"]),
        (format!("search {files} -k 1"), ["--metric <M> is missing", "l2, ip"]),
        (format!("search {files} --metric l2 -k 1 --index-file x.nf"), ["--index-file", "cannot be used with"]),
        ("search --base b.npy --queries q.npy --metric l2 -k 1".to_owned(), ["--ids", "--distances"]),
        ("serach".to_owned(), ["unrecognized subcommand", "search"]),
    ] {
        refused(&sandbox, &line, &parts);
    }
}

#[test]
fn row_a2_a_wrong_device_variable_is_named() {
    let sandbox = sandbox();
    let done = std::process::Command::new(env!("CARGO_BIN_EXE_nearfield"))
        .args(SEARCH.split(' '))
        .args(["--base", "b.npy", "--queries", "q.npy"])
        .current_dir(sandbox.path("."))
        .env("NEARFIELD_DEVICE", "nothing like it")
        .output()
        .unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(said.contains("`nothing like it`") && said.contains("NEARFIELD_DEVICE"), "{said}");
}

#[test]
fn filters_that_do_not_fit() {
    let sandbox = sandbox();
    sandbox.bools("short.npy", &[19], &[true; 19]);
    sandbox.bools("three.npy", &[3, 20], &[true; 60]);
    sandbox.i64("deep.npy", &[2, 2], &[1, 2, 3, 4]);
    for (file, parts) in [
        ("short.npy", ["`short.npy`", "19 rows", "`b.npy` has 20"]),
        ("three.npy", ["`three.npy`", "3 queries", "there are 4"]),
        ("deep.npy", ["`deep.npy`", "(2, 2)", "one dimension"]),
        ("q.npy", ["`q.npy`", "f4", "ids"]),
    ] {
        refused(&sandbox, &format!("{SEARCH} --base b.npy --queries q.npy --filter {file}"), &parts);
    }
}

#[test]
fn ids_that_cannot_be_given() {
    let sandbox = sandbox();
    let mut ids: Vec<i64> = (0..20).collect();
    sandbox.i64("few.npy", &[19], &ids[..19]);
    ids[6] = 2;
    sandbox.i64("twice.npy", &[20], &ids);
    ids[6] = -9;
    sandbox.i64("minus.npy", &[20], &ids);
    for (file, parts) in [
        ("few.npy", ["`few.npy`", "[20]", "`b.npy`"]),
        ("twice.npy", ["`twice.npy`", "id 2", "row 6"]),
        ("minus.npy", ["`minus.npy`", "row 6 is -9", "0 or more"]),
        ("b.npy", ["`b.npy`", "f4", "i8"]),
    ] {
        refused(&sandbox, &format!("build --base b.npy --metric l2 --out x.nf --ids {file}"), &parts);
    }
}

#[test]
fn outputs_that_cannot_be_written() {
    let sandbox = sandbox();
    std::fs::create_dir(sandbox.path("folder")).unwrap();
    let inputs = "search --base b.npy --queries q.npy --metric l2 -k 3";
    for (outputs, parts) in [
        ("--ids folder", ["`folder`", "not a regular file"]),
        ("--ids i.npy --distances nowhere/d.npy", ["`nowhere/d.npy`", "No such file"]),
        ("--ids same.npy --distances ./same.npy", ["two outputs", "same.npy"]),
        ("--ids q.npy", ["`q.npy` is an input", "overwritten"]),
    ] {
        refused(&sandbox, &format!("{inputs} {outputs}"), &parts);
    }
    refused(&sandbox, "build --base b.npy --metric l2 --out nowhere/x.nf", &["`nowhere/x.nf`"]);
    refused(&sandbox, "devices --json nowhere/x.json", &["`nowhere/x.json`"]);
    // Checked before the long work: the missing base is not what is complained about.
    let said = sandbox.run("search --base gone.npy --queries q.npy --metric l2 -k 3 --ids nowhere/i.npy");
    said.refused(&["nowhere/i.npy"]);
}

#[test]
fn row_e3_index_files_that_are_damaged_or_newer() {
    let sandbox = sandbox();
    sandbox.run("build --base b.npy --metric l2 --out x.nf").ok();
    let whole = std::fs::read(sandbox.path("x.nf")).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 0x10;
    sandbox.write("flipped.nf", &flipped);
    sandbox.write("cut.nf", &whole[..whole.len() - 1]);
    let mut newer = whole.clone();
    newer[8..12].copy_from_slice(&99u32.to_le_bytes());
    sandbox.write("newer.nf", &newer);
    sandbox.write("alien.nf", std::fs::read(sandbox.path("b.npy")).unwrap());
    sandbox.write("void.nf", "");
    let cases: [(&str, &[&str]); 5] = [
        ("flipped.nf", &["`flipped.nf` is damaged", "`rows`", "at byte", "checksum"]),
        ("cut.nf", &["`cut.nf`", "bytes wanted"]),
        ("newer.nf", &["`newer.nf`", "newer", "99"]),
        ("alien.nf", &["`alien.nf`", "NUMPY"]),
        ("void.nf", &["`void.nf`"]),
    ];
    for (file, parts) in cases {
        refused(&sandbox, &format!("search --index-file {file} --queries q.npy -k 1 --ids i.npy"), parts);
        refused(&sandbox, &format!("info {file}"), parts);
    }
}

#[test]
fn an_answer_beyond_all_memory() {
    let sandbox = sandbox();
    let many = vec![0.0f32; 3 * 50_000];
    sandbox.f32("many.npy", &[50_000, 3], &many);
    let line = "search --base b.npy --queries many.npy --metric l2 -k 4294967294 --ids i.npy";
    refused(&sandbox, line, &["k = 4294967294", "50000 queries", "memory"]);
}

#[test]
fn truths_that_do_not_fit() {
    let sandbox = sandbox();
    sandbox.i64("narrow.npy", &[4, 2], &[0; 8]);
    sandbox.i64("three.npy", &[3, 5], &[0; 15]);
    sandbox.i64("outside.npy", &[4, 3], &[0, 1, 2, 3, 4, 20, 5, 6, 7, 8, 9, 10]);
    for (file, parts) in [
        ("narrow.npy", ["`narrow.npy`", "[4, 2]", "[4, 3]"]),
        ("three.npy", ["`three.npy`", "[3, 5]", "[4, 3]"]),
        ("outside.npy", ["`outside.npy`", "row 20 for query 1", "0 to 19"]),
    ] {
        let line = "bench search --base b.npy --queries q.npy --metric l2 -k 3 --json o.json --truth";
        refused(&sandbox, &format!("{line} {file}"), &parts);
    }
    refused(
        &sandbox,
        "bench search --base b.npy --queries empty.npy --metric l2 -k 3 --json o.json",
        &["`empty.npy`", "nothing to measure"],
    );
    let tail = "--metric l2 -k 3 --json o.json";
    refused(&sandbox, &format!("bench search --base b.npy --queries q.npy {tail} --batch 1,0"), &["--batch", "whole"]);
    refused(&sandbox, &format!("bench search --base b.npy --queries q.npy {tail} --sweep fast"), &["nprobe=1,2,4"]);
}

#[test]
fn a_demo_sentence_that_is_not_there() {
    let sandbox = Sandbox::new();
    refused(&sandbox, "demo --like spanniel", &["`spanniel`", "4000 sentences", "did you mean"]);
}
