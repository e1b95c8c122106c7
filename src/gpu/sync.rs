//! A lock that a panic elsewhere does not take away, and threads that do nothing but what they were started for.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Threads that pack rows at most: more do not copy faster.
const MOST_THREADS: usize = 16;

/// Locks; a poisoned lock is taken as it is, since every value behind one here is valid after each statement.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` on every job, each in a thread of its own; the first in the caller's.
///
/// No work-stealing pool on purpose: a thread that waits for stolen work might begin another search meanwhile, and wait
/// for a lock that it holds itself.
pub(super) fn in_threads<T: Send>(jobs: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) {
    let mut jobs = jobs.into_iter();
    let Some(first) = jobs.next() else { return };
    std::thread::scope(|scope| {
        for job in jobs {
            let work = &work;
            scope.spawn(move || work(job));
        }
        work(first);
    });
}

/// How many of `items` a thread should take, when one takes `each` units of work and starting a thread is worth 100,000.
/// There are as many threads as the device has.
pub(super) fn share(items: usize, each: usize) -> usize {
    let threads = crate::threads::count().min(MOST_THREADS);
    let least = (100_000 / each.max(1)).max(1);
    items.div_ceil(threads).max(least)
}
