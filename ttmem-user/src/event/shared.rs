//! What tt-metal's shared memory says of a chip, as it was read.

use crate::units::{ChipId, Pid};

/// The buffer types that tt-metal keeps totals of, in the order of its fields.
pub const SHARED_TYPES: [super::BufferType; 4] = [
    super::BufferType::Dram,
    super::BufferType::L1,
    super::BufferType::L1Small,
    super::BufferType::Trace,
];

/// Bytes by [`SHARED_TYPES`].
pub type SharedBytes = [u64; SHARED_TYPES.len()];

/// One file of shared memory that the target has mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedFile {
    /// Its name in `/dev/shm`.
    pub name: String,
    /// What it says, or why it was refused.
    pub totals: Result<SharedTotals, String>,
}

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedTotals {
    /// The chip, as the target numbers it.
    pub chip: ChipId,
    /// The target's process id, as it knows itself.
    pub own_pid: Pid,
    /// What the target's entry says, bytes; `None` if it has none.
    pub own: Option<SharedBytes>,
    /// The file's totals, of all processes, bytes.
    pub all: SharedBytes,
    /// What entries of processes say that have ended, bytes; `None` if that cannot be told from
    /// here.
    pub ended: Option<SharedBytes>,
}
