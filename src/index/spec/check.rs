//! Whether a spec fits data, and what it takes.

use super::{CodecSpec, IndexSpec, RerankSpec, SpecError, TransformSpec};
use crate::ops::codes::MOST_DIM;
use crate::ops::lists::Form;
use crate::types::{DType, Metric};

impl IndexSpec {
    /// Whether an index of this kind can hold rows of `dim` components (bits, of packed rows) under `metric`; with
    /// `rows`, also whether so many are enough to train it.
    ///
    /// # Errors
    /// [`SpecError`] names the part that cannot fit and what would.
    pub fn check(&self, dim: usize, metric: Metric, rows: Option<usize>) -> Result<(), SpecError> {
        self.check_metric(metric)?;
        if dim > MOST_DIM && !self.is_flat() {
            return Err(self.wrong(0, format!("takes rows of at most {MOST_DIM} components; they have {dim}")));
        }
        let mut left = dim;
        for (i, transform) in self.transforms.iter().enumerate() {
            if metric == Metric::InnerProduct && *transform == TransformSpec::Centre {
                let why = "would change the order of inner products; it goes with l2 and cosine".to_owned();
                return Err(self.wrong(i, why));
            }
            fits(transform, left).map_err(|why| self.wrong(i, why))?;
            left = transform.output_dim(left);
        }
        let place = self.transforms.len();
        if self.lists == Some(0) {
            return Err(self.wrong(place, "wanted at least one list".to_owned()));
        }
        if let (Some(lists), Some(rows)) = (self.lists, rows)
            && lists > rows
        {
            return Err(self.wrong(
                place,
                format!(
                    "{lists} lists need as many rows to learn from; {rows} rows are enough for at most {rows} lists"
                ),
            ));
        }
        let place = place + usize::from(self.lists.is_some());
        if let CodecSpec::Product { parts, bits, .. } = self.codec {
            divides(parts, left).map_err(|near| {
                self.wrong(place, format!("{left} components do not split into {parts} equal parts; {near}"))
            })?;
            if let Some(rows) = rows.filter(|&rows| rows < 1 << bits) {
                let why = format!("{bits} bits per part are trained on at least {} rows, there are {rows}", 1 << bits);
                return Err(self.wrong(place, why));
            }
        }
        Ok(())
    }

    fn check_metric(&self, metric: Metric) -> Result<(), SpecError> {
        let last = self.tokens().len() - 1;
        if self.binary {
            return match metric {
                Metric::Jaccard if !self.is_flat() => {
                    Err(self.wrong(0, "lists of packed bits take hamming; for jaccard there is `BFlat`".to_owned()))
                }
                Metric::Hamming | Metric::Jaccard => Ok(()),
                _ => Err(self.wrong(last, format!("packed bits take hamming or jaccard; the metric is {metric}"))),
            };
        }
        match metric {
            Metric::L2 | Metric::InnerProduct | Metric::Cosine => Ok(()),
            _ if self.is_flat() => Ok(()),
            Metric::Hamming => {
                Err(self.wrong(0, "hamming compares packed bits; there are `Flat`, `BFlat` and `BIVF256`".to_owned()))
            }
            _ => Err(self.wrong(0, format!("takes l2, ip or cosine; for {metric} there is `Flat`"))),
        }
    }

    fn wrong(&self, place: usize, reason: String) -> SpecError {
        let tokens = self.tokens();
        let token = tokens.get(place).cloned().unwrap_or_default();
        SpecError { spec: tokens.join(","), token, place: place + 1, reason }
    }

    /// Bytes that each row of `dim` components (bits, of packed rows) takes: its code, the numbers and the position
    /// beside it, and the row that it is re-ranked from. Beside them an index keeps centroids and what codecs learn.
    pub fn bytes_per_vector(&self, dim: usize) -> usize {
        if self.is_flat() {
            let dtype = if self.binary { DType::Bits } else { DType::F32 };
            return dtype.row_bytes(dim);
        }
        self.list_bytes(dim) + self.rerank.map_or(0, |rerank| rerank.bytes(dim))
    }

    /// Bytes of a row in the lists.
    fn list_bytes(&self, dim: usize) -> usize {
        const NUMBER: usize = 4;
        let left = self.coded_dim(dim);
        let (form, parts, numbers) = match self.codec {
            _ if self.binary => (Form::Bits, left, 0),
            CodecSpec::Flat => (Form::Rows(DType::F32), left, 0),
            CodecSpec::F16 => (Form::Rows(DType::F16), left, 0),
            CodecSpec::Bf16 => (Form::Rows(DType::Bf16), left, 0),
            CodecSpec::Scalar { bits } => (Form::Integers(bits), left, 1),
            CodecSpec::Product { parts, bits, .. } => (Form::Parts(bits), parts, 1),
            CodecSpec::RaBitQ { bits } => (Form::Integers(bits), left, 2),
        };
        let position = NUMBER;
        form.words(parts) * 4 + numbers * NUMBER + position
    }
}

impl RerankSpec {
    /// Bytes of a row that is re-ranked.
    pub(super) fn bytes(self, dim: usize) -> usize {
        match self {
            // Beside a row its length, beside a code its position.
            RerankSpec::Flat => 4 * dim + 4,
            RerankSpec::F16 => 2 * dim + 4,
            RerankSpec::Scalar8 => dim.next_multiple_of(4) + 4,
        }
    }
}

/// Whether a transform takes vectors of `dim` components.
fn fits(transform: &TransformSpec, dim: usize) -> Result<(), String> {
    match *transform {
        TransformSpec::Pad { dim: wanted } if wanted < dim => {
            Err(format!("vectors have {dim} components already; `Pad{dim}` or more, or `Slice{wanted}`"))
        }
        TransformSpec::Pad { dim: wanted } if wanted > MOST_DIM => Err(format!("at most {MOST_DIM} components")),
        TransformSpec::Pad { .. } => Ok(()),
        TransformSpec::Opq { parts, .. } => {
            let left = transform.output_dim(dim);
            keeps(left, dim)?;
            divides(parts, left)
                .map_err(|near| format!("{left} components do not split into {parts} equal parts; {near}"))
        }
        _ => keeps(transform.output_dim(dim), dim),
    }
}

fn keeps(left: usize, dim: usize) -> Result<(), String> {
    if left > dim {
        return Err(format!("vectors have {dim} components, of which {left} can't be kept; at most {dim}"));
    }
    if left == 0 { Err("wanted at least one component".to_owned()) } else { Ok(()) }
}

/// Whether vectors split into so many parts; the error names the nearest numbers that do.
fn divides(parts: usize, dim: usize) -> Result<(), String> {
    if parts > 0 && dim > 0 && dim.is_multiple_of(parts) {
        return Ok(());
    }
    let below = (1..parts.min(dim + 1)).rev().find(|m| dim.is_multiple_of(*m));
    let above = (parts + 1..=dim).find(|m| dim.is_multiple_of(*m));
    let near: Vec<String> = [below, above].into_iter().flatten().map(|m| m.to_string()).collect();
    Err(format!("{} would do", near.join(" or ")))
}
