//! Several processes, of which one cannot be read.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write},
    os::unix::{fs::FileExt as _, net::UnixListener},
    thread,
    time::Instant,
};

use ttmem_common::table::header;

use super::*;
use crate::{
    ledger::{
        Ledger,
        snapshot::{ProcessLabel, TargetState},
    },
    pipeline::now_ns,
    table::{access::Readers, agent::Identity, directory::Directory, writer::Writer},
};

/// The tables of processes 7 and 8, the second left in the midst of a write.
struct Rig {
    place: PathBuf,
    _writers: Vec<Writer>,
    _outer: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let outer = tempfile::tempdir().unwrap();
        let place = outer.path().join("tables");
        let directory = Arc::new(Directory::create(&place).unwrap());
        let write = |pid| {
            let process = Identity { pid, start_ticks: 11 };
            let label = ProcessLabel::of_pid(Pid(pid));
            let readers = Readers::default();
            let mut writer =
                Writer::create(&directory, process, &label, readers, now_ns()).unwrap();
            writer.publish(&Ledger::new(Pid(pid), Vec::new()), Some(now_ns()));
            writer
        };
        let writers = [7, 8].map(write).into();
        let torn = File::options().write(true).open(place.join("8.table")).unwrap();
        torn.write_all_at(&1_u64.to_le_bytes(), header::SEQUENCE as u64).unwrap();
        Self { place, _writers: writers, _outer: outer }
    }

    fn watch(&self, pids: &[u32]) -> Watch {
        Watch {
            tables: Tables::new(vec![self.place.clone()], pids.to_vec(), Vec::new()),
            refresh: Duration::from_secs(1),
            theme: Theme::default(),
        }
    }

    /// Answers one question about process 7.
    fn answer(&self, answer: &'static str) {
        self.answer_for(7, answer);
    }

    fn answer_for(&self, pid: u32, answer: &'static str) {
        let listener = UnixListener::bind(self.place.join(format!("{pid}.sock"))).unwrap();
        thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            BufReader::new(client.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
            client.write_all(answer.as_bytes()).unwrap();
        });
    }
}

const SNAPSHOT: &str = "{\"schema\":\"ttmem.snapshot/1\",\"exact\":true}\n";

#[test]
fn a_torn_table_is_left_out_and_said_and_not_looked_at_again_at_once() {
    let rig = Rig::new();
    let mut watch = rig.watch(&[]);
    for is_known in [false, true] {
        let begun = Instant::now();
        let report = watch.tables.read().unwrap();
        assert_eq!(report.targets.iter().map(|it| it.pid).collect::<Vec<_>>(), [Pid(7)]);
        let said = text::unwatched(&report.unwatched, None, false);
        assert!(said.starts_with("not watched: pid 8: "), "{said}");
        assert!(said.contains("8.table was left in the midst of a write"), "{said}");
        assert_eq!(outcome(&report), Outcome::Incomplete);
        assert_eq!(begun.elapsed() < Duration::from_secs(1), is_known);
    }
    fs::remove_file(rig.place.join("8.table")).unwrap();
    assert_eq!(watch.tables.read().unwrap().unwatched, []);
    let asked_for = Rig::new().watch(&[7, 8]).tables.read().unwrap_err().to_string();
    assert!(asked_for.contains("in the midst of a write"), "{asked_for}");
}

#[test]
fn who_ended_while_nobody_watched_has_ended() {
    let rig = Rig::new();
    let directory = Arc::new(Directory::create(&rig.place).unwrap());
    // This process lives on, and one of that number does not.
    let (own, gone) = (Identity::own(), Identity { pid: 1 << 30, start_ticks: 11 });
    let write = |process: Identity| {
        let label = ProcessLabel::of_pid(Pid(process.pid));
        Writer::create(&directory, process, &label, Readers::default(), now_ns()).unwrap()
    };
    let writers = [own, gone].map(write);
    let mut watch = rig.watch(&[]);
    let mut states = || {
        let report = watch.tables.read().unwrap();
        let state_of = |process: Identity| {
            report.targets.iter().find(|it| it.pid.0 == process.pid).unwrap().state
        };
        [own, gone].map(state_of)
    };
    assert_eq!(states(), [TargetState::Running; 2]);
    // As when the service is stopped.
    drop(writers);
    assert_eq!(states(), [TargetState::Running, TargetState::Exited]);
}

