//! Compares what is known with a later reading of the target's memory, and sets it right.
//!
//! As with the first reading ([`super::reconcile`]): of what an event was seen meanwhile, the
//! event decides. All else must agree. But an event comes a moment before or after the change in
//! memory that it stands for, and a thread may be stopped in between for a while. So a difference
//! counts only if a second reading shows the same one, with no event of that buffer since.
//!
//! Invariant: a doubt is only laid to rest if nothing was lost while the memory was being read.

use hashbrown::{HashMap, HashSet};

use super::{
    BaselineState, Entry, Ledger, Live, Origin,
    delta::Cause,
    exactness::Settled,
    snapshot::{Differences, Lost},
};
use crate::{
    event::{BaselineBuffer, LiveBaseline},
    units::Avma,
};

/// Readings in which some difference is always new; then those seen twice are taken as true.
const MAX_ROUNDS: u32 = 5;

/// What the ledger was like when a reading began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadingBegun {
    lost: Lost,
    undecodable: u64,
    /// Nobody asked for it: it only confirms the first reading.
    confirms: bool,
}

/// What became of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resynced {
    /// What was in doubt has been set right.
    Settled,
    /// It failed, or something was lost meanwhile: another one has to begin.
    Unsettled,
    /// Something differs: it has to be read once more, to be sure.
    Suspicious,
}

/// What differs, and has been seen to differ before.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    differences: HashMap<Avma, Difference, foldhash::fast::RandomState>,
    rounds: u32,
}

/// How a buffer differs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Difference {
    /// It is in memory, and not known.
    MissedAllocation(BaselineBuffer),
    /// It is known as live, and not in memory.
    MissedFree,
    /// It is not what is known of it.
    Changed(BaselineBuffer),
}

impl Ledger {
    /// The target's memory is about to be read. From here on every event is remembered.
    pub fn begin_reading(&mut self) -> ReadingBegun {
        self.touched.get_or_insert_default();
        self.suspicion = Suspicion::default();
        self.spaces.begin_reading();
        let undecodable = self.anomalies.undecodable;
        ReadingBegun { lost: self.lost, undecodable, confirms: false }
    }

    /// The same, to see whether frees were under way when the probes came: they have no event.
    pub fn begin_confirmation(&mut self) -> ReadingBegun {
        ReadingBegun { confirms: true, ..self.begin_reading() }
    }

    /// Whether something went wrong that a reading could set right, or may have.
    pub fn needs_resync(&self) -> bool {
        !self.bounds.is_beyond() && (self.has_gone_wrong() || self.spaces.is_suspected())
    }

    /// Whether something went wrong that a reading could set right.
    pub(super) fn has_gone_wrong(&self) -> bool {
        let odd = self.anomalies.since(&self.settled.anomalies);
        self.lost != self.settled.lost
            || odd.unknown_free + odd.double_allocation + odd.undecodable > 0
            || odd.overlap + odd.free_list_mismatch > 0
            || self.per_core.is_doubtful()
    }

    /// Whether the target's memory has been read, so that a later reading can be compared.
    pub fn has_baseline(&self) -> bool {
        self.baseline == BaselineState::Read
    }

    /// Takes a later reading in. Every event up to its end must have been applied, and the loss
    /// set.
    pub fn finish_resync(
        &mut self,
        begun: ReadingBegun,
        time_ns: u64,
        reading: Result<LiveBaseline, String>,
    ) -> Resynced {
        let Ok(reading) = self.bounded(reading) else {
            self.give_up_reading();
            self.resync.failed += 1;
            // Beyond the bounds no other reading would help.
            let beyond = self.bounds.is_beyond();
            return if beyond { Resynced::Settled } else { Resynced::Unsettled };
        };
        self.review_peaks();
        self.learn_places(&reading);
        let mut found = self.differences(&reading);
        let before = std::mem::take(&mut self.suspicion);
        let seen_before = |buffer: &Avma, how: &Difference| {
            before.differences.get(buffer).is_some_and(|earlier| earlier == how)
        };
        if found.iter().any(|(buffer, how)| !seen_before(buffer, how)) {
            if before.rounds < MAX_ROUNDS {
                self.suspicion = Suspicion { differences: found, rounds: before.rounds + 1 };
                return Resynced::Suspicious;
            }
            found.retain(|buffer, how| seen_before(buffer, how));
        }
        self.note_doubts_for_marks();
        let differ = self.because(Cause::Resync, |ledger| ledger.set_right(found, &reading));
        if !begun.confirms || differ != Differences::default() || self.needs_resync() {
            self.resync.done += 1;
            self.resync.last_ns = Some(time_ns);
            self.resync.last_differences = Some(differ);
        }
        if !self.has_baseline() {
            self.miss_peaks();
        }
        self.baseline = BaselineState::Read;
        self.per_core.read(reading.per_core_unsure);
        if self.lost != begun.lost || self.anomalies.undecodable != begun.undecodable {
            return Resynced::Unsettled;
        }
        // The size of a buffer that no reading has to tell is computed in the way that was wrong once.
        let size_mismatch = self.settled.anomalies.size_mismatch;
        self.settled = Settled { lost: self.lost, anomalies: self.anomalies };
        self.settled.anomalies.size_mismatch = size_mismatch;
        self.unknown_devices = self.on_unknown_devices();
        self.per_core.settle();
        // Only now: what they contradict is a doubt of its own.
        self.check_free_lists(&reading);
        self.review_peaks();
        Resynced::Settled
    }

