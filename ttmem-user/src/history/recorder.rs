//! The thread that keeps the histories of all targets, and the way there.
//!
//! The pipeline's thread only hands on what it has: a queue of bounded length is between the two.
//! If the queue is full, nothing is taken until what is live has been fetched anew; how much was
//! missed is in the history.
//!
//! Readers hold a history's lock only while they copy what they show. That may delay this thread,
//! and never the pipeline.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use super::{History, MAX_ENTRIES, Mark, Refill};
use crate::{
    ledger::{
        delta::Delta,
        health::Queue,
        report::{KEPT_ENDED, Report},
        snapshot::ProcessLabel,
    },
    sink::{DeltaSink, Follower},
};

/// Deltas that may wait; one more batch of whatever length is taken if there are fewer.
pub const MAX_WAITING: usize = 65_536;
/// Changes that the logs of all targets keep together.
const MAX_ENTRIES_OF_ALL: usize = 2 * MAX_ENTRIES;
/// Deltas that are applied without letting readers in between.
const AT_ONCE: usize = 1024;

/// Hands on what is live in a target, with every delta up to then passed on before. Called on the
/// thread that passes them on. Dropped uncalled if the target is gone.
pub type OnRefill = Box<dyn FnOnce(Refill) + Send>;
/// Fetches what is live in the target with this serial.
pub type Fetch = Box<dyn Fn(u64, OnRefill) + Send + Sync>;

/// A history that is being written.
pub struct Shared {
    /// What it is of.
    pub label: Arc<ProcessLabel>,
    history: Mutex<History>,
    generation: AtomicU64,
    feed: Feed,
}

/// What the pipeline's side and the thread know of a target.
#[derive(Default)]
struct Feed {
    /// Nothing is taken until what is live has been fetched.
    dropping: AtomicBool,
}

/// Leads to a history; cheap to copy.
pub type Handle = Arc<Shared>;

/// The histories of all targets, by serial.
#[derive(Clone, Default)]
pub struct Histories(Arc<RwLock<BTreeMap<u64, Handle>>>);

/// What the thread is told.
enum Message {
    Began,
    Deltas(Handle, Arc<[Delta]>),
    /// The queue is full.
    Full(Handle),
    Refill(Handle, Refill),
    /// It cannot be fetched.
    Unfilled(Handle),
    Ended(Handle),
    /// What is live can be fetched from here on.
    Connected,
    Stop,
}

/// What both sides share.
struct Way {
    waiting: AtomicUsize,
    overflows: AtomicU64,
    fetch: OnceLock<Fetch>,
    limit: usize,
}

/// Keeps the histories. Dropping it ends the thread; the histories stay.
pub struct Recorder {
    histories: Histories,
    messages: Sender<Message>,
    way: Arc<Way>,
    thread: Option<JoinHandle<()>>,
}

impl Shared {
    /// The history as it is now. To be held no longer than it takes to copy what is shown.
    pub fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another number whenever something has changed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Marks an instant.
    pub fn mark(&self, name: &str, time_ns: u64) {
        self.lock().mark(name, time_ns);
        self.changed();
    }

    /// Takes over a mark of an earlier copy.
    pub fn take_mark(&self, mark: Mark) {
        self.lock().take_mark(mark);
        self.changed();
    }

    /// What is recorded so far, for whoever wants to keep it. It shares memory with what goes on
    /// being recorded, until that changes.
    pub fn copy(&self) -> Handle {
        Arc::new(Self {
            label: Arc::clone(&self.label),
            history: Mutex::new(self.lock().clone()),
            generation: AtomicU64::new(self.generation()),
            feed: Feed::default(),
        })
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("label", &self.label).finish_non_exhaustive()
    }
}

impl fmt::Debug for Histories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histories").finish_non_exhaustive()
    }
}

