//! What a later reading sets right, and what it must not believe.

use proptest::prelude::*;

use super::*;
use crate::ledger::tests::{allocate, baseline, free, started, view};
use crate::{event::Event, units::Pid};

const LOSS: Lost = Lost { ring_full: 3, read_fault: 0 };

/// Reads until it is sure; the number of readings.
fn resync(ledger: &mut Ledger, memory: &[u64]) -> u32 {
    let begun = ledger.begin_reading();
    for readings in 1.. {
        match ledger.finish_resync(begun, 50, Ok(baseline(memory))) {
            Resynced::Suspicious => {}
            Resynced::Settled => return readings,
            Resynced::Unsettled => panic!("nothing was lost meanwhile"),
        }
    }
    unreachable!()
}

fn live(ledger: &Ledger) -> Vec<u64> {
    view(ledger).buffers.unwrap().iter().filter_map(|buffer| buffer.unique_id).collect()
}

#[test]
fn what_agrees_needs_one_reading() {
    let mut ledger = started();
    ledger.apply(&allocate(1));
    assert_eq!(resync(&mut ledger, &[1]), 1);
    let snapshot = view(&ledger);
    assert_eq!(snapshot.resync.last_differences, Some(Differences::default()));
    assert!(snapshot.exact);
}

#[test]
fn a_loss_is_set_right_and_still_counted() {
    let mut ledger = started();
    for id in [1, 2] {
        ledger.apply(&allocate(id));
    }
    ledger.set_lost(LOSS);
    assert!(!view(&ledger).exact && ledger.needs_resync());
    // Lost: the free of 1, the allocation of 3.
    assert_eq!(resync(&mut ledger, &[2, 3]), 2, "a difference is looked at twice");
    let snapshot = view(&ledger);
    assert_eq!(live(&ledger), [2, 3]);
    assert_eq!((snapshot.anomalies.missed_allocation, snapshot.anomalies.missed_free), (1, 1));
    assert!(snapshot.exact && !ledger.needs_resync());
    assert_eq!(snapshot.lost, LOSS);
    let pool = &snapshot.devices[0].pools[0];
    assert_eq!((pool.buffers, pool.allocations, pool.frees), (2, 3, 1));
    let missed = &snapshot.buffers.as_ref().unwrap()[1];
    assert_eq!((missed.tid, missed.pre_attach), (None, false));
}

#[test]
fn programs_stay_unknown_after_a_loss() {
    let watching = || {
        let mut ledger = started();
        ledger.watch_programs(Ok(()), false);
        ledger
    };
    let unknown = |ledger: &Ledger| view(ledger).devices[0].circular.unknown_because.is_some();
    assert!(!unknown(&watching()));
    let mut ledger = watching();
    ledger.count_undecodable();
    assert!(unknown(&ledger));
    let mut ledger = watching();
    ledger.set_lost(LOSS);
    resync(&mut ledger, &[]);
    assert!(view(&ledger).exact && unknown(&ledger), "no memory lists them");
}

#[test]
fn a_size_that_was_wrong_once_stays_a_doubt() {
    let unexpected = |buffers: &[u64]| {
        let mut read = baseline(buffers);
        read.buffers[0].block_bytes = Some(4096);
        read
    };
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.finish_baseline(Ok(unexpected(&[1])));
    let begun = ledger.begin_confirmation();
    ledger.finish_resync(begun, 50, Ok(unexpected(&[1])));
    assert_eq!(view(&ledger).inexact_because, ["buffers of unexpected size: 1"]);
}

#[test]
fn what_an_event_speaks_of_the_event_decides() {
    let mut ledger = started();
    ledger.apply(&allocate(1));
    let begun = ledger.begin_reading();
    // The reading saw neither that 1 went nor that 2 came.
    ledger.apply(&free(1));
    ledger.apply(&allocate(2));
    let resynced = ledger.finish_resync(begun, 50, Ok(baseline(&[1])));
    assert_eq!((resynced, live(&ledger)), (Resynced::Settled, vec![2]));
    assert!(view(&ledger).exact);
}

#[test]
fn a_difference_that_passes_was_none() {
    let mut ledger = started();
    ledger.apply(&allocate(1));
    ledger.apply(&free(1));
    let begun = ledger.begin_reading();
    // Its thread has not come to take it out of the tables yet.
    let first = ledger.finish_resync(begun, 50, Ok(baseline(&[1])));
    let second = ledger.finish_resync(begun, 51, Ok(baseline(&[])));
    assert_eq!((first, second), (Resynced::Suspicious, Resynced::Settled));
    assert_eq!(view(&ledger).anomalies.total(), 0);
}

#[test]
fn an_event_between_two_readings_clears_the_suspicion() {
    let mut ledger = started();
    let begun = ledger.begin_reading();
    // In the tables already, its event still to come.
    assert_eq!(ledger.finish_resync(begun, 50, Ok(baseline(&[4]))), Resynced::Suspicious);
    ledger.apply(&allocate(4));
    assert_eq!(ledger.finish_resync(begun, 51, Ok(baseline(&[4]))), Resynced::Settled);
    assert_eq!(view(&ledger).anomalies.total(), 0);
    assert_eq!(view(&ledger).devices[0].pools[0].allocations, 1);
}

