//! One target, and the viewer that looks at it.
//!
//! The mirror goes on whether or not anybody looks. A viewer that does not keep up misses what
//! came and went; it is told what is live when it listens again.

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, Interest, Ready},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    encoder::Frame,
    handshake::{self, OFFER_LEN, Program},
    peer::{self, Allowed},
    protocol::{Choice, Protocol},
    session::{Answers, Session, unknown_frame},
    stacks::Stacks,
};
use crate::{
    ledger::{call::Calls, report::Report},
    pipeline::now_ns,
    tracy::{
        mirror::Announced,
        op::{Names, Op, Severity},
        scene::{Scene, Step},
        threads::Threads,
    },
    units::Tid,
};

/// How long a viewer may take to say what it is.
const OFFER: Duration = Duration::from_secs(2);
/// How often a viewer is told that somebody is there.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long a viewer may go on asking after the end.
const LAST_QUESTIONS: Duration = Duration::from_secs(2);
/// Connections that have not said what they are yet.
const MAX_UNKNOWN: usize = 16;
/// Where no connection can be accepted, for want of descriptors mostly.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Where viewers come from, and who.
pub struct Door {
    /// Where.
    pub listener: std::net::TcpListener,
    /// Who.
    pub allowed: Allowed,
    /// Which versions are spoken.
    pub protocol: Choice,
    /// Where lines about viewers go.
    pub say: Arc<dyn Fn(&str) + Send + Sync>,
    /// Where call stacks are looked up, if they are recorded.
    pub calls: Option<Arc<dyn Calls>>,
}

/// Serves one target until it has ended and its viewer has been told.
pub async fn serve(mut scene: Scene, door: Door, mut reports: watch::Receiver<Arc<Report>>) {
    let program = scene.program();
    let say = Arc::clone(&door.say);
    let mut stacks = Stacks::new(door.calls.clone(), scene.serial());
    let listening = door.listener.set_nonblocking(true);
    let listener = match listening.and_then(|()| TcpListener::from_std(door.listener)) {
        Ok(listener) => listener,
        Err(error) => return say(&format!("no Tracy: {error}")),
    };
    let mut unknown = JoinSet::new();
    let mut viewer: Option<Viewer> = None;
    let mut alive = pin!(sleep(KEEP_ALIVE));
    loop {
        tokio::select! {
            biased;
            ready = Viewer::ready(&mut viewer) => {
                if Viewer::exchange(&mut viewer, ready, &scene, &mut stacks).is_err() {
                    viewer = None;
                }
                Viewer::look_after(&mut viewer, &mut scene, &mut stacks);
            }
            step = scene.next(&mut reports) => {
                let is_last = matches!(step, Step::Last);
                let is_watched = viewer.is_some();
                if is_watched {
                    stacks.catch_up().await;
                }
                let record = &mut |op: Op<'_>| Viewer::record(&mut viewer, op, &mut stacks);
                scene.take(step, is_watched, record);
                Viewer::look_after(&mut viewer, &mut scene, &mut stacks);
                if is_last {
                    break;
                }
            }
            Some(found) = unknown.join_next() => match found {
                Ok(Ok((stream, protocol))) => {
                    let welcome = handshake::welcome(&protocol, &program, now_ns());
                    say(&format!("a Tracy viewer has connected, protocol {}", protocol.version));
                    viewer = Some(Viewer::new(stream, &protocol, &welcome));
                    stacks.catch_up().await;
                    scene.announce(&mut |op| Viewer::record(&mut viewer, op, &mut stacks));
                    Viewer::look_after(&mut viewer, &mut scene, &mut stacks);
                    // Whoever else has asked may come again.
                    unknown.abort_all();
                }
                Ok(Err(why)) => say(&format!("a Tracy viewer is not served: {why}")),
                Err(_) => {}
            },
            accepted = listener.accept(), if viewer.is_none() && unknown.len() < MAX_UNKNOWN => {
                match accepted {
                    Ok((stream, from)) => {
                        unknown.spawn(meet(stream, from, door.allowed.clone(), door.protocol));
                    }
                    Err(_) => sleep(ACCEPT_AGAIN).await,
                }
            }
            () = &mut alive, if viewer.is_some() => {
                alive.as_mut().reset(Instant::now() + KEEP_ALIVE);
                if let Some(viewer) = &mut viewer {
                    viewer.session.keep_alive();
                }
            }
        }
    }
    drop(listener);
    let all = async {
        while let Some(Viewer { session, behind, .. }) = &mut viewer {
            if behind.is_none() {
                session.end();
            }
            let ready = Viewer::ready(&mut viewer).await;
            if Viewer::exchange(&mut viewer, ready, &scene, &mut stacks).is_err() {
                return;
            }
            // Who has fallen behind is to know what was live, too.
            Viewer::look_after(&mut viewer, &mut scene, &mut stacks);
        }
    };
    // Who does not listen is left.
    let _ = timeout(LAST_QUESTIONS, all).await;
}

/// Finds out who connects, and what it speaks.
async fn meet(
    mut stream: TcpStream,
    from: SocketAddr,
    allowed: Allowed,
    choice: Choice,
) -> Result<(TcpStream, Protocol), String> {
    let own = stream.local_addr().map_err(|error| error.to_string())?;
    allowed.check(peer::peer(from, own))?;
    let mut offer = [0; OFFER_LEN];
    match timeout(OFFER, stream.read_exact(&mut offer)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(format!("it says nothing: {error}")),
        Err(_) => return Err("it does not say what it is".to_owned()),
    }
    match handshake::agree(&offer, choice) {
        Ok(protocol) => Ok((stream, protocol)),
        Err(refusal) => {
            // It is one byte: there is room for it, or nobody there.
            let _ = stream.try_write(handshake::refuse(&refusal));
            Err(refusal.to_string())
        }
    }
}

