//! Lines for people, on standard error.
//!
//! Invariant: that one cannot be written, to a pipe that nobody reads, a terminal that is gone or a
//! full disk, ends nothing: there is no better place to say so.

use std::{
    fmt,
    io::{self, Write as _},
};

/// Writes a line to standard error, if that is possible. Arguments as of `format!`.
macro_rules! remark {
    ($($argument:tt)*) => { $crate::stderr::line(format_args!($($argument)*)) };
}
pub(crate) use remark;

/// The same of what has been formatted already.
pub fn line(text: fmt::Arguments<'_>) {
    // In one write: other threads and other programs write there, too.
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}
