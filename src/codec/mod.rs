//! Codes: smaller forms of rows, trained on the rows themselves.

pub(crate) mod int8;
mod subspace;
