//! `ttmem serve`: the agent as a service.

use std::{collections::BTreeMap, pin::pin, sync::Arc};

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::{Outcome, agent::Selection, session::Session, signals::Request};
use crate::{
    cli::{args::readers::ServeArgs, config::SessionConfig},
    ledger::{report::Report, snapshot::TargetState},
    stderr::remark,
    units::Pid,
};

/// Runs the command.
pub fn run(args: &ServeArgs) -> anyhow::Result<Outcome> {
    super::event_loop()?.block_on(serve(&SessionConfig::of_service(args), selection(args)))
}

fn selection(args: &ServeArgs) -> Selection {
    match &args.name {
        Some(pattern) => Selection::Named { pattern: pattern.clone(), wait: true },
        None => Selection::All,
    }
}

async fn serve(config: &SessionConfig, selection: Selection) -> anyhow::Result<Outcome> {
    let mut interrupt = Request::listen(SignalKind::interrupt())?;
    let mut terminate = Request::listen(SignalKind::terminate())?;
    let mut quit = pin!(async move {
        tokio::select! {
            () = interrupt.recv() => {}
            () = terminate.recv() => {}
        }
    });
    // It ends nothing here, so that there is no reason to leave it out where it was ignored.
    let mut reload = signal(SignalKind::hangup()).context("cannot listen to signals")?;
    let mut session = Session::start(config, selection, Vec::new())?;
    if !session.wait_for_start(&mut quit).await? {
        return Ok(Outcome::Complete);
    }
    tell(&[NotifyState::Ready]);
    let mut log = Log::default();
    loop {
        tokio::select! {
            () = &mut quit => break,
            _ = reload.recv() => {
                tell(&[NotifyState::Reloading, monotonic()]);
                session.look_again();
                tell(&[NotifyState::Ready]);
            }
            report = session.next_report() => match report {
                Some(report) => log.note(&report),
                None => break,
            },
        }
    }
    tell(&[NotifyState::Stopping]);
    session.check()?;
    Ok(Outcome::Complete)
}

/// Tells systemd, if it is there. What it cannot be told it does without.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot tell systemd: {error}");
    }
}

fn monotonic() -> NotifyState<'static> {
    let micros = crate::pipeline::now_ns() / 1000;
    NotifyState::MonotonicUsec(micros.into())
}

/// Says on standard error what comes and goes, each once.
#[derive(Default)]
struct Log {
    watched: BTreeMap<u64, Seen>,
    unwatched: BTreeMap<Pid, String>,
    /// What systemd was told last.
    running: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    state: TargetState,
    exact: bool,
    failures: Option<u64>,
}

impl Log {
    fn note(&mut self, report: &Arc<Report>) {
        for target in &report.targets {
            let now =
                Seen { state: target.state, exact: target.exact, failures: target.failures.count };
            let before = self.watched.insert(target.process.serial, now.clone());
            let name = format!("process {} ({})", target.pid, one_line(&target.process.command));
            if before.is_none() {
                remark!("watching {name}");
            }
            if before.as_ref().is_none_or(|before| before.exact != now.exact) {
                match target.inexact_because.first() {
                    Some(reason) => remark!("{name} is not exact: {}", one_line(reason)),
                    None if before.is_some() => remark!("{name} is exact again"),
                    None => {}
                }
            }
            let failures_before = before.as_ref().and_then(|before| before.failures);
            if now.failures > failures_before.or(Some(0)) {
                remark!("{name}: {} failed allocations", now.failures.unwrap_or(0));
            }
            if now.state != TargetState::Running && before.is_none_or(|it| it.state != now.state) {
                let live: u64 = target
                    .devices
                    .iter()
                    .flat_map(|chip| &chip.pools)
                    .map(|pool| pool.buffers)
                    .sum();
                remark!("{name} has ended; {live} buffers were live");
            }
        }
        self.watched.retain(|serial, _| {
            report.targets.iter().any(|target| target.process.serial == *serial)
        });
        let unwatched: BTreeMap<Pid, String> =
            report.unwatched.iter().map(|it| (it.pid, it.reason.clone())).collect();
        for (pid, reason) in &unwatched {
            if self.unwatched.get(pid) != Some(reason) {
                remark!("process {pid} is not watched: {}", one_line(reason));
            }
        }
        self.unwatched = unwatched;
        let running = report.running().count();
        if self.running.replace(running) != Some(running) {
            tell(&[NotifyState::Status(&format!("{running} processes are watched"))]);
        }
    }
}

fn one_line(text: &str) -> String {
    crate::format::one_line(text)
}
