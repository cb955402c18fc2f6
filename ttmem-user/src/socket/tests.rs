//! The socket of a target without events, as clients see it.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    time::Timespec,
};
use serde_json::{Value, json};

use super::{client::Client, line::MAX_LINE, *};
use crate::{
    event::{Allocated, BufferShape, BufferType, Event, LiveBaseline, Spread},
    fixture::Quiet,
    ledger::{
        Ledger,
        snapshot::{Detail, ProcessLabel},
    },
    pipeline::{Command, Control, NewTarget, Options, Pipeline, Query, QueryKind, View},
    table::directory::Directory,
    units::{Avma, DeviceAddr, Pid, Tid},
};

const SERIAL: u64 = 3;
const PID: u32 = 77;

/// A target without events: the one that is asked about, and in slot 1 its neighbour.
fn target(slot: u32) -> NewTarget {
    let serial = SERIAL + u64::from(slot);
    let process = ProcessLabel { serial, ..ProcessLabel::of_pid(Pid(PID + slot)) };
    NewTarget {
        slot,
        ledger: Ledger::of_process(Arc::new(process), Vec::new()),
        ended: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
        same_program: Box::new(|| true),
        // Or a reading would find nothing of what a test puts there.
        fresh: true,
        read_live: Arc::new(|| Ok(LiveBaseline::default())),
        table: None,
        sinks: Vec::new(),
    }
}

struct Rig {
    server: Option<Server>,
    control: Arc<Control>,
    _pipeline: Pipeline,
    path: PathBuf,
    _outer: tempfile::TempDir,
}

impl Rig {
    fn new() -> Self {
        let own = rustix::process::geteuid().as_raw();
        Self::for_those(Allowed { own, user: None, group: None })
    }

    fn for_those(allowed: Allowed) -> Self {
        let control = Control::new().unwrap();
        let (added, _is_added) = mpsc::channel();
        for slot in 0..2 {
            control.send(Command::Add(Box::new(target(slot)), added.clone()));
            control.send(Command::Attached(slot));
        }
        let options = Options {
            refresh: Duration::from_hours(1),
            duration: None,
            once: false,
            awaits_target: false,
            ends_with_targets: false,
            detail: Detail::default(),
            detail_at_end: Detail::default(),
            audit: None,
        };
        let started =
            Pipeline::start(Quiet::new(), options, Arc::clone(&control), Box::new(|_| ()));
        let (pipeline, _) = started.unwrap();
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("sockets");
        let directory = Arc::new(Directory::create(&path).unwrap());
        let server = Server::start(Arc::clone(&control), None, || Ok(())).unwrap();
        for (serial, pid) in [(SERIAL, PID), (SERIAL + 1, PID + 1)] {
            let (listener, file) = directory.place_socket(&file_name(pid), |_| Ok(())).unwrap();
            server.open(NewSocket { serial, pid: Pid(pid), listener, allowed, file });
        }
        Self { server: Some(server), control, _pipeline: pipeline, path, _outer: outer }
    }

    fn client(&self) -> Client {
        Client::connect(std::slice::from_ref(&self.path), PID).unwrap()
    }

    fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// How many follow the target's changes.
    fn followers(&self) -> usize {
        self.in_pipeline(|view| view.sinks.len())
    }

