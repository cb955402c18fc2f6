//! More than one process at a time, and processes that come, go and become others.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    alone, or_skip,
    refusal::Program,
    sharing::{Rig, Service},
    standin::{Copied, Driver, Standin},
    ttmem::{Attached, Ttmem, now_ns},
    until::until,
};
use rustix::process::Signal;
use serde_json::Value;

/// Often, and with the live set.
const OFTEN: [&str; 3] = ["--buffers", "-r", "30"];

fn driver(variant: &str) -> Result<Driver, String> {
    Standin::locate(variant)?.start().map_err(|error| format!("{error:#}"))
}

/// A copy of a variant, which can be named, and a driver of it.
fn named(variant: &str) -> Result<(Copied, Driver), String> {
    let copied = Copied::locate(variant)?;
    let driver = copied.standin.start().map_err(|error| format!("{error:#}"))?;
    Ok((copied, driver))
}

fn with_often<'a>(options: &[&'a str]) -> Vec<&'a str> {
    options.iter().copied().chain(OFTEN).collect()
}

/// What each chip's pool of a type holds, in bytes.
fn used(line: &Value, of_type: &str) -> BTreeMap<i64, u64> {
    let chips = line["devices"].as_array().into_iter().flatten();
    chips
        .filter_map(|chip| {
            let pools = chip["pools"].as_array()?;
            let pool = pools.iter().find(|pool| pool["type"] == of_type)?;
            Some((chip["chip"].as_i64()?, pool["used_bytes"].as_u64()?))
        })
        .collect()
}

/// Two layouts side by side: each process by its own, the sums over both.
#[test]
fn two_versions_side_by_side() {
    let ttmem = or_skip!(Ttmem::locate());
    let (mut first, mut second) = (or_skip!(driver("pimpl")), or_skip!(driver("inline")));
    first.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 1048576 2048"]).unwrap();
    second.all_ok(&["open mesh 1 2 name=m", "alloc a m DRAM 2097152 2048"]).unwrap();
    let pids = [first.pid().to_string(), second.pid().to_string()];
    let options = with_often(&["--pid", &pids[0], "--pid", &pids[1]]);
    let mut watch = ttmem.attach_to(&options).unwrap();
    watch.find(|line| line["schema"] == "ttmem.totals/1").unwrap();
    first.ok("churn 2 3000 1 keep=5").unwrap();
    second.ok("churn 2 3000 2 keep=9").unwrap();
    let time_ns = now_ns();
    let (one, other) = (of(&mut watch, &mut first, time_ns), of(&mut watch, &mut second, time_ns));
    let totals = watch.find(|line| line["schema"] == "ttmem.totals/1").unwrap();
    for buffer_type in ["DRAM", "L1"] {
        let mut sums = used(&one, buffer_type);
        for (chip, bytes) in used(&other, buffer_type) {
            *sums.entry(chip).or_default() += bytes;
        }
        assert_eq!(used(&totals, buffer_type), sums, "{buffer_type}");
    }
    assert_eq!(totals["exact"], true);
    // One ends, the other goes on.
    assert!(first.end_with("quit 3").unwrap().code() == Some(3));
    let over = watch.find(|line| line["state"] == "exited").unwrap();
    assert_eq!(over["pid"].to_string(), pids[0]);
    second.ok("alloc b m L1 4096 2048").unwrap();
    let time_ns = now_ns();
    of(&mut watch, &mut second, time_ns);
    let totals = watch.find(|line| line["schema"] == "ttmem.totals/1").unwrap();
    assert_eq!(totals["processes"].as_array().unwrap().len(), 1);
    assert!(second.end_with("quit").unwrap().success());
    let (rest, status) = watch.finish().unwrap();
    assert!(status.success(), "{status}");
    let first_again = rest.iter().filter(|line| line["pid"] == over["pid"]).count();
    assert_eq!(first_again, 0, "what has ended is not shown again and again");
}

/// The state of a driver as ttmem shows it, which must be what the driver says.
fn of(watch: &mut Attached, driver: &mut Driver, time_ns: u64) -> Value {
    let snapshot = watch.of_at(driver.pid(), time_ns).unwrap();
    assert_eq!(snapshot["exact"], true, "{}", snapshot["inexact_because"]);
    let compared = driver.truth().unwrap().compare(&snapshot).unwrap();
    assert!(compared > 0);
    snapshot
}

