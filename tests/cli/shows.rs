//! Commands that show something: demo, devices, info, explain, help.

use crate::sandbox::{Sandbox, devices, values};

#[test]
fn demo_finds_what_means_the_same() {
    let said = Sandbox::new().run("demo").ok();
    for part in ["chicken soup: soup made from chicken broth", "chicken broth: a stock made with chicken"] {
        assert!(said.out.contains(part), "{}", said.out);
    }
    assert!(said.out.contains("No GPU to compare with: NEARFIELD_DEVICE is `cpu`"), "{}", said.out);
    assert!(!said.out.contains('\x1b'), "colours where there is no terminal");
}

#[test]
fn demo_devices_agree() {
    for device in devices().iter().filter(|d| **d != "cpu") {
        for like in [&[][..], &["--like", "music"]] {
            let said = Sandbox::new().run_with("demo --device", &[&[device.as_str()], like].concat()).ok();
            let agree = said.out.contains("Both devices agree");
            assert!(agree && said.out.to_lowercase().contains(&device.to_lowercase()), "{}", said.out);
        }
    }
}

#[test]
fn demo_like_shows_the_neighbours_of_a_sentence() {
    let said = Sandbox::new().run_with("demo", &["--like", "Red Cedar"]).ok();
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(lines.iter().any(|l| l.starts_with("red cedar: fragrant")), "{}", said.out);
    assert_eq!(lines.iter().filter(|l| l.starts_with("  0.")).count(), 10, "{}", said.out);
    assert!(!lines.iter().any(|l| l.starts_with("  1.00")), "a sentence is not its own neighbour: {}", said.out);
}

#[test]
fn devices_lists_the_cpu_and_writes_json() {
    let sandbox = Sandbox::new();
    let said = sandbox.run("devices --json d.json").ok();
    assert!(said.out.contains("cpu") && said.out.contains("auto: "), "{}", said.out);
    let json = sandbox.read_json("d.json");
    assert!(json["cpu"]["name"].as_str().unwrap().starts_with("cpu"));
    let adapters = json["adapters"].as_array().unwrap();
    let taken = adapters.iter().filter(|a| a["auto"] == true).count() + usize::from(json["cpu"]["auto"] == true);
    assert_eq!(taken, 1, "{json}");
    for device in devices().iter().filter(|d| **d != "cpu") {
        let named = adapters.iter().find(|a| a["name"].as_str().unwrap().contains(device.as_str())).unwrap();
        let software = named["kind"] == "software";
        assert!(!(software && named["auto"] == true), "auto never takes a software adapter: {named}");
        assert!(named["limits"].as_object().unwrap().len() > 3, "{named}");
    }
}

#[test]
fn info_and_explain() {
    let sandbox = Sandbox::new();
    sandbox.f32("b.npy", &[64, 4], &values(256, 1));
    sandbox.run("build --base b.npy --metric cosine --out x.nf").ok();
    let said = sandbox.run("info x.nf --json i.json").ok().out;
    assert!(said.contains("Flat, cosine") && said.contains("64 of 4 f32") && said.contains("row numbers"), "{said}");
    let json = sandbox.read_json("i.json");
    assert_eq!(
        (json["dim"].as_u64(), json["rows"].as_u64(), json["has_ids"].as_bool()),
        (Some(4), Some(64), Some(false))
    );
    assert_eq!(json["sections"].as_array().unwrap().len(), 2);

    let said = sandbox.run("explain --index-file x.nf --batch 32 -k 3 --screen f32").ok().out;
    for part in
        ["32 queries against 64 rows", "search(screen f32", "refine", "select_k(5)", "decide", "predicted", "at best"]
    {
        assert!(said.contains(part), "`{part}` is not in {said}");
    }
    let said = sandbox.run("explain --base b.npy --metric l1 --queries b.npy -k 3").ok().out;
    assert!(said.contains("64 queries") && said.contains("search(screen none, keep 5)"), "{said}");
}

#[test]
fn help_names_every_command_and_fits_the_terminal() {
    let sandbox = Sandbox::new();
    let said = sandbox.run("--help").ok().out;
    for command in ["demo", "devices", "search", "range", "build", "import", "info", "explain", "tune", "map", "bench"]
    {
        assert!(said.contains(&format!("  {command} ")), "{said}");
        let help = sandbox.run(&format!("{command} --help")).ok().out;
        assert!(help.lines().skip(6).all(|l| l.chars().count() <= 100), "{help}");
    }
    assert!(sandbox.run("--version").ok().out.starts_with("nearfield 0."));
}

/// `nearfield ... | head` must not end in a panic.
#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let line = format!("set -o pipefail; {} devices --help | true; {0} demo | true", env!("CARGO_BIN_EXE_nearfield"));
    let done = std::process::Command::new("bash").args(["-c", &line]).env("NEARFIELD_DEVICE", "cpu").output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success() && said.is_empty(), "{:?} {said}", done.status);
}
