//! Takes a target in: a slot, its layout, its place in the pipeline, its probes.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    os::fd::AsFd as _,
    sync::{Arc, mpsc},
};

use anyhow::{Context as _, bail};
use ttmem_common::{layout::MAX_SLOTS, python::PythonLayout};

use crate::{
    app::{
        memory, privileges,
        share::Share,
        target::{Examiner, Target},
    },
    kernel::{Attacher, Link, NO_THREADS, fs_base, support},
    ledger::{Ledger, report::Unwatched, snapshot::ProcessLabel},
    pipeline::{Command, Control, Gone, NewTarget, ReadLive},
    sink::Follower,
    socket::End,
    stacks::{self, Interpreter, Modules, Python},
    table::writer::Writer,
    target::{
        interpreter,
        process::{Process, ProcessError},
    },
    units::Pid,
};

/// What attaches, and what has been attached.
pub struct Admission {
    attacher: Attacher,
    /// The pipeline.
    pub control: Arc<Control>,
    /// What is remembered from one process to the next.
    pub examiner: Examiner,
    admitted: HashMap<u32, Admitted>,
    next_serial: u64,
    options: TargetOptions,
    /// How others may read the numbers, if they may.
    share: Option<Share>,
    followers: Vec<Follower>,
    /// What unwinds call stacks, if they are recorded.
    stacks: Option<stacks::Handle>,
}

/// What is watched of each target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetOptions {
    /// How many failed allocations are kept.
    pub keep_failures: usize,
    /// Whether dispatches of programs are watched.
    pub dispatches: bool,
    /// Whether what is read again is compared with tt-metal's shared memory.
    pub audit: bool,
}

/// As many processes are watched as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_SLOTS} processes are watched already, and no more can be until one of them ends")]
pub struct NoSlot;

struct Admitted {
    pid: Pid,
    serial: u64,
    link: Link,
}

impl Admission {
    /// Nothing is attached yet.
    pub fn new(
        attacher: Attacher,
        control: Arc<Control>,
        options: TargetOptions,
        share: Option<Share>,
        followers: Vec<Follower>,
        stacks: Option<stacks::Handle>,
    ) -> Self {
        Self {
            attacher,
            control,
            examiner: Examiner::default(),
            admitted: HashMap::new(),
            next_serial: 1,
            options,
            share,
            followers,
            stacks,
        }
    }

    /// Gives up the rights that attaching does not take.
    pub fn keep_rights(&self) -> io::Result<()> {
        let to_groups = self.share.as_ref().is_some_and(Share::has_group);
        privileges::keep_for_attaching(self.attacher.is_by_perf_events(), to_groups)
    }

    /// Whether a process is being watched.
    pub fn has(&self, pid: Pid) -> bool {
        self.admitted.values().any(|admitted| admitted.pid == pid)
    }

    /// Tells the pipeline something.
    pub fn tell(&self, command: Command) {
        self.control.send(command);
    }

    /// Whether any process is being watched.
    pub fn has_any(&self) -> bool {
        !self.admitted.is_empty()
    }

    /// Whether another process could be watched.
    pub fn has_room(&self) -> bool {
        self.free_slot().is_some()
    }

    fn free_slot(&self) -> Option<u32> {
        (0..MAX_SLOTS).find(|slot| !self.admitted.contains_key(slot))
    }

    /// Attaches to a target. `fresh`: it has not run an instruction of its library yet, and so
    /// there is nothing older than the probes.
    pub fn admit(&mut self, target: Target, fresh: bool) -> anyhow::Result<()> {
        let admitted = self.attach(&target, fresh);
        // The parsed library went with it.
        drop(target);
        memory::give_back();
        admitted
    }

