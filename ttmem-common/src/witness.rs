//! What the eBPF side counts of each target: what happened, before it tries to deliver a record, so that
//! nothing that is lost later is missing here; and what it could not read.
//!
//! Two rows for each CPU and target, two cache lines each, so that CPUs do not share one: who has the
//! CPU for itself needs no atomic addition in the first, and what preempts it has the second. The sum
//! over all is what happened.

use crate::layout::{BUFFER_TYPES, MAX_SLOTS};

/// Words of a row.
pub const WITNESS_WORDS: u32 = 16;

/// A row.
pub type WitnessRow = [u64; WITNESS_WORDS as usize];

/// Where a row counts the frees of single buffers.
pub const FREES: usize = 2 * BUFFER_TYPES;
/// Where a row counts the bulk frees.
pub const BULK_FREES: usize = FREES + 1;
/// Where a row counts allocations whose fields could not be read, or of an unknown type.
pub const UNREAD_ALLOCATIONS: usize = FREES + 2;
/// Where a row counts records that were not made because a field could not be read from the target's
/// memory. By target, unlike other losses: a process can bring these about as it pleases, and they say
/// nothing of any other.
pub const READ_FAULTS: usize = FREES + 3;

/// Where a row counts the allocations of a type; the word behind it sums their bytes.
pub const fn allocations(buffer_type: usize) -> usize {
    2 * buffer_type
}

/// Rows of a target for each CPU.
pub const ROWS: u32 = 2;

/// A row of a CPU for a target's slot; `beside`: that of whoever does not have the CPU for itself.
pub const fn witness_row(cpu: u32, beside: bool, slot: u32) -> u32 {
    (cpu * ROWS + beside as u32) * MAX_SLOTS + slot
}

const _: () = assert!(READ_FAULTS < WITNESS_WORDS as usize);
