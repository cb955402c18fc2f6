//! What is counted, what is kept, and what that costs.

use proptest::prelude::*;

use super::*;
use crate::{
    event::{
        Allocated, BufferShape, BufferType, DeviceSeen, Event, FailureNumbers, FailurePlace, Freed,
        LiveBaseline, Spread,
    },
    ledger::{
        Resynced,
        snapshot::{Detail, Lost, Snapshot, TargetState},
    },
    units::{Avma, ChipId, DeviceAddr, MeshId, Pid, Tid},
};

const MESH: Avma = Avma(0x1000);
const ALLOCATOR: Avma = Avma(0x2000);

fn ledger(keep: usize) -> Ledger {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.watch_failures(keep, None);
    let chips = vec![ChipId(0), ChipId(1)];
    ledger.apply(&Event::Device(DeviceSeen { device: MESH, mesh: Some(MeshId(3)), chips }));
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    ledger
}

fn allocate(ledger: &mut Ledger, id: u64) {
    ledger.apply(&Event::Allocated(Allocated {
        time_ns: id,
        tid: Tid(7),
        buffer: Avma(id << 8),
        allocator: ALLOCATOR,
        device: MESH,
        shape: BufferShape {
            unique_id: Some(id),
            buffer_type: BufferType::Dram,
            address: DeviceAddr(id),
            size: 4096,
            page_size: 2048,
            spread: Spread::Interleaved,
        },
    }));
}

fn free(ledger: &mut Ledger, id: u64) {
    let buffer = Avma(id << 8);
    ledger.apply(&Event::Freed(Freed { buffer, allocator: ALLOCATOR, described: None }));
}

fn fail(ledger: &mut Ledger, time_ns: u64) {
    let numbers = FailureNumbers { size: Some(time_ns), ..FailureNumbers::default() };
    let place = Some(FailurePlace { allocator: ALLOCATOR, device: MESH });
    ledger.apply(&Event::Failed(Box::new(AllocationFailed {
        time_ns,
        tid: Tid(7),
        numbers,
        place,
    })));
}

fn shown(ledger: &Ledger) -> Snapshot {
    ledger.snapshot(0, TargetState::Running, Detail::default())
}

fn ids(snapshot: &Snapshot) -> Vec<u64> {
    snapshot.failures.last.iter().map(|failure| failure.id).collect()
}

fn live_ids(failure: &Failure) -> Option<Vec<u64>> {
    Some(failure.buffers()?.iter().filter_map(|buffer| buffer.unique_id).collect())
}

#[test]
fn a_failure_knows_what_was_live() {
    let mut ledger = ledger(16);
    allocate(&mut ledger, 1);
    allocate(&mut ledger, 2);
    fail(&mut ledger, SECOND_NS);
    free(&mut ledger, 1);
    fail(&mut ledger, 2 * SECOND_NS);
    allocate(&mut ledger, 3);
    let snapshot = shown(&ledger);
    assert_eq!(snapshot.failures.count, Some(2));
    let [first, second] = &snapshot.failures.last[..] else { panic!("{snapshot:?}") };
    assert_eq!(live_ids(first), Some(vec![1, 2]));
    assert_eq!(live_ids(second), Some(vec![2]));
    assert_eq!((first.id, first.size, first.tid), (1, Some(SECOND_NS), Tid(7)));
    assert_eq!(first.chips, Some(vec![ChipId(0), ChipId(1)]));
    assert_eq!(first.mesh, Some(MeshId(3)));
    assert_eq!(first.buffer_type, None);
}

