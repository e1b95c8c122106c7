//! Every kernel on every adapter, launched as the contract file says, against its naive reference in f64. No engine in
//! between: what fails here is the kernel. Devices are asked for no more than the default limits of WebGPU.
#![cfg(feature = "gpu")]

mod device;

use device::{Data, Gpu, each_gpu, each_variant, f32s, rows_of, u32s, words};
use nearfield::compute::Mask;
use nearfield::ops::Norm;
use nearfield::ops::search::screened::{self, Limit, Unit};
use nearfield::ops::source::{MISSING_KEY, NO_POSITION};
use nearfield::ops::tile::TileArgs;
use nearfield::ops::{Launch, distance, metric, normalize, range, refine, search, select_k};
use nearfield::{DType, Metric};

const METRICS: [Metric; 10] = [
    Metric::L2,
    Metric::InnerProduct,
    Metric::Cosine,
    Metric::L1,
    Metric::Linf,
    Metric::Lp(3.3),
    Metric::Canberra,
    Metric::BrayCurtis,
    Metric::JensenShannon,
    Metric::Jaccard,
];

/// What all launches over the same rows and queries bind first.
fn inputs(rows: &Data, queries: &Data) -> Vec<Vec<u32>> {
    vec![rows_of(&rows.view()), rows_of(&queries.view()), words(&rows.norms()), words(&queries.norms())]
}

fn run(gpu: &Gpu, launch: &Launch, mut buffers: Vec<Vec<u32>>, outputs: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let first = buffers.len();
    buffers.extend_from_slice(outputs);
    gpu.run(launch, buffers).split_off(first)
}

fn tolerance(metric: Metric, rows: &Data, queries: &Data, q: usize, r: usize, exact: f64) -> f64 {
    let (a, b) = (f64::from(queries.norms()[q]), f64::from(rows.norms()[r]));
    metric::tolerance(metric, rows.dtype, rows.dim, exact, a, b)
}

fn distances(gpu: &Gpu, metric: Metric, rows: &Data, queries: &Data) -> Vec<f32> {
    let (n, q) = (rows.rows, queries.rows);
    let args = distance::Args {
        tile: TileArgs {
            metric,
            dtype: rows.dtype,
            dim: rows.dim,
            row_begin: 0,
            row_end: n as u32,
            q_begin: 0,
            q_end: q as u32,
            mask: None,
            mask_row_base: 0,
            position_base: 0,
        },
        out_stride: n as u32,
        out_offset: 0,
    };
    let launch = distance::record(&args, &gpu.caps);
    let mut buffers = inputs(rows, queries);
    buffers.push(vec![0]);
    f32s(&run(gpu, &launch, buffers, &[vec![0; n * q]])[0])
}

fn check_distances(gpu: &Gpu, metric: Metric, rows: &Data, queries: &Data) {
    let found = distances(gpu, metric, rows, queries);
    let exact = distance::reference(metric, &queries.view(), &rows.view());
    for (i, (&found, &exact)) in found.iter().zip(&exact).enumerate() {
        let (q, r) = (i / rows.rows, i % rows.rows);
        let error = (f64::from(found) - exact).abs();
        let bound = tolerance(metric, rows, queries, q, r, exact);
        // What a sum of terms without cancellation can promise whatever the dimension.
        let cancels = matches!(metric, Metric::InnerProduct | Metric::Cosine);
        let bound = if cancels { bound } else { bound.min(4e-6 * exact.abs() + 1e-35) };
        assert!(
            error <= bound,
            "{}: {metric} {} dim {}: query {q}, row {r}: {found} for {exact}, off by {error:e}, allowed {bound:e}",
            gpu.name,
            rows.dtype,
            rows.dim
        );
    }
}

