//! An immutable view of the ledger at one instant. Everything that is shown is made from it.
//!
//! Serialised as it stands, it is the JSON schema `ttmem.snapshot/1`. An unknown number is
//! `None` (JSON `null`), never 0.

use std::sync::Arc;

use serde::Serialize;

pub use super::audit::snapshot::{AuditRow, AuditSnapshot, Verdict};
use super::call::{Call, Lookup, StackCounts};
pub use super::circular::snapshot::{
    CircularBufferSnapshot, CircularSnapshot, Dispatches, Headroom, HeadroomState, ProgramSnapshot,
};
pub use super::failure_view::{FAILURE_SCHEMA, Failure, FailureLine, FailuresSnapshot};
pub use super::space_view::{BlockSnapshot, SpaceSnapshot};
pub use crate::missing::{Lost, Unresolved};
use crate::{
    event::BufferType,
    units::{ChipId, DeviceAddr, MeshId, Pid, Tid},
    witness::Witness,
};

/// Name and version of the JSON schema.
pub const SCHEMA: &str = "ttmem.snapshot/1";

/// The state of one target at one instant.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Snapshot {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// CLOCK_MONOTONIC, nanoseconds; every event up to it is included.
    pub time_ns: u64,
    /// The number of the last change that is in it; 0 if nobody follows the changes.
    #[serde(skip)]
    pub last_delta: u64,
    /// If there are only totals, as in a shared table: of the rest nothing is known.
    #[serde(skip)]
    pub totals_only: Option<TotalsOnly>,
    /// The target.
    pub pid: Pid,
    /// What else is known of the process.
    pub process: Arc<ProcessLabel>,
    /// Whether the target still runs.
    pub state: TargetState,
    /// Whether every number is known to equal the allocator's own: baseline read, nothing lost,
    /// nothing unresolved that could hide an allocation.
    pub exact: bool,
    /// Why it is not exact, one short sentence each; empty when exact.
    pub inexact_because: Vec<String>,
    /// Records that could not be delivered.
    pub lost: Lost,
    /// What the probes counted before anything could be lost; `None` if nothing is attached.
    pub witness: Option<WitnessSnapshot>,
    /// Events that disagree with what was known.
    pub anomalies: Anomalies,
    /// Live buffers whose block was given back by the late free of another, so far: tt-metal counts
    /// them no more, and may give their memory to others.
    pub taken_blocks: u64,
    /// Readings of the target's memory after the first.
    pub resync: ResyncSnapshot,
    /// What the probes, the allocators and tt-metal's shared memory say, side by side, when asked
    /// for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditSnapshot>,
    /// What could not be resolved in the target, and why.
    pub unresolved: Vec<Unresolved>,
    /// Allocations that failed for want of memory.
    pub failures: FailuresSnapshot,
    /// What has become of the call stacks; `None` if they are not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stacks: Option<StackCounts>,
    /// Chips in id order, pools in buffer type order; empty pools included.
    pub devices: Vec<ChipSnapshot>,
    /// What each allocator has free, by allocator, then buffer type.
    pub allocators: Vec<SpaceSnapshot>,
    /// The live set, when asked for; by unique id, then address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffers: Option<Vec<BufferSnapshot>>,
    /// The programs with circular or dataflow buffers, when asked for; by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub programs: Option<Vec<ProgramSnapshot>>,
}

impl Snapshot {
    /// Events that disagreed with what was known, of any kind.
    pub fn anomaly_count(&self) -> u64 {
        self.totals_only.map_or_else(|| self.anomalies.total(), |only| only.anomalies)
    }
}

/// What stands for the details that there are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TotalsOnly {
    /// Events that disagreed with what was known, of any kind.
    pub anomalies: u64,
}

/// What a snapshot holds beyond the totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// The live set.
    pub buffers: bool,
    /// Every block of every bank.
    pub map: bool,
    /// The programs with circular or dataflow buffers; they come with the live set, too.
    pub programs: bool,
}

impl Detail {
    /// What either has.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            buffers: self.buffers || other.buffers,
            map: self.map || other.map,
            programs: self.programs || other.programs,
        }
    }
}

