//! The readers against files that numpy wrote, truncated files, and random bytes.

use std::fs;
use std::path::{Path, PathBuf};

use half::f16;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::types::{DType, RowsView};

pub(super) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/format").join(name)
}

/// A folder with one file in it.
struct Case {
    dir: TempDir,
}

impl Case {
    fn new() -> Case {
        Case { dir: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

fn rows(matrix: &Matrix) -> Vec<Vec<f32>> {
    let row = |i| {
        let mut row = vec![0.0; matrix.dim()];
        matrix.view().row_f32(i, &mut row);
        row
    };
    (0..matrix.rows()).map(row).collect()
}

/// What every matrix among the fixtures holds.
fn expected() -> Vec<Vec<f32>> {
    (0..3).map(|r| (0..4).map(|c| (10 * r + c) as f32).collect()).collect()
}

fn message<T>(result: Result<T, LoadError>) -> String {
    match result {
        Ok(_) => panic!("this should have been an error"),
        Err(e) => e.to_string(),
    }
}

#[track_caller]
fn says<T>(result: Result<T, LoadError>, parts: &[&str]) {
    let message = message(result);
    for part in parts {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

fn rows_f64(matrix: &Matrix) -> Vec<Vec<f64>> {
    let of = |r| {
        let mut row = vec![0.0; matrix.dim()];
        matrix.view().row_f64(r, &mut row);
        row
    };
    (0..matrix.rows()).map(of).collect()
}

#[test]
fn npy_of_every_dtype_order_and_version() {
    for (name, dtype, mapped) in [
        ("f2", DType::F16, true),
        ("f4", DType::F32, true),
        ("i1", DType::I8, true),
        ("u1", DType::U8, true),
        ("f8", DType::F64, true),
        ("i4", DType::I32, true),
        ("i8", DType::I64, true),
        ("f2_big", DType::F16, false),
        ("f4_big", DType::F32, false),
        ("f8_big", DType::F64, false),
        ("i4_big", DType::I32, false),
        ("i8_big", DType::I64, false),
        ("f2_fortran", DType::F16, false),
        ("f4_fortran", DType::F32, false),
        ("f8_fortran", DType::F64, false),
        ("u1_fortran", DType::U8, false),
        ("i8_fortran", DType::I64, false),
        ("f4_big_fortran", DType::F32, false),
        ("f4_v2", DType::F32, true),
        ("f4_v3", DType::F32, true),
    ] {
        let matrix = read_matrix(fixture(&format!("{name}.npy"))).unwrap();
        assert_eq!((matrix.dtype(), matrix.is_mapped()), (dtype, mapped), "{name}");
        assert_eq!(rows(&matrix), expected(), "{name}");
    }
}

#[test]
fn npy_shapes() {
    let one = read_matrix(fixture("f4_1d.npy")).unwrap();
    assert_eq!(rows(&one), [[0.0, 1.0, 2.0, 3.0]]);
    let none = read_matrix(fixture("f4_no_rows.npy")).unwrap();
    assert_eq!((none.rows(), none.dim(), none.view().rows()), (0, 4, 0));
    says(read_matrix(fixture("f4_no_dim.npy")), &["f4_no_dim.npy", "(3, 0)", "1 to 16777216"]);
    says(read_matrix(fixture("f4_0d.npy")), &["has shape ()", "one or two dimensions"]);
    says(read_matrix(fixture("f4_3d.npy")), &["(1, 2, 3)"]);
}

#[test]
fn npy_values_that_do_not_fit_are_named() {
    assert_eq!(rows_f64(&read_matrix(fixture("f8_too_big.npy")).unwrap())[2][1], -1e39);
    let odd = rows(&read_matrix(fixture("f8_not_finite.npy")).unwrap());
    assert!(odd[0][0].is_nan());
    assert_eq!(odd[0][1..], [f32::INFINITY, f32::NEG_INFINITY, 0.0]);
    says(read_ids(fixture("u8_too_big.npy")), &["row 1, column 1 of `", "9223372036854775808"]);
}

#[test]
fn npy_dtypes_that_are_not_read_are_named() {
    says(read_matrix(fixture("c8.npy")), &["'<c8'", "b1, f2, f4, f8, i1, u1, i2, u2, i4, i8", "<V2"]);
    says(read_matrix(fixture("structured.npy")), &["('a', '<f4'), ('b', '<i4', (2,))"].map(|_| "dtype"));
    says(read_matrix(fixture("u4.npy")), &["'<u4'"]);
    says(read_ids(fixture("f4.npy")), &["'<f4'", "i4, i8, u4, u8"]);
    says(read_filter(fixture("u1.npy")), &["'|u1'", "b1 (a mask)"]);
}

/// A `.npy` file of one dtype.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}");
    header.extend(std::iter::repeat_n(' ', 118 - header.len()));
    [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), data].concat()
}

#[test]
fn npy_of_narrow_integers_booleans_and_bf16() {
    let case = Case::new();
    let read = |descr: &str, data: &[u8]| read_matrix(case.write("a.npy", &npy(descr, "(2, 2)", data)));
    let shorts = [-32768i16, -1, 0, 32767].map(i16::to_le_bytes);
    let matrix = read("<i2", shorts.as_flattened()).unwrap();
    assert_eq!((matrix.dtype(), rows(&matrix)), (DType::F32, vec![vec![-32768.0, -1.0], vec![0.0, 32767.0]]));
    let shorts = [65535u16, 1, 0, 256].map(u16::to_be_bytes);
    let matrix = read(">u2", shorts.as_flattened()).unwrap();
    assert_eq!((matrix.dtype(), rows(&matrix)), (DType::F32, vec![vec![65535.0, 1.0], vec![0.0, 256.0]]));
    let matrix = read("|b1", &[1, 0, 0, 1]).unwrap();
    assert_eq!((matrix.dtype(), rows(&matrix)), (DType::U8, vec![vec![1.0, 0.0], vec![0.0, 1.0]]));
    says(read("|b1", &[1, 0, 2, 1]), &["row 1, column 0", "is 2", "0 or 1"]);
    let halves = [1.5f32, -3.0, 0.0, 1e30].map(|x| half::bf16::from_f32(x).to_le_bytes());
    let matrix = read("<V2", halves.as_flattened()).unwrap();
    assert_eq!((matrix.dtype(), matrix.is_mapped()), (DType::Bf16, true));
    assert_eq!(rows(&matrix)[0], [1.5, -3.0]);
    // Two bytes of anything are not bf16.
    says(read("|V2", halves.as_flattened()), &["'|V2'"]);
    // Without a sign the order is the machine's.
    let floats = [1.5f32, -2.0, 0.25, 8.0].map(f32::to_le_bytes);
    let matrix = read("f4", floats.as_flattened()).unwrap();
    assert_eq!((matrix.dtype(), rows(&matrix)), (DType::F32, vec![vec![1.5, -2.0], vec![0.25, 8.0]]));
}

#[test]
fn npy_rows_at_odd_addresses_are_copied() {
    let case = Case::new();
    let dict = "{\"shape\": (1, 2L), 'fortran_order': False, 'descr': '=f4'}";
    for extra in 0..4 {
        let header = format!("{dict}{}", " ".repeat(extra));
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        let mapped = bytes.len().is_multiple_of(4);
        bytes.extend([1.5f32, -2.0].map(f32::to_le_bytes).as_flattened());
        let matrix = read_matrix(case.write("a.npy", &bytes)).unwrap();
        assert_eq!((rows(&matrix), matrix.is_mapped()), (vec![vec![1.5, -2.0]], mapped));
    }
}

#[test]
fn npz_members() {
    let member = |file: &str, name: &str| PathBuf::from(format!("{}:{name}", fixture(file).display()));
    for file in ["stored.npz", "deflated.npz"] {
        assert_eq!(rows(&read_matrix(member(file, "base")).unwrap()), expected());
        assert_eq!(rows(&read_matrix(member(file, "base.npy")).unwrap()), expected());
        assert_eq!(read_ids(member(file, "ids")).unwrap().ids, [0, 1, 2]);
        says(read_matrix(member(file, "nothing")), &["no array `nothing`", file, "base, ids"]);
        says(read_matrix(fixture(file)), &["no array was chosen", "file.npz:array", "base, ids"]);
    }
    assert_eq!(rows(&read_matrix(fixture("one.npz")).unwrap()), expected());
    assert_eq!(rows(&read_matrix(member("stored.npz", "wide")).unwrap()), expected());
    says(read_matrix(fixture("none.npz")), &["there is none"]);
    says(read_matrix(member("missing.npz", "a")), &["missing.npz`: "]);
}

#[test]
fn npz_damage_is_found() {
    let case = Case::new();
    for (file, name) in [("stored.npz", "base"), ("deflated.npz", "base"), ("one.npz", "only")] {
        let good = fs::read(fixture(file)).unwrap();
        let read = |bytes: &[u8]| {
            let path = case.write("a.npz", bytes);
            read_matrix(PathBuf::from(format!("{}:{name}", path.display())))
        };
        for end in 0..good.len() {
            assert!(read(&good[..end]).is_err(), "{file} cut to {end} bytes");
        }
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 0x10;
            // Some bytes of an archive mean nothing to a reader, such as the time.
            if let Ok(matrix) = read(&bad) {
                assert_eq!(rows(&matrix), expected(), "{file} with byte {i} changed");
            }
        }
    }
}

#[test]
fn npz_members_that_claim_too_much_are_refused_before_memory_is_taken() {
    let case = Case::new();
    for file in ["one.npz", "deflated.npz"] {
        let mut bytes = fs::read(fixture(file)).unwrap();
        // The unpacked length in the first entry of the central directory.
        let entry = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        bytes[entry + 24..entry + 28].copy_from_slice(&(u32::MAX - 1).to_le_bytes());
        let path = case.write("a.npz", &bytes);
        let member = if file == "one.npz" { "only" } else { "base" };
        says(read_matrix(PathBuf::from(format!("{}:{member}", path.display()))), &["it claims 4294967294 bytes in"]);
    }
}

fn vecs(rows: &[&[[u8; 4]]]) -> Vec<u8> {
    let row = |row: &&[[u8; 4]]| [&(row.len() as u32).to_le_bytes()[..], row.as_flattened()].concat();
    rows.iter().flat_map(row).collect()
}

#[test]
fn vecs_files() {
    let case = Case::new();
    let f = |v: f32| v.to_le_bytes();
    let path = case.write("a.fvecs", &vecs(&[&[f(1.5), f(2.0)], &[f(-3.0), f(4.0)], &[f(5.0), f(6.0)]]));
    let matrix = read_matrix(&path).unwrap();
    assert_eq!(rows(&matrix), [[1.5, 2.0], [-3.0, 4.0], [5.0, 6.0]]);
    assert!(matrix.is_mapped());

    let i = |v: i32| v.to_le_bytes();
    let path = case.write("a.IVECS", &vecs(&[&[i(7), i(-1), i(1 << 30)], &[i(0), i(2), i(3)]]));
    let ids = read_ids(&path).unwrap();
    assert_eq!(ids, IdMatrix { ids: vec![7, -1, 1 << 30, 0, 2, 3], shape: vec![2, 3] });
    assert_eq!(rows(&read_matrix(&path).unwrap())[0], [7.0, -1.0, (1 << 30) as f32]);

    let path = case.write("a.bvecs", &[3, 0, 0, 0, 1, 2, 255, 3, 0, 0, 0, 4, 5, 6]);
    let matrix = read_matrix(&path).unwrap();
    assert_eq!((matrix.dtype(), rows(&matrix)), (DType::U8, vec![vec![1.0, 2.0, 255.0], vec![4.0, 5.0, 6.0]]));
}

#[test]
fn vecs_rows_of_another_dim_are_named() {
    let case = Case::new();
    let path = case.write("a.fvecs", &vecs(&[&[[0; 4]; 3], &[[0; 4]; 3], &[[0; 4]; 2], &[[0; 4]; 3]]));
    says(read_matrix(&path), &["row 2 of `", "a.fvecs", "dim = 2", "3 as in row 0"]);
    says(read_matrix(case.write("b.ivecs", &(-1i32).to_le_bytes())), &["row 0", "dim = -1", "1 to 16777216"]);
    says(read_ids(case.write("c.ivecs", &[0; 8])), &["dim = 0"]);
    says(read_matrix(case.write("d.bvecs", &[])), &["empty file"]);
    says(read_matrix(case.write("e.fvecs", &[0, 0, 0, 1, 0])), &["truncated", "67108868 bytes wanted, 5 found"]);
}

#[test]
fn bin_files() {
    let case = Case::new();
    let bin = |n: u32, dim: u32, data: &[u8]| [&n.to_le_bytes()[..], &dim.to_le_bytes(), data].concat();
    let values = [1.5f32, 2.0, -3.0, 4.0].map(f32::to_le_bytes);
    let matrix = read_matrix(case.write("a.fbin", &bin(2, 2, values.as_flattened()))).unwrap();
    assert_eq!((rows(&matrix), matrix.is_mapped()), (vec![vec![1.5, 2.0], vec![-3.0, 4.0]], true));
    let matrix = read_matrix(case.write("a.u8bin", &bin(1, 3, &[1, 2, 255]))).unwrap();
    assert_eq!(rows(&matrix), [[1.0, 2.0, 255.0]]);
    let matrix = read_matrix(case.write("a.i8bin", &bin(1, 3, &[1, 2, 255]))).unwrap();
    assert_eq!(rows(&matrix), [[1.0, 2.0, -1.0]]);
    assert_eq!(read_matrix(case.write("b.fbin", &bin(0, 7, &[]))).unwrap().dim(), 7);
    says(read_matrix(case.write("c.fbin", &bin(1, 0, &[]))), &["(1, 0)"]);
    says(read_matrix(case.write("d.u8bin", &bin(1, 1, &[1, 2]))), &["longer than its header", "9 bytes wanted, 10"]);
}

#[test]
fn bin_files_with_headers_of_u64_and_of_more_rows_than_there_are() {
    let case = Case::new();
    let values = [1.5f32, 2.0, -3.0, 4.0].map(f32::to_le_bytes);
    let narrow = |n: u32, dim: u32| [n.to_le_bytes(), dim.to_le_bytes()].concat();
    let wide = |n: u64, dim: u64| [n.to_le_bytes(), dim.to_le_bytes()].concat();
    let read = |name: &str, head: &[u8]| read_matrix(case.write(name, &[head, values.as_flattened()].concat()));
    let expected = vec![vec![1.5, 2.0], vec![-3.0, 4.0]];
    for (name, head, note) in [
        ("a.fbin", wide(2, 2), None),
        ("b.fbin", narrow(1_000_000_000, 2), Some("its header says 1000000000 rows, the file ends after 2")),
        ("c.fbin", wide(1 << 40, 2), Some("its header says 1099511627776 rows, the file ends after 2")),
        // As big-ann-benchmarks calls the first rows of a file, with the header of the whole.
        ("base.1B.fbin.crop_nb_2", narrow(1_000_000_000, 2), None),
        ("base.1B.FBIN.crop_nb_2", wide(1_000_000_000, 2), None),
        ("d.fbin.crop_nb_2", narrow(2, 2), None),
    ] {
        let matrix = read(name, &head).unwrap();
        assert_eq!((rows(&matrix), matrix.is_mapped()), (expected.clone(), true), "{name}");
        assert_eq!(matrix.note().is_some(), note.is_some(), "{name}");
        assert!(note.is_none_or(|note| matrix.note().unwrap().contains(note)), "{name}: {:?}", matrix.note());
    }
    // Not at the end of a row, or too much: no slice.
    says(read("a.fbin", &narrow(9, 3)), &["truncated", "116 bytes wanted, 24 found"]);
    says(read("b.fbin.crop_nb_1", &narrow(1, 2)), &["longer than its header"]);
    says(read("c.fbin", &wide(2, 0)), &["(2, 0)"]);
    let eight = case.write("e.u8bin.crop_nb_1", &[9, 0, 0, 0, 2, 0, 0, 0, 7, 8]);
    assert_eq!(rows(&read_matrix(eight).unwrap()), [[7.0, 8.0]]);
}

#[cfg(target_os = "linux")]
#[test]
fn pipes_are_read_into_memory() {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    for (name, ids) in [("f4.npy", false), ("i8.npy", true)] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let bytes = fs::read(fixture(name)).unwrap();
        // They fit the pipe.
        writer.write_all(&bytes).unwrap();
        drop(writer);
        let path = format!("/dev/fd/{}", reader.as_raw_fd());
        if ids {
            assert_eq!(read_ids(&path).unwrap(), read_ids(fixture(name)).unwrap());
        } else {
            let matrix = read_matrix(&path).unwrap();
            assert_eq!((rows(&matrix), matrix.is_mapped()), (expected(), false));
        }
    }
    says(read_matrix("/dev/null"), &["`/dev/null`", "it is empty, wanted a .npy file"]);
}

#[cfg(unix)]
#[test]
fn a_name_without_extension_is_that_of_its_file() {
    let case = Case::new();
    let link = case.dir.path().join("base");
    std::os::unix::fs::symlink(fixture("f4.npy"), &link).unwrap();
    assert_eq!(rows(&read_matrix(link).unwrap()), expected());
}

/// Without the guard this test would end by SIGBUS.
#[cfg(unix)]
#[test]
fn a_map_that_is_shortened_reads_as_zeros() {
    guard_maps();
    guard_maps();
    let case = Case::new();
    let path = case.write("a", &[7; 300_000]);
    // Maps come and go, and their places are used again.
    drop(Map::open(&path).unwrap());
    let mut maps: Vec<Map> = (0..21).map(|_| Map::open(&path).unwrap()).collect();
    // Beyond a map that is gone lies what is not ours.
    drop(maps.remove(0));
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100_000).unwrap();
    for map in &maps[3..] {
        let bytes = map.bytes();
        assert!(bytes[..100_000].iter().all(|&b| b == 7));
        // The last page that is there ends with zeros, too.
        assert!(bytes[100_000..].iter().all(|&b| b == 0));
    }
    let sum = || maps[0].bytes().iter().map(|&b| u64::from(b)).sum::<u64>();
    let sums = crate::threads::map(1, 0..4, |_| sum());
    assert_eq!(sums, [700_000; 4]);
}

