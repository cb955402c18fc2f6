//! ttmem: shows, live and exactly, what a running program does with the memory of its
//! Tenstorrent devices.

pub mod event;
pub mod ledger;
pub mod resolve;
pub mod target;
pub mod tui;
pub mod units;
