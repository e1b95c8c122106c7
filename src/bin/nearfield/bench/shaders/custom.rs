//! A user's own shader: a WGSL file, and a TOML file with its buffers and its cost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nearfield::roofline::{Budget, Run, Subject};
use nearfield::{Cost, Unit};
use serde::Deserialize;

use super::Timed;
use crate::fail;

/// The shader and its description.
pub struct Custom {
    path: PathBuf,
    #[cfg_attr(not(feature = "gpu"), allow(dead_code))]
    wgsl: String,
    bindings: Bindings,
    unit: Unit,
}

/// The TOML file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(not(feature = "gpu"), allow(dead_code))]
struct Bindings {
    #[serde(default = "main")]
    entry: String,
    workgroups: [u32; 3],
    #[serde(default)]
    constants: BTreeMap<String, f64>,
    buffers: Vec<Buffer>,
    cost: CostOf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(not(feature = "gpu"), allow(dead_code))]
struct Buffer {
    #[serde(default)]
    group: u32,
    binding: u32,
    bytes: u64,
    #[serde(default)]
    fill: Fill,
}

/// `zeros`, `count`, `random`, or a number.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(not(feature = "gpu"), allow(dead_code))]
enum Fill {
    #[default]
    Zeros,
    Count,
    Random,
    #[serde(untagged)]
    Value(f32),
}

/// Of one dispatch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CostOf {
    bytes: f64,
    #[serde(default)]
    operations: f64,
    #[serde(default = "f32")]
    unit: String,
}

fn main() -> String {
    "main".to_owned()
}

fn f32() -> String {
    "f32".to_owned()
}

/// The TOML file of a shader, when none is named.
pub fn bindings_of(shader: &Path, named: Option<&PathBuf>) -> PathBuf {
    named.cloned().unwrap_or_else(|| shader.with_extension("toml"))
}

impl Custom {
    /// Reads both files.
    pub fn read(shader: &Path, bindings: &Path) -> Result<Custom> {
        let read = |path: &Path, what: &str| {
            let why = |e| fail::input(format!("cannot read {what} `{}`: {e}", path.display()));
            std::fs::read_to_string(path).map_err(why)
        };
        let wgsl = read(shader, "the shader")?;
        let text = read(bindings, "the shader's bindings")?;
        let wrong = |why: String| fail::input(format!("`{}`: {}", bindings.display(), why.trim_end()));
        let bindings: Bindings = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let units = Unit::ALL.map(Unit::name).join(", ");
        let unit = Unit::ALL.into_iter().find(|unit| unit.name() == bindings.cost.unit);
        let unit = unit.ok_or_else(|| wrong(format!("unknown unit `{}`; there are {units}", bindings.cost.unit)))?;
        let CostOf { bytes, operations, .. } = bindings.cost;
        if !(bytes >= 0.0 && operations >= 0.0 && bytes + operations > 0.0 && (bytes + operations).is_finite()) {
            return Err(wrong(format!("a cost of {bytes} bytes and {operations} operations; wanted one above 0")));
        }
        Ok(Custom { path: shader.to_owned(), wgsl, bindings, unit })
    }

    fn name(&self) -> String {
        self.path.file_name().map_or_else(|| self.path.display().to_string(), |n| n.to_string_lossy().into_owned())
    }

