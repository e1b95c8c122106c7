//! The `.npy` format: its header, and arrays of numbers as rows.
//!
//! `\x93NUMPY`, version (major, minor), header length (u16 in version 1, u32 in 2 and 3, little
//! endian), then a Python dict literal such as
//! `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, then the elements.
//! Source: numpy, `numpy/lib/_format_impl.py`.

use std::path::Path;
use std::sync::Arc;

use half::{bf16, f16};

use super::LoadError;
use super::matrix::{Backing, Layout, Matrix};
use crate::types::Element;

pub(super) const MAGIC: &[u8; 6] = b"\x93NUMPY";
const MATRIX_DTYPES: &str = "b1, f2, f4, f8, i1, u1, i2, u2, i4, i8 (little or big endian) and <V2 (bf16)";
const ID_DTYPES: &str = "i4, i8, u4, u8 (little or big endian)";

/// The number types of numpy that are read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    F16,
    /// `<V2`, as the package ml_dtypes names it.
    Bf16,
    F32,
    F64,
    I8,
    U8,
    I16,
    U16,
    I32,
    I64,
    U32,
    U64,
}

impl Kind {
    /// The kind and whether it is big endian, from a descr such as `<f4`; without a sign the order is the machine's.
    fn parse(descr: &str) -> Option<(Kind, bool)> {
        let name = descr.strip_prefix(['<', '>', '|', '=']).unwrap_or(descr);
        let kind = match name {
            "b1" => Kind::Bool,
            "f2" => Kind::F16,
            "f4" => Kind::F32,
            "f8" => Kind::F64,
            "V2" if descr.starts_with('<') => Kind::Bf16,
            "i1" => Kind::I8,
            "u1" => Kind::U8,
            "i2" => Kind::I16,
            "u2" => Kind::U16,
            "i4" => Kind::I32,
            "i8" => Kind::I64,
            "u4" => Kind::U32,
            "u8" => Kind::U64,
            _ => return None,
        };
        Some((kind, descr.starts_with('>')))
    }

    fn size(self) -> usize {
        match self {
            Kind::Bool | Kind::I8 | Kind::U8 => 1,
            Kind::F16 | Kind::Bf16 | Kind::I16 | Kind::U16 => 2,
            Kind::F32 | Kind::I32 | Kind::U32 => 4,
            Kind::F64 | Kind::I64 | Kind::U64 => 8,
        }
    }

    fn is_integer(self) -> bool {
        matches!(self, Kind::I32 | Kind::I64 | Kind::U32 | Kind::U64)
    }
}

/// The header's dict.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dict {
    pub descr: String,
    pub fortran: bool,
    pub shape: Vec<u64>,
}

