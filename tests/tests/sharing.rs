//! What ttmem shares: the table, the socket, and the commands that read them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{PermissionsExt as _, chown, symlink},
        net::UnixDatagram,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    asking::Asking,
    or_skip,
    standin::{Driver, Standin},
    table::Table,
    ttmem::{Attached, PATIENCE, Ttmem, ended_within, now_ns},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A user and a group that nobody has.
const STRANGER: u32 = 54_321;

/// Sizes of live buffers by their unique id.
type Known = BTreeMap<u64, u64>;

struct Rig {
    ttmem: Ttmem,
    driver: Driver,
    outer: TempDir,
}

impl Rig {
    fn new() -> Result<Self, String> {
        let driver = Standin::locate("pimpl")?.start().map_err(|error| format!("{error:#}"))?;
        let outer = tempfile::tempdir().map_err(|error| error.to_string())?;
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o755))
            .map_err(|e| e.to_string())?;
        Ok(Self { ttmem: Ttmem::locate()?, driver, outer })
    }

    fn place(&self) -> PathBuf {
        self.outer.path().join("tables")
    }

    /// Attaches, and waits for the first snapshot; the next one is far off, so nobody need read.
    fn attach(&self, more: &[&str]) -> Result<Attached> {
        self.attach_with("60000", more)
    }

    fn attach_with(&self, refresh: &str, more: &[&str]) -> Result<Attached> {
        let place = self.place();
        let mut options = vec!["-r", refresh, "--table-dir", place.to_str().context("a path")?];
        options.extend(more);
        let mut watch = self.ttmem.attach(self.driver.pid(), &options)?;
        watch.next()?.context("a snapshot")?;
        Ok(watch)
    }

    fn ask(&self) -> Result<Asking> {
        Asking::connect(&self.place(), self.driver.pid())
    }

    /// Has ttmem take in every event up to now.
    fn sync(&self) -> Result<()> {
        let answer = self.ask()?.ask(&json!({"get": "sync"}))?;
        ensure!(answer["schema"] == "ttmem.sync/1", "{answer}");
        Ok(())
    }

    /// A command that reads what is shared.
    fn reading(&self, arguments: &[&str]) -> Command {
        let place = self.place();
        let mut command = self.ttmem.command(arguments);
        command.arg("--table-dir").arg(place);
        command
    }
}

/// What a command printed, and its exit code.
fn said(command: &mut Command) -> Result<(String, Option<i32>)> {
    let output = command.output()?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((text.concat(), output.status.code()))
}

#[test]
fn table_and_socket_say_what_the_allocators_hold() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 4 name=m", "alloc old m DRAM 4096 2048"]).unwrap();
    let _watch = rig.attach(&[]).unwrap();
    rig.driver.all_ok(&["open device 6 name=d", "alloc a d L1 65536 2048", "free old"]).unwrap();
    rig.driver.ok("churn 4 3000 7 keep=50").unwrap();
    rig.sync().unwrap();
    let table = Table::read(&rig.place(), rig.driver.pid()).unwrap();
    assert!(table.is_exact());
    let truth = rig.driver.truth().unwrap();
    let devices = json!({"devices": table.devices()});
    let figures = truth.compare_totals(&devices).unwrap();
    let mut asking = rig.ask().unwrap();
    let snapshot = asking.ask(&json!({"get": "snapshot", "buffers": true})).unwrap();
    truth.compare_pools(&snapshot).unwrap();
    let buffers = asking.ask(&json!({"get": "buffers"})).unwrap();
    assert_eq!(buffers["buffers"], snapshot["buffers"]);
    assert_eq!(buffers["total"], truth.buffers());
    for (from_table, chip) in
        table.devices().as_array().unwrap().iter().zip(snapshot["devices"].as_array().unwrap())
    {
        assert_eq!(from_table["pools"], chip["pools"]);
    }
    println!("{figures} figures equal in the table, {} buffers at the socket", truth.buffers());
}

