//! The one place that reads record bytes.

use ttmem_common::layout::FIRST_SHARDED;
use ttmem_common::record::{
    AllocateRecord, AllocatorRecord, BulkFreeRecord, DescribedFreeRecord, DeviceRecord,
    FLAG_CORE_COUNT, FLAG_DISTRIBUTION_SPEC, FLAG_NO_UNIQUE_ID, FLAG_PER_CORE, FLAG_SHARD_SPEC,
    FreeRecord, KIND_ALLOCATE, KIND_ALLOCATE_SHARDED, KIND_ALLOCATOR, KIND_BULK_FREE,
    KIND_CIRCULAR, KIND_DEVICE, KIND_DISPATCH, KIND_FAILURE, KIND_FREE, KIND_FREE_DESCRIBED,
    KIND_PROGRAM_END, KIND_RESIZE, MAX_CHIPS, PoolGeometry, ProgramEndRecord, REMOTE_CHIP,
    RecordHeader, ShardedRecord, Sharding, UNREADABLE_CHIP,
};
use zerocopy::FromBytes as _;

use super::types::{
    Allocated, AllocatorSeen, BufferShape, BufferType, Described, DeviceSeen, Event, Freed,
    Geometry, Spread,
};
use super::{circular, failure, resize};
use crate::units::{Avma, ChipId, DeviceAddr, MeshId, Pid, Tid};

/// Why a record could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end early, or there are too many.
    #[error("a record of kind {kind} has {len} bytes instead of {expected}")]
    Length {
        /// Kind of the record; 0 if not even the header is whole.
        kind: u32,
        /// Its length.
        len: usize,
        /// The length it should have.
        expected: usize,
    },
    /// A kind that this version does not know.
    #[error("a record of unknown kind {0}")]
    UnknownKind(u32),
    /// A buffer type that this version does not know.
    #[error("a buffer of unknown type {0}")]
    UnknownBufferType(u32),
    /// A device of more chips than a record can name.
    #[error("a device of {0} chips; at most {MAX_CHIPS} are supported")]
    TooManyChips(u32),
    /// A device whose chips could not be read.
    #[error("a device of which not every chip could be read")]
    UnreadableChip,
    /// A circular buffer of a kind that this version does not know.
    #[error("a circular buffer with unknown flags {0:#x}")]
    UnknownCircularKind(u32),
    /// A range of cores that no chip can have.
    #[error("a range of cores that no chip can have")]
    BadCoreRange,
}

/// A record decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// When and where it was seen.
    pub seen: Seen,
    /// What happened.
    pub event: Event,
}

/// When and where a fact was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// The target's slot.
    pub slot: u32,
    /// The target.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
}

/// A fact that is only looked at: what comes by the million is not put into an [`Event`] first.
#[derive(Clone, Copy, Debug)]
pub enum Fact<'a> {
    /// A buffer has been allocated.
    Allocated(&'a Allocated),
    /// A buffer is being freed.
    Freed(&'a Freed),
    /// Something else.
    Other(&'a Event),
}

impl Fact<'_> {
    fn to_event(self) -> Event {
        match self {
            Self::Allocated(allocated) => Event::Allocated(allocated.clone()),
            Self::Freed(freed) => Event::Freed(freed.clone()),
            Self::Other(event) => event.clone(),
        }
    }
}

/// Decodes one record.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    decode_with(bytes, |seen, fact| Decoded { seen, event: fact.to_event() })
}

/// Decodes one record and shows what it says.
#[inline]
pub fn decode_with<T>(
    bytes: &[u8],
    take: impl FnOnce(Seen, Fact<'_>) -> T,
) -> Result<T, DecodeError> {
    let (header, _) = RecordHeader::read_from_prefix(bytes).map_err(|_| DecodeError::Length {
        kind: 0,
        len: bytes.len(),
        expected: size_of::<RecordHeader>(),
    })?;
    let seen = seen_of(&header);
    match header.kind {
        KIND_ALLOCATE => {
            let record: AllocateRecord = whole(bytes, header.kind)?;
            let allocated = allocated(&record, not_sharded(&record))?;
            Ok(take(seen, Fact::Allocated(&allocated)))
        }
        KIND_ALLOCATE_SHARDED => {
            let record: ShardedRecord = whole(bytes, header.kind)?;
            let allocated = allocated(&record.buffer, spread(&record))?;
            Ok(take(seen, Fact::Allocated(&allocated)))
        }
        KIND_FREE => {
            let freed = freed(&whole(bytes, header.kind)?, None);
            Ok(take(seen, Fact::Freed(&freed)))
        }
        kind => rare(bytes, kind).map(|event| take(seen, Fact::Other(&event))),
    }
}

/// When and where a record was seen of which the rest may not be understood; `None` if not even its
/// header is whole.
pub fn seen(bytes: &[u8]) -> Option<Seen> {
    RecordHeader::read_from_prefix(bytes).ok().map(|(header, _)| seen_of(&header))
}

fn seen_of(header: &RecordHeader) -> Seen {
    Seen { time_ns: header.time_ns, slot: header.slot, pid: Pid(header.tgid), tid: Tid(header.tid) }
}

/// What the beginning of a record says of a buffer's coming or going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The target's slot.
    pub slot: u32,
    /// `Buffer*`.
    pub buffer: Avma,
    /// It goes: the agent has to know it.
    pub goes: bool,
}

