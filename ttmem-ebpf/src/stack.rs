//! The stack of whoever allocates, or fails to, for those who ask for it.
//!
//! It is only copied; what called what is the agent's to find out. It goes into a ring buffer of its
//! own, after the record of the same time: whatever becomes of it, the numbers are as they would be.

use aya_ebpf::{Global, bindings::pt_regs, programs::ProbeContext};
use ttmem_common::{
    control::STACKS_WAKE_ARMED,
    loss::LossCause,
    record::{KIND_STACK, STACK_PIECE, StackRecord},
};

use crate::{
    count::lose,
    emit::{Hit, wake_flags},
    maps::STACKS,
    python,
    user_memory::read_raw,
};

/// How many bytes of a stack are copied, a multiple of [`STACK_PIECE`]; 0: stacks are not recorded.
///
/// Constant once the program is loaded: with 0 the kernel removes all of this.
#[unsafe(no_mangle)]
static STACK_BYTES: Global<u32> = Global::new(0);

/// Records the stack of the record of this hit.
#[inline(always)]
pub fn record(ctx: &ProbeContext, hit: &Hit) {
    if STACK_BYTES.load() != 0 {
        copy(ctx.regs, hit);
    }
}

/// A function of its own, with a stack of its own: that of the program is used up.
#[inline(never)]
fn copy(registers: *const pt_regs, hit: &Hit) {
    let room = STACK_BYTES.load();
    let size = size_of::<StackRecord>() + room as usize;
    let Some(mut entry) = STACKS.reserve_bytes(size, 0) else {
        lose(LossCause::StackRingFull);
        return;
    };
    let record = entry.as_mut_ptr().cast::<StackRecord>();
    // SAFETY: the context that the program was called with.
    let registers = unsafe { &*registers };
    // Piece by piece: as a whole it is larger than the stack.
    // SAFETY: the entry has room for the record and the stack behind it, and that for a piece at least.
    unsafe {
        let stack = record.add(1).cast::<u8>();
        (&raw mut (*record).header).write(hit.header(KIND_STACK));
        (&raw mut (*record).ip).write(registers.rip);
        (&raw mut (*record).sp).write(registers.rsp);
        (&raw mut (*record).bp).write(registers.rbp);
        let pt_regs { rbx, r12, r13, r14, r15, .. } = *registers;
        (&raw mut (*record).preserved).write([rbx, r12, r13, r14, r15]);
        (&raw mut (*record).reserved).write(0);
        let frames = (&raw mut (*record).python).cast();
        // What is read on the way lies where the stack will be.
        let (count, end) = python::frames(hit, frames, stack.cast());
        (&raw mut (*record).python_count).write(count);
        (&raw mut (*record).python_end).write(end);
        (&raw mut (*record).length).write(read(stack, room, registers.rsp));
    }
    entry.submit(wake_flags(hit, STACKS_WAKE_ARMED));
}

/// Copies what there is of a stack; returns how much.
///
/// # Safety
/// There is room for `room` bytes.
#[inline(always)]
unsafe fn read(to: *mut u8, room: u32, sp: u64) -> u32 {
    if read_raw(to, room, sp) == 0 {
        return room;
    }
    // It ends sooner, or a part of it has never been used.
    let mut length = 0;
    while length < room {
        // SAFETY: as the caller says.
        let piece = unsafe { to.add(length as usize) };
        if read_raw(piece, STACK_PIECE, sp.wrapping_add(u64::from(length))) != 0 {
            break;
        }
        length += STACK_PIECE;
    }
    length
}
