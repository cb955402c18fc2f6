//! The pipeline's thread.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Arc, mpsc::Receiver},
    time::Duration,
};

use tokio::sync::watch;
use ttmem_common::layout::MAX_SLOTS;

use super::{
    Command, Control, Gone, NewTarget, Notice, OnNotice, Options,
    health::Meter,
    intake::{Targets, apply, at, expect},
    queries::{Lane, Queries},
    readers::{Readers, Reading},
    wait::{is_readable, nanos, now_ns, wait},
    watched::Watched,
};
use crate::{
    ledger::{
        Tag,
        report::{KEPT_ENDED, Report, Unwatched},
        snapshot::{Detail, Snapshot, TargetState},
    },
    missing::Lost,
    source::EventSource,
};

/// How often the ring is drained while events flow.
const BUSY_TICK: Duration = Duration::from_millis(5);
/// Quiet for this long: sleep until woken.
const QUIET: Duration = Duration::from_millis(20);
/// How often tables say at least that somebody is there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long the end waits for a reading.
const LAST_READING: Duration = Duration::from_secs(1);

pub(super) struct Worker<S> {
    source: S,
    targets: Targets,
    /// The latest of those that ended.
    ended: VecDeque<Arc<Snapshot>>,
    unwatched: Vec<Unwatched>,
    all_added: bool,
    readers: Readers,
    commands: Receiver<Command>,
    options: Options,
    control: Arc<Control>,
    on_notice: OnNotice,
    sender: watch::Sender<Arc<Report>>,
    next_audit: Option<u64>,
    /// What snapshots hold beyond what the options ask for.
    detail: Detail,
    /// A report is wanted at once.
    report_now: bool,
    /// Something has been taken in that has not been passed on.
    untold: bool,
    queries: Queries,
    meter: Meter,
    /// Kept for its memory.
    announced: Vec<(u32, Tag)>,
}

impl<S: EventSource> Worker<S> {
    pub(super) fn new(
        source: S,
        options: Options,
        control: Arc<Control>,
        on_notice: OnNotice,
        sender: watch::Sender<Arc<Report>>,
    ) -> io::Result<Self> {
        Ok(Self {
            source,
            targets: (0..MAX_SLOTS).map(|_| None).collect(),
            ended: VecDeque::new(),
            unwatched: Vec::new(),
            all_added: false,
            readers: Readers::start(&control)?,
            commands: control.take_commands()?,
            next_audit: options.audit.map(|period| now_ns().saturating_add(nanos(period))),
            options,
            control,
            on_notice,
            sender,
            detail: Detail::default(),
            report_now: false,
            untold: false,
            queries: Queries::default(),
            meter: Meter::default(),
            announced: Vec::new(),
        })
    }

    pub(super) fn run(mut self) {
        let mut next_report = now_ns();
        let mut end = None;
        let mut last_event = next_report;
        let mut started = false;
        let mut baseline_done = false;
        loop {
            self.obey();
            if self.take_in(false).0 > 0 {
                last_event = now_ns();
            }
            if self.untold {
                self.pass_on(None);
            }
            // A quick reading may be done before all have been added.
            baseline_done |= self.take_readings();
            self.look_at_targets();
            let now = now_ns();
            if self.all_added && !started {
                // Time counts from here on: attaching may have had to wait.
                started = true;
                next_report = now.saturating_add(nanos(self.options.refresh));
                end = self.options.duration.map(|duration| now.saturating_add(nanos(duration)));
            }
            if self.is_over() || end.is_some_and(|end| now >= end) {
                self.finish();
                return;
            }
            self.start_readings(now);
            let wanted = std::mem::take(&mut self.report_now);
            if baseline_done || wanted || now >= next_report {
                if started && !self.options.once {
                    self.publish();
                }
                baseline_done &= !started;
                next_report = now.saturating_add(nanos(self.options.refresh));
            }
            self.beat(now);
            let deadline = end.map_or(next_report, |end| end.min(next_report));
            let deadline = deadline.min(now.saturating_add(nanos(HEARTBEAT)));
            let looks = self.next_look().into_iter().chain(self.queries.due_ns());
            if self.sleep(now, last_event, looks.fold(deadline, u64::min)) {
                last_event = now_ns();
            }
        }
    }

