//! The report as a roofline: work done per second over work done per byte, both logarithmic, under the roofs of the device.

use std::fmt::Write;

use super::labels::{Board, Box2, Place};
use super::record::{Report, Row};
use crate::ui;

const WIDTH: f64 = 1280.0;
const HEIGHT: f64 = 720.0;
/// The plot's edges.
const LEFT: f64 = 92.0;
const RIGHT: f64 = 830.0;
const TOP: f64 = 96.0;
const BOTTOM: f64 = 640.0;
/// Where the list begins.
const LIST: f64 = 856.0;

/// Dark enough for text on white, told apart by the colour-blind (after Okabe and Ito).
const COLOURS: [(&str, &str); 7] = [
    ("distance", "#0072b2"),
    ("normalize", "#8c6d1f"),
    ("search", "#d1490b"),
    ("select_k", "#00795a"),
    ("range", "#b0418a"),
    ("refine", "#5b4bb5"),
    ("yours", "#111111"),
];

const STYLE: &str = "text{font-family:'Helvetica Neue',Helvetica,Arial,'Liberation Sans',sans-serif;fill:#222}\
.title{font-size:24px;font-weight:bold}.sub{font-size:14px;fill:#555}.tick{font-size:13px;fill:#555}\
.axis{font-size:15px}.roof{font-size:13px;font-weight:bold;fill:#333}.head{font-size:13px;font-weight:bold}\
.item{font-size:12px}.point{font-size:12px;font-weight:bold}.foot{font-size:12px;fill:#777}";

/// A logarithmic axis from data to pixels.
#[derive(Clone, Copy)]
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let share = (value.max(1e-300) / self.low).log10() / (self.high / self.low).log10();
        self.from + share * (self.to - self.from)
    }

    /// 1, 2, ..., 9, 10, 20, ... within the axis; whether it is a power of ten.
    fn ticks(&self) -> Vec<(f64, bool)> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let all = decades.flat_map(|e| (1..10).map(move |m| (f64::from(m) * 10f64.powi(e), m == 1)));
        all.filter(|(v, _)| *v >= self.low * 0.999 && *v <= self.high * 1.001).collect()
    }
}

/// The picture.
pub fn svg(report: &Report) -> String {
    Picture::new(report).draw(report)
}

struct Picture {
    x: Axis,
    y: Axis,
    /// Name and Gop/s; the first one is f32.
    flat: Vec<(String, f64)>,
    /// Name and GB/s; the first one is memory.
    slopes: Vec<(String, f64)>,
    out: String,
    board: Board,
}

impl Picture {
    fn new(report: &Report) -> Picture {
        let ceilings = &report.ceilings;
        let unit = |name: &str| ceilings.arithmetic.iter().find(|a| a.unit == name).and_then(|a| a.gops);
        let f32_rate = unit("f32").unwrap_or(1.0);
        let mut flat = vec![("f32".to_owned(), f32_rate)];
        flat.extend(ceilings.arithmetic.iter().filter(|a| a.unit != "f32" && a.unit != "popcount").filter_map(|a| {
            let gops = a.gops?;
            Some((a.unit.clone(), gops))
        }));
        let memory = ceilings.read.last().map_or(0.0, |r| r.gbs).max(ceilings.copy_gbs).max(1e-6);
        let mut slopes = vec![("memory".to_owned(), memory)];
        // The fastest cache that a workload was held against.
        let cache = report.rows.iter().map(|r| r.roof_gbs).fold(0.0, f64::max);
        if cache > 1.2 * memory {
            slopes.push(("cache".to_owned(), cache));
        }
        let intensities = || report.rows.iter().map(intensity).filter(|x| x.is_finite() && *x > 0.0);
        let ridge = f32_rate / memory;
        let low = intensities().fold(ridge.min(1.0), f64::min) / 2.5;
        let high = intensities().fold(ridge, f64::max) * 4.0;
        let rates = || report.rows.iter().map(|r| r.gflops).filter(|y| y.is_finite() && *y > 0.0);
        let top = flat.iter().map(|f| f.1).chain(rates()).fold(0.0, f64::max) * 2.2;
        let bottom = rates().fold(memory * low * 2.0, f64::min) / 2.5;
        let x = Axis { low, high, from: LEFT, to: RIGHT };
        let y = Axis { low: bottom, high: top.max(bottom * 10.0), from: BOTTOM, to: TOP };
        let board = Board::new(Box2 { x0: LEFT + 2.0, y0: TOP + 2.0, x1: RIGHT - 2.0, y1: BOTTOM - 2.0 });
        Picture { x, y, flat, slopes, out: String::new(), board }
    }

