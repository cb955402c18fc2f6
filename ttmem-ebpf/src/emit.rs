//! Records into this CPU's ring or the ring buffer of all, or into the loss counters.

use core::sync::atomic::{Ordering, compiler_fence};

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    maps::ring_buf::RingBufEntry,
};
use ttmem_common::{
    control::{CONTROL_WORDS, DESCRIBED, WAKE_ARMED},
    cpu_ring::MAX_RECORD,
    loss::LossCause,
    record::RecordHeader,
};

use crate::{
    count::lose,
    cpu::{Cpu, room},
    maps::{CONTROL, ControlWords, EVENTS},
};

/// Who hit a probe, and where.
#[derive(Clone, Copy)]
pub struct Hit {
    /// The target's slot.
    pub slot: u32,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// The CPU.
    pub cpu: Cpu,
    /// `control::DESCRIBED`, before the CPU was entered.
    pub described: u64,
    control: *mut ControlWords,
}

impl Hit {
    /// Enters the CPU.
    #[inline(always)]
    pub fn enter(slot: u32, tgid: u32, tid: u32) -> Option<Self> {
        let control = CONTROL.get_ptr_mut(0)?;
        let described = control_word(control, DESCRIBED);
        let cpu = Cpu::enter()?;
        Some(Self { slot, tgid, tid, cpu, described, control })
    }

    /// The header of a record.
    ///
    /// All records of a hit have the time at which it began: so none is later than the moment at which
    /// room for it was reserved.
    #[inline(always)]
    pub fn header(&self, kind: u32) -> RecordHeader {
        let Self { slot, tgid, tid, .. } = *self;
        RecordHeader { time_ns: self.cpu.entered_ns, kind, slot, tgid, tid }
    }

    /// A control word.
    #[inline(always)]
    pub fn control(&self, word: u32) -> u64 {
        control_word(self.control, word)
    }
}

#[inline(always)]
fn control_word(control: *const ControlWords, word: u32) -> u64 {
    compiler_fence(Ordering::SeqCst);
    // SAFETY: a live element of an array map; aligned, and only ever a whole word.
    let value =
        unsafe { control.cast::<u64>().add((word % CONTROL_WORDS) as usize).read_volatile() };
    compiler_fence(Ordering::SeqCst);
    value
}

/// Room for a record in this CPU's ring. `None`: it is not ours alone, it is full, or the agent has
/// to be woken, which only the ring buffer can do.
#[inline(always)]
pub fn own_room<T>(hit: &Hit) -> Option<*mut T> {
    const { assert!(size_of::<T>() as u32 <= MAX_RECORD && size_of::<T>() % 8 == 0) };
    let state = hit.cpu.alone()?;
    if hit.control(WAKE_ARMED) != 0 {
        return None;
    }
    // SAFETY: this program's alone.
    unsafe { room(state, size_of::<T>() as u32) }.map(<*mut u8>::cast)
}

/// Hands over the record that was written into [`own_room`].
#[inline(always)]
pub fn hand_over<T>(hit: &Hit) {
    let Some(state) = hit.cpu.alone() else { return };
    compiler_fence(Ordering::SeqCst);
    // SAFETY: a live element of an array map, and this program's alone.
    unsafe {
        let end = (*state).produced.wrapping_add(size_of::<T>() as u64);
        (&raw mut (*state).produced).write_volatile(end);
    }
}

/// Emits the only record of this hit: into this CPU's ring if there is room, else into the ring
/// buffer. `None`: it is lost.
#[inline(always)]
pub fn emit<T: 'static>(hit: &Hit, record: impl Fn() -> T) -> Option<()> {
    emit_behind(hit, false, record)
}

/// The same of one of several records of this hit: if any of them is in the ring buffer, this has to
/// be as well, behind it.
#[inline(always)]
pub fn emit_behind<T: 'static>(hit: &Hit, others: bool, record: impl Fn() -> T) -> Option<()> {
    if !others && let Some(room) = own_room::<T>(hit) {
        // SAFETY: room for a record.
        unsafe { room.write(record()) };
        hand_over::<T>(hit);
    } else {
        let mut entry = reserve::<T>()?;
        entry.write(record());
        submit(entry, hit);
    }
    Some(())
}

/// Room for a record in the ring buffer; counts the loss if there is none.
#[inline(always)]
pub fn reserve<T: 'static>() -> Option<RingBufEntry<T>> {
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none() {
        lose(LossCause::RingFull);
    }
    entry
}

/// Hands over a record in the ring buffer. Wakes the agent only if it asked to be woken.
#[inline(always)]
pub fn submit<T: 'static>(entry: RingBufEntry<T>, hit: &Hit) {
    entry.submit(wake_flags(hit, WAKE_ARMED));
}

/// How to hand a record over: waking the agent if it has asked for that in a control word.
#[inline(always)]
pub fn wake_flags(hit: &Hit, word: u32) -> u64 {
    u64::from(if take_wake_request(hit, word) { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}

/// Reads and clears the agent's request. Two CPUs may both see it: one wake-up too many is harmless.
#[inline(always)]
fn take_wake_request(hit: &Hit, word: u32) -> bool {
    if hit.control(word) == 0 {
        return false;
    }
    let word = (word % CONTROL_WORDS) as usize;
    // SAFETY: a live element of an array map; aligned, and only ever a whole word.
    unsafe { hit.control.cast::<u64>().add(word).write_volatile(0) };
    true
}

/// Adds to the count of what has been described.
#[inline(always)]
pub fn add_to_described(hit: &Hit, what: u64) {
    // SAFETY: a live element of an array map.
    unsafe { crate::count::add(hit.control.cast::<u64>().add(DESCRIBED as usize), what) };
}
