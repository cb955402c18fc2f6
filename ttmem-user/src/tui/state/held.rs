//! What is held: a report with all that any view shows of it, and what was recorded up to then.
//!
//! Snapshots have the map and the programs only while a view asks for them. So what is held is the
//! first report that has both: it is asked for at once, and comes some milliseconds later. What was
//! recorded is copied as soon as every change of that report is in it.

use std::{collections::HashMap, sync::Arc};

use crate::{
    history::recorder::{Handle, Histories},
    ledger::{
        report::Report,
        snapshot::{Snapshot, TargetState},
    },
};

/// Reports that are waited for: what they lack then will not come, as of somebody else's numbers.
const PATIENCE: usize = 2;

/// Whether the views are held.
#[derive(Debug, Default)]
pub enum Hold {
    /// They go on.
    #[default]
    No,
    /// They are to be held.
    Wanted(Wanted),
    /// They are held.
    Held(Held),
}

/// What is waited for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Reports that have come since.
    reports: usize,
    /// The report is there, and what is recorded is about to be.
    lags: bool,
}

/// What is held.
#[derive(Debug)]
pub struct Held {
    /// Of every target.
    pub report: Arc<Report>,
    /// What was recorded, by serial. Copies share memory with what goes on being recorded, until
    /// that changes.
    histories: HashMap<u64, Handle>,
}

impl Hold {
    /// The report that is held.
    pub const fn report(&self) -> Option<&Arc<Report>> {
        match self {
            Self::Held(held) => Some(&held.report),
            _ => None,
        }
    }

    /// What was recorded of a target; `None`: nothing is held, or nothing was recorded.
    pub fn history(&self, serial: u64) -> Option<&Handle> {
        match self {
            Self::Held(held) => held.histories.get(&serial),
            _ => None,
        }
    }

    /// Whether a report is waited for.
    pub const fn is_wanted(&self) -> bool {
        matches!(self, Self::Wanted(_))
    }

    /// Whether it takes but a moment.
    pub const fn lags(&self) -> bool {
        matches!(self, Self::Wanted(Wanted { lags: true, .. }))
    }

    /// Holds a report, if that is wanted and it has all that is needed.
    pub fn take(&mut self, report: &Arc<Report>, is_new: bool, histories: Option<&Histories>) {
        let Self::Wanted(wanted) = self else { return };
        wanted.reports += usize::from(is_new);
        let is_whole = report.targets.iter().all(|target| is_whole(target));
        wanted.lags = is_whole && !report.targets.iter().all(|it| is_recorded(it, histories));
        let is_ready = is_whole && !wanted.lags;
        if !is_ready && wanted.reports < PATIENCE && histories.is_some() {
            return;
        }
        let copy = |target: &Arc<Snapshot>| {
            let serial = target.process.serial;
            Some((serial, histories?.get(serial)?.copy()))
        };
        let histories = report.targets.iter().filter_map(copy).collect();
        *self = Self::Held(Held { report: Arc::clone(report), histories });
    }
}

/// Whether all that a view shows is in a snapshot. Of a target that has ended no more will come.
fn is_whole(target: &Snapshot) -> bool {
    let mut known = target.allocators.iter().filter(|it| it.largest_free_bank_bytes.is_some());
    let is_mapped = known.clone().next().is_none() || known.any(|space| space.map.is_some());
    target.state != TargetState::Running || (target.programs.is_some() && is_mapped)
}

/// Whether every change that a snapshot has is recorded, as far as it will be.
fn is_recorded(target: &Snapshot, histories: Option<&Histories>) -> bool {
    let handle = histories.and_then(|all| all.get(target.process.serial));
    handle.is_none_or(|handle| {
        let history = handle.lock();
        history.gap().is_some() || history.sequence() >= target.last_delta
    })
}
