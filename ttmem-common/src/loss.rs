//! Why the eBPF side could not deliver a record. Counted per CPU, shown in every output.

/// A cause of loss; the value is the index in the per-CPU counter array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum LossCause {
    /// The ring buffer had no room for the record.
    RingFull = 0,
    /// A field could not be read from the target's memory (page not present, bad pointer).
    ReadFault = 1,
}

/// Every cause, in index order.
pub const LOSS_CAUSES: [LossCause; 2] = [LossCause::RingFull, LossCause::ReadFault];

impl LossCause {
    /// Index in the counter array.
    pub const fn index(self) -> u32 {
        self as u32
    }

    /// Name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::ReadFault => "read_fault",
        }
    }
}
