//! Shaders are checked like code, without a GPU: every kernel in every variant is parsed and validated by naga,
//! specialised for every workgroup shape and every value of its override constants, and translated to SPIR-V, MSL and
//! HLSL; its buffers, parameters and workgroup memory are compared with what the host believes.
//! `scripts/check-shaders` runs the texts through other compilers.

use std::collections::BTreeSet;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};

use naga::back::{hlsl, msl, pipeline_constants::process_overrides, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage, TypeInner};
use nearfield::ops::search::few;
use nearfield::ops::search::screened::{self, for_matrix_units};
use nearfield::ops::source::{ParamsIn, Target, compose};
use nearfield::ops::{
    Access, Kernel, Variant, assign, distance, matmul, normalize, range, refine, registry, scan, search, segment_sum,
    select_k,
};

const PARAMS_IN: [ParamsIn; 2] = [ParamsIn::Immediate, ParamsIn::Uniform];
/// What every WebGPU device has.
const WORKGROUP_MEMORY: u32 = 16 << 10;
const INVOCATIONS: u32 = 256;
const STORAGE_BUFFERS: usize = 8;

type Constants = Vec<(&'static str, f64)>;

/// Every shape with the default of everything else, and every value of everything else in the first shape.
fn settings(kernel: &Kernel) -> Vec<Constants> {
    let defaults: Constants = kernel.overrides.iter().map(|(name, values)| (*name, values[0])).collect();
    let shapes = kernel.shapes.iter().map(|shape| [shape, &defaults[..]].concat());
    let values = kernel.overrides.iter().flat_map(|(name, values)| values[1..].iter().map(move |v| (*name, *v)));
    let changed = values.map(|(name, value)| {
        let set = |&(n, v): &(&'static str, f64)| if n == name { (n, value) } else { (n, v) };
        kernel.shapes[0].iter().chain(&defaults).map(set).collect()
    });
    shapes.chain(changed).collect()
}

fn parse(text: &str) -> Result<(Module, ModuleInfo), String> {
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::all());
    validator
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all());
    let module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    let info = validator.validate(&module).map_err(|e| e.emit_to_string(text))?;
    Ok((module, info))
}

fn specialise(
    module: &Module,
    info: &ModuleInfo,
    entry: &str,
    set: &Constants,
) -> Result<(Module, ModuleInfo), String> {
    let constants = set.iter().map(|(name, value)| (name.to_string(), *value)).collect();
    let (module, info) = process_overrides(module, info, Some((ShaderStage::Compute, entry)), &constants)
        .map_err(|e| format!("{constants:?}: {e:?}"))?;
    Ok((module.into_owned(), info.into_owned()))
}

fn to_spirv(module: &Module, info: &ModuleInfo, entry: &str) -> Result<Vec<u32>, String> {
    let options = spv::Options { lang_version: (1, 3), ..Default::default() };
    let pipeline = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry.to_owned() };
    spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|e| e.to_string())
}

fn to_msl(module: &Module, info: &ModuleInfo, entry: &str) -> Result<String, String> {
    let options = msl::Options { lang_version: (2, 3), ..Default::default() };
    let entry_point = Some((ShaderStage::Compute, entry.to_owned()));
    let pipeline = msl::PipelineOptions { entry_point, ..Default::default() };
    msl::write_string(module, info, &options, &pipeline).map(|(text, _)| text).map_err(|e| e.to_string())
}

/// The text, with the name that the entry point has there in its first line.
fn to_hlsl(module: &Module, info: &ModuleInfo, entry: &str) -> Result<String, String> {
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        fake_missing_bindings: true,
        immediates_target: Some(hlsl::BindTarget { space: 7, ..Default::default() }),
        special_constants_binding: Some(hlsl::BindTarget { space: 8, ..Default::default() }),
        ..Default::default()
    };
    let pipeline = hlsl::PipelineOptions { entry_point: Some((ShaderStage::Compute, entry.to_owned())) };
    let mut text = String::new();
    let mut writer = hlsl::Writer::new(&mut text, &options, &pipeline);
    let written = writer.write(module, info, None).map_err(|e| e.to_string())?;
    let names = written.entry_point_names.into_iter().collect::<Result<Vec<_>, _>>().map_err(|e| e.to_string())?;
    Ok(format!("// entry: {}\n{text}", names.join(" ")))
}

