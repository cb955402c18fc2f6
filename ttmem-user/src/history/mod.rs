//! What a target has done so far, for the live view: what is live, how much was used when, what
//! happened, and what was live at an earlier instant.
//!
//! It is fed by deltas, on a thread of its own ([`recorder`]), and read under a lock. It knows
//! nothing that the deltas do not say: if it falls behind it says so, and is set right by what is
//! live then ([`Refill`]). Never asks for the time.
//!
//! Memory: what the live set takes (about 95 bytes a buffer, at most 200), and no more than
//! [`MAX_BYTES`] besides, however long the session. A copy shares all of it; one that is kept while
//! the history goes on ([`Past`]) takes as much again in the end, and no more.
//!
//! Invariant: without a gap, the live set is the ledger's, delta by delta; and undoing the log leads
//! to what it was, as far back as [`History::reach_ns`].

pub mod group;
mod growth;
mod line;
mod live;
mod log;
mod note;
mod order;
mod pages;
mod past;
pub mod recorder;
mod row;
mod tally;
mod timeline;
mod trust;

use crate::{
    ledger::{
        delta::{Cause, Change, Delta},
        snapshot::Snapshot,
    },
    units::Avma,
};

pub use growth::{GroupGrowth, MAX_MARKS, Mark, PoolGrowth};
use line::Step;
pub use line::{BUCKET_NS, Bucket, Level, Line, Span};
pub use live::{LiveSet, Page, Slot};
pub use log::{Changed, MAX_ENTRIES};
use log::{Entry, Log};
use note::Notes;
pub use note::{MAX_NOTES, Note, Remark};
pub use order::{Order, SortKey};
pub use past::{Past, Unreachable};
use row::Packed;
pub use row::{OwnedRow, ROW_BYTES, Row, RowOf};
pub use tally::{BINS, Bin, Histogram, RATE_SECONDS, Tally, ThreadRow, bin, bin_start};
pub use timeline::Timeline;
use trust::Trust;

/// What a history takes at most besides its live set, bytes.
pub const MAX_BYTES: usize = 32 << 20;

/// What is known of one target since it is recorded.
#[derive(Clone, Debug)]
pub struct History {
    /// The last delta's number.
    sequence: u64,
    /// The first and the last change, ns.
    started_ns: Option<u64>,
    time_ns: u64,
    live: LiveSet,
    timeline: Timeline,
    tally: Tally,
    log: Log,
    /// The earliest instant that the log leads back to, ns.
    reach_ns: u64,
    /// Older changes had to go, or were missed.
    forgotten: bool,
    notes: Notes,
    trust: Trust,
    marks: Vec<Mark>,
    gap: Option<Gap>,
    /// Changes that were missed, over all gaps.
    missed: u64,
    /// How often it was set right.
    refills: u64,
}

/// Changes that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last change before, ns.
    pub from_ns: u64,
    /// Whether it can still be filled: the target is there.
    pub healing: bool,
}

/// What is live, all at once.
#[derive(Clone, Debug)]
pub struct Refill {
    /// Every event up to then is in it, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// The number of the last delta in it.
    pub last_delta: u64,
    /// Each live buffer, as though it came now.
    pub live: Vec<Delta>,
}

impl Default for History {
    fn default() -> Self {
        Self::with_log(MAX_ENTRIES)
    }
}

impl History {
    /// An empty one that keeps so many changes, at most [`MAX_ENTRIES`].
    pub fn with_log(entries: usize) -> Self {
        Self {
            sequence: 0,
            started_ns: None,
            time_ns: 0,
            live: LiveSet::default(),
            timeline: Timeline::default(),
            tally: Tally::default(),
            log: Log::new(entries.min(MAX_ENTRIES)),
            reach_ns: 0,
            forgotten: false,
            notes: Notes::default(),
            trust: Trust::default(),
            marks: Vec::new(),
            gap: None,
            missed: 0,
            refills: 0,
        }
    }

