//! A GPU, and under `auto` the CPU beside it: each call goes to the one that is predicted to answer sooner, and to the CPU
//! when the GPU cannot. A lost device is opened again on a later call.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::cache::CacheDir;
use crate::device::DeviceOptions;
use crate::engine::{Engine, EngineError, Input, Output, Tag, Task};
use crate::gpu::{GpuEngine, GpuOptions};
use crate::plan::{Plan, Problem, Screen, Step};
use crate::stats::{Ceilings, SearchStats};
use crate::tune::{self, Calibration, Predictor, Residency, Wanted};

/// How long after a loss a device is not asked for again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
pub(crate) struct Router {
    cpu: Option<Arc<dyn Engine>>,
    gpu: Mutex<Slot>,
    /// How to open the device again; absent when it is the application's.
    reopen: Option<GpuOptions>,
    /// How fast the CPU and the GPU are; absent when measuring failed, and then the GPU is asked.
    speeds: OnceLock<Option<[Arc<Predictor>; 2]>>,
    /// Whether they are corrected by what runs took.
    learns: bool,
    /// Whether they may be measured by a search; else they are those that an earlier call or process measured.
    calibrates: bool,
    /// Where the GPU keeps what it made, when it is opened again.
    cache: CacheDir,
    /// For bases that are not on the GPU: seconds lost so far by not bringing them there.
    lost: Mutex<Vec<(Weak<u64>, f64)>>,
}

struct Slot {
    engine: Arc<GpuEngine>,
    lost: Option<Instant>,
}

/// A lock that a panic elsewhere leaves whole: what is behind these is only ever replaced.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Router {
    pub(crate) fn new(engine: Arc<GpuEngine>, cpu: Option<Arc<dyn Engine>>, reopen: Option<GpuOptions>) -> Router {
        let gpu = Mutex::new(Slot { engine, lost: None });
        Router {
            cpu,
            gpu,
            reopen,
            speeds: OnceLock::new(),
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

    fn on_gpu(&self, task: &Task<'_>, stats: &mut SearchStats) -> Result<Output, EngineError> {
        let engine = self.gpu()?;
        let result = engine.run(task, stats);
        if engine.is_lost() || matches!(result, Err(EngineError::Lost(_))) {
            let mut slot = lock(&self.gpu);
            if Arc::ptr_eq(&slot.engine, &engine) {
                slot.lost.get_or_insert_with(Instant::now);
            }
        }
        result
    }

    /// The predictors of CPU and GPU, measured on the first call of this machine.
    fn speeds(&self) -> Option<&[Arc<Predictor>; 2]> {
        let cpu = self.cpu.as_ref()?;
        let measure = || -> Result<_, EngineError> { Ok([tune::predictor(&**cpu)?, tune::predictor(&*self.gpu()?)?]) };
        if self.calibrates {
            return self.speeds.get_or_init(|| measure().ok()).as_ref();
        }
        if self.speeds.get().is_none() {
            // Asked again until both are known: somebody may measure them in the meantime.
            let known = [tune::remembered(&**cpu)?, tune::remembered(&*self.gpu().ok()?)?];
            return self.speeds.get_or_init(|| Some(known)).as_ref();
        }
        self.speeds.get()?.as_ref()
    }

    /// Who should answer.
    fn wanted(&self, task: &Task<'_>) -> Option<Wanted> {
        let [cpu, gpu] = self.speeds()?;
        Some(tune::choose((cpu, task.plan), (gpu, task.plan), self.residency(task)))
    }

    fn residency(&self, task: &Task<'_>) -> Residency {
        if let Input::Matrix(keys) = task.input {
            return Residency { missing: keys.len() as u64 * 4, lost: 0.0 };
        }
        let (missing, stays) = match task.input {
            Input::Lists(listed) => self.engine().list_residency(&listed),
            _ => self.engine().residency(&task.base),
        };
        let lost = match tag_of(task) {
            Some(tag) if stays && missing > 0 => {
                let all = lock(&self.lost);
                all.iter().find(|(id, _)| std::ptr::eq(id.as_ptr(), Arc::as_ptr(tag.id()))).map_or(0.0, |(_, s)| *s)
            }
            _ => 0.0,
        };
        Residency { missing, lost }
    }

    /// Notes what an answer of the CPU lost against a GPU that had the rows.
    fn note_loss(&self, task: &Task<'_>, wanted: &Wanted) {
        let (Some(tag), true) = (tag_of(task), wanted.upload > 0.0 && wanted.loss() > 0.0) else { return };
        let mut all = lock(&self.lost);
        all.retain(|(id, _)| id.strong_count() > 0);
        match all.iter_mut().find(|(id, _)| std::ptr::eq(id.as_ptr(), Arc::as_ptr(tag.id()))) {
            Some((_, seconds)) => *seconds += wanted.loss(),
            None => all.push((Arc::downgrade(tag.id()), wanted.loss())),
        }
    }

    /// Learns from a run of the CPU (0) or the GPU (1). A mask changes the work by what nobody counts.
    fn learn(&self, who: usize, task: &Task<'_>, seconds: f64) {
        if let (true, Some(Some(speeds)), None) = (self.learns, self.speeds.get(), task.mask) {
            speeds[who].learn(task.plan, seconds);
        }
    }
}

/// The name of what is searched.
fn tag_of<'a>(task: &Task<'a>) -> Option<&'a Tag> {
    match task.input {
        Input::Lists(listed) => Some(listed.tag),
        _ => task.base.tag,
    }
}

