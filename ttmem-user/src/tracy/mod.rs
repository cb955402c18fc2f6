//! `--tracy`: what a target does, shown in the Tracy viewer while it happens.
//!
//! Each target is a program of its own to Tracy, on a port of its own. Its deltas come through a
//! queue of bounded length to a thread of this module, which keeps a mirror of what is live, and
//! tells it to whoever looks. Nothing of it can delay the pipeline.

#[cfg(feature = "tracy-client")]
pub mod client;
pub mod feed;
pub mod mirror;
pub mod op;
mod scene;
mod threads;
pub mod wire;

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    ledger::{call::Calls, report::Report, snapshot::ProcessLabel},
    pipeline::Control,
    sink::Follower,
    stderr::remark,
    units::Pid,
};
use mirror::Style;
use scene::Scene;
use wire::{
    peer::Allowed,
    port::{self, Port, PortError},
    protocol::Choice,
    serve::{Door, serve},
};

/// How to show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The first address to listen on; with port 0 any free port.
    pub address: SocketAddr,
    /// Who speaks to viewers.
    pub backend: Backend,
    /// Which versions are spoken.
    pub protocol: Choice,
    /// What pools are called.
    pub style: Style,
    /// Whether lines about viewers may be written to standard error later on, too.
    pub talkative: bool,
}

/// Who speaks to viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// This program.
    Wire,
    /// Tracy's own client, in a process of its own.
    #[cfg(feature = "tracy-client")]
    Client,
}

enum Command {
    Serve(Box<(Scene, Door)>),
    #[cfg(feature = "tracy-client")]
    ServeByClient(Box<(Scene, client::serve::Source)>),
    Reports(watch::Receiver<Arc<Report>>),
}

/// The running thread. Dropping it says good-bye to all viewers.
pub struct Tracy {
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
    control: Arc<Control>,
    config: Config,
    /// Where call stacks are looked up, if they are recorded.
    calls: Option<Arc<dyn Calls>>,
    speaker: Speaker,
}

/// What speaks to viewers; the first is there before a target is.
#[derive(Clone)]
enum Speaker {
    Wire(Arc<Mutex<Option<Port>>>),
    #[cfg(feature = "tracy-client")]
    Client(Arc<client::nursery::Nursery>, Arc<Mutex<Option<client::nursery::Started>>>),
}

/// It cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum TracyError {
    /// No port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// No process for Tracy's client, or no port.
    #[cfg(feature = "tracy-client")]
    #[error(transparent)]
    Client(#[from] client::nursery::StartError),
    /// Tracy's client listens on the loopback interface alone, in its own protocol.
    #[cfg(feature = "tracy-client")]
    #[error("--tracy-backend client listens on 127.0.0.1 and speaks protocol 82, nothing else")]
    NotByClient,
    /// No thread.
    #[error("cannot start a thread for Tracy")]
    Thread(#[from] io::Error),
}

impl Tracy {
    /// Listens, and starts the thread; `prepare` is the first that it does.
    pub fn start(
        config: Config,
        control: &Arc<Control>,
        calls: Option<Arc<dyn Calls>>,
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self, TracyError> {
        let speaker = Speaker::start(&config)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (commands, received) = mpsc::unbounded_channel();
        let thread = thread::Builder::new().name("ttmem-tracy".to_owned()).spawn(move || {
            if let Err(error) = prepare() {
                remark!("ttmem: no Tracy: {error}");
                return;
            }
            runtime.block_on(obey(received));
        })?;
        Ok(Self {
            commands: Some(commands),
            thread: Some(thread),
            control: Arc::clone(control),
            config,
            calls,
            speaker,
        })
    }

    /// Follows each target from its first record on.
    pub fn follower(&self) -> Follower {
        let commands = self.commands.clone();
        let (control, config) = (Arc::clone(&self.control), self.config.clone());
        let (speaker, calls) = (self.speaker.clone(), self.calls.clone());
        Box::new(move |process| {
            let (feed, queue) = feed::queue();
            let scene = Scene::new(process, queue, &control, config.style);
            match speaker.serve(scene, process, &config, calls.as_ref()) {
                Ok(command) => {
                    if let Some(commands) = &commands {
                        // Without its thread nobody is served.
                        let _ = commands.send(command);
                    }
                }
                Err(error) if config.talkative => remark!("ttmem: {error}"),
                Err(_) => {}
            }
            Box::new(feed)
        })
    }

    /// Where snapshots come from.
    pub fn watch(&self, reports: watch::Receiver<Arc<Report>>) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(Command::Reports(reports));
        }
    }
}

