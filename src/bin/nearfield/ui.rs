//! How numbers and lines look on a terminal.

use std::io::{IsTerminal, stdout};
use std::path::Path;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use nearfield::AnyIndex;

/// Columns to write for on stdout.
pub fn width() -> usize {
    width_of(&stdout())
}

/// Columns to write for: those of the terminal, 100 where there is none.
#[cfg(unix)]
pub fn width_of(stream: &impl std::os::fd::AsFd) -> usize {
    columns(terminal_size::terminal_size_of(stream))
}

/// Columns to write for: those of the terminal, 100 where there is none.
#[cfg(not(unix))]
pub fn width_of(_: &impl std::io::Write) -> usize {
    columns(terminal_size::terminal_size())
}

fn columns(terminal: Option<(terminal_size::Width, terminal_size::Height)>) -> usize {
    terminal.map_or(100, |(width, _)| usize::from(width.0)).clamp(40, 140)
}

fn colours() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    stdout().is_terminal() && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Bold on a terminal.
pub fn bold(text: &str) -> String {
    if colours() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// Faint on a terminal.
pub fn dim(text: &str) -> String {
    if colours() { format!("\x1b[2m{text}\x1b[0m") } else { text.to_owned() }
}

/// `text`, cut to `columns`.
pub fn fit(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(3)).collect();
    format!("{}...", kept.trim_end())
}

/// `text` in lines of at most `columns`, broken at blanks, the later ones begun with `indent` blanks. The first line
/// has `used` columns already.
pub fn wrap(text: &str, columns: usize, used: usize, indent: usize) -> String {
    let (mut out, mut at) = (String::new(), used);
    for (i, word) in text.split(' ').enumerate() {
        let len = word.chars().count();
        if i > 0 && at + 1 + len > columns {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            at = indent;
        } else if i > 0 {
            out.push(' ');
            at += 1;
        }
        out.push_str(word);
        at += len;
    }
    out
}

/// `items` with commas between, in lines as [`wrap`] makes them; no item is broken.
#[cfg(feature = "gpu")]
pub fn wrap_list(items: &[impl AsRef<str>], columns: usize, used: usize, indent: usize) -> String {
    // A blank that does not break.
    const HARD: &str = "\u{a0}";
    let items: Vec<String> = items.iter().map(|item| item.as_ref().replace(' ', HARD)).collect();
    wrap(&items.join(", "), columns, used, indent).replace(HARD, " ")
}

/// The line that says what an index file of so many bytes holds.
pub fn built(path: &Path, index: &AnyIndex, size: u64) -> String {
    let rows = count(index.len() as u64);
    let (spec, metric, dim, dtype) = (index.spec(), index.metric(), index.dim(), index.dtype());
    format!("{}: {spec}, {metric}, {rows} rows of {dim} {dtype}, {}\n", path.display(), bytes(size))
}

/// 1234567 as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `64 x 20000 x 128` with its numbers as [`count`] writes them.
pub fn shape(text: &str) -> String {
    let words = text.split(' ').map(|word| word.parse().map_or(word.to_owned(), count));
    words.collect::<Vec<String>>().join(" ")
}

/// A rate: whole from 100 on, three digits below.
pub fn rate(x: f64) -> String {
    match x {
        x if !x.is_finite() => "-".to_owned(),
        x if x >= 100.0 => count(x.round() as u64),
        x if x >= 10.0 => format!("{x:.1}"),
        x => format!("{x:.2}"),
    }
}

/// Milliseconds with three digits that count.
pub fn ms(ms: f64) -> String {
    match ms {
        x if x >= 1000.0 => format!("{:.2} s", x / 1000.0),
        x if x >= 100.0 => format!("{x:.0} ms"),
        x if x >= 10.0 => format!("{x:.1} ms"),
        x if x >= 1.0 => format!("{x:.2} ms"),
        x => format!("{x:.3} ms"),
    }
}

/// A duration with three digits that count.
pub fn time(t: Duration) -> String {
    ms(t.as_secs_f64() * 1e3)
}

/// Bytes in binary units.
pub fn bytes(n: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut x, mut unit) = (n as f64, 0);
    while x >= 1024.0 && unit + 1 < units.len() {
        x /= 1024.0;
        unit += 1;
    }
    if unit == 0 || x == x.round() { format!("{x:.0} {}", units[unit]) } else { format!("{x:.1} {}", units[unit]) }
}

/// A table without lines, all columns but the first aligned to the right.
pub fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
    table.column_iter_mut().skip(1).for_each(|c| {
        c.set_cell_alignment(CellAlignment::Right);
    });
    // Cells begin with a blank.
    table.lines().map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(&line).trim_end())).collect()
}

/// A bar over `len` steps on stderr; nothing where that is no terminal.
pub fn progress(len: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(len);
    if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar} {human_pos} of {human_len}, {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

/// A sign of life on stderr for work of unknown length; lines given to it appear above it, or alone without a terminal.
pub struct Spinner(ProgressBar);

/// See [`Spinner`].
pub fn spinner(what: &'static str) -> Spinner {
    let bar = ProgressBar::new_spinner();
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(120));
    Spinner(bar)
}

impl Spinner {
    /// A line of what was done.
    pub fn println(&self, line: &str) {
        if self.0.is_hidden() { crate::fail::tell("tried", line) } else { self.0.println(line) }
    }

    /// Leaves nothing behind.
    pub fn finish_and_clear(&self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!((count(0), count(999), count(1000)), ("0".into(), "999".into(), "1,000".into()));
        assert_eq!((count(1234567), rate(99.96), rate(1.234)), ("1,234,567".into(), "100.0".into(), "1.23".into()));
        assert_eq!((bytes(1023), bytes(1 << 20), bytes(1536)), ("1023 B".into(), "1 MiB".into(), "1.5 KiB".into()));
        assert_eq!((ms(0.5), ms(12.34), ms(1500.0)), ("0.500 ms".into(), "12.3 ms".into(), "1.50 s".into()));
    }

    #[test]
    fn shapes_have_numbers_as_people_read_them() {
        assert_eq!(
            (shape("64 x 20000 x 128"), shape("4096 groups")),
            ("64 x 20,000 x 128".into(), "4,096 groups".into())
        );
    }

    #[test]
    fn lines_are_cut_and_broken_at_the_width() {
        assert_eq!((fit("abcdef", 6), fit("abcdefg", 6)), ("abcdef".into(), "abc...".into()));
        assert_eq!(wrap("one two three", 8, 0, 2), "one two\n  three");
        assert_eq!(wrap("one two three", 8, 5, 1), "one\n two\n three");
    }
}
