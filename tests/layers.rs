//! The architecture as a test: who may import whom, where `unsafe` and wgpu may be, and that every verb has all its
//! files. It reads the text of `src/`; code under `#[cfg(test)] mod tests` at the end of a file is skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nearfield::ops::Op;

/// The layers from the facade down. A module may import only from the layers after its own; the facade, from all.
const LAYERS: [&[&str]; 12] = [
    &["lib", "device", "router", "verbs", "principal", "serial", "roofline"],
    &["index"],
    &["cluster"],
    &["codec", "tune", "format"],
    &["error"],
    &["cpu", "gpu"],
    &["engine"],
    &["simd", "linalg", "executor"],
    &["ops"],
    &["compute"],
    &["stats", "cache", "random", "threads", "types"],
    &["cancel"],
];

/// Pairs of one layer that are wanted: (who, whom).
const ALLOWED: [(&str, &str); 0] = [];

/// What each module may import, itself apart. Every folder and file of `src` but the facade has a line.
const ONLY: [(&str, &[&str]); 20] = [
    (
        "index",
        &[
            "cluster", "codec", "tune", "format", "error", "engine", "linalg", "ops", "compute", "stats", "cache",
            "random", "threads", "types", "cancel",
        ],
    ),
    ("cluster", &["codec", "engine", "linalg", "ops", "compute", "stats", "random", "threads", "types"]),
    ("codec", &["engine", "simd", "linalg", "ops", "compute", "stats", "random", "threads", "types"]),
    ("tune", &["engine", "gpu", "cpu", "linalg", "ops", "compute", "stats", "cache", "random", "types"]),
    ("format", &["threads", "types"]),
    ("error", &["ops", "compute", "types"]),
    ("cpu", &["engine", "simd", "ops", "compute", "stats", "cache", "threads", "types", "cancel"]),
    ("gpu", &["engine", "ops", "compute", "stats", "cache", "random", "threads", "types"]),
    ("engine", &["executor", "ops", "compute", "stats", "threads", "types", "cancel"]),
    ("executor", &["compute", "cancel"]),
    // The contracts that it computes (lists, codes), and the types of their elements.
    ("simd", &["ops", "types"]),
    ("ops", &["compute", "stats", "threads", "types"]),
    ("compute", &["stats", "cache", "types", "cancel"]),
    ("cancel", &[]),
    ("stats", &[]),
    ("cache", &[]),
    ("linalg", &["random", "threads", "types"]),
    ("random", &[]),
    ("threads", &["cancel"]),
    ("types", &[]),
];

/// The GPU engine from the top down. A file or folder of `src/gpu` may import only from the lines after its own.
const GPU_LAYERS: [&[&str]; 12] = [
    &["mod"],
    // What the device can do at best.
    &["ceilings"],
    // Kernels prove themselves.
    &["selftest"],
    // From steps to launches.
    &["lower"],
    // What lies on the device, and how it got there.
    &["resident"],
    &["copies", "listed"],
    &["upload"],
    // Command buffers; the packing of rows.
    &["submit", "rows", "halves"],
    // What every run shares.
    &["machine"],
    &["case", "memory"],
    // Compiled kernels, and what earlier processes found out about them.
    &["pipelines"],
    &["known"],
];

/// The lowest layers of the GPU engine: the device itself.
const GPU_DEVICE: [&[&str]; 3] = [&["context"], &["adapters", "faults"], &["trusted", "sync", "poller"]];

/// Where `unsafe` may be written.
const UNSAFE_ROOMS: [&str; 3] = ["src/simd/", "src/format/mmap.rs", "src/gpu/trusted.rs"];

/// Where rayon may be named: nothing else shares work, so that `threads` holds and the global pool is never started.
const RAYON_ROOMS: [&str; 1] = ["src/threads.rs"];

/// Where faer may be named.
const FAER_ROOMS: [&str; 1] = ["src/linalg/"];

