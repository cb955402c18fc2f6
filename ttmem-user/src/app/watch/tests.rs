//! Several processes, of which one cannot be read.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write},
    os::unix::{fs::FileExt as _, net::UnixListener},
    thread,
};

use ttmem_common::table::header;

use super::*;
use crate::{
    ledger::{Ledger, snapshot::ProcessLabel},
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
            places: vec![self.place.clone()],
            pids: pids.to_vec(),
            chips: Vec::new(),
            refresh: Duration::from_secs(1),
            theme: Theme::default(),
            tables: BTreeMap::new(),
            torn: BTreeMap::new(),
        }
    }

    /// Answers one question about process 7.
    fn answer(&self, answer: &'static str) {
        let listener = UnixListener::bind(self.place.join("7.sock")).unwrap();
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
        let report = watch.read().unwrap();
        assert_eq!(report.targets.iter().map(|it| it.pid).collect::<Vec<_>>(), [Pid(7)]);
        let said = text::unwatched(&report.unwatched, None, false);
        assert!(said.starts_with("not watched: pid 8: "), "{said}");
        assert!(said.contains("8.table was left in the midst of a write"), "{said}");
        assert_eq!(outcome(&report), Outcome::Incomplete);
        assert_eq!(begun.elapsed() < Duration::from_secs(1), is_known);
    }
    fs::remove_file(rig.place.join("8.table")).unwrap();
    assert_eq!(watch.read().unwrap().unwatched, []);
    let asked_for = Rig::new().watch(&[7, 8]).read().unwrap_err().to_string();
    assert!(asked_for.contains("in the midst of a write"), "{asked_for}");
}

#[test]
fn a_socket_that_does_not_answer_is_left_out() {
    let rig = Rig::new();
    let mut out = Vec::new();
    rig.answer(SNAPSHOT);
    // Nobody listens for process 8.
    assert_eq!(rig.watch(&[]).json_to(&mut out, true).unwrap(), Outcome::Incomplete);
    assert_eq!(String::from_utf8(out).unwrap(), SNAPSHOT);
    let asked_for = rig.watch(&[8]).json_to(&mut io::sink(), true).unwrap_err().to_string();
    assert!(asked_for.contains("nobody watches process 8"), "{asked_for}");
}

#[test]
fn a_refusal_is_of_one_process_only() {
    for pids in [&[][..], &[7]] {
        let rig = Rig::new();
        rig.answer(r#"{"schema":"ttmem.error/1","error":{"code":"not_allowed","message":"no"}}"#);
        let said = rig.watch(pids).json_to(&mut io::sink(), true);
        assert_eq!(said.is_ok(), pids.is_empty(), "{said:?}");
    }
}
