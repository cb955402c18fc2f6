//! The thread that serves the sockets of all targets.

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixListener as StdListener,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    connection::{self, About},
    peer::Allowed,
    places::{Place, Places},
    source::{FillIn, Source},
};
use crate::{pipeline::Control, table::directory::Placed, units::Pid};

/// Threads that make large answers.
const THREADS: usize = 2;
/// How long nobody may take anything of the last lines.
const LAST_LINES: Duration = Duration::from_millis(500);
/// How long the last lines may take, whoever takes them.
const LAST_OF_ALL: Duration = Duration::from_secs(5);
/// How long to wait where no connection can be accepted, for want of descriptors mostly.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A socket that is to be served.
pub struct NewSocket {
    /// The target's serial.
    pub serial: u64,
    /// The target.
    pub pid: Pid,
    /// Where clients come from.
    pub listener: StdListener,
    /// Who may ask.
    pub allowed: Allowed,
    /// The socket's file, which goes with it.
    pub file: Placed,
}

/// Why a target's socket is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It has ended.
    Exited,
    /// It runs another program.
    Replaced,
    /// ttmem has ended.
    Unwatched,
}

enum Command {
    Open(NewSocket),
    Close(u64, End),
}

/// The running thread. Dropping it says good-bye to all clients.
pub struct Server {
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts the thread; `prepare` is the first that it does, `fill_in` is done to what is asked
    /// for.
    pub fn start(
        control: Arc<Control>,
        fill_in: Option<FillIn>,
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        allow_many_files()?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.max_blocking_threads(THREADS).enable_all().build()?;
        let (commands, received) = mpsc::unbounded_channel();
        let thread = thread::Builder::new().name("ttmem-socket".to_owned()).spawn(move || {
            if let Err(error) = prepare() {
                log::error!("no socket: {error}");
                return;
            }
            runtime.block_on(serve(control, fill_in, received));
        })?;
        Ok(Self { commands: Some(commands), thread: Some(thread) })
    }

    /// Serves a target.
    pub fn open(&self, socket: NewSocket) {
        self.tell(Command::Open(socket));
    }

    /// A target is gone.
    pub fn close(&self, serial: u64, end: End) {
        self.tell(Command::Close(serial, end));
    }

    fn tell(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // Without its thread nobody is served.
            let _ = commands.send(command);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

/// Each client takes a descriptor, and 1024 in all is the usual limit.
fn allow_many_files() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(())
}

async fn serve(
    control: Arc<Control>,
    fill_in: Option<FillIn>,
    mut commands: mpsc::UnboundedReceiver<Command>,
) {
    let clients = Arc::new(Clients::default());
    let mut targets: HashMap<u64, watch::Sender<Option<End>>> = HashMap::new();
    let mut serving = JoinSet::new();
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            Some(_) = serving.join_next() => continue,
        };
        match command {
            Some(Command::Open(socket)) => {
                let (end, ended) = watch::channel(None);
                targets.insert(socket.serial, end);
                let source = Source::new(Arc::clone(&control), socket.serial, fill_in.clone());
                serving.spawn(accept_all(socket, source, ended, Arc::clone(&clients)));
            }
            Some(Command::Close(serial, how)) => {
                if let Some(end) = targets.remove(&serial) {
                    end.send_replace(Some(how));
                }
            }
            None => break,
        }
    }
    for end in targets.values() {
        end.send_replace(Some(End::Unwatched));
    }
    last_lines(&mut serving, &clients.taken).await;
}

/// Waits until all have ended; who does not take its last lines is left.
async fn last_lines(serving: &mut JoinSet<()>, taken: &AtomicU64) {
    let until = Instant::now() + LAST_OF_ALL;
    loop {
        let before = taken.load(Ordering::Relaxed);
        let all = async { while serving.join_next().await.is_some() {} };
        let is_done = timeout(LAST_LINES, all).await.is_ok();
        if is_done || taken.load(Ordering::Relaxed) == before || Instant::now() >= until {
            return;
        }
    }
}

/// How many there are, and how many there were.
#[derive(Default)]
struct Clients {
    now: Arc<Places>,
    ever: AtomicU64,
    /// Grows whenever one of them takes something.
    taken: Arc<AtomicU64>,
}

/// Serves a target's clients until it ends, and they have been told.
async fn accept_all(
    socket: NewSocket,
    source: Source,
    mut ended: watch::Receiver<Option<End>>,
    clients: Arc<Clients>,
) {
    // The clients are told when nobody can connect any more.
    let (tell_clients, told) = watch::channel(None);
    let NewSocket { pid, listener, allowed, file, .. } = socket;
    let listening = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
    let listener = match listening {
        Ok(listener) => listener,
        Err(error) => return log::error!("no socket for process {pid}: {error}"),
    };
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let owner = clients.ever.fetch_add(1, Ordering::Relaxed);
                    let (source, end) = (source.clone(), told.clone());
                    let (taken, places) = (Arc::clone(&clients.taken), Arc::clone(&clients.now));
                    let about = move |place| About { source, pid, owner, place, end, taken };
                    serving.spawn(one_client(stream, about, allowed, places));
                }
                Err(_) => sleep(ACCEPT_AGAIN).await,
            },
            Some(_) = serving.join_next() => {}
            () = connection::is_over(&mut ended) => break,
        }
    }
    drop((listener, file));
    tell_clients.send_replace(Some(ended.borrow().unwrap_or(End::Unwatched)));
    while serving.join_next().await.is_some() {}
}

async fn one_client(
    stream: UnixStream,
    about: impl FnOnce(Place) -> About,
    allowed: Allowed,
    places: Arc<Places>,
) {
    let user = match allowed.check(&stream) {
        Ok(user) => user,
        Err(why) => return connection::refuse(stream, "not_allowed", &why).await,
    };
    match places.take(user) {
        Ok(place) => connection::serve(stream, about(place)).await,
        Err(why) => connection::refuse(stream, "too_many_clients", &why).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long the last lines take if a client takes something so often, for so long.
    async fn waits(every: Duration, times: u32) -> Duration {
        let (mut serving, taken) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
        let progress = Arc::clone(&taken);
        serving.spawn(async move {
            for _ in 0..times {
                sleep(every).await;
                progress.fetch_add(1, Ordering::Relaxed);
            }
        });
        let begun = Instant::now();
        last_lines(&mut serving, &taken).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_something_is_waited_for_but_not_for_ever() {
        let millis = Duration::from_millis;
        assert_eq!(waits(millis(1), 5).await, millis(5));
        assert_eq!(waits(millis(300), 10).await, millis(3000));
        assert_eq!(waits(millis(501), 1).await, LAST_LINES, "nothing was taken");
        assert_eq!(waits(millis(300), 1000).await, LAST_OF_ALL);
    }
}
