//! What the agent does for a record, for a snapshot, and to find objects in a target's memory.
//!
//! `cargo xtask bench agent` runs it. Compare lines of one run only.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use ttmem::{
    event::{
        AllocatorSeen, DeviceSeen, Event, Geometry, LiveBaseline, decode, decode_with, look_ahead,
    },
    ledger::{
        Ledger,
        snapshot::{Detail, TargetState},
    },
    target::{
        memory::{TargetMemory, Unreadable},
        scan::find_words,
    },
    units::{Avma, ChipId, DeviceAddr, MeshId, Pid},
};
use ttmem_bench::Bench;
use ttmem_common::{
    layout::BUFFER_TYPES,
    record::{AllocateRecord, FreeRecord, KIND_ALLOCATE, KIND_FREE, RecordHeader},
};
use zerocopy::IntoBytes as _;

const MESH: u64 = 0x1000;
const ALLOCATOR: u64 = 0x2000;
const BLOCK: u64 = 2048;
/// Records that are timed together: as many buffers go as come.
const RECORDS: u64 = 1024;
/// Records that are taken at a time, as from a ring.
const AT_ONCE: usize = 64;
/// Memory that is searched, in bytes.
const SEARCHED: usize = 64 << 20;

fn main() {
    let bench = Bench::from_command_line("agent");
    for (live, name) in [
        (1_000, "1,000 live"),
        (10_000, "10,000 live"),
        (100_000, "100,000 live"),
        (1_000_000, "1,000,000 live"),
    ] {
        if live > 10_000 && bench.is_a_test() {
            continue;
        }
        if bench.wants("decode and apply") {
            decode_and_apply(&bench, live, name);
        }
        if live <= 100_000 && bench.wants("snapshot") {
            let ledger = filled(live);
            let shown = || ledger.snapshot(0, TargetState::Running, Detail::default());
            bench.group("snapshot").variant(name, shown).run();
        }
    }
    if bench.wants("scan") {
        scan(&bench);
    }
}

/// A mesh of a chip, attached to before there was any buffer.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    let chips = [ChipId(0)].into_iter().collect();
    ledger.apply(&Event::Device(DeviceSeen { device: Avma(MESH), mesh: Some(MeshId(0)), chips }));
    let pool = Geometry {
        bank_size: 1 << 36,
        banks: 12,
        alignment: 32,
        block_minimum: 32,
        block_unit: 32,
        base: Some(DeviceAddr(0)),
    };
    ledger.apply(&Event::Allocator(Box::new(AllocatorSeen {
        allocator: Avma(ALLOCATOR),
        device: Avma(MESH),
        pools: [Some(pool); BUFFER_TYPES],
    })));
    ledger
}

fn header(kind: u32) -> RecordHeader {
    RecordHeader { time_ns: 1, kind, slot: 0, tgid: 1, tid: 1 }
}

/// An address that no other buffer has, as a heap would give it.
fn buffer(id: u64) -> u64 {
    0x7f00_0000_0000 + id * 0x1c0
}

fn allocated(id: u64) -> AllocateRecord {
    AllocateRecord {
        header: header(KIND_ALLOCATE),
        buffer: buffer(id),
        allocator: ALLOCATOR,
        device: MESH,
        size: 12 * BLOCK,
        page_size: BLOCK,
        address: id * BLOCK,
        unique_id: id,
        buffer_type: 0,
        memory_layout: 0,
        flags: 0,
        reserved: 0,
    }
}

fn freed(id: u64) -> FreeRecord {
    FreeRecord { header: header(KIND_FREE), buffer: buffer(id), allocator: ALLOCATOR }
}

fn filled(live: u64) -> Ledger {
    let mut ledger = ledger();
    for id in 0..live {
        ledger.apply(&decode(allocated(id).as_bytes()).expect("a record").event);
    }
    ledger
}

/// Records one behind the other, as in a ring.
#[derive(Default)]
struct Records {
    /// Of each its length in words, then its words.
    words: Vec<u64>,
}

impl Records {
    fn push(&mut self, record: &[u8]) {
        let word = |word: &[u8]| u64::from_ne_bytes(word.try_into().expect("whole words"));
        self.words.push((record.len() / 8) as u64);
        self.words.extend(record.chunks_exact(8).map(word));
    }

    /// Hands them over, some at a time.
    fn drain(&self, mut take: impl FnMut(&[&[u8]; AT_ONCE])) {
        let mut rest = self.words.as_slice();
        while !rest.is_empty() {
            take(&std::array::from_fn(|_| {
                let (len, behind) = rest.split_first().expect("a multiple of what is taken");
                let record;
                (record, rest) = behind.split_at(usize::try_from(*len).unwrap_or(usize::MAX));
                record.as_bytes()
            }));
        }
    }
}

/// One buffer goes and comes again, then another far from it, and none twice before all others: the
/// live set stays as large. Without the way of the records from the target's processor.
fn decode_and_apply(bench: &Bench, live: u64, name: &str) {
    let mut ledger = filled(live);
    let mut turn = 0;
    let mut records = Records::default();
    let mut announced = Vec::new();
    let timed = |times: u64| {
        let mut time = Duration::ZERO;
        for _ in 0..times {
            records.words.clear();
            for _ in 0..RECORDS / 2 {
                turn += 1;
                let id = turn * 7919 % live;
                records.push(freed(id).as_bytes());
                records.push(allocated(id).as_bytes());
            }
            let begun = Instant::now();
            black_box(&records).drain(|records| {
                if ledger.is_far() {
                    announced.clear();
                    for ahead in records.iter().filter_map(|record| look_ahead(record)) {
                        let tag = ledger.announce(ahead.buffer);
                        if ahead.goes {
                            announced.push(tag);
                        }
                    }
                    for tag in &announced {
                        ledger.expect(*tag);
                    }
                }
                for record in records {
                    decode_with(record, |_, fact| ledger.take_in(fact)).expect("a record");
                }
            });
            time += begun.elapsed();
        }
        time
    };
    bench.group("decode and apply").timed(name, RECORDS, timed).run();
}

/// Memory of this process, in place of a target's: what is left out is the system call of a read.
struct Own(Vec<u8>);

impl TargetMemory for Own {
    fn read(&self, from: Avma, to: &mut [u8]) -> Result<(), Unreadable> {
        let start = usize::try_from(from.0).unwrap_or(usize::MAX);
        let from = self.0.get(start..).and_then(|rest| rest.get(..to.len()));
        to.copy_from_slice(from.expect("within the memory"));
        Ok(())
    }
}

/// Words of a target that are compared with what is looked for: 4,096 ns a page are 1 GB/s.
fn scan(bench: &Bench) {
    let mut bytes = vec![0_u8; SEARCHED];
    for (at, word) in (0_u64..).zip(bytes.chunks_exact_mut(8)) {
        word.copy_from_slice(&at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    }
    let whole = 0..SEARCHED as u64;
    let memory = Own(bytes);
    let wanted = [0x7f00_1234_5678, 0x7f00_1234_6000];
    let pages = SEARCHED as u64 / 4096;
    let work = || find_words(black_box(&memory), std::slice::from_ref(&whole), &wanted);
    bench.group("scan for two vtables").variant_of("a page of 4 KiB", pages, work).run();
}
