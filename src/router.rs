//! A GPU, and under `auto` the CPU beside it: each call goes to the one that is predicted to answer sooner, and to the CPU
//! when the GPU cannot. A lost device is opened again on a later call.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::cache::CacheDir;
use crate::compute::{Answer, Backend, Capabilities, EngineError, Input, Kind, Pending, Place, Tag};
use crate::device::DeviceOptions;
use crate::gpu::{GpuEngine, GpuOptions};
use crate::ops::{Engine, Op, Program};
use crate::stats::{Ceilings, SearchStats, Stage};
use crate::tune::{self, Calibration, Predictor, Residency, Wanted};

/// How long after a loss a device is not asked for again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Router {
    cpu: Option<Arc<Engine>>,
    gpu: Mutex<Slot>,
    /// How to open the device again; absent when it is the application's.
    reopen: Option<GpuOptions>,
    /// How fast the CPU and the GPU are; absent when measuring failed, and then the GPU is asked.
    speeds: OnceLock<Option<[Arc<Predictor>; 2]>>,
    /// Whether they have been measured, beside the searches of this process.
    measured: Arc<AtomicU8>,
    /// Whether they are corrected by what runs took.
    learns: bool,
    /// Whether searches make them be measured; else they are those that an earlier call or process measured.
    calibrates: bool,
    /// Where the GPU keeps what it made, when it is opened again.
    cache: CacheDir,
    /// For bases that are not on the GPU: seconds lost so far by not bringing them there.
    lost: Mutex<Vec<(Weak<u64>, f64)>>,
}

/// That the speeds are being measured, and that they have been.
const UNDER_WAY: u8 = 1;
const OVER: u8 = 2;

struct Slot {
    engine: Arc<GpuEngine>,
    lost: Option<Instant>,
}