    /// The last change that is in it, CLOCK_MONOTONIC nanoseconds; 0: none yet.
    pub const fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// The first change, ns.
    pub const fn started_ns(&self) -> Option<u64> {
        self.started_ns
    }

    /// The number of the last delta in it.
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What is live now.
    pub const fn live(&self) -> &LiveSet {
        &self.live
    }

    /// How much of each pool was used over the session.
    pub const fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// Sizes, lifetimes, threads.
    pub const fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Changes are missing, and what is live is not what is here.
    pub const fn gap(&self) -> Option<Gap> {
        self.gap
    }

    /// Changes that were missed since the recording began.
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// The latest changes, the newest first.
    pub fn changes(&self) -> impl Iterator<Item = Changed<'_>> {
        self.log.changes(&self.live.places)
    }

    /// How many changes are kept.
    pub const fn kept(&self) -> usize {
        self.log.len()
    }

    /// What else happened, the oldest first.
    pub fn notes(&self) -> impl DoubleEndedIterator<Item = &Note> + Clone {
        self.notes.all()
    }

    /// Notes for which there was no room any more.
    pub const fn notes_dropped(&self) -> u64 {
        self.notes.dropped()
    }

    /// The marks, the oldest first.
    pub fn marks(&self) -> &[Mark] {
        &self.marks
    }

    /// Bytes that it takes, the live set included.
    pub fn bytes(&self) -> usize {
        let marks: usize = self.marks.iter().map(Mark::bytes).sum();
        let parts = [self.live.bytes(), self.timeline.bytes(), self.tally.bytes()];
        size_of::<Self>()
            + parts.iter().sum::<usize>()
            + self.log.bytes()
            + self.notes.bytes()
            + self.trust.bytes()
            + marks
    }

    /// Takes one change in.
    pub fn apply(&mut self, delta: &Delta) {
        if self.gap.is_some() {
            return;
        }
        if self.sequence != 0 && delta.sequence != self.sequence + 1 {
            self.fell_behind();
            return;
        }
        // Two CPUs may tell of what they saw in another order than their clocks say.
        let time_ns = self.time_ns.max(delta.time_ns);
        self.time_ns = time_ns;
        if self.started_ns.is_none() {
            self.started_ns = Some(time_ns);
            self.reach_ns = time_ns;
        }
        let row = match delta.change {
            Change::Allocated => self.allocated(delta, time_ns),
            Change::Freed => self.freed(delta.buffer, time_ns),
        };
        let Some(row) = row else {
            // It disagrees with what is here: as good as a gap.
            self.fell_behind();
            return;
        };
        self.sequence = delta.sequence;
        let entry = Entry::new(time_ns, row, delta.tid, delta.change, delta.cause);
        if let Some(gone_ns) = self.log.push(entry, delta.sequence) {
            self.reach_ns = gone_ns;
            self.forgotten = true;
        }
    }

    fn allocated(&mut self, delta: &Delta, time_ns: u64) -> Option<Packed> {
        let row = Packed::new(delta, self.live.places.number(&delta.chips));
        if self.live.insert(row).is_some() {
            return None;
        }
        self.step(&row, time_ns, true);
        self.tally.allocated(&row, time_ns, delta.cause == Cause::Event);
        Some(row)
    }

    /// What is freed is what came: the row that is here, and not what the free says.
    fn freed(&mut self, buffer: Avma, time_ns: u64) -> Option<Packed> {
        let row = self.live.remove(buffer)?;
        self.step(&row, time_ns, false);
        self.tally.freed(&row, time_ns);
        Some(row)
    }

    fn step(&mut self, row: &Packed, time_ns: u64, allocated: bool) {
        let step = Step { time_ns, allocated, used_bytes: row.used_bytes() };
        self.timeline.step(row, &self.live.places, step);
    }

    /// Changes are missing from here on, until [`Self::refill`].
    pub fn fell_behind(&mut self) {
        if self.gap.is_none() {
            self.gap = Some(Gap { from_ns: self.time_ns, healing: true });
        }
    }

    /// What is missing will not come any more.
    pub fn cannot_heal(&mut self) {
        if let Some(gap) = &mut self.gap {
            gap.healing = false;
        }
    }

    /// Sets it right after a gap.
    pub fn refill(&mut self, refill: &Refill) {
        let from_ns = self.gap.take().map_or(self.time_ns, |gap| gap.from_ns);
        let changes = refill.last_delta.saturating_sub(self.sequence);
        self.missed = self.missed.saturating_add(changes);
        self.sequence = refill.last_delta;
        self.time_ns = self.time_ns.max(refill.time_ns);
        self.started_ns.get_or_insert(self.time_ns);
        self.live.clear();
        self.tally.forget_live();
        for delta in &refill.live {
            let place = self.live.places.number(&delta.chips);
            let row = Packed::new(delta, place);
            self.live.insert(row);
            self.tally.allocated(&row, self.time_ns, false);
        }
        self.timeline.jump(self.time_ns, self.live.packed(), &self.live.places);
        self.log.clear(refill.last_delta);
        self.refills += 1;
        self.reach_ns = self.time_ns;
        self.forgotten = true;
        self.notes.push(self.time_ns, Remark::Gap { from_ns, changes });
        for mark in &mut self.marks {
            mark.complete = false;
        }
    }

    /// Notes what a snapshot says that the one before did not; whether there was anything.
    pub fn observe(&mut self, snapshot: &Snapshot) -> bool {
        self.trust.observe(snapshot);
        self.notes.observe(snapshot)
    }

    /// Why the numbers of an instant are not known to be exact, as snapshots say it; `None`: they are.
    pub fn doubt(&self, time_ns: u64) -> Option<&str> {
        self.trust.doubt(time_ns)
    }

    /// Whether anything was in doubt between two instants, both included, once all had been known to be
    /// exact.
    pub fn was_in_doubt(&self, from_ns: u64, to_ns: u64) -> bool {
        self.trust.was_in_doubt(from_ns, to_ns)
    }

    /// Whether no later snapshot says anything else of an instant.
    pub fn is_settled(&self, time_ns: u64) -> bool {
        self.trust.is_settled(time_ns)
    }

    /// Marks an instant: what has changed since is not in the mark. The oldest of too many marks
    /// goes.
    pub fn mark(&mut self, name: &str, time_ns: u64) {
        let nothing = LiveSet::default();
        let past = self.at(time_ns);
        let live = match &past {
            Ok(past) => Some(&past.live),
            Err(Unreachable::BeforeTheStart) => Some(&nothing),
            Err(_) => None,
        };
        let mut mark = Mark::set(note::short(name), time_ns, live, &self.timeline);
        for change in self.changes().take_while(|change| change.time_ns > time_ns) {
            mark.leave_out(&change);
        }
        self.take_mark(mark);
    }

    /// Takes over a mark of an earlier copy.
    pub fn take_mark(&mut self, mark: Mark) {
        self.notes.push(mark.time_ns, Remark::Mark(mark.name.clone()));
        if self.marks.len() >= MAX_MARKS {
            self.marks.remove(0);
        }
        self.marks.push(mark);
    }

    /// Forgets a mark; the note of it stays.
    pub fn forget_mark(&mut self, name: &str) {
        self.marks.retain(|mark| mark.name != name);
    }

    /// What each pool has grown since a mark.
    pub fn growth(&self, mark: &Mark) -> Vec<PoolGrowth> {
        mark.pools(&self.timeline)
    }

    /// What each group of buffers has grown since a mark, the most grown first; `None`: unknown, as
    /// it is of ages and sites, and of a live group that is not in it.
    pub fn group_growth(&self, mark: &Mark, by: group::By) -> Option<Vec<GroupGrowth>> {
        mark.groups(by, &self.live)
    }

    /// Keeps no more than so many changes from here on, at most [`MAX_ENTRIES`].
    pub fn set_log_limit(&mut self, entries: usize) {
        if let Some(gone_ns) = self.log.set_limit(entries.min(MAX_ENTRIES)) {
            self.reach_ns = gone_ns;
            self.forgotten = true;
        }
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
