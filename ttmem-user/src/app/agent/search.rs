//! Finds the processes that are to be watched, at the start and later.
//!
//! The kernel tells who maps code and who is born; what it could not tell is made up for by
//! looking at everything again.

use std::{
    collections::VecDeque,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::Timespec,
};
use tokio::sync::oneshot;

use super::{
    Selection,
    admission::Admission,
    hold,
    mailbox::{Mailbox, Message},
    pending::Pending,
    refused::{Refused, is_for_want},
};
use crate::{
    app::{privileges, target},
    kernel::mappings::{Mappings, Scope, Seen},
    pipeline::{Command, Gone, Notice},
    socket::End,
    table::writer::TableError,
    target::{
        library::LibraryError,
        process::{Process, ProcessError, all_pids},
    },
    units::{Pid, Tid},
};

/// A copy of a process that is about to become another program is not worth attaching to.
const AFTER_FORK: Duration = Duration::from_millis(200);
/// How often to look whether another ttmem still watches a process.
const TAKEN_AGAIN: Duration = Duration::from_secs(2);
/// How soon to look again at a process that there was no descriptor for.
const WANT_AGAIN: Duration = Duration::from_secs(2);
/// How often `--wait` looks at processes that are named by their ids.
const WAIT_TICK: Duration = Duration::from_millis(100);
/// How often everything is looked at where the kernel does not tell.
const POLL: Duration = Duration::from_millis(500);
/// And where it does: a processor that goes, as all but one do when a machine sleeps, or comes is not
/// looked at any more, or yet.
const POLL_ANYWAY: Duration = Duration::from_secs(60);
/// How often it is looked whether those that are not watched are still there.
const PRUNE: Duration = Duration::from_secs(1);

/// What is known of a process before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    /// Nothing.
    None,
    /// The kernel has pointed at it.
    Told,
    /// The same, and the thread that is loading tt-metal is being held.
    Held,
}

/// The search.
pub struct Search {
    admission: Admission,
    selection: Selection,
    mailbox: Arc<Mailbox>,
    /// `None`: the kernel does not tell.
    mappings: Option<Mappings>,
    /// When all are looked at again.
    next_look: Instant,
    /// To be looked at later.
    pending: Pending,
    /// Processes with tt-metal that could not be attached to.
    unwatched: Refused,
}

impl Search {
    pub fn new(admission: Admission, selection: Selection, mailbox: Arc<Mailbox>) -> Self {
        Self {
            admission,
            selection,
            mailbox,
            mappings: None,
            next_look: Instant::now() + POLL,
            pending: Pending::default(),
            unwatched: Refused::default(),
        }
    }

    /// Attaches to what is there, says so, and goes on until it is told to stop.
    pub fn run(mut self, started: oneshot::Sender<anyhow::Result<()>>) {
        let result = self.start();
        if result.is_ok() {
            self.admission.tell(Command::AllAdded);
        }
        let failed = result.is_err();
        // If nobody waits any more, the stop is on its way.
        let _ = started.send(result);
        while !failed && self.wait() {}
    }

    fn start(&mut self) -> anyhow::Result<()> {
        self.admission.keep_rights().context("cannot drop capabilities")?;
        match self.selection.clone() {
            Selection::Pids { pids, wait } => {
                self.admit_named(pids, wait)?;
                privileges::drop_all().context("cannot drop capabilities")
            }
            Selection::Command(pid) => {
                hold::be_prompt();
                self.mappings = Mappings::open(Scope::Descendants(pid)).ok();
                Ok(())
            }
            Selection::All => {
                self.mappings = Mappings::open(Scope::System).ok();
                self.look_at_all();
                Ok(())
            }
            Selection::Named { pattern, wait } => {
                self.mappings = Mappings::open(Scope::System).ok();
                let others = self.look_at_all();
                let none = self.unwatched.is_empty() && self.pending.is_empty();
                if !wait && !self.admission.has_any() && none {
                    bail!("{}", no_match(pattern.as_str(), &others));
                }
                Ok(())
            }
        }
    }

