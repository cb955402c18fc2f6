//! What each allocator has free, as it is shown.
//!
//! Rows are of allocators, and not of chips: several allocators may hand out the same memory of a
//! chip (a mesh and its submeshes, sub-devices), and what they have free does not add up.

use serde::Serialize;

use super::{BaselineState, Ledger, Live, space::Free, topology::OpenAllocator};
use crate::{
    event::{BufferType, Geometry},
    units::{ChipId, DeviceAddr, MeshId},
};

/// What one allocator has free of the banks of one buffer type. Every bank is alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpaceSnapshot {
    /// Number of the allocator, in the order in which they were seen.
    pub id: u32,
    /// Its mesh; `None` for a single device.
    pub mesh: Option<MeshId>,
    /// Its chips.
    pub chips: Vec<ChipId>,
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// All its buffers went at once and it was not used since: most likely its device is closed.
    pub maybe_closed: bool,
    /// Address of the first byte of each bank that can be allocated.
    pub base: Option<DeviceAddr>,
    /// Bytes of a bank.
    pub bank_size: u64,
    /// Number of banks.
    pub banks: u32,
    /// Alignment of pages, bytes.
    pub alignment: u32,
    /// Least bytes of a block.
    pub block_minimum: Option<u32>,
    /// What the bytes of a block are rounded up to.
    pub block_unit: Option<u32>,
    /// Free bytes of each bank.
    pub free_bank_bytes: Option<u64>,
    /// Bytes of the largest hole: the largest block that can still be allocated in each bank.
    pub largest_free_bank_bytes: Option<u64>,
    /// Holes in each bank.
    pub holes: Option<u64>,
    /// Thousandths of the free bytes that lie outside of the largest hole, rounded down.
    pub fragmentation_permille: Option<u64>,
    /// Why the free figures are not known; `None` if they are.
    pub unknown_because: Option<String>,
    /// The free list in the target's memory was read when ttmem began, and said the same.
    pub checked: bool,
    /// Every block of a bank in order of address, when asked for and known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<Vec<BlockSnapshot>>,
}

/// A block of a bank: a buffer, or a hole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockSnapshot {
    /// Address of the first byte.
    pub start: DeviceAddr,
    /// Address of the first byte behind.
    pub end: DeviceAddr,
    /// Whether it is a hole.
    pub free: bool,
    /// `Buffer::unique_id()` of its buffer.
    pub unique_id: Option<u64>,
    /// Logical size of its buffer, bytes.
    pub size: Option<u64>,
}

impl BlockSnapshot {
    /// Bytes of each bank.
    pub const fn bytes(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }
}

impl Ledger {
    /// One row per allocator and buffer type that it has.
    pub(super) fn space_snapshots(&self, with_map: bool) -> Vec<SpaceSnapshot> {
        let mut rows = Vec::new();
        for allocator in self.topology.open_allocators() {
            for buffer_type in BufferType::ALL {
                if let Some(geometry) = allocator.pools[buffer_type.index()] {
                    rows.push(self.space_snapshot(&allocator, buffer_type, &geometry, with_map));
                }
            }
        }
        rows
    }

    fn space_snapshot(
        &self,
        allocator: &OpenAllocator<'_>,
        buffer_type: BufferType,
        geometry: &Geometry,
        with_map: bool,
    ) -> SpaceSnapshot {
        let free = self.free_of(allocator, buffer_type);
        let known = free.as_ref().ok();
        let space = self.spaces.get(allocator.address, buffer_type);
        let map = with_map && known.is_some();
        SpaceSnapshot {
            id: allocator.id,
            mesh: allocator.device.mesh,
            chips: allocator.device.chips.iter().map(|&at| self.topology.chips()[at]).collect(),
            buffer_type,
            maybe_closed: allocator.closed,
            base: geometry.base.filter(|_| geometry.banks > 0),
            bank_size: geometry.bank_size,
            banks: geometry.banks,
            alignment: geometry.alignment,
            block_minimum: (geometry.block_unit > 0).then_some(geometry.block_minimum),
            block_unit: (geometry.block_unit > 0).then_some(geometry.block_unit),
            free_bank_bytes: known.map(|free| free.bytes),
            largest_free_bank_bytes: known.map(|free| free.largest),
            holes: known.map(|free| free.holes),
            fragmentation_permille: known.map(Free::fragmentation_permille),
            checked: space.is_some_and(super::space::Space::is_checked),
            map: map.then(|| self.map_of(allocator, buffer_type)),
            unknown_because: free.err(),
        }
    }

    fn free_of(
        &self,
        allocator: &OpenAllocator<'_>,
        buffer_type: BufferType,
    ) -> Result<Free, String> {
        match &self.baseline {
            BaselineState::Read => {}
            BaselineState::Pending => return Err("older buffers are still being read".to_owned()),
            BaselineState::Unavailable(reason) => {
                return Err(format!("older buffers are not known: {reason}"));
            }
        }
        let space = self.spaces.get(allocator.address, buffer_type);
        let space = space.ok_or("the allocator has no such pool")?;
        space.free().map_err(|unknown| unknown.reason().to_owned())
    }

    /// Buffers and holes in order of address.
    fn map_of(&self, allocator: &OpenAllocator<'_>, buffer_type: BufferType) -> Vec<BlockSnapshot> {
        let inside = |live: &Live| {
            live.allocator == allocator.address && live.shape.buffer_type == buffer_type
        };
        let buffers = self.live.values().filter(inside).map(|live| BlockSnapshot {
            start: live.shape.address,
            end: DeviceAddr(live.end()),
            free: false,
            unique_id: live.shape.unique_id,
            size: Some(live.shape.size),
        });
        let space = self.spaces.get(allocator.address, buffer_type);
        let holes = space.into_iter().flat_map(super::space::Space::holes);
        let holes = holes.map(|(start, end)| BlockSnapshot {
            start: DeviceAddr(start),
            end: DeviceAddr(end),
            free: true,
            unique_id: None,
            size: None,
        });
        let mut blocks: Vec<BlockSnapshot> = buffers.chain(holes).collect();
        blocks.sort_unstable_by_key(|block| block.start);
        blocks
    }
}

impl Live {
    /// The first byte behind it.
    fn end(&self) -> u64 {
        let bytes = self.measured.map_or(0, |measured| measured.bank_bytes);
        self.shape.address.0.saturating_add(bytes)
    }
}
