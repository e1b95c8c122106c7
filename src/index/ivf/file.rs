//! Ivf files.
