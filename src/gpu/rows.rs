//! From the caller's rows to the layout of the device: rows of whole 16-byte units, the tail filled with zeros.

use std::borrow::Cow;

use super::sync::{in_threads, share};
use crate::types::{DType, RowsView};

/// Bytes of a row on the device.
pub(super) fn row_bytes(dtype: DType, dim: usize) -> u64 {
    dtype.row_bytes(dim).next_multiple_of(16) as u64
}

/// Bytes of a query on the device: f32, or bits over a base of bits.
pub(super) fn query_bytes(dtype: DType, dim: usize) -> u64 {
    row_bytes(if dtype == DType::Bits { DType::Bits } else { DType::F32 }, dim)
}

/// Rows `start..end` in the layout of the device. Borrowed where the caller's layout is the same.
pub(super) fn pack<'a>(rows: &RowsView<'a>, start: usize, end: usize) -> Cow<'a, [u8]> {
    let stride = row_bytes(rows.dtype(), rows.dim()) as usize;
    let slice = rows.slice(start, end);
    let all: &'a [u8] = crate::with_rows!(slice, m => bytemuck::cast_slice(m.as_slice()));
    if all.len() == (end - start) * stride {
        return Cow::Borrowed(all);
    }
    let mut packed = vec![0u8; (end - start) * stride];
    let share = share(end - start, stride / 16);
    in_threads(packed.chunks_mut(share * stride).enumerate(), |(part, rows)| {
        for (i, target) in rows.chunks_mut(stride).enumerate() {
            let row = slice.row_bytes(part * share + i);
            if let Some(target) = target.get_mut(..row.len()) {
                target.copy_from_slice(row);
            }
        }
    });
    Cow::Owned(packed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::MatrixView;

    #[test]
    fn rows_are_padded_with_zeros_and_gaps_left_out() {
        let data: Vec<u8> = (1..=30).collect();
        let view = RowsView::U8(MatrixView::with_stride(&data, 3, 7, 10).unwrap());
        let packed = pack(&view, 1, 3);
        assert_eq!(packed.len(), 32);
        assert_eq!(&packed[..16], &[11, 12, 13, 14, 15, 16, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&packed[16..24], &[21, 22, 23, 24, 25, 26, 27, 0]);
    }

    #[test]
    fn dense_rows_of_whole_units_are_not_copied() {
        let data = [0.5f32; 24];
        let view = RowsView::F32(MatrixView::new(&data, 8).unwrap());
        assert!(matches!(pack(&view, 0, 3), Cow::Borrowed(bytes) if bytes.len() == 96));
        assert!(matches!(pack(&view, 1, 1), Cow::Borrowed(&[])));
    }
}
