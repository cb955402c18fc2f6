//! Why the eBPF side could not deliver a record, whosever it was. Counted per CPU, shown in every output.
//! What could not be read of one target is counted by target: [`crate::witness::READ_FAULTS`].

/// A cause of loss; the value is its place among a CPU's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum LossCause {
    /// The ring buffer had no room for the record.
    RingFull = 0,
    /// The ring buffer of call stacks had no room. The allocation's own record is not affected.
    StackRingFull = 1,
}

/// Every cause, in index order.
pub const LOSS_CAUSES: [LossCause; 2] = [LossCause::RingFull, LossCause::StackRingFull];

impl LossCause {
    /// Name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring_full",
            Self::StackRingFull => "stack_ring_full",
        }
    }
}

/// Counters per CPU: one cache line, so that CPUs do not share one.
pub const LOSS_STRIDE: u32 = 8;

/// Where a CPU counts a cause.
pub const fn loss_index(cpu: u32, cause: LossCause) -> u32 {
    cpu * LOSS_STRIDE + cause as u32
}

const _: () = assert!(LOSS_CAUSES.len() <= LOSS_STRIDE as usize);
