//! Decoded facts.

use serde::Serialize;

/// `tt::tt_metal::BufferType`, in its numbering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum BufferType {
    /// Off-chip memory.
    Dram = 0,
    /// On-chip memory of the worker cores.
    L1 = 1,
    /// Host memory that the device can reach.
    SystemMemory = 2,
    /// The part of L1 set aside for small buffers.
    L1Small = 3,
    /// The part of DRAM set aside for traces.
    Trace = 4,
}

impl BufferType {
    /// Every type, in numeric order.
    pub const ALL: [Self; ttmem_common::layout::BUFFER_TYPES] =
        [Self::Dram, Self::L1, Self::SystemMemory, Self::L1Small, Self::Trace];

    /// The type of a number; `None` if tt-metal has grown one that is not known here.
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(raw).ok()?).copied()
    }

    /// Index in per-type arrays.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// tt-metal's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dram => "DRAM",
            Self::L1 => "L1",
            Self::SystemMemory => "SYSTEM_MEMORY",
            Self::L1Small => "L1_SMALL",
            Self::Trace => "TRACE",
        }
    }
}

impl Serialize for BufferType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
