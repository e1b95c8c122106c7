//! A device, its capabilities, and the way of its errors to the caller.
//!
//! wgpu reports errors in four ways, and all of them end as an [`EngineError`] here: error scopes around every
//! allocation and submission, a callback when the device is lost, the result of a poll, and (on a device of our own)
//! a handler for what no scope caught. On an application's device its own handlers are left alone.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Poll, Waker};

use super::adapters::{self, AdapterError, AdapterReport, Kind, MATRIX_FEATURES, OPTIONAL, Select};
use super::faults::{Fault, Faults};
use super::poller::{Poller, poll};
use super::sync::lock;
use super::trusted;
use crate::cache::CacheDir;
use crate::compute::EngineError;
use crate::compute::wait::may_block;
use crate::ops::DeviceCaps;
use crate::ops::tuning::KernelTuning;

/// Where a message about a lost device waits to be seen.
type LostCell = Arc<Mutex<Option<String>>>;

/// The device and the facts that the rest of the engine decides by.
pub(super) struct Context {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) info: wgpu::AdapterInfo,
    pub(super) features: wgpu::Features,
    pub(super) limits: wgpu::Limits,
    /// What kernels may count on.
    pub(super) caps: DeviceCaps,
    /// The side of the f16 matrices that the device's units multiply, where nearfield can use them.
    pub(super) matrix: Option<u32>,
    /// Nanoseconds per tick, where kernels can be timed by the device.
    pub(super) tick: Option<f64>,
    pub(super) faults: Faults,
    /// The folder of compiled kernels and passed tests.
    pub(super) cache: CacheDir,
    lost: LostCell,
    /// Waits in place of futures; made when the first one waits.
    poller: OnceLock<Option<Poller>>,
}

impl Context {
    /// Opens an adapter with its real limits and the optional features that it has.
    pub(super) fn open(wanted: &Select) -> Result<(Context, AdapterReport), AdapterError> {
        let found = adapters::enumerate();
        let reports: Vec<AdapterReport> = found.iter().enumerate().map(|(i, a)| adapters::report(i, a)).collect();
        let index = adapters::select(&reports, wanted)?;
        let (Some(adapter), Some(report)) = (found.get(index), reports.get(index)) else {
            return Err(AdapterError::NoAdapter { reason: "the adapter went away".to_owned() });
        };
        let mut features = OPTIONAL.iter().fold(wgpu::Features::empty(), |all, &(_, f)| all | f);
        if matches!(report.kind, Kind::Integrated | Kind::Software) {
            // On a discrete GPU a mappable buffer may lie in host memory.
            features |= wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
        }
        let matrix = adapters::matrix(adapter);
        if matrix.is_some() {
            features |= MATRIX_FEATURES;
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("nearfield"),
            required_features: features & adapter.features(),
            required_limits: adapter.limits(),
            experimental_features: match matrix {
                Some(_) => trusted::experimental(),
                None => wgpu::ExperimentalFeatures::disabled(),
            },
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
            .map_err(|e| AdapterError::Refused { name: report.name.clone(), reason: e.to_string() })?;
        let lost = LostCell::default();
        let seen = lost.clone();
        device.set_device_lost_callback(move |reason, message| {
            *lock(&seen) = Some(format!("{reason:?}: {message}"));
        });
        // Scopes catch what this crate does wrong; what they do not catch must not be a panic.
        device.on_uncaptured_error(Arc::new(|_| {}));
        Ok((Context { matrix, ..Context::with(device, queue, lost) }, report.clone()))
    }

    /// Takes an application's device as it is.
    pub(super) fn from_wgpu(device: wgpu::Device, queue: wgpu::Queue) -> Result<Context, AdapterError> {
        let context = Context::with(device, queue, LostCell::default());
        match adapters::lacking(&context.limits, true) {
            Some(reason) => Err(AdapterError::Unusable { name: context.info.name.clone(), reason }),
            None => Ok(context),
        }
    }

    fn with(device: wgpu::Device, queue: wgpu::Queue, lost: LostCell) -> Context {
        let (features, limits, info) = (device.features(), device.limits(), device.adapter_info());
        let caps = DeviceCaps {
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            max_invocations: limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x)
                .min(limits.max_compute_workgroup_size_y),
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            max_groups: limits.max_compute_workgroups_per_dimension,
            tuning: KernelTuning::DEFAULT,
        };
        let tick = features
            .contains(wgpu::Features::TIMESTAMP_QUERY)
            .then(|| f64::from(queue.get_timestamp_period()))
            .filter(|&tick| tick > 0.0);
        Context {
            device,
            queue,
            info,
            features,
            limits,
            caps,
            matrix: None,
            tick,
            faults: Faults::default(),
            cache: CacheDir::default(),
            lost,
            poller: OnceLock::new(),
        }
    }