    fn attach(&mut self, target: &Target, fresh: bool) -> anyhow::Result<()> {
        target.check_probes()?;
        if self.options.dispatches {
            target.check_dispatches()?;
        }
        let slot = self.free_slot().ok_or(NoSlot)?;
        let pid = target.process.pid();
        if support::is_nested(pid) {
            bail!(
                "process {pid} is in a pid namespace inside that of ttmem, and the kernel does not say \
                 whose its probes' hits are: run ttmem outside of the container, or in the process's"
            );
        }
        self.attacher.set_layout(slot, &target.layout())?;
        let serial = self.next_serial;
        self.next_serial += 1;
        let label = Arc::new(target.label(serial));
        let shared = self.share.as_ref().map(|share| share.prepare(&target.process, &label));
        let (table, socket) = shared.transpose()?.unzip();
        let code = self.stacks.is_some().then(|| self.open_code(target, slot)).transpose()?;
        self.announce(target, slot, label, table, fresh)?;
        if let Some((stacks, (modules, python))) = self.stacks.as_ref().zip(code) {
            stacks.add(serial, slot, pid, modules, python);
        }
        let path = &target.library.open_path;
        let points = target.points(self.options.dispatches);
        match self.attacher.attach(path, pid, slot, &points) {
            Ok(link) => {
                self.admitted.insert(slot, Admitted { pid, serial, link });
                self.tell(Command::Attached(slot));
                if let (Some(share), Some(socket)) = (&self.share, socket) {
                    share.open_socket(socket);
                }
                Ok(())
            }
            Err(error) => {
                self.tell(Command::Withdraw(slot));
                self.stacks.iter().for_each(|stacks| stacks.remove(serial));
                let _ = self.attacher.clear_layout(slot);
                if target.process.has_ended() {
                    return Err(ProcessError::Ended(pid).into());
                }
                Err(error.into())
            }
        }
    }

    /// What the target executes, for call stacks; tells the eBPF side of its interpreter.
    fn open_code(&mut self, target: &Target, slot: u32) -> anyhow::Result<(Modules, Interpreter)> {
        let modules = Modules::open(&target.process)?;
        let (layout, python) = python_of(&target.process);
        self.attacher.set_python(slot, &layout)?;
        Ok((modules, python))
    }

    /// Gives the target its place in the pipeline, and waits until it has it.
    fn announce(
        &self,
        target: &Target,
        slot: u32,
        label: Arc<ProcessLabel>,
        table: Option<Writer>,
        fresh: bool,
    ) -> anyhow::Result<()> {
        let reader = target.reader()?;
        let read_live: ReadLive = match reader {
            Ok(reader) => {
                let reader = if self.options.audit { reader.with_shared_memory() } else { reader };
                Arc::new(move || reader.read())
            }
            Err(reason) => Arc::new(move || Err(reason.clone())),
        };
        let mut ledger = Ledger::of_process(label, target.doubtful());
        let sinks = self.followers.iter().map(|follower| follower(ledger.process())).collect();
        ledger.watch_failures(self.options.keep_failures, target.unseen_failures());
        ledger.watch_programs(target.program_watch(), self.options.dispatches);
        if self.options.audit {
            ledger.compare_witnesses();
        }
        let new = NewTarget {
            slot,
            ledger,
            same_program: target.program_check()?,
            ended: target.process.as_fd().try_clone_to_owned().context("cannot duplicate")?,
            fresh,
            read_live,
            table,
            sinks,
        };
        let (added, is_added) = mpsc::channel();
        self.tell(Command::Add(Box::new(new), added));
        is_added.recv().context("stopped while attaching")
    }

    /// A target is gone: its slot can be another's. It is already if the target had gone before it was
    /// admitted.
    pub fn release(&mut self, gone: Gone, end: End) {
        let Entry::Occupied(admitted) = self.admitted.entry(gone.slot) else { return };
        if admitted.get().serial != gone.serial {
            return;
        }
        let admitted = admitted.remove();
        if let Some(share) = &self.share {
            share.close(admitted.serial, end);
        }
        self.attacher.detach(admitted.link);
        self.stacks.iter().for_each(|stacks| stacks.remove(admitted.serial));
        // Nothing uses the slot any more; that it still says whose it was does no harm.
        let _ = self.attacher.clear_layout(gone.slot);
    }

    /// Says that a process is not watched.
    pub fn refuse(&self, pid: Pid, command: String, error: &anyhow::Error) {
        let reason = crate::app::one_line(error);
        self.tell(Command::Unwatched(Unwatched { pid, command, reason }));
    }
}

/// The interpreter of a process: for the eBPF side, and for who names its functions.
fn python_of(process: &Process) -> (PythonLayout, Interpreter) {
    match interpreter::find(process) {
        Ok(Some(_)) if fs_base().is_none() => (PythonLayout::default(), Err(NO_THREADS.into())),
        Ok(Some(found)) => {
            let python = Python::new(Box::new(found.memory), found.frames, found.code, found.types);
            (found.layout, Ok(Some(python)))
        }
        Ok(None) => (PythonLayout::default(), Ok(None)),
        Err(why) => (PythonLayout::default(), Err(why.into())),
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        for (_, admitted) in self.admitted.drain() {
            self.attacher.detach(admitted.link);
        }
    }
}
