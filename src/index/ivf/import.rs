//! An `Ivf` from the parts of an index of Faiss. Codes are repacked, never made again; what belongs to a row beside its
//! code is computed from it.

use half::{bf16, f16};

use super::super::import::{ImportError, own_ids};
use super::super::roster::Roster;
use super::super::rowbuf::{RowBuf, Rows};
use super::super::store::Store;
use super::super::{CodecSpec, IndexSpec, RerankSpec, TransformSpec};
use super::build::{matrix, unsorted};
use super::{Ivf, Kept, Rerank, Settings, UNSORTED};
use crate::codec::transform::{Given, MOST_DIM, Transform};
use crate::codec::{self, Codec, Product, Scalar};
use crate::compute::Tag;
use crate::engine::Device;
use crate::format::{FaissCodec, FaissIndex, FaissList, FaissTransform};
use crate::index::BuildError;
use crate::ops::lists::{Encoded, Lists};
use crate::threads;
use crate::types::{DType, MatrixView, Metric, RowsView};

/// Rows that are repacked at a time.
const ROWS_PER_CHUNK: usize = 1 << 15;

type Imported<T> = Result<T, ImportError>;

impl Ivf {
    /// See [`AnyIndex::from_faiss`](super::super::AnyIndex::from_faiss).
    pub(in crate::index) fn from_faiss(device: &Device, index: FaissIndex, notes: &mut Vec<String>) -> Imported<Ivf> {
        let (metric, coded) = (index.metric, index.coded_dim());
        let mut spec = IndexSpec::FLAT;
        spec.lists = index.centroids.as_ref().map(|_| index.lists.len());
        let codec = codec_of(&index.codec, coded)?;
        spec.codec = spec_of(&index.codec);
        if let FaissCodec::Product { bits, .. } = index.codec
            && bits != stored_bits(bits)
        {
            notes.push(format!("parts of {bits} bits are stored in {}, which changes no distance", stored_bits(bits)));
        }
        transforms(&index, &mut spec);
        spec.rerank = index.refine.as_ref().map(|refine| refine_of(&refine.codec)).transpose()?;
        spec.check(index.dim, metric, None).map_err(BuildError::from)?;
        // What could not be opened again is not taken over.
        spec.to_string().parse::<IndexSpec>().map_err(BuildError::from)?;
        let transform = transform(&index)?;
        let coarse = match &index.centroids {
            None => None,
            Some(centroids) => {
                finite("the centroids", centroids)?;
                let mut rows = RowBuf::new(DType::F32, coded);
                rows.extend(&RowsView::F32(matrix(centroids, coded)?));
                Some(Store::over(index.lists_by, Rows::Owned(rows.into()), None, 0)?)
            }
        };
        let order = Order::of(&index)?;
        let residual = index.centroids.is_none() || index.by_residual || codec.form().is_exact();
        let centroids = index.centroids.as_deref().filter(|_| index.by_residual).unwrap_or(&[]);
        let mut lists = Lists::new(codec.form(), codec.parts(), spec.lists.unwrap_or(0));
        if spec.lists.is_none() {
            lists.grow(order.rows.len().div_ceil(UNSORTED));
        }
        let packer = Packer { metric, from: &index.codec, codec: &*codec, lists: &index.lists, centroids };
        for (c, some) in order.rows.chunks(ROWS_PER_CHUNK).enumerate() {
            let homes = match spec.lists {
                Some(_) => some.iter().map(|&(list, _)| list).collect(),
                None => unsorted(c * ROWS_PER_CHUNK, some.len()),
            };
            lists.append(&packer.pack(some, c * ROWS_PER_CHUNK)?, &homes, (c * ROWS_PER_CHUNK) as u32);
        }
        let kept = kept(&index, order, notes)?;
        let factor = index.refine.as_ref().map_or(Rerank::Auto, |refine| Rerank::Times(refine.k_factor));
        let count = coarse.as_ref().map_or(0, |coarse| coarse.slots());
        Ok(Ivf {
            device: device.untied(),
            spec,
            metric,
            dim: index.dim,
            transform: transform.into(),
            coarse: coarse.map(Into::into),
            codec: codec.into(),
            lists,
            residual,
            tag: Tag::new(),
            kept,
            warnings: Vec::new(),
            settings: Settings { probes: index.probes.clamp(1, count.max(1)), rerank: factor },
        })
    }
}

