//! The latest changes, each with all that is to be known to undo it; the oldest go first.

use super::row::{Packed, Places, Row};
use crate::{
    ledger::delta::{Cause, Change},
    units::Tid,
};

/// Changes that are kept, if there is room for that many.
pub const MAX_ENTRIES: usize = 200_000;
/// Bytes that each takes.
pub(super) const ENTRY_BYTES: usize = size_of::<Entry>();

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

/// A ring of changes.
#[derive(Clone, Debug)]
pub(super) struct Log {
    entries: Vec<Entry>,
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
        Self { entries: Vec::new(), oldest: 0, limit, last: 0 }
    }

    /// Adds the newest; when the one was that had to go.
    pub fn push(&mut self, entry: Entry, sequence: u64) -> Option<u64> {
        self.last = sequence;
        if self.limit == 0 {
            return Some(entry.time_ns);
        }
        if self.entries.len() < self.limit {
            if self.entries.len() == self.entries.capacity() {
                let more = self.entries.len().clamp(1024, 65_536);
                self.entries.reserve_exact(more.min(self.limit - self.entries.len()));
            }
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
        let surplus = self.entries.len().saturating_sub(limit);
        self.entries.rotate_left(self.oldest);
        self.oldest = 0;
        let gone = self.entries.drain(..surplus).next_back().map(|entry| entry.time_ns);
        self.entries.shrink_to(limit);
        self.limit = limit;
        gone
    }

    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// The newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Entry> {
        let (newer, older) = self.entries.split_at(self.oldest);
        newer.iter().rev().chain(older.iter().rev())
    }

    /// The newest first, as readers see them.
    pub fn changes<'a>(&'a self, places: &'a Places) -> impl Iterator<Item = Changed<'a>> {
        let sequences = (0..=self.last).rev();
        self.newest_first().zip(sequences).map(|(entry, sequence)| Changed {
            sequence,
            time_ns: entry.time_ns,
            tid: entry.tid,
            change: entry.change,
            cause: entry.cause,
            row: entry.row.row(places),
        })
    }

    pub fn clear(&mut self) {
        self.entries = Vec::new();
        self.oldest = 0;
    }

    pub fn bytes(&self) -> usize {
        self.entries.capacity() * ENTRY_BYTES
    }
}
