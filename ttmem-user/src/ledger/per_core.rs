//! Buffers with an address of their own on each core: what is counted of them, and what is not.
//!
//! Such a buffer takes a block of the banks of its cores, and none of the others. How much that is
//! altogether is known. Where it lies is not: no figure of a single bank can be given while there is
//! one, and what is free of such an allocator is not followed at all.
//!
//! A late free of such a buffer gives back, core by core, what is at its addresses by then. While no
//! other such buffer is there, that is nothing; else it cannot be told, and is a doubt until the next
//! reading of memory.

use super::Ledger;
use crate::{event::Spread, units::Avma};

/// What is known of such buffers of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PerCore {
    /// Live ones.
    live: u64,
    /// Those of them whose cores could not be counted.
    uncounted: u64,
    /// Late frees that may have taken the blocks of others, so far.
    late: u64,
    /// How many of them the last reading that settled everything knew of.
    settled: u64,
    /// Buffers of which the last reading could not tell whether they still have their blocks.
    unsure: u64,
}

impl PerCore {
    /// A buffer is live from here on.
    #[inline]
    pub fn enter(&mut self, spread: Spread) {
        if spread.is_per_core() {
            self.live += 1;
            self.uncounted += u64::from(spread == Spread::PerUnknownCore);
        }
    }

    /// A buffer goes; `spread` as it was entered.
    #[inline]
    pub fn leave(&mut self, spread: Spread) {
        if spread.is_per_core() {
            self.live -= 1;
            self.uncounted -= u64::from(spread == Spread::PerUnknownCore);
        }
    }

    /// Memory has been read; of `unsure` buffers it could not be told whether they have blocks.
    pub const fn read(&mut self, unsure: u64) {
        self.unsure = unsure;
    }

    /// Nothing was lost during that reading: what it says is all that is in doubt.
    pub const fn settle(&mut self) {
        self.settled = self.late;
    }

    /// Whether another reading may set something right.
    pub const fn is_doubtful(&self) -> bool {
        self.late > self.settled || self.unsure > 0
    }

    /// Why the numbers may be wrong: how many, and what.
    pub const fn doubts(&self) -> [(u64, &'static str); 3] {
        [
            (self.uncounted, "buffers with an address of their own on each core"),
            (self.late - self.settled, "late frees of buffers with an address on each core"),
            (self.unsure, "buffers with an address on each core that may have lost their blocks"),
        ]
    }
}

impl Ledger {
    /// A buffer goes that has lost its blocks before: whose blocks are at its addresses by now is
    /// not known.
    pub(super) fn late_free_per_core(&mut self, allocator: Avma) {
        if self.per_core.live > 0 {
            self.pay_for_live();
        }
        let others = self.per_core.live > 0
            && self.live.iter().any(|entry| entry.allocator() == allocator && entry.is_per_core());
        self.per_core.late += u64::from(others);
    }
}

#[cfg(test)]
mod tests;
