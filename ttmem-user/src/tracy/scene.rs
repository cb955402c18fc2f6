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
    /// Something of this target.
    News {
        /// From the pipeline, in order.
        items: Vec<Item>,
        /// The state after all of them.
        snapshot: Option<Arc<Snapshot>>,
    },
    /// There is no more to come.
    Last,
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

    /// Its serial.
    pub fn serial(&self) -> u64 {
        self.process.serial
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
            return Step::News { items: Vec::new(), snapshot: self.snapshot_in(reports) };
        }
        tokio::select! {
            biased;
            items = self.queue.next() => {
                if let Some(items) = items {
                    return Step::News { items, snapshot: None };
                }
                self.drained = Some(Instant::now() + LAST_SNAPSHOT);
                // It may have been there all along.
                Step::News { items: Vec::new(), snapshot: self.snapshot_in(reports) }
            }
            Ok(()) = reports.changed() => {
                let snapshot = self.snapshot_in(reports);
                // What it holds must not get its time: what came before is there by now.
                Step::News { items: self.queue.gathered(), snapshot }
            }
        }
    }

    fn snapshot_in(&self, reports: &mut watch::Receiver<Arc<Report>>) -> Option<Arc<Snapshot>> {
        let report = Arc::clone(&reports.borrow_and_update());
        let serial = self.process.serial;
        report.targets.iter().find(|target| target.process.serial == serial).map(Arc::clone)
    }

    /// Takes it in. `watched`: somebody looks.
    pub fn take(&mut self, step: Step, watched: bool, out: &mut impl FnMut(Op<'_>)) {
        match step {
            Step::News { items, snapshot } => {
                for item in items {
                    self.take_item(item, out);
                }
                self.mirror.settle(out);
                if let Some(snapshot) = snapshot {
                    self.observe(&snapshot, watched, out);
                }
            }
            Step::Last => self.finish(out),
        }
    }

    fn take_item(&mut self, item: Item, out: &mut impl FnMut(Op<'_>)) {
        match item {
            Item::Deltas(deltas) => {
                for delta in &*deltas {
                    if let Some(tid) = delta.tid {
                        self.threads.seen(tid.0);
                    }
                    self.mirror.apply(delta, out);
                }
            }
            Item::Behind => self.queue.ask_for_live(&self.control, self.process.serial),
            Item::Live { live, time_ns, left_out } => {
                self.mirror.replace(&live, (time_ns, left_out), out);
            }
            Item::Programs { programs, time_ns } => {
                self.mirror.show_programs(&programs, time_ns, out);
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fixture,
        sink::DeltaSink as _,
        tracy::{feed, mirror::tests::came},
    };

    #[tokio::test]
    async fn a_snapshot_comes_after_what_it_holds() {
        let (mut feed, queue) = feed::queue();
        let snapshot = Arc::new(fixture::normal());
        let control = Control::new().unwrap();
        let mut scene = Scene::new(&snapshot.process, queue, &control, Style::Ttmem);
        let (to, mut reports) = watch::channel(Arc::new(Report::default()));
        feed.take(&[came(1, 1, 0x400)].into());
        // From here on it gathers: the report is there first.
        let first = scene.next(&mut reports).await;
        assert!(matches!(first, Step::News { items, snapshot: None } if items.len() == 1));
        feed.take(&[came(2, 2, 0x800)].into());
        let targets = vec![Arc::clone(&snapshot)];
        to.send_replace(Arc::new(Report { targets, ..Report::default() }));
        let Step::News { items, snapshot: Some(found) } = scene.next(&mut reports).await else {
            panic!("no snapshot");
        };
        assert!(matches!(&items[..], [Item::Deltas(_)]));
        assert_eq!(found, snapshot);
    }
}
