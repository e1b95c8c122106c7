//! The engines under test, one of each for the whole process: a GPU's pipelines are compiled once.

use std::sync::Arc;

use nearfield::engine::Engine;

use crate::naive::Naive;

/// An engine, and how much of the suite's variety to spend on it.
#[derive(Clone)]
pub struct Subject {
    pub engine: Arc<dyn Engine>,
    /// Every metric with every element type. Where each pair costs seconds of shader compilation, a chosen few.
    pub full: bool,
}

/// The references themselves.
pub fn references() -> Option<Subject> {
    Some(Subject { engine: Arc::new(Naive), full: true })
}

/// The engine that others are compared with.
pub fn peer() -> Arc<dyn Engine> {
    Arc::new(Naive)
}
