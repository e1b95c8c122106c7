//! `--stats`: statistics of a search, as a block for people and as JSON for programs.

use std::io::stderr;
use std::time::Duration;

use nearfield::SearchStats;
use serde_json::{Value, json};

use crate::ui::{bytes, count, rate, time, width_of, wrap};

/// As a block of lines, `queries` of them having taken `wall` in all.
pub fn block(stats: &SearchStats, queries: usize, wall: Duration) -> String {
    let mut lines = vec![("device", stats.device.clone()), ("kernels", stats.kernels.join(", "))];
    lines.push(("read", format!("{} of rows, {} row-query pairs", bytes(stats.bytes_read), count(stats.scanned))));
    if stats.refined + stats.proven + stats.fell_back > 0 {
        let screen = format!(
            "{} candidates recomputed; {} queries proven, {} answered by the direct pass",
            count(stats.refined),
            count(stats.proven),
            count(stats.fell_back)
        );
        lines.push(("screen", screen));
    }
    if stats.chunks_uploaded > 0 {
        lines.push(("uploads", format!("{} parts of the base", count(stats.chunks_uploaded))));
    }
    for (i, stage) in stats.stages.iter().enumerate() {
        let clock = if stage.on_device { "  (by the device's clock)" } else { "" };
        let head = if i == 0 { "stages" } else { "" };
        lines.push((head, format!("{:<12} {:>9}{clock}", stage.name, time(stage.time))));
    }
    let per_second = rate(queries as f64 / wall.as_secs_f64().max(1e-9));
    lines.push(("in all", format!("{} for {} queries, {per_second} per second", time(wall), count(queries as u64))));
    if let Some(reason) = &stats.fallback {
        lines.push(("fallback", reason.clone()));
    }
    let line = |(head, text): &(&str, String)| format!("{head:<9} {}\n", wrap(text, width_of(&stderr()), 10, 10));
    lines.iter().filter(|(_, text)| !text.is_empty()).map(line).collect()
}

/// The same as JSON.
pub fn json(stats: &SearchStats, queries: usize, wall: Duration) -> Value {
    let stages: Vec<Value> = stats
        .stages
        .iter()
        .map(|s| json!({"name": s.name, "ms": s.time.as_secs_f64() * 1e3, "on_device": s.on_device}))
        .collect();
    json!({
        "device": stats.device,
        "kernels": stats.kernels,
        "queries": queries,
        "ms": wall.as_secs_f64() * 1e3,
        "bytes_read": stats.bytes_read,
        "scanned": stats.scanned,
        "refined": stats.refined,
        "proven": stats.proven,
        "fell_back": stats.fell_back,
        "chunks_uploaded": stats.chunks_uploaded,
        "stages": stages,
        "fallback": stats.fallback,
    })
}
