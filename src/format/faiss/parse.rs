//! From bytes to [`FaissIndex`].

use super::{FaissCodec, FaissIndex, FaissList, FaissRows, FaissTransform, NotFaiss};
use crate::types::Metric;

type Parsed<T> = Result<T, NotFaiss>;

/// Indexes within indexes that are followed; Faiss's factory makes four at most.
const MOST_DEEP: usize = 8;

/// Most components of a row, as in Faiss.
const MOST_FAISS_DIM: usize = 1 << 20;

/// A whole file.
pub(super) fn file(bytes: &[u8]) -> Parsed<FaissIndex> {
    let mut from = Reader { bytes, at: 0, tag: *b"file" };
    let index = index(&mut from, 0)?;
    from.tag = *b"file";
    let left = bytes.len() - from.at;
    if left > 0 { Err(from.wrong(format!("{left} bytes after the end of the index"))) } else { Ok(index) }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// What is being read.
    tag: [u8; 4],
}

impl<'a> Reader<'a> {
    fn wrong(&self, problem: impl Into<String>) -> NotFaiss {
        NotFaiss { offset: self.at, fourcc: self.tag.escape_ascii().to_string(), problem: problem.into() }
    }

    /// Four letters that were just read and are not known.
    fn foreign(&self, problem: impl Into<String>) -> NotFaiss {
        NotFaiss { offset: self.at.saturating_sub(4), ..self.wrong(problem) }
    }

    fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let left = &self.bytes[self.at..];
        let Some(taken) = left.get(..count) else {
            return Err(self.wrong(format!("{count} bytes wanted, {} are left", left.len())));
        };
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn f32(&mut self) -> Parsed<f32> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    /// A whole number of so many bytes that is no more than `most`.
    fn count(&mut self, what: &str, most: usize) -> Parsed<usize> {
        let found = u64::from_le_bytes(self.array()?);
        self.within(what, found, most)
    }

    fn count32(&mut self, what: &str, most: usize) -> Parsed<usize> {
        let found = self.u32()?;
        self.within(what, u64::from(found), most)
    }

    fn within(&self, what: &str, found: u64, most: usize) -> Parsed<usize> {
        let fits = usize::try_from(found).ok().filter(|&n| n <= most);
        fits.ok_or_else(|| self.wrong(format!("{what} is {found}, wanted at most {most}")))
    }

