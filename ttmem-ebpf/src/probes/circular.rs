//! Circular and dataflow buffers of programs, the end of programs, and their dispatch.
//!
//! tt-metal places a program's buffers in one call: its entry says whose they are, and the calls
//! that follow on the same thread say where each lies. A thread's program is remembered here, so
//! that every record names it and no record depends on another one having arrived.
//!
//! Leaves out what a program may not place: dispatching one whose buffers have their place enters
//! none of these functions but the last.

use core::hint::black_box;

use aya_ebpf::programs::ProbeContext;
use ttmem_common::{
    layout::{ABSENT, LayoutTable, RANGE_BYTES},
    record::{
        CircularRecord, DispatchRecord, FLAG_DATAFLOW, FLAG_GLOBALLY_ALLOCATED, KIND_CIRCULAR,
        KIND_DISPATCH, KIND_PROGRAM_END, MAX_RANGES, NO_CHIP, ProgramEndRecord,
    },
};

use crate::{
    count::fault,
    emit::{Hit, emit, reserve, submit},
    maps::{PLACING, Placing},
    user_memory::{Fault, read, read_chain, read_into},
};

/// Room for ranges of cores in a record, in bytes.
const MAX_BYTES: u64 = MAX_RANGES as u64 * RANGE_BYTES;

/// A place that nobody is known to have asked for.
const NOBODY: Placing = Placing { program: 0, device: 0, batch: 0, flags: 0 };

/// `ProgramImpl::allocate_circular_buffers(this, const IDevice*)`, and the same of dataflow
/// buffers.
#[inline(always)]
pub fn on_context(ctx: &ProbeContext, hit: &Hit, flags: u32) -> Option<()> {
    let batch = hit.cpu.entered_ns;
    let placing =
        Placing { program: ctx.arg(0)?, device: ctx.arg(1)?, batch, flags: u64::from(flags) };
    // Should it fail, what follows has no program, and the agent says so.
    let _ = PLACING.remove(&thread(hit));
    let _ = PLACING.insert(&thread(hit), &placing, 0);
    Some(())
}

/// `GraphTracker::track_allocate_cb(this, cores, address, size, globally allocated, device)`.
#[inline(always)]
pub fn on_circular(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let cores: u64 = ctx.arg(1)?;
    let device: u64 = ctx.arg(5)?;
    let global: u64 = ctx.arg(4)?;
    let placing = placing(hit);
    let place = Place {
        address: ctx.arg(2)?,
        size: ctx.arg(3)?,
        device,
        // Only the lowest byte of a bool is defined.
        flags: if global & 0xff == 0 { 0 } else { FLAG_GLOBALLY_ALLOCATED },
    };
    let ids = &layout.circular;
    if ids.ranges_begin == ABSENT || ids.ranges_end == ABSENT {
        return None;
    }
    let begin = read::<u64>(cores.wrapping_add(u64::from(ids.ranges_begin)));
    let end = read::<u64>(cores.wrapping_add(u64::from(ids.ranges_end)));
    let (Ok(begin), Ok(end)) = (begin, end) else {
        fault(hit);
        return None;
    };
    let count = end.wrapping_sub(begin) / RANGE_BYTES;
    tell(hit, layout, &placing, &place, (begin, count))
}

/// `CircularBufferAllocator::mark_address(this, address, size, base)`.
#[inline(always)]
pub fn on_mark(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let allocator: u64 = ctx.arg(0)?;
    let placing = placing(hit);
    // Of circular buffers, `track_allocate_cb` tells.
    if placing.program != 0 && placing.flags & u64::from(FLAG_DATAFLOW) == 0 {
        return None;
    }
    let range = layout.circular.allocator_range;
    if range == ABSENT {
        return None;
    }
    let place = Place {
        address: ctx.arg(1)?,
        size: ctx.arg(2)?,
        device: placing.device,
        flags: FLAG_DATAFLOW,
    };
    tell(hit, layout, &placing, &place, (allocator.wrapping_add(u64::from(range)), 1))
}

/// `~ProgramImpl(this)`.
#[inline(always)]
pub fn on_program_end(ctx: &ProbeContext, hit: &Hit) -> Option<()> {
    let program: u64 = ctx.arg(0)?;
    let mut entry = reserve::<ProgramEndRecord>()?;
    entry.write(ProgramEndRecord { header: hit.header(KIND_PROGRAM_END), program });
    submit(entry, hit);
    Some(())
}

/// `GraphTracker::track_program(this, Program*, const IDevice*)`.
#[inline(always)]
pub fn on_dispatch(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let program: u64 = ctx.arg(1)?;
    let device: u64 = ctx.arg(2)?;
    let field = layout.circular.program_implementation;
    if field == ABSENT {
        return None;
    }
    let Ok(program) = read::<u64>(program.wrapping_add(u64::from(field))) else {
        fault(hit);
        return None;
    };
    let chip = chip_of(device, layout);
    let header = hit.header(KIND_DISPATCH);
    emit(hit, || DispatchRecord { header, program, device, chip, reserved: 0 })
}

/// Where a buffer lies.
struct Place {
    address: u64,
    size: u64,
    device: u64,
    flags: u32,
}

#[inline(always)]
fn thread(hit: &Hit) -> u64 {
    (u64::from(hit.tgid) << 32) | u64::from(hit.tid)
}

#[inline(always)]
fn placing(hit: &Hit) -> Placing {
    // SAFETY: nobody but this thread changes its entry, and it is in this probe.
    unsafe { PLACING.get(&thread(hit)) }.copied().unwrap_or(NOBODY)
}

/// `ranges`: address of the first, and how many.
#[inline(always)]
fn tell(
    hit: &Hit,
    layout: &LayoutTable,
    placing: &Placing,
    place: &Place,
    ranges: (u64, u64),
) -> Option<()> {
    let chip = chip_of(place.device, layout);
    let (first, count) = ranges;
    let mut entry = reserve::<CircularRecord>()?;
    let record = entry.as_mut_ptr();
    // SAFETY: `record` is room for a `CircularRecord`; every field that the agent looks at is
    // written before the submit.
    unsafe {
        (*record).program = placing.program;
        (*record).batch = placing.batch;
        (*record).device = place.device;
        (*record).address = place.address;
        (*record).size = place.size;
        (*record).chip = chip;
        (*record).flags = place.flags;
        (*record).range_count = if count > MAX_RANGES as u64 { u32::MAX } else { count as u32 };
        (*record).reserved = 0;
    }
    // Opaque, so that what is compared is the very number that the verifier has to bound.
    let mut listed = black_box(count.wrapping_mul(RANGE_BYTES));
    if listed > MAX_BYTES {
        listed = 0;
    }
    // SAFETY: as above.
    let to = unsafe { (&raw mut (*record).ranges).cast::<u8>() };
    if read_into(to, listed as u32, first).is_err() {
        entry.discard(0);
        fault(hit);
        return None;
    }
    // SAFETY: as above.
    unsafe { (*record).header = hit.header(KIND_CIRCULAR) };
    submit(entry, hit);
    Some(())
}

/// The chip, if a device is a single one.
#[inline(never)]
fn chip_of(device: u64, layout: &LayoutTable) -> i32 {
    let is_chip = matches!(read::<u64>(device), Ok(vptr) if vptr == layout.device.device_vptr);
    if !is_chip {
        return NO_CHIP;
    }
    match read_chain(device, &layout.device.chip_id) {
        Ok(id) => id as i32,
        Err(Fault) => NO_CHIP,
    }
}