fn no_counterpart(part: &'static str, problem: impl Into<String>) -> ImportError {
    ImportError::Part { part, problem: problem.into() }
}

/// Numbers that every part of ours may have.
fn finite(part: &'static str, numbers: &[f32]) -> Imported<()> {
    match numbers.iter().position(|x| x.is_nan() || x.abs() > 1e30) {
        Some(i) => Err(no_counterpart(part, format!("number {i} is {}, wanted finite ones below 1e30", numbers[i]))),
        None => Ok(()),
    }
}

/// Bits that a number of a product quantiser takes here.
fn stored_bits(bits: u8) -> u8 {
    if bits <= 4 { 4 } else { 8 }
}

fn spec_of(codec: &FaissCodec) -> CodecSpec {
    match *codec {
        FaissCodec::F32 => CodecSpec::Flat,
        FaissCodec::F16 => CodecSpec::F16,
        FaissCodec::Bf16 => CodecSpec::Bf16,
        FaissCodec::Scalar { bits, .. } => CodecSpec::Scalar { bits },
        FaissCodec::Bytes { .. } => CodecSpec::Scalar { bits: 8 },
        FaissCodec::Product { parts, bits, .. } => {
            CodecSpec::Product { parts, bits: stored_bits(bits), fast_scan: false }
        }
    }
}

/// The codec with what Faiss has learnt.
fn codec_of(codec: &FaissCodec, dim: usize) -> Imported<Box<dyn Codec>> {
    Ok(match codec {
        FaissCodec::Scalar { bits, low, step } => {
            finite("the ranges of the scalar quantiser", low)?;
            finite("the ranges of the scalar quantiser", step)?;
            if let Some(i) = step.iter().position(|&s| s < 0.0) {
                let problem = format!("range {i} is {}, wanted 0 or more", step[i]);
                return Err(no_counterpart("the ranges of the scalar quantiser", problem));
            }
            let each = |values: &[f32]| if values.len() == 1 { values.repeat(dim) } else { values.to_vec() };
            Box::new(Scalar::new(*bits, each(low), each(step)))
        }
        // The code c of a range of 255 is c + 1/2 above the least value.
        FaissCodec::Bytes { less } => Box::new(Scalar::new(8, vec![-f32::from(*less) - 0.5; dim], vec![255.0; dim])),
        FaissCodec::Product { parts, bits, centroids } => {
            finite("the centroids of the product quantiser", centroids)?;
            // The last centroid of a part once more for each number that no code has.
            let (width, wide) = (dim / parts, stored_bits(*bits));
            let mut filled = Vec::with_capacity(dim << wide);
            for part in centroids.chunks_exact(width << bits) {
                filled.extend_from_slice(part);
                let last = &part[part.len() - width..];
                (1 << bits..1 << wide).for_each(|_: usize| filled.extend_from_slice(last));
            }
            Box::new(Product::new(*parts, wide, dim, filled))
        }
        rows => {
            let none = matrix(&[], dim)?;
            codec::train(spec_of(rows), Metric::L2, none, 0, &mut Vec::new()).map_err(BuildError::from)?
        }
    })
}

fn refine_of(codec: &FaissCodec) -> Imported<RerankSpec> {
    match codec {
        FaissCodec::F32 | FaissCodec::Bf16 => Ok(RerankSpec::Flat),
        FaissCodec::F16 => Ok(RerankSpec::F16),
        FaissCodec::Bytes { .. } | FaissCodec::Scalar { bits: 8, .. } => Ok(RerankSpec::Scalar8),
        other => {
            let problem = format!("`{}` has no counterpart; there are Flat, SQfp16, SQbf16 and SQ8", spec_of(other));
            Err(no_counterpart("the rows to re-rank", problem))
        }
    }
}

