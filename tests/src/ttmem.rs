//! Running the `ttmem` binary.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
    time::Timespec,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::skip;

/// The binary, and where its tables are: a folder of each test's own, so that a service that runs
/// on the machine, or another run of the tests, is neither seen nor in the way.
#[derive(Clone, Debug)]
pub struct Ttmem {
    path: PathBuf,
    tables: Arc<TempDir>,
}

impl Ttmem {
    /// The binary under test, or why the test cannot run.
    pub fn locate() -> Result<Self, String> {
        let path = skip::path_from("TTMEM_BIN")?;
        let tables = tempfile::tempdir().map_err(|error| format!("no folder: {error}"))?;
        Ok(Self { path, tables: Arc::new(tables) })
    }

    /// The binary's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is to be typed behind the binary's name: the arguments, and where the tables are, unless
    /// that is among them.
    pub fn typed(&self, arguments: &[&str]) -> Vec<OsString> {
        with_tables(arguments, self.tables.path())
    }

    /// A command line.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(self.typed(arguments)).stdin(Stdio::null());
        command
    }

    /// Runs to the end.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments).output().with_context(|| format!("ttmem {arguments:?}"))
    }

    /// One snapshot of a process by attaching to it, with the live set.
    pub fn once(&self, pid: u32) -> Result<Value> {
        let pid = pid.to_string();
        let output = self.run(&[
            "attach",
            "--pid",
            &pid,
            "--once",
            "--buffers",
            "--map",
            "--format",
            "json",
        ])?;
        last_json(&output)
    }

    /// One snapshot of a process from its memory, with the live set.
    pub fn snapshot(&self, pid: u32) -> Result<Value> {
        let output =
            self.run(&["snapshot", "--pid", &pid.to_string(), "--json", "--buffers", "--map"])?;
        last_json(&output)
    }

    /// Attaches, and goes on printing JSON.
    pub fn attach(&self, pid: u32, options: &[&str]) -> Result<Attached> {
        let pid = pid.to_string();
        let mut arguments = vec!["--pid", &pid];
        arguments.extend(options);
        self.attach_to(&arguments)
    }

    /// Attaches to what the options select, and goes on printing JSON.
    pub fn attach_to(&self, options: &[&str]) -> Result<Attached> {
        let mut arguments = vec!["attach", "--format", "json"];
        arguments.extend(options);
        self.begin(&arguments)
    }

    /// Begins a command that prints JSON.
    pub fn begin(&self, arguments: &[&str]) -> Result<Attached> {
        self.follow(self.command(arguments))
    }

    /// Begins a command line that ends up as such a command.
    pub fn follow(&self, mut command: Command) -> Result<Attached> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Attached { child, stdout, _tables: Arc::clone(&self.tables) })
    }
}

/// Commands that have tables, or look for them.
const WITH_TABLES: [&str; 5] = ["attach", "run", "serve", "watch", "ask"];

fn with_tables(arguments: &[&str], tables: &Path) -> Vec<OsString> {
    let mut typed: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    // What comes behind is the command's that is run.
    let mut own = arguments.iter().take_while(|argument| **argument != "--");
    let is_one = own.next().is_some_and(|command| WITH_TABLES.contains(command));
    if is_one && !own.any(|it| *it == "--no-table" || it.starts_with("--table-dir")) {
        typed.splice(1..1, [OsString::from("--table-dir"), tables.into()]);
    }
    typed
}