/// Whether the target still runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetState {
    /// It runs.
    Running,
    /// It has exited; the snapshot is its last state.
    Exited,
    /// It runs another program (exec); the snapshot is the last state of the one watched.
    Replaced,
}

/// What is known of a target's process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessLabel {
    /// Number of the target among all that this program has watched, or read of: a pid may come
    /// again.
    #[serde(skip)]
    pub serial: u64,
    /// Its process id.
    #[serde(skip)]
    pub pid: Pid,
    /// Its command line.
    pub command: String,
    /// Its process id in its own pid namespace; `None` if that is the same one.
    pub namespace_pid: Option<Pid>,
    /// Its tt-metal library, as the process sees it.
    pub library: Option<String>,
    /// The library's build id.
    pub build_id: Option<String>,
}

impl ProcessLabel {
    /// A process of which nothing but the id is known.
    pub fn of_pid(pid: Pid) -> Self {
        Self { pid, ..Self::default() }
    }
}

/// What the probes counted in the kernel, before they tried to deliver a record: it is right
/// whatever was lost. A hit that is under way may be counted here and not be applied yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WitnessSnapshot {
    /// Allocations by buffer type, each once however many chips it lies on.
    pub allocations: Vec<WitnessRow>,
    /// Allocations whose fields could not be read, or of a type that is not known.
    pub unread_allocations: u64,
    /// Frees of single buffers.
    pub frees: u64,
    /// Frees of all buffers of an allocator.
    pub bulk_frees: u64,
}

/// The allocations of one type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WitnessRow {
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// Allocations.
    pub count: u64,
    /// Sum of their logical sizes (`Buffer::size()`), bytes.
    pub logical_bytes: u64,
}

impl WitnessSnapshot {
    pub(super) fn of(witness: &Witness) -> Self {
        let row = |buffer_type: BufferType| WitnessRow {
            buffer_type,
            count: witness.allocations[buffer_type.index()],
            logical_bytes: witness.bytes[buffer_type.index()],
        };
        Self {
            allocations: BufferType::ALL.map(row).to_vec(),
            unread_allocations: witness.unread_allocations,
            frees: witness.frees,
            bulk_frees: witness.bulk_frees,
        }
    }
}

/// Events that disagree with what was known, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Anomalies {
    /// A free of a buffer that was not known to be live; nothing was subtracted.
    pub unknown_free: u64,
    /// An allocation of a buffer that was still live; the older one was taken as freed.
    pub double_allocation: u64,
    /// A record that could not be decoded.
    pub undecodable: u64,
    /// A buffer read from memory whose bytes per bank are not what its fields say.
    pub size_mismatch: u64,
    /// A buffer that overlapped a live one of the same allocator, or left its bank.
    pub overlap: u64,
    /// A free list in the target's memory that is not what the live buffers leave.
    pub free_list_mismatch: u64,
    /// A live buffer found in memory whose allocation had not been seen.
    pub missed_allocation: u64,
    /// A buffer that was taken as live and was not there any more.
    pub missed_free: u64,
    /// A live buffer that was not what was known of it.
    pub changed: u64,
}

/// Readings of the target's memory after the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResyncSnapshot {
    /// Readings that were compared with what was known.
    pub done: u64,
    /// Readings that failed.
    pub failed: u64,
    /// When the last one was compared, CLOCK_MONOTONIC nanoseconds.
    pub last_ns: Option<u64>,
    /// What differed in the last one; the sums over all are among the anomalies.
    pub last_differences: Option<Differences>,
}

/// What the probes said and the target's memory does not, or the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Differences {
    /// Live in memory, not known.
    pub missed_allocation: u64,
    /// Known as live, not in memory.
    pub missed_free: u64,
    /// Live in both, but not alike.
    pub changed: u64,
}

impl Differences {
    /// Sum over all kinds.
    pub const fn total(&self) -> u64 {
        self.missed_allocation + self.missed_free + self.changed
    }
}