#[test]
fn huge_headers_cost_an_error_and_no_memory() {
    let case = Case::new();
    for shape in ["(18446744073709551615, 4)", "(4611686018427387904, 4)", "(99999999999999999999999, 1)", "(1,) * 9"] {
        let dict = format!("{{'descr': '<f8', 'fortran_order': True, 'shape': {shape}}}");
        let len = [dict.len() as u8, 0];
        let path = case.write("a.npy", &[b"\x93NUMPY\x01\x00", &len[..], dict.as_bytes(), &[0; 64]].concat());
        assert!(read_matrix(&path).is_err() && read_ids(&path).is_err() && read_filter(&path).is_err(), "{shape}");
    }
    // Nothing for each of 2^60 rows, and 2^60 components of no row.
    for shape in ["(1152921504606846976, 0)", "(0, 1152921504606846976)"] {
        let dict = format!("{{'descr': '<f8', 'fortran_order': True, 'shape': {shape}}}");
        let path = case.write("b.npy", &[b"\x93NUMPY\x01\x00", &[dict.len() as u8, 0][..], dict.as_bytes()].concat());
        says(read_matrix(&path), &[shape, "1 to 16777216"]);
        assert!(read_ids(&path).is_err() && read_filter(&path).is_err());
    }
    let path = case.write("c.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}");
    says(read_matrix(&path), &["truncated", "4294967307 bytes wanted"]);
    says(read_matrix(case.write("d.fbin", &[255; 8])), &["(4294967295, 4294967295)"]);
    says(read_matrix(case.write("e.fbin", &[255, 255, 255, 255, 4, 0, 0, 0])), &["68719476728 bytes wanted, 8 found"]);
}

