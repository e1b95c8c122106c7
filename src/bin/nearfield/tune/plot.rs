//! Recall and speed of the settings, as a picture: one line per spec, the chosen setting marked.

use std::fmt::Write;
use std::path::Path;

use nearfield::{Tuned, TunedPoint};

use crate::ui;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 620.0;
/// The plot's edges.
const LEFT: f64 = 90.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 90.0;
const BOTTOM: f64 = 550.0;
/// Where the names of the lines begin.
const NAMES: f64 = 668.0;

/// Told apart by the colour-blind (after Okabe and Ito), dark enough on white.
const COLOURS: [&str; 8] = ["#0072b2", "#d1490b", "#00795a", "#b0418a", "#8c6d1f", "#5b4bb5", "#2b7f9e", "#555555"];

const STYLE: &str = "text{font-family:'Helvetica Neue',Helvetica,Arial,'Liberation Sans',sans-serif;fill:#222;font-size:14px}\
.title{font-size:22px;font-weight:bold}.sub,.tick{fill:#555;font-size:13px}.name{font-size:13px;font-weight:bold}";

/// The picture.
pub fn svg(tuned: &Tuned, base: &Path, goal: f32) -> String {
    let points = &tuned.points;
    let least = points.iter().map(|p| p.checked).fold(f64::from(goal), f64::min).min(0.99);
    let low = (least * 20.0).floor() / 20.0;
    let (slow, fast) = points.iter().fold((f64::MAX, 1.0f64), |(a, b), p| (a.min(p.qps), b.max(p.qps)));
    let (slow, fast) = (slow.log10().floor(), (fast * 1.05).log10().ceil());
    let x = |recall: f64| LEFT + (recall - low) / (1.0 - low) * (RIGHT - LEFT);
    let y = |qps: f64| BOTTOM - (qps.log10() - slow) / (fast - slow) * (BOTTOM - TOP);
    let name = base.file_name().map_or_else(|| base.display().to_string(), |n| n.to_string_lossy().into());
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\">\
         <style>{STYLE}</style><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\
         <text class=\"title\" x=\"{LEFT}\" y=\"36\">Recall and speed: {}</text>\
         <text class=\"sub\" x=\"{LEFT}\" y=\"60\">Settings that no other beats in recall, speed and memory; \
         recall on the half of the queries that checks</text>",
        escape(&name)
    );
    grid(&mut out, low, (slow, fast), &x, &y);
    let goal_at = x(f64::from(goal));
    let _ = write!(
        out,
        "<line x1=\"{goal_at:.1}\" x2=\"{goal_at:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\" stroke=\"#d1490b\" stroke-dasharray=\"5 4\"/>\
         <text class=\"tick\" x=\"{goal_at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">goal</text>",
        TOP - 8.0
    );
    let mut specs: Vec<String> = Vec::new();
    for p in points {
        let spec = p.spec.to_string();
        if !specs.contains(&spec) {
            specs.push(spec);
        }
    }
    for (i, spec) in specs.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let mut line: Vec<&TunedPoint> = points.iter().filter(|p| p.spec.to_string() == *spec).collect();
        line.sort_by(|a, b| a.checked.total_cmp(&b.checked));
        let path: Vec<String> = line.iter().map(|p| format!("{:.1},{:.1}", x(p.checked), y(p.qps))).collect();
        let _ = write!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" opacity=\"0.7\"/>",
            path.join(" ")
        );
        for p in &line {
            let _ = write!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"><title>{}</title></circle>",
                x(p.checked),
                y(p.qps),
                escape(&said(p))
            );
        }
        let at = TOP + 20.0 * i as f64 + 6.0;
        let _ = write!(
            out,
            "<circle cx=\"{NAMES}\" cy=\"{:.1}\" r=\"5\" fill=\"{colour}\"/><text class=\"name\" x=\"{:.1}\" y=\"{at:.1}\">{}</text>",
            at - 5.0,
            NAMES + 12.0,
            escape(spec)
        );
    }
    let chosen = &points[tuned.chosen];
    let at = TOP + 20.0 * specs.len() as f64 + 24.0;
    let _ = writeln!(
        out,
        "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"9\" fill=\"none\" stroke=\"#111\" stroke-width=\"2\"/>\
         <circle cx=\"{NAMES}\" cy=\"{:.1}\" r=\"7\" fill=\"none\" stroke=\"#111\" stroke-width=\"2\"/>\
         <text x=\"{:.1}\" y=\"{at:.1}\">chosen: {} queries/s</text>\
         <text x=\"{:.1}\" y=\"{:.1}\">recall {:.4}, {}</text></svg>",
        x(chosen.checked),
        y(chosen.qps),
        at - 5.0,
        NAMES + 12.0,
        ui::rate(chosen.qps),
        NAMES + 12.0,
        at + 20.0,
        chosen.checked,
        ui::bytes(chosen.bytes as u64),
    );
    out
}

fn grid(out: &mut String, low: f64, (slow, fast): (f64, f64), x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64) {
    let step = if 1.0 - low > 0.35 { 0.1 } else { 0.05 };
    let mut recall = low;
    while recall <= 1.0 + 1e-9 {
        let at = x(recall);
        let _ = write!(
            out,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\" stroke=\"#e5e5e5\"/>\
             <text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{recall:.2}</text>",
            BOTTOM + 20.0
        );
        recall += step;
    }
    for decade in slow as i32..=fast as i32 {
        for multiple in [1.0, 2.0, 5.0] {
            let qps = multiple * 10f64.powi(decade);
            if qps > 10f64.powf(fast) {
                continue;
            }
            let at = y(qps);
            let _ = write!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#e5e5e5\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 8.0,
                at + 4.0,
                ui::rate(qps)
            );
        }
    }
    let _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">recall</text>\
         <text transform=\"translate(24 {:.1}) rotate(-90)\" text-anchor=\"middle\">queries per second</text>",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 46.0,
        (TOP + BOTTOM) / 2.0
    );
}

fn said(p: &TunedPoint) -> String {
    let setting = |name: &str, n: Option<usize>| n.map_or(String::new(), |n| format!(", {name} {n}"));
    let (probes, rerank) = (setting("nprobe", p.probes), setting("rerank", p.rerank));
    format!(
        "{}{probes}{rerank}: recall {:.4}, {} queries/s, {}",
        p.spec,
        p.checked,
        ui::rate(p.qps),
        ui::bytes(p.bytes as u64)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
