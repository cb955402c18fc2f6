//! A small symbolic executor for accessor functions.
//!
//! It follows every path of a function as far as the path is short, and says what the function
//! returns in terms of its arguments and of memory. What it does not understand becomes an opaque
//! value that equals nothing else: a matcher can then only refuse, never mistake it.
//!
//! Invariant: it terminates on any bytes, and never reads outside of the image.

pub mod exec;
pub mod expr;
mod flags;
pub mod returns;
mod semantics;
mod state;

pub use returns::{name_of as callee_name, never_returns};
