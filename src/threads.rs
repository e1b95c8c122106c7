//! The threads of a device, how work is shared among them, and whether it is still wanted.
//!
//! A device owns one [`Threads`]. Its entry points call [`Threads::enter`], and all work below them that is worth more than
//! one thread goes through [`each`], [`each_with`] or [`map`], which take the threads that were entered. The thread that
//! calls works too, so that one thread means: no other. Where none were entered the calling thread does everything.
//!
//! This is the only file that knows rayon, and nothing uses its global pool. Items are handed out under a lock, some at a
//! time, in order; a helper that has none left is free. No thread waits for work of another caller, so locks may be held
//! while work is shared; what is shared takes none of them.

use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use crate::cancel::{CancelToken, Cancelled};

/// Most threads of one device.
const MOST_THREADS: usize = 1024;

/// How many times each thread comes for items, when there are many: so that none waits long for the slowest.
const TURNS: usize = 8;

/// The threads of a device; clones are the same threads.
#[derive(Clone, Debug)]
pub(crate) struct Threads(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    /// Threads that work at the same time for one caller, the caller among them.
    count: usize,
    /// One fewer than that; none for one thread.
    helpers: Option<rayon::ThreadPool>,
}

thread_local! {
    /// The threads that this one may share work with.
    static ENTERED: RefCell<Option<Threads>> = const { RefCell::new(None) };
    /// What calls off the work of this thread.
    static TOKENS: RefCell<Vec<CancelToken>> = const { RefCell::new(Vec::new()) };
    /// How often work of this thread could have been shared and no threads were entered.
    #[cfg(test)]
    static ALONE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Threads {
    /// So many, or one for each processor that the process may use. Never fails: when the system gives fewer, fewer work.
    pub fn new(wanted: Option<usize>) -> Threads {
        let wanted = wanted.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        let mut helpers = wanted.clamp(1, MOST_THREADS) - 1;
        let mut pool = None;
        while helpers > 0 && pool.is_none() {
            let name = |i| format!("nearfield-{i}");
            pool = rayon::ThreadPoolBuilder::new().num_threads(helpers).thread_name(name).build().ok();
            if pool.is_none() {
                helpers /= 2;
            }
        }
        Threads(Arc::new(Pool { count: helpers + 1, helpers: pool }))
    }

    /// How many threads work at the same time for one caller, the caller among them.
    pub fn count(&self) -> usize {
        self.0.count
    }

    /// Until the guard is dropped, the calling thread shares its work with these threads. The tokens call that work off, as
    /// do those that were entered before.
    pub fn enter(&self, tokens: &[CancelToken]) -> Entered {
        TOKENS.with_borrow_mut(|all| all.extend_from_slice(tokens));
        Entered { before: ENTERED.replace(Some(self.clone())), tokens: tokens.len(), here: PhantomData }
    }

    /// A future whose work is entered so, whichever thread polls it.
    pub fn within<F: Future>(&self, tokens: Vec<CancelToken>, future: F) -> Within<F> {
        Within { threads: self.clone(), tokens, future: Box::pin(future) }
    }

    /// Runs `work` once for each state, at the same time: the first on the calling thread, each other on a helper as soon
    /// as one is free. There should be no more states than threads.
    pub fn spread<S: Send>(&self, states: &mut [S], work: impl Fn(&mut S) + Sync) {
        match (&self.0.helpers, states.split_first_mut()) {
            (Some(pool), Some((mine, others))) if !others.is_empty() => pool.in_place_scope(|scope| {
                for other in others {
                    scope.spawn(|_| work(other));
                }
                work(mine);
            }),
            _ => states.iter_mut().for_each(work),
        }
    }
}

/// See [`Threads::enter`]. Guards are dropped in the reverse order of their making, on the thread that made them.
pub(crate) struct Entered {
    before: Option<Threads>,
    /// How many tokens were entered.
    tokens: usize,
    /// It must not be sent to another thread.
    here: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        ENTERED.set(self.before.take());
        if self.tokens > 0 {
            TOKENS.with_borrow_mut(|all| all.truncate(all.len() - self.tokens));
        }
    }
}

/// See [`Threads::within`].
pub(crate) struct Within<F> {
    threads: Threads,
    tokens: Vec<CancelToken>,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let _entered = this.threads.enter(&this.tokens);
        this.future.as_mut().poll(context)
    }
}

/// What calls off the work of the calling thread.
pub(crate) fn tokens() -> Vec<CancelToken> {
    TOKENS.with_borrow(Clone::clone)
}

/// Whether the work of the calling thread is still wanted.
///
/// # Errors
/// [`Cancelled`] when it is not.
pub(crate) fn check() -> Result<(), Cancelled> {
    match TOKENS.with_borrow(|all| all.iter().any(CancelToken::is_cancelled)) {
        true => Err(Cancelled),
        false => Ok(()),
    }
}

/// For work without a device: enters one thread for each processor, unless some were entered already.
pub(crate) fn enter_some() -> Option<Entered> {
    entered().is_none().then(|| Threads::new(None).enter(&[]))
}

/// The threads that were entered, if any were.
fn entered() -> Option<Threads> {
    ENTERED.with_borrow(Clone::clone)
}

