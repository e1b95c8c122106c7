//! `bench shaders`: table, JSON, picture, trace, comparison, a user's own shader, and what is refused.

use std::sync::OnceLock;

use serde_json::Value;

use crate::sandbox::{Run, Sandbox, devices};

/// One short run on the CPU with every output, for all tests that only look at them.
fn on_cpu() -> &'static (Sandbox, Run) {
    static DONE: OnceLock<(Sandbox, Run)> = OnceLock::new();
    DONE.get_or_init(|| {
        let sandbox = Sandbox::new();
        let line = "bench shaders --device cpu --threads 2 --family range --json o.json --svg o.svg --trace t.json";
        let run = sandbox.run(line).ok();
        (sandbox, run)
    })
}

/// The first adapter to test on, if this build has GPUs.
fn adapter() -> Option<String> {
    devices().into_iter().find(|d| d != "cpu")
}

#[track_caller]
fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or_else(|| panic!("{name} in {value}"))
}

/// What holds for a report on any device.
#[track_caller]
fn sound(report: &Value) {
    assert_eq!(report["schema"], "nearfield.bench.shaders/1");
    let ceilings = &report["ceilings"];
    let read = ceilings["read"].as_array().unwrap();
    assert!(read.len() >= 2 && read.iter().all(|r| number(r, "gbs") > 0.0), "{ceilings}");
    assert!(number(ceilings, "copy_gbs") > 0.0 && number(ceilings, "launch_s") > 0.0);
    let arithmetic = ceilings["arithmetic"].as_array().unwrap();
    let units: Vec<&str> = arithmetic.iter().map(|a| a["unit"].as_str().unwrap()).collect();
    assert_eq!(units, ["f32", "f16", "int8", "popcount", "matrix"]);
    for unit in arithmetic {
        let measured = unit["gops"].as_f64().is_some_and(|rate| rate > 0.0);
        assert!(measured || unit["gops"].is_null() && !unit["note"].as_str().unwrap().is_empty(), "{unit}");
    }
    assert_eq!(report["failed"].as_array().unwrap().len(), 0, "{}", report["failed"]);
    for row in report["rows"].as_array().unwrap() {
        let n = |name: &str| number(row, name);
        assert!(n("min_s") <= n("median_s") && n("median_s") <= n("max_s") && n("min_s") > 0.0, "{row}");
        assert!(n("mad_s") <= n("max_s") - n("min_s") && n("runs") >= 5.0, "{row}");
        // Rates are the work over the median, the share what the lower roof allows.
        assert!((n("gbs") * n("median_s") * 1e9 / n("bytes") - 1.0).abs() < 1e-6, "{row}");
        assert!((n("gflops") * n("median_s") * 1e9 / n("operations") - 1.0).abs() < 1e-6, "{row}");
        let roof = f64::max(n("bytes") / n("roof_gbs"), n("operations") / n("roof_gops")) / 1e9;
        assert!((roof / n("median_s") / n("share") - 1.0).abs() < 1e-6, "{row}");
        assert_eq!(row["fault"].is_string(), n("share") > 1.1, "{row}");
        assert!(["memory", "cache", "f32", "f16", "int8"].contains(&row["bound"].as_str().unwrap()), "{row}");
    }
}

/// Every tag is closed in order, and nothing else has an angle bracket or a bare ampersand.
#[track_caller]
fn well_formed(xml: &str) {
    let mut open = Vec::new();
    for part in xml.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("no end: <{part}"));
        assert!(!text.contains('>'), "{text}");
        let bare = text.split('&').skip(1).find(|t| !["amp;", "lt;", "gt;", "quot;"].iter().any(|e| t.starts_with(e)));
        assert_eq!(bare, None, "a bare ampersand");
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn row_f1_the_cpu_gets_a_table_and_json() {
    let (sandbox, said) = on_cpu();
    for part in ["cpu (", "2 threads", "timed by wall clock", "GB/s", "int8", "share", "range", "16 x 20,000 x 128"] {
        assert!(said.out.contains(part), "`{part}` is not in {}", said.out);
    }
    let report = sandbox.read_json("o.json");
    sound(&report);
    assert_eq!((report["device"]["kind"].as_str(), report["timed_by"].as_str()), (Some("cpu"), Some("wall clock")));
    assert_eq!(report["rows"].as_array().unwrap().len(), 1, "one family was asked for");
}

