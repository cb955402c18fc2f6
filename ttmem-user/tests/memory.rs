//! What a live buffer costs in memory, counted at the allocator.
//!
//! Behind every event: tables grow by leaps, and are largest for what they hold just after that.
#![expect(unsafe_code, reason = "a global allocator can only be counted by being one")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use ttmem::{
    event::{
        Allocated, AllocatorSeen, BufferShape, BufferType, DeviceSeen, Event, Freed, Geometry,
        LiveBaseline, Spread,
    },
    ledger::{
        Ledger,
        snapshot::{Detail, TargetState},
    },
    units::{Avma, ChipId, DeviceAddr, MeshId, Pid, Tid},
};
use ttmem_common::layout::BUFFER_TYPES;

/// Bytes that a live buffer may cost.
const LIMIT: usize = 200;
/// From so many live buffers on: of fewer, what a ledger has in any case is the larger part.
const LEAST: usize = 20_000;
/// Live buffers.
const LIVE: u64 = 100_000;

/// Counts what the program has allocated.
struct Counting {
    /// Bytes now, as asked for.
    now: AtomicUsize,
    /// Highest since it was last set.
    peak: AtomicUsize,
}

thread_local! {
    /// How often this thread has allocated something. The harness has threads of its own.
    static TIMES: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting { now: AtomicUsize::new(0), peak: AtomicUsize::new(0) };

// SAFETY: all is passed on to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = self.now.fetch_add(layout.size(), Relaxed) + layout.size();
        self.peak.fetch_max(now, Relaxed);
        TIMES.set(TIMES.get() + 1);
        // SAFETY: the caller keeps what `GlobalAlloc::alloc` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.now.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps what `GlobalAlloc::dealloc` asks for.
        unsafe { System.dealloc(pointer, layout) }
    }
}

const MESH: Avma = Avma(0x1000);
const ALLOCATOR: Avma = Avma(0x2000);
const BLOCK: u64 = 2048;

/// A mesh of eight chips, attached to before there was any buffer.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    let chips = (0..8).map(ChipId).collect();
    ledger.apply(&Event::Device(DeviceSeen { device: MESH, mesh: Some(MeshId(0)), chips }));
    let pool = Geometry {
        bank_size: 1 << 32,
        banks: 12,
        alignment: 32,
        block_minimum: 32,
        block_unit: 32,
        base: Some(DeviceAddr(0)),
    };
    let pools = [Some(pool); BUFFER_TYPES];
    ledger.apply(&Event::Allocator(Box::new(AllocatorSeen {
        allocator: ALLOCATOR,
        device: MESH,
        pools,
    })));
    ledger
}

/// An address for a buffer that no other has, as a heap would give it.
const fn buffer(id: u64) -> Avma {
    Avma(0x7f00_0000_0000 + id * 0x1c0)
}

fn allocated(id: u64) -> Event {
    Event::Allocated(Allocated {
        time_ns: id,
        tid: Tid(7),
        buffer: buffer(id),
        allocator: ALLOCATOR,
        device: MESH,
        shape: BufferShape {
            unique_id: Some(id),
            buffer_type: BufferType::Dram,
            address: DeviceAddr(id * BLOCK),
            size: 12 * BLOCK,
            page_size: BLOCK,
            spread: Spread::Interleaved,
        },
    })
}

fn freed(id: u64) -> Event {
    Event::Freed(Freed { buffer: buffer(id), allocator: ALLOCATOR, described: None })
}

fn bulk_freed() -> Event {
    Event::BulkFreed { allocator: ALLOCATOR }
}

