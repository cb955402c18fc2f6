//! What the end-to-end tests share: running ttmem, and the programs that it watches.
//!
//! `cargo xtask test` sets the environment up and runs them; without it every test skips itself,
//! and says so.

pub mod alone;
pub mod asking;
pub mod failure;
pub mod interpreters;
pub mod programs;
pub mod readers;
pub mod real;
pub mod refusal;
pub mod sharing;
pub mod shown;
pub mod skip;
pub mod space;
pub mod stacks;
pub mod standin;
pub mod table;
pub mod terminal;
pub mod tracy;
pub mod ttmem;
pub mod until;
