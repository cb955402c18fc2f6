//! The comparison as it is shown.

use serde::Serialize;

use crate::{event::BufferType, units::ChipId};

/// Three witnesses side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditSnapshot {
    /// Readings that were compared.
    pub compared: u64,
    /// Readings that were not, because events came meanwhile.
    pub busy: u64,
    /// When the last one was compared, CLOCK_MONOTONIC nanoseconds.
    pub last_ns: Option<u64>,
    /// Why no file of shared memory was read; `None` if one was.
    pub shm_unknown_because: Option<String>,
    /// By chip, then type.
    pub rows: Vec<AuditRow>,
}

/// What is said of one buffer type on one chip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditRow {
    /// Id of the chip.
    pub chip: ChipId,
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// What the probes say: sum of `Buffer::size()`, bytes.
    pub probes_logical_bytes: u64,
    /// What the allocators hold in memory: the same sum, bytes.
    pub memory_logical_bytes: u64,
    /// What tt-metal's shared memory says of this process, bytes.
    pub shm_bytes: Option<u64>,
    /// Why that is not known.
    pub shm_unknown_because: Option<String>,
    /// What it says of all processes together, bytes.
    pub shm_all_bytes: Option<u64>,
    /// Of these, what processes hold that have ended, bytes.
    pub shm_ended_bytes: Option<u64>,
    /// What follows.
    pub verdict: Verdict,
    /// The likely reason of what is odd; `None` if nothing is.
    pub likely_reason: Option<String>,
}

/// What follows from the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All three say the same.
    Agree,
    /// The first two say the same, and the third is not known.
    AgreeWithoutShm,
    /// They differ, and a second reading has not shown the same difference yet.
    Unconfirmed,
    /// They differ, in the same way at two readings.
    Differ,
}

impl Verdict {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Agree => "agree",
            Self::AgreeWithoutShm => "agree (2 of 3)",
            Self::Unconfirmed => "unconfirmed",
            Self::Differ => "differ",
        }
    }
}
