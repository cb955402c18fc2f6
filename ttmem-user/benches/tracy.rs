//! What showing an event in Tracy costs: the mirror alone, and with the protocol, the compression
//! and a socket that somebody reads. An event is one buffer that comes or goes on one chip.
//!
//! `cargo xtask bench` runs it. Compare lines of one run only.

use std::{
    io::{Read, Write as _},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
};

use ttmem::{
    event::BufferType,
    ledger::{
        delta::{Cause, Change, Delta},
        snapshot::ProcessLabel,
    },
    tracy::{
        mirror::{Mirror, Style},
        op::Op,
        wire::{protocol::Protocol, session::Session},
    },
    units::{Avma, ChipId, DeviceAddr, Pid, Tid},
};
use ttmem_bench::{Bench, Group};

/// Events of all batches.
const EVENTS: u64 = 102_400;
/// Events of a batch: of one drain in a storm, and of what is told to a viewer that comes later.
const BATCHES: [u64; 2] = [256, 4096];

fn main() {
    let bench = Bench::from_command_line("tracy");
    for len in BATCHES {
        let name = format!("an event of {len} at once");
        if bench.wants(&name) {
            an_event(bench.group(&name), len);
        }
    }
}

/// Events a microsecond apart: each buffer goes while 64 others are there.
fn batch(number: u64, len: u64) -> Vec<Delta> {
    (0..len / 2)
        .flat_map(|at| {
            let nth = number * len / 2 + at;
            let came = delta(Change::Allocated, nth, nth * 2000);
            [
                Some(came),
                nth.checked_sub(64).map(|old| delta(Change::Freed, old, nth * 2000 + 1000)),
            ]
        })
        .flatten()
        .collect()
}

fn delta(change: Change, nth: u64, time_ns: u64) -> Delta {
    Delta {
        sequence: nth,
        time_ns,
        tid: Some(Tid(100 + u32::try_from(nth / 16 % 4).unwrap_or(0))),
        change,
        cause: Cause::Event,
        buffer: Avma(0x7f00_0000_0000 + nth * 0x110),
        allocator: Avma(1),
        unique_id: Some(nth),
        buffer_type: if nth.is_multiple_of(3) { BufferType::L1 } else { BufferType::Dram },
        address: DeviceAddr(0x10_0000 + nth % 4096 * 0x4000),
        size: 12 * 0x2000,
        page_size: 2048,
        bank_bytes: Some(0x1000 + nth % 7 * 0x800),
        used_bytes: Some(12 * 0x2000),
        cores: None,
        chips: [ChipId(0)].into(),
        mesh: None,
        allocated_tid: None,
        allocated_ns: None,
        pre_attach: false,
    }
}

fn mirror() -> Mirror {
    Mirror::new(&Arc::new(ProcessLabel::of_pid(Pid(1))), Style::Ttmem, 0)
}

fn batches(len: u64) -> Vec<Vec<Delta>> {
    (0..EVENTS / len).map(|number| batch(number, len)).collect()
}

/// The mirror without a viewer, with one of ttmem's own protocol, and with Tracy's own client.
fn an_event(group: Group<'_>, len: u64) {
    let batches = batches(len);
    let (mut stream, reader) = pair();
    let group = group
        .variant_of("not connected", EVENTS, || {
            let (mut mirror, mut out) = (mirror(), |_: Op<'_>| ());
            for batch in &batches {
                show(&mut mirror, batch, &mut out);
            }
            mirror.now_ns()
        })
        .variant_of("connected", EVENTS, || {
            let mut mirror = mirror();
            let mut session = Session::new(Protocol::new(82, false));
            for batch in &batches {
                show(&mut mirror, batch, &mut |op| session.record(&op, &[]));
                session.flush();
                let len = session.outgoing().len();
                stream.write_all(session.outgoing()).expect("somebody reads");
                session.has_sent(len);
            }
            mirror.now_ns()
        });
    #[cfg(feature = "tracy-client")]
    let group = client(group, &batches);
    group.run();
    drop(stream);
    let _ = reader.join();
}

/// What ttmem does for Tracy's own client; what that does is in a process of its own.
#[cfg(feature = "tracy-client")]
fn client<'a>(group: Group<'a>, batches: &'a [Vec<Delta>]) -> Group<'a> {
    use ttmem::tracy::client::codec::Order;
    let (mut stream, other) = std::os::unix::net::UnixStream::pair().expect("a pair");
    // Ends with the stream.
    let _ = read_all(other);
    let mut orders = Vec::new();
    group.variant_of("connected to Tracy's own client", EVENTS, move || {
        let mut mirror = mirror();
        for batch in batches {
            show(&mut mirror, batch, &mut |op| Order::Op(op).write(&mut orders));
            stream.write_all(&orders).expect("somebody reads");
            orders.clear();
        }
        mirror.now_ns()
    })
}

fn show(mirror: &mut Mirror, batch: &[Delta], out: &mut impl FnMut(Op<'_>)) {
    for delta in batch {
        mirror.apply(delta, out);
    }
    mirror.settle(out);
}

/// A socket whose other end is read, and nothing more.
fn pair() -> (TcpStream, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("a stream");
    let (other, _) = listener.accept().expect("a connection");
    (stream, read_all(other))
}

fn read_all(mut from: impl Read + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut bytes = vec![0; 1 << 18];
        while from.read(&mut bytes).is_ok_and(|len| len > 0) {}
    })
}
