//! A live buffer as it is stored: the same as [`Live`], with no room between the parts.
//!
//! Nothing is narrowed: whatever numbers the target has, they come out as they went in. What is
//! needed for each event can be asked for alone; putting a whole [`Live`] together takes longer.

use super::{Coming, Live, Origin};
use crate::{
    event::{BufferShape, BufferType, Spread},
    ledger::{
        counters::{Measured, Share},
        late::Block,
    },
    units::{Avma, DeviceAddr, Tid},
};

/// Bytes that each live buffer takes, without the indices.
const BYTES: usize = 96;
const _: () = assert!(size_of::<Entry>() == BYTES);

/// What each event asks of a buffer. It is handed on by value: what has just been written to memory
/// piece by piece cannot be read back at once as a whole.
#[derive(Clone, Copy, Debug)]
pub(in crate::ledger) struct Facts {
    /// `Buffer*`.
    pub buffer: Avma,
    /// `AllocatorImpl*`.
    pub allocator: Avma,
    /// Its type.
    pub buffer_type: BufferType,
    /// Its address on the device.
    pub address: DeviceAddr,
    /// Entry in the topology; `None` if the device is not known.
    pub device: Option<u32>,
    /// What it counts for in its pools.
    pub share: Share,
    /// How its pages spread over the banks.
    pub spread: Spread,
}

/// One entry of the live set. A number that a flag or kind says is not known is 0.
/// Aligned so that it lies in two cache lines, and not in three.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(in crate::ledger) struct Entry {
    buffer: Avma,
    allocator: Avma,
    unique_id: u64,
    address: DeviceAddr,
    size: u64,
    page_size: u64,
    /// Of a buffer with an address per core: its pages there, and in the upper half the cores.
    pages_per_bank: u64,
    bank_bytes: u64,
    used_bytes: u64,
    time_ns: u64,
    tid: Tid,
    device: u32,
    buffer_type: BufferType,
    spread: SpreadKind,
    origin: OriginKind,
    has_unique_id: bool,
    has_device: bool,
    is_measured: bool,
    /// It is no buffer, but room for one.
    is_vacant: bool,
}

/// [`Spread`] without its number.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum SpreadKind {
    Interleaved,
    PagesPerBank,
    PerCore,
    PerUnknownCore,
    Unknown,
}

/// [`Origin`] without its numbers.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum OriginKind {
    Seen,
    PreAttach,
    Missed,
}

impl Entry {
    /// Stores what is known of a buffer.
    #[inline]
    pub fn new(coming: &Coming<'_>) -> Self {
        let shape = coming.shape;
        let (spread, pages_per_bank) = match shape.spread {
            Spread::Interleaved => (SpreadKind::Interleaved, 0),
            Spread::PagesPerBank(pages) => (SpreadKind::PagesPerBank, pages),
            Spread::PerCore { pages, cores } => {
                (SpreadKind::PerCore, u64::from(pages) | u64::from(cores) << 32)
            }
            Spread::PerUnknownCore => (SpreadKind::PerUnknownCore, 0),
            Spread::Unknown => (SpreadKind::Unknown, 0),
        };
        let (origin, tid, time_ns) = match coming.origin {
            Origin::Seen(tid, time_ns) => (OriginKind::Seen, tid, time_ns),
            Origin::PreAttach => (OriginKind::PreAttach, Tid(0), 0),
            Origin::Missed => (OriginKind::Missed, Tid(0), 0),
        };
        Self {
            buffer: coming.buffer,
            allocator: coming.allocator,
            unique_id: shape.unique_id.unwrap_or(0),
            address: shape.address,
            size: shape.size,
            page_size: shape.page_size,
            pages_per_bank,
            bank_bytes: coming.measured.map_or(0, |measured| measured.bank_bytes),
            used_bytes: coming.measured.map_or(0, |measured| measured.used_bytes),
            time_ns,
            tid,
            device: coming.device.unwrap_or(0),
            buffer_type: shape.buffer_type,
            spread,
            origin,
            has_unique_id: shape.unique_id.is_some(),
            has_device: coming.device.is_some(),
            is_measured: coming.measured.is_some(),
            is_vacant: false,
        }
    }