/// A lock that a panic elsewhere leaves whole: what is behind these is only ever replaced.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Router {
    pub(crate) fn new(engine: Arc<GpuEngine>, cpu: Option<Arc<Engine>>, reopen: Option<GpuOptions>) -> Router {
        let gpu = Mutex::new(Slot { engine, lost: None });
        Router {
            cpu,
            gpu,
            reopen,
            speeds: OnceLock::new(),
            measured: Arc::default(),
            learns: true,
            calibrates: true,
            cache: CacheDir::default(),
            lost: Mutex::default(),
        }
    }

    /// With what the options say of files and measuring.
    pub(crate) fn with(self, options: &DeviceOptions) -> Router {
        Router { calibrates: options.calibrate, cache: options.cache_dir.clone(), ..self }
    }

    /// With speeds of CPU and GPU that nobody measured and nothing corrects.
    pub(crate) fn given(self, speeds: [Calibration; 2]) -> Router {
        let speeds = OnceLock::from(Some(speeds.map(|c| Arc::new(Predictor::new(c, None)))));
        Router { speeds, learns: false, ..self }
    }

    /// The GPU, opened again if it was lost a while ago; or why it can't be used.
    fn gpu(&self) -> Result<Arc<GpuEngine>, EngineError> {
        let mut slot = lock(&self.gpu);
        let Some(since) = slot.lost else { return Ok(slot.engine.clone()) };
        let lost = |why: &str| Err(EngineError::Lost(why.to_owned()));
        // Without a CPU to answer meanwhile there is nothing to wait for.
        if self.cpu.is_some() && since.elapsed() < RETRY_AFTER {
            return lost("it is opened again a second after the loss");
        }
        let Some(options) = &self.reopen else { return lost("it belongs to the application") };
        match GpuEngine::open_in(options, &self.cache) {
            Ok(engine) => {
                *slot = Slot { engine: Arc::new(engine), lost: None };
                Ok(slot.engine.clone())
            }
            Err(e) => {
                slot.lost = Some(Instant::now());
                lost(&e.to_string())
            }
        }
    }

    fn engine(&self) -> Arc<GpuEngine> {
        lock(&self.gpu).engine.clone()
    }

    async fn on_gpu(&self, program: &Program, inputs: &[Input<'_>]) -> Result<Answer, EngineError> {
        let engine = self.gpu()?;
        let result = engine.run(program, inputs).await;
        if engine.is_lost() || matches!(result, Err(EngineError::Lost(_))) {
            let mut slot = lock(&self.gpu);
            if Arc::ptr_eq(&slot.engine, &engine) && engine.is_lost() {
                slot.lost.get_or_insert_with(Instant::now);
            }
        }
        result
    }

    /// The predictors of CPU and GPU, once they are known. On the first call of a machine a thread begins to measure them:
    /// nobody waits for that.
    fn speeds(&self) -> Option<&[Arc<Predictor>; 2]> {
        let cpu = self.cpu.as_ref()?;
        if self.speeds.get().is_none() && self.measured.load(Ordering::Acquire) != UNDER_WAY {
            let known = self.gpu().ok().and_then(|gpu| Some([tune::remembered(&**cpu)?, tune::remembered(&*gpu)?]));
            if known.is_some() || self.measured.load(Ordering::Acquire) == OVER {
                return self.speeds.get_or_init(|| known).as_ref();
            }
            self.measure(cpu);
        }
        self.speeds.get()?.as_ref()
    }

    /// Begins to measure both, if that may be done and has not begun.
    fn measure(&self, cpu: &Arc<Engine>) {
        let first = || self.measured.compare_exchange(0, UNDER_WAY, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !self.calibrates || !first() {
            return;
        }
        let (cpu, gpu, measured) = (cpu.clone(), self.engine(), self.measured.clone());
        let run = move || {
            let _ = tune::predictor(&*cpu).and_then(|_| tune::predictor(&*gpu));
            measured.store(OVER, Ordering::Release);
        };
        // Without a thread the GPU goes on being asked.
        let _ = std::thread::Builder::new().name("nearfield-speed".to_owned()).spawn(run);
    }

    /// Who should answer.
    fn wanted(&self, program: &Program, inputs: &[Input<'_>]) -> Option<Wanted> {
        let [cpu, gpu] = self.speeds()?;
        Some(tune::choose((cpu, program), (gpu, program), self.residency(inputs)))
    }

    /// What has to be brought to the GPU. What it loses by not being there is counted for the largest of it that would stay.
    fn residency(&self, inputs: &[Input<'_>]) -> Residency {
        let mut rows = Residency::default();
        for input in inputs {
            if let Input::Matrix { values, .. } = input {
                rows.missing += values.len() as u64 * 4;
            }
        }
        let known = self.engine().residency(inputs);
        rows.missing += known.iter().map(|(_, missing, _)| missing).sum::<u64>();
        if let Some(tag) = largest(&known) {
            let all = lock(&self.lost);
            rows.lost = all.iter().find(|(id, _)| tag.owns(id)).map_or(0.0, |(_, seconds)| *seconds);
        }
        rows
    }

    /// Notes what an answer of the CPU lost against a GPU that had the rows.
    fn note_loss(&self, inputs: &[Input<'_>], wanted: &Wanted) {
        let known = self.engine().residency(inputs);
        let (Some(tag), true) = (largest(&known), wanted.upload > 0.0 && wanted.loss() > 0.0) else { return };
        let mut all = lock(&self.lost);
        all.retain(|(id, _)| id.strong_count() > 0);
        match all.iter_mut().find(|(id, _)| tag.owns(id)) {
            Some((_, seconds)) => *seconds += wanted.loss(),
            None => all.push((Arc::downgrade(tag.id()), wanted.loss())),
        }
    }

    /// Learns from a run of the CPU (0) or the GPU (1). A mask changes the work by what nobody counts.
    fn learn(&self, who: usize, program: &Program, inputs: &[Input<'_>], seconds: f64) {
        let masked = inputs.iter().any(|input| matches!(input, Input::Mask(_)));
        if let (true, Some(Some(speeds)), false) = (self.learns, self.speeds.get(), masked) {
            speeds[who].learn(program, seconds);
        }
    }

    async fn route(&self, program: &Program, inputs: &[Input<'_>]) -> Result<Answer, EngineError> {
        // An array is where it is.
        let arrays = inputs.iter().any(|input| matches!(input, Input::Array(_)));
        let kept = program.outputs().iter().any(|(_, place)| *place == Place::Device);
        if arrays || kept {
            return self.on_gpu(program, inputs).await;
        }
        let wanted = self.wanted(program, inputs);
        let began = Instant::now();
        if let (Some(wanted), Some(cpu)) = (wanted.filter(|w| !w.gpu), &self.cpu) {
            let answer = cpu.run(program, inputs).await?;
            self.learn(0, program, inputs, began.elapsed().as_secs_f64());
            self.note_loss(inputs, &wanted);
            return Ok(answer);
        }
        match (self.on_gpu(program, inputs).await, &self.cpu) {
            (Err(e), Some(cpu)) if falls_back(&e) => {
                let mut answer = cpu.run(program, inputs).await?;
                answer.stats.fallback = Some(format!("{}: {e}; the CPU answered", self.name()));
                Ok(answer)
            }
            (result, _) => {
                if let Ok(answer) = &result {
                    self.learn(1, program, inputs, began.elapsed().as_secs_f64() - uploads(&answer.stats));
                }
                result
            }
        }
    }
}

/// Whether the CPU can do what a GPU could not.
fn falls_back(error: &EngineError) -> bool {
    !matches!(error, EngineError::Mismatch(_) | EngineError::Unsupported(_) | EngineError::Cancelled)
}

/// The name of what is missing most of what would stay on the device.
fn largest<'a>(known: &[(&'a Tag, u64, bool)]) -> Option<&'a Tag> {
    let wanted = known.iter().filter(|(_, missing, stays)| *stays && *missing > 0);
    wanted.max_by_key(|(_, missing, _)| *missing).map(|(tag, ..)| *tag)
}

/// Seconds of bringing rows to the device.
fn uploads(stats: &SearchStats) -> f64 {
    stats.stages.iter().filter(|s| s.name == Stage::UPLOAD).map(|s| s.time.as_secs_f64()).sum()
}

impl Backend<Op> for Router {
    fn name(&self) -> String {
        self.engine().name()
    }

    fn identity(&self) -> String {
        self.engine().identity()
    }

    fn cache(&self) -> CacheDir {
        self.cache.clone()
    }

    fn calibrates(&self) -> bool {
        self.calibrates
    }

    fn parts(&self) -> Vec<Arc<Engine>> {
        match (&self.cpu, self.gpu()) {
            (Some(cpu), Ok(gpu)) => vec![cpu.clone(), gpu],
            (Some(cpu), Err(_)) => vec![cpu.clone()],
            (None, _) => Vec::new(),
        }
    }

    fn tune(&self) -> Result<Vec<String>, EngineError> {
        let gpu = self.gpu()?;
        let all = tune::tune(&gpu)?;
        tune::forget(&*gpu);
        let ms = |s: f64| format!("{:.3}", s * 1e3);
        Ok(all.iter().map(|t| format!("{}: {} ms", t.tuning, t.seconds.map(ms).join(", "))).collect())
    }

    fn notes(&self) -> Vec<String> {
        self.engine().notes()
    }

    fn run<'a>(&'a self, program: &'a Program, inputs: &'a [Input<'a>]) -> Pending<'a> {
        Pending::running(self.route(program, inputs))
    }

    fn capabilities(&self) -> Capabilities {
        let gpu = self.engine().capabilities();
        match &self.cpu {
            None => gpu,
            Some(cpu) => Capabilities { kind: Kind::Auto, coded_assign: cpu.capabilities().coded_assign, ..gpu },
        }
    }

    fn fastest(&self, programs: &[&Program]) -> usize {
        match (self.speeds(), programs) {
            (Some([on_cpu, on_gpu]), &[cpu, gpu]) => {
                usize::from(tune::choose((on_cpu, cpu), (on_gpu, gpu), Residency::default()).gpu)
            }
            // Without a measurement the GPU is asked.
            _ => programs.len().saturating_sub(1),
        }
    }

    fn ceilings(&self) -> Ceilings {
        self.engine().ceilings()
    }
}
