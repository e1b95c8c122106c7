//! The cost of an answer, and the ceilings of a device.

use std::time::Duration;

/// One timed stage of a search.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Stage {
    /// The operation, or `upload`, `read back`, `decide`.
    pub name: String,
    /// How long it took, summed over batches and slices.
    pub time: Duration,
    /// Whether the time was taken by the GPU's own clock rather than by the wall.
    pub on_device: bool,
}

/// Statistics of a search; they come with every answer.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SearchStats {
    /// The device that answered, in words.
    pub device: String,
    /// The kernels that ran, e.g. `search+subgroups` or `search/avx512`.
    pub kernels: Vec<String>,
    /// Bytes of rows read by the passes over the base.
    pub bytes_read: u64,
    /// Row and query pairs whose key or bound was computed.
    pub scanned: u64,
    /// Candidates whose exact distance was computed after a screen.
    pub refined: u64,
    /// Queries whose screened answer was proven to be the exact one.
    pub proven: u64,
    /// Queries for which the bound excluded too little, so that the direct pass answered; of lists of codes, those that had
    /// all codes compared without the rounding of the query.
    pub fell_back: u64,
    /// Queries that only the exact keys of all rows could decide.
    pub decided_by_scan: u64,
    /// Parts of the base that were copied to the device for this search.
    pub chunks_uploaded: u64,
    /// Time of each stage.
    pub stages: Vec<Stage>,
    /// Why the device that was asked for did not answer, if it did not; under `auto` also why the CPU answers where there is no
    /// GPU.
    pub fallback: Option<String>,
}

impl Stage {
    /// Bringing rows, lists or bits to the device.
    pub const UPLOAD: &'static str = "upload";
    /// Bringing results to the host.
    pub const READ_BACK: &'static str = "read back";
    /// Writing rows and queries in the code of a screen.
    pub const ENCODE: &'static str = "encode";
}

impl SearchStats {
    /// Adds to the stage of this name.
    pub fn add_stage(&mut self, name: &str, time: Duration, on_device: bool) {
        match self.stages.iter_mut().find(|s| s.name == name && s.on_device == on_device) {
            Some(stage) => stage.time += time,
            None => self.stages.push(Stage { name: name.to_owned(), time, on_device }),
        }
    }

    /// Adds what another search cost, such as that of the next batch. The device is that of the last; the fallback is the
    /// first there was.
    pub fn merge(&mut self, other: &SearchStats) {
        if !other.device.is_empty() {
            self.device.clone_from(&other.device);
        }
        other.kernels.iter().for_each(|kernel| self.add_kernel(kernel));
        other.stages.iter().for_each(|stage| self.add_stage(&stage.name, stage.time, stage.on_device));
        self.add_counts(other);
        self.fallback = self.fallback.take().or_else(|| other.fallback.clone());
    }

    /// [`SearchStats::merge`] of a run that is not used again: its names are taken over where there are none yet.
    pub(crate) fn absorb(&mut self, other: SearchStats) {
        if self.stages.is_empty() && self.kernels.is_empty() && self.fallback.is_none() {
            let before = std::mem::replace(self, other);
            self.add_counts(&before);
        } else {
            self.merge(&other);
        }
    }

    fn add_counts(&mut self, other: &SearchStats) {
        self.bytes_read += other.bytes_read;
        self.scanned += other.scanned;
        self.refined += other.refined;
        self.proven += other.proven;
        self.fell_back += other.fell_back;
        self.decided_by_scan += other.decided_by_scan;
        self.chunks_uploaded += other.chunks_uploaded;
    }

    /// Notes that a kernel ran.
    pub fn add_kernel(&mut self, name: &str) {
        if !self.kernels.iter().any(|known| known == name) {
            self.kernels.push(name.to_owned());
        }
    }
}

/// The ceilings of a device, measured on it, not read off a datasheet.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Ceilings {
    /// Bytes read per second from the memory that holds the rows.
    pub bytes_per_second: f64,
    /// f32 additions and multiplications per second.
    pub operations_per_second: f64,
    /// Seconds that starting one kernel costs.
    pub launch_seconds: f64,
}

/// A kind of arithmetic that a device has a rate of its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Unit {
    /// f32 multiply-adds, two operations each.
    F32,
    /// f16 multiply-adds, two operations each.
    F16,
    /// Products of 8-bit integers added up in 32 bits, two operations each.
    Int8,
    /// An exclusive or, a count of set bits and an addition on words of 32 bits, three operations.
    Popcount,
    /// f16 products added up by cooperative matrices, two operations each.
    Matrix,
}

impl Unit {
    /// All of them.
    pub const ALL: [Unit; 5] = [Unit::F32, Unit::F16, Unit::Int8, Unit::Popcount, Unit::Matrix];

    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Unit::F32 => "f32",
            Unit::F16 => "f16",
            Unit::Int8 => "int8",
            Unit::Popcount => "popcount",
            Unit::Matrix => "matrix",
        }
    }
}

/// How fast one kind of arithmetic is.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Peak {
    /// Which kind.
    pub unit: Unit,
    /// Operations per second; absent where it was not measured.
    pub operations_per_second: Option<f64>,
    /// With which instructions it was measured, or why it was not.
    pub note: String,
}

/// What a device can do at best in more detail than [`Ceilings`]: the roofs of a roofline (Williams, Waterman and
/// Patterson, 2009), with one for memory at each size of the working set (Ilic, Pratas and Sousa, 2014).
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Roofs {
    /// Bytes of a working set and the bytes per second that it is read at, the smallest set first. The last one is larger
    /// than most caches.
    pub read: Vec<(u64, f64)>,
    /// Bytes per second by copying, each counted once read and once written; 0 where it was not measured.
    pub copy: f64,
    /// One entry for each [`Unit`].
    pub peaks: Vec<Peak>,
    /// Seconds to start the smallest kernel and see it end, or to wake every thread.
    pub launch_seconds: f64,
    /// Seconds to start the smallest kernel and have its result in host memory.
    pub read_back_seconds: Option<f64>,
}

impl Roofs {
    /// The rate of one kind of arithmetic, where it was measured.
    pub fn peak(&self, unit: Unit) -> Option<f64> {
        self.peaks.iter().find(|p| p.unit == unit)?.operations_per_second
    }

    /// The better of two measurements of the same device, for each figure: a ceiling is never too high, but on a busy
    /// machine it may be too low.
    pub fn better(mut self, other: Roofs) -> Roofs {
        for (mine, (bytes, rate)) in self.read.iter_mut().zip(other.read) {
            if mine.0 == bytes {
                mine.1 = mine.1.max(rate);
            }
        }
        self.copy = self.copy.max(other.copy);
        for mine in &mut self.peaks {
            let theirs = other.peaks.iter().find(|p| p.unit == mine.unit).and_then(|p| p.operations_per_second);
            if let (Some(rate), Some(theirs)) = (&mut mine.operations_per_second, theirs) {
                *rate = rate.max(theirs);
            }
        }
        self.launch_seconds = self.launch_seconds.min(other.launch_seconds);
        self.read_back_seconds = match (self.read_back_seconds, other.read_back_seconds) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self
    }
}