    /// All that is known of the buffer.
    #[inline]
    pub fn live(&self) -> Live {
        Live {
            shape: BufferShape {
                unique_id: self.unique_id(),
                buffer_type: self.buffer_type,
                address: self.address,
                size: self.size,
                page_size: self.page_size,
                spread: self.spread(),
            },
            measured: self.measured(),
            allocator: self.allocator,
            device: self.device(),
            origin: match self.origin {
                OriginKind::Seen => Origin::Seen(self.tid, self.time_ns),
                OriginKind::PreAttach => Origin::PreAttach,
                OriginKind::Missed => Origin::Missed,
            },
        }
    }

    /// `Buffer*`.
    #[inline]
    pub const fn buffer(&self) -> Avma {
        self.buffer
    }

    /// `AllocatorImpl*`.
    #[inline]
    pub const fn allocator(&self) -> Avma {
        self.allocator
    }

    /// Entry in the topology; `None` if the device is not known.
    #[inline]
    pub fn device(&self) -> Option<u32> {
        self.has_device.then_some(self.device)
    }

    /// `Buffer::unique_id()`, if it is known.
    #[inline]
    pub fn unique_id(&self) -> Option<u64> {
        self.has_unique_id.then_some(self.unique_id)
    }

    /// What it takes of its pool, if that is known.
    #[inline]
    pub fn measured(&self) -> Option<Measured> {
        let (bank_bytes, used_bytes) = (self.bank_bytes, self.used_bytes);
        self.is_measured.then_some(Measured { bank_bytes, used_bytes })
    }

    /// Whether each of its cores has an address of its own.
    #[inline]
    pub const fn is_per_core(&self) -> bool {
        matches!(self.spread, SpreadKind::PerCore | SpreadKind::PerUnknownCore)
    }

    /// How its pages spread over the banks.
    #[inline]
    pub const fn spread(&self) -> Spread {
        match self.spread {
            SpreadKind::Interleaved => Spread::Interleaved,
            SpreadKind::PagesPerBank => Spread::PagesPerBank(self.pages_per_bank),
            SpreadKind::PerCore => Spread::PerCore {
                pages: (self.pages_per_bank & 0xffff_ffff) as u32,
                cores: (self.pages_per_bank >> 32) as u32,
            },
            SpreadKind::PerUnknownCore => Spread::PerUnknownCore,
            SpreadKind::Unknown => Spread::Unknown,
        }
    }

    /// Whether it was there before the attach.
    #[inline]
    pub const fn is_pre_attach(&self) -> bool {
        matches!(self.origin, OriginKind::PreAttach)
    }

    /// Whether its allocation was missed.
    #[inline]
    pub const fn was_missed(&self) -> bool {
        matches!(self.origin, OriginKind::Missed)
    }

    /// What each event asks of it.
    #[inline]
    pub fn facts(&self) -> Facts {
        Facts {
            buffer: self.buffer,
            allocator: self.allocator,
            buffer_type: self.buffer_type,
            address: self.address,
            device: self.device(),
            share: Share { size: self.size, measured: self.measured(), uneven: self.is_per_core() },
            spread: self.spread(),
        }
    }

    /// What it would be freed by.
    #[inline]
    pub const fn block(&self) -> Block {
        let (allocator, buffer_type, address) = (self.allocator, self.buffer_type, self.address);
        Block { allocator, buffer_type, address, per_core: self.is_per_core() }
    }

    /// Whether it is no buffer, but room for one.
    #[inline]
    pub(super) const fn is_vacant(&self) -> bool {
        self.is_vacant
    }

    /// Makes it room for another.
    #[inline]
    pub(super) const fn vacate(&mut self) {
        self.is_vacant = true;
    }
}
