//! Running other programs: shown, streamed, and with an error that names the command.
//!
//! Only programs started here are ever ended here.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The cargo that runs xtask, so that every build is by one toolchain.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::paths::root());
    command
}

/// The command as it could be typed.
pub fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs the command with its output shown; an exit code other than 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    println!("    $ {}", show(command));
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot start `{}`", show(command)))?;
    if !status.success() {
        bail!("`{}` ended with {status}", show(command));
    }
    Ok(())
}

/// Runs the command up to `attempts` times, with a growing pause, for what may fail by the network.
pub fn run_retrying(attempts: u32, mut make: impl FnMut() -> Command) -> Result<()> {
    for attempt in 1..attempts {
        match run(&mut make()) {
            Ok(()) => return Ok(()),
            Err(error) => crate::say::warn(&format!("{error}; trying again")),
        }
        thread::sleep(Duration::from_secs(u64::from(attempt) * 5));
    }
    run(&mut make())
}

/// What the command wrote on standard output; an exit code other than 0 is an error.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start `{}`", show(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` ended with {}: {}", show(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether the command, unseen, ends with 0.
pub fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether the command, unseen, ends with 0 within `limit`; it is ended at the limit.
pub fn succeeds_within(command: &mut Command, limit: Duration) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let end = Instant::now() + limit;
    while Instant::now() < end {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => thread::sleep(Duration::from_millis(50)),
            Err(_) => return false,
        }
    }
    // It is this very child, not yet waited for: its id cannot have passed to another process.
    drop(child.kill());
    drop(child.wait());
    false
}

/// Runs the command, passes on both its outputs in their order, and shows each line to `look`.
pub fn tee(command: &mut Command, mut look: impl FnMut(&str)) -> Result<ExitStatus> {
    println!("    $ {}", show(command));
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let shown = show(command);
    command.stdin(Stdio::null()).stderr(writer.try_clone()?).stdout(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
    // `Command` keeps its ends of the pipe open, and the loop below would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    let mut out = std::io::stdout();
    while reader.read_until(b'\n', &mut line)? > 0 {
        out.write_all(&line)?;
        look(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    out.flush()?;
    child.wait().with_context(|| format!("cannot wait for `{shown}`"))
}

/// Sends a signal to a child of ours that has not been waited for, so that its id is still its own.
pub fn signal(child: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child).ok().and_then(Pid::from_raw);
    let pid = pid.with_context(|| format!("{child} is no process id"))?;
    kill_process(pid, signal).with_context(|| format!("cannot signal process {child}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_could_be_typed() {
        let mut command = Command::new("pip");
        command.args(["install", "numpy<2", "it's"]);
        assert_eq!(show(&command), r"pip install 'numpy<2' 'it'\''s'");
    }

    #[test]
    fn tee_sees_both_outputs_in_order() {
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        let status = tee(&mut command, |line| lines.push(line.to_owned())).unwrap();
        assert_eq!(lines, ["one", "two", "three"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn a_slow_command_is_ended_at_the_limit() {
        let start = Instant::now();
        let mut command = Command::new("sleep");
        assert!(!succeeds_within(command.arg("30"), Duration::from_millis(100)));
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
