//! Values: what programs work on and give. A value has a type (what it is, its shape) and a place.
//!
//! - **Host**: a view of the caller's memory, for one run.
//! - **Cached**: host memory is the truth, and a [`Tag`] names it; a device keeps a copy within its budget and may drop it.
//! - **Device**: an [`Array`]. It lies on the device only and is lost with it.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::codes::{Codes, QueryCodes};
use super::error::{EngineError, room};
use super::lists::{Form, Lists, Prepared, Probes};
use super::program::Frame;
use crate::stats::SearchStats;
use crate::types::{DType, RowsView};

/// Names host memory, so that a device may keep a copy of it.
///
/// What was there stays what it is while `epoch` does not change; more may be appended without a new epoch. A device holds
/// the tag weakly: when its owner is dropped, so is the copy.
#[derive(Clone, Debug)]
pub struct Tag {
    id: Arc<u64>,
    epoch: u64,
}

impl Tag {
    /// A tag that nothing else has.
    pub fn new() -> Tag {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Tag { id: Arc::new(NEXT.fetch_add(1, Ordering::Relaxed)), epoch: 0 }
    }

    /// Says that something already known has changed.
    pub fn bump(&mut self) {
        self.epoch += 1;
    }

    /// What a device keys its copy by: alive as long as the owner is.
    pub fn id(&self) -> &Arc<u64> {
        &self.id
    }

    /// Whether a copy that a device keys by `id` is this tag's, in whatever state.
    pub fn owns(&self, id: &Weak<u64>) -> bool {
        std::ptr::eq(id.as_ptr(), Arc::as_ptr(&self.id))
    }

    /// Which state this is.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Default for Tag {
    fn default() -> Tag {
        Tag::new()
    }
}

/// Vectors and what is known of them: rows of a base, or queries.
#[derive(Clone, Copy, Debug)]
pub struct Vectors<'a> {
    /// `[rows, dim]`.
    pub rows: RowsView<'a>,
    /// Euclidean length of each, computed in f64 and rounded to f32. Cosine and every screen need it.
    pub norms: Option<&'a [f32]>,
    /// A name, when the vectors will be used again; without one nothing is kept.
    pub tag: Option<&'a Tag>,
}

/// Bits that say which rows may be returned: row r of query q is allowed when bit r % 32 of
/// `words[q * stride + r / 32]` is set.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'a> {
    /// The bits of all queries, or of one that stands for all.
    pub words: &'a [u32],
    /// Words from query to query; 0 when all queries share one bitmap.
    pub stride: usize,
    /// A name, when the bits will be used again; without one nothing is kept.
    pub tag: Option<&'a Tag>,
}

impl Mask<'_> {
    /// Whether row `row` may be returned for query `query`.
    #[inline]
    pub fn allows(&self, query: usize, row: usize) -> bool {
        self.words[query * self.stride + row / 32] >> (row % 32) & 1 == 1
    }
}

/// What is known of the nearest row of each query before an assignment; no answer depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// A row that may well be the nearest of each query, `u32::MAX` where there is none.
    pub positions: &'a [u32],
    /// What the direct keys of each block of rows are at least, as far as that is known; -inf where it isn't: for each
    /// group of queries `[blocks, queries]` (the sizes are those of `ops::assign`). Empty when the answer's own bounds are
    /// not wanted either. A backend that keeps bounds gives as many in [`Candidates::bound`].
    pub bounds: &'a [f32],
}

/// A matrix of f32 that lies on a device and stays there: a result that feeds the next program.
///
/// Clones share the memory. It is lost with its device; a program over it then fails with [`EngineError::Lost`].
#[derive(Clone)]
pub struct Array {
    /// Which backend holds it: that of [`Backend::identity`](super::Backend::identity).
    holder: Arc<str>,
    shape: [usize; 2],
    data: Arc<dyn Any + Send + Sync>,
}

impl Array {
    /// For backends: a matrix of this shape that `holder` keeps as `data`.
    pub fn new(holder: &str, shape: [usize; 2], data: Arc<dyn Any + Send + Sync>) -> Array {
        Array { holder: holder.into(), shape, data }
    }

