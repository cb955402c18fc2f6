//! Single cases, and the bound of the memory.

use super::{
    History, MAX_BYTES, MAX_ENTRIES, MAX_MARKS, MAX_NOTES, Refill, Remark, Unreachable,
    group::{By, Key},
    sample::{allocated, delta, freed},
};
use crate::{
    event::BufferType,
    fixture,
    ledger::{
        delta::{Change, Delta},
        snapshot::{Lost, TargetState},
    },
    units::{Avma, ChipId, Tid},
};

const SECOND: u64 = 1_000_000_000;

#[test]
fn nothing_yet_is_nothing() {
    let history = History::default();
    assert!(history.live().is_empty() && history.changes().next().is_none());
    assert!(history.at(5).unwrap().live.is_empty());
    assert!(history.timeline().line(ChipId(0), BufferType::L1).is_none());
}

#[test]
fn how_far_back_it_reaches_is_said() {
    let mut history = History::with_log(2);
    for id in 1..=4 {
        history.apply(&allocated(id, id * SECOND, id, 100));
    }
    assert_eq!(history.reach_ns(), Some(2 * SECOND));
    assert_eq!(history.at(2 * SECOND).unwrap().live.len(), 2);
    let beyond = history.at(2 * SECOND - 1).unwrap_err();
    assert_eq!(beyond, Unreachable::Forgotten { kept: 2, reach_ns: 2 * SECOND });
    // The totals are still there.
    let line = history.timeline().line(ChipId(0), BufferType::L1).unwrap();
    assert_eq!(line.span(SECOND, SECOND).unwrap().last_used, 100);
    assert_eq!(line.span(0, SECOND - 1), None);
    let mut young = History::default();
    young.apply(&allocated(1, SECOND, 1, 100));
    assert_eq!(young.at(0).unwrap_err(), Unreachable::BeforeTheStart);
}

#[test]
fn what_disagrees_is_a_gap() {
    let first = allocated(1, 1, 1, 100);
    let cases = [
        ("a number left out", freed(&first, 3, 2)),
        ("allocated twice", allocated(2, 2, 1, 100)),
        ("freed and not live", Delta { buffer: Avma(9), ..freed(&first, 2, 2) }),
    ];
    for (what, second) in cases {
        let mut history = History::default();
        history.apply(&first);
        history.apply(&second);
        assert!(history.gap().is_some(), "{what}");
        assert_eq!(history.reach_ns(), None);
        history.refill(&Refill { time_ns: 9, last_delta: 3, live: Vec::new() });
        assert!(history.gap().is_none() && history.live().is_empty());
        assert_eq!(history.missed(), 2, "{what}");
        let gap = Remark::Gap { from_ns: history.notes().last().unwrap().from(), changes: 2 };
        assert_eq!(history.notes().last().unwrap().what, gap);
        let line = history.timeline().line(ChipId(0), BufferType::L1).unwrap();
        assert_eq!((line.now().used_bytes, line.peak_used()), (0, 100));
        assert!(line.buckets().last().unwrap().inexact);
    }
}

impl super::Note {
    fn from(&self) -> u64 {
        match self.what {
            Remark::Gap { from_ns, .. } => from_ns,
            _ => 0,
        }
    }
}

#[test]
fn chips_that_change_alike_share_a_line_until_they_do_not() {
    let mut history = History::default();
    let mesh = (0..32).map(ChipId).collect::<Vec<_>>();
    let on = |chips: &[ChipId], delta: Delta| Delta { chips: chips.into(), ..delta };
    history.apply(&on(&mesh, allocated(1, 1, 1, 100)));
    assert_eq!(history.timeline().lines().len(), 1);
    history.apply(&on(&mesh[4..6], allocated(2, 2, 2, 10)));
    assert_eq!(history.timeline().lines().len(), 2);
    history.apply(&on(&mesh, allocated(3, 3, 3, 1)));
    let used =
        |chip| history.timeline().line(ChipId(chip), BufferType::L1).unwrap().now().used_bytes;
    assert_eq!([used(3), used(4), used(5), used(6)], [101, 111, 111, 101]);
    assert_eq!(history.timeline().pools().len(), 32);
}

