//! The seam between what is to be done and who does it: an [`Engine`] runs a [`Plan`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::CacheDir;
pub use crate::kernels::Mask;
use crate::kernels::codes::{Codes, QueryCodes};
use crate::kernels::lists::{BLOCK, Form, Lists, MOST_BITS, Prepared, Probes};
use crate::kernels::scan;
use crate::plan::{Plan, Problem};
use crate::stats::{Ceilings, SearchStats};
use crate::threads::{Entered, Threads};
use crate::types::{DType, RowsView};

/// Names the rows of a base, so that an engine may keep a copy of them in device memory.
///
/// Rows that were there stay what they are while `epoch` does not change; rows may be appended without a
/// new epoch. An engine holds the tag weakly: when the base is dropped, so is the copy.
#[derive(Clone, Debug)]
pub struct Tag {
    id: Arc<u64>,
    epoch: u64,
}

impl Tag {
    /// A tag that no other base has.
    pub fn new() -> Tag {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Tag { id: Arc::new(NEXT.fetch_add(1, Ordering::Relaxed)), epoch: 0 }
    }

    /// Says that rows already known have changed.
    pub fn bump(&mut self) {
        self.epoch += 1;
    }

    /// What an engine keys its copy by: alive as long as the base is.
    pub fn id(&self) -> &Arc<u64> {
        &self.id
    }

    /// Which state of the rows this is.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Default for Tag {
    fn default() -> Tag {
        Tag::new()
    }
}

/// Rows and what is known of them.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// `rows` x `dim`.
    pub rows: RowsView<'a>,
    /// Euclidean length of each row, computed in f64 and rounded to f32. Needed by cosine and by every screen.
    pub norms: Option<&'a [f32]>,
    /// A name for the rows when they will be used again; without one nothing is kept.
    pub tag: Option<&'a Tag>,
    /// Codes of rows and queries, for [`Screen::Int8`](crate::plan::Screen::Int8).
    pub codes: Option<Coded<'a>>,
}

/// Codes and their name, by which an engine may keep a copy of them beside or instead of the rows.
#[derive(Clone, Copy, Debug)]
pub struct Coded<'a> {
    /// One code a row of the base.
    pub codes: &'a Codes,
    /// Changes when codes change; codes may be appended without a new epoch.
    pub tag: &'a Tag,
    /// The queries of the task in the same code.
    pub queries: &'a QueryCodes,
}

/// Everything a plan works on.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The rows.
    pub base: Base<'a>,
    /// f32 rows, or packed bits when the base is packed bits. For cosine already scaled to a length near 1.
    pub queries: RowsView<'a>,
    /// Euclidean length of each query, in f64 rounded to f32.
    pub query_norms: &'a [f32],
    /// Which rows may be returned; all when absent.
    pub mask: Option<Mask<'a>>,
    /// Candidates for a plan that begins with `Refine`, or the matrix for one that begins with `SelectK`.
    pub input: Input<'a>,
}

