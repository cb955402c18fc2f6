//! The part of a snapshot that circular and dataflow buffers make up.
//!
//! An unknown number is `None` (JSON `null`), never 0, and a sentence beside it says why.

use serde::Serialize;

use crate::{
    event::{CircularKind, CoreRange},
    units::{Avma, ChipId, DeviceAddr, Tid},
};

/// What programs keep in the L1 of one chip.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CircularSnapshot {
    /// Why not all programs are known; `None`: they are.
    pub unknown_because: Option<String>,
    /// Programs with buffers on this chip that were seen being placed.
    pub programs: u64,
    /// Their circular and dataflow buffers on this chip with memory of their own.
    pub buffers: u64,
    /// Of all programs, the most that one keeps on one core, bytes.
    pub core_bytes: Option<u64>,
    /// The same of the programs that were seen, bytes: `core_bytes` is no less.
    pub seen_core_bytes: u64,
    /// Highest `core_bytes` so far, bytes.
    pub peak_core_bytes: Option<u64>,
    /// What the L1 of a core has for buffers, bytes. Compares with `core_bytes`.
    pub core_capacity_bytes: Option<u64>,
    /// The program with the most on one core, of those that were seen; its `ProgramImpl*`.
    pub largest_program: Option<Avma>,
    /// What lies between circular buffers and tensors.
    pub headroom: Headroom,
    /// What was dispatched; `None` unless that is watched.
    pub dispatches: Option<Dispatches>,
}

/// The room between the end of circular buffers, which grow up, and tensors in L1, which grow
/// down. tt-metal throws when a program's buffers would reach into a tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Headroom {
    /// Lowest address of a tensor minus highest end of a circular buffer, bytes; negative: the
    /// program cannot run while that tensor is there.
    pub bytes: Option<i64>,
    /// Why it is not known.
    pub unknown_because: Option<String>,
    /// How it stands.
    pub state: Option<HeadroomState>,
    /// Highest end of a circular or dataflow buffer with memory of its own, of the programs that
    /// were seen.
    pub circular_end: Option<DeviceAddr>,
    /// The program that it belongs to; its `ProgramImpl*`.
    pub program: Option<Avma>,
    /// Lowest address of a live buffer in L1.
    pub lowest_buffer: Option<DeviceAddr>,
    /// That buffer's `Buffer::unique_id()`.
    pub buffer_unique_id: Option<u64>,
}

/// How near circular buffers and tensors are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadroomState {
    /// There is room.
    Ok,
    /// Less than a tenth of what a core has.
    Low,
    /// A program's buffers lie where a tensor is: it cannot run now.
    Clash,
}

/// What was dispatched on one chip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dispatches {
    /// Programs dispatched since the attach.
    pub count: u64,
    /// The last one; its `ProgramImpl*`.
    pub last_program: Option<Avma>,
    /// When that was, CLOCK_MONOTONIC nanoseconds.
    pub last_ns: Option<u64>,
}

/// A program that keeps circular or dataflow buffers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramSnapshot {
    /// Its `ProgramImpl*`: names it until it is gone.
    pub program: Avma,
    /// The chips that it keeps the same buffers on.
    pub chips: Vec<ChipId>,
    /// The thread that placed them.
    pub tid: Tid,
    /// When the first was placed, CLOCK_MONOTONIC nanoseconds.
    pub placed_ns: u64,
    /// What it keeps on the core with the most, bytes.
    pub core_bytes: Option<u64>,
    /// What it keeps on all cores of a chip, bytes.
    pub chip_bytes: Option<u64>,
    /// Cores of a chip that it keeps something on.
    pub cores: Option<u64>,
    /// Where the highest of its buffers ends.
    pub end: Option<DeviceAddr>,
    /// How often it was dispatched since; `None` unless that is watched.
    pub dispatches: Option<u64>,
    /// Its buffers, in the order in which they were placed.
    pub buffers: Vec<CircularBufferSnapshot>,
}

/// A circular or dataflow buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CircularBufferSnapshot {
    /// What it is.
    pub kind: CircularKind,
    /// Address on each of its cores.
    pub address: DeviceAddr,
    /// Bytes on each of its cores.
    pub size: u64,
    /// Its cores; `None` if they could not be listed.
    pub cores: Option<Vec<CoreRange>>,
}