impl Anomalies {
    /// Sum over all kinds.
    pub const fn total(&self) -> u64 {
        self.unknown_free
            + self.double_allocation
            + self.undecodable
            + self.size_mismatch
            + self.overlap
            + self.free_list_mismatch
            + self.differences()
    }

    /// Live buffers that a reading found other than they were known.
    pub const fn differences(&self) -> u64 {
        self.missed_allocation + self.missed_free + self.changed
    }

    /// What was counted since `earlier`.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            unknown_free: self.unknown_free.saturating_sub(earlier.unknown_free),
            double_allocation: self.double_allocation.saturating_sub(earlier.double_allocation),
            undecodable: self.undecodable.saturating_sub(earlier.undecodable),
            size_mismatch: self.size_mismatch.saturating_sub(earlier.size_mismatch),
            missed_allocation: self.missed_allocation.saturating_sub(earlier.missed_allocation),
            missed_free: self.missed_free.saturating_sub(earlier.missed_free),
            changed: self.changed.saturating_sub(earlier.changed),
            overlap: self.overlap.saturating_sub(earlier.overlap),
            free_list_mismatch: self.free_list_mismatch.saturating_sub(earlier.free_list_mismatch),
        }
    }
}

/// One chip.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChipSnapshot {
    /// Its id.
    pub chip: ChipId,
    /// Its pools.
    pub pools: Vec<PoolSnapshot>,
    /// What programs keep in its L1.
    pub circular: CircularSnapshot,
}

/// One pool: the memory of one buffer type on one chip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolSnapshot {
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// Live buffers.
    pub buffers: u64,
    /// Sum of their logical sizes (`Buffer::size()`), bytes.
    pub logical_bytes: u64,
    /// Sum of what they take of each bank, bytes; `None` too if the banks differ.
    pub bank_bytes: Option<u64>,
    /// Banks of the pool.
    pub banks: Option<u32>,
    /// What they take of the pool: per bank × banks that they lie on, bytes. Compares with `capacity_bytes`.
    pub used_bytes: Option<u64>,
    /// Size of the pool: bank size × banks, bytes.
    pub capacity_bytes: Option<u64>,
    /// Highest `used_bytes` so far, bytes; `None` if it may have been missed, after a loss or with a
    /// buffer of unknown size.
    pub peak_used_bytes: Option<u64>,
    /// `used_bytes` has certainly been as high as this, bytes.
    pub peak_at_least_bytes: Option<u64>,
    /// Allocations seen.
    pub allocations: u64,
    /// Frees seen of buffers whose allocation was seen, bulk frees included.
    pub frees: u64,
    /// Frees seen of buffers that were allocated before the attach.
    pub pre_attach_frees: u64,
}

/// One live buffer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BufferSnapshot {
    /// `Buffer::unique_id()`; `None` in versions that do not expose it.
    pub unique_id: Option<u64>,
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// Address, the same on every chip and bank it lies on, but with `cores`: the first core's.
    pub address: DeviceAddr,
    /// Logical size, bytes.
    pub size: u64,
    /// Page size, bytes.
    pub page_size: u64,
    /// What it takes of each bank that it lies on, bytes.
    pub bank_bytes: Option<u64>,
    /// The number of cores whose banks it lies on, each at an address of its own; `None`: it lies on
    /// every bank, at one address.
    pub cores: Option<u32>,
    /// The chips it lies on.
    pub chips: Vec<ChipId>,
    /// The mesh it was allocated on; `None` for a single device.
    pub mesh: Option<MeshId>,
    /// The thread that allocated it; `None` if that was before the attach.
    pub tid: Option<Tid>,
    /// When it was allocated, CLOCK_MONOTONIC nanoseconds; `None` if that was before the attach.
    pub allocated_ns: Option<u64>,
    /// Whether it was allocated before the attach.
    pub pre_attach: bool,
    /// What called for it; `None` if call stacks are not recorded.
    #[serde(flatten)]
    pub call: Option<Call>,
}

impl BufferSnapshot {
    /// Looks up what called for it.
    pub fn look_up(&mut self, known: &dyn Lookup) {
        self.call = Some(known.call(self.tid, self.allocated_ns, self.pre_attach));
    }
}
