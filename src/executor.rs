//! The threads of a device that drive what is asked for without waiting: they poll futures and do their work on the CPU,
//! together with the device's other threads. While a GPU works they do something else or sleep. There are several, so that a
//! search need not wait for the end of a clustering.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::cancel::CancelToken;
use crate::compute::Pending;
use crate::compute::wait::{Signal, block_on, poll_free};

/// Futures whose work is done at the same time; further ones take turns.
const DRIVERS: usize = 4;

/// See the module. The threads start with the first future and end with the last one after this was dropped.
#[derive(Debug, Default)]
pub(crate) struct Executor {
    /// None where the system gives no more threads.
    queue: OnceLock<Option<Sender<Arc<Task>>>>,
}

/// A future that is driven.
struct Task {
    future: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    queue: Sender<Arc<Task>>,
    /// Whether it waits in the queue already.
    queued: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            // The threads end after the last of their queue is dropped, and this is one.
            let _ = self.queue.clone().send(self);
        }
    }
}

/// How a future ended: its value, or with what it panicked.
type Ended<T> = Result<T, Box<dyn Any + Send>>;

/// A future that the threads drive; dropping it calls it off.
struct Driven<T> {
    ended: Signal<Ended<T>>,
    token: CancelToken,
}

impl<T> Drop for Driven<T> {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl<T> Future for Driven<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.ended).poll(context) {
            Poll::Ready(Ok(value)) => Poll::Ready(value),
            Poll::Ready(Err(panic)) => resume_unwind(panic),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Executor {
    /// Drives a future. What is given holds up nobody, can be waited for, and calls the future off when it is dropped:
    /// `token`, which the future's work looks at, is cancelled then.
    pub fn spawn<T, E>(
        &self,
        token: CancelToken,
        future: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Pending<'static, T, E>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let Some(queue) = self.queue.get_or_init(start) else { return Pending::done(block_on(future)) };
        let ended = Signal::new();
        let done = ended.clone();
        let mut future = Box::pin(future);
        let whole = std::future::poll_fn(move |context| {
            match catch_unwind(AssertUnwindSafe(|| poll_free(future.as_mut(), context))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(value)) => done.fire(Ok(value)),
                Err(panic) => done.fire(Err(panic)),
            }
            Poll::Ready(())
        });
        let task =
            Task { future: Mutex::new(Some(Box::pin(whole))), queue: queue.clone(), queued: AtomicBool::new(false) };
        Arc::new(task).wake();
        Pending::running(Driven { ended, token })
    }
}

/// Starts the threads.
fn start() -> Option<Sender<Arc<Task>>> {
    let (queue, tasks) = channel();
    let tasks = Arc::new(Mutex::new(tasks));
    let mut started = 0;
    for _ in 0..DRIVERS {
        let tasks = tasks.clone();
        let thread = std::thread::Builder::new().name("nearfield-async".to_owned()).spawn(move || drive(&tasks));
        started += usize::from(thread.is_ok());
    }
    (started > 0).then_some(queue)
}

fn drive(tasks: &Mutex<Receiver<Arc<Task>>>) {
    // One waits for the next task, the others for their turn to wait.
    let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(task) = next() {
        task.queued.store(false, Ordering::Release);
        let mut future = task.future.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = future.as_mut() {
            let waker = Waker::from(task.clone());
            if running.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                *future = None;
            }
        }
    }
}
