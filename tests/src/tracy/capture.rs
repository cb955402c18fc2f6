//! Tracy's own server: `iree-tracy-capture`, which saves what it is sent.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::saved::Trace;
use crate::{
    skip,
    ttmem::{PATIENCE, ended_within},
};

/// A server that captures. Killed when dropped.
pub struct Capture {
    child: Child,
    folder: TempDir,
}

/// The server of a protocol, or why the test cannot run.
pub fn locate(protocol: u32) -> Result<PathBuf, String> {
    let folder = skip::path_from("TTMEM_TRACY_DIR")?;
    let program = format!("{protocol}/iree/_runtime_libs_tracy/iree-tracy-capture");
    let program = folder.join(program);
    if program.is_file() {
        Ok(program)
    } else {
        Err(format!("there is no Tracy server of protocol {protocol}"))
    }
}

impl Capture {
    /// Starts it; it tries until somebody listens on that port, and ends with the program.
    pub fn start(program: &PathBuf, port: u16) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let log = fs::File::create(folder.path().join("log"))?;
        let child = Command::new(program)
            .arg("-o")
            .arg(folder.path().join("trace.tracy"))
            .args(["-f", "-a", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, folder })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> Result<String> {
        let bytes = fs::read(self.folder.path().join("log"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits for its end; what it has saved.
    pub fn finish(mut self) -> Result<Trace> {
        ended_within(&mut self.child, PATIENCE).with_context(|| self.log().unwrap_or_default())?;
        let log = self.log()?;
        ensure!(!log.contains("Instrumentation failure"), "{log}");
        ensure!(!log.contains("incompatible"), "{log}");
        Trace::read(&self.folder.path().join("trace.tracy")).with_context(|| log)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
