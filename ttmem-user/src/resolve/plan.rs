//! What resolving an image yields.

use ttmem_common::{layout::LayoutTable, probe::ProbeId};

use crate::{
    missing::Unresolved,
    units::{FileOffset, Svma},
};

/// Everything needed to attach to one image, or why parts are missing.
#[derive(Clone, Debug)]
pub struct AttachPlan {
    /// Where to attach, in attach order ([`ttmem_common::probe::PROBES`]).
    pub points: Vec<AttachPoint>,
    /// The offsets for the eBPF side. `tgid`, `in_use` are 0, and the two vptrs are still as the
    /// ELF states them: the load bias is added per process.
    pub layout: LayoutTable,
    /// What reading the live buffers from memory needs; `Err` says why it is not possible.
    pub memory: Result<MemoryLayout, String>,
    /// Every decoded fact, for `ttmem doctor`.
    pub facts: Vec<Fact>,
    /// What could not be resolved.
    pub unresolved: Vec<Unresolved>,
}

/// Where one probe goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachPoint {
    /// The probe.
    pub probe: ProbeId,
    /// The symbol it was found by.
    pub symbol: String,
    /// Its address in the ELF file.
    pub address: Svma,
    /// How far behind the function's first instruction that is, bytes.
    pub behind_entry: u64,
    /// Its offset in the file.
    pub offset: FileOffset,
    /// What the kernel does with the instruction there.
    pub cost: InstructionCost,
}

/// What hitting a probe on an instruction costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionCost {
    /// The kernel emulates the instruction.
    Emulated,
    /// The kernel single-steps it: about 20 times dearer.
    SingleStepped,
}

/// One decoded fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The field, as `Buffer::address`.
    pub name: String,
    /// What was decoded, as `*(this+0x10)+0x40 (8 bytes)`.
    pub value: String,
    /// The function it was decoded from.
    pub from: String,
}

impl Fact {
    /// Why this version does not have it, if that is the fact.
    pub fn absent_because(&self) -> Option<&str> {
        self.value.strip_prefix("absent: ")
    }
}

/// What reading live buffers from the target's memory needs, beyond the [`LayoutTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryLayout {
    /// First words of allocator objects, as the ELF states them.
    pub allocator_vptrs: Vec<(String, Svma)>,
    /// Offset in `AllocatorImpl` of its `std::unordered_set<Buffer*>` of live buffers.
    pub live_set: u32,
    /// `MeshDevice` → its default `AllocatorImpl*`, if it could be decoded.
    pub mesh_allocator: Option<ttmem_common::layout::Chain>,
    /// `Device` → its `AllocatorImpl*`, if it could be decoded.
    pub device_allocator: Option<ttmem_common::layout::Chain>,
    /// The allocator's table of allocated blocks, the truth about bytes per bank.
    pub blocks: Option<BlockTableLayout>,
    /// Which of its blocks are free; `None`: only the allocated ones can be read.
    pub flags: Option<BlockFlagsLayout>,
    /// The free lists of the single banks of L1; `None`: not found, or there are none.
    pub core_lists: Option<CoreListsLayout>,
}

/// The free lists of an allocator's L1: the first is the one that all banks share, the others are
/// those of single banks, from which buffers with an address of their own on each core take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreListsLayout {
    /// `AllocatorImpl` → the first of the `FreeListOpt*`, which lie one behind the other.
    pub lists: ttmem_common::layout::Chain,
    /// `AllocatorImpl` → their number, 4 bytes.
    pub count: ttmem_common::layout::Chain,
}

/// Where `FreeListOpt` keeps all blocks, the free ones too: vectors with an element per block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFlagsLayout {
    /// Offset in `FreeListOpt` of the vector of addresses relative to the bank's base, `u64`.
    pub addresses: u32,
    /// Offset of the vector of bytes that are not 0 where there is a block.
    pub exists: u32,
    /// Offset of the vector of bytes that are not 0 where the block is allocated.
    pub allocated: u32,
}

/// Where `FreeListOpt` keeps its table of allocated blocks.
///
/// The table is a vector of buckets, each a vector of (address relative to the bank's base, index
/// of the block); the block sizes are a vector of `u64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockTableLayout {
    /// `AllocatorImpl` → `FreeListOpt*`, by buffer type.
    pub free_list: [ttmem_common::layout::Chain; ttmem_common::layout::BUFFER_TYPES],
    /// Offset in `FreeListOpt` of the base address of its bank, 8 bytes.
    pub base: u32,
    /// Offset in `FreeListOpt` of the vector of buckets (begin, end, capacity).
    pub buckets: u32,
    /// Offset in `FreeListOpt` of the vector of block sizes (begin, end, capacity).
    pub sizes: u32,
}
