//! The live view of `ttmem watch` on a real terminal: it shows the totals that another ttmem
//! shares, as that one answers when it is asked, and gives the terminal back.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    alone, or_skip,
    sharing::{Rig, Service, served},
    shown::{bytes, compare_pool, ends_with, lines_of_chip},
    standin::Standin,
    terminal::Terminal,
    ttmem::Attached,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A target with two chips, something of each kind in it, and who watches.
struct Scene {
    terminal: Terminal,
    rig: Rig,
}

/// What a target does first: the chips are opened when it is watched, so programs are known.
const FIRST: [&str; 9] = [
    "open mesh 0 2 name=m",
    "alloc a m DRAM 1073741824 2048",
    "alloc b m L1 41943040 2048",
    "alloc c m L1_SMALL 4096 1024",
    "alloc e m TRACE 1048576 2048",
    "alloc f m SYSTEM_MEMORY 200000000 2000",
    "program p",
    "cb p 4096 0,0-1,1",
    "dispatch p m",
];

impl Scene {
    /// Watches what the rig shares, at 80 × 24.
    fn start(name: &str, mut rig: Rig, options: &[&str]) -> Result<Self> {
        rig.driver.all_ok(&FIRST)?;
        let place = rig.place().display().to_string();
        let arguments = [&["watch", "--refresh", "50", "--table-dir", &place], options].concat();
        let terminal = Terminal::start(&rig.ttmem, name, &arguments)?;
        Ok(Self { terminal, rig })
    }

    /// What is answered to who asks; nothing changes meanwhile.
    fn asked(&self) -> Result<Value> {
        self.rig.sync()?;
        let answer = self.rig.ask()?.ask(&json!({"get": "snapshot"}))?;
        ensure!(answer["exact"] == true, "{answer}");
        Ok(answer)
    }

    /// Waits until the screen agrees with that.
    fn agrees(&self) -> Result<usize> {
        let asked = self.asked()?;
        let agrees = |screen: &str| compare(screen, &asked).is_ok();
        match self.terminal.until("the same as is answered", agrees) {
            Ok(screen) => compare(&screen, &asked),
            // Why not says more.
            Err(error) => {
                compare(&self.terminal.screen()?, &asked).with_context(|| format!("{error:#}"))
            }
        }
    }

    fn signal_target(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.rig.driver.pid())?;
        Ok(kill_process(Pid::from_raw(pid).context("pid")?, signal)?)
    }
}

/// Compares each pool and the circular buffers of each chip; returns how many rows.
fn compare(screen: &str, asked: &Value) -> Result<usize> {
    let mut rows = 0;
    for device in asked["devices"].as_array().context("devices")? {
        let chip = device["chip"].as_i64().context("chip")?;
        for pool in device["pools"].as_array().context("pools")? {
            compare_pool(screen, chip, pool)?;
            rows += 1;
        }
        let circular = &device["circular"];
        let lines = lines_of_chip(screen, chip);
        let line = lines.iter().find(|line| line.contains("CB/core")).context("no CB/core")?;
        let expected = format!(
            "{} / {} {} {}",
            bytes(&circular["core_bytes"])?,
            bytes(&circular["core_capacity_bytes"])?,
            bytes(&circular["peak_core_bytes"])?,
            circular["buffers"],
        );
        ends_with(line, &expected)?;
        rows += 1;
    }
    ensure!(screen.contains("\n exact  lost 0"), "not exact:\n{screen}");
    Ok(rows)
}

/// Attached without a view; the chips are opened afterwards.
fn attached(name: &str, options: &[&str]) -> Result<(Attached, Scene), String> {
    Terminal::locate()?;
    let rig = Rig::new()?;
    let start = || {
        // Circular buffers are written with the snapshots.
        let watch = rig.attach_with("50", &[])?;
        anyhow::Ok((watch, Scene::start(name, rig, options)?))
    };
    start().map_err(|error| format!("{error:#}")).map(Ok).unwrap()
}

/// Nobody watches anything yet, as while a service waits for a first process.
#[test]
fn the_view_waits_for_a_first_process() {
    or_skip!(Terminal::locate());
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&FIRST).unwrap();
    let place = rig.place().display().to_string();
    let arguments = ["watch", "--refresh", "50", "--table-dir", &place];
    let terminal = Terminal::start(&rig.ttmem, "nobody", &arguments).unwrap();
    terminal.until("that it waits", |screen| screen.contains("no process is watched yet")).unwrap();
    let _watch = rig.attach(&[]).unwrap();
    terminal.until("the first chip", |screen| screen.contains("chip 0")).unwrap();
    terminal.keys(&["q"]).unwrap();
    terminal.until("the shell", |screen| screen.contains("the line before")).unwrap();
}

/// A service that watches all targets, of which this one is shown.
fn service(name: &str) -> Result<(Service, Scene), String> {
    Terminal::locate()?;
    alone::nobody_else()?;
    let rig = Rig::new()?;
    let start = || {
        let mut serve = rig.reading(&["serve"]);
        let service = Service(serve.stderr(Stdio::null()).spawn()?);
        served(&rig.place(), rig.driver.pid())?;
        let pid = rig.driver.pid().to_string();
        anyhow::Ok((service, Scene::start(name, rig, &["--pid", &pid])?))
    };
    start().map_err(|error| format!("{error:#}")).map(Ok).unwrap()
}

