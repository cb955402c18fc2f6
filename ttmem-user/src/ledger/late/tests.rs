//! Late frees, one by one. `model_tests.rs` has them in any order.

use ttmem_common::layout::BUFFER_TYPES;

use super::*;
use crate::{
    event::{
        Allocated, AllocatorSeen, BaselineBuffer, BufferShape, Described, DeviceSeen, Event, Freed,
        Geometry, LiveBaseline, Spread,
    },
    ledger::{
        Resynced,
        snapshot::{Detail, Snapshot, TargetState},
    },
    units::{ChipId, Pid, Tid},
};

const DEVICE: Avma = Avma(0x1000);
const ALLOCATOR: Avma = Avma(0x2000);
const BANK: u64 = 0x1_0000;
const BLOCK: u64 = 0x1000;

fn shape(id: u64, address: u64) -> BufferShape {
    BufferShape {
        unique_id: Some(id),
        buffer_type: BufferType::Dram,
        address: DeviceAddr(address),
        size: BLOCK,
        page_size: BLOCK,
        spread: Spread::Interleaved,
    }
}

fn allocate(id: u64, address: u64) -> Event {
    Event::Allocated(Allocated {
        time_ns: id,
        tid: Tid(7),
        buffer: Avma(id << 8),
        allocator: ALLOCATOR,
        device: DEVICE,
        shape: shape(id, address),
    })
}

fn free(id: u64) -> Event {
    Event::Freed(Freed { buffer: Avma(id << 8), allocator: ALLOCATOR, described: None })
}

fn described_free(id: u64, address: u64) -> Event {
    let (buffer_type, address) = (BufferType::Dram, DeviceAddr(address));
    let described = Some(Described { device: DEVICE, buffer_type, address, per_core: false });
    Event::Freed(Freed { buffer: Avma(id << 8), allocator: ALLOCATOR, described })
}

/// A ledger that has not read the older buffers yet.
fn unread() -> Ledger {
    let pool = Geometry {
        bank_size: BANK,
        banks: 1,
        alignment: 32,
        block_minimum: 32,
        block_unit: 32,
        base: Some(DeviceAddr(0)),
    };
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    let device = DeviceSeen { device: DEVICE, mesh: None, chips: vec![ChipId(0)] };
    ledger.apply(&Event::Device(device));
    let pools = [Some(pool); BUFFER_TYPES];
    ledger.apply(&Event::Allocator(Box::new(AllocatorSeen {
        allocator: ALLOCATOR,
        device: DEVICE,
        pools,
    })));
    ledger
}

fn empty() -> Ledger {
    let mut ledger = unread();
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    ledger
}

fn apply(ledger: &mut Ledger, events: &[Event]) {
    for event in events {
        ledger.apply(event);
    }
}

/// The unique ids that are live; that the totals and the space say the same is checked.
fn live(ledger: &Ledger) -> Vec<u64> {
    let snapshot: Snapshot = ledger.snapshot(
        0,
        TargetState::Running,
        Detail { buffers: true, map: true, ..Detail::default() },
    );
    assert!(snapshot.exact, "{:?}", snapshot.inexact_because);
    let buffers = snapshot.buffers.as_deref().unwrap();
    let bytes = buffers.len() as u64 * BLOCK;
    let pool = &snapshot.devices[0].pools[0];
    assert_eq!((pool.buffers, pool.used_bytes), (buffers.len() as u64, Some(bytes)));
    let older = buffers.iter().filter(|buffer| buffer.pre_attach).count() as u64;
    assert_eq!(pool.allocations + older, pool.frees + pool.buffers);
    assert_eq!(snapshot.allocators[0].free_bank_bytes, Some(BANK - bytes));
    buffers.iter().filter_map(|buffer| buffer.unique_id).collect()
}

#[test]
fn a_late_free_takes_the_block_of_whoever_is_there() {
    let mut ledger = empty();
    apply(&mut ledger, &[allocate(1, 0), allocate(2, BLOCK)]);
    ledger.apply(&Event::BulkFreed { allocator: ALLOCATOR });
    assert!(live(&ledger).is_empty());
    apply(&mut ledger, &[allocate(3, 0), allocate(4, BLOCK)]);
    ledger.apply(&free(1));
    assert_eq!(live(&ledger), [4]);
    assert_eq!(ledger.swept.taken(), 1);
    ledger.apply(&free(2));
    assert!(live(&ledger).is_empty());
    assert_eq!(ledger.swept.taken(), 2);
}

#[test]
fn who_has_lost_its_block_takes_anothers_in_turn() {
    let mut ledger = empty();
    apply(&mut ledger, &[allocate(1, 0), Event::BulkFreed { allocator: ALLOCATOR }]);
    apply(&mut ledger, &[allocate(2, 0), free(1), allocate(3, 0)]);
    assert_eq!(live(&ledger), [3]);
    ledger.apply(&free(2));
    assert!(live(&ledger).is_empty());
    ledger.apply(&free(3));
    assert_eq!((live(&ledger), ledger.swept.taken()), (vec![], 2));
    assert!(!ledger.live.indexes_blocks(), "nobody is awaited any more");
}

