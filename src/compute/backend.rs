//! Backends run programs: the CPU engine, the GPU engine, and the router between them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::error::EngineError;
use super::program::Program;
use super::value::{Input, Output};
use super::wait::block_on;
use crate::cache::CacheDir;
use crate::stats::{Ceilings, SearchStats};

/// What sort of backend this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The CPU engine.
    Cpu,
    /// A GPU, for every program.
    Gpu,
    /// A GPU and the CPU beside it: each program goes to the one that is predicted to be the faster.
    Auto,
}

/// Device memory that a backend may fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes in all.
    pub budget: u64,
    /// Bytes that a run takes beside what stays.
    pub scratch: u64,
    /// Bytes that an upload takes while it is under way.
    pub staging: u64,
}

impl Room {
    /// Whether so many bytes may stay on the device.
    pub fn fits(&self, bytes: u64) -> bool {
        bytes.saturating_add(self.scratch).saturating_add(self.staging) <= self.budget
    }
}

/// What a backend can do, and what pays on it. Planning decides by this and by measured cost, never by a name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capabilities {
    /// What sort of backend this is.
    pub kind: Kind,
    /// The fewest queries for which the f32 screen pays, by the components of a row: (fewer than, queries).
    pub screen_queries: &'static [(usize, usize)],
    /// The most candidates per query that the f32 screen keeps.
    pub screen_keep: usize,
    /// Whether it has a screen in f16.
    pub f16: bool,
    /// Fewer rows than this are not worth codes.
    pub coded_rows: usize,
    /// With fewer queries than this, rows that fit on the device are read themselves sooner than their codes are gone
    /// through.
    pub coded_queries: usize,
    /// Whether an assignment profits from codes.
    pub coded_assign: bool,
    /// Device memory; absent where rows are used where they lie.
    pub room: Option<Room>,
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The program's outputs, in order.
    pub outputs: Vec<Output>,
    /// What was done, by whom, and why not by another.
    pub stats: SearchStats,
}

/// An answer that may still be under way: a future, which can also be waited for.
///
/// As a future it holds up no thread while a GPU works. What it does on the CPU is done by who polls it, together with the
/// threads of the device; what [`Shared`](crate::Shared) and [`Device::spawn`](crate::Device::spawn) give is driven by a
/// thread of the device, so that polling it takes no time. Dropping it calls it off.
/// Like every future it panics when it is polled after it has given its value.
#[must_use = "what is dropped is called off; await it, poll it or `wait()`"]
pub struct Pending<'a, T = Answer, E = EngineError>(State<'a, T, E>);

type Running<'a, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'a>>;

enum State<'a, T, E> {
    Done(Option<Result<T, E>>),
    Running(Running<'a, T, E>),
}

// Nothing of it is pinned in place.
impl<T, E> Unpin for Pending<'_, T, E> {}

impl<'a, T, E> Pending<'a, T, E> {
    /// One that is over.
    #[doc(hidden)]
    pub fn done(result: Result<T, E>) -> Pending<'a, T, E> {
        Pending(State::Done(Some(result)))
    }

    /// One that goes on while it is polled.
    #[doc(hidden)]
    pub fn running(run: impl Future<Output = Result<T, E>> + Send + 'a) -> Pending<'a, T, E> {
        Pending(State::Running(Box::pin(run)))
    }

    /// Waits on this thread until it is over.
    ///
    /// # Errors
    /// Those of what was asked for.
    pub fn wait(self) -> Result<T, E> {
        match self.0 {
            State::Done(Some(result)) => result,
            State::Done(None) => panic!("a `Pending` was polled after it was done"),
            State::Running(run) => block_on(run),
        }
    }
}

impl<T, E> Future for Pending<'_, T, E> {
    type Output = Result<T, E>;

    /// # Panics
    /// When it is polled after it was done, as of any future.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T, E>> {
        match &mut self.0 {
            State::Done(Some(_)) => match std::mem::replace(&mut self.0, State::Done(None)) {
                State::Done(Some(result)) => Poll::Ready(result),
                _ => unreachable!("it was seen to be done"),
            },
            State::Done(None) => panic!("a `Pending` was polled after it was done"),
            State::Running(run) => run.as_mut().poll(context),
        }
    }
}

impl<T, E> std::fmt::Debug for Pending<'_, T, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self.0, State::Done(_)) { "Pending(done)" } else { "Pending(running)" })
    }
}

/// Runs programs. A backend refuses what it cannot do; it never does something else instead.
pub trait Backend<O>: Send + Sync {
    /// The device in words, e.g. `cpu (avx512, 8 threads)` or the adapter's name.
    fn name(&self) -> String;

    /// What tells this backend, its device and driver apart from all others: the key of what is measured on it.
    fn identity(&self) -> String {
        self.name()
    }

    /// What it can do and what pays on it.
    fn capabilities(&self) -> Capabilities;

    /// Where what is measured on this backend is kept.
    fn cache(&self) -> CacheDir {
        CacheDir::default()
    }

    /// Whether the backend may be measured without having been asked to.
    fn calibrates(&self) -> bool {
        true
    }

    /// The backends that this one chooses between; none when it is one itself.
    fn parts(&self) -> Vec<Arc<dyn Backend<O>>> {
        Vec::new()
    }

    /// Which of [`Backend::parts`] is predicted to be the fastest, each with the program that suits it, their rows in place;
    /// the first where there is no choice.
    fn fastest(&self, _programs: &[&Program<O>]) -> usize {
        0
    }

    /// Times the shapes that its kernels can have, and keeps the fastest: a line for each, the fastest first.
    ///
    /// # Errors
    /// [`EngineError`] of the device.
    fn tune(&self) -> Result<Vec<String>, EngineError> {
        Ok(Vec::new())
    }

    /// What was wrong with files of this backend in the cache folder.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Runs a program over its inputs, in the order in which they were declared.
    ///
    /// The run fails with an [`EngineError`]; the backend is usable afterwards unless the device is lost.
    fn run<'a>(&'a self, program: &'a Program<O>, inputs: &'a [Input<'a>]) -> Pending<'a>;

    /// What the device can do at best, measured once.
    fn ceilings(&self) -> Ceilings;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_waited_for() {
        let run = async { Ok::<u32, ()>(7) };
        assert_eq!(Pending::running(run).wait(), Ok(7));
        assert_eq!(Pending::<u32, u32>::done(Err(3)).wait(), Err(3));
        assert_eq!(block_on(Pending::<u32, u32>::done(Ok(4))), Ok(4));
    }
}