/// The transforms by name.
fn transforms(index: &FaissIndex, spec: &mut IndexSpec) {
    let mut dim = index.dim;
    for transform in &index.transforms {
        match transform {
            FaissTransform::Normalize => spec.transforms.push(TransformSpec::Normalize),
            FaissTransform::Centre(_) => spec.transforms.push(TransformSpec::Centre),
            FaissTransform::Resize { dim: to } if *to < dim => spec.transforms.push(TransformSpec::Slice { dim: *to }),
            FaissTransform::Resize { dim: to } => spec.transforms.push(TransformSpec::Pad { dim: *to }),
            FaissTransform::Linear { dim: to, kind, .. } => {
                if *to > dim {
                    spec.transforms.push(TransformSpec::Pad { dim: *to });
                }
                let kept = (*to < dim).then_some(*to);
                spec.transforms.push(match (&*kind.to_lowercase(), &index.codec) {
                    ("pcam", _) => TransformSpec::Pca { dim: *to, rotate: false },
                    // A matrix before a product quantiser is what OPQ learns.
                    ("ltra", FaissCodec::Product { parts, .. }) if to.is_multiple_of(*parts) => {
                        TransformSpec::Opq { parts: *parts, dim: kept }
                    }
                    _ => TransformSpec::Rotation { dim: Some(*to) },
                });
            }
        }
        if let FaissTransform::Linear { dim: to, .. } | FaissTransform::Resize { dim: to } = transform {
            dim = *to;
        }
    }
}

/// The transforms as they are.
fn transform(index: &FaissIndex) -> Imported<Transform> {
    let (mut dim, mut given) = (index.dim, Vec::new());
    for transform in &index.transforms {
        given.push(match transform {
            FaissTransform::Normalize => Given::Normalize,
            FaissTransform::Centre(mean) => {
                finite("the mean", mean)?;
                Given::Centre(mean.clone())
            }
            FaissTransform::Resize { dim: to } => {
                dim = *to;
                Given::Resize(*to)
            }
            FaissTransform::Linear { matrix, bias, dim: to, .. } => {
                finite("the matrix of a transform", matrix)?;
                finite("the bias of a transform", bias.as_deref().unwrap_or_default())?;
                dim = *to;
                Given::Affine { matrix: matrix.clone(), bias: bias.clone().unwrap_or_else(|| vec![0.0; *to]) }
            }
        });
        if dim > MOST_DIM {
            return Err(no_counterpart(
                "a transform",
                format!("vectors of {dim} components, there are at most {MOST_DIM}"),
            ));
        }
    }
    if index.dim > MOST_DIM {
        let problem = format!("codes of {} components, there are at most {MOST_DIM}", index.dim);
        return Err(no_counterpart("the rows", problem));
    }
    Ok(Transform::given(index.dim, given))
}

/// Where rows lie: by their numbers in the lists, which are their age where no caller gave them.
struct Order {
    numbers: Vec<i64>,
    /// The list of each row and its place there.
    rows: Vec<(u32, u32)>,
}

impl Order {
    fn of(index: &FaissIndex) -> Imported<Order> {
        if u32::try_from(index.rows()).is_err() {
            let limit = u32::MAX as usize - 1;
            return Err(BuildError::TooManyRows { rows: index.rows(), limit }.into());
        }
        let lists = index.lists.iter().enumerate();
        let mut all: Vec<(i64, (u32, u32))> = lists
            .flat_map(|(l, list)| list.ids.iter().enumerate().map(move |(p, &id)| (id, (l as u32, p as u32))))
            .collect();
        if index.lists.len() > 1 {
            all.sort_unstable();
        }
        let (numbers, rows) = all.into_iter().unzip();
        let order = Order { numbers, rows };
        match &index.refine {
            Some(refine) if refine.rows.ids != order.numbers => {
                Err(no_counterpart("the rows to re-rank", "they are not those of the index"))
            }
            _ => Ok(order),
        }
    }
}

/// From codes of Faiss to codes that lists take.
struct Packer<'a> {
    metric: Metric,
    from: &'a FaissCodec,
    codec: &'a dyn Codec,
    lists: &'a [FaissList],
    /// Those that codes are about; empty where they are about zero.
    centroids: &'a [f32],
}

