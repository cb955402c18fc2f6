//! The records that travel through the ring buffer, one struct per kind.
//!
//! Little-endian, naturally aligned, no padding. A record is a fact seen in the target; what it
//! means is the agent's business.

use crate::{
    failure::FAILURE_FIELDS,
    layout::BUFFER_TYPES,
    python::{self, PythonFrame},
};

/// Kind of an [`AllocateRecord`].
pub const KIND_ALLOCATE: u32 = 1;
/// Kind of a [`FreeRecord`].
pub const KIND_FREE: u32 = 2;
/// Kind of a [`BulkFreeRecord`].
pub const KIND_BULK_FREE: u32 = 3;
/// Kind of a [`DeviceRecord`].
pub const KIND_DEVICE: u32 = 4;
/// Kind of an [`AllocatorRecord`].
pub const KIND_ALLOCATOR: u32 = 5;
/// Kind of a [`CircularRecord`].
pub const KIND_CIRCULAR: u32 = 6;
/// Kind of a [`ProgramEndRecord`].
pub const KIND_PROGRAM_END: u32 = 7;
/// Kind of a [`DispatchRecord`].
pub const KIND_DISPATCH: u32 = 8;
/// Kind of a [`FailureRecord`].
pub const KIND_FAILURE: u32 = 16;
/// Kind of a [`ResizeRecord`].
pub const KIND_RESIZE: u32 = 17;
/// Kind of a [`ShardedRecord`].
pub const KIND_ALLOCATE_SHARDED: u32 = 18;
/// Kind of a [`DescribedFreeRecord`].
pub const KIND_FREE_DESCRIBED: u32 = 19;

/// Kind of a [`StackRecord`].
pub const KIND_STACK: u32 = 20;

/// Chips that one [`DeviceRecord`] can name.
pub const MAX_CHIPS: usize = 64;

/// In place of a chip id: the device belongs to another host.
pub const REMOTE_CHIP: i32 = i32::MIN;
/// In place of a chip id: it could not be read.
pub const UNREADABLE_CHIP: i32 = i32::MIN + 1;

/// Starts every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct RecordHeader {
    /// When the probe was hit, CLOCK_MONOTONIC nanoseconds: after it had entered its CPU, before room
    /// was reserved. Both are needed to bring the rings in order: `ttmem_common::cpu_ring`.
    pub time_ns: u64,
    /// One of the `KIND_` constants.
    pub kind: u32,
    /// The target's slot.
    pub slot: u32,
    /// Process id of the target.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
}

/// A buffer has been allocated that is not sharded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct AllocateRecord {
    /// Header.
    pub header: RecordHeader,
    /// `Buffer*` in the target; names the buffer until it is freed.
    pub buffer: u64,
    /// `AllocatorImpl*` in the target.
    pub allocator: u64,
    /// `IDevice*` in the target.
    pub device: u64,
    /// Logical size, bytes.
    pub size: u64,
    /// Page size, bytes.
    pub page_size: u64,
    /// Address on the device.
    pub address: u64,
    /// Unique id; 0 with [`FLAG_NO_UNIQUE_ID`].
    pub unique_id: u64,
    /// `BufferType`.
    pub buffer_type: u32,
    /// `TensorMemoryLayout`.
    pub memory_layout: u32,
    /// `FLAG_` bits.
    pub flags: u32,
    /// Keeps the layout free of padding.
    pub reserved: u32,
}

/// How a sharded buffer spreads over cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct Sharding {
    /// Pages of one shard in a distribution spec.
    pub shard_pages: u64,
    /// Shard shape, height in the low half (with [`FLAG_SHARD_SPEC`]).
    pub shard_shape: u64,
    /// Page shape, height in the low half (with [`FLAG_SHARD_SPEC`]).
    pub page_shape: u64,
    /// Number of shards (with [`FLAG_DISTRIBUTION_SPEC`]).
    pub shard_count: u64,
    /// Number of cores in the distribution spec (with [`FLAG_DISTRIBUTION_SPEC`]), or of those
    /// that have an address of their own (with [`FLAG_CORE_COUNT`]).
    pub shard_cores: u64,
}

