//! `bench search`: the shape of its JSON, which other programs read, and its recall.

use crate::sandbox::{Sandbox, values};

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.f32("b.npy", &[500, 8], &values(4000, 1));
    sandbox.f32("q.npy", &[30, 8], &values(240, 2));
    sandbox.run("search --base b.npy --queries q.npy --metric l2 -k 10 --ids gt.npy").ok();
    sandbox
}

#[test]
fn the_json_has_the_agreed_shape() {
    let sandbox = sandbox();
    let line = "bench search --base b.npy --queries q.npy --metric l2 -k 5 --index Flat --batch 1,20 --device cpu \
                --threads 2 --truth gt.npy --sweep auto --json o.json";
    let said = sandbox.run(line).ok();
    assert!(said.out.contains("recall") && said.out.contains("1.0000"), "{}", said.out);
    let json = sandbox.read_json("o.json");
    assert_eq!(json["device"]["kind"], "cpu");
    assert!(json["device"]["name"].as_str().unwrap().starts_with("cpu"));
    let results = json["results"].as_array().unwrap();
    assert_eq!(results.iter().map(|r| r["batch"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 20]);
    for row in results {
        assert_eq!((row["index"].as_str(), &row["params"]), (Some("Flat"), &serde_json::json!({})));
        assert_eq!(row["recall"].as_f64(), Some(1.0));
        let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"));
        assert!(number("qps") > 0.0 && number("p50_ms") > 0.0 && number("p50_ms") <= number("p95_ms"));
        assert!(number("build_s") >= 0.0 && number("memory_bytes") >= 500.0 * 8.0 * 4.0);
        // A batch of which half takes p50 gives about batch / p50 answers per second.
        let implied = row["batch"].as_f64().unwrap() / number("p50_ms") * 1e3;
        assert!(number("qps") < 20.0 * implied && number("qps") > implied / 20.0, "{row}");
        let stages = row["stages"].as_array().unwrap();
        assert!(stages.iter().all(|s| s["name"].is_string() && s["ms"].is_f64()) && !stages.is_empty());
    }
}

#[test]
fn recall_is_null_without_a_truth_and_counts_what_is_missing() {
    let sandbox = sandbox();
    let line = "bench search --base b.npy --queries q.npy --metric l2 -k 10 --batch 7 --json o.json";
    sandbox.run(line).ok();
    assert!(sandbox.read_json("o.json")["results"][0]["recall"].is_null());
    // A truth that is nearer than true neighbours can be: each query's nearest, ten times.
    let nearest: Vec<i64> = sandbox.read_i64("gt.npy").1.chunks(10).flat_map(|row| [row[0]; 10]).collect();
    sandbox.i64("nearest.npy", &[30, 10], &nearest);
    sandbox.run(&format!("{line} --truth nearest.npy")).ok();
    let recall = sandbox.read_json("o.json")["results"][0]["recall"].as_f64().unwrap();
    assert!((recall - 0.1).abs() < 1e-9, "{recall}");
}

#[test]
fn a_sweep_that_flat_does_not_have_is_noted() {
    let sandbox = sandbox();
    let said = sandbox
        .run("bench search --base b.npy --queries q.npy --metric l2 -k 3 --batch 30 --sweep nprobe=1,2 --json o.json")
        .ok();
    assert!(said.err.contains("note: Flat has no settings to sweep"), "{}", said.err);
    assert_eq!(sandbox.read_json("o.json")["results"].as_array().unwrap().len(), 1);
}

/// Fifteen seconds on a quiet machine.
#[test]
fn quick_ends_with_advice() {
    let said = Sandbox::new().run("bench quick").ok();
    assert!(said.out.contains("CPU q/s") && said.out.contains("Use the CPU"), "{}", said.out);
    assert!(said.out.contains("NEARFIELD_DEVICE is `cpu`"), "why there is no GPU: {}", said.out);
    assert_eq!(said.out.lines().filter(|l| l.contains("cosine") || l.contains("l2")).count(), 6, "{}", said.out);
}
