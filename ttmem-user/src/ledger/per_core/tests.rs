//! Buffers with an address of their own on each core, against a plain recount.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ttmem_common::layout::BUFFER_TYPES;

use super::*;
use crate::{
    event::{
        Allocated, AllocatorSeen, BufferShape, BufferType, DeviceSeen, Event, Freed, Geometry,
        LiveBaseline,
    },
    ledger::snapshot::{Detail, Snapshot, TargetState},
    units::{ChipId, DeviceAddr, Pid, Tid},
};

const DEVICE: Avma = Avma(0x1000);
const ALLOCATOR: Avma = Avma(0x2000);
const BANKS: u32 = 64;
const BLOCK: u64 = 0x1000;
const L1: usize = 1;

fn shape(id: u64, spread: Spread) -> BufferShape {
    BufferShape {
        unique_id: Some(id),
        buffer_type: BufferType::L1,
        address: DeviceAddr(id * BLOCK),
        size: BLOCK,
        page_size: BLOCK,
        spread,
    }
}

fn allocate(id: u64, spread: Spread) -> Event {
    Event::Allocated(Allocated {
        time_ns: id,
        tid: Tid(7),
        buffer: Avma(id << 8),
        allocator: ALLOCATOR,
        device: DEVICE,
        shape: shape(id, spread),
    })
}

fn free(id: u64) -> Event {
    Event::Freed(Freed { buffer: Avma(id << 8), allocator: ALLOCATOR, described: None })
}

fn on(cores: u32) -> Spread {
    Spread::PerCore { pages: 1, cores }
}

fn empty() -> Ledger {
    let pool = Geometry {
        bank_size: 1 << 20,
        banks: BANKS,
        alignment: 32,
        block_minimum: 32,
        block_unit: 32,
        base: Some(DeviceAddr(0)),
    };
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.apply(&Event::Device(DeviceSeen { device: DEVICE, mesh: None, chips: vec![ChipId(0)] }));
    let pools = [Some(pool); BUFFER_TYPES];
    let seen = AllocatorSeen { allocator: ALLOCATOR, device: DEVICE, pools };
    ledger.apply(&Event::Allocator(Box::new(seen)));
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    ledger
}

fn shown(ledger: &Ledger) -> Snapshot {
    let detail = Detail { buffers: true, ..Detail::default() };
    ledger.snapshot(0, TargetState::Running, detail)
}

fn apply(ledger: &mut Ledger, events: &[Event]) {
    for event in events {
        ledger.apply(event);
    }
}

#[test]
fn a_block_of_each_of_its_cores_is_used() {
    let mut ledger = empty();
    apply(&mut ledger, &[allocate(1, Spread::PagesPerBank(1)), allocate(2, on(8))]);
    let snapshot = shown(&ledger);
    assert!(snapshot.exact, "{:?}", snapshot.inexact_because);
    let pool = &snapshot.devices[0].pools[L1];
    let used = BLOCK * u64::from(BANKS) + BLOCK * 8;
    assert_eq!((pool.used_bytes, pool.bank_bytes, pool.buffers), (Some(used), None, 2));
    let buffers = snapshot.buffers.unwrap();
    let shares: Vec<_> = buffers.iter().map(|buffer| (buffer.cores, buffer.bank_bytes)).collect();
    assert_eq!(shares, [(None, Some(BLOCK)), (Some(8), Some(BLOCK))]);
    ledger.apply(&free(2));
    let pool = shown(&ledger).devices[0].pools[L1].clone();
    assert_eq!((pool.used_bytes, pool.bank_bytes), (Some(BLOCK * u64::from(BANKS)), Some(BLOCK)));
}

/// The banks differ, and blocks of others are entered: nothing is said of them any more.
#[test]
fn what_is_free_is_not_known_from_then_on() {
    let mut ledger = empty();
    ledger.apply(&allocate(1, on(8)));
    for end in [false, true] {
        if end {
            ledger.apply(&free(1));
        }
        let snapshot = shown(&ledger);
        let row = snapshot.allocators.iter().find(|row| row.buffer_type == BufferType::L1);
        let row = row.unwrap();
        assert_eq!((row.free_bank_bytes, row.largest_free_bank_bytes), (None, None));
        let why = "its banks have free lists of their own";
        assert_eq!(row.unknown_because.as_deref(), Some(why));
        assert!(snapshot.exact);
    }
}

#[test]
fn cores_that_were_not_counted_are_a_doubt_while_they_are_there() {
    let mut ledger = empty();
    ledger.apply(&allocate(1, Spread::PerUnknownCore));
    let snapshot = shown(&ledger);
    assert_eq!(snapshot.devices[0].pools[L1].used_bytes, None);
    let why = "buffers with an address of their own on each core: 1";
    assert!(snapshot.inexact_because.iter().any(|reason| reason == why));
    ledger.apply(&free(1));
    assert!(shown(&ledger).exact);
}

#[test]
fn more_cores_than_banks_are_not_measured() {
    let mut ledger = empty();
    ledger.apply(&allocate(1, on(BANKS + 1)));
    let snapshot = shown(&ledger);
    assert_eq!((snapshot.devices[0].pools[L1].used_bytes, snapshot.exact), (None, false));
}

