//! What the ledger says of free space, from events and from what was read.

use super::super::snapshot::{Detail, Snapshot, SpaceSnapshot, TargetState};
use super::*;
use crate::{
    event::{
        Allocated, BaselineBuffer, BufferShape, DeviceSeen, Event, FreeListSeen, Freed, Spread,
    },
    ledger::resync::Resynced,
    units::{ChipId, DeviceAddr, MeshId, Pid, Tid},
};

const MESH: Avma = Avma(0x1000);
const ALLOCATOR: Avma = Avma(0x2000);
const BASE: u64 = 4096;
const BANK: u64 = 1 << 20;

fn device() -> DeviceSeen {
    DeviceSeen { device: MESH, mesh: Some(MeshId(1)), chips: vec![ChipId(0)] }
}

fn allocator(base: u64) -> AllocatorSeen {
    let pool = Geometry {
        bank_size: BANK + BASE - base,
        banks: 2,
        alignment: 32,
        block_minimum: 32,
        block_unit: 32,
        base: Some(DeviceAddr(base)),
    };
    let mut pools = [None; BUFFER_TYPES];
    pools[0] = Some(pool);
    AllocatorSeen { allocator: ALLOCATOR, device: MESH, pools }
}

/// A buffer that takes 1024 bytes of each bank.
fn allocate(id: u64, at: u64) -> Event {
    Event::Allocated(Allocated {
        time_ns: id,
        tid: Tid(7),
        buffer: Avma(id << 8),
        allocator: ALLOCATOR,
        device: MESH,
        shape: BufferShape {
            unique_id: Some(id),
            buffer_type: BufferType::Dram,
            address: DeviceAddr(BASE + at),
            size: 2048,
            page_size: 1024,
            spread: Spread::Interleaved,
        },
    })
}

fn free(id: u64) -> Event {
    Event::Freed(Freed { buffer: Avma(id << 8), allocator: ALLOCATOR, described: None })
}

fn with_events(events: &[Event]) -> Ledger {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.apply(&Event::Device(device()));
    ledger.apply(&Event::Allocator(Box::new(allocator(BASE))));
    for event in events {
        ledger.apply(event);
    }
    ledger
}

fn read(holes: &[(u64, u64)], steady: bool) -> LiveBaseline {
    let place = |(start, end): &(u64, u64)| (DeviceAddr(BASE + start), DeviceAddr(BASE + end));
    LiveBaseline {
        devices: vec![device()],
        allocators: vec![allocator(BASE)],
        free_lists: vec![FreeListSeen {
            allocator: ALLOCATOR,
            buffer_type: BufferType::Dram,
            holes: holes.iter().map(place).collect(),
        }],
        steady,
        ..LiveBaseline::default()
    }
}

fn view(ledger: &Ledger) -> Snapshot {
    ledger.snapshot(
        9,
        TargetState::Running,
        Detail { buffers: false, map: true, ..Detail::default() },
    )
}

fn row(ledger: &Ledger) -> SpaceSnapshot {
    let mut rows = view(ledger).allocators;
    assert_eq!(rows.len(), 1);
    rows.remove(0)
}

#[test]
fn nothing_is_said_before_the_older_buffers_are_known() {
    let mut ledger = with_events(&[]);
    let pending = row(&ledger);
    assert_eq!(pending.free_bank_bytes, None);
    assert_eq!(pending.unknown_because.as_deref(), Some("older buffers are still being read"));
    ledger.finish_baseline(Err("no way".into()));
    let row = row(&ledger);
    assert_eq!(row.unknown_because.as_deref(), Some("older buffers are not known: no way"));
    assert_eq!((row.free_bank_bytes, row.map), (None, None));
}

#[test]
fn the_map_names_buffers_and_holes() {
    let mut ledger = with_events(&[]);
    ledger.finish_baseline(Ok(read(&[(0, BANK)], true)));
    for event in [allocate(1, 0), allocate(2, 1024), allocate(3, 4096), free(1)] {
        ledger.apply(&event);
    }
    let row = row(&ledger);
    assert!(row.checked);
    assert_eq!((row.free_bank_bytes, row.holes), (Some(BANK - 2048), Some(3)));
    assert_eq!(row.largest_free_bank_bytes, Some(BANK - 5120));
    let map: Vec<(u64, u64, Option<u64>)> = row
        .map
        .unwrap()
        .iter()
        .map(|block| (block.start.0 - BASE, block.bytes(), block.unique_id))
        .collect();
    let expected = [
        (0, 1024, None),
        (1024, 1024, Some(2)),
        (2048, 2048, None),
        (4096, 1024, Some(3)),
        (5120, BANK - 5120, None),
    ];
    assert_eq!(map, expected);
}

/// What a reading says of buffers, each with its address.
fn read_with(buffers: &[(u64, u64)]) -> LiveBaseline {
    let buffers = buffers.iter().map(|&(id, at)| {
        let Event::Allocated(allocated) = allocate(id, at) else { unreachable!() };
        let Allocated { buffer, allocator, device, shape, .. } = allocated;
        BaselineBuffer { buffer, allocator, device, shape, block_bytes: Some(1024) }
    });
    LiveBaseline { free_lists: Vec::new(), buffers: buffers.collect(), ..read(&[], false) }
}

