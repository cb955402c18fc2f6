//! The field offsets that the agent hands to the eBPF side, one table per target.
//!
//! Every value was decoded from the very library that the target has mapped; [`ABSENT`] marks
//! what that version does not have or what could not be decoded.

use crate::failure::FailureLayout;

/// Marks an offset that does not exist.
pub const ABSENT: u32 = u32::MAX;

/// Buffer types in tt-metal's own numbering: DRAM, L1, SYSTEM_MEMORY, L1_SMALL, TRACE.
pub const BUFFER_TYPES: usize = 5;

/// Most that the eBPF side reads from a buffer in one go, in bytes: it has to fit on its stack.
pub const MAX_WINDOW: u32 = 128;

/// Most that the eBPF side reads from a buffer in one go where it has room beside its stack, bytes.
pub const MAX_SPAN: u32 = 1024;

/// First `TensorMemoryLayout` that is sharded: 0 is interleaved, 1 single-bank. The agent refuses
/// the sharded fields of a library whose own code says otherwise; the last one depends on the
/// version ([`BufferLayout::last_sharded`]).
pub const FIRST_SHARDED: u32 = 2;

/// Size of one core coordinate in a distribution spec, in bytes.
pub const CORE_BYTES: u64 = 16;

/// Size of a range of cores in a `CoreRangeSet`, in bytes: first column, first row, last column,
/// last row, 8 bytes each. The agent refuses a library whose own code says otherwise.
pub const RANGE_BYTES: u64 = 32;

/// Number of targets that one loaded eBPF object can watch.
pub const MAX_SLOTS: u32 = 64;

/// Steps of a [`Chain`].
pub const CHAIN_STEPS: usize = 5;

/// A path from an object to one of its fields: all offsets but the last are followed as
/// pointers, the last one leads to the value.
///
/// `[0x30, 0x3b0, 0, 8]` reads `*(*(*(object + 0x30) + 0x3b0) + 0) + 8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct Chain {
    /// How many of `offsets` are used; 0: the field does not exist.
    pub len: u32,
    /// Width of the value in bytes: 4 or 8.
    pub width: u32,
    /// The offsets.
    pub offsets: [u32; CHAIN_STEPS],
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

impl Chain {
    /// The chain of a field that does not exist.
    pub const ABSENT: Self = Self { len: 0, width: 0, offsets: [0; CHAIN_STEPS], reserved: 0 };

    /// Builds a chain; `None` if it is empty, too long, or of an odd width.
    pub fn new(offsets: &[u32], width: u32) -> Option<Self> {
        if offsets.is_empty() || offsets.len() > CHAIN_STEPS || !matches!(width, 4 | 8) {
            return None;
        }
        let len = u32::try_from(offsets.len()).ok()?;
        let mut chain = Self { len, width, ..Self::ABSENT };
        chain.offsets[..offsets.len()].copy_from_slice(offsets);
        Some(chain)
    }

    /// Whether the field exists.
    pub const fn exists(&self) -> bool {
        self.len != 0
    }

    /// The offsets in use.
    pub fn steps(&self) -> &[u32] {
        &self.offsets[..(self.len as usize).min(CHAIN_STEPS)]
    }
}