/// Freed in bulk, and then one by one: what that takes of others with an address per core cannot be
/// told. Of others in lockstep it takes nothing, though they be at the same address.
#[test]
fn a_late_free_is_a_doubt_only_where_others_are() {
    let mut ledger = empty();
    apply(&mut ledger, &[allocate(1, on(8)), allocate(2, on(8))]);
    ledger.apply(&Event::BulkFreed { allocator: ALLOCATOR });
    let mut at_its_place = shape(3, Spread::PagesPerBank(1));
    at_its_place.address = DeviceAddr(BLOCK);
    let Event::Allocated(in_lockstep) = allocate(3, Spread::Interleaved) else { unreachable!() };
    ledger.apply(&Event::Allocated(Allocated { shape: at_its_place, ..in_lockstep }));
    ledger.apply(&free(1));
    let snapshot = shown(&ledger);
    assert_eq!((snapshot.exact, snapshot.buffers.unwrap().len()), (true, 1));
    apply(&mut ledger, &[allocate(4, on(2)), free(2)]);
    let snapshot = shown(&ledger);
    let why = "late frees of buffers with an address on each core: 1";
    assert_eq!(snapshot.inexact_because, [why]);
    assert!(ledger.needs_resync());
}

/// The other way round: a late free in lockstep takes no block of a core.
#[test]
fn a_late_free_in_lockstep_leaves_the_cores_alone() {
    let mut ledger = empty();
    ledger.apply(&allocate(1, Spread::PagesPerBank(1)));
    ledger.apply(&Event::BulkFreed { allocator: ALLOCATOR });
    let mut at_its_place = shape(2, on(8));
    at_its_place.address = DeviceAddr(BLOCK);
    let Event::Allocated(per_core) = allocate(2, on(8)) else { unreachable!() };
    ledger.apply(&Event::Allocated(Allocated { shape: at_its_place, ..per_core }));
    ledger.apply(&free(1));
    let snapshot = shown(&ledger);
    assert_eq!((snapshot.exact, snapshot.taken_blocks), (true, 0));
    assert_eq!(snapshot.devices[0].pools[L1].used_bytes, Some(8 * BLOCK));
}

#[test]
fn what_a_reading_is_unsure_of_is_a_doubt_until_another_is_sure() {
    let mut ledger = empty();
    let unsure = |per_core_unsure| Ok(LiveBaseline { per_core_unsure, ..LiveBaseline::default() });
    let begun = ledger.begin_reading();
    ledger.finish_resync(begun, 1, unsure(2));
    let why = "buffers with an address on each core that may have lost their blocks: 2";
    assert_eq!(shown(&ledger).inexact_because, [why]);
    let begun = ledger.begin_reading();
    ledger.finish_resync(begun, 2, unsure(0));
    assert!(shown(&ledger).exact);
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(u64, Spread),
    Free(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let spread = prop_oneof![
        (0..4_u32, 1..=BANKS + 2).prop_map(|(pages, cores)| Spread::PerCore { pages, cores }),
        Just(Spread::PerUnknownCore),
        (0..4_u64).prop_map(Spread::PagesPerBank),
    ];
    let step = prop_oneof![
        (0..12_u64, spread).prop_map(|(id, spread)| Step::Allocate(id, spread)),
        (0..12_u64).prop_map(Step::Free),
    ];
    proptest::collection::vec(step, 0..60)
}

/// Bytes of each bank, and on how many banks.
fn recount(spread: Spread) -> Option<(u64, u64)> {
    let (pages, banks) = match spread {
        Spread::PerCore { pages, cores } if cores <= BANKS => (u64::from(pages), cores),
        Spread::PagesPerBank(pages) => (pages, BANKS),
        _ => return None,
    };
    Some(((pages * BLOCK).max(32), banks.into()))
}

proptest! {
    #[test]
    fn the_pool_agrees_with_a_recount(steps in steps()) {
        let mut ledger = empty();
        let mut live: BTreeMap<u64, Spread> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Allocate(id, spread) if !live.contains_key(&id) => {
                    ledger.apply(&allocate(id, spread));
                    live.insert(id, spread);
                }
                Step::Free(id) if live.remove(&id).is_some() => ledger.apply(&free(id)),
                _ => {}
            }
            let pool = ledger.pool_snapshot(0, BufferType::L1).unwrap();
            let shares: Vec<_> = live.values().map(|spread| recount(*spread)).collect();
            let sum = |what: fn((u64, u64)) -> u64| {
                shares.iter().map(|share| share.map(what)).sum::<Option<u64>>()
            };
            prop_assert_eq!(pool.buffers, live.len() as u64);
            prop_assert_eq!(pool.used_bytes, sum(|(bytes, banks)| bytes * banks));
            let even = !live.values().any(|spread| spread.is_per_core());
            prop_assert_eq!(pool.bank_bytes, sum(|(bytes, _)| bytes).filter(|_| even));
        }
    }
}