/// Every text that a device is given.
fn each_text(mut f: impl FnMut(&'static Kernel, Variant, ParamsIn, &str, &Module, &ModuleInfo)) {
    for kernel in registry() {
        for &variant in kernel.variants {
            for params in PARAMS_IN {
                let text = compose(kernel, variant, params, Target::Naga);
                let parsed = parse(&text);
                let (module, info) = parsed.unwrap_or_else(|e| panic!("{} {variant:?} {params:?}\n{e}", kernel.entry));
                f(kernel, variant, params, &text, &module, &info);
            }
        }
    }
}

#[test]
fn every_variant_translates_for_every_shape_and_constant() {
    let mut count = 0;
    each_text(|kernel, variant, params, _, module, info| {
        for set in settings(kernel) {
            let translate = || -> Result<(), String> {
                let (module, info) = specialise(module, info, kernel.entry, &set)?;
                to_spirv(&module, &info, kernel.entry)?;
                to_msl(&module, &info, kernel.entry)?;
                if !for_matrix_units(kernel) {
                    to_hlsl(&module, &info, kernel.entry)?;
                }
                Ok(())
            };
            translate().unwrap_or_else(|e| panic!("{} {variant:?} {params:?} {set:?}: {e}", kernel.entry));
            count += 1;
        }
    });
    assert!(count > 200, "{count} texts are suspiciously few");
}

fn entry_index(module: &Module, entry: &str) -> usize {
    module.entry_points.iter().position(|e| e.name == entry).expect("the entry point")
}

/// What an entry point asks of a device: storage buffers, bytes of workgroup memory, invocations.
fn needs(module: &Module, info: &ModuleInfo, entry: &str) -> (usize, u32, u32) {
    let index = entry_index(module, entry);
    let usage = info.get_entry_point(index);
    let (mut buffers, mut memory) = (0, 0);
    for (_, v) in module.global_variables.iter().filter(|(handle, _)| !usage[*handle].is_empty()) {
        match v.space {
            AddressSpace::Storage { .. } => buffers += 1,
            AddressSpace::WorkGroup => memory += module.types[v.ty].inner.size(module.to_ctx()),
            _ => {}
        }
    }
    (buffers, memory, module.entry_points[index].workgroup_size.iter().product())
}

/// What is wrong with a text, if anything.
fn lint(kernel: &Kernel, text: &str, module: &Module, info: &ModuleInfo) -> Result<(), String> {
    for set in settings(kernel) {
        let (module, info) = specialise(module, info, kernel.entry, &set)?;
        let (buffers, memory, invocations) = needs(&module, &info, kernel.entry);
        let most = match kernel.entry.strip_prefix("search_matrix_") {
            Some(side) => screened::matrix_memory(side.parse().expect("a number")),
            None => WORKGROUP_MEMORY,
        };
        if buffers > STORAGE_BUFFERS || memory > most || invocations > INVOCATIONS {
            return Err(format!("{set:?}: {buffers} buffers, {memory} bytes, {invocations} invocations"));
        }
    }
    for (number, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split(|c: char| c.is_whitespace() || "();,".contains(c)).collect();
        if words.windows(3).any(|w| w[1] == "!=" && w[0] == w[2] && !w[0].is_empty()) {
            return Err(format!("line {}: a NaN is not unequal to itself everywhere: {line}", number + 1));
        }
    }
    Ok(())
}

#[test]
fn kernels_fit_the_default_limits() {
    each_text(|kernel, variant, params, text, module, info| {
        lint(kernel, text, module, info).unwrap_or_else(|e| panic!("{} {variant:?} {params:?}: {e}", kernel.entry));
    });
    for kernel in registry() {
        assert!(kernel.variants.len() * kernel.shapes.len() <= 8, "{} has too many variants", kernel.entry);
        assert_eq!(kernel.variants[0], Variant::PLAIN);
        assert!(kernel.params.len() * 4 <= 128, "{}: more than 128 bytes of immediates", kernel.entry);
    }
}

#[test]
fn bindings_are_those_of_the_table() {
    each_text(|kernel, _, params, _, module, info| {
        let usage = info.get_entry_point(entry_index(module, kernel.entry));
        for (_, v) in module.global_variables.iter().filter(|(h, _)| !usage[*h].is_empty()) {
            let AddressSpace::Storage { access } = v.space else { continue };
            let (name, at) = (v.name.as_deref().expect("a name"), v.binding.expect("a binding"));
            let binding = kernel.bindings.get(at.binding as usize);
            let binding = binding.unwrap_or_else(|| panic!("{} {params:?}: {name} is used, not bound", kernel.entry));
            assert_eq!((at.group, name), (0, binding.name));
            let stores = access.contains(naga::StorageAccess::STORE);
            assert_eq!(stores, binding.access == Access::ReadWrite, "{}: {name}", kernel.entry);
        }
    });
}

/// Name, offset and size of every member of the `Params` struct of a text.
fn params_of(module: &Module) -> Vec<(String, u32, u32)> {
    let (_, ty) = module.types.iter().find(|(_, t)| t.name.as_deref() == Some("Params")).expect("a Params struct");
    let TypeInner::Struct { members, .. } = &ty.inner else { panic!("Params is no struct") };
    let size = |m: &naga::StructMember| module.types[m.ty].inner.size(module.to_ctx());
    members.iter().map(|m| (m.name.clone().expect("a name"), m.offset, size(m))).collect()
}

macro_rules! members {
    ($ty:ty: $($field:ident)+) => {
        (size_of::<$ty>(), vec![$((stringify!($field).to_owned(), offset_of!($ty, $field) as u32, 4)),+])
    };
}

#[test]
fn params_lie_where_the_host_writes_them() {
    let host = |kernel: &Kernel| match kernel.verb {
        _ if kernel.entry == "search_few" => {
            members!(few::Params: row_begin row_end q_begin q_end row_stride query_stride has_mask mask_stride
            mask_row_base position_base out_stride neighbours lanes power power_low)
        }
        _ if kernel.entry == "search_below" => members!(few::Below: width position_base room),
        _ if kernel.entry.starts_with("search_") => {
            members!(screened::Params: row_begin row_end q_begin q_end row_stride
            query_stride has_mask mask_stride mask_row_base position_base room tile_begin tile_end tile_bits slack)
        }
        "distance" => members!(distance::Params: row_begin row_end q_begin q_end row_stride query_stride has_mask
            mask_stride mask_row_base position_base out_stride out_offset power power_low),
        "search" => members!(search::Params: row_begin row_end q_begin q_end row_stride query_stride has_mask
            mask_stride mask_row_base position_base keep part_base parts_total power power_low),
        "assign" => {
            members!(assign::Params: row_begin row_end q_begin q_end row_stride query_stride has_mask mask_stride
            mask_row_base position_base power power_low first)
        }
        "refine" => members!(refine::Params: q_begin q_end width row_stride query_stride position_base row_count
            first power power_low),
        "range" => members!(range::Params: row_begin row_end q_begin q_end row_stride query_stride has_mask
            mask_stride mask_row_base position_base limit out_base power power_low),
        "normalize" => members!(normalize::Params: row_begin row_end row_stride dim),
        "matmul" => members!(matmul::Params: row_begin row_end inner columns),
        "segment_sum" => members!(segment_sum::Params: piece_begin piece_end row_stride),
        "scan" => members!(scan::Params: item_begin item_end code_words row_words add_at scale_at units parts
            query_stride keep places has_mask mask_stride power power_low),
        "select_k" => members!(select_k::Params: segments width in_stride out_stride k part_width parts
            has_positions position_base nan_is_missing lists),
        other => panic!("no list of the members of {other}"),
    };
    each_text(|kernel, _, _, _, module, _| {
        let (size, mut members) = host(kernel);
        members.sort_by_key(|&(_, offset, _)| offset);
        assert_eq!(params_of(module), members, "{}", kernel.entry);
        assert_eq!(size, members.len() * 4, "{}: padding", kernel.entry);
    });
}

fn wgsl_files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let paths = std::fs::read_dir(&dir).expect("the folder").map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "wgsl")).collect()
}

