//! Circular and dataflow buffers as part of a snapshot.

use super::{
    Circular, Set,
    snapshot::{
        CircularBufferSnapshot, CircularSnapshot, Dispatches, Headroom, HeadroomState,
        ProgramSnapshot,
    },
};
use crate::{
    event::CircularBuffer,
    units::{Avma, ChipId, DeviceAddr},
};

/// What the rest of the ledger knows of a chip's L1.
#[derive(Clone, Copy, Debug, Default)]
pub struct L1 {
    /// Bytes of one bank.
    pub bank_size: Option<u64>,
    /// Lowest address of a live buffer, and its unique id.
    pub lowest: Option<(DeviceAddr, Option<u64>)>,
    /// Why `lowest` may not be the lowest, if so.
    pub doubt: Option<&'static str>,
}

impl Circular {
    /// The state of one chip.
    pub fn chip_snapshot(&self, chip: ChipId, l1: L1) -> CircularSnapshot {
        let sets: Vec<(Avma, &Set)> = self.sets_on(chip).collect();
        let largest = sets
            .iter()
            .map(|(program, set)| (set.figures(&self.steps).largest(), *program))
            .max()
            .filter(|(bytes, _)| *bytes > 0);
        let unknown_because = self.doubt(chip);
        let seen_core_bytes = largest.map_or(0, |(bytes, _)| bytes);
        let state = self.chips.get(&chip);
        let highest = sets
            .iter()
            .filter_map(|(program, set)| Some((set.figures(&self.steps).tally.end?, *program)))
            .max();
        let peak = state.map_or(0, |state| state.peak_of_gone).max(seen_core_bytes);
        let known = |bytes| unknown_because.is_none().then_some(bytes);
        let gone_are_known = state.is_none_or(|state| !state.unknown_gone);
        CircularSnapshot {
            programs: sets.len() as u64,
            buffers: sets.iter().map(|(_, set)| set.figures(&self.steps).tally.buffers).sum(),
            core_bytes: known(seen_core_bytes),
            seen_core_bytes,
            peak_core_bytes: known(peak).filter(|_| gone_are_known),
            core_capacity_bytes: l1.bank_size,
            largest_program: largest.map(|(_, program)| program),
            headroom: headroom(highest, l1, unknown_because.as_deref()),
            dispatches: self.dispatches_watched.then(|| Dispatches {
                count: state.map_or(0, |state| state.dispatches),
                last_program: state.and_then(|state| state.last).map(|(program, _)| program),
                last_ns: state.and_then(|state| state.last).map(|(_, time)| time),
            }),
            unknown_because,
        }
    }

    pub(super) fn sets_on(&self, chip: ChipId) -> impl Iterator<Item = (Avma, &Set)> {
        self.programs
            .iter()
            .filter_map(move |(&program, state)| Some((program, state.sets.get(&chip)?)))
    }

    /// Every program with buffers, by address; chips with the same buffers share a row.
    pub fn program_snapshots(&self) -> Vec<ProgramSnapshot> {
        let mut rows: Vec<ProgramSnapshot> = Vec::new();
        for (&address, program) in &self.programs {
            let first = rows.len();
            for (&chip, set) in &program.sets {
                let buffers: Vec<_> = set.buffers().map(buffer_snapshot).collect();
                match rows[first..].iter_mut().find(|row| row.buffers == buffers) {
                    Some(row) => row.chips.push(chip),
                    None => rows.push(self.row(address, chip, set, buffers)),
                }
            }
        }
        rows.sort_by_key(|row| (row.program, row.chips.first().copied()));
        rows
    }

    fn row(
        &self,
        address: Avma,
        chip: ChipId,
        set: &Set,
        buffers: Vec<CircularBufferSnapshot>,
    ) -> ProgramSnapshot {
        let program = &self.programs[&address];
        let figures = set.figures(&self.steps);
        ProgramSnapshot {
            program: address,
            chips: vec![chip],
            tid: program.tid,
            placed_ns: program.placed_ns,
            core_bytes: figures.cores.ok().map(|cores| cores.largest),
            chip_bytes: figures.cores.ok().map(|cores| cores.total),
            cores: figures.cores.ok().map(|cores| cores.count),
            end: figures.tally.end.map(DeviceAddr),
            dispatches: self.dispatches_watched.then_some(program.dispatches),
            buffers,
        }
    }
}

fn buffer_snapshot(buffer: &CircularBuffer) -> CircularBufferSnapshot {
    CircularBufferSnapshot {
        kind: buffer.kind,
        address: buffer.address,
        size: buffer.size,
        cores: buffer.cores.clone(),
    }
}

/// `highest`: where the highest buffer ends, and its program.
fn headroom(highest: Option<(u64, Avma)>, l1: L1, doubt: Option<&str>) -> Headroom {
    let bytes = highest.zip(l1.lowest).and_then(|((end, _), (lowest, _))| {
        i64::try_from(i128::from(lowest.0) - i128::from(end)).ok()
    });
    let unknown_because = match (doubt, highest, l1.lowest) {
        (Some(reason), ..) => Some(reason),
        _ if l1.doubt.is_some() => l1.doubt,
        (None, None, _) => Some("no program keeps circular buffers here"),
        (None, _, None) => Some("no tensor lies in L1"),
        (None, Some(_), Some(_)) => None,
    };
    let bytes = bytes.filter(|_| unknown_because.is_none());
    Headroom {
        bytes,
        unknown_because: unknown_because.map(str::to_owned),
        state: bytes.and_then(|bytes| state(bytes, l1.bank_size)),
        circular_end: highest.map(|(end, _)| DeviceAddr(end)),
        program: highest.map(|(_, program)| program),
        lowest_buffer: l1.lowest.filter(|_| l1.doubt.is_none()).map(|(address, _)| address),
        buffer_unique_id: l1.lowest.filter(|_| l1.doubt.is_none()).and_then(|(_, id)| id),
    }
}

/// A tenth of what a core has is little: many programs need more.
fn state(bytes: i64, bank_size: Option<u64>) -> Option<HeadroomState> {
    let Ok(room) = u64::try_from(bytes) else { return Some(HeadroomState::Clash) };
    let is_low = room < bank_size? / 10;
    Some(if is_low { HeadroomState::Low } else { HeadroomState::Ok })
}