#[test]
fn row_b1_every_metric_within_its_bound() {
    each_gpu(|gpu| {
        for metric in METRICS {
            let positive = metric.needs_non_negative();
            for dim in [1, 3, 7, 33, 100, 257] {
                let rows = Data::random(1, DType::F32, 70, dim, positive);
                check_distances(gpu, metric, &rows, &Data::random(2, DType::F32, 4, dim, positive));
            }
            for dim in [1025, 16384] {
                let rows = Data::random(31, DType::F32, 3, dim, positive);
                check_distances(gpu, metric, &rows, &Data::random(32, DType::F32, 2, dim, positive));
                check_distances(gpu, metric, &rows, &Data::near(&rows));
            }
        }
        for p in [0.5, 1.0, 2.0, 3.0, 4.0, 0.7, 10.0] {
            let (rows, queries) =
                (Data::random(3, DType::F32, 9, 50, false), Data::random(4, DType::F32, 4, 50, false));
            check_distances(gpu, Metric::Lp(p), &rows, &queries);
        }
        for metric in [Metric::Hamming, Metric::Jaccard] {
            for dim in [8, 64, 136, 1000] {
                let rows = Data::random(5, DType::Bits, 33, dim, true);
                check_distances(gpu, metric, &rows, &Data::random(6, DType::Bits, 4, dim, true));
            }
        }
    });
}

#[test]
fn row_b1_every_element_type_and_number_of_queries() {
    each_gpu(|gpu| {
        for dtype in [DType::F32, DType::F16, DType::Bf16, DType::I8, DType::U8] {
            for dim in [1, 5, 16, 31, 130] {
                let rows = Data::random(7, dtype, 300, dim, false);
                for queries in [1, 3] {
                    check_distances(gpu, Metric::L2, &rows, &Data::random(8, DType::F32, queries, dim, false));
                }
            }
        }
        // The other workgroup shapes, with one sum and with two.
        for metric in [Metric::L2, Metric::BrayCurtis] {
            for queries in [0, 5, 32, 33, 70] {
                let rows = Data::random(7, DType::F32, 131, 20, false);
                check_distances(gpu, metric, &rows, &Data::random(8, DType::F32, queries, 20, false));
            }
        }
        let none = Data::random(7, DType::F32, 0, 20, false);
        check_distances(gpu, Metric::L2, &none, &Data::random(8, DType::F32, 5, 20, false));
    });
}

/// Random masks, one for all queries or one per query, that begin at an odd bit.
fn mask(queries: usize, bits: usize, shared: bool) -> (Vec<u32>, usize) {
    let stride = bits.div_ceil(32);
    let words = if shared { stride } else { stride * queries };
    let noise =
        |i: usize| (i as u32).wrapping_add(1).wrapping_mul(0x9e37_79b9).rotate_left(11).wrapping_mul(0x85eb_ca6b);
    ((0..words).map(|i| noise(i) | noise(i + 77)).collect(), if shared { 0 } else { stride })
}

#[test]
fn distance_writes_a_block_and_marks_what_the_mask_forbids() {
    each_gpu(|gpu| {
        let (rows, queries) =
            (Data::random(9, DType::F32, 100, 20, false), Data::random(10, DType::F32, 30, 20, false));
        let exact = distance::reference(Metric::L2, &queries.view(), &rows.view());
        let (bits, stride) = mask(30, 150, false);
        let args = distance::Args {
            tile: TileArgs {
                metric: Metric::L2,
                dtype: DType::F32,
                dim: 20,
                row_begin: 10,
                row_end: 91,
                q_begin: 3,
                q_end: 25,
                mask: Some(stride as u32),
                mask_row_base: 37,
                position_base: 0,
            },
            out_stride: 95,
            out_offset: 7,
        };
        let mut buffers = inputs(&rows, &queries);
        buffers.push(bits.clone());
        let out = &run(gpu, &distance::record(&args, &gpu.caps), buffers, &[vec![77; 22 * 95]])[0];
        let allows = Mask { words: &bits, stride, tag: None };
        for (i, &found) in out.iter().enumerate() {
            let (q, column) = (i / 95 + 3, i % 95);
            let r = column + 3;
            if !(10..91).contains(&r) {
                assert_eq!(found, 77, "a place outside the block was written");
            } else if !allows.allows(q, r + 37) {
                assert_eq!(found, MISSING_KEY, "query {q}, row {r}");
            } else {
                assert!((f64::from(f32::from_bits(found)) - exact[q * 100 + r]).abs() < 1e-5, "query {q}, row {r}");
            }
        }
    });
}