/// Reads the dict literal, strictly: those three keys, once each, and nothing after it but white space.
pub(super) fn parse_dict(text: &[u8]) -> Result<Dict, String> {
    let mut p = Parser { rest: text };
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    p.wants(b'{')?;
    while !p.eat(b'}') {
        let key = p.string()?;
        p.wants(b':')?;
        let new = match key.as_str() {
            "descr" => descr.replace(p.descr()?).is_none(),
            "fortran_order" => fortran.replace(p.boolean()?).is_none(),
            "shape" => shape.replace(p.shape()?).is_none(),
            _ => return Err(format!("it has an unknown key '{}'", key.escape_debug())),
        };
        if !new {
            return Err(format!("it has the key '{key}' twice"));
        }
        if !p.eat(b',') {
            p.wants(b'}')?;
            break;
        }
    }
    p.skip_space();
    if !p.rest.is_empty() {
        return Err(format!("something follows its dict, {}", p.found()));
    }
    match (descr, fortran, shape) {
        (Some(descr), Some(fortran), Some(shape)) => Ok(Dict { descr, fortran, shape }),
        _ => Err("it lacks one of the keys 'descr', 'fortran_order', 'shape'".to_owned()),
    }
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl Parser<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn found(&self) -> String {
        match self.rest.first() {
            Some(b) => format!("found `{}`", b.escape_ascii()),
            None => "found its end".to_owned(),
        }
    }

    fn eat(&mut self, token: u8) -> bool {
        self.skip_space();
        match self.rest.split_first() {
            Some((&b, rest)) if b == token => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn wants(&mut self, token: u8) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(format!("`{}` was wanted, {}", token as char, self.found())) }
    }

    /// The next `n` bytes as text for a message or a value.
    fn take(&mut self, n: usize) -> String {
        let (taken, rest) = self.rest.split_at(n.min(self.rest.len()));
        self.rest = rest;
        String::from_utf8_lossy(taken).into_owned()
    }

    fn string(&mut self) -> Result<String, String> {
        self.skip_space();
        let quote = match self.rest.first() {
            Some(&b @ (b'\'' | b'"')) => b,
            _ => return Err(format!("a string was wanted, {}", self.found())),
        };
        self.rest = &self.rest[1..];
        // No escapes: neither the keys nor the dtypes that are read here have any.
        match self.rest.iter().position(|&b| b == quote || b == b'\\') {
            Some(end) if self.rest[end] == quote => {
                let text = self.take(end);
                self.rest = &self.rest[1..];
                Ok(text)
            }
            _ => Err("a string does not end".to_owned()),
        }
    }

    /// A dtype string; the list of a structured dtype is taken up to its `]`, to be named in the error.
    fn descr(&mut self) -> Result<String, String> {
        self.skip_space();
        if self.rest.first() != Some(&b'[') {
            return self.string();
        }
        let mut depth = 0usize;
        for (i, &b) in self.rest.iter().enumerate() {
            match b {
                b'[' => depth += 1,
                b']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return Ok(self.take(i + 1));
            }
        }
        Err("the list of a structured dtype does not end".to_owned())
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.skip_space();
        for (word, value) in [("True", true), ("False", false)] {
            if self.rest.starts_with(word.as_bytes()) {
                self.rest = &self.rest[word.len()..];
                return Ok(value);
            }
        }
        Err(format!("True or False was wanted, {}", self.found()))
    }

    fn shape(&mut self) -> Result<Vec<u64>, String> {
        let mut shape = Vec::new();
        self.wants(b'(')?;
        while !self.eat(b')') {
            shape.push(self.number()?);
            if !self.eat(b',') {
                if shape.len() == 1 {
                    return Err(format!("a tuple was wanted, {}", self.found()));
                }
                self.wants(b')')?;
                break;
            }
        }
        // numpy itself has at most 64 dimensions.
        if shape.len() > 64 { Err(format!("its shape has {} dimensions", shape.len())) } else { Ok(shape) }
    }

    fn number(&mut self) -> Result<u64, String> {
        self.skip_space();
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return Err(format!("a length was wanted, {}", self.found()));
        }
        let text = self.take(digits);
        // Python 2 wrote long integers as 3L.
        if self.rest.first() == Some(&b'L') {
            self.rest = &self.rest[1..];
        }
        text.parse().map_err(|_| format!("the length {text} does not fit 64 bits"))
    }
}

/// An array within the bytes of a file, its length checked.
pub(super) struct Array<'a> {
    path: &'a Path,
    backing: Arc<dyn Backing>,
    /// Byte of the first element.
    offset: usize,
    dict: Dict,
    kind: Kind,
    big: bool,
    /// The shape as rows x columns; one row for a 1-d array.
    rows: usize,
    columns: usize,
}

impl<'a> Array<'a> {
    /// Reads the header in `backing` and checks that the elements end with the file.
    ///
    /// `wanted` says what is read here, for errors: the kinds and their names, and the shapes.
    fn open(
        path: &'a Path,
        backing: Arc<dyn Backing>,
        reads: fn(Kind) -> bool,
        dtypes: &'static str,
    ) -> Result<Self, LoadError> {
        let (dict, offset) = header(path, backing.bytes())?;
        let Some((kind, big)) = Kind::parse(&dict.descr).filter(|&(kind, _)| reads(kind)) else {
            let found = format!("'{}'", dict.descr.escape_debug());
            return Err(LoadError::DType { path: path.to_owned(), found, wanted: dtypes });
        };
        let bytes = dict.shape.iter().try_fold(kind.size() as u64, |n, &d| n.checked_mul(d));
        let wanted = bytes.and_then(|n| n.checked_add(offset as u64));
        let found = backing.bytes().len() as u64;
        let wanted = wanted.ok_or_else(|| LoadError::header(path, "its shape holds more than 2^64 bytes"))?;
        LoadError::check_length(path, wanted, found)?;
        let shape_error = || LoadError::Shape {
            path: path.to_owned(),
            found: python_shape(&dict.shape),
            wanted: "one or two dimensions: (dim,) or (rows, dim)".to_owned(),
        };
        let (rows, columns) = match dict.shape[..] {
            [d] => (1, d),
            [n, d] => (n, d),
            _ => return Err(shape_error()),
        };
        let (Ok(rows), Ok(columns)) = (usize::try_from(rows), usize::try_from(columns)) else {
            return Err(shape_error());
        };
        Ok(Array { path, backing, offset, dict, kind, big, rows, columns })
    }

