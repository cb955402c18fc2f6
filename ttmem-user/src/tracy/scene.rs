//! A target as Tracy is to see it: what arrives from the pipeline, and what becomes of it.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    feed::{Item, Queue},
    mirror::{Mirror, Style},
    op::{Op, Severity},
    threads::Threads,
    wire::{handshake::Program, serve::program},
};
use crate::{
    format,
    ledger::{
        report::Report,
        snapshot::{ProcessLabel, Snapshot, TargetState},
    },
    pipeline::{Control, now_ns},
    units::Pid,
};

/// How long the last snapshot may take after the last delta.
const LAST_SNAPSHOT: Duration = Duration::from_secs(1);

/// What arrives.
#[derive(Debug)]
pub enum Step {
    /// Something from the pipeline.
    Item(Item),
    /// The state at an instant.
    Snapshot(Arc<Snapshot>),
    /// Nothing that concerns this target.
    Nothing,
    /// There is no more to come.
    Last,
}

impl PartialEq for Step {
    /// Only the last one is told from the others.
    fn eq(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Last, Self::Last))
    }
}

/// A target, and where news of it comes from.
pub struct Scene {
    process: Arc<ProcessLabel>,
    mirror: Mirror,
    threads: Threads,
    queue: Queue,
    control: Arc<Control>,
    /// The queue has closed: until when the last snapshot is waited for.
    drained: Option<Instant>,
    /// The last snapshot has been seen, or will not come.
    ended: bool,
    has_programs: bool,
}

impl Scene {
    /// Of a target that is about to be attached to.
    pub fn new(
        process: &Arc<ProcessLabel>,
        queue: Queue,
        control: &Arc<Control>,
        style: Style,
    ) -> Self {
        Self {
            process: Arc::clone(process),
            mirror: Mirror::new(process, style, now_ns()),
            threads: Threads::new(process.pid),
            queue,
            control: Arc::clone(control),
            drained: None,
            ended: false,
            has_programs: false,
        }
    }

    /// The mirror.
    pub const fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// The mirror, to say something.
    pub const fn mirror_mut(&mut self) -> &mut Mirror {
        &mut self.mirror
    }

    /// The target.
    pub fn pid(&self) -> Pid {
        self.process.pid
    }

    /// Names of threads.
    pub const fn threads(&self) -> &Threads {
        &self.threads
    }

    /// What a viewer is told of it.
    pub fn program(&self) -> Program {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = Duration::from_nanos(now_ns().saturating_sub(self.mirror.begun_ns()));
        let begun = now.saturating_sub(age).as_secs();
        let command = format::one_line(&self.process.command);
        program(&command, self.process.pid.0, self.mirror.begun_ns(), begun)
    }

    /// Says everything to somebody new.
    pub fn announce(&self, out: &mut impl FnMut(Op<'_>)) {
        self.mirror.announce(out);
        if self.has_programs {
            self.queue.ask_for_programs(&self.control, self.process.serial);
        }
    }

    /// The next thing that arrives. Nothing is lost if this is not waited for to its end.
    pub async fn next(&mut self, reports: &mut watch::Receiver<Arc<Report>>) -> Step {
        if self.ended {
            return Step::Last;
        }
        if let Some(deadline) = self.drained {
            let last = timeout_at(deadline, reports.changed()).await;
            if !matches!(last, Ok(Ok(()))) {
                return Step::Last;
            }
            return self.snapshot_in(reports);
        }
        tokio::select! {
            biased;
            item = self.queue.next() => {
                if let Some(item) = item {
                    return Step::Item(item);
                }
                self.drained = Some(Instant::now() + LAST_SNAPSHOT);
                // It may have been there all along.
                self.snapshot_in(reports)
            }
            Ok(()) = reports.changed() => self.snapshot_in(reports),
        }
    }

    fn snapshot_in(&self, reports: &mut watch::Receiver<Arc<Report>>) -> Step {
        let report = Arc::clone(&reports.borrow_and_update());
        let serial = self.process.serial;
        let own = report.targets.iter().find(|target| target.process.serial == serial);
        own.map_or(Step::Nothing, |own| Step::Snapshot(Arc::clone(own)))
    }

    /// Takes it in. `watched`: somebody looks.
    pub fn take(&mut self, step: Step, watched: bool, out: &mut impl FnMut(Op<'_>)) {
        match step {
            Step::Item(Item::Deltas(deltas)) => {
                for delta in &*deltas {
                    if let Some(tid) = delta.tid {
                        self.threads.seen(tid.0);
                    }
                    self.mirror.apply(delta, out);
                }
                self.mirror.settle(out);
            }
            Step::Item(Item::Behind) => {
                self.queue.ask_for_live(&self.control, self.process.serial);
            }
            Step::Item(Item::Live { live, time_ns, left_out }) => {
                self.mirror.replace(&live, (time_ns, left_out), out);
            }
            Step::Item(Item::Programs { programs, time_ns }) => {
                self.mirror.show_programs(&programs, time_ns, out);
            }
            Step::Snapshot(snapshot) => self.observe(&snapshot, watched, out),
            Step::Nothing => {}
            Step::Last => self.finish(out),
        }
    }

    fn observe(&mut self, snapshot: &Snapshot, watched: bool, out: &mut impl FnMut(Op<'_>)) {
        self.mirror.observe(snapshot, out);
        if snapshot.state != TargetState::Running {
            self.mirror.clear(snapshot.time_ns, out);
            self.ended = true;
            return;
        }
        let any = snapshot.devices.iter().any(|chip| chip.circular.programs > 0);
        if watched && (any || self.has_programs) {
            self.queue.ask_for_programs(&self.control, self.process.serial);
        }
        self.has_programs = any;
    }

    fn finish(&mut self, out: &mut impl FnMut(Op<'_>)) {
        if self.ended {
            return;
        }
        // Its last snapshot has not come in time, or it is ttmem that ends.
        if Path::new(&format!("/proc/{}", self.process.pid)).exists() {
            self.mirror.message(Severity::Info, "ttmem watches it no more", out);
        } else {
            self.mirror.message(Severity::Info, "the process has exited", out);
            self.mirror.clear(now_ns(), out);
        }
    }
}
