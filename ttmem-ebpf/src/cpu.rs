//! Whose turn it is on this CPU.
//!
//! A program stays on its CPU, but another task may preempt it there and hit a probe too. Who comes
//! first has the CPU's state for itself until it leaves; others run beside it.

use core::{
    arch::asm,
    sync::atomic::{Ordering, compiler_fence},
};

use aya_ebpf::{
    Global,
    helpers::{bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_ns},
};
use ttmem_common::cpu_ring::{CHUNK, CpuState, MAX_RECORD, RESTART};

use crate::{
    count::add,
    maps::{CHUNKS, CPUS},
};

/// Not 0: every other hit runs beside nobody, as if it had preempted somebody. For tests: most kernels
/// preempt no program.
///
/// Constant once the program is loaded: with 0 the kernel removes all of this.
#[unsafe(no_mangle)]
static PRETEND_PREEMPTING: Global<u32> = Global::new(0);

/// A CPU, entered.
#[derive(Clone, Copy)]
pub struct Cpu {
    /// Its id.
    pub id: u32,
    /// When it was entered, CLOCK_MONOTONIC nanoseconds.
    pub entered_ns: u64,
    state: *mut CpuState,
    /// Not 0: it was taken already.
    taken: u64,
}

impl Cpu {
    /// Enters this CPU. Who does has to leave it.
    ///
    /// Whoever looks from another CPU either finds it entered, or finds all that was done in it.
    #[inline(always)]
    pub fn enter() -> Option<Self> {
        // SAFETY: the helper has no preconditions.
        let id = unsafe { bpf_get_smp_processor_id() };
        let state = CPUS.get_ptr_mut(id)?;
        let mut taken = 1_u64;
        if !pretends_to_preempt() {
            // SAFETY: the first word of a live element of an array map. It is a full barrier.
            unsafe {
                asm!(
                    "{taken} = xchg_64({state} + 0, {taken})",
                    state = in(reg) state,
                    taken = inout(reg) taken,
                );
            }
        }
        // SAFETY: a live element of an array map.
        unsafe {
            if is_zero(taken) {
                begin_anew(state);
                fetch(state);
            } else {
                add(&raw mut (*state).beside, 1);
            }
        }
        // SAFETY: the helper has no preconditions.
        let entered_ns = unsafe { bpf_ktime_get_ns() };
        if is_zero(taken) {
            // SAFETY: as above.
            unsafe { (&raw mut (*state).taken_ns).write_volatile(entered_ns) };
        }
        Some(Self { id, entered_ns, state, taken })
    }

    /// The state, if it is this program's alone.
    #[inline(always)]
    pub fn alone(&self) -> Option<*mut CpuState> {
        is_zero(self.taken).then_some(self.state)
    }

    /// Leaves it.
    #[inline(always)]
    pub fn leave(self) {
        compiler_fence(Ordering::SeqCst);
        // SAFETY: a live element of an array map. Stores are seen in their order on x86-64, the one
        // machine that this is built for.
        unsafe {
            if is_zero(self.taken) {
                (&raw mut (*self.state).taken).write_volatile(0);
            } else {
                add(&raw mut (*self.state).beside, u64::MAX);
            }
        }
    }
}

#[inline(always)]
fn pretends_to_preempt() -> bool {
    // SAFETY: the helper has no preconditions.
    PRETEND_PREEMPTING.load() != 0 && unsafe { bpf_get_prandom_u32() } & 1 != 0
}

/// Whether it is 0; without a trace of that in the number itself. Else the verifier would follow all
/// that comes behind once for each.
#[inline(always)]
fn is_zero(number: u64) -> bool {
    let mut copy = number;
    // SAFETY: nothing is changed.
    unsafe { asm!("{copy} ^= 0", copy = inout(reg) copy) };
    copy == 0
}

/// Room for a record of so many bytes in the ring of a CPU; `None`: it is full.
///
/// # Safety
/// The state is a live element of an array map, and this program's alone, but for `consumed`: a whole,
/// aligned word.
#[inline(always)]
pub unsafe fn room(state: *mut CpuState, bytes: u32) -> Option<*mut u8> {
    // SAFETY: as the caller says.
    let (at, chunk) = unsafe {
        let at = (*state).produced;
        let end = at.wrapping_add(u64::from(bytes));
        let consumed = (&raw const (*state).consumed).read_volatile();
        let size = (*state).size;
        if end.wrapping_sub(consumed) > size && end.wrapping_sub((*state).restarted) > size {
            return None;
        }
        let chunk = (at / u64::from(CHUNK)) as u32 & (*state).chunk_mask;
        (at, (*state).first_chunk.wrapping_add(chunk))
    };
    let chunk = CHUNKS.get_ptr_mut(chunk)?;
    // A mask for the verifier: a record begins at a multiple of 8.
    let offset = (at & u64::from(CHUNK - 8)) as usize;
    // SAFETY: inside the chunk, which has room for a record behind any such place.
    Some(unsafe { chunk.cast::<u8>().add(offset) })
}

/// Has the ring begin at its start again, if all has been read and it has come some way.
///
/// # Safety
/// As for [`room`].
#[inline(always)]
unsafe fn begin_anew(state: *mut CpuState) {
    // SAFETY: as the caller says. Stores are seen in their order, as in `leave`.
    unsafe {
        let produced = (*state).produced;
        let round = (*state).size.wrapping_sub(1);
        let consumed = (&raw const (*state).consumed).read_volatile();
        if consumed == produced && produced & round >= RESTART {
            let start = (produced | round).wrapping_add(1);
            (&raw mut (*state).restarted).write_volatile(start);
            (&raw mut (*state).produced).write_volatile(start);
        }
    }
}

/// Fetches what the next record, or the one behind it, will write. The cache lines were last in the
/// agent's processor: they come over while the program runs.
///
/// # Safety
/// As for [`room`].
#[inline(always)]
unsafe fn fetch(state: *mut CpuState) {
    // SAFETY: as the caller says. There is room, and so what is there has been read.
    unsafe {
        if let Some(room) = room(state, MAX_RECORD) {
            room.add(LINES[0]).cast::<u64>().write_volatile(0);
            room.add(LINES[1]).cast::<u64>().write_volatile(0);
        }
    }
}

/// Where, behind the next record's first byte.
const LINES: [usize; 2] = [88, 128];
