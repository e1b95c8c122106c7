//! Indexes of Faiss as indexes of ours, code by code.

use std::collections::HashSet;

use half::{bf16, f16};

use super::{AnyIndex, Flat, Ivf};
use crate::engine::Device;
use crate::format::{FaissCodec, FaissIndex, FaissRows, Matrix};
use crate::index::BuildError;
use crate::threads;
use crate::types::{Metric, NO_ID};

/// Why an index of Faiss could not be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A part that nothing here corresponds to.
    #[error("{part}: {problem}")]
    Part {
        /// The part, e.g. `the rows to re-rank`.
        part: &'static str,
        /// What was found, and what there is.
        problem: String,
    },
    /// Rows, ids or parts that no index can have.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl AnyIndex {
    /// An index of Faiss, which finds the same rows at the same distances from then on: codes, centroids and matrices are
    /// taken over as they are, and so are ids, the number of lists probed and of candidates re-ranked per result (`k_factor`).
    /// Rows that are added later are coded as Faiss would code them.
    ///
    /// With the index come notes of what is otherwise than in Faiss, if anything is:
    /// - rows with NaN or infinity, which no search finds, are left out;
    /// - negative ids become the same 64 bits without a sign, and a row under an id that another row has (or under -1)
    ///   gets a number above all others;
    /// - parts are replaced by equal ones: `SQfp16` and `SQbf16` about centroids become f32, codes of 5 to 7 bits 8 bits.
    ///
    /// # Errors
    /// [`ImportError`] names the part that has no counterpart, or the row that cannot be.
    pub fn from_faiss(device: &Device, mut index: FaissIndex) -> Result<(AnyIndex, Vec<String>), ImportError> {
        let _entered = device.enter();
        let mut notes = Vec::new();
        let scalar = !matches!(index.codec, FaissCodec::Product { .. });
        if index.by_residual && scalar && (index.metric, index.lists_by) == (Metric::InnerProduct, Metric::L2) {
            let why = "Faiss adds the l2 distance of a list to the similarities of rows in it";
            notes.push(format!("{why}; here they are inner products, as they are with centroids by ip"));
        }
        widen(&mut index, &mut notes);
        leave_out(&mut index, &mut notes);
        let plain = index.transforms.is_empty() && index.centroids.is_none() && index.codec == FaissCodec::F32;
        if !plain {
            let index = Ivf::from_faiss(device, index, &mut notes)?;
            return Ok((AnyIndex::Ivf(index), notes));
        }
        if index.refine.as_ref().is_some_and(|refine| refine.codec != FaissCodec::F32) {
            notes.push("the rows to re-rank are left out: `Flat` rows are compared exactly already".to_owned());
        }
        let list = std::mem::take(&mut index.lists).into_iter().next().unwrap_or_default();
        let ids = own_ids(list.ids.iter().map(|&row| index.id(row)).collect(), &mut notes);
        let floats = list.codes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let rows = Matrix::from_vec::<f32>(floats, index.dim).map_err(BuildError::from)?;
        Ok((AnyIndex::Flat(Flat::from_matrix(device, rows, index.metric, ids)?), notes))
    }
}

/// Rows of f16 and bf16 about centroids become f32: here such rows are the rows themselves.
fn widen(index: &mut FaissIndex, notes: &mut Vec<String>) {
    let (dim, from) = (index.coded_dim(), index.codec.clone());
    let Some(centroids) = index.centroids.as_ref().filter(|_| index.by_residual) else { return };
    let name = match from {
        FaissCodec::F16 => "SQfp16",
        FaissCodec::Bf16 => "SQbf16",
        _ => return,
    };
    threads::each_with(
        1,
        index.lists.iter_mut().zip(centroids.chunks(dim)),
        || vec![0.0f32; dim],
        |row, (list, centroid)| {
            let mut wide = Vec::with_capacity(2 * list.codes.len());
            for code in list.codes.chunks_exact(from.code_bytes(dim)) {
                from.decode(code, row);
                row.iter().zip(centroid).for_each(|(r, c)| wide.extend((r + c).to_le_bytes()));
            }
            list.codes = wide;
        },
    );
    notes.push(format!("`{name}` about centroids becomes f32, which takes twice the memory and changes no distance"));
    index.codec = FaissCodec::F32;
}

