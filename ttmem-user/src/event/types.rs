//! Decoded facts.

use serde::Serialize;
use ttmem_common::layout::BUFFER_TYPES;

use super::{
    circular::{CircularPlaced, Dispatched},
    failure::AllocationFailed,
    resize::Resized,
};
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
    /// The geometry of an allocator's pools. In a box, as all that is large and rare: events are
    /// moved about.
    Allocator(Box<AllocatorSeen>),
    /// An allocator gives a part of its banks away.
    Resized(Resized),
    /// An allocation has failed for want of memory.
    Failed(Box<AllocationFailed>),
    /// A circular or dataflow buffer has got its place.
    Circular(CircularPlaced),
    /// A program is gone, with its circular and dataflow buffers.
    ProgramEnded {
        /// `ProgramImpl*`.
        program: Avma,
    },
    /// A program is dispatched.
    Dispatched(Dispatched),
}

const _: () = assert!(size_of::<Event>() <= 112);

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
    /// Sharded, with an address of its own on each of some cores: it takes a block of their banks,
    /// and none of the others.
    PerCore {
        /// Pages on each of these banks.
        pages: u32,
        /// The number of these cores, and so of their banks; never 0.
        cores: u32,
    },
    /// The same, but of how many cores could not be read.
    PerUnknownCore,
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
    /// Address on the device.
    pub address: DeviceAddr,
    /// Whether each of its cores has an address of its own.
    pub per_core: bool,
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
    /// Alignment of pages, bytes, as the pool's manager has it; a power of two if there are banks.
    pub alignment: u32,
    /// Least bytes of a block of the free list.
    pub block_minimum: u32,
    /// What the bytes of a block are rounded up to; 0 if not known.
    pub block_unit: u32,
    /// Address of the first byte of each bank that can be allocated, if known.
    pub base: Option<DeviceAddr>,
}

impl Geometry {
    /// Bytes of the whole pool.
    pub fn capacity(&self) -> u64 {
        self.bank_size.saturating_mul(u64::from(self.banks))
    }

    /// What a buffer takes of each bank that it lies on, in bytes: its pages there, each aligned as
    /// the pool aligns pages, then rounded up to a block of the free list. `None` if that is not
    /// known, or no number of bytes that a bank could have.
    ///
    /// Follows `calculate_bank_size_spread()` and `FreeListOpt::allocate()`.
    #[inline]
    pub fn bank_bytes(&self, shape: &BufferShape) -> Option<u64> {
        if self.banks == 0 || self.block_unit == 0 {
            return None;
        }
        let pages = match shape.spread {
            Spread::PagesPerBank(pages) => pages,
            Spread::PerCore { pages, .. } => u64::from(pages),
            Spread::PerUnknownCore | Spread::Unknown => return None,
            Spread::Interleaved => {
                let pages = whole_pages(shape.size, shape.page_size);
                pages.div_ceil(u64::from(self.banks))
            }
        };
        let page = next_multiple(shape.page_size, self.alignment)?;
        let block = pages.checked_mul(page)?.max(u64::from(self.block_minimum));
        next_multiple(block, self.block_unit)
    }

    /// How many banks a buffer takes a block of. `None` if that is not known, or more than there
    /// are.
    pub fn banks_of(&self, spread: Spread) -> Option<u32> {
        match spread {
            Spread::Interleaved | Spread::PagesPerBank(_) => Some(self.banks),
            Spread::PerCore { cores, .. } => (cores <= self.banks).then_some(cores),
            Spread::PerUnknownCore | Spread::Unknown => None,
        }
    }
}

/// The number of pages of a size that is nearly always a power of two: then without a division.
#[inline]
fn whole_pages(size: u64, page_size: u64) -> u64 {
    if page_size.is_power_of_two() {
        return size >> page_size.trailing_zeros();
    }
    size.checked_div(page_size).unwrap_or(0)
}

/// The next multiple of a unit that is nearly always a power of two: then without a division.
#[inline]
fn next_multiple(number: u64, unit: u32) -> Option<u64> {
    let unit = u64::from(unit);
    if unit.is_power_of_two() {
        return Some(number.checked_add(unit - 1)? & !(unit - 1));
    }
    number.checked_next_multiple_of(unit)
}

impl Spread {
    /// Whether each core has an address of its own, so that banks differ in what they have free.
    pub const fn is_per_core(self) -> bool {
        matches!(self, Self::PerCore { .. } | Self::PerUnknownCore)
    }

    /// The number of cores that have an address of their own; `None` too if it is not known.
    pub const fn cores(self) -> Option<u32> {
        match self {
            Self::PerCore { cores, .. } => Some(cores),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// L1 of a Wormhole: pages are aligned to 16 bytes, blocks to 32.
    const L1: Geometry = Geometry {
        bank_size: 1 << 20,
        banks: 64,
        alignment: 16,
        block_minimum: 32,
        block_unit: 32,
        base: None,
    };

    fn bytes(size: u64, page_size: u64, spread: Spread) -> Option<u64> {
        L1.bank_bytes(&BufferShape {
            unique_id: None,
            buffer_type: BufferType::L1,
            address: DeviceAddr(0),
            size,
            page_size,
            spread,
        })
    }

    #[test]
    fn blocks_are_rounded_up_to_the_free_lists_unit() {
        assert_eq!(bytes(4, 4, Spread::Interleaved), Some(32));
        assert_eq!(bytes(7 * 16 * 64, 16, Spread::Interleaved), Some(128));
        assert_eq!(bytes(2048, 2048, Spread::PagesPerBank(3)), Some(6144));
        assert_eq!(bytes(10, 10, Spread::PagesPerBank(3)), Some(64));
    }

    #[test]
    fn an_address_per_core_takes_a_block_of_these_cores_alone() {
        let spread = |cores| Spread::PerCore { pages: 3, cores };
        assert_eq!(bytes(3 * 2048 * 8, 2048, spread(8)), Some(3 * 2048));
        assert_eq!(bytes(10, 10, spread(1)), Some(64));
        assert_eq!(
            [1, 8, 64, 65].map(|cores| L1.banks_of(spread(cores))),
            [Some(1), Some(8), Some(64), None]
        );
        assert_eq!(L1.banks_of(Spread::Interleaved), Some(64));
        assert_eq!(L1.banks_of(Spread::PagesPerBank(3)), Some(64));
    }

    #[test]
    fn nothing_still_takes_a_block() {
        assert_eq!(bytes(0, 2048, Spread::Interleaved), Some(32));
        assert_eq!(bytes(0, 0, Spread::Interleaved), Some(32));
    }

    #[test]
    fn what_is_not_known_is_not_computed() {
        assert_eq!(bytes(2048, 2048, Spread::Unknown), None);
        assert_eq!(bytes(2048, 2048, Spread::PerUnknownCore), None);
        for spread in [Spread::Unknown, Spread::PerUnknownCore] {
            assert_eq!(L1.banks_of(spread), None);
        }
        let shape = BufferShape {
            unique_id: None,
            buffer_type: BufferType::L1,
            address: DeviceAddr(0),
            size: 2048,
            page_size: 2048,
            spread: Spread::Interleaved,
        };
        assert_eq!(Geometry { block_unit: 0, ..L1 }.bank_bytes(&shape), None);
        assert_eq!(Geometry { banks: 0, ..L1 }.bank_bytes(&shape), None);
        let huge = BufferShape { size: u64::MAX, page_size: u64::MAX, ..shape };
        assert_eq!(L1.bank_bytes(&huge), None);
    }
}
