//! The maps that kernel and agent share.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray, RingBuf},
};
use ttmem_common::{
    control::CONTROL_WORDS,
    layout::{LayoutTable, MAX_SLOTS, MAX_SPAN},
    loss::LOSS_STRIDE,
    witness::WitnessRow,
};

/// Records on their way to the agent. The agent sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Call stacks on their way to the agent. The agent sets the size: the smallest if it wants none.
#[map]
pub static STACKS: RingBuf = RingBuf::with_byte_size(4096, 0);

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

/// `ttmem_common::witness`: what happened, delivered or not. Mapped as [`LOSS`] is; the agent sets
/// the size.
#[map]
pub static WITNESS: Array<WitnessRow> = Array::with_max_entries(MAX_SLOTS, BPF_F_MMAPABLE);

/// Number of words of a [`Span`]; a power of two.
pub const SPAN_WORDS: usize = MAX_SPAN as usize / 8;

/// Room for what is read of a buffer, where the stack has none.
#[repr(C)]
pub struct Span {
    /// Not 0 while a program of this CPU uses it.
    pub in_use: u64,
    /// Not 0 if the last buffer that this CPU has seen being allocated was sharded.
    pub sharded: u64,
    /// What was read.
    pub words: [u64; SPAN_WORDS],
}

/// One on each CPU.
#[map]
pub static SPAN: PerCpuArray<Span> = PerCpuArray::with_max_entries(1, 0);

/// A device and allocator that the agent has been told about.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Known {
    /// `IDevice*`.
    pub device: u64,
    /// `AllocatorImpl*`.
    pub allocator: u64,
    /// Process.
    pub tgid: u32,
    /// How often all had been forgotten before.
    pub forgotten: u32,
}

/// Number of entries of [`KNOWN`]; a power of two.
pub const KNOWN_ENTRIES: u32 = 512;

/// A direct-mapped cache. A collision only means that a pair is described once more.
#[map]
pub static KNOWN: Array<Known> = Array::with_max_entries(KNOWN_ENTRIES, 0);

/// One word: how many pairs have got into [`KNOWN`], and in the upper half how often all of them have
/// been forgotten. Grows when their records have been reserved, and before they can be found there.
#[map]
pub static DESCRIBED: Array<u64> = Array::with_max_entries(1, 0);

/// The program whose circular or dataflow buffers a thread places.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Placing {
    /// `ProgramImpl*`.
    pub program: u64,
    /// `IDevice*` that it places them on.
    pub device: u64,
    /// When it began, CLOCK_MONOTONIC nanoseconds.
    pub batch: u64,
    /// 0 or `FLAG_DATAFLOW`.
    pub flags: u64,
}

/// By process and thread. The oldest goes when it is full; what its thread places then has no
/// program, and the agent says so.
#[map]
pub static PLACING: LruHashMap<u64, Placing> = LruHashMap::with_max_entries(4096, 0);
