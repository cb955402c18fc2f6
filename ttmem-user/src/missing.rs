//! What may be missing from the numbers. Every layer can add to it, every output shows it.

use serde::Serialize;

/// Records that the eBPF side could not deliver, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// The ring buffer was full; of all targets: whose they were cannot be told.
    pub ring_full: u64,
    /// A field could not be read; of this target alone.
    pub read_fault: u64,
}

impl Lost {
    /// Sum over all causes.
    pub const fn total(&self) -> u64 {
        self.ring_full + self.read_fault
    }

    /// What was lost since `earlier`.
    #[must_use]
    pub const fn since(&self, earlier: Self) -> Self {
        Self {
            ring_full: self.ring_full.saturating_sub(earlier.ring_full),
            read_fault: self.read_fault.saturating_sub(earlier.read_fault),
        }
    }
}

/// Something that could not be resolved in the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unresolved {
    /// The probe or field.
    pub probe: String,
    /// Why not.
    pub reason: String,
}
