//! What others share: the tables of the chosen processes, read together.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    app::ask::watched,
    ledger::{
        report::{KEPT_ENDED, Report, Unwatched},
        snapshot::{Snapshot, TargetState},
    },
    pipeline::now_ns,
    table::{
        reader::{self, ReadError, Table},
        view,
    },
    units::{ChipId, Pid},
};

/// How long a table is left alone that was in the midst of a write: each look takes a second, in which
/// nothing is shown.
const TORN: Duration = Duration::from_secs(10);

/// The tables of the chosen processes.
pub struct Tables {
    /// Where they are.
    pub places: Vec<PathBuf>,
    /// Only those of these processes; none: all that there are.
    pub pids: Vec<u32>,
    /// Only these; none: all.
    pub chips: Vec<ChipId>,
    /// The open ones. One whose process has ended stays readable.
    open: BTreeMap<u32, Table>,
    /// Those that could not be read, until when they are left alone, and why.
    torn: BTreeMap<u32, (Instant, String)>,
}

impl Tables {
    /// None of them is open yet.
    pub fn new(places: Vec<PathBuf>, pids: Vec<u32>, chips: Vec<ChipId>) -> Self {
        Self { places, pids, chips, open: BTreeMap::new(), torn: BTreeMap::new() }
    }

    /// What the tables say now.
    pub fn read(&mut self) -> anyhow::Result<Report> {
        let mut unwatched = Vec::new();
        let all = self.pids.is_empty();
        let pids = if all { watched(&self.places) } else { self.pids.clone() };
        for pid in pids.iter().copied() {
            match reader::open(&self.places, pid) {
                Ok(table) => _ = self.open.insert(pid, table),
                // It has gone since the directory was read, or is open and has ended.
                Err(ReadError::NotThere { .. }) if self.pids.is_empty() => {}
                Err(ReadError::NotThere { .. }) if self.open.contains_key(&pid) => {}
                Err(error) if self.pids.is_empty() => {
                    unwatched.push(left_out(pid, error.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        // With a torn table whose file has gone there is nothing to wait for.
        let Self { open, torn, .. } = self;
        open.retain(|pid, _| pids.contains(pid) || !torn.contains_key(pid));
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
        self.torn.retain(|pid, (until, _)| self.open.contains_key(pid) && *until > Instant::now());
        for (pid, table) in &self.open {
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
        let open = &mut self.open;
        targets.retain(|target| {
            let goes = surplus > 0 && is_over(target);
            surplus -= usize::from(goes);
            if goes {
                open.remove(&target.pid.0);
            }
            !goes
        });
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

/// Whether there is no more to come of a target.
pub fn is_over(target: &Snapshot) -> bool {
    target.state != TargetState::Running
}

fn left_out(pid: u32, reason: String) -> Unwatched {
    Unwatched { pid: Pid(pid), command: String::new(), reason }
}