/// What several launches of `search` found, merged by `select_k`: sorted (key, position) of each query.
fn searched(gpu: &Gpu, base: &search::Args, cuts: &[u32], buffers: &[Vec<u32>], keep: usize) -> Vec<Vec<(f32, u32)>> {
    let slices: Vec<search::Args> = cuts
        .windows(2)
        .map(|w| search::Args { tile: TileArgs { row_begin: w[0], row_end: w[1], ..base.tile }, ..*base })
        .collect();
    let counts: Vec<u32> = slices.iter().map(|a| search::parts(a, &gpu.caps)).collect();
    let (queries, total) = (base.tile.q_end as usize, counts.iter().sum::<u32>());
    let places = queries * total as usize * keep;
    let mut out = vec![vec![0xdead_beef; places], vec![0xdead_beef; places]];
    let mut part_base = 0;
    for (args, count) in slices.iter().zip(&counts) {
        let launch = search::record(&search::Args { part_base, parts_total: total, ..*args }, &gpu.caps);
        assert_eq!(launch.groups[1], *count);
        out = run(gpu, &launch, buffers.to_vec(), &out);
        part_base += count;
    }
    selected(gpu, &out[0], Some(&out[1]), queries, total as usize * keep, keep)
}

/// What `select_k` keeps of each segment, sorted.
fn selected(
    gpu: &Gpu,
    keys: &[u32],
    positions: Option<&[u32]>,
    segments: usize,
    width: usize,
    k: usize,
) -> Vec<Vec<(f32, u32)>> {
    let args = select_k::Args {
        segments: segments as u32,
        width: width as u32,
        in_stride: width as u32,
        out_stride: k as u32,
        k: k as u32,
        part_width: width as u32,
        has_positions: positions.is_some(),
        position_base: 0,
        nan_is_missing: false,
        limits: select_k::Limits::None,
    };
    let buffers = vec![keys.to_vec(), positions.unwrap_or(&[0]).to_vec()];
    let empty = vec![0xdead_beef; segments * k];
    let out = run(gpu, &select_k::record(&args, &gpu.caps), buffers, &[empty.clone(), empty, vec![0; 4]]);
    pairs(&out[0], &out[1], k)
}

/// Places that are filled, sorted; the others must be empty.
fn pairs(keys: &[u32], positions: &[u32], k: usize) -> Vec<Vec<(f32, u32)>> {
    let segments = keys.chunks(k).zip(positions.chunks(k));
    segments
        .map(|(keys, positions)| {
            let mut pairs = Vec::new();
            for (&key, &position) in keys.iter().zip(positions) {
                if position == NO_POSITION {
                    assert_eq!(f32::from_bits(key), f32::INFINITY);
                } else {
                    pairs.push((f32::from_bits(key), position));
                }
            }
            pairs.sort_by(|a, b| a.0.is_nan().cmp(&b.0.is_nan()).then(a.0.total_cmp(&b.0)).then(a.1.cmp(&b.1)));
            pairs
        })
        .collect()
}

