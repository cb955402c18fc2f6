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
    // SAFETY: the entry has room for the record and the stack behind it.
    unsafe {
        let stack = record.add(1).cast::<u8>();
        record.write(StackRecord {
            header: hit.header(KIND_STACK),
            ip: registers.rip,
            sp: registers.rsp,
            bp: registers.rbp,
            preserved: [registers.rbx, registers.r12, registers.r13, registers.r14, registers.r15],
            length: read(stack, room, registers.rsp),
            reserved: 0,
        });
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
