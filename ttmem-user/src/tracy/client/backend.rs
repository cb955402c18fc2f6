//! The process with Tracy's client in it: takes orders from standard input, tells who connects.
//!
//! Orders are for one connection. Those for an earlier one are dropped, and a new one begins with
//! nothing: what had been said of pools is taken back, and this program's live set is asked for.

use std::{
    io::{self, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvFlags, recv},
};

use super::{
    codec::{News, Order, next},
    emit::Client,
    jail,
    pace::{Pace, is_listening},
};

/// How often it is looked whether somebody has connected.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How long Tracy may take to listen.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether it listens.
const LISTENS: Duration = Duration::from_millis(2);
/// How long a viewer may take to hear the end, seconds.
const LAST_WORDS: u32 = 5;
/// The same while its viewer does not read.
const RARELY: Duration = Duration::from_secs(1);
/// How often it is looked whether Tracy can take more.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
/// Bytes that are read at once.
const CHUNK: usize = 65_536;

/// Runs until there are no more orders.
pub fn run(port: u16) -> anyhow::Result<()> {
    jail::shut(port)?;
    let mut backend = Backend {
        news: UnixStream::from(rustix::stdio::stdin().try_clone_to_owned()?),
        client: Client::start(port),
        connection: None,
        begun: false,
        pace: Pace::default(),
        port,
        looked: Instant::now(),
    };
    if !listens(port) {
        return Ok(backend.news.write_all(&News::NoPort.bytes())?);
    }
    backend.news.write_all(&News::Listening(port).bytes())?;
    let ended = backend.obey();
    // A viewer that does not read must not keep this process.
    nix::unistd::alarm::set(LAST_WORDS);
    backend.client.stop();
    Ok(ended?)
}

struct Backend {
    news: UnixStream,
    client: Client,
    connection: Option<u64>,
    /// The connection has been told what is live, or is being told.
    begun: bool,
    pace: Pace,
    port: u16,
    looked: Instant,
}

impl Backend {
    fn obey(&mut self) -> io::Result<()> {
        let mut inbox = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            // What is not read waits for whoever sends it, who knows what to do then.
            let is_full = self.pace.is_full();
            let (wanted, patience) =
                if is_full { (PollFlags::RDHUP, REST) } else { (PollFlags::IN, LOOK) };
            let mut ready = [PollFd::from_borrowed_fd(self.news.as_fd(), wanted)];
            let count = match poll(&mut ready, Some(&patience)) {
                Err(rustix::io::Errno::INTR) => continue,
                count => count?,
            };
            if is_full {
                self.pace.look(self.port);
            }
            // To look is to tell Tracy something: not often while that stays where it is.
            if !is_full || !self.client.is_connected() || self.looked.elapsed() > RARELY {
                self.look()?;
            }
            if count == 0 {
                continue;
            }
            let (_, len) = recv(&self.news, &mut chunk[..], RecvFlags::empty())?;
            if len == 0 {
                return Ok(());
            }
            inbox.extend_from_slice(&chunk[..len]);
            let mut left = &inbox[..];
            while let Some(order) = next(&mut left).map_err(io::Error::other)? {
                self.take(&order);
            }
            let taken = inbox.len() - left.len();
            inbox.drain(..taken);
        }
    }

    /// Looks who is connected, and tells what has changed.
    fn look(&mut self) -> io::Result<()> {
        self.looked = Instant::now();
        let connection = self.client.connection();
        if connection == self.connection {
            if self.begun {
                self.client.settle();
            }
            return Ok(());
        }
        (self.connection, self.begun) = (connection, false);
        self.pace.begin();
        let news = connection.map_or(News::Disconnected, News::Connected);
        self.news.write_all(&news.bytes())
    }

    fn take(&mut self, order: &Order<'_>) {
        match order {
            Order::Begin(connection) => {
                self.begun = self.connection == Some(*connection);
                if self.begun {
                    self.client.discard();
                }
            }
            Order::Name(name, text) => self.client.name(*name, text),
            Order::Op(op) if self.begun => {
                self.client.emit(op);
                self.pace.tell();
            }
            Order::Op(_) => {}
        }
    }
}

/// Waits until this process listens on that port. Tracy itself does not say.
fn listens(port: u16) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if is_listening(port) {
            return true;
        }
        thread::sleep(LISTENS);
    }
    false
}
