//! Allocation, free and bulk free.

use aya_ebpf::programs::ProbeContext;
use aya_log_ebpf::debug;
use ttmem_common::{
    control::DESCRIBE_FREES,
    layout::{ABSENT, BufferLayout, CORE_BYTES, FIRST_SHARDED, LayoutTable},
    loss::LossCause,
    record::{
        AllocateRecord, BulkFreeRecord, DescribedFreeRecord, FLAG_CORE_COUNT,
        FLAG_DISTRIBUTION_SPEC, FLAG_PER_CORE, FLAG_SHARD_SPEC, FreeRecord, KIND_ALLOCATE,
        KIND_ALLOCATE_SHARDED, KIND_BULK_FREE, KIND_FREE, KIND_FREE_DESCRIBED, ShardedRecord,
        Sharding,
    },
    witness::{BULK_FREES, FREES, UNREAD_ALLOCATIONS},
};

use super::{describe, fields::Fields};
use crate::{
    count::{self, lose},
    emit::{Hit, control, reserve, submit},
    stack,
    user_memory::{Fault, read},
};

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

/// Whether each core of a buffer has an address of its own.
#[inline(always)]
fn is_per_core(fields: u64, layout: &BufferLayout) -> Result<bool, Fault> {
    if layout.per_core == ABSENT {
        return Ok(false);
    }
    Ok(read::<u8>(fields.wrapping_add(u64::from(layout.per_core)))? != 0)
}

/// `GraphTracker::track_allocate(this, const Buffer*)`.
#[inline(always)]
pub fn on_allocate(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let buffer: u64 = ctx.arg(1)?;
    match allocate(buffer, hit, layout) {
        Ok(Some(time_ns)) => stack::record(ctx, hit, time_ns),
        Ok(None) => {}
        Err(Fault) => {
            debug!(ctx, "buffer {:x} could not be read", buffer);
            lose(LossCause::ReadFault);
        }
    }
    Some(())
}

/// Records an allocation; the time of the record, if there is one.
#[inline(always)]
fn allocate(buffer: u64, hit: &Hit, table: &LayoutTable) -> Result<Option<u64>, Fault> {
    let layout = &table.buffer;
    let Ok((fields, read)) = Fields::read(buffer, layout) else {
        count::one::<UNREAD_ALLOCATIONS>(hit);
        return Err(Fault);
    };
    if read.hooked != 0 {
        // A graph capture pretended to allocate; nothing was.
        return Ok(None);
    }
    count::allocation(hit, read.buffer_type, read.size);
    let Fields { device, allocator, memory_layout, .. } = read;
    let mut record = AllocateRecord {
        header: hit.header_of(0, KIND_ALLOCATE),
        buffer,
        allocator,
        device,
        size: read.size,
        page_size: read.page_size,
        address: read.address,
        unique_id: read.unique_id,
        buffer_type: read.buffer_type,
        memory_layout,
        flags: read.flags,
        reserved: 0,
    };
    describe::if_new(device, allocator, hit, table);
    if memory_layout < FIRST_SHARDED || memory_layout > layout.last_sharded {
        let Some(mut entry) = reserve::<AllocateRecord>() else { return Ok(None) };
        record.header = hit.header(KIND_ALLOCATE);
        entry.write(record);
        submit(entry);
    } else {
        let (sharding, flags) = read_sharding(fields, layout)?;
        record.flags |= flags;
        let Some(mut entry) = reserve::<ShardedRecord>() else { return Ok(None) };
        record.header = hit.header(KIND_ALLOCATE_SHARDED);
        entry.write(ShardedRecord { buffer: record, sharding });
        submit(entry);
    }
    Ok(Some(record.header.time_ns))
}

/// `AllocatorImpl::deallocate_buffer(this, Buffer*)`.
#[inline(always)]
pub fn on_free(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let allocator = ctx.arg(0)?;
    let buffer = ctx.arg(1)?;
    count::one::<FREES>(hit);
    if control(DESCRIBE_FREES)
        && let Ok(described) = Description::read(buffer, &layout.buffer)
    {
        let mut entry = reserve::<DescribedFreeRecord>()?;
        let free = FreeRecord { header: hit.header(KIND_FREE_DESCRIBED), buffer, allocator };
        entry.write(described.of(free));
        submit(entry);
        return Some(());
    }
    let mut entry = reserve::<FreeRecord>()?;
    entry.write(FreeRecord { header: hit.header(KIND_FREE), buffer, allocator });
    submit(entry);
    Some(())
}

/// What a free says of its buffer while the agent cannot know it.
struct Description {
    device: u64,
    address: u64,
    unique_id: u64,
    buffer_type: u32,
    flags: u32,
}

impl Description {
    #[inline(always)]
    fn read(buffer: u64, layout: &BufferLayout) -> Result<Self, Fault> {
        let (fields, mut read) = Fields::read(buffer, layout)?;
        if is_per_core(fields, layout)? {
            read.flags |= FLAG_PER_CORE;
        }
        let Fields { device, address, unique_id, buffer_type, flags, .. } = read;
        Ok(Self { device, address, unique_id, buffer_type, flags })
    }

    #[inline(always)]
    fn of(self, free: FreeRecord) -> DescribedFreeRecord {
        let Self { device, address, unique_id, buffer_type, flags } = self;
        DescribedFreeRecord { free, device, address, unique_id, buffer_type, flags }
    }
}

/// `AllocatorImpl::deallocate_buffers(this)`.
#[inline(always)]
pub fn on_bulk_free(ctx: &ProbeContext, hit: &Hit) -> Option<()> {
    let allocator: u64 = ctx.arg(0)?;
    debug!(ctx, "bulk free of allocator {:x}", allocator);
    count::one::<BULK_FREES>(hit);
    // The device is being closed: its address may soon mean another one.
    describe::forget(allocator, hit);
    let mut entry = reserve::<BulkFreeRecord>()?;
    entry.write(BulkFreeRecord { header: hit.header(KIND_BULK_FREE), allocator });
    submit(entry);
    Some(())
}