impl Packer<'_> {
    /// The rows in these places, of which the first is row `first`.
    fn pack(&self, rows: &[(u32, u32)], first: usize) -> Imported<Encoded> {
        let (form, dim, parts) = (self.codec.form(), self.codec.dim(), self.codec.parts());
        let from_bytes = self.from.code_bytes(dim);
        let bytes = if form.is_exact() { from_bytes } else { parts };
        let mut encoded = Encoded { codes: vec![0; rows.len() * bytes], ..Encoded::default() };
        let numbers: Vec<f32> = threads::map_with(
            64,
            encoded.codes.chunks_exact_mut(bytes.max(1)).zip(rows),
            || vec![0.0f32; dim],
            |r, (code, &(list, place))| {
                let (list, place) = (list as usize, place as usize);
                let from = &self.lists[list].codes[place * from_bytes..(place + 1) * from_bytes];
                self.from.unpack(from, code);
                if form.is_exact() {
                    self.from.decode(from, r);
                    return r.iter().map(|x| x * 0.0).sum();
                }
                self.codec.decode(code, 1.0, r);
                let centroid = self.centroids.get(list * dim..(list + 1) * dim).unwrap_or(&[]);
                self.add(r, centroid)
            },
        );
        if let Some(row) = numbers.iter().position(|x| !x.is_finite()) {
            return Err(no_counterpart(
                "the codes",
                format!("that of row {} stands for no finite vector", first + row),
            ));
        }
        if !form.is_exact() && self.metric == Metric::L2 {
            encoded.add = numbers;
        }
        Ok(encoded)
    }

    /// |r'|^2 + 2 <c, r'>, which l2 adds to the keys of a row.
    fn add(&self, r: &[f32], centroid: &[f32]) -> f32 {
        let square: f64 = r.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let cross: f64 = r.iter().zip(centroid).map(|(&x, &c)| f64::from(x) * f64::from(c)).sum();
        (square + 2.0 * cross) as f32
    }
}

/// The rows to re-rank from, or their ids alone.
fn kept(index: &FaissIndex, order: Order, notes: &mut Vec<String>) -> Imported<Kept> {
    let (rows, dim, metric) = (order.rows.len(), index.dim, index.metric);
    let ids = own_ids(order.numbers.into_iter().map(|row| index.id(row)).collect(), notes);
    let roster = |ids: &Option<Vec<u64>>| Roster::of(rows, ids.as_deref(), 0);
    let Some(refine) = &index.refine else { return Ok(Kept::Ids(roster(&ids)?)) };
    let codes = &refine.rows.codes;
    let mut own = RowBuf::new(DType::F32, dim);
    match refine.codec {
        FaissCodec::F32 => own.extend(&RowsView::F32(matrix(&numbers(codes, f32::from_le_bytes), dim)?)),
        FaissCodec::F16 => {
            own = RowBuf::new(DType::F16, dim);
            let halves = numbers(codes, f16::from_le_bytes);
            own.extend(&RowsView::F16(MatrixView::new(&halves, dim).map_err(BuildError::from)?));
        }
        FaissCodec::Bf16 => {
            own = RowBuf::new(DType::Bf16, dim);
            let halves = numbers(codes, bf16::from_le_bytes);
            own.extend(&RowsView::Bf16(MatrixView::new(&halves, dim).map_err(BuildError::from)?));
        }
        _ => {
            let codec = codec_of(&refine.codec, dim)?;
            let mut lists = Lists::new(codec.form(), codec.parts(), 1);
            let one = std::slice::from_ref(&refine.rows);
            let metric = Metric::InnerProduct;
            let packer = Packer { metric, from: &refine.codec, codec: &*codec, lists: one, centroids: &[] };
            for first in (0..rows).step_by(ROWS_PER_CHUNK) {
                let some: Vec<(u32, u32)> = (first..rows.min(first + ROWS_PER_CHUNK)).map(|p| (0, p as u32)).collect();
                lists.append(&packer.pack(&some, first)?, &vec![0; some.len()], first as u32);
            }
            return Ok(Kept::Codes(roster(&ids)?, lists, codec.into()));
        }
    }
    Ok(Kept::Rows(Box::new(Store::over(metric, Rows::Owned(own.into()), ids, 0)?)))
}

/// Little-endian numbers.
fn numbers<T, const N: usize>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|b| read(*b)).collect()
}