    fn bool(&mut self, what: &str) -> Parsed<bool> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [found] => Err(self.wrong(format!("{what} is {found}, wanted 0 or 1"))),
        }
    }

    /// A vector of elements of `size` bytes, with its length in front in units of `unit` elements.
    fn vector(&mut self, size: usize) -> Parsed<&'a [u8]> {
        let count = self.count("a length", usize::MAX)?;
        let bytes = count.checked_mul(size).ok_or_else(|| self.wrong(format!("a length of {count} is no length")))?;
        self.take(bytes)
    }

    fn floats(&mut self) -> Parsed<Vec<f32>> {
        let bytes = self.vector(4)?;
        Ok(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    fn ids(&mut self, count: usize) -> Parsed<Vec<i64>> {
        let bytes = count.checked_mul(8).ok_or_else(|| self.wrong(format!("{count} ids are too many")))?;
        Ok(self.take(bytes)?.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect())
    }

    /// Values of which there must be so many.
    fn exactly(&mut self, what: &str, wanted: usize) -> Parsed<Vec<f32>> {
        let found = self.floats()?;
        self.same(what, found.len(), wanted)?;
        Ok(found)
    }

    fn same(&self, what: &str, found: usize, wanted: usize) -> Parsed<()> {
        if found == wanted { Ok(()) } else { Err(self.wrong(format!("{what}: {wanted} wanted, found {found}"))) }
    }

    fn product(&self, a: usize, b: usize) -> Parsed<usize> {
        a.checked_mul(b).ok_or_else(|| self.wrong(format!("{a} times {b} is more than memory holds")))
    }
}

/// What all indexes begin with.
struct Header {
    dim: usize,
    rows: usize,
    metric: Metric,
    /// What holds others may not know of them; what codes itself does.
    trained: bool,
}

const UNTRAINED: &str = "it is not trained, so it has no rows to take over; Faiss's `train` and `add` come first";

/// What an index that codes rows begins with.
fn trained(from: &mut Reader<'_>) -> Parsed<Header> {
    let head = header(from)?;
    if head.trained { Ok(head) } else { Err(from.wrong(UNTRAINED)) }
}

fn header(from: &mut Reader<'_>) -> Parsed<Header> {
    let dim = from.count32("dim", MOST_FAISS_DIM)?;
    if dim == 0 {
        return Err(from.wrong("dim is 0, wanted at least 1"));
    }
    let rows = from.count("the number of rows", isize::MAX as usize)?;
    from.take(16)?; // unused
    let trained = from.bool("whether it is trained")?;
    let number = from.u32()?;
    let argument = if number > 1 { from.f32()? } else { 0.0 };
    let metric = match number {
        0 => Metric::InnerProduct,
        1 => Metric::L2,
        2 => Metric::L1,
        3 => Metric::Linf,
        4 if argument > 0.0 && argument.is_finite() => Metric::Lp(argument),
        20 => Metric::Canberra,
        21 => Metric::BrayCurtis,
        22 => Metric::JensenShannon,
        23 => Metric::Jaccard,
        _ => return Err(from.wrong(format!("metric {number} ({argument}) is not one that is read here"))),
    };
    Ok(Header { dim, rows, metric, trained })
}

/// An index and those within it.
fn index(from: &mut Reader<'_>, depth: usize) -> Parsed<FaissIndex> {
    from.tag = from.array()?;
    if depth > MOST_DEEP {
        return Err(from.wrong(format!("more than {MOST_DEEP} indexes within each other")));
    }
    let tag = from.tag;
    let mut index = match &tag {
        b"IxF2" | b"IxFI" | b"IxFl" => flat(from)?,
        b"IxSQ" => scalar(from)?,
        b"IxPq" => product(from)?,
        b"IwFl" | b"IwSq" | b"IwSQ" | b"IwPQ" => inverted(from)?,
        b"IxPT" => transformed(from, depth)?,
        b"IxRF" => refined(from, depth)?,
        b"IxMp" | b"IxM2" => mapped(from, depth)?,
        _ => return Err(from.foreign(not_read(tag))),
    };
    // Codes of other metrics do not exist in Faiss either; inner product has no centroids to subtract from 0.
    index.by_residual &= index.centroids.is_some();
    Ok(index)
}

/// Why an index with these letters is not read.
fn not_read(tag: [u8; 4]) -> String {
    let what = match &tag {
        [b'I', b'H', ..] | b"INSf" | b"INSp" | b"INSs" | b"INNf" => "an index over a graph",
        b"IvFl" | b"IvFL" | b"IvSQ" | b"IvPQ" | b"IxPQ" | b"IxPo" => {
            return "the layout of an old Faiss is not read here; a newer one reads it and writes it anew".to_owned();
        }
        b"IPfs" | b"IwPf" => {
            return "a FastScan index is not read here, since it is packed for one processor; the same index without \
                    `fs` is"
                .to_owned();
        }
        [b'I', b'B', ..] => "an index of packed bits",
        b"Ixrq" | b"Iwrq" | b"Ixrr" | b"Iwrr" | b"Irfn" | b"Iwrn" | b"Irfs" | b"Iwrf" => "a RaBitQ index",
        b"IwQR" => "an index of two product quantisers",
        b"NEAR" => return "an index of nearfield, which needs no import".to_owned(),
        [b'I', _, _, _] => "an index of this kind",
        _ => return "no index of Faiss begins so".to_owned(),
    };
    format!("{what} is not read here; Flat, SQ, PQ and IVF of these are, transformed, refined or with ids")
}

/// An index without lists.
fn whole(head: Header, codec: FaissCodec, codes: &[u8]) -> FaissIndex {
    let ids = (0..head.rows as i64).collect();
    FaissIndex {
        metric: head.metric,
        dim: head.dim,
        transforms: Vec::new(),
        centroids: None,
        lists_by: head.metric,
        lists: vec![FaissList { ids, codes: codes.to_vec() }],
        unlisted: 0,
        ids: None,
        codec,
        probes: 1,
        by_residual: false,
        refine: None,
    }
}

/// The codes of an index without lists, `size` bytes per element of the length in front.
fn codes<'a>(from: &mut Reader<'a>, head: &Header, codec: &FaissCodec, size: usize) -> Parsed<&'a [u8]> {
    let codes = from.vector(size)?;
    let wanted = from.product(head.rows, codec.code_bytes(head.dim))?;
    from.same("bytes of codes", codes.len(), wanted)?;
    Ok(codes)
}

