//! `Ivf` in `.nf` files (stub).
use std::path::Path;

use super::super::OpenError;
use super::Ivf;
use crate::engine::Device;
use crate::format::SaveError;

impl Ivf {
    /// Writes.
    pub fn save(&self, _path: impl AsRef<Path>) -> Result<(), SaveError> {
        todo!()
    }
    /// Reads.
    pub fn load(_device: &Device, _path: impl AsRef<Path>) -> Result<Ivf, OpenError> {
        todo!()
    }
}