#[test]
fn what_is_watched_is_what_is_answered() {
    let (_watch, mut scene) = or_skip!(attached("watch", &[]));
    let before = scene.agrees().unwrap();
    scene.rig.driver.all_ok(&["free b", "alloc g m DRAM 4096 2048", "cb p 8192 0,0-0,0"]).unwrap();
    scene.rig.driver.all_ok(&["dispatch p m", "churn 2 2000 5 keep=30"]).unwrap();
    let after = scene.agrees().unwrap();
    println!("{before} rows before a change and {after} after it are as the socket answers");
    assert_eq!((before, after), (12, 12), "2 chips with 5 pools and circular buffers");
    // What is not in a table is not made up, and the totals come back.
    for key in ["2", "3", "4", "5", "6", "8", "9"] {
        scene.terminal.keys(&[key]).unwrap();
        let elsewhere = |screen: &str| screen.contains("ttmem that attached");
        scene.terminal.until(&format!("view {key}"), elsewhere).unwrap();
    }
    scene.terminal.keys(&["7"]).unwrap();
    let none = |screen: &str| screen.contains("no allocation has failed since the attach");
    scene.terminal.until("view 7", none).unwrap();
    scene.rig.driver.caught("oom m DRAM").unwrap();
    let one = |screen: &str| screen.contains("failed allocations: 1; they are with the ttmem");
    scene.terminal.until("a failure", one).unwrap();
    scene.terminal.keys(&["1"]).unwrap();
    scene.agrees().unwrap();
    scene.terminal.keys(&["q"]).unwrap();
    scene.terminal.given_back("0").unwrap();
}

/// One device of one process, and what it was like last when that process has ended.
#[test]
fn one_device_of_a_process_stays_as_it_was_last() {
    let rig = or_skip!(Rig::new());
    or_skip!(Terminal::locate());
    let pid = rig.driver.pid().to_string();
    let _watch = rig.attach(&[]).unwrap();
    let scene = Scene::start("device", rig, &["--pid", &pid, "--device", "1"]);
    let scene = scene.unwrap();
    let asked = scene.asked().unwrap();
    let pools = asked["devices"][1]["pools"].as_array().unwrap();
    let agrees = |screen: &str| pools.iter().all(|pool| compare_pool(screen, 1, pool).is_ok());
    let screen = scene.terminal.until("chip 1", agrees).unwrap();
    assert!(!screen.contains("chip 0"), "{screen}");
    scene.signal_target(Signal::KILL).unwrap();
    let ended = |screen: &str| screen.contains("target exited") && agrees(screen);
    scene.terminal.until("its last state", ended).unwrap();
    scene.terminal.keys(&["q"]).unwrap();
    scene.terminal.given_back("0").unwrap();
}

/// Each process that is shared is listed, also one that comes later, and what it was like last when
/// it has ended.
#[test]
fn processes_come_and_go() {
    let (_watch, scene) = or_skip!(attached("several", &[]));
    let inline = or_skip!(Standin::locate("inline"));
    scene.agrees().unwrap();
    let mut other = inline.start().unwrap();
    other.all_ok(&["open mesh 4 1 name=m", "alloc a m DRAM 1048576 2048"]).unwrap();
    let place = scene.rig.place().display().to_string();
    let mut second = scene.rig.ttmem.attach(other.pid(), &["--table-dir", &place]).unwrap();
    assert_eq!(second.settled().unwrap()["exact"], true);
    // In the order of their process ids.
    let first = if scene.rig.driver.pid() < other.pid() { "1 of 2" } else { "2 of 2" };
    scene.terminal.until("two processes", |screen| screen.contains(first)).unwrap();
    scene.terminal.keys(&["n"]).unwrap();
    let title = format!("pid {}  ", other.pid());
    let shown = |screen: &str| {
        let head = screen.lines().next().is_some_and(|head| head.contains(&title));
        head && screen.contains("── chip 4 ")
    };
    scene.terminal.until("the other one", shown).unwrap();
    assert!(other.end_with("quit").unwrap().success());
    let ended = |screen: &str| screen.contains("target exited") && screen.contains("1.0 MiB / ");
    scene.terminal.until("its last state", ended).unwrap();
    scene.terminal.keys(&["n"]).unwrap();
    scene.terminal.until("the first one", |screen| screen.contains("── chip 0 ")).unwrap();
    scene.terminal.keys(&["q"]).unwrap();
    scene.terminal.given_back("0").unwrap();
}

/// Who wrote may end, or be killed: the last numbers stay, and are not called exact.
#[test]
fn numbers_that_nobody_writes_any_more_are_not_exact() {
    for (name, signal, why) in [
        ("ended", Signal::TERM, " inexact: ttmem has ended: the numbers are what it last wrote"),
        ("killed", Signal::KILL, "was killed: the numbers are wh"),
    ] {
        let (service, scene) = or_skip!(service(name));
        scene.agrees().unwrap();
        let before = scene.terminal.screen().unwrap();
        let pid = i32::try_from(service.0.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        let after = scene.terminal.until(why, |screen| screen.contains(why)).unwrap();
        assert_eq!(lines_of_chip(&after, 0), lines_of_chip(&before, 0));
        assert!(!after.contains("\n exact"), "{after}");
        scene.terminal.keys(&["q"]).unwrap();
        scene.terminal.given_back("2").unwrap();
    }
}
