//! Drain → decode → apply → publish, on a thread of its own: nothing that shows the numbers can
//! hold up what keeps them.
//!
//! When to look at the ring: records do not wake the agent, that would cost the target a wake-up
//! each. While events flow, the ring is drained on a short timer. After a quiet spell the agent
//! asks for one wake-up and sleeps until it comes.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, TryRecvError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    time::{ClockId, Timespec, clock_gettime},
};
use tokio::sync::watch;

use crate::{
    event::{self, LiveBaseline},
    ledger::{
        Ledger,
        snapshot::{Detail, Snapshot, TargetState},
    },
    source::EventSource,
};

/// How often the ring is drained while events flow.
const BUSY_TICK: Duration = Duration::from_millis(5);
/// Quiet for this long: sleep until woken.
const QUIET: Duration = Duration::from_millis(20);

/// What a pipeline is to do.
pub struct Options {
    /// How often a snapshot is published.
    pub refresh: Duration,
    /// Ends by itself after this time.
    pub duration: Option<Duration>,
    /// Ends with the first snapshot after the baseline.
    pub once: bool,
    /// What snapshots hold beyond the totals.
    pub detail: Detail,
}

/// What a pipeline works on.
pub struct Input<S> {
    /// The records.
    pub source: S,
    /// What is known so far.
    pub ledger: Ledger,
    /// Becomes readable when the target ends.
    pub target: OwnedFd,
    /// Delivers the live buffers from before the attach, once.
    pub baseline: Receiver<Result<LiveBaseline, String>>,
    /// Whether the program that was attached to is still what the target runs.
    pub same_program: Box<dyn Fn() -> bool + Send>,
}

/// A running pipeline. Dropping it stops it and waits for its end.
pub struct Pipeline {
    thread: Option<JoinHandle<()>>,
    control: Arc<Control>,
}

/// Wakes the pipeline's thread, and tells it to stop.
pub struct Control {
    stop: AtomicBool,
    wake: OwnedFd,
}

impl Control {
    /// For the pipeline and whoever else has to wake it.
    pub fn new() -> io::Result<Arc<Self>> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self { stop: AtomicBool::new(false), wake }))
    }

    /// Ends the pipeline's sleep.
    pub fn wake(&self) {
        // It cannot fail but by a full counter, which is a wake-up too.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Ends the pipeline after a last snapshot.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.wake();
    }
}

