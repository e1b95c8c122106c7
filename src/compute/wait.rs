//! Waiting for what happens elsewhere: on this thread, or as a future that holds up none.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

thread_local! {
    /// Whether the future that is polled on this thread may hold it up.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
    /// Wakes this thread.
    static WAKER: Waker = waker();
}

/// Whether the caller waits for the future that is being polled, so that it may hold up the thread. Waiting where one is
/// saves the way to another thread and back.
#[cfg(any(feature = "gpu", test))]
pub(crate) fn may_block() -> bool {
    MAY_BLOCK.get()
}

/// Says whether futures may hold up this thread until it is dropped.
struct Blocking(bool);

impl Blocking {
    fn set(may: bool) -> Blocking {
        Blocking(MAY_BLOCK.replace(may))
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        MAY_BLOCK.set(self.0);
    }
}

/// Wakes a thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn waker() -> Waker {
    Waker::from(Arc::new(Unpark(std::thread::current())))
}

/// Waits on this thread until the future is done. Beside the future's own work that takes some nanoseconds.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = WAKER.try_with(Waker::clone).unwrap_or_else(|_| waker());
    let mut context = Context::from_waker(&waker);
    let _blocking = Blocking::set(true);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Polls a future that must not hold up this thread.
pub(crate) fn poll_free<F: Future + ?Sized>(future: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
    let _blocking = Blocking::set(false);
    future.poll(context)
}

/// Something that happens once, with a value, and that threads and futures wait for. Clones are the same.
#[derive(Debug)]
pub(crate) struct Signal<T>(Arc<Inner<T>>);

#[derive(Debug)]
struct Inner<T> {
    state: Mutex<State<T>>,
    fired: Condvar,
}

#[derive(Debug)]
struct State<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

impl<T> Clone for Signal<T> {
    fn clone(&self) -> Signal<T> {
        Signal(self.0.clone())
    }
}

impl<T> Signal<T> {
    /// It has not happened yet.
    pub(crate) fn new() -> Signal<T> {
        Signal(Arc::new(Inner { state: Mutex::new(State { value: None, waker: None }), fired: Condvar::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has happened; only the first value counts.
    pub(crate) fn fire(&self, value: T) {
        let mut state = self.state();
        state.value.get_or_insert(value);
        let waker = state.waker.take();
        drop(state);
        self.0.fired.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The value, if it has happened within so long; it is given once.
    #[cfg(any(feature = "gpu", test))]
    pub(crate) fn wait_for(&self, time: std::time::Duration) -> Option<T> {
        let waited = self.0.fired.wait_timeout_while(self.state(), time, |state| state.value.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.value.take()
    }
}

impl<T> Future for Signal<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut state = self.state();
        match state.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_future_that_wakes_later_is_waited_for() {
        let signal = Signal::new();
        let other = signal.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            other.fire(7);
        });
        assert_eq!(block_on(signal.clone()), 7);
        thread.join().unwrap();
        let signal = Signal::new();
        signal.fire(1);
        signal.fire(2);
        assert_eq!(signal.wait_for(Duration::ZERO), Some(1), "the first value counts");
        assert_eq!(signal.wait_for(Duration::from_millis(1)), None, "it is given once");
    }

    #[test]
    fn only_who_is_waited_for_may_hold_up_the_thread() {
        assert!(!may_block());
        block_on(async {
            assert!(may_block());
            let mut inner = pin!(async { may_block() });
            let mut context = Context::from_waker(Waker::noop());
            assert_eq!(poll_free(inner.as_mut(), &mut context), Poll::Ready(false));
            assert!(may_block());
        });
        assert!(!may_block());
    }
}