#[test]
fn row_f1_the_picture_is_xml_with_every_label() {
    let (sandbox, _) = on_cpu();
    let svg = std::fs::read_to_string(sandbox.path("o.svg")).unwrap();
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"") && svg.ends_with("</svg>\n"));
    well_formed(&svg);
    for part in
        ["2 threads)</text>", ">memory ", ">f32 ", ">int8 ", "operations per byte", "operations per second", ">range<"]
    {
        assert!(svg.contains(part), "`{part}` is not in {svg}");
    }
    assert_eq!(svg.matches("<circle").count(), 1);
}

#[test]
fn row_f1_the_trace_has_every_run() {
    let (sandbox, _) = on_cpu();
    let (trace, report) = (sandbox.read_json("t.json"), sandbox.read_json("o.json"));
    let events = trace["traceEvents"].as_array().unwrap();
    let runs: Vec<&Value> = events.iter().filter(|e| e["ph"] == "X").collect();
    assert_eq!(runs.len() as u64, report["rows"][0]["runs"].as_u64().unwrap());
    let mut end = 0.0;
    for run in runs {
        assert!(number(run, "ts") >= end && number(run, "dur") > 0.0, "runs overlap: {run}");
        end = number(run, "ts") + number(run, "dur");
    }
    let named = |what: &str| events.iter().any(|e| e["ph"] == "M" && e["name"] == what);
    assert!(named("process_name") && named("thread_name"));
}

#[test]
fn row_f1_a_comparison_marks_what_changed() {
    let (first, _) = on_cpu();
    let sandbox = Sandbox::new();
    let mut old = first.read_json("o.json");
    let row = &mut old["rows"][0];
    // Ten times as fast in the old run, and one kernel that is gone.
    for name in ["median_s", "min_s", "max_s", "mad_s"] {
        row[name] = (number(row, name) / 10.0).into();
    }
    let mut gone = row.clone();
    gone["name"] = "search of old".into();
    old["rows"].as_array_mut().unwrap().push(gone);
    old["device"]["name"] = "another".into();
    sandbox.write("old.json", old.to_string());
    let said = sandbox.run("bench shaders --device cpu --threads 2 --family range --compare old.json").ok();
    for part in [
        "against old.json",
        "slower",
        "1 slower, 0 faster",
        "another device: another",
        "only the other run has search of old",
    ] {
        assert!(said.out.contains(part), "`{part}` is not in {}", said.out);
    }
}

#[test]
fn row_f1_wrong_files_and_families_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("broken.json", "{");
    sandbox.write("other.json", "{\"schema\": \"something\"}");
    let before = sandbox.files();
    let cases: [(&str, &[&str]); 7] = [
        ("--family serch", &["unknown family `serch`", "distance, normalize, search", "did you mean `search`?"]),
        ("--compare nowhere.json", &["`nowhere.json`"]),
        ("--compare broken.json", &["`broken.json` is no JSON of `nearfield bench shaders`"]),
        ("--compare other.json", &["`other.json`", "`something`"]),
        ("--json o.json --svg o.json", &["two outputs", "`o.json`"]),
        ("--svg no/such/folder.svg", &["no/such"]),
        ("--bindings b.toml", &["--shader"]),
    ];
    for (line, parts) in cases {
        sandbox.run(&format!("bench shaders --device cpu {line}")).refused(parts);
    }
    assert_eq!(before, sandbox.files());
}

