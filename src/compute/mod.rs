//! What computing consists of: values, programs over them, and backends that run programs. It knows no operation:
//! [`ops`](crate::ops) has the list of those.

pub mod backend;
pub mod codes;
mod error;
pub mod lists;
pub mod program;
pub mod value;
pub(crate) mod wait;

pub use backend::{Answer, Backend, Capabilities, Kind, Pending, Room};
pub use error::{EngineError, room};
pub use program::{Cost, Frame, Operation, Place, Program};
pub use value::{Array, Candidates, Function, Input, Known, Mask, Output, Tag, Type, Value, Vectors};