#[test]
fn circular_buffers_are_in_the_table_too() {
    let mut rig = or_skip!(Rig::new());
    // From the start: programs from before the attach are not known.
    let mut watch = rig.attach_with("50", &[]).unwrap();
    rig.driver
        .all_ok(&[
            "open mesh 0 2 name=m",
            "program p",
            "cb p 4096 0,0-1,1",
            "cb p 8192 0,0-0,0",
            "dispatch p m",
        ])
        .unwrap();
    let snapshot = watch.at_or_after(now_ns()).unwrap();
    let table = Table::read(&rig.place(), rig.driver.pid()).unwrap();
    for (slot, chip) in snapshot["devices"].as_array().unwrap().iter().enumerate() {
        let circular = &chip["circular"];
        assert_eq!(circular["core_bytes"], 12_288);
        for (at, figure) in [
            (16, "core_bytes"),
            (24, "peak_core_bytes"),
            (32, "core_capacity_bytes"),
            (56, "programs"),
            (64, "buffers"),
        ] {
            assert_eq!(table.chip_word(slot as u64, at), circular[figure], "{figure}");
        }
    }
}

#[test]
fn a_time_in_the_table_means_what_it_says() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.ok("open mesh 0 1 name=m").unwrap();
    let _watch = rig.attach(&[]).unwrap();
    for round in 0..20 {
        rig.driver.ok(&format!("alloc b{round} m DRAM 4096 2048")).unwrap();
        let after = now_ns();
        rig.sync().unwrap();
        let table = Table::read(&rig.place(), rig.driver.pid()).unwrap();
        assert!(table.time_ns() >= after);
        assert_eq!(table.devices()[0]["pools"][0]["buffers"], round + 1);
    }
}

#[test]
fn deltas_add_up_to_the_live_set() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 2 name=m", "hold 500"]).unwrap();
    let _watch = rig.attach(&[]).unwrap();
    let mut asking = rig.ask().unwrap();
    let begun = asking.ask(&json!({"subscribe": "deltas"})).unwrap();
    assert_eq!(begun["schema"], "ttmem.subscribed/1");
    let mut sequence = begun["sequence"].as_u64().unwrap();
    // What was there before has no delta here: it is told from the rest by its id.
    let before = asking.ask(&json!({"get": "buffers"})).unwrap();
    let mut known: Known = ids_and_sizes(&before["buffers"]);
    rig.driver.ok("churn 4 2000 3 keep=40").unwrap();
    rig.driver.all_ok(&["alloc z m TRACE 8192 2048", "bulk m"]).unwrap();
    let last = asking.ask(&json!({"get": "buffers", "id": "last"})).unwrap();
    let mut line = last;
    let mut deltas = 0;
    // Deltas may come before the answer, and go on after it.
    let after = loop {
        if line["id"] == "last" {
            break line;
        }
        deltas += apply(&line, &mut known, &mut sequence);
        line = asking.line().unwrap().expect("a line");
    };
    while sequence < after["sequence"].as_u64().unwrap() {
        let line = asking.line().unwrap().expect("a line");
        deltas += apply(&line, &mut known, &mut sequence);
    }
    assert_eq!(known, ids_and_sizes(&after["buffers"]));
    println!("{deltas} deltas add up to {} live buffers", known.len());
}

fn ids_and_sizes(buffers: &Value) -> Known {
    let buffers = buffers.as_array().expect("buffers");
    buffers
        .iter()
        .map(|it| (it["unique_id"].as_u64().unwrap(), it["size"].as_u64().unwrap()))
        .collect()
}

fn apply(line: &Value, known: &mut Known, sequence: &mut u64) -> u64 {
    assert_eq!(line["schema"], "ttmem.deltas/1", "{line}");
    for delta in line["deltas"].as_array().unwrap() {
        assert_eq!(delta["sequence"], *sequence + 1, "without a gap");
        *sequence += 1;
        let id = delta["unique_id"].as_u64().unwrap();
        let size = delta["size"].as_u64().unwrap();
        if delta["change"] == "allocated" {
            assert_eq!(known.insert(id, size), None);
        } else {
            assert_eq!(known.remove(&id), Some(size));
        }
    }
    line["deltas"].as_array().unwrap().len() as u64
}

