//! `ttmem run`: the command is what it would be without, and its output is shown or left alone.

use std::{
    fs,
    io::Read as _,
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    sharing::Service,
    standin::{Driver, Standin},
    terminal::{Terminal, Tmux},
    ttmem::{PATIENCE, Ttmem, ended_within, threads},
    until::until,
};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

fn code(ttmem: &Ttmem, words: &[&str]) -> Option<i32> {
    ttmem.run(&[&["run", "--headless", "--"], words].concat()).unwrap().status.code()
}

#[test]
fn the_exit_code_is_the_commands() {
    let ttmem = or_skip!(Ttmem::locate());
    assert_eq!(code(&ttmem, &["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&ttmem, &["sh", "-c", "kill -TERM $$"]), Some(128 + 15));
    assert_eq!(code(&ttmem, &["/no/such/command"]), Some(127));
}

#[test]
fn without_the_view_the_streams_are_untouched() {
    let ttmem = or_skip!(Ttmem::locate());
    let script = r"printf 'out\r\033[1m\000\377'; printf 'err\r\007' >&2";
    let output = ttmem.run(&["run", "--headless", "-o", "/dev/null", "--", "sh", "-c", script]);
    let output = output.unwrap();
    assert_eq!(output.stdout, b"out\r\x1b[1m\0\xff");
    assert_eq!(output.stderr, b"err\r\x07");
}

#[test]
fn where_nothing_can_be_written_the_command_still_runs_to_its_end() {
    let ttmem = or_skip!(Ttmem::locate());
    let run = |script| {
        ttmem.run(&["run", "--headless", "-o", "/dev/full", "--", "sh", "-c", script]).unwrap()
    };
    let output = run("echo done; exit 7");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(7), &b"done\n"[..]));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("cannot write to /dev/full"), "{error}");
    assert_eq!(run("exit 0").status.code(), Some(1), "the output is not complete");
}

#[test]
fn behind_its_time_signals_still_reach_the_command() {
    let ttmem = or_skip!(Ttmem::locate());
    // It ends in any case: nobody does it for it, should ttmem be killed.
    let script = "trap 'exit 9' TERM; echo ready; for i in $(seq 6000); do sleep 0.01; done";
    let options = ["run", "--headless", "--duration", "0.1", "-o", "/dev/null", "--", "sh", "-c"];
    let mut command = ttmem.command(&options);
    let mut child = Service(command.arg(script).stdout(Stdio::piped()).spawn().unwrap());
    let mut ready = [0; 6];
    child.0.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    let threads = format!("/proc/{}/task", child.0.id());
    // Its threads go with the probes.
    until("it goes on watching", || Ok((fs::read_dir(&threads)?.count() <= 1).then_some(())))
        .unwrap();
    child.signal(Signal::TERM).unwrap();
    assert_eq!(ended_within(&mut child.0, PATIENCE).unwrap().code(), Some(9));
}

/// The first line of a file for which `is_it` holds. There is no event for that: it is looked at.
fn line_of(file: &std::path::Path, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(file).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        if let Some(line) = lines.find(&is_it) {
            return Ok(line);
        }
        ensure!(Instant::now() < deadline, "it did not come: {text}");
        std::thread::yield_now();
    }
}

#[test]
fn it_is_exact_from_the_first_instruction() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines");
    let (lines, program) = (file.display().to_string(), standin.driver().display().to_string());
    let options = ["run", "--refresh", "50", "--format", "json", "-o", &lines, "--", &program];
    let mut command = ttmem.command(&options);
    let (mut driver, pid) = Driver::start_by(&mut command).unwrap();
    line_of(&file, |line| line["pid"] == pid && line["state"] == "running").unwrap();
    driver
        .all_ok(&[
            "open mesh 0 2 name=m",
            "alloc a m DRAM 1048576 2048",
            "alloc b m L1 65536 2048",
            "alloc c m DRAM 4096 2048",
            "free b",
        ])
        .unwrap();
    assert!(driver.end_with("quit").unwrap().success());
    let last = line_of(&file, |line| line["pid"] == pid && line["state"] == "exited").unwrap();
    assert_eq!(last["exact"], true, "{last}");
    assert_eq!(last["anomalies"]["unknown_free"], 0, "{last}");
    let count = |counter: &str| {
        let pools = last["devices"][0]["pools"].as_array().unwrap();
        pools.iter().map(|pool| pool[counter].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!((count("allocations"), count("frees"), count("buffers")), (3, 1, 2), "{last}");
}

/// A terminal in which a command is run and shown.
struct Shown(Tmux);

impl Shown {
    fn until(&self, expected: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.0.screen().context("screen")?;
            if expected(&screen) {
                return Ok(screen);
            }
            ensure!(Instant::now() < deadline, "it did not come:\n{screen}");
            std::thread::yield_now();
        }
    }
}

