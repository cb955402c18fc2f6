//! Single figures of the state, each cheap enough to be asked for after every drain: nothing is
//! looked through, however many buffers live.

use super::{
    BaselineState, Ledger,
    snapshot::{Anomalies, Lost},
};
use crate::units::ChipId;

impl Ledger {
    /// The chips seen, in the order in which they were seen: a chip keeps its place.
    pub fn chips(&self) -> &[ChipId] {
        self.topology.chips()
    }

    /// Records of this target that could not be delivered.
    pub const fn lost(&self) -> Lost {
        self.lost
    }

    /// Events that disagreed with what was known.
    pub const fn anomalies(&self) -> Anomalies {
        self.anomalies
    }

    /// Readings of the target's memory after the first.
    pub const fn resyncs(&self) -> u64 {
        self.resync.done
    }

    /// Whether the buffers from before the attach are still being read.
    pub fn is_reading_baseline(&self) -> bool {
        self.baseline == BaselineState::Pending
    }

    /// Allocations that failed for want of memory; `None` if they cannot be seen.
    pub fn failure_count(&self) -> Option<u64> {
        self.failures.count()
    }
}
