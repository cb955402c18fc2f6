//! What happened since a moment that somebody has marked: growth, and the highest use since.
//!
//! A pool keeps one running maximum, whatever the number of marks: it is folded into each mark
//! and restarted whenever a mark is set or asked for.
//!
//! Invariant: what was in doubt at any time since a mark makes the figures since it doubtful, also if a
//! reading has set it right: of what was lost no peak is known, nor when a buffer was allocated.

use hashbrown::HashMap;
use serde::Serialize;
use ttmem_common::layout::BUFFER_TYPES;

use super::Ledger;
use crate::{event::BufferType, units::ChipId};

/// Names a mark.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MarkKey {
    /// Who set it; nobody else sees it.
    pub owner: u64,
    /// The user whose that is.
    pub user: u32,
    /// Its name.
    pub name: String,
}

/// Marks that a target can have at a time.
const MAX_MARKS: usize = 1024;
/// Those of them that one user can have.
const MAX_OF_USER: usize = 256;

/// What was in doubt since a mark and is not any more, of which so much is kept.
const MAX_SETTLED: usize = 16;

/// There are too many marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooManyMarks {
    /// Of all users.
    #[error("there are {MAX_MARKS} marks already: end a connection that has set some")]
    OfAll,
    /// Of this one.
    #[error("user {0} has {MAX_OF_USER} marks already: end a connection that has set some")]
    OfUser(u32),
}

/// What happened since a mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SinceMark {
    /// When the mark was set, CLOCK_MONOTONIC nanoseconds.
    pub marked_ns: u64,
    /// Whether all that follows is known to be right: nothing was in doubt at any time since.
    pub exact: bool,
    /// Why it may be wrong, one sentence per reason.
    pub inexact_because: Vec<String>,
    /// Chips in id order.
    pub devices: Vec<ChipSince>,
}

/// One chip since a mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChipSince {
    /// Its id.
    pub chip: ChipId,
    /// Its pools, by type.
    pub pools: Vec<PoolSince>,
}

/// One pool since a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PoolSince {
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// Live buffers now minus then.
    pub buffers: i64,
    /// Their logical bytes now minus then.
    pub logical_bytes: i64,
    /// What they take of the pool now minus then, bytes.
    pub used_bytes: Option<i64>,
    /// Highest use since, bytes; `None` also if it may have been missed.
    pub peak_used_bytes: Option<u64>,
    /// Highest use since minus the use then, bytes.
    pub peak_growth_bytes: Option<u64>,
    /// Allocations since.
    pub allocations: u64,
    /// Frees since, those of older buffers included.
    pub frees: u64,
}

/// A pool as it was at a mark.
#[derive(Clone, Copy, Debug, Default)]
struct Then {
    buffers: u64,
    logical_bytes: u64,
    used_bytes: Option<u64>,
    peak_used_bytes: u64,
    /// How often it had been missed how high the use was.
    missed_peaks: u64,
    allocations: u64,
    frees: u64,
}

#[derive(Debug)]
struct Mark {
    time_ns: u64,
    /// By the chip's place. A chip that came later had nothing.
    chips: Vec<[Then; BUFFER_TYPES]>,
    /// What had been found different in memory before.
    differences: u64,
    /// What was in doubt then or later; it may have been set right since.
    doubts: Vec<String>,
}

/// The marks of one target.
#[derive(Debug, Default)]
pub(super) struct Marks(HashMap<MarkKey, Mark, foldhash::fast::RandomState>);

impl Ledger {
    /// Marks this moment, in place of an earlier one of the same name.
    pub fn mark(&mut self, key: MarkKey, time_ns: u64) -> Result<(), TooManyMarks> {
        self.fold_peaks();
        if !self.marks.0.contains_key(&key) {
            self.marks.check_room_for(key.user)?;
        }
        let chips = (0..self.chips.len()).map(|chip| self.pools_now(chip)).collect();
        let (differences, doubts) = (self.anomalies.differences(), self.doubts());
        self.marks.0.insert(key, Mark { time_ns, chips, differences, doubts });
        Ok(())
    }

    /// What happened since a mark; `None` if there is none.
    pub fn since_mark(&mut self, key: &MarkKey) -> Option<SinceMark> {
        self.fold_peaks();
        let mark = self.marks.0.get(key)?;
        let mut devices: Vec<ChipSince> = (0..self.chips.len())
            .map(|place| ChipSince {
                chip: self.topology.chips()[place],
                pools: self.pools_since(place, mark),
            })
            .collect();
        devices.sort_by_key(|chip| chip.chip);
        let inexact_because = self.doubts_since(mark);
        let exact = inexact_because.is_empty();
        Some(SinceMark { marked_ns: mark.time_ns, exact, inexact_because, devices })
    }

