//! The thread that takes the stacks and unwinds them.

use std::{
    collections::HashSet,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, Sender},
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};

use super::{Shared, calls::Key, kept::Stacks, record::Record, target::Target};
use crate::source::StackSource;

/// How often the ring is looked at while stacks come.
const BUSY_TICK: Duration = Duration::from_millis(5);
/// After this many looks in vain it sleeps until it is woken, which costs the target something.
const QUIET_LOOKS: u32 = 8;
/// After so many at once more are likely to have come already.
const MANY: usize = 32;
/// How often it is found out at most what is live, and which stacks nobody needs any more where there is
/// no room for another one.
const SWEEP: Duration = Duration::from_secs(1);
/// Bytes of memory that are taken to turn the stacks of all targets into names.
const MOST_BYTES: usize = 512 << 20;

/// What the thread is told.
pub enum Message {
    /// A target is about to be attached to; answered by hanging up. Only then may the probes go in,
    /// or its first stacks would find nobody.
    Add(Box<Target>, Sender<()>),
    /// A target is gone, or could not be attached to.
    Remove(u64),
    /// What has arrived so far is to be taken in; answered by hanging up.
    CatchUp(Sender<()>),
    /// The end.
    Stop,
}

/// What is live of a target, and the time up to which every event has been applied; `None`: the
/// target is gone.
pub type AskLive = Box<dyn Fn(u64) -> Option<(u64, HashSet<Key>)> + Send>;

pub struct Worker<S> {
    source: S,
    shared: Arc<Shared>,
    messages: Receiver<Message>,
    ask_live: AskLive,
    targets: Vec<Target>,
    stacks: Stacks,
    swept: Option<Instant>,
    pruned: Option<Instant>,
}

impl<S: StackSource> Worker<S> {
    pub fn new(
        source: S,
        shared: Arc<Shared>,
        messages: Receiver<Message>,
        ask_live: AskLive,
    ) -> Self {
        let (targets, stacks) = (Vec::new(), Stacks::default());
        Self { source, shared, messages, ask_live, targets, stacks, swept: None, pruned: None }
    }

    /// Works until it is told to end.
    pub fn run(mut self) {
        let mut vain = 0;
        while self.obey() {
            let (taken, _) = self.take_in();
            vain = if taken > 0 { 0 } else { vain + 1 };
            self.forget();
            if taken < MANY {
                self.sleep(vain >= QUIET_LOOKS);
            }
        }
    }

    fn obey(&mut self) -> bool {
        while let Ok(message) = self.messages.try_recv() {
            match message {
                Message::Add(target, added) => {
                    self.targets.retain(|other| other.slot != target.slot);
                    self.targets.push(*target);
                    drop(added);
                }
                Message::Remove(serial) => {
                    // The last stacks are still to be unwound.
                    self.take_in();
                    self.targets.retain(|target| target.serial != serial);
                    self.shared.forget_sites(&self.stacks.prune());
                }
                Message::CatchUp(done) => {
                    self.take_in();
                    drop(done);
                }
                Message::Stop => return false,
            }
        }
        true
    }

    /// Takes in what has arrived; returns how many stacks, and `false` if one is being written.
    fn take_in(&mut self) -> (usize, bool) {
        let Self { source, shared, targets, stacks, pruned, .. } = self;
        let mut taken = 0;
        let whole = source.drain(&mut |records| {
            taken += records.len();
            for bytes in records {
                take(targets, stacks, shared, pruned, bytes);
            }
        });
        shared.lost.store(source.lost(), Ordering::Relaxed);
        shared.different.store(stacks.len() as u64, Ordering::Relaxed);
        (taken, whole)
    }

    /// Forgets the stacks of buffers that have been freed, now and then.
    fn forget(&mut self) {
        if self.swept.is_some_and(|then| then.elapsed() < SWEEP) {
            return;
        }
        for serial in self.shared.due() {
            self.swept = Some(Instant::now());
            if let Some((time_ns, live)) = (self.ask_live)(serial) {
                self.shared.retain(serial, time_ns, &live);
            }
        }
    }

    fn sleep(&mut self, quiet: bool) {
        if quiet {
            self.source.request_wake_up(true);
            // What came before the request wakes nobody.
            match self.take_in() {
                (0, true) => wait(&[self.source.wake_up(), self.shared.wake.as_fd()], None),
                (0, false) => wait(&[self.shared.wake.as_fd()], Some(BUSY_TICK)),
                _ => {}
            }
            self.source.request_wake_up(false);
        } else {
            wait(&[self.shared.wake.as_fd()], Some(BUSY_TICK));
        }
        let mut drained = [0; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut drained);
    }
}

fn wait(fds: &[std::os::fd::BorrowedFd<'_>], timeout: Option<Duration>) {
    let mut fds: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    // An interrupted wait is only a short one.
    let _ = poll(&mut fds, timeout.as_ref());
}

fn take(
    targets: &mut [Target],
    stacks: &mut Stacks,
    shared: &Shared,
    pruned: &mut Option<Instant>,
    bytes: &[u8],
) {
    let record = match Record::parse(bytes) {
        Ok(record) => record,
        Err(error) => return log::debug!("{error}"),
    };
    // A slot may have been somebody else's.
    let is_it = |target: &Target| target.slot == record.slot && target.pid == record.pid;
    let Some(index) = targets.iter().position(is_it) else {
        return log::debug!("a call stack of a target that is not watched any more");
    };
    let mut stack = targets[index].stack(&record, stacks);
    if stack.is_none() && pruned.is_none_or(|then| then.elapsed() >= SWEEP) {
        *pruned = Some(Instant::now());
        targets.iter_mut().for_each(Target::forget_names);
        shared.forget_sites(&stacks.prune());
        stack = targets[index].stack(&record, stacks);
    }
    shared.add(targets[index].serial, (record.time_ns, record.tid), stack);
    if targets.iter().map(Target::size).sum::<usize>() > MOST_BYTES
        && let Some(largest) = targets.iter_mut().max_by_key(|target| target.size())
    {
        largest.forget();
    }
}
