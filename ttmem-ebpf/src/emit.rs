//! Records into the ring buffer, or into the loss counters.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_ns,
    maps::ring_buf::RingBufEntry,
};
use ttmem_common::{control::WAKE_ARMED, loss::LossCause, record::RecordHeader};

use crate::{
    count::lose,
    maps::{CONTROL, EVENTS},
};

/// Who hit a probe.
#[derive(Clone, Copy)]
pub struct Hit {
    /// The target's slot.
    pub slot: u32,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
}

impl Hit {
    /// The header of a record; call it after the record was reserved.
    ///
    /// Then a record's time is never earlier than its place in the ring: whoever has read all that
    /// was reserved by time T has read every event up to T.
    #[inline(always)]
    pub fn header(&self, kind: u32) -> RecordHeader {
        // SAFETY: the helper has no preconditions.
        let time_ns = unsafe { bpf_ktime_get_ns() };
        self.header_of(time_ns, kind)
    }

    /// Sets the time of a record that is reserved.
    ///
    /// # Safety
    /// It begins with a header.
    #[inline(always)]
    pub unsafe fn stamp(record: *mut RecordHeader) {
        // SAFETY: the helper has no preconditions; the rest is the caller's.
        unsafe { (*record).time_ns = bpf_ktime_get_ns() };
    }

    /// The same with a time that is known, or still to be set.
    #[inline(always)]
    pub fn header_of(&self, time_ns: u64, kind: u32) -> RecordHeader {
        RecordHeader { time_ns, kind, slot: self.slot, tgid: self.tgid, tid: self.tid }
    }
}

/// Room for a record; counts the loss if there is none.
#[inline(always)]
pub fn reserve<T>() -> Option<RingBufEntry<T>> {
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none() {
        lose(LossCause::RingFull);
    }
    entry
}

/// Hands a record over. Wakes the agent only if it asked to be woken.
#[inline(always)]
pub fn submit<T>(entry: RingBufEntry<T>) {
    entry.submit(wake_flags(WAKE_ARMED));
}

/// How to hand a record over: waking the agent if it has asked for that in a control word.
#[inline(always)]
pub fn wake_flags(word: u32) -> u64 {
    u64::from(if take_wake_request(word) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}

/// Reads and clears the agent's request. Two CPUs may both see it: one wake-up too many is harmless.
#[inline(always)]
fn take_wake_request(word: u32) -> bool {
    let Some(armed) = CONTROL.get_ptr_mut(word) else { return false };
    // SAFETY: a live element of an array map; aligned, and only ever a whole word.
    unsafe {
        if armed.read_volatile() == 0 {
            return false;
        }
        armed.write_volatile(0);
    }
    true
}

/// A control word that the agent has set.
#[inline(always)]
pub fn control(word: u32) -> bool {
    // SAFETY: a live element of an array map; aligned, and only ever a whole word.
    CONTROL.get_ptr(word).is_some_and(|word| unsafe { word.read_volatile() } != 0)
}