    /// Those that the user named by their ids: whatever is wrong with one of them ends the start. With
    /// `wait` each is attached to as soon as it has loaded the library, whichever is first.
    fn admit_named(&mut self, pids: Vec<Pid>, wait: bool) -> anyhow::Result<()> {
        let mut left = VecDeque::new();
        for pid in pids {
            left.push_back(Process::open(pid)?);
        }
        loop {
            for _ in 0..left.len() {
                let Some(process) = left.pop_front() else { break };
                if self.admission.has(process.pid()) {
                    continue;
                }
                let examiner = &mut self.admission.examiner;
                let target = if wait {
                    match examiner.examine_early(process)? {
                        Ok(target) => target,
                        Err(process) => {
                            left.push_back(process);
                            continue;
                        }
                    }
                } else {
                    examiner.examine(process).map_err(with_advice)?
                };
                self.admission.admit(target, false)?;
            }
            let Some(next) = left.front() else { return Ok(()) };
            let stopping = self.admission.control.is_stopping();
            ensure!(!stopping, "stopped while waiting for process {}", next.pid());
            thread::sleep(WAIT_TICK);
        }
    }

    /// Looks at every process; returns those with tt-metal that are not selected.
    fn look_at_all(&mut self) -> Vec<String> {
        let mut others = Vec::new();
        for pid in all_pids() {
            self.consider(pid, Hint::None, &mut others);
        }
        others
    }

    /// Looks at every process again, at those too that could not be watched.
    fn look_again(&mut self) {
        for pid in self.unwatched.take() {
            self.admission.tell(Command::Gone(pid));
        }
        self.pending.hurry(Instant::now());
        self.look_at_all();
    }

    /// Attaches to a process if it is selected and has tt-metal.
    fn consider(&mut self, pid: Pid, hint: Hint, others: &mut Vec<String>) {
        let own = Pid(std::process::id());
        let settled = self.unwatched.is_settled(pid, self.admission.has_room());
        if pid == own || self.admission.has(pid) || settled {
            return;
        }
        // Where nothing has happened it is looked at when that is due.
        if hint == Hint::None && self.pending.has(pid) {
            return;
        }
        if self.unwatched.forget(pid) {
            self.admission.tell(Command::Gone(pid));
        }
        let process = match Process::open(pid) {
            Ok(process) => process,
            Err(error) => return self.note_unopened(pid, String::new(), &error.into(), None),
        };
        let command = process.command();
        // Of a command's family the kernel tells by itself, also of those whose parents are gone.
        let family = hint != Hint::None && matches!(self.selection, Selection::Command(_));
        let selected = family || self.selection.takes(&process);
        if !selected && !matches!(self.selection, Selection::Named { .. }) {
            return;
        }
        let error = match self.admission.examiner.examine(process) {
            Ok(_) if !selected => {
                others.push(target::named(pid, &command));
                return;
            }
            Ok(target) => {
                let fresh = hint == Hint::Held && target.is_not_relocated().is_ok_and(|is| is);
                match self.admission.admit(target, fresh) {
                    Ok(()) => return,
                    Err(error) => error,
                }
            }
            Err(LibraryError::NotThere { .. }) => return,
            Err(error) => error.into(),
        };
        self.refuse(pid, command, &error);
    }

    fn refuse(&mut self, pid: Pid, command: String, error: &anyhow::Error) {
        let over = |error: &ProcessError| {
            matches!(error, ProcessError::Ended(_) | ProcessError::NotFound(_))
        };
        let ended = error.chain().any(|cause| {
            cause.downcast_ref::<ProcessError>().is_some_and(over)
                || cause.downcast_ref::<LibraryError>().is_some_and(
                    |error| matches!(error, LibraryError::Process(error) if over(error)),
                )
        });
        if ended {
            return;
        }
        let process = match Process::open(pid) {
            Ok(process) => process,
            Err(open) => return self.note_unopened(pid, command, &open.into(), Some(error)),
        };
        self.admission.refuse(pid, command, error);
        let taken = |cause: &(dyn std::error::Error + 'static)| {
            matches!(cause.downcast_ref(), Some(TableError::Taken { .. }))
        };
        if error.chain().any(taken) {
            // Until the other ttmem has ended.
            self.later(pid, TAKEN_AGAIN);
        } else {
            self.unwatched.add(process, error);
        }
    }

    /// A process could not be looked at. If that says nothing of it, it may have tt-metal: it is not
    /// watched, and looked at again. `error`: why it is not watched, if there is another reason.
    fn note_unopened(
        &mut self,
        pid: Pid,
        command: String,
        open: &anyhow::Error,
        error: Option<&anyhow::Error>,
    ) {
        if is_for_want(open) {
            self.admission.refuse(pid, command, error.unwrap_or(open));
            self.unwatched.add_unopened(pid);
            self.later(pid, WANT_AGAIN);
        }
    }

