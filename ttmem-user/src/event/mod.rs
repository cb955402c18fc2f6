//! Bytes of a record → [`Event`], a fact seen in the target.
//!
//! An unknown kind or a short record is an error, never a guess.

mod baseline;
mod circular;
mod decode;
mod failure;
mod resize;
mod shared;
mod types;

pub use baseline::{BaselineBuffer, FreeListSeen, LiveBaseline, SweptBuffer};
pub use circular::{CircularBuffer, CircularKind, CircularPlaced, CoreRange, Dispatched, Place};
pub use decode::{Ahead, DecodeError, Decoded, Fact, Seen, decode, decode_with, look_ahead, seen};
pub(crate) use decode::{geometry, sharded_shape};
pub use failure::{AllocationFailed, FailureNumbers, FailurePlace};
pub use resize::Resized;
pub use shared::{SHARED_TYPES, SharedBytes, SharedFile, SharedTotals};
pub use types::{
    Allocated, AllocatorSeen, BufferShape, BufferType, Described, DeviceSeen, Event, Freed,
    Geometry, Spread,
};