    fn in_pipeline<T: Send + 'static>(
        &self,
        run: impl FnOnce(View<'_>) -> T + Send + 'static,
    ) -> T {
        let (to, answer) = mpsc::channel();
        let run = Box::new(move |view: View<'_>| to.send(run(view)).unwrap());
        self.control.send(Command::Query(Query { serial: SERIAL, kind: QueryKind::Quick, run }));
        answer.recv().unwrap()
    }
}

fn ask(client: &mut Client, request: &str) -> Value {
    client.send(request).unwrap();
    next(client)
}

fn next(client: &mut Client) -> Value {
    serde_json::from_str(&client.line().unwrap().expect("an answer")).unwrap()
}

#[test]
fn every_question_has_its_answer() {
    let rig = Rig::new();
    let mut client = rig.client();
    for (request, schema) in [
        (r#"{"get":"snapshot"}"#, "ttmem.snapshot/1"),
        (r#"{"get":"buffers","limit":3}"#, "ttmem.buffers/1"),
        (r#"{"get":"failures"}"#, "ttmem.failures/1"),
        (r#"{"get":"sync"}"#, "ttmem.sync/1"),
        (r#"{"mark":"a"}"#, "ttmem.mark/1"),
        (r#"{"since":"a"}"#, "ttmem.since/1"),
        (r#"{"subscribe":"deltas"}"#, "ttmem.subscribed/1"),
        (r#"{"unsubscribe":"deltas"}"#, "ttmem.unsubscribed/1"),
        (r#"{"subscribe":"snapshots","interval_ms":3600000}"#, "ttmem.snapshot/1"),
    ] {
        let answer = ask(&mut client, request);
        assert_eq!(answer["schema"], schema, "{request}");
        assert_eq!(answer["pid"], PID, "{request}");
        assert!(answer["time_ns"].as_u64() > Some(0), "{request}");
    }
    let answer = ask(&mut client, r#"{"get":"sync","id":12}"#);
    assert_eq!(answer["id"], 12);
}

#[test]
fn a_wrong_request_is_answered_and_the_connection_lives_on() {
    let rig = Rig::new();
    let mut client = rig.client();
    let wrong = ask(&mut client, r#"{"get":"everything","id":"x"}"#);
    assert_eq!(wrong["schema"], "ttmem.error/1");
    assert_eq!((&wrong["error"]["code"], &wrong["id"]), (&json!("bad_request"), &json!("x")));
    let long = format!(r#"{{"mark":"{}"}}"#, "x".repeat(MAX_LINE));
    assert_eq!(ask(&mut client, &long)["error"]["code"], "too_long");
    assert_eq!(ask(&mut client, r#"{"since":"never"}"#)["error"]["code"], "no_mark");
    assert_eq!(ask(&mut client, r#"{"get":"sync"}"#)["schema"], "ttmem.sync/1");
}

#[test]
fn marks_are_the_connections_own() {
    let rig = Rig::new();
    let (mut one, mut other) = (rig.client(), rig.client());
    assert_eq!(ask(&mut one, r#"{"mark":"a"}"#)["previous"], Value::Null);
    assert_eq!(ask(&mut other, r#"{"since":"a"}"#)["error"]["code"], "no_mark");
    assert!(ask(&mut one, r#"{"mark":"a"}"#)["previous"]["marked_ns"].is_u64());
}

#[test]
fn many_deltas_at_once_come_in_several_lines() {
    let rig = Rig::new();
    let mut client = rig.client();
    ask(&mut client, r#"{"subscribe":"deltas"}"#);
    let many = subscription::tests::deltas(70_000);
    assert!(rig.in_pipeline(move |view| view.sinks[0].take(&many)));
    let mut left = 70_000;
    while left > 0 {
        let line = client.line().unwrap().unwrap();
        let found = line.matches(r#""sequence":"#).count();
        assert!((1..=512).contains(&found), "{found}");
        left -= found;
    }
    assert_eq!(ask(&mut client, r#"{"get":"sync"}"#)["schema"], "ttmem.sync/1");
}

#[test]
fn of_who_has_gone_nothing_is_left_though_nothing_changes() {
    let rig = Rig::new();
    let mut client = rig.client();
    for _ in 0..20 {
        let answer = ask(&mut client, r#"{"subscribe":"deltas"}"#);
        assert_eq!(answer["schema"], "ttmem.subscribed/1");
        assert_eq!(rig.followers(), 1, "a new subscription takes the place of the former");
    }
    ask(&mut client, r#"{"unsubscribe":"deltas"}"#);
    for _ in 0..20 {
        ask(&mut rig.client(), r#"{"subscribe":"deltas"}"#);
    }
    // The server sees a little later that they have gone.
    let is_left = |_| {
        std::thread::sleep(Duration::from_millis(10));
        rig.followers() == 0
    };
    assert!((0..500).any(is_left), "{} are left", rig.followers());
}

#[test]
fn the_end_is_the_last_line() {
    let rig = Rig::new();
    let mut client = rig.client();
    ask(&mut client, r#"{"subscribe":"deltas"}"#);
    rig.server().close(SERIAL, End::Exited);
    let end = next(&mut client);
    assert_eq!((&end["schema"], &end["state"]), (&json!("ttmem.end/1"), &json!("exited")));
    assert_eq!(client.line().unwrap(), None);
    let refused = Client::connect(std::slice::from_ref(&rig.path), PID).unwrap_err().to_string();
    assert!(refused.contains("nobody watches process 77"), "{refused}");
}

#[test]
fn who_is_connected_is_told_that_ttmem_ends() {
    let mut rig = Rig::new();
    let mut client = rig.client();
    ask(&mut client, r#"{"get":"sync"}"#);
    drop(rig.server.take());
    assert_eq!(next(&mut client)["state"], "unwatched");
    assert!(!rig.path.join(file_name(PID)).exists());
}

#[test]
fn strangers_are_turned_away() {
    // This very user is nobody's, unless it is root, whom nobody turns away.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let rig = Rig::for_those(Allowed { own: u32::MAX, user: None, group: None });
    assert_eq!(next(&mut rig.client())["error"]["code"], "not_allowed");
}

#[test]
fn many_clients_are_served_and_no_more() {
    let rig = Rig::new();
    let is_root = rustix::process::geteuid().is_root();
    let most = if is_root { places::MAX_CLIENTS } else { places::MAX_OF_USER };
    let mut clients: Vec<Client> = (0..most).map(|_| rig.client()).collect();
    for client in &mut clients {
        client.send(r#"{"get":"snapshot"}"#).unwrap();
    }
    for client in &mut clients {
        assert_eq!(next(client)["schema"], "ttmem.snapshot/1");
    }
    let mut more = rig.client();
    assert_eq!(next(&mut more)["error"]["code"], "too_many_clients");
    assert_eq!(more.line().unwrap(), None);
    clients.pop();
    // A place is free once the server has seen that the other has gone.
    while next(&mut rig.client_that_asks())["schema"] == "ttmem.error/1" {}
}

impl Rig {
    fn client_that_asks(&self) -> Client {
        let mut client = self.client();
        // It may have been turned away already.
        let _ = client.send(r#"{"get":"sync"}"#);
        client
    }
}

#[test]
fn large_answers_that_nobody_takes_hold_up_nobody_else() {
    let rig = Rig::new();
    // More than the socket takes of an answer that nobody reads.
    rig.in_pipeline(|view| {
        for id in 1..=4000 {
            view.ledger.apply(&allocated(id));
        }
    });
    let lists: Vec<UnixStream> = (0..50)
        .map(|number| {
            let mut stream = UnixStream::connect(rig.path.join(file_name(PID))).unwrap();
            let what = [r#"{"get":"snapshot","buffers":true}"#, r#"{"get":"buffers"}"#];
            writeln!(stream, "{}", what[number % 2]).unwrap();
            stream
        })
        .collect();
    let answered = || {
        let mut fds: Vec<PollFd<'_>> =
            lists.iter().map(|stream| PollFd::new(stream, PollFlags::IN)).collect();
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 })).unwrap()
    };
    // They are cut off only after five seconds.
    while answered() < places::LARGE_OF_USER {}
    let begun = Instant::now();
    let mut neighbour = Client::connect(std::slice::from_ref(&rig.path), PID + 1).unwrap();
    let mut syncs = 0;
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(ask(&mut neighbour, r#"{"get":"sync"}"#)["schema"], "ttmem.sync/1");
        syncs += 1;
    }
    assert!(syncs > 20, "{syncs}");
    assert_eq!(answered(), places::LARGE_OF_USER, "of all others nothing is kept");
    // They go on when others go.
    drop(lists);
    let mut client = rig.client();
    let list = ask(&mut client, r#"{"get":"buffers","limit":1,"id":"x"}"#);
    assert_eq!((&list["total"], &list["id"]), (&json!(4000), &json!("x")));
    let all = ask(&mut client, r#"{"get":"snapshot","buffers":true,"id":3}"#);
    assert_eq!(all["buffers"].as_array().map(Vec::len), Some(4000));
    assert_eq!(all["id"], 3);
}

fn allocated(id: u64) -> Event {
    let shape = BufferShape {
        unique_id: Some(id),
        buffer_type: BufferType::Dram,
        address: DeviceAddr(id * 2048),
        size: 2048,
        page_size: 2048,
        spread: Spread::Interleaved,
    };
    let (buffer, allocator, device) = (Avma(id << 8), Avma(2), Avma(1));
    Event::Allocated(Allocated { time_ns: id, tid: Tid(1), buffer, allocator, device, shape })
}

#[test]
fn requests_come_in_pieces_and_several_at_a_time() {
    let rig = Rig::new();
    let mut stream = UnixStream::connect(rig.path.join(file_name(PID))).unwrap();
    for piece in [&b"{\"get\":\"sy"[..], b"nc\",\"id\":1}\n{\"get\":\"sync\",\"id\":2}\n{\"ge"] {
        stream.write_all(piece).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let lines: Vec<String> = BufReader::new(stream).lines().map(Result::unwrap).collect();
    let ids: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, [1, 2], "and a line without an end is none");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn noise_does_no_harm(noise in prop::collection::vec(any::<u8>(), 0..5000)) {
        let rig = Rig::new();
        let mut stream = UnixStream::connect(rig.path.join(file_name(PID))).unwrap();
        stream.write_all(&noise).unwrap();
        stream.write_all(b"\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        for line in answers.lines() {
            let answer: Value = serde_json::from_str(line).unwrap();
            prop_assert_eq!(&answer["schema"], "ttmem.error/1");
        }
        prop_assert_eq!(&ask(&mut rig.client(), r#"{"get":"sync"}"#)["schema"], "ttmem.sync/1");
    }
}