/// Leaves out the rows that no search finds.
fn leave_out(index: &mut FaissIndex, notes: &mut Vec<String>) {
    let (given, coded) = (index.dim, index.coded_dim());
    let FaissIndex { lists, refine, codec, .. } = &mut *index;
    let (mut gone, mut lost) = (HashSet::new(), HashSet::new());
    if let Some(FaissRows { codec, rows, .. }) = &mut *refine {
        rows.retain(codec.code_bytes(given), |row, code| {
            finite(codec, code) || {
                gone.insert(row);
                false
            }
        });
    }
    let mut left_out = 0;
    for list in lists {
        let before = list.ids.len();
        list.retain(codec.code_bytes(coded), |row, code| {
            !gone.contains(&row)
                && (finite(codec, code) || {
                    lost.insert(row);
                    false
                })
        });
        left_out += before - list.ids.len();
    }
    if let Some(FaissRows { codec, rows, .. }) = refine {
        rows.retain(codec.code_bytes(given), |row, _| !lost.contains(&row));
    }
    index.unlisted += left_out;
    if index.unlisted > 0 {
        let (out, all) = (index.unlisted, index.rows() + index.unlisted);
        notes.push(format!(
            "{out} of {all} rows hold NaN or infinity, so that no search can find them; they are left out"
        ));
    }
}

/// Whether a code stands for finite numbers, where it is those numbers.
fn finite(codec: &FaissCodec, code: &[u8]) -> bool {
    match codec {
        FaissCodec::F32 => code.as_chunks().0.iter().all(|b| f32::from_le_bytes(*b).is_finite()),
        FaissCodec::F16 => code.as_chunks().0.iter().all(|b| f16::from_le_bytes(*b).is_finite()),
        FaissCodec::Bf16 => code.as_chunks().0.iter().all(|b| bf16::from_le_bytes(*b).is_finite()),
        _ => true,
    }
}

