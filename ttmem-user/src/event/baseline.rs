//! Facts read from the target's memory, beside those that events bring.

use super::types::{AllocatorSeen, BufferShape, DeviceSeen};
use crate::units::{Avma, ChipId};

/// The live buffers of a target, as read from its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveBaseline {
    /// Devices and meshes.
    pub devices: Vec<DeviceSeen>,
    /// Allocators.
    pub allocators: Vec<AllocatorSeen>,
    /// Live buffers.
    pub buffers: Vec<BaselineBuffer>,
    /// Buffers that a bulk free took before the attach; a late free of their own may follow.
    pub bulk_freed: Vec<Avma>,
    /// Chips that had a device: programs from before the attach may have buffers there.
    pub chips: Vec<ChipId>,
}

/// One live buffer, as read from the target's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaselineBuffer {
    /// `Buffer*`.
    pub buffer: Avma,
    /// `AllocatorImpl*`.
    pub allocator: Avma,
    /// `IDevice*`.
    pub device: Avma,
    /// What its fields say.
    pub shape: BufferShape,
    /// What the allocator's block table says it takes of each bank, bytes.
    pub block_bytes: Option<u64>,
}
