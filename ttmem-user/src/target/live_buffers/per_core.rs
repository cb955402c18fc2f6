//! Whether buffers with an address of their own on each core still have their blocks.
//!
//! Each bank has a free list of its own for them. What these lists have given away altogether is what
//! all such buffers of the allocator take, if all have their blocks; it is nothing, if all went in a
//! bulk free. Anything else cannot be told apart, and is said to be unsure.

use super::{Walk, free_lists, owners};
use crate::{
    event::{BaselineBuffer, BufferType, Geometry, LiveBaseline},
    units::Avma,
};

/// How often the lists are read until they say what is expected: they change meanwhile.
const ATTEMPTS: usize = 3;

impl Walk<'_> {
    /// Enters such buffers of one allocator; the device of one that is live.
    pub(super) fn enter_per_core(
        &self,
        allocator: Avma,
        found: Vec<BaselineBuffer>,
        baseline: &mut LiveBaseline,
    ) -> Option<Avma> {
        if found.is_empty() {
            return None;
        }
        let pool = self.pools_of(allocator)[BufferType::L1.index()];
        let taken = || self.taken_by_core(allocator, &pool?);
        // Where a buffer cannot be measured, nothing is exact anyway.
        if let Some(expected) = pool.as_ref().and_then(|pool| sum(pool, &found)) {
            let last = (0..ATTEMPTS).map(|_| taken()).find(|taken| *taken == Some(expected));
            match last.unwrap_or_else(taken) {
                Some(taken) if taken == expected => {}
                Some(0) => {
                    baseline.swept.extend(found.iter().map(owners::swept));
                    return None;
                }
                _ => baseline.per_core_unsure += found.len() as u64,
            }
        }
        let device = found.first().map(|found| found.device);
        baseline.buffers.extend(found);
        device
    }

    /// What the free lists of the single banks have given away, in bytes of all banks.
    fn taken_by_core(&self, allocator: Avma, pool: &Geometry) -> Option<u64> {
        let layout = self.memory_layout.core_lists.as_ref()?;
        let table = self.memory_layout.blocks.as_ref()?;
        let flags = self.memory_layout.flags.as_ref()?;
        let count = self.memory.chain(allocator, &layout.count).ok()?;
        // The first is the one that all banks share.
        if count != u64::from(pool.banks) + 1 {
            return None;
        }
        let first = Avma(self.memory.chain(allocator, &layout.lists).ok()?);
        let lists = self.memory.words(first, usize::try_from(count).ok()?).ok()?;
        let bank = (pool.base?.0, pool.bank_size);
        let mut taken = 0_u64;
        for list in lists.into_iter().skip(1) {
            let holes = free_lists::holes(self.blocks(Avma(list), table, flags).ok()?, bank)?;
            let free: u64 = holes.iter().map(|(start, end)| end.0 - start.0).sum();
            taken = taken.checked_add(pool.bank_size.checked_sub(free)?)?;
        }
        Some(taken)
    }
}

/// What buffers take of all banks together; `None` if that is not known of one of them.
fn sum(pool: &Geometry, buffers: &[BaselineBuffer]) -> Option<u64> {
    buffers.iter().try_fold(0_u64, |sum, buffer| {
        let shape = &buffer.shape;
        let of_it = pool.bank_bytes(shape)?.checked_mul(pool.banks_of(shape.spread)?.into())?;
        sum.checked_add(of_it).filter(|_| shape.buffer_type == BufferType::L1)
    })
}
