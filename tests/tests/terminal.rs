//! The live view on a real terminal: what it shows, and that it gives the terminal back.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{
    or_skip,
    standin::{Driver, Standin},
    ttmem::Ttmem,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long the screen may take to become what is expected.
const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal of its own, in a tmux server of its own. Ended when dropped.
struct Terminal {
    socket: String,
    folder: tempfile::TempDir,
}

/// Runs ttmem between two notes of the terminal's settings, then keeps the terminal.
const SCRIPT: &str = r#"
cd "$FOLDER"
echo "the line before"
stty -g > before
"$TTMEM" attach --pid "$TARGET" --refresh 50 2> errors &
echo $! > pid
fg > /dev/null
echo $? > code
stty -g > after
touch done
cat
"#;

impl Terminal {
    fn start(ttmem: &Ttmem, driver: &Driver, name: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = format!("ttmem-test-{}-{name}", std::process::id());
        let terminal = Self { socket, folder };
        let script = terminal.file("script");
        fs::write(&script, SCRIPT)?;
        let variables = [
            format!("FOLDER={}", terminal.folder.path().display()),
            format!("TTMEM={}", ttmem.path().display()),
            format!("TARGET={}", driver.pid()),
        ];
        let script = script.display().to_string();
        let mut command = vec!["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24"];
        command.push("env");
        command.extend(variables.iter().map(String::as_str));
        // Monitor mode gives ttmem the foreground, and the script its process id.
        command.extend(["bash", "-m", &script]);
        terminal.tmux(&command)?;
        Ok(terminal)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.socket]).args(arguments);
        let output = command.output().context("tmux")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {arguments:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Waits until the screen is as expected. There is no event for that: it is looked at.
    fn until(&self, what: &str, expected: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen()?;
            if expected(&screen) {
                return Ok(screen);
            }
            if Instant::now() > deadline {
                let errors = fs::read_to_string(self.file("errors")).unwrap_or_default();
                bail!("{what} did not come; {errors}\n{screen}");
            }
            std::thread::yield_now();
        }
    }

    fn signal_ttmem(&self, signal: Signal) -> Result<()> {
        let pid = fs::read_to_string(self.file("pid"))?.trim().parse()?;
        Ok(kill_process(Pid::from_raw(pid).context("pid")?, signal)?)
    }

    /// Checks that ttmem has ended with this code, and left the terminal as it was.
    fn given_back(&self, code: &str) -> Result<()> {
        let screen = self.until("the line before", |screen| screen.contains("the line before"))?;
        let deadline = Instant::now() + PATIENCE;
        while !self.file("done").exists() {
            ensure!(Instant::now() < deadline, "ttmem did not end: {screen}");
            std::thread::yield_now();
        }
        let read = |name| fs::read_to_string(self.file(name));
        ensure!(read("code")?.trim() == code, "exit code {}, {}", read("code")?, read("errors")?);
        ensure!(read("errors")?.is_empty(), "{}", read("errors")?);
        ensure!(read("before")? == read("after")?, "{} {}", read("before")?, read("after")?);
        let flags = "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{mouse_sgr_flag}";
        let modes = self.tmux(&["display-message", "-p", flags])?;
        ensure!(modes.trim() == "0 1 0 0", "alternate screen, cursor, mouse: {modes}");
        ensure!(!self.screen()?.contains("chip 0"), "{}", self.screen()?);
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}

/// A driver with something of every kind, that stays as it is.
fn still_target() -> Result<Driver, String> {
    let prepare = |standin: Standin| {
        let mut driver = standin.start()?;
        driver.all_ok(&[
            "open mesh 0 2 name=m",
            "open device 4 arch=blackhole name=d",
            "alloc a m DRAM 1073741824 2048",
            "alloc b m L1 41943040 2048",
            "alloc c m L1_SMALL 4096 1024",
            "alloc e d TRACE 1048576 2048",
            "alloc f d SYSTEM_MEMORY 200000000 2000",
        ])?;
        anyhow::Ok(driver)
    };
    prepare(Standin::locate("pimpl")?).map_err(|error| format!("{error:#}"))
}

/// A terminal that shows the still target.
fn shown(name: &str) -> Result<(Terminal, Driver, Ttmem), String> {
    let ttmem = Ttmem::locate()?;
    Command::new("tmux").arg("-V").output().map_err(|error| format!("no tmux: {error}"))?;
    let driver = still_target()?;
    let start = || {
        let terminal = Terminal::start(&ttmem, &driver, name)?;
        // A dash stands for a rate that is not known yet; what programs keep stays unknown, since
        // the target is older.
        terminal.until("the first chips and rates", |screen| {
            let chips = screen.contains("chip 0") && screen.contains("running");
            let names = ["DRAM", "L1", "SYSMEM", "L1_SMALL", "TRACE"];
            let name = |line: &str| line.split_whitespace().next().map(str::to_owned);
            let is_pool = |line: &&str| name(line).is_some_and(|name| names.contains(&&*name));
            let mut pools = screen.lines().filter(is_pool);
            chips && screen.contains(" exact") && !pools.any(|line| line.contains('–'))
        })?;
        anyhow::Ok(terminal)
    };
    Ok((start().map_err(|error| format!("{error:#}")).unwrap(), driver, ttmem))
}

