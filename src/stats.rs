//! What an answer cost, and what a device could do at best.

use std::time::Duration;

/// One timed stage of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Stage {
    /// The verb, or `upload`, `read back`, `prove`.
    pub name: String,
    /// How long it took, summed over batches and slices.
    pub time: Duration,
    /// Whether the time was taken by the GPU's own clock rather than by the wall.
    pub on_device: bool,
}

/// What a search did; comes with every answer.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Queries for which the bound excluded too little, so that the direct pass answered.
    pub fell_back: u64,
    /// Parts of the base that were copied to the device for this search.
    pub chunks_uploaded: u64,
    /// Time of each stage.
    pub stages: Vec<Stage>,
    /// Why the device that was asked for did not answer, if it did not.
    pub fallback: Option<String>,
}

impl SearchStats {
    /// Adds to the stage of this name.
    pub fn add_stage(&mut self, name: &str, time: Duration, on_device: bool) {
        match self.stages.iter_mut().find(|s| s.name == name && s.on_device == on_device) {
            Some(stage) => stage.time += time,
            None => self.stages.push(Stage { name: name.to_owned(), time, on_device }),
        }
    }

    /// Notes that a kernel ran.
    pub fn add_kernel(&mut self, name: String) {
        if !self.kernels.contains(&name) {
            self.kernels.push(name);
        }
    }
}

/// What a device can do at best; figures measured on it, not read off a datasheet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Bytes read a second from the memory that holds the rows.
    pub bytes_per_second: f64,
    /// f32 additions and multiplications a second.
    pub operations_per_second: f64,
    /// Seconds that starting one kernel costs.
    pub launch_seconds: f64,
}