/// No snapshot was taken while it was in doubt.
#[test]
fn a_live_set_of_before_a_reading_that_set_things_right_stays_in_doubt() {
    let lost = Lost { ring_full: 1, ..Lost::default() };
    let resync = |ledger: &mut Ledger| {
        ledger.set_lost(lost);
        let begun = ledger.begin_reading();
        while ledger.finish_resync(begun, 9, Ok(LiveBaseline::default())) != Resynced::Settled {}
    };
    let mut ledger = ledger(16);
    allocate(&mut ledger, 1);
    // The free of 1 is lost.
    fail(&mut ledger, SECOND_NS);
    resync(&mut ledger);
    fail(&mut ledger, 2 * SECOND_NS);
    let snapshot = shown(&ledger);
    assert!(snapshot.exact);
    let doubts = snapshot.failures.last.iter().map(|failure| failure.inexact_because());
    assert_eq!(doubts.collect::<Vec<_>>(), [&[SET_RIGHT.to_owned()][..], &[]]);
}

#[test]
fn an_unknown_place_has_no_chips() {
    let mut ledger = ledger(16);
    let place = Some(FailurePlace { allocator: ALLOCATOR, device: Avma(0x9999) });
    for place in [None, place] {
        let numbers = FailureNumbers::default();
        ledger.apply(&Event::Failed(Box::new(AllocationFailed {
            time_ns: 1,
            tid: Tid(7),
            numbers,
            place,
        })));
    }
    for failure in shown(&ledger).failures.last {
        assert_eq!((&failure.chips, failure.mesh), (&None, None));
    }
}

#[test]
fn what_is_not_watched_is_not_zero() {
    let ledger = Ledger::new(Pid(1), Vec::new());
    assert_eq!(shown(&ledger).failures.count, None);
    assert_eq!(shown(&ledger).failures.unseen_because(), None);
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.watch_failures(16, Some("nothing throws".to_owned()));
    assert_eq!(shown(&ledger).failures.count, None);
    assert_eq!(shown(&ledger).failures.unseen_because(), Some("nothing throws"));
}

#[test]
fn the_last_ones_are_kept() {
    let mut ledger = ledger(3);
    for second in 1..=5 {
        fail(&mut ledger, second * SECOND_NS);
    }
    assert_eq!(ids(&shown(&ledger)), [3, 4, 5]);
    let lines: Vec<_> = {
        let snapshot = shown(&ledger);
        snapshot.failures.lines_after(Pid(1), 1).map(|l| (l.failure.id, l.skipped)).collect()
    };
    assert_eq!(lines, [(3, 1), (4, 0), (5, 0)]);
}

#[test]
fn of_a_burst_the_first_ones_and_the_last_are_kept() {
    let mut ledger = ledger(4);
    fail(&mut ledger, SECOND_NS);
    for step in 0..1000 {
        fail(&mut ledger, 3 * SECOND_NS + step);
    }
    assert_eq!(ids(&shown(&ledger)), [1, 2, 1001]);
    fail(&mut ledger, 9 * SECOND_NS);
    assert_eq!(ids(&shown(&ledger)), [1, 2, 1001, 1002]);
    assert_eq!(shown(&ledger).failures.count, Some(1002));
}

#[test]
fn nothing_is_kept_if_nothing_is_to_be() {
    let mut ledger = ledger(0);
    allocate(&mut ledger, 1);
    fail(&mut ledger, 1);
    assert_eq!(shown(&ledger).failures.count, Some(1));
    assert!(ids(&shown(&ledger)).is_empty());
}

#[test]
fn a_live_set_that_has_not_changed_is_frozen_once() {
    let mut ledger = ledger(16);
    allocate(&mut ledger, 1);
    fail(&mut ledger, SECOND_NS);
    fail(&mut ledger, 2 * SECOND_NS);
    let last = shown(&ledger).failures.last;
    assert!(Arc::ptr_eq(last[0].buffers().unwrap(), last[1].buffers().unwrap()));
}

