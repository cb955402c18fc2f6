//! Watching ttmem through Tracy: real servers, a receiver of our own, and saved traces.

pub mod capture;
pub mod expected;
pub mod picture;
pub mod receiver;
pub mod saved;
pub mod scenarios;
pub mod stopped;
pub mod table;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStderr, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use self::{
    expected::{Pools, live_in, live_seen},
    receiver::Receiver,
};
use crate::{
    standin::{Driver, Standin},
    ttmem::{PATIENCE, Ttmem, ended_within, readable_within},
};

/// A user that nobody is.
pub const STRANGER: &str = "54321";

/// ttmem, and a process on the stand-in library.
pub fn rig() -> Result<(Ttmem, Driver), String> {
    let driver = Standin::locate("pimpl")?.start().map_err(|error| format!("{error:#}"))?;
    Ok((Ttmem::locate()?, driver))
}

/// Reads until what was told is what is live in the process.
pub fn agree(receiver: &mut Receiver, ttmem: &Ttmem, pid: u32) -> Result<Pools> {
    let expected = live_in(ttmem, pid)?;
    receiver.until("what is live", |seen| live_seen(seen) == expected)?;
    Ok(expected)
}

/// The last line of JSON in a file says that all is exact, and that nothing was lost.
pub fn ended_exact(lines: &Path) -> Result<()> {
    let lines = fs::read_to_string(lines)?;
    let last: Value = serde_json::from_str(lines.lines().last().context("no line")?)?;
    ensure!(last["lost"] == json!({"ring_full": 0, "read_fault": 0}), "{last}");
    ensure!(last["exact"] == true, "{last}");
    Ok(())
}

/// A running `ttmem … --tracy`. Killed when dropped.
#[derive(Debug)]
pub struct Mirrored {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// Where viewers can connect.
    pub port: u16,
}

impl Mirrored {
    /// Starts ttmem with these arguments, which have `--tracy=…` among them; waits until viewers
    /// can connect.
    pub fn start(ttmem: &Ttmem, arguments: &[&str]) -> Result<Self> {
        Self::of(ttmem.command(arguments))
    }

    /// The same of a whole command.
    pub fn of(mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = BufReader::new(child.stderr.take().context("no pipe")?);
        let mut mirrored = Self { child, stderr, port: 0 };
        mirrored.port = mirrored.port_in("Tracy viewers can connect to ")?;
        Ok(mirrored)
    }

    /// Attaches to a process, with lines that nobody reads.
    pub fn attach(ttmem: &Ttmem, pid: u32, more: &[&str]) -> Result<Self> {
        let pid = pid.to_string();
        let mut arguments =
            vec!["attach", "--pid", &pid, "--headless", "--no-table", "-r", "50", "--tracy=0"];
        arguments.extend(more);
        Self::start(ttmem, &arguments)
    }

    /// Writes to the command's standard input, which must have been piped.
    pub fn tell(&mut self, text: &str) -> Result<()> {
        let input = self.child.stdin.as_mut().context("no pipe")?;
        Ok(input.write_all(text.as_bytes())?)
    }

    /// Waits until the probes are in place: what happens from here on is seen as it happens.
    pub fn attached(self) -> Result<Self> {
        let mut receiver = Receiver::connect(self.port)?;
        receiver.until("the attach", |seen| seen.has_message("the probes are in place"))?;
        receiver.disconnect()?;
        Ok(self)
    }

    /// The port in the next line with this text.
    pub fn port_in(&mut self, text: &str) -> Result<u16> {
        let line = self.line_with(text)?;
        let (_, rest) = line.split_once(text).context("the text")?;
        let address = rest.split_whitespace().next().context("an address")?;
        Ok(address.rsplit(':').next().context("a port")?.parse()?)
    }

    /// The next line on standard error that has this text in it.
    pub fn line_with(&mut self, text: &str) -> Result<String> {
        loop {
            if self.stderr.buffer().is_empty() {
                readable_within(self.stderr.get_ref(), PATIENCE)
                    .with_context(|| format!("no line with {text:?}"))?;
            }
            let mut line = String::new();
            ensure!(self.stderr.read_line(&mut line)? > 0, "it ended without a line of {text:?}");
            if line.contains(text) {
                return Ok(line.trim_end().to_owned());
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits.
    pub fn end(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("pid")?;
        kill_process(pid, Signal::TERM)?;
        ended_within(&mut self.child, PATIENCE)?;
        Ok(())
    }

    /// Waits until it has ended by itself.
    pub fn ended(mut self) -> Result<()> {
        ended_within(&mut self.child, PATIENCE)?;
        Ok(())
    }
}

impl Drop for Mirrored {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
