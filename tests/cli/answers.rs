//! Good input: files against a naive computation.

use crate::sandbox::{Sandbox, devices, values};

const N: usize = 300;
const DIM: usize = 24;
const Q: usize = 5;

/// Base `b.npy` and queries `q.npy`.
fn vectors() -> (Sandbox, Vec<f32>, Vec<f32>) {
    let sandbox = Sandbox::new();
    let (base, queries) = (values(N * DIM, 1), values(Q * DIM, 2));
    sandbox.f32("b.npy", &[N, DIM], &base);
    sandbox.f32("q.npy", &[Q, DIM], &queries);
    (sandbox, base, queries)
}

fn value(metric: &str, a: &[f32], b: &[f32]) -> f64 {
    let pairs = || a.iter().zip(b).map(|(&x, &y)| (f64::from(x), f64::from(y)));
    let dot = |f: &dyn Fn((f64, f64)) -> f64| pairs().map(f).sum::<f64>();
    match metric {
        "l2" => dot(&|(x, y)| (x - y) * (x - y)),
        "l1" => dot(&|(x, y)| (x - y).abs()),
        "ip" => dot(&|(x, y)| x * y),
        "cosine" => dot(&|(x, y)| x * y) / (dot(&|(x, _)| x * x) * dot(&|(_, y)| y * y)).sqrt(),
        other => panic!("{other}"),
    }
}

/// (id, value) of all rows, the nearest first.
fn ranked(metric: &str, base: &[f32], query: &[f32]) -> Vec<(i64, f64)> {
    let rows = base.chunks(DIM).enumerate();
    let mut all: Vec<(i64, f64)> = rows.map(|(i, row)| (i as i64, value(metric, query, row))).collect();
    let sign = if ["ip", "cosine"].contains(&metric) { -1.0 } else { 1.0 };
    all.sort_by(|a, b| (sign * a.1).total_cmp(&(sign * b.1)).then(a.0.cmp(&b.0)));
    all
}

#[track_caller]
fn assert_close(found: f32, wanted: f64) {
    assert!((f64::from(found) - wanted).abs() <= 1e-4 * wanted.abs().max(1.0), "{found} for {wanted}");
}

#[test]
fn search_gives_the_nearest_rows_by_every_device() {
    let (sandbox, base, queries) = vectors();
    for device in devices() {
        for metric in ["l2", "l1", "ip", "cosine"] {
            let line = format!(
                "search --base b.npy --queries q.npy --metric {metric} -k 7 --ids i.npy --distances d.npy --device {device}"
            );
            sandbox.run(&line).ok();
            let ((shape, ids), (_, distances)) = (sandbox.read_i64("i.npy"), sandbox.read_f32("d.npy"));
            assert_eq!((shape, sandbox.read_f32("d.npy").0), (vec![Q, 7], vec![Q, 7]));
            for (q, query) in queries.chunks(DIM).enumerate() {
                for (j, (id, wanted)) in ranked(metric, &base, query).into_iter().take(7).enumerate() {
                    assert_eq!(ids[q * 7 + j], id, "{device} {metric} query {q} place {j}");
                    assert_close(distances[q * 7 + j], wanted);
                }
            }
        }
    }
}

#[test]
fn every_screen_gives_the_same_bytes() {
    let (sandbox, ..) = vectors();
    let search = |screen: &str| {
        let line = "search --base b.npy --queries q.npy --metric l2 -k 9 --ids i.npy --distances d.npy --screen";
        sandbox.run_with(line, &[screen]).ok();
        let mut files = sandbox.files();
        (files.remove("i.npy"), files.remove("d.npy"))
    };
    let direct = search("none");
    assert_eq!(search("f32"), direct);
    assert_eq!(search("auto"), direct);
}

#[test]
fn a_k_beyond_the_rows_is_padded() {
    let sandbox = Sandbox::new();
    sandbox.f32("b.npy", &[3, 1], &[0.0, 1.0, 5.0]);
    sandbox.f32("q.npy", &[2, 1], &[0.9, 9.0]);
    sandbox.run("search --base b.npy --queries q.npy --metric l2 -k 5 --ids i.npy --distances d.npy").ok();
    assert_eq!(sandbox.read_i64("i.npy"), (vec![2, 5], vec![1, 0, 2, -1, -1, 2, 1, 0, -1, -1]));
    let distances = sandbox.read_f32("d.npy").1;
    assert!(distances[3].is_nan() && distances[9].is_nan() && distances[2] == (5.0f32 - 0.9) * (5.0 - 0.9));
}

#[test]
fn no_queries_give_empty_results() {
    let (sandbox, ..) = vectors();
    sandbox.f32("none.npy", &[0, DIM], &[]);
    sandbox.run("search --base b.npy --queries none.npy --metric ip -k 4 --ids i.npy --distances d.npy").ok();
    assert_eq!(sandbox.read_i64("i.npy"), (vec![0, 4], vec![]));
    assert_eq!(sandbox.read_f32("d.npy"), (vec![0, 4], vec![]));
    sandbox.run("range --base b.npy --queries none.npy --metric l2 --radius 1 --offsets o.npy --ids i.npy").ok();
    assert_eq!(sandbox.read_i64("o.npy"), (vec![1], vec![0]));
    assert_eq!(sandbox.read_i64("i.npy"), (vec![0], vec![]));
}

