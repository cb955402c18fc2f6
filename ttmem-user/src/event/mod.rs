//! Bytes of a record → [`Event`], a fact seen in the target.
//!
//! An unknown kind or a short record is an error, never a guess.

mod types;

pub use types::BufferType;
