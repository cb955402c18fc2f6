//! `ttmem watch`: reads what another ttmem shares.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    pin::pin,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    Outcome,
    ask::{START_ONE, places, watched},
    export,
    output::{Lines, Stream, outcome},
    session::{next_report, quit_signal},
};
use crate::{
    cli::args::{Format, readers::WatchArgs},
    ledger::{
        report::{Report, Unwatched},
        snapshot::{Snapshot, TargetState},
    },
    pipeline::now_ns,
    socket::client::{Client, ClientError},
    table::{
        reader::{self, ReadError, Table},
        view,
    },
    tui::{self, Theme, Ui},
    units::{ChipId, Pid},
};

/// How many of the processes that ended are still shown.
const KEPT_ENDED: usize = 16;

/// Runs the command.
pub fn run(args: &WatchArgs) -> anyhow::Result<Outcome> {
    let mut watch = Watch {
        places: places(args.table_dir.as_ref()),
        pids: args.pid.clone(),
        chips: args.device.iter().copied().map(ChipId).collect(),
        refresh: Duration::from_millis(args.refresh),
        theme: args.look.theme(),
        tables: BTreeMap::new(),
    };
    if args.json {
        return watch.json(args.once);
    }
    let first = watch.read()?;
    watch.check_devices(&first)?;
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    if args.once {
        Lines::new(Format::Text, None, Stream::Stdout)?.print(&first)?;
        return Ok(outcome(&first));
    }
    super::event_loop()?.block_on(watch.show(first, terminal && !args.headless))
}

/// Shows what another ttmem says of one process.
pub fn follow(
    place: PathBuf,
    pid: Pid,
    refresh: Duration,
    theme: Theme,
    output: Follow,
) -> anyhow::Result<Outcome> {
    let (places, pids, chips) = (vec![place], vec![pid.0], Vec::new());
    let mut watch = Watch { places, pids, chips, refresh, theme, tables: BTreeMap::new() };
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

struct Watch {
    places: Vec<PathBuf>,
    /// Only these; none: all that there are.
    pids: Vec<u32>,
    /// Only these; none: all.
    chips: Vec<ChipId>,
    refresh: Duration,
    theme: Theme,
    /// The open ones. One whose process has ended stays readable.
    tables: BTreeMap<u32, Table>,
}

impl Watch {
    /// The processes to look at.
    fn chosen(&self) -> Vec<u32> {
        if self.pids.is_empty() { watched(&self.places) } else { self.pids.clone() }
    }

    /// What the tables say now.
    fn read(&mut self) -> anyhow::Result<Report> {
        let mut unwatched = Vec::new();
        let pids = self.chosen();
        for pid in pids {
            match reader::open(&self.places, pid) {
                Ok(table) => _ = self.tables.insert(pid, table),
                // It has gone since the directory was read, or is open and has ended.
                Err(ReadError::NotThere { .. }) if self.pids.is_empty() => {}
                Err(ReadError::NotThere { .. }) if self.tables.contains_key(&pid) => {}
                Err(error) if self.pids.is_empty() => {
                    let (pid, reason) = (Pid(pid), error.to_string());
                    unwatched.push(Unwatched { pid, command: String::new(), reason });
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut targets = Vec::new();
        for table in self.tables.values() {
            targets.push(Arc::new(view::snapshot(table, &self.chips, now_ns)?));
        }
        self.forget_ended(&mut targets);
        if targets.is_empty() && unwatched.is_empty() && self.pids.is_empty() {
            bail!("nothing is watched: {START_ONE}");
        }
        Ok(Report { time_ns: now_ns(), targets, unwatched, health: None })
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
        let mut quit = pin!(quit_signal()?);
        let last = reports.clone();
        if in_view {
            let ui = Ui::new(self.theme);
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

    /// Prints what the sockets answer.
    fn json(&self, once: bool) -> anyhow::Result<Outcome> {
        let pids = self.chosen();
        if pids.is_empty() {
            bail!("nothing is watched: {START_ONE}");
        }
        let request = if once {
            json!({"get": "snapshot"})
        } else {
            let interval_ms = u64::try_from(self.refresh.as_millis()).unwrap_or(u64::MAX);
            json!({"subscribe": "snapshots", "interval_ms": interval_ms})
        };
        let (to, lines) = mpsc::channel();
        for pid in pids {
            let client = Client::connect(&self.places, pid)?;
            let (request, to) = (request.to_string(), to.clone());
            thread::spawn(move || pass_on(client, &request, once, &to));
        }
        drop(to);
        self.print_json(&lines)
    }

    fn print_json(
        &self,
        lines: &mpsc::Receiver<Result<String, ClientError>>,
    ) -> anyhow::Result<Outcome> {
        let mut stdout = io::stdout().lock();
        let mut outcome = Outcome::Complete;
        for line in lines {
            let line = line?;
            let mut snapshot: Value = serde_json::from_str(&line).context("a broken answer")?;
            match snapshot["schema"].as_str() {
                Some("ttmem.error/1") => bail!("{}", snapshot["error"]["message"]),
                Some("ttmem.end/1") => continue,
                _ => {}
            }
            if snapshot["exact"] != true {
                outcome = Outcome::Incomplete;
            }
            if self.chips.is_empty() {
                stdout.write_all(line.as_bytes())?;
            } else {
                self.keep_chips(&mut snapshot);
                writeln!(stdout, "{snapshot}")?;
            }
            stdout.flush()?;
        }
        Ok(outcome)
    }

    fn keep_chips(&self, snapshot: &mut Value) {
        if let Some(devices) = snapshot["devices"].as_array_mut() {
            devices.retain(|device| self.chips.iter().any(|chip| device["chip"] == chip.0));
        }
    }
}

fn is_over(target: &Snapshot) -> bool {
    target.state != TargetState::Running
}

async fn print_all(
    mut reports: watch::Receiver<Arc<Report>>,
    lines: &mut Lines,
) -> anyhow::Result<()> {
    while let Some(report) = next_report(&mut reports).await {
        lines.print(&report)?;
    }
    Ok(())
}

/// Asks, and sends on what comes back.
fn pass_on(
    mut client: Client,
    request: &str,
    once: bool,
    to: &mpsc::Sender<Result<String, ClientError>>,
) {
    if let Err(error) = client.send(request) {
        // Whoever prints has ended.
        let _ = to.send(Err(error));
        return;
    }
    loop {
        let Some(line) = client.line().transpose() else { return };
        let broken = line.is_err();
        if to.send(line).is_err() || once || broken {
            return;
        }
    }
}
