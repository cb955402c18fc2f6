//! What else happened: marks, failed allocations, loss, readings, gaps.
//!
//! All but marks and gaps is told by snapshots: what one says that the one before did not. So the
//! time of a loss is that of the snapshot which shows it first.

use std::collections::VecDeque;

use serde::Serialize;

use crate::{
    event::BufferType,
    ledger::snapshot::{Anomalies, Differences, Lost, Snapshot, TargetState},
};

/// Notes that are kept; then the oldest goes.
pub const MAX_NOTES: usize = 4096;
/// Characters of a mark's name, and of a reason.
const MAX_TEXT: usize = 120;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// When, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// What.
    pub what: Remark,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Remark {
    /// Somebody marked this moment.
    Mark(String),
    /// An allocation failed for want of memory.
    Failure {
        /// Counts the failures of the target from 1.
        id: u64,
        /// Buffer type.
        buffer_type: Option<BufferType>,
        /// Bytes of the whole buffer.
        size: Option<u64>,
    },
    /// Records were lost: how many more than before.
    Lost(Lost),
    /// Events disagreed with what was known: how many more than before.
    Anomalies(Anomalies),
    /// The target's memory was read again, and this differed.
    Resync(Differences),
    /// Its memory could not be read again.
    ResyncFailed,
    /// The numbers are exact from here on.
    Exact,
    /// They are not, and why.
    Inexact(String),
    /// The target has ended, or runs another program.
    Ended(TargetState),
    /// This recording fell behind: so many changes are missing in it.
    Gap {
        /// The last change before that is known, ns.
        from_ns: u64,
        /// How many are missing.
        changes: u64,
    },
}

/// The latest notes.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    kept: VecDeque<Note>,
    dropped: u64,
    seen: Option<Seen>,
}

/// What the last snapshot said.
#[derive(Clone, Debug)]
struct Seen {
    failure: u64,
    lost: Lost,
    anomalies: Anomalies,
    resyncs: (u64, u64),
    exact: bool,
    state: TargetState,
}

impl Seen {
    fn of(snapshot: &Snapshot) -> Self {
        Self {
            failure: snapshot.failures.last.last().map_or(0, |failure| failure.id),
            lost: snapshot.lost,
            anomalies: snapshot.anomalies,
            resyncs: (snapshot.resync.done, snapshot.resync.failed),
            exact: snapshot.exact,
            state: snapshot.state,
        }
    }
}

impl Notes {
    pub fn push(&mut self, time_ns: u64, what: Remark) {
        if self.kept.len() >= MAX_NOTES {
            self.kept.pop_front();
            self.dropped += 1;
        }
        // In the order of their time: a failure may be older than what was noted last.
        let after = self.kept.iter().rev().take_while(|note| note.time_ns > time_ns).count();
        self.kept.insert(self.kept.len() - after, Note { time_ns, what });
    }

    /// Oldest first.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Note> + Clone {
        self.kept.iter()
    }

    /// Notes that had to go.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Notes what a snapshot says that the one before did not; whether there was anything.
    pub fn observe(&mut self, snapshot: &Snapshot) -> bool {
        let now = Seen::of(snapshot);
        let first = self.seen.is_none();
        let nothing = Seen {
            failure: 0,
            lost: Lost::default(),
            anomalies: Anomalies::default(),
            resyncs: (0, 0),
            exact: now.exact,
            state: TargetState::Running,
        };
        let before = self.seen.replace(now.clone()).unwrap_or(nothing);
        let mut found = Vec::new();
        for failure in snapshot.failures.last.iter().filter(|it| it.id > before.failure) {
            let (buffer_type, size) = (failure.buffer_type, failure.size);
            self.push(failure.time_ns, Remark::Failure { id: failure.id, buffer_type, size });
        }
        if now.lost != before.lost {
            found.push(Remark::Lost(now.lost.since(before.lost)));
        }
        let anomalies = now.anomalies.since(&before.anomalies);
        if anomalies.total() > 0 {
            found.push(Remark::Anomalies(anomalies));
        }
        if now.resyncs.0 != before.resyncs.0 {
            found.push(Remark::Resync(snapshot.resync.last_differences.unwrap_or_default()));
        }
        if now.resyncs.1 != before.resyncs.1 {
            found.push(Remark::ResyncFailed);
        }
        match (now.exact, before.exact || first) {
            (false, true) => {
                let reason = snapshot.inexact_because.first().map_or("", String::as_str);
                found.push(Remark::Inexact(short(reason)));
            }
            (true, false) => found.push(Remark::Exact),
            _ => {}
        }
        if now.state != before.state {
            found.push(Remark::Ended(now.state));
        }
        let any = !found.is_empty() || now.failure != before.failure;
        for what in found {
            self.push(snapshot.time_ns, what);
        }
        any
    }

    pub fn bytes(&self) -> usize {
        let text = |note: &Note| match &note.what {
            Remark::Mark(text) | Remark::Inexact(text) => text.capacity(),
            _ => 0,
        };
        self.kept.capacity() * size_of::<Note>() + self.kept.iter().map(text).sum::<usize>()
    }
}

/// The begin of a text.
pub(super) fn short(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
