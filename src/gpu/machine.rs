//! The state that all runs on a device share: the device itself, its memory, its kernels, and which of them have proved
//! themselves.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::adapters::AdapterReport;
use super::case::Case;
use super::context::Context;
use super::known::Known;
use super::memory::{Memory, READ_BACK};
use super::pipelines::{Key, Pipelines};
use super::sync::lock;
use crate::compute::EngineError;
use crate::ops::DeviceCaps;
use crate::ops::tuning::KernelTuning;
use crate::types::{DType, Metric};

/// Stages that can be timed in one command buffer; nothing is learned from further ones.
pub(super) const TIMED: usize = 64;
/// The budget of a self-test, beside that of the engine for as long as it runs.
const PROOF_BYTES: u64 = 16 << 20;

/// What a self-test found: `Err` says what was wrong with the answer.
pub(super) type Verdict = Result<(), String>;

/// Runs the self-test of a case on a machine made for it. It lies above this file, which is why it is handed in. The
/// outer error is the device's.
pub(super) type Prove = for<'a> fn(&'a Machine, Metric, DType, Case) -> Proving<'a>;

/// A self-test under way.
pub(super) type Proving<'a> = Pin<Box<dyn Future<Output = Result<Verdict, EngineError>> + Send + 'a>>;

/// What has been tested, and what came of it.
struct Checks {
    prove: Prove,
    done: Mutex<HashMap<Key, Verdict>>,
    /// One test at a time.
    testing: async_lock::Mutex<()>,
    run: AtomicU64,
}

impl Checks {
    fn new(prove: Prove) -> Checks {
        Checks { prove, done: Mutex::default(), testing: async_lock::Mutex::default(), run: AtomicU64::new(0) }
    }
}

/// A query set with its buffers, kept for the next command buffer.
pub(super) struct Clock {
    pub(super) queries: wgpu::QuerySet,
    pub(super) resolved: wgpu::Buffer,
    pub(super) read: wgpu::Buffer,
}

/// What every run shares.
pub(super) struct Machine {
    pub(super) context: Arc<Context>,
    pub(super) memory: Arc<Memory>,
    pub(super) pipelines: Arc<Pipelines>,
    /// What self-tests have found; absent while one runs.
    checks: Option<Checks>,
    /// Which shapes kernels take.
    tuning: Mutex<KernelTuning>,
    /// Command buffers of kernels that were submitted so far, and kernels in them.
    work: [AtomicU64; 2],
    /// Verbs whose variant with subgroup operations is not to be used.
    plain_only: Arc<Mutex<BTreeSet<&'static str>>>,
    clocks: Mutex<Vec<Clock>>,
}

impl Machine {
    pub(super) fn new(context: Context, info: &AdapterReport, memory: Option<u64>, prove: Prove) -> Machine {
        let memory = Memory::new(&context, memory);
        let known = Arc::new(Known::open(&context, info));
        let tuning = Mutex::new(known.tuning().unwrap_or(context.caps.tuning));
        let pipelines = Arc::new(Pipelines::new(&context, known));
        Machine {
            tuning,
            work: Default::default(),
            context: Arc::new(context),
            memory,
            pipelines,
            checks: Some(Checks::new(prove)),
            plain_only: Arc::default(),
            clocks: Mutex::default(),
        }
    }

    /// The same device with memory of its own, for a self-test.
    fn for_test(&self) -> Machine {
        Machine {
            context: self.context.clone(),
            memory: Memory::of(PROOF_BYTES),
            pipelines: self.pipelines.clone(),
            checks: None,
            tuning: Mutex::new(*lock(&self.tuning)),
            work: Default::default(),
            plain_only: self.plain_only.clone(),
            clocks: Mutex::default(),
        }
    }

    /// What kernels of a verb may count on.
    pub(super) fn caps(&self, verb: &str) -> DeviceCaps {
        let caps = self.context.caps;
        let subgroups = caps.subgroups && !lock(&self.plain_only).contains(verb);
        DeviceCaps { subgroups, tuning: *lock(&self.tuning), ..caps }
    }

    /// Which shapes kernels take.
    pub(super) fn tuning(&self) -> KernelTuning {
        *lock(&self.tuning)
    }