#[test]
fn truncated_anywhere() {
    let case = Case::new();
    let f = |v: f32| v.to_le_bytes();
    let fvecs = vecs(&[&[f(1.0), f(2.0)], &[f(3.0), f(4.0)]]);
    let npy = |name: &str| fs::read(fixture(name)).unwrap();
    for (name, good) in [
        ("a.npy", npy("f4.npy")),
        ("b.npy", npy("f8_fortran.npy")),
        ("c.npy", npy("i8.npy")),
        ("d.npy", npy("f4_v2.npy")),
        ("a.fvecs", fvecs.clone()),
        ("a.ivecs", fvecs.clone()),
        ("a.bvecs", vec![2, 0, 0, 0, 8, 9, 2, 0, 0, 0, 8, 9]),
        ("a.fbin", [&[2, 0, 0, 0, 1, 0, 0, 0][..], &fvecs[4..12]].concat()),
        ("a.i8bin", vec![2, 0, 0, 0, 1, 0, 0, 0, 4, 5]),
        ("a.u8bin", vec![1, 0, 0, 0, 2, 0, 0, 0, 4, 5]),
    ] {
        assert!(read_matrix(case.write(name, &good)).is_ok(), "{name}");
        // A vecs file that ends with a row is a whole file of fewer rows, and a bin file is read so with a note.
        let whole_row = match name {
            "a.fbin" => 12,
            "a.i8bin" => 9,
            _ if name.ends_with("vecs") => good.len() / 2,
            _ => usize::MAX,
        };
        for end in (0..good.len()).filter(|&end| end != whole_row) {
            says(read_matrix(case.write(name, &good[..end])), &[name, if end == 0 { "" } else { "truncated" }]);
        }
        if !name.ends_with("vecs") {
            says(read_matrix(case.write(name, &[&good[..], &[0]].concat())), &["longer than its header says"]);
        }
    }
    for name in ["b1_2d.npy", "i8_1d.npy"] {
        let good = npy(name);
        for end in 0..good.len() {
            assert!(read_filter(case.write(name, &good[..end])).is_err(), "{name} cut to {end} bytes");
        }
    }
}

