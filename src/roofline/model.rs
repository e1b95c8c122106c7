//! The roofline: what the hardware allows, what was reached, and which roof binds.

use crate::ops::Cost;
use crate::stats::{Roofs, Unit};

/// From this share of a roof on the model is at fault: nothing is faster than the hardware, and a tenth is left for noise.
pub const FAULT: f64 = 1.1;

/// A working set read so many times faster than memory lies in a cache.
const CACHE: f64 = 1.25;

/// The roofs that hold for one workload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// Bytes per second, from where the working set lies.
    pub bytes_per_second: f64,
    /// Whether that is a cache rather than memory.
    pub cached: bool,
    /// Operations per second.
    pub operations_per_second: f64,
    /// Of which arithmetic.
    pub unit: Unit,
}

/// What was reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reached {
    /// 10^9 bytes per second.
    pub gbs: f64,
    /// 10^9 operations per second.
    pub gflops: f64,
    /// Of what the lower of the two roofs allows.
    pub share: f64,
    /// Whether memory (or a cache) is the lower roof.
    pub by_memory: bool,
}

impl Limit {
    /// The roofs for a workload that touches so many bytes and computes with `unit` (f32 where that was not measured).
    ///
    /// A set is held against the largest measured set that is not larger: it can't be read faster than that one.
    pub fn of(roofs: &Roofs, unit: Unit, bytes_touched: u64) -> Limit {
        let sizes = &roofs.read;
        let at = sizes.iter().rposition(|&(size, _)| size <= bytes_touched).unwrap_or(0);
        // Noise aside, a smaller set is never slower to read than a larger one; and what copies, reads.
        let reads = sizes.get(at..).unwrap_or_default().iter().map(|&(_, rate)| rate);
        let (unit, rate) = match roofs.peak(unit) {
            Some(rate) => (unit, rate),
            None => (Unit::F32, roofs.peak(Unit::F32).unwrap_or(f64::NAN)),
        };
        let bytes_per_second = reads.fold(roofs.copy, f64::max);
        let memory = sizes.last().map_or(0.0, |&(_, rate)| rate).max(roofs.copy);
        Limit { bytes_per_second, cached: bytes_per_second > CACHE * memory, operations_per_second: rate, unit }
    }

    /// Seconds that the hardware needs at least.
    pub fn seconds(&self, cost: &Cost) -> f64 {
        let (memory, arithmetic) = self.both(cost);
        memory.max(arithmetic)
    }

    fn both(&self, cost: &Cost) -> (f64, f64) {
        let bytes = cost.bytes_read + cost.bytes_written;
        (bytes / self.bytes_per_second, cost.operations / self.operations_per_second)
    }

    /// What a measured time means.
    pub fn reached(&self, cost: &Cost, seconds: f64) -> Reached {
        let (memory, arithmetic) = self.both(cost);
        Reached {
            gbs: (cost.bytes_read + cost.bytes_written) / seconds / 1e9,
            gflops: cost.operations / seconds / 1e9,
            share: memory.max(arithmetic) / seconds,
            by_memory: memory >= arithmetic,
        }
    }

    /// The name of the lower roof.
    pub fn bound(&self, reached: &Reached) -> &'static str {
        match reached.by_memory {
            true if self.cached => "cache",
            true => "memory",
            false => self.unit.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Peak;

    fn roofs() -> Roofs {
        let peak = |unit, rate| Peak { unit, operations_per_second: rate, note: String::new() };
        Roofs {
            read: vec![(1 << 20, 100e9), (1 << 26, 20e9)],
            copy: 10e9,
            peaks: vec![peak(Unit::F32, Some(200e9)), peak(Unit::Int8, Some(800e9)), peak(Unit::F16, None)],
            launch_seconds: 1e-5,
            read_back_seconds: None,
        }
    }

    #[test]
    fn the_lower_roof_binds() {
        let limit = Limit::of(&roofs(), Unit::F32, 1 << 30);
        assert_eq!((limit.bytes_per_second, limit.cached), (20e9, false));
        // 1 operation per byte: 20 GB/s allow 20 GFLOP/s of 200.
        let cost = Cost { bytes_read: 15e9, bytes_written: 5e9, operations: 20e9, launches: 1.0 };
        let reached = limit.reached(&cost, 2.0);
        assert_eq!((reached.gbs, reached.gflops, reached.share), (10.0, 10.0, 0.5));
        assert_eq!(limit.bound(&reached), "memory");
        // At 100 operations per byte arithmetic binds.
        let cost = Cost { operations: 2000e9, ..cost };
        assert_eq!((limit.seconds(&cost), limit.bound(&limit.reached(&cost, 20.0))), (10.0, "f32"));
        assert_eq!(limit.reached(&cost, 20.0).share, 0.5);
        let int8 = Limit::of(&roofs(), Unit::Int8, 1 << 30);
        assert_eq!((int8.seconds(&cost), int8.bound(&int8.reached(&cost, 20.0))), (2.5, "int8"));
    }

    #[test]
    fn sets_are_held_against_the_largest_that_is_not_larger() {
        let rate = |bytes| Limit::of(&roofs(), Unit::F32, bytes).bytes_per_second;
        assert_eq!([1, 1 << 20, (1 << 26) - 1, 1 << 26].map(rate), [100e9, 100e9, 100e9, 20e9]);
        assert!(Limit::of(&roofs(), Unit::F32, 5 << 20).cached);
        let mut odd = roofs();
        odd.read[0].1 = 5e9;
        assert_eq!(Limit::of(&odd, Unit::F32, 1).bytes_per_second, 20e9, "a smaller set is never slower");
        odd.copy = 30e9;
        assert_eq!(Limit::of(&odd, Unit::F32, 1 << 30).bytes_per_second, 30e9, "what copies, reads");
    }

    #[test]
    fn arithmetic_that_was_not_measured_is_held_against_f32() {
        let limit = Limit::of(&roofs(), Unit::F16, 1);
        assert_eq!((limit.unit, limit.operations_per_second), (Unit::F32, 200e9));
    }
}
