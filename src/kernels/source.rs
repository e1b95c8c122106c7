//! From a [`Kernel`] and a [`Variant`](super::Variant) to the WGSL text that a device compiles.
