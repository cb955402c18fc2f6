//! Allocation.
//!
//! Room for the record is reserved before the buffer is read. The room's cache lines were last in
//! the agent's processor; they come over while the fields are read, and the target does not wait
//! for them. What the room has to be for is not known yet: as for the buffer before on this CPU.
//! Where that does not fit, or the device has to be described first, it is all done again in order.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, programs::ProbeContext};
use aya_log_ebpf::debug;
use ttmem_common::{
    layout::{ABSENT, BufferLayout, CORE_BYTES, FIRST_SHARDED, LayoutTable},
    loss::LossCause,
    record::{
        AllocateRecord, FLAG_CORE_COUNT, FLAG_DISTRIBUTION_SPEC, FLAG_PER_CORE, FLAG_SHARD_SPEC,
        KIND_ALLOCATE, KIND_ALLOCATE_SHARDED, RecordHeader, ShardedRecord, Sharding,
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
    user_memory::{Fault, read},
};

/// `GraphTracker::track_allocate(this, const Buffer*)`.
#[inline(always)]
pub fn on_allocate(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let buffer: u64 = ctx.arg(1)?;
    let emitted = if expects_sharded() {
        ahead::<ShardedRecord>(buffer, hit, layout)
    } else {
        ahead::<AllocateRecord>(buffer, hit, layout)
    };
    if emitted.is_err() {
        debug!(ctx, "buffer {:x} could not be read", buffer);
        lose(LossCause::ReadFault);
    }
    Some(())
}

/// A record of an allocation.
trait Record: 'static {
    const KIND: u32;
    const IS_SHARDED: bool;

    /// Brings the record's cache lines over.
    ///
    /// # Safety
    /// It is room for a record.
    unsafe fn begin(record: *mut Self, header: RecordHeader);

    /// Writes what the header has not; `Err` if something could not be read.
    ///
    /// # Safety
    /// It is room for a record.
    unsafe fn fill(
        record: *mut Self,
        buffer: u64,
        fields: u64,
        read: &Fields,
        layout: &BufferLayout,
    ) -> Result<(), Fault>;
}

impl Record for AllocateRecord {
    const KIND: u32 = KIND_ALLOCATE;
    const IS_SHARDED: bool = false;

    #[inline(always)]
    unsafe fn begin(record: *mut Self, header: RecordHeader) {
        // SAFETY: the caller's.
        unsafe {
            (&raw mut (*record).header).write_volatile(header);
            (&raw mut (*record).reserved).write_volatile(0);
        }
    }

    #[inline(always)]
    unsafe fn fill(
        record: *mut Self,
        buffer: u64,
        _: u64,
        read: &Fields,
        _: &BufferLayout,
    ) -> Result<(), Fault> {
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
        }
        Ok(())
    }
}

impl Record for ShardedRecord {
    const KIND: u32 = KIND_ALLOCATE_SHARDED;
    const IS_SHARDED: bool = true;

    #[inline(always)]
    unsafe fn begin(record: *mut Self, header: RecordHeader) {
        // SAFETY: the caller's.
        unsafe {
            AllocateRecord::begin(&raw mut (*record).buffer, header);
            (&raw mut (*record).sharding.shard_cores).write_volatile(0);
        }
    }

    #[inline(always)]
    unsafe fn fill(
        record: *mut Self,
        buffer: u64,
        fields: u64,
        read: &Fields,
        layout: &BufferLayout,
    ) -> Result<(), Fault> {
        let (sharding, flags) = read_sharding(fields, layout)?;
        // SAFETY: the caller's.
        unsafe {
            AllocateRecord::fill(&raw mut (*record).buffer, buffer, fields, read, layout)?;
            (*record).buffer.flags |= flags;
            (*record).sharding = sharding;
        }
        Ok(())
    }
}

/// Takes room first, and reads then.
#[inline(always)]
fn ahead<R: Record>(buffer: u64, hit: &Hit, table: &LayoutTable) -> Result<(), Fault> {
    let layout = &table.buffer;
    let described = describe::count();
    let mut room = EVENTS.reserve::<R>(0);
    if let Some(entry) = &mut room {
        // SAFETY: room for a record.
        unsafe { R::begin(entry.as_mut_ptr(), hit.header(R::KIND)) };
    }
    let read = Fields::read(buffer, layout);
    if let Some(mut entry) = room {
        if let Ok((fields, read)) = &read
            && read.hooked == 0
            && is_sharded(read, layout) == R::IS_SHARDED
            && describe::is_known(read.device, read.allocator, hit)
            // And not behind this record's room.
            && describe::count() == described
            // SAFETY: room for a record.
            && unsafe { R::fill(entry.as_mut_ptr(), buffer, *fields, read, layout) }.is_ok()
        {
            count::allocation(hit, read.buffer_type, read.size);
            submit(entry);
            return Ok(());
        }
        entry.discard(BPF_RB_NO_WAKEUP.into());
    }
    match read {
        Ok((fields, read)) => in_order(&Allocation { buffer, fields, read }, hit, table),
        Err(fault) => {
            count::one::<UNREAD_ALLOCATIONS>(hit);
            Err(fault)
        }
    }
}

/// What is read of a buffer.
struct Allocation {
    /// `Buffer*`.
    buffer: u64,
    /// Address of the object that holds its fields.
    fields: u64,
    read: Fields,
}

/// Describes the device if that has not been done, and takes room then.
#[inline(never)]
fn in_order(allocation: &Allocation, hit: &Hit, table: &LayoutTable) -> Result<(), Fault> {
    let Allocation { buffer, fields, read } = allocation;
    if read.hooked != 0 {
        // A graph capture pretended to allocate; nothing was.
        return Ok(());
    }
    count::allocation(hit, read.buffer_type, read.size);
    describe::if_new(read.device, read.allocator, hit, table);
    let is_sharded = is_sharded(read, &table.buffer);
    expect_sharded(is_sharded);
    if is_sharded {
        emit::<ShardedRecord>(*buffer, *fields, read, hit, &table.buffer)
    } else {
        emit::<AllocateRecord>(*buffer, *fields, read, hit, &table.buffer)
    }
}

#[inline(always)]
fn emit<R: Record>(
    buffer: u64,
    fields: u64,
    read: &Fields,
    hit: &Hit,
    layout: &BufferLayout,
) -> Result<(), Fault> {
    let Some(mut entry) = reserve::<R>() else { return Ok(()) };
    let record = entry.as_mut_ptr();
    // SAFETY: room for a record.
    let filled = unsafe {
        R::begin(record, hit.header(R::KIND));
        R::fill(record, buffer, fields, read, layout)
    };
    if filled.is_ok() {
        submit(entry);
    } else {
        entry.discard(BPF_RB_NO_WAKEUP.into());
    }
    filled
}

#[inline(always)]
fn is_sharded(read: &Fields, layout: &BufferLayout) -> bool {
    (FIRST_SHARDED..=layout.last_sharded).contains(&read.memory_layout)
}

/// Whether the buffer before on this CPU was sharded.
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
