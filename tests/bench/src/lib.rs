//! How ttmem measures: several variants in turns, many short rounds, ratios formed inside a round.
//!
//! A shared machine is fast in one second and slow in the next, so a figure by itself says little.
//! What carries over is how it compares with its baseline measured a moment before or after.
//! [`group`] times code of one process; `cargo xtask bench` does the same with whole programs, by
//! the same [`stats`] and [`order`], and both end up as the same [`line`].
//! Nothing here decides whether a figure is good.

pub mod group;
pub mod line;
mod options;
pub mod order;
pub mod stats;

pub use group::{Bench, Group};
pub use line::Line;
