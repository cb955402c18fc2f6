//! A target examined: its process, its library, and what could be resolved in it.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use ttmem_common::{
    layout::LayoutTable,
    probe::{PROBES, ProbeId},
};

use crate::{
    format::one_line,
    ledger::snapshot::ProcessLabel,
    missing::Unresolved,
    resolve::{
        FAILED_BUFFER, PlanCache,
        plan::{AttachPlan, AttachPoint},
    },
    target::{
        file::Identity,
        library::{Finder, Library, LibraryError},
        live_buffers::Reader,
        maps::MemoryMap,
        memory::{LiveMemory, TargetMemory as _},
        process::{Process, ProcessError, all_pids},
    },
    units::{Avma, Pid, Svma},
};

/// Most processes that an error lists.
const LISTED: usize = 8;

/// A process, as errors name it.
pub fn named(pid: Pid, command: &str) -> String {
    format!("{pid} ({})", one_line(command))
}

/// Some of many.
pub fn listed(named: &[String]) -> String {
    let listed = named.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    match named.len().saturating_sub(LISTED) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// The processes with tt-metal, as errors name them; of those that may be looked into.
pub fn all_named() -> Vec<String> {
    let mut finder = Finder::default();
    let processes = all_pids().into_iter().filter_map(|pid| Process::open(pid).ok());
    let with_library = processes.filter(|process| finder.find(process).is_ok());
    with_library.map(|process| named(process.pid(), &process.command())).collect()
}

/// A target, ready to be attached to.
pub struct Target {
    /// The process.
    pub process: Process,
    /// Its library.
    pub library: Library,
    /// What was resolved in it.
    pub plan: Arc<AttachPlan>,
}

/// What is remembered from one process to the next.
#[derive(Default)]
pub struct Examiner {
    /// Which files are libraries of tt-metal.
    pub finder: Finder,
    plans: PlanCache<Identity>,
}

impl Examiner {
    /// Examines a process.
    pub fn examine(&mut self, process: Process) -> Result<Target, LibraryError> {
        let library = self.finder.find(&process)?;
        Ok(self.target(process, library))
    }

    /// The same of one that may still load the library; until it does, it is given back.
    pub fn examine_early(&mut self, process: Process) -> anyhow::Result<Result<Target, Process>> {
        match self.finder.find(&process) {
            Err(LibraryError::NotThere { .. }) if process.has_ended() => {
                Err(ProcessError::Ended(process.pid())).context("it never loaded tt-metal")
            }
            Err(LibraryError::NotThere { .. }) => Ok(Err(process)),
            Err(error) => Err(error.into()),
            Ok(library) => Ok(Ok(self.target(process, library))),
        }
    }

    fn target(&mut self, process: Process, library: Library) -> Target {
        let plan = self.plans.plan(library.file, &library.image);
        Target { process, library, plan }
    }
}

impl Target {
    /// Examines one process.
    pub fn examine(pid: Pid) -> anyhow::Result<Self> {
        Ok(Examiner::default().examine(Process::open(pid)?)?)
    }

    /// What is to be said of it.
    pub fn label(&self, serial: u64) -> ProcessLabel {
        ProcessLabel {
            serial,
            pid: self.process.pid(),
            command: self.process.command(),
            namespace_pid: self.process.namespace_pid(),
            library: Some(one_line(&self.library.path.to_string_lossy())),
            build_id: self.library.image.build_id().map(str::to_owned),
        }
    }

    /// The layout for this process: with its load bias, and its id.
    pub fn layout(&self) -> LayoutTable {
        let mut layout = self.plan.layout;
        layout.tgid = self.process.pid().0;
        layout.in_use = 1;
        for vptr in [&mut layout.device.device_vptr, &mut layout.device.mesh_vptr] {
            *vptr = vptr.wrapping_add(self.library.bias);
        }
        layout.failure = layout.failure.at_bias(self.library.bias);
        layout
    }

    /// What reads its live buffers, or why they cannot be read.
    pub fn reader(&self) -> Result<Result<Reader, String>, ProcessError> {
        let device = &self.plan.layout.device;
        match &self.plan.memory {
            Err(reason) if device.device_vptr == 0 || device.mesh_vptr == 0 => {
                Ok(Err(reason.clone()))
            }
            memory => {
                let memory = memory.clone();
                Reader::open(&self.process, self.layout(), memory, self.library.bias).map(Ok)
            }
        }
    }

    /// Tells whether the process still runs the program it runs now. That program's memory goes
    /// when another takes its place; when the process ends, it has none at all for a while.
    pub fn program_check(&self) -> Result<Box<dyn Fn() -> bool + Send>, ProcessError> {
        let memory = LiveMemory::open(&self.process)?;
        let process = Process::open(self.process.pid())?;
        let somewhere = Avma(self.layout().device.mesh_vptr);
        Ok(Box::new(move || memory.byte(somewhere).is_ok() || !process.has_memory()))
    }

    /// Whether the loader has not relocated its library yet, so that none of it can have run. Only
    /// true for good while the loading thread is held.
    pub fn is_not_relocated(&self) -> Result<bool, ProcessError> {
        let slot = Avma(self.layout().device.mesh_vptr);
        let stated = Svma(self.plan.layout.device.mesh_vptr);
        let Some(offset) = self.library.image.file_offset(stated) else { return Ok(false) };
        let maps = self.process.maps()?;
        let map = maps.iter().find(|map| map.addresses.contains(&slot.0));
        // The loader maps a library piece by piece: its data may not be where it belongs yet.
        let in_place =
            |map: &&MemoryMap| map.offset.wrapping_add(slot.0 - map.addresses.start) == offset.0;
        if !map.as_ref().is_some_and(in_place) {
            return Ok(true);
        }
        // The first slot of a vtable holds an address once it is relocated, and 0 before.
        let memory = LiveMemory::open(&self.process)?;
        Ok(memory.word(slot).is_ok_and(|word| word == 0))
    }

    /// Refuses a target in which a probe is missing without which all numbers would be wrong.
    pub fn check_probes(&self) -> anyhow::Result<()> {
        for probe in PROBES {
            if !probe.is_essential() || self.plan.points.iter().any(|point| point.probe == probe) {
                continue;
            }
            let reason = self
                .plan
                .unresolved
                .iter()
                .find(|missing| missing.probe == probe.name())
                .map_or("it was not found", |missing| missing.reason.as_str());
            bail!(
                "cannot watch {}: probe {}: {reason}; `ttmem doctor --pid {}` shows all that was found",
                self.library.path.display(),
                probe.name(),
                self.process.pid(),
            );
        }
        Ok(())
    }

    /// Why failed allocations are not seen, or not all of them.
    pub fn unseen_failures(&self) -> Option<String> {
        let name = ProbeId::Failure.name();
        let missing = self.plan.unresolved.iter().find(|missing| missing.probe == name);
        missing.map(|missing| missing.reason.clone())
    }

    /// Where to attach; dispatches only if asked for.
    pub fn points(&self, dispatches: bool) -> Vec<AttachPoint> {
        let wanted = |point: &&AttachPoint| dispatches || point.probe != ProbeId::Dispatch;
        self.plan.points.iter().filter(wanted).cloned().collect()
    }

    /// Whether the circular and dataflow buffers of programs can be watched, or why not.
    pub fn program_watch(&self) -> Result<(), String> {
        let family = |probe: ProbeId| probe.watches_programs() && probe != ProbeId::Dispatch;
        let missing = PROBES.into_iter().filter(|probe| family(*probe)).find_map(|probe| {
            self.plan.unresolved.iter().find(|missing| missing.probe == probe.name())
        });
        match missing {
            Some(missing) => Err(format!("{}: {}", missing.probe, missing.reason)),
            None => Ok(()),
        }
    }

    /// Refuses to watch dispatches where they cannot be.
    pub fn check_dispatches(&self) -> anyhow::Result<()> {
        let name = ProbeId::Dispatch.name();
        match self.plan.unresolved.iter().find(|missing| missing.probe == name) {
            Some(missing) => bail!(
                "cannot watch dispatches in {}: {}; leave --dispatches out",
                self.library.path.display(),
                missing.reason
            ),
            None => Ok(()),
        }
    }

    /// What is missing and could make numbers wrong.
    pub fn doubtful(&self) -> Vec<Unresolved> {
        let harmless = |missing: &Unresolved| {
            missing.probe == FAILED_BUFFER
                || PROBES.iter().any(|probe| probe.name() == missing.probe && !probe.is_essential())
        };
        self.plan.unresolved.iter().filter(|missing| !harmless(missing)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_lists_only_so_many_processes() {
        let all: Vec<String> = (1..=9).map(|pid| named(Pid(pid), "a\nb")).collect();
        assert_eq!(listed(&all[..2]), "1 (a b), 2 (a b)");
        assert!(listed(&all).ends_with(", 8 (a b) and 1 more"), "{}", listed(&all));
    }
}