#[test]
fn growth_is_what_came_since_the_mark() {
    let mut history = History::default();
    let first = allocated(1, 1, 1, 100);
    history.apply(&first);
    history.mark("before", 5);
    history.apply(&freed(&first, 2, 6));
    let new = Delta { tid: Some(Tid(7)), allocated_tid: Some(Tid(7)), ..allocated(3, 7, 2, 5000) };
    history.apply(&new);
    let mark = &history.marks()[0];
    let [pool] = &*history.growth(mark) else { panic!() };
    assert_eq!((pool.used_bytes, pool.buffers), (4900, 0));
    assert_eq!((pool.allocations, pool.frees), (1, 1));
    let groups = history.group_growth(mark, By::Thread).unwrap();
    let groups: Vec<_> = groups.iter().map(|it| (it.key, it.buffers, it.bytes)).collect();
    let expected = [(Key::Thread(Some(Tid(7))), 1, 5000), (Key::Thread(Some(Tid(1))), -1, -100)];
    assert_eq!(groups, expected);
    for unknown in [By::Age, By::Site] {
        assert_eq!(history.group_growth(mark, unknown), None, "{unknown:?}");
    }
    assert!(mark.is_complete());
    assert_eq!(history.notes().next().unwrap().what, Remark::Mark("before".to_owned()));
}

/// What is shown is a moment old when it is marked: what has come since has grown.
#[test]
fn a_mark_is_of_the_instant_that_it_names() {
    let mut history = History::default();
    let first = allocated(1, 1, 1, 100);
    history.apply(&first);
    history.apply(&allocated(2, 6, 2, 30));
    history.apply(&freed(&first, 3, 7));
    history.mark("view", 5);
    let mark = &history.marks()[0];
    let [pool] = &*history.growth(mark) else { panic!() };
    assert_eq!((pool.used_bytes, pool.buffers), (-70, 0));
    assert_eq!((pool.allocations, pool.frees), (1, 1));
    let groups = history.group_growth(mark, By::Type).unwrap();
    assert_eq!((groups[0].buffers, groups[0].bytes), (0, -70));
    // Before the first change there was nothing.
    history.mark("early", 0);
    let groups = history.group_growth(&history.marks()[1], By::Type).unwrap();
    assert_eq!((groups[0].buffers, groups[0].bytes), (1, 30));
    // What cannot be undone any more is not known.
    history.set_log_limit(1);
    history.mark("late", 5);
    let mark = &history.marks()[2];
    assert_eq!((history.group_growth(mark, By::Type), mark.is_complete()), (None, false));
}

fn by_thread(sequence: u64, tid: u32, buffer: u64) -> Delta {
    let tid = Some(Tid(tid));
    Delta { tid, allocated_tid: tid, ..allocated(sequence, sequence, buffer, 100) }
}

/// What a thread had live when there was no room for it is not taken from its own row later.
#[test]
fn a_buffer_is_counted_out_where_it_was_counted_in() {
    let most = u32::try_from(super::tally::MAX_THREADS).unwrap();
    let last = u64::from(most) + 1;
    let mut history = History::default();
    let all: Vec<Delta> = (1..=last).zip(0..).map(|(at, tid)| by_thread(at, tid, at)).collect();
    for delta in &all {
        history.apply(delta);
    }
    let early = all.last().unwrap();
    history.apply(&freed(&all[0], last + 1, last + 1));
    let late = by_thread(last + 2, most, last + 2);
    history.apply(&late);
    let live = |history: &History| {
        let (rows, others) = history.tally().threads(0);
        let row = rows.iter().find(|row| row.tid == Some(Tid(most))).unwrap();
        (row.live_buffers, others.unwrap().live_buffers)
    };
    assert_eq!(live(&history), (1, 1));
    history.apply(&freed(early, last + 3, last + 3));
    assert_eq!(live(&history), (1, 0));
    history.apply(&freed(&late, last + 4, last + 4));
    assert_eq!(live(&history), (0, 0));
}

#[test]
fn the_growth_of_a_thread_that_a_mark_had_no_room_for_is_not_known() {
    for (threads, expected) in [(1024, Some(100)), (1025, None)] {
        let mut history = History::default();
        for tid in 0..threads {
            history.apply(&by_thread(u64::from(tid) + 1, tid, u64::from(tid) + 1));
        }
        history.mark("full", 5000);
        history.apply(&Delta { time_ns: 6000, ..by_thread(u64::from(threads) + 1, 7777, 7777) });
        let growth = history.group_growth(&history.marks()[0], By::Thread).unwrap();
        let new = growth.iter().find(|group| group.key == Key::Thread(Some(Tid(7777))));
        assert_eq!(new.map(|group| group.bytes), expected);
        let old = growth.iter().find(|group| group.key == Key::Thread(Some(Tid(5))));
        assert_eq!(old.map(|group| group.bytes), Some(0));
    }
}