    fn draw(mut self, report: &Report) -> String {
        _ = write!(
            self.out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\">\n<style>{STYLE}</style>\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
        );
        self.titles(report);
        self.axes();
        let spots = self.spots(&report.rows);
        for &(x, y) in &spots {
            self.board.block(Box2 { x0: x - 5.5, y0: y - 5.5, x1: x + 5.5, y1: y + 5.5 });
        }
        self.roofs();
        self.points(&report.rows);
        self.list(&report.rows);
        self.out += "</svg>\n";
        self.out
    }

    fn text(&mut self, class: &str, anchor: &str, x: f64, y: f64, text: &str) {
        _ = writeln!(
            self.out,
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
            escape(text)
        );
    }

    fn line(&mut self, stroke: &str, width: f64, (x0, y0): (f64, f64), (x1, y1): (f64, f64), dashed: bool) {
        let dash = if dashed { " stroke-dasharray=\"7 5\"" } else { "" };
        _ = writeln!(
            self.out,
            "<line x1=\"{x0:.1}\" y1=\"{y0:.1}\" x2=\"{x1:.1}\" y2=\"{y1:.1}\" stroke=\"{stroke}\" \
             stroke-width=\"{width}\"{dash}/>"
        );
    }

    fn titles(&mut self, report: &Report) {
        self.text("title", "start", LEFT - 60.0, 42.0, &report.device.name);
        let driver = report.device.driver.iter().chain(&report.device.backend).map(String::as_str);
        let mut about: Vec<&str> = driver.collect();
        let timed = format!("kernels of nearfield, timed by {}", report.timed_by.replace("gpu", "GPU"));
        about.push(&timed);
        self.text("sub", "start", LEFT - 60.0, 66.0, &about.join(", "));
        let foot = format!("nearfield {}, {}", report.version, date(report.unix_time));
        self.text("foot", "end", WIDTH - 24.0, HEIGHT - 16.0, &foot);
        if report.rows.iter().any(|row| row.fault.is_some()) {
            let why = "! past its roof: a fault of the cost model or of the ceiling, not a feat";
            self.text("foot", "start", LEFT - 60.0, HEIGHT - 16.0, why);
        }
    }

    fn axes(&mut self) {
        for (value, decade) in self.x.ticks() {
            let at = self.x.at(value);
            self.line(if decade { "#d9d9d9" } else { "#f1f1f1" }, 1.0, (at, TOP), (at, BOTTOM), false);
            if decade {
                self.text("tick", "middle", at, BOTTOM + 20.0, &number(value));
            }
        }
        let (scale, power) = if self.y.high >= 2e4 { (1e3, "\u{b9}\u{b2}") } else { (1.0, "\u{2079}") };
        for (value, decade) in self.y.ticks() {
            let at = self.y.at(value);
            self.line(if decade { "#d9d9d9" } else { "#f1f1f1" }, 1.0, (LEFT, at), (RIGHT, at), false);
            if decade {
                self.text("tick", "end", LEFT - 8.0, at + 4.5, &number(value / scale));
            }
        }
        self.line("#888888", 1.0, (LEFT, BOTTOM), (RIGHT, BOTTOM), false);
        self.line("#888888", 1.0, (LEFT, TOP), (LEFT, BOTTOM), false);
        let middle = (LEFT + RIGHT) / 2.0;
        self.text("axis", "middle", middle, BOTTOM + 48.0, "operations per byte of memory traffic");
        let (x, y) = (30.0, (TOP + BOTTOM) / 2.0);
        _ = writeln!(
            self.out,
            "<text class=\"axis\" text-anchor=\"middle\" transform=\"translate({x} {y}) rotate(-90)\">10{power} \
             operations per second</text>"
        );
    }