    /// Does what it has been told, and answers as many queries as there is time for.
    fn obey(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            self.obey_one(command);
        }
        for lane in [Queries::quick, Queries::long] {
            self.answer(lane);
        }
    }

    fn obey_one(&mut self, command: Command) {
        match command {
            Command::Add(target, added) => {
                self.add(*target);
                // Whoever attaches may have given up meanwhile.
                let _ = added.send(());
            }
            Command::Attached(slot) => {
                // What has happened while the probes went in is in the memory that is read now.
                self.take_in(true);
                if let Some(watched) = at(&mut self.targets, slot) {
                    watched.attached(&self.readers);
                    self.report_now |= !watched.awaits_baseline();
                }
            }
            Command::Withdraw(slot) => {
                if let Some(place) = self.targets.get_mut(slot as usize) {
                    *place = None;
                }
            }
            Command::LookAtTargets => self.look_at_targets(),
            Command::Unwatched(process) => {
                self.unwatched.retain(|other| other.pid != process.pid);
                self.unwatched.push(process);
            }
            Command::Gone(pid) => self.unwatched.retain(|process| process.pid != pid),
            Command::AllAdded => self.all_added = true,
            Command::Resync => self.resync_all(),
            Command::Detail(detail) => {
                self.report_now |= detail != self.detail;
                self.detail = detail;
            }
            Command::Query(query) => self.queries.push(query),
        }
    }

    /// Lets those look at their targets whose turn it is: all after one drain.
    fn answer(&mut self, lane: fn(&mut Queries) -> &mut Lane) {
        let begun = now_ns();
        let mut due = lane(&mut self.queries).take_due(begun);
        if due.is_empty() {
            return;
        }
        self.note_witness();
        self.take_in(true);
        self.pass_on(Some(begun));
        while let Some(query) = due.pop_front() {
            let mut targets = self.targets.iter_mut().flatten();
            if let Some(watched) = targets.find(|watched| watched.serial() == query.serial) {
                watched.answer(query, begun);
            }
            if !Lane::has_time(begun, now_ns()) {
                break;
            }
        }
        lane(&mut self.queries).rest(begun, now_ns(), due);
    }

    /// Passes on what has changed. `up_to_ns`: every event up to then has been applied.
    fn pass_on(&mut self, up_to_ns: Option<u64>) {
        // What was lost before: without it the totals would be called exact.
        self.note_loss();
        self.untold = false;
        for watched in self.targets.iter_mut().flatten() {
            watched.pass_on(up_to_ns);
        }
    }

    /// Says in all tables that somebody is there.
    fn beat(&self, now_ns: u64) {
        for table in self.targets.iter().flatten().filter_map(|it| it.target.table.as_ref()) {
            table.beat(now_ns);
        }
    }

    fn add(&mut self, target: NewTarget) {
        let slot = target.slot as usize;
        self.source.forget_descriptions();
        self.unwatched.retain(|process| process.pid != target.ledger.process().pid);
        let (lost, witness) = (self.source.lost(target.slot), self.source.witness(target.slot));
        if let Some(place) = self.targets.get_mut(slot) {
            *place = Some(Box::new(Watched::new(target, lost, witness)));
        }
        self.describe_frees_while_reading();
    }

    fn resync_all(&mut self) {
        for watched in self.targets.iter_mut().flatten() {
            watched.request_resync(&self.readers);
        }
        self.describe_frees_while_reading();
    }

    /// Applies what has arrived; returns the number of records, and `false` if one is being written.
    fn take_in(&mut self, to_now: bool) -> (u64, bool) {
        let Self { source, targets, meter, announced, .. } = self;
        let mut whole = true;
        let taken = meter.drain(source, |source| {
            let far = targets.iter().flatten().any(|watched| watched.target.ledger.is_far());
            let mut taken = 0;
            let mut take = |records: &[&[u8]]| {
                taken += records.len() as u64;
                if far {
                    expect(targets, announced, records);
                }
                for bytes in records {
                    apply(targets, bytes);
                }
            };
            if to_now {
                source.drain_to_now(&mut take);
            } else {
                whole = source.drain(&mut take);
            }
            taken
        });
        self.untold |= taken > 0;
        (taken, whole)
    }

    /// Takes in what the readers have read; `true` if that was somebody's first reading.
    fn take_readings(&mut self) -> bool {
        let mut first = false;
        while let Some(reading) = self.readers.done() {
            first |= self.deliver(reading);
        }
        first
    }

    /// Hands a reading to its target; `true` if it was its first.
    fn deliver(&mut self, reading: Reading) -> bool {
        // Every event up to the end of the reading has to be known first.
        self.take_in(true);
        self.note_loss();
        let now = now_ns();
        let mut targets = self.targets.iter_mut().flatten();
        let Some(watched) = targets.find(|watched| watched.serial() == reading.serial) else {
            return false;
        };
        let first = watched.awaits_baseline();
        watched.target.ledger.stamp(now, None);
        watched.finish_reading(reading.result, now, &self.readers);
        self.pass_on(None);
        self.describe_frees_while_reading();
        first
    }

    /// Has frees say what they free for as long as anybody's live buffers are being read.
    fn describe_frees_while_reading(&self) {
        self.source.describe_frees(self.targets.iter().flatten().any(|w| w.is_reading()));
    }

    /// Starts what readings are due: after a loss, or for an audit.
    fn start_readings(&mut self, now: u64) {
        self.note_loss();
        if let Some(period) = self.options.audit
            && self.next_audit.is_some_and(|at| now >= at)
        {
            self.next_audit = Some(now.saturating_add(nanos(period)));
            self.resync_all();
        }
        for watched in self.targets.iter_mut().flatten() {
            watched.resync_if_doubtful(now, &self.readers);
        }
        self.describe_frees_while_reading();
    }

    /// When a reading may be due.
    fn next_look(&self) -> Option<u64> {
        let looks = self.targets.iter().flatten().filter_map(|watched| watched.next_look_ns());
        looks.chain(self.next_audit).min()
    }

    fn note_loss(&mut self) {
        // Of all CPUs, and for all targets the same.
        let ring_full = self.source.ring_full();
        for watched in self.targets.iter_mut().flatten() {
            let read_fault = self.source.read_faults(watched.target.slot);
            watched.set_lost(Lost { ring_full, read_fault });
        }
    }

    /// Retires the targets that have ended, or run another program.
    fn look_at_targets(&mut self) {
        for slot in 0..self.targets.len() {
            let Some(watched) = &self.targets[slot] else { continue };
            let same = (watched.target.same_program)();
            // An ended process has no memory either.
            if is_readable(&watched.target.ended) {
                self.retire(slot, TargetState::Exited);
            } else if !same {
                self.retire(slot, TargetState::Replaced);
            }
        }
    }

    fn retire(&mut self, slot: usize, state: TargetState) {
        // What it did last may still be in the ring.
        let time_ns = now_ns();
        self.take_in(true);
        self.finish_readings(slot, "it ended while they were being read");
        let Some(mut watched) = self.targets[slot].take() else { return };
        watched.set_lost(self.source.lost(watched.target.slot));
        watched.set_witness(self.source.witness(watched.target.slot));
        watched.close_table(Some(state), time_ns);
        let (slot, serial) = (watched.target.slot, watched.serial());
        let gone = Gone { slot, serial, pid: watched.target.ledger.process().pid };
        let detail = self.detail().and(self.options.detail_at_end);
        self.ended.push_back(watched.snapshot(time_ns, state, detail));
        while self.ended.len() > KEPT_ENDED {
            self.ended.pop_front();
        }
        (self.on_notice)(match state {
            TargetState::Replaced => Notice::Replaced(gone),
            TargetState::Exited | TargetState::Running => Notice::Ended(gone),
        });
    }

    /// Waits a little for what is being read of a target, or gives up for `reason`. The reader is
    /// quick, or fails at once when the target is gone. Nothing is being read before all probes are in
    /// place.
    fn finish_readings(&mut self, slot: usize, reason: &str) {
        let Some(watched) = &self.targets[slot] else { return };
        let serial = watched.serial();
        let patience = if watched.is_attaching() { Duration::ZERO } else { LAST_READING };
        let deadline = now_ns().saturating_add(nanos(patience));
        while self.targets[slot].as_ref().is_some_and(|watched| watched.is_reading()) {
            match self.readers.done_within(BUSY_TICK) {
                Some(reading) => _ = self.deliver(reading),
                None if now_ns() >= deadline => {
                    self.deliver(Reading { serial, result: Err(reason.to_owned()) });
                }
                None => _ = self.take_in(true),
            }
        }
    }

    fn is_over(&self) -> bool {
        if self.control.is_stopping() {
            return true;
        }
        if !self.all_added {
            return false;
        }
        let mut running = self.targets.iter().flatten().peekable();
        let none_left = self.options.ends_with_targets && running.peek().is_none();
        let none_yet = self.options.awaits_target
            && running.peek().is_none()
            && self.ended.is_empty()
            && self.unwatched.is_empty();
        let told_once = self.options.once && !none_yet;
        none_left || (told_once && !running.any(|watched| watched.awaits_baseline()))
    }

    fn finish(&mut self) {
        for slot in 0..self.targets.len() {
            let Some(watched) = &self.targets[slot] else { continue };
            if watched.awaits_baseline() {
                self.finish_readings(slot, "ttmem was stopped while they were being read");
            }
        }
        let time_ns = self.publish();
        for watched in self.targets.iter_mut().flatten() {
            watched.close_table(None, time_ns);
        }
    }

    /// What snapshots hold beyond the totals.
    fn detail(&self) -> Detail {
        self.options.detail.and(self.detail)
    }

    /// Takes over what the probes counted. It may be a hit ahead of the records: a hit is counted
    /// first.
    fn note_witness(&mut self) {
        for watched in self.targets.iter_mut().flatten() {
            watched.set_witness(self.source.witness(watched.target.slot));
        }
    }

    /// Publishes a report that holds every event up to its time, which is returned.
    fn publish(&mut self) -> u64 {
        let time_ns = now_ns();
        self.note_witness();
        self.take_in(true);
        self.look_at_targets();
        self.pass_on(Some(time_ns));
        let detail = self.detail();
        let mut targets: Vec<Arc<Snapshot>> = self
            .targets
            .iter()
            .flatten()
            .map(|watched| watched.snapshot(time_ns, TargetState::Running, detail))
            .chain(self.ended.iter().cloned())
            .collect();
        targets.sort_by_key(|target| target.process.serial);
        for watched in self.targets.iter_mut().flatten() {
            watched.show_circular();
        }
        let sinks = self.targets.iter().flatten().flat_map(|watched| &watched.target.sinks);
        let queues = sinks.filter_map(|sink| sink.queue()).collect();
        let health = Some(self.meter.health(queues));
        let report = Report { time_ns, targets, unwatched: self.unwatched.clone(), health };
        self.sender.send_replace(Arc::new(report));
        time_ns
    }

    /// Sleeps until something happens, or until the next tick or `deadline`; `true` if something was taken
    /// in before.
    fn sleep(&mut self, now: u64, last_event: u64, deadline: u64) -> bool {
        let mut taken = 0;
        let until_deadline = deadline.saturating_sub(now);
        if now.saturating_sub(last_event) < nanos(QUIET) {
            wait(&self.ends(), until_deadline.min(nanos(BUSY_TICK)));
        } else {
            self.source.request_wake_up(true);
            // What came in just before the request will not wake anybody, nor will what is under way.
            let whole;
            (taken, whole) = self.take_in(false);
            if taken == 0 {
                let mut fds = self.ends();
                if whole {
                    fds.push(self.source.wake_up());
                    wait(&fds, until_deadline);
                } else {
                    wait(&fds, until_deadline.min(nanos(BUSY_TICK)));
                }
            }
            self.source.request_wake_up(false);
        }
        let mut drained = [0; 8];
        let _ = rustix::io::read(&self.control.wake, &mut drained);
        taken > 0
    }

    /// What ends the sleep in any case: a target's end, a word from outside.
    fn ends(&self) -> Vec<BorrowedFd<'_>> {
        let targets = self.targets.iter().flatten();
        let mut fds: Vec<_> = targets.map(|watched| watched.target.ended.as_fd()).collect();
        fds.push(self.control.wake.as_fd());
        fds
    }
}
