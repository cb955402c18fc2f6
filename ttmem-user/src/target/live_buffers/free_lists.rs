//! What allocators say is free, from the tables of all their blocks.
//!
//! The tables are several vectors, and the target changes them while they are read. So a reading
//! counts only if its blocks lie one behind the other, without a gap, over the whole bank: what
//! comes from two moments does not. Else nothing is said.

use super::{
    Walk,
    blocks::{bytes, vector},
};
use crate::{
    event::{BufferType, FreeListSeen, LiveBaseline},
    resolve::plan::{BlockFlagsLayout, BlockTableLayout},
    target::memory::Unreadable,
    units::{Avma, DeviceAddr},
};

/// How often a table is read until its blocks fit together.
const ATTEMPTS: usize = 3;

/// A block: the first byte, the bytes, and whether it is allocated.
pub(super) type Block = (u64, u64, bool);

impl Walk<'_> {
    /// Reads the free blocks of every allocator that is known, as far as they can be read.
    pub(super) fn read_free_lists(&self, baseline: &mut LiveBaseline) {
        let layouts = (&self.memory_layout.blocks, &self.memory_layout.flags);
        let (Some(table), Some(flags)) = layouts else { return };
        for allocator in &baseline.allocators {
            for buffer_type in BufferType::ALL {
                let Some(pool) = allocator.pools[buffer_type.index()] else { continue };
                let Some(base) = pool.base.filter(|_| pool.banks > 0) else { continue };
                let bank = (base.0, pool.bank_size);
                let list = &table.free_list[buffer_type.index()];
                let read = || {
                    let list = Avma(self.memory.chain(allocator.allocator, list).ok()?);
                    holes(self.blocks(list, table, flags).ok()?, bank)
                };
                let allocator = allocator.allocator;
                if let Some(holes) = (0..ATTEMPTS).find_map(|_| read()) {
                    baseline.free_lists.push(FreeListSeen { allocator, buffer_type, holes });
                } else if pool.bank_size > 0 {
                    baseline.damaged.push((allocator, buffer_type));
                }
            }
        }
    }

    /// Every block of a free list.
    pub(super) fn blocks(
        &self,
        list: Avma,
        table: &BlockTableLayout,
        flags: &BlockFlagsLayout,
    ) -> Result<Vec<Block>, Unreadable> {
        let at = |offset: u32| list.plus(u64::from(offset));
        let base = self.memory.word(at(table.base))?;
        let addresses = vector(self, at(flags.addresses))?;
        let sizes = vector(self, at(table.sizes))?;
        let exists = bytes(self, at(flags.exists))?;
        let allocated = bytes(self, at(flags.allocated))?;
        let blocks = addresses.iter().zip(sizes).zip(exists.iter().zip(allocated));
        let there = blocks.filter(|(_, (exists, _))| **exists != 0);
        Ok(there
            .map(|((start, size), (_, allocated))| {
                (base.wrapping_add(*start), size, allocated != 0)
            })
            .collect())
    }
}

/// The free ones of the blocks of a bank (first byte, bytes); `None` if they do not fill it.
pub(super) fn holes(
    mut blocks: Vec<Block>,
    bank: (u64, u64),
) -> Option<Vec<(DeviceAddr, DeviceAddr)>> {
    blocks.sort_unstable();
    let mut next = bank.0;
    let mut holes = Vec::new();
    for (start, size, allocated) in blocks {
        let end = start.checked_add(size).filter(|end| start == next && *end > start)?;
        if !allocated {
            holes.push((DeviceAddr(start), DeviceAddr(end)));
        }
        next = end;
    }
    (next.checked_sub(bank.0)? == bank.1).then_some(holes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(blocks: &[Block]) -> Option<Vec<(u64, u64)>> {
        let holes = holes(blocks.to_vec(), (100, 50))?;
        Some(holes.into_iter().map(|(start, end)| (start.0, end.0)).collect())
    }

    #[test]
    fn blocks_that_fill_the_bank_are_believed() {
        assert_eq!(found(&[(100, 50, false)]), Some(vec![(100, 150)]));
        assert_eq!(found(&[(100, 50, true)]), Some(vec![]));
        let blocks = [(130, 5, false), (100, 10, false), (135, 15, true), (110, 20, true)];
        assert_eq!(found(&blocks), Some(vec![(100, 110), (130, 135)]));
    }

    #[test]
    fn blocks_of_two_moments_are_not() {
        assert_eq!(found(&[]), None, "nothing");
        assert_eq!(found(&[(100, 49, false)]), None, "too little");
        assert_eq!(found(&[(100, 51, false)]), None, "too much");
        assert_eq!(found(&[(100, 20, true), (121, 29, false)]), None, "a gap");
        assert_eq!(found(&[(100, 20, true), (119, 31, false)]), None, "an overlap");
        assert_eq!(found(&[(99, 51, true)]), None, "before the bank");
        assert_eq!(found(&[(100, 50, true), (150, 0, false)]), None, "an empty block");
        assert_eq!(found(&[(100, u64::MAX, true)]), None, "around the end of all addresses");
    }
}
