//! Call stacks: whole, of every allocation, and without an effect on the numbers.

use std::os::unix::fs::{PermissionsExt as _, chown};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    failure::up_to,
    or_skip,
    stacks::{are_in_order, functions},
    standin::{Driver, Standin},
    terminal::Terminal,
    ttmem::{Attached, Ttmem, now_ns},
};
use rustix::process::Signal;
use serde_json::Value;

const VARIANTS: [&str; 5] = ["pimpl", "inline", "old", "cet", "stripped"];

/// What every allocation of a driver goes through, the innermost first.
const CALLS: [&str; 4] =
    ["tt::tt_metal::GraphTracker::track_allocate", "standin::allocate", "main", "_start"];

/// What an allocation that fails ends in.
const THROW: &str = "tt::assert::detail::tt_throw";

/// Attaches to a driver with a device of two chips, all of whose buffers will be seen.
fn attach(ttmem: &Ttmem, standin: &Standin, options: &[&str]) -> Result<(Driver, Attached)> {
    let mut driver = standin.start()?;
    let mut watch = ttmem.attach(driver.pid(), &[&["--buffers", "-r", "20"], options].concat())?;
    watch.settled()?;
    driver.ok("open mesh 0 2 name=m")?;
    Ok((driver, watch))
}

fn buffers(snapshot: &Value) -> Result<&Vec<Value>> {
    snapshot["buffers"].as_array().with_context(|| format!("no buffers: {snapshot}"))
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("no count: {value}"))
}

/// Allocations that the probes have counted, whatever was delivered.
fn allocations(snapshot: &Value) -> Result<u64> {
    let rows = snapshot["witness"]["allocations"].as_array().context("no witness")?;
    rows.iter().map(|row| number(&row["count"])).sum()
}

fn ends(watch: Attached, driver: Driver) -> Result<()> {
    watch.signal(Signal::TERM)?;
    let (_, status) = watch.finish()?;
    ensure!(status.success(), "{status}");
    ensure!(driver.end_with("quit")?.success());
    Ok(())
}

#[test]
fn each_buffer_has_the_functions_that_called_for_it() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in VARIANTS {
        let standin = or_skip!(Standin::locate(variant));
        whole_stacks(&ttmem, &standin).context(variant).unwrap();
    }
}

fn whole_stacks(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    let (mut driver, mut watch) = attach(ttmem, standin, &["--stacks"])?;
    driver.all_ok(&[
        "alloc a m DRAM 4096 2048",
        "alloc b m L1 32768 2048 cores=8 shard=64x32 page=32x32",
        "hold 5",
    ])?;
    let snapshot = watch.at_or_after(now_ns())?;
    driver.truth()?.compare(&snapshot)?;
    let mut by_command = 0;
    for buffer in buffers(&snapshot)? {
        ensure!(buffer["stack_cut"].is_null() && buffer["stack_unknown"].is_null(), "{buffer}");
        let names = functions(buffer)?;
        ensure!(names.first() == Some(&CALLS[0]), "{names:?}");
        by_command += u32::from(names.contains(&"standin::Session::allocate"));
        ensure!(are_in_order(&names, &CALLS), "{names:?}");
        ensure!(buffer["site"] == CALLS[1], "{buffer}");
        let last = buffer["stack"].as_array().and_then(|frames| frames.last());
        let module = last.and_then(|frame| frame["module"].as_str());
        ensure!(module == standin.driver().to_str(), "{module:?}");
    }
    ensure!(by_command == 2, "{by_command} by a command each: {snapshot}");
    let stacks = &snapshot["stacks"];
    ensure!(stacks["seen"] == 7 && stacks["lost"] == 0 && stacks["not_kept"] == 0, "{stacks}");
    ensure!(stacks["cut"].as_object().is_some_and(serde_json::Map::is_empty), "{stacks}");
    ends(watch, driver)
}

#[test]
fn every_allocation_of_many_threads_has_a_stack() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    many_threads(&ttmem, &standin).unwrap();
}

fn many_threads(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    let (mut driver, mut watch) = attach(ttmem, standin, &["--stacks"])?;
    let made = driver.ok("rate 4000 2")?.number("allocations")?;
    let kept = driver.ok("churn 4 200 7 keep=9")?;
    let made = made + kept.number("allocations")?;
    let snapshot = watch.at_or_after(now_ns())?;
    driver.truth()?.compare(&snapshot)?;
    ensure!(allocations(&snapshot)? == made, "{made} made: {}", snapshot["witness"]);
    let stacks = &snapshot["stacks"];
    ensure!(stacks["seen"] == made && stacks["lost"] == 0, "{made} made: {stacks}");
    let live = buffers(&snapshot)?;
    ensure!(live.len() == 36, "{} live", live.len());
    for buffer in live {
        ensure!(buffer["stack_cut"].is_null(), "{buffer}");
        ensure!(functions(buffer)?.contains(&CALLS[1]), "{buffer}");
    }
    println!("{made} allocations, {} different stacks", stacks["different"]);
    ends(watch, driver)
}

