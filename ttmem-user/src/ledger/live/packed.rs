//! A live buffer as it is stored: the same as [`Live`], with no room between the parts.
//!
//! Nothing is narrowed: whatever numbers the target has, they come out as they went in.

use super::{Live, Origin};
use crate::{
    event::{BufferShape, BufferType, Spread},
    ledger::{counters::Measured, late::Block},
    units::{Avma, DeviceAddr, Tid},
};

/// Bytes that each live buffer takes, without the indices.
const BYTES: usize = 96;
const _: () = assert!(size_of::<Packed>() == BYTES);

/// One entry of the live set. A number that a flag or kind says is not known is 0.
/// Aligned so that it lies in two cache lines, and not in three.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(super) struct Packed {
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

impl Packed {
    /// Packs what is known of a buffer.
    #[inline]
    pub fn new(buffer: Avma, live: &Live) -> Self {
        let shape = &live.shape;
        let (spread, pages_per_bank) = match shape.spread {
            Spread::Interleaved => (SpreadKind::Interleaved, 0),
            Spread::PagesPerBank(pages) => (SpreadKind::PagesPerBank, pages),
            Spread::PerCore { pages, cores } => {
                (SpreadKind::PerCore, u64::from(pages) | u64::from(cores) << 32)
            }
            Spread::PerUnknownCore => (SpreadKind::PerUnknownCore, 0),
            Spread::Unknown => (SpreadKind::Unknown, 0),
        };
        let (origin, tid, time_ns) = match live.origin {
            Origin::Seen(tid, time_ns) => (OriginKind::Seen, tid, time_ns),
            Origin::PreAttach => (OriginKind::PreAttach, Tid(0), 0),
            Origin::Missed => (OriginKind::Missed, Tid(0), 0),
        };
        Self {
            buffer,
            allocator: live.allocator,
            unique_id: shape.unique_id.unwrap_or(0),
            address: shape.address,
            size: shape.size,
            page_size: shape.page_size,
            pages_per_bank,
            bank_bytes: live.measured.map_or(0, |measured| measured.bank_bytes),
            used_bytes: live.measured.map_or(0, |measured| measured.used_bytes),
            time_ns,
            tid,
            device: live.device.unwrap_or(0),
            buffer_type: shape.buffer_type,
            spread,
            origin,
            has_unique_id: shape.unique_id.is_some(),
            has_device: live.device.is_some(),
            is_measured: live.measured.is_some(),
        }
    }

    /// What was packed.
    #[inline]
    pub fn live(&self) -> Live {
        let (bank_bytes, used_bytes) = (self.bank_bytes, self.used_bytes);
        Live {
            shape: BufferShape {
                unique_id: self.has_unique_id.then_some(self.unique_id),
                buffer_type: self.buffer_type,
                address: self.address,
                size: self.size,
                page_size: self.page_size,
                spread: match self.spread {
                    SpreadKind::Interleaved => Spread::Interleaved,
                    SpreadKind::PagesPerBank => Spread::PagesPerBank(self.pages_per_bank),
                    SpreadKind::PerCore => Spread::PerCore {
                        pages: (self.pages_per_bank & 0xffff_ffff) as u32,
                        cores: (self.pages_per_bank >> 32) as u32,
                    },
                    SpreadKind::PerUnknownCore => Spread::PerUnknownCore,
                    SpreadKind::Unknown => Spread::Unknown,
                },
            },
            measured: self.is_measured.then_some(Measured { bank_bytes, used_bytes }),
            allocator: self.allocator,
            device: self.has_device.then_some(self.device),
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

    /// What it would be freed by.
    #[inline]
    pub const fn block(&self) -> Block {
        let (allocator, buffer_type, address) = (self.allocator, self.buffer_type, self.address);
        let per_core = matches!(self.spread, SpreadKind::PerCore | SpreadKind::PerUnknownCore);
        Block { allocator, buffer_type, address, per_core }
    }
}