    fn shape(&self) -> Vec<usize> {
        if self.dict.shape.len() == 1 { vec![self.columns] } else { vec![self.rows, self.columns] }
    }

    /// The elements row after row, whatever their order in the file; `convert` takes little-endian
    /// bytes and gives the value, or the value found as text where there is none.
    fn gather<const N: usize, T>(
        &self,
        wanted: &'static str,
        convert: impl Fn([u8; N]) -> Result<T, String>,
    ) -> Result<Vec<T>, LoadError> {
        let chunks = self.backing.bytes().get(self.offset..).unwrap_or(&[]).as_chunks::<N>().0;
        let (down, across) = if self.dict.fortran { (1, self.rows) } else { (self.columns, 1) };
        let mut out = Vec::with_capacity(chunks.len());
        // A shape with a 0 may have billions of empty rows.
        let rows = if chunks.is_empty() { 0 } else { self.rows };
        for row in 0..rows {
            for column in 0..self.columns {
                let mut bytes = chunks[row * down + column * across];
                if self.big {
                    bytes.reverse();
                }
                out.push(convert(bytes).map_err(|value| LoadError::Value {
                    path: self.path.to_owned(),
                    row,
                    column,
                    value,
                    wanted,
                })?);
            }
        }
        Ok(out)
    }

    /// The rows where they lie, if `T` can be read there as it is; else a copy.
    fn rows_of<const N: usize, T: Element>(&self, from_le: fn([u8; N]) -> T) -> Result<Matrix, LoadError> {
        let (rows, dim) = (self.rows, self.columns);
        let as_it_is = (!self.big || N == 1) && (!self.dict.fortran || rows <= 1 || dim == 1);
        if as_it_is {
            let layout = Layout { offset: self.offset, dtype: T::DTYPE, rows, dim, stride: dim };
            if let Some(matrix) = Matrix::over(Arc::clone(&self.backing), layout) {
                return Ok(matrix);
            }
        }
        self.converted("", |bytes| Ok(from_le(bytes)))
    }

    fn converted<const N: usize, T: Element>(
        &self,
        wanted: &'static str,
        convert: impl Fn([u8; N]) -> Result<T, String>,
    ) -> Result<Matrix, LoadError> {
        let data = self.gather(wanted, convert)?;
        Matrix::from_vec(data, self.columns).map_err(|e| LoadError::header(self.path, e.to_string()))
    }
}

/// Rows of numbers; see [`super::read_matrix`] for what becomes of which dtype.
pub(super) fn matrix(path: &Path, backing: Arc<dyn Backing>) -> Result<Matrix, LoadError> {
    let reads = |kind| !matches!(kind, Kind::U32 | Kind::U64);
    let array = Array::open(path, backing, reads, MATRIX_DTYPES)?;
    check_dim(path, array.columns, || python_shape(&array.dict.shape))?;
    match array.kind {
        Kind::Bool => array.converted(BOOLEAN, |[b]| boolean(b).map(u8::from)),
        Kind::F16 => array.rows_of(f16::from_le_bytes),
        Kind::Bf16 => array.rows_of(bf16::from_le_bytes),
        Kind::F32 => array.rows_of(f32::from_le_bytes),
        Kind::I8 => array.rows_of(i8::from_le_bytes),
        Kind::U8 => array.rows_of(u8::from_le_bytes),
        Kind::I16 => array.converted("", |b| Ok(f32::from(i16::from_le_bytes(b)))),
        Kind::U16 => array.converted("", |b| Ok(f32::from(u16::from_le_bytes(b)))),
        Kind::I32 => array.rows_of(i32::from_le_bytes),
        Kind::I64 => array.rows_of(i64::from_le_bytes),
        // u32 and u64 did not pass `reads`.
        Kind::F64 | Kind::U32 | Kind::U64 => array.rows_of(f64::from_le_bytes),
    }
}

