//! What is written is what is read, whatever else is going on or in the file.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use proptest::prelude::*;
use ttmem_common::table::{self as layout, Field, chip, header, pool};

use super::{
    access::Readers,
    agent::Identity,
    directory::Directory,
    left_behind,
    reader::{Header, ReadError, State, Table, open, pids},
    view,
    writer::{TableError, Writer},
};
use crate::{
    event::{
        Allocated, AllocatorSeen, BufferShape, BufferType, DeviceSeen, Event, Freed, Geometry,
        LiveBaseline, Spread,
    },
    ledger::{
        Ledger, Resynced,
        snapshot::{ProcessLabel, TargetState},
    },
    missing::Lost,
    units::{Avma, ChipId, DeviceAddr, MeshId, Pid, Tid},
};

const SECOND: u64 = 1_000_000_000;

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(Pid(7), Vec::new());
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    let chips = vec![ChipId(3), ChipId(0)];
    ledger.apply(&Event::Device(DeviceSeen { device: Avma(1), mesh: Some(MeshId(1)), chips }));
    let geometry = Geometry {
        bank_size: 1 << 30,
        banks: 12,
        alignment: 32,
        block_minimum: 32,
        block_unit: 32,
        base: None,
    };
    let mut pools = [None; layout::POOLS];
    pools[BufferType::Dram.index()] = Some(geometry);
    ledger.apply(&Event::Allocator(Box::new(AllocatorSeen {
        allocator: Avma(2),
        device: Avma(1),
        pools,
    })));
    ledger
}

fn allocate(ledger: &mut Ledger, id: u64) {
    let shape = BufferShape {
        unique_id: Some(id),
        buffer_type: BufferType::Dram,
        address: DeviceAddr(id * 2048),
        size: 12 * 2048,
        page_size: 2048,
        spread: Spread::Interleaved,
    };
    let (buffer, allocator, device) = (Avma(id << 8), Avma(2), Avma(1));
    let (time_ns, tid) = (id, Tid(1));
    ledger.apply(&Event::Allocated(Allocated { time_ns, tid, buffer, allocator, device, shape }));
}

fn free(ledger: &mut Ledger, id: u64) {
    let freed = Freed { buffer: Avma(id << 8), allocator: Avma(2), described: None };
    ledger.apply(&Event::Freed(freed));
}

struct Rig {
    _outer: tempfile::TempDir,
    path: PathBuf,
    directory: Arc<Directory>,
}

impl Rig {
    fn new() -> Self {
        let outer = tempfile::tempdir().expect("a directory");
        let path = outer.path().join("tables");
        let directory = Arc::new(Directory::create(&path).expect("made"));
        Self { _outer: outer, path, directory }
    }

    fn writer(&self) -> Result<Writer, TableError> {
        let process = Identity { pid: 7, start_ticks: 11 };
        let label = ProcessLabel {
            command: "python é model.py".to_owned(),
            library: Some("/x/libtt_metal.so".to_owned()),
            ..ProcessLabel::of_pid(Pid(7))
        };
        Writer::create(&self.directory, process, &label, Readers::default(), SECOND)
    }

    fn open(&self) -> Table {
        open(std::slice::from_ref(&self.path), 7).expect("it is there")
    }

    fn file(&self) -> PathBuf {
        self.path.join("7.table")
    }
}

#[test]
fn what_is_written_is_read() {
    let rig = Rig::new();
    let mut writer = rig.writer().expect("made");
    let table = rig.open();
    let before = table.header().expect("readable");
    assert_eq!((before.state, before.exact), (State::Starting, false));
    assert_eq!(before.inexact_because, "older buffers are still being read");
    assert_eq!(before.command, "python é model.py");
    assert!(table.chips().expect("readable").is_empty());
    let mut ledger = ledger();
    allocate(&mut ledger, 1);
    allocate(&mut ledger, 2);
    free(&mut ledger, 1);
    writer.publish(&ledger, Some(5 * SECOND));
    let header = table.header().expect("readable");
    assert_eq!((header.state, header.exact, header.time_ns), (State::Running, true, 5 * SECOND));
    assert_eq!(header.inexact_because, "");
    assert_eq!((header.process.pid, header.process.start_ticks), (7, 11));
    assert_eq!(header.agent, Identity::own());
    assert_eq!(header.failures, None, "nobody watches them");
    let chips = table.chips().expect("readable");
    assert_eq!(chips.iter().map(|chip| chip.chip.0).collect::<Vec<_>>(), [0, 3]);
    let snapshot = ledger.pool_snapshot(0, BufferType::Dram).expect("a pool");
    assert_eq!(chips[0].pools, std::slice::from_ref(&snapshot));
    assert_eq!(chips[0].circular_core_bytes, None);
    let used = table.counter(1, BufferType::Dram, pool::USED_BYTES).read();
    assert_eq!(used, snapshot.used_bytes);
    assert_eq!(pids(&rig.path), [7]);
}

