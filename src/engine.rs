//! The handle that users hold: which backend runs their programs.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cancel::CancelToken;
use crate::compute::Pending;
use crate::executor::Executor;
use crate::ops::Engine;
use crate::stats::SearchStats;
use crate::threads::{Entered, Threads, Within};

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
    /// Drives what is asked for without waiting.
    executor: Arc<Executor>,
    /// Calls off what is done through this handle.
    tokens: Vec<CancelToken>,
}

impl Device {
    /// A backend, and the CPU beside it with its threads.
    pub(crate) fn new(engine: Arc<Engine>, host: Arc<Engine>, threads: Threads) -> Device {
        Device { engine, host, threads, report: Arc::default(), executor: Arc::default(), tokens: Vec::new() }
    }

    /// Until the guard is dropped, work of the calling thread is shared among the threads of this device. Every entry
    /// point does this first.
    pub(crate) fn enter(&self) -> Entered {
        self.threads.enter(&self.tokens)
    }

    /// [`Device::enter`] for a search, which a token of its own may call off, too.
    pub(crate) fn enter_for(&self, token: Option<&CancelToken>) -> (Option<Entered>, Entered) {
        let own = self.enter();
        // The first of a pair is dropped first.
        (token.map(|token| self.threads.enter(std::slice::from_ref(token))), own)
    }

    /// [`Device::enter`] for the work of a future, which a token of its own may call off, too.
    pub(crate) fn within<F: Future>(&self, token: Option<&CancelToken>, future: F) -> Within<F> {
        self.threads.within(self.tokens.iter().chain(token).cloned().collect(), future)
    }

    /// The same device; everything that is done through this handle and its clones ends with an error once the token is
    /// cancelled: verbs, clustering, training. An index does not keep the token of the device that it was made with.
    #[must_use]
    pub fn cancelled_by(&self, token: &CancelToken) -> Device {
        let mut device = self.clone();
        device.tokens.push(token.clone());
        device
    }

    /// The same device without a token, as indexes keep it.
    pub(crate) fn untied(&self) -> Device {
        Device { tokens: Vec::new(), ..self.clone() }
    }

    /// Drives a future by a thread of the device, which does its work on the CPU together with the others: for an
    /// application whose own threads must not be held up. It begins at once. The [`Pending`] that is returned is cheap to poll,
    /// can be waited for, and calls the future off when it is dropped. Up to four futures compute at the same time; further ones
    /// wait until one of those ends or waits for a GPU.
    ///
    /// The future may also run what blocks, such as [`KMeans::train`](crate::KMeans::train) or
    /// [`Ivf::train`](crate::Ivf::train) on the device that it is given.
    ///
    /// ```
    /// # fn main() -> Result<(), nearfield::SearchError> {
    /// use nearfield::{Device, Metric};
    ///
    /// let (device, rows) = (Device::cpu(), vec![[0.0f32, 1.0], [2.0, 3.0]]);
    /// let pending = device.spawn(|device| async move {
    ///     device.nearest_async(&rows[1..], &rows, Metric::L2, 1).await
    /// });
    /// assert_eq!(pending.wait()?.ids(), [1]);
    /// # Ok(()) }
    /// ```
    pub fn spawn<T, E, F>(&self, work: impl FnOnce(Device) -> F) -> Pending<'static, T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let token = CancelToken::new();
        let device = self.cancelled_by(&token);
        let tokens = device.tokens.clone();
        self.executor.spawn(token, self.threads.within(tokens, work(device)))
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