/// Probes and examples stand alone: each is translated like a kernel, and bounded like one.
#[test]
fn shaders_that_stand_alone_translate() {
    let probes = wgsl_files("shaders/probe");
    let names: BTreeSet<String> =
        probes.iter().map(|p| p.file_stem().expect("a stem").to_string_lossy().into_owned()).collect();
    let wanted = ["copy", "dot_i8", "fma_f16", "fma_f32", "nothing", "popcount", "read"];
    assert_eq!(names, wanted.map(str::to_owned).into(), "say here what is measured");
    for path in [probes, wgsl_files("examples/shaders")].concat() {
        let text = std::fs::read_to_string(&path).expect("text");
        let translate = || -> Result<(), String> {
            let (module, info) = parse(&text)?;
            let (module, info) = specialise(&module, &info, "main", &Vec::new())?;
            to_spirv(&module, &info, "main")?;
            to_msl(&module, &info, "main")?;
            to_hlsl(&module, &info, "main")?;
            let (buffers, memory, invocations) = needs(&module, &info, "main");
            let fits = buffers <= STORAGE_BUFFERS && memory <= WORKGROUP_MEMORY && invocations <= INVOCATIONS;
            fits.then_some(()).ok_or_else(|| format!("{buffers} buffers, {memory} bytes, {invocations} invocations"))
        };
        translate().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(text.contains("f16>"), text.contains("enable f16;"), "{}", path.display());
    }
}

