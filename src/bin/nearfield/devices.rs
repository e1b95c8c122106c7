//! `nearfield devices`: the devices, the one that `auto` takes, and why not the others.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use nearfield::{Device, DeviceOptions};
use serde_json::{Value, json};

use crate::outputs::Outputs;
use crate::{fail, ui};

/// List the devices, their limits and features, and which one `auto` takes
#[derive(Args, Debug)]
pub struct DevicesArgs {
    /// Write the same as JSON
    #[arg(long, value_name = "OUT.json")]
    json: Option<PathBuf>,
    /// Time the few shapes that the kernels of a GPU can have and keep the fastest for it; no answer depends on them
    #[arg(long, value_name = "D", num_args = 0..=1, default_missing_value = "gpu")]
    tune: Option<String>,
}

/// What `auto` does with a device, and why.
struct Choice {
    taken: bool,
    why: String,
}

pub fn run(args: &DevicesArgs) -> Result<()> {
    let mut outputs = Outputs::begin(&[args.json.as_ref()], &[])?;
    let (adapters, gpu_taken) = adapters();
    let cpu = Device::cpu().name();
    let choice = Choice {
        taken: !gpu_taken,
        why: if gpu_taken { "a hardware GPU is there" } else { "there is no hardware GPU" }.to_owned(),
    };
    let mut text = String::new();
    head(&mut text, "cpu", &cpu, "SIMD, always there");
    said(&mut text, &choice);
    let speed = measured(&mut text, &cpu);
    let values: Vec<Value> = adapters.iter().map(|a| a.write(&mut text)).collect();
    if adapters.is_empty() {
        let _ = writeln!(text, "\n{}", no_adapters());
    }
    if let Ok(name) = std::env::var(nearfield::DEVICE_VARIABLE)
        && !name.is_empty()
    {
        let _ = writeln!(text, "\n{} is set: without --device, `{name}` is taken.", nearfield::DEVICE_VARIABLE);
    }
    let cpu = json!({"name": cpu, "kind": "cpu", "auto": choice.taken, "why": choice.why, "speed": speed});
    outputs.json(args.json.as_ref(), &json!({"cpu": cpu, "adapters": values}))?;
    outputs.commit()?;
    fail::print(&text)?;
    args.tune.as_deref().map_or(Ok(()), tune)
}

/// Tunes a device by name.
fn tune(name: &str) -> Result<()> {
    let device = crate::common::open(&DeviceOptions::default().device(name))?;
    let all = device.tune()?;
    let mut text = format!("\n{}\n", ui::bold(&format!("tuning {}", device.name())));
    if all.is_empty() {
        text.push_str("        there is nothing to choose: it is no GPU\n");
    } else {
        let _ = writeln!(text, "        1 query, 16 queries, 512 queries; the first is used from now on");
    }
    for line in &all {
        let _ = writeln!(text, "        {line}");
    }
    for note in &device.notes() {
        let _ = writeln!(text, "        {note}");
    }
    fail::print(&text)
}

/// What the cache folder has for a device.
fn measured(text: &mut String, identity: &str) -> Value {
    let said = match nearfield::tune::cached(&nearfield::CacheDir::User, identity) {
        Ok(true) => "its speed is measured".to_owned(),
        Ok(false) => "its speed is not measured yet".to_owned(),
        Err(note) => note,
    };
    let _ = writeln!(text, "        {}", ui::wrap(&said, ui::width(), 8, 8));
    said.into()
}

fn head(text: &mut String, device: &str, name: &str, more: &str) {
    let _ = writeln!(text, "{}  {}", ui::bold(&format!("{device:<6}")), ui::bold(name));
    let _ = writeln!(text, "        {}", ui::wrap(more, ui::width(), 8, 8));
}

fn said(text: &mut String, choice: &Choice) {
    let line = match choice {
        Choice { taken: true, why } if why.is_empty() => "auto: takes it".to_owned(),
        Choice { taken: true, why } => format!("auto: takes it, {why}"),
        Choice { taken: false, why } => format!("auto: does not take it, {why}"),
    };
    let _ = writeln!(text, "        {}", ui::wrap(&line, ui::width(), 8, 8));
}

#[cfg(not(feature = "gpu"))]
mod gpu {
    use super::Value;

    /// There are none in this build.
    pub struct Adapter;

