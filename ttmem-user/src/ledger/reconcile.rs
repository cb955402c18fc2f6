//! Brings the live buffers from before the attach together with the events since.
//!
//! Probes are attached first, then the target's memory is read while it runs on. So what was read
//! may be older or newer than an event. Whatever an event was seen of, the event decides; what
//! no event was seen of did not change, and the memory decides.

use super::{
    BaselineState, Coming, Facts, Ledger, Origin, bounds::MAX_REMEMBERED, counters::Measured,
    delta::Cause, resize::ResizedWhileReading,
};
use crate::{
    event::{BaselineBuffer, LiveBaseline},
    units::Avma,
};

impl Ledger {
    /// Takes in what was read from the target's memory, or why that was not possible.
    ///
    /// Every event up to the end of the reading must have been applied.
    pub fn finish_baseline(&mut self, baseline: Result<LiveBaseline, String>) {
        self.because(Cause::Baseline, |ledger| ledger.take_baseline_in(baseline));
    }

    fn take_baseline_in(&mut self, baseline: Result<LiveBaseline, String>) {
        self.attaching = false;
        let touched = self.touched.take().unwrap_or_default();
        let baseline = match self.bounded(baseline) {
            Ok(baseline) => baseline,
            Err(reason) => {
                self.baseline = BaselineState::Unavailable(reason);
                self.give_up_reading();
                return;
            }
        };
        self.review_peaks();
        self.baseline = BaselineState::Read;
        self.circular.older_on(&baseline.chips);
        self.per_core.read(baseline.per_core_unsure);
        self.learn_places(&baseline);
        self.settle_resizes();
        for buffer in &baseline.buffers {
            if !touched.contains(&buffer.buffer) {
                self.adopt(buffer, Origin::PreAttach, false);
            }
        }
        for swept in baseline.swept.iter().filter(|swept| swept.per_core) {
            self.spaces.make_uneven(swept.allocator, swept.buffer_type);
        }
        let late = baseline.swept.iter().filter(|swept| !touched.contains(&swept.buffer));
        self.swept.extend(late.copied());
        self.settle_late_frees(|buffer| !touched.contains(&buffer));
        self.bulk_free_while_reading();
        // Buffers were live for a moment that had gone before others of them came.
        self.drop_peaks();
        self.check_free_lists(&baseline);
    }

    /// A reading has failed. What was remembered for its end is of no use to a later one: others may
    /// be at the same places by then.
    pub(super) fn give_up_reading(&mut self) {
        self.touched = None;
        self.forget_late_frees();
        self.bulk_freed_while_reading.clear();
        self.resized_while_reading = ResizedWhileReading::default();
    }

    /// Devices and allocators that no event has described since.
    pub(super) fn learn_places(&mut self, baseline: &LiveBaseline) {
        for device in &baseline.devices {
            if self.topology.device_at(device.device).is_none() && !self.bounds.is_beyond() {
                self.learn_device(device);
            }
        }
        for allocator in &baseline.allocators {
            if !self.topology.knows_allocator(allocator.allocator) && !self.bounds.is_beyond() {
                self.learn_allocator(allocator);
                if baseline.spare.contains(&allocator.allocator) {
                    self.topology.make_spare(allocator.allocator);
                }
            }
        }
    }

    /// Takes in a buffer that was read from memory, in place of whichever is there. `counted`: as an
    /// allocation that was missed.
    pub(super) fn adopt(
        &mut self,
        buffer: &BaselineBuffer,
        origin: Origin,
        counted: bool,
    ) -> Facts {
        let device = self.topology.device_at(buffer.device);
        let device = device.and_then(|entry| u32::try_from(entry).ok());
        if self.chips_of_live(device).is_empty() {
            self.unknown_devices += 1;
        }
        let measured = self.measure_adopted(buffer);
        let (allocator, shape) = (buffer.allocator, &buffer.shape);
        let coming = Coming { buffer: buffer.buffer, shape, measured, allocator, device, origin };
        let place = self.put_in(&coming);
        let facts = coming.facts();
        self.come(place, &facts, counted);
        facts
    }

    /// The block table is the truth; where the fields say otherwise, that is an anomaly.
    fn measure_adopted(&mut self, buffer: &BaselineBuffer) -> Option<Measured> {
        let computed = self.measure(buffer.allocator, &buffer.shape);
        let Some(bank_bytes) = buffer.block_bytes else { return computed };
        if computed.is_some_and(|computed| computed.bank_bytes != bank_bytes) {
            self.anomalies.size_mismatch += 1;
        }
        let geometry = self.topology.geometry(buffer.allocator, buffer.shape.buffer_type)?;
        let banks = geometry.banks_of(buffer.shape.spread).unwrap_or(geometry.banks);
        let used_bytes = bank_bytes.checked_mul(u64::from(banks))?;
        Some(Measured { bank_bytes, used_bytes })
    }

    /// Remembers a bulk free whose buffers may be among those being read.
    pub(super) fn note_bulk_free(&mut self, allocator: Avma) {
        if self.touched.is_some() {
            self.bulk_freed_while_reading.insert(allocator);
            let remembered = self.bulk_freed_while_reading.len();
            self.bound("bulk frees during a reading", remembered, MAX_REMEMBERED);
        }
    }

    /// Buffers from before the attach that a bulk free took after the attach.
    fn bulk_free_while_reading(&mut self) {
        let freed = std::mem::take(&mut self.bulk_freed_while_reading);
        for buffer in self.buffers_of(|allocator| freed.contains(&allocator)) {
            if self.live.get(buffer).is_some_and(|live| live.origin == Origin::PreAttach) {
                self.sweep(buffer);
            }
        }
    }
}
