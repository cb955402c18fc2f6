//! The shared table: what the agent writes and any process reads, without a system call.
//!
//! Layout and words are those of [`ttmem_common::table`]. `directory` says where the files are and
//! who may read them, `writer` fills one, `reader` reads one.
//!
//! Invariant: no reader can make the agent wait, or change what it writes: it only ever stores.

pub mod access;
pub mod agent;
pub mod device;
pub mod directory;
pub mod left_behind;
pub mod reader;
mod shape;
pub mod view;
pub mod writer;

#[cfg(test)]
mod tests;
