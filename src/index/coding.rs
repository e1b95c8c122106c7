//! The codes of an index: trained when they are first wanted, kept in step with the rows.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError};

use crate::codec::int8::Coder;
use crate::compute::{EngineError, Tag};
use crate::ops::Engine;
use crate::ops::codes::Codes;
use crate::types::{Metric, RowsView};

/// A code with the codes of all rows.
#[derive(Clone, Debug)]
pub(crate) struct Coding {
    pub coder: Coder,
    pub codes: Codes,
    pub tag: Tag,
    /// The number of rows when the code was trained, and their average loss.
    trained: usize,
    loss: f64,
}

/// How many times more rows than at training, or more loss per row, make a new code worth its while.
const OUTGROWN: usize = 8;
const OUTDATED: f64 = 2.0;

/// Changed rows that are coded one by one; more are coded with all others.
const MOST_STALE: usize = 256;

impl Coding {
    pub fn new(coder: Coder, codes: Codes) -> Coding {
        let (trained, loss) = (codes.rows(), loss(&codes, 0..codes.rows()));
        Coding { coder, codes, tag: Tag::new(), trained, loss }
    }

    fn train(engine: &Engine, metric: Metric, rows: &RowsView<'_>, norms: &[f32]) -> Result<Coding, EngineError> {
        let coder = Coder::train(engine, metric, rows, norms)?;
        let mut codes = Codes::default();
        coder.encode(engine, rows, norms, &mut codes)?;
        Ok(Coding::new(coder, codes))
    }

    pub fn memory_bytes(&self) -> usize {
        self.codes.memory_bytes() + self.coder.memory_bytes()
    }
}

fn loss(codes: &Codes, rows: Range<usize>) -> f64 {
    let lost = rows.clone().map(|r| f64::from(codes.tail[r]) + f64::from(codes.residual[r]));
    lost.sum::<f64>() / rows.len().max(1) as f64
}

/// The codes that an index may have. Nobody waits for them: while one search makes codes, all others do without.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    state: RwLock<State>,
    /// Held by whoever makes codes, never waited for. (A thread that makes them may be given another search by its pool.)
    making: Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct State {
    coding: Option<Arc<Coding>>,
    /// Rows that changed after they were coded.
    stale: Vec<u32>,
}

impl State {
    fn fresh(&self, rows: usize) -> Option<Arc<Coding>> {
        let coding = self.coding.as_ref()?;
        (coding.codes.rows() == rows && self.stale.is_empty()).then(|| coding.clone())
    }
}

impl Clone for Keeper {
    /// The same codes under another name, since each keeper's codes follow its own rows.
    fn clone(&self) -> Keeper {
        let mut state = self.state().clone();
        state.coding = state.coding.map(|coding| Arc::new(Coding { tag: Tag::new(), ..(*coding).clone() }));
        Keeper { state: RwLock::new(state), making: Mutex::default() }
    }
}

impl Keeper {
    pub fn of(coding: Coding) -> Keeper {
        let state = State { coding: Some(Arc::new(coding)), stale: Vec::new() };
        Keeper { state: RwLock::new(state), making: Mutex::default() }
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The codes there are, whether or not they are up to date.
    pub fn present(&self) -> Option<Arc<Coding>> {
        self.state().coding.clone()
    }

    /// The codes of exactly so many rows as they are now, if they exist.
    pub fn fresh(&self, rows: usize) -> Option<Arc<Coding>> {
        self.state().fresh(rows)
    }

    /// The codes of exactly these rows; made, extended or learnt anew as need be. None while somebody else does that.
    pub fn current(
        &self,
        engine: &Engine,
        metric: Metric,
        rows: &RowsView<'_>,
        norms: &[f32],
    ) -> Result<Option<Arc<Coding>>, EngineError> {
        if let Some(coding) = self.fresh(rows.rows()) {
            return Ok(Some(coding));
        }
        let _making = match self.making.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        let before = self.state().clone();
        if let Some(coding) = before.fresh(rows.rows()) {
            return Ok(Some(coding));
        }
        let coding = match before.coding {
            Some(coding) if rows.rows() < OUTGROWN * coding.trained => {
                let mut coding = Arc::unwrap_or_clone(coding);
                coding.follow(engine, rows, norms, before.stale)?;
                if loss(&coding.codes, 0..rows.rows()) > OUTDATED * coding.loss {
                    coding = Coding::train(engine, metric, rows, norms)?;
                }
                coding
            }
            _ => Coding::train(engine, metric, rows, norms)?,
        };
        let coding = Arc::new(coding);
        let state = State { coding: Some(coding.clone()), stale: Vec::new() };
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(Some(coding))
    }

    /// A row was replaced.
    pub fn replaced(&mut self, position: u32) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.coding.as_ref().is_some_and(|c| (position as usize) < c.codes.rows()) {
            state.stale.push(position);
        }
    }

    /// Only these rows are left.
    pub fn retained(&mut self, runs: &[(usize, usize)]) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Rows without a code, or with an old one, are simplest coded again.
        state.coding = state.coding.take().filter(|_| state.stale.is_empty()).and_then(|coding| {
            let codes = coding.codes.select(runs)?;
            Some(Arc::new(Coding { codes, tag: Tag::new(), ..Arc::unwrap_or_clone(coding) }))
        });
        state.stale.clear();
    }

    pub fn forget(&mut self) {
        *self = Keeper::default();
    }
}

impl Coding {
    /// Codes the rows that have no code yet, and those whose code is old.
    fn follow(
        &mut self,
        engine: &Engine,
        rows: &RowsView<'_>,
        norms: &[f32],
        mut stale: Vec<u32>,
    ) -> Result<(), EngineError> {
        stale.sort_unstable();
        stale.dedup();
        if stale.len() > MOST_STALE {
            (self.codes, self.tag) = (Codes::default(), Tag::new());
            stale.clear();
        } else if !stale.is_empty() {
            self.tag.bump();
        }
        for p in stale.into_iter().map(|p| p as usize) {
            let mut one = Codes::default();
            self.coder.encode(engine, &rows.slice(p, p + 1), &norms[p..=p], &mut one)?;
            self.codes.replace(p, &one);
        }
        let done = self.codes.rows();
        self.coder.encode(engine, &rows.slice(done, rows.rows()), &norms[done..], &mut self.codes)
    }
}
