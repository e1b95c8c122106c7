//! What earlier processes found out about this device: which kernels passed their self-test, how fast each is, which
//! tuning won. One file for a device, driver, set of features and text of the kernels; another driver has another file.
//!
//! Only passed tests are kept: a kernel that failed is tried again by the next process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::adapters::AdapterReport;
use super::context::Context;
use super::sync::lock;
use crate::cache::{File, Found};
use crate::ops::source::{self, ParamsIn, Target};
use crate::ops::tuning::KernelTuning;
use crate::ops::{self};

/// Work per second that no device leaves.
pub(super) const RATES: std::ops::RangeInclusive<f64> = 1e6..=1e15;
/// More lines than this are no cache of ours.
const MOST_LINES: usize = 20_000;

/// Rates change all the time: no more often than this are they written for their own sake.
const RATES_EVERY: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    passed: BTreeSet<String>,
    rates: BTreeMap<String, f64>,
    tuning: Option<KernelTuning>,
}

/// What is known and not yet on disk.
#[derive(Debug)]
struct Kept {
    known: State,
    /// Something that the next process should not do again is new.
    stale: bool,
    /// So are rates, and since when the file has the old ones.
    rates: bool,
    written: Instant,
}

/// Measurements and passed tests, and the file that keeps them.
#[derive(Debug)]
pub(super) struct Known {
    file: Option<File>,
    state: Mutex<Kept>,
    /// What was wrong with the file.
    note: Option<String>,
}

impl Known {
    /// What earlier processes left for this device. A driver that does not say its version leaves nothing.
    pub(super) fn open(context: &Context, info: &AdapterReport) -> Known {
        let versioned = info.driver.chars().any(|c| c.is_ascii_digit()) || cfg!(target_vendor = "apple");
        let checks = if cfg!(debug_assertions) { "checked" } else { "unchecked" };
        let key = format!(
            "{} | {:?} | {} bytes of immediates | {checks} | kernels {:08x}",
            info.identity(),
            context.features,
            context.limits.max_immediate_size,
            texts()
        );
        Known::read(versioned.then(|| File::of(&context.cache, "kernels", &key)))
    }

    fn read(file: Option<File>) -> Known {
        let (state, note) = match file.as_ref().map(|f| (f, f.read())) {
            Some((file, Found::Text(text))) => match parse(&text) {
                Ok(state) => (state, None),
                Err(why) => (State::default(), Some(file.refuse(&why))),
            },
            Some((_, Found::Refused(why))) => (State::default(), Some(why)),
            _ => (State::default(), None),
        };
        // A file that cannot be used is written anew at the end of the first run.
        let stale = note.is_some();
        let kept = Kept { known: state, stale, rates: false, written: Instant::now() };
        Known { file, state: Mutex::new(kept), note }
    }

    /// What was wrong with the file.
    pub(super) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Whether this kernel passed its test on this device and driver.
    pub(super) fn passed(&self, kernel: &str) -> bool {
        lock(&self.state).known.passed.contains(kernel)
    }

    /// Notes that it did.
    pub(super) fn pass(&self, kernel: String) {
        let state = &mut *lock(&self.state);
        state.stale |= state.known.passed.insert(kernel);
    }

    /// Work per second of a kernel, where it was measured.
    pub(super) fn rate(&self, kernel: &str) -> Option<f64> {
        lock(&self.state).known.rates.get(kernel).copied()
    }

    /// Notes a measured rate.
    pub(super) fn set_rate(&self, kernel: String, rate: f64) {
        let state = &mut *lock(&self.state);
        state.rates |= state.known.rates.insert(kernel, rate.clamp(*RATES.start(), *RATES.end())) != Some(rate);
    }

    /// The tuning that won here.
    pub(super) fn tuning(&self) -> Option<KernelTuning> {
        lock(&self.state).known.tuning
    }

    /// Notes the tuning that won.
    pub(super) fn set_tuning(&self, tuning: KernelTuning) {
        let state = &mut *lock(&self.state);
        state.stale |= state.known.tuning.replace(tuning) != Some(tuning);
    }

    /// Writes the file if something is new.
    pub(super) fn persist(&self) {
        self.write(false);
    }

