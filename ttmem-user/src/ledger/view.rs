//! The ledger's state as a [`Snapshot`].

use std::sync::Arc;

use super::{
    BaselineState, Ledger, Live, Origin,
    circular::view::L1,
    snapshot::{
        BufferSnapshot, ChipSnapshot, CircularSnapshot, Detail, PoolSnapshot, ProgramSnapshot,
        SCHEMA, Snapshot, TargetState, WitnessSnapshot,
    },
};
use crate::{
    event::BufferType,
    units::{DeviceAddr, Tid},
};

/// Address and unique id of a buffer.
type Lowest = (DeviceAddr, Option<u64>);

impl Ledger {
    /// The state now; `time_ns` is the time up to which every event has been applied.
    pub fn snapshot(&self, time_ns: u64, state: TargetState, detail: Detail) -> Snapshot {
        let inexact_because = self.doubts();
        let failures = self.failures_snapshot(&inexact_because);
        Snapshot {
            schema: SCHEMA,
            time_ns,
            pid: self.process.pid,
            process: Arc::clone(&self.process),
            state,
            exact: inexact_because.is_empty(),
            inexact_because,
            lost: self.lost,
            witness: self.witness.as_ref().map(WitnessSnapshot::of),
            anomalies: self.anomalies,
            last_delta: self.last_delta(),
            totals_only: None,
            taken_blocks: self.swept.taken(),
            resync: self.resync,
            audit: self.audit_snapshot(),
            unresolved: self.unresolved.clone(),
            failures,
            stacks: None,
            devices: self.chip_snapshots(),
            allocators: self.space_snapshots(detail.map),
            buffers: detail.buffers.then(|| self.buffer_snapshots()),
            programs: (detail.buffers || detail.programs).then(|| self.programs()),
        }
    }

    /// The programs with circular or dataflow buffers, by address.
    pub fn programs(&self) -> Vec<ProgramSnapshot> {
        self.circular.program_snapshots()
    }

    fn chip_snapshots(&self) -> Vec<ChipSnapshot> {
        let lowest = self.lowest_in_l1();
        let mut chips: Vec<ChipSnapshot> = self
            .topology
            .chips()
            .iter()
            .enumerate()
            .map(|(place, &chip)| ChipSnapshot {
                chip,
                pools: BufferType::ALL
                    .iter()
                    .filter_map(|&buffer_type| self.pool_snapshot(place, buffer_type))
                    .collect(),
                circular: self.circular.chip_snapshot(chip, self.l1(place, lowest[place])),
            })
            .collect();
        chips.sort_by_key(|chip| chip.chip);
        chips
    }

    /// What circular buffers take of each chip, by the chip's place.
    pub fn circular_snapshots(&self) -> Vec<CircularSnapshot> {
        let lowest = self.lowest_in_l1();
        let chips = self.topology.chips().iter().enumerate();
        chips
            .map(|(place, &chip)| self.circular.chip_snapshot(chip, self.l1(place, lowest[place])))
            .collect()
    }

    fn l1(&self, place: usize, lowest: Option<Lowest>) -> L1 {
        L1 {
            bank_size: self.topology.capacity(place, BufferType::L1).map(|pool| pool.bank_size),
            lowest,
            doubt: self.doubt_of_lowest(place),
        }
    }

    /// Why it cannot be told which live buffer in a chip's L1 has the lowest address.
    fn doubt_of_lowest(&self, place: usize) -> Option<&'static str> {
        if self.baseline != BaselineState::Read {
            return Some("not all live buffers are known");
        }
        let uneven = self.pool(place, BufferType::L1).uneven.get() > 0;
        uneven.then_some("a buffer with an address of its own on each core lies in L1")
    }

    /// The live buffer with the lowest address in each chip's L1, by the chip's place.
    fn lowest_in_l1(&self) -> Vec<Option<Lowest>> {
        let mut lowest: Vec<Option<Lowest>> = vec![None; self.topology.chips().len()];
        for live in self.live.values().filter(|live| live.shape.buffer_type == BufferType::L1) {
            let this = (live.shape.address, live.shape.unique_id);
            for &place in self.chips_of_live(live.device) {
                lowest[place] = Some(lowest[place].map_or(this, |other| other.min(this)));
            }
        }
        lowest
    }

    /// The pool of a chip, by the chip's place; `None` if the allocators have no such pool and it
    /// was never used.
    pub fn pool_snapshot(&self, chip: usize, buffer_type: BufferType) -> Option<PoolSnapshot> {
        let pool = self.pool(chip, buffer_type);
        let geometry = self.topology.capacity(chip, buffer_type);
        if geometry.is_none() && !pool.was_used() {
            return None;
        }
        let known = pool.unmeasured.get() == 0;
        let in_doubt = self.peaks.in_doubt();
        Some(PoolSnapshot {
            buffer_type,
            buffers: pool.buffers.get(),
            logical_bytes: pool.logical_bytes.get(),
            bank_bytes: pool.bytes_of_each_bank(),
            banks: geometry.map(|geometry| geometry.banks),
            used_bytes: known.then(|| pool.used_bytes.get()),
            capacity_bytes: geometry.map(|geometry| geometry.capacity()),
            peak_used_bytes: pool.peak_used_bytes().filter(|_| !in_doubt),
            peak_at_least_bytes: Some(pool.peak_at_least(in_doubt)),
            allocations: pool.allocations.get(),
            frees: pool.frees.get(),
            pre_attach_frees: pool.pre_attach_frees.get(),
        })
    }

    pub(super) fn buffer_snapshots(&self) -> Vec<BufferSnapshot> {
        let mut buffers: Vec<BufferSnapshot> =
            self.live.values().map(|live| self.buffer_snapshot(&live)).collect();
        buffers.sort_by_key(|buffer| (buffer.unique_id, buffer.buffer_type, buffer.address));
        buffers
    }

    /// The allocations whose call stacks may be asked for: when, and by which thread. They are those
    /// of the live buffers, as far as they were seen, and what is kept of failed ones.
    pub fn allocations(&self) -> impl Iterator<Item = (u64, Tid)> {
        let live = self.live.values().filter_map(|live| live.origin.seen());
        live.map(|(tid, time)| (time, tid)).chain(self.failures.allocations())
    }

    fn buffer_snapshot(&self, live: &Live) -> BufferSnapshot {
        let device = live.device.and_then(|entry| self.topology.device(entry as usize));
        let seen = live.origin.seen();
        BufferSnapshot {
            unique_id: live.shape.unique_id,
            buffer_type: live.shape.buffer_type,
            address: live.shape.address,
            size: live.shape.size,
            page_size: live.shape.page_size,
            bank_bytes: live.measured.map(|measured| measured.bank_bytes),
            cores: live.shape.spread.cores(),
            chips: self
                .chips_of_live(live.device)
                .iter()
                .map(|&place| self.topology.chips()[place])
                .collect(),
            mesh: device.and_then(|device| device.mesh),
            tid: seen.map(|(tid, _)| tid),
            allocated_ns: seen.map(|(_, time)| time),
            pre_attach: live.origin == Origin::PreAttach,
            call: None,
        }
    }
}