    /// For backends: what is held, borrowed.
    ///
    /// # Errors
    /// As [`Array::on`].
    pub fn view<T: Any + Send + Sync>(&self, holder: &str) -> Result<&T, EngineError> {
        let lost =
            || EngineError::Lost(format!("an array of {:?} lies on {}, not on {holder}", self.shape, self.holder));
        if *self.holder != *holder {
            return Err(lost());
        }
        self.data.downcast_ref().ok_or_else(lost)
    }

    /// For backends: what is held, if this one holds it.
    ///
    /// # Errors
    /// [`EngineError::Lost`] when it lies on another device, or on this one before it was opened again.
    pub fn on<T: Any + Send + Sync>(&self, holder: &str) -> Result<Arc<T>, EngineError> {
        let lost =
            || EngineError::Lost(format!("an array of {:?} lies on {}, not on {holder}", self.shape, self.holder));
        if *self.holder != *holder {
            return Err(lost());
        }
        self.data.clone().downcast().map_err(|_| lost())
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rows, columns] = self.shape;
        write!(f, "Array([{rows}, {columns}] on {})", self.holder)
    }
}

/// An input of a program that the caller computes on the host, wherever the program runs: a transform, a training step's
/// encoding. It gets the values of its operands, and notes what it did.
pub type Function<'a> =
    dyn Fn(&Frame<'_>, &[Value], &mut SearchStats) -> Result<Output, EngineError> + Send + Sync + 'a;

/// What a program is given.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// Rows or queries.
    Vectors(Vectors<'a>),
    /// Which rows may be returned.
    Mask(Mask<'a>),
    /// `[queries, width]` row positions, `u32::MAX` where there is none: candidates without keys.
    Positions {
        /// The positions.
        positions: &'a [u32],
        /// Places per query.
        width: usize,
    },
    /// An f32 matrix.
    Matrix {
        /// Row by row.
        values: &'a [f32],
        /// Rows and columns.
        shape: [usize; 2],
    },
    /// An f32 matrix on the device.
    Array(&'a Array),
    /// Codes of rows and their name, by which a device may keep a copy of them beside or instead of the rows.
    Codes(&'a Codes, &'a Tag),
    /// Queries in such a code.
    QueryCodes(&'a QueryCodes),
    /// Inverted lists and their name.
    Lists(&'a Lists, &'a Tag),
    /// Queries as lists take them.
    Prepared(&'a Prepared),
    /// Which lists are scanned for which query.
    Probes(Probes<'a>),
    /// What is known before an assignment.
    Known(Known<'a>),
    /// What a host operation computes.
    Function(&'a Function<'a>),
}

/// Number of a value in its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub(super) u32);

impl Value {
    /// Its place in the program: inputs and results in one sequence.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// What a value is, and its shape.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Type {
    /// Rows or queries.
    Vectors {
        /// Element type.
        dtype: DType,
        /// How many.
        rows: usize,
        /// Components per row (bits for packed rows).
        dim: usize,
        /// Whether their lengths are known.
        norms: bool,
        /// Whether a device may keep a copy.
        cached: bool,
    },
    /// Which rows may be returned.
    Mask {
        /// Words in all.
        words: usize,
        /// Words from query to query; 0 when all queries share one bitmap.
        stride: usize,
    },
    /// Places for each query, with keys and positions (of given positions the keys are not known yet).
    Candidates {
        /// Queries.
        queries: usize,
        /// Places per query.
        width: usize,
    },
    /// An f32 matrix.
    Matrix {
        /// Rows.
        rows: usize,
        /// Columns.
        width: usize,
    },
    /// Codes of rows.
    Codes {
        /// Rows.
        rows: usize,
        /// Components of a code.
        dim: usize,
    },
    /// Queries in the code of rows.
    QueryCodes {
        /// Queries.
        queries: usize,
        /// Components of a code.
        dim: usize,
    },
    /// Inverted lists.
    Lists {
        /// What the codes consist of.
        form: Form,
        /// Parts of a code.
        dim: usize,
        /// Lists.
        lists: usize,
        /// Places for rows, those that fill up blocks included.
        slots: usize,
    },
    /// Queries as lists take them.
    Prepared {
        /// Queries.
        queries: usize,
    },
    /// Which lists are scanned.
    Probes {
        /// Queries.
        queries: usize,
        /// Lists per query.
        width: usize,
    },
    /// What is known before an assignment.
    Known {
        /// Positions.
        positions: usize,
        /// Bounds.
        bounds: usize,
    },
    /// Hits of each query, as many as there are.
    Hits {
        /// Queries.
        queries: usize,
    },
    /// What a host operation computes.
    Function,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Type::Vectors { dtype, rows, dim, norms, cached } => {
                let known = if norms { ", lengths" } else { "" };
                let place = if cached { ", cached" } else { "" };
                write!(f, "{dtype} [{rows}, {dim}]{known}{place}")
            }
            Type::Mask { words, stride: 0 } => write!(f, "mask [{words} words]"),
            Type::Mask { words, stride } => write!(f, "mask per query [{words} words, {stride} per query]"),
            Type::Candidates { queries, width } => write!(f, "candidates [{queries}, {width}]"),
            Type::Matrix { rows, width } => write!(f, "f32 matrix [{rows}, {width}]"),
            Type::Codes { rows, dim } => write!(f, "codes [{rows}, {dim}]"),
            Type::QueryCodes { queries, dim } => write!(f, "codes of queries [{queries}, {dim}]"),
            Type::Lists { form, dim, lists, slots } => write!(f, "{lists} lists of {slots} places, {form} [{dim}]"),
            Type::Prepared { queries } => write!(f, "prepared queries [{queries}]"),
            Type::Probes { queries, width } => write!(f, "probes [{queries}, {width}]"),
            Type::Known { positions, bounds } => write!(f, "known [{positions} positions, {bounds} bounds]"),
            Type::Hits { queries } => write!(f, "hits [{queries}]"),
            Type::Function => f.write_str("host function"),
        }
    }
}

fn mismatch<T>(what: String) -> Result<T, EngineError> {
    Err(EngineError::Mismatch(what))
}

/// Rows of a matrix of so many values.
fn rows_of(what: &str, values: usize, width: usize) -> Result<usize, EngineError> {
    match (values, width) {
        (0, _) => Ok(0),
        (values, width) if width > 0 && values.is_multiple_of(width) => Ok(values / width),
        _ => mismatch(format!("{values} {what} are no whole number of rows of {width}")),
    }
}

impl Input<'_> {
    /// The type of the input; an error where its own parts do not fit together.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] says what was found and wanted.
    pub fn ty(&self) -> Result<Type, EngineError> {
        Ok(match *self {
            Input::Vectors(Vectors { rows, norms, tag }) => {
                if rows.dtype().is_wide() {
                    return mismatch(format!("{} rows; engines compute with their f32 rounding", rows.dtype()));
                }
                if let Some(norms) = norms
                    && norms.len() != rows.rows()
                {
                    return mismatch(format!("{} norms for {} rows", norms.len(), rows.rows()));
                }
                Type::Vectors {
                    dtype: rows.dtype(),
                    rows: rows.rows(),
                    dim: rows.dim(),
                    norms: norms.is_some(),
                    cached: tag.is_some(),
                }
            }
            Input::Mask(Mask { words, stride, .. }) => Type::Mask { words: words.len(), stride },
            Input::Positions { positions, width } => {
                Type::Candidates { queries: rows_of("positions", positions.len(), width)?, width }
            }
            Input::Matrix { values, shape: [rows, width] } => {
                if rows.checked_mul(width) != Some(values.len()) {
                    return mismatch(format!("{} values for a matrix of {rows} x {width}", values.len()));
                }
                Type::Matrix { rows, width }
            }
            Input::Array(array) => Type::Matrix { rows: array.shape[0], width: array.shape[1] },
            Input::Codes(codes, _) => Type::Codes { rows: codes.rows(), dim: codes.dim },
            Input::QueryCodes(queries) => Type::QueryCodes { queries: queries.terms.len(), dim: queries.dim },
            Input::Lists(lists, _) => {
                Type::Lists { form: lists.form, dim: lists.dim, lists: lists.lists.len(), slots: lists.slots() }
            }
            Input::Prepared(prepared) => Type::Prepared { queries: prepared.queries },
            Input::Probes(probes) => {
                if probes.lists.len() != probes.offsets.len() {
                    return mismatch(format!(
                        "{} offsets for {} probed lists",
                        probes.offsets.len(),
                        probes.lists.len()
                    ));
                }
                Type::Probes {
                    queries: rows_of("probed lists", probes.lists.len(), probes.width)?,
                    width: probes.width,
                }
            }
            Input::Known(known) => Type::Known { positions: known.positions.len(), bounds: known.bounds.len() },
            Input::Function(_) => Type::Function,
        })
    }
}

/// The best rows of each query: `[queries, width]`, smallest (key, position) first. Places that are not
/// filled have key +inf and position `u32::MAX`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidates {
    /// Places per query.
    pub width: usize,
    /// Smaller is closer.
    pub keys: Vec<f32>,
    /// Row positions.
    pub positions: Vec<u32>,
    /// For each query a number that no row left out can fall below, in the screen's lower bounds: the key of the
    /// last candidate kept when all places were filled, else +inf (nothing was left out). Empty after a direct pass.
    pub bound: Vec<f32>,
}

impl Candidates {
    /// `queries` x `width` places, none filled, if there is memory for them.
    ///
    /// # Errors
    /// [`EngineError::AnswerTooLarge`].
    pub fn places(queries: usize, width: usize) -> Result<Candidates, EngineError> {
        room(queries, width, 8)?;
        Ok(Candidates::empty(queries, width))
    }

    /// `queries` x `width` places, none filled.
    pub fn empty(queries: usize, width: usize) -> Candidates {
        Candidates {
            width,
            keys: vec![f32::INFINITY; queries * width],
            positions: vec![u32::MAX; queries * width],
            bound: Vec::new(),
        }
    }
}

/// What an operation gives.
#[derive(Clone, Debug)]
pub enum Output {
    /// Keys and positions of the best rows.
    Candidates(Candidates),
    /// An f32 matrix, row by row.
    Matrix(Vec<f32>),
    /// Offsets `[queries + 1]`, and the hits of each query, smallest (key, position) first.
    Range {
        /// Where the hits of each query begin.
        offsets: Vec<u64>,
        /// Smaller is closer.
        keys: Vec<f32>,
        /// Row positions.
        positions: Vec<u32>,
    },
    /// f32 vectors `[rows, dim]` and a number for each: the norms they were divided by, or their lengths.
    Rows {
        /// The vectors.
        rows: Vec<f32>,
        /// One number per vector.
        norms: Vec<f32>,
    },
    /// f32 vectors `[rows, dim]` that a projection made.
    Projected {
        /// The vectors.
        rows: Vec<f32>,
        /// Their lengths; empty where nobody wants them.
        norms: Vec<f32>,
        /// The squared length of what was dropped of each; empty where nothing was.
        lost: Vec<f32>,
    },
    /// Queries as lists take them.
    Prepared(Prepared),
    /// Which lists are scanned: `[queries, width]` lists and what they add to keys.
    Probes {
        /// Lists per query.
        width: usize,
        /// Numbers of lists.
        lists: Vec<u32>,
        /// What belongs to the query and the list in the key.
        offsets: Vec<f32>,
    },
    /// A matrix that stays on the device.
    Array(Array),
}

impl PartialEq for Output {
    fn eq(&self, other: &Output) -> bool {
        use Output::{Array, Candidates, Matrix, Prepared, Probes, Projected, Range, Rows};
        match (self, other) {
            (Candidates(a), Candidates(b)) => a == b,
            (Matrix(a), Matrix(b)) => a == b,
            (Range { offsets: a, keys: b, positions: c }, Range { offsets: d, keys: e, positions: f }) => {
                (a, b, c) == (d, e, f)
            }
            (Rows { rows: a, norms: b }, Rows { rows: c, norms: d }) => (a, b) == (c, d),
            (Projected { rows: a, norms: b, lost: c }, Projected { rows: d, norms: e, lost: f }) => {
                (a, b, c) == (d, e, f)
            }
            (Prepared(a), Prepared(b)) => a == b,
            (Probes { width: a, lists: b, offsets: c }, Probes { width: d, lists: e, offsets: f }) => {
                (a, b, c) == (d, e, f)
            }
            // The same memory, not the same numbers: those are on the device.
            (Array(a), Array(b)) => Arc::ptr_eq(&a.data, &b.data),
            _ => false,
        }
    }
}
