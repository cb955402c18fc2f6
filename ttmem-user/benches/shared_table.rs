//! What it costs to read the shared table, beside a counter of one's own, and to write it.
//!
//! `cargo xtask bench` runs it. Compare lines of one run only.

use std::{
    hint::black_box,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use ttmem::{
    event::{
        Allocated, AllocatorSeen, BufferShape, BufferType, DeviceSeen, Event, Freed, Geometry,
        LiveBaseline, Spread,
    },
    ledger::{Ledger, snapshot::ProcessLabel},
    table::{
        access::Readers, agent::Identity, device::Device, directory::Directory, reader::Table,
        writer::Writer,
    },
    units::{Avma, ChipId, DeviceAddr, Pid, Tid},
};
use ttmem_bench::Bench;
use ttmem_common::table::{POOLS, pool};

fn main() {
    let bench = Bench::from_command_line("shared table");
    one_counter(&bench);
    one_device(&bench);
    if bench.wants("one device under a writer") {
        one_device_under_a_writer(&bench);
    }
    publish_eight_chips(&bench);
}

/// A ledger of eight chips with one buffer.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    let chips = (0..8).map(ChipId).collect();
    ledger.apply(&Event::Device(DeviceSeen { device: Avma(1), mesh: None, chips }));
    let geometry = Geometry {
        bank_size: 1 << 30,
        banks: 12,
        alignment: 32,
        block_minimum: 32,
        block_unit: 32,
        base: None,
    };
    let seen =
        AllocatorSeen { allocator: Avma(2), device: Avma(1), pools: [Some(geometry); POOLS] };
    ledger.apply(&Event::Allocator(Box::new(seen)));
    ledger.apply(&allocated());
    ledger
}

fn allocated() -> Event {
    let shape = BufferShape {
        unique_id: Some(1),
        buffer_type: BufferType::Dram,
        address: DeviceAddr(0),
        size: 4096,
        page_size: 2048,
        spread: Spread::Interleaved,
    };
    let (buffer, allocator, device) = (Avma(0x100), Avma(2), Avma(1));
    Event::Allocated(Allocated { time_ns: 1, tid: Tid(1), buffer, allocator, device, shape })
}

fn freed() -> Event {
    Event::Freed(Freed { buffer: Avma(0x100), allocator: Avma(2), described: None })
}

struct Shared {
    writer: Writer,
    file: PathBuf,
    _outer: tempfile::TempDir,
}

fn shared() -> Shared {
    let outer = tempfile::tempdir_in("/dev/shm").expect("a directory");
    let path = outer.path().join("tables");
    let directory = Arc::new(Directory::create(&path).expect("made"));
    let label = ProcessLabel::of_pid(Pid(1));
    let process = Identity { pid: 1, start_ticks: 1 };
    let made = Writer::create(&directory, process, &label, Readers::default(), 1);
    let mut writer = made.expect("a table");
    writer.publish(&ledger(), None);
    Shared { writer, file: path.join("1.table"), _outer: outer }
}

/// One figure of the table, beside a load of an atomic of this process: what a counter in the
/// program itself costs.
fn one_counter(bench: &Bench) {
    let shared = shared();
    let table = Table::open(&shared.file).expect("opened");
    let own = AtomicU64::new(7);
    let counter = table.counter(3, BufferType::Dram, pool::USED_BYTES);
    bench
        .group("one counter")
        .baseline("a counter of one's own", || black_box(&own).load(Ordering::Relaxed))
        .variant("the shared table", || black_box(&counter).read())
        .variant("the shared table, looked up each time", || {
            black_box(&table).counter(black_box(3), BufferType::Dram, pool::USED_BYTES).read()
        })
        .run();
}

/// All figures of one chip, of one instant, while nobody writes.
fn one_device(bench: &Bench) {
    let shared = shared();
    let table = Table::open(&shared.file).expect("opened");
    let mut device = Device::default();
    let read = || black_box(&table).read_device(black_box(3), &mut device).expect("readable");
    bench.group("one device").variant("at rest", read).run();
}

/// The same while another thread writes all chips without a pause.
fn one_device_under_a_writer(bench: &Bench) {
    let mut shared = shared();
    let table = Table::open(&shared.file).expect("opened");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut ledger = ledger();
            let (allocated, freed) = (allocated(), freed());
            while !stop.load(Ordering::Relaxed) {
                ledger.apply(&freed);
                shared.writer.publish(&ledger, None);
                ledger.apply(&allocated);
                shared.writer.publish(&ledger, None);
            }
        });
        let mut device = Device::default();
        let read = || black_box(&table).read_device(black_box(3), &mut device).expect("readable");
        bench.group("one device under a writer").variant("at full speed", read).run();
        stop.store(true, Ordering::Relaxed);
    });
}

/// What the agent does after a drain: eight chips that have all changed.
fn publish_eight_chips(bench: &Bench) {
    let mut shared = shared();
    let mut ledger = ledger();
    let (allocated, freed) = (allocated(), freed());
    let mut live = true;
    let publish = || {
        ledger.apply(if live { &freed } else { &allocated });
        live = !live;
        shared.writer.publish(black_box(&ledger), None);
    };
    bench.group("publish").variant("eight chips", publish).run();
}
