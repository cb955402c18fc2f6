//! Call stacks: which function called for each live buffer and each failed allocation, for
//! `--stacks`.
//!
//! A thread of its own takes the copied stacks, unwinds them and keeps what it finds by the time
//! and thread of the allocation. Whoever shows buffers asks for it then; the ledger, and what keeps
//! it, knows nothing of it. A stack that is lost is counted, and leaves every number as it is.
//!
//! What it leaves out: lines of source, but for those of Python.

mod binary;
mod calls;
mod files;
mod frames;
mod kept;
mod modules;
mod names;
mod python;
mod record;
mod site;
mod target;
mod unwind;
mod worker;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    fmt, io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::event::{EventfdFlags, eventfd};

use crate::{
    ledger::{
        call::{self, Call, CallStack, Calls as _, Lookup, Site, StackCounts},
        report::KEPT_ENDED,
        snapshot::Snapshot,
    },
    source::StackSource,
    units::{Pid, Tid},
};
use calls::Calls;
pub use calls::Key;
pub use modules::Modules;
pub use python::Python;
pub use target::Interpreter;
use target::Target;
pub use worker::AskLive;
use worker::{Message, Worker};

/// The running thread. Dropping it ends it.
pub struct Unwinding {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// Tells the thread of targets, and what it has found out.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
    messages: Sender<Message>,
}

/// What the thread has found out.
struct Shared {
    known: Mutex<Known>,
    lost: AtomicU64,
    different: AtomicU64,
    wake: OwnedFd,
}

/// What is known of the targets.
#[derive(Default)]
struct Known {
    targets: BTreeMap<u64, Calls>,
    /// Those of them that have ended, in that order.
    ended: VecDeque<u64>,
    /// The names of all sites, by number.
    sites: Vec<Arc<str>>,
}

impl Known {
    /// One has ended: it is forgotten when enough others have ended since.
    fn end(&mut self, serial: u64) {
        self.ended.push_back(serial);
        while self.ended.len() > KEPT_ENDED {
            let oldest = self.ended.pop_front();
            self.targets.retain(|serial, _| Some(*serial) != oldest);
        }
    }
}

/// What is known of one of them, while it is looked at.
struct Looked<'a> {
    calls: &'a Calls,
    sites: &'a [Arc<str>],
    lost: u64,
}