#[test]
fn an_overlap_is_counted_and_makes_it_inexact() {
    let mut ledger = with_events(&[]);
    ledger.finish_baseline(Ok(read(&[(0, BANK)], true)));
    ledger.apply(&allocate(1, 0));
    ledger.apply(&allocate(2, 512));
    let snapshot = view(&ledger);
    assert_eq!(snapshot.anomalies.overlap, 1);
    assert_eq!(snapshot.inexact_because, ["buffers that overlap others or leave their bank: 1"],);
    assert_eq!(row(&ledger).free_bank_bytes, None);
    ledger.apply(&free(2));
    assert_eq!(row(&ledger).free_bank_bytes, Some(BANK - 1024), "known again when it is gone");
}

#[test]
fn an_overlap_that_memory_shows_too_is_not_set_right() {
    let mut ledger = with_events(&[allocate(1, 0), allocate(2, 512)]);
    ledger.finish_baseline(Ok(read_with(&[(1, 0), (2, 512)])));
    for _ in 0..2 {
        let begun = ledger.begin_reading();
        let resynced = ledger.finish_resync(begun, 50, Ok(read_with(&[(1, 0), (2, 512)])));
        assert_eq!(resynced, Resynced::Settled);
        let doubts = view(&ledger).inexact_because;
        assert_eq!(doubts, ["buffers that overlap others or leave their bank: 1"]);
        assert!(!ledger.needs_resync(), "another reading would say the same");
    }
    ledger.apply(&free(2));
    assert!(view(&ledger).exact);
}

#[test]
fn a_free_list_that_says_otherwise_is_counted() {
    let mut ledger = with_events(&[]);
    ledger.finish_baseline(Ok(read(&[(1024, BANK)], true)));
    assert_eq!(view(&ledger).anomalies.free_list_mismatch, 1);
    assert_eq!(row(&ledger).free_bank_bytes, None);
    // Attached, the allocation of what lies there may be under way.
    let mut ledger = with_events(&[]);
    ledger.finish_baseline(Ok(read(&[(1024, BANK)], false)));
    assert_eq!(view(&ledger).anomalies.free_list_mismatch, 0);
    assert_eq!((row(&ledger).free_bank_bytes, row(&ledger).checked), (Some(BANK), false));
}

#[test]
fn what_an_event_has_changed_is_not_compared() {
    let mut ledger = with_events(&[allocate(1, 0), free(1)]);
    ledger.finish_baseline(Ok(read(&[(1024, BANK)], false)));
    assert_eq!((row(&ledger).free_bank_bytes, row(&ledger).checked), (Some(BANK), false));
    let mut ledger = with_events(&[Event::BulkFreed { allocator: ALLOCATOR }]);
    ledger.finish_baseline(Ok(read(&[], false)));
    assert_eq!(row(&ledger).free_bank_bytes, Some(BANK));
    assert!(row(&ledger).maybe_closed);
}

#[test]
fn another_bank_is_filled_with_the_live_buffers() {
    let mut ledger = with_events(&[]);
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    ledger.apply(&allocate(1, 8192));
    ledger.apply(&Event::Allocator(Box::new(allocator(BASE + 4096))));
    let shrunk = row(&ledger);
    assert_eq!(shrunk.base, Some(DeviceAddr(BASE + 4096)));
    assert_eq!(shrunk.free_bank_bytes, Some(BANK - 4096 - 1024));
    ledger.apply(&Event::BulkFreed { allocator: ALLOCATOR });
    assert_eq!(row(&ledger).free_bank_bytes, Some(BANK - 4096));
}

#[test]
fn a_free_list_that_is_none_is_counted_if_nothing_moved() {
    for (steady, mismatches) in [(true, 1), (false, 0)] {
        let mut ledger = with_events(&[]);
        let damaged = vec![(ALLOCATOR, BufferType::Dram)];
        ledger.finish_baseline(Ok(LiveBaseline { damaged, steady, ..LiveBaseline::default() }));
        assert_eq!(view(&ledger).anomalies.free_list_mismatch, mismatches, "{steady}");
        assert_eq!(row(&ledger).free_bank_bytes.is_none(), steady);
    }
}

/// What looks like an allocation under way has to be over at the next reading.
#[test]
fn what_seemed_under_way_and_stays_so_is_counted() {
    let mut ledger = with_events(&[]);
    ledger.finish_baseline(Ok(read(&[(1024, BANK)], false)));
    assert!(ledger.needs_resync());
    let again = |ledger: &mut Ledger, start: u64| {
        let begun = ledger.begin_reading();
        ledger.finish_resync(begun, 50, Ok(read(&[(start, BANK)], false)));
    };
    again(&mut ledger, 2048);
    assert_eq!(view(&ledger).anomalies.free_list_mismatch, 0, "another one");
    again(&mut ledger, 2048);
    assert_eq!(view(&ledger).anomalies.free_list_mismatch, 1);
    again(&mut ledger, 0);
    assert!(view(&ledger).exact && row(&ledger).checked);
}
