//! Failed allocations: all are counted, the last ones are kept, with the live set of that instant.
//!
//! A frozen live set costs time and memory, so both are bounded. A set that has not changed since
//! the last failure is shared. Freezing is paid for out of an allowance that grows with the time
//! that the events bring: [`FREEZE_PER_SECOND`] buffers. The sets kept together hold at most
//! [`MAX_FROZEN`] buffers; the oldest go first. A failure whose set was given up keeps its numbers.
//!
//! Of failures in quick succession the first ones and the last are kept.
//!
//! Invariant: the count is that of all failures seen, whatever is kept.

use std::{
    cell::OnceCell,
    collections::VecDeque,
    sync::{Arc, OnceLock},
};

use super::{
    BaselineState, Ledger,
    failure_view::NOT_ATTACHED,
    snapshot::{BufferSnapshot, Failure, FailuresSnapshot},
};
use crate::{event::AllocationFailed, units::Tid};

/// Buffers that may be frozen per second: about a tenth of a processor.
const FREEZE_PER_SECOND: u64 = 1_000_000;
/// Buffers that may be frozen at once.
const ALLOWANCE: u64 = FREEZE_PER_SECOND;
/// Buffers that all frozen sets together may hold, about 200 bytes each.
const MAX_FROZEN: usize = 1_000_000;
/// Failures closer together than this follow in quick succession.
const BURST_GAP_NS: u64 = 10_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Of a live set from before a reading that no snapshot had been taken of until then.
const SET_RIGHT: &str = "something was lost or odd about that time, and set right later";

/// The failed allocations of one target.
#[derive(Debug)]
pub(super) struct Failures {
    /// Why none can be seen; `None`: they are counted.
    unseen: Option<String>,
    count: u64,
    keep: usize,
    kept: VecDeque<Arc<Failure>>,
    /// How many of those kept last belong to the present burst.
    in_burst: usize,
    last_ns: u64,
    /// Buffers that may be frozen now.
    allowance: u64,
    /// Counts the changes of the live set.
    changes: u64,
    /// The set frozen last, and the changes before it.
    frozen: Option<(u64, Arc<[BufferSnapshot]>)>,
}

impl Default for Failures {
    fn default() -> Self {
        Self {
            unseen: Some(NOT_ATTACHED.to_owned()),
            count: 0,
            keep: 0,
            kept: VecDeque::new(),
            in_burst: 0,
            last_ns: 0,
            allowance: ALLOWANCE,
            changes: 0,
            frozen: None,
        }
    }
}

impl Failures {
    /// How many there were; `None` if they cannot be seen.
    pub fn count(&self) -> Option<u64> {
        self.unseen.is_none().then_some(self.count)
    }

    /// How often the live set has changed.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// The live set changes.
    pub(super) const fn note_change(&mut self) {
        self.changes += 1;
    }

    fn earn(&mut self, time_ns: u64) {
        let elapsed = time_ns.saturating_sub(self.last_ns).min(SECOND_NS);
        let earned = elapsed * FREEZE_PER_SECOND / SECOND_NS;
        self.allowance = (self.allowance + earned).min(ALLOWANCE);
    }

    /// Keeps a failure, in place of an older one if need be.
    fn keep(&mut self, failure: Arc<Failure>) {
        let quick = self.count > 1 && failure.time_ns.saturating_sub(self.last_ns) < BURST_GAP_NS;
        if !quick {
            self.in_burst = 0;
        }
        self.last_ns = self.last_ns.max(failure.time_ns);
        if self.keep == 0 {
            return;
        }
        if self.in_burst >= (self.keep / 2).max(1) {
            self.kept.pop_back();
        } else {
            self.in_burst += 1;
        }
        if self.kept.len() >= self.keep {
            self.kept.pop_front();
        }
        self.kept.push_back(failure);
        self.bound_memory(MAX_FROZEN);
    }

    /// The allocations whose call stacks it takes to show those that are kept.
    pub(super) fn allocations(&self) -> impl Iterator<Item = (u64, Tid)> {
        self.kept.iter().flat_map(|failure| failure.allocations())
    }

