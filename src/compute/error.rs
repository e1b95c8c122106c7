//! Why a program could not be run.

use crate::cancel::Cancelled;

/// Why a backend could not run a program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The device, or the budget it was given, has no room.
    #[error("out of device memory: {wanted} bytes wanted, {free} of {limit} free")]
    OutOfMemory {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes left.
        free: u64,
        /// Bytes in all.
        limit: u64,
    },
    /// An answer that host memory can't hold.
    #[error("an answer of {rows} x {width} places does not fit in memory")]
    AnswerTooLarge {
        /// Queries.
        rows: usize,
        /// Places of each.
        width: usize,
    },
    /// The device is gone (driver reset, unplugged, destroyed by its owner).
    #[error("the device was lost: {0}")]
    Lost(String),
    /// A kernel gave a wrong answer in its self-test and is not used on this device.
    #[error("kernel `{kernel}` failed its self-test on this device and is disabled: {detail}")]
    Disabled {
        /// The verb.
        kernel: String,
        /// What was wrong.
        detail: String,
    },
    /// The driver refused something that should have been right.
    #[error("the driver refused a call: {0}")]
    Driver(String),
    /// The work was called off by a [`CancelToken`](crate::CancelToken).
    #[error("the work was called off, or its deadline has passed")]
    Cancelled,
    /// The backend has no way to do this, and does nothing else instead.
    #[error("{0}")]
    Unsupported(String),
    /// The shapes of a program and its inputs do not fit together. A fault of the caller inside this crate.
    #[error("a program and its data do not fit: {0}")]
    Mismatch(String),
}

impl From<Cancelled> for EngineError {
    fn from(_: Cancelled) -> EngineError {
        EngineError::Cancelled
    }
}

/// Whether there is memory for `rows` x `width` things of `bytes` bytes.
///
/// # Errors
/// [`EngineError::AnswerTooLarge`].
pub fn room(rows: usize, width: usize, bytes: usize) -> Result<(), EngineError> {
    let wanted = rows.saturating_mul(width).saturating_mul(bytes);
    Vec::<u8>::new().try_reserve_exact(wanted).map_err(|_| EngineError::AnswerTooLarge { rows, width })
}
