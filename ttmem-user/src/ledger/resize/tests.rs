use super::super::{snapshot::*, *};
use crate::{
    event::{AllocatorSeen, BaselineBuffer, Geometry, LiveBaseline, Resized, Spread},
    units::{DeviceAddr, MeshId, Tid},
};

const MESH: Avma = Avma(0x1000);
const ALLOCATOR: Avma = Avma(0x2000);
const BASE: u64 = 4096;
const BANK: u64 = 1 << 20;

/// L1 whose first `away` bytes are given away.
fn l1(away: u64) -> Geometry {
    Geometry {
        bank_size: BANK - away,
        banks: 64,
        alignment: 16,
        block_minimum: 32,
        block_unit: 32,
        base: Some(DeviceAddr(BASE + away)),
    }
}

fn places(away: u64) -> LiveBaseline {
    let mut pools = [None; BufferType::ALL.len()];
    pools[BufferType::L1.index()] = Some(l1(away));
    LiveBaseline {
        devices: vec![DeviceSeen { device: MESH, mesh: Some(MeshId(1)), chips: vec![ChipId(0)] }],
        allocators: vec![AllocatorSeen { allocator: ALLOCATOR, device: MESH, pools }],
        ..LiveBaseline::default()
    }
}

fn resized(away: u64) -> Event {
    Event::Resized(Resized {
        allocator: ALLOCATOR,
        buffer_type: BufferType::L1,
        before: Some(l1(0)),
        after: Some(l1(away)),
    })
}

fn buffer(at: u64) -> BaselineBuffer {
    BaselineBuffer {
        buffer: Avma(0x100 + at),
        allocator: ALLOCATOR,
        device: MESH,
        shape: BufferShape {
            unique_id: Some(at),
            buffer_type: BufferType::L1,
            address: DeviceAddr(BASE + at),
            size: 1024 * 64,
            page_size: 1024,
            spread: Spread::Interleaved,
        },
        block_bytes: Some(1024),
    }
}

/// Bank size, first byte, free bytes and capacity of L1; and whether all is exact.
fn figures(ledger: &Ledger) -> (u64, u64, Option<u64>, Option<u64>, bool) {
    let detail = Detail { buffers: true, map: false, ..Detail::default() };
    let snapshot = ledger.snapshot(1, TargetState::Running, detail);
    let row = &snapshot.allocators[0];
    let pool = &snapshot.devices[0].pools[0];
    let base = row.base.map_or(0, |base| base.0);
    (row.bank_size, base, row.free_bank_bytes, pool.capacity_bytes, snapshot.exact)
}

fn expected(away: u64, used: u64) -> (u64, u64, Option<u64>, Option<u64>, bool) {
    let size = BANK - away;
    (size, BASE + away, Some(size - used), Some(size * 64), true)
}

#[test]
fn a_bank_shrinks_and_grows_again() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    let baseline = LiveBaseline { buffers: vec![buffer(65536)], ..places(0) };
    ledger.finish_baseline(Ok(baseline));
    for away in [4096, 65536, 0, 32] {
        ledger.apply(&resized(away));
        assert_eq!(figures(&ledger), expected(away, 1024), "{away}");
    }
}

#[test]
fn what_a_buffer_is_in_the_way_of_does_not_happen() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    let baseline = LiveBaseline { buffers: vec![buffer(8192)], ..places(4096) };
    ledger.finish_baseline(Ok(baseline));
    ledger.apply(&resized(8224));
    assert_eq!(figures(&ledger), expected(0, 1024), "what was given away was taken back before");
    ledger.apply(&resized(8192));
    assert_eq!(figures(&ledger), expected(8192, 1024), "it begins right at the buffer");
}

#[test]
fn an_event_is_newer_than_the_first_reading() {
    for read in [0, 4096] {
        let mut ledger = Ledger::new(Pid(1), Vec::new());
        ledger.apply(&resized(8192));
        ledger.apply(&resized(2048));
        let baseline = LiveBaseline { buffers: vec![buffer(2048)], ..places(read) };
        ledger.finish_baseline(Ok(baseline));
        assert_eq!(figures(&ledger), expected(2048, 1024), "{read} bytes were away when read");
    }
}

/// A buffer with an address of its own on each core has been there.
#[test]
fn banks_that_differ_differ_after_it_too() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.finish_baseline(Ok(places(0)));
    let mut shape = buffer(65536).shape;
    shape.spread = Spread::PerCore { pages: 1, cores: 2 };
    let (allocator, device) = (ALLOCATOR, MESH);
    let (time_ns, tid, at) = (1, Tid(7), Avma(0x100));
    let allocated = Allocated { time_ns, tid, buffer: at, allocator, device, shape };
    ledger.apply(&Event::Allocated(allocated));
    ledger.apply(&Event::Freed(Freed { buffer: at, allocator, described: None }));
    assert_eq!(figures(&ledger).2, None);
    ledger.apply(&resized(4096));
    assert_eq!(figures(&ledger).2, None);
    // Another allocator at its place is another.
    ledger.apply(&Event::BulkFreed { allocator });
    ledger.apply(&Event::Allocator(Box::new(places(0).allocators[0].clone())));
    assert_eq!(figures(&ledger).2, Some(BANK));
}

#[test]
fn one_that_is_not_known_is_left_alone() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    ledger.apply(&resized(8192));
    let snapshot = ledger.snapshot(1, TargetState::Running, Detail::default());
    assert!(snapshot.allocators.is_empty() && snapshot.exact);
}
