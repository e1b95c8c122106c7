//! `nearfield import`: an index file of Faiss as one of ours.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use nearfield::format::FaissIndex;
use nearfield::{AnyIndex, Device};
use serde_json::json;

use crate::common::{file, in_file};
use crate::outputs::Outputs;
use crate::{fail, ui};

/// Import an index file of Faiss
///
/// Flat, SQ, PQ and IVF of these, with transforms, Refine and ids. Codes are taken over as they are, so the same rows are
/// found at the same distances, up to rounding. What has to be otherwise is noted: rows with NaN are left out, ids that are
/// negative or used twice become others.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// The file that `faiss.write_index` wrote
    #[arg(value_name = "X.index")]
    faiss: PathBuf,
    /// Where the index goes; replaced at once or not at all
    #[arg(long, value_name = "X.nf")]
    out: PathBuf,
    /// Write a summary of the imported index as JSON
    #[arg(long, value_name = "OUT.json")]
    json: Option<PathBuf>,
}

pub fn run(args: &ImportArgs) -> Result<()> {
    let mut outputs = Outputs::begin(&[file(&args.out), args.json.as_ref()], &[file(&args.faiss)])?;
    let faiss = FaissIndex::read(&args.faiss)?;
    let (index, notes) = in_file(AnyIndex::from_faiss(&Device::cpu(), faiss), &args.faiss)?;
    notes.iter().for_each(|note| fail::tell("note", note));
    let size = outputs.index(&args.out, &index)?;
    let value = json!({
        "index": index.spec().to_string(),
        "metric": index.metric().to_string(),
        "dtype": index.dtype().to_string(),
        "dim": index.dim(),
        "rows": index.len(),
        "bytes": size,
        "notes": notes,
    });
    outputs.json(args.json.as_ref(), &value)?;
    outputs.commit()?;
    fail::print(&ui::built(&args.out, &index, size))
}
