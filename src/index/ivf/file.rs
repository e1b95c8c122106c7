//! `Ivf` in `.nf` files: `meta` as for a Flat, `transform` and `codec` as they write themselves, `centroids`, and the
//! lists one after the other: `list_rows` (u32 each), `list_words`, `list_positions`, `list_add`, `list_scale`. Rows for re-ranking are `rows`, or codes in a list of their own (`better_...`, `better_codec`).

use std::path::Path;

use super::super::file::{ids, saved_rows};
use super::super::roster::Roster;
use super::super::rowbuf::{RowBuf, Rows};
use super::super::store::Store;
use super::super::{FileInfo, OpenError, RerankSpec};
use super::build::moved;
use super::{Ivf, Kept, Rerank, Settings, UNSORTED, inner, sorted_by};
use crate::codec::transform::Transform;
use crate::codec::{self, Codec};
use crate::compute::Tag;
use crate::engine::Device;
use crate::format::{AtomicFile, NfFile, NfWriter, SaveError};
use crate::index::{BuildError, CodecSpec};
use crate::ops::lists::{BLOCK, Form, List, Lists, floats};
use crate::types::{Bitmap, DType, Metric};

impl Ivf {
    /// [`Index::stage`](crate::Index::stage).
    pub(super) fn write(&self, path: &Path) -> Result<AtomicFile, SaveError> {
        let roster = self.kept.roster();
        let mut file = NfWriter::create(path)?;
        let mut meta = format!(
            "index {}\nmetric {}\ndtype {}\ndim {}\nrows {}\nnext_id {}\nprobes {}\ncode_error {:?}\n",
            self.spec,
            self.metric,
            self.dtype(),
            self.dim,
            self.len(),
            roster.next_id(),
            self.settings.probes,
            self.lists.error
        );
        match self.settings.rerank {
            Rerank::Auto => {}
            Rerank::Rows(rows) => meta += &format!("refine {rows}\n"),
            Rerank::Times(factor) => meta += &format!("refine_factor {factor:?}\n"),
        }
        if let Some(coarse) = self.coarse.as_ref().filter(|coarse| coarse.metric() != sorted_by(self.metric)) {
            meta += &format!("lists_by {}\n", coarse.metric());
        }
        if !self.residual {
            meta += "residual no\n";
        }
        file.section("meta", [meta])?;
        file.section("transform", [self.transform.write()])?;
        file.section("codec", [self.codec.write()])?;
        if let Some(coarse) = &self.coarse {
            let view = coarse.view();
            file.section("centroids", (0..view.rows()).map(|r| view.row_bytes(r)))?;
        }
        write_lists(&mut file, "list", &self.lists, roster.live(), self.coarse.is_none())?;
        match &self.kept {
            Kept::Ids(_) => {}
            Kept::Rows(store) => saved_rows(&mut file, &store.view(), &roster.live_runs())?,
            Kept::Codes(_, lists, codec) => {
                file.section("better_codec", [codec.write()])?;
                write_lists(&mut file, "better", lists, roster.live(), false)?;
            }
        }
        if let Some(ids) = roster.live_ids() {
            file.section("ids", [bytemuck::cast_slice::<u64, u8>(&ids)])?;
        }
        file.stage()
    }

    /// Opens an index file: verifies every byte. Rows for re-ranking are mapped, not copied.
    ///
    /// # Errors
    /// [`OpenError`] naming the file and what is wrong with it.
    pub fn open(device: &Device, path: impl AsRef<Path>) -> Result<Ivf, OpenError> {
        let _entered = device.enter();
        let file = NfFile::open(path)?;
        let info = FileInfo::read(&file)?;
        let index = Ivf::read(device, &file, info)?;
        file.check_unchanged()?;
        Ok(index)
    }