/// Where the fields of a `Buffer` are.
///
/// Offsets count from the object that holds the fields: the `Buffer` itself up to tt-metal 0.78,
/// its `BufferImpl` since 0.79. The fields that every allocation needs lie close together and are
/// read in one go, the *window*: `device` to `hooked` below. The others are read one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct BufferLayout {
    /// Offset in `Buffer` of the pointer to `BufferImpl`; [`ABSENT`]: the fields are inline.
    pub implementation: u32,
    /// Offset of the window; a multiple of 8.
    pub window_start: u32,
    /// Length of the window in bytes; a multiple of 8, at most [`MAX_WINDOW`].
    pub window_len: u32,
    /// Length of what holds the window and the unique id behind it, in bytes, a multiple of 8, at
    /// most [`MAX_SPAN`]; 0: there is no such, they are read one by one.
    pub span_len: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
    /// `IDevice*`, 8 bytes.
    pub device: u32,
    /// Logical size in bytes, 8 bytes.
    pub size: u32,
    /// Page size in bytes, 8 bytes.
    pub page_size: u32,
    /// Device address, 8 bytes.
    pub address: u32,
    /// `BufferType`, 4 bytes.
    pub buffer_type: u32,
    /// `TensorMemoryLayout`, 4 bytes.
    pub memory_layout: u32,
    /// `AllocatorImpl*`, 8 bytes.
    pub allocator: u32,
    /// Allocation status, 1 byte: 0 requested, 1 allocated, 2 deallocated.
    pub status: u32,
    /// Set when a graph capture took the allocation over, so that nothing was allocated; 1 byte.
    pub hooked: u32,
    /// Process-wide unique id, 8 bytes; [`ABSENT`] in versions that do not expose it.
    pub unique_id: u32,
    /// `std::optional<ShardSpecBuffer>` has a value, 1 byte.
    pub shard_spec_present: u32,
    /// Set if each core has an address of its own, 1 byte; [`ABSENT`] in versions without that.
    pub per_core: u32,
    /// Shard shape, two `u32`: height, width.
    pub shard_shape: u32,
    /// Page shape, two `u32`: height, width.
    pub page_shape: u32,
    /// `std::optional<BufferDistributionSpec>` has a value, 1 byte.
    pub distribution_present: u32,
    /// Begin of the vector of cores (16-byte elements), 8 bytes.
    pub cores_begin: u32,
    /// End of the vector of cores, 8 bytes.
    pub cores_end: u32,
    /// Number of shards, 8 bytes.
    pub shard_count: u32,
    /// Pages of one shard, 4 bytes used.
    pub shard_pages: u32,
    /// Last `TensorMemoryLayout` that the library's own code takes for sharded. Of a later one
    /// nothing is known; [`ABSENT`] as long as the shard fields are.
    pub last_sharded: u32,
    /// How many cores have an address of their own, 8 bytes: the number of elements of the map of
    /// these addresses; [`ABSENT`] if there is no such map, or it was not found.
    pub core_count: u32,
}

impl BufferLayout {
    /// The layout of a buffer of which nothing is known.
    pub const ABSENT: Self = Self {
        implementation: ABSENT,
        window_start: 0,
        window_len: 0,
        span_len: 0,
        reserved: 0,
        device: ABSENT,
        size: ABSENT,
        page_size: ABSENT,
        address: ABSENT,
        buffer_type: ABSENT,
        memory_layout: ABSENT,
        allocator: ABSENT,
        status: ABSENT,
        hooked: ABSENT,
        unique_id: ABSENT,
        shard_spec_present: ABSENT,
        per_core: ABSENT,
        shard_shape: ABSENT,
        page_shape: ABSENT,
        distribution_present: ABSENT,
        cores_begin: ABSENT,
        cores_end: ABSENT,
        shard_count: ABSENT,
        shard_pages: ABSENT,
        last_sharded: ABSENT,
        core_count: ABSENT,
    };

    /// Sets the window to the smallest that covers its fields.
    ///
    /// `None` if a field is missing or misaligned, or if the fields lie too far apart.
    #[must_use]
    pub fn with_window(mut self) -> Option<Self> {
        let fields = [
            (self.device, 8),
            (self.size, 8),
            (self.page_size, 8),
            (self.address, 8),
            (self.allocator, 8),
            (self.buffer_type, 4),
            (self.memory_layout, 4),
            (self.status, 1),
            (self.hooked, 1),
        ];
        let mut start = u32::MAX;
        let mut end = 0;
        for (offset, width) in fields {
            if offset == ABSENT || offset % width != 0 {
                return None;
            }
            start = start.min(offset & !7);
            end = end.max((offset & !7).checked_add(8)?);
        }
        if end - start > MAX_WINDOW {
            return None;
        }
        self.window_start = start;
        self.window_len = end - start;
        self.span_len = self.span(start).unwrap_or(0);
        Some(self)
    }

    /// Bytes from `start` on that hold the window and the unique id.
    fn span(&self, start: u32) -> Option<u32> {
        let known = self.unique_id != ABSENT && self.unique_id.is_multiple_of(8);
        let behind = self.unique_id.checked_sub(start).filter(|_| known)?;
        let len = behind.checked_add(8)?.max(self.window_len);
        (len <= MAX_SPAN).then_some(len)
    }
}