#[test]
fn row_b4_search_keeps_the_smallest() {
    each_variant(|gpu| {
        // Queries and keep: one of each workgroup shape, and the edges between them.
        for (q, keep, n) in [(1, 1, 5000), (6, 100, 1500), (12, 40, 2000), (33, 32, 1100), (20, 10, 3)] {
            for (metric, dtype) in [(Metric::L2, DType::F32), (Metric::L1, DType::I8)] {
                if metric == Metric::L1 && q != 33 {
                    continue;
                }
                let dim = 24;
                let (rows, queries) =
                    (Data::random(11, dtype, n, dim, false), Data::random(12, DType::F32, q, dim, false));
                let shared = q % 2 == 0;
                let (bits, stride) = mask(q, n + 5, shared);
                let args = search_args(metric, dtype, dim, keep, q, Some(stride as u32));
                let mut buffers = inputs(&rows, &queries);
                buffers.push(bits.clone());
                let found = searched(gpu, &args, &[0, n as u32 / 3, n as u32], &buffers, keep);
                let allowed = |q: usize, r: usize| Mask { words: &bits, stride, tag: None }.allows(q, r + 5);
                let exact = distances(gpu, metric, &rows, &queries);
                for (i, found) in found.iter().enumerate() {
                    // The same arithmetic as the distance kernel, so that even near ties are the same.
                    let mut want: Vec<(f32, u32)> =
                        (0..n).filter(|&r| allowed(i, r)).map(|r| (exact[i * n + r], r as u32 + 1000)).collect();
                    want.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    want.truncate(keep);
                    assert_eq!(found, &want, "{}: {metric} {dtype}, query {i} of {q}, keep {keep} of {n}", gpu.name);
                }
            }
        }
    });
}

fn search_args(metric: Metric, dtype: DType, dim: usize, keep: usize, q: usize, mask: Option<u32>) -> search::Args {
    search::Args {
        tile: TileArgs {
            metric,
            dtype,
            dim,
            row_begin: 0,
            row_end: 0,
            q_begin: 0,
            q_end: q as u32,
            position_base: 1000,
            mask,
            mask_row_base: 5,
        },
        keep: keep as u32,
        part_base: 0,
        parts_total: 0,
    }
}

#[test]
fn search_breaks_ties_by_position() {
    each_variant(|gpu| {
        // Few different rows, so that nearly all keys are equal; then all rows alike.
        for kinds in [3, 1] {
            let rows = Data::repeating(13, 2000, 8, kinds);
            let queries = Data::random(14, DType::F32, 5, 8, false);
            let mut buffers = inputs(&rows, &queries);
            buffers.push(vec![0]);
            let found = searched(gpu, &search_args(Metric::L2, DType::F32, 8, 50, 5, None), &[0, 2000], &buffers, 50);
            let exact = distances(gpu, Metric::L2, &rows, &queries);
            for (q, found) in found.iter().enumerate() {
                let want = select_k::reference(&exact[q * 2000..(q + 1) * 2000], None, 50);
                let want: Vec<_> = want.into_iter().map(|(key, at)| (key, at + 1000)).collect();
                assert_eq!(found, &want, "{}: {kinds} kinds, query {q}", gpu.name);
            }
        }
    });
}

/// Lists of `room` places and their limits, as a screened search begins with them.
fn empty_lists(queries: usize, room: u32) -> [Vec<u32>; 3] {
    let limits: Vec<u32> = bytemuck::cast_slice(&vec![Limit::NONE; queries]).to_vec();
    [vec![0xdead_beef; queries * room as usize], vec![0xdead_beef; queries * room as usize], limits]
}

/// What `select_k` makes of lists: keys and positions `[queries, out_stride]`, and the new limits.
fn settled(gpu: &Gpu, lists: &[Vec<u32>], room: u32, k: u32, out_stride: u32) -> Vec<Vec<u32>> {
    let segments = (lists[2].len() / 4) as u32;
    let args = select_k::Args {
        segments,
        width: room,
        in_stride: room,
        out_stride,
        k,
        part_width: room,
        has_positions: true,
        position_base: 0,
        nan_is_missing: false,
        limits: select_k::Limits::OfLists,
    };
    let empty = vec![0xdead_beef; (segments * out_stride) as usize];
    let buffers = lists[..2].to_vec();
    run(gpu, &select_k::record(&args, &gpu.caps), buffers, &[empty.clone(), empty, lists[2].clone()])
}