    /// The index in a file that is open and verified.
    pub(in crate::index) fn read(device: &Device, file: &NfFile, info: FileInfo) -> Result<Ivf, OpenError> {
        let from = Saved { file, info };
        let transform = from.transform()?;
        let coded = transform.output_dim();
        let FileInfo { spec, metric, dim, .. } = &from.info;
        let codec = if spec.binary { codec::bits(*dim) } else { from.codec("codec", spec.codec, coded)? };
        let coarse = from.centroids(coded)?;
        Ok(Ivf {
            device: device.untied(),
            spec: spec.clone(),
            metric: *metric,
            dim: *dim,
            transform: transform.into(),
            lists: from.lists(&*codec)?,
            residual: !FileInfo::value(file, "residual").is_ok_and(|value| value == "no"),
            tag: Tag::new(),
            kept: from.kept()?,
            warnings: Vec::new(),
            settings: from.settings(coarse.as_ref().map_or(1, Store::slots))?,
            coarse: coarse.map(Into::into),
            codec: codec.into(),
        })
    }
}

/// A file and what it says of itself, of which the parts of an index are read.
struct Saved<'f> {
    file: &'f NfFile,
    info: FileInfo,
}

impl Saved<'_> {
    fn problem(&self, problem: String) -> OpenError {
        OpenError::Meta { path: self.file.path().to_owned(), problem }
    }

    fn rows_problem(&self, source: BuildError) -> OpenError {
        OpenError::Rows { path: self.file.path().to_owned(), source }
    }

    /// The transform, of an index whose spec fits its rows.
    fn transform(&self) -> Result<Transform, OpenError> {
        let FileInfo { spec, metric, dim, .. } = &self.info;
        if spec.is_flat() {
            return Err(self.problem(format!("its index is `{spec}`, which has no lists")));
        }
        spec.check(*dim, *metric, None).map_err(|e| self.problem(e.to_string()))?;
        let transform = Transform::read(self.file.section("transform")?);
        let transform = transform.map_err(|e| self.problem(format!("`transform`: {e}")))?;
        let takes = transform.input_dim();
        if takes != *dim {
            return Err(self.problem(format!("`transform` takes {takes} components, rows have {dim}")));
        }
        Ok(transform)
    }

    fn codec(&self, name: &str, spec: CodecSpec, dim: usize) -> Result<Box<dyn Codec>, OpenError> {
        codec::read(spec, dim, self.file.section(name)?).map_err(|e| self.problem(format!("`{name}`: {e}")))
    }

    /// The centroids, where rows are sorted into lists.
    fn centroids(&self, coded: usize) -> Result<Option<Store>, OpenError> {
        let FileInfo { spec, metric, .. } = &self.info;
        let Some(lists) = spec.lists else { return Ok(None) };
        let dtype = if spec.binary { DType::Bits } else { DType::F32 };
        let centroids = self.file.matrix("centroids", dtype, lists, coded)?;
        let mut owned = RowBuf::new(dtype, coded);
        owned.extend(&centroids.view());
        let by = match FileInfo::value(self.file, "lists_by") {
            Ok("l2") => Metric::L2,
            Ok("ip") => Metric::InnerProduct,
            Ok(by) => return Err(self.problem(format!("`lists_by` is `{by}`, wanted l2 or ip"))),
            Err(_) => sorted_by(*metric),
        };
        let store = Store::over(by, Rows::Owned(owned.into()), None, 0);
        store.map(Some).map_err(|e| self.rows_problem(e))
    }

    /// The lists of codes, as many as the spec says.
    fn lists(&self, codec: &dyn Codec) -> Result<Lists, OpenError> {
        let FileInfo { spec, metric, rows, .. } = &self.info;
        let mut lists = Lists::new(codec.form(), codec.parts(), 0);
        lists.lists = read_lists(self.file, "list", codec, *rows, wanted(codec, inner(*metric, spec.codec)))?;
        lists.number();
        let error = FileInfo::value(self.file, "code_error")?;
        lists.error = error
            .parse()
            .ok()
            .filter(|e: &f32| *e >= 0.0 && e.is_finite())
            .ok_or_else(|| self.problem(format!("`code_error` is `{error}`, wanted a number from 0")))?;
        let found = lists.lists.len();
        if spec.lists.is_some_and(|wanted| wanted != found) {
            return Err(self.problem(format!("`list_rows` has {found} lists for `{spec}`")));
        }
        if spec.lists.is_none() && found != rows.div_ceil(UNSORTED) {
            return Err(self.problem(format!("`list_rows` has {found} lists for {rows} rows of `{spec}`")));
        }
        Ok(lists)
    }

    /// What is kept of rows beside their codes.
    fn kept(&self) -> Result<Kept, OpenError> {
        let FileInfo { spec, metric, dtype, dim, rows, next_id, .. } = &self.info;
        let ids = self.info.has_ids.then(|| ids(self.file, *rows)).transpose()?;
        if let Some(RerankSpec::Flat | RerankSpec::F16) = spec.rerank {
            let matrix = self.file.matrix("rows", *dtype, *rows, *dim)?;
            let store = Store::over(*metric, Rows::Mapped(matrix), ids, *next_id);
            return Ok(Kept::Rows(Box::new(store.map_err(|e| self.rows_problem(e))?)));
        }
        let roster = Roster::of(*rows, ids.as_deref(), *next_id).map_err(|e| self.rows_problem(e))?;
        if spec.rerank.is_none() {
            return Ok(Kept::Ids(roster));
        }
        let better = self.codec("better_codec", CodecSpec::Scalar { bits: 8 }, *dim)?;
        let mut one = Lists::new(better.form(), better.parts(), 0);
        one.lists = read_lists(self.file, "better", &*better, *rows, wanted(&*better, Metric::InnerProduct))?;
        one.number();
        let mut rising = one.lists.iter().flat_map(|l| &l.positions).enumerate();
        if one.lists.len() != 1 || rising.any(|(i, &p)| p as usize != i) {
            return Err(self.problem("`better_positions` are not those of all rows in order".to_owned()));
        }
        Ok(Kept::Codes(roster, one, better.into()))
    }

    fn settings(&self, lists: usize) -> Result<Settings, OpenError> {
        let FileInfo { rerank, rerank_factor, .. } = self.info;
        let rerank = match (rerank, rerank_factor) {
            (Some(rows), _) => Rerank::Rows(rows.max(1)),
            (None, Some(factor)) => Rerank::Times(factor),
            (None, None) => Rerank::Auto,
        };
        Ok(Settings { probes: FileInfo::number(self.file, "probes")?.clamp(1, lists.max(1)), rerank })
    }
}

