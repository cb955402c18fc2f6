//! The live view of a program on the real ttnn: each view says what JSON says of the same instant.
//!
//! The program waits at a checkpoint, so that what is asked for and what is shown are the same.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    asking::Asking,
    or_skip,
    real::{Program, both},
    shown::{Row, bytes, compare_buffers, compare_events, compare_pool, expected_rows},
    terminal::Terminal,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A program at a checkpoint, watched from its start.
struct Rig {
    program: Program,
    terminal: Terminal,
    asking: Asking,
    /// What is live there.
    now: Value,
    _tables: TempDir,
}

/// What is watched, and how it is shown.
struct Scene {
    /// The script, its options, and the checkpoint at which it waits.
    script: &'static str,
    options: &'static [&'static str],
    checkpoint: &'static str,
    size: (u32, u32),
}

/// The usual one: all kinds of interleaved buffers.
const INTERLEAVED: Scene = Scene {
    script: "exactness.py",
    options: &["--mesh", "1x2"],
    checkpoint: "interleaved/all",
    size: (80, 24),
};

impl Rig {
    fn start(name: &str, scene: &Scene) -> Result<Self, String> {
        let (real, ttmem) = both()?;
        Terminal::locate()?;
        let rig = || {
            let mut program = real.start_script("n300", scene.script, scene.options)?;
            let tables = tempfile::tempdir()?;
            let (pid, folder) = (program.pid().to_string(), tables.path().display().to_string());
            let options = ["--wait", "--refresh", "50", "--table-dir", &folder];
            let arguments = [&["attach", "--pid", &pid], &options[..]].concat();
            let terminal = Terminal::start_sized(&ttmem, name, scene.size, &arguments)?;
            reach(&mut program, "start")?;
            terminal.until("the first report", |screen| screen.contains(" exact"))?;
            program.go_on()?;
            reach(&mut program, scene.checkpoint)?;
            let mut asking = Asking::connect(tables.path(), program.pid())?;
            let now = snapshot(&mut asking)?;
            anyhow::Ok(Self { program, terminal, asking, now, _tables: tables })
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

/// Lets the program go on until it waits at a checkpoint.
fn reach(program: &mut Program, checkpoint: &str) -> Result<()> {
    loop {
        let record: Value = program.record()?.context("the script has ended")?;
        if record["checkpoint"] == checkpoint {
            return Ok(());
        }
        program.go_on()?;
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
    let rig = or_skip!(Rig::start("agrees", &INTERLEAVED));
    let pools = rig.view("1", |screen| compare_pools(screen, &rig.now)).unwrap();
    let rows = rig.view("2", |screen| compare_buffers(screen, rig.buffers())).unwrap();
    rig.view("3", |screen| map(screen, &rig.now)).unwrap();
    rig.view("5", |screen| timeline(screen, &rig.now)).unwrap();
    rig.view("6", |screen| threads(screen, rig.buffers().len())).unwrap();
    rig.view("6", |screen| sizes(screen, rig.buffers())).unwrap();
    let events = rig.view("8", |screen| compare_events(screen, rig.buffers())).unwrap();
    println!("{pools} pools, {rows} buffers and {events} changes are as JSON says");
    assert!(pools >= 6 && rows > 10 && events > 10);
    rig.view("9", health).unwrap();
    rig.terminal.keys(&["q"]).unwrap();
    rig.terminal.given_back("0").unwrap();
    assert!(rig.program.finish().unwrap().success());
}

/// What is free of the pool that is shown.
fn map(screen: &str, snapshot: &Value) -> Result<()> {
    let title = screen.lines().find(|line| line.contains("  allocator 0 of mesh "));
    let kind = title.and_then(|line| line.split_whitespace().next()).context("no title")?;
    let spaces = snapshot["allocators"].as_array().context("allocators")?;
    let space = spaces.iter().find(|space| space["type"] == kind).context("no such pool")?;
    let expected = format!(
        " free {}  holes {}  largest {} ",
        bytes(&space["free_bank_bytes"])?,
        space["holes"],
        bytes(&space["largest_free_bank_bytes"])?,
    );
    ensure!(screen.contains(&expected), "no {expected:?}:\n{screen}");
    Ok(())
}

/// What the cursor of the map is on: every buffer and hole that JSON has there.
fn cursor(screen: &str, snapshot: &Value) -> Result<&'static str> {
    let kind = screen.lines().find(|line| line.contains("  allocator "));
    let kind = kind.and_then(|line| line.split_whitespace().next()).context("no title")?;
    let line = screen.lines().map(str::trim).find(|line| line.contains("–0x"));
    let (what, range) = line.and_then(|line| line.rsplit_once("  (")).context("no cursor")?;
    let (start, end) = range.trim_end_matches(')').split_once('–').context("no range")?;
    let address = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
    let (start, end) = (address(start)?, address(end)?);
    let buffers = snapshot["buffers"].as_array().context("buffers")?.iter();
    let there: Vec<&Value> = buffers
        .filter(|buffer| {
            let first = buffer["address"].as_u64().unwrap_or(0);
            let behind = first + buffer["bank_bytes"].as_u64().unwrap_or(0);
            buffer["type"] == kind && first < end && behind > start
        })
        .collect();
    match &there[..] {
        [] => ensure!(what.starts_with("hole at 0x"), "nothing is there, but {line:?}"),
        [one] => {
            let address = one["address"].as_u64().context("address")?;
            let (id, size) = (&one["unique_id"], bytes(&one["size"])?);
            let bank = bytes(&one["bank_bytes"])?;
            let said = format!("buffer id {id} at {address:#x}, {bank} per bank, {size} in all");
            ensure!(what == said, "{said:?} instead of {line:?}");
        }
        many => {
            let said = format!("{} buffers, ", many.len());
            ensure!(what.starts_with(&said), "{said:?} instead of {line:?}");
        }
    }
    Ok(if there.is_empty() { "hole" } else { "buffer" })
}

/// How many live buffers have at least 2^n bytes, and less than twice that.
fn sizes(screen: &str, buffers: &[Value]) -> Result<()> {
    let mut lines = screen.lines().skip_while(|line| !line.contains(": live, by size"));
    let title = lines.next().context("no title")?;
    let kind = title.trim().split(':').next().context("no type")?;
    let mut expected = std::collections::BTreeMap::new();
    for buffer in buffers.iter().filter(|buffer| buffer["type"] == kind) {
        let log = buffer["size"].as_u64().context("size")?.ilog2();
        *expected.entry(bytes(&json!(1_u64 << log))?).or_insert(0) += 1;
    }
    let bar = |line: &str| {
        let left: String = line.chars().take(40).collect();
        let words: Vec<&str> = left.split_whitespace().collect();
        let [start, unit, .., count] = words[..] else { return None };
        Some((format!("{start} {unit}"), count.parse::<usize>().ok()?))
    };
    let shown: Vec<_> = lines.map_while(bar).filter(|(_, count)| *count > 0).collect();
    ensure!(shown.len() == expected.len(), "{shown:?} instead of {expected:?}:\n{screen}");
    for (start, count) in shown {
        ensure!(expected.get(&start) == Some(&count), "{start}: {count}, {expected:?}\n{screen}");
    }
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

/// The words of the rows of a table, behind its headings.
fn rows<'a>(screen: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let rows = screen.lines().skip_while(|line| !line.contains(heading)).skip(1);
    let words = |row: &'a str| row.trim_start_matches('▶').split_whitespace().collect::<Vec<_>>();
    rows.map(words).take_while(|row| row.first().is_some_and(|word| *word != "q")).collect()
}

/// A count as it is shown, of few digits.
fn number(value: &Value) -> Result<String> {
    Ok(value.as_u64().with_context(|| format!("no count: {value}"))?.to_string())
}

/// Each program's row, and of each chip what bounds its circular buffers.
fn circular(screen: &str, snapshot: &Value) -> Result<usize> {
    let programs = snapshot["programs"].as_array().context("programs")?;
    let rows = rows(screen, "bytes/core");
    for program in programs {
        let id = format!("{:#x}", program["program"].as_u64().context("program")?);
        let Some(row) = rows.iter().find(|row| row[0] == id) else { continue };
        let buffers = program["buffers"].as_array().context("buffers")?.len();
        let end = program["end"].as_u64().context("end")?;
        let expected = format!(
            "{id} {} {} {} {buffers} {end:#x} ",
            bytes(&program["core_bytes"])?,
            bytes(&program["chip_bytes"])?,
            number(&program["cores"])?,
        );
        let shown = row.join(" ") + " ";
        ensure!(shown.starts_with(&expected), "{expected:?} is not in {shown:?}");
    }
    let position = format!(" of {}", programs.len());
    ensure!(screen.contains(&position), "no {position:?}:\n{screen}");
    for device in snapshot["devices"].as_array().context("devices")? {
        let headroom = &device["circular"]["headroom"];
        let chip = device["chip"].to_string();
        let line = screen.lines().find(|line| {
            line.contains(" program 0x") && line.split_whitespace().next() == Some(&chip)
        });
        let line = line.with_context(|| format!("no chip {chip}:\n{screen}"))?;
        let program = headroom["program"].as_u64().context("program")?;
        let end = headroom["circular_end"].as_u64().context("circular_end")?;
        let lowest = headroom["lowest_buffer"].as_u64().context("lowest_buffer")?;
        for expected in [
            bytes(&headroom["bytes"])?,
            format!("program {program:#x} to {end:#x}, buffer at {lowest:#x}"),
        ] {
            ensure!(line.contains(&expected), "no {expected:?} in {line:?}");
        }
    }
    Ok(rows.len())
}

#[test]
fn circular_buffers_agree_with_json() {
    let scene = Scene {
        script: "programs.py",
        options: &["--mesh", "1x2"],
        checkpoint: "ran",
        size: (160, 40),
    };
    let rig = or_skip!(Rig::start("circular", &scene));
    let compared = rig.view("4", |screen| circular(screen, &rig.now)).unwrap();
    println!("{compared} programs and 2 chips are as JSON says");
    assert!(compared > 5);
    rig.view("3", |screen| map(screen, &rig.now)).unwrap();
    let steps = ["Home", "Right", "Down", "Down", "PPage", "End", "Left", "Up", "]", "Home", "End"];
    let found: Vec<&str> =
        steps.map(|key| rig.view(key, |it| cursor(it, &rig.now)).unwrap()).into();
    assert!(found.contains(&"hole") && found.contains(&"buffer"), "{found:?}");
    rig.terminal.keys(&["q"]).unwrap();
    rig.terminal.given_back("0").unwrap();
}

/// Each failure's row.
fn failures(screen: &str, all: &[Value], live: usize) -> Result<()> {
    let rows = rows(screen, "live then");
    ensure!(rows.len() == all.len(), "{} failures, but\n{screen}", all.len());
    for failure in all {
        let id = failure["id"].to_string();
        let row = rows.iter().find(|row| row[0] == id).context("no such failure")?;
        let chips = failure["chips"].as_array().context("chips")?;
        ensure!(chips.len() == 2, "{failure}");
        let expected = format!(
            "{} {} {} {} {} 0-1 {} ",
            failure["type"].as_str().context("type")?,
            bytes(&failure["size"])?,
            bytes(&failure["bank_bytes"])?,
            bytes(&failure["bank_free_bytes"])?,
            bytes(&failure["bank_largest_free_bytes"])?,
            failure["tid"],
        );
        let shown = row[2..].join(" ");
        ensure!(shown.starts_with(&expected), "{expected:?} instead of {shown:?}");
    }
    // The newest comes first, and nothing has come or gone since.
    ensure!(rows[0].last() == Some(&&*live.to_string()), "{live} were live, but {:?}", rows[0]);
    Ok(())
}

/// What was live at a failure is what JSON says of that instant.
#[test]
fn failures_agree_with_json() {
    let scene = Scene {
        script: "exactness.py",
        options: &["--mesh", "1x2", "--phases", "out_of_memory"],
        checkpoint: "out_of_memory/L1",
        size: (160, 40),
    };
    let mut rig = or_skip!(Rig::start("failures", &scene));
    let live = rig.buffers().to_vec();
    let answer = rig.asking.ask(&json!({ "get": "failures" })).unwrap();
    let all = answer["last"].as_array().unwrap();
    assert_eq!(all.len(), 2, "{answer}");
    rig.view("7", |screen| failures(screen, all, live.len())).unwrap();
    rig.view("Enter", |screen| {
        ensure!(screen.contains("what was live, exact"), "not open:\n{screen}");
        let row = |words: Vec<&str>| {
            let address = words[5].strip_prefix("0x").context("no address")?;
            Ok(Row {
                what: None,
                size: format!("{} {}", words[0], words[1]),
                kind: words[4].to_owned(),
                address: u64::from_str_radix(address, 16)?,
            })
        };
        let shown: Vec<Row> =
            rows(screen, " per bank").into_iter().map(row).collect::<Result<_>>()?;
        let expected = expected_rows(&live)?;
        ensure!(shown.len() == expected.len(), "{} of {}:\n{screen}", shown.len(), expected.len());
        for row in &shown {
            ensure!(expected.contains(row), "{row:?} was not live");
        }
        Ok(())
    })
    .unwrap();
    println!("2 failures and {} buffers that were live are as JSON says", live.len());
    rig.terminal.keys(&["q"]).unwrap();
    rig.terminal.given_back("0").unwrap();
}

/// Back to a checkpoint at which the program waited: the overview and the buffers are as they were.
#[test]
fn back_in_time_is_as_it_was() {
    let mut rig = or_skip!(Rig::start("back", &INTERLEAVED));
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

/// What is held with the overview open is what every view shows, whatever the program does then.
#[test]
fn what_is_held_is_held_in_every_view() {
    let scene = Scene { size: (160, 40), ..INTERLEAVED };
    let mut rig = or_skip!(Rig::start("held", &scene));
    rig.view("1", |screen| compare_use(screen, &rig.now)).unwrap();
    rig.terminal.keys(&["z"]).unwrap();
    rig.terminal.until("it is held", |screen| screen.contains(" frozen: z goes on")).unwrap();
    let then = rig.now.clone();
    rig.program.go_on().unwrap();
    rig.program.until("interleaved/large").unwrap();
    rig.now = snapshot(&mut rig.asking).unwrap();
    assert_ne!(then["devices"], rig.now["devices"]);
    let buffers = then["buffers"].as_array().unwrap();
    rig.view("2", |screen| compare_buffers(screen, buffers)).unwrap();
    rig.view("3", |screen| map(screen, &then)).unwrap();
    let found = ["Home", "Right", "Down", "]", "Home", "End", "Left"]
        .map(|key| rig.view(key, |screen| cursor(screen, &then)).unwrap());
    assert!(found.contains(&"hole") && found.contains(&"buffer"), "{found:?}");
    rig.view("4", |screen| {
        ensure!(screen.contains("no program with circular buffers was seen"), "{screen}");
        Ok(())
    })
    .unwrap();
    rig.view("6", |screen| threads(screen, buffers.len())).unwrap();
    rig.view("8", |screen| compare_events(screen, buffers)).unwrap();
    rig.view("1", |screen| compare_use(screen, &then)).unwrap();
    rig.terminal.keys(&["z"]).unwrap();
    rig.view("2", |screen| compare_buffers(screen, rig.buffers())).unwrap();
    rig.view("1", |screen| compare_use(screen, &rig.now)).unwrap();
    rig.terminal.keys(&["q"]).unwrap();
    rig.terminal.given_back("0").unwrap();
}

#[test]
fn a_killed_target_leaves_its_last_state() {
    let rig = or_skip!(Rig::start("killed", &INTERLEAVED));
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
    let rig = or_skip!(Rig::start("sizes", &INTERLEAVED));
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