#[test]
fn a_late_event_of_a_buffer_found_in_memory_counts_once() {
    let mut ledger = started();
    resync(&mut ledger, &[4]);
    ledger.apply(&allocate(4));
    let snapshot = view(&ledger);
    assert_eq!(snapshot.devices[0].pools[0].allocations, 1);
    assert_eq!(snapshot.anomalies.double_allocation, 0);
}

#[test]
fn a_loss_while_reading_settles_nothing() {
    let mut ledger = started();
    ledger.set_lost(LOSS);
    let begun = ledger.begin_reading();
    ledger.set_lost(Lost { ring_full: 4, ..LOSS });
    assert_eq!(ledger.finish_resync(begun, 50, Ok(baseline(&[]))), Resynced::Unsettled);
    assert!(!view(&ledger).exact && ledger.needs_resync());
}

#[test]
fn a_reading_that_failed_settles_nothing() {
    let mut ledger = started();
    ledger.set_lost(LOSS);
    let begun = ledger.begin_reading();
    let resynced = ledger.finish_resync(begun, 50, Err("gone".to_owned()));
    assert_eq!((resynced, view(&ledger).resync.failed), (Resynced::Unsettled, 1));
    assert!(!view(&ledger).exact);
}

#[test]
fn what_always_changes_does_not_go_on_for_ever() {
    let mut ledger = started();
    let begun = ledger.begin_reading();
    let mut readings = 0;
    let settled = (10..40).any(|id| {
        readings += 1;
        ledger.finish_resync(begun, 50, Ok(baseline(&[1, id]))) == Resynced::Settled
    });
    assert!(settled && readings <= MAX_ROUNDS + 1, "{readings}");
    assert_eq!(live(&ledger), [1], "only what was seen twice");
}

proptest! {
    /// Whatever was lost: afterwards the ledger is what memory says.
    #[test]
    fn afterwards_it_is_as_in_memory(
        known in proptest::collection::btree_set(1_u64..40, 0..20),
        memory in proptest::collection::btree_set(1_u64..40, 0..20),
    ) {
        let mut ledger = started();
        for id in known {
            ledger.apply(&allocate(id));
        }
        ledger.set_lost(LOSS);
        let memory: Vec<u64> = memory.into_iter().collect();
        resync(&mut ledger, &memory);
        prop_assert_eq!(live(&ledger), memory.clone());
        let snapshot = view(&ledger);
        prop_assert!(snapshot.exact);
        let pool = &snapshot.devices[1].pools[0];
        prop_assert_eq!(pool.buffers, memory.len() as u64);
        prop_assert_eq!(pool.bank_bytes, Some(memory.len() as u64 * 3 * 2048));
        prop_assert_eq!(pool.allocations - pool.frees, pool.buffers);
    }
}

/// A free that was under way at the attach is no missed one, if nothing was lost since.
#[test]
fn the_first_reading_is_confirmed_without_a_word() {
    for (lost, missed) in [(Lost::default(), 0), (LOSS, 1)] {
        let mut ledger = Ledger::new(crate::units::Pid(1), Vec::new());
        ledger.finish_baseline(Ok(baseline(&[1, 2])));
        ledger.set_lost(lost);
        let begun = ledger.begin_confirmation();
        assert_eq!(ledger.finish_resync(begun, 50, Ok(baseline(&[2]))), Resynced::Suspicious);
        assert_eq!(ledger.finish_resync(begun, 60, Ok(baseline(&[2]))), Resynced::Settled);
        let snapshot = view(&ledger);
        assert_eq!((live(&ledger), snapshot.anomalies.missed_free), (vec![2], missed));
        assert_eq!(snapshot.devices[0].pools[0].pre_attach_frees, 1);
        assert!(snapshot.exact);
        // The same again later is one.
        assert_eq!(resync(&mut ledger, &[]), 2);
        assert_eq!(view(&ledger).anomalies.missed_free, missed + 1);
    }
}

#[test]
fn a_confirmation_that_finds_nothing_counts_as_no_reading() {
    let mut ledger = Ledger::new(crate::units::Pid(1), Vec::new());
    ledger.finish_baseline(Ok(baseline(&[1])));
    let begun = ledger.begin_confirmation();
    assert_eq!(ledger.finish_resync(begun, 50, Ok(baseline(&[1]))), Resynced::Settled);
    assert_eq!((view(&ledger).resync.done, view(&ledger).resync.last_ns), (0, None));
    resync(&mut ledger, &[1]);
    assert_eq!((view(&ledger).resync.done, view(&ledger).resync.last_ns), (1, Some(50)));
}

/// Another buffer at the place of one whose free was under way.
#[test]
fn a_free_under_way_may_be_followed_by_an_allocation() {
    let mut ledger = Ledger::new(crate::units::Pid(1), Vec::new());
    ledger.finish_baseline(Ok(baseline(&[1])));
    let Event::Allocated(mut newer) = allocate(1) else { panic!("no allocation") };
    newer.shape.unique_id = Some(7);
    ledger.apply(&Event::Allocated(newer.clone()));
    let snapshot = view(&ledger);
    let pool = &snapshot.devices[0].pools[0];
    assert_eq!((pool.buffers, pool.pre_attach_frees, pool.allocations), (1, 1, 1));
    assert!(snapshot.exact, "{:?}", snapshot.inexact_because);
    // Not so of one whose allocation was seen.
    newer.shape.unique_id = Some(8);
    ledger.apply(&Event::Allocated(newer));
    assert_eq!(view(&ledger).anomalies.double_allocation, 1);
}
