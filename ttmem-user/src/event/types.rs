//! Decoded facts.

use serde::Serialize;
use ttmem_common::layout::BUFFER_TYPES;

use crate::units::{Avma, ChipId, DeviceAddr, MeshId, Tid};

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
    pub const ALL: [Self; BUFFER_TYPES] =
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

/// A fact seen in the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A buffer has been allocated.
    Allocated(Allocated),
    /// A buffer is being freed.
    Freed(Freed),
    /// Every live buffer of one allocator is gone.
    BulkFreed {
        /// `AllocatorImpl*`.
        allocator: Avma,
    },
    /// Which chips a device pointer stands for.
    Device(DeviceSeen),
    /// The geometry of an allocator's pools.
    Allocator(AllocatorSeen),
}

/// A buffer has been allocated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocated {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// The allocating thread.
    pub tid: Tid,
    /// `Buffer*`: names the buffer until it is freed.
    pub buffer: Avma,
    /// `AllocatorImpl*`.
    pub allocator: Avma,
    /// `IDevice*`.
    pub device: Avma,
    /// What was allocated.
    pub shape: BufferShape,
}

/// What identifies and measures a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferShape {
    /// Process-wide unique id; `None` in versions that do not expose it.
    pub unique_id: Option<u64>,
    /// Buffer type.
    pub buffer_type: BufferType,
    /// Address on the device.
    pub address: DeviceAddr,
    /// Logical size, bytes.
    pub size: u64,
    /// Page size, bytes.
    pub page_size: u64,
    /// How its pages spread over the banks.
    pub spread: Spread,
}

/// How a buffer's pages spread over the banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Evenly over all banks of the pool.
    Interleaved,
    /// Sharded: this many pages on each bank that holds a shard.
    PagesPerBank(u64),
    /// Sharded in a way that could not be decoded.
    Unknown,
}

/// A buffer is being freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freed {
    /// `Buffer*`.
    pub buffer: Avma,
    /// `AllocatorImpl*`.
    pub allocator: Avma,
    /// What it was, while the live buffers from before the attach are not known.
    pub described: Option<Described>,
}

/// What a free says of a buffer whose allocation was not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// `IDevice*`.
    pub device: Avma,
    /// Buffer type.
    pub buffer_type: BufferType,
}

/// Which chips a device pointer stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSeen {
    /// `IDevice*`.
    pub device: Avma,
    /// The mesh, unless it is a single device.
    pub mesh: Option<MeshId>,
    /// Its chips; empty if the object is of no known class.
    pub chips: Vec<ChipId>,
}

/// The geometry of an allocator's pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatorSeen {
    /// `AllocatorImpl*`.
    pub allocator: Avma,
    /// `IDevice*` that it belongs to.
    pub device: Avma,
    /// By buffer type.
    pub pools: [Option<Geometry>; BUFFER_TYPES],
}

/// Geometry of one pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of one bank.
    pub bank_size: u64,
    /// Number of banks; 0 if the pool has no memory.
    pub banks: u32,
    /// Alignment of pages, bytes; at least 1 if there are banks.
    pub alignment: u32,
}

impl Geometry {
    /// Bytes of the whole pool.
    pub fn capacity(&self) -> u64 {
        self.bank_size.saturating_mul(u64::from(self.banks))
    }

    /// What a buffer takes of each bank, as `calculate_bank_size_spread()` and then the free list
    /// compute it; `None` if that is no number of bytes that a bank could have.
    pub fn bank_bytes(&self, shape: &BufferShape) -> Option<u64> {
        if self.banks == 0 {
            return None;
        }
        let alignment = u64::from(self.alignment);
        let pages = match shape.spread {
            Spread::PagesPerBank(pages) => pages,
            Spread::Unknown => return None,
            Spread::Interleaved => {
                let pages = shape.size.checked_div(shape.page_size).unwrap_or(0);
                pages.div_ceil(u64::from(self.banks))
            }
        };
        let page = shape.page_size.checked_next_multiple_of(alignment)?;
        // The free list hands out at least one aligned unit.
        pages.checked_mul(page)?.max(alignment).checked_next_multiple_of(alignment)
    }
}
