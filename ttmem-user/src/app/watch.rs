//! `ttmem watch`: reads what another ttmem shares. What cannot be read is left out and said, unless
//! it was asked for.

mod json;
mod newest;
mod tables;

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use anyhow::{bail, ensure};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    Outcome,
    ask::{START_ONE, places},
    export,
    output::{self, Lines, Stream, outcome},
    session::next_report,
    signals,
};
use crate::{
    cli::{
        args::{Format, readers::WatchArgs},
        config::Screen,
    },
    ledger::report::Report,
    sink::text,
    tui::{self, Theme, Ui},
    units::{ChipId, Pid},
};

pub(super) use tables::Tables;
use tables::is_over;

/// Runs the command.
pub fn run(args: &WatchArgs) -> anyhow::Result<Outcome> {
    let chips = args.device.iter().copied().map(ChipId).collect();
    let mut watch = Watch {
        tables: Tables::new(places(args.table_dir.as_ref()), args.pid.clone(), chips),
        refresh: Duration::from_millis(args.refresh),
        theme: args.look.theme(),
    };
    if args.json {
        if !watch.tables.chips.is_empty() {
            let first = watch.tables.read()?;
            watch.check_devices(&first)?;
        }
        return watch.json(args.once);
    }
    let in_view = output::screen() == Screen::Terminal && !args.headless && !args.once;
    let first = watch.tables.read()?;
    if !(in_view && is_empty(&first)) {
        check_not_empty(&first)?;
        watch.check_devices(&first)?;
    }
    if args.once {
        print(&mut Lines::new(Format::Text, None, Stream::Stdout)?, &first)?;
        return Ok(outcome(&first));
    }
    super::event_loop()?.block_on(watch.show(first, in_view))
}

/// Whether nobody watches anything, as while a service waits for a first process.
fn is_empty(report: &Report) -> bool {
    report.targets.is_empty() && report.unwatched.is_empty()
}

fn check_not_empty(report: &Report) -> anyhow::Result<()> {
    ensure!(!is_empty(report), "nothing is watched: {START_ONE}");
    Ok(())
}

/// Shows what another ttmem says of one process.
pub fn follow(
    place: PathBuf,
    pid: Pid,
    refresh: Duration,
    theme: Theme,
    output: Follow,
) -> anyhow::Result<Outcome> {
    let tables = Tables::new(vec![place], vec![pid.0], Vec::new());
    let mut watch = Watch { tables, refresh, theme };
    if output == Follow::Json {
        return watch.json(false);
    }
    let first = watch.tables.read()?;
    super::event_loop()?.block_on(watch.show(first, output == Follow::View))
}

/// How to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// In the live view.
    View,
    /// As tables of text.
    Text,
    /// As lines of JSON.
    Json,
}

/// When to read no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// The chosen processes have ended.
    Over,
    /// The user leaves: what they were like last stays on the screen.
    Left,
}

/// What is shown, and how.
struct Watch {
    tables: Tables,
    refresh: Duration,
    theme: Theme,
}

impl Watch {
    /// Refuses devices that nobody has.
    fn check_devices(&self, report: &Report) -> anyhow::Result<()> {
        let has = |chip: &ChipId| {
            let mut devices = report.targets.iter().flat_map(|target| &target.devices);
            devices.any(|device| device.chip == *chip)
        };
        match self.tables.chips.iter().find(|chip| !has(chip)) {
            Some(chip) => bail!("no process that is watched has a device {chip}"),
            None => Ok(()),
        }
    }

    async fn show(mut self, first: Report, in_view: bool) -> anyhow::Result<Outcome> {
        let (sender, reports) = watch::channel(Arc::new(first));
        let mut quit = pin!(signals::quit()?);
        let last = reports.clone();
        if in_view {
            let ui = Ui::new(self.theme).of_others();
            tokio::select! {
                shown = tui::run(ui, reports, None, export::only, quit) => shown?,
                read = self.keep_reading(&sender, Until::Left) => read?,
            }
        } else {
            let mut lines = Lines::new(Format::Text, None, Stream::Stdout)?;
            let print = print_all(reports, &mut lines);
            tokio::select! {
                printed = print => printed?,
                read = self.keep_reading(&sender, Until::Over) => read?,
                () = &mut quit => {}
            }
        }
        let last = Arc::clone(&last.borrow());
        Ok(outcome(&last))
    }

    async fn keep_reading(
        &mut self,
        sender: &watch::Sender<Arc<Report>>,
        until: Until,
    ) -> anyhow::Result<()> {
        let mut ticks = interval(self.refresh);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let report = self.tables.read()?;
            let over =
                report.targets.iter().all(|target| is_over(target)) && !self.tables.pids.is_empty();
            sender.send_replace(Arc::new(report));
            if over && until == Until::Over {
                // The last report is shown before this is seen.
                ticks.tick().await;
                return Ok(());
            }
        }
    }
}

async fn print_all(
    mut reports: watch::Receiver<Arc<Report>>,
    lines: &mut Lines,
) -> anyhow::Result<()> {
    while let Some(report) = next_report(&mut reports).await {
        print(lines, &report)?;
    }
    Ok(())
}

/// Prints a report, and why it lacks what it lacks.
fn print(lines: &mut Lines, report: &Report) -> anyhow::Result<()> {
    lines.print(report)?;
    let left_out = text::unwatched(&report.unwatched, None, false);
    Ok(output::print(&left_out)?)
}

#[cfg(test)]
mod tests;