#[test]
fn names_select_and_say_what_else_there_is() {
    let ttmem = or_skip!(Ttmem::locate());
    let (copied, mut driver) = or_skip!(named("pimpl"));
    driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let name = format!("{}/driver$", copied.name().unwrap());
    let output = ttmem.run(&["attach", "--name", &name, "--once", "--format", "json"]);
    let output = output.unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("\"pid\":{},", driver.pid())), "{text}");
    let output = ttmem.run(&["attach", "--name", "no such program", "--once"]).unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("no process matches \"no such program\""), "{error}");
    assert!(error.contains(&driver.pid().to_string()), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

/// One that never loads tt-metal is in nobody's way.
#[test]
fn all_are_waited_for_at_a_time() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let never = Program::start(Path::new("cat"), &[]).unwrap();
    let pids = [never.pid().to_string(), rig.driver.pid().to_string()];
    let mut command =
        rig.reading(&["attach", "--pid", &pids[0], "--pid", &pids[1], "--wait", "--headless"]);
    let _watch = Service(command.stdout(Stdio::null()).spawn().unwrap());
    let table = rig.place().join(format!("{}.table", pids[1]));
    until("it is not attached to", || Ok(table.exists().then_some(()))).unwrap();
}

#[test]
fn once_with_a_name_and_a_wait_waits() {
    let ttmem = or_skip!(Ttmem::locate());
    let copied = or_skip!(Copied::locate("pimpl"));
    let name = copied.name().unwrap();
    let options = ["attach", "--name", name, "--wait", "--once", "--format", "json"];
    let once = ttmem.begin(&options).unwrap();
    // Which is started once all that was there has been looked for.
    until("it does not watch", || {
        let threads = once.permitted()?;
        Ok(threads.iter().any(|(name, _)| name == "ttmem-pipeline").then_some(()))
    })
    .unwrap();
    let driver = copied.standin.start().unwrap();
    let (lines, status) = once.finish().unwrap();
    assert!(lines.iter().any(|line| line["pid"] == driver.pid()), "{status}: {lines:?}");
}

/// From its start to its end.
fn later_is_seen(ttmem: &Ttmem, standin: &Standin, selection: &[&str]) {
    let mut watch = ttmem.attach_to(&with_often(selection)).unwrap();
    watch.next().unwrap().expect("a line");
    for round in 0..3 {
        let mut driver = standin.start().unwrap();
        // Before anything happens: the driver waits for its script.
        watch.of_at(driver.pid(), 0).unwrap();
        driver.all_ok(&["open mesh 0 2 name=m", "churn 2 500 1 keep=3"]).unwrap();
        let time_ns = now_ns();
        of(&mut watch, &mut driver, time_ns);
        let pid = driver.pid();
        driver.end_with(if round == 1 { "crash" } else { "quit" }).unwrap();
        let over = watch.find(|line| line["pid"] == pid && line["state"] == "exited").unwrap();
        assert!(!over["buffers"].as_array().unwrap().is_empty(), "what was still live");
    }
    watch.signal(Signal::INT).unwrap();
    let (_, status) = watch.finish().unwrap();
    assert!(status.success(), "{status}");
}

/// `--all` and `--name --wait` see what starts later, from then on to its end.
#[test]
fn what_starts_later_is_seen() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    or_skip!(alone::nobody_else());
    later_is_seen(&ttmem, &standin, &["--all"]);
}

#[test]
fn what_starts_later_is_seen_by_its_name() {
    let ttmem = or_skip!(Ttmem::locate());
    let copied = or_skip!(Copied::locate("pimpl"));
    later_is_seen(&ttmem, &copied.standin, &["--name", copied.name().unwrap(), "--wait"]);
}

/// A program that becomes another ends as such; the next one is followed where targets are
/// looked for.
#[test]
fn another_program_in_the_same_process() {
    let ttmem = or_skip!(Ttmem::locate());
    let (copied, mut driver) = or_skip!(named("pimpl"));
    driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let mut watch = ttmem.attach_to(&with_often(&["--name", copied.name().unwrap()])).unwrap();
    let mut plain = ttmem.attach(driver.pid(), &with_often(&["--no-table"])).unwrap();
    plain.next().unwrap().expect("a snapshot");
    watch.of_at(driver.pid(), 0).unwrap();
    driver.exec().unwrap();
    let pid = driver.pid();
    let over = watch.find(|line| line["pid"] == pid && line["state"] == "replaced").unwrap();
    assert_eq!(over["buffers"].as_array().unwrap().len(), 1, "what was still live");
    driver.all_ok(&["open mesh 0 2 name=m", "alloc a m L1 4096 2048"]).unwrap();
    let time_ns = now_ns();
    of(&mut watch, &mut driver, time_ns);
    let (lines, status) = plain.finish().unwrap();
    assert_eq!(lines.last().unwrap()["state"], "replaced");
    assert!(status.success(), "{status}");
}