fn flat(from: &mut Reader<'_>) -> Parsed<FaissIndex> {
    let head = header(from)?;
    let codes = codes(from, &head, &FaissCodec::F32, 4)?;
    Ok(whole(head, FaissCodec::F32, codes))
}

fn scalar(from: &mut Reader<'_>) -> Parsed<FaissIndex> {
    let head = trained(from)?;
    let codec = scalar_codec(from, head.dim)?;
    let codes = codes(from, &head, &codec, 1)?;
    Ok(whole(head, codec, codes))
}

fn scalar_codec(from: &mut Reader<'_>, dim: usize) -> Parsed<FaissCodec> {
    let kind = from.u32()?;
    from.take(8)?; // how ranges were learnt
    let found = from.count("dim", MOST_FAISS_DIM)?;
    from.same("components of the codec", found, dim)?;
    let bytes = from.count("bytes of a code", usize::MAX)?;
    let (bits, each) = match kind {
        0 => (8, dim),
        1 => (4, dim),
        2 => (8, 1),
        3 => (4, 1),
        6 => (6, dim),
        4 | 5 | 7 | 8 => (0, 0),
        _ => return Err(from.wrong(format!("a scalar quantiser of kind {kind} is not read here"))),
    };
    let mut low = from.exactly("values of a scalar quantiser", 2 * each)?;
    let step = low.split_off(each);
    let codec = match kind {
        4 => FaissCodec::F16,
        7 => FaissCodec::Bf16,
        5 => FaissCodec::Bytes { less: 0 },
        8 => FaissCodec::Bytes { less: 128 },
        _ => FaissCodec::Scalar { bits, low, step },
    };
    from.same("bytes of a code", bytes, codec.code_bytes(dim))?;
    Ok(codec)
}

fn product(from: &mut Reader<'_>) -> Parsed<FaissIndex> {
    let head = trained(from)?;
    let codec = product_codec(from, head.dim)?;
    let codes = codes(from, &head, &codec, 1)?;
    from.u32()?; // how Faiss searches
    if from.bool("whether signs are coded")? {
        return Err(from.wrong("codes with signs are not read here"));
    }
    from.u32()?; // a threshold of that search
    Ok(whole(head, codec, codes))
}

fn product_codec(from: &mut Reader<'_>, dim: usize) -> Parsed<FaissCodec> {
    let found = from.count("dim", MOST_FAISS_DIM)?;
    from.same("components of the codec", found, dim)?;
    let parts = from.count("parts", dim)?;
    if parts == 0 || !dim.is_multiple_of(parts) {
        return Err(from.wrong(format!("{dim} components do not split into {parts} parts")));
    }
    let bits = from.count("bits", 24)?;
    let bits = match bits {
        1..=8 => bits as u8,
        _ => return Err(from.wrong(format!("parts of {bits} bits are not read here; those of 1 to 8 are"))),
    };
    let centroids = from.exactly("components of centroids", dim << bits)?;
    Ok(FaissCodec::Product { parts, bits, centroids })
}

