//! Loads the eBPF side, attaches it, drains its ring buffer. The only module that knows aya.

mod attacher;
mod btf;
mod cpu_rings;
#[cfg(test)]
mod fake;
mod load;
pub mod mappings;
mod merge;
mod multi;
mod perf;
mod records;
mod ring;
mod stacks;
pub mod support;

pub use attacher::{Attacher, Link};
pub use btf::{NO_THREADS, fs_base};
pub use load::{Kernel, KernelError, LoadOptions, StackOptions};
pub use records::Records;
pub use stacks::StackRecords;
