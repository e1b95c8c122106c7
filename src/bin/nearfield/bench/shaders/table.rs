//! The report on a terminal.

use std::fmt::Write;

use super::record::{Ceilings, Report, Row};
use crate::ui;

pub fn text(report: &Report) -> String {
    let device = &report.device;
    let about = [device.backend.as_deref(), Some(device.kind.as_str()), device.driver.as_deref()];
    let about: Vec<&str> = about.into_iter().flatten().filter(|part| *part != "cpu").collect();
    let mut text = format!("{}\n", ui::bold(&device.name));
    if !about.is_empty() {
        _ = writeln!(text, "{}", about.join(", "));
    }
    for (head, line) in ceilings(&report.ceilings, device.kind == "cpu") {
        _ = writeln!(text, "{head:<12}{}", ui::wrap(&line, ui::width(), 12, 12));
    }
    let timed = match report.timed_by.as_str() {
        "wall clock" => "timed by wall clock (this device has no timestamps): starting and waiting count",
        _ => "timed by GPU timestamps: starting, copying and waiting do not count",
    };
    let timed = if device.kind == "cpu" { "timed by wall clock" } else { timed };
    _ = writeln!(text, "\n{}\n", ui::wrap(timed, ui::width(), 0, 0));
    let header = ["kernel", "shape", "median", "noise", "GB/s", "Gop/s", "share", "roof"];
    text += &ui::table(header, report.rows.iter().map(cells));
    let past: Vec<String> = report
        .rows
        .iter()
        .filter_map(|row| Some(format!("! {} {}: {}", row.name, row.shape, row.fault.as_ref()?)))
        .collect();
    for line in past {
        _ = writeln!(text, "{}", ui::wrap(&line, ui::width(), 0, 2));
    }
    text
}

fn cells(row: &Row) -> [String; 8] {
    let mark = if row.fault.is_some() { " !" } else { "" };
    [
        row.name.clone(),
        ui::shape(&row.shape),
        time(row.median_s),
        format!("{:.0} %", 100.0 * row.mad_s / row.median_s),
        rate(row.gbs),
        rate(row.gflops),
        format!("{:.0} %{mark}", 100.0 * row.share),
        row.bound.clone(),
    ]
}

/// The ceilings in lines: what it is, and how much.
fn ceilings(c: &Ceilings, cpu: bool) -> Vec<(&'static str, String)> {
    let (caches, memory) = match c.read.split_last() {
        Some((memory, caches)) => {
            (caches, format!("{} GB/s read from {}, ", rate(memory.gbs), ui::bytes(memory.bytes)))
        }
        None => (&[][..], String::new()),
    };
    let small: Vec<String> =
        caches.iter().map(|r| format!("{} GB/s from {}", rate(r.gbs), ui::bytes(r.bytes))).collect();
    let measured =
        |gops: f64| if gops >= 10_000.0 { format!("{:.1} Top/s", gops / 1e3) } else { format!("{} Gop/s", rate(gops)) };
    let rates: Vec<String> =
        c.arithmetic.iter().filter_map(|a| Some(format!("{} {} ({})", a.unit, measured(a.gops?), a.note))).collect();
    let absent: Vec<String> =
        c.arithmetic.iter().filter(|a| a.gops.is_none()).map(|a| format!("{}: {}", a.unit, a.note)).collect();
    let mut latency =
        time(c.launch_s) + if cpu { " to wake every thread" } else { " to start a kernel and see it end" };
    if let Some(seconds) = c.read_back_s {
        latency += &format!(", {} with its result read back", time(seconds));
    }
    let lines = [
        ("memory", format!("{memory}{} GB/s copied", rate(c.copy_gbs))),
        ("caches", small.join(", ")),
        ("arithmetic", rates.join(", ")),
        ("without", absent.join("; ")),
        ("latency", latency),
    ];
    lines.into_iter().filter(|(_, line)| !line.is_empty()).collect()
}

/// Seconds, from microseconds up.
pub fn time(seconds: f64) -> String {
    match seconds * 1e6 {
        us if us < 10.0 => format!("{us:.1} us"),
        us if us < 1_000.0 => format!("{us:.0} us"),
        us => ui::ms(us / 1e3),
    }
}

fn rate(x: f64) -> String {
    match x {
        x if x >= 100.0 => ui::count(x.round() as u64),
        x if x >= 10.0 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}
