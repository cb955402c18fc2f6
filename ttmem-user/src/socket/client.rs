//! A simple client: for `ttmem ask`, and for a ttmem that looks over another's shoulder.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use super::file_name;

/// Why nobody could be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket.
    #[error("nobody watches process {pid}: start `ttmem attach --pid {pid}` or `ttmem serve`")]
    NotThere {
        /// The process.
        pid: u32,
    },
    /// The connection cannot be made, or broke.
    #[error("cannot ask at {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

impl Client {
    /// Connects to the socket of a process in the first place that has one.
    pub fn connect(places: &[PathBuf], pid: u32) -> Result<Self, ClientError> {
        for place in places {
            let path = place.join(file_name(pid));
            match connect(&path) {
                Ok(stream) => return Ok(Self { stream: BufReader::new(stream), path }),
                Err(error) if is_nobody(&error) => {}
                Err(source) => return Err(ClientError::Io { path, source }),
            }
        }
        Err(ClientError::NotThere { pid })
    }

    /// Sends a line.
    pub fn send(&mut self, request: &str) -> Result<(), ClientError> {
        let line = format!("{request}\n");
        self.stream.get_mut().write_all(line.as_bytes()).map_err(|source| self.failed(source))
    }

    /// The next line of an answer, with its end; `None` once the other side has closed.
    pub fn line(&mut self) -> Result<Option<String>, ClientError> {
        let mut line = String::new();
        match self.stream.read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(line)),
            Err(source) => Err(self.failed(source)),
        }
    }

    /// Says that no more requests come.
    pub fn finish(&self) -> Result<(), ClientError> {
        let done = self.stream.get_ref().shutdown(std::net::Shutdown::Write);
        done.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> ClientError {
        ClientError::Io { path: self.path.clone(), source }
    }
}

/// By a short path: a socket's address has room for 107 bytes.
fn connect(path: &Path) -> io::Result<UnixStream> {
    use std::os::fd::AsRawFd as _;
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return UnixStream::connect(path);
    };
    let directory = std::fs::File::open(directory)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    UnixStream::connect(short.join(name))
}

/// Whether there is no socket, or one that a ttmem left behind which was killed.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