    fn roofs(&mut self) {
        let f32_rate = self.flat.first().map_or(1.0, |f| f.1);
        let slopes = self.slopes.clone();
        for (i, (name, gbs)) in slopes.iter().enumerate() {
            // From the left or lower edge up to the f32 roof.
            let x0 = self.x.low.max(self.y.low / gbs);
            let x1 = (f32_rate / gbs).min(self.x.high);
            let from = (self.x.at(x0), self.y.at(x0 * gbs));
            let to = (self.x.at(x1), self.y.at(x1 * gbs));
            let first = i == 0;
            self.line(if first { "#222222" } else { "#777777" }, if first { 2.5 } else { 1.8 }, from, to, !first);
            self.board.block_line(from, to, 3.0);
            self.slope_label(from, to, &format!("{name} {} GB/s", number(*gbs)), first);
        }
        let fastest = slopes.iter().map(|s| s.1).fold(0.0, f64::max);
        let mut taken: Vec<f64> = Vec::new();
        for (i, (name, gops)) in self.flat.clone().iter().enumerate() {
            let begin = if i == 0 { fastest } else { slopes.first().map_or(fastest, |s| s.1) };
            let x0 = (gops / begin).clamp(self.x.low, self.x.high);
            let y = self.y.at(*gops);
            let from = if i == 0 { self.x.at(x0) } else { RIGHT - 150.0 };
            let first = i == 0;
            self.line(
                if first { "#222222" } else { "#777777" },
                if first { 2.5 } else { 1.8 },
                (from, y),
                (RIGHT, y),
                !first,
            );
            self.board.block_line((from, y), (RIGHT, y), 3.0);
            // Above its line, or below when the line above is too near.
            let label = format!("{name} {}", rate(*gops));
            let near = taken.iter().any(|t| (t - (y - 6.0)).abs() < 15.0);
            let at = if near { y + 16.0 } else { y - 6.0 };
            taken.push(at);
            self.text("roof", "end", RIGHT - 6.0, at, &label);
            let width = 7.4 * label.chars().count() as f64;
            self.board.block(Box2 { x0: RIGHT - 6.0 - width, y0: at - 12.0, x1: RIGHT, y1: at + 4.0 });
        }
    }

    /// A label along a slope: above it, or below the lowest one.
    fn slope_label(&mut self, from: (f64, f64), to: (f64, f64), label: &str, below: bool) {
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let (length, width) = (dx.hypot(dy), 7.4 * label.chars().count() as f64);
        if length < width + 20.0 || dx <= 0.0 {
            return;
        }
        let (ux, uy) = (dx / length, dy / length);
        // Text grows upwards from its baseline, so below the line it needs its own height.
        let (off, middle) = if below { (16.0, 10.0) } else { (-7.0, -12.0) };
        let at = |along: f64, off: f64| (from.0 + along * ux - off * uy, from.1 + along * uy + off * ux);
        let ends = |along: f64| (at(along, middle), at(along + width, middle));
        // Where it covers least, the lower left first.
        let steps = ((length - width - 28.0) / 12.0).max(0.0) as usize;
        let places = (0..=steps).map(|i| 14.0 + 12.0 * i as f64);
        let covered = |along: &f64| self.board.covered_by_line(ends(*along).0, ends(*along).1, 9.0);
        let along = places.min_by(|a, b| covered(a).total_cmp(&covered(b))).unwrap_or(14.0);
        let (x, y) = at(along, off);
        let angle = dy.atan2(dx).to_degrees();
        _ = writeln!(
            self.out,
            "<text class=\"roof\" transform=\"translate({x:.1} {y:.1}) rotate({angle:.1})\">{}</text>",
            escape(label)
        );
        let (start, end) = ends(along);
        self.board.block_line(start, end, 9.0);
    }

    /// Where the kernels lie; one without a cost lies in the corner.
    fn spots(&self, rows: &[Row]) -> Vec<(f64, f64)> {
        let bounded = |axis: Axis, value: f64| {
            let at = axis.at(if value.is_finite() { value } else { axis.low });
            at.clamp(axis.from.min(axis.to), axis.from.max(axis.to))
        };
        rows.iter().map(|r| (bounded(self.x, intensity(r)), bounded(self.y, r.gflops))).collect()
    }

    /// A dot for each kernel, with its number beside it.
    fn points(&mut self, rows: &[Row]) {
        let spots = self.spots(rows);
        // Leaders first, so that dots lie over them.
        let mut labels = String::new();
        for (i, (row, &(x, y))) in rows.iter().zip(&spots).enumerate() {
            let (number, colour) = ((i + 1).to_string(), colour(&row.family));
            let width = 7.0 * number.len() as f64 + 3.0;
            let Place { x: at_x, y: at_y, far } = self.board.place((x, y), width, 13.0);
            if far {
                self.line(colour, 0.8, (x, y), (at_x, at_y), false);
            }
            let at = format!("text-anchor=\"middle\" x=\"{at_x:.1}\" y=\"{:.1}\"", at_y + 4.3);
            let halo = "stroke=\"#ffffff\" stroke-width=\"3\" stroke-linejoin=\"round\"";
            _ = writeln!(labels, "<text class=\"point\" {at} {halo}>{number}</text>");
            _ = writeln!(labels, "<text class=\"point\" {at} style=\"fill:{colour}\">{number}</text>");
        }
        for (row, &(x, y)) in rows.iter().zip(&spots) {
            _ = writeln!(
                self.out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{}\" stroke=\"#ffffff\" stroke-width=\"1.2\">\
                 <title>{}</title></circle>",
                colour(&row.family),
                escape(&format!("{} {}: {:.0} % of {}", row.name, row.shape, row.share * 100.0, row.bound))
            );
        }
        self.out += &labels;
    }