#[test]
fn since_a_mark_growth_and_peak_are_known() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 2 name=m", "alloc old m DRAM 49152 2048"]).unwrap();
    let _watch = rig.attach(&[]).unwrap();
    let mut asking = rig.ask().unwrap();
    let marked = asking.ask(&json!({"mark": "step"})).unwrap();
    assert_eq!((&marked["schema"], &marked["previous"]), (&json!("ttmem.mark/1"), &Value::Null));
    let one = rig.driver.ok("alloc a m DRAM 49152 2048").unwrap().number("bank_bytes").unwrap();
    rig.driver.all_ok(&["alloc b m DRAM 49152 2048", "free a", "free old"]).unwrap();
    let since = asking.ask(&json!({"since": "step"})).unwrap();
    let chips = since["since"]["devices"].as_array().unwrap();
    assert_eq!(chips.len(), 2);
    for chip in chips {
        let pool = &chip["pools"][0];
        assert_eq!(pool["buffers"], 0);
        assert_eq!((&pool["allocations"], &pool["frees"]), (&json!(2), &json!(2)));
        assert_eq!(pool["used_bytes"], 0);
        assert_eq!(pool["peak_growth_bytes"], one * 2 * 12);
    }
    // What came since and is still there.
    let left = asking
        .ask(&json!({"get": "buffers", "allocated_after_ns": since["since"]["marked_ns"]}))
        .unwrap();
    assert_eq!((&left["matched"], &left["matched_bytes"]), (&json!(1), &json!(49_152)));
}

#[test]
fn who_falls_behind_is_cut_off_and_delays_nothing() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.ok("open mesh 0 1 name=m").unwrap();
    let mut watch = rig.attach_with("50", &[]).unwrap();
    let mut stuck = rig.ask().unwrap();
    stuck.ask(&json!({"subscribe": "deltas"})).unwrap();
    rig.driver.ok("rate 60000 4").unwrap();
    let snapshot = watch.at_or_after(now_ns()).unwrap();
    assert_eq!(snapshot["lost"], json!({"ring_full": 0, "read_fault": 0}));
    assert_eq!(snapshot["exact"], true);
    rig.driver.truth().unwrap().compare_pools(&snapshot).unwrap();
    let mut last = None;
    // It may have been cut off in the midst of a line.
    while let Ok(Some(line)) = stuck.line() {
        last = Some(line);
    }
    let code = last.map(|line| line["error"]["code"].clone());
    println!("cut off with {code:?}");
    rig.sync().unwrap();
}

#[test]
fn a_second_ttmem_looks_over_the_firsts_shoulder() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let first = rig.attach(&[]).unwrap();
    let pid = rig.driver.pid().to_string();
    let mut command = rig.reading(&["attach", "--pid", &pid, "--format", "json", "-r", "50"]);
    let mut second = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    rig.driver.ok("alloc b m DRAM 4096 2048").unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(second.stdout.take().unwrap()));
    let seen = |line: Result<String, std::io::Error>| {
        let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
        line["devices"][1]["pools"][0]["buffers"] == 2
    };
    assert!(lines.by_ref().take(100).any(seen), "it follows");
    let (refused, code) =
        said(&mut rig.reading(&["attach", "--pid", &pid, "--headless", "--audit", "1"])).unwrap();
    assert!(refused.contains("is watched already, by ttmem with process id"), "{refused}");
    assert!(refused.contains("leave --audit out, or add --no-table"), "{refused}");
    assert_eq!(code, Some(1));
    let own = ["--pid", &pid, "--no-table", "-r", "50"];
    let mut own = rig.ttmem.attach_to(&own).unwrap();
    assert_eq!(own.next().unwrap().unwrap()["exact"], true, "one of its own is another matter");
    first.signal(Signal::TERM).unwrap();
    // The end of the first is its end.
    assert!(lines.all(|line| line.is_ok()));
    let output = second.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&format!("ttmem: process {pid} is watched already")), "{text}");
    assert!(text.contains("showing what that one says"), "{text}");
}

#[test]
fn a_search_takes_over_when_the_first_has_ended() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let first = rig.attach(&[]).unwrap();
    let pid = rig.driver.pid();
    let place = rig.place();
    let place = place.to_str().unwrap();
    let mut search =
        rig.ttmem.attach_to(&["--name", "pimpl/driver", "-r", "50", "--table-dir", place]).unwrap();
    let is_refused = |line: &Value| {
        let unwatched = line["unwatched"].as_array().into_iter().flatten();
        let mut reasons = unwatched.filter(|it| it["pid"] == pid);
        reasons
            .any(|it| it["reason"].as_str().is_some_and(|why| why.contains("is watched already")))
    };
    search.find(is_refused).unwrap();
    first.signal(Signal::TERM).unwrap();
    first.finish().unwrap();
    let snapshot = search.find(|line| line["pid"] == pid && line["exact"] == true).unwrap();
    assert_eq!(snapshot["devices"][0]["pools"][0]["buffers"], 1);
}

