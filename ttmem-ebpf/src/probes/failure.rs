//! Failed allocations: the entry of the function that throws "Out of Memory".
//!
//! Costs nothing while allocations succeed. What cannot be read is left out of the record, which
//! says so; the failure itself is reported all the same.

use core::arch::asm;

use aya_ebpf::programs::ProbeContext;
use ttmem_common::{
    failure::{
        FAILURE_CALLERS, FAILURE_FIELDS, FAILURE_SITES, FailureField, FailureLayout, FailureSite,
    },
    layout::{ABSENT, LayoutTable},
    record::{FAILURE_HAS_BUFFER, FailureRecord, KIND_FAILURE, TYPE_NAME_BYTES},
};

use super::fields::{Window, fields_of};
use crate::{
    emit::{Hit, reserve, submit},
    user_memory::{Fault, read, read_into, read_raw},
};

/// `tt_throw(file, line, function, condition, text, references…)`: the references are on the stack.
/// `None`: there is no record.
#[inline(always)]
pub fn on_failure(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    // SAFETY: the context is the one this program was called with.
    let sp = unsafe { (*ctx.regs).rsp };
    (report(sp, hit, layout) != NOTHING).then_some(())
}

/// What the buffer itself says, while it waits for its memory.
#[derive(Clone, Copy, Default)]
struct Wanted {
    allocator: u64,
    device: u64,
    buffer_type: u32,
}

/// There is no record.
const NOTHING: u32 = 0;
/// There is one.
const EMITTED: u32 = 1;

/// Returns one of the numbers above.
#[inline(never)]
fn report(stack: u64, hit: &Hit, table: &LayoutTable) -> u32 {
    // Other throws of the same function are none of ours; nor is one that cannot be told apart.
    let Ok(returns_to) = read::<u64>(stack) else { return NOTHING };
    let sites = &table.failure.sites;
    let found = place_of(returns_to, FAILURE_SITES, |index| sites[index].return_address);
    if found == 0 {
        return NOTHING;
    }
    let site = &sites[(found - 1) as usize & (FAILURE_SITES - 1)];
    let mut wanted = Wanted::default();
    let mut known = 0;
    if let Ok(buffer) = buffer_of(stack, site, &table.failure)
        && read_wanted(buffer, table, &mut wanted).is_ok()
    {
        // The device is not described here, which would double the time that the verifier takes:
        // its opening or an earlier buffer has done it.
        known = FAILURE_HAS_BUFFER;
    }
    let Some(mut entry) = reserve::<FailureRecord>() else { return NOTHING };
    let record = entry.as_mut_ptr();
    let header = hit.header(KIND_FAILURE);
    // SAFETY: `record` is room for a `FailureRecord`; every field is written before the submit.
    unsafe {
        (*record).header = header;
        (*record).type_name = [0; TYPE_NAME_BYTES];
        (*record).allocator = wanted.allocator;
        (*record).device = wanted.device;
        (*record).buffer_type = wanted.buffer_type;
        for field in 0..FAILURE_FIELDS {
            let mut value = 0_u64;
            let is_known = read_value(stack, site.places[field], site.widths[field], &mut value);
            (*record).values[field] = value;
            known |= is_known << field;
        }
    }
    let name = FailureField::Type as usize;
    let len = type_name(stack, site.places[name], record).unwrap_or(0);
    // SAFETY: as above.
    unsafe {
        (*record).values[name] = len;
        (*record).known = known | (u32::from(len != 0) << name);
    }
    submit(entry, hit);
    EMITTED
}

/// 1 if a number is not 0, else 0; without a branch, of which the verifier would have to follow
/// all combinations.
#[inline(always)]
fn is_something(number: u64) -> u64 {
    let mut sign = number | number.wrapping_neg();
    // SAFETY: nothing is done. The compiler cannot see what is in the register, and make a branch.
    unsafe { asm!("/* {0} */", inout(reg) sign) };
    sign >> 63
}

/// The index of the entry that has this address, plus 1; 0 if none has. Addresses differ.
#[inline(always)]
fn place_of(address: u64, count: usize, entry: impl Fn(usize) -> u64) -> u64 {
    let mut found = 0;
    for index in 0..count {
        let is_it = 1 ^ is_something(entry(index) ^ address);
        found |= is_it * (index as u64 + 1);
    }
    found
}

/// Reads the number that a reference on the stack leads to; 1 if it could be read.
#[inline(always)]
fn read_value(stack: u64, place: u8, width: u8, to: &mut u64) -> u32 {
    let place = u64::from(place);
    let mut reference = 0_u64;
    let at = stack.wrapping_add(place * 8);
    let no_reference = read_raw((&raw mut reference).cast(), 8, at);
    // 4 or 8; nothing of a text.
    let no_value = read_raw(core::ptr::from_mut(to).cast(), u32::from(width & 12), reference);
    let failed = is_something(no_reference | no_value);
    let is_number = is_something(place) & is_something(u64::from(width & 12));
    ((1 ^ failed) & is_number) as u32
}

/// Copies the text of the `string_view` (length, pointer) that a reference on the stack leads to;
/// returns its length.
#[inline(always)]
fn type_name(stack: u64, place: u8, record: *mut FailureRecord) -> Result<u64, Fault> {
    if place == 0 {
        return Err(Fault);
    }
    let view: u64 = read(stack.wrapping_add(u64::from(place) * 8))?;
    let len: u64 = read(view)?;
    let text: u64 = read(view.wrapping_add(8))?;
    if len == 0 || len > TYPE_NAME_BYTES as u64 {
        return Err(Fault);
    }
    // SAFETY: `record` is room for a `FailureRecord`; `len` is at most the size of the field.
    let to = unsafe { (&raw mut (*record).type_name).cast() };
    read_into(to, len as u32, text)?;
    Ok(len)
}

/// The `Buffer*` that the allocation is for, from the frame of the allocator's function.
#[inline(always)]
fn buffer_of(stack: u64, site: &FailureSite, layout: &FailureLayout) -> Result<u64, Fault> {
    if site.to_caller == ABSENT {
        return Err(Fault);
    }
    let frame = stack.wrapping_add(u64::from(site.to_caller));
    let returns_to: u64 = read(frame)?;
    let callers = &layout.callers;
    let found = place_of(returns_to, FAILURE_CALLERS, |index| callers[index].return_address);
    if found == 0 || returns_to == 0 {
        return Err(Fault);
    }
    let caller = &callers[(found - 1) as usize & (FAILURE_CALLERS - 1)];
    read(frame.wrapping_add(u64::from(caller.to_buffer)))
}

#[inline(always)]
fn read_wanted(buffer: u64, table: &LayoutTable, to: &mut Wanted) -> Result<(), Fault> {
    let layout = &table.buffer;
    let window = Window::read(fields_of(buffer, layout)?, layout)?;
    *to = Wanted {
        allocator: window.word(layout.allocator),
        device: window.word(layout.device),
        buffer_type: window.half(layout.buffer_type),
    };
    Ok(())
}