    /// Gives the oldest live sets up that together hold more than `most` buffers.
    fn bound_memory(&mut self, most: usize) {
        let mut total = 0;
        let mut last: Option<&Arc<[BufferSnapshot]>> = None;
        let mut give_up = None;
        for (place, failure) in self.kept.iter().enumerate().rev() {
            let Some(live) = failure.buffers() else { continue };
            let shared = last.is_some_and(|last| Arc::ptr_eq(last, live));
            total += if shared { 0 } else { live.len() };
            last = Some(live);
            if total > most {
                give_up = Some(place);
                break;
            }
        }
        // One is kept whatever its size: it is no larger than the ledger itself.
        for place in 0..give_up.map_or(0, |place| (place + 1).min(self.kept.len() - 1)) {
            if let Some(failure) = self.kept.get_mut(place) {
                *failure = Arc::new(Failure { live: OnceLock::new(), ..(**failure).clone() });
            }
        }
    }
}

impl Ledger {
    /// Keeps the last `keep` failed allocations; `unseen` says why there is no telling of any.
    pub fn watch_failures(&mut self, keep: usize, unseen: Option<String>) {
        self.failures.keep = keep;
        self.failures.unseen = unseen;
    }

    pub(super) fn failed(&mut self, failed: &AllocationFailed) {
        self.failures.count += 1;
        self.failures.earn(failed.time_ns);
        let place = failed.place.and_then(|place| self.topology.device_at(place.device));
        let numbers = failed.numbers;
        let failure = Failure {
            id: self.failures.count,
            time_ns: failed.time_ns,
            tid: failed.tid,
            buffer_type: numbers.buffer_type,
            size: numbers.size,
            banks: numbers.banks,
            bank_bytes: numbers.bank_bytes,
            bank_size_bytes: numbers.bank_size,
            bank_allocated_bytes: numbers.allocated,
            bank_free_bytes: numbers.free,
            bank_largest_free_bytes: numbers.largest_free,
            chips: place.filter(|entry| !self.chips_of(*entry).is_empty()).map(|entry| {
                self.chips_of(entry).iter().map(|&chip| self.topology.chips()[chip]).collect()
            }),
            mesh: place.and_then(|entry| self.topology.device(entry)).and_then(|at| at.mesh),
            call: None,
            live: OnceLock::new(),
            doubts: OnceLock::new(),
            older_unread: self.baseline == BaselineState::Pending,
            changes_before: self.failures.changes,
            settled_before: self.settled,
        };
        if let Some(live) = self.freeze() {
            let _ = failure.live.set(live);
        }
        self.failures.keep(Arc::new(failure));
    }

    /// The live set now; `None` if that would cost too much.
    fn freeze(&mut self) -> Option<Arc<[BufferSnapshot]>> {
        let changes = self.failures.changes;
        if let Some((_, live)) = self.failures.frozen.as_ref().filter(|last| last.0 == changes) {
            return Some(Arc::clone(live));
        }
        let cost = self.live.len() as u64;
        // A set larger than the whole allowance is frozen when that is full.
        let allowed = cost <= self.failures.allowance || self.failures.allowance == ALLOWANCE;
        if self.failures.keep == 0 || !allowed {
            return None;
        }
        self.failures.allowance = self.failures.allowance.saturating_sub(cost);
        let live: Arc<[BufferSnapshot]> = self.buffer_snapshots().into();
        self.failures.frozen = Some((changes, Arc::clone(&live)));
        Some(live)
    }

    /// What is shown of the failures; `doubts` are the reasons against exactness now.
    pub(super) fn failures_snapshot(&self, doubts: &[String]) -> FailuresSnapshot {
        let now = OnceCell::new();
        for failure in &self.failures.kept {
            self.settle(failure, doubts, &now);
        }
        FailuresSnapshot {
            count: self.failures.count(),
            unknown_because: self.failures.unseen.clone(),
            last: self.failures.kept.iter().cloned().collect(),
        }
    }

    /// Adds to a failure what is known of it only later: records lost before it are counted with
    /// the next snapshot, and a live set that has not changed since can still be frozen.
    fn settle(&self, failure: &Failure, doubts: &[String], now: &OnceCell<Arc<[BufferSnapshot]>>) {
        failure.doubts.get_or_init(|| {
            let older = failure
                .older_unread
                .then(|| "older buffers were still being read at that time".to_owned());
            // What was live then was not set right with the rest.
            let set_right = (failure.settled_before != self.settled).then(|| SET_RIGHT.to_owned());
            older.into_iter().chain(set_right).chain(doubts.iter().cloned()).collect()
        });
        if failure.live.get().is_none() && failure.changes_before == self.failures.changes {
            let live = now.get_or_init(|| self.buffer_snapshots().into());
            let _ = failure.live.set(Arc::clone(live));
        }
    }
}

#[cfg(test)]
#[path = "failures/tests.rs"]
mod tests;