fn last_json(output: &Output) -> Result<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text
        .lines()
        .last()
        .with_context(|| format!("no output: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(serde_json::from_str(line)?)
}

/// Whether a snapshot holds every event up to `time_ns`, and the buffers from before the attach
/// have been read, or will not be.
fn is_done_at(line: &Value, time_ns: u64) -> bool {
    let is_done = line["inexact_because"].as_array().is_some_and(|reasons| {
        reasons.iter().all(|reason| reason != "older buffers are still being read")
    });
    is_done && line["time_ns"].as_u64().is_some_and(|time| time >= time_ns)
}

/// A running `ttmem attach --format json`. Killed when dropped.
#[derive(Debug)]
pub struct Attached {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// There as long as it writes to them.
    _tables: Arc<TempDir>,
}

impl Attached {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next snapshot; `None` at the end of the output.
    #[expect(clippy::should_implement_trait, reason = "its errors come first")]
    pub fn next(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        if self.stdout.buffer().is_empty() {
            readable_within(self.stdout.get_ref(), PATIENCE).context("no output of ttmem")?;
        }
        if self.stdout.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?))
    }

    /// The first snapshot that holds every event up to `time_ns` (CLOCK_MONOTONIC), and is done
    /// with the buffers from before the attach.
    pub fn at_or_after(&mut self, time_ns: u64) -> Result<Value> {
        self.find(|line| is_done_at(line, time_ns))
    }

    /// The first snapshot that is done with the buffers from before the attach.
    pub fn settled(&mut self) -> Result<Value> {
        self.at_or_after(0)
    }

    /// The first line for which `is_it` holds.
    pub fn find(&mut self, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            ensure!(Instant::now() < deadline, "no such line within {PATIENCE:?}");
            let line = self.next()?.context("ttmem ended")?;
            if is_it(&line) {
                return Ok(line);
            }
        }
    }

    /// The same as [`at_or_after`](Self::at_or_after), of a process.
    pub fn of_at(&mut self, pid: u32, time_ns: u64) -> Result<Value> {
        self.find(|line| line["pid"] == pid && is_done_at(line, time_ns))
    }

    /// The name of each of its threads, and the capabilities that it may still use.
    pub fn permitted(&self) -> Result<Vec<(String, u64)>> {
        let threads = threads(self.pid())?.into_iter();
        Ok(threads.map(|thread| (thread.name, thread.permitted)).collect())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for the end; returns the snapshots that were still to come, and the exit status.
    pub fn finish(mut self) -> Result<(Vec<Value>, ExitStatus)> {
        let mut rest = Vec::new();
        while let Some(snapshot) = self.next()? {
            rest.push(snapshot);
        }
        Ok((rest, ended_within(&mut self.child, PATIENCE)?))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the kernel says of a thread.
#[derive(Debug)]
pub struct Thread {
    /// Its name.
    pub name: String,
    /// The capabilities that it may use.
    pub permitted: u64,
    /// Whether it can gain no others by a program that it becomes.
    pub no_new_privileges: bool,
}

/// The threads of a process. One that ends meanwhile is left out.
pub fn threads(pid: u32) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let line = |key: &str| {
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix(key));
            line.map(str::trim).with_context(|| format!("no {key}"))
        };
        threads.push(Thread {
            name: line("Name:")?.to_owned(),
            permitted: u64::from_str_radix(line("CapPrm:")?, 16)?,
            no_new_privileges: line("NoNewPrivs:")? == "1",
        });
    }
    Ok(threads)
}

/// CLOCK_MONOTONIC, nanoseconds: the clock of `time_ns`.
pub fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// How long anything may take before it counts as stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something can be read, or its end.
pub fn readable_within(fd: impl AsFd, patience: Duration) -> Result<()> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    let timeout = Timespec::try_from(patience)?;
    ensure!(poll(&mut fds, Some(&timeout))? > 0, "nothing within {patience:?}");
    Ok(())
}

/// Waits for the end of a child; an error, and not a hang, if it does not come.
pub fn ended_within(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("pid")?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    readable_within(&pidfd, patience).with_context(|| format!("process {} runs on", child.id()))?;
    Ok(child.wait()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_where_the_test_is_unless_it_says_where() {
        let typed = |arguments: &[&str]| {
            let typed = with_tables(arguments, Path::new("/own"));
            typed.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let added = ["attach", "--table-dir", "/own", "--all"];
        assert_eq!(typed(&["attach", "--all"]), added);
        let behind = ["run", "--table-dir", "/own", "--", "x", "--no-table"];
        assert_eq!(typed(&["run", "--", "x", "--no-table"]), behind);
        for as_it_is in [
            &["serve", "--table-dir", "/other"][..],
            &["serve", "--table-dir=/other"],
            &["attach", "--no-table", "--all"],
            &["snapshot", "--pid", "1"],
            &["--version"],
            &[],
        ] {
            assert_eq!(typed(as_it_is), as_it_is);
        }
    }
}
