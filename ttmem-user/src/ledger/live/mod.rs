//! The live set: every live buffer by its `Buffer*`, in little memory.
//!
//! Entries lie packed in pages, without gaps: a buffer that goes is replaced by the last one. So
//! nothing is copied when the set grows, memory is given back when it shrinks, and whoever walks
//! it reads no hole. Two indices lead to an entry's place; they hold 4 bytes each and no key.
//!
//! The indices' hashes have a random key: which `Buffer*` there are is up to the target, and it
//! must not be able to make them all collide.
//!
//! What a buffer means is the ledger's business.
//!
//! Invariant: places 0 to `len` - 1 are filled, and the index of buffers leads to each just once.

mod index;
mod packed;
mod pages;

use super::{
    counters::{Measured, Share},
    late::Block,
};
use crate::{
    event::BufferShape,
    units::{Avma, Tid},
};
use index::Index;
use packed::Packed;
use pages::Pages;

/// One live buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Live {
    pub shape: BufferShape,
    /// Bytes per bank and in all banks of one chip.
    pub measured: Option<Measured>,
    pub allocator: Avma,
    /// Entry in the topology; `None` if the device is not known.
    pub device: Option<u32>,
    pub origin: Origin,
}

/// How a live buffer became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Its allocation was seen: thread and time (ns).
    Seen(Tid, u64),
    /// It was there before the attach.
    PreAttach,
    /// Its allocation was missed; a later reading of the target's memory found it.
    Missed,
}

impl Origin {
    /// Thread and time (ns) of the allocation, if it was seen.
    pub const fn seen(self) -> Option<(Tid, u64)> {
        match self {
            Self::Seen(tid, time_ns) => Some((tid, time_ns)),
            Self::PreAttach | Self::Missed => None,
        }
    }
}

/// All live buffers of one target.
#[derive(Debug, Default)]
pub(super) struct LiveSet {
    entries: Pages,
    by_buffer: Index<Avma>,
    /// The last buffer that got each block, while that is asked for.
    by_block: Option<Index<Block>>,
    /// Buffers of unknown size per bank.
    unmeasured: usize,
}

impl LiveSet {
    /// Live buffers.
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Live buffers whose bytes per bank are not known.
    pub const fn unmeasured(&self) -> usize {
        self.unmeasured
    }

    /// The buffer at a host address.
    #[inline]
    pub fn get(&self, buffer: Avma) -> Option<Live> {
        let place = self.by_buffer.find(buffer, &self.entries)?;
        Some(self.entries.get(place).live())
    }

    /// Takes a buffer in. One that is there already is replaced.
    #[inline]
    pub fn insert(&mut self, buffer: Avma, live: &Live) {
        let mut place = self.entries.push(Packed::new(buffer, live));
        if let Some(older) = self.by_buffer.set(place, &self.entries) {
            self.replace(older);
            place = older;
        }
        if let Some(by_block) = &mut self.by_block {
            by_block.set(place, &self.entries);
        }
        self.unmeasured += usize::from(live.measured.is_none());
    }

    /// Puts the last entry into the place of another, which goes.
    fn replace(&mut self, place: u32) {
        if let Some(by_block) = &mut self.by_block {
            by_block.forget(place, &self.entries);
        }
        self.by_buffer.relocate(self.entries.last_place(), place, &self.entries);
        let gone = self.entries.swap_remove(place).live();
        self.unmeasured -= usize::from(gone.measured.is_none());
    }

    /// Takes a buffer out.
    #[inline]
    pub fn remove(&mut self, buffer: Avma) -> Option<Live> {
        let place = self.by_buffer.take(buffer, &self.entries)?;
        let last = self.entries.last_place();
        if let Some(by_block) = &mut self.by_block {
            by_block.forget(place, &self.entries);
            by_block.relocate(last, place, &self.entries);
        }
        self.by_buffer.relocate(last, place, &self.entries);
        let live = self.entries.swap_remove(place).live();
        self.by_buffer.shrink(&self.entries);
        self.unmeasured -= usize::from(live.measured.is_none());
        Some(live)
    }

    /// The buffers, in no order.
    pub fn keys(&self) -> impl Iterator<Item = Avma> {
        self.entries.iter().map(Packed::buffer)
    }

    /// What is known of each buffer, in no order.
    pub fn values(&self) -> impl Iterator<Item = Live> {
        self.entries.iter().map(Packed::live)
    }

    /// Each buffer, and what is known of it, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Avma, Live)> {
        self.entries.iter().map(|entry| (entry.buffer(), entry.live()))
    }

    /// From here on buffers can be found by their block.
    pub fn index_blocks(&mut self) {
        if self.by_block.is_none() {
            let mut by_block = Index::default();
            for place in self.entries.places() {
                by_block.set(place, &self.entries);
            }
            self.by_block = Some(by_block);
        }
    }

    /// Nobody looks for blocks any more.
    pub fn forget_blocks(&mut self) {
        self.by_block = None;
    }

    /// Whether buffers can be found by their block.
    #[cfg(test)]
    pub const fn indexes_blocks(&self) -> bool {
        self.by_block.is_some()
    }

    /// The last buffer that got a block, if it is still live; `None` too if blocks are not indexed.
    pub fn at_block(&self, block: Block) -> Option<Avma> {
        let place = self.by_block.as_ref()?.find(block, &self.entries)?;
        Some(self.entries.get(place).buffer())
    }
}

impl Live {
    /// What it counts for in its pools.
    pub const fn share(&self) -> Share {
        let uneven = self.shape.spread.is_per_core();
        Share { size: self.shape.size, measured: self.measured, uneven }
    }

    /// What it would be freed by.
    pub const fn block(&self) -> Block {
        let (buffer_type, address) = (self.shape.buffer_type, self.shape.address);
        let per_core = self.shape.spread.is_per_core();
        Block { allocator: self.allocator, buffer_type, address, per_core }
    }
}

#[cfg(test)]
mod tests;
