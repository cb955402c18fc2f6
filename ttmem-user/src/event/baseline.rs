//! Facts read from the target's memory, beside those that events bring.

use super::{
    shared::SharedFile,
    types::{AllocatorSeen, BufferShape, BufferType, DeviceSeen},
};
use crate::units::{Avma, ChipId, DeviceAddr};

/// The live buffers of a target, as read from its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveBaseline {
    /// Devices and meshes.
    pub devices: Vec<DeviceSeen>,
    /// Allocators.
    pub allocators: Vec<AllocatorSeen>,
    /// Those of them that single devices own and that have no buffer: nobody uses them once the
    /// device is part of a mesh.
    pub spare: Vec<Avma>,
    /// Live buffers.
    pub buffers: Vec<BaselineBuffer>,
    /// Buffers that lost their block before the attach; a late free of their own may follow.
    pub swept: Vec<SweptBuffer>,
    /// What allocators say is free, as far as it could be read.
    pub free_lists: Vec<FreeListSeen>,
    /// Buffers with an address of their own on each core of which it could not be told whether they
    /// still have their blocks.
    pub per_core_unsure: u64,
    /// Free lists that could be read and are none: their blocks do not fill the bank. If the target
    /// changed them meanwhile, that means nothing.
    pub damaged: Vec<(Avma, BufferType)>,
    /// Whether it was read twice alike, with nothing attached: then no event is under way.
    pub steady: bool,
    /// Chips that had a device: programs from before the attach may have buffers there.
    pub chips: Vec<ChipId>,
    /// tt-metal's shared memory, if it was to be read.
    pub shared: Vec<SharedFile>,
}

/// A buffer that has no block any more, and still awaits its own free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweptBuffer {
    /// `Buffer*`.
    pub buffer: Avma,
    /// `AllocatorImpl*`.
    pub allocator: Avma,
    /// Buffer type.
    pub buffer_type: BufferType,
    /// The address that its free will give back, whosever it is by then.
    pub address: DeviceAddr,
    /// Whether it had one on each of some cores; then this is the first one's.
    pub per_core: bool,
}

/// What an allocator says is free of the banks of one buffer type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeListSeen {
    /// `AllocatorImpl*`.
    pub allocator: Avma,
    /// Buffer type.
    pub buffer_type: BufferType,
    /// Free blocks in order of address: the first byte, and the first byte behind.
    pub holes: Vec<(DeviceAddr, DeviceAddr)>,
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
