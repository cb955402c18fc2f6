//! The totals per chip and buffer type. They are the ledger's own; others read copies of them in
//! snapshots and in the shared table.

use std::cell::Cell;

use ttmem_common::layout::BUFFER_TYPES;

/// The pools of one chip, by buffer type.
pub type ChipCounters = [PoolCounters; BUFFER_TYPES];

/// The totals of one pool.
#[derive(Debug, Default)]
pub struct PoolCounters {
    /// Live buffers.
    pub buffers: Counter,
    /// Sum of their logical sizes, bytes.
    pub logical_bytes: Counter,
    /// Sum of what they take of each bank, bytes; without the uneven ones.
    pub bank_bytes: Counter,
    /// Sum of what they take of the pool, bytes.
    pub used_bytes: Counter,
    /// Highest `used_bytes` since the last of these was kept or dropped.
    recent_peak: Counter,
    /// Highest `used_bytes` that is certain, up to then.
    certain_peak: Counter,
    /// The same since the window was restarted.
    window_peak: Counter,
    /// How often it was missed how high the use was.
    missed_peaks: Counter,
    /// Live buffers whose bytes per bank are not known.
    pub unmeasured: Counter,
    /// Live buffers that take a block of some banks, and none of the others.
    pub uneven: Counter,
    /// Allocations seen.
    pub allocations: Counter,
    /// Frees of buffers whose allocation was seen.
    pub frees: Counter,
    /// Frees of buffers from before the attach.
    pub pre_attach_frees: Counter,
}

/// A number that can be changed while others of its pool are looked at.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    /// Adds.
    pub fn add(&self, amount: u64) {
        self.0.set(self.get().wrapping_add(amount));
    }

    /// Subtracts what was added before.
    pub fn sub(&self, amount: u64) {
        let value = self.get();
        debug_assert!(value >= amount, "more is taken away than was ever there");
        self.0.set(value.saturating_sub(amount));
    }

    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.set(value);
    }

    /// Raises the value to at least `value`.
    pub fn raise(&self, value: u64) {
        if value > self.get() {
            self.0.set(value);
        }
    }
}

/// What one buffer counts for in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Logical size, bytes.
    pub size: u64,
    /// Bytes per bank and in all banks, if known.
    pub measured: Option<Measured>,
    /// Whether it takes a block of some banks, and none of the others.
    pub uneven: bool,
}

/// What one buffer takes of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Of each bank that it lies on, bytes.
    pub bank_bytes: u64,
    /// Of all banks, bytes.
    pub used_bytes: u64,
}

impl Share {
    /// What it takes of every bank, bytes.
    const fn even_bytes(self, measured: Measured) -> u64 {
        if self.uneven { 0 } else { measured.bank_bytes }
    }
}

impl PoolCounters {
    /// Sum of what the live buffers take of each bank, bytes; `None`: not known, or the banks
    /// differ.
    pub fn bytes_of_each_bank(&self) -> Option<u64> {
        (self.unmeasured.get() + self.uneven.get() == 0).then(|| self.bank_bytes.get())
    }

    /// Counts a buffer in.
    pub fn enter(&self, share: Share) {
        self.buffers.add(1);
        self.logical_bytes.add(share.size);
        self.uneven.add(u64::from(share.uneven));
        if let Some(measured) = share.measured {
            self.bank_bytes.add(share.even_bytes(measured));
            self.used_bytes.add(measured.used_bytes);
            self.recent_peak.raise(self.used_bytes.get());
        } else {
            self.unmeasured.add(1);
            self.missed_peaks.add(1);
        }
    }

    /// Counts a buffer out; `share` as it was counted in.
    pub fn leave(&self, share: Share) {
        self.buffers.sub(1);
        self.logical_bytes.sub(share.size);
        self.uneven.sub(u64::from(share.uneven));
        match share.measured {
            Some(measured) => {
                self.bank_bytes.sub(share.even_bytes(measured));
                self.used_bytes.sub(measured.used_bytes);
            }
            None => self.unmeasured.sub(1),
        }
    }

    /// Highest `used_bytes`; `None` if it was missed.
    pub fn peak_used_bytes(&self) -> Option<u64> {
        let peak = self.certain_peak.get().max(self.recent_peak.get());
        (self.missed_peaks.get() == 0).then_some(peak)
    }

    /// `used_bytes` was at least so high. `in_doubt`: what was seen lately is not certain.
    pub fn peak_at_least(&self, in_doubt: bool) -> u64 {
        let recent = if in_doubt { 0 } else { self.recent_peak.get() };
        self.certain_peak.get().max(recent)
    }

    /// How often it was missed how high the use was.
    pub fn missed_peaks(&self) -> u64 {
        self.missed_peaks.get()
    }

    /// What was seen lately is certain.
    pub fn keep_peak(&self) {
        self.certain_peak.raise(self.recent_peak.get());
        self.window_peak.raise(self.recent_peak.get());
        self.drop_peak();
    }

    /// What was seen lately says nothing.
    pub fn drop_peak(&self) {
        self.recent_peak.set(self.used_bytes.get());
    }

    /// The same, and so something was missed.
    pub fn miss_peak(&self) {
        self.missed_peaks.add(1);
        self.drop_peak();
    }

    /// Nothing that was seen says anything.
    pub fn forget_peak(&self) {
        self.certain_peak.set(0);
        self.miss_peak();
    }

    /// The highest `used_bytes` of the window, as far as it has been kept; it begins anew with what is
    /// used now.
    pub fn restart_window(&self) -> u64 {
        let peak = self.window_peak.get();
        self.window_peak.set(self.used_bytes.get());
        peak
    }

    /// Whether anything was ever counted here.
    pub fn was_used(&self) -> bool {
        self.buffers.get() + self.allocations.get() + self.pre_attach_frees.get() > 0
    }
}