/// Of 40,000 that come and go no more are kept than are worth looking for what is live.
#[test]
fn the_stacks_of_what_is_gone_are_forgotten() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let (mut driver, mut watch) = attach(&ttmem, &standin, &["--stacks"]).unwrap();
    driver.ok("alloc a m DRAM 4096 2048").unwrap();
    driver.ok("rate 40000 2").unwrap();
    let is_small = |kept: &Value| kept.as_u64().is_some_and(|kept| kept < 20_000);
    let seen = |snapshot: &Value| snapshot["stacks"]["seen"].as_u64() > Some(39_000);
    let snapshot =
        watch.find(|snapshot| seen(snapshot) && is_small(&snapshot["stacks"]["kept"])).unwrap();
    assert_eq!(snapshot["stacks"]["not_kept"], 0, "{}", snapshot["stacks"]);
    let live = buffers(&snapshot).unwrap();
    assert_eq!(live[0]["site"], CALLS[1], "what is live stays: {}", live[0]);
    ends(watch, driver).unwrap();
}

#[test]
fn lost_stacks_are_counted_and_every_number_stays_exact() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    overload(&ttmem, &standin).unwrap();
}

fn overload(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    let options = ["--stacks", "--stack-ring-size", "128"];
    let (mut driver, mut watch) = attach(ttmem, standin, &options)?;
    let made = driver.ok("churn 2 20000 5 keep=100")?.number("allocations")?;
    let snapshot = watch.at_or_after(now_ns())?;
    driver.truth()?.compare(&snapshot)?;
    let (seen, lost) = (number(&snapshot["stacks"]["seen"])?, number(&snapshot["stacks"]["lost"])?);
    println!("{made} allocations, {seen} stacks seen, {lost} lost");
    ensure!(seen + lost == made && seen > 0 && lost > 0, "{made} made, {seen} seen, {lost} lost");
    ensure!(snapshot["lost"]["ring_full"] == 0, "{}", snapshot["lost"]);
    let mut unknown = 0;
    for buffer in buffers(&snapshot)? {
        if buffer["stack"].is_null() {
            unknown += 1;
            ensure!(buffer["site"].is_null(), "{buffer}");
            let why = buffer["stack_unknown"].as_str().unwrap_or_default();
            ensure!(why.starts_with("the stack was lost"), "{buffer}");
        } else {
            ensure!(functions(buffer)?.contains(&CALLS[1]), "{buffer}");
        }
    }
    ensure!(unknown > 0, "{lost} lost, and none of them is of a live buffer");
    ends(watch, driver)
}

#[test]
fn what_is_not_known_is_said_and_not_made_up() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    not_known(&ttmem, &standin).unwrap();
}

fn not_known(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    let mut driver = standin.start()?;
    driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"])?;
    let options = ["--buffers", "-r", "20", "--stacks", "--stack-bytes", "512"];
    let mut watch = ttmem.attach(driver.pid(), &options)?;
    watch.settled()?;
    driver.ok("alloc b m DRAM 4096 2048")?;
    let snapshot = watch.at_or_after(now_ns())?;
    let [older, cut] = buffers(&snapshot)?.as_slice() else { anyhow::bail!("{snapshot}") };
    ensure!(older["site"].is_null() && older["stack"].is_null(), "{older}");
    ensure!(older["stack_unknown"] == "allocated before the attach", "{older}");
    ensure!(cut["stack_cut"] == "the copied bytes of the stack end there", "{cut}");
    let names = functions(cut)?;
    ensure!(names.first() == Some(&CALLS[0]) && !names.contains(&"main"), "{names:?}");
    ensure!(snapshot["stacks"]["cut"]["copied_bytes_end"] == 1, "{}", snapshot["stacks"]);
    ends(watch, driver)
}

#[test]
fn without_the_option_there_is_no_word_of_them() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let (mut driver, mut watch) = attach(&ttmem, &standin, &[]).unwrap();
    driver.ok("alloc a m DRAM 4096 2048").unwrap();
    let snapshot = watch.at_or_after(now_ns()).unwrap();
    assert!(snapshot.get("stacks").is_none());
    let buffer = &buffers(&snapshot).unwrap()[0];
    assert!(["site", "stack"].iter().all(|key| buffer.get(key).is_none()), "{buffer}");
    ends(watch, driver).unwrap();
}

#[test]
fn who_asks_at_the_socket_is_told_too() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("tables");
    let place = place.to_str().unwrap();
    let options = ["--stacks", "--table-dir", place];
    let (mut driver, watch) = attach(&ttmem, &standin, &options).unwrap();
    driver.ok("alloc a m DRAM 4096 2048").unwrap();
    let request = r#"{"get":"buffers"}"#;
    let pid = driver.pid().to_string();
    let output = ttmem.run(&["ask", "--table-dir", place, "--pid", &pid, request]).unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let buffer = &buffers(&answer).unwrap()[0];
    assert_eq!(buffer["site"], CALLS[1], "{buffer}");
    assert!(functions(buffer).unwrap().contains(&"main"), "{buffer}");
    ends(watch, driver).unwrap();
}

