use std::time::Instant;
use ttmem::{event::*, ledger::Ledger, units::*};
use ttmem_common::{layout::BUFFER_TYPES, record::*};
use zerocopy::IntoBytes;
fn header(kind: u32, t: u64) -> RecordHeader {
    RecordHeader { time_ns: t, kind, slot: 0, tgid: 1, tid: 7 }
}
fn buf(i: u64) -> u64 {
    0x7f00_0000_0000
        + (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) * 0x400_0000 / 0x40 * 0x40
        + i * 0x190
}
fn alloc(i: u64) -> AllocateRecord {
    AllocateRecord {
        header: header(KIND_ALLOCATE, i),
        buffer: buf(i),
        allocator: 0x2000,
        device: 0x1000,
        size: 2048 * 12,
        page_size: 2048,
        address: i * 2048,
        unique_id: i,
        buffer_type: 0,
        memory_layout: 0,
        flags: 0,
        shard_pages: 0,
        shard_shape: 0,
        page_shape: 0,
        shard_count: 0,
        shard_cores: 0,
    }
}
fn free(i: u64) -> FreeRecord {
    FreeRecord {
        header: header(KIND_FREE, i),
        buffer: buf(i),
        allocator: 0x2000,
        device: 0,
        address: 0,
        unique_id: 0,
        buffer_type: 0,
        flags: 0,
    }
}
fn ap(l: &mut Ledger, b: &[u8]) {
    let d = decode(b).unwrap();
    l.apply(&d.event);
}

fn best(mut f: impl FnMut(), ops: u64, reps: u32) -> f64 {
    let mut m = f64::MAX;
    for _ in 0..reps {
        let t = Instant::now();
        f();
        m = m.min(t.elapsed().as_nanos() as f64 / ops as f64);
    }
    m
}
fn main() {
    let recs: Vec<AllocateRecord> = (0..1000).map(alloc).collect();
    println!(
        "decode alloc {:.1} ns",
        best(
            || for r in &recs {
                std::hint::black_box(decode(std::hint::black_box(r.as_bytes())).unwrap());
            },
            1000,
            1000
        )
    );
    let frecs: Vec<FreeRecord> = (0..1000).map(free).collect();
    println!(
        "decode free {:.1} ns",
        best(
            || for r in &frecs {
                std::hint::black_box(decode(std::hint::black_box(r.as_bytes())).unwrap());
            },
            1000,
            1000
        )
    );
    for (chips, base) in [(1, Some(DeviceAddr(0))), (8, Some(DeviceAddr(0))), (1, None)] {
        for n in [1_000u64, 10_000, 100_000, 1_000_000] {
            let mut l = Ledger::new(Pid(1), Vec::new());
            l.finish_baseline(Ok(LiveBaseline::default()));
            l.apply(&Event::Device(DeviceSeen {
                device: Avma(0x1000),
                mesh: Some(MeshId(1)),
                chips: (0..chips).map(ChipId).collect(),
            }));
            let g = Geometry {
                bank_size: 1 << 40,
                banks: 12,
                alignment: 32,
                block_minimum: 32,
                block_unit: 32,
                base,
            };
            l.apply(&Event::Allocator(AllocatorSeen {
                allocator: Avma(0x2000),
                device: Avma(0x1000),
                pools: [Some(g); BUFFER_TYPES],
            }));
            let t = Instant::now();
            for i in 0..n {
                ap(&mut l, alloc(i).as_bytes());
            }
            let fill = t.elapsed().as_nanos() as f64 / n as f64;
            let lifo = best(
                || {
                    for k in 0..5_000 {
                        let i = n - 1 - (k % 16);
                        ap(&mut l, free(i).as_bytes());
                        ap(&mut l, alloc(i).as_bytes());
                    }
                },
                10_000,
                100,
            );
            let mut r = 88172645463325252u64;
            let rnd = best(
                || {
                    for _ in 0..50_000 {
                        r ^= r << 13;
                        r ^= r >> 7;
                        r ^= r << 17;
                        let i = r % n;
                        ap(&mut l, free(i).as_bytes());
                        ap(&mut l, alloc(i).as_bytes());
                    }
                },
                100_000,
                10,
            );
            for i in (0..n).step_by(2) {
                ap(&mut l, free(i).as_bytes());
            }
            let hol = best(
                || {
                    for _ in 0..50_000 {
                        r ^= r << 13;
                        r ^= r >> 7;
                        r ^= r << 17;
                        let i = (r % n) | 1;
                        ap(&mut l, free(i).as_bytes());
                        ap(&mut l, alloc(i).as_bytes());
                    }
                },
                100_000,
                10,
            );
            println!(
                "chips {chips} base {base:?} n {n:>8}  fill {fill:6.1}  lifo {lifo:6.1}  random {rnd:6.1} holes {hol:6.1} ns/record"
            );
        }
    }
}
