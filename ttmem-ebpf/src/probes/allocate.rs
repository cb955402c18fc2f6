//! Allocation.
//!
//! Room for the record is reserved before the buffer is read. The room's cache lines were last in
//! the agent's processor; they come over while the fields are read, and the target does not wait
//! for them. The room is that of a buffer that is not sharded. Where one is, or its device has to be
//! described first, it is given back.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, programs::ProbeContext};
use aya_log_ebpf::debug;
use ttmem_common::{
    layout::{ABSENT, BufferLayout, CORE_BYTES, FIRST_SHARDED, LayoutTable},
    loss::LossCause,
    record::{
        AllocateRecord, FLAG_CORE_COUNT, FLAG_DISTRIBUTION_SPEC, FLAG_PER_CORE, FLAG_SHARD_SPEC,
        KIND_ALLOCATE, KIND_ALLOCATE_SHARDED, ShardedRecord, Sharding,
    },
    witness::UNREAD_ALLOCATIONS,
};

use super::{
    describe,
    fields::{Fields, is_per_core},
};
use crate::{
    count::{self, lose},
    emit::{Hit, reserve, submit},
    maps::{EVENTS, SPAN},
    stack,
    user_memory::{Fault, read},
};

/// `GraphTracker::track_allocate(this, const Buffer*)`.
#[inline(always)]
pub fn on_allocate(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let buffer: u64 = ctx.arg(1)?;
    let mut recorded = if expects_sharded() { None } else { ahead(buffer, hit, layout) };
    if recorded.is_none() {
        recorded = match in_order(buffer, hit, layout) {
            NOTHING => None,
            UNREADABLE => {
                debug!(ctx, "buffer {:x} could not be read", buffer);
                lose(LossCause::ReadFault);
                None
            }
            time_ns => Some(time_ns),
        };
    }
    if let Some(time_ns) = recorded {
        stack::record(ctx, hit, time_ns);
    }
    Some(())
}

/// Takes room first, and reads then; the time of the record. `None`: nothing has been counted or
/// emitted.
#[inline(always)]
fn ahead(buffer: u64, hit: &Hit, table: &LayoutTable) -> Option<u64> {
    let layout = &table.buffer;
    let described = describe::count();
    let mut entry = EVENTS.reserve::<AllocateRecord>(0)?;
    let record = entry.as_mut_ptr();
    let header = hit.header(KIND_ALLOCATE);
    // SAFETY: room for a record. A word of each cache line.
    unsafe {
        (&raw mut (*record).header).write_volatile(header);
        (&raw mut (*record).reserved).write_volatile(0);
    }
    if let Some((_, read)) = Fields::read_at_once(buffer, layout)
        && read.hooked == 0
        && !is_sharded(&read, layout)
        && describe::is_known(read.device, read.allocator, hit, described)
        // And not behind this record's room.
        && describe::count() == described
    {
        count::allocation(hit, read.buffer_type, read.size);
        // SAFETY: room for a record.
        unsafe { fill(record, buffer, &read) };
        submit(entry);
        return Some(header.time_ns);
    }
    entry.discard(BPF_RB_NO_WAKEUP.into());
    None
}

/// In place of a record's time: there is none, and none is needed.
const NOTHING: u64 = 0;
/// In place of a record's time: the buffer could not be read.
const UNREADABLE: u64 = 1;

