//! A client of the socket, made from `docs/socket.md` alone.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Write as _},
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

    /// What comes until the other side closes, line by line, which must happen. It may do so in the
    /// midst of a line; that one is left out.
    pub fn rest(&mut self) -> Result<Vec<Value>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            match self.0.read_line(&mut line) {
                // Whoever still had something to say to us is told so by a reset.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(lines),
                Err(error) => return Err(error).context("the socket is still open"),
                Ok(_) if !line.ends_with('\n') => return Ok(lines),
                Ok(_) => lines.push(
                    serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?,
                ),
            }
        }
    }

    /// Sends a request; the answer.
    pub fn ask(&mut self, request: &Value) -> Result<Value> {
        self.tell(request)?;
        self.line()?.with_context(|| format!("no answer to {request}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Asking, UnixStream) {
        let (here, there) = UnixStream::pair().unwrap();
        (Asking(BufReader::new(here)), there)
    }

    #[test]
    fn the_rest_ends_with_the_other_side_and_not_with_patience() {
        let (mut asking, mut there) = pair();
        there.write_all(b"1\n2\n[3").unwrap();
        drop(there);
        assert_eq!(asking.rest().unwrap(), [1, 2]);
        let (mut asking, mut there) = pair();
        asking.0.get_ref().set_read_timeout(Some(std::time::Duration::from_millis(1))).unwrap();
        there.write_all(b"1\n").unwrap();
        let error = asking.rest().unwrap_err();
        assert_eq!(error.to_string(), "the socket is still open");
    }
}
