//! The maps that kernel and agent share.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, RingBuf},
};
use ttmem_common::{
    control::CONTROL_WORDS,
    layout::{LayoutTable, MAX_SLOTS},
    loss::LOSS_STRIDE,
};

/// Records on their way to the agent. The agent sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// One layout per target.
#[map]
pub static LAYOUTS: Array<LayoutTable> = Array::with_max_entries(MAX_SLOTS, 0);

/// `ttmem_common::control`: words that the agent flips while probes run.
#[map]
pub static CONTROL: Array<u32> = Array::with_max_entries(CONTROL_WORDS, BPF_F_MMAPABLE);

/// Lost records, by CPU and cause. An ordinary array, since the kernel maps no per-CPU one into the
/// agent's memory, which has to read it without any capability. The agent sets the size.
#[map]
pub static LOSS: Array<u64> = Array::with_max_entries(LOSS_STRIDE, BPF_F_MMAPABLE);

/// A device and allocator that the agent has been told about.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Known {
    /// `IDevice*`.
    pub device: u64,
    /// `AllocatorImpl*`.
    pub allocator: u64,
    /// Process.
    pub tgid: u64,
}

/// Number of entries of [`KNOWN`]; a power of two.
pub const KNOWN_ENTRIES: u32 = 512;

/// A direct-mapped cache. A collision only means that a pair is described once more.
#[map]
pub static KNOWN: Array<Known> = Array::with_max_entries(KNOWN_ENTRIES, 0);
