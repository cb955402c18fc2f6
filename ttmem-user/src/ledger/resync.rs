//! Compares what is known with a later reading of the target's memory, and sets it right.
//!
//! As with the first reading ([`super::reconcile`]): of what an event was seen meanwhile, the
//! event decides. All else must agree; what does not is counted by kind.
//!
//! Invariant: a doubt is only laid to rest if nothing was lost while the memory was being read.

use super::{
    BaselineState, Ledger, Live, Origin,
    exactness::Settled,
    snapshot::{Differences, Lost},
};
use crate::{
    event::{BaselineBuffer, LiveBaseline},
    units::Avma,
};

/// What the ledger was like when a reading began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadingBegun {
    lost: Lost,
    undecodable: u64,
}

impl Ledger {
    /// The target's memory is about to be read. From here on every event is remembered.
    pub fn begin_reading(&mut self) -> ReadingBegun {
        self.touched.get_or_insert_default();
        ReadingBegun { lost: self.lost, undecodable: self.anomalies.undecodable }
    }

    /// Whether something went wrong that a reading could set right.
    pub fn needs_resync(&self) -> bool {
        let odd = self.anomalies.since(&self.settled.anomalies);
        self.lost != self.settled.lost
            || odd.unknown_free + odd.double_allocation + odd.undecodable > 0
    }

    /// Whether the target's memory has been read, so that a later reading can be compared.
    pub fn has_baseline(&self) -> bool {
        self.baseline == BaselineState::Read
    }

    /// Takes a later reading in; `false`: something was lost meanwhile, it settles nothing.
    ///
    /// Every event up to the end of the reading must have been applied, and the loss set.
    pub fn finish_resync(
        &mut self,
        begun: ReadingBegun,
        time_ns: u64,
        reading: Result<LiveBaseline, String>,
    ) -> bool {
        let Ok(reading) = reading else {
            self.touched = None;
            self.bulk_freed_while_reading.clear();
            self.resync.failed += 1;
            return false;
        };
        let touched = self.touched.take().unwrap_or_default();
        self.learn_places(&reading);
        let mut differences = Differences::default();
        let untouched = |buffer: Avma| !touched.contains(&buffer);
        for found in reading.buffers.iter().filter(|found| untouched(found.buffer)) {
            self.compare(found, &mut differences);
        }
        self.drop_stale(&reading, untouched, &mut differences);
        for allocator in std::mem::take(&mut self.bulk_freed_while_reading) {
            for buffer in self.buffers_of(allocator) {
                if untouched(buffer) {
                    self.release(buffer);
                    self.bulk_freed.insert(buffer);
                }
            }
        }
        self.anomalies.missed_allocation += differences.missed_allocation;
        self.anomalies.missed_free += differences.missed_free;
        self.anomalies.changed += differences.changed;
        self.resync.done += 1;
        self.resync.last_ns = Some(time_ns);
        self.resync.last_differences = Some(differences);
        self.baseline = BaselineState::Read;
        let steady = self.lost == begun.lost && self.anomalies.undecodable == begun.undecodable;
        if steady {
            self.settled = Settled { lost: self.lost, anomalies: self.anomalies };
            self.unknown_devices = self.on_unknown_devices();
        }
        steady
    }

    fn compare(&mut self, found: &BaselineBuffer, differences: &mut Differences) {
        let Some(live) = self.live.get(&found.buffer) else {
            if self.has_baseline() {
                differences.missed_allocation += 1;
                self.adopt(found, Origin::Missed);
                self.count(found.buffer, |pool| pool.allocations.add(1));
            } else {
                self.adopt(found, Origin::PreAttach);
            }
            return;
        };
        let same = same(live, found);
        let placed = !self.chips_of_live(live.device).is_empty();
        if same && placed {
            return;
        }
        // Another buffer may have come to the place of one whose free was missed.
        let origin = if live.shape.unique_id == found.shape.unique_id {
            live.origin
        } else {
            Origin::Missed
        };
        if !same {
            differences.changed += 1;
        }
        self.remove(found.buffer);
        self.adopt(found, origin);
    }

    /// Takes out what is not there any more. Buffers freed in bulk are known as such already, or
    /// are now.
    fn drop_stale(
        &mut self,
        reading: &LiveBaseline,
        untouched: impl Fn(Avma) -> bool,
        differences: &mut Differences,
    ) {
        let there: hashbrown::HashSet<Avma, foldhash::fast::FixedState> =
            reading.buffers.iter().map(|found| found.buffer).collect();
        let stale: Vec<Avma> = self
            .live
            .keys()
            .copied()
            .filter(|buffer| untouched(*buffer) && !there.contains(buffer))
            .collect();
        for buffer in stale {
            differences.missed_free += 1;
            self.release(buffer);
        }
        let late = reading.bulk_freed.iter().copied().filter(|buffer| untouched(*buffer));
        self.bulk_freed.extend(late);
    }

    fn on_unknown_devices(&self) -> u64 {
        let nowhere = |live: &&Live| self.chips_of_live(live.device).is_empty();
        self.live.values().filter(nowhere).count() as u64
    }
}

/// Whether what is known of a buffer is what was read of it.
fn same(live: &Live, found: &BaselineBuffer) -> bool {
    let bytes_agree = match (live.measured, found.block_bytes) {
        (Some(measured), Some(bytes)) => measured.bank_bytes == bytes,
        (None, Some(_)) => false,
        (_, None) => true,
    };
    live.allocator == found.allocator && live.shape == found.shape && bytes_agree
}