/// Seconds of bringing rows to the device.
fn uploads(stats: &SearchStats) -> f64 {
    stats.stages.iter().filter(|s| s.name == "upload").map(|s| s.time.as_secs_f64()).sum()
}

impl Engine for Router {
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

    fn parts(&self) -> Vec<Arc<dyn Engine>> {
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

    fn run(&self, task: &Task<'_>, stats: &mut SearchStats) -> Result<Output, EngineError> {
        let wanted = self.wanted(task);
        let began = Instant::now();
        if let (Some(wanted), Some(cpu)) = (wanted.filter(|w| !w.gpu), &self.cpu) {
            let output = cpu.run(task, stats)?;
            self.learn(0, task, began.elapsed().as_secs_f64());
            self.note_loss(task, &wanted);
            return Ok(output);
        }
        let before = stats.clone();
        match (self.on_gpu(task, stats), &self.cpu) {
            (Err(e), Some(cpu)) if !matches!(e, EngineError::Mismatch(_)) => {
                // What the GPU counted before it failed is no part of the answer.
                *stats = before;
                stats.fallback = Some(format!("{}: {e}; the CPU answered", self.name()));
                cpu.run(task, stats)
            }
            (result, _) => {
                if result.is_ok() {
                    self.learn(1, task, began.elapsed().as_secs_f64() - (uploads(stats) - uploads(&before)));
                }
                result
            }
        }
    }

    fn wants_screen(&self, plan: &Plan) -> bool {
        let gpu = self.engine();
        let (Some([on_cpu, on_gpu]), Some(cpu)) = (self.speeds(), &self.cpu) else { return gpu.wants_screen(plan) };
        // The one that would answer decides, each with the plan that it likes best.
        let k = plan.steps.iter().find_map(|s| if let Step::SelectK { k } = s { Some(*k) } else { None });
        let direct = Plan::search(plan.problem, k.unwrap_or(1), Screen::None);
        let screens = [cpu.wants_screen(plan), gpu.wants_screen(plan)];
        let [a, b] = screens.map(|screen| if screen { plan } else { &direct });
        screens[usize::from(tune::choose((on_cpu, a), (on_gpu, b), Residency::default()).gpu)]
    }

    fn refines(&self, task: &Task<'_>) -> bool {
        self.wanted(task).is_some_and(|w| !w.gpu) || self.engine().refines(task)
    }

    fn wants_codes(&self, problem: &Problem) -> bool {
        let gpu = self.engine();
        let (Some([on_cpu, on_gpu]), Some(cpu)) = (self.speeds(), &self.cpu) else { return gpu.wants_codes(problem) };
        let codes = [cpu.wants_codes(problem), gpu.wants_codes(problem)];
        let [a, b] = codes.map(|codes| Plan::search(*problem, 10, if codes { Screen::Int8 } else { Screen::None }));
        codes[usize::from(tune::choose((on_cpu, &a), (on_gpu, &b), Residency::default()).gpu)]
    }

    fn ceilings(&self) -> Ceilings {
        self.engine().ceilings()
    }
}