/// Looks at the beginning of a record; whether all of it can be decoded is another matter.
#[inline]
pub fn look_ahead(bytes: &[u8]) -> Option<Ahead> {
    // Every such record begins like the shortest.
    let (FreeRecord { header, buffer, .. }, _) = FreeRecord::read_from_prefix(bytes).ok()?;
    let goes = match header.kind {
        KIND_ALLOCATE | KIND_ALLOCATE_SHARDED => false,
        KIND_FREE | KIND_FREE_DESCRIBED => true,
        _ => return None,
    };
    Some(Ahead { slot: header.slot, buffer: Avma(buffer), goes })
}

#[cold]
fn rare(bytes: &[u8], kind: u32) -> Result<Event, DecodeError> {
    Ok(match kind {
        KIND_FREE_DESCRIBED => {
            let record: DescribedFreeRecord = whole(bytes, kind)?;
            Event::Freed(freed(&record.free, Some(described(&record)?)))
        }
        KIND_BULK_FREE => {
            let record: BulkFreeRecord = whole(bytes, kind)?;
            Event::BulkFreed { allocator: Avma(record.allocator) }
        }
        KIND_DEVICE => Event::Device(device(&whole(bytes, kind)?)?),
        KIND_ALLOCATOR => Event::Allocator(Box::new(allocator(&whole(bytes, kind)?))),
        KIND_FAILURE => Event::Failed(Box::new(failure::failed(&whole(bytes, kind)?))),
        KIND_CIRCULAR => Event::Circular(circular::placed(&whole(bytes, kind)?)?),
        KIND_PROGRAM_END => {
            let record: ProgramEndRecord = whole(bytes, kind)?;
            Event::ProgramEnded { program: Avma(record.program) }
        }
        KIND_RESIZE => Event::Resized(resize::resized(&whole(bytes, kind)?)?),
        KIND_DISPATCH => Event::Dispatched(circular::dispatched(&whole(bytes, kind)?)),
        unknown => return Err(DecodeError::UnknownKind(unknown)),
    })
}

#[inline]
fn whole<T: zerocopy::FromBytes>(bytes: &[u8], kind: u32) -> Result<T, DecodeError> {
    T::read_from_bytes(bytes).map_err(|_| DecodeError::Length {
        kind,
        len: bytes.len(),
        expected: size_of::<T>(),
    })
}

fn buffer_type(raw: u32) -> Result<BufferType, DecodeError> {
    BufferType::from_raw(raw).ok_or(DecodeError::UnknownBufferType(raw))
}

fn unique_id(flags: u32, id: u64) -> Option<u64> {
    (flags & FLAG_NO_UNIQUE_ID == 0).then_some(id)
}

#[inline]
fn allocated(record: &AllocateRecord, spread: Spread) -> Result<Allocated, DecodeError> {
    Ok(Allocated {
        time_ns: record.header.time_ns,
        tid: Tid(record.header.tid),
        buffer: Avma(record.buffer),
        allocator: Avma(record.allocator),
        device: Avma(record.device),
        shape: shape(record, spread)?,
    })
}

/// What a buffer is, from the fields that the record of its allocation holds.
pub(crate) fn sharded_shape(record: &ShardedRecord) -> Result<BufferShape, DecodeError> {
    shape(&record.buffer, spread(record))
}

#[inline]
fn shape(record: &AllocateRecord, spread: Spread) -> Result<BufferShape, DecodeError> {
    Ok(BufferShape {
        unique_id: unique_id(record.flags, record.unique_id),
        buffer_type: buffer_type(record.buffer_type)?,
        address: DeviceAddr(record.address),
        size: record.size,
        page_size: record.page_size,
        spread,
    })
}

/// Of a buffer of which nothing but the fields of all is known.
#[inline]
const fn not_sharded(record: &AllocateRecord) -> Spread {
    if record.memory_layout < FIRST_SHARDED { Spread::Interleaved } else { Spread::Unknown }
}