/// Who asked in vain, and who held what was in the way.
#[test]
fn a_failed_allocation_and_what_was_live_lead_to_their_callers() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "cet", "stripped"] {
        let standin = or_skip!(Standin::locate(variant));
        failed(&ttmem, &standin).context(variant).unwrap();
    }
}

fn failed(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    let (mut driver, mut watch) = attach(ttmem, standin, &["--stacks", "--on-failure", "json"])?;
    driver.ok("alloc a m DRAM 4096 2048")?;
    let answer = driver.ask("oom m DRAM")?;
    ensure!(answer.starts_with("caught Out of Memory"), "{answer}");
    // What was live then stays known when it has been freed.
    driver.ok("free a")?;
    let (failures, snapshot) = up_to(&mut watch, now_ns())?;
    let [failure] = &failures[..] else { anyhow::bail!("not one failure: {failures:?}") };
    let names = functions(failure)?;
    ensure!(names.first().is_some_and(|name| name.starts_with(THROW)), "{names:?}");
    ensure!(are_in_order(&names, &CALLS[1..]), "{names:?}");
    ensure!(failure["site"] == CALLS[1] && failure["stack_cut"].is_null(), "{failure}");
    ensure!(snapshot["failures"]["last"][0]["stack"] == failure["stack"], "{snapshot}");
    let [held] = &buffers(failure)?[..] else { anyhow::bail!("not one buffer: {failure}") };
    ensure!(held["site"] == CALLS[1] && are_in_order(&functions(held)?, &CALLS), "{held}");
    ensure!(buffers(&snapshot)?.is_empty() && snapshot["stacks"]["seen"] == 2, "{snapshot}");
    ends(watch, driver)
}

/// What can be read of the target later has been opened before the rights went.
#[test]
fn no_thread_keeps_a_capability() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let (driver, watch) = attach(&ttmem, &standin, &["--stacks"]).unwrap();
    let threads = watch.permitted().unwrap();
    assert!(threads.iter().all(|(_, permitted)| *permitted == 0), "{threads:?}");
    let unwinds = threads.iter().filter(|(name, _)| name == "ttmem-stacks").count();
    assert_eq!(unwinds, 1, "the thread that unwinds: {threads:?}");
    ends(watch, driver).unwrap();
}

#[test]
fn the_live_view_shows_sites_and_stacks() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    or_skip!(Terminal::locate());
    let mut driver = standin.start().unwrap();
    let pid = driver.pid().to_string();
    let arguments = ["attach", "--pid", &pid, "--stacks", "--no-table", "-r", "50"];
    let terminal = Terminal::start(&ttmem, "stacks", &arguments).unwrap();
    terminal.until("the first report", |screen| screen.contains(" exact")).unwrap();
    driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let shows = |what: &'static str| terminal.until(what, |screen| screen.contains(what));
    terminal.keys(&["2"]).unwrap();
    shows(CALLS[1]).unwrap();
    terminal.keys(&["Enter"]).unwrap();
    shows(CALLS[0]).unwrap();
    terminal.keys(&["Escape"]).unwrap();
    terminal.keys(&["b", "b", "b", "b", "b"]).unwrap();
    let groups = shows("by site").unwrap();
    assert!(groups.contains(CALLS[1]), "{groups}");
    assert!(driver.ask("oom m DRAM").unwrap().starts_with("caught"));
    terminal.keys(&["7"]).unwrap();
    shows(CALLS[1]).unwrap();
    terminal.keys(&["w"]).unwrap();
    shows(THROW).unwrap();
    terminal.keys(&["Escape"]).unwrap();
    terminal.keys(&["q"]).unwrap();
    terminal.given_back("0").unwrap();
    assert!(driver.end_with("quit").unwrap().success());
}

/// As in a home directory: what has been opened at the attach can be read without any right.
#[test]
fn files_that_only_their_owner_may_read_are_read_all_the_same() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    closed_directory(&ttmem, &standin).unwrap();
}

fn closed_directory(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    const NOBODY: u32 = 65534;
    let home = tempfile::tempdir()?;
    let [driver, library] = [standin.driver(), standin.library()].map(|file| {
        let copy = home.path().join(file.file_name().unwrap_or_default());
        std::fs::copy(&file, &copy).map(|_| copy)
    });
    let (driver, library) = (driver?, library?);
    for path in [driver.as_path(), library.as_path(), home.path()] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    let mut driver = Driver::start(&driver)?;
    let mut watch = ttmem.attach(driver.pid(), &["--buffers", "-r", "20", "--stacks"])?;
    watch.settled()?;
    driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"])?;
    let snapshot = watch.at_or_after(now_ns())?;
    let buffer = &buffers(&snapshot)?[0];
    ensure!(buffer["stack_cut"].is_null() && buffer["site"] == CALLS[1], "{buffer}");
    ends(watch, driver)
}
