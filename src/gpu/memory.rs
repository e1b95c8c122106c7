//! The budget: every byte that nearfield takes on the device is counted here and given back on drop.
//!
//! Two sorts of buffers: those that hold rows live as long as their base; scratch is pooled by size class, so that a
//! search allocates nothing after the first of its kind. Pooled buffers count as used, and are the first to go when
//! room is needed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::adapters::Kind;
use super::context::Context;
use super::sync::lock;
use super::trusted;
use crate::compute::EngineError;

/// Bytes and who holds them.
#[derive(Debug, Default)]
struct Ledger {
    used: u64,
    peak: u64,
    /// Scratch that waits to be used again, the longest unused first.
    pool: Vec<wgpu::Buffer>,
}

/// The memory that nearfield may take on a device.
#[derive(Debug)]
pub(super) struct Memory {
    limit: u64,
    ledger: Mutex<Ledger>,
}

/// A buffer that gives its bytes back when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    raw: wgpu::Buffer,
    pooled: AtomicBool,
    home: Arc<Memory>,
}

impl Buffer {
    /// The buffer itself.
    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.raw
    }

    /// Whether it goes back to the pool when it is dropped.
    pub(super) fn pool(&self, pooled: bool) {
        self.pooled.store(pooled, Ordering::Relaxed);
    }
}

/// Bytes that are counted without being a buffer of ours: what the driver stages for an upload.
#[derive(Debug)]
pub(super) struct Hold {
    bytes: u64,
    home: Arc<Memory>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut ledger = lock(&self.home.ledger);
        ledger.used = ledger.used.saturating_sub(self.bytes);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut ledger = lock(&self.home.ledger);
        if self.pooled.load(Ordering::Relaxed) {
            ledger.pool.push(self.raw.clone());
        } else {
            ledger.used = ledger.used.saturating_sub(self.raw.size());
        }
    }
}

/// What scratch buffers can be used for.
pub(super) const SCRATCH: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);
/// What buffers that the host reads can be used for.
pub(super) const READ_BACK: wgpu::BufferUsages = wgpu::BufferUsages::MAP_READ.union(wgpu::BufferUsages::COPY_DST);
/// What buffers that hold rows can be used for.
pub(super) const ROWS: wgpu::BufferUsages =
    wgpu::BufferUsages::STORAGE.union(wgpu::BufferUsages::COPY_SRC).union(wgpu::BufferUsages::COPY_DST);

impl Memory {
    /// A budget of so many bytes, or the device's default share.
    pub(super) fn new(context: &Context, limit: Option<u64>) -> Arc<Memory> {
        let limit = limit.unwrap_or_else(|| {
            default_share(context.kind(), trusted::device_local_bytes(&context.device), system_bytes())
        });
        Memory::of(limit)
    }

    /// A budget of so many bytes.
    pub(super) fn of(limit: u64) -> Arc<Memory> {
        Arc::new(Memory { limit, ledger: Mutex::default() })
    }

    /// Gives up all scratch that is not in use.
    pub(super) fn trim(&self) {
        let mut ledger = lock(&self.ledger);
        while let Some(given_up) = ledger.pool.pop() {
            ledger.used = ledger.used.saturating_sub(given_up.size());
        }
    }

    /// All bytes that may be taken.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes taken, pooled scratch included.
    pub(super) fn used(&self) -> u64 {
        lock(&self.ledger).used
    }

    /// The most bytes that were ever taken at once.
    pub(super) fn peak(&self) -> u64 {
        lock(&self.ledger).peak
    }

    /// Bytes that could be taken now, pooled scratch being given up.
    pub(super) fn free(&self) -> u64 {
        let ledger = lock(&self.ledger);
        let pooled: u64 = ledger.pool.iter().map(wgpu::Buffer::size).sum();
        self.limit.saturating_sub(ledger.used.saturating_sub(pooled))
    }

