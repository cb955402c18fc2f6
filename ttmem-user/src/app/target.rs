//! A target examined: its process, its library, and what could be resolved in it.

use std::{sync::Arc, thread, time::Duration};

use anyhow::{Context as _, bail};
use ttmem_common::{
    layout::LayoutTable,
    probe::{PROBES, ProbeId},
};

use crate::{
    missing::Unresolved,
    resolve::{
        PlanCache,
        plan::{AttachPlan, AttachPoint},
    },
    target::{
        library::{self, Library, LibraryError},
        live_buffers::Reader,
        memory::{LiveMemory, TargetMemory as _},
        process::{Process, ProcessError},
    },
    units::{Avma, Pid},
};

/// How often `--wait` looks.
const WAIT_TICK: Duration = Duration::from_millis(100);

/// A target, ready to be attached to.
pub struct Target {
    /// The process.
    pub process: Process,
    /// Its library.
    pub library: Library,
    /// What was resolved in it.
    pub plan: Arc<AttachPlan>,
}

impl Target {
    /// Examines a process.
    pub fn examine(pid: Pid, wait: bool, plans: &mut PlanCache) -> anyhow::Result<Self> {
        let process = Process::open(pid)?;
        let library = find_library(&process, wait)?;
        let plan = plans.plan(&library.image);
        Ok(Self { process, library, plan })
    }

    /// The layout for this process: with its load bias, and its id.
    pub fn layout(&self) -> LayoutTable {
        let mut layout = self.plan.layout;
        layout.tgid = self.process.pid().0;
        layout.in_use = 1;
        for vptr in [&mut layout.device.device_vptr, &mut layout.device.mesh_vptr] {
            *vptr = vptr.wrapping_add(self.library.bias);
        }
        layout
    }

    /// What reads its live buffers, or why they cannot be read.
    pub fn reader(&self) -> Result<Result<Reader, String>, ProcessError> {
        match &self.plan.memory {
            Ok(memory) => {
                Reader::open(&self.process, self.layout(), memory.clone(), self.library.bias)
                    .map(Ok)
            }
            Err(reason) => Ok(Err(reason.clone())),
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
            PROBES.iter().any(|probe| probe.name() == missing.probe && !probe.is_essential())
        };
        self.plan.unresolved.iter().filter(|missing| !harmless(missing)).cloned().collect()
    }
}

fn find_library(process: &Process, wait: bool) -> anyhow::Result<Library> {
    loop {
        match library::find(process) {
            Err(LibraryError::NotThere { .. }) if wait && !process.has_ended() => {
                thread::sleep(WAIT_TICK);
            }
            Err(LibraryError::NotThere { .. }) if wait => {
                return Err(ProcessError::Ended(process.pid())).context("it never loaded tt-metal");
            }
            other => return Ok(other?),
        }
    }
}
