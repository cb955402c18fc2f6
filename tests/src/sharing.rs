//! What the tests of sharing have in common.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    asking::Asking,
    standin::{Driver, Standin},
    ttmem::{Attached, Ttmem},
    until::until,
};

/// A stand-in that is to be watched, and a directory for what is shared of it.
pub struct Rig {
    /// The binary.
    pub ttmem: Ttmem,
    /// The target.
    pub driver: Driver,
    /// Holds all files of the test.
    pub outer: TempDir,
}

impl Rig {
    /// A stand-in with nothing open.
    pub fn new() -> Result<Self, String> {
        let driver = Standin::locate("pimpl")?.start().map_err(|error| format!("{error:#}"))?;
        let outer = tempfile::tempdir().map_err(|error| error.to_string())?;
        fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o755))
            .map_err(|e| e.to_string())?;
        Ok(Self { ttmem: Ttmem::locate()?, driver, outer })
    }

    /// Where the tables are.
    pub fn place(&self) -> PathBuf {
        self.outer.path().join("tables")
    }

    /// Attaches, and waits for the first snapshot; the next one is far off, so nobody need read.
    pub fn attach(&self, more: &[&str]) -> Result<Attached> {
        self.attach_with("60000", more)
    }

    /// The same with a snapshot every so many milliseconds.
    pub fn attach_with(&self, refresh: &str, more: &[&str]) -> Result<Attached> {
        let place = self.place();
        let mut options = vec!["-r", refresh, "--table-dir", place.to_str().context("a path")?];
        options.extend(more);
        let mut watch = self.ttmem.attach(self.driver.pid(), &options)?;
        watch.next()?.context("a snapshot")?;
        Ok(watch)
    }

    /// A connection to the socket.
    pub fn ask(&self) -> Result<Asking> {
        Asking::connect(&self.place(), self.driver.pid())
    }

    /// Has ttmem take in every event up to now.
    pub fn sync(&self) -> Result<()> {
        let answer = self.ask()?.ask(&json!({"get": "sync"}))?;
        ensure!(answer["schema"] == "ttmem.sync/1", "{answer}");
        Ok(())
    }

    /// A command that reads what is shared.
    pub fn reading(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.ttmem.path());
        command.args(arguments).arg("--table-dir").arg(self.place()).stdin(Stdio::null());
        command
    }
}

/// What a command printed, and its exit code.
pub fn said(command: &mut Command) -> Result<(String, Option<i32>)> {
    let output = command.output()?;
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((text.concat(), output.status.code()))
}

/// A running program. Killed when dropped.
pub struct Service(pub Child);

impl Service {
    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).context("pid")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until questions about a process are answered, and all that is older has been read: what it
/// opens only then has no unknown past.
pub fn served(place: &Path, pid: u32) -> Result<()> {
    let answer = || Asking::connect(place, pid)?.ask(&json!({"get": "snapshot"}));
    until(&format!("process {pid} is not served"), || {
        Ok(answer().is_ok_and(|snapshot| snapshot["exact"] == true).then_some(()))
    })
}
