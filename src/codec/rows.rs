//! Codes that are the vectors themselves: f32, f16, bf16 and packed bits.

use half::{bf16, f16};

use super::bytes::Reader;
use super::{Codec, KIND_BITS, KIND_ROWS, Unrounded};
use crate::ops::lists::{Encoded, Form, Outside, Prepared, floats};
use crate::threads;
use crate::types::{DType, MatrixView, Metric};

/// Vectors as they are, without their centroid taken off.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RowsCodec {
    dim: usize,
    dtype: DType,
}

impl RowsCodec {
    /// Rows of f32, f16 or bf16.
    pub fn new(dim: usize, dtype: DType) -> RowsCodec {
        RowsCodec { dim, dtype }
    }

    pub(super) fn read(dim: usize, reader: &mut Reader<'_>) -> Result<RowsCodec, String> {
        let dtype = match reader.u8()? {
            0 => DType::F32,
            1 => DType::F16,
            2 => DType::Bf16,
            other => return Err(format!("rows of the unknown element type {other}")),
        };
        Ok(RowsCodec { dim, dtype })
    }
}

impl Codec for RowsCodec {
    fn form(&self) -> Form {
        Form::Rows(self.dtype)
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn parts(&self) -> usize {
        self.dim
    }

    fn encode(&self, _metric: Metric, rows: MatrixView<'_, f32>, _lists: &[u32], _centroids: &[f32]) -> Encoded {
        let bytes = self.dtype.row_bytes(self.dim);
        let mut codes = vec![0u8; rows.rows() * bytes];
        threads::each(64, codes.chunks_mut(bytes.max(1)).enumerate(), |(i, code)| {
            let row = rows.row(i).iter();
            match self.dtype {
                DType::F16 => code
                    .chunks_exact_mut(2)
                    .zip(row)
                    .for_each(|(o, &x)| o.copy_from_slice(&f16::from_f32(x).to_le_bytes())),
                DType::Bf16 => code
                    .chunks_exact_mut(2)
                    .zip(row)
                    .for_each(|(o, &x)| o.copy_from_slice(&bf16::from_f32(x).to_le_bytes())),
                _ => code.chunks_exact_mut(4).zip(row).for_each(|(o, x)| o.copy_from_slice(&x.to_le_bytes())),
            }
        });
        let outside = if self.dtype == DType::F16 { beyond_f16(rows) } else { Vec::new() };
        Encoded { codes, outside, ..Encoded::default() }
    }

    fn decode(&self, code: &[u8], _scale: f32, vector: &mut [f32]) {
        vector.iter_mut().zip(floats(self.dtype, code)).for_each(|(o, x)| *o = x);
    }

    fn queries(&self, _metric: Metric, queries: MatrixView<'_, f32>) -> Prepared {
        let floats = (0..queries.rows()).flat_map(|q| queries.row(q)).copied().collect();
        Prepared { queries: queries.rows(), floats, ..Prepared::default() }
    }

    fn unrounded(&self, _metric: Metric, _query: &[f32]) -> Unrounded {
        Unrounded::default()
    }

    fn write(&self) -> Vec<u8> {
        let dtype = match self.dtype {
            DType::F16 => 1,
            DType::Bf16 => 2,
            _ => 0,
        };
        vec![KIND_ROWS, dtype]
    }
}

/// Rows that f16 cannot hold.
fn beyond_f16(rows: MatrixView<'_, f32>) -> Vec<Outside> {
    let found = threads::map(64, 0..rows.rows(), |row| {
        let component = rows.row(row).iter().position(|&x| f16::from_f32(x).is_infinite())?;
        Some(Outside { row, component, value: rows.row(row)[component] })
    });
    found.into_iter().flatten().collect()
}

/// One bit per component, set where it is positive; vectors of zeros and ones come back as they were.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BitsCodec {
    dim: usize,
}

impl BitsCodec {
    /// Rows of so many bits.
    pub fn new(dim: usize) -> BitsCodec {
        BitsCodec { dim }
    }
}

fn pack(row: &[f32], code: &mut [u8]) {
    code.fill(0);
    for (byte, x) in code.iter_mut().zip(row.chunks(8)) {
        *byte = x.iter().enumerate().fold(0, |b, (i, &x)| b | u8::from(x > 0.0) << i);
    }
}

