//! The socket beside the shared table: questions about one target, answered line by line.
//!
//! A thread of its own serves all targets. It asks the pipeline for what it does not know, which
//! answers at its own pace, and shares one answer among all who wait for it. Nothing here can hold up
//! the drain: a subscriber that does not keep up is cut off.
//! `docs/socket.md` is what it promises.

mod answer;
pub mod client;
mod connection;
mod filter;
mod line;
mod peer;
mod places;
mod request;
mod server;
mod source;
mod subscription;

pub use peer::Allowed;
pub use server::{End, NewSocket, Server};
pub use source::FillIn;

/// The name of a process's socket.
pub fn file_name(pid: u32) -> String {
    format!("{pid}.sock")
}

#[cfg(test)]
mod tests;
