//! Allocators that give the start of their banks to sub-devices, and get it back.
//!
//! The event comes before the change. tt-metal refuses the change if a buffer is in the way, and
//! so it is known from the live set whether it happens.

use super::{Ledger, bounds::MAX_REMEMBERED};
use crate::event::Resized;

/// The resizes seen while the live buffers are being read for the first time: what is read of the
/// same allocators may be older.
#[derive(Debug, Default)]
pub(super) struct ResizedWhileReading(Vec<Resized>);

impl Ledger {
    pub(super) fn resized(&mut self, resized: &Resized) {
        self.spaces.stir(resized.allocator);
        if !self.has_baseline() && self.touched.is_some() {
            self.resized_while_reading.0.push(resized.clone());
            let remembered = self.resized_while_reading.0.len();
            self.bound("resizes during a reading", remembered, MAX_REMEMBERED);
        }
        self.resize(resized);
    }

    /// The first reading is over: what it says of pools is known, and may be older.
    pub(super) fn settle_resizes(&mut self) {
        for resized in std::mem::take(&mut self.resized_while_reading.0) {
            self.resize(&resized);
        }
    }

    fn resize(&mut self, resized: &Resized) {
        self.pay_for_live();
        self.pay_for_allocators();
        let after = resized.after.filter(|after| {
            let in_the_way = self.live.values().any(|live| {
                live.allocator == resized.allocator
                    && live.shape.buffer_type == resized.buffer_type
                    && after.base.is_some_and(|base| live.shape.address < base)
            });
            !in_the_way
        });
        let Some(pool) = after.or(resized.before) else { return };
        if let Some(pools) = self.topology.resize(resized.allocator, resized.buffer_type, pool) {
            self.learn_pools(resized.allocator, &pools, true);
        }
    }
}

#[cfg(test)]
mod tests;