#[test]
fn a_killed_ttmem_is_noticed_and_replaced() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let first = rig.attach(&[]).unwrap();
    first.signal(Signal::KILL).unwrap();
    drop(first);
    // The heartbeat has to grow old first; nothing else tells that it was killed.
    let deadline = Instant::now() + PATIENCE;
    let (text, code) = loop {
        let (text, code) = said(&mut rig.reading(&["watch", "--once"])).unwrap();
        if text.contains("was killed") {
            break (text, code);
        }
        assert!(Instant::now() < deadline, "{text}");
    };
    assert_eq!(code, Some(2), "{text}");
    let nobody = rig.reading(&["watch", "--once", "--json"]).output().unwrap();
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("nobody watches process"));
    let _second = rig.attach(&[]).unwrap();
    rig.driver.ok("alloc b m DRAM 4096 2048").unwrap();
    rig.sync().unwrap();
    let table = Table::read(&rig.place(), rig.driver.pid()).unwrap();
    rig.driver.truth().unwrap().compare_totals(&json!({"devices": table.devices()})).unwrap();
    let (text, code) = said(&mut rig.reading(&["watch", "--once"])).unwrap();
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn nothing_is_left_behind() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.ok("open mesh 0 1 name=m").unwrap();
    let left = |rig: &Rig| {
        let names = fs::read_dir(rig.place()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name != ".lock").collect::<Vec<_>>()
    };
    let watch = rig.attach(&[]).unwrap();
    let mut asking = rig.ask().unwrap();
    watch.signal(Signal::INT).unwrap();
    watch.finish().unwrap();
    assert_eq!(asking.line().unwrap().expect("a last line")["state"], "unwatched");
    assert!(left(&rig).is_empty(), "{:?}", left(&rig));
    let watch = rig.attach(&[]).unwrap();
    let mut asking = rig.ask().unwrap();
    let Rig { driver, outer, ttmem } = rig;
    driver.end_with("quit").unwrap();
    watch.finish().unwrap();
    assert_eq!(asking.line().unwrap().expect("a last line")["state"], "exited");
    let rig = Rig { driver: or_skip!(Standin::locate("pimpl")).start().unwrap(), outer, ttmem };
    assert!(left(&rig).is_empty(), "{:?}", left(&rig));
}

/// Copies of the programs that a stranger can run.
fn for_strangers(rig: &Rig, standin: &Standin) -> Result<(PathBuf, PathBuf)> {
    let folder = rig.outer.path().join("bin");
    fs::create_dir(&folder)?;
    let copy = |from: &Path| -> Result<PathBuf> {
        let to = folder.join(from.file_name().context("a name")?);
        fs::copy(from, &to)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
        Ok(to)
    };
    copy(&standin.library())?;
    Ok((copy(rig.ttmem.path())?, copy(&standin.driver())?))
}

#[test]
fn the_user_of_the_process_may_read_and_a_stranger_may_not() {
    let mut rig = or_skip!(Rig::new());
    let standin = or_skip!(Standin::locate("pimpl"));
    let (ttmem, program) = for_strangers(&rig, &standin).unwrap();
    let mut start = Command::new(program);
    start.uid(STRANGER).gid(STRANGER);
    rig.driver = Driver::start_by(&mut start).unwrap().0;
    rig.driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let watch = rig.attach(&[]).unwrap();
    let as_user = |user: u32, group: u32, arguments: &[&str]| {
        let mut command = Command::new(&ttmem);
        command.args(arguments).arg("--table-dir").arg(rig.place()).uid(user).gid(group);
        said(&mut command).unwrap()
    };
    let pid = rig.driver.pid().to_string();
    let watch_once = ["watch", "--once", "--pid", &pid];
    let ask = ["ask", "{\"get\":\"sync\"}", "--pid", &pid];
    for command in [&watch_once[..], &ask] {
        let (text, code) = as_user(STRANGER, STRANGER, command);
        assert_eq!(code, Some(0), "its own: {text}");
        let (text, code) = as_user(STRANGER + 1, STRANGER, command);
        assert_eq!(code, Some(1), "another user of the same group: {text}");
        assert!(text.contains("ermission denied"), "{text}");
    }
    drop(watch);
    let group = (STRANGER + 7).to_string();
    let _watch = rig.attach(&["--group", &group]).unwrap();
    for command in [&watch_once[..], &ask] {
        let (text, code) = as_user(STRANGER + 1, STRANGER + 7, command);
        assert_eq!(code, Some(0), "a member of the group: {text}");
        let (_, code) = as_user(STRANGER + 1, STRANGER, command);
        assert_eq!(code, Some(1));
    }
}

