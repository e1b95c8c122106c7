//! Arguments that several commands share, and how their text is read.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use nearfield::{Device, DeviceError, DeviceKind, DeviceOptions, IndexSpec, Metric, Screen, SearchStats};

use crate::fail;

/// Where a search runs.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Device")]
pub struct DeviceArgs {
    /// auto, cpu, gpu, gpu:N, or a part of an adapter's name [default: NEARFIELD_DEVICE, else auto]
    #[arg(long, value_name = "D")]
    pub device: Option<String>,
    /// Most memory taken on the device, e.g. 512MiB [default: half of what it has]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub device_memory: Option<u64>,
    /// Threads of the CPU engine [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
}

impl DeviceArgs {
    /// These options, for this device.
    pub fn options(&self, device: Option<&str>) -> DeviceOptions {
        let mut options = DeviceOptions::default();
        options.device = device.map(str::to_owned);
        options.memory = self.device_memory;
        options.threads = self.threads.map(|n| n as usize);
        options
    }

    /// The device asked for.
    pub fn open(&self) -> Result<Device> {
        open(&self.options(self.device.as_deref()))
    }
}

/// Opens a device; a name that does not exist gets a suggestion.
pub fn open(options: &DeviceOptions) -> Result<Device> {
    let wanted = options.device.clone().or_else(|| std::env::var(nearfield::DEVICE_VARIABLE).ok()).unwrap_or_default();
    // Without a GPU engine every other name is answered as if it were a GPU.
    let known = ["", "auto", "cpu", "gpu"].contains(&wanted.as_str()) || wanted.starts_with("gpu:");
    let error = match Device::open(options) {
        Ok(device) => {
            // A program that ends after one search is over before a thread has measured.
            if device.kind() == DeviceKind::Auto {
                let _ = device.calibrate();
            }
            return Ok(device);
        }
        Err(DeviceError::NoGpu { .. }) if !known && cfg!(not(feature = "gpu")) => {
            let there = "no adapter: this build has no GPU engine".to_owned();
            DeviceError::Unknown { wanted: wanted.clone(), there }
        }
        Err(error) => error,
    };
    let DeviceError::Unknown { .. } = error else { return Err(error.into()) };
    let adapters = adapter_names();
    let names = ["auto", "cpu", "gpu"].into_iter().chain(adapters.iter().map(String::as_str));
    let mut text = error.to_string();
    if let Some(near) = nearest(&wanted, names) {
        text = format!("{text}; did you mean `{near}`?");
    }
    if options.device.is_none() {
        text = format!("{text} (the name comes from {})", nearfield::DEVICE_VARIABLE);
    }
    Err(fail::input(text))
}

#[cfg(feature = "gpu")]
fn adapter_names() -> Vec<String> {
    nearfield::adapters().into_iter().map(|a| a.name).collect()
}

#[cfg(not(feature = "gpu"))]
fn adapter_names() -> Vec<String> {
    Vec::new()
}

/// The name that was probably meant.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    let likeness = |name: &str| strsim::jaro_winkler(&wanted, &name.to_lowercase());
    names
        .into_iter()
        .map(|name| (likeness(name), name))
        .filter(|(like, _)| *like > 0.65)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// `--metric`.
pub fn metric(text: &str) -> Result<Metric, String> {
    /// What others call them.
    const ELSEWHERE: [(&str, &str); 15] = [
        ("euclidean", "l2"),
        ("sqeuclidean", "l2"),
        ("l2sq", "l2"),
        ("dot", "ip"),
        ("inner-product", "ip"),
        ("innerproduct", "ip"),
        ("angular", "cosine"),
        ("cos", "cosine"),
        ("manhattan", "l1"),
        ("cityblock", "l1"),
        ("chebyshev", "linf"),
        ("max", "linf"),
        ("minkowski", "lp:3"),
        ("js", "jensen-shannon"),
        ("tanimoto", "jaccard"),
    ];
    text.parse().map_err(|e: nearfield::UnknownMetric| {
        let lower = text.to_lowercase().replace('_', "-");
        let elsewhere = ELSEWHERE.iter().find(|(name, _)| *name == lower).map(|(_, ours)| *ours);
        if lower.starts_with("lp") {
            return format!("{e}; P is a number above 0, e.g. `lp:3`");
        }
        match elsewhere.or_else(|| nearest(&lower, Metric::NAMES)) {
            Some(name) => format!("{e}; did you mean `{name}`?"),
            None => e.to_string(),
        }
    })
}

