//! What searches do, as reviewable text: for about 40 fixed cases the plan, the lists probed, candidates, re-ranked rows,
//! bytes, and the first answers. A change of any of it shows as a change of a file in `tests/baselines/`.
//!
//! `NEARFIELD_WRITE_BASELINES=yes cargo test --test baselines` writes the files anew; read their difference before it is
//! committed. Rows are small integers, so that sums are exact and no SIMD level gives other answers. Lines that begin with
//! `~` have numbers that rounding may move: they are compared within 3 %, at least 2.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use nearfield::format::Matrix;
use nearfield::{
    AnyIndex, Bitmap, Device, DeviceOptions, Filter, IndexSpec, KMeans, Metric, SearchOptions, SearchStats,
    TrainOptions,
};

const DIM: usize = 32;
const ROWS: usize = 6000;
const QUERIES: usize = 24;

/// One thread, so that what it counts does not depend on who was first.
fn device() -> Device {
    let options = DeviceOptions::default().device("cpu").threads(1);
    Device::open(&options).unwrap()
}

/// Integers from -20 to 20 about 60 centres.
fn rows(n: usize, seed: u32) -> Matrix {
    let mut state = seed;
    let mut next = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 12) % below
    };
    let mut out = Vec::with_capacity(n * DIM);
    for _ in 0..n {
        let centre = next(60);
        out.extend((0..DIM as u32).map(|d| {
            let middle = (centre * 37 + d * d * 11 + centre * d) % 29;
            middle as f32 - 14.0 + next(7) as f32 + next(7) as f32 - 6.0
        }));
    }
    Matrix::from_vec(out, DIM).unwrap()
}

/// What a search planned, did and found. All knowledge of how these are printed is here.
fn record(index: &AnyIndex, queries: &Matrix, k: usize, options: &SearchOptions, title: &str, out: &mut String) {
    let explained = index.explain(queries.view(), k, options).unwrap();
    let (found, stats) = index.search_with(queries.view(), k, options).unwrap();
    writeln!(out, "## {title}").unwrap();
    writeln!(out, "program: {}", explained.program).unwrap();
    counted(&stats, out);
    for q in 0..3 {
        let hits: Vec<String> = found.query(q).take(3).map(|(id, d)| format!("{id} at {d:.3}")).collect();
        writeln!(out, "query {q}: {}", hits.join(", ")).unwrap();
    }
    writeln!(out).unwrap();
}

/// Numbers of rows and bytes; those that a machine decides (times, threads, names) are left out.
fn counted(stats: &SearchStats, out: &mut String) {
    let stages: Vec<&str> = stats.stages.iter().map(|s| s.name.as_ref()).collect();
    writeln!(out, "stages: {}", stages.join(", ")).unwrap();
    writeln!(out, "~candidates {}", stats.scanned).unwrap();
    writeln!(out, "~re-ranked {}", stats.refined).unwrap();
    writeln!(out, "~bytes {}", stats.bytes_read).unwrap();
    writeln!(out, "proven {}, answered by the direct pass {}", stats.proven, stats.fell_back).unwrap();
}

/// Compares with the file, or writes it.
fn compare(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/baselines").join(format!("{name}.txt"));
    if std::env::var_os("NEARFIELD_WRITE_BASELINES").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if let Some(why) = difference(&wanted, found) {
        let other = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.txt"));
        std::fs::write(&other, found).unwrap();
        panic!(
            "{why}\n{} has what was found. If that is as it should be, NEARFIELD_WRITE_BASELINES=yes writes it to {}",
            other.display(),
            path.display()
        );
    }
}

/// The first line in which two records differ.
fn difference(wanted: &str, found: &str) -> Option<String> {
    let (mut title, mut lines) = ("", found.lines());
    for wanted in wanted.lines() {
        if wanted.starts_with("## ") {
            title = wanted;
        }
        let found = lines.next().unwrap_or("nothing");
        if !same(wanted, found) {
            return Some(format!("{title}: wanted `{wanted}`, found `{found}`"));
        }
    }
    lines.next().map(|more| format!("{title}: wanted no more, found `{more}`"))
}

fn same(wanted: &str, found: &str) -> bool {
    let number = |line: &str| {
        line.strip_prefix('~')
            .and_then(|l| l.split_once(' '))
            .and_then(|(key, n)| n.parse::<f64>().ok().map(|n| (key.to_owned(), n)))
    };
    match (number(wanted), number(found)) {
        (Some((a, wanted)), Some((b, found))) => a == b && (wanted - found).abs() <= (0.03 * wanted).max(2.0),
        _ => wanted == found,
    }
}

#[test]
fn what_differs_is_named() {
    let text = "## a\nplan: search -> select_k(3)\n~candidates 1000\n\n## b\nquery 0: 3 at 1.5\n";
    assert_eq!(difference(text, text), None);
    assert_eq!(difference(text, &text.replace("1000", "1029")), None);
    for (from, to, says) in [
        ("1000", "1031", "## a: wanted `~candidates 1000`"),
        ("candidates", "rows", "## a: wanted `~candidates"),
        ("select_k(3)", "select_k(4)", "## a: wanted `plan"),
        ("3 at 1.5", "4 at 1.5", "## b: wanted `query 0"),
        ("query 0: 3 at 1.5\n", "", "## b: wanted `query 0: 3 at 1.5`, found `nothing`"),
    ] {
        let why = difference(text, &text.replace(from, to)).expect("a difference");
        assert!(why.starts_with(says), "{why}");
    }
    assert!(difference(text, &format!("{text}more\n")).is_some());
}

fn index(spec: &str, metric: Metric, rows: &Matrix) -> AnyIndex {
    let spec: IndexSpec = spec.parse().unwrap();
    AnyIndex::build(&device(), &spec, metric, rows.clone(), None, &TrainOptions::default()).unwrap()
}

