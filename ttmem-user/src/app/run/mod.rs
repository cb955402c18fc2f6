//! `ttmem run`: starts a command, and watches it and all that it starts.

mod child;
pub mod environment;
mod invoker;
mod output;
mod pty;
mod reader;
mod view;

use std::{convert::Infallible, pin::pin};

use nix::sys::signal::Signal;
use tokio::signal::unix::SignalKind;

use super::{
    agent::Selection,
    is_broken_pipe, one_line,
    output::{Lines, Stream, screen},
    session::Session,
    signals::Request,
};
use crate::{
    cli::{
        args::RunArgs,
        config::{Output, WatchConfig},
    },
    stderr::remark,
};
use child::Child;
use invoker::Invoker;

/// Runs the command, and returns its exit code.
pub fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let config = WatchConfig::new(&args.watch, false, screen())?;
    super::event_loop()?.block_on(watch(&config, args))
}

async fn watch(config: &WatchConfig, args: &RunArgs) -> anyhow::Result<u8> {
    let Output::Lines(format) = config.output else {
        return view::watch(config, args).await;
    };
    let lines = Lines::new(format, config.file.as_deref(), Stream::Stderr)?;
    let mut lines = lines.with_totals(true).with_failures(config.on_failure);
    let mut child = Child::prepare(&args.command, Invoker::find().as_ref(), None)?;
    // An interrupt reaches the command by itself: it belongs to the same terminal.
    let mut signals = pin!(pass_on_signals(child.signaller(), || ())?);
    let mut session = tokio::select! {
        session = begin(config, &mut child) => session?,
        never = &mut signals => match never {},
    };
    let ended = pin!(child.ended());
    let printed = tokio::select! {
        printed = session.print(&mut lines, ended) => printed,
        never = &mut signals => match never {},
    };
    // Its time may be over, or there is no room for its output: the command runs on without it.
    drop(session);
    let failed = printed.is_err_and(|error| !is_broken_pipe(&error) && complain(&error));
    let code = tokio::select! {
        code = child.exit_code() => code?,
        never = &mut signals => match never {},
    };
    Ok(code_of(code, failed))
}

/// The exit code: the command's, unless that says that all went well and it did not.
const fn code_of(command: u8, failed: bool) -> u8 {
    if failed && command == 0 { 1 } else { command }
}

/// Says what failed before the command's end; `true`.
fn complain(error: &anyhow::Error) -> bool {
    remark!("ttmem: {}; the command is not watched any more", one_line(error));
    true
}

/// Watches the command, and lets it go.
async fn begin(config: &WatchConfig, child: &mut Child) -> anyhow::Result<Session> {
    let mut session =
        Session::start_for(&config.session, Selection::Command(child.pid()), Vec::new())?;
    session.wait_for_start(&mut std::future::pending()).await?;
    child.go()?;
    Ok(session)
}

/// Passes on what asks this program to end, from now on: before the command is let go, or a signal would
/// end this program alone.
fn pass_on_signals(
    send: impl Fn(Signal),
    on_interrupt: impl Fn(),
) -> anyhow::Result<impl Future<Output = Infallible>> {
    let mut interrupt = Request::listen(SignalKind::interrupt())?;
    let mut terminate = Request::listen(SignalKind::terminate())?;
    let mut hang_up = Request::listen(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                () = interrupt.recv() => on_interrupt(),
                () = terminate.recv() => send(Signal::SIGTERM),
                () = hang_up.recv() => send(Signal::SIGHUP),
            }
        }
    })
}
