//! KernelTuning: times the few shapes that a GPU's kernels have and keeps the fastest, for this process and later ones.

use super::measure::{LadderRun, Session};
use crate::compute::EngineError;
use crate::gpu::GpuEngine;
use crate::ops::Screen;
use crate::ops::tuning::KernelTuning;

/// A choice and what searches took with it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timed {
    /// The choice.
    pub tuning: KernelTuning,
    /// Seconds of one query, some and many queries, each the best of three.
    pub seconds: [f64; 3],
}

impl Timed {
    /// How much longer than with another choice, as a geometric mean.
    fn against(&self, other: &Timed) -> f64 {
        let ratios = self.seconds.iter().zip(&other.seconds).map(|(a, b)| (a / b).ln());
        (ratios.sum::<f64>() / self.seconds.len() as f64).exp()
    }
}

/// Another choice must be so much faster than the shipped one to replace it: noise is not.
const WORTH: f64 = 0.95;

/// Times every choice and leaves the fastest in place, on disk too. Gives all that were timed, the fastest first. Answers
/// are the same whatever wins.
///
/// # Errors
/// [`EngineError`] of the device; the choice is then as it was.
pub fn tune(engine: &GpuEngine) -> Result<Vec<Timed>, EngineError> {
    let before = engine.tuning();
    let timed = time_all(engine);
    engine.set_tuning(before, false);
    let mut timed = timed?;
    let Some(shipped) = timed.first().copied() else { return Ok(timed) };
    timed.sort_by(|a, b| a.against(&shipped).total_cmp(&b.against(&shipped)));
    let best = timed.first().filter(|t| t.against(&shipped) < WORTH).map_or(shipped.tuning, |t| t.tuning);
    if let Some(place) = timed.iter().position(|t| t.tuning == best) {
        timed[..=place].rotate_right(1);
    }
    engine.set_tuning(best, true);
    Ok(timed)
}

fn time_all(engine: &GpuEngine) -> Result<Vec<Timed>, EngineError> {
    let mut session = Session::new(engine, f64::INFINITY);
    let trial = |queries: usize, rows: usize| LadderRun {
        rows,
        dim: 128,
        queries,
        k: 10,
        screen: if queries > 16 { Screen::F32 } else { Screen::None },
    };
    // As many rows as keep one search short on this device.
    let mut fits = |queries: usize| -> Result<LadderRun, EngineError> {
        let short = session.time(trial(queries, 1024))?.unwrap_or(1.0);
        Ok(trial(
            queries,
            if short < 2e-3 {
                65_536
            } else if short < 2e-2 {
                8192
            } else {
                1024
            },
        ))
    };
    let trials = [fits(1)?, fits(16)?, fits(512)?];
    let mut all = Vec::new();
    for tuning in KernelTuning::grid() {
        engine.set_tuning(tuning, false);
        let mut seconds = [0.0; 3];
        for (seconds, trial) in seconds.iter_mut().zip(trials) {
            *seconds = session.time(trial)?.unwrap_or(f64::INFINITY);
        }
        all.push(Timed { tuning, seconds });
    }
    Ok(all)
}
