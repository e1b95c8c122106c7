//! What the CPU can do at best, measured.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::CpuEngine;
use crate::simd::probe;
use crate::stats::{Ceilings, Peak, Roofs, Unit};

/// f32 that a worker reads before it asks for more.
const CHUNK_FLOATS: usize = 1 << 18;
/// f32 of the buffer that [`CpuEngine::measure`] reads: larger than most caches.
const BUFFER: usize = 1 << 24;

impl CpuEngine {
    /// Reads a buffer larger than most caches and multiplies in registers, each with all threads; some 40 ms.
    pub(super) fn measure(&self) -> Ceilings {
        Ceilings {
            bytes_per_second: self.read(&self.filled(BUFFER), 2),
            operations_per_second: self.together(|| probe::multiply(self.token, 1 << 14)),
            launch_seconds: self.wake(),
        }
    }

    /// The roofs of a roofline; some 400 ms.
    pub fn roofs(&self) -> Roofs {
        // Small sets stay with the thread that reads them, so that waking threads does not count.
        let own = |bytes: usize| (bytes as u64, self.read_own(bytes / self.threads));
        let large = self.filled(4 * BUFFER);
        let shared = |floats: usize| (4 * floats as u64, self.read(&large[..floats], 3));
        let small = self.threads * (16 << 10);
        let read = vec![own(small), own(1 << 20), own(8 << 20), shared(BUFFER), shared(4 * BUFFER)];
        let copy = self.copy(large);
        let f32 = format!("multiply-adds, {}", self.level().name());
        let (_, dot) = probe::dot(self.token, 1);
        let absent = |unit, why: &str| Peak { unit, operations_per_second: None, note: why.to_owned() };
        let measured = |unit, rate, note| Peak { unit, operations_per_second: Some(rate), note };
        Roofs {
            read,
            copy,
            peaks: vec![
                measured(Unit::F32, self.together(|| probe::multiply(self.token, 1 << 14)), f32),
                absent(Unit::F16, "rows of f16 are computed with in f32"),
                measured(Unit::Int8, self.together(|| probe::dot(self.token, 1 << 12).0), dot.to_owned()),
                measured(Unit::Popcount, self.together(|| probe::count(self.token, 1 << 10)), "vectorised".to_owned()),
                absent(Unit::Matrix, "a CPU's matrix units are not used"),
            ],
            launch_seconds: self.wake(),
            read_back_seconds: None,
        }
    }

    /// Does `work` with each item on all threads, whoever calls it off.
    fn spin<I: Send>(&self, items: impl Iterator<Item = I> + Send, work: impl Fn(I) + Sync) {
        self.keep(self.spread_while(self.threads, items, |_| {}, |_, item| work(item), || true));
    }

    /// So many f32, written by the threads that may read them.
    fn filled(&self, len: usize) -> Vec<f32> {
        let mut buffer = vec![0.0f32; len];
        self.spin(buffer.chunks_mut(CHUNK_FLOATS), |chunk| chunk.fill(1.0));
        buffer
    }

    /// Bytes read per second from a buffer that all threads share.
    fn read(&self, buffer: &[f32], runs: usize) -> f64 {
        let seconds = fastest(runs, || {
            self.spin(buffer.chunks(CHUNK_FLOATS), |chunk| {
                black_box(probe::sum(self.token, chunk));
            });
        });
        size_of_val(buffer) as f64 / seconds
    }

    /// Bytes read per second when each thread reads a buffer of its own again and again.
    fn read_own(&self, bytes: usize) -> f64 {
        let times = ((32 << 20) / bytes).max(2);
        let buffers: Vec<Vec<f32>> = (0..self.threads).map(|_| vec![1.0; bytes / 4]).collect();
        let seconds = fastest(3, || {
            self.spin(buffers.iter(), |own| {
                for _ in 0..times {
                    black_box(probe::sum(self.token, black_box(own)));
                }
            });
        });
        (buffers.len() * bytes * times) as f64 / seconds
    }

    /// Bytes read and written per second by copying one half of the buffer to the other.
    fn copy(&self, mut buffer: Vec<f32>) -> f64 {
        let (from, to) = buffer.split_at_mut(2 * BUFFER);
        let seconds = fastest(3, || {
            let chunks = from.chunks(CHUNK_FLOATS).zip(to.chunks_mut(CHUNK_FLOATS));
            self.spin(chunks, |(from, to)| to.copy_from_slice(from));
        });
        size_of_val(&buffer[..]) as f64 / seconds
    }

    /// Operations per second of all threads together.
    fn together(&self, work: impl Fn() -> f64 + Sync) -> f64 {
        let items = 8 * self.threads;
        let seconds = fastest(4, || {
            self.spin(0..items, |_| {
                black_box(work());
            });
        });
        items as f64 * work() / seconds
    }

    /// Seconds to wake every thread for nothing.
    fn wake(&self) -> f64 {
        fastest(5, || self.spin(0..self.threads, |_| {}))
    }
}

/// Seconds of the fastest of some runs.
fn fastest(runs: usize, mut run: impl FnMut()) -> f64 {
    let mut time = || {
        let begin = Instant::now();
        run();
        begin.elapsed()
    };
    (0..runs).map(|_| time()).min().unwrap_or_default().max(Duration::from_nanos(1)).as_secs_f64()
}
