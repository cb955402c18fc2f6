//! Drain → decode → apply → publish, on a thread of its own: nothing that shows the numbers can
//! hold up what keeps them.
//!
//! When to look at the ring: records do not wake the agent, that would cost the target a wake-up
//! each. While events flow, the ring is drained on a short timer. After a quiet spell the agent
//! asks for one wake-up and sleeps until it comes.

mod health;
mod intake;
mod queries;
mod readers;
mod wait;
mod watched;
mod worker;

use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::watch;

use crate::{
    ledger::{
        Ledger,
        report::{Report, Unwatched},
        snapshot::Detail,
    },
    sink::DeltaSink,
    source::EventSource,
    units::Pid,
};
use worker::Worker;

pub use readers::ReadLive;
pub use wait::now_ns;
pub use watched::NewTarget;

/// What a pipeline is to do.
pub struct Options {
    /// How often a snapshot is published.
    pub refresh: Duration,
    /// Ends by itself after this time.
    pub duration: Option<Duration>,
    /// Ends with the first report in which all targets' older buffers are known.
    pub once: bool,
    /// But not before there has been any target.
    pub awaits_target: bool,
    /// Ends when all known targets have ended; else it waits for others.
    pub ends_with_targets: bool,
    /// What snapshots hold beyond the totals.
    pub detail: Detail,
    /// What a target's last snapshot holds besides: no more can be asked for later.
    pub detail_at_end: Detail,
    /// How often every target's memory is read again and compared.
    pub audit: Option<Duration>,
}

/// What a pipeline is told while it runs.
pub enum Command {
    /// A target is about to be attached to. It is answered; only then may the probes go in, or
    /// their first records would find nobody.
    Add(Box<NewTarget>, Sender<()>),
    /// The probes of the target in a slot are in place.
    Attached(u32),
    /// The target in a slot could not be attached to.
    Withdraw(u32),
    /// A target may have been replaced.
    LookAtTargets,
    /// A process has tt-metal and cannot be watched.
    Unwatched(Unwatched),
    /// Such a process has ended.
    Gone(Pid),
    /// All targets that there were at the start have been added.
    AllAdded,
    /// Every target's live buffers are to be read again.
    Resync,
    /// Snapshots are to hold this beyond what the options ask for, from the next one on, which
    /// comes at once.
    Detail(Detail),
    /// Somebody wants to look at a target.
    Query(Query),
}

/// A look at one target, with every event up to now applied. If the target is gone it is dropped
/// without an answer.
pub struct Query {
    /// The target's serial.
    pub serial: u64,
    /// What it asks for.
    pub kind: QueryKind,
    /// What to do with it; nothing is drained meanwhile.
    pub run: Box<dyn FnOnce(View<'_>) + Send>,
}

/// What a query asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// A word, or a change of something small.
    Quick,
    /// That the shared table holds everything, circular buffers included.
    Sync,
    /// All that is live, or as much as that: it waits while others are answered.
    Long,
}

/// What a query gets to see.
pub struct View<'a> {
    /// Every event up to then has been applied, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// The target's state.
    pub ledger: &'a mut Ledger,
    /// What follows its changes.
    pub sinks: &'a mut Vec<Box<dyn DeltaSink>>,
}

/// What a pipeline tells whoever attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A target has ended.
    Ended(Gone),
    /// It runs another program now.
    Replaced(Gone),
}

/// A target that is gone. Its slot is free, unless another has got it meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The slot.
    pub slot: u32,
    /// The target's number: no other has it.
    pub serial: u64,
    /// The process.
    pub pid: Pid,
}

/// Called with what happens to targets; must not block.
pub type OnNotice = Box<dyn Fn(Notice) + Send>;

/// Says that the thread has ended by a panic, before the reports end.
struct Lookout {
    control: Arc<Control>,
    _reports: watch::Sender<Arc<Report>>,
}

impl Drop for Lookout {
    fn drop(&mut self) {
        if thread::panicking() {
            self.control.failed.store(true, Ordering::SeqCst);
        }
    }
}

/// A running pipeline. Dropping it stops it and waits for its end.
pub struct Pipeline {
    thread: Option<JoinHandle<()>>,
    control: Arc<Control>,
}

/// Tells a pipeline what to do, and to stop.
pub struct Control {
    stop: AtomicBool,
    failed: AtomicBool,
    wake: OwnedFd,
    commands: Mutex<Sender<Command>>,
    received: Mutex<Option<Receiver<Command>>>,
}

impl Control {
    /// For the pipeline and whoever else has to wake it.
    pub fn new() -> io::Result<Arc<Self>> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (commands, received) = channel();
        Ok(Arc::new(Self {
            stop: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            wake,
            commands: Mutex::new(commands),
            received: Mutex::new(Some(received)),
        }))
    }

    /// Ends the pipeline's sleep.
    pub fn wake(&self) {
        // It cannot fail but by a full counter, which is a wake-up too.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Tells it something. After its end nobody listens.
    pub fn send(&self, command: Command) {
        let _ = self.commands.lock().unwrap_or_else(PoisonError::into_inner).send(command);
        self.wake();
    }

    /// Ends the pipeline after a last report.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether it is to end.
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether its thread has ended by a panic; to be asked once there are no more reports.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    fn take_commands(&self) -> io::Result<Receiver<Command>> {
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.take().ok_or_else(|| io::Error::other("a control is for one pipeline only"))
    }
}

impl Pipeline {
    /// Starts a pipeline without targets. The receiver's first value is an empty report that is
    /// never shown; it closes after the last one.
    pub fn start<S: EventSource + Send + 'static>(
        source: S,
        options: Options,
        control: Arc<Control>,
        on_notice: OnNotice,
    ) -> io::Result<(Self, watch::Receiver<Arc<Report>>)> {
        let (sender, receiver) = watch::channel(Arc::new(Report::default()));
        let lookout = Lookout { control: Arc::clone(&control), _reports: sender.clone() };
        let worker = Worker::new(source, options, Arc::clone(&control), on_notice, sender)?;
        let thread = thread::Builder::new().name("ttmem-pipeline".to_owned()).spawn(move || {
            let _lookout = lookout;
            worker.run();
        })?;
        Ok((Self { thread: Some(thread), control }, receiver))
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.control.stop();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
