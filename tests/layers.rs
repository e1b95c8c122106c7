//! The architecture as a test: who may import whom, where `unsafe` and wgpu may be, and that every verb has all its
//! files. It reads the text of `src/`; code under `#[cfg(test)] mod tests` at the end of a file is not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nearfield::kernels::lists::Form;
use nearfield::plan::{Norm, Screen, Step};

/// The layers from the facade down. A module may import only from the layers after its own; the facade, from all.
const LAYERS: [&[&str]; 9] = [
    &["lib", "device", "router", "verbs", "principal", "serial", "roofline"],
    &["index"],
    &["error"],
    &["tune", "cluster", "codec", "format"],
    &["cpu", "gpu"],
    &["engine"],
    &["simd"],
    &["plan", "kernels"],
    &["stats", "types", "cache"],
];

/// Pairs of one layer, or against the order, that are wanted: (who, whom).
const ALLOWED: [(&str, &str); 3] = [
    // A step's cost comes from its kernel, a kernel's shapes from the plan's problem.
    ("plan", "kernels"),
    ("kernels", "plan"),
    // Codes screen the assignment of points to centroids.
    ("cluster", "codec"),
];

/// Modules that may use only these.
const ONLY: [(&str, &[&str]); 4] = [
    ("cpu", &["engine", "simd", "plan", "kernels", "stats", "types", "cache"]),
    // The contracts it computes (lists, codes), and the types of their elements.
    ("simd", &["kernels", "types"]),
    ("gpu", &["engine", "plan", "kernels", "stats", "types", "cache"]),
    ("format", &["types"]),
];

/// Where `unsafe` may be written.
const UNSAFE_ROOMS: [&str; 3] = ["src/simd/", "src/format/mmap.rs", "src/gpu/trusted.rs"];

/// Where wgpu may be named.
const WGPU_ROOMS: [&str; 3] = ["src/gpu/", "src/lib.rs", "src/device.rs"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A source file: its path from the root, its code without comments, strings and unit tests.
struct Source {
    path: String,
    code: String,
}

impl Source {
    /// `src/index/flat.rs` and `src/index/mod.rs` belong to module `index`, `src/plan.rs` to `plan`.
    fn module(&self) -> &str {
        let rest = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let first = rest.split('/').next().unwrap_or(rest);
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

fn files_below(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.map(|e| e.unwrap().path()).collect(),
        Err(_) => return,
    };
    entries.sort();
    for path in entries {
        if path.is_dir() { files_below(&path, out) } else { out.push(path) }
    }
}

/// Every file of the library; the program in `src/bin` is a crate of its own.
fn sources() -> Vec<Source> {
    let mut paths = Vec::new();
    files_below(&root().join("src"), &mut paths);
    let mut sources = Vec::new();
    for path in paths.iter().filter(|p| p.extension().is_some_and(|e| e == "rs")) {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        if !name.starts_with("src/bin/") {
            sources.push(Source { path: name, code: code_of(&fs::read_to_string(path).unwrap()) });
        }
    }
    assert!(sources.len() > 10, "the library was not found below {}", root().display());
    sources
}

/// The text up to its unit tests, with comments and the insides of string literals left out.
fn code_of(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let mut code = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => {
                rest.by_ref().find(|&c| c == '\n');
                code.push('\n');
            }
            '/' if rest.peek() == Some(&'*') => {
                let mut last = ' ';
                rest.by_ref().find(|&c| std::mem::replace(&mut last, c) == '*' && c == '/');
            }
            '"' => {
                code.push('"');
                while let Some(c) = rest.next() {
                    match c {
                        '\\' => drop(rest.next()),
                        '"' => break,
                        _ => {}
                    }
                }
                code.push('"');
            }
            // A quote as a character, which would begin a string.
            '\'' if rest.peek() == Some(&'"') => drop(rest.next()),
            c => code.push(c),
        }
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands alone somewhere in the code.
fn mentions(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// The paths after each `crate::` of the code, up to two names long: `engine::Mask`, `stats`. A list in braces gives a
/// path for each of its items.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        if code[..at].ends_with('$') || code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        items(&code[at + found.len()..], "", &mut paths);
    }
    paths
}

/// Adds what a use tree names, its first two names; gives the text after it.
fn items<'a>(tree: &'a str, prefix: &str, paths: &mut BTreeSet<String>) -> &'a str {
    if let Some(mut rest) = tree.strip_prefix('{') {
        loop {
            rest = rest.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
            if rest.is_empty() {
                return rest;
            }
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            let before = rest.len();
            rest = items(rest, prefix, paths);
            if rest.len() == before {
                // What can't begin a name: leave it.
                rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
            }
        }
    }
    let name: String = tree.chars().take_while(|&c| is_word(c)).collect();
    let rest = &tree[name.len()..];
    let path = if prefix.is_empty() { name } else { format!("{prefix}::{name}") };
    match rest.strip_prefix("::") {
        Some(deeper) if !path.contains("::") && deeper.starts_with(|c| is_word(c) || c == '{') => {
            items(deeper, &path, paths)
        }
        _ => {
            paths.insert(path);
            rest
        }
    }
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// What is wrong with `module` naming `path`, if anything.
fn wrong_arrow(module: &str, path: &str, macros: &BTreeMap<String, String>) -> Option<String> {
    let first = path.split("::").next().unwrap_or(path);
    // An exported macro lies at the root, whatever module defines it.
    let target = macros.get(first).map_or(first, String::as_str);
    let allowed = |whom: &str| whom == target || whom == path;
    if target == module || layer(module) == Some(0) || ALLOWED.iter().any(|&(who, whom)| who == module && allowed(whom))
    {
        return None;
    }
    let Some(to) = layer(target) else {
        return Some(format!("`crate::{path}` is no module that tests/layers.rs lists: name the one that defines it"));
    };
    let Some(from) = layer(module) else {
        return Some(format!("module `{module}` is not in the list of tests/layers.rs: say where it belongs"));
    };
    if let Some((_, only)) = ONLY.iter().find(|(who, _)| *who == module)
        && !only.contains(&target)
    {
        return Some(format!("`{module}` may use only {only:?}, not `crate::{path}`"));
    }
    (to <= from).then(|| format!("`{module}` lies below or beside `{target}` and may not use `crate::{path}`"))
}