/// How many threads the calling one may share work with, itself among them.
#[cfg(any(feature = "gpu", test))]
pub(crate) fn count() -> usize {
    ENTERED.with_borrow(|entered| entered.as_ref().map_or(1, Threads::count))
}

/// Does `work` with every item, at least `least` items per thread.
pub(crate) fn each<I: Send>(least: usize, items: impl ExactSizeIterator<Item = I> + Send, work: impl Fn(I) + Sync) {
    each_with(least, items, || (), |(), item| work(item));
}

/// As [`each`], with something that each thread makes for itself before its first item.
pub(crate) fn each_with<S, I: Send>(
    least: usize,
    mut items: impl ExactSizeIterator<Item = I> + Send,
    make: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, I) + Sync,
) {
    let (least, count) = (least.max(1), items.len());
    let entered = if count > least { entered() } else { None };
    #[cfg(test)]
    if count > least && entered.is_none() {
        ALONE.set(ALONE.get() + 1);
    }
    let workers = entered.as_ref().map_or(1, |threads| threads.count().min(count.div_ceil(least)));
    let (Some(threads), 2..) = (entered, workers) else {
        let mut state = make();
        return items.for_each(|item| work(&mut state, item));
    };
    let step = least.max(count / (TURNS * workers));
    let items = Mutex::new(&mut items);
    threads.spread(&mut vec![(); workers], |()| {
        let mut state = None;
        loop {
            let some: Vec<I> = items.lock().unwrap_or_else(PoisonError::into_inner).by_ref().take(step).collect();
            if some.is_empty() {
                return;
            }
            let state = state.get_or_insert_with(&make);
            some.into_iter().for_each(|item| work(state, item));
        }
    });
}

/// What `work` makes of every item, in their order, at least `least` items per thread.
pub(crate) fn map<I: Send, R: Send>(
    least: usize,
    items: impl ExactSizeIterator<Item = I> + Send,
    work: impl Fn(I) -> R + Sync,
) -> Vec<R> {
    map_with(least, items, || (), |(), item| work(item))
}

/// As [`map`], with something that each thread makes for itself before its first item.
pub(crate) fn map_with<S, I: Send, R: Send>(
    least: usize,
    items: impl ExactSizeIterator<Item = I> + Send,
    make: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, I) -> R + Sync,
) -> Vec<R> {
    let mut made: Vec<Option<R>> = Vec::new();
    made.resize_with(items.len(), || None);
    each_with(least, items.zip(&mut made), make, |state, (item, place)| *place = Some(work(state, item)));
    made.into_iter().flatten().collect()
}

/// How often work of this thread could have been shared and no threads were entered, since this was asked last.
#[cfg(test)]
pub(crate) fn alone() -> usize {
    ALONE.take()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread::ThreadId;

    use super::*;

    fn ids(threads: &Threads, items: usize) -> HashSet<ThreadId> {
        let all = Mutex::new(HashSet::new());
        let _entered = threads.enter(&[]);
        each(1, 0..items, |_| {
            all.lock().unwrap().insert(std::thread::current().id());
        });
        all.into_inner().unwrap()
    }

    #[test]
    fn one_thread_is_the_callers() {
        let threads = Threads::new(Some(1));
        assert_eq!(ids(&threads, 1000), HashSet::from([std::thread::current().id()]));
        assert_eq!(Threads::new(Some(0)).count(), 1);
    }

    #[test]
    fn so_many_threads_work_at_the_same_time_and_no_more() {
        for count in [2, 3] {
            let threads = Threads::new(Some(count));
            let all = Barrier::new(count);
            // As many items as threads: none gets past the barrier before all have one.
            let entered = threads.enter(&[]);
            each(1, 0..count, |_| {
                all.wait();
            });
            drop(entered);
            assert!(ids(&threads, 10_000).len() <= count);
        }
    }

    #[test]
    fn every_item_is_done_once_and_in_its_place() {
        let threads = Threads::new(Some(3));
        for (count, least) in [(0, 1), (1, 1), (5, 2), (1000, 1), (1000, 64), (1001, 1000)] {
            let _entered = threads.enter(&[]);
            let squares = map(least, 0..count, |i| i * i);
            assert_eq!(squares, (0..count).map(|i| i * i).collect::<Vec<_>>());
            let mut numbers = vec![1; count];
            each(least, numbers.iter_mut(), |n| *n += 1);
            assert!(numbers.iter().all(|&n| n == 2));
        }
        alone();
        assert_eq!(map(1, 0..4, |i| i), [0, 1, 2, 3]);
        assert_eq!(alone(), 1, "nobody entered");
        let outer = threads.enter(&[]);
        let inner = Threads::new(Some(2)).enter(&[]);
        assert_eq!((count(), enter_some().is_none()), (2, true));
        drop(inner);
        assert_eq!(count(), 3);
        drop(outer);
        assert_eq!(count(), 1);
    }

    #[test]
    fn shared_work_may_share_again() {
        let threads = Threads::new(Some(2));
        let _entered = threads.enter(&[]);
        let sums = map(1, 0..20, |i| map(1, 0..20, |j| i * j).iter().sum::<usize>());
        assert_eq!(sums, (0..20).map(|i| 190 * i).collect::<Vec<_>>());
    }
}
