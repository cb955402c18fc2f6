//! `ttmem run` with the live view: the command has a terminal of its own, shown in a pane.
//!
//! When the view closes, what is kept of the output is printed; if the command still runs, the
//! rest is passed on as it comes. The command never gets what is typed, but for Ctrl-C.

use std::pin::pin;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::{
    begin,
    child::Child,
    code_of, complain,
    invoker::Invoker,
    pass_on_signals,
    pty::{Pty, own_size},
    reader::Reader,
};
use crate::{
    app::{
        privileges,
        session::{Session, or_over},
    },
    cli::{args::RunArgs, config::WatchConfig},
    tui::{Request, USUAL, Ui, output_size},
};

/// Runs the command, and returns its exit code.
pub async fn watch(config: &WatchConfig, args: &RunArgs) -> anyhow::Result<u8> {
    let invoker = Invoker::find();
    let own = own_size().unwrap_or(USUAL);
    let (pty, terminal) = Pty::open(output_size(own).unwrap_or(own), invoker.as_ref())?;
    let mut child = Child::prepare(&args.command, invoker.as_ref(), Some(terminal))?;
    let reader = Reader::start(pty.clone(), privileges::drop_all)?;
    let mut signals = pin!(pass_on_signals(child.signaller(), || pty.interrupt())?);
    let mut session = tokio::select! {
        session = begin(config, &mut child) => session?,
        never = &mut signals => match never {},
    };
    let watched = async {
        let over = or_over(child.ended(), config.session.duration);
        let shown = show(&mut session, args, over, &pty, &reader).await;
        reader.pass_on();
        let failed = shown.is_err_and(|error| complain(&error));
        // The view may have been closed, or its time be over, before the command's end.
        drop(session);
        tokio::select! {
            code = child.exit_code() => Ok(code_of(code?, failed)),
            error = follow_size(&pty) => Err(error),
        }
    };
    let code = tokio::select! {
        code = watched => code,
        never = signals => match never {},
    };
    if code.is_ok() {
        reader.finish();
    }
    code
}

async fn show(
    session: &mut Session,
    args: &RunArgs,
    over: impl Future<Output = ()>,
    pty: &Pty,
    reader: &Reader,
) -> anyhow::Result<()> {
    let words: Vec<_> = args.command.iter().map(|word| word.to_string_lossy()).collect();
    let ui = Ui::with_command(args.watch.look.theme(), words.join(" "));
    let on_command = |request| match request {
        Request::Interrupt => {
            pty.interrupt();
            None
        }
        Request::OutputSize(size) => {
            pty.resize(size);
            None
        }
        Request::Resync | Request::Detail(_) | Request::Export(_) => None,
    };
    session.show_with(ui, Some(reader.tail()), on_command, over).await
}

/// Gives the command's terminal the size of ours, from now on; returns only if it cannot.
async fn follow_size(pty: &Pty) -> anyhow::Error {
    let mut changes = match signal(SignalKind::window_change()).context("cannot listen to signals")
    {
        Ok(changes) => changes,
        Err(error) => return error,
    };
    loop {
        if let Some(size) = own_size() {
            pty.resize(size);
        }
        changes.recv().await;
    }
}