    impl Adapter {
        pub fn write(&self, _: &mut String) -> Value {
            Value::Null
        }
    }

    pub fn adapters() -> (Vec<Adapter>, bool) {
        (Vec::new(), false)
    }

    pub fn no_adapters() -> &'static str {
        "No GPUs: this build has no GPU engine (feature `gpu`)."
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use std::fmt::Write;

    use nearfield::AdapterReport;
    use nearfield::gpu::{Kind, Select, select};
    use serde_json::{Map, Value, json};

    use super::{Choice, head, measured, said};
    use crate::ui;

    /// An adapter and what `auto` does with it.
    pub struct Adapter {
        report: AdapterReport,
        choice: Choice,
    }

    /// All adapters, and whether `auto` takes one of them.
    pub fn adapters() -> (Vec<Adapter>, bool) {
        let reports = nearfield::adapters();
        let taken = select(&reports, &Select::Auto).ok();
        let name = taken.and_then(|t| reports.get(t)).map(|r| r.name.clone());
        let adapters = reports.into_iter().map(|report| Adapter {
            choice: Choice { taken: taken == Some(report.index), why: why(&report, taken, name.as_deref()) },
            report,
        });
        (adapters.collect(), taken.is_some())
    }

    pub fn no_adapters() -> &'static str {
        "No GPUs: no Vulkan, Metal or DX12 adapter was found. Is a driver installed?"
    }

    fn why(report: &AdapterReport, taken: Option<usize>, name: Option<&str>) -> String {
        match (report, name) {
            _ if taken == Some(report.index) => String::new(),
            (r, _) if !r.usable => format!("it cannot be used: {}", r.reason),
            (r, _) if r.kind == Kind::Software => {
                "it is a CPU that imitates a GPU; `--device gpu` takes it where there is no other".to_owned()
            }
            (_, Some(name)) => format!("gpu:{} ({name}) comes before it", taken.unwrap_or(0)),
            (r, None) => r.reason.clone(),
        }
    }

    impl Adapter {
        /// Appends the adapter to the text and gives it as JSON.
        pub fn write(&self, text: &mut String) -> Value {
            let r = &self.report;
            text.push('\n');
            head(text, &format!("gpu:{}", r.index), &r.name, &format!("{}, {}, {}", r.backend, r.kind, r.driver));
            said(text, &self.choice);
            let speed = measured(text, &r.identity());
            let (has, lacks): (Vec<_>, Vec<_>) = r.features.iter().partition(|(_, there)| *there);
            let names = |list: &[&(&'static str, bool)]| list.iter().map(|(name, _)| (*name).to_owned()).collect();
            let (low, high) = r.subgroup_sizes;
            let size = if low == high { format!("of {low}") } else { format!("of {low} to {high}") };
            let limits = r.limits.iter().map(|(name, value)| limit(name, *value)).collect();
            let lines: [(&str, Vec<String>); 4] =
                [("limits", limits), ("has", names(&has)), ("lacks", names(&lacks)), ("subgroups", vec![size])];
            for (name, items) in lines.iter().filter(|(_, items)| !items.is_empty()) {
                let _ = writeln!(text, "        {name:<10}{}", ui::wrap_list(items, ui::width(), 18, 18));
            }
            self.json(speed)
        }

        fn json(&self, speed: Value) -> Value {
            let r = &self.report;
            let limits: Map<String, Value> = r.limits.iter().map(|&(name, v)| (name.to_owned(), v.into())).collect();
            let features: Map<String, Value> =
                r.features.iter().map(|&(name, v)| (name.to_owned(), v.into())).collect();
            json!({
                "device": format!("gpu:{}", r.index),
                "name": r.name,
                "backend": r.backend,
                "kind": r.kind.to_string(),
                "driver": r.driver,
                "limits": limits,
                "features": features,
                "subgroup_sizes": [r.subgroup_sizes.0, r.subgroup_sizes.1],
                "usable": r.usable,
                "auto": self.choice.taken,
                "why": self.choice.why,
                "speed": speed,
            })
        }
    }

    /// `storage binding bytes` 134217728 as `storage binding 128 MiB`.
    fn limit(name: &str, value: u64) -> String {
        match name.strip_suffix(" bytes") {
            Some(what) => format!("{what} {}", ui::bytes(value)),
            None => format!("{} {name}", ui::count(value)),
        }
    }
}

use gpu::{adapters, no_adapters};
