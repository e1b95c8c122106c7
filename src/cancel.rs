//! Calling work off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Calls off what it was given to: a search ([`SearchOptions::cancel`](crate::SearchOptions::cancel)) or everything that is
/// done for a device ([`Device::cancelled_by`](crate::Device::cancelled_by)). Work looks at it between command buffers
/// of a GPU, which take up to 50 ms, and between blocks of rows or queries on the CPU; so it ends within some tens of milliseconds,
/// with an error that says so. Nothing is left half changed.
///
/// Clones are the same token.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use nearfield::{CancelToken, Device, Flat, Index, Metric, SearchError, SearchOptions};
///
/// let mut index = Flat::new(&Device::cpu(), 2, Metric::L2)?;
/// index.add(&[[0.0, 0.0], [3.0, 4.0]])?;
/// let token = CancelToken::new();
/// let options = SearchOptions::default().cancel(&token);
/// assert!(index.search_with(&[[1.0, 1.0]], 1, &options).is_ok());
/// token.cancel();
/// assert!(matches!(index.search_with(&[[1.0, 1.0]], 1, &options), Err(SearchError::Cancelled)));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<Inner>);

/// Work that was called off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cancelled;

/// Tokens are equal when they are the same.
impl PartialEq for CancelToken {
    fn eq(&self, other: &CancelToken) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[derive(Debug, Default)]
struct Inner {
    cancelled: AtomicBool,
    deadline: Option<Instant>,
}

impl CancelToken {
    /// A token that is cancelled by [`CancelToken::cancel`] alone.
    pub fn new() -> CancelToken {
        CancelToken::default()
    }

    /// A token that is also cancelled once the deadline has passed.
    pub fn with_deadline(deadline: Instant) -> CancelToken {
        CancelToken(Arc::new(Inner { deadline: Some(deadline), ..Inner::default() }))
    }

    /// A token whose deadline is so far from now.
    pub fn after(time: Duration) -> CancelToken {
        match Instant::now().checked_add(time) {
            Some(deadline) => CancelToken::with_deadline(deadline),
            None => CancelToken::new(),
        }
    }

    /// Calls off everything that this token or a clone of it was given to.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled or its deadline has passed.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed) || self.0.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_the_same_token() {
        let token = CancelToken::new();
        let clone = token.clone();
        assert!(!token.is_cancelled());
        clone.cancel();
        assert!(token.is_cancelled());
    }

    #[test]
    fn deadlines_pass() {
        assert!(CancelToken::after(Duration::ZERO).is_cancelled());
        assert!(!CancelToken::after(Duration::from_secs(1000)).is_cancelled());
        assert!(!CancelToken::after(Duration::MAX).is_cancelled());
    }
}