/// Follows `Buffer::num_dev_pages()` and `calculate_bank_size_spread()`: the pages of one shard
/// times the cores are divided by the cores again, so what lies on a bank is one core's share.
fn spread(record: &ShardedRecord) -> Spread {
    let (flags, sharding) = (record.buffer.flags, &record.sharding);
    if record.buffer.memory_layout < FIRST_SHARDED {
        return Spread::Interleaved;
    }
    let of_spec = (flags & FLAG_SHARD_SPEC != 0).then(|| pages_of_a_shard(sharding));
    if flags & FLAG_PER_CORE != 0 {
        return per_core(record, of_spec);
    }
    if let Some(pages) = of_spec {
        return Spread::PagesPerBank(u64::from(pages));
    }
    if flags & FLAG_DISTRIBUTION_SPEC != 0 {
        let shards = match sharding.shard_cores {
            0 => 0,
            cores => sharding.shard_count.div_ceil(cores),
        };
        return Spread::PagesPerBank(shards.saturating_mul(sharding.shard_pages));
    }
    Spread::Unknown
}

/// As `num_dev_pages()` computes them from the shard spec.
fn pages_of_a_shard(of: &Sharding) -> u32 {
    let rows = low(of.shard_shape).checked_div(low(of.page_shape)).unwrap_or(0);
    let columns = high(of.shard_shape).checked_div(high(of.page_shape)).unwrap_or(0);
    rows.wrapping_mul(columns)
}

/// Follows `AllocatorImpl::allocate_buffer()`: it wants a shard spec, asks each core's bank for one
/// block, and enters each core's address into the map whose elements were counted.
fn per_core(record: &ShardedRecord, pages: Option<u32>) -> Spread {
    let counted = record.buffer.flags & FLAG_CORE_COUNT != 0;
    let cores =
        u32::try_from(record.sharding.shard_cores).ok().filter(|cores| counted && *cores > 0);
    match (pages, cores) {
        (Some(pages), Some(cores)) => Spread::PerCore { pages, cores },
        _ => Spread::PerUnknownCore,
    }
}

const fn low(pair: u64) -> u32 {
    (pair & 0xffff_ffff) as u32
}

const fn high(pair: u64) -> u32 {
    (pair >> 32) as u32
}

#[inline]
const fn freed(record: &FreeRecord, described: Option<Described>) -> Freed {
    Freed { buffer: Avma(record.buffer), allocator: Avma(record.allocator), described }
}

fn described(record: &DescribedFreeRecord) -> Result<Described, DecodeError> {
    Ok(Described {
        device: Avma(record.device),
        buffer_type: buffer_type(record.buffer_type)?,
        address: DeviceAddr(record.address),
        per_core: record.flags & FLAG_PER_CORE != 0,
    })
}

fn device(record: &DeviceRecord) -> Result<DeviceSeen, DecodeError> {
    let chips = usize::try_from(record.chip_count)
        .ok()
        .and_then(|count| record.chips.get(..count))
        .ok_or(DecodeError::TooManyChips(record.chip_count))?;
    if chips.contains(&UNREADABLE_CHIP) {
        return Err(DecodeError::UnreadableChip);
    }
    Ok(DeviceSeen {
        device: Avma(record.device),
        mesh: (record.is_mesh != 0).then_some(MeshId(record.mesh_id)),
        chips: chips.iter().copied().filter(|chip| *chip != REMOTE_CHIP).map(ChipId).collect(),
    })
}

fn allocator(record: &AllocatorRecord) -> AllocatorSeen {
    AllocatorSeen {
        allocator: Avma(record.allocator),
        device: Avma(record.device),
        pools: record.pools.map(|pool| geometry(&pool)),
    }
}

/// More banks than any chip could have; [`ttmem_common::record::NO_POOL`] is above it.
const MAX_BANKS: u32 = 1 << 16;
/// A bank of 2^56 bytes or more is no memory: a sub-device without DRAM of its own wraps around.
const MAX_BANK_SIZE: u64 = 1 << 56;

/// The geometry of a pool; `None` if the numbers cannot be one.
pub(crate) fn geometry(pool: &PoolGeometry) -> Option<Geometry> {
    let empty = pool.banks == 0;
    let sane =
        empty || (pool.banks < MAX_BANKS && pool.alignment > 0 && pool.bank_size < MAX_BANK_SIZE);
    sane.then_some(Geometry {
        bank_size: pool.bank_size,
        banks: pool.banks,
        alignment: pool.alignment,
        block_minimum: pool.block_minimum,
        block_unit: pool.block_unit,
        base: (pool.base < MAX_BANK_SIZE).then_some(DeviceAddr(pool.base)),
    })
}

#[cfg(test)]
pub(super) mod tests;
