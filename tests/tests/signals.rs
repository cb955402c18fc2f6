//! What signals do at any moment: those that ttmem is to ignore, and those that come early.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use e2e::{
    or_skip,
    refusal::Program,
    sharing::Service,
    standin::Standin,
    ttmem::{PATIENCE, Ttmem, ended_within},
    until::until,
};
use rustix::process::Signal;

/// As `nohup` does, and a shell without job control in the background.
#[test]
fn what_ttmem_was_started_to_ignore_does_not_end_it() {
    let ttmem = or_skip!(Ttmem::locate());
    let driver = or_skip!(Standin::locate("pimpl")).start().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" HUP INT; exec "$@""#, "sh"]).arg(ttmem.path());
    let pid = driver.pid().to_string();
    command.args(ttmem.typed(&["attach", "--format", "json", "-r", "30", "--pid", &pid]));
    let mut watch = ttmem.follow(command).unwrap();
    watch.next().unwrap().expect("a line");
    watch.signal(Signal::HUP).unwrap();
    watch.signal(Signal::INT).unwrap();
    // More than there can be on the way when it has ended.
    for _ in 0..10 {
        watch.next().unwrap().expect("it ended");
    }
    watch.signal(Signal::TERM).unwrap();
    let (_, status) = watch.finish().unwrap();
    assert!(status.success(), "{status}");
}

/// Waits until a process has a handler for a signal. There is no event for that: it is looked at.
fn handles(pid: u32, signal: Signal) -> Result<()> {
    until(&format!("it does not listen to {signal:?}"), || {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mut lines = status.lines();
        let caught = lines.find_map(|line| line.strip_prefix("SigCgt:")).context("SigCgt")?;
        let handled = u64::from_str_radix(caught.trim(), 16)? >> (signal.as_raw() - 1) & 1 == 1;
        Ok(handled.then_some(()))
    })
}

#[test]
fn a_reading_that_is_asked_for_before_there_is_a_target_ends_nothing() {
    let ttmem = or_skip!(Ttmem::locate());
    let program = Program::start(Path::new("cat"), &[]).unwrap();
    let pid = program.pid().to_string();
    let mut command = ttmem.command(&["attach", "--wait", "--headless", "--pid", &pid]);
    let mut waiting = Service(command.stdout(Stdio::null()).spawn().unwrap());
    handles(waiting.0.id(), Signal::USR1).unwrap();
    waiting.signal(Signal::USR1).unwrap();
    waiting.signal(Signal::TERM).unwrap();
    assert_eq!(ended_within(&mut waiting.0, PATIENCE).unwrap().code(), Some(2));
}

#[test]
fn a_signal_that_comes_as_the_command_begins_reaches_it() {
    let ttmem = or_skip!(Ttmem::locate());
    let script = "trap 'exit 9' TERM; kill -TERM $PPID; while :; do sleep 0.01; done";
    let output = ttmem.run(&["run", "--headless", "-o", "/dev/null", "--", "sh", "-c", script]);
    assert_eq!(output.unwrap().status.code(), Some(9));
}