const DOUBLE: &str = "@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    x[id.x] = 2.0 * x[id.x];
}
";
const BINDINGS: &str = "workgroups = [64, 1, 1]
buffers = [{ binding = 0, bytes = 16384, fill = \"random\" }]
cost = { bytes = 32768, operations = 4096 }
";

#[test]
fn row_f1_a_gpu_and_a_shader_of_ones_own() {
    let Some(device) = adapter() else { return };
    let sandbox = Sandbox::new();
    sandbox.write("my.wgsl", DOUBLE);
    sandbox.write("my.toml", BINDINGS);
    let line = "bench shaders --family select_k --shader my.wgsl --json o.json --svg o.svg --trace t.json --device";
    let said = sandbox.run_with(line, &[&device]).ok();
    assert!(said.out.contains("my.wgsl") && said.out.contains("timed by "), "{}", said.out);
    let report = sandbox.read_json("o.json");
    sound(&report);
    let rows = report["rows"].as_array().unwrap();
    let clock = report["timed_by"].as_str().unwrap();
    assert!(rows.iter().all(|r| r["timed_by"] == clock), "{report}");
    let mine = rows.iter().find(|r| r["name"] == "my.wgsl").unwrap();
    assert_eq!((mine["family"].as_str(), number(mine, "bytes")), (Some("yours"), 32768.0));
    assert!(rows.iter().any(|r| r["family"] == "select_k"), "ours are measured beside it");
    well_formed(&std::fs::read_to_string(sandbox.path("o.svg")).unwrap());
    let trace = sandbox.read_json("t.json");
    let on = |process: u64| {
        trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "X" && e["pid"] == process).count()
    };
    assert!(on(1) > 0 && (on(2) > 0) == (clock == "gpu timestamps"), "{trace}");
}

#[test]
fn row_f1_wrong_shaders_are_refused() {
    let sandbox = Sandbox::new();
    sandbox.write("my.wgsl", DOUBLE);
    sandbox.write("my.toml", BINDINGS);
    sandbox.run("bench shaders --device cpu --shader my.wgsl").refused(&["`my.wgsl`", "needs a GPU", "cpu ("]);
    sandbox.run("bench shaders --device cpu --shader no.wgsl").refused(&["cannot read the shader `no.wgsl`"]);
    let toml = |text: &str, parts: &[&str]| {
        sandbox.write("wrong.toml", text);
        sandbox.run("bench shaders --device cpu --shader my.wgsl --bindings wrong.toml").refused(parts);
    };
    toml("workgroups = [64, 1]", &["`wrong.toml`", "TOML parse error at line 1", "^"]);
    toml(&BINDINGS.replace("bytes = 16384", "size = 16384"), &["`wrong.toml`", "size", "bytes"]);
    toml(&BINDINGS.replace("4096 }", "4096, unit = \"f64\" }"), &["`wrong.toml`: unknown unit `f64`", "int8"]);
    toml(&BINDINGS.replace("bytes = 32768, operations = 4096", "bytes = 0"), &["`wrong.toml`", "wanted one above 0"]);
    let Some(device) = adapter() else { return };
    let gpu = |wgsl: &str, toml: &str, parts: &[&str]| {
        sandbox.write("wrong.wgsl", wgsl);
        sandbox.write("wrong.toml", toml);
        sandbox.run_with("bench shaders --shader wrong.wgsl --device", &[&device]).refused(parts);
    };
    gpu(&DOUBLE.replace("2.0 *", "2.0 +*"), BINDINGS, &["`wrong.wgsl` does not compile", "wrong.wgsl:4:", "^"]);
    gpu(
        &DOUBLE.replace("x[id.x] =", "y[id.x] ="),
        BINDINGS,
        &["`wrong.wgsl` does not compile", "`y`", "wrong.wgsl:4:5"],
    );
    gpu(DOUBLE, &format!("entry = \"start\"\n{BINDINGS}"), &["`wrong.wgsl` does not fit", "start"]);
    gpu(DOUBLE, &BINDINGS.replace("binding = 0", "binding = 3"), &["`wrong.wgsl` does not fit", "3"]);
    gpu(DOUBLE, &BINDINGS.replace("bytes = 16384", "bytes = 6"), &["`wrong.wgsl` does not fit", "6 bytes"]);
    gpu(DOUBLE, &BINDINGS.replace("[64, 1, 1]", "[99999999, 1, 1]"), &["`wrong.wgsl` does not fit", "99999999"]);
}
