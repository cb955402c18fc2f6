//! Events → what is live now. Owns the live set and the tables; the only writer of both.
//!
//! Buffers are known by their `Buffer*`, which is what tt-metal's allocators know them by: it is
//! unique while the buffer is live. `(device, type, address)` is not: submeshes and sub-devices
//! hand out the same addresses.
//!
//! Never asks for the time, never does I/O.

pub mod audit;
mod by_address;
mod circular;
mod counters;
pub mod delta;
mod exactness;
mod failure_view;
mod failures;
mod figures;
pub mod fit;
pub mod health;
mod late;
mod live;
pub mod marks;
mod per_core;
mod reconcile;
pub mod report;
mod resize;
mod resync;
pub mod snapshot;
pub mod space;
pub mod space_view;
mod spaces;
mod topology;
mod view;

use std::sync::Arc;

use hashbrown::HashSet;

use circular::Circular;
use counters::{ChipCounters, Measured, PoolCounters};
use delta::{Change, Deltas};
pub use exactness::BaselineState;
use exactness::Settled;
use late::{Block, Swept};
use live::{Live, LiveSet, Origin};
use marks::Marks;
use resync::Suspicion;
pub use resync::{ReadingBegun, Resynced};
use snapshot::{Anomalies, Lost, ProcessLabel, ResyncSnapshot, Unresolved};
use spaces::Spaces;
use topology::Topology;

use crate::{
    event::{Allocated, BufferShape, BufferType, Described, DeviceSeen, Event, Freed, Place},
    units::{Avma, ChipId, Pid},
    witness::Witness,
};

/// The state of one target.
#[derive(Debug)]
pub struct Ledger {
    process: Arc<ProcessLabel>,
    live: LiveSet,
    /// Buffers that have lost their block; a late free of their own may follow.
    swept: Swept,
    topology: Topology,
    /// What is free of each allocator's banks.
    spaces: Spaces,
    chips: Vec<ChipCounters>,
    anomalies: Anomalies,
    lost: Lost,
    /// What the probes counted; `None` if nothing is attached.
    witness: Option<Witness>,
    unresolved: Vec<Unresolved>,
    baseline: BaselineState,
    /// What has been set right by a reading since, and raises no doubt any more.
    settled: Settled,
    resync: ResyncSnapshot,
    /// Another reading has followed the first: frees that were under way at the attach are over.
    confirmed: bool,
    suspicion: Suspicion,
    /// Allocations on a device that could not be resolved.
    unknown_devices: u64,
    per_core: per_core::PerCore,
    /// Only some of the probes are in place. The one on allocations is the last, so what is known
    /// of a buffer that was seen to be allocated is complete even now; of all others nothing is.
    attaching: bool,
    /// While the live buffers are being read from memory: every buffer of which an event was
    /// seen. What the events say of them is newer than what is being read.
    touched: Option<HashSet<Avma, foldhash::fast::FixedState>>,
    failures: failures::Failures,
    /// What changes, if somebody wants to know.
    deltas: Deltas,
    /// Moments that others have marked.
    marks: Marks,
    /// Allocators whose buffers were freed in bulk during that time.
    bulk_freed_while_reading: Vec<Avma>,
    resized_while_reading: resize::ResizedWhileReading,
    /// What programs keep in L1.
    circular: Circular,
    /// The comparison with what others say, if it was asked for.
    audit: Option<audit::Audit>,
}

impl Ledger {
    /// An empty ledger that waits for the live buffers from before the attach.
    pub fn new(pid: Pid, unresolved: Vec<Unresolved>) -> Self {
        Self::of_process(Arc::new(ProcessLabel::of_pid(pid)), unresolved)
    }

