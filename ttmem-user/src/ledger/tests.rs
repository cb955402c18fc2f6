//! The ledger's rules, one by one.

use ttmem_common::layout::BUFFER_TYPES;

use super::{
    snapshot::{Detail, TargetState},
    *,
};
use crate::{
    event::{AllocatorSeen, BaselineBuffer, Described, DeviceSeen, Geometry, LiveBaseline, Spread},
    units::{ChipId, DeviceAddr, MeshId, Tid},
};

const MESH: Avma = Avma(0x1000);
const ALLOCATOR: Avma = Avma(0x2000);

fn mesh_of_two() -> Event {
    Event::Device(DeviceSeen {
        device: MESH,
        mesh: Some(MeshId(1)),
        chips: vec![ChipId(0), ChipId(1)],
    })
}

fn allocator_seen() -> AllocatorSeen {
    let pool = Geometry {
        bank_size: 1 << 20,
        banks: 12,
        alignment: 32,
        block_minimum: 32,
        block_unit: 32,
        base: None,
    };
    let mut pools = [Some(pool); BUFFER_TYPES];
    pools[BufferType::SystemMemory.index()] = None;
    AllocatorSeen { allocator: ALLOCATOR, device: MESH, pools }
}

fn shape(id: u64) -> BufferShape {
    BufferShape {
        unique_id: Some(id),
        buffer_type: BufferType::Dram,
        address: DeviceAddr(id * 4096),
        size: 26 * 2048,
        page_size: 2048,
        spread: Spread::Interleaved,
    }
}

pub(super) fn allocate(id: u64) -> Event {
    Event::Allocated(Allocated {
        time_ns: id,
        tid: Tid(7),
        buffer: Avma(id << 8),
        allocator: ALLOCATOR,
        device: MESH,
        shape: shape(id),
    })
}

pub(super) fn free(id: u64) -> Event {
    Event::Freed(Freed { buffer: Avma(id << 8), allocator: ALLOCATOR, described: None })
}

fn described_free(id: u64) -> Event {
    let described = Described {
        device: MESH,
        buffer_type: BufferType::Dram,
        address: DeviceAddr(0x40),
        per_core: false,
    };
    Event::Freed(Freed { buffer: Avma(id << 8), allocator: ALLOCATOR, described: Some(described) })
}

fn older(id: u64) -> BaselineBuffer {
    BaselineBuffer {
        buffer: Avma(id << 8),
        allocator: ALLOCATOR,
        device: MESH,
        shape: shape(id),
        block_bytes: Some(3 * 2048),
    }
}

pub(super) fn baseline(buffers: &[u64]) -> LiveBaseline {
    let Event::Device(device) = mesh_of_two() else { unreachable!() };
    LiveBaseline {
        devices: vec![device],
        allocators: vec![allocator_seen()],
        buffers: buffers.iter().map(|&id| older(id)).collect(),
        swept: Vec::new(),
        ..LiveBaseline::default()
    }
}

/// A ledger whose baseline has been read, with nothing in it but the device.
pub(super) fn started() -> Ledger {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.finish_baseline(Ok(baseline(&[])));
    ledger
}

fn pool(ledger: &Ledger, chip: usize) -> snapshot::PoolSnapshot {
    view(ledger).devices[chip].pools[0].clone()
}

pub(super) fn view(ledger: &Ledger) -> snapshot::Snapshot {
    ledger.snapshot(
        99,
        TargetState::Running,
        Detail { buffers: true, map: false, ..Detail::default() },
    )
}

#[test]
fn a_lockstep_allocation_counts_on_every_chip() {
    let mut ledger = started();
    ledger.apply(&allocate(1));
    for chip in 0..2 {
        let pool = pool(&ledger, chip);
        assert_eq!((pool.buffers, pool.logical_bytes), (1, 26 * 2048));
        // 26 pages over 12 banks: 3 pages on the fullest bank, on all 12 in lockstep.
        assert_eq!(pool.bank_bytes, Some(3 * 2048));
        assert_eq!(pool.used_bytes, Some(3 * 2048 * 12));
        assert_eq!(pool.capacity_bytes, Some(12 << 20));
    }
    assert!(view(&ledger).exact);
    assert_eq!(view(&ledger).buffers.unwrap().len(), 1);
}

#[test]
fn every_pool_that_the_allocators_have_is_listed() {
    let snapshot = view(&started());
    let types: Vec<_> = snapshot.devices[1].pools.iter().map(|p| p.buffer_type.name()).collect();
    assert_eq!(types, ["DRAM", "L1", "L1_SMALL", "TRACE"]);
}