#[test]
fn the_end_is_said_and_the_file_goes() {
    let rig = Rig::new();
    let writer = rig.writer().expect("made");
    let table = rig.open();
    writer.end(Some(TargetState::Exited));
    assert_eq!(table.header().expect("still mapped").state, State::Exited);
    assert!(pids(&rig.path).is_empty());
    let again = rig.writer().expect("made");
    let table = rig.open();
    drop(again);
    assert_eq!(table.header().expect("still mapped").state, State::Unwatched);
    let gone = open(std::slice::from_ref(&rig.path), 7).expect_err("gone").to_string();
    assert!(gone.contains("no table of process 7 in ") && gone.contains("ttmem serve"), "{gone}");
}

#[test]
fn a_table_is_only_taken_over_from_the_dead() {
    let rig = Rig::new();
    let writer = rig.writer().expect("made");
    // As if another living process had written it: the parent of this one.
    let other = Identity::of(std::os::unix::process::parent_id()).expect("it lives");
    patch(&rig.file(), header::AGENT_PID, other.pid.into());
    patch(&rig.file(), header::AGENT_START_TICKS, other.start_ticks);
    match rig.writer() {
        Err(TableError::Taken { pid: 7, agent, .. }) => assert_eq!(agent, other.pid),
        taken => panic!("{taken:?}"),
    }
    patch(&rig.file(), header::AGENT_START_TICKS, other.start_ticks + 1);
    let newer = rig.writer().expect("the other one is dead");
    drop(writer);
    assert_eq!(pids(&rig.path), [7], "the older one leaves the newer file alone");
    drop(newer);
}

#[test]
fn who_has_the_table_of_a_killed_ttmem_open_is_told_by_the_next() {
    let kill = |rig: &Rig| {
        let own = Identity::own();
        patch(&rig.file(), header::AGENT_START_TICKS, own.start_ticks + 1);
    };
    let state = |table: &Table| table.header().expect("readable").state;
    let (by_the_next, by_a_sweep) = (Rig::new(), Rig::new());
    let (mut killed, _swept) =
        (by_the_next.writer().expect("made"), by_a_sweep.writer().expect("made"));
    killed.publish(&ledger(), None);
    let (table, swept) = (by_the_next.open(), by_a_sweep.open());
    kill(&by_the_next);
    kill(&by_a_sweep);
    assert_eq!((state(&table), state(&swept)), (State::Running, State::Starting));
    let _next = by_the_next.writer().expect("made");
    assert_eq!((state(&table), state(&by_the_next.open())), (State::Unwatched, State::Starting));
    left_behind::sweep(&by_a_sweep.directory).expect("swept");
    assert_eq!(state(&swept), State::Unwatched);
}

#[test]
fn nothing_is_written_into_what_a_living_ttmem_has() {
    let rig = Rig::new();
    let _writer = rig.writer().expect("made");
    let before = fs::read(rig.file()).expect("read");
    left_behind::disown(&rig.directory, "7.table");
    assert!(fs::read(rig.file()).expect("read") == before, "it is this one's");
    let parent = Identity::of(std::os::unix::process::parent_id()).expect("it lives");
    patch(&rig.file(), header::AGENT_PID, parent.pid.into());
    patch(&rig.file(), header::AGENT_START_TICKS, parent.start_ticks);
    let before = fs::read(rig.file()).expect("read");
    left_behind::disown(&rig.directory, "7.table");
    assert!(fs::read(rig.file()).expect("read") == before, "it is another's");
}