impl Histories {
    /// The history of the target with this serial.
    pub fn get(&self, serial: u64) -> Option<Handle> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&serial).cloned()
    }

    /// Notes what a report says beyond the deltas: failures, loss, readings, ends.
    pub fn observe(&self, report: &Report) {
        for snapshot in &report.targets {
            let Some(shared) = self.get(snapshot.process.serial) else { continue };
            let any = shared.lock().observe(snapshot);
            if any {
                shared.changed();
            }
        }
    }

    /// A history that nobody writes, for tests and the like.
    pub fn add(&self, label: Arc<ProcessLabel>, history: History) -> Handle {
        let serial = label.serial;
        let shared = Arc::new(Shared {
            label,
            history: Mutex::new(history),
            generation: AtomicU64::new(1),
            feed: Feed::default(),
        });
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(serial, Arc::clone(&shared));
        shared
    }

    fn all(&self) -> Vec<Handle> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn forget(&self, serial: u64) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&serial);
    }
}

impl Recorder {
    /// Starts the thread, which first of all gives up its rights by `give_up`.
    pub fn start(give_up: fn() -> io::Result<()>) -> io::Result<Self> {
        Self::with_queue(MAX_WAITING, give_up)
    }

    /// The same with a queue of so many deltas.
    pub fn with_queue(limit: usize, give_up: fn() -> io::Result<()>) -> io::Result<Self> {
        let (messages, received) = channel();
        let (begun, started) = channel();
        let way = Arc::new(Way {
            waiting: AtomicUsize::new(0),
            overflows: AtomicU64::new(0),
            fetch: OnceLock::new(),
            limit,
        });
        let histories = Histories::default();
        let worker = Worker {
            histories: histories.clone(),
            messages: messages.clone(),
            way: Arc::clone(&way),
            unfetched: Vec::new(),
            ended: VecDeque::new(),
        };
        let thread = thread::Builder::new().name("ttmem-history".to_owned()).spawn(move || {
            let without_rights = give_up();
            let may_go_on = without_rights.is_ok();
            let _ = begun.send(without_rights);
            if may_go_on {
                worker.run(&received);
            }
        })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Self { histories, messages, way, thread: Some(thread) })
    }

    /// Has what is live be fetched this way. Only the first call counts.
    pub fn connect(&self, fetch: Fetch) {
        let _ = self.way.fetch.set(fetch);
        let _ = self.messages.send(Message::Connected);
    }

    /// What gives each new target a history.
    pub fn follower(&self) -> Follower {
        let (histories, messages) = (self.histories.clone(), self.messages.clone());
        let way = Arc::clone(&self.way);
        Box::new(move |label| {
            let to = histories.add(Arc::clone(label), History::default());
            let sink = Sink { to, messages: messages.clone(), way: Arc::clone(&way) };
            let _ = sink.messages.send(Message::Began);
            Box::new(sink)
        })
    }

    /// Where to read.
    pub fn histories(&self) -> Histories {
        self.histories.clone()
    }

    /// Deltas that wait, and how often too many did.
    pub fn queue(&self) -> (usize, u64) {
        let Way { waiting, overflows, .. } = &*self.way;
        (waiting.load(Ordering::Relaxed), overflows.load(Ordering::Relaxed))
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

/// The pipeline's end.
struct Sink {
    to: Handle,
    messages: Sender<Message>,
    way: Arc<Way>,
}

impl DeltaSink for Sink {
    fn take(&mut self, deltas: &Arc<[Delta]>) -> bool {
        if self.to.feed.dropping.load(Ordering::Relaxed) {
            return true;
        }
        // Bounded by this count: a channel bounds messages, and those are of any length. A batch is
        // in memory already.
        if self.way.waiting.load(Ordering::Relaxed) >= self.way.limit {
            self.to.feed.dropping.store(true, Ordering::Relaxed);
            self.way.overflows.fetch_add(1, Ordering::Relaxed);
            return self.messages.send(Message::Full(Arc::clone(&self.to))).is_ok();
        }
        self.way.waiting.fetch_add(deltas.len(), Ordering::Relaxed);
        self.messages.send(Message::Deltas(Arc::clone(&self.to), Arc::clone(deltas))).is_ok()
    }

    fn queue(&self) -> Option<Queue> {
        Some(Queue {
            name: "history",
            waiting: self.way.waiting.load(Ordering::Relaxed) as u64,
            room: self.way.limit as u64,
            overflows: self.way.overflows.load(Ordering::Relaxed),
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.messages.send(Message::Ended(Arc::clone(&self.to)));
    }
}

/// Says so if nobody answers.
struct Answer {
    to: Option<Handle>,
    messages: Sender<Message>,
}

impl Answer {
    fn give(mut self, refill: Refill) {
        if let Some(to) = self.to.take() {
            // On the thread that passes deltas on: the next one follows what is in the refill.
            to.feed.dropping.store(false, Ordering::Relaxed);
            let _ = self.messages.send(Message::Refill(to, refill));
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            let _ = self.messages.send(Message::Unfilled(to));
        }
    }
}

struct Worker {
    histories: Histories,
    messages: Sender<Message>,
    way: Arc<Way>,
    /// Those that wait for a way to fetch.
    unfetched: Vec<Handle>,
    /// The serials of those that have ended and are kept, the one that ended first in front.
    ended: VecDeque<u64>,
}

impl Worker {
    fn run(mut self, received: &Receiver<Message>) {
        while let Ok(message) = received.recv() {
            match message {
                Message::Began => self.share_out(),
                Message::Deltas(to, deltas) => self.apply(&to, &deltas),
                Message::Full(to) => {
                    to.lock().fell_behind();
                    self.fetch(to);
                }
                Message::Refill(to, refill) => {
                    to.lock().refill(&refill);
                    to.changed();
                }
                Message::Unfilled(to) => {
                    to.lock().cannot_heal();
                    to.changed();
                }
                Message::Ended(to) => self.ended(&to),
                Message::Connected => {
                    for to in std::mem::take(&mut self.unfetched) {
                        self.fetch(to);
                    }
                }
                Message::Stop => return,
            }
        }
    }

    fn apply(&mut self, to: &Handle, deltas: &[Delta]) {
        for part in deltas.chunks(AT_ONCE) {
            let mut history = to.lock();
            let whole = history.gap().is_none();
            for delta in part {
                history.apply(delta);
            }
            let fell_behind = whole && history.gap().is_some();
            drop(history);
            self.way.waiting.fetch_sub(part.len(), Ordering::Relaxed);
            to.changed();
            if fell_behind {
                self.fetch(Arc::clone(to));
            }
        }
    }

    fn fetch(&mut self, to: Handle) {
        to.changed();
        let Some(fetch) = self.way.fetch.get() else {
            self.unfetched.push(to);
            return;
        };
        let serial = to.label.serial;
        let answer = Answer { to: Some(to), messages: self.messages.clone() };
        fetch(serial, Box::new(move |refill| answer.give(refill)));
    }

    fn ended(&mut self, to: &Handle) {
        self.unfetched.retain(|other| !Arc::ptr_eq(other, to));
        self.ended.push_back(to.label.serial);
        if self.ended.len() > KEPT_ENDED
            && let Some(serial) = self.ended.pop_front()
        {
            self.histories.forget(serial);
        }
        self.share_out();
    }

    /// Shares the room for changes out among the targets. What has ended takes no more than it has;
    /// the rest is for the others.
    fn share_out(&self) {
        let wanted = |shared: Handle| {
            let has_ended = self.ended.contains(&shared.label.serial);
            let wanted = if has_ended { shared.lock().kept() } else { MAX_ENTRIES };
            (wanted, shared)
        };
        let mut all: Vec<(usize, Handle)> = self.histories.all().into_iter().map(wanted).collect();
        all.sort_by_key(|(wanted, _)| *wanted);
        let (mut room, mut left) = (MAX_ENTRIES_OF_ALL, all.len());
        for (wanted, shared) in all {
            let limit = wanted.min(room / left);
            shared.lock().set_log_limit(limit);
            (room, left) = (room - limit, left - 1);
        }
    }
}

#[cfg(test)]
mod tests;
