//! The settings that a sweep goes through, and which of them are worth telling.

use nearfield::{AnyIndex, Index, SearchOptions};
use serde_json::{Value, json};

/// What `--sweep` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// Lists and re-ranked rows, from few to many.
    Auto,
    /// These numbers of lists.
    Probes(Vec<usize>),
}

/// `--sweep`.
pub fn sweep(text: &str) -> Result<Sweep, String> {
    let wrong = "wanted auto, or the lists to look at as in nprobe=1,2,4";
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
    let (AnyIndex::Ivf(ivf), Some(sweep)) = (index, sweep) else { return Vec::new() };
    let lists = ivf.lists();
    let mut probes = match sweep {
        Sweep::Auto => vec![1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256],
        Sweep::Probes(probes) => probes.clone(),
    };
    probes.retain(|&p| p <= lists);
    if probes.is_empty() {
        probes.push(lists);
    }
    let refine: Vec<Option<usize>> = match sweep {
        Sweep::Auto if ivf.spec().refine.is_some() => {
            [1, 2, 3, 4, 8, 16, 32].map(|times| Some((times * k).min(index.len()))).to_vec()
        }
        _ => vec![None],
    };
    let option = |&probes: &usize, refine: Option<usize>| {
        let options = SearchOptions::default().probes(probes);
        refine.map_or(options.clone(), |rows| options.refine(rows))
    };
    probes.iter().flat_map(|p| refine.iter().map(move |&r| option(p, r))).collect()
}

/// The settings as JSON.
pub fn json(options: &SearchOptions) -> Value {
    let mut settings = serde_json::Map::new();
    for (name, value) in [("nprobe", options.probes), ("refine", options.refine)] {
        if let Some(value) = value {
            settings.insert(name.to_owned(), json!(value));
        }
    }
    Value::Object(settings)
}

/// Of points (recall, queries a second) those that no other surpasses in both, the least recall first.
pub fn front(points: &[(f64, f64)]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|&a, &b| points[b].1.total_cmp(&points[a].1));
    let mut best = f64::NEG_INFINITY;
    order.retain(|&i| {
        let better = points[i].0 > best;
        best = best.max(points[i].0);
        better
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_leaves_out_what_another_beats() {
        let points = [(0.9, 100.0), (0.8, 90.0), (0.95, 50.0), (0.95, 40.0), (0.5, 200.0)];
        assert_eq!(front(&points), [4, 0, 2]);
    }

    #[test]
    fn sweeps_are_read() {
        assert_eq!(sweep("auto"), Ok(Sweep::Auto));
        assert_eq!(sweep("nprobe=1,2,16"), Ok(Sweep::Probes(vec![1, 2, 16])));
        assert!(sweep("nprobe=0").is_err() && sweep("ef=1").is_err() && sweep("nprobe=a").is_err());
    }
}