/// What the first step works on besides base and queries.
#[derive(Clone, Copy, Debug, Default)]
pub enum Input<'a> {
    /// Nothing.
    #[default]
    None,
    /// `[queries, width]` row positions, `u32::MAX` where there is none.
    Positions {
        /// The positions.
        positions: &'a [u32],
        /// Places a query.
        width: usize,
    },
    /// Keys `[queries, rows]`.
    Matrix(&'a [f32]),
    /// What `Scan` works on, instead of base and queries, which are empty then.
    Lists(Listed<'a>),
    /// What is known before an `Assign`.
    Known(Known<'a>),
}

/// Lists, and what is asked of them.
#[derive(Clone, Copy, Debug)]
pub struct Listed<'a> {
    /// Codes of rows.
    pub lists: &'a Lists,
    /// A name for the lists, by which an engine may keep a copy of them; another epoch when anything has changed.
    pub tag: &'a Tag,
    /// The queries as the lists' form takes them.
    pub queries: &'a Prepared,
    /// Where to look.
    pub probes: Probes<'a>,
}

impl Listed<'_> {
    /// Whether everything fits together, so that nothing is read past an end; `rising` positions are believed.
    ///
    /// # Errors
    /// [`EngineError::Mismatch`] says what was found and wanted.
    pub fn check(&self, problem: &Problem, mask: Option<Mask<'_>>) -> Result<(), EngineError> {
        let wrong = |what: &str, found: usize, wanted: usize| {
            Err(EngineError::Mismatch(format!("{what}: found {found}, wanted {wanted}")))
        };
        let (lists, probes, queries) = (self.lists, &self.probes, self.queries);
        let (q, form) = (problem.queries, lists.form);
        let (words, padded) = (form.words(lists.dim), form.padded(lists.dim));
        let known = match form {
            Form::Integers(bits) => (1..=MOST_BITS).contains(&bits) && padded <= scan::MOST_PARTS,
            Form::Parts(bits) => (bits == 4 || bits == 8) && padded <= scan::MOST_PARTS,
            Form::Rows(DType::F32 | DType::F16 | DType::Bf16) => problem.metric.supports(DType::F32),
            Form::Rows(_) => false,
            Form::Bits => true,
        };
        if !known || lists.dim == 0 {
            return Err(EngineError::Mismatch(format!(
                "no scan of {form} of {} parts by {}",
                lists.dim, problem.metric
            )));
        }
        if lists.starts.len() != lists.lists.len() + 1 {
            return wrong("starts of lists", lists.starts.len(), lists.lists.len() + 1);
        }
        let numbers = match form {
            Form::Integers(_) => ("integers of queries", queries.integers.len(), q * padded),
            Form::Parts(_) => ("entries of tables", queries.tables.len(), q * padded * form.entries()),
            Form::Rows(_) => ("components of queries", queries.floats.len(), q * lists.dim),
            Form::Bits => ("words of queries", queries.bits.len(), q * words),
        };
        let terms = if form.is_exact() { 0 } else { q };
        let probed = q * probes.width;
        for (what, found, wanted) in [
            ("queries of a scan", queries.queries, q),
            ("probed lists", probes.lists.len(), probed),
            ("offsets of probed lists", probes.offsets.len(), probed),
            numbers,
            ("terms of queries", queries.terms.len().min(terms), terms),
        ] {
            if found != wanted {
                return wrong(what, found, wanted);
            }
        }
        let mut end = 0;
        for &number in probes.lists.iter().filter(|&&l| l != u32::MAX) {
            let Some(list) = lists.lists.get(number as usize) else {
                return wrong("a list's number, below", number as usize, lists.lists.len());
            };
            let slots = list.len().next_multiple_of(BLOCK);
            let at = number as usize;
            if lists.starts[at + 1].checked_sub(lists.starts[at]) != Some(slots as u32) {
                return wrong("slots of a list", lists.starts[at + 1].wrapping_sub(lists.starts[at]) as usize, slots);
            }
            if list.words.len() != slots * words {
                return wrong("words of a list", list.words.len(), slots * words);
            }
            end = end.max(list.positions.last().map_or(0, |&p| p as usize + 1));
        }
        match mask {
            Some(mask) if q > 0 => {
                let wanted = end.div_ceil(32) + (q - 1) * mask.stride;
                let short = mask.words.len() < wanted || (mask.stride > 0 && mask.stride < end.div_ceil(32));
                if short { wrong("words of a mask, at least", mask.words.len(), wanted) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }
}

/// What is known of the nearest row of each query; an engine may use it, and no answer depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// A row that may well be the nearest of each query, `u32::MAX` where there is none.
    pub positions: &'a [u32],
    /// What the direct keys of each [block](crate::kernels::assign::BLOCK) of rows are at least, as far as that is known; -inf
    /// where it isn't: for each [`POINTS`](crate::kernels::assign::POINTS) queries (fewer at the end) `[blocks, queries]`.
    /// Empty when the answer's own bounds are not wanted either. An engine that keeps bounds gives as many in
    /// [`Candidates::bound`].
    pub bounds: &'a [f32],
}

/// The best rows of each query: `[queries, width]`, smallest (key, position) first. Places that are not
/// filled have key +inf and position `u32::MAX`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Candidates {
    /// Places a query.
    pub width: usize,
    /// Smaller is closer.
    pub keys: Vec<f32>,
    /// Row positions.
    pub positions: Vec<u32>,
    /// For each query a number that no row left out can fall below, in the screen's lower bounds: the key of the
    /// last candidate kept when all places were filled, else +inf (nothing was left out). Empty after a direct pass.
    pub bound: Vec<f32>,
}

impl Candidates {
    /// `queries` x `width` places, none filled, if there is memory for them.
    ///
    /// # Errors
    /// [`EngineError::AnswerTooLarge`].
    pub fn places(queries: usize, width: usize) -> Result<Candidates, EngineError> {
        room(queries, width, 8)?;
        Ok(Candidates::empty(queries, width))
    }

    /// `queries` x `width` places, none filled.
    pub fn empty(queries: usize, width: usize) -> Candidates {
        Candidates {
            width,
            keys: vec![f32::INFINITY; queries * width],
            positions: vec![u32::MAX; queries * width],
            bound: Vec::new(),
        }
    }
}

/// What the last step gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// After `Search`, `Scan`, `Refine` and `SelectK`.
    Candidates(Candidates),
    /// Keys `[queries, rows]`, after `Distance`.
    Matrix(Vec<f32>),
    /// After `Range`: offsets `[queries + 1]`, and the hits of each query, smallest (key, position) first.
    Range {
        /// Where the hits of each query begin.
        offsets: Vec<u64>,
        /// Smaller is closer.
        keys: Vec<f32>,
        /// Row positions.
        positions: Vec<u32>,
    },
    /// After `Normalize`: rows `[rows, dim]` and the norms they were divided by (zero rows stay zero).
    Rows {
        /// The normalised rows.
        rows: Vec<f32>,
        /// The norm of each row before.
        norms: Vec<f32>,
    },
}