/// A sharded buffer has been allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct ShardedRecord {
    /// What all buffers have; the header's kind is [`KIND_ALLOCATE_SHARDED`].
    pub buffer: AllocateRecord,
    /// How it spreads over cores.
    pub sharding: Sharding,
}

/// The version does not expose unique ids.
pub const FLAG_NO_UNIQUE_ID: u32 = 1;
/// The buffer has a shard spec: `shard_shape` and `page_shape` are set.
pub const FLAG_SHARD_SPEC: u32 = 2;
/// The buffer has a distribution spec: `shard_count`, `shard_cores`, `shard_pages` are set.
pub const FLAG_DISTRIBUTION_SPEC: u32 = 4;
/// Each core that the buffer lies on has an address of its own.
pub const FLAG_PER_CORE: u32 = 16;
/// With [`FLAG_PER_CORE`]: `shard_cores` says how many cores these are.
pub const FLAG_CORE_COUNT: u32 = 32;
/// A buffer is being freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct FreeRecord {
    /// Header.
    pub header: RecordHeader,
    /// `Buffer*` in the target.
    pub buffer: u64,
    /// `AllocatorImpl*` in the target.
    pub allocator: u64,
}

/// A buffer is being freed, and this is what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct DescribedFreeRecord {
    /// What all frees say; the header's kind is [`KIND_FREE_DESCRIBED`].
    pub free: FreeRecord,
    /// `IDevice*`.
    pub device: u64,
    /// Address on the device.
    pub address: u64,
    /// Unique id; 0 with [`FLAG_NO_UNIQUE_ID`].
    pub unique_id: u64,
    /// `BufferType`.
    pub buffer_type: u32,
    /// `FLAG_` bits: [`FLAG_NO_UNIQUE_ID`], [`FLAG_PER_CORE`].
    pub flags: u32,
}

/// Every live buffer of one allocator is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct BulkFreeRecord {
    /// Header.
    pub header: RecordHeader,
    /// `AllocatorImpl*` in the target.
    pub allocator: u64,
}

/// A device pointer that has not been seen before: which chips it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct DeviceRecord {
    /// Header.
    pub header: RecordHeader,
    /// `IDevice*` in the target.
    pub device: u64,
    /// 1: a mesh, `mesh_id` is set; 0: a single chip.
    pub is_mesh: u32,
    /// The mesh's id.
    pub mesh_id: i32,
    /// Number of chips; more than [`MAX_CHIPS`]: there are more than could be listed.
    pub chip_count: u32,
    /// Keeps the layout free of padding.
    pub reserved: u32,
    /// Chip ids, or [`REMOTE_CHIP`], or [`UNREADABLE_CHIP`].
    pub chips: [i32; MAX_CHIPS],
}

/// Number of banks of a pool that this version does not have, or that could not be read.
pub const NO_POOL: u32 = u32::MAX;

/// Base of a pool of which it is not known.
pub const NO_BASE: u64 = u64::MAX;

/// Geometry of one bank manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct PoolGeometry {
    /// Bytes of one bank.
    pub bank_size: u64,
    /// Number of banks, 0 for a pool that is there but empty; or [`NO_POOL`].
    pub banks: u32,
    /// Alignment of pages, bytes.
    pub alignment: u32,
    /// Least bytes of a block of the free list.
    pub block_minimum: u32,
    /// What the bytes of a block are rounded up to; 0 if not known.
    pub block_unit: u32,
    /// Address of the first byte of each bank that can be allocated; [`NO_BASE`] if not known.
    pub base: u64,
}

/// An allocator that has not been seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct AllocatorRecord {
    /// Header.
    pub header: RecordHeader,
    /// `AllocatorImpl*` in the target.
    pub allocator: u64,
    /// `IDevice*` that it was seen with.
    pub device: u64,
    /// By buffer type.
    pub pools: [PoolGeometry; BUFFER_TYPES],
}