impl Codec for BitsCodec {
    fn form(&self) -> Form {
        Form::Bits
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn parts(&self) -> usize {
        self.dim
    }

    fn encode(&self, _metric: Metric, rows: MatrixView<'_, f32>, _lists: &[u32], _centroids: &[f32]) -> Encoded {
        let bytes = self.dim.div_ceil(8);
        let mut codes = vec![0u8; rows.rows() * bytes];
        threads::each(64, codes.chunks_mut(bytes.max(1)).enumerate(), |(i, code)| pack(rows.row(i), code));
        Encoded { codes, ..Encoded::default() }
    }

    fn decode(&self, code: &[u8], _scale: f32, vector: &mut [f32]) {
        for (j, x) in vector.iter_mut().enumerate() {
            *x = f32::from(code[j / 8] >> (j % 8) & 1);
        }
    }

    fn queries(&self, _metric: Metric, queries: MatrixView<'_, f32>) -> Prepared {
        let words = self.form().words(self.dim);
        let mut bytes = vec![0u8; words * 4];
        let mut bits = Vec::with_capacity(queries.rows() * words);
        for q in 0..queries.rows() {
            pack(queries.row(q), &mut bytes);
            bits.extend(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
        Prepared { queries: queries.rows(), bits, ..Prepared::default() }
    }

    fn unrounded(&self, _metric: Metric, _query: &[f32]) -> Unrounded {
        Unrounded::default()
    }

    fn write(&self) -> Vec<u8> {
        vec![KIND_BITS]
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::CodecSpec;
    use super::super::testing::{clustered, round_trips, view};
    use super::*;

    #[test]
    fn row_c2_halves_come_back_within_their_precision() {
        let (n, dim) = (50, 19);
        let rows = clustered(3, n, dim);
        for (dtype, spec, error) in [
            (DType::F32, CodecSpec::Flat, 0.0),
            (DType::F16, CodecSpec::F16, f32::powi(2.0, -11)),
            (DType::Bf16, CodecSpec::Bf16, f32::powi(2.0, -8)),
        ] {
            let codec = RowsCodec::new(dim, dtype);
            let encoded = codec.encode(Metric::L2, view(&rows, dim), &vec![0; n], &vec![5.0; dim]);
            let mut back = vec![0.0; dim];
            for (row, code) in rows.chunks(dim).zip(encoded.codes.chunks(dtype.row_bytes(dim))) {
                codec.decode(code, 1.0, &mut back);
                assert!(row.iter().zip(&back).all(|(a, b)| (a - b).abs() <= error * a.abs() + 1e-7), "{dtype}");
            }
            assert_eq!(codec.queries(Metric::L2, view(&rows, dim)).floats, rows);
            round_trips(&codec, spec);
        }
        let codec = RowsCodec::new(1, DType::F16);
        let outside = codec.encode(Metric::L2, view(&[65504.0, -1e9], 1), &[0, 0], &[]).outside;
        assert_eq!(outside, [Outside { row: 1, component: 0, value: -1e9 }]);
    }

    #[test]
    fn row_c5_bits_come_back() {
        let dim = 45;
        let rows: Vec<f32> = (0..3 * dim).map(|i| f32::from(u8::from(i * i % 7 < 3))).collect();
        let codec = BitsCodec::new(dim);
        let encoded = codec.encode(Metric::Hamming, view(&rows, dim), &[0; 3], &[]);
        let queries = codec.queries(Metric::Hamming, view(&rows, dim));
        let mut back = vec![0.0; dim];
        for (q, (row, code)) in rows.chunks(dim).zip(encoded.codes.chunks(6)).enumerate() {
            codec.decode(code, 1.0, &mut back);
            assert_eq!(back, row);
            let words: &[u8] = bytemuck::cast_slice(&queries.bits[2 * q..2 * q + 2]);
            assert_eq!((&words[..6], &words[6..]), (code, &[0, 0][..]));
        }
        // A spec of packed bits says so itself; of rows of numbers, bits are no codes.
        assert!(crate::codec::read(CodecSpec::Flat, dim, &codec.write()).is_err());
    }
}
