//! The live view of a program on the real ttnn: each view says what JSON says of the same instant.
//!
//! The program waits at a checkpoint, so that what is asked for and what is shown are the same.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    asking::Asking,
    or_skip,
    real::{Program, both},
    shown::{bytes, compare_buffers, compare_events, compare_pool},
    terminal::Terminal,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// A program at a checkpoint, watched from its start.
struct Rig {
    program: Program,
    terminal: Terminal,
    asking: Asking,
    /// What is live there.
    now: Value,
}

impl Rig {
    fn start(name: &str, checkpoint: &str) -> Result<Self, String> {
        let (real, ttmem) = both()?;
        Terminal::locate()?;
        let rig = || {
            let mut program = real.start("n300", &["--mesh", "1x2"])?;
            let tables = tempfile::tempdir()?.keep();
            let (pid, folder) = (program.pid().to_string(), tables.display().to_string());
            let options = ["--wait", "--refresh", "50", "--table-dir", &folder];
            let arguments = [&["attach", "--pid", &pid], &options[..]].concat();
            let terminal = Terminal::start(&ttmem, name, &arguments)?;
            program.expect("start")?;
            terminal.until("the first report", |screen| screen.contains(" exact"))?;
            program.go_on()?;
            program.until(checkpoint)?;
            let mut asking = Asking::connect(&tables, program.pid())?;
            let now = snapshot(&mut asking)?;
            anyhow::Ok(Self { program, terminal, asking, now })
        };
        rig().map(Ok).map_err(|error| format!("{error:#}")).unwrap()
    }

    fn buffers(&self) -> &[Value] {
        self.now["buffers"].as_array().unwrap()
    }

    /// Shows a view, and waits until it agrees.
    fn view<T>(&self, key: &str, agrees: impl Fn(&str) -> Result<T>) -> Result<T> {
        self.terminal.keys(&[key])?;
        let screen = self.terminal.until(&format!("view {key}"), |screen| agrees(screen).is_ok());
        match screen {
            Ok(screen) => agrees(&screen),
            // Why not says more.
            Err(error) => agrees(&self.terminal.screen()?).with_context(|| format!("{error:#}")),
        }
    }
}

fn snapshot(asking: &mut Asking) -> Result<Value> {
    let answer = asking.ask(&json!({ "get": "snapshot", "buffers": true }))?;
    ensure!(answer["exact"] == true, "{answer}");
    Ok(answer)
}

/// Every pool of every chip that ever held something, or has memory.
fn compare_pools(screen: &str, snapshot: &Value) -> Result<usize> {
    let mut compared = 0;
    for device in snapshot["devices"].as_array().context("devices")? {
        for pool in device["pools"].as_array().context("pools")? {
            compare_pool(screen, device["chip"].as_i64().context("chip")?, pool)?;
            compared += 1;
        }
    }
    Ok(compared)
}

/// What is used and how many buffers, without the peak: it is later than an earlier instant.
fn compare_use(screen: &str, snapshot: &Value) -> Result<()> {
    for device in snapshot["devices"].as_array().context("devices")? {
        let chip = device["chip"].as_i64().context("chip")?;
        let lines = e2e::shown::lines_of_chip(screen, chip);
        for pool in device["pools"].as_array().context("pools")? {
            let kind = pool["type"].as_str().context("type")?;
            let line = lines.iter().find(|line| line.split_whitespace().next() == Some(kind));
            let line = line.with_context(|| format!("no {kind} of chip {chip}:\n{screen}"))?;
            let used = format!(" {} / ", bytes(&pool["used_bytes"])?);
            ensure!(line.contains(&used), "no {used:?} in {line:?}");
            let count = pool["buffers"].to_string();
            ensure!(line.split_whitespace().any(|word| word == count), "no {count} in {line:?}");
        }
    }
    Ok(())
}

#[test]
fn each_view_agrees_with_json() {
    let rig = or_skip!(Rig::start("agrees", "interleaved/all"));
    let pools = rig.view("1", |screen| compare_pools(screen, &rig.now)).unwrap();
    let rows = rig.view("2", |screen| compare_buffers(screen, rig.buffers())).unwrap();
    rig.view("3", |screen| map(screen, &rig.now)).unwrap();
    rig.view("5", |screen| timeline(screen, &rig.now)).unwrap();
    rig.view("6", |screen| threads(screen, rig.buffers().len())).unwrap();
    let events = rig.view("8", |screen| compare_events(screen, rig.buffers())).unwrap();
    println!("{pools} pools, {rows} buffers and {events} changes are as JSON says");
    assert!(pools >= 6 && rows > 10 && events > 10);
    rig.view("9", health).unwrap();
    rig.terminal.keys(&["q"]).unwrap();
    rig.terminal.given_back("0").unwrap();
    assert!(rig.program.finish().unwrap().success());
}

/// The largest hole of what is shown.
fn map(screen: &str, snapshot: &Value) -> Result<()> {
    let spaces = snapshot["allocators"].as_array().context("allocators")?;
    let agrees = |space: &&Value| {
        let kind = space["type"].as_str().unwrap_or_default();
        let Ok(largest) = bytes(&space["largest_hole_bytes"]) else { return false };
        screen.contains(&format!(" {kind}  ")) && screen.contains(&format!("largest {largest}"))
    };
    ensure!(spaces.iter().any(|space| agrees(&space)), "no such hole: {spaces:?}\n{screen}");
    Ok(())
}