    /// A scratch buffer of at least so many bytes, from the pool if it has one.
    pub(super) fn scratch(
        self: &Arc<Memory>,
        context: &Context,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<Buffer, EngineError> {
        let class = size_class(bytes);
        let mut ledger = lock(&self.ledger);
        if let Some(i) = ledger.pool.iter().rposition(|b| b.size() == class && b.usage() == usage) {
            return Ok(Buffer { raw: ledger.pool.remove(i), pooled: AtomicBool::new(true), home: self.clone() });
        }
        drop(ledger);
        self.take(context, "nearfield.scratch", class, usage, true)
    }

    /// A buffer of exactly so many bytes that is not pooled.
    pub(super) fn buffer(
        self: &Arc<Memory>,
        context: &Context,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<Buffer, EngineError> {
        self.take(context, label, bytes.max(16).next_multiple_of(16), usage, false)
    }

    /// Counts bytes that wgpu allocates for us.
    pub(super) fn hold(self: &Arc<Memory>, bytes: u64) -> Result<Hold, EngineError> {
        self.reserve(bytes)?;
        Ok(Hold { bytes, home: self.clone() })
    }

    /// A buffer that `fill` writes through a mapping before any kernel sees it, for memory shared with the CPU.
    pub(super) fn filled_buffer(
        self: &Arc<Memory>,
        context: &Context,
        label: &str,
        bytes: u64,
        fill: impl FnOnce(wgpu::BufferViewMut),
    ) -> Result<Buffer, EngineError> {
        let size = bytes.max(16).next_multiple_of(16);
        let usage = ROWS | wgpu::BufferUsages::MAP_WRITE;
        self.reserve(size)?;
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: true };
        self.own(size, false, context, || {
            let raw = context.device.create_buffer(&descriptor);
            let mapped = raw.get_mapped_range_mut(..);
            let error = mapped.map(fill).err();
            raw.unmap();
            (raw, error.map(|e| e.to_string()))
        })
    }

    fn take(
        self: &Arc<Memory>,
        context: &Context,
        label: &str,
        size: u64,
        usage: wgpu::BufferUsages,
        pooled: bool,
    ) -> Result<Buffer, EngineError> {
        self.reserve(size)?;
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        self.own(size, pooled, context, || (context.device.create_buffer(&descriptor), None))
    }

    /// Makes a buffer whose bytes are reserved already; gives them back when that fails.
    fn own(
        self: &Arc<Memory>,
        size: u64,
        pooled: bool,
        context: &Context,
        make: impl FnOnce() -> (wgpu::Buffer, Option<String>),
    ) -> Result<Buffer, EngineError> {
        let made = match context.faults.out_of_memory() {
            true => Err(EngineError::OutOfMemory { wanted: size, free: 0, limit: self.limit }),
            false => context.scoped(size, make),
        };
        let error = match made {
            Ok((raw, None)) => return Ok(Buffer { raw, pooled: AtomicBool::new(pooled), home: self.clone() }),
            Ok((_, Some(error))) => EngineError::Driver(error),
            Err(error) => error,
        };
        let mut ledger = lock(&self.ledger);
        ledger.used = ledger.used.saturating_sub(size);
        drop(ledger);
        Err(match error {
            EngineError::OutOfMemory { .. } => self.full(size),
            other => other,
        })
    }

    /// Counts bytes as taken, giving up pooled scratch for them where that helps.
    fn reserve(&self, size: u64) -> Result<(), EngineError> {
        let mut ledger = lock(&self.ledger);
        while ledger.used.saturating_add(size) > self.limit && !ledger.pool.is_empty() {
            let given_up = ledger.pool.remove(0);
            ledger.used = ledger.used.saturating_sub(given_up.size());
        }
        if ledger.used.saturating_add(size) > self.limit {
            let free = self.limit.saturating_sub(ledger.used);
            return Err(EngineError::OutOfMemory { wanted: size, free, limit: self.limit });
        }
        ledger.used += size;
        ledger.peak = ledger.peak.max(ledger.used);
        Ok(())
    }

    fn full(&self, wanted: u64) -> EngineError {
        EngineError::OutOfMemory { wanted, free: self.limit.saturating_sub(self.used()), limit: self.limit }
    }
}

/// Rounds up to a quarter of a power of two, so that at most a fifth of a scratch buffer is unused.
fn size_class(bytes: u64) -> u64 {
    let bytes = bytes.max(1024);
    let step = (bytes.next_power_of_two() / 8).max(256);
    bytes.next_multiple_of(step)
}

/// The default budget: half of what holds the rows.
fn default_share(kind: Kind, device_local: Option<u64>, system: Option<u64>) -> u64 {
    let shared = matches!(kind, Kind::Integrated | Kind::Software);
    // A CPU's driver calls all memory its own; the system's number is the better one.
    let whole = if shared { system.or(device_local) } else { device_local };
    whole.map_or(2 << 30, |bytes| bytes / 2)
}

/// Bytes of main memory, where the system says without a call that is unsafe.
fn system_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(limit: u64) -> Memory {
        Memory { limit, ledger: Mutex::default() }
    }

    #[test]
    fn the_budget_is_a_hard_limit() {
        let memory = memory(1000);
        assert!(memory.reserve(600).is_ok());
        let error = memory.reserve(401).unwrap_err();
        assert_eq!(error, EngineError::OutOfMemory { wanted: 401, free: 400, limit: 1000 });
        assert!(memory.reserve(400).is_ok());
        assert_eq!((memory.used(), memory.free(), memory.peak()), (1000, 0, 1000));
        assert!(memory.reserve(u64::MAX).is_err(), "no overflow");
    }

    #[test]
    fn size_classes_waste_at_most_a_fifth() {
        for bytes in [0u64, 1, 255, 1024, 1025, 5000, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 50 << 20] {
            let class = size_class(bytes);
            assert!(class >= bytes && class.is_multiple_of(16), "{bytes} -> {class}");
            assert!(bytes < 2048 || class - bytes <= bytes / 4, "{bytes} -> {class}");
        }
    }

    #[test]
    fn default_budget_is_half_of_what_holds_the_rows() {
        assert_eq!(default_share(Kind::Discrete, Some(8 << 30), Some(64 << 30)), 4 << 30);
        assert_eq!(default_share(Kind::Integrated, Some(1 << 30), Some(16 << 30)), 8 << 30);
        assert_eq!(default_share(Kind::Software, None, Some(16 << 30)), 8 << 30);
        assert_eq!(default_share(Kind::Discrete, None, Some(64 << 30)), 2 << 30);
    }
}
