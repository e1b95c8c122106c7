//! How vectors become codes: learnt from rows, composed with any structure.
//!
//! A [`Codec`] turns the vectors of inverted lists into packed codes (`kernels::lists` says what they hold) and queries
//! into what scans multiply them with. A `Transform` is what happens to vectors before.

pub(crate) mod int8;
pub(crate) mod spec;
mod subspace;

use std::fmt::Debug;

use crate::kernels::lists::{Encoded, Form, Prepared};
use crate::types::{MatrixView, Metric};

/// A trained code of the vectors of lists.
///
/// Vectors are those after all transforms, in f32; for cosine of length 1, so that its keys are those of inner product.
/// With r = x - c of a row x in the list of centroid c, and r' what the code keeps of r, the parts of the key of
/// `kernels::lists` are: for l2 `add` = |r'|^2 + 2 <c, r'> and a query's part -2 <q, r'>; for inner product and cosine
/// `add` = 0 and -<q, r'>. Forms that are exact ([`Form::Rows`], [`Form::Bits`]) keep x itself.
pub(crate) trait Codec: Debug + Send + Sync {
    /// What its codes consist of.
    fn form(&self) -> Form;

    /// Components of a vector.
    fn dim(&self) -> usize;

    /// Parts of a code: components, or numbers of tables.
    fn parts(&self) -> usize;

    /// Encodes rows `[n, dim]`, of which row i belongs to the centroid `lists[i]` of `centroids` (`[lists, dim]`).
    fn encode(&self, metric: Metric, rows: MatrixView<'_, f32>, lists: &[u32], centroids: &[f32]) -> Encoded;

    /// The vector r' that a code and the row's scale (1 where there is none) stand for, without the centroid.
    fn decode(&self, code: &[u8], scale: f32, vector: &mut [f32]);

    /// Queries `[q, dim]` as scans take them.
    fn queries(&self, metric: Metric, queries: MatrixView<'_, f32>) -> Prepared;

    /// What `terms.scale * S + terms.shift` stands for, without the rounding of the query: the row's part of the key
    /// less its `add`, before the row's scale is multiplied in. 0 for exact forms.
    fn product(&self, metric: Metric, query: &[f32], code: &[u8]) -> f32;

    /// What it has learnt, to be read again.
    fn write(&self) -> Vec<u8>;
}
