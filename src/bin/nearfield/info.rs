//! `nearfield info`: what an index file says of itself, every byte verified.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use nearfield::FileInfo;
use nearfield::format::NfFile;
use serde_json::json;

use crate::common::file;
use crate::outputs::{self, Outputs};
use crate::{fail, ui};

/// Verify an index file and say what is in it
#[derive(Args, Debug)]
pub struct InfoArgs {
    /// The index file
    #[arg(value_name = "X.nf")]
    index_file: PathBuf,
    /// Write the same as JSON
    #[arg(long, value_name = "OUT.json")]
    json: Option<PathBuf>,
}

pub fn run(args: &InfoArgs) -> Result<()> {
    outputs::check(&[args.json.as_ref()], &[file(&args.index_file)])?;
    let nf = NfFile::open(&args.index_file)?;
    let info = FileInfo::read(&nf)?;
    let end = nf.sections().iter().map(|s| s.offset + s.len).max().unwrap_or(0);
    let mut text = format!(
        "{}\n  index     {}, {}\n  rows      {} of {} {}, {}\n  ids       {}\n",
        args.index_file.display(),
        info.spec,
        info.metric,
        ui::count(info.rows as u64),
        info.dim,
        info.dtype,
        ui::bytes(info.dtype.row_bytes(info.dim) as u64 * info.rows as u64),
        if info.has_ids { "given by its maker" } else { "the row numbers" },
    );
    if let Some(dim) = info.code_dim {
        let _ = writeln!(text, "  codes     {dim} bytes a row, for the int8 screen");
    }
    let _ = writeln!(text, "  file      {}, all checksums are right", ui::bytes(end));
    for (i, s) in nf.sections().iter().enumerate() {
        let head = if i == 0 { "sections" } else { "" };
        let size = ui::bytes(s.len);
        let _ = writeln!(text, "  {head:<9} {:<10} {size:>10} at byte {:<8} crc32 {:08x}", s.name, s.offset, s.crc32);
    }
    let sections: Vec<_> = nf
        .sections()
        .iter()
        .map(|s| json!({"name": s.name, "offset": s.offset, "bytes": s.len, "crc32": format!("{:08x}", s.crc32)}))
        .collect();
    let value = json!({
        "index": info.spec.to_string(),
        "metric": info.metric.to_string(),
        "dtype": info.dtype.to_string(),
        "dim": info.dim,
        "rows": info.rows,
        "has_ids": info.has_ids,
        "screen": info.screen.map(|s| s.to_string()),
        "code_dim": info.code_dim,
        "bytes": end,
        "sections": sections,
    });
    let mut outputs = Outputs::default();
    outputs.json(args.json.as_ref(), &value)?;
    outputs.commit()?;
    fail::print(&text)
}