    /// From now on kernels take these shapes. No run may be under way.
    pub(super) fn set_tuning(&self, tuning: KernelTuning) {
        *lock(&self.tuning) = tuning;
    }

    /// Command buffers submitted so far, and kernels dispatched.
    pub(super) fn work(&self) -> [u64; 2] {
        [0, 1].map(|i| self.work[i].load(Ordering::Relaxed))
    }

    /// Counts a command buffer and the kernels in it.
    pub(super) fn count(&self, dispatches: u64) {
        self.work[0].fetch_add(1, Ordering::Relaxed);
        self.work[1].fetch_add(dispatches, Ordering::Relaxed);
    }

    /// From now on only the plain variant of a verb is used.
    fn use_plain(&self, verb: &'static str) {
        lock(&self.plain_only).insert(verb);
    }

    /// Takes a clock back for the next command buffer.
    pub(super) fn keep_clock(&self, clock: Clock) {
        lock(&self.clocks).push(clock);
    }

    /// A clock for a command buffer, where the device has timestamps.
    pub(super) fn clock(&self) -> Result<Option<Clock>, EngineError> {
        if self.context.tick.is_none() {
            return Ok(None);
        }
        if let Some(clock) = lock(&self.clocks).pop() {
            return Ok(Some(clock));
        }
        let device = &self.context.device;
        let size = 2 * TIMED as u64 * 8;
        let buffer = |usage| {
            let label = Some("nearfield.clock");
            device.create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation: false })
        };
        let clock = self.context.scoped(size, || Clock {
            queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("nearfield.clock"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * TIMED as u32,
            }),
            resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            read: buffer(READ_BACK),
        })?;
        Ok(Some(clock))
    }
}

impl Machine {
    /// Self-tests that were run.
    pub(super) fn tests(&self) -> u64 {
        self.checks.as_ref().map_or(0, |checks| checks.run.load(Ordering::Relaxed))
    }

    /// Whether this is the machine of a self-test, whose few rows must go all ways that many rows go.
    pub(super) fn is_test(&self) -> bool {
        self.checks.is_none()
    }

    /// Tests a case unless that has been done. Its pipeline may be used when this is `Ok`.
    pub(super) async fn ensure(&self, metric: Metric, dtype: DType, case: Case) -> Result<(), EngineError> {
        let Some(checks) = &self.checks else { return Ok(()) };
        let key = || Key::of(&case.probe(metric, dtype, case.queries(), &self.caps(case.verb())));
        let verdict = match self.verdict(checks, &key()) {
            Some(verdict) => verdict,
            None => {
                let _one = checks.testing.lock().await;
                let mut verdict = self.verdict(checks, &key());
                if verdict.is_none() && self.caps(case.verb()).subgroups && case.has_subgroups(metric, dtype) {
                    verdict = Some(self.test(checks, metric, dtype, case).await?);
                    if matches!(verdict, Some(Err(_))) {
                        self.use_plain(case.verb());
                        verdict = self.verdict(checks, &key());
                    }
                }
                let verdict = match verdict {
                    Some(verdict) => verdict,
                    None => self.test(checks, metric, dtype, case).await?,
                };
                lock(&checks.done).insert(key(), verdict.clone());
                if verdict.is_ok() {
                    self.pipelines.known.pass(key().to_string());
                }
                verdict
            }
        };
        verdict.map_err(|detail| EngineError::Disabled { kernel: case.verb().to_owned(), detail })
    }

    /// What is known of a pipeline, from this process or an earlier one.
    fn verdict(&self, checks: &Checks, key: &Key) -> Option<Verdict> {
        let done = lock(&checks.done).get(key).cloned();
        // An earlier process may have tested it; not for a device that a test has told to be wrong.
        let earlier = || !self.context.faults.spoils_some() && self.pipelines.known.passed(&key.to_string());
        done.or_else(|| earlier().then_some(Ok(())))
    }

    async fn test(&self, checks: &Checks, metric: Metric, dtype: DType, case: Case) -> Result<Verdict, EngineError> {
        checks.run.fetch_add(1, Ordering::Relaxed);
        (checks.prove)(&self.for_test(), metric, dtype, case).await
    }
}
