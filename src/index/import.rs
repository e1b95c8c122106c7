//! Indexes of Faiss as indexes of ours, code by code.

use super::{AnyIndex, Flat, Ivf};
use crate::engine::Device;
use crate::format::{FaissCodec, FaissIndex, Matrix};
use crate::index::BuildError;

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
    /// Rows are known by numbers of 0 or more here.
    #[error("row {row} has the id {id}, wanted 0 or more")]
    Id {
        /// The row, counted from the first.
        row: usize,
        /// Its id.
        id: i64,
    },
    /// Rows, ids or parts that no index can have.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl AnyIndex {
    /// An index of Faiss, which finds the same rows at the same distances from then on: codes, centroids and matrices are
    /// taken over as they are, and so are ids and the number of lists probed.
    ///
    /// [`Ivf::warnings`] tells which parts were replaced by an equal one: `SQfp16` and `SQbf16` about centroids become f32.
    /// Rows that are added later are coded as Faiss would code them.
    ///
    /// # Errors
    /// [`ImportError`] names the part that has no counterpart, or the row that cannot be.
    pub fn from_faiss(device: &Device, index: FaissIndex) -> Result<AnyIndex, ImportError> {
        let _entered = device.enter();
        let plain = index.transforms.is_empty() && index.centroids.is_none() && index.codec == FaissCodec::F32;
        if !plain {
            return Ivf::from_faiss(device, index).map(AnyIndex::Ivf);
        }
        let list = index.lists.into_iter().next().unwrap_or_default();
        let ids = own_ids(&list.ids)?;
        let floats = list.codes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let rows = Matrix::from_vec::<f32>(floats, index.dim).map_err(BuildError::from)?;
        Ok(AnyIndex::Flat(Flat::from_matrix(device, rows, index.metric, ids)?))
    }
}

/// Ids as they are here; absent where they are the numbers of the rows.
pub(super) fn own_ids(ids: &[i64]) -> Result<Option<Vec<u64>>, ImportError> {
    if ids.iter().copied().eq(0..ids.len() as i64) {
        return Ok(None);
    }
    let own = |(row, &id): (usize, &i64)| u64::try_from(id).map_err(|_| ImportError::Id { row, id });
    ids.iter().enumerate().map(own).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::format::{read_ids, read_matrix};
    use crate::index::SearchOptions;
    use crate::types::{Metric, RowsView};

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
        AnyIndex::from_faiss(&Device::cpu(), index).unwrap_or_else(|e| panic!("{name}: {e}"))
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
        assert!(index.warnings()[0].contains("f32"), "{:?}", index.warnings());
        assert_eq!((index.probes(), index.lists()), (1, 4));
        let mut parts = FaissIndex::read(path("ivf_pq4x4.index")).unwrap();
        parts.probes = 3;
        let AnyIndex::Ivf(index) = AnyIndex::from_faiss(&Device::cpu(), parts).unwrap() else { panic!("lists") };
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
        let said = refused(&|i| i.lists[0].ids[3] = -7, "flat_l2");
        assert_eq!(said, "row 3 has the id -7, wanted 0 or more");
        let said = refused(&|i| i.lists[0].ids[3] = 4, "sq8");
        assert!(said.contains("id 4") && said.contains("taken"), "{said}");
        let said = refused(&|i| i.lists[0].ids[3] = -1, "ivf_sq8");
        assert!(said.contains("id -1"), "{said}");
        let said = refused(&|i| i.centroids.as_mut().unwrap()[9] = f32::NAN, "ivf_pq4x4");
        assert!(said.contains("centroids") && said.contains("number 9 is NaN"), "{said}");
        let narrow = |i: &mut FaissIndex| {
            let rows = i.refine.as_mut().unwrap();
            rows.codec = FaissCodec::Scalar { bits: 6, low: vec![0.0], step: vec![1.0] };
        };
        let said = refused(&narrow, "refine_sq8");
        assert!(said.contains("re-rank") && said.contains("SQ6"), "{said}");
        let said = refused(&|i| i.lists[0].codes[..4].copy_from_slice(&f32::NAN.to_le_bytes()), "rr_ivf_flat");
        assert!(said.contains("no finite vector"), "{said}");
    }
}