/// Bytes of a buffer type's name that a [`FailureRecord`] holds.
pub const TYPE_NAME_BYTES: usize = 16;

/// An allocation has failed for want of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct FailureRecord {
    /// Header.
    pub header: RecordHeader,
    /// By [`crate::failure::FailureField`]; of the type it is the length of its name.
    pub values: [u64; FAILURE_FIELDS],
    /// The start of the type's name, padded with zeroes.
    pub type_name: [u8; TYPE_NAME_BYTES],
    /// `AllocatorImpl*`, with [`FAILURE_HAS_BUFFER`].
    pub allocator: u64,
    /// `IDevice*`, with [`FAILURE_HAS_BUFFER`].
    pub device: u64,
    /// `BufferType` of the buffer, with [`FAILURE_HAS_BUFFER`].
    pub buffer_type: u32,
    /// A bit for each field of `values` that is known, and [`FAILURE_HAS_BUFFER`].
    pub known: u32,
}

/// The buffer that was to be allocated was found on the stack and read.
pub const FAILURE_HAS_BUFFER: u32 = 1 << 16;

/// Ranges of cores that one [`CircularRecord`] can name.
pub const MAX_RANGES: usize = 32;

/// In place of a chip id: the device is no single chip, its pointer has to do.
pub const NO_CHIP: i32 = i32::MIN + 2;

/// The circular buffer lies over a tensor: no memory of its own.
pub const FLAG_GLOBALLY_ALLOCATED: u32 = 1;
/// It is a dataflow buffer, or what one range of cores gives to it.
pub const FLAG_DATAFLOW: u32 = 2;

/// A rectangle of cores as tt-metal keeps it; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct RawCoreRange {
    /// First column.
    pub start_x: u64,
    /// First row.
    pub start_y: u64,
    /// Last column.
    pub end_x: u64,
    /// Last row.
    pub end_y: u64,
}

/// A circular buffer, or a part of a dataflow buffer, has got its place on one chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct CircularRecord {
    /// Header.
    pub header: RecordHeader,
    /// `ProgramImpl*` in the target; 0: not known.
    pub program: u64,
    /// When this thread began to place buffers for this program, CLOCK_MONOTONIC nanoseconds.
    /// Buffers of a later time replace those of an earlier one.
    pub batch: u64,
    /// `IDevice*` in the target.
    pub device: u64,
    /// Address on the device, the same on every core.
    pub address: u64,
    /// Bytes on each core.
    pub size: u64,
    /// Chip id, or [`NO_CHIP`].
    pub chip: i32,
    /// [`FLAG_GLOBALLY_ALLOCATED`], [`FLAG_DATAFLOW`].
    pub flags: u32,
    /// Number of ranges; more than [`MAX_RANGES`]: there are more than could be listed.
    pub range_count: u32,
    /// Keeps the layout free of padding.
    pub reserved: u32,
    /// The cores.
    pub ranges: [RawCoreRange; MAX_RANGES],
}

/// A program is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct ProgramEndRecord {
    /// Header.
    pub header: RecordHeader,
    /// `ProgramImpl*` in the target.
    pub program: u64,
}

/// A program is dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct DispatchRecord {
    /// Header.
    pub header: RecordHeader,
    /// `ProgramImpl*` in the target.
    pub program: u64,
    /// `IDevice*` in the target.
    pub device: u64,
    /// Chip id, or [`NO_CHIP`].
    pub chip: i32,
    /// Keeps the layout free of padding.
    pub reserved: u32,
}

/// An allocator is about to give the start of its banks away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct ResizeRecord {
    /// Header.
    pub header: RecordHeader,
    /// `AllocatorImpl*` in the target.
    pub allocator: u64,
    /// How much of each bank, bytes.
    pub size: u64,
    /// `BufferType`.
    pub buffer_type: u32,
    /// 1: of its start, which is all that tt-metal can do.
    pub from_start: u32,
    /// What the pool is like before.
    pub pool: PoolGeometry,
}