    /// What the numbers stand for.
    fn list(&mut self, rows: &[Row]) {
        let step = ((HEIGHT - 70.0 - TOP) / (rows.len() as f64 + 1.0)).min(21.0);
        self.text("head", "start", LIST + 24.0, TOP + 4.0, "kernel");
        self.text("head", "end", WIDTH - 118.0, TOP + 4.0, "shape");
        self.text("head", "end", WIDTH - 24.0, TOP + 4.0, "share");
        for (i, row) in rows.iter().enumerate() {
            let y = TOP + 8.0 + step * (i as f64 + 1.0);
            let colour = colour(&row.family);
            let number = i + 1;
            _ = writeln!(
                self.out,
                "<text class=\"point\" text-anchor=\"end\" x=\"{:.1}\" y=\"{y:.1}\" style=\"fill:{colour}\">{number}</text>",
                LIST + 16.0
            );
            self.text("item", "start", LIST + 24.0, y, &ui::fit(&row.name, 24));
            self.text("item", "end", WIDTH - 118.0, y, &shape(&row.shape));
            let mark = if row.fault.is_some() { "!" } else { "" };
            let share = format!("{:.0} % {}{mark}", row.share * 100.0, row.bound);
            self.text("item", "end", WIDTH - 24.0, y, &share);
        }
    }
}

fn intensity(row: &Row) -> f64 {
    row.operations / row.bytes
}

/// `64 x 1000000 x 128` in few letters.
fn shape(text: &str) -> String {
    let short = |word: &str| match word.parse::<u64>() {
        Ok(n) if n >= 1_000_000 && n % 100_000 == 0 => format!("{}M", n as f64 / 1e6),
        Ok(n) if n >= 10_000 && n % 1_000 == 0 => format!("{}k", n / 1_000),
        Ok(n) => ui::count(n),
        Err(_) => word.to_owned(),
    };
    text.split(' ')
        .map(|word| if word == "x" { "\u{d7}".to_owned() } else { short(word) })
        .collect::<Vec<_>>()
        .join(" ")
}

fn colour(family: &str) -> &'static str {
    COLOURS.iter().find(|(name, _)| *name == family).map_or("#111111", |(_, colour)| colour)
}

/// A number on an axis or a roof.
fn number(x: f64) -> String {
    match x {
        x if x >= 99.5 => ui::count(x.round() as u64),
        x if x >= 9.95 => format!("{x:.0}"),
        x if x >= 1.0 => format!("{x:.1}").trim_end_matches(".0").to_owned(),
        x => format!("{x:.3}").trim_end_matches('0').to_owned(),
    }
}

/// Operations per second of a roof.
fn rate(gops: f64) -> String {
    if gops >= 10_000.0 { format!("{} Top/s", number(gops / 1e3)) } else { format!("{} Gop/s", number(gops)) }
}

/// Seconds since 1970 as year-month-day (the days of Howard Hinnant's civil_from_days).
fn date(unix_time: u64) -> String {
    let days = unix_time / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

fn escape(text: &str) -> String {
    let safe = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    safe.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decades_lie_evenly() {
        let axis = Axis { low: 1.0, high: 1000.0, from: 0.0, to: 300.0 };
        assert_eq!([1.0, 10.0, 100.0, 1000.0].map(|v| axis.at(v).round()), [0.0, 100.0, 200.0, 300.0]);
        let decades: Vec<f64> = axis.ticks().into_iter().filter(|t| t.1).map(|t| t.0).collect();
        assert_eq!(decades.len(), 4);
        assert_eq!(axis.ticks().len(), 28);
    }

    #[test]
    fn numbers_and_dates() {
        assert_eq!([0.01, 0.5, 2.5, 10.0, 31.1, 1234.0].map(number), ["0.01", "0.5", "2.5", "10", "31", "1,234"]);
        assert_eq!(
            (date(0), date(951_782_400), date(1_795_255_200)),
            ("1970-01-01".into(), "2000-02-29".into(), "2026-11-21".into())
        );
        assert_eq!(
            (shape("64 x 1000000 x 128"), shape("50000 groups")),
            ("64 \u{d7} 1M \u{d7} 128".into(), "50k groups".into())
        );
        assert_eq!(rate(67_000.0), "67 Top/s");
        assert_eq!(escape("<a & \"b\">\n"), "&lt;a &amp; &quot;b&quot;&gt; ");
    }
}