/// `IwFl`, `IwSq`, `IwSQ`, `IwPQ`.
fn inverted(from: &mut Reader<'_>) -> Parsed<FaissIndex> {
    let tag = from.tag;
    let head = trained(from)?;
    let lists = from.count("the number of lists", u32::MAX as usize)?;
    let probes = u64::from_le_bytes(from.array()?);
    let (centroids, lists_by) = centroids(from, lists, &head)?;
    from.tag = tag;
    direct_map(from)?;
    let code_bytes = |from: &mut Reader<'_>, codec: &FaissCodec| {
        let found = from.count("bytes of a code", usize::MAX)?;
        from.same("bytes of a code", found, codec.code_bytes(head.dim))
    };
    let (codec, by_residual) = match &tag {
        b"IwPQ" => {
            let by_residual = from.bool("whether residuals are coded")?;
            let at = from.at;
            from.take(8)?;
            let codec = product_codec(from, head.dim)?;
            code_bytes(&mut Reader { at, ..*from }, &codec)?;
            (codec, by_residual)
        }
        b"IwSq" | b"IwSQ" => {
            let codec = scalar_codec(from, head.dim)?;
            code_bytes(from, &codec)?;
            (codec, &tag == b"IwSQ" || from.bool("whether residuals are coded")?)
        }
        _ => (FaissCodec::F32, false),
    };
    let many = lists;
    let lists = inverted_lists(from, lists, codec.code_bytes(head.dim))?;
    let listed: usize = lists.iter().map(|l| l.ids.len()).sum();
    let Some(unlisted) = head.rows.checked_sub(listed) else {
        return Err(from.wrong(format!("{listed} rows in lists of an index of {} rows", head.rows)));
    };
    Ok(FaissIndex {
        metric: head.metric,
        dim: head.dim,
        transforms: Vec::new(),
        centroids: Some(centroids),
        lists_by,
        lists,
        unlisted,
        ids: None,
        codec,
        // More than there are is as good as all.
        probes: usize::try_from(probes).unwrap_or(usize::MAX).clamp(1, many.max(1)),
        by_residual,
        refine: None,
    })
}

/// The centroids and how they are compared: an index of their own, which must be flat.
fn centroids(from: &mut Reader<'_>, lists: usize, head: &Header) -> Parsed<(Vec<f32>, Metric)> {
    from.tag = from.array()?;
    if !matches!(&from.tag, b"IxF2" | b"IxFI" | b"IxFl") {
        return Err(from.foreign("centroids in such an index are not read here; those of IndexFlat are"));
    }
    let index = flat(from)?;
    if !matches!(index.metric, Metric::L2 | Metric::InnerProduct) {
        return Err(from.wrong(format!("centroids by {} are not read here; those by l2 and ip are", index.metric)));
    }
    from.same("components of centroids", index.dim, head.dim)?;
    from.same("centroids", index.rows(), lists)?;
    let codes = index.lists.iter().flat_map(|list| list.codes.as_chunks().0);
    Ok((codes.map(|b| f32::from_le_bytes(*b)).collect(), index.metric))
}

/// Where rows are, which lists say as well.
fn direct_map(from: &mut Reader<'_>) -> Parsed<()> {
    let [kind] = from.array()?;
    if kind > 2 {
        return Err(from.wrong(format!("a direct map of kind {kind}, wanted 0, 1 or 2")));
    }
    from.vector(8)?;
    if kind == 2 {
        from.vector(16)?;
    }
    Ok(())
}