impl Unwinding {
    /// Starts the thread; `prepare` is the first that it does.
    pub fn start<S: StackSource + Send + 'static>(
        source: S,
        ask_live: AskLive,
        prepare: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            known: Mutex::default(),
            lost: AtomicU64::new(0),
            different: AtomicU64::new(0),
            wake,
        });
        let (messages, received) = channel();
        let worker = Worker::new(source, Arc::clone(&shared), received, ask_live);
        let thread = thread::Builder::new().name("ttmem-stacks".to_owned()).spawn(move || {
            if let Err(error) = prepare() {
                log::error!("no call stacks: {error}");
                return;
            }
            worker.run();
        })?;
        Ok(Self { handle: Handle { shared, messages }, thread: Some(thread) })
    }

    /// What others use.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Unwinding {
    fn drop(&mut self) {
        self.handle.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

impl Handle {
    fn send(&self, message: Message) {
        // After its end nobody listens.
        let _ = self.messages.send(message);
        // It cannot fail but by a full counter, which is a wake-up too.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }

    /// A target is about to be attached to.
    pub fn add(&self, serial: u64, slot: u32, pid: Pid, modules: Modules, python: Interpreter) {
        self.shared.lock().targets.insert(serial, Calls::default());
        let (added, is_added) = channel::<()>();
        self.send(Message::Add(Box::new(Target::new(serial, slot, pid, modules, python)), added));
        // Hung up: it has been added, or there is nobody to add it.
        let _ = is_added.recv();
    }

    /// A target is gone. What is known of its buffers stays for a while.
    pub fn remove(&self, serial: u64) {
        self.shared.lock().end(serial);
        self.send(Message::Remove(serial));
    }

    /// Fills in what called for the buffers and the failed allocations of a snapshot, and what was
    /// counted.
    pub fn fill_in(&self, snapshot: &mut Snapshot) {
        let serial = snapshot.process.serial;
        snapshot.stacks = self.counts(serial);
        self.look(serial, &mut |known| {
            let buffers = snapshot.buffers.iter_mut().flatten();
            buffers.for_each(|buffer| buffer.look_up(known));
            let failures = snapshot.failures.last.iter_mut();
            failures.for_each(|failure| Arc::make_mut(failure).look_up(known));
        });
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

impl call::Calls for Handle {
    fn look(&self, serial: u64, look: &mut dyn FnMut(&dyn Lookup)) {
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let known = self.shared.lock();
        let none = Calls::default();
        let calls = known.targets.get(&serial).unwrap_or(&none);
        look(&Looked { calls, sites: &known.sites, lost });
    }

    fn catch_up(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let (done, is_done) = channel::<()>();
        self.send(Message::CatchUp(done));
        // Hung up, or too slow: both end the wait.
        let _ = is_done.recv_timeout(PATIENCE);
    }

    fn counts(&self, serial: u64) -> Option<StackCounts> {
        let (counts, kept) = {
            let known = self.shared.lock();
            let calls = known.targets.get(&serial)?;
            (calls.counts.clone(), calls.kept())
        };
        let lost = self.shared.lost.load(Ordering::Relaxed);
        let different = self.shared.different.load(Ordering::Relaxed);
        Some(StackCounts { lost, kept, different, ..counts })
    }
}

impl Lookup for Looked<'_> {
    fn stack(&self, allocated_ns: u64, tid: Tid) -> Option<&Arc<CallStack>> {
        self.calls.get((allocated_ns, tid))
    }

    fn call(&self, tid: Option<Tid>, allocated_ns: Option<u64>, pre_attach: bool) -> Call {
        self.calls.call(tid, allocated_ns, pre_attach, self.lost)
    }

    fn sites(&self) -> &[Arc<str>] {
        self.sites
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, serial: u64, key: Key, stack: Option<Arc<CallStack>>) {
        let mut known = self.lock();
        let site = stack.as_ref().and_then(|stack| stack.site.clone());
        if let Some(Site { number, name }) = site {
            let place = number as usize;
            // A site whose only stacks were not kept is not known here.
            while known.sites.len() <= place {
                known.sites.push(Arc::default());
            }
            known.sites[place] = name;
        }
        if let Some(calls) = known.targets.get_mut(&serial) {
            calls.add(key, stack);
        }
    }

    /// Nobody has a stack with these sites any more.
    fn forget_sites(&self, numbers: &[u32]) {
        let mut known = self.lock();
        for number in numbers {
            if let Some(name) = known.sites.get_mut(*number as usize) {
                *name = Arc::default();
            }
        }
    }

    fn due(&self) -> Vec<u64> {
        let known = self.lock();
        let due = known.targets.iter().filter(|(_, calls)| calls.is_due());
        due.map(|(serial, _)| *serial).collect()
    }

    fn retain(&self, serial: u64, time_ns: u64, live: &HashSet<Key>) {
        if let Some(calls) = self.lock().targets.get_mut(&serial) {
            calls.retain(time_ns, live);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_runs_is_known_however_many_have_ended() {
        let mut known = Known::default();
        known.targets.insert(1, Calls::default());
        for serial in 2..200 {
            known.targets.insert(serial, Calls::default());
            known.end(serial);
        }
        let kept: Vec<u64> = known.targets.keys().copied().collect();
        assert_eq!(kept[0], 1);
        assert_eq!(kept[1..], (200 - KEPT_ENDED as u64..200).collect::<Vec<_>>());
    }
}
