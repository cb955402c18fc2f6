//! ttmem: shows, live and exactly, what a running program does with the memory of its
//! Tenstorrent devices.

// Either panics where nobody reads: see `stderr` and `app/output.rs`.
#![cfg_attr(not(test), deny(clippy::print_stderr, clippy::print_stdout))]

pub mod app;
pub mod cli;
pub mod event;
pub mod fetch;
pub mod format;
pub mod history;
pub mod image;
pub mod kernel;
pub mod ledger;
pub mod missing;
pub mod pipeline;
pub mod resolve;
pub mod sink;
pub mod socket;
pub mod source;
pub mod stacks;
pub mod stderr;
pub mod table;
pub mod target;
#[cfg(feature = "tracy")]
pub mod tracy;
pub mod tui;
pub mod units;
pub mod witness;
pub mod words;

#[cfg(test)]
mod fixture;
