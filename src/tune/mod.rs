//! The choice of the engine: it predicts the time of a plan on each, from a calibration that is measured once per machine
//! and corrected by the measured times of searches. And the shapes of a GPU's kernels, chosen by timing the few there are.
//!
//! `model` is the calibration and what it predicts, `measure` takes it from an engine, `choice` decides, `shapes` tunes.

mod choice;
mod measure;
mod model;
#[cfg(feature = "gpu")]
mod shapes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

pub use choice::{Residency, Wanted, choose};
pub use model::{Calibration, Curve, Predictor};
#[cfg(feature = "gpu")]
pub use shapes::{Timed, tune};

use crate::cache::{CacheDir, File, Found};
use crate::compute::EngineError;
use crate::ops::Engine;

/// What is known of an engine's speed: from this process, else from disk, else measured now (at most 200 ms beside the
/// time that compiling takes).
///
/// # Errors
/// [`EngineError`] when the engine fails while it is measured.
pub fn predictor(engine: &Engine) -> Result<Arc<Predictor>, EngineError> {
    /// Held while measuring: two measurements side by side would see each other.
    static MEASURING: Mutex<()> = Mutex::new(());
    let key = engine.identity();
    let already = || known().get(&key).cloned();
    if let Some(predictor) = already() {
        return Ok(predictor);
    }
    let _one = MEASURING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(predictor) = already() {
        return Ok(predictor);
    }
    let predictor = Arc::new(load_or_measure(engine, &file(&engine.cache(), &key))?);
    known().insert(key, predictor.clone());
    Ok(predictor)
}

/// What is known of an engine's speed without measuring it: from this process, else from disk.
pub fn remembered(engine: &Engine) -> Option<Arc<Predictor>> {
    let key = engine.identity();
    let mut known = known();
    if let Some(predictor) = known.get(&key) {
        return Some(predictor.clone());
    }
    let predictor = Arc::new(Predictor::new(read(&file(&engine.cache(), &key)).0?, None));
    known.insert(key, predictor.clone());
    Some(predictor)
}

/// The engines of which this process knows the speed.
fn known() -> MutexGuard<'static, HashMap<String, Arc<Predictor>>> {
    static KNOWN: OnceLock<Mutex<HashMap<String, Arc<Predictor>>>> = OnceLock::new();
    KNOWN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets how fast an engine is, here and on disk: something about it has changed.
pub fn forget(engine: &Engine) {
    let key = engine.identity();
    known().remove(&key);
    file(&engine.cache(), &key).remove();
}

/// What was wrong with the file of an engine whose speed this process asked for.
pub fn note(engine: &Engine) -> Option<String> {
    known().get(&engine.identity())?.note().map(str::to_owned)
}

fn file(cache: &CacheDir, key: &str) -> File {
    File::of(cache, "speed", key)
}

fn load_or_measure(engine: &Engine, file: &File) -> Result<Predictor, EngineError> {
    let (calibration, note) = read(file);
    if let Some(calibration) = calibration {
        return Ok(Predictor::new(calibration, None));
    }
    file.remove();
    let (calibration, in_peace) = measure::calibrate(engine)?;
    // Figures of a machine that was busy with something else serve this process only.
    if in_peace && calibration.check().is_ok() {
        file.write(&calibration.to_string());
    }
    Ok(Predictor::new(calibration, note))
}

/// The calibration in a file, or what is wrong with it.
fn read(file: &File) -> (Option<Calibration>, Option<String>) {
    match file.read() {
        Found::Nothing => (None, None),
        Found::Refused(why) => (None, Some(why)),
        Found::Text(text) => match text.parse() {
            Ok(calibration) => (Some(calibration), None),
            Err(why) => (None, Some(file.refuse(&why))),
        },
    }
}

/// What the cache folder has for an engine, without measuring anything: whether it was calibrated, or what is wrong with
/// the file.
pub fn cached(cache: &CacheDir, identity: &str) -> Result<bool, String> {
    match read(&file(cache, identity)) {
        (_, Some(why)) => Err(why),
        (calibration, None) => Ok(calibration.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{CpuEngine, CpuOptions};

    #[test]
    fn row_d5_a_damaged_calibration_is_named_measured_again_and_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::within(Some(folder.path().to_owned()), "speed", "cpu");
        let cpu = CpuEngine::new(CpuOptions { threads: Some(1), level: None });
        assert_eq!(load_or_measure(&cpu, &file).unwrap().note(), None);
        let kept = Calibration::simple(1e-5, 1e10, 1e10, None);
        file.write(&kept.to_string());
        let read = load_or_measure(&cpu, &file).unwrap();
        assert_eq!((read.calibration(), read.note()), (&kept, None), "it was read, not measured");

        file.write(&kept.to_string().replacen("point", "point -1e9 1e-3\npoint", 1));
        let rebuilt = load_or_measure(&cpu, &file).unwrap();
        let note = rebuilt.note().unwrap().to_owned();
        assert!(note.contains("speed-") && note.contains("point -1e9"), "{note}");
        assert_ne!(rebuilt.calibration(), &kept);
        assert_eq!(load_or_measure(&cpu, &file).unwrap().note(), None);

        std::fs::write(file.path().unwrap(), b"not a cache").unwrap();
        assert!(load_or_measure(&cpu, &file).unwrap().note().unwrap().contains("checksum"));
    }
}
