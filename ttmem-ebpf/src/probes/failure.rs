//! Failed allocations: the entry of the function that throws "Out of Memory".
//!
//! Costs nothing while allocations succeed. What cannot be read is left out of the record, which
//! says so; the failure itself is reported all the same.

use aya_ebpf::programs::ProbeContext;
use ttmem_common::{
    failure::{
        FAILURE_CALLERS, FAILURE_FIELDS, FAILURE_SITES, FailureField, FailureLayout, FailureSite,
    },
    layout::{ABSENT, LayoutTable},
    record::{FAILURE_HAS_BUFFER, FailureRecord, KIND_FAILURE, TYPE_NAME_BYTES},
};

use super::{
    buffer::{Window, fields_of},
    describe,
};
use crate::{
    emit::{Hit, reserve, submit},
    user_memory::{Fault, read, read_into},
};

/// `tt_throw(file, line, function, condition, text, references…)`: the references are on the stack.
#[inline(always)]
pub fn on_failure(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    // SAFETY: the context is the one this program was called with.
    let stack = unsafe { (*ctx.regs).rsp };
    report(stack, hit, layout);
    Some(())
}

/// What the buffer itself says, while it waits for its memory.
#[derive(Clone, Copy, Default)]
struct Wanted {
    allocator: u64,
    device: u64,
    buffer_type: u32,
}

#[inline(never)]
fn report(stack: u64, hit: &Hit, table: &LayoutTable) -> u32 {
    // Other throws of the same function are none of ours; nor is one that cannot be told apart.
    let Ok(returns_to) = read::<u64>(stack) else { return 0 };
    let Some(site) = site_of(returns_to, &table.failure) else { return 0 };
    let mut wanted = Wanted::default();
    let mut known = 0;
    if let Ok(buffer) = buffer_of(stack, site, &table.failure)
        && read_wanted(buffer, table, &mut wanted).is_ok()
    {
        known = FAILURE_HAS_BUFFER;
        describe::if_new(wanted.device, wanted.allocator, hit, table);
    }
    let Some(mut entry) = reserve::<FailureRecord>() else { return 0 };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` is room for a `FailureRecord`; every field is written before the submit.
    unsafe {
        (*record).header = hit.header(KIND_FAILURE);
        (*record).type_name = [0; TYPE_NAME_BYTES];
        (*record).allocator = wanted.allocator;
        (*record).device = wanted.device;
        (*record).buffer_type = wanted.buffer_type;
        for field in 0..FAILURE_FIELDS {
            let value = value(stack, site.places[field], site.widths[field]);
            (*record).values[field] = value.unwrap_or(0);
            if value.is_some() {
                known |= 1 << field;
            }
        }
    }
    let name = FailureField::Type as usize;
    let read = type_name(stack, site.places[name], record);
    if read.is_err() {
        known &= !(1 << name);
    }
    // SAFETY: as above.
    unsafe { (*record).known = known };
    submit(entry);
    0
}

/// The call that returns there, if it is one that reports a failed allocation.
#[inline(always)]
fn site_of(returns_to: u64, layout: &FailureLayout) -> Option<&FailureSite> {
    let mut found = FAILURE_SITES;
    for (index, site) in layout.sites.iter().enumerate() {
        if site.return_address == returns_to {
            found = index;
        }
    }
    (found < FAILURE_SITES).then(|| &layout.sites[found & (FAILURE_SITES - 1)])
}

/// The number that a reference on the stack leads to.
#[inline(never)]
fn value_at(stack: u64, place: u64, width: u64, to: &mut u64) -> u32 {
    let Ok(reference) = read::<u64>(stack.wrapping_add(place * 8)) else { return 1 };
    let read = if width == 4 { read::<u32>(reference).map(u64::from) } else { read(reference) };
    match read {
        Ok(value) => {
            *to = value;
            0
        }
        Err(Fault) => 1,
    }
}

#[inline(always)]
fn value(stack: u64, place: u8, width: u8) -> Option<u64> {
    if place == 0 {
        return None;
    }
    let mut value = 0;
    (value_at(stack, u64::from(place), u64::from(width), &mut value) == 0).then_some(value)
}

/// Copies the text of the `string_view` (length, pointer) that a reference on the stack leads to.
#[inline(always)]
fn type_name(stack: u64, place: u8, record: *mut FailureRecord) -> Result<(), Fault> {
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
    read_into(to, len as u32, text)
}

/// The `Buffer*` that the allocation is for, from the frame of the allocator's function.
#[inline(always)]
fn buffer_of(stack: u64, site: &FailureSite, layout: &FailureLayout) -> Result<u64, Fault> {
    if site.to_caller == ABSENT {
        return Err(Fault);
    }
    let frame = stack.wrapping_add(u64::from(site.to_caller));
    let returns_to: u64 = read(frame)?;
    let mut found = FAILURE_CALLERS;
    for (index, caller) in layout.callers.iter().enumerate() {
        if caller.return_address == returns_to {
            found = index;
        }
    }
    if found >= FAILURE_CALLERS || returns_to == 0 {
        return Err(Fault);
    }
    let caller = &layout.callers[found & (FAILURE_CALLERS - 1)];
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