#[test]
fn search_screens_below_the_direct_key_level_by_level() {
    each_gpu(|gpu| {
        // Queries: one of each workgroup shape. Rows: several tiles of each, the last one short.
        for (metric, dtype, q) in [
            (Metric::L2, DType::F32, 5),
            (Metric::L2, DType::F16, 20),
            (Metric::InnerProduct, DType::F32, 40),
            (Metric::Cosine, DType::U8, 70),
        ] {
            let (n, dim, keep, room) = (2300, 50, 30, 1024);
            let (rows, queries) = (Data::random(15, dtype, n, dim, false), Data::random(16, DType::F32, q, dim, false));
            let (bits, stride) = mask(q, n + 5, false);
            let allows = Mask { words: &bits, stride, tag: None };
            let mut buffers = inputs(&rows, &queries);
            buffers.push(bits.clone());
            let tiles = (n as u32).div_ceil(screened::tile_rows(Unit::F32, q) as u32);
            let numbers = tiles.next_power_of_two();
            let first = screened::visit(0, numbers, tiles, (room / screened::tile_rows(Unit::F32, q) as u32).max(1)).0;
            let mut lists = empty_lists(q, room).to_vec();
            for (tile_begin, tile_end) in [(0, first), (first, numbers)] {
                let args = screened::Args {
                    unit: Unit::F32,
                    metric,
                    dtype,
                    dim,
                    row_begin: 0,
                    row_end: n as u32,
                    tile_begin,
                    tile_end,
                    q_begin: 0,
                    q_end: q as u32,
                    position_base: 1000,
                    mask: Some(stride as u32),
                    mask_row_base: 5,
                    room,
                };
                lists = run(gpu, &screened::record(&args, &gpu.caps), buffers.clone(), &lists);
                lists = settled(gpu, &lists, room, keep, room);
            }
            let out = settled(gpu, &lists, room, keep, keep);
            let found = pairs(&out[0], &out[1], keep as usize);
            let direct = distances(gpu, metric, &rows, &queries);
            let slack = search::slack(dim);
            for (i, found) in found.iter().enumerate() {
                let limit: &Limit = &bytemuck::cast_slice(&out[2])[i];
                assert_eq!((found.len(), limit.count), (30, 30), "{}: {metric} {dtype}, query {i}", gpu.name);
                let query = distance::row_f64(&queries.view(), i);
                let bound = |r: usize| {
                    let row = distance::row_f64(&rows.view(), r);
                    let dot: f64 = query.iter().zip(&row).map(|(x, y)| x * y).sum();
                    search::lower_bound(metric, slack, dot as f32, queries.norms()[i], rows.norms()[r])
                };
                let scale = |r: usize| match metric {
                    Metric::Cosine => 1.0,
                    _ => f64::from(queries.norms()[i].powi(2) + rows.norms()[r].powi(2)),
                };
                for &(key, position) in found {
                    let r = position as usize - 1000;
                    assert!(allows.allows(i, r + 5), "row {r} is forbidden");
                    assert!(key <= direct[i * n + r], "{}: {metric}: {key} above {}", gpu.name, direct[i * n + r]);
                    assert!(f64::from(key - bound(r)).abs() <= 1e-5 * scale(r), "{metric}: {key}, {}", bound(r));
                }
                // The last of them is the limit, and nothing far below it was left out.
                let last = found[found.len() - 1];
                for r in (0..n).filter(|&r| allows.allows(i, r + 5)) {
                    let kept = found.iter().any(|&(_, position)| position as usize == r + 1000);
                    let below = f64::from(bound(r)) < f64::from(last.0) - 1e-5 * scale(r);
                    assert!(kept || !below, "{}: {metric}, query {i}: row {r} is missing", gpu.name);
                }
            }
        }
    });
}

