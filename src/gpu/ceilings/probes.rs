//! The probes of `shaders/probe/`: their buffers, and the meaning of their times.

use super::super::adapters::Kind;
use super::super::machine::Machine;
use super::shader::{Fill, Prepared, Shader, ShaderBuffer, ShaderError};
use crate::stats::{Peak, Roofs, Unit};

/// Time that one measurement should take at least, once warm.
const LEAST_SECONDS: f64 = 4e-3;
/// Invocations of a workgroup of every probe but `nothing`.
const INVOCATIONS: f64 = 256.0;

/// An arithmetic probe: the unit that it measures, its text, and operations of an invocation.
const ARITHMETIC: [(Unit, &str, f64, &str); 4] = [
    (Unit::F32, include_str!("../../../shaders/probe/fma_f32.wgsl"), 256.0 * 64.0 * 2.0, "fma"),
    (Unit::F16, include_str!("../../../shaders/probe/fma_f16.wgsl"), 256.0 * 64.0 * 2.0, "fma of f16"),
    (Unit::Int8, include_str!("../../../shaders/probe/dot_i8.wgsl"), 256.0 * 32.0 * 8.0, "dot4I8Packed"),
    (Unit::Popcount, include_str!("../../../shaders/probe/popcount.wgsl"), 256.0 * 32.0 * 3.0, "countOneBits"),
];
const READ: &str = include_str!("../../../shaders/probe/read.wgsl");
const COPY: &str = include_str!("../../../shaders/probe/copy.wgsl");
const NOTHING: &str = include_str!("../../../shaders/probe/nothing.wgsl");
/// Bytes that an invocation of `read` reads, and that one of `copy` reads and writes.
const READ_BYTES: f64 = 16.0 * 64.0;
const COPY_BYTES: f64 = 2.0 * 16.0 * 64.0;

/// Everything that can be measured; what fails is absent, with the reason.
pub(in crate::gpu) fn roofs(machine: &Machine) -> Result<Roofs, ShaderError> {
    let mut roofs = Roofs::default();
    let largest = set_bytes(machine);
    let smaller = [1 << 20, 16 << 20, 128 << 20].into_iter().filter(|&bytes| bytes < largest);
    for bytes in smaller.chain([largest]) {
        let prepared = prepare(machine, READ, [bytes, 16])?;
        roofs.read.push((bytes, rate(&prepared, READ_BYTES)?));
    }
    // Drivers copy in their own ways.
    let by_driver = super::bandwidth(machine).unwrap_or(0.0);
    roofs.copy = rate(&prepare(machine, COPY, [largest, largest])?, COPY_BYTES)?.max(by_driver);
    for (unit, wgsl, operations, how) in ARITHMETIC {
        roofs.peaks.push(peak(machine, unit, wgsl, operations, how));
    }
    let note = "their rate is not measured yet".to_owned();
    roofs.peaks.push(Peak { unit: Unit::Matrix, operations_per_second: None, note });
    let nothing = prepare(machine, NOTHING, [16, 16])?;
    let mut launches = Vec::new();
    let mut trips = Vec::new();
    for _ in 0..20 {
        launches.push(nothing.trip(false)?);
        trips.push(nothing.trip(true)?);
    }
    roofs.launch_seconds = median(launches);
    roofs.read_back_seconds = Some(median(trips));
    Ok(roofs)
}

fn peak(machine: &Machine, unit: Unit, wgsl: &str, operations: f64, how: &str) -> Peak {
    let absent = |note: String| Peak { unit, operations_per_second: None, note };
    if unit == Unit::F16 && !machine.context.features.contains(wgpu::Features::SHADER_F16) {
        return absent("the device has no f16 arithmetic (SHADER_F16)".to_owned());
    }
    match prepare(machine, wgsl, [64, 16]).and_then(|prepared| rate(&prepared, operations)) {
        Ok(rate) => Peak { unit, operations_per_second: Some(rate), note: how.to_owned() },
        Err(e) => absent(e.to_string()),
    }
}

/// A power of two of bytes that is larger than most caches, and that the device can hold and bind.
fn set_bytes(machine: &Machine) -> u64 {
    let context = &machine.context;
    let wanted = match context.kind() {
        Kind::Software => 64 << 20,
        Kind::Discrete => 1 << 30,
        _ => 256 << 20,
    };
    let fits = (machine.memory.free() / 4).min(context.limits.max_storage_buffer_binding_size);
    let most = wanted.min(fits.min(context.limits.max_buffer_size)).max(1 << 20);
    1 << most.ilog2()
}

fn prepare<'a>(machine: &'a Machine, wgsl: &str, bytes: [u64; 2]) -> Result<Prepared<'a>, ShaderError> {
    let buffer =
        |(binding, &bytes): (usize, &u64)| ShaderBuffer { group: 0, binding: binding as u32, bytes, fill: Fill::Zeros };
    let buffers = bytes.iter().enumerate().map(buffer).collect();
    let shader = Shader { wgsl, entry: "main", workgroups: [1; 3], constants: Vec::new(), buffers };
    Prepared::new(machine, &shader, true)
}

/// The most units per second when every invocation does so many: with more and more workgroups, until a run takes long
/// enough, then the best of a few.
fn rate(prepared: &Prepared<'_>, units: f64) -> Result<f64, ShaderError> {
    // The first run compiles.
    let mut groups = 64u32;
    prepared.run([groups, 1, 1], 1)?;
    let mut dispatches = 1;
    let once = |groups: u32, dispatches: u32| -> Result<(f64, f64), ShaderError> {
        let seconds = prepared.run([groups, 1, 1], dispatches)?.seconds();
        Ok((f64::from(groups) * f64::from(dispatches) * INVOCATIONS * units / seconds, seconds))
    };
    let (mut best, mut seconds) = once(groups, dispatches)?;
    while seconds < LEAST_SECONDS && dispatches < 1 << 10 {
        if groups < 16 << 10 {
            groups *= 4
        } else {
            dispatches *= 2
        }
        let (rate, took) = once(groups, dispatches)?;
        (best, seconds) = (best.max(rate), took);
    }
    for _ in 0..3 {
        best = best.max(once(groups, dispatches)?.0);
    }
    Ok(best)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
