//! What is bounded, and what a long session may do all the same.

use super::{
    super::{
        Lost, Resynced,
        snapshot::Snapshot,
        tests::{allocate, baseline, free, started, view},
    },
    *,
};
use crate::{
    event::{Allocated, AllocatorSeen, DeviceSeen, Event},
    units::{ChipId, MeshId},
};

fn buffers(snapshot: &Snapshot) -> u64 {
    snapshot.devices[0].pools[0].buffers
}

fn doubt(ledger: &Ledger) -> String {
    view(ledger).inexact_because.first().cloned().unwrap_or_default()
}

fn device(address: u64, chip: i32) -> Event {
    let (device, mesh) = (Avma(address), Some(MeshId(1)));
    Event::Device(DeviceSeen { device, mesh, chips: vec![ChipId(chip)] })
}

fn allocator(address: u64, device: u64) -> Event {
    let pools = baseline(&[]).allocators[0].pools;
    let (allocator, device) = (Avma(address), Avma(device));
    Event::Allocator(Box::new(AllocatorSeen { allocator, device, pools }))
}

/// A buffer there.
fn allocate_on(id: u64, allocator: u64, device: u64) -> Event {
    let Event::Allocated(allocated) = allocate(id) else { unreachable!() };
    let (allocator, device) = (Avma(allocator), Avma(device));
    Event::Allocated(Allocated { allocator, device, ..allocated })
}

#[test]
fn too_many_live_buffers_are_not_followed() {
    let mut ledger = started();
    ledger.set_most_buffers(3);
    for id in 1..=3 {
        ledger.apply(&allocate(id));
    }
    assert!(view(&ledger).exact);
    ledger.apply(&allocate(4));
    ledger.apply(&free(1));
    assert_eq!(doubt(&ledger), "more live buffers than ttmem follows (3)");
    assert_eq!(buffers(&view(&ledger)), 3);
    ledger.set_lost(Lost { ring_full: 1, ..Lost::default() });
    assert_eq!((ledger.live.len(), buffers(&view(&ledger))), (0, 3));
    // No reading makes it right.
    assert!(!ledger.needs_resync());
    let begun = ledger.begin_reading();
    let resynced = ledger.finish_resync(begun, 9, Ok(baseline(&[2])));
    assert_eq!((resynced, buffers(&view(&ledger))), (Resynced::Settled, 3));
    assert_eq!(doubt(&ledger), "more live buffers than ttmem follows (3)");
}

#[test]
fn a_reading_of_too_many_is_not_taken_in() {
    let mut ledger = Ledger::new(crate::units::Pid(1), Vec::new());
    ledger.set_most_buffers(3);
    ledger.finish_baseline(Ok(baseline(&[1, 2, 3, 4])));
    assert_eq!(ledger.live.len(), 0);
    assert!(view(&ledger).inexact_because.iter().any(|why| why.contains("than ttmem follows")));
}

#[test]
fn those_that_await_their_free_take_room() {
    let mut ledger = started();
    ledger.set_most_buffers(3);
    for round in 0..4 {
        for id in 1..=3 {
            ledger.apply(&allocate(10 * round + id));
        }
        ledger.apply(&Event::BulkFreed { allocator: Avma(0x2000) });
        assert!(view(&ledger).exact, "{round}");
        for id in 1..=3 {
            ledger.apply(&free(10 * round + id));
        }
    }
    ledger.apply(&allocate(1));
    ledger.apply(&Event::BulkFreed { allocator: Avma(0x2000) });
    for id in 2..=4 {
        ledger.apply(&allocate(id));
    }
    assert_eq!(doubt(&ledger), "more live buffers than ttmem follows (3)");
}

#[test]
fn made_up_places_are_bounded() {
    let made_up = |what: &str, at: u64| match what {
        "chips" => device(at << 8, i32::try_from(at).unwrap()),
        "devices" => device(at << 8, 0),
        _ => allocator(at << 8, 0x1000),
    };
    for what in ["chips", "devices", "allocators"] {
        let mut ledger = started();
        for at in 1..5000 {
            ledger.apply(&made_up(what, at));
        }
        assert_eq!(doubt(&ledger), format!("more {what} than ttmem follows (512)"));
        let topology = &ledger.topology;
        let counts = [topology.chips().len(), topology.device_count(), topology.allocator_count()];
        assert!(counts.iter().all(|count| *count < 520), "{what}: {counts:?}");
    }
}

/// As a program does that opens and closes its devices again and again.
#[test]
fn what_is_closed_is_forgotten() {
    let mut ledger = started();
    // It is allocated behind the close, and lives on.
    ledger.apply(&device(0x10_0000, 7));
    ledger.apply(&allocator(0x20_0000, 0x10_0000));
    ledger.apply(&Event::BulkFreed { allocator: Avma(0x20_0000) });
    ledger.apply(&allocate_on(1, 0x20_0000, 0x10_0000));
    for round in 1..3000_u64 {
        let (at, its) = (0x10_0000 + (round << 12), 0x20_0000 + (round << 12) + 8);
        ledger.apply(&device(at, 7));
        ledger.apply(&allocator(its, at));
        ledger.apply(&allocate_on(2, its, at));
        ledger.apply(&free(2));
        ledger.apply(&Event::BulkFreed { allocator: Avma(its) });
    }
    assert_eq!(doubt(&ledger), "");
    let topology = &ledger.topology;
    let counts = [topology.device_count(), topology.allocator_count()];
    assert!(counts.iter().all(|count| *count < 200), "{counts:?}");
    assert!(ledger.spaces.len() < 200);
    let pool = |ledger: &Ledger| {
        let snapshot = view(ledger);
        let chip = snapshot.devices.iter().find(|chip| chip.chip == ChipId(7)).unwrap();
        (chip.pools[0].buffers, chip.pools[0].allocations, chip.pools[0].frees)
    };
    assert_eq!(pool(&ledger), (1, 3000, 2999));
    let shown = view(&ledger);
    assert_eq!(shown.buffers.unwrap()[0].chips, [ChipId(7)]);
    let ids: Vec<u32> = shown.allocators.iter().map(|row| row.id).collect();
    assert!(ids.contains(&3000), "numbers are not given again: {ids:?}");
    ledger.apply(&free(1));
    assert_eq!(pool(&ledger), (0, 3000, 3000));
}

#[test]
fn work_is_paid_for_out_of_what_time_brings() {
    let mut ledger = started();
    let all = usize::try_from(ALLOWANCE).unwrap();
    ledger.stamp(5 * SECOND_NS, None);
    ledger.pay(all);
    ledger.stamp(6 * SECOND_NS, None);
    ledger.pay(all / 20);
    assert_eq!(doubt(&ledger), "");
    ledger.pay(1);
    assert_eq!(doubt(&ledger), "more work than ttmem does for one process");
    ledger.apply(&allocate(1));
    assert_eq!(ledger.live.len(), 0);
}
