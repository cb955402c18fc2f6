//! What the shared table says at once.

use std::path::PathBuf;

use super::*;
use crate::{
    event::{
        AllocatorSeen, CircularBuffer, CircularKind, CircularPlaced, CoreRange, DeviceSeen, Event,
        Geometry, Place,
    },
    ledger::snapshot::PoolSnapshot,
    table::{access::Readers, agent::Identity, directory::Directory, reader, writer::Writer},
    units::{Avma, ChipId, DeviceAddr, MeshId, Tid},
};

const CHIP: ChipId = ChipId(0);

/// A new target with a chip, and where its table is.
struct Shared {
    target: NewTarget,
    place: PathBuf,
    _outer: tempfile::TempDir,
}

impl Shared {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        let place = outer.path().join("tables");
        let directory = Arc::new(Directory::create(&place).unwrap());
        let process = Identity { pid: 1, start_ticks: 1 };
        let label = ProcessLabel::of_pid(Pid(1));
        let table =
            Writer::create(&directory, process, &label, Readers::default(), now_ns()).unwrap();
        let mut target =
            NewTarget { fresh: true, table: Some(table), ..target(0, nothing_older()) };
        target.ledger.watch_programs(Ok(()), false);
        let (device, chips) = (Avma(1), vec![CHIP]);
        let seen = DeviceSeen { device, mesh: Some(MeshId(1)), chips };
        target.ledger.apply(&Event::Device(seen));
        let geometry = Geometry {
            bank_size: 1 << 20,
            banks: 12,
            alignment: 32,
            block_minimum: 32,
            block_unit: 32,
            base: None,
        };
        let pools = [Some(geometry); ttmem_common::table::POOLS];
        let seen = AllocatorSeen { allocator: Avma(2), device, pools };
        target.ledger.apply(&Event::Allocator(Box::new(seen)));
        Self { target, place, _outer: outer }
    }
}

/// Tells, whenever something has been passed on, what the table says of it by then.
struct Looks(PathBuf, mpsc::Sender<(bool, PoolSnapshot)>);

impl DeltaSink for Looks {
    fn take(&mut self, _: &Arc<[Delta]>) -> bool {
        let table = reader::open(std::slice::from_ref(&self.0), 1).unwrap();
        let pool = table.chip(0).unwrap().pools.remove(0);
        self.1.send((table.header().unwrap().exact, pool)).is_ok()
    }
}

fn allocated() -> Vec<u8> {
    let mut record = AllocateRecord::read_from_bytes(&allocate()).unwrap();
    (record.allocator, record.device) = (2, 1);
    (record.size, record.page_size, record.unique_id) = (2048, 2048, 7);
    record.as_bytes().to_vec()
}

fn after_a_drain(loses: u64) -> (bool, PoolSnapshot) {
    let (told, looks) = mpsc::channel();
    let Shared { mut target, place, _outer } = Shared::new();
    target.sinks.push(Box::new(Looks(place, told)));
    let source = Scripted { loses, ..Scripted::new(Vec::new(), vec![allocated()]) };
    let _rig = Rig::on(source, vec![target], options());
    looks.recv_timeout(Duration::from_secs(20)).expect("the next report comes in an hour")
}

#[test]
fn after_a_loss_nothing_is_called_exact() {
    let (exact, pool) = after_a_drain(0);
    assert!(exact && pool.buffers == 1, "{pool:?}");
    let (exact, pool) = after_a_drain(1);
    assert!(!exact && pool.buffers == 1, "{pool:?}");
}

#[test]
fn a_sync_has_circular_buffers_in_the_table() {
    let Shared { mut target, place, _outer } = Shared::new();
    let buffer = CircularBuffer {
        kind: CircularKind::Circular,
        address: DeviceAddr(4096),
        size: 1000,
        cores: Some(vec![CoreRange { start: (0, 0), end: (1, 1) }]),
    };
    target.ledger.apply(&Event::Circular(CircularPlaced {
        time_ns: 1,
        tid: Tid(7),
        program: Some(Avma(9)),
        batch: 1,
        place: Place { chip: Some(CHIP), device: Avma(1) },
        buffer,
    }));
    let control = Control::new().unwrap();
    let (added, _is_added) = mpsc::channel();
    control.send(Command::Add(Box::new(target), added));
    // Not all have been added, so there are no reports yet.
    control.send(Command::Attached(0));
    let (told, answer) = mpsc::channel();
    let run = Box::new(move |_: View<'_>| told.send(()).unwrap());
    control.send(Command::Query(Query { serial: 0, kind: QueryKind::Sync, run }));
    let source = Scripted::new(Vec::new(), Vec::new());
    let on_notice = Box::new(|_| ());
    let _pipeline = Pipeline::start(source, options(), control, on_notice).unwrap();
    answer.recv_timeout(Duration::from_secs(20)).expect("an answer");
    let chip = reader::open(&[place], 1).unwrap().chip(0).unwrap();
    assert_eq!((chip.circular_programs, chip.circular_core_bytes), (1, Some(1000)));
    assert_eq!(chip.core_capacity_bytes, Some(1 << 20));
}