/// The stack of the thread that has just allocated. It travels in a ring buffer of its own, and
/// belongs to the [`AllocateRecord`] or [`ShardedRecord`] with the same time and thread.
///
/// As many bytes follow as the agent has asked for, of which the first `length` are the stack's,
/// from `sp` upwards.
///
/// The functions of an interpreted program are no part of the stack: they are found in the
/// interpreter's own objects, which only the moment of the hit shows as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct StackRecord {
    /// Header.
    pub header: RecordHeader,
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
    /// The other registers that a call preserves: rbx, r12, r13, r14, r15.
    pub preserved: [u64; 5],
    /// How many bytes of the stack could be read.
    pub length: u32,
    /// Keeps the layout free of padding.
    pub reserved: u32,
    /// How many of `python` are used.
    pub python_count: u32,
    /// Why there are no more of them: one of the `PYTHON_` constants.
    pub python_end: u32,
    /// The Python functions that the thread executed, the innermost first.
    pub python: [PythonFrame; python::MOST_FRAMES],
}

/// Bytes of the records of a kind; `None`: there is no such kind, or they have no fixed length.
pub const fn len_of(kind: u32) -> Option<usize> {
    Some(match kind {
        KIND_ALLOCATE => size_of::<AllocateRecord>(),
        KIND_ALLOCATE_SHARDED => size_of::<ShardedRecord>(),
        KIND_FREE => size_of::<FreeRecord>(),
        KIND_FREE_DESCRIBED => size_of::<DescribedFreeRecord>(),
        KIND_BULK_FREE => size_of::<BulkFreeRecord>(),
        KIND_DEVICE => size_of::<DeviceRecord>(),
        KIND_ALLOCATOR => size_of::<AllocatorRecord>(),
        KIND_CIRCULAR => size_of::<CircularRecord>(),
        KIND_PROGRAM_END => size_of::<ProgramEndRecord>(),
        KIND_DISPATCH => size_of::<DispatchRecord>(),
        KIND_FAILURE => size_of::<FailureRecord>(),
        KIND_RESIZE => size_of::<ResizeRecord>(),
        _ => return None,
    })
}

/// Stacks are copied in pieces of this many bytes where they end early.
pub const STACK_PIECE: u32 = 512;

const _: () = assert!(size_of::<StackRecord>() == 24 + 8 * 8 + 16 + 16 * python::MOST_FRAMES);
const _: () = assert!(size_of::<ResizeRecord>() == 24 + 16 + 8 + 32);
const _: () = assert!(size_of::<RecordHeader>() == 24);
const _: () = assert!(size_of::<AllocateRecord>() == 24 + 7 * 8 + 16);
const _: () = assert!(size_of::<ShardedRecord>() == 96 + 5 * 8);
const _: () = assert!(size_of::<FreeRecord>() == 24 + 2 * 8);
const _: () = assert!(size_of::<DescribedFreeRecord>() == 40 + 3 * 8 + 8);
const _: () = assert!(size_of::<BulkFreeRecord>() == 32);
const _: () = assert!(size_of::<DeviceRecord>() == 24 + 8 + 16 + 4 * MAX_CHIPS);
const _: () = assert!(size_of::<FailureRecord>() == 24 + 8 * 8 + 16 + 16 + 8);
const _: () = assert!(size_of::<AllocatorRecord>() == 24 + 16 + 5 * 32);
const _: () = assert!(size_of::<RawCoreRange>() == 32);
const _: () = assert!(size_of::<CircularRecord>() == 24 + 5 * 8 + 16 + 32 * MAX_RANGES);
const _: () = assert!(size_of::<ProgramEndRecord>() == 32);
const _: () = assert!(size_of::<DispatchRecord>() == 24 + 16 + 8);