#[test]
fn ids_and_filters() {
    let all: Vec<i64> = (0..3).flat_map(|r| (0..4).map(move |c| 10 * r + c)).collect();
    for name in ["i4", "i8", "u4", "u8", "i4_big", "i8_big", "i8_fortran"] {
        let ids = read_ids(fixture(&format!("{name}.npy"))).unwrap();
        assert_eq!(ids, IdMatrix { ids: all.clone(), shape: vec![3, 4] }, "{name}");
    }
    let ids = IdMatrix { ids: vec![-1, 2, 1 << 40], shape: vec![3] };
    assert_eq!(read_ids(fixture("i8_1d.npy")).unwrap(), ids);
    assert_eq!(read_filter(fixture("i8_1d.npy")).unwrap(), FilterFile::Ids(ids.ids));
    assert_eq!(read_filter(fixture("i8_no_ids.npy")).unwrap(), FilterFile::Ids(vec![]));
    says(read_filter(fixture("i8.npy")), &["(3, 4)", "ids in one dimension"]);
    let mask = FilterFile::Mask { rows: 1, per_query: false, n: 3, bits: vec![true, false, true] };
    assert_eq!(read_filter(fixture("b1.npy")).unwrap(), mask);
    let bits = vec![true, false, false, false, true, true];
    for name in ["b1_2d.npy", "b1_2d_fortran.npy"] {
        let mask = FilterFile::Mask { rows: 2, per_query: true, n: 3, bits: bits.clone() };
        assert_eq!(read_filter(fixture(name)).unwrap(), mask);
    }
    let case = Case::new();
    let mut bytes = fs::read(fixture("b1.npy")).unwrap();
    *bytes.last_mut().unwrap() = 2;
    says(read_filter(case.write("a.npy", &bytes)), &["row 0, column 2", "is 2", "0 or 1"]);
}

