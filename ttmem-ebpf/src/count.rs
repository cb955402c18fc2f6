//! Counters that other CPUs, and programs that preempt this one, count too.

use core::arch::asm;

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use ttmem_common::{
    layout::BUFFER_TYPES,
    loss::{LossCause, loss_index},
    witness::{self, READ_FAULTS, UNREAD_ALLOCATIONS, WitnessRow, witness_row},
};

use crate::{
    emit::Hit,
    maps::{LOSS, WITNESS},
};

/// Counts a lost record.
#[inline(always)]
pub fn lose(cause: LossCause) {
    if let Some(count) = LOSS.get_ptr_mut(loss_index(this_cpu(), cause)) {
        // SAFETY: a live element of an array map.
        unsafe { add(count, 1) };
    }
}

/// Counts a record that is not made because a field could not be read (page not present, bad pointer).
#[inline(always)]
pub fn fault(hit: &Hit) {
    one::<READ_FAULTS>(hit);
}

/// Counts an allocation in the witness.
#[inline(always)]
pub fn allocation(hit: &Hit, buffer_type: u32, size: u64) {
    let Some(row) = row(hit) else { return };
    let buffer_type = buffer_type as usize;
    // SAFETY: the words are inside the row, a live element of an array map.
    unsafe {
        if buffer_type < BUFFER_TYPES {
            let word = row.cast::<u64>().add(witness::allocations(buffer_type));
            tally(hit, word, 1);
            tally(hit, word.add(1), size);
        } else {
            tally(hit, row.cast::<u64>().add(UNREAD_ALLOCATIONS), 1);
        }
    }
}

/// Counts anything else in the witness, at its word of a row.
#[inline(always)]
pub fn one<const WORD: usize>(hit: &Hit) {
    const { assert!(WORD < witness::WITNESS_WORDS as usize) };
    if let Some(row) = row(hit) {
        // SAFETY: the word is inside the row, a live element of an array map.
        unsafe { tally(hit, row.cast::<u64>().add(WORD), 1) };
    }
}

#[inline(always)]
fn row(hit: &Hit) -> Option<*mut WitnessRow> {
    WITNESS.get_ptr_mut(witness_row(hit.cpu.id, hit.cpu.alone().is_none(), hit.slot))
}

/// Adds to a word of a row.
///
/// # Safety
/// The word is inside the row of this hit.
#[inline(always)]
unsafe fn tally(hit: &Hit, word: *mut u64, what: u64) {
    // SAFETY: as above. Who is alone has the row alone.
    unsafe {
        if hit.cpu.alone().is_some() {
            word.write_volatile(word.read_volatile().wrapping_add(what));
        } else {
            add(word, what);
        }
    }
}

#[inline(always)]
fn this_cpu() -> u32 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_smp_processor_id() }
}

/// Adds to a word at once: the program can be preempted, and another one run on this CPU.
///
/// # Safety
/// The word is a live, aligned one of a map.
#[inline(always)]
pub unsafe fn add(word: *mut u64, what: u64) {
    // SAFETY: as above. In assembly because `AtomicU64` has no `fetch_add` for a target without
    // compare-and-swap.
    unsafe {
        asm!("lock *(u64 *)({word} + 0) += {what}", word = in(reg) word, what = in(reg) what)
    };
}
