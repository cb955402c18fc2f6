//! What is known of all targets at one instant.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{
    health::Health,
    snapshot::{Lost, PoolSnapshot, Snapshot, TargetState},
};
use crate::{
    event::BufferType,
    units::{ChipId, Pid},
};

/// Name and version of the JSON schema of [`Totals`].
pub const TOTALS_SCHEMA: &str = "ttmem.totals/1";

/// Targets that have ended that are still reported, and what is recorded of them kept: the last.
pub const KEPT_ENDED: usize = 16;

/// The state of everything that an agent watches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// CLOCK_MONOTONIC, nanoseconds; every event up to it is included.
    pub time_ns: u64,
    /// The running targets, then the latest of those that ended, in the order of their serials.
    pub targets: Vec<Arc<Snapshot>>,
    /// Processes with tt-metal that are not watched.
    pub unwatched: Vec<Unwatched>,
    /// How ttmem itself does; `None` if somebody else's numbers are shown.
    pub health: Option<Health>,
}

/// A process that maps tt-metal and is not watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unwatched {
    /// The process.
    pub pid: Pid,
    /// Its command line.
    pub command: String,
    /// Why not.
    pub reason: String,
}

/// Sums over the running targets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Totals {
    /// Always [`TOTALS_SCHEMA`].
    pub schema: &'static str,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// The running targets that are added up.
    pub processes: Vec<Pid>,
    /// Whether every one of them is exact, and none is left out.
    pub exact: bool,
    /// Records that could not be delivered, of all targets.
    pub lost: Lost,
    /// Chips in id order. A sum is unknown if a part is; the capacity is the largest that a
    /// process sees, since they share it; there is no common peak.
    pub devices: Vec<ChipTotals>,
    /// Processes with tt-metal that are not watched.
    pub unwatched: Vec<Unwatched>,
}

/// The pools of one chip, of all targets together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChipTotals {
    /// Its id.
    pub chip: ChipId,
    /// Its pools.
    pub pools: Vec<PoolSnapshot>,
}

impl Report {
    /// A report on one target.
    pub fn of_one(snapshot: Snapshot) -> Self {
        let time_ns = snapshot.time_ns;
        Self { time_ns, targets: vec![Arc::new(snapshot)], ..Self::default() }
    }

    /// Whether every target is exact, and none is left out.
    pub fn is_exact(&self) -> bool {
        self.unwatched.is_empty() && self.targets.iter().all(|target| target.exact)
    }

    /// The targets that still run.
    pub fn running(&self) -> impl Iterator<Item = &Arc<Snapshot>> {
        self.targets.iter().filter(|target| target.state == TargetState::Running)
    }

    /// Sums over the running targets, chip by chip.
    pub fn totals(&self) -> Totals {
        let mut chips: BTreeMap<ChipId, BTreeMap<BufferType, PoolSnapshot>> = BTreeMap::new();
        for chip in self.running().flat_map(|target| &target.devices) {
            let pools = chips.entry(chip.chip).or_default();
            for pool in &chip.pools {
                pools.entry(pool.buffer_type).and_modify(|sum| add(sum, pool)).or_insert_with(
                    || PoolSnapshot {
                        peak_used_bytes: None,
                        peak_at_least_bytes: None,
                        ..pool.clone()
                    },
                );
            }
        }
        let mut lost = Lost::default();
        for target in self.running() {
            lost.ring_full = lost.ring_full.max(target.lost.ring_full);
            lost.read_fault += target.lost.read_fault;
        }
        Totals {
            schema: TOTALS_SCHEMA,
            time_ns: self.time_ns,
            processes: self.running().map(|target| target.pid).collect(),
            exact: self.unwatched.is_empty() && self.running().all(|target| target.exact),
            lost,
            devices: chips
                .into_iter()
                .map(|(chip, pools)| ChipTotals { chip, pools: pools.into_values().collect() })
                .collect(),
            unwatched: self.unwatched.clone(),
        }
    }
}

fn add(sum: &mut PoolSnapshot, pool: &PoolSnapshot) {
    let both = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
    sum.buffers += pool.buffers;
    sum.logical_bytes = sum.logical_bytes.saturating_add(pool.logical_bytes);
    sum.bank_bytes = both(sum.bank_bytes, pool.bank_bytes);
    sum.used_bytes = both(sum.used_bytes, pool.used_bytes);
    if pool.capacity_bytes > sum.capacity_bytes {
        sum.capacity_bytes = pool.capacity_bytes;
        sum.banks = pool.banks;
    }
    sum.allocations += pool.allocations;
    sum.frees += pool.frees;
    sum.pre_attach_frees += pool.pre_attach_frees;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn report(targets: Vec<Snapshot>) -> Report {
        let targets = targets.into_iter().map(Arc::new).collect();
        Report { time_ns: 7, targets, ..Report::default() }
    }

    #[test]
    fn pools_of_the_same_chip_are_added_up() {
        let one = fixture::normal();
        let totals = report(vec![one.clone(), one.clone()]).totals();
        let (sum, part) = (&totals.devices[1].pools[0], &one.devices[1].pools[0]);
        assert_eq!(sum.used_bytes, part.used_bytes.map(|used| used * 2));
        assert_eq!(sum.buffers, part.buffers * 2);
        assert_eq!(sum.capacity_bytes, part.capacity_bytes, "they share the chip");
        assert_eq!(sum.peak_used_bytes, None, "the peaks need not have been at the same time");
    }

    #[test]
    fn a_target_that_ended_holds_nothing() {
        let ended = Snapshot { state: TargetState::Exited, ..fixture::normal() };
        let totals = report(vec![ended]).totals();
        assert!(totals.devices.is_empty() && totals.processes.is_empty());
    }

    #[test]
    fn an_unknown_part_makes_the_sum_unknown() {
        let mut other = fixture::normal();
        other.devices[0].pools[0].used_bytes = None;
        let totals = report(vec![fixture::normal(), other]).totals();
        assert_eq!(totals.devices[0].pools[0].used_bytes, None);
        assert!(totals.devices[1].pools[0].used_bytes.is_some());
    }

    #[test]
    fn what_is_not_watched_makes_the_sums_inexact() {
        let mut report = report(vec![fixture::normal()]);
        assert!(report.is_exact() && report.totals().exact);
        report.unwatched.push(Unwatched {
            pid: Pid(9),
            command: "x".to_owned(),
            reason: "no probe".to_owned(),
        });
        assert!(!report.is_exact() && !report.totals().exact);
    }
}
