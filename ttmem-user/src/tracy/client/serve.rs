//! One target, and the process that shows it.
//!
//! The mirror goes on whether or not anybody looks. A process that does not keep up misses what
//! came and went, and is told what is live when it listens again. One that ends is started anew
//! once; this program loses nothing but the viewer.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{Interest, Ready},
    net::UnixStream,
    sync::watch,
    time::timeout,
};

use super::{
    codec::{NEWS_LEN, News, Order},
    nursery::{Nursery, StartError, Started},
};
use crate::{
    ledger::report::Report,
    tracy::{
        mirror::Announced,
        op::{Op, Severity},
        scene::{Scene, Step},
    },
};

/// What waits to be sent, bytes; beyond it the process has fallen behind.
const MAX_WAITING: usize = 8 << 20;
/// How long it may take to hear the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where processes come from.
pub struct Source {
    /// What starts them.
    pub nursery: Arc<Nursery>,
    /// The first port to try.
    pub wanted: SocketAddr,
    /// The first one, if it has been started already.
    pub first: Option<Started>,
    /// Where lines about it go.
    pub say: Arc<dyn Fn(&str) + Send + Sync>,
}

/// Serves one target until it has ended and the process has been told.
pub async fn serve(mut scene: Scene, source: Source, mut reports: watch::Receiver<Arc<Report>>) {
    let Source { nursery, wanted, first, say } = source;
    let first = match first {
        Some(first) => Ok(first),
        None => start(&nursery, wanted).await.inspect(|started| {
            let why = started.instead.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
            say(&format!("process {} in Tracy: {}{why}", scene.pid(), started.address));
        }),
    };
    let (address, mut backend) = match first.and_then(open) {
        Ok(opened) => opened,
        Err(error) => return say(&format!("no Tracy: {error}")),
    };
    let mut may_start = true;
    loop {
        tokio::select! {
            biased;
            ready = backend.ready() => {
                if let Err(error) = backend.exchange(ready, &mut scene, &*say) {
                    say(&format!("the process with Tracy's client has ended: {error}"));
                    if !std::mem::take(&mut may_start) {
                        return say("it is not started a third time");
                    }
                    backend = match start(&nursery, address).await.and_then(open) {
                        Ok((address, backend)) => {
                            say(&format!("it is started anew: {address}"));
                            backend
                        }
                        Err(error) => return say(&format!("no Tracy: {error}")),
                    };
                }
                backend.look_after(&mut scene);
            }
            step = scene.next(&mut reports) => {
                let is_last = matches!(step, Step::Last);
                let watched = backend.connection.is_some();
                scene.take(step, watched, &mut |op| backend.record(op));
                backend.look_after(&mut scene);
                if is_last {
                    break;
                }
            }
        }
    }
    let all = async {
        while !backend.outgoing.is_empty() {
            let ready = backend.ready().await;
            if backend.exchange(ready, &mut scene, &|_| ()).is_err() {
                return;
            }
        }
    };
    // Who does not listen is left. That the stream is closed is the end.
    let _ = timeout(LAST_WORDS, all).await;
}

async fn start(nursery: &Arc<Nursery>, wanted: SocketAddr) -> Result<Started, StartError> {
    let nursery = Arc::clone(nursery);
    let started = tokio::task::spawn_blocking(move || nursery.start(wanted)).await;
    started.unwrap_or_else(|error| Err(StartError::Process(error.to_string())))
}

fn open(started: Started) -> Result<(SocketAddr, Backend), StartError> {
    let stream = UnixStream::from_std(started.stream)?;
    let backend = Backend {
        stream,
        connection: None,
        fresh: Vec::new(),
        outgoing: Vec::new(),
        sent: 0,
        names: 0,
        inbox: Vec::new(),
        behind: None,
    };
    Ok((started.address, backend))
}

struct Backend {
    stream: UnixStream,
    /// Who is told.
    connection: Option<u64>,
    /// Orders whose names may not be known there yet.
    fresh: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
    /// How many names are known there.
    names: usize,
    inbox: Vec<u8>,
    /// What it knew when it fell behind, and how many operations it has missed since.
    behind: Option<(Announced, u64)>,
}

impl Backend {
    fn record(&mut self, op: Op<'_>) {
        match &mut self.behind {
            _ if self.connection.is_none() => {}
            Some((_, missed)) => *missed += 1,
            None => Order::Op(op).write(&mut self.fresh),
        }
    }

    /// Makes ready what has been recorded; notices that it falls behind, and helps when it listens
    /// again.
    fn look_after(&mut self, scene: &mut Scene) {
        self.flush(scene);
        if self.behind.is_none() && self.outgoing.len() - self.sent > MAX_WAITING {
            self.behind = Some((scene.mirror().announced(), 0));
        }
        if self.outgoing.is_empty()
            && let Some((before, missed)) = self.behind.take()
        {
            scene.mirror().catch_up(&before, &mut |op| self.record(op));
            let text = format!("Tracy's client was too slow: {missed} operations are left out");
            scene.mirror_mut().message(Severity::Warning, &text, &mut |op| self.record(op));
            self.flush(scene);
        }
    }

    fn flush(&mut self, scene: &Scene) {
        if self.fresh.is_empty() {
            return;
        }
        for (name, text) in scene.mirror().names().since(self.names) {
            Order::Name(name, text).write(&mut self.outgoing);
            self.names += 1;
        }
        self.outgoing.append(&mut self.fresh);
    }

    /// Waits until anything can be sent or received.
    async fn ready(&self) -> io::Result<Ready> {
        let sends = !self.outgoing.is_empty();
        let interest = if sends { Interest::WRITABLE } else { Interest::READABLE };
        self.stream.ready(interest | Interest::READABLE).await
    }

    /// Sends and receives what can be.
    fn exchange(
        &mut self,
        ready: io::Result<Ready>,
        scene: &mut Scene,
        say: &(dyn Fn(&str) + Send + Sync),
    ) -> io::Result<()> {
        let ready = ready?;
        if ready.is_readable() {
            self.receive(scene, say)?;
        }
        if ready.is_writable() {
            self.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.outgoing.len() {
            match self.stream.try_write(&self.outgoing[self.sent..]) {
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.sent > MAX_WAITING / 2 {
                        self.outgoing.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Ok(())
    }

    fn receive(&mut self, scene: &mut Scene, say: &(dyn Fn(&str) + Send + Sync)) -> io::Result<()> {
        let mut bytes = [0; 64 * NEWS_LEN];
        match self.stream.try_read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => self.inbox.extend_from_slice(&bytes[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        let (news, rest) = self.inbox.as_chunks::<NEWS_LEN>();
        // Only the last one still holds.
        let last = news.last().map(|last| News::read(*last));
        self.inbox = rest.to_vec();
        match last.transpose().map_err(io::Error::other)? {
            Some(News::Connected(connection)) => {
                say("a Tracy viewer has connected, protocol 82");
                self.begin(connection, scene);
            }
            Some(News::Disconnected) => (self.connection, self.behind) = (None, None),
            Some(News::Listening(_) | News::NoPort) | None => {}
        }
        Ok(())
    }

    /// Tells everything to a new connection.
    fn begin(&mut self, connection: u64, scene: &mut Scene) {
        (self.connection, self.behind) = (Some(connection), None);
        Order::Begin(connection).write(&mut self.fresh);
        scene.announce(&mut |op| self.record(op));
        self.flush(scene);
    }
}