#[test]
fn a_strict_umask_locks_nobody_out() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.ok("open mesh 0 1 name=m").unwrap();
    let pid = rig.driver.pid().to_string();
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" \"$@\""]).arg(rig.ttmem.path());
    command.args(["attach", "--headless", "-r", "60000", "--pid", &pid, "--table-dir"]);
    command.arg(rig.place()).stdin(Stdio::null()).stdout(Stdio::null());
    let _attached = Service(command.spawn().unwrap());
    served(&rig.place(), rig.driver.pid());
    let mode =
        |name: &str| fs::metadata(rig.place().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(""), mode(&format!("{pid}.table"))), (0o755, 0o640));
    assert_eq!(mode(&format!("{pid}.sock")), 0o660);
}

#[test]
fn directories_that_others_could_write_to_are_refused() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.ok("open mesh 0 1 name=m").unwrap();
    let pid = rig.driver.pid().to_string();
    let place = rig.place();
    let refused = || {
        let mut command = rig.reading(&["attach", "--pid", &pid, "--headless"]);
        let (text, code) = said(&mut command).unwrap();
        assert_eq!((code, text.lines().count()), (Some(1), 1), "{text}");
        text
    };
    symlink("/etc", &place).unwrap();
    assert!(refused().contains("it is a link, or no directory"));
    fs::remove_file(&place).unwrap();
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(refused().contains("others may write to it"));
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&place, Some(STRANGER), None).unwrap();
    assert!(refused().contains("it belongs to user 54321"));
    chown(&place, Some(0), None).unwrap();
    let victim = rig.outer.path().join("victim");
    fs::write(&victim, "as it was").unwrap();
    symlink(&victim, place.join(format!("{pid}.table"))).unwrap();
    assert!(refused().contains("is no file of ttmem (symlink)"));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "as it was");
    let missing =
        rig.ttmem.run(&["attach", "--pid", &pid, "--headless", "--table-dir", "/proc/x/y"]);
    assert_eq!(missing.unwrap().status.code(), Some(1));
}

#[test]
fn readers_say_what_is_not_there() {
    let mut rig = or_skip!(Rig::new());
    fs::create_dir(rig.place()).unwrap();
    for (arguments, expected) in [
        (&["watch", "--once"][..], "nothing is watched: start `sudo ttmem attach --pid N`"),
        (&["watch", "--once", "--json"], "nothing is watched"),
        (&["watch", "--once", "--pid", "4194304"], "no table of process 4194304 in "),
        (&["ask", "{}"], "no process is watched"),
        (&["ask", "--pid", "4194304", "{}"], "nobody watches process 4194304"),
        (&["ask", "{"], "the question is no JSON"),
    ] {
        let (text, code) = said(&mut rig.reading(arguments)).unwrap();
        assert!(text.contains(expected) && text.lines().count() == 1, "{arguments:?}: {text}");
        assert_eq!(code, Some(1));
    }
    rig.driver.all_ok(&["open mesh 0 2 name=m"]).unwrap();
    let _watch = rig.attach(&[]).unwrap();
    let (text, code) = said(&mut rig.reading(&["watch", "--once", "-d", "9"])).unwrap();
    assert_eq!(
        (text.as_str(), code),
        ("ttmem: no process that is watched has a device 9\n", Some(1))
    );
    let (text, code) = said(&mut rig.reading(&["ask", "{\"get\":\"all\"}"])).unwrap();
    assert!(text.contains("unknown variant `all`"), "{text}");
    assert_eq!(code, Some(1));
    let (text, _) = said(&mut rig.reading(&["watch", "--once", "-d", "1"])).unwrap();
    assert!(text.contains("DRAM") && !text.contains('\u{1b}'), "plain text: {text}");
    let (text, code) = said(&mut rig.reading(&["watch", "--once", "--json", "-d", "1"])).unwrap();
    let snapshot: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(snapshot["schema"], "ttmem.snapshot/1");
    assert_eq!(snapshot["devices"].as_array().unwrap().len(), 1);
    assert_eq!(code, Some(0));
}

