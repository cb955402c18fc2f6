//! The live set: every live buffer by its `Buffer*`, in little memory.
//!
//! Entries lie in pages that never move, nearly without gaps: so nothing is copied when the set
//! grows, and memory is given back when it shrinks. Two indices lead to an entry's place; they hold
//! 8 bytes each and no key.
//!
//! The indices' hashes have a random key: which `Buffer*` there are is up to the target, and it
//! must not be able to make them all collide.
//!
//! What a buffer means is the ledger's business.
//!
//! Invariant: the index of buffers leads to each entry just once.

mod entry;
mod index;
mod slab;

use super::{
    counters::{Measured, Share},
    late::Block,
};
use crate::{
    event::BufferShape,
    units::{Avma, Tid},
};
pub(super) use entry::{Entry, Facts};
use index::Index;
pub use index::Tag;
pub(super) use slab::LivePlace;
use slab::Slab;

/// So many entries lie in a processor's own cache, and leave room there for all else: half a MiB with
/// their index.
const CACHED: usize = 4096;

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

/// A buffer that becomes live. What it is stays where it is until it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coming<'a> {
    /// `Buffer*`.
    pub buffer: Avma,
    pub shape: &'a BufferShape,
    /// Bytes per bank and in all banks of one chip.
    pub measured: Option<Measured>,
    pub allocator: Avma,
    /// Entry in the topology; `None` if the device is not known.
    pub device: Option<u32>,
    pub origin: Origin,
}

impl Coming<'_> {
    /// What each event asks of it.
    #[inline]
    pub fn facts(&self) -> Facts {
        let uneven = self.shape.spread.is_per_core();
        Facts {
            buffer: self.buffer,
            allocator: self.allocator,
            buffer_type: self.shape.buffer_type,
            address: self.shape.address,
            device: self.device,
            share: Share { size: self.shape.size, measured: self.measured, uneven },
            spread: self.shape.spread,
        }
    }
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
    entries: Slab,
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
    pub fn get(&self, buffer: Avma) -> Option<Live> {
        Some(self.at(self.find(buffer)?).live())
    }

    /// Where a buffer is.
    #[inline]
    pub fn find(&self, buffer: Avma) -> Option<LivePlace> {
        self.by_buffer.find(buffer, &self.entries)
    }

    /// Whether it is larger than what a processor's own cache holds.
    pub const fn is_far(&self) -> bool {
        self.len() > CACHED
    }

    /// Has the processor fetch what [`Self::expect`] reads.
    #[inline]
    pub fn announce(&self, buffer: Avma) -> Tag {
        let tag = self.by_buffer.tag(buffer);
        self.by_buffer.fetch(tag);
        tag
    }

    /// Has the processor fetch the entry of a buffer that has been announced.
    #[inline]
    pub fn expect(&self, announced: Tag) {
        self.by_buffer.may_be_at(announced, |place| self.entries.fetch(place));
    }

    /// What is at a place. Of a buffer that has been taken out the entry stays until the next change.
    #[inline]
    pub fn at(&self, place: LivePlace) -> &Entry {
        self.entries.get(place)
    }

    /// Takes a buffer in. `Err`: where one is already that has to be taken out first.
    #[inline]
    pub fn insert(&mut self, coming: &Coming<'_>) -> Result<LivePlace, LivePlace> {
        let place = self.by_buffer.put(coming, &mut self.entries)?;
        if let Some(by_block) = &mut self.by_block {
            by_block.set(place, &self.entries);
        }
        self.unmeasured += usize::from(coming.measured.is_none());
        Ok(place)
    }

    /// Takes a buffer out; where it was.
    #[inline]
    pub fn remove(&mut self, buffer: Avma) -> Option<LivePlace> {
        if self.entries.is_wasteful() {
            self.compact();
        }
        let place = self.by_buffer.take(buffer, &self.entries)?;
        if let Some(by_block) = &mut self.by_block {
            by_block.forget(place, &self.entries);
        }
        self.unmeasured -= usize::from(self.at(place).measured().is_none());
        self.entries.vacate(place);
        Some(place)
    }

    /// Gives memory back.
    #[cold]
    fn compact(&mut self) {
        let Self { entries, by_buffer, by_block, .. } = self;
        entries.compact(|entries, from, to| {
            by_buffer.relocate(from, to, entries);
            if let Some(by_block) = by_block {
                by_block.relocate(from, to, entries);
            }
        });
        by_buffer.shrink();
        if let Some(by_block) = by_block {
            by_block.shrink();
        }
    }

    /// The buffers, in no order.
    pub fn keys(&self) -> impl Iterator<Item = Avma> {
        self.entries.iter().map(Entry::buffer)
    }

    /// What is known of each buffer, in no order.
    pub fn values(&self) -> impl Iterator<Item = Live> {
        self.entries.iter().map(Entry::live)
    }

    /// The entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
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
    pub const fn indexes_blocks(&self) -> bool {
        self.by_block.is_some()
    }

    /// The last buffer that got a block, if it is still live; `None` too if blocks are not indexed.
    pub fn at_block(&self, block: Block) -> Option<Avma> {
        let place = self.by_block.as_ref()?.find(block, &self.entries)?;
        Some(self.entries.get(place).buffer())
    }
}

#[cfg(test)]
mod tests;