/// A byte count as people read it: binary units, rounded down.
fn bytes(count: &Value) -> Result<String> {
    let count = count.as_u64().context("no byte count")?;
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while count >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let tenths = (u128::from(count) * 10) >> (10 * unit);
    Ok(if unit == 0 || tenths >= 10_000 {
        format!("{} {}", tenths / 10, units[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
    })
}

/// The lines that follow a chip's title.
fn lines_of_chip(screen: &str, chip: i64) -> Vec<&str> {
    let title = format!("── chip {chip} ");
    let mut lines = screen.lines().skip_while(|line| !line.contains(&title));
    lines.next();
    lines.take_while(|line| !line.contains("── chip ")).collect()
}

/// Compares what the screen says of a pool with JSON; on 80 columns all columns are there.
fn compare_pool(screen: &str, chip: i64, pool: &Value) -> Result<()> {
    let kind = pool["type"].as_str().context("no type")?;
    let name = if kind == "SYSTEM_MEMORY" { "SYSMEM" } else { kind };
    let lines = lines_of_chip(screen, chip);
    let line = lines
        .iter()
        .find(|line| line.split_whitespace().next() == Some(name))
        .with_context(|| format!("chip {chip} {name} is not shown:\n{screen}"))?;
    let (used, capacity) = (pool["used_bytes"].as_u64(), pool["capacity_bytes"].as_u64());
    let (used, capacity) = used.zip(capacity).context("unknown")?;
    let tenths = u128::from(used) * 1000 / u128::from(capacity);
    let percent = match tenths {
        0 if used > 0 => "<0.1%".to_owned(),
        _ => format!("{}.{}%", tenths / 10, tenths % 10),
    };
    let expected = format!(
        "{percent} {} / {} {} {} 0",
        bytes(&pool["used_bytes"])?,
        bytes(&pool["capacity_bytes"])?,
        bytes(&pool["peak_used_bytes"])?,
        pool["buffers"],
    );
    let shown = line.replace('!', " ");
    let shown = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(shown.ends_with(&format!(" {expected}")), "{expected:?} is not in {line:?}");
    Ok(())
}

/// Scrolled from the top to the bottom, each pool is compared where its chip is whole.
#[test]
fn the_screen_agrees_with_json() {
    let (terminal, driver, ttmem) = or_skip!(shown("agrees"));
    let json = ttmem.once(driver.pid()).unwrap();
    assert_eq!(json["exact"], true, "{json}");
    let mut compared = 0;
    for device in json["devices"].as_array().unwrap() {
        let chip = device["chip"].as_i64().unwrap();
        let pools = device["pools"].as_array().unwrap();
        let whole = |screen: &str| lines_of_chip(screen, chip).len() >= pools.len();
        terminal.keys(&[if chip == 4 { "End" } else { "Home" }]).unwrap();
        let screen = terminal.until(&format!("chip {chip}"), whole).unwrap();
        for pool in pools {
            compare_pool(&screen, chip, pool).unwrap();
            compared += 1;
        }
    }
    assert_eq!(compared, 15, "3 chips with 5 pools");
    println!("{compared} pools: percentage, used, capacity, peak, buffers and rate agree");
    assert!(terminal.screen().unwrap().contains(&format!("pid {}", driver.pid())));
}

#[test]
fn help_opens_and_q_quits() {
    let (terminal, driver, _) = or_skip!(shown("quits"));
    terminal.keys(&["?"]).unwrap();
    let help = "quit; the target runs on";
    terminal.until("the help", |screen| screen.contains(help)).unwrap();
    terminal.keys(&["?"]).unwrap();
    terminal.until("the overview", |screen| !screen.contains(help)).unwrap();
    terminal.keys(&["q"]).unwrap();
    terminal.given_back("0").unwrap();
    assert!(driver.end_with("quit").unwrap().success());
}

#[test]
fn signals_give_the_terminal_back() {
    for (name, signal) in [("term", Signal::TERM), ("int", Signal::INT), ("hup", Signal::HUP)] {
        let (terminal, _driver, _) = or_skip!(shown(name));
        terminal.signal_ttmem(signal).unwrap();
        terminal.given_back("0").with_context(|| name).unwrap();
    }
}

#[test]
fn the_targets_last_state_stays() {
    let (terminal, driver, _) = or_skip!(shown("last"));
    let before = terminal.screen().unwrap();
    let pools = lines_of_chip(&before, 0).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(driver.end_with("quit").unwrap().success());
    let after = terminal.until("the end", |screen| screen.contains("target exited")).unwrap();
    assert_eq!(lines_of_chip(&after, 0), pools);
    terminal.keys(&["q"]).unwrap();
    terminal.given_back("0").unwrap();
}

#[test]
fn any_size_will_do() {
    let (terminal, _driver, _) = or_skip!(shown("sizes"));
    let before = terminal.screen().unwrap();
    for (width, height) in [("20", "5"), ("1", "1"), ("40", "8"), ("200", "60")] {
        terminal.tmux(&["resize-window", "-x", width, "-y", height]).unwrap();
        let expected = match width {
            "20" => "terminal too small",
            "1" => "t",
            "40" => "chip 0",
            _ => "chip 4",
        };
        terminal.until(&format!("{width}x{height}"), |screen| screen.contains(expected)).unwrap();
    }
    terminal.tmux(&["resize-window", "-x", "80", "-y", "24"]).unwrap();
    terminal.until("the same as before", |screen| screen == before).unwrap();
    terminal.keys(&["q"]).unwrap();
    terminal.given_back("0").unwrap();
}
