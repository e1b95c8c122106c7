//! The handle that users hold: which backend runs their programs.

use std::sync::Arc;

use crate::ops::Engine;

/// Where searches run: the CPU, a GPU, or whichever is there.
///
/// Cheap to clone; clones share the device, its memory budget and its kernels.
#[derive(Clone)]
pub struct Device {
    pub(crate) engine: Arc<Engine>,
    /// The CPU, which trains codes whoever searches.
    pub(crate) host: Arc<Engine>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Device").field(&self.engine.name()).finish()
    }
}