#[test]
fn every_shader_has_its_siblings() {
    let stem = |path: &PathBuf| path.file_stem().expect("a stem").to_string_lossy().into_owned();
    let stems: BTreeSet<String> = wgsl_files("shaders").iter().map(stem).collect();
    assert_eq!(stems, registry().iter().map(|k| k.verb.to_owned()).collect());
    for stem in &stems {
        for side in ["ops", "cpu"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(side).join(format!("{stem}.rs"));
            assert!(path.exists(), "{} is missing beside shaders/{stem}.wgsl", path.display());
        }
    }
    for path in [wgsl_files("shaders"), wgsl_files("shaders/lib")].concat() {
        let lines = std::fs::read_to_string(&path).expect("text").lines().count();
        assert!(lines <= 300, "{}: {lines} lines; split it", path.display());
    }
}

#[test]
fn only_the_web_needs_enable_lines() {
    for kernel in registry().into_iter().filter(|k| !for_matrix_units(k)) {
        for &variant in kernel.variants {
            let web = compose(kernel, variant, ParamsIn::Uniform, Target::Web);
            let naga = compose(kernel, variant, ParamsIn::Uniform, Target::Naga);
            assert_eq!(web.starts_with("enable subgroups;"), variant.subgroups);
            assert!(!naga.contains("enable "));
            assert_eq!(naga.contains("= subgroup"), variant.subgroups, "{}", kernel.entry);
        }
    }
}

/// A harness that cannot fail proves nothing: each of these edits must be noticed.
#[test]
fn broken_shaders_are_noticed() {
    let kernel = registry().into_iter().find(|k| k.entry == "search").expect("search");
    let text = compose(kernel, Variant::PLAIN, ParamsIn::Immediate, Target::Naga);
    let check = |text: &str| {
        let (module, info) = parse(text)?;
        lint(kernel, text, &module, &info)
    };
    check(&text).expect("the text itself is right");
    let edit = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    };
    assert!(check(&edit("var pending = existing", "var pending = exiting")).is_err(), "an unknown function");
    assert!(check(&edit("let lane = local.y * 4u;", "let lane = local.y * 4.5;")).is_err(), "types");
    assert!(check(&edit("const QUEUE = 256u;", "const QUEUE = 2048u;")).is_err(), "too much workgroup memory");
    assert!(check(&edit("@workgroup_size(TX, TY)", "@workgroup_size(TX, TY, 8)")).is_err(), "too many invocations");
    assert!(check(&edit("if (entries == 0u)", "if (entries != entries)")).is_err(), "x != x");
    let moved = edit("    row_begin: u32,\n    row_end: u32,", "    row_end: u32,\n    row_begin: u32,");
    let (module, _) = parse(&moved).expect("still WGSL");
    assert_ne!(params_of(&module)[0].0, search::Params::FIELDS[0].0, "a moved member");
}

/// Writes every text into `target/shaders` for other compilers: `<entry>.<variant>.<params>.wgsl` as a browser gets it,
/// a `.json` of the settings beside it, and SPIR-V, HLSL and MSL for each setting.
#[test]
#[ignore = "writes files; scripts/check-shaders runs it"]
fn dump() {
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/shaders");
    _ = std::fs::remove_dir_all(&out);
    std::fs::create_dir_all(&out).expect("target/shaders");
    let write = |name: String, bytes: &[u8]| std::fs::write(out.join(name), bytes).expect("target/shaders is writable");
    each_text(|kernel, variant, params, _, module, info| {
        // No other compiler here knows these.
        if for_matrix_units(kernel) {
            return;
        }
        let kind = if variant.subgroups { "subgroups" } else { "plain" };
        let name = format!("{}.{kind}.{params:?}", kernel.entry).to_lowercase();
        write(format!("{name}.wgsl"), compose(kernel, variant, params, Target::Web).as_bytes());
        let mut sets = Vec::new();
        for (i, set) in settings(kernel).iter().enumerate() {
            let (module, info) = specialise(module, info, kernel.entry, set).expect("checked by another test");
            let words = to_spirv(&module, &info, kernel.entry).expect("checked by another test");
            write(format!("{name}.{i}.spv"), &words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>());
            let text = to_hlsl(&module, &info, kernel.entry).expect("checked by another test");
            write(format!("{name}.{i}.hlsl"), text.as_bytes());
            let text = to_msl(&module, &info, kernel.entry).expect("checked by another test");
            write(format!("{name}.{i}.metal"), text.as_bytes());
            let pairs: Vec<String> = set.iter().map(|(n, v)| format!("\"{n}\": {v}")).collect();
            sets.push(format!("{{{}}}", pairs.join(", ")));
        }
        let json = format!("{{\"entry\": \"{}\", \"settings\": [{}]}}", kernel.entry, sets.join(", "));
        write(format!("{name}.json"), json.as_bytes());
    });
}
