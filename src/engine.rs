//! The handle that users hold: which backend runs their programs.

use std::sync::{Arc, Mutex, PoisonError};

use crate::ops::Engine;
use crate::stats::SearchStats;
use crate::threads::{Entered, Threads};

/// Who did the last work that has no statistics of its own, and why not the device that was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The device that answered, in words; empty before the first work.
    pub device: String,
    /// Why the device that was asked for did not answer, if it did not.
    pub fallback: Option<String>,
}

/// Where searches run: the CPU, a GPU, or whichever is there.
///
/// Cheap to clone; clones share the device, its memory budget and its kernels.
#[derive(Clone)]
pub struct Device {
    pub(crate) engine: Arc<Engine>,
    /// The CPU, which trains codes whoever searches.
    pub(crate) host: Arc<Engine>,
    /// The threads of `host`, for all work beside the engines.
    pub(crate) threads: Threads,
    report: Arc<Mutex<Report>>,
}

impl Device {
    /// A backend, and the CPU beside it with its threads.
    pub(crate) fn new(engine: Arc<Engine>, host: Arc<Engine>, threads: Threads) -> Device {
        Device { engine, host, threads, report: Arc::default() }
    }

    /// Until the guard is dropped, work of the calling thread is shared among the threads of this device. Every entry
    /// point does this first.
    pub(crate) fn enter(&self) -> Entered {
        self.threads.enter()
    }

    /// Who answered the last verb ([`Device::distances`], [`Device::nearest`] and their like), clustering or change of an
    /// index on this device or one of its clones, and why not the device that was asked for. Searches of an index say
    /// the same in their [`SearchStats`]. Where threads share a device, it is the last of any of them.
    pub fn last_report(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps who did something for [`Device::last_report`].
    pub(crate) fn note(&self, stats: &SearchStats) {
        let report = Report { device: stats.device.clone(), fallback: stats.fallback.clone() };
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").field(&self.engine.name()).finish()
    }
}