    /// The same, with all that is to be said of the process.
    pub fn of_process(process: Arc<ProcessLabel>, unresolved: Vec<Unresolved>) -> Self {
        Self {
            process,
            live: LiveSet::default(),
            swept: Swept::default(),
            topology: Topology::default(),
            spaces: Spaces::new(),
            chips: Vec::new(),
            anomalies: Anomalies::default(),
            lost: Lost::default(),
            witness: None,
            unresolved,
            baseline: BaselineState::Pending,
            settled: Settled::default(),
            resync: ResyncSnapshot::default(),
            confirmed: false,
            suspicion: Suspicion::default(),
            unknown_devices: 0,
            per_core: per_core::PerCore::default(),
            attaching: true,
            touched: Some(HashSet::default()),
            failures: failures::Failures::default(),
            deltas: Deltas::default(),
            marks: Marks::default(),
            bulk_freed_while_reading: Vec::new(),
            resized_while_reading: resize::ResizedWhileReading::default(),
            circular: Circular::new(),
            audit: None,
        }
    }

    /// What is watched.
    pub fn process(&self) -> &Arc<ProcessLabel> {
        &self.process
    }

    /// Programs are watched, or why not; and whether their dispatches are.
    pub fn watch_programs(&mut self, programs: Result<(), String>, dispatches: bool) {
        self.circular.watch(programs, dispatches);
    }

    /// Sets how many records were lost so far.
    pub fn set_lost(&mut self, lost: Lost) {
        self.lost = lost;
    }

    /// Sets what the probes have counted so far.
    pub fn set_witness(&mut self, witness: Option<Witness>) {
        self.witness = witness;
    }

    /// Counts a record that could not be decoded.
    pub fn count_undecodable(&mut self) {
        self.anomalies.undecodable += 1;
    }