/// Most bytes per live buffer behind any of these events, and behind the last; and the most bytes there
/// were meanwhile, for each of those that are live then.
fn cost(live: u64, holes: u64, events: impl Iterator<Item = Event>) -> Cost {
    let before = COUNTING.now.load(Relaxed);
    COUNTING.peak.store(before, Relaxed);
    let mut ledger = ledger();
    let (mut count, mut most) = (0_usize, (0, 0));
    for event in events {
        ledger.apply(&event);
        match event {
            Event::Allocated(_) => count += 1,
            Event::Freed(_) => count -= 1,
            // Of the few that are there to begin with.
            _ => count = 0,
        }
        if count >= LEAST {
            let bytes = COUNTING.now.load(Relaxed) - before;
            most = most.max((bytes.div_ceil(count), count));
        }
    }
    let [now, peak] = [&COUNTING.now, &COUNTING.peak].map(|bytes| bytes.load(Relaxed) - before);
    let shown = ledger.snapshot(0, TargetState::Running, Detail::default());
    assert!(shown.exact, "{:?}", shown.inexact_because);
    assert_eq!(shown.devices.len(), 8);
    assert!(shown.devices.iter().all(|chip| chip.pools[0].buffers == live));
    assert_eq!(shown.allocators[0].holes, Some(holes));
    let count = usize::try_from(live).unwrap();
    Cost { most, last: now.div_ceil(count), peak: peak.div_ceil(count) }
}

/// Bytes for each live buffer.
struct Cost {
    /// Most behind any event, and how many were live then.
    most: (usize, usize),
    /// Behind the last event.
    last: usize,
    /// The most at any time, for each of those that are live at the end.
    peak: usize,
}

/// Every id below `count` once, far from those before and after it. `count` is no multiple of
/// the prime.
fn scattered(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |at| at * 7919 % count)
}

fn check(what: &str, cost: &Cost) {
    let Cost { most: (most, at), last, peak } = cost;
    println!("{what}: {last} bytes each, {peak} at the highest; most with {at}: {most}");
    assert!(*most <= LIMIT, "{what}: {most} bytes for each of {at} live buffers");
}

/// With `live` others, buffers that come and go; how often something was allocated for that.
fn allocations(live: u64) -> usize {
    let mut ledger = ledger();
    (0..live).for_each(|id| ledger.apply(&allocated(id)));
    let mut come_and_go = |ids: std::ops::Range<u64>| {
        for id in ids {
            ledger.apply(&allocated(id));
            ledger.apply(&allocated(id + 1));
            ledger.apply(&freed(id));
            ledger.apply(&freed(id + 1));
        }
    };
    come_and_go(live..live + 10);
    let before = TIMES.get();
    come_and_go(live..live + 1000);
    TIMES.get() - before
}

// One test: what others allocate meanwhile would be counted too.
#[test]
fn a_live_buffer_costs_little() {
    assert_eq!(allocations(0), 0, "for buffers of which the last one goes, too");
    assert_eq!(allocations(5000), 0);
    let one_by_one = cost(LIVE, 1, (0..LIVE).map(allocated));
    check("one by one", &one_by_one);
    assert!(one_by_one.peak <= LIMIT, "while the tables grew");

    // As many holes as buffers; the bank ends with one more.
    let with_holes = cost(LIVE, LIVE + 1, (0..LIVE).map(|id| allocated(2 * id + 1)));
    check("with as many holes", &with_holes);
    assert!(with_holes.peak <= LIMIT, "while the tables grew");

    let in_disorder = scattered(LIVE).map(|id| allocated(2 * id + 1));
    check("with holes, in disorder", &cost(LIVE, LIVE + 1, in_disorder));

    let twice = (0..2 * LIVE).map(allocated);
    let then_half_gone = twice.chain(scattered(LIVE).map(|id| freed(2 * id)));
    check("half of twice as many", &cost(LIVE, LIVE + 1, then_half_gone));

    // What has lost its block awaits its own free, and the index of blocks is there.
    let swept = [allocated(4 * LIVE), allocated(4 * LIVE + 1), bulk_freed()].into_iter();
    let every_other = (0..LIVE).map(|id| allocated(2 * id + 1));
    let late = swept.chain(every_other).chain([freed(4 * LIVE)]);
    check("with holes, and indexed by block", &cost(LIVE, LIVE + 1, late));

    let gone = (0..100_000).map(allocated).chain(scattered(99_900).map(|id| freed(id + 100)));
    let Cost { last, .. } = cost(100, 1, gone);
    // Two pages of entries (one is kept in reserve) and what a ledger has in any case: 256 KiB.
    assert!(last <= 2560, "memory is given back: {last} bytes for each of 100 that are left");
}