/// 16 cases: each screen, each k, one query and many.
#[test]
fn flat_by_screens() {
    let (rows, queries) = (rows(ROWS, 1), rows(QUERIES, 2));
    let mut out = String::new();
    for metric in [Metric::L2, Metric::Cosine] {
        let index = index("Flat", metric, &rows);
        for screen in ["none", "f32", "int8"] {
            let mut options = SearchOptions::default();
            options.screen = Some(screen.parse().unwrap());
            for k in [1, 10] {
                record(&index, &queries, k, &options, &format!("{metric}, screen {screen}, k {k}"), &mut out);
            }
        }
        record(&index, &queries, 100, &SearchOptions::default(), &format!("{metric}, k 100"), &mut out);
    }
    let index = index("Flat", Metric::L1, &rows);
    record(&index, &queries, 10, &SearchOptions::default(), "l1, which has no screen", &mut out);
    let index = self::index("Flat", Metric::L2, &rows);
    let few = Matrix::from_vec((0..3 * DIM).map(|i| (i % DIM % 5) as f32).collect(), DIM).unwrap();
    record(&index, &few, 10, &SearchOptions::default(), "l2, three times the same query", &mut out);
    compare("flat", &out);
}

/// 12 cases: lists, codecs, transforms, re-ranking.
#[test]
fn ivf_by_specs() {
    let (rows, queries) = (rows(ROWS, 1), rows(QUERIES, 2));
    let mut out = String::new();
    for (spec, metric, probes) in [
        ("IVF32,Flat", Metric::L2, 4),
        ("IVF32,Flat", Metric::InnerProduct, 4),
        ("IVF32,SQfp16", Metric::L2, 4),
        ("IVF32,SQ8", Metric::L2, 1),
        ("IVF32,SQ8", Metric::L2, 32),
        ("IVF32,SQ4,RFlat", Metric::L2, 4),
        ("IVF32,SQ8,RFlat", Metric::Cosine, 4),
        ("IVF32,PQ8x4fs,RFlat", Metric::L2, 8),
        ("IVF32,PQ8,Refine(SQ8)", Metric::L2, 8),
        ("IVF32,RaBitQ,RFlat", Metric::L2, 8),
        ("IVF32,RaBitQ4", Metric::Cosine, 8),
        ("SQ8,RFlat", Metric::L2, 1),
    ] {
        let index = index(spec, metric, &rows);
        let options = SearchOptions::default().probes(probes);
        record(&index, &queries, 10, &options, &format!("{spec}, {metric}, {probes} probes"), &mut out);
    }
    compare("ivf", &out);
}

/// 8 cases: filters that let through much, little, and other rows for each query.
#[test]
fn filters() {
    let (rows, queries) = (rows(ROWS, 1), rows(QUERIES, 2));
    let per_query = (0..QUERIES).map(|q| Bitmap::from_fn(ROWS, |p| p % QUERIES == q)).collect();
    let filters = [
        ("every second row", Filter::Rows(Bitmap::from_fn(ROWS, |p| p % 2 == 0))),
        ("every 100th row", Filter::Rows(Bitmap::from_fn(ROWS, |p| p % 100 == 0))),
        ("a few ids", Filter::Ids((0..40).map(|i| i * 11).collect())),
        ("other rows for each query", Filter::RowsPerQuery(per_query)),
    ];
    let mut out = String::new();
    for spec in ["Flat", "IVF32,SQ8,RFlat"] {
        let index = index(spec, Metric::L2, &rows);
        for (name, filter) in &filters {
            let options = SearchOptions::default().filter(filter.clone()).probes(4);
            record(&index, &queries, 10, &options, &format!("{spec}, {name}"), &mut out);
        }
    }
    compare("filters", &out);
}

/// 4 cases: all rows within a radius.
#[test]
fn ranges() {
    let (rows, queries) = (rows(ROWS, 1), rows(QUERIES, 2));
    let mut out = String::new();
    for (spec, metric, radius) in [
        ("Flat", Metric::L2, 220.0),
        ("Flat", Metric::Cosine, 0.97),
        ("IVF32,SQ8,RFlat", Metric::L2, 220.0),
        ("IVF32,Flat", Metric::L2, 220.0),
    ] {
        let index = index(spec, metric, &rows);
        let options = SearchOptions::default().probes(8);
        let (found, stats) = index.range_search_with(queries.view(), radius, &options).unwrap();
        writeln!(out, "## {spec}, {metric}, within {radius}").unwrap();
        counted(&stats, &mut out);
        let counts: Vec<String> = (0..QUERIES).map(|q| found.query(q).count().to_string()).collect();
        writeln!(out, "hits: {}\n", counts.join(" ")).unwrap();
    }
    compare("ranges", &out);
}

/// 4 cases: rounds, rows that changed, the sum of squares.
#[test]
fn k_means() {
    let rows = rows(ROWS, 1);
    let mut out = String::new();
    for name in ["plain", "another seed", "balanced", "by direction"] {
        let mut kmeans = KMeans::new(40);
        match name {
            "another seed" => kmeans.seed = 5,
            "balanced" => kmeans.balanced = true,
            "by direction" => kmeans.spherical = true,
            _ => {}
        }
        let found = kmeans.train(&device(), rows.view()).unwrap();
        writeln!(out, "## {name}").unwrap();
        writeln!(out, "~rounds {}", found.iterations).unwrap();
        writeln!(out, "trained with {} rows", found.trained).unwrap();
        writeln!(out, "~inertia {:.3}\n", found.inertia).unwrap();
    }
    compare("kmeans", &out);
}