/// How to tell devices from meshes, and where their ids are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct DeviceLayout {
    /// Run-time value of a `Device` object's first word.
    pub device_vptr: u64,
    /// Run-time value of a `MeshDevice` object's first word.
    pub mesh_vptr: u64,
    /// `Device` → chip id, 4 bytes.
    pub chip_id: Chain,
    /// `MeshDevice` → mesh id, 4 bytes.
    pub mesh_id: Chain,
    /// `MeshDevice` → first word of its vector of `IDevice*` (begin), 8 bytes.
    pub mesh_devices_begin: Chain,
    /// `MeshDevice` → second word of its vector of `IDevice*` (end), 8 bytes.
    pub mesh_devices_end: Chain,
    /// Bytes from one element of that vector to the next; the `IDevice*` is its first word.
    pub mesh_devices_stride: u32,
    /// Offset in an element of the byte that is 1 if the device belongs to this host; [`ABSENT`]:
    /// every one does. The `IDevice*` of another host's device is not to be followed.
    pub mesh_devices_local: u32,
}

/// Where one bank manager of an allocator keeps its geometry. All chains start at `AllocatorImpl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct PoolLayout {
    /// Number of banks, 4 bytes.
    pub banks: Chain,
    /// Alignment of pages in bytes, 4 bytes: what a buffer rounds its pages up to.
    pub alignment: Chain,
    /// The same of the pool's manager, which rounds them up once more; if it is not known, it is
    /// taken to be no more than `alignment`.
    pub manager_alignment: Chain,
    /// Bytes of one bank, 8 bytes.
    pub bank_size: Chain,
    /// Least bytes of a block of the free list, 8 bytes.
    pub block_minimum: Chain,
    /// What the bytes of a block are rounded up to, 8 bytes.
    pub block_unit: Chain,
    /// Address of the bank's first byte, 8 bytes: its offset in the object that `bank_size` is the
    /// field of; [`ABSENT`] if not known.
    pub base: u32,
    /// Bytes at the start of the bank that the allocator has given away, 8 bytes: as `base`.
    pub shrunk: u32,
}

/// How to read what a program's circular and dataflow buffers take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct CircularLayout {
    /// Offset in `CoreRangeSet` of the begin of its vector of ranges, 8 bytes.
    pub ranges_begin: u32,
    /// Offset in `CoreRangeSet` of the end of that vector, 8 bytes.
    pub ranges_end: u32,
    /// Offset in `CircularBufferAllocator` of its range of cores.
    pub allocator_range: u32,
    /// Offset in `Program` of its `ProgramImpl*`, 8 bytes.
    pub program_implementation: u32,
}

impl CircularLayout {
    /// The layout of which nothing is known.
    pub const ABSENT: Self = Self {
        ranges_begin: ABSENT,
        ranges_end: ABSENT,
        allocator_range: ABSENT,
        program_implementation: ABSENT,
    };
}

/// Everything the eBPF side needs to know of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct LayoutTable {
    /// Process id (thread group) of the target, in the agent's pid namespace.
    pub tgid: u32,
    /// 1 when this slot is in use.
    pub in_use: u32,
    /// `Buffer`.
    pub buffer: BufferLayout,
    /// `Device` and `MeshDevice`.
    pub device: DeviceLayout,
    /// `AllocatorImpl`, by buffer type.
    pub pools: [PoolLayout; BUFFER_TYPES],
    /// Where allocations fail.
    pub failure: FailureLayout,
    /// Circular and dataflow buffers.
    pub circular: CircularLayout,
}

const _: () = assert!(size_of::<Chain>() == 32);
const _: () = assert!(size_of::<BufferLayout>() == 104);
const _: () = assert!(size_of::<DeviceLayout>() == 16 + 4 * 32 + 8);
const _: () = assert!(size_of::<CircularLayout>() == 16);
const _: () = assert!(size_of::<LayoutTable>() == 8 + 104 + 152 + 5 * 200 + 4 * 32 + 8 * 16 + 16);