/// Where threads may be started beside the device's own: packing rows for a GPU, which must not wait in a pool, waiting for a
/// GPU, driving futures, and measuring how fast the engines are.
const THREAD_ROOMS: [&str; 5] =
    ["src/threads.rs", "src/gpu/sync.rs", "src/gpu/poller.rs", "src/executor.rs", "src/router.rs"];

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
    let Some((_, only)) = ONLY.iter().find(|(who, _)| *who == module) else {
        return Some(format!("module `{module}` has no line in ONLY of tests/layers.rs: say what it may import"));
    };
    if !only.contains(&target) {
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

/// Every folder and file of `src` has a layer and, below the facade, a line that says what it may import; and nothing else
/// is listed.
#[test]
fn every_module_has_its_room() {
    let sources = sources();
    let there: BTreeSet<&str> = sources.iter().map(Source::module).collect();
    let listed: BTreeSet<&str> = LAYERS.iter().copied().flatten().copied().collect();
    assert_eq!(there, listed, "modules of src, and those that LAYERS of tests/layers.rs lists");
    let below: BTreeSet<&str> = LAYERS[1..].iter().copied().flatten().copied().collect();
    let lines: BTreeSet<&str> = ONLY.iter().map(|(module, _)| *module).collect();
    assert_eq!(below, lines, "modules below the facade, and those that ONLY of tests/layers.rs has a line for");
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

/// The first circle among `edges`, if there is one: a path that comes back to where it began.
fn circle(edges: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit(
        at: &str,
        edges: &BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|p| p == at) {
            return Some(path[start..].iter().cloned().chain([at.to_owned()]).collect());
        }
        if done.contains(at) {
            return None;
        }
        path.push(at.to_owned());
        let found = edges.get(at).into_iter().flatten().find_map(|to| visit(to, edges, path, done));
        path.pop();
        done.insert(at.to_owned());
        found
    }
    let mut done = BTreeSet::new();
    edges.keys().find_map(|at| visit(at, edges, &mut Vec::new(), &mut done))
}

/// Who imports whom among the folders and files of `src`, the facade and what is [`ALLOWED`] left out.
#[test]
fn no_folders_import_each_other() {
    let sources = sources();
    let macros = root_macros(&sources);
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources.iter().filter(|s| layer(s.module()) != Some(0)) {
        for path in crate_paths(&source.code) {
            let first = path.split("::").next().unwrap_or(&path);
            let target = macros.get(first).map_or(first, String::as_str);
            if target != source.module() && !ALLOWED.contains(&(source.module(), target)) {
                edges.entry(source.module().to_owned()).or_default().insert(target.to_owned());
            }
        }
    }
    assert_eq!(circle(&edges), None);
}

/// The parts of `src/gpu` (files and folders) that a file of it names, by `crate::gpu::`, `super::` or `self::`.
fn gpu_parts(source: &Source, parts: &BTreeSet<String>) -> BTreeSet<String> {
    // `src/gpu/mod.rs` lies at depth 0, `src/gpu/rows.rs` and `src/gpu/lower/mod.rs` at 1, `src/gpu/lower/scan.rs` at 2.
    let rest = source.path.strip_prefix("src/gpu/").unwrap_or(&source.path);
    let names: Vec<&str> = rest.trim_end_matches(".rs").split('/').filter(|&name| name != "mod").collect();
    let mut named = BTreeSet::new();
    for prefix in ["crate::gpu::".to_owned(), "super::".repeat(names.len())] {
        for (at, found) in source.code.match_indices(&prefix) {
            let before = source.code[..at].chars().next_back();
            if prefix.is_empty() || source.code[..at].ends_with("::") || before.is_some_and(is_word) {
                continue;
            }
            let mut paths = BTreeSet::new();
            items(&source.code[at + found.len()..], "", &mut paths);
            for path in paths {
                let first = path.split("::").next().unwrap_or(&path);
                if first != "super" {
                    named.insert(if parts.contains(first) { first } else { "mod" }.to_owned());
                }
            }
        }
    }
    named
}

#[test]
fn the_gpu_engine_has_one_direction() {
    let sources = sources();
    let part = |source: &Source| {
        let rest = source.path.strip_prefix("src/gpu/")?;
        let first = rest.split('/').next().unwrap_or(rest);
        Some(first.trim_end_matches(".rs").to_owned())
    };
    let parts: BTreeSet<String> = sources.iter().filter_map(part).collect();
    let order: Vec<&[&str]> = GPU_LAYERS.iter().chain(&GPU_DEVICE).copied().collect();
    let layer = |part: &str| order.iter().position(|parts| parts.contains(&part));
    let mut wrong = Vec::new();
    let mut seen = 0;
    for source in &sources {
        let Some(from) = part(source) else { continue };
        if layer(&from).is_none() {
            wrong.push(format!("{}: it has no line in GPU_LAYERS of tests/layers.rs", source.path));
        }
        // The root declares all and may name all.
        for to in gpu_parts(source, &parts).into_iter().filter(|to| *to != from && from != "mod") {
            seen += 1;
            if layer(&to) <= layer(&from) {
                wrong.push(format!("{}: `{from}` lies below or beside `{to}`", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(seen > 40, "only {seen} imports were seen");
    for listed in order.iter().copied().flatten() {
        assert!(parts.contains(*listed), "tests/layers.rs lists src/gpu/{listed}, which is not there");
    }
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

#[test]
fn threads_are_those_of_the_device() {
    for source in sources() {
        if !RAYON_ROOMS.iter().any(|room| source.path.starts_with(room)) {
            assert!(!mentions(&source.code, "rayon"), "{}: rayon is named only in {RAYON_ROOMS:?}", source.path);
        }
        if !THREAD_ROOMS.iter().any(|room| source.path.starts_with(room)) {
            let started = ["thread::spawn", "thread::scope", "thread::Builder", "available_parallelism"];
            let found = started.iter().find(|name| source.code.contains(**name));
            assert_eq!(found, None, "{}: threads are started only in {THREAD_ROOMS:?}", source.path);
        }
    }
}

#[test]
fn decompositions_are_in_their_room() {
    for source in sources().iter().filter(|s| !FAER_ROOMS.iter().any(|room| s.path.starts_with(room))) {
        assert!(!mentions(&source.code, "faer"), "{}: faer is named only in {FAER_ROOMS:?}", source.path);
    }
}

/// The operations that have kernels.
fn verbs() -> Vec<&'static str> {
    // Steps that the caller computes on the host have none.
    Op::NAMES.iter().copied().filter(|name| *name != "host").collect()
}

#[test]
fn every_verb_has_its_files() {
    let mut missing = Vec::new();
    for verb in verbs() {
        for path in [
            format!("shaders/{verb}.wgsl"),
            format!("src/ops/{verb}.rs"),
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
    let verbs = verbs();
    let belongs = |stem: &str, other: &[&str]| {
        other.contains(&stem) || verbs.iter().any(|v| stem == *v || stem.starts_with(&format!("{v}_")))
    };
    for (folder, other) in [
        ("shaders", &[][..]),
        ("src/ops", &["mod", "host", "metric", "pairs", "source", "tile", "tuning"][..]),
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
    let macros = BTreeMap::from([("params".to_owned(), "ops".to_owned())]);
    for (module, path) in [
        ("types", "ops::Op"),
        ("stats", "types"),
        ("ops", "gpu::GpuEngine"),
        ("ops", "engine::Device"),
        ("compute", "ops::Op"),
        ("engine", "cpu"),
        ("cpu", "gpu::device"),
        ("simd", "cpu"),
        ("simd", "engine::Device"),
        ("gpu", "cpu"),
        ("cpu", "index::Flat"),
        ("cpu", "Metric"),
        ("format", "ops"),
        ("format", "index"),
        ("index", "Device"),
        ("index", "gpu::GpuEngine"),
        ("index", "simd::Token"),
        ("error", "codec::CodecError"),
        ("codec", "cpu::Simd"),
        ("types", "params"),
        ("newcomer", "types"),
    ] {
        assert!(wrong_arrow(module, path, &macros).is_some(), "{module} -> {path} should be refused");
    }
    for (module, path) in [
        ("lib", "index::Flat"),
        ("device", "cpu"),
        ("index", "ops::Engine"),
        ("index", "error::SearchError"),
        ("ops", "compute::Value"),
        ("cpu", "ops::Op"),
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

#[test]
fn circles_are_seen() {
    let edges = |pairs: &[(&str, &str)]| {
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            edges.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        edges
    };
    assert_eq!(circle(&edges(&[("a", "b"), ("a", "c"), ("b", "c"), ("c", "d")])), None);
    let found = circle(&edges(&[("a", "b"), ("b", "c"), ("c", "d"), ("d", "b")])).unwrap();
    assert_eq!(found, ["b", "c", "d", "b"]);
}

#[test]
fn parts_of_the_gpu_engine_are_read() {
    let parts = BTreeSet::from(["lower", "rows", "memory", "sync"].map(str::to_owned));
    let parts_of = |path: &str, code: &str| -> Vec<String> {
        gpu_parts(&Source { path: path.to_owned(), code: code.to_owned() }, &parts).into_iter().collect()
    };
    let code = "use super::{rows, memory::Buffer}; use super::Engine; use crate::gpu::sync::lock;";
    assert_eq!(parts_of("src/gpu/copies.rs", code), ["memory", "mod", "rows", "sync"]);
    assert_eq!(parts_of("src/gpu/lower/mod.rs", "fn f() { super::rows::pack() }"), ["rows"]);
    let code = "use super::Job; use super::super::memory::Buffer;";
    assert_eq!(parts_of("src/gpu/lower/scan.rs", code), ["memory"]);
}