/// Which numbers rows have beside codes: `add`, `scale`, as a row without rows says.
fn wanted(codec: &dyn Codec, metric: Metric) -> [bool; 2] {
    let zero = vec![0.0; codec.dim()];
    match crate::types::MatrixView::new(&zero, codec.dim()) {
        Ok(view) if !codec.form().is_exact() => {
            let one = codec.encode(metric, view, &[0], &zero);
            [&one.add, &one.scale].map(|numbers| !numbers.is_empty())
        }
        _ => [false; 2],
    }
}

/// The sections of lists; rows that are gone are left out, and the positions are those afterwards.
fn write_lists(
    file: &mut NfWriter,
    name: &str,
    lists: &Lists,
    live: Option<&Bitmap>,
    unsorted: bool,
) -> Result<(), SaveError> {
    let packed = live.map(|live| {
        let (mut packed, moved) = (lists.clone(), moved(live));
        packed.retain(|p| moved[p as usize]);
        if unsorted {
            packed.regroup(UNSORTED);
        }
        packed
    });
    let lists = &packed.as_ref().unwrap_or(lists).lists;
    let rows: Vec<u32> = lists.iter().map(|l| l.len() as u32).collect();
    file.section(&format!("{name}_rows"), [bytemuck::cast_slice::<u32, u8>(&rows)])?;
    file.section(&format!("{name}_words"), lists.iter().map(|l| bytemuck::cast_slice::<u32, u8>(&l.words)))?;
    file.section(&format!("{name}_positions"), lists.iter().map(|l| bytemuck::cast_slice::<u32, u8>(&l.positions)))?;
    file.section(&format!("{name}_add"), lists.iter().map(|l| bytemuck::cast_slice::<f32, u8>(&l.add)))?;
    file.section(&format!("{name}_scale"), lists.iter().map(|l| bytemuck::cast_slice::<f32, u8>(&l.scale)))
}