#[test]
fn a_socket_that_does_not_answer_is_left_out() {
    let rig = Rig::new();
    let mut out = Vec::new();
    rig.answer(SNAPSHOT);
    // Nobody listens for process 8.
    let printer = rig.watch(&[]).printer(true);
    printer.print_to(&mut out).unwrap();
    assert_eq!(printer.outcome(), Outcome::Incomplete);
    assert_eq!(String::from_utf8(out).unwrap(), SNAPSHOT);
    let asked_for = rig.watch(&[8]).printer(true).print_to(&mut io::sink());
    let asked_for = asked_for.unwrap_err().to_string();
    assert!(asked_for.contains("nobody watches process 8"), "{asked_for}");
}

#[test]
fn a_refusal_is_of_one_process_only() {
    for pids in [&[][..], &[7]] {
        let rig = Rig::new();
        rig.answer(r#"{"schema":"ttmem.error/1","error":{"code":"not_allowed","message":"no"}}"#);
        let said = rig.watch(pids).printer(true).print_to(&mut io::sink());
        assert_eq!(said.is_ok(), pids.is_empty(), "{said:?}");
    }
}

const INEXACT: &str = "{\"schema\":\"ttmem.snapshot/1\",\"exact\":false}\n";
const END: &str = "{\"schema\":\"ttmem.end/1\",\"state\":\"exited\"}\n";

/// Prints what is answered for process 7 until that is over.
fn outcome_of(answers: &[&str]) -> Outcome {
    let rig = Rig::new();
    rig.answer(answers.concat().leak());
    let printer = rig.watch(&[7]).printer(false);
    printer.print_to(&mut io::sink()).unwrap();
    printer.outcome()
}

#[test]
fn the_last_line_of_a_process_counts() {
    assert_eq!(outcome_of(&[INEXACT, SNAPSHOT, END]), Outcome::Complete);
    assert_eq!(outcome_of(&[SNAPSHOT, INEXACT, END]), Outcome::Incomplete);
}

/// Keeps what is written, a line at a time, and does something then.
struct Reading<F> {
    lines: Vec<String>,
    then: F,
}

impl<F: FnMut(usize) -> io::Result<()>> Write for Reading<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines.push(String::from_utf8(bytes.to_vec()).unwrap());
        (self.then)(self.lines.len()).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_process_that_comes_later_is_asked_too() {
    let rig = Rig::new();
    rig.answer(SNAPSHOT);
    let printer = rig.watch(&[]).printer(false);
    let then = |lines| match lines {
        1 => {
            rig.answer_for(8, INEXACT);
            Ok(())
        }
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    };
    let mut reading = Reading { lines: Vec::new(), then };
    let error = printer.print_to(&mut reading).unwrap_err();
    assert!(error.to_string().contains("cannot write"), "{error:#}");
    assert_eq!(reading.lines, [SNAPSHOT, INEXACT]);
}

#[test]
fn of_other_devices_nothing_is_printed() {
    let rig = Rig::new();
    rig.answer(concat!(
        r#"{"schema":"ttmem.snapshot/1","exact":true,"devices":[{"chip":0},{"chip":1}],"#,
        r#""allocators":[{"id":0,"chips":[0]},{"id":1,"chips":[0,1]},{"id":2,"chips":[2]}]}"#,
        "\n"
    ));
    let mut out = Vec::new();
    let mut watch = rig.watch(&[7]);
    watch.tables.chips = vec![ChipId(1)];
    watch.printer(true).print_to(&mut out).unwrap();
    let snapshot: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(snapshot["devices"], serde_json::json!([{"chip": 1}]));
    assert_eq!(snapshot["allocators"], serde_json::json!([{"id": 1, "chips": [0, 1]}]));
}