/// Lists of codes of so many bytes. There are as many centroids in the file, so that `lists` is no lie.
fn inverted_lists(from: &mut Reader<'_>, lists: usize, code_bytes: usize) -> Parsed<Vec<FaissList>> {
    from.tag = from.array()?;
    match &from.tag {
        b"ilar" => {}
        b"il00" => return Err(from.foreign("the lists are not in this file")),
        _ => return Err(from.foreign("lists of this kind are not read here; those in memory (`ilar`) are")),
    }
    let found = from.count("the number of lists", usize::MAX)?;
    from.same("lists", found, lists)?;
    let found = from.count("bytes of a code", usize::MAX)?;
    from.same("bytes of a code", found, code_bytes)?;
    let mut sizes = vec![0; lists];
    let kind = from.array()?;
    let numbers = from.vector(8)?.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b));
    match &kind {
        b"full" => {
            from.same("sizes of lists", numbers.len(), lists)?;
            sizes = numbers.collect();
        }
        b"sprs" => {
            for pair in numbers.collect::<Vec<u64>>().as_chunks().0 {
                let [list, size] = *pair;
                let of = usize::try_from(list).ok().and_then(|list| sizes.get_mut(list));
                *of.ok_or_else(|| from.wrong(format!("a size for list {list} of {lists}")))? = size;
            }
        }
        _ => return Err(from.wrong(format!("sizes as `{}`, wanted `full` or `sprs`", kind.escape_ascii()))),
    }
    let mut list = |size: u64| {
        let size = from.within("the size of a list", size, isize::MAX as usize)?;
        let bytes = from.product(size, code_bytes)?;
        let codes = from.take(bytes)?.to_vec();
        Ok(FaissList { codes, ids: from.ids(size)? })
    };
    sizes.into_iter().map(&mut list).collect()
}

/// `IxPT`.
fn transformed(from: &mut Reader<'_>, depth: usize) -> Parsed<FaissIndex> {
    let tag = from.tag;
    let head = header(from)?;
    let count = from.count32("the number of transforms", 64)?;
    let (mut transforms, mut dim) = (Vec::new(), head.dim);
    for _ in 0..count {
        let (transform, to) = transform(from, dim)?;
        transforms.push(transform);
        dim = to;
    }
    let inner = index(from, depth + 1)?;
    from.tag = tag;
    from.same("components after transforms", inner.dim, dim)?;
    from.same("rows", counted(&inner), head.rows)?;
    if inner.refine.is_some() {
        return Err(from.wrong("re-ranking within a transform is not read here"));
    }
    transforms.extend(inner.transforms);
    Ok(FaissIndex { dim: head.dim, transforms, ..inner })
}

/// A transform of vectors of `dim` components, and how many they have afterwards.
fn transform(from: &mut Reader<'_>, dim: usize) -> Parsed<(FaissTransform, usize)> {
    from.tag = from.array()?;
    let tag = from.tag;
    let mut linear = None;
    let mut other = None;
    let mut map = None;
    match &tag {
        b"rrot" | b"LTra" | b"PCAm" | b"PcAm" | b"Pcam" => {
            if tag.eq_ignore_ascii_case(b"pcam") {
                principal_components(from)?;
            }
            let biased = from.bool("whether there is a bias")?;
            linear = Some((biased, from.floats()?, from.floats()?));
        }
        b"VNrm" => {
            let norm = from.f32()?;
            if norm != 2.0 {
                return Err(from.wrong(format!("scales by the {norm}-norm, wanted the 2-norm")));
            }
            other = Some(FaissTransform::Normalize);
        }
        b"VCnt" => other = Some(FaissTransform::Centre(from.exactly("components of the mean", dim)?)),
        b"RmDT" => map = Some(from.vector(4)?.as_chunks().0),
        _ => {
            return Err(
                from.foreign("a transform that is not read here; there are PCA, OPQ, RR, L2norm, Center and Pad")
            );
        }
    }
    let found = from.count32("dim", MOST_FAISS_DIM)?;
    from.same("components that come in", found, dim)?;
    let to = from.count32("dim", MOST_FAISS_DIM)?;
    if !from.bool("whether it is trained")? {
        return Err(from.wrong(UNTRAINED));
    }
    if let Some((biased, matrix, bias)) = linear {
        from.same("numbers of the matrix", matrix.len(), dim * to)?;
        if biased {
            from.same("components of the bias", bias.len(), to)?;
        }
        let kind = tag.escape_ascii().to_string();
        return Ok((FaissTransform::Linear { matrix, bias: biased.then_some(bias), dim: to, kind }, to));
    }
    if let Some(map) = map {
        from.same("places of a map", map.len(), to)?;
        let straight = |(i, b): (usize, &[u8; 4])| i32::from_le_bytes(*b) == if i < dim { i as i32 } else { -1 };
        if !map.iter().enumerate().all(straight) {
            return Err(from.wrong("a map that mixes components is not read here; one that pads or cuts is"));
        }
        return Ok((FaissTransform::Resize { dim: to }, to));
    }
    from.same("components that come out", to, dim)?;
    // Every other kind has been returned or refused above.
    Ok((other.unwrap_or(FaissTransform::Normalize), to))
}