    /// What sort of device this is.
    pub(super) fn kind(&self) -> Kind {
        Kind::from(self.info.device_type)
    }

    /// Whether kernel parameters of so many bytes can travel as immediates.
    pub(super) fn immediates(&self, bytes: usize) -> bool {
        self.features.contains(wgpu::Features::IMMEDIATES) && bytes <= self.limits.max_immediate_size as usize
    }

    /// Whether buffers for kernels may be mapped (memory shared with the CPU).
    pub(super) fn mappable(&self) -> bool {
        self.features.contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS)
            && matches!(self.kind(), Kind::Integrated | Kind::Software)
    }

    /// An error if the device is known to be lost.
    pub(super) fn check_lost(&self) -> Result<(), EngineError> {
        match &*lock(&self.lost) {
            Some(message) => Err(EngineError::Lost(message.clone())),
            None => Ok(()),
        }
    }

    /// Whether the device is known to be lost.
    pub(super) fn is_lost(&self) -> bool {
        lock(&self.lost).is_some()
    }

    /// Notes that the device is gone and gives the error that says so.
    pub(super) fn note_lost(&self, message: &str) -> EngineError {
        let mut cell = lock(&self.lost);
        EngineError::Lost(cell.get_or_insert_with(|| message.to_owned()).clone())
    }

    /// Runs calls into wgpu and gives what they reported. Out-of-memory comes back with `wanted` bytes.
    pub(super) fn scoped<T>(&self, wanted: u64, calls: impl FnOnce() -> T) -> Result<T, EngineError> {
        self.check_lost()?;
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let value = calls();
        // Popped in the reverse order of pushing, each of them in any case.
        let errors = [memory, validation, internal].map(|scope| at_once(scope.pop()).flatten());
        self.check_lost()?;
        match errors.into_iter().flatten().next() {
            None => Ok(value),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(EngineError::OutOfMemory { wanted, free: 0, limit: 0 }),
            Some(error) => Err(EngineError::Driver(error.to_string())),
        }
    }

    /// Waits for a submission, or for all of them.
    pub(super) async fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<(), EngineError> {
        let poller = || self.poller.get_or_init(|| Poller::new(self.device.clone()));
        let waited = match may_block() {
            true => poll(&self.device, submission),
            false => match poller() {
                Some(poller) => poller.wait(submission).await,
                None => poll(&self.device, submission),
            },
        };
        self.waited(waited)
    }

    /// [`Context::wait`] on this thread.
    pub(super) fn wait_here(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<(), EngineError> {
        self.waited(poll(&self.device, submission))
    }

    fn waited<T>(&self, waited: Result<T, wgpu::PollError>) -> Result<(), EngineError> {
        self.check_lost()?;
        waited.map(drop).map_err(|e| EngineError::Driver(e.to_string()))
    }

    /// After an error that does not say why: whether the device still does anything at all. An application's device tells
    /// nobody here when it is lost.
    pub(super) fn check_alive(&self) -> Result<(), EngineError> {
        let (ended, mapped) = std::sync::mpsc::sync_channel(1);
        let descriptor = wgpu::BufferDescriptor {
            label: Some("nearfield.probe"),
            size: 16,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let tried = self.scoped(16, || {
            let probe = self.device.create_buffer(&descriptor);
            probe.map_async(wgpu::MapMode::Read, .., move |result| _ = ended.try_send(result.is_ok()));
            let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
        });
        match (tried, mapped.recv_timeout(std::time::Duration::from_secs(1))) {
            (Ok(()), Ok(true)) => Ok(()),
            (Err(lost @ EngineError::Lost(_)), _) => Err(lost),
            _ => Err(self.note_lost("it no longer maps memory")),
        }
    }

    /// Makes a fault happen, now or at the next chance.
    pub(super) fn inject(&self, fault: Fault) {
        match fault {
            Fault::Lost => {
                self.device.destroy();
                let _ = self.device.poll(wgpu::PollType::Poll);
                self.note_lost("destroyed by a test");
            }
            other => self.faults.add(other),
        }
    }
}

/// The value of a future that has it at once, as scopes of a native device have.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut std::task::Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}