#[test]
fn a_living_ttmem_of_another_version_keeps_its_files() {
    let rig = Rig::new();
    drop(rig.writer().expect("made"));
    // As much as is the same in every version.
    let mut bytes = vec![0xff; 4096];
    let parent = Identity::of(std::os::unix::process::parent_id()).expect("it lives");
    for (at, value) in [
        (0, u64::from_le_bytes(*b"TTMEMTAB")),
        (8, 2),
        (88, parent.pid.into()),
        (96, parent.start_ticks),
    ] {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    fs::write(rig.file(), &bytes).expect("written");
    fs::write(rig.path.join("7.sock"), "").expect("written");
    left_behind::sweep(&rig.directory).expect("swept");
    assert!(fs::read(rig.file()).expect("it is there") == bytes);
    assert!(rig.path.join("7.sock").exists());
    let taken = rig.writer().expect_err("taken");
    assert!(matches!(taken, TableError::Taken { agent, .. } if agent == parent.pid), "{taken}");
    patch(&rig.file(), 96, parent.start_ticks + 1);
    rig.writer().expect("that one is dead");
}

#[test]
fn a_table_that_nobody_writes_says_so() {
    let rig = Rig::new();
    let _writer = rig.writer().expect("made");
    let header = rig.open().header().expect("readable");
    assert_eq!(header.stale_because(header.heartbeat_ns + SECOND), None);
    let stopped = header.stale_because(header.heartbeat_ns + 60 * SECOND).expect("stale");
    assert!(stopped.contains("has not written for 60 s: it is stopped"), "{stopped}");
    patch(&rig.file(), header::AGENT_START_TICKS, header.agent.start_ticks + 1);
    let header = rig.open().header().expect("readable");
    let killed = header.stale_because(header.heartbeat_ns + 60 * SECOND).expect("stale");
    assert!(killed.contains("was killed"), "{killed}");
    let header = Header { heartbeat_ns: 60 * SECOND, ..header };
    assert!(header.stale_because(50 * SECOND).is_some(), "from before a reboot");
}

#[test]
fn a_heartbeat_amid_the_reading_is_fresh() {
    let rig = Rig::new();
    let writer = rig.writer().expect("made");
    let table = rig.open();
    let header = table.header().expect("readable");
    assert_eq!(header.stale_because(header.heartbeat_ns - 1), None);
    let now = 100 * SECOND;
    writer.beat(now);
    let shown = view::snapshot(&table, &[], || {
        writer.beat(2 * now);
        now
    });
    let doubts = shown.expect("readable").inexact_because;
    assert!(!doubts.iter().any(|why| why.starts_with("ttmem (process")), "{doubts:?}");
}

/// Overwrites a word of a file.
fn patch(file: &Path, at: usize, value: u64) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::OpenOptions::new().write(true).open(file).expect("opened");
    file.write_all_at(&value.to_le_bytes(), at as u64).expect("written");
}

#[test]
fn nothing_is_ever_read_by_halves() {
    let rig = Rig::new();
    let mut writer = rig.writer().expect("made");
    let mut ledger = ledger();
    allocate(&mut ledger, 1);
    writer.publish(&ledger, None);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let read = || {
            let table = rig.open();
            let mut reads = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let chip = table.chip(0).expect("readable");
                let pool = &chip.pools[0];
                assert_eq!(pool.allocations - pool.frees, pool.buffers);
                assert_eq!(pool.logical_bytes, pool.buffers * 12 * 2048);
                assert_eq!(pool.used_bytes, Some(pool.buffers * 12 * 2048));
                reads += 1;
            }
            reads
        };
        let readers = [scope.spawn(read), scope.spawn(read)];
        for id in 2..100_000 {
            allocate(&mut ledger, id);
            writer.publish(&ledger, None);
            free(&mut ledger, id);
            writer.publish(&ledger, None);
        }
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().expect("no torn read") > 0);
        }
    });
}

#[test]
fn what_is_not_exact_is_never_called_so() {
    let rig = Rig::new();
    let mut writer = rig.writer().expect("made");
    let mut ledger = ledger();
    writer.publish(&ledger, None);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let table = rig.open();
            let mut seen = [0_u64; 2];
            while !stop.load(Ordering::Relaxed) {
                let shown = view::snapshot(&table, &[], || SECOND).expect("readable");
                if shown.exact {
                    assert_eq!(shown.devices[0].pools[0].buffers, 0, "it had one after a loss");
                }
                seen[usize::from(shown.exact)] += 1;
            }
            seen
        });
        for lost in 1..20_000 {
            allocate(&mut ledger, lost);
            ledger.set_lost(Lost { ring_full: lost, read_fault: 0 });
            writer.publish(&ledger, None);
            free(&mut ledger, lost);
            let begun = ledger.begin_reading();
            let settled = ledger.finish_resync(begun, lost, Ok(LiveBaseline::default()));
            assert_eq!(settled, Resynced::Settled);
            writer.publish(&ledger, None);
        }
        stop.store(true, Ordering::Relaxed);
        let seen = reader.join().expect("nothing is called exact that is not");
        assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
    });
}

#[test]
fn it_is_exact_only_if_it_was_before_and_after() {
    let rig = Rig::new();
    let mut writer = rig.writer().expect("made");
    writer.publish(&ledger(), None);
    let table = rig.open();
    for (before, after) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let read = |table: &Table| {
            let chips = table.chips();
            patch(&rig.file(), header::EXACT, after);
            chips
        };
        patch(&rig.file(), header::EXACT, before);
        let shown = view::snapshot_by(&table, &[], || SECOND, read).expect("readable");
        assert_eq!(shown.exact, (before, after) == (1, 1), "{before} and then {after}");
    }
}