struct Viewer {
    stream: TcpStream,
    /// What comes before the frames.
    greeting: Vec<u8>,
    session: Session,
    /// What it knew when it fell behind, and how many operations it has missed since.
    behind: Option<(Announced, u64)>,
}

impl Viewer {
    fn new(stream: TcpStream, protocol: &Protocol, welcome: &[u8]) -> Self {
        // Frames are few, and each is to be seen at once. Without it they would only be late.
        let _ = stream.set_nodelay(true);
        let session = Session::new(protocol.clone());
        Self { stream, greeting: welcome.to_vec(), session, behind: None }
    }

    fn record(viewer: &mut Option<Self>, op: Op<'_>, stacks: &mut Stacks) {
        match viewer {
            Some(Self { behind: Some((_, missed)), .. }) => *missed += 1,
            Some(viewer) => record(&mut viewer.session, op, stacks),
            None => {}
        }
    }

    /// Makes ready what has been recorded; notices who falls behind, and helps who listens again.
    fn look_after(viewer: &mut Option<Self>, scene: &mut Scene, stacks: &mut Stacks) {
        let Some(Self { session, behind, .. }) = viewer else { return };
        session.flush();
        if behind.is_none() && session.is_behind() {
            *behind = Some((scene.mirror().announced(), 0));
        }
        if session.outgoing().is_empty()
            && let Some((before, missed)) = behind.take()
        {
            scene.mirror().catch_up(&before, &mut |op| record(session, op, stacks));
            let text = format!("the viewer was too slow: {missed} operations are left out");
            let out = &mut |op: Op<'_>| record(session, op, stacks);
            scene.mirror_mut().message(Severity::Warning, &text, out);
            session.flush();
        }
    }

    /// Waits until anything can be sent or received.
    async fn ready(viewer: &mut Option<Self>) -> io::Result<Ready> {
        let Some(viewer) = viewer else { return std::future::pending().await };
        let sends = !viewer.greeting.is_empty() || !viewer.session.outgoing().is_empty();
        let interest = match (viewer.session.is_listening(), sends) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, _) => Interest::WRITABLE,
        };
        viewer.stream.ready(interest).await
    }

    /// Sends and receives what can be.
    fn exchange(
        viewer: &mut Option<Self>,
        ready: io::Result<Ready>,
        scene: &Scene,
        stacks: &mut Stacks,
    ) -> io::Result<()> {
        let (Some(viewer), ready) = (viewer, ready?) else { return Ok(()) };
        if ready.is_readable() && viewer.session.is_listening() {
            viewer.receive(scene, stacks)?;
        }
        if ready.is_writable() {
            viewer.send()?;
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.greeting.is_empty() {
            match self.stream.try_write(&self.greeting) {
                Ok(sent) => drop(self.greeting.drain(..sent)),
                Err(error) => return unless_blocked(error),
            }
        }
        while !self.session.outgoing().is_empty() {
            match self.stream.try_write(self.session.outgoing()) {
                Ok(sent) => self.session.has_sent(sent),
                Err(error) => return unless_blocked(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self, scene: &Scene, stacks: &mut Stacks) -> io::Result<()> {
        let mut bytes = [0; 4096];
        match self.stream.try_read(&mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => {
                let (names, threads) = (scene.mirror().names(), scene.threads());
                let mut known = Known { names, threads, stacks };
                self.session.receive(&bytes[..len], &mut known);
                if self.session.is_over() {
                    Err(io::ErrorKind::ConnectionReset.into())
                } else {
                    Ok(())
                }
            }
            Err(error) => unless_blocked(error),
        }
    }
}

fn record(session: &mut Session, op: Op<'_>, stacks: &mut Stacks) {
    let stack = match op {
        Op::Alloc { at, allocated_ns, .. } => stacks.of(allocated_ns, Tid(at.tid)),
        _ => &[],
    };
    session.record(&op, stack);
}

fn unless_blocked(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::WouldBlock { Ok(()) } else { Err(error) }
}

/// What questions are answered from.
struct Known<'a> {
    names: &'a Names,
    threads: &'a Threads,
    stacks: &'a mut Stacks,
}

impl Answers for Known<'_> {
    fn names(&self) -> &Names {
        self.names
    }

    fn thread(&self, tid: u32) -> String {
        self.threads.name(tid)
    }

    fn frames(&mut self, address: u64) -> (String, Vec<Frame>) {
        let unknown = || ("[unknown]".to_owned(), unknown_frame(address));
        let (image, frame) = self.stacks.at(address).unwrap_or_else(unknown);
        (image, vec![frame])
    }
}

/// What a viewer is told of a program.
pub fn program(command: &str, pid: u32, begun_ns: u64, begun_epoch: u64) -> Program {
    let name = command.split_whitespace().next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    Program {
        name: format!("{name} {pid}"),
        host: format!("Mirrored by ttmem {}\nprocess {pid}: {command}", env!("CARGO_PKG_VERSION")),
        pid,
        begun_ns,
        begun_epoch,
    }
}
