//! A client of Tracy's protocol of our own: the times, threads and call stacks are the target's.
//!
//! What a viewer asks for is answered from a registry of names; the C++ client reads its own
//! memory instead, at whatever address it is asked for.

pub mod encoder;
pub mod handshake;
mod lz4;
pub mod peer;
pub mod port;
pub mod protocol;
pub mod serve;
pub mod session;
pub mod stacks;
