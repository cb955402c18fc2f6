//! Starts processes with Tracy's client in them.
//!
//! Becoming nobody takes rights that this program gives up at its start, while targets, and so
//! ports, may come at any time. So one process is started while there are rights: it gives up its
//! own, waits, and is copied for each target. It is this program executed anew, and has none of
//! what was in its memory. It ends with this program.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Read as _},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, send, sendmsg, socketpair,
};

use super::{
    backend,
    codec::{NEWS_LEN, News},
    jail,
};
use crate::tracy::wire::port::{self, PortError};

/// The command of this program that such a process is started by.
pub const COMMAND: &str = "tracy-client-backend";
/// How long a process may take to say something.
const PATIENCE: Duration = Duration::from_secs(5);
/// Says that all rights have been given up.
const READY: &[u8] = b"ready";

/// It cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No process.
    #[error("cannot start a process for Tracy's client: {0}")]
    Process(String),
    /// No port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// It has not been able to listen there.
    #[error("Tracy's client cannot listen on port {0}: choose another with --tracy=PORT")]
    Listen(u16),
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::Process(error.to_string())
    }
}

/// The process that is copied.
#[derive(Debug)]
pub struct Nursery {
    socket: Option<OwnedFd>,
    child: Child,
}

/// A process with Tracy's client in it. It ends when the stream is closed.
#[derive(Debug)]
pub struct Started {
    /// Orders there, news back.
    pub stream: UnixStream,
    /// Where viewers can connect.
    pub address: SocketAddr,
    /// Why it is not the port that was asked for.
    pub instead: Option<String>,
}

impl Nursery {
    /// Starts it; to be called while there are rights to give up.
    pub fn open() -> Result<Self, StartError> {
        let (own, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(io::Error::from)?;
        let child = Command::new("/proc/self/exe")
            .arg0("ttmem")
            .arg(COMMAND)
            .env_clear()
            .current_dir("/")
            .stdin(other)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for this program, which tells the end to viewers first.
            .process_group(0)
            .spawn()?;
        let nursery = Self { socket: Some(own), child };
        nursery.wait()?;
        Ok(nursery)
    }

    fn wait(&self) -> Result<(), StartError> {
        let Some(socket) = &self.socket else { return Ok(()) };
        rustix::net::sockopt::set_socket_timeout(
            socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(PATIENCE),
        )
        .map_err(io::Error::from)?;
        let mut said = [0; 512];
        let len = File::from(socket.try_clone()?).read(&mut said)?;
        match &said[..len] {
            READY => Ok(()),
            [] => Err(StartError::Process("it has ended".to_owned())),
            why => Err(StartError::Process(String::from_utf8_lossy(why).into_owned())),
        }
    }

    /// Starts a process that listens on the first free port from that one on. Waits for it.
    pub fn start(&self, wanted: SocketAddr) -> Result<Started, StartError> {
        let port = port::listen(wanted)?;
        let (address, instead) = (port.address, port.instead);
        // Tracy opens it itself. If somebody else is faster, it says so.
        drop(port.listener);
        let (mut own, other) = UnixStream::pair()?;
        self.ask(address.port(), &other)?;
        drop(other);
        own.set_read_timeout(Some(PATIENCE))?;
        let mut news = [0; NEWS_LEN];
        own.read_exact(&mut news)?;
        if News::read(news) != Ok(News::Listening(address.port())) {
            return Err(StartError::Listen(address.port()));
        }
        own.set_nonblocking(true)?;
        Ok(Started { stream: own, address, instead })
    }

    fn ask(&self, port: u16, stream: &UnixStream) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = SendAncillaryBuffer::new(&mut space);
        let passed = [stream.as_fd()];
        rights.push(SendAncillaryMessage::ScmRights(&passed));
        let bytes = port.to_le_bytes();
        sendmsg(socket, &[IoSlice::new(&bytes)], &mut rights, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        // Closing it is what ends the process.
        self.socket = None;
        let _ = self.child.wait();
    }
}

/// What that process does. Standard input is the socket that it is asked through.
pub fn run() -> anyhow::Result<()> {
    let socket = rustix::stdio::stdin();
    close_others();
    if let Err(error) = jail::leave() {
        send(socket, format!("{error:#}").as_bytes(), SendFlags::NOSIGNAL)?;
        return Ok(());
    }
    ignore_children().context("cannot ignore children")?;
    send(socket, READY, SendFlags::NOSIGNAL)?;
    while let Some((port, stream)) = next(socket)? {
        #[expect(unsafe_code, reason = "fork(2)")]
        // SAFETY: this process has one thread, so nothing is locked in the copy.
        let copy = unsafe { nix::unistd::fork() }.context("cannot fork")?;
        if copy.is_child() {
            rustix::stdio::dup2_stdin(&stream)?;
            drop(stream);
            return backend::run(port);
        }
    }
    Ok(())
}

/// Closes what whoever started this program has left open.
fn close_others() {
    #[expect(unsafe_code, reason = "close_range(2)")]
    // SAFETY: this process has opened nothing yet, so nobody in it knows any of them.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0)
    };
}

/// The next port, and the stream to take orders from; `None` when there are no more.
fn next(socket: impl std::os::fd::AsFd) -> io::Result<Option<(u16, OwnedFd)>> {
    let mut bytes = [0; 2];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut bytes)];
    let got = recvmsg(socket, &mut into, &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    let passed = rights.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok(passed.filter(|_| got.bytes == bytes.len()).map(|fd| (u16::from_le_bytes(bytes), fd)))
}

/// Copies that have ended leave nothing behind.
fn ignore_children() -> nix::Result<()> {
    use nix::sys::signal::{SigHandler, Signal, signal};
    #[expect(unsafe_code, reason = "signal(2)")]
    // SAFETY: nothing is called when the signal comes.
    let before = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) };
    before.map(drop)
}
