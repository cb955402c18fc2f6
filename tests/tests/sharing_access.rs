//! Who reads what ttmem shares, when, and what happens to it: rights, ends, other ttmems, the service.

use std::{
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

use anyhow::{Context as _, Result};
use e2e::{
    alone,
    asking::Asking,
    or_skip,
    sharing::{Rig, Service, said, served},
    standin::{Copied, Driver, Standin},
    table::Table,
    ttmem::{PATIENCE, ended_within},
    until::until,
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    pipe::pipe,
    process::Signal,
    time::Timespec,
};
use serde_json::{Value, json};

/// A user and a group that nobody has.
const STRANGER: u32 = 54_321;

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
    assert_eq!(own.settled().unwrap()["exact"], true, "one of its own is another matter");
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
    let copied = or_skip!(Copied::locate("pimpl"));
    rig.driver = copied.standin.start().unwrap();
    rig.driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let first = rig.attach(&[]).unwrap();
    let pid = rig.driver.pid();
    let place = rig.place();
    let name = copied.name().unwrap();
    let options = ["--name", name, "-r", "50", "--table-dir", place.to_str().unwrap()];
    let mut search = rig.ttmem.attach_to(&options).unwrap();
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

/// The one test of the folder that is meant where none is named.
#[test]
fn where_no_folder_is_named_readers_look_where_it_is() {
    or_skip!(alone::no_other_ttmem());
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let pid = rig.driver.pid().to_string();
    let typed = |arguments: &[&str]| {
        let mut command = Command::new(rig.ttmem.path());
        command.args(arguments).stdin(Stdio::null());
        command
    };
    let mut attach = typed(&["attach", "--pid", &pid, "--headless", "-r", "60000"]);
    let mut attached = Service(attach.stdout(Stdio::null()).spawn().unwrap());
    let usual = Path::new("/run/ttmem");
    served(usual, rig.driver.pid()).unwrap();
    let (text, code) = said(&mut typed(&["watch", "--once", "--pid", &pid])).unwrap();
    assert!(code == Some(0) && text.contains("DRAM"), "{text}");
    let (text, code) = said(&mut typed(&["ask", "{\"get\":\"buffers\"}", "--pid", &pid])).unwrap();
    assert!(code == Some(0) && text.contains("\"total\":1"), "{text}");
    attached.signal(Signal::TERM).unwrap();
    assert!(ended_within(&mut attached.0, PATIENCE).unwrap().success());
    assert!(!usual.join(format!("{pid}.table")).exists());
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
    command.args(["attach", "--headless", "-r", "60000", "--pid", &pid]);
    command.args(["--group", &STRANGER.to_string(), "--table-dir"]).arg(rig.place());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let _attached = Service(command.spawn().unwrap());
    served(&rig.place(), rig.driver.pid()).unwrap();
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
    for arguments in [&["watch", "--once", "-d", "9"][..], &["watch", "--json", "-d", "9"]] {
        let (text, code) = said(&mut rig.reading(arguments)).unwrap();
        let expected = "ttmem: no process that is watched has a device 9\n";
        assert_eq!((text.as_str(), code), (expected, Some(1)), "{arguments:?}");
    }
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

/// Also while whoever reads takes nothing: what is not taken does not pile up, nor is waited for.
#[test]
fn lines_of_what_is_watched_end_when_they_are_to() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 2 name=m"]).unwrap();
    let _watch = rig.attach(&[]).unwrap();
    let mut command = rig.reading(&["watch", "--json", "-r", "10"]);
    let (taken_by_nobody, full_soon) = pipe().unwrap();
    let stdout = Stdio::from(full_soon.try_clone().unwrap());
    let mut reader = Service(command.stdout(stdout).spawn().unwrap());
    // Whoever writes more waits. There is no event for that.
    let has_room = || {
        let mut fds = [PollFd::new(&full_soon, PollFlags::OUT)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() > 0
    };
    until("the pipe is not filled", || Ok((!has_room()).then_some(()))).unwrap();
    reader.signal(Signal::TERM).unwrap();
    assert_eq!(ended_within(&mut reader.0, PATIENCE).unwrap().code(), Some(0));
    drop(taken_by_nobody);
}

#[test]
fn a_service_watches_what_comes_and_goes() {
    or_skip!(alone::nobody_else());
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
    let table = until("never exact", || {
        let table = Table::read(&rig.place(), rig.driver.pid())?;
        Ok(table.is_exact().then_some(table))
    });
    let table = table.unwrap();
    assert_eq!(table.devices()[0]["pools"][0]["buffers"], 1);
    let mut other = standin.start().unwrap();
    other.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    served(&rig.place(), other.pid()).unwrap();
    let mut asking = Asking::connect(&rig.place(), other.pid()).unwrap();
    // Of this one, too, the older buffers are read later.
    let buffers = until("never exact", || {
        let buffers = asking.ask(&json!({"get": "buffers"}))?;
        Ok((buffers["exact"] == true).then_some(buffers))
    });
    let buffers = buffers.unwrap();
    assert_eq!(buffers["total"], 1);
    service.signal(Signal::HUP).unwrap();
    told("RELOADING=1");
    told("READY=1");
    other.end_with("quit").unwrap();
    assert_eq!(asking.line().unwrap().expect("a last line")["state"], "exited");
    service.signal(Signal::TERM).unwrap();
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
    Ok(names.fold(String::new(), |all, name| all + ",+" + &name))
}

#[test]
fn a_service_needs_no_more_than_its_unit_leaves_it() {
    or_skip!(alone::nobody_else());
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let mut command = Command::new("setpriv");
    command.arg("--no-new-privs");
    command.arg(format!("--bounding-set=-all{}", units_capabilities().unwrap()));
    command.arg(rig.ttmem.path()).args(["serve", "--group", &STRANGER.to_string()]);
    command.arg("--table-dir").arg(rig.place()).stdin(Stdio::null());
    let _service = Service(command.spawn().unwrap());
    served(&rig.place(), rig.driver.pid()).unwrap();
    rig.driver.all_ok(&["alloc b m DRAM 4096 2048", "free a"]).unwrap();
    let answer = rig.ask().unwrap().ask(&json!({"get": "buffers"})).unwrap();
    assert_eq!(answer["total"], 1);
}