#[test]
fn files_that_are_not_there_or_not_theirs() {
    let case = Case::new();
    says(read_matrix(case.dir.path().join("none.npy")), &["cannot read `", "none.npy`: No such file"]);
    says(read_matrix(case.write("a.csv", b"1,2")), &["extension `.csv`", ".npy, .npz:array, .fvecs"]);
    says(read_matrix(case.write("plain", b"")), &["no extension"]);
    says(read_ids(case.write("a.fvecs", b"")), &["`.fvecs`", ".npy, .npz:array or .ivecs"]);
    says(read_filter(case.write("a.ivecs", b"")), &["`.ivecs`"]);
    says(read_matrix(case.write("a.npy", b"PK\x03\x04 rest")), &["is not a .npy file", "PK\\x03\\x04 r"]);
    fs::create_dir(case.dir.path().join("b.npy")).unwrap();
    says(read_matrix(case.dir.path().join("b.npy")), &["directory"]);
    fs::create_dir(case.dir.path().join("b.npz")).unwrap();
    says(read_matrix(case.dir.path().join("b.npz")), &["directory"]);
}

#[test]
fn matrices_of_the_caller() {
    let matrix = Matrix::from_vec(vec![f16::ONE; 6], 3).unwrap();
    assert_eq!((matrix.rows(), matrix.dim(), matrix.is_mapped()), (2, 3, false));
    assert_eq!(matrix.clone().into_bits().unwrap_err().found, DType::F16);
    assert!(Matrix::from_vec(vec![0u8; 5], 3).is_err() && Matrix::from_vec(Vec::<f32>::new(), 0).is_err());
    let bits = Matrix::from_vec(vec![0b101u8, 0, 255, 1], 2).unwrap().into_bits().unwrap();
    assert_eq!((bits.dtype(), bits.rows(), bits.dim()), (DType::Bits, 2, 16));
    assert!(matches!(bits.view(), RowsView::Bits(_)));
    assert_eq!(rows(&bits)[0][..4], [1.0, 0.0, 1.0, 0.0]);
    // Also where the rows have a stride.
    let case = Case::new();
    let matrix = read_matrix(case.write("a.bvecs", &[1, 0, 0, 0, 5, 1, 0, 0, 0, 6])).unwrap();
    assert_eq!(rows(&matrix.into_bits().unwrap())[1], [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}

const NAMES: [&str; 9] = ["a.npy", "a.npz", "a.npz:m", "a.fvecs", "a.bvecs", "a.ivecs", "a.fbin", "a.u8bin", "a.i8bin"];

/// Reads `bytes` as everything; whatever loads must be readable to its last byte.
fn read_as_everything(case: &Case, bytes: &[u8]) {
    for name in NAMES {
        case.write(name.trim_end_matches(":m"), bytes);
        let path = case.dir.path().join(name);
        if let Ok(matrix) = read_matrix(&path) {
            assert!(matrix.rows() * matrix.dim() <= bytes.len() * 1032);
            rows(&matrix);
        }
        if let Ok(found) = read_ids(&path) {
            assert_eq!(found.shape.iter().product::<usize>(), found.ids.len());
        }
        if let Ok(FilterFile::Mask { rows, n, bits, .. }) = read_filter(&path) {
            assert_eq!(rows * n, bits.len());
        }
    }
    if let Ok(file) = NfFile::open(case.write("a.nf", bytes)) {
        assert!(file.sections().iter().all(|s| file.section(&s.name).is_ok()));
    }
}

/// Beginnings that lead a reader past its first check.
const MAGICS: &[&[u8]] = &[
    b"",
    b"\x93NUMPY\x01\x00",
    b"\x93NUMPY\x02\x00",
    b"\x93NUMPY\x01\x00\x40\x00{'descr': ",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"NEARFLD\0\x01\0\0\0",
    b"\x02\0\0\0",
    b"\x01\0\0\0\x03\0\0\0",
];
const DAMAGED: &[&str] = &["f4.npy", "f8_fortran.npy", "b1_2d.npy", "i8_1d.npy", "deflated.npz", "one.npz"];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn random_bytes_never_panic(
        magic in prop::sample::select(MAGICS),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        read_as_everything(&Case::new(), &[magic, &bytes].concat());
    }

    #[test]
    fn damaged_files_never_panic(
        name in prop::sample::select(DAMAGED),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = fs::read(fixture(name)).unwrap();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_as_everything(&Case::new(), &bytes);
    }

    #[test]
    fn headers_read_back(descr in "[<>|=][a-z][0-9]{1,2}", fortran: bool, shape in prop::collection::vec(any::<u64>(), 0..5)) {
        let flag = if fortran { "True" } else { "False" };
        let text = format!("{{'descr': '{descr}', 'fortran_order': {flag}, 'shape': {}, }}  \n", npy::python_shape(&shape));
        prop_assert_eq!(npy::parse_dict(text.as_bytes()), Ok(npy::Dict { descr, fortran, shape }));
    }
}

#[test]
fn headers_are_read_strictly() {
    let full = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}";
    assert!(npy::parse_dict(full.as_bytes()).is_ok());
    for end in 0..full.len() {
        assert!(npy::parse_dict(&full.as_bytes()[..end]).is_err());
    }
    for (from, to) in [
        ("(1,)", "(1)"),
        ("(1,)", "(-1,)"),
        ("(1,)", "(1, 2"),
        ("(1,)", "(1 2)"),
        ("(1,)", "1"),
        ("(1,)", "(True,)"),
        ("False", "0"),
        ("False", "Falsey"),
        ("'<f4'", "<f4"),
        ("'<f4'", "'<f4\""),
        ("'<f4'", "'\\<f4'"),
        ("'<f4'", "[('a', '<f4')"),
        ("'shape'", "'descr': '<f4', 'shape'"),
        ("'shape'", "'shapes'"),
        ("'shape': (1,)", ""),
        ("}", "} x"),
        ("}", "}}"),
        (",", ",,"),
    ] {
        let bad = full.replacen(from, to, 1);
        assert!(npy::parse_dict(bad.as_bytes()).is_err(), "{bad}");
    }
}
