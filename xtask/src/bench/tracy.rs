//! What Tracy costs: the processor of an agent that a real Tracy server is connected to, less that of
//! one without Tracy in the same round. What the server itself takes is not counted.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ttmem_bench::Line;

use super::agent::{self, Agent};
use super::plan::Plan;
use super::report::Report;
use super::rig::Rig;
use super::target::Target;
use crate::run;
use crate::setup;

/// The protocol of the server.
const PROTOCOL: u32 = 72;
/// How long anything may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first seconds confirm the first reading; it is not what is to be measured.
const CONFIRMED: Duration = Duration::from_secs(2);
const EVENTS_PER_SECOND: u64 = 10_000;
/// A sample takes a little more than a second: what comes once a second is in each.
const EVENTS: u64 = 12_000;
const ROUNDS: usize = 5;

/// Measures both in turns.
pub fn measure(rig: &Rig, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut bare = Watched::start(rig, "tracy-without", false)?;
    let mut shown = Watched::start(rig, "tracy-with", true)?;
    let capture = Capture::start(&shown, &rig.scratch.join("bench.tracy"))?;
    thread::sleep(CONFIRMED);
    let (mut without, mut with, mut mirror) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..if plan.quick { 1 } else { ROUNDS } {
        let (one, other) = (bare.share()?, shown.share()?);
        without.push(one);
        with.push(other);
        mirror.push(other - one);
    }
    bare.agent.finish()?;
    let called = shown.target.events;
    shown.agent.finish()?;
    capture.finish(called)?;
    let (group, unit) = ("tracy: processor, 10,000 events/s", "% of a core");
    let lines = [
        Line::of(group, "without Tracy", unit, 1, &without),
        Line::of(group, "with a viewer", unit, 1, &with),
        Line::of(group, "the mirror", unit, 1, &mirror),
    ];
    report.add(lines.into_iter().flatten());
    Ok(())
}

/// A target, and its agent.
struct Watched {
    target: Target,
    agent: Agent,
    /// What the agent says on standard error.
    said: std::path::PathBuf,
}

impl Watched {
    fn start(rig: &Rig, name: &str, tracy: bool) -> Result<Self> {
        let folder = rig.scratch.join(name);
        let mut target = Target::on_a_copy(&rig.native.join("push"), &folder)?;
        target.ask("tight 1 100")?;
        let mut options = rig.defaults();
        options.extend(tracy.then(|| "--tracy=0".to_owned()));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let said = folder.join("said");
        let errors = Stdio::from(File::create(&said)?);
        let agent = Agent::attach_saying(&rig.ttmem, target.pid(), &options, errors)?;
        Ok(Self { target, agent, said })
    }

    fn share(&mut self) -> Result<f64> {
        let target = &mut self.target;
        agent::cpu_share(self.agent.pid(), || {
            target.ask(&format!("paced {EVENTS_PER_SECOND} {}", EVENTS / 2)).map(drop)
        })
    }

    /// What the agent says after these words, once it has.
    fn word_after(&self, words: &str) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(&self.said)?;
            if let Some((_, rest)) = said.split_once(words)
                && let Some((word, _)) = rest.split_once(char::is_whitespace)
            {
                return Ok(word.to_owned());
            }
            if Instant::now() > end {
                bail!("ttmem does not say {words:?}, only {said:?}");
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A Tracy server that saves what it is sent. It is ended when dropped.
struct Capture {
    child: Child,
    file: std::path::PathBuf,
}

impl Capture {
    fn start(watched: &Watched, file: &Path) -> Result<Self> {
        let program = setup::tracy::program(PROTOCOL).with_context(|| {
            format!("no Tracy server of protocol {PROTOCOL}: `cargo xtask setup` fetches it")
        })?;
        let address = watched.word_after("Tracy viewers can connect to ")?;
        let (host, port) = address.rsplit_once(':').context("no port")?;
        let mut command = Command::new(program);
        command.args(["-f", "-a", host, "-p", port, "-o"]).arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child =
            command.spawn().with_context(|| format!("cannot start `{}`", run::show(&command)))?;
        let capture = Self { child, file: file.to_owned() };
        watched.word_after("a Tracy viewer has connected, protocol ")?;
        Ok(capture)
    }

    /// Waits until it has saved all; less than that many events cannot be.
    fn finish(mut self, events: u64) -> Result<()> {
        if !self.child.wait()?.success() {
            bail!("the Tracy server failed");
        }
        let len = fs::metadata(&self.file)?.len();
        if len < events {
            bail!("the Tracy server saved {len} bytes of {events} events");
        }
        Ok(())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Our own child; once it was waited for, this does nothing.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
