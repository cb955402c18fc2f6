//! Loads the eBPF side, attaches it, drains its ring buffer. The only module that knows aya.

mod load;
mod multi;
mod perf;
mod ring;
mod shared_words;
pub mod support;

pub use load::{Kernel, KernelError, Link, LoadOptions};
use ring::Ring;
