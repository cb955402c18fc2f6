//! `ttmem watch`: reads what another ttmem shares. What cannot be read is left out and said, unless
//! it was asked for.

mod json;
mod newest;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{bail, ensure};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    Outcome,
    ask::{START_ONE, places, watched},
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
    ledger::{
        report::{KEPT_ENDED, Report, Unwatched},
        snapshot::{Snapshot, TargetState},
    },
    pipeline::now_ns,
    sink::text,
    table::{
        reader::{self, ReadError, Table},
        view,
    },
    tui::{self, Theme, Ui},
    units::{ChipId, Pid},
};

/// How long a table is left alone that was in the midst of a write: each look takes a second, in which
/// nothing is shown.
const TORN: Duration = Duration::from_secs(10);

/// Runs the command.
pub fn run(args: &WatchArgs) -> anyhow::Result<Outcome> {
    let mut watch = Watch {
        places: places(args.table_dir.as_ref()),
        pids: args.pid.clone(),
        chips: args.device.iter().copied().map(ChipId).collect(),
        refresh: Duration::from_millis(args.refresh),
        theme: args.look.theme(),
        tables: BTreeMap::new(),
        torn: BTreeMap::new(),
    };
    if args.json {
        if !watch.chips.is_empty() {
            let first = watch.read()?;
            watch.check_devices(&first)?;
        }
        return watch.json(args.once);
    }
    let in_view = output::screen() == Screen::Terminal && !args.headless && !args.once;
    let first = watch.read()?;
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
    let mut watch = Watch {
        places: vec![place],
        pids: vec![pid.0],
        chips: Vec::new(),
        refresh,
        theme,
        tables: BTreeMap::new(),
        torn: BTreeMap::new(),
    };
    if output == Follow::Json {
        return watch.json(false);
    }
    let first = watch.read()?;
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

/// What others share of the chosen processes.
pub(super) struct Watch {
    places: Vec<PathBuf>,
    /// Only these; none: all that there are.
    pids: Vec<u32>,
    /// Only these; none: all.
    chips: Vec<ChipId>,
    refresh: Duration,
    theme: Theme,
    /// The open ones. One whose process has ended stays readable.
    tables: BTreeMap<u32, Table>,
    /// Those that could not be read, until when they are left alone, and why.
    torn: BTreeMap<u32, (Instant, String)>,
}

impl Watch {
    /// Looks at these places; at all processes and all chips if none are given.
    pub(super) fn of(places: Vec<PathBuf>, pids: Vec<u32>, chips: Vec<ChipId>) -> Self {
        let (refresh, theme) = (Duration::MAX, Theme::default());
        let (tables, torn) = (BTreeMap::new(), BTreeMap::new());
        Self { places, pids, chips, refresh, theme, tables, torn }
    }

    /// The processes to look at.
    fn chosen(&self) -> Vec<u32> {
        if self.pids.is_empty() { watched(&self.places) } else { self.pids.clone() }
    }

    /// What the tables say now; an error if there are none.
    fn read(&mut self) -> anyhow::Result<Report> {
        let report = self.look()?;
        if report.targets.is_empty() && report.unwatched.is_empty() && self.pids.is_empty() {
            bail!("nothing is watched: {START_ONE}");
        }
        Ok(report)
    }

    /// What the tables say now.
    pub(super) fn look(&mut self) -> anyhow::Result<Report> {
        let mut unwatched = Vec::new();
        let pids = self.chosen();
        for pid in pids.iter().copied() {
            match reader::open(&self.places, pid) {
                Ok(table) => _ = self.tables.insert(pid, table),
                // It has gone since the directory was read, or is open and has ended.
                Err(ReadError::NotThere { .. }) if self.pids.is_empty() => {}
                Err(ReadError::NotThere { .. }) if self.tables.contains_key(&pid) => {}
                Err(error) if self.pids.is_empty() => {
                    unwatched.push(left_out(pid, error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        // With a torn table whose file has gone there is nothing to wait for.
        let Self { tables, torn, .. } = self;
        tables.retain(|pid, _| pids.contains(pid) || !torn.contains_key(pid));
        let mut targets = self.read_tables(&mut unwatched)?;
        self.forget_ended(&mut targets);
        Ok(Report { time_ns: now_ns(), targets, unwatched, health: None })
    }

    /// What each open table says. One that cannot be read is left out, unless it was asked for.
    fn read_tables(
        &mut self,
        unwatched: &mut Vec<Unwatched>,
    ) -> anyhow::Result<Vec<Arc<Snapshot>>> {
        let mut targets = Vec::new();
        self.torn
            .retain(|pid, (until, _)| self.tables.contains_key(pid) && *until > Instant::now());
        for (pid, table) in &self.tables {
            if let Some((_, why)) = self.torn.get(pid) {
                unwatched.push(left_out(*pid, why.clone()));
                continue;
            }
            match snapshot(table, &self.chips) {
                Ok(snapshot) => targets.push(Arc::new(snapshot)),
                Err(error) if self.pids.is_empty() => {
                    let why = error.to_string();
                    self.torn.insert(*pid, (Instant::now() + TORN, why.clone()));
                    unwatched.push(left_out(*pid, why));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(targets)
    }

    /// Leaves out the first of many that have ended.
    fn forget_ended(&mut self, targets: &mut Vec<Arc<Snapshot>>) {
        let ended = targets.iter().filter(|target| is_over(target)).count();
        let mut surplus = ended.saturating_sub(KEPT_ENDED);
        let tables = &mut self.tables;
        targets.retain(|target| {
            let goes = surplus > 0 && is_over(target);
            surplus -= usize::from(goes);
            if goes {
                tables.remove(&target.pid.0);
            }
            !goes
        });
    }

    /// Refuses devices that nobody has.
    fn check_devices(&self, report: &Report) -> anyhow::Result<()> {
        let has = |chip: &ChipId| {
            let mut devices = report.targets.iter().flat_map(|target| &target.devices);
            devices.any(|device| device.chip == *chip)
        };
        match self.chips.iter().find(|chip| !has(chip)) {
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
            let report = self.read()?;
            let over = report.targets.iter().all(|target| is_over(target)) && !self.pids.is_empty();
            sender.send_replace(Arc::new(report));
            if over && until == Until::Over {
                // The last report is shown before this is seen.
                ticks.tick().await;
                return Ok(());
            }
        }
    }
}

/// What a table says. One that nobody writes and that is not there any more is of a process that has
/// ended, if it is not to be seen: nobody else will say so.
fn snapshot(table: &Table, chips: &[ChipId]) -> Result<Snapshot, ReadError> {
    let mut snapshot = view::snapshot(table, chips, now_ns)?;
    if !is_over(&snapshot) && !table.path().exists() {
        let header = table.header()?;
        if header.is_left(now_ns()) && !header.process_is_alive() {
            snapshot.state = TargetState::Exited;
        }
    }
    Ok(snapshot)
}

fn is_over(target: &Snapshot) -> bool {
    target.state != TargetState::Running
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

fn left_out(pid: u32, reason: String) -> Unwatched {
    Unwatched { pid: Pid(pid), command: String::new(), reason }
}

#[cfg(test)]
mod tests;
