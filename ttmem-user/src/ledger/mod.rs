//! Events → what is live now. Owns the live set and the tables; the only writer of both.
//!
//! Buffers are known by their `Buffer*`, which is what tt-metal's allocators know them by: it is
//! unique while the buffer is live. `(device, type, address)` is not: submeshes and sub-devices
//! hand out the same addresses.
//!
//! Never asks for the time, never does I/O.

pub mod audit;
mod bounds;
mod by_address;
pub mod call;
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
mod peaks;
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

use bounds::MAX_BUFFERS;
use circular::Circular;
use counters::{ChipCounters, Measured, PoolCounters};
use delta::{Change, Deltas};
pub use exactness::BaselineState;
use exactness::Settled;
use late::{Block, Swept};
pub use live::Tag;
use live::{Coming, Entry, Facts, Live, LivePlace, LiveSet, Origin};
use marks::Marks;
use resync::Suspicion;
pub use resync::{ReadingBegun, Resynced};
use snapshot::{Anomalies, Lost, ProcessLabel, ResyncSnapshot, Unresolved};
use spaces::Spaces;
use topology::Topology;

use crate::{
    event::{Allocated, BufferShape, BufferType, Described, DeviceSeen, Event, Fact, Freed, Place},
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
    peaks: peaks::Peaks,
    bounds: bounds::Bounds,
    /// Only some of the probes are in place. The one on allocations is the last, so what is known
    /// of a buffer that was seen to be allocated is complete even now; of all others nothing is.
    attaching: bool,
    /// While the live buffers are being read from memory: every buffer of which an event was
    /// seen. What the events say of them is newer than what is being read.
    touched: Option<HashSet<Avma, foldhash::fast::RandomState>>,
    failures: failures::Failures,
    /// What changes, if somebody wants to know.
    deltas: Deltas,
    /// Moments that others have marked.
    marks: Marks,
    /// Allocators whose buffers were freed in bulk during that time.
    bulk_freed_while_reading: HashSet<Avma, foldhash::fast::RandomState>,
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
            peaks: peaks::Peaks::default(),
            bounds: bounds::Bounds::default(),
            attaching: true,
            touched: Some(HashSet::default()),
            failures: failures::Failures::default(),
            deltas: Deltas::default(),
            marks: Marks::default(),
            bulk_freed_while_reading: HashSet::default(),
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

    /// Sets how many records were lost so far. Every event of before that was not has been applied.
    pub fn set_lost(&mut self, lost: Lost) {
        self.lost = lost;
        if lost.total() > 0 {
            self.circular.note_gap();
        }
        self.let_go_if_beyond();
        self.review_peaks();
    }

    /// Sets what the probes have counted so far.
    pub fn set_witness(&mut self, witness: Option<Witness>) {
        self.witness = witness;
    }

    /// Counts a record that could not be decoded.
    pub fn count_undecodable(&mut self) {
        self.anomalies.undecodable += 1;
        self.circular.note_gap();
    }

    /// Takes one fact in.
    #[inline]
    pub fn take_in(&mut self, fact: Fact<'_>) {
        match fact {
            Fact::Allocated(allocated) => self.allocated(allocated),
            Fact::Freed(freed) => self.freed(freed),
            Fact::Other(event) => self.apply(event),
        }
    }

    /// Whether so much is live that it pays to say which buffers are next.
    pub const fn is_far(&self) -> bool {
        self.live.is_far()
    }

    /// A fact about this buffer is coming: to be said of some at a time, and then [`Self::expect`] of
    /// those of them that go, so that what is far from the processor is on its way for all at once.
    #[inline]
    pub fn announce(&self, buffer: Avma) -> Tag {
        self.live.announce(buffer)
    }

    /// The buffer that was announced goes soon.
    #[inline]
    pub fn expect(&self, announced: Tag) {
        self.live.expect(announced);
    }

    /// Takes one event in.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Allocated(allocated) => self.allocated(allocated),
            Event::Freed(freed) => self.freed(freed),
            Event::Failed(failed) => self.failed(failed),
            _ if self.bounds.is_beyond() => {}
            Event::BulkFreed { allocator } => self.bulk_freed(*allocator),
            Event::Device(device) => self.learn_device(device),
            Event::Allocator(allocator) => self.learn_allocator(allocator),
            Event::Resized(resized) => self.resized(resized),
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

    fn learn_device(&mut self, seen: &DeviceSeen) {
        self.prune_places();
        self.topology.learn_device(seen);
        self.chips.resize_with(self.topology.chips().len(), Default::default);
        self.bound_places();
    }

    /// The chips of a place where a program is. A chip that was not known so far is from now on.
    fn chips_at(&mut self, place: Place) -> Vec<ChipId> {
        if let Some(chip) = place.chip {
            if !self.topology.chips().contains(&chip) {
                let seen = DeviceSeen { device: place.device, mesh: None, chips: vec![chip] };
                self.learn_device(&seen);
            }
            return vec![chip];
        }
        let entry = self.topology.device_at(place.device);
        let places = entry.map_or(&[][..], |entry| self.chips_of(entry));
        places.iter().map(|&place| self.topology.chips()[place]).collect()
    }

    #[inline]
    fn allocated(&mut self, allocated: &Allocated) {
        let &Allocated { time_ns, tid, buffer, allocator, device, ref shape } = allocated;
        if !self.bounds.has_room(self.live.len()) && self.is_out_of_room() {
            return;
        }
        self.touch(buffer);
        self.spaces.stir(allocator);
        self.supersede_swept(buffer);
        let device = self.topology.device_at(device).and_then(|entry| u32::try_from(entry).ok());
        if self.chips_of_live(device).is_empty() {
            self.unknown_devices += 1;
        }
        let measured = self.measure(allocator, shape);
        let origin = Origin::Seen(tid, time_ns);
        let coming = Coming { buffer, shape, measured, allocator, device, origin };
        let (place, counted) = match self.live.insert(&coming) {
            Ok(place) => (place, false),
            Err(older) => self.supersede(older, &coming),
        };
        self.come(place, &coming.facts(), !counted);
    }

    /// A buffer has been allocated where another is still live. Where it is now, and whether its
    /// allocation has been counted before.
    #[cold]
    fn supersede(&mut self, older: LivePlace, by: &Coming<'_>) -> (LivePlace, bool) {
        let entry = *self.live.at(older);
        // The set of live buffers may have been read between the allocation and its event.
        let same = (entry.is_pre_attach() || entry.was_missed())
            && entry.unique_id().is_some()
            && entry.unique_id() == by.shape.unique_id;
        let free_was_under_way = !same && self.may_have_been_under_way(&entry);
        self.take_out(by.buffer, free_was_under_way);
        if free_was_under_way {
            self.forget_peaks_of(&entry.facts());
        }
        self.anomalies.double_allocation += u64::from(!same && !free_was_under_way);
        (self.put_in(by), same && entry.was_missed())
    }

    #[inline]
    fn freed(&mut self, freed: &Freed) {
        if self.bounds.is_beyond() {
            return;
        }
        if !self.attaching {
            self.touch(freed.buffer);
        }
        self.spaces.stir(freed.allocator);
        if !self.release(freed.buffer) {
            self.freed_unknown(freed);
        }
    }

    #[cold]
    fn freed_unknown(&mut self, freed: &Freed) {
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
        self.pay_for_live();
        self.pay_for_allocators();
        for buffer in self.buffers_of(|it| it == allocator) {
            self.touch(buffer);
            self.sweep(buffer);
        }
        self.spaces.stir(allocator);
        self.topology.close_allocator(allocator);
        self.note_bulk_free(allocator);
    }

    fn buffers_of(&self, is_of: impl Fn(Avma) -> bool) -> Vec<Avma> {
        let of_them = self.live.iter().filter(|entry| is_of(entry.allocator()));
        of_them.map(Entry::buffer).collect()
    }

    /// Takes a live buffer out and counts its free; `false` if it was not live.
    #[inline]
    fn release(&mut self, buffer: Avma) -> bool {
        self.take_out(buffer, true).is_some()
    }

    /// Takes a live buffer out. `counted`: as a free.
    #[inline]
    fn take_out(&mut self, buffer: Avma, counted: bool) -> Option<LivePlace> {
        let place = self.live.remove(buffer)?;
        self.go(place, counted);
        Some(place)
    }

    /// Takes a buffer in, in place of whichever is there, of which nothing is counted.
    fn put_in(&mut self, coming: &Coming<'_>) -> LivePlace {
        self.live.insert(coming).unwrap_or_else(|_| {
            self.take_out(coming.buffer, false);
            self.live.insert(coming).unwrap_or_else(|place| place)
        })
    }

    /// What follows from it that a buffer is live now. `counted`: as an allocation.
    #[inline]
    fn come(&mut self, place: LivePlace, facts: &Facts, counted: bool) {
        self.failures.note_change();
        self.note(Change::Allocated, place);
        self.per_core.enter(facts.spread);
        self.occupy(facts);
        for &chip in self.chips_of_live(facts.device) {
            let pool = self.pool(chip, facts.buffer_type);
            pool.enter(facts.share);
            pool.allocations.add(u64::from(counted));
        }
    }

    /// What follows from it that a buffer is no longer live. `counted`: as a free.
    #[inline]
    fn go(&mut self, place: LivePlace, counted: bool) {
        let entry = self.live.at(place);
        let (facts, is_older) = (entry.facts(), entry.is_pre_attach());
        self.failures.note_change();
        self.note(Change::Freed, place);
        self.per_core.leave(facts.spread);
        self.vacate(&facts);
        for &chip in self.chips_of_live(facts.device) {
            let pool = self.pool(chip, facts.buffer_type);
            pool.leave(facts.share);
            let frees = if is_older { &pool.pre_attach_frees } else { &pool.frees };
            frees.add(u64::from(counted));
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

    #[inline]
    fn touch(&mut self, buffer: Avma) {
        if let Some(touched) = &mut self.touched {
            touched.insert(buffer);
            let touched = touched.len();
            self.bound("buffers changed during a reading", touched, 2 * MAX_BUFFERS);
        }
    }

    #[inline]
    fn chips_of(&self, entry: usize) -> &[usize] {
        self.topology.device(entry).map_or(&[], |device| &device.chips)
    }

    #[inline]
    fn chips_of_live(&self, entry: Option<u32>) -> &[usize] {
        entry.map_or(&[], |entry| self.chips_of(entry as usize))
    }

    #[inline]
    fn pool(&self, chip: usize, buffer_type: BufferType) -> &PoolCounters {
        &self.chips[chip][buffer_type.index()]
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
