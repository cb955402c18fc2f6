//! A process that allocates and frees as it is told: `tests/bench/native/load.hpp` says how.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run;

/// How long a probe may take to come or go.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running load. It is ended when dropped.
#[derive(Debug)]
pub struct Target {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// The library that it runs on: a file of its own, so that nobody else's probes are in it.
    pub library: PathBuf,
    /// Events so far.
    pub events: u64,
}

/// Where the functions are that every tool probes.
#[derive(Debug, Clone, Copy)]
pub struct Sites {
    /// How many of the two have a probe now.
    pub probed: u64,
    /// First byte of the allocation's function as it is now.
    pub opcode: u64,
    /// File offsets of their entries.
    pub entries: [u64; 2],
}

impl Target {
    /// Starts the load on the stand-in library, on a copy of it in `folder`.
    pub fn on_a_copy(built: &Path, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        for name in ["libtt_metal.so", "target"] {
            let copy = folder.join(name);
            fs::copy(built.join(name), &copy)
                .with_context(|| format!("cannot make {}", copy.display()))?;
        }
        Self::start(&mut Command::new(folder.join("target")), folder.join("libtt_metal.so"))
    }

    /// Starts a load by its command.
    pub fn start(command: &mut Command, library: PathBuf) -> Result<Self> {
        let shown = run::show(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start `{shown}`"))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("`{shown}` has no pipes");
        };
        let output = BufReader::new(output);
        let mut target = Self { child, input, output, library, events: 0 };
        let ready = target.line().with_context(|| format!("`{shown}` did not get ready"))?;
        if ready["ready"] != true {
            bail!("`{shown}` said {ready}");
        }
        Ok(target)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Says what to do, without waiting for it.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.input, "{command}").with_context(|| format!("cannot tell {command:?}"))
    }

    /// Says what to do, and waits for the answer.
    pub fn ask(&mut self, command: &str) -> Result<Value> {
        self.tell(command)?;
        self.answer().with_context(|| format!("after {command:?}"))
    }

    /// What it says when it has done what it was told.
    pub fn answer(&mut self) -> Result<Value> {
        let answer = self.line()?;
        if let Some(error) = answer["error"].as_str() {
            bail!("{error}");
        }
        self.events += answer["events"].as_u64().unwrap_or(0);
        Ok(answer)
    }

    /// Nanoseconds that a command took.
    pub fn nanoseconds(&mut self, command: &str) -> Result<f64> {
        let answer = self.ask(command)?;
        answer["ns"].as_f64().with_context(|| format!("no time in {answer}"))
    }

    /// Nanoseconds of each event of a command.
    pub fn per_event(&mut self, command: &str) -> Result<f64> {
        let answer = self.ask(command)?;
        let (ns, events) = (answer["ns"].as_f64(), answer["events"].as_f64());
        ns.zip(events).map(|(ns, events)| ns / events).with_context(|| format!("no time: {answer}"))
    }

    /// What is where, and whether it is probed.
    pub fn sites(&mut self) -> Result<Sites> {
        let answer = self.ask("sites")?;
        let number =
            |key: &str| answer[key].as_u64().with_context(|| format!("no {key}: {answer}"));
        Ok(Sites {
            probed: number("probed")?,
            opcode: number("opcode")?,
            entries: [number("allocate")?, number("free")?],
        })
    }

    /// Waits until both functions have a probe, or neither has.
    pub fn wait_for_probes(&mut self, there: bool) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let wanted = if there { 2 } else { 0 };
        while self.sites()?.probed != wanted {
            if Instant::now() > end {
                bail!(
                    "the probes are not {} in {PATIENCE:?}",
                    if there { "there" } else { "gone" }
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("it has ended");
        }
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Our own child, not yet waited for, so its id is still its own.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