#[test]
fn a_list_that_overflows_says_so_to_the_end() {
    each_gpu(|gpu| {
        let (n, q, room) = (700, 3, 64);
        let rows = Data::random(15, DType::F32, n, 8, false);
        let queries = Data::random(16, DType::F32, q, 8, false);
        let mut buffers = inputs(&rows, &queries);
        buffers.push(vec![0]);
        let mut args = screened::Args {
            unit: Unit::F32,
            metric: Metric::L2,
            dtype: DType::F32,
            dim: 8,
            row_begin: 0,
            row_end: n as u32,
            tile_begin: 0,
            tile_end: screened::visit(0, 4, 3, 3).0,
            q_begin: 0,
            q_end: q as u32,
            position_base: 0,
            mask: None,
            mask_row_base: 0,
            room,
        };
        let lists = run(gpu, &screened::record(&args, &gpu.caps), buffers.clone(), &empty_lists(q, room));
        let limits: &[Limit] = bytemuck::cast_slice(&lists[2]);
        assert!(limits.iter().all(|l| l.count == n as u32 && l.overflowed(room)), "{}: {limits:?}", gpu.name);
        let lists = settled(gpu, &lists, room, 10, room);
        let limits: &[Limit] = bytemuck::cast_slice(&lists[2]);
        assert!(limits.iter().all(|l| l.count == (10 | Limit::OVERFLOWED) && l.key == 0), "{limits:?}");
        // Nothing comes in any more, and the mark stays.
        args.tile_end = 1;
        let lists = run(gpu, &screened::record(&args, &gpu.caps), buffers, &lists);
        let out = settled(gpu, &lists, room, 10, 10);
        let limits: &[Limit] = bytemuck::cast_slice(&out[2]);
        assert!(limits.iter().all(|l| l.overflowed(10)), "{}: {limits:?}", gpu.name);
    });
}

#[test]
fn row_b3_select_any_k() {
    each_variant(|gpu| {
        let noise = |i: u32| i.wrapping_mul(0x9e37_79b9).rotate_left(13).wrapping_mul(0x85eb_ca6b);
        let cases: [fn(u32) -> f32; 5] = [
            |x| (x as f32 / u32::MAX as f32) * 2.0 - 1.0,
            |x| (x % 7) as f32,
            |_| 1.5,
            |x| [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.0, -f32::NAN][x as usize % 7],
            |x| f32::from_bits(0x3f80_0000 + x % 1000),
        ];
        for (c, make) in cases.iter().enumerate() {
            for (segments, width) in [(1, 1), (3, 257), (2, 5000), (70, 33)] {
                let keys: Vec<f32> = (0..segments * width).map(|i| make(noise(i as u32 + 17))).collect();
                let positions: Vec<u32> = (0..segments * width).map(|i| noise((i % width) as u32 + 3)).collect();
                for k in [1, 10, 100, width] {
                    for given in [false, true] {
                        let positions = given.then_some(&positions[..]);
                        let found = selected(gpu, &words(&keys), positions, segments, width, k);
                        for (s, found) in found.iter().enumerate() {
                            let part = s * width..(s + 1) * width;
                            let want = select_k::reference(&keys[part.clone()], positions.map(|p| &p[part]), k);
                            assert_eq!(
                                bits(found),
                                bits(&want),
                                "{}: case {c}, segment {s} of {width}, k {k}",
                                gpu.name
                            );
                        }
                    }
                }
            }
        }
    });
}

/// Comparable, all NaN alike.
fn bits(pairs: &[(f32, u32)]) -> Vec<(u32, u32)> {
    pairs.iter().map(|&(key, at)| (if key.is_nan() { u32::MAX } else { key.to_bits() }, at)).collect()
}

