//! A thread that waits for the device in place of futures, so that they hold up none of the application's.

use std::sync::mpsc::{Sender, channel};

use crate::compute::wait::Signal;

/// How waiting for a submission ended.
type Polled = Result<wgpu::PollStatus, wgpu::PollError>;

/// See the module. The thread ends when this is dropped.
#[derive(Debug)]
pub(super) struct Poller {
    asked: Sender<(Option<wgpu::SubmissionIndex>, Signal<Polled>)>,
}

impl Poller {
    /// Starts the thread; none where the system gives no more.
    pub(super) fn new(device: wgpu::Device) -> Option<Poller> {
        let (asked, requests) = channel::<(Option<wgpu::SubmissionIndex>, Signal<Polled>)>();
        let run = move || {
            while let Ok((submission, done)) = requests.recv() {
                done.fire(poll(&device, submission));
            }
        };
        let thread = std::thread::Builder::new().name("nearfield-gpu".to_owned()).spawn(run);
        thread.ok().map(|_| Poller { asked })
    }

    /// Waits for a submission, or for all of them.
    pub(super) async fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Polled {
        let done = Signal::new();
        match self.asked.send((submission, done.clone())) {
            Ok(()) => done.await,
            // The thread ends after this does.
            Err(_) => Err(wgpu::PollError::Timeout),
        }
    }
}

/// Waits on this thread.
pub(super) fn poll(device: &wgpu::Device, submission: Option<wgpu::SubmissionIndex>) -> Polled {
    device.poll(wgpu::PollType::Wait { submission_index: submission, timeout: None })
}
