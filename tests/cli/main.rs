//! The program as its users see it: what it writes, what it says, how it ends.

#![allow(missing_docs)]

mod answers;
mod bad_input;
mod bench;
mod compressed;
mod kmeans;
mod map;
#[cfg(unix)]
mod outputs;
mod sandbox;
mod shaders;
mod shows;