#[test]
fn select_in_parts_and_without_what_is_missing() {
    each_variant(|gpu| {
        let keys: Vec<u32> = (0..3000_u32)
            .map(|i| if i % 3 == 0 { MISSING_KEY } else { (i.wrapping_mul(0x9e37_79b9) as f32).to_bits() })
            .collect();
        let args = select_k::Args {
            segments: 2,
            width: 1400,
            in_stride: 1500,
            out_stride: 1000,
            k: 200,
            part_width: 300,
            has_positions: false,
            position_base: 50,
            nan_is_missing: true,
            limits: select_k::Limits::None,
        };
        assert_eq!(args.parts(), 5);
        let empty = vec![0xdead_beef; 2000];
        let out = run(
            gpu,
            &select_k::record(&args, &gpu.caps),
            vec![keys.clone(), vec![0]],
            &[empty.clone(), empty, vec![0; 4]],
        );
        let found = pairs(&out[0], &out[1], 200);
        for (i, found) in found.iter().enumerate() {
            let (segment, part) = (i / 5, i % 5);
            let range = segment * 1500 + part * 300..segment * 1500 + (part * 300 + 300).min(1400);
            let mut want: Vec<(f32, u32)> = range
                .filter(|&at| keys[at] != MISSING_KEY)
                .map(|at| (f32::from_bits(keys[at]), (at - segment * 1500) as u32 + 50))
                .collect();
            want.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            want.truncate(200);
            assert_eq!(found, &want, "{}: part {i}", gpu.name);
        }
        // A given position that stands for nothing.
        let positions = [5, NO_POSITION, 7, NO_POSITION];
        let found = selected(gpu, &words(&[3.0, 1.0, 2.0, f32::NEG_INFINITY]), Some(&positions), 1, 4, 3);
        assert_eq!(found, [[(2.0, 7), (3.0, 5)]]);
    });
}

#[test]
fn row_b13_refine_gives_direct_keys() {
    each_gpu(|gpu| {
        for metric in METRICS {
            for dtype in [DType::F32, DType::U8] {
                if dtype == DType::U8 && metric != Metric::L2 {
                    continue;
                }
                let positive = metric.needs_non_negative();
                let (n, q, dim, width) = (60, 7, 45, 19);
                let (rows, queries) =
                    (Data::random(17, dtype, n, dim, positive), Data::random(18, DType::F32, q, dim, positive));
                // Shard of rows 100..160; some candidates before, some behind, some missing.
                let positions: Vec<u32> =
                    (0..q * width).map(|i| if i % 5 == 0 { NO_POSITION } else { 80 + (i as u32 * 37) % 100 }).collect();
                for first in [true, false] {
                    let args = refine::Args {
                        metric,
                        dtype,
                        dim,
                        q_begin: 1,
                        q_end: q as u32,
                        width: width as u32,
                        position_base: 100,
                        rows: n as u32,
                        first,
                    };
                    let mut buffers = inputs(&rows, &queries);
                    buffers.push(positions.clone());
                    let out = run(gpu, &refine::record(&args, &gpu.caps), buffers, &[vec![77; q * width]]);
                    for (i, &found) in out[0].iter().enumerate() {
                        let (query, position) = (i / width, positions[i]);
                        if query == 0 {
                            assert_eq!(found, 77);
                        } else if !(100..160).contains(&position) {
                            assert_eq!(found, if first { f32::INFINITY.to_bits() } else { 77 });
                        } else {
                            let r = position as usize - 100;
                            let a = distance::row_f64(&queries.view(), query);
                            let exact = metric::key(metric, &a, &distance::row_f64(&rows.view(), r));
                            let error = (f64::from(f32::from_bits(found)) - exact).abs();
                            let bound = tolerance(metric, &rows, &queries, query, r, exact);
                            assert!(
                                error <= bound,
                                "{}: {metric} {dtype}: {} for {exact}",
                                gpu.name,
                                f32::from_bits(found)
                            );
                        }
                    }
                }
            }
        }
    });
}