    fn doubts_since(&self, mark: &Mark) -> Vec<String> {
        let mut doubts = mark.doubts.clone();
        note(&mut doubts, self.doubts());
        let found = self.anomalies.differences() - mark.differences;
        if found > 0 {
            doubts.push(format!("buffers that were found different in memory: {found}"));
        }
        doubts
    }

    /// Notes for each mark what is in doubt, since it is about to be set right.
    pub(super) fn note_doubts_for_marks(&mut self) {
        if self.marks.0.is_empty() {
            return;
        }
        let doubts = self.doubts();
        for mark in self.marks.0.values_mut() {
            note(&mut mark.doubts, doubts.clone());
            mark.doubts.truncate(MAX_SETTLED);
        }
    }

    /// Forgets all that an owner has marked.
    pub fn forget_marks_of(&mut self, owner: u64) {
        self.marks.0.retain(|key, _| key.owner != owner);
    }

    fn pools_since(&self, place: usize, mark: &Mark) -> Vec<PoolSince> {
        let now = self.pools_now(place);
        let none = [Then { used_bytes: Some(0), ..Then::default() }; BUFFER_TYPES];
        let then = mark.chips.get(place).unwrap_or(&none);
        let shown =
            BufferType::ALL.into_iter().filter(|kind| self.pool_snapshot(place, *kind).is_some());
        shown
            .map(|buffer_type| {
                let (now, then) = (&now[buffer_type.index()], &then[buffer_type.index()]);
                let since = PoolSince::between(buffer_type, then, now);
                if self.peaks.in_doubt() { since.without_peak() } else { since }
            })
            .collect()
    }

    fn pools_now(&self, place: usize) -> [Then; BUFFER_TYPES] {
        BufferType::ALL.map(|buffer_type| {
            let pool = self.pool(place, buffer_type);
            let used = pool.used_bytes.get();
            Then {
                buffers: pool.buffers.get(),
                logical_bytes: pool.logical_bytes.get(),
                used_bytes: (pool.unmeasured.get() == 0).then_some(used),
                peak_used_bytes: used,
                missed_peaks: pool.missed_peaks(),
                allocations: pool.allocations.get(),
                frees: pool.frees.get() + pool.pre_attach_frees.get(),
            }
        })
    }

    /// Brings every mark's peaks up to now.
    fn fold_peaks(&mut self) {
        self.review_peaks();
        for (place, pools) in self.chips.iter().enumerate() {
            for (kind, pool) in pools.iter().enumerate() {
                let peak = pool.restart_window();
                for mark in self.marks.0.values_mut() {
                    if mark.chips.len() <= place {
                        let none = Then { used_bytes: Some(0), ..Then::default() };
                        mark.chips.resize(place + 1, [none; BUFFER_TYPES]);
                    }
                    let then = &mut mark.chips[place][kind];
                    then.peak_used_bytes = then.peak_used_bytes.max(peak);
                }
            }
        }
    }
}

/// Adds what is not among them yet.
fn note(doubts: &mut Vec<String>, more: Vec<String>) {
    for doubt in more {
        if !doubts.contains(&doubt) {
            doubts.push(doubt);
        }
    }
}

impl Marks {
    fn check_room_for(&self, user: u32) -> Result<(), TooManyMarks> {
        if self.0.len() >= MAX_MARKS {
            return Err(TooManyMarks::OfAll);
        }
        let own = self.0.keys().filter(|key| key.user == user).count();
        if own >= MAX_OF_USER { Err(TooManyMarks::OfUser(user)) } else { Ok(()) }
    }
}

impl PoolSince {
    fn between(buffer_type: BufferType, then: &Then, now: &Then) -> Self {
        let growth = |now: u64, then: u64| now.wrapping_sub(then).cast_signed();
        let known = now.used_bytes.zip(then.used_bytes);
        let peak_known = known.filter(|_| now.missed_peaks == then.missed_peaks);
        Self {
            buffer_type,
            buffers: growth(now.buffers, then.buffers),
            logical_bytes: growth(now.logical_bytes, then.logical_bytes),
            used_bytes: known.map(|(now, then)| growth(now, then)),
            peak_used_bytes: peak_known.map(|_| then.peak_used_bytes),
            peak_growth_bytes: peak_known
                .map(|(_, used)| then.peak_used_bytes.saturating_sub(used)),
            allocations: now.allocations - then.allocations,
            frees: now.frees - then.frees,
        }
    }