/// Reads and describes the device, unless that has been done, and takes room then. Returns the time of
/// the record, or one of the numbers above.
///
/// What has been read before is read again: with it the verifier would have to follow all of this once
/// more, and it is seldom.
#[inline(never)]
fn in_order(buffer: u64, hit: &Hit, table: &LayoutTable) -> u64 {
    let layout = &table.buffer;
    let Ok((fields, read)) = Fields::read(buffer, layout) else {
        count::one::<UNREAD_ALLOCATIONS>(hit);
        return UNREADABLE;
    };
    if read.hooked != 0 {
        // A graph capture pretended to allocate; nothing was.
        return NOTHING;
    }
    count::allocation(hit, read.buffer_type, read.size);
    describe::if_new(read.device, read.allocator, hit, table);
    let is_sharded = is_sharded(&read, layout);
    expect_sharded(is_sharded);
    if is_sharded {
        let Ok((sharding, flags)) = read_sharding(fields, layout) else { return UNREADABLE };
        let Some(mut entry) = reserve::<ShardedRecord>() else { return NOTHING };
        let record = entry.as_mut_ptr();
        let header = hit.header(KIND_ALLOCATE_SHARDED);
        // SAFETY: room for a record.
        unsafe {
            let allocated = &raw mut (*record).buffer;
            (*allocated).header = header;
            fill(allocated, buffer, &read);
            (*allocated).flags |= flags;
            (*record).sharding = sharding;
        }
        submit(entry);
        header.time_ns
    } else {
        let Some(mut entry) = reserve::<AllocateRecord>() else { return NOTHING };
        let record = entry.as_mut_ptr();
        let header = hit.header(KIND_ALLOCATE);
        // SAFETY: room for a record.
        unsafe {
            (*record).header = header;
            fill(record, buffer, &read);
        }
        submit(entry);
        header.time_ns
    }
}

/// Writes all but the header.
///
/// # Safety
/// There is room for a record.
#[inline(always)]
unsafe fn fill(record: *mut AllocateRecord, buffer: u64, read: &Fields) {
    // SAFETY: the caller's.
    unsafe {
        (*record).buffer = buffer;
        (*record).allocator = read.allocator;
        (*record).device = read.device;
        (*record).size = read.size;
        (*record).page_size = read.page_size;
        (*record).address = read.address;
        (*record).unique_id = read.unique_id;
        (*record).buffer_type = read.buffer_type;
        (*record).memory_layout = read.memory_layout;
        (*record).flags = read.flags;
        (*record).reserved = 0;
    }
}

#[inline(always)]
fn is_sharded(read: &Fields, layout: &BufferLayout) -> bool {
    (FIRST_SHARDED..=layout.last_sharded).contains(&read.memory_layout)
}

/// Whether the buffer before on this CPU was sharded. Room that does not fit is lost time.
#[inline(always)]
fn expects_sharded() -> bool {
    // SAFETY: a live element of a map; aligned, and only ever a whole word.
    SPAN.get_ptr(0).is_some_and(|span| unsafe { (&raw const (*span).sharded).read_volatile() } != 0)
}

#[inline(always)]
fn expect_sharded(is_sharded: bool) {
    if let Some(span) = SPAN.get_ptr_mut(0) {
        // SAFETY: as above.
        unsafe { (&raw mut (*span).sharded).write_volatile(is_sharded.into()) };
    }
}

/// How a sharded buffer spreads over cores, and the flags that say what of it is known.
#[inline(always)]
fn read_sharding(fields: u64, layout: &BufferLayout) -> Result<(Sharding, u32), Fault> {
    let mut sharding = Sharding::default();
    let mut flags = 0;
    if layout.shard_spec_present == ABSENT {
        return Ok((sharding, flags));
    }
    let at = |offset: u32| fields.wrapping_add(u64::from(offset));
    if is_per_core(fields, layout)? {
        flags |= FLAG_PER_CORE;
        if layout.core_count != ABSENT {
            flags |= FLAG_CORE_COUNT;
            sharding.shard_cores = read(at(layout.core_count))?;
        }
    }
    if read::<u8>(at(layout.shard_spec_present))? != 0 {
        flags |= FLAG_SHARD_SPEC;
        sharding.shard_shape = read(at(layout.shard_shape))?;
        sharding.page_shape = read(at(layout.page_shape))?;
    }
    if flags & FLAG_PER_CORE == 0
        && layout.distribution_present != ABSENT
        && read::<u8>(at(layout.distribution_present))? != 0
    {
        flags |= FLAG_DISTRIBUTION_SPEC;
        let begin: u64 = read(at(layout.cores_begin))?;
        let end: u64 = read(at(layout.cores_end))?;
        sharding.shard_cores = end.wrapping_sub(begin) / CORE_BYTES;
        sharding.shard_count = read(at(layout.shard_count))?;
        sharding.shard_pages = u64::from(read::<u32>(at(layout.shard_pages))?);
    }
    Ok((sharding, flags))
}