#[test]
fn the_peak_stays_when_buffers_go() {
    let mut ledger = started();
    ledger.apply(&allocate(1));
    ledger.apply(&allocate(2));
    ledger.apply(&free(1));
    ledger.apply(&free(2));
    let pool = pool(&ledger, 0);
    assert_eq!(pool.used_bytes, Some(0));
    assert_eq!(pool.peak_used_bytes, Some(2 * 3 * 2048 * 12));
    assert_eq!((pool.allocations, pool.frees, pool.pre_attach_frees), (2, 2, 0));
}

#[test]
fn an_unknown_free_subtracts_nothing_and_is_counted() {
    let mut ledger = started();
    ledger.apply(&allocate(1));
    ledger.apply(&free(2));
    assert_eq!(pool(&ledger, 0).buffers, 1);
    assert_eq!(view(&ledger).anomalies.unknown_free, 1);
    assert!(!view(&ledger).exact);
}

#[test]
fn an_allocation_over_a_live_buffer_replaces_it_and_is_counted() {
    let mut ledger = started();
    ledger.apply(&allocate(1));
    ledger.apply(&allocate(1));
    assert_eq!(pool(&ledger, 0).buffers, 1);
    assert_eq!(view(&ledger).anomalies.double_allocation, 1);
}

#[test]
fn a_bulk_free_takes_every_buffer_and_late_frees_change_nothing() {
    let mut ledger = started();
    ledger.apply(&allocate(1));
    ledger.apply(&allocate(2));
    ledger.apply(&Event::BulkFreed { allocator: ALLOCATOR });
    assert_eq!(pool(&ledger, 1).buffers, 0);
    assert_eq!(pool(&ledger, 1).frees, 2);
    ledger.apply(&free(1));
    assert_eq!(pool(&ledger, 1).frees, 2);
    assert_eq!(view(&ledger).anomalies, Anomalies::default());
    ledger.apply(&free(1));
    assert_eq!(view(&ledger).anomalies.unknown_free, 1, "only one late free is expected");
}

#[test]
fn a_bulk_free_of_another_allocator_takes_nothing() {
    let mut ledger = started();
    ledger.apply(&allocate(1));
    ledger.apply(&Event::BulkFreed { allocator: Avma(0x9000) });
    assert_eq!(pool(&ledger, 0).buffers, 1);
}

#[test]
fn older_buffers_count_as_live_but_not_as_allocations() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.finish_baseline(Ok(baseline(&[1, 2])));
    ledger.apply(&free(1));
    let pool = pool(&ledger, 0);
    assert_eq!((pool.buffers, pool.allocations, pool.frees, pool.pre_attach_frees), (1, 0, 0, 1));
    let buffers = view(&ledger).buffers.unwrap();
    assert!(buffers[0].pre_attach && buffers[0].tid.is_none());
}

#[test]
fn events_decide_over_what_was_read() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.apply(&mesh_of_two());
    ledger.all_probes_attached();
    ledger.apply(&described_free(1)); // older, freed before it could be read, or after
    ledger.apply(&allocate(2)); // new, and read too
    ledger.apply(&allocate(3)); // new and gone again, but still read
    ledger.apply(&free(3));
    ledger.finish_baseline(Ok(baseline(&[1, 2, 3, 4])));
    let ids: Vec<_> = view(&ledger).buffers.unwrap().iter().map(|b| b.unique_id).collect();
    assert_eq!(ids, [Some(2), Some(4)]);
    let pool = pool(&ledger, 0);
    assert_eq!((pool.allocations, pool.frees, pool.pre_attach_frees), (2, 1, 1));
    assert_eq!(view(&ledger).anomalies, Anomalies::default());
}

#[test]
fn before_the_last_probe_is_in_place_only_what_was_seen_to_come_is_known() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.apply(&mesh_of_two());
    // The probe on allocations is the last: that others have come to the same places was not seen.
    ledger.apply(&described_free(1));
    ledger.apply(&Event::BulkFreed { allocator: ALLOCATOR });
    // That one was put in place meanwhile.
    ledger.apply(&allocate(3));
    ledger.apply(&free(3));
    ledger.all_probes_attached();
    ledger.finish_baseline(Ok(baseline(&[1, 2, 3])));
    let ids: Vec<_> = view(&ledger).buffers.unwrap().iter().map(|b| b.unique_id).collect();
    assert_eq!(ids, [Some(1), Some(2)]);
    assert_eq!(view(&ledger).anomalies, Anomalies::default());
}

