//! `.npy` output, byte for byte what `numpy.save` writes.

use std::io::Write;
use std::path::Path;

use super::npy::{MAGIC, python_shape};
use super::{AtomicFile, SaveError};

/// Writes `data` as float32 of `shape`, replacing the file at once.
///
/// # Errors
/// [`SaveError::Shape`] when the shape does not hold `data`, else those of [`AtomicFile`].
pub fn write_npy_f32(path: impl AsRef<Path>, data: &[f32], shape: &[usize]) -> Result<(), SaveError> {
    stage_npy_f32(path, data, shape)?.commit()
}

/// Writes `data` as int64 of `shape`, replacing the file at once.
///
/// # Errors
/// Those of [`write_npy_f32`].
pub fn write_npy_i64(path: impl AsRef<Path>, data: &[i64], shape: &[usize]) -> Result<(), SaveError> {
    stage_npy_i64(path, data, shape)?.commit()
}

/// As [`write_npy_f32`], up to the last moment: the file appears with [`AtomicFile::commit`], so that several files
/// can appear together or not at all.
///
/// # Errors
/// Those of [`write_npy_f32`].
pub fn stage_npy_f32(path: impl AsRef<Path>, data: &[f32], shape: &[usize]) -> Result<AtomicFile, SaveError> {
    stage(path.as_ref(), "<f4", bytemuck::cast_slice(data), data.len(), shape)
}

/// As [`stage_npy_f32`], of int64.
///
/// # Errors
/// Those of [`write_npy_f32`].
pub fn stage_npy_i64(path: impl AsRef<Path>, data: &[i64], shape: &[usize]) -> Result<AtomicFile, SaveError> {
    stage(path.as_ref(), "<i8", bytemuck::cast_slice(data), data.len(), shape)
}

fn stage(path: &Path, descr: &str, bytes: &[u8], len: usize, shape: &[usize]) -> Result<AtomicFile, SaveError> {
    let header = header(descr, shape);
    let product = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    // Version 1.0 counts the header in a u16; 64 dimensions, numpy's own limit, stay far below.
    let (Some(header_len), true) = (u16::try_from(header.len()).ok(), product == Some(len)) else {
        return Err(SaveError::Shape { path: path.to_owned(), shape: shape.to_owned(), len });
    };
    let mut file = AtomicFile::create(path)?;
    let parts: [&[u8]; 5] = [MAGIC, &[1, 0], &header_len.to_le_bytes(), header.as_bytes(), bytes];
    for part in parts {
        file.write_all(part).map_err(|e| SaveError::io(path, e))?;
    }
    Ok(file)
}

/// The dict, with the room that numpy leaves for the first length to grow to 21 digits, then spaces
/// up to a multiple of 64 bytes from the start of the file.
fn header(descr: &str, shape: &[usize]) -> String {
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {}, }}", python_shape(shape));
    let room = shape.first().map_or(0, |first| 21usize.saturating_sub(first.to_string().len()));
    // 10 bytes stand before the text and a newline after it; numpy pads a full block where none is needed.
    let padding = 64 - (10 + text.len() + room + 1) % 64;
    text.extend(std::iter::repeat_n(' ', room + padding));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::fixture;
    use super::super::{read_ids, read_matrix};
    use super::*;

    #[test]
    fn bytes_are_those_of_numpy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let same = |name: &str| assert_eq!(fs::read(&path).unwrap(), fs::read(fixture(name)).unwrap(), "{name}");
        let rows: Vec<f32> = (0..3).flat_map(|r| (0..4).map(move |c| (10 * r + c) as f32)).collect();
        write_npy_f32(&path, &rows, &[3, 4]).unwrap();
        same("write_f4.npy");
        write_npy_i64(&path, &[0, 1, 2, 3, 4], &[5]).unwrap();
        same("write_i8.npy");
        write_npy_i64(&path, &[7], &[]).unwrap();
        same("write_i8_0d.npy");
        // A header that fills a block gets another.
        write_npy_f32(&path, &[], &[0, 10, 10, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]).unwrap();
        same("write_f4_deep.npy");
    }

    #[test]
    fn what_was_written_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        write_npy_f32(&path, &[1.0, f32::NAN], &[2, 1]).unwrap();
        let matrix = read_matrix(&path).unwrap();
        assert_eq!((matrix.rows(), matrix.dim()), (2, 1));
        write_npy_i64(&path, &[-1, i64::MAX], &[1, 2]).unwrap();
        assert_eq!(read_ids(&path).unwrap().ids, [-1, i64::MAX]);
    }

    #[test]
    fn a_shape_that_does_not_fit_leaves_the_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        fs::write(&path, "old").unwrap();
        for shape in [&[2, 2][..], &[], &[usize::MAX, 4]] {
            let error = write_npy_f32(&path, &[1.0; 3], shape).unwrap_err().to_string();
            assert!(error.contains("does not hold 3 elements"), "{error}");
        }
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
