//! The ceilings of the device, measured once: copies, a compute-bound kernel, and a launch that does nothing.

mod probes;
mod shader;

use std::sync::Arc;
use std::time::Instant;

use super::lower::{self, Site};
use super::machine::Machine;
use super::resident::Residents;
use super::submit::{Bind, Recorder};
use crate::compute::wait::block_on;
use crate::compute::{EngineError, Vectors};
use crate::ops::distance;
use crate::ops::{Batch, Extent, Screen};
use crate::stats::{Ceilings, SearchStats};
use crate::types::{DType, MatrixView, Metric, RowsView};
pub(super) use probes::roofs;
pub use shader::{Fill, Prepared, Shader, ShaderBuffer, ShaderError, Took};

/// Figures of a slow device, for when measuring fails.
const GUESS: Ceilings = Ceilings { bytes_per_second: 1e10, operations_per_second: 1e10, launch_seconds: 1e-4 };

pub(super) fn measure(machine: &Machine) -> Ceilings {
    Ceilings {
        bytes_per_second: bandwidth(machine).unwrap_or(GUESS.bytes_per_second),
        operations_per_second: operations(machine).unwrap_or(GUESS.operations_per_second),
        launch_seconds: launch(machine).unwrap_or(GUESS.launch_seconds),
    }
}

/// Bytes per second by copies between two buffers, each byte counted once read and once written.
fn bandwidth(machine: &Machine) -> Result<f64, EngineError> {
    let size = (machine.memory.free() / 4).min(64 << 20) / 4096 * 4096;
    let mut stats = SearchStats::default();
    let mut rec = Recorder::new(machine, &mut stats);
    let (from, to) = (rec.scratch(size)?, rec.scratch(size)?);
    let mut best = 0.0f64;
    let mut copies = 1;
    // Longer until it takes a few milliseconds; the first time touches the pages.
    for _ in 0..6 {
        block_on(rec.finish())?;
        let began = Instant::now();
        for _ in 0..copies {
            rec.copy(Bind::first(&from, size), Bind::first(&to, size));
        }
        block_on(rec.finish())?;
        let seconds = began.elapsed().as_secs_f64();
        best = best.max(2.0 * size as f64 * f64::from(copies) / seconds);
        if seconds > 0.02 {
            break;
        }
        copies *= 4;
    }
    if best > 0.0 { Ok(best) } else { Ok(GUESS.bytes_per_second) }
}

/// Operations per second by the fused search of many queries, which reads little.
fn operations(machine: &Machine) -> Result<f64, EngineError> {
    const DIM: usize = 128;
    let values: Vec<f32> = (0..4096 * DIM).map(|i| ((i * 7919) % 255) as f32 / 128.0 - 1.0).collect();
    let residents = Residents::default();
    let mut best = 0.0f64;
    let (mut queries, mut rows) = (32, 1024);
    for _ in 0..5 {
        let view = |rows: usize| MatrixView::new(&values[..rows * DIM], DIM).map(RowsView::F32);
        let (Ok(base), Ok(batch)) = (view(rows), view(queries)) else { break };
        let vectors = |rows| Vectors { rows, norms: None, tag: None };
        let (rows_of, queries_of) = (vectors(base), vectors(batch));
        let batch = Batch { metric: Metric::L2, rows: rows_of, queries: queries_of, mask: None, codes: None };
        let program = batch.nearest(10, Screen::None)?;
        let extent = Extent { metric: Metric::L2, dtype: DType::F32, dim: DIM, rows, queries };
        let site = Site { machine, residents: &residents, holder: "ceilings" };
        // The first run compiles and learns.
        let mut seconds = f64::INFINITY;
        for _ in 0..2 {
            let mut stats = SearchStats::default();
            let began = Instant::now();
            block_on(lower::run(site, &program, &batch.inputs(), &mut stats))?;
            let wall = began.elapsed().as_secs_f64();
            let stage = stats.stages.iter().find(|s| s.name == "search" && s.on_device);
            seconds = stage.map_or(wall, |s| s.time.as_secs_f64()).max(1e-9).min(seconds);
        }
        best = best.max(distance::cost(&extent).operations / seconds);
        if seconds > 5e-3 {
            break;
        }
        (queries, rows) = (queries * 4, (rows * 2).min(4096));
        queries = queries.min(4096);
    }
    Ok(best.max(1e6))
}

/// Seconds from recording the smallest launch to its end.
fn launch(machine: &Machine) -> Result<f64, EngineError> {
    let mut stats = SearchStats::default();
    let mut rec = Recorder::new(machine, &mut stats);
    let buffer: Arc<_> = rec.scratch(1024)?;
    let mut times = Vec::new();
    for _ in 0..9 {
        let began = Instant::now();
        rec.clear(Bind::first(&buffer, 1024));
        block_on(rec.read(&[Bind::first(&buffer, 16)]))?;
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or(GUESS.launch_seconds))
}
