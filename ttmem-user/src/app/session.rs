//! A running watch: the agent that attaches, the pipeline that counts, and what shows the result.

use std::{io, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use super::{
    agent::{Agent, Selection, Started, TargetOptions},
    bpf_log, export,
    output::Lines,
    privileges, record,
    share::Share,
    stacks,
};
#[cfg(feature = "tracy")]
use crate::tracy::Tracy;
use crate::{
    cli::config::SessionConfig,
    history::recorder::Recorder,
    kernel::{Kernel, LoadOptions},
    ledger::{report::Report, snapshot::Detail},
    pipeline::{Command, Control, Options, Pipeline},
    sink::Follower,
    stacks::Unwinding,
    tui::{self, OutputTail, Request, Ui},
};

/// Everything that runs. Dropping it takes the probes out first, and then stops counting.
pub struct Session {
    agent: Agent,
    _pipeline: Pipeline,
    control: Arc<Control>,
    reports: watch::Receiver<Arc<Report>>,
    started: Option<Started>,
    /// What the live view looks back into.
    recorder: Option<Recorder>,
    /// What unwinds call stacks, if they are recorded.
    stacks: Option<Unwinding>,
    /// After the pipeline, so that viewers hear of the end.
    #[cfg(feature = "tracy")]
    _tracy: Option<Tracy>,
}

impl Session {
    /// Loads the eBPF side and starts the threads. From here on this thread has no rights, and SIGUSR1
    /// has the live buffers read again.
    pub fn start(
        config: &SessionConfig,
        selection: Selection,
        followers: Vec<Follower>,
    ) -> anyhow::Result<Self> {
        Self::start_with(config, selection, followers, privileges::drop_all)
    }

    /// The same for a command of ours, which this thread must be able to signal.
    pub fn start_for(
        config: &SessionConfig,
        selection: Selection,
        followers: Vec<Follower>,
    ) -> anyhow::Result<Self> {
        Self::start_with(config, selection, followers, privileges::keep_for_signals)
    }

    fn start_with(
        config: &SessionConfig,
        selection: Selection,
        followers: Vec<Follower>,
        give_up: fn() -> io::Result<()>,
    ) -> anyhow::Result<Self> {
        // At first: whoever sends it does not know how far the start is.
        let resync = signal(SignalKind::user_defined1()).context("cannot listen to signals")?;
        let mut kernel = Kernel::load(LoadOptions {
            ring_bytes: config.ring_bytes,
            stacks: config.stacks,
            debug: config.debug_bpf,
            perf_events: config.perf_events,
            pretend_preempting: config.pretend_preempting,
        })?;
        if config.debug_bpf {
            bpf_log::pass_on(&mut kernel.attacher)?;
        }
        let control = Control::new().context("cannot make an eventfd")?;
        pass_on_resync(resync, Arc::clone(&control));
        let options = Options {
            refresh: config.refresh,
            duration: config.duration,
            once: config.once,
            awaits_target: selection.awaits_target(),
            ends_with_targets: selection.ends_with_targets(),
            detail: Detail { buffers: config.buffers, map: config.map, ..Detail::default() },
            // Any view may be opened after the end.
            detail_at_end: Detail {
                map: config.history,
                programs: config.history,
                ..Detail::default()
            },
            audit: config.audit,
        };
        let watched = TargetOptions {
            keep_failures: config.keep_failures,
            dispatches: config.dispatches,
            audit: config.audit.is_some(),
        };
        let mut followers = followers;
        let recorder = record::start(config.history, &control)?;
        followers.extend(recorder.iter().map(Recorder::follower));
        let stacks = kernel.stacks.map(|source| stacks::start(source, &control)).transpose()?;
        #[cfg(feature = "tracy")]
        let tracy = config.tracy.clone().map(|tracy| {
            let calls = stacks.as_ref().map(|stacks| Arc::new(stacks.handle()) as _);
            Tracy::start(tracy, &control, calls, privileges::drop_all)
        });
        #[cfg(feature = "tracy")]
        let tracy = tracy.transpose()?.inspect(|tracy| followers.push(tracy.follower()));
        let fill_in = stacks.as_ref().map(|stacks| stacks::fill_in(stacks.handle()));
        let share = Share::open(config.sharing.as_ref(), &control, fill_in)?;
        let (agent, started) = Agent::start(
            kernel.attacher,
            selection,
            Arc::clone(&control),
            watched,
            share,
            followers,
            stacks.as_ref().map(Unwinding::handle),
        )?;
        give_up().context("cannot drop capabilities")?;
        let (pipeline, reports) =
            Pipeline::start(kernel.records, options, Arc::clone(&control), agent.on_notice())
                .context("cannot start a thread")?;
        let started = Some(started);
        #[cfg(feature = "tracy")]
        let tracy = tracy.inspect(|tracy| tracy.watch(reports.clone()));
        Ok(Self {
            agent,
            _pipeline: pipeline,
            control,
            reports,
            started,
            recorder,
            stacks,
            #[cfg(feature = "tracy")]
            _tracy: tracy,
        })
    }

    /// Waits until all targets of the start are attached to; `false`: it was told to quit before.
    pub async fn wait_for_start(
        &mut self,
        quit: &mut (impl Future<Output = ()> + Unpin),
    ) -> anyhow::Result<bool> {
        let Some(started) = self.started.take() else { return Ok(true) };
        tokio::select! {
            result = started => result.context("the thread that attaches is gone")?.map(|()| true),
            () = quit => {
                self.control.stop();
                Ok(false)
            }
        }
    }

    /// Prints until the pipeline ends, which `quit` makes it do.
    pub async fn print(
        &mut self,
        lines: &mut Lines,
        mut quit: impl Future<Output = ()> + Unpin,
    ) -> anyhow::Result<()> {
        let mut quitting = false;
        loop {
            tokio::select! {
                () = &mut quit, if !quitting => {
                    quitting = true;
                    self.control.stop();
                }
                report = next_report(&mut self.reports) => match report {
                    Some(report) => self.print_report(lines, &report)?,
                    None => return self.check(),
                }
            }
        }
    }

    /// Prints a report, with what called for its buffers if that is recorded.
    fn print_report(&self, lines: &mut Lines, report: &Report) -> anyhow::Result<()> {
        let Some(stacks) = self.stacks.as_ref().map(Unwinding::handle) else {
            return lines.print(report);
        };
        lines.print_with(&stacks::with_calls(&stacks, report), Some(&stacks))
    }

    /// Shows the live view until the user or `quit` ends it.
    pub async fn show(&mut self, ui: Ui, quit: impl Future<Output = ()>) -> anyhow::Result<()> {
        self.show_with(ui, None, |_| None, quit).await
    }

    /// The same with the output of a command; requests that concern it go to `on_command`.
    pub async fn show_with(
        &mut self,
        ui: Ui,
        output: Option<watch::Receiver<Arc<OutputTail>>>,
        on_command: impl Fn(Request) -> Option<String>,
        quit: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let ui = match &self.recorder {
            Some(recorder) => ui.with_histories(recorder.histories()),
            None => ui,
        };
        let ui = match &self.stacks {
            Some(stacks) => ui.with_calls(Arc::new(stacks.handle())),
            None => ui,
        };
        let control = Arc::clone(&self.control);
        let on_request = move |request| match request {
            Request::Resync => {
                control.send(Command::Resync);
                None
            }
            Request::Detail(detail) => {
                control.send(Command::Detail(detail));
                None
            }
            Request::Export(_) => export::only(request),
            Request::Interrupt | Request::OutputSize(_) => on_command(request),
        };
        tokio::select! {
            shown = tui::run(ui, self.reports.clone(), output, on_request, quit) => shown,
            error = self.failure() => Err(error),
        }
    }

    /// Completes when all has ended because something failed. After another end what was there last
    /// stays on the screen.
    async fn failure(&self) -> anyhow::Error {
        let mut reports = self.reports.clone();
        while next_report(&mut reports).await.is_some() {}
        match self.check() {
            Err(error) => error,
            Ok(()) => std::future::pending().await,
        }
    }

    /// Why there are no more reports, if that is not as it should be.
    pub fn check(&self) -> anyhow::Result<()> {
        self.agent.check()?;
        ensure!(
            !self.control.has_failed(),
            "the thread that counts has failed, and nothing is watched any more: that is a defect of ttmem"
        );
        Ok(())
    }

    /// The next report; `None` after the last.
    pub async fn next_report(&mut self) -> Option<Arc<Report>> {
        next_report(&mut self.reports).await
    }

    /// Looks for targets again, and has all be read again.
    pub fn look_again(&self) {
        self.agent.look_again();
        self.control.send(Command::Resync);
    }

    /// The latest report.
    pub fn last(&self) -> Arc<Report> {
        Arc::clone(&self.reports.borrow())
    }
}

/// Has every target's live buffers read again and compared whenever the signal comes.
fn pass_on_resync(mut asked: Signal, control: Arc<Control>) {
    tokio::spawn(async move {
        while asked.recv().await.is_some() {
            control.send(Command::Resync);
        }
    });
}

/// The next report of a channel; `None` after the last.
pub async fn next_report(reports: &mut watch::Receiver<Arc<Report>>) -> Option<Arc<Report>> {
    reports.changed().await.ok()?;
    Some(Arc::clone(&reports.borrow_and_update()))
}

/// Completes with `quit`, or when the time is over.
pub async fn or_over(quit: impl Future<Output = ()>, duration: Option<Duration>) {
    match duration {
        // Whichever comes first.
        Some(duration) => drop(tokio::time::timeout(duration, quit).await),
        None => quit.await,
    }
}
