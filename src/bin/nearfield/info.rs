//! `nearfield info`: what an index file says of itself, every byte verified.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use nearfield::FileInfo;
use nearfield::format::NfFile;
use serde_json::json;

use crate::common::file;
use crate::outputs::Outputs;
use crate::{fail, ui};

/// Verify an index file and print its contents
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
    let mut outputs = Outputs::begin(&[args.json.as_ref()], &[file(&args.index_file)])?;
    let nf = NfFile::open(&args.index_file)?;
    let info = FileInfo::read(&nf)?;
    let end = nf.sections().iter().map(|s| s.offset + s.len).max().unwrap_or(0);
    let mut text = format!(
        "{}\n  index     {}, {}\n  rows      {} of {} {}{}\n  ids       {}\n",
        args.index_file.display(),
        info.spec,
        info.metric,
        ui::count(info.rows as u64),
        info.dim,
        info.dtype,
        if nf.has("rows") {
            format!(", {}", ui::bytes(info.dtype.row_bytes(info.dim) as u64 * info.rows as u64))
        } else {
            ", of which only codes are kept".to_owned()
        },
        if info.has_ids { "given by its maker" } else { "the row numbers" },
    );
    if let Some(dim) = info.code_dim {
        let _ = writeln!(text, "  codes     {dim} bytes per row, for the int8 screen");
    }
    if let Some(probes) = info.probes {
        let ranked = match (info.rerank, info.rerank_factor) {
            (Some(rows), _) => format!("{rows} rows"),
            (None, Some(factor)) => format!("{factor} rows for each of k"),
            (None, None) => "as many as suit k and codes".to_owned(),
        };
        let lists = match info.spec.lists {
            Some(lists) => format!("probes {probes} of {} lists", ui::count(lists as u64)),
            None => "scans all codes".to_owned(),
        };
        let _ = writeln!(text, "  search    {lists}; re-ranks {ranked}");
        let _ = writeln!(text, "  bytes     {}", row_bytes(&nf, info.rows));
    }
    let _ = writeln!(text, "  file      {}, all checksums are right", ui::bytes(end));
    for (i, s) in nf.sections().iter().enumerate() {
        let head = if i == 0 { "sections" } else { "" };
        let size = ui::bytes(s.len);
        let _ = writeln!(text, "  {head:<9} {:<14} {size:>10} at byte {:<8} crc32 {:08x}", s.name, s.offset, s.crc32);
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
        "nprobe": info.probes,
        "rerank": info.rerank,
        "rerank_factor": info.rerank_factor,
        "bytes": end,
        "sections": sections,
    });
    outputs.json(args.json.as_ref(), &value)?;
    outputs.commit()?;
    fail::print(&text)
}

/// Bytes of a row: its code with the numbers beside it, and the row that it is re-ranked from.
fn row_bytes(nf: &NfFile, rows: usize) -> String {
    let each = |of: &dyn Fn(&str) -> bool| {
        let bytes: u64 = nf.sections().iter().filter(|s| of(&s.name)).map(|s| s.len).sum();
        bytes as f64 / rows.max(1) as f64
    };
    let codes = each(&|name| name.starts_with("list_") && name != "list_rows");
    let better = each(&|name| name == "rows" || name.starts_with("better_"));
    let text = format!("{codes:.1} per row in codes");
    if better > 0.0 { format!("{text}, {better:.1} to rank from") } else { text }
}