impl Pipeline {
    /// Starts a pipeline. The receiver's first value is an empty snapshot that is never shown;
    /// it closes after the last one.
    pub fn start<S: EventSource + Send + 'static>(
        input: Input<S>,
        options: Options,
        control: Arc<Control>,
    ) -> io::Result<(Self, watch::Receiver<Arc<Snapshot>>)> {
        let first = input.ledger.snapshot(now_ns(), TargetState::Running, Detail::default());
        let (sender, receiver) = watch::channel(Arc::new(first));
        let worker = Worker {
            source: input.source,
            ledger: input.ledger,
            target: input.target,
            baseline: Some(input.baseline),
            same_program: input.same_program,
            options,
            control: Arc::clone(&control),
            sender,
        };
        let thread =
            thread::Builder::new().name("ttmem-pipeline".to_owned()).spawn(|| worker.run())?;
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

struct Worker<S> {
    source: S,
    ledger: Ledger,
    target: OwnedFd,
    baseline: Option<Receiver<Result<LiveBaseline, String>>>,
    same_program: Box<dyn Fn() -> bool + Send>,
    options: Options,
    control: Arc<Control>,
    sender: watch::Sender<Arc<Snapshot>>,
}

impl<S: EventSource> Worker<S> {
    fn run(mut self) {
        let start = now_ns();
        let mut next_snapshot = start.saturating_add(nanos(self.options.refresh));
        let end = self.options.duration.map(|duration| start.saturating_add(nanos(duration)));
        let mut last_event = start;
        loop {
            if self.take_in(false) > 0 {
                last_event = now_ns();
            }
            let baseline_done = self.take_baseline();
            let ended = self.look_at_target();
            let now = now_ns();
            let over = ended
                || self.control.stop.load(Ordering::SeqCst)
                || end.is_some_and(|end| now >= end)
                || (self.options.once && self.baseline.is_none());
            if over {
                self.finish(ended);
                return;
            }
            if !self.options.once && (baseline_done || now >= next_snapshot) {
                self.publish(TargetState::Running);
                next_snapshot = now.saturating_add(nanos(self.options.refresh));
            }
            let deadline = end.map_or(next_snapshot, |end| end.min(next_snapshot));
            self.sleep(now.saturating_sub(last_event), deadline.saturating_sub(now));
        }
    }

    /// Applies what has arrived; returns the number of records.
    fn take_in(&mut self, to_now: bool) -> u64 {
        let Self { source, ledger, .. } = self;
        let mut records = 0;
        let mut each = |bytes: &[u8]| {
            records += 1;
            match event::decode(bytes) {
                Ok(decoded) => ledger.apply(&decoded.event),
                Err(error) => {
                    log::debug!("{error}");
                    ledger.count_undecodable();
                }
            }
        };
        if to_now {
            source.drain_to_now(&mut each);
        } else {
            source.drain(&mut each);
        }
        records
    }

    /// Whether the target has ended; notes if it runs another program instead.
    fn look_at_target(&mut self) -> bool {
        let same = (self.same_program)();
        let ended = has_ended(&self.target);
        // An ended process has no memory either, but nothing that could be wrong.
        if !same && !ended {
            self.ledger.note_another_program();
        }
        ended
    }

    /// Takes the live buffers in once they have been read; `true` if that was now.
    fn take_baseline(&mut self) -> bool {
        let Some(receiver) = &self.baseline else { return false };
        let baseline = match receiver.try_recv() {
            Ok(baseline) => baseline,
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => Err("their reader failed".to_owned()),
        };
        self.baseline = None;
        // Every event up to the end of the reading has to be known first.
        self.take_in(true);
        self.ledger.finish_baseline(baseline);
        self.source.describe_frees(false);
        true
    }

    fn finish(&mut self, target_ended: bool) {
        // The reader is quick, or fails at once when the target is gone.
        if let Some(receiver) = self.baseline.take() {
            let gone = || Err("it ended while they were being read".to_owned());
            let baseline = if target_ended {
                receiver.recv().unwrap_or_else(|_| gone())
            } else {
                receiver.recv_timeout(Duration::from_secs(1)).unwrap_or_else(|_| {
                    Err("ttmem was stopped while they were being read".to_owned())
                })
            };
            self.take_in(true);
            self.ledger.finish_baseline(baseline);
        }
        self.publish(if target_ended { TargetState::Exited } else { TargetState::Running });
    }

    /// Publishes a snapshot that holds every event up to its time.
    fn publish(&mut self, state: TargetState) {
        let time_ns = now_ns();
        self.take_in(true);
        self.look_at_target();
        self.ledger.set_lost(self.source.lost());
        let snapshot = self.ledger.snapshot(time_ns, state, self.options.detail);
        self.sender.send_replace(Arc::new(snapshot));
    }

    fn sleep(&mut self, quiet_ns: u64, until_deadline_ns: u64) {
        if quiet_ns < nanos(QUIET) {
            let timeout = until_deadline_ns.min(nanos(BUSY_TICK));
            wait(&[self.target.as_fd(), self.control.wake.as_fd()], timeout);
        } else {
            self.source.request_wake_up(true);
            // What came in just before the request will not wake anybody.
            let missed = self.take_in(false) > 0;
            if !missed {
                let fds = [self.target.as_fd(), self.control.wake.as_fd(), self.source.wake_up()];
                wait(&fds, until_deadline_ns);
            }
            self.source.request_wake_up(false);
        }
        let mut drained = [0; 8];
        let _ = rustix::io::read(&self.control.wake, &mut drained);
    }
}

/// CLOCK_MONOTONIC, nanoseconds.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn has_ended(target: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(target, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Waits until one of the descriptors is readable, or the time is over.
fn wait(fds: &[BorrowedFd<'_>], timeout_ns: u64) {
    let mut fds: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout_ns / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: (timeout_ns % 1_000_000_000).cast_signed(),
    };
    // An interrupted wait is only a short one.
    let _ = poll(&mut fds, Some(&timeout));
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use ttmem_common::record::{BulkFreeRecord, KIND_BULK_FREE};
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;
    use crate::{missing::Lost, units::Pid};

    /// Hands out its records once.
    struct Scripted {
        records: Vec<Vec<u8>>,
        wake: OwnedFd,
    }

    impl EventSource for Scripted {
        fn drain(&mut self, each: &mut dyn FnMut(&[u8])) {
            self.records.drain(..).for_each(|record| each(&record));
        }
        fn drain_to_now(&mut self, each: &mut dyn FnMut(&[u8])) {
            self.drain(each);
        }
        fn lost(&self) -> Lost {
            Lost { ring_full: 2, read_fault: 1 }
        }
        fn request_wake_up(&self, _: bool) {}
        fn wake_up(&self) -> BorrowedFd<'_> {
            self.wake.as_fd()
        }
        fn describe_frees(&self, _: bool) {}
    }

    fn never_ready() -> OwnedFd {
        eventfd(0, EventfdFlags::CLOEXEC).unwrap()
    }

    fn options() -> Options {
        Options {
            refresh: Duration::from_secs(3600),
            duration: None,
            once: false,
            detail: Detail::default(),
        }
    }

    fn input(
        records: Vec<Vec<u8>>,
    ) -> (Input<Scripted>, mpsc::Sender<Result<LiveBaseline, String>>) {
        let (send, baseline) = mpsc::channel();
        let source = Scripted { records, wake: never_ready() };
        let ledger = Ledger::new(Pid(1), Vec::new());
        let same_program = Box::new(|| true);
        (Input { source, ledger, target: never_ready(), baseline, same_program }, send)
    }

    async fn last(mut receiver: watch::Receiver<Arc<Snapshot>>) -> Arc<Snapshot> {
        while receiver.changed().await.is_ok() {}
        let snapshot = receiver.borrow();
        Arc::clone(&snapshot)
    }

    #[tokio::test(flavor = "current_thread")]
    async fn once_ends_with_the_baseline() {
        let mut bulk = BulkFreeRecord::new_zeroed();
        bulk.header.kind = KIND_BULK_FREE;
        let (input, baseline) = input(vec![bulk.as_bytes().to_vec(), vec![1, 2, 3]]);
        baseline.send(Ok(LiveBaseline::default())).unwrap();
        let options = Options { once: true, ..options() };
        let (_pipeline, receiver) =
            Pipeline::start(input, options, Control::new().unwrap()).unwrap();
        let snapshot = last(receiver).await;
        assert_eq!(snapshot.anomalies.undecodable, 1);
        assert_eq!(snapshot.lost.total(), 3);
        assert_eq!(snapshot.state, TargetState::Running);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_stop_still_publishes_a_last_snapshot() {
        let (input, baseline) = input(Vec::new());
        let control = Control::new().unwrap();
        let (_pipeline, receiver) =
            Pipeline::start(input, options(), Arc::clone(&control)).unwrap();
        baseline.send(Err("no reason".to_owned())).unwrap();
        control.stop();
        let snapshot = last(receiver).await;
        assert!(!snapshot.exact);
        assert_eq!(snapshot.inexact_because[0], "older buffers are not known: no reason");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn another_program_makes_the_numbers_doubtful() {
        let (mut input, baseline) = input(Vec::new());
        input.same_program = Box::new(|| false);
        baseline.send(Ok(LiveBaseline::default())).unwrap();
        let options = Options { once: true, ..options() };
        let (_pipeline, receiver) =
            Pipeline::start(input, options, Control::new().unwrap()).unwrap();
        let snapshot = last(receiver).await;
        assert!(snapshot.inexact_because[0].contains("exec"), "{:?}", snapshot.inexact_because);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn the_targets_end_ends_it() {
        let (mut input, baseline) = input(Vec::new());
        let ended = eventfd(1, EventfdFlags::CLOEXEC).unwrap();
        input.target = ended;
        drop(baseline);
        let (_pipeline, receiver) =
            Pipeline::start(input, options(), Control::new().unwrap()).unwrap();
        let snapshot = last(receiver).await;
        assert_eq!(snapshot.state, TargetState::Exited);
        assert!(!snapshot.exact);
    }
}