/// `--index`.
pub fn spec(text: &str) -> Result<IndexSpec, String> {
    text.parse().map_err(|e: nearfield::SpecError| {
        let said = e.to_string();
        match nearest(&e.token, SPEC_WORDS) {
            Some(word) if said.contains("unknown; there are") => format!("{said}; did you mean `{word}`?"),
            _ => said,
        }
    })
}

/// Parts of index specs, to find what a misspelt one was meant to be.
const SPEC_WORDS: [&str; 8] = ["Flat", "IVF1024", "SQ8", "PQ16", "RaBitQ", "RFlat", "Refine(Flat)", "L2norm"];

/// `--screen`; `auto` leaves the choice to the device.
pub fn screen(text: &str) -> Result<ScreenChoice, String> {
    match text.parse() {
        _ if text == "auto" => Ok(ScreenChoice(None)),
        Ok(screen) => Ok(ScreenChoice(Some(screen))),
        Err(_) => {
            let hint = nearest(text, ["auto", "none", "f32", "int8"]).map(|n| format!("; did you mean `{n}`?"));
            Err(format!("unknown screen `{text}`; there are auto, none, f32, f16, int8{}", hint.unwrap_or_default()))
        }
    }
}

/// The values of `--screen`. (An `Option` itself would mean to clap that the argument may be left out.)
#[derive(Clone, Copy, Debug)]
pub struct ScreenChoice(pub Option<Screen>);

/// `-k`.
pub fn k(text: &str) -> Result<usize, String> {
    let most = u32::MAX as usize - 1;
    match text.parse::<usize>() {
        Ok(0) => Err("k is 0, wanted at least 1".to_owned()),
        Ok(k) if k <= most => Ok(k),
        _ => Err(format!("wanted a whole number from 1 to {most}, the most rows that an index holds")),
    }
}

/// A number of bytes: `1048576`, `512MiB`, `2GB`, `1.5GiB`.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size; wanted bytes, as in 1048576, 512MiB or 2GB");
    let split = text.find(|c: char| c.is_ascii_alphabetic() || c == ' ').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).filter(|&n| n > 0).ok_or_else(wrong);
    }
    match number.parse::<f64>() {
        Ok(x) if x > 0.0 && x * (scale as f64) < 1e18 && x * (scale as f64) >= 1.0 => Ok((x * scale as f64) as u64),
        _ => Err(wrong()),
    }
}

/// Why the device that was asked for did not answer, said once.
pub fn note_fallback(stats: &SearchStats) {
    if let Some(reason) = &stats.fallback {
        fail::tell("note", &format!("answered by {}: {reason}", stats.device));
    }
}

/// Puts the name of the file in front of its error.
pub fn in_file<T, E>(result: std::result::Result<T, E>, path: &Path) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    result.with_context(|| format!("`{}`", path.display()))
}

/// `Some` of a path, as lists of files want it.
pub fn file(path: &PathBuf) -> Option<&PathBuf> {
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_with_and_without_units() {
        let cases =
            [("1048576", 1 << 20), ("512MiB", 512 << 20), ("2GB", 2_000_000_000), ("1.5 GiB", 3 << 29), ("7k", 7168)];
        for (text, bytes) in cases {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "MiB", "-1", "0", "0.1", "12 parsecs", "1e40GB", "nan", "99999999999999999999"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn unknown_names_are_listed_and_the_nearest_suggested() {
        for (wrong, right) in
            [("euclidean", "l2"), ("L2", "l2"), ("cosin", "cosine"), ("jensen_shannon", "jensen-shannon")]
        {
            let said = metric(wrong).unwrap_err();
            assert!(said.contains(&format!("did you mean `{right}`?")) && said.contains("bray-curtis"), "{said}");
        }
        assert!(metric("lp:0").unwrap_err().contains("lp:3"));
        assert!(spec("Flatt").unwrap_err().contains("did you mean `Flat`?"));
        assert!(spec("flat").unwrap_err().to_lowercase().contains("capital"));
        assert!(screen("f64").unwrap_err().contains("auto, none, f32"));
    }

    #[test]
    fn k_is_a_number_of_rows() {
        assert_eq!(k("10"), Ok(10));
        assert!(k("0").unwrap_err().contains("k is 0"));
        for wrong in ["-1", "ten", "99999999999999", ""] {
            assert!(k(wrong).unwrap_err().contains("from 1 to"), "{wrong}");
        }
    }
}
