//! The maps that kernel and agent share.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, LruHashMap, RingBuf},
};
use ttmem_common::{
    control::CONTROL_WORDS,
    cpu_ring::{Chunk, CpuState},
    layout::{LayoutTable, MAX_SLOTS},
    loss::LOSS_STRIDE,
    python::PythonLayout,
    witness::{ROWS, WitnessRow},
};

/// By CPU: whose turn it is, and what becomes of its ring. The agent sets the size.
#[map]
pub static CPUS: Array<CpuState> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// The rings of all CPUs, one after the other: records on their way to the agent, which sets the size.
#[map]
pub static CHUNKS: Array<Chunk> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Records on their way to the agent that are in no CPU's own ring. The agent sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Call stacks on their way to the agent. The agent sets the size: the smallest if it wants none.
#[map]
pub static STACKS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// One layout per target.
#[map]
pub static LAYOUTS: Array<LayoutTable> = Array::with_max_entries(MAX_SLOTS, 0);

/// Where the target's interpreter keeps its frames, one per target.
#[map]
pub static PYTHON: Array<PythonLayout> = Array::with_max_entries(MAX_SLOTS, 0);

/// `ttmem_common::control`.
pub type ControlWords = [u64; CONTROL_WORDS as usize];

/// Words that the agent flips while probes run.
#[map]
pub static CONTROL: Array<ControlWords> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Lost records, by CPU and cause. An ordinary array, since the kernel maps no per-CPU one into the
/// agent's memory, which has to read it without any capability. The agent sets the size.
#[map]
pub static LOSS: Array<u64> = Array::with_max_entries(LOSS_STRIDE, BPF_F_MMAPABLE);

/// `ttmem_common::witness`: what happened, delivered or not. Mapped as [`LOSS`] is; the agent sets
/// the size.
#[map]
pub static WITNESS: Array<WitnessRow> = Array::with_max_entries(ROWS * MAX_SLOTS, BPF_F_MMAPABLE);

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

/// A direct-mapped cache. A collision only means that a pair is described once more. A pair can be found
/// here once its records have got their time, and `control::DESCRIBED` has grown.
#[map]
pub static KNOWN: Array<Known> = Array::with_max_entries(KNOWN_ENTRIES, 0);

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
