//! `ttmem attach`.

use std::pin::pin;

use anyhow::anyhow;

use super::{
    Outcome,
    agent::Selection,
    output::{Lines, Stream, outcome, screen},
    session::{Session, or_over},
    signals, target,
    watch::{Follow, follow},
};
use crate::{
    cli::{
        args::{AttachArgs, Format},
        config::{Output, WatchConfig},
    },
    stderr::remark,
    table::writer::TableError,
    target::process::Process,
    tui::Ui,
    units::Pid,
};

/// Runs the command.
pub fn run(args: &AttachArgs) -> anyhow::Result<Outcome> {
    if args.targets.is_empty() {
        return Err(which_one());
    }
    let pids: Vec<Pid> = args.targets.pid.iter().copied().map(Pid).collect();
    // A process that is not there is a better reason than a terminal that is not.
    for pid in &pids {
        Process::open(*pid)?;
    }
    let config = WatchConfig::new(&args.watch, args.once, screen())?;
    let selection = if args.targets.all {
        Selection::All
    } else if let Some(pattern) = &args.targets.name {
        Selection::Named { pattern: pattern.clone(), wait: args.wait }
    } else {
        Selection::Pids { pids, wait: args.wait }
    };
    match super::event_loop()?.block_on(watch(&config, selection)) {
        Err(error) => follow_instead(&config, args, error),
        done => done,
    }
}

/// What to say where it is not said which process.
fn which_one() -> anyhow::Error {
    let options = "which process? Give --pid PID, --name REGEX or --all";
    match target::all_named() {
        none if none.is_empty() => {
            anyhow!("{options}: no process that can be looked into has tt-metal")
        }
        found => anyhow!("{options}: tt-metal runs in {}", target::listed(&found)),
    }
}

/// If another ttmem watches the process: shows what that one says, unless more was asked for.
fn follow_instead(
    config: &WatchConfig,
    args: &AttachArgs,
    error: anyhow::Error,
) -> anyhow::Result<Outcome> {
    let taken = error.chain().find_map(|cause| match cause.downcast_ref::<TableError>() {
        Some(TableError::Taken { pid, place, .. }) => Some((Pid(*pid), place.clone())),
        _ => None,
    });
    let Some((pid, place)) = taken else { return Err(error) };
    let watch = &args.watch;
    let more = [
        (watch.buffers, "--buffers"),
        (watch.map, "--map"),
        (watch.dispatches, "--dispatches"),
        (watch.stacks.stacks, "--stacks"),
        (watch.audit.is_some(), "--audit"),
        (watch.on_failure.is_some(), "--on-failure"),
        (watch.output.is_some(), "--output"),
        (watch.duration.is_some(), "--duration"),
        (args.targets.pid.len() != 1, "the other processes"),
        #[cfg(feature = "tracy")]
        (watch.tracy.tracy.is_some(), "--tracy"),
    ];
    if let Some((_, what)) = more.iter().find(|(asked_for, _)| *asked_for) {
        return Err(error.context(format!(
            "cannot do without an attach of its own: leave {what} out, or add --no-table"
        )));
    }
    remark!("ttmem: {error}: showing what that one says");
    let output = match config.output {
        Output::Tui => Follow::View,
        Output::Lines(Format::Text) => Follow::Text,
        Output::Lines(Format::Json) => Follow::Json,
    };
    follow(place, pid, config.session.refresh, config.theme, output)
}

async fn watch(config: &WatchConfig, selection: Selection) -> anyhow::Result<Outcome> {
    let several = selection.is_several();
    let mut quit = pin!(signals::quit()?);
    let lines = match config.output {
        Output::Lines(format) => {
            let lines = Lines::new(format, config.file.as_deref(), Stream::Stdout)?;
            Some(lines.with_totals(several).with_failures(config.on_failure))
        }
        Output::Tui => None,
    };
    let mut session = Session::start(&config.session, selection, Vec::new())?;
    if !session.wait_for_start(&mut quit).await? {
        return Ok(Outcome::Incomplete);
    }
    match lines {
        Some(mut lines) => session.print(&mut lines, quit).await?,
        None => {
            session.show(Ui::new(config.theme), or_over(quit, config.session.duration)).await?;
        }
    }
    Ok(outcome(&session.last()))
}
