//! Two runs side by side: what changed beyond the noise of both.

use std::fmt::Write;

use super::record::{Report, Row};
use super::table::time;
use crate::ui;

/// A change below this share is none, however quiet both runs were: placement in memory alone makes as much.
const LEAST: f64 = 0.05;
/// Standard deviations that a change must exceed.
const DEVIATIONS: f64 = 3.0;
/// From the median distance from the median to a standard deviation, if times were normal.
const MAD_TO_DEVIATION: f64 = 1.4826;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Faster,
    Slower,
}

/// A kernel that both runs have.
struct Pair {
    name: String,
    shape: String,
    old_s: f64,
    new_s: f64,
    /// Share of the old time by which the new one is longer.
    change: f64,
    /// What change could be noise.
    noise: f64,
    verdict: Verdict,
}

pub struct Comparison {
    pairs: Vec<Pair>,
    notes: Vec<String>,
}

impl Comparison {
    pub fn of(old: &Report, new: &Report) -> Comparison {
        let find = |rows: &[Row], row: &Row| rows.iter().position(|r| r.name == row.name && r.shape == row.shape);
        let pair = |row: &Row| find(&old.rows, row).and_then(|i| old.rows.get(i)).map(|before| Pair::of(before, row));
        let mut notes = Vec::new();
        if old.device != new.device {
            let words = |r: &Report| {
                let driver = r.device.driver.as_deref().map_or(String::new(), |d| format!(", {d}"));
                format!("{}{driver}", r.device.name)
            };
            notes.push(format!("the other run was on another device: {}; this one is {}", words(old), words(new)));
        }
        if old.timed_by != new.timed_by {
            notes.push(format!("the other run was timed by {}, this one by {}", old.timed_by, new.timed_by));
        }
        let only = |a: &Report, b: &Report| -> Vec<String> {
            let lacking = a.rows.iter().filter(|row| find(&b.rows, row).is_none());
            lacking.map(|row| format!("{} {}", row.name, row.shape)).collect()
        };
        for (list, whose) in [(only(old, new), "only the other run has"), (only(new, old), "only this run has")] {
            if !list.is_empty() {
                notes.push(format!("{whose} {}", list.join("; ")));
            }
        }
        Comparison { pairs: new.rows.iter().filter_map(pair).collect(), notes }
    }

    pub fn text(&self, file: &str) -> String {
        let mut text = format!("\nagainst {file}:\n");
        let cells = self.pairs.iter().map(|p| {
            let mark = match p.verdict {
                Verdict::Same => "",
                Verdict::Faster => "faster",
                Verdict::Slower => "slower",
            };
            let change = format!("{:+.0} %", 100.0 * p.change);
            let noise = format!("{:.0} %", 100.0 * p.noise);
            [p.name.clone(), ui::shape(&p.shape), time(p.old_s), time(p.new_s), change, noise, mark.to_owned()]
        });
        text += &ui::table(["kernel", "shape", "before", "now", "change", "noise", ""], cells);
        let count = |verdict| self.pairs.iter().filter(|p| p.verdict == verdict).count();
        let [slower, faster, same] = [Verdict::Slower, Verdict::Faster, Verdict::Same].map(count);
        _ = writeln!(text, "{slower} slower, {faster} faster, {same} the same within the noise of both runs");
        for note in &self.notes {
            _ = writeln!(text, "{}", ui::wrap(note, ui::width(), 0, 2));
        }
        text
    }
}

impl Pair {
    fn of(old: &Row, new: &Row) -> Pair {
        let change = new.median_s / old.median_s - 1.0;
        let deviation = MAD_TO_DEVIATION * old.mad_s.hypot(new.mad_s) / old.median_s;
        let noise = (DEVIATIONS * deviation).max(LEAST);
        let verdict = match change {
            c if c > noise => Verdict::Slower,
            c if c < -noise => Verdict::Faster,
            _ => Verdict::Same,
        };
        let (name, shape) = (new.name.clone(), new.shape.clone());
        Pair { name, shape, old_s: old.median_s, new_s: new.median_s, change, noise, verdict }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(median_s: f64, mad_s: f64) -> Row {
        let text = serde_json::json!({
            "family": "search", "name": "search", "shape": "1", "timed_by": "wall clock", "runs": 5,
            "median_s": median_s, "min_s": median_s, "max_s": median_s, "mad_s": mad_s, "wall_median_s": median_s,
            "bytes": 1.0, "operations": 1.0, "gbs": 1.0, "gflops": 1.0, "share": 0.5, "bound": "f32",
            "roof_gbs": 1.0, "roof_gops": 1.0, "fault": null,
        });
        serde_json::from_value(text).unwrap()
    }

    #[test]
    fn a_change_must_exceed_the_noise_of_both() {
        let verdict = |old: (f64, f64), new: (f64, f64)| Pair::of(&row(old.0, old.1), &row(new.0, new.1)).verdict;
        assert_eq!(verdict((1.0, 0.001), (1.2, 0.001)), Verdict::Slower);
        assert_eq!(verdict((1.0, 0.001), (0.8, 0.001)), Verdict::Faster);
        assert_eq!(verdict((1.0, 0.001), (1.04, 0.001)), Verdict::Same, "less than 5 %");
        assert_eq!(verdict((1.0, 0.1), (1.2, 0.001)), Verdict::Same, "the old run was noisy");
        assert_eq!(verdict((1.0, 0.001), (1.2, 0.1)), Verdict::Same, "the new run is noisy");
        assert_eq!(verdict((1.0, 0.1), (2.0, 0.1)), Verdict::Slower, "far beyond the noise");
        assert_eq!(verdict((1.0, 0.0), (1.0, 0.0)), Verdict::Same);
    }
}
