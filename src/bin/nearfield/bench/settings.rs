//! The settings that a sweep goes through.

use nearfield::{AnyIndex, SearchOptions};
use serde_json::{Value, json};

/// The values of `--sweep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// Lists and re-ranked rows, from few to many.
    Auto,
    /// These numbers of lists.
    Probes(Vec<usize>),
}

/// `--sweep`.
pub fn sweep(text: &str) -> Result<Sweep, String> {
    let wrong = "wanted auto, or the lists to probe as in nprobe=1,2,4";
    match text.split_once('=') {
        None if text == "auto" => Ok(Sweep::Auto),
        Some(("nprobe", values)) => {
            let numbers = values.split(',').map(|v| v.trim().parse::<u32>().ok().filter(|&n| n > 0));
            let numbers: Option<Vec<usize>> = numbers.map(|n| n.map(|n| n as usize)).collect();
            numbers.map(Sweep::Probes).ok_or_else(|| wrong.to_owned())
        }
        _ => Err(wrong.to_owned()),
    }
}

/// The settings for an index; none when there is nothing to set or no sweep is wanted.
pub fn of(index: &AnyIndex, k: usize, sweep: Option<&Sweep>) -> Vec<SearchOptions> {
    let AnyIndex::Ivf(ivf) = index else { return Vec::new() };
    match sweep {
        None => Vec::new(),
        Some(Sweep::Auto) => nearfield::settings(index, k),
        Some(Sweep::Probes(probes)) => {
            probes.iter().map(|&p| SearchOptions::default().probes(p.min(ivf.lists()))).collect()
        }
    }
}

/// The settings as JSON.
pub fn json(options: &SearchOptions) -> Value {
    let mut settings = serde_json::Map::new();
    for (name, value) in [("nprobe", options.probes), ("rerank", options.rerank)] {
        if let Some(value) = value {
            settings.insert(name.to_owned(), json!(value));
        }
    }
    Value::Object(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_are_read() {
        assert_eq!(sweep("auto"), Ok(Sweep::Auto));
        assert_eq!(sweep("nprobe=1,2,16"), Ok(Sweep::Probes(vec![1, 2, 16])));
        assert!(sweep("nprobe=0").is_err() && sweep("ef=1").is_err() && sweep("nprobe=a").is_err());
    }
}