impl Drop for Tracy {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

impl Speaker {
    fn start(config: &Config) -> Result<Self, TracyError> {
        match config.backend {
            Backend::Wire => {
                let port = port::listen(config.address)?;
                announce(port.address, port.instead.as_deref());
                Ok(Self::Wire(Arc::new(Mutex::new(Some(port)))))
            }
            #[cfg(feature = "tracy-client")]
            Backend::Client => {
                let ip = config.address.ip();
                let fits = matches!(config.protocol, Choice::Negotiated | Choice::Only(82));
                if ip != std::net::Ipv4Addr::LOCALHOST || !fits {
                    return Err(TracyError::NotByClient);
                }
                let nursery = client::nursery::Nursery::open()?;
                let started = nursery.start(config.address)?;
                announce(started.address, started.instead.as_deref());
                remark!("ttmem: every user of this machine can connect there");
                Ok(Self::Client(Arc::new(nursery), Arc::new(Mutex::new(Some(started)))))
            }
        }
    }

    /// What is to be done for a target.
    fn serve(
        &self,
        scene: Scene,
        process: &ProcessLabel,
        config: &Config,
        calls: Option<&Arc<dyn Calls>>,
    ) -> Result<Command, PortError> {
        match self {
            Self::Wire(first) => {
                let taken = first.lock().unwrap_or_else(PoisonError::into_inner).take();
                let is_first = taken.is_some();
                let port = taken.map_or_else(|| port::listen(config.address), Ok)?;
                if !is_first && config.talkative {
                    announce_of(process, &port);
                }
                let door = Door { calls: calls.map(Arc::clone), ..door(config, process, port) };
                Ok(Command::Serve(Box::new((scene, door))))
            }
            #[cfg(feature = "tracy-client")]
            Self::Client(nursery, first) => {
                let source = client::serve::Source {
                    nursery: Arc::clone(nursery),
                    wanted: config.address,
                    first: first.lock().unwrap_or_else(PoisonError::into_inner).take(),
                    say: say(config),
                };
                Ok(Command::ServeByClient(Box::new((scene, source))))
            }
        }
    }
}

fn announce(address: SocketAddr, instead: Option<&str>) {
    let why = instead.map_or_else(String::new, |why| format!(" ({why})"));
    remark!("ttmem: Tracy viewers can connect to {address}{why}");
    if !address.ip().is_loopback() {
        remark!(
            "ttmem: everybody who can reach {address} can see the command line, the names of \
             threads, and the sizes and addresses of buffers"
        );
    }
}

fn announce_of(process: &ProcessLabel, port: &Port) {
    let why = port.instead.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    remark!("ttmem: process {} in Tracy: {}{why}", process.pid, port.address);
}

fn door(config: &Config, process: &ProcessLabel, port: Port) -> Door {
    Door {
        listener: port.listener,
        allowed: allowed(process.pid),
        protocol: config.protocol,
        say: say(config),
        calls: None,
    }
}

/// Where lines about viewers go.
fn say(config: &Config) -> Arc<dyn Fn(&str) + Send + Sync> {
    let talkative = config.talkative;
    Arc::new(move |line: &str| {
        if talkative {
            remark!("ttmem: {line}");
        }
    })
}

/// Root, this program's user, the user who called it by sudo, and the user of the process.
fn allowed(pid: Pid) -> Allowed {
    let own = rustix::process::getuid().as_raw();
    let caller = std::env::var("SUDO_UID").ok().filter(|_| own == 0);
    let caller = caller.and_then(|text| text.parse().ok());
    let pid = i32::try_from(pid.0).unwrap_or(0);
    let status = procfs::process::Process::new(pid).and_then(|process| process.status()).ok();
    // Whoever has borrowed the rights of another is not trusted with what they show.
    let user = status
        .filter(|status| status.ruid == status.euid && status.euid == status.suid)
        .map(|status| status.euid);
    Allowed([Some(0), Some(own), caller, user].into_iter().flatten().collect())
}

async fn obey(mut commands: mpsc::UnboundedReceiver<Command>) {
    let (to_all, reports) = watch::channel(Arc::new(Report::default()));
    let mut to_all = Some(to_all);
    let mut running = JoinSet::new();
    let mut passing_on = JoinSet::new();
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            Some(_) = running.join_next() => continue,
        };
        match command {
            Some(Command::Serve(target)) => {
                let (scene, door) = *target;
                running.spawn(serve(scene, door, reports.clone()));
            }
            #[cfg(feature = "tracy-client")]
            Some(Command::ServeByClient(target)) => {
                let (scene, source) = *target;
                running.spawn(client::serve::serve(scene, source, reports.clone()));
            }
            Some(Command::Reports(from)) => {
                if let Some(to_all) = to_all.take() {
                    passing_on.spawn(pass_on(from, to_all));
                }
            }
            None => break,
        }
    }
    drop(to_all);
    while running.join_next().await.is_some() {}
}

/// Passes reports on; the last one is kept.
async fn pass_on(mut from: watch::Receiver<Arc<Report>>, to: watch::Sender<Arc<Report>>) {
    while from.changed().await.is_ok() {
        to.send_replace(Arc::clone(&from.borrow_and_update()));
    }
}