    fn write(&self, now: bool) {
        let Some(file) = &self.file else { return };
        let text = {
            let state = &mut *lock(&self.state);
            if !state.stale && !(state.rates && (now || state.written.elapsed() > RATES_EVERY)) {
                return;
            }
            (state.stale, state.rates, state.written) = (false, false, Instant::now());
            print(&state.known)
        };
        file.write(&text);
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        self.write(true);
    }
}

/// A number that changes when the text of any kernel does.
fn texts() -> u32 {
    static TEXTS: OnceLock<u32> = OnceLock::new();
    *TEXTS.get_or_init(|| {
        let mut hash = crc32fast::Hasher::new();
        for kernel in ops::registry() {
            for &variant in kernel.variants {
                hash.update(source::compose(kernel, variant, ParamsIn::Uniform, Target::Naga).as_bytes());
            }
        }
        hash.finalize()
    })
}

fn print(state: &State) -> String {
    let mut text = String::new();
    if let Some(t) = state.tuning {
        let shape = t.search.map_or_else(|| "-".to_owned(), |place| place.to_string());
        text.push_str(&format!("tuning {} {shape}\n", t.groups));
    }
    state.passed.iter().for_each(|kernel| text.push_str(&format!("passed {kernel}\n")));
    state.rates.iter().for_each(|(kernel, rate)| text.push_str(&format!("rate {rate:e} {kernel}\n")));
    text
}

/// Every number is checked against its range; one that is wrong spoils the file.
fn parse(text: &str) -> Result<State, String> {
    let mut state = State::default();
    for (i, line) in text.lines().enumerate() {
        let wrong = || format!("line {} says `{}`", i + 3, line.chars().take(60).collect::<String>());
        if i > MOST_LINES {
            return Err("it is too long".to_owned());
        }
        match line.split_once(' ').ok_or_else(wrong)? {
            ("passed", kernel) => drop(state.passed.insert(kernel.to_owned())),
            ("rate", rest) => {
                let (rate, kernel) = rest.split_once(' ').ok_or_else(wrong)?;
                let rate: f64 = rate.parse().map_err(|_| wrong())?;
                if !RATES.contains(&rate) {
                    return Err(wrong());
                }
                state.rates.insert(kernel.to_owned(), rate);
            }
            ("tuning", rest) => {
                let (groups, shape) = rest.split_once(' ').ok_or_else(wrong)?;
                let search = if shape == "-" { None } else { Some(shape.parse().map_err(|_| wrong())?) };
                let tuning = KernelTuning { groups: groups.parse().map_err(|_| wrong())?, search };
                state.tuning = Some(tuning).filter(KernelTuning::is_sane);
                state.tuning.ok_or_else(wrong)?;
            }
            _ => return Err(wrong()),
        }
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_d5_a_damaged_file_of_verdicts_is_named_rebuilt_and_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let file = || Some(File::within(Some(folder.path().to_owned()), "kernels", "a driver"));
        let known = Known::read(file());
        assert_eq!((known.note(), known.passed("search K=128"), known.rate("x")), (None, false, None));
        known.pass("search K=128".to_owned());
        known.set_rate("search K=128".to_owned(), 2.5e9);
        known.set_tuning(KernelTuning { groups: 256, search: Some(1) });
        known.persist();

        let again = Known::read(file());
        assert!(again.passed("search K=128") && !again.passed("search K=64"));
        assert_eq!(again.rate("search K=128"), Some(2.5e9));
        assert_eq!(again.tuning(), Some(KernelTuning { groups: 256, search: Some(1) }));

        let path = file().unwrap().path().unwrap().clone();
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let damaged = Known::read(file());
        assert!(damaged.note().unwrap().contains("checksum"), "{:?}", damaged.note());
        assert!(!damaged.passed("search K=128"));
        damaged.persist();
        assert_eq!(Known::read(file()).note(), None, "it was rebuilt");

        // A sealed file with numbers that no device has.
        for line in ["rate 1e40 x", "rate NaN x", "rate 5 x", "rate -", "tuning 0 -", "tuning 64 200", "passed", "what"]
        {
            file().unwrap().write(&format!("passed search K=128\n{line}\n"));
            let known = Known::read(file());
            assert!(known.note().is_some_and(|n| n.contains("line 4")), "{line}: {:?}", known.note());
            assert!(!known.passed("search K=128"));
        }
        let other = Known::read(Some(File::within(Some(folder.path().to_owned()), "kernels", "a newer driver")));
        assert!(!other.passed("search K=128") && other.note().is_none());
    }
}
