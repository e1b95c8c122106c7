//! `bench kmeans`: its JSON, which other programs read, and what it refuses.

use crate::sandbox::{Sandbox, values};

#[test]
fn the_json_has_the_agreed_shape() {
    let sandbox = Sandbox::new();
    sandbox.f32("b.npy", &[2000, 8], &values(16_000, 1));
    let line =
        "bench kmeans --base b.npy --points 1500 --clusters 40 --iterations 5 --threads 2 --device cpu --json o.json";
    let mut inertia = Vec::new();
    for metric in ["l2", "l2", "cosine"] {
        let said = sandbox.run(&format!("{line} --metric {metric}")).ok();
        assert!(said.out.contains("inertia") && said.out.contains("1,500"), "{}", said.out);
        let json = sandbox.read_json("o.json");
        assert!(json["train_s"].as_f64().unwrap() > 0.0);
        assert_eq!((json["points"].as_u64(), json["clusters"].as_u64()), (Some(1500), Some(40)));
        inertia.push(json["inertia"].as_f64().unwrap());
    }
    assert!(inertia[0] > 0.0 && inertia[0] == inertia[1], "the seed is the same: {inertia:?}");
    // A cluster more explains more.
    sandbox.run(&line.replace("--clusters 40", "--clusters 400 --metric l2")).ok();
    assert!(sandbox.read_json("o.json")["inertia"].as_f64().unwrap() < inertia[0]);
}

#[test]
fn what_cannot_be_clustered_is_said() {
    let sandbox = Sandbox::new();
    sandbox.f32("b.npy", &[20, 4], &values(80, 1));
    for (line, parts) in [
        ("--metric l2 --clusters 21", &["21", "20 rows"][..]),
        ("--metric l1 --clusters 2", &["l2, ip or cosine"]),
        ("--metric l2 --clusters 0", &["--clusters"]),
        ("--metric l2 --clusters 2 --points 0", &["--points"]),
    ] {
        sandbox.run(&format!("bench kmeans --base b.npy {line} --device cpu")).refused(parts);
    }
}