/// The training data that a PCA keeps; only the matrix and the bias after it are needed.
fn principal_components(from: &mut Reader<'_>) -> Parsed<()> {
    from.f32()?; // power of eigenvalues, which the matrix contains
    if &from.tag == b"Pcam" {
        from.f32()?;
    }
    from.bool("whether it is turned at random")?;
    if &from.tag != b"PCAm" {
        from.u32()?;
    }
    for _ in 0..3 {
        from.vector(4)?;
    }
    Ok(())
}

/// `IxRF`.
fn refined(from: &mut Reader<'_>, depth: usize) -> Parsed<FaissIndex> {
    let tag = from.tag;
    let head = header(from)?;
    let base = index(from, depth + 1)?;
    let again = index(from, depth + 1)?;
    from.tag = tag;
    // Faiss never looks at fewer candidates than results.
    let k_factor = Some(from.f32()?).filter(|factor| *factor > 1.0).map_or(1.0, |factor| factor.min(f32::MAX));
    for part in [&base, &again] {
        from.same("components", part.dim, head.dim)?;
        from.same("rows", counted(part), head.rows)?;
    }
    if again.metric != base.metric {
        return Err(from.wrong(format!("rows by {} to re-rank an index by {}", again.metric, base.metric)));
    }
    let plain = again.transforms.is_empty() && again.centroids.is_none() && again.refine.is_none();
    let [mut rows] = <[FaissList; 1]>::try_from(again.lists).map_err(|_| from.wrong("rows to re-rank from lists"))?;
    if !plain || base.refine.is_some() || matches!(again.codec, FaissCodec::Product { .. }) {
        return Err(from.wrong("re-ranking is read from IndexFlat and IndexScalarQuantizer only"));
    }
    let mut listed = vec![false; head.rows];
    for &id in base.lists.iter().flat_map(|list| &list.ids) {
        match usize::try_from(id).ok().and_then(|row| listed.get_mut(row)).filter(|listed| !**listed) {
            Some(first) if base.ids.is_none() && again.ids.is_none() => *first = true,
            _ => return Err(from.wrong("rows to re-rank are numbered from 0, those of the index are not")),
        }
    }
    if base.unlisted > 0 {
        rows.retain(again.codec.code_bytes(head.dim), |row, _| listed[row as usize]);
    }
    Ok(FaissIndex { refine: Some(FaissRows { codec: again.codec, rows, k_factor }), ..base })
}

/// `IxMp`, `IxM2`.
fn mapped(from: &mut Reader<'_>, depth: usize) -> Parsed<FaissIndex> {
    let tag = from.tag;
    let head = header(from)?;
    let inner = index(from, depth + 1)?;
    from.tag = tag;
    let count = from.count("the number of ids", isize::MAX as usize)?;
    let ids = from.ids(count)?;
    from.same("ids", ids.len(), head.rows)?;
    from.same("rows", counted(&inner), head.rows)?;
    from.same("components", inner.dim, head.dim)?;
    let outer = |row: &i64| {
        let id = usize::try_from(*row).ok().and_then(|row| ids.get(row));
        id.copied().ok_or_else(|| from.wrong(format!("row {row} has no id; there are {} ids", ids.len())))
    };
    let ids = match &inner.ids {
        Some(within) => within.iter().map(outer).collect::<Parsed<_>>()?,
        None => {
            inner.lists.iter().flat_map(|list| &list.ids).try_for_each(|row| outer(row).map(drop))?;
            ids
        }
    };
    Ok(FaissIndex { ids: Some(ids), ..inner })
}

/// Rows as Faiss counts them.
fn counted(index: &FaissIndex) -> usize {
    index.rows() + index.unlisted
}