#[test]
fn range_gives_all_rows_within_the_radius_as_csr() {
    let (sandbox, base, queries) = vectors();
    for (metric, radius) in [("l2", 12.0), ("cosine", 0.2), ("ip", -0.5)] {
        let line = format!(
            "range --base b.npy --queries q.npy --metric {metric} --radius {radius} --offsets o.npy --ids i.npy \
             --distances d.npy"
        );
        sandbox.run(&line).ok();
        let (shape, offsets) = sandbox.read_i64("o.npy");
        let (ids, distances) = (sandbox.read_i64("i.npy").1, sandbox.read_f32("d.npy").1);
        assert_eq!((shape, offsets[0], offsets[Q]), (vec![Q + 1], 0, ids.len() as i64));
        assert!(ids.len() > Q && ids.len() < Q * N, "the radius of {metric} tells nothing: {}", ids.len());
        for (q, query) in queries.chunks(DIM).enumerate() {
            let inside = |v: f64| if metric == "l2" { v <= radius } else { v >= radius };
            let wanted: Vec<(i64, f64)> =
                ranked(metric, &base, query).into_iter().filter(|(_, v)| inside(*v)).collect();
            let found = offsets[q] as usize..offsets[q + 1] as usize;
            assert_eq!(ids[found.clone()], wanted.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{metric} {q}");
            distances[found].iter().zip(&wanted).for_each(|(d, (_, w))| assert_close(*d, *w));
        }
    }
}

#[test]
fn filters_by_ids_by_one_mask_and_by_a_mask_for_each_query() {
    let (sandbox, base, queries) = vectors();
    sandbox.i64("ids.npy", &[4], &[17, 3, 99_999, -4]);
    sandbox.bools("mask.npy", &[N], &(0..N).map(|i| i % 3 == 1).collect::<Vec<_>>());
    sandbox.bools("masks.npy", &[Q, N], &(0..Q * N).map(|i| i % N % Q == i / N).collect::<Vec<_>>());
    let allowed = |file: &str, q: usize, id: i64| match file {
        "ids.npy" => id == 17 || id == 3,
        "mask.npy" => id % 3 == 1,
        _ => id as usize % Q == q,
    };
    for file in ["ids.npy", "mask.npy", "masks.npy"] {
        sandbox.run_with("search --base b.npy --queries q.npy --metric l2 -k 4 --ids i.npy --filter", &[file]).ok();
        let ids = sandbox.read_i64("i.npy").1;
        for (q, query) in queries.chunks(DIM).enumerate() {
            let ranked = ranked("l2", &base, query).into_iter().map(|(id, _)| id);
            let mut wanted: Vec<i64> = ranked.filter(|&id| allowed(file, q, id)).take(4).collect();
            wanted.resize(4, -1);
            assert_eq!(ids[q * 4..][..4], wanted, "{file} query {q}");
        }
    }
}

#[test]
fn bytes_are_packed_bits_for_hamming() {
    let sandbox = Sandbox::new();
    let base: Vec<u8> = (0..60u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let query = [0x0fu8, 0xa5, 0x3c];
    sandbox.u8("b.npy", &[20, 3], &base);
    sandbox.u8("q.npy", &[1, 3], &query);
    let differing = |row: &[u8]| -> u32 { row.iter().zip(&query).map(|(a, b)| (a ^ b).count_ones()).sum() };
    let mut wanted: Vec<(u32, i64)> = base.chunks(3).zip(0..).map(|(row, i)| (differing(row), i)).collect();
    wanted.sort_unstable();
    sandbox.run("search --base b.npy --queries q.npy --metric hamming -k 6 --ids i.npy --distances d.npy").ok();
    assert_eq!(sandbox.read_i64("i.npy").1, wanted[..6].iter().map(|w| w.1).collect::<Vec<_>>());
    assert_eq!(sandbox.read_f32("d.npy").1, wanted[..6].iter().map(|w| w.0 as f32).collect::<Vec<_>>());

    sandbox.run("search --base b.npy --queries q.npy --metric jaccard --packed-bits -k 1 --distances d.npy").ok();
    let ones =
        |row: &[u8], f: fn(u8, u8) -> u8| -> u32 { row.iter().zip(&query).map(|(a, b)| f(*a, *b).count_ones()).sum() };
    let jaccard = |row: &[u8]| 1.0 - f64::from(ones(row, |a, b| a & b)) / f64::from(ones(row, |a, b| a | b));
    assert_close(sandbox.read_f32("d.npy").1[0], base.chunks(3).map(jaccard).fold(f64::MAX, f64::min));
}

#[test]
fn an_index_file_answers_as_its_base_does_under_its_own_ids() {
    let (sandbox, ..) = vectors();
    let ids: Vec<i64> = (0..N as i64).map(|i| 1000 + 7 * i).collect();
    sandbox.i64("ids.npy", &[N], &ids);
    let said = sandbox.run("build --base b.npy --ids ids.npy --metric cosine --index Flat --out x.nf").ok().out;
    assert!(said.contains("300 rows of 24 f32"), "{said}");
    sandbox.run("search --base b.npy --queries q.npy --metric cosine -k 5 --ids i.npy --distances d.npy").ok();
    sandbox.run("search --index-file x.nf --queries q.npy -k 5 --ids j.npy --distances e.npy").ok();
    let positions = sandbox.read_i64("i.npy").1;
    assert_eq!(sandbox.read_i64("j.npy").1, positions.iter().map(|&p| ids[p as usize]).collect::<Vec<_>>());
    assert_eq!(sandbox.read_f32("d.npy"), sandbox.read_f32("e.npy"));
}

#[test]
fn answers_do_not_depend_on_the_threads() {
    let (sandbox, ..) = vectors();
    let search = |threads: &str| {
        sandbox.run_with("search --base b.npy --queries q.npy --metric l2 -k 5 --ids i.npy --threads", &[threads]).ok();
        sandbox.read_i64("i.npy")
    };
    assert_eq!(search("1"), search("3"));
}

#[test]
fn stats_are_told_and_written() {
    let (sandbox, ..) = vectors();
    let said = sandbox
        .run("search --base b.npy --queries q.npy --metric l2 -k 5 --ids i.npy --stats --stats-json s.json")
        .ok();
    for part in ["device    cpu", "kernels   ", "stages    ", "for 5 queries"] {
        assert!(said.err.contains(part), "`{part}` is not in {}", said.err);
    }
    let json = sandbox.read_json("s.json");
    assert_eq!((json["queries"].as_u64(), json["scanned"].as_u64()), (Some(5), Some(5 * N as u64)));
}

/// More queries than are searched at a time.
#[test]
fn many_queries_are_answered_in_their_order() {
    const MANY: usize = 9000;
    let sandbox = Sandbox::new();
    sandbox.f32("b.npy", &[20, 1], &(0..20).map(|i| i as f32).collect::<Vec<_>>());
    // Query q lies just past row q % 20, and may have every third row, another third than the query before.
    sandbox.f32("q.npy", &[MANY, 1], &(0..MANY).map(|q| (q % 20) as f32 + 0.125).collect::<Vec<_>>());
    sandbox.bools("m.npy", &[MANY, 20], &(0..MANY * 20).map(|i| (i / 20 + i % 20) % 3 == 0).collect::<Vec<_>>());
    sandbox.run("search --base b.npy --queries q.npy --metric l1 -k 2 --filter m.npy --ids i.npy").ok();
    let (shape, ids) = sandbox.read_i64("i.npy");
    assert_eq!(shape, [MANY, 2]);
    for (q, found) in ids.chunks(2).enumerate() {
        let mut wanted: Vec<i64> = (0..20).filter(|row| (q as i64 + row) % 3 == 0).collect();
        wanted.sort_by_key(|row| (8 * row - (8 * (q as i64 % 20) + 1)).abs());
        assert_eq!(found, &wanted[..2], "query {q}");
    }
    sandbox.run("range --base b.npy --queries q.npy --metric l1 --radius 0.9 --offsets o.npy --ids i.npy").ok();
    let (offsets, ids) = (sandbox.read_i64("o.npy").1, sandbox.read_i64("i.npy").1);
    assert_eq!(offsets.len(), MANY + 1);
    for q in 0..MANY {
        let row = (q % 20) as i64;
        let wanted: &[i64] = if row < 19 { &[row, row + 1] } else { &[row] };
        assert_eq!(&ids[offsets[q] as usize..offsets[q + 1] as usize], wanted, "query {q}");
    }
}

#[test]
fn row_a4_a_quarter_of_the_base_as_device_memory_gives_the_same_ids() {
    let sandbox = Sandbox::new();
    let (rows, dim) = (20_000, 64);
    sandbox.f32("b.npy", &[rows, dim], &values(rows * dim, 5));
    sandbox.f32("q.npy", &[3, dim], &values(3 * dim, 6));
    sandbox.run("search --base b.npy --queries q.npy --metric l2 -k 10 --ids cpu.npy").ok();
    for device in devices() {
        let line = "search --base b.npy --queries q.npy --metric l2 -k 10 --ids i.npy --stats --device-memory 1250KiB";
        let said = sandbox.run_with(line, &["--device", &device]).ok();
        assert_eq!(sandbox.read_i64("i.npy"), sandbox.read_i64("cpu.npy"), "{device}");
        assert!(device == "cpu" || said.err.contains("parts of the base"), "{}", said.err);
    }
}