    fn without_peak(self) -> Self {
        Self { peak_used_bytes: None, peak_growth_bytes: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{
        resync::Resynced,
        snapshot::Lost,
        tests::{allocate, baseline, free, started, view},
    };

    fn key(name: &str) -> MarkKey {
        MarkKey { owner: 1, user: 1000, name: name.to_owned() }
    }

    fn dram(ledger: &mut Ledger, name: &str) -> PoolSince {
        let since = ledger.since_mark(&key(name)).expect("it was set");
        since.devices[0].pools[0]
    }

    #[test]
    fn a_peak_counts_for_the_marks_before_it_only() {
        let mut ledger = started();
        ledger.apply(&allocate(1));
        let one = ledger.pool(0, BufferType::Dram).used_bytes.get();
        ledger.mark(key("early"), 10).expect("room");
        ledger.apply(&allocate(2));
        ledger.apply(&allocate(3));
        ledger.apply(&free(2));
        ledger.mark(key("late"), 20).expect("room");
        ledger.apply(&free(3));
        let early = dram(&mut ledger, "early");
        assert_eq!((early.buffers, early.allocations, early.frees), (0, 2, 2));
        assert_eq!(early.peak_used_bytes, Some(3 * one));
        assert_eq!(early.peak_growth_bytes, Some(2 * one));
        let late = dram(&mut ledger, "late");
        assert_eq!(
            (late.used_bytes, late.peak_used_bytes),
            (Some(-one.cast_signed()), Some(2 * one))
        );
        assert_eq!(late.peak_growth_bytes, Some(0));
    }

    /// What is in doubt since a mark.
    fn doubts(ledger: &mut Ledger, name: &str) -> Vec<String> {
        let since = ledger.since_mark(&key(name)).expect("it was set");
        assert_eq!(since.exact, since.inexact_because.is_empty());
        since.inexact_because
    }

    #[test]
    fn what_was_lost_since_stays_in_doubt_when_the_live_buffers_are_exact_again() {
        let mut ledger = started();
        ledger.mark(key("before"), 10).expect("room");
        assert_eq!(doubts(&mut ledger, "before"), [""; 0]);
        ledger.apply(&allocate(1));
        ledger.set_lost(Lost { ring_full: 2, read_fault: 0 });
        ledger.mark(key("amid"), 15).expect("room");
        assert_eq!(doubts(&mut ledger, "before"), ["records lost: 2"]);
        // What was lost came and went: nothing in memory tells of it.
        let begun = ledger.begin_reading();
        let read = ledger.finish_resync(begun, 20, Ok(baseline(&[1])));
        assert_eq!((read, view(&ledger).exact), (Resynced::Settled, true));
        ledger.mark(key("after"), 30).expect("room");
        for name in ["before", "amid"] {
            assert_eq!(doubts(&mut ledger, name), ["records lost: 2"], "{name}");
        }
        assert_eq!(doubts(&mut ledger, "after"), [""; 0]);
        ledger.mark(key("before"), 40).expect("it is there already");
        assert_eq!(doubts(&mut ledger, "before"), [""; 0], "marked anew");
    }

    #[test]
    fn what_a_reading_finds_different_makes_figures_since_a_mark_doubtful() {
        let mut ledger = started();
        ledger.mark(key("before"), 10).expect("room");
        let begun = ledger.begin_reading();
        while ledger.finish_resync(begun, 20, Ok(baseline(&[7]))) == Resynced::Suspicious {}
        assert!(view(&ledger).exact);
        let found = doubts(&mut ledger, "before");
        assert_eq!(found, ["buffers that were found different in memory: 1"]);
    }

    #[test]
    fn what_was_in_doubt_is_no_leak() {
        let mut ledger = started();
        ledger.mark(key("long"), 10).expect("room");
        for round in 1..=2 * MAX_SETTLED as u64 {
            ledger.set_lost(Lost { ring_full: round * (round + 1) / 2, read_fault: 0 });
            let begun = ledger.begin_reading();
            let read = ledger.finish_resync(begun, 20, Ok(baseline(&[])));
            assert_eq!(read, Resynced::Settled);
        }
        assert_eq!(doubts(&mut ledger, "long").len(), MAX_SETTLED);
    }

    #[test]
    fn an_owner_takes_its_marks_along() {
        let mut ledger = started();
        ledger.mark(key("a"), 1).expect("room");
        assert!(ledger.since_mark(&MarkKey { owner: 2, ..key("a") }).is_none());
        ledger.forget_marks_of(1);
        assert!(ledger.since_mark(&key("a")).is_none());
    }

    #[test]
    fn there_is_an_end_to_marks() {
        let mut ledger = started();
        let mut users = 1000..;
        while ledger.marks.0.len() < MAX_MARKS {
            let user = users.next().expect("a user");
            // Whatever the number of its connections.
            for number in 0..MAX_OF_USER as u64 {
                let key = MarkKey { owner: number % 3, user, name: format!("{user} {number}") };
                ledger.mark(key, 1).expect("room");
            }
            let more = ledger.mark(MarkKey { user, ..key("more") }, 1);
            assert!(matches!(more, Err(TooManyMarks::OfUser(_) | TooManyMarks::OfAll)), "{more:?}");
        }
        assert_eq!(users.next(), Some(1004), "no user can take the marks of all");
        assert_eq!(ledger.mark(key("more"), 1), Err(TooManyMarks::OfAll));
        let first = MarkKey { owner: 0, user: 1000, name: "1000 0".to_owned() };
        ledger.mark(first, 2).expect("it is there already");
    }
}