/// Macros that `#[macro_export]` puts at the root, and the modules that define them.
fn root_macros(sources: &[Source]) -> BTreeMap<String, String> {
    let mut macros = BTreeMap::new();
    for source in sources {
        for (at, _) in source.code.match_indices("#[macro_export]") {
            let after = &source.code[at..];
            if let Some(name) = after.split("macro_rules! ").nth(1) {
                macros.insert(name.chars().take_while(|&c| is_word(c)).collect(), source.module().to_owned());
            }
        }
    }
    macros
}

#[test]
fn imports_go_downwards() {
    let sources = sources();
    let macros = root_macros(&sources);
    let mut wrong = Vec::new();
    for source in &sources {
        for path in crate_paths(&source.code) {
            wrong.extend(wrong_arrow(source.module(), &path, &macros).map(|why| format!("{}: {why}", source.path)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_is_in_its_rooms() {
    for source in sources().iter().filter(|s| !UNSAFE_ROOMS.iter().any(|room| s.path.starts_with(room))) {
        assert!(!mentions(&source.code, "unsafe"), "{}: unsafe is allowed only in {UNSAFE_ROOMS:?}", source.path);
        assert!(
            !source.code.contains("allow(unsafe_code)"),
            "{}: unsafe is allowed only in {UNSAFE_ROOMS:?}",
            source.path
        );
    }
}

#[test]
fn wgpu_is_in_its_rooms() {
    for source in sources().iter().filter(|s| !WGPU_ROOMS.iter().any(|room| s.path.starts_with(room))) {
        assert!(!mentions(&source.code, "wgpu"), "{}: wgpu is named only in {WGPU_ROOMS:?}", source.path);
    }
}

/// A step of each kind. A new one does not compile until it is in this match, and should then be in the list.
fn steps() -> [Step; 8] {
    let screen = Screen::None;
    let steps = [
        Step::Normalize { norm: Norm::L2 },
        Step::Distance,
        Step::Search { screen, keep: 1 },
        Step::Assign,
        Step::Refine,
        Step::SelectK { k: 1 },
        Step::Scan { form: Form::Bits, probes: 1, lists: 1, keep: 1 },
        Step::Range { key: 0.0 },
    ];
    for step in steps {
        match step {
            Step::Normalize { .. } | Step::Distance | Step::Search { .. } | Step::Assign => {}
            Step::Refine | Step::SelectK { .. } | Step::Scan { .. } | Step::Range { .. } => {}
        }
    }
    steps
}

#[test]
fn every_verb_has_its_files() {
    let mut missing = Vec::new();
    for step in steps() {
        let verb = step.verb();
        for path in [
            format!("shaders/{verb}.wgsl"),
            format!("src/kernels/{verb}.rs"),
            format!("src/cpu/{verb}.rs"),
            format!("tests/verbs/{verb}.rs"),
            format!("benches/verbs/{verb}.rs"),
        ] {
            if !root().join(&path).is_file() {
                missing.push(path);
            }
        }
    }
    assert!(missing.is_empty(), "missing siblings: {missing:?}");
}

/// A file beside a verb's must belong to a verb, too.
#[test]
fn every_file_of_a_verb_has_a_verb() {
    let verbs: Vec<&str> = steps().iter().map(Step::verb).collect();
    let belongs = |stem: &str, other: &[&str]| {
        other.contains(&stem) || verbs.iter().any(|v| stem == *v || stem.starts_with(&format!("{v}_")))
    };
    for (folder, other) in [
        ("shaders", &[][..]),
        ("src/kernels", &["mod", "codes", "lists", "metric", "source", "tile", "tuning"][..]),
        ("tests/verbs", &[][..]),
        ("benches/verbs", &["main"][..]),
    ] {
        for entry in fs::read_dir(root().join(folder)).into_iter().flatten() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
            assert!(path.is_dir() || belongs(stem, other), "{folder}/{stem}: no verb of this name");
        }
    }
}

// --- these tests can fail ------------------------------------------------------------------------------------------

#[test]
fn wrong_arrows_are_seen() {
    let macros = BTreeMap::from([("params".to_owned(), "kernels".to_owned())]);
    for (module, path) in [
        ("types", "plan::Step"),
        ("stats", "types"),
        ("kernels", "gpu::GpuEngine"),
        ("kernels", "engine::Engine"),
        ("plan", "engine"),
        ("engine", "cpu"),
        ("cpu", "gpu::device"),
        ("simd", "cpu"),
        ("simd", "engine::Task"),
        ("gpu", "cpu"),
        ("cpu", "index::Flat"),
        ("cpu", "Metric"),
        ("format", "plan"),
        ("format", "index"),
        ("index", "Device"),
        ("types", "params"),
        ("newcomer", "types"),
    ] {
        assert!(wrong_arrow(module, path, &macros).is_some(), "{module} -> {path} should be refused");
    }
    for (module, path) in [
        ("lib", "index::Flat"),
        ("device", "cpu"),
        ("index", "engine::Engine"),
        ("index", "error::BuildError"),
        ("kernels", "plan::Problem"),
        ("plan", "kernels"),
        ("cpu", "simd::Token"),
        ("codec", "simd::Token"),
        ("cpu", "params"),
        ("gpu", "stats"),
        ("gpu", "gpu::memory"),
        ("format", "types"),
    ] {
        assert_eq!(wrong_arrow(module, path, &macros), None, "{module} -> {path}");
    }
}

#[test]
fn imports_are_read() {
    let code = code_of(
        r#"
        // use crate::comment;
        use crate::{plan::{Plan, Step}, types::Metric, stats};
        use crate::engine::*;
        pub(crate) fn f() { let s = "crate::string"; crate::simd::go::far(); $crate::params!() }
        const Q: char = '"'; /* crate::block */ use crate::tune;
        unsafe_code!(); // unsafe
        #[cfg(test)]
mod tests {
        use crate::index;
        "#,
    );
    let paths: Vec<String> = crate_paths(&code).into_iter().collect();
    assert_eq!(paths, ["engine", "plan::Plan", "plan::Step", "simd::go", "stats", "tune", "types::Metric"]);
    assert!(!mentions(&code, "unsafe"));
    assert!(mentions("x = unsafe { y }", "unsafe"));
}