    /// How each buffer differs of which no event was seen since the reading began.
    fn differences(
        &self,
        reading: &LiveBaseline,
    ) -> HashMap<Avma, Difference, foldhash::fast::RandomState> {
        let touched = self.touched.as_ref();
        let untouched = |buffer: &Avma| touched.is_none_or(|touched| !touched.contains(buffer));
        let found = reading.buffers.iter().filter(|found| untouched(&found.buffer));
        let mut differences: HashMap<Avma, Difference, _> = found
            .filter_map(|found| match self.live.get(found.buffer) {
                None => Some((found.buffer, Difference::MissedAllocation(found.clone()))),
                Some(live) if same(&live, found) => None,
                Some(_) => Some((found.buffer, Difference::Changed(found.clone()))),
            })
            .collect();
        let there: HashSet<Avma, foldhash::fast::RandomState> =
            reading.buffers.iter().map(|found| found.buffer).collect();
        let gone = self.live.keys().filter(|buffer| untouched(buffer) && !there.contains(buffer));
        differences.extend(gone.map(|buffer| (buffer, Difference::MissedFree)));
        differences
    }

    fn set_right(
        &mut self,
        differences: HashMap<Avma, Difference, foldhash::fast::RandomState>,
        reading: &LiveBaseline,
    ) -> Differences {
        let touched = self.touched.take().unwrap_or_default();
        let first = !self.has_baseline();
        let mut counts = Differences::default();
        // All that goes is gone before anything comes: nobody is shown both at a time.
        let mut come = Vec::new();
        for (buffer, difference) in differences {
            match difference {
                Difference::MissedAllocation(found) if first => {
                    come.push((found, Origin::PreAttach, false));
                }
                Difference::MissedAllocation(found) => {
                    counts.missed_allocation += 1;
                    come.push((found, Origin::Missed, true));
                }
                Difference::MissedFree => {
                    let Some(place) = self.take_out(buffer, true) else { continue };
                    // Its free was under way when the probes came: nothing was missed since.
                    let under_way = self.may_have_been_under_way(self.live.at(place));
                    counts.missed_free += u64::from(!under_way);
                    self.forget_peaks_of(&self.live.at(place).facts());
                }
                Difference::Changed(found) => {
                    counts.changed += 1;
                    let origin = self.origin_of(&found);
                    if let Some(place) = self.take_out(buffer, false) {
                        self.forget_peaks_of(&self.live.at(place).facts());
                    }
                    come.push((found, origin, false));
                }
            }
        }
        for (found, origin, counted) in come {
            let facts = self.adopt(&found, origin, counted);
            if !first {
                self.forget_peaks_of(&facts);
            }
        }
        self.confirmed = true;
        self.place(reading, &touched);
        let late = reading.swept.iter().filter(|swept| !touched.contains(&swept.buffer));
        self.swept.extend(late.copied());
        self.settle_late_frees(|buffer| !touched.contains(&buffer));
        let freed = std::mem::take(&mut self.bulk_freed_while_reading);
        for buffer in self.buffers_of(|allocator| freed.contains(&allocator)) {
            if !touched.contains(&buffer) {
                self.sweep(buffer);
            }
        }
        self.anomalies.missed_allocation += counts.missed_allocation;
        self.anomalies.missed_free += counts.missed_free;
        self.anomalies.changed += counts.changed;
        self.restart_spaces();
        counts
    }

    /// Whether a buffer that has gone without an event can have been in its free when the probes
    /// came: it was there at the first reading, no other has followed, and nothing was lost.
    pub(super) fn may_have_been_under_way(&self, entry: &Entry) -> bool {
        entry.is_pre_attach() && !self.confirmed && self.lost == self.settled.lost
    }

    /// Another buffer may have come to the place of one whose free was missed.
    fn origin_of(&self, found: &BaselineBuffer) -> Origin {
        let known = self.live.get(found.buffer);
        let same_one = known.filter(|live| live.shape.unique_id == found.shape.unique_id);
        same_one.map_or(Origin::Missed, |live| live.origin)
    }

    /// Buffers whose device was not known may have found it.
    fn place(
        &mut self,
        reading: &LiveBaseline,
        touched: &HashSet<Avma, foldhash::fast::RandomState>,
    ) {
        for found in reading.buffers.iter().filter(|found| !touched.contains(&found.buffer)) {
            let nowhere = |live: &Live| self.chips_of_live(live.device).is_empty();
            if self.live.get(found.buffer).as_ref().is_some_and(nowhere) {
                let origin = self.origin_of(found);
                self.adopt(found, origin, false);
            }
        }
    }

    fn on_unknown_devices(&self) -> u64 {
        let nowhere = |live: &Live| self.chips_of_live(live.device).is_empty();
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

#[cfg(test)]
mod tests;