    /// Runs it.
    #[cfg(feature = "gpu")]
    pub fn measure(&self, subject: &Subject, budget: Budget) -> Result<Vec<Run>> {
        use nearfield::gpu::{Shader, ShaderBuffer, ShaderError};
        use nearfield::roofline::MeasureError;
        let Subject::Gpu(engine) = subject else { return Err(self.needs_gpu(subject)) };
        let fill = |fill: &Fill| match *fill {
            Fill::Zeros => nearfield::gpu::Fill::Zeros,
            Fill::Count => nearfield::gpu::Fill::Count,
            Fill::Random => nearfield::gpu::Fill::Random,
            Fill::Value(x) => nearfield::gpu::Fill::Value(x),
        };
        let buffer =
            |b: &Buffer| ShaderBuffer { group: b.group, binding: b.binding, bytes: b.bytes, fill: fill(&b.fill) };
        let shader = Shader {
            wgsl: &self.wgsl,
            entry: &self.bindings.entry,
            workgroups: self.bindings.workgroups,
            constants: self.bindings.constants.iter().map(|(name, value)| (name.as_str(), *value)).collect(),
            buffers: self.bindings.buffers.iter().map(buffer).collect(),
        };
        let file = self.path.display();
        Subject::measure_shader(engine, &shader, budget).map_err(|error| match error {
            MeasureError::Shader(ShaderError::Compile(said)) => {
                fail::input(format!("`{file}` does not compile: {}", compiler_message(&said, &file.to_string())))
            }
            MeasureError::Shader(ShaderError::Misfit(said)) => {
                fail::input(format!("`{file}` does not fit its bindings or this device: {said}"))
            }
            other => super::engine_error(other),
        })
    }

    /// There is nothing to run it on.
    #[cfg(not(feature = "gpu"))]
    pub fn measure(&self, subject: &Subject, _: Budget) -> Result<Vec<Run>> {
        Err(self.needs_gpu(subject))
    }

    fn needs_gpu(&self, subject: &Subject) -> anyhow::Error {
        let (file, device) = (self.path.display(), subject.identity().name);
        fail::input(format!("`{file}` is a shader and needs a GPU; this is {device} (`--device` names another)"))
    }

    /// The runs and what they did.
    pub fn timed(&self, runs: Vec<Run>) -> Timed {
        let cost = &self.bindings.cost;
        let [x, y, z] = self.bindings.workgroups;
        Timed {
            family: "yours",
            name: self.name(),
            shape: if (y, z) == (1, 1) { format!("{x} groups") } else { format!("{x} x {y} x {z} groups") },
            runs,
            cost: Cost { bytes_read: cost.bytes, operations: cost.operations, launches: 1.0, ..Cost::default() },
            unit: self.unit,
            bytes_touched: self.bindings.buffers.iter().map(|b| b.bytes).sum(),
        }
    }
}

/// What the compiler said, from its own words on, with the file's name in place of `wgsl`.
#[cfg_attr(not(feature = "gpu"), allow(dead_code))]
fn compiler_message(said: &str, file: &str) -> String {
    let start = ["parsing error: ", "validation error: "];
    let own = start.iter().find_map(|s| said.split_once(s)).map_or(said, |(_, own)| own);
    own.trim().replace("\u{250c}\u{2500} wgsl:", &format!("\u{250c}\u{2500} {file}:")).replace("error: ", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compilers_message_names_the_file() {
        let said = "In Device::create_shader_module, label = 'shader'\n\nShader 'shader' parsing error: expected `;`\n  \
                    \u{250c}\u{2500} wgsl:3:7\n  \u{2502}\n3 \u{2502} let x\n  \u{2502}       ^ expected `;`\n\n";
        let message = compiler_message(said, "my.wgsl");
        assert!(message.starts_with("expected `;`\n") && message.contains(" my.wgsl:3:7\n"), "{message}");
        assert!(message.ends_with("^ expected `;`") && !message.contains(" wgsl:"), "{message}");
    }

    #[test]
    fn fills_are_words_or_numbers() {
        let fill = |text: &str| -> Result<Bindings, _> {
            toml::from_str(&format!(
                "workgroups = [1, 1, 1]\nbuffers = [{{ binding = 0, bytes = 4, fill = {text} }}]\ncost = {{ bytes = 4 }}"
            ))
        };
        assert!(matches!(fill("\"count\"").unwrap().buffers[0].fill, Fill::Count));
        assert!(matches!(fill("1.5").unwrap().buffers[0].fill, Fill::Value(1.5)));
        assert!(fill("\"ones\"").is_err());
        assert_eq!(fill("2").unwrap().entry, "main");
    }
}