#[test]
fn a_buffer_read_just_before_its_own_event_is_no_double_allocation() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.finish_baseline(Ok(baseline(&[1])));
    ledger.apply(&allocate(1));
    assert_eq!(view(&ledger).anomalies, Anomalies::default());
    let pool = pool(&ledger, 0);
    assert_eq!((pool.buffers, pool.allocations, pool.pre_attach_frees), (1, 1, 0));
    assert!(!view(&ledger).buffers.unwrap()[0].pre_attach);
}

#[test]
fn a_bulk_free_while_reading_takes_older_buffers_too() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.apply(&Event::BulkFreed { allocator: ALLOCATOR });
    ledger.apply(&mesh_of_two());
    ledger.apply(&Event::Allocator(Box::new(allocator_seen())));
    ledger.apply(&allocate(5));
    ledger.finish_baseline(Ok(baseline(&[1, 2])));
    ledger.apply(&free(1));
    let pool = pool(&ledger, 0);
    assert_eq!((pool.buffers, pool.allocations, pool.pre_attach_frees), (1, 1, 2));
    assert_eq!(view(&ledger).anomalies, Anomalies::default());
}

#[test]
fn the_block_table_decides_over_the_formula() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    let mut read = baseline(&[1]);
    read.buffers[0].block_bytes = Some(4096);
    ledger.finish_baseline(Ok(read));
    assert_eq!(pool(&ledger, 0).bank_bytes, Some(4096));
    assert_eq!(view(&ledger).anomalies.size_mismatch, 1);
}

#[test]
fn without_a_baseline_nothing_is_exact() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    assert!(!view(&ledger).exact);
    ledger.finish_baseline(Err("its layout could not be decoded".to_owned()));
    ledger.apply(&mesh_of_two());
    ledger.apply(&allocate(1));
    let snapshot = view(&ledger);
    assert!(!snapshot.exact);
    assert_eq!(
        snapshot.inexact_because[0],
        "older buffers are not known: its layout could not be decoded"
    );
}

#[test]
fn unknown_numbers_are_null() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.apply(&mesh_of_two()); // but never an allocator
    ledger.apply(&allocate(1));
    let json = serde_json::to_value(view(&ledger)).unwrap();
    let pool = &json["devices"][0]["pools"][0];
    for unknown in ["bank_bytes", "banks", "used_bytes", "capacity_bytes", "peak_used_bytes"] {
        assert!(pool[unknown].is_null(), "{unknown}");
    }
    assert_eq!(pool["logical_bytes"], 26 * 2048);
}

#[test]
fn an_unknown_device_is_said() {
    let mut ledger = started();
    let Event::Allocated(mut allocated) = allocate(1) else { unreachable!() };
    allocated.device = Avma(0x77);
    ledger.apply(&Event::Allocated(allocated));
    assert!(!view(&ledger).exact);
}

#[test]
fn loss_makes_it_inexact() {
    let mut ledger = started();
    ledger.set_lost(Lost { ring_full: 3, read_fault: 0 });
    assert_eq!(view(&ledger).inexact_because, ["records lost: 3"]);
}

#[test]
fn the_delta_of_a_free_says_whose_allocation_it_ends() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.want_deltas(true);
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    ledger.apply(&mesh_of_two());
    ledger.stamp(4, Some(Tid(7)));
    ledger.apply(&allocate(4));
    ledger.stamp(9, Some(Tid(8)));
    ledger.apply(&Event::Freed(Freed {
        allocator: ALLOCATOR,
        buffer: Avma(4 << 8),
        described: None,
    }));
    let deltas = ledger.take_deltas();
    let told: Vec<_> = deltas
        .iter()
        .map(|delta| {
            (delta.change, delta.time_ns, delta.tid, delta.allocated_ns, delta.allocated_tid)
        })
        .collect();
    let allocated = (Some(4), Some(Tid(7)));
    assert_eq!(
        told,
        [
            (delta::Change::Allocated, 4, Some(Tid(7)), allocated.0, allocated.1),
            (delta::Change::Freed, 9, Some(Tid(8)), allocated.0, allocated.1),
        ]
    );
    assert!(deltas.iter().all(|delta| delta.page_size == 2048 && !delta.pre_attach));
}