/// Ids as they are here, not negative and each of one row; absent where they are the numbers of the rows.
pub(super) fn own_ids(ids: Vec<i64>, notes: &mut Vec<String>) -> Option<Vec<u64>> {
    if ids.iter().copied().eq(0..ids.len() as i64) {
        return None;
    }
    let most = ids.iter().copied().max().unwrap_or(0).max(-1);
    if let Some(first) = ids.iter().find(|&&id| id < -1) {
        let negative = ids.iter().filter(|&&id| id < -1).count();
        notes.push(format!(
            "{negative} ids are negative; here ids are 64 bits without a sign: {first} is {}",
            *first as u64
        ));
    }
    let mut own: Vec<u64> = ids.into_iter().map(|id| id as u64).collect();
    // The largest stands for a row that is not there, here and in Faiss.
    let mut taken = HashSet::from([NO_ID]);
    let again: Vec<usize> = (0..own.len()).filter(|&row| !taken.insert(own[row])).collect();
    let free = (most as u64).wrapping_add(1)..;
    for (&row, id) in again.iter().zip(free.filter(|id| !taken.contains(id))) {
        own[row] = id;
    }
    if let (Some(&first), Some(&last)) = (again.first(), again.last()) {
        notes.push(format!(
            "{} rows have an id that a row before them has, or -1; they are known by new ids, from {} to {}, in their order",
            again.len(),
            own[first],
            own[last]
        ));
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::format::{read_ids, read_matrix};
    use crate::index::SearchOptions;
    use crate::types::RowsView;

    /// `scripts/make-faiss-files` makes these, with what Faiss finds in them.
    const FILES: [&str; 34] = [
        "center",
        "empty",
        "flat_ip",
        "flat_l1",
        "flat_l2",
        "flat_lp",
        "idmap",
        "idmap2_sq8",
        "ivf_flat",
        "ivf_flat_ip",
        "ivf_ids",
        "ivf_pq4x4",
        "ivf_pq4x4_ip",
        "ivf_pq_no_residual",
        "ivf_sparse",
        "ivf_sq6_ip",
        "ivf_sq8",
        "ivf_sq8_uniform",
        "ivf_sqfp16",
        "l2norm",
        "opq_pq",
        "pad",
        "pca_ivf_sq8",
        "pcar_flat",
        "pq2",
        "pq4x4",
        "refine",
        "refine_sq8",
        "rr_ivf_flat",
        "sq4",
        "sq6",
        "sq8",
        "sq8_direct",
        "sq8_direct_signed",
    ];

    fn path(file: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/faiss").join(file)
    }

    fn import(name: &str) -> AnyIndex {
        let index = FaissIndex::read(path(&format!("{name}.index"))).unwrap();
        AnyIndex::from_faiss(&Device::cpu(), index).unwrap_or_else(|e| panic!("{name}: {e}")).0
    }

    /// Ids and distances are those that Faiss found, equal ones in either order.
    fn answers_as_faiss(name: &str, index: &AnyIndex) {
        let queries = read_matrix(path("found.npz:queries")).unwrap();
        let ids = read_ids(path(&format!("found.npz:{name}_ids"))).unwrap();
        let wanted = read_matrix(path(&format!("found.npz:{name}_distances"))).unwrap();
        let RowsView::F32(wanted) = wanted.view() else { panic!("distances are f32") };
        let k = ids.shape[1];
        let options = SearchOptions::default().probes(64).rerank(40);
        let (found, _) = index.search_with(queries.view(), k, &options).unwrap();
        for q in 0..queries.rows() {
            let hits: Vec<(u64, f32)> = found.query(q).collect();
            assert_eq!(hits.len(), k.min(index.len()), "{name}");
            let wanted = wanted.row(q);
            for (place, &(id, near)) in hits.iter().enumerate() {
                let close = (near - wanted[place]).abs() <= 1e-3 * near.abs().max(0.1);
                let ties = |other: usize| (wanted[place] - wanted[other]).abs() <= 2e-4;
                let tie = place > 0 && ties(place - 1) || place + 1 >= k || ties(place + 1);
                let same = i64::try_from(id) == Ok(ids.ids[q * k + place]);
                assert!(close && (same || tie), "{name}, query {q}, place {place}: {id} at {near}, wanted {wanted:?}");
            }
        }
    }

    #[test]
    fn what_is_taken_over_finds_what_faiss_finds() {
        for name in FILES.into_iter().chain(["sqbf16", "sqfp16"]) {
            answers_as_faiss(name, &import(name));
        }
        // All other files are of what cannot be taken over.
        let files = std::fs::read_dir(path("")).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|file| file.extension().is_some_and(|e| e == "index")) {
            let stem = file.file_stem().unwrap().to_str().unwrap();
            if !FILES.contains(&stem) && !["sqbf16", "sqfp16"].contains(&stem) {
                assert!(FaissIndex::read(&file).is_err(), "{stem} can be read, so it belongs into the list of files");
            }
        }
    }

    #[test]
    fn it_is_saved_and_opened_as_any_other() {
        let folder = tempfile::tempdir().unwrap();
        for name in FILES.into_iter().filter(|name| *name != "empty") {
            let file = folder.path().join("x.nf");
            let index = import(name);
            index.save(&file).unwrap();
            let opened = AnyIndex::open(&Device::cpu(), &file).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(opened.spec(), index.spec());
            answers_as_faiss(name, &opened);
        }
    }

    #[test]
    fn specs_say_what_it_is_and_settings_stay() {
        for (name, spec) in [
            ("flat_lp", "Flat"),
            ("ivf_flat_ip", "IVF4,Flat"),
            ("ivf_sqfp16", "IVF4,Flat"),
            ("sqfp16", "SQfp16"),
            ("idmap2_sq8", "SQ8"),
            ("sq8_direct_signed", "SQ8"),
            ("ivf_pq4x4", "IVF4,PQ4x4"),
            ("pca_ivf_sq8", "PCA4,IVF4,SQ8"),
            ("opq_pq", "OPQ4,PQ4x4"),
            ("rr_ivf_flat", "RR8,IVF4,Flat"),
            ("refine", "PCA4,IVF4,SQ8,Refine(Flat)"),
            ("refine_sq8", "PQ4x4,Refine(SQ8)"),
            ("l2norm", "L2norm,Flat"),
            ("center", "Center,Flat"),
            ("pad", "Pad12,Flat"),
        ] {
            assert_eq!(import(name).spec().to_string(), spec, "{name}");
        }
        let AnyIndex::Ivf(index) = import("ivf_sqfp16") else { panic!("lists") };
        assert_eq!((index.probes(), index.lists()), (1, 4));
        let mut parts = FaissIndex::read(path("ivf_pq4x4.index")).unwrap();
        parts.probes = 3;
        let AnyIndex::Ivf(index) = AnyIndex::from_faiss(&Device::cpu(), parts).unwrap().0 else { panic!("lists") };
        assert_eq!(index.probes(), 3);
    }

    /// Every code is found by the vector that it stands for, also those of rows that come later.
    #[test]
    fn rows_can_be_added_and_removed() {
        for name in ["ivf_pq4x4", "ivf_pq_no_residual", "refine", "opq_pq", "idmap2_sq8", "pcar_flat", "ivf_sq6_ip"] {
            let AnyIndex::Ivf(mut index) = import(name) else { panic!("{name} has codes") };
            let rows: Vec<[f32; 8]> =
                (0..5).map(|i| std::array::from_fn(|j| ((i * 7 + j * 3) % 5) as f32 - 2.0)).collect();
            let ids = index.add(&rows).unwrap();
            assert_eq!(index.len(), 45);
            // Equal rows have equal codes, so of twins the older is found.
            let twins = index.add(&rows).unwrap();
            let options = SearchOptions::default().probes(4).rerank(50);
            let (found, _) = index.search_with(RowsView::from(&rows), 50, &options).unwrap();
            for q in 0..rows.len() {
                let all: Vec<(u64, f32)> = found.query(q).collect();
                let at = |id: u64| all.iter().find(|(i, _)| *i == id).expect("all are found").1;
                assert_eq!(at(ids[q]), at(twins[q]), "{name}");
            }
            assert_eq!(index.remove(&twins) + index.remove(&ids), 10);
            if name != "idmap2_sq8" {
                answers_as_faiss(name, &AnyIndex::Ivf(index));
            }
        }
    }

    #[test]
    fn what_has_no_counterpart_is_named() {
        let refused = |change: &dyn Fn(&mut FaissIndex), name: &str| {
            let mut index = FaissIndex::read(path(&format!("{name}.index"))).unwrap();
            change(&mut index);
            AnyIndex::from_faiss(&Device::cpu(), index).expect_err(name).to_string()
        };
        let said = refused(&|i| i.metric = Metric::L1, "ivf_flat");
        assert!(said.contains("IVF4") && said.contains("l2, ip or cosine"), "{said}");
        let said = refused(&|i| i.centroids.as_mut().unwrap()[9] = f32::NAN, "ivf_pq4x4");
        assert!(said.contains("centroids") && said.contains("number 9 is NaN"), "{said}");
        let narrow = |i: &mut FaissIndex| {
            let rows = i.refine.as_mut().unwrap();
            rows.codec = FaissCodec::Scalar { bits: 6, low: vec![0.0], step: vec![1.0] };
        };
        let said = refused(&narrow, "refine_sq8");
        assert!(said.contains("re-rank") && said.contains("SQ6"), "{said}");
        let said = refused(&|i| i.refine.as_mut().unwrap().rows.ids[3] = 40, "refine");
        assert_eq!(said, "the rows to re-rank: they are not those of the index");
    }
}