#[test]
fn snapshots_are_noted_once() {
    let mut history = History::default();
    let mut snapshot = fixture::failed();
    snapshot.exact = true;
    assert!(history.observe(&snapshot));
    assert!(!history.observe(&snapshot));
    let failures = history.notes().filter(|it| matches!(it.what, Remark::Failure { .. })).count();
    assert_eq!(failures, snapshot.failures.last.len());
    snapshot.time_ns += 1;
    snapshot.lost = Lost { ring_full: 5, ..snapshot.lost };
    snapshot.exact = false;
    snapshot.inexact_because = vec!["5 records were lost".to_owned()];
    snapshot.resync.done += 1;
    snapshot.state = TargetState::Exited;
    assert!(history.observe(&snapshot));
    let new: Vec<_> = history.notes().filter(|note| note.time_ns == snapshot.time_ns).collect();
    assert_eq!(new.len(), 4, "{new:?}");
    assert!(!history.observe(&snapshot));
}

/// The worst there is: as many lines as there can be, all levels full, the log and all tables full.
#[test]
fn the_memory_is_bounded() {
    let mut history = History::default();
    let mut sequence = 0;
    let mut next = || {
        sequence += 1;
        sequence
    };
    for round in 0..MAX_ENTRIES as u64 / 2 + 1000 {
        let number = next();
        // Far apart, so that each is a bucket of its own.
        let chip = i32::try_from(round % 3000).unwrap();
        let new = Delta {
            chips: [ChipId(chip)].into(),
            allocated_tid: Some(Tid(u32::try_from(round).unwrap())),
            ..allocated(number, number << 27, number, round)
        };
        history.apply(&new);
        history.apply(&freed(&new, next(), number << 27));
    }
    for note in 0..MAX_NOTES as u64 + 10 {
        history.notes.push(note, Remark::Inexact("x".repeat(200)));
    }
    for mark in 0..20 {
        history.mark(&"x".repeat(300), u64::MAX - mark);
    }
    assert_eq!(history.changes().count(), MAX_ENTRIES);
    assert!(history.timeline().left_out() > 0);
    assert_eq!(history.notes_dropped(), 30);
    assert_eq!(history.marks().len(), MAX_MARKS);
    assert!(history.gap().is_none());
    let bytes = history.bytes();
    assert!(bytes < MAX_BYTES, "{bytes}");
    history.set_log_limit(1000);
    assert_eq!(history.changes().count(), 1000);
    assert!(history.bytes() < bytes - (MAX_ENTRIES - 1000) * 100);
    let times: Vec<u64> = history.changes().map(|it| it.time_ns).collect();
    assert!(times.is_sorted_by(|one, other| one >= other));
}

/// A pool that changes for hours keeps its peaks in some hundred buckets.
#[test]
fn hours_are_thinned_out() {
    let mut history = History::with_log(0);
    let mut sequence = 1;
    for step in 0..150_000_u64 {
        let new = allocated(sequence, step << 26, 1, if step == 77_777 { 999 } else { step % 100 });
        history.apply(&new);
        history.apply(&freed(&new, sequence + 1, (step << 26) + 1));
        sequence += 2;
    }
    let line = history.timeline().line(ChipId(0), BufferType::L1).unwrap();
    let count = line.buckets().count();
    assert!((500..1500).contains(&count), "{count}");
    let peak = line.buckets().find(|bucket| bucket.max_used == 999).unwrap();
    assert_eq!(peak.max_ns, 77_777 << 26);
    // What is old is coarse, but no coarser than a fraction of its age.
    for bucket in line.buckets() {
        let age = history.time_ns() - bucket.last_ns;
        assert!(bucket.last_ns - bucket.first_ns <= age / 32 + (1 << 26), "{bucket:?}");
    }
    assert!(history.bytes() < 2 << 20);
}

#[test]
fn unknown_chips_are_live_and_in_no_pool() {
    let mut history = History::default();
    history.apply(&delta(1, Change::Allocated));
    assert_eq!(history.live().len(), 1);
    assert!(history.timeline().pools().is_empty());
}

#[test]
fn a_large_set_that_shrinks_keeps_what_it_has() {
    let mut history = History::with_log(0);
    let all: Vec<Delta> = (1..=20_000).map(|id| allocated(id, id, id * 208, id)).collect();
    for delta in &all {
        history.apply(delta);
    }
    let large = history.live().bytes();
    let gone = all.iter().filter(|delta| delta.size % 64 != 0);
    gone.zip(20_001..)
        .for_each(|(delta, sequence)| history.apply(&freed(delta, sequence, sequence)));
    assert_eq!(history.live().len(), 312);
    assert!(history.live().bytes() < large / 8);
    for delta in &all {
        let found = history.live().get(delta.buffer).map(|row| row.size);
        assert_eq!(found, (delta.size % 64 == 0).then_some(delta.size));
    }
}
