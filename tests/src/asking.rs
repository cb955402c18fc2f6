//! A client of the socket, made from `docs/socket.md` alone.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::ttmem::PATIENCE;

/// A connection.
#[derive(Debug)]
pub struct Asking(BufReader<UnixStream>);

impl Asking {
    /// Connects to the socket of a process.
    pub fn connect(directory: &Path, pid: u32) -> Result<Self> {
        let path = directory.join(format!("{pid}.sock"));
        let stream = UnixStream::connect(&path).with_context(|| path.display().to_string())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Sends a request.
    pub fn tell(&mut self, request: &Value) -> Result<()> {
        Ok(self.0.get_mut().write_all(format!("{request}\n").as_bytes())?)
    }

    /// The next line; `None` at the end.
    pub fn line(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        if self.0.read_line(&mut line).context("no answer of the socket")? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?))
    }

    /// Sends a request; the answer.
    pub fn ask(&mut self, request: &Value) -> Result<Value> {
        self.tell(request)?;
        self.line()?.with_context(|| format!("no answer to {request}"))
    }
}