#[test]
fn freezing_is_paid_for_out_of_an_allowance() {
    let mut ledger = ledger(16);
    for id in 1..=10 {
        allocate(&mut ledger, id);
    }
    ledger.failures.allowance = 15;
    fail(&mut ledger, 1);
    free(&mut ledger, 1);
    fail(&mut ledger, 2);
    free(&mut ledger, 2);
    let last = shown(&ledger).failures.last;
    assert_eq!(last[0].buffers().unwrap().len(), 10);
    assert_eq!(last[1].buffers(), None);
    // A millisecond later there is enough again.
    fail(&mut ledger, 1_000_000);
    free(&mut ledger, 3);
    assert_eq!(shown(&ledger).failures.last[2].buffers().unwrap().len(), 8);
    // What was not frozen, and has not changed, is frozen when it is shown.
    ledger.failures.allowance = 0;
    fail(&mut ledger, 1_000_001);
    assert_eq!(shown(&ledger).failures.last[3].buffers().unwrap().len(), 7);
}

#[test]
fn the_oldest_sets_go_when_there_are_too_many_buffers() {
    let set = |len: usize| {
        let mut ledger = ledger(1);
        allocate(&mut ledger, 1);
        let live = ledger.buffer_snapshots();
        Some(live.into_iter().cycle().take(len).collect())
    };
    let mut failures = Failures { keep: 16, ..Failures::default() };
    for id in 1..=5 {
        failures.count += 1;
        failures.keep(Arc::new(Failure::made_up(id, id * SECOND_NS, set(10))));
    }
    failures.bound_memory(30);
    let has: Vec<bool> = failures.kept.iter().map(|failure| failure.buffers().is_some()).collect();
    assert_eq!(has, [false, false, true, true, true]);
}

#[test]
fn doubts_at_that_time_stay() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.watch_failures(16, None);
    fail(&mut ledger, SECOND_NS);
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    fail(&mut ledger, 2 * SECOND_NS);
    let last = shown(&ledger).failures.last;
    assert!(last[0].inexact_because()[0].contains("older buffers"), "{last:?}");
    assert!(last[1].inexact_because().is_empty());
    ledger.set_lost(crate::missing::Lost { ring_full: 1, read_fault: 0 });
    fail(&mut ledger, 3 * SECOND_NS);
    let last = shown(&ledger).failures.last;
    assert!(last[1].inexact_because().is_empty(), "what was shown as exact was");
    assert_eq!(last[2].inexact_because(), ["records lost: 1"]);
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(u64),
    Free(u64),
    Fail(u64),
    Show,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_u64..20).prop_map(Step::Allocate),
        (1_u64..20).prop_map(Step::Free),
        (0_u64..30_000_000).prop_map(Step::Fail),
        Just(Step::Show),
    ]
}

proptest! {
    /// Against a model that freezes at every failure and forgets none.
    #[test]
    fn what_is_kept_is_right(steps in prop::collection::vec(step(), 0..120), keep in 0_usize..6, allowance in 0_u64..40) {
        let mut ledger = ledger(keep);
        let mut live = std::collections::BTreeSet::new();
        let mut model: Vec<Vec<u64>> = Vec::new();
        let mut now = 1;
        for step in steps {
            ledger.failures.allowance = ledger.failures.allowance.min(allowance);
            match step {
                Step::Allocate(id) => {
                    if live.insert(id) {
                        allocate(&mut ledger, id);
                    }
                }
                Step::Free(id) => {
                    if live.remove(&id) {
                        free(&mut ledger, id);
                    }
                }
                Step::Fail(after) => {
                    now += after;
                    fail(&mut ledger, now);
                    model.push(live.iter().copied().collect());
                }
                Step::Show => {}
            }
            let snapshot = shown(&ledger);
            let failures = &snapshot.failures;
            prop_assert_eq!(failures.count, Some(model.len() as u64));
            prop_assert!(failures.last.len() <= keep);
            prop_assert!(failures.last.windows(2).all(|pair| pair[0].id < pair[1].id));
            if keep > 0 {
                prop_assert_eq!(failures.last.last().map_or(0, |last| last.id), model.len() as u64);
            }
            for failure in &failures.last {
                let truth = &model[usize::try_from(failure.id).unwrap() - 1];
                if let Some(shown) = live_ids(failure) {
                    prop_assert_eq!(&shown, truth);
                }
            }
        }
    }
}
