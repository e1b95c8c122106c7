//! The codes of an index: trained when they are first wanted, kept in step with the rows.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use crate::codec::int8::Coder;
use crate::engine::{Engine, EngineError, Tag};
use crate::kernels::codes::Codes;
use crate::types::{Metric, RowsView};

/// A code with the codes of all rows.
#[derive(Clone, Debug)]
pub(crate) struct Coding {
    pub coder: Coder,
    pub codes: Codes,
    pub tag: Tag,
    /// How many rows there were when the code was learnt, and what it lost of them on average.
    trained: usize,
    loss: f64,
}

/// How many times more rows than at training, or more loss a row, make a new code worth its while.
const OUTGROWN: usize = 8;
const OUTDATED: f64 = 2.0;

impl Coding {
    pub fn new(coder: Coder, codes: Codes) -> Coding {
        let (trained, loss) = (codes.rows(), loss(&codes, 0..codes.rows()));
        Coding { coder, codes, tag: Tag::new(), trained, loss }
    }

    fn train(engine: &dyn Engine, metric: Metric, rows: &RowsView<'_>, norms: &[f32]) -> Result<Coding, EngineError> {
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

/// The codes that an index may have.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    coding: Option<Arc<Coding>>,
    /// Rows whose codes are of what they were before.
    stale: Vec<u32>,
}

impl Keeper {
    pub fn of(coding: Option<Coding>) -> Keeper {
        Keeper { state: RwLock::new(State { coding: coding.map(Arc::new), stale: Vec::new() }) }
    }

    /// The codes there are, whether or not they are up to date.
    pub fn present(&self) -> Option<Arc<Coding>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).coding.clone()
    }

    /// The codes of exactly these rows; made, extended or learnt anew as need be.
    pub fn current(
        &self,
        engine: &dyn Engine,
        metric: Metric,
        rows: &RowsView<'_>,
        norms: &[f32],
    ) -> Result<Arc<Coding>, EngineError> {
        let fits = |state: &State| {
            let coding = state.coding.as_ref()?;
            (coding.codes.rows() == rows.rows() && state.stale.is_empty()).then(|| coding.clone())
        };
        if let Some(coding) = fits(&self.state.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(coding);
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have done it meanwhile.
        if let Some(coding) = fits(&state) {
            return Ok(coding);
        }
        let coding = match state.coding.take() {
            Some(coding) if rows.rows() < OUTGROWN * coding.trained => {
                let mut coding = Arc::unwrap_or_clone(coding);
                let stale = std::mem::take(&mut state.stale);
                coding.follow(engine, rows, norms, &stale)?;
                if loss(&coding.codes, 0..rows.rows()) > OUTDATED * coding.loss {
                    coding = Coding::train(engine, metric, rows, norms)?;
                }
                coding
            }
            _ => Coding::train(engine, metric, rows, norms)?,
        };
        state.stale.clear();
        Ok(state.coding.insert(Arc::new(coding)).clone())
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
        engine: &dyn Engine,
        rows: &RowsView<'_>,
        norms: &[f32],
        stale: &[u32],
    ) -> Result<(), EngineError> {
        let done = self.codes.rows();
        for &position in stale {
            let p = position as usize;
            let mut one = Codes::default();
            self.coder.encode(engine, &rows.slice(p, p + 1), &norms[p..=p], &mut one)?;
            self.codes.replace(p, &one);
        }
        if !stale.is_empty() {
            self.tag.bump();
        }
        self.coder.encode(engine, &rows.slice(done, rows.rows()), &norms[done..], &mut self.codes)
    }
}
