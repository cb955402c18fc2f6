//! Free and bulk free.

use aya_ebpf::programs::ProbeContext;
use aya_log_ebpf::debug;
use ttmem_common::{
    control::DESCRIBE_FREES,
    layout::{BufferLayout, LayoutTable},
    record::{
        BulkFreeRecord, DescribedFreeRecord, FLAG_PER_CORE, FreeRecord, KIND_BULK_FREE, KIND_FREE,
        KIND_FREE_DESCRIBED,
    },
    witness::{BULK_FREES, FREES},
};

use super::{
    describe,
    fields::{Fields, is_per_core},
};
use crate::{
    count,
    emit::{Hit, emit, reserve, submit},
    user_memory::Fault,
};

/// `AllocatorImpl::deallocate_buffer(this, Buffer*)`.
#[inline(always)]
pub fn on_free(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let allocator = ctx.arg(0)?;
    let buffer = ctx.arg(1)?;
    count::one::<FREES>(hit);
    if hit.control(DESCRIBE_FREES) != 0
        && let Ok(described) = Description::read(buffer, hit, &layout.buffer)
    {
        let header = hit.header(KIND_FREE_DESCRIBED);
        emit(hit, || described.of(FreeRecord { header, buffer, allocator }))
    } else {
        let header = hit.header(KIND_FREE);
        emit(hit, || FreeRecord { header, buffer, allocator })
    }
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
    fn read(buffer: u64, hit: &Hit, layout: &BufferLayout) -> Result<Self, Fault> {
        let (fields, mut read) = Fields::read(buffer, hit, layout)?;
        if is_per_core(fields, layout)? {
            read.flags |= FLAG_PER_CORE;
        }
        let Fields { device, address, unique_id, buffer_type, flags, .. } = read;
        Ok(Self { device, address, unique_id, buffer_type, flags })
    }

    #[inline(always)]
    fn of(&self, free: FreeRecord) -> DescribedFreeRecord {
        let Self { device, address, unique_id, buffer_type, flags } = *self;
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
    describe::forget_all(hit);
    let mut entry = reserve::<BulkFreeRecord>()?;
    entry.write(BulkFreeRecord { header: hit.header(KIND_BULK_FREE), allocator });
    submit(entry, hit);
    Some(())
}
