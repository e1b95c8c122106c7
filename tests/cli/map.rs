//! `nearfield map`: what is drawn, and what is refused.

use crate::sandbox::{Sandbox, values};

/// Three heaps of rows with a text each.
fn heaps(sandbox: &Sandbox, rows: usize) {
    let mut x = values(rows * 6, 5);
    for (i, row) in x.chunks_mut(6).enumerate() {
        row[i % 3] += 20.0;
    }
    sandbox.f32("b.npy", &[rows, 6], &x);
    let texts: Vec<String> = (0..rows).map(|i| format!("word{i}: heap {} <&>", ["a", "b", "c"][i % 3])).collect();
    sandbox.write("t.txt", texts.join("\n"));
}

#[test]
fn a_map_shows_every_row_and_what_clusters_are_about() {
    let sandbox = Sandbox::new();
    heaps(&sandbox, 60);
    let said = sandbox.run("map --base b.npy --texts t.txt --clusters 3 --out m.svg").ok();
    assert!(said.out.contains("m.svg: 60 points in 3 clusters"), "{}", said.out);
    let svg = String::from_utf8(std::fs::read(sandbox.path("m.svg")).unwrap()).unwrap();
    // A point for each row, and two signs for each cluster.
    let dots = svg.matches("<circle").count() + svg.matches("<polygon").count();
    assert_eq!(dots, 60 + 2 * 3);
    assert!(svg.contains("b: 60 vectors in 3 clusters") && svg.contains("labels: the texts nearest"), "{svg}");
    assert!(svg.contains("<title>word7: heap b &lt;&amp;&gt;</title>") && svg.contains("20 rows · heap "), "{svg}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
    // The same again, byte for byte.
    sandbox.run("map --base b.npy --texts t.txt --clusters 3 --out n.svg").ok();
    assert_eq!(svg.as_bytes(), std::fs::read(sandbox.path("n.svg")).unwrap());
}

#[test]
fn a_map_as_png() {
    let sandbox = Sandbox::new();
    heaps(&sandbox, 60);
    sandbox.run("map --base b.npy --texts t.txt --out M.PNG").ok();
    let png = std::fs::read(sandbox.path("M.PNG")).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 10_000);
    let size = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
    assert_eq!((size(16), size(20)), (2560, 1760));
}

#[test]
fn rows_too_long_for_a_map_are_the_inputs_fault() {
    let sandbox = Sandbox::new();
    let mut x = values(30 * 3, 1);
    x.iter_mut().for_each(|x| *x *= 3e16);
    sandbox.f32("b.npy", &[30, 3], &x);
    sandbox.run("map --base b.npy --out m.svg").ok();
    x[3 * 7] = 1e20;
    sandbox.f32("b.npy", &[30, 3], &x);
    sandbox.run("map --base b.npy --out n.svg").refused(&["`b.npy`: row 7 has length 1.0e20", "up to 7.2e16"]);
    assert!(!sandbox.path("n.svg").exists());
}

#[test]
fn maps_of_little_and_of_much() {
    let sandbox = Sandbox::new();
    for (rows, dim) in [(1, 1), (2, 5), (5, 2), (30, 3)] {
        sandbox.f32("b.npy", &[rows, dim], &vec![1.0; rows * dim]);
        sandbox.run("map --base b.npy --out m.svg").ok();
        let svg = String::from_utf8(std::fs::read(sandbox.path("m.svg")).unwrap()).unwrap();
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{rows} x {dim}");
    }
    let rows = 20_500;
    sandbox.f32("b.npy", &[rows, 2], &values(rows * 2, 1));
    let said = sandbox.run("map --base b.npy --out m.svg --clusters 2").ok();
    assert!(said.out.contains("20,000 points"), "{}", said.out);
    let svg = String::from_utf8(std::fs::read(sandbox.path("m.svg")).unwrap()).unwrap();
    assert!(svg.contains("20,000 of 20,500 rows") && svg.contains(" % of the rows"));
}

#[test]
fn maps_that_cannot_be_drawn() {
    let sandbox = Sandbox::new();
    heaps(&sandbox, 9);
    sandbox.write("short.txt", "one\ntwo\n");
    sandbox.write("bytes.txt", b"fine\n\xff\xfe\n");
    sandbox.f32("empty.npy", &[0, 3], &[]);
    sandbox.f32("nan.npy", &[2, 2], &[0.0, 1.0, f32::NAN, 2.0]);
    for (line, parts) in [
        ("map --base b.npy --texts short.txt --out m.svg", ["`short.txt` has 2 lines", "`b.npy` has 9 rows"]),
        ("map --base b.npy --texts bytes.txt --out m.svg", ["`bytes.txt`", "not UTF-8 in line 2"]),
        ("map --base b.npy --texts none.txt --out m.svg", ["`none.txt`", "cannot be read"]),
        ("map --base b.npy --clusters 10 --out m.svg", ["10 clusters of the 9 rows of `b.npy`", "--clusters 9"]),
        ("map --base b.npy --clusters 0 --out m.svg", ["--clusters", "1..=4096"]),
        ("map --base b.npy --out m.jpg", ["`m.jpg`", ".svg or a .png"]),
        ("map --base b.npy --out b.npy", ["`b.npy`", ".svg or a .png"]),
        ("map --base b.npy --texts t.svg --out t.svg", ["`t.svg`", "an input"]),
        ("map --base empty.npy --out m.svg", ["`empty.npy`", "no rows"]),
        ("map --base nan.npy --out m.svg", ["`nan.npy`", "row 1, component 0 is NaN"]),
        ("map --base none.npy --out m.svg", ["`none.npy`", "No such file"]),
    ] {
        let before = sandbox.files();
        sandbox.run(line).refused(&parts);
        assert_eq!(before, sandbox.files(), "{line}");
    }
}