/// A forked copy is a process of its own, with copies of what its parent holds.
#[test]
fn a_forked_copy_does_not_change_its_parent() {
    let ttmem = or_skip!(Ttmem::locate());
    let (copied, mut driver) = or_skip!(named("pimpl"));
    driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let mut watch = ttmem.attach_to(&with_often(&["--name", copied.name().unwrap()])).unwrap();
    watch.of_at(driver.pid(), 0).unwrap();
    driver.ok("fork 500").unwrap();
    let time_ns = now_ns();
    of(&mut watch, &mut driver, time_ns);
}

/// While targets may come, one thread keeps what attaching takes, and no other keeps anything.
#[test]
fn only_the_thread_that_attaches_keeps_rights() {
    /// SYS_PTRACE, DAC_READ_SEARCH, PERFMON, BPF, CHECKPOINT_RESTORE by their numbers in
    /// linux/capability.h.
    const FOR_ATTACHING: u64 = 1 << 19 | 1 << 2 | 1 << 38 | 1 << 39 | 1 << 40;
    let ttmem = or_skip!(Ttmem::locate());
    let nobody = ["--name", "ttmem-no-such-program", "--wait", "-r", "20"];
    let mut watch = ttmem.attach_to(&nobody).unwrap();
    watch.next().unwrap().expect("a line");
    let mut keeping = watch.permitted().unwrap();
    keeping.retain(|(_, permitted)| *permitted != 0);
    assert_eq!(keeping, [("ttmem-agent".to_owned(), FOR_ATTACHING)]);
}

/// The library is at a path that only its mount namespace has, the process has an id of its own.
#[test]
fn a_container_is_seen_from_outside() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let (mut inside, pid) = contained(&standin).unwrap();
    let folder = inside_path(pid).unwrap();
    assert!(!folder.join("driver").exists(), "{} must not exist out here", folder.display());
    let mut watch = ttmem.attach(pid, &OFTEN).unwrap();
    watch.next().unwrap().expect("a snapshot");
    inside.all_ok(&["open mesh 0 2 name=m", "churn 2 500 1 keep=3"]).unwrap();
    let snapshot = watch.of_at(pid, now_ns()).unwrap();
    inside.truth().unwrap().compare(&snapshot).unwrap();
    assert_eq!(snapshot["process"]["namespace_pid"], 1);
    let library = snapshot["process"]["library"].as_str().unwrap();
    assert_eq!(library, folder.join("libtt_metal.so").to_str().unwrap());
    inside.tell("quit").unwrap();
    let (lines, _) = watch.finish().unwrap();
    assert_eq!(lines.last().unwrap()["state"], "exited");
}

#[test]
fn a_container_inside_that_of_ttmem_is_refused() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let apart = ["--pid", "--fork", "--kill-child"];
    let mut command = Command::new("unshare");
    command.args(apart).args(["--mount-proc", "unshare"]).args(apart).arg(standin.driver());
    let (inside, _) = Driver::start_by(&mut command).unwrap();
    let outer = only_child(inside.pid()).unwrap();
    let status =
        fs::read_to_string(format!("/proc/{}/status", only_child(outer).unwrap())).unwrap();
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    let [.., in_outer, "1"] = pids.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{pids} do not end with 1");
    };
    let mut from_outer = Command::new("nsenter");
    from_outer.args(["--target", &outer.to_string(), "--mount", "--pid"]).arg(ttmem.path());
    let output = from_outer.args(["attach", "--once", "--pid", in_outer]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let why = format!("process {in_outer} is in a pid namespace inside that of ttmem");
    assert!(error.contains(&why), "{error}");
    assert_eq!(output.status.code(), Some(1));
}

/// A driver in namespaces of its own; its process id out here.
fn contained(standin: &Standin) -> Result<(Driver, u32)> {
    let folder = standin.driver().parent().context("no folder")?.to_owned();
    let script = "mount -t tmpfs none /mnt && mkdir /mnt/app && mount --bind \"$0\" /mnt/app \
                  && exec /mnt/app/driver";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]).arg(folder);
    let (driver, own) = Driver::start_by(&mut command)?;
    ensure!(own == 1, "its own pid is {own}");
    let pid = only_child(driver.pid())?;
    Ok((driver, pid))
}

fn only_child(pid: u32) -> Result<u32> {
    Ok(fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?.trim().parse()?)
}

/// The folder of a process's program, as the process sees it.
fn inside_path(pid: u32) -> Result<std::path::PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let line = maps.lines().find(|line| line.ends_with("/driver")).context("no driver")?;
    let path = line.split_whitespace().last().context("no path")?;
    Ok(std::path::Path::new(path).parent().context("no folder")?.to_owned())
}
