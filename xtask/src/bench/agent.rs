//! A running ttmem that prints JSON: what it says, and what it costs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use super::watcher::Delivered;
use crate::run;

/// How long anything may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);

/// A ttmem. It is ended when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    lines: Receiver<Value>,
    last: Value,
    /// From its start to its first exact line.
    pub until_exact: Duration,
}

impl Agent {
    /// Attaches, and waits for the first line that is exact.
    pub fn attach(ttmem: &Path, pid: u32, options: &[&str]) -> Result<Self> {
        Self::attach_saying(ttmem, pid, options, Stdio::inherit())
    }

    /// The same, with a place for what it says on standard error.
    pub fn attach_saying(ttmem: &Path, pid: u32, options: &[&str], errors: Stdio) -> Result<Self> {
        let mut command = Command::new(ttmem);
        command.args(["attach", "--pid", &pid.to_string(), "--format", "json"]).args(options);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let start = Instant::now();
        let mut child =
            command.spawn().with_context(|| format!("cannot start `{}`", run::show(&command)))?;
        let output = BufReader::new(child.stdout.take().context("no pipe")?);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // Nobody listens any more once it is being ended.
                drop(serde_json::from_str(&line).map(|line| sender.send(line)));
            }
        });
        let mut agent = Self { child, lines, last: Value::Null, until_exact: Duration::ZERO };
        agent.find(|line| line["exact"] == true).context("ttmem did not get exact")?;
        agent.until_exact = start.elapsed();
        Ok(agent)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line.
    pub fn next(&mut self) -> Result<&Value> {
        self.last = self.lines.recv_timeout(PATIENCE).context("no line of ttmem")?;
        Ok(&self.last)
    }

    /// Waits for a line for which `is_it` holds.
    pub fn find(&mut self, is_it: impl Fn(&Value) -> bool) -> Result<&Value> {
        let end = Instant::now() + PATIENCE;
        while !is_it(self.next()?) {
            if Instant::now() > end {
                bail!("no such line in {PATIENCE:?}; the last: {}", self.last);
            }
        }
        Ok(&self.last)
    }

    /// Has it stopped, all threads of it, so that nothing is read.
    pub fn stop(&self) -> Result<()> {
        run::signal(self.pid(), Signal::STOP)?;
        let end = Instant::now() + PATIENCE;
        while !all_stopped(self.pid())? {
            if Instant::now() > end {
                bail!("ttmem does not stop");
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Lets it go on.
    pub fn go_on(&self) -> Result<()> {
        run::signal(self.pid(), Signal::CONT)
    }

    /// Lets it end by itself; what it has seen by then.
    pub fn finish(mut self) -> Result<Delivered> {
        run::signal(self.pid(), Signal::INT)?;
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.last = line;
        }
        self.child.wait()?;
        delivered(&self.last)
    }

    /// Ends it by SIGINT, and returns how long that took.
    pub fn interrupt(mut self) -> Result<Duration> {
        let start = Instant::now();
        run::signal(self.pid(), Signal::INT)?;
        self.child.wait()?;
        Ok(start.elapsed())
    }

    /// Ends it by SIGKILL, and returns how long the kernel took to take it away.
    pub fn kill(mut self) -> Result<Duration> {
        let start = Instant::now();
        self.child.kill()?;
        self.child.wait()?;
        Ok(start.elapsed())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Our own child; once it was waited for, this does nothing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn all_stopped(pid: u32) -> Result<bool> {
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("stat"))?;
        if !stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What a snapshot counts: allocations and frees, those of unknown buffers too, and the loss.
pub fn delivered(snapshot: &Value) -> Result<Delivered> {
    let devices =
        snapshot["devices"].as_array().with_context(|| format!("no devices: {snapshot}"))?;
    let pools = devices.iter().filter_map(|device| device["pools"].as_array()).flatten();
    let seen: u64 = pools
        .flat_map(|pool| ["allocations", "frees", "pre_attach_frees"].map(|key| pool[key].as_u64()))
        .flatten()
        .sum();
    let unknown = snapshot["anomalies"]["unknown_free"].as_u64().unwrap_or(0);
    let lost = snapshot["lost"]["ring_full"].as_u64().context("no count of the loss")?;
    Ok(Delivered { received: seen + unknown, lost })
}

/// CLOCK_MONOTONIC in nanoseconds, the clock of `time_ns`; up to 10 ms late, never early.
pub fn monotonic_ns() -> Result<u64> {
    // /proc/uptime has hundredths of a second, rounded down.
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    let seconds = seconds.with_context(|| format!("no time in {text:?}"))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an uptime")]
    Ok((seconds * 1e9) as u64 + 10_000_000)
}

/// Nanoseconds that all threads of a process have run.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        sum += first.with_context(|| format!("no time in {text:?}"))?;
    }
    Ok(sum)
}

/// Per cent of one processor that a process uses during `work`.
pub fn cpu_share(pid: u32, work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let (before, start) = (cpu_ns(pid)?, Instant::now());
    work()?;
    let (after, wall) = (cpu_ns(pid)?, start.elapsed());
    #[expect(clippy::cast_precision_loss, reason = "seconds in nanoseconds are below 2^53")]
    Ok(after.saturating_sub(before) as f64 * 100.0 / wall.as_nanos() as f64)
}

/// Memory of a process that is resident, in MiB.
pub fn resident_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    resident(&status).context("no VmRSS")
}

fn resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_being_seen_counts() {
        let pool = |seen: [u64; 3]| serde_json::json!({"allocations": seen[0], "frees": seen[1], "pre_attach_frees": seen[2]});
        let snapshot = serde_json::json!({
            "devices": [{"pools": [pool([5, 3, 0]), pool([1, 1, 0])]}, {"pools": []}],
            "anomalies": {"unknown_free": 2},
            "lost": {"ring_full": 8},
        });
        assert_eq!(delivered(&snapshot).unwrap(), Delivered { received: 12, lost: 8 });
        assert!(delivered(&serde_json::json!({"lost": {"ring_full": 0}})).is_err());
    }

    #[test]
    fn memory_is_read_from_the_status() {
        assert_eq!(resident("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2.0));
        assert_eq!(resident("Name:\tx\n"), None);
    }
}