#[test]
fn row_b5_range_counts_then_fills() {
    each_gpu(|gpu| {
        for (q, shared) in [(3, true), (21, false)] {
            let (n, dim) = (500, 12);
            let (rows, queries) =
                (Data::random(19, DType::F32, n, dim, false), Data::random(20, DType::F32, q, dim, false));
            let exact = distances(gpu, Metric::L2, &rows, &queries);
            let mut sorted = exact.clone();
            sorted.sort_by(f32::total_cmp);
            let limit = sorted[sorted.len() / 10];
            let (bits, stride) = mask(q, n, shared);
            let args = range::Args {
                tile: TileArgs {
                    metric: Metric::L2,
                    dtype: DType::F32,
                    dim,
                    row_begin: 3,
                    row_end: 490,
                    q_begin: 0,
                    q_end: q as u32,
                    position_base: 10_000,
                    mask: Some(stride as u32),
                    mask_row_base: 0,
                },
                key: limit,
                out_base: 7,
            };
            let allows = Mask { words: &bits, stride, tag: None };
            let want: Vec<Vec<(f32, u32)>> = (0..q)
                .map(|i| {
                    let rows = (3..490).filter(|&r| exact[i * n + r] <= limit && allows.allows(i, r));
                    let mut hits: Vec<_> = rows.map(|r| (exact[i * n + r], r as u32 + 10_000)).collect();
                    hits.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    hits
                })
                .collect();
            let mut buffers = inputs(&rows, &queries);
            buffers.push(bits.clone());
            let counts = &run(gpu, &range::record_count(&args, &gpu.caps), buffers.clone(), &[vec![0; q]])[0];
            assert_eq!(*counts, want.iter().map(|w| w.len() as u32).collect::<Vec<_>>(), "{}", gpu.name);
            let mut cursors = vec![7];
            cursors.extend(counts.iter().scan(7, |at, c| {
                *at += c;
                Some(*at)
            }));
            let total = (cursors.pop().unwrap() - 7) as usize;
            let outputs = [cursors, vec![0; total], vec![0; total]];
            let out = run(gpu, &range::record_fill(&args, &gpu.caps), buffers, &outputs);
            let mut at = 0;
            for (i, want) in want.iter().enumerate() {
                let place = at..at + want.len();
                at = place.end;
                let found = pairs(&out[1][place.clone()], &out[2][place], want.len().max(1));
                assert_eq!(found.first().unwrap_or(&vec![]), want, "{}: query {i}", gpu.name);
            }
        }
    });
}

#[test]
fn row_b2_normalise_rows_of_any_size() {
    each_gpu(|gpu| {
        for norm in [Norm::L2, Norm::L1, Norm::Max] {
            for (dtype, dim) in [(DType::F32, 1), (DType::F32, 70), (DType::I8, 19), (DType::F16, 129)] {
                if dtype != DType::F32 && norm != Norm::L2 {
                    continue;
                }
                let n = 23;
                let mut rows = Data::random(21, dtype, n, dim, false);
                rows.clear_row(4);
                if dtype == DType::F32 {
                    rows.scale_row(5, 1e38);
                    rows.scale_row(6, 1e-38);
                    rows.scale_row(7, 1e-43);
                }
                check_normalize(gpu, norm, &rows);
            }
        }
    });
}

fn check_normalize(gpu: &Gpu, norm: Norm, rows: &Data) {
    let (begin, n, dim) = (2, rows.rows, rows.dim);
    let args = normalize::Args { norm, dtype: rows.dtype, dim, row_begin: begin as u32, row_end: n as u32 };
    let outputs = [vec![0; (n - begin) * dim], vec![0; n - begin]];
    let out = run(gpu, &normalize::record(&args, &gpu.caps), vec![rows_of(&rows.view())], &outputs);
    let (want, norms) = normalize::reference(norm, &rows.view());
    let bound = (dim as f64 / 4.0 + 16.0) * f64::powi(2.0, -24);
    for (i, &found) in f32s(&out[0]).iter().enumerate() {
        let exact = want[begin * dim + i];
        let tiny = f64::from(f32::MIN_POSITIVE);
        assert!(
            (f64::from(found) - exact).abs() <= bound * exact.abs() + tiny,
            "{}: {norm}: {found} for {exact}",
            gpu.name
        );
    }
    for (found, exact) in f32s(&out[1]).iter().zip(&norms[begin..]) {
        let exact = if *exact > f64::from(f32::MAX) { f64::INFINITY } else { *exact };
        let near = (f64::from(*found) - exact).abs() <= bound * exact + f64::from(f32::MIN_POSITIVE);
        assert!(near || f64::from(*found) == exact, "{}: {norm}: norm {found} for {exact}", gpu.name);
    }
    assert_eq!(u32s(&out[1])[2], 0, "a zero row has norm 0");
}