    /// Takes one event in.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Allocated(allocated) => self.allocated(allocated),
            Event::Freed(freed) => self.freed(freed),
            Event::BulkFreed { allocator } => self.bulk_freed(*allocator),
            Event::Device(device) => {
                self.topology.learn_device(device);
                self.chips.resize_with(self.topology.chips().len(), Default::default);
            }
            Event::Allocator(allocator) => self.learn_allocator(allocator),
            Event::Resized(resized) => self.resized(resized),
            Event::Failed(failed) => self.failed(failed),
            Event::Circular(placed) => {
                let chips = self.chips_at(placed.place);
                self.circular.placed(placed, &chips);
            }
            Event::ProgramEnded { program } => self.circular.ended(*program),
            Event::Dispatched(dispatched) => {
                let chips = self.chips_at(dispatched.place);
                self.circular.dispatched(dispatched, &chips);
            }
        }
    }

    /// The chips of a place where a program is. A chip that was not known so far is from now on.
    fn chips_at(&mut self, place: Place) -> Vec<ChipId> {
        if let Some(chip) = place.chip {
            if !self.topology.chips().contains(&chip) {
                let seen = DeviceSeen { device: place.device, mesh: None, chips: vec![chip] };
                self.topology.learn_device(&seen);
                self.chips.resize_with(self.topology.chips().len(), Default::default);
            }
            return vec![chip];
        }
        let entry = self.topology.device_at(place.device);
        let places = entry.map_or(&[][..], |entry| self.chips_of(entry));
        places.iter().map(|&place| self.topology.chips()[place]).collect()
    }

    #[inline]
    fn allocated(&mut self, allocated: &Allocated) {
        self.touch(allocated.buffer);
        self.spaces.stir(allocated.allocator);
        self.supersede_swept(allocated.buffer);
        let mut already_counted = false;
        if let Some(older) = self.live.get(allocated.buffer) {
            // The set of live buffers may have been read between the allocation and its event.
            let same = matches!(older.origin, Origin::PreAttach | Origin::Missed)
                && older.shape.unique_id.is_some()
                && older.shape.unique_id == allocated.shape.unique_id;
            let counted = same && older.origin == Origin::Missed;
            if !same && self.free_was_under_way(allocated.buffer) {
                self.release(allocated.buffer);
            } else {
                self.remove(allocated.buffer);
                self.anomalies.double_allocation += u64::from(!same);
            }
            already_counted = counted;
        }
        let device = self.topology.device_at(allocated.device);
        if device.is_none_or(|entry| self.chips_of(entry).is_empty()) {
            self.unknown_devices += 1;
        }
        let live = Live {
            shape: allocated.shape,
            measured: self.measure(allocated.allocator, &allocated.shape),
            allocator: allocated.allocator,
            device: device.and_then(|entry| u32::try_from(entry).ok()),
            origin: Origin::Seen(allocated.tid, allocated.time_ns),
        };
        self.insert(allocated.buffer, &live);
        if !already_counted {
            self.count(&live, |pool| pool.allocations.add(1));
        }
    }

    #[inline]
    fn freed(&mut self, freed: &Freed) {
        if !self.attaching {
            self.touch(freed.buffer);
        }
        self.spaces.stir(freed.allocator);
        if self.release(freed.buffer) {
            return;
        }
        if let Some(block) = self.swept.remove(freed.buffer) {
            self.late_free(block);
            return;
        }
        // While the live set is being read, a free of an unseen buffer is one of an older buffer.
        match (&self.touched, freed.described) {
            (Some(_), Some(described)) => {
                if let Some(entry) = self.topology.device_at(described.device) {
                    for &chip in self.chips_of(entry) {
                        self.pool(chip, described.buffer_type).pre_attach_frees.add(1);
                    }
                }
                let Described { buffer_type, address, per_core, .. } = described;
                let allocator = freed.allocator;
                self.free_while_reading(Block { allocator, buffer_type, address, per_core });
            }
            (Some(_), None) | (None, _) => self.anomalies.unknown_free += 1,
        }
    }

    fn bulk_freed(&mut self, allocator: Avma) {
        for buffer in self.buffers_of(allocator) {
            self.touch(buffer);
            self.sweep(buffer);
        }
        self.spaces.stir(allocator);
        self.topology.close_allocator(allocator);
        self.note_bulk_free(allocator);
    }

    fn buffers_of(&self, allocator: Avma) -> Vec<Avma> {
        let of_it = self.live.iter().filter(|(_, live)| live.allocator == allocator);
        of_it.map(|(buffer, _)| buffer).collect()
    }

    /// Takes a live buffer out and counts its free; `false` if it was not live.
    fn release(&mut self, buffer: Avma) -> bool {
        let Some(live) = self.remove(buffer) else { return false };
        if live.origin == Origin::PreAttach {
            self.count(&live, |pool| pool.pre_attach_frees.add(1));
        } else {
            self.count(&live, |pool| pool.frees.add(1));
        }
        true
    }

    #[inline]
    fn insert(&mut self, buffer: Avma, live: &Live) {
        self.failures.note_change();
        self.per_core.enter(live.shape.spread);
        self.note(Change::Allocated, buffer, live);
        let share = live.share();
        self.occupy(buffer, live);
        self.live.insert(buffer, live);
        self.count(live, |pool| pool.enter(share));
    }

    #[inline]
    fn remove(&mut self, buffer: Avma) -> Option<Live> {
        let live = self.live.remove(buffer)?;
        self.note(Change::Freed, buffer, &live);
        self.failures.note_change();
        self.per_core.leave(live.shape.spread);
        self.vacate(buffer, &live);
        self.count(&live, |pool| pool.leave(live.share()));
        Some(live)
    }

    /// Does something for each pool that a buffer lies in.
    #[inline]
    fn count(&self, live: &Live, what: impl Fn(&PoolCounters)) {
        for &chip in self.chips_of_live(live.device) {
            what(self.pool(chip, live.shape.buffer_type));
        }
    }

    #[inline]
    fn measure(&self, allocator: Avma, shape: &BufferShape) -> Option<Measured> {
        let geometry = self.topology.geometry(allocator, shape.buffer_type)?;
        let bank_bytes = geometry.bank_bytes(shape)?;
        let banks = geometry.banks_of(shape.spread)?;
        let used_bytes = bank_bytes.checked_mul(u64::from(banks))?;
        Some(Measured { bank_bytes, used_bytes })
    }

    fn touch(&mut self, buffer: Avma) {
        if let Some(touched) = &mut self.touched {
            touched.insert(buffer);
        }
    }

    fn chips_of(&self, entry: usize) -> &[usize] {
        self.topology.device(entry).map_or(&[], |device| &device.chips)
    }

    fn chips_of_live(&self, entry: Option<u32>) -> &[usize] {
        entry.map_or(&[], |entry| self.chips_of(entry as usize))
    }

    fn pool(&self, chip: usize, buffer_type: BufferType) -> &PoolCounters {
        &self.chips[chip][buffer_type.index()]
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