    /// Waits for what comes next, and deals with it; `false` if that is the end.
    fn wait(&mut self) -> bool {
        self.sleep();
        for message in self.mailbox.take() {
            match message {
                Message::Stop => return false,
                Message::LookAgain => self.look_again(),
                Message::Notice(Notice::Ended(gone)) => {
                    // Another process may have its id by now, and have been taken for it.
                    self.release(gone, End::Exited);
                }
                Message::Notice(Notice::Replaced(gone)) => self.release(gone, End::Replaced),
            }
        }
        if self.selection.is_search() {
            self.look_around();
        }
        true
    }

    /// Lets a target go, and has what has its process id now looked at.
    fn release(&mut self, gone: Gone, end: End) {
        self.admission.release(gone, end);
        // Where nothing is searched for nobody would look, and the sleep would be over at once.
        if self.selection.is_search() {
            self.later(gone.pid, Duration::ZERO);
            if self.unwatched.try_again() {
                self.next_look = Instant::now();
            }
        }
    }

    fn sleep(&self) {
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.mailbox.as_fd()];
        fds.extend(self.mappings.iter().flat_map(Mappings::fds));
        let mut fds: Vec<PollFd<'_>> =
            fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        let now = Instant::now();
        let next = self.pending.next().map(|at| at.saturating_duration_since(now));
        let prune = (!self.unwatched.is_empty()).then_some(PRUNE);
        let look =
            self.selection.is_search().then(|| self.next_look.saturating_duration_since(now));
        let timeout = [next, prune, look].into_iter().flatten().min();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // An interrupted wait is only a short one.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    fn look_around(&mut self) {
        for pid in self.unwatched.take_ended() {
            self.admission.tell(Command::Gone(pid));
        }
        let seen = self.mappings.as_mut().map(Mappings::take).unwrap_or_default();
        for seen in seen {
            self.note(seen);
        }
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + if self.mappings.is_some() { POLL_ANYWAY } else { POLL };
            self.look_at_all();
        }
        for pid in self.pending.take_due(now) {
            self.consider(pid, Hint::Told, &mut Vec::new());
        }
    }

    fn note(&mut self, seen: Seen) {
        match seen {
            Seen::Missed => drop(self.look_at_all()),
            // A daemon is a fork's fork: the one between may have come and gone meanwhile.
            Seen::Forked { parent, child }
                if self.admission.has(parent) || self.pending.has(parent) =>
            {
                self.later(child, AFTER_FORK);
            }
            Seen::Forked { .. } => {}
            Seen::Mapped { pid, tid, path } => self.note_mapped(pid, tid, &path),
        }
    }

    fn note_mapped(&mut self, pid: Pid, tid: Tid, path: &Path) {
        let finder = &mut self.admission.examiner.finder;
        if finder.is_known_other(pid, path) {
            return;
        }
        // First hold, then look: it is about to run the library's first instructions.
        let held = match self.selection {
            Selection::Command(_) => hold::hold(tid),
            _ => None,
        };
        if !finder.may_be_tt_metal(pid, path) {
            return;
        }
        if self.admission.has(pid) {
            // Another program in the same process: once the old one has been retired, there is a
            // notice of it.
            self.admission.tell(Command::LookAtTargets);
            return;
        }
        let hint = if held.is_some() { Hint::Held } else { Hint::Told };
        self.consider(pid, hint, &mut Vec::new());
        drop(held);
    }

    fn later(&mut self, pid: Pid, delay: Duration) {
        self.pending.add(pid, Instant::now() + delay);
    }
}

/// The error, with what else `attach` can do about a process without tt-metal.
fn with_advice(error: LibraryError) -> anyhow::Error {
    match error {
        LibraryError::NotThere { .. } => {
            anyhow!("{error}; with --wait ttmem waits until it loads the library")
        }
        error => error.into(),
    }
}

/// What to say if nothing matches.
fn no_match(pattern: &str, others: &[String]) -> anyhow::Error {
    if others.is_empty() {
        return anyhow!(
            "no process matches {pattern:?}: none has loaded tt-metal; with --wait ttmem waits for one"
        );
    }
    anyhow!("no process matches {pattern:?}; tt-metal runs in {}", target::listed(others))
}
