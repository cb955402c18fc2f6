//! Buffers that have lost their block, and await their own free.
//!
//! A bulk free takes the blocks of all buffers of an allocator; the `Buffer` objects stay. When
//! such an object goes, tt-metal frees by address alone: if another buffer has got that address
//! meanwhile, its block is given back, although it lives on. That one has then lost its block in
//! turn. tt-metal's own figures count blocks, so what is live here is what has a block.
//!
//! Whose a block is must be looked up by address only then: the index is built by the first late
//! free and kept until no buffer awaits one.
//!
//! Invariant: a buffer is live, or in here, or neither; never both.

use hashbrown::HashMap;

use super::{Ledger, bounds::MAX_BUFFERS};
use crate::{
    event::{BufferType, SweptBuffer},
    units::{Avma, DeviceAddr},
};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Where a block begins: what tt-metal frees by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Block {
    pub allocator: Avma,
    pub buffer_type: BufferType,
    pub address: DeviceAddr,
    /// One on each of some cores, each at an address of its own: this is the first one's.
    pub per_core: bool,
}

/// The buffers of one target that have lost their block.
#[derive(Debug, Default)]
pub(super) struct Swept {
    buffers: Map<Avma, Block>,
    /// Blocks of live buffers that were given back by the late free of another.
    taken: u64,
    /// Frees of unknown buffers while memory was being read: whose blocks they gave back is not
    /// known before the end of the reading.
    while_reading: Vec<Block>,
}

impl Swept {
    /// Whether no buffer went in a bulk free.
    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    /// How many did.
    pub fn len(&self) -> usize {
        self.buffers.len()
    }

    /// A buffer has lost its block.
    pub fn insert(&mut self, buffer: Avma, block: Block) {
        self.buffers.insert(buffer, block);
    }

    /// Buffers that had lost their block before they were first read.
    pub fn extend(&mut self, found: impl Iterator<Item = SweptBuffer>) {
        for swept in found {
            let SweptBuffer { buffer, allocator, buffer_type, address, per_core } = swept;
            self.insert(buffer, Block { allocator, buffer_type, address, per_core });
        }
    }

    /// A buffer is freed, or another one has come to its place; what its free gives back.
    #[inline]
    pub fn remove(&mut self, buffer: Avma) -> Option<Block> {
        if self.buffers.is_empty() {
            return None;
        }
        self.buffers.remove(&buffer)
    }

    /// Blocks of live buffers that were given back by the late free of another.
    pub const fn taken(&self) -> u64 {
        self.taken
    }
}

impl Ledger {
    /// A new buffer has come to the place of one that awaited its free, if there was one.
    #[inline]
    pub(super) fn supersede_swept(&mut self, buffer: Avma) {
        if self.swept.remove(buffer).is_some() {
            self.forget_blocks_unless_awaited();
        }
    }

    /// The index by block is of no use while no late free can come.
    fn forget_blocks_unless_awaited(&mut self) {
        if self.swept.is_empty() && self.touched.is_none() {
            self.live.forget_blocks();
        }
    }

    /// A buffer goes that has lost its block before: whoever is at its address loses its own.
    pub(super) fn late_free(&mut self, block: Block) {
        if block.per_core {
            self.late_free_per_core(block.allocator);
            self.forget_blocks_unless_awaited();
            return;
        }
        self.index_blocks();
        if let Some(owner) = self.live.at_block(block) {
            self.touch(owner);
            self.swept.taken += 1;
            self.sweep(owner);
        }
        self.forget_blocks_unless_awaited();
    }

    /// A live buffer loses its block.
    pub(super) fn sweep(&mut self, buffer: Avma) {
        let Some(place) = self.take_out(buffer, true) else { return };
        self.swept.insert(buffer, self.live.at(place).block());
        self.bound_swept();
    }

    fn index_blocks(&mut self) {
        if !self.live.indexes_blocks() {
            self.pay_for_live();
            self.live.index_blocks();
        }
    }

    /// A free of an unknown buffer while memory is being read. If its block is another's, it had
    /// lost its own.
    pub(super) fn free_while_reading(&mut self, block: Block) {
        self.late_free(block);
        self.swept.while_reading.push(block);
        let remembered = self.swept.while_reading.len();
        self.bound("frees of unknown buffers during a reading", remembered, MAX_BUFFERS);
    }

    /// All probes are in place, every event so far has been applied, and the first reading is about
    /// to begin.
    ///
    /// Of frees until now the memory says what became of their buffers and blocks. One that it
    /// will show at the same place may have come since, before the allocations were watched: it
    /// has not been freed, nor lost its block.
    pub fn all_probes_attached(&mut self) {
        self.swept.while_reading.clear();
        self.bulk_freed_while_reading.clear();
        self.attaching = false;
    }

    /// The reading is over, and has found nothing.
    pub(super) fn forget_late_frees(&mut self) {
        self.swept.while_reading.clear();
        self.forget_blocks_unless_awaited();
    }

    /// The reading is over: what it found at the blocks that were given back meanwhile, and of
    /// which no event was seen, was there before. So it has lost its block.
    pub(super) fn settle_late_frees(&mut self, untouched: impl Fn(Avma) -> bool) {
        let while_reading = std::mem::take(&mut self.swept.while_reading);
        if !while_reading.is_empty() {
            self.index_blocks();
        }
        for block in while_reading {
            if block.per_core {
                self.late_free_per_core(block.allocator);
                continue;
            }
            if let Some(owner) = self.live.at_block(block).filter(|owner| untouched(*owner)) {
                self.swept.taken += 1;
                self.sweep(owner);
            }
        }
        self.forget_blocks_unless_awaited();
    }
}

#[cfg(test)]
mod tests;