#[test]
fn a_write_that_was_never_finished_is_noticed() {
    let rig = Rig::new();
    let mut writer = rig.writer().expect("made");
    writer.publish(&ledger(), None);
    let sequence = layout::CHIPS_OFFSET + chip::SEQUENCE;
    patch(&rig.file(), sequence, 5);
    let torn = rig.open().chip(0).expect_err("left in the midst");
    assert!(matches!(torn, ReadError::Torn { .. }), "{torn}");
}

fn broken(bytes: &[u8]) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("7.table");
    fs::write(&file, bytes).expect("written");
    let table = Table::open(&file).and_then(|table| {
        table.header()?;
        table.chips()?;
        Ok(table)
    });
    table.map_or_else(|error| error.to_string(), |_| "readable".to_owned())
}

fn good() -> Vec<u8> {
    let rig = Rig::new();
    let mut writer = rig.writer().expect("made");
    writer.publish(&ledger(), None);
    fs::read(rig.file()).expect("read")
}

#[test]
fn what_is_no_table_is_refused_with_a_reason() {
    let good = good();
    assert_eq!(broken(&good), "readable");
    let with = |at: usize, value: u64| {
        let mut bytes = good.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        broken(&bytes)
    };
    for (said, expected) in [
        (broken(b""), "it has 0 bytes"),
        (broken(&good[..good.len() - 1]), "should have 102400"),
        (broken(&[7; 8192]), "it does not begin with TTMEMTAB"),
        (with(header::VERSION, 2), "its version is 2, this ttmem reads 1"),
        (with(header::CHIP_SLOTS, u64::MAX), "its parts do not fit into it"),
        (with(header::CHIPS_OFFSET, 8), "its parts do not fit into it"),
        (with(header::POOL_BYTES, 4), "its parts do not fit into it"),
        (with(header::FILE_BYTES, u64::MAX), "should have"),
    ] {
        assert!(said.contains(expected), "{said}: not {expected}");
    }
}

#[test]
fn a_table_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("7.table");
    fs::write(&file, good()).expect("written");
    // So does root of the host look in a rootless container.
    let unmapped =
        "user 65534 (in a user namespace, as in a rootless container: some user of the host";
    for (owner, expected) in [(12_345, "it belongs to user 12345, and"), (65_534, unmapped)] {
        std::os::unix::fs::chown(&file, Some(owner), None).expect("given away");
        let refused = Table::open(&file).expect_err("refused").to_string();
        assert!(refused.contains(expected), "{refused}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(
        changes in prop::collection::vec((0_usize..12_800, any::<u64>()), 0..20),
        len in 0_usize..=102_400,
    ) {
        let mut bytes = good();
        for (word, value) in changes {
            // An odd sequence is waited for, and has a test of its own.
            let value = if word * 8 >= layout::CHIPS_OFFSET { value & !1 } else { value };
            if word * 8 != header::SEQUENCE {
                bytes[word * 8..word * 8 + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        bytes.truncate(len);
        let said = broken(&bytes);
        prop_assert!(said == "readable" || said.contains("7.table"), "{}", said);
    }

    #[test]
    fn noise_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(broken(&bytes).contains("is no table of ttmem"));
    }
}

/// A Markdown table of a part.
fn documented(fields: &[Field]) -> String {
    let mut text = "| offset | bytes | name | unit | meaning |\n|---|---|---|---|---|\n".to_owned();
    for Field { name, offset, bytes, unit, meaning } in fields {
        let unit = if unit.is_empty() { "–" } else { unit };
        let _ = writeln!(text, "| {offset} | {bytes} | `{name}` | {unit} | {meaning} |");
    }
    text
}

#[test]
fn the_documentation_has_every_field() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/shared-table.md");
    let text = fs::read_to_string(path).expect("the documentation");
    for fields in [header::FIELDS, chip::FIELDS, pool::FIELDS] {
        let expected = documented(fields);
        assert!(text.contains(&expected), "docs/shared-table.md needs\n{expected}");
    }
}

#[test]
fn an_idle_table_is_kept_fresh() {
    let rig = Rig::new();
    let writer = rig.writer().expect("made");
    let table = rig.open();
    let later = 100 * SECOND;
    writer.beat(later);
    let header = table.header().expect("readable");
    assert_eq!(header.stale_because(later + SECOND), None);
}