/// The last column of the timeline is what is used now.
fn timeline(screen: &str, snapshot: &Value) -> Result<()> {
    let title = screen.lines().find(|line| line.contains(" on each of chips "));
    let kind = title.and_then(|line| line.split_whitespace().next()).context("no title")?;
    let pools = snapshot["devices"][0]["pools"].as_array().context("pools")?;
    let pool = pools.iter().find(|pool| pool["type"] == kind).context("no such pool")?;
    let used = format!("now: used {} ", bytes(&pool["used_bytes"])?);
    let count = format!(" {} buffers", pool["buffers"]);
    ensure!(screen.contains(&used) && screen.contains(&count), "{used:?}, {count:?}\n{screen}");
    Ok(())
}

/// What is live of all threads together.
fn threads(screen: &str, live: usize) -> Result<()> {
    let rows = screen.lines().skip_while(|line| !line.contains("alloc/s")).skip(1);
    let count = |row: &str| {
        let mut words = row.trim_start_matches('▶').split_whitespace();
        words.nth(2).and_then(|word| word.parse::<usize>().ok())
    };
    let sum: usize = rows.map_while(count).sum();
    ensure!(sum == live, "{sum} instead of {live}:\n{screen}");
    Ok(())
}

/// Nothing was lost, and all was found.
fn health(screen: &str) -> Result<()> {
    let row = |words: &str| screen.lines().find(|line| line.contains(words)).map(str::to_owned);
    for words in ["ring buffer full", "field not readable"] {
        let line = row(words).with_context(|| format!("no {words}:\n{screen}"))?;
        ensure!(line.split_whitespace().last() == Some("0"), "{line}");
    }
    ensure!(row("history").is_some(), "the recorder is not shown:\n{screen}");
    Ok(())
}

/// Back to a checkpoint at which the program waited: the overview and the buffers are as they were.
#[test]
fn back_in_time_is_as_it_was() {
    let mut rig = or_skip!(Rig::start("back", "interleaved/all"));
    // It lasts until everything is on the screen.
    rig.view("1", |screen| compare_pools(screen, &rig.now)).unwrap();
    rig.view("2", |screen| compare_buffers(screen, rig.buffers())).unwrap();
    let then = rig.now.clone();
    rig.program.go_on().unwrap();
    rig.program.until("interleaved/large").unwrap();
    rig.now = snapshot(&mut rig.asking).unwrap();
    assert_ne!(then["devices"], rig.now["devices"]);
    rig.view("2", |screen| compare_buffers(screen, rig.buffers())).unwrap();
    let buffers = then["buffers"].as_array().unwrap();
    rig.view("5", |screen| timeline(screen, &rig.now)).unwrap();
    let mut found = false;
    for step in 1..80 {
        rig.terminal.keys(&["5", "Left", "1"]).unwrap();
        let at = |screen: &str| screen.contains("ago") && screen.contains("── chip 0 ");
        let screen = rig.terminal.until("an earlier instant", at).unwrap();
        found = compare_use(&screen, &then).is_ok();
        if found {
            println!("as it was after {step} steps back");
            break;
        }
    }
    assert!(found, "{}", rig.terminal.screen().unwrap());
    rig.view("2", |screen| compare_buffers(screen, buffers)).unwrap();
    rig.terminal.keys(&["Escape"]).unwrap();
    rig.view("2", |screen| compare_buffers(screen, rig.buffers())).unwrap();
    rig.terminal.keys(&["q"]).unwrap();
    rig.terminal.given_back("0").unwrap();
}

#[test]
fn a_killed_target_leaves_its_last_state() {
    let rig = or_skip!(Rig::start("killed", "interleaved/all"));
    rig.view("1", |screen| compare_pools(screen, &rig.now)).unwrap();
    let pid = i32::try_from(rig.program.pid()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    rig.terminal.until("the end", |screen| screen.contains("exited")).unwrap();
    rig.view("1", |screen| compare_pools(screen, &rig.now)).unwrap();
    rig.view("2", |screen| compare_buffers(screen, rig.buffers())).unwrap();
    rig.view("8", |screen| compare_events(screen, rig.buffers())).unwrap();
    rig.terminal.keys(&["q"]).unwrap();
    rig.terminal.given_back("0").unwrap();
}

#[test]
fn small_and_back_on_every_view() {
    let rig = or_skip!(Rig::start("sizes", "interleaved/all"));
    rig.view("2", |screen| compare_buffers(screen, rig.buffers())).unwrap();
    for key in ["1", "2", "3", "4", "5", "6", "7", "8", "9"] {
        rig.terminal.keys(&[key]).unwrap();
        rig.terminal.tmux(&["resize-window", "-x", "20", "-y", "5"]).unwrap();
        let small = |screen: &str| screen.contains("terminal too small");
        rig.terminal.until("20x5", small).unwrap();
        rig.terminal.tmux(&["resize-window", "-x", "80", "-y", "24"]).unwrap();
        let full = |screen: &str| screen.contains("q quit") && screen.lines().count() == 24;
        rig.terminal.until("80x24", full).unwrap();
    }
    rig.view("2", |screen| compare_buffers(screen, rig.buffers())).unwrap();
    rig.view("1", |screen| compare_pools(screen, &rig.now)).unwrap();
    rig.terminal.signal_ttmem(Signal::TERM).unwrap();
    rig.terminal.given_back("0").unwrap();
    assert!(rig.program.finish().unwrap().success());
}