/// Lists of which every length and number is checked; each of `rows` rows must be in one of them.
fn read_lists(
    file: &NfFile,
    name: &str,
    codec: &dyn Codec,
    rows: usize,
    numbers: [bool; 2],
) -> Result<Vec<List>, OpenError> {
    let problem = |problem: String| OpenError::Meta { path: file.path().to_owned(), problem };
    let words = |part: &str| -> Result<Vec<u32>, OpenError> {
        let bytes = file.section(&format!("{name}_{part}"))?;
        match bytes.len() % 4 {
            0 => Ok(bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()),
            _ => Err(problem(format!("`{name}_{part}` has {} bytes, wanted numbers of 4", bytes.len()))),
        }
    };
    let lengths = words("rows")?;
    let total: usize = lengths.iter().map(|&l| l as usize).sum();
    if total != rows {
        return Err(problem(format!("the lists of `{name}_rows` hold {total} rows, wanted {rows}")));
    }
    let each = codec.form().words(codec.parts());
    let blocks: usize = lengths.iter().map(|&l| (l as usize).div_ceil(BLOCK)).sum();
    let (codes, positions) = (words("words")?, words("positions")?);
    if Some(codes.len()) != blocks.checked_mul(each * BLOCK) {
        return Err(problem(format!("`{name}_words` has {} words, wanted {blocks} blocks", codes.len())));
    }
    if let Form::Rows(dtype) = codec.form() {
        let word = |word: &u32| floats(dtype, &word.to_le_bytes()).iter().all(|x| x.is_finite());
        if let Some(at) = codes.iter().position(|w| !word(w)) {
            return Err(problem(format!("word {at} of `{name}_words` holds no finite number")));
        }
    }
    let mut seen = Bitmap::new(rows, false);
    for &p in &positions {
        if p as usize >= rows || seen.get(p as usize) {
            return Err(problem(format!("`{name}_positions` has {p} twice or beyond the {rows} rows")));
        }
        seen.set(p as usize, true);
    }
    if positions.len() != rows {
        return Err(problem(format!("`{name}_positions` has {} numbers, wanted {rows}", positions.len())));
    }
    let numbers_of = |part: &str, wanted: bool| -> Result<Vec<f32>, OpenError> {
        let numbers: Vec<f32> = words(part)?.into_iter().map(f32::from_bits).collect();
        let count = if wanted { rows } else { 0 };
        if numbers.len() != count || numbers.iter().any(|x| !x.is_finite()) {
            return Err(problem(format!("`{name}_{part}` has {} numbers, wanted {count} finite ones", numbers.len())));
        }
        Ok(numbers)
    };
    let beside = [numbers_of("add", numbers[0])?, numbers_of("scale", numbers[1])?];
    let (mut row, mut word) = (0, 0);
    let mut lists = Vec::with_capacity(lengths.len());
    for &len in &lengths {
        let (rows, taken) = (row..row + len as usize, (len as usize).div_ceil(BLOCK) * each * BLOCK);
        let some = |numbers: &[f32]| numbers.get(rows.clone()).unwrap_or(&[]).to_vec();
        lists.push(List {
            words: codes[word..word + taken].to_vec(),
            add: some(&beside[0]),
            scale: some(&beside[1]),
            positions: positions[rows.clone()].to_vec(),
        });
        (row, word) = (rows.end, word + taken);
    }
    Ok(lists)
}