#[test]
fn a_late_free_of_an_address_that_is_free_changes_nothing() {
    let mut ledger = empty();
    apply(&mut ledger, &[allocate(1, 0), Event::BulkFreed { allocator: ALLOCATOR }]);
    apply(&mut ledger, &[allocate(2, BLOCK), free(1)]);
    assert_eq!((live(&ledger), ledger.swept.taken()), (vec![2], 0));
}

#[test]
fn a_buffer_swept_before_the_attach_frees_by_address_too() {
    let mut ledger = unread();
    let (buffer, address) = (Avma(1 << 8), DeviceAddr(0));
    let buffer_type = BufferType::Dram;
    let swept = SweptBuffer { buffer, allocator: ALLOCATOR, buffer_type, address, per_core: false };
    ledger.finish_baseline(Ok(LiveBaseline { swept: vec![swept], ..LiveBaseline::default() }));
    apply(&mut ledger, &[allocate(2, 0), allocate(3, BLOCK), free(1)]);
    assert_eq!((live(&ledger), ledger.swept.taken()), (vec![3], 1));
}

/// The free comes while the older buffers are being read: that it was a late one is known only
/// when they have been read, and one of them has that address.
#[test]
fn a_late_free_while_reading_takes_what_the_reading_finds() {
    let mut ledger = unread();
    ledger.apply(&described_free(1, 0));
    let older = |id: u64, address| BaselineBuffer {
        buffer: Avma(id << 8),
        allocator: ALLOCATOR,
        device: DEVICE,
        shape: shape(id, address),
        block_bytes: Some(BLOCK),
    };
    let buffers = vec![older(2, 0), older(3, BLOCK)];
    ledger.finish_baseline(Ok(LiveBaseline { buffers, ..LiveBaseline::default() }));
    assert_eq!((live(&ledger), ledger.swept.taken()), (vec![3], 1));
    // Its own free is no free of an unknown buffer.
    ledger.apply(&free(2));
    assert_eq!(live(&ledger), [3]);
}

/// The probe of allocations is the last one. What came to the place of a buffer that was freed
/// before it was attached is found by the reading, and no event was seen of it.
#[test]
fn what_came_while_the_probes_went_in_keeps_its_block() {
    let mut ledger = unread();
    ledger.apply(&described_free(1, 0));
    ledger.all_probes_attached();
    let newer = BaselineBuffer {
        buffer: Avma(2 << 8),
        allocator: ALLOCATOR,
        device: DEVICE,
        shape: shape(2, 0),
        block_bytes: Some(BLOCK),
    };
    let buffers = vec![newer];
    ledger.finish_baseline(Ok(LiveBaseline { buffers, ..LiveBaseline::default() }));
    assert_eq!((live(&ledger), ledger.swept.taken()), (vec![2], 0));
}

/// What else happens meanwhile does not make it forgotten.
#[test]
fn events_between_a_late_free_and_the_reading_change_nothing() {
    let mut ledger = unread();
    apply(&mut ledger, &[described_free(1, 0), allocate(9, 4 * BLOCK), free(9)]);
    let older = BaselineBuffer {
        buffer: Avma(2 << 8),
        allocator: ALLOCATOR,
        device: DEVICE,
        shape: shape(2, 0),
        block_bytes: Some(BLOCK),
    };
    let buffers = vec![older];
    ledger.finish_baseline(Ok(LiveBaseline { buffers, ..LiveBaseline::default() }));
    assert_eq!((live(&ledger), ledger.swept.taken()), (vec![], 1));
}

/// A block that is given back while the older buffers are read, and then given to another.
#[test]
fn a_free_while_reading_does_not_take_what_came_after_it() {
    let mut ledger = unread();
    apply(&mut ledger, &[described_free(1, 0), allocate(2, 0)]);
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    assert_eq!((live(&ledger), ledger.swept.taken()), (vec![2], 0));
}

/// What is live in the target's memory.
fn memory(buffers: &[(u64, u64)]) -> LiveBaseline {
    let found = |&(id, address): &(u64, u64)| BaselineBuffer {
        buffer: Avma(id << 8),
        allocator: ALLOCATOR,
        device: DEVICE,
        shape: shape(id, address),
        block_bytes: Some(BLOCK),
    };
    LiveBaseline { buffers: buffers.iter().map(found).collect(), ..LiveBaseline::default() }
}

#[test]
fn what_a_failed_reading_left_is_not_for_the_next() {
    let gone = || Err("gone".to_owned());
    for by_a_later_one in [false, true] {
        let mut ledger = unread();
        if by_a_later_one {
            ledger.finish_baseline(Ok(memory(&[(1, 0)])));
            let begun = ledger.begin_reading();
            apply(&mut ledger, &[free(1), described_free(9, 0)]);
            ledger.finish_resync(begun, 10, gone());
        } else {
            ledger.all_probes_attached();
            ledger.apply(&described_free(1, 0));
            ledger.finish_baseline(gone());
        }
        ledger.apply(&allocate(2, 0));
        let begun = ledger.begin_reading();
        let resynced = ledger.finish_resync(begun, 20, Ok(memory(&[(2, 0)])));
        assert_eq!((resynced, ledger.swept.taken()), (Resynced::Settled, 0));
        assert_eq!(live(&ledger), [2]);
    }
}
