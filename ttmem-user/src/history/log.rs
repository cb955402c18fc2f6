//! The latest changes, each with all that is to be known to undo it; the oldest go first.

use super::{
    pages::Pages,
    row::{Packed, Places, Row},
};
use crate::{
    ledger::delta::{Cause, Change},
    units::Tid,
};

/// Changes that are kept, if there is room for that many.
pub const MAX_ENTRIES: usize = 200_000;
/// A change, as it is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub time_ns: u64,
    pub row: Packed,
    tid: Option<Tid>,
    pub change: Change,
    cause: Cause,
}

/// A change, as readers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed<'a> {
    /// Counts the changes of the target from 1.
    pub sequence: u64,
    /// When, CLOCK_MONOTONIC nanoseconds; never before the change that it follows.
    pub time_ns: u64,
    /// The thread; `None` if no event told.
    pub tid: Option<Tid>,
    /// Whether the buffer came or went.
    pub change: Change,
    /// What made it known.
    pub cause: Cause,
    /// The buffer.
    pub row: Row<'a>,
}

/// A ring of changes. Their times never decrease.
#[derive(Clone, Debug)]
pub(super) struct Log {
    entries: Pages<Entry>,
    /// The oldest, once the ring is full.
    oldest: usize,
    limit: usize,
    /// The sequence of the newest.
    last: u64,
}

impl Entry {
    pub const fn new(
        time_ns: u64,
        row: Packed,
        tid: Option<Tid>,
        change: Change,
        cause: Cause,
    ) -> Self {
        Self { time_ns, row, tid, change, cause }
    }
}

impl Log {
    pub const fn new(limit: usize) -> Self {
        Self { entries: Pages::new(), oldest: 0, limit, last: 0 }
    }

    /// Adds the newest; when the one was that had to go.
    pub fn push(&mut self, entry: Entry, sequence: u64) -> Option<u64> {
        self.last = sequence;
        if self.limit == 0 {
            return Some(entry.time_ns);
        }
        if self.entries.len() < self.limit {
            self.entries.push(entry);
            return None;
        }
        let gone = std::mem::replace(&mut self.entries[self.oldest], entry);
        self.oldest = (self.oldest + 1) % self.limit;
        Some(gone.time_ns)
    }

    /// Keeps no more than so many from here on; when the newest of those was that had to go.
    pub fn set_limit(&mut self, limit: usize) -> Option<u64> {
        if limit == self.limit {
            return None;
        }
        let surplus = self.len().saturating_sub(limit);
        let gone = surplus.checked_sub(1).map(|place| self.nth(place).time_ns);
        let mut kept = Pages::new();
        for entry in self.oldest_first().skip(surplus) {
            kept.push(*entry);
        }
        (self.entries, self.oldest, self.limit) = (kept, 0, limit);
        gone
    }

    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    fn oldest_first(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        let all = self.len();
        self.entries.range(self.oldest, all).chain(self.entries.range(0, self.oldest))
    }

    /// One of them; the oldest is the first.
    fn nth(&self, place: usize) -> &Entry {
        &self.entries[(self.oldest + place) % self.len()]
    }

    /// The sequences that are kept: of the newest, and of the one before the oldest.
    pub const fn sequences(&self) -> (u64, u64) {
        (self.last, self.last.saturating_sub(self.len() as u64))
    }

    /// The change with this sequence, if it is kept.
    pub fn get(&self, sequence: u64) -> Option<&Entry> {
        let (newest, before) = self.sequences();
        let is_kept = sequence > before && sequence <= newest;
        let place = usize::try_from(sequence.checked_sub(before + 1)?).ok()?;
        is_kept.then(|| self.nth(place))
    }

    /// The sequence of the last change up to an instant; that before the oldest, if none is.
    pub fn last_until(&self, time_ns: u64) -> u64 {
        // There are places [0, low) up to then, and [high, len) later.
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.nth(middle).time_ns <= time_ns {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.sequences().1 + low as u64
    }

    /// The newest first, as readers see them.
    pub fn changes<'a>(&'a self, places: &'a Places) -> impl Iterator<Item = Changed<'a>> {
        let sequences = (0..=self.last).rev();
        self.oldest_first().rev().zip(sequences).map(|(entry, sequence)| Changed {
            sequence,
            time_ns: entry.time_ns,
            tid: entry.tid,
            change: entry.change,
            cause: entry.cause,
            row: entry.row.row(places),
        })
    }

    /// Forgets all; the next one follows the change with that sequence.
    pub fn clear(&mut self, last: u64) {
        (self.entries, self.oldest, self.last) = (Pages::new(), 0, last);
    }

    pub fn bytes(&self) -> usize {
        self.entries.bytes()
    }
}
