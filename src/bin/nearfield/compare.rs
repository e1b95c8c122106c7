//! The two engines side by side, for the commands that show both.

use anyhow::Result;
use nearfield::ops::metric::tolerance;
use nearfield::{DType, Device, Flat, Metric, Neighbors, RowsView, SearchOptions};
use serde_json::{Value, json};

use crate::common::{self, DeviceArgs};

/// The GPU to compare the CPU with.
pub enum Gpu {
    There(Device),
    /// Why there is none to compare with.
    Not(String),
}

/// The CPU, and the GPU that the arguments name: without a name a hardware one.
pub fn both(args: &DeviceArgs) -> Result<(Device, Gpu)> {
    let cpu = common::open(&args.options(Some("cpu")))?;
    let variable = std::env::var(nearfield::DEVICE_VARIABLE).ok().filter(|v| !v.is_empty());
    if args.device.is_none() && variable.as_deref() == Some("cpu") {
        return Ok((cpu, Gpu::Not(format!("{} is `cpu`", nearfield::DEVICE_VARIABLE))));
    }
    if args.device.as_deref() == Some("cpu") {
        return Ok((cpu, Gpu::Not("only the CPU was asked for".to_owned())));
    }
    let device = args.open()?;
    Ok((cpu, if is_cpu(&device) { Gpu::Not(why_cpu(&device)?) } else { Gpu::There(device) }))
}

/// Whether the CPU answers.
pub fn is_cpu(device: &Device) -> bool {
    device.kind() == nearfield::DeviceKind::Cpu
}

/// Why `auto` took the CPU: an answer says it.
fn why_cpu(device: &Device) -> Result<String> {
    let mut index = Flat::new(device, 1, Metric::L2)?;
    index.add(&[[0.0f32]])?;
    let (_, stats) = index.search_with(RowsView::from(&[[0.0f32]]), 1, &SearchOptions::default())?;
    let why = stats.fallback.unwrap_or_else(|| "this build has no GPU engine (feature `gpu`)".to_owned());
    // The callers say themselves that there is none.
    Ok(why.strip_prefix("no GPU: ").unwrap_or(&why).to_owned())
}

/// The device for JSON: name, kind (`cpu`, or what sort of GPU) and what else is known.
pub fn describe(device: &Device) -> Value {
    let name = device.name();
    if is_cpu(device) {
        return json!({"name": name, "kind": "cpu"});
    }
    #[cfg(feature = "gpu")]
    if let Some(a) = nearfield::adapters().into_iter().find(|a| name.contains(&a.name)) {
        return json!({
            "name": name, "kind": a.kind.to_string(), "backend": a.backend, "driver": a.driver,
        });
    }
    json!({"name": name, "kind": "gpu"})
}

/// How two answers to the same queries compare.
#[derive(Debug, PartialEq)]
pub enum Agreement {
    /// The same ids in the same places.
    Same,
    /// As many places hold another id, at the same distance within rounding.
    Ties(usize),
    /// The first query and place where the answers are not the same.
    Differ { query: usize, place: usize },
}

/// Compares two answers to cosine queries of `dim` components.
pub fn agreement(a: &Neighbors, b: &Neighbors, dim: usize) -> Agreement {
    // Both lie within the bound of the exact similarity, so within twice the bound of each other.
    let bound = 2.0 * tolerance(Metric::Cosine, DType::F32, dim, 1.0, 1.0, 1.0);
    let mut ties = 0;
    for (i, (x, y)) in a.distances().iter().zip(b.distances()).enumerate() {
        if !(f64::from((x - y).abs()) <= bound || x.is_nan() && y.is_nan()) {
            return Agreement::Differ { query: i / a.k().max(1), place: i % a.k().max(1) };
        }
        ties += usize::from(a.ids().get(i) != b.ids().get(i));
    }
    if ties == 0 { Agreement::Same } else { Agreement::Ties(ties) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_agree_up_to_rounding_and_no_further() {
        let of = |ids: [u64; 2], distances: [f32; 2]| Neighbors::from_parts(2, ids.into(), distances.into()).unwrap();
        let a = of([1, 2], [0.9, 0.5]);
        assert_eq!(agreement(&a, &a, 8), Agreement::Same);
        assert_eq!(agreement(&a, &of([1, 3], [0.9, 0.500_000_1]), 8), Agreement::Ties(1));
        assert_eq!(agreement(&a, &of([1, 2], [0.9, 0.501]), 8), Agreement::Differ { query: 0, place: 1 });
        assert_eq!(agreement(&a, &of([1, 2], [0.9, f32::NAN]), 8), Agreement::Differ { query: 0, place: 1 });
    }
}
