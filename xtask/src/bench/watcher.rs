//! Who looks at a target: nobody, an empty probe, ttmem, or another tool.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::agent::Agent;
use super::bpftrace::{self, Bpftrace};
use super::rig::{Image, Rig};
use super::target::Target;
use crate::run;

/// A way to look.
#[derive(Debug, Clone)]
pub enum Watch {
    /// None.
    Nobody,
    /// A program that does nothing, where ttmem's probes are.
    Empty,
    /// The same at the entries of the functions, where any other tool's probes are.
    EmptyAtEntry,
    /// ttmem with these options.
    Ttmem(Vec<String>),
    /// A script of `tests/bench/scripts`.
    Script(Bpftrace, &'static str),
}

/// What came of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Events of which the tool knows.
    pub received: u64,
    /// Events of which it says that it lost them.
    pub lost: u64,
}

/// Somebody who looks.
#[derive(Debug)]
pub enum Watcher {
    Nobody,
    Empty(Child),
    Ttmem(Agent),
    Script { child: Child, output: PathBuf, errors: PathBuf, prints: bool },
}

impl Watcher {
    /// Starts to look at the target; returns when the probes are in.
    pub fn start(
        rig: &Rig,
        watch: &Watch,
        image: &Image,
        target: &mut Target,
        folder: &Path,
    ) -> Result<Self> {
        let watcher = match watch {
            Watch::Nobody => return Ok(Self::Nobody),
            Watch::Empty => Self::Empty(empty(rig, target, image.points)?),
            Watch::EmptyAtEntry => {
                let entries = target.sites()?.entries;
                Self::Empty(empty(rig, target, entries)?)
            }
            Watch::Ttmem(options) => {
                let options: Vec<&str> = options.iter().map(String::as_str).collect();
                Self::Ttmem(Agent::attach(&rig.ttmem, target.pid(), &options)?)
            }
            Watch::Script(tool, name) => script(tool, name, image, target, folder)?,
        };
        target.wait_for_probes(true)?;
        Ok(watcher)
    }

    /// Stops looking, and says what was seen; `None` of those that keep no count.
    pub fn stop(self) -> Result<Option<Delivered>> {
        match self {
            Self::Nobody => Ok(None),
            Self::Empty(mut child) => {
                drop(child.stdin.take());
                child.wait()?;
                Ok(None)
            }
            Self::Ttmem(agent) => agent.finish().map(Some),
            Self::Script { mut child, output, errors, prints } => {
                run::signal(child.id(), Signal::INT)?;
                child.wait()?;
                counted(&output, &errors, prints).map(Some)
            }
        }
    }
}

fn empty(rig: &Rig, target: &Target, points: [u64; 2]) -> Result<Child> {
    let mut command = Command::new(rig.native.join("empty"));
    command
        .arg(target.pid().to_string())
        .arg(&target.library)
        .args(points.map(|at| at.to_string()));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
    if !line.starts_with("attached") {
        bail!("`{}` did not attach", run::show(&command));
    }
    Ok(child)
}

fn script(
    tool: &Bpftrace,
    name: &str,
    image: &Image,
    target: &Target,
    folder: &Path,
) -> Result<Watcher> {
    let symbols = [image.symbols[0].as_str(), image.symbols[1].as_str()];
    let text = bpftrace::script(name, &target.library, symbols, &image.fields)?;
    let (output, errors) = (folder.join("out"), folder.join("err"));
    let mut command = tool.command();
    command.args(["-p", &target.pid().to_string(), "-e", &text]).stdin(Stdio::null());
    command.stdout(File::create(&output)?).stderr(File::create(&errors)?);
    let child =
        command.spawn().with_context(|| format!("cannot start bpftrace {}", tool.version))?;
    Ok(Watcher::Script { child, output, errors, prints: name == "print" })
}

fn counted(output: &Path, errors: &Path, prints: bool) -> Result<Delivered> {
    let (said, complained) = (fs::read(output)?, fs::read(errors)?);
    let (said, complained) = (String::from_utf8_lossy(&said), String::from_utf8_lossy(&complained));
    let lost = said.lines().chain(complained.lines()).filter_map(lost_events).sum();
    let received = if prints { printed(&said) } else { summed(&said) };
    Ok(Delivered { received, lost })
}

/// `Lost 12 events`
fn lost_events(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("Lost ")?;
    rest.split_once(" events")?.0.parse().ok()
}

fn printed(said: &str) -> u64 {
    let count =
        said.lines().filter(|line| line.starts_with("A ") || line.starts_with("F ")).count();
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// `@events: 12`
fn summed(said: &str) -> u64 {
    said.lines().filter_map(|line| line.strip_prefix("@events: ")?.trim().parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_bpftrace_says_is_counted() {
        assert_eq!(lost_events("Lost 12 events"), Some(12));
        assert_eq!(lost_events("stdin:1: WARNING: Lost 7 events"), Some(7));
        assert_eq!(lost_events("Attaching 2 probes..."), None);
        assert_eq!(printed("Attaching\nA 1 2\nF 1 2\n\nB"), 2);
        assert_eq!(summed("@bytes: 4096\n@events: 12\n"), 12);
        assert_eq!(summed(""), 0);
    }
}
