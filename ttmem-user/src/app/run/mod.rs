//! `ttmem run`: starts a command, and watches it and all that it starts.

mod child;
mod invoker;

use std::{
    convert::Infallible,
    io::{self, IsTerminal as _},
    pin::pin,
};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    agent::Selection,
    output::{Lines, Stream},
    session::Session,
};
use crate::{
    cli::{
        args::RunArgs,
        config::{Output, WatchConfig},
    },
    tui::{Theme, Ui},
};
use child::Child;

/// Runs the command, and returns its exit code.
pub fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let config = WatchConfig::new(&args.watch, false, terminal)?;
    super::event_loop()?.block_on(watch(&config, args))
}

async fn watch(config: &WatchConfig, args: &RunArgs) -> anyhow::Result<u8> {
    let lines = match config.output {
        Output::Lines(format) => {
            let lines = Lines::new(format, config.file.as_deref(), Stream::Stderr)?;
            Some(lines.with_totals(true).with_failures(config.on_failure))
        }
        Output::Tui => None,
    };
    let mut child = Child::prepare(&args.command)?;
    let mut session = Session::start_for(config, Selection::Command(child.pid()))?;
    session.wait_for_start(&mut std::future::pending()).await?;
    child.go()?;
    let signals = pass_on_signals(child.signaller())?;
    let watched = async {
        match lines {
            Some(mut lines) => session.print(&mut lines, pin!(child.ended())).await,
            None => session.show(Ui::new(Theme::from_env()), child.ended()).await,
        }
    };
    tokio::select! {
        result = watched => result?,
        never = signals => match never {},
    }
    // The view may have been closed before the command's end.
    child.exit_code().await
}

/// Passes on what asks this program to end. An interrupt reaches the command by itself: it
/// belongs to the same terminal.
fn pass_on_signals(send: impl Fn(Signal)) -> anyhow::Result<impl Future<Output = Infallible>> {
    let listen = |kind| signal(kind).context("cannot listen to signals");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => send(Signal::SIGTERM),
                _ = hang_up.recv() => send(Signal::SIGHUP),
            }
        }
    })
}
