//! Why a codec or a transform could not be trained.

use crate::compute::EngineError;
use crate::linalg::LONGEST;
use crate::types::MatrixView;

/// Why a codec or a transform could not be trained: the token of the spec, the value found and one that would fit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// Parts that do not divide the components.
    #[error("`{token}`: {dim} components can't be split into {parts} equal parts; {fits}")]
    Parts {
        /// The part of the spec.
        token: String,
        /// Components of a vector.
        dim: usize,
        /// Parts wanted.
        parts: usize,
        /// The nearest numbers of parts that fit.
        fits: String,
    },
    /// A number of bits that the codec does not have.
    #[error("`{token}`: codes of {bits} bits; there are {fits}")]
    Bits {
        /// The part of the spec.
        token: String,
        /// Bits wanted.
        bits: u8,
        /// The bits that there are.
        fits: &'static str,
    },
    /// More components wanted than there are, or fewer than there are for `Pad`.
    #[error("`{token}` on vectors of {dim} components; it takes {fits}")]
    Dim {
        /// The part of the spec.
        token: String,
        /// Components of a vector there.
        dim: usize,
        /// What would fit.
        fits: String,
    },
    /// Too few rows to train on.
    #[error("`{token}`: {rows} training rows, at least {wanted} are needed")]
    TooFewRows {
        /// The part of the spec.
        token: String,
        /// Rows given.
        rows: usize,
        /// Rows needed.
        wanted: usize,
    },
    /// NaN, an infinity, or components too large to be trained on.
    #[error("`{token}`: training row {row}, component {component} is {value}; wanted finite numbers below 2^60")]
    NotFinite {
        /// The part of the spec.
        token: String,
        /// The row of the sample.
        row: usize,
        /// The component.
        component: usize,
        /// What was found.
        value: f32,
    },
    /// A decomposition did not converge.
    #[error("`{token}`: the decomposition of the training rows' moments did not converge")]
    Decomposition {
        /// The part of the spec.
        token: String,
    },
    /// The engine that multiplies failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl CodecError {
    /// The error for parts that do not divide the components, with the nearest counts that do.
    pub(crate) fn parts(token: String, dim: usize, parts: usize) -> CodecError {
        let fit = |m: &usize| *m > 0 && dim.is_multiple_of(*m);
        let below = (1..parts.min(dim + 1)).rev().find(fit);
        let above = (parts.saturating_add(1)..=dim).find(fit);
        let fits = match (below, above) {
            (Some(a), Some(b)) => format!("{a} or {b} would fit"),
            (Some(a), None) | (None, Some(a)) => format!("{a} would fit"),
            (None, None) => "1 would fit".to_owned(),
        };
        CodecError::Parts { token, dim, parts, fits }
    }
}

/// Whether a sample can be trained on.
pub(super) fn finite(sample: MatrixView<'_, f32>, token: impl Fn() -> String) -> Result<(), CodecError> {
    for row in 0..sample.rows() {
        let x = sample.row(row);
        if let Some(component) = x.iter().position(|x| x.is_nan() || x.abs() >= LONGEST) {
            return Err(CodecError::NotFinite { token: token(), row, component, value: x[component] });
        }
    }
    Ok(())
}

/// Whether there are enough rows.
pub(super) fn enough(rows: usize, wanted: usize, token: impl Fn() -> String) -> Result<(), CodecError> {
    if rows < wanted { Err(CodecError::TooFewRows { token: token(), rows, wanted }) } else { Ok(()) }
}