/// Seconds.
const NEVER_OVER: &str = "100000";

fn shown(name: &str, script: &str) -> Result<Shown, String> {
    shown_for(name, NEVER_OVER, script)
}

fn shown_for(name: &str, duration: &str, script: &str) -> Result<Shown, String> {
    let ttmem = Ttmem::locate()?;
    Tmux::locate()?;
    let path = ttmem.path().display().to_string();
    let run = r#""$0" run --no-table --duration "$2" -- sh -c "$1"; echo "the code is $?"; cat"#;
    let words = ["bash", "-c", run, &path, script, duration];
    let name = format!("run-{name}");
    Ok(Shown(Tmux::start(&name, (80, 24), &words).map_err(|error| format!("{error:#}"))?))
}

#[test]
fn an_interrupt_ends_the_command_and_its_output_stays() {
    let script =
        r"trap 'echo got it; exit 9' INT; stty size; printf '1%%\r2%%\n'; while read x; do :; done";
    let shown = or_skip!(shown("interrupt", script));
    let view = shown.until(|screen| screen.contains("2%")).unwrap();
    assert!(view.contains("o hides") && view.contains("\n7 80\n"), "{view}");
    shown.0.call(&["send-keys", "C-c"]).unwrap();
    let after = shown.until(|screen| screen.contains("the code is 9")).unwrap();
    assert!(after.contains("7 80\n2%\n") && after.contains("got it\n"), "{after}");
    assert!(!after.contains("o hides") && !after.contains("1%"), "{after}");
}

/// What the command writes is taken apart by a thread that could do nothing with the rights of root.
#[test]
fn behind_the_view_only_the_thread_that_attaches_keeps_rights() {
    /// By its number in linux/capability.h.
    const KILL: u64 = 1 << 5;
    let ttmem = or_skip!(Ttmem::locate());
    or_skip!(Terminal::locate());
    let arguments = ["run", "--", "sh", "-c", "echo begun; read x"];
    let terminal = Terminal::start(&ttmem, "rights", &arguments).unwrap();
    terminal.until("the output", |screen| screen.contains("\nbegun\n")).unwrap();
    let threads = threads(terminal.ttmem_pid().unwrap()).unwrap();
    assert!(threads.iter().any(|thread| thread.name == "ttmem-output"), "{threads:?}");
    for thread in threads {
        assert!(thread.no_new_privileges, "{thread:?}");
        assert!(thread.name == "ttmem-agent" || thread.permitted & !KILL == 0, "{thread:?}");
    }
}

/// A command in a view that is there for so many seconds at most; it waits at a pipe.
struct Waiting {
    shown: Shown,
    pipe: PathBuf,
    _folder: TempDir,
}

impl Waiting {
    fn start(name: &str, duration: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let script = format!("echo before; cat {}; exit 3", pipe.display());
        let shown = shown_for(name, duration, &script)?;
        shown.until(|screen| screen.contains("o hides") && screen.contains("\nbefore\n")).unwrap();
        Ok(Self { shown, pipe, _folder: folder })
    }

    /// Waits until the view has closed, and lets the command go on.
    fn is_passed_on(&self) {
        let Self { shown, pipe, .. } = self;
        shown.until(|screen| screen.contains("before") && !screen.contains("o hides")).unwrap();
        fs::write(pipe, "after").unwrap();
        let screen = shown.until(|screen| screen.contains("the code is 3")).unwrap();
        assert!(screen.contains("before\nafter\nthe code is 3"), "{screen}");
    }
}

#[test]
fn once_the_view_is_closed_the_output_is_passed_on() {
    let waiting = or_skip!(Waiting::start("passed", NEVER_OVER));
    waiting.shown.0.call(&["send-keys", "q"]).unwrap();
    waiting.is_passed_on();
}

#[test]
fn when_its_time_is_over_the_view_closes_and_the_command_runs_on() {
    or_skip!(Waiting::start("over", "1")).is_passed_on();
}