/// The rows of a file have between 1 and 2^24 components: a dim beyond is a damaged header, and with
/// 0 rows no length would show it.
pub(super) fn check_dim(path: &Path, dim: usize, shape: impl Fn() -> String) -> Result<(), LoadError> {
    if (1..=1 << 24).contains(&dim) {
        return Ok(());
    }
    let wanted = "rows of 1 to 16777216 components".to_owned();
    Err(LoadError::Shape { path: path.to_owned(), found: shape(), wanted })
}

/// Integers of one or two dimensions, with their shape.
pub(super) fn ids(path: &Path, backing: Arc<dyn Backing>) -> Result<(Vec<i64>, Vec<usize>), LoadError> {
    let array = Array::open(path, backing, Kind::is_integer, ID_DTYPES)?;
    Ok((ids_of(&array)?, array.shape()))
}

fn ids_of(array: &Array<'_>) -> Result<Vec<i64>, LoadError> {
    match array.kind {
        Kind::I32 => array.gather("", |b| Ok(i32::from_le_bytes(b).into())),
        Kind::U32 => array.gather("", |b| Ok(u32::from_le_bytes(b).into())),
        Kind::U64 => array.gather("an id below 2^63", |b| {
            let id = u64::from_le_bytes(b);
            i64::try_from(id).map_err(|_| id.to_string())
        }),
        _ => array.gather("", |b| Ok(i64::from_le_bytes(b))),
    }
}

/// Either ids or a mask, with the shape.
pub(super) enum Allowed {
    Ids(Vec<i64>, Vec<usize>),
    Mask(Vec<bool>, Vec<usize>),
}

/// Integers, or booleans of one byte each.
pub(super) fn allowed(path: &Path, backing: Arc<dyn Backing>) -> Result<Allowed, LoadError> {
    let reads = |kind: Kind| kind == Kind::Bool || kind.is_integer();
    let array = Array::open(path, backing, reads, "b1 (a mask) and i4, i8, u4, u8 (ids)")?;
    if array.kind != Kind::Bool {
        return Ok(Allowed::Ids(ids_of(&array)?, array.shape()));
    }
    Ok(Allowed::Mask(array.gather(BOOLEAN, |[b]| boolean(b))?, array.shape()))
}

const BOOLEAN: &str = "0 or 1, as booleans are stored";

fn boolean(byte: u8) -> Result<bool, String> {
    if byte < 2 { Ok(byte == 1) } else { Err(byte.to_string()) }
}

/// The dict and the byte where the elements begin.
fn header(path: &Path, bytes: &[u8]) -> Result<(Dict, usize), LoadError> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err(LoadError::magic(path, bytes, MAGIC, "a .npy file"));
    };
    let short = |wanted| LoadError::Truncated { path: path.to_owned(), wanted, found: bytes.len() as u64 };
    let (&[major, minor], rest) = rest.split_first_chunk().ok_or_else(|| short(8))?;
    if !(1..=3).contains(&major) || minor != 0 {
        return Err(LoadError::header(
            path,
            format!("it is .npy version {major}.{minor}; those read here are 1.0 to 3.0"),
        ));
    }
    let (start, len) = if major == 1 {
        (10, u32::from(u16::from_le_bytes(*rest.first_chunk().ok_or_else(|| short(10))?)))
    } else {
        (12, u32::from_le_bytes(*rest.first_chunk().ok_or_else(|| short(12))?))
    };
    let end = start as u64 + u64::from(len);
    let text = usize::try_from(end).ok().and_then(|end| bytes.get(start..end)).ok_or_else(|| short(end))?;
    let dict = parse_dict(text).map_err(|problem| LoadError::header(path, problem))?;
    Ok((dict, start + text.len()))
}

/// As Python prints a tuple.
pub(super) fn python_shape<T: ToString>(shape: &[T]) -> String {
    match shape {
        [d] => format!("({},)", d.to_string()),
        _ => format!("({})", shape.iter().map(T::to_string).collect::<Vec<_>>().join(", ")),
    }
}