/// Killed when dropped.
struct Service(std::process::Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until questions about a process are answered.
fn served(place: &Path, pid: u32) {
    let deadline = Instant::now() + PATIENCE;
    let answered = || Asking::connect(place, pid)?.ask(&json!({"get": "sync"}));
    while answered().is_err() {
        assert!(Instant::now() < deadline, "process {pid} is not served");
        std::thread::yield_now();
    }
}

#[test]
fn a_service_watches_what_comes_and_goes() {
    let mut rig = or_skip!(Rig::new());
    let standin = or_skip!(Standin::locate("inline"));
    rig.driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let notices = rig.outer.path().join("notify");
    let systemd = UnixDatagram::bind(&notices).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut service = Service(
        rig.reading(&["serve"])
            .env("NOTIFY_SOCKET", &notices)
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap(),
    );
    let told = |expected: &str| {
        let mut bytes = [0; 4096];
        loop {
            let len = systemd.recv(&mut bytes).expect("systemd is told");
            if String::from_utf8_lossy(&bytes[..len]).contains(expected) {
                return;
            }
        }
    };
    told("READY=1");
    // Its older buffers are read after that.
    let deadline = Instant::now() + PATIENCE;
    let table = loop {
        let table = Table::read(&rig.place(), rig.driver.pid()).unwrap();
        if table.is_exact() {
            break table;
        }
        assert!(Instant::now() < deadline, "never exact");
        std::thread::yield_now();
    };
    assert_eq!(table.devices()[0]["pools"][0]["buffers"], 1);
    let mut other = standin.start().unwrap();
    other.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    served(&rig.place(), other.pid());
    let mut asking = Asking::connect(&rig.place(), other.pid()).unwrap();
    assert_eq!(asking.ask(&json!({"get": "buffers"})).unwrap()["total"], 1);
    let signal = |signal| {
        let pid =
            i32::try_from(service.0.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    signal(Signal::HUP);
    told("RELOADING=1");
    told("READY=1");
    other.end_with("quit").unwrap();
    assert_eq!(asking.line().unwrap().expect("a last line")["state"], "exited");
    signal(Signal::TERM);
    told("STOPPING=1");
    assert!(ended_within(&mut service.0, Duration::from_secs(10)).unwrap().success());
    rig.driver.ok("alloc b m DRAM 4096 2048").unwrap();
}

/// The capabilities that the unit for systemd leaves to the service.
fn units_capabilities() -> Result<String> {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/ttmem.service");
    let text = fs::read_to_string(unit)?;
    let line = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.context("no such line")?.split(' ');
    let names = names.map(|name| name.trim_start_matches("CAP_").to_lowercase());
    Ok(names.map(|name| format!(",+{name}")).collect())
}

#[test]
fn a_service_needs_no_more_than_its_unit_leaves_it() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let mut command = Command::new("setpriv");
    command.arg("--no-new-privs");
    command.arg(format!("--bounding-set=-all{}", units_capabilities().unwrap()));
    command.arg(rig.ttmem.path()).args(["serve", "--group", &STRANGER.to_string()]);
    command.arg("--table-dir").arg(rig.place()).stdin(Stdio::null());
    let _service = Service(command.spawn().unwrap());
    served(&rig.place(), rig.driver.pid());
    rig.driver.all_ok(&["alloc b m DRAM 4096 2048", "free a"]).unwrap();
    let answer = rig.ask().unwrap().ask(&json!({"get": "buffers"})).unwrap();
    assert_eq!(answer["total"], 1);
}
