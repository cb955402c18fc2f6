//! A table as a [`Snapshot`], for what shows snapshots. What a table does not hold is left empty:
//! such a snapshot is for people, never for JSON.

use std::sync::Arc;

use super::{
    agent::Identity,
    device::Chip,
    reader::{Header, ReadError, State, Table},
};
use crate::{
    ledger::snapshot::{
        Anomalies, ChipSnapshot, CircularSnapshot, FailuresSnapshot, Headroom, ProcessLabel,
        ResyncSnapshot, SCHEMA, Snapshot, TargetState, TotalsOnly,
    },
    units::{ChipId, Pid},
};

/// What a table says now. `chips`: only these; none: all. `clock` is asked once the header has been
/// read, so that nothing in it can be later.
///
/// The header is read before the chips and after them: they may be of any moment in between, and so
/// are exact only if they were so all the time.
pub fn snapshot(
    table: &Table,
    chips: &[ChipId],
    clock: impl FnOnce() -> u64,
) -> Result<Snapshot, ReadError> {
    snapshot_by(table, chips, clock, Table::chips)
}

/// The same, by what reads the chips.
pub(super) fn snapshot_by(
    table: &Table,
    chips: &[ChipId],
    clock: impl FnOnce() -> u64,
    read: impl FnOnce(&Table) -> Result<Vec<Chip>, ReadError>,
) -> Result<Snapshot, ReadError> {
    let before = table.header()?;
    let mut found = read(table)?;
    found.retain(|chip| chips.is_empty() || chips.contains(&chip.chip));
    let header = table.header()?;
    let inexact_because = doubts(&before, &header, clock());
    let failures = FailuresSnapshot { count: header.failures, ..FailuresSnapshot::default() };
    Ok(Snapshot {
        schema: SCHEMA,
        time_ns: header.heartbeat_ns,
        pid: Pid(header.process.pid),
        process: Arc::new(label(&header)),
        state: match header.state {
            State::Starting | State::Running | State::Unwatched => TargetState::Running,
            State::Exited => TargetState::Exited,
            State::Replaced => TargetState::Replaced,
        },
        exact: inexact_because.is_empty(),
        inexact_because,
        lost: header.lost,
        witness: None,
        anomalies: Anomalies::default(),
        last_delta: 0,
        totals_only: Some(TotalsOnly { anomalies: header.anomalies }),
        taken_blocks: 0,
        resync: ResyncSnapshot::default(),
        audit: None,
        unresolved: Vec::new(),
        failures,
        stacks: None,
        devices: found
            .into_iter()
            .map(|chip| ChipSnapshot {
                chip: chip.chip,
                pools: chip.pools,
                circular: CircularSnapshot {
                    programs: chip.circular_programs,
                    buffers: chip.circular_buffers,
                    core_bytes: chip.circular_core_bytes,
                    peak_core_bytes: chip.circular_peak_core_bytes,
                    core_capacity_bytes: chip.core_capacity_bytes,
                    headroom: Headroom {
                        bytes: chip.headroom.map(|(_, bytes)| bytes),
                        state: chip.headroom.map(|(state, _)| state),
                        ..Headroom::default()
                    },
                    ..CircularSnapshot::default()
                },
            })
            .collect(),
        allocators: Vec::new(),
        buffers: None,
        programs: None,
    })
}

/// Why the numbers may be wrong, or old.
fn doubts(before: &Header, header: &Header, now_ns: u64) -> Vec<String> {
    let mut doubts = Vec::new();
    doubts.extend(header.stale_because(now_ns));
    if header.state == State::Unwatched {
        doubts.push("ttmem has ended: the numbers are what it last wrote".to_owned());
    }
    if header.chips_left_out > 0 {
        doubts.push(format!("chips that have no room in the table: {}", header.chips_left_out));
    }
    if !header.exact {
        doubts.push(header.inexact_because.clone());
    } else if !before.exact {
        doubts.push(before.inexact_because.clone());
    } else if (before.lost, before.anomalies) != (header.lost, header.anomalies) {
        doubts.push("something was missed while they were being read".to_owned());
    }
    doubts
}

fn label(header: &Header) -> ProcessLabel {
    let some = |text: &String| (!text.is_empty()).then(|| text.clone());
    ProcessLabel {
        serial: serial(header.process),
        pid: Pid(header.process.pid),
        command: header.command.clone(),
        namespace_pid: header.namespace_pid.map(Pid),
        library: some(&header.library),
        build_id: some(&header.build_id),
    }
}

/// A number that no other process of this system has. Several start within one tick, and an id comes
/// again; an id has 22 bits at most, so the rest has room for a thousand years of ticks.
fn serial(process: Identity) -> u64 {
    process.start_ticks << 22 | u64::from(process.pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_is_of_one_process_only() {
        let of = |pid, start_ticks| serial(Identity { pid, start_ticks });
        let latest = (1 << 22) - 1;
        let serials = [of(7, 11), of(8, 11), of(latest, 11), of(7, 12), of(latest, 12)];
        assert!(serials.is_sorted_by(|one, next| one < next), "{serials:?}");
    }
}