/// Why an engine could not run a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The device, or the budget it was given, has no room.
    #[error("out of device memory: {wanted} bytes wanted, {free} of {limit} free")]
    OutOfMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes left.
        free: u64,
        /// Bytes in all.
        limit: u64,
    },
    /// An answer that host memory can't hold.
    #[error("an answer of {rows} x {width} places does not fit in memory")]
    AnswerTooLarge {
        /// Queries.
        rows: usize,
        /// Places of each.
        width: usize,
    },
    /// The device is gone (driver reset, unplugged, destroyed by its owner).
    #[error("the device was lost: {0}")]
    Lost(String),
    /// A kernel gave a wrong answer in its self-test and is not used on this device.
    #[error("kernel `{kernel}` failed its self-test on this device and is disabled: {detail}")]
    Disabled {
        /// The verb.
        kernel: String,
        /// What was wrong.
        detail: String,
    },
    /// The driver refused something that should have been right.
    #[error("the driver refused a call: {0}")]
    Driver(String),
    /// The shapes of a task do not fit together. A fault of the caller inside this crate.
    #[error("a plan and its data do not fit: {0}")]
    Mismatch(String),
}

/// Whether there is memory for `rows` x `width` things of `bytes` bytes.
///
/// # Errors
/// [`EngineError::AnswerTooLarge`].
pub fn room(rows: usize, width: usize, bytes: usize) -> Result<(), EngineError> {
    let wanted = rows.saturating_mul(width).saturating_mul(bytes);
    Vec::<u8>::new().try_reserve_exact(wanted).map_err(|_| EngineError::AnswerTooLarge { rows, width })
}

/// Runs plans. The CPU engine, the GPU engine, and the choice between them are engines.
pub trait Engine: Send + Sync {
    /// The device in words, e.g. `cpu (avx512, 8 threads)` or the adapter's name.
    fn name(&self) -> String;

    /// What tells this engine, its device and driver apart from all others: the key of what is measured on it.
    fn identity(&self) -> String {
        self.name()
    }

    /// Where what is measured on this engine is kept.
    fn cache(&self) -> CacheDir {
        CacheDir::default()
    }

    /// Whether the engine may be measured without having been asked to.
    fn calibrates(&self) -> bool {
        true
    }

    /// The engines that this one chooses between; none when it is one itself.
    fn parts(&self) -> Vec<Arc<dyn Engine>> {
        Vec::new()
    }

    /// Times the shapes that its kernels can have, and keeps the fastest: a line for each, the fastest first.
    ///
    /// # Errors
    /// [`EngineError`] of the device.
    fn tune(&self) -> Result<Vec<String>, EngineError> {
        Ok(Vec::new())
    }

    /// What was wrong with files of this engine in the cache folder.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Runs every step of the plan and gives what the last one made; writes what it did into `stats`.
    ///
    /// # Errors
    /// [`EngineError`]; the engine is usable afterwards unless the device is lost.
    fn run(&self, task: &Task<'_>, stats: &mut SearchStats) -> Result<Output, EngineError>;

    /// Whether a screen is likely to pay for a batch of this many queries.
    fn wants_screen(&self, plan: &Plan) -> bool;

    /// Whether codes of the rows, once they are made, are likely to pay.
    fn wants_codes(&self, _problem: &Problem) -> bool {
        false
    }

    /// Whether the engine can do all steps of a task. When it can't, it has room for what the screen reads but not for the
    /// rows: then a plan of the first step alone gives candidates with their bound, to be refined where the rows lie.
    fn refines(&self, _task: &Task<'_>) -> bool {
        true
    }

    /// What the device can do at best, measured once.
    fn ceilings(&self) -> Ceilings;
}

/// Where searches run: the CPU, a GPU, or whichever is there.
///
/// Cheap to clone; clones share the device, its memory budget and its kernels.
#[derive(Clone)]
pub struct Device {
    pub(crate) engine: Arc<dyn Engine>,
    /// The CPU, which trains codes whoever searches.
    pub(crate) host: Arc<dyn Engine>,
    /// The threads of `host`, for all work beside the engines.
    pub(crate) threads: Threads,
}

impl Device {
    /// Until the guard is dropped, work of the calling thread is shared among the threads of this device. Every entry
    /// point does this first.
    pub(crate) fn enter(&self) -> Entered {
        self.threads.enter()
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").field(&self.engine.name()).finish()
    }
}
