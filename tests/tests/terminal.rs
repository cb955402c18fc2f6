//! The live view on a real terminal: what it shows, and that it gives the terminal back.

use std::process::{Command, Stdio};

use anyhow::Context as _;
use e2e::{
    or_skip,
    shown::{compare_pool, lines_of_chip},
    standin::{Driver, Standin},
    terminal::Terminal,
    ttmem::Ttmem,
};
use rustix::process::{Pid, Signal, kill_process};

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
    Terminal::locate()?;
    let driver = still_target()?;
    let start = || {
        let pid = driver.pid().to_string();
        let arguments = ["attach", "--pid", &pid, "--refresh", "50"];
        let terminal = Terminal::start(&ttmem, name, &arguments)?;
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

/// By the key and by the signal, and back again.
#[test]
fn it_stops_as_any_program_of_a_shell_and_goes_on() {
    for (name, by_key) in [("suspended", true), ("stopped", false)] {
        let (terminal, _driver, _) = or_skip!(shown(name));
        if by_key {
            terminal.keys(&["C-z"]).unwrap();
        } else {
            terminal.signal_ttmem(Signal::TSTP).unwrap();
        }
        terminal.given_back("148").with_context(|| name).unwrap();
        terminal.keys(&["fg", "Enter"]).unwrap();
        terminal.until("the view again", |screen| screen.contains("chip 0")).unwrap();
        terminal.keys(&["q"]).unwrap();
        terminal.until("the shell", |screen| screen.contains("the line before")).unwrap();
    }
}

/// However the target ends, what it was like last stays, and the terminal is given back after that.
#[test]
fn the_targets_last_state_stays() {
    for (name, is_killed) in [("last", false), ("killed", true)] {
        let (terminal, driver, _) = or_skip!(shown(name));
        let before = terminal.screen().unwrap();
        let pools = lines_of_chip(&before, 0).iter().map(ToString::to_string).collect::<Vec<_>>();
        if is_killed {
            let pid = i32::try_from(driver.pid()).unwrap();
            kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        } else {
            assert!(driver.end_with("quit").unwrap().success());
        }
        let after = terminal.until("the end", |screen| screen.contains("target exited")).unwrap();
        assert_eq!(lines_of_chip(&after, 0), pools, "{name}");
        terminal.keys(&["q"]).unwrap();
        terminal.given_back("0").unwrap();
    }
}

/// A terminal of no size, as that of some containers and serial lines, and one without a name.
#[test]
fn odd_terminals_will_do_or_are_refused() {
    let ttmem = or_skip!(Ttmem::locate());
    let driver = or_skip!(still_target());
    let pid = driver.pid().to_string();
    let shown = |term: &str, options: &str| {
        let attach = format!("{} attach --pid {pid} --no-table {options}", ttmem.path().display());
        // `script` gives it a terminal, of no size where it has none itself.
        let mut command = Command::new("script");
        command.args(["-qec", &format!("stty size; {attach}"), "/dev/null"]);
        let output = command.env("TERM", term).stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let sizeless = shown("xterm", "--duration 1 -r 50");
    assert!(sizeless.contains("0 0") && sizeless.contains("chip 0"), "{sizeless:?}");
    for term in ["dumb", ""] {
        let refused = shown(term, "");
        assert!(refused.contains("add --headless"), "{refused:?}");
        let plain = shown(term, "--once");
        assert!(plain.contains("DRAM") && !plain.contains('\u{1b}'), "{plain:?}");
    }
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
